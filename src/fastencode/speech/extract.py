"""From recordings to files of layer features, in batches, straight onto the disk; or only as far as the CNN.

Two ways to read. ``"clip"``: the sound that ends with each scan and what came before it, one clip for each TR; cheap.
``"window"``: a window that slides by a tenth of a second, ten to twenty windows for each TR; neighbors share nearly all of their
sound and none of the work, because attention and group norm see the whole of it.

Models tuned above one frozen CNN share its frames: :func:`extract_frames` keeps them, once, for the trainer and for
:func:`extract_features`.

Axis letters: k window, b window of a batch, n audio sample, f frame, c channel, m row kept of a window, t row, l layer, d width.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError, require
from fastencode.files import make_folder, sha256
from fastencode.progress import progress
from fastencode.speech.audio import audio_seconds, read_audio
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
    frame_settings,
    keep_frames,
    keep_layers,
    one_ahead,
    told,
    writing_rows,
)
from fastencode.speech.store import FeatureFile, check_key, is_finished, open_features
from fastencode.speech.windows import Windows, find_windows, kept_frames

if TYPE_CHECKING:
    import torch

__all__ = ["Estimate", "estimate", "extract_features", "extract_frames"]

Clips = Callable[[NDArray[np.intp]], "torch.Tensor"]
"""Rows of windows → their CNN frames (b, f, c), where the encoder computes."""


def extract_features(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    *,
    frames: Mapping[str, Path] | None = None,
    batch: int | None = None,
    stored: str = "float32",
    skip: Skip | None = None,
    show_progress: bool = True,
) -> dict[str, Path]:
    """Read every layer of every recording into ``folder/<name>.h5``.

    Files that are finished are kept, and a file that was begun is gone on with: a kill or a full disk costs the batch it fell
    into. Files are decoded and written while the model computes.

    Parameters
    ----------
    sounds : name → path of an audio file
    encoder : SpeechEncoder
    folder : Path
        Made if it is not there.
    config : ReadConfig
    frames : name → path, optional
        What :func:`extract_frames` made of the same clips with the same CNN: it is not run again.
    batch : int, optional
        Windows at a time; by default as many as make 16 s of sound on a CPU, whose cache larger batches would leave, and 256 s on
        a card. Another number may change the last bits.
    stored : {"float32", "float16"}
        What is kept on disk.
    skip : callable, optional
        Called with the name and the :class:`InputError` of each recording that cannot be read; the others are read. By default
        the first such error is raised. A full disk is raised in any case.
    show_progress : bool
        Whether a bar is drawn, on standard error.

    Returns
    -------
    dict of name → path, of the recordings that were not skipped

    Raises
    ------
    InputError
        If a file cannot be read or is shorter than one step, the folder is a file or cannot be written to, the disk has too
        little room, a file of other features lies where one of these would, ``frames`` are of other clips or of another CNN, or a
        setting is out of range.

    See Also
    --------
    fastencode.speech.store.read_features : reads the files.
    """
    batch = _check_batch(batch, stored, encoder, config)
    kept = keep_layers(encoder, config, stored)
    return _extract(sounds, encoder, folder, config, kept, batch, frames, skip, show_progress)


def extract_frames(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    show_progress: bool = True,
) -> dict[str, Path]:
    """Run the CNN over every clip of every recording, into ``folder/<name>.h5``; resumed and refused as layers are.

    Parameters
    ----------
    sounds, encoder, folder, batch, show_progress
        As for :func:`extract_features`.
    config : ReadConfig
        Of clips. How their frames are pooled does not matter: all are kept.

    Returns
    -------
    dict of name → path
        Files of shape (clips, f, c), float32; their times are the ends of the clips.

    Raises
    ------
    InputError
        As there, and if windows are asked for.
    """
    batch = _check_batch(batch, "float32", encoder, config)
    kept = keep_frames(encoder, config)
    return _extract(sounds, encoder, folder, config, kept, batch, None, None, show_progress)


def estimate(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    stored: str = "float32",
    skip: Skip | None = None,
) -> Estimate:
    """What :func:`extract_features` would cost for the files that are not finished, from the headers of the files and two batches
    of noise as long as the longest window. ``skip`` is told of the recordings that would not be read.

    Raises
    ------
    InputError
        As there, but for the folder, which need not be there and is not made.
    """
    batch = _check_batch(batch, stored, encoder, config)
    kept, counts = keep_layers(encoder, config, stored), _count(sounds, encoder, config, skip)
    for name in list(counts):
        path = folder / f"{name}.h5"
        with told(name, skip):
            if not path.exists() or not is_finished(path, _key(sounds[name], kept.settings)):
                continue
        del counts[name]
    total = sum(counts.values())
    rows = np.arange(min(batch, max(total, 1)))
    length = round(config.longest * encoder.sample_rate)
    noise = np.random.default_rng(0).standard_normal(length + len(rows)).astype(np.float32)
    clips = _heard(encoder, noise, Windows(rows, rows + length, rows / encoder.sample_rate))
    spent = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        with require("torch", "tune").inference_mode():
            kept.of(clips(rows), length).cpu()
        spent = time.perf_counter() - began
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return Estimate(counts, total * spent / len(rows), total * kept.window_bytes, shutil.disk_usage(there).free, batch)


def _key(source: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what is kept of a recording."""
    return {**settings, "audio": sha256(source)}


def _extract(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    kept: Kept,
    batch: int,
    frames: Mapping[str, Path] | None,
    skip: Skip | None,
    show_progress: bool,
) -> dict[str, Path]:
    counts, read = _count(sounds, encoder, config, skip), dict[str, Path]()
    paths = {name: folder / f"{name}.h5" for name in counts}
    for parent in dict.fromkeys([folder, *(path.parent for path in paths.values())]):
        make_folder(parent)
    check_room(folder, kept.window_bytes * sum(n for name, n in counts.items() if not paths[name].exists()))
    if frames is not None:
        _check_frames(frames, sounds, frame_settings(encoder, config))
    with (
        progress(total=sum(counts.values()), desc=kept.what, unit="window", enabled=show_progress) as bar,
        ThreadPoolExecutor(1) as reading,
    ):
        jobs = [
            partial(_look, sounds[name], path, kept.settings, counts[name], encoder.sample_rate, frames is None)
            for name, path in paths.items()
        ]
        for (name, path), looked in zip(paths.items(), one_ahead(reading, jobs), strict=True):
            with told(name, skip):
                sound = looked.result()
                if sound.finished:
                    bar.update(sound.windows)
                else:
                    windows = find_windows(sound.samples, encoder.sample_rate, config)
                    with _clips(encoder, sound.audio, windows, None if frames is None else frames[name]) as clips:
                        _extract_one(clips, windows, path, sound.key, kept, batch, bar)
                read[name] = path
    return read


def _check_frames(frames: Mapping[str, Path], sounds: Mapping[str, Path], settings: Mapping[str, Any]) -> None:
    """Whether frames are of these sounds, clips and CNN."""
    for name, source in sounds.items():
        if name not in frames:
            raise InputError(f"there are no frames of {name!r}: extract them first, or leave frames away")
        with open_features(frames[name]) as file:
            check_key(frames[name], file, _key(source, settings))


@dataclass(frozen=True)
class _Sound:
    """What decides what is kept of a recording, whether that is done, its windows and samples, and these if they are needed."""

    key: dict[str, Any]
    finished: bool
    windows: int
    samples: int
    audio: NDArray[np.float32] | None


def _look(source: Path, path: Path, settings: Mapping[str, Any], windows: int, sample_rate: int, decode: bool) -> _Sound:
    key = _key(source, settings)
    if is_finished(path, key):
        return _Sound(key, True, windows, 0, None)
    audio = read_audio(source, sample_rate=sample_rate) if decode else None
    return _Sound(key, False, windows, round(audio_seconds(source) * sample_rate) if audio is None else len(audio), audio)


@contextmanager
def _clips(encoder: SpeechEncoder, audio: NDArray[np.float32] | None, windows: Windows, frames: Path | None) -> Iterator[Clips]:
    """What makes CNN frames of windows: the CNN, or a file of them."""
    if frames is None:
        assert audio is not None
        yield _heard(encoder, audio, windows)
        return
    torch = require("torch", "tune")
    with h5py.File(frames) as file:
        values = file["features"]
        dtype = getattr(torch, encoder.dtype)
        yield lambda rows: torch.from_numpy(values[rows[0] : rows[-1] + 1]).to(encoder.device, dtype)


def _heard(encoder: SpeechEncoder, audio: NDArray[np.float32], windows: Windows) -> Clips:
    """The CNN over stretches of a recording, which is moved to where the encoder computes once."""
    silence = max(0, -int(windows.starts.min()))  # before a recording whose first windows begin before it
    audio_n = require("torch", "tune").from_numpy(np.pad(audio, (silence, 0))).to(encoder.device)
    stack = require("torch", "tune").stack

    def clips(rows: NDArray[np.intp]) -> torch.Tensor:
        return clip_frames(
            encoder, stack([audio_n[windows.starts[row] + silence : windows.stops[row] + silence] for row in rows])
        )

    return clips


def _extract_one(clips: Clips, windows: Windows, path: Path, key: Mapping[str, Any], kept: Kept, batch: int, bar: Any) -> None:
    """Read what is missing of one recording, in the batches of an undisturbed run, so that every bit comes out as there."""
    torch = require("torch", "tune")
    times = kept.times(windows)
    with (
        FeatureFile(path, times, kept.shape, kept.stored, key, kept.axes) as file,
        writing_rows(file, lambda row: f"at {times[row]:.4g} s") as put,
    ):
        missing = np.unique(file.missing // kept.rows)
        bar.update(len(windows.times) - len(missing))
        for part in windows.batches(batch):
            if not np.isin(part, missing).any():
                continue
            with torch.inference_mode():
                put(kept.rows_of(part), kept.of(clips(part), int(windows.stops[part[0]] - windows.starts[part[0]])))
            bar.update(int(np.isin(part, missing).sum()))


def _check_batch(batch: int | None, stored: str, encoder: SpeechEncoder, config: ReadConfig) -> int:
    """The size of batches."""
    if config.input == "utterance":
        raise InputError("input='utterance': whole recordings go to one file, by speech.packed.extract_packed")
    check_stored(stored)
    return batch_size(batch, config.longest, encoder.device)


def _count(sounds: Mapping[str, Path], encoder: SpeechEncoder, config: ReadConfig, skip: Skip | None = None) -> dict[str, int]:
    """Windows of every recording, by its header; says what cannot be read before the first hour is spent."""
    if not sounds:
        raise InputError("there are no recordings: give at least one")
    for seconds in (config.longest, config.seconds if config.input == "clip" else config.stride):
        n = round(seconds * encoder.sample_rate)
        kept_frames(encoder.frame_times(n), n / encoder.sample_rate, config)
    counts = {}
    for name, path in sounds.items():
        with told(name, skip):
            n = round(audio_seconds(path) * encoder.sample_rate)
            try:
                counts[name] = len(find_windows(n, encoder.sample_rate, config).times)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
    return counts
