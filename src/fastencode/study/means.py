"""Means over participants, of scores and of differences between models, with intervals from the test story's blocks of scans.

Axis letters: r region, b bootstrap draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.study.blocks import interval, mean_draws
from fastencode.study.layer_scores import LayerScores
from fastencode.study.tables import Key, Label, delays_text

__all__ = ["mean_rows"]


class _One(NamedTuple):
    """One participant's mean r of one region, its draws (b,) and its number of blocks."""

    r: float
    draws: NDArray[np.float64]
    n_blocks: float


def mean_rows(found: Mapping[Key, LayerScores], columns: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each model, layer and region, and one more for its difference to the first model where both have the layer.

    Parameters
    ----------
    found : (label, participant, layer) → LayerScores
    columns : participant → region → columns of the responses
        Scores hold regions in this order.

    Returns
    -------
    list of dict
        ``model``, ``delays``, ``layer``, ``region``; ``versus``, "0" for r itself, else the first model, which low-level features
        are not compared with; ``participants`` who have the region; ``mean`` of r, or of the difference; its 95 % interval,
        ``low`` and ``high``. The interval is of these participants: their draws of blocks, which begin at the same scans, are
        averaged (:func:`fastencode.study.blocks.mean_draws`), and the fewest blocks of one give its degrees of freedom. It says
        how sure the mean is in view of a test story of this length, not how it would be in other people. What the story evokes
        alike in all and no model predicts widens it.
    """
    each: dict[tuple[Label, int, str], dict[str, _One]] = {}
    for (label, who, layer), scores in found.items():
        for place, region in enumerate(columns[who]):
            one = _One(float(scores.region[place]), scores.draws[:, place], float(scores.n_blocks))
            each.setdefault((label, layer, region), {})[who] = one
    first = next((label.source for label, *_ in each if not label.low_level), None)
    rows = []
    for (label, layer, region), people in each.items():
        named = {"model": label.name, "delays": delays_text(label.delays), "layer": layer, "region": region}
        rows.append({**named, "versus": "0", **_mean(people, correlation=True)})
        against = {} if first is None else each.get((replace(label, source=first), layer, region), {})
        if label.source == first or label.low_level:
            continue
        both = {
            who: _One(one.r - against[who].r, one.draws - against[who].draws, one.n_blocks)
            for who, one in people.items()
            if who in against
        }
        if both:
            rows.append({**named, "versus": first, **_mean(both, correlation=False)})
    return rows


def _mean(people: Mapping[str, _One], *, correlation: bool) -> dict[str, Any]:
    mean = float(np.mean([one.r for one in people.values()]))
    n_blocks = [one.n_blocks for one in people.values()]
    draws = mean_draws([one.draws for one in people.values()], n_blocks)
    low, high = interval(mean, draws, min(n_blocks), correlation=correlation)
    return {"participants": len(people), "mean": mean, "low": float(low), "high": float(high)}
