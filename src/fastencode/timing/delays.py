"""Delayed copies of features: the finite impulse response of a linear encoding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_flag
from fastencode.arrays import export, library_of
from fastencode.delayed import Copies, Delayed
from fastencode.errors import InputError
from fastencode.timing.times import float_array, run_slices

__all__ = ["delay"]


def delay(X: ArrayLike, delays: Sequence[int] = (1, 2, 3, 4), runs: ArrayLike | None = None, copy: bool = True) -> Any:
    """Stack delayed copies of the features, never across the edge of a run.

    Row t of the copy at delay d is row t - d of ``X`` where that row belongs to the same run, else 0. Features should therefore
    be centered (z-scored per run) before, so that the padding is their mean.

    Parameters
    ----------
    X : array_like, shape (n, p) or (n,)
        Features in scan steps; NumPy, or torch on the CPU. Never written to; NaN is passed on.
    delays : sequence of int
        In rows. Negative delays lead: -1 takes the next row.
    runs : array_like, shape (n,), optional
        One label for each row; the rows of one run stand together. None: one run.
    copy : bool
        False makes no copies but a :class:`~fastencode.delayed.Delayed`, which stands for them and shares memory with ``X``: for
        :func:`fastencode.ridge_cv`, :func:`fastencode.plan_ridge`, :func:`fastencode.banded_ridge_cv` (as all of X, or as a band
        beside others and arrays), :func:`fastencode.partition_variance`, and ``predict`` and ``score`` of their fits. The results
        are those of the copies to rounding, but copies are made by blocks of rows or columns, never whole. With more columns than
        rows (in the dual) their kernel is summed from that of ``X``; a device that makes predictions gets ``X`` once. Whatever
        else takes an array makes them all. NumPy on the CPU only.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n, len(delays) * p)
        Columns are [X at delays[0] | X at delays[1] | ...]. float32 for float32, else float64. Without ``copy`` a ``Delayed`` of
        that shape and dtype; ``numpy.asarray`` makes the array.

    Raises
    ------
    InputError
        If ``X`` is not 1-D or 2-D, delays are empty, repeated or not integers, a run is shorter than a delay, ``runs`` does
        not fit, or ``X`` is a tensor and not to be copied.
    """
    array = float_array(X, "X")
    if array.ndim not in (1, 2):
        raise InputError(f"X has shape {array.shape}: give features as (time, features)")
    X_tp = array[:, None] if array.ndim == 1 else array
    steps = _check_delays(delays)
    blocks = run_slices(runs, len(X_tp))
    longest = max(steps, key=abs)
    for rows in blocks:
        length = rows.stop - rows.start
        if length < abs(longest):
            raise InputError(
                f"the run of rows {rows.start} to {rows.stop - 1} has {length} rows, fewer than the delay {longest}: "
                "leave the run out, join it to another, or use shorter delays"
            )
    if check_flag("copy", copy):
        return export(_copies(X_tp, steps, blocks), library_of(X))
    if library_of(X) != "numpy":
        raise InputError(f"copy=False with a {library_of(X)} tensor: only NumPy arrays stand for their copies; pass X.numpy()")
    numbered = np.arange(1, len(X_tp) + 1)[:, None]  # rows from 1, so that padding becomes -1
    return Delayed((Copies(X_tp, _copies(numbered, steps, blocks).T - 1),))


def _copies(X_tp: NDArray[Any], steps: list[int], blocks: list[slice]) -> NDArray[Any]:
    n, p = X_tp.shape
    out = np.zeros((n, len(steps) * p), X_tp.dtype)
    for place, step in enumerate(steps):
        copy = out[:, place * p : (place + 1) * p]
        for rows in blocks:
            kept = rows.stop - rows.start - abs(step)
            to, source = rows.start + max(step, 0), rows.start + max(-step, 0)
            copy[to : to + kept] = X_tp[source : source + kept]
    return out


def _check_delays(delays: Sequence[int]) -> list[int]:
    values = np.asarray(delays)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        raise InputError(f"delays={delays!r}: give at least one whole number of rows, for example (1, 2, 3, 4)")
    if len(np.unique(values)) < len(values):
        raise InputError(f"delays={delays!r}: a delay is repeated, which would repeat its columns; give each once")
    return [int(value) for value in values]
