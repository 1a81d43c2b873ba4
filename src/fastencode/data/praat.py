"""The files that Praat writes TextGrids to: text in its long, short and chronological form, and binary.

Praat reads text by kind, not by name. A word that begins with a digit or a sign is a number, what stands between quotation marks
is a string ("" inside is one quotation mark), ``<exists>`` is a flag; ``!`` begins a comment that ends with the line, and every
other word is skipped. So ``xmin = 0`` of the long form and ``0`` of the short form are the same. Read here, but not by Praat:
empty first lines, and values without a space before them (``xmin=0``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Damaged", "Tier", "binary_tiers", "is_binary", "is_textgrid", "text_tiers"]

_CHRONOLOGICAL = "Praat chronological TextGrid text file"
_ROUNDING = 1e-3  # s
_BINARY = b"ooBinaryFile"
_PARTS = re.compile(
    r'(?P<space>\s+)|(?P<comment>![^\n]*)|"(?P<string>[^"]*(?:""[^"]*)*)"(?=\s|\Z)|<(?P<flag>[^<>\n]*)>|(?P<number>[-+]?\.?\d[^\s!]*)'
    r"|(?P<word>[^\s\"]\S*)"
)
_GLUED = re.compile(r'[^\s"=<>!\d+-][^\s"=<>!]*=(?=[-+.\d"<])|[^\s"=<>!]+\?(?=<)|=(?=[-+.\d"<])')
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:/(\d+\.?\d*))?(%?)\Z")


class Damaged(Exception):
    """The text is no whole TextGrid; the message says where and why."""

    def __init__(self, message: str, place: int = 0) -> None:
        super().__init__(message)
        self.place = place


class Tier(NamedTuple):
    """A tier as its file has it."""

    name: str
    points: bool
    entries: list[tuple[float, float, str]]
    """Start and end in s and label; a point starts where it ends."""


class _Token(NamedTuple):
    kind: str
    value: str
    place: int


def is_binary(raw: bytes) -> bool:
    """Whether the bytes are a binary file of Praat's, of whatever kind."""
    return raw.startswith(_BINARY)


def is_textgrid(text: str) -> bool:
    """Whether text says of itself that it is a TextGrid, or begins as one does."""
    head = text.lstrip()[:400]
    named = re.search(r'"TextGrid[ \d]*"', head) is not None
    return _CHRONOLOGICAL in head.partition("\n")[0] or ("ooTextFile" in head and named)


def text_tiers(text: str) -> tuple[list[Tier], bool]:
    """The tiers of a TextGrid in any form of text with line ends ``\\n``, and whether more follows that belongs to no tier.

    Raises
    ------
    Damaged
        If the text ends too early, or something else stands where a number, string or flag is needed.
    """
    try:
        strict = _tiers(text, glued=False)
        if not strict[1]:
            return strict
    except Damaged as error:
        try:
            return _tiers(text, glued=True)
        except Damaged as other:
            raise max((error, other), key=lambda one: one.place) from None
    try:  # what follows may be what a number without a space should have announced
        lenient = _tiers(text, glued=True)
    except Damaged:
        return strict
    return strict if lenient[1] else lenient


def _tiers(text: str, *, glued: bool) -> tuple[list[Tier], bool]:
    tokens = _Tokens(text, glued=glued)
    if _CHRONOLOGICAL in text.lstrip().partition("\n")[0]:
        return _chronological(tokens), False
    tokens.string("the file's type")
    found = tokens.string("the kind of object")
    if not re.fullmatch(r"TextGrid[ \d]*", found):
        raise Damaged(f"it holds a {found}, not a TextGrid: save the TextGrid alone")
    tokens.number("the start"), tokens.number("the end")
    tiers: list[Tier] = []
    if tokens.flag("<exists>") == "exists":
        tiers = [_tier(tokens, place) for place in range(1, tokens.count("the number of tiers") + 1)]
    return tiers, not tokens.ended


def _tier(tokens: _Tokens, place: int) -> Tier:
    where = f"tier {place}"
    points = _is_points(tokens.string(f"the class of {where}"), where)
    name = tokens.string(f"the name of {where}")
    tokens.number(f"the start of {where}"), tokens.number(f"the end of {where}")
    entries = []
    for _ in range(tokens.count(f"the number of labels in {where}")):
        start = tokens.number(f"a time in {where}")
        end = start if points else tokens.number(f"a time in {where}")
        entries.append((start, end, tokens.string(f"a label in {where}")))
    return Tier(name, points, entries)


def _chronological(tokens: _Tokens) -> list[Tier]:
    """All tiers first, then their labels in the order of time, each with the number of its tier."""
    tokens.string("the file's type")
    tokens.number("the start"), tokens.number("the end")
    tiers, ends = [], []
    for place in range(1, tokens.count("the number of tiers") + 1):
        points = _is_points(tokens.string(f"the class of tier {place}"), f"tier {place}")
        tiers.append(Tier(tokens.string(f"the name of tier {place}"), points, []))
        tokens.number(f"the start of tier {place}")
        ends.append(tokens.number(f"the end of tier {place}"))
    while not tokens.ended:
        number = tokens.count("the number of a tier")
        if not 1 <= number <= len(tiers):
            raise Damaged(f"a label belongs to tier {number}, but there are {len(tiers)}", tokens.place)
        tier = tiers[number - 1]
        start = tokens.number("a time")
        end = start if tier.points else tokens.number("a time")
        tier.entries.append((start, end, tokens.string("a label")))
    for place, (tier, end) in enumerate(zip(tiers, ends, strict=True), 1):  # no number says how many labels there are
        last = max((entry[1] for entry in tier.entries), default=end)
        if not tier.points and last < end - _ROUNDING:
            raise Damaged(f"tier {place} ends at {last:g} s of {end:g} s", len(tokens.text))
    return tiers


def _is_points(kind: str, where: str) -> bool:
    if kind not in ("IntervalTier", "TextTier"):
        raise Damaged(f"{where} is of class {kind!r}, neither IntervalTier nor TextTier")
    return kind == "TextTier"


class _Tokens:
    """The numbers, strings and flags of a text, one after the other."""

    def __init__(self, text: str, *, glued: bool) -> None:
        self.text, self._glued = text, glued
        self._tokens = self._found()
        self._next = next(self._tokens, None)

    @property
    def ended(self) -> bool:
        return self._next is None

    @property
    def place(self) -> int:
        return self._next.place if self._next else len(self.text)

    def string(self, what: str) -> str:
        return self._take("string", what).replace('""', '"')

    def flag(self, what: str) -> str:
        return self._take("flag", what)

    def number(self, what: str) -> float:
        place, written = self.place, self._take("number", what)
        parts = _NUMBER.match(written)
        if not parts or (parts[2] and not float(parts[2])):
            raise Damaged(f"{written!r} on line {self._line(place)} is not a number, where {what} is needed", place)
        return float(parts[1]) / float(parts[2] or 1) / (100 if parts[3] else 1)

    def count(self, what: str) -> int:
        place, value = self.place, self.number(what)
        if not (value >= 0 and value == int(value)):
            raise Damaged(f"{what} on line {self._line(place)} is {value:g}, not a whole number", place)
        return int(value)

    def _take(self, kind: str, what: str) -> str:
        found = self._next
        if found is None:
            raise Damaged(f"it ends on line {self._line(len(self.text))}, where {what} is needed", len(self.text))
        if found.kind != kind:
            line = self._line(found.place)
            raise Damaged(f"line {line} has the {found.kind} {found.value[:40]!r}, where {what} is needed", found.place)
        self._next = next(self._tokens, None)
        return found.value

    def _line(self, place: int) -> int:
        return self.text.count("\n", 0, place) + 1

    def _found(self) -> Iterator[_Token]:
        at = 0
        while at < len(self.text):
            glued = _GLUED.match(self.text, at) if self._glued else None
            if glued:
                at = glued.end()
                continue
            part = _PARTS.match(self.text, at)
            if part is None:
                raise Damaged(f"the quotation mark on line {self._line(at)} has no partner that ends a label", at)
            kind = str(part.lastgroup)
            if kind in ("string", "flag", "number"):
                yield _Token(kind, part[kind], at)
            at = part.end()


def binary_tiers(raw: bytes) -> list[Tier]:
    """The tiers of a binary TextGrid.

    Raises
    ------
    Damaged
        If the file holds another object, or ends too early.
    """
    reader = _Bytes(raw, len(_BINARY))
    kind = reader.ascii()
    if not re.fullmatch(r"TextGrid[ \d]*", kind):
        raise Damaged(f"it holds a {kind}, not a TextGrid: save the TextGrid alone")
    reader.numbers(">dd")
    if not reader.numbers(">b")[0]:
        return []
    tiers = []
    for place in range(1, reader.numbers(">i")[0] + 1):
        points, name = _is_points(reader.ascii(), f"tier {place}"), reader.text()
        reader.numbers(">dd")
        layout, copies = (">d", 2) if points else (">dd", 1)  # a point begins and ends at its time
        count = reader.numbers(">i")[0]
        tiers.append(Tier(name, points, [(*(reader.numbers(layout) * copies), reader.text()) for _ in range(count)]))
    return tiers


class _Bytes:
    def __init__(self, raw: bytes, at: int) -> None:
        self._raw, self._at = raw, at

    def _take(self, size: int) -> bytes:
        if size < 0 or self._at + size > len(self._raw):
            raise Damaged(f"it ends at byte {len(self._raw)}, in the middle of a value", len(self._raw))
        self._at += size
        return self._raw[self._at - size : self._at]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))

    def ascii(self) -> str:
        return self._take(self._take(1)[0]).decode("latin-1")

    def text(self) -> str:
        """A length and as many bytes; or −1, a length and as many units of UTF-16."""
        length = self.numbers(">H")[0]
        if length != 0xFFFF:
            return self._take(length).decode("latin-1")
        return self._take(2 * self.numbers(">H")[0]).decode("utf-16-be", errors="replace")
