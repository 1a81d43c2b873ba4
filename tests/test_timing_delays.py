"""Delays, z-scores and detrending: per run, against naive loops and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import fastencode
import reference_timing as reference
from fastencode.errors import InputError
from fastencode.timing.clean import detrend_polynomial, zscore
from fastencode.timing.times import run_slices


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 11), min_size=1, max_size=4),
    delays=st.lists(st.integers(-3, 3), min_size=1, max_size=4, unique=True),
    columns=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    fortran=st.booleans(),
)
def test_delay_equals_a_naive_loop(lengths, delays, columns, dtype, fortran):
    runs = np.repeat(np.arange(len(lengths))[::-1], lengths)
    X = np.asarray(np.random.default_rng(1).integers(-99, 99, (len(runs), columns)), dtype=dtype, order="F" if fortran else "C")
    before = X.copy()
    ours = fastencode.delay(X, delays, runs)
    np.testing.assert_array_equal(ours, reference.delay(X, delays, runs))
    assert ours.dtype == (np.float32 if dtype == np.float32 else np.float64)
    np.testing.assert_array_equal(X, before)


def test_delay_by_hand():
    X = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    np.testing.assert_array_equal(fastencode.delay(X, (1,), ["a", "a", "b", "b"]), [[0, 0], [1, 10], [0, 0], [3, 30]])
    np.testing.assert_array_equal(fastencode.delay(X[:, 0], (0, -1)), [[1, 2], [2, 3], [3, 4], [4, 0]])
    assert fastencode.delay(X).shape == (4, 8)
    assert fastencode.delay(X[:1], (0,)).tolist() == [[1.0, 10.0]]
    assert fastencode.delay(np.empty((0, 3)), (1, 2)).shape == (0, 6)
    assert np.isnan(fastencode.delay([1.0, np.nan, 3.0], (1,))).sum() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((5, 1)), (1, 6)), "5 rows, fewer than the delay 6"),
        ((np.ones((5, 1)), (-3,), [0, 0, 0, 1, 1]), "rows 3 to 4 has 2 rows, fewer than the delay -3"),
        ((np.ones((5, 1)), ()), "at least one whole number"),
        ((np.ones((5, 1)), 2), "at least one whole number"),
        ((np.ones((5, 1)), (1.5,)), "at least one whole number"),
        ((np.ones((5, 1)), (1, 1)), "repeated"),
        ((np.ones((5, 1, 1)), (1,)), r"shape \(5, 1, 1\)"),
        ((np.ones((5, 1)), (1,), [0, 0, 1, 1]), r"runs has shape \(4,\) for 5 rows"),
        ((np.ones((5, 1)), (1,), [0, 0, 1, 1, 0]), "begins again at row 4"),
        ((np.ones((5, 1)), (0,), [0, 0, np.nan, np.nan, 1]), "NaN at row 2"),
        ((np.ones((5, 1), object), (1,)), "dtype object"),
    ],
)
def test_delay_names_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        fastencode.delay(*arguments)


def test_run_slices():
    assert run_slices(["x", "x", "a", "b", "b"], 5) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert run_slices(None, 3) == [slice(0, 3)]
    assert run_slices(None, 0) == run_slices([], 0) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zscore_equals_scipy_in_each_run(dtype):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((30, 7)) * 10.0 ** np.arange(-3, 4) + 5).astype(dtype)
    runs = np.repeat([2, 1], [13, 17])
    ours = zscore(X, runs)
    assert ours.dtype == dtype
    for rows in (slice(0, 13), slice(13, 30)):
        expected = scipy.stats.zscore(X[rows].astype(np.float64), axis=0)
        np.testing.assert_allclose(ours[rows], expected, rtol=0, atol=2e-6 if dtype == np.float32 else 1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 + 0.1, -3e-30])
def test_constant_columns_become_zero_not_noise(dtype, value):
    X = np.full((37, 2), value, dtype)
    X[:20, 1] = np.arange(20)
    runs = np.repeat([0, 1], [20, 17])
    for clean in (zscore(X, runs), detrend_polynomial(X, 1, runs)):
        assert (clean[:, 0] == 0).all() and (clean[20:, 1] == 0).all()
        assert np.isfinite(clean).all()
    assert (zscore(detrend_polynomial(X, 3, runs), runs)[:, 0] == 0).all()


def test_huge_means_leave_the_signal_standing():
    signal = np.random.default_rng(0).standard_normal(101)
    np.testing.assert_allclose(zscore(signal + 1e9), scipy.stats.zscore(signal), atol=1e-6)
    np.testing.assert_allclose(detrend_polynomial(signal + 1e9, 3), detrend_polynomial(signal, 3), atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 3, 6])
def test_detrending_equals_polyfit_in_each_run(order):
    rng = np.random.default_rng(order)
    X = rng.standard_normal((47, 5)) + np.linspace(0, 3, 47)[:, None] ** 2
    runs = np.repeat(["a", "b"], [20, 27])
    ours = detrend_polynomial(X, order, runs)
    for rows in (slice(0, 20), slice(20, 47)):
        t = np.linspace(-1, 1, rows.stop - rows.start)
        expected = X[rows] - np.stack([np.polyval(np.polyfit(t, column, order), t) for column in X[rows].T], axis=1)
        np.testing.assert_allclose(ours[rows], expected, atol=1e-11)
    assert (detrend_polynomial(np.linspace(5, 6, 30) ** max(order, 1) * (order > 0), max(order, 1)) == 0).all()


def test_blocks_of_columns_maps_and_empty_shapes(tmp_path, monkeypatch):
    from fastencode.timing import clean

    X = np.random.default_rng(2).standard_normal((11, 13)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = zscore(X), detrend_polynomial(X)
    monkeypatch.setattr(clean, "VALUES_PER_BLOCK", 40)
    np.testing.assert_allclose(zscore(mapped), whole[0], atol=1e-6)
    np.testing.assert_allclose(detrend_polynomial(mapped), whole[1], atol=1e-6)
    assert zscore(np.empty((0, 3))).shape == (0, 3)
    assert zscore(np.empty((3, 0))).shape == (3, 0)
    assert zscore([[5.0]]).tolist() == [[0.0]]
    assert zscore(np.arange(4)).dtype == np.float64


def test_cleaning_names_bad_input():
    X = np.ones((6, 2))
    X[4, 1] = np.nan
    for clean in (zscore, detrend_polynomial):
        with pytest.raises(InputError, match=r"X\[4, 1\] is nan \(1 such"):
            clean(X)
        with pytest.raises(InputError, match=r"shape \(2, 2, 2\)"):
            clean(np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="4 rows, a polynomial of order 3 needs 5"):
        detrend_polynomial(np.ones((9, 1)), 3, [0] * 5 + [1] * 4)
    with pytest.raises(InputError, match="order=-1"):
        detrend_polynomial(np.ones((9, 1)), -1)
