"""What tests of threads share: whether other threads run while a compiled function does, told by the order of events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

_TRIES = 50  # on a busy machine the other thread may be given no processor until a call is over


class Watched:
    """A function that notes in a list when each of its calls begins and ends."""

    def __init__(self, function: Callable[..., Any], order: list[str]) -> None:
        self.function, self.order = function, order

    def __call__(self, *arguments: Any) -> Any:
        self.order.append("begins")
        try:
            return self.function(*arguments)
        finally:
            self.order.append("ends")


@contextmanager
def nobody_is_interrupted() -> Iterator[None]:
    """Inside, a thread of Python runs until it lets go of the interpreter's lock by itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def others_run_during(call: Callable[[], Any], order: list[str]) -> set[int]:
    """Which of a call's watched functions let other threads run: their places, in the order in which they are called.

    Parameters
    ----------
    call : callable
        Calls one or more :class:`Watched` functions, the same ones each time.
    order : list of str
        Where these note their beginnings and ends, and this the turns of another thread.
    """
    found, calls = set[int](), 0
    with nobody_is_interrupted():
        for _ in range(_TRIES):
            order.clear()
            thread = Thread(target=call)
            thread.start()
            while thread.is_alive():
                order.append("another")
                time.sleep(1e-4)  # lets go of the lock
            thread.join()
            calls = order.count("begins")
            begins = [place for place, event in enumerate(order) if event == "begins"]
            ends = [place for place, event in enumerate(order) if event == "ends"]
            found |= {i for i, (first, last) in enumerate(zip(begins, ends, strict=True)) if "another" in order[first:last]}
            if len(found) == calls:
                break
    assert calls, "nothing that is watched was called"
    return found
