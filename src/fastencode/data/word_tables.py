"""Tables of words with their times.

A table is a CSV or TSV file. With a header, its columns are found by name. The label is in ``word``, ``label``, ``text``,
``token`` or ``phone``; the onset in ``onset``, ``start``, ``xmin`` or ``begin``; the end in ``offset``, ``end``, ``xmax`` or
``stop``, or the length in ``duration``. Without a header (Gentle's ``align.csv``) the columns are the word as written, the word
as aligned, onset and offset. Times are in s from the onset of the sound. A row without times is a word that the aligner did not
find, and is left out.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from fastencode.data.textgrid import Interval
from fastencode.errors import InputError
from fastencode.files import check_file, read_text

__all__ = ["read_word_table"]

_LABEL = ("word", "label", "text", "token", "phone")
_START = ("onset", "start", "xmin", "begin")
_END = ("offset", "end", "xmax", "stop")
_LENGTH = ("duration",)


def read_word_table(path: Path) -> list[Interval]:
    """Words of a table, in order.

    Parameters
    ----------
    path : Path
        CSV or TSV.

    Returns
    -------
    list of Interval
        Times in s from the onset of the sound.

    Raises
    ------
    InputError
        If the file is missing or damaged, its columns are not known, a time is no number, or no word has times.
    """
    text = read_text(check_file(path, "transcript"))
    delimiter = "\t" if path.suffix.lower() == ".tsv" or text.count("\t") > text.count(",") else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    if not rows:
        raise InputError(f"{path} is empty: give a row for each word, with its onset and offset in s")
    header = [cell.lower().lstrip("\ufeff") for cell in rows[0]]
    if _number(rows[0][-1]) is None and any(name in header for name in _START):
        label, start, end = (_column(path, header, names) for names in (_LABEL, _START, (*_END, *_LENGTH)))
        body, first = rows[1:], 2
        is_length = header[end] in _LENGTH
    elif len(rows[0]) == 4:
        label, start, end, body, first, is_length = 0, 2, 3, rows, 1, False
    else:
        raise InputError(f"{path} has the header {rows[0]}: name its columns word, onset and offset (or duration), in s")
    words = []
    for line, row in enumerate(body, first):
        if len(row) <= max(label, start, end):
            raise InputError(f"{path}, line {line} has {len(row)} cells, the first {len(rows[0])}: write all columns")
        if not row[start]:
            continue
        begins, ends = _number(row[start]), _number(row[end])
        if begins is None or ends is None:
            bad = row[start] if begins is None else row[end]
            raise InputError(f"{path}, line {line}: {bad!r} is no time: give s from the onset of the sound, such as 12.34")
        words.append(Interval(begins, begins + ends if is_length else ends, row[label]))
    if not words:
        raise InputError(f"{path} has no word with times: align it to the sound")
    words.sort(key=lambda word: (word.start, word.end))
    return words


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    found = [header.index(name) for name in names if name in header]
    if not found:
        raise InputError(f"{path} has columns {', '.join(header)}, and none is called {', '.join(names)}: rename one")
    return found[0]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
