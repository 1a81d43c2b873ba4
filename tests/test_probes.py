"""Scores, draws, baselines and controls of probes against scikit-learn and naive loops; what is refused; real digits."""

from __future__ import annotations

import sys
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.acoustics import mfcc
from fastencode.speech.audio import read_audio
from fastencode.study.probes import PENALTIES, ProbeResult, load_probe, probe, save_probe
from fastencode.study.probing import metrics as probing_metrics
from fastencode.study.probing.metrics import crossed, draw_units, drawn_scores, effective, ends, scores, sums
from probe_cases import by_speaker, speech

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


def outcome(task, n=300, k=5, seed=0):
    """Truth and prediction, of rows that are right more often than not, and the unit of each row."""
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 12, n)
    if task == "classification":
        y = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
        return y, np.where(rng.random(n) < 0.6, y, rng.integers(0, k, n)), units
    if task == "multilabel":
        y = rng.random((n, k)) < np.linspace(0.1, 0.9, k)
        return y, y ^ (rng.random((n, k)) < 0.2), units
    y = 5 + rng.standard_normal((n, k))
    return y, y + rng.standard_normal((n, k)) * np.linspace(0.3, 1.2, k), units


def by_sklearn(task, y, z):
    if task == "regression":
        each = metrics.r2_score(y, z, multioutput="raw_values")
        return {"r2": each.mean(), **{f"r2: {t}": one for t, one in zip("abcde", each, strict=True)}}
    right = metrics.accuracy_score(y, z) if task == "classification" else (y == z).mean()
    return {
        "accuracy": right,
        "f1_macro": metrics.f1_score(y, z, average="macro", labels=np.unique(y) if task == "classification" else None),
        "f1_micro": metrics.f1_score(y, z, average="micro"),
    }


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_metrics_are_those_of_scikit_learn_for_all_rows_and_for_drawn_speakers(task):
    y, z, units = outcome(task)
    found = sums(task, y, z, units, 12, 5)
    for name, value in by_sklearn(task, y, z).items():
        assert scores(task, found.sum(axis=0), "abcde")[name] == pytest.approx(value, abs=1e-12), name
    counts = draw_units(12, 20, 3)
    assert counts.sum(axis=1).tolist() == [12] * 20
    metric = "r2" if task == "regression" else "f1_macro"
    naive = []
    for count in counts:
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in range(12) for _ in range(count[unit])])
        naive.append(by_sklearn(task, y[rows], z[rows])[metric])
    drawn = drawn_scores(task, found, counts, metric)
    u = len(units) ** 2 / np.sum(np.bincount(units) ** 2)  # Kish: speakers have unlike numbers of rows
    assert effective(found[:, 0]) == pytest.approx(u) and u < 12
    naive = np.mean(naive) + np.sqrt(u / (u - 1)) * (naive - np.mean(naive))
    np.testing.assert_allclose(drawn, naive, atol=1e-12)


def test_a_class_that_was_not_drawn_does_not_count():
    y, z = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0])
    found = sums("classification", y, z, np.arange(6), 6, 3)
    assert scores("classification", found[:4].sum(axis=0))["f1_macro"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def world(rng, n_speakers, per_speaker, k, accuracy, spread):
    """Answers of speakers whose accuracies differ: on the logit scale by ``spread``, and half as much for each word."""
    units = np.repeat(np.arange(n_speakers), per_speaker)
    y = rng.integers(0, k, len(units))
    logit = accuracy + spread * (rng.standard_normal(n_speakers)[units] + 0.5 * rng.standard_normal((n_speakers, k))[units, y])
    wrong = (y + rng.integers(1, k, len(units))) % k
    return y, np.where(rng.random(len(units)) < 1 / (1 + np.exp(-logit)), y, wrong), units


@pytest.mark.parametrize(("n_speakers", "metric"), [(6, "accuracy"), (24, "f1_macro")])
def test_intervals_over_speakers_hold_the_truth_as_often_as_they_say(n_speakers, metric):
    """Of speakers with an intraclass correlation of .1; intervals over rows hold it far less often."""
    rng, hits = np.random.default_rng(0), {"speakers": 0, "rows": 0}
    truth = scores("classification", sums("classification", *world(rng, 4000, 40, 5, 1.0, 0.8), 4000, 5).sum(axis=0))[metric]
    for seed in range(150):
        y, z, units = world(rng, n_speakers, 40, 5, 1.0, 0.8)
        for name, of in (("speakers", units), ("rows", np.arange(len(y)))):
            n = of.max() + 1
            found = sums("classification", y, z, of, n, 5)
            drawn = drawn_scores("classification", found, draw_units(n, 200, seed), metric)
            low, high = ends(metric, scores("classification", found.sum(axis=0))[metric], drawn, n)
            hits[name] += low <= truth <= high
    assert 0.90 <= hits["speakers"] / 150 <= 0.99 and hits["rows"] / 150 < 0.8


def covered(answers, truth, kinds, seeds=200):
    """The share of .95 intervals of an accuracy that hold the truth; ``answers(rng)``: right or wrong, and units of each kind."""
    held = []
    for seed in range(seeds):
        right, *units = answers(np.random.default_rng(seed))
        zeros, drawn, n = np.zeros(len(right), int), [], np.inf
        for kind in kinds:
            of = units[kind]
            found = sums("classification", zeros, np.where(right, 0, 1), of, of.max() + 1, 2)
            drawn.append(drawn_scores("classification", found, draw_units(of.max() + 1, 200, (kind, 7)), "accuracy"))
            n = min(n, effective(found[:, 0]))
        low, high = ends("accuracy", right.mean(), drawn[0] if len(kinds) == 1 else crossed(*drawn), n)
        held.append(low <= truth <= high)
    return np.mean(held)


@pytest.mark.parametrize("n", [12, 24])
def test_intervals_over_speakers_of_unlike_size_hold_the_truth(n, monkeypatch):
    """Few speakers with most of the rows tell little about others: counted by their sizes .95, by their number .9."""

    def answers(rng, n=n):
        rows = np.maximum(2, rng.lognormal(2.5, 1.0, n)).astype(int)
        units = np.repeat(np.arange(n), rows)
        return rng.random(len(units)) < 1 / (1 + np.exp(-0.8 - 0.8 * rng.standard_normal(n)[units])), units

    truth = answers(np.random.default_rng(1), 40000)[0].mean()
    by_size = covered(answers, truth, [0])
    for module in (probing_metrics, sys.modules[__name__]):
        monkeypatch.setattr(module, "effective", len)
    by_number = covered(answers, truth, [0])
    assert 0.92 <= by_size <= 0.98 and by_number < by_size - 0.015


def test_intervals_over_words_that_were_not_heard_hold_the_truth():
    """Fourteen speakers say some of twenty words, which differ more than they do: over speakers alone .95 intervals hold .8."""

    def answers(rng):
        units, words = np.divmod(np.arange(14 * 20), 20)
        said = rng.random(280) < 0.5
        z = 0.3 + 0.3 * rng.standard_normal(14)[units] + 1.2 * rng.standard_normal(20)[words]
        return (rng.random(280) < 1 / (1 + np.exp(-z)))[said], units[said], words[said]

    truth = np.mean([answers(np.random.default_rng(10**6 + seed))[0].mean() for seed in range(2000)])
    assert 0.93 <= covered(answers, truth, [0, 1]) <= 0.99 and covered(answers, truth, [0]) < 0.85


def test_validation_rows_of_speakers_in_train_are_told():
    X, y, who = speech(400, 8, 3)
    split = np.where(by_speaker(who) == "test", "test", np.where(np.arange(400) % 4, "train", "validation"))
    with pytest.warns(FastencodeWarning, match="speakers of the validation rows are in train, the first 0"):
        probe(X, y, who, split=split, bootstraps=0)


def test_words_are_resampled_beside_speakers():
    rng = np.random.default_rng(0)
    X, y, who = speech(600, 20, 3)
    words = np.array([f"{label} {k}" for label, k in zip(y, rng.integers(0, 4, 600), strict=True)])
    split = by_speaker(who)
    alone, both = (probe(X, y, who, split=split, items=items) for items in (None, words))
    n_speakers = len(set(who[split == "test"]))
    assert (alone.unit, alone.n_units) == ("speakers", n_speakers) and both.unit == "speakers and texts"
    assert both.n_units == min(n_speakers, 12) and both.score == alone.score and not np.array_equal(both.draws, alone.draws)
    again = probe(2 * X, y, who, split=split, items=words)
    assert np.array_equal(again.draws, both.draws), "draws are paired between models"
    with pytest.raises(InputError, match="all test rows are of the item 'x'"):
        probe(X, y, who, split=split, items=["x"] * 600)


def test_intervals_end_where_no_score_can_be():
    draws = np.random.default_rng(0).normal([0.97, 0.02], 0.05, (200, 2))
    low, high = ends("accuracy", [0.97, 0.02], draws, 10)
    assert high[0] == 1 and low[1] == 0 and low[0] < 0.97 and high[1] > 0.02
    assert ends("r2", -0.1, draws[:, 1] - 0.12, 10)[0] < -0.15


def test_draws_are_paired_between_layers_and_models():
    """The same features in another unit, in another call and as another layer: differences of draws are 0."""
    X, y, who = speech(400, 20, 4, signal=0.5, dtype=np.float64)
    split = by_speaker(who)
    two = probe(np.stack([X, 2 * X], axis=1), y, who, split=split, bootstraps=50)
    again = probe(X, y, [f"speaker {one:03d}" for one in who], split=split, bootstraps=50)
    assert np.array_equal(two.draws[0], two.draws[1]) and np.array_equal(two.draws[0], again.draws[0])
    assert not np.array_equal(two.draws, probe(X, y, who, split=split, bootstraps=50, seed=1).draws)
    assert two.draws[0].std() > 0 and two.baseline_draws.shape == (50,) and two.baseline_draws.std() > 0


def test_baselines_are_those_of_scikit_learn():
    dummy = pytest.importorskip("sklearn.dummy")
    X, y, who = speech(400, 5, 4)
    y = np.where(y == 3, 2, y)
    split = by_speaker(who)
    train, test = split == "train", split == "test"
    found = probe(X, y, who, split=split)
    guess = dummy.DummyClassifier(strategy="most_frequent").fit(X[train], y[train]).predict(X[test])
    assert found.metric == "f1_macro" and found.baseline == pytest.approx(metrics.f1_score(y[test], guess, average="macro"))
    assert found.baselines["accuracy"] == pytest.approx((guess == y[test]).mean())
    several = np.column_stack([y == 0, y != 0, y == 1])
    found = probe(X, several, who, split=split, task="multilabel")
    guess = np.tile([False, True, False], (test.sum(), 1))
    assert found.metric == "f1_macro" and found.baseline == pytest.approx(metrics.f1_score(several[test], guess, average="macro"))
    target = X[:, :2].astype(float)
    found = probe(X, target, who, split=split, task="regression")
    guess = dummy.DummyRegressor().fit(X[train], target[train]).predict(X[test])
    assert found.metric == "r2" and found.baseline == pytest.approx(metrics.r2_score(target[test], guess))


def test_a_regression_is_ridge_at_the_penalty_of_held_out_speakers():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import PredefinedSplit, cross_val_score

    from fastencode.study.probing.input import group_folds

    X, _, who = speech(400, 60, 4, accent=1.5, dtype=np.float64)
    rng = np.random.default_rng(0)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    Y = Z @ rng.standard_normal((60, 3)) * 0.1 + rng.standard_normal((400, 3)) * [1, 2, 3]
    split, penalties = by_speaker(who), np.logspace(0, 4, 9)
    train = split == "train"
    found = probe(X, Y, who, split=split, task="regression", penalties=penalties, names=["c1", "c2", "c3"])
    Z, mean = (X - X[train].mean(axis=0)) / X[train].std(axis=0), Y[train].mean(axis=0)
    folds = PredefinedSplit(group_folds(who[train], 5))
    naive = [cross_val_score(Ridge(alpha=alpha), Z[train], Y[train], cv=folds, scoring="r2").mean() for alpha in penalties]
    np.testing.assert_allclose(found.held_out[0], naive, atol=1e-6)
    assert found.penalty[0] == penalties[int(np.argmax(naive))] and found.at_edge[0] == 0
    predicted = Ridge(alpha=found.penalty[0]).fit(Z[train], Y[train] - mean).predict(Z[~train]) + mean
    each = metrics.r2_score(Y[~train], predicted, multioutput="raw_values")
    assert [found.metrics[f"r2: c{t}"][0] for t in (1, 2, 3)] == pytest.approx(each, abs=1e-6)
    assert found.score[0] == pytest.approx(each.mean(), abs=1e-6) and found.classes == ("c1", "c2", "c3")


def test_the_layer_that_carries_the_words_is_found():
    rng = np.random.default_rng(0)
    y, who = rng.integers(0, 4, 600), rng.integers(0, 15, 600)
    X = rng.standard_normal((600, 3, 20)) + np.array([0.0, 0.7, 2.5])[:, None] * np.eye(4, 20)[y][:, None]
    found = probe(X, np.array(["no", "yes", "up", "down"])[y], who, split=by_speaker(who))
    assert found.metric == "accuracy" and found.classes == ("down", "no", "up", "yes")
    assert all(a + 0.05 < b for a, b in pairwise(found.score)) and found.low[2] > found.baseline > found.low[0]
    assert (found.low < found.score).all() and (found.score < found.high).all() and found.high[2] <= 1
    assert found.n_train + found.n_test == 600 and found.unit == "speakers" and found.n_units == len(set(who[who >= 10.5]))


def test_features_may_come_layer_by_layer():
    X, y, who = speech(300, 8, 3)
    X = np.stack([X, X[:, ::-1] * 2, np.roll(X, 1, axis=0)], axis=1)
    split = by_speaker(who)

    class Packed:
        n_layers = 3

        def rows(self, layer):
            return X[:, layer]

    whole = probe(X, y, who, split=split)
    for other in (probe(Packed(), y, who, split=split), probe(lambda layer: X[:, layer], y, who, split=split, n_layers=3)):
        assert np.array_equal(whole.score, other.score) and np.array_equal(whole.held_out, other.held_out, equal_nan=True)


def test_a_control_without_types_is_at_chance_and_one_of_types_can_be_learned():
    """Phones of twelve words: the control of words is learned as well as the words can be told apart; rows alone are not."""
    rng = np.random.default_rng(0)
    words, who = rng.integers(0, 12, 900), rng.integers(0, 15, 900)
    phones, X = words % 3, rng.standard_normal((12, 20))[words] + rng.standard_normal((900, 20))
    split = by_speaker(who)
    plain, typed = (probe(X, phones, who, split=split, control=4, types=types) for types in (None, words))
    assert plain.score == typed.score and plain.control[0] < 0.42 and typed.control[0] > 0.8
    assert plain.control_draws.shape == plain.draws.shape and plain.control_seed == 4
    again = probe(X, phones, who, split=split, control=4)
    assert np.array_equal(again.control_draws, plain.control_draws)
    assert probe(X, phones, who, split=split, control=5).control != plain.control
    assert probe(X, phones, who, split=split).control is None


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_controls_of_other_tasks_are_at_chance(task):
    X, y, who = speech(600, 10, 4)
    labels = np.eye(4, dtype=bool)[y] if task == "multilabel" else X[:, :3].astype(float)
    found = probe(X, labels, who, split=by_speaker(who), task=task, control=0)
    assert found.score[0] > 0.7 and found.control[0] < 0.2


def same(a, b):
    for field in fields(ProbeResult):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert type(one) is type(other), field.name
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True), field.name
        elif field.name == "metrics":
            assert list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)
        else:
            assert one == other, field.name


@pytest.mark.parametrize("control", [None, 3])
def test_what_was_saved_is_read_again(tmp_path, control):
    X, y, who = speech(300, 8, 3)
    for labels, task in ((y, "classification"), (X[:, :2] * [1, 2], "regression")):
        found = probe(X, labels, who, split=by_speaker(who), task=task, control=control, bootstraps=20)
        save_probe(found, tmp_path / "probe.h5")
        same(found, load_probe(tmp_path / "probe.h5"))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_probe(tmp_path / "probe.h5")
    (tmp_path / "probe.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="damaged"):
        load_probe(tmp_path / "probe.h5")
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="not a probe"):
        load_probe(tmp_path / "other.h5")


X, Y, WHO = speech(200, 5, 3, speakers=14)
SPLIT = by_speaker(WHO)
ALIKE = np.where(SPLIT == "test", 1.0, Y)
WRONG = {
    "rows of features": ({"features": X[:-1]}, "199, 5.*200 labels"),
    "rows of labels": ({"labels": Y[:-1]}, "labels has shape .199"),
    "rows of groups": ({"groups": WHO[:-1]}, "groups has shape .199"),
    "NaN features": ({"features": np.where(np.arange(200)[:, None] == 7, np.nan, X)}, "NaN or infinite values in 1 rows.*row 7"),
    "text features": ({"features": X.astype(str)}, "layer 0 has dtype <U32"),
    "one number": ({"features": np.zeros(200)}, "features has shape"),
    "a function alone": ({"features": lambda layer: X}, "n_layers=13"),
    "mixed labels": ({"labels": ["a", *[int(y) for y in Y[1:]]]}, "text .'a'., integer"),
    "mixed objects": ({"labels": np.array(["a", *[int(y) for y in Y[1:]]], dtype=object)}, "text .'a'., integer"),
    "missing labels": ({"labels": [None, *map(str, Y[1:])]}, "missing values .None."),
    "fractions": ({"labels": Y + 0.5}, "dtype float64: give text or integers"),
    "missing speakers": ({"groups": [None, *map(str, WHO[1:])]}, "groups holds missing values"),
    "no such split": ({"split": np.where(SPLIT == "test", "dev", "train")}, "split holds 'dev'"),
    "no test": ({"split": np.full(200, "train")}, "no 'test' row"),
    "no train": ({"split": np.full(200, "test")}, "no 'train' row"),
    "one class": ({"labels": np.full(200, "a")}, "all rows have the label 'a'"),
    "one class in test": ({"labels": np.where(SPLIT == "test", 1, Y)}, "all test rows have the label '1'"),
    "absent from train": ({"labels": np.where((SPLIT == "test") & (Y == 1), 9, Y)}, "'9' has no row of the train"),
    "one speaker in train": ({"groups": np.where(SPLIT == "train", 0, WHO)}, "all train rows are of one speaker"),
    "one speaker in test": ({"groups": np.where(SPLIT == "test", 99, WHO)}, "all test rows are of one speaker"),
    "each class one speaker's": ({"groups": np.where(SPLIT == "train", Y, WHO + 10)}, "no held-out row has a label"),
    "no such task": ({"task": "words"}, "task='words'"),
    "no such metric": ({"metric": "r2"}, "metric='r2'"),
    "no such penalty": ({"penalties": [0, 1]}, "penalties="),
    "draws": ({"bootstraps": -1}, "bootstraps=-1"),
    "seed": ({"seed": 0.5}, "seed=0.5"),
    "flat labels": ({"task": "multilabel"}, "number of labels"),
    "counts as labels": ({"task": "multilabel", "labels": np.eye(3)[Y] * 2}, "True .present. and False"),
    "label absent": ({"task": "multilabel", "labels": np.eye(4)[Y], "names": list("abcd")}, "'d' is on no row of the train"),
    "NaN target": ({"task": "regression", "labels": np.where(np.arange(200) == 3, np.nan, Y)}, "in 1 of 200 rows"),
    "constant target": ({"task": "regression", "labels": ALIKE}, "'0' is the same on all rows of the test"),
    "text as target": ({"task": "regression", "labels": Y.astype(str)}, "takes numbers"),
    "names": ({"task": "regression", "labels": X, "names": ["a"]}, "names has 1"),
    "types": ({"control": 0, "types": WHO[:-1]}, "types has shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_probed_is_said_at_once(case):
    changed, message = WRONG[case]
    given = {"features": X, "labels": Y, "groups": WHO, "split": SPLIT, **changed}
    with pytest.raises(InputError, match=message):
        probe(given.pop("features"), given.pop("labels"), given.pop("groups"), **given)


def test_a_class_of_train_only_is_no_class_of_the_mean():
    """It may be predicted, which is a mistake; it counts in the loss and in no mean."""
    other = np.where((SPLIT == "train") & (Y == 1) & (np.arange(200) < 90), 3, Y)
    found = probe(X, other, WHO, split=SPLIT)
    f1 = [found.metrics[f"f1: {name}"][0] for name in range(4)]
    assert found.classes == ("0", "1", "2", "3") and f1[3] == 0
    np.testing.assert_allclose(found.metrics["f1_macro"], np.mean(f1[:3]))


def test_few_speakers_have_no_interval():
    with pytest.warns(FastencodeWarning, match="of 2 speakers: intervals are NaN"):
        found = probe(X, Y, WHO, split=np.where(WHO < 12, "train", "test"))
    assert np.isnan(found.low) and found.score[0] > 0.5
    none = probe(X, Y, WHO, split=np.where(WHO < 13, "train", "test"), bootstraps=0)
    assert np.isnan(none.low) and none.draws.shape == (1, 0) and none.n_units == 1


def test_constant_and_empty_features_score_as_the_baseline():
    labels = np.where(np.arange(200) % 4, Y, 2)
    found = probe(np.stack([X * 0 + 3, X], axis=1), labels, WHO, split=SPLIT, bootstraps=0)
    assert found.score[0] == found.baseline < found.score[1]


def test_nothing_given_is_changed():
    given = X.copy(), Y.copy(), WHO.copy(), SPLIT.copy()
    probe(X, Y, WHO, split=SPLIT, control=0, bootstraps=0)
    assert all(np.array_equal(*pair) for pair in zip(given, (X, Y, WHO, SPLIT), strict=True))


def test_grids_reach_far_enough():
    assert all(len(grid) >= 15 and grid[-1] / grid[0] >= 1e6 for grid in PENALTIES.values())


def test_real_digits_of_speakers_who_were_left_out(shared_data):
    """Six speakers, one left out at a time, MFCC means and deviations: .68 on average; random splits know the voice: far more."""
    from sklearn.linear_model import LogisticRegression

    folder = shared_data / "speech" / "digits"
    files = sorted(folder.glob("*.wav"))
    assert len(files) == 240, f"{folder} has {len(files)} digits and not 240"
    digits, speakers = (np.array([path.stem.split("_")[part] for path in files]) for part in (0, 1))
    cepstra = [mfcc(read_audio(path, sample_rate=8000), 8000, energy="c0", deltas=1) for path in files]
    features = np.array([np.concatenate([one.mean(axis=0), one.std(axis=0)]) for one in cepstra], np.float64)
    left_out = []
    for speaker in np.unique(speakers):
        test = speakers == speaker
        found = probe(features, digits, speakers, split=np.where(test, "test", "train"), bootstraps=0)
        Z = (features - features[~test].mean(axis=0)) / features[~test].std(axis=0)
        theirs = LogisticRegression(C=1 / found.penalty[0], tol=1e-8, max_iter=2000).fit(Z[~test], digits[~test])
        assert found.score[0] == pytest.approx(theirs.score(Z[test], digits[test]), abs=0.0251)  # one of 40 digits
        assert found.metric == "accuracy" and found.baseline == pytest.approx(0.1) and found.n_test == 40
        left_out.append(found.score[0])
    assert 0.65 < np.mean(left_out) < 0.71
    mixed = np.where(np.random.default_rng(0).permutation(240) < 200, "train", "test")
    assert probe(features, digits, split=mixed).score[0] > np.mean(left_out) + 0.1
