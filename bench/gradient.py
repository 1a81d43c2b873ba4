"""Measure what the gradient finds beside what random search finds in the same time, by scores on rows that no choice has seen.

    python bench/gradient.py                   every problem, five seeds
    python bench/gradient.py --problems six    one of them

For each seed a world is made; "auto" and "gradient" are fitted and timed; then random search gets as many candidates as fit in
the longer of the two times (one candidate's time is measured just before), and more until it needs at least as long.
Writes bench/results/banded-gradient.json after every seed; a later call keeps what is there of the same worlds and goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import session
from threadpoolctl import threadpool_limits

FIRST = 4  # candidates that the time of one is taken from


@dataclass(frozen=True)
class World:
    """Sizes of a problem: voxels use some bands only, at different strengths."""

    n: int
    widths: tuple[int, ...]
    voxels: int
    folds: int
    strengths: tuple[float, ...] = (0.0, 0.3, 1.0)

    def make(self, seed: int) -> tuple[Any, Any, Any, Any]:
        """(X, Y, X, Y) float32, training rows and as many again."""
        rng, p = np.random.default_rng(seed), sum(self.widths)
        X = rng.standard_normal((2 * self.n, p), dtype=np.float32)
        coef = rng.standard_normal((p, self.voxels), dtype=np.float32)
        for b, edge in enumerate(np.cumsum([0, *self.widths])[:-1]):
            width = self.widths[b]
            X[:, edge : edge + width] *= 1 / np.sqrt(1 + np.arange(width) / 10).astype(np.float32)  # a spectrum that falls
            coef[edge : edge + width] *= rng.choice(self.strengths, self.voxels).astype(np.float32) / np.sqrt(width)
        Y = X @ coef
        spread = Y.std(axis=0)
        spread[spread == 0] = 1
        Y *= rng.uniform(0.1, 1.0, self.voxels).astype(np.float32) / spread
        Y += rng.standard_normal(Y.shape, dtype=np.float32)
        return X[: self.n], Y[: self.n], X[self.n :], Y[self.n :]


WORLDS = {
    "two": World(700, (1000, 1000), 1000, 5),  # dual
    "three": World(1200, (80, 100, 400), 1000, 5),
    "six": World(1000, (60,) * 6, 1000, 5),
}


def fitted(world: World, data: tuple[Any, Any, Any, Any], **options: Any) -> dict[str, Any]:
    """One fit: seconds, mean scores in cross-validation and on the other half."""
    from fastencode import banded_ridge_cv

    X, Y, other_X, other_Y = data
    began = time.perf_counter()
    fit = banded_ridge_cv(X, Y, bands=list(world.widths), alphas=np.logspace(0, 5, 11), cv=world.folds, **options)
    seconds = time.perf_counter() - began
    held = fit.score(other_X, other_Y)
    return {
        "seconds": seconds,
        "cv": float(fit.best_score.mean()),
        "held_out": float(held.mean()),
        "candidates": int(fit.stats["search"]["tried"]),
        "refined": fit.stats.get("refined"),
        "strategy": fit.stats["strategy"],
    }


def one_seed(name: str, world: World, seed: int) -> dict[str, Any]:
    """All searches on one world, random search in no less than the others' time."""
    data, row = world.make(seed), {"problem": name, "seed": seed}
    for search in ("gradient", "auto"):
        row[search] = fitted(world, data, search=search, random_state=seed)
    wanted = max(row[search]["seconds"] for search in ("gradient", "auto"))
    few, one = (fitted(world, data, n_iter=count, random_state=seed)["seconds"] for count in (FIRST, 1))
    each = max((few - one) / (FIRST - 1), 1e-3)
    count = max(1, math.ceil((wanted - one) / each) + 1)
    row["random"] = fitted(world, data, n_iter=count, random_state=seed)
    while row["random"]["seconds"] < wanted:
        count = math.ceil(count * max(1.1, 1.05 * wanted / row["random"]["seconds"]))
        row["random"] = fitted(world, data, n_iter=count, random_state=seed)
    print(
        f"{name} seed {seed}: " + ", ".join(
            f"{search} {row[search]['seconds']:.1f} s ({row[search]['candidates']} candidates) "
            f"cv {row[search]['cv']:.4f} held out {row[search]['held_out']:.4f}" for search in ("gradient", "auto", "random")
        ), flush=True,
    )  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scale", type=float, default=1.0, help="rows, features and voxels times this: a smoke run")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "banded-gradient.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"case": "banded-gradient", **session.surroundings(options.threads), "rows": []}
    kept = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    for name in options.problems:
        world = WORLDS[name]
        size = {"n": int(world.n * options.scale), "voxels": int(world.voxels * options.scale)}
        world = World(**size, widths=tuple(max(2, int(w * options.scale)) for w in world.widths), folds=world.folds)
        with threadpool_limits(options.threads):
            fitted(world, world.make(0), n_iter=1)  # the first fit of a process finds its libraries
            for seed in range(options.seeds):
                known = {"problem": name, "seed": seed, "world": json.loads(json.dumps(vars(world)))}
                row = next((row for row in kept if known.items() <= row.items()), None)
                results["rows"].append(row or {**one_seed(name, world, seed), "world": vars(world)})
                session.write(results, options.out)
    results["summary"] = summary = {}
    for name in options.problems:
        rows = [row for row in results["rows"] if row["problem"] == name]
        for search in ("gradient", "auto"):
            gains = [row[search]["held_out"] - row["random"]["held_out"] for row in rows]
            summary[f"{name}, {search}"] = {"least": min(gains), "median": float(np.median(gains)), "most": max(gains)}
            print(f"{name}: {search} minus random, held out: {min(gains):+.5f} to {max(gains):+.5f}")
    session.write(results, options.out)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
