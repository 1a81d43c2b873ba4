"""The figure of a tuning run, from its log: losses, validation correlations, learning rates, and what moved in which layer.

It holds no times and no dates: equal logs give equal files. Everything is drawn over epochs; updates lie between them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.errors import InputError, require
from fastencode.files import whole_file
from fastencode.style import COLORS, DPI, STYLE
from fastencode.tune.log import Row, kept_epoch, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves"]

_SIZE = (11.0, 6.8)  # inches
_GRAY, _BLUE, _ORANGE = COLORS[:3]
_DASHED = (0, (5, 3))
_DEPTHS = "viridis"  # of this map, the part that shows on white
_DARKEST, _LIGHTEST = 0.0, 0.88
_POINTS = 60  # of a curve over updates: neighbors beyond are averaged
_INSIDE = (2, 98)  # percent of the averaged losses of updates that the panel spans, at least
_NAMED = 40  # participants whose names have room
_FAR_APART = 20  # ratio of two learning rates from which only a logarithmic axis shows both


_ABOVE: dict[str, Any] = {
    "loc": "lower center", "bbox_to_anchor": (0.5, 0.98), "fontsize": 8, "handlelength": 1.8, "handletextpad": 0.5,
    "columnspacing": 0.9, "borderaxespad": 0.1,
}  # fmt: skip
_TITLE_PAD = 20  # points between a panel and its title: the legend stands there


def draw_curves(log: Path, out: Path) -> Path:
    """Draw the curves of a run.

    Parameters
    ----------
    log : Path
        ``log.jsonl``, of a run that has finished an epoch or at least looked at the state before the first update (epoch 0).
    out : Path
        A PNG file in an existing folder; written whole or not at all, and over an earlier one.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        If the log is missing or damaged, or has no line of an epoch; if the file cannot be written.
    MissingLibraryError
        If matplotlib is not installed (extra ``report``).
    """
    rows = read_log(log)
    if kept_epoch(rows) is None:
        raise InputError(f"{log} has no line of an epoch yet: nothing can be drawn before the first")
    matplotlib = require("matplotlib", "report")
    require("matplotlib.style", "report")
    buffer = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        figure = _figure(rows)
        figure.set_dpi(DPI)  # drawn by the canvas, once: savefig draws everything twice, the first time only to place it
        canvas = require("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(figure)
        canvas.print_png(buffer, metadata={"Software": None})
    with whole_file(out) as partial:
        partial.write_bytes(buffer.getvalue())
    return out


def _figure(rows: list[Row]) -> Figure:
    epochs = sorted((row for row in rows if row["kind"] == "epoch"), key=lambda row: row["epoch"])
    updates = [row for row in rows if row["kind"] == "update"]
    kept = kept_epoch(rows)
    assert kept is not None
    places = _places(updates, epochs)
    people = list(kept.get("participants") or {})
    figure = require("matplotlib.figure", "report").Figure(figsize=_SIZE, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.04)
    above, below = figure.subfigures(2, 1)
    top = above.subplots(1, 3 if len(people) > 1 else 2, squeeze=False)[0]
    rates, norms, changes = below.subplots(1, 3)
    _loss_panel(top[0], epochs, updates, places)
    _correlation_panel(top[1], epochs, people)
    if len(people) > 1:
        _people_panel(top[2], kept, people)
    _rates_panel(rates, updates, places)
    layers = _layer_names(epochs, updates)
    colors = _layer_colors(layers)
    _layers_panel(norms, *_gradients(epochs, updates, places), colors)
    norms.set_title("gradient norm", pad=_TITLE_PAD)
    _layers_panel(changes, [row["epoch"] for row in epochs], [row.get("weight_change") or {} for row in epochs], colors)
    changes.set_title("weight change ‖w − w₀‖ / ‖w₀‖", pad=_TITLE_PAD)
    stopped = any(row["kind"] == "end" for row in rows) and kept["epoch"] != epochs[-1]["epoch"]
    for ax in (*top[:2], rates, norms, changes):
        _over_epochs(ax, int(epochs[-1]["epoch"]) if not places else max(int(epochs[-1]["epoch"]), math.ceil(max(places))))
        if stopped:
            ax.axvline(kept["epoch"], color="#808080", linewidth=1, linestyle=":", zorder=1.5, label="_epoch kept")
    if stopped:
        place, across = (kept["epoch"], 1), top[0].get_xaxis_transform()
        top[0].annotate("kept", place, (3, -9), across, "offset points", color="#606060", fontsize=7.5)
    for ax in (top[0], top[1], rates):
        _legend(ax)
    _depth_legend(below, norms, changes, layers, colors)
    return figure


def _loss_panel(ax: Axes, epochs: Sequence[Row], updates: Sequence[Row], places: Sequence[float]) -> None:
    at = [row["epoch"] for row in epochs]
    between, single = _thinned(places, [_number(row.get("loss")) for row in updates])
    ax.plot(between, single, color=_GRAY, linewidth=0.8, alpha=0.5)
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(at) <= 40 else {}
    ax.plot(at, [_number(row.get("train_loss")) for row in epochs], color=_GRAY, label="training", **marker)
    watched, mean = ([_number(row.get(name)) for row in epochs] for name in ("validation_loss", "mean_loss"))
    if np.isfinite(watched).any():
        ax.plot(at, watched, color=_BLUE, label="validation", **marker)
    if np.isfinite(mean).any():
        ax.plot(at, mean, color="black", linewidth=1.2, linestyle=_DASHED, label="of predicting the mean")
    drawn = [_number(row.get(name)) for row in epochs for name in ("train_loss", "validation_loss")] + mean
    inside = np.percentile(single[np.isfinite(single)], _INSIDE) if np.isfinite(single).any() else ()
    ax.set_ylim(*_limits([*drawn, *inside]))
    ax.set_title("loss", pad=_TITLE_PAD)


def _correlation_panel(ax: Axes, epochs: Sequence[Row], people: Sequence[str]) -> None:
    """Mean r over participants and voxels; bands hold 90 % and 50 % of the voxels, thin lines are participants."""
    at = [row["epoch"] for row in epochs]
    for low, high, alpha in (("5", "95", 0.12), ("25", "75", 0.2)):
        lower, upper = ([_mean_quantile(row, end) for row in epochs] for end in (low, high))
        words = f"{int(high) - int(low)} % of voxels" if high == "75" else f"{int(high) - int(low)} %"
        ax.fill_between(
            at, lower, upper, color=_BLUE, alpha=alpha, linewidth=0, label=words if np.isfinite(lower).any() else None
        )
        if len(at) == 1:
            ax.vlines(at, lower, upper, color=_BLUE, alpha=2 * alpha, linewidth=6)
    if len(people) > 1:
        for who in people:
            each = [_number(((row.get("participants") or {}).get(who) or {}).get("r")) for row in epochs]
            ax.plot(at, each, color=_BLUE, linewidth=0.7, alpha=0.5)
        ax.plot([], [], color=_BLUE, linewidth=0.7, alpha=0.5, label="participants")
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(at) <= 40 else {}
    if any(row.get("validation_r") is not None for row in epochs):
        ax.plot(at, [_number(row.get("validation_r")) for row in epochs], color=_BLUE, linewidth=2.2, label="mean", **marker)
        ax.axhline(0, color="#404040", linewidth=1, zorder=2)
    else:
        _say(ax, "there is none")
        ax.set_yticks([])
    ax.set_title("validation correlation r over voxels", pad=_TITLE_PAD)


def _people_panel(ax: Axes, kept: Row, people: Sequence[str]) -> None:
    """Each participant's mean r, with quantiles of the voxels, in the epoch that was kept."""
    places = range(len(people), 0, -1)
    for place, who in zip(places, people, strict=True):
        one = kept["participants"][who]
        quantiles = {name: _number(value) for name, value in (one.get("quantiles") or {}).items()}
        for low, high, width, alpha in (("5", "95", 3.0, 0.25), ("25", "75", 6.0, 0.45)):
            ends = [quantiles.get(low, math.nan), quantiles.get(high, math.nan)]
            width = min(width, 90.0 / len(people))
            ax.plot(ends, [place, place], color=_BLUE, linewidth=width, alpha=alpha, solid_capstyle="butt")
        ax.plot(_number(one.get("r")), place, color=_BLUE, marker="o", markersize=5)
    ax.axvline(0, color="#404040", linewidth=1, zorder=1)
    names = [_shown(who) for who in people] if len(people) <= _NAMED else [""] * len(people)
    ax.set_yticks(list(places), names, fontsize=min(9.0, 160 / len(people)))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(0.4, len(people) + 0.6)
    ax.grid(False, axis="y")
    ax.set_xlabel("r over voxels: mean, 50 % and 90 %")
    ax.set_title(f"r of participants, epoch {kept['epoch']}", pad=_TITLE_PAD)


def _rates_panel(ax: Axes, updates: Sequence[Row], places: Sequence[float]) -> None:
    rates = [row.get("learning_rate") or {} for row in updates]
    peaks = []
    for name, words, color in (("backbone", "speech model", _BLUE), ("heads", "heads", _ORANGE)):
        values = [_number(one.get(name)) for one in rates]
        if np.isfinite(values).any():
            peaks.append(np.nanmax(values))
            alone: dict[str, Any] = {"marker": "o", "markersize": 3.5} if np.isfinite(values).sum() < 2 else {}
            ax.plot(places, values, color=color, label=words, linestyle="-" if name == "backbone" else (0, (3, 1.5)), **alone)
    if len(peaks) == 2 and min(peaks) > 0 and max(peaks) / min(peaks) > _FAR_APART:
        _logarithmic(ax)
    else:
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    ax.set_title("learning rates", pad=_TITLE_PAD)


def _layers_panel(ax: Axes, at: Sequence[float], values: Sequence[Mapping[str, Any]], colors: Mapping[str, Any]) -> None:
    """One line for each layer, on a logarithmic axis: zeros are not shown."""
    drawn = False
    for layer, color in colors.items():
        numbers = np.array([_number(one.get(layer)) for one in values])
        places, numbers = _thinned(at, np.where(numbers > 0, numbers, math.nan))
        if not np.isfinite(numbers).any():
            continue
        drawn = True
        alone: dict[str, Any] = {"marker": "o", "markersize": 3.5} if np.isfinite(numbers).sum() < 3 else {}
        ax.plot(places, numbers, color=color, linewidth=1.4, **alone)
    if drawn:
        _logarithmic(ax)
    else:
        _say(ax, "nothing moved")


def _say(ax: Axes, words: str) -> None:
    """Words where nothing can be drawn."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color="#606060")


def _gradients(epochs: Sequence[Row], updates: Sequence[Row], places: Sequence[float]) -> tuple[Sequence[float], list[Row]]:
    """Where to draw gradient norms, and the norms: of updates, and where these have none, of epochs."""
    if any(row.get("gradient_norm") for row in updates):
        return places, [row.get("gradient_norm") or {} for row in updates]
    return [row["epoch"] for row in epochs], [row.get("gradient_norm") or {} for row in epochs]


def _places(updates: Sequence[Row], epochs: Sequence[Row]) -> list[float]:
    """When updates were, in epochs; those of an unfinished epoch as if it were as long as the one before."""
    at, counts = [float(row["epoch"]) for row in epochs], [float(row["updates"]) for row in epochs]
    if len(at) < 2:
        most = max((row["update"] for row in updates), default=1)
        return [at[0] + row["update"] / max(1, most) for row in updates]
    pace = max(1.0, (counts[-1] - counts[-2]) / (at[-1] - at[-2]))
    late = [max(0.0, row["update"] - counts[-1]) / pace for row in updates]
    return [float(np.interp(row["update"], counts, at)) + after for row, after in zip(updates, late, strict=True)]


def _thinned(at: Sequence[float], values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors averaged, so that few enough points are left."""
    places, numbers = np.asarray(at, dtype=float), np.asarray(values, dtype=float)
    if len(places) <= _POINTS:
        return places, numbers
    parts = np.array_split(np.arange(len(places)), _POINTS)
    finite = np.isfinite(numbers)
    counts = np.array([finite[part].sum() for part in parts])
    sums = np.array([numbers[part][finite[part]].sum() for part in parts])
    means = np.divide(sums, counts, out=np.full(len(parts), math.nan), where=counts > 0)
    return np.array([places[part].mean() for part in parts]), means


def _layer_names(epochs: Sequence[Row], updates: Sequence[Row]) -> list[str]:
    """layer-00, layer-01, …, head, other: those that a line names."""
    found = {name for row in (*epochs, *updates) for key in ("weight_change", "gradient_norm") for name in row.get(key) or {}}
    return sorted(found, key=lambda name: (not name.startswith("layer-"), name))


def _layer_colors(layers: Sequence[str]) -> dict[str, Any]:
    """Layers from dark to light with their height; black for the head, gray for the rest."""
    deep = [name for name in layers if name.startswith("layer-")]
    colormap = require("matplotlib", "report").colormaps[_DEPTHS]
    shades = np.linspace(_DARKEST, _LIGHTEST, len(deep))
    return {
        **dict(zip(deep, colormap(shades), strict=True)),
        **{n: "black" if n == "head" else _GRAY for n in layers if n not in deep},
    }


def _depth_legend(figure: Any, norms: Axes, changes: Axes, layers: Sequence[str], colors: Mapping[str, Any]) -> None:
    """What colors of layers mean: a bar beside both panels, and lines for what is no layer."""
    deep = [name for name in layers if name.startswith("layer-")]
    if deep:
        shades = require("matplotlib.colors", "report").ListedColormap([colors[name] for name in deep])
        norm = require("matplotlib.colors", "report").BoundaryNorm(np.arange(len(deep) + 1) - 0.5, len(deep))
        scale = require("matplotlib.cm", "report").ScalarMappable(norm, shades)
        step = math.ceil(len(deep) / 8)
        ticks = range(0, len(deep), step)
        bar = figure.colorbar(scale, ax=[norms, changes], ticks=list(ticks), aspect=30, pad=0.02)
        bar.ax.set_yticklabels([str(int(deep[tick].removeprefix("layer-"))) for tick in ticks])
        bar.ax.tick_params(length=0, which="both")
        bar.ax.set_title("layer", fontsize=9)
        bar.outline.set_visible(False)
    line = require("matplotlib.lines", "report").Line2D
    others = [name for name in layers if name not in deep]
    for ax in (norms, changes):
        drawn = [one.get_color() for one in ax.lines if isinstance(one.get_color(), str)]
        handles = [line([], [], color=colors[name], linewidth=1.4, label=name) for name in others if colors[name] in drawn]
        if handles:
            ax.legend(handles=handles, **_ABOVE)


def _over_epochs(ax: Axes, last: int) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if last / step <= 8)
    ax.set_xticks(range(0, last + 1, step))
    edge = 0.03 * max(last, 1) + 0.05
    ax.set_xlim(-edge, max(last, 1) + edge)
    ax.grid(False, axis="x")
    ax.set_xlabel("epoch")


def _logarithmic(ax: Axes) -> None:
    """A logarithmic axis with plain numbers, at 1, 2 and 5 where it spans less than two decades."""
    ticker = require("matplotlib.ticker", "report")
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    between = (2, 5) if high / low < 100 else ()
    ax.yaxis.set_minor_locator(ticker.LogLocator(subs=between))
    for which in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        which(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(ax: Axes) -> None:
    """Above the panel, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles, labels, ncols=min(len(handles), 4), **_ABOVE)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - pad, high + pad


def _mean_quantile(row: Row, name: str) -> float:
    """Mean over participants of a quantile over voxels."""
    values = [_number((one.get("quantiles") or {}).get(name)) for one in (row.get("participants") or {}).values()]
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _number(value: Any) -> float:
    """NaN for null, and for what is not there: a gap in a curve."""
    return math.nan if value is None else float(value)


def _shown(name: str) -> str:
    """A name that fits beside a panel; a dollar sign would begin mathematics."""
    words = name if len(name) <= 18 else name[:17] + "…"
    return words.replace("$", r"\$")
