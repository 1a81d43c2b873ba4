"""One contestant in a process of its own, told what to do through a pipe: started by run.py, not by hand.

    python bench/worker.py FOLDER CONTESTANT OPTIONS

FOLDER holds case.json, X.npy and Y.npy. OPTIONS is JSON; "stored" in it names a file of responses to read from instead of Y.npy.
Each line on standard input is a command, each line on standard output its answer, both JSON. What libraries print goes to
standard error.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import compare
import numpy as np
from cases import from_fields
from threadpoolctl import threadpool_info, threadpool_limits


def status(field: str) -> int | None:
    """A line of /proc/self/status in bytes; None where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":")), None)
    except OSError:
        return None


class PeakMemory:
    """Peak resident memory of this process inside a ``with``, and that without the pages of mapped files.

    Linux keeps the first itself (and lets it be reset). The second is sampled.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the peak starts again from what is resident now
            self.reset = True
        except OSError:
            self.reset = False
        self.before, self.own = status("VmRSS"), status("RssAnon") or 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.done.wait(0.05):
            self.own = max(self.own, status("RssAnon") or 0)

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        most = status("VmHWM")
        self.peak = most if most is not None else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def numbers(self) -> dict[str, Any]:
        """Bytes; the peak is that of the process's whole life where it could not be reset."""
        return {"peak": self.peak, "before": self.before, "peak_without_files": self.own or None, "of_this_fit": self.reset}


def jsonable(value: Any) -> Any:
    """What ``json`` cannot write: NumPy's numbers and arrays; anything else as text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def device_peak(device: str | None) -> dict[str, int]:
    """Bytes on the GPU that torch and CuPy took at most, for those that are loaded."""
    out: dict[str, int] = {}
    if device != "cuda":
        return out
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        out["torch"] = torch.cuda.max_memory_reserved()
    if (cupy := sys.modules.get("cupy")) is not None:
        out["cupy"] = cupy.get_default_memory_pool().total_bytes()
    return out


class Worker:
    """Answers commands about one contestant."""

    def __init__(self, folder: Path, name: str, options: dict[str, Any]) -> None:
        self.case = from_fields(json.loads((folder / "case.json").read_text(encoding="utf-8")))
        self.name, self.options = name, options
        if name == "peak":
            self.X = self.Y = np.empty((0, 0))
        else:
            self.X, self.Y = np.load(folder / "X.npy"), self._responses(folder)

    def _responses(self, folder: Path) -> Any:
        stored = self.options.get("stored")
        if stored is None:
            return np.load(folder / "Y.npy")
        if stored.endswith(".npy"):
            return np.load(stored, mmap_mode="r")
        import h5py  # here alone: the peak memory of the others should not hold it

        return h5py.File(stored, "r")["Y"]

    def prepare(self) -> dict[str, Any]:
        """Everything before the clock starts."""
        self.fit, said = compare.CONTESTANTS[self.name](self.case, self.X, self.Y, self.options)
        blas = {f"{pool['internal_api']} {pool['version']}": pool["num_threads"] for pool in threadpool_info()}
        return {**said, "libraries": blas}

    def run(self, save: str | None = None) -> dict[str, Any]:
        """One fit: its time, its memory; ``save`` names a file for what it found."""
        with PeakMemory() as memory:
            cpu, wall = time.process_time(), time.perf_counter()
            found = self.fit()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if save is not None:
            kept = np.unique(np.linspace(0, self.case.t - 1, 500).astype(int))
            all_scores = {} if found.cv_scores is None else {"cv_scores": found.cv_scores}
            np.savez(save, alpha=found.alpha, score=found.score, coef=found.coef[:, kept], kept=kept, **all_scores)
        gpu = device_peak(self.options.get("device"))
        return {"wall": wall, "cpu": cpu, "memory": memory.numbers(), "gpu": gpu, **found.extra}


def main() -> None:
    folder, name, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not answer for us
    compare.quiet()
    with threadpool_limits(int(options["threads"])):
        worker = Worker(folder, name, options)
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = {"ok": getattr(worker, command.pop("do"))(**command)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            answers.write(json.dumps(answer, default=jsonable) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
