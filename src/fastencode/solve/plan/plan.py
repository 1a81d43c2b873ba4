"""Everything about a ridge problem that depends on X only, computed once (docs/solver.md, 2 to 6).

    X ─► the smaller Gram ─► λ, U_τ, V ─► rows that each fold leaves out ─► nodes ─► operators of all folds

A plan is data. Users see it as a ``ridge_plan.RidgePlan``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import Device
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.basis import make_basis
from fastencode.solve.plan.cost import Candidate, choose, made_last
from fastencode.solve.plan.fold_plan import FoldPlan, plan_folds, planned_on
from fastencode.threads import available_threads, limit_threads

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, eq=False, repr=False)
class Plan(FoldPlan):
    """Decomposition, nodes, operators and strategy of a ridge problem. It holds no responses and serves any number of them.

    Attributes as in ``fold_plan.FoldPlan``, and

    Attributes
    ----------
    V_pr : (p, r) or None
        V, from scaled coordinates to weights. None after a dual decomposition whose V = X̌ᵀ U diag(1 / √λ) may be made in the
        dtype of X: ``weights/features.py`` makes it then.
    deferred : bool
        Whether weights are made without V, block by block of features, once all voxels are scored.
    feature_means : (p,) float64
        Subtracted from X; zeros without an intercept.
    strategy : {"primal", "dual"}
    reason : str
        Why this strategy was chosen, for users.
    decomposed : {"gram", "features"}
        The smaller Gram, or X itself by a column-pivoted QR and SVD, where the Gram's rounding would show in weights.
    candidates : tuple of Candidate
        Both strategies with their expected costs.
    operations : dict
        Operations of ``plan``, and of ``score`` and ``refit`` for one voxel.
    seconds : dict
        Wall time of each stage of planning.
    """

    V_pr: NDArray[Any] | None
    deferred: bool
    feature_means: F64
    strategy: str
    reason: str
    decomposed: str
    candidates: tuple[Candidate, ...]
    operations: dict[str, float]
    seconds: dict[str, float]

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps of its folds, each once; empty if all folds are predicted together."""
        return tuple(sorted({type(f.map).__name__.lower() for f in self.operators}))


def make_plan(
    problem: Problem,
    strategy: str | None = None,
    stored: str | None = None,
    *,
    n_voxels: int | None = None,
    scoring: str | None = None,
    device: Device | None = None,
) -> Plan:
    """Plan a checked problem.

    Parameters
    ----------
    problem : Problem
    strategy : {"primal", "dual"}, optional
        Which Gram to decompose. None: the one with less expected time.
    stored : {"merged", "factored", "rotated", "whole"}, optional
        The map (``maps.py``) of every fold that allows it, or the form of large folds. None: the cheapest.
    n_voxels : int, optional
        Expected voxels. A single fit knows them, and may then defer its weights.
    scoring : str, optional
        How voxels will be scored. None or "pearson": nodes also serve correlation, which takes more of them than squared errors.
    device : Device, optional
        Where to compute. None: the problem's device. The host takes over where a device's memory is too small.
    """
    device = problem.place() if device is None else device
    make = partial(_make_plan, problem, strategy, stored, n_voxels, scoring)
    return planned_on(device, problem, make)


def _make_plan(
    problem: Problem, strategy: str | None, stored: str | None, n_voxels: int | None, scoring: str | None, device: Device
) -> Plan:
    began = time.perf_counter()
    threads = available_threads()
    best, candidates, reason = choose(problem, threads, n_voxels, strategy)
    dual, (n, p) = best.name == "dual", problem.X.shape
    with limit_threads(threads):
        basis = make_basis(problem, dual, device)
    decomposed = time.perf_counter()
    r, V_pr = len(basis.lam), basis.V_pr if len(basis.V_pr) else None
    deferred = V_pr is None and made_last(problem, dual, n_voxels)
    beside = (2 * n if deferred else p) * r * problem.X.dtype.itemsize
    folds = plan_folds(problem, basis, threads, beside=beside, n_voxels=n_voxels, scoring=scoring, stored=stored)
    done = time.perf_counter()
    planned = best.gram + best.decompose + 2.0 * n * p * r + folds.cost["operators"]
    return Plan(
        **{name.name: getattr(folds, name.name) for name in fields(folds)},
        V_pr=V_pr,
        deferred=deferred,
        feature_means=basis.mean_p,
        strategy=best.name,
        reason=reason,
        decomposed=basis.source,
        candidates=candidates,
        operations={"plan": planned, "score": folds.cost["score"], "refit": 2.0 * p * r},
        seconds={"decompose": decomposed - began, "operators": done - decomposed},
    )
