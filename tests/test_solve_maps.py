"""Shrinkage cut into segments, and the ways a fold's map can be stored: all give what refitting gives."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
import reference
from fastencode import kernels
from fastencode.errors import InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan import operators
from fastencode.solve.plan import segments as shrinkage
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.plan.products import Products
from fastencode.solve.plan.segments import Curves, cut_spectrum, make_shrinkage
from fastencode.solve.ridge_plan import RidgePlan

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

MAPS = ["merged", "factored", "rotated"]


def get(name, *shape, dtype):
    return np.full(shape, np.nan, dtype=dtype)


def curves_over(lam, alphas, tolerance):
    values = lam / (lam + alphas[:, None])
    return Curves(lam, values, np.ones(len(lam)), np.full(len(alphas), tolerance))


@pytest.mark.parametrize("tolerance", [1e-6, 1e-12])
@pytest.mark.parametrize("decades", [0.5, 6])
def test_segments_keep_the_allowed_error_with_fewer_products(tolerance, decades):
    lam, alphas = np.geomspace(1, 10**decades, 900), np.logspace(-1, decades + 1, 20)
    curves = curves_over(lam, alphas, tolerance)
    cut = make_shrinkage(curves, cut_spectrum(curves), np.dtype(np.float64))
    made = np.zeros((20, 900))
    q = 0
    for (start, stop), values in cut.pieces:
        made[:, start:stop] = cut.mix_kq[:, q : q + len(values)] @ values
        q += len(values)
    assert np.abs(made - curves.values_kr).max() <= tolerance
    assert len(cut.pieces) > 1 and cut.directions < (0.45 if tolerance > 1e-9 else 0.75) * 20 * 900
    assert cut.operations == 2 * (cut.directions + 20 * cut.n_products)


def test_few_nodes_or_directions_are_not_cut():
    for lam, alphas in ((np.geomspace(1, 10, 100), np.array([1.0, 2.0])), (np.ones(1), np.logspace(0, 3, 9))):
        curves = curves_over(lam, alphas, 1e-6)
        whole = make_shrinkage(curves, cut_spectrum(curves), np.dtype(np.float64))
        assert whole.mix_kq is None and len(whole.pieces) == 1 and whole.nodes == whole.n_products == len(alphas)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 17, 192, 450])
@pytest.mark.parametrize("cuts", [np.empty(0), np.array([30.0, 500.0])])
def test_products_of_segments_are_the_whole_products(cuts, rows, dtype):
    rng = np.random.default_rng(0)
    lam, alphas = np.geomspace(1, 1e4, 120), np.logspace(0, 4, 12)
    made = make_shrinkage(curves_over(lam, alphas, 1e-6 if dtype == np.float32 else 1e-12), cuts, np.dtype(dtype))
    rows_mr, c_rw = rng.standard_normal((rows, 120)).astype(dtype), rng.standard_normal((120, 32)).astype(dtype)
    out = np.empty((12, rows, 32), dtype=dtype)
    by_blas = Products(lambda left, right, out: np.matmul(left, right, out=out), None)
    made.product(rows_mr, made.spread(c_rw, get, by_blas), out, get, by_blas)
    wanted = np.einsum("mr,kr,rw->kmw", rows_mr, lam / (lam + alphas[:, None]), c_rw, dtype=np.float64)
    np.testing.assert_allclose(out, wanted, atol=(1e-4 if dtype == np.float32 else 1e-10))
    other = np.empty_like(out)
    by_kernel = Products(None, kernels.cpu("shrunk"))
    made.product(rows_mr, made.spread(c_rw, get, by_kernel), other, get, by_kernel)
    np.testing.assert_allclose(other, wanted, atol=(1e-4 if dtype == np.float32 else 1e-10))


def force(monkeypatch, name):
    """Leave one way to choose from, and cut wherever possible."""
    real = operators.map_costs
    monkeypatch.setattr(operators, "map_costs", lambda *a: [c for c in real(*a) if c.name == name])
    monkeypatch.setattr(operators, "WHOLE_ROWS", {True: 0, False: 0})
    monkeypatch.setattr(shrinkage, "_OVERHEAD", -20)


def make(n, p, v, dtype=np.float64):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, p)) * np.geomspace(30, 0.3, p)
    return X.astype(dtype), (X @ rng.standard_normal((p, v)) / 10 + 20 * rng.standard_normal((n, v)) + 2).astype(dtype)


def plan_for(X, way=(), **options):
    return RidgePlan(make_plan(Problem.check(X, **options), *way))


@pytest.mark.parametrize("scoring", ["r2", "pearson", "neg_mean_squared_error"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MAPS)
def test_every_map_equals_refitting(monkeypatch, name, dtype, intercept, scoring):
    force(monkeypatch, name)
    X, Y = make(150, 40, 5, dtype)
    weights = np.random.default_rng(2).uniform(0.2, 2.0, 150)
    alphas, blocks = np.logspace(-1, 6, 24), np.array_split(np.arange(150), 6)
    folds = [(np.setdiff1d(np.arange(150), rows), rows) for rows in blocks]
    folds[1] = (folds[1][0][:-9], folds[1][1][::-1][:-3])  # rows in neither set, test rows out of order
    plan = plan_for(X, alphas=alphas, cv=folds, sample_weight=weights, fit_intercept=intercept)
    assert {type(f.map).__name__.lower() for f in plan._plan.operators} == {name}
    if name != "merged":
        assert all(len(f.map.shrinkage.pieces) > 1 for f in plan._plan.operators)
        assert "segments" in str(plan)
    wanted = reference.weighted_cv_scores(X.astype(float), Y.astype(float), alphas, folds, scoring, intercept, weights)
    found = plan.fit(Y, scoring=scoring).cv_scores
    np.testing.assert_allclose(found, wanted, atol=(2e-5 if dtype == np.float32 else 1e-9) * (1 + np.abs(wanted).max()))


@pytest.mark.parametrize("scoring", ["r2", "pearson"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["merged", "rotated"])
@pytest.mark.parametrize("p", [60, 200])
def test_every_map_from_training_rows_equals_refitting(monkeypatch, p, name, dtype, intercept, scoring):
    force(monkeypatch, name)
    monkeypatch.setattr(operators, "LIMITS", dict.fromkeys((4, 8), dict.fromkeys(("whole", "apart", "train"), 0.0)))
    X, Y = make(120, p, 5, dtype)
    weights = np.random.default_rng(2).uniform(0.2, 2.0, 120)
    alphas, blocks = np.logspace(0, 6, 24), np.array_split(np.arange(120), 4)
    folds = [(np.setdiff1d(np.arange(120), rows), rows) for rows in blocks]
    folds[1] = (folds[1][0][:-9], folds[1][1][::-1][:-3])  # rows in neither set, test rows out of order
    folds[2] = (np.r_[folds[2][0], folds[2][0][:7]], folds[2][1])  # rows twice
    plan = plan_for(X, alphas=alphas, cv=folds, sample_weight=weights, fit_intercept=intercept)
    assert {(f.form, type(f.map).__name__.lower()) for f in plan._plan.operators} == {("train", name)}
    assert f"4 {name} from training rows" in str(plan)
    wanted = reference.weighted_cv_scores(X.astype(float), Y.astype(float), alphas, folds, scoring, intercept, weights)
    found = plan.fit(Y, scoring=scoring).cv_scores
    np.testing.assert_allclose(found, wanted, atol=(2e-5 if dtype == np.float32 else 1e-9) * (1 + np.abs(wanted).max()))


@pytest.mark.parametrize("scoring", ["r2", "pearson"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_folds_of_a_complete_basis_together(monkeypatch, dtype, scoring):
    monkeypatch.setattr(shrinkage, "_OVERHEAD", -20)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((160, 300)).astype(dtype)
    Y = (X @ rng.standard_normal((300, 4)) / 10 + rng.standard_normal((160, 4))).astype(dtype)
    alphas = np.logspace(0, 4, 20)
    plan = plan_for(X, way=("dual", "whole"), alphas=alphas, cv=4)
    assert [w.rows.shape for w in plan._plan.whole] == [(4, 40)] and not plan._plan.operators
    folds = [(np.setdiff1d(np.arange(160), rows), rows) for rows in np.array_split(np.arange(160), 4)]
    wanted = reference.cv_scores(X, Y, alphas, folds, scoring, True)
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(plan.fit(Y, scoring=scoring).cv_scores, wanted, atol=tolerance)


def test_a_small_budget_takes_leaner_maps_and_changes_no_choice():
    X, Y = make(400, 300, 40)
    options = {"alphas": np.logspace(0, 6, 20), "cv": 8}
    plan = fastencode.plan_ridge(X, **options)
    assert {type(f.map).__name__ for f in plan._plan.operators} == {"Merged"}
    with pytest.raises(InputError, match="smallest that works is") as found:
        fastencode.plan_ridge(X, **options, memory=1)
    least = int(str(found.value).split("smallest that works is ")[1].split()[0])
    lean = fastencode.plan_ridge(X, **options, memory=least)
    assert lean.nbytes < plan.nbytes
    one, other = plan.fit(Y), lean.fit(Y[:, :16])
    np.testing.assert_array_equal(one.alpha[:16], other.alpha)
    np.testing.assert_allclose(one.cv_scores[:, :16], other.cv_scores, atol=1e-9)
