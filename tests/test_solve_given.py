"""Penalties that are given, one for each voxel: against least squares of [X; √α I] and scikit-learn's Ridge(alpha=array)."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import sklearn.linear_model
import torch

from device_cases import assert_same, on_device
from fastencode import RidgeCV, RidgeFit, plan_ridge, ridge_cv
from fastencode.devices import plain_device
from fastencode.errors import InputError
from fastencode.solve.given.problem import DEFAULT_ALPHAS, Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import fit_plan
from fastencode.solve.score.choose import Choice
from fastencode.solve.weights.device import DeviceRidge
from pairs import pairs

V = 7
GIVEN = np.array([3.0, 0.01, 500.0, 3.0, 1.0, 1e6, 20.0])


def make(n, p, dtype=np.float64):
    rng = np.random.default_rng([n, p])
    X = rng.standard_normal((n, p)) + 2
    return X.astype(dtype), (X @ rng.standard_normal((p, V)) / np.sqrt(p) + rng.standard_normal((n, V)) + 4).astype(dtype)


def least_squares(X, y, alpha, intercept, weight):
    """(coef, constant) by QR of the stacked system: no Gram, no inverse."""
    X, y = X.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = (weight @ X / weight.sum(), weight @ y / weight.sum()) if intercept else (np.zeros(X.shape[1]), 0.0)
    root = np.sqrt(weight)[:, None]
    stacked = np.vstack([root * (X - mean_x), np.sqrt(alpha) * np.eye(X.shape[1])])
    coef = np.linalg.lstsq(stacked, np.concatenate([root[:, 0] * (y - mean_y), np.zeros(X.shape[1])]), rcond=None)[0]
    return coef, mean_y - mean_x @ coef


CASES = pairs(["primal", "dual"], [(60, 8), (30, 45), (20, 90)], [np.float32, np.float64], [True, False], ["", "some", "zeros"])


@pytest.mark.parametrize(("strategy", "shape", "dtype", "intercept", "weights"), CASES)
def test_each_voxel_has_the_least_squares_weights_of_its_own_penalty(strategy, shape, dtype, intercept, weights):
    X, Y = make(*shape, dtype)
    weight = np.ones(len(X)) if not weights else np.random.default_rng(0).uniform(0.5, 2, len(X))
    if weights == "zeros":
        weight[::6] = 0
    given = dict(sample_weight=weight) if weights else {}
    problem = Problem.check(X, alphas=GIVEN, cv=None, fit_intercept=intercept, response_dtype=Y.dtype, may_be_given=True, **given)
    fit = fit_plan(make_plan(problem, strategy, n_voxels=V), Y)
    assert fit.stats["strategy"] == strategy and fit.coef.dtype == dtype
    tolerance = 2e-4 if dtype == np.float32 else 1e-9
    for v in range(V):
        coef, constant = least_squares(X, Y[:, v], GIVEN[v], intercept, weight)
        size = np.abs(coef).max() + abs(constant)
        np.testing.assert_allclose(fit.coef[:, v], coef, atol=tolerance * size, rtol=0)
        np.testing.assert_allclose(fit.intercept[v], constant, atol=10 * tolerance * size, rtol=0)
    np.testing.assert_array_equal(fit.alpha, GIVEN)
    np.testing.assert_array_equal(fit.alphas, np.unique(GIVEN))
    assert fit.cv_scores is fit.best_score is fit.fold_scores is fit.cv_predictions is None
    np.testing.assert_array_equal(fit.at_edge, np.zeros(V, np.int8))


@pytest.mark.parametrize("shape", [(60, 8), (30, 45)])
@pytest.mark.parametrize("intercept", [True, False])
def test_scikit_learns_ridge_with_an_array_agrees(shape, intercept):
    X, Y = make(*shape)
    peer = sklearn.linear_model.Ridge(alpha=GIVEN, fit_intercept=intercept, solver="cholesky").fit(X, Y)
    fit = ridge_cv(X, Y, alphas=GIVEN, cv=None, fit_intercept=intercept)
    model = RidgeCV(alphas=GIVEN, cv=None, fit_intercept=intercept).fit(X, Y)
    np.testing.assert_allclose(fit.coef.T, peer.coef_, atol=1e-8)
    np.testing.assert_allclose(model.coef_, peer.coef_, atol=1e-8)
    np.testing.assert_allclose(model.predict(X), peer.predict(X), atol=1e-8)
    np.testing.assert_array_equal(model.alpha_, GIVEN)
    assert model.cv_scores_ is model.best_score_ is None


def test_one_penalty_for_all_and_one_series():
    X, Y = make(60, 8)
    for alphas in (3.0, [3.0], np.full(V, 3.0)):
        fit = ridge_cv(X, Y, alphas=alphas, cv=None)
        np.testing.assert_array_equal(fit.alpha, np.full(V, 3.0))
        np.testing.assert_allclose(fit.coef, sklearn.linear_model.Ridge(alpha=3.0).fit(X, Y).coef_.T, atol=1e-9)
    one = ridge_cv(X, Y[:, 2], alphas=3.0, cv=None)
    assert one.coef.shape == (8,) and np.ndim(one.alpha) == 0 and "given penalties" in str(one)
    np.testing.assert_allclose(one.coef, fit.coef[:, 2], atol=1e-12)


def test_the_penalties_that_were_chosen_give_the_weights_that_were_chosen(tmp_path):
    X, Y = make(60, 8)
    chosen = ridge_cv(X, Y, alphas=np.logspace(-1, 4, 11), cv=4)
    fit = ridge_cv(torch.from_numpy(X), torch.from_numpy(Y), alphas=chosen.alpha, cv=None)
    assert isinstance(fit.coef, torch.Tensor)
    np.testing.assert_allclose(fit.coef.numpy(), chosen.coef, atol=1e-10)
    fit.save(tmp_path / "fit.h5")
    again = RidgeFit.load(tmp_path / "fit.h5")
    assert again.cv_scores is None and again.best_score is None and str(again) == str(fit).replace("torch.", "")
    assert "given penalties" in repr(fit) and "edge" not in str(fit) and "smallest penalty of the grid" not in str(fit)
    np.testing.assert_allclose(again.score(X, Y), chosen.score(X, Y), atol=1e-10)


def test_skipped_voxels_are_nan_and_others_as_without_them():
    X, Y = make(60, 8)
    Y[4, 2] = np.nan
    fit, others = ridge_cv(X, Y, alphas=GIVEN, cv=None, nan_targets="skip"), np.arange(V) != 2
    assert np.isnan(fit.coef[:, 2]).all() and np.isnan(fit.alpha[2]) and np.isnan(fit.predict(X)[:, 2]).all()
    wanted = ridge_cv(X, Y[:, others], alphas=GIVEN[others], cv=None)
    np.testing.assert_allclose(fit.coef[:, others], wanted.coef, atol=1e-12)
    assert "1 skipped" in str(fit)
    with pytest.raises(InputError, match="1 of 7 voxels in Y hold NaN"):
        ridge_cv(X, Y, alphas=GIVEN, cv=None)


@pytest.mark.parametrize("shape", [(60, 8), (30, 90)])
@pytest.mark.parametrize("there", [True, False])
def test_devices_find_the_same(shape, there):
    X, Y = make(*shape)
    Y[3, 1] = np.nan
    plan = make_plan(Problem.check(X, alphas=GIVEN, cv=None, may_be_given=True), n_voxels=V)
    arrays, account = on_device(plain_device(torch), plan, Y, skip=True, width=3, there=there)
    assert_same(fit_plan(plan, Y, nan_targets="skip"), arrays, np.float64)
    assert account["skipped_voxels"] == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_float32_responses_too_large_to_fit_are_named():
    X, Y = make(60, 8, np.float32)
    Y[::2, 3], Y[1::2, 3] = 3e38, -3e38
    with pytest.raises(InputError, match="too large to fit in float32, the first in voxel 3"):
        ridge_cv(X, Y, alphas=GIVEN, cv=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": GIVEN[:5]}, r"alphas has 5 for 7 voxels of Y; pass alphas of shape \(7,\), or a cv to choose"),
        ({}, "alphas is the default grid; pass one penalty for each voxel"),
        ({"alphas": DEFAULT_ALPHAS.tolist()}, "alphas is the default grid"),
        ({"alphas": GIVEN * 0}, "every penalty must be positive"),
        ({"alphas": GIVEN, "gap": 2}, "gap=2 does not apply"),
        ({"alphas": GIVEN, "per_target": False}, "per_target=False does not apply"),
        ({"alphas": GIVEN, "cv_predictions": True}, "cv_predictions=True does not apply"),
        ({"alphas": GIVEN, "rule": "one-se"}, "cv makes 0; pass at least 2"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message, monkeypatch):
    monkeypatch.setattr("fastencode.solve.ridge.make_plan", lambda *_, **__: pytest.fail("planned"))
    with pytest.raises(InputError, match=message):
        ridge_cv(*make(60, 8), **{"cv": None, **options})


def test_a_plan_for_any_responses_needs_folds():
    with pytest.raises(InputError, match="cv=None; pass a number of folds"):
        plan_ridge(make(60, 8)[0], alphas=GIVEN, cv=None)


def test_a_penalty_of_its_own_for_each_of_many_voxels_costs_no_scores_of_all_penalties():
    X, _ = make(30, 8)
    rng = np.random.default_rng(6)
    Y, alphas = rng.standard_normal((30, 3000)), rng.uniform(0.1, 100, 3000)
    tracemalloc.start()
    fit = ridge_cv(X, Y, alphas=alphas, cv=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # voxels x penalties would be 72 MB
    v = 1234
    coef, _ = least_squares(X, Y[:, v], alphas[v], True, np.ones(30))
    np.testing.assert_allclose(fit.coef[:, v], coef, atol=1e-9)
    device, sizes = plain_device(torch), []
    for given in (alphas, alphas[0]):
        plan = make_plan(Problem.check(X, alphas=given, cv=None, may_be_given=True), n_voxels=3000)
        sweep = DeviceRidge(device, plan, Targets.check(Y, 30), "r2", False, Choice(), True)
        sizes.append(sweep.bytes_per_voxel)
        assert len(sweep.scores_av) == 0
    assert sizes[0] == sizes[1]
