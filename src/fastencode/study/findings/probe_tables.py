"""Tidy tables of probes: one row for each task, model, participant and layer; and one for each of its labels or targets.

Axis letters: l layer, b draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastencode.study.probes import ProbeResult
from fastencode.study.probing.metrics import ends

__all__ = ["best_rows", "probe_rows", "seed_rows", "target_rows"]

Results = Mapping[tuple[str, str, str, str], ProbeResult]
"""(task, model, participant, seed) → its probe; the last two are empty where a model has none."""


def probe_rows(results: Results) -> list[dict[str, Any]]:
    """One row for each task, model, participant and layer; several seeds of one model are averaged.

    ``score`` is in units of ``metric``; ``low`` and ``high`` end its .95 interval over ``unit``; of several seeds it is that of
    their mean, whose draws share the drawn units. ``baseline`` is what the most frequent class, or the mean, scores on the same
    rows. ``control`` is the score on shuffled labels and ``selectivity`` the score less that; NaN where there is none.
    ``penalty`` is the one chosen (of several seeds, the median), ``at_edge`` whether it stands at an end of the grid in any.
    """
    rows = []
    for (task, model, participant), found in _by_seed(results).items():
        one = found[0]
        score = np.mean([each.score for each in found], axis=0)
        low, high = (one.low, one.high) if len(found) == 1 else _ends(score, found)
        controls = [each.control for each in found if each.control is not None]
        control = np.mean(controls, axis=0) if len(controls) == len(found) else None
        for layer in range(len(score)):
            shuffled = np.nan if control is None else float(control[layer])
            rows.append(
                {
                    "task": task,
                    "metric": one.metric,
                    "model": model,
                    "participant": participant,
                    "layer": layer,
                    "score": float(score[layer]),
                    "low": float(low[layer]),
                    "high": float(high[layer]),
                    "baseline": float(np.mean([each.baseline for each in found])),
                    "control": shuffled,
                    "selectivity": float(score[layer]) - shuffled,
                    "n_train": one.n_train,
                    "n_test": one.n_test,
                    "n_units": one.n_units,
                    "unit": one.unit,
                    "penalty": float(np.median([np.median(each.penalty[layer]) for each in found])),
                    "at_edge": bool(any(np.any(each.at_edge[layer]) for each in found)),
                }
            )
    return rows


def seed_rows(results: Results) -> list[dict[str, Any]]:
    """The rows of :func:`probe_rows` for each seed of a model by itself, with its ``seed``; of models that have seeds."""
    rows = []
    for (task, model, participant, seed), result in results.items():
        if seed:
            alone = {(task, model, participant, seed): result}
            rows += [{**row, "seed": seed} for row in probe_rows(alone)]
    return rows


def target_rows(results: Results, aggregate: str = " at ") -> list[dict[str, Any]]:
    """One row for each task, model, participant, layer and label (its F1) or target (its R²); several seeds are averaged.

    Targets whose names are alike up to ``aggregate`` are one, by their mean: the points of a cepstral coefficient. Tasks with one
    target have no rows: their score says it.
    """
    rows = []
    for (task, model, participant), found in _by_seed(results).items():
        gathered: dict[tuple[str, str], list[Any]] = {}
        for each in found:
            for name, values in each.metrics.items():
                metric, colon, target = name.partition(": ")
                if colon:
                    gathered.setdefault((metric, target.partition(aggregate)[0]), []).append(values)
        if len(gathered) < 2:
            continue
        for layer in range(len(found[0].score)):
            for (metric, target), parts in gathered.items():
                names = {"task": task, "metric": metric, "model": model, "participant": participant, "layer": layer}
                rows.append({**names, "target": target, "score": float(np.mean([one[layer] for one in parts]))})
    return rows


def best_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each task, model and participant the row of the layer that scores highest, the first of equals.

    The layer is chosen by the scores that are shown, so the highest of many is a little too high; all are in the table.
    """
    best: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("task", "model", "participant"))
        if key not in best or row["score"] > best[key]["score"]:
            best[key] = dict(row)
    return list(best.values())


def _by_seed(results: Results) -> dict[tuple[str, str, str], list[ProbeResult]]:
    found: dict[tuple[str, str, str], list[ProbeResult]] = {}
    for (task, model, participant, _), result in results.items():
        found.setdefault((task, model, participant), []).append(result)
    return found


def _ends(score_l: Any, found: Sequence[ProbeResult]) -> Any:
    draws_bl = np.mean([each.draws for each in found], axis=0).T
    return ends(found[0].metric, score_l, draws_bl, found[0].n_effective)
