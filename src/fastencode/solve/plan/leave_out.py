"""The rows L that a fold leaves out, and the matrix R = (I − H)_LL, H the hat matrix of all rows (docs/solver.md, 3).

A refit without the rows L multiplies their residuals by R⁻¹ exactly. Two systems give the same predictions: R itself,
|L| × |L|, or I − √D U_Lᵀ (I + o oᵀ / s_train) U_L √D, r × r. Here D = diag((λ + τ) / (λ + α)), o are the roots of the sample
weights, and s_train is their sum of squares over the training rows. The spectrum of both lies in (0, 1]. κ = ‖I − H‖ / λ_min(R)
bounds the factor by which rounding grows.

Legend: r = directions, m = rows of L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.solve.given.folds import Fold
from fastencode.solve.plan.basis import Basis, rounding_of

__all__ = ["Left", "leave_out", "reduced", "reduced_gram", "residual", "take_rows", "training_extremes", "training_gram"]

Rows = NDArray[np.intp]
# Beyond the first size, the smallest eigenvalue is found by Lanczos, with the second number of steps.
_ALL_EIGENVALUES, _LANCZOS = 256, 12


@dataclass(frozen=True, eq=False)
class Left:
    """One fold, described by the rows L that it leaves out.

    Attributes
    ----------
    train, test : index arrays
    rows : (m,), increasing
        All rows that are not training rows.
    held : index array
        Positions of the test rows in ``rows``.
    mass : float
        Sum of the weights of the training rows.
    condition : float
        κ = ‖I − H‖ / λ_min(R) at τ: the factor by which rounding of a residual may grow; with an intercept at least the weight
        of all rows over that of the training rows. Infinite if training rows repeat.
    gram : (r, r) or None
        The matrix of :func:`reduced_gram`, where the r × r systems are cheaper than the m × m ones.
    """

    train: Rows
    test: Rows
    rows: Rows
    held: Rows
    mass: float
    condition: float
    gram: F64 | None


def take_rows(array: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """Rows of an array: a view where they are consecutive and in order."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (len(rows) == 1 or (np.diff(rows) == 1).all()):
        return array[rows[0] : rows[-1] + 1]
    return array[rows]


def leave_out(basis: Basis, fold: Fold) -> Left:
    """The rows that a fold leaves out, and the condition of leaving them out."""
    train, test = fold
    n = len(basis.rows_tr)
    mask = np.ones(n, dtype=bool)
    mask[train] = False
    left = np.flatnonzero(mask)
    mass = float(basis.root_t[train] @ basis.root_t[train]) if basis.weighted else float(len(train))
    held = np.searchsorted(left, test)
    if n - len(left) < len(train):
        return Left(train, test, left, held, mass, np.inf, None)
    gram = None if _by_rows(basis, left) else reduced_gram(basis, left)
    # The mean of the training rows is taken from the others: it loses as many digits as all rows weigh more than these.
    mean = float(basis.root_t @ basis.root_t) / mass if basis.center else 1.0
    return Left(train, test, left, held, mass, max(mean, _condition(basis, left, gram)), gram)


def _condition(basis: Basis, left: Rows, gram: F64 | None) -> float:
    """κ = ‖I − H‖ / λ_min(R) at τ, where D is the identity. ‖I − H‖ is 1, or τ / (λ_min + τ) where the basis is complete."""
    if not len(basis.lam):
        return 1.0
    if len(left) == 1:
        smallest = float(basis.residual_t[left[0]])
    else:
        matrix = residual(basis, left, basis.tau) if gram is None else reduced(basis, gram, basis.tau)
        smallest = float(np.linalg.eigvalsh(matrix)[0]) if len(matrix) <= _ALL_EIGENVALUES else _smallest(matrix)
    largest = basis.tau / (basis.lam[0] + basis.tau) if basis.complete else 1.0
    return float(largest / smallest) if smallest > 0 else np.inf


def _by_rows(basis: Basis, left: Rows) -> bool:
    """Whether the |L| × |L| system is cheaper than the r × r one, whose Gram all nodes share."""
    m, r = len(left), len(basis.lam)
    return basis.complete or 4.0 * m * m * r + m**3 / 3 < 2.0 * m * r * r + r**3 / 3


def _smallest(matrix: F64) -> float:
    """0.9 times the smallest eigenvalue of a matrix with spectrum in (0, 1], by Lanczos on its inverse."""
    try:
        factor = np.linalg.cholesky(matrix)  # NumPy's releases the interpreter's lock, SciPy's does not
    except np.linalg.LinAlgError:
        return 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    vector, before = np.random.default_rng(0).standard_normal(len(matrix)), np.zeros(len(matrix))
    vector /= np.linalg.norm(vector)
    for _ in range(_LANCZOS):
        found = scipy.linalg.cho_solve((factor.T, False), vector, check_finite=False)
        diagonal.append(float(vector @ found))
        found -= diagonal[-1] * vector + (beside[-1] if beside else 0.0) * before
        beside.append(float(np.linalg.norm(found)))
        if not beside[-1] > 1e-12 * max(diagonal):
            break
        before, vector = vector, found / beside[-1]
    return 0.9 / float(scipy.linalg.eigvalsh_tridiagonal(diagonal, beside[: len(diagonal) - 1])[-1])


def residual(basis: Basis, rows: Rows, alpha: float) -> F64:
    """(I − H)_LL for the given rows L, H the hat matrix of all rows at a penalty, intercept included."""
    rows_mr, d = take_rows(basis.rows_tr, rows), (basis.lam + basis.tau) / (basis.lam + alpha)
    # A matrix times its own transpose takes BLAS half the work of another product.
    if basis.complete:  # U_L D diag(α / λ) U_Lᵀ: no cancellation where α and so I − H are small
        half_mr = rows_mr * np.sqrt(d * alpha / basis.lam)
        # R = U_L @ D @ diag(α / λ) @ U_L.T
        return np.asarray(half_mr @ half_mr.T)
    half_mr = rows_mr * np.sqrt(d)
    # R = I − U_L @ D @ U_L.T − o_L o_L.T / s
    out = half_mr @ half_mr.T
    np.negative(out, out=out)
    out[np.diag_indices(len(rows))] += 1.0
    if basis.center:
        root = basis.root_t
        out -= np.outer(root[rows], root[rows] / (root @ root))
    return out


def reduced_gram(basis: Basis, left: Rows) -> F64:
    """G = U_Lᵀ (I + o oᵀ / s_train) U_L, which the r × r systems of all nodes share."""
    rows = take_rows(basis.rows_tr, left)
    # G = U_L.T @ U_L + (U_L.T o_L) (U_L.T o_L).T / s_train
    gram = np.asarray(rows.T @ rows)
    if basis.center:
        root, total = basis.root_t[left], float((basis.root_t**2).sum())
        pull = root @ rows
        gram += np.outer(pull, pull / (total - (root**2).sum()))
    return gram


def reduced(basis: Basis, gram: F64, alpha: float) -> F64:
    """I − √D G √D, (r, r): as well conditioned as R."""
    half = np.sqrt((basis.lam + basis.tau) / (basis.lam + alpha))
    out = gram * -half[:, None]
    out *= half
    out[np.diag_indices(len(out))] += 1.0
    return out


def training_gram(basis: Basis, left: Left) -> F64:
    """diag(λ) − diag(√(λ + τ)) G diag(√(λ + τ)), (r, r): the Gram Vᵀ X̌_Tᵀ X̌_T V of a fold's training rows about their mean."""
    shrunk = np.sqrt(basis.lam + basis.tau)
    gram = reduced_gram(basis, left.rows) if left.gram is None else left.gram
    gram = gram * -shrunk[:, None]
    gram *= shrunk
    gram[np.diag_indices(len(gram))] += basis.lam
    return gram


def training_extremes(basis: Basis, left: Left) -> tuple[float, float]:
    """(smallest, largest) eigenvalue of a fold's training Gram within the directions kept."""
    found: F64 = np.linalg.eigvalsh(training_gram(basis, left)).astype(np.float64, copy=False)
    return max(0.0, float(found[0]) - rounding_of(found)), float(found[-1])
