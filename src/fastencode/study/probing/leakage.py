"""Find leaks of a test split: speakers, sentence texts and sounds that are also in the training split."""

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
    "speakers": "test speakers are in the training split",
    "texts": "test sentence texts are in the training split",
    "copies": "test sounds are in the training split",
}
"""Name of a kind of leak, as in ``--allow`` → its description."""

_TEXT_LABELS = ("text", "sentence", "transcript")
_SHOWN = 5


@dataclass(frozen=True)
class Leak:
    """One kind of leak in one task.

    Attributes
    ----------
    kind : {"speakers", "texts", "copies"}
    what : tuple of str
        Speakers, texts, or keys of test recordings that are also in the training split.
    of : int
        Number of speakers, texts or recordings in the test split.
    """

    kind: str
    what: tuple[str, ...]
    of: int

    def __str__(self) -> str:
        shown = ", ".join(self.what[:_SHOWN]) + (" …" if len(self.what) > _SHOWN else "")
        return f"{len(self.what)} of {self.of} {LEAKS[self.kind]}: {shown}"


def texts_of(corpus: Corpus, text: str | None = None) -> dict[str, str]:
    """The sentence texts of a corpus, in lower case and without punctuation.

    Parameters
    ----------
    corpus : Corpus
    text : str, optional
        Name of the label with the text. Default: the first of text, sentence and transcript that exists.

    Returns
    -------
    key → text
        Recordings without a text are left out. For TIMIT, the content of the .TXT file, or the sentence's number if there is
        none. Empty for Speech Commands, where all words are in every split by design.

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
    """Find what a task's test split shares with its training and validation splits.

    Parameters
    ----------
    task : Task
    texts : key → text
        Of :func:`texts_of`. Texts are not a leak if they are the labels of the task.
    sha256 : callable
        Returns the digest of a file's content: :func:`fastencode.files.sha256` or a cached version of it.

    Returns
    -------
    list of Leak
        Empty if nothing leaks. Speakers are not a leak if they are the labels of the task.

    Raises
    ------
    InputError
        If a sound cannot be read.

    Warns
    -----
    FastencodeWarning
        If the test split contains the same sound twice.
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
        warn(f"{task.name}: {len(own) - len(set(own.values()))} of {len(own)} test recordings are copies of others")
    return [leak for leak in found if leak.what]


def check_leaks(leaks: Mapping[str, Sequence[Leak]], allow: Collection[str] = ()) -> list[str]:
    """Raise an error for leaks that are not allowed.

    Parameters
    ----------
    leaks : task → its leaks
        Of :func:`find_leaks`, without leaks that are part of the task (``Task.allowed``).
    allow : collection of str
        Kinds of leaks to allow: "speakers", "texts", "copies".

    Returns
    -------
    list of str
        One line for each task and kind of leak that was allowed.

    Raises
    ------
    InputError
        If there are other leaks; the message lists them and the option that allows them. Or if ``allow`` has an unknown name.
    """
    if unknown := sorted(set(allow) - set(LEAKS)):
        raise InputError(f"allow names {unknown[0]!r}, which is not a kind of leak: choose from {', '.join(LEAKS)}")
    refused = [(name, leak) for name, found in leaks.items() for leak in found if leak.kind not in allow]
    if refused:
        lines = "\n  ".join(f"{name}: {leak}" for name, leak in refused)
        kinds = " ".join(kind for kind in LEAKS if kind in {leak.kind for _, leak in refused})
        raise InputError(
            f"the test split leaks into the training split, so scores would be too high:\n  {lines}\ncorrect the splits, or"
            f" allow it by name: --allow {kinds}"
        )
    return [f"{name}: {leak}" for name, found in leaks.items() for leak in found]


def _leak(kind: str, values: Sequence[str | None], tested: Sequence[bool]) -> Leak:
    test = {value for value, part in zip(values, tested, strict=True) if part and value}
    learned = {value for value, part in zip(values, tested, strict=True) if not part and value}
    return Leak(kind, tuple(sorted(test & learned)), len(test))


def _is_asked(task: Task, texts: Sequence[str | None]) -> bool:
    """Whether texts are the labels of the task, as in word identification."""
    if task.kind != "classification" or task.labels is None:
        return False
    return all(text is None or text == _normal(str(label)) for text, label in zip(texts, task.labels, strict=True))


def _timit_text(recording: Recording) -> str:
    try:
        return read_sentence(recording.path)
    except InputError:
        return recording.labels["sentence"]


def _normal(text: str) -> str:
    """The words of a text, in any script, without differences in case, Unicode composition and punctuation."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in plain).split())
