"""Peak of what is allocated while weights are made last, at more threads than memory= has room for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fastencode import InputError, banded_ridge_cv, ridge_cv
from fastencode.solve.search import refit
from fastencode.solve.weights import features, ridge

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")


def peak(fit):
    tracemalloc.start()
    try:
        found = fit()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("solver", ["ridge", "banded"])
def test_blocks_of_all_threads_stay_within_memory(solver, monkeypatch):
    n, p, v, memory = 400, 40_000, 20, {"ridge": 20_000_000, "banded": 30_000_000}[solver]
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, p), dtype=np.float32), rng.standard_normal((n, v), dtype=np.float32)

    def fit():
        if solver == "ridge":
            return ridge_cv(X, Y, alphas=[1.0, 1e3], cv=3, memory=memory)
        return banded_ridge_cv(X, Y, bands=[p // 2, p // 2], n_iter=2, alphas=[1.0, 1e3], cv=3, memory=memory)

    wanted = fit()
    for module in (ridge, features, refit):
        monkeypatch.setattr(module, "available_threads", lambda: 16)
    most, found = peak(fit)
    assert found.stats["strategy"] == "dual"
    np.testing.assert_allclose(found.coef, wanted.coef, atol=1e-6)
    assert most - found.coef.nbytes <= memory, (most - found.coef.nbytes) / 1e6


@pytest.mark.parametrize("per_target", [True, False])
def test_what_is_kept_of_folds_is_counted(per_target):
    n, v, memory = 600, 6000, 20_000_000
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, 40), dtype=np.float32), rng.standard_normal((n, v), dtype=np.float32)
    options = {"alphas": np.logspace(0, 4, 30), "cv": 12, "per_target": per_target, "rule": "one-se", "cv_predictions": True}
    wanted = ridge_cv(X, Y, **options)
    most, found = peak(lambda: ridge_cv(X, Y, **options, memory=memory))
    np.testing.assert_array_equal(found.alpha, wanted.alpha)
    np.testing.assert_allclose(found.cv_predictions, wanted.cv_predictions, atol=1e-5)
    assert (found.fold_scores is None) == (not per_target)  # 12 folds x 30 penalties x 6000 voxels are more than memory / 4
    results = found.coef.nbytes + found.cv_predictions.nbytes + found.cv_scores.nbytes
    results += found.fold_scores.nbytes if per_target else 0
    assert most - results <= memory, (most - results) / 1e6
    with pytest.raises(InputError, match="is too small: the smallest that works here"):
        ridge_cv(X, Y, **options, memory=3_000_000)
