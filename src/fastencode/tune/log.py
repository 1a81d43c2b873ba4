"""The log of a tuning run: one JSON object a line, in the order in which things happened. Imports nothing slow.

A line is written whole or not at all, and is on its way to the disk before the next update. A state to go on from holds the log's
size; when the run goes on from that state, what was logged after it is cut off, and is written again. So a killed run leaves the
log of one that was never killed, but for times.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from fastencode.errors import InputError
from fastencode.files import check_file, make_folder, sync, writing

__all__ = ["Log", "epochs", "kept_epoch", "read_log", "updates"]

Row = dict[str, Any]

_STRETCH = 65536  # bytes read at once while looking for the end of the last whole line


class Log:
    """A log that is written. Use it as a context manager, or call :meth:`close`.

    Parameters
    ----------
    path : Path
        The file. Its folder is made, if there is none.
    size : int, optional
        Bytes of the file to keep: the :attr:`size` that a state holds, or 0 for a new log. By default all whole lines.
    tensorboard : Path, optional
        A folder for the same numbers as TensorBoard reads them. Nothing is written there if ``torch.utils.tensorboard`` cannot be
        imported.

    Attributes
    ----------
    size : int
        Bytes of the log so far.

    Raises
    ------
    InputError
        If the file has fewer than ``size`` bytes, or no line ends there: something else wrote to it.
    DiskError
        If the disk is full or may not be written to, here and in every method. The log then ends with the last whole line.
    """

    def __init__(self, path: Path, *, size: int | None = None, tensorboard: Path | None = None) -> None:
        make_folder(path.parent)
        self.path = path
        with writing(path):
            self._file = path.open("a+b", buffering=0)
        try:
            self.size = _whole_lines(self._file) if size is None else _check_size(self._file, size, path)
            with writing(path):
                self._file.truncate(self.size)
            self._board = None if tensorboard is None else _board(tensorboard, path)
        except BaseException:
            self._file.close()
            raise

    def write(self, kind: str, **values: Any) -> None:
        """Add one line: ``{"kind": kind, name: value, …}``.

        Parameters
        ----------
        kind : str
            update, epoch or end.
        **values
            Numbers, text, truth values, None, and lists and mappings of them. Scalars and arrays of NumPy and torch become
            numbers and lists of them. NaN and the infinities become null: JSON has neither.

        Raises
        ------
        TypeError
            If a value is, or holds, anything else.
        """
        row = {"kind": kind, **{name: _plain(value) for name, value in values.items()}}
        left = memoryview((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
        length = len(left)
        try:
            with writing(self.path):
                while left:
                    left = left[self._file.write(left) :]
        except BaseException:
            with suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size += length
        if self._board is not None:
            step = _step(row)
            for name, value in _numbers(row, kind):
                self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Wait until the disk has every line: call it before a state with :attr:`size` is saved."""
        with writing(self.path):
            sync(self.path)

    def close(self) -> None:
        """Close the file, and TensorBoard's."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_log(path: Path) -> list[Row]:
    """The lines of a log. A last line that was cut by a kill is left out.

    Raises
    ------
    InputError
        If the file is missing, or another line is no JSON object with a ``kind``: the message has its number.
    """
    *whole, last = check_file(path).read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(whole, 1):
        row = _row(line)
        if row is None:
            raise InputError(f"{path}, line {number} is damaged: restore the file, or delete this line")
        rows.append(row)
    cut = _row(last)
    return rows if cut is None else [*rows, cut]


def epochs(path: Path) -> list[Row]:
    """The lines of kind epoch. Raises as :func:`read_log` does."""
    return [row for row in read_log(path) if row["kind"] == "epoch"]


def updates(path: Path) -> list[Row]:
    """The lines of kind update. Raises as :func:`read_log` does."""
    return [row for row in read_log(path) if row["kind"] == "update"]


def kept_epoch(rows: list[Row]) -> Row | None:
    """Of the lines of a log, that of the epoch whose model was kept: what its end says, else the last; None without epochs."""
    found = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    end = next((row for row in reversed(rows) if row["kind"] == "end"), {})
    last = max(found, default=None)
    return found.get(end.get("epoch_kept"), found.get(last))


def _row(line: bytes) -> Row | None:
    """One line; None if it is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # of JSON, and of UTF-8
        return None
    return row if isinstance(row, dict) and isinstance(row.get("kind"), str) else None


def _whole_lines(file: Any) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _STRETCH)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        end = start
    return 0


def _check_size(file: Any, size: int, path: Path) -> int:
    there = file.seek(0, os.SEEK_END)
    if size > there:
        raise InputError(f"{path} has {there} bytes, but the saved state knows {size}: restore it, or begin in a new folder")
    file.seek(max(0, size - 1))
    if size and file.read(1) != b"\n":
        raise InputError(f"{path} was changed since the state was saved: no line ends at byte {size}; begin in a new folder")
    return size


def _plain(value: Any) -> Any:
    """A value as JSON has it, or a TypeError."""
    if hasattr(value, "detach"):  # a tensor: asked in this way, torch need not be here
        value = value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"a log holds no {type(value).__name__}: give numbers, text, or lists or mappings of them")


class _Board(Protocol):
    """What is used of TensorBoard's writer."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


def _board(folder: Path, log: Path) -> _Board | None:
    """TensorBoard's writer. What it was given after the last line of the log that is kept is not shown."""
    try:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return None
    steps = [_step(row) for row in read_log(log)]
    with writing(folder):
        board: _Board = writer(str(folder), purge_step=max(steps) + 1 if steps else 0)
    return board


def _step(row: Row) -> int:
    """Updates up to a line."""
    done: int = row["update"] if "update" in row else row.get("updates", 0)
    return done


def _numbers(values: Any, name: str) -> Iterator[tuple[str, float]]:
    """The numbers in a line, each by its path: ``update/learning_rate/heads``."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _numbers(value, f"{name}/{key}")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name, float(values)
