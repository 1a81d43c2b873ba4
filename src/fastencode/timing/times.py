"""What every function of this room checks at its door: times, data that goes with them, and runs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy, check_real, dtype_of, export, float_dtype, library_of
from fastencode.devices import HOST, Device, device_of
from fastencode.errors import InputError
from fastencode.launch import float_name

__all__ = ["Rows", "check_finite", "check_seconds", "check_times", "float_array", "is_positive", "rows_of", "run_slices"]

Floats = NDArray[np.floating[Any]]


class Rows(NamedTuple):
    """Data as the time kernels take it, where it lies.

    Attributes
    ----------
    data_oc : (n, columns) float32 or float64
        Row by row in memory; one row for each time.
    shape : tuple of int
        Axes of the data after the first.
    device : Device
        ``devices.HOST`` for what lies in the host's memory.
    library : {"numpy", "torch", "cupy"}
        Of the data, and of the result.
    """

    data_oc: Any
    shape: tuple[int, ...]
    device: Device
    library: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the data and of the result."""
        return np.dtype(float_name(self.device, self.data_oc))

    def give(self, out: Any) -> Any:
        """A result as the caller's library has it."""
        return export(out, self.library) if self.device is HOST else out


def rows_of(data: Any, n: int, times: str) -> Rows:
    """Data with one row for each of ``n`` times: shared where it is contiguous and floating, never moved off a card.

    Raises
    ------
    InputError
        If the rows are not as many as the times (named ``times`` in the message), or the values are no real numbers.
    """
    device = device_of(data) or HOST
    if device is HOST:
        array: Any = float_array(data, "data")
    else:
        check_real(dtype_of(data, "data"), "data")
        with device.current():
            array = device.cast(data.detach() if device.library == "torch" else data, float_dtype(dtype_of(data, "data")))
    if len(array.shape) == 0 or array.shape[0] != n:
        raise InputError(f"data has shape {tuple(array.shape)} for {n} {times}: give one row for each time")
    shape = tuple(map(int, array.shape[1:]))
    with device.current():
        data_oc = device.contiguous(device.xp.reshape(array, (n, math.prod(shape))))
    if device is HOST:
        data_oc = np.ascontiguousarray(data_oc).view()
        data_oc.flags.writeable = False  # one compiled signature for writable arrays and read-only maps
    return Rows(data_oc, shape, device, library_of(data))


def is_positive(value: Any) -> bool:
    """Whether something is one number above 0, possibly infinite: text and arrays are not."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu" and bool(value > 0)


def check_seconds(**given: Any) -> None:
    """Raise an :class:`InputError` for what is not a positive, finite number of seconds: text and arrays, too."""
    for name, value in given.items():
        if not (is_positive(value) and np.isfinite(value)):
            raise InputError(f"{name}={value!r}: give a positive number of seconds")


def check_times(times: ArrayLike, name: str) -> NDArray[np.float64]:
    """Times in seconds as a contiguous float64 vector; the error names ``name`` and the first bad entry."""
    array = as_numpy(times, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}: give one time in seconds for each row, shape (n,)")
    checked = np.ascontiguousarray(array, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(checked))
    if bad.size:
        raise InputError(f"{name}[{bad[0]}] is {checked[bad[0]]}: every time must be finite")
    return checked


def float_array(data: ArrayLike, name: str) -> Floats:
    """``data`` as float32 or float64 without a copy where it is one of them already; integers and booleans become float64.

    Byte order becomes the machine's: a big-endian map is a float64 to NumPy but not to a compiled loop.
    """
    array = as_numpy(data, name)
    return array.astype(float_dtype(array.dtype), copy=False)


def check_finite(data: Any, name: str, device: Device = HOST) -> None:
    """Raise an :class:`InputError` that names the first row, and column, whose value is not finite."""
    xp = device.xp
    if math.prod(data.shape) == 0 or bool(xp.isfinite(xp.sum(data, dtype=device.dtype(np.float64)))):
        return
    bad = device.cast(xp.reshape(~xp.isfinite(data), (-1,)), np.int8)
    count = int(xp.sum(bad))
    if count:
        place = tuple(int(i) for i in np.unravel_index(int(xp.argmax(bad)), tuple(data.shape)))
        raise InputError(
            f"{name}{list(place)} is {float(data[place])} ({count} such values in all): repair or leave out those rows or columns"
        )


def run_slices(runs: ArrayLike | None, n: int) -> list[slice]:
    """The rows of each run, in order.

    Parameters
    ----------
    runs : array_like, shape (n,), or None
        One label for each row; the rows of one run stand together. None: all rows are one run.
    n : int
        Number of rows.

    Raises
    ------
    InputError
        If there is not one label for each row, a label is NaN, or one comes back after another.
    """
    if runs is None:
        return [slice(0, n)] if n else []
    labels = np.asarray(runs)
    if labels.shape != (n,):
        raise InputError(f"runs has shape {labels.shape} for {n} rows: give one label for each row")
    if n == 0:
        return []
    if labels.dtype.kind == "f" and np.isnan(labels).any():  # NaN differs from itself: every such row would be a run of its own
        raise InputError(f"runs holds NaN at row {int(np.flatnonzero(np.isnan(labels))[0])}: label every row")
    edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), n]
    starts = [labels[edge] for edge in edges[:-1]]
    seen: set[Any] = set()
    for label, edge in zip(starts, edges[:-1], strict=True):
        if label in seen:
            raise InputError(
                f"run {label!r} begins again at row {edge}: the rows of a run must stand together; sort them or relabel"
            )
        seen.add(label)
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
