"""The settings of ``fastencode-tune run``. Imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fastencode.errors import InputError

__all__ = ["RunConfig"]


@dataclass(frozen=True)
class RunConfig:
    """Run a study: tune models, score and probe every layer of each model, and test the expectations in the study's file.

    A study that was stopped or killed continues with the same command.

    Attributes
    ----------
    study : Path
        A YAML file, or the name of a study that ships with fastencode: experiment-1-probe-baseline, experiment-2-pilot,
        experiment-3-cnn-ablation, question-1-larger-models, question-2-word-identity, question-3-other-language,
        check-1-head-layer, check-2-nonlinear, check-3-more-tasks, scaling-hours, or study, which shows every setting.
    template : bool
        Only print the YAML file, to be edited: fastencode-tune run experiment-2-pilot --template > study.yaml
    out : Path
        Output folder. Stages that are finished in it are reused.
    data : str, optional
        Folder of a data set in the layout of ds003020, or demo for simulated data. Overrides the file.
    dry_run : bool
        Only check everything and print the stages, with estimates of their time, memory and disk space.
    jobs : int
        Number of processes on this computer.
    scheduler : str, optional
        Address of a Dask scheduler, such as tcp://node12:8786. Stages run on its workers, which must share the output folder.
    slurm : str, optional
        Options of sbatch, such as partition=gpu,gpus=1. Stages run as SLURM jobs; without submit, only job scripts are written.
    submit : bool
        Submit the SLURM jobs and wait for them.
    reuse : bool
        Reuse finished stages even if the code of fastencode has changed since.
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
