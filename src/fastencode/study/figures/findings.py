"""All findings in one figure: a marker and an interval for each, with its answer as shape and text."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.errors import require
from fastencode.study.figures.base import WIDE, ZERO, escaped, legend_of, styled
from fastencode.study.figures.curves import padded
from fastencode.study.findings.summary import number
from fastencode.study.names import ANSWERS, BRAIN_MEASURES, METRICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["findings_figure"]

# Shape and color of each answer: the shape alone tells them apart.
SHAPES: dict[str, dict[str, Any]] = {
    "yes": {"marker": "o", "color": "#00664a", "markerfacecolor": "#00664a"},
    "no": {"marker": "X", "color": "#a33a00", "markerfacecolor": "#a33a00", "markersize": 10, "markeredgecolor": "white"},
    "undecided": {"marker": "D", "color": "#303030", "markerfacecolor": "white"},
    "": {"marker": "|", "color": "#303030", "markerfacecolor": "#303030"},
}
SIZE = {"markersize": 7, "markeredgewidth": 1.3}
CONTROL: dict[str, Any] = {"marker": "s", "color": "#767676", "markerfacecolor": "white", "linestyle": ":"}
EXPECTED = "#e4ebf2"
LETTERS, LINE = 46, 0.165  # letters of a line of a statement, and its height in inches


@styled
def findings_figure(findings: pd.DataFrame) -> Figure:
    """One row per finding: value and interval, below it those of the control, and shaded where the interval should lie.

    Parameters
    ----------
    findings : pandas.DataFrame
        Columns statement, measure, models, value, low, high, answer, control_value, control_low, control_high; where they are
        there, ``expect`` ("above", "below" or "within") and ``limit`` say what is shaded.

    Returns
    -------
    matplotlib.figure.Figure
        Findings on encoding models and on probes are in panels with separate horizontal axes.
    """
    brains = findings["measure"].isin(BRAIN_MEASURES)
    groups = [(name, part) for name, part in _halves(findings, brains) if len(part)]
    rows = [[max(len(_wrapped(one)), 2) + 1.0 for one in part["statement"]] for _, part in groups]
    figure = require("matplotlib.figure", "report").Figure(
        figsize=(WIDE, sum(map(sum, rows)) * LINE + 0.75 * len(groups) + 0.6), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[sum(one) + 1 for one in rows]).ravel()
    for ax, (name, part), heights in zip(axes, groups, rows, strict=True):
        _panel(ax, part, heights)
        ax.set_xlabel(name)
    legend_of(figure, _handles(findings))
    return figure


def _halves(findings: pd.DataFrame, brains: pd.Series) -> tuple[tuple[str, pd.DataFrame], tuple[str, pd.DataFrame]]:
    probes = sorted({METRICS.get(one, "") for one in findings.loc[~brains, "measure"]} - {""})
    of = f" ({', '.join(probes)})" if probes else ""
    return ("correlation r, or a difference of r", findings[brains]), (f"probe score{of}, or a difference", findings[~brains])


def _panel(ax: Axes, part: pd.DataFrame, heights: list[float]) -> None:
    ends = np.cumsum([0.0, *heights])
    places = (ends[:-1] + ends[1:]) / 2
    columns = ["value", "low", "high", "control_value", "control_low", "control_high"]
    low, high = padded(part[columns].to_numpy(dtype=float), at_least=0.02)
    for (_, row), place, height in zip(part.iterrows(), places, heights, strict=True):
        _expected(ax, row, (low, high), (place, 0.42 * height))
        shape = SHAPES[row["answer"]]
        has_control = math.isfinite(row["control_value"])
        at = place - (0.16 * height if has_control else 0)
        ax.plot([row["low"], row["high"]], [at, at], color=shape["color"], linewidth=1.8, solid_capstyle="butt", zorder=3)
        ax.plot([row["value"]], [at], zorder=4, **{**SIZE, **shape, "linestyle": ""})
        if has_control:
            below = place + 0.24 * height
            line = {"color": CONTROL["color"], "linestyle": CONTROL["linestyle"], "linewidth": 1.4}
            ax.plot([row["control_low"], row["control_high"]], [below, below], zorder=3, **line)
            ax.plot([row["control_value"]], [below], markersize=4.5, zorder=3.5, **{**CONTROL, "linestyle": ""})
        words = f"{number(row)}\n{ANSWERS[row['answer']].partition(' ')[2]}"
        ax.text(1.015, place, words, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5, linespacing=1.3)
    ax.set_yticks(places, [escaped("\n".join(_wrapped(one))) for one in part["statement"]], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color=ZERO, linewidth=1, zorder=2)
    ax.set_ylim(ends[-1], 0)
    ax.set_xlim(low, high)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    for end in ends[1:-1]:
        ax.axhline(end, color="#e6e6e6", linewidth=0.7, zorder=1)


def _expected(ax: Axes, row: pd.Series, window: tuple[float, float], place: tuple[float, float]) -> None:
    expect, limit = row.get("expect"), row.get("limit")
    if expect not in ("above", "below", "within") or limit is None or not math.isfinite(limit):
        return
    left, right = {"above": (limit, window[1]), "below": (window[0], limit), "within": (-abs(limit), abs(limit))}[expect]
    left, right = max(left, window[0]), min(right, window[1])
    if left < right:
        ax.fill_between([left, right], place[0] - place[1], place[0] + place[1], color=EXPECTED, linewidth=0, zorder=0.5)


def _handles(findings: pd.DataFrame) -> list[Any]:
    line, patch = require("matplotlib.lines", "report").Line2D, require("matplotlib.patches", "report").Patch
    handles = [
        line([], [], label=ANSWERS[one].partition(" ")[2], linewidth=1.8, **{**SIZE, **shape})
        for one, shape in SHAPES.items()
        if one in set(findings["answer"])
    ]
    if findings["control_value"].notna().any():
        handles.append(line([], [], label="the same of the control", markersize=4.5, linewidth=1.4, **CONTROL))
    if {"expect", "limit"} <= set(findings.columns) and findings["limit"].notna().any():
        handles.append(patch(facecolor=EXPECTED, label="expected to lie here"))
    return handles


def _wrapped(statement: str) -> list[str]:
    lines = textwrap.wrap(statement, LETTERS)
    return lines if len(lines) <= 4 else [*lines[:3], lines[3] + " …"]
