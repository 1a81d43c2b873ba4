"""Weights of each voxel at its own weighting of bands and penalty: voxels that share a weighting share its decomposition.

With c = U_τᵀ y, in the primal the weights are √γ V diag(√(λ + τ) / (λ + α)) c. In the dual, dual weights
ω = U diag(1 / (λ + α)) Uᵀ y come first, and the weights of band b are γ_b X̌_bᵀ ω.

Legend: t = time, p = features, b = bands, v = voxels, r = directions, w = voxels of a tile.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.banded.grams import Grams
from fastencode.solve.banded.search import Bases, Decomposed
from fastencode.solve.products import products_for
from fastencode.solve.scorer import READ_ROWS, REFIT_FEATURES
from fastencode.solve.sweep import Reader, tile_width
from fastencode.solve.targets import Targets
from fastencode.threads import available_threads, together

__all__ = ["Weights", "refit"]

F64 = NDArray[np.float64]
_WIDEST = 768
# Dual weights that wait for the features, where memory= does not say less.
_WAITING = 2**30


class Weights:
    """Where weights gather. In the dual, tiles of dual weights wait for the features, which are centered once for many.

    Attributes
    ----------
    coef_pv : (p, v) or None
        None where only kernels were given:
    dual_tv : (t, v) or None
        then predictions are Σ γ_b K_b @ dual + intercept, K_b between new rows and all rows given.
    intercept_v : (v,) float64
    """

    def __init__(self, grams: Grams, n_voxels: int) -> None:
        p = grams.problem.X.shape[1]
        kernels, dtype = grams.mean_bt is not None, grams.problem.X.dtype
        self.grams = grams
        self.coef_pv = None if kernels else np.empty((p, n_voxels), dtype=dtype)
        self.dual_tv = np.zeros((grams.problem.n_given, n_voxels), dtype=dtype) if kernels else None
        self.intercept_v = np.zeros(n_voxels)
        self.waiting: list[tuple[NDArray[np.intp], F64, NDArray[Any]]] = []

    @property
    def waiting_bytes(self) -> int:
        """What dual weights that wait take."""
        return sum(dual.nbytes for *_, dual in self.waiting)

    def flush(self) -> None:
        """Weights of features from all dual weights that wait: γ_b X̌_bᵀ ω."""
        coef_pv, problem, grams = self.coef_pv, self.grams.problem, self.grams
        if coef_pv is None or not self.waiting:
            return
        multiply, dtype, band_p = products_for(coef_pv.dtype).multiply, coef_pv.dtype, grams.bands.band_of_feature

        def fill(some: slice) -> list[F64]:
            block = np.subtract(problem.X[:, some], grams.mean_p[some], dtype=np.float64)
            block *= grams.root_t[:, None]
            right_pt, offsets = block.astype(dtype).T, []
            for here, gamma_b, dual_tw in self.waiting:
                coef_pw = np.empty((some.stop - some.start, dual_tw.shape[1]), dtype=dtype)
                multiply(right_pt, dual_tw, coef_pw)
                coef_pw *= gamma_b[band_p[some], None].astype(dtype)
                used = coef_pw[:, : len(here)]
                coef_pv[some, here] = used
                offsets.append(grams.mean_p[some] @ used.astype(np.float64))
            return offsets

        blocks = together([partial(fill, some) for some in _blocks(len(coef_pv))], available_threads())
        if problem.fit_intercept:
            for place, (here, *_) in enumerate(self.waiting):
                self.intercept_v[here] -= np.sum([offsets[place] for offsets in blocks], axis=0)
        self.waiting.clear()


def refit(bases: Bases, targets: Targets, skip_nan: bool, which_v: NDArray[np.intp], alpha_v: F64, bar: Any) -> Weights:
    """Weights of all voxels."""
    out, problem = Weights(bases.grams, targets.n_voxels), bases.grams.problem
    room = _WAITING if problem.memory is None else problem.memory // 4
    for i in np.unique(which_v):
        columns, basis = np.flatnonzero(which_v == i), bases.get(int(i))
        width = tile_width(len(columns), _WIDEST)
        # Whole tiles, so that room cannot show in the result.
        step = width * max(1, room // (problem.X.itemsize * len(problem.X) * width)) if bases.grams.dual else len(columns)
        for first in range(0, len(columns), step):
            some = columns[first : first + step]
            sweep = _Refit(basis, bases.candidates_ib[i], targets, skip_nan, (some, width), alpha_v, out)
            sweep.run(sweep.job, bar)
            if out.waiting_bytes + step * problem.X.itemsize * len(problem.X) > room:
                out.flush()
    out.flush()
    return out


class _Refit(Reader):
    """One pass of some voxels of one weighting."""

    def __init__(
        self,
        basis: Decomposed,
        gamma_b: F64,
        targets: Targets,
        skip_nan: bool,
        tiles: tuple[NDArray[np.intp], int],
        alpha_v: F64,
        out: Weights,
    ) -> None:
        grams, (columns, width) = out.grams, tiles
        problem = grams.problem
        (n, p), r, item = problem.X.shape, len(basis.lam), problem.X.dtype.itemsize
        some = min(p, REFIT_FEATURES)
        tile = width * (item * (2 * n + 2 * r + some) + 8 * (2 * READ_ROWS + 2 * r + some)) + (8 + item) * some * n * grams.dual
        kept = grams.nbytes + basis.nbytes + (problem.memory // 4 if grams.dual and problem.memory else 0)
        super().__init__(problem, grams.root_t, targets, skip_nan, (width, tile, kept), columns)
        self.grams, self.basis, self.gamma_b, self.alpha_v, self.out = grams, basis, gamma_b, alpha_v, out
        self.multiply = products_for(self.dtype).multiply

    def job(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        """Read a tile and make its weights."""
        y_tw, mean_w = self.read(slab, inside, here)
        began = time.perf_counter()
        basis, used = self.basis, len(mean_w)
        lam, alpha_w = basis.lam[:, None], np.ones(self.width)
        alpha_w[:used] = self.alpha_v[here]
        c_rw = self.work.get("c", len(lam), self.width, dtype=self.dtype)
        self.multiply(basis.analyze_tr.T, y_tw, c_rw)
        if self.problem.fit_intercept:
            self.out.intercept_v[here] = mean_w
        if self.grams.dual:
            np.multiply(c_rw, (lam + basis.tau) / (lam * (lam + alpha_w)), out=c_rw, casting="same_kind")
            self._dual(c_rw, here, used)
        else:
            np.multiply(c_rw, np.sqrt(lam + basis.tau) / (lam + alpha_w), out=c_rw, casting="same_kind")
            self._primal(c_rw, here, used)
        self.spent("refit", began)

    def _primal(self, c_rw: NDArray[Any], here: Any, used: int) -> None:
        coef_pv = self.out.coef_pv
        assert coef_pv is not None
        for some in _blocks(len(coef_pv)):
            coef_pw = self.work.get("coef", some.stop - some.start, self.width, dtype=self.dtype)
            self.multiply(self.basis.coef_pr[some], c_rw, coef_pw)
            coef_pv[some, here] = coef_pw[:, :used]
            if self.problem.fit_intercept:
                self.out.intercept_v[here] -= self.grams.mean_p[some] @ coef_pw[:, :used].astype(np.float64)

    def _dual(self, c_rw: NDArray[Any], here: Any, used: int) -> None:
        """Dual weights: to wait for the features, or the result where there are only kernels."""
        dual_tw = np.empty((len(self.basis.analyze_tr), self.width), dtype=self.dtype)
        self.multiply(self.basis.analyze_tr, c_rw, dual_tw)
        if self.out.dual_tv is None:
            with self.lock:
                self.out.waiting.append((here, self.gamma_b, dual_tw))
            return
        raw_tw = dual_tw[:, :used] * self.root[:, None]
        rows = np.arange(self.problem.n_given) if self.problem.kept is None else self.problem.kept
        self.out.dual_tv[np.ix_(rows, here)] = raw_tw
        if self.problem.fit_intercept:
            assert self.grams.mean_bt is not None
            self.out.intercept_v[here] -= (self.gamma_b @ self.grams.mean_bt) @ raw_tw


def _blocks(p: int) -> list[slice]:
    return [slice(first, min(first + REFIT_FEATURES, p)) for first in range(0, p, REFIT_FEATURES)]
