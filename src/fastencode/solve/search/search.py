"""The search over weightings of bands: a plan for each candidate, one pass of the responses through it, the best kept.

    candidate γ ─► weighted Gram ─► one decomposition for all folds ─► tiles of voxels ─► best penalty of each ─► better?

The candidates are in docs/solver.md, section 7. A candidate takes over a voxel if its score, at its own best penalty, exceeds the
best so far by more than a tie. The score that is found is therefore within a tie of the best.

Legend: i = candidates, b = bands, v = voxels, a = penalties, r = directions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, Device
from fastencode.progress import Bar
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.basis import Basis
from fastencode.solve.plan.fold_plan import FoldPlan, plan_folds, planned_on
from fastencode.solve.plan.grams import Grams
from fastencode.solve.score.choose import choose_alphas, choose_shared, tie_tolerance
from fastencode.solve.score.device_tiles import DeviceSweep
from fastencode.solve.score.ends import ends_of, freedom_of, no_ends
from fastencode.solve.score.scorer import Sweep
from fastencode.solve.score.tiles import Where
from fastencode.solve.search.checkpoint import Checkpoint
from fastencode.solve.search.state import Found, Settings
from fastencode.threads import available_threads, limit_threads

__all__ = ["Bases", "Decomposed", "run_search"]

# Decompositions kept for the weights at the end, where memory= does not say less.
_KEPT_BYTES = 4 * 2**30


@dataclass(frozen=True, eq=False)
class Decomposed:
    """The parts of a basis that weights are made from."""

    lam: F64
    tau: float
    analyze_tr: NDArray[Any]
    V_pr: NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.analyze_tr.nbytes + self.V_pr.nbytes


class Bases:
    """Cache of decompositions for the weights at the end. Those of candidates with the fewest voxels are dropped first. Room: the
    smaller of memory / 8 and what the Grams and ``planning`` bytes for the next candidate leave."""

    def __init__(self, grams: Grams, candidates_ib: F64, planning: int, device: Device | None = None) -> None:
        self.grams, self.candidates_ib, self.device = grams, candidates_ib, device or HOST
        memory = grams.problem.memory
        self.room = _KEPT_BYTES if memory is None else max(0, min(memory // 8, memory - grams.nbytes - planning))
        self.kept: dict[int, Decomposed] = {}
        self.decompositions = 0

    def basis(self, i: int, device: Device) -> Basis:
        """Decompose a candidate on a device."""
        self.decompositions += 1
        with limit_threads(available_threads()):
            return self.grams.basis(self.candidates_ib[i], device)

    def keep(self, i: int, plan: FoldPlan, V_pr: NDArray[Any], won_i: NDArray[np.intp]) -> None:
        """Keep a candidate's decomposition, and drop those with the fewest voxels until all fit the room."""
        self.kept[i] = Decomposed(plan.lam, plan.tau, plan.analyze, V_pr)
        for old in [old for old in self.kept if not won_i[old]]:
            del self.kept[old]
        self.shrink(self.room, won_i)

    def shrink(self, room: float, won_i: NDArray[np.intp]) -> None:
        """Drop decompositions, those with the fewest voxels first, until the others fit the room."""
        while sum(one.nbytes for one in self.kept.values()) > room:
            del self.kept[min(self.kept, key=lambda old: int(won_i[old]))]

    def get(self, i: int) -> Decomposed:
        """A candidate's decomposition, made again if it was dropped."""
        if i in self.kept:
            return self.kept.pop(i)
        basis = planned_on(self.device, self.grams.problem, partial(self.basis, i))
        return Decomposed(basis.lam, basis.tau, basis.rows_tr.astype(self.grams.problem.X.dtype), basis.V_pr)

    @property
    def bytes(self) -> int:
        """Bytes kept at present."""
        return min(self.room, sum(one.nbytes for one in self.kept.values()))


def run_search(
    bases: Bases, targets: Targets, settings: Settings, checkpoint: Checkpoint | None, bar: Bar, device: Device | None = None
) -> Found:
    """Try the candidates one after another, until all are tried or early stopping ends it, starting from the checkpoint if
    there is one. Plans are made and responses are scored on the device, if there is one."""
    problem, count = bases.grams.problem, len(bases.candidates_ib)
    found = Found.empty(count, targets.n_voxels, problem.X.dtype)
    kept = {} if checkpoint is None else checkpoint.read()
    if kept:
        found.take_up(kept, bases.candidates_ib)
        bar.update(found.tried * targets.n_voxels)
    stages: dict[str, float] = {"decompose": 0.0, "operators": 0.0}
    operations = {"plan": 0.0, "score": 0.0}
    while found.tried < count and not _enough(found, settings):
        i = found.tried
        plan, V_pr = planned_on(bases.device, problem, partial(_plan, bases, i, targets, settings, stages))
        planned = time.perf_counter()
        if device is None:
            sweep = _CandidateSweep(plan, targets, settings, found, i)
            bases.shrink(sweep.spare, np.bincount(found.which_v, minlength=count))
            sweep.leave(bases.bytes)
            sweep.run(sweep.job, bar)
            (scores_v, ends_ev), seconds, account = sweep.finish(), sweep.seconds, sweep.account()
        else:
            scores_v, ends_ev, account = _score_there(device, plan, targets, settings, found, i, bar)
            seconds = {"score": time.perf_counter() - planned}
        found.take(scores_v, ends_ev, settings)
        found.freedoms.append(freedom_of(plan.lam, problem.alphas))
        bases.keep(i, plan, V_pr, np.bincount(found.which_v, minlength=count))
        for name, spent in seconds.items():
            name = name if device else f"{name} (all threads)"
            stages[name] = stages.get(name, 0.0) + spent
        operations["plan"] += plan.cost["operators"]
        operations["score"] += plan.cost["score"] * targets.n_voxels
        found.account |= account
        found.account["bytes"] = {"grams": bases.grams.nbytes, **account["bytes"]}
        if checkpoint is not None:
            checkpoint.write(found.arrays(bases.candidates_ib))  # a refinement of fewer candidates is not kept
    found.account |= {"seconds": stages, "operations": operations}
    return found


def _enough(found: Found, settings: Settings) -> bool:
    return settings.early_stopping is not None and found.gain() < settings.early_stopping


def _plan(
    bases: Bases, i: int, targets: Targets, settings: Settings, stages: dict[str, float], device: Device
) -> tuple[FoldPlan, NDArray[Any]]:
    """(Plan of a candidate, V); adds the seconds it took to ``stages``."""
    grams, began = bases.grams, time.perf_counter()
    basis = bases.basis(i, device)
    decomposed = time.perf_counter()
    plan = plan_folds(
        grams.problem,
        basis,
        available_threads(),
        beside=grams.nbytes + basis.V_pr.nbytes,
        n_voxels=targets.n_voxels,
        scoring=settings.scoring,
    )
    stages["decompose"] += decomposed - began
    stages["operators"] += time.perf_counter() - decomposed
    return plan, basis.V_pr


def _score_there(
    device: Device, plan: FoldPlan, targets: Targets, settings: Settings, found: Found, i: int, bar: Bar
) -> tuple[F64, F64, dict[str, Any]]:
    """Score one candidate on a device, as :class:`_CandidateSweep` does on the host: (scores (v,), scores at the ends of the grid
    (4, v), account for ``stats``)."""
    with device.current():
        sweep = DeviceSweep(device, plan, targets, settings.scoring, settings.skip_nan)
        sweep.search(settings.per_target, bar)
        found.variance_v, found.bad_v = device.get(sweep.variance_v), device.get(sweep.bad_v)
        found.alphas_iv[i], scores_v = device.get(sweep.chosen_v), device.get(sweep.best())
        found.scores_iv[i] = scores_v
        return scores_v, ends_of(sweep.scores_av, plan.problem.alphas, device), sweep.account()


class _CandidateSweep(Sweep):
    """Scores of one candidate, written where all are kept."""

    def __init__(self, plan: FoldPlan, targets: Targets, settings: Settings, found: Found, i: int) -> None:
        super().__init__(plan, targets, settings.scoring, settings.skip_nan)
        self.settings, self.found, self.i = settings, found, i
        self.scores_v, self.ends_ev = np.empty(targets.n_voxels), no_ends(targets.n_voxels)
        shared = (len(self.alphas), targets.n_voxels) if not settings.per_target else (0, 0)
        self.scores_av = np.empty(shared)

    def job(self, slab: NDArray[Any], inside: Where, here: Where) -> None:
        """Read and score a tile."""
        _, scores_aw = self.score(self.read(slab, inside, here)[0], here)
        self.ends_ev[:, here] = ends_of(scores_aw, self.alphas)
        if not self.settings.per_target:
            self.scores_av[:, here] = scores_aw
            return
        chosen = choose_alphas(scores_aw, tie_tolerance(self.scoring, self.variance_v[here]))
        self.found.alphas_iv[self.i, here] = chosen
        self.scores_v[here] = np.take_along_axis(scores_aw, chosen[None], axis=0)[0]

    def finish(self) -> tuple[F64, F64]:
        """Scores in float64, after all tiles: at each voxel's penalty, (v,), and at the ends of the grid, (4, v)."""
        found = self.found
        found.variance_v, found.bad_v = self.variance_v, self.bad_v
        if not self.settings.per_target:
            chosen = choose_shared(self.scores_av, self.scoring, self.variance_v, self.bad_v)
            found.alphas_iv[self.i] = chosen
            self.scores_v = self.scores_av[chosen]
        found.scores_iv[self.i] = self.scores_v
        return self.scores_v, self.ends_ev

    def account(self) -> dict[str, Any]:
        """How it was computed, for ``stats``."""
        return {
            "device": "cpu",
            "threads": self.workers,
            "tile": self.width,
            "products": self.scorer.products.name,
            "bytes": {"plan": self.plan.nbytes, "tiles": self.tile_bytes * self.workers},
        }
