"""Designs of a study: features of stories, z-scored and delayed within each, their copies not made; what is taken out of them."""

from __future__ import annotations

import numpy as np
import pytest

import reference
import reference_timing
from fastencode.delayed import Delayed
from fastencode.study.brains.ceilings import averaged_spread
from fastencode.study.brains.design import Design, Variant
from fastencode.study.brains.layer_scores import Listener, score_layer, share_layer
from fastencode.study.config import AlignConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*(of the grid|use shorter blocks)")

LENGTHS = {"one": 30, "two": 24, "three": 27, "test": 40}
FIT, TEST = ("one", "two", "three"), ("test", slice(5, 38))
CONFIG = AlignConfig(delays=(1, 2, 3), alphas=(1.0, 100.0), folds=3, bootstraps=20)


class Rows:
    """Features made up."""

    def __init__(self, name, width, n_layers=1):
        self.name, self.n_layers = name, n_layers
        self._of = {story: np.random.default_rng([len(name), i]) for i, story in enumerate(LENGTHS)}
        self._of = {story: rng.standard_normal((n_layers, LENGTHS[story], width)) + 4 for story, rng in self._of.items()}

    def rows(self, story, layer):
        return self._of[story][layer].astype(np.float32)

    def key(self, story):
        return {"rows": self.name}


def naive(source, layer, delays, rows=slice(None)):
    """(X, X_test): each story by itself, on a blackboard."""

    def one(story):
        x = source.rows(story, layer).astype(np.float64)
        return reference_timing.delay((x - x.mean(axis=0)) / x.std(axis=0), delays, np.zeros(len(x)))

    return np.vstack([one(story) for story in FIT]), one("test")[TEST[1]]


def design(nuisance=()):
    model = Rows("model", 7, 2)
    return model, Design(Variant(model, (0, 4), nuisance), 1, FIT, [TEST], CONFIG)


def test_a_design_is_that_of_every_story_by_itself_and_shares_one_base():
    model, made = design()
    X, X_test, labels = made.matrices
    wanted, wanted_test = naive(model, 1, (0, 4))
    assert isinstance(X, Delayed) and isinstance(X_test, Delayed) and X.dtype == np.float32
    base = X.parts[0].base_sw
    assert X_test.parts[0].base_sw is base and made.plan._plan.problem.X.parts[0].base_sw is base
    np.testing.assert_allclose(np.asarray(X), wanted, atol=1e-5)
    np.testing.assert_allclose(np.asarray(X_test), wanted_test, atol=1e-5)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], [30, 24, 27]))
    low = Rows("low", 3)
    bands = made.bands([low])
    assert list(bands) == ["model", "low"]
    np.testing.assert_allclose(np.asarray(bands["model"]), np.vstack([wanted, wanted_test]), atol=1e-5)
    np.testing.assert_allclose(np.asarray(bands["low"]), np.vstack(naive(low, 0, CONFIG.delays)), atol=1e-5)


def test_what_is_taken_out_is_what_a_ridge_on_the_fit_rows_says():
    low, high = Rows("low", 3), Rows("higher", 2)
    model, made = design((low, high))
    X, X_test, _ = made.matrices
    wanted, wanted_test = naive(model, 1, (0, 4))
    known, known_test = (
        np.hstack(parts) for parts in zip(naive(low, 0, CONFIG.delays), naive(high, 0, CONFIG.delays), strict=True)
    )
    for column in range(wanted.shape[1]):
        off = []
        for alpha in CONFIG.alphas:  # the one that was chosen fits to rounding
            coef, constant = reference.weights(known, wanted[:, column], alpha, True)
            left, left_test = wanted[:, column] - known @ coef - constant, wanted_test[:, column] - known_test @ coef - constant
            off.append(max(np.abs(X[:, column] - left).max(), np.abs(X_test[:, column] - left_test).max()))
        assert min(off) < 1e-4 < max(off)
    assert made.plan.shape == wanted.shape


def test_scores_and_shares_are_those_of_the_copies(monkeypatch):
    model, made = design()
    rng, wanted, low = np.random.default_rng(0), naive(model, 1, (0, 4)), Rows("low", 3)
    weights = rng.standard_normal((wanted[0].shape[1], 6))
    Y, Y_test = (x @ weights + 2 * rng.standard_normal((len(x), 6)) for x in wanted)
    Y, Y_test = ((y - y.mean(axis=0)) / y.std(axis=0) for y in (Y, Y_test))
    listener = Listener(Y.astype(np.float32), Y_test.astype(np.float32), None, {"all": np.arange(6)})
    copies = {name: np.asarray(band) for name, band in made.bands([low]).items()}
    n = len(Y)
    given = {"labels": made.matrices[2], "listener": listener, "config": CONFIG, "candidates": 4}
    shares = share_layer(copies, **given)
    monkeypatch.setattr(Delayed, "__array__", None)
    scores = score_layer(made.plan, made.matrices[1], listener, CONFIG, permutations=19)
    for v in range(6):
        coef, constant = reference.weights(copies["model"][:n], Y[:, v], scores.alpha[v], True)
        assert abs(scores.r[v] - reference.pearson(Y_test[:, v], copies["model"][n:] @ coef + constant)) < 1e-4
    found = share_layer(made.bands([low]), **given)
    np.testing.assert_allclose(found.total, shares.total, atol=1e-4)
    np.testing.assert_allclose(found.unique, shares.unique, atol=1e-4)
    assert (found.unique[0] > found.unique[1]).all(), "the model made the responses"


@pytest.mark.parametrize(("n_repeats", "explainable"), [(1, 0.1), (10, 1 / (1 + 0.9))])
def test_what_averaging_does_to_a_scale_is_no_error_of_prediction(n_repeats, explainable):
    """Fitted on responses heard once, scored on the mean of ten: R² is near what there is to explain."""
    rng, n, n_test = np.random.default_rng(0), 1500, 280
    X = rng.standard_normal((n + n_test, 8)).astype(np.float32)
    signal = X @ rng.standard_normal((8, 30))
    signal *= np.sqrt(0.1) / signal.std(axis=0)
    Y = signal[:n] + np.sqrt(0.9) * rng.standard_normal((n, 30))
    repeats = signal[n:] + np.sqrt(0.9) * rng.standard_normal((n_repeats, n_test, 30))
    spread = averaged_spread(repeats)
    np.testing.assert_allclose(spread.mean(), np.sqrt(0.1 + 0.9 / n_repeats), atol=0.02)
    fit = ((Y - Y.mean(axis=0)) / Y.std(axis=0)).astype(np.float32)
    listener = Listener(fit, repeats.mean(axis=0).astype(np.float32), None, {"all": np.arange(30)}, spread[None])
    bands = {"layer": X, "noise": rng.standard_normal((n + n_test, 3)).astype(np.float32)}
    shares = share_layer(bands, np.repeat(np.arange(5), n // 5), listener, AlignConfig(), candidates=4)
    assert abs(shares.total.mean() - explainable) < 0.08 and abs(shares.unique[0].mean() - explainable) < 0.08
