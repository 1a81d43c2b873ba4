"""Few penalties at which to predict, so that all others follow: interpolation in the penalty, with its error known beforehand.

Held-out predictions depend on the penalty only through how much each direction of the design is shrunk, s(λ) = λ / (λ + α).
Over a grid of penalties and an interval of λ these curves are nearly linear combinations of a few of their own: the *nodes*.
Predicting at k nodes and keeping the k × k Gram of the predictions gives the scores of the whole grid: beyond some density of the
grid, cost no longer grows with it.

Curves are taken relative to the largest λ, g(λ) = s(λ) / s(λ_top), so that a penalty far above every λ, whose predictions all but
vanish, still has its direction (correlation needs it).

Legend: a = penalties, k = nodes, l = sampled λ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.arrays import F64

__all__ = ["TOLERANCE", "Nodes", "choose_nodes", "few_of", "rank_of", "scale_of"]

# Largest error of an interpolated shrinkage, as a part of the response, by item size of the dtype. A score moves by less, since
# the error changes sign along λ: on measured spectra by a fifth to a thousandth of it.
TOLERANCE = {4: 1e-6, 8: 1e-12}
_PER_DECADE = 60
# Largest sum of absolute entries of the mix for one penalty: rounding of the predictions grows by up to this factor.
_LARGEST_SUM = 30.0
# With more nodes than this part of the grid, predicting at the others too costs less than the products of pairs of nodes.
_NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class Nodes:
    """Where to predict and how to combine.

    Attributes
    ----------
    alphas : (k,) float64, increasing
        Penalties to predict at: members of the grid.
    mix_ak : (a, k) float64
        Scaled predictions at every penalty of the grid = mix_ak @ scaled predictions at the nodes.
    error : float
        Largest error of a shrinkage s(λ) (``relative``: of g(λ)) over the grid and a dense sample of the interval.
    interval : (float, float)
        The λ it holds for; smaller ones contribute less than the tolerance.
    """

    alphas: F64
    mix_ak: F64
    error: float
    interval: tuple[float, float]


def scale_of(alphas: Any, top: float) -> Any:
    """What predictions are multiplied by: 1 / s(λ_top)."""
    return 1.0 + alphas / top if top > 0 else np.ones_like(alphas)


def choose_nodes(alphas: F64, interval: tuple[float, float], top: float, tolerance: float, relative: bool) -> Nodes:
    """The fewest penalties of the grid that give all of it within the tolerance, by pivoted QR.

    Parameters
    ----------
    alphas : (a,) float64, increasing
    interval : (float, float)
        Holds every eigenvalue of every training Gram. Eigenvalues that are zero need not be in it.
    top : float
        What predictions are scaled by, see :func:`scale_of`: the largest eigenvalue of the whole Gram.
    tolerance : float
        Allowed error of a shrinkage.
    relative : bool
        True holds the error against s(λ_top), which correlation needs; False against 1, enough for squared errors.
    """
    exact = Nodes(alphas, np.eye(len(alphas)), 0.0, interval)
    # Below, s(λ) itself is under the tolerance.
    low, high = max(interval[0], tolerance * alphas[0] / 10, np.finfo(float).tiny), interval[1]
    if len(alphas) < 3 or not low < high:
        return exact
    lam = np.geomspace(low, high, 2 + int(_PER_DECADE * np.log10(high / low)))[:, None]
    scale = scale_of(alphas, top)
    curves_la = lam / (lam + alphas) * scale
    allowed_a = np.full(len(alphas), tolerance) if relative else tolerance * scale
    chosen, mix_ka, error = few_of(curves_la, allowed_a)
    if len(chosen) > _NEARLY_ALL * len(alphas):
        return exact
    worst = float((error if relative else error / scale).max())
    return Nodes(alphas[chosen], np.ascontiguousarray(mix_ka.T), worst, (float(low), float(high)))


def rank_of(curves_la: F64) -> int:
    """About how many of the curves it takes to give all of them within an error of 1."""
    diagonal = np.abs(np.diag(scipy.linalg.qr(curves_la, mode="r", pivoting=True)[0]))
    return max(1, int(np.count_nonzero(diagonal > 1.0)))


def few_of(curves_la: F64, allowed_a: F64) -> tuple[NDArray[np.intp], F64, F64]:
    """The fewest of some curves, by pivoted QR, that combine to all of them: (which k, increasing; mix (k, a); errors (a,)).

    Entries of the mix stay small, see ``_LARGEST_SUM``; all curves if fewer do not suffice.
    """
    number = curves_la.shape[1]
    triangle, order = scipy.linalg.qr(curves_la / allowed_a, mode="r", pivoting=True)
    likely = int(np.count_nonzero(np.abs(np.diag(triangle)) > 10.0))
    for k in range(max(1, likely - 1), number):
        chosen = np.sort(order[:k])
        mix, *_ = np.linalg.lstsq(curves_la[:, chosen], curves_la, rcond=1e-15)
        mix[:, chosen] = np.eye(k)
        error = np.abs(curves_la[:, chosen] @ mix - curves_la).max(axis=0)
        if (error <= allowed_a).all() and np.abs(mix).sum(axis=0).max() <= _LARGEST_SUM:
            return chosen, np.asarray(mix, dtype=np.float64), error
    return np.arange(number), np.eye(number), np.zeros(number)
