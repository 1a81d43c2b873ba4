"""Everything that a study measured, in one shape: scores in brains and of probes, each with its draws on resampled units.

Axis letters: p participant, s seed, l layer, r region, b bootstrap draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.mlp import MlpScores
from fastencode.study.brains.tables import Key

__all__ = [
    "BEYOND_LINEAR",
    "MLP",
    "NOBODY",
    "Cell",
    "Measurements",
    "Probed",
    "Sample",
    "measurements_of_mlp",
    "measurements_of_probes",
    "measurements_of_scores",
]

Float64 = NDArray[np.float64]

MLP, BEYOND_LINEAR = "mlp", "mlp_beyond_linear"
"""Measures of a network beside ridge: its r less that of ridge, and less that of the same network without its nonlinearity."""
NOBODY = ""
"""The participant of a model that belongs to none: its measurement stands for every participant."""


class Cell(NamedTuple):
    """What was measured.

    Attributes
    ----------
    measure : str
        "r", "r_normalized", ``MLP``, ``BEYOND_LINEAR`` or the name of a probe's task.
    model : str
        The condition: one model in one arm.
    seed : int
        Of one condition, models that differ in their seed only.
    participant : str
        ``NOBODY``: the model belongs to none, and this stands for each.
    layer : int
    region : str
        "" for probes.
    """

    measure: str
    model: str
    seed: int
    participant: str
    layer: int
    region: str = ""


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes
    ----------
    value : float
        NaN where it could not be measured.
    draws : ndarray, shape (b,)
        The same on drawn units. Equal draws of two samples of one measure took the same units: differences are paired.
    n_units : float
        Blocks of scans, speakers or utterances; where speakers have unlike numbers of recordings, as many as tell as much with
        equal ones.
    unit : str
        "blocks", "speakers" or "utterances".
    correlation : bool
        Whether ``value`` is a correlation or a mean of such.
    """

    value: float
    draws: Float64
    n_units: float
    unit: str
    correlation: bool = False


Measurements = Mapping[Cell, Sample]


class Probed(Protocol):
    """What a probe of all layers found, as far as contrasts need it.

    Attributes
    ----------
    score : ndarray, shape (l,)
    draws : ndarray, shape (l, b)
    n_effective : float
    unit : str
    """

    @property
    def score(self) -> NDArray[Any]: ...
    @property
    def draws(self) -> NDArray[Any]: ...
    @property
    def n_effective(self) -> float: ...
    @property
    def unit(self) -> str: ...


def measurements_of_scores(
    scored: Mapping[Key, LayerScores],
    columns: Mapping[str, Iterable[str]],
    conditions: Mapping[str, tuple[str, int]] | None = None,
) -> dict[Cell, Sample]:
    """Scores of layers in brains, as "r" and, where there are ceilings, "r_normalized".

    Parameters
    ----------
    scored : (label, participant, layer) → LayerScores
    columns : participant → its regions
        Scores hold regions in this order.
    conditions : label's name → (condition, seed), optional
        For example ``{"tuned-2": ("tuned", 2)}``. A name that is missing is a condition of its own, with seed 0.

    Raises
    ------
    InputError
        If two labels are one condition, seed, participant and layer: the same model at other delays.
    """
    found: dict[Cell, Sample] = {}
    for (label, who, layer), scores in scored.items():
        model, seed = (conditions or {}).get(label.name, (label.name, 0))
        n_blocks = float(scores.n_blocks)
        for place, region in enumerate(columns[who]):
            cell = Cell("r", model, seed, who, layer, region)
            if cell in found:
                raise InputError(
                    f"{model!r}, seed {seed}, layer {layer} of {who!r} was scored twice, as with several delays: name each"
                    " by itself in conditions"
                )
            found[cell] = Sample(float(scores.region[place]), scores.draws[:, place], n_blocks, "blocks", True)
            if np.isfinite(normalized := float(scores.region_normalized[place])):
                draws_b = scores.draws_normalized[:, place]
                found[cell._replace(measure="r_normalized")] = Sample(normalized, draws_b, n_blocks, "blocks")
    return found


def measurements_of_mlp(
    found: Mapping[Key, MlpScores],
    columns: Mapping[str, Iterable[str]],
    conditions: Mapping[str, tuple[str, int]] | None = None,
) -> dict[Cell, Sample]:
    """What a network gains over ridge and, where it was asked for, over itself without its nonlinearity.

    Parameters
    ----------
    found : (label, participant, layer) → MlpScores
    columns, conditions
        As for :func:`measurements_of_scores`.

    Returns
    -------
    Cell → Sample
        ``MLP`` and ``BEYOND_LINEAR``. Each draw took the same blocks of scans for both.
    """
    cells: dict[Cell, Sample] = {}
    for (label, who, layer), scores in found.items():
        model, seed = (conditions or {}).get(label.name, (label.name, 0))
        for place, region in enumerate(columns[who]):
            for measure, other, against in ((MLP, scores.ridge, 0), (BEYOND_LINEAR, scores.linear, 2)):
                value = float(scores.mlp[place] - other[place])
                if np.isfinite(value):
                    draws_b = scores.draws[:, 1, place] - scores.draws[:, against, place]
                    cells[Cell(measure, model, seed, who, layer, region)] = Sample(
                        value, draws_b, float(scores.n_blocks), "blocks"
                    )
    return cells


def measurements_of_probes(results: Mapping[tuple[str, str, str, int], Probed]) -> dict[Cell, Sample]:
    """Scores of probes of every layer; the name of the task is the measure.

    Parameters
    ----------
    results : (task, model, participant, seed) → what was found
        Participant "" for a model that belongs to none.
    """
    return {
        Cell(task, model, seed, who, layer): Sample(float(score), np.asarray(draws_b), float(one.n_effective), one.unit)
        for (task, model, who, seed), one in results.items()
        for layer, (score, draws_b) in enumerate(zip(one.score, one.draws, strict=True))
    }
