"""Targets of the arms: controls keep what they must and move what they must; features get a brain's smoothness."""

from __future__ import annotations

import warnings
import zlib

import numpy as np
import pytest
import scipy.signal

from fastencode.errors import FastencodeWarning, InputError

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")

from fastencode.tune.config import TuneConfig
from fastencode.tune.targets import lag1, model_targets, permute_blocks, region_weights, source_rows


def series(rng: np.random.Generator, n: int, width: int, rho: float) -> np.ndarray:
    """Autoregressive columns of variance 1: rho^k is their autocorrelation at lag k."""
    noise = np.sqrt(1 - rho**2) * rng.standard_normal((n + 200, width))
    return scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=0)[200:]


def autocorrelation(columns_tv: np.ndarray) -> float:
    """Pearson of each column with itself a row later, one by one."""
    return float(np.mean([np.corrcoef(column[1:], column[:-1])[0, 1] for column in columns_tv.T]))


@pytest.mark.parametrize("n_rows", [(45,), (31, 20, 7), (100, 44), (300, 291, 289), (15, 15, 15), (3001,)])
@pytest.mark.parametrize("seed", range(5))
def test_control_blocks_move_far_and_lie_within_runs(n_rows: tuple[int, ...], seed: int) -> None:
    order = permute_blocks(n_rows, rng=np.random.default_rng(seed))
    assert len(order) == sum(n_rows)
    run = np.repeat(np.arange(len(n_rows)), n_rows)
    row = np.concatenate([np.arange(n) for n in n_rows])
    place = row // 15  # the block of a run that a row belongs to, or its rest
    pieces = {(int(r), int(p)): np.flatnonzero((run == r) & (place == p)) for r, p in zip(run, place, strict=True)}
    whole = [key for key, rows in pieces.items() if len(rows) == 15]
    least, used = min(10, len(whole) // 3), []
    for key, rows in pieces.items():
        source = order[rows]
        assert (np.diff(source) == 1).all() and row[source[0]] % 15 == 0 and len(np.unique(run[source])) == 1
        taken = (int(run[source[0]]), int(place[source[0]]))
        assert taken in whole, "of a whole block"
        here = whole.index(key) if key in whole else sum(other < key for other in whole) - 0.5
        assert abs(whole.index(taken) - here) >= least
        used += [taken] if key in whole else []
    assert sorted(used) == sorted(whole), "every whole block takes the place of another"


def test_too_few_blocks_is_an_error() -> None:
    with pytest.raises(InputError, match="at least 3"):
        permute_blocks([44], rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="runs of 14, 40 rows make 2 blocks of 15"):
        permute_blocks([14, 40], rng=np.random.default_rng(0))


@pytest.mark.parametrize("targets", ["brain", "stimulus", "model:there"])
def test_rows_stay_where_the_arm_has_its_own_targets(targets: str) -> None:
    for place, (run, row) in enumerate(source_rows({"a": 4, "b": 3}, TuneConfig(targets=targets), "P1", 2.0).values()):
        assert run.tolist() == [place] * len(row) and row.tolist() == list(range(len(row)))


def test_permuted_rows_are_those_of_the_controls_of_before() -> None:
    """As one array of joined runs was reordered: the same responses, gathered from the runs where they lie."""
    n_rows = {"b": 100, "a": 47, "c": 63}
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 2)) for n in n_rows.values()]
    for who, config in (
        ("P1", TuneConfig(targets="permuted", permutation=2, seed=5)),
        ("P2", TuneConfig(targets="permuted", block=7, min_move=4)),
    ):
        seed = np.random.default_rng([config.seed, 12, zlib.crc32(who.encode()), config.permutation])
        wanted = np.concatenate(parts)[permute_blocks([100, 47, 63], block=config.block, min_move=config.min_move, rng=seed)]
        found = source_rows(n_rows, config, who, 2.0)
        assert list(found) == ["b", "a", "c"] and [len(row) for _, row in found.values()] == [100, 47, 63]
        gathered = [parts[r][i] for run, row in found.values() for r, i in zip(run, row, strict=True)]
        np.testing.assert_array_equal(gathered, wanted)


def test_the_order_depends_on_participant_permutation_and_seed() -> None:
    def order(who: str = "P1", **settings: int) -> tuple[int, ...]:
        found = source_rows({"a": 150, "b": 150}, TuneConfig(targets="permuted", **settings), who, 2.0)
        return tuple(np.concatenate([150 * run + row for run, row in found.values()]))

    assert order() == order()
    assert len({order(), order("P2"), order(permutation=2), order(seed=1)}) == 4


@pytest.mark.parametrize(("seconds", "late"), [(6.0, 3), (-6.0, -3), (6.9, 3)])
def test_shifted_rows_go_around_within_a_run(seconds: float, late: int) -> None:
    found = source_rows({"a": 10, "b": 6}, TuneConfig(targets="shifted", shift_seconds=seconds), "P1", 2.0)
    for place, n in enumerate((10, 6)):
        run, row = found["ab"[place]]
        np.testing.assert_array_equal(row, np.roll(np.arange(n), late))
        assert (run == place).all() and (np.abs(row - np.arange(n)) >= abs(late)).all()


def test_shifts_that_do_not_move_far_are_errors() -> None:
    with pytest.raises(InputError, match=r"shift_seconds=0.9 is less than half a scan of 2 s"):
        source_rows({"a": 100}, TuneConfig(targets="shifted", shift_seconds=0.9), "P1", 2.0)
    with pytest.raises(InputError, match=r"'b' has 59 rows: moved by 30 .* give at most 58 s"):
        source_rows({"a": 60, "b": 59}, TuneConfig(targets="shifted", shift_seconds=60), "P1", 2.0)


def test_lag1_is_the_mean_over_voxels() -> None:
    values = series(np.random.default_rng(1), 2000, 30, 0.6).astype(np.float32)
    assert lag1(values) == pytest.approx(autocorrelation(values), abs=1e-3)
    assert lag1(values + 1e4) == pytest.approx(lag1(values), abs=1e-3)
    worse = np.column_stack([values, np.full(2000, 3.0), np.where(np.arange(2000) == 5, np.nan, values[:, 0])])
    assert lag1(worse) == pytest.approx(lag1(values), abs=1e-9), "constant voxels and those with NaN do not count"
    with pytest.raises(InputError, match="all 2 voxels are constant"):
        lag1(np.ones((10, 2)))
    with pytest.raises(InputError, match="at least three rows"):
        lag1(np.ones((2, 2)))


@pytest.mark.parametrize("n", [120, 300])
@pytest.mark.parametrize("wanted", [0.1, 0.35, 0.6, 0.8])
@pytest.mark.parametrize("states", ["white", "smooth", "overlapping", "uneven"])
def test_targets_are_as_smooth_as_responses(states: str, wanted: float, n: int) -> None:
    """States of many kinds, also smoother ones than the responses: sums of five pieces, as clips of 10 s overlap."""
    rng = np.random.default_rng([n, round(100 * wanted)])
    x_td = series(rng, n, 48, {"white": 0.0, "smooth": 0.7, "overlapping": 0.0, "uneven": 0.5}[states])
    if states == "overlapping":
        pieces = series(rng, n + 4, 48, 0.3)
        x_td = sum(pieces[i : n + i] for i in range(5))
    if states == "uneven":
        x_td = x_td * np.logspace(0, 3, 48) + 100
    targets = model_targets(x_td.astype(np.float32), 700, wanted, np.random.default_rng(3))
    assert targets.shape == (n, 700) and targets.dtype == np.float32
    assert autocorrelation(targets) == pytest.approx(wanted, abs=0.02)
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(targets.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize(("rho", "wanted"), [(0.0, 0.8), (0.4, 0.8), (0.8, 0.5), (0.8, 0.1), (0.6, -0.3)])
def test_targets_begin_as_large_as_they_go_on(rho: float, wanted: float) -> None:
    """Over many runs, each of the first rows has about the variance of the others."""
    rng, squares = np.random.default_rng(4), []
    for _ in range(40):
        squares.append((model_targets(series(rng, 100, 30, rho), 100, wanted, np.random.default_rng(0)) ** 2).mean(axis=1))
    mean_t = np.mean(squares, axis=0)
    assert (np.abs(mean_t[:4] - 1) < 0.25).all(), mean_t[:6]


def test_targets_are_a_fixed_linear_map_of_the_states() -> None:
    rng = np.random.default_rng(2)
    one, two = series(rng, 200, 8, 0.5), series(rng, 150, 8, 0.5)
    smoothness = 0.6
    targets = model_targets(one, 1500, smoothness, np.random.default_rng(0))
    # Eight dimensions make all targets: of rank 8 and no more, and not of one dimension.
    share = np.linalg.svd(targets, compute_uv=False) ** 2
    assert share[8:].sum() < 1e-6 * share.sum() and share[0] < 0.5 * share.sum()
    # The matrix is the same in another run and scale: fits of one run's targets on its filtered states hold in the other.
    other = model_targets(two, 1500, smoothness, np.random.default_rng(0))
    assert np.corrcoef(np.corrcoef(targets.T)[0], np.corrcoef(other.T)[0])[0, 1] > 0.8
    assert not np.allclose(targets, model_targets(one, 1500, smoothness, np.random.default_rng(1)))
    np.testing.assert_array_equal(targets, model_targets(one, 1500, smoothness, np.random.default_rng(0)))


def test_a_large_dimension_does_not_make_all_targets_alike() -> None:
    states = series(np.random.default_rng(5), 200, 30, 0.5)
    states[:, 0] = 1000 * states[:, 0] + 50
    share = np.linalg.svd(model_targets(states, 300, 0.5, np.random.default_rng(0)), compute_uv=False) ** 2
    assert share[0] < 0.25 * share.sum()


def test_what_cannot_be_made_is_said() -> None:
    states = series(np.random.default_rng(3), 100, 4, 0.5)
    with pytest.warns(FastencodeWarning, match=r"cannot have a lag-1 autocorrelation of -0.90"):
        model_targets(states, 50, -0.9, np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not model_targets(np.ones((10, 4)), 3, 0.5, np.random.default_rng(0)).any()
    with pytest.raises(InputError, match="is nan"):
        model_targets(np.full((10, 4), np.nan), 3, 0.5, np.random.default_rng(0))
    with pytest.raises(InputError, match="at least three rows"):
        model_targets(states[:2], 3, 0.5, np.random.default_rng(0))
    with pytest.raises(InputError, match="n_voxels=0"):
        model_targets(states, 0, 0.5, np.random.default_rng(0))
    with pytest.raises(InputError, match="between -1 and 1"):
        model_targets(states, 3, 1.0, np.random.default_rng(0))


def test_weights_prefer_voxels_of_the_regions() -> None:
    regions = {"AG": [1, 3], "IFG": np.array([3, 4]), "A1": np.array([0])}
    voxels = [5, 4, 3, 0]
    found = region_weights(6, voxels, regions, ["AG", "IFG"], 3.0)
    np.testing.assert_allclose(found, np.array([1, 3, 3, 1]) / 2, rtol=1e-6)
    assert found.dtype == np.float32
    mask = np.isin(np.arange(6), voxels)
    np.testing.assert_allclose(region_weights(6, mask, regions, ["AG", "IFG"], 3.0), np.array([1, 3, 3, 1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(region_weights(6, [0, 5], regions, "A1", 0.5), np.array([0.5, 1]) / 0.75, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefer": ["AC"]}, "no region 'AC': the regions are 'AG', 'A1'"),
        ({"regions": {}}, "the regions are none"),
        ({"weight": 0.0}, "weight=0.0: give a positive"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"voxels": [0, 6]}, "voxels to tune on: indices go from 0 to 6, but there are 6 voxels"),
        ({"regions": {"AG": [9]}}, "region 'AG': indices go from 9 to 9"),
        ({"voxels": [0, 2]}, "none of the 2 voxels to tune on lies in AG"),
        ({"prefer": []}, "none of the 3 voxels"),
    ],
)
def test_regions_that_do_not_fit(change: dict[str, object], message: str) -> None:
    given = {"voxels": [1, 2, 5], "regions": {"AG": [1, 3], "A1": [0]}, "prefer": ["AG"], "weight": 2.0, **change}
    with pytest.raises(InputError, match=message):
        region_weights(6, **given)
