"""The dry run of a study: how many stages of each kind there are, and estimates of their time, memory and disk space.

Times of models are extrapolated from one batch of noise that is timed now; all other estimates follow from array shapes. If the
data are simulated and not made yet, their shapes follow from the settings.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastencode.data.dataset import Dataset
from fastencode.errors import require
from fastencode.progress import say
from fastencode.runs.estimates import fit_cost
from fastencode.runs.executors import settle
from fastencode.runs.fits import Question
from fastencode.runs.making import read_signature
from fastencode.runs.studies.config import DEMO, SPOKEN, StudyConfig
from fastencode.runs.studies.names import Names
from fastencode.runs.studies.readings import Tuning
from fastencode.runs.studies.regions import regions_of
from fastencode.runs.studies.stages import given_model, ground_of, read_config
from fastencode.runs.tally import duration
from fastencode.runs.tuning import only, shortened
from fastencode.speech.layers import SpeechEncoder
from fastencode.study.brains.tables import Label
from fastencode.tune.cost import cost_of
from fastencode.tune.lessons import Lessons, choose_lessons
from fastencode.world.outline import Outline

__all__ = ["Foreseen", "foresee_study", "say_foreseen"]


class Cost(NamedTuple):
    """Estimates for one stage: seconds (NaN if unknown), bytes of memory without the libraries, bytes on disk."""

    seconds: float
    memory: float
    disk: float


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
    sight = _Sight(config, data)
    names, people = sight.names, sight.lessons.train
    count = config.layers or range(max(sight.encoder(reading.model).n_layers for reading in names.readings))
    fits = {
        f"fits/{Label(reading.name, config.align.delays).folder}/{who}/layer-{layer:02d}": (reading.model, who)
        for reading, owner in names.features.values()
        for who in reading.folders(tuple(people))[owner]
        for layer in count
    }
    world = ["world"] if config.data.is_demo else []
    spoken = dict.fromkeys(f"corpora/{SPOKEN[one][0]}" for one in names.corpora if config.probes.corpora[one] == DEMO)
    networks = _networks(sight)
    kinds = [
        _foreseen(root, "world", (), world, lambda _: Cost(math.nan, 0, 0)),
        _foreseen(root, "corpora", (), spoken, lambda _: Cost(math.nan, 0, 0)),
        _foreseen(root, "frames", ("world",), names.frames, lambda name: sight.frames(names.frames[name])),
        _foreseen(root, "models", ("frames",), names.models, lambda name: sight.tuning(*names.models[name])),
        _foreseen(
            root, "features", ("frames", "models"), names.features, lambda name: sight.layers(names.features[name][0].model)
        ),
        _foreseen(root, "fits", ("features",), fits, lambda name: sight.fit(*fits[name])),
        _foreseen(root, "mlp", ("features",), networks, lambda _: Cost(math.nan, 0, 0)),
        _foreseen(root, "pooled", ("corpora", "models"), names.pooled, lambda _: Cost(math.nan, 0, 0)),
        _foreseen(root, "probes", ("pooled",), names.probes, lambda _: Cost(math.nan, 0, 0)),
        _foreseen(root, "change", ("features", "models"), names.changes, lambda _: Cost(math.nan, 0, 0)),
    ]
    return [one for one in kinds if one.count]


def _networks(sight: _Sight) -> Iterator[str]:
    """Names of the stages that fit networks beside ridge."""
    people, mlp = tuple(sight.lessons.train), sight.config.mlp
    for reading, owner in sight.names.features.values():
        for layer in () if mlp is None else mlp.layers or (sight.encoder(reading.model).n_layers - 1,):
            for who in reading.folders(people)[owner]:
                yield f"mlp/{Label(reading.name, sight.config.align.delays).folder}/{who}/layer-{layer:02d}"


def say_foreseen(root: Path, kinds: Iterable[Foreseen], jobs: int) -> None:
    """Print the stages as a table, and the totals."""
    kinds = list(kinds)
    say(f"{'stages':<10}{'to run':>8}{'finished':>10}{'time':>10}{'memory':>10}{'disk':>10}  reads")
    for one in kinds:
        spent = "" if math.isnan(one.cost.seconds) else duration(one.cost.seconds)
        sizes = "".join(f"{_size(size):>10}" for size in one.cost[1:])
        there = [name for name in one.reads if name in {other.kind for other in kinds}]
        say(f"{one.kind:<10}{one.count - one.finished:>8}{one.finished:>10}{spent:>10}{sizes}  {', '.join(there)}")
    known = sum(one.cost.seconds for one in kinds if not math.isnan(one.cost.seconds))
    disk = sum(one.cost.disk for one in kinds)
    above = next(path for path in (root, *root.absolute().parents) if path.exists())
    say(
        f"about {duration(known / jobs)} for models and ridge regressions with {jobs} job{'s' if jobs > 1 else ''}, from batches"
        f" timed now and nominal rates; simulation, corpora, networks and probes are not included\nmemory: of the largest stage,"
        f" without the libraries; disk: {disk / 1e9:.2g} GB, {shutil.disk_usage(above).free / 1e9:.3g} GB are free\n"
        f"dry run: nothing was made"
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

    def fit(self, key: str, who: str) -> Cost:
        """Cost of the ridge regression of one layer in one participant."""
        return Cost(*fit_cost(self._question, who, self.encoder(key).width))

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
