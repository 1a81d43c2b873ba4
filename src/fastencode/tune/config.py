"""Settings of brain-tuning, and of making the small model. Imports nothing slow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastencode.errors import InputError

__all__ = ["PretrainConfig", "TuneConfig"]


@dataclass(frozen=True)
class TuneConfig:
    """How a speech model is tuned on responses.

    Attributes
    ----------
    epochs, batch : int
        Passes over the training clips, and clips in a batch.
    learning_rate, head_learning_rate : float
        AdamW's peak for the transformer layers and for the projection to voxels; 10 % warm-up, then linear to 0.
    weight_decay : float
        AdamW's, on everything that is tuned.
    clip_seconds : float
        Audio per response row: the row's TR and what was heard before it.
    seed : int
        Seeds the projection and the order of clips.
    """

    epochs: int = 5
    batch: int = 8
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip_seconds: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "batch", "learning_rate", "head_learning_rate", "clip_seconds")
        _check_whole(self, "epochs", "batch", "seed")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be 0 or more, got {self.weight_decay}")


@dataclass(frozen=True)
class PretrainConfig:
    """How the small model is made.

    Attributes
    ----------
    minutes : float
        Minutes of synthetic speech to learn from; a twelfth more is held out for the reported accuracy.
    steps, batch, clip_seconds : int, int, float
        Optimizer steps, clips in a batch and seconds in a clip.
    clusters : int
        Number of k-means classes of MFCC + Δ.
    learning_rate : float
        AdamW's peak, after 8 % of the steps; it then falls linearly to 0.
    mask_share, mask_frames : float, int
        Share of the frames under a mask, and frames in one span.
    seed : int
        Seeds the stories, the clusters, the weights, the clips and the masks.
    """

    minutes: float = 60.0
    steps: int = 2000
    batch: int = 8
    clip_seconds: float = 10.0
    clusters: int = 100
    learning_rate: float = 1e-3
    mask_share: float = 0.5
    mask_frames: int = 8
    seed: int = 7

    def __post_init__(self) -> None:
        _check_positive(self, "minutes", "steps", "batch", "clip_seconds", "clusters", "learning_rate", "mask_frames")
        _check_whole(self, "steps", "batch", "clusters", "mask_frames", "seed")
        if self.clip_seconds > 60 * min(self.minutes, 5):
            raise InputError(f"clip_seconds must fit into a story of {60 * min(self.minutes, 5):g} s, got {self.clip_seconds}")
        if not 0 < self.mask_share < 1:
            raise InputError(f"mask_share must lie between 0 and 1, got {self.mask_share}")


def _check_positive(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise InputError(f"{name} must be positive, got {getattr(settings, name)}")


def _check_whole(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value != int(value) or value < 0:
            raise InputError(f"{name} must be a whole number, 0 or more, got {value}")
