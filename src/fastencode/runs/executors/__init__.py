"""Where stages are made: in this process, in others of this computer, on a Dask cluster, or as SLURM jobs.

An executor is given calls of functions that yield results, and hands on what they yield, in the order in which it comes. It knows
nothing of stages: whoever calls keeps the books. All have three methods: ``start`` submits a call, ``next`` waits for what comes
back, or for the news that it never will, and ``close`` cancels. Arguments are pickled on their way to other processes; what is
made goes into files, never back through here.

This file holds what all of them share, and :class:`Here`; each of the others has a file of its own, and ``where.py`` chooses.
"""

from __future__ import annotations

import pickle
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from fastencode.errors import require
from fastencode.threads import limit_threads

__all__ = ["Call", "End", "Executor", "Here", "Lost", "carried_out", "packed", "settle"]

Call = Callable[..., Iterator[Any]]


def settle() -> None:
    """How a process computes that tunes or reads models: torch with one thread, transformers without bars and reports of its own.

    Two processes of one thread do more on two cores than one process of two, and numbers do not depend on how many there are.
    """
    require("torch", "tune").set_num_threads(1)
    logging = require("transformers", "tune").utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


class End(NamedTuple):
    """A call has yielded all of its results."""


class Lost(NamedTuple):
    """A call came to no end, and why: its process was killed, say. Where an exception is to blame, with its traceback."""

    why: str
    trace: str = ""


class Executor(Protocol):
    """Where calls are made."""

    @property
    def slots(self) -> int | None:
        """How many calls are made at a time; None where nobody knows, as in the queue of a cluster."""

    def start(self, key: str, function: Call, *arguments: Any) -> None:
        """Make a call now or later; returns soon."""

    def next(self) -> tuple[str, Any]:
        """The next result of any call, with the call's key: what it yielded, :class:`End` or :class:`Lost`. Waits for it."""

    def close(self) -> None:
        """Stop what is running, as far as that can be done, and let all go."""


class Here:
    """Calls made in this process, one after another; what kills it kills them all.

    Parameters
    ----------
    prepare : callable, optional
        Called once, at the start.
    """

    slots = 1

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._calls: deque[tuple[str, Iterator[Any]]] = deque()
        if prepare is not None:
            prepare()

    def start(self, key: str, function: Call, *arguments: Any) -> None:
        self._calls.append((key, function(*arguments)))

    def next(self) -> tuple[str, Any]:
        key, results = self._calls[0]
        for result in results:
            return key, result
        self._calls.popleft()
        return key, End()

    def close(self) -> None:
        self._calls.clear()


def packed(function: Call, arguments: tuple[Any, ...]) -> bytes | Lost:
    """A call as another process gets it; :class:`Lost` where it cannot be pickled."""
    try:
        return pickle.dumps((function, arguments))
    except Exception as error:  # whatever the classes of the arguments raise
        return Lost(f"cannot be sent to another process: {error}", traceback.format_exc())


def carried_out(call: bytes, prepare: Callable[[], None] | None, threads: int) -> Iterator[Any]:
    """What a packed call yields, in the process that got it.

    Parameters
    ----------
    call : bytes
        What :func:`packed` returned.
    prepare : callable, optional
        Called before.
    threads : int
        How many the numerical libraries may use meanwhile.
    """
    function, arguments = pickle.loads(call)
    with limit_threads(threads):
        if prepare is not None:
            prepare()
        yield from function(*arguments)
