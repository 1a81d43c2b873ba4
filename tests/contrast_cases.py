"""Measurements with made-up values and draws; and a world of responses, participants, seeds and controls: its truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastencode.study.findings.measurements import Cell, Sample
from fastencode.study.inference.significance import bootstrap_region_scores
from series_cases import autoregressive

SIGNAL = 0.45  # correlation of responses with what drives them


def world(
    rng: np.random.Generator,
    shares: Mapping[str, float],
    *,
    people: int,
    rho: float,
    seeds: Mapping[str, int] | None = None,
    spread: float = 0.0,
    alike: float = 0.5,
    one_for_all: bool = False,
    scans: int = 251,
    layers: int = 1,
    draws: int = 200,
    block: int | None = None,
) -> tuple[dict[Cell, Sample], dict[str, np.ndarray]]:
    """Responses of several people to one story, predicted by one layer or more of several models; and each one's true r.

    Parameters
    ----------
    shares : model → correlation of its predictions with what drives the region
    people, scans, draws
        How many. People are called P1, P2, …
    rho : float
        Autocorrelation at lag 1 of everything.
    seeds : model → how many, from 1 on; models that are missing have seed 0
        Seeds differ in the noise of their predictions.
    spread : float
        Standard deviation between people of each model's share, but of the first.
    alike : float
        Of what is not predicted, the share that all people's responses have in common.
    one_for_all : bool
        Whether all people's predictions are those of the same models, not each one's own.
    layers : int
        All with the same shares, and noise of their own.
    block : int, optional
        Scans in a block; by default found from the data.
    """
    measured, truth = {}, {model: np.zeros(people) for model in shares}
    drive = autoregressive(rng, scans, 1, rho)
    common = autoregressive(rng, scans, 1, rho)
    before = autoregressive(rng, scans, layers, rho)  # noise of the first model, which the others begin with
    seeds_of = {model: [0] if model not in (seeds or {}) else range(1, seeds[model] + 1) for model in shares}
    first, noises = next(iter(shares)), dict[tuple[str, int], np.ndarray]()
    for who in range(people):
        rest = np.sqrt(alike) * common + np.sqrt(1 - alike) * autoregressive(rng, scans, 3, rho)
        Y = SIGNAL * drive + np.sqrt(1 - SIGNAL**2) * rest
        predicted, names = [], []
        for model, share in shares.items():
            own = share + (0.0 if model == first else spread * rng.standard_normal())
            truth[model][who] = SIGNAL * own
            for seed in seeds_of[model]:
                if who == 0 or not one_for_all:
                    noises[model, seed] = np.sqrt(0.6) * before + np.sqrt(0.4) * autoregressive(rng, scans, layers, rho)
                noise = before if model == first else noises[model, seed]
                for layer in range(layers):
                    predicted.append(np.repeat(own * drive + np.sqrt(1 - own**2) * noise[:, [layer]], 3, axis=1))
                    names.append((model, seed, layer))
        found = bootstrap_region_scores(Y, predicted, {"region": range(3)}, n_boots=draws, random_state=0, block=block)
        for place, (model, seed, layer) in enumerate(names):
            sample = Sample(float(found.r[place, 0]), found.draws[:, place, 0], found.n_blocks, "blocks", True)
            measured[Cell("r", model, seed, f"P{who + 1}", layer, "region")] = sample
    return measured, truth


def made_up(
    rng: np.random.Generator,
    cells: Sequence[Cell],
    value: Any = None,
    *,
    draws: int = 50,
    unit: str = "blocks",
    n_units: float = 20,
) -> dict[Cell, Sample]:
    """Random values and draws; or ``value(cell)``."""
    return {
        cell: Sample(float(rng.normal(0.2, 0.05) if value is None else value(cell)), rng.normal(0.2, 0.03, draws), n_units, unit)
        for cell in cells
    }
