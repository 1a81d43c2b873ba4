"""Run calls on the workers of a Dask cluster. Workers read and write the output folder themselves.

Each call is one Dask task. Its results are sent one by one as events, and all of them again at the end of the task, so that
none is lost. If a worker dies, the scheduler gives its task to another worker. After four dead workers it gives up the task
(its setting ``distributed.scheduler.allowed-failures``, 3). A repeated task skips stages that are already finished.

Dask counts a worker's death as a failure of every task that waits on this worker, not only of the one that runs. So this
executor submits no more calls than there are task slots. A cluster that grows on demand therefore sees no waiting tasks, and
needs a minimum number of workers.

The thread of a worker cannot be interrupted. After Ctrl-C, waiting calls are cancelled, and running calls end after their current
stage, which is kept. Workers notice this because a sign file, which exists as long as the command runs, is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import queue
import secrets
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastencode.errors import InputError, require
from fastencode.files import is_running, sha256, writing
from fastencode.limits import available_processors
from fastencode.progress import say
from fastencode.runs.executors import Call, End, Lost, carried_out, packed
from fastencode.runs.provenance import digest

__all__ = ["Dask", "connected"]

_ANSWER = 10.0  # s to wait for an answer of the scheduler
_LOOK = 5.0  # s between two counts of the workers


def connected(address: str) -> Any:
    """Connect to a Dask scheduler and return the client.

    Parameters
    ----------
    address : str
        Such as ``tcp://node12:8786``.

    Raises
    ------
    InputError
        If no scheduler answers.
    """
    distributed = require("distributed", "dask")
    try:
        return distributed.Client(address, timeout=_ANSWER, set_as_default=False, name="fastencode")
    except (OSError, ValueError, TimeoutError) as error:
        reason = f"no Dask scheduler answers at {address!r} within {_ANSWER:.0f} s ({type(error).__name__})"
        raise InputError(f"{reason}: check that it runs, and the address that it printed") from error


@dataclass
class _Call:
    key: str
    future: Any
    heard: int = 0  # results that were returned by next()


@dataclass(frozen=True)
class _Place:
    """What a worker checks before it runs a call: the sign file, the folder of relative paths, a digest of the code."""

    sign: str
    folder: str
    code: str


class Dask:
    """Runs calls on Dask workers. They must share the output folder and have the same version of fastencode.

    Workers run calls in the folder in which this command was started. Each task may use the processors of its computer divided by
    the number of task slots there.

    Parameters
    ----------
    address : str
        Address of the scheduler.
    root : Path
        The output folder; must exist.
    prepare : callable, optional
        Called in the worker before each call.

    Raises
    ------
    InputError
        If no scheduler answers, or a worker does not see the folder or has another version of fastencode.
    """

    def __init__(self, address: str, root: Path, prepare: Callable[[], None] | None = None) -> None:
        self._client, self._address, self._prepare = connected(address), address, prepare
        self._name = f"fastencode-{secrets.token_hex(4)}"
        self._heard: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._told: deque[tuple[str, Any]] = deque()
        self._calls: dict[str, _Call] = {}
        self._count, self._looked, self._alone = 0, 0.0, False
        sign = root.absolute() / f".{self._name}"
        self._place = _Place(str(sign), os.getcwd(), _code())
        try:
            with writing(sign):
                _forget_ended(sign.parent)
                sign.write_text(json.dumps({"host": platform.node(), "pid": os.getpid()}), encoding="utf-8")
            self._threads = self._meet()
            self._client.subscribe_topic(self._name, self._hear)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        return max(1, self._count)

    def start(self, key: str, function: Call, *arguments: Any) -> None:
        call = packed(function, arguments)
        if isinstance(call, Lost):
            self._told.append((key, call))
        else:
            self._waiting.append((key, call))
            self._submit()

    def next(self) -> tuple[str, Any]:
        while not self._told:
            self._look()
            self._submit()
            with suppress(queue.Empty):
                self._take(*self._heard.get(timeout=_LOOK))
        return self._told.popleft()

    def close(self) -> None:
        Path(self._place.sign).unlink(missing_ok=True)
        with suppress(OSError, TimeoutError, RuntimeError):  # of a scheduler that has ended
            self._client.cancel([call.future for call in self._calls.values()])
        self._calls.clear()
        self._waiting.clear()
        with suppress(OSError, TimeoutError, RuntimeError):
            self._client.close(timeout=_ANSWER)

    def _meet(self) -> dict[str, int]:
        """Check all workers. Returns worker → number of threads for one task."""
        threads = self._workers()
        answers = self._client.run(_computer, self._place, on_error="return") if threads else {}
        hosts: dict[str, tuple[str, int]] = {}
        for address, said in answers.items():
            if isinstance(said, InputError):
                raise InputError(f"the Dask worker {address} cannot work here: {said}") from said
            if isinstance(said, Exception):
                why = f"it cannot run fastencode ({type(said).__name__}: {said}): install the same version there"
                raise InputError(f"the Dask worker {address} cannot work here: {why}") from said
            hosts[address] = said
        slots = Counter[str]()
        for address, (host, _) in hosts.items():
            slots[host] += threads.get(address, 0)
        return {address: max(1, processors // max(1, slots[host])) for address, (host, processors) in hosts.items()}

    def _workers(self) -> dict[str, int]:
        """Worker → number of task slots."""
        try:
            found: dict[str, int] = self._client.nthreads()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise self._gone() from error
        self._count = sum(found.values())
        return found

    def _look(self) -> None:
        """Count the workers every few seconds, and print a message if there are none."""
        if time.monotonic() - self._looked < _LOOK:
            return
        if self._client.status != "running":
            raise self._gone()
        self._workers()
        self._looked = time.monotonic()
        if self._count == 0 and not self._alone:
            say(f"waiting: the Dask scheduler at {self._address} has no workers")
        self._alone = self._count == 0

    def _submit(self) -> None:
        while self._waiting and len(self._calls) < self.slots:
            key, call = self._waiting.popleft()
            name = f"{self._name}-{secrets.token_hex(8)}"
            try:
                future = self._client.submit(
                    _carry_out, call, name, self._name, self._place, self._threads, self._prepare, key=name, pure=False
                )
            except (OSError, RuntimeError) as error:
                raise self._gone() from error
            self._calls[name] = _Call(key, future)
            future.add_done_callback(lambda done: self._heard.put((done.key, -1, None)))

    def _hear(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Receive an event of a worker; called in a thread of the client."""
        _, said = event
        self._heard.put((said["call"], said["place"], said["result"]))

    def _take(self, name: str, place: int, result: Any) -> None:
        call = self._calls.get(name)
        if call is None:
            return
        if place == call.heard:  # a task that another worker repeats sends its first results again: skip these
            call.heard += 1
            self._told.append((call.key, pickle.loads(result)))
        elif place == -1:
            del self._calls[name]
            self._told.extend((call.key, told) for told in self._ended(call))

    def _ended(self, call: _Call) -> list[Any]:
        """Results of an ended task that were not returned yet, and :class:`End` or :class:`Lost`."""
        future = call.future
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker":
                last = f"{error.allowed_failures + 1} Dask workers died of it, the last one at {error.last_worker.address}"
                return [Lost(f"{last}: out of memory, probably; their logs say more")]
            if isinstance(error, InputError):
                return [Lost(str(error))]
            return [Lost(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))]
        if future.status != "finished":
            if self._client.status != "running":
                raise self._gone()
            return [Lost(f"its Dask task was given up ({future.status})")]
        try:
            return [*future.result()[call.heard :], End()]
        except Exception as error:  # the worker died before it sent the results, which may raise anything
            return [Lost(f"its Dask task was lost ({type(error).__name__}: {error})")]

    def _gone(self) -> InputError:
        ended = f"the Dask scheduler at {self._address} no longer answers"
        return InputError(f"{ended}: start it again and repeat the command; finished stages are kept")


def _forget_ended(root: Path) -> None:
    """Remove sign files of commands on this computer that were killed, so that their calls end after the current stage."""
    for sign in root.glob(".fastencode-*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            command = json.loads(sign.read_text(encoding="utf-8"))
            if command["host"] == platform.node() and not is_running(command["pid"]):
                sign.unlink()


def _carry_out(
    call: bytes, name: str, topic: str, place: _Place, threads: Mapping[str, int], prepare: Callable[[], None] | None
) -> list[Any]:
    """Run a call in a worker and send its results."""
    worker = require("distributed", "dask").get_worker()
    try:
        _, processors = _computer(place)
    except InputError as error:
        raise InputError(f"the Dask worker {worker.address} cannot work here: {error}") from error
    os.chdir(place.folder)
    found: list[Any] = []
    for result in carried_out(call, prepare, threads.get(worker.address, max(1, processors // worker.state.nthreads))):
        worker.log_event(topic, {"call": name, "place": len(found), "result": pickle.dumps(result)})
        found.append(result)
        if not Path(place.sign).exists():
            break
    return found


def _computer(place: _Place) -> tuple[str, int]:
    """Name and number of processors of this computer. Raises :class:`InputError` if calls cannot run here."""
    sign = Path(place.sign)
    with suppress(OSError):
        os.listdir(sign.parent)  # refreshes the listing that a network file system may have cached
    if not sign.exists():
        raise InputError(f"it does not see the output folder {sign.parent}: choose one on a file system that all computers share")
    if not os.path.isdir(place.folder):
        why = f"it does not see {place.folder}, where this command was started"
        raise InputError(f"{why}: start it in a folder that all computers share")
    if place.code != _code():
        raise InputError("its fastencode is not the one of this command: install the same version there, and start it again")
    return platform.node(), available_processors()


@cache
def _code() -> str:
    """A digest of this package's Python files."""
    package = Path(__file__).parents[2]
    files = sorted(path for path in package.rglob("*.py"))
    return digest({path.relative_to(package).as_posix(): sha256(path) for path in files})
