"""The noise ceiling against the published formula and against worlds whose ceiling is known."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.signal

import fastencode
import reference_timing as reference
from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.brains import ceilings
from fastencode.study.inference.significance import fdr


def world(n_repeats: int, n: int, n_voxels: int, signal: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sqrt(signal) * rng.standard_normal((1, n, n_voxels)) + rng.standard_normal((n_repeats, n, n_voxels))


@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 17, 5), (5, 31, 7), (10, 101, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_published_formula(shape, dtype):
    repeats = world(*shape, signal=0.3).astype(dtype) * 10.0 ** np.arange(-3, shape[2] - 3)
    ours = fastencode.noise_ceiling(repeats)
    np.testing.assert_allclose(ours, reference.noise_ceiling(repeats), atol=1e-9)
    repeats[0, 0, 0] += repeats[0, :, 0].std()
    assert np.abs(fastencode.noise_ceiling(repeats)[0] - ours[0]) > 1e-6 or ours[0] == 0


@pytest.mark.parametrize(("n_repeats", "signal"), [(2, 1.0), (5, 0.5), (10, 0.1)])
def test_is_the_correlation_of_the_true_signal_with_the_mean_response(n_repeats, signal):
    rng = np.random.default_rng(1)
    truth = np.sqrt(signal) * rng.standard_normal((5_000, 20))
    repeats = truth + rng.standard_normal((n_repeats, *truth.shape))
    reached = [reference.pearson(truth[:, v], repeats.mean(axis=0)[:, v]) for v in range(20)]
    np.testing.assert_allclose(fastencode.noise_ceiling(repeats), reached, atol=0.04)
    np.testing.assert_allclose(np.mean(reached), np.sqrt(signal / (signal + 1 / n_repeats)), atol=0.01)


def test_noise_constants_and_identical_repeats():
    ours = fastencode.noise_ceiling(world(5, 101, 400, signal=0.0))
    assert 0.35 < (ours == 0).mean() < 0.65  # SP is as often below 0 as above it
    assert ((ours >= 0) & (ours <= 1)).all()
    constant = np.full((3, 50, 4), [0.0, 1.0, 0.1, 1e8 + 0.1])
    assert (fastencode.noise_ceiling(constant) == 0).all()
    last_bit = 1e8 * (1 + np.finfo(float).eps * np.random.default_rng(0).integers(0, 2, (1, 50, 4)))
    assert (fastencode.noise_ceiling(np.repeat(last_bit, 3, axis=0)) == 0).all()
    once = np.random.default_rng(0).standard_normal((50, 6)) + 1e6
    np.testing.assert_allclose(fastencode.noise_ceiling(np.stack([once] * 4)), 1.0, atol=1e-9)


def test_a_huge_mean_changes_nothing():
    repeats = world(5, 101, 9, signal=0.5)
    np.testing.assert_allclose(fastencode.noise_ceiling(repeats + 1e6), fastencode.noise_ceiling(repeats), atol=1e-7)


def test_reads_data_sets_and_maps_in_blocks(tmp_path, monkeypatch):
    repeats = world(4, 30, 23, signal=0.5).astype(np.float32)
    expected = fastencode.noise_ceiling(repeats)
    monkeypatch.setattr(ceilings, "VALUES_PER_BLOCK", 4 * 30 * 5)
    np.save(tmp_path / "r.npy", repeats)
    np.testing.assert_allclose(fastencode.noise_ceiling(np.load(tmp_path / "r.npy", mmap_mode="r")), expected, rtol=1e-12)
    with h5py.File(tmp_path / "r.hf5", "w") as file:
        stored = file.create_dataset("individual_repeats", data=repeats)
        np.testing.assert_allclose(fastencode.noise_ceiling(stored), expected, rtol=1e-12)


def test_voxels_with_nan_are_counted_and_zero():
    repeats = world(4, 30, 6, signal=5.0)
    expected = fastencode.noise_ceiling(repeats)
    repeats[2, 11, 4] = np.nan
    repeats[:, :, 1] = np.inf
    with pytest.warns(FastencodeWarning, match="2 of 6 voxels"):
        ours = fastencode.noise_ceiling(repeats)
    np.testing.assert_array_equal(np.flatnonzero(ours == 0), [1, 4])
    np.testing.assert_allclose(ours[[0, 2, 3, 5]], expected[[0, 2, 3, 5]], rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 30, 4), (0, 30, 4), (3, 1, 4), (30, 4), (3, 30, 4, 1)])
def test_bad_shapes_are_named(shape):
    with pytest.raises(InputError, match="repeats has shape"):
        fastencode.noise_ceiling(np.ones(shape))


def test_stories_have_one_ceiling_of_all_pairs_of_their_repeats():
    """Stories of unlike length, number of repeats and unit; some voxels have no signal in all of them together."""
    stories = [world(n, t, 200, signal=0.03, seed=t) * unit + 9 for n, t, unit in ((2, 61, 1.0), (5, 97, 30.0), (3, 40, 0.2))]
    ours = ceilings.joint_ceiling([ceilings.signal_share(one.astype(np.float32)) for one in stories])
    np.testing.assert_allclose(ours, reference.joint_ceiling(stories), atol=1e-4)
    assert 0.01 < (ours == 0).mean() < 0.3
    for one in stories:
        np.testing.assert_allclose(ceilings.joint_ceiling([ceilings.signal_share(one)]), reference.noise_ceiling(one), atol=1e-9)
    other = ceilings.signal_share(stories[0], n_averaged=1)
    assert (ceilings.joint_ceiling([other]) <= fastencode.noise_ceiling(stories[0])).all()


def test_no_voxels():
    assert fastencode.noise_ceiling(np.ones((3, 30, 0))).shape == (0,)


def test_the_spread_of_means_over_repeats(monkeypatch):
    repeats = world(5, 101, 9, signal=0.5)
    repeats[1, 7, 2] = np.nan
    repeats[:, :, 4] = 3.0
    wanted = np.ones(9)
    for v in {*range(9)} - {2, 4}:
        wanted[v] = repeats[:, :, v].mean(axis=0).std() / np.sqrt(np.mean([one.std() ** 2 for one in repeats[:, :, v]]))
    for values in (1 << 20, 5 * 101 * 2):
        monkeypatch.setattr(ceilings, "VALUES_PER_BLOCK", values)
        np.testing.assert_allclose(ceilings.averaged_spread(repeats), wanted, rtol=1e-12)
    assert (ceilings.averaged_spread(repeats[:1])[[0, 1, 2, 4]] == 1).all()


def autoregressive(rng, shape, rho):
    noise = np.sqrt(1 - rho**2) * rng.standard_normal((shape[0], shape[1] + 200, shape[2]))
    return scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 200:]


@pytest.mark.parametrize("n_repeats", [2, 5, 10])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_p_values_of_noise_are_small_as_often_as_they_say(n_repeats, rho):
    """The ceiling itself is above .05 in 47 to 50 % of these voxels."""
    repeats = autoregressive(np.random.default_rng(0), (n_repeats, 251, 4000), rho)
    p = ceilings.ceiling_pvalues(repeats)
    assert 0.45 < (fastencode.noise_ceiling(repeats) > 0.05).mean() < 0.52
    assert 0.03 < (p <= 0.05).mean() < 0.065 and (p <= 0.01).mean() < 0.016
    assert (fdr(p) <= 0.05).mean() < 0.002


def test_p_values_are_those_of_literal_turns():
    rng = np.random.default_rng(0)
    repeats = autoregressive(rng, (5, 80, 6), 0.6) + 0.35 * autoregressive(rng, (1, 80, 6), 0.6)
    statistic = repeats.mean(axis=0).var(axis=0)
    turned = np.array(
        [np.mean([np.roll(one, rng.integers(80), axis=0) for one in repeats], axis=0).var(axis=0) for _ in range(4000)]
    )
    found = ceilings.ceiling_pvalues(repeats)
    assert found.min() < 0.1 < found.max()
    agree = statistic > np.median(turned, axis=0)  # others are 1
    np.testing.assert_allclose(found[agree], (turned >= statistic).mean(axis=0)[agree], atol=0.02)


def test_voxels_with_signal_are_significant_and_bad_ones_are_not():
    repeats = world(8, 200, 50, 0.4)
    repeats[:, :, 3], repeats[2, 5, 4] = 7.0, np.nan
    p = ceilings.ceiling_pvalues(repeats.astype(np.float32))
    assert (np.delete(p, [3, 4]) < 1e-6).all() and (p[[3, 4]] == 1).all()
    with pytest.raises(InputError, match="at least 2 repeats"):
        ceilings.ceiling_pvalues(repeats[:1])


def test_ceilings_of_the_half_that_is_scored_are_not_biased_by_the_choice():
    """A model that correlates with the signal at .6, where few voxels pass: r / ceiling is .6 with the ceilings of the half that
    is scored, and much less with those of the half that chose the voxels."""
    rng, wanted, n, v = np.random.default_rng(0), 0.6, 250, 2000
    signal = rng.standard_normal((n, v))
    predicted = wanted * signal + np.sqrt(1 - wanted**2) * rng.standard_normal((n, v))
    repeats = np.sqrt(0.06) * signal + rng.standard_normal((6, n, v))
    first, second = ceilings.split_repeats(6)
    choosing = ceilings.noise_ceiling(repeats[first])
    chosen = ceilings.significant_ceilings(repeats[first]) & (choosing > 0.05)
    assert chosen.mean() == pytest.approx(0.22, abs=0.02)
    z, p = (A - A.mean(axis=0) for A in (repeats[second].mean(axis=0), predicted))
    r = (z * p).sum(axis=0) / np.sqrt((z**2).sum(axis=0) * (p**2).sum(axis=0))

    def ratio(ceiling):
        counted = chosen & (ceiling > 0)
        return r[counted].mean() / ceiling[counted].mean() / wanted

    assert ratio(choosing) == pytest.approx(0.77, abs=0.02)
    assert ratio(ceilings.scored_ceiling(repeats)) == pytest.approx(1.01, abs=0.02)
    np.testing.assert_array_equal(ceilings.scored_ceiling(repeats), ceilings.noise_ceiling(repeats[1::2]))
    of_three = ceilings.noise_ceiling(repeats[:3:2], n_averaged=1)
    np.testing.assert_array_equal(ceilings.scored_ceiling(repeats[:3]), of_three)
