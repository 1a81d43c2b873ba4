"""Praat TextGrids: labeled intervals of words and phones, read and written through praatio."""

from __future__ import annotations

import itertools
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastencode.errors import FastencodeWarning, InputError, require
from fastencode.files import check_file, text_encoding, whole_file
from fastencode.speech.silence import NON_SPEECH

__all__ = ["Interval", "pick_tier", "plain_label", "read_textgrid", "spoken", "write_textgrid"]

_TOLERANCE = 1e-3  # s: neighbors may overlap by what a writer's rounding of times explains

# praatio does not compare what a file promises with what it holds: these find the promises in the long and the short form.
_SIZES = re.compile(r"^\s*(?:intervals|points) ?: ?size ?= ?(\d+)", re.MULTILINE)
_SHORT_SIZES = re.compile(r'^"(?:IntervalTier|TextTier)"\s*\n".*"\s*\n\S+\s*\n\S+\s*\n(\d+)\s*$', re.MULTILINE)
# … and praatio drops the sign of a time below 0 in the long form, which would move the interval.
_NEGATIVE = re.compile(r"^\s*(?:xmin|xmax|number) ?= ?(-[\d.]*[1-9][\d.]*)", re.MULTILINE)
_TIERS = re.compile(r"^(?:size ?= ?|<exists>\s*\n)(\d+)", re.MULTILINE)


class Interval(NamedTuple):
    """One labeled stretch of time; a point has ``start == end``."""

    start: float
    """s."""
    end: float
    """s."""
    label: str
    """Without surrounding white space."""


def read_textgrid(path: str | os.PathLike[str], *, include_empty: bool = False) -> dict[str, list[Interval]]:
    """Read every tier of a TextGrid, long, short or JSON form.

    Parameters
    ----------
    path : path
        UTF-8 or UTF-16 with or without byte-order mark, with any line ends; anything else is read as Latin-1 with a warning.
    include_empty : bool
        Keep intervals whose label is empty.

    Returns
    -------
    dict of str to list of Interval
        Tiers in file order, intervals in time order, labels stripped. See ``pick_tier`` for access by name or position.
        Tiers of the same name become ``name``, ``name_2`` ….

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, not a TextGrid, or has overlapping intervals.
    MissingLibraryError
        If praatio is not installed (extra ``tune``).
    """
    path = Path(path)
    text = _decode(path).replace("\r\n", "\n").replace("\r", "\n")
    parsed = _parse(path, text)
    tiers: dict[str, list[Interval]] = {}
    for tier in parsed:
        name, copies = tier["name"], 1
        while name in tiers:
            copies += 1
            name = f"{tier['name']}_{copies}"
        intervals = sorted(_interval(path, name, entry) for entry in tier["entries"])
        _refuse_overlap(path, name, intervals)
        tiers[name] = [i for i in intervals if include_empty or i.label]
    return tiers


def pick_tier(tiers: Mapping[str, list[Interval]], *names: str, index: int | None = None) -> list[Interval]:
    """Return the tier with one of the names (any case), or else the one at a position.

    Parameters
    ----------
    tiers : mapping of str to list of Interval
        As ``read_textgrid`` returns them.
    *names : str
        What the tier may be called.
    index : int, optional
        Its position if none is called so.

    Raises
    ------
    InputError
        If neither exists.
    """
    wanted = {n.lower() for n in names}
    for name, tier in tiers.items():
        if name.strip().lower() in wanted:
            return tier
    if index is not None and index < len(tiers):
        return list(tiers.values())[index]
    raise InputError(
        f"no tier named {' or '.join(names)}"
        + f" or at position {index}" * (index is not None)
        + f": the tiers are {list(tiers)}"
    )


def spoken(intervals: Iterable[Interval], *, non_speech: frozenset[str] = NON_SPEECH) -> list[Interval]:
    """Drop silences, breaths and noises: labels that, without braces, space and case, are in ``non_speech``."""
    return [i for i in intervals if plain_label(i.label) not in non_speech]


def plain_label(label: str) -> str:
    """A label without braces, space and case: ``{SP}`` is ``sp``."""
    return label.strip().strip("{}<>").strip().lower()


def write_textgrid(
    path: str | os.PathLike[str], tiers: Mapping[str, Sequence[tuple[float, float, str]]], duration: float
) -> None:
    """Write interval tiers as a long-form UTF-8 TextGrid; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Where to write; its folder must exist.
    tiers : mapping of str to sequence of (start, end, label)
        Times in s; gaps are filled with empty intervals, as Praat needs.
    duration : float
        End of every tier in s; tiers start at 0.

    Raises
    ------
    InputError
        If intervals overlap, are not within 0 … duration, or end before they start, or the folder does not exist.
    """
    path = Path(path)
    textgrid_io = require("praatio.utilities.textgrid_io", "tune")
    written: list[dict[str, Any]] = []
    for name, given in tiers.items():
        intervals = sorted(Interval(float(start), float(end), str(label)) for start, end, label in given)
        _refuse_overlap(path, name, intervals, tolerance=1e-9)
        for i in intervals:
            if not 0 <= i.start < i.end <= duration:
                raise InputError(
                    f"{path}, tier {name!r}: {i} does not fit into 0 … {duration} s: give start < end within the duration"
                )
        written.append(
            {
                "class": "IntervalTier",
                "name": name,
                "xmin": 0.0,
                "xmax": float(duration),
                "entries": [tuple(i) for i in intervals],
            }
        )
    content = textgrid_io.getTextgridAsStr(
        {"xmin": 0.0, "xmax": float(duration), "tiers": written},
        "long_textgrid",
        True,
        minTimestamp=0.0,
        maxTimestamp=float(duration),
        minimumIntervalLength=None,
    )
    with whole_file(path) as partial:
        partial.write_text(content, encoding="utf-8")


def _decode(path: Path) -> str:
    raw = check_file(path).read_bytes()
    if not raw.strip():
        raise InputError(f"{path} is empty: export the TextGrid again")
    encoding = text_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise InputError(
                f"{path} is cut off or damaged: not valid {encoding} at byte {error.start}; export it again"
            ) from error
    warnings.warn(f"{path} is not UTF-8: read as Latin-1; save it as UTF-8 if labels look wrong", FastencodeWarning, stacklevel=3)
    return raw.decode("latin-1")


def _parse(path: Path, text: str) -> list[dict[str, Any]]:
    """The tiers, each with its ``name`` and ``entries``."""
    textgrid_io = require("praatio.utilities.textgrid_io", "tune")
    if not text.lstrip().startswith("{") and "TextGrid" not in text[:200]:
        raise InputError(f"{path} is not a TextGrid: its first line is {text.splitlines()[0][:60]!r}")
    try:
        parsed = textgrid_io.parseTextgridStr(text if text.endswith("\n") else text + "\n", True)
        tiers = [{"name": str(tier["name"]), "entries": list(tier["entries"])} for tier in parsed["tiers"]]
    except Exception as error:  # praatio lets whatever its string handling meets escape: ValueError, IndexError, AttributeError …
        raise InputError(
            f"{path} is not a whole TextGrid ({type(error).__name__}: {error}): it is cut off or damaged; export it again"
        ) from error
    if negative := _NEGATIVE.search(text):
        raise InputError(f"{path} has a time below 0 ({negative[1]} s): shift its times so that they begin at 0")
    read = [len(tier["entries"]) for tier in tiers]
    declared = [int(n) for n in _SIZES.findall(text)] or [int(n) for n in _SHORT_SIZES.findall(text)]
    count = _TIERS.search(text)
    if (declared and declared != read) or (count and int(count[1]) != len(read)):
        raise InputError(f"{path} is truncated: its tiers promise {declared} intervals and {read} can be read; export it again")
    return tiers


def _interval(path: Path, tier: str, entry: Sequence[Any]) -> Interval:
    try:
        start, end, label = float(entry[0]), float(entry[-2]), str(entry[-1]).strip()
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}, tier {tier!r}: {entry!r} is not a start, an end and a label; export it again") from error
    if not (math.isfinite(start) and math.isfinite(end) and start <= end):
        raise InputError(f"{path}, tier {tier!r}: {label!r} runs from {start} to {end} s; correct its times")
    return Interval(start, end, label)


def _refuse_overlap(path: Path, tier: str, intervals: Sequence[Interval], *, tolerance: float = _TOLERANCE) -> None:
    for before, after in itertools.pairwise(intervals):
        if after.start < before.end - tolerance:
            raise InputError(
                f"{path}, tier {tier!r}: {after.label!r} at {after.start:.3f} s starts before {before.label!r} ends at"
                f" {before.end:.3f} s; correct the overlapping intervals"
            )
