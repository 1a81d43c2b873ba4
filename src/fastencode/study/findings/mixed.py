"""Variance components of a contrast: participants, seeds and test data; and the mean with all three as random effects.

Axis letters: p participant, s seed, b bootstrap draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from fastencode.study.config import Contrast
from fastencode.study.findings.measurements import NOBODY, Measurements
from fastencode.study.findings.weighted import Layers, Tested, tested, weights_of
from fastencode.study.inference.intervals import Estimate, freedom_of, over_participants, over_units, paired_covariance

__all__ = ["Components", "components", "summary_rows"]

Float64 = NDArray[np.float64]


class Components(NamedTuple):
    """Variance components of a contrast.

    Attributes
    ----------
    people : float
        Variance between participants that test data and seeds do not explain; NaN for one participant.
    seeds : float
        Variance between seeds that all participants share; NaN for one seed.
    both : float
        Of what a seed does in one participant and not in others: each participant's own model has its own run. NaN unless there
        are several of both; with one seed it is part of ``people``, with one participant of ``seeds``.
    test : float
        Of the test data: what blocks of scans, or speakers, do to one participant's value with one seed.
    """

    people: float
    seeds: float
    both: float
    test: float


def components(values: ArrayLike, covariance: ArrayLike) -> Components:
    """Variance components of y[p, s] = μ + people[p] + seeds[s] + both[p, s] + test[p, s], where that of ``test`` is known.

    By moments: the sums of squares of a two-way table, less what the test data's covariance puts into each, are solved for the
    components; negative ones are 0. Of balanced tables without test error this is the REML estimate wherever no component is
    negative, and for one seed the Hedges-Olkin estimate of meta-analysis, which, unlike DerSimonian and Laird's, weighs
    participants alike, and here allows for test errors that participants share.

    Parameters
    ----------
    values : array_like, shape (p, s)
    covariance : array_like, shape (p · s, p · s)
        Of the values' test errors, p-major.

    References
    ----------
    L. Hedges and I. Olkin (1985), "Statistical Methods for Meta-Analysis", chapter 9.
    """
    values_ps, test = np.asarray(values, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    n, m = values_ps.shape
    of_people, of_seeds = np.full((n, n), 1 / n), np.full((m, m), 1 / m)
    y = values_ps.ravel()

    def beyond_test(left: Float64, right: Float64) -> float:
        between = np.kron(left, right)
        return float(y @ between @ y - np.sum(between * test))

    own_people, own_seeds = np.eye(n) - of_people, np.eye(m) - of_seeds
    both = max(0.0, beyond_test(own_people, own_seeds) / ((n - 1) * (m - 1))) if n > 1 and m > 1 else math.nan
    rest = 0.0 if math.isnan(both) else both
    people = max(0.0, (beyond_test(own_people, of_seeds) / (n - 1) - rest) / m) if n > 1 else math.nan
    seeds = max(0.0, (beyond_test(of_people, own_seeds) / (m - 1) - rest) / n) if m > 1 else math.nan
    return Components(people, seeds, both, float(np.diag(test).mean()))


def summary_rows(measurements: Measurements, contrasts: Sequence[Contrast], n_layers: Layers) -> list[dict[str, Any]]:
    """One row per measured contrast: a mixed model with participants, seeds and test data as random effects.

    Intervals of :func:`fastencode.study.findings.contrasts.evaluate` hold for the given seeds. The intervals here also allow for
    other seeds, and for other participants even if there are fewer than five.

    Parameters
    ----------
    measurements, contrasts, n_layers
        As for :func:`fastencode.study.findings.contrasts.evaluate`, which also checks them.

    Returns
    -------
    list of dict
        ``name``, ``measure``; ``participants`` and ``seeds``, how many; ``mean`` over these; ``low`` and ``high``, the .95
        interval of the mean over all participants, seeds and test data of this kind, degrees of freedom by Satterthwaite's
        formula; ``next_low`` and ``next_high``, the .95 interval of one more participant with one more seed, from three
        participants on; standard deviations: ``participants_sd``, ``seeds_sd``, ``participants_by_seeds_sd``, ``test_sd``, as in
        :class:`Components`; ``unit``, of the test data.
    """
    rows = []
    for contrast in contrasts:
        (found,) = tested(measurements, contrast.measure, [weights_of(contrast, n_layers)])
        if not found.people:
            continue
        values_ps = found.by_seed if len(found.seeds) else found.values[:, None]
        draws_psb = found.draws_by_seed if len(found.seeds) else found.draws[:, None]
        n, m = values_ps.shape
        covariance = paired_covariance(draws_psb.reshape(n * m, -1), np.repeat(found.n_units, m))
        parts = components(values_ps, covariance)
        mean = _mean(values_ps, draws_psb, found, parts)
        low, high = mean.interval()
        next_low, next_high = _next(mean, parts, n)
        rows.append(
            {
                "name": contrast.name,
                "measure": contrast.measure,
                "participants": n if found.people != (NOBODY,) else 0,
                "seeds": m,
                "mean": mean.value,
                "low": low,
                "high": high,
                "next_low": next_low,
                "next_high": next_high,
                "participants_sd": math.sqrt(parts.people),
                "seeds_sd": math.sqrt(parts.seeds),
                "participants_by_seeds_sd": math.sqrt(parts.both),
                "test_sd": math.sqrt(parts.test),
                "unit": found.unit,
            }
        )
    return rows


def _mean(values_ps: Float64, draws_psb: Float64, found: Tested, parts: Components) -> Estimate:
    """The mean, with a standard error that includes participants, seeds and test data."""
    n, m = values_ps.shape
    if n == 1 == m:
        return over_units(values_ps[:, 0], draws_psb[:, 0], found.n_units)
    if n == 1:  # seeds take the role of participants: a sample that shares its test data
        return over_participants(values_ps[0], draws_psb[0], np.repeat(found.n_units, m))
    people = over_participants(values_ps.mean(axis=1), draws_psb.mean(axis=1), found.n_units)
    if m == 1:
        return people
    seeds = parts.seeds / m
    freedom = freedom_of([(people.error**2, people.freedom), (seeds, m - 1.0)])
    return Estimate(people.value, math.sqrt(people.error**2 + seeds), freedom)


def _next(mean: Estimate, parts: Components, n: int) -> tuple[float, float]:
    """Prediction interval of a new participant: mean ± t √(variance of the mean + people + seeds + both), t with n − 1 df."""
    if n < 3:
        return math.nan, math.nan
    spread = math.sqrt(mean.error**2 + sum(0.0 if math.isnan(one) else one for one in (parts.people, parts.seeds, parts.both)))
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * spread
    return mean.value - half, mean.value + half
