"""Primal or dual: what each would cost, counted before anything is computed, and the choice with its reasons.

Operations are multiplications plus additions of the matrix products and decompositions; elementwise work is left out (it is
below one part in the number of rows). Seconds are those operations at nominal rates, only to compare candidates with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastencode.errors import InputError
from fastencode.solve.folds import Fold

__all__ = ["Candidate", "choose", "tile_bytes", "voxel_operations"]

# Nominal rates of one core, operations per second: products in float64 and float32, and the blocked tridiagonal eigensolver, half
# of whose work is bound by memory.
GEMM_RATE = {8: 2.0e10, 4: 4.0e10}
EIGH_RATE = 7.0e9
EIGH_OPERATIONS = 9.0  # times size cubed: reduction, divide and conquer, back-transformation
NOMINAL_VOXELS = 10_000


@dataclass(frozen=True)
class Candidate:
    """One way to solve the problem and what it costs.

    Attributes
    ----------
    name : {"primal", "dual"}
    gram, decompose, operators : float
        Operations of planning: Grams; eigendecompositions; the maps into and out of the eigenbasis.
    per_voxel : float
        Operations for each voxel, scores and refit.
    kept, shared, worker : int
        Bytes beyond X: what the plan keeps; the total Gram; one decomposition at work.
    seconds : float
        Expected for planning plus ``NOMINAL_VOXELS`` voxels, at nominal rates.
    """

    name: str
    gram: float
    decompose: float
    operators: float
    per_voxel: float
    kept: int
    shared: int
    worker: int
    seconds: float

    @property
    def plan_operations(self) -> float:
        """Operations of planning."""
        return self.gram + self.decompose + self.operators

    def bytes(self, workers: int = 1) -> int:
        """Peak memory of planning beyond X, with that many decompositions at work."""
        return self.kept + self.shared + workers * self.worker

    def workers(self, most: int, memory: int | None) -> int:
        """How many decompositions may work at once; 0 if memory does not hold one."""
        if memory is None:
            return most
        return max(0, min(most, (memory - self.kept - self.shared) // max(1, self.worker)))


def voxel_operations(folds: list[Fold], n: int, p: int, n_alphas: int, dual: bool) -> tuple[float, float]:
    """Operations for one voxel: (scoring over all folds and penalties, refit)."""
    rank = [min(p, len(train)) for train, _ in folds]
    scoring = sum(2.0 * r * (len(train) + n_alphas * len(test)) for r, (train, test) in zip(rank, folds, strict=True))
    r = min(p, n)
    refit = 2.0 * r * n + (2.0 * n * r + 2.0 * p * n if dual else 2.0 * p * r)
    return scoring, refit


def tile_bytes(n: int, p: int, width: int, itemsize: int) -> int:
    """Working memory of one thread on one tile of responses."""
    rank = min(p, n)
    rows = 3 * n + 2 * rank + p  # responses, their training and held-out rows, predictions; coefficients and scaled ones; weights
    return width * (itemsize * rows + 8 * (n + rank + p))


def choose(
    folds: list[Fold],
    n: int,
    p: int,
    n_alphas: int,
    itemsize: int,
    threads: int,
    memory: int | None = None,
    only: str | None = None,
) -> tuple[Candidate, tuple[Candidate, ...], str]:
    """The candidate with the least expected time that fits in memory, all candidates, and the reason; ``only`` forces one.

    Raises
    ------
    InputError
        If ``memory`` holds none of them.
    """
    candidates = tuple(_cost(dual, folds, n, p, n_alphas, itemsize, threads) for dual in (False, True))
    fitting = [c for c in candidates if c.workers(1, memory) and only in (None, c.name)]
    if not fitting:
        least = min(c.bytes() for c in candidates if only in (None, c.name))
        raise InputError(
            f"memory={memory} bytes is too small to plan with: the smallest that works is {least} bytes, plus tiles of responses"
        )
    best = min(fitting, key=lambda c: c.seconds)
    other = next(c for c in candidates if c is not best)
    if only is not None:
        return best, candidates, "asked for by name"
    n_train = max(len(train) for train, _ in folds)
    speed = other.seconds / best.seconds
    reason = f"{p} features against {n_train} training rows, {speed:.3g} x the speed expected of {other.name}"
    if other.seconds < best.seconds:
        reason += f", which needs {other.bytes()} bytes to plan and memory= allows {memory}"
    return best, candidates, reason


def _cost(dual: bool, folds: list[Fold], n: int, p: int, n_alphas: int, itemsize: int, threads: int) -> Candidate:
    trains = np.array([len(train) for train, _ in folds], dtype=float)
    tests = np.array([len(test) for _, test in folds], dtype=float)
    ranks, rank = np.minimum(p, trains), min(p, n)
    if dual:
        gram = 2.0 * n * n * p
        decompose = EIGH_OPERATIONS * float((trains**3).sum() + n**3)
        operators = 2.0 * float((tests * trains * ranks).sum())
        side, kept = n, rank * 2 * n + n * p
    else:
        gram = 1.0 * n * p * p + float((np.clip(n - trains, 0, trains) * p * p).sum())
        decompose = EIGH_OPERATIONS * (len(folds) + 1) * float(p) ** 3
        operators = 2.0 * p * (float(((trains + tests) * ranks).sum()) + n * rank)
        side, kept = p, rank * (n + p)
    kept = int(itemsize * (float((ranks * (trains + tests)).sum()) + kept))
    per_voxel = sum(voxel_operations(folds, n, p, n_alphas, dual))
    seconds = (gram + operators) / GEMM_RATE[8] + decompose / EIGH_RATE + NOMINAL_VOXELS * per_voxel / GEMM_RATE[itemsize]
    # An eigendecomposition holds its matrix, the vectors, and about two more of LAPACK's.
    return Candidate(
        name="dual" if dual else "primal",
        gram=gram,
        decompose=decompose,
        operators=operators,
        per_voxel=per_voxel,
        kept=kept,
        shared=8 * side * side,
        worker=5 * 8 * side * side,
        seconds=seconds / threads,
    )
