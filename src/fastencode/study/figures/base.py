"""What all figures share: style, grids of panels, legends, and a figure as the content of a file.

Axes are made and filled through matplotlib's objects, never pyplot: no figure is kept open, and it looks the same whatever the
user's own settings are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from fastencode.errors import require
from fastencode.study.conditions import Condition
from fastencode.study.names import display_name, shortened
from fastencode.style import DPI, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CEILING",
    "DASHED",
    "EDGE",
    "LAYER",
    "LINES",
    "MARKED",
    "PANELS",
    "WIDE",
    "ZERO",
    "columns_of",
    "crowded",
    "distinct",
    "escaped",
    "finish",
    "grid",
    "layer_ticks",
    "legend",
    "legend_of",
    "looks",
    "panel_title",
    "png",
    "present",
    "row_height",
    "span_of",
    "styled",
    "svg",
]

WIDE = 9.6  # inches: three panels side by side, or one legend line of four entries
EDGE = 0.1  # layers between the first or last one and the edge of its panel, at least
MARKED = 13  # markers on a curve at most
LAYER = "layer (0 = input of the transformer)"
CEILING, ZERO = "black", "#404040"
DASHED = (0, (5, 3))
PANELS = 48  # of a figure that has several for each region
BANDED = 5  # models: bands of more hide each other
LONGEST, LINE = 40, 115  # letters of a legend's entry, and of all entries in a row, each with 8 for its line
# What is drawn alike for all models, by its name in the legend.
LINES: dict[str, dict[str, Any]] = {
    "validation": {"color": "#303030", "linestyle": "-"},
    "training": {"color": "#303030", "linestyle": ":", "linewidth": 1.3},
    "baseline": {"color": "#303030", "linestyle": DASHED, "linewidth": 1.2},
    "shuffled labels": {"color": "#303030", "linestyle": ":", "linewidth": 1.3},
    "noise ceiling": {"color": CEILING, "linestyle": DASHED, "linewidth": 1.2},
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


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content, without the date or version that would make equal figures differ.

    Drawn once, by the canvas: ``Figure.savefig`` draws everything twice, the first time only to place it.
    """
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    require("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    figure.set_layout_engine("none")  # found once: the same figure as another file has its panels where they are here
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file's content, letters as outlines; equal figures give equal bytes, as with :func:`png`."""
    buffer = io.BytesIO()
    figure.set_dpi(DPI)  # of what is drawn in pixels
    canvas = require("matplotlib.backends.backend_svg", "report").FigureCanvasSVG(figure)
    with require("matplotlib", "report").rc_context({"svg.hashsalt": "fastencode", "svg.fonttype": "path"}):
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def grid(rows: int, columns: int, size: tuple[float, float], *, share: str = "") -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, and these row by row; ``share`` is "y" or "all" where they have one axis."""
    figure = require("matplotlib.figure", "report").Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.03)
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=bool(share), sharex=share == "all").ravel())


def finish(figure: Figure, axes: list[Axes], used: set[int], x: str, y: str) -> None:
    """Remove the panels nobody drew in, and name the axes once for all."""
    spec = axes[0].get_gridspec()
    columns = spec.ncols if spec else 1
    for k, ax in enumerate(axes):
        if k not in used:
            ax.remove()
        elif k + columns not in used:
            ax.tick_params(labelbottom=True)  # a shared axis hides them above a panel that is not there
    figure.supxlabel(x, fontsize=10)
    if y:
        figure.supylabel(y, fontsize=10)


def legend(figure: Figure, models: Sequence[Condition], *, lines: Sequence[str] = ()) -> None:
    """One legend above all panels: models, then what lines stand for, names of ``LINES``."""
    line = require("matplotlib.lines", "report").Line2D
    labels = [escaped(shortened(one.label, LONGEST)) for one in models]
    handles = [line([], [], color=one.color, marker=one.marker, label=label) for one, label in zip(models, labels, strict=True)]
    legend_of(figure, [*handles, *(line([], [], label=name, **LINES[name]) for name in lines)])


def legend_of(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend of these handles above all panels, as many in a row as have room."""
    widest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), LINE // (widest + 8)))
    by_column = [one for k in range(columns) for one in handles[k::columns]]  # matplotlib fills columns, people read rows
    figure.legend(handles=by_column, loc="outside upper center", ncols=columns, handlelength=2.6, columnspacing=1.6)


def escaped(words: str) -> str:
    """Words as matplotlib shows them: a dollar sign would begin mathematics."""
    return words.replace("$", r"\$")


def columns_of(panels: int) -> int:
    """Panels side by side: all of up to four, otherwise three in a row."""
    return panels if panels <= 4 else 3


def row_height(rows: int) -> float:
    """Inches of one row of panels; many rows are lower, so that a figure of them fits on few screens."""
    return 2.5 if rows <= 4 else 1.9


def panel_title(name: str, columns: int, participant: str = "") -> str:
    """A panel's title, cut to its width; a dollar sign would begin mathematics."""
    room = 92 // max(columns, 2)
    person = f" · {display_name(participant, room // 3)}" if participant else ""
    return escaped(display_name(name, room - len(person)) + person)


def layer_ticks(ax: Axes, low: int, high: int) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 10**9) if (high - low) / step <= 8)
    ax.set_xticks(range(low, high + 1, step))
    ax.set_xlim(low - 0.03 * max(high - low, 1) - EDGE, high + 0.03 * max(high - low, 1) + EDGE)
    ax.grid(False, axis="x")
    ax.yaxis.set_major_locator(require("matplotlib.ticker", "report").MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def distinct(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column]))


def present(table: pd.DataFrame, models: Sequence[Condition]) -> list[Condition]:
    there = set(table["model"])
    return [one for one in models if one.model in there]


def looks(table: pd.DataFrame, models: Sequence[Condition]) -> list[tuple[str, dict[str, Any]]]:
    """The models of a table, and how each is drawn: later ones above earlier ones, solid all."""
    return [
        (one.model, {"color": one.color, "marker": one.marker, "linestyle": "-", "zorder": 3 + place / len(models)})
        for place, one in enumerate(models)
        if one in present(table, models)
    ]


def span_of(table: pd.DataFrame, column: str = "layer") -> tuple[int, int]:
    return int(table[column].min()), int(table[column].max())


def crowded(table: pd.DataFrame) -> bool:
    """Whether there are too many models for bands."""
    return bool(table["model"].nunique() > BANDED)
