"""A speech encoder with a linear projection from its pooled last layer to voxels."""

from __future__ import annotations

import torch
from torch import nn

from fastencode.errors import InputError
from fastencode.speech.layers import SpeechEncoder

__all__ = ["BrainModel", "check_tunable"]


def check_tunable(encoder: SpeechEncoder) -> None:
    """Raise an :class:`InputError` for Whisper, which is read but not tuned yet: its frames of silence would be pooled too."""
    if encoder.longest is not None:
        raise InputError(f"{encoder.name} cannot be tuned yet: give a wav2vec2, HuBERT or WavLM model")


class BrainModel(nn.Module):
    """Frozen CNN, tuned transformer, mean over frames, linear head: predicts one TR's responses from one clip.

    Parameters
    ----------
    encoder : SpeechEncoder
        Tuned in place; its CNN gets no gradient.
    n_voxels : int

    Raises
    ------
    InputError
        For Whisper, which is read but not tuned yet.
    """

    def __init__(self, encoder: SpeechEncoder, n_voxels: int) -> None:
        super().__init__()
        check_tunable(encoder)
        encoder.freeze_cnn()
        self.encoder = encoder
        self.backbone = encoder.model  # registers its parameters
        self.head = nn.Linear(encoder.width, n_voxels)

    def forward(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        """CNN frames (b, f, c) → responses (b, v)."""
        return self.head(self.encoder.last_layer(frames_bfc).mean(dim=1))

    def parameter_groups(self, learning_rate: float, head_learning_rate: float) -> list[dict]:
        """The optimizer's two groups: transformer, head."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        return [{"params": backbone, "lr": learning_rate}, {"params": list(self.head.parameters()), "lr": head_learning_rate}]
