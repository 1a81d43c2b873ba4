"""The stages of an experiment before anything is scored: frames of the frozen CNN, tuned models and controls, their layers.

A finished stage is keyed by the code that it uses here and by all modules imported here. So this one imports no tables and no
figures.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.data.dataset import Dataset
from fastencode.errors import require
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features, extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.timing.clean import zscore
from fastencode.tune.clips import clips_at
from fastencode.tune.config import TuneConfig
from fastencode.tune.model import check_tunable
from fastencode.tune.targets import permute_blocks
from fastencode.tune.trainer import Examples, brain_tune

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

    def ends(self, run: str) -> np.ndarray:
        """When each row's scan ended, (rows,) in s: a clip ends there."""
        return self.data.row_times(run) + self.data.tr


def arm_name(permutation: int | None) -> str:
    """What folders call a model: tuned on responses as they are (None), or a control, on a permutation of them."""
    return TUNED if permutation is None else f"{CONTROL}-{permutation}"


def make_frames(folder: Path, model: Path | str, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """The stage of the frozen CNN: its frames of every clip, once for the trainer and for all checkpoints."""
    encoder = SpeechEncoder(model)
    check_tunable(encoder)
    extract_frames(sounds, encoder, folder, read)


def read_layers(folder: Path, checkpoint: Path | str, frames: Path, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """The stage of one checkpoint's layers, from the frames of the CNN that all checkpoints share."""
    extract_features(sounds, SpeechEncoder(checkpoint), folder, read, frames={name: frames / f"{name}.h5" for name in sounds})


def tune_on(
    folder: Path, experiment: Experiment, model: Path | str, frames: Path, who: str, permutation: int | None, config: TuneConfig
) -> None:
    """The stage of one tuned model.

    With a ``permutation`` it is a control: the same clips in the same batches, the same first weights of the head, and
    block-permuted responses. The order of the blocks follows from the number, the participant and ``config.seed``.
    """
    parts = [_examples(experiment, frames, who, run) for run in experiment.train]
    train = Examples.join(parts)
    if permutation is not None:
        rng = np.random.default_rng([config.seed, 12, zlib.crc32(who.encode()), permutation])
        order = permute_blocks([len(part.responses) for part in parts], rng=rng)
        train = Examples(train.frames, train.responses[order])
    validation = _examples(experiment, frames, who, experiment.validation)
    desc = f"{who} {arm_name(permutation)}"
    history = brain_tune(SpeechEncoder(model), train, validation, config, folder, desc=desc)
    _write_rows(folder / "history.csv", [asdict(epoch) for epoch in history])


def _examples(experiment: Experiment, frames: Path, who: str, run: str) -> Examples:
    """The clip that ends with each scan, and the z-scored responses of the voxels to tune on."""
    data = experiment.data
    responses = zscore(data.responses(who, run, voxels=experiment.tuned_on[who])).astype(np.float32)
    return Examples(clips_at(frames / f"{data.recording(run)}.h5", experiment.ends(run)), responses)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    pandas = require("pandas", "tune")
    pandas.DataFrame(rows).to_csv(path, index=False)
