"""Figures of a study: layer curves, changes by tuning, the course of tuning, and one picture for a README.

Figures are made from tidy tables and know nothing of files. matplotlib's object interface is used throughout, never pyplot: no
figure is kept open, and it looks the same whatever the user's own settings are. A model has one color, marker and line everywhere
(Okabe and Ito's palette, which survives the common color deficiencies, and gray printing with the markers' help).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastencode.errors import require

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MODELS", "change_figure", "display_name", "layers_figure", "model_name", "picture", "png", "training_figure"]

DPI = 160
WIDE = 9.6  # inches: three panels side by side, or one legend line of four entries
MARKED = 13  # curves with more points than this are drawn without markers
LAYER = "layer (0 = input of the transformer)"
GRAY, BLUE, VERMILION = "#5a5a5a", "#0072b2", "#d55e00"
CEILING = "black"


class Look(NamedTuple):
    """How one model appears in every figure and table."""

    name: str
    label: str
    color: str
    marker: str
    line: Any
    zorder: float


MODELS = {
    "pretrained": Look("pretrained", "pretrained", GRAY, "o", "-", 3.0),
    "control": Look("control", "control (mismatched responses)", VERMILION, "^", (0, (4, 1.5)), 3.2),
    "tuned": Look("brain-tuned", "brain-tuned", BLUE, "s", "-", 3.4),
}

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#808080",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.unicode_minus": True,
    "text.usetex": False,
}


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """Draw with matplotlib's defaults and our style, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure | None:
        matplotlib = require("matplotlib", "report")
        require("matplotlib.style", "report")
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return wrapper


def model_name(model: str) -> str:
    """What a model is called in tables; legends say more."""
    return MODELS[model].name


def display_name(name: object, longest: int = 0) -> str:
    """A region's or participant's name for people: underscores become spaces, and an overlong name ends with an ellipsis."""
    words = " ".join(str(name).replace("_", " ").split())
    return words[: longest - 1].rstrip() + "…" if longest and len(words) > longest else words


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content, without the date or version that would make equal figures differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


@styled
def layers_figure(scores: pd.DataFrame) -> Figure:
    """Correlation by layer, one panel per participant and region, with interval bands and the noise ceiling.

    Parameters
    ----------
    scores : pandas.DataFrame
        One row per participant, model, layer and region: columns participant, model, layer, region, r, r_low, r_high, ceiling.

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
        _layer_panel(axes[at], panel, window)
        axes[at].set_title(_title(region, columns, participant if len(participants) > 1 else ""))
    _finish(figure, axes, used, LAYER, "correlation r with held-out responses")
    _legend(figure, axes, extra=("noise ceiling",))
    return figure


@styled
def change_figure(scores: pd.DataFrame) -> Figure | None:
    """Tuned − pretrained and control − pretrained by layer, one panel per region: mean over participants, and each of them.

    Parameters
    ----------
    scores : pandas.DataFrame
        As for ``layers_figure``.

    Returns
    -------
    matplotlib.figure.Figure or None
        All panels share one vertical axis. None when there is no pretrained model to compare with, or nothing to compare.
    """
    changes = _changes(scores)
    if not changes:
        return None
    regions = _distinct(scores, "region")
    columns = len(regions) if len(regions) <= 4 else 3
    rows = math.ceil(len(regions) / columns)
    figure, axes = _grid(rows, columns, (WIDE, 2.9 * rows + 0.9))
    for ax, region in zip(axes, regions, strict=False):
        ax.axhline(0, color="#404040", linewidth=1, zorder=2)
        for model, change in changes.items():
            _mean_and_each(ax, change.xs(region, level="region"), model)
        ax.set_title(_title(region, columns))
        _ticks(ax, scores["layer"])
    values = np.concatenate([change.to_numpy() for change in changes.values()])
    low, high = _padded(values, at_least=0.04)
    for ax in axes:
        ax.set_ylim(low, high)
    _finish(figure, axes, set(range(len(regions))), LAYER, "change in r from pretrained")
    _legend(figure, axes)
    return figure


@styled
def training_figure(training: pd.DataFrame) -> Figure | None:
    """Loss and validation correlation by epoch, one row per participant.

    Parameters
    ----------
    training : pandas.DataFrame
        Columns participant, model, epoch, train_loss, validation_loss, validation_r.

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
        for model, look in MODELS.items():
            part = training[(training["participant"] == participant) & (training["model"] == model)].sort_values("epoch")
            if part.empty:
                continue
            style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 3.5, "zorder": look.zorder}
            loss.plot(part["epoch"], part["validation_loss"], **style)
            loss.plot(part["epoch"], part["train_loss"], **{**style, "marker": "", "linewidth": 1.3}, linestyle=":")
            r.plot(part["epoch"], part["validation_r"], **style)
        r.axhline(0, color="#404040", linewidth=1, zorder=2)
        person = participant if len(participants) > 1 else ""
        for ax, title, label in ((loss, "loss", "squared error"), (r, "validation correlation", "mean r over voxels")):
            ax.set_title(_title(title, 2, person))
            ax.set_ylabel(label)
            _ticks(ax, training["epoch"])
    _finish(figure, axes, set(range(len(axes))), _epoch_label(training["epoch"]), "")
    _legend(figure, axes, extra=("training", "validation"))
    return figure


@styled
def picture(scores: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """The result at a glance: a few regions side by side, mean over participants of r by layer for each model.

    Parameters
    ----------
    scores : pandas.DataFrame
        As for ``layers_figure``.
    regions : sequence of str
        Which regions, in this order; two or three look best.

    Returns
    -------
    matplotlib.figure.Figure
        10 × 3.75 inches. Thin lines are participants when there are several; with one, bands are its intervals.
    """
    figure, axes = _grid(1, len(regions), (10, 3.75))
    alone = scores["participant"].nunique() == 1
    for ax, region in zip(axes, regions, strict=True):
        panel = scores[scores["region"] == region]
        for model in _models(panel):
            _mean_and_each(ax, panel[panel["model"] == model].set_index(["layer", "participant"])["r"], model, width=2.6)
            if alone:
                _bands(ax, panel, model)
        ax.set_title(_title(region, len(regions)), fontsize=13)
        _ticks(ax, scores["layer"])
    shown = scores[scores["region"].isin(list(regions))]
    columns = ["r", "r_low", "r_high"] if alone else ["r"]
    ranges = [_range(shown.loc[shown["region"] == region, columns].to_numpy()) for region in regions]
    for ax, (low, high) in zip(axes, _windows(ranges, [math.nan] * len(ranges)), strict=True):
        ax.set_ylim(low, high)
    _finish(figure, axes, set(range(len(regions))), "layer of the speech model", "correlation r, held-out data")
    _legend(figure, axes)
    return figure


def _layer_panel(ax: Axes, panel: pd.DataFrame, window: tuple[float, float]) -> None:
    low, high = window
    if low < 0 < high:
        ax.axhline(0, color="#404040", linewidth=1, zorder=2)
    for model in _models(panel):
        look, part = MODELS[model], panel[panel["model"] == model].sort_values("layer")
        _bands(ax, panel, model)
        marker = look.marker if part["layer"].nunique() <= MARKED else ""
        ax.plot(part["layer"], part["r"], color=look.color, marker=marker, linestyle=look.line, zorder=look.zorder)
    ax.set_ylim(low, high)
    _ticks(ax, panel["layer"])
    ceiling = _ceiling(panel)
    if math.isnan(ceiling):
        return
    if low <= ceiling <= high:
        ax.axhline(ceiling, color=CEILING, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2.5)
    else:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        words = f"noise ceiling {ceiling:.2f} {'↑' if ceiling > high else '↓'}"
        ax.text(0.99, 0.99, words, transform=ax.transAxes, ha="right", va="top", fontsize=8.5, zorder=5, bbox=box)


def _bands(ax: Axes, panel: pd.DataFrame, model: str) -> None:
    part = panel[panel["model"] == model].sort_values("layer")
    x, low, high = (part[name].to_numpy(dtype=float) for name in ("layer", "r_low", "r_high"))
    look = MODELS[model]
    ax.fill_between(x, low, high, color=look.color, alpha=0.09, linewidth=0, zorder=look.zorder - 1.5)
    for edge in (low, high):  # where three bands overlap, only their edges still tell them apart
        ax.plot(x, edge, color=look.color, alpha=0.45, linewidth=0.6, zorder=look.zorder - 1.4)


def _mean_and_each(ax: Axes, values: pd.Series, model: str, width: float = 2.2) -> None:
    """A thick line for the mean over participants, thin ones for each; ``values`` is indexed by layer and participant."""
    look, table = MODELS[model], values.unstack("participant").sort_index()
    style: dict[str, Any] = {"color": look.color, "linestyle": look.line}
    if table.shape[1] > 1:
        ax.plot(table.index, table.to_numpy(), **style, alpha=0.4, linewidth=0.9, zorder=look.zorder - 0.5)
    marker = look.marker if len(table) <= MARKED else ""
    ax.plot(table.index, table.mean(axis=1), **style, marker=marker, linewidth=width, zorder=look.zorder)


def _changes(scores: pd.DataFrame) -> dict[str, pd.Series]:
    """Per model, r minus the pretrained model's r, indexed by region, layer and participant where both are known."""
    r = {model: scores[scores["model"] == model].set_index(["region", "layer", "participant"])["r"] for model in _models(scores)}
    before = r.pop("pretrained", None)
    if before is None:
        return {}
    return {model: change for model, after in r.items() if (change := after - before).notna().any()}


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


def _models(table: pd.DataFrame) -> list[str]:
    present = set(table["model"])
    return [model for model in MODELS if model in present]


def _title(name: str, columns: int, participant: str = "") -> str:
    """A panel's title, cut to its width; a dollar sign would begin mathematics."""
    room = 92 // max(columns, 2)
    person = f" · {display_name(participant, room // 3)}" if participant else ""
    return (display_name(name, room - len(person)) + person).replace("$", r"\$")


def _epoch_label(epochs: pd.Series) -> str:
    return "epoch (0 = before the first update)" if int(epochs.min()) == 0 else "epoch"


def _ticks(ax: Axes, values: pd.Series) -> None:
    low, high = int(values.min()), int(values.max())
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 10**9) if (high - low) / step <= 8)
    ax.set_xticks(range(low, high + 1, step))
    ax.set_xlim(low - 0.03 * max(high - low, 1) - 0.1, high + 0.03 * max(high - low, 1) + 0.1)
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


def _legend(figure: Figure, axes: list[Axes], extra: Sequence[str] = ()) -> None:
    """One legend above all panels, from the looks themselves."""
    line = require("matplotlib.lines", "report").Line2D
    drawn = {curve.get_color() for ax in axes for curve in ax.get_lines()}
    order = [MODELS[name] for name in ("pretrained", "tuned", "control") if MODELS[name].color in drawn]
    handles = [line([], [], color=look.color, marker=look.marker, linestyle=look.line, label=look.label) for look in order]
    looks: dict[str, dict[str, Any]] = {
        "noise ceiling": {"color": CEILING, "linestyle": (0, (5, 3)), "linewidth": 1.2},
        "training": {"color": "#303030", "linestyle": ":", "linewidth": 1.3},
        "validation": {"color": "#303030", "linestyle": "-"},
    }
    handles += [line([], [], label=name, **looks[name]) for name in extra if name != "noise ceiling" or CEILING in drawn]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=2.6, columnspacing=1.6)
