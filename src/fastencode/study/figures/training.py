"""The course of tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastencode.study.conditions import Condition
from fastencode.study.figures.base import (
    ZERO,
    distinct,
    finish,
    layer_ticks,
    looks,
    panel_title,
    panels,
    span_of,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["training_figure"]


@styled
def training_figure(training: pd.DataFrame, models: Sequence[Condition]) -> Figure | None:
    """Loss and validation correlation by epoch, two panels for each participant.

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
    participants = distinct(training, "participant")
    if not participants:
        return None
    columns = 2 if len(participants) <= 4 else 4  # two panels for each participant, of one or of two in a row
    figure, axes, _ = panels(2 * len(participants), columns)
    for place, participant in enumerate(participants):
        loss, r = axes[2 * place], axes[2 * place + 1]
        part = training[training["participant"] == participant].sort_values("epoch")
        for model, look in looks(part, models):
            own = part[part["model"] == model]
            loss.plot(own["epoch"], own["validation_loss"], markersize=3.5, **look)
            loss.plot(own["epoch"], own["train_loss"], **{**look, "marker": "", "linestyle": ":"}, linewidth=1.3)
            r.plot(own["epoch"], own["validation_r"], markersize=3.5, **look)
        r.axhline(0, color=ZERO, linewidth=1, zorder=2)
        person = participant if len(participants) > 1 else ""
        of_r = "validation correlation" if columns == 2 else "validation r"
        for ax, title, label in ((loss, "loss", "squared error"), (r, of_r, "mean r over voxels")):
            ax.set_title(panel_title(title, columns, person))
            ax.set_ylabel(label if columns == 2 else "", fontsize=9)
            layer_ticks(ax, *span_of(training, "epoch"))
    finish(
        figure,
        axes,
        range(2 * len(participants)),
        (_epoch_label(training["epoch"]), ""),
        training,
        models,
        ("validation", "training"),
    )
    return figure


def _epoch_label(epochs: pd.Series) -> str:
    return "epoch (0 = before the first update)" if int(epochs.min()) == 0 else "epoch"
