"""Settings of encoding models, their statistics, contrasts and networks. Imports only the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastencode.errors import InputError, suggestion

__all__ = ["CPU", "DEPTHS", "WHOLE", "AlignConfig", "Contrast", "MlpConfig", "Resources"]

DEPTHS = ("early", "middle", "late", "all")
"""Names of sets of layers: all, and thirds as :func:`fastencode.study.findings.verdicts.layer_thirds` defines them."""

WHOLE = "all"
"""Name of the region with all voxels that are scored."""


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
    """A weighted sum of one measure over models, layers and regions, and what is expected of it.

    Parameters
    ----------
    name : str
        Name in tables, unique in a study.
    measure : str
        "r"; "r_normalized" (r / noise ceiling); "r_residual" (r after low-level features were regressed out of the layers); the
        name of a probe task; "mlp" (r of a network with a hidden layer − r of ridge); or "mlp_beyond_linear" (r of the network −
        r of the same network without activation function).
    models : mapping of str to float
        Condition → weight, such as ``{tuned: 1, pretrained: -1}``. The first condition is the one that ``control`` is compared
        with.
    layers : str, list of int, or mapping of str to float
        "early", "middle", "late" or "all"; layer numbers; or weights of these names, such as ``{late: 1, middle: -1}``. Layers
        are averaged within each name before they are weighted.
    region : str or list of str
        Several regions are averaged; "" for probes.
    statement : str
        The expectation as a sentence; required if ``expect`` is given.
    expect : {"above", "below", "within"}, optional
        Whether the interval should lie above ``limit``, below it, or between −``limit`` and ``limit``. None: no expectation; the
        value is only reported.
    limit : float
        In units of the measure.
    family : str, optional
        Contrasts of one family are corrected for multiple comparisons (Holm): the probability of any wrong answer is at most 5 %.
    control : str, optional
        A condition that must not show the same effect: "yes" also requires that the first of ``models`` differs from it.
    unit : {"auto", "participants", "blocks"}
        Unit of the interval: "participants", or "blocks" of scans (for probes, speakers). "auto": participants if there are five
        or more, else blocks.

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
        """The regions that are averaged."""
        return (self.region,) if isinstance(self.region, str) else tuple(self.region)

    @property
    def depths(self) -> Mapping[str, float]:
        """Name of a set of layers → weight; empty if layers are given by number."""
        if isinstance(self.layers, str):
            return {self.layers: 1.0}
        return self.layers if isinstance(self.layers, Mapping) else {}

    @property
    def single(self) -> bool:
        """Whether it is a mean of scores rather than a difference: one model and one set of layers, both with weight 1."""
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
    """A network with one hidden layer that is fitted to the residuals of ridge: see :mod:`fastencode.study.brains.mlp`.

    Attributes
    ----------
    hidden, weight_decays : tuple
        Sizes of the hidden layer, and weight decays of AdamW. All pairs are tried, and one is chosen on held-out fit rows.
    held_out : float
        Share of the fit rows on which settings and number of epochs are chosen: the last whole runs, or the end of a single run.
    learning_rate : float
        Constant learning rate of AdamW.
    batch : int
        Rows per update.
    epochs : int
        Largest number of epochs.
    patience : int
        Training ends after this many epochs without a better score. A network is often worse than ridge at first.
    seeds : tuple of int
        One network per seed; scores are averaged.
    linear : bool
        Also train the same network without activation function. Its gain over ridge is not evidence of nonlinearity: it comes
        from the hidden layer that voxels share, and from less shrinkage.
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
        """Number of settings that are tried."""
        return len(self.hidden) * len(self.weight_decays)
