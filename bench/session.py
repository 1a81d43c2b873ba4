"""What every measurement needs: contestants in processes of their own, the machine, the versions, a file for the results."""

from __future__ import annotations

import json
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
THREAD_VARIABLES = ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "NUMBA", "VECLIB")


class Unfinished(Exception):
    """A contestant was stopped at its limit."""


class Failed(Exception):
    """A contestant raised; the message is its traceback."""


class Contestant:
    """A worker process: commanded, waited for, and ended at its limit. ``root`` is another checkout to run it from, if any."""

    def __init__(self, folder: Path, name: str, options: dict[str, Any], root: Path | None = None) -> None:
        self.name, threads = name, str(options["threads"])
        environment = {**os.environ, **{f"{library}_NUM_THREADS": threads for library in THREAD_VARIABLES}}
        if root is not None:
            environment["PYTHONPATH"] = str(root / "build" / "types")  # the installed layout, as `make types` makes it
        worker = (HERE.parent if root is None else root) / "bench" / "worker.py"
        command = [sys.executable, str(worker), str(folder), name, json.dumps(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for the answer; raises ``Unfinished`` or ``Failed``."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.end()
            raise Unfinished(f"did not finish in {limit:g} s") from None
        except BrokenPipeError:
            line = None
        if line is None:
            raise Failed(f"its process ended with status {self.process.wait()} (−9: killed, often for want of memory)")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"] + "\n" + answer["traceback"])
        return answer["ok"]

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """NVIDIA devices, as the driver names them."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        run = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return run.stdout.split("\n")[:-1]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit(root: Path = HERE) -> str:
    """The commit that was measured; "+" where tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True, cwd=root).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def surroundings(threads: int) -> dict[str, Any]:
    """Machine, versions, commit and command: what a number means nothing without."""
    names = ("fastencode-neuro", "numpy", "scipy", "himalaya", "scikit-learn", "torch", "cupy-cuda12x", "cupy-cuda13x")
    return {
        "command": "python " + " ".join([f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "threads": threads,
        "machine": {
            "cpu": cpu_name(),
            "processors": os.cpu_count(),
            "memory_gigabytes": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "gpus": gpu_names(),
        },
        "load_at_start": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in names}},
        "commit": commit(),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Median, quantiles and every value."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "q25": float(low), "q75": float(high), "min": min(values), "max": max(values), "all": values}


def write(results: dict[str, Any], path: Path, default: Callable[[Any], Any] = str) -> None:
    """Results as JSON, small enough to read."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): short(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [short(part) for part in value]
        if isinstance(value, float | np.floating):
            return float(f"{value:.6g}")
        return value.item() if isinstance(value, np.generic) else value

    path.write_text(json.dumps(short(results), indent=2, ensure_ascii=False, default=default) + "\n", encoding="utf-8")
