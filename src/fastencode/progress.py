"""Progress bars with rates. All of the package's bars are made here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Protocol

from tqdm import tqdm

__all__ = ["Bar", "progress", "say"]


def say(message: str) -> None:
    """One line on the terminal, above the bars. Only commands do that."""
    tqdm.write(message)


row = 0
"""Terminal row of this process's bars. Processes that draw at the same time set different rows. Finished bars stay on row 0."""


class Bar(Protocol):
    """A progress bar: what the solvers use of tqdm's."""

    total: float

    def update(self, n: float = 1) -> object: ...


def progress(
    iterable: Iterable[Any] | None = None, *, desc: str, unit: str = "it", total: float | None = None, enabled: bool = True
) -> tqdm[Any]:
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
