"""Splits within speakers, for tasks that need every speaker in the training split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastencode.data.recordings import Recording

__all__ = ["WITHIN", "of_each_speaker", "within_speakers"]

WITHIN = "no test speaker is in the training split, so a fifth of each speaker's recordings is used as the test split instead"
"""The note of tasks that :func:`within_speakers` splits."""

_SHARE = 5  # one in this many recordings of each speaker is in the test split


def within_speakers(name: str, recordings: dict[str, Recording], seed: int) -> tuple[dict[str, Recording], bool]:
    """Split the recordings of ``label:speaker`` within speakers, if no test speaker is in the training split.

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
    """A random fifth of each speaker's recordings becomes the test split (at least one if there are several), the rest train.

    Parameters
    ----------
    recordings : key → Recording
    seed : int
        Of the random choice.
    """
    of_speaker: dict[str | None, list[str]] = {}
    for key, one in recordings.items():
        of_speaker.setdefault(one.speaker, []).append(key)
    rng, test = np.random.default_rng(seed), set[str]()
    for own in of_speaker.values():
        count = max(1, round(len(own) / _SHARE)) if len(own) > 1 else 0
        test |= {own[k] for k in rng.permutation(len(own))[:count]}
    return {key: replace(one, split="test" if key in test else "train") for key, one in recordings.items()}
