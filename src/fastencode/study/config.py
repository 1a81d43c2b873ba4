"""Settings of ridge over layers, of its statistics and of what is asked of them. Imports nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastencode.errors import InputError, suggestion

__all__ = ["CPU", "DEPTHS", "WHOLE", "AlignConfig", "Contrast", "MlpConfig", "Resources"]

DEPTHS = ("early", "middle", "late", "all")
"""Names of sets of layers: thirds, as :func:`fastencode.study.findings.verdicts.layer_thirds` cuts them, and all."""

WHOLE = "all"
"""The region of every voxel that is mapped."""


@dataclass(frozen=True)
class Resources:
    """What ridges are computed with; no part of what is asked.

    A card adds in another order than a processor: weights and scores agree to rounding, and where two penalties score alike to
    within the solver's tie of 1e-6 the other one may be chosen. Memory changes results by as much, if it changes how the solver
    goes about it. Both are far below what any table shows, so what was finished with other resources stays finished.

    Attributes
    ----------
    device : str, optional
        "cuda" or such as "cuda:1"; the CPU by default.
    memory : str, optional
        The solver's working memory, such as "4GB", as ``memory=`` of :func:`fastencode.ridge_cv`.
    """

    device: str | None = None
    memory: str | None = None


CPU = Resources()
"""All processors and as much memory as the solver finds useful."""


@dataclass(frozen=True)
class AlignConfig:
    """How features are related to responses.

    Attributes
    ----------
    delays : tuple of int
        FIR delays in TRs.
    alphas : tuple of float
        Ridge penalties (weight on ‖b‖²), chosen per voxel.
    folds : int
        Cross-validation folds of whole runs; of contiguous blocks where there is one run only.
    lobes : int
        Lobes of the Lanczos kernel; its cutoff is half the scan rate.
    bootstraps : int
        Draws of the block bootstrap over the test rows.
    block : int
        Rows in a block, of the bootstrap and of the permutations. None: as many as the autocorrelation of the test responses asks
        for.
    seed : int
        Seed of the bootstrap, of the permutations and of the search for weights of bands.
    """

    delays: tuple[int, ...] = (1, 2, 3, 4)
    alphas: tuple[float, ...] = tuple(10 ** (k / 2) for k in range(13))
    folds: int = 4
    lobes: int = 3
    bootstraps: int = 1000
    block: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("lobes", 1), ("bootstraps", 2), ("seed", 0)):
            if not getattr(self, name) >= least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.block is not None and self.block < 1:
            raise InputError(f"block must be at least 1, or None, got {self.block}")
        if not self.delays or not self.alphas:
            raise InputError("give at least one delay and one alpha")
        if wrong := [alpha for alpha in self.alphas if not 0 < alpha < float("inf")]:
            raise InputError(f"alphas holds {wrong[0]}; every penalty must be positive and finite")

    @property
    def ridge(self) -> dict[str, Any]:
        """The settings that weights and predictions depend on."""
        return {"delays": self.delays, "alphas": self.alphas, "folds": self.folds, "lobes": self.lobes}

    def folds_of(self, n_runs: int) -> int:
        """Folds of a ridge on so many runs: of whole runs where there are several, at most one for each."""
        return min(self.folds, n_runs) if n_runs >= 2 else self.folds


@dataclass(frozen=True)
class Contrast:
    """One number that is asked for: a weighted sum over models and layers of one measure; and what it is expected to be.

    Parameters
    ----------
    name : str
        What tables call it; each of a study has another.
    measure : str
        "r", "r_normalized" (divided by noise ceilings), or the name of a probe's task; "mlp", r of a network with a hidden layer
        less r of ridge, and "mlp_beyond_linear", less r of the same network without its nonlinearity.
    models : mapping of str to float
        Weight of each condition: ``{tuned: 1, pretrained: -1}``. The first one is in question; a ``control`` takes its place.
    layers : str, list of int, or mapping of str to float
        "early", "middle", "late", "all"; layer numbers; or weights of such names: ``{late: 1, middle: -1}``. The mean over the
        layers of a name is weighted, so that names of few and of many layers count alike.
    region : str or list of str
        The mean over several; "" for probes.
    statement : str
        What is expected, as a sentence; needed where ``expect`` is given.
    expect : {"above", "below", "within"}, optional
        Above or below ``limit``, or between −``limit`` and ``limit``. None: nothing; the number stands in the table.
    limit : float
        In the unit of the measure.
    family : str, optional
        Contrasts of one family are decided together: that any of their answers is wrong has a chance of 5 % at most (Holm).
    control : str, optional
        A condition that must not show the same: "yes" needs the first of ``models`` to differ from it, too.
    unit : {"auto", "participants", "blocks"}
        What varies from sample to sample: "participants", where there are enough; "blocks" of scans, or speakers of a probe.
        "auto": participants where there are five or more.

    Raises
    ------
    InputError
        Naming the contrast and the setting that is wrong.
    """

    name: str
    measure: str
    models: Mapping[str, float]
    layers: str | list[int] | Mapping[str, float] = "late"
    region: str | list[str] = ""
    statement: str = ""
    expect: str | None = None
    limit: float = 0.0
    family: str | None = None
    control: str | None = None
    unit: str = "auto"

    def __post_init__(self) -> None:
        for setting in ("name", "measure"):
            if not isinstance(getattr(self, setting), str) or not getattr(self, setting).strip():
                raise InputError(f"a contrast needs its {setting} in words, got {getattr(self, setting)!r}")
        self._check_weights("models", self.models)
        self._check_layers()
        regions = self.regions
        if not regions or not all(isinstance(one, str) for one in regions) or len(set(regions)) < len(regions):
            raise self._wrong("region", self.region, "give the name of a region, or a list of different names")
        self._choose("expect", self.expect, ("above", "below", "within"), optional=True)
        self._choose("unit", self.unit, ("auto", "participants", "blocks"))
        if not _number(self.limit):
            raise self._wrong("limit", self.limit, "give a finite number")
        if self.expect == "within" and self.limit <= 0:
            raise self._wrong(
                "limit", self.limit, 'expect: within needs a positive one, for example 0.02 for "between −.02 and .02"'
            )
        if self.expect is not None and not self.statement.strip():
            raise self._wrong("statement", self.statement, "say in a sentence what is expected, before it is measured")
        if self.control is not None and (not self.control or self.control in self.models):
            raise self._wrong("control", self.control, "name a condition that is none of its models")
        if self.family is not None and not self.family.strip():
            raise self._wrong("family", self.family, "name the family, or leave it out for a contrast that stands alone")

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions whose mean is taken."""
        return (self.region,) if isinstance(self.region, str) else tuple(self.region)

    @property
    def depths(self) -> Mapping[str, float]:
        """Weights of names of layers; empty where layers are given by number."""
        if isinstance(self.layers, str):
            return {self.layers: 1.0}
        return self.layers if isinstance(self.layers, Mapping) else {}

    @property
    def single(self) -> bool:
        """Whether it is a mean of scores, not a difference: one model and one set of layers, both of weight 1."""
        return [*self.models.values()] == [1] and [*self.depths.values()] in ([], [1])

    def _wrong(self, setting: str, value: Any, step: str) -> InputError:
        return InputError(f"contrast {self.name!r}: {setting} is {value!r}; {step}")

    def _choose(self, setting: str, value: Any, known: tuple[str, ...], *, optional: bool = False) -> None:
        if not (value is None and optional) and value not in known:
            raise self._wrong(setting, value, suggestion(value, known))

    def _check_weights(self, setting: str, weights: Any) -> None:
        if not isinstance(weights, Mapping) or not weights:
            raise self._wrong(setting, weights, "give a weight for each name, for example {tuned: 1, pretrained: -1}")
        for name, weight in weights.items():
            if not isinstance(name, str) or not name or not _number(weight) or weight == 0:
                raise self._wrong(setting, dict(weights), f"the weight of {name!r} must be a number other than 0")

    def _check_layers(self) -> None:
        if isinstance(self.layers, str | Mapping):
            if isinstance(self.layers, Mapping):
                self._check_weights("layers", self.layers)
            for depth in self.depths:
                self._choose("layers", depth, DEPTHS)
            return
        given = self.layers if isinstance(self.layers, list | tuple) else []
        whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in given)
        if not given or not whole or len(set(given)) < len(given):
            raise self._wrong("layers", self.layers, f"give different layer numbers from 0 on, or names: {', '.join(DEPTHS)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class MlpConfig:
    """A network with one hidden layer that learns what a ridge leaves over: see :mod:`fastencode.study.brains.mlp`.

    Attributes
    ----------
    hidden, weight_decays : tuple
        Sizes of the hidden layer, and AdamW's decay: every pair is tried, and one chosen on rows of the fit runs.
    held_out : float
        Share of the fit rows that settings and the number of epochs are chosen on: whole runs, the last of them; of one run its
        end.
    learning_rate : float
        Of AdamW, constant.
    batch : int
        Rows of an update.
    epochs : int
        The most passes over the rows.
    patience : int
        Training ends after so many epochs without a better score. A network often gets worse before it is better than ridge.
    seeds : tuple of int
        Each is a network of its own; scores are averaged.
    linear : bool
        Train the same network without its nonlinearity, too. What this one gains over ridge is no nonlinearity: voxels share the
        hidden layer, and a ridge shrinks.
    """

    hidden: tuple[int, ...] = (32, 128)
    weight_decays: tuple[float, ...] = (0.01, 0.1)
    held_out: float = 0.2
    learning_rate: float = 1e-3
    batch: int = 128
    epochs: int = 100
    patience: int = 10
    seeds: tuple[int, ...] = (0,)
    linear: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden", "weight_decays", "seeds"):
            if not getattr(self, name) or len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)}: give at least one, and none twice")
        for name, least in (("batch", 1), ("epochs", 1), ("patience", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if wrong := [size for size in self.hidden if size < 1]:
            raise InputError(f"hidden holds {wrong[0]}: a layer has at least one unit")
        if bad := [decay for decay in self.weight_decays if not 0 <= decay < float("inf")]:
            raise InputError(f"weight_decays holds {bad[0]}: give 0 or more")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out must lie between 0 and 1, got {self.held_out}")

    @property
    def n_settings(self) -> int:
        """How many settings are tried."""
        return len(self.hidden) * len(self.weight_decays)
