"""Tables as text: cells of the page's tables, and means over thirds of the layers for page and terminal."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.plain import plain
from fastencode.study.columns import BESIDE, MEAN, NAMES, TABLES, TEXTS
from fastencode.study.conditions import Condition
from fastencode.study.findings.verdicts import layer_thirds
from fastencode.study.names import ANSWERS, display_name
from fastencode.study.report.captions import DETAILS, sample

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["count_of", "flat", "number_text", "paragraphs", "score_summary", "shown", "tuning"]

SHOWN = 2000  # rows of a table on the page; a browser is slow with more


def score_summary(scores: pd.DataFrame, models: Sequence[Condition]) -> dict[str, Any]:
    """Mean r and mean r / ceiling over early, middle and late layers of each model; the mean over participants comes first."""
    participants = list(dict.fromkeys(scores["participant"]))
    blocks = [(name, scores[scores["participant"] == name]) for name in participants]
    if len(participants) > 1:
        blocks.insert(0, (f"mean of {len(participants)} participants", scores))
    groups = ("early", "middle", "late")
    depths = {tuple(sorted(set(part["layer"]))) for _, part in scores.groupby("model") if part["layer"].nunique() > 1}
    thirds = layer_thirds(depths.pop()) if len(depths) == 1 else {}
    ends = {name: str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}" for name, layers in thirds.items()}
    found = []
    for name, block in blocks:
        rows = []
        for region in dict.fromkeys(block["region"]):
            part = block[block["region"] == region]
            one = part.drop_duplicates("participant")
            rows.append(
                {
                    "region": region,
                    "voxels": int(one["n_voxels"].sum()),
                    "ceiling": float(one["ceiling"].mean()),
                    "models": [
                        (each.label, _thirds(part[part["model"] == each.model], groups))
                        for each in models
                        if each.model in set(part["model"])
                    ],
                }
            )
        found.append({"participant": name, "rows": rows})
    return {"groups": [f"{name} ({ends[name]})" if name in ends else name for name in groups], "blocks": found}


def _thirds(part: pd.DataFrame, groups: Sequence[str]) -> list[tuple[float, float]]:
    """(mean r, mean r / ceiling) of each third of a model's layers; of a single layer in the first place."""
    thirds = layer_thirds(part["layer"])
    names = ["only", *groups[1:]] if "only" in thirds else groups
    chosen = [part[part["layer"].isin(thirds.get(name, ()))] for name in names]
    return [(float(one["r"].mean()), float(one["r_normalized"].mean())) for one in chosen]


def number_text(value: float, digits: int = 3) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}".replace("-", "−")
    return text[1:] if text.strip("−0.") == "" and text.startswith("−") else text


def count_of(table: pd.DataFrame, columns: Sequence[str]) -> int:
    """Number of different names in the first of these columns that the table has, without "mean" and ""."""
    return next((len(set(table[column]) - {MEAN, ""}) for column in columns if column in table.columns), 0)


def _cell(column: str, value: Any, labels: Mapping[str, str]) -> str:
    if column in ("model", "versus"):
        return labels.get(value, value)
    if column == "answer":
        return ANSWERS[value]
    if column in TEXTS:
        return str(value)
    if column in NAMES:
        return display_name(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    if column in ("alpha_median", "penalty"):
        form = ",.0f" if value >= 100 else ".3g"
        return format(value, form) if math.isfinite(value) else "–"
    if column in ("at_edge", "significant"):
        return f"{value:.0%}" if math.isfinite(value) else "–"
    if column == "hours":
        return f"{value:.3g}"
    if column in ("n_units", "limit"):
        return f"{value:g}".replace("-", "−") if math.isfinite(value) else "–"
    return number_text(float(value), 4 if column in ("p", "p_smallest", "p_holm", "q", "r2") else 3)


def _look(column: str) -> str:
    """The CSS class of a column: sentences are wrapped, names are not, numbers are right-aligned."""
    return "long" if column in TEXTS else "text" if column in NAMES else "right"


def shown(name: str, table: pd.DataFrame, models: Sequence[Condition]) -> dict[str, Any]:
    """Heading, description, columns and cells of a table as text. Tables that are too long have only means, or no rows."""
    columns: dict[str, str] = {}
    for column, heading in TABLES[name][0].items():
        columns |= {column: heading, **{more: words for more, words in BESIDE.get(column, {}).items() if more in table.columns}}
    if "delays" in columns and table["delays"].nunique() == 1:
        del columns["delays"]
    labels = {one.model: one.label for one in models}
    counts = [count_of(table, names) for names in (("participant",), ("test_story", "story"))]
    short = table
    if len(table) > SHOWN and "story" in columns:
        short = table[table["story"] == MEAN]
    if len(short) > SHOWN:
        short = table.iloc[:0]
    written = {column: [_cell(column, value, labels) for value in short[column]] for column in columns}
    heading, words = DETAILS[name]
    return {
        "name": name,
        "heading": heading,
        "words": sample(*counts) + words,
        "count": f"{len(short)} of {len(table)}" if 0 < len(short) < len(table) else str(len(table)),
        "columns": [(words, _look(column)) for column, words in columns.items()],
        "rows": list(zip(*written.values(), strict=True)),
    }


def tuning(training: pd.DataFrame, models: Sequence[Condition]) -> dict[str, Any]:
    """The last epoch of each tuning run, which shows whether all had equally many updates."""
    labels = {one.model: one.label for one in models}
    rows = []
    for (participant, model), part in training.groupby(["participant", "model"], sort=False):
        last = part.sort_values("epoch").iloc[-1]
        numbers = [number_text(float(last[column])) for column in ("train_loss", "validation_loss", "validation_r")]
        seconds = f"{float(part['seconds'].sum()):.0f}"
        named = [display_name(participant), labels[str(model)]]
        rows.append([*named, str(int(last["epoch"])), str(int(last["updates"])), *numbers, seconds])
    headings = ["participant", "model", "epochs", "updates", "training loss", "validation loss", "validation r", "seconds"]
    return {"headings": headings, "rows": rows}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            known = plain(value, shown=True)
            found[name] = known if isinstance(known, str) else json.dumps(known, ensure_ascii=False)
    return found


def paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
