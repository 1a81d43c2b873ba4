"""From recordings to files of layer features: which stretches of sound are read, in batches, straight onto the disk.

Two ways to read. ``"clip"``: the sound that ends with each scan and what came before it, one clip for each TR; cheap.
``"window"``: a window that slides by a tenth of a second, ten to twenty windows for each TR; neighbors share nearly all of their
sound and none of the work, because attention and group norm see the whole of it.

Axis letters: k window, n audio sample, t row, l layer, d width.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError, require
from fastencode.files import make_folder, sha256
from fastencode.progress import progress
from fastencode.speech.audio import audio_seconds, read_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder, unit_variance
from fastencode.speech.store import FeatureFile, is_finished

if TYPE_CHECKING:
    import torch

__all__ = ["Estimate", "Windows", "estimate", "extract_features", "find_windows"]

STORED = ("float32", "float16")
_UNWRITTEN = 2  # batches that may wait for the disk
# Sound in a batch. On two cores 4 windows of 16 s at a time took 5 % longer than one after the other (bench/speech.py).
_CPU_SECONDS, _CARD_SECONDS = 16.0, 256.0


@dataclass(frozen=True)
class Windows:
    """Stretches of a recording: samples from ``starts`` (k,) (below 0: silence) to ``stops`` (k,); ``times`` (k,), ends in s."""

    starts: NDArray[np.intp]
    stops: NDArray[np.intp]
    times: NDArray[np.float64]

    def batches(self, size: int) -> Iterator[NDArray[np.intp]]:
        """Rows that follow one another and are equally long, at most ``size`` at a time: no model has to be told of padding."""
        edges = np.flatnonzero(np.diff(self.stops - self.starts)) + 1
        for part in np.split(np.arange(len(self.times)), edges):
            for start in range(0, len(part), size):
                yield part[start : start + size]


def find_windows(n_samples: int, sample_rate: int, config: ReadConfig) -> Windows:
    """The stretches of a recording to read.

    Raises
    ------
    InputError
        If the recording is shorter than one TR or stride.
    """
    step = config.tr if config.input == "clip" else config.stride
    count = int(n_samples / sample_rate / step + 1e-6)
    if not count:
        raise InputError(f"{n_samples / sample_rate:.3g} s of sound are less than one step of {step:g} s")
    times = np.arange(1, count + 1) * np.float64(step)
    stops = np.minimum(np.rint(times * sample_rate).astype(np.intp), n_samples)
    starts = stops - round(config.longest * sample_rate)
    return Windows(starts if config.input == "clip" else np.maximum(starts, 0), stops, times)


@dataclass(frozen=True)
class Estimate:
    """What reading would cost: windows of each recording not finished, seconds in all, bytes on disk and free, batch size."""

    windows: dict[str, int]
    seconds: float
    bytes: int
    free: int
    batch: int


def extract_features(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    stored: str = "float32",
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
    batch : int, optional
        Windows at a time; by default as many as make 16 s of sound on a CPU, whose cache larger batches would leave, and 256 s on
        a card. Another number may change the last bits.
    stored : {"float32", "float16"}
        What is kept on disk.
    show_progress : bool
        Whether a bar is drawn, on standard error.

    Returns
    -------
    dict of name → path

    Raises
    ------
    InputError
        If a file cannot be read or is shorter than one step, the folder is a file or cannot be written to, the disk has too
        little room, a file of other features lies where one of these would, or a setting is out of range.

    See Also
    --------
    fastencode.speech.store.read_features : reads the files.
    """
    batch = _check_batch(batch, stored, encoder, config)
    counts = _count(sounds, encoder, config)
    paths = {name: folder / f"{name}.h5" for name in sounds}
    make_folder(folder)
    _check_room(folder, _row_bytes(encoder, stored) * sum(n for name, n in counts.items() if not paths[name].exists()))
    settings = _settings(encoder, config, stored)
    with (
        progress(total=sum(counts.values()), desc="layers", unit="window", enabled=show_progress) as bar,
        ThreadPoolExecutor(1) as reading,
    ):
        jobs = [
            partial(_decode, source, paths[name], settings, counts[name], encoder.sample_rate) for name, source in sounds.items()
        ]
        for path, sound in zip(paths.values(), _one_ahead(reading, jobs), strict=True):
            _extract_one(sound, path, encoder, config, batch, np.dtype(stored), bar)
    return paths


def estimate(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    stored: str = "float32",
) -> Estimate:
    """What :func:`extract_features` would cost for the files that are not finished, from the headers of the files and two batches
    of noise as long as the longest window.

    Raises
    ------
    InputError
        As there, but for the folder, which need not be there and is not made.
    """
    batch = _check_batch(batch, stored, encoder, config)
    settings, counts = _settings(encoder, config, stored), _count(sounds, encoder, config)
    for name, source in sounds.items():
        path = folder / f"{name}.h5"
        if path.exists() and is_finished(path, _key(source, settings)):
            del counts[name]
    total = sum(counts.values())
    rows = np.arange(min(batch, max(total, 1)))
    length = round(config.longest * encoder.sample_rate)
    noise = np.random.default_rng(0).standard_normal(length + len(rows)).astype(np.float32)
    windows = Windows(rows, rows + length, rows / encoder.sample_rate)
    audio = _upload(noise, windows, encoder.device)
    spent = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        _read_batch(encoder, audio, windows, rows, config.pooled).cpu()
        spent = time.perf_counter() - began
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    size = total * _row_bytes(encoder, stored)
    return Estimate(counts, total * spent / len(rows), size, shutil.disk_usage(there).free, batch)


@dataclass(frozen=True)
class _Sound:
    """What decides a recording's features, how many windows it has, and its samples; None where the features are finished."""

    key: dict[str, Any]
    windows: int
    samples: NDArray[np.float32] | None


def _settings(encoder: SpeechEncoder, config: ReadConfig, stored: str) -> dict[str, Any]:
    """What decides all features, whatever the recording."""
    return {"model": encoder.hash(), "dtype": encoder.dtype, "stored": stored, **config.decisive()}


def _key(source: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a recording's features."""
    return {**settings, "audio": sha256(source)}


def _decode(source: Path, path: Path, settings: Mapping[str, Any], windows: int, sample_rate: int) -> _Sound:
    key = _key(source, settings)
    return _Sound(key, windows, None if is_finished(path, key) else read_audio(source, sample_rate=sample_rate))


def _one_ahead(pool: ThreadPoolExecutor, jobs: Sequence[Callable[[], _Sound]]) -> Iterator[_Sound]:
    """What the jobs return, in order; while one result is used the next is made."""
    upcoming = [pool.submit(job) for job in jobs[:1]]
    for following in (*jobs[1:], None):
        current = upcoming.pop()
        if following is not None:
            upcoming.append(pool.submit(following))
        yield current.result()


def _extract_one(
    sound: _Sound, path: Path, encoder: SpeechEncoder, config: ReadConfig, batch: int, stored: np.dtype[Any], bar: Any
) -> None:
    """Read what is missing of one recording, in the batches of an undisturbed run, so that every bit comes out as there."""
    if sound.samples is None:
        bar.update(sound.windows)
        return
    windows = find_windows(len(sound.samples), encoder.sample_rate, config)
    audio = _upload(sound.samples, windows, encoder.device)
    shape = (encoder.n_layers, encoder.width)
    # The thread that writes ends before the file is closed, whatever happens here.
    with FeatureFile(path, windows.times, shape, stored, sound.key) as file, ThreadPoolExecutor(1) as disk:
        missing = file.missing
        bar.update(len(windows.times) - len(missing))
        waiting: deque[Future[None]] = deque()
        for rows in windows.batches(batch):
            if not np.isin(rows, missing).any():
                continue
            values, ready = _fetch(_read_batch(encoder, audio, windows, rows, config.pooled))
            waiting.append(disk.submit(_write, file, rows, values, ready, windows))
            if len(waiting) > _UNWRITTEN:
                waiting.popleft().result()
            bar.update(int(np.isin(rows, missing).sum()))
        for write in waiting:
            write.result()


def _read_batch(encoder: SpeechEncoder, audio: torch.Tensor, windows: Windows, rows: NDArray[np.intp], pool: str) -> torch.Tensor:
    """All layers of some equally long windows, pooled: (rows, l, d), float32, where the encoder computes."""
    torch = require("torch", "tune")
    shift = _silence(windows)
    with torch.inference_mode():
        clips = torch.stack([audio[windows.starts[row] + shift : windows.stops[row] + shift] for row in rows])
        if encoder.normalize:
            clips = unit_variance(clips)
        frames = len(encoder.frame_times(clips.shape[1]))
        hidden = encoder.layers(encoder.cnn(clips))
        if pool == "last":
            return torch.stack([layer[:, frames - 1] for layer in hidden], dim=1).float()
        return torch.stack([layer[:, :frames].float().mean(dim=1) for layer in hidden], dim=1)


def _silence(windows: Windows) -> int:
    """Samples of silence before a recording whose first windows begin before it."""
    return max(0, -int(windows.starts.min()))


def _upload(samples: NDArray[np.float32], windows: Windows, device: str) -> torch.Tensor:
    """A recording where it is read, with the silence before it."""
    return require("torch", "tune").from_numpy(np.pad(samples, (_silence(windows), 0))).to(device)


def _fetch(values: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Values on their way to the host, and the event after which they are there: nobody waits before they are written."""
    torch = require("torch", "tune")
    if values.device.type == "cpu":
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(values.device))
    return host, ready


def _write(file: FeatureFile, rows: NDArray[np.intp], values: torch.Tensor, ready: Any, windows: Windows) -> None:
    if ready is not None:
        ready.synchronize()
    with np.errstate(over="ignore"):
        stored = values.numpy().astype(file.dtype, copy=False)
    if not np.isfinite(stored).all():
        row, layer = (int(place[0]) for place in np.nonzero(~np.isfinite(stored))[:2])
        raise InputError(
            f"layer {layer} of the window that ends at {windows.times[rows[row]]:g} s holds values beyond {file.dtype} or beyond"
            " what the model computes in: use dtype float32 or bfloat16, and store float32"
        )
    file.write(rows, stored)


def _check_batch(batch: int | None, stored: str, encoder: SpeechEncoder, config: ReadConfig) -> int:
    """The size of batches."""
    if batch is not None and batch < 1:
        raise InputError(f"batch={batch}: read at least one window at a time")
    if stored not in STORED:
        raise InputError(f"stored={stored!r}: choose one of {', '.join(map(repr, STORED))}")
    seconds = _CPU_SECONDS if encoder.device == "cpu" else _CARD_SECONDS
    return max(1, int(seconds / config.longest)) if batch is None else batch


def _count(sounds: Mapping[str, Path], encoder: SpeechEncoder, config: ReadConfig) -> dict[str, int]:
    """Windows of every recording, by its header; says what cannot be read before the first hour is spent."""
    if not sounds:
        raise InputError("there are no recordings: give at least one")
    for seconds in (config.longest, config.seconds if config.input == "clip" else config.stride):
        encoder.frame_times(round(seconds * encoder.sample_rate))
    counts = {}
    for name, path in sounds.items():
        n = round(audio_seconds(path) * encoder.sample_rate)
        try:
            counts[name] = len(find_windows(n, encoder.sample_rate, config).times)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return counts


def _row_bytes(encoder: SpeechEncoder, stored: str) -> int:
    return encoder.n_layers * encoder.width * np.dtype(stored).itemsize


def _check_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise InputError(
            f"the features take {wanted / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left: store float16, read clips, or"
            " choose another disk"
        )
