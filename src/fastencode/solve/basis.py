"""One symmetric eigendecomposition of all rows: the coordinates in which every fold and the refit are computed.

With weighted, centered rows X̌ = U diag(√λ) Vᵀ, a penalty τ no larger than the grid's smallest, and U_τ = U diag(√(λ / (λ + τ))),
responses y enter as c = U_τᵀ y: a contraction, so c is as accurate as y however ill-conditioned X is. Weights at penalty α are
V diag(√(λ + τ) / (λ + α)) c. The smaller Gram is decomposed: primal p × p gives V and λ, dual n × n gives U and λ; what follows
does not differ. Grams and decompositions are float64 whatever the input, since a Gram squares the condition of X; V, of which
weights are made, comes in the dtype of X: in the dual it is X̌ᵀ U diag(1 / √λ), not made here.

Legend: t = time, p = features, r = directions kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.delayed import Copies, Delayed, Matrix
from fastencode.errors import InputError
from fastencode.solve.problem import Problem

__all__ = ["Basis", "centered_rows", "column_means", "decompose", "gram_of", "kernel_of", "make_basis", "scale_offset"]

F64 = NDArray[np.float64]
# Rows or features of a block, and values of one whose rows are only added up.
_BLOCK, _VALUES = 2048, 2**17
# Beyond this size the working memory of LAPACK's divide-and-conquer is more than its 32-bit integers count: it would crash.
_DIVIDED = 32_766


@dataclass(frozen=True, eq=False)
class Basis:
    """The design in coordinates where the penalty is diagonal.

    Attributes
    ----------
    lam : (r,) float64, increasing and positive
    tau : float
        The smallest penalty, or the largest eigenvalue where that is smaller.
    rows_tr : (t, r) float64
        U_τ.
    coef_pr : (p, r)
        V, in the dtype of the problem: in the primal only.
    mean_p : (p,) float64
        Subtracted from X; zeros without an intercept.
    root_t : (t,) float64
        Square roots of the sample weights; ones without.
    center, weighted : bool
    """

    lam: F64
    tau: float
    rows_tr: F64
    coef_pr: NDArray[Any]
    mean_p: F64
    root_t: F64
    center: bool
    weighted: bool

    @property
    def complete(self) -> bool:
        """Whether U spans all that rows can hold (all but the constant): p > n, in general."""
        return len(self.lam) == len(self.rows_tr) - self.center

    @cached_property
    def residual_t(self) -> F64:
        """Diagonal of I − H at the penalty τ, intercept included."""
        if self.complete:
            return np.asarray(np.einsum("tr,tr,r->t", self.rows_tr, self.rows_tr, self.tau / self.lam))
        out = 1.0 - np.einsum("tr,tr->t", self.rows_tr, self.rows_tr)
        return out - self.root_t**2 / (self.root_t @ self.root_t) if self.center else out

    @property
    def top(self) -> float:
        """The largest eigenvalue; 0 if X is constant."""
        return float(self.lam[-1]) if len(self.lam) else 0.0


def column_means(X: Matrix, weights_t: F64 | None = None) -> F64:
    """(Weighted) column means in float64, exact for a constant column: taken relative to the first row."""
    if len(X) == 0:
        return np.zeros(X.shape[1])
    total, step = np.zeros(X.shape[1]), max(1, _VALUES // X.shape[1])
    with np.errstate(over="ignore"):  # the Gram will not be finite either, and is checked
        for start in range(0, len(X), step):
            block = np.subtract(X[start : start + step], X[0], dtype=np.float64)
            total += block.sum(axis=0) if weights_t is None else weights_t[start : start + step] @ block
    return X[0].astype(np.float64) + total / (len(X) if weights_t is None else weights_t.sum())


def make_basis(problem: Problem, dual: bool) -> Basis:
    """Decompose the smaller Gram. Raises ``InputError`` if X is too large to square in its dtype."""
    X, center = problem.X, problem.fit_intercept
    root = np.ones(len(X)) if problem.weights is None else np.sqrt(problem.weights)
    mean = column_means(X, problem.weights) if center else np.zeros(X.shape[1])
    with np.errstate(all="ignore"):
        gram = kernel_of(X, mean, root) if dual else gram_of(X, mean, root)
    lam, vectors = decompose(gram, max(X.shape), X.dtype)
    tau = scale_offset(problem, lam)
    shrunk = np.sqrt(lam + tau)
    if dual:
        coef = np.empty((0, len(lam)), dtype=X.dtype)
        rows = vectors * (np.sqrt(lam) / shrunk)
    else:
        coef = vectors.astype(X.dtype)
        rows = np.empty((len(X), len(lam)))
        for start in range(0, len(X), _BLOCK):
            here = slice(start, start + _BLOCK)
            rows[here] = centered_rows(X, mean, root, here) @ vectors / shrunk
    return Basis(lam, tau, rows, coef, mean, root, center, problem.weights is not None)


def scale_offset(problem: Problem, lam: F64) -> float:
    """τ: the smallest penalty, or the largest eigenvalue where that is smaller."""
    return float(min(problem.alphas[0], lam[-1] if len(lam) else 1.0))


def decompose(gram: F64, size: int, dtype: np.dtype[Any]) -> tuple[F64, F64]:
    """Eigenvalues and vectors of a Gram, without those that are not in the data but in the arithmetic.

    Those are what lies below ``size`` roundings of the largest, and would be blown up by a penalty smaller than itself. Raises
    ``InputError`` for a Gram too large for results of a dtype.
    """
    # Predictions times (1 + α / λ) must fit the dtype, for responses of any sensible size.
    if not np.trace(gram) < 1e-8 * np.finfo(dtype).max:
        raise InputError(f"X holds values too large to square and add up in {dtype}; rescale its columns")
    if len(gram) > _DIVIDED:
        lam, vectors = scipy.linalg.eigh(gram, driver="evr", check_finite=False)
    else:
        lam, vectors = np.linalg.eigh(gram)
    floor = np.finfo(np.float64).eps * size * max(float(lam[-1]), 0.0)
    keep = int(np.searchsorted(lam, floor, side="right"))
    return lam[keep:], vectors[:, keep:]


def centered_rows(X: Matrix, mean: F64, root: F64, here: slice | NDArray[np.intp]) -> F64:
    """Some rows of X̌: centered, times the roots of the weights."""
    return np.subtract(X[here], mean, dtype=np.float64) * root[here, None]


def gram_of(X: Matrix, mean: F64, root: F64) -> F64:
    """X̌ᵀ X̌."""
    gram = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), _BLOCK):
        block = centered_rows(X, mean, root, slice(start, start + _BLOCK))
        gram += block.T @ block
    return gram


def kernel_of(X: Matrix, mean: F64, root: F64) -> F64:
    """X̌ X̌ᵀ."""
    kernel = np.zeros((len(X), len(X)))
    if isinstance(X, Delayed):
        start = 0
        for part in X.parts:
            stop = start + len(part.source_dt) * part.width
            _add_kernel(kernel, part, mean[start:stop], root)
            start = stop
        kernel *= root[:, None]
        kernel *= root
        return kernel
    for start in range(0, X.shape[1], _BLOCK):
        here = slice(start, start + _BLOCK)
        block = np.subtract(X[:, here], mean[here], dtype=np.float64) * root[:, None]
        kernel += block @ block.T
    return kernel


def _add_kernel(kernel: F64, X: Copies, mean: F64, root: F64) -> None:
    """Add the kernel of delayed copies, made of one kernel of what is copied; not yet times the roots of the weights.

    With m the mean of all rows that are copied, μ that of one copy, o its padding (1 where it is zeros) and q the mean of o, a
    centered copy S X₀ − 1 μᵀ is S (X₀ − 1 mᵀ) + (q − o) mᵀ − 1 cᵀ, where c = μ − (1 − q) m: terms no larger than what they add up
    to. Its rows are thus sums of rows of E = [X₀ − 1 mᵀ; mᵀ; cᵀ of every copy], and its kernel is W E Eᵀ Wᵀ. Means are weighted.
    """
    (copies, n), width, empty = X.source_dt.shape, X.width, X.source_dt < 0
    used = np.unique(X.source_dt[~empty])
    rows, source_dt = len(used), np.searchsorted(used, X.source_dt)
    share = empty @ (root**2 / (root @ root))
    means = mean.reshape(copies, width)
    center = means.sum(axis=0) / ((copies - share.sum()) or 1.0)
    apart, offset = share[:, None] - empty, means - center + share[:, None] * center
    inner = np.zeros((rows + 1 + copies,) * 2)
    for start in range(0, width, _BLOCK):
        here = slice(start, start + _BLOCK)
        block = np.concatenate([X.base_sw[used, here] - center[here], center[None, here], offset[:, here]])
        inner += block @ block.T

    def mixed(d: int, here: slice, of: F64) -> F64:
        """Some rows of W of: those copied, plus their part of m, minus c."""
        out = of[source_dt[d, here]]
        out[empty[d, here]] = 0
        out += apart[d, here, None] * of[rows]
        out -= of[rows + 1 + d]
        return out

    for start in range(0, n, _BLOCK // 8):
        here = slice(start, start + _BLOCK // 8)
        for d in range(copies):
            kernel[here] += mixed(d, slice(None), mixed(d, here, inner).T).T
