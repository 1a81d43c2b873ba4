"""Settings of ridge over layers and of its statistics. Imports nothing but the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastencode.errors import InputError

__all__ = ["CPU", "WHOLE", "AlignConfig", "MlpConfig", "Resources"]

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
class MlpConfig:
    """A network with one hidden layer that learns what a ridge leaves over: see :mod:`fastencode.study.mlp`.

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
