"""Penalty nodes, the forms a fold can take, sample weights, and voxels that are left out."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model

import fastencode
import reference
from fastencode.errors import FastencodeWarning, InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan import operators
from fastencode.solve.plan.nodes import TOLERANCE, choose_nodes, scale_of
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import RidgePlan

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

SCORINGS = ["r2", "pearson", "neg_mean_squared_error"]


def make(n, p, v, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * np.geomspace(1, 0.1, p)
    return X.astype(dtype), (X @ rng.standard_normal((p, v)) + rng.standard_normal((n, v)) + 2).astype(dtype)


def blocks(n, k):
    return [(np.setdiff1d(np.arange(n), test), test) for test in np.array_split(np.arange(n), k)]


def plan_for(X, strategy, **options):
    return RidgePlan(make_plan(Problem.check(X, **options), strategy))


GRIDS = {"wide": np.logspace(-3, 20, 20), "dense": np.logspace(0, 6, 100), "two": np.array([1.0, 10.0])}


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("tolerance", sorted(TOLERANCE.values()))
@pytest.mark.parametrize("interval", [(170.0, 6000.0), (0.0, 1e6)])
@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_interpolation_keeps_its_promise_between_the_samples_too(grid, interval, tolerance, relative):
    alphas, top = GRIDS[grid], interval[1] * 1.3
    nodes = choose_nodes(alphas, interval, top, tolerance, relative)
    assert np.isin(nodes.alphas, alphas).all() and nodes.mix_ak.shape == (len(alphas), len(nodes.alphas))
    lam = np.random.default_rng(0).uniform(np.log(max(interval[0], 1e-9)), np.log(interval[1]), 5000)
    lam = np.exp(lam)[:, None]
    scale = scale_of(alphas, top)
    wanted, given = lam / (lam + alphas) * scale, lam / (lam + nodes.alphas) * scale_of(nodes.alphas, top)
    error = np.abs(given @ nodes.mix_ak.T - wanted) / (1.0 if relative else scale)
    assert error.max() <= 1.2 * tolerance
    assert (np.abs(nodes.mix_ak).sum(axis=1) <= 30.0 + 1e-9).all()


def test_nodes_do_not_grow_with_the_grid():
    count = [len(choose_nodes(np.logspace(0, 6, a), (170.0, 6000.0), 6e3, 1e-6, True).alphas) for a in (10, 100, 200, 400)]
    assert count[0] <= 10 and max(count[1:]) <= 12


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("whole_rows", [0, 32])
@pytest.mark.parametrize("shape", [(72, 20), (72, 72), (48, 90)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_grids_and_every_form_equal_refitting(monkeypatch, dtype, shape, whole_rows, scoring):
    monkeypatch.setattr(operators, "WHOLE_ROWS", {True: whole_rows, False: whole_rows})
    X, Y = make(*shape, 4, dtype)
    alphas, folds = np.logspace(-1, 5, 50), blocks(shape[0], 6)
    wanted = reference.cv_scores(X, Y, alphas, folds, scoring, True)
    for strategy in ("primal", "dual"):
        plan = plan_for(X, strategy, alphas=alphas, cv=6)
        forms = {f.form for f in plan._plan.operators} | ({"whole"} if plan._plan.whole else set())
        complete = len(plan._plan.lam) == shape[0] - 1  # p > n: "whole" only where float32 can bear it
        assert forms == ({"train"} if complete else {"apart"}) or (whole_rows and forms == {"whole"})
        assert len(plan._plan.nodes.alphas) < 50
        found = plan.fit(Y, scoring=scoring).cv_scores
        np.testing.assert_allclose(found, wanted, atol=(3e-5 if dtype == np.float32 else 1e-9) * (1 + np.abs(wanted).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(120, 30), (60, 100)])
def test_leave_one_out_is_scikit_learns(shape, dtype):
    X, Y = make(*shape, 25, dtype)
    alphas = np.logspace(-2, 4, 13)
    ours = fastencode.ridge_cv(X, Y, alphas=alphas, cv=shape[0], scoring="neg_mean_squared_error")
    theirs = sklearn.linear_model.RidgeCV(alphas, alpha_per_target=True).fit(X, Y)
    np.testing.assert_allclose(ours.alpha, theirs.alpha_)
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(ours.best_score, theirs.best_score_, rtol=tolerance)
    np.testing.assert_allclose(ours.coef, theirs.coef_.T, atol=tolerance)


def test_an_outlier_held_out_or_a_feature_seen_nowhere_else():
    """Leaving these rows out leaves directions of which the training rows know nothing: the worst case for a block's update."""
    X, Y = make(60, 8, 3)
    X[40:50, 5] = 1e4 * np.random.default_rng(1).standard_normal(10)
    X[:40, 7] = X[50:, 7] = 0.0
    for dtype, tolerance in ((np.float64, 1e-8), (np.float32, 1e-3)):
        wanted = reference.cv_scores(X.astype(dtype), Y.astype(dtype), [1e-3, 1.0], blocks(60, 6), "pearson", True)
        found = fastencode.ridge_cv(X.astype(dtype), Y.astype(dtype), alphas=[1e-3, 1.0], cv=6, scoring="pearson").cv_scores
        np.testing.assert_allclose(found, wanted, atol=tolerance)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("whole_rows", [0, 32])
@pytest.mark.parametrize("shape", [(60, 10), (40, 70)])
def test_weights_count_rows(monkeypatch, shape, whole_rows, intercept, scoring):
    monkeypatch.setattr(operators, "WHOLE_ROWS", {True: whole_rows, False: whole_rows})
    X, Y = make(*shape, 3)
    rng = np.random.default_rng(2)
    w = rng.uniform(0.1, 3.0, shape[0])
    w[rng.permutation(shape[0])[:8]] = 0.0
    kept = np.flatnonzero(w)
    alphas, folds = np.array([0.1, 1.0, 30.0]), blocks(len(kept), 5)
    wanted = reference.weighted_cv_scores(X[kept], Y[kept], alphas, folds, scoring, intercept, w[kept])
    X[w == 0], Y[w == 0] = np.nan, np.inf  # censored: whatever they hold
    for strategy in ("primal", "dual"):
        plan = plan_for(X, strategy, alphas=alphas, cv=5, sample_weight=w, fit_intercept=intercept)
        fit = plan.fit(Y, scoring=scoring)
        np.testing.assert_allclose(fit.cv_scores, wanted, atol=1e-9 * (1 + np.abs(wanted).max()))
        for v in range(3):
            coef, constant = reference.weighted_weights(X[kept], Y[kept, v], fit.alpha[v], intercept, w[kept])
            np.testing.assert_allclose(fit.coef[:, v], coef, atol=1e-9)
            np.testing.assert_allclose(fit.intercept[v], constant, atol=1e-9)


def test_weights_with_runs_and_explicit_folds_name_rows_as_given():
    X, Y = make(50, 6, 3)
    runs, w = np.repeat(np.arange(5), 10), np.ones(50)
    w[10:20] = w[33] = 0.0
    kept = np.flatnonzero(w)
    censored = fastencode.ridge_cv(X, Y, alphas=[1.0, 9.0], cv="runs", runs=runs, sample_weight=w)
    removed = fastencode.ridge_cv(X[kept], Y[kept], alphas=[1.0, 9.0], cv="runs", runs=runs[kept])
    named = fastencode.ridge_cv(
        X, Y, alphas=[1.0, 9.0], cv=[f for k, f in enumerate(fastencode.leave_one_run_out(runs)) if k != 1], sample_weight=w
    )
    for fit in (censored, named):
        np.testing.assert_allclose(fit.cv_scores, removed.cv_scores, atol=1e-12)
        np.testing.assert_allclose(fit.coef, removed.coef, atol=1e-12)
    with pytest.raises(InputError, match="fold 1 tests only on rows whose sample_weight is zero"):
        fastencode.ridge_cv(X, Y, cv=fastencode.leave_one_run_out(runs), sample_weight=w)


@pytest.mark.parametrize(
    "weights, words",
    [
        (np.ones(9), r"sample_weight has shape \(9,\) and X has 10 rows"),
        (np.ones((10, 1)), r"sample_weight has shape \(10, 1\)"),
        (np.r_[np.ones(9), -1], "sample_weight holds -1.0 at row 9"),
        (np.r_[np.nan, np.ones(9)], "sample_weight holds nan at row 0"),
        (np.zeros(10), "zero for every row"),
        (np.r_[1.0, np.zeros(9)], "X has 1 row"),
    ],
)
def test_bad_weights_are_refused(weights, words):
    X, Y = make(10, 2, 2)
    with pytest.raises(InputError, match=words):
        fastencode.ridge_cv(X, Y, cv=2, sample_weight=weights)


@pytest.mark.parametrize("per_target", [True, False])
def test_voxels_with_nan_are_skipped_on_request(per_target):
    X, Y = make(40, 6, 30, np.float32)
    holes = Y.copy()
    holes[3, 4], holes[7, 20], holes[0, 29] = np.nan, np.inf, np.nan
    bad = np.isin(np.arange(30), [4, 20, 29])
    options = {"alphas": [0.1, 1.0, 100.0], "cv": 4, "per_target": per_target}
    with pytest.raises(InputError, match=r"3 of 30 voxels in Y hold NaN .* nan_targets='skip'"):
        fastencode.ridge_cv(X, holes, **options)
    fit, whole = fastencode.ridge_cv(X, holes, nan_targets="skip", **options), fastencode.ridge_cv(X, Y, **options)
    for name in ("coef", "intercept", "alpha", "cv_scores", "best_score"):
        found, wanted = getattr(fit, name), getattr(whole, name)
        assert np.isnan(found[..., bad]).all() and np.array_equal(found[..., ~bad], wanted[..., ~bad]), name
    assert not fit.at_edge[bad].any() and fit.stats["skipped_voxels"] == 3
    with pytest.raises(InputError, match="nan_targets='drop'"):
        fastencode.ridge_cv(X, Y, nan_targets="drop")


def test_skipped_voxels_are_not_counted_as_edges():
    X, Y = make(40, 3, 4)
    Y[:] = np.nan
    fit = fastencode.ridge_cv(X, Y, nan_targets="skip", per_target=False)
    assert np.isnan(fit.coef).all()
    Y[:, 0] = np.random.default_rng(0).standard_normal(40)
    with pytest.warns(FastencodeWarning, match="All penalties of the grid seem to be too large"):
        fastencode.ridge_cv(X, Y, alphas=[1e6, 1e7], nan_targets="skip")


def test_plan_says_what_it_chose():
    X, _ = make(200, 30, 1)
    text = str(fastencode.plan_ridge(X, alphas=np.logspace(0, 6, 60), cv=4))
    for words in ("nodes: predicts at", "of 60 penalties", "folds: 4 ", "operations to plan", "because"):
        assert words in text, words
    assert "200 whole" in str(fastencode.plan_ridge(X, alphas=[1.0, 10.0], cv=200))


@pytest.mark.parametrize("shape", [(60, 12), (40, 70)])
def test_repeated_training_rows_are_within_the_interval_of_the_nodes(shape):
    """A row drawn thirty times has a larger training Gram than all rows together: interpolation must hold there too."""
    X, Y = make(*shape, 4)
    rng = np.random.default_rng(3)
    folds = [(np.r_[np.repeat(rng.integers(0, 20, 3), 30), np.arange(20)], np.arange(20, 40)), blocks(shape[0], 4)[0]]
    alphas = np.logspace(0, 5, 60)
    fit = fastencode.ridge_cv(X, Y, alphas=alphas, cv=folds)
    assert fit.stats["nodes"] < 60
    np.testing.assert_allclose(fit.cv_scores, reference.cv_scores(X, Y, alphas, folds, "r2", True), atol=1e-9)
