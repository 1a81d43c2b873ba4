"""The `lanczos` kernel against the dense published form, a matrix of all weights: equal first, then by turns, medians.

    python bench/micro_lanczos.py [--seconds 300] [--rate 50] [--columns 256] [--repeats 7]

Processor time, so threads of BLAS in the dense form do not count against us.
"""

from __future__ import annotations

import argparse
import json
import platform
import time

import numpy as np

import fastencode


def dense(data: np.ndarray, old: np.ndarray, new: np.ndarray, lobes: float = 3.0) -> np.ndarray:
    """Row by row in Python, as published codes make the matrix: float64, n_new x n_old, almost all of it zero."""
    cutoff = 1 / np.mean(np.diff(new))
    weights = np.zeros((len(new), len(old)))
    for row, when in zip(weights, new, strict=True):
        x = (when - old) * cutoff
        row[:] = np.where(np.abs(x) <= lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)
    return weights @ data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="length of the recording")
    parser.add_argument("--rate", type=float, default=50.0, help="old samples per second; a scan takes 2 seconds")
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rng, results = np.random.default_rng(0), []
    old, new = np.arange(0, options.seconds, 1 / options.rate), np.arange(1, options.seconds, 2.0)
    contestants = {"fastencode": fastencode.lanczos, "dense": dense}
    for dtype in (np.float32, np.float64):
        data = rng.standard_normal((len(old), options.columns)).astype(dtype)
        ours, theirs = (run(data, old, new) for run in contestants.values())
        size = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=size * (1e-6 if dtype == np.float32 else 1e-12))
        spent: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.repeats):
            for name, run in contestants.items():
                began = time.process_time()
                run(data, old, new)
                spent[name].append(time.process_time() - began)
        medians = {name: float(np.median(times)) for name, times in spent.items()}
        ratio = medians["dense"] / medians["fastencode"]
        results.append({"dtype": np.dtype(dtype).name, "cpu_seconds": medians, "ratio": ratio})
    shape = {"old": len(old), "new": len(new), "columns": options.columns}
    machine = {"machine": platform.machine(), "system": platform.platform(), "numpy": np.__version__}
    print(json.dumps({**shape, "results": results, **machine}, indent=2))


if __name__ == "__main__":
    main()
