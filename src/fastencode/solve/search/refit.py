"""Weights of each voxel at its own weighting of bands and penalty (docs/solver.md, sections 6 and 7).

Voxels that share a weighting share its decomposition. Voxels with penalties of their own are solved cell by cell (``cells.py``).
With c = U_τᵀ y, in the primal the weights are √γ V diag(√(λ + τ) / (λ + α)) c. In the dual, dual weights
ω = U diag(1 / (λ + α)) Uᵀ y come first, and the weights of band b are γ_b X̌_bᵀ ω.

Legend: t = time, p = features, b = bands, v = voxels, r = directions, w = voxels of a tile.
"""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import Array, Device
from fastencode.progress import Bar
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.grams import Grams
from fastencode.solve.plan.products import Products, products_for, products_there
from fastencode.solve.score.tiles import READ_ROWS, REFIT_FEATURES, Reader, Where, tile_width
from fastencode.solve.search.cells import Cell, CellReader, by_cells
from fastencode.solve.search.search import Bases, Decomposed
from fastencode.solve.search.state import Chosen
from fastencode.solve.search.systems import HIGHEST, systems_of, traces
from fastencode.solve.weights.coefficients import Coefficients, dual_factor, feature_blocks, primal_factor
from fastencode.solve.weights.features import PIECE, features_times, threads_within
from fastencode.threads import available_threads

__all__ = ["Weights", "refit", "share"]

_WIDEST = 768
# Most bytes of dual weights that wait for the features; with memory= a quarter of it.
_WAITING = 2**30
# Relative residual of weights by conjugate gradients, for results in float64 and float32 (by bytes of a number).
_TOLERANCE = {8: 1e-12, 4: 1e-8}


def _products(device: Device | None, dtype: np.dtype[Any]) -> Products:
    return products_for(dtype) if device is None else products_there(device, dtype)


class Weights:
    """Where weights gather. In the dual, tiles of dual weights wait for the features, which are centered once for many.

    Attributes
    ----------
    features : Coefficients or None
        Weights of the features. None where only kernels were given:
    dual_tv : (t, v) or None
        then predictions are Σ γ_b K_b @ dual + intercept, K_b between new rows and all rows given.
    intercept_v : (v,) float64
    bad_v : (v,) bool
        Voxels that hold NaN or infinite values.
    unsolved_v : (v,) float64
        As in ``Chosen``, of the weights.
    """

    def __init__(self, grams: Grams, n_voxels: int, device: Device | None) -> None:
        p = grams.problem.X.shape[1]
        kernels, dtype = grams.mean_bt is not None, grams.problem.X.dtype
        self.grams, self.device, self.products = grams, device, _products(device, dtype)
        self.intercept_v, mean_p = np.zeros(n_voxels), grams.mean_p if grams.problem.fit_intercept else None
        self.features = None if kernels else Coefficients(np.empty((p, n_voxels), dtype=dtype), self.intercept_v, mean_p)
        self.dual_tv = np.zeros((grams.problem.n_given, n_voxels), dtype=dtype) if kernels else None
        self.bad_v = np.zeros(n_voxels, dtype=bool)
        self.unsolved_v = np.zeros(n_voxels)
        self.waiting: list[tuple[NDArray[np.intp], F64, NDArray[Any]]] = []
        memory = grams.problem.memory
        self.room = _WAITING if memory is None else memory // 4
        self.lock = Lock()

    def take_primal(self, here: NDArray[np.intp], coef_pw: NDArray[Any], mean_w: F64) -> None:
        """Weights of some voxels, whose responses had these means."""
        assert self.features is not None
        predicted_w = self.features.take(slice(None), here, coef_pw)
        if self.grams.problem.fit_intercept:
            self.intercept_v[here] = mean_w - predicted_w

    def take_dual(self, here: NDArray[np.intp], gamma_bw: F64, dual_tw: NDArray[Any], mean_w: F64) -> None:
        """Dual weights of some voxels, for weights γ_b X̌_bᵀ ω: to wait for the features, or the result where there are only
        kernels. ``gamma_bw`` has a column for each voxel or one for all."""
        problem, used = self.grams.problem, len(mean_w)
        if problem.fit_intercept:
            self.intercept_v[here] = mean_w
        if self.dual_tv is None:
            with self.lock:
                self.waiting.append((here, gamma_bw, dual_tw))
            return
        raw_tw = dual_tw[:, :used] * self.grams.root_t.astype(dual_tw.dtype)[:, None]
        rows = np.arange(problem.n_given) if problem.kept is None else problem.kept
        self.dual_tv[np.ix_(rows, here)] = raw_tw
        if problem.fit_intercept:
            assert self.grams.mean_bt is not None
            self.intercept_v[here] -= (gamma_bw * (self.grams.mean_bt @ raw_tw)).sum(axis=0)

    def make_room(self, needed: int, one: int) -> None:
        """Let less wait where ``memory`` is short beside the bytes that are needed; ``one`` is what a single tile leaves."""
        memory = self.grams.problem.memory
        if memory is not None:
            self.room = max(one, min(memory // 4, memory - needed))

    def flush_if_full(self, more: int = 0, beside: int = 0) -> None:
        """Flush if there is no room for so many bytes more; ``beside`` as there."""
        if sum(dual.nbytes for *_, dual in self.waiting) + more > self.room:
            self.flush(beside)

    def flush(self, beside: int = 0) -> None:
        """Weights of features from all dual weights that wait: γ_b X̌_bᵀ ω. ``beside`` are bytes that are kept meanwhile, but for
        the Grams: what is left of ``memory`` says how many threads there may be, each with a block of features."""
        found, problem, grams = self.features, self.grams.problem, self.grams
        if found is None or not self.waiting:
            return
        waiting, band_p = self.waiting, grams.bands.band_of_feature
        dtype = waiting[0][2].dtype
        products = _products(self.device, dtype)

        def take(i: int, some: slice, coef_pw: NDArray[Any]) -> F64:
            here, gamma_bw, _ = waiting[i]
            for first in range(0, len(coef_pw), PIECE):  # so that no factors of all of them are made
                coef_pw[first : first + PIECE] *= gamma_bw[band_p[some][first : first + PIECE]].astype(dtype)
            return found.take(some, here, coef_pw[:, : len(here)])

        duals, widest = [products.put(dual_tw) for *_, dual_tw in waiting], max(dual_tw.shape[1] for *_, dual_tw in waiting)
        kept = grams.nbytes + beside + sum(dual_tw.nbytes for *_, dual_tw in waiting)
        threads = threads_within(problem.X, widest, problem.memory, kept, available_threads(), item=dtype.itemsize)
        blocks = features_times(problem.X, grams.mean_p, grams.root_t, duals, take, products, threads)
        if problem.fit_intercept:
            for place, (here, *_) in enumerate(waiting):
                self.intercept_v[here] -= np.sum([offsets[place] for offsets in blocks], axis=0)
        self.waiting.clear()


def share(grams: Grams, gammas_bv: F64, alpha_v: F64) -> tuple[F64, NDArray[np.intp]]:
    """How the weights of given penalties are made: (weightings to decompose (i, b), which of them each voxel has (v,)).

    A voxel with −1 is solved in a cell of log δ instead (docs/solver.md, section 7): one inverse serves its neighbors. Every
    distinct weighting is decomposed if there are no more of them than cells. Otherwise only those are that cells cannot solve:
    weights of zero in the primal, whose matrix holds 1 / δ, and δ_b trace(K_b) above ``HIGHEST``.
    """
    with np.errstate(divide="ignore"):
        at_bv = np.log(gammas_bv) - np.log(alpha_v)
    beyond_v = (at_bv > np.log(HIGHEST) - np.log(traces(grams))[:, None]).any(axis=0)
    if not grams.dual:
        beyond_v |= (gammas_bv == 0).any(axis=0)
    others = np.flatnonzero(~beyond_v)
    own = np.zeros(len(alpha_v), dtype=bool)
    if len(np.unique(gammas_bv[:, others], axis=1).T) > len(by_cells(grams, at_bv, others)):
        own[others] = True
    which_v = np.full(len(alpha_v), -1)
    found, which_v[~own] = _distinct(gammas_bv[:, ~own])
    return found, which_v


def _distinct(gammas_bw: F64) -> tuple[F64, NDArray[np.intp]]:
    """(the different columns (i, b), which of them each column is (w,))."""
    each_bi, which_w = np.unique(gammas_bw, axis=1, return_inverse=True)
    return np.ascontiguousarray(each_bi.T), which_w.reshape(-1)


def refit(bases: Bases, targets: Targets, skip_nan: bool, chosen: Chosen, bar: Bar, device: Device | None = None) -> Weights:
    """Weights of all voxels, in the host's memory: those of one candidate together, those with penalties of their own cell by
    cell. Products are made on the device, if there is one."""
    problem, which_v = bases.grams.problem, chosen.which_v
    dtype, out = problem.X.dtype, Weights(bases.grams, targets.n_voxels, device)
    for i in np.unique(which_v[which_v >= 0]):
        columns, basis = np.flatnonzero(which_v == i), bases.get(int(i))
        width = tile_width(len(columns), _WIDEST)
        tile, kept = _refit_bytes(bases.grams, basis, width)
        out.make_room(kept + tile, dtype.itemsize * len(problem.X) * width)
        # A multiple of the tile, so that tiles, and with them the bits of the result, do not depend on memory.
        step = width * max(1, out.room // (dtype.itemsize * len(problem.X) * width)) if bases.grams.dual else len(columns)
        for first in range(0, len(columns), step):
            some = columns[first : first + step]
            out.flush_if_full(len(some) * dtype.itemsize * len(problem.X), basis.nbytes + bases.bytes)
            sizes = (width, tile, kept + out.room * bases.grams.dual)
            sweep = _Refit(basis, bases.candidates_ib[i], targets, skip_nan, (some, sizes), chosen.alpha_v, out)
            sweep.run(sweep.job, bar)
            out.bad_v |= sweep.bad_v
    if (which_v < 0).any():
        out.flush()  # what follows is in float64: much of it cancels in the product with the features
        everything = np.arange(len(problem.X))
        with np.errstate(divide="ignore"):  # weights of zero are those of candidates, not of these voxels
            at_bv = np.log(chosen.gammas_bv) - np.log(chosen.alpha_v)
        systems = systems_of(bases.grams, [(everything, everything[:0])], device)
        for centre_b, some in by_cells(bases.grams, at_bv, np.flatnonzero(which_v < 0)):
            _weigh(_Own(Cell.at(systems, np.exp(centre_b)), targets, skip_nan, some, chosen, out), bar)
            out.flush_if_full(beside=systems.nbytes)
        del systems
    out.flush()
    return out


def _weigh(own: _Own, bar: Bar) -> None:
    """The caller keeps no name of ``own``, so that its inverse is freed before the next one is made."""
    own.run(own.job, bar)
    own.out.bad_v |= own.bad_v


class _Own(CellReader):
    """One pass of the voxels of a cell."""

    def __init__(
        self, cell: Cell, targets: Targets, skip_nan: bool, columns: NDArray[np.intp], chosen: Chosen, out: Weights
    ) -> None:
        super().__init__(cell, targets, skip_nan, columns)
        self.chosen, self.out = chosen, out

    def tile(self, y_nw: Array, mean_w: F64, here: NDArray[np.intp]) -> None:
        """Solve for a tile, compute the residual anew, and solve once more from there."""
        gammas, alpha = self.chosen.gammas_bv[:, here], self.chosen.alpha_v[here]
        delta, state, tolerance = self.device.put(gammas / alpha), self.cell.start(0, y_nw), _TOLERANCE[self.dtype.itemsize]
        self.cell.solve(0, delta, state, tolerance)
        self.cell.refresh(0, y_nw, state)
        self.cell.solve(0, delta, state, tolerance)
        x_mw, self.out.unsolved_v[here] = self.device.get(state.x_mw), self.device.get(state.unsolved_w)
        if self.out.grams.dual:
            self.out.take_dual(here, gammas, x_mw / alpha, mean_w)
        else:
            self.out.take_primal(here, x_mw, mean_w)


def _refit_bytes(grams: Grams, basis: Decomposed, width: int) -> tuple[int, int]:
    """(bytes of working memory for one tile, bytes there are already, but for dual weights that wait)."""
    (n, p), r, item = grams.problem.X.shape, len(basis.lam), grams.problem.X.dtype.itemsize
    some = min(p, REFIT_FEATURES)
    tile = width * (item * (2 * n + 2 * r + some) + 8 * (2 * READ_ROWS + 2 * r + some)) + (8 + item) * some * n * grams.dual
    return tile, grams.nbytes + basis.nbytes


class _Refit(Reader):
    """One pass of some voxels of one weighting."""

    def __init__(
        self,
        basis: Decomposed,
        gamma_b: F64,
        targets: Targets,
        skip_nan: bool,
        tiles: tuple[NDArray[np.intp], tuple[int, int, int]],
        alpha_v: F64,
        out: Weights,
    ) -> None:
        grams, (columns, sizes) = out.grams, tiles
        super().__init__(grams.problem, grams.root_t, targets, skip_nan, sizes, columns)
        self.grams, self.basis, self.gamma_b, self.alpha_v, self.out = grams, basis, gamma_b, alpha_v, out
        self.products, self.analyze_tr = out.products, out.products.put(basis.analyze_tr)
        self.coef_blocks = [out.products.put(basis.V_pr[some]) for some in feature_blocks(len(basis.V_pr))]

    def job(self, slab: NDArray[Any], inside: Where, here: NDArray[np.intp]) -> None:
        """Read a tile and make its weights."""
        y_tw, mean_w = self.read(slab, inside, here)
        began = time.perf_counter()
        basis, products = self.basis, self.products
        lam, alpha_w = basis.lam[:, None], np.ones(self.width)
        alpha_w[: len(mean_w)] = self.alpha_v[here]
        c_rw = self.work.get("c", len(lam), self.width, dtype=self.dtype)
        # c = U_τ.T @ y
        products.multiply(self.analyze_tr.T, products.put(y_tw), c_rw)
        if not len(basis.V_pr):
            np.multiply(c_rw, dual_factor(lam, basis.tau, alpha_w), out=c_rw, casting="same_kind")
            dual_tw = np.empty((len(basis.analyze_tr), self.width), dtype=self.dtype)
            # ω = U_τ @ c
            products.multiply(self.analyze_tr, products.put(c_rw), dual_tw)
            self.out.take_dual(here, self.gamma_b[:, None], dual_tw, mean_w)
        else:
            np.multiply(c_rw, primal_factor(lam, np.sqrt(lam + basis.tau), alpha_w), out=c_rw, casting="same_kind")
            self._primal(c_rw, here, mean_w)
        self.spent("refit", began)

    def _primal(self, c_rw: NDArray[Any], here: NDArray[np.intp], mean_w: F64) -> None:
        out = self.out
        assert out.features is not None
        if self.problem.fit_intercept:
            out.intercept_v[here] = mean_w
        right_rw, used = self.products.put(c_rw), len(mean_w)
        out.intercept_v[here] -= out.features.weigh(self.coef_blocks, 0, right_rw, here, used, self.products, self.work.get)
