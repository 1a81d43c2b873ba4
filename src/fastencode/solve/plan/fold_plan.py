"""One decomposition of the design with its nodes and the operators of every fold (docs/solver.md, 3 and 4).

A ridge problem has one fold plan, and V for its weights (``plan.py``). A banded problem has one for each weighting of its bands
(``search/search.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, Device
from fastencode.solve.given.folds import Fold
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.basis import Basis
from fastencode.solve.plan.cost import EIGH_RATE, NOMINAL_VOXELS, voxel_rate
from fastencode.solve.plan.leave_out import Left, leave_out, training_extremes
from fastencode.solve.plan.nodes import TOLERANCE, Nodes, choose_nodes
from fastencode.solve.plan.operators import LIMITS, Operator, Request, WholeFolds, make_operators
from fastencode.threads import limit_threads, together

__all__ = ["FoldPlan", "plan_folds", "planned_on"]

T = TypeVar("T")
# A device plans where both sides of X are at least this long: below, its calls cost more than they save.
_LEAST = 256
# Whether a score does not depend on the size of predictions, so that nodes need errors relative to it. None: any score may follow.
RELATIVE = {None: True, "pearson": True, "r2": False, "neg_mean_squared_error": False}
# Rounding of the smallest eigenvalue of I − H, whose largest is at most 1.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False, repr=False)
class FoldPlan:
    """One decomposition of the design, ready to score responses at every penalty.

    Attributes
    ----------
    problem : Problem
        The checked design, folds and penalties.
    nodes : Nodes
        The penalties at which predictions are made, and the mix that gives those at the other penalties.
    operators : tuple of Operator
        The operators of folds that are predicted one by one.
    whole : tuple of WholeFolds
        The operators of folds that are predicted together, one for each size.
    order : tuple of int
        Which of the problem's folds each of these is: first those of ``operators``, then those of ``whole``.
    lam : (r,) float64
        λ: eigenvalues of the Gram of all rows.
    analyze : (t, r)
        U_τ in the dtype of the problem: coordinates of responses are c = U_τᵀ y.
    tau : float
        τ in U_τ = U diag(√(λ / (λ + τ))).
    root : (t,) float64
        Square roots of the sample weights.
    condition : float
        κ: the largest of all folds, by which rounding may grow (``leave_out.Left``).
    beside : int
        Bytes of other arrays that are kept as long as the plan is.
    cost : dict
        Operations of making the ``operators``, and of ``score`` for one voxel.
    """

    problem: Problem
    nodes: Nodes
    operators: tuple[Operator, ...]
    whole: tuple[WholeFolds, ...]
    order: tuple[int, ...]
    lam: F64
    analyze: NDArray[Any]
    tau: float
    root: F64
    condition: float
    beside: int
    cost: dict[str, float]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows whose sample weight is not zero, features) of the design."""
        n, p = self.problem.X.shape
        return int(n), int(p)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of responses and results."""
        return np.dtype(self.problem.X.dtype)

    @property
    def rounding(self) -> float:
        """Rounding of predictions, in standard deviations of a voxel.

        ρ = 8 (eps max(√r, min(κ, limit of *apart*)) + eps(float64) min(κ, 1e6)).
        """
        eps = np.finfo(self.dtype).eps, np.finfo(np.float64).eps
        lost = max(np.sqrt(max(1, len(self.lam))), min(self.condition, LIMITS[self.dtype.itemsize]["apart"]))
        return 8.0 * float(eps[0] * lost + eps[1] * min(self.condition, LIMITS[8]["train"]))

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.problem.folds)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, without X."""
        copies = sum(f.analyze_lr.nbytes for f in self.operators if f.analyze_lr.base is None)
        made = sum(f.map.nbytes for f in self.operators) + sum(w.nbytes for w in self.whole)
        return self.analyze.nbytes + self.beside + copies + made


def planned_on(device: Device, problem: Problem, make: Callable[[Device], T]) -> T:
    """``make(device)``; ``make(HOST)`` where the problem is small, or where memory of the device runs out."""
    n, p = problem.X.shape
    if device is HOST or min(n, p or n) < _LEAST:  # without columns where only kernels are known
        return make(HOST)
    try:
        with device.current(), device.precision(np.float32, False):
            return make(device)
    except Exception as error:
        if not device.is_out_of_memory(error):
            raise
    device.free_cached()  # here, where the error's frames hold nothing any more
    return make(HOST)


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
    """Choose the nodes of a decomposed design and make the operators of all folds.

    Parameters
    ----------
    problem : Problem
    basis : Basis
    threads : int
    beside : int
        Bytes of other arrays that are kept as long as the plan is.
    n_voxels : int, optional
        Expected voxels.
    scoring : str, optional
        How voxels will be scored. None or "pearson": nodes also serve correlation, which takes more of them than squared errors.
    stored : str, optional
        The map (``maps.py``) of every fold that allows it, or the form of large folds. None: the cheapest.
    """
    if not problem.folds:
        return _without_folds(problem, basis, beside)
    lefts = _leave_out(basis, problem.folds, threads)
    relative = RELATIVE[scoring]
    itemsize = problem.X.dtype.itemsize
    voxels = NOMINAL_VOXELS if n_voxels is None else n_voxels
    interval = _interval(basis, lefts, voxels, threads)
    with limit_threads(1):  # matrices are small: waking a second thread takes longer than it saves
        nodes = choose_nodes(problem.alphas, interval, basis.top, TOLERANCE[itemsize], relative)
    analyze = basis.rows_tr.astype(problem.X.dtype)
    kept = analyze.nbytes + beside
    request = Request(nodes.alphas, TOLERANCE[itemsize], relative, voxels, problem.memory, kept, threads, stored)
    made = make_operators(basis, lefts, request, analyze)
    n, r = analyze.shape
    analyzed = n + (0 if _partition(lefts, n) else sum(len(f.left) for f in made.single if f.form == "apart"))
    score = 2.0 * r * analyzed + sum(f.map.operations for f in made.single) + sum(w.operations for w in made.whole)
    return FoldPlan(
        problem=problem,
        nodes=nodes,
        operators=made.single,
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
    # One or two rows a fold: threads would wait for the interpreter.
    if basis.device is not HOST or sum(len(test) for _, test in folds) <= 2 * len(folds):
        return [leave_out(basis, fold) for fold in folds]
    return together([partial(leave_out, basis, fold) for fold in folds], threads)


def _partition(lefts: list[Left], n: int) -> bool:
    return sum(len(left.rows) for left in lefts) == n == len(np.unique(np.concatenate([left.rows for left in lefts])))


def _interval(basis: Basis, lefts: list[Left], voxels: int, threads: int) -> tuple[float, float]:
    """(lower, upper) bound of the positive eigenvalues of every training Gram; the lower is 0 where none is known.

    The eigenvalues of every fold are computed where that costs less than the narrower interval saves: one node of every voxel.
    """
    (n, r), top = basis.rows_tr.shape, basis.top * max(int(np.bincount(left.train).max()) for left in lefts)  # rows may repeat
    if not r or basis.lam[0] < 0.01 * basis.tau:
        return 0.0, top  # λ_min is far below the smallest penalty: knowing it saves no node
    if basis.complete:  # a training kernel is a compression of the whole kernel, so its λ_min is no smaller
        return float(basis.lam[0]), top
    worst = max(left.condition for left in lefts)
    if worst <= 1e6 and len(lefts) * r**3 * 1.4 / EIGH_RATE < 0.3 * voxels * 2.0 * n * r / voxel_rate(4):
        threads = threads if basis.device is HOST else 1
        found = together([partial(training_extremes, basis, left) for left in lefts], threads)
        return 0.999 * min(low for low, _ in found), 1.001 * max(high for _, high in found)
    # Training Gram + τ ≥ λ_min(I − H) (whole Gram + τ), where λ_min(I − H) is known to some eps.
    smallest = 1.0 / worst - _ROUNDING
    return max(0.0, float((basis.lam[0] + basis.tau) * smallest - basis.tau)), top
