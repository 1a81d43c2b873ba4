"""Stages on a Dask cluster of two worker processes: as made here; what a dead worker, a failure and Ctrl-C take with them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stage_cases as cases
from fastencode.errors import InputError
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import dask
from fastencode.runs.executors.where import Where, check_where

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'fastencode-neuro[dask]'")
config = pytest.importorskip("dask.config")
QUIET = {"dashboard_address": ":0", "host": "127.0.0.1", "silence_logs": 60}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, each a process with one thread. A stage is given up after two dead workers, so that tests do not last."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **QUIET) as cluster:
        cluster.scheduler.allowed_failures = 1
        yield cluster


def stage(name: str, make: Callable[..., None] = cases.write, *arguments: Any, **more: Any) -> Stage:
    return Stage(name, {"a": 1}, more.pop("reads", ()), make, arguments, **more)


def contents(root: Path) -> dict[str, bytes]:
    """Every file; of a signature all but the seconds that it took."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and path.name != ".hashes.json":
            found[path.relative_to(root).as_posix()] = path.read_bytes()
            if path.name == "stage.json":
                found[path.relative_to(root).as_posix()] = json.dumps({**json.loads(path.read_text()), "seconds": 0}).encode()
    return found


def test_files_are_those_made_here_byte_for_byte(cluster: Any, tmp_path: Path) -> None:
    for name, where in (("local", Where()), ("dask", Where(scheduler=cluster.scheduler_address))):
        root = tmp_path / name / "out"
        fits = [stage(f"fits/{seed}", cases.scores, seed) for seed in range(4)]
        reads = tuple(fit.name for fit in fits)
        stages = Stages(root, where=where)
        stages.run_all([stage("table", cases.table, [root / read for read in reads], reads=reads), *fits])
        stages.check()
    local, made = contents(tmp_path / "local" / "out"), contents(tmp_path / "dask" / "out")
    assert made == local and len(made) == 1 + 2 + 4 * 3, sorted(made)
    assert len(made["table/all.csv"].splitlines()) == 4 * len(made["fits/0/scores.csv"].splitlines()) > 4


def test_both_workers_work_each_with_its_share_of_threads(cluster: Any, tmp_path: Path) -> None:
    met = tmp_path / "met"
    met.mkdir()
    stages = Stages(tmp_path / "out", where=Where(scheduler=cluster.scheduler_address))
    made = stages.run_all([stage(name, cases.who, met) for name in "ab"])
    said = [tuple(map(int, (made[name] / "result.txt").read_text().split())) for name in "ab"]
    pids, threads = {pid for pid, _ in said}, {count for _, count in said}
    assert len(pids) == 2 and os.getpid() not in pids
    assert threads == {max(1, dask.available_processors() // 2)}


def test_dead_workers_and_failures_take_only_what_reads_them(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One stage kills its worker once, and is made by the other one; one kills every worker, in a batch that shares a plan."""
    root, where = tmp_path / "out", Where(scheduler=cluster.scheduler_address)
    once = [stage("once", cases.killed_once, tmp_path / "sign"), stage("read/once", cases.read, root / "once", reads=("once",))]
    stages = Stages(root, where=where)
    assert len(stages.run_all(once)) == 2 and not stages.failed and (tmp_path / "sign").exists()
    jobs = [stage(f"plan/{text}", cases.use_plan, text, share=plan_of) for text in ("a", "killed", "c")]
    jobs += [stage("fails", cases.fail, "by zero")]
    jobs += [stage(f"read/{n}", cases.read, root / n, reads=(n,)) for n in ("fails", "plan/killed", "plan/c")]
    made = stages.run_all([*once, *jobs])
    assert set(made) == {"once", "plan/a", "plan/c", "read/once", "read/plan/c"}
    assert stages.failed.pop("plan/killed").startswith("2 Dask workers died of it, the last one at tcp://127.0.0.1:")
    assert stages.failed == {
        "fails": "ZeroDivisionError: by zero",
        "read/fails": "not made, because fails failed",
        "read/plan/killed": "not made, because plan/killed failed",
    }
    assert (made["read/once"] / "result.txt").read_text() == "whole, read"
    assert not [path for path in root.rglob("*") if path.name.startswith(".fastencode-") or path.name.endswith(".partial")]
    said = capsys.readouterr()
    assert said.err.count("Traceback") == 1 and "ZeroDivisionError(what)" in said.err


def plan_of() -> list[int]:
    return [0]


def test_what_cannot_be_pickled_is_said(cluster: Any, tmp_path: Path) -> None:
    stages = Stages(tmp_path / "out", where=Where(scheduler=cluster.scheduler_address))
    assert list(stages.run_all([stage("p", cases.can_not, lambda: None), stage("fine")])) == ["fine"]
    assert "cannot be sent to another process" in stages.failed["p"]


def test_after_an_interrupt_nothing_that_waited_is_made(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the batch that runs, the stage at hand is finished, whole; its others and all other batches are not begun."""
    root, sign = tmp_path / "out", tmp_path / "sign"
    Stages(root).run(stage("before"))
    with subprocess.Popen([sys.executable, "-c", ""]) as killed:
        pass
    for name, pid in (("killed", killed.pid), ("runs", os.getpid())):
        (root / f".fastencode-{name}").write_text(json.dumps({"host": platform.node(), "pid": pid}))
    first = [stage("batch/0", cases.wait_for_plan, sign, share=plan_of), stage("batch/1", cases.write_plan, share=plan_of)]
    more = [stage(f"slow/{n}", cases.wait_for, sign) for n in range(3)] + [stage(f"more/{n}") for n in range(4)]
    real = dask.Dask.next

    def interrupted(executor: dask.Dask) -> Any:
        until(lambda: (root / "batch/0.partial/result.txt").exists())
        monkeypatch.setattr(dask.Dask, "next", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(dask.Dask, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Stages(root, where=Where(scheduler=cluster.scheduler_address)).run_all([*first, *more])
    sign.touch()
    until(lambda: (root / "batch/0/result.txt").exists())
    with distributed.Client(cluster, set_as_default=False) as client:
        until(lambda: not any(client.processing().values()))
    made = {path.parent.relative_to(root).as_posix() for path in root.rglob("stage.json")}
    assert [path.name for path in root.glob(".fastencode-*")] == [".fastencode-runs"]
    assert "batch/0" in made and "batch/1" not in made and not {f"more/{n}" for n in range(4)} & made


def test_where_no_scheduler_answers_it_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "_ANSWER", 0.5)
    where = Where(scheduler="tcp://127.0.0.1:9")
    for attempt in (lambda: check_where(where), lambda: Stages(tmp_path / "out", where=where).run_all([stage("a")])):
        with pytest.raises(
            InputError,
            match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9' within 0 s .*: check that it runs, and the address",
        ):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_workers_that_cannot_work_here_are_said_before_any_stage(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, root = Where(scheduler=cluster.scheduler_address), tmp_path / "out"
    check_where(where)
    with monkeypatch.context() as other:
        other.setattr(dask, "_code", lambda: "of an older version")
        with pytest.raises(InputError, match=r"worker tcp://.* cannot work here: its fastencode is not the one of this command"):
            Stages(root, where=where).run_all([stage("a")])
    with monkeypatch.context() as other:
        other.setattr(Path, "write_text", lambda *_, **__: 0)
        with pytest.raises(
            InputError, match=r"worker tcp://.* does not see the output folder .*/out: choose one on a file system"
        ):
            dask.Dask(cluster.scheduler_address, root)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(dask.os, "getcwd", lambda: "/nowhere")
    with pytest.raises(InputError, match="does not see /nowhere, where this command was started"):
        Stages(root, where=where).run_all([stage("a")])


def test_a_scheduler_that_ends_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = tmp_path / "sign"
    monkeypatch.setattr(dask, "_LOOK", 0.2)
    with (
        config.set({"distributed.comm.timeouts.connect": "1s"}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", **QUIET) as cluster,
    ):
        executor = dask.Dask(cluster.scheduler_address, tmp_path)
        executor.start("x", waits, sign)
        assert executor.next() == ("x", 1)
        cluster.sync(cluster.scheduler.close)
        with pytest.raises(
            InputError, match="no longer answers: start it again and repeat the command; finished stages are kept"
        ):
            executor.next()
        sign.touch()
        executor.close()


def waits(sign: Path) -> Iterator[int]:
    yield 1
    until(sign.exists)


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
