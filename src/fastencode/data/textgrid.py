"""Praat TextGrids: labeled intervals of words and phones, read in every form that Praat reads, written through praatio."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastencode.data.praat import Damaged, binary_tiers, is_binary, is_textgrid, text_tiers
from fastencode.errors import InputError, require, warn
from fastencode.files import check_file, text_encoding, whole_file
from fastencode.speech.silence import NON_SPEECH

__all__ = ["Interval", "pick_tier", "plain_label", "read_textgrid", "spoken", "write_textgrid"]

_TOLERANCE = 1e-3  # s: neighbors may overlap by what a writer's rounding of times explains
_NAMES = {"latin-1": "Latin-1", "cp1252": "Windows-1252", "mac_roman": "MacRoman"}
_WINDOWS_PUNCTUATION = frozenset(b"\x80\x82\x84\x85\x91\x92\x93\x94\x95\x96\x97\x99")  # euro, quotation marks, dots, dashes


class Interval(NamedTuple):
    """One labeled stretch of time; a point has ``start == end``."""

    start: float
    """s."""
    end: float
    """s."""
    label: str
    """Without surrounding white space."""


def read_textgrid(path: str | os.PathLike[str], *, include_empty: bool = False) -> dict[str, list[Interval]]:
    """Read every tier of a TextGrid in Praat's long, short, chronological or binary form, or in praatio's JSON.

    Parameters
    ----------
    path : path
        Text in UTF-8 or UTF-16 with or without byte-order mark, with any line ends; anything else is read as Latin-1,
        Windows-1252 or MacRoman, with a warning that says which.
    include_empty : bool
        Keep intervals whose label is empty.

    Returns
    -------
    dict of str to list of Interval
        Tiers in file order, intervals in time order, labels stripped. See ``pick_tier`` for access by name.
        Tiers of the same name become ``name``, ``name_2`` ….

    Raises
    ------
    InputError
        If the file is missing, not fetched, empty, truncated, not a TextGrid, or has overlapping intervals.

    Warns
    -----
    FastencodeWarning
        If the text is in an 8-bit encoding, which has to be guessed; or if more follows the last label than the file announces.
    """
    path = Path(path)
    parsed = _parse(path, check_file(path).read_bytes())
    tiers: dict[str, list[Interval]] = {}
    for own, entries in parsed:
        name, copies = own, 1
        while name in tiers:
            copies += 1
            name = f"{own}_{copies}"
        intervals = sorted(_interval(path, name, entry) for entry in entries)
        _refuse_overlap(path, name, intervals)
        tiers[name] = [i for i in intervals if include_empty or i.label]
    return tiers


def pick_tier(tiers: Mapping[str, list[Interval]], *names: str, alone: bool = False, option: str = "") -> list[Interval]:
    """Return the tier with one of the names (any case); or else the one whose name ends with one, as ``Lisa - words`` does.

    Parameters
    ----------
    tiers : mapping of str to list of Interval
        As ``read_textgrid`` returns them.
    *names : str
        What the tier may be called.
    alone : bool
        If there is one tier only, take it whatever its name.
    option : str
        The setting that names the tier, for messages.

    Raises
    ------
    InputError
        If no tier is called so, or several end so; the message lists all tiers. Positions say nothing: aligners and languages
        differ in the order of tiers.
    """
    wanted = {name.strip().lower() for name in names}
    for name, tier in tiers.items():
        if name.strip().lower() in wanted:
            return tier
    if alone and len(tiers) == 1:
        return next(iter(tiers.values()))
    end = re.compile(rf"(?:.*[\W_])(?:{'|'.join(map(re.escape, sorted(wanted)))})", re.DOTALL)
    found = [name for name in tiers if end.fullmatch(name.strip().lower())]
    if len(found) == 1:
        return tiers[found[0]]
    remedy = f"; name one with {option}" if option else ""
    if found:
        raise InputError(f"the tiers {found} all end with {' or '.join(names)}{remedy}")
    raise InputError(f"no tier named {' or '.join(names)}, or ending so: the tiers are {list(tiers)}{remedy}")


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


def _decode(path: Path, raw: bytes) -> str:
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
    encoding = _eight_bits(raw)
    warn(f"{path} is not UTF-8: read as {_NAMES[encoding]}; save it as UTF-8 if labels look wrong")
    return raw.decode(encoding, errors="replace")


def _eight_bits(raw: bytes) -> str:
    """The likely encoding of text with one byte a letter: in 0x80 … 0x9f Latin-1 has nothing, Windows signs, Macs letters."""
    low = {byte for byte in raw if 0x80 <= byte < 0xA0}
    if b"\r" in raw and b"\n" not in raw:  # line ends of Macs before 2001
        return "mac_roman"
    if not low:
        return "latin-1"
    return "cp1252" if low <= _WINDOWS_PUNCTUATION else "mac_roman"


def _parse(path: Path, raw: bytes) -> list[tuple[str, list[Any]]]:
    """The tiers, each with its name and entries."""
    try:
        if is_binary(raw):
            return [(tier.name, list(tier.entries)) for tier in binary_tiers(raw)]
        text = _decode(path, raw).replace("\r\n", "\n").replace("\r", "\n")
        if text.lstrip().startswith("{"):
            return _json_tiers(text)
        if not is_textgrid(text):
            raise InputError(f"{path} is not a TextGrid: its first line is {text.strip().splitlines()[0][:60]!r}")
        tiers, more = text_tiers(text)
    except Damaged as error:
        raise InputError(f"{path} is not a whole TextGrid ({error}): it is cut off or damaged; export it again") from error
    if more:
        count = sum(len(tier.entries) for tier in tiers)
        warn(f"{path} announces {count} labels in {len(tiers)} tiers, and more follows, which is not read: correct the numbers")
    return [(tier.name, list(tier.entries)) for tier in tiers]


def _json_tiers(text: str) -> list[tuple[str, list[Any]]]:
    """The tiers of both kinds of JSON that praatio writes: an object of tiers by name, or a list of them."""
    try:
        tiers = json.loads(text)["tiers"]
        named = tiers.items() if isinstance(tiers, dict) else [(tier["name"], tier) for tier in tiers]
        return [(str(name), list(tier["entries"])) for name, tier in named]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error


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
