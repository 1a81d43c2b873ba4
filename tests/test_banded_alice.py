"""The variance partitioning of bench/partition_alice.py on few real listeners, with few candidates. Skipped without the data."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fastencode.data.brennan import Alice
from fastencode.errors import FastencodeWarning

pytest.importorskip("psutil", reason="psutil is not installed: the benchmarks need it")

BENCH = Path(__file__).resolve().parents[1] / "bench"
FEW = {"n_iter": 4, "alphas": np.logspace(0, 5, 6)}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import partition_alice

        yield partition_alice
    for name in ("partition_alice", "session"):  # names too plain to leave behind
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def alice(shared_data: Path) -> Alice:
    pytest.importorskip("praatio", reason="transcripts need the extra 'tune'")
    if not (shared_data / "alice").is_dir():
        pytest.skip(f"real data not found: {shared_data / 'alice'} is not a folder; set FASTENCODE_DATA to run this test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # one listener is left out: tests/test_readers_alice.py
        return Alice(shared_data / "alice")


def test_parts_sum_to_a_total_that_half_a_story_destroys(script, alice):
    names = alice.listeners[:3]
    real = [script.partition(name, alice, **FEW) for name in names]
    for found in real:
        assert found.names == script.BANDS
        assert found.total.shape == (6,) and found.unique.shape == (3, 6) and np.isfinite(found.total_folds).all()
        total, *others = script.parts(found)
        np.testing.assert_allclose(sum(others), total, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.total_folds.mean(axis=0), total, rtol=0, atol=1e-12)
    shifted = np.mean([script.partition(name, alice, shift=0.5, **FEW).total for name in names])
    assert shifted < 0.005
    assert shifted < np.mean([found.total for found in real]) - 0.005


def test_scores_are_those_of_ridge_by_hand(script, alice):
    """One weighting and one penalty leave nothing to choose: normal equations on each outer block."""
    name, alpha = alice.listeners[0], 100.0
    found = script.partition(name, alice, alphas=[alpha], gammas=np.ones((1, 3)))
    bands, Y = script.case(alice, name)
    assert all(X.shape == (362, len(script.DELAYS) * width) for X, width in zip(bands.values(), (1, 4, 1), strict=True))

    def held_out(X: np.ndarray) -> np.ndarray:
        scores = []
        for test in np.array_split(np.arange(362), 5):
            train = np.setdiff1d(np.arange(362), test)
            x, y = X[train].mean(axis=0), Y[train].mean(axis=0)
            A = (X[train] - x).T @ (X[train] - x) + alpha * np.eye(X.shape[1])
            predicted = (X[test] - x) @ np.linalg.solve(A, (X[train] - x).T @ (Y[train] - y)) + y
            scores.append(1 - ((Y[test] - predicted) ** 2).sum(axis=0) / ((Y[test] - Y[test].mean(axis=0)) ** 2).sum(axis=0))
        return np.mean(scores, axis=0)

    total = held_out(np.hstack(list(bands.values())))
    without = [held_out(np.hstack([X for name, X in bands.items() if name != left])) for left in bands]
    np.testing.assert_allclose(found.total, total, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.unique, total - np.array(without), rtol=0, atol=1e-9)


def test_word_rate_is_the_authors_and_confounds_are_gone(script, alice):
    name = alice.listeners[1]
    bands = script.features(alice, name)
    theirs = alice.generic_predictors()[:, 0]
    assert np.corrcoef(bands["word rate"][:, 0], theirs)[0, 1] > 0.99
    design, Y = script.case(alice, name)
    confounds = np.column_stack([np.vander(np.linspace(-1, 1, 362), 4)[:, :3], alice.motion(name)])
    for columns in (*design.values(), Y):
        assert np.abs(np.corrcoef(columns, confounds, rowvar=False)[: columns.shape[1], columns.shape[1] :]).max() < 1e-8


def test_word_form_is_what_a_word_differs_in(script, alice):
    words = script.tokens(alice)
    form = script.word_form(words)
    assert form.shape == (2104, 4)
    np.testing.assert_allclose(form.mean(axis=0), 0, atol=1e-12)
    flags = {word: script.is_function_word(word) for word in ("the", "n't", "don't", "it's", "rabbit", "ma'am", "alice", "down")}
    assert [word for word, flag in flags.items() if flag] == ["the", "n't", "don't", "it's", "down"]
    the, rabbit = (next(i for i, word in enumerate(words) if script.lower(word) == label) for label in ("the", "rabbit"))
    assert form[the, 2] == form[:, 2].max() and form[the, 3] > 0 > form[rabbit, 3] and form[rabbit, 0] > form[the, 0]


def test_intervals_are_those_of_resampled_listeners(script):
    values = np.random.default_rng(1).standard_normal((27, 2, 6)) + 0.3
    found = script.bootstrap(values)
    np.testing.assert_allclose(found["mean"], values.mean(axis=0))
    rng = np.random.default_rng(2)
    means = np.array([values[rng.integers(27, size=27)].mean(axis=0) for _ in range(10_000)])
    for key, q in (("low", 0.025), ("high", 0.975)):  # a quantile of 10,000 draws is sure to about .015 of its spread over √27
        np.testing.assert_allclose(found[key], np.quantile(means, q, axis=0), atol=0.03)


def test_without_data_it_says_so(tmp_path):
    command = [sys.executable, str(BENCH / "partition_alice.py"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and "no Alice data" in done.stderr and "FASTENCODE_DATA" in done.stderr
