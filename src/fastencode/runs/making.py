"""How one stage is made, in whatever process: locked, in a partial folder, signed, put in place."""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastencode.errors import DiskError, FastencodeError, InputError
from fastencode.files import writing
from fastencode.locks import InUseError, Lock

__all__ = [
    "PARTIAL",
    "SIGNATURE",
    "Busy",
    "Failed",
    "Made",
    "Signature",
    "Task",
    "discard",
    "lost_files",
    "make_all",
    "read_signature",
]

SIGNATURE = "stage.json"
PARTIAL = ".partial"
"""What the name of a folder ends with while it is made."""


@dataclass(frozen=True)
class Signature:
    """What a folder says about itself.

    Attributes
    ----------
    digest : str
        Of ``key`` and ``code``: two folders of one name and digest hold the same.
    key : str
        Digest of all of the following but the code.
    code : str
        Digest of the code that makes it.
    version : int
    settings : mapping
        As JSON has them.
    reads : stage → its digest
    inputs : name → SHA-256 of the file's content
    libraries : name → version
        For readers; they do not count.
    seconds : float, optional
        That it took; None while it is not finished.
    files : tuple of str
        What it holds, relative to it; () in folders of earlier versions, which did not say.
    """

    digest: str
    key: str
    code: str
    version: int
    settings: Mapping[str, Any]
    reads: Mapping[str, str]
    inputs: Mapping[str, str]
    libraries: Mapping[str, str]
    seconds: float | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One stage to make: ``make(folder, shared, *arguments)`` writes into the folder; no ``shared`` without ``share``."""

    root: Path
    name: str
    signature: Signature
    make: Callable[..., None]
    arguments: tuple[Any, ...]
    share: Callable[[], Any] | None
    resumable: bool


class Made(NamedTuple):
    """A stage is finished; ``seconds`` that it took."""

    name: str
    seconds: float


class Failed(NamedTuple):
    """A stage could not be made, and why; with a traceback where that was not foreseen. ``disk``: others would fail as well."""

    name: str
    why: str
    trace: str = ""
    disk: bool = False


class Busy(NamedTuple):
    """Another process is making the stage; which one."""

    name: str
    who: str


def read_signature(folder: Path) -> Signature | None:
    """What a folder says about itself; None where it says nothing that this version understands."""
    try:
        found = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
        known = {field.name for field in fields(Signature)}
        if known - {"files"} != set(found) - {"files"}:
            return None
        return Signature(**{**found, "files": tuple(found.get("files", ()))})
    except (OSError, ValueError, TypeError):
        return None


def lost_files(folder: Path, signature: Signature) -> list[str]:
    """Files that a finished folder held, and that somebody has removed."""
    return [name for name in signature.files if not (folder / name).exists()]


def make_all(tasks: Sequence[Task]) -> Iterator[Made | Failed | Busy]:
    """Make stages one after another. What they share is made when the first of them needs it, and kept for the others.

    Yields
    ------
    Made, Failed or Busy
        One for each, in order. Nothing but Ctrl-C and the like is raised.
    """
    made: list[Any] = []

    def shared(share: Callable[[], Any]) -> Any:
        if not made:
            made.append(share())
        return made[0]

    for task in tasks:
        try:
            lock = Lock(_lock(task.root, task.name), f"{task.root / task.name}")
        except InUseError as error:
            yield Busy(task.name, str(error))
            continue
        except FastencodeError as error:
            yield Failed(task.name, str(error), disk=isinstance(error, DiskError))
            continue
        with lock:
            told = _tried(task, shared)
        yield told


def discard(root: Path, name: str) -> None:
    """Remove the partial folder of a stage whose process was ended, unless another one goes on there."""
    with suppress(InputError), Lock(_lock(root, name), name):
        shutil.rmtree(_partial(root, name), ignore_errors=True)


def _tried(task: Task, shared: Callable[[Callable[[], Any]], Any]) -> Made | Failed:
    try:
        with writing(task.root / task.name):
            return Made(task.name, _make(task, shared))
    except FastencodeError as error:
        return Failed(task.name, str(error), disk=isinstance(error, DiskError))
    except MemoryError as error:
        return Failed(task.name, f"out of memory ({error})" if str(error) else "out of memory")
    except (Exception, SystemExit) as error:
        return Failed(task.name, f"{type(error).__name__}: {error}", traceback.format_exc())


def _make(task: Task, shared: Callable[[Callable[[], Any]], Any]) -> float:
    target, partial = task.root / task.name, _partial(task.root, task.name)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # of a process that was killed while it put its folder in place
    there, begun = read_signature(target), read_signature(partial)
    if (
        there is not None
        and there.digest == task.signature.digest
        and there.seconds is not None
        and not lost_files(target, there)
    ):
        return there.seconds  # another process made it while this one looked elsewhere
    ours = begun is not None and begun.digest == task.signature.digest
    if not ours or begun is None or begun.seconds is None:
        begun = _fill(task, partial, ours and task.resumable, shared)
    if target.exists():  # made with other settings
        os.rename(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)
    assert begun.seconds is not None
    return begun.seconds


def _fill(task: Task, partial: Path, go_on: bool, shared: Callable[[Callable[[], Any]], Any]) -> Signature:
    """Make what a folder holds, or the rest of it, and sign it."""
    start = time.perf_counter()
    if not go_on:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if task.resumable:
            _sign(partial, task.signature)
    try:
        task.make(partial, *(() if task.share is None else (shared(task.share),)), *task.arguments)
        files = tuple(sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()))
        signed = replace(task.signature, seconds=time.perf_counter() - start, files=files)
        _sign(partial, signed)
    except BaseException:
        if not task.resumable:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return signed


def _sign(folder: Path, signature: Signature) -> None:
    (folder / SIGNATURE).write_text(json.dumps(asdict(signature)) + "\n", encoding="utf-8")


def _partial(root: Path, name: str) -> Path:
    return (root / name).with_name(Path(name).name + PARTIAL)


def _lock(root: Path, name: str) -> Path:
    return (root / name).with_name(f".{Path(name).name}.lock")
