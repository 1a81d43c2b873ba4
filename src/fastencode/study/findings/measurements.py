"""All measurements of a study in one format: scores of encoding models and of probes, each with bootstrap draws.

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
"""Measures of a network: its r minus that of ridge, and its r minus that of the same network without activation function."""
NOBODY = ""
"""``participant`` of a model that was not tuned on a participant; its measurement is used for every participant."""


class Cell(NamedTuple):
    """Identifies a measurement.

    Attributes
    ----------
    measure : str
        "r", "r_normalized", ``MLP``, ``BEYOND_LINEAR`` or the name of a probe's task.
    model : str
        The condition: one model in one arm.
    seed : int
        Tells apart the models of one condition.
    participant : str
        Whose responses were predicted, or on whom the probed model was tuned; ``NOBODY`` if the model belongs to no participant.
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
        NaN if it could not be measured.
    draws : ndarray, shape (b,)
        The value on resampled units. Draw i of every sample of a measure resamples the same units, so that differences are
        paired.
    n_units : float
        Number of blocks of scans, speakers or utterances. If speakers have different numbers of recordings, the effective number
        of equal ones.
    unit : str
        "blocks", "speakers" or "utterances".
    correlation : bool
        Whether ``value`` is a correlation or a mean of correlations.
    """

    value: float
    draws: Float64
    n_units: float
    unit: str
    correlation: bool = False


Measurements = Mapping[Cell, Sample]


class Probed(Protocol):
    """The part of :class:`fastencode.study.probes.ProbeResult` that contrasts use.

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
    """Scores of encoding models as measurements "r" and, if noise ceilings are known, "r_normalized".

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
        If two labels are the same condition, seed, participant and layer, for example one model at several delays.
    """
    found: dict[Cell, Sample] = {}
    for (label, who, layer), scores in scored.items():
        model, seed = (conditions or {}).get(label.name, (label.name, 0))
        n_blocks = float(scores.n_blocks)
        for place, region in enumerate(columns[who]):
            cell = Cell("r", model, seed, who, layer, region)
            if cell in found:
                raise InputError(
                    f"{model!r}, seed {seed}, layer {layer} of {who!r} was scored twice, perhaps at several delays: give"
                    " each a condition of its own"
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
    """Gains of networks over ridge, and over the same network without activation function if that was fitted.

    Parameters
    ----------
    found : (label, participant, layer) → MlpScores
    columns, conditions
        As for :func:`measurements_of_scores`.

    Returns
    -------
    Cell → Sample
        Measures ``MLP`` and ``BEYOND_LINEAR``.
    """
    cells: dict[Cell, Sample] = {}
    for (label, who, layer), scores in found.items():
        model, seed = (conditions or {}).get(label.name, (label.name, 0))
        for place, region in enumerate(columns[who]):
            for measure, over in ((MLP, "ridge"), (BEYOND_LINEAR, "linear")):
                value, draws_b = scores.gain(over, place)
                if np.isfinite(value):
                    cells[Cell(measure, model, seed, who, layer, region)] = Sample(
                        value, draws_b, float(scores.n_blocks), "blocks"
                    )
    return cells


def measurements_of_probes(results: Mapping[tuple[str, str, str, int], Probed]) -> dict[Cell, Sample]:
    """Scores of probes as measurements, one per layer; the measure is the name of the task.

    Parameters
    ----------
    results : (task, model, participant, seed) → result of the probe
        Participant "" for a model that belongs to no participant.
    """
    return {
        Cell(task, model, seed, who, layer): Sample(float(score), np.asarray(draws_b), float(one.n_effective), one.unit)
        for (task, model, who, seed), one in results.items()
        for layer, (score, draws_b) in enumerate(zip(one.score, one.draws, strict=True))
    }
