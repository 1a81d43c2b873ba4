"""The cost of each way to solve a problem, and the choice between them (docs/solver.md, 3 and 9).

Operations are multiplications plus additions of the matrix products and decompositions. Elementwise work is not counted: it is
smaller by a factor of about the number of rows. Seconds are operations divided by nominal rates; they serve to compare
candidates only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fastencode.delayed import Delayed
from fastencode.errors import InputError
from fastencode.kernels import has_tiles
from fastencode.solve.given.problem import Problem

__all__ = [
    "EIGH_RATE",
    "GEMM_RATE",
    "NOMINAL_VOXELS",
    "SEGMENTED",
    "WHOLE_ROWS",
    "Candidate",
    "FoldSize",
    "Load",
    "MapCost",
    "choose",
    "made_last",
    "map_costs",
    "voxel_rate",
    "whole_cost",
]

# docs/solver.md, 9 has the machine, the script and the width of the optimum of each number.
# Nominal rates of one core, operations per second: products by item size; the eigensolver, half of whose work waits for memory.
GEMM_RATE = {8: 3.5e10, 4: 7.5e10}
EIGH_RATE = 2.5e10
EIGH_OPERATIONS = 9.0  # times size cubed: reduction, divide and conquer, back-transformation
# Rate of float32 products on matrix tiles over that of BLAS; time of products of segments there, over that of plain products, is
# SEGMENTED times the second number.
_TILES, _TILES_SEGMENTED = 1.65, 1.4
NOMINAL_VOXELS = 10_000
# Folds with at most this many held-out rows may take the form "whole"; key: is the basis complete (usual where p > n)?
WHOLE_ROWS = {True: 1024, False: 32}
# Nodes and segments are known only after the decomposition. Candidates are compared at this many nodes, of which segments leave
# this many products a row.
_NODES, _PRODUCTS = 8, 6
# Time of products of segments over their operations at the nominal rate: they are written, read again and mixed.
SEGMENTED = 1.3


def voxel_rate(itemsize: int) -> float:
    """Nominal rate of one core, operations per second, in the products of tiles of voxels."""
    return GEMM_RATE[itemsize] * (_TILES if itemsize == 4 and has_tiles() else 1.0)


def _segmented(itemsize: int) -> float:
    return SEGMENTED * (_TILES_SEGMENTED if itemsize == 4 and has_tiles() else 1.0)


@dataclass(frozen=True)
class Candidate:
    """One way to solve the problem, and its expected cost.

    Attributes
    ----------
    name : {"primal", "dual"}
        Whether the p × p or the n × n Gram is decomposed.
    gram, decompose, operators : float
        Operations of planning: the Gram; its eigendecomposition; the operators of all folds at all nodes.
    per_voxel : float
        Operations for each voxel, scores and refit.
    kept, working : int
        Bytes beyond X: those that the plan keeps; those that only planning needs.
    seconds : float
        Expected time of planning plus all voxels, at nominal rates.
    """

    name: str
    gram: float
    decompose: float
    operators: float
    per_voxel: float
    kept: int
    working: int
    seconds: float

    @property
    def bytes(self) -> int:
        """Peak memory of planning beyond X."""
        return self.kept + self.working


class FoldSize(NamedTuple):
    """Rows of a fold: left out (all that are not training rows), test, training."""

    left: int
    test: int
    train: int


class Load(NamedTuple):
    """The numbers that the costs of every fold of a plan depend on.

    Attributes
    ----------
    rank : int
        Directions of the basis.
    nodes : int
        Penalties at which held-out responses are predicted.
    shrinkage : float
        Operations of one row and one voxel at all nodes, with the spectrum cut into segments.
    itemsize : int
        Bytes of a number: 4 or 8.
    voxels : int
        Expected voxels.
    """

    rank: int
    nodes: int
    shrinkage: float
    itemsize: int
    voxels: int


def _solve_operations(size: FoldSize, rank: int, train_form: bool) -> float:
    """Operations of one fold's operator at one node."""
    left, test, train = size
    if train_form:
        return 2.0 * left * rank * (left + train) + left**3 / 3 + 2.0 * left * left * train
    if left <= rank:
        return 4.0 * left * left * rank + left**3 / 3
    return rank**3 / 3 + 2.0 * test * rank * rank


@dataclass(frozen=True)
class MapCost:
    """The cost of one way to predict a fold (``maps.py``).

    Attributes
    ----------
    name : {"merged", "factored", "rotated", "whole"}
    plan : float
        Operations to make the map.
    voxel : float
        Operations for each voxel.
    kept : int
        Bytes of the map.
    seconds : float
        Expected on one core for making the map and predicting all voxels, at nominal rates.
    """

    name: str
    plan: float
    voxel: float
    kept: int
    seconds: float


def map_costs(size: FoldSize, load: Load, train_form: bool) -> list[MapCost]:
    """The ways to predict one fold. With ``train_form`` its map starts from the training responses, not from coordinates."""
    (left, test, train), (rank, nodes, shrinkage, itemsize, voxels) = size, load
    across, own_rank = (train, min(train, rank)) if train_form else (rank, rank)
    solve = nodes * _solve_operations(size, rank, train_form)
    ways = [("merged", solve, 0.0, 2.0 * nodes * test * across, nodes * test * across)]
    if not train_form:
        invert = nodes * (2.0 * left * left * rank + left**3)
        pushed = _segmented(itemsize) * left * shrinkage
        ways.append(("factored", invert, 0.0, pushed + 2.0 * nodes * test * left, nodes * test * left))
        turn = 2.0 * rank * rank * (left + test)
    else:
        turn = own_rank * own_rank * (max(train, rank) + 2.0 * test) + 2.0 * test * rank * train
    own, pushed = EIGH_OPERATIONS * own_rank**3, _segmented(itemsize) * test * shrinkage * own_rank / max(1, rank)
    ways.append(("rotated", turn, own, 2.0 * own_rank * across + pushed, own_rank * (across + test)))

    def seconds(plan: float, own: float, voxel: float) -> float:
        return plan / GEMM_RATE[8] + own / EIGH_RATE + voxels * voxel / voxel_rate(itemsize)

    return [MapCost(name, plan + own, voxel, itemsize * kept, seconds(plan, own, voxel)) for name, plan, own, voxel, kept in ways]


def whole_cost(rows: int, load: Load) -> MapCost:
    """One of the folds that are predicted together, each of ``rows`` rows. Counts the blocks ``far_kbmm``, not ``near_kbmm``."""
    rank, nodes, shrinkage, itemsize, voxels = load
    plan = nodes * (2.0 * rows * rows * rank + rows**3)
    voxel = _segmented(itemsize) * rows * shrinkage + 2.0 * nodes * rows * rows
    seconds = plan / GEMM_RATE[8] + voxels * voxel / voxel_rate(itemsize)
    return MapCost("whole", plan, voxel, itemsize * nodes * rows * rows, seconds)


def made_last(problem: Problem, dual: bool, n_voxels: int | None) -> bool:
    """Whether weights are made last: after all voxels are scored, from blocks of V (p, r), so that V never exists in full.

    Only for a single fit on the CPU: a plan that may serve again and a device need all of V. A single fit takes no more
    operations this way. Deferring holds 2 n r numbers (see ``weights/ridge.py``), so it saves memory only if p > 2 n.
    """
    n, p = problem.X.shape
    return dual and problem.device == "cpu" and n_voxels is not None and p > 2 * n


def choose(
    problem: Problem, threads: int, n_voxels: int | None = None, only: str | None = None, beside: tuple[int, int] = (0, 0)
) -> tuple[Candidate, tuple[Candidate, ...], str]:
    """(candidate with the least expected time that fits in memory, all candidates, reason).

    Parameters
    ----------
    problem : Problem
    threads : int
    n_voxels : int, optional
        Expected voxels; None stands for :data:`NOMINAL_VOXELS`.
    only : {"primal", "dual"}, optional
        The candidate to take, whatever its time.
    beside : (int, int)
        Bytes that are kept beside the plan, with the primal and with the dual.

    Raises
    ------
    InputError
        If ``problem.memory`` holds no candidate.
    """
    (n, p), memory = problem.X.shape, problem.memory
    voxels = NOMINAL_VOXELS if n_voxels is None else n_voxels
    last = made_last(problem, True, n_voxels)
    candidates = tuple(_cost(problem, dual, threads, voxels, beside[dual], dual and last) for dual in (False, True))
    fitting = [c for c in candidates if (memory is None or c.bytes <= memory) and only in (None, c.name)]
    if not fitting:
        least = min(c.bytes for c in candidates if only in (None, c.name))
        raise InputError(
            f"memory={memory} bytes is too small to plan with: the smallest that works is {least} bytes, plus tiles of responses"
        )
    # With as many features as rows both take the same time. Then the dual: it keeps more digits of predictions near zero.
    best = min(fitting, key=lambda c: (c.seconds, c.name != "dual"))
    other = next(c for c in candidates if c is not best)
    if only is not None:
        return best, candidates, "asked for by name"
    reason = f"{p} features against {n} rows, {other.seconds / best.seconds:.3g} x the speed expected of {other.name}"
    if other.seconds < best.seconds:
        reason += f", which needs {other.bytes} bytes to plan and memory= allows {memory}"
    return best, candidates, reason


def _cost(problem: Problem, dual: bool, threads: int, voxels: int, beside: int, last: bool) -> Candidate:
    (n, p), itemsize, nodes = problem.X.shape, problem.X.dtype.itemsize, min(len(problem.alphas), _NODES)
    rank, side = min(n, p), n if dual else p
    sizes = [FoldSize(n - len(train), len(test), len(train)) for train, test in problem.folds]
    width = p
    if isinstance(problem.X, Delayed):  # one kernel serves all copies; the primal Gram is of all copies
        width = sum(part.width for part in problem.X.parts)
    gram = 2.0 * n * n * width if dual else 2.0 * n * p * p
    decompose = EIGH_OPERATIONS * float(side) ** 3
    per_row, complete = 2.0 * rank * min(nodes, _PRODUCTS), rank >= n - problem.fit_intercept
    load = Load(rank, nodes, per_row, itemsize, voxels)
    each = dict.fromkeys(sizes)  # thousands of folds have few sizes
    fastest = {size: min(map_costs(size, load, complete), key=lambda c: c.seconds) for size in each}
    maps = [fastest[size] for size in sizes]
    operators = 2.0 * n * p * rank + sum(c.plan for c in maps)
    per_voxel = 2.0 * n * rank + 2.0 * p * rank + sum(c.voxel for c in maps)
    seconds = (gram + 2.0 * n * p * rank) / GEMM_RATE[8] + decompose / EIGH_RATE + sum(c.seconds for c in maps)
    seconds += voxels * (2.0 * n * rank + 2.0 * p * rank) / voxel_rate(itemsize)
    least = {size: _least(size, load._replace(nodes=len(problem.alphas)), complete) for size in each}
    operator_bytes = sum(least[size] for size in sizes)
    # An eigendecomposition holds its matrix, the vectors and about two more such matrices in LAPACK; then comes U_τ in float64.
    return Candidate(
        name="dual" if dual else "primal",
        gram=gram,
        decompose=decompose,
        operators=operators,
        per_voxel=per_voxel,
        kept=beside + itemsize * rank * (n + (2 * n if last else p)) + operator_bytes,
        working=8 * (4 * side * side + n * rank),
        seconds=seconds / threads,
    )


def _least(size: FoldSize, load: Load, complete: bool) -> int:
    """Bytes of a fold's leanest operator: its map (of a small fold, two blocks a node) and a copy of its rows of U_τ."""
    leanest = min(c.kept for c in map_costs(size, load, complete))
    blocks = 2 * load.itemsize * load.nodes * size.test**2 if size.test <= WHOLE_ROWS[False] else 0
    return load.itemsize * size.left * load.rank + max(leanest, blocks)
