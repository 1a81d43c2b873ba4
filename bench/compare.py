"""The contestants, each as ``prepare(case, X, Y, options)`` → what to time, and whether they found the same thing.

What is timed takes no argument and returns an :class:`Outcome`. Preparing is not timed: imports, a plan, trying out batch sizes.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from cases import Case
from numpy.typing import NDArray

Array = NDArray[Any]
# Voxels whose penalties differ, but whose scores at the two penalties do not by more than this, chose among equals.
SAME_SCORE = 1e-5
SAME_CHOICE = 0.999


@dataclass
class Outcome:
    """What one fit found: penalty and its held-out score per voxel, weights (p, v); ours adds all scores and its own account."""

    alpha: Array
    score: Array
    coef: Array
    cv_scores: Array | None = None
    extra: dict[str, Any] = field(default_factory=dict)


Fit = Callable[[], Outcome]
Prepared = tuple[Fit, dict[str, Any]]


def _ours(fit: Any, **extra: Any) -> Outcome:
    arrays = (np.asarray(getattr(fit, name)) for name in ("alpha", "best_score", "coef", "cv_scores"))
    return Outcome(*arrays, extra={"stats": fit.stats, **extra})


def _arguments(case: Case, options: dict[str, Any]) -> dict[str, Any]:
    given = {name: options[name] for name in ("device", "precision", "memory") if options.get(name) is not None}
    cv = {"bootstrap": case.folds, "runs": "runs", "one": case.n}[case.cv] if isinstance(case.cv, str) else case.cv
    runs = case.run_of_row if case.cv == "runs" else None
    return {"alphas": case.grid, "cv": cv, "runs": runs, "fit_intercept": case.fit_intercept, **given}


def fastencode(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """ridge_cv, plan and all."""
    from fastencode import ridge_cv

    arguments = _arguments(case, options)
    return lambda: _ours(ridge_cv(X, Y, scoring=case.scoring, **arguments)), {}


def fastencode_planned(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """The second participant: the plan exists, only the fit is timed.

    ``replan`` in the options times the planning itself, warmed up, with the strategy it names (None: the plan's own choice).
    """
    from fastencode import plan_ridge
    from fastencode.solve.given.problem import Problem
    from fastencode.solve.plan.cost import WHOLE_ROWS
    from fastencode.solve.plan.plan import make_plan
    from fastencode.solve.ridge_plan import RidgePlan
    from fastencode.solve.weights.features import map_of

    began = time.perf_counter()
    plan = plan_ridge(X, **_arguments(case, options))
    seconds, problem = [time.perf_counter() - began], Problem.check(X, **_arguments(case, options))
    candidates = [candidate.name for candidate in plan.candidates]
    # How folds are stored is a choice of its own.
    inside = plan._plan
    apart = any(fold.form == "apart" for fold in inside.operators)
    ways = ("merged", "rotated", "factored" if apart else "whole")
    large = any(len(test) > WHOLE_ROWS[False] for _, test in problem.folds)
    taken = inside.maps or ("whole",)
    candidates += [f"{plan.strategy}, {name}" for name in ways if large and name not in taken]
    if "replan" in options:
        seconds, named = [], (options["replan"] or "").split(", ")
        while not seconds or (sum(seconds) < 3 and len(seconds) < 3):
            began = time.perf_counter()
            forced = {"strategy": named[0] or None, "stored": named[1] if len(named) > 1 else None}
            inside = make_plan(problem, **forced, n_voxels=options["voxels"], scoring=case.scoring)
            if not inside.deferred:
                map_of(inside)
            seconds.append(time.perf_counter() - began)
        plan = RidgePlan(inside)
    says = {
        "plan": str(plan),
        "plan_seconds": float(np.median(seconds)),
        "strategy": options.get("replan") or plan.strategy,
        "candidates": candidates,
    }
    return lambda: _ours(plan.fit(Y, scoring=case.scoring)), says


def himalaya(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """himalaya's RidgeCV, or its kernel form where faster; of several batch settings the best on one fold of some voxels."""
    from himalaya import scoring
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV

    backend = set_backend(options.get("backend", "numpy"))
    name = {"r2": "r2_score", "pearson": "correlation_score", "neg_mean_squared_error": "l2_neg_loss"}[case.scoring]
    fixed = {"alphas": case.grid.astype(case.dtype), "fit_intercept": case.fit_intercept, "cv": case.folds}

    def run(setting: dict[str, Any], Y: Array, **fewer: Any) -> Outcome:
        params = {"score_func": getattr(scoring, name), "n_targets_batch": setting["n_targets_batch"]}
        params |= {"n_targets_batch_refit": setting["n_targets_batch"], "n_alphas_batch": setting["n_alphas_batch"]}
        if setting["form"] == "kernel":
            model = KernelRidgeCV(kernel="linear", solver_params=params, warn=False, **fixed | fewer).fit(X, Y)
            coef = model.get_primal_coef()
            if case.fit_intercept:  # its kernel is centered: so are the features that the weights belong to
                coef = coef - backend.to_cpu(model.X_fit_.mean(0))[:, None] * backend.to_cpu(model.dual_coef_.sum(0))
        else:
            model = RidgeCV(solver_params=params | {"warn": False}, **fixed | fewer).fit(X, Y)
            coef = model.coef_
        alpha, score = (backend.to_numpy(array) for array in (model.best_alphas_, model.cv_scores_))
        nearest = np.abs(np.log(case.grid)[:, None] - np.log(alpha.astype(np.float64))).argmin(axis=0)
        return Outcome(case.grid[nearest], score, backend.to_numpy(coef))

    setting, trials = _best(_himalaya_settings(case), lambda setting, Y: run(setting, Y, cv=case.folds[:1]), Y, options)
    return lambda: run(setting, Y), {"setting": setting, "trials": trials, "backend": options.get("backend", "numpy")}


def _himalaya_settings(case: Case) -> list[dict[str, Any]]:
    """Forms and batch sizes worth a trial: all whose intermediate arrays fit in half of the memory there is now."""
    train = max(len(train) for train, _ in case.folds)
    test = max(len(test) for _, test in case.folds)
    batches = list(itertools.product((5000, 1000, None), (5, None)))
    forms = [("ridge", case.p)] if case.p <= train else [("kernel", case.n), ("ridge", case.p)]
    settings = []
    for form, rows in forms:
        # Where the rows are fewer, one trial shows that the primal form is no match; its batches would not change that.
        for targets, alphas in batches if form == forms[0][0] else [(5000, 5)]:
            v, a = min(targets or case.t, case.t), min(alphas or case.alphas[2], case.alphas[2])
            matrices, predictions, weights = a * rows * max(case.n, rows), 3 * a * test * v, 2 * a * rows * v
            if np.dtype(case.dtype).itemsize * (matrices + predictions + weights) < psutil.virtual_memory().available / 2:
                settings.append({"form": form, "n_targets_batch": targets, "n_alphas_batch": alphas})
    if not settings:
        settings = [{"form": forms[0][0], "n_targets_batch": 1000, "n_alphas_batch": 1}]
    return settings


def _best(
    settings: list[dict[str, Any]], run: Callable[[dict[str, Any], Array], Outcome], Y: Array, options: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The setting that is fastest on a slice of voxels, and every trial; stops before the time for trials is spent."""
    slice_tv = np.ascontiguousarray(Y[:, : int(options.get("slice", 6000))])
    began, trials = time.perf_counter(), []
    for setting in settings:
        if trials and time.perf_counter() - began + trials[-1]["seconds"] > float(options.get("trial_seconds", 300)):
            break
        since = time.perf_counter()
        run(setting, slice_tv)
        trials.append({**setting, "voxels": slice_tv.shape[1], "seconds": time.perf_counter() - since})
    best = min(trials, key=lambda trial: trial["seconds"])
    return {name: best[name] for name in settings[0]}, trials


def banded(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """banded_ridge_cv over the case's weights of bands."""
    from fastencode import banded_ridge_cv

    arguments = _arguments(case, options)
    return lambda: _ours(banded_ridge_cv(X, Y, bands=case.widths, gammas=case.gammas, scoring=case.scoring, **arguments)), {}


def banded_himalaya(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """himalaya's random search over kernels, or where there are more rows than features also over groups of features; from
    features to weights of features, the faster of some batches on two folds."""
    from himalaya import scoring
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
    from himalaya.ridge import solve_group_ridge_random_search

    set_backend("numpy")
    score = {"r2": scoring.r2_score, "pearson": scoring.correlation_score}[case.scoring]
    edges = np.cumsum([0, *case.widths])
    alphas, gammas = case.grid.astype(case.dtype), case.gammas.astype(case.dtype)

    def over_groups(setting: dict[str, Any], Y: Array, folds: Any = None, some: Array = gammas) -> Outcome:
        deltas, coef, scores, _ = solve_group_ridge_random_search(
            [X[:, start:stop] for start, stop in itertools.pairwise(edges)], Y, n_iter=some, alphas=alphas,
            cv=folds or case.folds, score_func=score, fit_intercept=True, return_weights=True, progress_bar=False, **setting,
        )  # fmt: skip
        won = some[scores.argmax(axis=0)].T
        return Outcome((won / np.exp(deltas)).max(axis=0), scores.max(axis=0), coef, scores)

    def over_kernels(setting: dict[str, Any], Y: Array, folds: Any = None, some: Array = gammas) -> Outcome:
        parts = [X[:, start:stop] - X[:, start:stop].mean(axis=0) for start, stop in itertools.pairwise(edges)]
        deltas, dual, scores, best, _ = solve_multiple_kernel_ridge_random_search(
            np.stack([part @ part.T for part in parts]), Y, n_iter=some, alphas=alphas, cv=folds or case.folds,
            score_func=score, fit_intercept=True, return_weights="dual", progress_bar=False, return_alphas=True, **setting,
        )  # fmt: skip
        coef = np.concatenate([np.exp(delta) * (part.T @ dual) for delta, part in zip(deltas, parts, strict=True)])
        return Outcome(best, scores.max(axis=0), coef, scores)

    def run(setting: dict[str, Any], *given: Any) -> Outcome:
        batches = {name: value for name, value in setting.items() if name != "over"}
        return (over_groups if setting["over"] == "groups" else over_kernels)(batches, *given)

    forms, batches = ("groups", "kernels") if case.n > case.p else ("kernels",), ((5000, 5), (1000, 5), (5000, None))
    settings = [{"over": form, "n_targets_batch": v, "n_alphas_batch": a} for v, a in batches for form in forms]
    setting, trials = _best(settings, lambda setting, Y: run(setting, Y, case.folds[:2], gammas[:1]), Y, options)
    return lambda: run(setting, Y), {"setting": setting, "trials": trials}


def sklearn(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """What a user of scikit-learn would write: RidgeCV for leave-one-out, otherwise Ridge for each fold and penalty."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.metrics import r2_score

    if case.cv == "one":

        def leave_one_out() -> Outcome:
            model = RidgeCV(alphas=case.grid, alpha_per_target=True, fit_intercept=case.fit_intercept).fit(X, Y)
            return Outcome(model.alpha_, model.best_score_, model.coef_.T)

        return leave_one_out, {"setting": {"estimator": "RidgeCV(alpha_per_target=True)"}}

    def score(y: Array, predicted: Array) -> Array:
        if case.scoring == "r2":
            return r2_score(y, predicted, multioutput="raw_values")
        if case.scoring == "neg_mean_squared_error":
            return -np.mean((y - predicted) ** 2, axis=0)
        y, predicted = y - y.mean(axis=0), predicted - predicted.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (y * predicted).sum(axis=0) / np.sqrt((y * y).sum(axis=0) * (predicted * predicted).sum(axis=0))
        return np.nan_to_num(r)

    def run(setting: dict[str, Any], Y: Array, folds: Any = None, grid: Any = None) -> Outcome:
        folds, grid = case.folds if folds is None else folds, case.grid if grid is None else grid
        scores = np.zeros((len(grid), Y.shape[1]))
        for train, test in folds:
            X_train, Y_train, X_test, Y_test = X[train], Y[train], X[test], Y[test]
            for a, alpha in enumerate(grid):
                model = Ridge(alpha=alpha, fit_intercept=case.fit_intercept, solver=setting["solver"]).fit(X_train, Y_train)
                scores[a] += score(Y_test, model.predict(X_test)) / len(folds)
        best = len(grid) - 1 - scores[::-1].argmax(axis=0)
        coef = np.empty((X.shape[1], Y.shape[1]), dtype=X.dtype)
        for a in np.unique(best):
            chosen = best == a
            model = Ridge(alpha=grid[a], fit_intercept=case.fit_intercept, solver=setting["solver"]).fit(X, Y[:, chosen])
            coef[:, chosen] = np.atleast_2d(model.coef_).T
        return Outcome(grid[best], scores.max(axis=0), coef)

    few = [case.folds[0]], case.grid[len(case.grid) // 2 :][:1]
    settings = [{"solver": "cholesky"}, {"solver": "svd"}]
    setting, trials = _best(settings, lambda setting, Y: run(setting, Y, *few), Y, options)
    return lambda: run(setting, Y), {"setting": setting, "trials": trials}


def machine_peak(case: Case, X: Array, Y: Array, options: dict[str, Any]) -> Prepared:
    """Not a contestant: the best rate of float32 products on this machine, over several shapes."""
    if options.get("device") == "cuda":
        return lambda: Outcome(np.empty(0), np.empty(0), np.empty((0, case.t)), extra={"gflops": _gpu_rates()}), {}
    smaller = 4 if options.get("slice", 6000) < 1000 else 1
    shapes = [(m // smaller, k // smaller, w // smaller) for m in (3000, 6000) for k in (1000, 3000) for w in (512, 768, 1536)]
    rng = np.random.default_rng(0)
    A = rng.standard_normal(max(m * k for m, k, _ in shapes), dtype=np.float32)
    B = rng.standard_normal(max(k * w for _, k, w in shapes), dtype=np.float32)
    out = np.empty(max(m * w for m, _, w in shapes), dtype=np.float32)

    def run() -> Outcome:
        rates = {}
        for m, k, w in shapes:
            a, b, c = A[: m * k].reshape(m, k), B[: k * w].reshape(k, w), out[: m * w].reshape(m, w)
            since = time.perf_counter()
            np.matmul(a, b, out=c)
            rates[f"{m} x {k} x {w}"] = 2e-9 * m * k * w / (time.perf_counter() - since)
        nothing = np.empty(0)
        return Outcome(nothing, nothing, np.empty((0, case.t)), extra={"gflops": rates})

    return run, {}


def _gpu_rates() -> dict[str, float]:
    """Rates of float32 products on the GPU, TF32 off."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {}
    for size in (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device="cuda") for _ in range(2))
        torch.matmul(a, b)
        torch.cuda.synchronize()
        since = time.perf_counter()
        torch.matmul(a, b)
        torch.cuda.synchronize()
        rates[f"{size} x {size} x {size}"] = 2e-9 * size**3 / (time.perf_counter() - since)
        del a, b
    return rates


CONTESTANTS: dict[str, Callable[[Case, Array, Array, dict[str, Any]], Prepared]] = {
    "fastencode": fastencode,
    "fastencode, planned": fastencode_planned,
    "himalaya": himalaya,
    "himalaya, torch_cuda": himalaya,
    "himalaya, cupy": himalaya,
    "sklearn": sklearn,
    "banded": banded,
    "banded himalaya": banded_himalaya,
    "peak": machine_peak,
}


def quiet() -> None:
    """Warnings of every contestant, ours about the edges of the grid among them, are not what is measured."""
    warnings.simplefilter("ignore")


# ---- do they agree? ----


def naive(case: Case, X: Array, Y: Array, budget: float = 3e12) -> tuple[list[int], Array] | None:
    """(indices of penalties, their mean held-out scores): float64, one solve for each fold and penalty, as on a blackboard.

    For a few voxels, and as many penalties as ``budget`` operations allow; None if that is fewer than two.
    """
    train, low = max(len(train) for train, _ in case.folds), min(case.p, case.n)
    for_gram = 2.0 * case.n_folds * train * case.p * low
    for_penalty = case.n_folds * (0.7 * low**3 + 2.0 * train * case.p)
    count = min(len(case.grid), int((budget - for_gram) / for_penalty)) if budget > for_gram else 0
    if count < 2:
        return None
    indices = sorted({round(i) for i in np.linspace(0, len(case.grid) - 1, count)})
    scores = np.zeros((len(indices), Y.shape[1]))
    for rows, held in case.folds:
        Xf, Yf, Xt, Yt = (array.astype(np.float64) for array in (X[rows], Y[rows], X[held], Y[held]))
        if case.fit_intercept:
            x, y = Xf.mean(axis=0), Yf.mean(axis=0)
            Xf, Yf, Xt = Xf - x, Yf - y, Xt - x
        else:
            y = np.zeros(Y.shape[1])
        gram = Xf @ Xf.T if len(Xf) < case.p else Xf.T @ Xf
        for i, a in enumerate(indices):
            system = gram + case.grid[a] * np.eye(len(gram))
            weights = Xf.T @ np.linalg.solve(system, Yf) if len(Xf) < case.p else np.linalg.solve(system, Xf.T @ Yf)
            scores[i] += naive_score(case.scoring, Yt, Xt @ weights, y) / case.n_folds
    return indices, scores


def naive_score(scoring: str, Y: Array, P: Array, constant: Array | float = 0.0) -> Array:
    """Score of predictions P + constant, per column, in float64; 0 where it is not defined."""
    if scoring == "pearson":  # without the constant, beside which small predictions would lose their digits
        y, p = Y - Y.mean(axis=0), P - P.mean(axis=0)
        spread = np.sqrt((y * y).sum(axis=0) * (p * p).sum(axis=0))
        return np.divide((y * p).sum(axis=0), spread, out=np.zeros(Y.shape[1]), where=spread > 0)
    error = ((Y - P - constant) ** 2).sum(axis=0)
    if scoring == "neg_mean_squared_error":
        return -error / len(Y)
    total = ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)
    return np.divide(total - error, total, out=np.zeros(Y.shape[1]), where=total > 0)


def disagreement(case: Case, ours: Outcome, theirs: Outcome) -> tuple[dict[str, Any], list[str]]:
    """How near two outcomes are, and in words what is too far apart. Weights may be those of a few voxels of both."""
    single = np.dtype(case.dtype) == np.float32
    assert ours.cv_scores is not None
    index = np.searchsorted(case.grid, theirs.alpha * (1 - 1e-6))
    at_theirs = np.take_along_axis(ours.cv_scores, index[None], axis=0)[0].astype(np.float64)
    at_ours = ours.score.astype(np.float64)
    size = np.maximum(1.0, np.abs(at_ours))
    same = np.isclose(ours.alpha, theirs.alpha, rtol=1e-5)
    tied = np.abs(at_ours - at_theirs) <= SAME_SCORE * size
    far = np.abs(theirs.score.astype(np.float64) - at_ours) / size
    alike = same[ours.extra["kept"]]
    a, b = ours.coef[:, alike].astype(np.float64), theirs.coef[:, alike].astype(np.float64)
    apart = float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-300)) if alike.any() else 0.0
    numbers = {
        "same_choice": float(same.mean()),
        "same_choice_or_score": float((same | tied).mean()),
        "largest_score_difference": float(far.max()),
        "worst_voxel": int(far.argmax()),
        "coef_difference": apart,
        "coef_voxels": int(alike.sum()),
    }
    words = []
    if numbers["same_choice_or_score"] < SAME_CHOICE:
        worst = int(np.argmax(np.where(same, 0, np.abs(at_ours - at_theirs) / size)))
        words.append(
            f"{numbers['same_choice_or_score']:.4%} of voxels chose alike (wanted {SAME_CHOICE:.1%}); voxel {worst} chose "
            f"{ours.alpha[worst]:.6g} at {at_ours[worst]:.8g} against {theirs.alpha[worst]:.6g} at {at_theirs[worst]:.8g}"
        )
    for name, value, most in (("largest_score_difference", far.max(), 1e-3 if single else 1e-7),
                              ("coef_difference", apart, 5e-3 if single else 1e-6)):  # fmt: skip
        if not value <= most:
            words.append(f"{name.replace('_', ' ')} is {value:.3g} (at most {most:g} was wanted)")
    return numbers, words
