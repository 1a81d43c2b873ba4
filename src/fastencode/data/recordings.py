"""What the readers of sound files return: where a recording lies, and what is known about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import FastencodeWarning
from fastencode.speech.audio import read_audio

__all__ = ["SPLITS", "Recording", "warn_of_shared_speakers"]

SPLITS = ("train", "validation", "test")
"""The names of splits, in all readers."""


@dataclass(frozen=True)
class Recording:
    """A sound file and what is known about it; nothing of the file is read before it is asked for."""

    path: Path
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the sound is, by kind of label: ``{"word": "yes"}``, ``{"emotion": "joy", "language": "fi"}``."""
    speaker: str | None = None
    split: str | None = None
    """One of ``SPLITS``."""

    def audio(self, *, sample_rate: int = 16000) -> NDArray[np.float32]:
        """Return the sound, shape (n,), float32 mono; see ``fastencode.speech.audio.read_audio``."""
        return read_audio(self.path, sample_rate=sample_rate)


def warn_of_shared_speakers(recordings: Iterable[Recording], source: Path) -> None:
    """Warn with a ``FastencodeWarning`` if a speaker stands in several splits: scores would then not hold for new speakers."""
    splits: dict[str, set[str]] = {}
    for recording in recordings:
        if recording.speaker is not None and recording.split is not None:
            splits.setdefault(recording.speaker, set()).add(recording.split)
    shared = {speaker: [name for name in SPLITS if name in where] for speaker, where in splits.items() if len(where) > 1}
    if shared:
        speaker, where = next(iter(shared.items()))
        warnings.warn(
            f"{source}: {len(shared)} of {len(splits)} speakers stand in several splits, for example {speaker!r} in"
            f" {' and '.join(where)}; split by speaker to see what holds for new ones",
            FastencodeWarning,
            stacklevel=3,
        )
