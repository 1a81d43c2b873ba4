"""Brain-tuning: it learns what can be learned, leaves the CNN alone and repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastencode
from fastencode.errors import FastencodeError, InputError

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch

from fastencode.speech.audio import read_audio, write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.clips import clips_at
from fastencode.tune.config import PretrainConfig, TuneConfig
from fastencode.tune.trainer import Examples, _correlation, brain_tune
from speech_cases import saved_model

torch.set_num_threads(1)  # as the command does; two threads on a busy machine wait for each other


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), "wav2vec2")


def examples(model: Path, n: int, seed: int) -> Examples:
    """Two tones, each low or high; the responses follow the first tone, and whether both are high."""
    rng = np.random.default_rng(seed)
    high = rng.integers(0, 2, (n, 2))
    pitch = np.repeat(np.where(high, 2500.0, 500.0), 1000, axis=1)
    phase = 2 * np.pi * (np.cumsum(pitch, axis=1) / 16000 + rng.random((n, 1)))
    clips = (np.sin(phase) + 0.3 * rng.standard_normal((n, 2000))).astype(np.float32)
    with torch.inference_mode():
        frames = SpeechEncoder(model).cnn(torch.from_numpy(clips)).contiguous().numpy()
    responses = np.stack([high[:, 0] & high[:, 1], high[:, 0]], axis=1) * 2.0 - 1
    return Examples(frames, responses.astype(np.float32))


def tuned(model: Path, folder: Path, **settings: object) -> tuple[list, SpeechEncoder]:
    folder.mkdir()
    encoder = SpeechEncoder(model)
    config = TuneConfig(**{"epochs": 6, "batch": 8, "learning_rate": 3e-3, "head_learning_rate": 1e-2, **settings})
    history = brain_tune(encoder, examples(model, 160, 0), examples(model, 60, 1), config, folder, show_progress=False)
    return history, encoder


def test_correlation_is_that_of_the_package() -> None:
    """There are two, because a change of the solvers must not tune finished models again: they agree."""
    rng = np.random.default_rng(0)
    measured, predicted = rng.standard_normal((2, 30, 5)).astype(np.float32)
    measured[:, 1] = predicted[:, 2] = 3.0
    predicted[:, 3] = 2 - measured[:, 3]
    found = _correlation(predicted, measured)
    np.testing.assert_allclose(found, fastencode.pearson(measured, predicted), atol=1e-6)
    assert found[1] == found[2] == 0 and found[3] < -0.999999


def test_tuning_learns_and_leaves_the_cnn_alone(model: Path, tmp_path: Path) -> None:
    history, encoder = tuned(model, tmp_path / "a", epochs=10)
    assert [epoch.epoch for epoch in history] == list(range(11)) and history[-1].updates == 10 * 20
    assert history[-1].validation_loss < 0.6 * history[0].validation_loss
    assert history[-1].validation_r > 0.7
    before, after = SpeechEncoder(model), SpeechEncoder(tmp_path / "a")
    assert before.cnn_hash() == after.cnn_hash() == encoder.cnn_hash()
    moved = {
        name
        for (name, old), new in zip(before.model.named_parameters(), after.model.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert any(name.startswith("encoder.layers.0.") for name in moved) and any(
        name.startswith("encoder.layers.1.") for name in moved
    )
    assert not any(name.startswith("feature_extractor.") for name in moved)


def test_the_same_seed_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    first, _ = tuned(model, tmp_path / "a", epochs=1)
    again, _ = tuned(model, tmp_path / "b", epochs=1)
    other, _ = tuned(model, tmp_path / "c", epochs=1, seed=1)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    assert first[-1].validation_loss == again[-1].validation_loss != other[-1].validation_loss


def test_the_checkpoint_and_head_predict_what_the_trainer_saw(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    history, _ = tuned(model, tmp_path / "a", epochs=1)
    head = load_file(tmp_path / "a" / "head.safetensors")
    validation = examples(model, 60, 1)
    with torch.inference_mode():
        pooled = SpeechEncoder(tmp_path / "a").last_layer(torch.from_numpy(validation.frames)).mean(1)
        predicted = pooled @ head["weight"].T + head["bias"]
    assert float(((predicted.numpy() - validation.responses) ** 2).mean()) == pytest.approx(history[-1].validation_loss, rel=1e-5)


def test_bad_targets_and_settings(model: Path, tmp_path: Path) -> None:
    good = examples(model, 16, 0)
    with pytest.raises(InputError, match="16 clips but 15"):
        Examples(good.frames, good.responses[:-1])
    broken = good.responses.copy()
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        Examples(good.frames, broken)
    for name in ("epochs", "batch", "learning_rate", "clip_seconds"):
        with pytest.raises(InputError, match=f"{name} must be positive"):
            TuneConfig(**{name: 0})
    with pytest.raises(InputError, match="mask_share"):
        PretrainConfig(mask_share=1.0)
    with pytest.raises(FastencodeError, match="not finite in epoch 1: lower learning_rate"):
        tuned(model, tmp_path / "x", learning_rate=1e30, head_learning_rate=1e30, epochs=1)


def test_clips_are_found_by_their_end(model: Path, tmp_path: Path) -> None:
    """A row's clip is the sound before its scan ended, alone through transformers' extractor and CNN."""
    transformers = pytest.importorskip("transformers")
    audio = 0.1 * np.random.default_rng(5).standard_normal(16000 * 7).clip(-5, 5)
    write_audio(tmp_path / "a.wav", audio, 16000)
    read = ReadConfig("clip", tr=2.0, seconds=3.0)
    path = extract_frames({"a": tmp_path / "a.wav"}, SpeechEncoder(model), tmp_path, read, show_progress=False)["a"]
    heard = read_audio(tmp_path / "a.wav")
    whole = transformers.AutoModel.from_pretrained(model).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
    wanted = []
    for clip in (np.concatenate([np.zeros(16000, np.float32), heard[:32000]]), heard[48000:96000]):
        inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            wanted.append(whole.feature_extractor(inputs.input_values)[0].T.numpy())
    np.testing.assert_allclose(clips_at(path, np.array([2.0, 6.0])), wanted, atol=1e-5)
    assert clips_at(path, np.empty(0)).shape == (0, *wanted[0].shape)
    with pytest.raises(InputError, match="has clips from 2 to 6 s"):
        clips_at(path, np.array([8.0]))
    with pytest.raises(InputError, match="multiples of the TR"):
        clips_at(path, np.array([4.5]))
