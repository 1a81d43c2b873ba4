"""Batches of clips with the responses of all who heard them: their order, which part is this process's, made ahead of time.

The order of an epoch follows from the seed and the epoch's number alone, so training goes on from any update without the state of
a generator. A batch is cut into parts of ``config.batch`` clips: ``config.accumulate`` for each process. What is computed of all
parts is that of the whole batch.

Axis letters: b clip of a part, n audio sample, f frame, c CNN channel, r row whose responses are predicted, v voxel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Clips, Lessons

__all__ = ["Batch", "Part", "Place", "Sources", "ahead", "batches_in_order", "order_of_epoch"]

_AHEAD = 2  # batches that are made while one is used: then the loop need not wait for one that is slow to read


@dataclass(frozen=True)
class Place:
    """Where some rows of responses stand.

    Attributes
    ----------
    runs, rows : ndarray, shape (r,), intp
        Of each row, the index of its run in :attr:`Sources.runs`, and its number in the run.
    """

    runs: NDArray[np.intp]
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.runs)

    def split(self, n: int) -> list[Place]:
        """As ``n`` parts that follow one another; the first ones are longer where they are not equal, the last may be empty."""
        parts = np.array_split(np.arange(len(self)), n)
        return [Place(self.runs[part], self.rows[part]) for part in parts]


def order_of_epoch(n_rows: Sequence[int], epoch: int, size: int, config: TuneConfig) -> list[Place]:
    """The batches of an epoch, ``size`` clips in each; those at the end of a run, or of the epoch, may be smaller.

    Parameters
    ----------
    n_rows : sequence of int
        Rows of each run.
    epoch : int
    size : int
        Clips in a batch, of all processes together.
    config : TuneConfig
        ``order`` and ``seed``.
    """
    rng = np.random.default_rng([config.seed, 11, epoch])
    if config.order == "shuffled":
        runs = np.repeat(np.arange(len(n_rows)), n_rows)
        order = rng.permutation(len(runs))
        rows = np.concatenate([np.arange(n) for n in n_rows])
        return [Place(runs[part], rows[part]) for part in _cut(order, size)]
    batches = []
    for run, n in enumerate(n_rows):
        rows = rng.permutation(n) if config.order == "story" else np.arange(n)
        batches += [Place(np.full(len(part), run), part) for part in _cut(rows, size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def batches_in_order(n_rows: Sequence[int], size: int) -> list[Place]:
    """All rows in order, in batches of at most ``size`` rows of one run: for validation."""
    return [Place(np.full(len(part), run), part) for run, n in enumerate(n_rows) for part in _cut(np.arange(n), size)]


def _cut(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass
class Part:
    """Clips that go through the model at once.

    Attributes
    ----------
    clips : (b, n) or (b, f, c) tensor
        Samples, or frames of the CNN.
    ends : (b,) float64
        When each clip ends, in s from the onset of its sound.
    keep : slice
        The r clips whose responses are predicted. Before and after them lie those of :attr:`Sources.halo`.
    targets : participant → ((r',) int64 tensor, (r', v) float32 tensor)
        Those of the r rows whose run the participant heard, as their numbers from 0 to r − 1; and the targets of these rows.
    runs : tuple of str
        The run of each of the r rows.
    """

    clips: torch.Tensor
    ends: NDArray[np.float64]
    keep: slice
    targets: dict[str, tuple[torch.Tensor, torch.Tensor]]
    runs: tuple[str, ...]

    def to(self, device: str) -> Part:
        """The same on a device; pinned memory is copied while the processor goes on."""
        if device == "cpu":
            return self
        targets = {
            who: (rows.to(device, non_blocking=True), values.to(device, non_blocking=True))
            for who, (rows, values) in self.targets.items()
        }
        return Part(self.clips.to(device, non_blocking=True), self.ends, self.keep, targets, self.runs)


@dataclass
class Batch:
    """This process's parts of a batch.

    Attributes
    ----------
    parts : list of Part
        Each has at least one clip.
    clips : int
        In the whole batch, of all processes.
    share : participant → float
        What each participant's mean loss is multiplied by: the mean over clips of 1 / (participants who heard the clip). These
        add up to 1. Who heard none of the clips is not there.
    stories : tuple of str
        The runs of the whole batch.
    """

    parts: list[Part]
    clips: int
    share: dict[str, float]
    stories: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Where batches come from.

    Attributes
    ----------
    lessons : Lessons
    runs : tuple of str
        All runs that somebody heard; :attr:`Place.runs` counts them from 0 on.
    heard : participant → runs
    clips : Clips
    targets : (participant, run) → (t, v) float32
        NaN where a response is missing.
    source_rows : (participant, run) → ((t,) int, (t,) int)
        Of each row, the run (an index into ``heard`` of the participant) and the row there that its targets are taken from, as
        :func:`fastencode.tune.targets.source_rows` gives them. A row of a run that is not there has its own.
    halo : (int, int)
        How many clips before and after the rows of a part the head reads, too.
    """

    lessons: Lessons
    runs: tuple[str, ...]
    heard: Mapping[str, tuple[str, ...]]
    clips: Clips
    targets: Mapping[tuple[str, str], NDArray[np.float32]]
    source_rows: Mapping[tuple[str, str], tuple[NDArray[np.intp], NDArray[np.intp]]]
    halo: tuple[int, int]

    @property
    def n_rows(self) -> list[int]:
        """Rows of each of ``runs``."""
        return [self.lessons.data.n_rows(run) for run in self.runs]

    def batch(self, place: Place, config: TuneConfig, rank: int, processes: int, *, pin: bool = False) -> Batch:
        """This process's parts of a batch: parts ``rank``, ``rank + processes``, ``rank + 2 processes`` and so on.

        With ``pin``, tensors lie in memory from which a device copies while the processor goes on.
        """
        # Several processes share a short batch evenly; parts without clips are left out below.
        parts = place.split(-(-len(place) // config.batch) if processes == 1 else processes * config.accumulate)
        listeners = {
            who: np.isin(place.runs, [self.runs.index(run) for run in runs if run in self.runs])
            for who, runs in self.heard.items()
            if who in self.lessons.voxels
        }
        n_listeners = np.maximum(sum((heard.astype(int) for heard in listeners.values()), np.zeros(len(place), int)), 1)
        share = {who: float((heard / n_listeners).sum()) for who, heard in listeners.items() if heard.any()}
        total = sum(share.values())
        return Batch(
            [self.part(one, pin=pin) for one in parts[rank::processes] if len(one)],
            len(place),
            {who: one / total for who, one in share.items()},
            tuple(self.runs[run] for run in dict.fromkeys(place.runs.tolist())),
        )

    def part(self, place: Place, *, pin: bool = False) -> Part:
        """The clips and targets of some rows; with a ``halo``, of consecutive rows of one run."""
        names = [self.runs[run] for run in place.runs]
        ends, keep = self._ends(place)
        if self.halo != (0, 0):
            clips = self.clips.read(self.lessons.data.recording(names[0]), ends)
        else:
            clips = self._clips(place, ends)
        targets = {}
        for who in self.lessons.people:
            rows = np.flatnonzero([name in self.heard[who] for name in names])
            if len(rows):
                values = np.stack([self._target(who, names[row], int(place.rows[row])) for row in rows])
                targets[who] = _tensor(rows, pin), _tensor(values, pin)
        return Part(_tensor(clips, pin), ends, keep, targets, tuple(names))

    def _ends(self, place: Place) -> tuple[NDArray[np.float64], slice]:
        """When each clip of a part ends, in s, with those of the halo as far as there is sound; and which are its rows."""
        of_run = {run: self.lessons.ends(self.runs[run]) for run in dict.fromkeys(place.runs.tolist())}
        own = np.array([of_run[run][row] for run, row in zip(place.runs.tolist(), place.rows.tolist(), strict=True)])
        if self.halo == (0, 0):
            return own, slice(0, len(own))
        tr, (before, after) = self.lessons.data.tr, self.halo
        earlier = own[0] - tr * np.arange(before, 0, -1)
        later = own[-1] + tr * np.arange(1, after + 1)
        earlier, later = earlier[earlier > tr - 1e-6], later[later <= self._last(self.runs[place.runs[0]]) + 1e-6]
        return np.concatenate([earlier, own, later]), slice(len(earlier), len(earlier) + len(own))

    def _last(self, run: str) -> float:
        """How long the sound of a run is, in s: no later clip is read."""
        return self.clips.seconds(self.lessons.data.recording(run))

    def _clips(self, place: Place, ends: NDArray[np.float64]) -> NDArray[np.float32]:
        """Clips of several runs, each read in one call."""
        out: NDArray[np.float32] | None = None
        for run in dict.fromkeys(place.runs.tolist()):
            here = np.flatnonzero(place.runs == run)
            clips = self.clips.read(self.lessons.data.recording(self.runs[run]), ends[here])
            if len(here) == len(ends):
                return clips
            out = np.empty((len(ends), *clips.shape[1:]), np.float32) if out is None else out
            out[here] = clips
        assert out is not None
        return out

    def _target(self, who: str, run: str, row: int) -> NDArray[np.float32]:
        """What one row of a participant is to become, (v,)."""
        if (who, run) in self.source_rows:
            runs, rows = self.source_rows[who, run]
            return self.targets[who, self.heard[who][runs[row]]][rows[row]]
        return self.targets[who, run][row]


def _tensor(values: NDArray, pin: bool) -> torch.Tensor:
    made = torch.from_numpy(np.ascontiguousarray(values))
    return made.pin_memory() if pin else made


def ahead(
    sources: Sources, places: Sequence[Place], config: TuneConfig, rank: int, processes: int, *, pin: bool = False
) -> Iterator[Batch]:
    """Batches in order; a thread makes the next ones while one is used."""
    with ThreadPoolExecutor(1) as pool:
        begun: deque[Future[Batch]] = deque()
        try:
            for place in places:
                begun.append(pool.submit(sources.batch, place, config, rank, processes, pin=pin))
                if len(begun) > _AHEAD:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for one in begun:
                one.cancel()
