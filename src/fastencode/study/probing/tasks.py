"""What a probe is asked of recordings: a label, several labels or numbers for each, and in which split each stands.

A task is made of a corpus alone, before any feature is read. :meth:`Task.rows` then finds its recordings among the rows of a
model's features. The order is that of the corpus whatever the model, so the same draws of speakers serve all models.

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
    "mfcc": "how the cepstra of an utterance run",
    "word": "which word is said (recordings with the label word, such as those of Speech Commands)",
    "phonemes": "which of 39 phones an utterance holds (TIMIT)",
    "phones": "which of 39 phones is spoken at each row of frames (TIMIT)",
    "sentence_type": "SA, SI or SX (TIMIT)",
    "sx_si": "SX or SI (TIMIT)",
    "label:KIND": "a label of the corpus, or a column of its manifest; several labels with semicolons between them",
    "number:KIND": "the same as a number",
}
"""Names of tasks → what is asked."""

_OF_TIMIT = ("phonemes", "phones", "sentence_type", "sx_si")
_OF_PHONES = ("phonemes", "phones")
_SHOWN = 5


class Corpus(Protocol):
    """What a task asks of a corpus, as :func:`fastencode.data.corpora.open_corpus` returns it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def recordings(self) -> Mapping[str, Recording]: ...


class Rows(NamedTuple):
    """A task's rows among those of a model's features.

    Attributes
    ----------
    rows : ndarray of int, shape (r,)
        Numbers of the rows.
    labels : ndarray
        (r,) text for classification, (r, k) bool for several labels, (r, k) float64 for regression.
    groups : ndarray of text, shape (r,), or None
        Who speaks; None where that is not known, or is what is asked.
    split : ndarray of text, shape (r,)
        "train", "validation" or "test".
    types : ndarray of text, shape (r,), or None
        What a control shuffles as one: the sentence, or for frames the word, "" outside words.
    items : ndarray of text, shape (r,), or None
        What test rows are a sample of beside speakers: words or texts that train has not.
    """

    rows: NDArray[np.intp]
    labels: NDArray[Any]
    groups: NDArray[np.str_] | None
    split: NDArray[np.str_]
    types: NDArray[np.str_] | None = None
    items: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Task:
    """What is asked of which recordings.

    Attributes
    ----------
    name : str
    kind : {"classification", "multilabel", "regression"}
    keys : tuple of str
        The recordings, as the corpus calls them; (n,).
    paths : tuple of Path
        The sound of each; (n,).
    split : tuple of str
        The split of each; (n,).
    groups : tuple of str or None
        The speaker of each; (n,).
    classes : tuple of str
        Names of the classes, labels or targets; (k,).
    labels : ndarray or None
        (n,) text, (n, k) bool or (n, k) float64. None for ``mfcc``, whose labels
        :func:`fastencode.study.probing.labels.trajectories` makes of the sounds, and where ``phones`` are given.
    phones : tuple of tuple of Interval, or None
        For tasks on frames: what is spoken when in each recording, in s.
    types : tuple of str or None
        The text of each, which a control shuffles as one; (n,).
    items : tuple of str or None
        The word or text of each, where several recordings say the same and train has none of the test split's: (n,). Scores then
        speak of texts that were not heard, so intervals resample these, too.
    unit : str
        What groups are, if not speakers.
    words : tuple of tuple of Interval, or None
        The same for tasks on frames: which word is spoken when in each recording.
    points : int
        For ``mfcc``: in how many points a trajectory is described; 0 for all others.
    spared : frozenset of str
        Recordings whose texts stand in train and test by the task's own definition.
    allowed : frozenset of str
        Leaks that the task is made with by its own definition.
    notes : tuple of str
        What a reader of its scores should know.
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
        """Whether each row of frames has a label of its own, not each recording."""
        return self.phones is not None

    @property
    def alone(self) -> bool:
        """Whether all test recordings are of one speaker: no interval then says what holds for others."""
        return (
            self.groups is not None
            and len({who for who, part in zip(self.groups, self.split, strict=True) if part == "test"}) == 1
        )

    def truth(self) -> dict[str, Any]:
        """All that decides what is asked, as plain values, but for the contents of the sounds."""
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
        """The task's rows among those of a model's features, in the order of ``keys``.

        Parameters
        ----------
        names : sequence of str
            The recordings of the features.
        counts : array_like of int
            How many rows each has; they follow each other.
        times : ndarray, shape (rows,)
            The middle of each row, in s.
        labels : ndarray, shape (n, k), optional
            For ``mfcc``: what :func:`fastencode.study.probing.labels.trajectories` returned for the sounds.

        Raises
        ------
        InputError
            If a recording of the task has no features, or they are not of the kind that the task asks for.
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
            raise InputError(f"{several[0]!r} has {count} rows of features, the task {self.name} asks for one of each recording")
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
        known = (split != "test") | np.isin(found, found[split != "test"])  # a phone may be too short for any row of train
        groups = None if self.groups is None else np.array(self.groups)[owners][known]
        shuffled = None if self.words is None else np.array(types)[known]
        items = None if self.items is None else np.array(self.items)[owners][known]
        return Rows(np.array(rows, np.intp)[known], found[known], groups, split[known], shuffled, items)


def _at(intervals: Sequence[Interval], times: NDArray[Any]) -> list[str | None]:
    """What is spoken at each time; None in gaps. Of two that overlap, the one that begins later."""
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
    """A task on a corpus.

    Parameters
    ----------
    name : str
        ``mfcc``: 13 cepstra (c1 to c12 and c0) of each utterance as a trajectory of ``points`` means over equal parts of its
        duration. A probe gets one vector for an utterance, so a trajectory needs as many numbers whatever the duration; the form
        that published work uses is not known. With ``points=1`` it is the mean over the utterance.

        ``word``: the label ``word``. ``phonemes``: which of TIMIT's 39 folded phones stand in an utterance, ``sil`` included.
        ``phones``: the phone at the middle of each row of frames; rows in glottal stops, which folding leaves out, do not count.
        Of these two, phones that do not stand both in train and in test are left out.
        ``sentence_type``: SA, SI or SX. ``sx_si``: SX or SI.

        ``label:KIND``: any label of the recordings, such as a manifest's column, in any language; several labels for each
        recording where cells hold semicolons. ``number:KIND``: the same as a number.

        ``label:speaker``: who speaks. Only speakers who are in train can be told. Where no speaker of the test split is, as is
        right for all other tasks, a fifth of each speaker's recordings, drawn by ``seed``, is the test split instead, and all
        others are train; the notes say so.
    corpus : Corpus
        As :func:`fastencode.data.corpora.open_corpus` returns it.
    keys : collection of str, optional
        Of these recordings only.
    split : {"official", "published"}
        "published", for phonemes and phones: a fifth of every speaker's sentences, drawn by ``seed``, is the test split. The
        published phoneme probe is split so that every test speaker is in train; how exactly is not known.
    points : int
        For ``mfcc``.
    allow : collection of str
        Leaks that are asked for. With "texts" the SA sentences of TIMIT stay.
    texts : key → text, optional
        For a control, the sentence of each recording: :func:`fastencode.study.probing.leakage.texts_of`. A control gives all rows
        of one sentence, or for ``phones`` of one word, the same shuffled label. Where there are no texts, each row has its own.
    seed : int
        Of the published split, and of the one within speakers.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If there is no such task, the corpus has no such labels or no splits, labels are of mixed type or damaged, or a split has
        nothing to learn or to tell apart.

    Warns
    -----
    FastencodeWarning
        If recordings without the label, or labels that one split has not, are left out, or the split leaks.

    Notes
    -----
    TIMIT's two SA texts are read by every speaker, in both splits. All tasks but ``sentence_type`` leave them out, so that no
    text of the test split is in train. ``sentence_type`` cannot: SA is nothing but these two texts. It keeps them, and its notes
    say that SA is recognized by its words.
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
        notes.append(f"{len(without)} of {len(has)} recordings have no such label and are left out, the first {without[0]!r}")
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
    """An ``InputError`` unless this is the name of a task that has such a split."""
    base, colon, label = name.partition(":")
    names = {one.partition(":")[0]: ":" in one for one in TASKS}
    if base not in names or bool(label) != names[base] or bool(colon) != names[base]:
        raise InputError(f"{name!r} is no task: choose among {', '.join(TASKS)}")
    if split not in ("official", "published"):
        raise InputError(f"split={split!r}: choose 'official' or 'published'")
    if split == "published" and name not in _OF_PHONES:
        raise InputError(f"the published split is one of phonemes and phones, not of {name}: probe {name} by itself")


def _notes(name: str, split: str) -> Sequence[str]:
    if split == "published":
        return [
            "the published split leaks: every test speaker is in train, and so are texts; scores do not hold for new speakers"
        ]
    if name == "sentence_type":
        return ["the two SA texts stand in train and in test, so SA is recognized by its words; sx_si asks without SA"]
    return []


def _recordings(
    name: str, corpus: Corpus, keys: Collection[str] | None, split: str, allow: Collection[str], seed: int
) -> dict[str, Recording]:
    """The recordings that a task is about, in the split that it has."""
    if name in _OF_TIMIT and corpus.kind != "timit":
        raise InputError(f"{name} is a task on TIMIT, {corpus.name} is a corpus of the kind {corpus.kind!r}: leave {name} out")
    wanted = corpus.recordings.keys() if keys is None else set(keys)
    found = {key: one for key, one in corpus.recordings.items() if key in wanted}
    shared_texts = name == "sentence_type" or (name != "sx_si" and ("texts" in allow or split == "published"))
    if corpus.kind == "timit" and not shared_texts:
        found = {key: one for key, one in found.items() if one.labels.get("type") != "SA"}
    if split == "published":
        found = of_each_speaker(found, seed)
    if nowhere := [key for key, one in found.items() if one.split not in SPLITS]:
        raise InputError(
            f"{len(nowhere)} of {len(found)} recordings of {corpus.name} stand in no split, the first {nowhere[0]!r}: a probe"
            " learns from train and is scored on test; say which is which in the column 'split' of a manifest"
        )
    return found


def _targets(recordings: Mapping[str, Recording], points: int) -> Truth:
    """The targets of ``mfcc`` by name; their values are made of the sounds, later."""
    names = COEFFICIENTS if points == 1 else [f"{name} at {part + 1}/{points}" for name in COEFFICIENTS for part in range(points)]
    return Truth("regression", tuple(names), [()] * len(recordings))


def _with_labels(task: Task, truth: Truth, values: Sequence[Any]) -> Task:
    """A task with a label, several labels or numbers for each recording."""
    if truth.kind != "multilabel":
        task = replace(task, labels=np.array(values, np.float64 if truth.kind == "regression" else np.str_))
        _check_labels(task)
        return task
    labels = np.array([[name in one for name in truth.classes] for one in values], bool).reshape(len(values), -1)
    test = np.array(task.split) == "test"
    both = labels[test].any(axis=0) & labels[~test].any(axis=0)
    if not both.any():
        raise InputError(f"{task.name}: no label stands in train and in test: correct splits or labels")
    return replace(
        task,
        labels=labels[:, both],
        classes=tuple(name for name, there in zip(truth.classes, both, strict=True) if there),
        notes=(*task.notes, *_left_out([name for name, there in zip(truth.classes, both, strict=True) if not there], "labels")),
    )


def _with_phones(task: Task, values: Sequence[tuple[Interval, ...]]) -> Task:
    """A task on frames. Phones that one split has not are left out: they cannot be learned, or not be scored."""
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
    return [f"{len(names)} {what} do not stand in both train and test and are left out: {some}"] if names else []


def check_parts(task: Task) -> None:
    """An ``InputError`` unless there are recordings to learn from, to choose a penalty on and to score."""
    counts = {part: task.split.count(part) for part in SPLITS}
    for part in ("train", "test"):
        if not counts[part]:
            had = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(f"{task.name} has no recording in the split {part} ({had}): give recordings of it")
    if task.groups is not None and not counts["validation"]:
        speakers = {speaker for speaker, part in zip(task.groups, task.split, strict=True) if part == "train"}
        if len(speakers) < 2:
            raise InputError(
                f"{task.name}: all train recordings are of the speaker {speakers.pop()!r}, and penalties are chosen on speakers"
                " that are left out: give several, or recordings in the split validation"
            )


def _check_labels(task: Task) -> None:
    """Whether there is something to learn in train and to tell apart in test, and no class in test that train has not."""
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
            f"{task.name}: {len(unknown)} classes of the test split are not in train ({some}), so no probe can know them: correct"
            " splits or labels"
        )
