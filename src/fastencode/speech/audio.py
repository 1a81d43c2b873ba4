"""Audio files in and out: any rate and channel count to float32 mono at one rate, and 16-bit WAV written atomically."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import FastencodeWarning, InputError, require
from fastencode.files import check_file, whole_file
from fastencode.speech.mp3 import with_length
from fastencode.speech.wav import Layout, wav_layout, with_known_size

__all__ = ["audio_seconds", "decode", "read_audio", "resample", "write_audio"]

# The size a writer leaves in the header when it streams into a pipe and cannot go back: unknown, not truncated.
_STREAMED = 0xFFFF_FF00
# Where libsndfile's log compares what the header promises with what is there; by format. Of WAV files wav.py knows it.
_PROMISE = {
    "W64": r"^riff :",
    "AIFF": r"^ SSND :",
    "AU": r"^  Data Size   :",
    "CAF": r"^data :",
}
_OGG_LAST_PAGE = 0x04
_LOST, _LOST_SHARE = 0.1, 0.01  # s, and of the whole: a WAV file that lacks no more than both is read, with a warning
# A clipped wave has flat tops: so many equal samples in a row, this close to full scale. The loudest code of every format lies
# above (μ-law 0.980, 8 bits 0.992). The top of a clean wave is not flat for so long at any frequency one hears in 16 bits, but
# may be in 8.
_FULL_SCALE, _FLAT = 0.98, 5
_CANCELED = 0.01  # of the power that the mean of independent channels has: less is left where they cancel each other
_BLOCK = 1 << 20  # samples
_SILENT = 1e-8  # of the louder channel's power: 80 dB below it


def read_audio(path: str | os.PathLike[str], *, sample_rate: int = 16000) -> NDArray[np.float32]:
    """Read an audio file as mono at one sample rate.

    Channels are averaged, then resampled with soxr ("HQ"). Integer formats are scaled to ±1.

    Parameters
    ----------
    path : path
        WAV, FLAC, OGG, MP3, NIST SPHERE (not compressed with shorten) or whatever else libsndfile reads. An MP3 that does not
        say its length begins with the silence of its encoder, 576 samples of LAME's. A WAV whose writer did not know its length
        (it streamed, or was stopped) is read whole.
    sample_rate : int
        Rate of the result in Hz.

    Returns
    -------
    ndarray, shape (n,), float32
        Samples.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, compressed with shorten, not audio, too short for one sample of the result, or
        holds NaN or infinity.
    MissingLibraryError
        If soundfile or soxr is not installed (extra ``tune``).

    Warns
    -----
    FastencodeWarning
        If every sample has the same value: a silent recording. If one channel is silent, or if channels of opposite phase cancel
        each other: their mean has less than a hundredth of the power that it would have if they were independent. If a WAV lacks
        a little of what its header promises (up to 0.1 s and one in a hundred samples), or goes on after the end that it gives.
        Or if samples are clipped: five or more successive samples of a channel have one value, at 0.98 of full scale or beyond;
        the warning gives their share. What was clipped first and then made quieter, resampled or compressed (MP3, OGG) has no
        such runs and is not found.
    """
    sound, doubt = decode(path, sample_rate)
    if doubt:
        warnings.warn(doubt, FastencodeWarning, stacklevel=2)
    return sound


def decode(path: str | os.PathLike[str], sample_rate: int) -> tuple[NDArray[np.float32], str]:
    """What :func:`read_audio` returns, and what it warns of, "" if nothing: for those who read many files and warn once."""
    _check_rate(sample_rate)
    path = _check_audio(path)
    layout = wav_layout(path)
    with _opened(path, layout) as file:
        declared = _declared_frames(path, file)
        rate = file.samplerate
        samples: NDArray[np.float32] = file.read(dtype="float32", always_2d=True)
    lost = _lost_seconds(layout)
    much = lost > min(_LOST, _LOST_SHARE * (lost + len(samples) / rate))
    if len(samples) < declared or not _ogg_is_whole(path) or much:
        promised = f"{len(samples) / rate + lost:.2f} s" if lost else f"{declared} samples or an end that is not there"
        there = f"{len(samples) / rate:.2f} s" if lost else f"{len(samples)}"
        raise InputError(
            f"{path} is truncated: its header promises {promised}, and {there} can be read; copy or download it again"
        )
    if not len(samples):
        raise InputError(f"{path} holds no samples: check how it was exported")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise InputError(f"{path} holds samples that are not numbers (NaN or infinity): export it again as 16-bit integers")
    sound = resample(mono, rate, sample_rate)
    if not len(sound):
        raise InputError(f"{path} holds {len(mono)} samples at {rate} Hz, less than one at {sample_rate} Hz: check its header")
    doubts = (_doubt_of_layout(layout), _doubt_of_channels(samples, mono), _doubt_of_levels(samples, mono))
    return sound, "; ".join(f"{path} {doubt}" for doubt in doubts if doubt)


def _lost_seconds(layout: Layout | None) -> float:
    """How much sound a WAV file lacks of what its header promises."""
    if layout is None or layout.promised is None:
        return 0.0
    return max(0, layout.promised - layout.there) / layout.bytes_per_second


def _doubt_of_layout(layout: Layout | None) -> str:
    """What is suspicious about where the sound of a WAV file ends."""
    lost = _lost_seconds(layout)
    if lost:
        return f"is cut off: it lacks {1000 * lost:.3g} ms of what its header promises; copy or download it again"
    if layout is not None and layout.beyond >= layout.block:
        return (
            f"goes on after its end: its header gives {layout.there} bytes of sound, {layout.beyond} more follow and are not"
            " read; play it elsewhere, and write it again"
        )
    return ""


def _doubt_of_channels(samples: NDArray[np.float32], mono: NDArray[np.float32]) -> str:
    """What is suspicious about the channels (n, channels) of a sound that their mean ``mono`` is taken of."""
    if samples.shape[1] == 1:
        return ""
    powers = [_power(channel) for channel in samples.T]
    if not max(powers):
        return ""
    if _power(mono) * len(powers) ** 2 < _CANCELED * sum(powers):  # equal for independent channels
        return (
            "has channels of opposite phase, whose mean is nearly silent: turn the sign of one of them, or keep one, and write"
            " the file again"
        )
    silent = [str(place) for place, power in enumerate(powers, 1) if power < _SILENT * max(powers)]
    if silent:
        return (
            f"has {len(powers)} channels, of which {' and '.join(silent)} is silent: the mean of all is read, so the sound is"
            f" {len(powers)} / {len(powers) - len(silent)} times quieter; keep the others alone if that matters"
        )
    return ""


def _power(samples_n: NDArray[np.float32]) -> float:
    """Variance of samples, which are widened in blocks."""
    blocks = [samples_n[at : at + _BLOCK] for at in range(0, len(samples_n), _BLOCK)]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / len(samples_n)
    return sum(float(((block.astype(np.float64) - mean) ** 2).sum()) for block in blocks) / len(samples_n)


def _doubt_of_levels(samples: NDArray[np.float32], mono: NDArray[np.float32]) -> str:
    """What is suspicious about the values (n, channels) of a sound with the mean ``mono``: one value, flat tops at full scale."""
    if np.ptp(samples, axis=0).max() == 0:
        return f"is silent: all {len(mono)} samples equal {mono[0]:g}"
    clipped = sum(_clipped(channel) for channel in samples.T)
    if not clipped:
        return ""
    return (
        f"is clipped: {clipped} of {samples.size} samples, a share of {clipped / samples.size:.2g}, stand at full"
        f" scale in runs of {_FLAT} or more; record or export it at a lower level"
    )


def audio_seconds(path: str | os.PathLike[str]) -> float:
    """Length of an audio file in s by its header, without decoding it; of an MP3 without one, by counting its frames.

    Parameters
    ----------
    path : path
        As in :func:`read_audio`.

    Returns
    -------
    float
        What is there, also of a file that is cut off: only :func:`read_audio` compares with what its header promises.

    Raises
    ------
    InputError
        If the file is missing, empty, compressed with shorten, or not audio.
    """
    path = _check_audio(path)
    with _opened(path, wav_layout(path)) as file:
        return float(file.frames / file.samplerate)


def resample(audio: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Resample mono audio of shape (n,) from ``rate`` to ``new_rate`` Hz with soxr ("HQ"); float32, contiguous."""
    if rate != new_rate:
        audio = require("soxr", "tune").resample(audio, rate, new_rate)
    return np.ascontiguousarray(audio, dtype=np.float32)


def write_audio(path: str | os.PathLike[str], audio: ArrayLike, sample_rate: int) -> None:
    """Write mono samples as a 16-bit WAV file; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Where to write; its folder must exist.
    audio : array_like, shape (n,)
        Samples within ±1. Louder ones are refused, not clipped.
    sample_rate : int
        Hz.

    Raises
    ------
    InputError
        If the samples are not one-dimensional, not finite, or exceed ±1, the rate is not positive, or the file cannot be written.
    """
    soundfile = require("soundfile", "tune")
    _check_rate(sample_rate)
    samples = as_numpy(audio, "audio")
    if samples.ndim != 1:
        raise InputError(f"audio has shape {samples.shape}: give mono samples, one dimension")
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"audio is {samples.dtype}: give floats within ±1")
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= 1.0:
        raise InputError(f"audio peaks at {peak:g}: scale it to within ±1")
    plain = np.ascontiguousarray(samples, np.float32 if samples.dtype.itemsize <= 4 else np.float64)  # not in other byte orders
    with whole_file(path) as partial:
        soundfile.write(partial, plain, int(sample_rate), subtype="PCM_16", format="WAV")


def _check_audio(path: str | os.PathLike[str]) -> Path:
    path = check_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy or download it again")
    if "shorten" in _nist_header(path):
        raise InputError(f"{path} is a NIST SPHERE file compressed with shorten: expand it, for example with sph2pipe")
    return path


def _check_rate(sample_rate: float) -> None:
    if not isinstance(sample_rate, int | float | np.number) or not sample_rate >= 1:
        raise InputError(f"sample_rate is {sample_rate!r}: give a rate in Hz, for example 16000")


@contextmanager
def _opened(path: Path, layout: Layout | None) -> Iterator[Any]:
    """An open ``soundfile.SoundFile`` that knows its length; what cannot be decoded is said in one way."""
    soundfile = require("soundfile", "tune")
    known = None if layout is None else with_known_size(path, layout)
    try:
        with soundfile.SoundFile(path if known is None else io.BytesIO(known)) as file:
            longer = with_length(path.read_bytes()) if file.format == "MP3" else None
            if longer is None:
                yield file
                return
        with soundfile.SoundFile(io.BytesIO(longer)) as file:
            yield file
    except soundfile.SoundFileError as error:
        raise InputError(
            f"{path} cannot be decoded ({error}): it is damaged, cut off, or not audio; play it elsewhere or copy it again"
        ) from error


def _declared_frames(path: Path, file: Any) -> int:
    """Frames the header promises. libsndfile shortens its own count to what is there, and does not compare for NIST."""
    frames = int(file.frames)
    if file.format in _PROMISE:
        found = re.search(rf"{_PROMISE[file.format]} (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
        promised, there = map(int, found.groups()) if found else (0, 0)
        unknown = promised >= _STREAMED if file.format == "AU" else promised >= 1 << 62
        if there < promised and not unknown:
            return max(frames + 1, frames * promised // max(there, 1))
    if file.format == "NIST":
        found = re.search(r"^sample_count -i (\d+)", _nist_header(path), re.MULTILINE)
        # Some writers count samples of all channels together.
        return int(found[1]) // int(file.channels) if found else frames
    return frames


def _nist_header(path: Path) -> str:
    """The header of a NIST SPHERE file; empty for every other format."""
    with path.open("rb") as raw:
        start = raw.read(1024)
    return start.decode("latin-1") if start.startswith(b"NIST_1A") else ""


def _clipped(channel_n: NDArray[np.float32]) -> int:
    """How many samples of a channel stand in flat tops at full scale."""
    if max(float(channel_n.max()), -float(channel_n.min())) < _FULL_SCALE:
        return 0
    flat = (channel_n[1:] == channel_n[:-1]) & (np.abs(channel_n[1:]) >= _FULL_SCALE)
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))  # where runs of equal neighbors begin and end, in turns
    lengths = edges[1::2] - edges[::2] + 1
    return int(lengths[lengths >= _FLAT].sum())


def _ogg_is_whole(path: Path) -> bool:
    """Whether an Ogg stream ends with a whole last page (Ogg stores no length elsewhere); True for every other format."""
    with path.open("rb") as raw:
        if raw.read(4) != b"OggS":
            return True
        raw.seek(max(0, path.stat().st_size - (1 << 17)))  # a page is at most 65 307 bytes
        tail = raw.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & _OGG_LAST_PAGE:
        return False
    lacing = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lacing)
