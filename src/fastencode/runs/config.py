"""Settings of what a model is tuned on. Imports nothing slow: they are options of ``fastencode-tune train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fastencode.errors import InputError

__all__ = ["LessonsConfig"]


@dataclass(frozen=True)
class LessonsConfig:
    """Which responses of a data set a model is tuned on: whose, to which stories, of which voxels.

    Attributes
    ----------
    stories : Path
        Folder of the data set, in the layout of ds003020.
    participants : tuple of str
        Who is tuned on, all in one run that shares the speech model; all of the data set by default.
    validation : tuple of str
        Stories that are predicted after each epoch and never tuned on. ``patience`` needs them: it goes by their loss.
    exclude : tuple of str
        Stories to leave out altogether.
    test_story : str
        The story that is never tuned on, by default that of ds003020. Its repeats give the noise ceilings.
    tr : float
        Repetition time in s; 2, as in ds003020, by default.
    ceiling : float
        Least noise ceiling, a correlation, of a voxel that is tuned on; 0.4, as published. It must be significant too (false
        discovery rate 5 %). Below 0 all voxels are tuned on.
    regions : tuple of str
        Tune only on voxels of these regions that pass ``ceiling``; all voxels where none is named.
    prefer : tuple of str
        Regions whose voxels count ``prefer_weight`` times in the loss.
    prefer_weight : float
        How many times a voxel of ``prefer`` counts as much as another one; below 1, less.
    rois : Path, optional
        Regions of interest: a folder with a folder or file for each participant, called as the participant; NIfTI, GIFTI, NumPy,
        JSON or text. By default the data set's own ``rois``.

    Raises
    ------
    InputError
        If a number is out of range, a name is given twice, or a story or region is named for two uses that exclude each other.
    """

    stories: Path
    participants: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    test_story: str = "wheretheressmoke"
    tr: float = 2.0
    ceiling: float = 0.4
    regions: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    prefer_weight: float = 4.0
    rois: Path | None = None

    def __post_init__(self) -> None:
        self._check_names()
        if not 0 < self.tr < math.inf:
            raise InputError(f"tr={self.tr:g}: give the repetition time in s, for example 2.0")
        if not -math.inf < self.ceiling < 1:
            raise InputError(f"ceiling={self.ceiling:g}: give a number below 1, for example 0.4")
        if not 0 < self.prefer_weight < math.inf:
            raise InputError(f"prefer_weight={self.prefer_weight:g}: give a number above 0, for example 4")

    def _check_names(self) -> None:
        for name in ("participants", "validation", "exclude", "regions", "prefer"):
            given = getattr(self, name)
            if twice := sorted({item for item in given if given.count(item) > 1}):
                raise InputError(f"{name} names {twice[0]} more than once: name each once")
        if self.test_story in self.validation:
            raise InputError(f"validation names {self.test_story}, the test story: watch another one while tuning")
        if both := sorted(set(self.validation) & set(self.exclude)):
            raise InputError(f"exclude names {both[0]}, which is for validation: leave it out of one of them")
        if outside := sorted(set(self.prefer) - set(self.regions)) if self.regions else []:
            raise InputError(f"prefer names {outside[0]}, which is none of the regions that are tuned on: name it there, too")
