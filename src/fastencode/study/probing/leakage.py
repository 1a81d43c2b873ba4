"""What of the test split a probe would have seen before: speakers, sentence texts, and the same sound twice."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastencode.data.recordings import Recording
from fastencode.data.timit import read_sentence
from fastencode.errors import InputError, warn
from fastencode.study.probing.tasks import Corpus, Task

__all__ = ["LEAKS", "Leak", "check_leaks", "find_leaks", "texts_of"]

LEAKS = {
    "speakers": "speakers of the test split speak in train",
    "texts": "sentence texts of the test split are read in train",
    "copies": "sounds of the test split are in train, too",
}
"""Names of leaks, as they are allowed → what they are."""

_TEXT_LABELS = ("text", "sentence", "transcript")
_SHOWN = 5


@dataclass(frozen=True)
class Leak:
    """One kind of leak in one task.

    Attributes
    ----------
    kind : {"speakers", "texts", "copies"}
    what : tuple of str
        The speakers, the texts, or the recordings of the test split whose sound is in train.
    of : int
        How many speakers, texts or recordings the test split has.
    """

    kind: str
    what: tuple[str, ...]
    of: int

    def __str__(self) -> str:
        shown = ", ".join(self.what[:_SHOWN]) + (" …" if len(self.what) > _SHOWN else "")
        return f"{len(self.what)} of {self.of} {LEAKS[self.kind]}: {shown}"


def texts_of(corpus: Corpus, text: str | None = None) -> dict[str, str]:
    """The sentence texts of a corpus, without punctuation and case.

    Parameters
    ----------
    corpus : Corpus
    text : str, optional
        The label that holds the text; by default text, sentence or transcript, the first that a recording has.

    Returns
    -------
    key → text
        Of recordings that have one. Of TIMIT the text beside the sound (.TXT), or the sentence's number where there is none. None
        of Speech Commands: a word is what is asked, and all of its words are said in every split.

    Raises
    ------
    InputError
        If no recording has the label named by ``text``.
    """
    if corpus.kind == "commands":
        return {}
    if corpus.kind == "timit":
        return {key: _normal(_timit_text(one)) for key, one in corpus.recordings.items()}
    labels = {name for one in corpus.recordings.values() for name in one.labels}
    if text is not None and text not in labels:
        raise InputError(f"text={text!r}: {corpus.name} has no such label, only {', '.join(sorted(labels)) or 'none'}")
    label = text or next((name for name in _TEXT_LABELS if name in labels), None)
    return {key: _normal(one.labels[label]) for key, one in corpus.recordings.items() if label and one.labels.get(label)}


def find_leaks(task: Task, texts: Mapping[str, str], sha256: Callable[[Path], str]) -> list[Leak]:
    """What of a task's test split stands in its train or validation split.

    Parameters
    ----------
    task : Task
    texts : key → text
        As :func:`texts_of` returns them. They count unless they are what is asked.
    sha256 : callable
        The digest of a file's content: :func:`fastencode.files.sha256`, or one that remembers.

    Returns
    -------
    list of Leak
        Empty where nothing leaks. Speakers count unless they are what is asked.

    Raises
    ------
    InputError
        If a sound cannot be read.

    Warns
    -----
    FastencodeWarning
        If the test split has the same sound twice: it then counts twice.
    """
    tested = [part == "test" for part in task.split]
    found = []
    if task.groups is not None:
        found.append(_leak("speakers", task.groups, tested))
    given = [None if key in task.spared else texts.get(key) for key in task.keys]
    if not _is_asked(task, given):
        found.append(_leak("texts", given, tested))
    sounds = [sha256(path) for path in task.paths]
    learned = {sound for sound, test in zip(sounds, tested, strict=True) if not test}
    own = {key: sound for key, sound, test in zip(task.keys, sounds, tested, strict=True) if test}
    found.append(Leak("copies", tuple(key for key, sound in own.items() if sound in learned), len(own)))
    if len(set(own.values())) < len(own):
        warn(f"{task.name}: {len(own) - len(set(own.values()))} of {len(own)} test recordings are copies of other ones")
    return [leak for leak in found if leak.what]


def check_leaks(leaks: Mapping[str, Sequence[Leak]], allow: Collection[str] = ()) -> list[str]:
    """Refuse leaks that were not asked for.

    Parameters
    ----------
    leaks : task → its leaks
        As :func:`find_leaks` returns them, without those that the task allows itself (``Task.allowed``).
    allow : collection of str
        The kinds that are asked for: "speakers", "texts", "copies".

    Returns
    -------
    list of str
        What leaks and was allowed, a line for each task and kind.

    Raises
    ------
    InputError
        If any other leaks, with a list and the option that allows it; or ``allow`` names no leak.
    """
    if unknown := sorted(set(allow) - set(LEAKS)):
        raise InputError(f"allow names {unknown[0]!r}, which is no leak: choose from {', '.join(LEAKS)}")
    refused = [(name, leak) for name, found in leaks.items() for leak in found if leak.kind not in allow]
    if refused:
        lines = "\n  ".join(f"{name}: {leak}" for name, leak in refused)
        kinds = " ".join(kind for kind in LEAKS if kind in {leak.kind for _, leak in refused})
        raise InputError(
            f"the test split leaks into what probes learn from, so scores would be too high:\n  {lines}\ncorrect the splits, or"
            f" allow it by name: --allow {kinds}"
        )
    return [f"{name}: {leak}" for name, found in leaks.items() for leak in found]


def _leak(kind: str, values: Sequence[str | None], tested: Sequence[bool]) -> Leak:
    test = {value for value, part in zip(values, tested, strict=True) if part and value}
    learned = {value for value, part in zip(values, tested, strict=True) if not part and value}
    return Leak(kind, tuple(sorted(test & learned)), len(test))


def _is_asked(task: Task, texts: Sequence[str | None]) -> bool:
    """Whether the class of each recording is its text, as where words are told apart."""
    if task.kind != "classification" or task.labels is None:
        return False
    return all(text is None or text == _normal(str(label)) for text, label in zip(texts, task.labels, strict=True))


def _timit_text(recording: Recording) -> str:
    try:
        return read_sentence(recording.path)
    except InputError:
        return recording.labels["sentence"]


def _normal(text: str) -> str:
    """Words alone, of any script: another case, composition or punctuation makes no other text."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in plain).split())
