"""What a study costs from an empty folder, and what it found: wall time, processor time, peak memory of all its processes.

    python bench/study_cost.py [--keep DIR] demo [OPTIONS]     fastencode-tune demo
    python bench/study_cost.py run STUDY [OPTIONS]             fastencode-tune run
    python bench/study_cost.py --table                         those measured, as rows of Markdown
    python bench/study_cost.py --answers demo demo-null …      what several found, side by side

Writes bench/results/studies/<words of the command>.json; --keep copies its tables, verdicts and figures beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from session import RESULTS, surroundings, write

COSTS = RESULTS / "studies"
OUTPUT = {"demo": "demo-output", "run": "study-output"}
KEPT = (
    "scores.csv", "residuals.csv", "probes.csv", "change.csv", "findings.csv", "training.csv", "results.json", "config.yaml",
    "figures/picture.png", "figures/probes.png", "figures/findings.png",
)  # fmt: skip


def memory_of_tree(process: psutil.Process) -> int:
    """Bytes of a process and all below it; shared pages count once where the system tells (PSS), otherwise for each (RSS)."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            full = member.memory_full_info()
            total += getattr(full, "pss", 0) or full.rss
        except psutil.Error:  # ended meanwhile
            continue
    return total


def measure(words: list[str], folder: str) -> dict[str, Any]:
    """Run ``fastencode-tune`` with these words in an empty folder."""
    command = [sys.executable, "-m", "fastencode.cli", *words]
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    process = psutil.Popen(command, cwd=folder)
    while process.poll() is None:
        peak = max(peak, memory_of_tree(process))
        time.sleep(0.2)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise SystemExit(f"fastencode-tune {' '.join(words)} ended with status {process.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": round(seconds, 1), "processor_seconds": round(spent, 1), "peak_gigabytes": round(peak / 1e9, 2)}


def keep(out: Path, folder: str, where: Path) -> None:
    """Copy the small tables and figures of a study, without the name of the folder that is gone."""
    for name in KEPT:
        if (out / name).exists():
            where.mkdir(parents=True, exist_ok=True)
            shutil.copy(out / name, where)
    settings = (out / "config.yaml").read_text(encoding="utf-8")
    (where / "config.yaml").write_text(settings.replace(f"cd {folder} && ", ""), encoding="utf-8")


def table() -> str:
    """A row of Markdown for each study measured."""
    rows = ["| study | minutes | processor minutes | peak GB | expectations held |", "| --- | --: | --: | --: | --- |"]
    for path in sorted(COSTS.glob("*.json")):
        cost = json.loads(path.read_text(encoding="utf-8"))
        rows.append(
            f"| `{cost['command']}` | {cost['wall_seconds'] / 60:.1f} | {cost['processor_seconds'] / 60:.1f} "
            f"| {cost['peak_gigabytes']:.2f} | {cost['held']} |"
        )
    return "\n".join(rows)


def answers(names: list[str]) -> str:
    """What was expected, and what each study found: a row of Markdown for each expectation of the first."""
    found = [json.loads((COSTS / f"{name}.json").read_text(encoding="utf-8"))["verdicts"] for name in names]
    rows = [f"| expectation | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for verdict in found[0]:
        same = [next((one for one in study if one["expectation"] == verdict["expectation"]), None) for study in found]
        rows.append(f"| {verdict['expectation']} | {' | '.join(map(answer, same))} |")
    return "\n".join(rows)


def answer(verdict: dict[str, Any] | None) -> str:
    """A number with its interval, and the answer."""
    if verdict is None:
        return "not asked"
    sign = "+" if verdict["quantity"].startswith("Δ") else ""
    numbers = [format(verdict[name], f"{sign}.3f").replace("-", "−") for name in ("measured", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}], {verdict['answer']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder under bench/results for what the study found")
    parser.add_argument("--table", action="store_true", help="print what was measured, and measure nothing")
    parser.add_argument("--answers", action="store_true", help="print what the named studies found, and measure nothing")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="demo or run, with its options")
    arguments = parser.parse_args()
    if arguments.table or arguments.answers:
        print(table() if arguments.table else answers(arguments.words))
        return
    if not arguments.words or arguments.words[0] not in OUTPUT:
        parser.error(f"which command? One of {', '.join(OUTPUT)}")
    where = surroundings(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        cost = measure(arguments.words, folder)
        out = Path(folder) / OUTPUT[arguments.words[0]]
        verdicts = json.loads((out / "results.json").read_text(encoding="utf-8"))["verdicts"]
        if arguments.keep:
            keep(out, folder, RESULTS / arguments.keep)
    cost = {
        **where,
        "command": " ".join(["fastencode-tune", *arguments.words]),
        **cost,
        "held": f"{sum(verdict['answer'] == 'yes' for verdict in verdicts)} of {len(verdicts)}",
        "verdicts": verdicts,
        "versions": {**where["versions"], "transformers": version("transformers")},
    }
    words = [word.strip("-").replace("/", "-") for word in arguments.words if word != "run"]
    write(cost, COSTS / f"{'-'.join(words)}.json")
    print(json.dumps(cost, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
