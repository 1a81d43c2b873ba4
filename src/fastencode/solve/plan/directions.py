"""Small directions of a design: orthogonal to the constant, to all others and to each other (docs/solver.md, 8).

A Gram A = X̌ᵀX̌ or X̌X̌ᵀ knows its eigenvalues to about eps λ_top. Below that, its eigenvectors are any basis of what is left: a
direction of length √λ is spread over several of them, and X̌ v / √λ is not orthogonal to the large directions. A weight is
√λ / α, not λ / α, so such directions count long before λ reaches α. The features know lengths to about eps √λ_top. So the small
part is decomposed once more from products with the features, by an SVD. With an intercept the constant takes no part: a
reflection turns it into an axis, which is left out.

Legend: t = time, p = features, r = directions, k = small directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, Array, ArrayT, Device

__all__ = ["SHARPENED", "Reflection", "along_features", "along_rows", "eigh", "eigh_beside", "has_small", "remove_along"]

# Eigenvalues below this part of the largest, and their vectors, are taken from products with the features.
SHARPENED = 1e-6
# A direction is rounding if its length is at most this many eps of the longest.
_ROUNDINGS = 16.0
_EPS = float(np.finfo(np.float64).eps)
# Rows that are stacked for one QR decomposition, for each of its columns.
_STACKED = 8
# Rows of a block in which a matrix of the host is changed.
_ROWS = 128
# Beyond this size of a matrix, the length of divide-and-conquer's working memory overflows LAPACK's 32-bit integers: it crashes.
_DIVIDED = 32_766


def eigh(gram: Array, device: Device = HOST) -> tuple[F64, Array]:
    """Eigenvalues, increasing, and vectors of a symmetric matrix of a device; the values in the host's memory."""
    if gram.shape[0] > _DIVIDED:
        lam, vectors = scipy.linalg.eigh(device.get(gram), driver="evr", check_finite=False)
        return lam, device.put(vectors)
    lam, vectors = device.xp.linalg.eigh(gram)
    return device.get(lam), vectors


class Reflection:
    """H = I − β v vᵀ, orthogonal and symmetric, which turns a vector o of positive numbers into the axis of its largest one.

    Row 0 takes the place of the row of that axis, which is left out. Rows of weighted data are orthogonal to o, so any row
    follows from the others: from the heavy ones a light row would follow with their rounding. Matrices are float64 arrays of one
    device.
    """

    def __init__(self, constant: F64, device: Device = HOST) -> None:
        v_t = constant / np.linalg.norm(constant)
        self.axis = int(v_t.argmax())
        v_t[self.axis] += 1.0
        self.device, self.v_t, self.beta = device, device.put(v_t), 2.0 / float(v_t @ v_t)

    def _subtract(self, out: ArrayT, left: Array, right: Array) -> None:
        """out −= left rightᵀ, in place. On the host in blocks of rows: new memory of that size would take most of the time."""
        step = _ROWS if self.device is HOST else max(1, out.shape[0])
        for start in range(0, out.shape[0], step):
            here = slice(start, start + step)
            out[here, ...] -= left[here, None] * right[None, :]

    def rows(self, A_tp: ArrayT) -> ArrayT:
        """(t − 1, p): H A without the row of the axis, in place."""
        self._subtract(A_tp, self.v_t, self.beta * (self.v_t @ A_tp))
        if self.axis:
            A_tp[self.axis, ...] = A_tp[0, ...]
        return A_tp[1:, :]

    def kernel(self, K_tt: ArrayT) -> ArrayT:
        """(t − 1, t − 1): H K H without the row and the column of the axis, in place."""
        along = self.beta * (K_tt @ self.v_t)
        along -= (0.5 * self.beta * (along @ self.v_t)) * self.v_t
        self._subtract(K_tt, self.v_t, along)
        self._subtract(K_tt, along, self.v_t)
        if self.axis:
            K_tt[self.axis, ...] = K_tt[0, ...]
            K_tt[:, self.axis] = K_tt[:, 0]
        return K_tt[1:, 1:]

    def back(self, U: ArrayT, into: ArrayT | None = None) -> ArrayT:
        """(t, r): H U with zeros in the row of the axis, from vectors of t − 1 numbers to vectors that are orthogonal to o.

        Made in the memory of ``into``, (t, r), if given.
        """
        out: Any = self.device.zeros(1 + U.shape[0], U.shape[1], dtype=np.float64) if into is None else into
        out[0, ...] = 0.0
        out[1:, ...] = U
        if self.axis:
            out[0, ...] = out[self.axis, ...]
            out[self.axis, ...] = 0.0
        self._subtract(out, self.v_t, self.beta * (self.v_t @ out))
        return out


def eigh_beside(kernel: Array, constant: F64, device: Device = HOST) -> tuple[F64, Array]:
    """Eigenvalues, increasing, and vectors (t, t − 1) orthogonal to o of a kernel that maps o to zero, which is overwritten."""
    reflection = Reflection(constant, device)
    lam, vectors = eigh(reflection.kernel(kernel), device)
    return lam, reflection.back(vectors, kernel[:, 1:])


def remove_along(constant: F64, rows_tr: Array, device: Device = HOST) -> None:
    """Make the columns orthogonal to o, in place."""
    o_t = device.put(constant)
    rows_tr -= o_t[:, None] * ((o_t @ rows_tr) / float(constant @ constant))[None, :]


def has_small(lam: F64) -> bool:
    """Whether some directions are so small that :func:`along_rows` and :func:`along_features` decompose them once more."""
    return bool(_small(lam)[0].any())


def along_rows(lam: F64, vectors: F64, rows_tr: F64, most: int) -> tuple[F64, F64, F64]:
    """The directions of a Gram of features, the small ones decomposed once more.

    Parameters
    ----------
    lam : (r,) float64, increasing
    vectors : (p, r)
    rows_tr : (t, r) float64
        X̌ @ vectors.
    most : int
        The most directions that X̌ has.

    Returns
    -------
    lam, vectors, rows
        Of the directions that are no rounding, at most ``most``. The rows are orthogonal to each other.
    """
    small, floor = _small(lam)
    if not small.any():
        return _last(lam, vectors, rows_tr, most)
    kept = small & (np.linalg.norm(rows_tr, axis=0) > floor)
    large = ~small
    some_tk, V_pk = rows_tr[:, kept], vectors[:, kept]
    if kept.any():
        unit, from_large = rows_tr[:, large] / np.sqrt(lam[large]), vectors[:, large] / np.sqrt(lam[large])
        for _ in range(2):  # in the second turn, what rounding left
            shares = unit.T @ some_tk
            some_tk, V_pk = some_tk - unit @ shares, V_pk - from_large @ shares
    # some = U @ diag(size) @ turn.T, so X̌ @ (V @ turn) = U @ diag(size)
    U, size, turn = np.linalg.svd(some_tk, full_matrices=False)
    longer = np.flatnonzero(size > floor)[::-1]
    lam = np.concatenate([size[longer] ** 2, lam[large]])
    vectors = np.concatenate([V_pk @ turn[longer].T, vectors[:, large]], axis=1)
    return _last(lam, vectors, np.concatenate([U[:, longer] * size[longer], rows_tr[:, large]], axis=1), most)


def along_features(lam: F64, vectors: F64, blocks: Callable[[], Iterable[F64]], most: int) -> tuple[F64, F64]:
    """The directions of a kernel, the small ones decomposed once more.

    Parameters
    ----------
    lam : (r,) float64, increasing
    vectors : (t, r) float64
        Overwritten.
    blocks : callable
        Returns the columns of X̌, (t, ·) at a time.
    most : int
        The most directions that X̌ has.

    Returns
    -------
    lam, vectors
        Of the directions that are no rounding, at most ``most``.
    """
    small, floor = _small(lam)
    if not small.any():
        return _last(lam, vectors, None, most)[:2]
    split = int(small.sum())  # the small ones come first
    some = vectors[:, :split]
    triangle = _triangle(block_tp.T @ some for block_tp in blocks())  # of X̌ᵀ @ some
    kept = np.linalg.norm(triangle, axis=0) > floor
    # X̌ᵀ @ some[:, kept] = (orthonormal) @ diag(size) @ turn.T
    _, size, turn = np.linalg.svd(triangle[:, kept], full_matrices=False)
    longer = np.flatnonzero(size > floor)[::-1]
    first = split - len(longer)
    vectors[:, first:split] = some[:, kept] @ turn[longer].T
    return _last(np.concatenate([size[longer] ** 2, lam[split:]]), vectors[:, first:], None, most)[:2]


def _triangle(parts: Iterable[F64]) -> F64:
    """R of the QR decomposition of parts (·, k) one below the other, of which few are held at a time."""
    waiting: list[F64] = []
    for part_pk in parts:
        waiting.append(part_pk)
        if sum(map(len, waiting)) > _STACKED * part_pk.shape[1]:
            waiting = [_r(np.concatenate(waiting))]
    return _r(np.concatenate(waiting))


def _r(A_pk: F64) -> F64:
    found: F64 = scipy.linalg.qr(A_pk, mode="r", check_finite=False)[0][: A_pk.shape[1]]
    return found


def _small(lam: F64) -> tuple[NDArray[np.bool_], float]:
    """(Which directions are small, the length up to which one is rounding)."""
    top = max(0.0, float(lam[-1])) if len(lam) else 0.0
    return (lam < SHARPENED * top) | (lam <= 0), _ROUNDINGS * _EPS * float(np.sqrt(top))


def _last(lam: F64, vectors: F64, rows: F64 | None, most: int) -> tuple[F64, F64, F64]:
    """The ``most`` largest directions, increasing."""
    order = np.argsort(lam, kind="stable")
    order = order[len(order) - min(most, len(order)) :]
    if len(order) < len(lam) or (order[1:] < order[:-1]).any():
        lam, vectors, rows = lam[order], vectors[:, order], None if rows is None else rows[:, order]
    return lam, vectors, np.zeros((0, len(lam))) if rows is None else rows
