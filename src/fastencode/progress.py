"""Progress bars with rates. All of the package's bars are made here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

from tqdm import tqdm

__all__ = ["Bar", "Line", "progress", "say"]


def say(message: str) -> None:
    """One line on the terminal, above the bars. Only commands do that."""
    tqdm.write(message)


row = 0
"""Terminal row of this process's bars. Processes that draw at the same time set different rows. Finished bars stay on row 0."""


class Line:
    """One line that says how far a command is. On a terminal it is rewritten, below it this process's bars; elsewhere, such as in
    a log file, it comes at most once a minute, and at the end.
    """

    _PAUSE = 60.0  # s

    def __init__(self) -> None:
        self._bar = tqdm(bar_format="{desc}", position=0, leave=False, disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._last, self._text, self._said, self._row = time.monotonic(), "", "", row

    def __enter__(self) -> Line:
        globals()["row"] = self._row + 1
        return self

    def show(self, text: str) -> None:
        """What the line says from now on."""
        self._text = text
        self._bar.set_description_str(text)
        if self._bar.disable and time.monotonic() - self._last >= self._PAUSE:
            self._last, self._said = time.monotonic(), text
            say(text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        globals()["row"] = self._row
        self._bar.close()
        if self._text != self._said:
            say(self._text)


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
