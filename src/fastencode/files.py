"""Files on disk: found or named in an error, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastencode.errors import InputError

__all__ = ["check_file", "whole_file"]


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
