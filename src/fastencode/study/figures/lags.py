"""Correlation by single lag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastencode.study.columns import MEAN
from fastencode.study.conditions import Condition
from fastencode.study.figures.base import (
    PANELS,
    distinct,
    finish,
    panel_title,
    panels,
    span_of,
    styled,
)
from fastencode.study.figures.curves import extent, means_panel, windows_of, within

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["depths", "lags_figure"]


@styled
def lags_figure(lags: pd.DataFrame, models: Sequence[Condition]) -> Figure:
    """Correlation by single lag, one panel per region and third of the layers: mean over participants, and each of them.

    Parameters
    ----------
    lags : pandas.DataFrame
        One row per participant, model, lag, depth and region: columns participant, model, lag, depth, region, r, r_low, r_high.
        The participant "mean" is the mean over several. ``depth`` is early, middle or late, or "all" for all layers.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure
        All panels span the same height in r, those of one region at one level. With too many panels, or no thirds, there is one
        per region, of all layers. A model of one layer is drawn in every panel of a region.
    """
    regions, thirds = distinct(lags, "region"), depths(lags)
    places = [(region, depth) for region in regions for depth in thirds or ("all",)]
    figure, axes, columns = panels(len(places), len(thirds) or None)
    divided = set(lags.loc[lags["depth"] != "all", "model"]) if thirds else set()
    table = lags[lags["model"].isin(divided) == (lags["depth"] != "all")]
    table = table.rename(columns={"lag": "layer", "r_low": "low", "r_high": "high"})  # the helpers' horizontal axis is the layer
    mean = table["participant"] == MEAN
    thick = (table[mean] if mean.any() else table).rename(columns={"r": "mean"})
    both = thick, table[~mean].rename(columns={"r": "value"})
    parts = {region: [one[one["region"] == region] for one in both] for region in regions}
    ranges = [
        extent(np.append(of[["mean", "low", "high"]].to_numpy(float).ravel(), each["value"])) for of, each in parts.values()
    ]
    windows = dict(zip(regions, windows_of(ranges, [math.nan] * len(regions)), strict=True))
    for ax, (region, depth) in zip(axes, places, strict=False):
        here = [one[one["depth"].isin([depth, "all"])] for one in parts[region]]
        means_panel(ax, here[0], here[1], models, span_of(lags, "lag"))
        ax.set_title(panel_title(region, columns, depth if thirds else ""))
        within(ax, windows[region])
    finish(figure, axes, range(len(places)), ("lag (TRs from sound to response)", "correlation r, held-out data"), lags, models)
    return figure


def depths(lags: pd.DataFrame) -> tuple[str, ...]:
    """The thirds of the layers that ``lags_figure`` has panels of; none where there are none, or too many panels."""
    thirds = tuple(depth for depth in ("early", "middle", "late") if depth in set(lags["depth"]))
    return thirds if lags["region"].nunique() * len(thirds) <= PANELS else ()
