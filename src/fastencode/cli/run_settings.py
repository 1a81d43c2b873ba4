"""The settings of ``fastencode-tune run``. Imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fastencode.errors import InputError

__all__ = ["RunConfig"]


@dataclass(frozen=True)
class RunConfig:
    """Run a study: tune the models that its file names, score and probe every layer of all of them, and say what held.

    The same command goes on with a study that was stopped or killed.

    Attributes
    ----------
    study : Path
        A YAML file, or the name of a study that comes with fastencode: experiment-1-probe-baseline, experiment-2-pilot,
        experiment-3-cnn-ablation, question-1-larger-models, question-2-word-identity, question-3-other-language,
        check-1-head-layer, check-2-nonlinear, check-3-more-tasks, scaling-hours, or study, which shows every setting.
    template : bool
        Print the study's file instead, to be changed: fastencode-tune run experiment-2-pilot --template > study.yaml
    out : Path
        Output folder. Finished stages in it are reused.
    data : str, optional
        Folder of a data set in the layout of ds003020, or demo: a world that is made. Counts more than what the file says.
    dry_run : bool
        Check everything, print the stages and about how much time, memory and disk they take, and make nothing.
    jobs : int
        Processes of this computer that work at the same time.
    scheduler : str, optional
        Address of a Dask scheduler, such as tcp://node12:8786: stages are made on its workers, which share the output folder.
    slurm : str, optional
        Options of sbatch, such as partition=gpu,gpus=1: stages are SLURM jobs. Their scripts are written, unless submit is given.
    submit : bool
        Hand the SLURM jobs over, and wait for them.
    reuse : bool
        Take finished stages although the code of fastencode has changed since.
    """

    study: Path = field(default=Path("study"), metadata={"positional": True})
    template: bool = False
    out: Path = Path("study-output")
    data: str | None = None
    dry_run: bool = False
    jobs: int = 2
    scheduler: str | None = None
    slurm: str | None = None
    submit: bool = False
    reuse: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InputError(f"jobs must be at least 1, got {self.jobs}")
