"""rows @ diag(g_j) @ coordinates at every node j, for less work than one product a node (docs/solver.md, 5).

The curves g_j(λ) are smooth. Over the whole spectrum all k nodes are needed to span them. Over a *segment* of neighboring λ they
are nearly straight, and far fewer nodes span them. So the directions are cut into segments. Each segment is multiplied at its own
few nodes, and a small matrix mixes the results of all segments to all nodes. This saves more, the wider the spectrum and the
denser the grid.

Legend: r = directions, k = nodes, q = products of all segments, m = rows, w = voxels of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.solve.plan.nodes import few_of, rank_of
from fastencode.solve.plan.products import Get, Products

__all__ = ["Curves", "Shrinkage", "cut_spectrum", "make_shrinkage"]

# Cost of one product more beyond its multiplications (it is written, and read again by the mix), in directions of a product.
_OVERHEAD = 60
# A spectrum is cut where that takes less than this part of the work.
_WORTH = 0.95
# Number of places where the spectrum may be cut; number of directions sampled to count the curves of a candidate segment.
_BINS, _SAMPLES = 24, 48
# Directions that the kernel for matrix tiles multiplies in one step.
_STEP = 32
# Rows whose products of all segments wait for the mix; rows mixed at once, few enough to stay in the cache.
_ROWS, _MIXED = 192, 16


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """diag(g_j) of all nodes, cut into segments.

    Attributes
    ----------
    pieces : tuple of ((start, stop), (·, stop - start) array)
        Directions of a segment, and the curves it is multiplied with.
    mix_kq : (k, q) or None
        From the products of all segments to the nodes; None if there is one segment and its curves are the nodes.
    """

    pieces: tuple[tuple[tuple[int, int], NDArray[Any]], ...]
    mix_kq: NDArray[Any] | None

    @property
    def n_products(self) -> int:
        """q: the curves of all segments, each of which takes one product."""
        return sum(len(curves) for _, curves in self.pieces)

    @property
    def nodes(self) -> int:
        """k: the number of nodes."""
        return self.n_products if self.mix_kq is None else len(self.mix_kq)

    @property
    def directions(self) -> int:
        """Directions added up over all products: multiplications for one row and one voxel, without the mix."""
        return sum(curves.size for _, curves in self.pieces)

    @property
    def operations(self) -> float:
        """Operations for one row and one voxel."""
        return 2.0 * self.directions + (0.0 if self.mix_kq is None else 2.0 * self.mix_kq.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the curves and the mix."""
        return sum(curves.nbytes for _, curves in self.pieces) + (0 if self.mix_kq is None else self.mix_kq.nbytes)

    def values(self, rows: int, width: int) -> int:
        """Numbers that :meth:`product` holds besides its result, for a tile ``width`` wide: by BLAS or the kernel, the larger."""
        mixed = 0 if self.mix_kq is None else self.n_products * _ROWS * width
        (_, r), curves = self.pieces[-1]
        # The kernel holds three bfloat16 parts of all rows and of the coordinates of 32 voxels, padded to steps of 32, and
        # squares of 32 × 32 values.
        padded = _STEP * len(self.pieces)
        split = 3 * ((rows + _STEP) * (r + padded) + _STEP * (self.directions + self.n_products * _STEP)) // 2
        kernel = split + 4 * self.n_products * (_STEP * _STEP + 16)
        by_blas = self.directions * width + mixed
        return max(by_blas, kernel) if curves.dtype == np.float32 else by_blas

    @cached_property
    def flat(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any], NDArray[Any] | None]:
        """(ends, counts, curves, mix) as ``kernels.cpu("shrunk")`` takes them."""
        ends = np.array([0, *(stop for (_, stop), _ in self.pieces)], dtype=np.intp)
        counts = np.array([len(curves) for _, curves in self.pieces], dtype=np.intp)
        return ends, counts, np.concatenate([curves.ravel() for _, curves in self.pieces]), self.mix_kq

    def spread(self, c_rw: NDArray[Any], get: Get, products: Products) -> list[NDArray[Any]]:
        """Right factors of :meth:`product`, made once for a tile: coordinates times every curve; for the kernel, unchanged."""
        if products.shrunk is not None:
            return [c_rw]
        width, place, out = c_rw.shape[1], 0, []
        buffer = get("spread", self.directions, width, dtype=c_rw.dtype)
        for (start, stop), curves in self.pieces:
            for curve in curves:
                out.append(buffer[place : place + stop - start])
                np.multiply(c_rw[start:stop], curve[:, None], out=out[-1])
                place += stop - start
        return out

    def product(
        self, rows_mr: NDArray[Any], spread: list[NDArray[Any]], out_kmw: NDArray[Any], get: Get, products: Products
    ) -> None:
        """out[j] = rows @ diag(g_j) @ c for every node j, where ``spread`` is what :meth:`spread` made of c."""
        if products.shrunk is not None:
            # out[j] = rows @ diag(g_j) @ c
            products.shrunk(rows_mr, spread[0], *self.flat, out_kmw)
            return
        (m, _), width = rows_mr.shape, out_kmw.shape[2]
        if self.mix_kq is None:
            for part, out_mw in zip(spread, out_kmw, strict=True):
                # out[j] = rows @ (g_j[:, None] * c)
                products.multiply(rows_mr, part, out_mw)
            return
        step, k = _ROWS, len(out_kmw)
        for start in range(0, m, step):
            here = slice(start, min(start + step, m))
            count, q = here.stop - here.start, 0
            made = get("segments", self.n_products, count, width, dtype=out_kmw.dtype)
            for ends, curves in self.pieces:
                for _ in curves:
                    # made[q] = rows[here, segment] @ (curve[:, None] * c[segment])
                    products.multiply(rows_mr[here, slice(*ends)], spread[q], made[q])
                    q += 1
            made, mixed = made.reshape(q, count * width), out_kmw.reshape(k, m * width)[:, start * width : here.stop * width]
            for first in range(0, count * width, _MIXED * width):
                some = slice(first, first + _MIXED * width)
                # out[j] = sum over q of mix[j, q] * made[q]
                np.matmul(self.mix_kq, made[:, some], out=mixed[:, some])


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves g_j, and the error allowed of each.

    Attributes
    ----------
    lam : (r,) float64, increasing
    values_kr : (k, r) float64
        g_j(λ): the factors of the coordinates.
    weight_r : (r,) float64
        λ / (λ + τ), which an error at λ is multiplied by: the part of a direction that U_τ and c hold.
    allowed_k : (k,) float64
        Largest weighted error of each curve.
    """

    lam: F64
    values_kr: F64
    weight_r: F64
    allowed_k: F64


def cut_spectrum(curves: Curves) -> F64:
    """Eigenvalues at which to cut for the least work; empty if cutting saves less than 5 %."""
    lam, (k, r), none = curves.lam, curves.values_kr.shape, np.empty(0)
    relative_rk = (curves.values_kr * curves.weight_r).T / curves.allowed_k
    # Cut once or more, with one curve a segment, it would take this at least.
    if r < 2 or k < 3 or r + 2 * (k + _OVERHEAD) >= _WORTH * k * r:
        return none
    edges = _in_steps(np.linspace(0, r, min(_BINS, r) + 1).astype(int))
    cost, back = np.full(len(edges), np.inf), np.zeros(len(edges), dtype=int)
    cost[0] = 0.0
    for j in range(1, len(edges)):
        for i in range(j):
            one = edges[j] - edges[i] + k + _OVERHEAD  # of one curve
            if cost[i] + one >= cost[j]:
                continue
            last = int(edges[j] - edges[i]) - 1
            steps = min(_SAMPLES - 1, last)
            sample = edges[i] + np.arange(steps + 1) * last // max(1, steps)
            work = cost[i] + rank_of(relative_rk[sample]) * one
            if work < cost[j]:
                cost[j], back[j] = work, i
    if cost[-1] >= _WORTH * k * r:
        return none
    cuts, j = [], int(back[-1])
    while j:
        cuts.append(float(np.sqrt(lam[edges[j] - 1]) * np.sqrt(lam[edges[j]])))
        j = int(back[j])
    return np.array(cuts[::-1])


def _in_steps(edges: NDArray[np.intp]) -> NDArray[np.intp]:
    """Round cut positions to multiples of 32, the step of the tile kernel, if segments are long enough for that."""
    if edges[-1] > _BINS * _STEP // 2:
        edges = np.r_[(edges[:-1] + _STEP // 2) // _STEP * _STEP, edges[-1]]
    return np.unique(edges[edges <= edges[-1]])


def make_shrinkage(curves: Curves, cuts: F64, dtype: np.dtype[Any]) -> Shrinkage:
    """Segments between the cuts, each with the fewest curves that span all curves within the allowed errors.

    Without cuts there is one segment, with every curve.
    """
    r = len(curves.lam)
    if not len(cuts):
        return Shrinkage((((0, r), curves.values_kr.astype(dtype)),), None)
    weighted_rk = (curves.values_kr * curves.weight_r).T
    edges = _in_steps(np.r_[0, np.searchsorted(curves.lam, cuts), r])
    pieces, mix = [], []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        chosen, mix_qk, _ = few_of(weighted_rk[start:stop], curves.allowed_k)
        pieces.append(((int(start), int(stop)), curves.values_kr[chosen, start:stop].astype(dtype)))
        mix.append(mix_qk.T)
    return Shrinkage(tuple(pieces), np.ascontiguousarray(np.concatenate(mix, axis=1), dtype=dtype))
