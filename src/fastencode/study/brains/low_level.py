"""Low-level features at the scan times of a story: spectrum, power, words, phones, articulation and time.

They are scored like a model with one layer, or regressed out of a model's layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastencode.data.stories import Stories
from fastencode.errors import InputError
from fastencode.speech.acoustics import frame_times, log_mel, sound_power
from fastencode.speech.labels import articulatory, event_rate
from fastencode.timing.lanczos import lanczos

__all__ = ["LOW_LEVEL", "OF_WORDS", "low_level"]

_RATE = 16000
_MELS = 20
# Periods of 1200 s, 600 s, … 60 s.
_LONGEST_WAVE, _WAVES = 1200.0, 20

Floats = NDArray[np.floating]


def low_level(stories: Stories, story: str, name: str) -> NDArray[np.float32]:
    """One low-level feature at the middle of every response row of a story.

    Parameters
    ----------
    stories : Stories
    story : str
    name : str
        One of ``LOW_LEVEL``: ``spectrum``, the log-mel spectrum in 20 bands; ``sound_power``; ``word_rate`` and ``phone_rate``,
        onsets per second in each scan; ``articulation``, the sums per second of the phones' articulatory features; ``time``, slow
        cosines and sines of the time since onset (periods of 1200 s to 60 s): what drift explains, and what autocorrelation
        explains if rows of the same story are fitted and scored.

    Returns
    -------
    ndarray, shape (rows, columns)

    Raises
    ------
    InputError
        If there is no such feature, or the story's sound or transcript is missing.
    """
    if name not in LOW_LEVEL:
        raise InputError(f"{name!r} is not a low-level feature: choose from {', '.join(LOW_LEVEL)}")
    values = LOW_LEVEL[name](stories, story, stories.row_times(story, middle=True))
    return np.asarray(values.reshape(len(values), -1), np.float32)


def _spectrum(stories: Stories, story: str, at: Floats) -> Floats:
    return _means(log_mel(stories.audio(story, sample_rate=_RATE), _RATE, n_mels=_MELS), at)


def _power(stories: Stories, story: str, at: Floats) -> Floats:
    return _means(sound_power(stories.audio(story, sample_rate=_RATE), _RATE), at)


def _means(frames: Floats, at: Floats) -> Floats:
    return np.asarray(lanczos(frames, frame_times(len(frames), _RATE), at, normalize=True))


def _words(stories: Stories, story: str, at: Floats) -> Floats:
    return np.asarray(event_rate([word.start for word in stories.words(story)], at))


def _phones(stories: Stories, story: str, at: Floats) -> Floats:
    return np.asarray(event_rate([phone.start for phone in stories.phones(story)], at))


def _articulation(stories: Stories, story: str, at: Floats) -> Floats:
    phones = stories.phones(story)
    try:
        features = articulatory([phone.label for phone in phones])
    except InputError as error:
        raise InputError(f"transcript of {story!r}: {error}; or treat it as no speech, with non_speech") from error
    return np.asarray(event_rate([phone.start for phone in phones], at, values=features))


def _time(stories: Stories, story: str, at: Floats) -> Floats:
    angle = 2 * np.pi * np.outer(at, np.arange(1, _WAVES + 1)) / _LONGEST_WAVE
    return np.hstack([np.cos(angle), np.sin(angle)])


LOW_LEVEL: dict[str, Callable[[Stories, str, Floats], Floats]] = {
    "spectrum": _spectrum,
    "sound_power": _power,
    "word_rate": _words,
    "phone_rate": _phones,
    "articulation": _articulation,
    "time": _time,
}

OF_WORDS = {"word_rate": "words", "phone_rate": "phones", "articulation": "phones"}
"""What is made of a transcript → the method of a data set that reads it."""
