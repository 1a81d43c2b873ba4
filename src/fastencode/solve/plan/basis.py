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
from fastencode.delayed import Matrix
from fastencode.devices import HOST, Array, Device, take_rows
from fastencode.errors import InputError, warn
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.centered import (
    BLOCK,
    centered_columns,
    centered_rows,
    column_means,
    dual_map,
    gram_of,
    kernel_of,
    largest_square,
    times_vectors,
)
from fastencode.solve.plan.directions import (
    SHARPENED,
    Reflection,
    along_features,
    along_rows,
    eigh,
    eigh_beside,
    has_small,
    remove_along,
)
from fastencode.solve.plan.graded import Graded, graded_svd

__all__ = [
    "ACCURACY",
    "Basis",
    "cancels",
    "decompose",
    "decompose_features",
    "directions_of_kernel",
    "directions_of_rows",
    "hidden_by_rounding",
    "in_both_places",
    "make_basis",
    "resolution",
    "rounding_of",
    "sharpened_where",
    "tau_of",
]

# Largest relative change of weights that the rounding of a Gram may make, by item size of the dtype.
ACCURACY = {4: 1e-6, 8: 1e-8}
# Largest part of the responses that a float32 weight, times its column's scale, may lose where it is made of dual weights.
_CANCELLED = 1e-5
# Numbers of a block of X̌ that is used once: larger ones would be new memory each time, whose pages cost more than the product.
_VALUES = 2**20
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
    device : Device
        Where planning computes.
    there_tr : (t, r) float64
        U_τ on that device; None on the host.
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
    device: Device = HOST
    there_tr: Array | None = None

    def rows(self, rows: NDArray[np.intp]) -> Array:
        """Rows of U_τ where planning computes: a view where they are consecutive."""
        return take_rows(self.rows_tr if self.there_tr is None else self.there_tr, rows, self.device)

    def on_host(self) -> Basis:
        """The same, planned with on the host."""
        return replace(self, device=HOST, there_tr=None)

    @property
    def complete(self) -> bool:
        """Whether U spans every vector over the rows (with an intercept, every vector that sums to zero): usual where p > n."""
        return len(self.lam) == len(self.rows_tr) - self.center

    @property
    def lost(self) -> float:
        """The part of weights that rounding of X̌ᵀX̌ changes; κ times that where training rows keep 1/κ of a direction (section 3).

        A complete basis has none: a training kernel is a part of the whole kernel, with the same rounding and no smaller λ.
        """
        if self.complete or self.source != "gram" or not len(self.lam):
            return 0.0
        return rounding_of(self.lam) / (max(self.lam[0], SHARPENED * self.top) + self.tau)

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


def make_basis(problem: Problem, dual: bool, device: Device = HOST) -> Basis:
    """Decompose the Gram X̌ X̌ᵀ (``dual``) or X̌ᵀ X̌, or X̌ itself where rounding of the Gram would show in weights.

    The device multiplies and decomposes Grams. X itself and small directions are decomposed on the host.

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
        gram = kernel_of(X, mean, root, device) if dual else gram_of(X, mean, root, center, device)
    found = decompose(gram, problem, root if dual and center else None, device=device)
    del gram
    here = HOST
    rows: Any
    vectors: Any
    if found is None:
        graded = decompose_features(problem, mean, root)
        lam, rows, V, source = graded.size**2, graded.U, graded.V.astype(X.dtype), "features"
        tau = tau_of(problem, lam)
        rows *= graded.size / np.sqrt(lam + tau)
    else:
        (lam, vectors), source = found, "gram"
        here, vectors = sharpened_where(lam, vectors, device)
        if dual:
            lam, vectors = directions_of_kernel(problem, mean, root, lam, vectors)
            tau = tau_of(problem, lam)
            square = largest_square(X, mean, root, device=here) if X.dtype == np.float32 else 0.0
            V = np.empty((0, len(lam)), dtype=X.dtype)
            if len(lam) and cancels(square, lam[0] + problem.alphas[0], problem):  # in float64
                V = dual_map(X, mean, root, vectors / here.put(np.sqrt(lam)), device=here)
            rows = vectors * here.put(np.sqrt(lam) / np.sqrt(lam + tau))
        else:
            # rows = X̌ @ V
            rows = times_vectors(X, mean, root, vectors, here)
            lam, vectors, rows = directions_of_rows(problem, root, lam, vectors, rows, here)
            V, tau = here.get(here.cast(vectors, X.dtype)), tau_of(problem, lam)
            rows /= here.put(np.sqrt(lam + tau))
    rows, there = in_both_places(rows, here, device)
    return Basis(lam, tau, rows, V, mean, root, center, problem.weights is not None, source, X, None, device, there)


def sharpened_where(lam: F64, vectors: Array, device: Device) -> tuple[Device, Array]:
    """(where small directions are decomposed once more, vectors there): the host, or the device if there are none."""
    return (HOST, device.get(vectors)) if has_small(lam) else (device, vectors)


def in_both_places(rows: Array, here: Device, device: Device) -> tuple[F64, Array | None]:
    """(an array of ``here`` in the host's memory, the same on ``device`` or None for the host)."""
    host = here.get(rows)
    return host, None if device is HOST else rows if here is device else device.put(host)


def directions_of_rows(
    problem: Problem, root: F64, lam: F64, vectors: Array, rows: Array, device: Device = HOST
) -> tuple[F64, Array, Array]:
    """(λ, V, X̌ V) of a Gram of features, from ``rows`` = X̌ V, which may be overwritten; see :func:`directions.along_rows`."""
    if problem.fit_intercept:
        remove_along(root, rows, device)  # what the rounding of the means left
    if not has_small(lam):
        return lam, vectors, rows
    most = min(len(rows) - problem.fit_intercept, len(vectors))
    return along_rows(lam, HOST.get(vectors), HOST.get(rows), most)


def directions_of_kernel(
    problem: Problem, mean: F64, root: F64, lam: F64, vectors: Array, scale_p: F64 | None = None
) -> tuple[F64, Array]:
    """(λ, U) of the kernel of features, or of features times a scale; see :func:`directions.along_features`."""
    X = problem.X

    def blocks() -> Iterator[F64]:
        step = max(1, min(BLOCK, _VALUES // len(X)))
        for start in range(0, X.shape[1], step):
            here = slice(start, min(start + step, X.shape[1]))
            block: Any = centered_columns(X, mean, root, here)
            if scale_p is not None:
                block *= scale_p[here]
            yield block

    if not has_small(lam):
        return lam, vectors
    return along_features(lam, HOST.get(vectors), blocks, min(len(X) - problem.fit_intercept, X.shape[1]))


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


def resolution(alphas: F64, dtype: np.dtype[Any]) -> tuple[float, float]:
    """(singular value below which none matters at any penalty, relative error of the others) for :func:`graded_svd`."""
    allowed = 0.01 * ACCURACY[dtype.itemsize]
    return float(np.sqrt(allowed * alphas[0])), allowed


def decompose(
    gram: Array, problem: Problem, constant: F64 | None, given: float | None = None, device: Device = HOST
) -> tuple[F64, Array] | None:
    """Eigenvalues, increasing, and vectors of a Gram, which is overwritten; None where its rounding would show in weights.

    Parameters
    ----------
    gram : (·, ·) float64 array of the device
    problem : Problem
        For its penalties and dtype.
    constant : (·,) float64 or None
        What a kernel of centered features maps to zero: the roots of the sample weights. Left out.
    given : float, optional
        For a kernel of features that are not known: the rounding of its values before they were centered. Where rounding would
        show, a ``FastencodeWarning`` says so then, and the decomposition is returned instead of None. Eigenvalues that are
        rounding are left out.
    device : Device
        Where the vectors are returned. Eigenvalues are in the host's memory.

    Raises
    ------
    InputError
        If the Gram is too large for results of the dtype.
    """
    alphas, dtype = problem.alphas, problem.X.dtype
    # Predictions times (1 + α / λ) must fit the dtype, for responses of any sensible size.
    diagonal = device.xp.reshape(gram, (-1,))[:: gram.shape[0] + 1]
    if not float(device.xp.sum(diagonal)) < 1e-8 * np.finfo(dtype).max:
        raise InputError(f"X holds values too large to square and add up in {dtype}; rescale its columns")
    lam, vectors = eigh(gram, device) if constant is None else eigh_beside(gram, constant, device)
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
    for start in range(0, n, BLOCK):
        here = slice(start, start + BLOCK)
        rows: Any = centered_rows(X, mean, root, here)
        np.multiply(rows if used is None else rows[:, used], scale, out=features[here])
    smallest, tolerance = resolution(problem.alphas, X.dtype)
    if problem.fit_intercept:
        reflection = Reflection(root)
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
