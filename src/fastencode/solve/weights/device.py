"""Weights of ridge on a device: the sweep of ``score/device_tiles.py``, and V times what each voxel's penalty makes of its
coordinates.

    … ─► choose ─► weights ─► (downloaded while the next tile computes, where the result is for the host)

Legend: t = time, p = features, v = voxels, a = penalties, r = directions, w = voxels of one tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastencode.arrays import export
from fastencode.devices import Array, Device
from fastencode.progress import Bar
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.plan import Plan
from fastencode.solve.score.choose import Choice, edges_of
from fastencode.solve.score.device_scorer import PlanOnDevice, kept_on, plan_on_device
from fastencode.solve.score.device_tiles import DeviceSweep
from fastencode.solve.score.ends import Seen, ends_of, no_ends
from fastencode.solve.weights.coefficients import primal_factor
from fastencode.solve.weights.features import map_of
from fastencode.streams import Downloads

__all__ = ["DeviceRidge", "fit_on"]

# Most bytes of a tile's weights in transit (three buffers: one on the card, two page-locked).
_WEIGHT_BYTES = 512 * 2**20
# Features whose means are multiplied by float64 weights at once.
_BLOCK = 8192


class _Map:
    """V and the means of the features, on a device."""

    def __init__(self, device: Device, plan: Plan) -> None:
        self.V_pr, self.mean_p = device.put(map_of(plan)), device.put(plan.feature_means)


class DeviceRidge(DeviceSweep):
    """A sweep with weights, for ridge.

    Parameters
    ----------
    plan : Plan
    keep : bool
        Whether results stay on the device. Otherwise they are for the host, and weights go there tile by tile.
    others : as for :class:`DeviceSweep`
    """

    def __init__(
        self,
        device: Device,
        plan: Plan,
        targets: Targets,
        scoring: str,
        skip_nan: bool,
        choice: Choice,
        keep: bool,
        width: int | None = None,
    ) -> None:
        self.keep, self.ridge, p, n_voxels = keep, plan, plan.shape[1], targets.n_voxels
        self.coef_pv: Any = None if keep else np.empty((p, n_voxels), dtype=plan.dtype)
        super().__init__(device, plan, targets, scoring, skip_nan, width, choice)
        self.intercept_v = device.zeros(n_voxels, dtype=plan.dtype)

    def _room(self) -> PlanOnDevice:
        """The plan on the device, and memory for the weights."""
        plan, n_voxels = self.ridge, self.targets.n_voxels
        try:
            here = plan_on_device(plan, self.device)
            self.map = kept_on(plan, self.device, "map", lambda: _Map(self.device, plan))
            if self.keep:
                self.coef_pv = self.device.empty(plan.shape[1], n_voxels, dtype=plan.dtype)
            return here
        except Exception as error:
            if not self.device.is_out_of_memory(error):
                raise
            what = f"{plan.shape[1] * n_voxels * plan.dtype.itemsize / 1e9:.1f} GB for weights and " if self.keep else ""
            hint = "; pass X and Y as NumPy arrays with device='cuda' and the weights go to the host" if self.keep else ""
            raise self._too_much(what, hint) from error

    def _bytes(self) -> int:
        return super()._bytes() + self.plan.shape[1] * self.plan.dtype.itemsize * (1 if self.keep else 3)

    def _most(self) -> int:
        most = super()._most()
        return most if self.keep else min(most, _WEIGHT_BYTES // (self.plan.shape[1] * self.plan.dtype.itemsize))

    def fit(self, bar: Bar) -> None:
        """Do everything: one pass, or two for one penalty for all voxels."""
        given = self.plan.problem.given
        with self.device.precision(self.plan.dtype, False), Downloads(self.device) as self.downloads:
            if given is not None:
                self.chosen_v[...] = self.device.put(np.broadcast_to(given, self.targets.n_voxels), np.int64)
                self._run(self._refit, bar)
            elif self.choice.per_target:
                self._run(self._score_and_refit, bar)
            else:
                self._run(self._score, bar)
                self._choose_shared()
                self._run(self._refit, bar)
        self.raise_for_voxels()
        if (left_out := self.plan.problem.left_out) is not None:
            self.bad_v = self.bad_v | self.device.put(left_out)
            if not self.keep:
                self.coef_pv[:, left_out] = np.nan
            else:
                nan = self.device.cast(self.zero, self.plan.dtype) * float("nan")
                self.coef_pv = self.device.xp.where(self.device.put(left_out)[None, :], nan, self.coef_pv)

    def _score_and_refit(self, slab: Array, first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        y_tw, mean_w = self._read(slab, start, stop, here)
        c_rw = self._scored(y_tw, here)
        self._choose(here)
        self._weights(c_rw, mean_w, here)

    def _refit(self, slab: Array, first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        y_tw, mean_w = self._read(slab, start, stop, here)
        c_rw = self.scorer.coordinates(y_tw)
        if not self.plan.n_folds:
            self.unscored_v[here] = ~self.device.xp.all(self.device.xp.isfinite(c_rw), axis=0)
        self._weights(c_rw, mean_w, here)

    def _weights(self, c_rw: Array, mean_w: Array, here: slice) -> None:
        """Weights of each voxel at its own penalty: V diag(√(λ + τ) / (λ + α)) c."""
        device, xp, plan = self.device, self.device.xp, self.here
        alpha_w = device.take(plan.alphas, self.chosen_v[here])
        shrunk = device.cast(c_rw * primal_factor(plan.lam_r1, plan.shrunk_r1, alpha_w), self.plan.dtype)
        coef_pw = xp.matmul(self.map.V_pr, shrunk)
        bad = self.bad_v[here]
        if self.center:
            predicted = xp.zeros_like(mean_w)
            for start in range(0, coef_pw.shape[0], _BLOCK):
                some = slice(start, min(start + _BLOCK, coef_pw.shape[0]))
                predicted = predicted + xp.matmul(self.map.mean_p[some], device.cast(coef_pw[some, ...], np.float64))
            self.intercept_v[here] = device.cast(mean_w - predicted, self.plan.dtype)
        if self.skip_nan:
            coef_pw = xp.where(bad[None, :], device.cast(self.zero, self.plan.dtype) * float("nan"), coef_pw)
        if self.keep or self.downloads is None:
            self.coef_pv[:, here] = coef_pw
        else:
            self.downloads.fetch(coef_pw, self.coef_pv[:, here])

    def arrays(self) -> dict[str, Any]:
        """Results by the names of ``RidgeFit``, in the library and shape of the input."""
        device, xp = self.device, self.device.xp
        one, dtype = self.targets.one, self.plan.dtype
        given = self.plan.problem.given is not None
        edge_v = edges_of(self.chosen_v, 1 if given else len(self.plan.problem.alphas), device)
        found = {"intercept": self.intercept_v, "alpha": device.take(self.here.alphas, self.chosen_v)}
        if not given:
            found |= {"cv_scores": device.cast(self.scores_av, dtype), "best_score": device.cast(self.best(), dtype)}
        if self.choice.keep:
            found["fold_scores"] = self.folds_fv
        nan = self.zero[0, :] * float("nan")
        found = {name: xp.where(self.bad_v, xp.asarray(nan, dtype=values.dtype), values) for name, values in found.items()}
        found["at_edge"] = xp.where(self.bad_v, xp.zeros_like(edge_v), edge_v)
        found["alphas"] = device.put(self.plan.problem.alphas.copy())
        if self.keep:
            found["coef"] = self.coef_pv
        else:
            library = "torch" if "torch" in (self.plan.problem.library, self.targets.library) else "numpy"
            found = {"coef": self.coef_pv, **{name: device.get(values) for name, values in found.items()}}
            found = {name: export(values, library) for name, values in found.items()}
        out = {name: values[..., 0] if one and name != "alphas" else values for name, values in found.items()}
        return {"cv_scores": None, "best_score": None, **out} if given else out

    def seen(self) -> Seen:
        """What was seen of every voxel."""
        get, alphas, given = self.device.get, self.plan.problem.alphas, self.plan.problem.given is not None
        ends_ev = no_ends(self.targets.n_voxels) if given else ends_of(self.scores_av, alphas, self.device)
        edge_v = edges_of(self.chosen_v, 1 if given else len(alphas), self.device)
        return Seen(ends_ev, get(edge_v), get(self.variance_v), get(self.bad_v))


def fit_on(
    device: Device,
    plan: Plan,
    targets: Targets,
    scoring: str,
    skip_nan: bool,
    choice: Choice,
    bar: Bar,
    keep: bool | None = None,
    width: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any], Seen]:
    """Results by the names of ``RidgeFit``, what is to be said of how they were computed, and what was seen of the voxels.

    ``keep`` leaves results on the device, by default where X or the responses lie there. ``width`` is the voxels of a tile, if
    not what memory suggests.
    """
    keep = (targets.device is not None or plan.problem.home != "cpu") if keep is None else keep
    with device.current():
        sweep = DeviceRidge(device, plan, targets, scoring, skip_nan, choice, keep, width)
        sweep.fit(bar)
        return sweep.arrays(), sweep.account(), sweep.seen()
