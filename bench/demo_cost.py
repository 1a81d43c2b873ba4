"""What the demo costs from an empty folder: wall time and the peak memory of all its processes together.

    python bench/demo_cost.py [--keep DIR] [-- OPTIONS OF fastencode-tune demo]

Writes bench/results/demo.json, or demo-<options>.json; --keep copies its tables, verdicts and figures beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psutil
from session import RESULTS, surroundings, write

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder under bench/results for what the demo found")
    parser.add_argument("options", nargs="*", help="passed on to fastencode-tune demo")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)  # before the minutes that fill it
    where = surroundings(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo-output"
        command = [str(Path(sys.executable).absolute().with_name("fastencode-tune")), "demo", *arguments.options]
        start, peak = time.perf_counter(), 0
        process = psutil.Popen(command, cwd=folder)
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            raise SystemExit(f"the demo ended with status {process.returncode}")
        verdicts = json.loads((out / "results.json").read_text(encoding="utf-8"))["verdicts"]
        if arguments.keep:
            keep = RESULTS / arguments.keep
            keep.mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                if (out / name).exists() or "probes" not in name:  # --no-probes leaves none
                    shutil.copy(out / name, keep)
            settings = (out / "config.yaml").read_text(encoding="utf-8")
            (keep / "config.yaml").write_text(settings.replace(f"cd {folder} && ", ""), encoding="utf-8")  # the folder is gone
    cost = {
        **where,
        "command": " ".join(["fastencode-tune", "demo", *arguments.options]),
        "wall_seconds": round(seconds, 1),
        "peak_gigabytes": round(peak / 1e9, 2),
        "held": f"{sum(verdict['answer'] == 'yes' for verdict in verdicts)} of {len(verdicts)}",
        "versions": {**where["versions"], "transformers": version("transformers")},
    }
    suffix = "".join(f"-{option.lstrip('-')}" for option in arguments.options)
    write(cost, RESULTS / f"demo{suffix}.json")
    print(json.dumps(cost, indent=2))


if __name__ == "__main__":
    main()
