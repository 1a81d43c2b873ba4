"""Many speakers from one synthesizer: eight accents, 36 timbres, and a pitch, rate and level of each speaker's own.

None of them is one of the voices that tell stories (``tales.VOICES``), on which speech models are pretrained and tuned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastencode.errors import InputError
from fastencode.world.espeak import Voice

__all__ = ["ACCENTS", "Speaker", "draw_speakers"]

ACCENTS = ("en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
"""espeak-ng's voices of American, New York, British, Received, Scottish, Lancaster, West Midlands and Caribbean English."""

# Variants that neither whisper nor echo like a robot, and that the synthesizer does not overdrive: at most three samples of a
# sentence reach full scale.
_WOMEN = "f1 f2 f5 Annie Andrea Alicia anika aunty belinda grandma linda steph"
_MEN = "m1 m2 m4 m5 m6 m7 m8 Andy Denis Diogo Lee boris david ian grandpa max michel pablo quincy rob robert travis victor zac"
_RATE, _PITCH, _RANGE, _LEVEL = (140, 191), (30, 71), (35, 66), (0.3, 0.9)


@dataclass(frozen=True)
class Speaker:
    """Who speaks: the voice, the position of its accent in ``ACCENTS``, the sex, and the peak of what is recorded."""

    voice: Voice
    accent: int
    sex: str
    level: float


def draw_speakers(n_speakers: int, rng: np.random.Generator) -> list[Speaker]:
    """Draw speakers, no two of the same accent and timbre; accents come in turn.

    Raises
    ------
    InputError
        If there are fewer pairs of accent and timbre than speakers.
    """
    timbres = [(name, "F") for name in _WOMEN.split()] + [(name, "M") for name in _MEN.split()]
    most = len(ACCENTS) * len(timbres)
    if n_speakers > most:
        raise InputError(f"{n_speakers} speakers are more than the {most} that the synthesizer can tell apart: ask for fewer")
    decks = [rng.permutation(len(timbres)) for _ in ACCENTS]
    speakers = []
    for index in range(n_speakers):
        accent, turn = index % len(ACCENTS), index // len(ACCENTS)
        name, sex = timbres[int(decks[accent][turn])]
        rate, pitch, pitch_range = (int(rng.integers(*limits)) for limits in (_RATE, _PITCH, _RANGE))
        voice = Voice(f"{ACCENTS[accent]}+{name}", rate, pitch, pitch_range)
        speakers.append(Speaker(voice, accent, sex, float(rng.uniform(*_LEVEL))))
    return speakers
