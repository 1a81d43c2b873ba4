"""Singular values and vectors of a matrix whose columns differ widely in scale (docs/solver.md, 8, "Columns in different units").

Write A = Z diag(s), with columns of Z of one size. Each column is decomposed as accurately as if all had one scale. The
eigenvalues of AᵀA are off by rounding of the *largest* scale, and so are the singular values of A from a standard routine: a
column in units 10⁸ times smaller is noise then. Householder QR with column pivoting is off by rounding of each column's own
scale; with the largest rows on top, by rounding of each row's own too. Its triangle is graded: rows and columns fall from large
to small. Each step of QR from the other side multiplies the coupling between scales by (small / large)². After a few steps the
triangle falls apart into blocks of similar scale. Where it does not, implicit zero-shift QR, which works from the corner of the
triangle, keeps the digits of every scale.

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
# Number of pairs of QR steps. Each pair multiplies the coupling between scales a factor g apart by g⁻⁴.
_PAIRS = 2
# The remainder of a column, orthogonal to the columns before it, is noise if it is below this times eps times the column's norm,
# or its part in rows that are lighter than those taken before.
_NOISE = 16.0


@dataclass(frozen=True, eq=False)
class Graded:
    """A = U @ diag(size) @ V.T.

    Attributes
    ----------
    U : (n, r) float64
        With r = min(n, p) less the columns that repeat others.
    size : (r,) float64, increasing
    V : (p, r) float64
        ``V * size`` is off by rounding of each row's own scale, not of the largest scale.
    repeats : (m,) index array
        Columns that are combinations of others but for their own rounding.
    noise : (m,) float64
        Upper bound of the norm of that rounding: 16 eps times the column's norm, less in light rows.
    """

    U: F64
    size: F64
    V: F64
    repeats: NDArray[np.intp]
    noise: F64


def graded_svd(A: F64, smallest: float, tolerance: float) -> Graded:
    """The singular value decomposition of a finite matrix, which may be overwritten.

    Parameters
    ----------
    A : (n, p) float64
    smallest : float
        Singular values below this may be off by ``tolerance * smallest``.
    tolerance : float
        Largest relative error of singular values above ``smallest``. A block of the triangle takes the faster routine if that
        keeps it, else the more accurate one.
    """
    falling = np.argsort(-np.abs(A).max(axis=1, initial=0.0), kind="stable")  # else light rows drown in rounding of heavy ones
    A = np.take(A.T, falling, axis=1).T  # in Fortran's order, which LAPACK overwrites
    norms, below = _column_norms(A)
    Q, R, order = scipy.linalg.qr(A, mode="economic", pivoting=True, overwrite_a=True, check_finite=False)
    remainder, below = np.abs(np.diag(R)), below[: len(R)]
    noise = below * norms[order[: len(remainder)]]
    repeated, kept = np.flatnonzero((remainder <= noise) & (noise > 0)), remainder > noise
    Q, R = Q[:, kept], R[kept]  # what is left of a repeated column is its rounding
    _drop_rounding(R, norms[order], below[kept])
    # A P = Q T Gᵀ with T lower triangular: QR of Rᵀ, then of T and of what that leaves, in turns.
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
    rising = np.argsort(size, kind="stable")
    U = np.empty_like(Q)
    U[falling] = Q[:, rising]
    return Graded(U, size[rising], V[:, rising], order[repeated], noise[repeated])


def _column_norms(A: F64) -> tuple[F64, F64]:
    """(norms of the columns (p,), bounds (n,) of the rounding in row i and all rows below, relative to a column's norm).

    QR with the longest column first adds to a row of one column at most that row's share of another: its largest entry, each
    divided by its column's norm. So rounding in light rows is less than that of the whole column.
    """
    norms = np.sqrt(np.einsum("np,np->p", A, A))
    largest = np.zeros(len(A))
    for column, norm in zip(A.T, norms, strict=True):
        if norm:
            np.maximum(largest, np.abs(column) / norm, out=largest)
    return norms, _NOISE * _EPS * np.minimum(1.0, np.sqrt(np.cumsum(largest[::-1] ** 2)[::-1]))


def _drop_rounding(R: F64, norms: F64, below: F64) -> None:
    """Make entries of a triangle zero, in place, where a column's part in that row and all rows below is rounding.

    Columns that repeat others would have a share in the small directions by their rounding, and their weights with it.
    """
    squares = np.zeros(R.shape[1])
    for row, part in zip(R[::-1], below[::-1], strict=True):
        squares += row**2
        row[squares <= (part * norms) ** 2] = 0.0


def _blocks(T: F64) -> list[slice]:
    """Diagonal blocks of a graded lower triangle, cut where the entries that couple two blocks are rounding.

    Rows ≥ i and columns < i are cut apart if |T[i:, :i]| ≤ eps · (smallest diagonal entry above row i).
    """
    r = len(T)
    if not r:
        return []
    below = np.abs(np.tril(T, -1))
    rows = np.maximum.accumulate(below[::-1], axis=0)[::-1]  # rows[i, j] = max |T[i:, j]|
    columns = np.maximum.accumulate(rows, axis=1)  # columns[i, j] = max |T[i:, :j + 1]|
    least = np.minimum.accumulate(np.abs(np.diag(T)))
    cut = [i for i in range(1, r) if columns[i, i - 1] <= _EPS * least[i - 1]]
    edges = [0, *cut, r]
    return [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def _svd(block: F64, smallest: float, tolerance: float) -> tuple[F64, F64, F64]:
    """SVD of a block: divide and conquer where rounding of the largest value is within the tolerance, else QR iteration.

    QR iteration keeps the digits of small values, and takes ten times as long.
    """
    sizes = np.abs(np.diag(block))
    fine = _EPS * np.linalg.norm(block) <= tolerance * max(float(sizes.min()), smallest)
    driver = "gesdd" if fine else "gesvd"
    u, size, vt = scipy.linalg.svd(block, lapack_driver=driver, check_finite=False)
    return u, size, vt
