"""Held-out scores of one tile at every penalty: predict at the nodes, reduce to moments, interpolate.

Legend: t = time, v = voxels, a = penalties, k = nodes, r = directions, b = folds of one size, m = held-out rows of one,
w = voxels of a tile, u = those in use.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, take_rows
from fastencode.errors import InputError
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.fold_plan import FoldPlan
from fastencode.solve.plan.nodes import scale_of
from fastencode.solve.plan.operators import Operator, WholeFolds
from fastencode.solve.plan.products import Get, Products, products_for
from fastencode.solve.score.choose import EachFold
from fastencode.solve.score.gcv import GcvScorer
from fastencode.solve.score.moments import flat_below, moments_kernel, score_moments
from fastencode.solve.score.tiles import READ_ROWS, REFIT_FEATURES, Reader, Where, tile_width

__all__ = ["FoldScorer", "Sweep"]

# A tile as wide as OpenBLAS packs its right side in one go, unless the predictions of one fold would then leave the cache by far.
_WIDEST = 768
_PREDICTIONS = 48 * 2**20
# All folds' parts of the coordinates are kept for a tile if they take no more than this.
_PARTS = 256 * 2**20


class _HeldOut(NamedTuple):
    """Held-out responses and predictions of folds of one size, in buffers that the next ones overwrite.

    ``folds``: which of the problem's folds; ``rows_bm``: their test rows; ``target_bmw`` and ``predicted_kbmw`` (at every node):
    less ``mean_bw``, the mean of each fold's training responses (None without an intercept).
    """

    folds: tuple[int, ...]
    rows_bm: NDArray[np.intp]
    target_bmw: NDArray[Any]
    predicted_kbmw: NDArray[Any]
    mean_bw: NDArray[Any] | None


class FoldScorer:
    """Scores tiles on one plan: coordinates, held-out predictions, moments, scores."""

    def __init__(self, plan: FoldPlan, scoring: str) -> None:
        self.plan, self.scoring, self.dtype = plan, scoring, plan.dtype
        self.moments = moments_kernel()
        self.products = products_for(self.dtype, plan.problem.precision == "fast")
        self.exact = products_for(self.dtype)  # for the coordinates: weights are made of them
        self.weights = plan.problem.weights
        self.inverse_root = None if self.weights is None else (1.0 / plan.root).astype(self.dtype)
        nodes, top = plan.nodes, float(plan.lam[-1]) if len(plan.lam) else 0.0
        self.scale_a1 = scale_of(plan.problem.alphas, top)[:, None]
        self.mix_ak = nodes.mix_ak
        # Where every penalty is a node, nothing follows from products of two nodes' predictions.
        self.crossed = len(nodes.alphas) < len(plan.problem.alphas)
        self.row, self.column = np.tril_indices(len(nodes.alphas))
        pairs = nodes.mix_ak[:, self.row] * nodes.mix_ak[:, self.column]
        self.pairs_aq = pairs * np.where(self.row == self.column, 1.0, 2.0)
        self.rounding = plan.rounding
        self.apart = [f for f in plan.operators if f.form == "apart"]
        n = len(plan.root)
        covered = np.zeros(n, dtype=np.intp)
        for fold in self.apart:
            covered[fold.left] += 1
        self.partition = bool(self.apart) and bool((covered == 1).all())
        self.pulls = [self._root(f.left) @ f.analyze_lr for f in self.apart]
        self.widest = self._widest()
        if len(self.apart) * len(plan.lam) * self.widest * self.dtype.itemsize > _PARTS:
            self.partition = False

    def _root(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        return self.plan.root[rows].astype(self.dtype)

    def _rows_at_once(self) -> int:
        k = len(self.plan.nodes.alphas)
        rows = [k * len(f.test) for f in self.plan.operators] + [2 * k * w.rows.shape[1] for w in self.plan.whole]
        return max(rows, default=1)

    def _widest(self) -> int:
        fits = _PREDICTIONS // (self._rows_at_once() * self.dtype.itemsize)
        return int(min(_WIDEST, max(128, fits // 64 * 64)))

    def _chunk(self, whole: WholeFolds, width: int) -> int:
        """Folds of a group that are predicted at once."""
        k, m = len(whole.far_kbmm), whole.rows.shape[1]
        return int(max(1, _PREDICTIONS // (width * self.dtype.itemsize * m * k)))

    def bytes(self, width: int) -> int:
        """Working memory of one thread on one tile of responses."""
        (n, p), r, item, k = self.plan.shape, len(self.plan.lam), self.dtype.itemsize, len(self.plan.nodes.alphas)
        longest = max([len(f.train if f.form == "train" else f.left) for f in self.plan.operators], default=0)
        held = max([k * len(f.test) * width + f.map.values(width) for f in self.plan.operators], default=0)
        for w in self.plan.whole:
            m = w.rows.shape[1]
            chunk = min(self._chunk(w, width), len(w.rows)) * m
            held = max(held, chunk * width * (2 * k + 3) + chunk * r + w.shrinkage.values(chunk, width))
        parts = len(self.apart) if self.partition else 1
        weights, kept = min(p, REFIT_FEATURES), n + 2 * longest + r * (2 + parts)
        return int(width * (item * (kept + weights) + 8 * (2 * READ_ROWS + 2 * r + weights)) + item * held)

    def score(
        self, y_tw: NDArray[Any], used: int, square_u: F64, get: Get, each: EachFold | None = None
    ) -> tuple[NDArray[Any], F64]:
        """(coordinates (r, w), mean scores over folds (a, u)) of a padded tile of which ``used`` columns count; ``each`` takes
        the scores of every fold."""
        scores = np.zeros((len(self.scale_a1), used))
        c_rw, parts = self.coordinates(y_tw, get)
        for held in self._held_out(y_tw, c_rw, parts, get, self.products):
            if self.scoring == "neg_mean_squared_error" and len(held.folds) > 1 and each is None:
                scores += self._squared_errors(held, used, square_u)
                continue
            for i, fold in enumerate(held.folds):
                one = self._fold_scores(held, i, used, square_u)
                scores += one
                if each is not None:
                    each.add(fold, one)
        return c_rw, scores / self.plan.n_folds

    def predict(
        self, y_tw: NDArray[Any], c_rw: NDArray[Any], chosen_u: NDArray[np.intp], get: Get, out_tu: NDArray[Any]
    ) -> NDArray[Any]:
        """Fill in the held-out prediction of every row at each voxel's penalty, about the mean of the responses: the mean over
        folds that hold it out, NaN where none does."""
        out_tu[...] = 0
        # predictions at α = (weights of the nodes at α) · (predictions at the nodes) / scale of α
        weights_ku, counts_t = (self.mix_ak / self.scale_a1)[chosen_u].T, np.zeros(len(out_tu))
        for held in self._held_out(y_tw, c_rw, None, get, self.exact):
            sum_bmu, used = np.zeros((*held.rows_bm.shape, len(chosen_u))), slice(len(chosen_u))
            for weight_u, predicted_bmw in zip(weights_ku, held.predicted_kbmw, strict=True):
                sum_bmu += np.multiply(predicted_bmw[:, :, used], weight_u, dtype=np.float64)
            if held.mean_bw is not None:
                sum_bmu += held.mean_bw[:, None, used]
            for rows, sum_mu in _disjoint(held.rows_bm, sum_bmu):
                counts_t[rows] += 1
                out_tu[rows] += sum_mu.astype(out_tu.dtype)
        with np.errstate(invalid="ignore"):
            np.divide(out_tu, counts_t[:, None], out=out_tu, casting="same_kind")
        return out_tu

    def bytes_to_predict(self, width: int) -> int:
        """What :meth:`predict` takes for a tile besides: all rows' predictions, also about their mean; sums of some folds."""
        rows = [len(f.test) for f in self.plan.operators]
        rows += [min(self._chunk(w, width), len(w.rows)) * w.rows.shape[1] for w in self.plan.whole]
        return width * (len(self.plan.root) * (self.dtype.itemsize + 8) + 3 * 8 * max(rows, default=0))

    def coordinates(self, y_tw: NDArray[Any], get: Get) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """(U_τᵀ y, its parts where folds partition the rows) of a tile."""
        c_rw = get("c", len(self.plan.lam), y_tw.shape[1], dtype=self.dtype)
        return c_rw, self._coordinates(y_tw, c_rw, get)

    def _held_out(
        self, y_tw: NDArray[Any], c_rw: NDArray[Any], parts: NDArray[Any] | None, get: Get, products: Products
    ) -> Iterator[_HeldOut]:
        """All folds of the problem, in the plan's order."""
        plan, width, apart, first = self.plan, y_tw.shape[1], 0, len(self.plan.operators)
        for number, fold in zip(plan.order, plan.operators, strict=False):
            if fold.form == "apart":
                inner, mean_w = self._apart(fold, apart, y_tw, c_rw, parts, get, products)
                apart += 1
            else:
                inner = get("inner", len(fold.train), width, dtype=self.dtype)
                np.take(y_tw, fold.train, axis=0, out=inner, mode="clip")  # "raise" would go through a copy
                mean_w = self._mean(inner, fold.train, fold.mass)
                if mean_w is not None:
                    inner -= mean_w if self.weights is None else np.outer(self._root(fold.train), mean_w)
            predicted = get("predicted", len(plan.nodes.alphas), len(fold.test), width, dtype=self.dtype)
            fold.map.apply(inner, predicted, get, products)
            target = self._targets(y_tw, fold.test, mean_w, get)
            mean = None if mean_w is None else mean_w[None]
            yield _HeldOut((number,), fold.test[None], target[None], predicted[:, None], mean)
        for whole in plan.whole:
            yield from self._whole(whole, plan.order[first : first + len(whole.rows)], y_tw, c_rw, get, products)
            first += len(whole.rows)

    def _coordinates(self, y_tw: NDArray[Any], c_rw: NDArray[Any], get: Get) -> NDArray[Any] | None:
        """Fill U_τᵀ y; where folds partition the rows, it is the sum of their parts, which are returned."""
        if not self.partition:
            self.exact.multiply(self.plan.analyze.T, y_tw, c_rw)
            return None
        parts = get("parts", len(self.apart), *c_rw.shape, dtype=self.dtype)
        for fold, part in zip(self.apart, parts, strict=True):
            self.exact.multiply(fold.analyze_lr.T, take_rows(y_tw, fold.left), part)
        np.sum(parts, axis=0, out=c_rw)
        return parts

    def _apart(
        self,
        fold: Operator,
        place: int,
        y_tw: NDArray[Any],
        c_rw: NDArray[Any],
        parts: NDArray[Any] | None,
        get: Get,
        products: Products,
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Coordinates of the training responses about their mean, c − U_Lᵀ (y_L − o_L ȳ), and that mean."""
        left_mw = take_rows(y_tw, fold.left)
        mean_w = self._mean(left_mw, fold.left, -fold.mass)  # all rows sum to zero, so what is left out tells it
        inner = get("inner", *c_rw.shape, dtype=self.dtype)
        if parts is not None:
            np.subtract(c_rw, parts[place], out=inner)
        else:
            products.multiply(fold.analyze_lr.T, left_mw, inner)
            np.subtract(c_rw, inner, out=inner)
        if mean_w is not None:
            inner += np.outer(self.pulls[place], mean_w)
        return inner, mean_w

    def _mean(self, values_mw: NDArray[Any], rows: NDArray[np.intp], mass: float) -> NDArray[Any] | None:
        """Weighted sum of some responses (already times the roots of their weights) by a mass; None without an intercept."""
        if not self.plan.problem.fit_intercept:
            return None
        if self.weights is None:
            total = values_mw.sum(axis=0, dtype=np.float64)
        else:
            total = np.einsum("m,mw->w", self.plan.root[rows], values_mw)
        return np.asarray(total / mass, dtype=self.dtype)

    def _targets(self, y_tw: NDArray[Any], rows: NDArray[np.intp], mean_w: NDArray[Any] | None, get: Get) -> NDArray[Any]:
        """Held-out responses relative to the training mean, without the roots of weights."""
        if mean_w is None and self.inverse_root is None:
            taken = take_rows(y_tw, rows)
            if taken.base is not None:
                return taken
        target = get("target", len(rows), y_tw.shape[1], dtype=self.dtype)
        np.take(y_tw, rows, axis=0, out=target, mode="clip")
        if self.inverse_root is not None:
            target *= self.inverse_root[rows][:, None]
        if mean_w is not None:
            target -= mean_w
        return target

    def _fold_scores(self, held: _HeldOut, i: int, used: int, square_u: F64) -> F64:
        rows, target, predicted = held.rows_bm[i], held.target_bmw[i], held.predicted_kbmw[:, i]
        weights = None if self.weights is None else self.weights[rows]
        mass = float(len(rows) if weights is None else weights.sum())
        moments = self.moments(target[:, :used], predicted[:, :, :used], weights, None, self.crossed)
        training = 0.0 if held.mean_bw is None else held.mean_bw[i, :used].astype(np.float64)
        return self._interpolated(moments, mass, square_u, training)

    def _interpolated(self, moments_qu: F64, mass: float, square_u: F64, training: F64 | float = 0.0) -> F64:
        """Scores at every penalty from the moments of the nodes (kernels/moments.pyx has their order)."""
        k = self.mix_ak.shape[1]
        means, gram = moments_qu[: k + 1], moments_qu[k + 1 :]
        first = np.arange(1, k + 1) * np.arange(2, k + 2) // 2  # where row i of the triangle starts: y · p_i
        if self.crossed:
            pp = np.maximum(self.pairs_aq @ gram[first[self.row] + self.column + 1], 0.0)
            parts = (means[0], self.mix_ak @ means[1:], gram[0], self.mix_ak @ gram[first], pp)
        else:
            parts = (means[0], means[1:], gram[0], gram[first], gram[first + np.arange(1, k + 1)])
        floor = mass * square_u * self.rounding**2
        flat = 0.0 if self.weights is None else flat_below(means[0], training, mass, self.dtype)
        return np.asarray(score_moments(HOST, self.scoring, parts, mass, self.scale_a1, floor, flat))

    def _whole(
        self, whole: WholeFolds, folds: tuple[int, ...], y_tw: NDArray[Any], c_rw: NDArray[Any], get: Get, products: Products
    ) -> Iterator[_HeldOut]:
        """Many small folds, some at a time."""
        k, (n_folds, m), width = len(whole.far_kbmm), whole.rows.shape, y_tw.shape[1]
        step, spread = self._chunk(whole, width), whole.shrinkage.spread(c_rw, get, products)
        for start in range(0, n_folds, step):
            chunk = slice(start, min(start + step, n_folds))
            rows_bm = whole.rows[chunk]
            b, rows = len(rows_bm), rows_bm.ravel()
            near = get("near", b, m, width, dtype=self.dtype)
            np.take(y_tw, rows, axis=0, out=near.reshape(b * m, width), mode="clip")
            mean_bw = self._about_training_means(whole, near, chunk)
            before, scaled = get("before", k, b * m, width, dtype=self.dtype), get("far", b, m, width, dtype=self.dtype)
            whole.shrinkage.product(take_rows(self.plan.analyze, rows), spread, before, get, products)
            before = before.reshape(k, b, m, width)
            predicted = before if m == 1 else get("predicted", k, b, m, width, dtype=self.dtype)
            multiply = np.multiply if m == 1 else np.matmul
            for j in range(k):
                multiply(whole.far_kbmm[j, chunk], before[j], out=predicted[j])
                if (block := whole.near_kbmm[j]) is not None:
                    multiply(block[chunk], near, out=scaled)
                elif self.inverse_root is None:
                    np.multiply(near, whole.scale_k[j], out=scaled)
                else:
                    np.multiply(near, whole.scale_k[j] * self.inverse_root[rows_bm][:, :, None], out=scaled)
                predicted[j] += scaled
            if self.inverse_root is not None:
                near *= self.inverse_root[rows_bm][:, :, None]
            yield _HeldOut(folds[chunk], rows_bm, near, predicted, mean_bw)

    def _about_training_means(self, whole: WholeFolds, near: NDArray[Any], chunk: slice) -> NDArray[Any] | None:
        """Make held-out responses relative to the mean of each fold's training responses, in place; returns these means."""
        if not self.plan.problem.fit_intercept:
            return None
        root_bm = self.plan.root[whole.rows[chunk]].astype(self.dtype)
        total = np.einsum("bm,bmw->bw", root_bm, near, dtype=np.float64)
        mean: NDArray[Any] = (-total / whole.mass_b[chunk, None]).astype(self.dtype)
        near -= root_bm[:, :, None] * mean[:, None, :]
        return mean

    def _squared_errors(self, held: _HeldOut, used: int, square_u: F64) -> F64:
        """Sum over folds of minus the mean squared error.

        Σ_b Σ_m ω_bm e_bm² with Σ_m ω_bm = 1: one weighted mean over all rows of all folds, times the b folds.
        """
        rows_bm, target, predicted = held.rows_bm, held.target_bmw, held.predicted_kbmw
        b, m = rows_bm.shape
        weights = np.full(b * m, 1.0 / m)
        if self.weights is not None:
            weights = (self.weights[rows_bm] / self.weights[rows_bm].sum(axis=1, keepdims=True)).ravel()
        width, k = target.shape[2], len(predicted)
        target, predicted = target.reshape(b * m, width)[:, :used], predicted.reshape(k, b * m, width)[:, :, :used]
        moments = self.moments(target, predicted, weights, None, self.crossed)
        return self._interpolated(moments, float(b), square_u) * b


def _disjoint(rows_bm: NDArray[np.intp], values_bmu: NDArray[Any]) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Rows that differ, and their values: of all folds at once where they can be; a row that one fold repeats comes once."""
    if len(np.unique(rows_bm)) == rows_bm.size:
        yield rows_bm.ravel(), values_bmu.reshape(rows_bm.size, -1)
        return
    for rows, values_mu in zip(rows_bm, values_bmu, strict=True):
        once, first = np.unique(rows, return_index=True)
        yield once, values_mu[first]


class Sweep(Reader):
    """One pass of responses through the folds of a plan.

    ``more`` bytes are held for each voxel of a tile beside the scorer's; ``predictions`` says that those are wanted too.
    """

    def __init__(
        self,
        plan: FoldPlan,
        targets: Targets,
        scoring: str,
        skip_nan: bool,
        columns: NDArray[np.intp] | None = None,
        more: int = 0,
        predictions: bool = False,
    ) -> None:
        self.plan, self.scoring, self.alphas = plan, scoring, plan.problem.alphas
        self.scorer = FoldScorer(plan, scoring)
        self.gcv = GcvScorer(plan) if plan.problem.gcv else None
        width = tile_width(targets.n_voxels if columns is None else len(columns), self.scorer.widest)
        tile = self.scorer.bytes(width) + width * more + (self.scorer.bytes_to_predict(width) if predictions else 0)
        sizes = (width, tile, plan.nbytes)
        super().__init__(plan.problem, plan.root, targets, skip_nan, sizes, columns)

    def score(self, y_tw: NDArray[Any], here: Where, each: EachFold | None = None) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """(coordinates (r, w), scores of every penalty (a, voxels in use)) of a tile, the scores in float64; ``each`` takes those
        of every fold."""
        began = time.perf_counter()
        square = self.square_v[here]
        with np.errstate(over="ignore", invalid="ignore"):
            c_rw, scores = self._score(y_tw, square, each)
            lost = ~np.isfinite(scores.astype(self.dtype)).all(axis=0)
        if lost.any():
            first = self._first(lost, here)
            raise InputError(f"Y holds values too large to score in {self.dtype}, the first in voxel {first}; rescale it")
        self.spent("score", began)
        return c_rw, scores

    def _score(self, y_tw: NDArray[Any], square: F64, each: EachFold | None) -> tuple[NDArray[Any], F64]:
        if self.gcv is not None:
            c_rw, _ = self.scorer.coordinates(y_tw, self.work.get)
            return c_rw, self.gcv.score(c_rw[:, : len(square)], square, self.scoring)
        return self.scorer.score(y_tw, len(square), square, self.work.get, each)
