"""The `hrf` kernel against the dense form and against nilearn: equal first, then by turns, medians of processor time.

    python bench/micro_hrf.py [--events 500] [--scans 300] [--repeats 5]

The dense form evaluates the response at every pair of event and scan, at exact times. nilearn rounds onsets to a grid, so it is
only near (the correlation is printed), and takes one regressor at a time.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings

import numpy as np
import scipy.stats

import fastencode


def density(t: np.ndarray) -> np.ndarray:
    """SPM's response in 1/s, not scaled: a gamma density less a sixth of a later one, 0 outside of 0 to 32 s."""
    h = scipy.stats.gamma.pdf(t, 6) - scipy.stats.gamma.pdf(t, 16) / 6
    return np.where((t >= 0) & (t <= 32), h, 0.0)


def dense(data: np.ndarray, times: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Every pair of scan and event; the response is scaled to unit integral."""
    area = scipy.stats.gamma.cdf(32, 6) - scipy.stats.gamma.cdf(32, 16) / 6
    return density(new[:, None] - times[None, :]) @ data / area


def nilearn(data: np.ndarray, times: np.ndarray, new: np.ndarray) -> np.ndarray:
    """One regressor for each column, impulses."""
    from nilearn.glm.first_level import compute_regressor

    columns = [compute_regressor((times, np.zeros(len(times)), column), "spm", new, oversampling=50)[0] for column in data.T]
    return np.hstack(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--scans", type=int, default=300, help="every 2 seconds")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    new = 2.0 * np.arange(options.scans)
    times = np.sort(rng.uniform(0, new[-1], options.events))
    data = rng.standard_normal((options.events, options.columns))
    contestants = {"fastencode": fastencode.hrf_convolve, "dense": dense, "nilearn": nilearn}
    found = {name: run(data, times, new) for name, run in contestants.items()}
    np.testing.assert_allclose(found["fastencode"], found["dense"], rtol=0, atol=1e-12 * np.abs(found["dense"]).max())
    near = min(np.corrcoef(a, b)[0, 1] for a, b in zip(found["fastencode"].T, found["nilearn"].T, strict=True))
    if not near > 0.99:
        raise SystemExit(f"nilearn correlates {near:.4f} with ours: not the same thing, so there is nothing to time")
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.repeats):
        for name, run in contestants.items():
            began = time.process_time()
            run(data, times, new)
            spent[name].append(time.process_time() - began)
    medians = {name: float(np.median(times)) for name, times in spent.items()}
    shape = {"events": options.events, "scans": options.scans, "columns": options.columns}
    ratios = {name: medians[name] / medians["fastencode"] for name in ("dense", "nilearn")}
    machine = {"machine": platform.machine(), "system": platform.platform(), "numpy": np.__version__}
    results = {"cpu_seconds": medians, "ratios": ratios, "least_correlation_with_nilearn": float(near)}
    print(json.dumps({**shape, **results, **machine}, indent=2))


if __name__ == "__main__":
    main()
