"""Blocks of the weighted, centered rows of a design, X̌ = diag(root) (X − 1 meanᵀ), and products with them (docs/solver.md, 2).

All is computed on the host or on a device, in float64 whatever the dtype of X, since a Gram squares the condition.
X̌ is never held whole.

Legend: t = time, p = features, r = directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.delayed import Copies, Delayed, Matrix, pick
from fastencode.devices import HOST, Array, Device

__all__ = [
    "BLOCK",
    "centered_columns",
    "centered_rows",
    "column_means",
    "dual_map",
    "gram_of",
    "kernel_of",
    "largest_square",
    "times_vectors",
]

# Rows or features of a block; numbers in a block of rows that are only added up.
BLOCK, _VALUES = 2048, 2**17


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


def centered_rows(X: Matrix, mean: F64, root: F64, here: slice | NDArray[np.intp], device: Device = HOST) -> Array:
    """The rows ``here`` of X̌ = diag(root) (X − 1 meanᵀ), on a device."""
    return _centered(X[here], mean, root[here], device)


def centered_columns(X: Matrix, mean: F64, root: F64, here: slice, device: Device = HOST) -> Array:
    """The columns ``here`` of X̌, on a device."""
    return _centered(X[:, here], mean[here], root, device)


def _centered(block: NDArray[Any], mean: F64, root: F64, device: Device) -> Array:
    if device is HOST:
        centered: Array = np.subtract(block, mean, dtype=np.float64)
        centered *= root[:, None]
        return centered
    return (device.cast(device.put(block), np.float64) - device.put(mean)) * device.put(root[:, None])


def gram_of(X: Matrix, mean: F64, root: F64, center: bool, device: Device = HOST) -> Array:
    """X̌ᵀ X̌, on a device. With ``center``, less what the rounding of the means adds to it."""
    gram, along = device.zeros(X.shape[1], X.shape[1], dtype=np.float64), device.zeros(X.shape[1], dtype=np.float64)
    for start in range(0, len(X), BLOCK):
        here = slice(start, start + BLOCK)
        block = centered_rows(X, mean, root, here, device)
        # gram = X̌.T @ X̌        along = o.T @ X̌, which is zero but for rounding
        gram += block.T @ block
        if center:
            along += device.put(root[here]) @ block
    if center:
        along /= float(np.linalg.norm(root))
        gram -= along[:, None] * along[None, :]
    return gram


def kernel_of(X: Matrix, mean: F64, root: F64, device: Device = HOST) -> Array:
    """X̌ X̌ᵀ, on a device."""
    if isinstance(X, Delayed):
        return device.put(_delayed_kernel(X, mean, root, device))
    kernel = device.zeros(len(X), len(X), dtype=np.float64)
    for start in range(0, X.shape[1], BLOCK):
        block = centered_columns(X, mean, root, slice(start, min(start + BLOCK, X.shape[1])), device)
        # kernel = X̌ @ X̌.T
        kernel += block @ block.T
    return kernel


def _delayed_kernel(X: Delayed, mean: F64, root: F64, device: Device) -> F64:
    """X̌ X̌ᵀ of delayed copies, in the host's memory."""
    kernel, start = np.zeros((len(X), len(X))), 0
    for part in X.parts:
        stop = start + len(part.source_dt) * part.width
        _add_kernel(kernel, part, mean[start:stop], root, device)
        start = stop
    kernel *= root[:, None]
    kernel *= root
    return kernel


def _add_kernel(kernel: F64, X: Copies, mean: F64, root: F64, device: Device) -> None:
    """Add the kernel of centered delayed copies of one matrix X₀ to ``kernel``, without the roots of the sample weights.

    Let m be the mean of all rows that are copied, μ the mean of one copy, o the padding of the copy (1 where its rows are zeros)
    and q the mean of o; means are weighted. Then a centered copy is

        S X₀ − 1 μᵀ = S (X₀ − 1 mᵀ) + (q − o) mᵀ − 1 cᵀ        c = μ − (1 − q) m

    No term is larger than the sum. So the rows of a copy are sums of rows of E = [X₀ − 1 mᵀ; mᵀ; cᵀ of every copy], with the
    coefficients W, and its kernel is W (E Eᵀ) Wᵀ. E Eᵀ is made once for all copies, on the device.
    """
    (copies, n), width, empty = X.source_dt.shape, X.width, X.source_dt < 0
    used = np.unique(X.source_dt[~empty])
    rows, source_dt = len(used), np.searchsorted(used, X.source_dt)
    share = empty @ (root**2 / (root @ root))
    means = mean.reshape(copies, width)
    center = means.sum(axis=0) / ((copies - share.sum()) or 1.0)
    apart, offset = share[:, None] - empty, means - center + share[:, None] * center
    products = device.zeros(rows + 1 + copies, rows + 1 + copies, dtype=np.float64)
    for start in range(0, width, BLOCK):
        here = slice(start, start + BLOCK)
        block = device.put(np.concatenate([X.base_sw[used, here] - center[here], center[None, here], offset[:, here]]))
        # inner = E @ E.T
        products += block @ block.T
    inner = device.get(products)

    def mixed(d: int, here: slice, of: F64) -> F64:
        """The rows ``here`` of W_d @ of, for copy d: the rows copied, plus (q − o) times the row of m, minus the row of c."""
        out = of[source_dt[d, here]]
        out[empty[d, here]] = 0
        out += apart[d, here, None] * of[rows]
        out -= of[rows + 1 + d]
        return out

    for start in range(0, n, BLOCK // 8):
        here = slice(start, start + BLOCK // 8)
        for d in range(copies):
            # kernel += W_d @ (E @ E.T) @ W_d.T
            kernel[here] += mixed(d, slice(None), mixed(d, here, inner).T).T


def times_vectors(X: Matrix, mean: F64, root: F64, vectors: Array, device: Device, used: NDArray[np.intp] | None = None) -> Array:
    """X̌ @ vectors on a device, or some columns of X̌ @ vectors."""
    out = device.empty(len(X), vectors.shape[1], dtype=np.float64)
    for start in range(0, len(X), BLOCK):
        here = slice(start, min(start + BLOCK, len(X)))
        block = centered_rows(X, mean, root, here, device)
        out[here, ...] = (block if used is None else device.take(block, device.put(used, np.int64), axis=1)) @ vectors
    return out


def largest_square(X: Matrix, mean: F64, root: F64, columns: NDArray[np.intp] | None = None, device: Device = HOST) -> float:
    """The largest mean square of a column of X̌, or of some of its columns; computed on a device."""
    some, largest, mass = np.arange(X.shape[1]) if columns is None else columns, 0.0, float(root @ root)
    for start in range(0, len(some), BLOCK):
        here = some[start : start + BLOCK]
        values = _centered(pick(X, columns=here)[:], mean[here], root, device)
        largest = max(largest, float(device.xp.max(device.dots(values, values))) / mass)
    return largest


def dual_map(X: Matrix, mean: F64, root: F64, right_tr: Array, scale_p: F64 | None = None, device: Device = HOST) -> NDArray[Any]:
    """(p, r): X̌ᵀ @ right, multiplied in float64 on a device and rounded once; its rows times a scale."""
    out = np.empty((X.shape[1], right_tr.shape[1]), dtype=X.dtype)
    for start in range(0, X.shape[1], BLOCK):
        here = slice(start, min(start + BLOCK, X.shape[1]))
        found = device.get(centered_columns(X, mean, root, here, device).T @ right_tr)
        out[here] = found if scale_p is None else found * scale_p[here, None]
    return out
