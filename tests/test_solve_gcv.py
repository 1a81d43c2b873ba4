"""Generalised cross-validation against the hat matrix written out."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
from device_cases import on_device
from fastencode.devices import HOST
from fastencode.errors import InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.score.gcv import GcvScorer

ALPHAS = np.array([0.1, 1.0, 30.0, 1e4])


def by_hand(X, Y, alpha, intercept, w):
    """GCV of every voxel from the hat matrix of rows that are repeated as often as their (integer) weight says."""
    rows = np.repeat(np.arange(len(X)), w)
    X, Y = X[rows], Y[rows]
    n = len(X)
    if intercept:
        X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    hat = X @ np.linalg.solve(X.T @ X + alpha * np.eye(X.shape[1]), X.T) + intercept / n
    return n * ((Y - hat @ Y) ** 2).sum(axis=0) / (n - np.trace(hat)) ** 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(50, 6), (30, 30), (30, 45)])
@pytest.mark.parametrize("strategy", ["primal", "dual"])
def test_equals_the_formula_with_the_hat_matrix(strategy, shape, dtype, intercept, weighted):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) + 1
    Y = X[:, :3] @ rng.standard_normal((3, 4)) + rng.standard_normal((shape[0], 4)) + 5
    w = rng.integers(1, 4, shape[0]) if weighted else np.ones(shape[0], int)
    problem = Problem.check(X.astype(dtype), alphas=ALPHAS, fit_intercept=intercept, sample_weight=w if weighted else None)
    plan = make_plan(problem, strategy)
    mean = np.average(Y, axis=0, weights=w) if intercept else 0.0
    y_tv = ((Y - mean) * plan.root[:, None]).astype(dtype)
    variance = (y_tv.astype(np.float64) ** 2).sum(axis=0) / w.sum()
    found = GcvScorer(plan).score(plan.analyze.T @ y_tv, variance, "neg_mean_squared_error")
    wanted = -np.stack([by_hand(X, Y, alpha, intercept, w) for alpha in ALPHAS])
    np.testing.assert_allclose(found, wanted, rtol=1e-9 if dtype == np.float64 else 2e-4)
    r2 = GcvScorer(plan).score(plan.analyze.T @ y_tv, variance, "r2")
    np.testing.assert_allclose(r2, 1 + wanted / variance, rtol=0, atol=1e-9 if dtype == np.float64 else 2e-4)


@pytest.mark.filterwarnings("ignore:.*of the grid")
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("shape", [(50, 6), (30, 45)])
def test_ridge_chooses_by_it(shape, per_target):
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal(shape), rng.standard_normal((shape[0], 5))
    Y[:, :3] += X[:, :3] @ rng.standard_normal((3, 3))
    fit = fastencode.ridge_cv(X, Y, alphas=ALPHAS, cv="gcv", per_target=per_target)
    error = np.stack([by_hand(X, Y, alpha, True, np.ones(len(X), int)) for alpha in ALPHAS])
    scores = 1 - error / Y.var(axis=0)
    np.testing.assert_allclose(fit.cv_scores, scores, atol=1e-9)
    best = scores.argmax(axis=0) if per_target else np.full(5, scores.mean(axis=1).argmax())
    np.testing.assert_array_equal(fit.alpha, ALPHAS[best])
    given = fastencode.ridge_cv(X, Y, alphas=fit.alpha, cv=None)
    np.testing.assert_allclose(fit.coef, given.coef, atol=1e-12)
    assert fit.fold_scores is None and fit.stats["folds"] == 0
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv="gcv")
    np.testing.assert_array_equal(plan.fit(Y, per_target=per_target).alpha, fit.alpha)
    there, _ = on_device(HOST, plan, Y, per_target=per_target)
    np.testing.assert_allclose(there["cv_scores"], fit.cv_scores, atol=1e-12)
    np.testing.assert_allclose(there["coef"], fit.coef, atol=1e-12)


def test_what_does_not_go_with_it():
    X, Y = np.random.default_rng(2).standard_normal((2, 30, 4))
    for options, words in [
        ({"scoring": "pearson"}, "estimates squared errors, so scoring='pearson' does not apply"),
        ({"cv_predictions": True}, "holds no rows out, so cv_predictions=True does not apply"),
        ({"gap": 2}, "cv='gcv' holds no rows out, so gap=2 does not apply"),
        ({"rule": "one-se"}, "rule='one-se' needs a standard error over folds"),
    ]:
        with pytest.raises(InputError, match=words):
            fastencode.ridge_cv(X, Y, cv="gcv", **options)
    with pytest.raises(InputError, match="cv='gcv' is not known"):
        fastencode.banded_ridge_cv(X, Y, bands=[2, 2], cv="gcv")
