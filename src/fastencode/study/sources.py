"""Features of stories at their scans, from a folder of layers or from the stories themselves, and the design made of them.

Nothing is read or planned before a fit asks for it, and then once for all participants who heard the same stories.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastencode.data.stories import FIRST_ROW, Stories
from fastencode.delayed import Delayed, Matrix, pick
from fastencode.errors import InputError
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.speech.store import Features, read_features
from fastencode.study.alignment import design, plan_runs
from fastencode.study.config import AlignConfig
from fastencode.study.layer_scores import without
from fastencode.study.low_level import low_level
from fastencode.timing.lanczos import lanczos

__all__ = ["Design", "LayerFolder", "LowLevel", "Source", "Variant"]

Floats = NDArray[np.float32]


class Source(Protocol):
    """Where features come from: a ``name``, ``n_layers``, and what they are at a story's scans."""

    @property
    def name(self) -> str: ...

    @property
    def n_layers(self) -> int: ...

    def rows(self, story: str, layer: int) -> Floats:
        """(rows of the story's responses, columns)."""

    def key(self, story: str) -> Any:
        """What decides them, as JSON."""


class LayerFolder:
    """A model's layers, from the files of ``fastencode-tune features``.

    Windows are resampled with a Lanczos kernel to the middle of each scan; of clips, the one that ends with the scan is taken.

    Parameters
    ----------
    folder : Path
        Holds ``<story>.h5``.
    stories : Stories
        Says when scans were.
    lobes : int
        Of the Lanczos kernel.
    used : sequence of str
        The stories that will be asked for: they must be there, and made in one way.

    Raises
    ------
    InputError
        If a story's file is missing or not finished, files were made with different settings, clips do not end with scans, or
        features end before the last scan.

    Warns
    -----
    FastencodeWarning
        If features last longer than the story: the TR is another, or the sound another story's.
    """

    def __init__(self, folder: Path, stories: Stories, *, lobes: int, used: Sequence[str]) -> None:
        self.name = Path(os.path.abspath(folder)).name  # of ".", too
        self._folder, self._stories, self._lobes = folder, stories, lobes
        self._keys: dict[str, Any] = {}
        counts = {}
        for story in used:
            first = read_features(self._path(story), layers=(0,))
            self._keys[story], counts[story] = first.key, first.n_layers
            same = {name: value for name, value in first.key.items() if name != "audio"}
            before = {name: value for name, value in self._keys[used[0]].items() if name != "audio"}
            if same != before:
                raise InputError(
                    f"{self._path(story)} and {self._path(used[0])} were made with different settings: make one again"
                )
            self._check_times(story, first)
        self.n_layers = counts[used[0]]

    def _path(self, story: str) -> Path:
        return self._folder / f"{story}.h5"

    def key(self, story: str) -> Any:
        return self._keys[story]

    def rows(self, story: str, layer: int) -> Floats:
        found = read_features(self._path(story), layers=(layer,))
        values = np.asarray(found.values[:, 0], np.float32)
        if found.key["input"] == "window":
            return np.asarray(lanczos(values, found.times, self._stories.row_times(story, middle=True), lobes=self._lobes))
        return values[FIRST_ROW : FIRST_ROW + self._stories.n_rows(story)]

    def _check_times(self, story: str, found: Features) -> None:
        """Whether features lie at the scans of the story."""
        path, tr, middle = self._path(story), self._stories.tr, self._stories.row_times(story, middle=True)[-1]
        clips = found.key["input"] == "clip"
        if clips and found.key["tr"] != tr:
            raise InputError(f"{path} holds clips every {found.key['tr']:g} s, scans come every {tr:g} s: read them again")
        if len(found.times) < FIRST_ROW + self._stories.n_rows(story) if clips else found.times[-1] < middle:
            raise InputError(
                f"{path} ends at {found.times[-1]:g} s, before the last scan of {story} at {middle:g} s: is this the story's"
                f" sound, and {tr:g} s the TR?"
            )
        self._stories.check_length(story, float(found.times[-1]), path)


@dataclass(frozen=True)
class LowLevel:
    """One low-level feature of the stories, as a model of one layer."""

    name: str
    stories: Stories
    n_layers: int = 1

    def rows(self, story: str, layer: int) -> Floats:
        return low_level(self.stories, story, self.name)

    def key(self, story: str) -> Any:
        return {"low level": self.name}


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
        rows predicts them: see :func:`fastencode.study.layer_scores.without`.
    layer : int
    fit : sequence of str
        The stories to fit on.
    test : (str, slice)
        The story to score on, and its rows.
    config : AlignConfig
    """

    def __init__(self, variant: Variant, layer: int, fit: Sequence[str], test: tuple[str, slice], config: AlignConfig) -> None:
        self._variant, self._layer, self._fit, self._test, self._config = variant, layer, fit, test, config

    @cached_property
    def _rows(self) -> tuple[Matrix, NDArray[np.intp]]:
        """X of the fit rows with that of the test rows below, and the run of each fit row."""
        X, labels = self._delayed(self._variant.source, self._layer, self._variant.delays)
        if not self._variant.nuisance:
            return X, labels
        known = [self._delayed(source, 0, self._config.delays)[0] for source in self._variant.nuisance]
        return without(X, Delayed.side_by_side(known), labels, self._config), labels

    @property
    def matrices(self) -> tuple[Matrix, Matrix, NDArray[np.intp]]:
        """X of the fit rows, X of the test rows, and the run of each fit row."""
        X, labels = self._rows
        return pick(X, slice(0, len(labels))), pick(X, slice(len(labels), None)), labels

    @cached_property
    def plan(self) -> RidgePlan:
        """One for every participant who heard these stories."""
        X, _, labels = self.matrices
        return plan_runs(X, labels, self._config)

    def bands(self, others: Sequence[Source]) -> dict[str, Matrix]:
        """X of the layer and of each of the others, fit rows and test rows, by name."""
        found = {self._variant.name: self._rows[0]}
        return found | {source.name: self._delayed(source, 0, self._config.delays)[0] for source in others}

    def _delayed(self, source: Source, layer: int, delays: tuple[int, ...]) -> tuple[Delayed, NDArray[np.intp]]:
        """Delayed features of the fit rows and of the rows that are scored, and the run of each fit row."""
        parts = [source.rows(story, layer) for story in (*self._fit, self._test[0])]
        lengths = [len(part) for part in parts]
        labels, rows = np.repeat(np.arange(len(parts)), lengths), np.arange(sum(lengths))
        n = len(rows) - lengths[-1]
        X = design(np.concatenate(parts), labels, delays)
        return X.take(np.concatenate([rows[:n], rows[n:][self._test[1]]])), labels[:n]
