"""The few penalties at which to predict: interpolation in the penalty, with a known bound of its error (docs/solver.md, 4).

Held-out predictions depend on the penalty α only through the shrinkage s(λ) = λ / (λ + α) of each direction of the design. Over a
grid of penalties and an interval of λ, all these curves are nearly linear combinations of a few of them: the *nodes*. Predictions
at k nodes and their k × k Gram give the scores of the whole grid. So the cost of a dense grid does not depend on its density.

Curves are taken relative to the largest λ: g(λ) = s(λ) / s(λ_top). At a penalty far above every λ predictions nearly vanish, and
correlation still needs their direction.

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

# Largest error of an interpolated shrinkage, as a part of the response, by item size of the dtype. The error changes sign along
# λ, so scores move by less: on measured spectra by a fifth to a thousandth of it.
TOLERANCE = {4: 1e-6, 8: 1e-12}
_PER_DECADE = 60
# Largest sum of absolute entries of the mix for one penalty: rounding of the predictions grows by up to this factor.
_LARGEST_SUM = 30.0
# With more nodes than this part of the grid, every penalty is a node: that costs less than the products of pairs of nodes.
_NEARLY_ALL = 0.9


@dataclass(frozen=True, eq=False)
class Nodes:
    """The penalties at which to predict, and the mix of their predictions.

    Attributes
    ----------
    alphas : (k,) float64, increasing
        Penalties at which to predict: members of the grid.
    mix_ak : (a, k) float64
        Scaled predictions at every penalty of the grid = mix_ak @ scaled predictions at the nodes.
    error : float
        Largest error of a shrinkage s(λ) (``relative``: of g(λ)) over the grid and a dense sample of the interval.
    interval : (float, float)
        The λ for which ``error`` holds; the shrinkage of smaller λ is below the tolerance.
    """

    alphas: F64
    mix_ak: F64
    error: float
    interval: tuple[float, float]


def scale_of(alphas: F64 | float, top: float) -> Any:
    """1 / s(λ_top) = 1 + α / λ_top: the factor that predictions are multiplied by."""
    return 1.0 + alphas / top if top > 0 else np.ones_like(alphas)


def choose_nodes(alphas: F64, interval: tuple[float, float], top: float, tolerance: float, relative: bool) -> Nodes:
    """The fewest penalties of the grid that give all of it within the tolerance, by pivoted QR.

    Parameters
    ----------
    alphas : (a,) float64, increasing
    interval : (float, float)
        Holds every positive eigenvalue of every training Gram.
    top : float
        λ_top of :func:`scale_of`: the largest eigenvalue of the Gram of all rows.
    tolerance : float
        Allowed error of a shrinkage.
    relative : bool
        True holds the error against s(λ_top), which correlation needs; False against 1, enough for squared errors.
    """
    exact = Nodes(alphas, np.eye(len(alphas)), 0.0, interval)
    # Below ``low``, s(λ) is under the tolerance at every penalty.
    low, high = max(interval[0], tolerance * alphas[0] / 10, np.finfo(float).tiny), interval[1]
    if len(alphas) < 3 or not low < high:
        return exact
    # More samples than curves: k curves meet k samples, whatever they do between.
    count = 2 + max(2 * len(alphas), int(_PER_DECADE * np.log10(high / low)))
    lam = np.geomspace(low, high, count)[:, None]
    scale = scale_of(alphas, top)
    curves_la = lam / (lam + alphas) * scale
    allowed_a = np.full(len(alphas), tolerance) if relative else tolerance * scale
    chosen, mix_ka, error = few_of(curves_la, allowed_a)
    if len(chosen) > _NEARLY_ALL * len(alphas):
        return exact
    worst = float((error if relative else error / scale).max())
    return Nodes(alphas[chosen], np.ascontiguousarray(mix_ka.T), worst, (float(low), float(high)))


def rank_of(curves_la: F64) -> int:
    """About how many of the curves span all of them within an error of 1."""
    # LAPACK's pivoted QR itself: of matrices this small, scipy.linalg.qr takes several times as long around it.
    diagonal = np.abs(np.diag(scipy.linalg.lapack.dgeqp3(curves_la)[0]))
    return max(1, int(np.count_nonzero(diagonal > 1.0)))


def few_of(curves_la: F64, allowed_a: F64) -> tuple[NDArray[np.intp], F64, F64]:
    """The fewest curves, by pivoted QR, that span all of them within the allowed errors.

    Returns (indices of the k curves, increasing; mix (k, a); errors (a,)): curves_la[:, indices] @ mix ≈ curves_la. The sum of
    absolute entries of a column of the mix is at most ``_LARGEST_SUM``. If fewer curves do not suffice, all are returned.
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
