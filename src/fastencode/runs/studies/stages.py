"""The stages of a study: what each computes, and which results of other stages it reads.

    world ─► frames/<model> ─► models/<owner>/<run> ─► features/<owner>/<reading> ─► {fits,mlp}/<reading>/<participant>/layer-NN
    corpora/<name> ─► corpus-frames/<corpus>/<model> ─► pooled/<corpus>/<owner>/<reading> ─► probes/<task>/<owner>/<reading>

Fits can be set up only once the features exist (their number of layers is then known), so a study runs three lists of stages one
after the other: :func:`given_stages`, :meth:`Graph.making`, :meth:`Graph.asking`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.data.corpora import Corpus, open_corpus
from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeWarning
from fastencode.files import folder_name
from fastencode.runs.changes import change_stage
from fastencode.runs.config import LessonsConfig, ProbeConfig
from fastencode.runs.corpora import frames_stage, mfcc_stage, pooled_stage, seconds_of
from fastencode.runs.engine import Stage
from fastencode.runs.fits import Question, layer_stages, responses_stage
from fastencode.runs.probing import probe_stage, targets_stage
from fastencode.runs.studies.config import DEMO, SPOKEN, StudyConfig
from fastencode.runs.studies.names import Names, corpus_of, kind_of
from fastencode.runs.studies.readings import EVERYBODY, Reading, Tuning
from fastencode.runs.studies.regions import regions_of
from fastencode.runs.training import prepare_lessons
from fastencode.runs.tuning import hours_of, make_frames, only, read_layers, save_random, shortened, tune_on
from fastencode.runs.world import write_world
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.speech.packed import CORPUS_FILE, frame_bytes
from fastencode.study.brains.design import Variant
from fastencode.study.brains.sources import LayerFolder, LowLevel
from fastencode.study.probing.leakage import texts_of
from fastencode.study.probing.tasks import Task, task_of
from fastencode.tune.lessons import Lessons
from fastencode.world.corpora import make_commands, make_timit

__all__ = ["Graph", "Ground", "fits_on_disk", "given_model", "given_stages", "ground_of", "is_random", "read_config"]

_MAKERS = {"timit": make_timit, "commands": make_commands}
_LOW_LEVEL = "random/low-level"


def given_stages(config: StudyConfig) -> Iterator[Stage]:
    """Stages that make inputs: simulated data, synthesized corpora, and models with random weights."""
    if config.data.is_demo:
        yield Stage("world", {"world": config.world}, (), write_world, (config.world,))
    speech, corpora = config.probes.speech, config.probes.corpora
    for name in dict.fromkeys(SPOKEN[name][0] for name in Names(config, ()).corpora if corpora[name] == DEMO):
        yield Stage(f"corpora/{name}", {"speech": speech}, (), _MAKERS[name], (speech,))
    for key, name in config.models.items():
        if is_random(name):
            yield _random_stage(f"random/{key}", name)
    if config.probes.tasks and config.probes.low_level:
        yield _random_stage(_LOW_LEVEL, next(iter(config.models.values())))


def is_random(name: str) -> bool:
    """Whether a model has the architecture of another and random weights: "random:NAME"."""
    return name.startswith("random:")


def given_model(name: str) -> Path | str:
    """Folder or hub name of a model; for "random:NAME", of NAME."""
    shape = name.removeprefix("random:")
    return SMALL_MODEL if shape == "small" else shape


def _random_stage(stage: str, name: str) -> Stage:
    model = given_model(name)
    return Stage(stage, {"model": _hash(model), "seed": 0}, (), save_random, (model, 0))


@cache
def _hash(model: Path | str) -> str:
    """The digest of a model that is given, not made."""
    return _known(model)[0]


@cache
def _known(model: Path | str) -> tuple[str, float]:
    """The digest of a model that is given, and bytes of its CNN's frames of a second."""
    encoder = SpeechEncoder(model)
    return encoder.hash(), frame_bytes(encoder)


def fits_on_disk(config: StudyConfig, seconds: float, bytes_of_a_second: float) -> bool:
    """Whether the frames of a CNN over a corpus are kept: as far as the study's settings allow."""
    return seconds * bytes_of_a_second <= 1e9 * config.probes.frames


@dataclass(frozen=True)
class Ground:
    """The data of a study: the data set, what each participant's model is tuned on, and the regions that are scored.

    Attributes
    ----------
    data : Dataset
    lessons : Lessons
        Runs and voxels to tune on, of all participants.
    regions : participant → region → voxels
    made_by : tuple of str
        Stages that simulated the data; empty for a real data set.
    """

    data: Dataset
    lessons: Lessons
    regions: Mapping[str, Mapping[str, NDArray[np.intp]]]
    made_by: tuple[str, ...]

    @property
    def participants(self) -> tuple[str, ...]:
        return tuple(self.lessons.train)

    @cached_property
    def runs(self) -> tuple[str, ...]:
        """Every run that is tuned on, fitted or scored."""
        lessons = self.lessons
        return (*lessons.runs(lessons.train), *lessons.runs(lessons.validation), self.data.test_story)


def ground_of(config: StudyConfig, data: Dataset, made_by: tuple[str, ...] = ()) -> Ground:
    """The parts of a data set that a study uses. Raises :class:`InputError` if the study names something that is not there."""
    asked = config.data
    assert asked.validation is not None and asked.test_story is not None
    choice = LessonsConfig(
        stories=Path(asked.stories),
        participants=asked.participants,
        validation=asked.validation,
        exclude=asked.exclude,
        test_story=asked.test_story,
        tr=data.tr,
        ceiling=asked.ceiling,
        regions=asked.tuned_regions,
        rois=None if asked.rois is None else Path(asked.rois),
    )
    lessons = prepare_lessons(choice, data)
    return Ground(data, lessons, {who: regions_of(data, who, asked.rois) for who in lessons.train}, made_by)


def read_config(config: StudyConfig, tr: float) -> ReadConfig:
    """Settings of reading stories: in clips as long as those of the study's tuning."""
    return ReadConfig("clip", tr=tr, seconds=config.tuning(replace(config.arms[0], tune={}), 0).clip_seconds)


class Graph:
    """Builds the stages of one study.

    Parameters
    ----------
    root : Path
        The output folder.
    config : StudyConfig
        With defaults filled in (``config.resolved()``).
    ground : Ground
    """

    def __init__(self, root: Path, config: StudyConfig, ground: Ground) -> None:
        self.root, self.config, self.ground = root, config, ground
        self.names = Names(config, ground.participants)
        self.read = read_config(config, ground.data.tr)
        self.sounds = {ground.data.recording(run): ground.data.sound_file(run) for run in ground.runs}
        scored = config.data.scored
        assert scored is not None
        mlp = None if config.mlp is None else config.mlp.network
        self.question = Question(
            ground.data,
            ground.lessons.train,
            ground.regions,
            config.align,
            ceiling=scored,
            split_half=config.data.split_half,
            mlp=mlp,
        )

    def making(self) -> list[Stage]:
        """Stages of CNN outputs, tuned models, and all layers of all checkpoints, on stories and on corpora."""
        names = self.names
        return [
            *(self._frames(name, key) for name, key in names.frames.items()),
            *(self._tuning(name, *what) for name, what in names.models.items()),
            *(self._features(name, *what) for name, what in names.features.items()),
            *(self._corpus_frames(name, *what) for name, what in self.corpus_frames.items()),
            *(self._pooled(name, *what) for name, what in names.pooled.items()),
        ]

    def asking(self, there: Mapping[str, Path], sha256: Callable[[Path], str]) -> list[Stage]:
        """Stages of responses, fits, probes and measures of change.

        Parameters
        ----------
        there : stage → folder
            Finished stages of :meth:`making`; what needs others is left out.
        sha256 : callable
            Returns the digest of a file's contents.
        """
        stages = [responses_stage(self.question, who) for who in self.ground.participants]
        stages += [targets_stage(self._targets(name), task, sha256) for name, task in self.tasks.items() if task.points]
        for name, (reading, owner) in self.names.features.items():
            if name in there:
                stages += self._fits(there[name], reading.folders(self.ground.participants)[owner])
        for source in self._low_level(self.config.baselines):
            variant = Variant(source, tuple(self.config.align.delays))
            stages += layer_stages(self.root, self.question, variant, self.ground.participants)
        for name, what in self.names.probes.items():
            if (pooled := self._pooled_of(*what)) in there:
                stages.append(self._probe(name, pooled, *what))
        for name, (before, after, owner) in self.names.changes.items():
            if {f"features/{EVERYBODY}/{before.name}", f"features/{owner}/{after.name}"} <= there.keys():
                stages.append(self._change(name, before, after, owner))
        return stages

    def lessons_of(self, run: Tuning, owner: str) -> Lessons:
        """Runs and voxels that a tuning run uses."""
        some = self.ground.lessons if run.together else only(self.ground.lessons, owner)
        return shortened(some, run.hours)

    def heard(self, run: Tuning) -> dict[str, float]:
        """Participant → the hours that the run of this participant, or of all, learned from."""
        return hours_of(shortened(self.ground.lessons, run.hours))

    def model(self, key: str) -> Path | str:
        """Folder or hub name of a model of the study, before tuning."""
        name = self.config.models[key]
        return self.root / "random" / key if is_random(name) else given_model(name)

    def checkpoint(self, reading: Reading, owner: str) -> Path | str:
        """Folder or hub name of the checkpoint of a reading."""
        if reading in self.names.low_level:
            return self.root / _LOW_LEVEL
        if reading.tuning is None:
            return self.model(reading.model)
        run = self.root / f"models/{owner}/{reading.tuning.name}"
        return run / "model" if reading.epoch is None else run / "checkpoints" / f"epoch-{reading.epoch}"

    @cached_property
    def corpora(self) -> dict[str, Corpus]:
        """Name → corpus, of the corpora that tasks need."""
        found = {}
        for name in self.names.corpora:
            where = Path(self.config.probes.corpora[name])
            if where == Path(DEMO):
                stage, manifest = SPOKEN[name]
                where = self.root / "corpora" / stage / manifest
            found[name] = open_corpus(where)
        return found

    @cached_property
    def corpus_frames(self) -> dict[str, tuple[str, str]]:
        """Stages of the CNN's frames that several readings share: the corpus and the key of the model."""
        seconds = {name: seconds_of(corpus) for name, corpus in self.corpora.items()}
        models = {key: given_model(name) for key, name in self.config.models.items()}
        return {
            name: (corpus, key)
            for name, (corpus, key) in self.names.corpus_frames.items()
            if fits_on_disk(self.config, seconds[corpus], _known(models[key])[1])
        }

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Name in the study → task."""
        points = self.probing.mfcc_points
        control = self.config.probes.control
        return {
            name: task_of(
                kind_of(name), corpus, points=points, texts=texts_of(corpus) if control else None, seed=self.config.seed
            )
            for name in self.config.probes.tasks
            for corpus in (self.corpora[corpus_of(name)],)
        }

    @cached_property
    def probing(self) -> ProbeConfig:
        """Settings of all probes."""
        return ProbeConfig(control=self.config.probes.control, seed=self.config.seed)

    def _model_settings(self, key: str) -> dict[str, Any]:
        name = self.config.models[key]
        return {"model": _hash(given_model(name)), "random": is_random(name)}

    def _made_by(self, reading: Reading, owner: str) -> tuple[str, ...]:
        """The stages that make a checkpoint."""
        if reading in self.names.low_level:
            return (_LOW_LEVEL,)
        random = (f"random/{reading.model}",) if is_random(self.config.models[reading.model]) else ()
        return random if reading.tuning is None else (*random, f"models/{owner}/{reading.tuning.name}")

    def _heard(self) -> dict[str, Path]:
        """Sounds of the stories as inputs of a stage; none if a stage simulated them."""
        return {} if self.ground.made_by else {f"{name}{path.suffix}": path for name, path in self.sounds.items()}

    def _frames(self, name: str, key: str) -> Stage:
        random = (f"random/{key}",) if is_random(self.config.models[key]) else ()
        settings = {**self._model_settings(key), "read": self.read}
        arguments = (self.model(key), self.sounds, self.read)
        return Stage(name, settings, (*self.ground.made_by, *random), make_frames, arguments, inputs=self._heard())

    def _tuning(self, name: str, run: Tuning, owner: str) -> Stage:
        """The stage of a tuning run."""
        data, lessons, config = self.ground.data, self.lessons_of(run, owner), run.config
        heard = {who: (*lessons.train[who], *lessons.validation[who]) for who in lessons.train}
        shared = run.shares_frames and config.clip_seconds == self.read.seconds
        reads = (*self.ground.made_by, f"frames/{run.model}")
        settings = {
            **self._model_settings(run.model),
            "tune": config,
            "imitates": None if run.imitates is None else self._model_settings(run.imitates),
            "voxels": lessons.voxels,
            "runs": [lessons.train, lessons.validation],
            "scans": {one: [float(data.row_times(one)[0]), data.n_rows(one)] for runs in heard.values() for one in runs},
        }
        if run.imitates is not None:
            config = replace(config, targets=f"model:{self.model(run.imitates)}")
            reads += (f"random/{run.imitates}",) if is_random(self.config.models[run.imitates]) else ()
        files = {
            f"{who}/{one}/{path.name}": path
            for who, runs in heard.items()
            for one in runs
            for path in data.response_files(who, one)
        }
        frames = self.root / f"frames/{run.model}" if shared else None
        arguments = (self.model(run.model), lessons, frames, config, f"{owner} {run.name}")
        return Stage(name, settings, reads, tune_on, arguments, inputs=files, resumable=True)

    def _features(self, name: str, reading: Reading, owner: str) -> Stage:
        """The stage of all layers on the stories."""
        frames = self.root / f"frames/{reading.model}" if reading.keeps_cnn else None
        reads = (*self.ground.made_by, f"frames/{reading.model}", *self._made_by(reading, owner))
        settings = {**self._model_settings(reading.model), "read": self.read}
        arguments = (self.checkpoint(reading, owner), frames, self.sounds, self.read)
        return Stage(name, settings, reads, read_layers, arguments, inputs=self._heard())

    def _pooled_of(self, task: str, reading: Reading, owner: str) -> str:
        return f"pooled/{corpus_of(task)}/{owner}/{reading.name}"

    def _made_corpus(self, name: str) -> tuple[str, ...]:
        return (f"corpora/{SPOKEN[name][0]}",) if self.config.probes.corpora[name] == DEMO else ()

    def _corpus_frames(self, name: str, corpus: str, key: str) -> Stage:
        """The frozen CNN over a corpus."""
        random = (f"random/{key}",) if is_random(self.config.models[key]) else ()
        reads = (*self._made_corpus(corpus), *random)
        return frames_stage(name, self.corpora[corpus], self.model(key), self._model_settings(key), reads)

    def _pooled(self, name: str, corpus: str, reading: Reading, owner: str) -> Stage:
        """The stage of all layers on a corpus."""
        reads = self._made_corpus(corpus)
        if reading.name == "mfcc" and reading in self.names.low_level:
            return mfcc_stage(name, self.corpora[corpus], reads)
        reads = (*reads, *self._made_by(reading, owner))
        settings, checkpoint = self._model_settings(reading.model), self.checkpoint(reading, owner)
        shared = f"corpus-frames/{corpus}/{reading.model}"
        if shared not in self.corpus_frames or not reading.keeps_cnn or reading in self.names.low_level:
            return pooled_stage(name, self.corpora[corpus], checkpoint, settings, reads)
        return pooled_stage(name, self.corpora[corpus], checkpoint, settings, (*reads, shared), self.root / shared)

    def _fits(self, folder: Path, people: tuple[str, ...]) -> Iterator[Stage]:
        train, data = self.ground.lessons.train, self.ground.data
        used = (*self.ground.lessons.runs({who: train[who] for who in people}), data.test_story)
        with warnings.catch_warnings():  # about sounds that are too long: the checks at the start gave it once for each
            warnings.simplefilter("ignore", FastencodeWarning)
            layers = LayerFolder(folder, data, lobes=self.config.align.lobes, used=used)
        networks = () if self.config.mlp is None else self.config.mlp.layers or (layers.n_layers - 1,)
        chosen = {"fits": self.config.layers or range(layers.n_layers), "mlp": networks}
        for nuisance in ((), self._low_level(self.config.residualize)) if self.config.residualize else ((),):
            variant = Variant(layers, tuple(self.config.align.delays), nuisance)
            for stage in layer_stages(self.root, self.question, variant, people):
                if stage.settings["layer"] in chosen[stage.name.partition("/")[0]]:
                    yield stage

    def _low_level(self, names: Sequence[str]) -> tuple[LowLevel, ...]:
        return tuple(LowLevel(name, self.ground.data) for name in names)

    def _targets(self, task: str) -> str:
        return f"targets/{folder_name(task)}"

    def _probe(self, name: str, pooled: str, task: str, reading: Reading, owner: str) -> Stage:
        asked = self.tasks[task]
        return probe_stage(
            name,
            asked,
            reading.name,
            self.root / pooled / CORPUS_FILE,
            self.probing,
            root=self.root,
            reads=(pooled,),
            targets=self._targets(task) if asked.points else None,
            participant=owner,
        )

    def _change(self, name: str, before: Reading, after: Reading, owner: str) -> Stage:
        """The stage that compares a tuned model with the untuned one, on the test story."""
        assert after.tuning is not None
        reads = (f"features/{EVERYBODY}/{before.name}", f"features/{owner}/{after.name}", f"models/{owner}/{after.tuning.name}")
        run = self.ground.data.test_story
        file = f"{self.ground.data.recording(run)}.h5"
        return change_stage(
            name,
            {run: self.root / reads[0] / file},
            {run: self.root / reads[1] / file},
            self.checkpoint(before, EVERYBODY),
            self.checkpoint(after, owner),
            self.root / reads[2],
            reads,
        )
