"""The dry run of a study: how many stages of each kind there are, and estimates of their time, memory and disk space.

Times are those of small pieces of the work, done now (``rehearsal.py``, ``tune/cost.py``) and multiplied by the sizes of the
whole; the rest follows from shapes. Where the demo's world and corpora are not made yet, shapes follow from their settings, and
a few recordings are spoken to try models on. Pages, tables and loops that are compiled at their first call are not counted.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.data.dataset import Dataset
from fastencode.errors import MissingLibraryError, require
from fastencode.progress import say
from fastencode.runs.estimates import fit_cost
from fastencode.runs.executors import settle
from fastencode.runs.fits import Question
from fastencode.runs.making import read_signature
from fastencode.runs.studies import rehearsal
from fastencode.runs.studies.config import DEMO, SPOKEN, StudyConfig
from fastencode.runs.studies.names import Names
from fastencode.runs.studies.readings import Reading, Tuning
from fastencode.runs.studies.regions import regions_of
from fastencode.runs.studies.speaking import Cost, Speech
from fastencode.runs.studies.stages import fits_on_disk, given_model, ground_of, read_config
from fastencode.runs.tally import duration
from fastencode.runs.tuning import only, shortened
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import frame_bytes
from fastencode.study.brains.tables import Label
from fastencode.tune.cost import cost_of
from fastencode.tune.lessons import Lessons, choose_lessons
from fastencode.world.outline import Outline

__all__ = ["Foreseen", "foresee_study", "say_foreseen"]

_LOW_LEVEL_WIDTH = 32  # columns of a low-level feature, about


@dataclass(frozen=True)
class Foreseen:
    """One kind of stage.

    Attributes
    ----------
    kind : str
    reads : tuple of str
        Kinds of stages whose results it reads.
    count, finished : int
        Number of stages, and of those whose results exist. Only a real run knows whether existing results are still valid.
    cost : Cost
        Of the stages that are not finished: total seconds and bytes on disk, and the memory of the largest stage.
    """

    kind: str
    reads: tuple[str, ...]
    count: int
    finished: int
    cost: Cost


def foresee_study(root: Path, config: StudyConfig, data: Dataset | None) -> list[Foreseen]:
    """Every kind of stage of a resolved study, in the order in which they run.

    Parameters
    ----------
    root : Path
        The output folder; it need not exist.
    config : StudyConfig
    data : Dataset, optional
        None: simulated data that are not made yet.

    Raises
    ------
    InputError
        If data, models and settings do not fit together.
    """
    settle()
    with tempfile.TemporaryDirectory() as folder:
        return _kinds(root, _Sight(config, data), Speech(root, config, Path(folder)))


def _kinds(root: Path, sight: _Sight, speech: Speech) -> list[Foreseen]:
    names, config = sight.names, sight.config
    fits, networks = dict(_fits(sight)), dict(_networks(sight))
    world = ["world"] if config.data.is_demo else []
    spoken = dict.fromkeys(f"corpora/{SPOKEN[one][0]}" for one in names.corpora if config.probes.corpora[one] == DEMO)

    def keeps(name: str) -> bool:
        corpus, key = names.corpus_frames[name]
        return fits_on_disk(config, speech.corpus(corpus).seconds, frame_bytes(sight.encoder(key)))

    shared = {name: names.corpus_frames[name] for name in names.corpus_frames if keeps(name)}

    def pooled(corpus: str, reading: Reading) -> Cost:
        low = reading in names.low_level
        from_frames = not low and reading.keeps_cnn and (corpus, reading.model) in shared.values()
        return speech.pooled(corpus, None if low and reading.name == "mfcc" else sight.encoder(reading.model), from_frames)

    def probed(task: str, reading: Reading) -> Cost:
        return speech.probe(task, None if reading in names.low_level and reading.name == "mfcc" else sight.encoder(reading.model))

    kinds = [
        _foreseen(root, "world", (), world, lambda _: sight.world()),
        _foreseen(root, "corpora", (), spoken, lambda name: speech.spoken(name.partition("/")[2])),
        _foreseen(root, "frames", ("world",), names.frames, lambda name: sight.frames(names.frames[name])),
        _foreseen(root, "models", ("frames",), names.models, lambda name: sight.tuning(*names.models[name])),
        _foreseen(
            root, "features", ("frames", "models"), names.features, lambda name: sight.layers(names.features[name][0].model)
        ),
        _foreseen(root, "fits", ("features",), fits, lambda name: sight.fit(*fits[name])),
        _foreseen(root, "mlp", ("features",), networks, lambda name: sight.network(*networks[name])),
        _foreseen(
            root,
            "corpus-frames",
            ("corpora",),
            shared,
            lambda name: speech.frames(shared[name][0], sight.encoder(shared[name][1])),
        ),
        _foreseen(
            root, "pooled", ("corpora", "corpus-frames", "models"), names.pooled, lambda name: pooled(*names.pooled[name][:2])
        ),
        _foreseen(root, "probes", ("pooled",), names.probes, lambda name: probed(*names.probes[name][:2])),
        _foreseen(root, "change", ("features", "models"), names.changes, lambda name: sight.change(names.changes[name][0].model)),
    ]
    return [one for one in kinds if one.count]


def _fits(sight: _Sight) -> Iterator[tuple[str, tuple[str | None, str, bool]]]:
    """Stages of ridges: key of the model or None of low-level features, participant, whether something is taken out first."""
    config, people = sight.config, tuple(sight.lessons.train)
    for reading, owner in sight.names.features.values():
        for less in (False, True)[: 1 + bool(config.residualize)]:
            name = f"{reading.name} less {'+'.join(config.residualize)}" if less else reading.name
            for who in reading.folders(people)[owner]:
                for layer in config.layers or range(sight.encoder(reading.model).n_layers):
                    yield _layer("fits", sight, name, who, layer), (reading.model, who, less)
    for name in config.baselines:
        for who in people:
            yield _layer("fits", sight, name, who, 0), (None, who, False)


def _networks(sight: _Sight) -> Iterator[tuple[str, tuple[str, str]]]:
    """Stages of networks beside ridge: key of the model, participant."""
    people, mlp = tuple(sight.lessons.train), sight.config.mlp
    for reading, owner in sight.names.features.values():
        for layer in () if mlp is None else mlp.layers or (sight.encoder(reading.model).n_layers - 1,):
            for who in reading.folders(people)[owner]:
                yield _layer("mlp", sight, reading.name, who, layer), (reading.model, who)


def _layer(kind: str, sight: _Sight, name: str, who: str, layer: int) -> str:
    return f"{kind}/{Label(name, sight.config.align.delays).folder}/{who}/layer-{layer:02d}"


def say_foreseen(root: Path, kinds: Iterable[Foreseen], jobs: int) -> None:
    """Print the stages as a table, and the totals."""
    kinds = list(kinds)
    say(f"{'stages':<14}{'to make':>8}{'finished':>10}{'time':>10}{'memory':>10}{'disk':>10}  read")
    for one in kinds:
        spent = "" if math.isnan(one.cost.seconds) else duration(one.cost.seconds)
        sizes = "".join(f"{_size(size):>10}" for size in one.cost[1:])
        there = [name for name in one.reads if name in {other.kind for other in kinds}]
        say(f"{one.kind:<14}{one.count - one.finished:>8}{one.finished:>10}{spent:>10}{sizes}  {', '.join(there)}")
    known = sum(one.cost.seconds for one in kinds if not math.isnan(one.cost.seconds))
    disk = sum(one.cost.disk for one in kinds)
    above = next(path for path in (root, *root.absolute().parents) if path.exists())
    say(
        f"about {duration(known / jobs)} with {jobs} job{'s' if jobs > 1 else ''}, by small pieces of the work, timed now:"
        f" right to about a factor of 2\nmemory is that of the largest stage, beside the libraries; {disk / 1e9:.2g} GB on disk,"
        f" {shutil.disk_usage(above).free / 1e9:.3g} GB free\ndry run: nothing was made"
    )


def _size(n_bytes: float) -> str:
    """Bytes in MB or GB; "" if unknown."""
    if not n_bytes:
        return ""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(1, round(n_bytes / 1e6))} MB"


def _foreseen(root: Path, kind: str, reads: tuple[str, ...], names: Iterable[str], cost: Callable[[str], Cost]) -> Foreseen:
    names = list(names)
    left = [name for name in names if (before := read_signature(root / name)) is None or before.seconds is None]
    costs = [cost(name) for name in left]
    total = Cost(sum(one.seconds for one in costs), max((one.memory for one in costs), default=0), sum(one.disk for one in costs))
    return Foreseen(kind, reads, len(names), len(names) - len(left), total)


class _Sight:
    """Estimates the cost of single stages of a study."""

    def __init__(self, config: StudyConfig, data: Dataset | None) -> None:
        self.config = config
        self.encoder, self._timed = cache(self._encoder), cache(self._clip)  # caches: each model is loaded and timed once
        self.data: Dataset = Outline(config.world) if data is None else data
        self.lessons = _outlined(config, self.data) if data is None else ground_of(config, data).lessons
        self.names = Names(config, tuple(self.lessons.train))
        self._seconds = sum(self.data.n_rows(run) * self.data.tr for run in self._runs())
        regions = {who: regions_of(self.data, who, config.data.rois) for who in self.lessons.train}
        self._tuned: dict[Any, Any] = {}
        self._question = Question(self.data, self.lessons.train, regions, config.align)
        self._regions = {who: len(of) for who, of in regions.items()}
        self._fit, self._network, self._change = cache(rehearsal.fit), cache(rehearsal.network), cache(rehearsal.change)
        self._low_level = cache(rehearsal.low_level)

    def _runs(self) -> Iterator[str]:
        yield from (*self.lessons.runs(self.lessons.train), *self.lessons.runs(self.lessons.validation), self.data.test_story)

    def _encoder(self, key: str) -> SpeechEncoder:
        return SpeechEncoder(given_model(self.config.models[key]))

    def frames(self, key: str) -> Cost:
        """Cost of the frozen CNN on all clips."""
        frames, front, _ = self._timed(key)
        clips = self._seconds / self.data.tr
        return Cost(clips * front, 4 * frames, clips * 4 * frames)

    def layers(self, key: str) -> Cost:
        """Cost of all layers of all clips, from the outputs of the CNN."""
        frames, _, above = self._timed(key)
        clips, encoder = self._seconds / self.data.tr, self.encoder(key)
        rows = clips * read_config(self.config, self.data.tr).kept
        return Cost(clips * above, 4 * frames * encoder.n_layers, rows * 4 * encoder.n_layers * encoder.width)

    def tuning(self, run: Tuning, owner: str) -> Cost:
        """Cost of a tuning run."""
        some = shortened(self.lessons if run.together else only(self.lessons, owner), run.hours)
        shared = run.shares_frames and run.config.clip_seconds == read_config(self.config, self.data.tr).seconds
        # Shared CNN outputs are counted as stages "frames". Without simulated sounds, the cache of a run cannot be estimated.
        config = replace(run.config, cnn_cache="off") if shared or isinstance(self.data, Outline) else run.config
        voxels = tuple(len(chosen) for chosen in some.voxels.values())
        alike = (run.model, replace(config, seed=0, permutation=1), voxels, tuple(some.train.values()))  # timed once
        if alike not in self._tuned:
            self._tuned[alike] = cost_of(SpeechEncoder(given_model(self.config.models[run.model])), some, config)
        found = self._tuned[alike]
        return Cost(found.seconds, found.memory, found.disk)

    def world(self) -> Cost:
        """Stories that are told, and brains that hear them."""
        config = self.config.world
        minutes = len(config.train_stories) * config.story_minutes + config.story_minutes + config.test_minutes
        try:
            return Cost(minutes * rehearsal.world(config), 0, 0)
        except MissingLibraryError:  # nor can the study run here; the checks at its start say so
            return Cost(math.nan, 0, 0)

    def fit(self, key: str | None, who: str, less: bool) -> Cost:
        """The ridge of one layer in one brain."""
        width = _LOW_LEVEL_WIDTH if key is None else self.encoder(key).width
        nominal, memory, disk = fit_cost(self._question, who, width)
        ridge, scoring, taken_out = self._fit(*self._shape(who, width), self.config.align)
        made = self.config.baselines if key is None else self.config.residualize if less else ()
        low_level = sum(map(self._low_level, made)) / max(1, len(made) if key is None else 1)  # of baselines one at a time
        return Cost(max(nominal, ridge) + scoring + less * taken_out + low_level * self._seconds, memory, disk)

    def network(self, key: str, who: str) -> Cost:
        """The networks of one layer in one brain, and their ridges."""
        assert self.config.mlp is not None
        width = self.encoder(key).width
        seconds = self._network(*self._shape(who, width), self.config.align, self.config.mlp.network)
        return Cost(seconds, *fit_cost(self._question, who, width)[1:])

    def change(self, key: str) -> Cost:
        """All layers of a model against those before."""
        rows = self.data.n_rows(self.data.test_story) * read_config(self.config, self.data.tr).kept
        encoder = self.encoder(key)
        return Cost(encoder.n_layers * self._change(rows, encoder.width), 2 * 4 * rows * encoder.width, 0)

    def _shape(self, who: str, width: int) -> tuple[int, int, int, int, int]:
        """Fit rows, test rows, columns, voxels and regions of a fit."""
        rows = sum(self.data.n_rows(run) for run in self._question.heard[who])
        test = sum(part.stop - part.start for _, part in self._question.scored)
        return rows, test, width * len(self.config.align.delays), self.data.n_voxels(who), self._regions[who]

    def _clip(self, key: str) -> tuple[int, float, float]:
        """For one clip: number of values that the CNN outputs, seconds of the CNN, seconds of the layers above it."""
        torch, encoder = require("torch", "tune"), self.encoder(key)
        n = round(read_config(self.config, self.data.tr).seconds * encoder.sample_rate)
        noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, n)).astype(np.float32)).to(encoder.device)
        front = above = math.inf
        with torch.inference_mode():
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                frames = encoder.cnn(noise)
                middle = time.perf_counter()
                encoder.layers(frames)
                front, above = middle - began, time.perf_counter() - middle
        return frames.numel(), front, above


def _outlined(config: StudyConfig, data: Dataset) -> Lessons:
    """Lessons in simulated data that are not made yet: every voxel of the driven regions is tuned on."""
    regions = {who: data.rois(who) for who in data.participants}
    voxels = {who: np.concatenate([one[name] for name in one if name != "silent"]) for who, one in regions.items()}
    asked = config.data
    return choose_lessons(
        data, participants=asked.participants, validation=asked.validation or (), exclude=asked.exclude, voxels=voxels
    )
