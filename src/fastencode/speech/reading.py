"""What reading recordings shares, whether each gets a file of its own (``extract.py``) or all get one (``packed.py``).

What is kept of a model's frames, how rows get to the disk while the model computes, how files are read ahead of it, and what is
told of a recording that cannot be read.

Axis letters: b window of a batch, n audio sample, f frame, c channel, m row kept of a window, t row, l layer, d width.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import DiskError, InputError, require
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder, unit_variance
from fastencode.speech.store import FeatureFile
from fastencode.speech.windows import Windows, kept_frames

if TYPE_CHECKING:
    import torch

__all__ = [
    "Estimate",
    "Kept",
    "Skip",
    "batch_size",
    "check_room",
    "check_stored",
    "clip_frames",
    "frame_settings",
    "keep_frames",
    "keep_layers",
    "layer_settings",
    "one_ahead",
    "told",
    "writing_rows",
]

T = TypeVar("T")

_STORED = ("float32", "float16")
_UNWRITTEN = 2  # batches that may wait for the disk
# Sound in a batch. On two cores 4 windows of 16 s at a time took 5 % longer than one after the other (bench/speech.py).
_CPU_SECONDS, _CARD_SECONDS = 16.0, 256.0

Skip = Callable[[str, InputError], None]
"""What is told of a recording that cannot be read: its name and why."""

Put = Callable[[NDArray[np.intp], Any], None]
"""Writes rows: which, and their values (rows, l, d), a tensor or an array."""


@dataclass(frozen=True)
class Estimate:
    """What reading would cost: windows of each recording not finished, seconds in all, bytes on disk and free, batch size."""

    windows: dict[str, int]
    seconds: float
    bytes: int
    free: int
    batch: int


@dataclass(frozen=True)
class Kept:
    """What is kept of every window.

    Attributes
    ----------
    of : callable
        CNN frames (b, f, c) of windows, and how many samples long these are → (b m, *shape), float32.
    when : callable
        Samples of a window → (m,), times of its rows in s from its end.
    shape : (int, int)
        Of a row.
    rows : int
        m of clips and windows; what is kept of an utterance is as long as :attr:`when` says.
    stored : dtype
    settings : dict
        All that decides the values, whatever the recording.
    axes, what : str
        Of the file; what the progress bar says.
    """

    of: Callable[[torch.Tensor, int], torch.Tensor]
    when: Callable[[int], NDArray[np.float64]]
    shape: tuple[int, int]
    rows: int
    stored: np.dtype[Any]
    settings: dict[str, Any]
    axes: str
    what: str

    @property
    def window_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.stored.itemsize

    def times(self, windows: Windows) -> NDArray[np.float64]:
        """Of all rows of a recording, (t,)."""
        lengths = windows.stops - windows.starts
        since = {int(length): self.when(int(length)) for length in np.unique(lengths)}
        return np.concatenate([end + since[int(length)] for end, length in zip(windows.times, lengths, strict=True)])

    def rows_of(self, windows: NDArray[np.intp]) -> NDArray[np.intp]:
        """The rows of some windows."""
        return (windows[:, None] * self.rows + np.arange(self.rows)).ravel()


def keep_layers(encoder: SpeechEncoder, config: ReadConfig, stored: str) -> Kept:
    """All layers, pooled as the settings say."""
    stack = require("torch", "tune").stack

    def bins(length: int) -> tuple[list[slice], NDArray[np.float64]]:
        return kept_frames(encoder.frame_times(length), length / encoder.sample_rate, config)

    def of(frames_bfc: torch.Tensor, length: int) -> torch.Tensor:
        kept, _ = bins(length)
        layers = encoder.layers(frames_bfc)
        return stack([stack([layer[:, part].float().mean(dim=1) for part in kept], dim=1) for layer in layers], dim=2).flatten(
            0, 1
        )

    return Kept(
        of,
        lambda length: bins(length)[1],
        (encoder.n_layers, encoder.width),
        1 if config.input == "utterance" else config.kept,
        np.dtype(stored),
        layer_settings(encoder, config, stored),
        "time, layer, width",
        "layers",
    )


def layer_settings(encoder: SpeechEncoder, config: ReadConfig, stored: str) -> dict[str, Any]:
    """All that decides layers, whatever the recording. The model is hashed, which takes as long as reading its weights."""
    return {"model": encoder.hash(), "dtype": encoder.dtype, "stored": stored, **config.decisive()}


def keep_frames(encoder: SpeechEncoder, config: ReadConfig) -> Kept:
    """All frames of the CNN: of a clip in one row, because clips are equally long; of an utterance each in a row of its own."""
    if config.input == "utterance":
        return _frame_by_frame(encoder, config)
    if config.input != "clip":
        raise InputError(f"input={config.input!r}: frames of the CNN are kept of clips and utterances only")
    torch = require("torch", "tune")
    length = round(config.seconds * encoder.sample_rate)
    encoder.frame_times(length)
    with torch.inference_mode():
        shape = encoder.cnn(torch.zeros((1, length), dtype=getattr(torch, encoder.dtype), device=encoder.device)).shape[1:]
    return Kept(
        lambda frames_bfc, _: frames_bfc.float(),
        lambda _: np.zeros(1),
        (int(shape[0]), int(shape[1])),
        1,
        np.dtype(np.float32),
        frame_settings(encoder, config),
        "clip, frame, channel",
        "CNN, once",
    )


def _frame_by_frame(encoder: SpeechEncoder, config: ReadConfig) -> Kept:
    if encoder.longest is not None:
        seconds = encoder.longest / encoder.sample_rate
        raise InputError(f"{encoder.name} makes frames for {seconds:g} s of every recording: do not keep them, read its layers")
    return Kept(
        lambda frames_bfc, _: frames_bfc.float().flatten(0, 1)[:, None],
        lambda length: encoder.frame_times(length) - length / encoder.sample_rate,
        (1, encoder.channels),
        1,
        np.dtype(np.float32),
        frame_settings(encoder, config),
        "frame, one, channel",
        "CNN, once",
    )


def frame_settings(encoder: SpeechEncoder, config: ReadConfig) -> dict[str, Any]:
    """All that decides frames of the CNN, whatever the recording."""
    return {"cnn": encoder.cnn_hash(), "normalize": encoder.normalize, "dtype": encoder.dtype, **config.stretches()}


def clip_frames(encoder: SpeechEncoder, clips_bn: torch.Tensor) -> torch.Tensor:
    """The CNN over sound as the checkpoint wants it, where the encoder computes, (b, n) → (b, f, c)."""
    # In one piece, as frames from a file are: another layout may change the last bits.
    return encoder.cnn(unit_variance(clips_bn) if encoder.normalize else clips_bn).contiguous()


def check_stored(stored: str) -> None:
    """An :class:`InputError` for a dtype that files do not hold."""
    if stored not in _STORED:
        raise InputError(f"stored={stored!r}: choose one of {', '.join(map(repr, _STORED))}")


def batch_size(batch: int | None, seconds: float, device: str) -> int:
    """Windows of some seconds that are read at a time: what was asked for, or what suits the device."""
    if batch is not None and batch < 1:
        raise InputError(f"batch={batch}: read at least one window at a time")
    return max(1, int((_CPU_SECONDS if device == "cpu" else _CARD_SECONDS) / seconds)) if batch is None else batch


def check_room(folder: Path, wanted: int) -> None:
    """An :class:`InputError` if a disk has less room than so many bytes."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise InputError(
            f"the features take {wanted / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left: store float16, read clips, or"
            " choose another disk"
        )


@contextmanager
def told(name: str, skip: Skip | None) -> Iterator[None]:
    """A context for work on one recording: what is wrong with it is told where somebody listens, otherwise raised."""
    try:
        yield
    except DiskError:  # the next one would fail as well
        raise
    except InputError as error:
        if skip is None:
            raise
        skip(name, error)


def one_ahead(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], T]]) -> Iterator[Future[T]]:
    """The jobs in order, begun; while the result of one is used the next is made."""
    rest = iter(jobs)
    begun = deque(pool.submit(job) for job in islice(rest, 1))
    for job in rest:
        begun.append(pool.submit(job))
        yield begun.popleft()
    yield from begun


@contextmanager
def writing_rows(file: FeatureFile, where: Callable[[int], str]) -> Iterator[Put]:
    """A context that gives what writes rows while others are computed; all are on the disk when it ends.

    ``where(row)`` says in messages of which recording, or when in one, a row is.
    """
    with ThreadPoolExecutor(1) as disk:  # the thread ends before the file is closed, whatever happens
        waiting: deque[Future[None]] = deque()

        def put(rows: NDArray[np.intp], values: Any) -> None:
            waiting.append(disk.submit(_write, file, rows, *_fetch(values), where))
            if len(waiting) > _UNWRITTEN:
                waiting.popleft().result()

        yield put
        for write in waiting:
            write.result()


def _fetch(values: Any) -> tuple[Any, Any]:
    """Values on their way to the host, and the event after which they are there: nobody waits before they are written."""
    if isinstance(values, np.ndarray) or values.device.type == "cpu":
        return np.asarray(values), None
    torch = require("torch", "tune")
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(values.device))
    return host, ready


def _write(file: FeatureFile, rows: NDArray[np.intp], values: Any, ready: Any, where: Callable[[int], str]) -> None:
    if ready is not None:
        ready.synchronize()
    with np.errstate(over="ignore"):
        stored = np.asarray(values).astype(file.dtype, copy=False)
    if not np.isfinite(stored).all():
        row, layer = (int(place[0]) for place in np.nonzero(~np.isfinite(stored))[:2])
        raise InputError(
            f"layer {layer} {where(int(rows[row]))} holds values beyond {file.dtype} or beyond what the model computes in:"
            " use dtype float32 or bfloat16, and store float32"
        )
    file.write(rows, stored)
