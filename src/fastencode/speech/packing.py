"""How a corpus becomes one file: what makes rows of sounds, which sounds there are, and the loop over batches of equal length.

The file and its doors are in ``packed.py``. Rows of layers are made of sounds, or of frames of the CNN that were kept.

Axis letters: k recording, b recording of a batch, n audio sample, f frame, c channel or cepstrum, m row of a recording, t row,
l layer, d width.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError, require, warn
from fastencode.files import make_folder, sha256
from fastencode.limits import available_processors
from fastencode.progress import progress
from fastencode.speech.acoustics import frame_times, mfcc
from fastencode.speech.audio import decode
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.reading import (
    Estimate,
    Kept,
    Skip,
    batch_size,
    check_room,
    check_stored,
    clip_frames,
    keep_frames,
    keep_layers,
    one_ahead,
    told,
    writing_rows,
)
from fastencode.speech.store import FeatureFile, check_key, map_features, open_features, partial_path
from fastencode.speech.windows import kept_frames

__all__ = ["Source", "frames_source", "mfcc_source", "model_source", "pack", "price"]

Floats = NDArray[np.floating[Any]]

_LOOKED_AT = 256  # sounds that are checked in parallel
_MFCC_RATE, _CEPSTRA, _DELTAS = 16000, 12, 2
_MFCC_BATCH = 64  # recordings
_USUAL = 5  # s of sound that every model can read: used to find bins without frames


@dataclass(frozen=True)
class Source:
    """Computes the rows of features from sounds.

    Attributes
    ----------
    read : callable
        Some sounds of equal length, each (n,), and n → (b m, *shape), a tensor or an array. Of frames: each (f, c), and n.
    when : callable
        Samples of a sound → (m,), times of its rows in s from its end; an :class:`InputError` if it is too short or too long.
    batch : callable
        Samples of a sound → how many are read at a time.
    work : callable
        Samples of a sound → samples that are computed for it: Whisper hears 30 s whatever there is.
    sample_rate : int
    shape : (int, int)
        Of a row.
    stored : dtype
    settings : dict
        All that decides the rows, whatever the recording.
    axes, what : str
        Of the file; what the progress bar says.
    frames : Frames, optional
        Frames that are read instead of sounds.
    """

    read: Callable[[Sequence[NDArray[np.float32]], int], Any]
    when: Callable[[int], NDArray[np.float64]]
    batch: Callable[[int], int]
    work: Callable[[int], int]
    sample_rate: int
    shape: tuple[int, int]
    stored: np.dtype[Any]
    settings: dict[str, Any]
    axes: str
    what: str
    frames: Frames | None = None


@dataclass(frozen=True)
class _Sound:
    """A readable recording: SHA-256 of its file, number of samples at the source's rate, and why it is suspicious, if so."""

    audio: str
    samples: int
    doubt: str = ""


class Frames:
    """A finished file of the CNN's frames of a corpus.

    Attributes
    ----------
    path : Path
    sounds : name → _Sound
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], sample_rate: int) -> None:
        self.path = path
        with open_features(path) as file:
            self.sounds = _recordings(path, file, settings, sample_rate)
            self._ends = dict(zip(self.sounds, np.cumsum(file["counts"][:]), strict=True))
            self._counts = dict(zip(self.sounds, file["counts"][:], strict=True))
        self._values = map_features(path)

    def of(self, name: str) -> NDArray[np.float32]:
        """The frames of a recording, (f, c)."""
        end = int(self._ends[name])
        return np.array(self._values[end - int(self._counts[name]) : end, 0])

    def check(self, found: Mapping[str, _Sound]) -> None:
        """An :class:`InputError` if some of these recordings are not those that frames were made of."""
        for name, sound in found.items():
            if name not in self.sounds or self.sounds[name].audio != sound.audio:
                why = "has no frames of it" if name not in self.sounds else "was made of another sound of this name"
                raise InputError(f"{name!r}: {self.path} {why}: make frames of this corpus first, or leave frames away")


def model_source(
    encoder: SpeechEncoder, config: ReadConfig, batch: int | None, stored: str, frames: Path | None = None
) -> Source:
    """All layers of a speech model, of sounds or of its CNN's frames."""
    _check(config, stored)
    kept = keep_layers(encoder, config, stored)
    kept.when(_USUAL * encoder.sample_rate)
    if frames is None:
        return _computed(encoder, batch, kept)
    torch, dtype = require("torch", "tune"), getattr(require("torch", "tune"), encoder.dtype)
    there = Frames(frames, keep_frames(encoder, config).settings, encoder.sample_rate)

    def read(frames_bfc: Sequence[NDArray[np.float32]], samples: int) -> Any:
        with torch.inference_mode():
            return kept.of(torch.from_numpy(np.stack(frames_bfc)).to(encoder.device, dtype), samples)

    return replace(_computed(encoder, batch, kept), read=read, frames=there)


def frames_source(encoder: SpeechEncoder, batch: int | None) -> Source:
    """All frames of a speech model's CNN, each a row."""
    return _computed(encoder, batch, keep_frames(encoder, ReadConfig("utterance")))


def _computed(encoder: SpeechEncoder, batch: int | None, kept: Kept) -> Source:
    """What is kept of the CNN's frames of sounds."""
    torch = require("torch", "tune")
    batch_size(batch, 1.0, encoder.device)

    def read(sounds: Sequence[NDArray[np.float32]], samples: int) -> Any:
        with torch.inference_mode():
            return kept.of(clip_frames(encoder, torch.from_numpy(np.stack(sounds)).to(encoder.device)), samples)

    def work(samples: int) -> int:
        return encoder.longest or samples

    return Source(
        read,
        lru_cache(1 << 16)(kept.when),
        lambda samples: batch_size(batch, work(samples) / encoder.sample_rate, encoder.device),
        work,
        encoder.sample_rate,
        kept.shape,
        kept.stored,
        kept.settings,
        kept.axes,
        kept.what,
    )


def mfcc_source(config: ReadConfig, batch: int | None, stored: str) -> Source:
    """MFCCs (c1 to c12 and c0) with Δ and ΔΔ at 16 kHz, in the form of a model with one layer.

    Columns are means and then standard deviations over the sound, 78; for time bins only means, 39.
    """
    _check(config, stored)
    mean, columns = config.pooled == "mean", (_CEPSTRA + 1) * (1 + _DELTAS)

    def bins(samples: int) -> tuple[list[slice], NDArray[np.float64]]:
        window, hop = (round(seconds * _MFCC_RATE) for seconds in (0.025, 0.010))
        if samples < window:
            raise InputError(f"{samples} samples are less than one frame of cepstra ({window} samples at {_MFCC_RATE} Hz)")
        return kept_frames(frame_times((samples - window) // hop + 1, _MFCC_RATE), samples / _MFCC_RATE, config)

    def rows(sound: NDArray[np.float32]) -> Floats:
        frames_fc = mfcc(sound.astype(np.float64), _MFCC_RATE, n_mfcc=_CEPSTRA, energy="c0", deltas=_DELTAS)
        if mean:
            return np.concatenate([frames_fc.mean(axis=0), frames_fc.std(axis=0)])[None]
        return np.stack([frames_fc[part].mean(axis=0) for part in bins(len(sound))[0]])

    bins(_USUAL * _MFCC_RATE)
    return Source(
        lambda sounds, _: np.concatenate([rows(sound) for sound in sounds])[:, None],
        lru_cache(1 << 16)(lambda samples: bins(samples)[1]),
        lambda _: batch_size(_MFCC_BATCH if batch is None else batch, 1.0, "cpu"),
        lambda samples: samples,
        _MFCC_RATE,
        (1, columns * (1 + mean)),
        np.dtype(stored),
        {"model": "mfcc", "sample_rate": _MFCC_RATE, "stored": stored, **config.decisive()},
        "time, layer, cepstrum",
        "cepstra",
    )


def _check(config: ReadConfig, stored: str) -> None:
    if config.input != "utterance":
        raise InputError(f"input={config.input!r}: one file for a corpus holds whole recordings, input='utterance'")
    check_stored(stored)


def price(sounds: Mapping[str, Path], source: Source, file: Path, skip: Skip | None) -> Estimate:
    """Estimate the cost of :func:`pack`: check every sound, and time two batches of noise of median length."""
    found, _ = _look_at_all(sounds, source, file, skip, show_progress=False)
    if not found or (file.exists() and _is_finished(file, source, found)):
        return Estimate({}, 0.0, 0, _free(file), 1)
    lengths = np.sort([sound.samples for sound in found.values()])
    middle = int(lengths[len(lengths) // 2])
    batch = round(len(lengths) / sum(1 for _ in _batches(lengths, source)))
    noise = [0.1 * each for each in np.random.default_rng(0).standard_normal((batch, middle), np.float32)]
    spent = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        np.asarray(getattr(source.read(noise, middle), "cpu", lambda: 0)())  # what is on its way from a card must have come
        spent = time.perf_counter() - began
    seconds = spent / batch * sum(source.work(int(length)) for length in lengths) / source.work(middle)
    rows = sum(len(source.when(int(length))) for length in lengths)
    return Estimate(dict.fromkeys(found, 1), seconds, rows * _row_bytes(source), _free(file), batch)


def pack(sounds: Mapping[str, Path], source: Source, file: Path, skip: Skip | None, show_progress: bool) -> Path:
    """Read the features of all readable sounds into one file: see :func:`fastencode.speech.packed.extract_packed`."""
    make_folder(file.parent)
    found, doubts = _look_at_all(sounds, source, file, skip, show_progress)
    if not found:
        raise InputError(f"none of {len(sounds)} recordings can be read: give others")
    if doubts:
        warn(f"{len(doubts)} of {len(found)} recordings are silent or clipped, the first: {doubts[0]}")
    if file.exists() and _is_finished(file, source, found):
        return file
    names, lengths = sorted(found), np.array([found[name].samples for name in sorted(found)])
    since = [source.when(int(length)) for length in lengths]
    counts = np.array([len(each) for each in since])
    times = np.concatenate([length / source.sample_rate + each for length, each in zip(lengths, since, strict=True)])
    if not partial_path(file).exists():
        check_room(file.parent, len(times) * _row_bytes(source))
    beside = {
        "names": np.array([name.encode("utf-8", "surrogateescape") for name in names]),
        "counts": counts,
        "seconds": lengths / source.sample_rate,
        "audio": np.array([found[name].audio.encode() for name in names]),
    }
    starts = np.concatenate([[0], np.cumsum(counts)])
    with (
        FeatureFile(file, times, source.shape, source.stored, _key(source, found), source.axes, beside) as out,
        writing_rows(out, lambda row: f"of {names[int(np.searchsorted(starts, row, 'right')) - 1]!r}") as put,
        progress(total=len(names), desc=source.what, unit="recording", enabled=show_progress) as bar,
        ThreadPoolExecutor(1) as reading,
    ):
        parts = []
        for part in _batches(lengths, source):  # those of an undisturbed run, so that every bit comes out as there
            if all(out.there[starts[k] : starts[k + 1]].all() for k in part):
                bar.update(len(part))
            else:
                parts.append(part)
        jobs = (partial(_load, source, sounds, [names[k] for k in part], int(lengths[part[0]])) for part in parts)
        for part, job in zip(parts, one_ahead(reading, jobs), strict=True):
            rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in part])
            put(rows, source.read(job.result(), int(lengths[part[0]])))
            bar.update(len(part))
    return file


def _batches(lengths: NDArray[np.intp], source: Source) -> Iterator[NDArray[np.intp]]:
    """Batches of recordings of equal length, shortest first."""
    order = np.argsort(lengths, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = source.batch(int(lengths[group[0]]))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _load(source: Source, sounds: Mapping[str, Path], names: Sequence[str], samples: int) -> list[NDArray[np.float32]]:
    """Frames of some recordings, or their sounds, which were looked at before."""
    if source.frames is not None:
        return [source.frames.of(name) for name in names]
    return _decode([sounds[name] for name in names], samples, source.sample_rate)


def _decode(paths: Sequence[Path], samples: int, sample_rate: int) -> list[NDArray[np.float32]]:
    """Decode sounds that were checked before."""
    sounds = [decode(path, sample_rate)[0] for path in paths]
    for path, sound in zip(paths, sounds, strict=True):
        if len(sound) != samples:
            raise InputError(f"{path} has changed since this command began: repeat it when nothing else writes there")
    return sounds


def _look_at_all(
    sounds: Mapping[str, Path], source: Source, file: Path, skip: Skip | None, show_progress: bool
) -> tuple[dict[str, _Sound], list[str]]:
    """Check all sounds. Returns name → readable sound, and remarks on suspicious ones; calls ``skip`` for unreadable ones."""
    if not sounds:
        raise InputError("there are no recordings: give at least one")
    known = _known(file, source)
    looked_at = {**({} if source.frames is None else source.frames.sounds), **known}
    found: dict[str, _Sound] = {}
    with (
        progress(total=len(sounds), desc="sounds, checked", unit="recording", enabled=show_progress) as bar,
        ThreadPoolExecutor(min(4, available_processors())) as pool,
    ):
        names = list(sounds)
        for start in range(0, len(names), _LOOKED_AT):
            some = names[start : start + _LOOKED_AT]
            jobs = [pool.submit(_look, sounds[name], source, looked_at.get(name)) for name in some]
            for name, job in zip(some, jobs, strict=True):
                with told(name, skip):
                    found[name] = job.result()
            bar.update(len(some))
    if known and found:
        _check_same(file, known, found)
    if source.frames is not None:
        source.frames.check(found)
    return found, [sound.doubt for sound in found.values() if sound.doubt]


def _look(path: Path, source: Source, known: _Sound | None) -> _Sound:
    """Check one sound. It is decoded unless an existing file of features has its length."""
    audio = sha256(path)
    if known is not None and known.audio == audio:
        return known
    sound, doubt = decode(path, source.sample_rate)
    try:
        source.when(len(sound))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return _Sound(audio, len(sound), doubt)


def _known(file: Path, source: Source) -> dict[str, _Sound]:
    """The recordings of an existing file, finished or not. Raises :class:`InputError` if it was made with other settings."""
    if file.exists():
        with open_features(file) as features:
            return _recordings(file, features, source.settings, source.sample_rate)
    partly = partial_path(file)
    if not partly.exists():
        return {}
    try:
        with h5py.File(partly, locking=False) as features:
            return _recordings(partly, features, source.settings, source.sample_rate)
    except (OSError, KeyError):  # the error is reported when the file is resumed
        return {}


def _recordings(path: Path, features: h5py.File, settings: Mapping[str, Any], sample_rate: int) -> dict[str, _Sound]:
    if "names" not in features:
        raise InputError(f"{path} holds features of one recording, not of a corpus: choose another folder, or delete the file")
    key = json.loads(features.attrs["key"])
    check_key(path, features, {**key, "model": settings.get("model")})  # first: another one has other settings, too
    check_key(path, features, {**settings, **{name: key.get(name) for name in ("audio", "recordings")}})
    samples = np.rint(features["seconds"][:] * sample_rate).astype(int)
    return {
        name.decode("utf-8", "surrogateescape"): _Sound(audio.decode(), int(length))
        for name, audio, length in zip(features["names"][:], features["audio"][:], samples, strict=True)
    }


def _check_same(file: Path, known: Mapping[str, _Sound], found: Mapping[str, _Sound]) -> None:
    new, gone = sorted(found.keys() - known.keys()), sorted(known.keys() - found.keys())
    changed = sorted(name for name in found.keys() & known.keys() if found[name].audio != known[name].audio)
    if new or gone or changed:
        first = (changed or gone or new)[0]
        raise InputError(
            f"{file} was made of other sounds: {len(changed)} have changed since, {len(gone)} are gone or cannot be read any"
            f" more, {len(new)} are new, the first is {first!r}: choose another folder, or delete the file"
        )


def _is_finished(file: Path, source: Source, found: Mapping[str, _Sound]) -> bool:
    with open_features(file) as features:
        check_key(file, features, _key(source, found))
    return True


def _key(source: Source, found: Mapping[str, _Sound]) -> dict[str, Any]:
    """What a file depends on: settings of the source, and names and digests of the sounds."""
    listed = "".join(f"{found[name].audio} {name}\n" for name in sorted(found))
    audio = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    return {**source.settings, "recordings": len(found), "audio": audio}


def _row_bytes(source: Source) -> int:
    return source.shape[0] * source.shape[1] * source.stored.itemsize


def _free(file: Path) -> int:
    there = next(parent for parent in file.absolute().parents if parent.exists())
    return shutil.disk_usage(there).free
