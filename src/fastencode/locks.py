"""Locks on what several processes may want to write: held by one of them, given back whatever ends it.

A lock is a file's ``flock``, which the kernel gives back when its process ends, however it ends. Only "would block" means that
another process holds it. Some file systems have no ``flock`` (Lustre without ``-o flock``, some of the network): there a lock is
a file that says who holds it, made by a hard link, because a link is made by one process only and holds its text from the first
moment. It stays behind when its process is killed. The rule for such a stale file: a process of this computer that has ended is
found out and its file removed; of a process of another computer nothing is known, so the message says which file to delete.

All computers that share a folder must mount it in the same way: ``flock`` and lock files do not see each other.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import secrets
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from fastencode.errors import InputError
from fastencode.files import is_running, writing

__all__ = ["InUseError", "Lock"]

_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN}
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
_GONE = {errno.ENOENT, errno.ESTALE}  # the file or its folder was removed meanwhile, by the process that held the lock
_TRIES = 100
_PAUSE = 0.1  # s between two looks at a lock that is waited for
_SCHEDULERS = {"SLURM_JOB_ID": "SLURM", "PBS_JOBID": "PBS", "LSB_JOBID": "LSF", "JOB_ID": "Grid Engine"}
_removing = threading.Lock()


class InUseError(InputError):
    """Another process holds the lock; the message says which one, as far as it is known."""


class Lock:
    """A lock, held from here to :meth:`release` or to the end of a ``with`` block.

    Parameters
    ----------
    path : Path
        A file of the lock's own, which comes and goes with it. Its folder is made.
    what : str
        What is locked, for messages.
    patience : float
        Seconds to wait for another process.

    Raises
    ------
    InUseError
        If another process still holds it by then.
    InputError
        If the file cannot be made, or its file system refuses locks for a reason of its own.
    """

    def __init__(self, path: Path, what: str, *, patience: float = 0) -> None:
        self._path, self._what = path, what
        self._opened: int | None = None
        end = time.monotonic() + patience
        while True:
            try:
                with writing(path):
                    self._text = self._take()
                return
            except InUseError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_PAUSE)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        with suppress(OSError):
            if self._opened is not None:
                self._path.unlink()  # first: who opens the file from now on makes a new one
            elif self._beside.read_text(encoding="utf-8") == self._text:
                self._beside.unlink()
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    @property
    def _beside(self) -> Path:
        """The lock file of a file system without ``flock``."""
        return self._path.with_name(f"{self._path.name}.held")

    def _take(self) -> str:
        for _ in range(_TRIES):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                opened = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(opened).st_ino == os.stat(self._path).st_ino:  # not a file that its holder has just removed
                    text = _myself()
                    os.ftruncate(opened, 0)
                    os.pwrite(opened, text.encode(), 0)
                    self._opened = opened
                    return text
            except OSError as error:
                if error.errno in _BUSY:
                    raise self._in_use(self._path) from None
                if error.errno in _NO_FLOCK:
                    with suppress(OSError):
                        self._path.unlink()  # it means nothing here
                    return self._take_file()
                if error.errno not in _GONE:
                    raise InputError(f"{self._path} cannot be locked ({error.strerror}): choose another folder") from error
            finally:
                if self._opened is None:
                    os.close(opened)
        raise self._in_use(self._path)

    def _take_file(self) -> str:
        """The lock file, made whole in one step: by linking it from a file of this process's own."""
        held, text = self._beside, _myself()
        own = held.with_name(f"{held.name}.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            own.write_text(text, encoding="utf-8")
            for _ in range(_TRIES):
                try:
                    os.link(own, held)
                    return text
                except FileExistsError:
                    if own.stat().st_nlink == 2:  # made, but the answer of a file server was lost and it was asked again
                        return text
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    with suppress(FileExistsError), held.open("x", encoding="utf-8") as file:
                        file.write(text)
                        return text
                if not _removed(held):
                    raise self._in_use(held)
        finally:
            own.unlink(missing_ok=True)
        raise self._in_use(held)

    def _in_use(self, path: Path) -> InUseError:
        holder = _read(path)
        who = "another process"
        if holder:
            job = f", job {holder['job']}" if holder["job"] else ""
            who = f"process {holder['pid']} on {holder['host']}{job}, since {holder['since']}"
        stale = f"; if that process has ended, delete {path}" if path == self._beside else ""
        return InUseError(f"{self._what} is being written by {who}: wait for it, or choose another folder{stale}")


def _myself() -> str:
    """Who holds a lock, as JSON: enough to find out later whether it still runs."""
    job = next((f"{os.environ[name]} ({scheduler})" for name, scheduler in _SCHEDULERS.items() if name in os.environ), "")
    since = datetime.now(UTC).isoformat(timespec="seconds")
    who = {"host": platform.node(), "space": _space(), "pid": os.getpid(), "started": _started(os.getpid())}
    return json.dumps({**who, "job": job, "since": since, "token": secrets.token_hex(8)})


def _space() -> str:
    """In which numbering process numbers count: containers on one computer have their own."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(process: int) -> str:
    """When a process began, in the system's own units: its number may belong to another one by now. Empty where unknown."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ""


def _read(path: Path) -> dict[str, Any]:
    """Who holds a lock; empty where nothing is known, as in the moment before it is written down."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"host", "space", "pid", "started", "job", "since"} <= found.keys():
            return found
    return {}


def _is_stale(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this computer that has ended."""
    if not holder or (holder["host"], holder["space"]) != (platform.node(), _space()):
        return False
    return not is_running(holder["pid"]) or holder["started"] != _started(holder["pid"])


def _removed(held: Path) -> bool:
    """Remove a lock file whose process has ended; whether there is now none, as far as is known.

    Only processes of that computer do, one at a time: else two could find the same file stale, and the slower one remove the new
    file of the faster.
    """
    if not _is_stale(_read(held)):
        return not held.exists()
    mutex = Path(tempfile.gettempdir()) / f"fastencode-{os.getuid()}.lock"
    with _removing, mutex.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        if _is_stale(_read(held)):
            held.unlink(missing_ok=True)
    return True
