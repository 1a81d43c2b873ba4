"""Probe tasks: the labels of recordings (one class, several labels, or numbers) and their splits.

A task is built from a corpus before any features are read. :meth:`Task.rows` then finds its recordings among the rows of a
model's features. The order of rows is that of the corpus for every model, so bootstrap draws of speakers are the same for all
models.

Axis letters: n recording of the task, r row of features, k class, label or target.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.data.recordings import SPLITS, Recording
from fastencode.data.textgrid import Interval
from fastencode.errors import InputError, warn
from fastencode.study.probing.labels import (
    COEFFICIENTS,
    Truth,
    numbers_of,
    phone_sets_of,
    phones_of,
    text_labels_of,
    words_of,
)
from fastencode.study.probing.splits import WITHIN, of_each_speaker, said_in, what_follows, within_speakers

__all__ = ["TASKS", "Corpus", "Rows", "Task", "check_name", "check_parts", "task_of"]

TASKS = {
    "mfcc": "MFCC trajectory of an utterance",
    "word": "which word is spoken (recordings with the label word, such as those of Speech Commands)",
    "phonemes": "which of 39 phones occur in an utterance (TIMIT)",
    "phones": "which of 39 phones is spoken in each frame (TIMIT)",
    "sentence_type": "SA, SI or SX (TIMIT)",
    "sx_si": "SX or SI (TIMIT)",
    "label:KIND": "any label of the corpus or column of its manifest; semicolons separate several labels",
    "number:KIND": "any numeric label",
}
"""Name of a task → what is predicted."""

_OF_TIMIT = ("phonemes", "phones", "sentence_type", "sx_si")
_OF_PHONES = ("phonemes", "phones")
_SHOWN = 5


class Corpus(Protocol):
    """The part of :class:`fastencode.data.corpora.Corpus` that tasks use."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def recordings(self) -> Mapping[str, Recording]: ...


class Rows(NamedTuple):
    """The rows of a model's features that belong to a task, with their labels.

    Attributes
    ----------
    rows : ndarray of int, shape (r,)
        Row numbers in the features.
    labels : ndarray
        (r,) text for classification, (r, k) bool for several labels, (r, k) float64 for regression.
    groups : ndarray of text, shape (r,), or None
        Speakers; None if unknown, or if the task is to identify them.
    split : ndarray of text, shape (r,)
        "train", "validation" or "test".
    types : ndarray of text, shape (r,), or None
        Rows of equal type get the same shuffled label in a control: the sentence, or for frames the word ("" outside words).
    items : ndarray of text, shape (r,), or None
        What test rows are a sample of besides speakers: words or texts that are not in the training split.
    """

    rows: NDArray[np.intp]
    labels: NDArray[Any]
    groups: NDArray[np.str_] | None
    split: NDArray[np.str_]
    types: NDArray[np.str_] | None = None
    items: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Task:
    """Labels and splits of recordings.

    Attributes
    ----------
    name : str
    kind : {"classification", "multilabel", "regression"}
    keys : tuple of str
        Keys of the recordings in the corpus, (n,).
    paths : tuple of Path
        Sound files, (n,).
    split : tuple of str
        Splits, (n,).
    groups : tuple of str or None
        Speakers, (n,).
    classes : tuple of str
        Names of the classes, labels or targets, (k,).
    labels : ndarray or None
        (n,) text, (n, k) bool or (n, k) float64. None for ``mfcc``, whose labels
        :func:`fastencode.study.probing.labels.trajectories` computes from the sounds, and for tasks on frames.
    phones : tuple of tuple of Interval, or None
        For tasks on frames: the phones of each recording with their times in s.
    types : tuple of str or None
        The text of each recording, (n,): recordings of equal text get the same shuffled label in a control.
    items : tuple of str or None
        The word or text of each recording, (n,), if several recordings have the same and the test split's are not in the training
        split. Scores then generalise to new texts, so these are resampled, too.
    unit : str
        What groups are, if not speakers.
    words : tuple of tuple of Interval, or None
        For tasks on frames: the words of each recording with their times in s.
    points : int
        For ``mfcc``: number of points of a trajectory; 0 for other tasks.
    spared : frozenset of str
        Recordings whose texts are in both splits by definition of the task.
    allowed : frozenset of str
        Leaks that are part of the task's definition.
    notes : tuple of str
        Remarks on how to read its scores.
    """

    name: str
    kind: str
    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    split: tuple[str, ...]
    groups: tuple[str, ...] | None
    classes: tuple[str, ...]
    labels: NDArray[Any] | None = None
    phones: tuple[tuple[Interval, ...], ...] | None = None
    types: tuple[str, ...] | None = None
    items: tuple[str, ...] | None = None
    unit: str = ""
    words: tuple[tuple[Interval, ...], ...] | None = None
    points: int = 0
    spared: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> bool:
        """Whether frames have labels, instead of recordings."""
        return self.phones is not None

    @property
    def alone(self) -> bool:
        """Whether all test recordings are of one speaker, so that there can be no interval over speakers."""
        return (
            self.groups is not None
            and len({who for who, part in zip(self.groups, self.split, strict=True) if part == "test"}) == 1
        )

    def truth(self) -> dict[str, Any]:
        """Everything that defines the task except the contents of the sounds, as plain values."""
        names = (
            "name",
            "kind",
            "keys",
            "split",
            "groups",
            "classes",
            "labels",
            "phones",
            "types",
            "items",
            "unit",
            "words",
            "points",
        )
        return {name: getattr(self, name) for name in names}

    def rows(self, names: Sequence[str], counts: ArrayLike, times: NDArray[Any], labels: NDArray[Any] | None = None) -> Rows:
        """Find the task's rows in a model's features, in the order of ``keys``.

        Parameters
        ----------
        names : sequence of str
            The recordings of the features.
        counts : array_like of int
            Number of rows of each recording; its rows are contiguous.
        times : ndarray, shape (rows,)
            Middle of each row's time bin, in s.
        labels : ndarray, shape (n, k), optional
            For ``mfcc``: what :func:`fastencode.study.probing.labels.trajectories` returned for the sounds.

        Raises
        ------
        InputError
            If a recording has no features, or has rows of frames although the task has one label per recording.
        """
        each = np.asarray(counts, np.intp)
        ends = np.cumsum(each).tolist()
        place = {name: (end - count, end) for name, count, end in zip(names, each.tolist(), ends, strict=True)}
        if absent := [key for key in self.keys if key not in place]:
            some = f"{len(absent)} of {len(self.keys)} recordings of the task {self.name}, the first {absent[0]!r}"
            raise InputError(f"there are no features of {some}: make the features of the corpus again")
        spans = [place[key] for key in self.keys]
        if self.phones is not None:
            return self._rows_of_frames(spans, times)
        if several := [key for key, (start, stop) in zip(self.keys, spans, strict=True) if stop - start != 1]:
            count = place[several[0]][1] - place[several[0]][0]
            raise InputError(f"{several[0]!r} has {count} rows of features, but the task {self.name} needs one per recording")
        found = self.labels if labels is None else labels
        if found is None or len(found) != len(self.keys):
            raise InputError(f"the task {self.name} has {len(self.keys)} recordings: give the labels of each")
        groups = None if self.groups is None else np.array(self.groups)
        types = None if self.types is None else np.array(self.types)
        items = None if self.items is None else np.array(self.items)
        return Rows(np.array([start for start, _ in spans], np.intp), found, groups, np.array(self.split), types, items)

    def _rows_of_frames(self, spans: Sequence[tuple[int, int]], times: NDArray[Any]) -> Rows:
        rows, labels, types, owners = [], [], [], []
        for n, ((start, stop), phones) in enumerate(zip(spans, self.phones or (), strict=True)):
            spoken = _at(phones, times[start:stop])
            inside = [k for k, phone in enumerate(spoken) if phone is not None]
            rows += [start + k for k in inside]
            labels += [str(spoken[k]) for k in inside]
            owners += [n] * len(inside)
            if self.words is not None:
                said = _at(self.words[n], times[start:stop])
                types += [said[k] or "" for k in inside]
        if not labels:
            raise InputError(f"no row of features lies in a phone of the task {self.name}: check the labels")
        found, split = np.array(labels), np.array(self.split)[owners]
        known = (split != "test") | np.isin(found, found[split != "test"])  # a phone may be too short to be in any training row
        groups = None if self.groups is None else np.array(self.groups)[owners][known]
        shuffled = None if self.words is None else np.array(types)[known]
        items = None if self.items is None else np.array(self.items)[owners][known]
        return Rows(np.array(rows, np.intp)[known], found[known], groups, split[known], shuffled, items)


def _at(intervals: Sequence[Interval], times: NDArray[Any]) -> list[str | None]:
    """The label at each time; None in gaps. If two intervals overlap, the label of the later one."""
    if not intervals:
        return [None] * len(times)
    begins, ends = np.array([one.start for one in intervals]), np.array([one.end for one in intervals])
    at = np.searchsorted(begins, times, "right") - 1
    inside = (at >= 0) & (times < ends[np.maximum(at, 0)])
    return [intervals[k].label if there else None for k, there in zip(at.tolist(), inside.tolist(), strict=True)]


def task_of(
    name: str,
    corpus: Corpus,
    *,
    keys: Collection[str] | None = None,
    split: str = "official",
    points: int = 8,
    allow: Collection[str] = (),
    texts: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Task:
    """Build a task from a corpus.

    Parameters
    ----------
    name : str
        ``mfcc``: 13 cepstral coefficients (c1 to c12 and c0) of each utterance, averaged over ``points`` equal parts of its
        duration, so that every utterance has equally many targets. The published work does not say which form it uses. With
        ``points=1``, the target is the mean over the utterance.

        ``word``: the label ``word``. ``phonemes``: which of TIMIT's 39 folded phones occur in an utterance, including ``sil``.
        ``phones``: the phone at the middle of each frame, without frames in glottal stops, which folding removes. These two leave
        out phones that are not in both the training and the test split. ``sentence_type``: SA, SI or SX. ``sx_si``: SX or SI.

        ``label:KIND``: any label of the recordings, such as a column of a manifest; semicolons separate several labels.
        ``number:KIND``: any numeric label.

        ``label:speaker``: speaker identity. A probe can only identify speakers of the training split. If no test speaker is in
        it, as other tasks require, a random fifth of each speaker's recordings (by ``seed``) becomes the test split, and all
        others the training split; the notes say so.
    corpus : Corpus
        As :func:`fastencode.data.corpora.open_corpus` returns it.
    keys : collection of str, optional
        Use these recordings only.
    split : {"official", "published"}
        "published", for phonemes and phones: a random fifth of each speaker's sentences (by ``seed``) is the test split. In the
        published phoneme probe, every test speaker is in the training split; how exactly it was split is not known.
    points : int
        For ``mfcc``: number of parts of an utterance.
    allow : collection of str
        Leaks to allow. With "texts", TIMIT's SA sentences are kept.
    texts : key → text, optional
        For a control: the sentence of each recording (:func:`fastencode.study.probing.leakage.texts_of`). A control gives all
        rows of a sentence, or for ``phones`` of a word, the same shuffled label. Without texts, each row has its own shuffled
        label.
    seed : int
        Seed of the published split and of the split within speakers.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If there is no such task; the corpus has no such labels or no splits; labels have mixed types or are damaged; or a split
        has fewer than two classes.

    Warns
    -----
    FastencodeWarning
        If recordings without the label, or labels that are missing in one split, are left out; or if the split leaks.

    Notes
    -----
    TIMIT's two SA texts are read by every speaker, in both splits. All tasks except ``sentence_type`` leave them out, so that no
    test text is in the training split. ``sentence_type`` cannot, because SA consists of these two texts; its notes say that a
    probe can recognise SA by its words.
    """
    check_name(name, split)
    if points < 1:
        raise InputError(f"points={points}: give at least 1")
    base, _, label = name.partition(":")
    recordings, within = within_speakers(name, _recordings(name, corpus, keys, split, allow, seed), seed)
    makers: dict[str, Callable[[], Truth]] = {
        "mfcc": lambda: _targets(recordings, points),
        "word": lambda: text_labels_of(recordings, "word"),
        "phonemes": lambda: phone_sets_of(recordings),
        "phones": lambda: phones_of(recordings),
        "label": lambda: text_labels_of(recordings, label),
        "number": lambda: numbers_of(recordings, label),
    }
    truth = makers.get(base, lambda: text_labels_of(recordings, "type"))()
    notes = [*_notes(name, split), *([WITHIN] if within else [])]
    has = [value is not None for value in truth.values]
    if without := [key for key, there in zip(recordings, has, strict=True) if not there]:
        notes.append(f"{len(without)} of {len(has)} recordings do not have this label and are left out, the first {without[0]!r}")
    kept = {key: one for (key, one), there in zip(recordings.items(), has, strict=True) if there}
    speakers = tuple(one.speaker for one in kept.values() if one.speaker is not None)
    task = Task(
        name,
        truth.kind,
        tuple(kept),
        tuple(one.path for one in kept.values()),
        tuple(str(one.split) for one in kept.values()),
        speakers if len(speakers) == len(kept) and label != "speaker" else None,
        truth.classes,
        points=points if base == "mfcc" else 0,
        spared=frozenset(key for key, one in kept.items() if name == "sentence_type" and one.labels.get("type") == "SA"),
        allowed=frozenset({"speakers", "texts"} if split == "published" else {"texts"} if within else ()),
        notes=tuple(notes),
    )
    check_parts(task)
    values = [value for value in truth.values if value is not None]
    if base != "mfcc":
        task = _with_phones(task, values) if base == "phones" else _with_labels(task, truth, values)
    if texts is not None:
        words = words_of(kept) if base == "phones" else None
        sentences = tuple(texts[key] for key in task.keys if key in texts) if base != "phones" else ()
        task = replace(task, words=words, types=sentences if len(sentences) == len(kept) else None)
    if base != "word":
        said = [said_in(one) for one in kept.values()]
        task = replace(task, **what_follows(task, said, [one.speaker for one in kept.values()], texts is not None))
    if task.alone:
        task = replace(task, notes=(*task.notes, "all test recordings are of one speaker, so there are no intervals"))
    for note in task.notes:
        warn(f"{name}: {note}")
    return task


def check_name(name: str, split: str = "official") -> None:
    """Raise :class:`InputError` unless a task of this name exists and has this split."""
    base, colon, label = name.partition(":")
    names = {one.partition(":")[0]: ":" in one for one in TASKS}
    if base not in names or bool(label) != names[base] or bool(colon) != names[base]:
        raise InputError(f"{name!r} is no task: choose from {', '.join(TASKS)}")
    if split not in ("official", "published"):
        raise InputError(f"split={split!r}: choose 'official' or 'published'")
    if split == "published" and name not in _OF_PHONES:
        raise InputError(
            f"the published split exists for phonemes and phones only, not for {name}: probe {name} in another command"
        )


def _notes(name: str, split: str) -> Sequence[str]:
    if split == "published":
        return [
            "the published split leaks: test speakers and texts are in the training split; scores do not hold for new speakers"
        ]
    if name == "sentence_type":
        return ["the two SA texts are in both splits, so a probe can recognise SA by its words; the task sx_si leaves SA out"]
    return []


def _recordings(
    name: str, corpus: Corpus, keys: Collection[str] | None, split: str, allow: Collection[str], seed: int
) -> dict[str, Recording]:
    """The recordings of a task, with their splits."""
    if name in _OF_TIMIT and corpus.kind != "timit":
        raise InputError(
            f"{name} is a task on TIMIT, but {corpus.name} is a corpus of the kind {corpus.kind!r}: leave {name} out"
        )
    wanted = corpus.recordings.keys() if keys is None else set(keys)
    found = {key: one for key, one in corpus.recordings.items() if key in wanted}
    shared_texts = name == "sentence_type" or (name != "sx_si" and ("texts" in allow or split == "published"))
    if corpus.kind == "timit" and not shared_texts:
        found = {key: one for key, one in found.items() if one.labels.get("type") != "SA"}
    if split == "published":
        found = of_each_speaker(found, seed)
    if nowhere := [key for key, one in found.items() if one.split not in SPLITS]:
        raise InputError(
            f"{len(nowhere)} of {len(found)} recordings of {corpus.name} are in no split, the first {nowhere[0]!r}: give"
            " 'train', 'validation' or 'test' in the column 'split' of a manifest"
        )
    return found


def _targets(recordings: Mapping[str, Recording], points: int) -> Truth:
    """The names of the targets of ``mfcc``. Their values are computed from the sounds later."""
    names = COEFFICIENTS if points == 1 else [f"{name} at {part + 1}/{points}" for name in COEFFICIENTS for part in range(points)]
    return Truth("regression", tuple(names), [()] * len(recordings))


def _with_labels(task: Task, truth: Truth, values: Sequence[Any]) -> Task:
    """Add labels of recordings to a task."""
    if truth.kind != "multilabel":
        task = replace(task, labels=np.array(values, np.float64 if truth.kind == "regression" else np.str_))
        _check_labels(task)
        return task
    labels = np.array([[name in one for name in truth.classes] for one in values], bool).reshape(len(values), -1)
    test = np.array(task.split) == "test"
    both = labels[test].any(axis=0) & labels[~test].any(axis=0)
    if not both.any():
        raise InputError(f"{task.name}: no label is in both the training and the test split: correct splits or labels")
    return replace(
        task,
        labels=labels[:, both],
        classes=tuple(name for name, there in zip(truth.classes, both, strict=True) if there),
        notes=(*task.notes, *_left_out([name for name, there in zip(truth.classes, both, strict=True) if not there], "labels")),
    )


def _with_phones(task: Task, values: Sequence[tuple[Interval, ...]]) -> Task:
    """Add phones to a task on frames. Phones that are missing in one split are left out: they cannot be learned, or scored."""
    there = {
        part: {
            phone.label for phones, split in zip(values, task.split, strict=True) if (split == "test") == part for phone in phones
        }
        for part in (True, False)
    }
    both = there[True] & there[False]
    if len(both) < 2:
        raise InputError(f"{task.name}: train and test have {len(both)} phones in common: there is nothing to tell apart")
    return replace(
        task,
        phones=tuple(tuple(phone for phone in phones if phone.label in both) for phones in values),
        classes=tuple(name for name in task.classes if name in both),
        notes=(*task.notes, *_left_out([name for name in task.classes if name not in both], "phones")),
    )


def _left_out(names: Sequence[str], what: str) -> list[str]:
    some = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    return [f"{len(names)} {what} are not in both train and test and are left out: {some}"] if names else []


def check_parts(task: Task) -> None:
    """Raise :class:`InputError` unless there are recordings to fit on, to choose a penalty on, and to score."""
    counts = {part: task.split.count(part) for part in SPLITS}
    for part in ("train", "test"):
        if not counts[part]:
            had = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(f"{task.name} has no recording in the split {part} ({had}): give recordings of it")
    if task.groups is not None and not counts["validation"]:
        speakers = {speaker for speaker, part in zip(task.groups, task.split, strict=True) if part == "train"}
        if len(speakers) < 2:
            raise InputError(
                f"{task.name}: all training recordings are of the speaker {speakers.pop()!r}, but penalties are chosen on"
                " held-out speakers: give several speakers, or recordings in the split validation"
            )


def _check_labels(task: Task) -> None:
    """Raise :class:`InputError` if a split has fewer than two different labels, or a test class is not in the training split."""
    split, labels = np.array(task.split, dtype=np.str_), task.labels
    assert labels is not None
    for part in ("train", "test"):
        there = labels[split == part]
        if len(np.unique(there, axis=0)) < 2:
            what = f"one class, {str(there[0])!r}" if task.kind == "classification" else "the same number everywhere"
            raise InputError(f"{task.name}: the split {part} has {what}: there is nothing to tell apart; give other recordings")
    if task.kind == "classification" and (unknown := sorted({*labels[split == "test"]} - {*labels[split != "test"]})):
        some = ", ".join(map(str, unknown[:_SHOWN])) + (" …" if len(unknown) > _SHOWN else "")
        raise InputError(
            f"{task.name}: {len(unknown)} test classes are not in the training split ({some}), so none can be learned: correct"
            " splits or labels"
        )
