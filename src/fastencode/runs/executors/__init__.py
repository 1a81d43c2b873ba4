"""Executors run stages: in this process, in other processes of this computer, on a Dask cluster, or as SLURM jobs.

An executor runs calls of generator functions and returns the results that they yield, in the order of arrival. It knows nothing
about stages; the engine keeps track of these. Every executor has three methods: ``start`` submits a call, ``next`` waits for the
next result or the news that a call was lost, and ``close`` cancels what is left. Arguments are pickled for other processes. Large
results are written to files and never returned through an executor.

This file has what all executors share, and :class:`Here`. The other executors have a file each, and ``where.py`` chooses one.
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
    """Prepare a process to run models: torch uses one thread, and transformers shows no progress bars and messages.

    On two cores, two processes with one thread each are faster than one process with two threads. And with one thread, results do
    not depend on the number of cores.
    """
    require("torch", "tune").set_num_threads(1)
    logging = require("transformers", "tune").utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


class End(NamedTuple):
    """The call has yielded all of its results."""


class Lost(NamedTuple):
    """The call ended early, for example because its process was killed.

    Attributes
    ----------
    why : str
    trace : str
        Traceback, if an exception was the cause.
    """

    why: str
    trace: str = ""


class Executor(Protocol):
    """Runs calls."""

    @property
    def slots(self) -> int | None:
        """How many calls run at the same time; None if unknown, as in the queue of a cluster."""

    def start(self, key: str, function: Call, *arguments: Any) -> None:
        """Submit a call. Returns without waiting for it."""

    def next(self) -> tuple[str, Any]:
        """Wait for the next result of any call. Returns the call's key, and a yielded result, :class:`End` or :class:`Lost`."""

    def close(self) -> None:
        """Cancel calls that wait, stop running calls if possible, and free resources."""


class Here:
    """Runs calls in this process, one after another. If it is killed, all calls are lost.

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
    """Pickle a call for another process; :class:`Lost` if it cannot be pickled."""
    try:
        return pickle.dumps((function, arguments))
    except Exception as error:  # pickling runs methods of the arguments, which may raise anything
        return Lost(f"cannot be sent to another process: {error}", traceback.format_exc())


def carried_out(call: bytes, prepare: Callable[[], None] | None, threads: int) -> Iterator[Any]:
    """Run a packed call in the process that received it, and yield its results.

    Parameters
    ----------
    call : bytes
        What :func:`packed` returned.
    prepare : callable, optional
        Called before the call.
    threads : int
        Threads that numerical libraries may use during the call.
    """
    function, arguments = pickle.loads(call)
    with limit_threads(threads):
        if prepare is not None:
            prepare()
        yield from function(*arguments)
