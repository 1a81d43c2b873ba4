"""How tuning changed each layer, by several measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastencode.study.columns import MEAN
from fastencode.study.conditions import Condition
from fastencode.study.figures.base import (
    LAYER,
    distinct,
    escaped,
    finish,
    layer_ticks,
    looks,
    panels,
    span_of,
    styled,
)
from fastencode.study.figures.curves import draw_curve
from fastencode.study.figures.probes import of_participants
from fastencode.study.names import MEASURES, measure_name, shortened

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["change_figure"]

TIMES = 30  # the largest value over the smallest from which a panel's vertical axis is logarithmic


@styled
def change_figure(change: pd.DataFrame, models: Sequence[Condition]) -> Figure:
    """Each measure by layer: mean over participants and, where there are several, thin lines for each.

    Parameters
    ----------
    change : pandas.DataFrame
        One row per participant, model, layer and measure: columns participant, model, layer, measure, value.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure
        One panel per measure, each with a vertical axis of its own, logarithmic where values are of very different size.
    """
    there = distinct(change, "measure")
    measures = [one for one in MEASURES if one in there] + [one for one in there if one not in MEASURES]
    figure, axes, columns = panels(len(measures), 2 if len(measures) == 4 else None)
    span = span_of(change)
    for ax, measure in zip(axes, measures, strict=False):
        _panel(ax, change[change["measure"] == measure], models, span)
        ax.set_title(escaped(shortened(measure_name(measure), 110 // max(columns, 2))), fontsize=9.5)
    finish(figure, axes, range(len(measures)), (LAYER, ""), change, models)
    return figure


def _panel(ax: Axes, here: pd.DataFrame, models: Sequence[Condition], span: tuple[int, int]) -> None:
    for model, look in looks(here, models):
        part = here[here["model"] == model]
        people = [who for who in distinct(part, "participant") if who != MEAN]
        draw_curve(ax, of_participants(part, ["value"])["value"], look, span, linewidth=2.2)
        thin = {**look, "marker": "", "zorder": look["zorder"] - 0.5}
        for who in people if len(people) > 1 else ():
            draw_curve(ax, part[part["participant"] == who].set_index("layer")["value"], thin, span, alpha=0.4, linewidth=0.9)
    layer_ticks(ax, *span)
    values = here["value"].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > TIMES * values.min():
        ax.set_yscale("log")
