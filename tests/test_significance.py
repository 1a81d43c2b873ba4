"""Block bootstrap, block permutation and FDR against literal resampling, and their error rates on known worlds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_timing as reference
from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.inference import significance
from fastencode.study.inference.significance import block_permutation_pvalues, bootstrap_region_scores, fdr, signed_rank


def world(n: int, n_voxels: int, gains: tuple[float, ...], seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    Y = rng.standard_normal((n, n_voxels))
    return Y, [gain * Y + rng.standard_normal((n, n_voxels)) for gain in gains]


def literal_draws(Y, predictions, regions, ceilings, block, n_boots, seed):
    """Resample rows and correlate, one voxel after the other."""
    n = len(Y)
    starts = np.random.default_rng(seed).integers(0, n, (-(-n // block), n_boots)).T
    out = np.zeros((n_boots + 1, len(predictions), len(regions)))
    for b, drawn in enumerate([np.arange(n), *starts]):
        rows = np.concatenate([np.arange(start, start + block) % n for start in drawn])
        for m, P in enumerate(predictions):
            for r, voxels in enumerate(regions.values()):
                used = [v for v in voxels if ceilings is None or ceilings[v] > 0]
                scores = [reference.pearson(Y[rows, v], P[rows, v]) for v in used]
                out[b, m, r] = np.mean(scores) / (1 if ceilings is None else np.mean([ceilings[v] for v in used]))
    return out[0], out[1:]


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(8, 41),
    block=st.integers(1, 4),
    n_models=st.integers(1, 3),
    seed=st.integers(0, 999),
    with_ceilings=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    tile=st.sampled_from([1, 2, 128]),
)
def test_draws_equal_literal_resampling(n, block, n_models, seed, with_ceilings, dtype, tile):
    Y, predictions = world(n, 7, (0.5, 1.0, 0.0)[:n_models], seed)
    Y = (Y * 1e-3 + 5).astype(dtype)
    predictions = [(P * 10 - 3).astype(dtype) for P in predictions]
    regions = {"a": np.array([0, 2, 4]), "b": np.array([4]), "all": np.arange(7)}
    ceilings = np.array([0.5, 0.0, 1.0, 0.2, 0.7, 0.0, 0.9]) if with_ceilings else None
    before = significance.VOXELS_PER_TILE
    significance.VOXELS_PER_TILE = tile
    try:
        ours = bootstrap_region_scores(Y, predictions, regions, ceilings=ceilings, block=block, n_boots=5, random_state=seed)
    finally:
        significance.VOXELS_PER_TILE = before
    r, draws = literal_draws(Y, predictions, regions, ceilings, block, 5, seed)
    np.testing.assert_allclose(ours.r, r, atol=1e-9)
    # A draw of one repeated short block can leave three rows or fewer: its variance is a difference of close numbers.
    np.testing.assert_allclose(ours.draws, draws, atol=1e-7)
    assert ours.n_voxels.tolist() == ([3, 1, 5] if with_ceilings else [3, 1, 7])


def test_differences_are_paired_and_contrasts_are_linear():
    Y, predictions = world(250, 60, (0.6, 0.5))
    predictions.append(predictions[0] * 3 + 1)  # correlates exactly as the first
    draws = bootstrap_region_scores(Y, predictions, {"all": np.arange(60)}, n_boots=400, random_state=0)
    assert draws.draws.shape == (400, 3, 1) and draws.interval().shape == (2, 3, 1)
    np.testing.assert_allclose(draws.difference(0, 2).draws, 0, atol=1e-9)
    difference = draws.difference(0, 1)
    np.testing.assert_allclose(difference.r, draws.r[:1] - draws.r[1:2])
    half = scipy.stats.t.ppf(0.975, draws.n_blocks - 1) * (draws.draws[:, :1] - draws.draws[:, 1:2]).std(axis=0, ddof=1)
    np.testing.assert_allclose(difference.interval(), [difference.r - half, difference.r + half])
    assert difference.interval()[0, 0, 0] > 0
    both = draws.contrast([[1, -1, 0], [0.5, 0.5, -1]])
    np.testing.assert_allclose(both.r[0], difference.r[0])
    np.testing.assert_allclose(both.r[1], draws.r[:2].mean(axis=0) - draws.r[2])
    with pytest.raises(InputError, match="one weight for each model"):
        draws.contrast([1, -1])
    with pytest.raises(InputError, match="level=95"):
        draws.interval(95)


def test_constant_voxels_score_zero_and_masks_are_indices():
    Y, (P,) = world(50, 4, (1.0,))
    # Constant but for the last bit, as a mean removed and put back leaves it.
    Y[:, 1] = 1e8 * (1 + np.finfo(float).eps * (P[:, 1] > 0))
    P[:, 2] = 0.1
    by_mask = bootstrap_region_scores(Y, [P], {"x": np.array([False, True, True, False])}, n_boots=20, random_state=0)
    assert (by_mask.r == 0).all() and (by_mask.draws == 0).all()
    a = bootstrap_region_scores(Y, P[None], {"x": np.array([True, False, False, True])}, n_boots=20, random_state=3)
    b = bootstrap_region_scores(Y, [P], {"x": [3, 0]}, n_boots=20, random_state=np.random.default_rng(3))
    np.testing.assert_array_equal(a.draws, b.draws)


def test_a_region_without_ceiling_is_nan_and_named():
    Y, (P,) = world(50, 4, (1.0,))
    with pytest.warns(FastencodeWarning, match="region 'silent' has no voxel"):
        ours = bootstrap_region_scores(Y, [P], {"silent": [0], "loud": [1]}, ceilings=[0, 1, 1, 1], n_boots=20, random_state=0)
    assert np.isnan(ours.r[0, 0]) and np.isnan(ours.draws[:, 0, 0]).all() and ours.n_voxels.tolist() == [0, 1]
    assert np.isfinite(ours.r[0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Y": np.eye(20, 3) + 1j}, "Y has dtype complex128"),
        ({"Y": np.ones(20)}, r"Y has shape \(20,\)"),
        ({"predictions": []}, "predictions is empty"),
        ({"predictions": [np.ones((20, 3)), np.ones((20, 4))]}, r"predictions\[1\] has shape \(20, 4\)"),
        ({"predictions": [np.full((20, 3), np.nan)]}, r"predictions\[0\] has nan in row 0"),
        ({"regions": {}}, "regions is empty"),
        ({"regions": {"a": []}}, "region 'a' holds no voxel"),
        ({"regions": {"a": [0.5]}}, "region 'a' holds no voxel"),
        ({"regions": {"a": [3]}}, "indices 3 to 3: there are 3"),
        ({"regions": {"a": [-1]}}, "indices -1"),
        ({"regions": {"a": [1, 1]}}, "names a voxel twice"),
        ({"regions": {"a": np.ones(4, bool)}}, r"mask of shape \(4,\) for 3"),
        ({"ceilings": [1, 1]}, r"ceilings has shape \(2,\)"),
        ({"ceilings": [1, 1, np.nan]}, "one finite number"),
        ({"block": 20}, "20 rows make 1 blocks of 20"),
        ({"block": 0}, "block=0"),
        ({"block": 4.0}, "block=4.0: give an integer"),
        ({"n_boots": 0}, "n_boots=0"),
    ],
)
def test_bootstrap_names_bad_input(change, message):
    good = {"Y": np.eye(20, 3), "predictions": [np.eye(20, 3)], "regions": {"a": [0, 1, 2]}, "n_boots": 3, "random_state": 0}
    with pytest.raises(InputError, match=message):
        bootstrap_region_scores(**(good | change))


@pytest.mark.parametrize(("n", "block"), [(40, 4), (43, 4), (30, 1)])
def test_permutation_equals_literal_permutation(n, block):
    Y, (P,) = world(n, 5, (0.2,))
    Y, P = Y * 1e-4 + 3, P * 100
    ours = block_permutation_pvalues(Y, P, block=block, n_permutations=99, random_state=5)
    rng = np.random.default_rng(5)
    k = n // block
    expected = np.ones(5)
    Y = scipy.stats.zscore(Y)

    def score(rows, v):
        """Covariance with all scans' scale, as scans that a turn brings in have another mean and variance."""
        return np.mean(Y[rows, v] * scipy.stats.zscore(P[: k * block, v]))

    measured = np.array([score(np.arange(k * block), v) for v in range(5)])
    for _ in range(99):
        turn = rng.integers(n)
        rows = np.concatenate([(turn + np.arange(i * block, (i + 1) * block)) % n for i in rng.permutation(k)])
        expected += [score(rows, v) >= measured[v] - 1e-9 for v in range(5)]
    np.testing.assert_allclose(ours, expected / 100, atol=1e-12)


def test_p_values_are_uniform_under_the_null_and_small_for_signal():
    rng = np.random.default_rng(0)
    noise = scipy.stats.zscore(rng.standard_normal((2, 203, 600)), axis=1)
    p = block_permutation_pvalues(noise[0], noise[1], block=5, n_permutations=199, random_state=0)
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    Y, (P,) = world(200, 300, (0.5,))
    assert (block_permutation_pvalues(Y, P, n_permutations=199, random_state=0) == 1 / 200).mean() > 0.95


def test_constant_voxels_have_p_one_and_few_blocks_warn():
    Y, (P,) = world(40, 3, (1.0,))
    Y[:, 0], P[:, 1] = 7.0, 0.1
    p = block_permutation_pvalues(Y, P, n_permutations=20, random_state=0)
    assert p[0] == p[1] == 1.0
    with pytest.warns(FastencodeWarning, match="2 blocks of 10 scans have only 10 orders"):
        block_permutation_pvalues(Y[:10], P[:10], block=5, n_permutations=20, random_state=0)
    with pytest.raises(InputError, match="1 whole blocks"):
        block_permutation_pvalues(Y, P, block=21)


def test_fdr_masks_nan_and_agrees_with_scipy():
    p = np.array([[0.001, np.nan, 0.04], [0.2, 0.03, np.nan]])
    ours = fdr(p)
    known = ~np.isnan(p)
    np.testing.assert_array_equal(np.isnan(ours), ~known)
    np.testing.assert_allclose(ours[known], scipy.stats.false_discovery_control([0.001, 0.04, 0.2, 0.03]))
    # By hand: sorted .001 .03 .04 .2 times 4 / rank, then the running minimum from the right.
    np.testing.assert_allclose(ours[known], [0.004, 0.04 * 4 / 3, 0.2, 0.04 * 4 / 3])
    assert (fdr(p, method="by")[known] >= ours[known]).all()
    assert np.isnan(fdr([np.nan, np.nan])).all() and fdr([]).shape == (0,)
    with pytest.raises(InputError, match="between 0 and 1"):
        fdr([0.5, 1.5])
    with pytest.raises(InputError, match="method='holm'"):
        fdr([0.5], method="holm")


@pytest.mark.parametrize("n", [4, 7, 12])
def test_signed_rank_with_ties_is_the_share_of_all_signs(n):
    rng = np.random.default_rng(n)
    for _ in range(20):
        values = rng.integers(-3, 4, n).astype(float)
        counted = values[values != 0]
        if not len(counted):
            continue
        ranks = scipy.stats.rankdata(np.abs(counted))
        signs = np.array(np.meshgrid(*[[0, 1]] * len(counted))).reshape(len(counted), -1).T
        away = np.abs(signs @ ranks - ranks.sum() / 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FastencodeWarning)
            found = signed_rank(values)
        assert found.p == pytest.approx((away >= np.abs(ranks[counted > 0].sum() - ranks.sum() / 2) - 1e-9).mean(), rel=1e-12)
        assert found.p >= found.smallest
    same = signed_rank([0.1] * 8)
    assert same.p == same.smallest == 2 / 2**8
