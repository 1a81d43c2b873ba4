"""Scores of a layer by tiles of voxels: the numbers of one fit of all voxels, in the memory of a tile."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fastencode.solve.edges import held_warnings
from fastencode.solve.ridge import plan_ridge
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.study.brains import layer_scores
from fastencode.study.brains.layer_scores import Listener, predict_in_tiles, share_layer
from fastencode.study.config import AlignConfig

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.errors.FastencodeWarning")

GRID = (1.0, 10.0, 100.0, 1000.0)


def data(n_voxels: int, n: int = 240, n_test: int = 60, p: int = 12) -> tuple[np.ndarray, ...]:
    """(X, X_test, Y, Y_test), float32; voxels differ in how well they are predicted."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n + n_test, p)).astype(np.float32)
    Y = X @ rng.standard_normal((p, n_voxels)) + np.linspace(0.5, 12, n_voxels) * rng.standard_normal((n + n_test, n_voxels))
    return X[:n], X[n:], Y[:n].astype(np.float32), Y[n:].astype(np.float32)


@pytest.mark.parametrize("grid", [GRID, (1e-4, 1e-3), (3e4, 1e6), (1e-3, 1e-1, 10.0, 1e3, 1e5)])
def test_tiles_are_one_fit_of_all_voxels(grid: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the grid is too narrow, too: single tiles of the first say so, all voxels do not."""
    X, X_test, Y, _ = data(203)
    plan = plan_ridge(X, alphas=grid, cv=4)
    with held_warnings() as edges:
        fit = plan.fit(Y, scoring="pearson")
    cost = edges[0].cost
    monkeypatch.setattr(layer_scores, "_WEIGHTS", 20 * X.shape[1] * 4)
    found = predict_in_tiles(plan, X_test, Y)
    np.testing.assert_array_equal(found.alpha, fit.alpha)
    np.testing.assert_array_equal(found.at_edge, fit.at_edge)
    np.testing.assert_allclose(found.values, fit.predict(X_test), atol=2e-5)
    assert found.values.dtype == np.float32
    assert found.narrow.tolist() == [cost.all_low or cost.low > 0, cost.all_high or cost.high > 0]


def test_the_weights_of_all_voxels_are_never_made(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_voxels, p = 3000, 600
    X, X_test, Y, _ = data(n_voxels, p=p)
    np.save(tmp_path / "fit.npy", Y)
    responses = np.load(tmp_path / "fit.npy", mmap_mode="r")
    plan = plan_ridge(X, alphas=GRID, cv=4)
    del Y
    widths, whole, real = [], 4 * p * n_voxels, RidgePlan.fit

    def fit(self, Y, **options):
        widths.append(Y.shape[1])
        return real(self, Y, **options)

    monkeypatch.setattr(RidgePlan, "fit", fit)
    monkeypatch.setattr(layer_scores, "_WEIGHTS", 4 * p * 100)
    predict_in_tiles(plan, X_test, responses[:, :100])  # what is made once
    tracemalloc.start()
    predict_in_tiles(plan, X_test, responses)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(widths) == 100 and sum(widths) == 100 + n_voxels
    assert peak < whole / 2, f"{peak} bytes at the peak, {whole} of all weights"


def test_shares_by_tiles_are_those_of_all_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    X, X_test, Y, Y_test = data(23)
    bands = {"layer": np.vstack([X, X_test])[:, :8], "low": np.vstack([X, X_test])[:, 8:]}
    spread = np.linspace(0.4, 1.0, 23)
    listener = Listener(Y, Y_test, None, {"all": np.arange(23)}, spread[None])
    labels, config = np.repeat([0, 1, 2], 80), AlignConfig(alphas=GRID, folds=3)
    whole = share_layer(bands, labels, listener, config, candidates=5)
    monkeypatch.setattr(layer_scores, "_SHARED", 6 * 4 * (2 * 300 + 12))
    found = share_layer(bands, labels, listener, config, candidates=5)
    np.testing.assert_allclose(found.total, whole.total, atol=1e-5)
    np.testing.assert_allclose(found.unique, whole.unique, atol=1e-5)
    assert np.ptp(whole.total) > 0.2 and len(list(layer_scores._tiles(23, 4 * (2 * 300 + 12), 6 * 4 * 612))) == 4
