"""Products of rows with directions shrunk at every node, for less than one product a node.

What every form of a fold multiplies is rows @ diag(g_j) @ coordinates, at nodes j = 1 … k, with smooth curves g_j(λ). Over the
whole spectrum the nodes are what it takes to tell all curves apart; over a *segment* of neighboring directions far fewer of them
do, for all curves are nearly straight there. So the directions are cut into segments, each is multiplied at its own few nodes,
and the results of all segments are mixed to all nodes: the wider the spectrum and the denser the grid, the more that saves.

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

# What a further product costs beyond its multiplications (written, read again by the mix), in directions of a product.
_OVERHEAD = 60
# Where the spectrum may be cut, and how many directions of a candidate are looked at.
_BINS, _SAMPLES = 24, 48
# Directions that the kernel for matrix tiles multiplies at once.
_STEP = 32
# Rows whose products of all segments are made before they are mixed, and the rows mixed at once: those stay in the cache.
_ROWS, _MIXED = 192, 16


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """diag(g_j) of all nodes, cut into segments.

    Attributes
    ----------
    pieces : tuple of ((start, stop), (·, stop - start) array)
        Directions of a segment, and the curves it is multiplied with.
    mix_kq : (k, q) or None
        Results of all segments to nodes; None if there is one segment and its curves are the nodes.
    """

    pieces: tuple[tuple[tuple[int, int], NDArray[Any]], ...]
    mix_kq: NDArray[Any] | None

    @property
    def n_products(self) -> int:
        """How many products with some of the directions there are."""
        return sum(len(curves) for _, curves in self.pieces)

    @property
    def nodes(self) -> int:
        """How many curves there are altogether."""
        return self.n_products if self.mix_kq is None else len(self.mix_kq)

    @property
    def directions(self) -> int:
        """Directions over all products: what one row and one voxel cost in multiplications, but for the mix."""
        return sum(curves.size for _, curves in self.pieces)

    @property
    def operations(self) -> float:
        """Of one row and one voxel."""
        return 2.0 * self.directions + (0.0 if self.mix_kq is None else 2.0 * self.mix_kq.size)

    @property
    def nbytes(self) -> int:
        """What is kept."""
        return sum(curves.nbytes for _, curves in self.pieces) + (0 if self.mix_kq is None else self.mix_kq.nbytes)

    def values(self, rows: int, width: int) -> int:
        """Numbers held besides the result, for a tile and so many rows: by BLAS, or by the kernel, whichever is more."""
        mixed = 0 if self.mix_kq is None else self.n_products * _ROWS * width
        (_, r), curves = self.pieces[-1]
        # Three bfloat16 parts of all rows and of the coordinates of 32 voxels, in steps; squares of 32 × 32 values.
        padded = _STEP * len(self.pieces)
        split = 3 * ((rows + _STEP) * (r + padded) + _STEP * (self.directions + self.n_products * _STEP)) // 2
        kernel = split + 4 * self.n_products * (_STEP * _STEP + 16)
        by_blas = self.directions * width + mixed
        return max(by_blas, kernel) if curves.dtype == np.float32 else by_blas

    @cached_property
    def flat(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any], NDArray[Any] | None]:
        """Ends, counts, curves and mix as ``kernels.cpu("shrunk")`` takes them."""
        ends = np.array([0, *(stop for (_, stop), _ in self.pieces)], dtype=np.intp)
        counts = np.array([len(curves) for _, curves in self.pieces], dtype=np.intp)
        return ends, counts, np.concatenate([curves.ravel() for _, curves in self.pieces]), self.mix_kq

    def spread(self, c_rw: NDArray[Any], get: Get, products: Products) -> list[NDArray[Any]]:
        """What rows are multiplied with, made once for a tile: coordinates times every curve, or as they are for the kernel."""
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
        """rows @ diag(g_j) @ c for all j, from what :meth:`spread` made of c."""
        if products.shrunk is not None:
            products.shrunk(rows_mr, spread[0], *self.flat, out_kmw)
            return
        (m, _), width = rows_mr.shape, out_kmw.shape[2]
        if self.mix_kq is None:
            for part, out_mw in zip(spread, out_kmw, strict=True):
                products.multiply(rows_mr, part, out_mw)
            return
        step, k = _ROWS, len(out_kmw)
        for start in range(0, m, step):
            here = slice(start, min(start + step, m))
            count, q = here.stop - here.start, 0
            made = get("segments", self.n_products, count, width, dtype=out_kmw.dtype)
            for ends, curves in self.pieces:
                for _ in curves:
                    products.multiply(rows_mr[here, slice(*ends)], spread[q], made[q])
                    q += 1
            made, mixed = made.reshape(q, count * width), out_kmw.reshape(k, m * width)[:, start * width : here.stop * width]
            for first in range(0, count * width, _MIXED * width):
                some = slice(first, first + _MIXED * width)
                np.matmul(self.mix_kq, made[:, some], out=mixed[:, some])


@dataclass(frozen=True, eq=False)
class Curves:
    """What to shrink by, and how exactly.

    Attributes
    ----------
    lam : (r,) float64, increasing
    values_kr : (k, r) float64
        Curves, as coordinates are multiplied with them.
    weight_r : (r,) float64
        What a direction's error counts.
    allowed_k : (k,) float64
        Largest error of each curve, so weighted.
    """

    lam: F64
    values_kr: F64
    weight_r: F64
    allowed_k: F64


def cut_spectrum(curves: Curves) -> F64:
    """Eigenvalues at which to cut, for the least work; none if one segment is best."""
    lam, (k, r), none = curves.lam, curves.values_kr.shape, np.empty(0)
    relative_rk = (curves.values_kr * curves.weight_r).T / curves.allowed_k
    if r < 2 or k < 3:
        return none
    edges = _in_steps(np.linspace(0, r, min(_BINS, r) + 1).astype(int))
    cost, back = np.full(len(edges), np.inf), np.zeros(len(edges), dtype=int)
    cost[0] = 0.0
    for j in range(1, len(edges)):
        for i in range(j):
            sample = np.unique(np.linspace(edges[i], edges[j] - 1, _SAMPLES).astype(int))
            work = cost[i] + rank_of(relative_rk[sample]) * (edges[j] - edges[i] + k + _OVERHEAD)
            if work < cost[j]:
                cost[j], back[j] = work, i
    if cost[-1] >= 0.95 * k * r:
        return none
    cuts, j = [], int(back[-1])
    while j:
        cuts.append(float(np.sqrt(lam[edges[j] - 1]) * np.sqrt(lam[edges[j]])))
        j = int(back[j])
    return np.array(cuts[::-1])


def _in_steps(edges: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where segments of many directions may begin without leaving a step of the kernels' half full."""
    if edges[-1] > _BINS * _STEP // 2:
        edges = np.r_[(edges[:-1] + _STEP // 2) // _STEP * _STEP, edges[-1]]
    return np.unique(edges[edges <= edges[-1]])


def make_shrinkage(curves: Curves, cuts: F64, dtype: np.dtype[Any]) -> Shrinkage:
    """Segments between the cuts, each with the fewest of the curves that give all of them within the allowed errors.

    Without cuts, one segment with every curve.
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
