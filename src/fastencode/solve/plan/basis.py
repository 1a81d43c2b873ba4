"""One symmetric eigendecomposition of all rows: the coordinates of every fold and of the refit (docs/solver.md, 2 and 8).

Let X̌ = U diag(√λ) Vᵀ be the weighted, centered rows, τ a penalty no larger than the grid's smallest, and
U_τ = U diag(√(λ / (λ + τ))). Responses y enter as c = U_τᵀ y. That is a contraction, so c is as accurate as y however
ill-conditioned X is. Weights at penalty α are V diag(√(λ + τ) / (λ + α)) c.

The smaller Gram is decomposed: primal p × p gives V and λ, dual n × n gives U and λ. The coordinates are the same either way.
Grams and decompositions are float64 whatever the input, since a Gram squares the condition of X. V has the dtype of X. In the
dual V is X̌ᵀ U diag(1 / √λ), which ``weights/features.py`` makes.

Rounding moves the eigenvalues of a Gram by δ = 8 eps λ_top. That changes weights at a penalty α by up to δ / (λ_min + α) of
themselves: it matters where one column has much larger units than others. Then X̌ itself is decomposed (``graded.py``), as
accurately as if all columns had one scale.

Legend: t = time, p = features, r = directions kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.delayed import Copies, Delayed, Matrix, pick
from fastencode.errors import InputError, warn
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.directions import Reflection, along_features, along_rows, eigh, eigh_beside, remove_along
from fastencode.solve.plan.graded import Graded, graded_svd

__all__ = [
    "ACCURACY",
    "Basis",
    "cancels",
    "centered_rows",
    "column_means",
    "decompose",
    "decompose_features",
    "directions_of_kernel",
    "directions_of_rows",
    "dual_map",
    "gram_of",
    "hidden_by_rounding",
    "kernel_of",
    "largest_square",
    "make_basis",
    "resolution",
    "rounding_of",
    "tau_of",
]

# Rows or features of a block; numbers in a block of rows that are only added up.
_BLOCK, _VALUES = 2048, 2**17
# Largest relative change of weights that the rounding of a Gram may make, by item size of the dtype.
ACCURACY = {4: 1e-6, 8: 1e-8}
# Largest part of the responses that a float32 weight, times its column's scale, may lose where it is made of dual weights.
_CANCELLED = 1e-5
# Rounding moves the eigenvalues of a Gram by about this many eps of the largest.
_ROUNDINGS = 8.0


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
    V_pr : (p, r) or (0, r)
        V, in the dtype of the problem. Empty after a dual decomposition whose V = X̌ᵀ U diag(1 / √λ) may be made in that dtype
        too, later.
    mean_p : (p,) float64
        Subtracted from X; zeros without an intercept.
    root_t : (t,) float64
        Square roots of the sample weights; ones without.
    center, weighted : bool
    source : {"gram", "features"}
        Whether the Gram or X itself was decomposed.
    """

    lam: F64
    tau: float
    rows_tr: F64
    V_pr: NDArray[Any]
    mean_p: F64
    root_t: F64
    center: bool
    weighted: bool
    source: str = "gram"
    X: Matrix | None = None
    scale_p: F64 | None = None

    @property
    def complete(self) -> bool:
        """Whether U spans every vector over the rows (with an intercept, every vector that sums to zero): usual where p > n."""
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
    """(Weighted) column means in float64. Sums are of differences from the first row, so a constant column's mean is exact."""
    if len(X) == 0:
        return np.zeros(X.shape[1])
    total, step = np.zeros(X.shape[1]), max(1, _VALUES // X.shape[1])
    with np.errstate(over="ignore"):  # where this overflows, so does the Gram, which is checked
        for start in range(0, len(X), step):
            block = np.subtract(X[start : start + step], X[0], dtype=np.float64)
            total += block.sum(axis=0) if weights_t is None else weights_t[start : start + step] @ block
    return X[0].astype(np.float64) + total / (len(X) if weights_t is None else weights_t.sum())


def make_basis(problem: Problem, dual: bool) -> Basis:
    """Decompose the Gram X̌ X̌ᵀ (``dual``) or X̌ᵀ X̌, or X̌ itself where rounding of the Gram would show in weights.

    Raises
    ------
    InputError
        If X is too large to square in its dtype, or ``memory`` does not hold the decomposition of X itself.

    Warns
    -----
    FastencodeWarning
        If columns are combinations of others except for their rounding, and the square of that rounding exceeds the part of the
        smallest penalty that :data:`ACCURACY` allows.
    """
    X, center = problem.X, problem.fit_intercept
    root = np.ones(len(X)) if problem.weights is None else np.sqrt(problem.weights)
    mean = column_means(X, problem.weights) if center else np.zeros(X.shape[1])
    with np.errstate(all="ignore"):
        gram = kernel_of(X, mean, root) if dual else gram_of(X, mean, root)
    found = decompose(gram, problem, root if dual and center else None)
    del gram
    if found is None:
        graded = decompose_features(problem, mean, root)
        lam, rows, V, source = graded.size**2, graded.U, graded.V.astype(X.dtype), "features"
        tau = tau_of(problem, lam)
        rows *= graded.size / np.sqrt(lam + tau)
    else:
        (lam, vectors), source = found, "gram"
        if dual:
            lam, vectors = directions_of_kernel(problem, mean, root, lam, vectors)
            tau = tau_of(problem, lam)
            square = largest_square(X, mean, root) if X.dtype == np.float32 else 0.0
            V = np.empty((0, len(lam)), dtype=X.dtype)
            if len(lam) and cancels(square, lam[0] + problem.alphas[0], problem):  # in float64
                V = dual_map(problem, mean, root, vectors / np.sqrt(lam))
            rows = vectors * (np.sqrt(lam) / np.sqrt(lam + tau))
        else:
            rows = np.empty((len(X), len(lam)))
            for start in range(0, len(X), _BLOCK):
                here = slice(start, start + _BLOCK)
                # rows = X̌ @ V
                rows[here] = centered_rows(X, mean, root, here) @ vectors
            lam, vectors, rows = directions_of_rows(problem, root, lam, vectors, rows)
            V, tau = vectors.astype(X.dtype), tau_of(problem, lam)
            rows /= np.sqrt(lam + tau)
    return Basis(lam, tau, rows, V, mean, root, center, problem.weights is not None, source, X)


def directions_of_rows(problem: Problem, root: F64, lam: F64, vectors: F64, rows: F64) -> tuple[F64, F64, F64]:
    """(λ, V, X̌ V) of a Gram of features, from ``rows`` = X̌ V, which may be overwritten; see :func:`directions.along_rows`."""
    if problem.fit_intercept:
        remove_along(root, rows)  # what the rounding of the means left
    return along_rows(lam, vectors, rows, min(len(rows) - problem.fit_intercept, len(vectors)))


def directions_of_kernel(
    problem: Problem, mean: F64, root: F64, lam: F64, vectors: F64, scale_p: F64 | None = None
) -> tuple[F64, F64]:
    """(λ, U) of the kernel of features, or of features times a scale; see :func:`directions.along_features`."""
    X = problem.X

    def blocks() -> Iterator[F64]:
        for start in range(0, X.shape[1], _BLOCK):
            here = slice(start, min(start + _BLOCK, X.shape[1]))
            block = np.subtract(X[:, here], mean[here], dtype=np.float64) * root[:, None]
            yield block if scale_p is None else block * scale_p[here]

    return along_features(lam, vectors, blocks, min(len(X) - problem.fit_intercept, X.shape[1]))


def tau_of(problem: Problem, lam: F64) -> float:
    """τ: the smallest penalty, or the largest eigenvalue where that is smaller."""
    return float(min(problem.alphas[0], lam[-1] if len(lam) else 1.0))


def rounding_of(lam: F64) -> float:
    """δ = 8 eps λ_top: the error of the eigenvalues of a Gram by rounding."""
    return _ROUNDINGS * float(np.finfo(np.float64).eps) * max(0.0, float(lam.max(initial=0.0)))


def hidden_by_rounding(lam: F64, alphas: F64, dtype: np.dtype[Any], rounding: float | None = None) -> bool:
    """Whether the rounding E of a Gram A with eigenvalues λ shows in weights at some penalty of the grid.

    Weights (A + α)⁻¹ X̌ᵀ y change by at most ‖E‖ / (λ_min + α − ‖E‖) of themselves; it shows if that exceeds :data:`ACCURACY`.
    """
    if not len(lam):
        return False
    rounding = rounding_of(lam) if rounding is None else rounding
    smallest = max(0.0, float(lam.min())) + float(alphas[0]) - rounding
    return not rounding <= ACCURACY[dtype.itemsize] * smallest


def cancels(square: float, least: float, problem: Problem) -> bool:
    """Whether weights X̌ᵀ ω made in float32 would lose their digits: where a column is large, most of the sum cancels.

    ω = U diag(1 / (λ + α)) Uᵀ y has norm ‖y‖ / (λ_min + α) at most. Rounding it moves a weight, times the scale s of its
    column, by up to about eps s² √n of ‖y‖ / (λ_min + α).

    Parameters
    ----------
    square : float
        The largest mean square of a column, s².
    least : float
        λ_min + α.
    problem : Problem
    """
    if problem.X.dtype != np.float32:
        return False
    rounding = float(np.finfo(np.float32).eps) * square * float(np.sqrt(len(problem.X)))
    return rounding > _CANCELLED * least


def largest_square(X: Matrix, mean: F64, root: F64, columns: NDArray[np.intp] | None = None) -> float:
    """The largest mean square of a column of X̌, or of some of its columns."""
    some, largest, mass = np.arange(X.shape[1]) if columns is None else columns, 0.0, float(root @ root)
    for start in range(0, len(some), _BLOCK):
        here = some[start : start + _BLOCK]
        block = pick(X, columns=here)
        values = np.subtract(block[:], mean[here], dtype=np.float64) * root[:, None]
        largest = max(largest, float(np.einsum("tp,tp->p", values, values).max()) / mass)
    return largest


def dual_map(problem: Problem, mean: F64, root: F64, right_tr: F64, scale_p: F64 | None = None) -> NDArray[Any]:
    """(p, r): X̌ᵀ @ right, multiplied in float64 and rounded once; its rows times a scale."""
    X = problem.X
    out = np.empty((X.shape[1], right_tr.shape[1]), dtype=X.dtype)
    for start in range(0, X.shape[1], _BLOCK):
        here = slice(start, min(start + _BLOCK, X.shape[1]))
        block = np.subtract(X[:, here], mean[here], dtype=np.float64) * root[:, None]
        found = block.T @ right_tr
        out[here] = found if scale_p is None else found * scale_p[here, None]
    return out


def resolution(alphas: F64, dtype: np.dtype[Any]) -> tuple[float, float]:
    """(singular value below which none matters at any penalty, relative error of the others) for :func:`graded_svd`."""
    allowed = 0.01 * ACCURACY[dtype.itemsize]
    return float(np.sqrt(allowed * alphas[0])), allowed


def decompose(gram: F64, problem: Problem, constant: F64 | None, given: float | None = None) -> tuple[F64, F64] | None:
    """Eigenvalues, increasing, and vectors of a Gram, which is overwritten; None where its rounding would show in weights.

    Parameters
    ----------
    gram : (·, ·) float64
    problem : Problem
        For its penalties and dtype.
    constant : (·,) float64 or None
        What a kernel of centered features maps to zero: the roots of the sample weights. Left out.
    given : float, optional
        For a kernel of features that are not known: the rounding of its values before they were centered. Where rounding would
        show, a ``FastencodeWarning`` says so then, and the decomposition is returned instead of None. Eigenvalues that are
        rounding are left out.

    Raises
    ------
    InputError
        If the Gram is too large for results of the dtype.
    """
    alphas, dtype = problem.alphas, problem.X.dtype
    # Predictions times (1 + α / λ) must fit the dtype, for responses of any sensible size.
    if not np.trace(gram) < 1e-8 * np.finfo(dtype).max:
        raise InputError(f"X holds values too large to square and add up in {dtype}; rescale its columns")
    lam, vectors = eigh(gram) if constant is None else eigh_beside(gram, constant)
    rounding = max(rounding_of(lam), given or 0.0)
    if hidden_by_rounding(lam, alphas, dtype, rounding):
        if given is None:
            return None
        warn(
            f"kernels have eigenvalues up to {lam[-1]:.3g}, whose rounding ({rounding:.2g}) hides directions that "
            f"alpha={alphas[0]:.4g} would keep: results at small penalties may be off. Pass larger alphas, or features instead",
        )
    if given is not None:
        keep = int(np.searchsorted(lam, rounding, side="right"))
        return lam[keep:], vectors[:, keep:]
    return lam, vectors


def decompose_features(
    problem: Problem, mean: F64, root: F64, used: NDArray[np.intp] | None = None, scale: F64 | float = 1.0
) -> Graded:
    """The singular value decomposition of X̌, or of some columns of it times ``scale``.

    The eigenvalues of the Gram are ``size ** 2``. With an intercept ``U`` is orthogonal to the roots of the sample weights.

    Parameters
    ----------
    problem : Problem
    mean, root : (p,) and (t,) float64
        X̌ = diag(root) (X − 1 meanᵀ).
    used : index array, optional
        The columns to decompose, if not all.
    scale : (·,) float64
        Factors of these columns.

    Raises
    ------
    InputError
        If ``problem.memory`` does not hold the decomposition.

    Warns
    -----
    FastencodeWarning
        As in :func:`make_basis`.
    """
    X = problem.X
    columns = np.arange(X.shape[1]) if used is None else used
    (n, p), least = (len(X), len(columns)), ACCURACY[X.dtype.itemsize] * float(problem.alphas[0])
    needed = 8 * (2 * n * p + min(n, p) * (3 * n + 2 * p + 6 * min(n, p)))
    if problem.memory is not None and needed > problem.memory:
        raise InputError(
            f"memory={problem.memory} bytes is too small: columns of X differ so much in scale that X itself must be decomposed, "
            f"which takes {needed} bytes; scale the columns to equal variance, or allow more"
        )
    features = np.empty((n, p))
    for start in range(0, n, _BLOCK):
        here = slice(start, start + _BLOCK)
        rows = centered_rows(X, mean, root, here)
        np.multiply(rows if used is None else rows[:, used], scale, out=features[here])
    smallest, tolerance = resolution(problem.alphas, X.dtype)
    if problem.fit_intercept:
        reflection = Reflection.of(root)
        found = graded_svd(reflection.rows(features), smallest, tolerance)
        found = replace(found, U=reflection.back(found.U))
    else:
        found = graded_svd(features, smallest, tolerance)
    unknown = columns[found.repeats[found.noise**2 > least]]
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        warn(
            f"{len(unknown)} columns of X ({shown}) are combinations of others but for their own rounding, and have units so "
            f"large that this rounding counts at alpha={problem.alphas[0]:.4g}: results at small penalties may be off. Scale the "
            "columns to equal variance, or leave these out",
        )
    return found


def centered_rows(X: Matrix, mean: F64, root: F64, here: slice | NDArray[np.intp]) -> F64:
    """The rows ``here`` of X̌ = diag(root) (X − 1 meanᵀ)."""
    return np.subtract(X[here], mean, dtype=np.float64) * root[here, None]


def gram_of(X: Matrix, mean: F64, root: F64) -> F64:
    """X̌ᵀ X̌."""
    gram = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), _BLOCK):
        block = centered_rows(X, mean, root, slice(start, start + _BLOCK))
        # gram = X̌.T @ X̌
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
        # kernel = X̌ @ X̌.T
        kernel += block @ block.T
    return kernel


def _add_kernel(kernel: F64, X: Copies, mean: F64, root: F64) -> None:
    """Add the kernel of centered delayed copies of one matrix X₀ to ``kernel``, without the roots of the sample weights.

    Let m be the mean of all rows that are copied, μ the mean of one copy, o the padding of the copy (1 where its rows are zeros)
    and q the mean of o; means are weighted. Then a centered copy is

        S X₀ − 1 μᵀ = S (X₀ − 1 mᵀ) + (q − o) mᵀ − 1 cᵀ        c = μ − (1 − q) m

    No term is larger than the sum. So the rows of a copy are sums of rows of E = [X₀ − 1 mᵀ; mᵀ; cᵀ of every copy], with the
    coefficients W, and its kernel is W (E Eᵀ) Wᵀ. E Eᵀ is made once for all copies.
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
        # inner = E @ E.T
        inner += block @ block.T

    def mixed(d: int, here: slice, of: F64) -> F64:
        """The rows ``here`` of W_d @ of, for copy d: the rows copied, plus (q − o) times the row of m, minus the row of c."""
        out = of[source_dt[d, here]]
        out[empty[d, here]] = 0
        out += apart[d, here, None] * of[rows]
        out -= of[rows + 1 + d]
        return out

    for start in range(0, n, _BLOCK // 8):
        here = slice(start, start + _BLOCK // 8)
        for d in range(copies):
            # kernel += W_d @ (E @ E.T) @ W_d.T
            kernel[here] += mixed(d, slice(None), mixed(d, here, inner).T).T
