"""Progress bars with rates: the only place that draws one."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

__all__ = ["progress"]


def progress(iterable: Any = None, *, desc: str, unit: str = "it", total: float | None = None, enabled: bool = True) -> tqdm:
    """A tqdm bar on standard error; ``enabled=False`` makes it silent and free.

    Use as ``for item in progress(items, desc=..., unit=...)`` or as a context manager with ``update(n)``.
    """
    return tqdm(iterable, desc=desc, unit=unit, total=total, disable=not enabled, dynamic_ncols=True, leave=True, smoothing=0.1)
