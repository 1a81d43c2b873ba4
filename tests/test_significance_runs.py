"""Several test runs scored together: blocks lie within one each, against literal resampling and on known worlds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

import reference_timing as reference
from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.inference.significance import block_permutation_pvalues, bootstrap_region_scores
from fastencode.timing.clean import zscore
from series_cases import autoregressive

pytestmark = pytest.mark.usefixtures("no_pictures")

LENGTHS, BLOCK = (23, 17, 30), 5
RUNS = np.repeat(["b", "a", "c"], LENGTHS)
STARTS = np.cumsum((0, *LENGTHS[:-1]))


def world(gain: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((sum(LENGTHS), 4))
    return Y, gain * Y + rng.standard_normal(Y.shape)


@pytest.mark.parametrize("block", [BLOCK, 20])
def test_draws_equal_literal_resampling(block: int) -> None:
    """Blocks begin at any scan of any run and stay within it, going round more than once where a run is shorter."""
    Y, P = world(0.5)
    ours = bootstrap_region_scores(Y, [P], {"all": np.arange(4)}, runs=RUNS, block=block, n_boots=6, random_state=3)
    drawn = np.random.default_rng(3).integers(0, len(RUNS), (-(-len(RUNS) // block), 6))
    for b in range(6):
        rows = []
        for start in drawn[:, b]:
            run = np.searchsorted(STARTS, start, side="right") - 1
            rows += [STARTS[run] + (start - STARTS[run] + k) % LENGTHS[run] for k in range(block)]
        r = [reference.pearson(Y[rows, v], P[rows, v]) for v in range(4)]
        np.testing.assert_allclose(ours.draws[b, 0, 0], np.mean(r), atol=1e-9)
    np.testing.assert_allclose(ours.r[0, 0], np.mean([reference.pearson(Y[:, v], P[:, v]) for v in range(4)]), atol=1e-12)
    assert ours.n_blocks == len(RUNS) / block


def test_intervals_and_p_values_of_short_runs_are_right() -> None:
    """Blocks are as long as the autocorrelation asks for, although a run is short; each run has blocks of its own length."""
    rng, covered, small = np.random.default_rng(0), [], []
    for seed in range(24):
        for lengths, found in (([60] * 5, covered), ([270, 30], small)):
            runs = np.repeat(np.arange(len(lengths)), lengths)
            S, E = (np.concatenate([zscore(autoregressive(rng, n, 30, 0.9)) for n in lengths]) for _ in range(2))
            if found is covered:
                draws = bootstrap_region_scores(
                    zscore(0.4 * S + 0.84**0.5 * E, runs),
                    [S],
                    {str(v): [v] for v in range(30)},
                    runs=runs,
                    n_boots=200,
                    random_state=seed,
                )
                low, high = draws.interval()
                found.append((low <= 0.4) & (high >= 0.4))
            else:
                found.append(block_permutation_pvalues(E, S, runs=runs, n_permutations=99, random_state=seed) <= 0.05)
    assert np.mean(covered) >= 0.86 and np.mean(small) <= 0.08


def test_too_few_blocks_of_short_runs_have_no_intervals() -> None:
    Y = autoregressive(np.random.default_rng(0), 80, 20, 0.97)
    with pytest.warns(FastencodeWarning, match="too few for intervals, which are NaN"):
        draws = bootstrap_region_scores(Y, [Y[:, ::-1]], {"all": np.arange(20)}, runs=np.repeat(range(4), 20), n_boots=9)
    assert np.isnan(draws.interval()).all()


def test_blocks_are_permuted_within_runs() -> None:
    Y, P = world(0.3)
    ours = block_permutation_pvalues(Y, P, runs=RUNS, block=BLOCK, n_permutations=60, random_state=1)
    rng = np.random.default_rng(1)
    tables = [[(rng.integers(n), rng.permutation(n // BLOCK)) for _ in range(60)] for n in LENGTHS]
    whole = np.concatenate([first + np.arange(n // BLOCK * BLOCK) for first, n in zip(STARTS, LENGTHS, strict=True)])
    y, p = scipy.stats.zscore(Y), scipy.stats.zscore(P[whole])
    measured, reached = (y[whole] * p).sum(axis=0), np.ones(4)
    for j in range(60):
        rows = []
        for first, n, table in zip(STARTS, LENGTHS, tables, strict=True):
            turn, order = table[j]
            rows += [first + (turn + i * BLOCK + k) % n for i in order for k in range(BLOCK)]
        reached += (y[rows] * p).sum(axis=0) >= measured - 1e-9
    np.testing.assert_allclose(ours, reached / 61, atol=1e-12)
    assert len(set(ours)) > 1


def test_one_run_is_no_runs() -> None:
    Y, P = world(0.3)
    for block in (None, BLOCK):
        given = {"block": block, "random_state": 0}
        one, none = (block_permutation_pvalues(Y, P, runs=runs, n_permutations=50, **given) for runs in (np.zeros(70), None))
        np.testing.assert_array_equal(one, none)
        draws = [
            bootstrap_region_scores(Y, [P], {"all": [0, 1]}, runs=runs, n_boots=9, **given).draws for runs in (np.zeros(70), None)
        ]
        np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        (RUNS[:-1], r"runs has shape \(69,\) for 70 rows"),
        (np.roll(RUNS, 3), "runs are not in one piece"),
        (np.repeat([0, 1], [66, 4]), "rows make 1 "),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs: np.ndarray, told: str) -> None:
    Y, P = world(0.3)
    with pytest.raises(InputError, match=told):
        block_permutation_pvalues(Y, P, runs=runs, block=4, n_permutations=9)
    with pytest.raises(InputError, match=told):
        bootstrap_region_scores(Y, [P], {"all": [0]}, runs=runs, block=70, n_boots=9)
