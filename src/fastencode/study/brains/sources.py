"""Features of runs at their scans, from a folder of layers or from the stories themselves; read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.errors import InputError
from fastencode.speech.store import Features, read_features, read_times
from fastencode.study.brains.low_level import low_level
from fastencode.timing.lanczos import lanczos

__all__ = ["LayerFolder", "LowLevel", "Source"]

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
        """How they were made, as JSON."""

    def files(self, story: str) -> Sequence[Path]:
        """The files that they are read from."""


class LayerFolder:
    """A model's layers, from the files of ``fastencode-tune features``.

    Windows, and the newest frames of clips, are resampled with a Lanczos kernel to the middle of each scan. Of clips that were
    pooled whole, the one that ends with the scan is taken.

    Parameters
    ----------
    folder : Path
        Holds ``<recording>.h5``.
    data : Dataset
        Says which recording a run is of, and when its scans were.
    lobes : int
        Of the Lanczos kernel.
    used : sequence of str
        The runs that will be asked for: they must be there, and made in one way.

    Attributes
    ----------
    width : int
        Columns of a layer.

    Raises
    ------
    InputError
        If a recording's file is missing or not finished, files were made with different settings or have other layers, clips do
        not end with scans, or features end before the last scan. When they are read: if one is not finite.

    Warns
    -----
    FastencodeWarning
        If features last longer than the run's recording: the TR is another, or the sound that of another run.
    """

    def __init__(self, folder: Path, data: Dataset, *, lobes: int, used: Sequence[str]) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: give one that fastencode-tune features filled")
        self.name = Path(os.path.abspath(folder)).name  # of ".", too
        self._folder, self._data, self._lobes = folder, data, lobes
        there = {path.name.removesuffix(".partial") for path in folder.iterdir()}
        if absent := sorted({path.name for path in map(self._path, used)} - there):
            some = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
            raise InputError(f"{folder} holds no {some}: read these recordings into it with fastencode-tune features")
        self._keys: dict[str, Any] = {}
        counts = {}
        self.width = 0
        for run in used:
            first = read_times(self._path(run))
            wanted = ("input", "pool", "tr") if first.key.get("input") == "clip" else ("input",)
            if unknown := [name for name in wanted if name not in first.key]:
                raise InputError(
                    f"{self._path(run)} does not say its {unknown[0]}: read these recordings with fastencode-tune features"
                )
            self._keys[run], counts[run], self.width = first.key, first.n_layers, first.values.shape[2]
            same = {name: value for name, value in first.key.items() if name != "audio"}
            before = {name: value for name, value in self._keys[used[0]].items() if name != "audio"}
            if same != before:
                raise InputError(f"{self._path(run)} and {self._path(used[0])} were made with different settings: make one again")
            self._check_times(run, first)
            if counts[run] != counts[used[0]]:
                raise InputError(
                    f"{self._path(run)} has {counts[run]} layers, {self._path(used[0])} has {counts[used[0]]}: make one again"
                )
        self.n_layers = counts[used[0]]

    def _path(self, run: str) -> Path:
        return self._folder / f"{self._data.recording(run)}.h5"

    def key(self, run: str) -> Any:
        return self._keys[run]

    def files(self, run: str) -> list[Path]:
        return [self._path(run)]

    def rows(self, run: str, layer: int) -> Floats:
        found = read_features(self._path(run), layers=(layer,))
        values = np.asarray(found.values[:, 0], np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(values).all(axis=1))):
            raise InputError(
                f"{self._path(run)}, layer {layer}: {len(bad)} of {len(values)} rows hold values that are not finite, the first "
                f"at {found.times[bad[0]]:g} s: check the recording and make the file again"
            )
        if _ends_with_scans(found):
            return values[self._clips(run)]
        return np.asarray(lanczos(values, found.times, self._data.row_times(run, middle=True), lobes=self._lobes))

    def _clips(self, run: str) -> NDArray[np.intp]:
        """The clip that ends with each scan."""
        return np.rint(self._data.row_times(run) / self._data.tr).astype(np.intp)

    def _check_times(self, run: str, found: Features) -> None:
        """Whether features lie at the scans of the run."""
        path, tr, middle = self._path(run), self._data.tr, self._data.row_times(run, middle=True)[-1]
        pooled = _ends_with_scans(found)
        if pooled and found.key["tr"] != tr:
            raise InputError(f"{path} holds clips every {found.key['tr']:g} s, scans come every {tr:g} s: read them again")
        begins = self._data.row_times(run)
        if pooled and not np.allclose(self._clips(run) * tr, begins):
            raise InputError(f"scans of {run} do not begin at multiples of the TR, {tr:g} s: read clips with pool='newest'")
        if len(found.times) <= self._clips(run)[-1] if pooled else found.times[-1] < middle:
            raise InputError(
                f"{path} ends at {found.times[-1]:g} s, before the last scan of {run} at {middle:g} s: is this the story's"
                f" sound, and {tr:g} s the TR?"
            )
        self._data.check_length(run, float(found.times[-1]), path)


def _ends_with_scans(found: Features) -> bool:
    """Whether each row stands for a whole clip, which ends with a scan: such rows are taken, others resampled."""
    return bool(found.key["input"] == "clip" and found.key["pool"] != "newest")


@dataclass(frozen=True)
class LowLevel:
    """One low-level feature of what was heard, as a model of one layer."""

    name: str
    data: Dataset
    n_layers: int = 1

    def rows(self, run: str, layer: int) -> Floats:
        return low_level(self.data, run, self.name)

    def key(self, run: str) -> Any:
        return {"low level": self.name}

    def files(self, run: str) -> Sequence[Path]:
        return self.data.stimulus_files(run)
