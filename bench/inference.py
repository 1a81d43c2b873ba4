"""How often intervals, p-values, masks and answers are right on worlds whose truth is known, by the rules of before and by ours.

    python bench/inference.py [--scale 0.1] [--out FILE]

Series are autoregressive: rho^k is their autocorrelation at lag k. Nothing is timed. Writes results/inference.json and prints one
table for each point:

    intervals       share of .95 intervals of a correlation, and of a difference of two, that hold the true value
    means           share of .95 intervals of a mean over eight participants, whose blocks differ in length
    permutation     share of p-values at most .05 where nothing is predicted
    ceiling mask    share of voxels of pure noise that count as having a ceiling
    normalized      mean r / ceiling of a region over what it is without noise, where voxels are chosen by their ceiling
    short stories   the same of four test stories of 60 to 100 scans together, of all voxels whose ceiling is above 0
    "stays at 0"    answers where the truth is 0, and where it is .035, by how many scans there are
    control         blocks that hold rows of two stories; pairs of participants whose targets have one order
    too few scans   what 100 scans (Alice) are given as an interval

The rules of before: percentiles of a bootstrap of blocks of 10 scans; permuted blocks of 10 scans; ceiling > .05; the mean of the
voxels' r / ceiling; the mean of the stories' ceilings; "held" unless the interval lies above 0; one order of joined stories for
all participants; plain means over participants of their draws.

Legend: t = time, v = voxels.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import session

from fastencode.errors import FastencodeWarning
from fastencode.study.brains.ceilings import joint_ceiling, noise_ceiling, signal_share, significant_ceilings, split_repeats
from fastencode.study.findings.verdicts import Verdict
from fastencode.study.inference.blocks import interval, mean_draws
from fastencode.study.inference.significance import block_permutation_pvalues, bootstrap_region_scores
from fastencode.timing.clean import zscore
from fastencode.tune.targets import permute_blocks

SCANS, OLD_BLOCK, MASK, MARGIN = 251, 10, 0.05, 0.02
Rows = list[dict[str, Any]]


def series(rng: np.random.Generator, shape: tuple[int, ...], rho: float) -> np.ndarray:
    """Autoregressive series of variance 1; time is the axis before the last."""
    noise = np.sqrt(1 - rho**2) * rng.standard_normal((*shape[:-2], shape[-2] + 200, shape[-1]))
    return scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=-2)[..., 200:, :]


def world(rng: np.random.Generator, n: int, n_voxels: int, rho: float, truth: tuple[float, ...]) -> tuple[Any, list[Any]]:
    """Responses, and signals that correlate with them as ``truth`` says."""
    signals = [series(rng, (n, n_voxels), rho) for _ in truth]
    rest = np.sqrt(1 - sum(t**2 for t in truth)) * series(rng, (n, n_voxels), rho)
    return sum(t * s for t, s in zip(truth, signals, strict=True)) + rest, signals


def both_intervals(Y: Any, signals: Any, regions: dict[str, Any], seed: int, contrast: bool) -> dict[str, Any]:
    """Lower and upper ends by the percentiles of blocks of 10, and by ours."""
    out = {}
    for name, block in (("before", OLD_BLOCK), ("now", None)):
        found = bootstrap_region_scores(Y, signals, regions, block=block, n_boots=400, random_state=seed)
        found = found.difference(0, 1) if contrast else found
        out[name] = np.percentile(found.draws, [2.5, 97.5], axis=0) if block else found.interval()
    return out


def intervals(scale: float) -> Rows:
    truth, rows = (0.5, 0.4), []
    for rho in (0.0, 0.5, 0.7, 0.9):
        rng, hits = np.random.default_rng(1), {}
        for seed in range(max(4, round(150 * scale))):
            Y, signals = world(rng, SCANS, 8, rho, truth)
            regions = {str(v): [v] for v in range(8)}
            for kind, exact in (("r", np.array(truth)[:, None]), ("difference", truth[0] - truth[1])):
                for rule, (low, high) in both_intervals(Y, signals, regions, seed, kind == "difference").items():
                    hits.setdefault(f"{kind}, {rule}", []).append(((low <= exact) & (exact <= high)).mean())
        rows.append({"rho": rho, **{name: float(np.mean(found)) for name, found in hits.items()}})
    return rows


def means(scale: float) -> Rows:
    """Of what is not predicted, a part is alike in all participants, as what a story evokes is; the rest has each's own rho."""
    rows, n_voxels = [], 6
    for low, high, alike in ((0.6, 0.6, 0.8), (0.45, 0.7, 0.8), (0.2, 0.85, 0.6), (0.2, 0.85, 0.3), (0.2, 0.85, 0.0)):
        rng, r, ends, longest = np.random.default_rng(1), [], {"before": [], "now": []}, []
        for _ in range(max(4, round(300 * scale))):
            signal, common = (series(rng, (300, 1), 0.6) for _ in range(2))
            people = []
            for _ in range(8):
                own = series(rng, (300, n_voxels), rng.uniform(low, high))
                Y = 0.4 * signal + np.sqrt(0.84) * (np.sqrt(alike) * common + np.sqrt(1 - alike) * own)
                predicted, regions = [np.repeat(signal, n_voxels, axis=1)], {"all": np.arange(n_voxels)}
                people.append(bootstrap_region_scores(Y, predicted, regions, n_boots=300, random_state=0))
            draws, n_blocks = np.array([one.draws[:, 0, 0] for one in people]), [one.n_blocks for one in people]
            r.append(np.mean([one.r[0, 0] for one in people]))
            longest.append(max(n_blocks) / min(n_blocks))
            for rule, drawn in (("before", draws.mean(axis=0)), ("now", mean_draws(draws, n_blocks))):
                ends[rule].append(interval(r[-1], drawn, min(n_blocks), correlation=True))
        row: dict[str, Any] = {"rho": f"{low} to {high}", "alike": alike, "longest / shortest": float(np.mean(longest))}
        for rule, found in ends.items():
            lower, upper = np.array(found).T
            row[rule] = float(np.mean((lower <= np.mean(r)) & (np.mean(r) <= upper)))
        rows.append(row)
    return rows


def permutation(scale: float) -> Rows:
    rows = []
    for rho in (0.0, 0.7, 0.9, 0.95):
        rng, found = np.random.default_rng(0), {"before": [], "now": []}
        for seed in range(max(2, round(12 * scale))):
            Y, P = (series(rng, (SCANS, 250), rho) for _ in range(2))
            found["now"].append(block_permutation_pvalues(Y, P, n_permutations=199, random_state=seed))
            found["before"].append(permuted_without_turns(Y, P, 199, np.random.default_rng(seed)))
        rows.append({"rho": rho, **{rule: float(np.mean(np.array(p) <= 0.05)) for rule, p in found.items()}})
    return rows


def permuted_without_turns(Y: Any, P: Any, count: int, rng: np.random.Generator) -> Any:
    """Blocks of 10 scans, permuted; whole blocks only."""
    n = len(Y) // OLD_BLOCK * OLD_BLOCK
    y, p = ((A[:n] - A[:n].mean(axis=0)) / A[:n].std(axis=0) for A in (Y, P))
    measured, reached = (y * p).sum(axis=0), np.zeros(y.shape[1])
    for _ in range(count):
        order = np.arange(n).reshape(-1, OLD_BLOCK)[rng.permutation(n // OLD_BLOCK)].ravel()
        reached += (y[order] * p).sum(axis=0) >= measured
    return (1 + reached) / (1 + count)


def ceiling_mask(scale: float) -> Rows:
    rows, n_voxels = [], max(200, round(4000 * scale))
    for n_repeats in (2, 5, 10):
        for rho in (0.0, 0.9):
            repeats = series(np.random.default_rng(0), (n_repeats, SCANS, n_voxels), rho)
            before = noise_ceiling(repeats) > MASK
            now = before & significant_ceilings(repeats)
            rows.append({"repeats": n_repeats, "rho": rho, "before": float(before.mean()), "now": float(now.mean())})
    return rows


def normalized(scale: float) -> Rows:
    """A model that predicts the signal up to a correlation of .6 with it, so r / ceiling is .6. In "halves", voxels are chosen by
    every other repeat, and their scores and ceilings are those of the others."""
    rows, n_voxels, wanted = [], max(200, round(3000 * scale)), 0.6
    first, second = split_repeats(6)
    for power in (0.02, 0.05, 0.2, 1.0):
        rng = np.random.default_rng(0)
        signal = series(rng, (SCANS, n_voxels), 0.6)
        repeats = np.sqrt(power) * signal + series(rng, (6, SCANS, n_voxels), 0.6)
        predicted = wanted * signal + np.sqrt(1 - wanted**2) * series(rng, (SCANS, n_voxels), 0.6)

        def correlation(some: Any, predicted: Any = predicted) -> Any:
            z, p = (A - A.mean(axis=0) for A in (some.mean(axis=0), predicted))
            return (z * p).sum(axis=0) / np.sqrt((z**2).sum(axis=0) * (p**2).sum(axis=0))

        r, ceiling = correlation(repeats), noise_ceiling(repeats)
        old = ceiling > MASK
        new, half = ((noise_ceiling(some) > MASK) & significant_ceilings(some) for some in (repeats, repeats[first]))
        row: dict[str, Any] = {"signal power": power, "before": float((r[old] / ceiling[old]).mean() / wanted)}
        others = correlation(repeats[second]), noise_ceiling(repeats[second])
        for name, chosen, (score, best) in (("now", new, (r, ceiling)), ("halves", half, others)):
            row[name] = float(score[chosen].mean() / best[chosen].mean() / wanted) if chosen.any() else float("nan")
        rows.append(row | {f"voxels {name}": int(some.sum()) for name, some in (("before", old), ("now", new), ("halves", half))})
    return rows


def short_stories(scale: float) -> Rows:
    """Five repeats; r / ceiling is .6 as above. "true" divides by the ceiling that is known. Last, stories of unlike signal."""
    rows, n_voxels, wanted, lengths = [], max(200, round(3000 * scale)), 0.6, (60, 80, 100, 70)
    runs = np.repeat(np.arange(len(lengths)), lengths)
    for rho in (0.5, 0.7, 0.9):
        for powers in (*((power,) * 4 for power in (0.02, 0.05, 0.1, 0.2, 1.0)), (0.05, 0.2, 0.05, 0.2)):
            rng, heard, predicted = np.random.default_rng(0), [], []
            for n, power in zip(lengths, powers, strict=True):
                signal = series(rng, (n, n_voxels), rho)
                heard.append(np.sqrt(power) * signal + series(rng, (5, n, n_voxels), rho))
                predicted.append(wanted * signal + np.sqrt(1 - wanted**2) * series(rng, (n, n_voxels), rho))
            z, p = (zscore(np.vstack(of), runs) for of in ([repeats.mean(axis=0) for repeats in heard], predicted))
            r = (z * p).mean(axis=0)
            ceilings = {
                "before": np.average([noise_ceiling(repeats) for repeats in heard], axis=0, weights=lengths),
                "now": joint_ceiling([signal_share(repeats) for repeats in heard]),
            }
            row: dict[str, Any] = {"rho": rho, "signal power": ", ".join(map(str, sorted({*powers})))}
            for name, ceiling in ceilings.items():
                counted = ceiling > 0
                row[name] = float(r[counted].mean() / ceiling[counted].mean() / wanted)
                row[f"voxels {name}"] = int(counted.sum())
            best = np.average([np.sqrt(power / (power + 1 / 5)) for power in powers], weights=lengths)
            rows.append(row | {"true": float(r.mean() / best / wanted)})
    return rows


def stays_at_zero(scale: float) -> Rows:
    """A difference of two correlations, averaged over 40 voxels; half of their variance is noise that all share."""
    rows = []
    for n in (100, SCANS, 1000):
        for effect in (0.0, 0.05):
            rng, answers = np.random.default_rng(2), []
            for seed in range(max(4, round(100 * scale))):
                Y, signals = world(rng, n, 40, 0.5, (0.3 + effect, 0.3))
                Y = Y + series(rng, (n, 1), 0.5)
                ends = both_intervals(Y, signals, {"all": np.arange(40)}, seed, True)
                measured = float(ends["now"].mean())
                verdict = Verdict.within("stays at 0", (measured, *map(float, ends["now"][:, 0, 0])), MARGIN)
                answers.append((float(ends["before"][0, 0, 0]) <= 0, verdict.answer))
            row: dict[str, Any] = {"scans": n, "truth": effect / 2**0.5}
            row["before, held"] = float(np.mean([held for held, _ in answers]))
            row |= {one: float(np.mean([found == one for _, found in answers])) for one in ("yes", "no", "undecided")}
            rows.append(row)
    return rows


def control(scale: float) -> Rows:
    del scale
    stories = [340, 251, 412, 298, 365]
    story_of = np.repeat(np.arange(len(stories)), stories)
    joined = np.arange(sum(stories) // 15 * 15).reshape(-1, 15)  # the order of before cut the joined rows
    orders = [permute_blocks(stories, rng=np.random.default_rng(who)) for who in range(8)]
    starts = np.concatenate([np.arange(stop - n, stop - 14, 15) for n, stop in zip(stories, np.cumsum(stories), strict=True)])
    crossing = [np.ptp(story_of[order[start : start + 15]]) > 0 for order in orders for start in starts]
    pairs = [(a, b) for a in range(8) for b in range(a)]
    same = float(np.mean([np.mean(orders[a] == orders[b]) for a, b in pairs]))
    return [
        {
            "rule": "before",
            "blocks of two stories": float((np.ptp(story_of[joined], axis=1) > 0).mean()),
            "rows in one order": 1.0,
        },
        {"rule": "now", "blocks of two stories": float(np.mean(crossing)), "rows in one order": same},
    ]


def too_few(scale: float) -> Rows:
    del scale
    rows = []
    for rho in (0.5, 0.8, 0.95):
        rng = np.random.default_rng(3)
        Y, signals = world(rng, 100, 8, rho, (0.4, 0.0))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", FastencodeWarning)
            found = bootstrap_region_scores(Y, signals, {"all": np.arange(8)}, n_boots=200, random_state=0)
        low, high = found.interval()[:, 0, 0]
        rows.append({"rho": rho, "block": found.block, "low": float(low), "high": float(high), "warned": bool(said)})
    return rows


POINTS: dict[str, Callable[[float], Rows]] = {
    "intervals": intervals,
    "means": means,
    "permutation": permutation,
    "ceiling mask": ceiling_mask,
    "normalized": normalized,
    "short stories": short_stories,
    '"stays at 0"': stays_at_zero,
    "control": control,
    "too few scans": too_few,
}


def show(name: str, rows: Rows) -> None:
    """One table, as text."""
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(rows[0])]
    print(f"\n{name}")
    for line in [list(rows[0]), *cells]:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="worlds and voxels times this: a smoke run")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "inference.json", help="file for the results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FastencodeWarning)
    results: dict[str, Any] = {"scans": SCANS, "scale": options.scale, **session.surroundings(1)}
    for name, point in POINTS.items():
        results[name] = point(options.scale)
        show(name, results[name])
    session.write(results, options.out)
    print(f"\nwritten: {options.out}")


if __name__ == "__main__":
    main()
