"""Everything about a ridge problem that depends on X only, computed once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.fit import RidgeFit
from fastencode.solve.problem import Problem
from fastencode.solve.spectral import DualBuilder, FoldSpectrum, FullSpectrum, PrimalBuilder
from fastencode.solve.strategy import NOMINAL_VOXELS, Candidate, choose
from fastencode.solve.tiles import fit_plan
from fastencode.threads import available_threads, limit_threads

__all__ = ["DEFAULT_ALPHAS", "RidgePlan", "make_plan", "plan_ridge"]

DEFAULT_ALPHAS = np.logspace(0, 6, 20)
DEFAULT_ALPHAS.flags.writeable = False

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class RidgePlan:
    """Grams, decompositions and strategy of a ridge problem: holds no responses, serves any number of them.

    Made by :func:`plan_ridge`. ``print(plan)`` shows what was chosen, what each candidate would cost, and why.

    Attributes
    ----------
    problem : Problem
        The checked design, folds and penalties.
    folds : tuple of FoldSpectrum
        One decomposition for each fold.
    full : FullSpectrum
        The decomposition of all rows, for the refit.
    feature_means : (p,) float64
        Subtracted from X; zeros without an intercept.
    strategy : {"primal", "dual"}
    reason : str
    candidates : tuple of Candidate
    seconds : dict
        Wall time of each stage of planning.
    """

    problem: Problem
    folds: tuple[FoldSpectrum, ...]
    full: FullSpectrum
    feature_means: NDArray[np.float64]
    strategy: str
    reason: str
    candidates: tuple[Candidate, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features of the design."""
        n, p = self.problem.X.shape
        return int(n), int(p)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What responses are converted to and results come in."""
        return np.dtype(self.problem.X.dtype)

    @property
    def chosen(self) -> Candidate:
        """The cost of the strategy in use."""
        return next(c for c in self.candidates if c.name == self.strategy)

    @property
    def nbytes(self) -> int:
        """Bytes the plan keeps, X not counted."""
        parts = [a for f in self.folds for a in (f.analyze, f.predict, f.lam)] + [self.full.analyze, self.full.basis]
        if self.full.features is not None and self.full.features.base is not self.problem.X:
            parts.append(self.full.features)
        return sum(a.nbytes for a in parts)

    def fit(self, Y: Any, *, scoring: str = "r2", per_target: bool = True, progress: bool = False) -> RidgeFit:
        """Choose each voxel's penalty and fit its weights.

        Parameters
        ----------
        Y : (t, v) or (t,) array, memory map, torch tensor or h5py dataset
            Responses. Converted to the plan's dtype tile by tile; never written to.
        scoring : {"r2", "pearson", "neg_mean_squared_error"}
            Score on held-out rows that the penalty is chosen by.
        per_target : bool
            False chooses one penalty for all voxels, by their mean score.
        progress : bool
            Show a progress bar on standard error.

        Returns
        -------
        RidgeFit

        Raises
        ------
        InputError
            If Y does not fit the plan, or holds NaN or infinite values.
        """
        return fit_plan(self, Y, scoring=scoring, per_target=per_target, progress=progress)

    def __repr__(self) -> str:
        n, p = self.shape
        return f"<RidgePlan {n} x {p} {self.dtype}, {len(self.folds)} folds, {len(self.problem.alphas)} alphas, {self.strategy}>"

    def __str__(self) -> str:
        (n, p), alphas, problem = self.shape, self.problem.alphas, self.problem
        lines = [
            f"RidgePlan: {n} rows x {p} features, {self.dtype}, {len(self.folds)} folds, "
            f"{len(alphas)} penalties {alphas[0]:.4g} to {alphas[-1]:.4g}, {'an' if problem.fit_intercept else 'no'} intercept, "
            f"precision {problem.precision}, {problem.device}",
            f"  {'strategy':<10}{'Gram':>10}{'decompose':>11}{'operators':>11}{'per voxel':>11}{'memory':>11}{'expected':>10}",
        ]
        for c in self.candidates:
            mark = "*" if c.name == self.strategy else " "
            lines.append(
                f"{mark} {c.name:<10}{c.gram:>10.2e}{c.decompose:>11.2e}{c.operators:>11.2e}{c.per_voxel:>11.2e}"
                f"{c.bytes() / 1e6:>8.1f} MB{c.seconds:>8.2g} s"
            )
        ranks = [len(f.lam) for f in self.folds]
        lines += [
            f"  operations, and seconds at nominal rates for planning and {NOMINAL_VOXELS} voxels",
            f"  chosen: {self.strategy}, because {self.reason}",
            f"  keeps {self.nbytes / 1e6:.1f} MB; {min(ranks)} to {max(ranks)} directions per fold, "
            f"{len(self.full.lam)} for the refit",
        ]
        if self.seconds:
            lines.append("  took " + ", ".join(f"{name} {s:.3g} s" for name, s in self.seconds.items()))
        return "\n".join(lines)


def plan_ridge(
    X: Any,
    *,
    alphas: Any = DEFAULT_ALPHAS,
    cv: Any = 5,
    runs: Any = None,
    fit_intercept: bool = True,
    precision: str = "exact",
    device: Any = None,
    memory: int | str | None = None,
) -> RidgePlan:
    """Do everything about a ridge problem that depends on X only, once, for any number of responses.

    Parameters
    ----------
    X : (t, p) array, NumPy or torch
        Features. Float32 is computed and stored in float32 (Grams and their decompositions in float64), everything else in
        float64. Never written to; a plan may keep a reference to it, so do not change it while the plan is in use.
    alphas : (A,) array-like
        Penalties, the weight on ‖b‖² (scikit-learn's). Codes whose penalty is a square root of that, such as the Huth lab's
        ``ridge.py``, want ``alphas ** 2`` here. Positive; sorted and freed of duplicates.
    cv : int, "runs", splitter or list of (train, test)
        An int is that many contiguous blocks, or with ``runs`` whole runs, balanced; ``"runs"`` leaves one run out; anything
        with ``split(X, y, groups)``; or explicit indices. Test sets may overlap and need not cover the rows.
    runs : (t,) array-like, optional
        Run label of every row.
    fit_intercept : bool
        Whether to fit a constant, which is not penalised.
    precision : {"exact", "fast"}
        "exact" is accurate to the dtype. "fast" may score in reduced precision; on a CPU it computes the same as "exact".
    device : None or "cpu"
        Where to compute: the CPU.
    memory : int or str, optional
        Working memory in bytes or as text ("2GB"), beyond X, Y and the weights. Decides how much is done at once, and whether a
        strategy is possible; never changes a result except through the strategy.

    Returns
    -------
    RidgePlan

    Raises
    ------
    InputError
        For a bad argument: the message names the value and the next step.
    DeviceError
        If the device does not exist.
    """
    problem = Problem.check(
        X, alphas=alphas, cv=cv, runs=runs, fit_intercept=fit_intercept, precision=precision, device=device, memory=memory
    )
    return make_plan(problem)


def make_plan(problem: Problem, strategy: str | None = None) -> RidgePlan:
    """Plan a checked problem; ``strategy`` forces ``"primal"`` or ``"dual"``."""
    began = time.perf_counter()
    n, p = problem.X.shape
    threads = available_threads()
    best, candidates, reason = choose(
        problem.folds, n, p, len(problem.alphas), problem.X.dtype.itemsize, threads, problem.memory, strategy
    )
    builder = (DualBuilder if best.name == "dual" else PrimalBuilder)(problem.X, problem.fit_intercept)
    grams = time.perf_counter()
    jobs: list[Callable[[], Any]] = [builder.full, *((lambda f=f: builder.fold(f)) for f in problem.folds)]
    full, *folds = _together(jobs, best.workers(threads, problem.memory), threads)
    done = time.perf_counter()
    seconds = {"gram": grams - began, "decompose": done - grams}
    return RidgePlan(problem, tuple(folds), full, builder.mean, best.name, reason, candidates, seconds)


def _together(jobs: list[Callable[[], T]], workers: int, threads: int) -> list[T]:
    """Run jobs on an outer layer of threads. BLAS gets what the layer leaves over: one thread each when jobs are many."""
    workers = min(workers, threads, len(jobs))
    with limit_threads(max(1, threads // workers)), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda job: job(), jobs))
