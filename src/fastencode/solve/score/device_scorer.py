"""Held-out scores of one tile where it lies: what ``scorer.py`` does, on the arrays of a device and without waiting for it.

The algebra, its forms and its names are those of ``scorer.py`` and ``operators.py``. Here a form is one function that yields
(targets, predictions at the nodes, rows) of its folds; everything after is common to all forms.

Legend: t = time, a = penalties, k = nodes, r = directions, m = rows of a fold, b = folds of a chunk, w = voxels of a tile,
q = pairs of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.devices import Array, Device
from fastencode.solve.plan.fold_plan import FoldPlan
from fastencode.solve.plan.maps import Factored, Map, Merged
from fastencode.solve.plan.nodes import scale_of
from fastencode.solve.plan.operators import Operator, WholeFolds
from fastencode.solve.plan.segments import Shrinkage
from fastencode.solve.score.choose import EachFold
from fastencode.solve.score.device_moments import device_moments
from fastencode.solve.score.gcv import GcvScorer
from fastencode.solve.score.moments import flat_below, score_moments

__all__ = ["DeviceScorer", "PlanOnDevice", "kept_on", "plan_on_device"]

T = TypeVar("T")
# All folds' parts of the coordinates are kept for a tile if they take no more than this for each of its voxels.
_PARTS = 128 * 2**10
# Predictions of small folds that are made at once, in bytes.
_PREDICTIONS = 256 * 2**20


class _Rows(NamedTuple):
    """Rows of a fold on the device: a slice where they are consecutive, else indices; and what their weights come to."""

    at: slice | Array
    root_m1: Array | None
    inverse_root_m1: Array | None
    weight_m: Array | None
    mass: float


@dataclass(frozen=True, eq=False)
class _Shrunk:
    """A ``Shrinkage`` on the device: each segment's ends and curves (q, its directions, 1)."""

    pieces: tuple[tuple[slice, Array], ...]
    mix_kq: Array | None


@dataclass(frozen=True, eq=False)
class _Map:
    """A fold's map on the device, one of the three of ``maps.py``; what a kind does not have is None.

    ``first`` is multiplied first (merged: all there is, (k·m, r); rotated: (s, r)), then ``rows`` with the ``shrunk``, then
    ``last`` (factored: (k, m, l)).
    """

    first: Array | None
    rows: Array | None
    shrunk: _Shrunk | None
    last: Array | None


@dataclass(frozen=True, eq=False)
class _Fold:
    """An ``Operator`` on the device. ``left`` are the rows that its products read: in the form "train" its training rows."""

    form: str
    map: _Map
    analyze_mr: Array | None
    pull_r1: Array
    left: _Rows
    test: _Rows
    mass: float


@dataclass(frozen=True, eq=False)
class _Whole:
    """``WholeFolds`` on the device; ``rows`` are those of all folds, ``share`` their weights, those of a fold summing to 1."""

    shape: tuple[int, int]
    rows: _Rows
    share: Array
    masses: tuple[float, ...]
    shrunk: _Shrunk
    n_products: int
    far_kbmm: Array
    near_kbmm: tuple[Array | None, ...]
    scale_k: tuple[float, ...]
    mass_b1: Array


@dataclass(frozen=True, eq=False)
class PlanOnDevice:
    """What a plan keeps for responses, on a device."""

    device: Device
    analyze_tr: Array
    root_t1: Array | None
    weight_t: Array | None
    kept: Array | None
    operators: tuple[_Fold, ...]
    whole: tuple[_Whole, ...]
    lam_r1: Array
    shrunk_r1: Array
    alphas: Array
    partition: bool


class _Copies(dict[str, Any]):
    """What is kept of a plan on one device: the last one asked for. Left behind when the plan is pickled."""

    device: Device | None = None

    def __reduce__(self) -> tuple[type[_Copies], tuple[()]]:
        return _Copies, ()


def kept_on(plan: FoldPlan, device: Device, name: str, make: Callable[[], T]) -> T:
    """Something made of a plan on a device: once, then kept with the plan."""
    copies = vars(plan).setdefault("_copies", _Copies())  # a frozen object's own memory, no part of what it is
    if copies.device != device:
        copies.clear()
        copies.device = device
    if name not in copies:
        copies[name] = make()
    made: T = copies[name]
    return made


def plan_on_device(plan: FoldPlan, device: Device) -> PlanOnDevice:
    """The plan's operators on a device."""
    return kept_on(plan, device, "operators", lambda: _move(plan, device))


def _move(plan: FoldPlan, device: Device) -> PlanOnDevice:
    problem, analyze, apart = plan.problem, device.put(plan.analyze), [f for f in plan.operators if f.form == "apart"]
    covered = np.zeros(len(plan.root), dtype=np.intp)
    for fold in apart:
        covered[fold.left] += 1
    small = len(apart) * len(plan.lam) * plan.dtype.itemsize <= _PARTS
    return PlanOnDevice(
        device=device,
        analyze_tr=analyze,
        root_t1=None if problem.weights is None else device.put(plan.root[:, None]),
        weight_t=None if problem.weights is None else device.put(problem.weights),
        kept=None if problem.kept is None else device.put(problem.kept, np.int64),
        operators=tuple(_fold(plan, device, analyze, fold) for fold in plan.operators),
        whole=tuple(_whole(plan, device, whole) for whole in plan.whole),
        lam_r1=device.put(plan.lam[:, None]),
        shrunk_r1=device.put(np.sqrt(plan.lam + plan.tau)[:, None]),
        alphas=device.put(problem.alphas),
        partition=bool(apart) and bool((covered == 1).all()) and small,
    )


def _rows(plan: FoldPlan, device: Device, rows: NDArray[np.intp]) -> _Rows:
    """``root_m1`` is in the plan's dtype, None without weights; ``mass`` is the number of rows or the sum of their weights."""
    consecutive = len(rows) > 0 and bool((np.diff(rows) == 1).all())
    at = slice(int(rows[0]), int(rows[-1]) + 1) if consecutive else device.put(rows, np.int64)
    weights = plan.problem.weights
    if weights is None:
        return _Rows(at, None, None, None, float(len(rows)))
    root = plan.root[rows][:, None]
    return _Rows(
        at,
        device.put(root, plan.dtype),
        device.put(1.0 / root, plan.dtype),
        device.put(weights[rows]),
        float(weights[rows].sum()),
    )


def _some(rows: _Rows, start: int, stop: int) -> _Rows:
    """Consecutive ones of the rows; ``mass`` stays that of all."""
    here = slice(start, stop)
    at = slice(rows.at.start + start, rows.at.start + stop) if isinstance(rows.at, slice) else rows.at[here]
    if rows.root_m1 is None or rows.inverse_root_m1 is None or rows.weight_m is None:
        return _Rows(at, None, None, None, rows.mass)
    return _Rows(at, rows.root_m1[here, ...], rows.inverse_root_m1[here, ...], rows.weight_m[here], rows.mass)


def _shrunk(device: Device, shrinkage: Shrinkage) -> _Shrunk:
    pieces = tuple((slice(*ends), device.put(curves[:, :, None])) for ends, curves in shrinkage.pieces)
    return _Shrunk(pieces, None if shrinkage.mix_kq is None else device.put(shrinkage.mix_kq))


def _map(device: Device, stored: Map, analyze_lr: Array | None) -> _Map:
    if isinstance(stored, Merged):
        k, m, r = stored.predict_kmr.shape
        return _Map(device.put(stored.predict_kmr.reshape(k * m, r)), None, None, None)
    if isinstance(stored, Factored):
        return _Map(None, analyze_lr, _shrunk(device, stored.shrinkage), device.put(stored.solve_kml))
    return _Map(device.put(stored.rotate_sr), device.put(stored.rows_ms), _shrunk(device, stored.shrinkage), None)


def _fold(plan: FoldPlan, device: Device, analyze: Array, fold: Operator) -> _Fold:
    apart = fold.form == "apart"
    left = _rows(plan, device, fold.left if apart else fold.train)
    pull = plan.root[fold.left].astype(plan.dtype) @ fold.analyze_lr if apart else np.zeros(0)
    analyze_mr = device.take(analyze, left.at) if apart else None
    return _Fold(
        form=fold.form,
        map=_map(device, fold.map, analyze_mr),
        analyze_mr=analyze_mr,
        pull_r1=device.put(pull[:, None]),
        left=left,
        test=_rows(plan, device, fold.test),
        mass=fold.mass,
    )


def _whole(plan: FoldPlan, device: Device, whole: WholeFolds) -> _Whole:
    weights = plan.problem.weights
    weight_bm = np.ones(whole.rows.shape) if weights is None else weights[whole.rows]
    mass_b = weight_bm.sum(axis=1)
    return _Whole(
        whole.rows.shape,
        _rows(plan, device, whole.rows.ravel()),
        device.put((weight_bm / mass_b[:, None]).ravel()),
        tuple(mass_b.tolist()),
        _shrunk(device, whole.shrinkage),
        whole.shrinkage.n_products,
        device.put(whole.far_kbmm),
        tuple(None if block is None else device.put(block) for block in whole.near_kbmm),
        tuple(whole.scale_k.tolist()),
        device.put(whole.mass_b[:, None]),
    )


def _values(stored: Map, k: int) -> int:
    """Numbers that a map holds for one voxel besides what goes in and comes out."""
    if isinstance(stored, Merged):
        return 0
    cut, rows = stored.shrinkage, stored.rows_lr if isinstance(stored, Factored) else stored.rows_ms
    return cut.directions + (cut.n_products + k) * len(rows) + rows.shape[1]


class _Scored(NamedTuple):
    """Held-out responses and predictions to score: (m, w), (k, m, w), weights (m,) or None, their sum, folds this stands for; and
    the training mean (w,), about which they are, where there are weights and an intercept."""

    target_mw: Array
    predicted_kmw: Array
    weight_m: Array | None
    mass: float
    folds: float
    training_w: Array | None = None


class DeviceScorer:
    """What does not change from tile to tile."""

    def __init__(self, plan: FoldPlan, here: PlanOnDevice, scoring: str, fast: bool) -> None:
        self.plan, self.here, self.device, self.scoring = plan, here, here.device, scoring
        self.fast = fast and plan.dtype == np.float32
        self.center = plan.problem.fit_intercept
        nodes, top = plan.nodes, float(plan.lam[-1]) if len(plan.lam) else 0.0
        put, k = self.device.put, len(nodes.alphas)
        row, column = np.tril_indices(k)
        self.scale_a1 = put(scale_of(plan.problem.alphas, top)[:, None])
        self.mix_ak = put(nodes.mix_ak)
        self.pairs_aq = put(nodes.mix_ak[:, row] * nodes.mix_ak[:, column] * np.where(row == column, 1.0, 2.0))
        first = np.arange(1, k + 1) * np.arange(2, k + 2) // 2  # where row i of the triangle starts: y · p_i
        self.cross, self.inner = put(first, np.int64), put(first[row] + column + 1, np.int64)
        self.rounding = plan.rounding
        self.gcv = GcvScorer(plan, self.device) if plan.problem.gcv else None

    def bytes_per_voxel(self) -> int:
        """Working memory that one voxel of a tile takes while it is scored."""
        plan, k, item = self.plan, len(self.plan.nodes.alphas), self.plan.dtype.itemsize
        r, a, q = len(plan.lam), len(plan.problem.alphas) if plan.problem.given is None else 0, (k + 1) * (k + 4) // 2
        parts = sum(f.form == "apart" for f in self.here.operators) if self.here.partition else 1
        longest = max([len(f.train if f.form == "train" else f.left) for f in plan.operators], default=0)
        held = max([(k + 2) * len(f.test) + _values(f.map, k) for f in plan.operators], default=0)
        for w in plan.whole:
            held = max(held, (2 * k + 3 + w.shrinkage.n_products) * w.rows.shape[1] + w.shrinkage.directions)
        return int(item * (r * (3 + parts) + 2 * longest + held) + 8 * (2 * q + 8 * a))

    def score(self, y_tw: Array, square_w: Array, each: EachFold | None = None) -> tuple[Array, Array]:
        """(coordinates (r, w), mean scores over folds (a, w) float64) of a tile on the device; ``each`` takes the scores of every
        fold."""
        if self.gcv is not None:
            c_rw = self.coordinates(y_tw)
            return c_rw, self.gcv.score(c_rw, square_w, self.scoring)
        width, order = y_tw.shape[1], iter(self.plan.order)
        scores = self.device.zeros(len(self.plan.problem.alphas), width, dtype=np.float64)
        c_rw, parts = self._coordinates(y_tw)
        place = 0
        for fold in self.here.operators:
            if fold.form == "apart":
                scored = self._apart(fold, y_tw, c_rw, None if parts is None else parts[place])
                place += 1
            else:
                scored = self._train(fold, y_tw)
            scores = scores + self._scores(scored, square_w, each, order)
        del parts
        for whole in self.here.whole:
            for chunk in self._whole(whole, y_tw, c_rw, each is None):
                scores = scores + self._scores(chunk, square_w, each, order)
        return c_rw, scores / self.plan.n_folds

    def _product(self, left: Array, right: Array) -> Array:
        """``left @ right`` of a prediction, in TF32 if scores may be of reduced precision."""
        with self.device.precision(self.plan.dtype, self.fast):
            return self.device.xp.matmul(left, right)

    def coordinates(self, y_tw: Array) -> Array:
        """U_τᵀ y."""
        return self.device.xp.matmul(self.here.analyze_tr.T, y_tw)

    def _coordinates(self, y_tw: Array) -> tuple[Array, list[Array] | None]:
        """U_τᵀ y; where folds partition the rows, it is the sum of their parts, which are returned too."""
        if not self.here.partition:
            return self.coordinates(y_tw), None
        parts = [
            self.device.xp.matmul(fold.analyze_mr.T, self.device.take(y_tw, fold.left.at))
            for fold in self.here.operators
            if fold.analyze_mr is not None
        ]
        c_rw = parts[0]
        for part in parts[1:]:
            c_rw = c_rw + part
        return c_rw, parts

    def _apart(self, fold: _Fold, y_tw: Array, c_rw: Array, part_rw: Array | None) -> _Scored:
        """From coordinates of the training responses about their mean, c − U_Lᵀ (y_L − o_L ȳ)."""
        assert fold.analyze_mr is not None
        left_mw = self.device.take(y_tw, fold.left.at)
        mean_w = self._mean(left_mw, fold.left, -fold.mass)  # all rows sum to zero, so what is left out tells it
        inner = c_rw - (self.device.xp.matmul(fold.analyze_mr.T, left_mw) if part_rw is None else part_rw)
        if mean_w is not None:
            inner = inner + fold.pull_r1 * mean_w
        return self._predicted(fold, inner, y_tw, mean_w)

    def _train(self, fold: _Fold, y_tw: Array) -> _Scored:
        """From the training responses themselves."""
        inner = self.device.take(y_tw, fold.left.at)
        mean_w = self._mean(inner, fold.left, fold.mass)
        if mean_w is not None:
            inner = inner - (mean_w if fold.left.root_m1 is None else fold.left.root_m1 * mean_w)
        return self._predicted(fold, inner, y_tw, mean_w)

    def _predicted(self, fold: _Fold, inner: Array, y_tw: Array, mean_w: Array | None) -> _Scored:
        predicted = self._mapped(fold.map, inner)
        return _Scored(self._targets(y_tw, fold.test, mean_w), predicted, fold.test.weight_m, fold.test.mass, 1.0, mean_w)

    def _mapped(self, stored: _Map, inner: Array) -> Array:
        """Predictions (k, m, w) of a fold at all nodes."""
        if stored.first is not None:
            inner = self._product(stored.first, inner)
        if stored.shrunk is None:
            k = self.mix_ak.shape[1]
            return self.device.xp.reshape(inner, (k, inner.shape[0] // k, inner.shape[1]))
        assert stored.rows is not None
        predicted = self._shrunk(stored.shrunk, stored.rows, inner)
        return predicted if stored.last is None else self._product(stored.last, predicted)

    def _shrunk(self, shrunk: _Shrunk, rows_mr: Array, c_rw: Array) -> Array:
        """rows @ diag(g_j) @ c for all nodes j, (k, m, w)."""
        xp, (m, _), width = self.device.xp, rows_mr.shape, c_rw.shape[1]
        made = [self._product(rows_mr[:, ends], curves * c_rw[ends, :]) for ends, curves in shrunk.pieces]
        if shrunk.mix_kq is None:
            return made[0]
        mixed = self._product(shrunk.mix_kq, xp.reshape(xp.concat(made), (-1, m * width)))
        return xp.reshape(mixed, (-1, m, width))

    def _mean(self, values_mw: Array, rows: _Rows, mass: float) -> Array | None:
        """Weighted sum of some responses (already times the roots of their weights) by a mass; None without an intercept."""
        if not self.center:
            return None
        xp = self.device.xp
        weighted = values_mw if rows.root_m1 is None else rows.root_m1 * values_mw
        return self.device.cast(xp.sum(weighted, axis=0, dtype=self.device.dtype(np.float64)) / mass, self.plan.dtype)

    def _targets(self, y_tw: Array, rows: _Rows, mean_w: Array | None) -> Array:
        """Held-out responses relative to the training mean, without the roots of weights."""
        target = self.device.take(y_tw, rows.at)
        if rows.inverse_root_m1 is not None:
            target = target * rows.inverse_root_m1
        return target if mean_w is None else target - mean_w

    def _whole(self, whole: _Whole, y_tw: Array, c_rw: Array, summed: bool) -> Iterator[_Scored]:
        """Many small folds at once: far @ (U (spread c)) + near @ y. ``summed``: only the sum of their scores is wanted."""
        xp, plan, width = self.device.xp, self.plan, y_tw.shape[1]
        k, (n_folds, m) = len(whole.near_kbmm), whole.shape
        step = max(1, int(_PREDICTIONS // (width * plan.dtype.itemsize * m * (2 * k + 3 + whole.n_products))))
        for start in range(0, n_folds, step):
            stop = min(start + step, n_folds)
            rows, b = _some(whole.rows, start * m, stop * m), stop - start
            analyze = self.device.take(self.here.analyze_tr, rows.at)
            near = xp.reshape(self.device.take(y_tw, rows.at), (b, m, width))
            near, mean_bw = self._about_training_means(near, rows, whole.mass_b1[start:stop, ...])
            predicted = self.device.empty(k, b, m, width, dtype=plan.dtype)
            before = xp.reshape(self._shrunk(whole.shrunk, analyze, c_rw), (k, b, m, width))
            times = xp.multiply if m == 1 else self._product
            for j, (block, scale) in enumerate(zip(whole.near_kbmm, whole.scale_k, strict=True)):
                far = times(whole.far_kbmm[j, start:stop, ...], before[j, ...])
                if block is not None:
                    predicted[j, ...] = far + times(block[start:stop, ...], near)
                elif rows.inverse_root_m1 is None:
                    predicted[j, ...] = far + scale * near
                else:
                    predicted[j, ...] = far + scale * xp.reshape(rows.inverse_root_m1, (b, m, 1)) * near
            if rows.inverse_root_m1 is not None:
                near = near * xp.reshape(rows.inverse_root_m1, (b, m, 1))
            yield from self._chunk(whole, start, near, predicted, mean_bw, summed)

    def _about_training_means(self, near: Array, rows: _Rows, mass_b1: Array) -> tuple[Array, Array | None]:
        """Held-out responses (b, m, w) relative to the mean of each fold's training responses; and these means (b, w)."""
        if not self.center:
            return near, None
        (b, m, _), float64 = near.shape, self.device.dtype(np.float64)
        root = None if rows.root_m1 is None else self.device.xp.reshape(rows.root_m1, (b, m, 1))
        total = self.device.xp.sum(near if root is None else root * near, axis=1, dtype=float64)
        mean_bw = self.device.cast(-total / mass_b1, self.plan.dtype)
        return near - (mean_bw[:, None, :] if root is None else root * mean_bw[:, None, :]), mean_bw

    def _chunk(
        self, whole: _Whole, start: int, near: Array, predicted: Array, mean_bw: Array | None, summed: bool
    ) -> Iterator[_Scored]:
        """What to score of the folds from ``start``, (b, m, w), predicted (k, b, m, w)."""
        xp, (k, b, m, width) = self.device.xp, predicted.shape
        here = slice(start * m, (start + b) * m)
        if self.scoring == "neg_mean_squared_error" and summed:
            # A sum of weighted means of squares is one weighted sum of squares.
            target, flat = xp.reshape(near, (b * m, width)), xp.reshape(predicted, (k, b * m, width))
            yield _Scored(target, flat, whole.share[here], float(b), float(b))
        elif whole.rows.weight_m is None:
            # Moments know no folds: a voxel of one fold is as good as another voxel.
            target = xp.reshape(xp.moveaxis(near, 0, 1), (m, b * width))
            yield _Scored(target, xp.reshape(xp.moveaxis(predicted, 1, 2), (k, m, b * width)), None, float(m), 1.0)
        else:
            weight_bm = xp.reshape(whole.rows.weight_m[here], (b, m))
            for i in range(b):
                training = None if mean_bw is None else mean_bw[i, :]
                yield _Scored(near[i, ...], predicted[:, i, ...], weight_bm[i, :], whole.masses[start + i], 1.0, training)

    def _scores(self, scored: _Scored, square_w: Array, each: EachFold | None, order: Iterator[int]) -> Array:
        """Scores (a, w) of every penalty, summed over the folds, from moments of the nodes (kernels/moments.pyx: their order).
        ``order`` goes on to the number of the next fold."""
        xp, plan, k, width = self.device.xp, self.plan, self.mix_ak.shape[1], square_w.shape[0]
        moments = device_moments(self.device, *scored[:3])
        folds = moments.shape[1] // width
        means, gram = moments[: k + 1, ...], moments[k + 1 :, ...]
        pp = xp.clip(xp.matmul(self.pairs_aq, self.device.take(gram, self.inner)), 0.0, None)
        yp = xp.matmul(self.mix_ak, self.device.take(gram, self.cross))
        parts = (means[0, :], xp.matmul(self.mix_ak, means[1:, ...]), gram[0, :], yp, pp)
        floor = square_w * (scored.mass * self.rounding**2)
        if folds > 1:
            floor = xp.reshape(xp.broadcast_to(floor, (folds, width)), (folds * width,))
        flat: Any = 0.0
        if plan.problem.weights is not None:
            training = 0.0 if scored.training_w is None else self.device.cast(scored.training_w, np.float64)
            flat = flat_below(means[0, :], training, scored.mass, plan.dtype)
        scores = score_moments(self.device, self.scoring, parts, scored.mass, self.scale_a1, floor, flat)
        if folds > 1:
            scores = xp.reshape(scores, (scores.shape[0], folds, width))
            if each is not None:
                for i in range(folds):
                    each.add(next(order), scores[:, i, :])
            return xp.sum(scores, axis=1)
        if each is not None:
            each.add(next(order), scores)
        return scores * scored.folds
