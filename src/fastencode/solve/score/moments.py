"""Scores of predictions, per voxel, all of them from the same five moments.

Legend: t = time, v = voxels, m = the five moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from fastencode import kernels
from fastencode.arrays import as_numpy, dtype_of, export, float_dtype, library_of
from fastencode.devices import HOST, Device, device_of
from fastencode.errors import DeviceError, InputError, warn
from fastencode.solve.score.device_moments import device_moments

__all__ = [
    "SCORINGS",
    "check_scoring",
    "column_moments",
    "column_scores",
    "moments_kernel",
    "neg_mean_squared_error",
    "pearson",
    "r2",
    "score_moments",
    "score_slopes",
]

SCORINGS = ("r2", "pearson", "neg_mean_squared_error")

_told = False
_lock = Lock()


def moments_kernel() -> Any:
    """The CPU kernel of ``moments``; the first call warns if it is only the fallback."""
    global _told
    kernel = kernels.cpu("moments")
    with _lock:
        first, _told = not _told, True
    if first and (reason := kernels.lost("moments")):
        warn(reason)
    return kernel


def check_scoring(scoring: Any) -> str:
    """The name of a score, or ``InputError``."""
    if scoring not in SCORINGS:
        raise InputError(f"scoring={scoring!r}; pass one of {', '.join(map(repr, SCORINGS))}")
    return str(scoring)


def score_moments(device: Device, scoring: str, parts: Sequence[Any], mass: float, scale: Any = 1.0, floor: Any = 0.0) -> Any:
    """Score voxels from their moments (see ``kernels/moments.pyx``), on the device where the moments lie.

    Parameters
    ----------
    device : Device
        ``HOST`` for NumPy arrays.
    scoring : {"r2", "pearson", "neg_mean_squared_error"}
        Which score.
    parts : five of (v,) or (a, v) float64
        Mean of targets, mean of predictions, centered sums yy, yp, pp. They broadcast.
    mass : float
        Rows that went into them, or the sum of their weights.
    scale : (a, 1) or float
        What the predictions were multiplied by on the way.
    floor : (v,) or float
        Predictions whose centered sum of squares is at most this are constant for Pearson: what is left of responses that are
        constant in the training rows is their rounding, which would correlate with anything.

    Returns
    -------
    float64, of the shape the parts broadcast to
        0 where a score of finite moments is not defined (R² of a constant target; Pearson of a constant target or prediction).
        NaN where a moment is NaN, in every scoring.
    """
    xp = device.xp
    mean_y, mean_p, yy, yp, pp = parts
    if scoring == "pearson":
        spread = xp.sqrt(yy) * xp.sqrt(pp)
        constant = (spread <= 0) | (pp <= floor)  # False where a moment is NaN: the ratio is NaN then
        ratio = yp / xp.where(constant, xp.ones_like(spread), spread)
        return xp.clip(xp.where(constant, xp.zeros_like(ratio), ratio), -1.0, 1.0)
    error = yy + pp / scale / scale - 2 * yp / scale + mass * (mean_y - mean_p / scale) ** 2
    error = xp.clip(error, 0.0, None)
    if scoring == "r2":
        constant = (yy <= 0) & (error >= 0)  # False where the error is NaN
        ratio = error / xp.where(constant, xp.ones_like(error), yy)
        return 1.0 - xp.where(constant, xp.ones_like(ratio), ratio)
    return -error / mass


def column_moments(device: Device, y_tv: Any, p_tv: Any) -> list[Any]:
    """The five moments (v,) of whole columns of one float dtype.

    A column that varies by no more than its own rounding counts as constant: its centered sum of squares is 0.
    """
    xp, n = device.xp, y_tv.shape[0]
    rounding = float(np.finfo(np.float32 if y_tv.dtype == device.dtype(np.float32) else np.float64).eps)
    if device == HOST:
        m_mv = moments_kernel()(np.ascontiguousarray(y_tv), np.ascontiguousarray(p_tv)[None])
    else:
        m_mv = device_moments(device, device.contiguous(y_tv), device.contiguous(p_tv)[None, ...])
    parts = [m_mv[i, ...] for i in range(5)]
    for mean, square in ((0, 2), (1, 4)):
        constant = parts[square] <= n * (rounding * parts[mean]) ** 2
        parts[square] = xp.where(constant, xp.zeros_like(parts[square]), parts[square])
    return parts


def column_scores(device: Device, scoring: str, y_tv: Any, p_tv: Any) -> Any:
    """Scores (v,) float64 of whole columns of one float dtype, arrays of the device."""
    return score_moments(device, scoring, column_moments(device, y_tv, p_tv), float(y_tv.shape[0]))


def score_slopes(device: Device, scoring: str, y_tv: Any, p_tv: Any, weights_t: Any) -> tuple[Any, Any]:
    """Scores of float64 predictions with weights of rows, (v,), and their derivative with respect to every prediction, (t, v):
    zero where a score is not defined. Arrays of the device."""
    xp, mass = device.xp, float(device.xp.sum(weights_t))
    mean_y, mean_p = (weights_t @ a / mass for a in (y_tv, p_tv))
    y, p, w = y_tv - mean_y, p_tv - mean_p, weights_t[:, None]
    weighed = w * y
    yy, yp, pp = device.dots(weighed, y), device.dots(weighed, p), device.dots(w * p, p)
    floor = mass * float(np.finfo(np.float64).eps) ** 2 * (yy / mass + mean_y**2)
    scores = score_moments(device, scoring, (mean_y, mean_p, yy, yp, pp), mass, 1.0, floor)
    one = xp.ones_like(yy)
    if scoring == "pearson":
        defined = (yy > 0) & (pp > floor)
        spread = xp.where(defined, xp.sqrt(yy) * xp.sqrt(pp), one)
        slopes = w * (y / spread - p * (scores / xp.where(defined, pp, one)))
        return scores, xp.where(defined[None, :], slopes, xp.zeros_like(slopes))
    if scoring == "neg_mean_squared_error":
        return scores, w * (y_tv - p_tv) * (2.0 / mass)
    varies = yy > 0
    return scores, w * (y_tv - p_tv) * xp.where(varies, 2.0 / xp.where(varies, yy, one), xp.zeros_like(yy))


def _score(scoring: str, Y: Any, P: Any) -> Any:
    there, other = device_of(Y), device_of(P)
    if there != other:
        where = [f"on {d.name} ({d.library})" if d else "in the host's memory" for d in (there, other)]
        raise DeviceError(f"Y lies {where[0]} and P {where[1]}; move one to the other")
    device, library = there or HOST, "torch" if "torch" in (library_of(Y), library_of(P)) else "numpy"
    if there is None:
        Y, P = as_numpy(Y, "Y"), as_numpy(P, "P")
    _check_shapes(Y.shape, P.shape)
    xp, one, dtype = device.xp, len(Y.shape) == 1, float_dtype(dtype_of(Y, "Y"), dtype_of(P, "P"))
    with device.current(), np.errstate(all="ignore"):
        columns = []
        for name, array in (("Y", Y), ("P", P)):
            values = device.cast(array.detach() if device.library == "torch" else array, dtype)
            bad = int(xp.sum(~xp.isfinite(values)))
            if bad:
                raise InputError(f"{name} holds {bad} values that are NaN or infinite; mask those voxels or rows first")
            columns.append(values[:, None] if one else values)
        scores = device.cast(column_scores(device, scoring, *columns), dtype)
        lost = ~device.get(xp.isfinite(scores))
        if lost.any():
            raise InputError(
                f"Y or P holds values too large to score in {dtype}, the first in voxel {int(lost.argmax())}; rescale both"
            )
        scores = scores[0] if one else scores
    return scores if there is not None else export(scores, library)


def _check_shapes(y: Any, p: Any) -> None:
    y, p = tuple(y), tuple(p)
    if y != p:
        raise InputError(f"Y has shape {y} and P {p}; pass predictions of the same shape as the targets")
    if len(y) not in (1, 2) or y[0] == 0:
        raise InputError(f"Y and P have shape {y}; pass (time,) or (time, voxels) with at least one row")


def r2(Y: Any, P: Any) -> Any:
    """Coefficient of determination of each voxel, 1 − Σ(y − p)² / Σ(y − ȳ)².

    Parameters
    ----------
    Y, P : (t, v) or (t,) array
        Targets and predictions, NumPy, torch or CuPy: both in the host's memory or both on one device.

    Returns
    -------
    (v,) array, or a scalar for 1-D input
        0 where the target is constant; never NaN. Float32 if both inputs are.

    Raises
    ------
    InputError
        If the shapes differ, there is no row, or a value is NaN, infinite, or so large that the score overflows.
    DeviceError
        If they lie in different places.
    """
    return _score("r2", Y, P)


def pearson(Y: Any, P: Any) -> Any:
    """Pearson correlation of each voxel's target with its prediction.

    Parameters
    ----------
    Y, P : (t, v) or (t,) array
        Targets and predictions, NumPy, torch or CuPy: both in the host's memory or both on one device.

    Returns
    -------
    (v,) array, or a scalar for 1-D input
        0 where the target or the prediction is constant; never NaN. Float32 if both inputs are.

    Raises
    ------
    InputError
        If the shapes differ, there is no row, or a value is NaN, infinite, or so large that the score overflows.
    DeviceError
        If they lie in different places.
    """
    return _score("pearson", Y, P)


def neg_mean_squared_error(Y: Any, P: Any) -> Any:
    """Minus the mean squared error of each voxel, so that larger is better; arguments and errors as in :func:`r2`."""
    return _score("neg_mean_squared_error", Y, P)
