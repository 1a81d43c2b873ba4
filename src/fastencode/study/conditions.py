"""The models of a study with their labels, colors and markers in all tables and figures. Imports no slow library."""

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
    """One model in tables and figures.

    Attributes
    ----------
    model : str
        Value in the column ``model`` of tables.
    label : str
        Display name.
    color, marker : str
        In matplotlib's notation.
    """

    model: str
    label: str
    color: str
    marker: str


def conditions(models: Iterable[str], labels: Iterable[str] | None = None) -> tuple[Condition, ...]:
    """Assign colors and markers to models. There are 49 different pairs; further models repeat them.

    Parameters
    ----------
    models : iterable of str
        In the order of tables and legends.
    labels : iterable of str, optional
        Default: ``models``.

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
