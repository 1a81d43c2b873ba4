"""What predicts a fold's held-out rows at every node, made from the basis without another decomposition.

Write R = (I − H)_LL for the rows L that a fold leaves out, H the hat matrix of all rows at one penalty (intercept included). Refitting
without L gives on L exactly  ŷ = R⁻¹ U_L D c_f,  with D = diag((λ + τ) / (λ + α)) and c_f the coordinates of the training responses:
one Cholesky of the smaller of L × L and r × r for each node, instead of a decomposition for each fold. Three forms:

    apart   c_f = c − U_Lᵀ y_L, then one (k·m × r) product                              large folds
    whole   one product U (D c) for all folds together, then m × m blocks at each fold   many small folds, leave one out
    train   a (k·m × n_train) product on the training responses themselves              p > n, and whatever is too
                                                                                        ill-conditioned for the other two

Predictions are relative to the mean of the training responses and scaled by 1 + α / λ_top (see ``nodes.scale_of``).

Legend: t = time, r = directions, k = nodes, m = rows of a fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.solve.basis import Basis
from fastencode.solve.folds import Fold
from fastencode.solve.nodes import scale_of

__all__ = ["LIMITS", "WHOLE_ROWS", "Left", "Operator", "WholeFolds", "leave_out", "make_whole", "shared_gram", "solve_apart",
    "solve_train", "training_extremes"]

F64 = NDArray[np.float64]
Rows = NDArray[np.intp]
# Largest 1 / λ_min(R) a form may have, by item size: `whole` loses that factor of the dtype's digits, `apart` its square root, and
# what float64 planning may lose. Beyond, the training rows are decomposed by themselves.
LIMITS = {4: {"whole": 1e2, "apart": 1e4, "train": 1e8}, 8: {"whole": 1e3, "apart": 1e4, "train": 1e6}}
WHOLE_ROWS = 32
# Up to this condition float32 problems solve their folds' systems in float32.
_NARROW = 30.0


@dataclass(frozen=True, eq=False)
class Left:
    """The rows a fold leaves out, and how much they weigh."""

    train: Rows
    test: Rows
    rows: Rows
    held: Rows
    mass: float
    condition: float


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
    analyze_mr : (len(left), r) or None
        Rows of U_τ; a view where they are consecutive.
    """

    train: Rows
    test: Rows
    left: Rows
    form: str
    mass: float
    predict_kmr: NDArray[Any]
    analyze_mr: NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class WholeFolds:
    """All folds of one size m, predicted together: far @ (U (spread c)) + near @ y.

    Attributes
    ----------
    index : (b,)
        Which folds.
    rows : (b, m)
    spread_kr : (k, r)
    far_kbmm, near_kbmm : (k, b, m, m)
    mass_b : (b,)
        Sum of weights of the training rows.
    """

    index: Rows
    rows: Rows
    spread_kr: NDArray[Any]
    far_kbmm: NDArray[Any]
    near_kbmm: NDArray[Any]
    mass_b: F64


def leave_out(basis: Basis, fold: Fold) -> Left:
    """What a fold leaves out, and 1 / λ_min(R) at the smallest penalty (infinite if training rows repeat)."""
    train, test = fold
    n = len(basis.rows_tr)
    mask = np.ones(n, dtype=bool)
    mask[train] = False
    left = np.flatnonzero(mask)
    mass = float((basis.root_t[train] ** 2).sum())
    held = np.searchsorted(left, test)
    if n - len(left) < len(train):
        return Left(train, test, left, held, mass, np.inf)
    return Left(train, test, left, held, mass, _condition(basis, left))


def _condition(basis: Basis, left: Rows) -> float:
    """1 / λ_min(R) at τ, where D = 1."""
    if not len(basis.lam):
        return 1.0
    matrix = _residual(basis, left, basis.tau) if _by_rows(basis, left) else _reduced(basis, reduced_gram(basis, left), basis.tau)
    smallest = float(np.linalg.eigvalsh(matrix)[0]) if len(matrix) <= 256 else _smallest(matrix)
    return 1.0 / smallest if smallest > 0 else np.inf


def _by_rows(basis: Basis, left: Rows) -> bool:
    """Whether the |L| × |L| system is the cheaper one; the r × r one's Gram is shared by all nodes."""
    m, r = len(left), len(basis.lam)
    return basis.complete or 4.0 * m * m * r + m**3 / 3 < 2.0 * m * r * r + r**3 / 3


def _smallest(matrix: F64) -> float:
    """Smallest eigenvalue of a matrix with spectrum in (0, 1], by inverse iteration: within a few percent, from above."""
    try:
        factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return 0.0
    vector, size = np.random.default_rng(0).standard_normal(len(matrix)), 1.0
    for _ in range(30):
        vector /= np.linalg.norm(vector)
        vector = scipy.linalg.cho_solve(factor, vector, check_finite=False)
        before, size = size, float(np.linalg.norm(vector))
        if abs(size - before) < 0.01 * size:
            break
    return 0.9 / size


def _residual(basis: Basis, rows: Rows, alpha: float) -> F64:
    """(I − H) of some rows, H the hat matrix of all rows at a penalty, intercept included."""
    rows_mr, d = basis.rows_tr[rows], (basis.lam + basis.tau) / (basis.lam + alpha)
    if basis.complete:  # without cancellation: the smaller α, the smaller it is
        return np.asarray((rows_mr * (d * alpha / basis.lam)) @ rows_mr.T)
    out = np.asarray((rows_mr * -d) @ rows_mr.T)
    out[np.diag_indices(len(rows))] += 1.0
    if basis.center:
        root = basis.root_t
        out -= np.outer(root[rows], root[rows] / (root**2).sum())
    return out


def reduced_gram(basis: Basis, left: Rows) -> F64:
    """U_Lᵀ (I + o oᵀ / s_train) U_L: what the r × r systems of all nodes share."""
    rows = basis.rows_tr[left]
    gram = np.asarray(rows.T @ rows)
    if basis.center:
        root, total = basis.root_t[left], float((basis.root_t**2).sum())
        pull = root @ rows
        gram += np.outer(pull, pull / (total - (root**2).sum()))
    return gram


def _reduced(basis: Basis, gram: F64, alpha: float) -> F64:
    """I − √D gram √D: as well conditioned as R, r × r."""
    half = np.sqrt((basis.lam + basis.tau) / (basis.lam + alpha))
    out = gram * -np.outer(half, half)
    out[np.diag_indices(len(out))] += 1.0
    return out


def training_extremes(basis: Basis, left: Left) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a fold's training Gram within the directions kept."""
    shrunk = np.sqrt(basis.lam + basis.tau)
    gram = reduced_gram(basis, left.rows) * -np.outer(shrunk, shrunk)
    gram[np.diag_indices(len(gram))] += basis.lam
    found = np.linalg.eigvalsh(gram)
    return max(0.0, float(found[0])), float(found[-1])


def shared_gram(basis: Basis, left: Left) -> F64 | None:
    """What :func:`solve_apart` wants for all nodes of a fold."""
    return None if _by_rows(basis, left.rows) else reduced_gram(basis, left.rows)


def solve_apart(basis: Basis, left: Left, gram: F64 | None, alpha: float, out_mr: NDArray[Any]) -> None:
    """R⁻¹ U_L D of the held-out rows at one node, scaled and for unweighted rows.

    Solved in the dtype of ``out_mr`` where that loses no more than rounding the result to it does.
    """
    d = (basis.lam + basis.tau) / (basis.lam + alpha)
    root, rows = basis.root_t, basis.rows_tr[left.rows]
    work = out_mr.dtype if left.condition <= _NARROW else np.dtype(np.float64)
    if gram is None:
        residual, right = _residual(basis, left.rows, alpha), rows * d
        found = _solve(residual, right, work)[left.held]
    else:
        half, held = np.sqrt(d), basis.rows_tr[left.test]
        if basis.center:
            held = held + np.outer(root[left.test], (root[left.rows] @ rows) / left.mass)
        found = _solve(_reduced(basis, gram, alpha), (held * half).T, work).T * half
    np.multiply(found, scale_of(np.float64(alpha), basis.top) / root[left.test, None], out=out_mr, casting="same_kind")


def _solve(matrix: F64, right: F64, dtype: np.dtype[Any]) -> NDArray[Any]:
    factor = scipy.linalg.cho_factor(matrix.astype(dtype, copy=False), lower=True, overwrite_a=True, check_finite=False)
    right = np.asfortranarray(right, dtype=dtype)
    return np.asarray(scipy.linalg.cho_solve(factor, right, overwrite_b=True, check_finite=False))


def solve_train(basis: Basis, left: Left, alphas: F64, out_kmt: NDArray[Any], limit: float) -> None:
    """Maps from the training responses to the held-out predictions at every node."""
    if basis.complete and left.condition <= limit:
        rows, train = basis.rows_tr[left.rows], basis.rows_tr[left.train]
        for k, alpha in enumerate(alphas):
            factor = scipy.linalg.cho_factor(_residual(basis, left.rows, alpha), lower=True, check_finite=False)
            d = (basis.lam + basis.tau) / (basis.lam + alpha)
            # −R⁻¹ R_L,train, or R⁻¹ H_L,train: the one of the two that does not cancel.
            across = (rows * (-d * alpha / basis.lam if alpha < basis.top else d)) @ train.T
            _put(basis, left, alpha, scipy.linalg.cho_solve(factor, across, check_finite=False)[left.held], out_kmt[k])
        return
    # By themselves: the training rows' own smaller Gram, and its own rounding cut off.
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


def _put(basis: Basis, left: Left, alpha: Any, found: F64, out: NDArray[Any]) -> None:
    factor = scale_of(np.float64(alpha), basis.top) / basis.root_t[left.test, None]
    np.multiply(found, factor, out=out, casting="same_kind")


def make_whole(basis: Basis, lefts: list[Left], index: Rows, alphas: F64, dtype: np.dtype[Any]) -> WholeFolds:
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
            residual = (rows * (d * alpha / basis.lam)) @ rows.transpose(0, 2, 1)
        else:
            residual = eye - hat
            if basis.center:
                residual -= root_bm[:, :, None] * root_bm[:, None, :] / (basis.root_t**2).sum()
        inverse = np.linalg.inv(residual)
        # y_L − R⁻¹ (R y)_L where R is the small one, R⁻¹ (H y − H_LL y_L) where H is: neither cancels.
        spread[j] = -d * alpha / basis.lam if small else scale[j] * d
        far[j] = inverse / root_bm[:, :, None] * (scale[j] if small else 1.0)
        near[j] = scale[j] * (eye if small else -inverse @ hat) / root_bm[:, :, None]
    return WholeFolds(index, rows_bm, spread.astype(dtype), far, near, np.array([left.mass for left in lefts]))
