"""Run calls as SLURM jobs, submitted and monitored through submitit.

A job writes each result to a file in the output folder at once, so that results of a killed job are not lost. If a job sends
nothing, its state is queried from ``sacct``, at growing intervals.

Options are the long options of ``sbatch`` and are passed on unchanged.
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
"""Folder of jobs inside the output folder."""

_MOST = 200  # jobs in the queue at the same time: clusters limit the number per user
_PAUSES = 0.05, 2.0  # s between two searches for results: first, and at most if none arrive
_LATE = 15.0  # s to wait for the last files of a job after its end: network file systems are slow
_LINES = 20  # lines of a job's log to show
_DAY = 24 * 60  # min
_ADVICE = {
    "TIMEOUT": "time limit reached: give more, --slurm time=…",
    "OUT_OF_MEMORY": "out of memory: give more, --slurm mem=…",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "preempted by another job",
    "CANCELLED": "it was cancelled",
}


@dataclass
class _Job:
    key: str
    job: Any
    answers: Path
    heard: int = 0
    over: float | None = field(default=None)  # time at which its end was noticed


class Slurm:
    """Runs calls as SLURM jobs.

    Parameters
    ----------
    options : sbatch's option → value
        Such as ``{"partition": "gpu", "gpus": "1"}``.
    root : Path
        The output folder, on a file system that all nodes share.
    prepare : callable, optional
        Called in the job before each call.
    cluster : str
        Executor of submitit: "slurm"; "local" runs jobs as processes of this computer, "debug" in this process. The last two need
        no SLURM and ignore ``options``.

    Raises
    ------
    InputError
        If SLURM is not available here.
    """

    slots = None

    def __init__(
        self, options: Mapping[str, str], root: Path, prepare: Callable[[], None] | None = None, cluster: str = "slurm"
    ) -> None:
        submitit = require("submitit", "slurm")
        self._folder = root.absolute() / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        make_folder(self._folder)
        try:
            if cluster == "slurm":  # AutoExecutor would set a time limit of five minutes if the options have none
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
        if not self._lost:  # otherwise keep the logs
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
            except Exception as error:  # submitit raises several classes if sbatch refuses
                if self._jobs:  # perhaps too many at the same time: try again later
                    self._waiting.appendleft((key, call))
                    return
                raise InputError(f"sbatch refused a job ({_first_line(error)}): check --slurm") from error
            self._jobs.append(_Job(key, job, answers))

    def _look(self, job: _Job) -> None:
        """Read new results of a job. If it ended without :class:`End`, it is lost."""
        with suppress(OSError):
            os.listdir(job.answers)  # refreshes the listing that a network file system may have cached
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
                self._look(job)  # results that arrived in between
                return
            if job.over is None or time.monotonic() - job.over < _LATE:
                return
            self._lost = True
            self._told.append((job.key, self._fate(job.job)))
        self._jobs.remove(job)

    def _fate(self, job: Any) -> Lost:
        """Why a job ended before its call did."""
        state = str(job.state).partition(" ")[0].upper()
        why = _ADVICE.get(state, f"state {state}; perhaps it does not see the output folder, which all nodes must share")
        log = ""
        with suppress(OSError):
            log = "\n".join((job.stderr() or "").splitlines()[-_LINES:])
        return Lost(f"its job {job.job_id} ended before it was finished ({why}); logs: {job.paths.folder}", log)


def _carry_out(call: bytes, answers: Path, folder: str, prepare: Callable[[], None] | None) -> None:
    """Run a call in a job and write its results to files."""
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
    """A context that raises :class:`InputError` in the current stage when SLURM signals (SIGUSR2) that time is nearly over."""

    def end(number: int, frame: object) -> None:
        raise InputError("stopped, because its SLURM job was nearly out of time: give more, --slurm time=…")

    before = signal.signal(signal.SIGUSR2, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
