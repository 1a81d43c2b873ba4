"""Stages before anything is scored: frames of the frozen CNN, tuned models, their layers of stories and of corpora.

A finished stage is keyed by the code that it uses here and by all modules imported here. So this one imports no tables and no
figures.
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
    """The stage of the frozen CNN: its frames of every clip, once for the trainer and for all checkpoints."""
    extract_frames(sounds, SpeechEncoder(model), folder, read)


def read_layers(folder: Path, checkpoint: Path | str, frames: Path | None, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """The stage of one checkpoint's layers: from the frames of the CNN that checkpoints share, where they share one."""
    files = None if frames is None else {name: frames / f"{name}.h5" for name in sounds}
    extract_features(sounds, SpeechEncoder(checkpoint), folder, read, frames=files)


def save_random(folder: Path, model: Path | str, seed: int) -> None:
    """The stage of a model in the shape of another, with random weights."""
    SpeechEncoder(model, random_weights=seed).save(folder)


def tune_on(folder: Path, model: Path | str, lessons: Lessons, frames: Path | None, config: TuneConfig, desc: str) -> None:
    """The stage of one tuned model: a run of the trainer. One that was killed goes on."""
    tune_lessons(SpeechEncoder(model), lessons, config, folder, frames=frames, desc=desc)


def only(lessons: Lessons, who: str) -> Lessons:
    """What one participant is learned from."""

    def pick(of: Mapping[str, Any]) -> dict[str, Any]:
        return {who: of[who]} if who in of else {}

    return Lessons(lessons.data, pick(lessons.train), pick(lessons.validation), pick(lessons.voxels), pick(lessons.weights))


def shortened(lessons: Lessons, hours: float | None) -> Lessons:
    """The first runs of each participant, as many as come closest to so many hours of scans, but at least one; None: all."""
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
