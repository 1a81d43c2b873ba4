"""Banded ridge on a device: over torch on the CPU and array-api-strict, against NumPy.

Legend: b = bands, v = voxels.
"""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from banded_cases import ALPHAS, gammas_for, problem
from fastencode import banded_ridge_cv
from fastencode.devices import plain_device
from fastencode.errors import DeviceError
from fastencode.solve import banded as ridge
from fastencode.solve.given.bands import join
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.grams import make_grams
from fastencode.solve.search import cells, refine, refit
from fastencode.solve.search.state import Settings
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")

SCORINGS = ["r2", "pearson", "neg_mean_squared_error"]
DTYPES = [np.float64, np.float32]
SHAPES = [(60, (5, 8, 4)), (40, (30, 25))]  # primal, dual
PLACES = [torch, array_api_strict]
NAMES = ("coef", "intercept", "alpha", "gammas", "cv_scores", "best_score", "at_edge")


@pytest.fixture(params=PLACES, ids=["torch", "array_api_strict"])
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


def assert_alike(found, wanted, X, Y, dtype):
    """Steps enlarge roundings where a score is flat, and whether one more is worth it (``refine.WORTH``) may turn on one: the
    same scores but for a few, and the weights that belong to the penalties."""
    apart = np.abs(found.best_score - wanted.best_score)
    assert np.mean(apart < (1e-7 if dtype == np.float64 else 1e-5)) > 0.95 and apart.max() < 1e-4
    band_p = np.repeat(np.arange(len(found.columns)), [len(columns) for columns in found.columns])
    X, Y = (array - array.mean(axis=0) for array in (X.astype(np.float64), Y.astype(np.float64)))
    for v in np.flatnonzero(~np.isnan(found.alpha)):
        scaled = X * (found.gammas[band_p, v] / found.alpha[v])
        coef = scaled.T @ np.linalg.solve(scaled @ X.T + np.eye(len(X)), Y[:, v])
        np.testing.assert_allclose(found.coef[:, v], coef, atol=1e-8 if dtype == np.float64 else 2e-5)


@pytest.mark.parametrize(
    "fit_there, shape, scoring, dtype, per_target", pairs(PLACES, SHAPES, SCORINGS, DTYPES, [True, False]), indirect=["fit_there"]
)
def test_finds_what_the_cpu_finds(fit_there, shape, scoring, dtype, per_target):
    X, Y, widths = problem(*shape, v=20, dtype=dtype)
    given = {"bands": widths, "gammas": gammas_for(len(widths)), "alphas": ALPHAS, "cv": 4}
    given |= {"scoring": scoring, "per_target": per_target}
    found, wanted = fit_there(X, Y, **given), banded_ridge_cv(X, Y, **given)
    assert_same(found, wanted, dtype)
    assert found.stats["moments"] and "moments" not in wanted.stats  # it went through the loop for devices
    assert found.stats["seconds"]["score"] > 0


def evaluated(device, X, Y, widths, at_bv, scoring, dual, w):
    """(score (v,), slope (b, v)) at log δ, from inverses half a unit off; and once more a little further."""
    given = {"alphas": ALPHAS, "cv": 4, "runs": None, "fit_intercept": True, "precision": "exact"}
    checked = Problem.check(X, **given, device=None, memory=None, sample_weight=w)
    grams = make_grams(checked, join(X, widths).bands, None, dual)
    targets, settings = Targets.check(Y, len(X), checked.kept), Settings(scoring, True, False, None, 9)
    refiner = refine.Refiner(grams, targets, settings, at_bv, np.ones(Y.shape[1]), device)
    cell = refiner.cell(np.exp(at_bv.mean(axis=1) + 0.5))
    tile = refine._Once(refiner, cell, np.arange(Y.shape[1]), at_bv[:, :1])
    y = refiner.systems.device.put(targets.in_use(Y) - 2.0)
    states = [cell.start(k, y) for k in range(len(checked.folds))]
    return [tile.evaluate(y, there, states) for there in (at_bv, at_bv + 0.2)]


@pytest.mark.parametrize("xp, dual, scoring, weighted", pairs(PLACES, [False, True], SCORINGS, [False, True]))
def test_scores_and_slopes_are_those_of_numpy(xp, dual, scoring, weighted):
    X, Y, widths = problem(50, (5, 12, 3), v=6)
    rng = np.random.default_rng(1)
    w = rng.uniform(0.3, 2.0, 50) * (rng.random(50) > 0.1) if weighted else None
    given = X, Y, widths, np.log(rng.uniform(0.01, 0.5, (3, 6))), scoring, dual, w
    for found, wanted in zip(evaluated(plain_device(xp), *given), evaluated(None, *given), strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("fit_there, shape, scoring, dtype", pairs(PLACES, SHAPES, SCORINGS, DTYPES), indirect=["fit_there"])
def test_climbs_where_the_cpu_climbs(fit_there, shape, scoring, dtype):
    X, Y, widths = problem(*shape, v=21, dtype=dtype)
    given = {"bands": widths, "search": "auto", "n_iter": 3, "n_steps": 5, "random_state": 0, "alphas": ALPHAS}
    given |= {"cv": 3, "scoring": scoring}
    found, wanted = fit_there(X, Y, **given), banded_ridge_cv(X, Y, **given)
    assert found.stats["refined"]["evaluations"] == wanted.stats["refined"]["evaluations"]
    assert found.stats["refined"]["voxels"] > 5
    assert_alike(found, wanted, X, Y, dtype)


def test_one_solution_for_all_climbs_there(fit_there):
    X, Y, widths = problem(60, (5, 8, 4), v=20)
    given = {"bands": widths, "search": "gradient", "random_state": 0, "alphas": ALPHAS, "cv": 4, "per_target": False}
    found = fit_there(X, Y, **given)
    assert_alike(found, banded_ridge_cv(X, Y, **given), X, Y, np.float64)
    assert len(np.unique(found.gammas, axis=1).T) == 1


@pytest.mark.parametrize("fit_there", [torch], indirect=True)
@pytest.mark.parametrize("kind", [refine._Follow, refine._Exact, refit._Own])
def test_a_tile_that_does_not_fit_is_done_in_halves(fit_there, monkeypatch, kind):
    X, Y, widths = problem(60, (5, 8, 4), v=4)
    Y = np.repeat(Y, 24, axis=1)  # the voxels of a kind end in one cell
    given = {"bands": widths, "search": "gradient", "random_state": 0, "alphas": ALPHAS, "cv": 4, "n_steps": 4}
    wanted, real, refused = fit_there(X, Y, **given), kind.tile, []

    def hungry(self, y_nw, mean_w, here):
        if len(here) > 20:
            refused.append(len(here))
            raise torch.OutOfMemoryError("out of memory")
        real(self, y_nw, mean_w, here)

    monkeypatch.setattr(kind, "tile", hungry)
    assert_alike(fit_there(X, Y, **given), wanted, X, Y, np.float64)
    assert refused


def test_no_memory_for_any_tile_or_for_the_systems_is_said(fit_there, monkeypatch):
    X, Y, widths = problem(60, (5, 8, 4), v=50)
    given = {"bands": widths, "search": "gradient", "random_state": 0, "alphas": ALPHAS, "cv": 4}

    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(refine._Follow, "tile", full)
        with pytest.raises(DeviceError, match="out of memory on .* voxels, beside .* GB for all folds; .* device=None"):
            fit_there(X, Y, **given)
    monkeypatch.setattr(cells.Cell, "at", full)
    with pytest.raises(DeviceError, match="ran out of memory for the systems or the weights of a tile; .* device=None"):
        fit_there(X, Y, **given)


def test_weights_bad_voxels_kernels_and_steps_by_the_gradient(fit_there):
    X, Y, widths = problem(50, (5, 8, 4), v=9)
    weight = np.random.default_rng(0).uniform(0.5, 2, 50) * (np.arange(50) % 9 > 0)
    Y[3, 7] = np.nan
    given = {"bands": widths, "n_iter": 3, "random_state": 0, "alphas": ALPHAS, "cv": 4, "nan_targets": "skip"}
    given["sample_weight"] = weight
    found, wanted = fit_there(X, Y, **given), banded_ridge_cv(X, Y, **given)
    assert_same(found, wanted, np.float64)
    assert np.isnan(found.coef[:, 7]).all() and found.stats["skipped_voxels"] == 1
    climb = {"search": "auto", "n_steps": 6, **given}
    found, wanted = fit_there(X, Y, **climb), banded_ridge_cv(X, Y, **climb)
    np.testing.assert_allclose(found.best_score, wanted.best_score, atol=1e-7)
    parts, given["bands"] = [X[:, :5] @ X[:, :5].T, X[:, 5:] @ X[:, 5:].T], "precomputed"
    found, wanted = fit_there(parts, Y, **given), banded_ridge_cv(parts, Y, **given)
    np.testing.assert_allclose(found.dual_coef, wanted.dual_coef, atol=1e-10)


def test_a_checkpoint_goes_on_there(fit_there, tmp_path):
    X, Y, widths = problem(60, (5, 8, 4))
    given = {"bands": widths, "n_iter": 6, "random_state": 0, "alphas": ALPHAS, "cv": 4}
    whole = banded_ridge_cv(X, Y, checkpoint=tmp_path / "search.h5", **given)
    found = fit_there(X, Y, checkpoint=tmp_path / "search.h5", **given)
    np.testing.assert_allclose(found.coef, whole.coef, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found.cv_scores, whole.cv_scores)
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


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "widths"), SHAPES)
def test_given_penalties(fit_there, n, widths, dtype):
    X, Y, widths = problem(n, widths, v=40, dtype=dtype)
    rng = np.random.default_rng(0)
    for near in (True, False):  # in one cell; each decomposed
        gammas = rng.uniform(0.9, 1.1, (len(widths), 40)) if near else np.eye(len(widths))[:, np.arange(40) % len(widths)]
        given = {"bands": widths, "gammas": gammas, "alphas": rng.uniform(2.0, 3.0, 40), "cv": None}
        assert_same(fit_there(X, Y, **given), banded_ridge_cv(X, Y, **given), dtype)
