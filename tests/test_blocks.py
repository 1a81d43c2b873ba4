"""Lengths of blocks, intervals and p-values at realistic autocorrelation: how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.inference.blocks import autocorrelation, block_length, interval, permuted_autocorrelation
from fastencode.study.inference.significance import block_permutation_pvalues, bootstrap_region_scores
from series_cases import autoregressive


def test_autocorrelation_is_that_of_every_voxel():
    rng = np.random.default_rng(0)
    Y = autoregressive(rng, 80, 5, 0.6) * 100 + 7
    Y[:, 2] = 3.0
    each = []
    for y in Y.T[[0, 1, 3, 4]]:
        z = (y - y.mean()) / y.std()
        each.append([np.sum(z[k:] * z[: 80 - k]) / 80 for k in range(7)])
    np.testing.assert_allclose(autocorrelation(Y.astype(np.float32), 6), np.mean(each, axis=0), atol=1e-5)
    assert np.isnan(autocorrelation(np.ones((20, 2)), 3)).all() and block_length(np.ones((20, 2))) == 1


def test_length_is_the_published_rule_times_two():
    """By hand for an autoregressive series, whose sums are known: G = 2 ρ / (1 − ρ)², D = 4/3 ((1 + ρ) / (1 − ρ))²."""
    rng = np.random.default_rng(0)
    for n, rho in ((2000, 0.3), (5000, 0.5), (20000, 0.8)):
        wanted = 2 * (2 * (2 * rho / (1 - rho) ** 2) ** 2 / (4 / 3 * ((1 + rho) / (1 - rho)) ** 2)) ** (1 / 3) * n ** (1 / 3)
        assert block_length(autoregressive(rng, n, 100, rho)) == pytest.approx(wanted, rel=0.15)
    assert block_length(rng.standard_normal((250, 500))) <= 3


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8, 0.9])
def test_intervals_cover_what_they_say(rho):
    """.95 intervals of 251 scans cover the true correlation .92 to .97 of the time, of single voxels and of differences."""
    rng, n, truth = np.random.default_rng(1), 251, (0.5, 0.4)
    regions, covered = {str(v): [v] for v in range(8)}, []
    for seed in range(100):
        signals = [autoregressive(rng, n, 8, rho) for _ in truth]
        rest = np.sqrt(1 - sum(t**2 for t in truth))
        Y = sum(t * s for t, s in zip(truth, signals, strict=True)) + rest * autoregressive(rng, n, 8, rho)
        draws = bootstrap_region_scores(Y, signals, regions, n_boots=300, random_state=seed)
        for found, exact in ((draws, np.array(truth)[:, None]), (draws.difference(0, 1), truth[0] - truth[1])):
            low, high = found.interval()
            covered.append(((low <= exact) & (exact <= high)).mean())
    assert 0.915 <= np.mean(covered[::2]) <= 0.97, "scores"
    assert 0.905 <= np.mean(covered[1::2]) <= 0.97, "differences"


@pytest.mark.parametrize(("rho", "most"), [(0.0, 0.06), (0.7, 0.07), (0.9, 0.07), (0.95, 0.085)])
def test_p_values_are_small_as_often_as_they_say(rho, most):
    """Nothing is predicted: about 5 % of p-values are below .05, and 1 % below .01. (Blocks of ten: 14 and 6 % at ρ = .95.)"""
    rng, found = np.random.default_rng(0), []
    for seed in range(12):
        Y, P = (autoregressive(rng, 251, 250, rho) for _ in range(2))
        found.append(block_permutation_pvalues(Y, P, n_permutations=199, random_state=seed))
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= most
    assert np.mean(np.array(found) <= 0.01) <= most / 4


def test_too_few_blocks_have_no_intervals_and_say_so():
    rng = np.random.default_rng(0)
    Y = autoregressive(rng, 60, 20, 0.95)
    with pytest.warns(FastencodeWarning, match=r"60 scans are \d.\d blocks of \d+, the length that .* too few"):
        draws = bootstrap_region_scores(Y, [Y + autoregressive(rng, 60, 20, 0.95)], {"all": np.arange(20)}, n_boots=20)
    assert np.isfinite(draws.r).all() and np.isnan(draws.interval()).all()


def test_interval_by_hand():
    draws = np.random.default_rng(0).normal(0.4, 0.05, (400, 3))
    t = scipy.stats.t.ppf(0.975, 9)
    low, high = interval(np.full(3, 0.4), draws, 10, correlation=False)
    np.testing.assert_allclose([low, high], [0.4 - t * draws.std(axis=0, ddof=1), 0.4 + t * draws.std(axis=0, ddof=1)])
    low, high = interval(np.full(3, 0.4), draws, 10, correlation=True)
    spread = np.arctanh(draws).std(axis=0, ddof=1)
    np.testing.assert_allclose([low, high], np.tanh([np.arctanh(0.4) - t * spread, np.arctanh(0.4) + t * spread]))
    assert np.isfinite(interval(1.0, np.ones(5), 10, correlation=True)).all()
    with pytest.raises(InputError, match="level=95"):
        interval(0.4, draws[:, 0], 10, 95, correlation=True)


def test_what_a_block_permutation_keeps_of_the_autocorrelation() -> None:
    """A border in every ``block`` scans: of an autocorrelation ρ about ρ (1 − 1 / block) is left; by hand for one permutation."""
    rng = np.random.default_rng(0)
    Y = autoregressive(rng, 600, 40, 0.8)
    for block in (2, 5, 20, 100):
        measured, permuted, used = permuted_autocorrelation(Y, block=block, random_state=1)
        assert used == block and abs(measured - 0.8) < 0.03
        assert abs(permuted - measured * (1 - 1 / block)) < 0.03
    runs = np.repeat([0, 1], [350, 250])
    _, found, _ = permuted_autocorrelation(Y, runs=runs, block=50, n_permutations=1, random_state=1)
    rng, rows = np.random.default_rng(1), []
    for first, n in ((0, 350), (350, 250)):
        turn, order = rng.integers(n), rng.permutation(n // 50)
        rows += [first + (turn + 50 * i + k) % n for i in order for k in range(50)]
    y = Y[rows] - Y[rows].mean(axis=0)
    assert abs(found - np.mean((y[1:] * y[:-1]).sum(axis=0) / (y**2).sum(axis=0))) < 1e-12
