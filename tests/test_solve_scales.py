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
from fastencode.solve.basis import ACCURACY
from fastencode.solve.plan import make_plan
from fastencode.solve.problem import Problem

RATIOS = (1.0, 1e3, 1e5, 1e8, 1e12)
SHAPES = ((24, 6), (24, 24), (24, 36))
ALPHAS = (0.5, 100.0)
FOLDS = 3
# Weights times their column's scale, relative to the largest; and scores.
BOUND = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 2e-5}


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
    bound = BOUND[np.dtype(dtype)]
    options = {"alphas": ALPHAS, "cv": FOLDS, "runs": None, "precision": "exact", "device": None, "memory": None}
    for a, alpha in enumerate(ALPHAS):
        problem = Problem.check(X.astype(dtype), fit_intercept=intercept, **(options | {"alphas": [alpha]}))
        fit = make_plan(problem, strategy).fit(Y.astype(dtype))
        error = np.abs(fit.coef - coefs[a]) * scale_p[:, None]
        assert error.max() <= bound * (np.abs(coefs[a]) * scale_p[:, None]).max()
        assert fit.best_score == pytest.approx(scores[a], rel=0, abs=10 * bound)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)
        fit = make_plan(Problem.check(X.astype(dtype), fit_intercept=intercept, **options), strategy).fit(Y.astype(dtype))
    assert fit.cv_scores == pytest.approx(scores, rel=0, abs=10 * bound)
