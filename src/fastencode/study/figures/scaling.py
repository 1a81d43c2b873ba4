"""Correlation against hours of data, and the spread of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.study.columns import MEAN
from fastencode.study.conditions import Condition
from fastencode.study.figures.base import (
    LAYER,
    PANELS,
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
from fastencode.study.figures.curves import draw_curve, extent, windows_of, within
from fastencode.study.figures.probes import of_participants
from fastencode.study.names import display_name, measure_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["scaling_figure", "seeds_figure"]


@styled
def scaling_figure(scaling: pd.DataFrame, models: Sequence[Condition]) -> Figure:
    """Correlation by hours of data that a model was tuned on, one panel per region.

    Parameters
    ----------
    scaling : pandas.DataFrame
        One row per model, participant, region and hours: columns model, participant, region, hours, r, low, high.
    models : sequence of Condition
        A model with values at one number of hours only is a level line.

    Returns
    -------
    matplotlib.figure.Figure
        Doublings of the hours are equally far apart; 0 hours stand one doubling before the fewest. Panels
        have the same height in r.
    """
    regions = distinct(scaling, "region")
    figure, axes, _ = panels(len(regions), height=2.9)
    hours = np.unique(scaling["hours"].to_numpy(dtype=float))
    parts = [scaling[scaling["region"] == region] for region in regions]
    windows = windows_of([extent(part[["r", "low", "high"]].to_numpy(dtype=float)) for part in parts], [math.nan] * len(parts))
    for ax, region, part, window in zip(axes, regions, parts, windows, strict=False):
        _scaling_panel(ax, part, models, hours)
        within(ax, window)
        ax.set_title(escaped(display_name(region, 40)))
    finish(
        figure,
        axes,
        range(len(regions)),
        ("hours of data (doublings equally far apart)", "correlation r, held-out data"),
        scaling,
        models,
    )
    return figure


def _scaling_panel(ax: Axes, here: pd.DataFrame, models: Sequence[Condition], hours: np.ndarray) -> None:
    places = _places(hours)
    for model, look in looks(here, models):
        part = here[here["model"] == model]
        mean = of_participants(part, ["r", "low", "high"], by="hours")
        if len(mean) == 1 and len(hours) > 1:
            mean = mean.reindex(hours).ffill().bfill()
        x = [places[one] for one in mean.index]
        people = [who for who in distinct(part, "participant") if who != MEAN]
        if not crowded(here):
            ax.fill_between(x, mean["low"], mean["high"], color=look["color"], alpha=0.1, linewidth=0, zorder=1.5)
        ax.plot(x, mean["r"], **look, linewidth=2.2)
        thin: dict[str, Any] = {**look, "marker": "", "zorder": look["zorder"] - 0.5, "alpha": 0.4, "linewidth": 0.9}
        for who in people if len(people) > 1 else ():
            own = part[part["participant"] == who].sort_values("hours")
            ax.plot([places[one] for one in own["hours"]], own["r"], **thin)
    ax.set_xticks(list(places.values()), [f"{one:.3g}" for one in places])
    ax.grid(False, axis="x")


def _places(hours: np.ndarray) -> dict[float, float]:
    """Hours → their place on the horizontal axis: log2, and 0 one before the least."""
    positive = hours[hours > 0]
    least = float(np.log2(positive.min())) if len(positive) else 0.0
    return {float(one): float(np.log2(one)) if one > 0 else least - 1 for one in hours}


@styled
def seeds_figure(seeds: pd.DataFrame, models: Sequence[Condition]) -> Figure | None:
    """Every seed by layer, the mean over participants of each, one panel per measure and region.

    Parameters
    ----------
    seeds : pandas.DataFrame
        One row per measure, participant, model, seed, layer and region: columns measure, participant, model, seed, layer,
        region, value. The region is "" for probes.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure or None
        Thin lines with markers are seeds. None where there would be too many panels.
    """
    places = list(seeds.groupby(["measure", "region"], sort=False).groups)
    if len(places) > PANELS:
        return None
    figure, axes, _ = panels(len(places))
    span = span_of(seeds)
    for ax, (measure, region) in zip(axes, places, strict=False):
        here = seeds[(seeds["measure"] == measure) & (seeds["region"] == region)]
        for model, look in looks(here, models):
            for _, one in here[here["model"] == model].groupby("seed"):
                draw_curve(ax, of_participants(one, ["value"])["value"], look, span, linewidth=1, markersize=3)
        layer_ticks(ax, *span)
        title = " · ".join(filter(None, (display_name(region, 24), measure_name(measure))))
        ax.set_title(escaped(title), fontsize=9.5)
    finish(figure, axes, range(len(places)), (LAYER, "score of each seed"), seeds, models)
    return figure
