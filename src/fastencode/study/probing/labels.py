"""Read the labels of recordings: words, sentence types, columns of manifests, TIMIT phones, and MFCC trajectories.

Functions return a :class:`Truth`, with values in the order of the recordings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.data.recordings import Recording
from fastencode.data.textgrid import Interval
from fastencode.data.timit import PHONES_39, read_phones, read_words
from fastencode.errors import InputError
from fastencode.speech.acoustics import mfcc

__all__ = ["COEFFICIENTS", "Truth", "numbers_of", "phone_sets_of", "phones_of", "text_labels_of", "trajectories", "words_of"]

COEFFICIENTS = (*(f"c{n}" for n in range(1, 13)), "c0")
"""The cepstral coefficients of the task ``mfcc``, in the order of :func:`fastencode.speech.acoustics.mfcc`."""

_RATE = 16000  # Hz
_SHOWN = 5  # problems listed in a message

Recordings = Mapping[str, Recording]


class Truth(NamedTuple):
    """The labels of recordings.

    Attributes
    ----------
    kind : {"classification", "multilabel", "regression"}
    classes : tuple of str
        Names of the classes, labels or targets.
    values : list
        For each recording its class, its set of labels, its numbers, or its phones; None if it has none.
    """

    kind: str
    classes: tuple[str, ...]
    values: list[Any]


def text_labels_of(recordings: Recordings, label: str) -> Truth:
    """A text label of each recording as its class, or as a set of labels if any recording has several, separated by semicolons.

    Raises
    ------
    InputError
        If no recording has this label, some values are numbers and others words, or a value is a fraction.
    """
    texts = _texts(recordings, label)
    given = [(key, text) for key, text in zip(recordings, texts, strict=True) if text is not None]
    if any(";" in text for _, text in given):
        sets = [None if text is None else frozenset(part.strip() for part in text.split(";")) - {""} for text in texts]
        return Truth("multilabel", tuple(sorted(set().union(*(one for one in sets if one)))), list(sets))
    numbers = [(key, text) for key, text in given if _number(text) is not None]
    if numbers and len(numbers) < len(given):
        key, text = next(one for one in given if _number(one[1]) is None)
        raise InputError(
            f"label:{label} mixes numbers and words: {numbers[0][1]!r} ({numbers[0][0]}) and {text!r} ({key}); use words only"
        )
    if numbers and any(not float(text).is_integer() for _, text in numbers):
        key, text = next(one for one in numbers if not float(one[1]).is_integer())
        raise InputError(f"label:{label} holds {text!r} ({key}), which is not a class: use number:{label}")
    return Truth("classification", tuple(sorted({text for _, text in given})), list(texts))


def numbers_of(recordings: Recordings, label: str) -> Truth:
    """A label of each recording as a number.

    Raises
    ------
    InputError
        If no recording has this label, or a value is not a finite number.
    """
    texts = _texts(recordings, label)
    numbers = [None if text is None else _number(text) for text in texts]
    pairs = zip(recordings, texts, numbers, strict=True)
    if wrong := [(key, text) for key, text, number in pairs if text is not None and number is None]:
        key, text = wrong[0]
        raise InputError(f"number:{label}: {len(wrong)} labels are not finite numbers, the first {text!r} ({key}): correct them")
    return Truth("regression", (label,), [None if number is None else [number] for number in numbers])


def phones_of(recordings: Recordings) -> Truth:
    """The folded phones of each TIMIT recording, with their times.

    Raises
    ------
    InputError
        If labels are missing or damaged; the message says of how many recordings.
    """
    values = _tried(recordings, lambda path: tuple(read_phones(path, fold=True)), "phone labels that can be read")
    return Truth("classification", PHONES_39, list(values))


def phone_sets_of(recordings: Recordings) -> Truth:
    """The set of folded phones in each TIMIT recording. Raises the same errors as :func:`phones_of`."""
    values = phones_of(recordings).values
    return Truth("multilabel", PHONES_39, [frozenset(phone.label for phone in phones) for phones in values])


def words_of(recordings: Recordings) -> tuple[tuple[Interval, ...], ...] | None:
    """The words of each TIMIT recording with their times; None if any recording has no word labels."""
    try:
        return tuple(tuple(read_words(one.path)) for one in recordings.values())
    except InputError:
        return None


def trajectories(
    sounds: Mapping[str, Path], points: int, *, progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None
) -> NDArray[np.float64]:
    """MFCCs of each sound, averaged over equal parts of its duration: the labels of the task ``mfcc``.

    Parameters
    ----------
    sounds : name → path
    points : int
        Number of parts. If a sound has fewer frames, neighboring parts share frames.
    progress : callable, optional
        Wraps the iteration over sounds, to show progress.

    Returns
    -------
    ndarray, shape (n, 13 · points)
        Means over parts: all parts of c1, then of c2, … c12, c0. MFCCs as HTK defines them, with frames of 25 ms every 10 ms at
        16 kHz.

    Raises
    ------
    InputError
        If sounds cannot be read or are shorter than a frame; the message says how many.
    """

    def trajectory(path: Path) -> NDArray[np.float64]:
        frames_fc = mfcc(Recording(path).audio(sample_rate=_RATE).astype(np.float64), _RATE, energy="c0")
        cuts = np.arange(points + 1) * len(frames_fc) / points
        first, last = np.floor(cuts[:-1]).astype(int), np.ceil(cuts[1:]).astype(int)
        return np.stack([frames_fc[a:b].mean(axis=0) for a, b in zip(first, last, strict=True)], axis=1).ravel()

    recordings = {name: Recording(path) for name, path in sounds.items()}
    return np.array(_tried(recordings, trajectory, "cepstra", progress)).reshape(len(sounds), len(COEFFICIENTS) * points)


def _texts(recordings: Recordings, label: str) -> list[str | None]:
    """A label of each recording. ``speaker`` is the recording's speaker, unless a label has this name."""
    texts = [one.labels.get(label) or (one.speaker if label == "speaker" else None) for one in recordings.values()]
    if recordings and not any(texts):
        there = sorted({name for one in recordings.values() for name in one.labels})
        raise InputError(f"no recording has a label {label!r}: the labels are {', '.join(there) or 'none'}")
    return texts


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _tried(
    recordings: Recordings,
    read: Callable[[Path], Any],
    what: str,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> list[Any]:
    """Read something of every recording. Raises an error that lists the first recordings for which this fails."""
    found, failed = [], list[str]()
    for key, one in recordings.items() if progress is None else progress(recordings.items()):
        try:
            found.append(read(one.path))
        except InputError as error:
            failed.append(f"{key}: {error}")
    if failed:
        lines = "\n  ".join([*failed[:_SHOWN], *(["…"] if len(failed) > _SHOWN else [])])
        raise InputError(f"{len(failed)} of {len(recordings)} recordings have no {what}:\n  {lines}\ncorrect or leave out these")
    return found
