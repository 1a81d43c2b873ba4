"""Measure how often a fit warns that its grid of penalties is too narrow, on simulated speech whose best grid is known.

    python bench/edges.py              three feature spaces, three shares of predicted voxels, five grids, five worlds each

"before": some voxel ends at an edge, of which fits warned until the rule changed. "after": what they warn of now. "gain": how
much a grid of all five together raises the held-out score of the voxels that follow the features. Writes
bench/results/edges.json.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import session

import fastencode

# Rows, latent features, columns, and how far the variance of latent features falls.
WORLDS = {"word rate": (300, 1, 1, 0.0), "spectrum": (300, 20, 20, 0.8), "layer": (600, 150, 300, 1.0)}
SHARES = (0.0, 0.05, 0.3)
GRIDS = {"right": 1.0, "1e3 too large": 1e3, "1e6 too large": 1e6, "1e3 too small": 1e-3, "1e6 too small": 1e-6}
SCORINGS = ("r2", "pearson")
DELAYS = 4


def autocorrelated(rng: np.random.Generator, n: int, k: int, rho: float) -> np.ndarray:
    """(n, k) series with a lag-1 correlation of rho."""
    out = rng.standard_normal((n, k))
    for t in range(1, n):
        out[t] = rho * out[t - 1] + np.sqrt(1 - rho**2) * out[t]
    return out


def world(name: str, seed: int, voxels: int, share: float) -> tuple[np.ndarray, np.ndarray, int]:
    """(X, Y, voxels that follow X with an R² of .03 to .3); the last twentieth of the voxels is constant."""
    rng, (n, k, p, falls) = np.random.default_rng(seed), WORLDS[name]
    latent = autocorrelated(rng, n + DELAYS, k, 0.6) * np.arange(1, k + 1) ** -falls
    columns = latent @ rng.standard_normal((k, p)) + (0.1 * rng.standard_normal((n + DELAYS, p)) if k > 1 else 0)
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    X = np.hstack([columns[DELAYS - d : n + DELAYS - d] for d in range(1, DELAYS + 1)])
    Y = autocorrelated(rng, n, voxels, 0.7) + 0.3 * autocorrelated(rng, n, 3, 0.8) @ rng.standard_normal((3, voxels))
    Y /= Y.std(axis=0)
    followers = int(share * voxels)
    signal, r2 = X @ rng.standard_normal((X.shape[1], followers)), rng.uniform(0.03, 0.3, followers)
    Y[:, :followers] = np.sqrt(r2) * signal / signal.std(axis=0) + np.sqrt(1 - r2) * Y[:, :followers]
    Y[:, voxels - voxels // 20 :] = 0.0
    return X, Y, followers


def measure(name: str, share: float, scoring: str, voxels: int, seeds: int) -> list[dict[str, Any]]:
    """One row for each grid."""
    seen: dict[str, list[tuple[float, ...]]] = {grid: [] for grid in GRIDS}
    for seed in range(seeds):
        X, Y, followers = world(name, seed, voxels, share)
        top = np.ceil(np.log10(np.linalg.norm(X - X.mean(axis=0), 2) ** 2)) + 1
        right = np.logspace(0, top, 13)
        everything = np.unique(np.concatenate([right * shift for shift in GRIDS.values()]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            widest = fastencode.ridge_cv(X, Y, alphas=everything, scoring=scoring)
        for grid, shift in GRIDS.items():
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                fit = fastencode.ridge_cv(X, Y, alphas=right * shift, scoring=scoring)
            text, edge = " ".join(str(one.message) for one in told), fit.at_edge != 0
            gain = float((widest.best_score - fit.best_score)[:followers].mean()) if followers else 0.0
            seen[grid].append((edge.mean(), bool(edge.any()), "of the grid" in text, gain))
    rows = []
    for grid, found in seen.items():
        share_at_edge, before, after, gain = np.mean(found, axis=0)
        rows.append({"grid": grid, "at_edge": share_at_edge, "before": before, "after": after, "gain": gain})
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--out", type=Path, default=session.RESULTS / "edges.json")
    options = parser.parse_args()
    results: dict[str, Any] = {**session.surroundings(1), "voxels": options.voxels, "worlds": options.seeds, "rows": []}
    for name in options.worlds:
        for scoring in SCORINGS:
            for share in SHARES:
                for row in measure(name, share, scoring, options.voxels, options.seeds):
                    results["rows"].append({"features": name, "scoring": scoring, "predicted": share, **row})
                    print(
                        f"{name:10s} {scoring:8s} {share:4.0%} predicted  {row['grid']:14s} at an edge {row['at_edge']:4.0%}  "
                        f"warned before {row['before']:4.0%}, after {row['after']:4.0%}  gain {row['gain']:.3f}",
                        flush=True,
                    )
    session.write(results, options.out)


if __name__ == "__main__":
    main()
