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

__all__ = ["Batch", "Part", "Place", "Sources", "ahead", "find_batches", "order_of_epoch"]

_AHEAD = 2  # batches that are made while one is used


@dataclass(frozen=True)
class Place:
    """Some rows: of each the index of its run, and its number there, both (r,)."""

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


def find_batches(n_rows: Sequence[int], size: int) -> list[Place]:
    """All rows in order, for validation."""
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
        When each ends, in s from the onset of its sound.
    keep : slice
        Those whose responses are predicted; around them lie clips that the head needs besides.
    learned : participant → ((r,) int64 tensor, (r, v) float32 tensor)
        Which of the kept rows the participant has responses to, and these.
    runs : tuple of str
        Of each kept row.
    """

    clips: torch.Tensor
    ends: NDArray[np.float64]
    keep: slice
    learned: dict[str, tuple[torch.Tensor, torch.Tensor]]
    runs: tuple[str, ...]

    def to(self, device: str) -> Part:
        """The same on a device."""
        if device == "cpu":
            return self
        learned = {
            who: (rows.to(device, non_blocking=True), values.to(device, non_blocking=True))
            for who, (rows, values) in self.learned.items()
        }
        return Part(self.clips.to(device, non_blocking=True), self.ends, self.keep, learned, self.runs)


@dataclass
class Batch:
    """This process's parts of a batch.

    Attributes
    ----------
    parts : list of Part
        Without those that have no clip.
    clips : int
        Of all processes.
    share : participant → float
        The weight of each one's mean loss: the mean over clips of 1 / (participants who heard the clip). They add up to 1.
    stories : tuple of str
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
        What places count.
    heard : participant → runs
    clips : Clips
    targets : (participant, run) → (t, v) float32
    taken : (participant, run) → ((t,) int, (t,) int), optional
        Which run (an index into the participant's own) and which row there the targets of each row are; by default its own.
    halo : (int, int)
        Clips that the head needs before and after the rows of a part.
    """

    lessons: Lessons
    runs: tuple[str, ...]
    heard: Mapping[str, tuple[str, ...]]
    clips: Clips
    targets: Mapping[tuple[str, str], NDArray[np.float32]]
    taken: Mapping[tuple[str, str], tuple[NDArray[np.intp], NDArray[np.intp]]]
    halo: tuple[int, int]

    @property
    def n_rows(self) -> list[int]:
        return [self.lessons.data.n_rows(run) for run in self.runs]

    def batch(self, place: Place, config: TuneConfig, rank: int, processes: int, *, pin: bool = False) -> Batch:
        """This process's parts of a batch: of the parts in order, every one whose number leaves ``rank``."""
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
        names = [self.runs[run] for run in place.runs]
        ends, keep = self._ends(place)
        if self.halo != (0, 0):
            clips = self.clips.read(self.lessons.data.recording(names[0]), ends)
        else:
            clips = self._clips(place, ends)
        learned = {}
        for who in self.lessons.people:
            rows = np.flatnonzero([name in self.heard[who] for name in names])
            if len(rows):
                values = np.stack([self._target(who, names[row], int(place.rows[row])) for row in rows])
                learned[who] = _tensor(rows, pin), _tensor(values, pin)
        return Part(_tensor(clips, pin), ends, keep, learned, tuple(names))

    def _ends(self, place: Place) -> tuple[NDArray[np.float64], slice]:
        """Of all clips of a part, with those around its rows as far as there is sound, and which are its rows."""
        ends = [self.lessons.ends(self.runs[run]) for run in dict.fromkeys(place.runs.tolist())]
        of_run = dict(zip(dict.fromkeys(place.runs.tolist()), ends, strict=True))
        own = np.array([of_run[run][row] for run, row in zip(place.runs.tolist(), place.rows.tolist(), strict=True)])
        if self.halo == (0, 0):
            return own, slice(0, len(own))
        tr, (before, after) = self.lessons.data.tr, self.halo
        earlier = own[0] - tr * np.arange(before, 0, -1)
        later = own[-1] + tr * np.arange(1, after + 1)
        earlier, later = earlier[earlier > tr - 1e-6], later[later <= self._last(self.runs[place.runs[0]]) + 1e-6]
        return np.concatenate([earlier, own, later]), slice(len(earlier), len(earlier) + len(own))

    def _last(self, run: str) -> float:
        """When the last clip of a run ends that has sound."""
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
        if (who, run) in self.taken:
            runs, rows = self.taken[who, run]
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
