"""Products with the features, which weights are made of in the dual: X̌ᵀ @ right, centered block by block of features.

Legend: t = time, p = features, w = columns of a right side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.delayed import Matrix
from fastencode.solve.products import Products
from fastencode.threads import together

__all__ = ["features_map", "features_times"]

F64 = NDArray[np.float64]
T = TypeVar("T")
# Features of a block: fewer where there would be too few blocks for all threads, but whatever the number of those; and values.
_WIDEST, _NARROWEST, _BLOCKS, _VALUES = 2048, 256, 16, 2**23


def features_times(
    X: Matrix,
    mean_p: F64,
    root_t: F64,
    rights: Sequence[Any],
    take: Callable[[int, slice, NDArray[Any]], T],
    products: Products,
    threads: int,
) -> list[list[T]]:
    """X̌ᵀ @ right for several right sides, in the dtype of X: rounded there like the weights made of it.

    Parameters
    ----------
    X : (t, p) array or Delayed
    mean_p, root_t : float64
        What makes X̌ of X: subtracted, then multiplied by.
    rights : sequence of (t, w) arrays
        In the dtype of X, where ``products.put`` puts things.
    take : callable
        ``take(i, features, product)`` is called with every block of features of the product with ``rights[i]``, on threads.
    products : Products
    threads : int

    Returns
    -------
    list of lists
        What ``take`` returned, for every block and right side, both in order.
    """
    dtype, p = X.dtype, X.shape[1]
    size = max(_NARROWEST, min(_WIDEST, -(-p // _BLOCKS), _VALUES // len(X)))

    def one(some: slice) -> list[T]:
        block = np.subtract(X[:, some], mean_p[some], dtype=np.float64)
        block *= root_t[:, None]
        block_tp = products.put(block.astype(dtype))
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
