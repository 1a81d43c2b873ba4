"""The `moments` kernel against the plain NumPy it replaces: equal first, then interleaved, medians of processor time.

    python bench/micro_moments.py [--rows 1000] [--voxels 512] [--repeats 15]
"""

from __future__ import annotations

import argparse
import json
import platform
import time

import numpy as np

from fastencode import kernels
from fastencode.kernels import fallback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--voxels", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if lost := kernels.lost("moments"):
        raise SystemExit(f"nothing to measure: {lost}")
    contestants = {"compiled": kernels.cpu("moments"), "numpy": fallback.moments}
    rng, results = np.random.default_rng(0), []
    for dtype in (np.float32, np.float64):
        y, p = (rng.standard_normal((options.rows, options.voxels)).astype(dtype) for _ in range(2))
        np.testing.assert_allclose(*(run(y, p) for run in contestants.values()), rtol=1e-9, atol=1e-9 * options.rows)
        spent: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.repeats):
            for name, run in contestants.items():
                began = time.thread_time()
                run(y, p)
                spent[name].append((time.thread_time() - began) / y.size * 1e9)
        medians = {name: float(np.median(times)) for name, times in spent.items()}
        results.append({"dtype": np.dtype(dtype).name, "ns_per_value": medians, "ratio": medians["numpy"] / medians["compiled"]})
    machine = {"machine": platform.machine(), "system": platform.platform(), "numpy": np.__version__}
    print(json.dumps({"rows": options.rows, "voxels": options.voxels, "results": results, **machine}, indent=2))


if __name__ == "__main__":
    main()
