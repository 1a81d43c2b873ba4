"""Audio files: every format, any rate and channel count, and each kind of damage with its own message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.audio import audio_seconds, read_audio, resample, write_audio

soundfile = pytest.importorskip("soundfile", reason="audio files need the extra 'tune'")


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".wav", {}, 1e-4),
        (".wav", {"subtype": "FLOAT"}, 1e-6),
        (".flac", {}, 1e-4),
        (".nist", {"format": "NIST", "subtype": "PCM_16"}, 1e-4),
        (".ogg", {}, 0.05),
        (".mp3", {}, 0.05),
    ],
)
def test_formats(tmp_path: Path, suffix: str, options: dict[str, str], tolerance: float) -> None:
    expected = tone(16000)
    soundfile.write(tmp_path / f"a{suffix}", expected, 16000, **options)
    got = read_audio(tmp_path / f"a{suffix}")
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got[800:-800], expected[800:-800], atol=tolerance)


@pytest.mark.parametrize(("suffix", "options"), [(".wav", {}), (".flac", {}), (".nist", {"format": "NIST", "subtype": "PCM_16"})])
def test_seconds_without_the_sound(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.zeros((11025, 2)), 22050, **options)
    assert audio_seconds(path) == 0.5
    path.write_text("not sound at all")
    with pytest.raises(InputError, match=r"a\.\w+ cannot be decoded \(.*\): it is damaged, cut off, or not audio"):
        audio_seconds(path)
    with pytest.raises(InputError, match="does not exist"):
        audio_seconds(tmp_path / "no.wav")


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampled_to_the_rate_asked_for(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate), rate)
    got = read_audio(tmp_path / "a.wav")
    assert len(got) == 8000
    np.testing.assert_allclose(got[400:-400], tone(16000)[400:-400], atol=2e-3)  # away from the ends, where the filter rings


def test_resample_changes_nothing_at_the_same_rate() -> None:
    audio = tone(16000).astype(np.float32)
    np.testing.assert_array_equal(resample(audio, 16000, 16000), audio)
    assert resample(audio, 16000, 8000).shape == (4000,)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(16000), tone(16000, hertz=700.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, 0 * left], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (left + right) / 3, atol=1e-6)


def test_written_file_agrees_with_an_independent_reader(tmp_path: Path) -> None:
    audio = np.r_[1.0, -1.0, tone(8000)].astype(np.float32)
    write_audio(tmp_path / "a.wav", audio, 8000)
    rate, samples = wavfile.read(tmp_path / "a.wav")
    assert rate == 8000
    assert samples.dtype == np.int16
    np.testing.assert_allclose(samples / 32768, audio, atol=1.01 / 32768)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", sample_rate=8000), (samples / 32768).astype(np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", tone(8000), 8000)
    before = (tmp_path / "a.wav").read_bytes()

    def interrupted(path: Path, *args: object, **options: object) -> None:
        Path(path).write_bytes(b"RIFF half")
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_audio(tmp_path / "a.wav", 0 * tone(8000), 8000)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros(3, dtype=np.int16), "int16"),
        (np.array([0.0, 1.5]), "1.5"),
        (np.array([0.0, np.nan]), "nan"),
    ],
)
def test_refuses_to_write(tmp_path: Path, audio: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_audio(tmp_path / "a.wav", audio, 8000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".wav", {}), (".flac", {}), (".ogg", {}), (".nist", {"format": "NIST", "subtype": "PCM_16"}), (".mp3", {})],
)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated(tmp_path: Path, suffix: str, options: dict[str, str], kept: float) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    soundfile.write(whole, np.random.default_rng(0).uniform(-0.5, 0.5, 80000), 16000, **options)
    read_audio(whole)
    raw = whole.read_bytes()
    cut.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(InputError, match=r"truncated|cannot be decoded"):
        read_audio(cut)


def test_stream_without_a_length_is_not_truncated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[4:8] = raw[40:44] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(raw)
    assert len(read_audio(tmp_path / "a.wav")) == 8000


def test_each_unusable_file_has_its_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_audio(tmp_path / "no.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / ".git" / "annex" / "gone.wav")
    with pytest.raises(InputError, match="datalad get"):
        read_audio(tmp_path / "link.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(InputError, match="0 bytes"):
        read_audio(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("not sound at all")
    with pytest.raises(InputError, match="not audio"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(InputError, match="folder"):
        read_audio(tmp_path)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match="no samples"):
        read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN"):
        read_audio(tmp_path / "nan.wav")
    with pytest.raises(InputError, match="sample_rate"):
        read_audio(tmp_path / "nan.wav", sample_rate=0)


def test_silence_is_warned_about(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.zeros(100), 16000)
    with pytest.warns(FastencodeWarning, match="silent"):
        assert not read_audio(tmp_path / "a.wav").any()


def test_real_recordings(shared_data: Path) -> None:
    rate, samples = wavfile.read(shared_data / "mfcc" / "test.wav")
    got = read_audio(shared_data / "mfcc" / "test.wav")
    assert rate == 16000
    assert len(got) == len(samples)
    np.testing.assert_array_equal(got, (samples / 32768).astype(np.float32))
    digits = sorted((shared_data / "speech" / "digits").glob("*.wav"))
    rate, samples = wavfile.read(digits[0])
    assert rate == 8000
    assert abs(len(read_audio(digits[0])) - 2 * len(samples)) <= 1
