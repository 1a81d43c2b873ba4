"""The models of a study: what each is called and how it is drawn, the same in every table and figure. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastencode.errors import InputError
from fastencode.style import COLORS, MARKERS

__all__ = ["OWN", "Condition", "conditions", "reference_label"]

OWN = "its model before tuning"
"""What differences are taken to where each model has its own."""


@dataclass(frozen=True)
class Condition:
    """One model as tables and figures show it. Their order is that of the list in which it is passed.

    Attributes
    ----------
    model : str
        What the column ``model`` of the tables holds.
    label : str
        What people read.
    color, marker : str
        As matplotlib names them.
    """

    model: str
    label: str
    color: str
    marker: str


def conditions(models: Iterable[str], labels: Iterable[str] | None = None) -> tuple[Condition, ...]:
    """A list of models, each with a pair of color and marker of its own (49 pairs; after these they come again).

    Parameters
    ----------
    models : iterable of str
        In the order of tables and legends.
    labels : iterable of str, optional
        By default the models' names.

    Raises
    ------
    InputError
        If a model is named twice.
    """
    models = tuple(models)
    labels = models if labels is None else tuple(labels)
    if twice := sorted({model for model in models if models.count(model) > 1}):
        raise InputError(f"the model {twice[0]!r} is listed twice: list each model once")
    n = len(COLORS)
    return tuple(
        Condition(model, label, COLORS[place % n], MARKERS[(place + place // n) % n])
        for place, (model, label) in enumerate(zip(models, labels, strict=True))
    )


def reference_label(versus: Iterable[str], models: Iterable[Condition]) -> str:
    """What differences are taken to, as people read it: one model's label; of several, :data:`OWN`.

    Parameters
    ----------
    versus : iterable of str
        The column ``versus`` of a table of differences; "0" does not count.
    models : iterable of Condition
    """
    names = dict.fromkeys(name for name in versus if name != "0")
    labels = {one.model: one.label for one in models}
    return labels.get(*names, *names) if len(names) == 1 else OWN
