"""Stories from a small grammar with semantic classes, spoken by several voices: sound whose meaning is known word by word.

A story keeps to one topic for a few sentences, so that meaning varies slowly enough to survive a hemodynamic response, while the
words themselves, and so the sound, vary from second to second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from fastencode.data.textgrid import Interval
from fastencode.errors import InputError
from fastencode.world.espeak import SAMPLE_RATE, Speech, Synthesizer, Voice
from fastencode.world.languages import ENGLISH, Language

__all__ = ["CLASSES", "NOUNS", "VERBS", "VOICES", "WORD_CLASS", "noun_of", "speak_at", "tell"]

NOUNS, VERBS, VOICES = ENGLISH.nouns, ENGLISH.verbs, ENGLISH.voices
CLASSES, WORD_CLASS = ENGLISH.classes, ENGLISH.word_class

_TOPIC_SHARE = 0.85  # of a sentence's nouns, the rest come from any class
_TOPIC_SENTENCES = (2, 5)  # a topic lasts 2 to 4 sentences
_PAUSE = (0.15, 0.6)  # seconds of silence after a sentence
_RATE_STEP = 20  # words per minute: rates on a grid, so that a word is spoken once per rate


@dataclass(frozen=True)
class _Sentence:
    text: str
    pause: float


def tell(seconds: float, rng: np.random.Generator, *, voice: Voice | None = None, language: Language = ENGLISH) -> Speech:
    """Tell a story of a given length.

    Parameters
    ----------
    seconds : float
        Length of the audio; the last sentence ends before it, silence fills the rest.
    rng : numpy.random.Generator
        Draws topics, words and pauses; the same state tells the same story.
    voice : Voice, optional
        Who speaks, by default one of the language's voices drawn from ``rng``.
    language : Language

    Returns
    -------
    Speech
        Audio of exactly ``round(seconds * SAMPLE_RATE)`` samples with word and phone intervals in seconds. The language's
        ``word_class`` maps a word to its semantic class; function words have none.
    """
    if not seconds >= 10:
        raise InputError(f"a story lasts at least 10 seconds, got {seconds}")
    voice = voice or language.voices[int(rng.integers(len(language.voices)))]
    n_samples = round(seconds * SAMPLE_RATE)
    audio = np.zeros(n_samples, dtype=np.float32)
    words: list[Interval] = []
    phones: list[Interval] = []
    at = 0
    synthesizer = Synthesizer()
    for sentence in _sentences(rng, language):
        said = synthesizer.speak(sentence.text, voice)
        if at + len(said.audio) > n_samples:
            break
        audio[at : at + len(said.audio)] = said.audio
        words += _shift(said.words, at / SAMPLE_RATE)
        phones += _shift(said.phones, at / SAMPLE_RATE)
        at += len(said.audio) + round(sentence.pause * SAMPLE_RATE)
    return Speech(audio, words, phones)


def speak_at(words: Sequence[Interval], seconds: float, *, voice: Voice = VOICES[0]) -> np.ndarray:
    """Speak each word at its own time, faster or slower so that it fits.

    Parameters
    ----------
    words : sequence of Interval
        Times in s. A word whose label espeak-ng cannot read (no ASCII letter) is left out.
    seconds : float
        Length of the audio.
    voice : Voice
        Its rate is the starting point: each word's own rate follows from its duration, within a factor of 2.5.

    Returns
    -------
    ndarray, shape (round(seconds * SAMPLE_RATE),), float32
    """
    audio = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    synthesizer = Synthesizer()

    @cache
    def say(text: str, rate: int) -> np.ndarray:
        return _without_pause(synthesizer.speak(text, replace(voice, rate=rate)))

    for word in words:
        label = word.label.lower()
        if not (label.isascii() and any(character.isalpha() for character in label)):
            continue
        natural = len(say(label, voice.rate)) / SAMPLE_RATE
        speed = np.clip(natural / max(word.end - word.start, 1e-3), 0.4, 2.5)
        rate = int(_RATE_STEP * round(voice.rate * speed / _RATE_STEP))
        said = say(label, rate)
        start = round(word.start * SAMPLE_RATE)
        room = audio[start : start + len(said)]
        room += said[: len(room)]
    return np.clip(audio, -1.0, 1.0)


def _without_pause(said: Speech) -> np.ndarray:
    """Speech up to the end of its last phone."""
    end = max((phone.end for phone in said.phones if phone.label.strip("_: ")), default=len(said.audio) / SAMPLE_RATE)
    return said.audio[: round(end * SAMPLE_RATE)]


def _sentences(rng: np.random.Generator, language: Language) -> Iterator[_Sentence]:
    topics, verbs, the = list(language.nouns), language.verbs, language.with_article
    while True:
        topic = topics[int(rng.integers(len(topics)))]
        for _ in range(int(rng.integers(*_TOPIC_SENTENCES))):
            subject, thing, other = (noun_of(topic, rng, language) for _ in range(3))
            kind = list(verbs)[int(rng.integers(len(verbs)))]
            verb = rng.choice(verbs[kind].split())
            text = f"{the(subject)} {verb} {the(thing)} {language.conjunction} {the(other)}."
            yield _Sentence(text, float(rng.uniform(*_PAUSE)))


def noun_of(topic: str, rng: np.random.Generator, language: Language = ENGLISH) -> str:
    """Draw a noun that keeps to a topic (a class of nouns) as often as those of stories do."""
    nouns = language.nouns
    name = topic if rng.random() < _TOPIC_SHARE else list(nouns)[int(rng.integers(len(nouns)))]
    return str(rng.choice(nouns[name].split()))


def _shift(intervals: list[Interval], seconds: float) -> list[Interval]:
    return [Interval(i.start + seconds, i.end + seconds, i.label) for i in intervals]
