"""Several tests decided together: Holm's steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError

__all__ = ["WRONG", "holm", "holm_levels"]

Float64 = NDArray[np.float64]

WRONG = 0.05
"""The chance, at most, that any answer of a family is wrong."""


def holm(p: ArrayLike) -> Float64:
    """P-values adjusted by Holm's steps: reject where they are at most the rate of wrong families that you accept.

    The k-th smallest of m is multiplied by m − k + 1, and is at least as large as those before it. Valid however the tests depend
    on each other.

    Parameters
    ----------
    p : array_like, shape (m,)
        P-values of one family. NaN, a test that could not be made, stays NaN and counts in m.

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
    """The level of the interval that decides each test of a family, so that it agrees with :func:`holm`.

    1 − ``wrong`` / (m − k + 1) for the k-th smallest of m p-values; from the first that is not decided on, the level of that one.

    Parameters
    ----------
    p : array_like, shape (m,)
        Two-sided; each is 1 − the level of the widest interval that decides.
    wrong : float
    """
    values = as_numpy(p, "p").astype(np.float64).ravel()
    adjusted = holm(values)
    levels, left = np.empty(len(values)), len(values)
    for place in np.argsort(values, kind="stable"):
        levels[place] = 1 - wrong / left
        if adjusted[place] < wrong:
            left -= 1
    return levels
