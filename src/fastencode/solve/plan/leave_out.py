"""The rows L that a fold leaves out, and the matrix R = (I − H)_LL, H the hat matrix of all rows (docs/solver.md, 3).

A refit without the rows L multiplies their residuals by R⁻¹ exactly. Two systems give the same predictions: R itself,
|L| × |L|, or I − √D U_Lᵀ (I + o oᵀ / s_train) U_L √D, r × r. Here D = diag((λ + τ) / (λ + α)), o are the roots of the sample
weights, and s_train is their sum of squares over the training rows. The spectrum of both lies in (0, 1]. κ = ‖I − H‖ / λ_min(R)
bounds the factor by which rounding grows. These matrices are made where planning computes, on the host or a device.

Legend: r = directions, m = rows of L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, Array
from fastencode.solve.given.folds import Fold
from fastencode.solve.plan.basis import Basis, rounding_of

__all__ = ["Left", "leave_out", "reduced", "reduced_gram", "residual", "training_extremes", "training_gram"]

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
        The matrix of :func:`reduced_gram`, on the basis' device, where the r × r systems are cheaper than the m × m ones.
    """

    train: Rows
    test: Rows
    rows: Rows
    held: Rows
    mass: float
    condition: float
    gram: Array | None


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


def _condition(basis: Basis, left: Rows, gram: Array | None) -> float:
    """κ = ‖I − H‖ / λ_min(R) at τ, where D is the identity. ‖I − H‖ is 1, or τ / (λ_min + τ) where the basis is complete."""
    if not len(basis.lam):
        return 1.0
    if len(left) == 1:
        smallest = float(basis.residual_t[left[0]])
    else:
        matrix = residual(basis, left, basis.tau) if gram is None else reduced(basis, gram, basis.tau)
        by_lanczos = basis.device is HOST and matrix.shape[0] > _ALL_EIGENVALUES
        smallest = _smallest(matrix) if by_lanczos else float(_eigenvalues(basis, matrix)[0])
    largest = basis.tau / (basis.lam[0] + basis.tau) if basis.complete else 1.0
    return float(largest / smallest) if smallest > 0 else np.inf


def _by_rows(basis: Basis, left: Rows) -> bool:
    """Whether the |L| × |L| system is cheaper than the r × r one, whose Gram all nodes share."""
    m, r = len(left), len(basis.lam)
    return basis.complete or 4.0 * m * m * r + m**3 / 3 < 2.0 * m * r * r + r**3 / 3


def _eigenvalues(basis: Basis, matrix: Array) -> F64:
    """Increasing, of a symmetric matrix of the basis' device, in the host's memory."""
    found: F64 = basis.device.get(basis.device.xp.linalg.eigvalsh(matrix)).astype(np.float64, copy=False)
    return found


def _smallest(matrix: Any) -> float:
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


def residual(basis: Basis, rows: Rows, alpha: float) -> Array:
    """(I − H)_LL for the given rows L, H the hat matrix of all rows at a penalty, intercept included."""
    device, rows_mr, d = basis.device, basis.rows(rows), (basis.lam + basis.tau) / (basis.lam + alpha)
    # A matrix times its own transpose takes BLAS half the work of another product.
    if basis.complete:  # U_L D diag(α / λ) U_Lᵀ: no cancellation where α and so I − H are small
        half_mr = rows_mr * device.put(np.sqrt(d * alpha / basis.lam))
        # R = U_L @ D @ diag(α / λ) @ U_L.T
        return half_mr @ half_mr.T
    half_mr = rows_mr * device.put(np.sqrt(d))
    # R = I − U_L @ D @ U_L.T − o_L o_L.T / s
    out = half_mr @ half_mr.T
    out *= -1.0
    out = device.add_to_diagonal(out, 1.0)
    if basis.center:
        root_m = device.put(basis.root_t[rows])
        out -= root_m[:, None] * (root_m / float(basis.root_t @ basis.root_t))[None, :]
    return out


def reduced_gram(basis: Basis, left: Rows) -> Array:
    """G = U_Lᵀ (I + o oᵀ / s_train) U_L, which the r × r systems of all nodes share."""
    rows = basis.rows(left)
    # G = U_L.T @ U_L + (U_L.T o_L) (U_L.T o_L).T / s_train
    gram = rows.T @ rows
    if basis.center:
        root, total = basis.root_t[left], float((basis.root_t**2).sum())
        pull = basis.device.put(root) @ rows
        gram += pull[:, None] * (pull / (total - float((root**2).sum())))[None, :]
    return gram


def reduced(basis: Basis, gram: Array, alpha: float) -> Array:
    """I − √D G √D, (r, r): as well conditioned as R."""
    half = basis.device.put(np.sqrt((basis.lam + basis.tau) / (basis.lam + alpha)))
    out = gram * -half[:, None]
    out *= half
    return basis.device.add_to_diagonal(out, 1.0)


def training_gram(basis: Basis, left: Left) -> Array:
    """diag(λ) − diag(√(λ + τ)) G diag(√(λ + τ)), (r, r): the Gram Vᵀ X̌_Tᵀ X̌_T V of a fold's training rows about their mean."""
    shrunk = basis.device.put(np.sqrt(basis.lam + basis.tau))
    gram = reduced_gram(basis, left.rows) if left.gram is None else left.gram
    gram = gram * -shrunk[:, None]
    gram *= shrunk
    return basis.device.add_to_diagonal(gram, basis.device.put(basis.lam))


def training_extremes(basis: Basis, left: Left) -> tuple[float, float]:
    """(smallest, largest) eigenvalue of a fold's training Gram within the directions kept."""
    found = _eigenvalues(basis, training_gram(basis, left))
    return max(0.0, float(found[0]) - rounding_of(found)), float(found[-1])
