"""Correlation by layer: of every region and participant, and of the mean over participants in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastencode.study.conditions import Condition
from fastencode.study.figures.base import (
    CEILING,
    DASHED,
    LAYER,
    crowded,
    distinct,
    finish,
    layer_ticks,
    looks,
    panel_title,
    panels,
    span_of,
    styled,
)
from fastencode.study.figures.curves import draw_band, draw_curve, extent, means_panel, windows_of, within

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["layers_figure", "picture"]


@styled
def layers_figure(scores: pd.DataFrame, models: Sequence[Condition]) -> Figure:
    """Correlation by layer, one panel per participant and region, with interval bands and the noise ceiling.

    Parameters
    ----------
    scores : pandas.DataFrame
        One row per participant, model, layer and region: columns participant, model, layer, region, r, r_low, r_high, ceiling.
    models : sequence of Condition
        Those of them that ``scores`` holds are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        All panels span the same height in r, each at its own level, so slopes can be compared and no level squashes another.
        A ceiling too far above is written at the upper edge with an arrow.
    """
    participants, regions = distinct(scores, "participant"), distinct(scores, "region")
    places = [(p, g, scores[(scores["participant"] == p) & (scores["region"] == g)]) for p in participants for g in regions]
    columns = len(regions) if len(regions) <= 4 else 3
    per_participant = math.ceil(len(regions) / columns)
    figure, axes, _ = panels(per_participant * len(participants) * columns, columns)
    windows = windows_of([_band_range(panel) for *_, panel in places], [mean_ceiling(panel) for *_, panel in places])
    used = set()
    for k, ((participant, region, panel), window) in enumerate(zip(places, windows, strict=True)):
        at = (k // len(regions)) * per_participant * columns + k % len(regions)
        used.add(at)
        _layer_panel(axes[at], panel, models, window, span_of(scores))
        axes[at].set_title(panel_title(region, columns, participant if len(participants) > 1 else ""))
    finish(
        figure,
        axes,
        used,
        (LAYER, "correlation r with held-out responses"),
        scores,
        models,
        ["noise ceiling"] if _has_ceiling_line(axes) else (),
    )
    return figure


@styled
def picture(means: pd.DataFrame, scores: pd.DataFrame, regions: Sequence[str], models: Sequence[Condition]) -> Figure:
    """The result at a glance: mean over participants of r by layer for each model, one panel per region.

    Parameters
    ----------
    means : pandas.DataFrame
        One row per model, layer and region: columns model, layer, region, mean, low, high.
    scores : pandas.DataFrame
        As for ``layers_figure``.
    regions : sequence of str
        Which regions, in this order.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide. Bands are the intervals of the means; thin lines are participants, when there are several.
    """
    few = len(regions) <= 4
    figure, axes, columns = panels(len(regions), height=2.85 if few else 2.9, width=10)
    parts = [(means[means["region"] == region], scores[scores["region"] == region]) for region in regions]
    ranges = [extent(np.append(mean[["mean", "low", "high"]].to_numpy(float).ravel(), each["r"])) for mean, each in parts]
    windows = windows_of(ranges, [math.nan] * len(ranges))
    for ax, region, (mean, each), window in zip(axes, regions, parts, windows, strict=False):
        means_panel(ax, mean, each.rename(columns={"r": "value"}), models, span_of(scores))
        ax.set_title(panel_title(region, columns), fontsize=13 if columns < 4 and few else None)
        within(ax, window)
    finish(figure, axes, range(len(regions)), ("layer of the speech model", "correlation r, held-out data"), means, models)
    return figure


def _layer_panel(
    ax: Axes, panel: pd.DataFrame, models: Sequence[Condition], window: tuple[float, float], span: tuple[int, int]
) -> None:
    low, high = window
    for model, look in looks(panel, models):
        part = panel[panel["model"] == model]
        if not crowded(panel):
            draw_band(ax, part, "r_low", "r_high", look, span)
        draw_curve(ax, part.set_index("layer")["r"], look, span)
    within(ax, window)
    layer_ticks(ax, *span)
    ceiling = mean_ceiling(panel)
    if math.isnan(ceiling):
        return
    if low <= ceiling <= high:
        ax.axhline(ceiling, color=CEILING, linewidth=1.2, linestyle=DASHED, zorder=2.5)
    else:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        words = f"noise ceiling {ceiling:.2f} {'↑' if ceiling > high else '↓'}"
        ax.text(0.99, 0.99, words, transform=ax.transAxes, ha="right", va="top", fontsize=8.5, zorder=5, bbox=box)


def _has_ceiling_line(axes: Sequence[Axes]) -> bool:
    return any(curve.get_color() == CEILING for ax in axes for curve in ax.get_lines())


def _band_range(panel: pd.DataFrame) -> tuple[float, float]:
    return extent(panel[["r", "r_low", "r_high"]].to_numpy(dtype=float))


def mean_ceiling(panel: pd.DataFrame) -> float:
    """The panel's mean ceiling; NaN when unknown, or zero: voxels of noise have no ceiling to reach."""
    known = panel["ceiling"].to_numpy(dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) and known.mean() > 0.01 else math.nan
