"""Which penalty a voxel gets: the largest of those whose scores tie with the best, or are within one standard error of it.

Written once, for arrays of the host and of a device.

Legend: v = voxels, a = penalties, f = folds, w = voxels of a tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.devices import HOST, Array, ArrayT, Device
from fastencode.errors import InputError
from fastencode.solve.given.folds import Fold
from fastencode.solve.given.problem import Problem

__all__ = [
    "TIE_TOLERANCE",
    "Choice",
    "EachFold",
    "check_rule",
    "check_test_rows",
    "choose_alphas",
    "choose_shared",
    "edges_of",
    "scores_at",
    "tie_tolerance",
]

_RULES = ("best", "one-se")
# Each fold's scores are kept where there are at most this many folds.
_MOST_FOLDS = 64
# Until the choice, scores of folds are held at every penalty: for a tile of at most this many voxels (``scorer._WIDEST``), or for
# all voxels where one penalty is chosen for all.
_TILE = 768
# Most bytes that may take where no ``memory`` is given; else a quarter of it.
_WAITING = 2**30

# Scores closer than this to the best are ties, and the largest penalty among them wins: in R² or correlation itself, and for
# the mean squared error in units of the target's variance. Above float32's rounding of a score, far below what a
# voxel's score is known to.
TIE_TOLERANCE = 1e-6


def check_test_rows(folds: list[Fold], scoring: str, name: str = "cv") -> None:
    """Refuse folds that hold out one row where the score needs a variance."""
    if scoring == "neg_mean_squared_error":
        return
    for k, (_, test) in enumerate(folds):
        if len(test) < 2:
            raise InputError(
                f"fold {k} of {name} holds out a single row, where {scoring!r} is not defined; pass fewer folds or "
                "scoring='neg_mean_squared_error'"
            )


def check_rule(rule: str, problem: Problem) -> bool:
    """Whether the rule needs standard errors over folds, or ``InputError``."""
    if rule not in _RULES:
        raise InputError(f"rule={rule!r}; pass one of {', '.join(map(repr, _RULES))}")
    if rule == "one-se" and len(problem.folds) < 2:
        raise InputError(f"rule='one-se' needs a standard error over folds, and cv makes {len(problem.folds)}; pass at least 2")
    return bool(rule == "one-se")


class Choice(NamedTuple):
    """How penalties are chosen.

    Attributes
    ----------
    per_target : bool
        Whether each voxel gets its own.
    one_se : bool
        Whether it is the largest within one standard error of the best.
    keep : bool
        Whether each fold's scores at the chosen penalty are kept.
    """

    per_target: bool = True
    one_se: bool = False
    keep: bool = False

    @classmethod
    def check(cls, problem: Problem, n_voxels: int, per_target: bool, rule: str) -> Choice:
        """Checked arguments; scores of folds are kept where they are few (see ``_MOST_FOLDS``)."""
        n_folds, room = len(problem.folds), _WAITING if problem.memory is None else problem.memory // 4
        waiting = n_folds * len(problem.alphas) * (8 * _TILE if per_target else n_voxels * problem.X.dtype.itemsize)
        return cls(per_target, check_rule(rule, problem), 0 < n_folds <= _MOST_FOLDS and waiting <= room)

    def each(self, device: Device, n_folds: int) -> EachFold | None:
        """What takes the scores of every fold of a tile; None where only their mean is wanted."""
        return EachFold(self, device, n_folds) if self.keep or self.one_se else None

    def bytes_per_voxel(self, n_alphas: int, n_folds: int) -> int:
        """What :class:`EachFold` holds for one voxel of a tile."""
        return 8 * n_alphas * (n_folds * self.keep + 4 * (self.one_se and self.per_target))


class EachFold:
    """Scores (a, w) of a tile, fold by fold, beside their mean.

    Attributes
    ----------
    kept : list of f (a, w) arrays
        Every fold's, where the choice keeps them; else empty.
    sums : list of f (a,) arrays
        Their sums over voxels, where standard errors of the mean over voxels are wanted; else empty.
    """

    def __init__(self, choice: Choice, device: Device, n_folds: int) -> None:
        self.device = device
        self.spread = choice.one_se and choice.per_target
        self.kept: list[Any] = [None] * n_folds if choice.keep else []
        self.sums: list[Any] = [None] * n_folds if choice.one_se and not choice.per_target else []
        self.count = 0
        self.mean: Array | float = 0.0
        self.squares: Array | float = 0.0

    def add(self, fold: int, scores_aw: Array) -> None:
        """Take the float64 scores of a fold, which are not written to later."""
        if self.kept:
            self.kept[fold] = scores_aw
        if self.sums:
            self.sums[fold] = self.device.xp.sum(scores_aw, axis=1)
        if self.spread:  # as Welford does it: squares lose no digits to the mean
            off = scores_aw - self.mean
            self.count += 1
            self.mean = self.mean + off / self.count
            self.squares = self.squares + off * (scores_aw - self.mean)

    def error(self) -> Array | None:
        """(a, w): standard error of the mean over folds, √(Σ (s − s̄)² / (f (f − 1))); None where it is not wanted."""
        return self.device.xp.sqrt(self.squares / (self.count * (self.count - 1))) if self.spread else None

    def at(self, chosen_w: Array) -> Array:
        """(f, w): every fold's score at each voxel's penalty."""
        return self.device.xp.stack([scores_at(scores_aw, chosen_w, self.device) for scores_aw in self.kept])


def tie_tolerance(scoring: str, variance: ArrayT | float) -> ArrayT | float:
    """The largest difference of two scores that counts as a tie, for voxels of this variance."""
    return TIE_TOLERANCE * variance if scoring == "neg_mean_squared_error" else TIE_TOLERANCE


def choose_alphas(scores_av: ArrayT, tolerance: Array | float, device: Device = HOST, error_av: Array | None = None) -> ArrayT:
    """Index of each voxel's penalty, in the order of the rows (increasing α): the largest whose score is within the tolerance of
    the best; 0 where scores are NaN.

    With ``error_av``, standard errors of the scores, one standard error is added to the tolerance: that of the penalty which
    would be chosen without it.
    """
    xp = device.xp
    if error_av is not None:
        tolerance = tolerance + scores_at(error_av, choose_alphas(scores_av, tolerance, device), device)
    order_a1 = device.count(scores_av.shape[0])[:, None]
    ties = scores_av >= device.largest(scores_av) - tolerance
    return device.largest(xp.where(ties, order_a1, xp.zeros_like(order_a1)))


def choose_shared(
    scores_av: NDArray[Any],
    scoring: str,
    variance_v: NDArray[np.float64],
    bad_v: NDArray[np.bool_],
    sums_fa: NDArray[np.float64] | None = None,
) -> int:
    """Index of one penalty for all voxels, by their mean score. Arrays of the host.

    With ``sums_fa``, the sum over voxels of each fold's score (0 for bad voxels), the largest within one standard error of the
    best.
    """
    good = ~bad_v
    if not good.any():
        return 0
    mean, error = scores_av[:, good].mean(axis=1, keepdims=True, dtype=np.float64), None
    if sums_fa is not None:
        error = (np.std(sums_fa / good.sum(), axis=0, ddof=1) / np.sqrt(len(sums_fa)))[:, None]
    return int(choose_alphas(mean, tie_tolerance(scoring, variance_v[good].mean()), error_av=error)[0])


def scores_at(scores_av: ArrayT, chosen_v: Array, device: Device = HOST) -> ArrayT:
    """(v,): each voxel's score at its penalty."""
    xp = device.xp
    order_a1 = device.count(scores_av.shape[0])[:, None]
    return xp.sum(xp.where(order_a1 == chosen_v[None, :], scores_av, xp.zeros_like(scores_av[:1, :1])), axis=0)


def edges_of(chosen_v: ArrayT, n_alphas: int, device: Device = HOST) -> ArrayT:
    """−1 where the smallest penalty was chosen, +1 where the largest, else 0; 0 for a grid of one. (v,) int8."""
    at_last, at_first = (device.cast(chosen_v == i, np.int8) for i in (n_alphas - 1, 0))
    return at_last - at_first
