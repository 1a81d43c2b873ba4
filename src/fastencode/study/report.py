"""What a study leaves behind: tables as CSV, answers and provenance as JSON, figures as PNG, and one page that holds them all.

The page is a single file without any outside resource: it opens from a disk, in a mail and on a phone, and prints.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.errors import InputError, require
from fastencode.files import whole_file
from fastencode.plain import plain
from fastencode.study import figures
from fastencode.study.captions import CAPTIONS, CEILINGS, DETAILS, Drawn, sample
from fastencode.study.columns import BESIDE, MEAN, TABLES, WORDS
from fastencode.study.conditions import Condition
from fastencode.study.verdicts import WIDTH, Verdict, counted, layer_thirds, overfitting

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["scores_table", "write_provenance", "write_report"]

SHOWN = 2000  # rows of a table on the page; a browser is slow with more
PICTURE_REGIONS = ("late_language", "auditory")


def write_report(
    folder: str | os.PathLike[str],
    *,
    title: str,
    lead: str,
    models: Sequence[Condition],
    tables: Mapping[str, pd.DataFrame],
    provenance: Mapping[str, Any],
    command: str,
    verdicts: Sequence[Verdict] = (),
    delays: str | None = None,
    notes: str = "",
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write everything a study shows into one folder; ``index.html`` comes last, so that its presence means completeness.

    Parameters
    ----------
    folder : path
        Made if absent. Gets ``<table>.csv``, ``results.json`` (where there are verdicts), ``provenance.json``, ``figures/*.png``
        and ``index.html``, each written beside its place and moved there whole. Files of these names that an earlier run left
        and this one does not write are removed. Other files in it stay as they are.
    title, lead : str
        The page's heading and first words; an empty line in ``lead`` begins a paragraph. Plain text: markup is shown, not obeyed.
    models : sequence of Condition
        All models of the tables, in the order to show them; differences are to the first.
    tables : mapping of str to pandas.DataFrame
        ``scores`` (must be there): one row per participant, model, layer (0 = the encoder's input) and region, with columns
        participant, model, layer, region, n_voxels, ceiling, r, r_low, r_high, r_normalized, alpha_median, at_edge.
        ``means``: model, layer, region, versus ("0", or the model that is subtracted), participants, mean, low, high.
        ``contrasts``: participant, model, layer, region, versus, difference, low, high.
        ``tests``: model, layer, region, versus, participants, mean, standard_error, p, p_smallest, q.
        ``partition``: participant, model, layer, region, part, band, r2.
        ``lags``: participant (or "mean"), model, lag, depth, layers, region, participants, r, r_low, r_high: see ``lag_rows``.
        ``test_stories``: test_story and the columns of ``scores``. ``leave_one_out``: participant, model, layer, region,
        n_voxels, story (or "mean"), rows, r, standard_deviation.
        ``training``: participant, model, epoch, updates, train_loss, validation_loss, validation_r, seconds.
        NaN where unknown. Other columns go to the CSV only, except those of ``columns.BESIDE``. Further tables become CSV files
        and are not on the page. Tables without rows are left out.
    provenance : mapping
        Everything needed to repeat the run and to know what it was: date, versions, settings, hashes; nested.
    command : str
        What to type to get this again.
    verdicts : sequence of Verdict
    delays : str, optional
        Only rows with these delays are drawn and summarized, where the tables have the column; by default all.
    notes : str
        The limits of what was shown, as ``lead``; left out when empty.
    picture_regions : sequence of str, optional
        Regions of ``figures/picture.png``; by default late_language and auditory where both exist, otherwise all.

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
    checked = {name: _checked(table, name, models) for name, table in tables.items() if len(table.columns) or name == "scores"}
    if checked["scores"].empty:
        raise InputError("scores has no rows: there is nothing to report")
    checked = {name: table for name, table in checked.items() if len(table)}
    drawn = {name: table if delays is None else _at(table, delays) for name, table in checked.items()}
    regions = _picture_regions(drawn["scores"], picture_regions)
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    images = {name: figures.png(figure) for name, figure in _figures(drawn, regions, models) if figure is not None}
    for name in CAPTIONS:  # an earlier run's figure must not pass for this one's
        _write(folder / "figures" / f"{name}.png", images.get(name))
    for name in dict.fromkeys((*TABLES, *tables)):
        _write(folder / f"{name}.csv", checked[name].to_csv(index=False).encode() if name in checked else None)
    _write(folder / "results.json", _json({"title": title, "verdicts": list(verdicts)}) if verdicts else None)
    write_provenance(folder, command, provenance)
    page = _page(
        title=title,
        lead=_paragraphs(lead),
        notes=_paragraphs(notes),
        verdicts=list(verdicts),
        counted=counted(verdicts),
        figures=[_embedded(name, image, drawn, models) for name, image in images.items()],
        summary=_summary(drawn["scores"], models),
        tables=[_shown(name, table, models) for name, table in checked.items() if name in DETAILS],
        ceilings=CEILINGS if checked["scores"]["ceiling"].notna().any() else "",
        tuning=_tuning(checked["training"], models) if "training" in checked else None,
        overfitting=overfitting(checked["training"], models) if "training" in checked else [],
        facts=_flat({key: value for key, value in provenance.items() if not isinstance(value, Mapping)}),
        details={key: _flat(value) for key, value in provenance.items() if isinstance(value, Mapping) and value},
        command=command,
    )
    index = folder / "index.html"
    _write(index, page.encode())
    return index


def write_provenance(folder: Path, command: str, provenance: Mapping[str, Any]) -> None:
    """Write ``provenance.json``: the command that repeats what made a folder, then what else is known of it."""
    _write(folder / "provenance.json", _json({"command": command, **provenance}))


def scores_table(scores: pd.DataFrame, models: Sequence[Condition]) -> str:
    """The scores for a terminal, at most 100 columns: regions of each participant, means over early, middle and late layers.

    Parameters
    ----------
    scores : pandas.DataFrame
    models : sequence of Condition
        Both as for ``write_report``.

    Returns
    -------
    str
        Lines without a final newline. With several participants, their mean comes first.

    Raises
    ------
    InputError
        If a column is missing, a model is unknown, or a row comes twice.
    """
    summary = _summary(_checked(scores, "scores", models), models)
    cell = 15
    left = WIDTH - cell * (1 + len(summary["groups"]))
    head = f"{'mean r over layers':<{left}}{'ceiling':>{cell}}" + "".join(f"{name:>{cell}}" for name in summary["groups"])
    rule = "-" * len(head)
    lines = [head, rule]
    for block in summary["blocks"]:
        lines.append(figures.display_name(block["participant"], left))
        for row in block["rows"]:
            name = figures.display_name(row["region"], left - 3)
            lines.append(f"  {name:<{left - 2}}{_number(row['ceiling'], 2):>{cell}}")
            for label, cells in row["models"]:
                values = "".join(f"{_number(r):>{cell}}" for r, _ in cells)
                lines.append(f"    {figures.shortened(label, left - 5):<{left - 4 + cell}}{values}")
    return "\n".join([*lines, rule])


def _checked(table: pd.DataFrame, name: str, models: Sequence[Condition]) -> pd.DataFrame:
    if name not in TABLES:
        return table
    columns, key = TABLES[name]
    missing = [column for column in columns if column not in table.columns]
    if missing:
        needed, present = ", ".join(columns), ", ".join(map(str, table.columns))
        raise InputError(f"{name} has no column {missing[0]!r}: it needs {needed}; it has {present}")
    known = [one.model for one in models]
    unknown = sorted(set(map(str, table["model"])) - set(known))
    if unknown:
        raise InputError(f"{name} holds the model {unknown[0]!r}, which is none of {', '.join(known)}: pass it in models")
    there = [column for column in key if column in table.columns]
    twice = table[table.duplicated(there)]
    if len(twice):
        raise InputError(f"{name} holds {dict(twice.iloc[0][there])} twice: there must be one row for each")
    return table.assign(**{column: table[column].astype(str) for column in there if column in WORDS})


def _at(table: pd.DataFrame, delays: str) -> pd.DataFrame:
    return table[table["delays"] == delays] if "delays" in table.columns else table


def _figures(
    tables: Mapping[str, pd.DataFrame], regions: Sequence[str], models: Sequence[Condition]
) -> Iterator[tuple[str, Figure | None]]:
    """The figures that there is something to draw in."""
    scores, means = tables["scores"], tables.get("means")
    if means is not None:
        yield "picture", figures.picture(means[means["versus"] == "0"], scores, regions, models)
    panels = scores[["participant", "region"]].drop_duplicates()
    alone = panels["participant"].nunique() == 1 and set(panels["region"]) == set(regions)
    if means is None or (len(panels) <= figures.PANELS and not alone):
        yield "layers", figures.layers_figure(scores, models)
    if means is not None and "contrasts" in tables:
        yield "change", figures.change_figure(means[means["versus"] != "0"], tables["contrasts"], models)
    if "lags" in tables:
        yield "lags", figures.lags_figure(tables["lags"], models)
    if "training" in tables:
        yield "training", figures.training_figure(tables["training"], models)


def _picture_regions(scores: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    present = list(dict.fromkeys(scores["region"]))
    if wanted is None:
        return list(PICTURE_REGIONS) if set(PICTURE_REGIONS) <= set(present) else present
    unknown = [region for region in wanted if region not in present]
    if unknown or not wanted:
        raise InputError(f"picture_regions is {list(wanted)!r}: name some of {', '.join(present)}")
    return list(wanted)


def _write(path: Path, content: bytes | None) -> None:
    """None removes what an earlier run wrote."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _json(value: Any) -> bytes:
    return f"{json.dumps(plain(value, shown=True), indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()


def _summary(scores: pd.DataFrame, models: Sequence[Condition]) -> dict[str, Any]:
    """Mean r, and mean r / ceiling, over early, middle and late layers of each model; the participants' mean comes first."""
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


def _number(value: float, digits: int = 3) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}".replace("-", "−")
    return text[1:] if text.strip("−0.") == "" and text.startswith("−") else text


def _shown(name: str, table: pd.DataFrame, models: Sequence[Condition]) -> dict[str, Any]:
    """A table's heading, what it says, and its columns and cells as text; only means, or no cells, where there are too many."""
    columns: dict[str, str] = {}
    for column, heading in TABLES[name][0].items():
        columns |= {column: heading, **{more: words for more, words in BESIDE.get(column, {}).items() if more in table.columns}}
    if "delays" in columns and table["delays"].nunique() == 1:
        del columns["delays"]
    labels = {one.model: one.label for one in models}
    counts = [_distinct(table, names) for names in (("participant",), ("test_story", "story"))]
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
        "columns": [(words, column in WORDS) for column, words in columns.items()],
        "rows": list(zip(*written.values(), strict=True)),
    }


def _distinct(table: pd.DataFrame, columns: Sequence[str]) -> int:
    """How many names the first of these columns that is there holds, the mean aside."""
    return next((len(set(table[column]) - {MEAN}) for column in columns if column in table.columns), 0)


def _cell(column: str, value: Any, labels: Mapping[str, str]) -> str:
    if column in ("model", "versus"):
        return labels.get(value, value)
    if column in WORDS:
        return figures.display_name(value)
    if isinstance(value, int | np.integer):
        return str(value)
    if column == "alpha_median":
        form = ",.0f" if value >= 100 else ".3g"
        return format(value, form) if math.isfinite(value) else "–"
    if column in ("at_edge", "significant"):
        return f"{value:.0%}" if math.isfinite(value) else "–"
    return _number(float(value), 4 if column in ("p", "p_smallest", "q", "r2") else 3)


def _tuning(training: pd.DataFrame, models: Sequence[Condition]) -> dict[str, Any]:
    """Where each tuning ended: so that equal numbers of updates can be seen."""
    labels = {one.model: one.label for one in models}
    rows = []
    for (participant, model), part in training.groupby(["participant", "model"], sort=False):
        last = part.sort_values("epoch").iloc[-1]
        numbers = [_number(float(last[column])) for column in ("train_loss", "validation_loss", "validation_r")]
        seconds = f"{float(part['seconds'].sum()):.0f}"
        named = [figures.display_name(participant), labels[str(model)]]
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
            known = plain(value, shown=True)
            flat[name] = known if isinstance(known, str) else json.dumps(known, ensure_ascii=False)
    return flat


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _embedded(name: str, image: bytes, tables: Mapping[str, pd.DataFrame], models: Sequence[Condition]) -> dict[str, Any]:
    """A figure as the page shows it. Width and height are a PNG's bytes 16 to 24."""
    heading, caption = CAPTIONS[name]
    scores = tables["lags" if name == "lags" else "scores"]
    table = tables["contrasts"] if name == "change" else scores
    layers = table.groupby("model")["layer"].nunique() if name != "lags" else ()
    drawn = Drawn(
        n=_distinct(scores, ("participant",)),
        bands="" if not scores["r_low"].notna().any() else "crowded" if figures.crowded(table) else "drawn",
        first=models[0].label,
        level=1 in set(layers),
        depths=figures.depths(scores) if name == "lags" else (),
    )
    return {
        "name": name,
        "heading": heading,
        "caption": caption(drawn),
        "data": base64.b64encode(image).decode(),
        "width": int.from_bytes(image[16:20], "big"),
        "height": int.from_bytes(image[20:24], "big"),
    }


def _page(**content: Any) -> str:
    jinja2 = require("jinja2", "report")
    source = resources.files("fastencode.study").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": _number, "name": figures.display_name}
    return environment.from_string(source).render(**content)
