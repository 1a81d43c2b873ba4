"""The stage ``change/…``: how much each layer of a tuned model differs from the model that it was tuned from.

features of both ─► CKA, held-out CCA, dimensions ─┐
weights of both ─► relative change                 ├► change.json ─► change_rows ─► change.csv
log of the run ─► gradient norms                   ┘
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.files import read_json
from fastencode.progress import say
from fastencode.runs.engine import Stage
from fastencode.speech.store import read_features, read_times
from fastencode.speech.weights import layer_name, weight_change
from fastencode.study.dimension import Decimated, participation_ratio, twonn_decimated
from fastencode.study.representation import HeldOutCCA, cross_validated_cca, linear_cka
from fastencode.tune.record import Record

__all__ = ["CHANGE", "MEASURES", "ChangeConfig", "change_rows", "change_stage", "measure_change", "measure_layer"]

CHANGE = "change.json"

MEASURES = ("cka", "cka_debiased", "cca", "weight_change", "gradient_norm", "participation_ratio", "twonn")
"""Measures of each layer. The first three compare both models; the last two are of the tuned model alone."""

Files = Mapping[str, Path]


@dataclass(frozen=True)
class ChangeConfig:
    """On which rows representations are compared.

    Attributes
    ----------
    rows : int
        Largest number of rows of all runs together. If there are more, only every second, third, … row is used.
    apart : float
        Seconds between rows for :func:`fastencode.study.dimension.twonn_decimated`.
    gap : float
        Seconds to leave out on both sides of held-out rows in the canonical correlations: rows closer than this share sound.
    components, folds : int
        Number of canonical pairs, and of cross-validation folds.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    rows: int = 4000
    apart: float = 2.0
    gap: float = 10.0
    components: int = 10
    folds: int = 5

    def __post_init__(self) -> None:
        for name, least in (("rows", 100), ("components", 1), ("folds", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: give {least} or more")
        for name in ("apart", "gap"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name}={getattr(self, name)}: give seconds, 0 or more")


def change_stage(
    name: str,
    before_features: Files,
    after_features: Files,
    before_model: Path | str,
    after_model: Path | str | None,
    run_folder: Path | None,
    reads: tuple[str, ...],
    *,
    config: ChangeConfig | None = None,
    inputs: Files | None = None,
) -> Stage:
    """How far one model is from the one before, as a stage.

    Parameters
    ----------
    name : str
        Such as ``change/tuned/P1``.
    before_features, after_features : run → file
        The layers of the same runs, as ``speech/store.py`` has them: the test run, or several.
    before_model, after_model : path, hub name or None
        Whose weights to compare. None after: weights are not compared, as of a model of another architecture.
    run_folder : Path, optional
        Of the tuning run, whose log has gradient norms.
    reads : tuple of str
        The stages that make these files and folders.
    config : ChangeConfig, optional
    inputs : name → Path, optional
        Those of the files that no stage makes.

    Returns
    -------
    Stage
        Makes ``change.json``: see :func:`measure_change`.

    Raises
    ------
    InputError
        If the two do not have the same runs.
    """
    if sorted(before_features) != sorted(after_features) or not before_features:
        raise InputError(
            f"{name}: features of {', '.join(before_features) or 'no run'} before and of {', '.join(after_features) or 'no run'}"
            " after: give the same runs of both"
        )
    config = config or ChangeConfig()
    settings = {"runs": sorted(before_features), "config": config, "weights": after_model is not None}
    settings["gradients"] = run_folder is not None
    arguments = (dict(before_features), dict(after_features), before_model, after_model, run_folder, config)
    return Stage(name, settings, reads, measure_change, arguments, inputs=inputs or {})


def measure_change(
    folder: Path,
    before_features: Files,
    after_features: Files,
    before_model: Path | str,
    after_model: Path | str | None,
    run_folder: Path | None,
    config: ChangeConfig,
) -> None:
    """Write ``change.json`` into a folder.

    ``measures``: name → value of each layer; null where there is none, and ``notes`` say why, unless the layer has no weights or
    learned nothing. ``rows``: how many were compared, and ``seconds`` from one to the next. ``twonn_sd``: of each layer over the
    offsets of its decimation, ``twonn_rows`` each. ``parts``: name → part → value, also of the CNN, the last LayerNorm, the head.

    Raises
    ------
    InputError
        If features are missing or not of the same times and layers, models differ in architecture, or the run has no log.
    """
    rows = _Rows(before_features, after_features, config.rows)
    step, gap = (max(1, math.ceil(seconds / rows.seconds - 1e-9)) for seconds in (config.apart, config.gap))
    notes: list[str] = []
    values: list[dict[str, float]] = []
    for layer in range(rows.n_layers):
        found, why = measure_layer(*rows.layer(layer), config, step, gap)
        values.append(found)
        notes += [f"layer {layer} has no {measure}: {reason}" for measure, reason in why.items()]
    parts = {}
    if after_model is not None:
        parts["weight_change"] = weight_change(before_model, after_model)
    if run_folder is not None:
        parts["gradient_norm"] = Record.read(run_folder).gradient_norms
    for measure, of in parts.items():
        for layer, found in enumerate(values):
            if layer_name(layer) in of:
                found[measure] = of[layer_name(layer)]
    for note in notes:
        say(f"{folder.name.removesuffix('.partial')}: {note}")
    written = {
        "measures": {measure: [found.get(measure) for found in values] for measure in MEASURES},
        "rows": rows.n,
        "seconds": rows.seconds,
        "twonn_sd": [found.get("twonn_sd") for found in values],
        "twonn_rows": max(int(found.get("twonn_rows", 0)) for found in values),
        "parts": parts,
        "notes": notes,
    }
    (folder / CHANGE).write_text(json.dumps(_finite(written), indent=1) + "\n", encoding="utf-8")


def measure_layer(
    before: NDArray[Any], after: NDArray[Any], config: ChangeConfig, step: int, gap: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Measure → value of one layer; and measure → reason, for measures that failed, for example because a layer is constant."""
    makers: dict[str, Callable[[], float | HeldOutCCA | Decimated]] = {
        "cka": partial(linear_cka, before, after),
        "cka_debiased": partial(linear_cka, before, after, debiased=True),
        "cca": partial(cross_validated_cca, before, after, n_components=config.components, n_folds=config.folds, gap=gap),
        "participation_ratio": partial(participation_ratio, after),
        "twonn": partial(twonn_decimated, after, step),
    }
    values: dict[str, float] = {}
    why: dict[str, str] = {}
    for measure, make in makers.items():
        try:
            found = make()
        except InputError as error:
            why[measure] = str(error)
            continue
        if isinstance(found, Decimated):
            values |= {"twonn": found.value, "twonn_sd": found.sd, "twonn_rows": found.n_rows}
        else:
            values[measure] = found.score if isinstance(found, HeldOutCCA) else found
    return values, why


def change_rows(results: Mapping[tuple[str, str], Path]) -> list[dict[str, Any]]:
    """The rows of ``change.csv``.

    Parameters
    ----------
    results : (participant, model) → folder of a finished stage
        Participant "" for a model that belongs to none.

    Returns
    -------
    list of dict
        ``participant``, ``model``, ``layer``, ``measure`` (one of ``MEASURES``), ``value``; no row where there is no value.

    Raises
    ------
    InputError
        If a folder has no ``change.json``, or a damaged one.
    """
    rows = []
    for (who, model), folder in results.items():
        measures = read_json(folder / CHANGE).get("measures")
        if not isinstance(measures, dict):
            raise InputError(f"{folder / CHANGE} has no measures: delete {folder}, and it will be made again")
        for measure in MEASURES:
            for layer, value in enumerate(measures.get(measure, ())):
                if value is not None:
                    rows.append({"participant": who, "model": model, "layer": layer, "measure": measure, "value": value})
    return rows


class _Rows:
    """Rows of two models at the same times, thinned out to a largest number.

    Attributes
    ----------
    n, n_layers : int
    seconds : float
        Median time from one row to the next.
    """

    def __init__(self, before: Files, after: Files, most: int) -> None:
        self._before, self._after, self._runs = before, after, sorted(before)
        times: list[NDArray[np.float64]] = []
        counts = set()
        for run in self._runs:
            one, other = read_times(before[run]), read_times(after[run])
            if len(one.times) != len(other.times) or not np.allclose(one.times, other.times, rtol=0, atol=1e-6):
                raise InputError(
                    f"{before[run]} and {after[run]} have rows at other times: read both with the same settings of the same sound"
                )
            counts |= {(before[run], one.n_layers), (after[run], other.n_layers)}
            times.append(one.times)
        if len({count for _, count in counts}) > 1:
            shown = ", ".join(f"{path} has {count}" for path, count in sorted(counts))
            raise InputError(f"models have different numbers of layers: {shown}; compare models of one depth")
        self.n_layers = next(iter(counts))[1]
        self._step = max(1, math.ceil(sum(map(len, times)) / most))
        kept = [one[:: self._step] for one in times]
        self.n = sum(map(len, kept))
        between: Sequence[float] = np.concatenate([np.diff(one) for one in kept]).tolist()
        self.seconds = float(np.median(between)) if between else 1.0
        if not self.seconds > 0:
            raise InputError(f"rows of {before[self._runs[0]]} are not in the order of time: make it again")

    def layer(self, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows of one layer before and after, (n, d)."""
        first, second = (
            np.concatenate([read_features(files[run], layers=(number,)).values[:: self._step, 0] for run in self._runs])
            for files in (self._before, self._after)
        )
        return first, second


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
