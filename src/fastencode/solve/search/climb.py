"""Quasi-Newton ascent of many functions at once, each of a few variables between bounds.

Every function has an inverse curvature (BFGS), a radius (0.4 of the last step, if that gained less than it promised) and
an end: when the next step promises less than the least gain that is worth a step. The functions are the held-out scores of
voxels (docs/solver.md, section 7).

Legend: b = variables, v = functions, w = some of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64

__all__ = ["Climb"]

# The longest step of a variable; the part of the promised gain that a step must bring to count as better.
RADIUS, _PART = 1.5, 1e-4


@dataclass(eq=False)
class Climb:
    """Where every function stands.

    Attributes
    ----------
    at_bv : (b, v)
        The best point so far.
    score_v : (v,)
        Value there; −∞ before it was evaluated.
    slope_bv : (b, v)
        Gradient there.
    curve_vbb : (v, b, b)
        Inverse of minus the curvature.
    radius_v : (v,)
    steps_v : (v,) int
        Evaluations so far.
    going_v : (v,) bool
        Whether there is anything to gain.
    """

    at_bv: F64
    score_v: F64
    slope_bv: F64
    curve_vbb: F64
    radius_v: F64
    steps_v: NDArray[np.int32]
    going_v: NDArray[np.bool_]

    @classmethod
    def begin(cls, at_bv: F64) -> Climb:
        """Nothing evaluated yet."""
        b, v = at_bv.shape
        return cls(
            at_bv.copy(),
            np.full(v, -np.inf),
            np.zeros((b, v)),
            np.zeros((v, b, b)),
            np.full(v, RADIUS),
            np.zeros(v, dtype=np.int32),
            np.ones(v, dtype=bool),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All fields by name, for a checkpoint."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def propose(self, here: NDArray[np.intp], low_bw: F64, high_bw: F64, worth_w: F64) -> F64:
        """(b, w): the next points of some functions; the first point itself where it was not evaluated yet. A function whose next
        step promises less than ``worth_w`` ends here.

        Parameters
        ----------
        here : (w,) indices
        low_bw, high_bw : (b, w)
            Bounds. A variable at a bound is held there if its slope points beyond.
        worth_w : (w,)
        """
        at, slope = self.at_bv[:, here], self.slope_bv[:, here]
        free = ~(((at <= low_bw) & (slope < 0)) | ((at >= high_bw) & (slope > 0)))
        push = np.where(free, slope, 0.0)
        step = np.where(free, np.einsum("wbc,cw->bw", self.curve_vbb[here], push), 0.0)
        longest = np.abs(step).max(axis=0)
        seen = np.isfinite(self.score_v[here])
        promised = 0.5 * (push * step).sum(axis=0)
        self.going_v[here[seen & ~(promised > worth_w)]] = False
        step *= np.minimum(1.0, self.radius_v[here] / np.maximum(longest, 1e-300))
        return np.where(seen, np.clip(at + step, low_bw, high_bw), at)

    def take(self, here: NDArray[np.intp], at_bw: F64, score_w: F64, slope_bw: F64) -> None:
        """Update curvatures and radii by an evaluation, and move functions to it where it is better."""
        self.steps_v[here] += 1
        first = ~np.isfinite(self.score_v[here])
        if first.any():
            some = here[first]
            self.at_bv[:, some], self.score_v[some], self.slope_bv[:, some] = at_bw[:, first], score_w[first], slope_bw[:, first]
            size = np.maximum(np.abs(slope_bw[:, first]).max(axis=0), 1e-300)
            self.curve_vbb[some] = np.eye(len(at_bw)) / size[:, None, None]
        later = ~first
        if later.any():
            self._learn(here[later], at_bw[:, later], score_w[later], slope_bw[:, later])

    def _learn(self, here: NDArray[np.intp], at_bw: F64, score_w: F64, slope_bw: F64) -> None:
        step, bend = at_bw - self.at_bv[:, here], self.slope_bv[:, here] - slope_bw
        promised = (self.slope_bv[:, here] * step).sum(axis=0)
        better = score_w > self.score_v[here] + _PART * np.maximum(promised, 0.0)
        along = (step * bend).sum(axis=0)
        curved = along > 1e-8 * np.sqrt((step**2).sum(axis=0) * (bend**2).sum(axis=0))
        length = np.abs(step).max(axis=0)
        self.radius_v[here] = np.where(better, np.minimum(RADIUS, np.maximum(self.radius_v[here], 2 * length)), 0.4 * length)
        straight = better & ~curved  # the slope grows along the step: take longer ones
        self.curve_vbb[here[straight]] *= 2.0
        some = np.flatnonzero(curved)
        if len(some):
            fresh = self.steps_v[here[some]] == 2
            scale = along[some] / (bend[:, some] ** 2).sum(axis=0)
            curve = np.where(fresh[:, None, None], np.eye(len(at_bw)) * scale[:, None, None], self.curve_vbb[here[some]])
            self.curve_vbb[here[some]] = _bfgs(curve, step[:, some].T, bend[:, some].T, along[some])
        moved = here[better]
        self.at_bv[:, moved], self.score_v[moved] = at_bw[:, better], score_w[better]
        self.slope_bv[:, moved] = slope_bw[:, better]


def _bfgs(curve_wbb: F64, step_wb: F64, bend_wb: F64, along_w: F64) -> F64:
    """BFGS update of inverse curvatures (w, b, b) by a step and the change of the gradient along it."""
    rho = (1.0 / along_w)[:, None, None]
    left = np.eye(step_wb.shape[1]) - rho * step_wb[:, :, None] * bend_wb[:, None, :]
    return np.asarray(left @ curve_wbb @ left.transpose(0, 2, 1) + rho * step_wb[:, :, None] * step_wb[:, None, :])
