"""The small model from nothing, in miniature: what is written, that it learns, that it repeats itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pretraining needs the extra 'demo'")
pytest.importorskip("transformers", reason="pretraining needs the extra 'demo'")
pytest.importorskip("espeakng_loader", reason="pretraining needs the extra 'demo'")

import torch

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.config import PretrainConfig
from fastencode.tune.pretrain import pretrain

torch.set_num_threads(1)  # as the command does; two threads on a busy machine wait for each other
SMALL = PretrainConfig(minutes=1, steps=12, batch=2, clip_seconds=2, clusters=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    pretrain(SMALL, path, show_progress=False)
    return path


def test_the_folder_is_a_model_with_a_card(folder: Path) -> None:
    encoder = SpeechEncoder(folder)
    assert (encoder.n_layers, encoder.width, encoder.normalize) == (7, 96, True)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in card
    assert "1 minutes of stories" in card and '"steps": 12' in card
    assert f"{sum(p.numel() for p in encoder.model.parameters()):,} parameters" in card


def test_the_same_seed_makes_the_same_weights(folder: Path, tmp_path: Path) -> None:
    pretrain(SMALL, tmp_path, show_progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_frames_of_the_encoder_and_of_the_cepstra_coincide(folder: Path) -> None:
    from fastencode.speech.acoustics import frame_times
    from fastencode.tune.pretrain import _FIELD, _RATE, _STRIDE

    encoder = SpeechEncoder(folder)
    ours = encoder.frame_times(10 * _RATE)
    np.testing.assert_allclose(ours, frame_times(len(ours), _RATE, window=_FIELD / _RATE, hop=_STRIDE / _RATE), atol=1e-9)
