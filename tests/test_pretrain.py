"""The small model from nothing, in miniature: what is written, that it learns, that it repeats itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pretraining needs the extra 'demo'")
pytest.importorskip("transformers", reason="pretraining needs the extra 'demo'")
pytest.importorskip("espeakng_loader", reason="pretraining needs the extra 'demo'")

import torch

from fastencode.errors import InputError
from fastencode.speech.acoustics import frame_times
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.config import SMALL_FAMILIES, PretrainConfig
from fastencode.tune.pretrain import pretrain
from fastencode.tune.small_models import FIELD, RATE, STRIDE, SmallModel, small_model

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
    encoder = SpeechEncoder(folder)
    ours = encoder.frame_times(10 * RATE)
    np.testing.assert_allclose(ours, frame_times(len(ours), RATE, window=FIELD / RATE, hop=STRIDE / RATE), atol=1e-9)


@pytest.mark.parametrize("family", ["hubert", "whisper"])
def test_other_families_learn_and_are_read(tmp_path: Path, family: str) -> None:
    """Made, saved, read as a user's model: shape, frames that cover what is predicted, every state as transformers gives it."""
    pretrain(replace(SMALL, family=family), tmp_path, show_progress=False)
    encoder = SpeechEncoder(tmp_path)
    assert (encoder.n_layers, encoder.width, encoder.model.config.model_type) == (7, 96, family)
    assert encoder.longest == (10 * RATE if family == "whisper" else None)
    ours, lead = encoder.frame_times(5 * RATE), FIELD // 2 if family == "whisper" else 0
    taught = frame_times(len(ours), RATE, window=FIELD / RATE, hop=STRIDE / RATE) - lead / RATE
    np.testing.assert_allclose(ours, taught, atol=1e-9)
    assert len(ours) == (125 if family == "whisper" else 124)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"tags: [{family}, synthetic-speech]" in card and f"--pretraining.family {family}" in card
    assert hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest() in card
    assert (tmp_path / "model.safetensors").stat().st_size < 4e6
    clip = torch.randn(1, 5 * RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = encoder.layers(encoder.cnn(clip))
        if family == "whisper":
            spectrum = encoder._extractor([clip[0].numpy()], sampling_rate=RATE, return_tensors="pt").input_features
            expected = encoder.model.encoder(spectrum, output_hidden_states=True).hidden_states
        else:
            expected = encoder.model(clip, output_hidden_states=True).hidden_states
    for state, other in zip(states[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(state, other, atol=1e-4, rtol=1e-4)


def scored(family: str, under_the_mask: float) -> tuple[torch.Tensor, SmallModel]:
    """Scores at frames 20 to 29 of a clip, all masked, whose sound in their middle is multiplied."""
    torch.manual_seed(0)
    model = small_model(family, 5)
    mask = torch.zeros(1, model.n_frames(2 * RATE), dtype=torch.bool)
    mask[0, 20:30] = True
    audio = torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(1)) * 0.05
    audio[0, : 4 * STRIDE] *= 3  # the loudest of the clip, by which Whisper's spectrum is scaled, is not under the mask
    audio[0, 24 * STRIDE : 26 * STRIDE] *= under_the_mask
    return model(audio, mask), model


@pytest.mark.parametrize("family", SMALL_FAMILIES)
def test_scores_of_masked_frames_teach_the_encoder(family: str) -> None:
    scores, model = scored(family, 1.0)
    assert scores.shape == (10, 5)
    torch.nn.functional.cross_entropy(scores, torch.arange(10) % 5).backward()
    moved = model.masked if family == "whisper" else model.encoder.masked_spec_embed
    learned = [parameter for parameter in model.encoder.encoder.layers.parameters() if parameter.requires_grad]
    assert all(
        float(parameter.grad.abs().max()) > 0 for parameter in [moved, *learned] if parameter.ndim > 1 or parameter is moved
    )


def test_whisper_does_not_hear_masked_frames() -> None:
    """Silence in the middle of a mask changes no score. (Group norm tells the other two a little of it, as in the real ones.)"""
    torch.testing.assert_close(scored("whisper", 1.0)[0], scored("whisper", 0.0)[0], atol=1e-6, rtol=0)


def test_hubert_is_wav2vec2_with_other_lessons() -> None:
    """The weights of one fit the other and give the same states: so the small HuBERT is taught something else."""
    torch.manual_seed(0)
    one, other = small_model("wav2vec2", 5).encoder.eval(), small_model("hubert", 5).encoder.eval()
    other.load_state_dict(one.state_dict())
    clip = torch.randn(1, RATE)
    with torch.no_grad():
        torch.testing.assert_close(one(clip).last_hidden_state, other(clip).last_hidden_state)


def test_lessons_of_hubert_are_states_of_the_shipped_model() -> None:
    """In chunks of 30 s, each of unit variance, without a gap: frame 750 is the first of the second chunk."""
    from fastencode.speech.layers import SMALL_MODEL
    from fastencode.tune.pretrain import _states

    story = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    (states,) = _states([story], False)
    assert states.shape == ((40 * RATE - FIELD) // STRIDE + 1, 96)
    teacher, second = SpeechEncoder(SMALL_MODEL), story[750 * STRIDE :]
    clip = torch.from_numpy((second - second.mean()) / second.std())[None]
    with torch.no_grad():
        expected = teacher.model(clip, output_hidden_states=True).hidden_states[4][0]
    np.testing.assert_allclose(states[750:], expected.numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"family": "wav2vec"}, "family is 'wav2vec': choose one of"),
        ({"family": "whisper", "clip_seconds": 11}, "hears 10 s at once"),
    ],
)
def test_impossible_models(settings: dict, why: str) -> None:
    with pytest.raises(InputError, match=why):
        PretrainConfig(**settings)
