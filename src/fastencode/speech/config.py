"""Settings of reading layers. Imports nothing but the standard library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastencode.errors import InputError

__all__ = ["ReadConfig"]

# Ways to read → ways to pool, the default first.
_POOLS = {"clip": ("newest", "mean", "last"), "window": ("last", "newest", "mean"), "utterance": ("mean", "bins")}


@dataclass(frozen=True)
class ReadConfig:
    """Which stretches of sound are read, and what is kept of each.

    Attributes
    ----------
    input : {"clip", "window", "utterance"}
        A clip for every TR, a sliding window, or each recording as a whole, of any length (Whisper: at most 30 s).
    tr : float
        For clips: the TR in s; a clip ends with each.
    seconds : float
        For clips: their length in s. What lies before the recording is silence.
    stride : float
        For windows: by how much they slide, in s.
    context : float
        For windows: how much of the past they hold besides the stride, in s. Early windows are shorter.
    pool : {"newest", "mean", "last", "bins"}, optional
        What is kept of each layer's frames. newest: those of a clip's last TR (a window's last stride), averaged in bins, which
        are resampled to scans as windows are. mean: the mean of all that carry sound. last: the last one. bins: of utterances,
        the mean of each bin. By default newest for clips, last for windows, mean for utterances; utterances are pooled by mean
        or bins only.
    bin : float
        For newest: longest duration of a bin, in s. For bins: their duration, counted from the start of the recording; that
        of a model's frames, such as 0.02, keeps every frame. A bin is kept if it begins at least 25 ms before the sound ends,
        so that all models whose frames hear 25 ms keep the same bins.

    Notes
    -----
    The mean of a whole clip smears features over its length before the FIR delays see them, and the last frame drops what was
    heard in the rest of the TR. On the demo's world newest scores best: the README's "Your own data" has the numbers
    (``bench/readers.py``).
    """

    input: str = "clip"
    tr: float = 2.0
    seconds: float = 10.0
    stride: float = 0.1
    context: float = 16.0
    pool: str | None = None
    bin: float = 0.5

    def __post_init__(self) -> None:
        if self.input not in _POOLS:
            raise InputError(f"input={self.input!r}: choose 'clip', 'window' or 'utterance'")
        if self.pool not in (None, "newest", "mean", "last", "bins"):
            raise InputError(f"pool={self.pool!r}: choose 'newest', 'mean', 'last' or 'bins'")
        if self.pool is not None and self.pool not in _POOLS[self.input]:
            others = " or ".join(map(repr, _POOLS[self.input]))
            raise InputError(f"pool={self.pool!r} is not for input={self.input!r}: choose {others}")
        for name in ("tr", "seconds", "stride", "context", "bin"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name}={getattr(self, name)}: give a positive number of seconds")
        if self.input == "clip" and self.pooled == "newest" and self.seconds < self.tr:
            raise InputError(f"seconds={self.seconds}: a clip must hold its TR of {self.tr:g} s, or pool its frames by 'mean'")

    @property
    def pooled(self) -> str:
        """How frames are pooled."""
        return self.pool or _POOLS[self.input][0]

    @property
    def step(self) -> float:
        """Of clips and windows: seconds from the end of one stretch to that of the next."""
        return self.tr if self.input == "clip" else self.stride

    @property
    def longest(self) -> float:
        """Of clips and windows: seconds of the longest stretch."""
        return self.seconds if self.input == "clip" else self.context + self.stride

    @property
    def kept(self) -> int:
        """Of clips and windows: rows kept of each stretch, the bins of its last step or one."""
        return math.ceil(self.step / self.bin - 1e-9) if self.pooled == "newest" else 1

    def stretches(self) -> dict[str, Any]:
        """The settings that decide which stretches are read."""
        used = {"clip": ("tr", "seconds"), "window": ("stride", "context"), "utterance": ()}[self.input]
        return {"input": self.input, **{name: float(getattr(self, name)) for name in used}}

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the features."""
        bins = {"bin": float(self.bin)} if self.pooled in ("newest", "bins") else {}
        return {**self.stretches(), "pool": self.pooled, **bins}
