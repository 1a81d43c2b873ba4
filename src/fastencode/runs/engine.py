"""Stages of a long command: each makes one folder, which is reused until something that decides it changes.

A stage writes into ``<name>.partial``. When it is finished the folder is signed and renamed: it is whole or not there. The
signature, ``stage.json``, holds the digests of what decided it: its version and settings, the contents of its input files, the
stages it read, and its code (see :mod:`fastencode.runs.provenance`). Whatever stops a command, a second run goes on from there.

A stage that fails or is killed takes with it only those that read it. All else is made; failures are listed at the end.

Each stage is locked while it is made, so that several commands may work in one output folder: the one that comes second makes
other stages meanwhile, waits for the first, and takes what that has made.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from fastencode.errors import DiskError, FailedStages, FastencodeError, InputError, JobsWritten
from fastencode.files import make_folder, writing
from fastencode.locks import Lock
from fastencode.plain import plain
from fastencode.progress import Line, say
from fastencode.runs.executors import End, Executor, Lost
from fastencode.runs.executors.processes import Processes
from fastencode.runs.executors.where import Where, open_executor
from fastencode.runs.job_scripts import write_scripts
from fastencode.runs.making import (
    PARTIAL,
    SIGNATURE,
    Busy,
    Failed,
    Made,
    Signature,
    Task,
    discard,
    lost_files,
    make_all,
    read_signature,
)
from fastencode.runs.provenance import Code, Contents, digest, libraries
from fastencode.runs.tally import Tally

__all__ = ["Stage", "Stages"]

_NOT_MADE = "not made"
_PAUSE = 1.0  # s between two looks at a stage that another process makes
_LARGE = 10**10  # bytes of input files to read before anything is made: some 20 s where the disk is fast
_LONG = 600.0  # s that another process may take to write tables


@dataclass(frozen=True)
class Stage:
    """A folder to make: ``make(folder, *arguments)``, a function of a module, so that another process can run it.

    Attributes
    ----------
    name : str
        The folder, relative to the output folder; may hold slashes.
    settings : mapping
        All that decides the result: numbers, text, arrays, dataclasses, and lists and mappings of them.
    reads : tuple of str
        Names of the stages whose folders it reads.
    make : callable
    arguments : tuple
        What ``make`` gets after its folder. They do not count, but for the code of their classes.
    version : int
        Raised by hand to make it again where no digest shows why.
    inputs : name → Path
        Files that it reads. Their contents count, not where they lie.
    resumable : bool
        Whether ``make`` goes on with what it finds in its folder: what an earlier attempt of the same digest left stays there.
    share : callable, optional
        Makes what several stages use, such as a plan: stages with this very object are made one after another in one process,
        where it is called once. ``make`` then gets its result after the folder.
    """

    name: str
    settings: Mapping[str, Any]
    reads: tuple[str, ...]
    make: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    version: int = 1
    inputs: Mapping[str, Path] = field(default_factory=dict)
    resumable: bool = False
    share: Callable[[], Any] | None = None


class Stages:
    """The stages under one output folder.

    Parameters
    ----------
    root : path
        Made when the first stage is. A folder that holds anything but stages is refused.
    reuse : bool
        Take finished stages although their code has changed since.
    prepare : callable, optional
        Called in every process that makes stages, before it does; a function of a module.
    where : Where
        In this process, in others of this computer, on a Dask cluster or as SLURM jobs.

    Attributes
    ----------
    failed : stage → why
    seconds : stage → seconds that it took, in this run or an earlier one

    Raises
    ------
    InputError
        If ``root`` is a file, a folder of somebody else's, or cannot be written.
    """

    _MARK, _HASHES = ".fastencode", ".hashes.json"

    def __init__(
        self, root: Path, *, reuse: bool = False, prepare: Callable[[], None] | None = None, where: Where | None = None
    ) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file: choose another output folder")
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / self._MARK).exists():
            raise InputError(f"{self.root} holds other files: choose an empty or new output folder, or one of an earlier run")
        above = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"{self.root} cannot be written, because {above} cannot: choose another output folder")
        self.failed: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self._reuse, self._prepare, self._where = reuse, prepare, where or Where()
        self._code, self._contents = Code(), Contents(self.root / self._HASHES)
        self._digests: dict[str, str] = {}
        self._kept: Processes | None = None  # idle, for the next call
        self._made: list[Path] = []  # folders that were not there before, innermost first

    def path(self, name: str) -> Path:
        """The folder of a finished stage."""
        return self.root / name

    def sha256(self, path: Path) -> str:
        """The digest of a file's contents, read once for as long as its size and times stay; :meth:`run_all` writes it down."""
        return self._contents.sha256(path)

    def run(self, stage: Stage) -> Path:
        """Make one stage in this process, or on the cluster, unless it is finished; an :class:`InputError` says why it failed."""
        self.run_all([stage], jobs=1)
        if stage.name in self.failed:
            raise InputError(self.failed[stage.name])
        return self.path(stage.name)

    def run_all(self, stages: Sequence[Stage], *, jobs: int | None = None) -> dict[str, Path]:
        """Make those of several stages that are not finished, each as soon as those that it reads are.

        Parameters
        ----------
        stages : sequence of Stage
        jobs : int, optional
            How many at a time, each in a process of its own; 1: one after another in this process. By default what ``where``
            says. On a cluster that decides.

        Returns
        -------
        stage → its folder, for those that are finished; :attr:`failed` has the others. :meth:`check` raises where there are any.

        Raises
        ------
        InputError
            If the disk is full or may not be written to: all stages would fail. If the cluster does not answer, or does not
            share the output folder.
        JobsWritten
            If job scripts are to be written instead, and there is anything to make.
        """
        tasks, names = self._missing(stages), [stage.name for stage in stages]
        reused = {name: self.seconds[name] for name in names if name not in tasks and name not in self.failed}
        if tasks:
            try:
                self._begin()
                self._contents.save()  # a killed command's successor need not read the files again
                where = self._where if jobs is None else replace(self._where, jobs=jobs)
                if where.only_writes:
                    self._write_scripts(tasks, where.slurm or {})
                executor = self._executor(where, len(tasks))
                self._run(tasks, executor, Tally(names, reused, executor.slots))
            finally:
                self._tidy(names)
        elif names:
            say(Tally(names, reused, None).text(self.failed))
            if self.root.is_dir():
                self._contents.save()
        return {name: self.path(name) for name in names if name not in self.failed}

    def missing(self, stages: Sequence[Stage]) -> list[str]:
        """Names of those that :meth:`run_all` would make. Nothing is made or written; :attr:`failed` has those that cannot be."""
        if not self.root.is_dir():  # nothing is finished: no input file need be read
            return [stage.name for stage in stages]
        return list(self._missing(stages))

    def check(self) -> None:
        """Raise :class:`FailedStages`, with a list, if any stage failed."""
        left_out = Counter(why for why in self.failed.values() if why.startswith(_NOT_MADE))
        lines = [f"  {name}: {why}" for name, why in self.failed.items() if why not in left_out]
        lines += [f"  {count} {'was' if count == 1 else 'were'} {why}" for why, count in left_out.items()]
        if lines:
            failed = len(self.failed) - left_out.total()
            head = f"{failed} {'stage' if failed == 1 else 'stages'} failed"
            kept = f"what did not depend on them is finished in {self.root}; the same command makes the rest"
            if not self.root.is_dir():
                kept = f"nothing was finished, and {self.root} was not made"
            raise FailedStages("\n".join([head, *lines, kept]))

    def finished(self, pattern: str) -> dict[str, Signature]:
        """The finished stages whose names match, also those of other commands, that read what is there now.

        Parameters
        ----------
        pattern : str
            Such as ``fits/*/*``.
        """
        found = {}
        for path in sorted(self.root.glob(f"{pattern}/{SIGNATURE}")):
            name, signature = path.parent.relative_to(self.root).as_posix(), read_signature(path.parent)
            if signature is None or signature.seconds is None or path.parent.name.endswith(PARTIAL):
                continue
            there = {read: read_signature(self.path(read)) for read in signature.reads}
            if all(upstream is not None and upstream.digest == signature.reads[read] for read, upstream in there.items()):
                found[name] = signature
        return found

    def alone(self, what: str) -> Lock:
        """A context in which no other command writes tables of the same name here; waits for one that does."""
        return Lock(self.root / f".{what}.lock", f"{what} in {self.root}", patience=_LONG)

    def _missing(self, stages: Sequence[Stage]) -> dict[str, Task]:
        """What there is to make, in an order in which no stage comes before those it reads."""
        named = {stage.name: stage for stage in stages}
        if len(named) < len(stages):
            raise ValueError("two stages have one name")
        tasks: dict[str, Task] = {}
        changed: Counter[str] = Counter()
        sha256 = cache(self._contents.sha256)  # many stages read one file
        if (unread := self._contents.unread({path for stage in stages for path in stage.inputs.values()})) >= _LARGE:
            say(f"reading {unread / 1e9:.3g} GB of input files first, to know them by their contents")
        for name in TopologicalSorter(
            {name: [read for read in stage.reads if read in named] for name, stage in named.items()}
        ).static_order():
            stage = named[name]
            if bad := [read for read in stage.reads if read in self.failed]:
                self._leave_out(name, bad[0])
                continue
            try:
                signature = self._signature(stage, sha256)
            except FastencodeError as error:
                self._fail(name, str(error))
                continue
            self.failed.pop(name, None)
            before = read_signature(self.path(name))
            lost = [] if before is None else lost_files(self.path(name), before)
            if lost and before is not None and self._stands(before, signature):
                changed[f"files of {name} are gone, the first {lost[0]}"] += 1
            if before is not None and before.seconds is not None and not lost and self._stands(before, signature):
                self._digests[name], self.seconds[name] = before.digest, before.seconds
                continue
            self._digests[name] = signature.digest
            tasks[name] = Task(self.root, name, signature, stage.make, stage.arguments, stage.share, stage.resumable)
            if before is not None and not (lost and self._stands(before, signature)):
                changed[_change(before, signature)] += 1
        for why, count in changed.items():
            say(f"{count} finished {'stages are' if count > 1 else 'stage is'} made again: {why}")
        return tasks

    def _signature(self, stage: Stage, sha256: Callable[[Path], str]) -> Signature:
        reads = {}
        for read in stage.reads:
            there = read_signature(self.path(read))
            if read not in self._digests and (there is None or there.seconds is None):
                raise InputError(f"it reads {read}, which is not finished")
            reads[read] = self._digests[read] if there is None or read in self._digests else there.digest
        decisive = {"version": stage.version, "settings": plain(stage.settings), "reads": reads}
        decisive["inputs"] = {name: sha256(path) for name, path in stage.inputs.items()}
        shared = () if stage.share is None else (stage.share,)
        code, key = self._code.of(stage.make, (*shared, *stage.arguments)), digest([stage.name, decisive])
        return Signature(digest([key, code]), key, code, libraries=libraries(), **decisive)

    def _stands(self, before: Signature, now: Signature) -> bool:
        return before.digest == now.digest or (self._reuse and before.key == now.key)

    def _begin(self) -> None:
        """Make the output folder, and mark it as one."""
        self._made += [path for path in (self.root, *self.root.parents) if not path.exists()]
        make_folder(self.root)
        mark = self.root / self._MARK
        if not mark.exists():  # one that somebody else made may not be written to
            with writing(mark):
                mark.write_text("output of fastencode-tune; finished stages are reused\n", encoding="utf-8")

    def _executor(self, where: Where, count: int) -> Executor:
        """The processes of the call before, where as many are wanted: each takes seconds to load torch. Otherwise a new one."""
        kept, self._kept = self._kept, None
        if kept is not None and where.is_local and kept.slots == min(where.jobs, count):
            return kept
        if kept is not None:
            kept.close()
        return open_executor(where, count, self.root, self._prepare)

    def _run(self, tasks: dict[str, Task], executor: Executor, tally: Tally) -> None:
        busy: dict[str, list[Task]] = {}
        later: dict[str, float] = {}  # when to look again at what another process makes
        try:
            with Line() as line:
                while tasks or busy:
                    line.show(tally.text(self.failed))
                    for batch in _batches(self._ready(tasks, busy, later)):
                        busy[batch[0].name] = batch
                        for task in batch:
                            del tasks[task.name]
                        executor.start(batch[0].name, make_all, tuple(batch))
                    if not busy:
                        time.sleep(_PAUSE)
                        continue
                    key, told = executor.next()
                    for one in self._found(busy[key], told) if isinstance(told, Lost) else [told]:
                        self._hear(key, one, tasks, busy, later)
                        if isinstance(one, Made):
                            tally.made(one.name, one.seconds)
                line.show(tally.text(self.failed))
        except BaseException:
            executor.close()
            for task in (task for batch in busy.values() for task in batch if not task.resumable):
                discard(task.root, task.name)
            raise
        if isinstance(executor, Processes):
            self._kept = executor
        else:
            executor.close()

    def _ready(self, tasks: dict[str, Task], busy: dict[str, list[Task]], later: dict[str, float]) -> list[Task]:
        """What may be made now. What reads a stage that failed is crossed out."""
        for name, task in list(tasks.items()):
            if bad := [read for read in task.signature.reads if read in self.failed]:
                self._leave_out(name, bad[0])
                del tasks[name]
        unfinished = {*tasks, *(task.name for batch in busy.values() for task in batch)}
        now = time.monotonic()
        return [t for t in tasks.values() if not unfinished & set(t.signature.reads) and later.get(t.name, 0) <= now]

    def _found(self, batch: Sequence[Task], told: Lost) -> list[Made | Lost]:
        """What became of a batch that was lost: the first of it may be finished, without any word of it."""
        made: list[Made | Lost] = []
        for task in batch:
            there = read_signature(self.path(task.name))
            if there is None or there.seconds is None or there.digest != task.signature.digest:
                break
            made.append(Made(task.name, there.seconds))
        return [*made, told]

    def _write_scripts(self, tasks: dict[str, Task], options: Mapping[str, str]) -> NoReturn:
        """Write jobs for all that is missing, instead of making it."""
        batches: list[list[Task]] = []
        left = dict(tasks)
        while ready := _batches(self._ready(left, {}, {})):
            batches += ready
            for task in (task for batch in ready for task in batch):
                del left[task.name]
        path = write_scripts(batches, self.root, options, self._prepare)
        what = f"job scripts written to {path.parent}: {len(batches)}, stages that they make: {sum(map(len, batches))}"
        then = "and then the same command again, which takes what they made and goes on"
        left_out = f", stages that failed before: {len(self.failed)}" if self.failed else ""
        raise JobsWritten(f"nothing was run; {what}{left_out}; run `sh {path}`, {then}")

    def _hear(self, key: str, told: Any, tasks: dict[str, Task], busy: dict[str, list[Task]], later: dict[str, float]) -> None:
        """Enter what became of a batch, or of the first stage of those that are left of it."""
        batch = busy[key]
        if isinstance(told, End) or not batch:  # its process may be killed even then
            del busy[key]
            return
        task = batch.pop(0)
        if isinstance(told, Made):
            self.seconds[told.name] = told.seconds
        elif isinstance(told, Busy):
            if told.name not in later:
                say(f"waiting: {told.who}")
            tasks[told.name], later[told.name] = task, time.monotonic() + _PAUSE
        elif isinstance(told, Failed):
            self._fail(told.name, told.why, told.trace)
            if told.disk:
                raise DiskError(told.why)
        elif isinstance(told, Lost):  # this one and no other: the rest of the batch has its turn again
            if not task.resumable:
                discard(task.root, task.name)
            self._fail(task.name, told.why, told.trace)
            tasks.update((left.name, left) for left in busy.pop(key))

    def _leave_out(self, name: str, read: str) -> None:
        why = self.failed[read]
        self.failed[name] = why if why.startswith(_NOT_MADE) else f"{_NOT_MADE}, because {read} failed"

    def _fail(self, name: str, why: str, trace: str = "") -> None:
        self.failed[name] = why
        say(f"{name}: failed, {why}")
        if trace:
            tqdm.write(trace, file=sys.stderr)

    def _tidy(self, names: Sequence[str]) -> None:
        """Leave no empty folder behind, and no output folder that holds nothing finished and was not there before."""
        for name in names:
            for folder in list(self.path(name).parents)[: len(Path(name).parts) - 1]:
                with suppress(OSError):
                    folder.rmdir()
        mine = {self._MARK, self._HASHES}
        if not self.root.is_dir():
            return
        if self.root in self._made and {path.name for path in self.root.iterdir()} <= mine:
            shutil.rmtree(self.root)
            for folder in self._made[1:]:
                with suppress(OSError):
                    folder.rmdir()
            self._made.clear()
        else:
            self._contents.save()


def _batches(ready: Sequence[Task]) -> list[list[Task]]:
    """Stages that share something, together; each of the others alone."""
    found: dict[Any, list[Task]] = {}
    for task in ready:
        found.setdefault(task.name if task.share is None else id(task.share), []).append(task)
    return list(found.values())


def _change(before: Signature, now: Signature) -> str:
    """Why a finished stage is made again."""
    whys = {"version": "another version of them", "settings": "other settings", "inputs": "other input files"}
    whys["reads"] = "what they read was made again"
    return next((why for name, why in whys.items() if getattr(before, name) != getattr(now, name)), "their code has changed")
