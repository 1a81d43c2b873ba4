"""Float32 products on matrix tiles against BLAS: exactness first, then interleaved, in one thread.

    python bench/micro_product.py [--repeats 15] [--no-file]

Writes bench/results/micro_product.json: operations per second by BLAS, with three bfloat16 parts to a number (what
``precision="exact"`` multiplies with) and with two (``"fast"``), and each one's error against float64 as a part of the norms of
row and column. ``shrunk`` is the product of rows with coordinates shrunk at every node, against the BLAS products of all segments
and nodes and the mix.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from session import surroundings, write
from threadpoolctl import threadpool_limits

from fastencode import kernels
from fastencode.kernels import fallback

RESULT = Path(__file__).parent / "results" / "micro_product.json"
SHAPES = [(96, 64, 64), (200, 100, 768), (400, 300, 768), (800, 1000, 768), (5600, 1000, 768), (3072, 2250, 768)]
# (rows, sizes of segments, curves of each, nodes)
CUT = [(800, [128] * 8, [5] * 8, 8), (600, [128] * 8, [6] * 8, 20), (375, [256] * 12, [5] * 12, 15)]


def timed(contestants: dict[str, Callable[[], Any]], operations: float, repeats: int) -> dict[str, list[float]]:
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - began)
    return {name: np.round(operations / np.quantile(s[1:], [0.75, 0.5, 0.25]) / 1e9, 1).tolist() for name, s in spent.items()}


def plain(m: int, k: int, n: int, repeats: int) -> dict[str, Any]:
    rng, product = np.random.default_rng(0), kernels.cpu("product")
    left, right = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
    out = {name: np.empty((m, n), dtype=np.float32) for name in ("BLAS", "three parts", "two parts")}
    contestants = {
        "BLAS": lambda: np.matmul(left, right, out=out["BLAS"]),
        "three parts": lambda: product(left, right, out["three parts"], 3),
        "two parts": lambda: product(left, right, out["two parts"], 2),
    }
    rates = timed(contestants, 2.0 * m * k * n, repeats)
    wanted = left.astype(float) @ right.astype(float)
    size = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=0)
    errors = {name: np.abs(found - wanted) / size for name, found in out.items()}
    if errors["three parts"].max() > 3e-7:
        raise SystemExit(f"three parts are off by {errors['three parts'].max():.2g}: nothing was measured")
    return {
        "shape": [m, k, n],
        "gflops_q25_median_q75": rates,
        "largest_error": {name: float(f"{e.max():.2g}") for name, e in errors.items()},
        "root_mean_square_error": {name: float(f"{np.sqrt((e**2).mean()):.2g}") for name, e in errors.items()},
    }


def cut(m: int, sizes: list[int], counts: list[int], nodes: int, repeats: int, n: int = 768) -> dict[str, Any]:
    rng, shrunk = np.random.default_rng(0), kernels.cpu("shrunk")
    ends, number = np.r_[0, np.cumsum(sizes)], np.array(counts)
    left, right = rng.standard_normal((m, ends[-1]), dtype=np.float32), rng.standard_normal((ends[-1], n), dtype=np.float32)
    curves = rng.uniform(0.1, 1, int((np.array(sizes) * number).sum())).astype(np.float32)
    mix = rng.standard_normal((nodes, number.sum()), dtype=np.float32)
    given, out = (left, right, ends, number, curves, mix), np.empty((nodes, m, n), dtype=np.float32)
    wanted = fallback.shrunk(*(a if a.dtype.kind == "i" else a.astype(float) for a in given), np.empty(out.shape))
    for parts, limit in ((3, 1e-6), (2, 1e-4)):
        error = np.abs(shrunk(*given, out, parts) - wanted).max() / np.abs(wanted).max()
        if error > limit:
            raise SystemExit(f"shrunk with {parts} parts is off by {error:.2g}: nothing was measured")
    contestants = {
        "BLAS": lambda: fallback.shrunk(*given, out),
        "three parts": lambda: shrunk(*given, out, 3),
        "two parts": lambda: shrunk(*given, out, 2),
    }
    rates = timed(contestants, 2.0 * m * n * (len(curves) + mix.size), repeats)
    return {"rows": m, "segments": sizes, "curves": counts, "nodes": nodes, "columns": n, "gflops_q25_median_q75": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    if not kernels.has_tiles():
        raise SystemExit("nothing to measure: no matrix tiles here (AMX), or FASTENCODE_NO_TILES is set")
    with threadpool_limits(1):
        report = {
            "product": [plain(*shape, options.repeats) for shape in SHAPES],
            "shrunk": [cut(*case, options.repeats) for case in CUT],
            **surroundings(1),
        }
    print(json.dumps(report, indent=1))
    if not options.no_file:
        write(report, RESULT)


if __name__ == "__main__":
    main()
