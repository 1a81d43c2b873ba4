"""Where stages are to be made, as it is asked for on the command line, and the executor that makes them there."""

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
    """Where stages are made: in ``jobs`` processes of this computer, unless a cluster is named.

    Attributes
    ----------
    jobs : int
        Processes of this computer; 1: in this one. Does not count on a cluster.
    scheduler : str, optional
        The address of a Dask scheduler.
    slurm : sbatch's option → value, optional
        Stages are SLURM jobs with these options.
    submit : bool
        Hand the jobs over and wait for them. Otherwise their scripts are written, and nothing is made.
    cluster : str
        submitit's executor for the jobs: "slurm"; "local" or "debug" for trials without SLURM.
    """

    jobs: int = 1
    scheduler: str | None = None
    slurm: Mapping[str, str] | None = None
    submit: bool = False
    cluster: str = "slurm"

    @property
    def only_writes(self) -> bool:
        """Whether scripts are written and nothing is made."""
        return self.slurm is not None and not self.submit


def where_of(*, jobs: int = 1, scheduler: str | None = None, slurm: str | None = None, submit: bool = False) -> Where:
    """What the options ``--jobs``, ``--scheduler``, ``--slurm`` and ``--submit`` ask for.

    Parameters
    ----------
    jobs : int
    scheduler : str, optional
    slurm : str, optional
        Long options of sbatch: ``"partition=gpu,gpus=1,time=8:00:00"``. May be empty: all as the cluster has it.
    submit : bool

    Raises
    ------
    InputError
        If two exclude each other, or ``slurm`` is not such a list.
    """
    check_count("jobs", jobs, "a positive number of processes")
    if scheduler is not None and slurm is not None:
        raise InputError("--scheduler and --slurm are both given: stages are made on one cluster; leave one out")
    if submit and slurm is None:
        raise InputError(f"--submit hands over SLURM jobs, and --slurm is not given: add their options, such as {_EXAMPLE}")
    if scheduler is not None and not scheduler.strip():
        raise InputError("--scheduler is empty: give the address that `dask scheduler` says, such as tcp://node12:8786")
    if scheduler is not None and "://" not in scheduler and not re.fullmatch(r"\S+:\d+", scheduler):
        raise InputError(
            f"--scheduler {scheduler!r} is no address: give the one that `dask scheduler` says, such as tcp://node12:8786"
        )
    return Where(jobs, scheduler, None if slurm is None else _options(slurm), submit)


def check_where(where: Where) -> None:
    """Look whether stages can be made there, before hours of work.

    Raises
    ------
    InputError
        If the scheduler does not answer, or jobs are to be handed over and there is no sbatch.
    MissingLibraryError
        If the library that talks to the cluster is not installed.
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
    """What makes calls there.

    Parameters
    ----------
    where : Where
        Not one that only writes scripts.
    count : int
        How many stages there are to make: no more processes are started.
    root : Path
        The output folder; must exist.
    prepare : callable, optional
        Called in every process that makes stages, before it does.

    Raises
    ------
    InputError
        As :func:`check_where` does; if a worker does not share the output folder.
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
