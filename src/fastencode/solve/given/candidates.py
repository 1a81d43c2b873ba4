"""Weightings γ of the bands to try (docs/solver.md, 7): equal weights, equal traces and Dirichlet samples; a grid; or given ones.

A search tries candidates (i, b) on all voxels. Without a search every voxel has given weights of its own, (b, v).

Legend: i = candidates, b = bands, v = voxels.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import F64, to_host
from fastencode.errors import InputError

__all__ = ["given_penalties", "make_candidates", "simplex_grid", "with_equal_traces"]


def make_candidates(
    n_bands: int, gammas: ArrayLike | None, n_iter: int, concentration: ArrayLike, random_state: np.random.Generator
) -> F64:
    """(i, b) weights of at least 0, not all 0 in any candidate; arguments as in ``banded_ridge_cv``. Raises ``InputError``.

    The candidate with equal traces is added once the Grams of the bands are known: :func:`with_equal_traces`.
    """
    if gammas is not None and not isinstance(gammas, str):
        return _given(gammas, n_bands)
    if isinstance(n_iter, bool) or not isinstance(n_iter, int | np.integer) or n_iter < 1:
        raise InputError(f"n_iter={n_iter!r}; pass a positive number of candidates (given ones are gammas=)")
    if n_bands == 1:
        return np.ones((1, 1))
    if gammas is not None:
        if gammas != "grid":
            raise InputError(f"gammas={gammas!r}; pass 'grid' or an array (candidates, bands)")
        return simplex_grid(n_bands, int(n_iter))
    return _dirichlet(n_bands, int(n_iter), concentration, random_state)


def with_equal_traces(candidates_ib: F64, trace_b: F64, first: bool) -> F64:
    """The candidates, one of them replaced by weights that give the Grams of all bands the same trace.

    Let T_b be the trace of the Gram of band b. For B bands γ_b = mean(T) / (B T_b). Then Σ γ_b T_b is the same as at equal
    weights 1 / B, so a grid of penalties means the same for both.

    Parameters
    ----------
    candidates_ib : (i, b) float64
        Equal weights, then samples.
    trace_b : (b,) float64
        Positive.
    first : bool
        True makes the candidate with equal traces the first, and equal weights the second; False makes it the second.
    """
    out = candidates_ib.copy()
    place = 0 if first else 1
    out[1 - place : 2 - place] = candidates_ib[0]
    out[place : place + 1] = trace_b.mean() / (len(trace_b) * trace_b)
    return out


def _given(gammas: ArrayLike, n_bands: int) -> F64:
    array = np.atleast_2d(to_host(gammas, "gammas")).astype(np.float64)
    if array.ndim != 2 or array.shape[1] != n_bands or not len(array):
        raise InputError(f"gammas has shape {array.shape} and there are {n_bands} bands; pass (candidates, {n_bands})")
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        i, b = map(int, np.argwhere(bad)[0])
        raise InputError(f"gammas holds {array[i, b]} for band {b} of candidate {i}; weights must be finite and not negative")
    if not array.any(axis=1).all():
        raise InputError(
            f"candidate {int(np.argmin(array.any(axis=1)))} of gammas is zero for every band; nothing would be fitted"
        )
    return array


def given_penalties(
    gammas: ArrayLike | None, alphas: ArrayLike, n_bands: int, n_voxels: int, left_out: NDArray[np.bool_] | None
) -> tuple[F64, F64]:
    """(weights of the bands (b, v), penalty (v,)) of every voxel, as given for ``cv=None``.

    Parameters
    ----------
    gammas : (b, v), or (b,) for all voxels
        Finite, not negative, not zero for every band of a voxel.
    alphas : (v,), or a number for all voxels
        Positive and finite: checked with the problem.
    n_bands, n_voxels : int
    left_out : (v,) bool array, optional
        Voxels to be skipped, whose values do not count.

    Raises
    ------
    InputError
        Naming the shape that was passed, or the voxel and the value.
    """
    if gammas is None or isinstance(gammas, str):
        raise InputError(
            f"cv=None fits given penalties, and gammas={gammas!r}; pass gammas=(bands, voxels), or folds as cv= to search"
        )
    weights = to_host(gammas, "gammas").astype(np.float64)
    if weights.shape not in ((n_bands,), (n_bands, n_voxels)):
        raise InputError(
            f"gammas has shape {weights.shape}; for cv=None pass one weight for each band and voxel, ({n_bands}, {n_voxels}), "
            f"or one for each band, ({n_bands},)"
        )
    gammas_bv = np.array(np.broadcast_to(weights.reshape(n_bands, -1), (n_bands, n_voxels)))
    if left_out is not None and left_out.shape == (n_voxels,):
        gammas_bv[:, left_out] = 1.0
    bad = ~(np.isfinite(gammas_bv) & (gammas_bv >= 0))
    if bad.any():
        b, v = map(int, np.argwhere(bad)[0])
        raise InputError(f"gammas holds {gammas_bv[b, v]} for band {b} of voxel {v}; weights must be finite and not negative")
    if not gammas_bv.any(axis=0).all():
        raise InputError(f"gammas is zero for every band of voxel {int(np.argmin(gammas_bv.any(axis=0)))}; leave that voxel out")
    alpha = to_host(alphas, "alphas").astype(np.float64)
    alpha = np.where(left_out, 1.0, alpha) if left_out is not None else alpha
    if alpha.shape not in ((), (1,), (n_voxels,)):
        raise InputError(
            f"alphas has shape {alpha.shape}; for cv=None pass one penalty for each voxel, ({n_voxels},), or a number for all"
        )
    return gammas_bv, np.array(np.broadcast_to(alpha, (n_voxels,)))


def _dirichlet(n_bands: int, n_iter: int, concentration: ArrayLike, random_state: np.random.Generator) -> F64:
    """Equal weights first, then samples that take turns with the concentrations."""
    levels = np.atleast_1d(to_host(concentration, "concentration")).astype(np.float64)
    if levels.ndim != 1 or not levels.size or not (np.isfinite(levels) & (levels > 0)).all():
        raise InputError(f"concentration={concentration!r}; pass positive numbers")
    rng = np.random.default_rng(random_state)
    out = np.full((n_iter, n_bands), 1.0 / n_bands)
    for i in range(1, n_iter):
        out[i] = rng.dirichlet(np.full(n_bands, levels[i % len(levels)]))
    return out


def simplex_grid(n_bands: int, at_most: int) -> F64:
    """The finest regular grid on the simplex with at most ``at_most`` points, corners (one band alone) included.

    Raises
    ------
    InputError
        If ``at_most`` is less than the number of corners.
    """
    if at_most < n_bands:
        raise InputError(f"n_iter={at_most} is too few for a grid of {n_bands} bands: pass at least {n_bands}, for its corners")
    steps = 1
    while comb(steps + n_bands, n_bands - 1) <= at_most:  # points of the next finer one
        steps += 1
    bars = np.array(list(combinations(range(steps + n_bands - 1), n_bands - 1))).reshape(-1, n_bands - 1)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + n_bands - 1)])
    return np.asarray((np.diff(edges, axis=1) - 1) / steps, dtype=np.float64)
