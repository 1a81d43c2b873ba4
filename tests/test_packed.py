"""A corpus in one file: equal to one recording at a time, the same bytes after a kill, refused where something is another."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech import packing, reading
from fastencode.speech.acoustics import mfcc
from fastencode.speech.audio import read_audio, write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import (
    estimate_packed,
    extract_packed,
    extract_packed_frames,
    extract_packed_mfcc,
    frame_bytes,
    open_packed,
)
from fastencode.speech.store import read_features
from fastencode.speech.windows import kept_frames
from speech_cases import saved_model

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
transformers = pytest.importorskip("transformers", reason="speech models need the extra 'tune'")
for library in ("soundfile", "soxr"):
    pytest.importorskip(library, reason="recordings need the extra 'tune'")

torch.set_num_threads(1)  # two threads on a busy machine wait for each other

RATE, MEAN, QUIET = 16000, ReadConfig("utterance"), {"show_progress": False}
LENGTHS = {"b/one": 8000, "a/one": 8000, "a/two": 5003, "c": 8000, "d": 3000}


def write(path: Path, samples: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, 0.1 * np.random.default_rng(seed).standard_normal(samples).clip(-5, 5), RATE)
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, Path]:
    """Five recordings of three lengths, two of one name."""
    return {name: write(tmp_path / "sounds" / f"{name}.wav", n, seed) for seed, (name, n) in enumerate(LENGTHS.items())}


@pytest.fixture
def encoder(tmp_path: Path) -> SpeechEncoder:
    return SpeechEncoder(saved_model(tmp_path / "model", "hubert"))


def frames_alone(folder: Path, sound: Path) -> tuple[np.ndarray, np.ndarray]:
    """A recording alone through transformers' own extractor and model: frames (f, l, d) and their middles, (f,) in s."""
    audio = read_audio(sound)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = transformers.AutoFeatureExtractor.from_pretrained(folder)(audio, sampling_rate=RATE, return_tensors="pt")
    whisper = model.config.model_type == "whisper"
    with torch.inference_mode():
        hidden = (model.encoder if whisper else model)(**inputs, output_hidden_states=True).hidden_states
    count = -(-len(audio) // 320) if whisper else hidden[0].shape[1]  # of Whisper's 30 s those that carry sound
    frames = torch.stack([layer[0, :count] for layer in hidden], dim=1).numpy()
    return frames, (320 * np.arange(count) if whisper else 20 + 40 * np.arange(count)) / RATE


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "whisper"])
def test_rows_are_those_of_one_recording_at_a_time(
    tmp_path: Path, sounds: dict[str, Path], family: str, batch: int | None
) -> None:
    saved = saved_model(tmp_path / "saved", family)
    file = extract_packed(sounds, SpeechEncoder(saved), tmp_path / "out" / "corpus.h5", MEAN, batch=batch, **QUIET)
    kept = slice(None, -1) if family == "whisper" else slice(None)  # transformers gives Whisper's last layer after the norm
    with open_packed(file) as packed:
        assert packed.names == tuple(sorted(LENGTHS)) and packed.counts.tolist() == [1] * 5
        assert (packed.n_layers, packed.width) == (3, 16)
        np.testing.assert_allclose(packed.seconds, [LENGTHS[name] / RATE for name in packed.names])
        np.testing.assert_allclose(packed.times, packed.seconds)
        found = np.stack([packed.rows(layer) for layer in range(3)], axis=1)
        assert found.dtype == np.float32 and found.shape == (5, 3, 16)
        for name, sound in sounds.items():
            wanted = frames_alone(saved, sound)[0].mean(axis=0)
            np.testing.assert_allclose(found[packed.rows_of(name), kept], wanted[None, kept], atol=2e-5)
        np.testing.assert_array_equal(packed.rows(-1), packed.rows(2))
        for layer in (3, -4):
            with pytest.raises(InputError, match="has layers 0 to 2"):
                packed.rows(layer)
        with pytest.raises(InputError, match="has no recording 'one', but 5 others such as 'a/one'"):
            packed.rows_of("one")


@pytest.mark.parametrize(("family", "step"), [("hubert", 0.0025), ("hubert", 0.1), ("whisper", 0.02), ("whisper", 0.1)])
def test_bins_hold_the_frames_of_their_time(tmp_path: Path, sounds: dict[str, Path], family: str, step: float) -> None:
    """Each frame by itself where a bin lasts as long as one; in any case the mean of those whose middle lies in it."""
    saved = saved_model(tmp_path / "saved", family)
    config = ReadConfig("utterance", pool="bins", bin=step)
    file = extract_packed(sounds, SpeechEncoder(saved), tmp_path / "corpus.h5", config, **QUIET)
    with open_packed(file) as packed:
        for name, sound in sounds.items():
            frames, at = frames_alone(saved, sound)
            bin_of = np.floor(at / step + 1e-6).astype(int)
            count = int((LENGTHS[name] / RATE - 0.025) / step + 1e-6) + 1
            which = packed.rows_of(name)
            wanted = np.stack([frames[bin_of == k].mean(axis=0) for k in range(count)])
            np.testing.assert_allclose(packed.rows(1)[which], wanted[:, 1], atol=2e-5)
            np.testing.assert_allclose(packed.times[which], [at[bin_of == k].mean() for k in range(count)], atol=1e-9)
            assert which.stop - which.start == count == packed.counts[packed.names.index(name)]


def test_bins_are_the_same_for_models_and_cepstra() -> None:
    """wav2vec2's frames hear 25 ms every 20 ms, Whisper's are 20 ms apart from 0, cepstra hear 25 ms every 10 ms."""
    for samples in range(400, 4000, 7):
        seconds = samples / RATE
        for step in (0.02, 0.05, 0.1):
            config = ReadConfig("utterance", pool="bins", bin=step)
            heard = [0.0125 + 0.02 * np.arange((samples - 400) // 320 + 1), 0.02 * np.arange(-(-samples // 320))]
            heard += [0.0125 + 0.01 * np.arange((samples - 400) // 160 + 1)]
            counts = {len(kept_frames(at, seconds, config)[0]) for at in heard}
            assert counts == {int((seconds - 0.025) / step + 1e-6) + 1}, (samples, step)


def test_bins_by_hand() -> None:
    """Frames that hear 100 ms are too few for the last bins, which are left out; a bin without a frame before others is not."""
    config, at = ReadConfig("utterance", pool="bins", bin=0.1), 0.05 + 0.05 * np.arange(8)
    kept, since = kept_frames(at, 0.5, config)
    assert kept == [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 7), slice(7, 8)]
    np.testing.assert_allclose(since + 0.5, [0.05, 0.125, 0.225, 0.325, 0.4])
    kept, since = kept_frames(at[:6], 0.5, config)
    assert kept == [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 6)]
    with pytest.raises(InputError, match=r"bins of 0\.1 s do not hold a frame each, since frames come every 0\.25 s"):
        kept_frames(0.05 + 0.25 * np.arange(3), 0.6, config)
    kept, since = kept_frames(at, 0.5, ReadConfig("utterance"))
    assert kept == [slice(0, 8)] and since.tolist() == [0.0]


def test_cepstra_are_means_and_deviations(tmp_path: Path, sounds: dict[str, Path]) -> None:
    file = extract_packed_mfcc(sounds, tmp_path / "mfcc.h5", **QUIET)
    bins = ReadConfig("utterance", pool="bins", bin=0.1)
    binned = extract_packed_mfcc(sounds, tmp_path / "bins.h5", bins, **QUIET)
    with open_packed(file) as packed, open_packed(binned) as by_bin:
        assert (packed.n_layers, packed.width, by_bin.width) == (1, 78, 39) and packed.key["model"] == "mfcc"
        for name, sound in sounds.items():
            frames = mfcc(read_audio(sound).astype(float), RATE, n_mfcc=12, energy="c0", deltas=2)
            at = 0.0125 + 0.01 * np.arange(len(frames))
            wanted = np.concatenate(
                [frames.sum(axis=0) / len(frames), np.sqrt(((frames - frames.mean(axis=0)) ** 2).mean(axis=0))]
            )
            np.testing.assert_allclose(packed.rows(0)[packed.rows_of(name)][0], wanted, rtol=1e-5, atol=1e-5)
            second = (at >= 0.1) & (at < 0.2)
            np.testing.assert_allclose(by_bin.rows(0)[by_bin.rows_of(name)][1], frames[second].mean(axis=0), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"mfcc\.h5 was made with bin=None, now it is 0\.1"):
        extract_packed_mfcc(sounds, file, bins, **QUIET)


def test_only_equal_lengths_share_a_batch(
    tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, cnn, hashed, whole = [], SpeechEncoder.cnn, [], SpeechEncoder.hash
    monkeypatch.setattr(SpeechEncoder, "cnn", lambda self, clips: seen.append(tuple(clips.shape)) or cnn(self, clips))
    monkeypatch.setattr(SpeechEncoder, "hash", lambda self: hashed.append(1) or whole(self))
    extract_packed(sounds, encoder, tmp_path / "a.h5", MEAN, **QUIET)
    assert seen == [(1, 3000), (1, 5003), (3, 8000)] and len(hashed) == 1
    seen.clear()
    extract_packed(sounds, encoder, tmp_path / "b.h5", MEAN, batch=2, **QUIET)
    assert seen == [(1, 3000), (1, 5003), (2, 8000), (1, 8000)]


class Stop(Exception):
    """What ends a run in the middle."""


def test_what_was_begun_is_gone_on_with(
    tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are there are not read again, no sound is decoded for them, and the file is that of an undisturbed run."""
    whole = extract_packed(sounds, encoder, tmp_path / "whole.h5", MEAN, batch=2, **QUIET)
    cnn, seen, decoded, decode = SpeechEncoder.cnn, [], [], packing.decode

    def two_batches(self: SpeechEncoder, clips: torch.Tensor) -> torch.Tensor:
        if len(seen) == 2:
            raise Stop
        seen.append(len(clips))
        return cnn(self, clips)

    file = tmp_path / "corpus.h5"
    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "cnn", two_batches)
        with pytest.raises(Stop):
            extract_packed(sounds, encoder, file, MEAN, batch=2, **QUIET)
    with pytest.raises(InputError, match=r"corpus\.h5 is not finished"):
        open_packed(file)
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "cnn", lambda self, clips: seen.append(len(clips)) or cnn(self, clips))
        patch.setattr(packing, "decode", lambda path, rate: decoded.append(path) or decode(path, rate))
        extract_packed(sounds, encoder, file, MEAN, batch=2, **QUIET)
    assert seen == [2, 1] and sorted(decoded) == sorted(sounds[name] for name in ("a/one", "b/one", "c"))
    assert file.read_bytes() == whole.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(packing, "decode", lambda *_: pytest.fail("a finished file was read again"))
        before = file.stat().st_mtime_ns
        assert extract_packed(dict(reversed(sounds.items())), encoder, file, MEAN, **QUIET) == file
        assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("pool", ["mean", "bins"])
@pytest.mark.parametrize(
    ("family", "stable", "dtype"), [("wav2vec2", False, "float32"), ("hubert", True, "bfloat16"), ("wavlm", False, "float32")]
)
def test_layers_of_kept_frames_are_those_of_the_sounds(
    tmp_path: Path, sounds: dict[str, Path], monkeypatch: pytest.MonkeyPatch, family: str, stable: bool, dtype: str, pool: str
) -> None:
    """Of another model above the same CNN: every byte, without the CNN and without a sound that is decoded."""
    config = ReadConfig("utterance", pool=pool, bin=0.1)
    encoder = SpeechEncoder(saved_model(tmp_path / "model", family, stable=stable), dtype=dtype)
    frames = extract_packed_frames(sounds, encoder, tmp_path / "frames.h5", **QUIET)
    with torch.no_grad():
        for part in encoder.model.encoder.layers.parameters():
            part += 0.1
    whole = extract_packed(sounds, encoder, tmp_path / "whole.h5", config, **QUIET)
    monkeypatch.setattr(SpeechEncoder, "cnn", lambda *_: pytest.fail("the CNN was run again"))
    monkeypatch.setattr(packing, "decode", lambda *_: pytest.fail("a sound was decoded"))
    read = extract_packed(sounds, encoder, tmp_path / "read.h5", config, frames=frames, **QUIET)
    assert read.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match=r"frames\.h5 was made with model=None"):
        extract_packed(sounds, encoder, frames, config, **QUIET)


def test_frames_of_a_corpus(
    tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is what transformers' extractor gives; after a kill the file is that of an undisturbed run."""
    whole = extract_packed_frames(sounds, encoder, tmp_path / "whole.h5", batch=2, **QUIET)
    with open_packed(whole) as packed:
        rows = packed.rows(0)
        for name, sound in sounds.items():
            audio = read_audio(sound)
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
            wanted = encoder.model.feature_extractor(torch.from_numpy(audio)[None])[0].T.detach().numpy()
            np.testing.assert_allclose(rows[packed.rows_of(name)], wanted, atol=2e-5)
            np.testing.assert_allclose(packed.times[packed.rows_of(name)], (20 + 40 * np.arange(len(wanted))) / RATE)
        assert rows.nbytes == pytest.approx(frame_bytes(encoder) * packed.seconds.sum(), rel=0.02)
    file, cnn, seen = tmp_path / "frames.h5", SpeechEncoder.cnn, []

    def two_batches(self: SpeechEncoder, clips: torch.Tensor) -> torch.Tensor:
        if len(seen) == 2:
            raise Stop
        seen.append(len(clips))
        return cnn(self, clips)

    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "cnn", two_batches)
        with pytest.raises(Stop):
            extract_packed_frames(sounds, encoder, file, batch=2, **QUIET)
    with pytest.raises(InputError, match=r"frames\.h5 is not finished"):
        extract_packed(sounds, encoder, tmp_path / "corpus.h5", MEAN, frames=file, **QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "cnn", lambda self, clips: seen.append(len(clips)) or cnn(self, clips))
        extract_packed_frames(sounds, encoder, file, batch=2, **QUIET)
    assert seen == [1, 1, 2, 1] and file.read_bytes() == whole.read_bytes()


def test_frames_of_other_sounds_and_models_are_refused(tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder) -> None:
    frames = extract_packed_frames(sounds, encoder, tmp_path / "frames.h5", **QUIET)
    layers = extract_packed(sounds, encoder, tmp_path / "layers.h5", MEAN, **QUIET)
    other = SpeechEncoder(saved_model(tmp_path / "other", "hubert", seed=9))
    changed = {**sounds, "c": write(tmp_path / "c.wav", 8000, seed=77)}
    new = {**sounds, "e": write(tmp_path / "e.wav", 8000, seed=78)}
    for chosen, model, file, said in (
        (sounds, other, frames, r"frames\.h5 was made with cnn='"),
        (changed, encoder, frames, r"'c': .*frames\.h5 was made of another sound of this name: make frames of this corpus"),
        (new, encoder, frames, r"'e': .*frames\.h5 has no frames of it"),
        (sounds, encoder, layers, r"layers\.h5 was made with model="),
    ):
        with pytest.raises(InputError, match=said):
            extract_packed(chosen, model, tmp_path / "out.h5", MEAN, frames=file, **QUIET)
    fewer = {name: sounds[name] for name in ("c", "d")}
    some = extract_packed(fewer, encoder, tmp_path / "some.h5", MEAN, frames=frames, **QUIET)
    assert some.read_bytes() == extract_packed(fewer, encoder, tmp_path / "heard.h5", MEAN, **QUIET).read_bytes()
    whisper = SpeechEncoder(saved_model(tmp_path / "whisper", "whisper"))
    with pytest.raises(InputError, match="makes frames for 30 s of every recording"):
        extract_packed_frames(sounds, whisper, tmp_path / "whisper.h5", **QUIET)
    assert frame_bytes(whisper) == np.inf


def test_other_sounds_models_and_settings_are_refused(tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder) -> None:
    """Of a finished file, and of one that was only begun."""
    file, other = tmp_path / "corpus.h5", SpeechEncoder(saved_model(tmp_path / "other", "hubert", seed=9))
    extract_packed(sounds, encoder, file, MEAN, **QUIET)
    begun = tmp_path / "begun.h5"
    shutil.copy(file, f"{begun}.partial")
    with h5py.File(f"{begun}.partial", "r+") as partial:
        partial["checks"][0] = 0
    changed = {**sounds, "c": write(tmp_path / "c.wav", 8000, seed=77)}
    bins = ReadConfig("utterance", pool="bins", bin=0.1)
    content = file.read_bytes()
    for path in (file, begun):
        for chosen, model, config, stored, said in (
            (sounds, other, MEAN, "float32", "was made with model='"),
            (sounds, encoder, bins, "float32", "was made with bin=None, now it is 0.1"),
            (sounds, encoder, MEAN, "float16", "was made with stored='float32', now it is 'float16'"),
            (
                changed,
                encoder,
                MEAN,
                "float32",
                "made of other sounds: 1 have changed since, 0 are gone .* 0 are new, the first is 'c'",
            ),
            ({**sounds, "e": sounds["c"]}, encoder, MEAN, "float32", "0 are gone .* 1 are new, the first is 'e'"),
            ({"c": sounds["c"]}, encoder, MEAN, "float32", "4 are gone"),
        ):
            with pytest.raises(InputError, match=said):
                extract_packed(chosen, model, path, config, stored=stored, **QUIET)
        with pytest.raises(
            InputError, match="was made with model='.*now it is 'mfcc': choose another folder, or delete the file"
        ):
            extract_packed_mfcc(sounds, path, **QUIET)
    assert file.read_bytes() == content
    assert extract_packed(sounds, encoder, begun, MEAN, **QUIET).read_bytes() == content
    alone = extract_features({"a": sounds["c"]}, encoder, tmp_path, ReadConfig("clip", tr=0.2, seconds=0.2, bin=0.1), **QUIET)[
        "a"
    ]
    with pytest.raises(InputError, match=r"a\.h5 holds features of one recording, not of a corpus: choose another folder"):
        extract_packed(sounds, encoder, alone, MEAN, **QUIET)
    with pytest.raises(InputError, match="holds features of one recording, not of a corpus: read it with read_features"):
        open_packed(alone)
    Path(f"{begun}.partial").write_bytes(b"nothing")
    begun.unlink()
    with pytest.raises(InputError, match=r"begun\.h5\.partial is damaged .*: delete it"):
        extract_packed(sounds, encoder, begun, MEAN, **QUIET)


def test_what_cannot_be_read_is_told_before_the_first_batch(tmp_path: Path, sounds: dict[str, Path]) -> None:
    """No sound, sound that ends early, sound longer than Whisper's 30 s: the file holds the others, and stays finished."""
    import soundfile

    good = dict(sounds)
    sounds["text"] = tmp_path / "sounds" / "text.wav"
    sounds["text"].write_text("no sound")
    sounds["cut"] = tmp_path / "sounds" / "cut.flac"
    soundfile.write(sounds["cut"], 0.1 * np.random.default_rng(1).standard_normal(4 * RATE).clip(-5, 5), RATE)
    sounds["cut"].write_bytes(sounds["cut"].read_bytes()[:20_000])
    sounds["long"] = write(tmp_path / "sounds" / "long.wav", 31 * RATE, seed=5)
    sounds["none"] = tmp_path / "none.wav"
    encoder = SpeechEncoder(saved_model(tmp_path / "whisper", "whisper"))
    file = tmp_path / "corpus.h5"
    with pytest.raises(InputError, match=r"text\.wav cannot be decoded"):
        extract_packed(sounds, encoder, file, MEAN, **QUIET)
    for _ in range(2):
        failed: dict[str, InputError] = {}
        extract_packed(sounds, encoder, file, MEAN, skip=failed.__setitem__, **QUIET)
        assert list(failed) == ["text", "cut", "long", "none"]
        assert "none.wav does not exist" in str(failed["none"]) and "cut.flac" in str(failed["cut"])
        assert "long.wav: a clip of 31 s is longer than the 30 s" in str(failed["long"])
        with open_packed(file) as packed:
            assert packed.names == tuple(sorted(good))
    whole = extract_packed(good, encoder, tmp_path / "good.h5", MEAN, **QUIET)
    assert whole.read_bytes() == file.read_bytes()
    with pytest.raises(InputError, match="none of 1 recordings can be read"):
        extract_packed({"none": sounds["none"]}, encoder, tmp_path / "x.h5", MEAN, skip=lambda *_: None, **QUIET)
    sounds["text"] = write(sounds["text"], 900, seed=6)
    with pytest.raises(InputError, match="1 are new, the first is 'text'"):
        extract_packed(sounds, encoder, file, MEAN, skip=lambda *_: None, **QUIET)


def test_shorter_than_a_frame(tmp_path: Path, encoder: SpeechEncoder) -> None:
    short = {"short": write(tmp_path / "short.wav", 30, seed=1)}
    with pytest.raises(InputError, match=r"short\.wav: a clip of 30 samples is shorter than one frame"):
        extract_packed(short, encoder, tmp_path / "a.h5", MEAN, **QUIET)
    with pytest.raises(InputError, match=r"short\.wav: 30 samples are less than one frame of cepstra \(400"):
        extract_packed_mfcc(short, tmp_path / "b.h5", **QUIET)
    clip = ReadConfig("clip", tr=1.0, seconds=1.0)
    with pytest.raises(InputError, match=r"less than one step of 1 s \(the TR\): read .* as a whole, with input='utterance'"):
        extract_features(short, encoder, tmp_path / "c", clip, **QUIET)


def test_bad_settings(tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder) -> None:
    for settings, said in (
        ({"input": "uterance"}, "choose 'clip', 'window' or 'utterance'"),
        ({"input": "utterance", "pool": "newest"}, "pool='newest' is not for input='utterance': choose 'mean' or 'bins'"),
        ({"input": "utterance", "pool": "last"}, "choose 'mean' or 'bins'"),
        ({"pool": "bins"}, "pool='bins' is not for input='clip': choose 'newest' or 'mean' or 'last'"),
        ({"input": "utterance", "bin": -1.0}, "bin=-1.0"),
    ):
        with pytest.raises(InputError, match=said):
            ReadConfig(**settings)
    fine = ReadConfig("utterance", pool="bins", bin=0.001)
    for chosen, config, options, said in (
        (sounds, MEAN, {"batch": 0}, "batch=0"),
        (sounds, MEAN, {"stored": "float8"}, "stored='float8'"),
        ({}, MEAN, {}, "there are no recordings"),
        (sounds, ReadConfig("clip", tr=0.1), {}, "input='clip': one file for a corpus holds whole recordings"),
        (sounds, fine, {}, r"^bins of 0\.001 s do not hold a frame each, since frames come every 0\.0025 s: .* by 'mean'"),
    ):
        for run in (extract_packed, estimate_packed):
            with pytest.raises(InputError, match=said):
                run(chosen, encoder, tmp_path / "out" / "a.h5", config, **options)
    with pytest.raises(InputError, match="whole recordings go to one file"):
        extract_features(sounds, encoder, tmp_path / "out", MEAN, **QUIET)


def test_the_file_needs_no_reader_of_ours(tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder) -> None:
    names = {f"ä/{name}": path for name, path in sounds.items()}
    file = extract_packed(names, encoder, tmp_path / "corpus.h5", MEAN, stored="float16", **QUIET)
    with h5py.File(file) as found, open_packed(file) as packed:
        assert set(found) == {"features", "times", "checks", "names", "counts", "seconds", "audio"}
        assert [name.decode() for name in found["names"]] == sorted(names) == list(packed.names)
        assert found["features"].dtype == np.float16 and packed.rows(1).dtype == np.float32
        np.testing.assert_array_equal(found["features"][:, 1].astype(np.float32), packed.rows(1))
        assert json.loads(found.attrs["key"])["recordings"] == 5
        np.testing.assert_array_equal(read_features(file).values, found["features"][:])
        assert len({*packed.audio}) == 5 and all(len(digest) == 64 for digest in packed.audio)


def test_suspicious_sounds_are_warned_of_once(tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder) -> None:
    for name in ("s1", "s2"):
        sounds[name] = tmp_path / f"{name}.wav"
        write_audio(sounds[name], np.zeros(4000), RATE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        extract_packed(sounds, encoder, tmp_path / "corpus.h5", MEAN, **QUIET)
    told = [str(one.message) for one in caught if issubclass(one.category, FastencodeWarning)]
    assert len(told) == 1 and told[0].startswith("2 of 7 recordings are silent or clipped, the first: ")


def test_disks_and_numbers_have_limits(
    tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = SpeechEncoder.layers
    with monkeypatch.context() as patch:
        patch.setattr(SpeechEncoder, "layers", lambda self, frames: [layer * 1e6 for layer in layers(self, frames)])
        with pytest.raises(InputError, match="layer 0 of 'd' holds values beyond float16"):
            extract_packed(sounds, encoder, tmp_path / "large.h5", MEAN, stored="float16", **QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(reading.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(InputError, match="GB left: store float16"):
            extract_packed(sounds, encoder, tmp_path / "none.h5", MEAN, **QUIET)
    decode, times = packing.decode, []

    def shorter(path: Path, rate: int) -> tuple[np.ndarray, str]:
        times.append(path)
        sound, doubt = decode(path, rate)
        return (sound[:-1] if times.count(path) == 2 else sound), doubt

    monkeypatch.setattr(packing, "decode", shorter)
    with pytest.raises(InputError, match=r"d\.wav has changed since this command began"):
        extract_packed(sounds, encoder, tmp_path / "changed.h5", MEAN, **QUIET)


def test_the_cost_of_a_corpus(tmp_path: Path, sounds: dict[str, Path], encoder: SpeechEncoder) -> None:
    file, sounds["none"] = tmp_path / "out" / "corpus.h5", tmp_path / "none.wav"
    failed: list[str] = []
    cost = estimate_packed(sounds, encoder, file, MEAN, skip=lambda name, _: failed.append(name))
    assert failed == ["none"] and set(cost.windows) == set(LENGTHS) and not file.parent.exists()
    assert cost.bytes == 5 * 3 * 16 * 4 and cost.seconds > 0
    assert cost.batch == 2, "five recordings in batches of 1, 1 and 3"
    bins = ReadConfig("utterance", pool="bins", bin=0.1)
    del sounds["none"]
    assert estimate_packed(sounds, None, file, bins, stored="float16").bytes == (3 * 5 + 3 + 2) * 39 * 2
    extract_packed(sounds, encoder, file, MEAN, **QUIET)
    assert estimate_packed(sounds, encoder, file, MEAN).windows == {}
    with pytest.raises(InputError, match="was made with bin=None"):
        estimate_packed(sounds, encoder, file, bins)
