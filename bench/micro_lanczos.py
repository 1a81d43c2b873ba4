"""The `lanczos` kernel against the dense published form and reading the data once: equal first, then by turns, one thread.

    python bench/micro_lanczos.py [--seconds 600] [--rate 50] [--columns 768] [--repeats 21] [--no-file]

Writes bench/results/micro_lanczos.json: seconds of the thread, and ratios of medians. `dense_over_ours`: the dense form makes a
matrix of all weights, new times by old, row by row in NumPy, and multiplies with it; a few of its turns are enough. Two floors:

memory      the bytes that have to be moved, the data read and the result written once, at the rate at which a compiled sum of
            64-bit words reads the same array in the same turns (NumPy's copy, read and written, is there to compare with)
arithmetic  one multiply-add in float64 for each value and each new time within reach of it, at the rate of a compiled loop that
            does nothing else, on 2 kB, in the same turns

No program in one thread is faster than the larger one. `pieces` is the streaming form, given one second of data at a time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
from session import spread, surroundings, write
from threadpoolctl import threadpool_limits

import fastencode

RESULT = Path(__file__).parent / "results" / "micro_lanczos.json"
DENSE_TURNS = 3


def dense(data: np.ndarray, old: np.ndarray, new: np.ndarray, lobes: float = 3.0) -> np.ndarray:
    """Row by row in Python, as published codes make the matrix: float64, n_new x n_old, almost all of it zero."""
    cutoff = 1 / np.mean(np.diff(new))
    weights = np.zeros((len(new), len(old)))
    for row, when in zip(weights, new, strict=True):
        x = (when - old) * cutoff
        row[:] = np.where(np.abs(x) <= lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)
    return weights @ data


def in_pieces(data: np.ndarray, old: np.ndarray, new: np.ndarray, rows: int) -> np.ndarray:
    """The streaming form."""
    stream = fastencode.LanczosStream(new)
    parts = [stream.add(data[a : a + rows], old[a : a + rows]) for a in range(0, len(old), rows)]
    return np.concatenate([*parts, stream.finish()])


@numba.njit(nogil=True)
def read(words: np.ndarray) -> int:
    """The sum of 64-bit words as integers, whose order is free: wide enough to wait for memory only."""
    total = 0
    for word in words:
        total += word
    return total


@numba.njit(fastmath={"contract"}, nogil=True)
def multiply_add(count: int) -> float:
    """About so many multiply-adds."""
    sums = np.zeros(256)
    for _ in range(count // 256):
        for c in range(256):
            sums[c] = sums[c] * 0.999 + 0.5
    return sums.sum()


def measure(dtype: type, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    old, new = np.arange(0, options.seconds, 1 / options.rate), np.arange(1, options.seconds, 2.0)
    data = rng.standard_normal((len(old), options.columns)).astype(dtype)
    words, copy, second = data.reshape(-1).view(np.int64), np.empty_like(data), max(1, round(options.rate))
    products = int((np.abs(new[:, None] - old) <= 6).sum()) * options.columns  # three lobes, and a scan takes 2 seconds
    contestants = {
        "ours": lambda: fastencode.lanczos(data, old, new),
        "pieces": lambda: in_pieces(data, old, new, second),
        "read": lambda: read(words),
        "copy": lambda: np.copyto(copy, data),
        "multiply_add": lambda: multiply_add(products),
        "dense": lambda: dense(data, old, new),
    }
    found = {name: contestants[name]() for name in ("ours", "pieces", "dense")}
    size = float(np.abs(found["dense"]).max())
    np.testing.assert_allclose(found["ours"], found["dense"], rtol=0, atol=size * (1e-6 if dtype == np.float32 else 1e-12))
    np.testing.assert_array_equal(found["pieces"], found["ours"])
    assert contestants["read"]() == words.sum()
    contestants["copy"]()
    contestants["multiply_add"]()
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.repeats):
        for name, run in contestants.items():
            if name == "dense" and turn >= DENSE_TURNS:
                continue
            began = time.thread_time()
            run()
            spent[name].append(time.thread_time() - began)
    median = {name: float(np.median(times)) for name, times in spent.items()}
    rate = data.nbytes / median["read"]
    moved = data.nbytes + found["ours"].nbytes
    floors = {"memory": moved / rate, "arithmetic": median["multiply_add"]}
    return {
        "dtype": np.dtype(dtype).name,
        "old": len(old),
        "new": len(new),
        "columns": options.columns,
        "bytes": {"data": data.nbytes, "result": found["ours"].nbytes, "moved": moved},
        "thread_seconds": {name: spread(times) for name, times in spent.items()},
        "gigabytes_per_second": {"read": rate / 1e9, "copy": 2 * data.nbytes / median["copy"] / 1e9},
        "multiply_adds": products,
        "gigaflops": 2 * products / median["ours"] / 1e9,
        "floor_seconds": floors,
        "ours_over_floor": {name: median["ours"] / floor for name, floor in floors.items()},
        "pieces_over_floor": {name: median["pieces"] / floor for name, floor in floors.items()},
        "dense_over_ours": median["dense"] / median["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the recording")
    parser.add_argument("--rate", type=float, default=50.0, help="old samples per second; a scan takes 2 seconds")
    parser.add_argument("--columns", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    with threadpool_limits(1):
        report = {"cases": [measure(dtype, options) for dtype in (np.float32, np.float64)], **surroundings(1)}
    print(json.dumps(report, indent=1))
    if not options.no_file:
        write(report, RESULT)


if __name__ == "__main__":
    main()
