"""The loop over tiles of voxels on a device, one wide tile after another: what ``tiles.py`` and ``scorer.py`` do in threads.

    tile of responses ─► (uploaded while the one before computes) ─► center ─► coordinates ─► scores ─► choose

The host only starts work: no value of a tile is looked at until all tiles are done. What is wrong with a voxel is written down
beside its scores and told at the end. A tile for which memory does not suffice is started again at half the width, and so are
all after it.

Legend: t = time, p = features, v = voxels, a = penalties, r = directions, w = voxels of one tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.devices import Array, Device, find_device
from fastencode.errors import DeviceError, InputError
from fastencode.progress import Bar
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.fold_plan import FoldPlan
from fastencode.solve.score.choose import Choice, EachFold, choose_alphas, choose_shared, scores_at, tie_tolerance
from fastencode.solve.score.device_moments import moments_by
from fastencode.solve.score.device_scorer import DeviceScorer, PlanOnDevice, plan_on_device
from fastencode.streams import Downloads, Uploads, transfer_dtype

__all__ = ["DeviceSweep", "device_for"]

# Working memory of a tile.
_TILE_BYTES = 2 * 2**30
_WIDEST, _NARROWEST = 16384, 16


def device_for(problem: Problem, targets: Targets) -> Device | None:
    """Where a fit is computed: where ``device=`` said, else where its arrays lie. None is the CPU.

    Raises
    ------
    DeviceError
        If these contradict each other, or the device cannot be used.
    """
    there = targets.device
    if there is None:
        if problem.device == "cpu":
            return None
        torch = problem.library == "torch" or (problem.home == "cpu" and targets.library == "torch")
        return find_device(problem.device, "torch" if torch else "cupy")
    if problem.asked not in (None, "cuda", there.name):
        raise DeviceError(
            f"Y lies on {there.name} ({there.library}) and device={problem.asked!r}; move Y there, or pass device=None"
        )
    if problem.home != "cpu" and (problem.library, problem.home) != (there.library, there.name):
        raise DeviceError(
            f"X lies on {problem.home} ({problem.library}) and Y on {there.name} ({there.library}); give both in one library on "
            "one device"
        )
    return there


class DeviceSweep:
    """One pass of responses through the folds of a plan on a device: scores and the penalties they choose.

    All of it, the making too, inside ``with device.current()``.

    Parameters
    ----------
    device : Device
    plan : FoldPlan
    targets : Targets
    scoring : str
    skip_nan : bool
    width : int, optional
        Voxels in a tile, instead of what memory and their number suggest.
    choice : Choice, optional
    """

    def __init__(
        self,
        device: Device,
        plan: FoldPlan,
        targets: Targets,
        scoring: str,
        skip_nan: bool,
        width: int | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.device, self.plan, self.targets, self.scoring = device, plan, targets, scoring
        self.skip_nan, self.choice = skip_nan, Choice() if choice is None else choice
        self.center, self.fast = plan.problem.fit_intercept, plan.problem.precision == "fast"
        n_alphas, n_voxels = len(plan.problem.alphas) if plan.problem.given is None else 0, targets.n_voxels
        self.here = self._room()
        self.scorer = DeviceScorer(plan, self.here, scoring, self.fast)
        self.bytes_per_voxel = self._bytes()
        self.width = self._width() if width is None else min(width, n_voxels)
        self.halvings = 0
        zeros, float64 = device.zeros, np.float64
        self.scores_av = zeros(n_alphas, n_voxels, dtype=float64)
        kept, waits = plan.n_folds if self.choice.keep else 0, not self.choice.per_target
        self.folds_fv = zeros(kept, n_voxels, dtype=plan.dtype)
        self.waiting_fav = zeros(kept if waits else 0, n_alphas, n_voxels, dtype=plan.dtype)
        self.sums: dict[int, Array] = {}  # of each tile, (f, a)
        self.each: EachFold | None = None
        self.square_v = zeros(n_voxels, dtype=float64)
        self.variance_v = zeros(n_voxels, dtype=float64)
        self.chosen_v = zeros(n_voxels, dtype=np.int64)
        self.bad_v = zeros(n_voxels, dtype=bool)  # the sum is not finite,
        self.holds_v = zeros(n_voxels, dtype=bool)  # because a value is not,
        self.unscored_v = zeros(n_voxels, dtype=bool)  # or a score is not
        self.zero = zeros(1, 1, dtype=float64)
        weights = plan.problem.weights
        self.mass = float(plan.shape[0] if weights is None else weights.sum())
        self.uploads = self._uploads()
        self.downloads: Downloads | None = None

    def _room(self) -> PlanOnDevice:
        """The plan on the device; ``DeviceError`` where that alone is too much."""
        try:
            return plan_on_device(self.plan, self.device)
        except Exception as error:
            if not self.device.is_out_of_memory(error):
                raise
            raise self._too_much("", "") from error

    def _too_much(self, what: str, hint: str) -> DeviceError:
        plan = f"{what}{self.plan.nbytes / 1e9:.1f} GB for the plan{hint}"
        return DeviceError(f"{self.device.name} has not the memory that the result needs: {plan}")

    def _bytes(self) -> int:
        (n, _), item, r = self.plan.shape, self.plan.dtype.itemsize, len(self.plan.lam)
        stored = 0 if self.targets.device is not None else 2 * transfer_dtype(self.targets.dtype).itemsize
        each = self.choice.bytes_per_voxel(len(self.plan.problem.alphas), self.plan.n_folds)
        return self.scorer.bytes_per_voxel() + n * (item + 3 * 8 + stored) + 2 * 8 * r + each

    def _most(self) -> int:
        return min(_WIDEST, _TILE_BYTES // self.bytes_per_voxel)

    def _width(self) -> int:
        """Voxels in a tile: of the plan, the responses' dtype and number, and ``memory``."""
        plan, each, n_voxels, most = self.plan, self.bytes_per_voxel, self.targets.n_voxels, self._most()
        memory, least = plan.problem.memory, min(_NARROWEST, n_voxels)
        if memory is not None:
            most = min(most, (memory - plan.nbytes) // each)
            if most < least:
                raise InputError(
                    f"memory={memory} bytes is too small: the smallest that works on {self.device.name} is "
                    f"{plan.nbytes + least * each} bytes, {plan.nbytes} for the plan and {least * each} for a tile of {least} "
                    "voxels"
                )
        tiles = -(-n_voxels // max(least, int(most)))
        if self.targets.device is None:
            tiles = max(tiles, min(4, n_voxels // 1024))  # one tile alone would have to arrive before anything is computed
        return min(n_voxels, max(least, -(-n_voxels // tiles)))

    def _uploads(self) -> Uploads | None:
        if self.targets.device is not None:
            return None
        return Uploads(self.device, self.plan.shape[0], self.width, transfer_dtype(self.targets.dtype))

    def search(self, per_target: bool, bar: Bar) -> None:
        """Score every penalty and choose one for each voxel, or for all."""
        with self.device.precision(self.plan.dtype, False):
            if per_target:
                self._run(self._score_and_choose, bar)
            else:
                self._run(self._score, bar)
                self._choose_shared()
        self.raise_for_voxels()

    def _choose_shared(self) -> None:
        self.raise_for_voxels()
        get = self.device.get
        sums_fa = np.sum([get(self.sums[first]) for first in sorted(self.sums)], axis=0) if self.choice.one_se else None
        one = choose_shared(get(self.scores_av), self.scoring, get(self.variance_v), get(self.bad_v), sums_fa)
        self.chosen_v[...] = one
        if self.choice.keep:
            self.folds_fv = self.waiting_fav[:, one, :]

    def _run(self, job: Callable[[Array, int, int, int], None], bar: Bar) -> None:
        """Do ``job(slab, first, start, stop)`` to every tile."""
        with np.errstate(all="ignore"):
            for first, slab in self.targets.slabs(self.width):
                start, end = 0, int(slab.shape[1])
                while start < end:
                    stop = min(start + self.width, end)
                    if self._fits(job, slab, first, start, stop):
                        bar.update(stop - start)
                        start = stop

    def _fits(self, job: Callable[[Array, int, int, int], None], slab: Array, first: int, start: int, stop: int) -> bool:
        """Do one tile; if memory runs out, halve the width and return False."""
        try:
            job(slab, first, start, stop)
            return True
        except Exception as error:
            if not self.device.is_out_of_memory(error):
                raise
            if stop - start <= _NARROWEST:
                raise DeviceError(
                    f"{self.device.name} ran out of memory on a tile of {stop - start} voxels ({self.bytes_per_voxel} bytes for "
                    "each); free memory there, or pass device=None for the CPU"
                ) from error
        # Here, where nothing of the failed tile is held any more by the error's frames.
        self.width = max(_NARROWEST, (stop - start) // 2)
        self.halvings += 1
        if self.downloads is not None:
            self.downloads.wait()
        if self.uploads is not None:
            self.uploads.finish()
        self.uploads = self._uploads()
        self.device.free_cached()
        return False

    def _score_and_choose(self, slab: Array, first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        self._scored(self._read(slab, start, stop, here)[0], here)
        self._choose(here)

    def _score(self, slab: Array, first: int, start: int, stop: int) -> None:
        here = slice(first + start, first + stop)
        self._scored(self._read(slab, start, stop, here)[0], here)

    def _values(self, slab: Array, start: int, stop: int) -> Array:
        """Responses of a tile on the device, as they were stored: not to be written to."""
        if self.uploads is None:
            tile = slab[:, start:stop]
            return tile if self.here.kept is None else self.device.take(tile, self.here.kept)

        def fill(buffer: NDArray[Any]) -> None:
            tile: Any = slab[:, start:stop]  # in the host's memory
            np.copyto(buffer, self.targets.in_use(tile), casting="unsafe")

        return self.uploads.send(fill, stop - start)

    def _read(self, slab: Array, start: int, stop: int, here: slice) -> tuple[Array, Array]:
        """A tile of responses in the plan's dtype, centered if there is an intercept and times the roots of the weights; and its
        means. Notes variances, and which voxels cannot be fitted: those are zeros from here on."""
        device, xp, weight_t = self.device, self.device.xp, self.here.weight_t
        values = device.cast(self._values(slab, start, stop), np.float64)
        self.holds_v[here] = ~xp.all(xp.isfinite(values), axis=0)
        # Relative to the first row: a constant voxel becomes exactly zero, and a large common offset costs no digits.
        base = values[0, ...] if self.center else xp.zeros_like(values[0, ...])
        values = values - base
        if self.uploads is not None:
            self.uploads.used()
        total = xp.sum(values, axis=0) if weight_t is None else xp.matmul(weight_t, values)
        bad = ~xp.isfinite(total)
        self.bad_v[here] = bad
        zero = self.zero[0, :]
        mean, base = xp.where(bad, zero, total / self.mass), xp.where(bad, zero, base)
        values = xp.where(bad[None, :], self.zero, values)
        if self.center:
            values = values - mean
        if weight_t is not None:
            values = values * self.here.root_t1
        y_tw = device.contiguous(device.cast(values, self.plan.dtype))
        rounded = device.cast(y_tw, np.float64)
        self.square_v[here] = xp.sum(rounded * rounded, axis=0) / self.mass
        self.variance_v[here] = self.square_v[here] if self.center else xp.clip(self.square_v[here] - mean**2, 0.0, None)
        return y_tw, base + mean

    def _scored(self, y_tw: Array, here: slice) -> Array:
        """Note the scores of every penalty; returns the coordinates."""
        xp, device = self.device.xp, self.device
        self.each = each = self.choice.each(device, self.plan.n_folds)
        c_rw, scores = self.scorer.score(y_tw, self.square_v[here], each)
        self.scores_av[:, here] = scores
        if each is not None and not self.choice.per_target:
            for fold, kept in enumerate(each.kept):
                self.waiting_fav[fold, :, here] = device.cast(kept, self.plan.dtype)
            if each.sums:
                self.sums[here.start] = xp.stack(each.sums)
        self.unscored_v[here] = ~xp.all(xp.isfinite(scores), axis=0)
        return c_rw

    def _choose(self, here: slice) -> None:
        """Note each voxel's penalty."""
        tolerance, each = tie_tolerance(self.scoring, self.variance_v[here]), self.each
        error = None if each is None else each.error()
        self.chosen_v[here] = choose_alphas(self.scores_av[:, here], tolerance, self.device, error)
        if each is not None and each.kept:
            self.folds_fv[:, here] = self.device.cast(each.at(self.chosen_v[here]), self.plan.dtype)
        self.each = None

    def raise_for_voxels(self) -> None:
        """Raise for voxels that cannot be fitted, unless they are to be skipped. Waits for the device."""
        bad, holds, unscored = (self.device.get(flags) for flags in (self.bad_v, self.holds_v, self.unscored_v))
        if holds.any() and not self.skip_nan:
            self.targets.refuse(holds)
        done = "score" if self.plan.problem.given is None else "fit"
        for flags, what in ((bad & ~holds, "add up"), (unscored, f"{done} in {self.plan.dtype}")):
            if flags.any():
                raise InputError(f"Y holds values too large to {what}, the first in voxel {int(flags.argmax())}; rescale it")

    def best(self) -> Array:
        """(v,): each voxel's score at its penalty."""
        return scores_at(self.scores_av, self.chosen_v, self.device)

    def account(self) -> dict[str, Any]:
        """What ``RidgeFit.stats`` says of how it was computed."""
        reduced = self.scorer.fast and self.device.streams
        return {
            **self.device.describe(),
            "bytes": {"plan": self.plan.nbytes, "tiles": self.bytes_per_voxel * self.width},
            "scored_in": "tf32" if reduced else str(self.plan.dtype),
            "moments": moments_by(self.device),
            "threads": 1,
            "tile": self.width,
            "halvings": self.halvings,
            "skipped_voxels": int(self.device.get(self.bad_v).sum()),
        }
