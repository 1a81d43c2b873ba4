"""Scores of predictions, per voxel, all of them from the same five moments.

Legend: t = time, v = voxels, m = the five moments.
"""

from __future__ import annotations

import warnings
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode import kernels
from fastencode.arrays import as_numpy, dtype_of, export, float_dtype, library_of
from fastencode.devices import Device, device_of
from fastencode.errors import DeviceError, FastencodeWarning, InputError
from fastencode.solve.device_moments import device_column_scores, device_score_moments

__all__ = [
    "SCORINGS",
    "check_scoring",
    "column_moments",
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
        warnings.warn(reason, FastencodeWarning, stacklevel=3)
    return kernel


def check_scoring(scoring: Any) -> str:
    """The name of a score, or ``InputError``."""
    if scoring not in SCORINGS:
        raise InputError(f"scoring={scoring!r}; pass one of {', '.join(map(repr, SCORINGS))}")
    return str(scoring)


def score_moments(
    scoring: str,
    parts: tuple[Any, Any, Any, Any, Any],
    mass: float,
    scale: Any = 1.0,
    floor: Any = 0.0,
) -> NDArray[np.float64]:
    """Score voxels from their moments (see ``kernels/moments.pyx``).

    Parameters
    ----------
    scoring : {"r2", "pearson", "neg_mean_squared_error"}
        Which score.
    parts : tuple of (v,) or (a, v) float64
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
        Finite: 0 where a score is not defined (R² of a constant target; Pearson of a constant target or prediction).
    """
    mean_y, mean_p, yy, yp, pp = parts
    if scoring == "pearson":
        spread = np.sqrt(yy) * np.sqrt(pp)
        return np.clip(np.divide(yp, spread, out=np.zeros_like(spread), where=(spread > 0) & (pp > floor)), -1.0, 1.0)
    offset = mean_y - mean_p / scale
    error = np.maximum(yy + pp / scale / scale - 2 * yp / scale + mass * offset**2, 0.0)
    if scoring == "r2":
        return 1.0 - np.divide(error, yy, out=np.ones_like(error), where=yy > 0)
    return -error / mass


def score_slopes(device: Device, scoring: str, y_tv: Any, p_tv: Any, weights_t: Any) -> tuple[Any, Any]:
    """Scores of float64 predictions with weights of rows, (v,), and their derivative with respect to every prediction, (t, v):
    zero where a score is not defined. Arrays of the device."""
    xp, mass = device.xp, float(device.xp.sum(weights_t))
    mean_y, mean_p = (weights_t @ a / mass for a in (y_tv, p_tv))
    y, p, w = y_tv - mean_y, p_tv - mean_p, weights_t[:, None]
    weighed = w * y
    yy, yp, pp = device.dots(weighed, y), device.dots(weighed, p), device.dots(w * p, p)
    floor = mass * float(np.finfo(np.float64).eps) ** 2 * (yy / mass + mean_y**2)
    scores = device_score_moments(device, scoring, (mean_y, mean_p, yy, yp, pp), mass, 1.0, floor)
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


def column_moments(y_tv: NDArray[Any], p_tv: NDArray[Any]) -> NDArray[np.float64]:
    """Moments of whole columns, where a column that varies by no more than its own rounding counts as constant."""
    dtype = float_dtype(y_tv.dtype, p_tv.dtype)
    y_tv, p_tv = (np.ascontiguousarray(a, dtype=dtype) for a in (y_tv, p_tv))
    out = moments_kernel()(y_tv, p_tv[None])
    rounding = np.finfo(dtype).eps
    for mean, square in ((0, 2), (1, 4)):
        out[square][out[square] <= len(y_tv) * (rounding * out[mean]) ** 2] = 0.0
    return np.asarray(out)


def _score(scoring: str, Y: Any, P: Any) -> Any:
    there, other = device_of(Y), device_of(P)
    if there is not None or other is not None:
        if there is None or there != other:
            where = [f"on {d.name} ({d.library})" if d else "in the host's memory" for d in (there, other)]
            raise DeviceError(f"Y lies {where[0]} and P {where[1]}; move one to the other")
        return _score_there(there, scoring, Y, P)
    library = "torch" if "torch" in (library_of(Y), library_of(P)) else "numpy"
    y, p = as_numpy(Y, "Y"), as_numpy(P, "P")
    _check_shapes(y.shape, p.shape)
    for name, array in (("Y", y), ("P", p)):
        bad = np.size(array) - np.count_nonzero(np.isfinite(array))
        if bad:
            raise InputError(f"{name} holds {bad} values that are NaN or infinite; mask those voxels or rows first")
    one = y.ndim == 1
    m_mv = column_moments(y[:, None], p[:, None]) if one else column_moments(y, p)
    scores = score_moments(scoring, tuple(m_mv), len(y)).astype(float_dtype(y.dtype, p.dtype))
    return export(scores[0] if one else scores, library)


def _check_shapes(y: Any, p: Any) -> None:
    y, p = tuple(y), tuple(p)
    if y != p:
        raise InputError(f"Y has shape {y} and P {p}; pass predictions of the same shape as the targets")
    if len(y) not in (1, 2) or y[0] == 0:
        raise InputError(f"Y and P have shape {y}; pass (time,) or (time, voxels) with at least one row")


def _score_there(device: Device, scoring: str, Y: Any, P: Any) -> Any:
    """Scores of arrays of a device, on it."""
    xp = device.xp
    _check_shapes(Y.shape, P.shape)
    dtype = float_dtype(dtype_of(Y, "Y"), dtype_of(P, "P"))
    with device.current():
        columns = []
        for name, array in (("Y", Y), ("P", P)):
            values = device.cast(array.detach() if device.library == "torch" else array, dtype)
            bad = int(xp.sum(~xp.isfinite(values)))
            if bad:
                raise InputError(f"{name} holds {bad} values that are NaN or infinite; mask those voxels or rows first")
            columns.append(values[:, None] if len(values.shape) == 1 else values)
        scores = device.cast(device_column_scores(device, scoring, *columns), dtype)
        return scores[0] if len(Y.shape) == 1 else scores


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
        If the shapes differ, there is no row, or a value is NaN or infinite.
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
        If the shapes differ, there is no row, or a value is NaN or infinite.
    DeviceError
        If they lie in different places.
    """
    return _score("pearson", Y, P)


def neg_mean_squared_error(Y: Any, P: Any) -> Any:
    """Minus the mean squared error of each voxel, so that larger is better; arguments and errors as in :func:`r2`."""
    return _score("neg_mean_squared_error", Y, P)
