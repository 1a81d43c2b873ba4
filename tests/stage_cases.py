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
from fastencode.threads import available_threads


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


def killed_once(folder: Path, sign: Path) -> None:
    """As a worker that its cluster takes back; the second attempt is left alone."""
    write(folder, "half")
    if not sign.exists():
        sign.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder)


def scores(folder: Path, seed: int) -> None:
    """A table of ridge scores, and weights."""
    from fastencode.solve.ridge import ridge_cv  # not wanted by most processes that import this file

    rng = np.random.default_rng(seed)
    X = rng.standard_normal((80, 6))
    fit = ridge_cv(X, X @ rng.standard_normal((6, 4)) + rng.standard_normal((80, 4)), alphas=[1e-3, 1.0, 1e3])
    np.save(folder / "weights.npy", fit.coef)
    (folder / "scores.csv").write_text("r\n" + "".join(f"{value!r}\n" for value in fit.cv_scores.ravel().tolist()))


def scores_of_plan(folder: Path, plan: list[int], seed: int) -> None:
    scores(folder, seed)


def pid(folder: Path) -> None:
    write(folder, str(os.getpid()))


def warned_of_the_end(folder: Path) -> None:
    """As SLURM warns a job whose time is nearly over."""
    write(folder, "half")
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(20)


def table(folder: Path, others: list[Path]) -> None:
    """All tables of others in one."""
    (folder / "all.csv").write_text("".join((other / "scores.csv").read_text() for other in others))


def who(folder: Path, sign: Path) -> None:
    """Says its process and the threads it may use, when two of them are there."""
    write(folder, f"{os.getpid()} {available_threads()}")
    (sign / folder.name).touch()
    end = time.monotonic() + 20
    while len(list(sign.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)


def wait_for(folder: Path, sign: Path) -> None:
    write(folder)
    while not sign.exists():
        time.sleep(0.01)


def wait_for_plan(folder: Path, plan: list[int], sign: Path) -> None:
    wait_for(folder, sign)


def write_plan(folder: Path, plan: list[int]) -> None:
    write(folder)


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
        time.sleep(0.2)  # what was made before is heard of on a cluster too
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
