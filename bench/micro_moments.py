"""The `moments` kernel against the plain NumPy it replaces: equal first, then interleaved, in one thread, times of the processor.

    python bench/micro_moments.py [--rows 300 1000] [--voxels 768] [--nodes 1 4 6 8 16] [--repeats 15] [--no-file]

Writes bench/results/micro_moments.json: nanoseconds for each value of the tile of targets, rows times voxels, with all k
predictions of it. A second table there says what products and short partial sums in float32 would lose, which would be half the
arithmetic: the error of a held-out residual sum of squares, as a part of the target's, on targets that are predicted almost
perfectly.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from session import surroundings, write
from threadpoolctl import threadpool_limits

from fastencode import kernels
from fastencode.kernels import fallback

RESULT = Path(__file__).parent / "results" / "micro_moments.json"


def measure(k: int, rows: int, voxels: int, dtype: type, repeats: int) -> dict:
    rng = np.random.default_rng(0)
    y, p = rng.standard_normal((rows, voxels)).astype(dtype), rng.standard_normal((k, rows, voxels)).astype(dtype)
    weight = rng.uniform(0.5, 2.0, rows)
    out = np.empty(((k + 1) * (k + 4) // 2, voxels))
    compiled = kernels.cpu("moments")
    contestants = {
        "compiled": lambda: compiled(y, p, None, out),
        "compiled, weighted": lambda: compiled(y, p, weight, out),
        "numpy": lambda: fallback.moments(y, p, None, out),
    }
    for w in (None, weight):
        np.testing.assert_allclose(compiled(y, p, w), fallback.moments(y, p, w), rtol=1e-9, atol=1e-9 * rows)
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name, run in contestants.items():
            if name == "numpy" and repeat >= 5:  # it takes tens of times as long
                continue
            began = time.thread_time()
            run()
            spent[name].append((time.thread_time() - began) / y.size * 1e9)
    quantiles = {name: np.round(np.quantile(times, [0.0, 0.25, 0.5, 0.75]), 3).tolist() for name, times in spent.items()}
    return {
        "nodes": k,
        "rows": rows,
        "voxels": voxels,
        "dtype": np.dtype(dtype).name,
        "ns_per_value_min_q25_median_q75": quantiles,
        "numpy_over_compiled": round(quantiles["numpy"][2] / quantiles["compiled"][2], 2),
    }


def sums_in_float32(y_tv: np.ndarray, p_tv: np.ndarray, block: int = 8) -> np.ndarray:
    """The moments of one node with products and sums of `block` rows in float32, blocks in float64; laid out as the kernel's."""
    n, sums = len(y_tv), np.zeros((5, y_tv.shape[1]))
    y_tv, p_tv = y_tv - y_tv[0], p_tv - p_tv[0]
    for start in range(0, n, block):
        part = np.zeros(sums.shape, dtype=np.float32)
        for y, p in zip(y_tv[start : start + block], p_tv[start : start + block], strict=True):
            part += np.stack([y, p, y * y, y * p, p * p])
        sums += part
    sy, sp, yy, yp, pp = sums
    return np.stack([sy / n, sp / n, yy - sy * sy / n, yp - sy * sp / n, pp - sp * sp / n])


def residual_errors(rows: int, kind: str, voxels: int = 20_000) -> dict:
    """Largest error of Σ(y − p − mean)², as a part of Σ(y − ȳ)², over voxels: the kernel's and that of float32 sums."""
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((rows, voxels))
    y = (signal + (1000.0 if kind == "mean of 1000" else 0.0)).astype(np.float32)
    if kind == "first row far out":
        y[0] += 10
    p = (y + 1e-3 * rng.standard_normal(y.shape)).astype(np.float32)
    difference = y.astype(np.longdouble) - p
    truth = ((difference - difference.mean(axis=0)) ** 2).sum(axis=0)
    found = {"float64": kernels.cpu("moments")(y, p[None]), "float32, 8 rows": sums_in_float32(y, p)}
    worst = {name: float(np.abs((m[2] - 2 * m[3] + m[4] - truth) / found["float64"][2]).max()) for name, m in found.items()}
    return {"rows": rows, "kind": kind, "largest_error": {name: float(f"{error:.2g}") for name, error in worst.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--voxels", type=int, default=768)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 6, 8, 16])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    if lost := kernels.lost("moments"):
        raise SystemExit(f"nothing to measure: {lost}")
    where = surroundings(1)
    with threadpool_limits(1):
        times = [
            measure(k, rows, options.voxels, dtype, options.repeats)
            for dtype in (np.float32, np.float64)
            for rows in options.rows
            for k in options.nodes
        ]
    kinds = ("plain", "mean of 1000", "first row far out")
    report = {
        "times": times,
        "float32_sums": [residual_errors(rows, kind) for rows in (100, 1000) for kind in kinds],
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **where,
    }
    print(json.dumps(report, indent=1))
    if not options.no_file:
        write(report, RESULT)


if __name__ == "__main__":
    main()
