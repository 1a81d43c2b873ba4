"""Directions of X that are small beside others: scores and weights against NumPy on the centered training rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fastencode import banded_ridge_cv, ridge_cv
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import fit_plan

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.errors.FastencodeWarning")


def predictions(X, y, new, alpha, intercept=True):
    """Of ridge by the singular values of the training rows; a column that is constant in them has weight zero."""
    x0, y0 = (X.mean(axis=0), y.mean(axis=0)) if intercept else (np.zeros(X.shape[1]), 0.0)
    centered, held = X - x0, new - x0
    same = (X[0] == X).all(axis=0) & intercept
    centered[:, same] = held[:, same] = 0.0
    U, s, Vt = np.linalg.svd(centered, full_matrices=False)
    return held @ (Vt.T @ ((s / (s**2 + alpha)) * (U.T @ (y - y0)))) + y0


def scores(X, y, alpha, folds, intercept=True):
    """R² of every fold."""
    out = []
    for train, test in folds:
        error = y[test] - predictions(X[train], y[train], X[test], alpha, intercept)
        out.append(1 - (error @ error) / ((y[test] - y[test].mean()) ** 2).sum())
    return np.array(out)


def blocks(n, k):
    return [(np.setdiff1d(np.arange(n), held), held) for held in np.array_split(np.arange(n), k)]


@pytest.mark.parametrize("scale", [1e4, 1e6, 1e7, 1e8, 1e9])
def test_a_column_in_large_units_that_is_constant_in_the_training_rows(scale):
    """Sound power that is not zero in the last run only: in its fold, the column is zero in training and left out."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 4))
    y = features @ rng.standard_normal(4) + 0.3 * rng.standard_normal(40)
    runs = np.repeat(np.arange(4), 10)
    X = np.c_[features, np.where(runs == 3, scale * rng.integers(1, 5, 40), 0.0)]
    fit = ridge_cv(X, y, alphas=1.0, cv=4)
    held = runs == 3
    wanted = scores(features, y, 1.0, [(np.flatnonzero(~held), np.flatnonzero(held))])
    np.testing.assert_allclose(fit.fold_scores[3], wanted[0], atol=1e-7)


@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 100.0), (np.float64, 1e4)])
def test_features_that_are_constant_in_the_training_rows_have_no_correlation(dtype, offset):
    rng, last = np.random.default_rng(0), np.arange(24) >= 16
    for p in (1, 3):
        X = np.where(last[:, None], rng.standard_normal((24, p)), 0.0)
        Y = rng.standard_normal((24, 200)) + offset
        fit = ridge_cv(X.astype(dtype), Y.astype(dtype), alphas=0.1, cv=3, scoring="pearson")
        assert not fit.fold_scores[2].any()


@pytest.mark.parametrize("offset", [1e4, 1e6])
@pytest.mark.parametrize("shape", [(24, 5), (18, 17), (16, 30)])
def test_features_with_a_large_mean(shape, offset):
    rng = np.random.default_rng(1)
    X = rng.standard_normal(shape)
    y = X[:, :3].sum(axis=1) + 0.5 * rng.standard_normal(shape[0])
    X[:, 0] += offset
    fit = ridge_cv(X, y, alphas=1.0, cv=3)
    np.testing.assert_allclose(fit.fold_scores, scores(X, y, 1.0, blocks(shape[0], 3)), atol=1e-7)


@pytest.mark.parametrize("noise", [1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("leave_out", [3, 24])
@pytest.mark.parametrize("intercept", [True, False])
def test_few_large_directions_and_many_small(noise, leave_out, intercept):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((24, 4)) @ rng.standard_normal((4, 40))
    y = X[:, :2].sum(axis=1) + rng.standard_normal(24)
    X += noise * rng.standard_normal(X.shape)
    folds = blocks(24, leave_out)
    fit = ridge_cv(X, y, alphas=10.0, cv=folds, scoring="neg_mean_squared_error", fit_intercept=intercept)
    error = [y[test] - predictions(X[train], y[train], X[test], 10.0, intercept) for train, test in folds]
    np.testing.assert_allclose(fit.fold_scores, [-np.mean(e**2) for e in error], atol=1e-8 * np.var(y))


@pytest.mark.parametrize("strategy", ["primal", "dual"])
@pytest.mark.parametrize("intercept", [True, False])
def test_as_many_features_as_rows_and_one_twice(strategy, intercept):
    """X v / √λ of the direction between the two is rounding, and not orthogonal to the others."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        X, y = rng.standard_normal((22, 21)) + 3, rng.standard_normal(22) - 3
        X = np.c_[X, X[:, 0]]
        problem = Problem.check(X, alphas=[1.0], cv=2, fit_intercept=intercept, response_dtype=y.dtype)
        fit = fit_plan(make_plan(problem, strategy), y)
        np.testing.assert_allclose(fit.fold_scores, scores(X, y, 1.0, blocks(22, 2), intercept), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("apart", "alpha"), [(1e-7, 1e-3), (1e-7, 3e-5), (1e-8, 1e-5)])
@pytest.mark.parametrize("shape", [(30, 6), (16, 24)])
def test_columns_that_are_nearly_equal_share_a_weight(shape, apart, alpha):
    """Their difference has an eigenvalue far below α, and a weight of size √λ / α: small, and not zero."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape)
    X[:, -1] = X[:, 0] + apart * rng.standard_normal(shape[0])
    y = X[:, :3].sum(axis=1) + rng.standard_normal(shape[0])
    centered = X - X.mean(axis=0)
    stacked, wanted = np.vstack([centered, np.sqrt(alpha) * np.eye(shape[1])]), np.r_[y - y.mean(), np.zeros(shape[1])]
    coef = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    fit = ridge_cv(X, y, alphas=alpha, cv=3)
    np.testing.assert_allclose(fit.coef, coef, atol=2e-7 * np.abs(coef).max())


@pytest.mark.parametrize(
    ("scale", "noise", "alpha"), [(1.0, 1e-5, 1.0), (30.0, 1e-4, 10.0), (300.0, 1e-3, 10.0), (1e3, 0.1, 100.0)]
)
def test_dual_weights_of_a_kernel_sum_to_zero(scale, noise, alpha):
    """Small eigenvectors of a centered kernel are not mixed with the constant, so raw kernels times dual weights are right."""
    rng = np.random.default_rng(0)
    X = scale * (rng.standard_normal((40, 4)) @ rng.standard_normal((4, 60)) + noise * rng.standard_normal((40, 60)) + 1.0)
    y = X[:, :2].sum(axis=1) / scale + rng.standard_normal(40)
    kernel = X @ X.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = banded_ridge_cv(kernel[None], y, bands="precomputed", gammas=[1.0], alphas=alpha, cv=None)
    np.testing.assert_allclose(fit.predict(kernel[None]), predictions(X, y, X, alpha), atol=1e-5)


@pytest.mark.parametrize("n_features", [1, 2])
@pytest.mark.parametrize("strategy", ["primal", "dual"])
@pytest.mark.parametrize("weighted", [False, True])
def test_kernels_of_one_direction(n_features, strategy, weighted):
    """A kernel of rank one, of all rows or of a fold's training rows: its direction is not mixed with the constant."""
    rng = np.random.default_rng(0)
    row_weights = np.repeat(rng.integers(1, 4, 8), 3).astype(float)
    for _ in range(5):
        X, y = np.repeat(rng.standard_normal((24, 1)) + 3, n_features, axis=1), rng.standard_normal(24)
        options = {"alphas": [1.0], "cv": 4, "sample_weight": row_weights if weighted else None}
        fit = fit_plan(make_plan(Problem.check(X, **options, response_dtype=y.dtype), strategy), y)
        times = np.repeat(np.arange(24), row_weights.astype(int) if weighted else 1)
        folds = [(np.flatnonzero(np.isin(times, train)), test) for train, test in blocks(24, 4)]
        wanted = [predictions(X[times[train]], y[times[train]], X[test], 1.0) for train, test in folds]
        w = row_weights if weighted else np.ones(24)
        for (_, test), found, score in zip(folds, wanted, fit.fold_scores, strict=True):
            middle = np.average(y[test], weights=w[test])
            exact = 1 - (w[test] @ (y[test] - found) ** 2) / (w[test] @ (y[test] - middle) ** 2)
            np.testing.assert_allclose(score, exact, atol=1e-9, rtol=1e-9)
        np.testing.assert_allclose(fit.predict(X), predictions(X[times], y[times], X, 1.0), atol=1e-9)


@pytest.mark.parametrize("strategy", ["primal", "dual"])
@pytest.mark.parametrize("scoring", ["r2", "pearson", "neg_mean_squared_error"])
def test_kernels_of_no_direction(strategy, scoring):
    """Constant features: rounding of the zero kernel beside the constant is no direction."""
    rng = np.random.default_rng(0)
    for n in (8, 9, 24):
        X, Y = np.full((n, 2), 2.5), rng.standard_normal((n, 3))
        problem = Problem.check(X, alphas=[1e-30, 1.0], cv=2, response_dtype=Y.dtype)
        plan = make_plan(problem, strategy)
        fit = fit_plan(plan, Y, scoring=scoring)
        assert len(plan.lam) == 0 and not fit.coef.any()
        np.testing.assert_allclose(fit.intercept, Y.mean(axis=0))
        if scoring == "pearson":
            assert not fit.cv_scores.any()


def test_kernels_of_one_direction_in_bands():
    rng = np.random.default_rng(0)
    for _ in range(10):
        X, y = rng.standard_normal((12, 1)) + 3, rng.standard_normal(12)
        kernel = X @ X.T
        fit = banded_ridge_cv(kernel[None], y, bands="precomputed", gammas=[1.0], alphas=1.0, cv=3)
        np.testing.assert_allclose(fit.predict(kernel[None]), predictions(X, y, X, 1.0), atol=1e-8)
        np.testing.assert_allclose(fit.cv_scores.ravel(), [scores(X, y, 1.0, blocks(12, 3)).mean()], atol=1e-8)


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
def test_ties_are_measured_in_the_variance_without_an_intercept_too(scoring):
    """Were the mean square of the responses the unit, their mean of 1e4 would make every penalty a tie."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((60, 4))
    X, y = np.c_[features, np.full(60, 1e4)], features.sum(axis=1) + 0.3 * rng.standard_normal(60) + 1e4
    alphas = np.logspace(-1, 5, 7)
    fit = ridge_cv(X, y, alphas=alphas, cv=3, fit_intercept=False, scoring=scoring)
    best = np.argmax([np.mean(scores(X, y, alpha, blocks(60, 3), False)) for alpha in alphas])
    assert fit.alpha == alphas[best] < 10
