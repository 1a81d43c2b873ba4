"""Standard errors, intervals and p-values of means: over blocks of scans or speakers, or over participants who share these.

Axis letters: p participant, b bootstrap draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from fastencode.study.inference.blocks import FEWEST_BLOCKS, mean_draws

__all__ = ["Estimate", "freedom_of", "over_participants", "over_units", "paired_covariance", "without_rounding"]

Float64 = NDArray[np.float64]

# arctanh of larger correlations is not finite.
_ONE = 1 - 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error. Its intervals and p-values follow from Student's t and agree with each other.

    Attributes
    ----------
    value : float
    error : float
        Standard error of ``value``, or of ``arctanh(value)`` if ``correlation``. NaN with too few units.
    freedom : float
        Degrees of freedom of ``error``.
    correlation : bool
        Whether the interval is that of ``arctanh(value)``.
    """

    value: float
    error: float
    freedom: float
    correlation: bool = False

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end: value ± t · error. NaN if the error is NaN."""
        if not math.isfinite(self.error):
            return math.nan, math.nan
        half = float(scipy.stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        low, high = self._scale(self.value) - half, self._scale(self.value) + half
        return (math.tanh(low), math.tanh(high)) if self.correlation else (low, high)

    def pvalue(self, limit: float = 0.0) -> float:
        """Two-sided p-value against ``limit``: 1 − the level of the widest interval without it. NaN if the error is NaN.

        With t = (value − limit) / error, p = 2 P(T > abs(t)). Unlike a p-value that counts draws, it can be arbitrarily
        small.
        """
        if not math.isfinite(self.error):
            return math.nan
        distance = abs(self._scale(self.value) - self._scale(limit))
        if self.error == 0:
            return float(distance == 0)
        return float(2 * scipy.stats.t.sf(distance / self.error, self.freedom))

    def _scale(self, value: float) -> float:
        return math.atanh(min(_ONE, max(-_ONE, value))) if self.correlation else value


def without_rounding(total: ArrayLike, size: ArrayLike, n_terms: int) -> Float64:
    """Sums, with 0 in place of what is only rounding error: ``abs(total) ≤ n_terms · ε · size``, ε = 2.2e-16.

    Terms that cancel exactly on paper leave some 1e-17 in float64, and so do their bootstrap draws. Without this, an interval of
    such numbers could lie on one side of 0 and decide an expectation.

    Parameters
    ----------
    total : array_like, any shape
        Sums of ``n_terms`` float64 numbers.
    size : array_like, same shape
        Sums of the absolute values of the same numbers.
    n_terms : int

    Returns
    -------
    ndarray, same shape
    """
    total = np.asarray(total, np.float64)
    return np.where(np.abs(total) <= n_terms * np.finfo(np.float64).eps * np.asarray(size), 0.0, total)


def paired_covariance(draws: ArrayLike, n_units: ArrayLike) -> Float64:
    """Covariance (p, p) of participants' scores from draws of the same units.

    Where blocks of two participants differ in length, their covariance is too small by shorter / longer and is divided by it
    (see :func:`fastencode.study.inference.blocks.mean_draws`).

    Parameters
    ----------
    draws : array_like, shape (p, b)
    n_units : array_like, shape (p,)
    """
    draws_pb, n_units_p = np.asarray(draws, dtype=np.float64), np.asarray(n_units, dtype=np.float64)
    if draws_pb.shape[1] < 2:
        return np.zeros((len(draws_pb),) * 2)
    longer = np.maximum.outer(n_units_p, n_units_p) / np.minimum.outer(n_units_p, n_units_p)
    return np.asarray(np.atleast_2d(np.cov(draws_pb)) * longer)


def over_units(values: ArrayLike, draws: ArrayLike, n_units: ArrayLike, *, correlation: bool = False) -> Estimate:
    """The mean over participants, with an error over blocks of scans or speakers (as :func:`blocks.interval` of its draws).

    It generalises to other stories, or speakers, but only to these participants.

    Parameters
    ----------
    values : array_like, shape (p,)
    draws : array_like, shape (p, b)
        Values on resampled units; equal draws of two participants begin with the same units.
    n_units : array_like, shape (p,)
        Number of blocks or speakers; the smallest minus 1 is the number of degrees of freedom.
    correlation : bool
        Whether these are means of correlations, not differences.
    """
    value, fewest = float(np.mean(np.asarray(values, np.float64))), float(np.min(np.asarray(n_units)))
    draws_pb = np.asarray(draws, dtype=np.float64)
    if fewest < FEWEST_BLOCKS or draws_pb.shape[1] < 2:
        return Estimate(value, math.nan, math.nan, correlation)
    draws_b = mean_draws(draws_pb, n_units)
    if correlation:
        draws_b = np.arctanh(np.clip(draws_b, -_ONE, _ONE))
    return Estimate(value, float(draws_b.std(ddof=1)), fewest - 1, correlation)


def over_participants(values: ArrayLike, draws: ArrayLike, n_units: ArrayLike) -> Estimate:
    """The mean over participants, with an error for a sample of participants who were all tested on the same sample of units.

    The variance is S² / P + c: S² is that of the participants' values, whose part that no two participants share is divided by P;
    c is the mean covariance of two participants' draws, which is what blocks of the same story, or the same speakers, do to all
    of them alike and what no number of participants averages out. S² / P alone would speak of other people who hear this one
    story: where stories evoke responses that no model predicts, .95 intervals of it hold the true value in .83 to .91 of
    simulations where these do in .93 to .96; where all people have the same models, in .28 to .55 where these do in .91 to .94
    (``bench/contrasts.py``). It cannot see skew: of exponential values of 5 to 10 people, .95 intervals hold the mean in .88 to
    .90 (bootstrap-t in .93, by intervals 20 to 50 % wider). Degrees of freedom by Satterthwaite's formula.

    Parameters
    ----------
    values, draws, n_units
        As for :func:`over_units`. Without draws, c is 0.
    """
    values_p = np.asarray(values, dtype=np.float64)
    value, n = float(values_p.mean()), len(values_p)
    if n < 2:
        return Estimate(value, math.nan, math.nan)
    covariance = paired_covariance(draws, n_units)
    shared = max(0.0, float(covariance.sum() - np.trace(covariance)) / (n * (n - 1)))
    parts = ((float(values_p.var(ddof=1)) / n, n - 1.0), (shared, max(1.0, float(np.min(n_units)) - 1)))
    return Estimate(value, math.sqrt(sum(variance for variance, _ in parts)), freedom_of(parts))


def freedom_of(parts: Any) -> float:
    """Degrees of freedom of a sum of estimated variances (variance, degrees): (Σ v)² / Σ (v² / d), Satterthwaite's formula."""
    parts = list(parts)
    below = sum(variance**2 / degrees for variance, degrees in parts)
    return float(sum(variance for variance, _ in parts) ** 2 / below) if below > 0 else float(min(d for _, d in parts))
