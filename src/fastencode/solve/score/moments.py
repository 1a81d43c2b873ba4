"""Scores of predictions, per voxel, all of them from the same five sums, which kernels make (there called moments).

Legend: t = time, v = voxels, m = the five sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastencode import kernels
from fastencode.arguments import check_flag
from fastencode.arrays import ResultArray, as_numpy, dtype_of, export, float_dtype, library_of
from fastencode.devices import HOST, Array, ArrayT, Device, device_of
from fastencode.errors import DeviceError, InputError, warn
from fastencode.solve.score.device_moments import device_moments

__all__ = [
    "SCORINGS",
    "check_scoring",
    "column_moments",
    "column_scores",
    "flat_below",
    "moments_kernel",
    "neg_mean_squared_error",
    "pearson",
    "r2",
    "score_moments",
    "score_slopes",
    "split_scores",
]

SCORINGS = ("r2", "pearson", "neg_mean_squared_error")

_told = False
_lock = Lock()


def moments_kernel() -> Callable[..., Any]:
    """The CPU kernel of ``moments``; the first call warns if it is only the fallback."""
    global _told
    kernel = kernels.cpu("moments")
    with _lock:
        first, _told = not _told, True
    if first and (reason := kernels.lost("moments")):
        warn(reason)
    return kernel


def check_scoring(scoring: str) -> str:
    """The name of a score, or ``InputError``."""
    if scoring not in SCORINGS:
        raise InputError(f"scoring={scoring!r}; pass one of {', '.join(map(repr, SCORINGS))}")
    return str(scoring)


def score_moments(
    device: Device,
    scoring: str,
    parts: Sequence[ArrayT],
    mass: float,
    scale: ArrayT | float = 1.0,
    floor: ArrayT | float = 0.0,
    flat: ArrayT | float = 0.0,
) -> ArrayT:
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
    flat : (v,) or float
        Targets whose centered sum of squares is at most this are constant: see :func:`flat_below`.

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
        constant = ((yy <= flat) & (pp >= 0)) | (spread <= 0) | (pp <= floor)  # False where one is NaN, as the ratio is
        ratio = yp / xp.where(constant, xp.ones_like(spread), spread)
        return xp.clip(xp.where(constant, xp.zeros_like(ratio), ratio), -1.0, 1.0)
    error = yy + pp / scale / scale - 2 * yp / scale + mass * (mean_y - mean_p / scale) ** 2
    error = xp.clip(error, 0.0, None)
    if scoring == "r2":
        constant = (yy <= flat) & (error >= 0)  # False where the error is NaN
        ratio = error / xp.where(constant, xp.ones_like(error), yy)
        return 1.0 - xp.where(constant, xp.ones_like(ratio), ratio)
    if scoring == "neg_mean_squared_error":
        return -error / mass
    raise NotImplementedError(f"no formula for the score {scoring!r}")


def flat_below(mean_y: ArrayT, training: ArrayT | float, mass: float, dtype: np.dtype[Any]) -> ArrayT:
    """The rounding, as a centered sum of squares, of targets whose sample weights were multiplied in and divided out again.

    A constant c is off by eps |c| in each row then, and by eps of what is left once the training mean is subtracted. Both are
    known from the test rows: (8 eps)² · mass · (mean² + (mean + training mean)²).

    Parameters
    ----------
    mean_y : (v,) float64
        Mean of the targets about the mean of the training responses.
    training : (v,) or 0.0
        That mean, about the mean of all rows.
    mass : float
        Sum of the weights of the test rows.
    dtype : dtype
        Of the responses.
    """
    return (mean_y**2 + (mean_y + training) ** 2) * (mass * (8.0 * float(np.finfo(dtype).eps)) ** 2)


def column_moments(device: Device, y_tv: ArrayT, p_tv: ArrayT) -> list[ArrayT]:
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


def column_scores(device: Device, scoring: str, y_tv: ArrayT, p_tv: ArrayT) -> ArrayT:
    """Scores (v,) float64 of whole columns of one float dtype, arrays of the device."""
    return score_moments(device, scoring, column_moments(device, y_tv, p_tv), float(y_tv.shape[0]))


def score_slopes(device: Device, scoring: str, y_tv: Array, p_tv: Array, weights_t: Array) -> tuple[Array, Array]:
    """Scores of float64 predictions with weights of rows, (v,), and their derivative with respect to every prediction, (t, v):
    zero where a score is not defined. Arrays of the device."""
    xp, mass = device.xp, float(device.xp.sum(weights_t))
    mean_y, mean_p = (weights_t @ a / mass for a in (y_tv, p_tv))
    y, p, w = y_tv - mean_y, p_tv - mean_p, weights_t[:, None]
    weighed = w * y
    yy, yp, pp = device.dots(weighed, y), device.dots(weighed, p), device.dots(w * p, p)
    floor = mass * float(np.finfo(np.float64).eps) ** 2 * (yy / mass + mean_y**2)
    flat = mass * (8.0 * float(np.finfo(np.float64).eps)) ** 2 * mean_y**2  # the mean of a constant is off by rounding
    scores = score_moments(device, scoring, (mean_y, mean_p, yy, yp, pp), mass, 1.0, floor, flat)
    one = xp.ones_like(yy)
    if scoring == "pearson":
        defined = (yy > flat) & (pp > floor)
        spread = xp.where(defined, xp.sqrt(yy) * xp.sqrt(pp), one)
        slopes = w * (y / spread - p * (scores / xp.where(defined, pp, one)))
        return scores, xp.where(defined[None, :], slopes, xp.zeros_like(slopes))
    if scoring == "neg_mean_squared_error":
        return scores, w * (y_tv - p_tv) * (2.0 / mass)
    if scoring != "r2":
        raise NotImplementedError(f"no slopes for the score {scoring!r}")
    varies = yy > flat
    return scores, w * (y_tv - p_tv) * xp.where(varies, 2.0 / xp.where(varies, yy, one), xp.zeros_like(yy))


def split_scores(
    device: Device, scoring: str, y_tv: Array, parts_btv: Array, whole_tv: Array, total_v: Array, shift_bv: Array
) -> Array:
    """Scores divided among the parts of a prediction by the product measure, (b, v) float64, on the device of the arrays.

    About the means, part b of R² is Σ (2 y − ŷ) ŷ_b / Σ y², of the correlation cov(y, ŷ_b) / (σ_y σ_ŷ). R² also counts the
    difference of means, t (ȳ − mean of ŷ)². Part b has a share in it by ``shift_bv``; what no shift explains is divided equally,
    and so is rounding: the parts add up to ``total_v``.

    Parameters
    ----------
    device : Device
    scoring : {"r2", "pearson"}
    y_tv, whole_tv : (t, v) float64
        Targets, and the prediction: the sum of its parts and a constant.
    parts_btv : (b, t, v) float64
    total_v : (v,) float64
        The score of ``whole_tv``; where it is 0, every part is.
    shift_bv : (b, v) float64
        How far each part moves the mean of the prediction.
    """
    xp, (b, t) = device.xp, parts_btv.shape[:2]
    mean_y, mean_p, means = xp.mean(y_tv, axis=0), xp.mean(whole_tv, axis=0), xp.mean(parts_btv, axis=1)
    y, p = y_tv - mean_y, whole_tv - mean_p
    against = {"pearson": y, "r2": 2.0 * y - p}[scoring]
    shares = xp.stack([device.dots(against, parts_btv[i, ...] - means[i, ...]) for i in range(b)])
    spread = device.dots(y, y)
    if scoring == "pearson":
        spread = xp.sqrt(spread * device.dots(p, p))
    else:
        off = mean_y - mean_p
        shares = shares + t * off * (shift_bv - (off + xp.sum(shift_bv, axis=0)) / b)
    defined = (spread > 0) & (total_v != 0)
    shares = xp.where(defined, shares / xp.where(defined, spread, xp.ones_like(spread)), xp.zeros_like(shares))
    return shares + (total_v - xp.sum(shares, axis=0)) / b


def _score(scoring: str, Y: Any, P: Any, split: bool = False, intercept: ArrayLike = 0.0) -> ResultArray:
    there, other = device_of(Y), device_of(P)
    if there != other:
        where = [f"on {d.name} ({d.library})" if d else "in the host's memory" for d in (there, other)]
        raise DeviceError(f"Y lies {where[0]} and P {where[1]}; move one to the other")
    device, library = there or HOST, "torch" if "torch" in (library_of(Y), library_of(P)) else "numpy"
    if there is None:
        Y, P = as_numpy(Y, "Y"), as_numpy(P, "P")
    if check_flag("split", split):
        if len(P.shape) != len(Y.shape) + 1 or P.shape[0] == 0:
            raise InputError(
                f"Y has shape {tuple(Y.shape)} and P {tuple(P.shape)}; with split=True pass parts of predictions, (b, *Y.shape)"
            )
        _check_shapes(Y.shape, P.shape[1:])
    else:
        _check_shapes(Y.shape, P.shape)
    xp, one, dtype = device.xp, len(Y.shape) == 1, float_dtype(dtype_of(Y, "Y"), dtype_of(P, "P"))
    with device.current(), np.errstate(all="ignore"):
        columns = []
        for name, array in (("Y", Y), ("P", P)):
            values = device.cast(array.detach() if device.library == "torch" else array, dtype)
            bad = int(xp.sum(~xp.isfinite(values)))
            if bad:
                raise InputError(f"{name} holds {bad} values that are NaN or infinite; mask those voxels or rows first")
            columns.append(values[..., None] if one else values)
        if split:
            scores = device.cast(_divided(device, scoring, columns[0], columns[1], intercept), dtype)
        else:
            scores = device.cast(column_scores(device, scoring, *columns), dtype)
        lost = ~device.get(xp.isfinite(scores))
        if lost.any():
            voxel = int(np.argwhere(lost)[0][-1])
            raise InputError(f"Y or P holds values too large to score in {dtype}, the first in voxel {voxel}; rescale both")
        scores = scores[..., 0] if one else scores
    return scores if there is not None else export(scores, library)


def _divided(device: Device, scoring: str, y_tv: Array, parts_btv: Array, intercept: Any) -> Array:
    """(b, v): scores of the sum of parts and a constant, divided among the parts."""
    xp, dtype, n_voxels = device.xp, y_tv.dtype, y_tv.shape[1]
    constant = intercept if device_of(intercept) is not None else device.put(as_numpy(intercept, "intercept"))
    if tuple(constant.shape) not in ((), (n_voxels,)):
        raise InputError(f"intercept has shape {tuple(constant.shape)}; pass one for each voxel, ({n_voxels},), or a number")
    y_tv, parts_btv, constant = (device.cast(array, np.float64) for array in (y_tv, parts_btv, constant))
    whole = xp.sum(parts_btv, axis=0) + constant
    total = column_scores(device, scoring, *(device.cast(array, dtype) for array in (y_tv, whole)))
    return split_scores(device, scoring, y_tv, parts_btv, whole, total, xp.mean(parts_btv, axis=1))


def _check_shapes(y: Sequence[int], p: Sequence[int]) -> None:
    y, p = tuple(y), tuple(p)
    if y != p:
        raise InputError(f"Y has shape {y} and P {p}; pass predictions of the same shape as the targets")
    if len(y) not in (1, 2) or y[0] == 0:
        raise InputError(f"Y and P have shape {y}; pass (time,) or (time, voxels) with at least one row")


def r2(Y: ArrayLike, P: ArrayLike, split: bool = False, intercept: ArrayLike = 0.0) -> ResultArray:
    """Coefficient of determination of each voxel, 1 − Σ(y − p)² / Σ(y − ȳ)².

    Parameters
    ----------
    Y, P : (t, v) or (t,) array
        Targets and predictions, NumPy, torch or CuPy: both in the host's memory or both on one device. With ``split``, P has the
        parts of a prediction, (b, t, v) or (b, t), as ``fit.predict(X, split=True)`` returns them.
    split : bool
        Divide the score among the parts by the product measure: part b gets Σ (2 y − p) p_b / Σ y², about the means. The parts
        add up to the score. A difference of the means of Y and of the prediction is divided by the means of the parts, what
        they do not explain equally. ``BandedFit.score`` counts these means from those of the features that were fitted: the
        same where these are zero.
    intercept : (v,) array or number
        For ``split``: what the sum of the parts lacks of the prediction. R² depends on it.

    Returns
    -------
    (v,) array, or a scalar for 1-D input; with ``split`` (b, v) or (b,)
        0 where the target is constant; never NaN. Float32 if both inputs are.

    Raises
    ------
    InputError
        If the shapes differ, there is no row, or a value is NaN, infinite, or so large that the score overflows.
    DeviceError
        If they lie in different places.
    """
    return _score("r2", Y, P, split, intercept)


def pearson(Y: ArrayLike, P: ArrayLike, split: bool = False) -> ResultArray:
    """Pearson correlation of each voxel's target with its prediction.

    Parameters
    ----------
    Y, P : (t, v) or (t,) array
        Targets and predictions, NumPy, torch or CuPy: both in the host's memory or both on one device. With ``split``, P has the
        parts of a prediction, (b, t, v) or (b, t), as ``fit.predict(X, split=True)`` returns them.
    split : bool
        Divide the score among the parts by the product measure: part b gets cov(y, p_b) / (σ_y σ_p). The parts add up to the
        score of their sum.

    Returns
    -------
    (v,) array, or a scalar for 1-D input; with ``split`` (b, v) or (b,)
        0 where the target or the prediction is constant; never NaN. Float32 if both inputs are.

    Raises
    ------
    InputError
        If the shapes differ, there is no row, or a value is NaN, infinite, or so large that the score overflows.
    DeviceError
        If they lie in different places.
    """
    return _score("pearson", Y, P, split)


def neg_mean_squared_error(Y: ArrayLike, P: ArrayLike) -> ResultArray:
    """Minus the mean squared error of each voxel, so that larger is better; arguments and errors as in :func:`r2`."""
    return _score("neg_mean_squared_error", Y, P)
