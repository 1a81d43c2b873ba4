"""The public face of a plan of ridge, and what fits responses on it.

fit_plan ─► responses checked ─► fit_on_host or fit_on (a device) ─► RidgeFit
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_flag
from fastencode.devices import Device
from fastencode.errors import InputError
from fastencode.progress import progress as progress_bar
from fastencode.solve.edges import edges_of_fit, tell_edges
from fastencode.solve.fit import versions
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.room import check_room
from fastencode.solve.given.targets import Targets, check_nan_targets
from fastencode.solve.plan.basis import cancels
from fastencode.solve.plan.centered import largest_square
from fastencode.solve.plan.cost import NOMINAL_VOXELS, Candidate
from fastencode.solve.plan.maps import Merged
from fastencode.solve.plan.plan import Plan
from fastencode.solve.ridge_fit import RidgeFit
from fastencode.solve.score.choose import TIE_TOLERANCE, Choice, check_rule, check_test_rows
from fastencode.solve.score.device_tiles import device_for
from fastencode.solve.score.ends import Freedom, freedom_of
from fastencode.solve.score.gcv import GCV_SCORINGS
from fastencode.solve.score.moments import check_scoring
from fastencode.solve.score.scorer import FoldScorer
from fastencode.solve.weights.device import fit_on
from fastencode.solve.weights.ridge import Kept, fit_on_host
from fastencode.threads import available_threads

__all__ = ["RidgePlan", "check_options", "fit_plan"]

_DECOMPOSED = {
    "gram": "the Gram",
    "features": "X itself by a column-pivoted QR and SVD, about ten times the work: scales of its columns differ so much that "
    "rounding of the Gram would hide what small penalties keep",
}


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
    freedom : (rank, smallest, largest)
        Degrees of freedom: without a penalty, and at the smallest and the largest of the grid.
    """

    __slots__ = ("_names", "_plan")

    def __init__(self, plan: Plan, feature_names: list[str] | None = None) -> None:
        self._plan, self._names = plan, feature_names

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

    @property
    def freedom(self) -> Freedom:
        return freedom_of(self._plan.lam, self._plan.problem.alphas)

    def __repr__(self) -> str:
        (n, p), plan = self.shape, self._plan
        return f"<RidgePlan {n} x {p} {self.dtype}, {self.n_folds} folds, {len(plan.problem.alphas)} alphas, {self.strategy}>"

    def fit(
        self,
        Y: ArrayLike,
        *,
        scoring: str = "r2",
        per_target: bool = True,
        progress: bool = False,
        nan_targets: str = "raise",
        rule: str = "best",
        cv_predictions: bool = False,
        weights: str | None = "primal",
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
        rule : {"best", "one-se"}
            The penalty of the best mean score, or the largest within one standard error of it, as in :func:`fastencode.ridge_cv`.
        cv_predictions : bool
            Whether to keep held-out predictions, ``RidgeFit.cv_predictions``. On the CPU only.
        weights : {"primal", "dual", None}
            Which weights to keep, as in :func:`fastencode.ridge_cv`.

        Returns
        -------
        RidgeFit

        Raises
        ------
        InputError
            If Y does not fit the plan, or holds NaN or infinite values; or an option does not go with the plan's folds or device.
        """
        return fit_plan(
            self._plan,
            Y,
            scoring=scoring,
            per_target=per_target,
            progress=progress,
            nan_targets=nan_targets,
            rule=rule,
            cv_predictions=cv_predictions,
            weights=weights,
            feature_names=self._names,
        )

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


def check_options(
    problem: Problem,
    targets: Targets,
    *,
    scoring: str,
    per_target: bool,
    rule: str,
    cv_predictions: bool,
    progress: bool,
    weights: str | None,
    skip: bool,
) -> Device | None:
    """Check how penalties are to be chosen; returns the device that computes, None for the CPU.

    Raises ``InputError`` or ``DeviceError``.
    """
    check_scoring(scoring)
    check_flag("per_target", per_target)
    check_flag("cv_predictions", cv_predictions)
    check_flag("progress", progress)
    check_test_rows(problem.folds, scoring)
    if problem.given is not None:
        if len(problem.given) not in (1, targets.n_voxels):
            raise InputError(
                "cv=None takes alphas as given penalties, one for each voxel or one for all, and alphas has "
                f"{len(problem.given)} for {targets.n_voxels} voxels of Y; pass alphas of shape ({targets.n_voxels},), or a cv "
                "to choose each voxel's penalty from them"
            )
        for name, value, plain in (("per_target", per_target, True), ("cv_predictions", cv_predictions, False)):
            if value != plain:
                raise InputError(f"cv=None holds no rows out, so {name}={value} does not apply; leave it out, or pass a cv")
    if problem.gcv:
        if scoring not in GCV_SCORINGS:
            allowed = " or ".join(map(repr, GCV_SCORINGS))
            raise InputError(f"cv='gcv' estimates squared errors, so scoring={scoring!r} does not apply; pass {allowed}")
        if cv_predictions:
            raise InputError("cv='gcv' holds no rows out, so cv_predictions=True does not apply; leave it out, or pass folds")
    if problem.left_out is not None and not skip:
        raise InputError(
            f"alphas holds NaN for {problem.left_out.sum()} voxels, the first is voxel {int(problem.left_out.argmax())}, as a "
            "fit gives to voxels that it skipped; pass nan_targets='skip' to skip them here too, or leave those voxels out"
        )
    check_rule(rule, problem)
    if weights not in ("primal", "dual", None):
        raise InputError(f"weights={weights!r}; pass 'primal' (of features), 'dual' (of rows) or None (only scores, penalties)")
    device = device_for(problem, targets)
    if device is not None and weights != "primal":
        raise InputError(
            f"weights={weights!r} is computed on the CPU only, and this fit on {device.name}; pass arrays of the host and "
            "device='cpu'"
        )
    if device is None:
        (n, p), item = problem.X.shape, problem.X.dtype.itemsize
        check_room(n, p, targets.n_voxels, len(problem.alphas) if problem.given is None else 0, item, weights, True)
    if cv_predictions and device is not None:
        raise InputError(
            f"cv_predictions=True is computed on the CPU only, and this fit on {device.name}; pass arrays of the host and "
            "device='cpu'"
        )
    return device


def check_dual(plan: Plan) -> None:
    """Raise ``InputError`` where weights of the rows would lose their digits."""
    problem = plan.problem
    square = largest_square(problem.X, plan.feature_means, plan.root) if problem.X.dtype == np.float32 else 0.0
    least = plan.lam[0] + problem.alphas[0] if len(plan.lam) else np.inf
    if plan.decomposed == "features" or cancels(square, least, problem):
        raise InputError(
            "weights='dual': columns of X differ so much in scale that weights of the rows would lose their digits; scale the "
            "columns to equal variance, or pass weights='primal'" + (" or float64" if problem.X.dtype == np.float32 else "")
        )


def fit_plan(
    plan: Plan,
    Y: ArrayLike,
    *,
    scoring: str = "r2",
    per_target: bool = True,
    progress: bool = False,
    nan_targets: str = "raise",
    rule: str = "best",
    cv_predictions: bool = False,
    weights: str | None = "primal",
    feature_names: list[str] | None = None,
) -> RidgeFit:
    """Fit responses on a plan; what :meth:`RidgePlan.fit` and :func:`ridge_cv` do. See there."""
    began = time.perf_counter()
    skip = check_nan_targets(nan_targets)
    targets = Targets.check(Y, plan.problem.n_given, plan.problem.kept)
    device = check_options(
        plan.problem,
        targets,
        scoring=scoring,
        per_target=per_target,
        rule=rule,
        cv_predictions=cv_predictions,
        progress=progress,
        weights=weights,
        skip=skip,
    )
    if weights == "dual":
        check_dual(plan)
    choice = Choice.check(plan.problem, targets.n_voxels, bool(per_target), rule)
    with progress_bar(desc="ridge", unit="voxel", total=targets.n_voxels * (1 if per_target else 2), enabled=progress) as bar:
        if device is None:
            arrays, account, seen = fit_on_host(plan, targets, scoring, skip, choice, Kept(weights, bool(cv_predictions)), bar)
        else:
            arrays, account, seen = fit_on(device, plan, targets, scoring, skip, choice, bar)
    stats = {**_stats(plan, targets, account, time.perf_counter() - began), "nan_targets": nan_targets, "rule": rule}
    stats |= {} if feature_names is None else {"feature_names": feature_names}
    fit = RidgeFit(**arrays, scoring=scoring, stats=stats)
    told: dict[str, Any] = {"scoring": scoring, "n_rows": plan.shape[0], "shared": not per_target}
    freedoms = [freedom_of(plan.lam, plan.problem.alphas)]
    tell_edges(edges_of_fit(seen, plan.problem.alphas, freedoms=freedoms, **told), fit.stats)
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
