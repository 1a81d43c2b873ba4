"""The operators that predict each fold's held-out rows at every node, made from the basis (docs/solver.md, 3).

Write R = (I − H)_LL for the rows L that a fold leaves out (``leave_out.py``). A refit without L predicts on L exactly
ŷ = R⁻¹ U_L D c_f, with D = diag((λ + τ) / (λ + α)) and c_f the coordinates of the training responses. Three forms:

    apart   c_f = c − U_Lᵀ y_L, then a map of c_f (``maps.py``)                         large folds
    whole   one product U (D c) for all folds together, then m × m blocks of each fold   small folds, leave one out; p > n
    train   a map of the training responses themselves                                  folds too ill-conditioned for the others

The form, the map of a fold (``maps.py``) and which Gram is decomposed (``cost.py``) are independent choices; section 3 has their
table. Threads make the folds, so the common paths do not hold the interpreter's lock, as SciPy's solvers do (``cholesky.py``).
With a device (``Basis.device``) it makes them one after another, and the operators are brought to the host.

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

from fastencode.arrays import F64
from fastencode.devices import HOST, Array, take_rows
from fastencode.errors import InputError
from fastencode.solve.plan.basis import ACCURACY, Basis, hidden_by_rounding, resolution
from fastencode.solve.plan.cholesky import invert_blocks, solve_positive
from fastencode.solve.plan.cost import WHOLE_ROWS, FoldSize, Load, MapCost, map_costs, whole_cost
from fastencode.solve.plan.directions import eigh
from fastencode.solve.plan.graded import graded_svd
from fastencode.solve.plan.leave_out import Left, reduced, residual, training_gram
from fastencode.solve.plan.maps import Factored, Map, Merged, Rotated
from fastencode.solve.plan.nodes import scale_of
from fastencode.solve.plan.segments import Curves, Shrinkage, cut_spectrum, make_shrinkage
from fastencode.solve.plan.training import decompose_train, in_directions
from fastencode.threads import limit_threads, together

__all__ = ["LIMITS", "Operator", "Operators", "Request", "WholeFolds", "make_operators"]

Rows = NDArray[np.intp]
# Largest condition κ a form may have, by item size. Rounding grows by κ·eps(dtype) in `whole`, `apart` and a factored map. In
# `train` it grows by κ·eps(float64) in planning and √κ·eps(dtype) in prediction. Beyond, the training rows are decomposed alone.
LIMITS = {4: {"whole": 1e2, "apart": 1e2, "train": 1e8}, 8: {"whole": 1e3, "apart": 1e4, "train": 1e6}}
# A fold whose training rows make rounding of the Gram count more than this many times what is allowed is decomposed alone.
_LOST = 100.0
# Up to this condition float32 problems solve their folds' systems in float32.
_NARROW = 30.0
# From this many directions on, folds are decomposed one after another, each by all threads: as fast, with one fold's memory.
_LARGE = 1000


@dataclass(frozen=True, eq=False)
class Operator:
    """What predicts one fold.

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
        U_L, the rows ``left`` of U_τ: a view where they are consecutive. The form "train" has none.
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
    """All folds of one size m, predicted together: far_kbmm @ U_L @ diag(g) @ c + near_kbmm @ y_L at every node.

    Attributes
    ----------
    rows : (b, m)
        Rows L of every fold.
    shrinkage : Shrinkage
        g at every node.
    far_kbmm : (k, b, m, m)
    near_kbmm : tuple of (b, m, m) or None
        One entry a node. None stands for the diagonal matrix of ``scale_k`` divided by the roots of the sample weights.
    scale_k : (k,)
        1 + α / λ_top at the nodes where ``near_kbmm`` is None, else 0.
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
        """Operations for one voxel."""
        near = sum(a.size for a in self.near_kbmm if a is not None)
        return self.rows.size * self.shrinkage.operations + 2.0 * (self.far_kbmm.size + near)

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks and of the shrinkage."""
        return self.far_kbmm.nbytes + sum(a.nbytes for a in self.near_kbmm if a is not None) + self.shrinkage.nbytes


@dataclass(frozen=True, eq=False)
class Operators:
    """The operators of all folds: ``single`` one fold each, ``whole`` one size each. ``order`` says which of the problem's folds
    each of these is, in that order; ``operations`` what it took to make them."""

    single: tuple[Operator, ...]
    whole: tuple[WholeFolds, ...]
    order: tuple[int, ...]
    operations: float


@dataclass(frozen=True)
class Request:
    """Penalties, precision and resources that operators are made for.

    Attributes
    ----------
    alphas : (k,) float64
        The nodes.
    tolerance : float
        Allowed error of a shrinkage s(λ) = λ / (λ + α).
    relative : bool
        Whether the tolerance is a part of s(λ_top), not of 1.
    voxels : int
        Expected voxels: more of them justify more planning.
    memory : int or None
        Bytes the plan may take.
    kept : int
        Bytes the plan takes before any operator is made.
    threads : int
    stored : str or None
        Name of the map of every fold that allows it, or "whole" for large folds of a complete basis; None for the cheapest.
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
    """The operators of all folds. Size and condition of a fold choose its form; costs and memory choose its map.

    Raises
    ------
    InputError
        If ``request.memory`` does not hold even the leanest maps.
    """
    dtype, k, r = analyze_tr.dtype, len(request.alphas), len(basis.lam)
    curves = _curves(basis, basis.lam, request, basis.complete)
    cuts = cut_spectrum(curves)
    shrinkage = make_shrinkage(curves, cuts, dtype)
    load = Load(r, k, shrinkage.operations, dtype.itemsize, request.voxels)
    forms = [_form(basis, left, request.stored, load) for left in lefts]
    by_size: dict[int, list[Left]] = {}
    numbers: dict[int, list[int]] = {}
    for i, (left, form) in enumerate(zip(lefts, forms, strict=True)):
        if form == "whole":
            by_size.setdefault(len(left.rows), []).append(left)
        numbers.setdefault(len(left.rows) if form == "whole" else 0, []).append(i)
    whole = tuple(_make_whole(basis, members, request, shrinkage, dtype) for _, members in sorted(by_size.items()))
    singles = [(left, form) for left, form in zip(lefts, forms, strict=True) if form != "whole"]
    costs = _choose_maps(singles, request, load, analyze_tr, sum(w.nbytes for w in whole))
    made = [
        _fold_jobs(basis, left, form, cost, request, (shrinkage, cuts), analyze_tr)
        for (left, form), cost in zip(singles, costs, strict=True)
    ]
    jobs = [job for some, _ in made for job in some]
    large = r >= _LARGE and any(cost.name == "rotated" for cost in costs)
    with limit_threads(request.threads):
        results = iter([job() for job in jobs] if large or basis.device is not HOST else together(jobs, request.threads))
    folds = [finish([next(results) for _ in some]) for some, finish in made]
    operations = sum(cost.plan for cost in costs) + sum(len(g) * whole_cost(m, load).plan for m, g in by_size.items())
    order = tuple(i for _, some in sorted(numbers.items()) for i in some)  # those by themselves first, then by size
    return Operators(tuple(folds), whole, order, operations)


def _form(basis: Basis, left: Left, stored: str | None, load: Load) -> str:
    """The form that a fold's size and condition allow; for larger folds of a complete basis the faster of "whole" and "train"."""
    m, limits = len(left.rows), LIMITS[load.itemsize]
    if left.condition * basis.lost > _LOST * ACCURACY[load.itemsize]:
        return "train"
    if _all_once(left) and m <= WHOLE_ROWS[basis.complete] and left.condition <= limits["whole"]:
        if m <= WHOLE_ROWS[False]:
            return "whole"
        train = map_costs(FoldSize(m, m, len(left.train)), load, True)
        if stored == "whole" or (not stored and whole_cost(m, load).seconds < min(way.seconds for way in train)):
            return "whole"
    return "apart" if not basis.complete and left.condition <= limits["apart"] else "train"


def _all_once(left: Left) -> bool:
    """Whether a fold tests on every row it leaves out, once each."""
    return len(left.test) == len(left.rows) and bool((np.bincount(left.held, minlength=len(left.rows)) == 1).all())


def _curves(basis: Basis, lam: F64, request: Request, residuals: bool) -> Curves:
    """g(λ) = (1 + α / λ_top) (λ + τ) / (λ + α) at the nodes α; with ``residuals``, −(λ + τ) / (λ + α) · α / λ where α < λ_top."""
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
    singles: list[tuple[Left, str]], request: Request, load: Load, analyze_tr: NDArray[Any], kept: int
) -> list[MapCost]:
    """The fastest map of each fold, or the leanest of each if the fastest and the bytes already ``kept`` exceed the memory."""
    limit, ways, kept = LIMITS[load.itemsize]["whole"], [], kept + request.kept
    for left, form in singles:
        if form == "apart" and take_rows(analyze_tr[:, :0], left.rows).base is None:
            kept += len(left.rows) * load.rank * load.itemsize
        found = map_costs(FoldSize(len(left.rows), len(left.test), len(left.train)), load, form == "train")
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
    """(jobs that compute the map of one fold, for several threads; function of their results that returns the operator)."""
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
    """Fill ``out_ml`` with diag(1 / o) R⁻¹, test rows only, at one node. The shrinkage holds the factor 1 + α / λ_top."""
    inverse = basis.device.xp.linalg.inv(residual(basis, left.rows, alpha))
    _store(basis, take_rows(inverse, left.held, basis.device), 1.0 / basis.root_t[left.test, None], out_ml)


def _rotate(basis: Basis, left: Left, request: Request, cuts: F64, dtype: np.dtype[Any]) -> Rotated:
    """The map through the eigenvectors of the training Gram, in which every penalty is diagonal."""
    device, shrunk = basis.device, np.sqrt(basis.lam + basis.tau)
    lam, vectors = eigh(training_gram(basis, left), device)
    lam = np.maximum(lam, 0.0)
    if hidden_by_rounding(lam, request.alphas, dtype):
        graded = graded_svd(HOST.get(in_directions(basis.on_host(), left)[0]), *resolution(request.alphas, dtype))
        lam, vectors = graded.size**2, device.put(graded.V)
    own, curves = np.sqrt(lam + basis.tau), _curves(basis, lam, request, False)
    shrunk_r, own_s = device.put(shrunk), device.put(own)
    # With W the eigenvectors and λ_f the eigenvalues of the training Gram, and S = diag(√(λ + τ)), S_f = diag(√(λ_f + τ)):
    # rows = U_test @ S @ W @ S_f⁻¹        rotate = S_f⁻¹ @ W.T @ S
    rows = (_held(basis, left) * shrunk_r) @ vectors / own_s
    rotate = (vectors * (1.0 / own_s)).T * shrunk_r
    rows /= device.put(basis.root_t[left.test, None])
    return Rotated(_fetch(basis, rotate, dtype), _fetch(basis, rows, dtype), make_shrinkage(curves, cuts, dtype))


def _held(basis: Basis, left: Left) -> Array:
    """(m, r): U_test + o_test (o_Lᵀ U_L) / s_train, the test rows about the mean of the training rows: all rows sum to zero, so
    that mean is −(sum of the rows L) / s_train."""
    held, root = basis.rows(left.test), basis.root_t
    if not basis.center:
        return held
    pull = (basis.device.put(root[left.rows]) @ basis.rows(left.rows)) / left.mass
    return held + basis.device.put(root[left.test, None]) * pull[None, :]


def _solve_merged(basis: Basis, left: Left, alpha: float, out_mr: NDArray[Any]) -> None:
    """Fill ``out_mr`` with (1 + α / λ_top) diag(1 / o) R⁻¹ U_L D, test rows only, at one node.

    Where κ is at most 30, the system is solved in the dtype of ``out_mr``: its error is of the size of the result's rounding.
    """
    device, d = basis.device, (basis.lam + basis.tau) / (basis.lam + alpha)
    work = out_mr.dtype if left.condition <= _NARROW else np.dtype(np.float64)
    if left.gram is None:
        # found = inv(R) @ U_L @ D
        found = solve_positive(residual(basis, left.rows, alpha), basis.rows(left.rows) * device.put(d), work, device)
        found = take_rows(found, left.held, device)
    else:
        half = device.put(np.sqrt(d))
        # found = (U_test + o_test o_L.T @ U_L / s_train) @ √D @ inv(I − √D @ G @ √D) @ √D
        found = solve_positive(reduced(basis, left.gram, alpha), (_held(basis, left) * half).T, work, device).T
        found = found * half
    _put(basis, left, alpha, found, out_mr)


def _solve_train(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any], limit: float) -> None:
    """Fill ``out_kmt`` with the maps from the training responses to the held-out predictions at every node."""
    if basis.complete and left.condition <= limit:
        rows, train, device = basis.rows(left.rows), basis.rows(left.train), basis.device
        for k, alpha in enumerate(alphas):
            d = (basis.lam + basis.tau) / (basis.lam + alpha)
            # R⁻¹ H_LT = −R⁻¹ (I − H)_LT: I − H is the smaller for α < λ_top, H above, and the smaller keeps more digits.
            # across = U_L @ D @ diag(−α / λ or 1) @ U_T.T
            across = (rows * device.put(-d * alpha / basis.lam if alpha < basis.top else d)) @ train.T
            found = solve_positive(residual(basis, left.rows, alpha), across, device=device)
            _put(basis, left, alpha, take_rows(found, left.held, device), out_kmt[k])
    else:
        _solve_by_itself(basis, left, alphas, out_kmt)


def _solve_by_itself(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any]) -> None:
    """Fill ``out_kmt`` as :func:`_solve_train` does, from the training rows' own decomposition."""
    own = decompose_train(basis, left, alphas, out_kmt.dtype)
    for k, alpha in enumerate(alphas):
        # out[k] = (1 + α / λ_top) diag(1 / o) @ rows_ms @ diag((λ + τ) / (λ + α)) @ rotate_st
        d = basis.device.put((own.lam + basis.tau) / (own.lam + alpha))
        _put(basis, left, alpha, (own.rows_ms * d) @ own.rotate_st, out_kmt[k])


def _rotate_train(basis: Basis, left: Left, request: Request, cuts: F64, dtype: np.dtype[Any]) -> Rotated:
    """The map from the training responses through the training rows' own directions, in which every penalty is diagonal."""
    own = decompose_train(basis, left, request.alphas, dtype)
    rows = own.rows_ms / basis.device.put(basis.root_t[left.test, None])
    shrinkage = make_shrinkage(_curves(basis, own.lam, request, False), cuts, dtype)
    return Rotated(_fetch(basis, own.rotate_st, dtype), _fetch(basis, rows, dtype), shrinkage)


def _put(basis: Basis, left: Left, alpha: float, found: Array, out: NDArray[Any]) -> None:
    """out = (1 + α / λ_top) diag(1 / o) found, with o the roots of the test rows' sample weights."""
    _store(basis, found, scale_of(alpha, basis.top) / basis.root_t[left.test, None], out)


def _store(basis: Basis, found: Array, factor: F64, out: NDArray[Any]) -> None:
    """out = factor * found, rounded once, in the host's memory."""
    if basis.device is HOST:
        np.multiply(HOST.get(found), factor, out=out, casting="same_kind")
    else:
        out[...] = _fetch(basis, found * basis.device.put(factor), out.dtype)


def _fetch(basis: Basis, found: Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of the basis' device in the host's memory, rounded to a dtype."""
    return basis.device.get(basis.device.cast(found, dtype))


def _make_whole(basis: Basis, lefts: list[Left], request: Request, shrinkage: Shrinkage, dtype: np.dtype[Any]) -> WholeFolds:
    """The operator of folds of one size, each of which tests on every row it leaves out."""
    rows_bm, alphas = np.array([left.rows for left in lefts]), request.alphas
    (b, m), k = rows_bm.shape, len(alphas)
    scale, far = scale_of(alphas, basis.top), np.empty((k, b, m, m), dtype=dtype)
    jobs: list[Callable[[], NDArray[Any] | None]] = [
        partial(_whole_node, basis, rows_bm, alpha, scale[j], far[j]) for j, alpha in enumerate(alphas)
    ]
    near = together(jobs, request.threads) if basis.device is HOST else [job() for job in jobs]
    plain = np.where([block is None for block in near], scale, 0.0).astype(dtype)  # the scale of other nodes may overflow
    return WholeFolds(rows_bm, shrinkage, far, tuple(near), plain, np.array([left.mass for left in lefts]))


def _whole_node(basis: Basis, rows_bm: Rows, alpha: float, scale: float, far_bmm: NDArray[Any]) -> NDArray[Any] | None:
    """Fill the far blocks of one node; returns the near blocks, None for a diagonal (see :class:`WholeFolds`)."""
    device, d, root_bm = basis.device, (basis.lam + basis.tau) / (basis.lam + alpha), basis.root_t[rows_bm]
    if basis.complete and alpha < basis.top:
        # f = y_L − R⁻¹ (I − H)_L y where I − H is small (α < λ_top), else f = R⁻¹ (H_L y − H_LL y_L): neither cancels.
        inverse = invert_blocks(device, _blocks(basis, rows_bm, d * alpha / basis.lam))
        _store(basis, inverse, scale / root_bm[:, :, None], far_bmm)
        return None
    hat = _blocks(basis, rows_bm, d)  # U_L D U_Lᵀ: H_LL without the intercept's o oᵀ / s
    if basis.complete:
        r_bmm = _blocks(basis, rows_bm, d * alpha / basis.lam)
    else:
        r_bmm = device.put(np.eye(rows_bm.shape[1])) - hat
        if basis.center:
            r_bmm -= device.put(root_bm[:, :, None] * root_bm[:, None, :] / (basis.root_t**2).sum())
    inverse = invert_blocks(device, r_bmm)
    _store(basis, inverse, 1.0 / root_bm[:, :, None], far_bmm)
    # near = −(1 + α / λ_top) diag(1 / o) @ R⁻¹ @ U_L @ D @ U_L.T
    return _fetch(basis, -float(scale) * (inverse @ hat) / device.put(root_bm[:, :, None]), far_bmm.dtype)


def _blocks(basis: Basis, rows_bm: Rows, d: F64) -> Array:
    """(b, m, m): U_L diag(d) U_Lᵀ of every fold."""
    (b, m), device = rows_bm.shape, basis.device
    if m == 1:
        rows = take_rows(basis.rows_tr, rows_bm[:, 0])
        return device.put(np.einsum("br,br,r->b", rows, rows, d, optimize=False)[:, None, None])
    out, d_r = device.empty(b, m, m, dtype=np.float64), device.put(d)
    for i, rows in enumerate(rows_bm):
        taken = basis.rows(rows)
        # block = U_L @ diag(d) @ U_L.T
        out[i, ...] = (taken * d_r) @ taken.T
    return out
