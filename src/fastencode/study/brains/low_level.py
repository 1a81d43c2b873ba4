"""Low-level features at the scan times of a run: spectrum, power, words, phones, articulation and time.

They are scored like a model with one layer, or regressed out of a model's layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.errors import InputError
from fastencode.speech.acoustics import frame_times, log_mel, sound_power
from fastencode.speech.audio import read_audio
from fastencode.speech.labels import articulatory, event_rate
from fastencode.timing.lanczos import lanczos

__all__ = ["LOW_LEVEL", "OF_WORDS", "low_level"]

_RATE = 16000
_MELS = 20
# Periods of 1200 s, 600 s, … 60 s.
_LONGEST_WAVE, _WAVES = 1200.0, 20

Floats = NDArray[np.floating]


def low_level(data: Dataset, run: str, name: str) -> NDArray[np.float32]:
    """One low-level feature at the middle of every response row of a run.

    Parameters
    ----------
    data : Dataset
    run : str
    name : str
        One of ``LOW_LEVEL``: ``spectrum``, the log-mel spectrum in 20 bands; ``sound_power``; ``word_rate`` and ``phone_rate``,
        onsets per second in each scan; ``articulation``, the sums per second of the phones' articulatory features; ``time``, slow
        cosines and sines of the time since onset (periods of 1200 s to 60 s): what drift explains, and what autocorrelation
        explains if rows of the same run are fitted and scored.

    Returns
    -------
    ndarray, shape (rows, columns)

    Raises
    ------
    InputError
        If there is no such feature, or the run's sound or transcript is missing.
    """
    if name not in LOW_LEVEL:
        raise InputError(f"{name!r} is not a low-level feature: choose from {', '.join(LOW_LEVEL)}")
    values = LOW_LEVEL[name](data, run, data.row_times(run, middle=True))
    return np.asarray(values.reshape(len(values), -1), np.float32)


def _spectrum(data: Dataset, run: str, at: Floats) -> Floats:
    return _means(log_mel(_sound(data, run), _RATE, n_mels=_MELS), at)


def _power(data: Dataset, run: str, at: Floats) -> Floats:
    return _means(sound_power(_sound(data, run), _RATE), at)


def _sound(data: Dataset, run: str) -> Floats:
    path = data.sound_file(run)
    sound = read_audio(path, sample_rate=_RATE)
    data.check_length(run, len(sound) / _RATE, path)
    return sound


def _means(frames: Floats, at: Floats) -> Floats:
    return np.asarray(lanczos(frames, frame_times(len(frames), _RATE), at, normalize=True))


def _words(data: Dataset, run: str, at: Floats) -> Floats:
    return np.asarray(event_rate([word.start for word in data.words(run)], at))


def _phones(data: Dataset, run: str, at: Floats) -> Floats:
    return np.asarray(event_rate([phone.start for phone in data.phones(run)], at))


def _articulation(data: Dataset, run: str, at: Floats) -> Floats:
    phones = data.phones(run)
    try:
        features = articulatory([phone.label for phone in phones])
    except InputError as error:
        raise InputError(f"transcript of {run!r}: {error}; or treat it as no speech, with non_speech") from error
    return np.asarray(event_rate([phone.start for phone in phones], at, values=features))


def _time(data: Dataset, run: str, at: Floats) -> Floats:
    angle = 2 * np.pi * np.outer(at, np.arange(1, _WAVES + 1)) / _LONGEST_WAVE
    return np.hstack([np.cos(angle), np.sin(angle)])


LOW_LEVEL: dict[str, Callable[[Dataset, str, Floats], Floats]] = {
    "spectrum": _spectrum,
    "sound_power": _power,
    "word_rate": _words,
    "phone_rate": _phones,
    "articulation": _articulation,
    "time": _time,
}

OF_WORDS = {"word_rate": "words", "phone_rate": "phones", "articulation": "phones"}
"""What is made of a transcript → the method of a data set that reads it."""
