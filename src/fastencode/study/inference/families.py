"""Correction for multiple comparisons by Holm's method."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError

__all__ = ["WRONG", "holm", "holm_levels"]

Float64 = NDArray[np.float64]

WRONG = 0.05
"""Largest probability that any answer of a family is wrong (family-wise error rate)."""


def holm(p: ArrayLike) -> Float64:
    """P-values adjusted by Holm's method: reject those that are at most the family-wise error rate you accept.

    The k-th smallest of m p-values is multiplied by m − k + 1, and is at least as large as the adjusted ones before it. The
    method is valid for any dependence between the tests.

    Parameters
    ----------
    p : array_like, shape (m,)
        P-values of one family. NaN, for a test that was not possible, stays NaN and counts in m.

    Returns
    -------
    ndarray, shape (m,)

    Raises
    ------
    InputError
        If a value lies outside [0, 1].

    References
    ----------
    S. Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    values = as_numpy(p, "p").astype(np.float64).ravel()
    known = values[~np.isnan(values)]
    if ((known < 0) | (known > 1)).any():
        raise InputError(f"p-values run from {known.min()} to {known.max()}: each must lie between 0 and 1")
    order = np.argsort(values, kind="stable")  # NaN last
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1.0, np.fmax.accumulate(values[order] * np.arange(len(values), 0, -1))) if len(values) else 0
    return np.where(np.isnan(values), np.nan, adjusted)


def holm_levels(p: ArrayLike, wrong: float = WRONG) -> Float64:
    """The confidence levels at which intervals of a family agree with :func:`holm`.

    1 − ``wrong`` / (m − k + 1) for the k-th smallest of m p-values; from the first p-value that is not rejected on, its level.

    Parameters
    ----------
    p : array_like, shape (m,)
        Two-sided p-values of one family.
    wrong : float
        Family-wise error rate.

    Returns
    -------
    ndarray, shape (m,)
    """
    values = as_numpy(p, "p").astype(np.float64).ravel()
    adjusted = holm(values)
    levels, left = np.empty(len(values)), len(values)
    for place in np.argsort(values, kind="stable"):
        levels[place] = 1 - wrong / left
        if adjusted[place] < wrong:
            left -= 1
    return levels
