"""Render the HTML page from checked tables and finished figures, with the template ``page.html.j2``."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from fastencode.errors import require
from fastencode.study import figures
from fastencode.study.conditions import OWN, Condition, reference_label
from fastencode.study.findings.summary import number, quantity, summary, tested
from fastencode.study.findings.verdicts import Verdict, counted, overfitting
from fastencode.study.names import ANSWERS, display_name
from fastencode.study.report.alts import alt_text
from fastencode.study.report.captions import CAPTIONS, CEILINGS, DETAILS, Drawn
from fastencode.study.report.cells import count_of, flat, number_text, paragraphs, score_summary, shown, tuning

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Drawing", "Map", "render"]

# Of each figure, the tables of which the first that is there tells captions how many participants, models and intervals it has.
OF = {
    "findings": ("findings",),
    "picture": ("scores",),
    "layers": ("scores",),
    "differences": ("contrasts",),
    "participants": ("contrasts",),
    "lags": ("lags",),
    "probes": ("probes",),
    "change": ("change",),
    "mlp": ("mlp",),
    "scaling": ("scaling",),
    "seeds": ("seeds",),
    "training": ("training",),
}


class Drawing(NamedTuple):
    """A figure as the contents of two files."""

    png: bytes
    svg: bytes


class Map(NamedTuple):
    """An image that was made elsewhere, of a brain for example, with what the page says beside it.

    Attributes
    ----------
    name : str
        Of its files, ``figures/map-NAME.png`` and ``.svg``: letters, digits, hyphens and underscores.
    heading, caption : str
    alt : str
        What the image shows, in words and numbers.
    png : bytes
        The content of a PNG file.
    svg : bytes
        That of an SVG file; empty where there is none.
    """

    name: str
    heading: str
    caption: str
    alt: str
    png: bytes
    svg: bytes = b""


def render(
    *,
    title: str,
    lead: str,
    notes: str,
    models: Sequence[Condition],
    tables: Mapping[str, pd.DataFrame],
    drawn: Mapping[str, pd.DataFrame],
    drawings: Mapping[str, Drawing],
    maps: Sequence[Map],
    verdicts: Sequence[Verdict],
    warnings: Sequence[str],
    provenance: Mapping[str, Any],
    command: str,
) -> str:
    """The page's text. Arguments are those of ``report.write_report``, its tables checked.

    Parameters
    ----------
    tables, drawn : mapping of str to pandas.DataFrame
        All rows; and those that figures show.
    drawings : mapping of str to Drawing
        Figures by name, in the order of the page. That of training stands last, behind the maps.
    warnings : sequence of str
    """
    labels = {one.model: one.label for one in models}
    found = [_figure(name, drawing, drawn, models) for name, drawing in drawings.items()]
    by_name = {one["name"]: one for one in found}
    findings = tables.get("findings")
    first, parts = ("", []) if findings is None else summary(findings, labels)
    said = set() if findings is None else set(findings["statement"])
    beside = [one for one in verdicts if one.expectation not in said]
    training = tables.get("training")
    scores = drawn.get("scores")
    return _filled(
        title=title,
        lead=paragraphs(lead),
        notes=paragraphs(notes),
        first=first,
        parts=parts,
        warnings=list(warnings),
        verdicts=list(beside),
        counted=counted(beside),
        findings=[] if findings is None else [_finding(row, labels) for _, row in findings.iterrows()],
        matrix=by_name.pop("findings", None),
        course=by_name.pop("training", None),
        figures=list(by_name.values()),
        maps=[_embedded(one.png, one.svg) | {"heading": one.heading, "caption": one.caption, "alt": one.alt} for one in maps],
        summary=None if scores is None else score_summary(scores, models),
        tables=[shown(name, table, models) for name, table in tables.items() if name in DETAILS],
        ceilings=CEILINGS if scores is not None and scores["ceiling"].notna().any() else "",
        tuning=None if training is None else tuning(training, models),
        overfitting=[] if training is None else overfitting(training, models),
        diagnostics=_diagnostics(tables, models),
        facts=flat({key: value for key, value in provenance.items() if not isinstance(value, Mapping)}),
        details={key: flat(value) for key, value in provenance.items() if isinstance(value, Mapping) and value},
        command=command,
    )


def _figure(name: str, drawing: Drawing, tables: Mapping[str, pd.DataFrame], models: Sequence[Condition]) -> dict[str, Any]:
    """A figure as the page shows it."""
    heading, caption = CAPTIONS[name]
    words = caption(_drawn(name, tables, models))
    alt = f"{heading}. {alt_text(name, tables, models)}".strip()
    return _embedded(drawing.png, drawing.svg) | {"name": name, "heading": heading, "caption": words, "alt": alt}


def _embedded(png: bytes, svg: bytes) -> dict[str, Any]:
    """An image's data, the smaller one of two files, and its size in pixels, which a PNG has in its bytes 16 to 24."""
    kind, content = ("svg+xml", svg) if 0 < len(svg) < len(png) else ("png", png)
    return {
        "source": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
        "width": int.from_bytes(png[16:20], "big"),
        "height": int.from_bytes(png[20:24], "big"),
    }


def _drawn(name: str, tables: Mapping[str, pd.DataFrame], models: Sequence[Condition]) -> Drawn:
    table = next(tables[one] for one in OF[name] if one in tables)
    low = next((column for column in ("r_low", "low") if column in table.columns), None)
    levels = table.groupby("model")["layer"].nunique() if {"model", "layer"} <= set(table.columns) else ()
    units = set(table["unit"]) if "unit" in table.columns else set()
    by_model = "model" in table.columns and figures.crowded(table)
    reference = reference_label(table["versus"], models) if "versus" in table.columns else ""
    return Drawn(
        n=count_of(table, ("participant",)),
        bands="" if low is None or not table[low].notna().any() else "crowded" if by_model else "drawn",
        first=reference if reference == OWN else f"“{reference}”",
        level=1 in set(levels),
        depths=figures.depths(table) if name == "lags" else (),
        seeds=table["seed"].nunique() if "seed" in table.columns else 1,
        unit=" or ".join(sorted(units)),
    )


def _finding(row: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, str]:
    """A finding as a row of the table of expectations."""
    smallest = row["p_smallest"]
    rule = str(row.get("rule", ""))
    return {
        "answer": row["answer"] or "none",
        "held": ANSWERS[row["answer"]],
        "statement": row["statement"],
        "number": number(row),
        "quantity": quantity(row, labels),
        "tested": tested(row),
        "smallest": f"smallest p possible {smallest:.2g}" if smallest == smallest else "",
        "control": number(row, "control_") if row["control_value"] == row["control_value"] else "",
        "reason": row["reason"],
        "rule": rule if row["answer"] else "",
    }


def _diagnostics(tables: Mapping[str, pd.DataFrame], models: Sequence[Condition]) -> list[dict[str, str]]:
    labels = {one.model: one.label for one in models}
    if "diagnostics" not in tables:
        return []
    return [
        {
            "who": ", ".join(filter(None, (display_name(row["participant"]), labels[row["model"]]))),
            "finding": display_name(row["finding"]),
            "verdict": str(row.get("verdict", "")),
            "evidence": row["evidence"],
            "advice": row["advice"],
        }
        for _, row in tables["diagnostics"].iterrows()
    ]


def _filled(**content: Any) -> str:
    jinja2 = require("jinja2", "report")
    source = resources.files("fastencode.study.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": number_text, "name": display_name}
    return environment.from_string(source).render(**content)
