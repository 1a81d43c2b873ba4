"""Settings of reading layers. Imports nothing but the standard library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastencode.errors import InputError

__all__ = ["ReadConfig"]


@dataclass(frozen=True)
class ReadConfig:
    """Which stretches of sound are read, and what is kept of each.

    Attributes
    ----------
    input : {"clip", "window"}
        A clip for every TR, or a sliding window.
    tr : float
        For clips: the TR in s; a clip ends with each.
    seconds : float
        For clips: their length in s. What lies before the recording is silence.
    stride : float
        For windows: by how much they slide, in s.
    context : float
        For windows: how much of the past they hold besides the stride, in s. Early windows are shorter.
    pool : {"last", "mean"}, optional
        Keep each layer's last frame or the mean of all; by default the mean of a clip and the last frame of a window.
    """

    input: str = "clip"
    tr: float = 2.0
    seconds: float = 10.0
    stride: float = 0.1
    context: float = 16.0
    pool: str | None = None

    def __post_init__(self) -> None:
        if self.input not in ("clip", "window"):
            raise InputError(f"input={self.input!r}: choose 'clip' or 'window'")
        if self.pool not in (None, "last", "mean"):
            raise InputError(f"pool={self.pool!r}: choose 'last' or 'mean'")
        for name in ("tr", "seconds", "stride", "context"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name}={getattr(self, name)}: give a positive number of seconds")

    @property
    def pooled(self) -> str:
        """How frames are pooled."""
        return self.pool or {"clip": "mean", "window": "last"}[self.input]

    @property
    def longest(self) -> float:
        """Seconds of the longest stretch."""
        return self.seconds if self.input == "clip" else self.context + self.stride

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the features."""
        used = ("tr", "seconds") if self.input == "clip" else ("stride", "context")
        return {"input": self.input, "pool": self.pooled, **{name: float(getattr(self, name)) for name in used}}
