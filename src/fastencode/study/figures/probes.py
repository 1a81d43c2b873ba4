"""Probe scores by layer: one panel for each task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastencode.study.columns import MEAN
from fastencode.study.conditions import Condition
from fastencode.study.figures.base import (
    LAYER,
    LINES,
    ZERO,
    crowded,
    distinct,
    escaped,
    finish,
    layer_ticks,
    looks,
    panels,
    span_of,
    styled,
)
from fastencode.study.figures.curves import draw_band, draw_curve, extent
from fastencode.study.names import metric_name, shortened, task_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["of_participants", "probes_figure"]

DRAWN = ["score", "low", "high", "baseline", "control"]


@styled
def probes_figure(probes: pd.DataFrame, models: Sequence[Condition]) -> Figure:
    """Score by layer and model with interval bands, the baseline dashed, the control with shuffled labels dotted.

    Parameters
    ----------
    probes : pandas.DataFrame
        One row per task, model, participant and layer: columns task, metric, model, participant, layer, score, low, high,
        baseline, control. The participant is "" where a model belongs to none; "mean" is the mean over them, where it is there.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure
        One panel per task, each with a vertical axis of its own. Thick lines are means over participants, thin lines each.
    """
    tasks = distinct(probes, "task")
    figure, axes, _ = panels(len(tasks), min(2, len(tasks)), height=3.0)
    span = span_of(probes)
    for ax, task in zip(axes, tasks, strict=False):
        here = probes[probes["task"] == task]
        _panel(ax, here, models, span)
        ax.set_title(escaped(shortened(task_name(task), 44)))
        ax.set_ylabel(escaped(metric_name(here["metric"].iloc[0])))
    lines = [name for name, column in (("baseline", "baseline"), ("shuffled labels", "control")) if probes[column].notna().any()]
    finish(figure, axes, range(len(tasks)), (LAYER, ""), probes, models, lines)
    return figure


def of_participants(table: pd.DataFrame, columns: Sequence[str], *, by: str = "layer") -> pd.DataFrame:
    """One model's columns by layer: its rows of the mean over participants if it has any, otherwise their averages.

    The average of participants' intervals is at least as wide as the interval of their mean, whatever they share.
    """
    own = table[table["participant"] == MEAN]
    if own.empty:
        own = table
    return own.groupby(by)[list(columns)].mean().astype(float)


def _panel(ax: Axes, here: pd.DataFrame, models: Sequence[Condition], span: tuple[int, int]) -> None:
    for model, look in looks(here, models):
        part = here[here["model"] == model]
        mean = of_participants(part, DRAWN)
        people = [who for who in distinct(part, "participant") if who != MEAN]
        if not crowded(here):
            draw_band(ax, mean.reset_index(), "low", "high", look, span, edges=len(people) < 2)
        draw_curve(ax, mean["score"], look, span, linewidth=2.2)
        thin = {**look, "marker": "", "zorder": look["zorder"] - 0.5}
        for who in people if len(people) > 1 else ():
            draw_curve(ax, part[part["participant"] == who].set_index("layer")["score"], thin, span, alpha=0.4, linewidth=0.9)
        if mean["control"].notna().any():
            draw_curve(ax, mean["control"], {**thin, "linestyle": ":"}, span, linewidth=1.3)
    baseline = float(here["baseline"].mean())
    if math.isfinite(baseline):
        ax.axhline(baseline, **LINES["baseline"], zorder=2.5)
    low, high = extent(here[DRAWN].to_numpy(dtype=float))
    pad = 0.07 * max(high - low, 0.05)
    ax.set_ylim(low - pad, high + pad)
    layer_ticks(ax, *span)
    if np.sign(low) * np.sign(high) < 0:
        ax.axhline(0, color=ZERO, linewidth=1, zorder=2)
