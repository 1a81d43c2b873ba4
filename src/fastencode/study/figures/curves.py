"""Curves by layer in one panel, and vertical limits of panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.study.conditions import Condition
from fastencode.study.figures.base import EDGE, MARKED, ZERO, crowded, layer_ticks, looks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_band", "draw_curve", "extent", "level", "means_panel", "padded", "windows_of", "within"]


def means_panel(ax: Axes, means: pd.DataFrame, each: pd.DataFrame, models: Sequence[Condition], span: tuple[int, int]) -> None:
    """Draw means over participants as thick lines with bands, and participants (column ``value`` of ``each``) as thin lines."""
    for model, look in looks(means, models):
        part, own = means[means["model"] == model], each[each["model"] == model]
        people = own["participant"].unique()
        if not crowded(means):
            draw_band(ax, part, "low", "high", look, span, edges=len(people) == 1)  # thin lines are participants here
        draw_curve(ax, part.set_index("layer")["mean"], look, span, linewidth=2.4)
        for who in people if len(people) > 1 else ():
            thin: dict[str, Any] = {**look, "marker": "", "zorder": look["zorder"] - 0.5}
            draw_curve(ax, own[own["participant"] == who].set_index("layer")["value"], thin, span, alpha=0.4, linewidth=0.9)
    layer_ticks(ax, *span)


def within(ax: Axes, window: tuple[float, float]) -> None:
    """Set the vertical limits of a panel, and draw a line at zero if it is between them."""
    low, high = window
    ax.set_ylim(low, high)
    if low < 0 < high:
        ax.axhline(0, color=ZERO, linewidth=1, zorder=2)


def draw_curve(ax: Axes, values: pd.Series, look: Mapping[str, Any], span: tuple[int, int], **more: Any) -> None:
    """Draw values by layer. A model with one layer, such as a low-level feature, is a horizontal line."""
    values = level(values.sort_index(), span)
    ax.plot(values.index, values.to_numpy(), markevery=math.ceil(len(values) / MARKED), **look, **more)


def draw_band(
    ax: Axes, part: pd.DataFrame, low: str, high: str, look: Mapping[str, Any], span: tuple[int, int], edges: bool = True
) -> None:
    ends = [level(part.set_index("layer")[name].astype(float).sort_index(), span) for name in (low, high)]
    color, zorder = look["color"], look["zorder"]
    ax.fill_between(ends[0].index, *(end.to_numpy() for end in ends), color=color, alpha=0.1, linewidth=0, zorder=zorder - 1.5)
    for end in ends if edges else ():  # where bands overlap, only their edges still tell them apart
        ax.plot(end.index, end.to_numpy(), color=color, alpha=0.45, linewidth=0.6, zorder=zorder - 1.4)


def level(values: pd.Series, span: tuple[int, int]) -> pd.Series:
    """Repeat a single value at every layer of the panel, and beside it if the panel has one layer, so that a line is visible."""
    low, high = span
    wide = range(low, high + 1) if low < high else (low - EDGE, low, low + EDGE)
    return values if len(values) > 1 else values.reindex(wide).ffill().bfill()


def extent(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def padded(values: np.ndarray, at_least: float) -> tuple[float, float]:
    low, high = extent(values)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.08 * max(high - low, at_least)
    spare = max(0.0, at_least - (high - low)) / 2
    return low - pad - spare, high + pad + spare


def windows_of(ranges: Sequence[tuple[float, float]], ceilings: Sequence[float]) -> list[tuple[float, float]]:
    """Vertical limits of panels, all of the same height. A ceiling is included if the height grows by at most a half."""
    tallest = max(max(high - low for low, high in ranges), 0.1)
    wanted = []
    for (low, high), ceiling in zip(ranges, ceilings, strict=True):
        near = math.isfinite(ceiling) and ceiling >= low and max(high, ceiling) - low <= 1.5 * tallest
        wanted.append((low, max(high, ceiling) if near else high))
    height = max(max(high - low for low, high in wanted), 0.1)
    pad = 0.07 * height
    windows = []
    for (low, high), ceiling in zip(wanted, ceilings, strict=True):
        outside = math.isfinite(ceiling) and not low <= ceiling <= high
        spare = (height - (high - low)) / 2
        shift = 0.5 * pad if outside else 0.0  # room for the words that stand for the ceiling
        windows.append((low - spare - pad + shift, high + spare + 1.6 * pad + shift))
    return windows
