"""Functions of the stages before scoring: outputs of the frozen CNN, tuned models, and their layers on the stories.

The key of a stage contains the code of all modules that are imported here. So this module imports no tables and no figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features, extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons
from fastencode.tune.trainer import tune_lessons

__all__ = ["hours_of", "make_frames", "only", "read_layers", "save_random", "shortened", "tune_on"]


def make_frames(folder: Path, model: Path | str, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """Save the output frames of the frozen CNN for every clip; tuning and all checkpoints share them."""
    extract_frames(sounds, SpeechEncoder(model), folder, read)


def read_layers(folder: Path, checkpoint: Path | str, frames: Path | None, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """Read all layers of a checkpoint on the stories; from saved CNN frames, unless ``frames`` is None."""
    files = None if frames is None else {name: frames / f"{name}.h5" for name in sounds}
    extract_features(sounds, SpeechEncoder(checkpoint), folder, read, frames=files)


def save_random(folder: Path, model: Path | str, seed: int) -> None:
    """Save a model with the architecture of another and random weights."""
    SpeechEncoder(model, random_weights=seed).save(folder)


def tune_on(folder: Path, model: Path | str, lessons: Lessons, frames: Path | None, config: TuneConfig, desc: str) -> None:
    """Tune a model. A killed run is resumed."""
    tune_lessons(SpeechEncoder(model), lessons, config, folder, frames=frames, desc=desc)


def only(lessons: Lessons, who: str) -> Lessons:
    """The lessons of one participant."""

    def pick(of: Mapping[str, Any]) -> dict[str, Any]:
        return {who: of[who]} if who in of else {}

    return Lessons(lessons.data, pick(lessons.train), pick(lessons.validation), pick(lessons.voxels), pick(lessons.weights))


def shortened(lessons: Lessons, hours: float | None) -> Lessons:
    """The first runs of each participant whose duration comes closest to ``hours``, at least one run. None: all runs."""
    if hours is None:
        return lessons
    tr, wanted = lessons.data.tr, 3600 * hours
    train = {}
    for who, runs in lessons.train.items():
        kept, seconds = [runs[0]], lessons.data.n_rows(runs[0]) * tr
        for run in runs[1:]:
            more = lessons.data.n_rows(run) * tr
            if abs(seconds + more - wanted) > abs(seconds - wanted):
                break
            kept.append(run)
            seconds += more
        train[who] = tuple(kept)
    return replace(lessons, train=train)


def hours_of(lessons: Lessons) -> dict[str, float]:
    """Hours of scans that each participant's runs have, those that are learned from."""
    data = lessons.data
    return {who: sum(data.n_rows(run) for run in runs) * data.tr / 3600 for who, runs in lessons.train.items()}
