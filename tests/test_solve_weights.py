"""Fits that keep weights of the rows, or none."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
from fastencode import plan_ridge, ridge_cv
from fastencode.errors import InputError
from fastencode.solve.given import room

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")
ALPHAS = [0.5, 10.0, 300.0]


def make(shape, dtype=np.float64, v=7):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal(shape) + 2, rng.standard_normal((shape[0], v)) + 5
    return X.astype(dtype), Y.astype(dtype), (rng.standard_normal((9, shape[1])) + 2).astype(dtype)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(40, 6), (30, 90)])
def test_weights_of_rows_predict_and_score_as_those_of_features(shape, dtype, intercept, weighted):
    X, Y, new = make(shape, dtype)
    w = np.random.default_rng(1).integers(0, 3, shape[0]) if weighted else None
    options = {"alphas": ALPHAS, "cv": 4, "fit_intercept": intercept, "sample_weight": w}
    primal, dual, none = (ridge_cv(X, Y, weights=kind, **options) for kind in ("primal", "dual", None))
    rows = shape[0] if w is None else np.count_nonzero(w)
    assert dual.coef is None and dual.dual_coef.shape == (rows, 7) and dual.dual_coef.dtype == dtype
    tolerance = 1e-9 if dtype == np.float64 else 2e-3
    np.testing.assert_allclose(dual.predict(new), primal.predict(new), atol=tolerance)
    np.testing.assert_allclose(dual.intercept, primal.intercept, atol=10 * tolerance)
    np.testing.assert_allclose(dual.score(X, Y), primal.score(X, Y), atol=tolerance)
    used = X if w is None else X[w > 0]
    coef = (used.astype(np.float64) - dual.feature_means).T @ dual.dual_coef  # the weights of the features, by their definition
    np.testing.assert_allclose(coef, primal.coef, atol=tolerance)
    assert none.coef is None and none.dual_coef is None and none.intercept is None
    for fit in (dual, none):
        np.testing.assert_array_equal(fit.cv_scores, primal.cv_scores)
        np.testing.assert_array_equal(fit.alpha, primal.alpha)


def test_what_they_are_kept_as(tmp_path):
    X, Y, new = make((30, 90))
    dual, none = (ridge_cv(X, Y, weights=kind, alphas=ALPHAS, cv=3) for kind in ("dual", None))
    for fit in (dual, none):
        fit.save(tmp_path / "fit.h5")
        again = fastencode.RidgeFit.load(tmp_path / "fit.h5")
        assert "no weights" in repr(fit) if fit is none else "dual_coef 30 x 7" in repr(fit)
        assert "median" in str(again) and np.array_equal(again.alpha, fit.alpha)
        if fit is dual:
            np.testing.assert_array_equal(again.predict(new), fit.predict(new))
        else:
            with pytest.raises(InputError, match=r"kept no weights \(weights=None\); fit again with weights='primal' or 'dual'"):
                again.predict(new)
            with pytest.raises(InputError, match="kept no weights"):
                again.score(X, Y)
    assert dual.features is X  # no copy


def test_one_series_skipped_voxels_delayed_copies_and_given_penalties(tmp_path):
    X, Y, new = make((30, 20))
    one = ridge_cv(X, Y[:, 0], weights="dual", alphas=ALPHAS, cv=3)
    assert one.dual_coef.shape == (30,) and one.predict(new).shape == (9,)
    Y[3, 2] = np.nan
    skipped = ridge_cv(X, Y, weights="dual", alphas=ALPHAS, cv=3, nan_targets="skip")
    assert np.isnan(skipped.predict(new)).all(axis=0).tolist() == [v == 2 for v in range(7)]
    Y[3, 2] = 0.0
    late = fastencode.delay(X, (1, 2, 3), copy=False)
    dual, primal = (ridge_cv(late, Y, weights=kind, alphas=ALPHAS, cv=3) for kind in ("dual", "primal"))
    np.testing.assert_allclose(dual.predict(late), primal.predict(late), atol=1e-9)
    dual.save(tmp_path / "fit.h5")
    np.testing.assert_allclose(fastencode.RidgeFit.load(tmp_path / "fit.h5").predict(late), primal.predict(late), atol=1e-9)
    given = [ridge_cv(X, Y, weights=kind, alphas=10.0, cv=None).predict(new) for kind in ("dual", "primal")]
    np.testing.assert_allclose(*given, atol=1e-9)
    plan = plan_ridge(X, alphas=ALPHAS, cv=3)
    np.testing.assert_allclose(plan.fit(Y, weights="dual").predict(new), plan.fit(Y).predict(new), atol=1e-9)


@pytest.mark.parametrize("weights", ["both", 1, True, "none"])
def test_other_kinds_are_named(weights):
    X, Y, _ = make((30, 20))
    with pytest.raises(InputError, match=r"weights=.*; pass 'primal' \(of features\), 'dual' \(of rows\) or None"):
        ridge_cv(X, Y, weights=weights)


def test_columns_in_other_units_are_refused_where_digits_would_be_lost():
    for dtype, ratio in ((np.float64, 1e9), (np.float32, 1e3)):
        X, Y, _ = make((30, 90), dtype)
        X[:, 3] *= ratio
        with pytest.raises(InputError, match="weights of the rows would lose their digits; scale the columns"):
            ridge_cv(X, Y, weights="dual", alphas=ALPHAS, cv=3)


def test_a_result_that_does_not_fit_is_an_error_before_planning(monkeypatch):
    X, Y, _ = make((30, 9000), v=40)
    monkeypatch.setattr(room, "available_memory", lambda: 2_000_000)
    monkeypatch.setattr("fastencode.solve.ridge.make_plan", lambda *a, **k: pytest.fail("planned"))
    with pytest.raises(InputError, match=r"weights of 9000 features for 40 voxels .* pass weights='dual' \(0.0096 MB"):
        ridge_cv(X, Y, alphas=ALPHAS, cv=3)
