"""Products with the features, which weights are made of in the dual: X̌ᵀ @ right, centered block by block of features.

Legend: t = time, p = features, w = columns of a right side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64, dtype_of
from fastencode.delayed import Matrix
from fastencode.devices import Array
from fastencode.solve.plan.plan import Plan
from fastencode.solve.plan.products import Products, products_for
from fastencode.threads import available_threads, together

__all__ = [
    "PIECE",
    "block_bytes",
    "features_map",
    "features_times",
    "kernel_between",
    "map_of",
    "products_with_means",
    "right_of",
    "threads_within",
]

T = TypeVar("T")
# Features of a block: fewer where there would be too few blocks for all threads, but whatever the number of those; and values.
_WIDEST, _NARROWEST, _BLOCKS, _VALUES = 2048, 256, 16, 2**23
# Rows or features of a block that are in float64 at a time.
PIECE = 64


def _block(X: Matrix) -> int:
    """Features of a block."""
    return max(_NARROWEST, min(_WIDEST, -(-X.shape[1] // _BLOCKS), _VALUES // max(1, len(X))))


def block_bytes(X: Matrix, width: int, item: int | None = None) -> int:
    """Most that one thread of :func:`features_times` holds: a block of features, its product with a right side of ``width``
    columns, ``item`` bytes a number, and some rows of either in float64, twice."""
    size, item = min(_block(X), X.shape[1]), X.dtype.itemsize if item is None else item
    return item * size * (len(X) + width) + 8 * PIECE * 2 * max(size, width)


def threads_within(
    X: Matrix, width: int, memory: int | None, kept: int, threads: int, more: int = 0, item: int | None = None
) -> int:
    """Threads whose blocks ``memory`` has room for beside ``kept`` bytes, where each holds ``more`` bytes as well: at least one,
    since a block is no smaller for less."""
    return threads if memory is None else min(threads, max(1, (memory - kept) // (block_bytes(X, width, item) + more)))


def features_times(
    X: Matrix,
    mean_p: F64,
    root_t: F64,
    rights: Sequence[Array],
    take: Callable[[int, slice, NDArray[Any]], T],
    products: Products,
    threads: int,
) -> list[list[T]]:
    """X̌ᵀ @ right for several right sides, in the dtype of the first of them.

    Parameters
    ----------
    X : (t, p) array or Delayed
    mean_p, root_t : float64
        What makes X̌ of X: subtracted, then multiplied by.
    rights : sequence of (t, w) arrays
        Of one dtype, where ``products.put`` puts things.
    take : callable
        ``take(i, features, product)`` is called with every block of features of the product with ``rights[i]``, on threads.
    products : Products
    threads : int

    Returns
    -------
    list of lists
        What ``take`` returned, for every block and right side, both in order.
    """
    dtype, p, size = dtype_of(rights[0], "rights"), X.shape[1], _block(X)

    def one(some: slice) -> list[T]:
        block = np.empty((len(X), some.stop - some.start), dtype=dtype)
        for first in range(0, len(X), PIECE):
            rows = slice(first, first + PIECE)
            block[rows] = np.subtract(X[rows, some], mean_p[some], dtype=np.float64) * root_t[rows, None]
        block_tp = products.put(block)
        del block
        out = []
        for i, right in enumerate(rights):
            product = np.empty((some.stop - some.start, right.shape[1]), dtype=dtype)
            out.append(take(i, some, products.multiply(block_tp.T, right, product)))
        return out

    return together([partial(one, slice(first, min(first + size, p))) for first in range(0, p, size)], threads)


def features_map(X: Matrix, mean_p: F64, root_t: F64, right_tr: NDArray[Any], products: Products, threads: int) -> NDArray[Any]:
    """(p, r): X̌ᵀ @ right, whole."""
    out = np.empty((X.shape[1], right_tr.shape[1]), dtype=X.dtype)

    def take(_: int, some: slice, block_pr: NDArray[Any]) -> None:
        out[some] = block_pr

    features_times(X, mean_p, root_t, [right_tr], take, products, threads)
    return out


def right_of(plan: Plan) -> NDArray[Any]:
    """(t, r): U diag(1 / √λ), of which V = X̌ᵀ U diag(1 / √λ) is made, where U_τ = U diag(√(λ / (λ + τ)))."""
    out = np.empty_like(plan.analyze)
    np.multiply(plan.analyze, np.sqrt(plan.lam + plan.tau) / plan.lam, out=out, casting="same_kind")
    return out


def map_of(plan: Plan) -> NDArray[Any]:
    """(p, r): V, from coordinates to weights. Made of the features when it is first asked for, where planning did not, and kept
    with the plan."""
    if plan.V_pr is not None:
        return plan.V_pr
    memory = vars(plan)  # a frozen object's own memory, no part of what it is
    if "_V_pr" not in memory:
        X, right_tr, products = plan.problem.X, right_of(plan), products_for(plan.dtype)
        threads = threads_within(X, len(plan.lam), plan.problem.memory, plan.nbytes + right_tr.nbytes, available_threads())
        memory["_V_pr"] = features_map(X, plan.feature_means, plan.root, right_tr, products, threads)
    found: NDArray[Any] = memory["_V_pr"]
    return found


def products_with_means(plan: Plan) -> F64:
    """(t,): (X − 1 μᵀ) μ, of which the constant of dual weights is made: μᵀ (X − 1 μᵀ)ᵀ ω."""
    return kernel_between(plan.feature_means[None], plan.problem.X, plan.feature_means, centered=False)[0]


def kernel_between(new: Matrix, X: Matrix, mean_p: F64, centered: bool = True) -> F64:
    """(s, t) float64: new features times those of the fit, (new − 1 μᵀ) (X − 1 μᵀ)ᵀ, block by block of features.

    Parameters
    ----------
    new : (s, p) array or Delayed
    X : (t, p) array or Delayed
    mean_p : (p,) float64
        μ.
    centered : bool
        Whether μ is subtracted from ``new`` too.
    """
    out, size = np.zeros((len(new), len(X))), _block(X)
    for first in range(0, X.shape[1], size):
        some = slice(first, min(first + size, X.shape[1]))
        one = np.subtract(new[:, some], mean_p[some] if centered else 0.0, dtype=np.float64)
        out += one @ np.subtract(X[:, some], mean_p[some], dtype=np.float64).T
    return out
