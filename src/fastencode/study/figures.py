"""Figures of a study: layer curves, changes by tuning, the course of tuning, and one picture for a README.

Figures are made from tidy tables and know nothing of files. matplotlib's object interface is used throughout, never pyplot: no
figure is kept open, and it looks the same whatever the user's own settings are. A model has one color and marker everywhere
(``study/conditions.py``). Solid is what held-out data gave, dashed the noise ceiling, dotted what was trained on.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.errors import require
from fastencode.study.columns import MEAN
from fastencode.study.conditions import Condition
from fastencode.style import DPI, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "change_figure",
    "crowded",
    "depths",
    "display_name",
    "lags_figure",
    "layers_figure",
    "picture",
    "png",
    "shortened",
    "training_figure",
]

WIDE = 9.6  # inches: three panels side by side, or one legend line of four entries
EDGE = 0.1  # layers between the first or last one and the edge of its panel, at least
MARKED = 13  # markers on a curve at most
LAYER = "layer (0 = input of the transformer)"
CEILING = "black"
DASHED = (0, (5, 3))
PANELS = 48  # of a figure that has several for each region
BANDED = 4  # models: bands of more hide each other
LONGEST, LINE = 40, 115  # letters of a legend's entry, and of all entries in a row, each with 8 for its line


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """Draw with matplotlib's defaults and our style, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure | None:
        matplotlib = require("matplotlib", "report")
        require("matplotlib.style", "report")
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return wrapper


def display_name(name: object, longest: int = 0) -> str:
    """A region's or participant's name for people: underscores become spaces, and an overlong name ends with an ellipsis."""
    return shortened(" ".join(str(name).replace("_", " ").split()), longest)


def shortened(words: str, longest: int = 0) -> str:
    """Overlong words end with an ellipsis."""
    return words[: longest - 1].rstrip() + "…" if longest and len(words) > longest else words


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content, without the date or version that would make equal figures differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


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
    participants, regions = _distinct(scores, "participant"), _distinct(scores, "region")
    panels = [(p, g, scores[(scores["participant"] == p) & (scores["region"] == g)]) for p in participants for g in regions]
    columns = len(regions) if len(regions) <= 4 else 3
    per_participant = math.ceil(len(regions) / columns)
    rows = per_participant * len(participants)
    figure, axes = _grid(rows, columns, (WIDE, 2.5 * rows + 0.9))
    windows = _windows([_band_range(panel) for *_, panel in panels], [_ceiling(panel) for *_, panel in panels])
    used = set()
    for k, ((participant, region, panel), window) in enumerate(zip(panels, windows, strict=True)):
        at = (k // len(regions)) * per_participant * columns + k % len(regions)
        used.add(at)
        _layer_panel(axes[at], panel, models, window, _span(scores))
        axes[at].set_title(_title(region, columns, participant if len(participants) > 1 else ""))
    _finish(figure, axes, used, LAYER, "correlation r with held-out responses")
    _legend(figure, _present(scores, models), dashed=_has_ceiling_line(axes))
    return figure


@styled
def change_figure(means: pd.DataFrame, contrasts: pd.DataFrame, models: Sequence[Condition]) -> Figure | None:
    """Every model's r less that of the first by layer, one panel per region: mean over participants, and each of them.

    Parameters
    ----------
    means : pandas.DataFrame
        One row per model, layer and region: columns model, layer, region, mean, low, high.
    contrasts : pandas.DataFrame
        One row per participant, model, layer and region: columns participant, model, layer, region, difference.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure or None
        All panels share one vertical axis; bands are the intervals of the means. None when there is nothing to compare.
    """
    if contrasts.empty:
        return None
    regions = _distinct(contrasts, "region")
    columns = len(regions) if len(regions) <= 4 else 3
    rows = math.ceil(len(regions) / columns)
    figure, axes = _grid(rows, columns, (WIDE, 2.9 * rows + 0.9))
    values = np.concatenate([means[["mean", "low", "high"]].to_numpy(dtype=float).ravel(), contrasts["difference"].to_numpy()])
    limits = _padded(values, at_least=0.04)
    for ax, region in zip(axes, regions, strict=False):
        ax.axhline(0, color="#404040", linewidth=1, zorder=2)
        each = contrasts[contrasts["region"] == region].rename(columns={"difference": "value"})
        _means_panel(ax, means[means["region"] == region], each, models, _span(contrasts))
        ax.set_title(_title(region, columns))
        ax.set_ylim(*limits)
    _finish(figure, axes, set(range(len(regions))), LAYER, f"r minus r of {shortened(models[0].label, 30)}".replace("$", r"\$"))
    _legend(figure, _present(contrasts, models))
    return figure


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
    regions, thirds = _distinct(lags, "region"), depths(lags)
    columns = len(thirds) if thirds else len(regions) if len(regions) <= 4 else 3
    panels = [(region, depth) for region in regions for depth in thirds or ("all",)]
    rows = math.ceil(len(panels) / columns)
    figure, axes = _grid(rows, columns, (WIDE, 2.5 * rows + 0.9))
    divided = set(lags.loc[lags["depth"] != "all", "model"]) if thirds else set()
    table = lags[lags["model"].isin(divided) == (lags["depth"] != "all")]
    table = table.rename(columns={"lag": "layer", "r_low": "low", "r_high": "high"})  # the helpers' horizontal axis is the layer
    mean = table["participant"] == MEAN
    thick = (table[mean] if mean.any() else table).rename(columns={"r": "mean"})
    both = thick, table[~mean].rename(columns={"r": "value"})
    parts = {region: [one[one["region"] == region] for one in both] for region in regions}
    ranges = [
        _range(np.append(of[["mean", "low", "high"]].to_numpy(float).ravel(), each["value"])) for of, each in parts.values()
    ]
    windows = dict(zip(regions, _windows(ranges, [math.nan] * len(regions)), strict=True))
    for ax, (region, depth) in zip(axes, panels, strict=False):
        here = [one[one["depth"].isin([depth, "all"])] for one in parts[region]]
        _means_panel(ax, here[0], here[1], models, _span(lags, "lag"))
        ax.set_title(_title(region, columns, depth if thirds else ""))
        _within(ax, windows[region])
    _finish(figure, axes, set(range(len(panels))), "lag (TRs from sound to response)", "correlation r, held-out data")
    _legend(figure, _present(lags, models))
    return figure


def depths(lags: pd.DataFrame) -> tuple[str, ...]:
    """The thirds of the layers that ``lags_figure`` has panels of; none where there are none, or too many panels."""
    thirds = tuple(depth for depth in ("early", "middle", "late") if depth in set(lags["depth"]))
    return thirds if lags["region"].nunique() * len(thirds) <= PANELS else ()


@styled
def training_figure(training: pd.DataFrame, models: Sequence[Condition]) -> Figure | None:
    """Loss and validation correlation by epoch, one row per participant.

    Parameters
    ----------
    training : pandas.DataFrame
        Columns participant, model, epoch, train_loss, validation_loss, validation_r.
    models : sequence of Condition

    Returns
    -------
    matplotlib.figure.Figure or None
        None when the table has no rows.
    """
    participants = _distinct(training, "participant")
    if not participants:
        return None
    figure, axes = _grid(len(participants), 2, (WIDE, 2.5 * len(participants) + 0.9))
    for row, participant in enumerate(participants):
        loss, r = axes[2 * row], axes[2 * row + 1]
        for model, look in _looks(training[training["participant"] == participant], models):
            part = training[(training["participant"] == participant) & (training["model"] == model)].sort_values("epoch")
            loss.plot(part["epoch"], part["validation_loss"], markersize=3.5, **look)
            loss.plot(part["epoch"], part["train_loss"], **{**look, "marker": "", "linestyle": ":"}, linewidth=1.3)
            r.plot(part["epoch"], part["validation_r"], markersize=3.5, **look)
        r.axhline(0, color="#404040", linewidth=1, zorder=2)
        person = participant if len(participants) > 1 else ""
        for ax, title, label in ((loss, "loss", "squared error"), (r, "validation correlation", "mean r over voxels")):
            ax.set_title(_title(title, 2, person))
            ax.set_ylabel(label)
            _ticks(ax, *_span(training, "epoch"))
    _finish(figure, axes, set(range(len(axes))), _epoch_label(training["epoch"]), "")
    _legend(figure, _present(training, models), lines=("validation", "training"))
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
    columns = len(regions) if len(regions) <= 4 else 3
    rows = math.ceil(len(regions) / columns)
    figure, axes = _grid(rows, columns, (10, 3.75 if rows == 1 else 2.9 * rows + 0.9))
    panels = [(means[means["region"] == region], scores[scores["region"] == region]) for region in regions]
    ranges = [_range(np.append(mean[["mean", "low", "high"]].to_numpy(float).ravel(), each["r"])) for mean, each in panels]
    windows = _windows(ranges, [math.nan] * len(ranges))
    for ax, region, (mean, each), window in zip(axes, regions, panels, windows, strict=False):
        _means_panel(ax, mean, each.rename(columns={"r": "value"}), models, _span(scores))
        ax.set_title(_title(region, columns), fontsize=13 if columns < 4 and rows == 1 else None)
        _within(ax, window)
    _finish(figure, axes, set(range(len(regions))), "layer of the speech model", "correlation r, held-out data")
    _legend(figure, _present(means, models))
    return figure


def _layer_panel(
    ax: Axes, panel: pd.DataFrame, models: Sequence[Condition], window: tuple[float, float], span: tuple[int, int]
) -> None:
    low, high = window
    for model, look in _looks(panel, models):
        part = panel[panel["model"] == model]
        if not crowded(panel):
            _band(ax, part, "r_low", "r_high", look, span)
        _curve(ax, part.set_index("layer")["r"], look, span)
    _within(ax, window)
    _ticks(ax, *span)
    ceiling = _ceiling(panel)
    if math.isnan(ceiling):
        return
    if low <= ceiling <= high:
        ax.axhline(ceiling, color=CEILING, linewidth=1.2, linestyle=DASHED, zorder=2.5)
    else:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        words = f"noise ceiling {ceiling:.2f} {'↑' if ceiling > high else '↓'}"
        ax.text(0.99, 0.99, words, transform=ax.transAxes, ha="right", va="top", fontsize=8.5, zorder=5, bbox=box)


def _means_panel(ax: Axes, means: pd.DataFrame, each: pd.DataFrame, models: Sequence[Condition], span: tuple[int, int]) -> None:
    """A thick line and a band for the mean over participants, thin lines for each of several: column ``value`` of ``each``."""
    for model, look in _looks(means, models):
        part, own = means[means["model"] == model], each[each["model"] == model]
        people = own["participant"].unique()
        if not crowded(means):
            _band(ax, part, "low", "high", look, span, edges=len(people) == 1)  # thin lines are participants here
        _curve(ax, part.set_index("layer")["mean"], look, span, linewidth=2.4)
        for who in people if len(people) > 1 else ():
            thin: dict[str, Any] = {**look, "marker": "", "zorder": look["zorder"] - 0.5}
            _curve(ax, own[own["participant"] == who].set_index("layer")["value"], thin, span, alpha=0.4, linewidth=0.9)
    _ticks(ax, *span)


def _within(ax: Axes, window: tuple[float, float]) -> None:
    """The vertical limits of a panel, and a line at zero where it lies between them."""
    low, high = window
    ax.set_ylim(low, high)
    if low < 0 < high:
        ax.axhline(0, color="#404040", linewidth=1, zorder=2)


def _curve(ax: Axes, values: pd.Series, look: Mapping[str, Any], span: tuple[int, int], **more: Any) -> None:
    """Values by layer. What has one layer where others have more, such as a low-level feature, is a level line."""
    values = _level(values.sort_index(), span)
    ax.plot(values.index, values.to_numpy(), markevery=math.ceil(len(values) / MARKED), **look, **more)


def _band(
    ax: Axes, part: pd.DataFrame, low: str, high: str, look: Mapping[str, Any], span: tuple[int, int], edges: bool = True
) -> None:
    ends = [_level(part.set_index("layer")[name].astype(float).sort_index(), span) for name in (low, high)]
    color, zorder = look["color"], look["zorder"]
    ax.fill_between(ends[0].index, *(end.to_numpy() for end in ends), color=color, alpha=0.1, linewidth=0, zorder=zorder - 1.5)
    for end in ends if edges else ():  # where bands overlap, only their edges still tell them apart
        ax.plot(end.index, end.to_numpy(), color=color, alpha=0.45, linewidth=0.6, zorder=zorder - 1.4)


def _level(values: pd.Series, span: tuple[int, int]) -> pd.Series:
    """A single value at every layer of the panel; where that is one, at its sides too, or no line or band would be seen."""
    low, high = span
    wide = range(low, high + 1) if low < high else (low - EDGE, low, low + EDGE)
    return values if len(values) > 1 else values.reindex(wide).ffill().bfill()


def crowded(table: pd.DataFrame) -> bool:
    """Whether there are too many models for bands."""
    return bool(table["model"].nunique() > BANDED)


def _present(table: pd.DataFrame, models: Sequence[Condition]) -> list[Condition]:
    there = set(table["model"])
    return [one for one in models if one.model in there]


def _looks(table: pd.DataFrame, models: Sequence[Condition]) -> list[tuple[str, dict[str, Any]]]:
    """The models of a table, and how each is drawn: later ones above earlier ones, solid all."""
    return [
        (one.model, {"color": one.color, "marker": one.marker, "linestyle": "-", "zorder": 3 + place / len(models)})
        for place, one in enumerate(models)
        if one in _present(table, models)
    ]


def _span(table: pd.DataFrame, column: str = "layer") -> tuple[int, int]:
    return int(table[column].min()), int(table[column].max())


def _has_ceiling_line(axes: Sequence[Axes]) -> bool:
    return any(curve.get_color() == CEILING for ax in axes for curve in ax.get_lines())


def _band_range(panel: pd.DataFrame) -> tuple[float, float]:
    return _range(panel[["r", "r_low", "r_high"]].to_numpy(dtype=float))


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def _padded(values: np.ndarray, at_least: float) -> tuple[float, float]:
    low, high = _range(values)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.08 * max(high - low, at_least)
    spare = max(0.0, at_least - (high - low)) / 2
    return low - pad - spare, high + pad + spare


def _windows(ranges: Sequence[tuple[float, float]], ceilings: Sequence[float]) -> list[tuple[float, float]]:
    """Vertical limits per panel, all of one height; a ceiling is taken in where it costs at most a third of the height."""
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


def _ceiling(panel: pd.DataFrame) -> float:
    """The panel's mean ceiling; NaN when unknown, or zero: voxels of noise have no ceiling to reach."""
    known = panel["ceiling"].to_numpy(dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) and known.mean() > 0.01 else math.nan


def _distinct(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column]))


def _title(name: str, columns: int, participant: str = "") -> str:
    """A panel's title, cut to its width; a dollar sign would begin mathematics."""
    room = 92 // max(columns, 2)
    person = f" · {display_name(participant, room // 3)}" if participant else ""
    return (display_name(name, room - len(person)) + person).replace("$", r"\$")


def _epoch_label(epochs: pd.Series) -> str:
    return "epoch (0 = before the first update)" if int(epochs.min()) == 0 else "epoch"


def _ticks(ax: Axes, low: int, high: int) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 10**9) if (high - low) / step <= 8)
    ax.set_xticks(range(low, high + 1, step))
    ax.set_xlim(low - 0.03 * max(high - low, 1) - EDGE, high + 0.03 * max(high - low, 1) + EDGE)
    ax.grid(False, axis="x")
    ax.yaxis.set_major_locator(require("matplotlib.ticker", "report").MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def _grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = require("matplotlib.figure", "report").Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.03)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _finish(figure: Figure, axes: list[Axes], used: set[int], x: str, y: str) -> None:
    """Remove the panels nobody drew in, and name the axes once for all."""
    for k, ax in enumerate(axes):
        if k not in used:
            ax.remove()
    figure.supxlabel(x, fontsize=10)
    if y:
        figure.supylabel(y, fontsize=10)


def _legend(figure: Figure, models: Sequence[Condition], *, dashed: bool = False, lines: Sequence[str] = ()) -> None:
    """One legend above all panels: models, then what lines stand for; as many in a row as have room."""
    line = require("matplotlib.lines", "report").Line2D
    labels = [shortened(one.label, LONGEST).replace("$", r"\$") for one in models]
    handles = [line([], [], color=one.color, marker=one.marker, label=label) for one, label in zip(models, labels, strict=True)]
    looks: dict[str, dict[str, Any]] = {
        "validation": {"color": "#303030", "linestyle": "-"},
        "training": {"color": "#303030", "linestyle": ":", "linewidth": 1.3},
        "noise ceiling": {"color": CEILING, "linestyle": DASHED, "linewidth": 1.2},
    }
    handles += [line([], [], label=name, **looks[name]) for name in (*lines, *(["noise ceiling"] if dashed else []))]
    widest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), LINE // (widest + 8)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=2.6, columnspacing=1.6)
