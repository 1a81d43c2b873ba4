"""The dimension of a representation: of its variance (participation ratio), and of its neighbourhoods (TwoNN).

Axis letters: n row, p column, m ratio of distances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError

__all__ = ["FEWEST_ROWS", "Decimated", "participation_ratio", "twonn", "twonn_decimated"]

Float64 = NDArray[np.float64]

FEWEST_ROWS = 20
"""With fewer distinct rows :func:`twonn` gives no value: its standard error would be over a fifth of it."""

_ROWS = 1024  # whose distances to all others are computed at once
_NEAR = 8  # neighbours whose distances are computed again from differences, which do not cancel
_ROUNDING = 1e-12  # share of the largest square below which a variance is rounding


def participation_ratio(X: ArrayLike) -> float:
    """``(Σ λ)² / Σ λ²`` of the eigenvalues λ of the covariance: p for equal variances, 1 if one direction has all variance.

    Parameters
    ----------
    X : array_like, shape (n, p)

    Returns
    -------
    float
        From 1 to min(n − 1, p). Few rows lower it: of p equal directions, n rows show about ``p n / (p + n)``.

    Raises
    ------
    InputError
        If there are fewer than 2 rows, a value is not finite, or all columns are constant.
    """
    X_np = _check(X, 2)
    n, p = X_np.shape
    product = X_np.T @ X_np if p <= n else X_np @ X_np.T  # both have the same eigenvalues above 0
    return float(np.trace(product) ** 2 / np.sum(product**2))


def twonn(X: ArrayLike, *, discard: float = 0.1) -> float:
    """Intrinsic dimension from the ratio of the distances to the second and the first nearest neighbour.

    Where neighbours lie with locally constant density, the ratio μ of a point has the distribution ``1 − μ^(−d)``, and d is the
    slope of the line through the origin and ``(log μ, −log(1 − F(μ)))``, F the empirical distribution.

    Parameters
    ----------
    X : array_like, shape (n, p)
        Independent rows. In a time series, the two nearest neighbours of a row are often the rows before and after it, at nearly
        the same distance, and the estimate is far too high (7 for a smooth path through 3 dimensions): use
        :func:`twonn_decimated`. Repeated rows count once; constant columns have no influence.
    discard : float
        Share of the largest ratios to leave out, because they come from outliers.

    Returns
    -------
    float
        Standard error about ``d / √n``. With few rows, high dimensions are underestimated, because nearest
        neighbours are far away.

    Raises
    ------
    InputError
        If fewer than ``FEWEST_ROWS`` rows differ, a value is not finite, all columns are constant, ``discard`` is not in [0, 1),
        or all distances are equal.

    References
    ----------
    E. Facco, M. d'Errico, A. Rodriguez, A. Laio (2017), "Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information", Scientific Reports 7.
    """
    if not 0 <= discard < 1:
        raise InputError(f"discard={discard}: give a share from 0 to below 1, such as 0.1")
    X_np = np.unique(_check(X, 2), axis=0)
    if len(X_np) < FEWEST_ROWS:
        raise InputError(f"{len(X_np)} rows differ: at least {FEWEST_ROWS} are needed for an intrinsic dimension")
    ratio_m = np.sort(np.concatenate([two[:, 1] / two[:, 0] for two in _two_nearest(X_np)]))
    n = len(ratio_m)
    kept = max(1, int(n * (1 - discard)))
    log_m = np.log(ratio_m[:kept])
    if not (size := float(log_m @ log_m)) > 0:
        raise InputError("every row has two nearest neighbours at one distance, as on a grid: no dimension follows from that")
    return float(log_m @ -np.log1p(-np.arange(1, kept + 1) / (n + (kept == n))) / size)


class Decimated(NamedTuple):
    """Estimates for a time series, from every ``step``-th row.

    Attributes
    ----------
    value, sd : float
        Mean and standard deviation over offsets. The deviation shows the influence of the offset. It is not a standard error,
        because all offsets cover the same stretch of time. NaN for a single offset.
    each : ndarray
        The estimate of each offset.
    n_rows : int
        Number of rows at the last offset, which has the fewest.
    """

    value: float
    sd: float
    each: Float64
    n_rows: int


def twonn_decimated(X: ArrayLike, step: int, *, discard: float = 0.1, offsets: int = 8) -> Decimated:
    """:func:`twonn` for a time series: every ``step``-th row is used, and estimates are averaged over offsets.

    It would not be enough to exclude a row's neighbours in time: its two nearest are then often consecutive rows of another
    moment, again at nearly the same distance.

    Parameters
    ----------
    X : array_like, shape (n, p)
        Rows in the order of time, of one run or of several one after the other.
    step : int
        Distance between used rows: as many rows as stay similar to each other.
    discard : float
        As for :func:`twonn`.
    offsets : int
        Largest number of offsets to average over, evenly spaced.

    Returns
    -------
    Decimated
        Also what Facco et al. call block analysis: the same estimate on subsets of the rows. Compare steps to see whether the
        dimension depends on the scale.

    Raises
    ------
    InputError
        As :func:`twonn`, for any offset; or if ``step`` or ``offsets`` is no integer of 1 or more.
    """
    for name, value in (("step", step), ("offsets", offsets)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name}={value}: give an integer, 1 or more")
    given = as_numpy(X, "X")
    beginnings = np.unique(np.linspace(0, step - 1, min(step, offsets)).round().astype(int))
    each = np.array([twonn(given[first::step], discard=discard) for first in beginnings])
    sd = float(each.std(ddof=1)) if len(each) > 1 else math.nan
    return Decimated(float(each.mean()), sd, each, len(given[beginnings[-1] :: step]))


def _two_nearest(X_np: Float64) -> Iterator[Float64]:
    """Distances of each row to its two nearest neighbours, (rows, 2), tile after tile.

    ``|x − y|² = |x|² + |y|² − 2 x·y`` finds candidates, whose distances are then computed from differences.
    """
    square_n = np.sum(X_np**2, axis=1)
    near = min(_NEAR, len(X_np) - 1)
    for start in range(0, len(X_np), _ROWS):
        tile = X_np[start : start + _ROWS]
        distance = square_n - 2 * (tile @ X_np.T)
        distance[np.arange(len(tile)), start + np.arange(len(tile))] = np.inf
        candidates = np.argpartition(distance, near - 1, axis=1)[:, :near]
        exact = np.linalg.norm(X_np[candidates] - tile[:, None], axis=2)
        yield np.sort(exact, axis=1)[:, :2]


def _check(X: Any, fewest: int) -> Float64:
    """Centered float64 rows."""
    given = as_numpy(X, "X")
    if given.ndim != 2 or not given.shape[1]:
        raise InputError(f"X has shape {given.shape}: give rows × columns")
    if len(given) < fewest:
        raise InputError(f"X has {len(given)} rows: at least {fewest} are needed")
    found = given.astype(np.float64)
    if not np.isfinite(found).all():
        row = int(np.argmax(~np.isfinite(found).all(axis=1)))
        raise InputError(f"X holds values that are not finite, the first in row {row}: leave such rows out")
    largest = np.abs(found).max()
    found -= found.mean(axis=0)
    if np.abs(found).max() <= _ROUNDING * largest:
        raise InputError("all columns of X are constant: it has no dimension")
    return found
