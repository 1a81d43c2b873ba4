"""Speech encoders opened at the CNN: the same numbers as the whole model, clips where they belong, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder, unit_variance
from speech_cases import saved_model

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
transformers = pytest.importorskip("transformers", reason="speech models need the extra 'tune'")


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
def test_layers_are_those_of_the_whole_model(tmp_path: Path, family: str, stable: bool) -> None:
    encoder = SpeechEncoder(saved_model(tmp_path, family, stable=stable))
    clips = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4000)).astype(np.float32))
    with torch.inference_mode():
        frames = encoder.cnn(clips)
        ours = encoder.layers(frames)
        whole = encoder.model(clips, output_hidden_states=True)
        last = encoder.last_layer(frames)
    assert len(ours) == encoder.n_layers == 3
    for mine, theirs in zip(ours, whole.hidden_states, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(last, whole.last_hidden_state)
    assert frames.shape[1] == len(encoder.frame_times(4000))


def test_whispers_layers_are_those_of_the_whole_model(tmp_path: Path) -> None:
    encoder = SpeechEncoder(saved_model(tmp_path, "whisper"))
    audio = np.random.default_rng(0).standard_normal((2, 32000)).astype(np.float32) * 0.1
    extractor = transformers.WhisperFeatureExtractor()
    with torch.inference_mode():
        frames = encoder.cnn(torch.from_numpy(audio))
        ours = encoder.layers(frames)
        spectrum = extractor(list(audio), sampling_rate=16000, return_tensors="pt").input_features
        whole = encoder.model.encoder(spectrum, output_hidden_states=True)
        last = encoder.last_layer(frames)
        normed = encoder.model.encoder.layer_norm(ours[-1])
    assert len(ours) == encoder.n_layers == 3 and frames.shape[1] == 1500
    for mine, theirs in zip(ours[:-1], whole.hidden_states[:-1], strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(last, whole.last_hidden_state)
    torch.testing.assert_close(normed, whole.last_hidden_state)  # as in other models, the last layer is before the final norm


def test_whispers_frames_are_counted_where_there_is_sound(tmp_path: Path) -> None:
    """A click moves the frames around it: those within a window of the spectrum and the reach of the convolutions."""
    encoder = SpeechEncoder(saved_model(tmp_path, "whisper"))
    noise = np.random.default_rng(1).standard_normal((1, 32000)).astype(np.float32) * 0.01
    click = noise.copy()
    click[0, 16000] = 0.05
    with torch.inference_mode():
        moved = (encoder.cnn(torch.from_numpy(click)) - encoder.cnn(torch.from_numpy(noise)))[0].abs().sum(1).numpy()
    times = encoder.frame_times(32000)
    assert len(times) == 100 and times[50] == 1.0
    assert np.abs(np.flatnonzero(moved > 1e-4) - 50).max() <= 3 and moved[50] > 1e-4
    assert len(encoder.frame_times(32001)) == 101
    with pytest.raises(InputError, match=r"31 s is longer than the 30 s that .* hears at once"):
        encoder.frame_times(31 * 16000)


def test_a_models_hash_is_what_it_computes(tmp_path: Path) -> None:
    one = SpeechEncoder(saved_model(tmp_path / "a", "hubert"))
    assert one.hash() == SpeechEncoder(saved_model(tmp_path / "b", "hubert")).hash()
    assert one.hash() != SpeechEncoder(saved_model(tmp_path / "c", "hubert", seed=4)).hash()
    assert one.hash() != SpeechEncoder(saved_model(tmp_path / "d", "hubert", stable=True)).hash()
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "b")
    assert one.hash() != SpeechEncoder(tmp_path / "b").hash()
    with torch.no_grad():
        next(one.model.encoder.layers.parameters())[0] += 1e-3
    assert one.hash() != SpeechEncoder(tmp_path / "a").hash()


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "whisper"])
def test_reduced_precision_stays_near(tmp_path: Path, family: str) -> None:
    clips = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 8000)).astype(np.float32))
    saved = saved_model(tmp_path, family)
    with torch.inference_mode():
        full, half = (
            [layer.float().numpy().ravel() for layer in encoder.layers(encoder.cnn(clips))]
            for encoder in (SpeechEncoder(saved), SpeechEncoder(saved, dtype="bfloat16"))
        )
    for mine, theirs in zip(half, full, strict=True):
        assert np.corrcoef(mine, theirs)[0, 1] > 0.999
        assert not np.array_equal(mine, theirs)


def test_frame_times_are_the_middles_of_what_a_frame_hears(tmp_path: Path) -> None:
    """A click moves exactly the frames whose stretch of audio holds it."""
    encoder = SpeechEncoder(saved_model(tmp_path, "wav2vec2", stable=True))
    silence, click = np.zeros((1, 4000), np.float32), np.zeros((1, 4000), np.float32)
    click[0, 2000] = 1.0
    extractor = encoder.model.feature_extractor
    with torch.inference_mode():
        moved = (extractor(torch.from_numpy(click)) - extractor(torch.from_numpy(silence)))[0].abs().sum(0).numpy()
    heard = encoder.frame_times(4000)[moved > 1e-6]
    field = 10 + 2 * 5 + 1 * 20  # kernels 10, 3, 2 at steps 1, 5, 20
    assert len(heard) and np.all(np.abs(heard * 16000 - 2000.5) <= field / 2)
    assert len(heard) == pytest.approx(field / 40, abs=1)


def test_normalized_clips_are_the_feature_extractors() -> None:
    audio = np.random.default_rng(2).standard_normal(8000).astype(np.float32) * 0.1 + 0.3
    theirs = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)(
        audio, sampling_rate=16000, return_tensors="np"
    ).input_values
    np.testing.assert_allclose(unit_variance(audio[None]), theirs, atol=1e-5)


def test_wrong_models_get_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"nothing' is a folder without config\.json: give the one that holds it"):
        SpeechEncoder(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"nowhere' is no folder here: .* or owner/name on the hub"):
        SpeechEncoder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="model 'smal' is no folder here: .* or owner/name on the hub"):
        SpeechEncoder("smal")
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="'bert' model: give one of wav2vec2, hubert, wavlm, whisper"):
        SpeechEncoder(tmp_path / "bert")
    with pytest.raises(InputError, match="dtype='int8': choose one of"):
        SpeechEncoder(SMALL_MODEL, dtype="int8")
    encoder = SpeechEncoder(saved_model(tmp_path / "small", "hubert"))
    with pytest.raises(InputError, match="shorter than one frame"):
        encoder.frame_times(20)
    weights = tmp_path / "small" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="weights of model .* cannot be loaded"):
        SpeechEncoder(tmp_path / "small")
    weights.unlink()
    with pytest.raises(InputError, match="weights of model .* cannot be loaded"):
        SpeechEncoder(tmp_path / "small")


def test_the_shipped_model_is_what_its_card_says() -> None:
    import hashlib

    card = (SMALL_MODEL / "README.md").read_text(encoding="utf-8")
    weights = SMALL_MODEL / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert weights.stat().st_size <= 8e6
    encoder = SpeechEncoder(SMALL_MODEL)
    assert len(encoder.model.config.conv_dim) == 7 and encoder.n_layers == 7
    assert f"{sum(p.numel() for p in encoder.model.parameters()):,} parameters" in card
