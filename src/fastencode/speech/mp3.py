"""MP3 files that do not say how long they are.

An MP3 file is a row of frames, each with its own bit rate; only a first frame of another kind (Xing's, as LAME writes it) says
how many there are. Where it is missing, as in streams and in what was cut out of a file, where it leaves the number out, or is of
a kind that libsndfile does not know (Fraunhofer's), decoders guess the length from the first frame, and stop there. So frames are
counted here, and a frame that says how many is put in front.

ISO/IEC 11172-3 and 13818-3 for frames; Xing's header as every decoder reads it.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["with_length"]

_KBPS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the version's two bits
_XING, _INFO, _FRAUNHOFER = b"Xing", b"Info", b"VBRI"
_HAS_FRAMES = (1).to_bytes(4, "big")  # the one field that our header has


class _Frame(NamedTuple):
    """A frame of layer III, by its first four bytes."""

    length: int
    """Bytes."""
    side: int
    """Bytes between the header and the sound."""
    kind: tuple[int, int]
    """Version and rate: what all frames of a file have in common."""


def with_length(raw: bytes) -> bytes | None:
    """The file with a frame in front that says its length; None where it says so already, or is no MP3 of layer III."""
    start = 10 + _unpacked(raw[6:10]) if raw.startswith(b"ID3") and len(raw) > 10 else 0
    place = _next(raw, start, None)
    if place is None:
        return None
    first = _frame(raw, place)
    assert first is not None
    told, at, count = _told(raw[place : place + first.length], first), place, 0
    if told:
        return None
    if told is not None:
        at += first.length
    sound = at
    while (frame := _frame(raw, at)) is None or at + frame.length <= len(raw):
        if frame and frame.kind == first.kind:
            count += 1
            at += frame.length
        else:  # what does not belong here, be it a frame: others may follow
            after = _next(raw, at + 1, first.kind)
            if after is None:
                break
            at = after
    return _header(raw[place : place + 4], count) + raw[sound:] if count else None


def _told(head: bytes, frame: _Frame) -> int | None:
    """How many frames there are by the first, 0 if that is left out or unheard; None if it is sound."""
    for tag in (_XING, _INFO):
        at = head.find(tag, 0, frame.side + 12)
        if at >= 0:
            return int.from_bytes(head[at + 8 : at + 12], "big") if head[at + 7 : at + 8] and head[at + 7] & 1 else 0
    return 0 if head[36:40] == _FRAUNHOFER else None


def _frame(raw: bytes, at: int) -> _Frame | None:
    if len(raw) < at + 4 or raw[at] != 0xFF or raw[at + 1] & 0xE6 != 0xE2:  # eleven bits of one, layer III
        return None
    version, kbps, rate, padding = raw[at + 1] >> 3 & 3, raw[at + 2] >> 4, raw[at + 2] >> 2 & 3, raw[at + 2] >> 1 & 1
    if version == 1 or kbps in (0, 15) or rate == 3:
        return None
    mpeg1, mono, checked = version == 3, raw[at + 3] >> 6 == 3, not raw[at + 1] & 1
    length = (144_000 if mpeg1 else 72_000) * _KBPS[1 if mpeg1 else 2][kbps - 1] // _RATES[version][rate] + padding
    return _Frame(length, {(1, 1): 17, (1, 0): 32, (0, 1): 9, (0, 0): 17}[mpeg1, mono] + 2 * checked, (version, rate))


def _next(raw: bytes, start: int, kind: tuple[int, int] | None) -> int | None:
    """Where the next frame begins that another follows, or that ends the file."""
    at = raw.find(b"\xff", start)
    while at >= 0:
        frame = _frame(raw, at)
        if frame and kind in (None, frame.kind):
            after = _frame(raw, at + frame.length)
            if at + frame.length == len(raw) or (after and after.kind == frame.kind):
                return at
        at = raw.find(b"\xff", at + 1)
    return None


def _header(like: bytes, count: int) -> bytes:
    """A silent frame of the same version, rate and channels that holds the number of frames."""
    for kbps in range(1, 15):
        head = bytes([like[0], like[1] | 1, kbps << 4 | like[2] & 0x0C, like[3]])
        frame = _frame(head, 0)
        assert frame is not None
        tag = _INFO + _HAS_FRAMES + count.to_bytes(4, "big")
        if frame.length >= 4 + frame.side + len(tag):
            return (head + bytes(frame.side) + tag).ljust(frame.length, b"\0")
    raise AssertionError("the largest frames hold a header")


def _unpacked(size: bytes) -> int:
    """ID3's sizes: seven bits to the byte."""
    return sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
