"""Locks: one holder at a time, given back after a kill, with flock and, where a file system has none, with lock files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastencode import locks
from fastencode.errors import InputError
from fastencode.locks import InUseError, Lock

# Holds the lock named, says so, and waits; with a number, flock is not there and fails with it.
HOLD = """
import fcntl, sys, time
from pathlib import Path
def refuse(*_): raise OSError(int(sys.argv[2]), "refused")
if int(sys.argv[2]): fcntl.flock = refuse
from fastencode.locks import Lock
lock = Lock(Path(sys.argv[1]), "x")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=[0, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK], ids=["flock", "ENOSYS", "ENOTSUP", "ENOLCK"])
def refusal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Error of flock on this file system, and 0 where it works."""
    number: int = request.param

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr(fcntl, "flock", refuse)
    return number


def test_one_holder_at_a_time_and_nothing_is_left(tmp_path: Path, refusal: int) -> None:
    path = tmp_path / "new" / "folders" / ".x.lock"
    with Lock(path, "stage x"):
        there = [found.name for found in path.parent.iterdir()]
        assert there == ([".x.lock.held"] if refusal else [".x.lock"])
        with pytest.raises(InUseError, match=f"^stage x is being written by process {os.getpid()} on .*: wait for it") as told:
            Lock(path, "stage x")
        assert ("if that process has ended, delete" in str(told.value)) == bool(refusal)
        Lock(path.with_name(".y.lock"), "stage y").release()
    assert list(path.parent.iterdir()) == []
    Lock(path, "stage x").release()


def test_a_killed_holder_gives_its_lock_back(tmp_path: Path, refusal: int) -> None:
    path = tmp_path / ".x.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(refusal)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match=f"process {process.pid} on {re.escape(platform.node())}"):
            Lock(path, "x")
        process.send_signal(signal.SIGKILL)
    with Lock(path, "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_has_the_lock(tmp_path: Path, refusal: int) -> None:
    """Threads, with a stale lock file in their way at first; flock and links tell them apart as they tell processes."""
    path, inside, most = tmp_path / ".x.lock", 0, 0
    if refusal:
        held = json.loads(locks._myself())
        Path(f"{path}.held").write_text(json.dumps(held | {"pid": 2**22 + 1}))
    counting = threading.Lock()

    def enter(_: int) -> None:
        nonlocal inside, most
        with Lock(path, "x", patience=60):
            with counting:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(24)))
    assert most == 1 and list(tmp_path.iterdir()) == []


def test_lock_files_of_other_computers_are_left_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether their process runs cannot be known here. Nor that of another container, whose numbers are its own."""
    monkeypatch.setattr(fcntl, "flock", _enosys)
    monkeypatch.setenv("SLURM_JOB_ID", "345")
    path = tmp_path / ".x.lock"
    held = Path(f"{path}.held")
    ours = json.loads(locks._myself())
    assert ours["job"] == "345 (SLURM)"
    for theirs in ({"host": "node7"}, {"space": "pid:[1]"}):
        held.write_text(json.dumps(ours | {"pid": 2**22 + 1} | theirs))
        with pytest.raises(InUseError, match=rf"job 345 \(SLURM\), since .*; if that process has ended, delete {held}$"):
            Lock(path, "x")
    held.write_text(json.dumps(ours | {"started": "1"}))  # this process's number belonged to another one before
    Lock(path, "x").release()
    held.write_text("")  # of a process killed before it could write, where there are no links
    with pytest.raises(InUseError, match="by another process: .*delete"):
        Lock(path, "x")


def test_a_stale_file_is_not_removed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two find the same file stale. The slower one, whose turn comes when the faster has a file of its own there, leaves it."""
    monkeypatch.setattr(fcntl, "flock", _enosys)
    path = tmp_path / ".x.lock"
    held = Path(f"{path}.held")
    held.write_text(json.dumps(json.loads(locks._myself()) | {"pid": 2**22 + 1}))
    faster: list[Lock] = []
    lockf = fcntl.lockf

    def meanwhile(file: object, operation: int) -> None:
        monkeypatch.setattr(fcntl, "lockf", lockf)
        locks._removing.release()
        faster.append(Lock(path, "x"))
        locks._removing.acquire()

    monkeypatch.setattr(fcntl, "lockf", meanwhile)
    with pytest.raises(InUseError):
        Lock(path, "x")
    faster[0].release()
    assert list(tmp_path.iterdir()) == []


def test_without_links_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(fcntl, "flock", _enosys)
    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / ".x.lock"
    with Lock(path, "x"), pytest.raises(InUseError):
        Lock(path, "x")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_do_not_mean_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(InputError, match=r"cannot be locked \(Input/output error\)") as told:
        Lock(tmp_path / ".x.lock", "x")
    assert not isinstance(told.value, InUseError)


def _enosys(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
