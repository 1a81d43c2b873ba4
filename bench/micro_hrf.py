"""The `hrf` kernel against the dense form and against nilearn: equal first, then by turns, one thread.

    python bench/micro_hrf.py [--events 2000] [--seconds 600] [--columns 1] [--counts 500 2000 8000] [--repeats 51] [--no-file]

Writes bench/results/micro_hrf.json: seconds of the thread, and ratios of medians. The dense form evaluates the response at every
pair of event and scan, at exact times. nilearn (`compute_regressor`, one column at a time) rounds onsets to a grid, so it is only
near; the correlation is in the file. `words` are impulses at dense onsets, `words that last` boxcars of 0.1 to 0.6 s. `linear` is
what an event costs when there are few and many of them in the same time.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from session import spread, surroundings, write
from threadpoolctl import threadpool_limits

import fastencode

RESULT = Path(__file__).parent / "results" / "micro_hrf.json"
Contestants = dict[str, Callable[[], np.ndarray]]


def density(t: np.ndarray) -> np.ndarray:
    """SPM's response in 1/s, not scaled: a gamma density less a sixth of a later one, 0 outside of 0 to 32 s."""
    h = scipy.stats.gamma.pdf(t, 6) - scipy.stats.gamma.pdf(t, 16) / 6
    return np.where((t >= 0) & (t <= 32), h, 0.0)


def integral(t: np.ndarray) -> np.ndarray:
    """Its integral up to t."""
    t = np.clip(t, 0, 32)
    return scipy.stats.gamma.cdf(t, 6) - scipy.stats.gamma.cdf(t, 16) / 6


def dense(data: np.ndarray, times: np.ndarray, new: np.ndarray, lasting: np.ndarray | None) -> np.ndarray:
    """Every pair of scan and event; the response is scaled to unit integral."""
    lag = new[:, None] - times[None, :]
    response = density(lag) if lasting is None else integral(lag) - integral(lag - lasting)
    return response @ data / integral(np.array(32.0))


def nilearn(data: np.ndarray, times: np.ndarray, new: np.ndarray, lasting: np.ndarray | None) -> np.ndarray:
    """One regressor for each column."""
    from nilearn.glm.first_level import compute_regressor

    lasting = np.zeros(len(times)) if lasting is None else lasting
    columns = [compute_regressor((times, lasting, column), "spm", new, oversampling=50)[0] for column in data.T]
    return np.hstack(columns)


def timed(contestants: Contestants, repeats: int) -> dict[str, list[float]]:
    """By turns, after all have run once."""
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            began = time.thread_time()
            run()
            spent[name].append(time.thread_time() - began)
    return spent


def words(n: int, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amplitudes, onsets and scans."""
    rng, new = np.random.default_rng(n), np.arange(0, options.seconds, 2.0)
    return rng.standard_normal((n, options.columns)) + 1, np.sort(rng.uniform(0, new[-1], n)), new


def against(lasts: bool, options: argparse.Namespace) -> dict[str, Any]:
    data, times, new = words(options.events, options)
    lasting = np.random.default_rng(1).uniform(0.1, 0.6, options.events) if lasts else None
    contestants: Contestants = {
        "ours": lambda: fastencode.hrf_convolve(data, times, new, durations=lasting),
        "dense": lambda: dense(data, times, new, lasting),
        "nilearn": lambda: nilearn(data, times, new, lasting),
    }
    found = {name: run() for name, run in contestants.items()}
    np.testing.assert_allclose(found["ours"], found["dense"], rtol=0, atol=1e-12 * np.abs(found["dense"]).max())
    near = min(np.corrcoef(a, b)[0, 1] for a, b in zip(found["ours"].T, found["nilearn"].T, strict=True))
    if not near > 0.99:
        raise SystemExit(f"nilearn correlates {near:.4f} with ours: not the same thing, so there is nothing to time")
    spent = timed(contestants, options.repeats)
    median = {name: float(np.median(times)) for name, times in spent.items()}
    return {
        "events": options.events,
        "scans": len(new),
        "columns": options.columns,
        "least_correlation_with_nilearn": float(near),
        "thread_seconds": {name: spread(times) for name, times in spent.items()},
        "times_ours": {name: median[name] / median["ours"] for name in ("dense", "nilearn")},
    }


def linear(options: argparse.Namespace) -> list[dict[str, Any]]:
    given = {n: words(n, options) for n in options.counts}
    runs = {str(n): lambda given=values: fastencode.hrf_convolve(*given) for n, values in given.items()}
    for run in runs.values():
        run()
    spent = timed(runs, options.repeats)
    return [
        {"events": int(n), "thread_seconds": spread(times), "microseconds_per_event": float(np.median(times)) / int(n) * 1e6}
        for n, times in spent.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the recording; a scan takes 2 seconds")
    parser.add_argument("--columns", type=int, default=1)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000, 8000, 32000], help="of events, for what one costs")
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        report = {
            "words": against(False, options),
            "words that last": against(True, options),
            "linear": linear(options),
            **surroundings(1),
        }
    print(json.dumps(report, indent=1))
    if not options.no_file:
        write(report, RESULT)


if __name__ == "__main__":
    main()
