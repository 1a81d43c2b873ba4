"""Penalties of each voxel's own: every voxel climbs its held-out score in log δ, δ_b = γ_b / α, from where it stands.

    voxels ─► by cells of log δ ─► inverses at the cell's centre ─► tiles of voxels: steps within reach ─► those not done again

Cells lie on a lattice, so no voxel's result depends on which others there are. Where one solution for all voxels is wanted, their
mean score is climbed.

Legend: n = rows, b = bands, v = voxels, w = voxels of a tile, k = folds.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.banded.cells import CELL, Cell, CellReader, Solved, as_good_as_off, by_cells
from fastencode.solve.banded.checkpoint import Checkpoint
from fastencode.solve.banded.climb import Climb
from fastencode.solve.banded.grams import Grams
from fastencode.solve.banded.search import Chosen, Found, Settings
from fastencode.solve.banded.systems import systems_of, traces
from fastencode.solve.sweep import tie_tolerance
from fastencode.solve.targets import Targets

__all__ = ["Refiner", "bounds", "refine", "starts"]

F64 = NDArray[np.float64]
# How far from a cell's centre voxels are followed, in log δ: spectra within e^±2.
REACH = 2.0
# Of δ times the trace of a band's Gram: below the first it is not followed, and it starts no lower than so much of the largest.
_LOWEST, _START = 1e-5, 0.01
# And above this the systems lose their digits.
_HIGHEST = 1e10
# What is left of residuals: scores are off by its square.
TOLERANCE = 1e-4
# A step that promises less than this (in R², correlation, or shares of the variance) is not made.
WORTH = 1e-5


def bounds(grams: Grams) -> tuple[F64, F64]:
    """(lowest, highest) log δ of every band, (b, 1) each: from off to the grid's smallest penalty."""
    trace = np.log(traces(grams))[:, None]
    high = np.minimum(-np.log(grams.problem.alphas[0]), np.log(_HIGHEST) - trace)
    return np.minimum(np.log(_LOWEST) - trace, high - 1.0), high


def starts(grams: Grams, gammas_bv: F64, alpha_v: F64) -> F64:
    """(b, v) log δ to climb from: what was found, with bands that are next to off brought to where a slope can be felt."""
    low, high = bounds(grams)
    trace = traces(grams)[:, None]
    delta = gammas_bv / alpha_v
    least = _START * (delta * trace).max(axis=0) / trace
    return np.clip(np.log(np.maximum(np.maximum(delta, least), np.finfo(np.float64).tiny)), low, high)


def refine(
    chosen: Chosen,
    found: Found,
    grams: Grams,
    targets: Targets,
    settings: Settings,
    checkpoint: Checkpoint | None,
    bar: Any,
) -> dict[str, Any]:
    """Let every voxel go on from its candidate, and write down in ``chosen`` where that is better; an account of it."""
    at = starts(grams, chosen.gammas_bv, chosen.alpha_v)
    refiner = Refiner(grams, targets, settings, at if settings.per_target else at[:, :1])
    refiner.run(found.variance_v, found.bad_v, checkpoint, bar)
    climb, good, before = refiner.climb, ~found.bad_v, chosen.score_v
    if settings.per_target:
        score_v, delta = climb.score_v, np.exp(climb.at_bv)
        better = score_v > before + tie_tolerance(settings.scoring, found.variance_v)
    else:
        score_v, delta = refiner.together_v, np.repeat(np.exp(climb.at_bv), targets.n_voxels, axis=1)
        tolerance = tie_tolerance(settings.scoring, found.variance_v[good].mean()) if good.any() else np.inf
        better = np.full(len(good), bool(good.any()) and climb.score_v[0] > before[good].mean() + tolerance)
    own = np.flatnonzero(good & better)
    alphas, alpha = grams.problem.alphas, 1.0 / delta[:, own].sum(axis=0)
    chosen.which_v[own], chosen.alpha_v[own], chosen.gammas_bv[:, own] = -1, alpha, delta[:, own] * alpha
    chosen.edge_v[own] = (alpha >= alphas[-1]).astype(np.int8) - (alpha <= alphas[0]).astype(np.int8)
    gain = float((score_v[own] - before[own]).sum() / max(1, good.sum()))
    chosen.score_v[own] = score_v[own]
    return {
        "voxels": len(own),
        "mean_gain": gain,
        "evaluations": int(climb.steps_v.sum()),
        "cells": refiner.cells,
        "seconds": refiner.seconds,
    }


class Refiner:
    """Climbs scores from a start.

    Parameters
    ----------
    grams : Grams
    targets : Targets
    settings : Settings
        Of the search before.
    at_bv : (b, v) float64
        log δ to start from; (b, 1) where one solution for all is wanted.
    """

    def __init__(self, grams: Grams, targets: Targets, settings: Settings, at_bv: F64) -> None:
        self.grams, self.targets, self.settings, self.climb = grams, targets, settings, Climb.begin(at_bv)
        self.systems = systems_of(grams, grams.problem.folds)
        self.low, self.high = bounds(grams)
        self.worth_v = np.zeros(targets.n_voxels)
        self.together_v = np.zeros(targets.n_voxels)  # scores of the one best solution for all
        self.cells = 0
        self.seconds = {"inverses": 0.0, "climb": 0.0}
        # Where the round began and how many of its cells are done.
        self.round = {"at": self.climb.at_bv.copy(), "going": self.climb.going_v.copy(), "done": np.array(0)}

    def run(self, variance_v: F64, bad_v: NDArray[np.bool_], checkpoint: Checkpoint | None, bar: Any) -> None:
        """Climb until no voxel has anything to gain or steps left; from where a checkpoint stands, if there is one."""
        self.worth_v = WORTH * (variance_v if self.settings.scoring == "neg_mean_squared_error" else np.ones(len(variance_v)))
        if checkpoint is not None and checkpoint.refined:
            self._restore(checkpoint.refined)
        if not self.settings.per_target:
            self._run_together(bad_v, checkpoint, bar)
            return
        self.round["going"] &= ~bad_v
        self.climb.going_v &= ~bad_v
        while self.round["going"].any():
            cells = by_cells(self.grams, self.round["at"], np.flatnonzero(self.round["going"]))
            for centre_b, columns in cells[int(self.round["done"]) :]:
                job = _Follow(self, self.cell(np.exp(centre_b)), columns)
                bar.total += len(columns)
                self._timed(job, bar)
                self.round["done"] += 1
                self._keep(checkpoint)
            self.round = {"at": self.climb.at_bv.copy(), "going": self.climb.going_v.copy(), "done": np.array(0)}

    def _restore(self, kept: dict[str, NDArray[Any]]) -> None:
        for name in self.climb.arrays():
            setattr(self.climb, name, kept[f"climb/{name}"])
        self.round = {name: kept[f"round/{name}"] for name in self.round}
        self.together_v = kept["all/together"]

    def _timed(self, job: Any, bar: Any) -> None:
        since = time.perf_counter()
        job.run(job.job, bar)
        self.seconds["climb"] += time.perf_counter() - since

    def _keep(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            parts = {"climb": self.climb.arrays(), "round": self.round, "all": {"together": self.together_v}}
            checkpoint.write_refined({f"{part}/{name}": a for part, arrays in parts.items() for name, a in arrays.items()})

    def cell(self, delta_b: F64) -> Cell:
        """Inverses at one δ, with all threads."""
        since = time.perf_counter()
        cell = Cell.at(self.systems, delta_b)
        self.seconds["inverses"] += time.perf_counter() - since
        self.cells += 1
        return cell

    def _run_together(self, bad_v: NDArray[np.bool_], checkpoint: Checkpoint | None, bar: Any) -> None:
        """One δ for all voxels: each evaluation is one pass, at its own inverses."""
        climb, one, columns = self.climb, np.zeros(1, dtype=np.intp), np.flatnonzero(~bad_v)
        while len(columns):
            at = climb.propose(one, self.low, self.high, self.worth_v[columns].mean(keepdims=True))
            if not climb.going_v[0] or climb.steps_v[0] >= self.settings.steps:
                return
            once = _Once(self, self.cell(np.exp(at[:, 0])), columns, at)
            bar.total += len(columns)
            self._timed(once, bar)
            before = climb.score_v[0]
            climb.take(one, at, once.scores_v[columns].mean(keepdims=True), once.slopes_bv[:, columns].mean(axis=1)[:, None])
            if climb.score_v[0] != before:
                self.together_v = once.scores_v
            self._keep(checkpoint)


class _Evaluator(CellReader):
    """Tiles of voxels of one cell, and their scores."""

    def __init__(self, refiner: Refiner, cell: Cell, columns: NDArray[np.intp]) -> None:
        super().__init__(cell, refiner.targets, refiner.settings.skip_nan, columns)
        self.refiner = refiner

    def evaluate(self, y_nw: F64, at_bw: F64, states: list[Solved]) -> tuple[F64, F64]:
        """(score (w,), slope (b, w)) of some voxels at their log δ, means over folds."""
        delta, scoring = np.exp(at_bw), self.refiner.settings.scoring
        score, slope = np.zeros(y_nw.shape[1]), np.zeros(at_bw.shape)
        for k, state in enumerate(states):
            self.cell.solve(k, delta, state, TOLERANCE)
            one, by = self.cell.score(k, y_nw, scoring, state, TOLERANCE)
            score += one
            slope += by
        return score / len(states), slope / len(states)


class _Follow(_Evaluator):
    """Lets every voxel of a cell make its steps, as far as the cell's inverses reach."""

    def job(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        """Climb with the voxels of one tile."""
        refiner, climb = self.refiner, self.refiner.climb
        y_nw, _ = self.responses(slab, inside, here)
        states = [self.cell.start(k, y_nw) for k in range(len(self.cell.inverses))]
        at_centre = np.log(self.cell.delta_b)[:, None]
        off = at_centre - CELL / 2 <= as_good_as_off(refiner.grams)
        low = np.where(off, refiner.low, np.maximum(refiner.low, at_centre - REACH))
        high = np.maximum(np.minimum(refiner.high, at_centre + REACH), low)
        while len(here):
            proposed = climb.propose(here, refiner.low, refiner.high, refiner.worth_v[here])
            climb.going_v[here[climb.steps_v[here] >= refiner.settings.steps]] = False
            within = np.clip(proposed, low, high)
            step, wanted = (np.abs(there - climb.at_bv[:, here]).max(axis=0) for there in (within, proposed))
            # A voxel that wants to go where this cell does not reach goes on from another.
            go = climb.going_v[here] & ((step >= 0.5 * wanted) | ~np.isfinite(climb.score_v[here]))
            some = np.flatnonzero(go)
            if len(some) < len(here):
                here, y_nw, within = here[some], y_nw[:, some], within[:, some]
                states = [state.take(some) for state in states]
            if len(here):
                climb.take(here, within, *self.evaluate(y_nw, within, states))


class _Once(_Evaluator):
    """Evaluates one δ for all voxels."""

    def __init__(self, refiner: Refiner, cell: Cell, columns: NDArray[np.intp], at_b1: F64) -> None:
        super().__init__(refiner, cell, columns)
        self.at = at_b1
        self.scores_v, self.slopes_bv = np.zeros(self.targets.n_voxels), np.zeros((len(at_b1), self.targets.n_voxels))

    def job(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        """Score one tile."""
        y_nw, _ = self.responses(slab, inside, here)
        states = [self.cell.start(k, y_nw) for k in range(len(self.cell.inverses))]
        at = np.repeat(self.at, y_nw.shape[1], axis=1)
        self.scores_v[here], self.slopes_bv[:, here] = self.evaluate(y_nw, at, states)
