"""Fits on matrix tiles: as exact as float32 by BLAS, the same choices, and what ``precision="fast"`` gives up."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
import reference
from fastencode import kernels
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan import products
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import RidgePlan

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

ALPHAS = np.logspace(0, 7, 16)
# Large enough for tiles, as are the voxels: (rows, features, folds, how folds are stored).
SHAPES = {
    "merged": (480, 130, 4, ("primal", "merged")),
    "factored": (480, 130, 4, ("primal", "factored")),
    "rotated": (480, 130, 4, ("primal", "rotated")),
    "from training rows": (300, 420, 3, ("dual", "merged")),
    "together": (300, 420, 3, ("dual", "whole")),
    "runs of 24 rows": (480, 130, 20, ("primal",)),
}


@pytest.fixture
def by_blas(monkeypatch):
    """Fits with and without matrix tiles."""
    if not kernels.has_tiles():
        pytest.skip("no matrix tiles here (AMX: processor, system and compiler must know them); BLAS multiplies")

    def fit(plan, Y, **options):
        with monkeypatch.context() as patch:
            patch.setattr(products.kernels, "has_tiles", lambda: False)
            return plan.fit(Y, **options)

    return fit


def make(n, p, v=200):
    rng = np.random.default_rng([n, p])
    X = rng.standard_normal((n, p)) * np.geomspace(10, 0.1, p)
    noise = np.where(np.arange(v) < v // 2, 1.0, 30.0) * rng.standard_normal((n, v)) * 5
    return X.astype(np.float32), (X @ rng.standard_normal((p, v)) + noise).astype(np.float32)


def plan_for(X, cv, way, precision="exact"):
    return RidgePlan(make_plan(Problem.check(X, alphas=ALPHAS, cv=cv, precision=precision), *way))


@pytest.mark.parametrize("scoring", ["r2", "pearson"])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_refitting_and_chooses_as_blas_does(by_blas, name, scoring):
    n, p, cv, way = SHAPES[name]
    X, Y = make(n, p)
    plan = plan_for(X, cv, way)
    fit, other = plan.fit(Y, scoring=scoring), by_blas(plan, Y, scoring=scoring)
    assert "3 bfloat16 parts" in fit.stats["products"] and other.stats["products"] == "BLAS"
    folds = [(np.setdiff1d(np.arange(n), rows), rows) for rows in np.array_split(np.arange(n), cv)]
    wanted = reference.cv_scores(X, Y[:, ::40], ALPHAS, folds, scoring, True)
    np.testing.assert_allclose(fit.cv_scores[:, ::40], wanted, atol=2e-6 * (1 + np.abs(wanted).max()))
    np.testing.assert_array_equal(fit.alpha, other.alpha)
    np.testing.assert_allclose(fit.coef, other.coef, atol=2e-6 * np.abs(other.coef).max())


@pytest.mark.parametrize("name", ["merged", "rotated", "together"])
def test_fast_scores_are_near_and_weights_are_those_of_exact(by_blas, name):
    n, p, cv, way = SHAPES[name]
    X, Y = make(n, p)
    exact, fast = (plan_for(X, cv, way, precision).fit(Y) for precision in ("exact", "fast"))
    assert "2 bfloat16 parts" in fast.stats["products"]
    difference = np.abs(exact.cv_scores - fast.cv_scores).max()
    assert 0 < difference < 1e-4 * (1 + np.abs(exact.cv_scores).max())
    same = exact.alpha == fast.alpha
    assert same.mean() > 0.9
    np.testing.assert_array_equal(fast.coef[:, same], exact.coef[:, same])


def test_a_voxel_does_not_see_its_neighbors_to_the_bit(by_blas):
    X, Y = make(480, 130, 64)
    plan = plan_for(X, 4, ("primal", "rotated"))
    every, some = plan.fit(Y), plan.fit(np.ascontiguousarray(Y[:, 7:40:3]))
    np.testing.assert_array_equal(every.coef[:, 7:40:3], some.coef)
    np.testing.assert_array_equal(every.cv_scores[:, 7:40:3], some.cv_scores)


def test_on_tiles_memory_and_threads_change_nothing(by_blas):
    X, Y = make(480, 130, 700)
    plain = fastencode.ridge_cv(X, Y, alphas=ALPHAS, cv=4)
    lean = fastencode.ridge_cv(X, Y, alphas=ALPHAS, cv=4, memory="40MB")
    np.testing.assert_array_equal(plain.alpha, lean.alpha)
    np.testing.assert_array_equal(plain.coef, lean.coef)
