"""Weights of each voxel at its own weighting of bands and penalty: voxels that share a weighting share its decomposition.

With c = U_τᵀ y, in the primal the weights are √γ V diag(√(λ + τ) / (λ + α)) c. In the dual, dual weights
ω = U diag(1 / (λ + α)) Uᵀ y come first, and the weights of band b are γ_b X̌_bᵀ ω.

Legend: t = time, p = features, b = bands, v = voxels, r = directions, w = voxels of a tile.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.banded.grams import Grams
from fastencode.solve.banded.search import Bases, Decomposed
from fastencode.solve.products import products_for
from fastencode.solve.scorer import READ_ROWS, REFIT_FEATURES
from fastencode.solve.sweep import Reader, tile_width
from fastencode.solve.targets import Targets

__all__ = ["Weights", "refit"]

F64 = NDArray[np.float64]
_WIDEST = 768


class Weights:
    """Where weights gather.

    Attributes
    ----------
    coef_pv : (p, v) or None
        None where only kernels were given:
    dual_tv : (t, v) or None
        then predictions are Σ γ_b K_b @ dual + intercept, K_b between new rows and all rows given.
    intercept_v : (v,)
    """

    def __init__(self, grams: Grams, n_voxels: int) -> None:
        p = grams.problem.X.shape[1]
        kernels, dtype = grams.mean_bt is not None, grams.problem.X.dtype
        self.coef_pv = None if kernels else np.empty((p, n_voxels), dtype=dtype)
        self.dual_tv = np.zeros((grams.problem.n_given, n_voxels), dtype=dtype) if kernels else None
        self.intercept_v = np.zeros(n_voxels, dtype=dtype)


def refit(bases: Bases, targets: Targets, skip_nan: bool, which_v: NDArray[np.intp], alpha_v: F64, bar: Any) -> Weights:
    """Weights of all voxels."""
    out = Weights(bases.grams, targets.n_voxels)
    for i in np.unique(which_v):
        columns = np.flatnonzero(which_v == i)
        sweep = _Refit(bases.grams, bases.get(int(i)), bases.candidates_ib[i], targets, skip_nan, columns, alpha_v, out)
        sweep.run(sweep.job, bar)
    return out


class _Refit(Reader):
    """One pass of the voxels of one weighting."""

    def __init__(
        self,
        grams: Grams,
        basis: Decomposed,
        gamma_b: F64,
        targets: Targets,
        skip_nan: bool,
        columns: NDArray[np.intp],
        alpha_v: F64,
        out: Weights,
    ) -> None:
        problem = grams.problem
        (n, p), r, item = problem.X.shape, len(basis.lam), problem.X.dtype.itemsize
        width, some = tile_width(len(columns), _WIDEST), min(p, REFIT_FEATURES)
        centered = 0 if not grams.dual else (8 + item) * some * n
        tile = width * (item * (2 * n + 2 * r + some) + 8 * (2 * READ_ROWS + 2 * r + some)) + centered
        super().__init__(problem, grams.root_t, targets, skip_nan, (width, tile, grams.nbytes + basis.nbytes), columns)
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
        if self.grams.dual:
            scale = (lam + basis.tau) / (lam * (lam + alpha_w))
        else:
            scale = np.sqrt(lam + basis.tau) / (lam + alpha_w)
        np.multiply(c_rw, scale, out=c_rw, casting="same_kind")
        intercept_w = self._dual(c_rw, here, used) if self.grams.dual else self._primal(c_rw, here, used)
        if self.problem.fit_intercept:
            self.out.intercept_v[here] = mean_w - intercept_w
        self.spent("refit", began)

    def _primal(self, c_rw: NDArray[Any], here: Any, used: int) -> F64:
        """Weights, and what they make of the means of the features."""
        coef_pv, offset_w = self.out.coef_pv, np.zeros(used)
        assert coef_pv is not None
        for some in _blocks(len(coef_pv)):
            coef_pw = self.work.get("coef", some.stop - some.start, self.width, dtype=self.dtype)
            self.multiply(self.basis.coef_pr[some], c_rw, coef_pw)
            coef_pv[some, here] = coef_pw[:, :used]
            offset_w += self.grams.mean_p[some] @ coef_pw[:, :used].astype(np.float64)
        return offset_w

    def _dual(self, c_rw: NDArray[Any], here: Any, used: int) -> F64:
        """The same by dual weights."""
        grams, offset_w = self.grams, np.zeros(used)
        dual_tw = self.work.get("dual", len(self.basis.analyze_tr), self.width, dtype=self.dtype)
        self.multiply(self.basis.analyze_tr, c_rw, dual_tw)
        if self.out.dual_tv is not None:
            assert grams.mean_bt is not None
            raw_tw = dual_tw[:, :used] * self.root[:, None]
            rows = np.arange(self.problem.n_given) if self.problem.kept is None else self.problem.kept
            self.out.dual_tv[np.ix_(rows, here)] = raw_tw
            return np.asarray((self.gamma_b @ grams.mean_bt) @ raw_tw)
        coef_pv, X = self.out.coef_pv, self.problem.X
        assert coef_pv is not None
        gamma_p = self.gamma_b[grams.bands.band_of_feature]
        for some in _blocks(len(coef_pv)):
            block = np.subtract(X[:, some], grams.mean_p[some], dtype=np.float64)
            block *= self.root[:, None]
            coef_pw = self.work.get("coef", some.stop - some.start, self.width, dtype=self.dtype)
            self.multiply(block.astype(self.dtype).T, dual_tw, coef_pw)
            coef_pw *= gamma_p[some, None].astype(self.dtype)
            coef_pv[some, here] = coef_pw[:, :used]
            offset_w += grams.mean_p[some] @ coef_pw[:, :used].astype(np.float64)
        return offset_w


def _blocks(p: int) -> list[slice]:
    return [slice(first, min(first + REFIT_FEATURES, p)) for first in range(0, p, REFIT_FEATURES)]
