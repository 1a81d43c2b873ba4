"""Weights of ridge: what is done with a tile once it is read.

    tile of responses ─► coordinates ─► scores of every penalty ─► choose ─► (held-out predictions) ─► weights

Where penalties are given, weights follow the coordinates at once.

Weights at α are V diag(√(λ + τ) / (λ + α)) c (docs/solver.md, 6). With many more features than rows V would be as large as X, so
they are deferred: V diag(…) c is then made block by block of features once all voxels are scored.

Legend: t = time, p = features, v = voxels, a = penalties, r = directions, f = folds, w = voxels of one tile.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import export
from fastencode.devices import HOST
from fastencode.errors import InputError
from fastencode.progress import Bar
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.plan import Plan
from fastencode.solve.score.choose import Choice, EachFold, choose_alphas, choose_shared, edges_of, tie_tolerance
from fastencode.solve.score.ends import Seen, ends_of, no_ends
from fastencode.solve.score.scorer import Sweep
from fastencode.solve.score.tiles import REFIT_FEATURES, Where
from fastencode.solve.weights.coefficients import Coefficients, dual_factor, feature_blocks, primal_factor
from fastencode.solve.weights.features import features_times, map_of, products_with_means, right_of, threads_within
from fastencode.threads import available_threads, together

__all__ = ["Kept", "RidgeSweep", "fit_on_host"]


class Kept(NamedTuple):
    """What a fit keeps beside penalties and scores.

    Attributes
    ----------
    weights : {"primal", "dual", None}
        Weights of the features, (p, v); of the rows, (t, v); or none.
    predictions : bool
        Held-out predictions, (t, v).
    """

    weights: str | None = "primal"
    predictions: bool = False


def fit_on_host(
    plan: Plan, targets: Targets, scoring: str, skip_nan: bool, choice: Choice, kept: Kept, bar: Bar
) -> tuple[dict[str, Any], dict[str, Any], Seen]:
    """Results by the names of ``RidgeFit``, what is to be said of how they were computed, and what was seen of the voxels."""
    sweep = RidgeSweep(plan, targets, scoring, skip_nan, choice, kept)
    if plan.problem.given is not None:
        sweep.chosen_v[:] = plan.problem.given
        sweep.run(sweep.refit, bar)
    elif choice.per_target:
        sweep.run(sweep.score_and_refit, bar)
    else:
        sweep.run(sweep.score_only, bar)
        sweep.choose_shared()
        sweep.run(sweep.refit, bar)
    if plan.deferred and kept.weights == "primal":
        sweep.finish()
    arrays = sweep.arrays()
    return arrays, sweep.account(), sweep.seen()


class RidgeSweep(Sweep):
    """One pass of responses through a plan: scores, chosen penalties, weights."""

    def __init__(self, plan: Plan, targets: Targets, scoring: str, skip_nan: bool, choice: Choice, kept: Kept) -> None:
        (_, p), n_voxels, n_alphas, n_folds = plan.shape, targets.n_voxels, len(plan.problem.alphas), plan.n_folds
        more = choice.bytes_per_voxel(n_alphas, n_folds)
        super().__init__(plan, targets, scoring, skip_nan, more=more, predictions=kept.predictions)
        self.ridge, self.choice, self.weights = plan, choice, kept.weights
        self.V_pr = map_of(plan) if kept.weights == "primal" and not plan.deferred else None
        self.coef_pv = np.empty((p if kept.weights == "primal" else 0, n_voxels), dtype=plan.dtype)
        self.dual_tv = np.empty((len(plan.root) if kept.weights == "dual" else 0, n_voxels), dtype=plan.dtype)
        self.means_t = products_with_means(plan) if kept.weights == "dual" and plan.problem.fit_intercept else None
        self.intercept_v = np.zeros(n_voxels)
        mean_p = plan.feature_means if plan.problem.fit_intercept else None
        self.coefficients = Coefficients(self.coef_pv, self.intercept_v, mean_p)
        self.scores_av = np.empty((n_alphas if plan.problem.given is None else 0, n_voxels), dtype=plan.dtype)
        self.chosen_v = np.zeros(n_voxels, dtype=np.intp)
        self.folds_fv = np.empty((n_folds, n_voxels), dtype=plan.dtype) if choice.keep else None
        self.fold_scores_fav = np.empty((n_folds, n_alphas, n_voxels) if choice.keep and not choice.per_target else 0, plan.dtype)
        self.sums: dict[int, NDArray[np.float64]] = {}  # of each tile, (f, a)
        self.predicted_tv = np.full((plan.problem.n_given, n_voxels), np.nan, dtype=plan.dtype) if kept.predictions else None

    def score_and_refit(self, slab: NDArray[Any], inside: Where, here: slice) -> None:
        y_tw, mean_w = self.read(slab, inside, here)
        each = self._each()
        c_rw, scores_aw = self.score(y_tw, here, each)
        self.scores_av[:, here] = scores_aw
        tolerance = tie_tolerance(self.scoring, self.variance_v[here])
        self.chosen_v[here] = choose_alphas(scores_aw, tolerance, error_av=None if each is None else each.error())
        if each is not None and self.folds_fv is not None:
            self.folds_fv[:, here] = each.at(self.chosen_v[here])
        self._hold_out(y_tw, c_rw, mean_w, here)
        self._refit(c_rw, mean_w, here)

    def _each(self) -> EachFold | None:
        return self.choice.each(HOST, self.plan.n_folds)

    def score_only(self, slab: NDArray[Any], inside: Where, here: slice) -> None:
        each = self._each()
        self.scores_av[:, here] = self.score(self.read(slab, inside, here)[0], here, each)[1]
        if each is not None and each.kept:
            self.fold_scores_fav[:, :, here] = each.kept
        if each is not None and each.sums:
            self.sums[here.start] = np.array(each.sums)

    def choose_shared(self) -> None:
        """One penalty for all voxels, after :meth:`score_only`."""
        sums_fa = np.sum([self.sums[first] for first in sorted(self.sums)], axis=0) if self.choice.one_se else None
        one = choose_shared(self.scores_av, self.scoring, self.variance_v, self.bad_v, sums_fa)
        self.chosen_v[:] = one
        if self.folds_fv is not None:
            self.folds_fv = self.fold_scores_fav[:, one].copy()
            del self.fold_scores_fav

    def refit(self, slab: NDArray[Any], inside: Where, here: slice) -> None:
        y_tw, mean_w = self.read(slab, inside, here)
        c_rw, _ = self.scorer.coordinates(y_tw, self.work.get)
        lost = ~np.isfinite(c_rw[:, : len(mean_w)]).all(axis=0)
        if lost.any():
            raise InputError(f"Y holds values too large to fit in {self.dtype}, the first in voxel {self._first(lost, here)}")
        self._hold_out(y_tw, c_rw, mean_w, here)
        self._refit(c_rw, mean_w, here)

    def _hold_out(self, y_tw: NDArray[Any], c_rw: NDArray[Any], mean_w: NDArray[np.float64], here: slice) -> None:
        """Held-out predictions of a tile at each voxel's penalty, if they are wanted."""
        if self.predicted_tv is None:
            return
        began = time.perf_counter()
        held_tw = self.work.get("held", len(y_tw), len(mean_w), dtype=self.dtype)
        self.scorer.predict(y_tw, c_rw, self.chosen_v[here], self.work.get, held_tw)
        problem = self.plan.problem
        rows = slice(None) if problem.kept is None else problem.kept
        self.predicted_tv[rows, here] = held_tw + mean_w if problem.fit_intercept else held_tw
        self.spent("predict", began)

    def _refit(self, c_rw: NDArray[Any], mean_w: NDArray[np.float64], here: slice) -> None:
        """Weights of each voxel at its own penalty: V diag(√(λ + τ) / (λ + α)) c. If they are deferred, diag(…) c is parked in
        rows 0 … r − 1 of ``coef_pv`` until :meth:`finish`."""
        if self.weights is None:
            return
        began = time.perf_counter()
        plan, used = self.ridge, len(mean_w)
        alpha_w = np.ones(self.width)
        alpha_w[:used] = self.alphas[self.chosen_v[here]]
        if self.weights == "dual":
            self._refit_dual(c_rw, alpha_w, mean_w, here)
            self.spent("refit", began)
            return
        factor_rw = primal_factor(plan.lam[:, None], np.sqrt(plan.lam + plan.tau)[:, None], alpha_w)
        np.multiply(c_rw, factor_rw, out=c_rw, casting="same_kind")
        if plan.problem.fit_intercept:
            self.intercept_v[here] = mean_w
        if self.V_pr is None:
            self.coef_pv[: len(c_rw), here] = c_rw[:, :used]
        else:
            self.intercept_v[here] -= self._weigh(self.V_pr, 0, c_rw, here)
        self.spent("refit", began)

    def _refit_dual(self, c_rw: NDArray[Any], alpha_w: NDArray[np.float64], mean_w: NDArray[np.float64], here: slice) -> None:
        """Dual weights of each voxel, times the roots of the sample weights; weights of features are (X − 1 μᵀ)ᵀ times these."""
        used = len(mean_w)
        np.multiply(c_rw, dual_factor(self.ridge.lam[:, None], self.ridge.tau, alpha_w), out=c_rw, casting="same_kind")
        dual_tw = self.work.get("dual", len(self.ridge.root), self.width, dtype=self.dtype)
        # dual_tw = U_τ @ c
        self.scorer.exact.multiply(self.ridge.analyze, c_rw, dual_tw)
        if self.ridge.problem.weights is not None:
            dual_tw *= self.ridge.root[:, None].astype(self.dtype)
        self.dual_tv[:, here] = dual_tw[:, :used]
        if self.means_t is not None:
            self.intercept_v[here] = mean_w - self.means_t @ dual_tw[:, :used].astype(np.float64)

    def _weigh(self, V_pr: NDArray[Any], first: int, c_rw: NDArray[Any], here: slice) -> NDArray[np.float64]:
        """Make the weights of some features, from the first on; returns what they predict at the means."""
        blocks = [V_pr[some] for some in feature_blocks(len(V_pr))]
        return self.coefficients.weigh(blocks, first, c_rw, here, len(self.intercept_v[here]), self.scorer.exact, self.work.get)

    def finish(self) -> None:
        """Make deferred weights, once all voxels are scored: those of features r, r + 1, … first, then those of the first r,
        whose rows of ``coef_pv`` hold the scaled coordinates until then."""
        began, plan, n_voxels = time.perf_counter(), self.ridge, self.targets.n_voxels
        right_tr, r = right_of(plan), len(plan.lam)
        # Each thread has a block of features, of the map from coordinates to weights, and a tile of coordinates and weights.
        tile = self.dtype.itemsize * self.width * (r + REFIT_FEATURES)
        kept, X = plan.nbytes + self.dtype.itemsize * r * r, plan.problem.X
        threads = threads_within(X, r, plan.problem.memory, kept, available_threads(), tile)
        tiles = [slice(start, min(start + self.width, n_voxels)) for start in range(0, n_voxels, self.width)]
        head_rr = np.empty((r, r), dtype=self.dtype)

        def parked(here: slice) -> NDArray[Any]:
            c_rw = self.work.get("c", r, self.width, dtype=self.dtype)
            c_rw[:, : here.stop - here.start] = self.coef_pv[:r, here]
            c_rw[:, here.stop - here.start :] = 0.0
            return c_rw

        def block(_: int, some: slice, V_pr: NDArray[Any]) -> list[NDArray[np.float64]]:
            above = max(0, min(len(V_pr), r - some.start))
            head_rr[some.start : some.start + above] = V_pr[:above]
            return [self._weigh(V_pr[above:], some.start + above, parked(here), here) for here in tiles]

        def head(here: slice) -> NDArray[np.float64]:
            return self._weigh(head_rr, 0, parked(here), here)

        rights, products = [right_tr], self.scorer.exact
        below = features_times(X, plan.feature_means, plan.root, rights, block, products, threads)
        above = together([partial(head, here) for here in tiles], threads)
        for parts in (*(one for (one,) in below), above):
            for here, predicted_w in zip(tiles, parts, strict=True):
                self.intercept_v[here] -= predicted_w
        self.spent("refit", began)

    def arrays(self) -> dict[str, Any]:
        """Results by the names of ``RidgeFit``, in the library and shape of the input."""
        was_chosen, one = self.plan.problem.given is None, self.targets.one
        edge_v = edges_of(self.chosen_v, len(self.alphas) if was_chosen else 1)
        best_v = np.take_along_axis(self.scores_av, self.chosen_v[None], axis=0)[0] if was_chosen else None
        scores_av, alpha_v = self.scores_av if was_chosen else None, self.alphas[self.chosen_v]
        if self.plan.problem.left_out is not None:
            self.bad_v |= self.plan.problem.left_out
        if self.bad_v.any():
            found = (self.coef_pv, self.dual_tv, self.intercept_v, alpha_v, scores_av, best_v, self.folds_fv, self.predicted_tv)
            for array in found:
                if array is not None:
                    array[..., self.bad_v] = np.nan
            edge_v[self.bad_v] = 0
        arrays = {
            "coef": self.coef_pv if self.weights == "primal" else None,
            "dual_coef": self.dual_tv if self.weights == "dual" else None,
            "intercept": None if self.weights is None else self.intercept_v.astype(self.dtype),
            "alpha": alpha_v,
            "cv_scores": scores_av,
            "best_score": best_v,
            "at_edge": edge_v,
            "fold_scores": self.folds_fv,
            "cv_predictions": self.predicted_tv,
        }
        library = "torch" if "torch" in (self.plan.problem.library, self.targets.library) else "numpy"
        out = {
            name: None if array is None else export(array[..., 0] if one else array, library) for name, array in arrays.items()
        }
        if self.weights == "dual":
            out |= {"features": self.ridge.problem.X, "feature_means": self.ridge.feature_means}
        return {**out, "alphas": export(self.alphas.copy(), library)}

    def seen(self) -> Seen:
        """What was seen of every voxel, after :meth:`arrays`."""
        given = self.plan.problem.given is not None
        ends_ev = no_ends(self.targets.n_voxels) if given else ends_of(self.scores_av, self.alphas)
        return Seen(ends_ev, edges_of(self.chosen_v, 1 if given else len(self.alphas)), self.variance_v, self.bad_v)

    def account(self) -> dict[str, Any]:
        """What ``RidgeFit.stats`` says of how it was computed."""
        return {
            "device": "cpu",
            "bytes": {"plan": self.plan.nbytes, "tiles": self.tile_bytes * self.workers},
            "seconds": {f"{name} (all threads)": seconds for name, seconds in self.seconds.items()},
            "scored_in": str(self.plan.dtype),
            "products": self.scorer.products.name,
            "threads": self.workers,
            "tile": self.width,
            "skipped_voxels": int(self.bad_v.sum()),
        }
