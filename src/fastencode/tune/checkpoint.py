"""What a run keeps on disk so that it survives a kill: who it is, where it stands, and its models. No pickles.

    run.json                              settings, digests of the model and of all data, versions; "finished" at the end
    checkpoints/state-<updates>/          to go on from: learned.safetensors, optimizer.safetensors, state.json
    checkpoints/epoch-<epoch>/            a Hugging Face folder, and heads/
    model/  heads/                        the same, of the epoch that is kept
    config.yaml  log.jsonl                settings; what happened
    cache/                                targets, sound and frames, until the run is finished

A folder is made under another name, synced and renamed: it is there whole or not at all. Where it replaces an older one, that one
is renamed first and removed last. A kill between the two renames leaves ``.<name>.old``: the next start puts a state back, and
makes a model again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fastencode.errors import InputError, require
from fastencode.files import make_folder, whole_file, writing
from fastencode.locks import Lock

__all__ = ["RunFolder", "State"]

VERSION = 1
_WRITTEN = ("log.jsonl", "checkpoints", "model", "heads", "cache", "tensorboard", "README.md", "config.yaml", "curves.png")
_BEFORE_UPDATES = ("checkpoints", "cache", "tensorboard")  # folders that a run has before its first update
_DECISIVE = (
    "settings", "model", "target_model", "data", "sounds", "words", "voxels", "weights", "people", "heard", "scans", "tr",
    "processes",
)  # fmt: skip
_FREE = ("epochs", "save_minutes", "keep", "save_total_limit")  # settings that a run may go on with when they have changed


@dataclass
class State:
    """Where a run stands.

    Attributes
    ----------
    epoch : int
        The one in progress, from 1 on.
    updates, in_epoch : int
        Updates done in all, and in this epoch.
    log_size : int
        Bytes of the log that were written before this state: the rest is cut off when a run goes on from it.
    loss, clips : float, int
        Sum over this epoch's batches of loss × clips, and their clips.
    norms, n_norms : layer → float, int
        Sums of this epoch's gradient norms, and how many were added.
    best_loss, best_epoch : float or None, int
        The lowest validation loss so far, and its epoch; None and 0 where nothing was validated yet.
    """

    epoch: int = 1
    updates: int = 0
    in_epoch: int = 0
    log_size: int = 0
    loss: float = 0.0
    clips: int = 0
    norms: dict[str, float] = field(default_factory=dict)
    n_norms: int = 0
    best_loss: float | None = None
    best_epoch: int = 0

    def next_epoch(self) -> None:
        """Begin the next epoch: its sums are 0."""
        self.epoch, self.in_epoch, self.loss, self.clips, self.norms, self.n_norms = self.epoch + 1, 0, 0.0, 0, {}, 0


class RunFolder:
    """The folder of a run, held by one process at a time: a context.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    identity : mapping
        What :func:`fastencode.tune.prepare.identity_of` gives. The names in ``_DECISIVE`` decide the run, others are for readers.
    extend : bool
        Whether ``settings.epochs`` may be larger than it was.
    writes : bool
        False for the other processes of a run: they read states and write nothing.

    Attributes
    ----------
    finished : bool
        Whether there is nothing left to do.
    identity : dict
        The same as JSON has it.

    Raises
    ------
    InputError
        If another process holds the folder, or it was begun with other settings or data: the message names what changed.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, extend: bool = False, writes: bool = True) -> None:
        self.path, self.identity, self._extend, self._writes = path, json.loads(json.dumps(identity)), extend, writes
        self.finished = False

    def __enter__(self) -> RunFolder:
        self._lock = Lock(make_folder(self.path) / ".run.lock", f"{self.path}") if self._writes else None
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def _begin(self) -> None:
        """Refuse another run in the folder, clear one that learned nothing, and mend what a kill left half done."""
        there = self.read_identity(self.path)
        if there is not None and self._learned_nothing(there):
            self._clear(there)
        elif there is not None:
            self._check(there)
            self.finished = bool(there.get("finished")) and there["settings"]["epochs"] == self.identity["settings"]["epochs"]
        elif others := [name for name in _WRITTEN if (self.path / name).exists()]:
            raise InputError(f"{self.path} holds {others[0]} of something else, and no run.json: choose another folder")
        if not self.finished and self._writes:
            for old in self._folders.glob(".state-*.old"):  # killed between the two renames that replace a state
                if not (state := old.with_name(old.name[1:].removesuffix(".old"))).exists():
                    os.replace(old, state)
            for left in (*self._folders.glob(".*.partial"), *self._folders.glob(".*.old"), *self.path.glob(".*.partial")):
                shutil.rmtree(left, ignore_errors=True)
            self._write_identity(finished=False)

    @staticmethod
    def read_identity(path: Path) -> dict[str, Any] | None:
        """What ``run.json`` says; None where there is none."""
        try:
            found = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise InputError(f"{path / 'run.json'} is damaged ({error}): choose another folder") from error
        if not isinstance(found, dict) or "epochs" not in found.get("settings", {}):
            raise InputError(f"{path / 'run.json'} is not that of a run: choose another folder")
        return found

    def _learned_nothing(self, there: Mapping[str, Any]) -> bool:
        """Whether the run there ended before its first state and its first update, for example by a mistake in the data."""
        log, replaced = self.path / "log.jsonl", list(self._folders.glob(".state-*.old"))
        return not (
            there.get("finished") or self.has_state or replaced or (log.exists() and b'"kind": "update"' in log.read_bytes())
        )

    def _clear(self, there: Mapping[str, Any]) -> None:
        """Remove what the run there has made, unless it is the same as this one: that one keeps what was cached."""
        same = there.get("version") == VERSION and not list(_differences(dict(there), self.identity))
        if self._writes and not same:
            for name in _BEFORE_UPDATES:
                shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / "config.yaml").unlink(missing_ok=True)

    def _check(self, there: Mapping[str, Any]) -> None:
        """Raise an :class:`InputError` if the run there is another one; the message names what changed."""
        if there.get("version") != VERSION:
            raise InputError(
                f"{self.path} was begun by another version of fastencode (format {there.get('version')}, now {VERSION}):"
                " finish it with that one, or choose another folder"
            )
        changed = list(_differences({name: there.get(name) for name in _DECISIVE}, self.identity))
        before, now = there["settings"]["epochs"], self.identity["settings"]["epochs"]
        if now != before and not (self._extend and now > before):
            changed.append(f"settings.epochs was {before}, now {now} (--extend-epochs allows more)")
        if changed:
            raise InputError(
                f"{self.path} holds a run with other settings or data: {'; '.join(changed)}: give the ones it was begun with, or"
                " choose another folder"
            )

    def _write_identity(self, *, finished: bool) -> None:
        with whole_file(self.path / "run.json") as partial:
            partial.write_text(
                json.dumps({"version": VERSION, **self.identity, "finished": finished}, indent=1), encoding="utf-8"
            )

    def write_settings(self) -> None:
        """``config.yaml`` with the settings of tuning, unless a command has written one, which holds those of the data, too."""
        if not (self.path / "config.yaml").exists():
            with whole_file(self.path / "config.yaml") as partial:
                text = require("yaml", "tune").safe_dump(self.identity["settings"], sort_keys=False, allow_unicode=True)
                partial.write_text(text, encoding="utf-8")

    @property
    def _folders(self) -> Path:
        return self.path / "checkpoints"

    @property
    def has_state(self) -> bool:
        """Whether there is a state to go on from."""
        return bool(self._states())

    def resume(self, learned: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> State | None:
        """Put back what the newest state holds, into what learns and into the optimizer; None where a run has just begun.

        Raises
        ------
        InputError
            If the state is damaged, or does not fit.
        """
        states = self._states()
        if not states:
            return None
        folder = states[max(states)]
        try:
            with torch.no_grad():
                _put(learned, load_file(folder / "learned.safetensors"))
            load_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
            return State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise InputError(
                f"{folder} is damaged ({error}): delete it; the run then goes on from an older state, or from the"
                " beginning if there is none"
            ) from error

    def save(self, learned: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, state: State) -> None:
        """Keep a state to go on from; the one before it goes once this is on the disk."""
        before = self._states()
        with self.folder(f"checkpoints/state-{state.updates}") as folder:
            save_file({name: _plain(value) for name, value in learned.items()}, folder / "learned.safetensors")
            save_file(optimizer_tensors(optimizer), folder / "optimizer.safetensors")
            (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
        for updates, old in before.items():
            if updates != state.updates:
                shutil.rmtree(old, ignore_errors=True)

    def _states(self) -> dict[int, Path]:
        """Updates → the state after them. There are two where a run was killed before the older one was removed."""
        found = (re.fullmatch(r"state-(\d+)", path.name) for path in self._folders.glob("state-*"))
        return {int(match[1]): self._folders / match[0] for match in found if match}

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A folder that takes its place, or that of an earlier one, when the block ends without an error."""
        target = self.path / name
        partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
        with writing(target), _as_os_errors():
            for left in (partial, old):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                yield partial
                _open_to_others(partial)
                _sync_all(partial)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if target.exists():
                os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old, ignore_errors=True)

    def kept(self) -> dict[int, Path]:
        """Epoch → folder, of those whose models are kept; in order."""
        found = (re.fullmatch(r"epoch-(\d+)", path.name) for path in self._folders.glob("epoch-*"))
        return dict(sorted((int(match[1]), self._folders / match[0]) for match in found if match))

    def remove_epoch(self, epoch: int) -> None:
        """Remove the model of an epoch."""
        shutil.rmtree(self._folders / f"epoch-{epoch}", ignore_errors=True)

    def publish(self, save: Callable[[Path], None] | None, epoch: int) -> None:
        """Make ``model/`` and ``heads/``: by ``save``, or as a copy of what was kept of an epoch."""
        with self.folder("model") as folder:
            if save is None:
                shutil.copytree(self._folders / f"epoch-{epoch}", folder, dirs_exist_ok=True)
            else:
                save(folder)
        with self.folder("heads") as heads:
            shutil.copytree(self.path / "model" / "heads", heads, dirs_exist_ok=True)
        shutil.rmtree(self.path / "model" / "heads")

    def finish(self) -> None:
        """The end: ``run.json`` says so, and what was kept only to go faster is removed."""
        self._write_identity(finished=True)
        shutil.rmtree(self.path / "cache", ignore_errors=True)
        self.finished = True


def _put(into: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into tensors of the same names, in place."""
    if set(into) != set(values):
        other = sorted(set(into) ^ set(values))
        raise ValueError(f"it holds {len(values)} tensors for {len(into)} that learn, such as {other[0]}")
    for name, value in values.items():
        into[name].copy_(value)


def _plain(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().contiguous().clone()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as tensors: ``<number of the parameter>.<what>``."""
    return {
        f"{number}.{name}": _plain(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Errors of the disk as Python has them: safetensors says them in words of its own."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def _open_to_others(folder: Path) -> None:
    """Give all files the permissions of any new file: safetensors makes files that nobody but the owner may read."""
    probe = folder / ".permissions"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _sync_all(folder: Path) -> None:
    """Wait until the disk has all files of a folder, and the folder."""
    for path in (*folder.rglob("*"), folder):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two plain values: "settings.batch was 8, now 16"."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = _DECISIVE if not name else sorted({*before, *now})
        for key in names:
            if name == "settings" and key in _FREE:
                continue
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        shown = [text if len(text := str(one)) <= 60 else f"{text[:50]} …" for one in (before, now)]
        yield f"{name} was {shown[0]}, now {shown[1]}"
