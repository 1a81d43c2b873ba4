"""Progress bars with rates: the only place that draws one."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

__all__ = ["progress"]

row = 0
"""Terminal row of this process's bars; processes that draw at the same time have different ones. Bars stay on row 0 only."""


def progress(iterable: Any = None, *, desc: str, unit: str = "it", total: float | None = None, enabled: bool = True) -> Any:
    """A tqdm bar on standard error; ``enabled=False`` makes it silent and free.

    Use as ``for item in progress(items, desc=..., unit=...)`` or as a context manager with ``update(n)``. Where standard error
    is no terminal, a line at most every ten seconds.
    """
    return tqdm(
        iterable,
        desc=desc,
        unit=unit,
        total=total,
        disable=not enabled,
        position=row,
        leave=None,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )
