"""Columns in very different units: weights and scores against exact arithmetic, 80 decimal digits."""

from __future__ import annotations

import warnings
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from fastencode import banded_ridge_cv, plan_ridge, ridge_cv
from fastencode.errors import FastencodeWarning, InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import fit_plan

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")
RATIOS = (1.0, 1e3, 1e5, 1e8, 1e12)
SHAPES = ((24, 6), (24, 24), (24, 36))
ALPHAS = (0.5, 100.0)
FOLDS = 3
# Weights times their column's scale, relative to the largest, by what was decomposed; and scores.
BOUND = {(np.float64, "gram"): 1e-8, (np.float64, "features"): 1e-11, (np.float32, "gram"): 2e-5, (np.float32, "features"): 2e-5}
SCORE_BOUND = 1e-6


def decimals(array):
    """The same numbers, exactly."""
    return np.vectorize(lambda value: Decimal(float(value)), otypes=[object])(array)


def solve(A, B):
    """A⁻¹ B by Gaussian elimination, rows exchanged."""
    A, B = A.copy(), B.copy()
    for k in range(len(A)):
        pivot = k + int(np.argmax([abs(value) for value in A[k:, k]]))
        A[[k, pivot]], B[[k, pivot]] = A[[pivot, k]], B[[pivot, k]]
        factor = A[k + 1 :, k] / A[k, k]
        A[k + 1 :] -= factor[:, None] * A[k]
        B[k + 1 :] -= factor[:, None] * B[k]
    for k in reversed(range(len(A))):
        B[k] = (B[k] - A[k, k + 1 :] @ B[k + 1 :]) / A[k, k]
    return B


def exact_ridge(X, Y, alpha, intercept):
    """(weights, intercept) of minimal Σ (y − x b − a)² + α Σ b², in decimals."""
    count = Decimal(len(X))
    mean_x, mean_y = (array.sum(axis=0) / count if intercept else array.sum(axis=0) * 0 for array in (X, Y))
    centered = X - mean_x
    kernel = centered @ centered.T
    kernel[np.diag_indices(len(X))] += Decimal(alpha)
    coef = centered.T @ solve(kernel, Y - mean_y)
    return coef, mean_y - mean_x @ coef


def exact_r2(Y, P):
    return np.array([1 - sum((y - p) ** 2) / sum((y - sum(y) / len(y)) ** 2) for y, p in zip(Y.T, P.T, strict=True)], float)


def make(ratio, shape, kind):
    """A design whose columns' scales are ``ratio`` apart, exact in float32, and two responses."""
    rng = np.random.default_rng(7)
    n, p = shape
    mixed = rng.standard_normal((n, p)) @ (np.eye(p) + 0.2 * rng.standard_normal((p, p)))
    scale = np.ones(p)
    if kind == "few":
        scale[[1, p - 1]] = ratio
    else:
        scale = ratio ** rng.uniform(0, 1, p)
    X = (mixed * scale).astype(np.float32)
    Y = (mixed[:, :4] @ rng.standard_normal((4, 2)) + 0.5 * rng.standard_normal((n, 2))).astype(np.float32)
    return X, Y, np.abs(X).max(axis=0)


@cache
def expected(ratio, shape, kind, intercept):
    """(weights at each penalty (a, p, v), mean held-out R² (a, v)) in exact arithmetic."""
    X, Y, _ = make(ratio, shape, kind)
    with localcontext() as context:
        context.prec = 80
        X, Y = decimals(X), decimals(Y)
        blocks = np.array_split(np.arange(len(X)), FOLDS)
        coefs, scores = [], []
        for alpha in ALPHAS:
            coefs.append(exact_ridge(X, Y, alpha, intercept)[0].astype(float))
            each = []
            for test in blocks:
                train = np.setdiff1d(np.arange(len(X)), test)
                coef, constant = exact_ridge(X[train], Y[train], alpha, intercept)
                each.append(exact_r2(Y[test], X[test] @ coef + constant))
            scores.append(np.mean(each, axis=0))
    return np.stack(coefs), np.stack(scores)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("strategy", ["primal", "dual"])
@pytest.mark.parametrize("kind", ["few", "all"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_weights_and_scores_are_exact_whatever_the_units(ratio, shape, kind, strategy, dtype, intercept):
    X, Y, scale_p = make(ratio, shape, kind)
    coefs, scores = expected(ratio, shape, kind, intercept)
    problem = {"fit_intercept": intercept, "cv": FOLDS}
    for a, alpha in enumerate(ALPHAS):
        plan = make_plan(Problem.check(X.astype(dtype), alphas=[alpha], **problem), strategy)
        fit = fit_plan(plan, Y.astype(dtype))
        error, size = (np.abs(values).max() for values in ((fit.coef - coefs[a]) * scale_p[:, None], coefs[a] * scale_p[:, None]))
        assert error <= BOUND[dtype, fit.stats["decomposed"]] * size
        # Maps from training responses, which folds of a large condition have, lose the root of it.
        tolerance = SCORE_BOUND + 4 * np.finfo(dtype).eps * np.sqrt(plan.condition) * (1 + np.abs(scores).max())
        assert fit.best_score == pytest.approx(scores[a], rel=0, abs=tolerance)
    fit = fit_plan(make_plan(Problem.check(X.astype(dtype), alphas=ALPHAS, **problem), strategy), Y.astype(dtype))
    assert fit.cv_scores == pytest.approx(scores, rel=0, abs=tolerance)
    if ratio >= 1e8 and shape != (24, 36) and dtype == np.float64:
        assert fit.stats["decomposed"] == "features"


def rational_ridge(X, y, alpha):
    """Weights without an intercept by Cramer's rule in fractions."""
    X, y = [[Fraction(float(x)) for x in row] for row in X], [Fraction(float(value)) for value in y]
    p = len(X[0])
    A = [[sum(row[i] * row[j] for row in X) + (Fraction(alpha) if i == j else 0) for j in range(p)] for i in range(p)]
    right = [sum(row[i] * value for row, value in zip(X, y, strict=True)) for i in range(p)]

    def determinant(M):
        if len(M) == 1:
            return M[0][0]
        minors = ([row[:k] + row[k + 1 :] for row in M[1:]] for k in range(len(M)))
        return sum((-1) ** k * M[0][k] * determinant(minor) for k, minor in enumerate(minors))

    replaced = ([[*row[:i], b, *row[i + 1 :]] for row, b in zip(A, right, strict=True)] for i in range(p))
    return [float(determinant(M) / determinant(A)) for M in replaced]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_column_in_units_1e8_times_smaller(dtype):
    X = np.random.default_rng(0).integers(-3, 4, (12, 3)).astype(dtype)
    X[:, 2] *= 1e8
    y = 2 * X[:, 0] - X[:, 1]
    fit = ridge_cv(X, y, alphas=[1.0], cv=3, fit_intercept=False)
    assert fit.coef == pytest.approx(rational_ridge(X, y, 1), rel=1e-10 if dtype == np.float64 else 1e-4, abs=0)


def held_out_r2(X, y, alpha, folds):
    """Mean R² of least squares of [Z; √α D⁻¹], where Z = X D⁻¹ has columns of norm 1."""
    scores = []
    for test in np.array_split(np.arange(len(X)), folds):
        train = np.setdiff1d(np.arange(len(X)), test)
        mean, size = X[train].mean(axis=0), np.linalg.norm(X[train] - X[train].mean(axis=0), axis=0)
        stacked = np.vstack([(X[train] - mean) / size, np.diag(np.sqrt(alpha) / size)])
        w = np.linalg.lstsq(stacked, np.r_[y[train] - y[train].mean(), np.zeros(X.shape[1])], rcond=None)[0]
        error = y[test] - y[train].mean() - (X[test] - mean) / size @ w
        scores.append(1 - (error @ error) / ((y[test] - y[test].mean()) ** 2).sum())
    return np.mean(scores)


def test_powers_of_time_and_sound_power_beside_features_of_unit_size():
    rng = np.random.default_rng(1)
    n = 1200
    Z, t = rng.standard_normal((n, 20)), np.arange(float(n))
    y = Z @ rng.standard_normal(20) + 4 * rng.standard_normal(n)
    for beside in (np.stack([t, t**2, t**3], axis=1), rng.integers(-32768, 32768, (n, 1)) ** 2.0):
        X = np.concatenate([Z, beside], axis=1)
        for alpha in (1.0, 1e3):
            fit = ridge_cv(X, y, alphas=[alpha], cv=4)
            assert fit.best_score == pytest.approx(held_out_r2(X, y, alpha, 4), abs=1e-7)
            assert fit.stats["decomposed"] == "features"
            assert "column-pivoted QR" in str(plan_ridge(X, alphas=[alpha], cv=4))


def test_a_large_constant_column_is_an_intercept():
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((80, 5)), rng.standard_normal((80, 3)) + 2
    wanted = ridge_cv(X, Y, alphas=[1.0, 10.0], cv=4)
    fit = ridge_cv(np.c_[X, np.full(80, 1e10)], Y, alphas=[1.0, 10.0], cv=4, fit_intercept=False)
    np.testing.assert_allclose(fit.cv_scores, wanted.cv_scores, atol=1e-9)
    np.testing.assert_allclose(fit.coef[:5], wanted.coef, atol=1e-9)


def test_bands_with_columns_in_other_units_are_those_of_scaled_weights():
    rng = np.random.default_rng(3)
    for n, p in ((60, 12), (24, 40)):
        X, Y = rng.standard_normal((n, p)), rng.standard_normal((n, 3))
        X[:, 1] *= 1e9
        one = ridge_cv(X, Y, alphas=[1.0, 30.0], cv=3)
        two = banded_ridge_cv(X, Y, bands={"a": p // 2, "b": p - p // 2}, gammas=[[1.0, 1.0]], alphas=[1.0, 30.0], cv=3)
        np.testing.assert_allclose(two.best_score, one.best_score, atol=1e-9)
        scale_p = np.abs(X).max(axis=0)[:, None]
        np.testing.assert_allclose(two.coef * scale_p, one.coef * scale_p, atol=1e-9 * np.abs(one.coef * scale_p).max())


@pytest.mark.parametrize("ratio", [1e3, 1e6, 1e9])
def test_float32_bands_with_more_columns_than_rows_keep_their_digits(ratio):
    rng = np.random.default_rng(8)
    X, Y = rng.standard_normal((24, 40)).astype(np.float32), rng.standard_normal((24, 3)).astype(np.float32)
    X[:, 1] *= ratio
    scale_p = np.abs(X).max(axis=0)[:, None]
    options = {"bands": {"a": 20, "b": 20}, "gammas": [[1.0, 1.0], [0.2, 1.0]], "alphas": [1.0, 30.0], "cv": 3}
    fit, wanted = (banded_ridge_cv(X.astype(dtype), Y.astype(dtype), **options) for dtype in (np.float32, np.float64))
    assert fit.stats["strategy"] == "dual"
    np.testing.assert_allclose(fit.coef * scale_p, wanted.coef * scale_p, atol=2e-5 * np.abs(wanted.coef * scale_p).max())
    np.testing.assert_allclose(fit.best_score, wanted.best_score, atol=1e-5)


def test_columns_of_one_scale_are_decomposed_by_their_gram_however_large():
    rng = np.random.default_rng(4)
    for scale in (1e-6, 1.0, 1e7):
        X = scale * rng.standard_normal((60, 20))
        assert ridge_cv(X, X[:, :2], alphas=[1.0], cv=3).stats["decomposed"] == "gram"


def test_what_cannot_be_resolved_is_named():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((60, 6))
    X[:, 1] *= 1e13
    X[:, 4] = X[:, 1] * (1 + 1e-15)
    with pytest.warns(FastencodeWarning, match=r"1 columns of X \([14]\) are combinations of others but for their own rounding"):
        ridge_cv(X, X[:, :2], alphas=[1.0], cv=3)
    X[:, 4] = X[:, 0]  # at unit size the rounding is far below the penalty
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ridge_cv(X, rng.standard_normal(60), alphas=[1.0], cv=3)


def test_memory_that_does_not_hold_the_decomposition_says_so():
    X = np.random.default_rng(6).standard_normal((400, 30))
    X[:, 1] *= 1e9
    with pytest.raises(InputError, match="scale the columns to equal variance, or allow more"):
        ridge_cv(X, X[:, :2], alphas=[1.0], cv=3, memory="450kB")


@pytest.mark.filterwarnings("ignore:.*are combinations of others")
@pytest.mark.parametrize("scale", [1e4, 1e8, 1e12])
@pytest.mark.parametrize("kind", ["repeated", "sum", "few rows"])
@pytest.mark.parametrize("intercept", [True, False])
def test_columns_in_large_units_that_repeat_others(scale, kind, intercept):
    """Rounding of what is left of such a column had a share in the small directions, and the column a weight of it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((24, 6))
    if kind == "repeated":
        X[:, 3] *= scale
        X[:, 5] = X[:, 3]
    elif kind == "sum":
        X[:, 3:5] = np.round(scale * X[:, 3:5])
        X[:, 5] = X[:, 3] + X[:, 4]
    else:  # three columns, and two rows in which they are not zero
        X[:18, 3:] = X[20:, 3:] = 0.0
        X[:, 3:] *= scale
    Y = X[:, :3].sum(axis=1, keepdims=True) + rng.standard_normal((24, 2))
    with localcontext() as context:
        context.prec = 80
        coef = exact_ridge(decimals(X), decimals(Y), 1, intercept)[0].astype(float)
    found, size = ridge_cv(X, Y, alphas=1.0, cv=3, fit_intercept=intercept).coef, X.std(axis=0)[:, None]
    np.testing.assert_allclose(found * size, coef * size, rtol=0, atol=1e-11 * np.abs(coef * size).max())


def weighted_ridge(X, y, w, alpha, intercept=True):
    """Exact weights where row i counts w[i] times: C' (C C' + α W⁻¹)⁻¹ (y − ȳ), C about the means with an intercept."""
    with localcontext() as context:
        context.prec = 80
        X, y, w = decimals(X), decimals(y), decimals(w)
        centered, y = X - intercept * (w @ X) / w.sum(), y - intercept * (w @ y) / w.sum()
        kernel = centered @ centered.T
        kernel[np.diag_indices(len(w))] += Decimal(alpha) / w
        return (centered.T @ solve(kernel, y[:, None]))[:, 0].astype(float)


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_little_weight_beside_two_heavy_ones(seed):
    """The constant was taken out of the first row, so that only rounding of the heavy rows knew what it held."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((8, 9)), rng.standard_normal(8)
    X[:, 5:] = X[:, 4:5] + 1e-6 * X[:, 5:]
    X, w = 1e5 * X, 10.0 ** np.array([-6, -3, 0, 6, 5.9, 4, -5, -4])
    coef = weighted_ridge(X, y, w, 1e-5)
    fit = ridge_cv(X, y, alphas=1e-5, cv=2, sample_weight=w)
    np.testing.assert_allclose(fit.coef, coef, rtol=0, atol=1e-8 * np.abs(coef).max())


@pytest.mark.parametrize("seed", range(3))
def test_heavy_and_light_rows_of_columns_with_a_large_mean(seed):
    """QR keeps the digits of light rows if heavy ones come first."""
    rng = np.random.default_rng(seed)
    X, y, w = rng.standard_normal((8, 6)), rng.standard_normal(8), 10.0 ** np.array([-4, -3, 0, 5, 4, 3, -4, -2])
    X[:, 4:] += 1e8
    scale = np.sqrt((X**2).mean(axis=0))
    coef = weighted_ridge(X, y, w, 1e-3, intercept=False) * scale
    fit = ridge_cv(X, y, alphas=1e-3, cv=2, sample_weight=w, fit_intercept=False)
    np.testing.assert_allclose(fit.coef * scale, coef, rtol=0, atol=2e-7 * np.abs(coef).max())  # rounding of X: 1e-8 to 1e-7


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1e8, 1e10])
def test_a_column_whose_training_rows_are_rounding_of_all_rows(seed, scale):
    """What is left of its eigenvalue in the training rows was taken from a condition that was rounding itself."""
    rng = np.random.default_rng(seed)
    x, y, alphas = rng.standard_normal(12), rng.standard_normal(12), np.logspace(-2, 4, 7)
    x[8:] *= scale
    fit = ridge_cv(x[:, None], y, alphas=alphas, cv=[(np.arange(8), np.arange(8, 12))])
    train, held = x[:8] - x[:8].mean(), x[8:] - x[:8].mean()
    slopes = (train @ y[:8]) / (train @ train + alphas)
    error = y[8:] - y[:8].mean() - slopes[:, None] * held
    wanted = 1 - (error**2).sum(axis=1) / ((y[8:] - y[8:].mean()) ** 2).sum()
    np.testing.assert_allclose(fit.cv_scores, wanted, rtol=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("spike", [1e7, 1e9, 1e11])
def test_a_held_out_row_that_is_long_where_training_rows_are_short(spike, intercept):
    """Its prediction shows the rounding of weights so many times; eigenvectors of the Gram were off by rounding of the rest."""
    rng = np.random.default_rng(4)
    X, y, scale = rng.standard_normal((9, 3)), rng.standard_normal(9), 1e-11
    X[:, 1] *= scale
    X[4, 1] = spike
    train = np.delete(np.arange(9), 4)
    with localcontext() as context:
        context.prec = 80
        coef, constant = exact_ridge(decimals(X[train]), decimals(y[train, None]), 0.03, intercept)
        error = y[4] - float((decimals(X[[4]]) @ coef + constant)[0, 0])
    fit = ridge_cv(X, y, alphas=0.03, cv=[(train, [4])], fit_intercept=intercept, scoring="neg_mean_squared_error")
    assert float(fit.fold_scores.ravel()[0]) == pytest.approx(-(error**2), rel=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_of_a_large_mean_beside_a_heavy_row(seed):
    """The mean of a column of 4e11 is rounded to 6e-5: a heavy row kept that, and the Gram held its square times all weights."""
    rng = np.random.default_rng(seed)
    X, y, w = rng.standard_normal((8, 4)), rng.standard_normal(8), 10.0 ** np.array([1, -1, 4, -6, -5, -2, -6, 0])
    X[:, 2] += 4e11
    coef = weighted_ridge(X, y, w, 4e-5)
    fit = ridge_cv(X, y, alphas=4e-5, cv=2, sample_weight=w)
    assert fit.stats["decomposed"] == "gram"
    np.testing.assert_allclose(fit.coef, coef, rtol=0, atol=1e-8 * np.abs(coef).max())


@pytest.mark.parametrize("seed", range(3))
def test_light_rows_of_columns_in_large_units_that_nearly_repeat(seed):
    """What is left of such columns in light rows was taken for the rounding of heavy ones."""
    rng = np.random.default_rng(seed)
    X, y, w = rng.standard_normal((8, 4)), rng.standard_normal(8), 10.0 ** np.array([-4, -4, 0, -2, -3, 6, 5, 4])
    X[:, 0] *= 1e10
    X[:, 2] = X[:, 0] * (1 + 4e-12 * X[:, 2])
    coef = weighted_ridge(X, y, w, 1e-4, intercept=False)
    found = ridge_cv(X, y, alphas=1e-4, cv=2, sample_weight=w, fit_intercept=False).coef
    np.testing.assert_allclose(found, coef, rtol=0, atol=1e-3 * np.abs(coef).max())  # rounding of X: 5e-4


def test_a_fold_whose_training_rows_keep_little_of_a_direction():
    """Rounding of the Gram of all rows was 1e-9 of its smallest eigenvalue, of which these training rows keep 1e-4."""
    X = [
        [1.2, 2.2, 1.2, -0.8, 0, 0.8],
        [-1.2, -0.7, -1.2, -0.2, 0, 0],
        [0.4, -0.2, 0.4, 1.5, 0, 1],
        [0.6, -0.1, 0.6, 0.2, 0, -0.8],
    ]
    X += [[-0.3, -0.6, -0.3, 0.2, 0, 1.3], [0.2, 0.1, 0.2, -1.7, 1.7, 1.2], [0.1, -0.5, -1.5, -0.5, -0.2, 0.3]]
    X = np.array(X) * np.sqrt([0.003, 5e3, 500, 5e3, 3, 6e4, 8e4])[:, None]
    y, train = np.array([0, -1, 0.5, -2.5, 1, 0, -1]), np.array([0, 1, 2, 3, 5, 6])
    with localcontext() as context:
        context.prec = 80
        coef, _ = exact_ridge(decimals(X[train]), decimals(y[train, None]), 2e-6, False)
        error = y[4] - float((decimals(X[[4]]) @ coef)[0, 0])
    fit = ridge_cv(X, y, alphas=2e-6, cv=[(train, [4])], fit_intercept=False, scoring="neg_mean_squared_error")
    assert float(fit.fold_scores.ravel()[0]) == pytest.approx(-(error**2), rel=1e-9)
