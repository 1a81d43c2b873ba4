"""Lanczos resampling: from feature times (words, 50 Hz frames) to scan times, without a dense weight matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import export, library_of
from fastencode.errors import InputError
from fastencode.kernels.lanczos import lanczos_columns
from fastencode.timing.times import check_finite, check_times, float_array

__all__ = ["lanczos"]

Floats = NDArray[np.floating[Any]]

# Columns summed at once: the rows being written (six of them, in float64) then fit in a 48 kB first-level cache.
COLUMNS_PER_BLOCK = 1024
# Below this share of the weights' magnitude their sum is cancellation, and dividing by it would blow the row up.
CANCELLED = 1e-6


def lanczos(
    data: ArrayLike,
    old_times: ArrayLike,
    new_times: ArrayLike,
    *,
    lobes: float = 3,
    cutoff_mult: float = 1.0,
    normalize: bool = False,
    rectify: bool = False,
) -> Any:
    """Resample rows of data to new times with a Lanczos-windowed sinc.

    With the cutoff ``fc = cutoff_mult / mean(diff(new_times))`` and ``x = (new - old) * fc``, a row of the result is the sum of
    the data rows weighted by ``lobes * sin(pi x) * sin(pi x / lobes) / (pi x)**2`` (1 at x = 0, 0 beyond ±lobes).

    Parameters
    ----------
    data : array_like, shape (n_old, ...)
        One row for each old time; float32 or float64 (integers become float64). NumPy, or torch on the CPU. Never written to.
    old_times : array_like, shape (n_old,)
        Seconds. Irregular, repeated and unordered times are all fine: the result is a sum over rows, whatever their order.
    new_times : array_like, shape (n_new,)
        Seconds, ascending. Irregular times are fine; the cutoff follows from their *mean* step, so resample each run on its own.
    lobes : float
        Half-width of the window, in units of 1 / fc.
    cutoff_mult : float
        Multiplies the cutoff; below 1 smooths more.
    normalize : bool
        Divide each row by the sum of its weights, which makes it a weighted mean: constant data stays constant. The published
        form does not (the default): its values grow with the number of samples inside the window. Rows with no sample in their
        window, or whose weights cancel to less than 1e-6 of their magnitude, are 0.
    rectify : bool
        Resample the negative and the positive part of the data separately: [negative part, positive part] along the last axis.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n_new, ...)
        The data's floating dtype; sums are taken in float64. With ``rectify`` the last axis is twice as long ((n_new, 2) for 1-D
        data). Rows that no sample reaches are 0.

    Raises
    ------
    InputError
        If lengths disagree, a time or a value that is used is not finite, new times descend or are fewer than two (no step), or
        ``lobes`` or ``cutoff_mult`` is not positive.

    References
    ----------
    C. E. Duchon (1979), "Lanczos filtering in one and two dimensions", Journal of Applied Meteorology 18, 1016-1022.
    """
    array = float_array(data, "data")
    old_o, new_n = check_times(old_times, "old_times"), check_times(new_times, "new_times")
    if array.ndim == 0 or len(array) != len(old_o):
        raise InputError(f"data has shape {array.shape} for {len(old_o)} old_times: give one row for each time")
    for name, value in (("lobes", lobes), ("cutoff_mult", cutoff_mult)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name}={value}: give a positive number")
    last_axis = array.shape[-1] if array.ndim > 1 else 1
    shape = (len(new_n), *array.shape[1:-1], last_axis * 2) if rectify else (len(new_n), *array.shape[1:])
    if len(new_n) == 0:
        return export(np.zeros(shape, array.dtype), library_of(data))
    cutoff = cutoff_mult / _mean_step(new_n)
    data_oc = np.ascontiguousarray(array.reshape(len(array), int(np.prod(array.shape[1:]))))
    # [negative | positive] over all columns; the reshape below turns it into halves of the last axis.
    out_npc = _resample(data_oc, old_o, new_n, cutoff, float(lobes), normalize, rectify)
    if not np.isfinite(out_npc).all():
        check_finite(data_oc, "data")
    if not rectify:
        return export(out_npc.reshape(shape), library_of(data))
    parts = out_npc.reshape(len(new_n), 2, *array.shape[1:-1], last_axis)
    return export(np.ascontiguousarray(np.moveaxis(parts, 1, -2)).reshape(shape), library_of(data))


def _mean_step(new_n: NDArray[np.float64]) -> float:
    steps = np.diff(new_n)
    if len(steps) == 0:
        raise InputError("new_times has one entry: the cutoff follows from the step between new times, so give at least two")
    if (steps < 0).any():
        row = int(np.argmax(steps < 0))
        raise InputError(
            f"new_times descends from {new_n[row]} to {new_n[row + 1]} at index {row + 1}: sort it, and resample run by run"
        )
    step = float((new_n[-1] - new_n[0]) / len(steps))
    if step <= 0:
        raise InputError(f"new_times are all {new_n[0]}: the cutoff follows from the step between them, which is 0")
    return step


def _resample(
    data_oc: Floats,
    old_o: NDArray[np.float64],
    new_n: NDArray[np.float64],
    cutoff: float,
    lobes: float,
    normalize: bool,
    rectify: bool,
) -> Floats:
    """Blocks of columns through the kernel; with ``rectify`` the columns are [all negative parts, all positive parts]."""
    n_columns = data_oc.shape[1]
    parts = 2 if rectify else 1
    out_npc = np.empty((len(new_n), parts, n_columns), data_oc.dtype)
    data_oc = data_oc.view()
    data_oc.flags.writeable = False  # one compiled signature for writable arrays and read-only maps
    for start in range(0, n_columns, COLUMNS_PER_BLOCK):
        width = min(COLUMNS_PER_BLOCK, n_columns - start)
        sums_nc = np.zeros((len(new_n), parts * width))
        weight_n, gross_n = np.zeros(len(new_n)), np.zeros(len(new_n))
        lanczos_columns(data_oc, old_o, new_n, cutoff, lobes, start, rectify, sums_nc, weight_n, gross_n)
        if normalize:
            usable_n = np.abs(weight_n) > CANCELLED * gross_n
            sums_nc *= np.divide(1.0, weight_n, out=np.zeros(len(new_n)), where=usable_n)[:, None]
        out_npc[:, :, start : start + width] = sums_nc.reshape(len(new_n), parts, width)
    return out_npc
