"""The stage that simulates data. It has a module of its own, so that only changes of the simulation's code repeat it."""

from __future__ import annotations

from pathlib import Path

from fastencode.world.config import WorldConfig
from fastencode.world.simulate import make_world

__all__ = ["write_world"]


def write_world(folder: Path, config: WorldConfig) -> None:
    """Write simulated stories, transcripts and responses into a folder."""
    make_world(config, folder)
