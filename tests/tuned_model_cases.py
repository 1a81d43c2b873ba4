"""What tests of tuning share: small random models of every family and size, with two heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")

import torch

from fastencode.speech.layers import SpeechEncoder, unit_variance
from fastencode.tune.config import TuneConfig
from fastencode.tune.model import BrainModel, Rows
from speech_cases import saved_model

torch.set_num_threads(1)

ALL = ("wav2vec2", "hubert", "wavlm", "whisper", "wav2vec2 large", "hubert large", "wavlm large")
N = 16000  # samples of a clip


def encoder_of(folder: Path, kind: str, **settings: object) -> SpeechEncoder:
    """A random model of two layers with 50 frames a second; large ones norm after the last layer."""
    family, _, size = kind.partition(" ")
    saved = saved_model(folder / kind.replace(" ", "-"), family, stable=bool(size), strides=(5, 8, 8))
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **settings}))
    return SpeechEncoder(saved)


def model_of(folder: Path, kind: str, **settings: object) -> BrainModel:
    config = TuneConfig(**{"clip_seconds": 1.0, **settings})
    return BrainModel(encoder_of(folder, kind), config, {"A": 5, "B": 7}, tr=1.0)


def clips(count: int = 3, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, N)).astype(np.float32)
    return torch.from_numpy(unit_variance(noise))


def loss_of(model: BrainModel, frames: torch.Tensor, rows: Rows | None = None) -> torch.Tensor:
    state = model.state(frames, N, rows)
    return model.predict("A", state).square().mean() + model.predict("B", state).square().mean()


def step(model: BrainModel) -> None:
    """One large update of everything that learns."""
    model.training_mode(True)
    loss_of(model, model.front(clips())).backward()
    torch.optim.Adam(model.groups(), lr=0.1).step()
    model.training_mode(False)


def kept(model: BrainModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
