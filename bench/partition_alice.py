"""What of six language regions' responses do word rate, the form of words and sound power explain, each alone? Real listeners.

    python bench/partition_alice.py [--data FOLDER] [--listeners N] [--jobs 2]

Brennan et al. (2016): 27 usable listeners, one chapter of Alice in Wonderland, 362 scans of 2 s. FOLDER holds `alice/`; default:
$FASTENCODE_DATA, or ../shared/data beside the checkout. Results go to results/banded_alice.json, and tables are printed.

Bands, each under SPM's hemodynamic response at the time a scan begins, delayed by 0 and 1 scan:

- word rate: an impulse at the end of every word, clitics that start with an apostrophe dropped. This is the project's predictor,
  r = .994 with the authors'; at word onsets it would be .989.
- word form: the same impulses with heights that say how a word differs from the average one (z-scored over words): letters,
  duration in s, log of its count in the chapter, and 1 for a function word (`FUNCTION_WORDS`) or 0 for a content word. Heights
  have mean 0, so that the band does not hold the rate again.
- sound power: the authors' regressor, which has the hemodynamic response in it; one file for each listener, all the same.

A cubic polynomial and six motion parameters are regressed out of responses and features alike; both are z-scored. Every listener
is partitioned alone: five contiguous blocks are held out, and contiguous blocks of the rest choose weights and penalties. R² of a
block is taken against the block's own mean, so that slow drift puts it below 0 even for a model that predicts the mean of the
other blocks: that score is the column "mean only" of the control. It is in "total", not in what is unique, hence in "shared" too.
Another table has what is slower than about 130 s removed (a polynomial of degree 11). The other control has all features moved
against the responses by half the story, round its end.

Intervals are percentiles of bootstrap means over listeners: what other listeners may give, not another story. They are not
corrected for their number. Legend: l = listeners, v = regions, p = parts.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import session

from fastencode.data.brennan import Alice
from fastencode.data.textgrid import Interval
from fastencode.errors import InputError
from fastencode.solve.partition import Partition, partition_variance
from fastencode.study.word_rate import word_rate_predictor
from fastencode.timing.clean import zscore
from fastencode.timing.delays import delay
from fastencode.timing.hrf import hrf_convolve

BANDS = ("word rate", "word form", "sound power")
PARTS = ("total", *BANDS, "shared")
DELAYS = (0, 1)
DRIFT, SLOW = 3, 11  # degrees of polynomials
SETTINGS = {"outer": 5, "cv": 5, "alphas": np.logspace(-1, 6, 15), "n_iter": 20, "random_state": 0}
DRAWS, LEVEL, SEED = 10_000, 0.95, 0

# Determiners, pronouns, prepositions, conjunctions, auxiliaries, negation. Of a contraction, its first part counts.
_CLOSED = """
a an the this that these those some any no every each either neither another such all both i me my myself you your yourself he
him his himself she her hers herself it its itself we us our they them their theirs themselves who whom whose what which one
there about above across after against along among around at before behind below beside between beyond by down during for from
in inside into like near of off on out over past round since than through till to toward towards under until up upon with
within without and but or nor so yet if because although though unless while whether as when where why how am is are was were
be been being do does did have has had having can could may might must shall should will would ought not n't
"""
FUNCTION_WORDS = frozenset(_CLOSED.split())


def lower(word: Interval) -> str:
    return word.label.strip().lower()


def tokens(alice: Alice) -> list[Interval]:
    """Words as the authors count them: without the clitics that start with an apostrophe."""
    return [word for word in alice.words if not word.label.startswith("'")]


def is_function_word(label: str) -> bool:
    """Whether a word, in lower case, is of a closed class: don't → do, it's → it, she'd → she."""
    stem = label.removesuffix("n't") or label  # n't itself stays
    return stem in FUNCTION_WORDS or stem.partition("'")[0] in FUNCTION_WORDS


def word_form(words: list[Interval]) -> np.ndarray:
    """(words, 4): letters, seconds, log count, function word; z-scored over words."""
    counts = Counter(map(lower, words))
    return zscore(
        [
            [sum(c.isalpha() for c in w.label), w.end - w.start, np.log(counts[lower(w)]), is_function_word(lower(w))]
            for w in words
        ]
    )


def features(alice: Alice, listener: str) -> dict[str, np.ndarray]:
    """Band → (362, columns), z-scored and not delayed."""
    words = tokens(alice)
    ends = [word.end for word in words]
    rate = word_rate_predictor(ends, alice.scan_times)[:, None]
    form = np.asarray(hrf_convolve(word_form(words), ends, alice.scan_times))
    power = alice.sound_power(listener)[:, None]
    return {name: zscore(X) for name, X in zip(BANDS, (rate[alice.discarded :], form[alice.discarded :], power), strict=True)}


def without_confounds(X: np.ndarray, motion: np.ndarray, drift: int) -> np.ndarray:
    """X less its least-squares fit by drift and motion, z-scored: zscore(X − C @ lstsq(C, X))."""
    C = np.column_stack([np.polynomial.legendre.legvander(np.linspace(-1, 1, len(X)), drift), zscore(motion)])
    return zscore(X - C @ np.linalg.lstsq(C, X, rcond=None)[0])


def case(alice: Alice, listener: str, shift: float = 0.0, drift: int = DRIFT) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Bands and responses of one listener; features are moved by a share of the story, round its end."""
    motion = alice.motion(listener)
    X = {
        name: without_confounds(delay(np.roll(X, round(shift * len(X)), axis=0), DELAYS), motion, drift)
        for name, X in features(alice, listener).items()
    }
    return X, without_confounds(alice.timecourses(listener), motion, drift)


def partition(
    listener: str, alice: Alice, *, shift: float = 0.0, drift: int = DRIFT, scoring: str = "r2", **settings: Any
) -> Partition:
    X, Y = case(alice, listener, shift, drift)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*edge of the grid")  # a region that nothing predicts wants the largest
        return partition_variance(X, Y, scoring=scoring, **{**SETTINGS, **settings})


def mean_only(Y: np.ndarray) -> np.ndarray:
    """(v,): held-out R² of the training rows' mean, over the same outer blocks."""
    scores = []
    for test in np.array_split(np.arange(len(Y)), SETTINGS["outer"]):
        rest = np.delete(Y, test, axis=0).mean(axis=0)
        scores.append(1 - ((Y[test] - rest) ** 2).mean(axis=0) / Y[test].var(axis=0))
    return np.mean(scores, axis=0)


def parts(found: Partition) -> np.ndarray:
    """(5, v), in the order of PARTS."""
    return np.vstack([found.total, found.unique, found.shared])


def bootstrap(values_lpv: np.ndarray, draws: int = DRAWS) -> dict[str, np.ndarray]:
    """Mean over listeners (rows) and the percentile interval of resampled means."""
    n = len(values_lpv)
    counts = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=draws)
    means = np.tensordot(counts / n, values_lpv, axes=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {"mean": values_lpv.mean(axis=0), "low": low, "high": high}


def table(title: str, kept: dict[str, Any]) -> list[str]:
    """Markdown, one row per region; bold where the interval excludes 0."""
    names = kept["parts"]
    lines = ["", f"**{title}**", "", "| region | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for region, row in kept["summary"].items():
        cells = []
        for cell in row.values():
            bold = "**" if "excludes" in cell["says"] else ""
            cells.append(f"{bold}{cell['mean']:+.4f}{bold} [{cell['low']:+.4f}, {cell['high']:+.4f}]")
        lines.append(f"| {region} | " + " | ".join(cells) + " |")
    return lines


def verdict(low: float, high: float) -> str:
    return "excludes 0, above it" if low > 0 else "excludes 0, below it" if high < 0 else "includes 0"


def record(listeners: list[str], names: tuple[str, ...], values_lpv: np.ndarray) -> dict[str, Any]:
    """What the file keeps of one table: means, intervals with a sentence each, and every listener's numbers."""
    found = bootstrap(values_lpv)
    summary: dict[str, Any] = {}
    for v, region in enumerate(Alice.regions):
        for p, name in enumerate(names):
            numbers = {key: found[key][p, v] for key in found}
            says = f"The {LEVEL:.0%} interval of {name} in {region} {verdict(numbers['low'], numbers['high'])}."
            summary.setdefault(region, {})[name] = {**numbers, "says": says}
    return {"summary": summary, "parts": names, "listeners": dict(zip(listeners, values_lpv.tolist(), strict=True))}


def find_data(given: str | None) -> Path:
    """The folder `alice` of the data, or the end of the program."""
    root = Path(given or os.environ.get("FASTENCODE_DATA") or session.HERE.parents[1] / "shared" / "data")
    if not (root / "alice").is_dir():
        raise SystemExit(
            f"no Alice data: {root / 'alice'} is not a folder; pass --data FOLDER or set FASTENCODE_DATA to what holds it"
        )
    return root / "alice"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds alice/")
    parser.add_argument("--listeners", type=int, help="only the first N: a quick run, whose tables are printed and not kept")
    parser.add_argument("--jobs", type=int, default=2, help="listeners at once")
    options = parser.parse_args()
    if options.listeners is not None and options.listeners < 2:
        raise SystemExit(f"--listeners {options.listeners}: a bootstrap over listeners needs at least 2")
    place = {**session.surroundings(threads=options.jobs), "command": "python bench/partition_alice.py"}  # not where the data are
    try:
        alice = Alice(find_data(options.data))
    except InputError as error:
        raise SystemExit(f"the Alice data cannot be read: {error}") from error
    names, words, began = alice.listeners[: options.listeners], tokens(alice), time.perf_counter()
    runs: dict[str, dict[str, Any]] = {
        "Held-out R²": {},
        "Held-out Pearson r": {"scoring": "pearson"},
        "Held-out R², slow drift removed": {"drift": SLOW},
        "Held-out R² of features half a story off": {"shift": 0.5},
    }
    kept = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for title, arguments in runs.items():
            found = pool.map(partial(partition, alice=alice, **arguments), names)
            kept[title] = record(names, PARTS, np.stack([parts(one) for one in found]))
    for title, drift in (("Mean only, R²", DRIFT), ("Mean only, R², slow drift removed", SLOW)):
        null = np.stack([mean_only(case(alice, name, drift=drift)[1]) for name in names])
        kept[title] = record(names, ("mean only",), null[:, None])
    seconds = time.perf_counter() - began
    rate = word_rate_predictor([word.end for word in words], alice.scan_times)
    results = {
        **place,
        "seconds": seconds,
        "settings": {**SETTINGS, "alphas": SETTINGS["alphas"].tolist(), "delays": DELAYS, "runs": runs, "drift": DRIFT},
        "bootstrap": {"draws": DRAWS, "level": LEVEL, "seed": SEED, "over": "listeners"},
        "listeners": names,
        "left_out": alice.left_out,
        "words": len(words),
        "function_words": sum(is_function_word(lower(word)) for word in words),
        "word_rate_with_the_authors_r": np.corrcoef(rate, alice.generic_predictors(all_scans=True)[:, 0])[0, 1],
        "tables": kept,
    }
    if options.listeners is None:
        session.write(results, session.RESULTS / "banded_alice.json")
    print(f"{len(names)} listeners, {seconds:.0f} s. Means over listeners, {LEVEL:.0%} intervals, bold where they exclude 0.")
    for title, one in kept.items():
        print("\n".join(table(title, one)))
    print()
    for row in kept["Held-out R²"]["summary"].values():
        print(*(cell["says"] for cell in row.values()))


if __name__ == "__main__":
    main()
