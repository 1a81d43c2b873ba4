"""Each fault of responses as its smallest array: what is found of it, and that nothing is found of sound ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from fastencode.data.checks import RunSummary, check_responses, constant_targets, run_findings, summarize
from fastencode.data.copies import copy_findings, repeat_findings
from fastencode.data.findings import Finding, warn_of
from fastencode.errors import FastencodeWarning, InputError

ROWS, VOXELS = 80, 30


def brain(seed: int, rows: int = ROWS, voxels: int = VOXELS) -> np.ndarray:
    """Slow noise around a baseline, with a drift, as before any preprocessing."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, voxels))
    for row in range(1, rows):
        values[row] += 0.8 * values[row - 1]
    return values + 1000 * rng.random(voxels) + np.linspace(0, 20, rows)[:, None] * rng.standard_normal(voxels)


def summary(who: str, run: str, values: Any, slab: int = 7) -> RunSummary:
    return summarize(who, run, lambda: (values[top : top + slab] for top in range(0, len(values), slab)))


def kinds(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(one.kind, one.where) for one in findings]


def test_sound_runs_have_no_findings() -> None:
    runs = [summary(who, f"run{k}", brain(10 * ord(who[1]) + k)) for who in ("P1", "P2") for k in range(4)]
    assert run_findings(runs) == [] and copy_findings(runs) == []
    tails = np.random.default_rng(0).standard_t(3, (2000, 50)) + 500
    assert run_findings([summary("P1", "heavy tails", tails)]) == []
    repeats = [brain(k) for k in range(3)]
    assert repeat_findings(summary("P1", "test", np.mean(repeats, axis=0)), [summary("P1", "test", one) for one in repeats]) == []


@pytest.mark.parametrize("slab", [1, 3, 64, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slabs_do_not_matter(slab: int, dtype: type) -> None:
    values = brain(0).astype(dtype)
    values[5], values[:, 3], values[30, 7], values[2, 9] = 1e6, 0, 1e6, np.nan
    whole, parts = summary("P1", "a", values, ROWS), summary("P1", "a", values, slab)
    assert whole.digest == parts.digest and run_findings([whole]) == run_findings([parts])
    np.testing.assert_array_equal(whole.sample, parts.sample)
    check = check_responses(values)
    for name in ("zero", "constant", "not_finite"):
        np.testing.assert_array_equal(getattr(check, name), getattr(parts.check, name))


def test_columns_are_sorted_as_numpy_does_it() -> None:
    values = brain(1)
    values[:, 2], values[:, 4], values[:, 6], values[3, 8], values[4, 9] = 0, -7.5, 1e4, np.inf, np.nan
    check = summary("P1", "a", values).check
    assert [list(check.zero), list(check.constant), list(check.not_finite)] == [[2], [4, 6], [8, 9]]
    finite = np.isfinite(values).all(axis=0)
    np.testing.assert_array_equal(constant_targets(values), (np.ptp(values, axis=0) == 0) & finite)
    integers = np.arange(12).reshape(6, 2)
    assert list(check_responses(np.hstack([integers, 0 * integers + 3])).constant) == [2, 3]


def test_a_run_of_zeros() -> None:
    runs = [summary("P1", "a", np.zeros((ROWS, VOXELS))), summary("P1", "b", brain(1)), summary("P1", "c", np.zeros((9, VOXELS)))]
    found = run_findings(runs)
    assert kinds(found) == [("zero", "P1, a"), ("zero", "P1, c")]
    assert str(found[0]) == "P1, a: all 30 voxels are 0 in all rows; fetch or make the file again, or leave the run out"
    assert copy_findings(runs) == [], "that both are 0 is said once"
    assert kinds(run_findings(runs[:1])) == [("zero", "P1, a")]


def test_constant_voxels_in_one_run_only() -> None:
    values = [brain(k) for k in range(3)]
    for one in values:
        one[:, 25:] = 0  # outside the brain
    values[1][:, :4] = 5.0
    values[2][7, 9] = np.nan
    found = run_findings([summary("P1", f"run{k}", one) for k, one in enumerate(values)])
    assert kinds(found) == [("constant", "P1, run1"), ("not finite", "P1, run2")]
    assert found[0].evidence == "4 of 30 voxels are constant in all rows (first 0, 1, 2, 3)"
    assert found[1].evidence.startswith("1 of 30 voxels are not finite (NaN or infinity) in some row (first 9)")


@pytest.mark.parametrize("value", [1e6, -1e6, 1e30, np.inf])
@pytest.mark.parametrize("rows", [[0], [40], [79, 12, 13]])
def test_wild_scans_are_named(value: float, rows: list[int]) -> None:
    values = brain(2)
    values[rows] = value
    found = run_findings([summary("P1", "a", values)])
    spikes = [one for one in found if one.kind == "spike"]
    assert {one.kind for one in found} == {"spike"} | ({"not finite"} if np.isinf(value) else set()), "no voxel is blamed"
    assert [one.evidence for one in spikes] == [
        f"{len(rows)} of 80 rows lie more than 20 standard deviations away: {', '.join(map(str, sorted(rows)))}"
    ]


def test_a_wild_value_is_told_from_a_wild_scan() -> None:
    values = brain(2)
    values[50, 11] = 1e6
    (found,) = run_findings([summary("P1", "a", values)])
    assert (found.kind, found.evidence) == ("outlier", "1 of 30 voxels have a value more than 100 standard deviations away")
    values = brain(2, voxels=300)
    values[20, ::3], values[50, 11] = 1e6, 1e6
    found = run_findings([summary("P1", "a", values)])
    assert [one.kind for one in found] == ["spike", "outlier"] and found[1].evidence.startswith("1 of 300 voxels")


def test_a_run_that_is_a_copy_of_another() -> None:
    one, other = brain(3), brain(4)
    for copy, said in [
        (one, "are those of a in 80 of 80 rows"),
        (one.astype(np.float32), "are those of a in 80 of 80 rows"),
        (2 * one - 7, "are those of a in 80 of 80 rows, up to scale or rounding"),
        (one[:50], "are those of a in 50 of 50 rows"),
    ]:
        (found,) = copy_findings([summary("P1", "a", one), summary("P1", "b", other), summary("P1", "c", copy)])
        assert (found.kind, found.where) == ("copy", "P1, c") and found.evidence.endswith(said)
    noisy = one + 0.2 * np.random.default_rng(0).standard_normal(one.shape)
    assert copy_findings([summary("P1", "a", one), summary("P1", "c", noisy)]) == []


def test_a_participant_who_is_a_copy_of_another() -> None:
    runs = [brain(k) for k in range(3)]
    people = [summary("P1", name, values) for name, values in zip("abc", runs, strict=True)]
    copies = [summary("P2", name, values) for name, values in zip("abc", runs, strict=True)]
    (found,) = copy_findings([*people, *copies])
    assert str(found) == (
        "P2: the responses to 3 of 3 runs are those of P1: a, b, c;"
        " fetch or make the files of P2 and P1 again, or leave one of them out"
    )
    renamed = [summary("P2", "a", brain(9)), summary("P2", "d", 1 * runs[1])]
    (found,) = copy_findings([*people, *renamed])
    assert found.evidence == "the responses to 1 of 1 runs are those of P1: d = b"


def test_equal_repeats() -> None:
    one, other = brain(5), brain(6)
    repeats = [summary("P1", "test", values) for values in (one, other, one)]
    (found,) = repeat_findings(summary("P1", "test", np.mean([one, other, one], axis=0)), repeats)
    assert (found.kind, found.evidence) == ("equal repeats", "of 3 repeats these are equal: 1 and 3")


def test_a_mean_that_is_not_that_of_its_repeats() -> None:
    repeats = [brain(k) for k in range(5)]
    singles, mean = [summary("P1", "test", one) for one in repeats], np.mean(repeats, axis=0)
    scores = [(one - one.mean(axis=0)) / one.std(axis=0) for one in repeats]
    for right in (mean, 3 * mean + 1, mean.astype(np.float32), np.mean(scores, axis=0)):
        assert repeat_findings(summary("P1", "test", right), singles) == []
    noise = np.random.default_rng(7).standard_normal((6, ROWS, VOXELS))
    singles = [summary("P1", "test", one) for one in noise[:5]]
    for wrong in (noise[0], noise[5], noise[:4].mean(axis=0)):
        (found,) = repeat_findings(summary("P1", "test", wrong), singles)
        assert found.kind == "not the mean" and "with the mean of its 5 repeats by" in found.evidence
    (found,) = repeat_findings(summary("P1", "test", noise[:5].mean(axis=0)[:60]), singles)
    assert (found.kind, found.evidence) == ("not the mean", "the mean has 60 rows, its repeats have 80")


@pytest.mark.parametrize("shift", [-4, -1, 1, 3])
def test_a_mean_that_is_shifted(shift: int) -> None:
    noise = np.random.default_rng(8).standard_normal((5, ROWS, VOXELS))
    singles = [summary("P1", "test", one) for one in noise]
    (found,) = repeat_findings(summary("P1", "test", np.roll(noise.mean(axis=0), shift, axis=0)), singles)
    direction = "later" if shift > 0 else "earlier"
    assert found.kind == "shifted" and f"that of its repeats {abs(shift)} rows {direction}" in found.evidence
    assert f"shift the mean by {-shift} rows" in found.remedy


def test_memory_is_that_of_a_slab() -> None:
    def slabs() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for _ in range(60):
            yield rng.standard_normal((16, 20_000), dtype=np.float32)  # 1.3 MB; 77 MB in all

    tracemalloc.start()
    summarize("P1", "a", slabs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_what_cannot_be_read_is_named() -> None:
    for slabs, words in [
        ([], "P1, a: there are no rows of responses"),
        ([np.zeros(3)], r"P1, a: shape \(3,\)"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "P1, a: a part has 4 voxels, others 3"),
    ]:
        with pytest.raises(InputError, match=words):
            summarize("P1", "a", lambda slabs=slabs: slabs)


def test_findings_become_warnings_at_the_callers_line() -> None:
    with pytest.warns(FastencodeWarning, match="^P1: seen; do$") as caught:
        warn_of([Finding("copy", "P1", "seen", "do")])
    assert caught[0].filename == __file__
