"""Means over participants: how often their intervals hold the truth."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from fastencode.study.layer_scores import LayerScores
from fastencode.study.means import mean_rows
from fastencode.study.significance import bootstrap_region_scores
from fastencode.study.tables import Label
from series_cases import autoregressive

EMPTY = {field.name: np.zeros(0) for field in fields(LayerScores)}


@pytest.mark.filterwarnings("ignore:300 scans are")
def test_intervals_of_means_cover_although_blocks_differ_in_length() -> None:
    """Half of what is not predicted is alike in eight people, as what a story evokes is; each has blocks of another length."""
    rng, label, rows, lengths = np.random.default_rng(1), Label("model", (1,)), [], set()
    for _ in range(100):
        signal, alike = (autoregressive(rng, 300, 1, 0.6) for _ in range(2))
        found = {}
        for who in map(str, range(8)):
            rho = rng.uniform(0.45, 0.7)
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
