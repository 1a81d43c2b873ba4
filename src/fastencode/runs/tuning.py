"""The stages of an experiment before anything is scored: frames of the frozen CNN, tuned models and controls, their layers.

A finished stage is keyed by the code that it uses here and by all modules imported here. So this one imports no tables and no
figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastencode.data.dataset import Dataset
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features, extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons
from fastencode.tune.trainer import tune_lessons

__all__ = ["CONTROL", "Experiment", "arm_name", "make_frames", "read_layers", "tune_on"]

TUNED, CONTROL = "tuned", "control"


@dataclass(frozen=True)
class Experiment:
    """Who is tuned on what.

    Attributes
    ----------
    data : Dataset
        Scans end at multiples of its TR. Its test run is what models are scored on.
    train : run names
        The model is tuned on these, and ridge is fitted on them.
    validation : run name
        What is watched while tuning.
    tuned_on : participant → voxel indices
        Whose responses a model of the participant learns.
    """

    data: Dataset
    train: tuple[str, ...]
    validation: str
    tuned_on: Mapping[str, np.ndarray]

    @property
    def runs(self) -> tuple[str, ...]:
        return (*self.train, self.validation, self.data.test_story)


def arm_name(permutation: int | None) -> str:
    """What folders call a model: tuned on responses as they are (None), or a control, on a permutation of them."""
    return TUNED if permutation is None else f"{CONTROL}-{permutation}"


def make_frames(folder: Path, model: Path | str, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """The stage of the frozen CNN: its frames of every clip, once for the trainer and for all checkpoints."""
    extract_frames(sounds, SpeechEncoder(model), folder, read)


def read_layers(folder: Path, checkpoint: Path | str, frames: Path, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """The stage of one checkpoint's layers, from the frames of the CNN that all checkpoints share."""
    extract_features(sounds, SpeechEncoder(checkpoint), folder, read, frames={name: frames / f"{name}.h5" for name in sounds})


def tune_on(
    folder: Path, experiment: Experiment, model: Path | str, frames: Path, who: str, permutation: int | None, config: TuneConfig
) -> None:
    """The stage of one tuned model: a run of the trainer. One that was killed goes on.

    With a ``permutation`` it is a control: the same clips in the same batches, the same first weights of the head, and
    block-permuted responses. The order of the blocks follows from the number, the participant and ``config.seed``.
    """
    lessons = Lessons(
        experiment.data,
        {who: experiment.train},
        {who: (experiment.validation,)},
        {who: experiment.tuned_on[who]},
    )
    if permutation is not None:
        config = replace(config, targets="permuted", permutation=permutation)
    tune_lessons(SpeechEncoder(model), lessons, config, folder, frames=frames, desc=f"{who} {arm_name(permutation)}")
