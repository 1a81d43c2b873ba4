"""One point of one case: agreement first, then the contestants by turns."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import cases
import compare
import numpy as np
import psutil
import session
from compare import Outcome
from session import Contestant, Failed, Unfinished
from threadpoolctl import threadpool_limits

Rows = dict[str, dict[str, Any]]
OURS, PLANNED, PEAK = "fastencode", "fastencode, planned", "peak"


class Disagreement(SystemExit):
    """Contestants that do not find the same thing are not worth timing."""


def contestants(case: cases.Case, options: Any) -> dict[str, dict[str, Any]]:
    """Name → options of every contestant of a case."""
    smallest = min(6000, max(1, case.t))
    common = {"threads": options.threads, "slice": smallest, "trial_seconds": min(300.0, options.limit / 4)}
    device = {} if options.device == "cpu" else {"device": options.device}
    chosen = {name: {**common, **device, "precision": options.precision} for name in (OURS, PLANNED)}
    for peer in options.against:
        if peer not in case.peers:
            continue
        if peer == "himalaya" and options.device == "cuda":
            for backend in ("torch_cuda", "cupy"):
                chosen[f"himalaya, {backend}"] = {**common, **device, "backend": backend}
        else:
            chosen[peer] = common
    return {**chosen, PEAK: {**common, **device}}


def measure(full: cases.Case, options: Any, say: Any) -> dict[str, Any]:
    """Everything about one point; raises ``Disagreement`` if contestants differ."""
    peers = tuple(peer for peer in options.against if peer in full.peers)
    case = full.scaled(options.scale)
    cut = f"every size times {options.scale:g}" if options.scale != 1 else "full size"
    if options.scale == 1 and not options.full:
        case, cut = cases.cut(case, peers, options.limit, options.threads, psutil.virtual_memory().total / 2)
    point: dict[str, Any] = {"name": full.name, "full": full.shape(), "run": case.shape(), "cut": cut, "case": case.fields()}
    say(f"\n{case.name}: {case.shape()}, {case.dtype} ({cut})")
    workers: dict[str, Contestant] = {}
    with tempfile.TemporaryDirectory(dir=options.tmp, prefix="fastencode-bench-") as name:
        folder = Path(name)
        with threadpool_limits(options.threads):
            X_path, Y_path = cases.write(case, folder)
        session.write(case.fields(), folder / "case.json")
        try:
            point["contestants"] = rows = _prepared(case, folder, options, workers, say)
            X, Y = np.load(X_path, mmap_mode="r"), np.load(Y_path, mmap_mode="r")
            point["agreement"] = _agreement(case, folder, X, Y, rows, say)
            _by_turns(workers, rows, options, say)
        finally:
            for worker in workers.values():
                worker.end()
    _finish(point)
    return point


def _prepared(case: cases.Case, folder: Path, options: Any, workers: dict[str, Contestant], say: Any) -> Rows:
    """Start every contestant, let it prepare and fit once; that first fit warms it up and is what agreement is judged by."""
    rows: Rows = {}
    for number, (name, given) in enumerate(contestants(case, options).items()):
        row: dict[str, Any] = {"status": "finished", "wall": [], "cpu": []}
        rows[name] = row
        worker = workers[name] = Contestant(folder, name, given)
        limit = max(options.limit, 120.0) if name == PEAK else options.limit
        try:
            row["prepared"] = worker.ask("prepare", limit)
            say(f"  {name}: {row['prepared'].get('setting') or 'ready'}, first fit ...", end=" ")
            first = worker.ask("run", limit, save=str(folder / f"{number}.npz"))
            row["file"], row["first"], row["last"], row["memory"] = f"{number}.npz", first, first, [first["memory"]]
            say(f"{first['wall']:.3g} s")
        except Unfinished as error:
            row["status"] = str(error)
        except Failed as error:
            if name in (OURS, PLANNED, PEAK):
                raise SystemExit(f"{name} failed:\n{error}") from error
            row["status"] = "failed: " + str(error).splitlines()[0]
            say(f"  {error}")
        if row["status"] != "finished":
            worker.end()
            say(f"  {name}: {row['status']}")
    return rows


def _outcome(path: Path) -> Outcome:
    with np.load(path) as file:
        kept = {"kept": file["kept"]}
        return Outcome(file["alpha"], file["score"], file["coef"], file.get("cv_scores"), kept)


def _agreement(case: cases.Case, folder: Path, X: Any, Y: Any, rows: Rows, say: Any) -> dict[str, Any]:
    """Ours against every peer and against float64 by hand; stops the run where they differ.

    Except where float64 by hand says that only the peer is off, at the voxel where we differ most: that is said, and it is timed.
    """
    if rows[OURS]["status"] != "finished":
        return {}
    ours = _outcome(folder / rows[OURS]["file"])
    assert ours.cv_scores is not None
    found: dict[str, Any] = {}
    wrong: list[str] = []
    doubtful: dict[str, tuple[Outcome, list[str]]] = {}
    for name, row in rows.items():
        if name in (OURS, PEAK) or row["status"] != "finished":
            continue
        theirs = _outcome(folder / row["file"])
        found[name], words = compare.disagreement(case, ours, theirs)
        if words:
            doubtful[name] = theirs, [f"{name}: {line}" for line in words]
    few = np.unique([*np.linspace(0, case.t - 1, 8).astype(int), *(found[name]["worst_voxel"] for name in doubtful)])
    by_hand = compare.naive(case, np.asarray(X), np.asarray(Y[:, few]), 2e13 if doubtful else 3e12)
    if by_hand is None:
        found["naive float64"] = "too many operations at this size"
    else:
        a, scores = by_hand
        apart = np.abs(ours.cv_scores[np.ix_(a, few)] - scores) / np.maximum(1, np.abs(scores))
        most = 1e-3 if case.dtype == "float32" else 1e-7
        found["naive float64"] = {"voxels": len(few), "alphas": len(a), "largest_score_difference": float(apart.max())}
        if not apart.max() <= most:
            i, v = np.unravel_index(apart.argmax(), apart.shape)
            wrong.append(
                f"naive float64: voxel {few[v]} at penalty {case.grid[a[i]]:.4g} scores {scores[i, v]:.8g}, and we say "
                f"{ours.cv_scores[a[i], few[v]]:.8g} (difference of at most {most:g} was wanted)"
            )
        for name, (theirs, _) in doubtful.items():
            off = np.abs(theirs.score[few] - scores.max(axis=0)) / np.maximum(1, np.abs(scores.max(axis=0)))
            if len(a) == len(case.grid) and apart.max() <= 1e-5 and off.max() > 10 * max(apart.max(), 1e-5):
                found[name]["off_from_naive_float64"] = float(off.max())
    for name, (_, words) in doubtful.items():
        if "off_from_naive_float64" not in found[name]:
            wrong += words
    if wrong:
        raise Disagreement(f"{case.name}: the contestants do not agree, so nothing was timed:\n  " + "\n  ".join(wrong))
    off = {name: numbers["off_from_naive_float64"] for name, numbers in found.items() if "off_from_naive_float64" in numbers}
    for name, value in off.items():
        say(f"  {name} is off by {value:.2g} in {case.dtype}, from float64 by hand where we are not; it is timed all the same")
    say(f"  {'the others' if off else 'all'} agree: " + "; ".join(f"{name} {_short(numbers)}" for name, numbers in found.items()))
    return found


def _short(numbers: Any) -> str:
    if not isinstance(numbers, dict):
        return str(numbers)
    alike = f"{numbers['same_choice']:.2%} same penalty, " if "same_choice" in numbers else ""
    return f"{alike}scores within {numbers['largest_score_difference']:.1e}"


def _by_turns(workers: dict[str, Contestant], rows: Rows, options: Any, say: Any) -> None:
    """A B C A B C …; a contestant whose next turn would take it past the limit in all stands back, and its first fit counts."""
    for turn in range(options.repeats):
        for name, row in rows.items():
            if row["status"] != "finished":
                continue
            spent = row["first"]["wall"] + sum(row["wall"])
            if spent + row["last"]["wall"] > options.limit:
                continue
            try:
                answer = workers[name].ask("run", options.limit)
            except (Unfinished, Failed) as error:
                row["status"] = str(error).splitlines()[0]
                continue
            row["wall"].append(answer["wall"])
            row["cpu"].append(answer["cpu"])
            row["memory"].append(answer["memory"])
            row["last"] = answer
            if name == PEAK:
                row.setdefault("rates", []).append(answer["gflops"])
        say(f"  turn {turn + 1} of {options.repeats} done at {time.strftime('%H:%M:%S')}")


def operations(stats: dict[str, Any]) -> dict[str, float]:
    """Operations that the plan counted, by part; parts of parts are added up."""

    def total(value: Any) -> float:
        return sum(map(total, value.values())) if isinstance(value, dict) else float(value)

    return {name: total(value) for name, value in stats["operations"].items()}


def _finish(point: dict[str, Any]) -> None:
    """From lists to medians, ratios and rates; what is of no more use goes."""
    rows, run = point["contestants"], point["run"]
    peak_row = rows.pop(PEAK)
    rates = {shape: max(turn[shape] for turn in [peak_row["first"]["gflops"], *peak_row.get("rates", [])])
             for shape in peak_row["first"]["gflops"]}  # fmt: skip
    point["sgemm_peak"] = {"gflops": max(rates.values()), "by_shape": rates}
    for name, row in rows.items():
        row.pop("file", None)
        first, last = row.pop("first", None), row.pop("last", None)
        if first is None:
            row.pop("wall"), row.pop("cpu")
            continue
        row["warmed_up"] = bool(row["wall"])
        row["first_wall"] = first["wall"]
        row["wall"], row["cpu"] = session.spread(row["wall"] or [first["wall"]]), session.spread(row["cpu"] or [first["cpu"]])
        memory = row.pop("memory")
        row["peak_bytes"] = max(m["peak"] for m in memory)
        row["peak_bytes_without_files"] = max(m["peak_without_files"] or 0 for m in memory) or None
        row["data_bytes"] = np.dtype(point["case"]["dtype"]).itemsize * run["n"] * (run["p"] + run["t"])
        row["gpu_peak_bytes"] = last["gpu"] or None
        if "stats" in last:
            stats, parts = last["stats"], operations(last["stats"])
            if name == PLANNED:
                parts.pop("plan", None)
            rate = 1e-9 * sum(parts.values()) / row["wall"]["median"]
            row |= {"operations": parts, "gflops": rate, "share_of_peak": rate / point["sgemm_peak"]["gflops"], "stats": stats}
    ours = rows[OURS].get("wall")
    if isinstance(ours, dict):
        for row in rows.values():
            if isinstance(row.get("wall"), dict):
                row["times_ours"] = row["wall"]["median"] / ours["median"]
    point["plan"] = rows[PLANNED].get("prepared", {}).get("plan")


def table(point: dict[str, Any]) -> str:
    """A point as lines of text."""
    run, rows = point["run"], point["contestants"]
    lines = [
        f"{point['name']}: {run['n']} x {run['p']} features, {run['t']} voxels, {run['folds']} folds, {run['alphas']} penalties, "
        f"{point['case']['dtype']}; {point['cut']}; sgemm peak {point['sgemm_peak']['gflops']:.0f} GFLOP/s",
        f"  {'':<22}{'wall s':>10}{'quartiles':>20}{'cpu s':>10}{'peak GB':>9}{'GFLOP/s':>9}{'of peak':>8}{'times ours':>11}",
    ]
    for name, row in rows.items():
        if not isinstance(row.get("wall"), dict):
            lines.append(f"  {name:<22}{row['status']}")
            continue
        wall = row["wall"]
        rate = f"{row['gflops']:>9.0f}{row['share_of_peak']:>8.0%}" if "gflops" in row else f"{'':>17}"
        quartiles = f"{wall['q25']:.4g} – {wall['q75']:.4g}"
        note = "" if row["warmed_up"] else "  first fit only"
        lines.append(
            f"  {name:<22}{wall['median']:>10.4g}{quartiles:>20}{row['cpu']['median']:>10.4g}{row['peak_bytes'] / 1e9:>9.2f}"
            f"{rate}{row.get('times_ours', float('nan')):>11.2f}{note}"
        )
    return "\n".join(lines)
