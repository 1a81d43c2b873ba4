"""What predicts held-out rows and depends on the design only: one decomposition, its nodes, and every fold made from it.

A ridge problem has one of these and a way from coordinates to weights (``plan.py``); a banded one has one for each weighting of
its bands (``banded/``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.given.folds import Fold
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.basis import Basis
from fastencode.solve.plan.cost import EIGH_RATE, NOMINAL_VOXELS, voxel_rate
from fastencode.solve.plan.leave_out import Left, leave_out, training_extremes
from fastencode.solve.plan.nodes import TOLERANCE, Nodes, choose_nodes
from fastencode.solve.plan.operators import LIMITS, Operator, Request, WholeFolds, make_operators
from fastencode.threads import limit_threads, together

__all__ = ["FoldPlan", "plan_folds"]


@dataclass(frozen=True, eq=False, repr=False)
class FoldPlan:
    """One decomposition of the design, ready to score responses at every penalty.

    Attributes
    ----------
    problem : Problem
        The checked design, folds and penalties.
    nodes : Nodes
        The penalties predictions are made at, and how the others follow from them.
    folds : tuple of Operator
        Folds predicted one by one.
    whole : tuple of WholeFolds
        Small folds predicted together, by size.
    order : tuple of int
        Which of the problem's folds each of these is: first those of ``folds``, then those of ``whole``.
    lam : (r,) float64
        Eigenvalues of the Gram of all rows.
    analyze : (t, r)
        Responses to coordinates.
    tau : float
        Offset of the coordinates' scale.
    root : (t,) float64
        Square roots of the sample weights.
    condition : float
        Largest of any fold at the smallest penalty: how much rounding may grow, see ``leave_out.Left``.
    beside : int
        Bytes that are kept beside it for as long.
    cost : dict
        Operations of ``operators``, and of ``score`` for one voxel.
    """

    problem: Problem
    nodes: Nodes
    folds: tuple[Operator, ...]
    whole: tuple[WholeFolds, ...]
    order: tuple[int, ...]
    lam: NDArray[np.float64]
    analyze: NDArray[Any]
    tau: float
    root: NDArray[np.float64]
    condition: float
    beside: int
    cost: dict[str, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (those with weight) and features of the design."""
        n, p = self.problem.X.shape
        return int(n), int(p)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What responses are converted to and results come in."""
        return np.dtype(self.problem.X.dtype)

    @property
    def rounding(self) -> float:
        """What predictions may be off by for rounding alone, in standard deviations of a voxel."""
        eps = np.finfo(self.dtype).eps, np.finfo(np.float64).eps
        return 8.0 * float(eps[0] * np.sqrt(max(1, len(self.lam))) + eps[1] * min(self.condition, LIMITS[8]["train"]))

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.problem.folds)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, X not counted."""
        copies = sum(f.analyze_lr.nbytes for f in self.folds if f.analyze_lr.base is None)
        made = sum(f.map.nbytes for f in self.folds) + sum(w.nbytes for w in self.whole)
        return self.analyze.nbytes + self.beside + copies + made


def plan_folds(
    problem: Problem,
    basis: Basis,
    threads: int,
    *,
    beside: int,
    n_voxels: int | None,
    scoring: str | None,
    stored: str | None = None,
) -> FoldPlan:
    """Make all folds of a decomposed design.

    Parameters
    ----------
    problem : Problem
    basis : Basis
    threads : int
    beside : int
        Bytes that are kept for as long.
    n_voxels : int, optional
        Voxels that are expected.
    scoring : str, optional
        How they will be scored, if that is known: nodes for squared errors alone are fewer than those that serve correlation too.
    stored : str, optional
        How folds are to be stored where they can be (``maps.py``), instead of the cheapest way.
    """
    if not problem.folds:
        return _without_folds(problem, basis, beside)
    lefts = _leave_out(basis, problem.folds, threads)
    relative = scoring in (None, "pearson")
    itemsize = problem.X.dtype.itemsize
    voxels = NOMINAL_VOXELS if n_voxels is None else n_voxels
    interval = _interval(basis, lefts, voxels, threads)
    with limit_threads(1):  # small matrices: waking a second thread takes longer
        nodes = choose_nodes(problem.alphas, interval, basis.top, TOLERANCE[itemsize], relative)
    analyze = basis.rows_tr.astype(problem.X.dtype)
    kept = analyze.nbytes + beside
    request = Request(nodes.alphas, TOLERANCE[itemsize], relative, voxels, problem.memory, kept, threads, stored)
    made = make_operators(basis, lefts, request, analyze)
    n, r = analyze.shape
    analyzed = n + (0 if _partition(lefts, n) else sum(len(f.left) for f in made.folds if f.form == "apart"))
    score = 2.0 * r * analyzed + sum(f.map.operations for f in made.folds) + sum(w.operations for w in made.whole)
    return FoldPlan(
        problem=problem,
        nodes=nodes,
        folds=made.folds,
        whole=made.whole,
        order=made.order,
        lam=basis.lam,
        analyze=analyze,
        tau=basis.tau,
        root=basis.root_t,
        condition=max(left.condition for left in lefts),
        beside=beside,
        cost={"operators": made.operations, "score": score},
    )


def _without_folds(problem: Problem, basis: Basis, beside: int) -> FoldPlan:
    """What given penalties need: coordinates, and nothing to predict."""
    analyze = basis.rows_tr.astype(problem.X.dtype)
    nodes = Nodes(problem.alphas[:1], np.ones((len(problem.alphas), 1)), 0.0, (0.0, basis.top))
    cost = {"operators": 0.0, "score": 2.0 * analyze.size}
    return FoldPlan(problem, nodes, (), (), (), basis.lam, analyze, basis.tau, basis.root_t, 1.0, beside, cost)


def _leave_out(basis: Basis, folds: list[Fold], threads: int) -> list[Left]:
    if sum(len(test) for _, test in folds) <= 2 * len(folds):  # rows by themselves: threads would wait for the interpreter
        return [leave_out(basis, fold) for fold in folds]
    return together([partial(leave_out, basis, fold) for fold in folds], threads)


def _partition(lefts: list[Left], n: int) -> bool:
    return sum(len(left.rows) for left in lefts) == n == len(np.unique(np.concatenate([left.rows for left in lefts])))


def _interval(basis: Basis, lefts: list[Left], voxels: int, threads: int) -> tuple[float, float]:
    """Bounds of the positive eigenvalues of every training Gram; 0 where no lower one is known.

    Exact where a narrower interval saves more (a node for every voxel) than the eigenvalues of every fold cost.
    """
    (n, r), top = basis.rows_tr.shape, basis.top * max(int(np.bincount(left.train).max()) for left in lefts)  # rows may repeat
    if not r or basis.lam[0] < 0.01 * basis.tau:
        return 0.0, top  # far below the smallest penalty: no node is saved by knowing it
    if basis.complete:  # training kernels are compressions of the whole one
        return float(basis.lam[0]), top
    worst = max(left.condition for left in lefts)
    if worst <= 1e6 and len(lefts) * r**3 * 1.4 / EIGH_RATE < 0.3 * voxels * 2.0 * n * r / voxel_rate(4):
        found = together([partial(training_extremes, basis, left) for left in lefts], threads)
        return 0.999 * min(low for low, _ in found), 1.001 * max(high for _, high in found)
    # Training Gram + τ ≥ λ_min(I − H) (whole Gram + τ).
    return max(0.0, float((basis.lam[0] + basis.tau) / worst - basis.tau)), top
