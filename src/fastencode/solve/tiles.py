"""One loop over tiles of voxels: what a plan does with responses.

    tile of responses ─► center ─► coordinates ─► for each fold: predict at the nodes, reduce to moments, forget
                      ─► scores of every penalty ─► choose ─► refit at the chosen penalty ─► weights

Legend: t = time, p = features, v = voxels, a = penalties, r = directions, w = voxels of one tile.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import export
from fastencode.devices import Device
from fastencode.progress import progress as progress_bar
from fastencode.solve.device_tiles import DeviceRidge, device_for
from fastencode.solve.features import features_times
from fastencode.solve.fit import RidgeFit
from fastencode.solve.fits import versions, warn_edges
from fastencode.solve.scorer import REFIT_FEATURES
from fastencode.solve.scores import check_scoring
from fastencode.solve.strategy import made_last
from fastencode.solve.sweep import (
    TIE_TOLERANCE,
    Sweep,
    check_test_rows,
    choose_alphas,
    choose_shared,
    edges_of,
    tie_tolerance,
)
from fastencode.solve.targets import Targets, check_nan_targets
from fastencode.threads import available_threads, together

if TYPE_CHECKING:
    from fastencode.solve.plan import RidgePlan

__all__ = ["fit_on", "fit_plan"]

# Dual weights that wait for the features at a time, in bytes.
_WAITING = 2**28


def fit_plan(
    plan: RidgePlan,
    Y: Any,
    *,
    scoring: str = "r2",
    per_target: bool = True,
    progress: bool = False,
    nan_targets: str = "raise",
) -> RidgeFit:
    """Fit responses on a plan; what :meth:`RidgePlan.fit` and :func:`ridge_cv` do. See there."""
    began = time.perf_counter()
    check_scoring(scoring)
    check_test_rows(plan.problem, scoring)
    skip = check_nan_targets(nan_targets)
    targets = Targets.check(Y, plan.problem.n_given, plan.problem.kept)
    device = device_for(plan.problem, targets)
    with progress_bar(desc="ridge", unit="voxel", total=targets.n_voxels * (1 if per_target else 2), enabled=progress) as bar:
        if device is None:
            arrays, account = _on_cpu(plan, targets, scoring, skip, per_target, bar)
        else:
            keep = targets.device is not None or plan.problem.home != "cpu"
            arrays, account = fit_on(device, plan, targets, scoring, skip, per_target, bar, keep)
    stats = _stats(plan, targets, account, time.perf_counter() - began)
    fit = RidgeFit(**arrays, scoring=scoring, stats=stats)
    warn_edges(fit, 3)  # at the caller of ridge_cv or of plan.fit
    return fit


def _on_cpu(
    plan: RidgePlan, targets: Targets, scoring: str, skip_nan: bool, per_target: bool, bar: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results by the names of ``RidgeFit``, and what is to be said of how they were computed."""
    sweep = _RidgeSweep(plan, targets, scoring, skip_nan)
    if per_target:
        sweep.run(sweep.score_and_refit, bar)
    else:
        sweep.run(sweep.score_only, bar)
        sweep.chosen_v[:] = choose_shared(sweep.scores_av, scoring, sweep.variance_v, sweep.bad_v)
        sweep.run(sweep.refit, bar)
    sweep.finish()
    return sweep.arrays(), sweep.account()


def fit_on(
    device: Device,
    plan: RidgePlan,
    targets: Targets,
    scoring: str,
    skip_nan: bool,
    per_target: bool,
    bar: Any,
    keep: bool,
    width: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same on a device; ``keep`` leaves results there, ``width`` is the voxels of a tile, if not what memory suggests."""
    with device.current():
        sweep = DeviceRidge(device, plan, targets, scoring, skip_nan, keep, TIE_TOLERANCE, width)
        sweep.fit(per_target, bar, lambda scores, variance: choose_alphas(scores, tie_tolerance(scoring, variance)))
        return sweep.arrays(), sweep.account()


class _RidgeSweep(Sweep):
    """Where results gather, and what is done to each tile."""

    def __init__(self, plan: RidgePlan, targets: Targets, scoring: str, skip_nan: bool) -> None:
        super().__init__(plan, targets, scoring, skip_nan)
        self.ridge, (_, p), n_voxels = plan, plan.shape, targets.n_voxels
        self.last = made_last(plan.problem, plan.strategy == "dual", n_voxels)
        self.map_pr = None if self.last else plan.coef
        self.coef_pv = np.empty((p, n_voxels), dtype=plan.dtype)
        self.intercept_v = np.zeros(n_voxels)
        self.scores_av = np.empty((len(self.alphas), n_voxels), dtype=plan.dtype)
        self.chosen_v = np.zeros(n_voxels, dtype=np.intp)

    def score_and_refit(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        y_tw, mean_w = self.read(slab, inside, here)
        c_rw, scores_aw = self.score(y_tw, here)
        self.scores_av[:, here] = scores_aw
        self.chosen_v[here] = choose_alphas(scores_aw, tie_tolerance(self.scoring, self.variance_v[here]))
        self._refit(c_rw, mean_w, here)

    def score_only(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        self.scores_av[:, here] = self.score(self.read(slab, inside, here)[0], here)[1]

    def refit(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        y_tw, mean_w = self.read(slab, inside, here)
        c_rw = self.work.get("c", len(self.plan.lam), self.width, dtype=self.dtype)
        self.scorer.exact.multiply(self.plan.analyze.T, y_tw, c_rw)
        self._refit(c_rw, mean_w, here)

    def _refit(self, c_rw: NDArray[Any], mean_w: NDArray[np.float64], here: Any) -> None:
        """Weights of each voxel at its own penalty: V diag(√(λ + τ) / (λ + α)) c. Where they are made last, what dual weights
        are made of waits in their first rows."""
        began = time.perf_counter()
        plan, used = self.ridge, len(mean_w)
        lam, alpha_w = plan.lam[:, None], np.ones(self.width)
        alpha_w[:used] = self.alphas[self.chosen_v[here]]
        if plan.problem.fit_intercept:
            self.intercept_v[here] = mean_w
        if self.map_pr is None:
            np.multiply(c_rw, (lam + plan.tau) / (lam * (lam + alpha_w)), out=c_rw, casting="same_kind")
            self.coef_pv[: len(lam), here] = c_rw[:, :used]
            self.spent("refit", began)
            return
        np.multiply(c_rw, np.sqrt(lam + plan.tau) / (lam + alpha_w), out=c_rw, casting="same_kind")
        for first in range(0, plan.shape[1], REFIT_FEATURES):
            some = slice(first, min(first + REFIT_FEATURES, plan.shape[1]))
            coef_pw = self.work.get("coef", some.stop - first, self.width, dtype=plan.dtype)
            self.scorer.exact.multiply(self.map_pr[some], c_rw, coef_pw)
            self.intercept_v[here] -= self._take(here, some, coef_pw[:, :used])
        self.spent("refit", began)

    def _take(self, here: Any, some: slice, coef_pw: NDArray[Any]) -> Any:
        """Note weights of some features for some voxels; returns what they predict at the means."""
        self.coef_pv[some, here] = coef_pw
        return self.ridge.feature_means[some] @ coef_pw.astype(np.float64) if self.ridge.problem.fit_intercept else 0.0

    def finish(self) -> None:
        """Make what is made last: weights X̌ᵀ ω of dual weights ω = U_τ diag((λ + τ) / (λ (λ + α))) c, in tiles as wide as all
        others, for as many of them at a time as there is room for."""
        if not self.last:
            return
        began = time.perf_counter()
        plan, multiply, width, threads = self.ridge, self.scorer.exact.multiply, self.width, available_threads()
        (n, r), n_voxels, memory = plan.analyze.shape, self.targets.n_voxels, plan.problem.memory
        room = _WAITING if memory is None else min(_WAITING, (memory - plan.nbytes) // 2)
        step = width * max(1, room // (n * width * plan.dtype.itemsize))

        def dual(here: slice) -> NDArray[Any]:
            c_rw, dual_tw = (np.zeros((rows, width), dtype=plan.dtype) for rows in (r, n))
            c_rw[:, : here.stop - here.start] = self.coef_pv[:r, here]
            return multiply(plan.analyze, c_rw, dual_tw)

        for first in range(0, n_voxels, step):
            last = min(first + step, n_voxels)
            tiles = [slice(start, min(start + width, last)) for start in range(first, last, width)]
            duals = together([partial(dual, here) for here in tiles], threads)

            def take(i: int, some: slice, coef_pw: NDArray[Any], tiles: list[slice] = tiles) -> Any:
                return self._take(tiles[i], some, coef_pw[:, : tiles[i].stop - tiles[i].start])

            for parts in features_times(plan.problem.X, plan.feature_means, plan.root, duals, take, self.scorer.exact, threads):
                for here, part_w in zip(tiles, parts, strict=True):
                    self.intercept_v[here] -= part_w
        self.spent("refit", began)

    def arrays(self) -> dict[str, Any]:
        """Results by the names of ``RidgeFit``, in the library and shape of the input."""
        edge_v, one = edges_of(self.chosen_v, len(self.alphas)), self.targets.one
        best_v = np.take_along_axis(self.scores_av, self.chosen_v[None], axis=0)[0]
        alpha_v = self.alphas[self.chosen_v]
        if self.bad_v.any():
            for array in (self.coef_pv, self.intercept_v, alpha_v, self.scores_av, best_v):
                array[..., self.bad_v] = np.nan
            edge_v[self.bad_v] = 0
        arrays = {
            "coef": self.coef_pv,
            "intercept": self.intercept_v.astype(self.dtype),
            "alpha": alpha_v,
            "cv_scores": self.scores_av,
            "best_score": best_v,
            "at_edge": edge_v,
        }
        library = "torch" if "torch" in (self.plan.problem.library, self.targets.library) else "numpy"
        out = {name: export(array[..., 0] if one else array, library) for name, array in arrays.items()}
        return {**out, "alphas": export(self.alphas.copy(), library)}

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


def _stats(plan: RidgePlan, targets: Targets, account: dict[str, Any], seconds: float) -> dict[str, Any]:
    cost, (n, p), r = plan.operations, plan.shape, len(plan.lam)
    last = account["device"] == "cpu" and made_last(plan.problem, plan.strategy == "dual", targets.n_voxels)
    refit = 2.0 * n * (r + p) if last else 2.0 * p * r
    return {
        "strategy": plan.strategy,
        "reason": plan.reason,
        "operations": {"plan": cost["plan"], "fit": (cost["score"] + refit) * targets.n_voxels},
        "precision": plan.problem.precision,
        **account,
        "seconds": {**plan.seconds, **account.get("seconds", {}), "fit": seconds},
        "folds": plan.n_folds,
        "nodes": len(plan.nodes.alphas),
        "interpolation_error": plan.nodes.error,
        "tie_tolerance": TIE_TOLERANCE,
        "versions": versions(),
    }
