"""Settings of what a model is tuned on, and of probes. Imports nothing slow: they are options of commands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from fastencode.data.config import DS003020_TEST, ImageSettings
from fastencode.errors import InputError

__all__ = ["LessonsConfig", "ProbeConfig"]

_LEAKS = ("speakers", "texts", "copies")


@dataclass(frozen=True)
class LessonsConfig:
    """Which responses of a data set a model is tuned on: whose, to which stories, of which voxels.

    Attributes
    ----------
    stories : Path
        A data set: a folder in one of the layouts below, or a table of runs (help("fastencode.data.table")).
    layout : str
        auto, ds003020, bids, narratives, petit-prince or table.
    images : ImageSettings
        How images are read, and what is regressed out of them.
    participants : tuple of str
        Who is tuned on, all in one run that shares the speech model; all of the data set by default.
    validation : tuple of str
        Stories that are predicted after each epoch and never tuned on. ``patience`` needs them: it goes by their loss.
    exclude : tuple of str
        Stories to leave out altogether.
    test_story : str
        The story that is never tuned on, by default that of ds003020, or the first that the data set marks so. Its repeats give
        the noise ceilings.
    tr : float, optional
        Repetition time in s; of ds003020 2 by default. Other layouts say it.
    word_tier : str
        The tier of words in all transcripts; by default the one called word or words, or whose name ends so: "Lisa - words".
    phone_tier : str
        The tier of phones; by default the one called phone, phones, phoneme or phonemes, or whose name ends so.
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
    test_story: str | None = None
    tr: float | None = None
    word_tier: str = ""
    phone_tier: str = ""
    ceiling: float = 0.4
    regions: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    prefer_weight: float = 4.0
    rois: Path | None = None
    layout: str = "auto"
    images: ImageSettings = field(default_factory=ImageSettings)

    def __post_init__(self) -> None:
        self._check_names()
        if self.tr is not None and not 0 < self.tr < math.inf:
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
        if (test := self.test_story or DS003020_TEST) in self.validation:
            raise InputError(f"validation names {test}, the test story: watch another one while tuning")
        if both := sorted(set(self.validation) & set(self.exclude)):
            raise InputError(f"exclude names {both[0]}, which is for validation: leave it out of one of them")
        if outside := sorted(set(self.prefer) - set(self.regions)) if self.regions else []:
            raise InputError(f"prefer names {outside[0]}, which is none of the regions that are tuned on: name it there, too")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How linear probes are fitted and scored, and in which split.

    Attributes
    ----------
    split : {"official", "core", "published"}
        core: of TIMIT's test split only the 24 speakers of the core test set, without SA. published: for phonemes and phones
        only, a fifth of each speaker's sentences is the test split. It leaks: every test speaker is in train.
    allow : tuple of str
        Leaks of the test split into what probes learn from that are asked for: speakers, texts, copies. All others are refused.
    text : str, optional
        The label, or manifest column, that holds the text of a recording; by default text, sentence or transcript. A text of the
        test split may not be in train.
    mfcc_points : int
        For the task mfcc: in how many equal parts of its duration the cepstra of an utterance are described. 1: their mean.
    control : bool
        Fit every probe once more, at the same penalty, on shuffled labels (Hewitt & Liang 2019): all rows of one sentence, or
        for phones of one word, get the same random label. What it scores is what a probe learns by heart.
    penalties : tuple of float
        Penalties to choose from on held-out speakers (or the validation split); a grid for each task by default.
    bootstraps : int
        Draws of test speakers (utterances, where speakers are not known) for intervals. 0: none.
    seed : int
        Of draws, shuffled labels, folds and the published split.
    """

    split: str = "official"
    allow: tuple[str, ...] = ()
    text: str | None = None
    mfcc_points: int = 8
    control: bool = False
    penalties: tuple[float, ...] = ()
    bootstraps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("official", "core", "published"):
            raise InputError(f"split={self.split!r}: choose 'official', 'core' or 'published'")
        for leak in self.allow:
            if leak not in _LEAKS:
                raise InputError(f"allow names {leak!r}, which is no leak: choose from {', '.join(_LEAKS)}")
        for name, least in (("mfcc_points", 1), ("bootstraps", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: give at least {least}")
        if wrong := [penalty for penalty in self.penalties if not 0 < penalty < math.inf]:
            raise InputError(f"penalties holds {wrong[0]:g}; every penalty must be positive and finite")
