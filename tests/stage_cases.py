"""Stages for the tests of the engine: functions of a module, so that other processes can run them."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from fastencode.runs.engine import Stages


def write(folder: Path, text: str = "whole") -> None:
    (folder / "result.txt").write_text(text)


def read(folder: Path, other: Path) -> None:
    (folder / "result.txt").write_text((other / "result.txt").read_text() + ", read")


def keep(folder: Path, file: Path) -> None:
    shutil.copy(file, folder / "kept")


def fail(folder: Path, what: str) -> None:
    write(folder, "half")
    raise ZeroDivisionError(what)


def killed(folder: Path) -> None:
    """As the kernel does to a process that takes more memory than there is."""
    write(folder, "half")
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_memory(folder: Path) -> None:
    """Asks for a gigabyte more than its process may have."""
    write(folder, "half")
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, before[1]))
    try:
        np.ones(2**27)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def wait_for(folder: Path, sign: Path) -> None:
    write(folder)
    while not sign.exists():
        time.sleep(0.01)


def in_steps(folder: Path, last: Path) -> None:
    """Ten steps, each a file; killed after the fifth unless the file ``last`` is there."""
    for step in range(10):
        path = folder / f"step-{step}"
        if not path.exists():
            path.write_text(f"process {os.getpid()}")
        if step == 4 and not last.exists():
            os.kill(os.getpid(), signal.SIGKILL)


def use_plan(folder: Path, plan: list[int], text: str) -> None:
    plan.append(0)
    (folder / "result.txt").write_text(f"{text}: use {len(plan) - 1} of the plan of {plan[0]}")
    if text == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


def give_sign(folder: Path, sign: Path) -> None:
    write(folder)
    sign.touch()


def full_disk(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def can_not(folder: Path, function: object) -> None:
    """Its argument cannot be pickled."""


if __name__ == "__main__":  # one stage in a process of its own, which waits in it for a sign: folder, sign
    import stage_cases  # by its name, not as __main__
    from fastencode.runs.engine import Stage

    Stages(Path(sys.argv[1])).run(Stage("slow/one", {"a": 1}, (), stage_cases.wait_for, (Path(sys.argv[2]),)))
