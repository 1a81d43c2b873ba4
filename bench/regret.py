"""What a wrong choice of the plan would cost: every strategy it lists, forced, on every workload."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import numpy as np
import session
from session import Contestant, Failed, Unfinished
from threadpoolctl import threadpool_limits

VOXELS = 2048  # four tiles: enough to time a fit by; the seconds are then scaled to all voxels
SKIPPED = ("loo-float32",)


def run(options: Any, say: Any) -> dict[str, Any]:
    """Rows and features at full size, since the choice depends on them; few voxels."""
    rows = []
    for points in cases.CASES.values():
        for point in points:
            if point.name not in SKIPPED and (options.points is None or point.name in options.points):
                rows.append(_regret(point.scaled(options.scale), options, say))
                say(_line(rows[-1]))
    worst = max((row["regret"] for row in rows if row["regret"] is not None), default=None)
    say(f"largest regret: {worst if worst is None else round(worst, 3)} (at most 1.3 is wanted)")
    return {"voxels_timed": VOXELS, "rows": rows, "largest_regret": worst}


def _regret(case: cases.Case, options: Any, say: Any) -> dict[str, Any]:
    small = replace(case, t=min(case.t, VOXELS))
    with tempfile.TemporaryDirectory(dir=options.tmp, prefix="fastencode-bench-") as name:
        folder = Path(name)
        with threadpool_limits(options.threads):
            cases.write(small, folder)
        session.write(small.fields(), folder / "case.json")
        try:
            chosen = _time(folder, None, options, options.limit, case)
        except (Unfinished, Failed) as error:
            say(f"{case.name}: the plan's own choice: {str(error).splitlines()[0]}")
            return {"name": case.name, "full": case.shape(), "chosen": str(error), "strategies": {}, "regret": None}
        timed: dict[str, Any] = {chosen["strategy"]: chosen}
        for strategy in chosen.pop("candidates"):
            if strategy in timed:
                continue
            # Planned up to four times; what then needs five times as long as the choice is no regret.
            limit = min(options.limit, 4 * (5 * (chosen["plan"] + options.repeats * chosen["fit"]) + 30))
            try:
                timed[strategy] = _time(folder, strategy, options, limit, case)
                timed[strategy].pop("candidates")
            except Unfinished as error:
                timed[strategy] = {"status": str(error)}
            except Failed as error:
                timed[strategy] = {"status": "failed: " + str(error).splitlines()[0]}
    seconds = [row["at_full_size"] for row in timed.values() if "at_full_size" in row]
    return {
        "name": case.name,
        "full": case.shape(),
        "chosen": chosen["strategy"],
        "plan": chosen.pop("says"),
        "strategies": timed,
        "regret": chosen["at_full_size"] / min(seconds),
    }


def _time(folder: Path, strategy: str | None, options: Any, limit: float, case: cases.Case) -> dict[str, Any]:
    """Seconds of planning and fitting with one strategy (None: the plan's choice), and of all voxels by proportion."""
    given = {"threads": options.threads, "precision": options.precision, "replan": strategy, "voxels": case.t}
    share = case.t / min(case.t, VOXELS)
    worker = Contestant(folder, "fastencode, planned", given)
    try:
        prepared = worker.ask("prepare", limit)
        walls = [worker.ask("run", limit)["wall"] for _ in range(1 + options.repeats)][1:]
    finally:
        worker.end()
    fit = float(np.median(walls))
    out = {"strategy": prepared["strategy"], "candidates": prepared["candidates"], "plan": prepared["plan_seconds"], "fit": fit}
    return {**out, "at_full_size": prepared["plan_seconds"] + fit * share, **({} if strategy else {"says": prepared["plan"]})}


def _line(row: dict[str, Any]) -> str:
    if row["regret"] is None:
        return f"{row['name']}: not measured"
    parts = (
        f"{name} {one['at_full_size']:.3g} s" if "at_full_size" in one else f"{name} {one['status']}"
        for name, one in row["strategies"].items()
    )
    return f"{row['name']}: chose {row['chosen']}, {row['regret']:.2f} x the best ({', '.join(parts)})"
