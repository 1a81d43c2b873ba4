"""Given weights of bands and penalties, one for each voxel: against least squares of stacked rows, without any selection.

Legend: t = time, p = features, b = bands, v = voxels.
"""

from __future__ import annotations

import numpy as np
import pytest

from banded_cases import problem
from fastencode import BandedFit, InputError, banded_ridge_cv, partition_variance
from fastencode.solve.score.moments import r2
from pairs import pairs


def stacked(X, Y, widths, gammas, alpha, intercept=True, w=None):
    """(coef (p, v), intercept (v,)) by float64 least squares of [X; diag(√(α / γ_b))] for each voxel, in bands of weight."""
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    w = np.ones(len(X)) if w is None else w
    root, band = np.sqrt(w)[:, None], np.repeat(np.arange(len(widths)), widths)
    x_mean, y_mean = (w @ a / w.sum() for a in (X, Y)) if intercept else (np.zeros(X.shape[1]), np.zeros(Y.shape[1]))
    coef = np.zeros((X.shape[1], Y.shape[1]))
    for v in range(Y.shape[1]):
        used = gammas[band, v] > 0
        ridge = np.diag(np.sqrt(alpha[v] / gammas[band, v][used]))
        left = np.vstack([(root * (X - x_mean))[:, used], ridge])
        right = np.concatenate([root[:, 0] * (Y[:, v] - y_mean[v]), np.zeros(used.sum())])
        coef[used, v] = np.linalg.lstsq(left, right, rcond=None)[0]
    return coef, y_mean - x_mean @ coef


def penalties(b, v, kind, dtype=np.float64, seed=3):
    rng = np.random.default_rng(seed)
    gammas, alpha = rng.uniform(0.01, 2.0, (b, v)), 10 ** rng.uniform(-1, 3, v)
    if kind == "shared":
        gammas = gammas[:, np.arange(v) % 2]
    if kind == "zeros":
        gammas[rng.integers(0, b, v), np.arange(v)] = 0.0
    if kind == "extreme":
        # Float32 dual weights carry no more: with penalties of 1e-6 they lose all but 3 digits, in a search as here.
        least, spread = (-9, 3) if dtype == np.float64 else (-1, 2)
        alpha, gammas = 10 ** rng.uniform(least, 6, v), 10 ** rng.uniform(-spread, spread, (b, v))
    return gammas, alpha


CASES = pairs(
    [(60, (5, 8, 4)), (40, (30, 25)), (36, (3, 50, 2))],
    [np.float64, np.float32],
    ["own", "shared", "zeros", "extreme"],
    [True, False],
    [False, True],
)


@pytest.mark.parametrize(("shape", "dtype", "kind", "intercept", "weighted"), CASES)
def test_every_voxel_is_fitted_at_its_own(shape, dtype, kind, intercept, weighted):
    n, widths = shape
    X, Y, widths = problem(n, widths, v=30, dtype=dtype)
    w = np.random.default_rng(5).uniform(0.3, 2.0, n) if weighted else None
    gammas, alpha = penalties(len(widths), 30, kind, dtype)
    options = {"fit_intercept": intercept, "sample_weight": w}
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=alpha, cv=None, **options)
    coef, constant = stacked(X, Y, widths, gammas, alpha, intercept, w)
    tolerance = 1e-8 if dtype == np.float64 else 3e-5
    np.testing.assert_allclose(fit.coef, coef, atol=tolerance * abs(coef).max())
    np.testing.assert_allclose(fit.intercept, constant, atol=tolerance * max(1.0, abs(constant).max()))
    assert fit.coef.dtype == dtype
    np.testing.assert_array_equal(fit.gammas, gammas)
    np.testing.assert_array_equal(fit.alpha, alpha)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
def test_kernels_are_fitted_as_their_features(dtype, weighted):
    X, Y, widths = problem(40, (6, 50), v=12, dtype=dtype)
    w = np.random.default_rng(5).integers(0, 3, 40).astype(float) if weighted else None  # rows of weight 0 are not there
    gammas, alpha = penalties(2, 12, "zeros")
    gammas = np.maximum(gammas, np.arange(12) % 2 * 0.1)
    kernels = {"a": X[:, :6] @ X[:, :6].T, "b": X[:, 6:] @ X[:, 6:].T}
    fit = banded_ridge_cv(kernels, Y, bands="precomputed", gammas=gammas, alphas=alpha, cv=None, sample_weight=w)
    coef, constant = stacked(X, Y, widths, gammas, alpha, w=w)
    wanted = X.astype(np.float64) @ coef + constant
    np.testing.assert_allclose(fit.predict(kernels), wanted, atol=1e-8 if dtype == np.float64 else 2e-4)


def test_both_ways_to_weights_are_taken_and_agree(monkeypatch):
    """Many weightings near each other are solved in few cells, few weightings decomposed."""
    X, Y, widths = problem(60, (5, 8), v=40)
    gammas, alpha = np.random.default_rng(0).uniform(0.9, 1.1, (2, 40)), np.full(40, 3.0)
    wanted, constant = stacked(X, Y, widths, gammas, alpha)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=alpha, cv=None)
    assert fit.stats["decompositions"] == 0
    np.testing.assert_allclose(fit.coef, wanted, atol=1e-9)
    one = banded_ridge_cv(X, Y, bands=widths, gammas=gammas[:, 7], alphas=3.0, cv=None)
    assert one.stats["decompositions"] == 1
    np.testing.assert_allclose(one.coef[:, 7], wanted[:, 7], atol=1e-9)
    np.testing.assert_allclose(one.intercept[7], constant[7], atol=1e-9)


@pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")
@pytest.mark.parametrize("search", ["random", "gradient"])
def test_what_a_search_found_is_fitted_again_to_the_same(search):
    X, Y, widths = problem(60, (5, 8, 4), v=9)
    found = banded_ridge_cv(X, Y, bands=widths, search=search, n_iter=5, n_steps=4, random_state=0, cv=4)
    again = banded_ridge_cv(X, Y, bands=widths, gammas=found.gammas, alphas=found.alpha, cv=None)
    np.testing.assert_allclose(again.coef, found.coef, atol=1e-9)
    np.testing.assert_allclose(again.deltas, found.deltas)


def test_one_band_and_one_series():
    X, Y, _ = problem(60, (7,))
    fit = banded_ridge_cv(X, Y[:, 0], bands=[7], gammas=[0.5], alphas=4.0, cv=None)
    assert fit.coef.shape == (7,) and fit.gammas.shape == (1,) and fit.cv_scores.shape == (0,)
    np.testing.assert_allclose(fit.coef, stacked(X, Y[:, :1], [7], np.array([[0.5]]), [4.0])[0][:, 0], atol=1e-10)


def test_nothing_is_scored_and_everything_else_works(tmp_path, recwarn):
    X, Y, widths = problem(60, (5, 8))
    Y[3, 2] = np.nan
    with pytest.raises(InputError, match="1 of 7 voxels in Y hold NaN"):
        banded_ridge_cv(X, Y, bands=widths, gammas=[1.0, 2.0], alphas=1.0, cv=None)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=[1.0, 2.0], alphas=1.0, cv=None, nan_targets="skip")
    assert np.isnan(fit.best_score).all() and fit.candidates.shape == (0, 2) and fit.cv_scores.shape == (0, 7)
    assert not fit.at_edge.any() and fit.stats["search"] is None and fit.stats["folds"] == 0
    np.testing.assert_array_equal(np.isnan(fit.coef).all(axis=0), np.arange(7) == 2)
    assert "given penalties" in str(fit) and "1 skipped" in str(fit)
    kept = np.arange(7) != 2
    np.testing.assert_allclose(fit.score(X, Y)[kept], fit.score(X, Y, split=True).sum(axis=0)[kept], atol=1e-12)
    fit.save(tmp_path / "fit.h5")
    again = BandedFit.load(tmp_path / "fit.h5")
    np.testing.assert_array_equal(again.coef, fit.coef)
    assert again.cv_scores.shape == (0, 7)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gammas": None}, "cv=None fits given penalties, and gammas=None; pass gammas=.bands, voxels"),
        ({"gammas": "grid"}, "gammas='grid'; pass gammas"),
        ({"gammas": np.ones((7, 2))}, r"gammas has shape \(7, 2\); for cv=None pass .* \(2, 7\)"),
        ({"gammas": [1.0, -1.0]}, "gammas holds -1.0 for band 1 of voxel 0"),
        ({"gammas": np.outer([1, 1], np.arange(7)[::-1])}, "gammas is zero for every band of voxel 6"),
        ({"alphas": [1.0, 2.0]}, r"alphas has shape \(2,\); for cv=None pass one penalty for each voxel, \(7,\)"),
        ({"alphas": [1.0, 2.0, 3.0, 0.0, 1.0, 1.0, 1.0]}, "alphas holds 0.0"),
        ({"search": "gradient"}, "search='gradient' and cv=None"),
        ({"n_iter": 7}, "n_iter=7 and cv=None"),
        ({"gap": 2}, "gap=2 and cv=None"),
        ({"early_stopping": 0.1}, "early_stopping=0.1 and cv=None"),
        ({"checkpoint": "a.h5"}, "checkpoint='a.h5' and cv=None"),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, message):
    X, Y, widths = problem(60, (5, 8))
    with pytest.raises(InputError, match=message):
        banded_ridge_cv(X, Y, **{"bands": widths, "gammas": [1.0, 1.0], "alphas": 1.0, "cv": None, **options})


def test_a_partition_at_given_penalties():
    X, Y, widths = problem(60, (5, 8))
    gammas, alpha = penalties(2, 7, "own")
    found = partition_variance(X, Y, bands=widths, outer=3, gammas=gammas, alphas=alpha, cv=None)
    for f, test in enumerate(np.array_split(np.arange(60), 3)):
        train = np.setdiff1d(np.arange(60), test)
        scores = []
        for columns in (slice(0, 13), slice(5, 13), slice(0, 5)):
            some, sizes = slice(0, 2), widths
            if columns != slice(0, 13):
                some, sizes = (slice(1, 2), [8]) if columns.start else (slice(0, 1), [5])
            coef, constant = stacked(X[train, columns], Y[train], sizes, gammas[some], alpha)
            scores.append(r2(Y[test], X[test, columns] @ coef + constant))
        np.testing.assert_allclose(found.total_folds[f], scores[0], atol=1e-9)
        np.testing.assert_allclose(found.unique_folds[f], np.array([scores[0] - scores[1], scores[0] - scores[2]]), atol=1e-9)
