"""Tables of probes: what their columns hold, seeds averaged, targets together, and the best layer."""

from __future__ import annotations

import numpy as np
import pytest

from fastencode.study.findings.probe_tables import best_rows, probe_rows, target_rows
from fastencode.study.probes import ProbeResult, probe

NAMES = ["c1 at 1/2", "c1 at 2/2", "c0 at 1/2", "c0 at 2/2"]


def made(seed: int, *, task: str = "classification", control: int | None = None, groups: bool = True) -> ProbeResult:
    """A probe of 3 layers; the later, the more of the labels. Test speakers and draws are the same whatever the seed."""
    rng = np.random.default_rng(3)
    speakers = np.repeat(np.arange(12), 12)
    labels = rng.integers(0, 3, 144) if task == "classification" else rng.standard_normal((144, 4))
    noise = np.random.default_rng(seed)
    known = np.eye(3)[labels] if task == "classification" else labels
    features = noise.standard_normal((144, 3, 6))
    features[:, :, : known.shape[1]] += np.arange(3)[:, None] * known[:, None]
    split = np.where(speakers < 7, "train", "test")
    return probe(
        features,
        labels,
        speakers if groups else None,
        split=split,
        task=task,
        control=control,
        bootstraps=200,
        names=None if task == "classification" else NAMES,
    )


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str, str, str], ProbeResult]:
    return {
        ("word", "pretrained", "", ""): made(0, control=5),
        ("word", "tuned", "A", "1"): made(1),
        ("word", "tuned", "A", "2"): made(2),
        ("mfcc", "pretrained", "", ""): made(3, task="regression"),
    }


def test_columns(results: dict[tuple[str, str, str, str], ProbeResult]) -> None:
    rows = probe_rows(results)
    assert [(row["task"], row["model"], row["participant"], row["layer"]) for row in rows] == [
        (*names, layer)
        for names in (("word", "pretrained", ""), ("word", "tuned", "A"), ("mfcc", "pretrained", ""))
        for layer in range(3)
    ]
    columns = "task metric model participant layer score low high baseline control selectivity n_train n_test n_units unit"
    assert list(rows[0]) == [*columns.split(), "penalty", "at_edge"]
    one = results["word", "pretrained", "", ""]
    for layer, row in enumerate(rows[:3]):
        for name in ("score", "low", "high", "control", "penalty"):
            assert row[name] == getattr(one, name)[layer], name
        assert row["selectivity"] == one.score[layer] - one.control[layer]
        assert row["baseline"] == one.baseline and row["unit"] == "speakers" and row["at_edge"] == (one.at_edge[layer] != 0)
        assert (row["n_train"], row["n_test"], row["n_units"]) == (84, 60, 5)
    assert all(np.isnan(row["control"]) and np.isnan(row["selectivity"]) for row in rows[3:])


def test_seeds_are_averaged_with_the_interval_of_their_mean(results: dict[tuple[str, str, str, str], ProbeResult]) -> None:
    rows = probe_rows(results)[3:6]
    first, second = results["word", "tuned", "A", "1"], results["word", "tuned", "A", "2"]
    from scipy.stats import t

    for layer, row in enumerate(rows):
        assert row["score"] == pytest.approx((first.score[layer] + second.score[layer]) / 2)
        spread = ((first.draws[layer] + second.draws[layer]) / 2).std(ddof=1)
        assert row["high"] == pytest.approx(min(row["score"] + t.ppf(0.975, 4) * spread, 1), rel=0.02)


def test_targets_are_means_over_their_points(results: dict[tuple[str, str, str, str], ProbeResult]) -> None:
    rows = [row for row in target_rows(results) if row["task"] == "mfcc"]
    one = results["mfcc", "pretrained", "", ""]
    assert [(row["layer"], row["target"]) for row in rows] == [(layer, name) for layer in range(3) for name in ("c1", "c0")]
    for row in rows:
        points = [one.metrics[f"r2: {row['target']} at {part}/2"][row["layer"]] for part in (1, 2)]
        assert row["metric"] == "r2" and row["score"] == pytest.approx(np.mean(points))
    whole = [np.mean([row["score"] for row in rows if row["layer"] == layer]) for layer in range(3)]
    np.testing.assert_allclose(whole, one.score)


def test_f1_of_each_class_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the reference is scikit-learn")
    from fastencode.study.probing.metrics import scores, sums

    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 50))
    found = scores(
        "classification", sums("classification", truth, predicted, np.zeros(50, int), 1, 3).sum(axis=0), ["a", "b", "c"]
    )
    expected = metrics.f1_score(truth, predicted, average=None)
    np.testing.assert_allclose([found[f"f1: {name}"] for name in "abc"], expected)
    result = made(1)
    rows = target_rows({("word", "m", "", ""): result})
    assert [row["target"] for row in rows[:3]] == ["0", "1", "2"] and {row["metric"] for row in rows} == {"f1"}
    mean = [np.mean([row["score"] for row in rows if row["layer"] == layer]) for layer in range(3)]
    np.testing.assert_allclose(mean, result.metrics["f1_macro"])


def test_the_best_layer(results: dict[tuple[str, str, str, str], ProbeResult]) -> None:
    best = best_rows(probe_rows(results))
    assert [(row["task"], row["model"], row["layer"]) for row in best] == [
        ("word", "pretrained", 2),
        ("word", "tuned", 2),
        ("mfcc", "pretrained", 2),
    ]
