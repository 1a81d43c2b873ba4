"""Ridge regression with a penalty for each voxel, chosen by cross-validation: a plan of X, then the tiles of Y.

The way from here to the innermost loop (``docs/solver.md`` has the algebra):

    ridge_cv, RidgePlan.fit ─► make_plan         plan/plan.py      one decomposition, operators of all folds (X only)
        ─► fit_plan                              here              responses checked, results put together
        ─► RidgeSweep.score_and_refit            weights/ridge.py  what is done with a tile: score, choose, weigh
        ─► Reader.run                            score/tiles.py    the loop over tiles of voxels, in threads
        ─► FoldScorer.score                      score/scorer.py   a tile's coordinates, then fold by fold
        ─► Map.apply                             plan/maps.py      a fold's held-out predictions at the nodes (BLAS)
        ─► moments                               kernels/moments   predictions of a fold reduced to moments (the innermost loop)
        ─► score_moments                         score/moments.py  moments to scores: where a score is added
        ─► choose_alphas                         score/choose.py   each voxel's penalty

On a device ``weights/device.py``, ``score/device_tiles.py`` and ``score/device_scorer.py`` stand in for the sweep, the loop and
the scorer.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_flag
from fastencode.arrays import dtype_of
from fastencode.progress import progress as progress_bar
from fastencode.solve.fit import versions, warn_edges
from fastencode.solve.given.problem import DEFAULT_ALPHAS, Problem
from fastencode.solve.given.targets import Targets, check_nan_targets
from fastencode.solve.plan.cost import NOMINAL_VOXELS, Candidate
from fastencode.solve.plan.maps import Merged
from fastencode.solve.plan.plan import Plan, make_plan
from fastencode.solve.ridge_fit import RidgeFit
from fastencode.solve.score.choose import TIE_TOLERANCE, check_test_rows
from fastencode.solve.score.device_tiles import device_for
from fastencode.solve.score.moments import check_scoring
from fastencode.solve.score.scorer import FoldScorer
from fastencode.solve.weights.device import fit_on
from fastencode.solve.weights.features import map_of
from fastencode.solve.weights.ridge import fit_on_host
from fastencode.threads import available_threads

__all__ = ["RidgePlan", "fit_plan", "plan_ridge", "ridge_cv"]

_DECOMPOSED = {
    "gram": "the Gram",
    "features": "X itself by a column-pivoted QR and SVD, about ten times the work: scales of its columns differ so much that "
    "rounding of the Gram would hide what small penalties keep",
}


def ridge_cv(
    X: Any,
    Y: Any,
    *,
    alphas: ArrayLike = DEFAULT_ALPHAS,
    cv: Any = 5,
    runs: ArrayLike | None = None,
    gap: int = 0,
    scoring: str = "r2",
    per_target: bool = True,
    fit_intercept: bool = True,
    precision: str = "exact",
    device: Any = None,
    memory: int | str | None = None,
    progress: bool = False,
    sample_weight: ArrayLike | None = None,
    nan_targets: str = "raise",
) -> RidgeFit:
    """Ridge regression of every voxel on X, each at the penalty that predicts its held-out rows best.

    Parameters
    ----------
    X : (t, p) array, NumPy, torch or CuPy, or :func:`fastencode.delay`'s copies that are not made
        Features. Never written to. What depends on X only is computed on the CPU. ``delay(..., copy=False)`` saves the memory of
        the copies, and the work of all but one of their kernels where there are more columns than rows.
    Y : (t, v) or (t,) array (NumPy, torch or CuPy), memory map or h5py dataset
        Responses. Read in tiles, never written to.
    alphas : (A,) array-like
        Penalties, the weight on ‖b‖² (scikit-learn's). Codes whose penalty is a square root of that, such as the Huth lab's
        ``ridge.py``, want ``alphas ** 2`` here. Positive; sorted and freed of duplicates, see ``RidgeFit.alphas``.
    cv : int, "runs", splitter or list of (train, test)
        An int is that many contiguous blocks, or with ``runs`` whole runs, balanced; ``"runs"`` leaves one run out; anything
        with ``split(X, y, groups)``, which gets Y as y and the runs as groups; or explicit indices. Test sets may overlap, repeat
        rows and need not cover them. Scores are averaged over folds: each counts as much, whatever its number of rows. (Leave one
        out with sample weights, too: a row's weight is in the fits that train on it, not in the mean of scores.)
    runs : (t,) array-like, optional
        Run label of every row.
    gap : int
        Rows on either side of a held-out row, in its run, that the fold does not train on: neighbors in time resemble each other,
        so a model that has seen them scores too high. 0 leaves out none.
    scoring : {"r2", "pearson", "neg_mean_squared_error"}
        R² of a constant target and Pearson with a constant target or prediction are 0.
    per_target : bool
        False chooses one penalty for all voxels, by their mean score.
    fit_intercept : bool
        Whether to fit a constant, which is not penalised.
    precision : {"exact", "fast"}
        "exact" is accurate to the dtype, whatever the units of the columns. With scales up to 1e12 apart, weights (times their
        column's scale) are within 1e-8 of the largest in float64 and 2e-5 in float32, and scores within 1e-6, as long as X is not
        so close to collinear that its own rounding decides. Where rounding of the Gram would hide what the smallest penalty
        keeps, X itself is decomposed, at about ten times the cost (``stats["decomposed"]``). Directions of X are left out only
        where every penalty makes them irrelevant. Pearson with predictions that all but vanish (α far above every eigenvalue) is
        less accurate, where there are more rows than features.
        "fast" may score float32 in reduced precision, and fits weights as in "exact": on a CUDA device predictions are products
        in TF32; on a CPU with matrix tiles (Intel AMX), products of numbers in two bfloat16 parts, off by 3 · 2⁻¹⁶. On other CPUs
        it computes the same as "exact".
    device : None, "cpu", "cuda" or such as "cuda:1"
        Where responses are computed. None is where X or Y lies: torch tensors and CuPy arrays on a CUDA device are computed
        there, by their own library and without a copy of Y, everything else on the CPU. ``"cuda"`` takes arrays of the host there
        tile by tile, through CuPy if that is installed, else torch (for torch tensors the other way round), and brings the result
        back. A card adds in another order than a CPU: results agree to rounding. On it, an error for NaN in Y comes at the end.
    memory : int or str, optional
        Working memory in bytes or as text ("2GB"), beyond X, Y and the weights; on the device, if there is one.
    progress : bool
        Show a progress bar on standard error.
    sample_weight : (t,) array-like, optional
        Weight of every row in the fit and in the held-out scores, not normalised: an integer weight counts as that many copies. A
        row of weight zero is left out altogether (a censored scan), whatever it holds; an int ``cv`` makes blocks of the others.
    nan_targets : {"raise", "skip"}
        What to do with voxels that hold NaN or infinite values: an error that counts them, or fit all others and return NaN for
        these (and 0 in ``at_edge``).

    Returns
    -------
    RidgeFit
        Float32 if X and Y are float32, else float64; torch or CuPy if X or Y is, and on their device. Scores within ``1e-6`` of a
        voxel's best are ties, and the largest penalty among them is chosen, in every precision.

    Raises
    ------
    InputError
        For a bad argument: the message names the value and the next step.
    DeviceError
        If the device does not exist, or X, Y and ``device`` name different ones, or its memory cannot hold the result.

    Warns
    -----
    FastencodeWarning
        Once, with the number of voxels whose penalty is at an edge of the grid.

    References
    ----------
    Hoerl & Kennard (1970), Technometrics 12, 55-67; Dupré la Tour et al. (2022), NeuroImage 264, 119728.

    Examples
    --------
    >>> import numpy as np
    >>> import fastencode
    >>> rng = np.random.default_rng(0)
    >>> X, runs = rng.standard_normal((120, 10)), np.repeat(["a", "b", "c"], 40)
    >>> Y = X @ rng.standard_normal((10, 4)) + 3 * rng.standard_normal((120, 4))
    >>> fit = fastencode.ridge_cv(X, Y, alphas=np.logspace(-1, 4, 11), cv="runs", runs=runs)
    >>> fit.coef.shape, fit.alpha.shape, fit.cv_scores.shape
    ((10, 4), (4,), (11, 4))
    >>> fit.best_score.round(2)
    array([0.35, 0.67, 0.31, 0.34])
    >>> fit.predict(X[:5]).shape
    (5, 4)
    """
    check_scoring(scoring)
    check_flag("per_target", per_target)
    check_flag("progress", progress)
    check_nan_targets(nan_targets)
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
        response_dtype=dtype_of(Y, "Y"),
        responses=Y,
    )
    # Before minutes of planning, not after.
    check_test_rows(problem, scoring)
    targets = Targets.check(Y, problem.n_given, problem.kept)
    device_for(problem, targets)
    plan = make_plan(problem, n_voxels=targets.n_voxels, scoring=scoring)
    return fit_plan(plan, Y, scoring=scoring, per_target=per_target, progress=progress, nan_targets=nan_targets)


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
    plan = make_plan(problem)
    map_of(plan)  # now, not in the first fit
    return RidgePlan(plan)


class RidgePlan:
    """A planned ridge problem: holds no responses, serves any number of them. Made by :func:`plan_ridge`.

    ``print(plan)`` shows what was chosen, what each candidate would cost, and why.

    Attributes
    ----------
    shape : (int, int)
        Rows (those with weight) and features of the design.
    dtype : dtype
        What responses are converted to and results come in.
    alphas : (a,) float64
        The grid of penalties: sorted, without duplicates.
    n_folds : int
    strategy : {"primal", "dual"}
        Which Gram was decomposed, that of features or of rows.
    decomposed : {"gram", "features"}
        "features" where rounding of that Gram would have shown in weights: X itself was decomposed.
    reason : str
        Why that strategy.
    candidates : tuple
        What each strategy was expected to cost.
    nbytes : int
        Bytes that are kept, X not counted.
    operations : dict
        Of ``plan``, and of ``score`` and ``refit`` for one voxel.
    seconds : dict
        Wall time of each stage of planning.
    """

    __slots__ = ("_plan",)

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def shape(self) -> tuple[int, int]:
        return self._plan.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._plan.dtype

    @property
    def alphas(self) -> NDArray[np.float64]:
        return self._plan.problem.alphas.copy()

    @property
    def n_folds(self) -> int:
        return self._plan.n_folds

    @property
    def strategy(self) -> str:
        return self._plan.strategy

    @property
    def decomposed(self) -> str:
        return self._plan.decomposed

    @property
    def reason(self) -> str:
        return self._plan.reason

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self._plan.candidates

    @property
    def nbytes(self) -> int:
        return self._plan.nbytes

    @property
    def operations(self) -> dict[str, float]:
        return dict(self._plan.operations)

    @property
    def seconds(self) -> dict[str, float]:
        return dict(self._plan.seconds)

    def __repr__(self) -> str:
        (n, p), plan = self.shape, self._plan
        return f"<RidgePlan {n} x {p} {self.dtype}, {self.n_folds} folds, {len(plan.problem.alphas)} alphas, {self.strategy}>"

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
        return fit_plan(self._plan, Y, scoring=scoring, per_target=per_target, progress=progress, nan_targets=nan_targets)

    def __str__(self) -> str:
        plan = self._plan
        (n, p), alphas, problem, nodes = plan.shape, plan.problem.alphas, plan.problem, plan.nodes
        lines = [
            f"RidgePlan: {n} rows x {p} features, {plan.dtype}, {plan.n_folds} folds, "
            f"{len(alphas)} penalties {alphas[0]:.4g} to {alphas[-1]:.4g}, {'an' if problem.fit_intercept else 'no'} intercept, "
            f"precision {problem.precision}, {problem.device}",
            f"  {'candidate':<10}{'Gram':>10}{'decompose':>11}{'operators':>11}{'per voxel':>11}{'memory':>11}{'expected':>10}",
        ]
        for c in plan.candidates:
            mark = "*" if c.name == plan.strategy else " "
            lines.append(
                f"{mark} {c.name:<10}{c.gram:>10.2e}{c.decompose:>11.2e}{c.operators:>11.2e}{c.per_voxel:>11.2e}"
                f"{c.bytes / 1e6:>8.1f} MB{c.seconds:>8.2g} s"
            )
        names = [type(f.map).__name__.lower() + (" from training rows" if f.form == "train" else "") for f in plan.operators]
        counts = [(names.count(name), name) for name in sorted(set(names))]
        counts.append((sum(len(w.rows) for w in plan.whole), "whole"))
        per_voxel = plan.operations["score"] + plan.operations["refit"]
        lines += [
            f"  operations, and seconds at nominal rates for planning and {NOMINAL_VOXELS} voxels",
            f"  chosen: {plan.strategy}, because {plan.reason}; {len(plan.lam)} directions",
            "  decomposed: " + _DECOMPOSED[plan.decomposed],
            f"  nodes: predicts at {len(nodes.alphas)} of {len(alphas)} penalties, the others within {nodes.error:.1g} of a "
            f"response (eigenvalues {nodes.interval[0]:.3g} to {nodes.interval[1]:.3g})",
            f"  folds: {', '.join(f'{count} {name}' for count, name in counts if count)}; largest "
            f"condition {plan.condition:.3g}; {_products(plan)}",
            f"  needs {plan.operations['plan']:.3g} operations to plan, {per_voxel:.3g} for each voxel; "
            f"keeps {plan.nbytes / 1e6:.1f} MB beside X, {problem.X.nbytes / 1e6:.1f} MB",
        ]
        if problem.device == "cpu":
            scorer = FoldScorer(plan, "r2")
            lines.append(
                f"  voxels: tiles of up to {scorer.widest}, side by side on {available_threads()} threads; products by "
                f"{scorer.products.name}"
            )
        if plan.seconds:
            lines.append("  took " + ", ".join(f"{name} {s:.3g} s" for name, s in plan.seconds.items()))
        return "\n".join(lines)


def _products(plan: Plan) -> str:
    """How far cutting the spectrum into segments brings the products of a row down."""
    cut = [f.map.shrinkage for f in plan.operators if not isinstance(f.map, Merged)] + [w.shrinkage for w in plan.whole]
    if not cut:
        return "the spectrum is not cut"
    each = sum(s.directions for s in cut) / len(cut) / max(1, len(plan.lam))
    pieces = max(len(s.pieces) for s in cut)
    return f"spectrum in up to {pieces} segments, {each:.2g} products a row for {len(plan.nodes.alphas)} nodes"


def fit_plan(
    plan: Plan,
    Y: Any,
    *,
    scoring: str = "r2",
    per_target: bool = True,
    progress: bool = False,
    nan_targets: str = "raise",
) -> RidgeFit:
    """Fit responses on a plan; what :meth:`RidgePlan.fit` and :func:`ridge_cv` do. See there."""
    began = time.perf_counter()
    check_scoring(scoring)
    check_flag("per_target", per_target)
    check_flag("progress", progress)
    check_test_rows(plan.problem, scoring)
    skip = check_nan_targets(nan_targets)
    targets = Targets.check(Y, plan.problem.n_given, plan.problem.kept)
    device = device_for(plan.problem, targets)
    with progress_bar(desc="ridge", unit="voxel", total=targets.n_voxels * (1 if per_target else 2), enabled=progress) as bar:
        if device is None:
            arrays, account = fit_on_host(plan, targets, scoring, skip, per_target, bar)
        else:
            arrays, account = fit_on(device, plan, targets, scoring, skip, per_target, bar)
    stats = {**_stats(plan, targets, account, time.perf_counter() - began), "nan_targets": nan_targets}
    fit = RidgeFit(**arrays, scoring=scoring, stats=stats)
    warn_edges(fit)
    return fit


def _stats(plan: Plan, targets: Targets, account: dict[str, Any], seconds: float) -> dict[str, Any]:
    cost = plan.operations
    return {
        "strategy": plan.strategy,
        "reason": plan.reason,
        "decomposed": plan.decomposed,
        "operations": {"plan": cost["plan"], "fit": (cost["score"] + cost["refit"]) * targets.n_voxels},
        "precision": plan.problem.precision,
        **account,
        "seconds": {**plan.seconds, **account.get("seconds", {}), "fit": seconds},
        "folds": plan.n_folds,
        "nodes": len(plan.nodes.alphas),
        "interpolation_error": plan.nodes.error,
        "tie_tolerance": TIE_TOLERANCE,
        "versions": versions(),
    }
