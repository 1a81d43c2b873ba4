"""Ridge on delayed copies that are not made: what it finds is what it finds on the copies, and it holds less."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

import fastencode
import reference
import reference_timing
from device_cases import assert_same, on_device
from fastencode.delayed import Delayed
from fastencode.devices import HOST
from fastencode.errors import InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.centered import column_means, kernel_of
from fastencode.solve.plan.cost import choose
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import RidgePlan, fit_plan
from fastencode.solve.weights import features as features_module
from fastencode.threads import limit_threads

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

DELAYS = (1, 2, -1, 4, 0)
ARRAYS = ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge")


def make(n, width, v=3, dtype=np.float64, seed=0, delays=DELAYS, runs=None, mean=3.0):
    """(features, their copies by the naive loop, the copies not made, responses, runs)."""
    rng = np.random.default_rng([n, width, v, seed])
    runs = np.repeat(np.arange(-(-n // 12)), 12)[:n] if runs is None else runs
    features = (rng.standard_normal((n, width)) + mean).astype(dtype)
    copies = reference_timing.delay(features, delays, runs).astype(dtype)
    Y = copies @ rng.standard_normal((copies.shape[1], v)) / np.sqrt(copies.shape[1]) + rng.standard_normal((n, v)) + 5.0
    return features, copies, fastencode.delay(features, delays, runs, copy=False), Y.astype(dtype), runs


def dual(X, Y, *, scoring="r2", per_target=True, **options):
    defaults = {"alphas": [1.0, 30.0], "cv": 4, "runs": None, "fit_intercept": True, "precision": "exact", "device": None}
    problem = Problem.check(X, **{**defaults, "memory": None, **options}, response_dtype=Y.dtype)
    return fit_plan(make_plan(problem, "dual"), Y, scoring=scoring, per_target=per_target)


def assert_equal(found, wanted, dtype=np.float64, names=ARRAYS):
    tolerance = 2e-4 if dtype == np.float32 else 1e-10
    for name in names:
        a, b = np.asarray(getattr(found, name)), np.asarray(getattr(wanted, name))
        assert a.shape == b.shape and a.dtype == b.dtype, name
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1e-3 + np.abs(b).max()), err_msg=name)


def blocks(n, k):
    return [(np.setdiff1d(np.arange(n), test), test) for test in np.array_split(np.arange(n), k)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(3, 11), min_size=1, max_size=4),
    delays=st.lists(st.integers(-3, 3), min_size=1, max_size=4, unique=True),
    width=st.integers(1, 4),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    data=st.data(),
)
def test_rows_columns_and_products_are_those_of_the_copies(lengths, delays, width, dtype, data):
    runs = np.repeat(np.arange(len(lengths))[::-1], lengths)
    features = np.random.default_rng(1).integers(-99, 99, (len(runs), width)).astype(dtype)
    X, copies = fastencode.delay(features, delays, runs, copy=False), reference_timing.delay(features, delays, runs)
    n, p = copies.shape
    assert X.shape == copies.shape and len(X) == n and X.ndim == 2 and X.dtype == np.asarray(X).dtype
    assert X.dtype == (np.float32 if dtype == np.float32 else np.float64)
    np.testing.assert_array_equal(np.asarray(X), copies)
    start, stop = sorted((data.draw(st.integers(0, p)), data.draw(st.integers(0, p))))
    row, rows = data.draw(st.integers(0, n - 1)), np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=5)), dtype=int)
    for key in (row, rows, slice(row, None), (slice(None), slice(start, stop)), (rows, slice(start, stop))):
        np.testing.assert_array_equal(X[key], copies[key])
    np.testing.assert_array_equal(np.asarray(X.take(rows)), copies[rows])
    right = np.random.default_rng(2).integers(-9, 9, (p, 3)).astype(X.dtype)
    np.testing.assert_array_equal(X @ right, copies @ right)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(12, 40),
    width=st.integers(2, 50),
    delays=st.lists(st.integers(-4, 4), min_size=1, max_size=5, unique=True),
    dtype=st.sampled_from([np.float32, np.float64]),
    intercept=st.booleans(),
    scoring=st.sampled_from(["r2", "pearson", "neg_mean_squared_error"]),
    split=st.sampled_from([2, 5, "runs", "splitter", "list", "one by one"]),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equal_to_naive_refitting_and_to_the_copies(n, width, delays, dtype, intercept, scoring, split, weighted, seed):
    rng = np.random.default_rng(seed)
    runs = np.repeat([0, 1, 2], [4, 4, n - 8])
    _, copies, X, Y, _ = make(n, width, 3, dtype, seed, delays, runs)
    w = rng.uniform(0.2, 3.0, n) if weighted else np.ones(n)
    w[rng.permutation(n)[: n // 5 if weighted else 0]] = 0.0
    if split == "one by one":
        split, scoring = n, "neg_mean_squared_error"
    kept = np.flatnonzero(w)
    cv: object = split
    if split == "splitter":
        cv, folds = KFold(3), [(train, test) for train, test in KFold(3).split(copies)]
    elif split == "list":
        cv = folds = [(np.arange(0, n, 2), np.arange(1, n, 4)), (np.arange(6, n), np.arange(6))]
    elif split == "runs":
        folds = fastencode.leave_one_run_out(runs)
    else:
        cv = split if split != n else len(kept)
        folds = [(kept[train], kept[test]) for train, test in blocks(len(kept), cv)]
    folds = [(np.intersect1d(train, kept), np.intersect1d(test, kept)) for train, test in folds]
    if min(len(rows) for fold in folds for rows in fold) < (2 if scoring != "neg_mean_squared_error" else 1):
        return  # nothing to score by
    alphas = [30.0] if dtype == np.float32 else [1.0, 30.0]  # float32 may choose otherwise between two as good
    options = {"alphas": alphas, "cv": cv, "runs": runs if split == "runs" else None, "fit_intercept": intercept}
    options["sample_weight"] = w if weighted else None
    found, wanted = (dual(design, Y, scoring=scoring, **options) for design in (X, copies))
    assert_equal(found, wanted, dtype)
    scores = reference.weighted_cv_scores(copies, Y, alphas, folds, scoring, intercept, w)
    tolerance = (2e-4 if dtype == np.float32 else 1e-10) * (1 + np.abs(scores).max())
    np.testing.assert_allclose(found.cv_scores, scores, atol=tolerance, rtol=0)
    for v in range(3):
        coef, constant = reference.weighted_weights(copies, Y[:, v], found.alpha[v], intercept, w)
        precise = (2e-4 if dtype == np.float32 else 1e-10) * (np.abs(coef).max() + np.abs(constant))
        np.testing.assert_allclose(found.coef[:, v], coef, atol=precise, rtol=0)
        np.testing.assert_allclose(found.intercept[v], constant, atol=10 * precise, rtol=0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mean", [0.0, 1e4, 1e8])
@pytest.mark.parametrize("delays", [(1, 2, 3, 4), (-1, 0, 1), (0,), (0, 12), (12,)])
def test_the_kernel_is_as_exact_as_that_of_the_copies_whatever_the_mean(delays, mean, weighted):
    _, copies, X, _, _ = make(48, 30, delays=delays, mean=mean)
    w = np.random.default_rng(0).uniform(0.1, 2, 48) if weighted else np.ones(48)
    exact = copies.astype(np.longdouble)
    exact = (exact - w.astype(np.longdouble) @ exact / w.sum(dtype=np.longdouble)) * np.sqrt(w.astype(np.longdouble))[:, None]
    exact = exact @ exact.T
    off = [np.abs(kernel_of(design, column_means(design, w), np.sqrt(w)) - exact).max() for design in (X, copies)]
    assert off[0] <= 8 * off[1] + 1e-15 * np.abs(exact).max()


@pytest.mark.parametrize("shape", [(40, 60), (40, 15)])  # more columns than rows already, and only with their copies
def test_the_dual_never_makes_the_copies(monkeypatch, shape, tmp_path):
    _, copies, X, Y, runs = make(*shape)
    alphas = np.logspace(-1, 4, 9)
    wanted = fastencode.ridge_cv(copies, Y, alphas=alphas, cv="runs", runs=runs)
    monkeypatch.setattr(Delayed, "__array__", None)
    found = fastencode.ridge_cv(X, Y, alphas=alphas, cv="runs", runs=runs)
    assert found.stats["strategy"] == wanted.stats["strategy"] == "dual"
    assert_equal(found, wanted)
    np.testing.assert_allclose(found.predict(X), wanted.predict(copies), rtol=1e-10)
    np.testing.assert_allclose(found.score(X, Y), wanted.score(copies, Y), rtol=1e-10)
    np.testing.assert_allclose(found.predict(X.take(np.arange(5))), wanted.predict(copies[:5]), rtol=1e-10)
    found.save(tmp_path / "fit.h5")
    assert np.array_equal(fastencode.RidgeFit.load(tmp_path / "fit.h5").predict(X), found.predict(X))
    plan = fastencode.plan_ridge(X, alphas=alphas, cv=5)
    one, shared = plan.fit(Y[:, 0]), plan.fit(Y, per_target=False)
    assert_equal(one, fastencode.ridge_cv(copies, Y[:, 0], alphas=alphas))
    assert_equal(shared, fastencode.ridge_cv(copies, Y, alphas=alphas, per_target=False))
    assert one.predict(X).shape == (40,) and np.ndim(one.score(X, Y[:, 0])) == 0
    arrays = on_device(HOST, plan, Y)[0]
    assert_same(fastencode.ridge_cv(copies, Y, alphas=alphas), arrays, np.float64)


def test_the_primal_makes_no_copies_either(monkeypatch):
    _, copies, X, Y, runs = make(96, 4)
    wanted = fastencode.ridge_cv(copies, Y, cv="runs", runs=runs)
    bands = fastencode.banded_ridge_cv(copies, Y, bands={"all": 20})
    monkeypatch.setattr(Delayed, "__array__", None)
    plan = fastencode.plan_ridge(X, cv="runs", runs=runs)
    assert plan.strategy == "primal" and isinstance(plan._plan.problem.X, Delayed)
    assert_equal(plan.fit(Y), wanted)
    assert_equal(fastencode.ridge_cv(X, Y, cv="runs", runs=runs), wanted)
    assert_equal(fastencode.banded_ridge_cv(X, Y, bands={"all": 20}), bands, names=("coef", "intercept", "alpha", "best_score"))


def test_what_no_row_is_a_copy_of_may_hold_anything():
    features, copies, _, Y, runs = make(36, 20, delays=(1, 2))
    w = np.ones(36)
    w[[5, 6]] = 0.0
    features[11], features[4] = np.nan, np.inf  # the end of a run, and what only rows of weight zero are copies of
    X = fastencode.delay(features, (1, 2), runs, copy=False)
    assert_equal(dual(X, Y, sample_weight=w), dual(copies, Y, sample_weight=w))
    with pytest.raises(InputError, match=r"20 values .* the first \(inf\) at row 4, column 0"):
        fastencode.ridge_cv(X, Y)
    features[4] = 1e308
    assert_equal(dual(X, Y, sample_weight=w), dual(copies, Y, sample_weight=w))


def test_planning_holds_less_by_the_copies_and_says_so():
    features, copies, X, _, _ = make(120, 8000, dtype=np.float32, delays=(1, 2, 3, 4))
    assert X.nbytes < copies.nbytes / 3.9 and np.shares_memory(X.parts[0].base_sw, features)

    def peak(copy):
        tracemalloc.start()
        plan = fastencode.plan_ridge(fastencode.delay(features, copy=copy), cv=3)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return plan, most

    peak(True)  # imports
    (virtual, less), (whole, more) = peak(False), peak(True)
    assert more - less > 0.8 * copies.nbytes
    assert virtual.strategy == whole.strategy == "dual" and virtual.nbytes == whole.nbytes
    assert f"beside X, {X.nbytes / 1e6:.1f} MB" in str(virtual) and f"beside X, {copies.nbytes / 1e6:.1f} MB" in str(whole)
    (primal, with_kernel), (primal_whole, with_copies) = virtual.candidates, whole.candidates
    assert primal.bytes == primal_whole.bytes and with_kernel.bytes == with_copies.bytes
    assert with_kernel.gram == with_copies.gram / 4 and primal.gram == primal_whole.gram


@pytest.mark.parametrize("virtual", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_target", [False, True])
def test_weights_of_one_fit_are_made_without_a_map_as_large_as_the_copies(monkeypatch, per_target, weighted, dtype, virtual):
    _, copies, X, Y, _ = make(48, 40, v=70, dtype=dtype)
    design, n, p = (X if virtual else copies), 48, copies.shape[1]
    w = np.random.default_rng(5).uniform(0.5, 2, n) if weighted else None
    options = {"alphas": [1.0, 30.0], "sample_weight": w}
    how = {"scoring": "pearson", "per_target": per_target}
    monkeypatch.setattr(features_module, "_NARROWEST", 11)  # blocks above, across and below the last row of what waits
    found = fastencode.ridge_cv(design, Y, **options, **how)
    plan = RidgePlan(make_plan(Problem.check(design, **options), n_voxels=70, scoring="pearson"))
    once = plan.fit(Y, **how)
    assert plan._plan.deferred and "_V_pr" not in vars(plan._plan)
    kept = fastencode.plan_ridge(design, **options)
    many = kept.fit(Y, **how)
    assert not kept._plan.deferred and vars(kept._plan)["_V_pr"].shape == (p, len(plan._plan.lam))
    assert_equal(found, many, dtype)
    for v in (0, 69):
        coef, constant = reference.weighted_weights(copies, Y[:, v], found.alpha[v], True, np.ones(n) if w is None else w)
        tolerance = 2e-4 if dtype == np.float32 else 1e-10
        np.testing.assert_allclose(found.coef[:, v], coef, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.intercept[v], constant, rtol=0, atol=20 * tolerance)
    assert_same(found, on_device(HOST, plan, Y, how["scoring"], per_target)[0], dtype, 20.0)  # a device takes the map
    # Neither memory nor threads show in the result.
    with limit_threads(1):
        slow = fastencode.ridge_cv(design, Y, **options, **how)
    tight = fastencode.ridge_cv(design, Y, memory=plan.nbytes + 10**6, **options, **how)
    for other in (once, slow, tight):
        assert np.array_equal(other.coef, found.coef) and np.array_equal(other.intercept, found.intercept)
    Y[3, 5] = np.nan
    skipped = fastencode.ridge_cv(design, Y, nan_targets="skip", **options, **how)
    assert np.isnan(skipped.coef[:, 5]).all() and np.isnan(skipped.intercept[5]) and not np.isnan(skipped.coef[:, 6]).any()


def test_memory_that_does_not_hold_that_map_is_enough_for_one_fit():
    _, copies, X, Y, _ = make(60, 3000, v=4)
    wanted = fastencode.ridge_cv(copies, Y)
    assert wanted.stats["bytes"]["plan"] < copies.nbytes / 3
    assert_equal(fastencode.ridge_cv(X, Y, memory=copies.nbytes // 3), wanted)
    with pytest.raises(InputError, match="is too small"):
        fastencode.plan_ridge(X, memory=copies.nbytes // 3)  # which keeps it
    problem = Problem.check(X)
    once, many = (choose(problem, 1, n_voxels, "dual")[0] for n_voxels in (4, None))
    assert many.kept - once.kept == 60 * (copies.shape[1] - 2 * 60) * 8 and once.operators == many.operators


def test_what_it_is_not_for_is_named():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    features, _, X, Y, _ = make(24, 30)
    with pytest.raises(InputError, match="copy=False with a torch tensor: only NumPy arrays .* X.numpy"):
        fastencode.delay(torch.from_numpy(features), copy=False)
    fit = fastencode.ridge_cv(X, Y)
    with pytest.raises(InputError, match="X has 60 features and the fit has 150"):
        fit.predict(fastencode.delay(features, (1, 2), copy=False))
    with pytest.raises(ValueError, match="share no memory"):
        np.array(X, copy=False)
    assert repr(X) == "<Delayed 24 x 150 float64, 5 copies of 30 columns>"
