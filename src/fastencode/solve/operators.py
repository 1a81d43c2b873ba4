"""What predicts a fold's held-out rows at every node, made from the basis without another decomposition.

Write R = (I − H)_LL for the rows L that a fold leaves out (``leave_out.py``). Refitting without L gives on L exactly
ŷ = R⁻¹ U_L D c_f, with D = diag((λ + τ) / (λ + α)) and c_f the coordinates of the training responses: one Cholesky of the smaller
of L × L and r × r for each node, instead of a decomposition for each fold. Three forms:

    apart   c_f = c − U_Lᵀ y_L, then one (k·m × r) product                              large folds
    whole   one product U (D c) for all folds together, then m × m blocks at each fold   many small folds, leave one out
    train   a (k·m × n_train) product on the training responses themselves              p > n, and whatever is too
                                                                                        ill-conditioned for the other two

Predictions are relative to the mean of the training responses and scaled by 1 + α / λ_top (see ``nodes.scale_of``).

Legend: t = time, r = directions, k = nodes, m = rows of a fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.solve.basis import Basis
from fastencode.solve.leave_out import Left, reduced, residual, take_rows
from fastencode.solve.nodes import scale_of
from fastencode.solve.strategy import solve_operations
from fastencode.threads import together

__all__ = ["LIMITS", "WHOLE_ROWS", "Operator", "WholeFolds", "make_operators"]

F64 = NDArray[np.float64]
Rows = NDArray[np.intp]
# Largest 1 / λ_min(R) a form may have, by item size: `whole` loses that factor of the dtype's digits, `apart` its square root,
# `train` that factor of float64's. Beyond, the training rows are decomposed by themselves.
LIMITS = {4: {"whole": 1e2, "apart": 1e4, "train": 1e8}, 8: {"whole": 1e3, "apart": 1e4, "train": 1e6}}
WHOLE_ROWS = 32
# Up to this condition float32 problems solve their folds' systems in float32.
_NARROW = 30.0


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
    predict_kmr : (k, m, r) or (k, m, n_train)
    analyze_mr : (len(left), r)
        Rows of U_τ, a view where they are consecutive; none in the form "train".
    """

    train: Rows
    test: Rows
    left: Rows
    form: str
    mass: float
    predict_kmr: NDArray[Any]
    analyze_mr: NDArray[Any]


@dataclass(frozen=True, eq=False)
class WholeFolds:
    """All folds of one size m, predicted together: far @ (U (spread c)) + near @ y.

    Attributes
    ----------
    rows : (b, m)
    spread_kr : (k, r)
    far_kbmm, near_kbmm : (k, b, m, m)
    mass_b : (b,)
        Sum of weights of the training rows.
    """

    rows: Rows
    spread_kr: NDArray[Any]
    far_kbmm: NDArray[Any]
    near_kbmm: NDArray[Any]
    mass_b: F64


def make_operators(
    basis: Basis, lefts: list[Left], alphas: F64, analyze_tr: NDArray[Any], threads: int
) -> tuple[tuple[Operator, ...], tuple[WholeFolds, ...], float]:
    """Everything folds need, each in the form its size and condition ask for; and the operations that took."""
    dtype, k, r, operations = analyze_tr.dtype, len(alphas), len(basis.lam), 0.0
    limits, forms = LIMITS[dtype.itemsize], [_form(basis, left, LIMITS[dtype.itemsize]) for left in lefts]
    by_size: dict[int, list[int]] = {}
    folds: list[Operator] = []
    jobs: list[Callable[[], Any]] = []
    for index, (left, form) in enumerate(zip(lefts, forms, strict=True)):
        m = len(left.rows)
        if form == "whole":
            by_size.setdefault(m, []).append(index)
            continue
        predict = np.empty((k, len(left.test), r if form == "apart" else len(left.train)), dtype=dtype)
        if form == "apart":
            jobs += [partial(_solve_apart, basis, left, a, predict[j]) for j, a in enumerate(alphas)]
        else:
            jobs.append(partial(_solve_train, basis, left, alphas, predict, limits["train"]))
        operations += k * solve_operations(m, len(left.test), len(left.train), r, form == "train")
        analyze = take_rows(analyze_tr, left.rows) if form == "apart" else analyze_tr[:0]
        folds.append(Operator(left.train, left.test, left.rows, form, left.mass, predict, analyze))
    together(jobs, threads)
    whole = []
    for m, members in sorted(by_size.items()):
        whole.append(_make_whole(basis, [lefts[i] for i in members], alphas, dtype))
        operations += k * len(members) * solve_operations(m, m, 0, r, False)
    return tuple(folds), tuple(whole), operations


def _form(basis: Basis, left: Left, limits: dict[str, float]) -> str:
    """The form a fold's size and condition ask for."""
    if len(left.test) == len(left.rows) <= WHOLE_ROWS and left.condition <= limits["whole"]:
        return "whole"
    return "apart" if not basis.complete and left.condition <= limits["apart"] else "train"


def _solve_apart(basis: Basis, left: Left, alpha: float, out_mr: NDArray[Any]) -> None:
    """R⁻¹ U_L D of the held-out rows at one node, scaled and for unweighted rows.

    Solved in the dtype of ``out_mr`` where that loses no more than rounding the result to it does.
    """
    d = (basis.lam + basis.tau) / (basis.lam + alpha)
    root, rows = basis.root_t, take_rows(basis.rows_tr, left.rows)
    work = out_mr.dtype if left.condition <= _NARROW else np.dtype(np.float64)
    if left.gram is None:
        found = _solve(residual(basis, left.rows, alpha), rows * d, work)[left.held]
    else:
        half, held = np.sqrt(d), take_rows(basis.rows_tr, left.test)
        if basis.center:
            held = held + np.outer(root[left.test], (root[left.rows] @ rows) / left.mass)
        found = _solve(reduced(basis, left.gram, alpha), (held * half).T, work).T * half
    _put(basis, left, alpha, found, out_mr)


def _solve(matrix: F64, right: F64, dtype: np.dtype[Any]) -> NDArray[Any]:
    factor = scipy.linalg.cho_factor(matrix.astype(dtype, copy=False), lower=True, overwrite_a=True, check_finite=False)
    right = np.asfortranarray(right, dtype=dtype)
    return np.asarray(scipy.linalg.cho_solve(factor, right, overwrite_b=True, check_finite=False))


def _solve_train(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any], limit: float) -> None:
    """Maps from the training responses to the held-out predictions at every node."""
    if basis.complete and left.condition <= limit:
        rows, train = take_rows(basis.rows_tr, left.rows), basis.rows_tr[left.train]
        for k, alpha in enumerate(alphas):
            factor = scipy.linalg.cho_factor(residual(basis, left.rows, alpha), lower=True, check_finite=False)
            d = (basis.lam + basis.tau) / (basis.lam + alpha)
            # −R⁻¹ R_L,train, or R⁻¹ H_L,train: the one of the two that does not cancel.
            across = (rows * (-d * alpha / basis.lam if alpha < basis.top else d)) @ train.T
            _put(basis, left, alpha, scipy.linalg.cho_solve(factor, across, check_finite=False)[left.held], out_kmt[k])
    else:
        _solve_by_itself(basis, left, alphas, out_kmt)


def _solve_by_itself(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any]) -> None:
    """The same from the training rows' own smaller Gram, its own rounding cut off."""
    points = basis.rows_tr * np.sqrt(basis.lam + basis.tau)
    train, held = points[left.train], points[left.test]
    if basis.center:
        root = basis.root_t
        mean = root[left.train] @ train / left.mass
        train, held = train - np.outer(root[left.train], mean), held - np.outer(root[left.test], mean)
    dual = len(train) <= train.shape[1]
    lam, vectors = np.linalg.eigh(train @ train.T if dual else train.T @ train)
    floor = np.finfo(np.float64).eps * max(train.shape) * max(float(lam[-1]), 0.0) if len(lam) else 0.0
    keep = lam > floor
    lam, vectors = lam[keep], vectors[:, keep]
    into, out_of = ((held @ train.T) @ vectors, vectors.T) if dual else (held @ vectors, vectors.T @ train.T)
    for k, alpha in enumerate(alphas):
        _put(basis, left, alpha, (into / (lam + alpha)) @ out_of, out_kmt[k])


def _put(basis: Basis, left: Left, alpha: float, found: NDArray[Any], out: NDArray[Any]) -> None:
    """Scale, and undo the roots of the weights of the held-out rows."""
    factor = scale_of(alpha, basis.top) / basis.root_t[left.test, None]
    np.multiply(found, factor, out=out, casting="same_kind")


def _make_whole(basis: Basis, lefts: list[Left], alphas: F64, dtype: np.dtype[Any]) -> WholeFolds:
    """Operators of folds of one size that hold out all they leave out."""
    rows_bm = np.array([left.rows for left in lefts])
    (b, m), k = rows_bm.shape, len(alphas)
    scale, spread = scale_of(alphas, basis.top), np.empty((k, len(basis.lam)))
    far, near = np.empty((k, b, m, m), dtype=dtype), np.empty((k, b, m, m), dtype=dtype)
    root_bm, eye = basis.root_t[rows_bm], np.eye(m)
    rows = basis.rows_tr[rows_bm]  # (b, m, r)
    for j, alpha in enumerate(alphas):
        d = (basis.lam + basis.tau) / (basis.lam + alpha)
        small = basis.complete and alpha < basis.top
        hat = (rows * d) @ rows.transpose(0, 2, 1)  # without the intercept
        if basis.complete:
            r_bmm = (rows * (d * alpha / basis.lam)) @ rows.transpose(0, 2, 1)
        else:
            r_bmm = eye - hat
            if basis.center:
                r_bmm -= root_bm[:, :, None] * root_bm[:, None, :] / (basis.root_t**2).sum()
        inverse = np.linalg.inv(r_bmm)
        # y_L − R⁻¹ (R y)_L where R is the small one, R⁻¹ (H y − H_LL y_L) where H is: neither cancels.
        spread[j] = -d * alpha / basis.lam if small else scale[j] * d
        far[j] = inverse / root_bm[:, :, None] * (scale[j] if small else 1.0)
        near[j] = scale[j] * (eye if small else -inverse @ hat) / root_bm[:, :, None]
    return WholeFolds(rows_bm, spread.astype(dtype), far, near, np.array([left.mass for left in lefts]))
