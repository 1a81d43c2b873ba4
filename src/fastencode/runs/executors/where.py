"""Choose an executor from command-line options."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastencode.arguments import check_count
from fastencode.errors import InputError, require
from fastencode.runs.executors import Executor, Here
from fastencode.runs.executors.dask import Dask, connected
from fastencode.runs.executors.processes import Processes
from fastencode.runs.executors.slurm import Slurm

__all__ = ["Where", "check_where", "open_executor", "where_of"]

_OURS = ("array", "dependency", "error", "job-name", "open-mode", "output", "signal", "wrap")
_EXAMPLE = "--slurm partition=gpu,gpus=1,time=8:00:00"


@dataclass(frozen=True)
class Where:
    """Where stages run: in ``jobs`` processes of this computer, unless a cluster is given.

    Attributes
    ----------
    jobs : int
        Processes of this computer; with 1, stages run in this process. Ignored on a cluster.
    scheduler : str, optional
        Address of a Dask scheduler.
    slurm : sbatch's option → value, optional
        Run stages as SLURM jobs with these options.
    submit : bool
        Submit the jobs and wait for them. Otherwise, job scripts are written and nothing is computed.
    cluster : str
        Executor of submitit: "slurm"; "local" or "debug" for tests without SLURM.
    """

    jobs: int = 1
    scheduler: str | None = None
    slurm: Mapping[str, str] | None = None
    submit: bool = False
    cluster: str = "slurm"

    @property
    def is_local(self) -> bool:
        """Whether stages run on this computer."""
        return self.scheduler is None and self.slurm is None

    @property
    def only_writes(self) -> bool:
        """Whether job scripts are written and nothing is computed."""
        return self.slurm is not None and not self.submit


def where_of(*, jobs: int = 1, scheduler: str | None = None, slurm: str | None = None, submit: bool = False) -> Where:
    """Interpret the options ``--jobs``, ``--scheduler``, ``--slurm`` and ``--submit``.

    Parameters
    ----------
    jobs : int
    scheduler : str, optional
    slurm : str, optional
        Long options of sbatch: ``"partition=gpu,gpus=1,time=8:00:00"``. May be empty: all
        options have the defaults of the cluster.
    submit : bool

    Raises
    ------
    InputError
        If two options exclude each other, or ``slurm`` is not a list of options.
    """
    check_count("jobs", jobs, "a positive number of processes")
    if scheduler is not None and slurm is not None:
        raise InputError("--scheduler and --slurm are both given: leave one out")
    if submit and slurm is None:
        raise InputError(f"--submit needs --slurm: add options of the jobs, such as {_EXAMPLE}")
    if scheduler is not None and not scheduler.strip():
        raise InputError("--scheduler is empty: give the address that `dask scheduler` says, such as tcp://node12:8786")
    if scheduler is not None and "://" not in scheduler and not re.fullmatch(r"\S+:\d+", scheduler):
        raise InputError(
            f"--scheduler {scheduler!r} is no address: give the one that `dask scheduler` says, such as tcp://node12:8786"
        )
    return Where(jobs, scheduler, None if slurm is None else _options(slurm), submit)


def check_where(where: Where) -> None:
    """Check that stages can run there.

    Raises
    ------
    InputError
        If the scheduler does not answer, or jobs are to be submitted and sbatch or srun is missing.
    MissingLibraryError
        If the library for the cluster (distributed or submitit) is not installed.
    """
    if where.scheduler is not None:
        connected(where.scheduler).close()
    elif where.slurm is not None and where.submit:
        require("submitit", "slurm")
        missing = [name for name in ("sbatch", "srun") if where.cluster == "slurm" and shutil.which(name) is None]
        if missing:
            what = " and ".join(missing)
            raise InputError(
                f"--submit: {what} not found on PATH: run this on a login node, or leave --submit out to get scripts"
            )


def open_executor(where: Where, count: int, root: Path, prepare: Callable[[], None] | None = None) -> Executor:
    """Open the executor.

    Parameters
    ----------
    where : Where
        ``where.only_writes`` must be False.
    count : int
        Number of stages to run: at most this many processes are started.
    root : Path
        The output folder; must exist.
    prepare : callable, optional
        Called in every process before it runs stages.

    Raises
    ------
    InputError
        As :func:`check_where`; also if a worker does not share the output folder.
    """
    if where.scheduler is not None:
        return Dask(where.scheduler, root, prepare)
    if where.slurm is not None:
        check_where(where)
        return Slurm(where.slurm, root, prepare, where.cluster)
    if where.jobs == 1:
        return Here(prepare)
    return Processes(min(where.jobs, count), prepare)


def _options(text: str) -> dict[str, str]:
    """``partition=gpu,gpus=1`` as a mapping. Commas inside brackets, as in ``nodelist=n[1,3]``, separate nothing."""
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, re.split(r",(?![^\[]*\])", text))):
        name, equals, value = part.partition("=")
        name, value = name.strip().removeprefix("--").replace("_", "-"), value.strip()
        if not re.fullmatch(r"[a-z][a-z-]+", name) or not equals or not value or re.search(r"[\n\r]", value):
            raise InputError(f"--slurm: {part!r} is not OPTION=VALUE: give long options of sbatch, such as {_EXAMPLE}")
        if name in _OURS:
            raise InputError(f"--slurm: {name} is set for each job: leave it out")
        if name in found:
            raise InputError(f"--slurm: {name} is given twice: leave one out")
        found[name] = value
    return found
