"""Features of one recording on disk: times × layers × width, in an HDF5 file that a kill neither spoils nor sends back.

HDF5 keeps its own bookkeeping in memory and writes it late, so a file that is open when its process is killed may be lost. Here
the bookkeeping is done before the first row: the file is laid out whole, its data sets in one piece each, and closed. After that
rows are written to their places by the system's own call, each followed by its check sum, which also says that it is there. The
file is called ``<name>.partial`` until every row is.

    features  (t, l, d) float32 or float16      times  (t,) float64, s      checks  (t,) uint64, 0 for a row that is not there

Axis letters: t row, l layer, d width.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.files import check_file, put_in_place, writing
from fastencode.locks import Lock

__all__ = [
    "FeatureFile",
    "Features",
    "check_key",
    "is_finished",
    "map_features",
    "open_features",
    "partial_path",
    "read_features",
    "read_times",
]

_SUFFIX = ".partial"
_HEADERS = 1 << 14  # bytes that HDF5's own bookkeeping takes at most
_THERE = 1 << 32  # a check sum of 32 bits may be 0; with this it is not
_BLOCK = 1 << 24  # bytes of rows that are compared with their check sums at a time


@dataclass(frozen=True)
class Features:
    """What a finished file holds.

    Attributes
    ----------
    values : ndarray, shape (t, l, d), float32 or float16
        No layers, (t, 0, d), where only times were read.
    times : ndarray, shape (t,), float64
        When each row is, in s from the start of the recording.
    layers : tuple of int
        The number of each layer in ``values``.
    n_layers : int
        How many the file holds.
    key : dict
        What decided the values: hashes of recording and model, and the settings.
    """

    values: NDArray[Any]
    times: NDArray[np.float64]
    layers: tuple[int, ...]
    n_layers: int
    key: dict[str, Any]


def read_features(path: str | os.PathLike[str], layers: Sequence[int] | None = None) -> Features:
    """Read a finished file, or some of its layers.

    Parameters
    ----------
    path : path
    layers : sequence of int, optional
        Which layers, ascending; negative ones count from the last. All by default.

    Returns
    -------
    Features
        Only the layers asked for are read.

    Raises
    ------
    InputError
        If the file is missing, not finished, or not one of these, or has no such layer.
    """
    with open_features(Path(path)) as file:
        values = file["features"]
        count = values.shape[1]
        asked = np.arange(count) if layers is None else np.asarray(layers)
        if asked.ndim != 1 or asked.dtype.kind not in "iu" or not len(asked) or not ((-count <= asked) & (asked < count)).all():
            raise InputError(f"layers={layers!r}: {path} has layers 0 to {count - 1}; give a list of some of them")
        wanted = [int(layer) % count for layer in asked]
        if wanted != sorted(set(wanted)):
            raise InputError(f"layers={layers!r}: give layers of {path} ascending, each once")
        # One slice for each layer: h5py takes a list of them many times slower.
        parts = values[...] if layers is None else np.stack([values[:, layer] for layer in wanted], axis=1)
        return Features(parts, file["times"][...], tuple(wanted), count, json.loads(file.attrs["key"]))


def read_times(path: str | os.PathLike[str]) -> Features:
    """All of a finished file but its layers: when rows are, how many layers there are, and how they were made.

    Raises
    ------
    InputError
        If the file is missing, not finished, or not one of these.
    """
    with open_features(Path(path)) as file:
        values = file["features"]
        none = np.empty((len(values), 0, values.shape[2]), values.dtype)
        return Features(none, file["times"][...], (), values.shape[1], json.loads(file.attrs["key"]))


def map_features(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The rows of a finished file, (t, l, d), mapped into memory read-only: read from the disk where they are looked at.

    No file stays open, and any thread may read.

    Raises
    ------
    InputError
        If the file is missing, not finished, or not one of these.
    """
    with open_features(Path(path)) as file:
        values = file["features"]
        place, shape, dtype = values.id.get_offset(), values.shape, values.dtype
    if place is None:
        raise InputError(f"{path} does not lie on disk in one piece: it was not made by fastencode, make it again")
    return np.memmap(path, dtype, "r", offset=place, shape=shape) if np.prod(shape) else np.empty(shape, dtype)


@contextmanager
def open_features(path: Path) -> Iterator[h5py.File]:
    """A finished file, read as HDF5: a context. What is wrong with it is an :class:`InputError` that says so in one way."""
    if not path.exists() and partial_path(path).exists():
        raise InputError(f"{path} is not finished: give the command that began it once more")
    try:
        with h5py.File(check_file(path)) as file:
            if file["features"].ndim != 3 or file["times"].shape != file["features"].shape[:1]:
                shapes = f"features of shape {file['features'].shape} at times of shape {file['times'].shape}"
                raise InputError(f"{path} holds {shapes}, not (t, layers, width) at (t,): make it again")
            yield file
    except InputError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} does not hold features ({error}): make it again") from error


def is_finished(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a finished file with these features is there.

    Raises
    ------
    InputError
        If there is a file of something else: other features are never written over.
    """
    if not path.exists():
        return False
    with open_features(path) as file:
        check_key(path, file, key)
    return True


class FeatureFile:
    """A file of features being made, or made on after an interruption: a context that gives the file its name once it is whole.

    Parameters
    ----------
    path : path
        Where the finished file will lie, in an existing folder.
    times : ndarray, shape (t,)
    shape : (l, d)
    dtype : dtype
        float32 or float16.
    key : mapping
        JSON values. What was begun with another key is not gone on with.
    axes : str
        What the axes are, for those who read the file without this package.
    beside : mapping of str to ndarray, optional
        Further data sets of the file, which must follow from the key.

    Attributes
    ----------
    dtype : dtype
    there : ndarray of bool, shape (t,)
        Which rows are there already.

    Raises
    ------
    InputError
        If the folder is missing, the disk full, another process is writing the file, or it was begun with another key.
    """

    def __init__(
        self,
        path: Path,
        times: NDArray[np.float64],
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        key: Mapping[str, Any],
        axes: str = "time, layer, width",
        beside: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._path, self.dtype, self._shape = path, np.dtype(dtype), shape
        partial = partial_path(path)
        if not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: {path.parent} is not a folder; make it first")
        self._lock = Lock(path.with_name(f".{path.name}.lock"), f"{partial}")
        try:
            if not partial.exists():
                _begin(partial, times, shape, self.dtype, key, axes, beside or {})
            self._file = os.open(check_file(partial), os.O_RDWR)
        except BaseException:
            self._lock.release()
            raise
        try:
            with h5py.File(partial, locking=False) as file:
                check_key(partial, file, key)
                self._rows, self._checks = (int(file[name].id.get_offset()) for name in ("features", "checks"))
                self.there = _there(file)
        except BaseException as error:
            os.close(self._file)
            self._lock.release()
            if isinstance(error, OSError | KeyError):
                raise InputError(f"{partial} is damaged ({error}): delete it, and its features will be made again") from error
            raise

    def write(self, rows: NDArray[np.intp], values_tld: NDArray[Any]) -> None:
        """Put rows in their places, then their check sums. Once this returns, a kill loses none of them."""
        values = np.ascontiguousarray(values_tld, self.dtype)
        if values.shape != (len(rows), *self._shape):
            raise ValueError(f"{len(rows)} rows of {self._shape} were expected, not {values.shape}")
        checks = np.array([_check(row) for row in values], np.uint64)
        size = self.dtype.itemsize * self._shape[0] * self._shape[1]
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1), len(rows)]  # rows that follow each other are written in one call
        parts = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        try:
            for part in parts if len(rows) else ():
                _put(self._file, values[part].tobytes(), self._rows + int(rows[part.start]) * size)
            for part in parts if len(rows) else ():
                _put(self._file, checks[part].tobytes(), self._checks + int(rows[part.start]) * 8)
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written ({error.strerror}): make room, and the same command goes on from here"
            ) from error
        self.there[rows] = True

    @property
    def missing(self) -> NDArray[np.intp]:
        """The rows that are not there yet."""
        return np.flatnonzero(~self.there)

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self.there.all():
                put_in_place(partial_path(self._path), self._path)
        finally:
            os.close(self._file)
            self._lock.release()


def partial_path(path: Path) -> Path:
    """Where a file lies while rows of it are missing."""
    return path.with_name(path.name + _SUFFIX)


def _begin(
    path: Path,
    times: NDArray[np.float64],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    key: Mapping[str, Any],
    axes: str,
    beside: Mapping[str, NDArray[Any]],
) -> None:
    """Lay a file out under another name first: what has the name of a partial file is whole, as far as it goes."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            _lay_out(fresh, times, shape, dtype, key, axes, beside)
            os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _lay_out(
    path: Path,
    times: NDArray[np.float64],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    key: Mapping[str, Any],
    axes: str,
    beside: Mapping[str, NDArray[Any]],
) -> None:
    if hasattr(os, "posix_fallocate"):  # HDF5 may end the process where the disk is full: ask for the room before it does
        size = _HEADERS + len(times) * (16 + math.prod(shape) * dtype.itemsize) + sum(each.nbytes for each in beside.values())
        with path.open("wb") as room:
            os.posix_fallocate(room.fileno(), 0, size)
    with h5py.File(path, "w") as file:
        file.attrs["key"] = json.dumps(key, sort_keys=True)
        file["times"] = np.asarray(times, np.float64)
        file["checks"] = np.zeros(len(times), np.uint64)
        for name, values in beside.items():
            file[name] = values
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        settings.set_obj_track_times(False)  # the same features are the same bytes
        space = h5py.h5s.create_simple((len(times), *shape))
        h5py.h5d.create(file.id, b"features", h5py.h5t.py_create(dtype), space, settings)
        file["features"].attrs["axes"] = axes


def _there(file: h5py.File) -> NDArray[np.bool_]:
    """Rows that fit their check sums: a loss of power may have kept one without the other."""
    checks, values = file["checks"][:], file["features"]
    there, step = checks != 0, max(1, _BLOCK // max(1, values.dtype.itemsize * math.prod(values.shape[1:])))
    for start in range(0, len(checks), step):
        if there[start : start + step].any():
            found = [_check(row) for row in values[start : start + step]]
            there[start : start + step] &= checks[start : start + step] == np.array(found, np.uint64)
    return np.asarray(there)


def _check(row_ld: NDArray[Any]) -> int:
    return _THERE | zlib.crc32(np.ascontiguousarray(row_ld).tobytes())


def _put(file: int, data: bytes, place: int) -> None:
    """All of ``os.pwrite``: a full disk is an error here, where a memory map would end the process."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, place)
        view, place = view[done:], place + done


def check_key(path: Path, file: h5py.File, wanted: Mapping[str, Any]) -> None:
    """An :class:`InputError` if a file was made with another key."""
    found, plain = json.loads(file.attrs["key"]), json.loads(json.dumps(wanted))
    for name in sorted({*found, *plain}):
        if found.get(name) != plain.get(name):
            raise InputError(
                f"{path} was made with {name}={found.get(name)!r}, now it is {plain.get(name)!r}: "
                "choose another folder, or delete the file"
            )
