"""Lanczos resampling against the dense form, a published output, and hand-made edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastencode
import reference_timing as reference
from fastencode.errors import InputError
from fastencode.kernels.lanczos import CACHE

STRIP = CACHE // 8  # of float32

TIMES = st.floats(-30, 60, allow_subnormal=False)


def test_equals_a_published_output_on_real_words(shared_data):
    case = np.load(shared_data / "lanczos" / "black_words.npz")
    ours = fastencode.lanczos(case["data"], case["old_times"], case["new_times"])
    np.testing.assert_allclose(ours, case["out"], rtol=0, atol=1e-10)
    assert np.linalg.norm(ours) == pytest.approx(43.34561082, abs=1e-8)
    assert ours.sum() == pytest.approx(-476.25330229, abs=1e-8)
    perturbed = case["data"].copy()
    perturbed[700, 3] += 1e-6
    assert np.abs(fastencode.lanczos(perturbed, case["old_times"], case["new_times"]) - case["out"]).max() > 1e-8


@settings(max_examples=60, deadline=None)
@given(
    old=arrays(np.float64, st.integers(0, 23), elements=TIMES),
    new=arrays(np.float64, st.integers(2, 13), elements=TIMES, unique=True),
    columns=st.integers(1, 5),
    lobes=st.sampled_from([1.0, 2.5, 3.0, 5.0]),
    mult=st.sampled_from([0.3, 1.0, 2.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_equals_the_dense_form(old, new, columns, lobes, mult, dtype, seed):
    new = np.sort(new)
    new[-1] += 1.0  # a positive mean step
    data = np.random.default_rng(seed).standard_normal((len(old), columns)).astype(dtype)
    expected, weights = reference.lanczos(data, old, new, lobes, mult)
    ours = fastencode.lanczos(data, old, new, lobes=lobes, cutoff_mult=mult)
    assert ours.dtype == dtype and ours.shape == expected.shape
    # x = lag * cutoff reaches a few hundred at most, and sin(pi x) loses as many digits.
    tolerance = 1e-6 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * (1 + np.abs(weights).sum()))


def test_dimensions_and_rectify():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((31, 3, 7))
    old, new = np.sort(rng.uniform(0, 20, 31)), np.arange(0.5, 20, 1.5)
    expected, _ = reference.lanczos(data, old, new)
    np.testing.assert_allclose(fastencode.lanczos(data, old, new), expected, atol=1e-12)
    np.testing.assert_allclose(fastencode.lanczos(data[:, 0, 0], old, new), expected[:, 0, 0], atol=1e-12)
    np.testing.assert_allclose(fastencode.lanczos(data[:, 0], old, new, normalize=True).shape, expected[:, 0].shape)
    parts = fastencode.lanczos(data, old, new, rectify=True)
    assert parts.shape == (13, 3, 14)
    np.testing.assert_allclose(parts[..., :7], reference.lanczos(np.minimum(data, 0), old, new)[0], atol=1e-12)
    np.testing.assert_allclose(parts[..., 7:], reference.lanczos(np.maximum(data, 0), old, new)[0], atol=1e-12)
    flat = fastencode.lanczos(data[:, 1, 2], old, new, rectify=True)
    np.testing.assert_allclose(flat, parts[:, 1, [2, 9]], atol=1e-12)


@pytest.mark.parametrize("n_columns", [1, STRIP - 1, STRIP, STRIP + 1, 3 * STRIP + 5])
def test_one_past_a_strip_of_columns(n_columns):
    data = np.random.default_rng(1).standard_normal((5, n_columns)).astype(np.float32)
    expected, _ = reference.lanczos(data, np.arange(5) * 0.7, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(fastencode.lanczos(data, np.arange(5) * 0.7, [0.0, 1.0, 2.0]), expected, atol=1e-6)


def test_normalize_keeps_a_constant_and_gives_zero_where_no_sample_reaches():
    old, new = np.arange(0, 20, 0.02), np.arange(0.0, 60, 2)
    ours = fastencode.lanczos(np.full(len(old), 7.0), old, new, normalize=True)
    np.testing.assert_allclose(ours[:10], 7.0, rtol=1e-12)
    assert (ours[new > 20 + 6] == 0).all()
    # On either side of the kernel's zero two samples cancel: dividing by what is left of their weights would give 1e7.
    np.testing.assert_allclose(fastencode.lanczos([1.0, -1.0], [1 - 1e-7, 1 + 1e-7], [0.0, 1.0], normalize=True), 0.0, atol=1e-6)


def test_order_of_old_times_does_not_matter_and_inputs_stay_as_they_were(tmp_path):
    rng = np.random.default_rng(3)
    old, new = rng.uniform(0, 30, 101), np.arange(1.0, 30, 2)
    stored = np.memmap(tmp_path / "data", dtype=">f8", mode="w+", shape=(101, 3))
    stored[:] = rng.standard_normal((101, 3))
    stored.flush()
    data = np.memmap(tmp_path / "data", dtype=">f8", mode="r", shape=(101, 3))
    expected, _ = reference.lanczos(data, old, new)
    order = np.argsort(old)
    np.testing.assert_allclose(fastencode.lanczos(data, old, new), expected, atol=1e-12)
    np.testing.assert_allclose(fastencode.lanczos(data[order], old[order], new), expected, atol=1e-12)
    np.testing.assert_allclose(fastencode.lanczos(np.asfortranarray(data), old, new), expected, atol=1e-12)
    np.testing.assert_allclose(fastencode.lanczos(np.repeat(data, 2, axis=1)[:, ::2], old, new), expected, atol=1e-12)


def test_integers_huge_means_and_no_rows():
    old, new = np.arange(10.0), np.arange(0.0, 10, 2)
    counts = np.arange(10)
    assert fastencode.lanczos(counts, old, new).dtype == np.float64
    huge = 1e8 + np.random.default_rng(0).standard_normal(10)
    np.testing.assert_allclose(fastencode.lanczos(huge, old, new), reference.lanczos(huge, old, new)[0], rtol=1e-14)
    assert (fastencode.lanczos(np.empty((0, 4), np.float32), [], new) == np.zeros((5, 4), np.float32)).all()
    assert fastencode.lanczos(np.ones((10, 4)), old, []).shape == (0, 4)
    assert fastencode.lanczos(np.ones((10, 0)), old, new).shape == (5, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.ones((9, 2))}, r"\(9, 2\) for 10 old_times"),
        ({"old_times": [0.0, np.nan] * 5}, r"old_times\[1\] is nan"),
        ({"old_times": np.zeros((10, 1))}, r"old_times has shape \(10, 1\)"),
        ({"new_times": [3.0]}, "one entry"),
        ({"new_times": [2.0, 2.0]}, "step between them, which is 0"),
        ({"new_times": [0.0, 2.0, 1.0]}, "descends from 2.0 to 1.0 at index 2"),
        ({"lobes": 0}, "lobes=0"),
        ({"lobes": "3"}, "lobes='3'"),
        ({"cutoff_mult": None}, "cutoff_mult=None"),
        ({"cutoff_mult": -1}, "cutoff_mult=-1"),
        ({"data": np.ones((10, 2), complex)}, "complex128"),
        ({"data": np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0)}, r"data\[3, 1\] is nan"),
        ({"data": np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0), "rectify": True}, r"data\[3, 1\] is nan"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"data": np.ones((10, 2)), "old_times": np.arange(10.0), "new_times": np.arange(0.0, 10, 2)}
    with pytest.raises(InputError, match=message):
        fastencode.lanczos(**(good | change))


def test_the_kernels_fall_back_to_no_cache(monkeypatch):
    import numba

    from fastencode.kernels import jit

    tried = []

    def refuse_to_cache(**options):
        tried.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", refuse_to_cache)
    assert jit.njit(abs) is abs
    assert tried == [True, False]
