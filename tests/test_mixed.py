"""Estimates of means, Holm's steps, and variance components beside other programs' and in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from fastencode.errors import InputError
from fastencode.study.config import Contrast
from fastencode.study.findings.measurements import NOBODY, Cell, Sample
from fastencode.study.findings.mixed import components, summary_rows
from fastencode.study.inference.blocks import interval, mean_draws
from fastencode.study.inference.families import holm, holm_levels
from fastencode.study.inference.intervals import Estimate, over_participants, over_units, paired_covariance


@pytest.mark.parametrize("correlation", [False, True])
def test_intervals_are_those_of_blocks_and_p_values_their_inversion(correlation: bool) -> None:
    rng = np.random.default_rng(0)
    draws, n_units = rng.normal(0.3, 0.08, (3, 500)), np.array([12.0, 20.0, 31.0])
    found = over_units([0.3, 0.25, 0.4], draws, n_units, correlation=correlation)
    wanted = interval(np.mean([0.3, 0.25, 0.4]), mean_draws(draws, n_units), 12, correlation=correlation)
    assert found.interval() == pytest.approx(wanted.tolist())
    for limit in (0.0, 0.2, 0.28, 0.5):
        p = found.pvalue(limit)
        ends = found.interval(1 - p)
        assert min(abs(end - limit) for end in ends) < 1e-9, "the interval of level 1 − p ends at the limit"
    assert over_units([0.3], draws[:1], [3.9]).pvalue() != over_units([0.3], draws[:1], [3.9]).pvalue(), "NaN: too few"
    assert Estimate(0.1, 0.0, 5).pvalue(0.1) == 1 and Estimate(0.1, 0.0, 5).pvalue() == 0
    assert math.isnan(over_participants([0.3], draws[:1], [20]).interval()[0])


@pytest.mark.parametrize(
    ("n", "kind", "least"), [(5, "normal", 0.93), (10, "normal", 0.93), (5, "skewed", 0.86), (10, "skewed", 0.86)]
)
def test_intervals_of_few_participants_cover(n: int, kind: str, least: float) -> None:
    """Student's: .95 of normal values. Of exponential ones .88, of twice as many not much more."""
    rng, held = np.random.default_rng(0), []
    for _ in range(1000):
        values = rng.standard_normal(n) if kind == "normal" else rng.exponential(1, n) - 1
        low, high = over_participants(values, np.zeros((n, 0)), np.full(n, 20)).interval()
        held.append(low <= 0 <= high)
    assert least <= np.mean(held) <= 0.97


def test_covariance_of_blocks_of_unlike_length() -> None:
    rng = np.random.default_rng(0)
    draws, n_units = rng.standard_normal((2, 60)), [10.0, 25.0]
    plain = np.cov(draws)
    np.testing.assert_allclose(paired_covariance(draws, n_units), plain * [[1, 2.5], [2.5, 1]])
    np.testing.assert_array_equal(paired_covariance(np.zeros((2, 0)), n_units), np.zeros((2, 2)))


def test_holm_by_hand_and_its_levels() -> None:
    p = [0.011, 0.04, 0.012, 0.3, 0.2]
    np.testing.assert_allclose(holm(p), [0.055, 0.12, 0.055, 0.4, 0.4])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.03, np.nan, 0.04])
    assert holm([]).shape == (0,) and holm([0.9, 0.8]).tolist() == [1, 1]
    with pytest.raises(InputError, match="between 0 and 1"):
        holm([0.5, 1.5])
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 9):
        for _ in range(100):
            values = rng.random(size) ** 4
            np.testing.assert_array_equal(values < 1 - holm_levels(values), holm(values) < 0.05)
    np.testing.assert_allclose(holm_levels([0.001, np.nan, 0.02]), [1 - 0.05 / 3, 0.95, 0.975])


def test_families_are_wrong_five_times_in_a_hundred() -> None:
    rng, wrong = np.random.default_rng(0), []
    for _ in range(2000):
        shared = rng.standard_normal() * 0.7 + rng.standard_normal(6) * math.sqrt(0.51)
        p = 2 * scipy.stats.norm.sf(np.abs(shared + np.array([0, 0, 0, 0, 4, 5])))
        wrong.append((holm(p)[:4] < 0.05).any())
    assert 0.02 <= np.mean(wrong) <= 0.055


def test_components_are_those_of_mixed_models() -> None:
    """REML of statsmodels 0.15, ``MixedLM`` with crossed ``vc_formula``, of this table: .05155, .01800, .01186."""
    rng = np.random.default_rng(12)
    y = 0.1 + 0.05 * rng.standard_normal((6, 1)) + 0.03 * rng.standard_normal((1, 3)) + 0.02 * rng.standard_normal((6, 3))
    found = components(y, np.zeros((18, 18)))
    np.testing.assert_allclose(np.sqrt(found[:3]), [0.05155, 0.01800, 0.01186], atol=1.5e-5)
    one = components(y[:, :1], np.eye(6) * 0.0004)
    assert one.people == pytest.approx(y[:, 0].var(ddof=1) - 0.0004) and math.isnan(one.seeds) and math.isnan(one.both)
    shared = components(y, np.full((18, 18), 0.01) + np.eye(18) * 1e-5)  # what all values share is no difference between them
    np.testing.assert_allclose(shared[:3], np.array(found[:3]) - [0, 0, 1e-5], atol=1e-12)


SD = {"participants": 0.04, "seeds": 0.02, "participants_by_seeds": 0.02, "test": 0.03}


def simulated(rng: np.random.Generator, p: int, s: int, sd: dict[str, float]) -> dict[Cell, Sample]:
    """μ = .1; half of the test data's variance is alike in everybody, and all of it in seeds of one participant."""
    values = 0.1 + sd["participants"] * rng.standard_normal((p, 1)) + sd["seeds"] * rng.standard_normal((1, s))
    values = values + sd["participants_by_seeds"] * rng.standard_normal((p, s))
    every = sd["test"] * (rng.standard_normal((1, 301)) + rng.standard_normal((p, 301))) / math.sqrt(2)
    draws = every[:, 1:] * math.sqrt(rng.chisquare(29) / 29)  # as 30 units show the spread
    return {
        Cell("word", "tuned", seed, f"P{who}", 0): Sample(
            values[who, seed] + every[who, 0], values[who, seed] + draws[who], 30, "speakers"
        )
        for who in range(p)
        for seed in range(s)
    }


def test_seeds_that_all_share_widen_the_interval_of_the_mean() -> None:
    """Each seed moves all eight alike: their mean is as unsure as three seeds make it. By hand, and for other seeds' sake."""
    asked, held = [Contrast("word", "word", {"tuned": 1}, "all")], []
    for seed in range(200):
        found = simulated(np.random.default_rng(seed), 8, 3, SD | {"seeds": 0.08})
        (row,) = summary_rows(found, asked, 1)
        held.append(row["low"] <= 0.1 <= row["high"])
    assert 0.92 <= np.mean(held) <= 0.995
    values = np.array([[found[Cell("word", "tuned", k, f"P{who}", 0)].value for k in range(3)] for who in range(8)])
    draws = np.array([[found[Cell("word", "tuned", k, f"P{who}", 0)].draws for k in range(3)] for who in range(8)])
    people = over_participants(values.mean(axis=1), draws.mean(axis=1), np.full(8, 30.0))
    parts = (people.error**2, row["seeds_sd"] ** 2 / 3)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / people.freedom + parts[1] ** 2 / 2)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    assert (row["low"], row["high"]) == pytest.approx((values.mean() - half, values.mean() + half))


@pytest.mark.parametrize(("p", "s"), [(8, 3), (4, 3), (8, 1), (1, 3)])
def test_summaries_find_the_components_and_cover_the_mean(p: int, s: int) -> None:
    """Next to the truth: mean variances within a fifth, and .95 intervals of the mean, and of another participant, that cover."""
    rng, asked = np.random.default_rng(0), [Contrast("word", "word", {"tuned": 1}, "all")]
    sd = SD | ({"seeds": 0.0, "participants_by_seeds": 0.0} if s == 1 else {}) | ({"participants": 0.0} if p == 1 else {})
    rows = [summary_rows(simulated(rng, p, s, sd), asked, 1)[0] for _ in range(400)]
    for name, true in sd.items():
        values = np.array([row[f"{name}_sd"] for row in rows])
        known = {"participants": p > 1, "seeds": s > 1, "participants_by_seeds": p > 1 < s, "test": True}[name]
        assert np.isfinite(values).all() == known
        if known and p > 1:
            assert np.mean(values**2) == pytest.approx(true**2, rel=0.2, abs=1e-5)
    assert 0.92 <= np.mean([row["low"] <= 0.1 <= row["high"] for row in rows]) <= 0.995
    new = 0.1 + rng.standard_normal(400) * math.sqrt(sum(v**2 for name, v in sd.items() if name != "test"))
    if p > 2:
        held = [row["next_low"] <= one <= row["next_high"] for row, one in zip(rows, new, strict=True)]
        assert 0.9 <= np.mean(held) <= 0.995
    assert rows[0]["participants"] == p and rows[0]["seeds"] == s and rows[0]["unit"] == "speakers"


def test_a_summary_of_nobody_in_particular() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.03, 300)
    found = {Cell("word", "mfcc", 0, NOBODY, 0): Sample(0.4, 0.4 + draws, 12, "speakers")}
    (row,) = summary_rows(found, [Contrast("word", "word", {"mfcc": 1}, "late")], 1)
    assert (row["participants"], row["seeds"]) == (0, 1) and math.isnan(row["next_low"]) and math.isnan(row["seeds_sd"])
    half = scipy.stats.t.ppf(0.975, 11) * draws.std(ddof=1)
    assert (row["low"], row["high"]) == pytest.approx((0.4 - half, 0.4 + half))
    assert (
        summary_rows(found, [Contrast("x", "word", {"mfcc": 1}, "late"), Contrast("y", "r", {"mfcc": 1}, "late")], 1)[-1]["name"]
        == "x"
    )
