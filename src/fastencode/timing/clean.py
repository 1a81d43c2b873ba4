"""Per-run cleaning of time series: z-scores and removal of slow drifts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import export, library_of
from fastencode.errors import InputError
from fastencode.timing.times import check_finite, float_array, run_slices

__all__ = ["detrend_polynomial", "zscore"]

# A float64 copy of one block of columns: 32 MB, beside responses that may take gigabytes.
VALUES_PER_BLOCK = 1 << 22


def zscore(X: ArrayLike, runs: ArrayLike | None = None) -> Any:
    """Give every column mean 0 and standard deviation 1 within each run.

    Parameters
    ----------
    X : array_like, shape (n, p) or (n,)
        Features or responses; NumPy, or torch on the CPU. Never written to.
    runs : array_like, shape (n,), optional
        One label for each row; the rows of one run stand together. None: one run.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), same shape
        float32 for float32, else float64; computed in float64. The standard deviation divides by n (``ddof=0``, as in
        :func:`scipy.stats.zscore`). A column that is constant within a run, to the resolution of its dtype, is 0 there.

    Raises
    ------
    InputError
        If a value is not finite, ``X`` is not 1-D or 2-D, or ``runs`` does not fit.
    """
    return _per_run(X, runs, order=0, scale=True)


def detrend_polynomial(X: ArrayLike, order: int = 3, runs: ArrayLike | None = None) -> Any:
    """Remove the least-squares polynomial of time from every column within each run.

    Parameters
    ----------
    X : array_like, shape (n, p) or (n,)
        Features or responses; NumPy, or torch on the CPU. Never written to.
    order : int
        Degree of the polynomial: 0 removes the mean, 3 a cubic trend.
    runs : array_like, shape (n,), optional
        One label for each row; the rows of one run stand together. None: one run.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), same shape
        Residuals; float32 for float32, else float64; computed in float64. A column that is a polynomial within a run, to the
        resolution of its dtype, is exactly 0 there, so that a z-score after it stays 0.

    Raises
    ------
    InputError
        If ``order`` is negative, a run has no more rows than the polynomial has coefficients, a value is not finite, ``X`` is
        not 1-D or 2-D, or ``runs`` does not fit.
    """
    if order < 0 or order != int(order):
        raise InputError(f"order={order}: give the polynomial's degree, 0 or more")
    return _per_run(X, runs, order=int(order), scale=False)


def _per_run(X: ArrayLike, runs: ArrayLike | None, *, order: int, scale: bool) -> Any:
    """Remove a polynomial, and scale to unit standard deviation, in blocks of columns of each run."""
    array = float_array(X, "X")
    if array.ndim not in (1, 2):
        raise InputError(f"X has shape {array.shape}: give a time series as (time, columns)")
    X_tp = array[:, None] if array.ndim == 1 else array
    check_finite(X_tp, "X")
    # The residual is computed in float64, so float32 data is limited by its own rounding, float64 data by ours.
    resolution = max(float(np.finfo(array.dtype).eps), 8 * float(np.finfo(np.float64).eps))
    out = np.empty(X_tp.shape, X_tp.dtype)
    for rows in run_slices(runs, len(X_tp)):
        length = rows.stop - rows.start
        if order and length < order + 2:
            raise InputError(
                f"the run of rows {rows.start} to {rows.stop - 1} has {length} rows, "
                f"a polynomial of order {order} needs {order + 2}: leave the run out, join it to another, or lower the order"
            )
        width = max(1, VALUES_PER_BLOCK // length)
        for start in range(0, X_tp.shape[1], width):
            columns = slice(start, start + width)
            rest_tp = _residual(X_tp[rows, columns].astype(np.float64), order, resolution)
            if scale:
                sd_p = np.sqrt(np.einsum("tp,tp->p", rest_tp, rest_tp) / length)
                rest_tp *= np.divide(1.0, sd_p, out=np.zeros_like(sd_p), where=sd_p > 0)
            out[rows, columns] = rest_tp
    return export(out.reshape(array.shape), library_of(X))


def _residual(block_tp: NDArray[np.float64], order: int, resolution: float) -> NDArray[np.float64]:
    """What a polynomial leaves of each column; exactly 0 where that is no more than rounding."""
    # Legendre polynomials are nearly orthogonal on a grid, which keeps the factorisation accurate at high order.
    basis_tk, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, len(block_tp)), order))
    rest_tp = block_tp - block_tp.mean(axis=0)
    for _ in range(2):  # the second pass removes what rounding left of a trend much larger than the rest
        rest_tp -= basis_tk @ (basis_tk.T @ rest_tp)
    rest_tp[:, np.abs(rest_tp).max(axis=0) <= resolution * np.abs(block_tp).max(axis=0)] = 0.0
    return rest_tp
