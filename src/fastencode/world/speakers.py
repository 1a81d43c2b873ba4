"""Speakers of the synthesized corpora: combinations of accent and 36 timbres, with random pitch, rate and level.

None of them is a voice of the stories (``tales.VOICES``), on which speech models are pretrained and tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastencode.errors import InputError
from fastencode.world.espeak import Voice
from fastencode.world.languages import ENGLISH

__all__ = ["ACCENTS", "Speaker", "draw_speakers"]

ACCENTS = ENGLISH.accents
"""espeak-ng's voices of American, New York, British, Received, Scottish, Lancaster, West Midlands and Caribbean English."""

# Variants of espeak-ng without whisper and robot effects that are not clipped: at most three samples of a sentence reach full
# scale.
_WOMEN = "f1 f2 f5 Annie Andrea Alicia anika aunty belinda grandma linda steph"
_MEN = "m1 m2 m4 m5 m6 m7 m8 Andy Denis Diogo Lee boris david ian grandpa max michel pablo quincy rob robert travis victor zac"
_RATE, _PITCH, _RANGE, _LEVEL = (140, 191), (30, 71), (35, 66), (0.3, 0.9)


@dataclass(frozen=True)
class Speaker:
    """A speaker: voice, number of the accent, sex ("F" or "M"), and peak amplitude of recordings."""

    voice: Voice
    accent: int
    sex: str
    level: float


def draw_speakers(n_speakers: int, rng: np.random.Generator, accents: Sequence[str] = ACCENTS) -> list[Speaker]:
    """Draw speakers with different pairs of accent and timbre; accents are used in turn.

    Raises
    ------
    InputError
        If there are fewer pairs of accent and timbre than speakers.
    """
    timbres = [(name, "F") for name in _WOMEN.split()] + [(name, "M") for name in _MEN.split()]
    most = len(accents) * len(timbres)
    if n_speakers > most:
        raise InputError(f"{n_speakers} speakers are more than the {most} that the synthesizer can tell apart: ask for fewer")
    decks = [rng.permutation(len(timbres)) for _ in accents]
    speakers = []
    for index in range(n_speakers):
        accent, turn = index % len(accents), index // len(accents)
        name, sex = timbres[int(decks[accent][turn])]
        rate, pitch, pitch_range = (int(rng.integers(*limits)) for limits in (_RATE, _PITCH, _RANGE))
        voice = Voice(f"{accents[accent]}+{name}", rate, pitch, pitch_range)
        speakers.append(Speaker(voice, accent, sex, float(rng.uniform(*_LEVEL))))
    return speakers
