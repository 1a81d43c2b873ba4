"""The classifiers of probes against scikit-learn at the same penalty, and the choice of a penalty against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest

from fastencode.errors import FastencodeWarning
from fastencode.study.probes import probe
from fastencode.study.probing import classifiers as linear_classifiers
from fastencode.study.probing.classifiers import Curvature, Labels, Objective, decisions, held_out_loss, minimise, priors, workers
from fastencode.study.probing.input import group_folds
from fastencode.threads import limit_threads
from probe_cases import by_speaker, naive_folds, naive_loss, speech

sklearn = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
DTYPES = (np.float32, np.float64)


def standard(X):
    X = X.astype(np.float64)
    return (X - X.mean(axis=0)) / X.std(axis=0)


def fitted(X, values, k, alpha, tolerance, ranges=None):
    labels, ranges = Labels(values, k), ranges or [(0, len(X))]
    with workers() as pool:
        start = priors(labels, ranges, X.shape[1], X.dtype)
        return minimise(Objective(X, labels, ranges, pool), start, alpha, Curvature.of(X, pool), tolerance=tolerance)


def by_sklearn(X, y, alpha):
    """Weights (d, k) and intercepts of one multinomial problem, or of each label."""
    options = {"C": 1 / alpha, "tol": 1e-10, "max_iter": 5000}
    if y.ndim == 1:
        fit = sklearn.LogisticRegression(**options).fit(X, y)
        return fit.coef_.T, fit.intercept_
    fits = [sklearn.LogisticRegression(**options).fit(X, one) for one in y.T]
    return np.concatenate([fit.coef_ for fit in fits]).T, np.concatenate([fit.intercept_ for fit in fits])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [300.0, 1.0, 0.03])
@pytest.mark.parametrize("several", [False, True])
def test_weights_losses_and_decisions_are_those_of_scikit_learn(dtype, alpha, several):
    X, y, _ = speech(2500, 30, 6, signal=0.2)  # three tiles
    X, truth = standard(X), np.eye(6)[y] + np.eye(6)[(y * 2) % 6] > 0 if several else y
    W, b = by_sklearn(X, truth, alpha)
    theta = fitted(X.astype(dtype), truth.astype(dtype) if several else truth, 6, alpha, 1e-8 if dtype == np.float32 else 1e-13)
    assert theta.dtype == dtype
    ours = theta[:-1].astype(np.float64), theta[-1].astype(np.float64)
    if not several:  # a constant added to all intercepts changes nothing
        ours, b = (ours[0], ours[1] - ours[1].mean()), b - b.mean()
    far = 2e-2 if dtype == np.float32 else 1e-4
    np.testing.assert_allclose(ours[0], W, atol=far * np.abs(W).max())
    np.testing.assert_allclose(ours[1], b, atol=far * max(1, np.abs(b).max()))
    penalised = [naive_loss(*one, X, truth) + alpha / 2 * (one[0] ** 2).sum() / len(X) for one in (ours, (W, b))]
    assert penalised[0] <= penalised[1] + (2e-6 if dtype == np.float32 else 1e-9)
    z, there = decisions(theta, X.astype(dtype)), X @ W + b
    same = (z > 0) == (there > 0) if several else z.argmax(axis=1) == there.argmax(axis=1)
    assert same.mean() > 0.999
    loss = held_out_loss(theta, X.astype(dtype), Labels(truth, 6)) / len(X)
    assert loss == pytest.approx(naive_loss(*ours, X, truth), rel=1e-5)


def test_the_slope_is_that_of_the_loss():
    X, y, _ = speech(50, 5, 3, dtype=np.float64)
    X, rng = standard(X), np.random.default_rng(1)
    for values, k in ((y % 3, 3), (rng.random((50, 4)) < 0.4, 4)):
        labels = Labels(values.astype(float) if values.ndim == 2 else values, k)
        theta = rng.standard_normal((6, k))
        with workers() as pool:
            objective = Objective(X, labels, [(0, 20), (30, 50)], pool)
            _, slope, curvature = objective(theta, 2.0)
            for place in np.ndindex(theta.shape):
                step = np.zeros_like(theta)
                step[place] = 1e-6
                measured = (objective(theta + step, 2.0)[0] - objective(theta - step, 2.0)[0]) / 2e-6
                assert slope[place] == pytest.approx(measured, rel=1e-4, abs=1e-5)
        assert curvature.shape == (k,) and (curvature > 0).all() and (curvature <= 0.25).all()


def test_threads_change_no_bit():
    X, y, _ = speech(3000, 10, 5)
    X = standard(X).astype(np.float32)
    with limit_threads(1):
        one = fitted(X, y, 5, 1.0, 1e-8)
    assert np.array_equal(one, fitted(X, y, 5, 1.0, 1e-8))


def test_it_says_when_it_did_not_finish(monkeypatch):
    X, y, _ = speech(200, 10, 3, dtype=np.float64)
    monkeypatch.setattr(linear_classifiers, "_MOST", 2)
    with pytest.warns(FastencodeWarning, match="did not converge in 2 steps"):
        fitted(standard(X), y, 3, 1e-3, 1e-14)


def naive_choice(X, truth, who, penalties, folds):
    """The mean held-out loss of each penalty, by scikit-learn and whole speakers; the largest of the best."""
    total = np.zeros(len(penalties))
    for held in folds:
        out = np.isin(who, list(held))
        for place, alpha in enumerate(penalties):
            total[place] += naive_loss(*by_sklearn(X[~out], truth[~out], alpha), X[out], truth[out]) * out.sum()
    return total / len(X)


@pytest.mark.parametrize("several", [False, True])
def test_penalties_are_chosen_as_by_a_naive_loop_over_speakers(several):
    X, y, who = speech(500, 25, 4, speakers=12, signal=0.35)
    labels = np.eye(4, dtype=bool)[y] | np.eye(4, dtype=bool)[(y + 1) % 4] if several else y
    split, penalties = by_speaker(who), np.logspace(-1, 4, 6)
    train = split == "train"
    options = {"split": split, "task": "multilabel" if several else "classification", "bootstraps": 0}
    found = probe(X, labels, who, penalties=penalties, **options)
    losses = naive_choice(standard(X[train]), labels[train], who[train], penalties, naive_folds(who[train], 5))
    assert found.penalty[0] == penalties[losses.argmin()]
    assert 0 < losses.argmin() < 5 and found.at_edge[0] == 0
    known = np.isfinite(found.held_out[0])
    np.testing.assert_allclose(found.held_out[0][known], losses[known], rtol=5e-3)
    assert known[losses.argmin() :].all()


def test_speakers_decide_another_penalty_than_rows_do():
    """Folds in which speakers are mixed know their accents: they choose a smaller penalty, and promise a smaller loss."""
    X, y, who = speech(400, 150, 4, speakers=10, signal=0.25, accent=1.5)
    split = by_speaker(who)
    whole, mixed = probe(X, y, who, split=split, bootstraps=0), probe(X, y, None, split=split, bootstraps=0)
    assert whole.penalty[0] > mixed.penalty[0]
    assert np.nanmin(whole.held_out) > np.nanmin(mixed.held_out) + 0.01


def test_validation_rows_choose_the_penalty_and_are_fitted_then():
    X, y, who = speech(600, 25, 4, speakers=12, signal=0.35)
    split = np.where(who < 6, "train", np.where(who < 9, "validation", "test"))
    penalties, train, fit = np.logspace(-1, 4, 6), split == "train", split != "test"
    found = probe(X, y, who, split=split, penalties=penalties, bootstraps=0)
    Z = (X - X[fit].mean(axis=0)) / X[fit].std(axis=0)
    fits = [by_sklearn(Z[train], y[train], alpha) for alpha in penalties]
    losses = [naive_loss(*one, Z[split == "validation"], y[split == "validation"]) for one in fits]
    assert found.penalty[0] == penalties[int(np.argmin(losses))] and found.n_train == fit.sum()
    W, b = by_sklearn(Z[fit], y[fit], found.penalty[0])
    right = ((Z[~fit] @ W + b).argmax(axis=1) == y[~fit]).mean()
    assert found.score[0] == pytest.approx(right, abs=1.5 / (~fit).sum())


def test_no_label_of_a_test_row_reaches_the_fit():
    """Test labels of another assignment give another score, and the same penalty and held-out losses."""
    X, y, who = speech(500, 25, 4, signal=0.35)
    split = by_speaker(who)
    other = np.where(split == "test", (y + 1) % 4, y)
    found, changed = probe(X, y, who, split=split), probe(X, other, who, split=split)
    assert np.array_equal(found.held_out, changed.held_out, equal_nan=True) and found.penalty == changed.penalty
    assert changed.score[0] < 0.3 < found.score[0]


def test_no_feature_of_a_test_row_reaches_the_fit():
    """Test rows that are all moved, as by another microphone, change neither penalty nor the scaling of train rows."""
    X, y, who = speech(500, 25, 4, signal=0.35)
    split = by_speaker(who)
    moved = np.where((split == "test")[:, None], X + 100, X)
    found, changed = probe(X, y, who, split=split), probe(moved, y, who, split=split)
    assert np.array_equal(found.held_out, changed.held_out, equal_nan=True) and found.penalty == changed.penalty
    assert found.score != changed.score


def test_units_of_features_do_not_matter():
    X, y, who = speech(500, 25, 4, signal=0.35, dtype=np.float64)
    split = by_speaker(who)
    scaled = X * 10.0 ** np.random.default_rng(0).uniform(-4, 4, 25) + 3
    found, changed = probe(X, y, who, split=split), probe(scaled, y, who, split=split)
    assert found.penalty == changed.penalty and found.score[0] == changed.score[0]
    np.testing.assert_allclose(found.held_out, changed.held_out, rtol=1e-6)


def test_folds_hold_whole_speakers_and_are_balanced():
    who = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 30, 40))
    fold = group_folds(who, 5)
    assert all(len(set(fold[who == one])) == 1 for one in range(40))
    sizes = np.bincount(fold)
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 3
    assert [set(who[fold == f]) for f in range(5)] == naive_folds(who, 5)


def test_a_class_that_one_speaker_has_does_not_spoil_the_choice():
    """While that speaker is held out, nobody knows the class: its rows cannot count, and no weight grows without end."""
    X, y, who = speech(500, 10, 3, speakers=10, signal=0.5)
    split = np.where(who < 7, "train", "test")
    y[(who == 2) & (np.arange(500) % 2 == 0)] = 3
    y[(who == 8) & (np.arange(500) % 2 == 0)] = 3
    found = probe(X, y, who, split=split, bootstraps=0)
    assert len(found.classes) == 4 and np.nanmin(found.held_out) < np.log(4) and np.isfinite(found.score).all()


def test_a_label_that_all_fitted_rows_have_is_predicted():
    X, y, who = speech(500, 10, 3)
    labels = np.column_stack([np.eye(3, dtype=bool)[y], np.ones(500, bool)])
    split = by_speaker(who)
    found, without = (probe(X, one, who, split=split, task="multilabel") for one in (labels, labels[:, :3]))
    assert found.score[0] == pytest.approx((3 * without.score[0] + 1) / 4)
    assert np.array_equal(found.held_out, without.held_out, equal_nan=True)
