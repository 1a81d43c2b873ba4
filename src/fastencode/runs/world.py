"""The stage of the demo's world; by itself, so that it is made again only when the world's code changes."""

from __future__ import annotations

from pathlib import Path

from fastencode.world.config import WorldConfig
from fastencode.world.simulate import make_world

__all__ = ["write_world"]


def write_world(folder: Path, config: WorldConfig) -> None:
    """The stage that writes the world."""
    make_world(config, folder)
