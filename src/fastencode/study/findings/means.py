"""Means over participants, and means over layers at single lags, with intervals from a block bootstrap over scans.

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
    """One row per model, layer and region for mean r, and one for the mean difference to another model with the same layer.

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
        ``model``, ``delays``, ``layer``, ``region``; ``versus``: "0" for r itself, or the other model for differences, which
        low-level features do not have; ``participants``: how many have the region; ``mean`` of r or of the difference; ``low``
        and ``high``: its 95 % interval.

        The interval says how precise the mean of these participants is, given a test story of this length; it does not generalise
        to other participants. Bootstrap draws of all participants resample the same scans and are averaged
        (:func:`fastencode.study.inference.blocks.mean_draws`), so responses that participants share and no model predicts widen
        the interval. The smallest number of blocks of a participant gives the degrees of freedom.
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
    """Mean r over layers at single lags: one row per model, lag, depth, region and participant, and one for the mean.

    Parameters
    ----------
    found : (label, participant, layer) → LayerScores
        Models with one lag only are skipped.
    columns : participant → region → columns of the responses
        Scores hold regions in this order.

    Returns
    -------
    list of dict
        ``participant``, or "mean"; ``model``; ``lag`` in TRs; ``depth``: "all", or "early", "middle" and "late" for thirds of the
        layers; ``layers``: their numbers; ``region``; ``participants``: how many are averaged; ``r``, and its 95 % interval
        ``r_low`` and ``r_high``, as in :func:`mean_rows`. Draws are also averaged over layers. A participant is included at a
        depth if all layers of this depth were scored at every lag.
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
    """Rows of one lag of one model at one depth; ``people`` is participant → scores of the layers to average."""
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
