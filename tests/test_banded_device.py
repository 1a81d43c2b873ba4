"""Banded ridge scored on a device: over torch on the CPU and array-api-strict, against the loop of the CPU."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from banded_cases import ALPHAS, gammas_for, problem
from fastencode import banded_ridge_cv
from fastencode.devices import plain_device
from fastencode.errors import DeviceError
from fastencode.solve.banded import ridge
from fastencode.solve.targets import Targets

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")

NAMES = ("coef", "intercept", "alpha", "gammas", "cv_scores", "best_score", "at_edge")


@pytest.fixture(params=[torch, array_api_strict], ids=["torch", "array_api_strict"])
def fit_there(request, monkeypatch):
    """The same call on a device: X and Y lie here, and candidates are scored there."""

    def fit(*arrays, **options):
        with monkeypatch.context() as patch:
            patch.setattr(ridge, "device_for", lambda *_: plain_device(request.param))
            return banded_ridge_cv(*arrays, **options)

    return fit


def assert_same(found, wanted, dtype):
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    for name in NAMES:
        assert getattr(found, name).dtype == getattr(wanted, name).dtype, name
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scoring", ["r2", "pearson", "neg_mean_squared_error"])
@pytest.mark.parametrize(("n", "widths"), [(60, (5, 8, 4)), (40, (30, 25))])
def test_finds_what_the_cpu_finds(fit_there, n, widths, scoring, dtype, per_target):
    X, Y, widths = problem(n, widths, v=40, dtype=dtype)
    given = {"bands": widths, "gammas": gammas_for(len(widths)), "alphas": ALPHAS, "cv": 4}
    given |= {"scoring": scoring, "per_target": per_target}
    found, wanted = fit_there(X, Y, **given), banded_ridge_cv(X, Y, **given)
    assert_same(found, wanted, dtype)
    assert found.stats["moments"] and "moments" not in wanted.stats  # it went through the loop for devices
    assert found.stats["seconds"]["score"] > 0


def test_weights_bad_voxels_kernels_and_steps_by_the_gradient(fit_there):
    X, Y, widths = problem(50, (5, 8, 4), v=20)
    weight = np.random.default_rng(0).uniform(0.5, 2, 50) * (np.arange(50) % 9 > 0)
    Y[3, 7] = np.nan
    given = {"bands": widths, "n_iter": 3, "random_state": 0, "alphas": ALPHAS, "cv": 4, "nan_targets": "skip"}
    given["sample_weight"] = weight
    found, wanted = fit_there(X, Y, **given), banded_ridge_cv(X, Y, **given)
    assert_same(found, wanted, np.float64)
    assert np.isnan(found.coef[:, 7]).all() and found.stats["skipped_voxels"] == 1
    found, wanted = fit_there(X, Y, search="auto", **given), banded_ridge_cv(X, Y, search="auto", **given)
    np.testing.assert_allclose(found.best_score, wanted.best_score, atol=1e-9)
    parts, given["bands"] = [X[:, :5] @ X[:, :5].T, X[:, 5:] @ X[:, 5:].T], "precomputed"
    found, wanted = fit_there(parts, Y, **given), banded_ridge_cv(parts, Y, **given)
    np.testing.assert_allclose(found.dual_coef, wanted.dual_coef, atol=1e-10)


def test_a_checkpoint_goes_on_there(fit_there, tmp_path):
    X, Y, widths = problem(60, (5, 8, 4))
    given = {"bands": widths, "n_iter": 6, "random_state": 0, "alphas": ALPHAS, "cv": 4}
    whole = banded_ridge_cv(X, Y, checkpoint=tmp_path / "search.h5", **given)
    found = fit_there(X, Y, checkpoint=tmp_path / "search.h5", **given)
    np.testing.assert_array_equal(found.coef, whole.coef)
    assert found.stats["device"] == "cpu"  # nothing was left to score there


def test_responses_there_are_fetched():
    Y, device = np.arange(12.0).reshape(4, 3), plain_device(torch)
    there = Targets(device.put(Y), 4, 3, False, "torch", None, device)
    np.testing.assert_array_equal(there.fetched().source, Y)
    assert there.fetched().device is None and there.fetched().fetched().library == "torch"


def test_a_device_that_is_not_there_is_named():
    X, Y, widths = problem()
    with pytest.raises(DeviceError, match="cuda"):
        banded_ridge_cv(X, Y, bands=widths, device="cuda:63")
