"""Time this checkout beside another one, before a change and after it: the same cases, by turns, one process each.

    git worktree add ../before COMMIT && (cd ../before && python setup.py build_ext --inplace && make types)
    python bench/turns.py ../before himalaya huth loo-float32 folds-12 banded-speech

Both find the same thing, or nothing is timed: the same penalties on 99.9 % of voxels, scores and weights to rounding. Writes
bench/results/turns.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import numpy as np
import session
from compare import SAME_CHOICE

HERE = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout, its kernels compiled in place")
    parser.add_argument("case", nargs="+", help="points of bench/run.py's cases, or banded-NAME for those of bench/banded.py")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of both (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns, after the first fit (%(default)s)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one fit (%(default)g)")
    parser.add_argument("--voxels", type=int, help="voxels of every case, if not all")
    parser.add_argument("--runs", type=int, default=8, help="runs that banded cases keep (%(default)s)")
    parser.add_argument("--weightings", type=int, default=2, help="weightings of banded cases (%(default)s)")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "turns.json")
    return parser.parse_args()


def find(name: str, options: argparse.Namespace) -> tuple[cases.Case, str]:
    """A case by name, cut, and which contestant runs it."""
    kind, _, rest = name.partition("-")
    if kind == "banded":
        case = cases.BANDED[rest]
        case = replace(case, n=case.n // case.runs * options.runs, runs=options.runs, weightings=options.weightings)
        return replace(case, t=options.voxels or 2000), "banded"
    for points in cases.CASES.values():
        for point in points:
            if point.name == name:
                return replace(point, t=options.voxels or point.t), "fastencode"
    raise SystemExit(f"no case is named {name!r}")


def agree(folder: Path) -> dict[str, float]:
    """How far what both found is apart; raises where it is too far."""
    one, other = (np.load(folder / f"{which}.npz") for which in ("before", "after"))
    same = one["alpha"] == other["alpha"]
    kept = same[one["kept"]]
    size = np.abs(other["coef"]).max()
    found = {
        "same_penalty": float(same.mean()),
        "score": float(np.abs(one["score"] - other["score"]).max()),
        "coef": float(np.abs(one["coef"][:, kept] - other["coef"][:, kept]).max() / size),
    }
    if found["same_penalty"] < SAME_CHOICE or found["score"] > 1e-5 or found["coef"] > 1e-4:
        raise SystemExit(f"they do not find the same: {found}")
    return found


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both, and their ratio."""
    case, contestant = find(name, options)
    print(f"{name}: {case.shape()}", flush=True)
    given = {"threads": options.threads, "precision": "exact", "device": "cpu"}
    with tempfile.TemporaryDirectory(prefix="fastencode-bench-") as made:
        folder = Path(made)
        (folder / "case.json").write_text(json.dumps(case.fields()), encoding="utf-8")
        cases.write(case, folder)
        roots = {"before": options.before.resolve(), "after": HERE}
        workers = {which: session.Contestant(folder, contestant, given, root) for which, root in roots.items()}
        walls: dict[str, list[float]] = {which: [] for which in workers}
        try:
            for which, worker in workers.items():
                worker.ask("prepare", options.limit)
                worker.ask("run", options.limit, save=str(folder / f"{which}.npz"))
            agreement = agree(folder)
            for turn in range(options.repeats):
                for which in ("before", "after") if turn % 2 == 0 else ("after", "before"):
                    walls[which].append(workers[which].ask("run", options.limit)["wall"])
        finally:
            for worker in workers.values():
                worker.end()
    ratios = [after / before for before, after in zip(walls["before"], walls["after"], strict=True)]
    point = {"case": name, **case.shape(), "agreement": agreement, "ratio": session.spread(ratios)}
    point |= {which: session.spread(values) for which, values in walls.items()}
    before, after = point["before"]["median"], point["after"]["median"]
    each = point["ratio"]["median"]
    print(f"  before {before:.3g} s, after {after:.3g} s: {after / before:.3f} x; median of the ratios {each:.3f}")
    return point


def main() -> None:
    options = arguments()
    results = {**session.surroundings(options.threads), "before": session.commit(options.before), "points": []}
    for name in options.case:
        results["points"].append(measure(name, options))
        session.write(results, options.out)


if __name__ == "__main__":
    main()
