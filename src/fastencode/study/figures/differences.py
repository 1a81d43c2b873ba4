"""Differences between models by layer: mean over participants, each participant by itself, and a network beside a ridge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastencode.study.conditions import Condition, reference_label
from fastencode.study.figures.base import (
    LAYER,
    ZERO,
    crowded,
    distinct,
    escaped,
    finish,
    layer_ticks,
    looks,
    panel_title,
    panels,
    span_of,
    styled,
)
from fastencode.study.figures.curves import draw_band, draw_curve, means_panel, padded
from fastencode.study.names import shortened

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["differences_figure", "mlp_figure", "participants_figure"]


@styled
def differences_figure(means: pd.DataFrame, contrasts: pd.DataFrame, models: Sequence[Condition]) -> Figure | None:
    """Every model's r less that of another by layer, one panel per region: mean over participants, and each of them.

    Parameters
    ----------
    means : pandas.DataFrame
        One row per model, layer and region: columns model, layer, region, mean, low, high.
    contrasts : pandas.DataFrame
        One row per participant, model, layer and region: columns participant, model, layer, region, versus, difference.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure or None
        All panels share one vertical axis; bands are the intervals of the means. None when there is nothing to compare.
    """
    if contrasts.empty:
        return None
    regions = distinct(contrasts, "region")
    figure, axes, columns = panels(len(regions), height=2.9)
    values = np.concatenate([means[["mean", "low", "high"]].to_numpy(dtype=float).ravel(), contrasts["difference"].to_numpy()])
    limits = padded(values, at_least=0.04)
    for ax, region in zip(axes, regions, strict=False):
        ax.axhline(0, color=ZERO, linewidth=1, zorder=2)
        each = contrasts[contrasts["region"] == region].rename(columns={"difference": "value"})
        means_panel(ax, means[means["region"] == region], each, models, span_of(contrasts))
        ax.set_title(panel_title(region, columns))
        ax.set_ylim(*limits)
    finish(figure, axes, range(len(regions)), (LAYER, _minus(contrasts, models)), contrasts, models)
    return figure


@styled
def participants_figure(contrasts: pd.DataFrame, regions: Sequence[str], models: Sequence[Condition]) -> Figure | None:
    """The differences of every participant by itself, with their intervals: small panels, all on one vertical axis.

    Parameters
    ----------
    contrasts : pandas.DataFrame
        One row per participant, model, layer and region: columns participant, model, layer, region, versus, difference, low,
        high.
    regions : sequence of str
        Those to draw, in this order.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure or None
        Up to four participants in a row, the rows of a region below each other. None with fewer than two participants.
    """
    contrasts = contrasts[contrasts["region"].isin(list(regions))]
    participants, regions = distinct(contrasts, "participant"), [one for one in regions if one in set(contrasts["region"])]
    if len(participants) < 2 or not regions:
        return None
    columns = min(4, len(participants))
    of_region = math.ceil(len(participants) / columns)
    figure, axes, _ = panels(of_region * len(regions) * columns, columns, height=1.85, share=True)
    used = set()
    for k, region in enumerate(regions):
        for j, who in enumerate(participants):
            at = (k * of_region + j // columns) * columns + j % columns
            used.add(at)
            here = contrasts[(contrasts["participant"] == who) & (contrasts["region"] == region)]
            _difference_panel(axes[at], here, models, span_of(contrasts))
            axes[at].set_title(panel_title(region, columns, who), fontsize=9)
    axes[0].set_ylim(*padded(contrasts[["difference", "low", "high"]].to_numpy(dtype=float), at_least=0.04))
    finish(figure, axes, used, (LAYER, _minus(contrasts, models)), contrasts, models)
    return figure


@styled
def mlp_figure(mlp: pd.DataFrame, models: Sequence[Condition]) -> Figure:
    """What a network with a hidden layer predicts beyond a ridge, by layer: r of the network less r of the ridge.

    Parameters
    ----------
    mlp : pandas.DataFrame
        One row per participant, model, layer and region: columns participant, model, layer, region, difference, low, high.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure
        One panel per participant and region, all on one vertical axis.
    """
    participants, regions = distinct(mlp, "participant"), distinct(mlp, "region")
    places = [(region, who) for region in regions for who in participants]
    by_participant = len(regions) > 1 and len(participants) in (2, 3, 4)
    figure, axes, columns = panels(len(places), len(participants) if by_participant else None, share=True)
    for ax, (region, who) in zip(axes, places, strict=False):
        here = mlp[(mlp["participant"] == who) & (mlp["region"] == region)]
        _difference_panel(ax, here, models, span_of(mlp))
        ax.set_title(panel_title(region, columns, who if len(participants) > 1 else ""))
    axes[0].set_ylim(*padded(mlp[["difference", "low", "high"]].to_numpy(dtype=float), at_least=0.04))
    finish(figure, axes, range(len(places)), (LAYER, "r of the network minus r of ridge"), mlp, models)
    return figure


def _minus(contrasts: pd.DataFrame, models: Sequence[Condition]) -> str:
    """The name of the vertical axis."""
    return escaped(f"r minus r of {shortened(reference_label(contrasts['versus'], models), 30)}")


def _difference_panel(ax: Axes, here: pd.DataFrame, models: Sequence[Condition], span: tuple[int, int]) -> None:
    ax.axhline(0, color=ZERO, linewidth=1, zorder=2)
    for model, look in looks(here, models):
        part = here[here["model"] == model]
        if not crowded(here):
            draw_band(ax, part, "low", "high", look, span)
        draw_curve(ax, part.set_index("layer")["difference"], look, span, markersize=3.5)
    layer_ticks(ax, *span)
