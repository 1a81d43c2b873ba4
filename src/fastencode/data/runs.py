"""One presentation of one sound to one participant: what an encoding model needs to know of it, whatever the layout of files.

Readers of layouts return these; :class:`fastencode.data.recorded.Recorded` makes a data set of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastencode.data.recordings import SPLITS
from fastencode.data.responses import Responses
from fastencode.errors import InputError

__all__ = ["SAME_TIME", "Run"]

SAME_TIME = 0.1
"""Of a TR: scans that lie no farther apart count as taken at the same time."""


@dataclass(frozen=True)
class Run:
    """What a participant heard in one piece, and what was measured meanwhile.

    Attributes
    ----------
    participant : str
    name : str
        The story. Equal names are the same sound; of one participant, they are repeats.
    sound : Path or None
        Its file; None where only features are given.
    responses : Responses
        Rows × channels. Row i is scan i of the file.
    tr : float
        Repetition time in s.
    onset : float
        When the sound began, in s from the start of the first scan of the file. Negative where it began before.
    times : ndarray, shape (rows,), optional
        When each scan of the file began, in s from the first; by default multiples of ``tr``.
    skip_start, skip_end : int
        Scans at the start and at the end of the file that are left out, such as dummy scans.
    kept : ndarray of bool, shape (rows,), optional
        False for scans that count nowhere, such as those with much motion (censored). The others keep their times.
    split : {"train", "validation", "test"}
    transcript : Path or None
        A TextGrid, or a table of words (see :mod:`fastencode.data.word_tables`).
    mask : Path, tuple of Path, or None
        Which voxels or vertices the channels are: the way back to an image (see :mod:`fastencode.data.space`). Of several masks,
        channels are the voxels inside all.
    regions : Path or None
        The participant's regions: a file or folder that :mod:`fastencode.data.rois` reads.
    notes : tuple of str
        What was done to the responses, for the record: "6 dummy scans left out", "24 motion parameters regressed out".
    """

    participant: str
    name: str
    sound: Path | None
    responses: Responses
    tr: float
    onset: float = 0.0
    times: NDArray[np.float64] | None = field(default=None, compare=False)
    skip_start: int = 0
    skip_end: int = 0
    kept: NDArray[np.bool_] | None = field(default=None, compare=False)
    split: str = "train"
    transcript: Path | None = None
    mask: Path | tuple[Path, ...] | None = None
    regions: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.tr < np.inf:
            raise InputError(f"{self.where}: the TR is {self.tr}: give the repetition time in s, for example 2.0")
        if not np.isfinite(self.onset):
            raise InputError(f"{self.where}: the onset is {self.onset}: give s from the start of the first scan")
        if min(self.skip_start, self.skip_end) < 0:
            raise InputError(f"{self.where}: scans to leave out are {self.skip_start} and {self.skip_end}: give 0 or more")
        if self.split not in SPLITS:
            raise InputError(f"{self.where}: the split is {self.split!r}: choose among {', '.join(SPLITS)}")
        rows = self.responses.shape[0]
        if self.times is not None and self.times.shape != (rows,):
            raise InputError(f"{self.where}: {len(self.times)} times for {rows} scans: give one for each")
        if self.times is not None and not (np.diff(self.times) > 0).all():
            raise InputError(f"{self.where}: times of scans do not rise: give s from the start of the first scan, in order")
        if self.kept is not None and self.kept.shape != (rows,):
            raise InputError(f"{self.where}: {len(self.kept)} marks of kept scans for {rows} scans: give one for each")
        if self.skip_start + self.skip_end >= rows:
            raise InputError(
                f"{self.where}: {self.skip_start} + {self.skip_end} scans are left out of {rows}: nothing remains; lower these"
            )

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"{self.participant}, {self.name}"

    def begins(self) -> NDArray[np.float64]:
        """When each scan of the file began, (rows,) in s from the onset of the sound."""
        rows = self.responses.shape[0]
        times = self.tr * np.arange(rows, dtype=np.float64) if self.times is None else np.asarray(self.times, np.float64)
        return times - self.onset

    def heard(self, seconds: float | None) -> slice:
        """The scans that begin with or after the sound and end before it does, without those that are left out.

        Parameters
        ----------
        seconds : float or None
            How long the sound is; None if that is not known.

        Raises
        ------
        InputError
            If there is none.
        """
        begins = self.begins()
        tolerance = SAME_TIME * self.tr
        inside = begins >= -tolerance
        if seconds is not None:
            inside &= begins + self.tr <= seconds + tolerance
        inside[: self.skip_start] = False
        inside[len(begins) - self.skip_end :] = False
        found = np.flatnonzero(inside)
        if not len(found):
            lasts = "" if seconds is None else f" and lasts {seconds:g} s"
            raise InputError(
                f"{self.where}: no scan lies inside the sound, which begins {self.onset:g} s after the first of {len(begins)} "
                f"scans of {self.tr:g} s{lasts}: check onset and TR"
            )
        return slice(int(found[0]), int(found[-1]) + 1)
