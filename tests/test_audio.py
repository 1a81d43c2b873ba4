"""Audio files: every format, any rate and channel count, and each kind of damage with its own message."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.audio import audio_seconds, read_audio, resample, write_audio
from fastencode.speech.mp3 import _frame, with_length

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


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".nist"])
def test_any_rate_and_channel_count_in_every_format(tmp_path: Path, suffix: str) -> None:
    """The name says nothing: TIMIT's files are NIST SPHERE and end in ``.WAV``."""
    path = tmp_path / ("SA1.WAV" if suffix == ".nist" else f"a{suffix}")
    options = {"format": "NIST", "subtype": "PCM_16"} if suffix == ".nist" else {}
    soundfile.write(path, np.stack([tone(22050), tone(22050, hertz=700.0)], axis=1), 22050, **options)
    got, expected = read_audio(path), (tone(16000) + tone(16000, hertz=700.0)) / 2
    assert len(got) == 8000
    np.testing.assert_allclose(got[800:-800], expected[800:-800], atol=0.05 if suffix in (".ogg", ".mp3") else 2e-3)


def test_resample_changes_nothing_at_the_same_rate() -> None:
    audio = tone(16000).astype(np.float32)
    np.testing.assert_array_equal(resample(audio, 16000, 16000), audio)
    assert resample(audio, 16000, 8000).shape == (4000,)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(16000), tone(16000, hertz=700.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, left / 100], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (left * 1.01 + right) / 3, atol=1e-6)


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


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.float16, np.float32, np.longdouble])
def test_written_whatever_the_bytes_of_the_floats(tmp_path: Path, dtype: str | type) -> None:
    """soundfile writes the bytes as they lie: those of another byte order came out as noise at full scale."""
    write_audio(tmp_path / "a.wav", tone(16000).astype(dtype)[::2], 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", sample_rate=8000), tone(16000)[::2], atol=4e-4)
    torch = pytest.importorskip("torch", reason="tensors need torch")
    write_audio(tmp_path / "b.wav", torch.tensor(tone(16000)[::2].copy(), requires_grad=True), 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "b.wav", sample_rate=8000), tone(16000)[::2], atol=4e-4)


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
    [
        *[(".wav", {}), (".flac", {}), (".ogg", {}), (".nist", {"format": "NIST", "subtype": "PCM_16"}), (".mp3", {})],
        *[(".aiff", {}), (".au", {}), (".w64", {}), (".caf", {}), (".wav", {"format": "RF64"}), (".wav", {"format": "WAVEX"})],
        *[(".wav", {"subtype": "PCM_U8"}), (".wav", {"subtype": "PCM_24"}), (".wav", {"subtype": "FLOAT"})],
    ],
)
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.9995])
def test_truncated(tmp_path: Path, suffix: str, options: dict[str, str], kept: float) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    soundfile.write(whole, np.random.default_rng(0).uniform(-0.5, 0.5, 80000), 16000, **options)
    read_audio(whole)
    raw = whole.read_bytes()
    cut.write_bytes(raw[: int(kept * len(raw))])
    if suffix == ".wav" and kept > 0.99:  # 2.5 ms of 5 s
        with pytest.warns(FastencodeWarning, match=r"cut\.wav is cut off: it lacks 2\.5\d* ms of what its header promises"):
            assert len(read_audio(cut)) > 79900
        return
    with pytest.raises(InputError, match=r"truncated|cannot be decoded"):
        read_audio(cut)


MODES = ["VARIABLE", "CONSTANT", "AVERAGE"]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (16000, 2), (44100, 1), (44100, 2), (11025, 2)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_that_does_not_say_its_length(tmp_path: Path, rate: int, channels: int, mode: str, loud_first: bool) -> None:
    """Decoders guess from the first frame: too long a guess looks truncated, and at too short a one they stop without a word."""
    rng = np.random.default_rng(0)
    sound = np.concatenate([rng.uniform(-0.4, 0.4, 20000), np.zeros(20000), tone(rate, 20000 / rate)])
    sound = np.stack([sound[:: 1 if loud_first else -1]] * channels, axis=1)
    whole, bare = tmp_path / "whole.mp3", tmp_path / "bare.mp3"
    soundfile.write(whole, sound, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    raw = whole.read_bytes()
    tag = max(raw.find(b"Xing", 0, 300), raw.find(b"Info", 0, 300))
    assert tag > 0 and with_length(raw) is None
    second = raw.index(raw[:2], tag)  # the frame after the one that says the length
    bare.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + raw[second:] + b"TAG" + bytes(125))
    expected, got = read_audio(whole, sample_rate=rate), read_audio(bare, sample_rate=rate)
    assert 60000 == len(expected) <= len(got) - 576 and audio_seconds(bare) == len(got) / rate
    np.testing.assert_allclose(got[576 : 576 + 60000], expected, atol=1e-5)


def frames_of(raw: bytes) -> list[bytes]:
    """Frames of an MP3 without tags."""
    rows, at = [], 0
    while (frame := _frame(raw, at)) and at + frame.length <= len(raw):
        rows.append(raw[at : at + frame.length])
        at += frame.length
    return rows


@pytest.mark.parametrize("first", ["no number of frames", "zero frames", "Fraunhofer's"])
@pytest.mark.parametrize("mode", MODES)
def test_an_mp3_whose_first_frame_does_not_say_how_many_follow(tmp_path: Path, mode: str, first: str) -> None:
    """Decoders guess then as well: 26 928 of 48 000 samples came, without a word."""
    rng = np.random.default_rng(1)
    sound = np.concatenate([tone(44100, 1.0), rng.uniform(-0.4, 0.4, 40000), np.zeros(40000)])
    whole, bare = tmp_path / "whole.mp3", tmp_path / "bare.mp3"
    soundfile.write(whole, sound, 44100, format="MP3", bitrate_mode=mode, compression_level=0.5)
    head, *rest = frames_of(whole.read_bytes())
    tag = max(head.find(b"Xing"), head.find(b"Info"))
    if first == "no number of frames":
        head = head[: tag + 7] + bytes([head[tag + 7] & 0xFE]) + head[tag + 12 :] + bytes(4)
    elif first == "zero frames":
        head = head[: tag + 8] + bytes(4) + head[tag + 12 :]
    else:
        fields = (1).to_bytes(2, "big") + bytes(4) + len(whole.read_bytes()).to_bytes(4, "big") + len(rest).to_bytes(4, "big")
        head = (head[:4] + bytes(32) + b"VBRI" + fields).ljust(len(head), b"\0")
    bare.write_bytes(head + b"".join(rest))
    expected, got = read_audio(whole, sample_rate=44100), read_audio(bare, sample_rate=44100)
    assert len(sound) == len(expected) <= len(got) - 576 < len(expected) + 1152 and audio_seconds(bare) == len(got) / 44100
    np.testing.assert_allclose(got[576 : 576 + len(expected)], expected, atol=1e-5)


@pytest.mark.parametrize("strange", [b"\xff\xf3\x50\xc4" + bytes(700), bytes(900), b"\xff" * 300, b"APETAGEX" + bytes(40)])
def test_no_sound_is_lost_without_a_word_behind_what_does_not_belong_into_an_mp3(tmp_path: Path, strange: bytes) -> None:
    """A frame of another kind ended the count, and with it what was read."""
    whole, bare = tmp_path / "whole.mp3", tmp_path / "bare.mp3"
    soundfile.write(whole, np.random.default_rng(2).uniform(-0.4, 0.4, 60000), 44100, format="MP3")
    _, *rest = frames_of(whole.read_bytes())
    raw = b"".join(rest[:20]) + strange + b"".join(rest[20:])
    bare.write_bytes(raw)
    assert audio_seconds(bare) > 60000 / 44100
    with contextlib.suppress(InputError):  # decoders may give up there
        assert len(read_audio(bare, sample_rate=44100)) > 60000


def test_what_is_no_mp3_gets_no_length() -> None:
    rng = np.random.default_rng(0)
    for raw in (b"", b"\xff", b"\xff\xfb", b"ID3", b"ID3\x04\x00\x00\xff\xff\xff\xff", b"\xff\xfb\x90\x00", bytes(5000)):
        assert with_length(raw) is None
    for _ in range(200):
        raw = rng.integers(0, 256, 3000, dtype=np.uint8)
        raw[rng.integers(0, 2999, 40)] = 0xFF
        with_length(raw.tobytes())  # whatever comes, no error


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
    for rate in (0, -1, "16000", None):
        with pytest.raises(InputError, match=f"sample_rate is {rate!r}: give a rate in Hz"):
            read_audio(tmp_path / "nan.wav", sample_rate=rate)
        with pytest.raises(InputError, match="sample_rate is"):
            write_audio(tmp_path / "b.wav", np.zeros(3), rate)
    soundfile.write(tmp_path / "one.wav", np.array([0.1]), 44100)
    with pytest.raises(InputError, match=r"one\.wav holds 1 samples at 44100 Hz, less than one at 16000 Hz: check its header"):
        read_audio(tmp_path / "one.wav")
    (tmp_path / "pointer.wav").write_text("/annex/objects/MD5E-s1--0.wav")
    with pytest.raises(InputError, match=r"datalad get .*pointer\.wav"):
        audio_seconds(tmp_path / "pointer.wav")
    header = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    (tmp_path / "shorten.wv1").write_bytes(header.ljust(1024) + b"ajkg" + bytes(2000))
    with pytest.raises(InputError, match="shorten: expand it"):
        read_audio(tmp_path / "shorten.wv1")


def test_silence_is_warned_about(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.zeros(100), 16000)
    with pytest.warns(FastencodeWarning, match="silent"):
        assert not read_audio(tmp_path / "a.wav").any()


def flat_tops(path: Path) -> int:
    """Samples in runs of five or more of one value near full scale, channel by channel and sample by sample."""
    samples = soundfile.read(path, dtype="float32", always_2d=True)[0]
    runs = [(value, len(list(run))) for channel in samples.T for value, run in itertools.groupby(channel)]
    return sum(length for value, length in runs if length >= 5 and abs(value) >= 0.98)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        *((".wav", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW", "ALAW")),
        *((".flac", "PCM_16"), (".nist", "PCM_16")),
    ],
)
def test_clipped_samples_are_counted(tmp_path: Path, suffix: str, subtype: str) -> None:
    loud = np.stack([0.9 * tone(16000), 3 * tone(16000)], axis=1)  # 0.45 on the left, 1.5 on the right
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.clip(loud, -1, 1), 16000, subtype, format="NIST" if suffix == ".nist" else None)
    expected = flat_tops(path)
    assert 0.2 < expected / 16000 < 0.3
    with pytest.warns(FastencodeWarning, match="is clipped") as caught:
        read_audio(path, sample_rate=8000)
    (found,) = [re.search(r"clipped: (\d+) of (\d+) samples, a share of ([\d.]+), stand", str(w.message)) for w in caught]
    assert (int(found[1]), int(found[2]), float(found[3])) == (expected, 16000, float(f"{expected / 16000:.2g}"))
    assert caught[0].filename == __file__


def test_loud_is_not_clipped(tmp_path: Path) -> None:
    peak = np.float32(32767 / 32768)
    runs = np.tile(np.r_[np.full(4, peak), np.full(4, -peak), np.full(50, 0.97), 0.0], 20)  # four at the top, fifty below it
    tones = [2 * tone(rate, 2.0, hertz) for rate, hertz in ((16000, 440.0), (48000, 40.0))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, (audio, rate) in enumerate([(runs, 16000), (tones[0], 16000), (tones[1], 48000)]):
            soundfile.write(tmp_path / f"{number}.wav", audio, rate)  # at full scale, not beyond
            read_audio(tmp_path / f"{number}.wav")
        soundfile.write(tmp_path / "headroom.wav", 3 * tone(16000), 16000, "FLOAT")  # beyond full scale, where floats do not clip
        assert np.abs(read_audio(tmp_path / "headroom.wav")).max() > 1.4
    soundfile.write(tmp_path / "five.wav", np.r_[runs, np.full(5, peak)], 16000)
    with pytest.warns(FastencodeWarning, match=f"clipped: 5 of {len(runs) + 5} samples"):
        read_audio(tmp_path / "five.wav")


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
