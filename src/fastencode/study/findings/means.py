"""Means over participants, and over layers at single lags, with intervals from the test story's blocks of scans.

Axis letters: r region, b bootstrap draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.tables import Key, Label, compared_with, delays_text
from fastencode.study.columns import MEAN
from fastencode.study.findings.verdicts import layer_thirds
from fastencode.study.inference.blocks import interval, mean_draws

__all__ = ["lag_rows", "mean_rows"]


class _One(NamedTuple):
    """One participant's mean r of one region, its draws (b,) and its number of blocks."""

    r: float
    draws: NDArray[np.float64]
    n_blocks: float


def mean_rows(
    found: Mapping[Key, LayerScores], columns: Mapping[str, Mapping[str, Any]], before: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """One row for each model, layer and region, and one more for its difference to another model where both have the layer.

    Parameters
    ----------
    found : (label, participant, layer) → LayerScores
    columns : participant → region → columns of the responses
        Scores hold regions in this order.
    before : source → source, optional
        The model that each is compared with, as for :func:`fastencode.study.brains.tables.compared_with`; by default the first.

    Returns
    -------
    list of dict
        ``model``, ``delays``, ``layer``, ``region``; ``versus``, "0" for r itself, else the other model; ``participants`` who
        have the region; ``mean`` of r, or of the difference; its 95 % interval, ``low`` and ``high``. The interval is of these
        participants: their draws of blocks, which begin at the same scans, are
        averaged (:func:`fastencode.study.inference.blocks.mean_draws`), and the fewest blocks of one give its degrees of freedom.
        It says how sure the mean is in view of a test story of this length, not how it would be in other people. Responses that
        all participants share and no model predicts widen it.
    """
    each: dict[tuple[Label, int, str], dict[str, _One]] = {}
    for (label, who, layer), scores in found.items():
        for place, region in enumerate(columns[who]):
            one = _One(float(scores.region[place]), scores.draws[:, place], float(scores.n_blocks))
            each.setdefault((label, layer, region), {})[who] = one
    against_of = compared_with((label for label, *_ in each), before)
    rows = []
    for (label, layer, region), people in each.items():
        named = {"model": label.name, "delays": delays_text(label.delays), "layer": layer, "region": region}
        rows.append({**named, "versus": "0", **_mean(people, correlation=True)})
        against = each.get((against_of[label], layer, region), {}) if label in against_of else {}
        both = {
            who: _One(one.r - against[who].r, one.draws - against[who].draws, one.n_blocks)
            for who, one in people.items()
            if who in against
        }
        if both:
            rows.append({**named, "versus": against_of[label].source, **_mean(both, correlation=False)})
    return rows


def lag_rows(found: Mapping[Key, LayerScores], columns: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean r over layers at single lags: a row for each model, lag, depth, region and participant, and their mean.

    Parameters
    ----------
    found : (label, participant, layer) → LayerScores
        Models at one lag only have no rows.
    columns : participant → region → columns of the responses
        Scores hold regions in this order.

    Returns
    -------
    list of dict
        ``participant``, "mean" for the mean over several; ``model``; ``lag`` (TRs); ``depth``, "all" for all layers that some
        participant has at every lag, and "early", "middle" and "late" for thirds of them; ``layers``, which these are;
        ``region``; ``participants`` in the row; ``r`` and its 95 % interval, ``r_low`` and ``r_high``. The interval is as in
        :func:`mean_rows`; draws are averaged over layers, too. A participant counts at a depth where all its layers were scored
        at every lag.
    """
    scored: dict[str, dict[int, dict[tuple[str, int], LayerScores]]] = {}
    for (label, who, layer), scores in found.items():
        if len(label.delays) == 1:
            scored.setdefault(label.name, {}).setdefault(label.delays[0], {})[who, layer] = scores
    rows: list[dict[str, Any]] = []
    for model, lags in scored.items():
        both = set.intersection(*map(set, lags.values())) if len(lags) > 1 else set()
        if not both:
            continue
        every = sorted({layer for _, layer in both})
        for depth, layers in {"all": every, **(layer_thirds(every) if len(every) > 1 else {})}.items():
            people = [who for who in columns if both.issuperset((who, layer) for layer in layers)]
            for lag in sorted(lags):
                named = {"model": model, "lag": lag, "depth": depth, "layers": " ".join(map(str, layers))}
                rows += _rows_of_lag(named, {who: [lags[lag][who, layer] for layer in layers] for who in people}, columns)
    return rows


def _rows_of_lag(
    named: Mapping[str, Any], people: Mapping[str, Sequence[LayerScores]], columns: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One lag of one model at one depth: participant → scores of the layers to average."""
    for region in dict.fromkeys(region for who in people for region in columns[who]):
        each = {}
        for who, layers in people.items():
            if region in columns[who]:
                place = list(columns[who]).index(region)
                r = float(np.mean([one.region[place] for one in layers]))
                each[who] = _One(r, np.mean([one.draws[:, place] for one in layers], axis=0), float(layers[0].n_blocks))
        groups = {who: {who: one} for who, one in each.items()} | ({MEAN: each} if len(columns) > 1 else {})
        for who, group in groups.items():
            mean = _mean(group, correlation=True)
            ends = {"r": mean["mean"], "r_low": mean["low"], "r_high": mean["high"]}
            yield {"participant": who, **named, "region": region, "participants": len(group), **ends}


def _mean(people: Mapping[str, _One], *, correlation: bool) -> dict[str, Any]:
    mean = float(np.mean([one.r for one in people.values()]))
    n_blocks = [one.n_blocks for one in people.values()]
    draws = mean_draws([one.draws for one in people.values()], n_blocks)
    low, high = interval(mean, draws, min(n_blocks), correlation=correlation)
    return {"participants": len(people), "mean": mean, "low": float(low), "high": float(high)}
