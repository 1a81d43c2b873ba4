"""How often intervals, tests and answers of contrasts are right on worlds whose truth is known.

    python bench/contrasts.py [--scale 0.1] [--out FILE]

A world is one story of 251 scans that several people hear, and the predictions of a pretrained model, a tuned one and controls
of three seeds. rho is the autocorrelation at lag 1; "alike" is the share of what is not predicted that all responses have in
common; models are each person's own, or the same for all. Nothing is timed. Writes results/contrasts.json and prints one table
for each point:

    intervals    share of .95 intervals of tuned − pretrained that hold the true value: of the blocks of scans of one or four;
                 of eight people, whose true value is that of people in general. "no interval": too few blocks. "people alone"
                 is mean ± t · S / √8; "signed-rank" is the share of p below .05 where the true value is 0
    few people   the same of single numbers of 5 to 10 people, symmetric and skewed (exponential): by both tails
    answers      answers to "tuned is above pretrained" with a control: "yes, no control" is the share without one, and
                 "yes, lax" that of "yes unless the control's own interval lies above 0 and that of tuned − control does not"
    families     share of families of which any answer is "yes" where nothing is true: at .95 each, and by Holm's steps; and the
                 share of true effects that are found beside them
    mixed        standard deviations by components, beside the true ones, and coverage of the mean's interval

Legend: p = people, s = seeds, b = draws.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import session

from fastencode.errors import FastencodeWarning
from fastencode.study.findings.contrasts import Cell, Contrast, Sample, evaluate
from fastencode.study.findings.mixed import summary_rows
from fastencode.study.inference.intervals import over_participants
from fastencode.study.inference.significance import signed_rank

sys.path.insert(0, str(session.HERE.parent / "tests"))
from contrast_cases import world

Rows = list[dict[str, Any]]
UP = {"tuned": 1.0, "pretrained": -1.0}


def rise(name: str = "rise", models: Any = UP, layers: Any = "late", **settings: Any) -> Contrast:
    """ "Tuned is above pretrained"."""
    settings = {"statement": "It rises", "expect": "above"} | settings
    return Contrast(name, "r", models, layers, "region", **settings)


def repeated(scale: float, times: int) -> Iterator[np.random.Generator]:
    """One generator for each world; the same worlds for every setting."""
    return (np.random.default_rng(seed) for seed in range(max(4, round(times * scale))))


def covered(ends: Any, truth: float) -> float:
    """Of those intervals that there are."""
    low, high = np.array(ends).T
    held = (low <= truth) & (truth <= high)
    return float(np.mean(held[np.isfinite(low)]))


def alone(values: np.ndarray) -> tuple[float, float]:
    """mean ± t · S / √n."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def intervals(scale: float) -> Rows:
    rows = []
    for people, rho, alike, models in product((1, 4, 8), (0.6, 0.75, 0.9), (0.3, 0.8), ("own", "same")):
        if people == 1 and (alike, models) != (0.3, "own"):
            continue
        errors, by_people, p = [], [], []
        for rng in repeated(scale, 400):
            measured, truth = world(
                rng,
                {"pretrained": 0.5, "tuned": 0.5},
                people=people,
                rho=rho,
                seeds={"tuned": 2},
                spread=0.05,
                alike=alike,
                one_for_all=models == "same",
            )
            (found,) = evaluate(measured, [rise()], 1)
            true = 0.0 if found.unit == "participants" else float(np.mean(truth["tuned"] - truth["pretrained"]))
            errors.append((found.low - true, found.high - true))
            if found.unit == "participants":
                by_people.append(alone(np.array([*found.by_participant.values()])))
                p.append(found.p_signed_rank)
        row: dict[str, Any] = {
            "people": people,
            "rho": rho,
            "alike": alike,
            "models": models,
            "unit": found.unit,
            "covered": covered(errors, 0.0),
            "no interval": float(np.mean(np.isnan(np.array(errors)[:, 0]))),
        }
        row["people alone"] = covered(by_people, 0.0) if by_people else float("nan")
        row["signed-rank"] = float(np.mean(np.array(p) < 0.05)) if p else float("nan")
        rows.append(row)
    return rows


def few_people(scale: float) -> Rows:
    rows = []
    for n in (5, 6, 8, 10):
        for kind in ("normal", "exponential"):
            ends, p = [], []
            for rng in repeated(scale, 4000):
                values = rng.standard_normal(n) if kind == "normal" else rng.exponential(1.0, n) - 1
                ends.append(over_participants(values, np.zeros((n, 0)), np.full(n, 20.0)).interval())
                p.append(signed_rank(values).p)
            low, high = np.array(ends).T
            rows.append(
                {
                    "people": n,
                    "values": kind,
                    "covered": covered(ends, 0.0),
                    "above 0": float(np.mean(low > 0)),
                    "below 0": float(np.mean(high < 0)),
                    "signed-rank": float(np.mean(np.array(p) < 0.05)),
                }
            )
    return rows


def answers(scale: float) -> Rows:
    rows = []
    worlds = {"nothing": (0.5, 0.5, 0.5), "control alike": (0.5, 0.65, 0.65), "effect": (0.5, 0.65, 0.5)}
    for people in (1, 4, 8):
        for rho in (0.6, 0.9):
            for name, shares in worlds.items():
                given, plain, lax = [], [], []
                for rng in repeated(scale, 300):
                    of = dict(zip(("pretrained", "tuned", "control"), shares, strict=True))
                    measured, _ = world(rng, of, people=people, rho=rho, seeds={"control": 3}, spread=0.05 * (people > 1))
                    found, without = evaluate(measured, [rise(control="control"), rise("without")], 1)
                    given.append(found.answer)
                    plain.append(without.answer == "yes")
                    lax.append(plain[-1] and not (found.control_low > 0 and not found.over_control_low > 0))
                row: dict[str, Any] = {"people": people, "rho": rho, "true": name}
                row |= {answer: given.count(answer) / len(given) for answer in ("yes", "no", "undecided")}
                rows.append(row | {"yes, no control": float(np.mean(plain)), "yes, lax": float(np.mean(lax))})
    return rows


def families(scale: float) -> Rows:
    """One contrast for each layer. "Found" is of effects in the first half of the layers, none in the others."""
    rows = []
    for people in (1, 8):
        for size in (2, 6, 12):
            any_yes: dict[str, list[bool]] = {"each": [], "holm": []}
            power: dict[str, list[float]] = {"each": [], "holm": []}
            for rng in repeated(scale, 200):
                of = {"pretrained": 0.5, "tuned": 0.5, "better": 0.8}
                measured, _ = world(rng, of, people=people, rho=0.7, layers=size, spread=0.02 * (people > 1))
                for rule, family in (("each", None), ("holm", "all")):
                    nothing = [rise(f"{layer}", layers=[layer], family=family) for layer in range(size)]
                    any_yes[rule].append(any(one.answer == "yes" for one in evaluate(measured, nothing, size)))
                    half = [
                        rise(f"{at}", {"better" if at < size // 2 else "tuned": 1, "pretrained": -1}, [at], family=family)
                        for at in range(size)
                    ]
                    found = evaluate(measured, half, size)[: size // 2]
                    power[rule].append(np.mean([one.answer == "yes" for one in found]))
            row: dict[str, Any] = {"people": people, "contrasts": size}
            row |= {f"any yes, {rule}": float(np.mean(some)) for rule, some in any_yes.items()}
            rows.append(row | {f"found, {rule}": float(np.mean(some)) for rule, some in power.items()})
    return rows


def table(rng: np.random.Generator, p: int, s: int, sd: tuple[float, ...]) -> dict[Cell, Sample]:
    """Values whose components have these standard deviations: people, seeds, both, test data (half of its variance shared)."""
    people, seeds, both, test = sd
    values = 0.1 + people * rng.standard_normal((p, 1)) + seeds * rng.standard_normal((1, s)) + both * rng.standard_normal((p, s))

    def of_test(shape: tuple[int, ...]) -> np.ndarray:
        common, own = rng.standard_normal(shape), rng.standard_normal((p, *shape))
        return test * (common + own) / np.sqrt(2)

    errors, draws = of_test(()), of_test((400,))
    # Draws are as spread as 30 units show it.
    draws = draws * np.sqrt(rng.chisquare(29) / 29)
    return {
        Cell("task", "tuned", seed, f"P{who}", 0): Sample(
            values[who, seed] + errors[who], values[who, seed] + draws[who], 30, "speakers"
        )
        for who in range(p)
        for seed in range(s)
    }


def mixed(scale: float) -> Rows:
    rows = []
    contrast = Contrast("task", "task", {"tuned": 1}, "all")
    for p, s, sd in (
        (8, 3, (0.04, 0.0, 0.02, 0.03)),
        (8, 3, (0.04, 0.03, 0.02, 0.03)),
        (4, 3, (0.04, 0.0, 0.02, 0.03)),
        (4, 3, (0.0, 0.0, 0.0, 0.03)),
        (8, 1, (0.04, 0.0, 0.0, 0.03)),
        (1, 3, (0.0, 0.03, 0.0, 0.03)),
        (1, 1, (0.0, 0.0, 0.0, 0.03)),
    ):
        found = [summary_rows(table(rng, p, s, sd), [contrast], 1)[0] for rng in repeated(scale, 1000)]
        row: dict[str, Any] = {"people": p, "seeds": s}
        for name, true in zip(("participants", "seeds", "participants_by_seeds", "test"), sd, strict=True):
            values = np.array([one[f"{name}_sd"] for one in found])
            short = name.replace("participants", "people").replace("_", " ")
            row[f"{short}, true"], row[f"{short}, found"] = true, float(np.sqrt(np.mean(values**2)))
        row["covered"] = covered([(one["low"], one["high"]) for one in found], 0.1)
        rows.append(row)
    return rows


POINTS: dict[str, Callable[[float], Rows]] = {
    "intervals": intervals,
    "few people": few_people,
    "answers": answers,
    "families": families,
    "mixed": mixed,
}


def main() -> None:
    from inference import show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="worlds times this: a smoke run")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "contrasts.json", help="file for the results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FastencodeWarning)
    results: dict[str, Any] = {"scans": 251, "scale": options.scale, **session.surroundings(1)}
    for name, point in POINTS.items():
        results[name] = point(options.scale)
        show(name, results[name])
    session.write(results, options.out)
    print(f"\nwritten: {options.out}")


if __name__ == "__main__":
    main()
