"""What a data set of people who heard sounds can be asked: the one interface between readers and what tunes, fits and scores.

A run is what somebody heard in one piece: a story, or a part of a recording. Its rows are the scans whose responses are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.data.textgrid import Interval

__all__ = ["Dataset"]


class Dataset(Protocol):
    """Runs, when they were scanned, and what came of it; :class:`fastencode.data.stories.Stories` is one.

    Attributes
    ----------
    tr : float
        Repetition time in s.
    test_story : str
        The run that nothing is fitted on.
    """

    @property
    def tr(self) -> float: ...

    @property
    def test_story(self) -> str: ...

    @property
    def participants(self) -> Sequence[str]:
        """Who was scanned."""

    def stories(self, who: str, /) -> Sequence[str]:
        """The runs that a participant heard."""

    def split(self, run: str, /) -> str:
        """What a run is for, as far as the data set says: "train", "validation" or "test"."""

    def n_rows(self, run: str, /) -> int:
        """Response rows of a run."""

    def row_times(self, run: str, /, *, middle: bool = False) -> NDArray[np.float64]:
        """When each row's scan began, or its middle, (rows,) in s from the onset of the run's recording."""

    def usable_rows(self, run: str, /) -> slice:
        """The rows to score on."""

    def recording(self, run: str, /) -> str:
        """The recording that was heard, by the name of its file without suffix; runs may share one."""

    def sound_file(self, run: str, /) -> Path:
        """That file; an :class:`fastencode.errors.InputError` if it is not here."""

    def stimulus_files(self, run: str, /) -> Sequence[Path]:
        """The recording and the transcript of a run, where they are here."""

    def words(self, run: str, /) -> Sequence[Interval]:
        """The words of a run with their times in s from the onset of its recording."""

    def phones(self, run: str, /) -> Sequence[Interval]:
        """The phones of a run, as its words; an :class:`fastencode.errors.InputError` where they are not known."""

    def check_length(self, run: str, seconds: float, path: Path, /) -> None:
        """Warn if what lasts so long, such as features in ``path``, is not this run's recording."""

    def n_voxels(self, who: str, /) -> int:
        """A participant's voxels."""

    def responses(self, who: str, run: str, /, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        """(rows, v); of a repeated run the mean over repeats."""

    def is_repeated(self, who: str, run: str, /) -> bool:
        """Whether single repeats are known."""

    def repeats(self, who: str, run: str, /, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        """(repeats, rows, v)."""

    def kept(self, who: str, run: str, /) -> NDArray[np.bool_]:
        """Which rows of a participant count, (rows,): censored scans are neither fitted nor scored."""

    def rois(self, who: str, /, *, mask: Any = None) -> Mapping[str, NDArray[np.intp]]:
        """A participant's regions: name → voxels. ``mask`` says where voxels lie, where the data set does not."""

    def mask(self, who: str, /) -> Any:
        """Which voxels or vertices the columns of a participant's responses are, as :mod:`fastencode.data.space` takes it: a path
        or an image. None where that is not known.
        """

    def notes(self, who: str, /) -> Sequence[str]:
        """What was done to a participant's responses by the reader, such as confounds regressed out."""

    def response_files(self, who: str, run: str, /) -> Sequence[Path]:
        """The files that hold the responses."""
