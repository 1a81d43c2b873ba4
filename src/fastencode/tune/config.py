"""Settings of brain-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from fastencode.errors import InputError

__all__ = ["TuneConfig"]


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
        for name in ("epochs", "batch", "learning_rate", "head_learning_rate", "clip_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise InputError(f"weight_decay must not be negative, got {self.weight_decay}")
