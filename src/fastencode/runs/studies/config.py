"""Settings of a study. Imports nothing slow.

``reading.py`` makes them of a YAML file. What a file leaves open depends on its data: the demo's world needs other rates and
names of runs than ds003020, so that a study changes from one to the other by one line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fastencode.errors import InputError
from fastencode.runs.studies.typed import merged, typed
from fastencode.study.config import AlignConfig, Contrast, MlpConfig
from fastencode.tune.config import TuneConfig
from fastencode.tune.presets import preset
from fastencode.world.config import CorpusConfig, WorldConfig

__all__ = ["DEMO", "LOW_LEVEL", "SPOKEN", "Arm", "DataSettings", "MlpSettings", "ProbeSettings", "StudyConfig"]

DEMO = "demo"
"""As data or as a corpus: what the synthesizer says, and simulated brains."""

SPOKEN = {
    "timit": ("timit", ""),
    "commands": ("commands", ""),
    "words": ("commands", "labels.tsv"),
    "unheard_words": ("commands", "unheard_words.tsv"),
}
"""Corpora that a synthesizer speaks: name → the stage that makes it, and the manifest in there; "" is the tree itself."""

LOW_LEVEL = {"mfcc": "MFCC", "random": "random weights"}
"""What probes are compared with: cepstra of the sound, and a model of the same shape that has learned nothing."""

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class DataSettings:
    """Whose responses to which stories.

    Attributes
    ----------
    stories : str
        Folder of a data set in the layout of ds003020, or demo: a world that is made.
    participants : tuple of str
        All by default.
    validation : tuple of str, optional
        Runs that are watched while tuning, and that nothing is fitted on. By default validation in the demo's world, stagefright
        in ds003020.
    test_story : str, optional
        The run that models are scored on. By default test in the demo's world, wheretheressmoke in ds003020.
    test_skip : int, optional
        Rows of the test run to leave out at its start; by default 0 in the demo's world, else 40.
    exclude : tuple of str
        Runs that are left out.
    tr : float
        Repetition time in s.
    ceiling : float
        Least noise ceiling of a voxel that is tuned on; below 0 all voxels.
    tuned_regions : tuple of str
        Tune only on voxels of these regions that pass ``ceiling``; all voxels where none is named.
    scored : float, optional
        Least noise ceiling of a voxel that is scored; below 0 all are. By default -1 in the demo's world, else 0.05.
    split_half : bool
        Choose the voxels that are scored on every other repeat of the test story, and score them on the mean of the others. By
        default all repeats do both: noise that by chance agrees between them is then in the choice and in the scores.
    regions : tuple of str
        The regions that tables and figures show; all by default.
    rois : str, optional
        Folder of regions; by default the data set's own.
    """

    stories: str = DEMO
    participants: tuple[str, ...] = ()
    validation: tuple[str, ...] | None = None
    test_story: str | None = None
    test_skip: int | None = None
    exclude: tuple[str, ...] = ()
    tr: float = 2.0
    ceiling: float = 0.4
    tuned_regions: tuple[str, ...] = ()
    scored: float | None = None
    split_half: bool = False
    regions: tuple[str, ...] = ()
    rois: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.tr < math.inf:
            raise InputError(f"tr={self.tr:g}: give the repetition time in s, for example 2.0")
        if not self.stories:
            raise InputError("stories is empty: give a folder, or demo")

    @property
    def is_demo(self) -> bool:
        """Whether the data are made."""
        return self.stories == DEMO

    def resolved(self) -> DataSettings:
        """The same with every default in place."""
        test, validation, skip, scored = ("test", ("validation",), 0, -1.0)
        if not self.is_demo:
            test, validation, skip, scored = ("wheretheressmoke", ("stagefright",), 40, 0.05)
        return replace(
            self,
            test_story=test if self.test_story is None else self.test_story,
            validation=validation if self.validation is None else self.validation,
            test_skip=skip if self.test_skip is None else self.test_skip,
            scored=scored if self.scored is None else self.scored,
        )


@dataclass(frozen=True)
class Arm:
    """What becomes of a model before it is read: nothing, or a tuning run.

    Attributes
    ----------
    name : str
        What tables, contrasts and folders call it.
    label : str
        What figures call it; by default the name.
    model : str
        Key of ``models``; by default each of them.
    tune : mapping, optional
        Settings of tuning that differ from the study's ``tune``; {} for none. Without it the model is read as it is.
    seeds : tuple of int
        One run for each: seeds of the first weights and of the order of clips; with ``tune: {targets: permuted}`` numbers of the
        permutation, all else being that of seed 0. Tables show their mean.
    together : bool
        One model for all participants instead of one for each.
    hours : tuple of float
        One condition for each: tuned on as many whole runs as come closest to so many hours, in the order of their names.
    epochs : tuple of int
        Conditions read along training, after these epochs, besides the last.
    imitates : str, optional
        Key of ``models``: the run learns that model's features instead of responses.
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
        if not _NAME.fullmatch(self.name):
            raise InputError(f"the arm's name {self.name!r}: use letters, digits, and . _ + - after the first")
        if self.name in LOW_LEVEL:
            raise InputError(f"an arm is called {self.name!r}, as a low-level model of probes is: choose another name")
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
            raise InputError(f"{what} of {self.name} is for models that are tuned: give tune, {{}} for the study's settings")

    @property
    def is_tuned(self) -> bool:
        return self.tune is not None


@dataclass(frozen=True)
class ProbeSettings:
    """Linear probes of all layers.

    Attributes
    ----------
    tasks : tuple of str
        Such as mfcc, word, phonemes, sentence_type, sx_si; see :mod:`fastencode.study.probing.tasks`. "emotion@mine" asks for the
        labels of the kind emotion of the corpus ``mine``.
    corpora : name → str
        Folder of TIMIT or Speech Commands, or a manifest. demo: spoken by a synthesizer, which makes ``timit``; ``commands``,
        single words; ``words``, the same with the labels word, class (of meaning) and speaker; and ``unheard_words``, those of
        them whose class must be told of words that the probe has not heard.
    low_level : bool
        Whether the same tasks are probed on cepstra and on a model with random weights.
    control : bool
        Whether each probe is fitted on shuffled labels, too (Hewitt and Liang 2019).
    speech : CorpusConfig
        Sizes of the corpora that are made.
    """

    tasks: tuple[str, ...] = ()
    corpora: Mapping[str, str] = field(default_factory=lambda: {"timit": DEMO, "commands": DEMO})
    low_level: bool = True
    control: bool = False
    speech: CorpusConfig = field(default_factory=CorpusConfig)


@dataclass(frozen=True)
class MlpSettings(MlpConfig):
    """A network with a hidden layer beside ridge, on the same rows: its settings, and which layers it reads.

    Attributes
    ----------
    layers : tuple of int
        Which layers; the last one of each model by default. A layer takes some times as long as its ridge.
    """

    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.layers)) < len(self.layers) or any(layer < 0 for layer in self.layers):
            raise InputError(f"layers={self.layers}: give different layer numbers from 0 on")

    @property
    def network(self) -> MlpConfig:
        """The settings of the network alone: what its results depend on."""
        return MlpConfig(**{one.name: getattr(self, one.name) for one in fields(MlpConfig)})


@dataclass(frozen=True)
class StudyConfig:
    """Models, what becomes of them, and what is asked.

    Attributes
    ----------
    title, question : str
        What the page begins with.
    data : DataSettings
    world : WorldConfig
        The demo's world.
    models : name → str
        Folders or hub names; small is the model that ships with fastencode, random:NAME the same with random weights. By
        default small in the demo's world, else facebook/wav2vec2-base.
    preset : str, optional
        Settings of a published run. By default interspeech2025, and those of the demo in its world.
    tune : mapping
        Settings of tuning that differ from the preset.
    arms : tuple of Arm
        Differences are taken to the same model as it is, where an arm reads that; otherwise to the first arm of the same model.
    align : AlignConfig
    layers : tuple of int
        Layers that are scored; all by default.
    baselines : tuple of str
        Low-level features that are scored beside the layers, as conditions: spectrum, word_rate and others of ``align``.
    residualize : tuple of str
        Low-level features that are taken out of the layers, which are then scored once more: the measure ``r_residual``.
    probes : ProbeSettings
    change : bool
        Whether layers are compared with those of the first arm: CKA, CCA, weights, dimensions.
    mlp : MlpSettings, optional
    contrasts : tuple of Contrast
    seed : int
        Of the bootstrap, of permutations and of probes; runs have seeds of their own.
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
            raise InputError("arms is empty: give at least one, for example - name: pretrained")
        names = [arm.name for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two arms are called {twice[0]!r}: name each differently")

    def resolved(self) -> StudyConfig:
        """The same with every default in place."""
        models = dict(self.models) or ({"small": "small"} if self.data.is_demo else {"wav2vec2": "facebook/wav2vec2-base"})
        return replace(self, data=self.data.resolved(), models=models)

    def tuning(self, arm: Arm, seed: int) -> TuneConfig:
        """The settings of one run of an arm."""
        demo = self.data.is_demo and self.preset is None
        base = TuneConfig(epochs=4) if demo else preset(self.preset or "interspeech2025").config()
        base = replace(base, keep=())  # arms name the epochs that are read
        config = typed(TuneConfig, merged(typed(TuneConfig, merged(base, self.tune)), arm.tune or {}))
        if wrong := [epoch for epoch in arm.epochs if not 0 <= epoch <= config.epochs]:
            known = f"there are epochs 0 (before any update) to {config.epochs}"
            raise InputError(f"epochs of {arm.name} names {wrong[0]}, but {known}: name others, or tune for more epochs")
        config = replace(config, keep=tuple(sorted({*config.keep, *arm.epochs})))
        return (
            replace(config, permutation=seed or 1) if config.targets == "permuted" else replace(config, seed=config.seed + seed)
        )
