"""The numbers of a finished demo by hand: tables as they are, and every expectation from the draws that fits leave.

The demo has two participants, A and B, three controls, and a model of three layers: the first is early, the last late.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.stats

REGIONS = ("auditory", "late_language", "silent")
SEEDS = (1, 2, 3)
CONTROLS = tuple(f"control-seed-{seed}" for seed in SEEDS)
ARMS = {"pretrained": ("pretrained",), "tuned": ("tuned",), "control": CONTROLS, "spectrum": ("spectrum",)}
PLACE = ["participant", "model", "layer", "region"]
LESS = " less spectrum"


def of_seeds(out: Path, measure: str = "r") -> pd.DataFrame:
    """What seeds.csv says of each control: value, low and high by (participant, model, layer, region)."""
    each = pd.read_csv(out / "seeds.csv")
    assert set(each["measure"]) == {"r", "r_residual"} and set(each["model"]) == {"control"}
    each = each[each["measure"] == measure]
    assert len(each) == 2 * 3 * 3 * 3 and set(each["seed"]) == set(SEEDS)
    each["model"] += "-seed-" + each["seed"].astype(str)
    return each.set_index(PLACE).sort_index()


def of_models(out: Path) -> pd.DataFrame:
    """scores.csv and residuals.csv by (participant, model, layer, region); the control's rows are means over its seeds."""
    scores, residuals = pd.read_csv(out / "scores.csv"), pd.read_csv(out / "residuals.csv")
    assert len(scores) == 2 * 3 * 3 * 3 + 2 * 3 and len(residuals) == 2 * 3 * 3 * 3
    residuals["model"] += LESS
    return pd.concat([scores, residuals]).set_index(PLACE).sort_index()


def drawn(out: Path, name: str, who: str, layer: int, region: str) -> tuple[np.ndarray, float]:
    """A region's r on drawn blocks, and how many blocks there are, as a fit leaves them."""
    with h5py.File(out / "fits" / f"{name}-at-1-2-3" / who / f"layer-{layer:02d}" / "layer.h5") as file:
        # regions of a record: all voxels, then those of the table
        return file["draws"][:, 1 + REGIONS.index(region)], float(file["n_blocks"][()])


Sum = dict[tuple[str, str, int], float]
LATE, MIDDLE, EARLY = ("late_language", 2), ("late_language", 1), ("auditory", 0)


def less(one: str, other: str, where: tuple[str, int]) -> Sum:
    return {(one, *where): 1, (other, *where): -1}


# Name → weights of (model, region, layer), those of the same less the control, the limits, and the family.
EXPECTED: dict[str, tuple[Sum, Sum, float | None, float | None, str]] = {
    "late-rise": (less("tuned", "pretrained", LATE), less("tuned", "control", LATE), 0, None, "brains"),
    "early-kept": (less("tuned", "pretrained", EARLY), {}, -0.03, None, "brains"),
    "late-more-than-middle": (
        less("tuned", "pretrained", LATE) | less("pretrained", "tuned", MIDDLE),
        less("tuned", "control", LATE) | less("control", "tuned", MIDDLE),
        0,
        None,
        "",
    ),
    "beyond-sound-rise": (
        less(f"tuned{LESS}", f"pretrained{LESS}", LATE),
        less(f"tuned{LESS}", f"control{LESS}", LATE),
        0,
        None,
        "brains",
    ),
    "above-spectrum": ({("tuned", *LATE): 1, ("spectrum", "late_language", 0): -1}, {}, 0, None, ""),
    "control-flat": (less("control", "pretrained", LATE), {}, None, 0.03, ""),
    "above-control": (less("tuned", "control", LATE), {}, 0, None, ""),
    "silent-pretrained": ({("pretrained", "silent", layer): 1 / 3 for layer in range(3)}, {}, -0.02, 0.02, ""),
    "silent-tuned": ({("tuned", "silent", layer): 1 / 3 for layer in range(3)}, {}, -0.02, 0.02, ""),
}


def summed(out: Path, weights: Sum, correlation: bool) -> tuple[float, float, float]:
    """A weighted sum, the mean over participants: the number, its standard error, and degrees of freedom, from the fits' draws.

    Of a mean of correlations, number and error are those of its arctanh.
    """
    r = of_models(out)["r"]
    values, draws, blocks = [], [], []
    for who in "AB":
        values.append(sum(weight * r[who, name, layer, region] for (name, region, layer), weight in weights.items()))
        own, counts = np.zeros(1), set()
        for (name, region, layer), weight in weights.items():
            suffix = "-less-spectrum" if name.endswith(LESS) else ""
            several = [drawn(out, f"{arm}{suffix}", who, layer, region) for arm in ARMS[name.removesuffix(LESS)]]
            own = own + weight * np.mean([each for each, _ in several], axis=0)
            counts |= {count for _, count in several}
        (count,) = counts
        draws.append(own)
        blocks.append(count)
    covariance = np.cov(draws)
    stretch = 1 + 2 * covariance[0, 1] * (max(blocks) / min(blocks) - 1) / covariance.sum()  # blocks of two lengths
    drawn_b, value = np.mean(draws, axis=0), np.mean(values)
    drawn_b = drawn_b.mean() + np.sqrt(max(1, stretch)) * (drawn_b - drawn_b.mean())
    if correlation:
        value, drawn_b = np.arctanh(value), np.arctanh(drawn_b)
    return float(value), float(drawn_b.std(ddof=1)), min(blocks) - 1


def decided(out: Path, name: str) -> tuple[float, list[float], float, str]:
    """One expectation: the number, the ends of its .95 interval, the p of the answer that it leans to, and this answer."""
    weights, over, above, below, _ = EXPECTED[name]
    single = len({model for model, _, _ in weights}) == 1
    value, error, freedom = summed(out, weights, single)

    def p(of: tuple[float, float, float], limit: float) -> float:
        distance = abs(of[0] - (np.arctanh(limit) if single else limit))
        return float(2 * scipy.stats.t.sf(distance / of[1], of[2]))

    half = scipy.stats.t.ppf(0.975, freedom) * error
    shown = [value, value - half, value + half]
    number, *ends = np.tanh(shown) if single else shown
    main = (value, error, freedom)
    if above is not None and below is not None:  # within: both limits
        return number, ends, max(p(main, above), p(main, below)), "yes" if above < number < below else "no"
    tests = [(number - above if above is not None else below - number, p(main, above if above is not None else below))]
    if over:
        over_control = summed(out, over, False)
        tests.append((over_control[0], p(over_control, 0)))
    against = [p for beyond, p in tests if beyond < 0]
    return number, ends, min(against, default=max(p for _, p in tests)), "no" if against else "yes"


def answers(out: Path) -> dict[str, tuple[float, list[float], str]]:
    """Name → number, ends and answer. In the family the k-th smallest of m p is compared with .05 / (m − k + 1), up to the first
    that is not decided."""
    found = {name: decided(out, name) for name in EXPECTED}
    family = sorted((name for name in EXPECTED if EXPECTED[name][-1]), key=lambda name: found[name][2])
    open_ones, rates = True, dict.fromkeys(found, 0.05)
    for step, name in enumerate(family):
        open_ones = open_ones and found[name][2] < 0.05 / (len(family) - step)
        rates[name] = 1.0 if open_ones else 0.0
    return {name: (number, ends, leans if p < rates[name] else "undecided") for name, (number, ends, p, leans) in found.items()}
