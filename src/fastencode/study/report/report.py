"""Write a report: tables as CSV, answers and provenance as JSON, figures as PNG and SVG, and an HTML page with all of them.

The page is a single file without external resources, so it can be opened from disk, mailed, read on a phone, and printed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastencode.errors import InputError, require
from fastencode.files import whole_file
from fastencode.plain import plain
from fastencode.study import figures
from fastencode.study.columns import TABLES, WORDS
from fastencode.study.conditions import Condition
from fastencode.study.findings.verdicts import WIDTH, Verdict
from fastencode.study.names import ANSWERS, display_name, shortened
from fastencode.study.report.captions import CAPTIONS
from fastencode.study.report.cautions import cautions
from fastencode.study.report.cells import number_text, score_summary
from fastencode.study.report.page import Drawing, Map, render

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Map", "scores_table", "write_provenance", "write_report"]

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
    maps: Sequence[Map] = (),
) -> Path:
    """Write a report into a folder. ``index.html`` is written last, so if it exists, the report is complete.

    Parameters
    ----------
    folder : path
        Created if needed. Gets ``<table>.csv``, ``results.json`` (if there are verdicts), ``provenance.json``, each figure as
        ``figures/*.png`` and ``*.svg``, and ``index.html``. Each file is written under a temporary name and then renamed. Files
        of these names from an earlier run that are not written now are removed. Other files are not touched.
    title, lead : str
        Heading and first paragraphs of the page. An empty line in ``lead`` starts a new paragraph. Markup is escaped.
    models : sequence of Condition
        All models in the tables, in order of display. Differences are relative to the first.
    tables : mapping of str to pandas.DataFrame
        ``scores`` or ``probes`` is required. The page has a section for each table with rows.

        ``scores``: one row per participant, model, layer (0 = the encoder's input) and region, with columns
        participant, model, layer, region, n_voxels, ceiling, r, r_low, r_high, r_normalized, alpha_median, at_edge.
        ``means``: model, layer, region, versus ("0", or the model that is subtracted), participants, mean, low, high.
        ``contrasts``: participant, model, layer, region, versus, difference, low, high.
        ``tests``: model, layer, region, versus, participants, mean, standard_error, p, p_smallest, q.
        ``partition``: participant, model, layer, region, part, band, r2.
        ``lags``: participant (or "mean"), model, lag, depth, layers, region, participants, r, r_low, r_high: see ``lag_rows``.
        ``test_stories``: test_story and the columns of ``scores``. ``leave_one_out``: participant, model, layer, region,
        n_voxels, story (or "mean"), rows, r, standard_deviation.
        ``training``: participant, model, epoch, updates, train_loss, validation_loss, validation_r, seconds.
        ``findings``: what ``contrasts.finding_rows`` makes; with ``expect`` and ``limit``, if they are there, the page says what
        would decide the undecided ones. ``answer`` is yes, no, undecided, or empty where nothing was expected.
        ``probes``: task, metric, model, participant ("" for a model that belongs to none, "mean" for the mean), layer, score,
        low, high, baseline, control, selectivity, n_train, n_test, n_units, unit, penalty, at_edge.
        ``change``: participant, model, layer, measure, value. ``mlp``: participant, model, layer, region, r_ridge, r_mlp,
        difference, low, high, settings. ``scaling``: model, participant, region, hours, r, low, high.
        ``seeds``: measure, participant, model, seed, layer, region, value, low, high.
        ``diagnostics``: participant, model, finding, evidence, advice, and ``verdict`` where it is there.
        ``warnings``: warning, a sentence in each row. Those of ``cautions.cautions`` are added.

        Unknown numbers are NaN. Other columns are only in the CSV file, except those of ``columns.BESIDE``. Other tables become
        CSV files and are not on the page. Tables without rows are left out.
    provenance : mapping
        Nested: date, versions, settings, hashes, and everything else that is needed to repeat the run.
    command : str
        The command that repeats the run.
    verdicts : sequence of Verdict
    delays : str, optional
        Only rows with these delays are drawn and summarized, where the tables have the column; by default all.
    notes : str
        Limits of the results, formatted as ``lead``; left out if empty.
    picture_regions : sequence of str, optional
        Regions of ``figures/picture.png``; by default late_language and auditory where both exist, otherwise all.
    maps : sequence of Map
        Further images, for example of ``figures.surface_figure``.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        If a table lacks a column, holds an unknown model or answer or the same row twice, ``picture_regions`` names an unknown
        region, or a map has a name that no file can have, or no PNG.
    MissingLibraryError
        If matplotlib or jinja2 is not installed.
    """
    checked = {name: _checked(table, name, models) for name, table in tables.items() if len(table.columns) or name == "scores"}
    checked = {name: table for name, table in checked.items() if len(table)}
    if not {"scores", "probes"} & set(checked):
        raise InputError("scores has no rows: there is nothing to report; give scores, or probes")
    drawn = {name: table if delays is None else _at(table, delays) for name, table in checked.items()}
    regions = _picture_regions(drawn["scores"], picture_regions) if "scores" in drawn else []
    if warnings := cautions(drawn, models):
        checked["warnings"] = require("pandas", "report").DataFrame({"warning": warnings})
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    made = ((name, figure) for name, figure in _figures(drawn, regions, models) if figure is not None)
    drawings = {name: Drawing(figures.png(figure), figures.svg(figure)) for name, figure in made}
    _write_figures(folder / "figures", drawings, _named(maps))
    for name in dict.fromkeys((*TABLES, *tables)):
        _write(folder / f"{name}.csv", checked[name].to_csv(index=False).encode() if name in checked else None)
    _write(folder / "results.json", _json({"title": title, "verdicts": list(verdicts)}) if verdicts else None)
    write_provenance(folder, command, provenance)
    page = render(
        title=title,
        lead=lead,
        notes=notes,
        models=models,
        tables=checked,
        drawn=drawn,
        drawings=drawings,
        maps=maps,
        verdicts=verdicts,
        warnings=warnings,
        provenance=provenance,
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
    summary = score_summary(_checked(scores, "scores", models), models)
    cell = 15
    left = WIDTH - cell * (1 + len(summary["groups"]))
    head = f"{'mean r over layers':<{left}}{'ceiling':>{cell}}" + "".join(f"{name:>{cell}}" for name in summary["groups"])
    rule = "-" * len(head)
    lines = [head, rule]
    for block in summary["blocks"]:
        lines.append(display_name(block["participant"], left))
        for row in block["rows"]:
            name = display_name(row["region"], left - 3)
            lines.append(f"  {name:<{left - 2}}{number_text(row['ceiling'], 2):>{cell}}")
            for label, cells in row["models"]:
                values = "".join(f"{number_text(r):>{cell}}" for r, _ in cells)
                lines.append(f"    {shortened(label, left - 5):<{left - 4 + cell}}{values}")
    return "\n".join([*lines, rule])


def _checked(table: pd.DataFrame, name: str, models: Sequence[Condition]) -> pd.DataFrame:
    if name not in TABLES:
        return table
    columns, key = TABLES[name]
    missing = [column for column in columns if column not in table.columns]
    if missing:
        needed, present = ", ".join(columns), ", ".join(map(str, table.columns))
        raise InputError(f"{name} has no column {missing[0]!r}: it needs {needed}; it has {present}")
    words = [column for column in table.columns if column in WORDS and (column in columns or column in key)]
    table = table.assign(**{column: table[column].fillna("").astype(str) for column in words})
    known = [one.model for one in models]
    unknown = sorted(set(table["model"]) - set(known)) if "model" in columns else []
    if unknown:
        raise InputError(f"{name} holds the model {unknown[0]!r}, which is none of {', '.join(known)}: pass it in models")
    wrong = sorted(set(table["answer"]) - set(ANSWERS)) if "answer" in columns else []
    if wrong:
        raise InputError(f"{name} holds the answer {wrong[0]!r}: give yes, no or undecided, or leave it empty")
    there = [column for column in key if column in table.columns]
    twice = table[table.duplicated(there)]
    if len(twice):
        raise InputError(f"{name} holds {dict(twice.iloc[0][there])} twice: there must be one row for each")
    return table


def _at(table: pd.DataFrame, delays: str) -> pd.DataFrame:
    return table[table["delays"] == delays] if "delays" in table.columns else table


def _figures(
    tables: Mapping[str, pd.DataFrame], regions: Sequence[str], models: Sequence[Condition]
) -> Iterator[tuple[str, Figure | None]]:
    """The figures that there is something to draw in, in the order of the page."""
    if "findings" in tables:
        yield "findings", figures.findings_figure(tables["findings"])
    yield from _brain_figures(tables, regions, models)
    simple = {
        "lags": figures.lags_figure,
        "probes": figures.probes_figure,
        "change": figures.change_figure,
        "mlp": figures.mlp_figure,
        "scaling": figures.scaling_figure,
        "seeds": figures.seeds_figure,
        "training": figures.training_figure,
    }
    yield from ((name, draw(tables[name], models)) for name, draw in simple.items() if name in tables)


def _brain_figures(
    tables: Mapping[str, pd.DataFrame], regions: Sequence[str], models: Sequence[Condition]
) -> Iterator[tuple[str, Figure | None]]:
    if "scores" not in tables:
        return
    scores, means = tables["scores"], tables.get("means")
    if means is not None:
        yield "picture", figures.picture(means[means["versus"] == "0"], scores, regions, models)
    panels = scores[["participant", "region"]].drop_duplicates()
    alone = panels["participant"].nunique() == 1 and set(panels["region"]) == set(regions)
    if means is None or (len(panels) <= figures.PANELS and not alone):
        yield "layers", figures.layers_figure(scores, models)
    if means is not None and "contrasts" in tables:
        contrasts = tables["contrasts"]
        yield "differences", figures.differences_figure(means[means["versus"] != "0"], contrasts, models)
        if contrasts["participant"].nunique() * len(regions) <= figures.PANELS:
            yield "participants", figures.participants_figure(contrasts, regions, models)


def _picture_regions(scores: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    present = list(dict.fromkeys(scores["region"]))
    if wanted is None:
        return list(PICTURE_REGIONS) if set(PICTURE_REGIONS) <= set(present) else present
    unknown = [region for region in wanted if region not in present]
    if unknown or not wanted:
        raise InputError(f"picture_regions is {list(wanted)!r}: name some of {', '.join(present)}")
    return list(wanted)


def _named(maps: Sequence[Map]) -> dict[str, Drawing]:
    """The files of maps, by name."""
    found: dict[str, Drawing] = {}
    for one in maps:
        name = f"map-{one.name}"
        if not re.fullmatch(r"[\w-]+", one.name) or name in found:
            raise InputError(f"maps has the name {one.name!r}: give each a name of its own of letters, digits, - and _")
        if not one.png.startswith(b"\x89PNG"):
            raise InputError(f"the map {one.name!r} has no PNG in png: give the content of a PNG file, such as figures.png makes")
        found[name] = Drawing(one.png, one.svg)
    return found


def _write_figures(folder: Path, drawings: Mapping[str, Drawing], maps: Mapping[str, Drawing]) -> None:
    """An earlier run's figure must not pass for this one's: those that this one has not are removed."""
    old = [path.stem for path in folder.glob("map-*")]
    both = {**drawings, **maps}
    for name in dict.fromkeys((*CAPTIONS, *old, *both)):
        one = both.get(name)
        _write(folder / f"{name}.png", one.png if one else None)
        _write(folder / f"{name}.svg", (one.svg or None) if one else None)


def _write(path: Path, content: bytes | None) -> None:
    """None removes what an earlier run wrote."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _json(value: Any) -> bytes:
    return f"{json.dumps(plain(value, shown=True), indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()
