"""Files on disk: checked before reading, read as text, identified by a digest, written whole or not at all."""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import json
import os
import platform
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastencode.errors import DiskError, InputError

__all__ = [
    "check_file",
    "folder_name",
    "fresh_folder",
    "how_to_fetch",
    "is_running",
    "is_unfetched",
    "make_folder",
    "put_in_place",
    "read_json",
    "read_text",
    "sha256",
    "sync",
    "text_encoding",
    "unfetched",
    "whole_file",
    "writing",
]

# The small files that stand for content which git-annex or Git LFS has not fetched. Where links are not possible (exFAT, Windows,
# ZIP), what a link of git-annex leads to is the text of a file: ../../.git/annex/objects/…, with either slash.
_ANNEX = re.compile(
    rb"(?:[/\\]annex[/\\]objects[/\\]|(?:[^\n\0]{0,900}[/\\])?\.git[/\\](?:[^\n\0]{0,900}[/\\])?annex[/\\]objects[/\\])[^\n\0]+\r?\n?\Z"
)
_LFS = re.compile(rb"version https://git-lfs")
_POINTER_BYTES = 1024
# Errors of a full or read-only disk, and of a folder or file that may not be written: the program is not at fault then.
_UNWRITABLE = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS}
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP}  # errors of file systems that have no fsync
# Partial files are called ".<name>.<computer>.<process>.partial". The computer's name is cut after this many letters.
_COMPUTER_LETTERS, _AFTER = 32, ".partial"


def check_file(path: str | os.PathLike[str], what: str = "") -> Path:
    """The path of a file that exists and may be read.

    Parameters
    ----------
    path : path
    what : str
        A description of the file for messages: ``"sound of 'life'"``.

    Raises
    ------
    InputError
        If the file is missing, a folder or not readable; if it is a link without a target or one that leads back to itself; or
        if it is the pointer that git-annex (DataLad) or Git LFS leaves in place of content it has not fetched.
    """
    path = Path(path)
    named = f"{path} ({what})" if what else f"{path}"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{named} is a link that leads back to itself: delete it and fetch the file again") from error
        if path.is_symlink():
            raise InputError(f"{named} {unfetched(path)}") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"{named} does not exist: check the path") from error
        raise InputError(f"{named} cannot be reached ({error.strerror}): check the path and its permissions") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{named} is a folder: give one file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{named} may not be read: change its permissions")
    if reason := unfetched(path):
        raise InputError(f"{named} {reason}")
    return path


def is_unfetched(path: str | os.PathLike[str]) -> bool:
    """Whether a file of a data set was not fetched: its path is a link without a target, or a pointer of git-annex or Git LFS."""
    return bool(unfetched(path))


def unfetched(path: str | os.PathLike[str]) -> str:
    """What keeps a file of a data set from being read, and the command that fetches it; "" of a file that is here, or nowhere.

    Parameters
    ----------
    path : path

    Returns
    -------
    str
        The end of a sentence that begins with the path: that it is a link without a target, a link of git-annex that was written
        as text, or the pointer of git-annex or of Git LFS.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP or not path.is_symlink():
            return ""
        return f"is a link to a file that is not here: {_fetch(path, 'in a DataLad data set, run')}"
    if not stat.S_ISREG(status.st_mode) or status.st_size > _POINTER_BYTES or not os.access(path, os.R_OK):
        return ""
    held = path.read_bytes()
    if _LFS.match(held):
        return f"holds no content but a pointer of Git LFS to it: run `git lfs pull --include {path}`"
    if not _ANNEX.match(held):
        return ""
    if held.startswith((b"/annex", b"\\annex")):
        return f"holds no content but a pointer to it: {_fetch(path, 'run')}"
    return (
        "holds no content but a link of git-annex, written as text (as on Windows, on exFAT and in a ZIP):"
        f" {_fetch(path, 'in a clone of the data set, run')}"
    )


def how_to_fetch(path: str | os.PathLike[str], what: str | os.PathLike[str] | None = None) -> str:
    """The command that fetches a file that :func:`unfetched` names, or what it lies in: Git LFS's, or DataLad's."""
    path = Path(path)
    lfs = path.is_file() and _LFS.match(path.read_bytes()[:_POINTER_BYTES]) is not None
    return f"{'git lfs pull --include' if lfs else 'datalad get'} {path if what is None else what}"


def _fetch(path: Path, place: str) -> str:
    return f"{place} `datalad get {path}` (or `git annex get {path}`)"


def make_folder(path: str | os.PathLike[str]) -> Path:
    """A folder to write into. It is made, with the folders above it, unless it exists.

    Raises
    ------
    InputError
        If the path is a file, or the folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        what = "a link to nothing" if path.is_symlink() and not path.exists() else "a file"
        raise InputError(f"{path} is {what}: choose another folder") from error
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}): choose another folder") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path} may not be written to: change its permissions, or choose another folder")
    return path


def folder_name(name: str) -> str:
    """A name as one folder: ``/ \\ : * ? " < > |`` and spaces become "-", so "label:class@words" is "label-class@words"."""
    return "".join("-" if letter in '/\\: *?"<>|' else letter for letter in name)


@contextmanager
def fresh_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder as :func:`make_folder` makes it. If the block ends with an error, those that it made go again, if empty."""
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield make_folder(path)
    except BaseException:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 digest of a file's bytes, in hexadecimal. Raises :class:`InputError` as :func:`check_file` does."""
    with check_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_encoding(raw: bytes) -> str:
    """The encoding of text: UTF-16 if it begins with its byte-order mark or has a zero among its first four bytes, else UTF-8."""
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


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file, in UTF-8 or UTF-16.

    Raises
    ------
    InputError
        If the file is missing, empty, in another encoding or not JSON, or names something twice in one object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path} names {twice!r} twice: keep one")
        return found

    try:
        return json.loads(read_text(path), object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): correct it or fetch it again") from error


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """A context for code that writes ``path``: a :class:`DiskError` if the disk is full, or may not be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise DiskError(f"{path} cannot be written ({error.strerror}): make room, or choose another place") from error


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file that appears whole or not at all: ``with whole_file(path) as partial: partial.write_bytes(...)``.

    The partial file takes the place of ``path``, or of an earlier file there, when the block ends without an error. By then its
    bytes are on the disk, so that a loss of power leaves the earlier file or the new one.

    - Where ``path`` is a symbolic link, the file that it leads to is written and the link stays.
    - An earlier file's permissions are kept, and its partial file is open to nobody but its owner. A new file's follow the umask.
    - Partial files of the same path that processes of this computer left when they were killed are removed.

    Raises
    ------
    InputError
        If the folder of the file does not exist; if ``path`` is a folder, a device, or a link that leads back to itself; or if
        the disk is full or may not be written to.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InputError(f"{path} cannot be written: it is a link that leads back to itself; delete it")
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: {target.parent} is not a folder; make it first")
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "no ordinary file"
        raise InputError(f"{path} cannot be written: it is {what}; choose another name")
    _remove_abandoned(target)
    partial = _partial(target, os.getpid())
    try:
        with writing(path):
            permissions = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
            if permissions is not None:
                partial.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
            yield partial
            if permissions is not None:
                partial.chmod(permissions)
            put_in_place(partial, target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def put_in_place(partial: Path, target: Path) -> None:
    """Rename a finished file so that a loss of power leaves the earlier file or all of the new one."""
    sync(partial)
    os.replace(partial, target)
    with suppress(PermissionError):  # a folder whose names may not be read
        sync(target.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's names."""
    if os.name != "posix":  # other systems cannot sync a folder, or a file opened for reading
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(opened)


def _partial(target: Path, process: int) -> Path:
    """The partial file of a process."""
    return target.with_name(f"{_before(target)}{process}{_AFTER}")


def _before(target: Path) -> str:
    """First letters of the names of partial files. They hold the computer's name: others may write to the same folder."""
    return f".{target.name}.{platform.node().partition('.')[0][:_COMPUTER_LETTERS]}."


def _remove_abandoned(target: Path) -> None:
    """Remove the partial files of a target whose processes have ended."""
    before = _before(target)
    for path in target.parent.glob(f"{glob.escape(before)}*{_AFTER}"):
        process = path.name.removeprefix(before).removesuffix(_AFTER)
        if process.isdecimal() and not is_running(int(process)):
            with suppress(OSError):
                path.unlink()


def is_running(process: int) -> bool:
    """Whether a process of this computer, or of this container, has not ended."""
    if os.name != "posix":  # on other systems os.kill(process, 0) ends the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
