"""Means over participants: how often their intervals hold the truth."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.tables import Label
from fastencode.study.findings.means import mean_rows
from fastencode.study.inference.blocks import mean_draws
from fastencode.study.inference.significance import bootstrap_region_scores
from series_cases import autoregressive

EMPTY = {field.name: np.zeros(0) for field in fields(LayerScores)}


@pytest.mark.filterwarnings("ignore:300 scans are")
@pytest.mark.parametrize("rhos", [(0.45, 0.7), (0.2, 0.85)])
def test_intervals_of_means_cover_although_blocks_differ_in_length(rhos: tuple[float, float]) -> None:
    """Half of what is not predicted is alike in eight people, as what a story evokes is; each has blocks of another length."""
    rng, label, rows, lengths = np.random.default_rng(1), Label("model", (1,)), [], set()
    for _ in range(100):
        signal, alike = (autoregressive(rng, 300, 1, 0.6) for _ in range(2))
        found = {}
        for who in map(str, range(8)):
            rho = rng.uniform(*rhos)
            own = np.sqrt(0.5) * (autoregressive(rng, 300, 1, rho) + autoregressive(rng, 300, 12, rho))
            Y = 0.4 * signal + np.sqrt(0.84 / 2) * (alike + own)
            raw = bootstrap_region_scores(Y, [np.repeat(signal, 12, 1)], {"all": np.arange(12)}, n_boots=200, random_state=0)
            lengths.add(raw.block)
            found[label, who, 0] = LayerScores(
                **EMPTY | {"region": raw.r[0], "draws": raw.draws[:, 0], "n_blocks": np.array(raw.n_blocks)}
            )
        rows += mean_rows(found, {who: {"all": np.arange(12)} for _, who, _ in found})
    truth = np.mean([row["mean"] for row in rows])
    assert len(lengths) > 3
    assert 0.9 <= np.mean([row["low"] <= truth <= row["high"] for row in rows]) <= 0.99


def test_draws_of_blocks_of_unlike_length_are_averaged_without_loss() -> None:
    """Where people respond alike the mean is as unsure as each of them; plain means of draws say less. Alone, nothing changes."""
    signal, *noise = (autoregressive(np.random.default_rng(seed), 600, 40, 0.6) for seed in range(4))
    people = {"alike": [noise[0]] * 3, "apart": noise}
    for kind, of in people.items():
        found = [
            bootstrap_region_scores(
                0.4 * signal + own, [signal], {"all": np.arange(40)}, block=block, n_boots=2000, random_state=seed
            )
            for own, block, seed in zip(of, (10, 20, 40), (0, 0, 0) if kind == "alike" else (0, 1, 2), strict=True)
        ]
        draws, n_blocks = np.array([one.draws[:, 0, 0] for one in found]), [one.n_blocks for one in found]
        plain, ours = draws.mean(axis=0), mean_draws(draws, n_blocks)
        each = np.sqrt(np.mean(draws.var(axis=1)))
        wanted = each if kind == "alike" else each / np.sqrt(3)
        np.testing.assert_allclose(ours.std(), wanted, rtol=0.06)
        assert (plain.std() < 0.9 * wanted) == (kind == "alike")
        np.testing.assert_allclose(ours.mean(), plain.mean(), rtol=1e-12)
        for one in draws:
            np.testing.assert_array_equal(mean_draws([one], [n_blocks[0]]), one)
        np.testing.assert_array_equal(mean_draws(draws, [15.0] * 3), plain)
