"""Three ways to store the map of a fold, from inner to held-out predictions at every node (docs/solver.md, 3).

``inner`` are the coordinates of the training responses (the form "apart") or these responses themselves (the form "train").

    Merged     one (k·m × r) matrix                                          few nodes
    Factored   the shrinkage cut into segments, then an m × l block a node   folds small against the directions; form "apart" only
    Rotated    into the training rows' own directions, then their shrinkage  large folds

Legend: r = directions (form "train": training rows), s = a fold's own directions, k = nodes, l = rows left out, m = rows
predicted, w = voxels of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fastencode.solve.plan.products import Get, Products
from fastencode.solve.plan.segments import Shrinkage

__all__ = ["Factored", "Map", "Merged", "Rotated"]


@dataclass(frozen=True, eq=False)
class Merged:
    """predictions = predict_kmr @ inner."""

    predict_kmr: NDArray[Any]

    @property
    def operations(self) -> float:
        """Operations for one voxel."""
        return 2.0 * self.predict_kmr.size

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.predict_kmr.nbytes

    def values(self, width: int) -> int:
        """Numbers held besides inner and predictions, for a tile ``width`` wide."""
        return 0

    def apply(self, inner_rw: NDArray[Any], out_kmw: NDArray[Any], get: Get, products: Products) -> None:
        """Fill ``out_kmw`` with the predictions at all nodes."""
        k, m, r = self.predict_kmr.shape
        # out = predict_kmr @ inner
        products.multiply(self.predict_kmr.reshape(k * m, r), inner_rw, out_kmw.reshape(k * m, inner_rw.shape[1]))


@dataclass(frozen=True, eq=False)
class Factored:
    """predictions at node j = solve_kml[j] @ rows_lr @ diag(g_j) @ inner; ``rows_lr`` is a view where rows are consecutive."""

    shrinkage: Shrinkage
    rows_lr: NDArray[Any]
    solve_kml: NDArray[Any]

    @property
    def operations(self) -> float:
        """Operations for one voxel."""
        return len(self.rows_lr) * self.shrinkage.operations + 2.0 * self.solve_kml.size

    @property
    def nbytes(self) -> int:
        """Bytes kept for this fold alone: all folds share ``shrinkage``, and ``FoldPlan.nbytes`` counts ``rows_lr``."""
        return self.solve_kml.nbytes

    def values(self, width: int) -> int:
        """Numbers held besides inner and predictions, for a tile ``width`` wide."""
        k, _, n_left = self.solve_kml.shape
        return k * n_left * width + self.shrinkage.values(n_left, width)

    def apply(self, inner_rw: NDArray[Any], out_kmw: NDArray[Any], get: Get, products: Products) -> None:
        """Fill ``out_kmw`` with the predictions at all nodes."""
        k, _, n_left = self.solve_kml.shape
        before = get("before", k, n_left, inner_rw.shape[1], dtype=inner_rw.dtype)
        # before[j] = rows_lr @ diag(g_j) @ inner
        self.shrinkage.product(self.rows_lr, self.shrinkage.spread(inner_rw, get, products), before, get, products)
        for solve_ml, part, out_mw in zip(self.solve_kml, before, out_kmw, strict=True):
            # out[j] = solve_kml[j] @ before[j]
            products.multiply(solve_ml, part, out_mw)


@dataclass(frozen=True, eq=False)
class Rotated:
    """predictions at node j = rows_ms @ diag(g_j) @ rotate_sr @ inner, g over the fold's own eigenvalues."""

    rotate_sr: NDArray[Any]
    rows_ms: NDArray[Any]
    shrinkage: Shrinkage

    @property
    def operations(self) -> float:
        """Operations for one voxel."""
        return 2.0 * self.rotate_sr.size + len(self.rows_ms) * self.shrinkage.operations

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.rotate_sr.nbytes + self.rows_ms.nbytes + self.shrinkage.nbytes

    def values(self, width: int) -> int:
        """Numbers held besides inner and predictions, for a tile ``width`` wide."""
        return len(self.rotate_sr) * width + self.shrinkage.values(len(self.rows_ms), width)

    def apply(self, inner_rw: NDArray[Any], out_kmw: NDArray[Any], get: Get, products: Products) -> None:
        """Fill ``out_kmw`` with the predictions at all nodes."""
        own_sw = get("own", len(self.rotate_sr), inner_rw.shape[1], dtype=inner_rw.dtype)
        # own = rotate_sr @ inner
        products.multiply(self.rotate_sr, inner_rw, own_sw)
        # out[j] = rows_ms @ diag(g_j) @ own
        self.shrinkage.product(self.rows_ms, self.shrinkage.spread(own_sw, get, products), out_kmw, get, products)


Map = Merged | Factored | Rotated
