"""Planning on a device: products, decompositions and systems there, the same plan as on the host."""

from __future__ import annotations

import contextlib
import sys
import types

import array_api_strict
import numpy as np
import pytest
import torch

import fastencode
from card_cases import FakeCupy, FakeTorch
from device_cases import ALPHAS, FORMS, assert_same, make
from fastencode.devices import HOST, Device, plain_device
from fastencode.errors import InputError
from fastencode.solve.given.bands import join
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan import fold_plan
from fastencode.solve.plan.cholesky import invert_blocks
from fastencode.solve.plan.fold_plan import plan_folds, planned_on
from fastencode.solve.plan.grams import make_grams
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.solve.search.search import Bases
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*edge of the grid")

PLACES = [
    plain_device(torch),
    plain_device(array_api_strict),
    Device("torch", "cuda:0", FakeTorch()),
    Device("cupy", "cuda:0", FakeCupy()),
]
STORED = [None, "merged", "factored", "rotated", "whole"]


@pytest.fixture(autouse=True)
def small_problems_too(monkeypatch):
    monkeypatch.setattr(fold_plan, "_LEAST", 0)
    monkeypatch.setattr(Device, "precision", lambda self, dtype, reduced: contextlib.nullcontext())
    # What CuPy has beside ``cupy.linalg``.
    monkeypatch.setitem(sys.modules, "cupyx.lapack", types.SimpleNamespace(posv=FakeCupy.linalg.solve))


def planned(X, device, stored=None, **options):
    return RidgePlan(make_plan(Problem.check(X, alphas=ALPHAS, **options), stored=stored, device=device))


@pytest.mark.parametrize(
    "device, form, stored, dtype, intercept, weighted",
    pairs(PLACES, list(FORMS), STORED, [np.float32, np.float64], [True, False], [False, True]),
)
def test_a_plan_of_a_device_is_the_plan_of_the_host(device, form, stored, dtype, intercept, weighted):
    n, p, cv = FORMS[form]
    X, Y = make(n, p, dtype=dtype)
    options = dict(cv=cv, fit_intercept=intercept, sample_weight=np.linspace(0.5, 2, n) if weighted else None)
    wanted, found = planned(X, HOST, stored, **options), planned(X, device, stored, **options)
    assert wanted._plan.maps == found._plan.maps and len(wanted._plan.whole) == len(found._plan.whole)
    assert found._plan.condition == pytest.approx(wanted._plan.condition, rel=1e-8)
    fits = [plan.fit(Y, progress=False) for plan in (wanted, found)]
    names = ("coef", "intercept", "alpha", "cv_scores", "best_score", "at_edge")
    assert_same(fits[0], {name: getattr(fits[1], name) for name in names}, dtype)


def uneven(n=120, p=60, seed=3):
    """Columns in units a factor of 1e9 apart, repeated columns, a constant one."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    X[:, 7] *= 1e9
    X[:, 8] = X[:, 9]
    X[:, 10] = 3.0
    return X, X @ rng.standard_normal((p, 5)) * 1e-3 + rng.standard_normal((n, 5))


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("shape", [(120, 60), (60, 120)])
@pytest.mark.parametrize("small", [1e-5, 1e-8])
def test_small_directions_are_decomposed_on_the_host(device, shape, small):
    X, _ = make(*shape)
    X[:, 3] = X[:, 4] + small * X[:, 3]
    Y = X @ np.random.default_rng(0).standard_normal((shape[1], 4))
    Y += 0.1 * np.random.default_rng(1).standard_normal(Y.shape)
    fits = [planned(X, here, cv=4).fit(Y, progress=False) for here in (HOST, device)]
    np.testing.assert_allclose(fits[1].coef, fits[0].coef, rtol=1e-8, atol=1e-8 * np.abs(fits[0].coef).max())
    np.testing.assert_allclose(fits[1].cv_scores, fits[0].cv_scores, atol=1e-9)


@pytest.mark.parametrize("device", PLACES)
def test_features_in_different_units(device):
    X, Y = uneven()
    fits = []
    for here in (HOST, device):
        plan = planned(X, here, cv=4)
        assert plan._plan.decomposed == "features"
        fits.append(plan.fit(Y, progress=False))
    np.testing.assert_allclose(fits[1].predict(X), fits[0].predict(X), atol=1e-8)
    np.testing.assert_allclose(fits[1].cv_scores, fits[0].cv_scores, atol=1e-8)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("width", [3, 60])
def test_delayed_features(device, width):
    X, _ = make(70, width)
    copies = fastencode.delay(X, [1, 2, 3], copy=False)
    Y = np.asarray(copies) @ np.random.default_rng(0).standard_normal((copies.shape[1], 4))
    fits = [planned(copies, here, cv=4).fit(Y, progress=False) for here in (HOST, device)]
    np.testing.assert_allclose(fits[1].coef, fits[0].coef, atol=1e-9)


@pytest.mark.parametrize(
    "device, shape, dtype, weighted, zero",
    pairs(PLACES, [(90, 40), (40, 90)], [np.float32, np.float64], [False, True], [False, True]),
)
def test_weightings_of_bands(device, shape, dtype, weighted, zero):
    """Every candidate's decomposition and operators."""
    n, p = shape
    X, _ = make(n, p, dtype=dtype)
    problem = Problem.check(X, alphas=ALPHAS, cv=4, sample_weight=np.linspace(0.5, 2, n) if weighted else None)
    grams = [make_grams(problem, join(X, [p // 4, p - p // 4]).bands, None, p > n, here) for here in (HOST, device)]
    gamma = np.array([0.0, 1.0]) if zero else np.array([0.3, 0.7])
    plans = []
    for own, here in zip(grams, (HOST, device), strict=True):
        basis = own.basis(gamma, here)
        plans.append(plan_folds(problem, basis, 1, beside=0, n_voxels=100, scoring="r2"))
        plans[-1] = (plans[-1], basis.V_pr)
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    (wanted, V), (found, other) = plans
    np.testing.assert_allclose(found.lam, wanted.lam, rtol=1e-8)
    # Vectors may differ in sign; products of a row with all directions do not.
    np.testing.assert_allclose(found.analyze @ found.analyze.T, wanted.analyze @ wanted.analyze.T, atol=tolerance)
    np.testing.assert_allclose(other @ other.T, V @ V.T, atol=tolerance)


class Full(Exception):
    """Named as a library names it."""


Full.__name__ = "OutOfMemoryError"


def test_the_host_takes_over_where_memory_of_the_device_runs_out():
    class Namespace:
        __name__ = "torch"

        def __getattr__(self, name):
            return getattr(torch, name)

        def matmul(self, *arrays):
            raise AssertionError("not here")

        @property
        def linalg(self):
            raise Full("not enough")

    X, Y = make(60, 30)
    fit = planned(X, Device("torch", "cpu", Namespace()), cv=4).fit(Y, progress=False)
    np.testing.assert_array_equal(fit.coef, planned(X, HOST, cv=4).fit(Y, progress=False).coef)


def test_other_errors_are_not_taken_for_that():
    def fail(device):
        if device is not HOST:
            raise InputError("wrong")

    with pytest.raises(InputError, match="wrong"):
        planned_on(PLACES[0], Problem.check(make(60, 30)[0]), fail)


def test_small_problems_are_planned_on_the_host(monkeypatch):
    monkeypatch.setattr(fold_plan, "_LEAST", 31)
    problem = Problem.check(make(60, 30)[0])
    assert planned_on(PLACES[0], problem, lambda device: device) is HOST
    monkeypatch.setattr(fold_plan, "_LEAST", 30)
    assert planned_on(PLACES[0], problem, lambda device: device) is PLACES[0]


@pytest.mark.parametrize("device", PLACES)
def test_a_dropped_decomposition_is_made_again_on_the_device(device):
    X, _ = make(90, 40)
    problem = Problem.check(X, alphas=ALPHAS, cv=4)
    grams = make_grams(problem, join(X, [10, 30]).bands, None, False)
    found = [Bases(grams, np.array([[0.5, 0.5]]), 0, here).get(0) for here in (HOST, device)]
    np.testing.assert_allclose(found[1].lam, found[0].lam, rtol=1e-10)
    np.testing.assert_allclose(np.abs(found[1].analyze_tr), np.abs(found[0].analyze_tr), atol=1e-9)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("n", [5, 70])
def test_inverses_of_blocks(device, n):
    blocks = make(3 * n, n)[0].reshape(3, n, n)
    with device.current():
        found = device.get(invert_blocks(device, device.put(blocks)))
    np.testing.assert_allclose(found, np.linalg.inv(blocks), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("device", [HOST, *PLACES])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_added_to_a_diagonal_are_there_whatever_the_order_in_memory(device, transposed):
    square = np.arange(16.0).reshape(4, 4)
    with device.current():
        given = device.put(square.copy())
        found = device.get(device.add_to_diagonal(given.T if transposed else given, device.put(np.array([1.0, 2.0, 3.0, 4.0]))))
    np.testing.assert_array_equal(found, (square.T if transposed else square) + np.diag([1.0, 2.0, 3.0, 4.0]))
