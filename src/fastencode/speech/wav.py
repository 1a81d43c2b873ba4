"""WAV files whose headers do not say, or misstate, where their sound ends.

A writer that streams into a pipe cannot go back to its header: it leaves a mark in place of the number of bytes (0, sox's
0x7ffff000, ffmpeg's 0xffffffff, 0x7fffffff, 0x80000000, or one of these less the header's own length). Then the sound is all that
follows. RF64 files stand for 0xffffffff in the header and give the number in their chunk ``ds64``. Chunks of odd length are
followed by one byte that does not count; some writers leave it out.

EBU Tech 3306 for RF64; for the rest "Multimedia Programming Interface and Data Specifications 1.0" (1991).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Layout", "wav_layout", "with_known_size"]

_PLAIN = {1, 3, 0xFFFE}  # integers, floats, and either of them in an extensible format
_UNKNOWN_64 = 1 << 62
_MARKS = ((0x7FFF_0000, 0x8000_0100), (0xFFFF_0000, 0xFFFF_FFFF))  # sizes that are marks, also less a header's length
_NAME = frozenset(range(0x20, 0x7F))  # bytes that names of chunks consist of


class Layout(NamedTuple):
    """Where the parts of a WAV file are, in bytes."""

    format: bytes
    """What the chunk ``fmt`` holds."""
    start: int
    """Where the sound begins."""
    promised: int | None
    """How long the header says the sound is; None if it leaves that out."""
    there: int
    """How long it is: what is promised, or all that follows."""
    beyond: int
    """Bytes that follow the sound and belong to no chunk."""
    padded: bool
    """Whether chunks of odd length are followed by a byte that does not count, as they must be."""

    @property
    def block(self) -> int:
        """Bytes of one sample of all channels."""
        return struct.unpack_from("<H", self.format, 12)[0] or 1

    @property
    def bytes_per_second(self) -> int:
        """By the format: of what is not compressed from rate and block, which writers get right more often."""
        kind, _, rate, per_second = struct.unpack_from("<HHII", self.format)
        return (rate * self.block if kind in _PLAIN or not per_second else per_second) or 1


def wav_layout(path: Path) -> Layout | None:
    """Where the parts of a RIFF or RF64 WAV file are; None for any other file, and where there is no sound or no format."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
            return None
        end = os.fstat(file.fileno()).st_size
        return _found(file, end, padded=True) or _found(file, end, padded=False)


def _found(file: BinaryIO, end: int, *, padded: bool) -> Layout | None:
    at, layout, long_size = 12, b"", None
    while at + 8 <= end:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        if not _NAME.issuperset(name):
            return None
        if name == b"data":
            return (
                None if len(layout) < 16 else _sound(file, end, at + 8, size if long_size is None else long_size, layout, padded)
            )
        if name == b"fmt ":
            layout = file.read(min(size, 1024))
        if name == b"ds64":
            long_size = struct.unpack_from("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        at += 8 + size + (size % 2 if padded else 0)
    return None


def _sound(file: BinaryIO, end: int, start: int, size: int, layout: bytes, padded: bool) -> Layout:
    after = start + size + (size % 2 if padded else 0)
    beyond = end - after if after < end and not _are_chunks(file, after, end) else 0
    mark = any(low <= size <= high for low, high in _MARKS) or size >= _UNKNOWN_64
    if (size == 0 and beyond) or (mark and start + size > end):
        return Layout(layout, start, None, end - start, 0, padded)
    return Layout(layout, start, size, min(size, end - start), beyond, padded)


def _are_chunks(file: BinaryIO, at: int, end: int) -> bool:
    """Whether what follows the sound is a row of chunks, the last of which may be cut off; or zeros, which fill up sectors."""
    while at + 8 <= end:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        if not _NAME.issuperset(name):
            return name == b"\0\0\0\0" and size == 0
        at += 8 + size + size % 2
    return True


def with_known_size(path: Path, layout: Layout) -> bytes | None:
    """The file with a header that decoders understand; None where it has one already."""
    if layout.promised is not None and layout.padded:
        return None
    with path.open("rb") as file:
        file.seek(layout.start)
        sound = file.read(layout.there // layout.block * layout.block)
    sizes = (len(layout.format), len(sound))
    form = struct.pack(f"<4sI{sizes[0]}s", b"fmt ", sizes[0], layout.format) + bytes(sizes[0] % 2)
    whole = 4 + len(form) + 8 + sizes[1] + sizes[1] % 2
    if whole < 1 << 32:
        return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", sizes[1]) + sound
    long = struct.pack("<4sIQQQI", b"ds64", 28, whole + 36, sizes[1], sizes[1] // layout.block, 0)
    mark = 0xFFFF_FFFF
    return struct.pack("<4sI4s", b"RF64", mark, b"WAVE") + long + form + struct.pack("<4sI", b"data", mark) + sound
