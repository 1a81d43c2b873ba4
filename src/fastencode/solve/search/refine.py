"""Penalties of each voxel's own: every voxel climbs its held-out score in log δ, δ_b = γ_b / α, from where it stands.

    voxels ─► by cells of log δ ─► inverses at the cell's centre ─► tiles of voxels: steps within reach ─► those not done again

The slopes and their systems are in docs/solver.md, section 7. Cells lie on a fixed lattice, so the result of a voxel does not
depend on which other voxels there are. For ``per_target=False`` all voxels share one δ, which climbs their mean score.

Legend: n = rows, b = bands, v = voxels, w = voxels of a tile, k = folds.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import Array, Device
from fastencode.errors import warn
from fastencode.progress import Bar
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.centered import centered_rows
from fastencode.solve.plan.grams import Grams
from fastencode.solve.score.choose import tie_tolerance
from fastencode.solve.search.cells import CELL, Cell, CellReader, Solved, as_good_as_off, by_cells
from fastencode.solve.search.checkpoint import Checkpoint
from fastencode.solve.search.climb import Climb
from fastencode.solve.search.state import Chosen, Found, Settings
from fastencode.solve.search.systems import HIGHEST, systems_of, traces

__all__ = ["Refiner", "bounds", "refine", "starts", "warn_uneven"]

# How far from a cell's centre its inverse is used, in log δ: the spectrum of A_c⁻¹ A is then within e^±3.
REACH = 3.0
# Bounds on δ_b trace(K_b): _LOWEST ends the search range; a start is at least _START times the largest band's.
_LOWEST, _START = 1e-5, 0.01
# A start is the mean of the candidates weighted by exp(−(best score − score) / _NEAR).
_NEAR = 0.03
# A band is uneven where the largest sum of squares of a column is more than this many times the median one; rows squared at once.
_UNEVEN, _ROWS = 1e5, 256
# Relative residuals: while climbing, where scores are off by the square of it; and for the final scores, off by it.
TOLERANCE, _EXACT = 1e-3, 1e-7
# A step that promises less than this (in R², correlation, or shares of the variance) is not made.
WORTH = 3e-5


def bounds(grams: Grams) -> tuple[F64, F64]:
    """(lowest, highest) log δ of every band, (b, 1) each: from off to the grid's smallest penalty.

    That penalty is meant for a band whose Gram has the mean trace. With a smaller one, in small units or narrow, a band may go to
    the δ that makes as much of it.
    """
    trace = np.log(traces(grams))[:, None]
    smaller = np.maximum(0.0, np.log(traces(grams).mean()) - trace)
    high = np.minimum(smaller - np.log(grams.problem.alphas[0]), np.log(HIGHEST) - trace)
    return np.minimum(np.log(_LOWEST) - trace, high - 1.0), high


def warn_uneven(grams: Grams) -> None:
    """Warn of bands with a column in much larger units than the others.

    The gradient has one δ for a band and measures the band by trace(K_b): starts, bounds and what counts as off. A column with
    most of the trace hides all others: the penalties that suit those are out of reach.
    """
    squares_p = _squares(grams)
    told = []
    for name, columns in zip(grams.bands.names, grams.bands.columns, strict=True):
        squares = squares_p[columns]
        usual = np.median(squares[squares > 0]) if (squares > 0).any() else 0.0
        if squares.max() > _UNEVEN * usual:
            ratio = float(np.sqrt(squares.max() / usual))
            told.append(
                f"column {int(columns[squares.argmax()])} of band {name!r} is {ratio:.2g} times as large as its median column"
            )
    if told:
        warn(
            f"{'; '.join(told)}. The gradient finds one penalty for a band, and such a column decides it: the other columns may "
            "hardly count. Scale the columns of a band alike (standardise them), or give such a column a band of its own"
        )


def _squares(grams: Grams) -> F64:
    """(p,): (weighted) sum of squares of every column about its mean; none where only kernels were given."""
    if grams.primal_pp is not None:
        return np.diag(grams.primal_pp)
    X = grams.problem.X
    out = np.zeros(X.shape[1])
    for first in range(0, len(X), _ROWS):
        block: Any = centered_rows(X, grams.mean_p, grams.root_t, slice(first, first + _ROWS))
        out += np.einsum("tp,tp->p", block, block)
    return out


def starts(grams: Grams, candidates_ib: F64, scores_iv: F64, alphas_iv: NDArray[Any], unit_v: F64) -> F64:
    """(b, v) log δ to climb from: the mean of all candidates with weights that fall with what their scores lack to the best.

    It lies further inside than the best candidate, often a corner, where the slope of a band next to off cannot be felt.
    """
    low, high = bounds(grams)
    trace, tiny = traces(grams)[:, None], np.finfo(np.float64).tiny
    weights_iv = np.exp((scores_iv - scores_iv.max(axis=0)) / (_NEAR * np.maximum(unit_v, tiny)))
    weights_iv /= weights_iv.sum(axis=0)
    log_alpha = (weights_iv * np.log(grams.problem.alphas)[alphas_iv]).sum(axis=0)
    delta = np.exp(np.log(np.maximum(candidates_ib.T @ weights_iv, tiny)) - log_alpha)
    least = _START * (delta * trace).max(axis=0) / trace
    return np.clip(np.log(np.maximum(delta, least)), low, high)


def refine(
    chosen: Chosen,
    found: Found,
    candidates_ib: F64,
    grams: Grams,
    targets: Targets,
    settings: Settings,
    checkpoint: Checkpoint | None,
    bar: Bar,
    device: Device | None = None,
) -> dict[str, Any]:
    """Let every voxel climb from a start near its candidates, on the device if there is one. Where the final score is better by
    more than a tie, ``chosen`` is overwritten. Returns an account for ``stats``."""
    good, before, tried = ~found.bad_v, chosen.score_v, found.tried
    if not good.any():
        return {"voxels": 0, "mean_gain": 0.0, "evaluations": 0, "cells": 0, "seconds": {}}
    unit_v = found.variance_v if settings.scoring == "neg_mean_squared_error" else np.ones(targets.n_voxels)
    scores_iv, alphas_iv, unit = found.scores_iv[:tried].astype(np.float64), found.alphas_iv[:tried], unit_v
    if not settings.per_target:
        scores_iv, alphas_iv = scores_iv[:, good].mean(axis=1, keepdims=True), alphas_iv[:, :1]
        unit = unit_v[good].mean(keepdims=True)
    at = starts(grams, candidates_ib[:tried], scores_iv, alphas_iv, unit)
    refiner = Refiner(grams, targets, settings, at, WORTH * unit, device)
    refiner.run(found.bad_v, None if checkpoint is None else _Kept(checkpoint, found.arrays(candidates_ib)), bar)
    climb, at = refiner.climb, np.broadcast_to(refiner.climb.at_bv, (len(grams.bands), targets.n_voxels))
    score_v, delta = refiner.exact_scores(at, np.flatnonzero(good), bar), np.exp(at)
    if settings.per_target:
        better = score_v > before + tie_tolerance(settings.scoring, found.variance_v)
    else:
        tolerance = tie_tolerance(settings.scoring, found.variance_v[good].mean())
        better = np.full(len(good), bool(score_v[good].mean() > before[good].mean() + tolerance))
    own = np.flatnonzero(good & better)
    alphas, alpha = grams.problem.alphas, 1.0 / delta[:, own].sum(axis=0)
    chosen.which_v[own], chosen.alpha_v[own], chosen.gammas_bv[:, own] = -1, alpha, delta[:, own] * alpha
    # The penalty α at which equal weights give the same Σ_b δ_b trace(K_b): it does not depend on the units of the bands.
    trace_b = traces(grams)
    as_equal = trace_b.mean() / (trace_b @ delta[:, own])
    chosen.edge_v[own] = (as_equal >= alphas[-1]).astype(np.int8) - (as_equal <= alphas[0]).astype(np.int8)
    gain = float((score_v[own] - before[own]).sum() / good.sum())
    chosen.score_v[own], chosen.unsolved_v[own] = score_v[own], refiner.unsolved_v[own]
    return {
        "voxels": len(own),
        "mean_gain": gain,
        "evaluations": int(climb.steps_v.sum()),
        "cells": refiner.cells,
        "seconds": refiner.seconds,
    }


class _Kept:
    """The checkpoint of a refinement. Its file also holds the state of the search that came before."""

    def __init__(self, checkpoint: Checkpoint, search: dict[str, NDArray[Any]]) -> None:
        self.checkpoint, self.search = checkpoint, search

    def read(self, steps: int) -> dict[str, NDArray[Any]]:
        """The arrays of a refinement with the same ``n_steps``; none for another number, so that it starts anew."""
        kept = self.checkpoint.read()
        return kept if "steps" in kept and int(kept["steps"]) == steps else {}

    def write(self, steps: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Replace what is known of the refinement."""
        self.checkpoint.write({**self.search, "steps": np.array(steps), **arrays})


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
    worth_v : (v,) or (1,) float64
        Gain of a score that a step is made for.
    device : Device, optional
        Where systems are solved; the host without.
    """

    def __init__(
        self, grams: Grams, targets: Targets, settings: Settings, at_bv: F64, worth_v: F64, device: Device | None = None
    ) -> None:
        self.grams, self.targets, self.settings, self.climb = grams, targets, settings, Climb.begin(at_bv)
        self.systems = systems_of(grams, grams.problem.folds, device)
        self.low, self.high = bounds(grams)
        self.worth_v = worth_v
        self.unsolved_v = np.zeros(targets.n_voxels)
        self.cells = 0
        self.seconds = {"inverses": 0.0, "climb": 0.0}
        # The state when this round began, and how many of its cells are done.
        self.round = {"at": self.climb.at_bv.copy(), "going": self.climb.going_v.copy(), "done": np.array(0)}

    def run(self, bad_v: NDArray[np.bool_], checkpoint: _Kept | None, bar: Bar) -> None:
        """Climb until every voxel has ended (nothing to gain, or no steps left), starting from the checkpoint if there is one."""
        kept = {} if checkpoint is None else checkpoint.read(self.settings.steps)
        if kept:
            self._restore(kept)
        if not self.settings.per_target:
            self._run_together(bad_v, checkpoint, bar)
            return
        self.round["going"] &= ~bad_v
        self.climb.going_v &= ~bad_v
        while self.round["going"].any():
            cells = by_cells(self.grams, self.round["at"], np.flatnonzero(self.round["going"]))
            for centre_b, columns in cells[int(self.round["done"]) :]:
                self._visit(_Follow(self, self.cell(np.exp(centre_b)), columns), len(columns), bar)
                self.round["done"] += 1
                self._keep(checkpoint)
            self.round = {"at": self.climb.at_bv.copy(), "going": self.climb.going_v.copy(), "done": np.array(0)}

    def _restore(self, kept: dict[str, NDArray[Any]]) -> None:
        for name in self.climb.arrays():
            setattr(self.climb, name, kept[f"climb {name}"])
        self.round = {name: kept[f"round {name}"] for name in self.round}

    def _visit(self, job: CellReader, count: int, bar: Bar) -> None:
        """Do a cell's job. The caller keeps no name of it, so that its inverses are freed before the next cell's are made."""
        bar.total += count
        since = time.perf_counter()
        job.run(job.job, bar)
        self.seconds["climb"] += time.perf_counter() - since

    def _keep(self, checkpoint: _Kept | None) -> None:
        if checkpoint is not None:
            parts = {"climb": self.climb.arrays(), "round": self.round}
            arrays = {f"{part} {name}": array for part, some in parts.items() for name, array in some.items()}
            checkpoint.write(self.settings.steps, arrays)

    def exact_scores(self, at_bv: F64, columns: NDArray[np.intp], bar: Bar) -> F64:
        """(v,): scores at log δ, systems solved to ``_EXACT``; −∞ for voxels that are not in ``columns``."""
        out = np.full(self.targets.n_voxels, -np.inf)
        for centre_b, some in by_cells(self.grams, at_bv, columns):
            self._visit(_Exact(self, self.cell(np.exp(centre_b)), some, at_bv, out), len(some), bar)
        return out

    def cell(self, delta_b: F64) -> Cell:
        """Inverses at one δ, with all threads."""
        since = time.perf_counter()
        cell = Cell.at(self.systems, delta_b)
        self.seconds["inverses"] += time.perf_counter() - since
        self.cells += 1
        return cell

    def _run_together(self, bad_v: NDArray[np.bool_], checkpoint: _Kept | None, bar: Bar) -> None:
        """Climb with one δ for all voxels: each evaluation inverts anew and passes over all voxels once."""
        climb, one, columns = self.climb, np.zeros(1, dtype=np.intp), np.flatnonzero(~bad_v)
        while True:
            at = climb.propose(one, self.low, self.high, self.worth_v)
            if not climb.going_v[0] or climb.steps_v[0] >= self.settings.steps:
                return
            once = _Once(self, self.cell(np.exp(at[:, 0])), columns, at)
            self._visit(once, len(columns), bar)
            climb.take(one, at, once.scores_v[columns].mean(keepdims=True), once.slopes_bv[:, columns].mean(axis=1)[:, None])
            self._keep(checkpoint)


class _Evaluator(CellReader):
    """Tiles of voxels of one cell, and their scores."""

    def __init__(self, refiner: Refiner, cell: Cell, columns: NDArray[np.intp]) -> None:
        super().__init__(cell, refiner.targets, refiner.settings.skip_nan, columns)
        self.refiner = refiner

    def evaluate(self, y_nw: Array, at_bw: F64, states: list[Solved]) -> tuple[F64, F64]:
        """(score (w,), slope (b, w)) of some voxels at their log δ, means over folds."""
        delta, scoring, get = self.device.put(np.exp(at_bw)), self.refiner.settings.scoring, self.device.get
        score, slope = np.zeros(at_bw.shape[1]), np.zeros(at_bw.shape)

        def one_fold(k: int) -> tuple[Array, Array]:
            self.cell.solve(k, delta, states[k], TOLERANCE)
            return self.cell.slope(k, y_nw, scoring, states[k], TOLERANCE)

        for one, by in self.each_fold(one_fold):
            score += get(one)
            slope += get(by)
        return score / len(states), slope / len(states)


class _Follow(_Evaluator):
    """Lets every voxel of a cell climb while it stays within ``REACH`` of the centre."""

    def tile(self, y_nw: Array, mean_w: F64, here: NDArray[np.intp]) -> None:
        """Climb with the voxels of one tile."""
        refiner, climb = self.refiner, self.refiner.climb
        states = self.each_fold(partial(self.cell.start, y_nw=y_nw))
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
                here, within, there = here[some], within[:, some], self.device.put(some)
                y_nw = self.device.take(y_nw, there, axis=1)
                states = [state.take(there, self.device) for state in states]
            if len(here):
                climb.take(here, within, *self.evaluate(y_nw, within, states))


class _Exact(_Evaluator):
    """Scores every voxel of a cell once more."""

    def __init__(self, refiner: Refiner, cell: Cell, columns: NDArray[np.intp], at_bv: F64, out_v: F64) -> None:
        super().__init__(refiner, cell, columns)
        self.at_bv, self.out_v = at_bv, out_v

    def tile(self, y_nw: Array, mean_w: F64, here: NDArray[np.intp]) -> None:
        """Score one tile."""
        delta, scoring = self.device.put(np.exp(self.at_bv[:, here])), self.refiner.settings.scoring

        def one_fold(k: int) -> tuple[F64, F64]:
            state = self.cell.start(k, y_nw)
            self.cell.solve(k, delta, state, _EXACT)
            return self.device.get(self.cell.score(k, y_nw, scoring, state)[0]), self.device.get(state.unsolved_w)

        scores_kw, unsolved_kw = zip(*self.each_fold(one_fold), strict=True)
        self.out_v[here], self.refiner.unsolved_v[here] = np.mean(scores_kw, axis=0), np.max(unsolved_kw, axis=0)


class _Once(_Evaluator):
    """Evaluates one δ for all voxels."""

    def __init__(self, refiner: Refiner, cell: Cell, columns: NDArray[np.intp], at_b1: F64) -> None:
        super().__init__(refiner, cell, columns)
        self.at = at_b1
        self.scores_v, self.slopes_bv = np.zeros(self.targets.n_voxels), np.zeros((len(at_b1), self.targets.n_voxels))

    def tile(self, y_nw: Array, mean_w: F64, here: NDArray[np.intp]) -> None:
        """Score one tile."""
        states = self.each_fold(partial(self.cell.start, y_nw=y_nw))
        at = np.repeat(self.at, len(here), axis=1)
        self.scores_v[here], self.slopes_bv[:, here] = self.evaluate(y_nw, at, states)
