"""Stages as SLURM jobs: through submitit's local and debug executors, through a SLURM played by shell scripts, and as scripts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stage_cases as cases
from fastencode.cli import main
from fastencode.errors import InputError, JobsWritten
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.executors import slurm
from fastencode.runs.executors.where import Where, check_where, where_of

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'fastencode-neuro[slurm]'")
TESTS = Path(__file__).resolve().parent
LOCAL = Where(slurm={}, submit=True, cluster="local")
DEBUG = Where(slurm={}, submit=True, cluster="debug")
OPTIONS = {"partition": "gpu", "gpus": "1"}

SBATCH = r"""#!/bin/sh
# Runs the job in the background, after those that it waits for; fails where FAKE/full is.
if [ -e "$FAKE/full" ]; then echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1; fi
n=$(($(cat "$FAKE/count") + 1)); echo $n > "$FAKE/count"; echo "$*" >> "$FAKE/calls"
said="Submitted batch job $n"; after=
for last; do case $last in --parsable) said="$n;cluster";; --dependency=afterok:*) after=${last#*afterok:};; esac; done
cp "$last" "$FAKE/$n.sh"
(
  for one in $(echo "$after" | tr : ' '); do
    until [ -s "$FAKE/$one.end" ]; do sleep 0.02; done
    if [ "$(cat "$FAKE/$one.end")" != 0 ]; then echo 1 > "$FAKE/$n.end"; exit; fi
  done
  SLURM_JOB_ID=$n bash "$last"; echo $? > "$FAKE/$n.end"
) < /dev/null > "$FAKE/$n.out" 2>&1 &
echo "$said"
"""
SRUN = r"""#!/bin/sh
while :; do case $1 in --unbuffered) shift;; --output|--error) shift 2;; *) break;; esac; done
exec "$@"
"""
SACCT = r"""#!/bin/sh
echo "JobID|State|NodeList"
for end in "$FAKE"/*.end; do
  [ -s "$end" ] || continue
  case $(cat "$end") in 0) state=COMPLETED;; 137) state=OUT_OF_MEMORY;; *) state=FAILED;; esac
  echo "$(basename "$end" .end)|$state|node1"
done
"""


@pytest.fixture(autouse=True)
def jobs_find_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are other processes: functions of test modules are importable there too. What is late is waited for shortly."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))))
    monkeypatch.setattr(slurm, "_LATE", 0.2)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's commands as shell scripts; what they were told is in files of the folder."""
    folder = tmp_path / "fake"
    (folder / "bin").mkdir(parents=True)
    (folder / "count").write_text("100")
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


def stage(name: str, make: Callable[..., None] = cases.write, *arguments: Any, **more: Any) -> Stage:
    return Stage(name, {"a": 1}, more.pop("reads", ()), make, arguments, **more)


def results(root: Path) -> dict[str, bytes]:
    """Every file, but for signatures."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in ("stage.json", ".hashes.json")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def tables(root: Path, where: Where, seeds: int) -> dict[str, bytes]:
    fits = [stage(f"fits/{seed}", cases.scores_of_plan, seed, share=plan_of) for seed in range(seeds)]
    reads = tuple(fit.name for fit in fits)
    stages = Stages(root, where=where)
    stages.run_all([stage("table", cases.table, [root / read for read in reads], reads=reads), *fits])
    stages.check()
    return results(root)


def plan_of() -> list[int]:
    return [0]


def test_files_of_jobs_are_those_made_here_byte_for_byte(tmp_path: Path) -> None:
    local = tables(tmp_path / "local" / "out", Where(), 3)
    assert len(local) == 2 + 3 * 2
    assert tables(tmp_path / "jobs" / "out", LOCAL, 3) == local
    assert tables(tmp_path / "debug" / "out", DEBUG, 3) == local


def test_killed_jobs_and_failures_take_only_what_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "out"
    jobs = [stage(f"plan/{text}", cases.use_plan, text, share=plan_of) for text in ("a", "killed", "c")]
    jobs += [stage("fails", cases.fail, "by zero"), stage("p", cases.can_not, lambda: None)]
    jobs += [stage(f"read/{n}", cases.read, root / n, reads=(n,)) for n in ("fails", "plan/killed")]
    stages = Stages(root, where=LOCAL)
    assert set(stages.run_all(jobs)) == {"plan/a", "plan/c"}
    lost = stages.failed.pop("plan/killed")
    assert re.match(
        r"its job \d+ ended before it was finished \(state \w+; perhaps it does not see the output folder.*; logs: /", lost
    )
    assert Path(lost.rpartition("logs: ")[2]).is_dir()
    assert "cannot be sent to another process" in stages.failed.pop("p")
    assert stages.failed == {
        "fails": "ZeroDivisionError: by zero",
        "read/fails": "not made, because fails failed",
        "read/plan/killed": "not made, because plan/killed failed",
    }
    assert "raise ZeroDivisionError(what)" in capsys.readouterr().err and not list(root.rglob("*.partial"))


def test_debug_jobs_run_here_and_heed_the_end_of_their_time(tmp_path: Path) -> None:
    """SLURM says by a signal that a job's time is nearly over: the stage at hand ends, and cleans up."""
    stages = Stages(tmp_path / "out", where=DEBUG)
    before = signal.getsignal(signal.SIGUSR2)
    made = stages.run_all([stage("pid", cases.pid), stage("long", cases.warned_of_the_end)])
    assert (made["pid"] / "result.txt").read_text() == str(os.getpid())
    assert "nearly out of time: give more, --slurm time=…" in stages.failed["long"]
    assert not list((tmp_path / "out").rglob("*.partial")) and signal.getsignal(signal.SIGUSR2) == before
    assert not (tmp_path / "out" / ".slurm").exists()


def test_an_interrupt_ends_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "out"

    def interrupted(executor: slurm.Slurm) -> Any:
        executor._submit()
        until(lambda: (root / "slow.partial/result.txt").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm.Slurm, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Stages(root, where=LOCAL).run_all([stage("slow", cases.wait_for, tmp_path / "never")])
    until(lambda: not (root / ".slow.lock").exists() or not running(root / ".slow.lock"))


def running(lock: Path) -> bool:
    """Whether the process that holds a lock runs; one that has ended and that nobody has asked about is a zombie (Z)."""
    try:
        status = Path(f"/proc/{json.loads(lock.read_text())['pid']}/stat").read_text()
    except (OSError, ValueError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_jobs_are_handed_to_slurm_with_its_own_options(fake: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    where = Where(slurm=OPTIONS, submit=True)
    check_where(where)
    stages = Stages(root, where=where)
    stages.run_all([stage("x"), stage("killed", cases.killed)])
    assert list(stages.failed) == ["killed"] and "(out of memory: give more, --slurm mem=…)" in stages.failed["killed"]
    assert (root / "x/result.txt").read_text() == "whole"
    scripts = [(fake / f"{n}.sh").read_text() for n in (101, 102)]
    for text in scripts:
        assert "#SBATCH --partition=gpu\n" in text and "#SBATCH --gpus=1\n" in text and "--time" not in text
    (fake / "full").touch()
    with pytest.raises(
        InputError, match=r"sbatch refused a job \(sbatch: error: invalid partition specified: gpu\): check --slurm"
    ):
        Stages(tmp_path / "other", where=where).run_all([stage("x")])
    assert not (tmp_path / "other").exists()


def test_scripts_are_written_and_submit_the_whole_chain(fake: Path, tmp_path: Path) -> None:
    """Nothing is run, all missing stages have a job, and the same command takes what the jobs made."""
    root, where = tmp_path / "out", Where(slurm={**OPTIONS, "time": "8:00:00"})
    Stages(root).run_all([stage("there")])
    jobs = [stage("b", cases.read, root / "a/1", reads=("a/1", "there"))]
    jobs += [*(stage(f"a/{n}", cases.write_plan, share=plan_of) for n in range(2)), stage("there")]
    jobs += [stage("bad", cases.fail, "x"), stage("after bad", cases.read, root / "bad", reads=("bad",))]
    with pytest.raises(JobsWritten, match=r"^nothing was run; job scripts .*/\.slurm/.*: 4, stages .*: 5; run") as written:
        Stages(root, where=where).run_all(jobs)
    assert not list(fake.glob("*.sh")) and not (root / "a").exists()
    submit = Path(re.findall(r"run `sh (\S+)`, and then the same command again", str(written.value))[0])
    subprocess.run(["sh", str(submit)], check=True, timeout=60)
    calls = (fake / "calls").read_text().splitlines()
    after = {Path(line.split()[-1]).name[5:-3]: re.findall(r"afterok:(\S+)", line) for line in calls}
    numbers = {name: str(101 + place) for place, name in enumerate(after)}
    assert after == {"a-1": [], "bad": [], "b": [numbers["a-1"]], "after-bad": [numbers["bad"]]}
    until(lambda: all((fake / f"{n}.end").exists() and (fake / f"{n}.end").read_text() for n in numbers.values()))
    text = next(submit.parent.glob("*a-1.sh")).read_text()
    for line in ("#SBATCH --partition=gpu", "#SBATCH --gpus=1", "#SBATCH --time=8:00:00", "# a/1, a/0"):
        assert f"{line}\n" in text
    ends = {name: (fake / f"{number}.end").read_text().strip() for name, number in numbers.items()}
    assert ends == {"a-1": "0", "b": "0", "bad": "1", "after-bad": "1"}
    assert "bad: ZeroDivisionError: x" in (fake / f"{numbers['bad']}.out").read_text()
    stages = Stages(root)
    stages.run_all([job for job in jobs if "bad" not in job.name])
    assert (root / "b/result.txt").read_text() == "whole, read"
    assert set(stages.seconds) == {"a/0", "a/1", "b", "there"} and not stages.failed and not (root / "bad").exists()


def test_what_cannot_be_meant_is_said() -> None:
    assert where_of(jobs=3) == Where(3) and where_of(scheduler="tcp://a:1") == Where(scheduler="tcp://a:1")
    found = where_of(slurm=" partition=gpu , gpus_per_node=1,nodelist=n[1,3],--time=1-0", submit=True)
    assert found.slurm == {"partition": "gpu", "gpus-per-node": "1", "nodelist": "n[1,3]", "time": "1-0"}
    assert where_of(slurm="").only_writes and not found.only_writes and not Where().only_writes
    for given, why in (
        ({"slurm": "gpu"}, "'gpu' is not OPTION=VALUE: give long options of sbatch, such as --slurm partition=gpu,gpus=1,time"),
        ({"slurm": "partition="}, "'partition=' is not OPTION=VALUE"),
        ({"slurm": "mem=1G\nrm -r"}, "is not OPTION=VALUE"),
        ({"slurm": "output=x"}, "output is set for each job: leave it out"),
        ({"slurm": "mem=1,mem=2"}, "mem is given twice"),
        ({"slurm": "gpus=1", "scheduler": "tcp://a:1"}, "--scheduler and --slurm are both given"),
        ({"submit": True}, "--submit needs --slurm: add options of the jobs"),
        ({"scheduler": " "}, "--scheduler is empty"),
        ({"jobs": 0}, "jobs"),
    ):
        with pytest.raises(InputError, match=re.escape(why)):
            where_of(**given)  # type: ignore[arg-type]


def test_without_slurm_here_handing_over_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    where = where_of(slurm="gpus=1", submit=True)
    for attempt in (lambda: check_where(where), lambda: Stages(tmp_path / "out", where=where).run_all([stage("a")])):
        with pytest.raises(InputError, match="--submit: sbatch and srun not found on PATH: run this on a login node, or leave"):
            attempt()
    check_where(where_of(slurm="gpus=1"))
    assert not (tmp_path / "out").exists()


def test_written_scripts_are_exit_status_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def written(*_: object) -> None:
        raise JobsWritten("nothing was run; 1 job script")

    monkeypatch.setattr("fastencode.cli._run", written)
    assert main([]) == 0
    assert capsys.readouterr().out == "fastencode-tune: nothing was run; 1 job script\n"


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 180  # three jobs load torch on two cores that may be busy
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
