"""What is kept of single folds: their scores, held-out predictions, and the choice by standard errors; by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from device_cases import FORMS, assert_same, both, make
from fastencode import RidgeCV, RidgeFit, plan_ridge, r2, ridge_cv
from fastencode.devices import plain_device
from fastencode.errors import InputError
from fastencode.solve.score import choose
from fastencode.solve.score.moments import SCORINGS
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")
ALPHAS = np.logspace(-1, 4, 9)


def folds_of(cv, n):
    if not isinstance(cv, int):
        return cv
    return [(np.setdiff1d(np.arange(n), test), test) for test in np.array_split(np.arange(n), cv)]


def by_fold(X, Y, folds, scoring, intercept=True, weight=None):
    """(folds, alphas, voxels): naive scores."""
    if weight is None:
        return np.array([reference.cv_scores(X, Y, ALPHAS, [fold], scoring, intercept) for fold in folds])
    return np.array([reference.weighted_cv_scores(X, Y, ALPHAS, [fold], scoring, intercept, weight) for fold in folds])


def one_se(scores_fa):
    """Index of the largest penalty within one standard error of the best mean, of one voxel."""
    mean = scores_fa.mean(axis=0)
    best = max(a for a in range(len(mean)) if mean[a] >= mean.max() - 1e-6)
    error = np.std(scores_fa[:, best], ddof=1) / np.sqrt(len(scores_fa))
    return max(a for a in range(len(mean)) if mean[a] >= mean.max() - error)


def predicted_by_hand(X, Y, folds, alpha_v, intercept, weight):
    total, count = np.zeros(Y.shape), np.zeros(len(Y))
    for train, test in folds:
        count[np.unique(test)] += 1
        for v, alpha in enumerate(alpha_v):
            coef, constant = reference.weighted_weights(X[train], Y[train, v], alpha, intercept, weight[train])
            total[np.unique(test), v] += X[np.unique(test)] @ coef + constant
    with np.errstate(invalid="ignore"):
        return total / count[:, None]


CASES = pairs(list(FORMS), SCORINGS, [True, False], [True, False], [np.float32, np.float64])


@pytest.mark.parametrize(("form", "scoring", "weighted", "intercept", "dtype"), CASES)
def test_fold_scores_and_predictions_are_those_of_refitting(form, scoring, weighted, intercept, dtype):
    n, p, cv = FORMS[form]
    (X, Y), folds = make(n, p, v=5, dtype=dtype), folds_of(cv, n)
    weight = np.random.default_rng(1).uniform(0.5, 2, n) if weighted else np.ones(n)
    given = {"sample_weight": weight} if weighted else {}
    fit = ridge_cv(
        X, Y, alphas=ALPHAS, cv=cv, scoring=scoring, fit_intercept=intercept, cv_predictions=True, memory="200MB", **given
    )
    tolerance = 2e-4 if dtype == np.float32 else 1e-8
    scores = by_fold(X, Y, folds, scoring, intercept, weight if weighted else None)
    chosen = np.searchsorted(ALPHAS, fit.alpha)
    wanted = np.take_along_axis(scores, chosen[None, None], axis=1)[:, 0]
    np.testing.assert_allclose(fit.fold_scores, wanted, atol=tolerance * (1 + np.abs(scores).max()))
    np.testing.assert_allclose(fit.fold_scores.mean(axis=0), fit.best_score, rtol=1e-5)
    predicted = predicted_by_hand(X.astype(float), Y.astype(float), folds, fit.alpha, intercept, weight)
    held = np.unique(np.concatenate([test for _, test in folds]))
    assert np.array_equal(np.flatnonzero(~np.isnan(fit.cv_predictions).any(axis=1)), held)
    np.testing.assert_allclose(fit.cv_predictions, predicted, atol=tolerance * np.abs(Y).max())
    assert fit.cv_predictions.dtype == fit.fold_scores.dtype == dtype


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("form", ["apart", "mixed", "whole, tiny", "train"])
def test_one_penalty_for_all_keeps_the_same(form, per_target):
    n, p, cv = FORMS[form]
    (X, Y), folds = make(n, p, v=40), folds_of(cv, n)
    fit = ridge_cv(X, Y, alphas=ALPHAS, cv=cv, per_target=per_target, cv_predictions=True)
    chosen = np.searchsorted(ALPHAS, fit.alpha)
    wanted = np.take_along_axis(by_fold(X, Y, folds, "r2"), chosen[None, None], axis=1)[:, 0]
    np.testing.assert_allclose(fit.fold_scores, wanted, atol=1e-8 * (1 + np.abs(wanted).max()))
    predicted = predicted_by_hand(X, Y, folds, fit.alpha, True, np.ones(n))
    np.testing.assert_allclose(fit.cv_predictions, predicted, atol=1e-8)


def test_rows_of_weight_zero_repeated_rows_and_skipped_voxels(tmp_path):
    X, Y = make(60, 7, v=4)
    Y[5, 2] = np.nan
    weight = np.where(np.arange(60) % 9 == 4, 0.0, 1.0)
    kept = np.flatnonzero(weight)
    cv = [(np.arange(20, 60), [0, 0, 1, 2, 4, 7]), (np.arange(15, 60), [7, 1, 3])]
    fit = ridge_cv(X, Y, alphas=ALPHAS, cv=cv, sample_weight=weight, nan_targets="skip", cv_predictions=True)
    folds = [(np.intersect1d(train, kept), np.intersect1d(test, kept)) for train, test in cv]
    fine = [0, 1, 3]
    wanted = predicted_by_hand(X, Y[:, fine], folds, fit.alpha[fine], True, np.ones(60))
    np.testing.assert_allclose(fit.cv_predictions[:, fine], wanted, atol=1e-9)
    assert np.isfinite(wanted[[0, 1, 2, 3, 7]]).all() and np.isnan(wanted[[4, 5, 59]]).all()
    assert np.isnan(fit.cv_predictions[:, 2]).all() and np.isnan(fit.fold_scores[:, 2]).all()
    fit.save(tmp_path / "fit.h5")
    again = RidgeFit.load(tmp_path / "fit.h5")
    np.testing.assert_array_equal(again.cv_predictions, fit.cv_predictions)
    np.testing.assert_array_equal(again.fold_scores, fit.fold_scores)


def test_pooled_scores_a_series_torch_and_a_plan():
    X, Y = make(60, 7, v=3)
    fit = ridge_cv(X, Y, alphas=ALPHAS, cv=5, cv_predictions=True)
    pooled = r2(Y, fit.cv_predictions)
    assert (np.abs(pooled - fit.best_score) > 1e-3).all()  # not the mean over folds
    one = plan_ridge(X, alphas=ALPHAS, cv=5).fit(Y[:, 1], cv_predictions=True)
    assert one.cv_predictions.shape == (60,) and one.fold_scores.shape == (5,)
    np.testing.assert_allclose(one.cv_predictions, fit.cv_predictions[:, 1], atol=1e-12)
    there = ridge_cv(torch.from_numpy(X), torch.from_numpy(Y), alphas=ALPHAS, cv=5, cv_predictions=True)
    assert isinstance(there.cv_predictions, torch.Tensor) and isinstance(there.fold_scores, torch.Tensor)
    assert ridge_cv(X, Y, alphas=ALPHAS, cv=5).cv_predictions is None


def test_fold_scores_are_of_few_folds_and_within_memory(monkeypatch):
    X, Y = make(140, 7, v=3)
    assert ridge_cv(X, Y, alphas=ALPHAS, cv=64).fold_scores.shape == (64, 3)
    assert ridge_cv(X, Y, alphas=ALPHAS, cv=65).fold_scores is None
    shared = {"alphas": ALPHAS, "cv": 4, "per_target": False}
    assert ridge_cv(X, Y, **shared).fold_scores.shape == (4, 3)
    monkeypatch.setattr(choose, "_WAITING", 100)
    assert ridge_cv(X, Y, **shared).fold_scores is None


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(("n", "p", "cv"), [(200, 7, 4), (60, 7, 20), (140, 7, 70), (80, 150, 2)])
def test_one_standard_error_is_that_of_naive_scores(scoring, n, p, cv):
    X, Y = make(n, p, v=12)
    scores = by_fold(X, Y, folds_of(cv, n), scoring)
    fit, best = (ridge_cv(X, Y, alphas=ALPHAS, cv=cv, scoring=scoring, rule=rule) for rule in ("one-se", "best"))
    wanted = ALPHAS[[one_se(scores[:, :, v]) for v in range(12)]]
    np.testing.assert_array_equal(fit.alpha, wanted)
    assert (fit.alpha >= best.alpha).all() and (fit.alpha > best.alpha).any()
    np.testing.assert_allclose(fit.cv_scores, best.cv_scores, rtol=1e-9, atol=1e-12)
    coef, _ = reference.weights(X, Y[:, 0], fit.alpha[0], True)
    np.testing.assert_allclose(fit.coef[:, 0], coef, atol=1e-9)
    shared = ridge_cv(X, Y, alphas=ALPHAS, cv=cv, scoring=scoring, rule="one-se", per_target=False)
    assert np.unique(shared.alpha).tolist() == [ALPHAS[one_se(scores.mean(axis=2))]]
    assert fit.stats["rule"] == "one-se" and best.stats["rule"] == "best"


def test_skipped_voxels_have_no_part_in_the_standard_error():
    X, Y = make(200, 7, v=12)
    wanted = ridge_cv(X, Y[:, 1:], alphas=ALPHAS, cv=4, rule="one-se", per_target=False)
    Y[3, 0] = np.nan
    fit = ridge_cv(X, Y, alphas=ALPHAS, cv=4, rule="one-se", per_target=False, nan_targets="skip")
    np.testing.assert_array_equal(fit.alpha[1:], wanted.alpha)


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize(("scoring", "form"), list(zip(SCORINGS, ["apart", "mixed", "whole, tiny"], strict=True)))
def test_devices_choose_by_the_same_standard_errors(per_target, scoring, form):
    n, p, cv = FORMS[form]
    X, Y = make(n, p, v=11)
    options = dict(scoring=scoring, per_target=per_target, rule="one-se", width=4, cv=cv)
    fit, arrays, _ = both(plain_device(torch), X, Y, **options)
    assert_same(fit, arrays, np.float64, scale=1 + np.abs(fit.fold_scores).max())
    assert "fold_scores" in arrays


def test_the_estimator_takes_the_rule():
    X, Y = make(200, 7, v=6)
    model = RidgeCV(alphas=ALPHAS, cv=4, rule="one-se").fit(X, Y)
    np.testing.assert_array_equal(model.alpha_, ridge_cv(X, Y, alphas=ALPHAS, cv=4, rule="one-se").alpha)
    assert (model.alpha_ > RidgeCV(alphas=ALPHAS, cv=4).fit(X, Y).alpha_).any()


@pytest.mark.parametrize("rule", ["two-se", None, 1])
def test_rules_have_names(rule):
    with pytest.raises(InputError, match="pass one of 'best', 'one-se'"):
        ridge_cv(*make(60, 7), rule=rule)


def test_one_fold_has_no_standard_error():
    with pytest.raises(InputError, match="needs a standard error over folds, and cv makes 1; pass at least 2"):
        ridge_cv(*make(60, 7), cv=[(np.arange(30), np.arange(30, 60))], rule="one-se")


def test_flags_are_flags():
    with pytest.raises(InputError, match="cv_predictions"):
        ridge_cv(*make(60, 7), cv_predictions="no")


def test_predictions_on_a_device_are_refused_before_planning(monkeypatch):
    monkeypatch.setattr("fastencode.solve.ridge_plan.device_for", lambda *_: plain_device(torch))
    monkeypatch.setattr("fastencode.solve.ridge.make_plan", lambda *_, **__: pytest.fail("planned"))
    with pytest.raises(InputError, match="cv_predictions=True is computed on the CPU only"):
        ridge_cv(*make(60, 7), cv_predictions=True)


@pytest.mark.parametrize(("n", "p"), [(70, 7), (40, 60)])
@pytest.mark.parametrize("rule", ["best", "one-se"])
def test_leave_one_out_predictions(n, p, rule):
    X, Y = make(n, p, v=5)
    folds = folds_of(n, n)
    fit = ridge_cv(X, Y, alphas=ALPHAS, cv=n, scoring="neg_mean_squared_error", rule=rule, cv_predictions=True)
    np.testing.assert_allclose(fit.cv_predictions, predicted_by_hand(X, Y, folds, fit.alpha, True, np.ones(n)), atol=1e-8)
    scores = by_fold(X, Y, folds, "neg_mean_squared_error")
    if rule == "one-se":
        np.testing.assert_array_equal(fit.alpha, ALPHAS[[one_se(scores[:, :, v]) for v in range(5)]])
    np.testing.assert_allclose(fit.cv_scores, scores.mean(axis=0), rtol=1e-8)
