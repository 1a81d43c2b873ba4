"""Contrasts as weighted sums of measurements, for each participant and bootstrap draw; and checks of the names in contrasts.

Axis letters: p participant, s seed, b bootstrap draw.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError, suggestion
from fastencode.study.config import Contrast
from fastencode.study.findings.measurements import NOBODY, Measurements, Sample
from fastencode.study.findings.verdicts import layer_thirds
from fastencode.study.inference.intervals import without_rounding

__all__ = [
    "Layers",
    "Planned",
    "Tested",
    "contrast_problems",
    "in_place_of",
    "layers_of",
    "layers_of_measure",
    "planned_of",
    "tested",
    "weights_of",
]

Float64 = NDArray[np.float64]

Layers = int | Mapping[str, int | Iterable[int]]
"""Number of layers of every model; or condition → number of layers, or their numbers."""


class Planned(NamedTuple):
    """The conditions, regions and layers of one measure.

    Attributes
    ----------
    models : collection of str
        Conditions.
    regions : collection of str
        "" for a probe.
    layers : condition → layers, optional
        If the measure exists for some layers only; these are then divided into thirds.
    """

    models: Collection[str]
    regions: Collection[str]
    layers: Mapping[str, Collection[int]] | None = None


class Place(NamedTuple):
    """A term of a weighted sum."""

    model: str
    layer: int
    region: str


@dataclass(frozen=True)
class Tested:
    """One contrast, computed for each participant.

    Attributes
    ----------
    people : tuple of str
        Participants with all measurements; ``(NOBODY,)`` if no model belongs to a participant.
    values : ndarray, shape (p,)
        The contrast, with each condition averaged over seeds.
    draws : ndarray, shape (p, b)
    n_units : ndarray, shape (p,)
    unit : str
        "blocks", "speakers" or "utterances".
    correlation : bool
        Whether ``values`` are means of correlations.
    seeds : tuple of int
        Seeds that all conditions with several seeds have in all participants.
    by_seed : ndarray, shape (p, s)
        The contrast for each of these seeds; conditions with a single seed are the same in all.
    draws_by_seed : ndarray, shape (p, s, b)
    of_seeds : condition → (variance, seeds)
        How far each condition's part of the contrast, the mean over people, varies from seed to seed, and of how many seeds; NaN
        where there is one.
    left_out : participant → why
    """

    people: tuple[str, ...]
    values: Float64
    draws: Float64
    n_units: Float64
    unit: str
    correlation: bool
    seeds: tuple[int, ...]
    by_seed: Float64
    draws_by_seed: Float64
    of_seeds: Mapping[str, tuple[float, int]]
    left_out: Mapping[str, str]


def planned_of(measurements: Measurements) -> dict[str, Planned]:
    """The conditions and regions of each measure that have measurements."""
    return {
        measure: Planned(
            list(dict.fromkeys(cell.model for cell in measurements if cell.measure == measure)),
            list(dict.fromkeys(cell.region for cell in measurements if cell.measure == measure)),
        )
        for measure in dict.fromkeys(cell.measure for cell in measurements)
    }


def layers_of(n_layers: Layers, model: str) -> list[int]:
    """The layers of one model, in order."""
    if isinstance(n_layers, Mapping):
        if model not in n_layers:
            raise InputError(f"n_layers has no entry {model!r}; {suggestion(model, n_layers)}")
        found = n_layers[model]
    else:
        found = n_layers
    layers = list(range(found)) if isinstance(found, int | np.integer) else sorted({*found})
    if not layers:
        raise InputError(f"n_layers has no layers for {model!r}: give their number, or a list")
    return layers


def layers_of_measure(planned: Mapping[str, Planned], measure: str, n_layers: Layers) -> Layers:
    """The layers of a measure: those of its plan, or ``n_layers``."""
    return (planned[measure].layers if measure in planned else None) or n_layers


def _layers_at(contrast: Contrast, layers: Sequence[int], model: str) -> dict[int, float]:
    """Layer → weight, for one model. The only layer of a model, such as MFCCs, is used for every depth."""
    if not contrast.depths:
        assert not isinstance(contrast.layers, str | Mapping)
        if missing := [layer for layer in contrast.layers if layer not in layers]:
            raise InputError(f"layer {missing[0]} of {model!r} is not measured: choose from {_listed(layers)}")
        return dict.fromkeys(contrast.layers, 1 / len(contrast.layers))
    weights: dict[int, float] = {}
    thirds = {**layer_thirds(layers), "all": list(layers)}
    for depth, weight in contrast.depths.items():
        chosen = thirds.get("only", thirds.get(depth))
        if chosen is None:
            raise InputError(f"{model!r} has {len(layers)} layers, and none of them is in the {depth} third: give layer numbers")
        for layer in chosen:
            weights[layer] = weights.get(layer, 0.0) + weight / len(chosen)
    return weights


def weights_of(contrast: Contrast, n_layers: Layers) -> dict[Place, float]:
    """Measurement → weight, in the order of the contrast's models, layers and regions."""
    return {
        Place(model, layer, region): at_model * at_layer / len(contrast.regions)
        for model, at_model in contrast.models.items()
        for layer, at_layer in _layers_at(contrast, layers_of(n_layers, model), model).items()
        for region in contrast.regions
    }


def in_place_of(contrast: Contrast) -> tuple[Contrast, Contrast]:
    """Two contrasts that add up to the given one: with the control in place of the first model, and first model − control."""
    assert contrast.control is not None
    first, weight = next(iter(contrast.models.items()))
    others = {model: other for model, other in contrast.models.items() if model != first}
    alone = replace(contrast, control=None)
    return replace(alone, models={contrast.control: weight, **others}), replace(
        alone, models={first: weight, contrast.control: -weight}
    )


def contrast_problems(contrasts: Sequence[Contrast], planned: Mapping[str, Planned], n_layers: Layers) -> list[str]:
    """One line for each name in contrasts that is not measured, with a suggestion.

    Parameters
    ----------
    contrasts : sequence of Contrast
    planned : measure → Planned
        What is measured, or will be measured.
    n_layers : int, or mapping of condition to int or to layers
    """
    names = [contrast.name for contrast in contrasts]
    problems = [f"two contrasts are called {name!r}: tables need a name for each" for name in names if names.count(name) > 1]
    for contrast in contrasts:
        problems += [f"contrast {contrast.name!r}: {problem}" for problem in _problems(contrast, planned, n_layers)]
    return list(dict.fromkeys(problems))


def _problems(contrast: Contrast, planned: Mapping[str, Planned], n_layers: Layers) -> list[str]:
    if contrast.measure not in planned:
        return [f"{contrast.measure!r} is not measured; {suggestion(contrast.measure, planned)}"]
    known, found = planned[contrast.measure], []
    n_layers = layers_of_measure(planned, contrast.measure, n_layers)
    models = [*contrast.models, *([] if contrast.control is None else [contrast.control])]
    for kind, wanted, names in (("condition", models, known.models), ("region", contrast.regions, known.regions)):
        for one in wanted:
            if one not in names:
                found.append(f"there is no {kind} {one!r} in {contrast.measure!r}; {suggestion(one, names)}")
    for model in models:
        if model in known.models:
            try:
                _layers_at(contrast, layers_of(n_layers, model), model)
            except InputError as error:
                found.append(str(error))
    return found


def _listed(layers: Sequence[int]) -> str:
    return (
        f"{layers[0]} to {layers[-1]}" if list(layers) == list(range(layers[0], layers[-1] + 1)) else ", ".join(map(str, layers))
    )


def tested(measurements: Measurements, measure: str, sums: Sequence[Mapping[Place, float]]) -> list[Tested]:
    """Compute weighted sums for every participant who has all measurements that any of the sums needs.

    Parameters
    ----------
    measurements : Cell → Sample
    measure : str
    sums : sequence of (Place → weight)

    Returns
    -------
    list of Tested
        One per sum, all for the same participants. Without participants if each lacks a measurement.

    Raises
    ------
    InputError
        If samples cannot be paired: they differ in their units, number of draws, or number of units in a participant.
    """
    places = list(dict.fromkeys(place for one in sums for place in one))
    models, people = {place.model for place in places}, dict[str, None]()
    found: dict[Place, dict[str, dict[int, Sample]]] = {place: {} for place in places}
    for cell, sample in measurements.items():
        if cell.measure == measure and cell.model in models and cell.participant != NOBODY:
            people[cell.participant] = None
        place = Place(cell.model, cell.layer, cell.region)
        if cell.measure == measure and place in found and math.isfinite(sample.value):
            found[place].setdefault(cell.participant, {})[cell.seed] = sample
    seeded: dict[str, dict[Place, dict[int, Sample]]] = {}
    left_out = {}
    for who in people or [NOBODY]:
        each = {place: found[place].get(who) or found[place].get(NOBODY, {}) for place in places}
        each = _common_seeds(each)
        if missing := [place for place, seeds in each.items() if not seeds]:
            model, layer, region = missing[0]
            left_out[who] = f"{model}, layer {layer}" + (f", {region}" if region else "") + " is not measured"
        else:
            seeded[who] = each
    if not seeded:
        nothing, none = np.empty(0), np.empty((0, 0))
        return [Tested((), nothing, none, nothing, "", False, (), none, np.empty((0, 0, 0)), {}, left_out) for _ in sums]
    unit = _check_paired(measure, seeded)
    seeds = _seeds_of_all(seeded)
    return [_tested(one, seeded, seeds, unit, left_out) for one in sums]


def _common_seeds(each: Mapping[Place, Mapping[int, Sample]]) -> dict[Place, dict[int, Sample]]:
    """Keep the seeds that a condition has at all its layers and regions, so that means over layers are over the same models."""
    common: dict[str, set[int]] = {}
    for place, seeds in each.items():
        common[place.model] = common.get(place.model, {*seeds}) & {*seeds}
    return {place: {seed: seeds[seed] for seed in sorted(common[place.model])} for place, seeds in each.items()}


def _check_paired(measure: str, seeded: Mapping[str, Mapping[Place, Mapping[int, Sample]]]) -> str:
    """The common unit of all samples. Raises :class:`InputError` if draws cannot be paired."""
    everything = [(who, place, one) for who, each in seeded.items() for place, seeds in each.items() for one in seeds.values()]
    first_of: dict[str, tuple[Place, Sample]] = {}
    _, _, first = everything[0]
    for who, place, one in everything:
        beside, other = first_of.setdefault(who, (place, one))
        same = one.unit == first.unit and len(one.draws) == len(first.draws) and math.isclose(one.n_units, other.n_units)
        if not same:
            raise InputError(
                f"{measure!r} of {place.model!r} has {len(one.draws)} draws of {one.n_units:g} {one.unit},"
                f" {beside.model!r} has {len(other.draws)} of {other.n_units:g} {other.unit}: differences need draws of the same"
                " units; score both on the same test data, with equal settings and seed"
            )
    return first.unit


def _seeds_of_all(seeded: Mapping[str, Mapping[Place, Mapping[int, Sample]]]) -> tuple[int, ...]:
    several = {place.model for each in seeded.values() for place, seeds in each.items() if len(seeds) > 1}
    sets = [{*seeds} for each in seeded.values() for place, seeds in each.items() if place.model in several]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


def _tested(
    weights: Mapping[Place, float],
    seeded: Mapping[str, Mapping[Place, Mapping[int, Sample]]],
    seeds: tuple[int, ...],
    unit: str,
    left_out: Mapping[str, str],
) -> Tested:
    n_draws = len(next(iter(next(iter(next(iter(seeded.values())).values())).values())).draws)
    shape = (len(seeded), 1 + len(seeds))
    values, draws, n_units = np.zeros(shape), np.zeros((*shape, n_draws)), np.zeros(len(seeded))
    value_sizes, draw_sizes, n_terms = np.zeros_like(values), np.zeros_like(draws), 0  # sums of absolute values, for rounding
    for row, each in enumerate(seeded.values()):
        for place, weight in weights.items():
            of_place = each[place]
            n_units[row] = next(iter(of_place.values())).n_units
            for column, seed in enumerate((None, *seeds)):
                chosen = [of_place[seed]] if seed is not None and seed in of_place and len(of_place) > 1 else [*of_place.values()]
                value = weight * np.mean([one.value for one in chosen])
                draw_b = weight * np.mean([one.draws for one in chosen], axis=0)
                values[row, column] += value
                draws[row, column] += draw_b
                value_sizes[row, column] += abs(value)
                draw_sizes[row, column] += np.abs(draw_b)
                n_terms = max(n_terms, len(weights) + len(chosen))
    values, draws = without_rounding(values, value_sizes, n_terms), without_rounding(draws, draw_sizes, n_terms)
    correlation = all(one.correlation for each in seeded.values() for place in weights for one in each[place].values())
    return Tested(
        people=tuple(seeded),
        values=values[:, 0],
        draws=draws[:, 0],
        n_units=n_units,
        unit=unit,
        correlation=correlation,
        seeds=seeds,
        by_seed=values[:, 1:],
        draws_by_seed=draws[:, 1:],
        of_seeds={model: _of_seeds(model, weights, seeded) for model in dict.fromkeys(place.model for place in weights)},
        left_out=left_out,
    )


def _of_seeds(
    model: str, weights: Mapping[Place, float], seeded: Mapping[str, Mapping[Place, Mapping[int, Sample]]]
) -> tuple[float, int]:
    """Variance of one condition's part of a contrast from seed to seed, and how many seeds all people have.

    As in ``mixed.components``: that of the values, less what the test data do to one seed and not to others; not below 0.
    """
    own = {place: weight for place, weight in weights.items() if place.model == model}
    seeds = sorted(set.intersection(*({*each[place]} for each in seeded.values() for place in own)))
    if len(seeds) < 2:
        return math.nan, 1
    values_s, draws_sb = [], []
    for seed in seeds:
        of_people = [[(weight, each[place][seed]) for place, weight in own.items()] for each in seeded.values()]
        values_s.append(np.mean([sum(weight * one.value for weight, one in part) for part in of_people]))
        draws_sb.append(np.mean([np.sum([weight * one.draws for weight, one in part], axis=0) for part in of_people], axis=0))
    covariance = np.cov(draws_sb) if len(draws_sb[0]) > 1 else np.zeros((len(seeds),) * 2)
    of_test = (np.trace(covariance) - (covariance.sum() - np.trace(covariance)) / (len(seeds) - 1)) / len(seeds)
    return max(0.0, float(np.var(values_s, ddof=1) - of_test)), len(seeds)
