"""What penalties beyond the two ends of a grid could gain: scores at both ends, and a decade inside of each.

Legend: v = voxels, a = penalties, e = the four ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, Array, Device

__all__ = ["Cost", "Freedom", "Seen", "cost_of", "end_rows", "ends_of", "freedom_of", "no_ends"]

# A decade: how far inside the neighbor of an end lies, so that a fine grid counts like a coarse one.
_DECADE = 10.0
# A voxel whose score (R², a correlation, or shares of its variance) rises by no more than this over the last decade before an end
# would hardly gain beyond it.
_RISE = 0.01
# The best penalty of a voxel that features do not predict is arbitrary. Predicted is an R² above 4 / n, or a correlation above
# 3 / √n: chance gives a correlation of variance 1 / n over independent rows, and more over autocorrelated ones.
_CHANCE_R2, _CHANCE_R = 4.0, 3.0
# Fewer voxels than this share are not worth a warning; correlations of voxels that nothing predicts rise more often.
_FEW, _FEW_R = 0.01, 0.03
# All penalties are too large if the mean over voxels rises towards the smallest by more than four of its standard errors, at
# least half of it in the last decade: then score is nearly proportional to 1 / α.
_SURE, _MOST = 4.0, 0.5
# All penalties are too small if the mean over voxels rises by this over the last decade towards the largest.
_MEAN_RISE = 0.02


class Seen(NamedTuple):
    """What a pass of responses saw of each voxel, on the host.

    Attributes
    ----------
    ends_ev : (e, v) float64
        From :func:`ends_of`.
    edge_v : (v,) int8
        −1 where the smallest penalty was chosen, +1 where the largest.
    variance_v : (v,) float64
        Variances. Exactly 0 for a constant voxel, where there is an intercept.
    bad_v : (v,) bool
        Voxels that were skipped.
    """

    ends_ev: F64
    edge_v: NDArray[np.int8]
    variance_v: F64
    bad_v: NDArray[np.bool_]


class Freedom(NamedTuple):
    """Degrees of freedom Σ λ / (λ + α) of ridge on some features: without a penalty, and at both ends of a grid."""

    rank: int
    smallest: float
    largest: float


class Cost(NamedTuple):
    """What the ends of a grid cost.

    Attributes
    ----------
    low, high : int
        Voxels that end at the smallest or the largest penalty and would gain beyond; 0 where they are too few to count.
    all_low, all_high : bool
        Whether the mean over all voxels says so, whatever single ones do.
    """

    low: int = 0
    high: int = 0
    all_low: bool = False
    all_high: bool = False


def end_rows(alphas: F64) -> list[int]:
    """Indices of the smallest penalty, of the first a decade above it, of the last a decade below the largest, of the largest."""
    last = len(alphas) - 1
    above = int(np.searchsorted(alphas, alphas[0] * _DECADE * (1 - 1e-9)))
    below = int(np.searchsorted(alphas, alphas[-1] / _DECADE * (1 + 1e-9), side="right")) - 1
    return [0, min(above, last), max(below, 0), last]


def freedom_of(lam: F64, alphas: F64) -> Freedom:
    """Degrees of freedom from the eigenvalues of the Gram (r,) and the grid (a,)."""
    smallest, largest = (float((lam / (lam + alpha)).sum()) for alpha in (alphas[0], alphas[-1]))
    return Freedom(len(lam), smallest, largest)


def ends_of(scores_av: Array, alphas: F64, device: Device = HOST) -> F64:
    """(e, v) float64, on the host: scores at the four :func:`end_rows` of a grid, of scores that lie on a device."""
    rows = [scores_av[row, ...] for row in end_rows(alphas)]
    return np.asarray(device.get(device.xp.stack(rows)), dtype=np.float64)


def no_ends(n_voxels: int) -> F64:
    """(e, v): of voxels whose ends are not known; they count nowhere."""
    return np.full((4, n_voxels), np.nan)


def cost_of(ends_ev: F64, edge_v: NDArray[np.int8], varies_v: NDArray[np.bool_], scoring: str, n_rows: int, shared: bool) -> Cost:
    """Whether the ends of a grid cost score.

    Parameters
    ----------
    ends_ev : (e, v) float64
        From :func:`ends_of`; a mean squared error in units of the variance of its voxel. Columns with NaN do not count.
    edge_v : (v,) int8
        −1 where the smallest penalty was chosen, +1 where the largest.
    varies_v : (v,) bool
        Voxels that are neither constant nor skipped.
    scoring : str
    n_rows : int
        Of the responses.
    shared : bool
        Whether all voxels have one penalty: then their mean decides.

    Notes
    -----
    R² of a penalty without end is that of the mean of the training rows, about 0. That of a penalty far too large is about
    proportional to 1 / α, tiny for every voxel: only the mean over voxels tells it from chance. A correlation has no such limit,
    because it does not depend on the size of a prediction: it tends to that of the direction X Xᵀ y. Chance makes a correlation
    as often negative as positive. So voxels with the opposite sign, whose correlation is lowest at an end and falls towards it,
    are taken off the number of those that count, and what is left must exceed three times the root of their number.
    """
    known_v = varies_v & np.isfinite(ends_ev).all(axis=0)
    if not known_v.any():
        return Cost()
    ends, edge = ends_ev[:, known_v], edge_v[known_v]
    rise_low, rise_high, count = ends[0] - ends[1], ends[3] - ends[2], ends.shape[1]
    error = rise_low.std() / np.sqrt(count) if count > 1 else np.inf
    mean_low, mean_high = float(rise_low.mean()), float(rise_high.mean())
    all_low = bool(mean_low > _SURE * error and mean_low > _MOST * float((ends[0] - ends[3]).mean()) > 0)
    all_high = mean_high > _MEAN_RISE
    if shared:
        low, high = bool((edge < 0).all()), bool((edge > 0).all())
        counts = [count * (low and mean_low > _RISE), count * (high and mean_high > _RISE)]
        return Cost(counts[0], counts[1], all_low and low, all_high and high)
    counts, few = [], _FEW_R if scoring == "pearson" else _FEW
    for side, end, rise in ((-1, ends[0], rise_low), (1, ends[3], rise_high)):
        found, chance = int(((edge == side) & _predicted(end, scoring, n_rows) & (rise > _RISE)).sum()), 0
        if scoring == "pearson":
            lowest = end <= ends.min(axis=0)
            chance = int((lowest & _predicted(-end, scoring, n_rows) & (rise < -_RISE)).sum())
        counts.append(found - chance if found - chance > few * count + 3 * np.sqrt(chance) else 0)
    return Cost(counts[0], counts[1], all_low, all_high)


def _predicted(score_v: F64, scoring: str, n_rows: int) -> NDArray[np.bool_]:
    """(v,): whether a score is above what chance gives."""
    if scoring == "pearson":
        return score_v > _CHANCE_R / np.sqrt(n_rows)
    r2 = {"r2": score_v, "neg_mean_squared_error": 1.0 + score_v}[scoring]  # squared errors here are parts of the variance
    return r2 > _CHANCE_R2 / n_rows
