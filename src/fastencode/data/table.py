"""Reader of a table of runs: one row for each presentation of a sound to a participant, for any lab's files.

A CSV or TSV file (UTF-8 or UTF-16) with a header. Paths start at the table's folder. An empty cell means the default::

    participant,run,audio,responses,tr
    anna,story1,sounds/story1.wav,bold/anna_story1.npy,2.0
    anna,story2,sounds/story2.wav,bold/anna_story2.h5::data,2.0

=============== =================================================================== ==================================
column          what it says                                                        default
=============== =================================================================== ==================================
participant     who listened                                                        needed
run             name of the story; equal names are the same sound                   needed
audio           file of sound                                                       needed, or features that are there
responses       rows × channels: .npy, .h5::key, .nii.gz, .func.gii, .dtseries.nii; needed
                files joined by "+" stand side by side
tr              repetition time in s                                                needed, or times
times           file of scan times in s from the first (.npy, or numbers as text)   multiples of tr
onset           s from the start of the first scan to the onset of the sound        0
skip_start      scans left out at the start of the file                             0
skip_end        scans left out at its end                                           0
censored        file of one 0 or 1 for each scan: 1 is left out of fits and scores  none
repeat_of       the run that this one repeats                                       none
split           train, validation or test                                           train
mask            brain mask of images; booleans of vertices of surfaces              none
regions         file or folder of the participant's regions                         none
transcript      TextGrid, or a table of words                                       none
=============== =================================================================== ==================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.data.findings import Finding, halves
from fastencode.data.manifest import read_rows
from fastencode.data.recordings import SPLITS
from fastencode.data.responses import Responses, open_responses
from fastencode.data.runs import Run
from fastencode.errors import FastencodeError, InputError
from fastencode.files import check_file

__all__ = ["COLUMNS", "read_table"]

NEEDED = ("participant", "run", "responses")
COLUMNS = (
    *NEEDED, "audio", "tr", "times", "onset", "skip_start", "skip_end", "censored", "repeat_of", "split", "mask", "regions",
    "transcript",
)  # fmt: skip
"""Columns that are read. Others are left alone."""


def read_table(path: Path) -> tuple[list[Run], list[Finding]]:
    """Read a table of runs; of responses and sounds only headers.

    Parameters
    ----------
    path : Path
        The table.

    Returns
    -------
    runs : list of Run
        Of every row that can be used, in the order of the table.
    problems : list of Finding
        Everything that is wrong with the other rows, each with its line.

    Raises
    ------
    InputError
        If the file is no table, or a column is missing.
    """
    rows = read_rows(path)
    there = list(dict.fromkeys(column for _, row in rows for column in row))
    lacking = [column for column in NEEDED if column not in there]
    if not {"tr", "times"} & set(there):
        lacking.append("tr")
    if lacking:
        close = {column: get_close_matches(column, there, n=1) for column in lacking}
        meant = "".join(f"; {found[0]!r} may be {column!r}" for column, found in close.items() if found)
        raise InputError(f"{path} has no column {' and no '.join(lacking)}, only {', '.join(there)}{meant}: add it to the header")
    runs: list[Run] = []
    problems: list[Finding] = []
    names = {row.get("run", "") for _, row in rows}
    for line, row in rows:
        cells = _Cells(path, line, row, problems)
        before = len(problems)
        run = _run(cells, names)
        if run is not None and len(problems) == before:
            runs.append(run)
    misspelt = [(column, get_close_matches(column, COLUMNS, n=1, cutoff=0.8)) for column in there if column not in COLUMNS]
    for column, found in misspelt:
        if found and found[0] not in there:
            problems.append(Finding("doubt", str(path), f"column {column!r} is not read", f"did you mean {found[0]!r}?"))
    return runs, problems


@dataclass
class _Cells:
    """The cells of one row, each read with what is wrong about it."""

    table: Path
    line: int
    row: Mapping[str, str]
    problems: list[Finding] = field(default_factory=list)

    def wrong(self, what: str, remedy: str) -> None:
        self.problems.append(Finding("unusable", f"{self.table}, line {self.line}", what, remedy))

    def text(self, column: str) -> str:
        return self.row.get(column, "")

    def needed(self, column: str) -> str:
        if not (found := self.text(column)):
            self.wrong(f"{column} is empty", "fill it in, or delete the line")
        return found

    def number(self, column: str, kind: Callable[[str], Any], default: Any, what: str) -> Any:
        if not (found := self.text(column)):
            return default
        try:
            value = kind(found)
        except ValueError:
            value = None
        if value is None or not np.isfinite(value):
            self.wrong(f"{column} is {found!r}", f"give {what}")
            return default
        return value

    def file(self, column: str) -> Path | None:
        if not (found := self.text(column)):
            return None
        path = self.table.parent / found
        if column in ("mask", "regions") and path.is_dir():
            return path
        return self.tried(lambda: check_file(path, column))

    def tried(self, made: Callable[[], Any]) -> Any:
        """What is made, or None where it fails: the error is a problem of this line."""
        try:
            return made()
        except FastencodeError as error:
            self.wrong(*halves(str(error)))
            return None


def _run(cells: _Cells, names: set[str]) -> Run | None:
    who, name = cells.needed("participant"), cells.needed("run")
    mask, sound = cells.file("mask"), cells.file("audio")
    if cells.text("repeat_of"):
        if cells.text("repeat_of") not in names:
            cells.wrong(f"repeat_of is {cells.text('repeat_of')!r}, no run of the table", "name the run that was repeated")
        name = cells.text("repeat_of")
    split = cells.text("split").lower() or "train"
    if split not in SPLITS:
        cells.wrong(f"split is {cells.text('split')!r}", f"choose among {', '.join(SPLITS)}")
        split = "train"
    responses = None
    if text := cells.needed("responses"):
        parts = "+".join(str(cells.table.parent / part.strip()) for part in text.split("+"))
        responses = cells.tried(lambda: _opened(parts, mask))
    times, marks = _numbers(cells, "times"), _numbers(cells, "censored")
    tr = cells.number("tr", float, None, "the repetition time in s, such as 2.0")
    if tr is None and times is not None and len(times) > 1:
        tr = float(np.median(np.diff(times)))
    if tr is None and not cells.text("tr"):
        cells.wrong("tr is empty", "give the repetition time in s, such as 2.0")
    given: dict[str, Any] = {
        "onset": cells.number("onset", float, 0.0, "s from the start of the first scan"),
        "skip_start": cells.number("skip_start", int, 0, "a whole number of scans"),
        "skip_end": cells.number("skip_end", int, 0, "a whole number of scans"),
    }
    regions, transcript = cells.file("regions"), cells.file("transcript")
    if responses is None or tr is None or not who or not name:
        return None
    beside: dict[str, Any] = {"split": split, "transcript": transcript, "mask": mask, "regions": regions}
    kept = None if marks is None else marks == 0
    made: Run | None = cells.tried(lambda: Run(who, name, sound, responses, tr, times=times, kept=kept, **given, **beside))
    return made


def _opened(parts: str, mask: Path | None) -> Responses:
    """Responses whose header was read."""
    found = open_responses(parts, mask)
    _ = found.shape
    return found


def _numbers(cells: _Cells, column: str) -> NDArray[np.float64] | None:
    """One number for each scan, from a .npy file or from text."""
    path = cells.file(column)
    if path is None:
        return None
    try:
        found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
    except (ValueError, EOFError, OSError) as error:
        cells.wrong(f"{column} {path} holds no numbers ({error})", "give a .npy file, or text with one number a line")
        return None
    if found.ndim != 1 or not np.isfinite(found).all():
        cells.wrong(f"{column} {path} has shape {found.shape}, or gaps", "give one number for each scan")
        return None
    return np.asarray(found, np.float64)
