"""Settings of a study. This module imports no slow library.

``reading.py`` reads them from a YAML file. Some defaults depend on the data set, such as the names of the test and validation
stories: a study moves from simulated data to ds003020 by changing the line ``data:``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fastencode.data.config import ImageSettings
from fastencode.errors import InputError
from fastencode.runs.studies.typed import merged, typed
from fastencode.study.config import AlignConfig, Contrast, MlpConfig
from fastencode.tune.config import TuneConfig
from fastencode.tune.presets import preset
from fastencode.world.config import CorpusConfig, WorldConfig

__all__ = [
    "DEMO",
    "LOW_LEVEL",
    "SPOKEN",
    "Arm",
    "DataSettings",
    "MlpSettings",
    "ProbeSettings",
    "StudyConfig",
    "check_name",
    "check_once",
]

DEMO = "demo"
"""In place of the path of a data set or corpus: simulated data, or a corpus made by the synthesizer."""

SPOKEN = {
    "timit": ("timit", ""),
    "commands": ("commands", ""),
    "words": ("commands", "labels.tsv"),
    "unheard_words": ("commands", "unheard_words.tsv"),
}
"""Synthesized corpora: name → (the stage that makes it, its manifest in the stage's folder; "" for the folder itself)."""

LOW_LEVEL = {"mfcc": "MFCC", "random": "random weights"}
"""Reference models of probes → their labels: MFCCs of the sound, and the first model's architecture with random weights."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
"""What may be a folder."""


def check_name(what: str, name: str) -> None:
    """Names that become folders: not outside the output folder, not those of folders that are being made."""
    shown = repr(name if len(name) < 60 else f"{name[:57]}…")
    if not _NAME.fullmatch(name):
        raise InputError(f"{what} {shown}: use up to 100 of A-Z, a-z, 0-9 and, after the first, . _ + -")
    if name.endswith(".partial"):
        raise InputError(f"{what} {shown} ends as folders do that are not finished: choose another")


def check_once(setting: str, given: Sequence[Any]) -> None:
    if twice := [one for one in given if given.count(one) > 1]:
        raise InputError(f"{setting} names {twice[0]} twice: name each once")


@dataclass(frozen=True)
class DataSettings:
    """The data set: whose responses to which stories are used.

    Attributes
    ----------
    stories : str
        A data set: a folder in one of the layouts below, a table of runs (help("fastencode.data.table")), or "demo" for
        simulated data.
    layout : str
        auto, ds003020, bids, narratives, petit-prince or table.
    images : ImageSettings
        How images are read, and what is regressed out of them.
    participants : tuple of str
        Default: all.
    validation : tuple of str, optional
        Runs on which tuning is monitored. They are never fitted. Default: "validation" for simulated data, otherwise
        "stagefright" (of ds003020).
    test_story : str, optional
        The run that models are scored on. Default: "test" for simulated data, otherwise "wheretheressmoke" (of ds003020).
    test_skip : int, optional
        Rows (scans) to leave out at the start of the test run. Default: 0 for simulated data, otherwise 40.
    exclude : tuple of str
        Runs that are not used.
    tr : float, optional
        Repetition time in s. Default: 2 for ds003020. Other layouts say it.
    word_tier : str
        The tier of words in all transcripts; by default the one called word or words, or whose name ends so: "Lisa - words".
    phone_tier : str
        The tier of phones; by default the one called phone, phones, phoneme or phonemes, or whose name ends so.
    ceiling : float
        Tune on voxels with at least this noise ceiling; on all voxels if negative.
    tuned_regions : tuple of str
        Tune only on those of these voxels that are in these regions. Default: no restriction.
    scored : float, optional
        Score voxels with at least this noise ceiling; all voxels if negative. Default: −1 for simulated data, otherwise 0.05.
    split_half : bool
        Choose the scored voxels on every other repeat of the test story, and score them on the mean of the others. By default,
        all repeats are used for both, so that noise on which they agree by chance is in the choice and in the scores.
    regions : tuple of str
        Regions shown in tables and figures. Default: all.
    rois : str, optional
        Folder with regions of interest. Default: the regions of the data set.
    """

    stories: str = DEMO
    participants: tuple[str, ...] = ()
    validation: tuple[str, ...] | None = None
    test_story: str | None = None
    test_skip: int | None = None
    exclude: tuple[str, ...] = ()
    tr: float | None = None
    word_tier: str = ""
    phone_tier: str = ""
    ceiling: float = 0.4
    tuned_regions: tuple[str, ...] = ()
    scored: float | None = None
    split_half: bool = False
    regions: tuple[str, ...] = ()
    rois: str | None = None
    layout: str = "auto"
    images: ImageSettings = field(default_factory=ImageSettings)

    def __post_init__(self) -> None:
        if self.tr is not None and not 0 < self.tr < math.inf:
            raise InputError(f"tr={self.tr:g}: give the repetition time in s, for example 2.0")
        if not self.stories:
            raise InputError("stories is empty: give a folder, or demo")
        if self.test_skip is not None and self.test_skip < 0:
            raise InputError(f"test_skip={self.test_skip}: give the number of rows to leave out, 0 or more")
        for name in ("ceiling", "scored"):
            least = getattr(self, name)
            if least is not None and not least < 1:
                raise InputError(f"{name}={least:g}: no noise ceiling is above 1; give a number below 1, for example 0.4")
        for name in ("participants", "validation", "exclude", "tuned_regions", "regions"):
            check_once(name, getattr(self, name) or ())
        if both := {*(self.validation or ())} & {*self.exclude}:
            raise InputError(f"exclude names {min(both)}, which is for validation: leave it out of one of them")
        if self.test_story is not None and self.test_story in (self.validation or ()):
            raise InputError(f"validation names {self.test_story}, the test story: watch another one while tuning")

    @property
    def is_demo(self) -> bool:
        """Whether the data are simulated."""
        return self.stories == DEMO

    def resolved(self, test: str | None = None, validation: tuple[str, ...] = ()) -> DataSettings:
        """The same settings, with defaults that depend on the data filled in.

        Parameters
        ----------
        test, validation : str, tuple of str
            The runs that the data set marks so. By default, it is simulated or ds003020, whose runs are known by name.
        """
        skip, scored = 0, -1.0 if self.is_demo else 0.05
        if test is None:
            test, validation = ("test", ("validation",)) if self.is_demo else ("wheretheressmoke", ("stagefright",))
            skip = 0 if self.is_demo else 40
        return replace(
            self,
            test_story=test if self.test_story is None else self.test_story,
            validation=validation if self.validation is None else self.validation,
            test_skip=skip if self.test_skip is None else self.test_skip,
            scored=scored if self.scored is None else self.scored,
        )


@dataclass(frozen=True)
class Arm:
    """What is done to a model before its layers are scored: nothing, or a tuning run.

    Attributes
    ----------
    name : str
        Name in tables, contrasts and folders.
    label : str
        Name in figures. Default: ``name``.
    model : str
        Key of the study's ``models``. Default: the arm exists once for each of them.
    tune : mapping, optional
        Settings of tuning that differ from the study's ``tune``; {} if none does. Without ``tune``, the model is not tuned.
    seeds : tuple of int
        One run for each seed. The seed determines the initial weights of the head and the order of clips. With
        ``tune: {targets: permuted}`` it is the number of the permutation, and all else is as with seed 0. Tables show means over
        seeds.
    together : bool
        Tune one model on all participants instead of one model per participant.
    hours : tuple of float
        One condition for each. The model is tuned on the first runs, in the order of their names, whose total duration comes
        closest to this many hours.
    epochs : tuple of int
        Also score the model after these epochs, each as a condition of its own.
    imitates : str, optional
        Key of the study's ``models``. The tuned model learns to predict that model's features instead of responses.
    """

    name: str
    label: str = ""
    model: str = ""
    tune: Mapping[str, Any] | None = None
    seeds: tuple[int, ...] = (0,)
    together: bool = False
    hours: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    imitates: str | None = None

    def __post_init__(self) -> None:
        check_name("the arm's name", self.name)
        if self.name in LOW_LEVEL:
            raise InputError(f"an arm is called {self.name!r}, like a reference model of probes: choose another name")
        for what in ("seeds", "hours", "epochs"):
            given = getattr(self, what)
            if len(set(given)) < len(given):
                raise InputError(f"{what} of {self.name} names {next(x for x in given if given.count(x) > 1)} twice")
        if not self.seeds:
            raise InputError(f"seeds of {self.name} is empty: give at least one, or leave it out")
        if any(seed < 0 for seed in self.seeds):
            raise InputError(f"seeds of {self.name} holds {min(self.seeds)}: give whole numbers, 0 or more")
        if wrong := [hours for hours in self.hours if not 0 < hours < math.inf]:
            raise InputError(f"hours of {self.name} holds {wrong[0]:g}: give hours above 0")
        if self.tune is None:
            self._check_read_as_it_is()

    def _check_read_as_it_is(self) -> None:
        given = [what for what in ("hours", "epochs", "together", "imitates") if getattr(self, what)]
        if given or self.seeds != (0,):
            what = given[0] if given else "seeds"
            raise InputError(f"{what} of {self.name} is set, but the arm is not tuned: add tune, {{}} for the study's settings")

    @property
    def is_tuned(self) -> bool:
        return self.tune is not None


@dataclass(frozen=True)
class ProbeSettings:
    """Linear probes of all layers.

    Attributes
    ----------
    tasks : tuple of str
        For example mfcc, word, phonemes, sentence_type, sx_si: see :mod:`fastencode.study.probing.tasks`. "label:emotion@mine" is
        the label emotion of the corpus ``mine``.
    corpora : name → str
        Folder of TIMIT or Speech Commands, or a manifest; or "demo" for a corpus made by the synthesizer. It can make ``timit``;
        ``commands``, single words; ``words``, the same recordings with the labels word, class (semantic) and speaker; and
        ``unheard_words``, a subset in which the words of the test split do not occur in the training split.
    low_level : bool
        Whether tasks are also probed on MFCC features and on a model with random weights.
    control : bool
        Whether each probe is also fitted on shuffled labels (Hewitt and Liang 2019).
    frames : float
        Frames of a frozen CNN over a corpus are kept for all models that are tuned above it if they take at most so many GB on
        disk; 0 for never. Results are the same. A base-sized model makes 0.1 GB of 1000 s of sound: 2 GB of TIMIT, 10.5 GB of
        Speech Commands, whose frames are not kept by default.
    speech : CorpusConfig
        Size and language of synthesized corpora.
    """

    tasks: tuple[str, ...] = ()
    corpora: Mapping[str, str] = field(default_factory=lambda: {"timit": DEMO, "commands": DEMO})
    low_level: bool = True
    control: bool = False
    frames: float = 4.0
    speech: CorpusConfig = field(default_factory=CorpusConfig)

    def __post_init__(self) -> None:
        check_once("tasks", self.tasks)
        if not self.frames >= 0:
            raise InputError(f"frames={self.frames:g}: give GB of disk for the frames of a CNN over a corpus, or 0 to keep none")


@dataclass(frozen=True)
class MlpSettings(MlpConfig):
    """A network with one hidden layer, compared with ridge on the same rows: its settings, and the layers it is fitted on.

    Attributes
    ----------
    layers : tuple of int
        Default: the last layer of each model. A layer takes several times as long as its ridge.
    """

    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.layers)) < len(self.layers) or any(layer < 0 for layer in self.layers):
            raise InputError(f"layers={self.layers}: give different layer numbers from 0 on")

    @property
    def network(self) -> MlpConfig:
        """The settings that the results of one layer depend on."""
        return MlpConfig(**{one.name: getattr(self, one.name) for one in fields(MlpConfig)})


@dataclass(frozen=True)
class StudyConfig:
    """All settings of a study: data, models, arms, encoding models, probes and contrasts.

    Attributes
    ----------
    title, question : str
        Heading and first sentences of the page.
    data : DataSettings
    world : WorldConfig
        Settings of the simulation.
    models : name → str
        Folders or names on the Hugging Face hub. "small" is the model that ships with fastencode; "random:NAME" has the
        architecture of NAME and random weights. Default: small for simulated data, otherwise facebook/wav2vec2-base.
    preset : str, optional
        Settings of a published run. Default: those of the demo for simulated data, otherwise interspeech2025.
    tune : mapping
        Settings of tuning that differ from the preset.
    arms : tuple of Arm
        Differences are relative to the same model before tuning if an arm reads that, otherwise to the first arm of that model.
    align : AlignConfig
        Settings of the encoding models.
    layers : tuple of int
        Layers that are scored. Default: all.
    baselines : tuple of str
        Low-level features that are scored as conditions of their own: spectrum, word_rate and others of ``align``.
    residualize : tuple of str
        Low-level features that are regressed out of the layers, which are then scored again as the measure ``r_residual``.
    probes : ProbeSettings
    change : bool
        Whether each layer of a tuned model is compared with the untuned model: CKA, CCA, weights, dimensions.
    mlp : MlpSettings, optional
        None: no networks.
    contrasts : tuple of Contrast
    seed : int
        Seed of the bootstrap, the permutation tests and the probes. Tuning runs have the seeds of their arm.
    """

    title: str = "A brain-tuning study"
    question: str = ""
    data: DataSettings = field(default_factory=DataSettings)
    world: WorldConfig = field(default_factory=WorldConfig)
    models: Mapping[str, str] = field(default_factory=dict)
    preset: str | None = None
    tune: Mapping[str, Any] = field(default_factory=dict)
    arms: tuple[Arm, ...] = (Arm("pretrained"), Arm("tuned", "brain-tuned", tune={}))
    align: AlignConfig = field(default_factory=AlignConfig)
    layers: tuple[int, ...] = ()
    baselines: tuple[str, ...] = ()
    residualize: tuple[str, ...] = ()
    probes: ProbeSettings = field(default_factory=ProbeSettings)
    change: bool = True
    mlp: MlpSettings | None = None
    contrasts: tuple[Contrast, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms:
            raise InputError("arms is empty: give at least one, such as - name: pretrained")
        names = [arm.name for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two arms are called {twice[0]!r}: name each differently")

    def resolved(self, test: str | None = None, validation: tuple[str, ...] = ()) -> StudyConfig:
        """The same settings, with defaults that depend on the data filled in; see :meth:`DataSettings.resolved`."""
        models = dict(self.models) or ({"small": "small"} if self.data.is_demo else {"wav2vec2": "facebook/wav2vec2-base"})
        return replace(self, data=self.data.resolved(test, validation), models=models)

    def base(self) -> TuneConfig:
        """The settings of tuning that arms start from."""
        if self.data.is_demo and self.preset is None:
            base = TuneConfig(epochs=4)
        else:
            try:
                base = preset(self.preset or "interspeech2025").config()
            except InputError as error:
                raise InputError(f"preset: {error}") from error
        base = replace(base, keep=())  # arms name the epochs that are read
        return typed(TuneConfig, merged(base, self.tune), "tune")

    def tuning(self, arm: Arm, seed: int) -> TuneConfig:
        """The settings of one run of an arm."""
        config = typed(TuneConfig, merged(self.base(), arm.tune or {}))
        if wrong := [epoch for epoch in arm.epochs if not 0 <= epoch <= config.epochs]:
            known = f"there are epochs 0 (before any update) to {config.epochs}"
            raise InputError(f"epochs of {arm.name} names {wrong[0]}, but {known}: name others, or tune for more epochs")
        config = replace(config, keep=tuple(sorted({*config.keep, *arm.epochs})))
        return (
            replace(config, permutation=seed or 1) if config.targets == "permuted" else replace(config, seed=config.seed + seed)
        )
