"""Directions of X that are small beside others: scores and weights against NumPy on the centered training rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from device_cases import ALPHAS, on_device
from fastencode import banded_ridge_cv, delay, plan_ridge, ridge_cv
from fastencode.devices import plain_device
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


def ridge_weights(X, y, alpha, intercept=True):
    """By least squares of [X − x̄; √α I]: (p,), and in float64 as accurate as X."""
    centered = X - X.mean(axis=0) * intercept
    stacked = np.vstack([centered, np.sqrt(alpha) * np.eye(X.shape[1])])
    return np.linalg.lstsq(stacked, np.r_[y - y.mean() * intercept, np.zeros(X.shape[1])], rcond=None)[0]


@pytest.mark.parametrize("apart", [1e-9, 1e-11, 1e-13])
@pytest.mark.parametrize("banded", [False, True])
def test_what_spans_every_response_is_orthogonal_to_the_constant(apart, banded):
    """As many directions as rows: the smallest of them was partly the constant."""
    rng = np.random.default_rng(4)
    X = rng.standard_normal((20, 18)) + 5
    X, y = np.c_[X, X[:, 0] + apart * rng.standard_normal(20)], rng.standard_normal(20)
    if banded:
        fit = banded_ridge_cv(X, y, bands=[10, 9], gammas=[[1.0, 1.0]], alphas=1.0, cv=3)
        np.testing.assert_allclose(fit.best_score, scores(X, y, 1.0, blocks(20, 3)).mean(), atol=1e-8)
        return
    fit = ridge_cv(X, y, alphas=1.0, cv=3)
    np.testing.assert_allclose(fit.fold_scores, scores(X, y, 1.0, blocks(20, 3)), atol=1e-8)
    hat = np.array([predictions(X, one, X, 0.1) for one in np.eye(20)]).T
    wanted = -20 * np.sum((y - hat @ y) ** 2) / (20 - np.trace(hat)) ** 2
    fit = ridge_cv(X, y, alphas=0.1, cv="gcv", scoring="neg_mean_squared_error")
    np.testing.assert_allclose(fit.cv_scores, wanted, rtol=1e-8)


@pytest.mark.parametrize("apart", [1e-8, 1e-10, 1e-12, 1e-14])
@pytest.mark.parametrize("alpha", [1e-3, 1.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_dual_weights_where_columns_are_nearly_equal(apart, alpha, intercept):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 6))
    X[:, 5] = X[:, 0] + apart * rng.standard_normal(40)
    y = X[:, :3].sum(axis=1) + rng.standard_normal(40)
    fit = ridge_cv(X, y, alphas=alpha, cv=3, weights="dual", fit_intercept=intercept)
    np.testing.assert_allclose(fit.predict(X), predictions(X, y, X, alpha, intercept), atol=1e-8)


@pytest.mark.parametrize("factor", [1e-7, 3e-8, 1e-8, 1e-9])
@pytest.mark.parametrize("alpha", [1e-5, 1e-3])
@pytest.mark.parametrize("strategy", ["primal", "dual"])
def test_a_direction_that_is_short_in_the_training_rows_and_long_in_the_test_rows(factor, alpha, strategy):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((24, 4))
        y = X[:, :3].sum(axis=1) + rng.standard_normal(24)
        X[:16, 3] *= factor
        problem = Problem.check(X, alphas=[alpha], cv=3, response_dtype=y.dtype)
        fit = fit_plan(make_plan(problem, strategy), y, scoring="neg_mean_squared_error")
        error = [y[test] - predictions(X[train], y[train], X[test], alpha) for train, test in blocks(24, 3)]
        wanted = -np.mean(np.square(error), axis=1)
        np.testing.assert_allclose(fit.fold_scores, wanted, atol=1e-8 * np.abs(wanted).max())


def test_directions_below_the_rounding_of_a_kernel_are_not_cut_apart():
    """Delayed copies are fitted in the dual here: eigenvectors below eps λ_top mix with those of no direction at all."""
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((300, 15))
    Z[:, 1:4] = Z[:, :1] + 1e-7 * rng.standard_normal((300, 3))
    X, y = np.asarray(delay(Z, range(1, 11))), rng.standard_normal(300)
    top = np.linalg.norm(X - X.mean(axis=0), 2) ** 2
    for part in (2e-7, 1e-6, 1e-4):
        coef = ridge_weights(X, y, part * top)
        problem = Problem.check(delay(Z, range(1, 11), copy=False), alphas=[part * top], cv=3, response_dtype=y.dtype)
        fit = fit_plan(make_plan(problem, "dual"), y)
        np.testing.assert_allclose(fit.coef, coef, atol=1e-8 * np.abs(coef).max())


@pytest.mark.parametrize("kernel", [np.zeros((12, 12)), np.ones((12, 12))])
def test_kernels_that_hold_no_direction_predict_the_mean(kernel):
    Y = np.random.default_rng(0).standard_normal((12, 4))
    fit = banded_ridge_cv(kernel[None], Y, bands="precomputed", gammas=[[1.0]], alphas=1e-12, cv=3)
    np.testing.assert_allclose(fit.predict(kernel[None]), np.tile(Y.mean(axis=0), (12, 1)), atol=1e-12)
    constant = [scores(np.zeros((12, 1)), y, 1.0, blocks(12, 3)).mean() for y in Y.T]
    np.testing.assert_allclose(fit.best_score, constant, atol=1e-10)


def test_features_whose_squares_squared_overflow():
    X, y = np.random.default_rng(0).standard_normal((12, 20)), np.random.default_rng(1).standard_normal(12)
    fit = ridge_cv(1e80 * X, y, alphas=1e160, cv=3)
    np.testing.assert_allclose(fit.fold_scores, scores(X, y, 1.0, blocks(12, 3)), atol=1e-8)


@pytest.mark.parametrize("part", [1e-6, 1e-4, 1e-3])
def test_float32_weights_of_bands_solved_in_cells(part):
    """Repeated columns: most of the dual weights cancels in the product with the features."""
    rng = np.random.default_rng(0)
    X, Y = np.repeat(rng.standard_normal((30, 12)), 5, axis=1).astype("f4"), rng.standard_normal((30, 6)).astype("f4")
    top = np.linalg.norm(X - X.mean(axis=0), 2) ** 2
    gammas, alphas = 10 ** rng.uniform(-0.4, 0.4, (2, 6)), part * top * 10 ** rng.uniform(0, 0.4, 6)
    found = banded_ridge_cv(X, Y, bands=[30, 30], gammas=gammas, alphas=alphas, cv=None).coef
    scale = np.sqrt(np.repeat(gammas, 30, axis=0))
    exact = [ridge_weights(X.astype(float) * scale[:, [v]].T, Y[:, v].astype(float), alphas[v]) for v in range(6)]
    wanted = scale * np.array(exact).T
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("p", [1, 2])
def test_penalties_between_nodes_of_a_flat_spectrum(p):
    """Eigenvalues within a few per cent of each other: two nodes met all the samples taken of them, and were off between."""
    rng, alphas = np.random.default_rng(0), np.logspace(-3, 6, 10)
    for _ in range(20):
        X = rng.standard_normal((300, p))
        y = 3 * X.sum(axis=1) + 0.3 * rng.standard_normal(300)
        exact = [scores(X, y, alpha, blocks(300, 5)).mean() for alpha in alphas]
        np.testing.assert_allclose(ridge_cv(X, y, alphas=alphas, cv=5).cv_scores, exact, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scoring", ["r2", "pearson"])
@pytest.mark.parametrize("search", [None, "random", "gradient"])
def test_responses_that_are_constant_in_weighted_test_rows_score_zero(dtype, scoring, search):
    rng = np.random.default_rng(0)
    X, Y, weight = rng.standard_normal((24, 4)), rng.standard_normal((24, 40)), rng.uniform(0.2, 5, 24)
    Y[:8] = rng.standard_normal(40)
    X, Y = X.astype(dtype), Y.astype(dtype)
    folds = [(np.arange(8, 24), np.arange(8))]
    if search is None:
        found = ridge_cv(X, Y, alphas=[0.1, 1.0], cv=folds, sample_weight=weight, scoring=scoring).cv_scores
    else:
        given = {"bands": [2, 2], "alphas": [0.1, 1.0], "cv": folds, "sample_weight": weight, "scoring": scoring}
        found = banded_ridge_cv(X, Y, search=search, n_iter=2, random_state=0, **given).best_score
    assert not found.any()


@pytest.mark.parametrize("shape", [(60, 3), (200, 7), (30, 50)], ids=["whole", "apart", "train"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("scoring", ["r2", "pearson"])
@pytest.mark.parametrize("there", [False, True])
def test_test_rows_of_hardly_any_weight_are_not_constant(shape, intercept, scoring, there):
    """Weights of 1 in the training rows and of 1e-13 in the test rows: a fold scores as without weights."""
    (n, p), rng = shape, np.random.default_rng(0)
    X, Y = (rng.standard_normal(size).astype("f4") for size in ((n, p), (n, 20)))
    m = 10 if n < 100 else 50
    weight, folds = np.r_[np.full(m, 1e-13), np.ones(n - m)], [(np.arange(m, n), np.arange(m))]
    options = dict(alphas=ALPHAS, cv=folds, fit_intercept=intercept)
    wanted = ridge_cv(X, Y, scoring=scoring, **options).cv_scores
    if there:
        plan = plan_ridge(X, sample_weight=weight, **options)
        found = np.asarray(on_device(plain_device(torch), plan, Y, scoring)[0]["cv_scores"])
    else:
        found = ridge_cv(X, Y, sample_weight=weight, scoring=scoring, **options).cv_scores
    assert np.abs(wanted).min() > 0
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_mean_that_is_large_is_not_correlated():
    """Features equal in the training rows but for nothing: rounding of the mean, 1e3 times their spread, is no prediction."""
    rng, last = np.random.default_rng(0), np.arange(24) >= 16
    X = np.where(last[:, None], rng.standard_normal((24, 3)) + 1e3, 1e3)
    fit = ridge_cv(X, rng.standard_normal((24, 50)), alphas=0.1, cv=3, scoring="pearson")
    assert not fit.fold_scores[2].any()


def test_few_training_rows_of_little_weight():
    """Their mean, taken from all other rows in float32, would lose its digits."""
    rng, weight = np.random.default_rng(0), np.r_[1e-3, np.linspace(1, 30, 11)]
    X, Y = rng.standard_normal((12, 2)).astype("f4"), rng.standard_normal((12, 30)).astype("f4")
    fit = ridge_cv(
        X, Y, alphas=1e9, cv=[(np.array([0]), np.arange(1, 12))], sample_weight=weight, scoring="neg_mean_squared_error"
    )
    w = weight[1:]
    wanted = -(w @ (Y[1:].astype(float) - Y[0].astype(float)) ** 2) / w.sum()
    np.testing.assert_allclose(fit.cv_scores[0], wanted, rtol=2e-5)
