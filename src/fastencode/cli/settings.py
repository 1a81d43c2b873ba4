"""The settings of every subcommand: what ``--help`` shows and ``config.yaml`` repeats. Imports nothing slow."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastencode.cli.probe_settings import ProbeRunConfig
from fastencode.cli.run_settings import RunConfig
from fastencode.cli.train_settings import TrainConfig
from fastencode.data.config import ImageSettings
from fastencode.errors import InputError
from fastencode.speech.config import ReadConfig
from fastencode.study.config import AlignConfig
from fastencode.tune.config import PretrainConfig, TuneConfig
from fastencode.world.config import CorpusConfig, Participant, WorldConfig

__all__ = [
    "AliceConfig",
    "AlignRunConfig",
    "CheckConfig",
    "DemoConfig",
    "DiagnoseConfig",
    "DoctorConfig",
    "FeaturesConfig",
    "ProbeRunConfig",
    "RunConfig",
    "TrainConfig",
]

FULL_RUNS = 3  # seeds, and controls
MORE_PARTICIPANTS = (
    Participant("P3", auditory=110, late_language=150, silent=55, gain=1.0, peak_delay=5.5),
    Participant("P4", auditory=100, late_language=140, silent=50, gain=0.9, peak_delay=6.5),
)
FAST_MINUTES, FAST_STORY_MINUTES, FAST_TEST_MINUTES, FAST_EPOCHS = 6.0, 3.0, 4.0, 2


@dataclass(frozen=True)
class DemoConfig:
    """Make a world, tune a small speech model on its simulated brains, and see what its layers then predict and carry.

    Attributes
    ----------
    out : Path
        Output folder. Finished stages in it are reused.
    fast : bool
        Run a small version in two minutes: less speech, fewer epochs. The effects are then small.
    full : bool
        Run a long version in some hours: 4 participants, 3 seeds, 3 controls, and small models in the shape of HuBERT and Whisper
        beside the one of the package, which are made first. Participants, seeds and controls that are given count more.
    null : bool
        Make a world in which the late-language region follows nothing that is heard: nothing may be found in it.
    spectrum : bool
        Make a world in which the late-language region follows the sound, not the meaning: late layers must not become semantic.
    probes : bool
        Probe every layer for cepstra, words, phonemes and types of sentences, on corpora that are spoken first.
    minutes : float, optional
        Minutes of training stories; sets ``world.minutes``.
    seed : int, optional
        Sets the seed of every part.
    model : str, optional
        Folder or hub name of a speech model to use instead of the one that ships with the package.
    pretrain : bool
        Make the small model again from nothing first (about half an hour), and use it.
    jobs : int
        Processes that tune and read models at the same time, each with one thread.
    ceiling : float
        Least noise ceiling of a voxel that is tuned on; it must be significant too (false discovery rate 5 %). Ceilings are
        estimated from the repeats of the test story, so the story that layers are scored on also chooses these voxels.
    controls : int
        Controls of each participant, each tuned on another permutation of the responses; the tables and the page show their
        mean. Each takes as long to tune as the model itself. The demo tunes one, to stay within ten minutes on two processors;
        give 3 or more to conclude anything from the control.
    seeds : int
        Models tuned on each participant, which differ in their first weights and in the order of clips; the tables and the page
        show their mean.
    """

    out: Path = Path("demo-output")
    fast: bool = False
    full: bool = False
    null: bool = False
    spectrum: bool = False
    probes: bool = True
    minutes: float | None = None
    seed: int | None = None
    model: str | None = None
    pretrain: bool = False
    jobs: int = 2
    ceiling: float = 0.4
    controls: int = 1
    seeds: int = 1
    world: WorldConfig = field(default_factory=WorldConfig)
    speech: CorpusConfig = field(default_factory=CorpusConfig)
    tune: TuneConfig = field(default_factory=lambda: TuneConfig(epochs=4))
    align: AlignConfig = field(default_factory=AlignConfig)
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)

    def __post_init__(self) -> None:
        for name in ("jobs", "controls", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        _check_ceiling(self.ceiling)
        if self.tune.clip_seconds < self.world.tr:
            given = f"tune.clip_seconds={self.tune.clip_seconds:g}"
            raise InputError(f"{given}: a clip must hold its TR, {self.world.tr:g} s: give as much or more")
        for one, other in (("fast", "full"), ("null", "spectrum")):
            if getattr(self, one) and getattr(self, other):
                raise InputError(f"{one} and {other} exclude each other: choose one")
        if self.full and (self.model or self.pretrain):
            raise InputError(f"full brings models of its own: leave {'model' if self.model else 'pretrain'} out")
        if self.pretrain and self.model:
            raise InputError("pretrain makes the small model, model names another: choose one")

    def resolved(self) -> DemoConfig:
        """The same settings with the shorthands (fast, minutes, seed) written into the parts: what a config file repeats."""
        world, tune, alignment, pretraining = self.world, self.tune, self.align, self.pretraining
        speech, controls, seeds = self.speech, self.controls, self.seeds
        if self.full:
            controls, seeds = (FULL_RUNS if count == 1 else count for count in (controls, seeds))
            if world.participants == WorldConfig().participants:
                world = replace(world, participants=(*world.participants, *MORE_PARTICIPANTS))
        if self.null or self.spectrum:
            world = replace(world, late_follows="nothing" if self.null else "spectrum")
        if self.fast:
            speech = replace(speech, train_speakers=16, validation_speakers=4, test_speakers=8, words=20, words_each=20)
            world = replace(world, minutes=FAST_MINUTES, story_minutes=FAST_STORY_MINUTES, test_minutes=FAST_TEST_MINUTES)
            tune = replace(tune, epochs=FAST_EPOCHS)
        if self.minutes is not None:
            world = replace(world, minutes=self.minutes, story_minutes=min(world.story_minutes, self.minutes))
        if self.seed is not None:
            world, tune = replace(world, seed=self.seed), replace(tune, seed=self.seed)
            alignment, pretraining = replace(alignment, seed=self.seed), replace(pretraining, seed=self.seed)
        return replace(
            self,
            fast=False,
            null=False,
            spectrum=False,
            minutes=None,
            seed=None,
            controls=controls,
            seeds=seeds,
            world=world,
            speech=speech,
            tune=tune,
            align=alignment,
            pretraining=pretraining,
        )


@dataclass(frozen=True)
class AliceConfig:
    """Real brains: 27 people listening to a chapter of Alice in Wonderland (Brennan et al. 2016), encoded and tuned on.

    The encoding half repeats the published word-rate numbers. The recording is not part of the data set, so for the tuning half
    the chapter's words are spoken by a synthesizer at their real times; the model is tuned on the first part of the chapter and
    scored on the last. The next release has this as examples/alice.py only.

    Attributes
    ----------
    data : Path
        Folder of the data set.
    out : Path
        Output folder. Finished stages in it are reused.
    model : str, optional
        Folder or hub name of a speech model to use instead of the one that ships with the package.
    jobs : int
        Processes that tune and read models at the same time, each with one thread.
    test_rows, validation_rows : int
        Scans at the end of the chapter to score on, and scans before them to watch while tuning.
    controls : int
        Controls, each tuned on another permutation of the responses; the tables and the page show their mean.
    """

    data: Path
    out: Path = Path("alice-output")
    model: str | None = None
    jobs: int = 2
    test_rows: int = 100
    validation_rows: int = 40
    controls: int = 3
    tune: TuneConfig = field(default_factory=lambda: TuneConfig(epochs=8))
    align: AlignConfig = field(default_factory=AlignConfig)

    def __post_init__(self) -> None:
        for name in ("jobs", "test_rows", "validation_rows", "controls"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class FeaturesConfig:
    """Read every layer of a speech model over recordings, straight into HDF5 files (times × layers × width).

    Attributes
    ----------
    audio : Path
        An audio file, a folder of them and of folders, a tree of TIMIT or Speech Commands, or a manifest (CSV, TSV, JSON lines)
        with a column ``audio``; WAV, FLAC, OGG, MP3 or NIST SPHERE, at any rate. What cannot be read is listed at the end, with
        exit status 1; the others are read. Where two files of one name lie in two folders, the files of features lie in such
        folders too.
    model : str
        Folder or hub name of a wav2vec2, HuBERT, WavLM or Whisper model, of any size; small: the model that
        ships with fastencode; mfcc: no model but cepstra, for utterances only.
    out : Path
        Folder of the files. Finished ones are kept, and an interrupted one is resumed. Utterances all go to corpus.h5 in it.
    read : ReadConfig
        A clip for every TR, which is cheap, a sliding window, or for corpora utterance: each recording as a whole.
    kind : str
        Of utterances, what --audio is: timit, commands, manifest or folder; auto finds out.
    words : tuple of str
        Of Speech Commands only these words, for utterances; all by default.
    random_weights : int, optional
        A seed: a model of this shape with weights drawn anew instead of its own, as a control.
    batch : int, optional
        Windows, or utterances of equal length, at a time; chosen by the device and their length by default.
    dtype : str
        What the model computes in: float32, bfloat16 or float16.
    stored : str
        What is kept on disk: float32 or float16.
    device : str, optional
        Such as "cuda"; the CPU by default.
    dry_run : bool
        Only say how many hours and gigabytes it would take.
    """

    audio: Path
    model: str
    out: Path = Path("features")
    read: ReadConfig = field(default_factory=ReadConfig)
    kind: str = "auto"
    words: tuple[str, ...] = ()
    random_weights: int | None = None
    batch: int | None = None
    dtype: str = "float32"
    stored: str = "float32"
    device: str | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.read.input != "utterance":
            for given, name in ((self.kind != "auto", "kind"), (self.words, "words"), (self.model == "mfcc", "model")):
                if given:
                    value = getattr(self, name)
                    raise InputError(f"{name}={value!r} is for whole recordings: add --read.input utterance, or leave it out")
        elif self.model == "mfcc" and self.random_weights is not None:
            raise InputError(f"random_weights={self.random_weights}: cepstra have no weights; leave it out, or give a model")


@dataclass(frozen=True)
class DiagnoseConfig:
    """Walk through what is known to go wrong in brain-tuning, and say what a run, finished or not, shows of it and what to do.

    Attributes
    ----------
    run : Path
        Folder of the run, as ``fastencode-tune train`` left it.
    stories : Path, optional
        Folder of the data set that it was tuned on, for what the log alone cannot tell. Repetition time and test story are those
        of the run.
    control : Path, optional
        Folder of a run on permuted responses (``--targets permuted``) to compare with.
    """

    run: Path = field(metadata={"positional": True})
    stories: Path | None = None
    control: Path | None = None


@dataclass(frozen=True)
class CheckConfig:
    """Read a data set, say what it holds, run by run, and everything that is wrong with it; exit status 1 if a run is unusable.

    Attributes
    ----------
    data : Path
        A folder in the layout of ds003020, BIDS with fMRIPrep derivatives, Narratives or Le Petit Prince, or a table of runs
        (CSV, TSV; help("fastencode.data.table")).
    layout : str
        auto, ds003020, bids, narratives, petit-prince or table.
    tr : float, optional
        Repetition time in s; of ds003020 2.0 by default. Other layouts say it.
    images : ImageSettings
        How images are read.
    headers_only : bool
        Leave out what needs every value of the responses: constant and wild voxels, copies, repeats.
    out : Path, optional
        Folder for check.csv and check.json.
    """

    data: Path = field(metadata={"positional": True})
    layout: str = "auto"
    tr: float | None = None
    images: ImageSettings = field(default_factory=ImageSettings)
    headers_only: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class DoctorConfig:
    """Say what is installed here, what it can use, and what to mend; exit status 1 if something is wrong.

    Attributes
    ----------
    out : Path
        Where runs are to be written: its free disk is told.
    """

    out: Path = Path()


def _check_ceiling(ceiling: float) -> None:
    if not -math.inf < ceiling < 1:
        raise InputError(f"ceiling={ceiling:g}: give a number below 1, for example 0.05")


@dataclass(frozen=True)
class AlignRunConfig:
    """Which layer of which model predicts which region of whose brain, on the stories of a data set.

    Attributes
    ----------
    stories : Path
        A data set: a folder in one of the layouts below, or a table of runs (help("fastencode.data.table")).
    layout : str
        auto, ds003020, bids, narratives, petit-prince or table.
    images : ImageSettings
        How images are read, and what is regressed out of them.
    features : tuple of Path
        Folders that ``fastencode-tune features`` filled, one for each model, identified by its folder's name. With more
        than one, each is compared with the first.
    out : Path
        Output folder. What is finished in it is reused: one fit for each model, participant and layer. Several commands may work
        in it at the same time, on other participants or models say; the tables hold what all of them have finished.
    participants : tuple of str
        All of the data set by default.
    layers : tuple of int
        Layers to fit, all by default; 0 is what the transformer receives. Of a model with fewer layers, those that it has. Other
        layers that were fitted before stay in the tables.
    exclude : tuple of str
        Stories that no ridge is fitted on, such as those a model was tuned on.
    test_story : tuple of str
        The story that all scores are of; no ridge is fitted on it. Of several, all are scored together (each z-scored by itself)
        in the main tables, and each by itself in test_stories.csv and in voxels/<participant>.h5. By default that of ds003020,
        or those that the data set marks so.
    test_skip : int, optional
        Rows at the start of each test story that are not scored; by default 40 of ds003020's own, 0 of others.
    save_predictions : bool
        Keep predictions and responses of the test stories, (rows, voxels), of every model, layer and participant:
        predictions/<model>/<participant>/layer-NN/predictions.h5. Every model, layer and participant
        is fitted once more.
    leave_one_out : bool
        Predict every story that is fitted on by ridges fitted on all others, too: leave_one_out.csv, and of every voxel in
        voxels/<participant>.h5. Adds a plan and a fit for each story left out, for each layer and participant.
    tr : float, optional
        Repetition time in s; of ds003020 2 by default. Other layouts say it.
    rois : Path, optional
        Regions of interest: a folder with a folder or file for each participant, called as the participant; NIfTI, GIFTI, NumPy,
        JSON or text. By default the data set's own ``rois``.
    masks : Path, optional
        Folder of the masks that say where voxels lie: the brain mask ``<participant>.nii.gz``; for surfaces ``<participant>.npy``
        or a folder ``<participant>`` with one .npy for each surface, booleans for each vertex. Regions in images need them. By
        default those of the data set, where it has any.
    maps : bool
        Write images of r, of the layer with the highest r and of the ceiling into ``maps``: NIfTI, or GIFTI for surfaces. Needs
        masks. Images of earlier scores are removed.
    ceiling : float
        Least noise ceiling of a voxel that is scored; it must be significant too (false discovery rate 5 %). Ceilings are
        estimated from the repeats of the test story, on whose mean voxels are scored; split_half chooses on other repeats.
        Without repeats all voxels that vary are scored. Below 0 turns the choice off; voxels without a ceiling then count in r
        only.
    split_half : bool
        Choose voxels on one half of the test story's repeats, and score on the other half, whose ceilings r is divided by. With
        three repeats the ceilings are those of the half that chooses, and too high where few voxels pass.
    baselines : tuple of str
        Low-level features to score beside the models: spectrum, sound_power, word_rate, phone_rate, articulation,
        time (slow waves: what drift and autocorrelation alone explain).
    residualize : tuple of str
        Low-level features to take out of every layer, which is then scored once more.
    partition : tuple of str
        Low-level features to tell apart from every layer: banded ridge with the layer and each of them as a band, and what is
        unique to each (R² on the test story).
    non_speech : tuple of str
        Labels in the transcripts to take for no speech, beside silences, breaths and noises: such as spn, which aligners write
        for unknown words.
    word_tier : str
        The tier of words in all transcripts; by default the one called word or words, or whose name ends so: "Lisa - words".
    phone_tier : str
        The tier of phones; by default the one called phone, phones, phoneme or phonemes, or whose name ends so.
    candidates : int
        For partition: how many weightings of the bands to try.
    lags : tuple of int
        Score every layer at each of these single delays (in TRs) too; of several, lags.csv and the page have means over layers.
    permutations : int
        Permutations of blocks of scans for each voxel's p-value. The smallest p-value is 1 / (permutations + 1): no voxel
        survives the false discovery rate unless a share of at least 20 / (permutations + 1) of all that are mapped has it.
    jobs : int
        Processes that fit at the same time, each with its share of the processors. With more than one, a process that is killed,
        for want of memory say, costs only the fit it made.
    device : str, optional
        Where ridges are fitted, such as "cuda"; the CPU by default. What was finished on another device is reused: it differs by
        rounding.
    memory : str, optional
        Working memory of each process's solver, such as "4GB", or "auto", beside features, responses and weights. Less is slower;
        too little is an error that says how much is needed.
    dry_run : bool
        Only print what would be fitted, how it would be solved, and about how much time, memory and disk it would take.
        Nothing is made or written.
    collect : bool
        Only make the tables, of all finished fits in the output folder that have these settings.
    reuse : bool
        Keep finished fits even if the code that makes them has changed. Other settings, and files of features, responses or
        stimuli with other contents, still make them again.
    """

    stories: Path
    features: tuple[Path, ...] = ()
    out: Path = Path("align-output")
    participants: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    exclude: tuple[str, ...] = ()
    test_story: tuple[str, ...] | str = ()
    test_skip: int | None = None
    leave_one_out: bool = False
    save_predictions: bool = False
    tr: float | None = None
    rois: Path | None = None
    masks: Path | None = None
    maps: bool = False
    ceiling: float = 0.05
    split_half: bool = False
    baselines: tuple[str, ...] = ()
    residualize: tuple[str, ...] = ()
    partition: tuple[str, ...] = ()
    non_speech: tuple[str, ...] = ()
    word_tier: str = ""
    phone_tier: str = ""
    candidates: int = 20
    lags: tuple[int, ...] = ()
    permutations: int = 1000
    jobs: int = 1
    device: str | None = None
    memory: str | None = None
    dry_run: bool = False
    collect: bool = False
    reuse: bool = False
    align: AlignConfig = field(default_factory=AlignConfig)
    layout: str = "auto"
    images: ImageSettings = field(default_factory=ImageSettings)

    def __post_init__(self) -> None:
        if not self.features and not self.baselines and not self.collect:
            raise InputError("there is nothing to score: give at least one folder of features, or a baseline")
        for name in ("residualize", "partition", "lags", "layers"):
            if getattr(self, name) and not self.features and not self.collect:
                raise InputError(f"{name} is about layers of a model, but there is none: give a folder of features")
        for name in ("test_stories", "participants", "layers", "exclude", "baselines", "residualize", "partition", "lags"):
            given = getattr(self, name)
            if twice := sorted({item for item in given if given.count(item) > 1}):
                option = name.replace("test_stories", "test_story")
                raise InputError(f"{option} names {twice[0]} more than once: name each once")
        names = [Path(os.path.abspath(folder)).name for folder in self.features]
        if len(set(names)) < len(names):
            shared = next(folder for folder in names if names.count(folder) > 1)
            raise InputError(f"two feature folders share the name {shared!r}; folder names identify models, so rename one")
        for name in ("permutations", "candidates", "jobs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: give at least 1")
        if self.tr is not None and not 0 < self.tr < math.inf:
            raise InputError(f"tr={self.tr:g}: give the repetition time in s, for example 2.0")
        if self.test_skip is not None and self.test_skip < 0:
            raise InputError(f"test_skip={self.test_skip}: give the number of rows to leave out, 0 or more")
        _check_ceiling(self.ceiling)

    @property
    def test_stories(self) -> tuple[str, ...]:
        """``test_story`` as a tuple: settings of one test story may name it alone. Empty where the data set says it."""
        return (self.test_story,) if isinstance(self.test_story, str) else tuple(self.test_story)
