"""Rows left out around held-out ones, and what splitters are given."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, StratifiedKFold

import reference
from fastencode import BandedRidgeCV, RidgeCV, banded_ridge_cv, partition_variance, plan_ridge, ridge_cv
from fastencode.errors import InputError
from fastencode.solve.given.folds import resolve_folds

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")
ALPHAS = [0.1, 10.0]


def by_hand(folds, gap, runs, n):
    """Training rows farther than ``gap`` from every test row of their run, one pair of rows at a time."""
    return [
        (np.array([i for i in train if all(abs(i - j) > gap or runs[i] != runs[j] for j in test)]), test) for train, test in folds
    ]


@pytest.mark.parametrize("gap", [0, 1, 4, 100])
@pytest.mark.parametrize("runs", [None, [0] * 20 + [1] * 25 + [0] * 15])
def test_rows_near_held_out_ones_are_not_trained_on(gap, runs):
    labels = np.zeros(60, int) if runs is None else np.array(runs)
    test = np.array([3, 4, 22, 59])
    folds = [(np.setdiff1d(np.arange(60), test), test)]
    wanted = by_hand(folds, gap, labels, 60)
    if not wanted[0][0].size:
        with pytest.raises(InputError, match="gap=100 leaves fold 0 of cv no row to train on; pass a smaller gap"):
            resolve_folds(folds, 60, None if runs is None else labels, gap=gap)
        return
    (found,) = resolve_folds(folds, 60, None if runs is None else labels, gap=gap)
    np.testing.assert_array_equal(found[0], wanted[0][0])
    np.testing.assert_array_equal(found[1], test)


@pytest.mark.parametrize("shape", [(60, 8), (40, 50)])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_folds_with_a_gap(shape, weighted):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal(shape), rng.standard_normal((shape[0], 3))
    w = np.where(np.arange(shape[0]) % 7 == 3, 0.0, 1.0) if weighted else None  # rows of weight zero count as neighbors
    kept = np.arange(shape[0]) if w is None else np.flatnonzero(w)
    folds = [(np.setdiff1d(kept, test), test) for test in np.array_split(kept, 5)]
    folds = by_hand(folds, 3, np.zeros(shape[0]), shape[0])
    wanted = reference.cv_scores(X, Y, ALPHAS, folds, "r2", True)
    fit = ridge_cv(X, Y, alphas=ALPHAS, cv=5, gap=3, sample_weight=w)
    np.testing.assert_allclose(fit.cv_scores, wanted, atol=1e-9)
    one = banded_ridge_cv({"a": X}, Y, alphas=ALPHAS, cv=5, gap=3, sample_weight=w)
    np.testing.assert_allclose(one.best_score, fit.best_score, atol=1e-12)
    if w is None:
        np.testing.assert_allclose(plan_ridge(X, alphas=ALPHAS, cv=5, gap=3).fit(Y).cv_scores, wanted, atol=1e-9)


@pytest.mark.parametrize("gap", [-1, 1.5, True, "2", None])
def test_a_gap_is_a_number_of_rows(gap):
    with pytest.raises(InputError, match="pass a number of rows, 0 for none"):
        ridge_cv(np.eye(10), np.arange(10.0), gap=gap)


def test_splitters_get_the_responses():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 4)), rng.integers(0, 2, 60)
    splitter = StratifiedKFold(4)
    wanted = ridge_cv(X, y, alphas=ALPHAS, cv=list(splitter.split(X, y)))
    np.testing.assert_array_equal(ridge_cv(X, y, alphas=ALPHAS, cv=splitter).cv_scores, wanted.cv_scores)


@pytest.mark.parametrize("cv", [4, "runs", GroupKFold(3)])
def test_estimators_take_a_gap(cv):
    rng = np.random.default_rng(2)
    X, Y, groups = rng.standard_normal((60, 4)), rng.standard_normal((60, 3)), np.repeat(list("abcd"), 15)
    if cv == "runs":
        groups = np.tile(np.repeat(list("abcd"), 5), 3)
    folds = list(cv.split(X, Y, groups)) if isinstance(cv, GroupKFold) else cv
    wanted = ridge_cv(X, Y, alphas=ALPHAS, cv=folds, runs=groups, gap=2)
    found = RidgeCV(alphas=ALPHAS, cv=cv, gap=2).fit(X, Y, groups=groups)
    np.testing.assert_array_equal(found.cv_scores_, wanted.cv_scores)
    banded = BandedRidgeCV(alphas=ALPHAS, cv=cv, gap=2).fit(X, Y, groups=groups)
    np.testing.assert_allclose(banded.best_score_, wanted.best_score, atol=1e-12)
    plain = RidgeCV(alphas=ALPHAS, cv=4, gap=2).fit(X, Y)
    np.testing.assert_array_equal(plain.cv_scores_, ridge_cv(X, Y, alphas=ALPHAS, cv=4, gap=2).cv_scores)
    assert not np.array_equal(plain.cv_scores_, RidgeCV(alphas=ALPHAS, cv=4).fit(X, Y).cv_scores_)


@pytest.mark.parametrize("runs", [None, [0] * 37 + [1] * 43])
def test_a_partition_leaves_the_gap_in_its_outer_folds_too(runs):
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((80, 6)), rng.standard_normal((80, 3))
    labels = np.zeros(80, int) if runs is None else np.array(runs)
    folds = [(np.setdiff1d(np.arange(80), test), test) for test in np.array_split(np.arange(80), 4)]
    options = {"bands": [2, 4], "alphas": [1.0], "cv": 3 if runs is None else 2, "gammas": [[1.0, 1.0]]}
    found = partition_variance(X, Y, outer=4 if runs is None else folds, runs=runs, gap=3, **options)
    total = []
    for train, test in by_hand(folds, 3, labels, 80):  # one penalty and one weighting: nothing is chosen inside
        coef, constant = reference.weights(X[train], Y[train], 1.0, True)
        total.append([reference.r2(Y[test, v], (X[test] @ coef + constant)[:, v]) for v in range(3)])
    np.testing.assert_allclose(found.total_folds, total, atol=1e-9)
    without = partition_variance(X, Y, outer=folds, runs=runs, **options)
    assert (np.abs(found.total_folds - without.total_folds) > 1e-6).any()


def test_a_partition_leaves_the_gap_in_its_inner_folds(monkeypatch):
    rng, gaps = np.random.default_rng(4), []
    X, Y = rng.standard_normal((80, 6)), rng.standard_normal((80, 3))

    def watched(*args, **options):
        gaps.append(options["gap"])
        return banded_ridge_cv(*args, **options)

    monkeypatch.setattr("fastencode.solve.partition.banded_ridge_cv", watched)
    partition_variance(X, Y, bands=[2, 4], alphas=ALPHAS, outer=2, cv=3, gap=2, gammas=[[1.0, 1.0]])
    assert gaps == [2] * 6
    with pytest.raises(InputError, match="gap=50 leaves fold 0 of outer no row to train on"):
        partition_variance(X, Y, bands=[2, 4], alphas=ALPHAS, outer=2, cv=3, gap=50)
