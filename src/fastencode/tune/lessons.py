"""Who heard what, and what of their brains is learned: the data set as the trainer sees it, and what it keeps of it on disk.

    sound ─► clips, one for each scan          responses ─► z-scored within each run ─► targets, as the arm says

Nothing is in memory whole: targets, decoded sound and the frames of the frozen CNN lie in files that are read row by row.

Axis letters: n audio sample, f frame, c CNN channel, t row (scan), v voxel, b clip of a batch.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import make_folder, sha256, whole_file
from fastencode.speech.audio import audio_seconds, read_audio
from fastencode.speech.layers import SpeechEncoder, unit_variance
from fastencode.speech.store import FeatureFile, is_finished, map_features
from fastencode.timing.clean import zscore
from fastencode.tune.config import TuneConfig

__all__ = ["CachedFrames", "Clips", "Lessons", "Sounds", "cache_responses", "choose_lessons", "digests", "write_rows"]


@dataclass(frozen=True)
class Lessons:
    """Who heard what, and which of their voxels are learned.

    Attributes
    ----------
    data : Dataset
    train, validation : participant → runs
        What each of them heard. No gradient comes from the validation runs.
    voxels : participant → (v,) indices
        The columns of their responses that are predicted. Without participants nothing of brains is learned.
    weights : participant → (v,) float32
        Of these voxels in the loss; all alike where a participant has none.
    """

    data: Dataset
    train: Mapping[str, tuple[str, ...]]
    validation: Mapping[str, tuple[str, ...]]
    voxels: Mapping[str, NDArray[np.intp]]
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(self.train.values()):
            raise InputError("there is no run to learn from: name at least one story besides those of validation and test")
        for who in self.voxels:
            if not len(self.voxels[who]):
                raise InputError(f"{who} has no voxel to learn: choose more, or leave {who} out")
            if who in self.weights and len(self.weights[who]) != len(self.voxels[who]):
                counts = f"{len(self.weights[who])} weights for {len(self.voxels[who])} voxels"
                raise InputError(f"{who} has {counts}: give one for each")
            if both := set(self.train[who]) & set(self.validation.get(who, ())):
                raise InputError(f"{who} learns from {sorted(both)[0]}, which is for validation: name it once")
            for use, runs in (("learn from", self.train[who]), ("be validated on", self.validation.get(who, ()))):
                if self.data.test_story in runs:
                    raise InputError(f"{who} would {use} {self.data.test_story}, the test story: leave it out")

    @property
    def people(self) -> tuple[str, ...]:
        """Those who have a head."""
        return tuple(self.voxels)

    def runs(self, heard: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """The runs that anybody heard, in the order in which they are named first."""
        return tuple(dict.fromkeys(run for runs in heard.values() for run in runs))

    def ends(self, run: str) -> NDArray[np.float64]:
        """When each row's scan ended, (t,) in s from the onset of the sound: its clip ends there."""
        return self.data.row_times(run) + self.data.tr

    def sounds(self) -> dict[str, Path]:
        """The recordings that are heard: name → file."""
        runs = (*self.runs(self.train), *self.runs(self.validation))
        return {self.data.recording(run): self.data.sound_file(run) for run in runs}

    def check_sounds(self) -> None:
        """Raise an :class:`InputError` if a recording is shorter than its scans; all of them at once."""
        short = []
        for run in (*self.runs(self.train), *self.runs(self.validation)):
            path = self.data.sound_file(run)
            seconds, last = audio_seconds(path), float(self.ends(run)[-1])
            if last > seconds + 1e-3:
                short.append(f"{path} lasts {seconds:.1f} s, but the last scan of {run} ends at {last:g} s")
        if short:
            raise InputError("; ".join(short) + ": is this the recording that was heard, and the right TR?")

    def check_responses(self) -> None:
        """Raise an :class:`InputError` if responses have other rows than their scans, or none that is finite; all at once."""
        wrong = []
        for who in self.people:
            for run in (*self.train[who], *self.validation.get(who, ())):
                try:
                    _read(self, who, run)
                except InputError as error:
                    wrong.append(str(error))
        if wrong:
            raise InputError("\n".join(wrong))


def choose_lessons(
    data: Dataset,
    *,
    participants: Sequence[str] = (),
    validation: Sequence[str] = (),
    exclude: Sequence[str] = (),
    voxels: Mapping[str, NDArray[np.intp]] | None = None,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
) -> Lessons:
    """All that participants heard, without the test story; all of their voxels, unless told which.

    Parameters
    ----------
    data : Dataset
    participants : sequence of str
        All by default.
    validation : sequence of str
        Stories that are only predicted; of each participant, those of them that the participant heard.
    exclude : sequence of str
        Stories that are left out.
    voxels : participant → (v,) indices, optional
    weights : participant → (v,) float32, optional

    Raises
    ------
    InputError
        If there is no such participant, nobody heard a story, or nothing is left to learn from.
    """
    everybody = list(data.participants)
    if unknown := [who for who in participants if who not in everybody]:
        raise InputError(f"there is no participant {unknown[0]!r}: there are {', '.join(everybody)}")
    people = list(participants) or everybody
    heard = {who: list(data.stories(who)) for who in people}
    named = {"validation": validation, "exclude": exclude}
    for option, stories in named.items():
        if lost := [story for story in stories if not any(story in one for one in heard.values())]:
            said = f"{option} names {lost[0]!r}, which none of {', '.join(people)} heard"
            raise InputError(f"{said}: name others, or [] for none")
    left_out = {*validation, *exclude, data.test_story}
    train = {who: tuple(run for run in heard[who] if run not in left_out) for who in people}
    if idle := [who for who in people if not train[who]]:
        raise InputError(
            f"{idle[0]} heard no story to learn from besides those of validation, test and exclude: leave {idle[0]} out"
        )
    watched = {who: tuple(run for run in validation if run in heard[who]) for who in people}
    chosen = {who: np.arange(data.n_voxels(who)) for who in people} if voxels is None else {who: voxels[who] for who in people}
    return Lessons(data, train, watched, chosen, dict(weights or {}))


class Clips(Protocol):
    """The clips that end at given times of a run."""

    def read(self, recording: str, ends: NDArray[np.float64], /) -> NDArray[np.float32]:
        """(b, n) samples, or (b, f, c) frames of the CNN, float32; in memory of its own."""

    def seconds(self, recording: str, /) -> float:
        """How long a recording is, in s."""


class CachedFrames:
    """Clips as the frozen CNN's frames: files of :func:`fastencode.speech.extract.extract_frames`, mapped into memory.

    Parameters
    ----------
    files : recording → path
    tr : float
        Repetition time in s: clip k of a file, from 0 on, ends at (k + 1) · tr.
    """

    def __init__(self, files: Mapping[str, Path], tr: float) -> None:
        self._tr, self._files = tr, dict(files)
        self._frames = {name: map_features(path) for name, path in files.items()}

    def read(self, recording: str, ends: NDArray[np.float64]) -> NDArray[np.float32]:
        """As :meth:`Clips.read`: (b, f, c) frames."""
        frames, rows = self._frames[recording], self._rows(recording, ends)
        out = np.empty((len(rows), *frames.shape[1:]), np.float32)
        for place, row in enumerate(rows):  # one after the other: NumPy's own selection of rows copies twice
            out[place] = frames[row]
        return out

    def seconds(self, recording: str) -> float:
        """As :meth:`Clips.seconds`."""
        return len(self._frames[recording]) * self._tr

    def check(self, recording: str, ends: NDArray[np.float64]) -> None:
        """Raise an :class:`InputError` if no clip ends at one of the times."""
        self._rows(recording, ends)

    def _rows(self, recording: str, ends: NDArray[np.float64]) -> NDArray[np.intp]:
        rows = np.rint(np.asarray(ends) / self._tr).astype(np.intp) - 1
        path, count = self._files[recording], len(self._frames[recording])
        if not np.allclose((rows + 1) * self._tr, ends, rtol=0, atol=1e-5):
            raise InputError(f"rows end at other times than the clips of {path}: rows must end at multiples of the TR")
        if len(rows) and not (rows.min() >= 0 and rows.max() < count):
            raise InputError(
                f"rows end at {min(ends):g} to {max(ends):g} s, but {path} has clips from {self._tr:g} to {count * self._tr:g} s:"
                " is this the recording that was heard?"
            )
        return rows


class Sounds:
    """Clips cut from recordings that are decoded once, into ``folder``.

    Parameters
    ----------
    sounds : recording → path
    encoder : SpeechEncoder
        Its sample rate, and whether it wants clips of zero mean and unit variance.
    folder : Path
        Gets ``<recording>.npy``, (n,) float32; what is there already is used.
    config : TuneConfig
    """

    def __init__(self, sounds: Mapping[str, Path], encoder: SpeechEncoder, folder: Path, config: TuneConfig) -> None:
        make_folder(folder)
        self._rate, self._n = encoder.sample_rate, round(config.clip_seconds * encoder.sample_rate)
        self._normalize = encoder.normalize and config.normalize == "clip"
        self._batch = config.normalize == "batch"
        self._sounds: dict[str, NDArray[np.float32]] = {}
        for name, source in sounds.items():
            path = folder / f"{name}.npy"
            if not path.exists():
                with whole_file(path) as partial, partial.open("wb") as file:
                    np.save(file, read_audio(source, sample_rate=self._rate))
            self._sounds[name] = np.load(path, mmap_mode="r")

    def read(self, recording: str, ends: NDArray[np.float64]) -> NDArray[np.float32]:
        """As :meth:`Clips.read`: (b, n) samples, 0 before the recording began."""
        sound, clips = self._sounds[recording], np.zeros((len(ends), self._n), np.float32)
        for clip, end in zip(clips, np.rint(np.asarray(ends) * self._rate).astype(np.intp), strict=True):
            stop = min(int(end), len(sound))
            start = max(0, stop - self._n)
            clip[self._n - (stop - start) :] = sound[start:stop]
        if self._batch:  # as a published code does: one mean and one variance for the whole batch
            return (clips - clips.mean()) / np.sqrt(clips.var() + np.float32(1e-7))
        # By torch, as frames for the cache are made: NumPy adds in another order.
        return unit_variance(torch.from_numpy(clips)).numpy() if self._normalize else clips

    def seconds(self, recording: str) -> float:
        """As :meth:`Clips.seconds`."""
        return len(self._sounds[recording]) / self._rate


def cache_responses(lessons: Lessons, folder: Path, files: Mapping[str, str]) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Responses of all runs, z-scored within each, in files that are mapped into memory.

    Parameters
    ----------
    lessons : Lessons
    folder : Path
        Gets ``<participant>/<run>.h5``, (t, 1, v) float32. What is finished there is kept.
    files : path → digest
        Of the files that hold the responses: part of what decides the values.

    Returns
    -------
    (participant, run) → (t, v) float32
        NaN where a response is missing; 0 in columns that are constant.

    Raises
    ------
    InputError
        If a run has another number of rows than it should, or no value at all.
    """
    found = {}
    for who, voxels in lessons.voxels.items():
        make_folder(folder / who)
        for run in (*lessons.train[who], *lessons.validation.get(who, ())):
            path = folder / who / f"{run}.h5"
            digests = sorted(files[str(one)] for one in lessons.data.response_files(who, run))
            censored = np.flatnonzero(~lessons.data.kept(who, run)).tolist()
            key: dict[str, Any] = {"censored": censored} if censored else {}
            key |= {"responses": digests, "voxels": hashlib.sha256(np.asarray(voxels, np.int64).tobytes()).hexdigest()}
            if not is_finished(path, key):
                write_rows(path, lessons.ends(run), _zscored(_read(lessons, who, run)), key)
            found[who, run] = map_features(path)[:, 0]
    return found


def write_rows(path: Path, times: NDArray[np.float64], rows_tv: NDArray[np.float32], key: Mapping[str, Any]) -> None:
    """Write targets (t, v) as a file of :mod:`fastencode.speech.store`, one row a scan; rows that it holds already are kept."""
    with FeatureFile(path, times, (1, rows_tv.shape[1]), np.dtype(np.float32), key, "scan, 1, voxel") as file:
        file.write(file.missing, rows_tv[file.missing, None])


def _read(lessons: Lessons, who: str, run: str) -> NDArray[np.float32]:
    """Responses of one participant to one run as the data set has them, (t, v); NaN where one is missing or a scan censored."""
    with warnings.catch_warnings():  # said once, by what chose the voxels
        warnings.simplefilter("ignore", FastencodeWarning)
        values = lessons.data.responses(who, run, voxels=lessons.voxels[who])
    rows = lessons.data.n_rows(run)
    if len(values) != rows:
        raise InputError(f"{who} has {len(values)} rows of responses to {run}, expected {rows}: check the data set")
    if not (kept := lessons.data.kept(who, run)).all():
        values = np.where(kept[:, None], values, np.float32(np.nan))
    if not np.isfinite(values).any():
        raise InputError(f"{who} has no finite response to {run} in the {values.shape[1]} voxels that are learned: leave it out")
    return values


def _zscored(values_tv: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each column to mean 0 and standard deviation 1 over the rows that are there; infinite values count as missing."""
    missing = ~np.isfinite(values_tv)
    if not missing.any():
        return zscore(values_tv)
    out = np.full_like(values_tv, np.nan)
    whole = ~missing.any(axis=0)
    out[:, whole] = zscore(values_tv[:, whole])
    for column in np.flatnonzero(~whole & ~missing.all(axis=0)):
        there = ~missing[:, column]
        out[there, column] = zscore(values_tv[there, column])
    return out


def digests(paths: Sequence[Path], known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Path → size in bytes, time of change in ns and SHA-256 of files.

    A file that is as large and as old as ``known`` says is not read again: its digest there is kept.
    """
    found = {}
    for path in dict.fromkeys(paths):
        state = path.stat()
        now = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
        before = known.get(str(path), {})
        same = all(before.get(name) == value for name, value in now.items()) and "sha256" in before
        found[str(path)] = {**now, "sha256": before["sha256"] if same else sha256(path)}
    return found
