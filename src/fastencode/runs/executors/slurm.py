"""Calls made as SLURM jobs, each handed over and watched through submitit.

A job puts every result into a file of its own in the output folder, as soon as there is one, so that what a job found before it
was killed is known. The state of jobs without news is asked of ``sacct``, at growing intervals.

Options are those of ``sbatch`` in their long form, handed on as they are: there is no second set of names to learn.
"""

from __future__ import annotations

import os
import pickle
import secrets
import shutil
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastencode.errors import InputError, require
from fastencode.files import make_folder, whole_file
from fastencode.limits import available_processors
from fastencode.runs.executors import Call, End, Lost, carried_out, packed

__all__ = ["FOLDER", "Slurm", "heeding_the_limit"]

FOLDER = ".slurm"
"""Where jobs lie, inside the output folder."""

_MOST = 200  # jobs in the queue at a time: clusters limit how many one user may have there
_PAUSES = 0.05, 2.0  # s between two looks at the answers: the shortest, and the longest where nothing happens
_LATE = 15.0  # s after a job's end in which its last files may still come through a file server
_LINES = 20  # of a job's log that are shown
_DAY = 24 * 60  # min
_ADVICE = {
    "TIMEOUT": "its time limit: give a longer one, --slurm time=…",
    "OUT_OF_MEMORY": "out of memory: give more, --slurm mem=…",
    "NODE_FAIL": "its computer failed",
    "PREEMPTED": "another job took its place",
    "CANCELLED": "somebody cancelled it",
}


@dataclass
class _Job:
    key: str
    job: Any
    answers: Path
    heard: int = 0
    over: float | None = field(default=None)  # since when it is known to have ended


class Slurm:
    """Calls made as jobs.

    Parameters
    ----------
    options : sbatch's option → value
        Such as ``{"partition": "gpu", "gpus": "1"}``.
    root : Path
        The output folder, on a file system that all computers of the cluster share.
    prepare : callable, optional
        Called before each call, in its job.
    cluster : str
        submitit's executor: "slurm"; "local", jobs as processes of this computer, or "debug", in this one, without any SLURM:
        they heed no options.

    Raises
    ------
    InputError
        If there is no SLURM here.
    """

    slots = None

    def __init__(
        self, options: Mapping[str, str], root: Path, prepare: Callable[[], None] | None = None, cluster: str = "slurm"
    ) -> None:
        submitit = require("submitit", "slurm")
        self._folder = root.absolute() / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        make_folder(self._folder)
        try:
            if cluster == "slurm":  # not AutoExecutor, which would set a limit of five minutes where the options have none
                self._executor = submitit.SlurmExecutor(folder=self._folder / "%j")
                self._executor.update_parameters(job_name="fastencode", time=None, additional_parameters=dict(options))
            else:
                self._executor = submitit.AutoExecutor(folder=self._folder / "%j", cluster=cluster)
                self._executor.update_parameters(timeout_min=_DAY)
        except RuntimeError as error:
            self._remove()
            raise InputError(f"jobs cannot be submitted here ({error}): run this where sbatch and srun are") from error
        self._prepare = prepare
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._told: deque[tuple[str, Any]] = deque()
        self._jobs: list[_Job] = []
        self._lost, self._number = False, 0

    def start(self, key: str, function: Call, *arguments: Any) -> None:
        call = packed(function, arguments)
        if isinstance(call, Lost):
            self._told.append((key, call))
        else:
            self._waiting.append((key, call))

    def next(self) -> tuple[str, Any]:
        pause, longest = _PAUSES
        while not self._told:
            self._submit()
            for job in list(self._jobs):
                self._look(job)
            if not self._told:
                time.sleep(pause)
                pause = min(1.5 * pause, longest)
        return self._told.popleft()

    def close(self) -> None:
        for job in self._jobs:
            with suppress(OSError):
                job.job.cancel(check=False)
        if not self._lost:  # else logs say more
            self._remove()
        self._jobs.clear()
        self._waiting.clear()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._folder.parent.rmdir()

    def _submit(self) -> None:
        while self._waiting and len(self._jobs) < _MOST:
            key, call = self._waiting.popleft()
            answers = self._folder / f"answers-{self._number}"
            self._number += 1
            make_folder(answers)
            try:
                job = self._executor.submit(_carry_out, call, answers, os.getcwd(), self._prepare)
            except Exception as error:  # submitit has several of its own for a refusal of sbatch
                if self._jobs:  # such as too many at a time: later
                    self._waiting.appendleft((key, call))
                    return
                raise InputError(f"sbatch refused a job ({_first_line(error)}): check --slurm") from error
            self._jobs.append(_Job(key, job, answers))

    def _look(self, job: _Job) -> None:
        """Take what a job has said since the last look; where it has ended without its last word, it is lost."""
        with suppress(OSError):
            os.listdir(job.answers)  # a file server may have kept an older list
        told: Any = None
        while not isinstance(told, End | Lost):
            answer = job.answers / str(job.heard)
            if not answer.exists():
                break
            told = pickle.loads(answer.read_bytes())
            job.heard += 1
            self._told.append((job.key, told))
        if not isinstance(told, End | Lost):
            if job.over is None and job.job.done():
                job.over = time.monotonic()
                self._look(job)  # what it said meanwhile
                return
            if job.over is None or time.monotonic() - job.over < _LATE:
                return
            self._lost = True
            self._told.append((job.key, self._fate(job.job)))
        self._jobs.remove(job)

    def _fate(self, job: Any) -> Lost:
        """What became of a job that ended without a word."""
        state = str(job.state).partition(" ")[0].upper()
        why = _ADVICE.get(state, f"state {state}; it may not see the output folder, which all computers must share")
        log = ""
        with suppress(OSError):
            log = "\n".join((job.stderr() or "").splitlines()[-_LINES:])
        return Lost(f"its job {job.job_id} ended before it was finished ({why}); logs: {job.paths.folder}", log)


def _carry_out(call: bytes, answers: Path, folder: str, prepare: Callable[[], None] | None) -> None:
    """A call's results into files of a folder, in a job."""
    os.chdir(folder)
    place = 0

    def answer(result: Any) -> None:
        nonlocal place
        with whole_file(answers / str(place)) as fresh:
            fresh.write_bytes(pickle.dumps(result))
        place += 1

    with heeding_the_limit():
        try:
            for result in carried_out(call, prepare, available_processors()):
                answer(result)
        except Exception as error:
            answer(Lost(f"{type(error).__name__}: {error}", traceback.format_exc()))
        else:
            answer(End())


@contextmanager
def heeding_the_limit() -> Iterator[None]:
    """Ends the stage that is made when SLURM says, by SIGUSR2, that the job's time is nearly over."""

    def end(number: int, frame: object) -> None:
        raise InputError("ended, because its SLURM job was nearly out of time: give more, --slurm time=…")

    before = signal.signal(signal.SIGUSR2, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
