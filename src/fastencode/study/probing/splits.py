"""Splits within speakers, where a task needs every speaker in train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastencode.data.recordings import Recording

__all__ = ["WITHIN", "of_each_speaker", "within_speakers"]

WITHIN = "speakers of the test split are not in train, so a fifth of each speaker's recordings is the test split instead"
"""What a reader should know of :func:`within_speakers`."""

_SHARE = 5  # one in so many recordings of each speaker is for the test


def within_speakers(name: str, recordings: dict[str, Recording], seed: int) -> tuple[dict[str, Recording], bool]:
    """The recordings of a task, and whether they are split anew: those of ``label:speaker``, if no test speaker is in train.

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
    """A fifth of each speaker's recordings, at least one of several, becomes the test split, the rest train.

    Parameters
    ----------
    recordings : key → Recording
    seed : int
        Of the draw.
    """
    of_speaker: dict[str | None, list[str]] = {}
    for key, one in recordings.items():
        of_speaker.setdefault(one.speaker, []).append(key)
    rng, test = np.random.default_rng(seed), set[str]()
    for own in of_speaker.values():
        count = max(1, round(len(own) / _SHARE)) if len(own) > 1 else 0
        test |= {own[k] for k in rng.permutation(len(own))[:count]}
    return {key: replace(one, split="test" if key in test else "train") for key, one in recordings.items()}
