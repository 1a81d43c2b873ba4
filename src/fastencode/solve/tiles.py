"""One loop over tiles of voxels: what a plan does with responses.

    tile of responses ─► center ─► coordinates ─► for each fold: predict at the nodes, reduce to moments, forget
                      ─► scores of every penalty ─► choose ─► refit at the chosen penalty ─► weights

Threads run over tiles; BLAS has one thread inside each. Every product has the same width whatever the memory and the number of
threads (the last tile is padded), so neither changes a bit of any result, and no voxel's values touch another's. Only a voxel's
place within its tile may show, in the last bit of float32: BLAS kernels differ there from column to column.

Legend: t = time, p = features, v = voxels, a = penalties, k = nodes, r = directions, m = held-out rows, w = voxels of one tile.
"""

from __future__ import annotations

import platform
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastencode import __version__
from fastencode.arrays import export, to_host
from fastencode.devices import Device
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import progress as progress_bar
from fastencode.solve.device_tiles import DeviceSweep, device_for
from fastencode.solve.fit import RidgeFit
from fastencode.solve.problem import Problem
from fastencode.solve.scorer import READ_ROWS, REFIT_FEATURES, FoldScorer
from fastencode.solve.scores import check_scoring
from fastencode.solve.targets import Targets
from fastencode.threads import available_threads, limit_threads

if TYPE_CHECKING:
    from fastencode.solve.plan import RidgePlan

__all__ = ["TIE_TOLERANCE", "check_test_rows", "choose_alphas", "fit_on", "fit_plan"]

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
    if nan_targets not in ("raise", "skip"):
        raise InputError(f"nan_targets={nan_targets!r}; pass 'raise' or 'skip'")
    targets = Targets.check(Y, plan.problem.n_given, plan.problem.kept)
    device, skip = device_for(plan.problem, targets), nan_targets == "skip"
    with progress_bar(desc="ridge", unit="voxel", total=targets.n_voxels * (1 if per_target else 2), enabled=progress) as bar:
        if device is None:
            arrays, account = _on_cpu(plan, targets, scoring, skip, per_target, bar)
        else:
            keep = targets.device is not None or plan.problem.home != "cpu"
            arrays, account = fit_on(device, plan, targets, scoring, skip, per_target, bar, keep)
    stats = _stats(plan, targets, account, time.perf_counter() - began)
    fit = RidgeFit(**arrays, scoring=scoring, stats=stats)
    _warn_edges(fit)
    return fit


def _on_cpu(
    plan: RidgePlan, targets: Targets, scoring: str, skip_nan: bool, per_target: bool, bar: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results by the names of ``RidgeFit``, and what is to be said of how they were computed."""
    sweep = _Sweep(plan, targets, scoring, skip_nan)
    if per_target:
        sweep.run(sweep.score_and_refit, bar)
    else:
        sweep.run(sweep.score, bar)
        good = ~sweep.bad_v
        if good.any():
            mean = sweep.scores_av[:, good].mean(axis=1, keepdims=True, dtype=np.float64)
            sweep.chosen_v[:] = choose_alphas(mean, _tolerance(scoring, sweep.variance_v[good].mean()))
        sweep.run(sweep.refit, bar)
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
        sweep = DeviceSweep(device, plan, targets, scoring, skip_nan, keep, TIE_TOLERANCE, width)
        sweep.fit(per_target, bar, lambda scores, variance: choose_alphas(scores, _tolerance(scoring, variance)))
        return sweep.arrays(), sweep.account()


def choose_alphas(scores_av: NDArray[np.float64], tolerance: Any) -> NDArray[np.intp]:
    """Index of each voxel's penalty: the largest whose score is within the tolerance of the best."""
    ties = scores_av >= scores_av.max(axis=0) - tolerance
    return len(scores_av) - 1 - np.argmax(ties[::-1], axis=0)


def _tolerance(scoring: str, variance: Any) -> Any:
    return TIE_TOLERANCE * variance if scoring == "neg_mean_squared_error" else TIE_TOLERANCE


def _tile_width(n_voxels: int, most: int) -> int:
    """Voxels in a tile: a function of the plan and their number only, so that memory and threads cannot show in the result.

    The widest that keeps a product's right side in one panel of OpenBLAS, an even number of tiles, four at least for threads.
    """
    tiles = max(4, 2 * -(-n_voxels // (2 * most)))
    return min(most, max(16, -(-n_voxels // (16 * tiles)) * 16))


class _Workspace(local):
    """Buffers of one thread, made once: fresh pages for every tile would cost as much as the products."""

    def __init__(self) -> None:
        self.buffers: dict[str, NDArray[Any]] = {}

    def get(self, name: str, *shape: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        size, flat = int(np.prod(shape)), self.buffers.get(name)
        if flat is None or flat.size < size:
            raw = np.empty(size * dtype.itemsize + 64, dtype=np.uint8)
            start = -raw.ctypes.data % 64  # whole lines of the cache
            flat = self.buffers[name] = raw[start : start + size * dtype.itemsize].view(dtype)
        return flat[:size].reshape(shape)


class _Sweep:
    """One pass of responses through a plan: where results gather, and what is done to each tile."""

    def __init__(self, plan: RidgePlan, targets: Targets, scoring: str, skip_nan: bool) -> None:
        (_, p), problem = plan.shape, plan.problem
        self.plan, self.targets, self.scoring, self.skip_nan = plan, targets, scoring, skip_nan
        self.alphas, self.center = problem.alphas, problem.fit_intercept
        self.scorer = FoldScorer(plan, scoring)
        self.width = _tile_width(targets.n_voxels, self.scorer.widest)
        self.tile_bytes = self.scorer.bytes(self.width)
        self.workers = self._workers()
        n_alphas, n_voxels = len(self.alphas), targets.n_voxels
        self.coef_pv = np.empty((p, n_voxels), dtype=plan.dtype)
        self.intercept_v = np.zeros(n_voxels, dtype=plan.dtype)
        self.scores_av = np.empty((n_alphas, n_voxels), dtype=plan.dtype)
        self.variance_v = np.empty(n_voxels)
        self.chosen_v = np.zeros(n_voxels, dtype=np.intp)
        self.bad_v = np.zeros(n_voxels, dtype=bool)
        self.work = _Workspace()
        self.lock = Lock()
        self.seconds = {"read": 0.0, "score": 0.0, "refit": 0.0}

    def _workers(self) -> int:
        tiles = -(-self.targets.n_voxels // self.width)
        workers = min(available_threads(), tiles)
        memory = self.plan.problem.memory
        if memory is not None:
            workers = min(workers, (memory - self.plan.nbytes) // self.tile_bytes)
        if workers < 1:
            raise InputError(
                f"memory={memory} bytes is too small: the smallest that works here is {self.plan.nbytes + self.tile_bytes} "
                f"bytes, {self.plan.nbytes} for the plan and {self.tile_bytes} for one tile of {self.width} voxels"
            )
        return workers

    def run(self, job: Any, bar: Any) -> None:
        """Do ``job(slab, first, start, stop)`` to every tile, in threads; the bar moves in this one."""
        with limit_threads(1), ThreadPoolExecutor(self.workers) as pool:
            for first, slab in self.targets.slabs(self.width, self.plan.problem.memory):
                stops = [(start, min(start + self.width, slab.shape[1])) for start in range(0, slab.shape[1], self.width)]
                waiting = {pool.submit(job, slab, first, *ends): ends for ends in stops}
                try:
                    for done in as_completed(waiting):
                        done.result()
                        bar.update(waiting[done][1] - waiting[done][0])
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
                del slab, waiting  # before the next one is read: there is memory for one

    def score_and_refit(self, slab: NDArray[Any], first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        y_tw, mean_w = self._read(slab, start, stop, here)
        c_rw, scores_aw = self._score(y_tw, here)
        self.chosen_v[here] = choose_alphas(scores_aw, _tolerance(self.scoring, self.variance_v[here]))
        self._refit(c_rw, mean_w, here)

    def score(self, slab: NDArray[Any], first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        self._score(self._read(slab, start, stop, here)[0], here)

    def refit(self, slab: NDArray[Any], first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        y_tw, mean_w = self._read(slab, start, stop, here)
        c_rw = self.work.get("c", len(self.plan.lam), self.width, dtype=self.plan.dtype)
        self.scorer.exact.multiply(self.plan.analyze.T, y_tw, c_rw)
        self._refit(c_rw, mean_w, here)

    def _spent(self, stage: str, since: float) -> None:
        with self.lock:
            self.seconds[stage] += time.perf_counter() - since

    def _read(self, slab: NDArray[Any], start: int, stop: int, here: slice) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """A padded tile of responses in the plan's dtype, centered if there is an intercept and times the roots of the weights;
        and its means."""
        began = time.perf_counter()
        tile, weights, width = self.targets.in_use(slab[:, start:stop]), self.plan.problem.weights, stop - start
        y_tw = self.work.get("y", len(tile), self.width, dtype=self.plan.dtype)
        blocks = [slice(first, first + READ_ROWS) for first in range(0, len(tile), READ_ROWS)]
        # Relative to the first row: a constant voxel becomes exactly zero, and a large common offset costs no digits.
        with np.errstate(all="ignore"):
            base = tile[0].astype(np.float64) if self.center else np.zeros(width)
            total, squares = np.zeros(width), np.zeros(width)
            for rows in blocks:
                values = np.subtract(tile[rows], base, dtype=np.float64)
                total += values.sum(axis=0) if weights is None else weights[rows] @ values
            mass = float(len(tile) if weights is None else weights.sum())
            mean, bad = total / mass, ~np.isfinite(total)
            if bad.any():
                self._bad(tile, bad, here)
                mean[bad] = base[bad] = 0.0
            for rows in blocks:
                values = np.subtract(tile[rows], base, dtype=np.float64)
                if self.center:
                    values -= mean
                if bad.any():
                    values[:, bad] = 0.0
                if weights is not None:
                    values *= self.plan.root[rows, None]
                y_tw[rows, :width] = values
                squares += np.einsum("tw,tw->w", y_tw[rows, :width], y_tw[rows, :width], dtype=np.float64)
        self.variance_v[here] = squares / mass
        y_tw[:, width:] = 0.0
        self._spent("read", began)
        return y_tw, base + mean

    def _bad(self, tile: NDArray[Any], bad: NDArray[np.bool_], here: slice) -> None:
        """Columns whose sum is not finite: skip them, or raise."""
        if not self.skip_nan:
            self.targets.refuse_bad()
        if not self.skip_nan or np.isfinite(tile[:, bad]).all(axis=0).any():
            raise InputError("Y holds values too large to add up; rescale it")
        self.bad_v[here] = bad

    def _score(self, y_tw: NDArray[Any], here: slice) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Coordinates, and scores of every penalty in float64, which are kept in the plan's dtype."""
        began = time.perf_counter()
        c_rw, scores = self.scorer.score(y_tw, here.stop - here.start, self.variance_v[here], self.work.get)
        with np.errstate(over="ignore"):
            self.scores_av[:, here] = scores
        if not np.isfinite(self.scores_av[:, here]).all():
            raise InputError(f"Y holds values too large to score in {self.plan.dtype}; rescale it")
        self._spent("score", began)
        return c_rw, scores

    def _refit(self, c_rw: NDArray[Any], mean_w: NDArray[np.float64], here: slice) -> None:
        """Weights of each voxel at its own penalty: V diag(√(λ + τ) / (λ + α)) c."""
        began = time.perf_counter()
        plan, used = self.plan, here.stop - here.start
        alpha_w = np.ones(self.width)
        alpha_w[:used] = self.alphas[self.chosen_v[here]]
        np.multiply(c_rw, np.sqrt(plan.lam + plan.tau)[:, None] / (plan.lam[:, None] + alpha_w), out=c_rw, casting="same_kind")
        intercept_w = mean_w.copy()
        for first in range(0, plan.shape[1], REFIT_FEATURES):
            some = slice(first, min(first + REFIT_FEATURES, plan.shape[1]))
            coef_pw = self.work.get("coef", some.stop - first, self.width, dtype=plan.dtype)
            self.scorer.exact.multiply(plan.coef[some], c_rw, coef_pw)
            self.coef_pv[some, here] = coef_pw[:, :used]
            if self.center:
                intercept_w -= plan.feature_means[some] @ coef_pw[:, :used].astype(np.float64)
        if self.center:
            self.intercept_v[here] = intercept_w
        self._spent("refit", began)

    def arrays(self) -> dict[str, Any]:
        """Results by the names of ``RidgeFit``, in the library and shape of the input."""
        last, one = len(self.alphas) - 1, self.targets.one
        edge_v = ((self.chosen_v == last).astype(np.int8) - (self.chosen_v == 0).astype(np.int8)).astype(np.int8)
        best_v = np.take_along_axis(self.scores_av, self.chosen_v[None], axis=0)[0]
        alpha_v = self.alphas[self.chosen_v]
        if self.bad_v.any():
            for array in (self.coef_pv, self.intercept_v, alpha_v, self.scores_av, best_v):
                array[..., self.bad_v] = np.nan
            edge_v[self.bad_v] = 0
        arrays = {
            "coef": self.coef_pv,
            "intercept": self.intercept_v,
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
    cost = plan.operations
    return {
        "strategy": plan.strategy,
        "reason": plan.reason,
        "operations": {"plan": cost["plan"], "fit": (cost["score"] + cost["refit"]) * targets.n_voxels},
        "precision": plan.problem.precision,
        **account,
        "seconds": {**plan.seconds, **account.get("seconds", {}), "fit": seconds},
        "folds": plan.n_folds,
        "nodes": len(plan.nodes.alphas),
        "interpolation_error": plan.nodes.error,
        "tie_tolerance": TIE_TOLERANCE,
        "versions": {"fastencode": __version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def _warn_edges(fit: RidgeFit) -> None:
    edge_v = np.atleast_1d(to_host(fit.at_edge, "at_edge"))
    low, high, fitted = int((edge_v < 0).sum()), int((edge_v > 0).sum()), len(edge_v) - fit.stats["skipped_voxels"]
    if low or high:
        warnings.warn(
            f"{low + high} of {fitted} voxels chose a penalty at the edge of the grid: {low} the smallest "
            f"({float(fit.alphas[0]):.4g}), {high} the largest ({float(fit.alphas[-1]):.4g}). Widen alphas, unless these are "
            "voxels that X does not predict (those always want the largest).",
            FastencodeWarning,
            stacklevel=4,  # the caller of ridge_cv or of plan.fit
        )
