"""What predicts a fold's held-out rows at every node, made from the basis.

Write R = (I − H)_LL for the rows L that a fold leaves out (``leave_out.py``). Refitting without L gives on L exactly
ŷ = R⁻¹ U_L D c_f, with D = diag((λ + τ) / (λ + α)) and c_f the coordinates of the training responses. Three forms:

    apart   c_f = c − U_Lᵀ y_L, then a map from there (``maps.py``)                     large folds
    whole   one product U (D c) for all folds together, then m × m blocks at each fold   small folds, leave one out; p > n
    train   a map from the training responses themselves                                whatever is too ill-conditioned
                                                                                        for the other two

Folds are made on threads, so nothing here may hold the interpreter's lock, as SciPy's solvers do (``cholesky.py``).

Predictions are relative to the mean of the training responses and scaled by 1 + α / λ_top (see ``nodes.scale_of``).

Legend: t = time, r = directions, k = nodes, m = rows of a fold, l = rows left out, s = a fold's own directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.solve.plan.basis import Basis, hidden_by_rounding, resolution, rounding_of
from fastencode.solve.plan.cholesky import solve_positive
from fastencode.solve.plan.cost import WHOLE_ROWS, MapCost, map_costs, whole_cost
from fastencode.solve.plan.graded import graded_svd
from fastencode.solve.plan.leave_out import Left, reduced, residual, take_rows, training_gram
from fastencode.solve.plan.maps import Factored, Map, Merged, Rotated
from fastencode.solve.plan.nodes import scale_of
from fastencode.solve.plan.segments import Curves, Shrinkage, cut_spectrum, make_shrinkage
from fastencode.threads import limit_threads, together

__all__ = ["LIMITS", "Operator", "Operators", "Request", "WholeFolds", "make_operators"]

F64 = NDArray[np.float64]
Rows = NDArray[np.intp]
# Largest condition κ a form may have, by item size. Rounding grows by κ·eps(dtype) in `whole`, `apart` and a factored map, and by
# κ·eps(float64), then √κ·eps(dtype), in `train`. Beyond, the training rows are decomposed by themselves.
LIMITS = {4: {"whole": 1e2, "apart": 1e2, "train": 1e8}, 8: {"whole": 1e3, "apart": 1e4, "train": 1e6}}
# Up to this condition float32 problems solve their folds' systems in float32.
_NARROW = 30.0
# From this size on, folds are decomposed one after another by all threads: no slower, and memory for one at a time.
_LARGE = 1000


@dataclass(frozen=True, eq=False)
class Operator:
    """One fold, ready for responses.

    Attributes
    ----------
    train, test, left : index arrays
        ``left`` are all rows outside ``train``.
    form : {"apart", "train"}
    mass : float
        Sum of weights of the training rows.
    map : Map
        From coordinates (the form "train": from the training responses) to predictions.
    analyze_lr : (l, r)
        Rows of U_τ, a view where they are consecutive; none in the form "train".
    """

    train: Rows
    test: Rows
    left: Rows
    form: str
    mass: float
    map: Map
    analyze_lr: NDArray[Any]


@dataclass(frozen=True, eq=False)
class WholeFolds:
    """All folds of one size m, predicted together: far @ U @ diag(g) @ c + near @ y.

    Attributes
    ----------
    rows : (b, m)
    shrinkage : Shrinkage
        g at every node.
    far_kbmm : (k, b, m, m)
    near_kbmm : tuple of (b, m, m) or None
        None stands for the identity, over the roots of the weights and times ``scale_k``.
    scale_k : (k,)
    mass_b : (b,)
        Sum of weights of the training rows.
    """

    rows: Rows
    shrinkage: Shrinkage
    far_kbmm: NDArray[Any]
    near_kbmm: tuple[NDArray[Any] | None, ...]
    scale_k: NDArray[Any]
    mass_b: F64

    @property
    def operations(self) -> float:
        """For one voxel."""
        near = sum(a.size for a in self.near_kbmm if a is not None)
        return self.rows.size * self.shrinkage.operations + 2.0 * (self.far_kbmm.size + near)

    @property
    def nbytes(self) -> int:
        """What is kept."""
        return self.far_kbmm.nbytes + sum(a.nbytes for a in self.near_kbmm if a is not None) + self.shrinkage.nbytes


@dataclass(frozen=True, eq=False)
class Operators:
    """All folds: one by one, and together by size; which of the problem's folds each of these is, in that order; and the
    operations it took to make them."""

    folds: tuple[Operator, ...]
    whole: tuple[WholeFolds, ...]
    order: tuple[int, ...]
    operations: float


@dataclass(frozen=True)
class Request:
    """What operators are made for.

    Attributes
    ----------
    alphas : (k,) float64
        The nodes.
    tolerance : float
        Allowed error of a shrinkage; ``relative``: against that of the largest eigenvalue.
    relative : bool
    voxels : int
        Expected, to weigh planning against.
    memory : int or None
        Bytes the plan may take.
    kept : int
        Bytes it takes already.
    threads : int
    stored : str or None
        The map to take where it can be, or "whole" for large folds of a complete basis; None for the cheapest.
    """

    alphas: F64
    tolerance: float
    relative: bool
    voxels: int
    memory: int | None
    kept: int
    threads: int
    stored: str | None = None


def make_operators(basis: Basis, lefts: list[Left], request: Request, analyze_tr: NDArray[Any]) -> Operators:
    """Everything folds need, each in the form and map its size, its condition, the voxels and the memory ask for.

    Raises
    ------
    InputError
        If the leanest maps do not fit in the room.
    """
    dtype, k, r = analyze_tr.dtype, len(request.alphas), len(basis.lam)
    curves = _curves(basis, basis.lam, request, basis.complete)
    cuts = cut_spectrum(curves)
    shrinkage = make_shrinkage(curves, cuts, dtype)
    forms = [_form(basis, left, request, shrinkage, dtype.itemsize) for left in lefts]
    by_size: dict[int, list[Left]] = {}
    numbers: dict[int, list[int]] = {}
    for i, (left, form) in enumerate(zip(lefts, forms, strict=True)):
        if form == "whole":
            by_size.setdefault(len(left.rows), []).append(left)
        numbers.setdefault(len(left.rows) if form == "whole" else 0, []).append(i)
    whole = tuple(_make_whole(basis, members, request, shrinkage, dtype) for _, members in sorted(by_size.items()))
    singles = [(left, form) for left, form in zip(lefts, forms, strict=True) if form != "whole"]
    costs = _choose_maps(singles, request, shrinkage, analyze_tr, sum(w.nbytes for w in whole))
    made = [
        _fold_jobs(basis, left, form, cost, request, (shrinkage, cuts), analyze_tr)
        for (left, form), cost in zip(singles, costs, strict=True)
    ]
    jobs = [job for some, _ in made for job in some]
    large = r >= _LARGE and any(cost.name == "rotated" for cost in costs)
    with limit_threads(request.threads):
        results = iter([job() for job in jobs] if large else together(jobs, request.threads))
    folds = [finish([next(results) for _ in some]) for some, finish in made]
    shape = (r, k, shrinkage.operations, dtype.itemsize, request.voxels)
    operations = sum(cost.plan for cost in costs) + sum(len(g) * whole_cost(m, *shape).plan for m, g in by_size.items())
    order = tuple(i for _, some in sorted(numbers.items()) for i in some)  # those by themselves first, then by size
    return Operators(tuple(folds), whole, order, operations)


def _form(basis: Basis, left: Left, request: Request, shrinkage: Shrinkage, itemsize: int) -> str:
    """The form a fold's size and condition ask for; for the larger folds of a complete basis, the one with less work."""
    m, r, k, limits = len(left.rows), len(basis.lam), len(request.alphas), LIMITS[itemsize]
    if _all_once(left) and m <= WHOLE_ROWS[basis.complete] and left.condition <= limits["whole"]:
        whole = whole_cost(m, r, k, shrinkage.operations, itemsize, request.voxels)
        train = map_costs((m, m, len(left.train)), r, k, shrinkage.operations, itemsize, request.voxels, True)
        faster = whole.seconds < min(way.seconds for way in train) if not request.stored else request.stored == "whole"
        if m <= WHOLE_ROWS[False] or faster:
            return "whole"
    return "apart" if not basis.complete and left.condition <= limits["apart"] else "train"


def _all_once(left: Left) -> bool:
    """Whether a fold tests on every row it leaves out, once each."""
    return len(left.test) == len(left.rows) and bool((np.bincount(left.held, minlength=len(left.rows)) == 1).all())


def _curves(basis: Basis, lam: F64, request: Request, residuals: bool) -> Curves:
    """Scaled shrinkage at the nodes in coordinates of U_τ; with ``residuals``, that of residuals up to λ_top."""
    alphas, tau, tolerance = request.alphas[:, None], basis.tau, request.tolerance
    scale = scale_of(request.alphas, basis.top)
    values = (lam + tau) * (scale[:, None] / (lam + alphas))
    allowed = np.full(len(alphas), tolerance) if request.relative else tolerance * scale
    if residuals:
        small = request.alphas < basis.top
        values[small] *= -(alphas / lam)[small] / scale[small, None]
        allowed[small] = tolerance * request.alphas[small] / (basis.lam[0] + request.alphas[small])
    return Curves(lam, values, lam / (lam + tau), allowed)


def _choose_maps(
    singles: list[tuple[Left, str]], request: Request, shrinkage: Shrinkage, analyze_tr: NDArray[Any], kept: int
) -> list[MapCost]:
    """The fastest map of each fold, or the leanest if those do not fit next to what is kept already."""
    (_, r), k, dtype = analyze_tr.shape, len(request.alphas), analyze_tr.dtype
    limit, ways, kept = LIMITS[dtype.itemsize]["whole"], [], kept + request.kept
    for left, form in singles:
        if form == "apart" and take_rows(analyze_tr[:, :0], left.rows).base is None:
            kept += len(left.rows) * r * dtype.itemsize
        sizes = (len(left.rows), len(left.test), len(left.train))
        found = map_costs(sizes, r, k, shrinkage.operations, dtype.itemsize, request.voxels, form == "train")
        can = [c for c in found if c.name != "factored" or left.condition <= limit]
        ways.append([c for c in can if c.name == request.stored] or can)
    fastest = [min(way, key=lambda c: c.seconds) for way in ways]
    if request.memory is None or kept + sum(c.kept for c in fastest) <= request.memory:
        return fastest
    leanest = [min(way, key=lambda c: c.kept) for way in ways]
    if (least := kept + sum(c.kept for c in leanest)) > request.memory:
        raise InputError(
            f"memory={request.memory} bytes is too small to plan with: the smallest that works is {least} bytes, plus tiles of "
            "responses"
        )
    return leanest


def _fold_jobs(
    basis: Basis, left: Left, form: str, cost: MapCost, request: Request, cut: tuple[Shrinkage, F64], analyze_tr: NDArray[Any]
) -> tuple[list[Callable[[], Any]], Callable[[list[Any]], Operator]]:
    """A fold by itself: what is to be done for its map, in pieces for several threads, and what puts the results together."""
    dtype, k, (shrinkage, cuts) = analyze_tr.dtype, len(request.alphas), cut
    analyze = take_rows(analyze_tr, left.rows) if form == "apart" else analyze_tr[:0]

    def operator(made: Map) -> Operator:
        return Operator(left.train, left.test, left.rows, form, left.mass, made, analyze)

    if cost.name == "rotated":
        rotate = _rotate_train if form == "train" else _rotate
        return [partial(rotate, basis, left, request, cuts, dtype)], lambda found: operator(found[0])
    across = {"train": len(left.train), "merged": len(basis.lam), "factored": len(left.rows)}
    out = np.empty((k, len(left.test), across["train" if form == "train" else cost.name]), dtype=dtype)
    if form == "train":
        solve_all = partial(_solve_train, basis, left, request.alphas, out, LIMITS[dtype.itemsize]["train"])
        return [solve_all], lambda _: operator(Merged(out))
    solve = _solve_merged if cost.name == "merged" else _solve_factored
    nodes = zip(request.alphas, out, strict=True)
    each: list[Callable[[], Any]] = [partial(solve, basis, left, alpha, one) for alpha, one in nodes]
    return each, lambda _: operator(Merged(out) if cost.name == "merged" else Factored(shrinkage, analyze, out))


def _solve_factored(basis: Basis, left: Left, alpha: float, out_ml: NDArray[Any]) -> None:
    """R⁻¹ of the held-out rows at one node, for unweighted rows; the shrinkage holds the scale."""
    inverse = np.linalg.inv(residual(basis, left.rows, alpha))
    np.divide(inverse[left.held], basis.root_t[left.test, None], out=out_ml, casting="same_kind")


def _rotate(basis: Basis, left: Left, request: Request, cuts: F64, dtype: np.dtype[Any]) -> Rotated:
    """Into the eigenvectors of the training Gram, where every penalty is diagonal."""
    shrunk, root = np.sqrt(basis.lam + basis.tau), basis.root_t
    lam, vectors = np.linalg.eigh(training_gram(basis, left))
    lam = np.maximum(lam, 0.0)
    if hidden_by_rounding(lam, request.alphas, dtype):
        graded = graded_svd(_centered(basis, left)[0], *resolution(request.alphas, dtype))
        lam, vectors = graded.size**2, graded.right
    own = np.sqrt(lam + basis.tau)
    held = take_rows(basis.rows_tr, left.test)
    if basis.center:  # about the mean of the training rows, which all rows' sum, zero, tells from those left out
        held = held + np.outer(root[left.test], (root[left.rows] @ take_rows(basis.rows_tr, left.rows)) / left.mass)
    rows = (held * shrunk) @ vectors / own
    rotate = (vectors * (1.0 / own)).T * shrunk
    curves = _curves(basis, lam, request, False)
    rows /= root[left.test, None]
    return Rotated(rotate.astype(dtype), rows.astype(dtype), make_shrinkage(curves, cuts, dtype))


def _solve_merged(basis: Basis, left: Left, alpha: float, out_mr: NDArray[Any]) -> None:
    """R⁻¹ U_L D of the held-out rows at one node, scaled and for unweighted rows.

    Solved in the dtype of ``out_mr`` where that loses no more than rounding the result to it does.
    """
    d = (basis.lam + basis.tau) / (basis.lam + alpha)
    root, rows = basis.root_t, take_rows(basis.rows_tr, left.rows)
    work = out_mr.dtype if left.condition <= _NARROW else np.dtype(np.float64)
    if left.gram is None:
        found = solve_positive(residual(basis, left.rows, alpha), rows * d, work)[left.held]
    else:
        half, held = np.sqrt(d), take_rows(basis.rows_tr, left.test)
        if basis.center:
            held = held + np.outer(root[left.test], (root[left.rows] @ rows) / left.mass)
        found = solve_positive(reduced(basis, left.gram, alpha), (held * half).T, work).T * half
    _put(basis, left, alpha, found, out_mr)


def _solve_train(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any], limit: float) -> None:
    """Maps from the training responses to the held-out predictions at every node."""
    if basis.complete and left.condition <= limit:
        rows, train = take_rows(basis.rows_tr, left.rows), basis.rows_tr[left.train]
        for k, alpha in enumerate(alphas):
            d = (basis.lam + basis.tau) / (basis.lam + alpha)
            # −R⁻¹ R_L,train, or R⁻¹ H_L,train: the one of the two that does not cancel.
            across = (rows * (-d * alpha / basis.lam if alpha < basis.top else d)) @ train.T
            _put(basis, left, alpha, solve_positive(residual(basis, left.rows, alpha), across)[left.held], out_kmt[k])
    else:
        _solve_by_itself(basis, left, alphas, out_kmt)


def _solve_by_itself(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any]) -> None:
    """The same from the training rows' own decomposition."""
    own = _decompose_train(basis, left, alphas, out_kmt.dtype)
    for k, alpha in enumerate(alphas):
        _put(basis, left, alpha, (own.rows_ms * ((own.lam + basis.tau) / (own.lam + alpha))) @ own.rotate_st, out_kmt[k])


def _rotate_train(basis: Basis, left: Left, request: Request, cuts: F64, dtype: np.dtype[Any]) -> Rotated:
    """From the training responses into the training rows' own directions, where every penalty is diagonal."""
    own = _decompose_train(basis, left, request.alphas, dtype)
    rows = own.rows_ms / basis.root_t[left.test, None]
    shrinkage = make_shrinkage(_curves(basis, own.lam, request, False), cuts, dtype)
    return Rotated(own.rotate_st.astype(dtype), rows.astype(dtype), shrinkage)


@dataclass(frozen=True, eq=False)
class _Train:
    """The training rows by themselves: predictions at α = rows_ms @ diag((λ + τ) / (λ + α)) @ rotate_st @ training responses."""

    lam: F64
    rows_ms: F64
    rotate_st: F64


def _decompose_train(basis: Basis, left: Left, alphas: F64, dtype: np.dtype[Any]) -> _Train:
    """From the training rows' own smaller Gram, or from the rows themselves where its rounding would be seen."""
    train, held = _centered(basis, left)
    dual = len(train) <= train.shape[1]
    lam, vectors = np.linalg.eigh(train @ train.T if dual else train.T @ train)
    lam, vectors = (lam[1:], vectors[:, 1:]) if dual and basis.center else (lam, vectors)
    if hidden_by_rounding(lam, alphas, dtype):
        found = graded_svd(train, *resolution(alphas, dtype))
        shrunk = np.sqrt(found.size**2 + basis.tau)
        return _Train(found.size**2, (held @ found.right) / shrunk, found.left.T * (found.size / shrunk)[:, None])
    keep = lam > rounding_of(lam)
    lam, vectors = lam[keep], vectors[:, keep]
    size, shrunk = np.sqrt(lam), np.sqrt(lam + basis.tau)
    if dual:
        return _Train(lam, (held @ train.T) @ vectors / (size * shrunk), vectors.T * (size / shrunk)[:, None])
    return _Train(lam, (held @ vectors) / shrunk, (vectors / shrunk).T @ train.T)


def _centered(basis: Basis, left: Left) -> tuple[F64, F64]:
    """Training and test rows of X̌ in the directions kept, about the mean of the training rows."""
    points = basis.rows_tr * np.sqrt(basis.lam + basis.tau)
    train, held = points[left.train], points[left.test]
    if basis.center:
        root = basis.root_t
        mean = root[left.train] @ train / left.mass
        train, held = train - np.outer(root[left.train], mean), held - np.outer(root[left.test], mean)
    return train, held


def _put(basis: Basis, left: Left, alpha: float, found: NDArray[Any], out: NDArray[Any]) -> None:
    """Scale, and undo the roots of the weights of the held-out rows."""
    factor = scale_of(alpha, basis.top) / basis.root_t[left.test, None]
    np.multiply(found, factor, out=out, casting="same_kind")


def _make_whole(basis: Basis, lefts: list[Left], request: Request, shrinkage: Shrinkage, dtype: np.dtype[Any]) -> WholeFolds:
    """Operators of folds of one size that hold out all they leave out."""
    rows_bm, alphas = np.array([left.rows for left in lefts]), request.alphas
    (b, m), k = rows_bm.shape, len(alphas)
    scale, far = scale_of(alphas, basis.top), np.empty((k, b, m, m), dtype=dtype)
    jobs: list[Callable[[], Any]] = [
        partial(_whole_node, basis, rows_bm, alpha, scale[j], far[j]) for j, alpha in enumerate(alphas)
    ]
    near = together(jobs, request.threads)
    plain = np.where([block is None for block in near], scale, 0.0).astype(dtype)  # elsewhere it may not fit the dtype
    return WholeFolds(rows_bm, shrinkage, far, tuple(near), plain, np.array([left.mass for left in lefts]))


def _whole_node(basis: Basis, rows_bm: Rows, alpha: float, scale: float, far_bmm: NDArray[Any]) -> NDArray[Any] | None:
    """Fill the far blocks of one node; returns the near ones, None for the identity."""
    d, root_bm = (basis.lam + basis.tau) / (basis.lam + alpha), basis.root_t[rows_bm]
    if basis.complete and alpha < basis.top:
        # y_L − R⁻¹ (R y)_L where R is the small one, R⁻¹ (H y − H_LL y_L) where H is: neither cancels.
        inverse = np.linalg.inv(_blocks(basis, rows_bm, d * alpha / basis.lam))
        np.multiply(inverse, scale / root_bm[:, :, None], out=far_bmm, casting="same_kind")
        return None
    hat = _blocks(basis, rows_bm, d)  # without the intercept
    if basis.complete:
        r_bmm = _blocks(basis, rows_bm, d * alpha / basis.lam)
    else:
        r_bmm = np.eye(rows_bm.shape[1]) - hat
        if basis.center:
            r_bmm -= root_bm[:, :, None] * root_bm[:, None, :] / (basis.root_t**2).sum()
    inverse = np.linalg.inv(r_bmm)
    np.divide(inverse, root_bm[:, :, None], out=far_bmm, casting="same_kind")
    return (-scale * (inverse @ hat) / root_bm[:, :, None]).astype(far_bmm.dtype)


def _blocks(basis: Basis, rows_bm: Rows, d: F64) -> F64:
    """(b, m, m): U_L diag(d) U_Lᵀ of every fold."""
    b, m = rows_bm.shape
    if m == 1:
        rows = take_rows(basis.rows_tr, rows_bm[:, 0])
        return np.einsum("br,br,r->b", rows, rows, d, optimize=False)[:, None, None]
    out = np.empty((b, m, m))
    for rows, block in zip(rows_bm, out, strict=True):
        taken = take_rows(basis.rows_tr, rows)
        np.matmul(taken * d, taken.T, out=block)
    return out
