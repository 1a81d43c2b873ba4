"""Shared by all figures: style, grids of panels, legends, and conversion to PNG and SVG.

Figures use matplotlib's objects instead of pyplot, so that none stays open and the user's settings have no influence.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Sequence
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
    "crowded",
    "distinct",
    "escaped",
    "finish",
    "layer_ticks",
    "legend_of",
    "looks",
    "panel_title",
    "panels",
    "png",
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
PANELS = 48  # largest number of panels in figures with several per region
BANDED = 5  # largest number of models with interval bands
LONGEST, LINE = 40, 115  # letters of a legend's entry, and of all entries in a row, each with 8 for its line
# Line styles that do not depend on the model, by their names in legends.
LINES: dict[str, dict[str, Any]] = {
    "validation": {"color": "#303030", "linestyle": "-"},
    "training": {"color": "#303030", "linestyle": ":", "linewidth": 1.3},
    "baseline": {"color": "#303030", "linestyle": DASHED, "linewidth": 1.2},
    "shuffled labels": {"color": "#303030", "linestyle": ":", "linewidth": 1.3},
    "noise ceiling": {"color": CEILING, "linestyle": DASHED, "linewidth": 1.2},
}


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """A decorator: draw with matplotlib's defaults and our style, not with the user's matplotlibrc."""

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


def panels(
    count: int, columns: int | None = None, *, height: float | None = None, width: float = WIDE, share: bool = False
) -> tuple[Figure, list[Axes], int]:
    """A figure with a grid of panels.

    Parameters
    ----------
    count : int
        Panels that are needed.
    columns : int, optional
        Panels side by side. Default: all of up to four, otherwise three.
    height : float, optional
        Inches of one row. Default: 2.5, or 1.9 if there are more than four rows, so that the figure fits on few screens.
    width : float
        Inches of the figure.
    share : bool
        Whether all panels have the same axes.

    Returns
    -------
    Figure
    list of Axes
        Row by row; the last row may have more than are needed.
    int
        Panels side by side.
    """
    columns = columns or (count if count <= 4 else 3)
    rows = math.ceil(count / columns)
    height = (2.5 if rows <= 4 else 1.9) if height is None else height
    figure = require("matplotlib.figure", "report").Figure(figsize=(width, height * rows + 0.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.03)
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=share, sharex=share).ravel()), columns


def finish(
    figure: Figure,
    axes: list[Axes],
    used: Collection[int],
    labels: tuple[str, str],
    table: pd.DataFrame,
    models: Sequence[Condition],
    lines: Sequence[str] = (),
) -> None:
    """Remove empty panels, label the axes once for the whole figure, and add a legend.

    Parameters
    ----------
    figure, axes
        Of :func:`panels`.
    used : collection of int
        Positions of the axes that were drawn in.
    labels : (str, str)
        Of the horizontal and the vertical axis; "" for none.
    table : pandas.DataFrame
        The legend shows the models in its column ``model``.
    models : sequence of Condition
    lines : sequence of str
        Further legend entries: keys of ``LINES``.
    """
    spec = axes[0].get_gridspec()
    columns = spec.ncols if spec else 1
    for k, ax in enumerate(axes):
        if k not in used:
            ax.remove()
        elif k + columns not in used:
            ax.tick_params(labelbottom=True)  # a shared axis hides them above a panel that is not there
    figure.supxlabel(labels[0], fontsize=10)
    if labels[1]:
        figure.supylabel(labels[1], fontsize=10)
    line = require("matplotlib.lines", "report").Line2D
    handles = [
        line([], [], color=one.color, marker=one.marker, label=escaped(shortened(one.label, LONGEST)))
        for one in present(table, models)
    ]
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


def panel_title(name: str, columns: int, participant: str = "") -> str:
    """A panel's title, cut to its width; a dollar sign would begin mathematics."""
    room = 92 // max(columns, 2)
    person = f" · {display_name(participant, room // 3)}" if participant else ""
    return escaped(display_name(name, room - len(person)) + person)


def layer_ticks(ax: Axes, low: int, high: int) -> None:
    """Whole numbers on the horizontal axis, from the first to the last layer, at most nine of them."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 10**9) if (high - low) / step <= 8)
    ax.set_xticks(range(low, high + 1, step))
    ax.set_xlim(low - 0.03 * max(high - low, 1) - EDGE, high + 0.03 * max(high - low, 1) + EDGE)
    ax.grid(False, axis="x")
    ax.yaxis.set_major_locator(require("matplotlib.ticker", "report").MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def distinct(table: pd.DataFrame, column: str) -> list[str]:
    """The different values of a column, in order of appearance."""
    return list(dict.fromkeys(table[column]))


def present(table: pd.DataFrame, models: Sequence[Condition]) -> list[Condition]:
    """The models that have rows in a table, in the order of ``models``."""
    there = set(table["model"])
    return [one for one in models if one.model in there]


def looks(table: pd.DataFrame, models: Sequence[Condition]) -> list[tuple[str, dict[str, Any]]]:
    """Each model of a table with its line style: all solid, later models drawn above earlier ones."""
    return [
        (one.model, {"color": one.color, "marker": one.marker, "linestyle": "-", "zorder": 3 + place / len(models)})
        for place, one in enumerate(models)
        if one in present(table, models)
    ]


def span_of(table: pd.DataFrame, column: str = "layer") -> tuple[int, int]:
    """The smallest and the largest number in a column."""
    return int(table[column].min()), int(table[column].max())


def crowded(table: pd.DataFrame) -> bool:
    """Whether there are so many models that interval bands would hide each other."""
    return bool(table["model"].nunique() > BANDED)
