"""What every function of this room checks at its door: times, data that goes with them, and runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy, float_dtype
from fastencode.errors import InputError

__all__ = ["check_finite", "check_times", "float_array", "run_slices"]

Floats = NDArray[np.floating[Any]]


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


def check_finite(data: Floats, name: str) -> None:
    """Raise an :class:`InputError` that names the first row, and column, whose value is not finite."""
    if data.size == 0 or np.isfinite(data.sum(dtype=np.float64)):
        return
    bad = np.argwhere(~np.isfinite(data))
    if bad.size:
        place = tuple(int(i) for i in bad[0])
        raise InputError(
            f"{name}{list(place)} is {data[place]} ({len(bad)} such values in all): repair or leave out those rows or columns"
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
