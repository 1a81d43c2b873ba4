"""Speech from text with word and phone times, by the espeak-ng library that the package ``espeakng-loader`` carries.

The library keeps its state in static variables, and what it says depends a little on what it said before (the same sentence
twice differs by some samples). So every ``Synthesizer`` loads a copy of its own: what a fresh one says depends on its texts and
voices only.
"""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fastencode.data.textgrid import Interval
from fastencode.errors import FastencodeError, InputError, require

__all__ = ["SAMPLE_RATE", "Speech", "Synthesizer", "Voice"]

SAMPLE_RATE = 22050  # Hz, what espeak-ng gives for its own voices

# Synchronous: the call that speaks does the work itself. In the other mode without a loudspeaker (1) a thread of the library's
# does, which polls: equal samples, about 20 ms later each time.
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 2, 0x1, 0x2, 0x8000
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7


@dataclass(frozen=True)
class Voice:
    """A speaker: espeak-ng voice name (with an optional ``+variant``), words per minute, pitch and pitch range (0 to 100)."""

    name: str
    rate: int
    pitch: int
    pitch_range: int = 50


@dataclass(frozen=True)
class Speech:
    """Synthesized audio, float32 (n,) in ±1 at ``SAMPLE_RATE`` Hz, with word and phone intervals in seconds."""

    audio: np.ndarray
    words: list[Interval]
    phones: list[Interval]


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Collector:
    """What one call of the synthesizer delivers: samples, word events and phone events (both in samples from the start)."""

    def __init__(self) -> None:
        self.chunks: list[np.ndarray] = []
        self.words: list[tuple[int, int]] = []  # start sample, position of the word in the text
        self.phones: list[tuple[int, str]] = []  # start sample, IPA label ("" at the end of a clause)

    def __call__(self, samples: Any, n_samples: int, events: Any) -> int:
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_WORD:
                self.words.append((event.sample, event.text_position))
            elif event.type == _EVENT_PHONEME:
                self.phones.append((event.sample, event.id.string.decode("utf-8", "ignore")))
            index += 1
        if n_samples > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, (n_samples,)).copy())
        return 0


class Synthesizer:
    """A speaker with a memory of its own: the same texts in the same order give the same samples. For one thread at a time.

    Raises
    ------
    MissingLibraryError
        If ``espeakng-loader`` is not installed (extra ``demo``).
    """

    def __init__(self) -> None:
        loader = require("espeakng_loader", "demo")
        source = Path(loader.get_library_path())
        # A second load of the same file would share the first one's variables; the copy can go once it is loaded.
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._lib = ctypes.CDLL(str(shutil.copy(source, folder)))
        options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
        rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, str(loader.get_data_path()).encode(), options)
        if rate != SAMPLE_RATE:
            raise FastencodeError(f"espeak-ng could not start (code {rate}, expected a sample rate of {SAMPLE_RATE} Hz)")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(1))  # some voices' breath is drawn; the clock seeds it otherwise
        self._sink = _Collector()
        self._callback = _Callback(lambda samples, n, events: self._sink(samples, n, events))  # must outlive every call
        self._lib.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: Voice) -> Speech:
        """Say a text.

        Parameters
        ----------
        text : str
            Words of the voice's language, in any script that it reads; punctuation is read as pauses. Word labels are the text's
            own tokens, lower case, without punctuation.
        voice : Voice
            Who speaks.

        Raises
        ------
        InputError
            If the text holds no word or the voice does not exist.
        """
        if not any(character.isalpha() for character in text):
            raise InputError(f"text must hold at least one word, got {text[:40]!r}")
        heard = self._collect(text, voice)
        if not heard.chunks:
            raise FastencodeError(f"espeak-ng gave no sound for {text[:40]!r}")
        audio = np.concatenate(heard.chunks).astype(np.float32) / 32768
        phones = _intervals(heard.phones, len(audio))
        spoken = [(start, _token(text, position)) for start, position in heard.words]
        return Speech(audio, _words(spoken, phones, len(audio)), [p for p in phones if p.label])

    def _collect(self, text: str, voice: Voice) -> _Collector:
        if self._lib.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice.name!r}; try 'en-us', 'en' or 'en-us+f3'")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._sink = _Collector()
        data = text.encode("utf-8")
        code = self._lib.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _CHARS_UTF8, None, None)
        if code != 0:
            raise FastencodeError(f"espeak-ng failed with code {code} on {text[:40]!r}")
        return self._sink


def _token(text: str, position: int) -> str:
    """The word that starts at a 1-based character position."""
    return text[position - 1 :].split(maxsplit=1)[0].strip(".,;:!?\"'").lower()


def _intervals(starts: list[tuple[int, str]], n_samples: int) -> list[Interval]:
    """Each label lasts until the next event; events of zero length are dropped."""
    ends = [start for start, _ in starts[1:]] + [n_samples]
    return [
        Interval(start / SAMPLE_RATE, end / SAMPLE_RATE, label)
        for (start, label), end in zip(starts, ends, strict=True)
        if end > start
    ]


def _words(starts: list[tuple[int, str]], phones: list[Interval], n_samples: int) -> list[Interval]:
    """A word lasts until the next word or the pause before it, whichever is first."""
    words = []
    for interval in _intervals(starts, n_samples):
        pauses = [p.start for p in phones if not p.label.strip("_: ") and interval.start < p.start < interval.end]
        words.append(Interval(interval.start, min(pauses, default=interval.end), interval.label))
    return words
