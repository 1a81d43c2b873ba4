"""Files on disk: found or named in an error, read as text, told apart by a digest, written whole or not at all."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastencode.errors import InputError

__all__ = ["check_file", "read_text", "sha256", "text_encoding", "whole_file"]


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that is there.

    Raises
    ------
    InputError
        If it is missing, a link whose target is not here (git-annex, DataLad), or a folder.
    """
    path = Path(path)
    if not path.exists():
        if path.is_symlink():
            raise InputError(f"{path} is a link to a file that is not here: in a DataLad data set, run `datalad get {path}`")
        raise InputError(f"{path} does not exist: check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one file")
    return path


def sha256(path: str | os.PathLike[str]) -> str:
    """Digest of a file's bytes; an :class:`InputError` if it is missing."""
    with check_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_encoding(raw: bytes) -> str:
    """What bytes are text in: UTF-16 if they begin with its byte-order mark or hold a zero among the first four, else UTF-8."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in raw[:4]:
        return "utf-16-be" if raw[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without byte-order mark; line ends stay as they are.

    Raises
    ------
    InputError
        If the file is missing, empty, or in another encoding: the message names the line of the first wrong byte.
    """
    path = check_file(path)
    raw = path.read_bytes()
    if not raw.strip():
        raise InputError(f"{path} is empty: fetch or export it again")
    encoding = text_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        shown = encoding.removesuffix("-sig").upper()
        raise InputError(f"{path} is not {shown}: see line {line}, byte {error.start} of the file; save it as UTF-8") from error


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Where to write a file that appears whole or not at all: ``with whole_file(path) as partial: partial.write_bytes(...)``.

    The partial file lies beside ``path`` and takes its place, or that of an earlier file, when the block ends without an error.

    Raises
    ------
    InputError
        If the folder of ``path`` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: {path.parent} is not a folder; make it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
