"""Which penalty a voxel gets: the largest of those whose scores tie with the best.

Written once, for arrays of the host and of a device.

Legend: v = voxels, a = penalties.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.devices import HOST, Device
from fastencode.errors import InputError
from fastencode.solve.given.problem import Problem

__all__ = ["TIE_TOLERANCE", "check_test_rows", "choose_alphas", "choose_shared", "edges_of", "scores_at", "tie_tolerance"]

# Scores closer than this to the best are ties, and the largest penalty among them wins: in R² or correlation itself, and for
# the mean squared error in units of the target's variance. Above float32's rounding of a score, far below what a
# voxel's score is known to.
TIE_TOLERANCE = 1e-6


def check_test_rows(problem: Problem, scoring: str) -> None:
    """Refuse folds that hold out one row where the score needs a variance."""
    if scoring == "neg_mean_squared_error":
        return
    for k, (_, test) in enumerate(problem.folds):
        if len(test) < 2:
            raise InputError(
                f"fold {k} holds out a single row, where {scoring!r} is not defined; pass fewer folds or "
                "scoring='neg_mean_squared_error'"
            )


def tie_tolerance(scoring: str, variance: Any) -> Any:
    """Scores of voxels of this variance that are nearer to each other are ties."""
    return TIE_TOLERANCE * variance if scoring == "neg_mean_squared_error" else TIE_TOLERANCE


def choose_alphas(scores_av: Any, tolerance: Any, device: Device = HOST) -> Any:
    """Index of each voxel's penalty: the largest whose score is within the tolerance of the best; 0 where scores are NaN."""
    xp = device.xp
    order_a1 = device.put(np.arange(scores_av.shape[0])[:, None], np.int64)
    ties = scores_av >= device.largest(scores_av) - tolerance
    return device.largest(xp.where(ties, order_a1, xp.zeros_like(order_a1)))


def choose_shared(scores_av: NDArray[Any], scoring: str, variance_v: NDArray[np.float64], bad_v: NDArray[np.bool_]) -> int:
    """Index of one penalty for all voxels, by their mean score. Arrays of the host."""
    good = ~bad_v
    if not good.any():
        return 0
    mean = scores_av[:, good].mean(axis=1, keepdims=True, dtype=np.float64)
    return int(choose_alphas(mean, tie_tolerance(scoring, variance_v[good].mean()))[0])


def scores_at(scores_av: Any, chosen_v: Any, device: Device = HOST) -> Any:
    """(v,): each voxel's score at its penalty."""
    xp = device.xp
    order_a1 = device.put(np.arange(scores_av.shape[0])[:, None], np.int64)
    return xp.sum(xp.where(order_a1 == chosen_v[None, :], scores_av, xp.zeros_like(scores_av[:1, :1])), axis=0)


def edges_of(chosen_v: Any, n_alphas: int, device: Device = HOST) -> Any:
    """−1 where the smallest penalty was chosen, +1 where the largest, else 0; 0 for a grid of one. (v,) int8."""
    at_last, at_first = (device.cast(chosen_v == i, np.int8) for i in (n_alphas - 1, 0))
    return at_last - at_first
