"""Per-run cleaning of time series: z-scores and removal of slow drifts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import signal

from fastencode.arrays import F64, export, library_of
from fastencode.errors import InputError
from fastencode.timing.times import check_finite, check_seconds, float_array, run_slices

__all__ = ["detrend_cosine", "detrend_polynomial", "detrend_savgol", "slow_cosines", "zscore"]

# What is left of columns (t, p) of one run.
Rest = Callable[[F64], F64]

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
    return _per_run(X, runs, partial(_without, basis=partial(_polynomials, order=0)), scale=True)


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
    degree = _check_order(order)
    fewest = f"a polynomial of order {degree} needs", degree + 2 if degree else 1
    return _per_run(X, runs, partial(_without, basis=partial(_polynomials, order=degree)), fewest)


def detrend_cosine(X: ArrayLike, tr: float, period: float = 128.0, runs: ArrayLike | None = None) -> Any:
    """Remove the mean and all slow cosines from every column within each run: SPM's high-pass filter.

    What goes is the least-squares fit of the mean and of cosines of k half-waves in the run, k = 1 … ⌊2 · rows · tr / period⌋.

    Parameters
    ----------
    X : array_like, shape (n, p) or (n,)
        Features or responses; NumPy, or torch on the CPU. Never written to.
    tr : float
        Seconds from row to row.
    period : float
        Seconds: waves longer than this go.
    runs : array_like, shape (n,), optional
        One label for each row; the rows of one run stand together. None: one run.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), same shape
        Residuals; float32 for float32, else float64; computed in float64. Of a run shorter than half a period only the mean goes.

    Raises
    ------
    InputError
        If ``tr`` or ``period`` is not positive or a period is two rows or less, a value is not finite, ``X`` is not 1-D or 2-D,
        or ``runs`` does not fit.
    """
    check_seconds(tr=tr, period=period)
    if period <= 2 * tr:
        raise InputError(f"period={period} s at tr={tr} s: nothing would be left; give a period of more than two rows")
    return _per_run(X, runs, partial(_without, basis=partial(slow_cosines, rows_in_period=period / tr)))


def detrend_savgol(X: ArrayLike, tr: float, window: float = 120.0, order: int = 2, runs: ArrayLike | None = None) -> Any:
    """Remove a moving least-squares polynomial (Savitzky and Golay's filter) from every column within each run.

    Parameters
    ----------
    X : array_like, shape (n, p) or (n,)
        Features or responses; NumPy, or torch on the CPU. Never written to.
    tr : float
        Seconds from row to row.
    window : float
        Seconds; the filter's window is the odd number of rows next to it, not fewer than ``order + 1``.
    order : int
        Degree of the polynomial.
    runs : array_like, shape (n,), optional
        One label for each row; the rows of one run stand together. None: one run.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), same shape
        X minus :func:`scipy.signal.savgol_filter` of it (``mode="interp"``: at the ends of a run the polynomial of the last
        window); float32 for float32, else float64; computed in float64.

    Raises
    ------
    InputError
        If ``tr`` or ``window`` is not positive, ``order`` is negative or as large as the window, a run is shorter than the
        window, a value is not finite, ``X`` is not 1-D or 2-D, or ``runs`` does not fit.

    References
    ----------
    A. Savitzky and M. J. E. Golay (1964), "Smoothing and differentiation of data by simplified least squares procedures",
    Analytical Chemistry 36, 1627-1639.
    """
    check_seconds(tr=tr, window=window)
    length = 2 * round((window / tr - 1) / 2) + 1
    degree = _check_order(order, length, f" and below the {length} rows of a window of {window} s at tr={tr} s")
    smooth = partial(_without_smooth, length=length, order=degree)
    return _per_run(X, runs, smooth, (f"a window of {window} s at tr={tr} s needs", length))


def _check_order(order: Any, below: float = np.inf, why: str = "") -> int:
    if not isinstance(order, int | float | np.number) or not 0 <= order < below or order != int(order):
        raise InputError(f"order={order!r}: give the polynomial's degree, 0 or more{why}")
    return int(order)


def _per_run(
    X: ArrayLike, runs: ArrayLike | None, rest: Rest, fewest: tuple[str, int] = ("it needs", 1), scale: bool = False
) -> Any:
    """Keep the ``rest`` of every column, scaled to unit standard deviation if wanted, in blocks of columns of each run.

    ``fewest`` are the rows that a run must have, and what for.
    """
    array = float_array(X, "X")
    if array.ndim not in (1, 2):
        raise InputError(f"X has shape {array.shape}: give a time series as (time, columns)")
    X_tp = array[:, None] if array.ndim == 1 else array
    check_finite(X_tp, "X")
    # The residual is computed in float64, so float32 data is limited by its own rounding, float64 data by ours.
    resolution = max(float(np.finfo(array.dtype).eps), 8 * float(np.finfo(np.float64).eps))
    out = np.empty(X_tp.shape, X_tp.dtype)
    why, least = fewest
    for rows in run_slices(runs, len(X_tp)):
        length = rows.stop - rows.start
        if length < least:
            raise InputError(
                f"the run of rows {rows.start} to {rows.stop - 1} has {length} rows, {why} {least}: leave the run out, join it "
                "to another, or remove less"
            )
        width = max(1, VALUES_PER_BLOCK // length)
        for start in range(0, X_tp.shape[1], width):
            columns = slice(start, start + width)
            block_tp = X_tp[rows, columns].astype(np.float64)
            rest_tp = rest(block_tp)
            # A column that holds only what is removed must not become its rounding, which a z-score would blow up.
            rest_tp[:, np.abs(rest_tp).max(axis=0) <= resolution * np.abs(block_tp).max(axis=0)] = 0.0
            if scale:
                sd_p = np.sqrt(np.einsum("tp,tp->p", rest_tp, rest_tp) / length)
                rest_tp *= np.divide(1.0, sd_p, out=np.zeros_like(sd_p), where=sd_p > 0)
            out[rows, columns] = rest_tp
    return export(out.reshape(array.shape), library_of(X))


def _without(block_tp: F64, basis: Callable[[int], F64]) -> F64:
    """What the best fit of a basis leaves of each column; the basis holds the constant."""
    basis_tk, _ = np.linalg.qr(basis(len(block_tp)))
    rest_tp = block_tp - block_tp.mean(axis=0)
    for _ in range(2):  # the second pass removes what rounding left of a trend much larger than the rest
        rest_tp -= basis_tk @ (basis_tk.T @ rest_tp)
    return rest_tp


def _polynomials(n: int, order: int) -> F64:
    # Legendre polynomials are nearly orthogonal on a grid, which keeps the factorisation accurate at high order.
    return np.asarray(np.polynomial.legendre.legvander(np.linspace(-1, 1, n), order))


def slow_cosines(n: int, rows_in_period: float) -> F64:
    """Cosines of 0, 1, 2, … half-waves in n rows, down to a period of so many rows: (n, k), the first constant."""
    waves = np.arange(min(n - 1, int(2 * n / rows_in_period + 1e-9)) + 1)  # the small term: whatever the quotient rounds to
    return np.cos(np.pi * (np.arange(n)[:, None] + 0.5) * waves / n)


def _without_smooth(block_tp: F64, length: int, order: int) -> F64:
    about_tp = block_tp - block_tp.mean(axis=0)
    return np.asarray(about_tp - signal.savgol_filter(about_tp, length, order, axis=0, mode="interp"))
