"""The engine: what is made, reused, made again; what a failure or a kill takes with it, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stage_cases as cases
from fastencode.cli import main
from fastencode.errors import DiskError, FailedStages, InputError
from fastencode.runs import engine, provenance
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import End, Here, Lost

TOO_LARGE = "Unable to allocate 1.00 GiB for an array with shape (134217728,) and data type float64"
TESTS = Path(__file__).resolve().parent


def stage(name: str, make: Callable[..., None] = cases.write, *arguments: Any, **more: Any) -> Stage:
    return Stage(name, more.pop("settings", {"a": 1}), more.pop("reads", ()), make, arguments, **more)


def left(root: Path) -> set[str]:
    """All files and empty folders, but for the mark and what is known of inputs."""
    every = [path for path in root.rglob("*") if path.is_file() or not any(path.iterdir())]
    return {path.relative_to(root).as_posix() for path in every} - {".fastencode", ".hashes.json"}


def test_a_killed_an_out_of_memory_and_a_failing_job_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that does not depend on them is finished, and the run ends in a list."""
    root = tmp_path / "out"
    stages = Stages(root)
    jobs = [stage("models/A/killed", cases.killed), stage("models/A/fails", cases.fail, "by zero")]
    jobs += [stage("models/B/memory", cases.out_of_memory), *(stage(f"models/C/{n}") for n in range(4))]
    for name in ("A/killed", "A/fails", "B/memory", "C/0", "C/3"):
        jobs.append(stage(f"read/{name}", cases.read, root / f"models/{name}", reads=(f"models/{name}",)))
    jobs.append(stage("read/twice", cases.read, root / "read/B/memory", reads=("read/B/memory",)))
    made = stages.run_all(jobs, jobs=2)
    fine = {f"models/C/{n}" for n in range(4)} | {"read/C/0", "read/C/3"}
    assert set(made) == fine and all((path / "result.txt").read_text().startswith("whole") for path in made.values())
    assert stages.failed == {
        "models/A/killed": "killed, probably out of memory (SIGKILL)",
        "models/A/fails": "ZeroDivisionError: by zero",
        "models/B/memory": f"out of memory ({TOO_LARGE})",
        "read/A/killed": "not made, because models/A/killed failed",
        "read/A/fails": "not made, because models/A/fails failed",
        "read/B/memory": "not made, because models/B/memory failed",
        "read/twice": "not made, because models/B/memory failed",
    }
    with pytest.raises(FailedStages, match=r"(?s)^3 stages failed\n  models/[AB].*\nwhat did not depend on them") as error:
        stages.check()
    assert "\n  2 were not made, because models/B/memory failed\n" in str(error.value)
    assert left(root) == {f"{name}/{file}" for name in fine for file in ("result.txt", "stage.json")}
    said = capsys.readouterr()
    assert "Traceback" in said.err and "raise ZeroDivisionError(what)" in said.err and said.err.count("Traceback") == 1
    again = Stages(root)
    again.run_all([stage(name) if name in stages.failed else job for name, job in zip([j.name for j in jobs], jobs, strict=True)])
    assert not again.failed and f"7 of 7 models, 6 of 6 read, {len(fine)} reused, took " in capsys.readouterr().out


def test_the_same_in_one_process_but_for_a_kill(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "out")
    jobs = [stage("a/fails", cases.fail, "x"), stage("memory", cases.out_of_memory), stage("fine")]
    assert list(stages.run_all(jobs)) == ["fine"]
    assert stages.failed["a/fails"] == "ZeroDivisionError: x" and stages.failed["memory"].startswith("out of memory (")
    assert left(tmp_path / "out") == {"fine/result.txt", "fine/stage.json"}


def test_failed_commands_leave_no_folder_that_was_not_there(tmp_path: Path) -> None:
    root = tmp_path / "new" / "out"
    with pytest.raises(InputError, match="ZeroDivisionError: x"):
        Stages(root).run(stage("a/b/c", cases.fail, "x"))
    with pytest.raises(InputError, match="does not exist: check the path"):
        Stages(root).run(stage("a", inputs={"x": tmp_path / "nothing"}))
    assert list(tmp_path.iterdir()) == []
    root.mkdir(parents=True)
    with pytest.raises(InputError, match="ZeroDivisionError: x"):
        Stages(root).run(stage("a/b/c", cases.fail, "x"))
    assert root.is_dir() and left(root) == set()


def test_where_nothing_can_be_written_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made; a shared one whose mark somebody else made; a run of which nothing is finished."""
    stages = Stages(Path("/proc/nothing"))
    with pytest.raises(InputError, match=r"/proc/nothing cannot be made \(.*\): choose another folder"):
        stages.run_all([stage("a")])
    root = tmp_path / "out"
    failing = Stages(root)
    failing.run_all([stage("a", cases.fail, "x")])
    with pytest.raises(FailedStages, match=f"nothing was finished, and {root} was not made"):
        failing.check()
    Stages(root).run(stage("a"))
    real = Path.write_text

    def refused(path: Path, *text: Any, **more: Any) -> int:
        if path.name == ".fastencode":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *text, **more)

    monkeypatch.setattr(Path, "write_text", refused)
    Stages(root).run(stage("b"))
    with pytest.raises(DiskError, match="cannot be written"):
        Stages(tmp_path / "other").run(stage("b"))


def test_a_resumable_stage_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Five steps of ten are made by one process, the others by the next; with other settings all ten are made anew."""
    last = tmp_path / "last"
    out = tmp_path / "out"
    job = stage("run", cases.in_steps, last, resumable=True)
    stages = Stages(out)
    assert stages.run_all([job], jobs=2) == {} and "killed" in stages.failed["run"]
    begun = {path.name: path.read_text() for path in (out / "run.partial").glob("step-*")}
    assert sorted(begun) == [f"step-{n}" for n in range(5)] and str(os.getpid()) not in begun["step-0"]
    shutil.copytree(out, tmp_path / "other")
    last.touch()
    for name, changed in (("out", {}), ("other", {"settings": {"a": 2}}), ("out", {"version": 2})):
        Stages(tmp_path / name).run(stage("run", cases.in_steps, last, resumable=True, **changed))
        steps = {path.name: path.read_text() for path in (tmp_path / name / "run").glob("step-*")}
        kept = begun if not changed else {}
        assert steps == {f"step-{n}": f"process {os.getpid()}" for n in range(10)} | kept
        assert not list(tmp_path.glob(f"{name}/*.partial"))


def test_a_partial_folder_of_other_stages_is_made_anew(tmp_path: Path) -> None:
    """And one that was finished and signed, but not yet put in place when its process was killed, is put there."""
    stages = Stages(tmp_path / "out")
    stages.run(stage("x"))
    shutil.copytree(tmp_path / "out" / "x", tmp_path / "out" / "x.partial")
    shutil.rmtree(tmp_path / "out" / "x")
    (tmp_path / "out" / "x.partial" / "result.txt").write_text("signed")
    assert (Stages(tmp_path / "out").run(stage("x")) / "result.txt").read_text() == "signed"
    (tmp_path / "out" / "y.partial").mkdir()
    (tmp_path / "out" / "y.partial" / "rest.txt").write_text("of a killed process")
    Stages(tmp_path / "out").run(stage("y"))
    assert left(tmp_path / "out") == {f"{name}/{file}" for name in "xy" for file in ("result.txt", "stage.json")}


def test_what_decides_makes_it_again_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, moved = tmp_path / "input", tmp_path / "elsewhere"
    file.write_text("contents")
    os.utime(file, (0, 0))
    shutil.copy(file, moved)

    def run(why: str | None, *, at: Path = file, **changed: Any) -> None:
        stages = Stages(tmp_path / "out")
        stages.run_all(
            [stage("x", cases.write, inputs={"f": at}, **changed), stage("y", cases.read, tmp_path / "out/x", reads=("x",))]
        )
        stages.check()
        said = capsys.readouterr().out
        assert ("x, y, 2 reused\n" in said) == (why is None)
        assert not why or f"1 finished stage is made again: {why}" in said

    run("")
    run(None)
    run(None, at=moved)  # staged to another disk
    os.utime(file, (1, 1))
    run(None)
    file.write_text("conTents")
    os.utime(file, (1, 1))  # as before, to the nanosecond, and as long
    run("other input files")
    run("other settings", settings={"a": 2})
    run("another version of them", settings={"a": 2}, version=2)
    run("other settings", settings={"a": [2, 3.0, None, "x"], "b": Path("c")}, version=2)
    with pytest.raises(TypeError, match="settings hold a object"):
        run("", settings={"a": object()})


def test_many_input_files_are_announced_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many stages read one. Their digests are written down before the first stage: a kill does not lose them."""
    monkeypatch.setattr(engine, "_LARGE", 2 * 10**6)
    read: list[Path] = []
    monkeypatch.setattr(provenance, "sha256", lambda path: read.append(path) or "0" * 64)
    files = {f"{n}": tmp_path / f"{n}.h5" for n in range(2)}
    for path in files.values():
        path.write_bytes(bytes(10**6))
        os.utime(path, (0, 0))
    now = time.time_ns() + 10**10
    monkeypatch.setattr(provenance.time, "time_ns", lambda: now)
    out = tmp_path / "out"
    stages = [stage(f"{n}", cases.keep, out / ".hashes.json", inputs=files) for n in range(3)]
    made = Stages(out).run_all(stages)
    assert read == list(files.values()) and len(json.loads((made["0"] / "kept").read_text())) == 2
    assert "reading 0.002 GB of input files first, to know them by their contents\n" in capsys.readouterr().out
    Stages(out).run_all(stages)
    assert len(read) == 2 and "GB" not in capsys.readouterr().out


def test_stages_that_share_are_made_together_and_a_kill_costs_one(tmp_path: Path) -> None:
    plans = [PlanOf(n) for n in range(2)]
    texts = ["a", "killed", "c", "d"]
    jobs = [stage(f"{n}/{text}", cases.use_plan, text, share=plan) for n, plan in enumerate(plans) for text in texts]
    stages = Stages(tmp_path / "out")
    made = stages.run_all(jobs, jobs=2)
    assert set(stages.failed) == {"0/killed", "1/killed"} and len(made) == 6
    for n in range(2):
        said = {text: (made[f"{n}/{text}"] / "result.txt").read_text() for text in "acd"}
        assert "use 1 of" in said["a"] and "use 1 of" in said["c"] and "use 2 of" in said["d"]
        owner = {text: line.rpartition(" ")[2] for text, line in said.items()}
        assert owner["c"] == owner["d"] != owner["a"]


def test_in_one_process_too_what_is_shared_is_made_once_and_let_go(tmp_path: Path) -> None:
    plans = [PlanOf(n) for n in range(2)]
    jobs = [stage(f"{text}/{n}", cases.use_plan, text, share=plan) for text in "abc" for n, plan in enumerate(plans)]
    made = Stages(tmp_path / "out").run_all(jobs)
    assert {name: (path / "result.txt").read_text()[:8] for name, path in made.items()} == {
        f"{text}/{n}": f"{text}: use {place}" for place, text in enumerate("abc", 1) for n in range(2)
    }
    assert PlanOf.alive == 0


def test_what_was_finished_without_a_word_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may end, and news of what it made with it: the folders say what is finished."""

    class Mute(Here):
        """Calls are made here, and none of what they say arrives."""

        def next(self) -> tuple[str, Any]:
            while not isinstance((told := super().next())[1], End):
                pass
            return told[0], Lost("its computer failed")

    monkeypatch.setattr(engine, "open_executor", lambda *_: Mute())
    plan = PlanOf(0)
    stages = Stages(tmp_path / "out")
    made = stages.run_all([stage(text, cases.use_plan, text, share=plan) for text in "ab"] + [stage("bad", cases.fail, "x")])
    assert list(made) == ["a", "b"] and stages.failed == {"bad": "its computer failed"} and stages.seconds.keys() == {"a", "b"}


class PlanOf:
    """Makes a plan where it is used; two of them are two plans."""

    alive = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> list[int]:
        return Plan([os.getpid()])


class Plan(list[int]):
    def __init__(self, values: list[int]) -> None:
        super().__init__(values)
        PlanOf.alive += 1

    def __del__(self) -> None:
        PlanOf.alive -= 1


def test_a_stage_that_another_command_makes_is_waited_for_and_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, sign = tmp_path / "out", tmp_path / "sign"
    command = [sys.executable, str(TESTS / "stage_cases.py"), str(root), str(sign)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        until(lambda: (root / "slow" / "one.partial" / "result.txt").exists())
        stages = Stages(root)
        last = stage("last", cases.give_sign, sign, reads=("fast",))  # made while slow/one is waited for
        stages.run_all([stage("slow/one", cases.wait_for, sign), stage("fast"), last])
        stages.check()
        assert other.wait(60) == 0
    said = capsys.readouterr().out
    assert f"waiting: {root / 'slow/one'} is being written by process {other.pid} on" in said
    assert "3 of 3" not in said and "slow, fast, last, took " in said and left(root) >= {"slow/one/result.txt", "last/stage.json"}
    assert not list(root.rglob(".*.lock"))


def test_a_killed_command_gives_its_stage_back(tmp_path: Path) -> None:
    root, sign = tmp_path / "out", tmp_path / "sign"
    with subprocess.Popen([sys.executable, str(TESTS / "stage_cases.py"), str(root), str(sign)]) as other:
        until(lambda: (root / "slow" / "one.partial" / "result.txt").exists())
        other.send_signal(signal.SIGKILL)
    sign.touch()
    Stages(root).run(stage("slow/one", cases.wait_for, sign))
    assert left(root) == {"slow/one/result.txt", "slow/one/stage.json"}


def test_children_end_with_a_killed_command(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); import stage_cases as c\n"
        "from fastencode.runs.engine import Stage, Stages\n"
        "Stages(Path(sys.argv[1])).run_all([Stage('x', {}, (), c.wait_for, (Path(sys.argv[2]),))], jobs=2)"
    )
    root = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", code, str(root), str(tmp_path / "sign"), str(TESTS)]) as command:
        until(lambda: (root / "x.partial" / "result.txt").exists())
        child = json.loads((root / ".x.lock").read_text())["pid"]
        assert child != command.pid
        command.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())


def test_a_full_disk_stops_everything(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "out")
    with pytest.raises(DiskError, match=r"out/a cannot be written \(No space left on device\): make room"):
        stages.run_all([stage("a", cases.full_disk), stage("b")])
    assert not (tmp_path / "out").exists()


def test_wrong_graphs_are_said(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "out")
    with pytest.raises(ValueError, match="two stages have one name"):
        stages.run_all([stage("a"), stage("a")])
    with pytest.raises(InputError, match="it reads nothing, which is not finished"):
        stages.run(stage("a", reads=("nothing",)))
    stages.run_all([stage("p", cases.can_not, lambda: None)], jobs=2)
    assert "cannot be sent to another process" in stages.failed["p"]
    (tmp_path / "file").touch()
    for place, why in (
        (tmp_path / "file", "is a file"),
        (tmp_path, "holds other files"),
        (tmp_path / "file" / "x", "cannot be written"),
    ):
        with pytest.raises(InputError, match=why):
            Stages(place)


def test_finished_stages_of_all_commands_are_found(tmp_path: Path) -> None:
    """But none that is half made, or that read what has been made again since."""
    root = tmp_path / "out"
    for who in "AB":
        Stages(root).run_all(
            [stage(f"r/{who}", settings={"who": who}), stage(f"f/m/{who}", cases.read, root / f"r/{who}", reads=(f"r/{who}",))]
        )
    shutil.copytree(root / "f/m/A", root / "f/m/C.partial")
    found = Stages(root).finished("f/*/*")
    assert list(found) == ["f/m/A", "f/m/B"] and Stages(root).finished("r/*")["r/B"].settings == {"who": "B"}
    Stages(root).run(stage("r/B", settings={"who": "other"}))
    assert list(Stages(root).finished("f/*/*")) == ["f/m/A"]


def test_failed_stages_are_exit_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def failed(*_: object) -> None:
        raise FailedStages("1 stage failed\n  x: killed")

    monkeypatch.setattr("fastencode.cli._run", failed)
    assert main([]) == 1
    assert capsys.readouterr().err == "fastencode-tune: 1 stage failed\n  x: killed\n"


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_finished_stage_whose_file_is_gone_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage("a/b", {"x": 1}, (), two_files)
    for gone in (None, "one.txt", "in/two.txt"):
        if gone:
            (tmp_path / "out/a/b" / gone).unlink()
        folder = Stages(tmp_path / "out").run(stage)
        assert sorted(path.name for path in folder.rglob("*.txt")) == ["one.txt", "two.txt"]
        assert (f"made again: files of a/b are gone, the first {gone}" in capsys.readouterr().out) == bool(gone)
    before = (folder / "one.txt").stat().st_mtime_ns
    Stages(tmp_path / "out").run(stage)
    assert (folder / "one.txt").stat().st_mtime_ns == before, "whole, it is kept"
    said = json.loads((folder / "stage.json").read_text())
    del said["files"]  # as earlier versions wrote it
    (folder / "stage.json").write_text(json.dumps(said))
    Stages(tmp_path / "out").run(stage)
    assert (folder / "one.txt").stat().st_mtime_ns == before, "of an earlier version, it is kept"


def two_files(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "one.txt").write_text("1")
    (folder / "in/two.txt").write_text("2")
