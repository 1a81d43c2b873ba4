"""Given kernels: those that no features have are refused, all others are fitted as their features are.

Legend: t = time, p = features, v = voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from banded_cases import ALPHAS, problem
from fastencode import InputError, banded_ridge_cv

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")

GIVEN = {"bands": "precomputed", "gammas": [[1.0]], "cv": 4}


def distances(X):
    return np.sqrt(((X[:, None] - X) ** 2).sum(axis=2))


def test_a_kernel_of_no_features_is_refused():
    """(K + 2) ω = y has the solution (.667, -.333) for K = [[0, 1], [1, 0]]; a kernel cut to its positive part another."""
    K, y = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0])
    given = {"bands": "precomputed", "gammas": [[1.0]], "alphas": [2.0], "cv": 2, "scoring": "neg_mean_squared_error"}
    with pytest.raises(InputError, match="kernel of 'a' without an intercept has the eigenvalue -1 .the largest is 1"):
        banded_ridge_cv({"a": K}, y, fit_intercept=False, **given)
    fit = banded_ridge_cv({"a": K @ K}, y, fit_intercept=False, **given)  # the identity
    np.testing.assert_allclose(fit.dual_coef, np.linalg.solve(K @ K + 2 * np.eye(2), y), rtol=1e-12)


def test_the_band_is_named_whichever_it_is():
    X, Y, _ = problem(40)
    good, bad = X @ X.T, X @ X.T - 3.0 * np.outer(Y[:, 0], Y[:, 0])
    for kernels in ({"good": good, "bad": bad}, {"bad": bad, "good": good}):
        for weight in (None, np.linspace(0, 2, 40)):
            with pytest.raises(InputError, match="kernel of 'bad' about its means has the eigenvalue -"):
                banded_ridge_cv(kernels, Y, bands="precomputed", n_iter=2, sample_weight=weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_minus_distances_are_a_kernel_beside_an_intercept(dtype, weighted):
    X, Y, _ = problem(40, (5,))
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 40) if weighted else None
    K = -distances(X).astype(dtype)
    fit = banded_ridge_cv({"near": K}, Y, alphas=ALPHAS, sample_weight=weight, **GIVEN)
    P = np.eye(40) - 1 / 40
    lam, vectors = np.linalg.eigh(P @ K.astype(np.float64) @ P)
    features = vectors * np.sqrt(np.maximum(lam, 0))
    for v in range(Y.shape[1]):
        model = Ridge(alpha=fit.alpha[v]).fit(features, Y[:, v], weight)
        wanted = model.predict(features)
        np.testing.assert_allclose(fit.predict({"near": K})[:, v], wanted, atol=1e-4 if dtype == np.float32 else 1e-8)
    with pytest.raises(InputError, match="without an intercept .*with fit_intercept=True only"):
        banded_ridge_cv({"near": K}, Y, fit_intercept=False, alphas=ALPHAS, sample_weight=weight, **GIVEN)


@pytest.mark.parametrize("p", [3, 30, 3000])
@pytest.mark.parametrize("n", [5, 60, 400])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("intercept", [False, True])
def test_rounding_of_a_gram_is_allowed(n, p, dtype, offset, intercept):
    """Grams of few features have many eigenvalues of zero, which rounding makes negative."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, p)) + offset).astype(dtype)
    K = X @ X.T
    y = rng.standard_normal(n).astype(dtype)
    fit = banded_ridge_cv({"a": K}, y, fit_intercept=intercept, alphas=[1.0, 100.0], scoring="neg_mean_squared_error", **GIVEN)
    assert np.isfinite(fit.best_score)


def test_negative_eigenvalues_above_rounding_are_found():
    """What float32 is too coarse to see, float64 must not let pass."""
    X, Y, _ = problem(60)
    lam, vectors = np.linalg.eigh(X @ X.T)
    lam[0] = -1e-8 * lam[-1]
    K = (vectors * lam) @ vectors.T
    K = (K + K.T) / 2
    with pytest.raises(InputError, match="has the eigenvalue"):
        banded_ridge_cv({"a": K}, Y, alphas=ALPHAS, fit_intercept=False, **GIVEN)
    banded_ridge_cv({"a": K.astype(np.float32)}, Y.astype(np.float32), alphas=ALPHAS, fit_intercept=False, **GIVEN)


def test_a_kernel_that_is_constant_but_for_rounding_is_not_there():
    """Rounding scaled up until it explains something would be noise, and no Gram."""
    X, Y, _ = problem(60)
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1e-7, 1e-7, (60, 60))
    flat = (5.0 + noise + noise.T).astype(np.float32)
    given = {"bands": "precomputed", "alphas": ALPHAS, "cv": 4, "search": "gradient"}
    both = banded_ridge_cv({"a": X @ X.T, "flat": flat}, Y, **given)
    alone = banded_ridge_cv({"a": X @ X.T}, Y, **given)
    np.testing.assert_allclose(both.best_score, alone.best_score, atol=2e-3)
