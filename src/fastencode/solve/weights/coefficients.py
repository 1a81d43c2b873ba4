"""Weights from coordinates: the formulas, and the place where weights gather, of ridge and of banded ridge (docs/solver.md, 6).

With c = U_τᵀ y, at the penalty α of each voxel:

    weights of the features    V @ (c √(λ + τ) / (λ + α))
    dual weights               ω = U_τ @ (c (λ + τ) / (λ (λ + α))), of which the weights of the features are X̌ᵀ ω
    intercept                  ȳ − μᵀ weights

Devices use the first formula with their own products (``device.py``).

Legend: p = features, v = voxels, r = directions, w = voxels of one tile, u = those in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import Array, ArrayT
from fastencode.solve.plan.products import Get, Products
from fastencode.solve.score.tiles import REFIT_FEATURES, Where
from fastencode.solve.weights.features import PIECE

__all__ = ["Coefficients", "dual_factor", "feature_blocks", "primal_factor"]


def primal_factor(lam_r1: ArrayT, root_r1: ArrayT, alpha_w: ArrayT) -> ArrayT:
    """(r, w): what coordinates are multiplied by, √(λ + τ) / (λ + α), with ``root_r1`` = √(λ + τ); in any namespace."""
    return root_r1 / (lam_r1 + alpha_w)


def dual_factor(lam_r1: F64, tau: float, alpha_w: F64) -> F64:
    """(r, w): what coordinates are multiplied by for dual weights, (λ + τ) / (λ (λ + α))."""
    return (lam_r1 + tau) / (lam_r1 * (lam_r1 + alpha_w))


def feature_blocks(p: int) -> list[slice]:
    """The features whose weights are made at once."""
    return [slice(first, min(first + REFIT_FEATURES, p)) for first in range(0, p, REFIT_FEATURES)]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Where weights of features gather, tile by tile.

    Attributes
    ----------
    coef_pv : (p, v)
    intercept_v : (v,) float64
        First the means of the responses; then what the weights predict at the means of the features is taken away.
    mean_p : (p,) float64 or None
        μ; None without an intercept.
    """

    coef_pv: NDArray[Any]
    intercept_v: F64
    mean_p: F64 | None

    def take(self, features: slice, here: Where, coef_pu: NDArray[Any]) -> F64:
        """Keep weights of some features of some voxels; returns what they predict at the means, (u,) float64."""
        self.coef_pv[features, here] = coef_pu
        predicted_u = np.zeros(coef_pu.shape[1])
        if self.mean_p is not None:
            mean_p = self.mean_p[features]
            for low in range(0, len(coef_pu), PIECE):  # so that nothing as large is in float64
                some = slice(low, low + PIECE)
                predicted_u += mean_p[some] @ coef_pu[some].astype(np.float64)
        return predicted_u

    def weigh(
        self, blocks: Sequence[Array], first: int, right_rw: Array, here: Where, used: int, products: Products, get: Get
    ) -> F64:
        """Weights V @ ``right_rw`` of the features ``first``, ``first`` + 1, …; returns what they predict at the means.

        Parameters
        ----------
        blocks : sequence of (·, r) arrays
            Consecutive rows of V, at most ``REFIT_FEATURES`` each, where products are made.
        first : int
        right_rw : (r, w)
            Coordinates times :func:`primal_factor`, where products are made.
        here : slice or index array
            The voxels of the tile.
        used : int
            How many columns of ``right_rw`` they are; the others are padding.
        products : Products
        get : Get
        """
        predicted_u = np.zeros(used)
        for V_pr in blocks:
            p, width = V_pr.shape[0], right_rw.shape[1]
            coef_pw = get("coef", p, width, dtype=self.coef_pv.dtype)
            products.multiply(V_pr, right_rw, coef_pw)
            predicted_u += self.take(slice(first, first + p), here, coef_pw[:, :used])
            first += p
        return predicted_u
