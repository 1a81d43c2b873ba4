"""Reader of manifests: a table that says where recordings lie and what they are, for any corpus, task and language.

A manifest is a CSV file, a TSV file or one JSON object a line, with a column for the path of the sound, one or more for labels,
and where there are any, for the speaker and the split::

    audio,label,speaker,split,tr
    clips/0001.wav,iloinen,puhuja1,train,1.35
    clips/0002.wav,surullinen,puhuja2,test,1.35

Text is UTF-8 or UTF-16, with or without byte-order mark. Paths start at the manifest's folder, unless they are absolute. Other
columns stay as they are, so a manifest may carry whatever else belongs to a recording: its language, the scanner's TR, a file of
responses.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastencode.data.recordings import SPLITS, Recording, warn_of_shared_speakers
from fastencode.errors import InputError
from fastencode.files import check_file, is_unfetched, read_text

__all__ = ["read_manifest", "read_rows"]

_NO_QUOTES = "\t"  # the registered form of TSV has no quotes, and transcripts in it begin with quotation marks of their own


def read_manifest(
    path: str | os.PathLike[str],
    *,
    audio: str = "audio",
    labels: str | Sequence[str] = "label",
    speaker: str | None = "speaker",
    split: str | None = "split",
    splits: Mapping[str, str] | None = None,
    delimiter: str | None = None,
) -> list[Recording]:
    """Read the recordings that a manifest lists; sound is read when asked for.

    Parameters
    ----------
    path : path
        CSV, TSV or JSON lines: a file that begins with a brace is JSON.
    audio : str
        The column of paths.
    labels : str or sequence of str
        Columns that every row must fill; ``()`` when nothing is labeled.
    speaker, split : str or None
        The columns of the speaker and the split; None when there is none.
    splits : mapping of str to str, optional
        What the manifest calls its splits → ``"train"``, ``"validation"`` or ``"test"``; these three, in any case, need no entry.
    delimiter : str, optional
        What separates columns: by default tabs in a file called ``.tsv``, else commas. Between tabs, quotation marks are letters.

    Returns
    -------
    list of Recording
        In the order of the file. ``labels`` holds the columns of labels and all others but path, speaker and split, as the text
        that stands there, also numbers and what JSON nests; an empty cell has no entry.

    Raises
    ------
    InputError
        If a column or a file is missing (not fetched, or a folder), a row is empty or does not fit the header, a cell of a named
        column is empty, a path stands twice, a split is unknown, or the text is damaged. The message names the line.

    Warns
    -----
    FastencodeWarning
        If a speaker stands in several splits.
    """
    path = Path(path)
    names = _split_names(splits or {})
    rows = read_rows(path, delimiter)
    needed = {"audio": [audio], "labels": [labels] if isinstance(labels, str) else list(labels)}
    needed |= {"speaker": [] if speaker is None else [speaker], "split": [] if split is None else [split]}
    _check_columns(path, rows, needed)
    required = [column for columns in needed.values() for column in columns]
    beside = {audio, speaker, split} - set(needed["labels"])
    recordings: list[Recording] = []
    missing: list[tuple[int, Path]] = []
    first_line: dict[str, int] = {}
    for line, row in rows:
        if not any(row.values()):
            raise InputError(f"{path}, line {line} is empty: delete it")
        for column in required:
            if not row.get(column):
                raise InputError(f"{path}, line {line}: {column!r} is empty; fill it in, or delete the line")
        file = path.parent / row[audio]
        before = first_line.setdefault(os.path.normpath(file), line)
        if before != line:
            raise InputError(f"{path}, line {line}: {row[audio]!r} stands on line {before} already; list each recording once")
        if not file.is_file() or is_unfetched(file):
            missing.append((line, file))
        if split is not None and row[split].lower() not in names:
            raise InputError(
                f"{path}, line {line}: split {row[split]!r} is none of {', '.join(names)}; say what it is with"
                f" splits={{{row[split]!r}: 'validation'}}"
            )
        recordings.append(
            Recording(
                path=file,
                labels={key: value for key, value in row.items() if value and key not in beside},
                speaker=None if speaker is None else row[speaker],
                split=None if split is None else names[row[split].lower()],
            )
        )
    if missing:
        line, file = missing[0]
        count, why = f"{len(missing)} of {len(rows)} files are missing", _why_missing(path, file)
        raise InputError(f"{path}: {count}, the first {file} on line {line}; {why}")
    warn_of_shared_speakers(recordings, path)
    return recordings


def read_rows(path: Path, delimiter: str | None = None) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table, CSV, TSV or JSON lines, each with its line's number, and without its empty cells.

    Raises
    ------
    InputError
        If the text is damaged, a row does not fit the header, or there is none.
    """
    text = read_text(path)
    rows = list(_objects(path, text) if text.lstrip().startswith("{") else _cells(path, text, delimiter))
    if not rows:
        raise InputError(f"{path} has a header and no rows: list at least one recording")
    return rows


def _why_missing(manifest: Path, file: Path) -> str:
    if not os.path.lexists(file):
        return f"paths start at {manifest.parent}"
    try:
        check_file(file)
    except InputError as error:
        return str(error)
    return f"{file} is no regular file"


def _split_names(splits: Mapping[str, str]) -> dict[str, str]:
    for name, meant in splits.items():
        if meant not in SPLITS:
            raise InputError(f"splits maps {name!r} to {meant!r}: the splits are {', '.join(SPLITS)}")
    return {name: name for name in SPLITS} | {name.strip().lower(): meant for name, meant in splits.items()}


def _check_columns(path: Path, rows: Sequence[tuple[int, Mapping[str, str]]], needed: Mapping[str, Sequence[str]]) -> None:
    there = dict.fromkeys(column for _, row in rows for column in row)
    for argument, columns in needed.items():
        for column in columns:
            if column not in there:
                none = {"audio": "", "labels": ", or labels=() if nothing is labeled"}.get(
                    argument, f", or {argument}=None if there is none"
                )
                raise InputError(
                    f"{path} has no column {column!r}, only {list(there)}: rename one, or say which it is with {argument}={none}"
                )


def _objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of JSON lines, each with its line's number."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=str, parse_float=str)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number} is not JSON ({error.msg}, column {error.colno}): write one whole object on each line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object: write {{column: value}} on each line")
        yield number, {key.strip(): _as_text(value) for key, value in row.items()}


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cells(path: Path, text: str, delimiter: str | None) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the number of its first line. Blank lines are none, columns without a name are left out."""
    if text.lstrip().startswith("["):
        raise InputError(f"{path} is one JSON array: write one object on each line, without brackets and commas around them")
    if delimiter is None:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    if len(delimiter) != 1:
        raise InputError(f"delimiter={delimiter!r}: give the one character that separates columns")
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == _NO_QUOTES else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] | None = None
    line, end = 0, 0
    try:
        for cells in reader:
            line, end = end + 1, reader.line_num
            cells = [cell.strip() for cell in cells]
            if cells in ([], [""]):
                continue
            if header is None:
                header = _checked_header(path, cells, delimiter)
            elif len(cells) != len(header):
                raise InputError(
                    f"{path}, line {line} has {len(cells)} cells, but the header has {len(header)}: put cells that contain"
                    f" {delimiter!r} in quotation marks"
                )
            else:
                yield line, {column: cell for column, cell in zip(header, cells, strict=True) if column}
    except csv.Error as error:
        raise InputError(f"{path}, line {end + 1}: {error}; check the quotation marks from there on") from error


def _checked_header(path: Path, header: list[str], delimiter: str) -> list[str]:
    twice = [column for column in header if column and header.count(column) > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]!r}: rename one")
    other = next((mark for mark in ",;\t|" if mark in header[0]), None) if len(header) == 1 else None
    if other:
        raise InputError(f"{path} has the header {header[0]!r}, without a {delimiter!r}: give delimiter={other!r}")
    return header
