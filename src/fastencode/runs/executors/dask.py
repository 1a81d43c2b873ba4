"""Calls made by the workers of a Dask cluster, which read and write the output folder themselves.

Each call is one Dask task. Its results come back as events, one by one, and once more at the end of the task, so that none is
missed. The scheduler gives the task of a worker that died to another one, and gives it up after four dead workers (its setting
``distributed.scheduler.allowed-failures``, 3). Finished stages are then found finished, and the rest is made again. Dask blames a
worker's death on every task that waits there too. So no more calls are handed over than there are task slots: a cluster that
grows on demand does not see that there is more to do, and needs a minimum of workers.

A worker's thread cannot be interrupted. After Ctrl-C, calls that wait are cancelled, and those that run end after the stage they
are at, which stays finished: a file in the output folder says that somebody waits for more, and is gone then.
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

_ANSWER = 10.0  # s that a scheduler has to answer
_LOOK = 5.0  # s between two looks at how many workers there are, where nothing else happens


def connected(address: str) -> Any:
    """A client of a scheduler.

    Parameters
    ----------
    address : str
        Such as ``tcp://node12:8786``.

    Raises
    ------
    InputError
        If none answers there.
    """
    distributed = require("distributed", "dask")
    try:
        return distributed.Client(address, timeout=_ANSWER, set_as_default=False, name="fastencode")
    except (OSError, ValueError, TimeoutError) as error:
        reason = f"no Dask scheduler answers at {address!r} within {_ANSWER:.0f} s ({type(error).__name__})"
        raise InputError(f"{reason}: check the address that `dask scheduler` says, and that it runs") from error


@dataclass
class _Call:
    key: str
    future: Any
    heard: int = 0  # results that were handed on


@dataclass(frozen=True)
class _Place:
    """What a worker must find: the file that says that somebody waits, the folder that relative paths start from, the code."""

    sign: str
    folder: str
    code: str


class Dask:
    """Calls made by Dask workers, which must share the output folder and have the same fastencode installed.

    Workers run calls in the folder that this command was started in. Each task gets its share of its computer's processors: all
    of them, divided by the task slots that the workers there have.

    Parameters
    ----------
    address : str
        Of the scheduler.
    root : Path
        The output folder; must exist.
    prepare : callable, optional
        Called before each call, in its worker.

    Raises
    ------
    InputError
        If no scheduler answers, or a worker does not see the folder or has other code.
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
        """Ask all workers whether they can work here; worker → threads for one task."""
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
        """Worker → its task slots."""
        try:
            found: dict[str, int] = self._client.nthreads()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise self._gone() from error
        self._count = sum(found.values())
        return found

    def _look(self) -> None:
        """Count the workers now and then, and say so where there are none."""
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
        """Called in the client's own thread with what a worker said."""
        _, said = event
        self._heard.put((said["call"], said["place"], said["result"]))

    def _take(self, name: str, place: int, result: Any) -> None:
        call = self._calls.get(name)
        if call is None:
            return
        if place == call.heard:  # a task that a second worker began again says the first ones again
            call.heard += 1
            self._told.append((call.key, pickle.loads(result)))
        elif place == -1:
            del self._calls[name]
            self._told.extend((call.key, told) for told in self._ended(call))

    def _ended(self, call: _Call) -> list[Any]:
        """What is left to say of a call whose task has ended."""
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
        except Exception as error:  # a worker that died before it could hand them over, and whatever that raises
            return [Lost(f"its Dask task was lost ({type(error).__name__}: {error})")]

    def _gone(self) -> InputError:
        ended = f"the Dask scheduler at {self._address} does not answer any more"
        return InputError(f"{ended}: start it again; finished stages are kept, and the same command makes the rest")


def _forget_ended(root: Path) -> None:
    """Remove the signs of commands of this computer that were killed: what workers still make for them ends after its stage."""
    for sign in root.glob(".fastencode-*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            command = json.loads(sign.read_text(encoding="utf-8"))
            if command["host"] == platform.node() and not is_running(command["pid"]):
                sign.unlink()


def _carry_out(
    call: bytes, name: str, topic: str, place: _Place, threads: Mapping[str, int], prepare: Callable[[], None] | None
) -> list[Any]:
    """A call's results, in a worker."""
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
    """This computer's name and processors; :class:`InputError` where calls cannot be made here."""
    sign = Path(place.sign)
    with suppress(OSError):
        os.listdir(sign.parent)  # a file server may have kept an older list
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
