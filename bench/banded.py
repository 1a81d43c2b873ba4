"""Measure banded ridge beside himalaya's random search over kernels, the same weights of bands given to both.

    python bench/banded.py shortclips --weightings 3 --voxels 4000     a workload, cut
    python bench/banded.py sweep        cost against folds, weightings, alphas, bands, voxels
    python bench/banded.py accuracy     every precision against float64 by hand, two bands, one of them off in some weightings

Writes bench/results/banded-<case>.json, the sweep a figure too. Scores of every weighting must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import accuracy as by_hand
import cases
import compare
import numpy as np
import session
from session import Contestant
from threadpoolctl import threadpool_limits

OURS, PEER = "banded", "banded himalaya"
TIES = 1e-6  # scores nearer than this, in units of the variance for squared errors, are ties by the solver's rule


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*cases.BANDED, "sweep", "accuracy"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of both (%(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="timed turns, after the first fit (%(default)s)")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for all fits of a contestant (%(default)g)")
    parser.add_argument("--runs", type=int, help="runs to keep, all rows of each")
    parser.add_argument("--weightings", type=int, help="weights of bands to try")
    parser.add_argument("--voxels", type=int)
    parser.add_argument("--scale", type=float, default=1.0, help="every size times this: a smoke run, not a measurement")
    parser.add_argument("--out", type=Path, help="file for the results")
    return parser.parse_args()


def cut(case: cases.Case, options: argparse.Namespace) -> cases.Case:
    """The slice that was asked for."""
    small = case.scaled(options.scale)
    if options.runs:
        small = replace(small, n=small.n // small.runs * options.runs, runs=options.runs)
    return replace(small, weightings=options.weightings or small.weightings, t=options.voxels or small.t)


def measure(case: cases.Case, options: argparse.Namespace) -> dict[str, Any]:
    """First fits, agreement, then turns."""
    print(f"{case.name}: {case.shape()}, bands {case.widths}, {case.weightings} weightings", flush=True)
    point: dict[str, Any] = {"name": case.name, "run": {**case.shape(), "bands": case.widths, "weightings": case.weightings}}
    with tempfile.TemporaryDirectory(prefix="fastencode-bench-") as name:
        folder = Path(name)
        with threadpool_limits(options.threads):
            cases.write(case, folder)
        session.write(case.fields(), folder / "case.json")
        given = {"threads": options.threads, "slice": case.t, "trial_seconds": options.limit / 4}
        workers = {name: Contestant(folder, name, given) for name in (OURS, PEER)}
        rows: dict[str, dict[str, Any]] = {}
        try:
            for name, worker in workers.items():
                prepared = worker.ask("prepare", options.limit)
                first = worker.ask("run", options.limit, save=str(folder / f"{name}.npz"))
                print(f"  {name}: first fit {first['wall']:.3g} s", flush=True)
                rows[name] = {
                    "prepared": prepared,
                    "first": first["wall"],
                    "walls": [],
                    "peak_bytes": first["memory"]["peak"],
                    "stats": first.get("stats"),
                }
            point["agreement"] = agreement(case, folder)
            for _ in range(options.repeats):
                for name, worker in workers.items():
                    if rows[name]["first"] + sum(rows[name]["walls"]) + rows[name]["first"] > options.limit:
                        continue  # one more fit would take it past the limit: the first one counts
                    turn = worker.ask("run", options.limit)
                    rows[name]["walls"].append(turn["wall"])
                    rows[name]["peak_bytes"] = turn["memory"]["peak"]
        finally:
            for worker in workers.values():
                worker.end()
    for row in rows.values():
        walls = row.pop("walls")
        row["first_fit_only"], row["wall"] = not walls, session.spread(walls or [row["first"]])
    point["contestants"] = rows
    point["times_ours"] = rows[PEER]["wall"]["median"] / rows[OURS]["wall"]["median"]
    print(
        f"  {OURS} {rows[OURS]['wall']['median']:.4g} s, himalaya {rows[PEER]['wall']['median']:.4g} s: "
        f"{point['times_ours']:.3g} x; {point['agreement']}", flush=True,
    )  # fmt: skip
    return point


def agreement(case: cases.Case, folder: Path) -> dict[str, Any]:
    """How near the scores of every weighting and voxel are; stops where they differ and float64 by hand does not side with us."""
    with np.load(folder / f"{OURS}.npz") as ours, np.load(folder / f"{PEER}.npz") as theirs:
        a, b = ours["cv_scores"].astype(np.float64), theirs["cv_scores"].astype(np.float64)
        coef, other = ours["coef"], theirs["coef"]
        same = (a.argmax(axis=0) == b.argmax(axis=0)) & np.isclose(ours["alpha"], theirs["alpha"], rtol=1e-4)
        kept = same[ours["kept"]]
    apart = np.abs(a - b)
    apart_coef = np.linalg.norm((coef - other)[:, kept]) / max(np.linalg.norm(coef[:, kept]), 1e-300)
    found: dict[str, Any] = {
        "largest_score_difference": float(apart.max()),
        "same_choice": float(same.mean()),
        "coef_difference": float(apart_coef),
    }
    if apart.max() > 1e-3:
        i, v = np.unravel_index(apart.argmax(), apart.shape)
        X, Y = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "Y.npy", mmap_mode="r")
        scaled = X * np.sqrt(np.repeat(case.gammas[i], case.widths)).astype(np.float32)
        by_hand = compare.naive(case, scaled, np.asarray(Y[:, [v]]), 2e13)
        if by_hand is None or len(by_hand[0]) < len(case.grid):
            raise SystemExit(f"voxel {v} of weighting {i} scores {a[i, v]:.6g} here and {b[i, v]:.6g} there: nothing was timed")
        truth = by_hand[1].max()
        found |= {"naive float64": float(truth), "ours_there": float(a[i, v]), "himalaya_there": float(b[i, v])}
        if abs(a[i, v] - truth) > 1e-4:
            raise SystemExit(f"voxel {v} of weighting {i}: {found}; nothing was timed")
    return found


def accuracy(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Scores of every weighting at its best penalty, and choices, beside one solve for each weighting, fold and penalty."""
    from fastencode import banded_ridge_cv

    rows = []
    for name, X, Y, alphas, scoring in by_hand.problems(options.scale):
        half, folds = X.shape[1] // 2, [(np.setdiff1d(np.arange(len(X)), t), t) for t in np.array_split(np.arange(len(X)), 5)]
        widths, gammas = [half, X.shape[1] - half], np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.02, 0.98]])
        size = Y.var(axis=0) if scoring == "neg_mean_squared_error" else np.ones(Y.shape[1])
        for dtype in ("float64", "float32"):
            x, y = X.astype(dtype), Y.astype(dtype)
            wide = [x.astype(np.float64) * np.sqrt(np.repeat(gamma, widths)) for gamma in gammas]
            every = [by_hand.by_hand(one, y.astype(np.float64), alphas, folds, scoring)[0] for one in wide]
            truth = np.stack([np.take_along_axis(one, by_hand.choose(one, TIES * size)[None], 0)[0] for one in every])
            for precision in ("exact",) if dtype == "float64" else ("exact", "fast"):
                fit = banded_ridge_cv(
                    x, y, bands=widths, gammas=gammas, alphas=alphas, cv=folds, scoring=scoring, precision=precision
                )
                apart = np.abs(fit.cv_scores - truth) / size / (1 + np.abs(truth / size))
                found = truth[np.argmax((gammas.T[:, :, None] == fit.gammas[:, None]).all(axis=0), axis=0), np.arange(len(size))]
                missed = (truth.max(axis=0) - found) / size
                row = {"problem": name, "scoring": scoring, "dtype": dtype, "precision": precision}
                row |= {"largest_score_difference": float(apart.max()), "largest_score_missed": float(missed.max())}
                rows.append(row | {"best_weighting": float((missed <= 2 * TIES).mean())})
                print(
                    f"{name:22} {scoring:24} {dtype} {precision:6} scores within {apart.max():.1e}, a best weighting on "
                    f"{rows[-1]['best_weighting']:.2%}, at most {missed.max():.1e} missed", flush=True,
                )  # fmt: skip
    return rows


def draw(results: dict[str, Any], path: Path) -> None:
    """One panel for each thing that grows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sweeps = list(results["sweeps"].items())
    figure, axes = plt.subplots(1, len(sweeps), figsize=(3 * len(sweeps), 3), sharey=True, layout="constrained")
    for axis, (name, points) in zip(axes, sweeps, strict=True):
        at = [int(point["name"].rpartition("-")[2]) for point in points]
        for who, label, style in ((PEER, "himalaya", "s--"), (OURS, "fastencode", "o-")):
            axis.loglog(at, [point["contestants"][who]["wall"]["median"] for point in points], style, label=label)
        axis.set_xlabel(name)
        axis.set_xticks(at, [str(x) for x in at])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    options = arguments()
    results: dict[str, Any] = {"case": f"banded-{options.case}", **session.surroundings(options.threads)}
    path = options.out or session.RESULTS / f"banded-{options.case}.json"
    if options.case == "sweep":
        results["sweeps"] = sweeps = {name: [] for name in cases.BANDED_SWEEP}
        for name, some in cases.BANDED_SWEEP.items():
            for case in some:
                sweeps[name].append(measure(cut(case, options), options))
                session.write(results, path)  # after every point: the next may be the last there is time for
        draw(results, path.with_suffix(".png"))
    elif options.case == "accuracy":
        warnings.simplefilter("ignore")
        with threadpool_limits(options.threads):
            results["rows"] = accuracy(options)
    else:
        full = cases.BANDED[options.case]
        results["full"] = {**full.shape(), "bands": full.widths, "weightings": full.weightings}
        results |= measure(cut(full, options), options)
    session.write(results, path)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
