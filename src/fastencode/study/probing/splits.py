"""Splits within speakers, for tasks that need every speaker in the training split, and words that several recordings share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastencode.data.recordings import Recording

__all__ = ["SAID", "WITHIN", "of_each_speaker", "said_in", "what_follows", "within_speakers"]

SAID = ("word", "text", "sentence", "transcript")
"""Labels that say what is said, the first that a recording has."""

WITHIN = "no test speaker is in the training split, so a fifth of each speaker's recordings is used as the test split instead"
"""The note of tasks that :func:`within_speakers` splits."""

_SHARE = 5  # one in this many recordings of each speaker is in the test split


def within_speakers(name: str, recordings: dict[str, Recording], seed: int) -> tuple[dict[str, Recording], bool]:
    """Split the recordings of ``label:speaker`` within speakers, if no test speaker is in the training split.

    What a speaker says several times stays in one split (:func:`of_each_speaker`): nearly the same sound would give the speaker
    away.

    Parameters
    ----------
    name : str
        The task.
    recordings : key → Recording
    seed : int
    """
    tested = {one.speaker for one in recordings.values() if one.split == "test"}
    learned = {one.speaker for one in recordings.values() if one.split != "test"}
    if name != "label:speaker" or None in tested | learned or tested & learned:
        return recordings, False
    return of_each_speaker(recordings, seed), True


def of_each_speaker(recordings: Mapping[str, Recording], seed: int) -> dict[str, Recording]:
    """A random fifth of what each speaker says becomes the test split (at least one item if there are several), the rest train.

    Recordings of one speaker with the same text are in the same split if the speaker says at least five different texts. With
    fewer texts, single recordings are drawn.

    Parameters
    ----------
    recordings : key → Recording
    seed : int
        Of the random choice.
    """
    of_speaker: dict[str | None, dict[str, list[str]]] = {}
    for key, one in recordings.items():
        of_speaker.setdefault(one.speaker, {}).setdefault(said_in(one) or key, []).append(key)
    rng, test = np.random.default_rng(seed), set[str]()
    for texts in of_speaker.values():
        own = list(texts.values()) if len(texts) >= _SHARE else [[key] for keys in texts.values() for key in keys]
        count = max(1, round(len(own) / _SHARE)) if len(own) > 1 else 0
        test |= {key for k in rng.permutation(len(own))[:count] for key in own[k]}
    return {key: replace(one, split="test" if key in test else "train") for key, one in recordings.items()}


def said_in(recording: Recording) -> str:
    """What a recording says, by the first label of ``SAID``; "" where that is not known."""
    return next((text for name in SAID if (text := recording.labels.get(name))), "")


class Asked(Protocol):
    """A task, as far as this looks at one."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> NDArray[Any] | None: ...
    @property
    def split(self) -> tuple[str, ...]: ...
    @property
    def types(self) -> tuple[str, ...] | None: ...


def what_follows(task: Asked, said: Sequence[str], speakers: Sequence[str | None], control: bool) -> dict[str, Any]:
    """Attributes of a task that follow from what its recordings say.

    Parameters
    ----------
    task : Task
    said : sequence of str
        What each recording says; "" where that is not known.
    speakers : sequence of str
    control : bool
        Whether a control is asked for.

    Returns
    -------
    dict
        Of ``label:speaker``, where speakers say something several times, but not in train and in test: ``groups`` and ``unit``,
        so that nearly the same sounds are held out and resampled as one. Of labels that follow from the word: ``types``, what a
        control shuffles as one. Of these, and of what is asked of sentences: ``items``, where no text of the test split is in
        train and some are said several times: intervals over speakers alone would take these few texts for all there are.
    """
    if not all(said):
        return {}
    labels = None if task.labels is None or task.labels.ndim > 1 else [str(label) for label in task.labels]
    if task.name == "label:speaker":
        own = tuple(f"{who}: {text}" for who, text in zip(speakers, said, strict=True))
        splits = {(one, split == "test") for one, split in zip(own, task.split, strict=True)}
        whole = len({*own}) < len(own) and len(splits) == len({*own})
        return {"groups": own, "unit": "words of a speaker"} if whole else {}
    found: dict[str, Any] = {}
    if task.name.startswith(("label:", "number:")):
        if labels is None or len({*said}) == len({*labels}) or len({*zip(said, labels, strict=True)}) > len({*said}):
            return {}  # the label is the word, or does not follow from it
        if control and task.types is None:
            found["types"] = tuple(said)
    tested = [text for text, split in zip(said, task.split, strict=True) if split == "test"]
    learned = {text for text, split in zip(said, task.split, strict=True) if split != "test"}
    if len({*tested}) < len(tested) and not learned & {*tested}:
        found["items"] = tuple(said)
    return found
