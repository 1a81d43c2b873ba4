"""Everything about a ridge problem that depends on X only, computed once.

    X ─► the smaller Gram ─► λ, U_τ, V ─► what each fold leaves out ─► nodes ─► operators of all folds

A plan is data. ``ridge_plan.RidgePlan`` is what users see of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.basis import make_basis
from fastencode.solve.plan.cost import Candidate, choose, made_last
from fastencode.solve.plan.fold_plan import FoldPlan, plan_folds
from fastencode.threads import available_threads, limit_threads

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, eq=False, repr=False)
class Plan(FoldPlan):
    """Decomposition, nodes, operators and strategy of a ridge problem. Holds no responses, serves any number of them.

    Attributes as in ``fold_plan.FoldPlan``, and

    Attributes
    ----------
    map_pr : (p, r) or None
        V, from scaled coordinates to weights. None where it is X̌ᵀ U diag(1 / √λ): ``weights/features.py`` makes it then.
    deferred : bool
        Whether weights are made without V, block by block of features, once all voxels are scored.
    feature_means : (p,) float64
        Subtracted from X; zeros without an intercept.
    strategy : {"primal", "dual"}
    reason : str
    decomposed : {"gram", "features"}
        The smaller Gram, or X itself by a column-pivoted QR and SVD, where the Gram's rounding would show in weights.
    candidates : tuple of Candidate
    operations : dict
        Of ``plan``, and of ``score`` and ``refit`` for one voxel.
    seconds : dict
        Wall time of each stage of planning.
    """

    map_pr: NDArray[Any] | None
    deferred: bool
    feature_means: NDArray[np.float64]
    strategy: str
    reason: str
    decomposed: str
    candidates: tuple[Candidate, ...]
    operations: dict[str, float]
    seconds: dict[str, float]

    @property
    def maps(self) -> tuple[str, ...]:
        """How its folds are stored, each way once; empty if all are predicted together."""
        return tuple(sorted({type(f.map).__name__.lower() for f in self.folds}))


def make_plan(
    problem: Problem,
    strategy: str | None = None,
    stored: str | None = None,
    *,
    n_voxels: int | None = None,
    scoring: str | None = None,
) -> Plan:
    """Plan a checked problem.

    Parameters
    ----------
    problem : Problem
    strategy : {"primal", "dual"}, optional
        Which Gram to decompose, instead of the cheaper one.
    stored : {"merged", "factored", "rotated", "whole"}, optional
        How folds are stored where they can be (``maps.py``), instead of the cheapest way.
    n_voxels : int, optional
        Voxels that are expected. Known for a single fit, which may then defer its weights.
    scoring : str, optional
        How they will be scored, if that is known: nodes for squared errors alone are fewer than those that serve correlation too.
    """
    began = time.perf_counter()
    threads = available_threads()
    best, candidates, reason = choose(problem, threads, n_voxels, strategy)
    dual, (n, p) = best.name == "dual", problem.X.shape
    with limit_threads(threads):
        basis = make_basis(problem, dual)
    decomposed = time.perf_counter()
    r, map_pr = len(basis.lam), basis.coef_pr if len(basis.coef_pr) else None
    deferred = map_pr is None and made_last(problem, dual, n_voxels)
    beside = (2 * n if deferred else p) * r * problem.X.dtype.itemsize
    folds = plan_folds(problem, basis, threads, beside=beside, n_voxels=n_voxels, scoring=scoring, stored=stored)
    done = time.perf_counter()
    planned = best.gram + best.decompose + 2.0 * n * p * r + folds.cost["operators"]
    return Plan(
        **{name.name: getattr(folds, name.name) for name in fields(folds)},
        map_pr=map_pr,
        deferred=deferred,
        feature_means=basis.mean_p,
        strategy=best.name,
        reason=reason,
        decomposed=basis.source,
        candidates=candidates,
        operations={"plan": planned, "score": folds.cost["score"], "refit": 2.0 * p * r},
        seconds={"decompose": decomposed - began, "operators": done - decomposed},
    )
