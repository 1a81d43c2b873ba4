"""One loop over tiles of voxels: what a plan does with responses.

    tile of responses ─► center ─► for each fold: into the eigenbasis, for each penalty: predict, reduce to moments, forget
                      ─► choose ─► refit at the chosen penalty ─► weights

Threads run over tiles; BLAS has one thread inside each. Every product has the same width whatever the memory and the number of
threads (the last tile is padded), so neither changes a bit of any result, and no voxel's values touch another's. Only a voxel's
place within its tile may show, in the last bit of float32: BLAS kernels differ there from column to column.

Legend: t = time, p = features, v = voxels, a = penalties, r = directions, w = voxels of one tile.
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
from fastencode.arrays import as_numpy, export
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import progress as progress_bar
from fastencode.solve.fit import RidgeFit
from fastencode.solve.problem import Problem
from fastencode.solve.scores import check_scoring, moments_kernel, score_moments
from fastencode.solve.spectral import FoldSpectrum
from fastencode.solve.strategy import tile_bytes
from fastencode.solve.targets import Targets
from fastencode.threads import available_threads, limit_threads

if TYPE_CHECKING:
    from fastencode.solve.plan import RidgePlan

__all__ = ["TIE_TOLERANCE", "check_test_rows", "choose_alphas", "fit_plan"]

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


def fit_plan(plan: RidgePlan, Y: Any, *, scoring: str = "r2", per_target: bool = True, progress: bool = False) -> RidgeFit:
    """Fit responses on a plan; what :meth:`RidgePlan.fit` and :func:`ridge_cv` do. See there."""
    began = time.perf_counter()
    check_scoring(scoring)
    check_test_rows(plan.problem, scoring)
    targets = Targets.check(Y, plan.shape[0])
    sweep = _Sweep(plan, targets, scoring)
    with progress_bar(desc="ridge", unit="voxel", total=targets.n_voxels * (1 if per_target else 2), enabled=progress) as bar:
        if per_target:
            sweep.run(sweep.score_and_refit, bar)
        else:
            sweep.run(sweep.score, bar)
            mean = sweep.scores_av.mean(axis=1, keepdims=True)
            sweep.chosen_v[:] = choose_alphas(mean, _tolerance(scoring, sweep.variance_v.mean()))
            sweep.run(sweep.refit, bar)
    fit = sweep.result(time.perf_counter() - began)
    _warn_edges(fit)
    return fit


def choose_alphas(scores_av: NDArray[np.float64], tolerance: Any) -> NDArray[np.intp]:
    """Index of each voxel's penalty: the largest whose score is within the tolerance of the best."""
    ties = scores_av >= scores_av.max(axis=0) - tolerance
    return len(scores_av) - 1 - np.argmax(ties[::-1], axis=0)


def _tolerance(scoring: str, variance: Any) -> Any:
    return TIE_TOLERANCE * variance if scoring == "neg_mean_squared_error" else TIE_TOLERANCE


def _tile_width(n_voxels: int) -> int:
    """Voxels in a tile: a function of their number only, so that memory and threads cannot show in the result.

    From 512 columns on, a product runs within a tenth of BLAS's full speed; fewer voxels make at least four tiles for threads.
    """
    quarter = -(-n_voxels // 4)
    return min(512, max(16, 1 << (quarter - 1).bit_length()))


class _Workspace(local):
    """Buffers of one thread, made once: fresh pages for every tile would cost as much as the products."""

    def __init__(self) -> None:
        self.buffers: dict[str, NDArray[Any]] = {}

    def get(self, name: str, rows: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        flat = self.buffers.get(name)
        if flat is None or flat.size < rows * width:
            flat = self.buffers[name] = np.empty(rows * width, dtype=dtype)
        return flat[: rows * width].reshape(rows, width)


class _Sweep:
    """One pass of responses through a plan: where results gather, and what is done to each tile."""

    def __init__(self, plan: RidgePlan, targets: Targets, scoring: str) -> None:
        (n, p), problem = plan.shape, plan.problem
        self.plan, self.targets, self.scoring = plan, targets, scoring
        self.alphas, self.center = problem.alphas, problem.fit_intercept
        self.moments = moments_kernel()
        self.width = _tile_width(targets.n_voxels)
        self.tile_bytes = tile_bytes(n, p, self.width, plan.dtype.itemsize)
        self.workers = self._workers()
        n_alphas, n_voxels = len(self.alphas), targets.n_voxels
        self.coef_pv = np.empty((p, n_voxels), dtype=plan.dtype)
        self.intercept_v = np.zeros(n_voxels, dtype=plan.dtype)
        self.scores_av = np.empty((n_alphas, n_voxels))
        self.variance_v = np.empty(n_voxels)
        self.chosen_v = np.empty(n_voxels, dtype=np.intp)
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
            for first, slab in self.targets.slabs(self.width):
                stops = [(start, min(start + self.width, slab.shape[1])) for start in range(0, slab.shape[1], self.width)]
                waiting = {pool.submit(job, slab, first, *ends): ends for ends in stops}
                try:
                    for done in as_completed(waiting):
                        done.result()
                        bar.update(waiting[done][1] - waiting[done][0])
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def score_and_refit(self, slab: NDArray[Any], first: int, start: int, stop: int) -> None:
        y_tw, mean_w = self._read(slab, start, stop)
        here = slice(first + start, first + stop)
        self._score(y_tw, here)
        self.chosen_v[here] = choose_alphas(self.scores_av[:, here], _tolerance(self.scoring, self.variance_v[here]))
        self._refit(y_tw, mean_w, here)

    def score(self, slab: NDArray[Any], first: int, start: int, stop: int) -> None:
        self._score(self._read(slab, start, stop)[0], slice(first + start, first + stop))

    def refit(self, slab: NDArray[Any], first: int, start: int, stop: int) -> None:
        self._refit(*self._read(slab, start, stop), slice(first + start, first + stop))

    def _spent(self, stage: str, since: float) -> None:
        with self.lock:
            self.seconds[stage] += time.perf_counter() - since

    def _read(self, slab: NDArray[Any], start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """A padded tile of responses in the plan's dtype, centered if there is an intercept, and its means."""
        began = time.perf_counter()
        tile = slab[:, start:stop]
        y_tw = self.work.get("y", len(tile), self.width, self.plan.dtype)
        # Relative to the first row: a constant voxel becomes exactly zero, and a large common offset costs no digits.
        base = tile[0].astype(np.float64) if self.center else np.zeros(stop - start)
        with np.errstate(all="ignore"):
            values = np.subtract(tile, base, dtype=np.float64)
            total = values.sum(axis=0)
            y_tw[:, : stop - start] = values - total / len(tile) if self.center else values
        if not np.isfinite(total).all():
            self.targets.refuse_bad()
            raise InputError("Y holds values too large to add up; rescale it")
        y_tw[:, stop - start :] = 0.0
        self._spent("read", began)
        return y_tw, base + total / len(tile)

    def _score(self, y_tw: NDArray[Any], here: slice) -> None:
        began = time.perf_counter()
        scores, variance = np.zeros((len(self.alphas), here.stop - here.start)), np.zeros(here.stop - here.start)
        for fold in self.plan.folds:
            self._score_fold(fold, y_tw, scores, variance)
        if not np.isfinite(scores).all():
            raise InputError(f"Y holds values too large to score in {self.plan.dtype}; rescale it")
        self.scores_av[:, here] = scores / len(self.plan.folds)
        self.variance_v[here] = variance / len(self.plan.folds)
        self._spent("score", began)

    def _score_fold(self, fold: FoldSpectrum, y_tw: NDArray[Any], scores_aw: NDArray[Any], variance_w: NDArray[Any]) -> None:
        """Add one fold's scores of every penalty, and the variance of its held-out responses."""
        dtype, (width, used) = self.plan.dtype, (y_tw.shape[1], scores_aw.shape[1])
        n_test, rank = fold.predict.shape
        train_tw = self.work.get("train", len(fold.train), width, dtype)
        test_tw = self.work.get("test", n_test, width, dtype)
        np.take(y_tw, fold.train, axis=0, out=train_tw, mode="clip")  # "raise" would go through a copy
        np.take(y_tw, fold.test, axis=0, out=test_tw, mode="clip")
        constant: Any = 0.0
        if self.center:
            # A target that is constant in the training rows must come out as exactly zero coefficients, not as rounding.
            first = train_tw[0].copy()
            train_tw -= first
            constant = (first + train_tw.mean(axis=0, dtype=np.float64))[:used]
        z_rw, scaled_rw = self.work.get("z", rank, width, dtype), self.work.get("scaled", rank, width, dtype)
        predicted_tw = self.work.get("predicted", n_test, width, dtype)
        rounding = 4.0 * float(np.finfo(dtype).eps)
        np.matmul(fold.analyze, train_tw, out=z_rw)  # Vᵀ Xᵀ y
        for a, alpha in enumerate(self.alphas):
            # Predictions times (λ_max + α): shrunk ones would leave float32's range long before the scores stop to differ.
            scale = float(fold.lam[-1] + alpha) if rank else 1.0
            np.multiply(z_rw, (scale / (fold.lam + alpha)).astype(dtype)[:, None], out=scaled_rw)
            np.matmul(fold.predict, scaled_rw, out=predicted_tw)  # X_test V diag(1 / (λ + α)) Vᵀ Xᵀ y
            moments = self.moments(test_tw[:, :used], predicted_tw[None, :, :used])
            scores_aw[a] += score_moments(self.scoring, moments, n_test, constant, scale, rounding)
        variance_w += moments[2] / n_test

    def _refit(self, y_tw: NDArray[Any], mean_w: NDArray[np.float64], here: slice) -> None:
        """Weights of each voxel at its own penalty."""
        began = time.perf_counter()
        full, dtype, (width, used) = self.plan.full, self.plan.dtype, (y_tw.shape[1], here.stop - here.start)
        alpha_w = np.ones(width)
        alpha_w[:used] = self.alphas[self.chosen_v[here]]
        z_rw = self.work.get("z", len(full.lam), width, dtype)
        np.matmul(full.analyze, y_tw, out=z_rw)
        scale_w = (full.lam[-1] if len(full.lam) else 1.0) + alpha_w
        np.multiply(z_rw, scale_w / (full.lam[:, None] + alpha_w), out=z_rw, casting="same_kind")
        coef_pw = self.work.get("coef", self.plan.shape[1], width, dtype)
        if full.features is None:
            np.matmul(full.basis, z_rw, out=coef_pw)  # V diag(1 / (λ + α)) Vᵀ Xᵀ y
        else:
            dual_tw = self.work.get("dual", len(y_tw), width, dtype)
            np.matmul(full.basis, z_rw, out=dual_tw)
            np.matmul(full.features, dual_tw, out=coef_pw)  # Xᵀ U diag(1 / (λ + α)) Uᵀ y
        coef_pw *= (1.0 / scale_w).astype(dtype)
        self.coef_pv[:, here] = coef_pw[:, :used]
        if self.center:
            self.intercept_v[here] = mean_w - self.plan.feature_means @ coef_pw[:, :used].astype(np.float64)
        self._spent("refit", began)

    def result(self, seconds: float) -> RidgeFit:
        """Gather the results in the library and shape of the input."""
        last, one = len(self.alphas) - 1, self.targets.one
        edge_v = ((self.chosen_v == last).astype(np.int8) - (self.chosen_v == 0).astype(np.int8)).astype(np.int8)
        best_v = np.take_along_axis(self.scores_av, self.chosen_v[None], axis=0)[0]
        arrays = {
            "coef": self.coef_pv,
            "intercept": self.intercept_v,
            "alpha": self.alphas[self.chosen_v],
            "cv_scores": self.scores_av.astype(self.plan.dtype),
            "best_score": best_v.astype(self.plan.dtype),
            "at_edge": edge_v,
        }
        library = "torch" if "torch" in (self.plan.problem.library, self.targets.library) else "numpy"
        out = {name: export(array[..., 0] if one else array, library) for name, array in arrays.items()}
        stats = self._stats(seconds)
        return RidgeFit(**out, alphas=export(self.alphas.copy(), library), scoring=self.scoring, stats=stats)

    def _stats(self, seconds: float) -> dict[str, Any]:
        chosen, problem, n_voxels = self.plan.chosen, self.plan.problem, self.targets.n_voxels
        return {
            "strategy": self.plan.strategy,
            "reason": self.plan.reason,
            "operations": {"plan": chosen.plan_operations, "fit": chosen.per_voxel * n_voxels},
            "bytes": {"plan": self.plan.nbytes, "tiles": self.tile_bytes * self.workers},
            "seconds": {**self.plan.seconds, **{f"{k} (all threads)": s for k, s in self.seconds.items()}, "fit": seconds},
            "precision": problem.precision,
            "scored_in": str(self.plan.dtype),
            "device": problem.device,
            "threads": self.workers,
            "tile": self.width,
            "folds": len(self.plan.folds),
            "tie_tolerance": TIE_TOLERANCE,
            "versions": {"fastencode": __version__, "numpy": np.__version__, "python": platform.python_version()},
        }


def _warn_edges(fit: RidgeFit) -> None:
    edge_v = np.atleast_1d(as_numpy(fit.at_edge, "at_edge"))
    low, high = int((edge_v < 0).sum()), int((edge_v > 0).sum())
    if low or high:
        warnings.warn(
            f"{low + high} of {len(edge_v)} voxels chose a penalty at the edge of the grid: {low} the smallest "
            f"({float(fit.alphas[0]):.4g}), {high} the largest ({float(fit.alphas[-1]):.4g}). Widen alphas, unless these are "
            "voxels that X does not predict (those always want the largest).",
            FastencodeWarning,
            stacklevel=4,  # the caller of ridge_cv or of plan.fit
        )
