"""Seeds of single draws, so that no draw depends on what was drawn before it, nor on a global generator.

A run that was killed makes the same draws when it goes on: it needs the numbers below, and no generator's state.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["seed_of_draw", "seed_of_weights"]


def seed_of_weights(seed: int, name: str) -> int:
    """The seed of the first weights of a part of the model, below 2⁵⁶: the same whatever other parts there are.

    Parameters
    ----------
    seed : int
        The run's.
    name : str
        A participant's, for a head; that of a linear map, for its adapter.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")


def seed_of_draw(*parts: int) -> int:
    """The seed of one draw while tuning, below 2⁶³.

    Parameters
    ----------
    *parts : int
        Whole numbers, 0 or more, that tell it from other draws: the run's seed, the number of the update, of the process, of the
        part of the batch.
    """
    return int(np.random.SeedSequence([int(part) for part in parts]).generate_state(1, np.uint64)[0] >> 1)
