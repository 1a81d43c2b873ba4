"""Everything about a ridge problem that depends on X only, computed once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.solve.basis import make_basis
from fastencode.solve.features import features_map, threads_within
from fastencode.solve.fit import RidgeFit
from fastencode.solve.fold_plan import FoldPlan, plan_folds
from fastencode.solve.maps import Merged
from fastencode.solve.problem import Problem
from fastencode.solve.products import products_for
from fastencode.solve.scorer import FoldScorer
from fastencode.solve.strategy import NOMINAL_VOXELS, Candidate, choose, made_last
from fastencode.solve.tiles import fit_plan
from fastencode.threads import available_threads, limit_threads

__all__ = ["DEFAULT_ALPHAS", "RidgePlan", "make_plan", "plan_ridge"]


class _Default(np.ndarray[Any, np.dtype[np.float64]]):
    """An array that signatures show by its name."""

    def __repr__(self) -> str:
        return "DEFAULT_ALPHAS" if self is DEFAULT_ALPHAS else repr(np.asarray(self))


DEFAULT_ALPHAS = np.logspace(0, 6, 20).view(_Default)
DEFAULT_ALPHAS.flags.writeable = False
_DECOMPOSED = {
    "gram": "the Gram",
    "features": "X itself by a column-pivoted QR and SVD, about ten times the work: scales of its columns differ so much that "
    "rounding of the Gram would hide what small penalties keep",
}


@dataclass(frozen=True, eq=False, repr=False)
class RidgePlan(FoldPlan):
    """Decomposition, nodes, operators and strategy of a ridge problem: holds no responses, serves any number of them.

    Made by :func:`plan_ridge`. ``print(plan)`` shows what was chosen, what each candidate would cost, and why. Attributes as in
    ``fold_plan.FoldPlan``, and

    Attributes
    ----------
    map_pr : (p, r) or None
        Scaled coordinates to weights; None where these are made without it, block by block of features.
    right_tr : (t, r) or None
        U diag(1 / √λ), which makes that map of the features then.
    feature_means : (p,) float64
        Subtracted from X; zeros without an intercept.
    strategy : {"primal", "dual"}
    reason : str
    decomposed : {"gram", "features"}
        The smaller Gram, or X itself by a column-pivoted QR and SVD, where the Gram's rounding would show in predictions.
    candidates : tuple of Candidate
    operations : dict
        Of ``plan``, and of ``score`` and ``refit`` for one voxel.
    seconds : dict
        Wall time of each stage of planning.
    """

    map_pr: NDArray[Any] | None
    right_tr: NDArray[Any] | None
    feature_means: NDArray[np.float64]
    strategy: str
    reason: str
    decomposed: str
    candidates: tuple[Candidate, ...]
    operations: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def fit(
        self, Y: Any, *, scoring: str = "r2", per_target: bool = True, progress: bool = False, nan_targets: str = "raise"
    ) -> RidgeFit:
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
        nan_targets : {"raise", "skip"}
            What to do with voxels that hold NaN or infinite values: an error that counts them, or fit all others and return NaN
            for these.

        Returns
        -------
        RidgeFit

        Raises
        ------
        InputError
            If Y does not fit the plan, or holds NaN or infinite values.
        """
        return fit_plan(self, Y, scoring=scoring, per_target=per_target, progress=progress, nan_targets=nan_targets)

    @cached_property
    def coef(self) -> NDArray[Any]:
        """(p, r): scaled coordinates to weights; made when it is asked for, and kept, if it was not."""
        if self.map_pr is not None:
            return self.map_pr
        X, right_tr = self.problem.X, self.right_tr
        assert right_tr is not None
        return features_map(X, self.feature_means, self.root, right_tr, products_for(self.dtype), available_threads())

    @property
    def maps(self) -> tuple[str, ...]:
        """How its folds are stored, each way once; empty if all are predicted together."""
        return tuple(sorted({type(f.map).__name__.lower() for f in self.folds}))

    def _products(self) -> str:
        """How far cutting the spectrum into segments brings the products of a row down."""
        cut = [f.map.shrinkage for f in self.folds if not isinstance(f.map, Merged)] + [w.shrinkage for w in self.whole]
        if not cut:
            return "the spectrum is not cut"
        each = sum(s.directions for s in cut) / len(cut) / max(1, len(self.lam))
        pieces = max(len(s.pieces) for s in cut)
        return f"spectrum in up to {pieces} segments, {each:.2g} products a row for {len(self.nodes.alphas)} nodes"

    def __repr__(self) -> str:
        n, p = self.shape
        return f"<RidgePlan {n} x {p} {self.dtype}, {self.n_folds} folds, {len(self.problem.alphas)} alphas, {self.strategy}>"

    def __str__(self) -> str:
        (n, p), alphas, problem, nodes = self.shape, self.problem.alphas, self.problem, self.nodes
        lines = [
            f"RidgePlan: {n} rows x {p} features, {self.dtype}, {self.n_folds} folds, "
            f"{len(alphas)} penalties {alphas[0]:.4g} to {alphas[-1]:.4g}, {'an' if problem.fit_intercept else 'no'} intercept, "
            f"precision {problem.precision}, {problem.device}",
            f"  {'candidate':<10}{'Gram':>10}{'decompose':>11}{'operators':>11}{'per voxel':>11}{'memory':>11}{'expected':>10}",
        ]
        for c in self.candidates:
            mark = "*" if c.name == self.strategy else " "
            lines.append(
                f"{mark} {c.name:<10}{c.gram:>10.2e}{c.decompose:>11.2e}{c.operators:>11.2e}{c.per_voxel:>11.2e}"
                f"{c.bytes / 1e6:>8.1f} MB{c.seconds:>8.2g} s"
            )
        names = [type(f.map).__name__.lower() + (" from training rows" if f.form == "train" else "") for f in self.folds]
        counts = [(names.count(name), name) for name in sorted(set(names))]
        counts.append((sum(len(w.rows) for w in self.whole), "whole"))
        per_voxel = self.operations["score"] + self.operations["refit"]
        lines += [
            f"  operations, and seconds at nominal rates for planning and {NOMINAL_VOXELS} voxels",
            f"  chosen: {self.strategy}, because {self.reason}; {len(self.lam)} directions",
            "  decomposed: " + _DECOMPOSED[self.decomposed],
            f"  nodes: predicts at {len(nodes.alphas)} of {len(alphas)} penalties, the others within {nodes.error:.1g} of a "
            f"response (eigenvalues {nodes.interval[0]:.3g} to {nodes.interval[1]:.3g})",
            f"  folds: {', '.join(f'{count} {name}' for count, name in counts if count)}; largest "
            f"condition {self.condition:.3g}; {self._products()}",
            f"  needs {self.operations['plan']:.3g} operations to plan, {per_voxel:.3g} for each voxel; "
            f"keeps {self.nbytes / 1e6:.1f} MB beside X, {problem.X.nbytes / 1e6:.1f} MB",
        ]
        if problem.device == "cpu":
            scorer = FoldScorer(self, "r2")
            lines.append(
                f"  voxels: tiles of up to {scorer.widest}, side by side on {available_threads()} threads; products by "
                f"{scorer.products.name}"
            )
        if self.seconds:
            lines.append("  took " + ", ".join(f"{name} {s:.3g} s" for name, s in self.seconds.items()))
        return "\n".join(lines)


def plan_ridge(
    X: Any,
    *,
    alphas: ArrayLike = DEFAULT_ALPHAS,
    cv: Any = 5,
    runs: ArrayLike | None = None,
    gap: int = 0,
    fit_intercept: bool = True,
    precision: str = "exact",
    device: Any = None,
    memory: int | str | None = None,
    sample_weight: ArrayLike | None = None,
) -> RidgePlan:
    """Do everything about a ridge problem that depends on X only, once, for any number of responses.

    Parameters
    ----------
    X : (t, p) array, NumPy or torch, or :func:`fastencode.delay`'s copies that are not made
        Features. Float32 is computed and stored in float32 (planning in float64), everything else in float64. Never written to.
        A plan keeps a map to weights, with more features than rows as large as X with all its copies; a single
        :func:`fastencode.ridge_cv` makes do without. Directions of X are left out only where their squared size is far below
        every penalty; see ``precision`` of :func:`fastencode.ridge_cv`.
    alphas : (A,) array-like
        Penalties, the weight on ‖b‖² (scikit-learn's). Codes whose penalty is a square root of that, such as the Huth lab's
        ``ridge.py``, want ``alphas ** 2`` here. Positive; sorted and freed of duplicates.
    cv : int, "runs", splitter or list of (train, test)
        An int is that many contiguous blocks, or with ``runs`` whole runs, balanced; ``"runs"`` leaves one run out; anything
        with ``split(X, y, groups)``; or explicit indices. Test sets may overlap and need not cover the rows.
    runs : (t,) array-like, optional
        Run label of every row.
    gap : int
        Rows on either side of a held-out row, in its run, that the fold does not train on: neighbors in time resemble each other,
        so a model that has seen them scores too high. 0 leaves out none.
    fit_intercept : bool
        Whether to fit a constant, which is not penalised.
    precision : {"exact", "fast"}
        "exact" is accurate to the dtype. "fast" may score in reduced precision, as in :func:`fastencode.ridge_cv`.
    device : None, "cpu", "cuda" or such as "cuda:1"
        Where responses are computed, as in :func:`fastencode.ridge_cv`; plans are made on the CPU.
    memory : int or str, optional
        Working memory in bytes or as text ("2GB"), beyond X, Y and the weights. Decides how much is done at once, and whether a
        strategy is possible; never changes a result except through the strategy.
    sample_weight : (t,) array-like, optional
        Weight of every row in the fit and in the held-out scores, not normalised: an integer weight counts as that many copies. A
        row of weight zero is left out altogether (a censored scan), whatever it holds; an int ``cv`` makes blocks of the others.

    Returns
    -------
    RidgePlan

    Raises
    ------
    InputError
        For a bad argument: the message names the value and the next step.
    DeviceError
        If the device does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> import fastencode
    >>> rng = np.random.default_rng(0)
    >>> X, runs = rng.standard_normal((120, 10)), np.repeat(["a", "b", "c"], 40)
    >>> Y = X @ rng.standard_normal((10, 4)) + 3 * rng.standard_normal((120, 4))
    >>> plan = fastencode.plan_ridge(X, alphas=np.logspace(-1, 4, 11), cv="runs", runs=runs)
    >>> plan
    <RidgePlan 120 x 10 float64, 3 folds, 11 alphas, primal>
    >>> [plan.fit(responses).coef.shape for responses in (Y, Y[:, :3])]  # two participants who heard the same
    [(10, 4), (10, 3)]
    """
    problem = Problem.check(
        X,
        alphas=alphas,
        cv=cv,
        runs=runs,
        gap=gap,
        fit_intercept=fit_intercept,
        precision=precision,
        device=device,
        memory=memory,
        sample_weight=sample_weight,
    )
    return make_plan(problem)


def make_plan(
    problem: Problem, strategy: str | None = None, *, n_voxels: int | None = None, scoring: str | None = None
) -> RidgePlan:
    """Plan a checked problem.

    ``strategy`` forces ``"primal"`` or ``"dual"``, and after a comma how folds are stored where they can be (``maps.py``):
    ``"primal, rotated"``, or ``"dual, whole"``. ``n_voxels`` and ``scoring`` say what is known of the responses: nodes for
    squared errors alone are fewer than those that serve correlation too.
    """
    strategy, _, stored = (strategy or "").partition(", ")
    began = time.perf_counter()
    threads = available_threads()
    best, candidates, reason = choose(problem, threads, n_voxels, strategy or None)
    dual, (n, p) = best.name == "dual", problem.X.shape
    with limit_threads(threads):
        basis = make_basis(problem, dual)
    r, known = len(basis.lam), not dual or basis.source == "features"  # V is there already
    last = made_last(problem, dual, n_voxels) and not known
    map_pr, right_tr = basis.coef_pr if known else None, None
    if not known:  # V = X̌ᵀ U diag(1 / √λ), where U_τ = U diag(√(λ / (λ + τ)))
        right_tr = np.empty((n, r), dtype=problem.X.dtype)
        np.multiply(basis.rows_tr, np.sqrt(basis.lam + basis.tau) / basis.lam, out=right_tr, casting="same_kind")
    if right_tr is not None and not last:
        products = products_for(problem.X.dtype)
        held = threads_within(problem.X, r, problem.memory, basis.rows_tr.nbytes + (n + p) * r * right_tr.itemsize, threads)
        map_pr, right_tr = features_map(problem.X, basis.mean_p, basis.root_t, right_tr, products, held), None
    decomposed = time.perf_counter()
    beside = (2 * n if last else p) * r * problem.X.dtype.itemsize
    folds = plan_folds(problem, basis, threads, beside=beside, n_voxels=n_voxels, scoring=scoring, stored=stored)
    done = time.perf_counter()
    planned = best.gram + best.decompose + 2.0 * n * p * r + folds.cost["operators"]
    return RidgePlan(
        **{name.name: getattr(folds, name.name) for name in fields(folds)},
        map_pr=map_pr,
        right_tr=right_tr,
        feature_means=basis.mean_p,
        strategy=best.name,
        reason=reason,
        decomposed=basis.source,
        candidates=candidates,
        operations={"plan": planned, "score": folds.cost["score"], "refit": 2.0 * p * r},
        seconds={"decompose": decomposed - began, "operators": done - decomposed},
    )
