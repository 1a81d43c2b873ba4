"""Generalised cross-validation: a score of every penalty from squared coordinates, without predictions and without folds.

For n rows, residual sum of squares RSS(α) and effective degrees of freedom d(α) = Σ λ / (λ + α), plus 1 with an intercept,

    GCV(α) = n RSS(α) / (n − d(α))²

estimates the mean squared error on a new row. With u the left singular vectors, RSS(α) = ‖y‖² − Σ (uᵀy)² (1 − (α / (λ + α))²).
Coordinates c = √(λ / (λ + τ)) uᵀy give (uᵀy)² λ = c² (λ + τ), so no term is divided by a small λ.

Source: Golub, Heath & Wahba (1979), Technometrics 21, 215-223.

Legend: t = rows, v = voxels of a tile, a = penalties, r = directions.
"""

from __future__ import annotations

import numpy as np

from fastencode.devices import HOST, ArrayT, Device
from fastencode.solve.plan.fold_plan import FoldPlan

__all__ = ["GCV_SCORINGS", "GcvScorer"]

# Scores that a mean squared error gives: R² is 1 − GCV / (variance of the voxel).
GCV_SCORINGS = ("r2", "neg_mean_squared_error")


class GcvScorer:
    """Scores of a plan without folds. What depends on the plan alone is made once, on the device where responses lie."""

    def __init__(self, plan: FoldPlan, device: Device = HOST) -> None:
        alphas, lam, tau = plan.problem.alphas[:, None], plan.lam, plan.tau
        self.device, self.mass = device, float(plan.root @ plan.root)
        # Whether directions do not span all rows. Where they do, ‖y‖² less the fitted squares would be rounding: the residual is
        # a sum of shrunk squares instead.
        self.beyond = len(plan.root) - plan.problem.fit_intercept - len(lam) > 0
        fitted_ar = (lam + tau) * (lam + 2 * alphas) / (lam + alphas) ** 2
        self.weight_ar = device.put(fitted_ar if self.beyond else (lam + tau) / lam * (alphas / (lam + alphas)) ** 2)
        free = self.mass - plan.problem.fit_intercept - len(lam) + (alphas / (lam + alphas)).sum(axis=1)
        self.free_a1 = device.put(free[:, None])

    def score(self, c_rv: ArrayT, square_v: ArrayT, scoring: str) -> ArrayT:
        """Scores (a, v) float64 of every penalty.

        Parameters
        ----------
        c_rv : (r, v)
            Coordinates of the responses.
        square_v : (v,) float64
            Their (weighted) mean squares; about the means where there is an intercept.
        scoring : {"r2", "neg_mean_squared_error"}
        """
        xp = self.device.xp
        rss = xp.matmul(self.weight_ar, self.device.cast(c_rv, np.float64) ** 2)
        if self.beyond:
            rss = self.mass * square_v - rss
        error = self.mass * xp.clip(rss, 0.0, None) / self.free_a1**2
        if scoring == "neg_mean_squared_error":
            return -error
        varies = square_v > 0
        return xp.where(varies, 1.0 - error / xp.where(varies, square_v, xp.ones_like(square_v)), xp.zeros_like(error))
