"""Features of a whole corpus in one HDF5 file: one row for each recording, or one for each time bin.

With one file per recording, a corpus of 105 000 words would be 105 000 files with one row each. Instead, they are rows of one
file in the format of :mod:`fastencode.speech.store`, which survives a kill and can be resumed. It has these data sets::

    features  (t, l, d)  rows, recording after recording       times  (t,)  s from the start of the row's recording
    names     (k,)       UTF-8, ascending                      counts (k,)  rows of each recording
    seconds   (k,)       of sound                              audio  (k,)  SHA-256 of each file

All sounds are decoded once before the model runs, so that unreadable files and the number of rows are known at the start. A batch
contains recordings of equal length only, because padding would change the output of models with group normalisation.

Axis letters: k recording, t row, l layer, d width.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packing import frames_source, mfcc_source, model_source, pack, price
from fastencode.speech.reading import Estimate, Skip
from fastencode.speech.store import map_features, open_features

__all__ = [
    "CORPUS_FILE",
    "Packed",
    "estimate_packed",
    "extract_packed",
    "extract_packed_frames",
    "extract_packed_mfcc",
    "frame_bytes",
    "open_packed",
]

CORPUS_FILE = "corpus.h5"
"""Name of this file in the folder of a model."""


class Packed:
    """A finished file of features of a corpus, memory-mapped. It is a context manager and can be read from any thread.

    Attributes
    ----------
    names : tuple of str
        Keys of the recordings in ascending order, without unreadable ones.
    counts : ndarray of int, shape (k,)
        Number of rows of each recording.
    seconds : ndarray, shape (k,), float64
        Duration of each sound.
    audio : tuple of str
        SHA-256 of each sound file.
    times : ndarray, shape (t,), float64
        Time of each row in s from the start of its recording: for a bin, the mean of the middles of its frames; for a mean over
        all frames, the end of the recording.
    n_layers, width : int
    key : dict
        What the values depend on: hashes of all sounds and of the model, and settings.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        path = Path(file)
        with open_features(path) as found:
            if "names" not in found:
                raise InputError(f"{path} holds features of one recording, not of a corpus: read it with read_features")
            self.names = tuple(name.decode("utf-8", "surrogateescape") for name in found["names"][:])
            self.audio = tuple(digest.decode() for digest in found["audio"][:])
            self.counts: NDArray[np.intp] = found["counts"][:]
            self.seconds: NDArray[np.float64] = found["seconds"][:]
            self.times: NDArray[np.float64] = found["times"][:]
            self.key: dict[str, Any] = json.loads(found.attrs["key"])
        self._path = path
        self._values = map_features(path)
        self.n_layers, self.width = self._values.shape[1:]
        self._ends = np.cumsum(self.counts)
        self._places = {name: place for place, name in enumerate(self.names)}

    def rows(self, layer: int) -> NDArray[np.float32]:
        """One layer of all recordings, (t, d) float32, read from disk. Negative numbers count from the last layer."""
        if not -self.n_layers <= layer < self.n_layers:
            raise InputError(f"layer={layer}: {self._path} has layers 0 to {self.n_layers - 1}")
        return np.array(self._values[:, layer], np.float32)

    def rows_of(self, name: str) -> slice:
        """The rows of one recording, as in ``packed.rows(3)[packed.rows_of("yes/01")]``."""
        place = self._places.get(name)
        if place is None:
            raise InputError(f"{self._path} has no recording {name!r}, but {len(self.names)} others such as {self.names[0]!r}")
        return slice(int(self._ends[place] - self.counts[place]), int(self._ends[place]))

    def __enter__(self) -> Packed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._values


def open_packed(file: str | os.PathLike[str]) -> Packed:
    """Open a finished file of features of a corpus.

    Raises
    ------
    InputError
        If the file is missing, unfinished, or has another format.
    """
    return Packed(file)


def extract_packed(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    file: Path,
    config: ReadConfig,
    *,
    frames: Path | None = None,
    batch: int | None = None,
    stored: str = "float32",
    skip: Skip | None = None,
    show_progress: bool = True,
) -> Path:
    """Read every layer of every recording of a corpus into one file.

    A finished file is kept. An unfinished one is resumed: only batches that were interrupted are repeated, and the result is
    bit-identical. Sounds are decoded and rows written while the model computes.

    Parameters
    ----------
    sounds : name → path of an audio file
        Names as stored in the file, such as the keys of a corpus.
    encoder : SpeechEncoder
    file : Path
        Its folder is created if needed.
    config : ReadConfig
        With ``input="utterance"``.
    frames : Path, optional
        What :func:`extract_packed_frames` made of these sounds with the same CNN: it is not run again, and no sound is decoded.
        Every bit comes out as without it.
    batch : int, optional
        Number of recordings of equal length per batch. Default: 16 s of sound on a CPU, 256 s on a GPU. Another number may change
        the last bits.
    stored : {"float32", "float16"}
        Data type on disk.
    skip : callable, optional
        Called with name and :class:`InputError` of each unreadable recording, before the first batch; the file has all others.
        Default: the first such error is raised.
    show_progress : bool
        Show progress bars on standard error.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If there are no readable recordings; the file has features of other sounds, another model or other settings; ``frames``
        are of other sounds or of another CNN; the disk is too small; or a setting is out of range.

    Warns
    -----
    FastencodeWarning
        Once, if recordings are silent or clipped.

    See Also
    --------
    open_packed : reads the file.
    """
    return pack(sounds, model_source(encoder, config, batch, stored, frames), Path(file), skip, show_progress)


def extract_packed_frames(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    file: Path,
    *,
    batch: int | None = None,
    skip: Skip | None = None,
    show_progress: bool = True,
) -> Path:
    """Run the CNN over every recording of a corpus, into one file: once for all models that were tuned above it.

    A row is a frame, (1, channels) float32; their times are the middles of the frames. Of a base-sized model a second of sound
    takes 100 kB. A file is kept, gone on with and refused as that of :func:`extract_packed` is.

    Parameters
    ----------
    sounds, encoder, file, batch, skip, show_progress
        As there.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        As there, and for Whisper, whose frames cover 30 s of every recording.
    """
    return pack(sounds, frames_source(encoder, batch), Path(file), skip, show_progress)


def frame_bytes(encoder: SpeechEncoder) -> float:
    """Bytes of the CNN's frames of a second of sound, as :func:`extract_packed_frames` keeps them; infinity for Whisper."""
    if encoder.longest is not None:
        return math.inf
    first, second = encoder.frame_times(encoder.sample_rate)[:2]
    return float(4 * encoder.channels / (second - first))


def extract_packed_mfcc(
    sounds: Mapping[str, Path],
    file: Path,
    config: ReadConfig | None = None,
    *,
    stored: str = "float32",
    skip: Skip | None = None,
    show_progress: bool = True,
) -> Path:
    """Compute MFCCs of every recording of a corpus, in the file format of :func:`extract_packed`, as a reference for models.

    Cepstra 1 to 12 and 0 of HTK's definition at 16 kHz, every 10 ms of 25 ms, with their Δ and ΔΔ: 39 values. A row holds their
    means over the sound and then their standard deviations, (1 layer, 78); with ``pool="bins"`` the means of each bin, (1, 39).

    Parameters
    ----------
    sounds, file, stored, skip, show_progress
        As there.
    config : ReadConfig, optional
        With ``input="utterance"``; by default over the whole sound.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        As there.

    See Also
    --------
    fastencode.speech.acoustics.mfcc
    """
    config = ReadConfig("utterance") if config is None else config
    return pack(sounds, mfcc_source(config, None, stored), Path(file), skip, show_progress)


def estimate_packed(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder | None,
    file: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    stored: str = "float32",
    skip: Skip | None = None,
) -> Estimate:
    """What :func:`extract_packed` would cost, or, without an encoder, :func:`extract_packed_mfcc`.

    Every sound is decoded, as it would be before the first batch; two batches of noise of middle length and size are read. A file
    that was begun counts as not begun.

    Returns
    -------
    Estimate
        ``windows`` has 1 for each recording that would be read, and nothing where the file is finished.

    Raises
    ------
    InputError
        As there, but for the folder, which need not be there and is not made.
    """
    source = mfcc_source(config, batch, stored) if encoder is None else model_source(encoder, config, batch, stored)
    return price(sounds, source, Path(file), skip)
