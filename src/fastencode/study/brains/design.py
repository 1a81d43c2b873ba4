"""Designs: features of runs at their scans, z-scored and delayed within each run, and the ridge plan of one layer.

Nothing is read or planned before a fit asks for it, and then once for all participants who heard the same runs. Only designs
without one of the runs are read and planned anew for each participant.

Axis letters: t scan row, d feature, p column of a design, q column of another.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastencode.delayed import Delayed, Matrix, pick
from fastencode.errors import FastencodeWarning
from fastencode.solve.ridge import plan_ridge
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.study.brains.sources import LowLevel, Source
from fastencode.study.config import CPU, AlignConfig, Resources
from fastencode.timing.clean import zscore
from fastencode.timing.delays import delay

__all__ = ["Design", "Variant", "plan_runs", "without"]


@dataclass(frozen=True)
class Variant:
    """One way to score a source: with which delays (in TRs), and less which low-level features."""

    source: Source
    delays: tuple[int, ...]
    nuisance: tuple[LowLevel, ...] = ()

    @property
    def name(self) -> str:
        """What tables call it; delays have a column of their own."""
        less = f" less {'+'.join(source.name for source in self.nuisance)}" if self.nuisance else ""
        return f"{self.source.name}{less}"

    @property
    def plain(self) -> bool:
        """Whether it is a model's layer, with nothing taken out."""
        return not isinstance(self.source, LowLevel) and not self.nuisance

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return f"{self.name} at {' '.join(map(str, self.delays))}".replace(" ", "-")


class Design:
    """The design of one layer over some stories, and its ridge plan.

    Parameters
    ----------
    variant : Variant
        Its low-level features, at the delays of ``config``, are taken out of the delayed features, as far as a ridge on the fit
        rows predicts them: see :func:`without`.
    layer : int
    fit : sequence of str
        The stories to fit on.
    tests : sequence of (str, slice)
        The stories to score on, and their rows.
    config : AlignConfig
    resources : Resources
        What the plan is made, and responses are fitted with. Kept as an attribute.
    kept : run → bool, shape (rows,), optional
        Rows that count, where some are censored. The others are left out after features were z-scored and delayed.
    """

    def __init__(
        self,
        variant: Variant,
        layer: int,
        fit: Sequence[str],
        tests: Sequence[tuple[str, slice]],
        config: AlignConfig,
        resources: Resources = CPU,
        kept: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        self._variant, self._layer, self._fit, self._tests = variant, layer, fit, tests
        self._config, self.resources, self._kept = config, resources, kept or {}

    @cached_property
    def _rows(self) -> tuple[Matrix, NDArray[np.intp]]:
        """X of the fit rows with that of the test rows below, and the run of each fit row."""
        X, labels = self._delayed(self._variant.source, self._layer, self._variant.delays)
        if not self._variant.nuisance:
            return X, labels
        known = [self._delayed(source, 0, self._config.delays)[0] for source in self._variant.nuisance]
        return without(X, Delayed.side_by_side(known), labels, self._config, self.resources), labels

    @property
    def matrices(self) -> tuple[Matrix, Matrix, NDArray[np.intp]]:
        """X of the fit rows, X of the test rows, and the run of each fit row."""
        X, labels = self._rows
        return pick(X, slice(0, len(labels))), pick(X, slice(len(labels), None)), labels

    @cached_property
    def plan(self) -> RidgePlan:
        """One for every participant who heard these stories."""
        X, _, labels = self.matrices
        return plan_runs(X, labels, self._config, self.resources)

    def left_out(self) -> Iterator[tuple[NDArray[np.intp], Design]]:
        """For each story that is fitted on: its rows among the fit rows, and the design of all others that is scored on it."""
        labels = self.matrices[2]
        for place, story in enumerate(self._fit):
            others = [other for other in self._fit if other != story]
            test = [(story, slice(None))]
            part = Design(self._variant, self._layer, others, test, self._config, self.resources, self._kept)
            yield np.flatnonzero(labels == place), part

    def bands(self, others: Sequence[Source]) -> dict[str, Matrix]:
        """X of the layer and of each of the others, fit rows and test rows, by name."""
        found = {self._variant.name: self._rows[0]}
        return found | {source.name: self._delayed(source, 0, self._config.delays)[0] for source in others}

    def _delayed(self, source: Source, layer: int, delays: tuple[int, ...]) -> tuple[Delayed, NDArray[np.intp]]:
        """Delayed features of the fit rows and of the rows that are scored, and the run of each fit row."""
        used = [*((story, slice(None)) for story in self._fit), *self._tests]
        parts = [source.rows(story, layer) for story, _ in used]
        lengths = [len(part) for part in parts]
        labels = np.repeat(np.arange(len(parts)), lengths)
        rows = np.split(np.arange(len(labels)), np.cumsum(lengths)[:-1])
        taken = [of[part][self._counts(story, part)] for of, (story, part) in zip(rows, used, strict=True)]
        n_fit = sum(map(len, taken[: len(self._fit)]))
        chosen = np.concatenate(taken)
        return _delayed(np.concatenate(parts), labels, delays).take(chosen), labels[chosen[:n_fit]]

    def _counts(self, story: str, rows: slice) -> NDArray[np.bool_] | slice:
        """Which of some rows of a run count."""
        return self._kept[story][rows] if story in self._kept else slice(None)


def _delayed(features_td: np.ndarray, labels: np.ndarray, delays: tuple[int, ...]) -> Delayed:
    """Features at scan times, z-scored and delayed within each run, (t, d) → (t, d × delays), copies not made."""
    found: Delayed = delay(zscore(features_td, runs=labels), delays, runs=labels, copy=False)
    return found


def plan_runs(X: Matrix, labels: np.ndarray, config: AlignConfig, resources: Resources = CPU) -> RidgePlan:
    """The ridge plan of a design, cross-validated over whole runs; over contiguous blocks where there is one run only.

    Parameters
    ----------
    X : ndarray or Delayed, shape (t, p)
    labels : ndarray, shape (t,)
        The run of each row.
    config : AlignConfig
    resources : Resources
    """
    n_runs = len(np.unique(labels))
    return plan_ridge(
        X,
        alphas=config.alphas,
        cv=config.folds_of(n_runs),
        runs=labels if n_runs >= 2 else None,
        device=resources.device,
        memory=resources.memory,
    )


def without(
    X: Matrix, nuisance: Matrix, labels: NDArray[np.intp], config: AlignConfig, resources: Resources = CPU
) -> NDArray[np.float32]:
    """Features less what other features predict of them, by a ridge fitted on the fit rows only.

    Parameters
    ----------
    X : ndarray or Delayed, shape (t, p)
        Of the fit runs, then of the test run.
    nuisance : ndarray or Delayed, shape (t, q)
        What is to be taken out, such as word rate and spectrum, at the same rows.
    labels : ndarray, shape (t,)
        The run of each fit row.
    config : AlignConfig
        Its penalties and folds are used for this ridge too; each column of X has the penalty with the best held-out R².
    resources : Resources

    Returns
    -------
    ndarray, shape (t, p)
        Always a dense array: residuals of delayed copies are no longer copies of one another.

    Notes
    -----
    A ridge takes out what it predicts. What is left is not orthogonal to the nuisance features, as the residuals of least squares
    would be, and a column that they do not predict on held-out runs keeps nearly all of itself.
    """
    X_tp = np.asarray(X)
    with warnings.catch_warnings():  # features that nothing predicts end at the largest penalty, rightly
        warnings.simplefilter("ignore", FastencodeWarning)
        fit = plan_runs(pick(nuisance, slice(0, len(labels))), labels, config, resources).fit(X_tp[: len(labels)])
    return np.asarray(X_tp - fit.predict(nuisance))
