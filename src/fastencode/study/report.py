"""What a study leaves behind: tables as CSV, results as JSON, figures as PNG, and one page that holds them all.

The page is a single file without any outside resource: it opens from a disk, in a mail and on a phone, and prints.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.errors import InputError, require
from fastencode.files import whole_file
from fastencode.study import figures
from fastencode.study.verdicts import WIDTH, Verdict, counted, layer_thirds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["scores_table", "write_report"]

SCORES = {
    "participant": "participant",
    "model": "model",
    "layer": "layer",
    "region": "region",
    "n_voxels": "voxels",
    "ceiling": "noise ceiling",
    "r": "r",
    "r_low": "95 % low",
    "r_high": "95 % high",
    "r_normalized": "r / ceiling",
    "alpha_median": "median α",
    "at_edge": "α at grid edge",
}
TRAINING = {
    "participant": "participant",
    "model": "model",
    "epoch": "epoch",
    "updates": "updates",
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "validation_r": "validation r",
    "seconds": "seconds",
}
# Before, after, and the control beside it: the order in which the tables are read.
MODEL_ORDER = {"pretrained": "pre", "tuned": "tuned", "control": "control"}
PICTURE_REGIONS = ("late_language", "auditory")


def write_report(
    folder: str | os.PathLike[str],
    *,
    title: str,
    lead: str,
    scores: pd.DataFrame,
    training: pd.DataFrame,
    verdicts: Sequence[Verdict],
    settings: Mapping[str, Any],
    facts: Mapping[str, str],
    command: str,
    notes: str = "",
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write everything a study shows into one folder; ``index.html`` comes last, so that its presence means completeness.

    Parameters
    ----------
    folder : path
        Made if absent. Gets ``scores.csv``, ``training.csv``, ``results.json``, ``figures/*.png`` and ``index.html``, each
        written beside its place and moved there whole. Other files in it stay as they are.
    title, lead : str
        The page's heading and first words; an empty line in ``lead`` begins a paragraph. Plain text: markup is shown, not obeyed.
    scores : pandas.DataFrame
        One row per participant, model ("pretrained", "tuned" or "control"), layer (0 = the encoder's input) and region: columns
        participant, model, layer, region, n_voxels, ceiling, r, r_low, r_high, r_normalized, alpha_median, at_edge. NaN where
        unknown. Further columns go to the CSV only.
    training : pandas.DataFrame
        Columns participant, model, epoch, updates, train_loss, validation_loss, validation_r, seconds; may have no rows.
    verdicts : sequence of Verdict
    settings : mapping
        Nested; everything needed to repeat the run.
    facts : mapping of str to str
        Versions, machine, seconds, memory, hashes.
    command : str
        What to type to get this again.
    notes : str
        The limits of what was shown, as ``lead``; left out when empty.
    picture_regions : sequence of str, optional
        Regions of ``figures/picture.png``; by default late_language and auditory where both exist, otherwise the first three.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        If a table lacks a column, holds an unknown model or the same row twice, or ``picture_regions`` names an unknown region.
    MissingLibraryError
        If matplotlib or jinja2 is not installed.
    """
    scores, training = _checked_scores(scores), _checked_training(training)
    regions = _picture_regions(scores, picture_regions)
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = {
        "picture": figures.picture(scores, regions),
        "layers": figures.layers_figure(scores),
        "change": figures.change_figure(scores),
        "training": figures.training_figure(training),
    }
    images = {name: figures.png(figure) for name, figure in drawn.items() if figure is not None}
    for name in drawn:
        path = folder / "figures" / f"{name}.png"
        if name in images:
            _write(path, images[name])
        else:
            path.unlink(missing_ok=True)  # an earlier run's figure must not pass for this one's
    results = {"title": title, "command": command, "verdicts": list(verdicts), "settings": settings, "facts": facts}
    _write(folder / "scores.csv", scores.to_csv(index=False).encode())
    _write(folder / "training.csv", training.to_csv(index=False).encode())
    text = json.dumps(_jsonable(results), indent=2, ensure_ascii=False, allow_nan=False)
    _write(folder / "results.json", f"{text}\n".encode())
    page = _page(
        title=title,
        lead=_paragraphs(lead),
        notes=_paragraphs(notes),
        verdicts=list(verdicts),
        counted=counted(verdicts),
        figures=[_embedded(name, images[name], scores) for name in images],
        summary=_summary(scores),
        scores=_table(scores, SCORES),
        ceilings=CEILINGS if scores["ceiling"].notna().any() else "",
        tuning=_tuning(training),
        settings=_flat(settings),
        facts={str(key): str(value) for key, value in facts.items()},
        command=command,
    )
    index = folder / "index.html"
    _write(index, page.encode())
    return index


def scores_table(scores: pd.DataFrame) -> str:
    """The scores for a terminal, at most 100 columns: regions of each participant, means over early, middle and late layers.

    Parameters
    ----------
    scores : pandas.DataFrame
        As for ``write_report``.

    Returns
    -------
    str
        Lines without a final newline. With several participants, their mean comes last.

    Raises
    ------
    InputError
        If a column is missing, a model is unknown, or a row comes twice.
    """
    summary = _summary(_checked_scores(scores))
    cell = {"pre": 8, "tuned": 7, "control": 8}
    group = sum(cell[_short(model)] for model in summary["models"])
    left = min(WIDTH - group * len(summary["groups"]), 34)
    head = f"{'mean r':<{left - 8}}{'ceiling':>8}" + "".join(f"{label:>{group}}" for label in summary["groups"])
    names = "".join(f"{_short(model):>{cell[_short(model)]}}" for model in summary["models"]) * len(summary["groups"])
    rule = "-" * len(head)
    lines = [head, " " * left + names, rule]
    before = None
    for row in summary["rows"]:
        if row["block"] != before:
            lines.append(figures.display_name(row["participant"], left))
            before = row["block"]
        widths = [cell[_short(model)] for model in summary["models"]] * len(summary["groups"])
        numbers = [_number(value) for part in row["cells"] for value in part]
        values = "".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
        region = "  " + figures.display_name(row["region"], left - 11)
        lines.append(f"{region:<{left - 8}}{_number(row['ceiling'], 2):>8}{values}")
    return "\n".join([*lines, rule])


def _checked(table: pd.DataFrame, columns: Mapping[str, str], name: str, key: Sequence[str]) -> pd.DataFrame:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        needed, present = ", ".join(columns), ", ".join(map(str, table.columns))
        raise InputError(f"{name} has no column {missing[0]!r}: it needs {needed}; it has {present}")
    unknown = sorted(set(map(str, table["model"])) - set(MODEL_ORDER))
    if unknown:
        raise InputError(f"{name} holds the model {unknown[0]!r}: call it one of {', '.join(MODEL_ORDER)}")
    twice = table[table.duplicated(list(key))]
    if len(twice):
        raise InputError(f"{name} holds {dict(twice.iloc[0][list(key)])} twice: there must be one row for each")
    table = table[[*columns, *(column for column in table.columns if column not in columns)]]
    return table.assign(**{column: table[column].astype(str) for column in key if column in ("participant", "model", "region")})


def _checked_scores(scores: pd.DataFrame) -> pd.DataFrame:
    checked = _checked(scores, SCORES, "scores", ("participant", "model", "layer", "region"))
    if checked.empty:
        raise InputError("scores has no rows: there is nothing to report")
    return checked


def _checked_training(training: pd.DataFrame) -> pd.DataFrame:
    return _checked(training, TRAINING, "training", ("participant", "model", "epoch"))


def _picture_regions(scores: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    present = list(dict.fromkeys(scores["region"]))
    if wanted is None:
        return list(PICTURE_REGIONS) if set(PICTURE_REGIONS) <= set(present) else present[:3]
    unknown = [region for region in wanted if region not in present]
    if unknown or not wanted:
        raise InputError(f"picture_regions is {list(wanted)!r}: name some of {', '.join(present)}")
    return list(wanted)


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _jsonable(value: Any) -> Any:
    """Python's and NumPy's values as JSON knows them; NaN and the infinities become null, what else there is becomes text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset | range):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _summary(scores: pd.DataFrame) -> dict[str, Any]:
    """Mean r over early, middle and late layers: rows of regions, cells[group][model]; the participants' mean comes last."""
    thirds = layer_thirds(scores["layer"])
    models = [model for model in MODEL_ORDER if model in set(scores["model"])]
    participants = list(dict.fromkeys(scores["participant"]))
    blocks = [(name, scores[scores["participant"] == name]) for name in participants]
    if len(participants) > 1:
        blocks.append((f"mean of {len(participants)} participants", scores))
    rows = []
    for number, (name, block) in enumerate(blocks):
        for region in dict.fromkeys(block["region"]):
            part = block[block["region"] == region]
            cells = [
                [float(part.loc[(part["model"] == model) & part["layer"].isin(layers), "r"].mean()) for model in models]
                for layers in thirds.values()
            ]
            ceiling = float(part["ceiling"].mean())
            rows.append({"block": number, "participant": name, "region": region, "ceiling": ceiling, "cells": cells})
    ends = {name: f"{layers[0]}–{layers[-1]}" if len(layers) > 1 else str(layers[0]) for name, layers in thirds.items()}
    groups = [f"{name} ({numbers})" for name, numbers in ends.items()]
    return {"models": models, "groups": groups, "rows": rows}


def _short(model: str) -> str:
    return MODEL_ORDER[model]


def _number(value: float, digits: int = 3) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}".replace("-", "−")
    return text[1:] if text.strip("−0.") == "" and text.startswith("−") else text


def _table(table: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, Any]:
    """A table's headings and cells as text."""
    written = {column: [_cell(column, value) for value in table[column]] for column in columns}
    return {"headings": list(columns.values()), "rows": list(zip(*written.values(), strict=True))}


def _cell(column: str, value: Any) -> str:
    if column == "model":
        return figures.model_name(value)
    if column in ("participant", "region"):
        return figures.display_name(value)
    if isinstance(value, int | np.integer):
        return str(value)
    if column == "alpha_median":
        form = ",.0f" if value >= 100 else ".3g"
        return format(value, form) if math.isfinite(value) else "–"
    if column == "at_edge":
        return f"{value:.0%}" if math.isfinite(value) else "–"
    return _number(float(value))


def _tuning(training: pd.DataFrame) -> dict[str, Any]:
    """Where each tuning ended: so that equal numbers of updates can be seen."""
    rows = []
    for (participant, model), part in training.groupby(["participant", "model"], sort=False):
        last = part.sort_values("epoch").iloc[-1]
        numbers = [_number(float(last[column])) for column in ("train_loss", "validation_loss", "validation_r")]
        seconds = f"{float(part['seconds'].sum()):.0f}"
        named = [figures.display_name(participant), figures.model_name(str(model))]
        rows.append([*named, str(int(last["epoch"])), str(int(last["updates"])), *numbers, seconds])
    headings = ["participant", "model", "epochs", "updates", "training loss", "validation loss", "validation r", "seconds"]
    return {"headings": headings, "rows": rows}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{name}.")
        else:
            plain = _jsonable(value)
            flat[name] = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return flat


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _embedded(name: str, image: bytes, scores: pd.DataFrame) -> dict[str, Any]:
    """A figure as the page shows it. Width and height are a PNG's bytes 16 to 24."""
    heading, caption = CAPTIONS[name]
    several = scores["participant"].nunique() > 1
    return {
        "name": name,
        "heading": heading,
        "caption": caption(several),
        "data": base64.b64encode(image).decode(),
        "width": int.from_bytes(image[16:20], "big"),
        "height": int.from_bytes(image[20:24], "big"),
    }


def _page(**content: Any) -> str:
    jinja2 = require("jinja2", "report")
    source = resources.files("fastencode.study").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": _number, "name": figures.display_name, "short": _short}
    return environment.from_string(source).render(**content)


# What stands under the scores where ceilings are known.
CEILINGS = (
    "The noise ceiling of a voxel is the largest correlation that any prediction could reach with the mean over the test "
    "story's repeats, given how much these differ. The tables show its mean over those of the region's voxels whose ceiling "
    "is above 0. A ceiling is an estimate that is never below 0. In a region that follows nothing, chance lifts the "
    "estimates of some voxels above 0 and cannot take others below, so the mean is above 0 although the true ceiling is 0. "
    "In scores.csv and in the table of every score, r / ceiling is mean r divided by mean ceiling, both over those voxels. "
    "It is not the ratio of the columns beside it, because r counts all voxels of the region, and it means nothing where "
    "the region follows nothing."
)
SCORE = "correlation between predicted and measured responses on held-out data, mean over the region's voxels"
LEVELS = "Panels have the same height in r at different levels, so compare shapes and gaps, and read levels off the axis."
EACH = "Thick lines: mean over participants; thin lines: each participant. "
BANDS = "Bands: 95 % block-bootstrap intervals"
# Heading and caption of each figure, given whether there are several participants.
CAPTIONS: dict[str, tuple[str, Callable[[bool], str]]] = {
    "picture": (
        "The result at a glance",
        lambda several: (
            f"Vertical: {SCORE}. Horizontal: layer of the speech model that predicts; 0 is what the transformer receives. "
            f"{EACH if several else BANDS + '. '}{LEVELS}"
        ),
    ),
    "layers": (
        "Every layer and region",
        lambda several: (
            f"One panel per {'region and participant' if several else 'region'}. Vertical: {SCORE}. {BANDS}; the models are "
            "scored on the same data, so overlapping bands do not mean that two models are alike. Dashed: the region's mean "
            "noise ceiling where it is known, above 0 by chance in a region that follows nothing (see Scores); where it lies far "
            f"above the curves, its value is written at the upper edge. {LEVELS}"
        ),
    ),
    "change": (
        "What tuning changed",
        lambda several: (
            "Each model's r minus the pretrained model's r at the same layer; above zero, tuning helped. All panels share one "
            f"axis. {EACH if several else ''}The control was tuned on responses that do not belong to the sound: what it gains "
            "does not come from their pairing."
        ),
    ),
    "training": (
        "How tuning went",
        lambda several: (
            "Left: squared error per voxel on the clips tuned on (dotted) and on validation clips (solid). Right: correlation of "
            "the tuned model's own predictions on validation clips, mean over voxels. Validation clips are never tuned on."
        ),
    ),
}
