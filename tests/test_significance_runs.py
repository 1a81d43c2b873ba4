"""Several test runs scored together: blocks are drawn and permuted within each, against literal resampling."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

import reference_timing as reference
from fastencode.errors import InputError
from fastencode.study.significance import block_permutation_pvalues, bootstrap_region_scores

LENGTHS, BLOCK = (23, 17, 30), 5
RUNS = np.repeat(["b", "a", "c"], LENGTHS)
STARTS = np.cumsum((0, *LENGTHS[:-1]))


def world(gain: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((sum(LENGTHS), 4))
    return Y, gain * Y + rng.standard_normal(Y.shape)


def test_every_draw_takes_of_every_run_its_share() -> None:
    """Runs whose last block is not whole: a draw has more rows than there are, and each run keeps its weight."""
    Y, P = world(0.5)
    ours = bootstrap_region_scores(Y, [P], {"all": np.arange(4)}, runs=RUNS, block=BLOCK, n_boots=6, random_state=3)
    rng = np.random.default_rng(3)
    drawn = [rng.integers(0, n, (6, -(-n // BLOCK))) for n in LENGTHS]
    for b in range(6):
        rows, weights = [], []
        for first, n, starts in zip(STARTS, LENGTHS, drawn, strict=True):
            here = [first + (start + k) % n for start in starts[b] for k in range(BLOCK)]
            rows += here
            weights += [n / len(here)] * len(here)
        r = []
        for v in range(4):
            y, p = Y[rows, v], P[rows, v]
            y, p = y - np.average(y, weights=weights), p - np.average(p, weights=weights)
            r.append(np.sum(weights * y * p) / np.sqrt(np.sum(weights * y**2) * np.sum(weights * p**2)))
        np.testing.assert_allclose(ours.draws[b, 0, 0], np.mean(r), atol=1e-9)
    np.testing.assert_allclose(ours.r[0, 0], np.mean([reference.pearson(Y[:, v], P[:, v]) for v in range(4)]), atol=1e-12)
    assert ours.n_blocks == sum(LENGTHS) / BLOCK


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
        (np.repeat([0, 1], [66, 4]), "4 rows make"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs: np.ndarray, told: str) -> None:
    Y, P = world(0.3)
    with pytest.raises(InputError, match=told):
        block_permutation_pvalues(Y, P, runs=runs, block=4, n_permutations=9)
    with pytest.raises(InputError, match=told):
        bootstrap_region_scores(Y, [P], {"all": [0]}, runs=runs, block=4, n_boots=9)
