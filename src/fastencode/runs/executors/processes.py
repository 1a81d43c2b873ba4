"""Run calls in other processes of this computer. If one is killed, only its own call is lost."""

from __future__ import annotations

import atexit
import fcntl
import multiprocessing
import os
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Any

from tqdm import tqdm

from fastencode import progress
from fastencode.limits import available_processors
from fastencode.runs.executors import Call, End, Lost, carried_out, packed

__all__ = ["Processes"]

_SOON = 5.0  # s to wait for an idle process to end by itself


@dataclass
class _Worker:
    process: Any
    connection: Connection
    row: int
    key: str | None = None


class Processes:
    """Runs calls in up to ``count`` processes of this computer, which share the processors equally.

    Processes are started by "spawn", so functions must be importable. They wait for further calls until :meth:`close`. They
    ignore Ctrl-C, which this process handles for them. If this process ends or is killed, they end, too.

    Parameters
    ----------
    count : int
    prepare : callable, optional
        Called in the process before each call.
    """

    def __init__(self, count: int, prepare: Callable[[], None] | None = None) -> None:
        self.slots = self._count = count
        self._prepare = prepare
        self._calls: deque[tuple[str, bytes]] = deque()
        self._told: deque[tuple[str, Any]] = deque()
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")
        self._screen = NamedTemporaryFile(prefix="fastencode-")  # noqa: SIM115 - closed by close()
        tqdm.set_lock(_ScreenLock(self._screen.name))
        atexit.register(_close, weakref.ref(self))  # before multiprocessing waits for processes that wait for calls

    def start(self, key: str, function: Call, *arguments: Any) -> None:
        call = packed(function, arguments)
        if isinstance(call, Lost):
            self._told.append((key, call))
        else:
            self._calls.append((key, call))

    def next(self) -> tuple[str, Any]:
        while not self._told:
            self._assign()
            busy = [worker for worker in self._workers if worker.key is not None]
            ready = set(wait([worker.connection for worker in busy] + [worker.process.sentinel for worker in busy]))
            for worker in busy:
                if worker.connection in ready or worker.process.sentinel in ready:
                    self._hear(worker)
        return self._told.popleft()

    def close(self) -> None:
        for worker in self._workers:
            if worker.key is not None:
                worker.process.terminate()
            worker.connection.close()  # an idle process then ends by itself
        for worker in self._workers:
            worker.process.join(_SOON)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()
        self._calls.clear()
        self._screen.close()

    def _assign(self) -> None:
        """Give waiting calls to idle processes; start further processes up to ``count``."""
        while self._calls:
            idle = next((worker for worker in self._workers if worker.key is None), None)
            if idle is None:
                if len(self._workers) == self._count:
                    return
                idle = self._begin()
            key, call = self._calls[0]
            try:
                idle.connection.send_bytes(call)
            except OSError:  # killed while it was idle
                self._end(idle)
                continue
            self._calls.popleft()
            idle.key = key

    def _begin(self) -> _Worker:
        row = min(set(range(1, self._count + 1)) - {worker.row for worker in self._workers})
        ours, theirs = self._context.Pipe()
        threads = max(1, available_processors() // self._count)
        process = self._context.Process(
            target=_work, args=(theirs, row, self._screen.name, threads, self._prepare), name=f"fastencode {row}"
        )
        with _unheard_interrupt():
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, row))
        return self._workers[-1]

    def _hear(self, worker: _Worker) -> None:
        assert worker.key is not None
        key = worker.key
        try:
            result = worker.connection.recv() if worker.connection.poll() else None
        except (EOFError, OSError):
            result = None
        if result is None:
            self._told.append((key, Lost(_fate(self._end(worker)))))
            return
        if isinstance(result, End | Lost):
            worker.key = None
        self._told.append((key, result))

    def _end(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        return int(worker.process.exitcode)


def _close(processes: weakref.ref[Processes]) -> None:
    if (there := processes()) is not None:
        there.close()


def _fate(code: int) -> str:
    """Why a process ended before its call did, from its exit code."""
    if code == -signal.SIGKILL:
        return "killed, probably out of memory (SIGKILL)"
    if code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


def _work(connection: Connection, row: int, screen: str, threads: int, prepare: Callable[[], None] | None) -> None:
    """Main loop of a process: receive calls, send results."""
    _end_with_parent()
    tqdm.set_lock(_ScreenLock(screen))
    progress.row = row
    while True:
        try:
            call = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            for result in carried_out(call, prepare, threads):
                connection.send(result)
            connection.send(End())
        except BrokenPipeError:
            return
        except Exception as error:
            connection.send(Lost(f"{type(error).__name__}: {error}", traceback.format_exc()))
        call = b""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def _unheard_interrupt() -> Iterator[None]:
    """Processes started in this context ignore Ctrl-C, also while they import. The parent process ends them."""
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers only in the main thread
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _ScreenLock:
    """Lock for drawing progress bars. Unlike a lock of multiprocessing, it is released if its process is killed."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - as long as the lock
        self._inside, self._depth = threading.RLock(), 0

    def acquire(self, *_: Any, **__: Any) -> bool:
        self._inside.acquire()
        if self._depth == 0:
            self._flock("LOCK_EX")
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._flock("LOCK_UN")
        self._inside.release()

    def _flock(self, operation: str) -> None:
        with suppress(OSError):
            fcntl.flock(self._file, getattr(fcntl, operation))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
