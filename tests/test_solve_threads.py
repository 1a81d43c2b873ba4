"""What memory, threads and fits at the same time do to results: nothing on a given plan, rounding where plans are made anew.

Matrices here are large enough for OpenBLAS to use several threads, and so to add up in another order than with one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastencode
from fastencode.threads import available_threads, limit_threads

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

SHAPES = [(200, 300), (400, 150)]  # dual, primal
VOXELS = 700  # tiles of several widths' worth, and a last one that is padded
OPTIONS = {"alphas": np.logspace(-1, 4, 6), "cv": 4}
VALUES = ("coef", "intercept", "cv_scores", "alpha")
# How far two plans of the same problem may be from each other, relative to the largest value: rounding, of sums in another order.
ROUNDING = {np.float32: 1e-5, np.float64: 1e-12}


def make(n, p, dtype, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    Y = X @ rng.standard_normal((p, VOXELS)) / np.sqrt(p) + rng.standard_normal((n, VOXELS)) + rng.standard_normal(VOXELS) * 5
    return (X + 3).astype(dtype), Y.astype(dtype)


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads for the solver and for BLAS, on a processor with one core too."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    with threadpool_limits(2):
        assert available_threads() == 2
        yield


def assert_same_bits(one, other):
    for name in VALUES:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def assert_same_choices_and_rounding(one, other, dtype):
    assert np.array_equal(one.alpha, other.alpha)
    for name in ("coef", "intercept", "cv_scores"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING[dtype] * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, p", SHAPES)
@pytest.mark.parametrize("per_target", [True, False])
def test_on_one_plan_threads_do_not_change_a_bit(two_threads, n, p, dtype, per_target):
    X, Y = make(n, p, dtype)
    plan = fastencode.plan_ridge(X, **OPTIONS)
    together = plan.fit(Y, per_target=per_target)
    with limit_threads(1):
        alone = plan.fit(Y, per_target=per_target)
    assert together.stats["threads"] == 2 and alone.stats["threads"] == 1
    assert_same_bits(together, alone)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, p", SHAPES)
def test_on_one_plan_memory_does_not_change_a_bit(two_threads, n, p, dtype):
    X, Y = make(n, p, dtype)
    with limit_threads(1):  # the same arithmetic makes the same plan
        plans = [fastencode.plan_ridge(X, **OPTIONS)]
        least = plans[0].nbytes + plans[0].fit(Y).stats["bytes"]["tiles"]
        plans += [fastencode.plan_ridge(X, **OPTIONS, memory=size) for size in ("1GB", 2 * least, least + least // 50)]
    whole, *others = [plan.fit(Y) for plan in plans]
    assert whole.stats["threads"] == 2 and others[-1].stats["threads"] == 1
    for other in others:
        assert_same_bits(whole, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, p", SHAPES)
def test_on_one_plan_neighbors_do_not_change_a_bit(two_threads, n, p, dtype):
    X, Y = make(n, p, dtype)
    plan, others = fastencode.plan_ridge(X, **OPTIONS), Y.copy()
    others[:, 1::2] = np.random.default_rng(9).standard_normal((n, VOXELS // 2)) * 1e3
    whole, changed = plan.fit(Y), plan.fit(others)
    for name in VALUES:
        assert np.array_equal(getattr(whole, name)[..., ::2], getattr(changed, name)[..., ::2]), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, p", SHAPES)
def test_plans_made_with_other_threads_differ_by_rounding(two_threads, n, p, dtype):
    X, Y = make(n, p, dtype)
    together = fastencode.plan_ridge(X, **OPTIONS).fit(Y)
    with limit_threads(1):
        alone = fastencode.plan_ridge(X, **OPTIONS)
    assert_same_choices_and_rounding(together, alone.fit(Y), dtype)


@pytest.mark.parametrize("dtype, fits", [(np.float32, 4), (np.float64, 2)])
def test_fits_at_the_same_time_differ_by_rounding(two_threads, dtype, fits):
    """BLAS's number of threads is one for the whole process: a fit that begins or ends changes what others have."""
    problems = [make(*SHAPES[seed % 2], dtype, seed) for seed in range(fits)]
    options = {**OPTIONS, "cv": 2}
    alone = [fastencode.ridge_cv(X, Y, **options) for X, Y in problems]
    start = Barrier(fits)

    def fit(problem):
        start.wait()
        return fastencode.ridge_cv(*problem, **options)

    with ThreadPoolExecutor(fits) as pool:
        at_once = list(pool.map(fit, problems))
    for one, other in zip(alone, at_once, strict=True):
        assert_same_choices_and_rounding(one, other, dtype)
    assert available_threads() == 2


def test_banded_fits_at_the_same_time_differ_by_rounding(two_threads):
    X, Y = make(*SHAPES[0], np.float64)
    bands = {"low": X[:, :100], "high": X[:, 100:]}

    def fit(seed):
        return fastencode.banded_ridge_cv(bands, Y[:, :60], **{**OPTIONS, "cv": 2}, n_iter=3, random_state=seed)

    alone = [fit(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(fit, range(2)))
    for one, other in zip(alone, at_once, strict=True):
        assert np.array_equal(one.alpha, other.alpha) and np.array_equal(one.gammas, other.gammas)
        for name in ("coef", "cv_scores"):
            a = getattr(one, name)
            np.testing.assert_allclose(a, getattr(other, name), rtol=0, atol=1e-12 * np.abs(a).max(), err_msg=name)
