"""What each way of solving costs, and which to take.

Counted are multiplications plus additions of the matrix products and decompositions; elementwise work is left out (it is
below one part in the number of rows). Seconds are those operations at nominal rates, only to compare candidates with.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastencode.errors import InputError
from fastencode.solve.problem import Problem

__all__ = ["EIGH_RATE", "GEMM_RATE", "NOMINAL_VOXELS", "Candidate", "choose", "solve_operations", "voxel_operations"]

# Nominal rates of one core, operations per second: products in float64 and float32, and the blocked tridiagonal eigensolver, half
# of whose work is bound by memory.
GEMM_RATE = {8: 3.5e10, 4: 7.5e10}
EIGH_RATE = 2.5e10
EIGH_OPERATIONS = 9.0  # times size cubed: reduction, divide and conquer, back-transformation
NOMINAL_VOXELS = 10_000
# Nodes are known only after the decomposition; candidates are compared at this many.
_NODES = 8


@dataclass(frozen=True)
class Candidate:
    """One way to solve the problem and what it is expected to cost.

    Attributes
    ----------
    name : {"primal", "dual"}
        Whether the p × p or the n × n Gram is decomposed.
    gram, decompose, operators : float
        Operations of planning: the Gram; its eigendecomposition; the operators of all folds at all nodes.
    per_voxel : float
        Operations for each voxel, scores and refit.
    kept, working : int
        Bytes beyond X: what the plan keeps; what planning needs meanwhile.
    seconds : float
        Expected for planning plus all voxels, at nominal rates.
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


def solve_operations(left: int, test: int, train: int, rank: int, dual: bool) -> float:
    """Operations of one fold's operator at one node."""
    if dual:
        return 2.0 * left * rank * (left + train) + left**3 / 3 + 2.0 * left * left * train
    if left <= rank:
        return 4.0 * left * left * rank + left**3 / 3
    return rank**3 / 3 + 2.0 * test * rank * rank


def voxel_operations(inner: list[tuple[int, int]], analyzed: int, n: int, p: int, rank: int, nodes: int) -> tuple[float, float]:
    """Operations for one voxel: (scoring, refit).

    ``inner`` has (rows held out, inner dimension) of every fold's products, ``analyzed`` the rows that go into coordinates.
    """
    return 2.0 * rank * analyzed + nodes * sum(2.0 * m * q for m, q in inner), 2.0 * p * rank


def choose(
    problem: Problem, threads: int, n_voxels: int | None = None, only: str | None = None
) -> tuple[Candidate, tuple[Candidate, ...], str]:
    """The candidate with the least expected time that fits in memory, all candidates, and the reason; ``only`` forces one.

    Raises
    ------
    InputError
        If ``memory`` holds none of them.
    """
    (n, p), memory = problem.X.shape, problem.memory
    voxels = NOMINAL_VOXELS if n_voxels is None else n_voxels
    candidates = tuple(_cost(problem, dual, threads, voxels) for dual in (False, True))
    fitting = [c for c in candidates if (memory is None or c.bytes <= memory) and only in (None, c.name)]
    if not fitting:
        least = min(c.bytes for c in candidates if only in (None, c.name))
        raise InputError(
            f"memory={memory} bytes is too small to plan with: the smallest that works is {least} bytes, plus tiles of responses"
        )
    best = min(fitting, key=lambda c: c.seconds)
    other = next(c for c in candidates if c is not best)
    if only is not None:
        return best, candidates, "asked for by name"
    reason = f"{p} features against {n} rows, {other.seconds / best.seconds:.3g} x the speed expected of {other.name}"
    if other.seconds < best.seconds:
        reason += f", which needs {other.bytes} bytes to plan and memory= allows {memory}"
    return best, candidates, reason


def _cost(problem: Problem, dual: bool, threads: int, voxels: int) -> Candidate:
    (n, p), itemsize, nodes = problem.X.shape, problem.X.dtype.itemsize, min(len(problem.alphas), _NODES)
    rank, side = min(n, p), n if dual else p
    sizes = [(n - len(train), len(test), len(train)) for train, test in problem.folds]
    gram = 2.0 * n * n * p if dual else 2.0 * n * p * p
    decompose = EIGH_OPERATIONS * float(side) ** 3
    operators = 2.0 * n * p * rank + nodes * sum(solve_operations(m, t, s, rank, dual) for m, t, s in sizes)
    inner = [(t, s if dual else rank) for _, t, s in sizes]
    kept = itemsize * (rank * (n + p) + nodes * sum(t * q for t, q in inner))
    seconds = (gram + operators) / GEMM_RATE[8] + decompose / EIGH_RATE
    per_voxel = sum(voxel_operations(inner, n, n, p, rank, nodes))
    # An eigendecomposition holds its matrix, the vectors, and about two more of LAPACK's; then the basis in float64.
    return Candidate(
        name="dual" if dual else "primal",
        gram=gram,
        decompose=decompose,
        operators=operators,
        per_voxel=per_voxel,
        kept=int(kept),
        working=8 * (4 * side * side + n * rank),
        seconds=(seconds + voxels * per_voxel / GEMM_RATE[itemsize]) / threads,
    )
