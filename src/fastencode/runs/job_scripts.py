"""Write SLURM job scripts instead of running stages: one per batch of stages, and ``submit.sh``, which submits them in order.

``python -m fastencode.runs.job_scripts FILE`` is the command in such a script.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
import shlex
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastencode.errors import InputError
from fastencode.files import make_folder
from fastencode.limits import available_processors
from fastencode.progress import say
from fastencode.runs.executors import Lost, carried_out, packed
from fastencode.runs.executors.slurm import FOLDER, heeding_the_limit
from fastencode.runs.making import Made, Task, make_all

__all__ = ["write_scripts"]

_WARNED = 90  # s before the end of a job's time at which SLURM signals the job


def write_scripts(
    batches: Sequence[Sequence[Task]], root: Path, options: Mapping[str, str], prepare: Callable[[], None] | None = None
) -> Path:
    """Write a job script for each batch, and ``submit.sh``, which submits them.

    A job starts when all jobs whose results it reads have succeeded (``afterok``), and is cancelled if one of them fails.

    Parameters
    ----------
    batches : sequence of sequence of Task
        In an order in which each comes after those that it reads. The stages of a batch run one after another.
    root : Path
        The output folder; must exist.
    options : sbatch's option → value
    prepare : callable, optional
        Called in each job before its stages run.

    Returns
    -------
    Path
        Of ``submit.sh``.

    Raises
    ------
    InputError
        If the function or arguments of a stage cannot be pickled.
    """
    folder = make_folder(root.absolute() / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}")
    homes = {task.name: number for number, batch in enumerate(batches) for task in batch}
    lines = [
        "#!/bin/sh",
        "# Submits the jobs of this folder. A job starts when the jobs that it reads from have succeeded.",
        "set -e",
    ]
    for number, batch in enumerate(batches):
        script = _write_job(folder, number, batch, options, prepare)
        after = sorted({homes[read] for task in batch for read in task.signature.reads if read in homes} - {number})
        waits = (
            " --kill-on-invalid-dep=yes --dependency=afterok:" + ":".join(f"${{job{one}%%;*}}" for one in after) if after else ""
        )
        lines.append(f"job{number}=$(sbatch --parsable{waits} {shlex.quote(str(script))})")
    lines.append(f"echo {len(batches)} jobs were submitted")
    submit = folder / "submit.sh"
    submit.write_text("\n".join(lines) + "\n", encoding="utf-8")
    submit.chmod(submit.stat().st_mode | stat.S_IXUSR)
    return submit


def _write_job(
    folder: Path, number: int, batch: Sequence[Task], options: Mapping[str, str], prepare: Callable[[], None] | None
) -> Path:
    call = packed(make_all, (tuple(batch),))
    if isinstance(call, Lost):
        raise InputError(f"no job can be written for {batch[0].name}: its function or arguments {call.why}")
    name = f"{number:04d}-{re.sub('[^A-Za-z0-9.]+', '-', batch[0].name).strip('-')}"[:100]
    work, script = folder / f"{name}.pkl", folder / f"{name}.sh"
    work.write_bytes(pickle.dumps((call, os.getcwd(), prepare)))
    settings = {"job-name": name, "output": f"{folder / name}.log", "signal": f"B:USR2@{_WARNED}", **options}
    command = [sys.executable, "-m", __name__, str(work)]
    lines = ["#!/bin/bash", *(f"#SBATCH --{option}={shlex.quote(value)}" for option, value in settings.items())]
    lines += ["", f"# {', '.join(task.name for task in batch)}", f"exec {shlex.join(command)}"]
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return script


def _main(path: str) -> None:
    """Run the stages of one job. Raises :class:`SystemExit` (exit status 1) if one of them fails."""
    call, folder, prepare = pickle.loads(Path(path).read_bytes())
    os.chdir(folder)
    failed: list[str] = []
    with heeding_the_limit():
        for told in carried_out(call, prepare, available_processors()):
            say(f"{told.name}: {f'made in {told.seconds:.0f} s' if isinstance(told, Made) else told[1]}")
            failed += [] if isinstance(told, Made) else [told.name]
    if failed:
        raise SystemExit(f"not made: {', '.join(failed)}")


if __name__ == "__main__":
    _main(sys.argv[1])
