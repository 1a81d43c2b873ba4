"""The encoding half on real brains: the published numbers of the Alice data set, and a held-out ridge regression.

Skipped where the data is not; the same functions run on simulated listeners either way.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.brennan import Alice
from fastencode.data.textgrid import Interval
from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.word_rate import (
    WordRateStudy,
    group_correlation,
    held_out_ridge,
    leave_one_out_correlation,
    rate_weights,
    word_features,
    word_rate_predictor,
    word_rate_study,
)


@pytest.fixture(scope="module")
def study(shared_data: Path) -> WordRateStudy:
    pytest.importorskip("praatio", reason="transcripts need the extra 'tune'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # one listener is left out: tests/test_readers_alice.py
        return word_rate_study(Alice(shared_data / "alice"))


def test_predictor_is_the_authors(study: WordRateStudy) -> None:
    r = study.predictor_correlation
    assert study.n_words == 2127
    assert len(study.listeners) == 27
    assert len(study.left_out) == 1
    assert r["word offsets, no clitics"] >= 0.99
    documented = [r["word offsets, no clitics"], r["word onsets"], r["word offsets, sampled 1 s late"]]
    np.testing.assert_allclose(documented, [0.9943, 0.9885, 0.957], atol=5e-4)
    assert max(r, key=lambda name: r[name]) == "word offsets, no clitics"


def test_weights_of_word_rate(study: WordRateStudy) -> None:
    np.testing.assert_allclose(study.weight, [0.0962, 0.0832, 0.1344, 0.1380, 0.1306, 0.0850], atol=2e-3)
    np.testing.assert_allclose(study.t, [7.77, 6.48, 9.41, 8.96, 9.85, 6.95], atol=0.05)


def test_correlations(study: WordRateStudy) -> None:
    np.testing.assert_allclose(study.group_correlation, [0.286, 0.332, 0.396, 0.432, 0.423, 0.376], atol=5e-3)
    np.testing.assert_allclose(study.leave_one_out, [0.330, 0.238, 0.423, 0.280, 0.254, 0.190], atol=5e-3)


def test_held_out_ridge(study: WordRateStudy) -> None:
    ridge = study.ridge
    measured = ", ".join(f"{region} {r:.3f}" for region, r in zip(study.regions, ridge.correlation, strict=True))
    sys.stdout.write(f"held-out correlation: {measured}\n")  # pytest -rP shows it
    assert (ridge.n_fit, ridge.n_test) == (262, 100)
    assert np.isfinite(ridge.correlation).all()
    assert ridge.correlation.mean() > 0
    assert not ridge.at_edge.any()


def test_tidy_table(study: WordRateStudy) -> None:
    table = study.rows()
    assert len(table) == 4 + 6 * 6
    assert {tuple(row) for row in table} == {("measure", "region", "value")}
    (value,) = [row["value"] for row in table if row["measure"] == "t" and row["region"] == "LIPL"]
    assert value == study.t[3]


def simulated(n_listeners: int = 12, n: int = 240) -> tuple[np.ndarray, ...]:
    """Return listeners whose first region follows word rate with weight .5, whose second does not, all with drift and motion."""
    rng = np.random.default_rng(3)
    rate, sound = rng.standard_normal((n_listeners, n)), rng.standard_normal((n_listeners, n))
    rate[:] = rate[0]  # everybody heard the same
    motion = rng.standard_normal((n_listeners, n, 6)).cumsum(axis=1)
    time = np.linspace(-1, 1, n)
    Y = rng.standard_normal((n_listeners, n, 2)) + 500 + 3 * (time**3 - time)[:, None]
    Y[..., 0] += rate / np.sqrt(3)
    return Y, rate, sound, motion


def test_weights_and_correlations_on_simulated_listeners() -> None:
    Y, rate, sound, motion = simulated()
    weights = rate_weights(Y, rate, sound, motion)
    assert weights.shape == (12, 2)
    drift = np.vander(np.linspace(-1, 1, 240), 4)
    design = np.column_stack([rate[4], sound[4], motion[4], drift])
    expected = np.linalg.lstsq(design, Y[4], rcond=None)[0][0] * rate[4].std() / Y[4].std(axis=0)
    np.testing.assert_allclose(weights[4], expected, rtol=1e-8)
    assert abs(weights[:, 1].mean()) < 0.05 < 0.3 < weights[:, 0].mean()
    motion[7, :, 2] = 0.0  # a head that kept still in one direction
    assert np.isfinite(rate_weights(Y, rate, sound, motion)).all()

    clean = Y - drift @ (np.linalg.pinv(drift) @ Y)
    clean /= clean.std(axis=1, keepdims=True)
    expected = [np.corrcoef(clean.mean(axis=0)[:, v], rate[0])[0, 1] for v in range(2)]
    np.testing.assert_allclose(group_correlation(Y, rate[0]), expected, rtol=1e-8)
    others = [np.delete(clean, i, axis=0).mean(axis=0) for i in range(12)]
    expected = [np.mean([np.corrcoef(clean[i, :, v], others[i][:, v])[0, 1] for i in range(12)]) for v in range(2)]
    np.testing.assert_allclose(leave_one_out_correlation(Y), expected, rtol=1e-8)
    with pytest.raises(InputError, match="at least two"):
        leave_one_out_correlation(Y[:1])


def test_word_features_keep_their_totals() -> None:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(40, 160, 200))
    words = [Interval(t, t + 0.25, "it's" if k % 2 else "'s") for k, t in enumerate(starts)]
    X = word_features(words, 1 + 2 * np.arange(100.0))
    assert X.shape == (100, 3)
    # Lanczos weights over evenly spaced scans sum to about one for every impulse.
    np.testing.assert_allclose(X.sum(axis=0), [200, 400, 50], rtol=0.02)
    np.testing.assert_allclose(X[:, 2], 0.25 * X[:, 0], atol=1e-12)
    assert word_features([], np.arange(4.0)).tolist() == [[0.0] * 3] * 4


def test_a_word_is_an_impulse_at_its_middle() -> None:
    scans = 1 + 2 * np.arange(40.0)
    expected = np.zeros((40, 3))
    expected[20] = [1, 5, 4]  # a sinc is 0 at the other scans
    np.testing.assert_allclose(word_features([Interval(39.0, 43.0, "Alice")], scans), expected, atol=1e-12)


def test_word_rate_predictor_follows_the_words() -> None:
    response = word_rate_predictor([10.0, 30.0, 30.0], np.arange(0, 80, 0.5))
    assert response.shape == (160,)
    assert not response[:21].any()
    assert response[2 * 35] == response.max()


def test_held_out_ridge_finds_what_is_there() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 5))
    Y = X @ rng.standard_normal((5, 3)) + rng.standard_normal((300, 3))
    Y[:, 2] = rng.standard_normal(300)
    found = held_out_ridge(X, Y, n_fit=200)
    assert (found.correlation[:2] > 0.5).all()
    assert abs(found.correlation[2]) < 0.3
    assert (found.n_fit, found.n_test) == (200, 100)
    for n_fit in (0, 300):
        with pytest.raises(InputError, match=f"n_fit is {n_fit}"):
            held_out_ridge(X, Y, n_fit=n_fit)
