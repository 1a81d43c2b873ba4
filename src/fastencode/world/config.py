"""Settings of a simulated world and of corpora that its synthesizer speaks. Imports nothing but the standard library."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastencode.data.layout import TRIMMED_ROWS
from fastencode.errors import InputError

__all__ = ["LANGUAGES", "LATE_FOLLOWS", "REGIONS", "CorpusConfig", "Participant", "WorldConfig"]

REGIONS = ("auditory", "late_language", "silent")
LANGUAGES = ("en", "fr")
LATE_FOLLOWS = ("meaning", "nothing", "spectrum")


@dataclass(frozen=True)
class Participant:
    """Voxel counts per region, and what is the participant's own: gain (signal over noise) and peak of the response in s."""

    name: str
    auditory: int
    late_language: int
    silent: int
    gain: float
    peak_delay: float

    def __post_init__(self) -> None:
        for region in REGIONS:
            if getattr(self, region) < 1:
                raise InputError(f"{self.name}: {region} must be at least 1 voxel, got {getattr(self, region)}")
        if not (0 < self.gain < math.inf and 0 < self.peak_delay < math.inf):
            raise InputError(f"{self.name}: gain and peak_delay must be positive, got {self.gain} and {self.peak_delay}")

    @property
    def n_voxels(self) -> int:
        return self.auditory + self.late_language + self.silent


@dataclass(frozen=True)
class WorldConfig:
    """Length of the stories, and the simulated participants.

    Attributes
    ----------
    minutes : float
        Minutes of training stories. A validation story and a test story come on top.
    story_minutes, test_minutes : float
        Minutes of each training story and the validation story, and of the test story.
    repeats : int
        How often everybody hears the test story; its ``data`` is the mean over repeats.
    tr : float
        Repetition time in s.
    autocorrelation : float
        AR(1) coefficient of the noise.
    seed : int
        Seeds stories, weights and noise.
    language : {"en", "fr"}
        What the stories are told in (``languages.py``).
    late_follows : {"meaning", "nothing", "spectrum"}
        What drives the late-language region: the semantic classes of the words that are heard; nothing that is heard, but the
        classes of the words of other stories, which nobody hears; or the spectrum of the sound, as it drives the auditory
        region. Signal, noise, repeats and so the noise ceilings are alike in all three: only what can predict the region
        differs. The sound is the same.
    participants : tuple of Participant
        Who listens: name, voxels of each region, strength of the signal, and when the response peaks, in s.
    """

    minutes: float = 32.0
    story_minutes: float = 4.0
    test_minutes: float = 6.0
    repeats: int = 5
    tr: float = 2.0
    autocorrelation: float = 0.4
    seed: int = 0
    language: str = "en"
    late_follows: str = "meaning"
    participants: tuple[Participant, ...] = (
        Participant("P1", auditory=120, late_language=160, silent=60, gain=1.1, peak_delay=6.0),
        Participant("P2", auditory=90, late_language=130, silent=50, gain=0.85, peak_delay=5.0),
    )

    def __post_init__(self) -> None:
        for name in ("minutes", "story_minutes", "test_minutes", "tr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        _check_language(self.language)
        if self.late_follows not in LATE_FOLLOWS:
            raise InputError(f"late_follows is {self.late_follows!r}: choose one of {', '.join(LATE_FOLLOWS)}")
        shortest = (TRIMMED_ROWS + 20) * self.tr / 60
        for name in ("story_minutes", "test_minutes"):
            if not getattr(self, name) >= shortest:
                raise InputError(f"{name} must be at least {shortest:.2f} (40 TRs), got {getattr(self, name)}")
        if not self.minutes >= self.story_minutes:
            raise InputError(f"minutes must be at least one story of {self.story_minutes:g} minutes, got {self.minutes}")
        if self.repeats < 2:
            raise InputError(f"repeats must be at least 2, a noise ceiling needs them; got {self.repeats}")
        if len({who.name for who in self.participants}) < len(self.participants) or not self.participants:
            raise InputError("participants must be named, each differently, and at least one")
        if not 0 <= self.autocorrelation < 1:
            raise InputError(f"autocorrelation must lie in [0, 1), got {self.autocorrelation}")

    @property
    def train_stories(self) -> list[str]:
        return [f"story{i + 1:02d}" for i in range(round(self.minutes / self.story_minutes))]


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}: choose one of {', '.join(LANGUAGES)}")


@dataclass(frozen=True)
class CorpusConfig:
    """Sizes of the two spoken corpora (``world/corpora.py``). Every speaker has a voice of its own and stands in one split.

    Attributes
    ----------
    train_speakers, validation_speakers, test_speakers : int
        Speakers of each split. The TIMIT-shaped corpus has no validation split, like TIMIT.
    compact, diverse : int
        SX and SI sentences of each speaker, beside the two SA sentences that all read.
    readers : int
        Speakers of a split that read each SX text, on average.
    words, words_each : int
        Words of the Speech-Commands-shaped corpus, taken from the semantic classes in turn, and how many of them each speaker
        says.
    repetitions : int
        How often a speaker says a word.
    seed : int
        Seeds voices, texts and choices of words.
    language : {"en", "fr"}
        Of single words. Sentences with TIMIT's labels are English. The synthesizer has eight accents of English and three of
        French: 288 and 108 speakers at most.
    """

    train_speakers: int = 28
    validation_speakers: int = 6
    test_speakers: int = 14
    compact: int = 5
    diverse: int = 3
    readers: int = 4
    words: int = 60
    words_each: int = 30
    repetitions: int = 1
    seed: int = 0
    language: str = "en"

    def __post_init__(self) -> None:
        for name in ("train_speakers", "validation_speakers", "test_speakers", "compact", "diverse", "readers", "repetitions"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        _check_language(self.language)
        if not 18 <= self.words <= 60:
            raise InputError(f"words must lie between 18 (two of each semantic class) and 60 (all there are), got {self.words}")
        if not 1 <= self.words_each <= self.words:
            raise InputError(f"words_each must lie between 1 and words={self.words}, got {self.words_each}")
