"""Singular values and vectors of a matrix whose columns differ widely in scale, each as accurate as if all had one scale.

Write A = Z diag(s) with columns of Z of one size. The eigenvalues of AᵀA, and those singular values of A that a standard routine
finds, are off by rounding of the *largest* scale: a column in units 10⁸ times smaller is then noise. Householder QR with column
pivoting is off by rounding of each column's own scale. What it leaves is a triangle that is graded: rows and columns fall from
large to small. A few steps of QR from the other side each push what couples large to small down by (small / large)². Then the
triangle falls apart into blocks of similar scale, or a routine that works from its corner (implicit zero-shift QR) keeps every
scale's digits.

Sources: Cox & Higham (1998), Stability of Householder QR factorization for weighted least squares; Demmel & Kahan (1990),
Accurate singular values of bidiagonal matrices; Drmač & Veselić (2008), New fast and accurate Jacobi SVD algorithm (repeated QR).

Legend: n = rows, p = columns, r = min(n, p).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.arrays import F64

__all__ = ["Graded", "graded_svd"]

_EPS = float(np.finfo(np.float64).eps)
# Pairs of QR steps. Each lowers the coupling between scales a factor g apart by g⁻⁴.
_PAIRS = 2
# A column's remainder below this many roundings of the column itself is rounding noise.
_NOISE = 16.0


@dataclass(frozen=True, eq=False)
class Graded:
    """A = U @ diag(size) @ V.T.

    Attributes
    ----------
    U : (n, r) float64
    size : (r,) float64, decreasing
    V : (p, r) float64
        ``V * size`` is off by rounding of each row's own scale, not of the largest scale.
    repeats : (m,) index array
        Columns that are combinations of others but for their own rounding, ordered by how large that rounding is, largest first.
    noise : (m,) float64
        How large that rounding is: about what is left of the column's norm.
    """

    U: F64
    size: F64
    V: F64
    repeats: NDArray[np.intp]
    noise: F64


def graded_svd(A: F64, smallest: float, tolerance: float) -> Graded:
    """The decomposition of a finite matrix, which may be overwritten.

    Parameters
    ----------
    A : (n, p) float64
    smallest : float
        Singular values below this need not be told from it.
    tolerance : float
        Relative error of singular values above ``smallest`` that decides between the faster and the more accurate routine for a
        block of similar scales.
    """
    norms = np.sqrt(np.einsum("np,np->p", A, A))
    Q, R, order = scipy.linalg.qr(A, mode="economic", pivoting=True, overwrite_a=True, check_finite=False)
    remainder = np.abs(np.diag(R))
    noise = _NOISE * _EPS * norms[order[: len(remainder)]]
    repeated = np.flatnonzero((remainder <= noise) & (noise > 0))
    # A P = Q T G, T lower triangular: the triangle seen from the other side, and back again.
    G, upper = scipy.linalg.qr(R.T, mode="economic", check_finite=False)
    del R
    T = upper.T
    for _ in range(_PAIRS):
        turn, upper = scipy.linalg.qr(T, check_finite=False)
        Q = Q @ turn
        turn, upper = scipy.linalg.qr(upper.T, check_finite=False)
        G, T = G @ turn, upper.T
    size, V = np.empty(len(T)), np.empty((A.shape[1], len(T)))
    for here in _blocks(T):
        u, size[here], vt = _svd(T[here, here], smallest, tolerance)
        Q[:, here] = Q[:, here] @ u
        V[order, here] = G[:, here] @ vt.T
    falling = np.argsort(-size, kind="stable")
    return Graded(Q[:, falling], size[falling], V[:, falling], order[repeated], noise[repeated])


def _blocks(T: F64) -> list[slice]:
    """Diagonal blocks of a graded lower triangle: cut where what lies below them is rounding of the smallest number above."""
    r = len(T)
    if not r:
        return []
    below = np.abs(np.tril(T, -1))
    # largest[i] = max |T[i:, :i]|, from the bottom up: what is right of column i no longer counts.
    rows = np.maximum.accumulate(below[::-1], axis=0)[::-1]  # rows[i, j] = max over rows ≥ i of column j
    columns = np.maximum.accumulate(rows, axis=1)  # and over columns ≤ j
    least = np.minimum.accumulate(np.abs(np.diag(T)))
    cut = [i for i in range(1, r) if columns[i, i - 1] <= _EPS * least[i - 1]]
    edges = [0, *cut, r]
    return [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def _svd(block: F64, smallest: float, tolerance: float) -> tuple[F64, F64, F64]:
    """Divide and conquer is off by roundings of the block's largest value; QR iteration is not, and takes ten times as long."""
    sizes = np.abs(np.diag(block))
    fine = _EPS * np.linalg.norm(block) <= tolerance * max(float(sizes.min()), smallest)
    driver = "gesdd" if fine else "gesvd"
    u, size, vt = scipy.linalg.svd(block, lapack_driver=driver, check_finite=False)
    return u, size, vt
