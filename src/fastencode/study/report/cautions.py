"""Warnings for readers that follow from a study's tables, such as penalties at the edge of the grid or missing controls."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.study.conditions import Condition
from fastencode.study.names import display_name, task_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cautions"]

EDGE = 0.2  # share of a region's voxels at the edge of the penalties from which a warning is given
LEVEL = 0.05  # of significance


def cautions(tables: Mapping[str, pd.DataFrame], models: Sequence[Condition]) -> list[str]:
    """All warnings about a study: those of the table ``warnings`` first, then those that follow from other tables.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        As for ``report.write_report``.
    models : sequence of Condition

    Returns
    -------
    list of str
        Sentences about penalties at the edge of the grid, unknown scores, a smallest reachable p above .05, a single participant
        or seed, and missing controls.
    """
    labels = {one.model: one.label for one in models}
    given = list(tables["warnings"]["warning"]) if "warnings" in tables else []
    found = [*_edges(tables, labels), *_smallest(tables), *_few(tables, labels), *_controls(tables, labels), *_unknown(tables)]
    return list(dict.fromkeys([*given, *found]))


def _edges(tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> Iterator[str]:
    if "scores" in tables:
        yield from _ridge_edges(tables["scores"], labels)
    probes = tables.get("probes")
    if probes is not None:
        at_edge = probes[probes["at_edge"].astype(float) > 0]
        counts = [f"{task_name(str(task))} ({len(part)} fits)" for task, part in at_edge.groupby("task", sort=False)]
        if counts:
            yield f"Probe penalties at the edge of the grid: {_some(counts)}. A wider grid could change these scores."


def _ridge_edges(scores: pd.DataFrame, labels: Mapping[str, str]) -> Iterator[str]:
    known = scores[np.isfinite(scores["at_edge"].astype(float)) & (scores["n_voxels"] > 0)]
    places = []
    for (model, region), part in known.groupby(["model", "region"], sort=False):
        share = float(np.average(part["at_edge"].astype(float), weights=part["n_voxels"]))
        if share >= EDGE:
            places.append(f"{labels[str(model)]} in {display_name(region)} ({share:.0%})")
    if places:
        yield (
            f"Ridge penalties at the edge of the grid: {EDGE:.0%} or more of the voxels chose the smallest or largest penalty on "
            f"offer for {_some(places)}. A wider grid of penalties could change these scores. Voxels that follow nothing "
            "choose the largest one."
        )


def _smallest(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    for name, n, unit in (("findings", "n_units", "unit"), ("tests", "participants", None)):
        table = tables.get(name)
        if table is None:
            continue
        weak = table[table["p_smallest"].astype(float) > LEVEL]
        weak = weak.assign(what=weak[unit] if unit else "participants")
        for (count, smallest, what), part in weak.groupby([n, "p_smallest", "what"], sort=False):
            where = "the tests over participants"
            if name == "findings":
                where = f"{len(part)} finding{'s' if len(part) > 1 else ''}"
            yield (
                f"Too few {what} to test: with {count:g} of them no p can be smaller than {smallest:.3g}, whatever the data. "
                f"This concerns {where}."
            )


def _few(tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> Iterator[str]:
    people = set(tables["scores"]["participant"]) if "scores" in tables else set()
    if len(people) == 1:
        yield (
            f"One participant ({display_name(people.pop())}): intervals say how sure a number is for this participant, and "
            "nothing about others."
        )
    if "training" in tables:
        seeds = {} if "seeds" not in tables else tables["seeds"].groupby("model", sort=False)["seed"].nunique().to_dict()
        single = [model for model in dict.fromkeys(tables["training"]["model"]) if seeds.get(model, 1) == 1]
        if single and len(single) == tables["training"]["model"].nunique():
            yield "One seed: how far chance in training moves these numbers is not known."
        elif single:
            names = _some([labels.get(str(model), str(model)) for model in single])
            yield f"One seed of {names}: how far chance in training moves them is not known."


def _controls(tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> Iterator[str]:
    findings, probes = tables.get("findings"), tables.get("probes")
    if findings is not None:
        names = [f"“{row['statement']}”" for _, row in findings.iterrows() if _lacks_control(row, labels)]
        if names:
            yield f"No control was measured beside {_some(names, 4)}."
    if probes is not None:
        tasks = [task_name(task) for task, part in probes.groupby("task", sort=False) if part["control"].isna().all()]
        if tasks:
            yield f"No control with shuffled labels: {_some(tasks)}."


def _lacks_control(row: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a difference with the answer yes has no control and is not itself a comparison with a control."""
    models = re.split(r"\s[−+-]\s", row["models"])
    a_control = any("control" in f"{model} {labels.get(model, '')}" for model in models)
    there = row["answer"] == "yes" and len(models) > 1 and not _is_kept(row)
    return there and not a_control and not math.isfinite(row["control_value"])


def _is_kept(row: Mapping[str, Any]) -> bool:
    """Whether what was expected holds of no difference at all, as "within ±.03" or "above −.03": no control is needed."""
    expect, limit = row.get("expect"), row.get("limit", math.nan)
    return expect == "within" or (expect == "above" and limit < 0) or (expect == "below" and limit > 0)


def _unknown(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    for name, value, what in (("scores", "r", "scores"), ("probes", "score", "probe scores")):
        table = tables.get(name)
        if table is not None and (missing := int(table[value].isna().sum())):
            yield f"{missing} of {len(table)} {what} are unknown; means are over the others."


def _some(names: Sequence[str], most: int = 6) -> str:
    """The first names, and the number of further names."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
