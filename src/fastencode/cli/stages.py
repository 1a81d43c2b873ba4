"""Stages of a long command: each makes one folder, whole or not at all, and is not made again while its settings stand.

A stage writes into ``<name>.partial``; only when it is finished is the folder renamed and signed with a digest of its settings,
of the digests of the stages it read, and of the code. Whatever stops the command, a second run goes on from there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastencode import progress
from fastencode.errors import InputError, require
from fastencode.files import writing

__all__ = ["Job", "Stages", "say", "settle"]

_SIGNATURE = "stage.json"
_PARTIAL = ".partial"
_ROOMS = ("data", "speech", "timing", "tune")  # whose code most stages run; their scores and figures are made in every run


def say(message: str) -> None:
    """One line on the terminal, above the progress bars."""
    tqdm.write(message)


def settle() -> None:
    """How every process of a command computes: torch with one thread, transformers without bars and reports of its own.

    Two processes of one thread do more on two cores than one process of two, and numbers do not depend on how many there are.
    """
    require("torch", "tune").set_num_threads(1)
    logging = require("transformers", "tune").utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@dataclass(frozen=True)
class Job:
    """A stage to make: ``make(folder, *arguments)``, a function of a module, so that another process can run it.

    Attributes
    ----------
    name : str
        Folder of the stage, relative to the output folder; may hold slashes.
    settings : mapping
        All that decides the result; JSON types and dataclasses.
    reads : tuple of str
        Names of the stages whose folders it reads.
    make : callable
    arguments : tuple
        What ``make`` gets after its folder.
    rooms : tuple of str
        Whose code it runs: after an update of one of them it is made again.
    """

    name: str
    settings: Mapping[str, Any]
    reads: tuple[str, ...]
    make: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    rooms: tuple[str, ...] = _ROOMS


class Stages:
    """The stages under one output folder.

    Parameters
    ----------
    root : path
        Made if it does not exist. A folder that holds anything but stages of this command is refused.

    Raises
    ------
    InputError
        If ``root`` is a file, a folder of somebody else's, or in use by another run.
    """

    _MARK = ".fastencode"

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file: choose another output folder")
        mark = self.root / self._MARK
        if self.root.is_dir() and any(self.root.iterdir()) and not mark.exists():
            raise InputError(f"{self.root} holds other files: choose an empty or new output folder, or one of an earlier run")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = mark.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.root} cannot be written ({error.strerror}): choose another output folder") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this object or the process ends
        except OSError as error:
            raise InputError(
                f"{self.root} is in use by another fastencode-tune: wait for it or choose another output folder"
            ) from error
        self._lock.write("output of fastencode-tune; finished stages are reused\n")
        self._lock.flush()
        self.seconds: dict[str, float] = {}
        self._sweep()

    def path(self, name: str) -> Path:
        """The folder of a finished stage."""
        return self.root / name

    def run(self, job: Job) -> Path:
        """Make one stage in this process, unless it is finished already."""
        return self.run_all([job], workers=1)[job.name]

    def run_all(self, jobs: Sequence[Job], *, workers: int) -> dict[str, Path]:
        """Make several stages that do not read each other, ``workers`` at a time, each in a process of one thread.

        With one worker, everything happens in this process.
        """
        missing = []
        for job in jobs:
            digest = self._digest(job)
            if _signed(self.path(job.name)).get("digest") == digest:
                self.seconds[job.name] = _signed(self.path(job.name))["seconds"]
                say(f"{job.name}: finished before, reused")
            else:
                missing.append((job, digest))
        try:
            if workers == 1 or len(missing) < 2:
                for job, digest in missing:
                    self._finished(job.name, _make(self.root, job, digest))
            else:
                self._in_processes(missing, min(workers, len(missing)))
        except BaseException:
            self._sweep()
            raise
        return {job.name: self.path(job.name) for job in jobs}

    def _in_processes(self, missing: list[tuple[Job, str]], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        slots = context.Queue()
        for slot in range(1, workers + 1):
            slots.put(slot)
        lock = context.RLock()
        tqdm.set_lock(lock)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(lock, slots)) as pool:
            try:
                with _unheard_interrupt():
                    futures = {pool.submit(_make, self.root, job, digest): job.name for job, digest in missing}
                for future in as_completed(futures):
                    self._finished(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                    child.join()
                raise

    def _finished(self, name: str, seconds: float) -> None:
        self.seconds[name] = seconds
        say(f"{name}: {seconds:.1f} s")

    def _digest(self, job: Job) -> str:
        upstream = {name: _signed(self.path(name)).get("digest") for name in job.reads}
        if None in upstream.values():
            raise InputError(f"stage {job.name} reads {[n for n, d in upstream.items() if d is None]}, which is not finished")
        text = json.dumps([job.name, job.settings, upstream, _code(job.rooms)], sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()

    def _sweep(self) -> None:
        """Remove what an interrupted run left."""
        for folder in list(self.root.rglob(f"*{_PARTIAL}")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _unheard_interrupt() -> Iterator[None]:
    """Processes started meanwhile never hear Ctrl-C, not even while they import: this one does, and ends them."""
    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody touch signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@cache
def _code(rooms: tuple[str, ...]) -> str:
    """Digest of the code of some rooms, and of rooms inside them."""
    package = files("fastencode")
    total = hashlib.sha256()
    for room in rooms:
        for name, source in sorted(_sources(package.joinpath(room), room), key=lambda named: named[0]):
            total.update(f"{name}\n".encode() + source.read_bytes())
    return total.hexdigest()


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for item in folder.iterdir():
        inside = f"{name}/{item.name}"
        if item.is_dir():
            yield from _sources(item, inside)
        elif item.name.endswith(".py"):
            yield inside, item


def _make(root: Path, job: Job, digest: str) -> float:
    start = time.perf_counter()
    target = root / job.name
    partial = target.with_name(target.name + _PARTIAL)
    with writing(target):
        partial.mkdir(parents=True)
        job.make(partial, *job.arguments)
        seconds = time.perf_counter() - start
        (partial / _SIGNATURE).write_text(json.dumps({"digest": digest, "seconds": seconds}) + "\n", encoding="utf-8")
        if target.exists():  # made with other settings
            shutil.rmtree(target)
        os.replace(partial, target)
    return seconds


def _signed(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _SIGNATURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a stage's settings hold a {type(value).__name__}")


def _start_worker(lock: Any, slots: Any) -> None:
    tqdm.set_lock(lock)
    progress.row = slots.get()
    settle()
