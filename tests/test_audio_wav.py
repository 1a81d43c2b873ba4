"""WAVs whose headers do not say where the sound ends, and channels that cancel each other or are silent."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.audio import audio_seconds, read_audio

soundfile = pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")

RATE = 16000
SOUND = (8000 * np.sin(np.arange(RATE) * 0.05)).astype("<i2")
PCM_16 = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
PCM_24 = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 3 * RATE, 3, 24, 22, 24, 4) + bytes.fromhex(
    "0100000000001000800000aa00389b71"
)
FLOAT = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
IN_24_BITS = b"".join(struct.pack("<i", int(v) << 16)[1:] for v in SOUND)
MARKS = [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000 - 36, 0x7FFFFFFF - 44, 0xFFFFFFFF - 36, 0xFFFFFFFE]


def chunk(name: bytes, held: bytes, *, size: int | None = None, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(held) if size is None else size) + held + bytes(len(held) % 2 if padded else 0)


def wav(data: bytes, *, size: int | None = None, layout: bytes = PCM_16, before: bytes = b"", after: bytes = b"") -> bytes:
    body = b"WAVE" + chunk(b"fmt ", layout) + before + chunk(b"data", data, size=size) + after
    return b"RIFF" + struct.pack("<I", len(body) if size is None else 0xFFFFFFFF) + body


def rf64(size: int, samples: int, riff: int) -> bytes:
    long = chunk(b"ds64", struct.pack("<QQQI", riff, size, samples, 0))
    return b"RF64\xff\xff\xff\xffWAVE" + long + chunk(b"fmt ", PCM_16) + chunk(b"data", SOUND.tobytes(), size=0xFFFFFFFF)


INFO = b"INFOISFT\x04\x00\x00\x00abcd"
WHOLE = {
    **{f"size {mark:#x}": wav(SOUND.tobytes(), size=mark) for mark in MARKS},
    "24 bits, extensible": wav(IN_24_BITS, layout=PCM_24),
    "24 bits, extensible, unknown": wav(IN_24_BITS, size=0xFFFFFFFF, layout=PCM_24),
    "float, unknown": wav((SOUND / np.float32(32768)).astype("<f4").tobytes(), size=0, layout=FLOAT),
    "chunks before, unknown": wav(SOUND.tobytes(), size=0x7FFFF000, before=chunk(b"JUNK", bytes(28)) + chunk(b"LIST", INFO)),
    "odd chunk": wav(SOUND.tobytes(), before=chunk(b"LIST", INFO[:-1]), after=chunk(b"LIST", INFO)),
    "odd chunk without its padding": wav(SOUND.tobytes(), before=chunk(b"LIST", INFO[:-1], padded=False)),
    "zeros to the end of the sector": wav(SOUND.tobytes(), after=bytes(500)),
    "RF64": rf64(2 * RATE, RATE, 72 + 2 * RATE),
    "RF64 that was never finished": rf64(0, 0, 0),
    "RF64, unknown": rf64(2**64 - 1, 2**64 - 1, 2**64 - 1),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE.keys())
def test_read_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_audio(path), SOUND / np.float32(32768))
    assert audio_seconds(path) == 1.0


def test_a_stream_cut_within_a_sample(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(IN_24_BITS, size=0xFFFFFFFF, layout=PCM_24)[:-1])
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), SOUND[:-1] / np.float32(32768))


def test_no_samples_is_not_unknown(tmp_path: Path) -> None:
    for after in (b"", chunk(b"LIST", INFO)):
        (tmp_path / "a.wav").write_bytes(wav(b"", after=after))
        with pytest.raises(InputError, match="holds no samples"):
            read_audio(tmp_path / "a.wav")


def test_what_is_missing_is_said_in_seconds(tmp_path: Path) -> None:
    whole, rf = wav(SOUND.tobytes()), rf64(2 * RATE, RATE, 72 + 2 * RATE)
    path = tmp_path / "a.wav"
    for content in (whole[:-RATE], rf[:-RATE], whole[: 1 - RATE]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.wav is truncated: its header promises 1\.00 s, and 0\.50 s can be read"):
            read_audio(path)
    path.write_bytes(whole[:-160])
    with pytest.warns(FastencodeWarning, match=r"a\.wav is cut off: it lacks 5 ms of what its header promises; copy") as caught:
        np.testing.assert_array_equal(read_audio(path), SOUND[:-80] / np.float32(32768))
    assert caught[0].filename == __file__
    path.write_bytes(wav(SOUND.tobytes(), size=RATE))
    with pytest.warns(
        FastencodeWarning, match=rf"goes on after its end: its header gives {RATE} bytes of sound, {RATE} more follow"
    ):
        assert len(read_audio(path)) == RATE // 2


def channels(path: Path, *parts: np.ndarray) -> str:
    """What is warned of when a file of these channels is read."""
    soundfile.write(path, np.stack(parts, axis=1), RATE, subtype="FLOAT")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_audio(path)
    return " / ".join(str(one.message).removeprefix(f"{path} ") for one in caught)


def test_channels_that_cancel_or_are_silent(tmp_path: Path) -> None:
    one, other = np.random.default_rng(0).uniform(-0.5, 0.5, (2, RATE)).astype(np.float32)
    path, none = tmp_path / "a.wav", np.zeros(RATE, np.float32)
    assert channels(path, one, other) == channels(path, one, one) == channels(path, one, 0.1 * other) == ""
    for second in (-one, -0.95 * one, -one + 0.01 * other, 0.2 - one):
        assert channels(path, one, second).startswith(
            "has channels of opposite phase, whose mean is nearly silent: turn the sign"
        )
    assert channels(path, one, -0.5 * one) == "", "a quarter of the sound is left"
    assert channels(path, one, none) == (
        "has 2 channels, of which 2 is silent: the mean of all is read, so the sound is 2 / 1 times quieter;"
        " keep the others alone if that matters"
    )
    assert channels(path, none + 0.2, one, *15 * [none]).startswith("has 17 channels, of which 1 and 3 and 4")
    assert channels(path, none, none) == f"is silent: all {RATE} samples equal 0"
    assert channels(path, none + 0.5, none).startswith("is silent")
