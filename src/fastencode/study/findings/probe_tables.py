"""Tidy tables of probes: one row per task, model, participant and layer; and one per label or target.

Axis letters: l layer, b draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastencode.study.probes import ProbeResult
from fastencode.study.probing.metrics import ends

__all__ = ["best_rows", "probe_rows", "target_rows"]

Results = Mapping[tuple[str, str, str, str], ProbeResult]
"""(task, model, participant, seed) → result; participant and seed are "" for models that have none."""


def probe_rows(results: Results) -> list[dict[str, Any]]:
    """One row per task, model, participant and layer; seeds are averaged.

    Parameters
    ----------
    results : (task, model, participant, seed) → ProbeResult

    Returns
    -------
    list of dict
        Among others ``score``, in units of ``metric``; ``low`` and ``high``, its .95 interval over ``unit``, for several seeds
        that of their mean; ``baseline``, the score of the most frequent class or the mean; ``control``, the score on shuffled
        labels, and ``selectivity``, score − control, both NaN without a control; ``penalty``, the median over seeds; ``at_edge``,
        whether the penalty is at an end of the grid for any seed.
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


def target_rows(results: Results, aggregate: str = " at ") -> list[dict[str, Any]]:
    """One row per task, model, participant, layer and label (F1) or target (R²); seeds are averaged.

    Targets whose names are equal up to the text ``aggregate`` are averaged, such as "c1 at 1/8", "c1 at 2/8", …, the points of a
    cepstral coefficient. Tasks with a single target are left out, because ``probe_rows`` has their score.
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
    """The row of the best layer of each task, model and participant.

    The layer is selected by the scores shown, so its score is slightly too high.
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
