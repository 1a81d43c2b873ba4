"""Brain-tuning: clips and responses in, a tuned checkpoint out. Never imports the solvers."""

from __future__ import annotations

from typing import Any

__all__ = ["brain_tune"]


def __getattr__(name: str) -> Any:
    """``brain_tune`` brings torch, so it is imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastencode.tune.trainer import brain_tune

    return brain_tune
