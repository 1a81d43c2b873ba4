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
from fastencode.timing.clean import detrend_cosine, detrend_polynomial, detrend_savgol, zscore
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
    cosine, savgol = detrend_cosine(X, 2.0, 20.0, runs), detrend_savgol(X, 2.0, 18.0, 1, runs)
    for clean in (zscore(X, runs), detrend_polynomial(X, 1, runs), cosine, savgol):
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


def test_cosines_equal_least_squares_and_nilearn_in_each_run():
    clean = pytest.importorskip("nilearn.signal", reason="nilearn is not installed").clean
    rng, runs = np.random.default_rng(0), np.repeat([0, 1, 2], [100, 77, 9])
    X = rng.standard_normal((186, 4)) + np.linspace(0, 5, 186)[:, None] + 100
    ours = detrend_cosine(X, 1.5, 40.0, runs)
    for first, last, waves in ((0, 100, 7), (100, 177, 5), (177, 186, 0)):
        n = last - first
        basis = np.cos(np.pi * (np.arange(n)[:, None] + 0.5) * np.arange(waves + 1) / n)
        by_hand = X[first:last] - basis @ np.linalg.lstsq(basis, X[first:last], rcond=None)[0]
        np.testing.assert_allclose(ours[first:last], by_hand, atol=1e-11)
        if waves:
            theirs = clean(X[first:last], detrend=False, standardize=None, filter="cosine", high_pass=1 / 40, t_r=1.5)
            np.testing.assert_allclose(ours[first:last], theirs - theirs.mean(axis=0), atol=1e-9)
    slow = np.cos(np.pi * (np.arange(100) + 0.5) * 3 / 100)
    fast = np.cos(np.pi * (np.arange(100) + 0.5) * 30 / 100)
    np.testing.assert_allclose(detrend_cosine(slow + fast, 1.5, 40.0), fast, atol=1e-12)


@pytest.mark.parametrize(("tr", "window", "length"), [(2.0, 30.0, 15), (2.0, 28.0, 13), (1.5, 20.0, 13), (0.75, 20.0, 27)])
def test_savgol_is_scipys_in_each_run(tr, window, length):
    from scipy.signal import savgol_filter

    rng, runs = np.random.default_rng(0), np.repeat(["a", "b"], [60, 33])
    X = rng.standard_normal((93, 3)).astype(np.float32) + 50
    ours = detrend_savgol(X, tr, window, runs=runs)
    assert ours.dtype == np.float32
    for rows in (slice(0, 60), slice(60, 93)):
        expected = X[rows] - savgol_filter(X[rows].astype(np.float64), length, 2, axis=0)
        np.testing.assert_allclose(ours[rows], expected, atol=1e-6)
    trend = np.linspace(0, 9, 93) ** 2
    np.testing.assert_allclose(detrend_savgol(trend, tr, window), 0.0, atol=1e-11)


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
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match=f"tr={bad}: give a positive"):
            detrend_cosine(np.ones(9), bad)
        with pytest.raises(InputError, match=f"window={bad}: give a positive"):
            detrend_savgol(np.ones(9), 2.0, bad)
    with pytest.raises(InputError, match="period=4.0 s at tr=2.0 s: nothing would be left"):
        detrend_cosine(np.ones(9), 2.0, 4.0)
    with pytest.raises(InputError, match="order=5: .* below the 5 rows"):
        detrend_savgol(np.ones(9), 2.0, 10.0, 5)
    with pytest.raises(InputError, match="rows 5 to 8 has 4 rows, a window of 10.0 s at tr=2.0 s needs 5"):
        detrend_savgol(np.ones(9), 2.0, 10.0, runs=[0] * 5 + [1] * 4)
