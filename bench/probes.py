"""Solvers for the classifiers of probes by turns, a whole probe as large as Speech Commands, and how often intervals are right.

    python bench/probes.py [--parts solvers whole intervals] [--scale 0.1] [--layers 13] [--threads 2] [--repeats 3]

Features are made: directions whose standard deviations fall as k^-0.75, a mean for each of 35 words and each of 2618 speakers.
Writes results/probes.json.

solvers
    All penalties of the grid from the largest down, of 35 classes on the train rows of one layer, and the loss of held-out rows
    at each. First, on fewer rows and with tight tolerances, losses at three penalties must agree within 1e-4; otherwise nothing
    is timed. Then by turns: *fastencode*; the same *without curvature* (L-BFGS begun with a multiple of the identity for each
    class) and *without the line* (begun where the penalty before ended); *scikit-learn*, ``LogisticRegression`` by lbfgs with a
    warm start at its own tolerance; *torch*, ``torch.optim.LBFGS`` on two layers at once, seconds for each; *gram*, ``ridge_cv``
    of one-hot words at 17 penalties: another classifier, and the best there is where each word is Gaussian, as it is here.
    ``excess`` is the largest loss above the smallest found, over penalties, in nats a row; ``held_out`` and ``accuracy`` are
    those of the penalty with the smallest held-out loss (of *gram*, the best R²).
whole
    ``probe`` on 84 843 train, 9 981 validation and 11 005 test rows: seconds of each layer without those that make its features.
intervals
    Share of .95 intervals over drawn speakers that hold the score of speakers without number, whose accuracies differ (on the
    logit scale, ``spread``; half as much for each word and speaker): ours (t, drawn out), t alone, percentiles, and percentiles
    with bias correction. ``icc`` is the intraclass correlation of right answers.

Legend: n = row, d = feature, k = class.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import session
from threadpoolctl import threadpool_limits

import fastencode
from fastencode.study.inference.blocks import interval
from fastencode.study.probes import PENALTIES, probe
from fastencode.study.probing.classifiers import Curvature, Labels, Objective, held_out_loss, minimise, priors, workers
from fastencode.study.probing.metrics import draw_units, drawn_scores, scores, sums

D, K, SPEAKERS = 768, 35, 2618
ROWS = (84_843, 9_981, 11_005)
GRID = np.array(PENALTIES["classification"])[::-1]
Theta = np.ndarray
TURNS = ("fastencode", "without curvature", "without the line", "scikit-learn", "torch", "gram")
_TORCH_LAYERS = 2


class World:
    """Rows of train, validation and test speakers; layers are made when asked for."""

    def __init__(self, scale: float, separation: float = 0.07) -> None:
        sizes = [max(60, round(rows * scale)) for rows in ROWS]
        rng = np.random.default_rng(0)
        self.n, n_speakers = sum(sizes), max(30, round(SPEAKERS * scale))
        borders = np.linspace(0, n_speakers, 4, dtype=int)
        borders[1:3] = round(n_speakers * 0.8), round(n_speakers * 0.9)
        parts = [rng.integers(a, b, size) for a, b, size in zip(borders[:-1], borders[1:], sizes, strict=True)]
        self.speakers, self.words = np.concatenate(parts), rng.integers(0, K, self.n)
        self.split = np.repeat(["train", "validation", "test"], sizes)
        self.n_train, self.n_fit = sizes[0], sizes[0] + sizes[1]
        self._words = (separation * rng.standard_normal((K, D))).astype(np.float32)
        self._accents = (0.5 * rng.standard_normal((n_speakers, D))).astype(np.float32)

    def layer(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([1, number])
        turn = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)
        turn *= (np.arange(1, D + 1)[:, None] ** -0.75).astype(np.float32)
        X_nd = np.empty((self.n, D), np.float32)
        for start in range(0, self.n, 10_000):
            rows = slice(start, start + 10_000)
            own = rng.standard_normal((len(X_nd[rows]), D), dtype=np.float32)
            X_nd[rows] = (own + self._words[self.words[rows]] + self._accents[self.speakers[rows]]) @ turn
        return X_nd

    def standardised(self, number: int) -> np.ndarray:
        X_nd = self.layer(number)[: self.n_fit]
        X_nd -= X_nd[: self.n_train].mean(axis=0)
        X_nd /= X_nd[: self.n_train].std(axis=0)
        return X_nd


def by_ours(
    X: np.ndarray, y: np.ndarray, grid: Any, tolerance: float = 3e-6, *, curved: bool = True, line: bool = True
) -> list[Theta]:
    """Parameters (d + 1, k) at each penalty."""
    labels, ranges, found = Labels(y, K), [(0, len(X))], []
    with workers() as pool:
        curvature = Curvature.of(X, pool)
        if not curved:
            curvature = Curvature(np.full(D, curvature.values.mean()), np.eye(D, dtype=X.dtype), len(X))
        theta = before = priors(labels, ranges, D, X.dtype)
        objective = Objective(X, labels, ranges, pool)
        for alpha in grid:
            start = 2 * theta - before if line else theta
            before, theta = theta, minimise(objective, start, alpha, curvature, tolerance=tolerance)
            found.append(theta)
    return found


def by_sklearn(X: np.ndarray, y: np.ndarray, grid: Any, tolerance: float = 1e-4) -> list[Theta]:
    from sklearn.linear_model import LogisticRegression

    model, found = LogisticRegression(warm_start=True, tol=tolerance, max_iter=2000), []
    for alpha in grid:
        model.C = 1 / alpha
        model.fit(X, y)
        found.append(np.concatenate([model.coef_.T, model.intercept_[None]]))
    return found


def by_torch(layers: list[np.ndarray], y: np.ndarray, grid: Any, tolerance: float = 1e-5) -> list[list[Theta]]:
    """All layers at once: their losses are added up."""
    import torch

    X, truth = torch.stack([torch.from_numpy(one) for one in layers]), torch.from_numpy(y).repeat(len(layers), 1)
    W, b = torch.zeros(len(layers), D, K, requires_grad=True), torch.zeros(len(layers), 1, K, requires_grad=True)
    found = []
    for alpha in grid:
        options = {"max_iter": 2000, "history_size": 10, "line_search_fn": "strong_wolfe"}
        steps = torch.optim.LBFGS([W, b], tolerance_grad=tolerance, tolerance_change=tolerance * 1e-3, **options)

        def loss(alpha: float = alpha, steps: Any = steps) -> Any:
            steps.zero_grad()
            total = torch.nn.functional.cross_entropy((X @ W + b).transpose(1, 2), truth, reduction="sum")
            total = (total + alpha / 2 * (W**2).sum()) / X.shape[1]
            total.backward()
            return total

        steps.step(loss)
        found.append(torch.cat([W, b], dim=1).detach().numpy().copy())
    return [[theta[place] for theta in found] for place in range(len(layers))]


def penalised(theta: Theta, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """Nats a row."""
    return (held_out_loss(theta, X, Labels(y, K)) + alpha / 2 * float((theta[:-1].astype(np.float64) ** 2).sum())) / len(X)


def agree(world: World, rows: int = 4000) -> dict[str, float]:
    """Losses of everyone at tight tolerances above the smallest, relative to it; stops where one is off."""
    X, y, grid = world.standardised(0)[: min(rows, world.n_train)], world.words[: min(rows, world.n_train)], (1000.0, 30.0, 1.0)
    found = {
        "fastencode": by_ours(X, y, grid, 1e-8),
        "without curvature": by_ours(X, y, grid, 1e-8, curved=False),
        "without the line": by_ours(X, y, grid, 1e-8, line=False),
        "scikit-learn": by_sklearn(X, y, grid, 1e-6),
        "torch": by_torch([X, X], y, grid, 1e-7)[1],
    }
    losses = {
        name: np.array([penalised(*one) for one in zip(thetas, [X] * 3, [y] * 3, grid, strict=True)])
        for name, thetas in found.items()
    }
    best = np.min(list(losses.values()), axis=0)
    apart = {name: float((loss / best - 1).max()) for name, loss in losses.items()}
    if max(apart.values()) > 1e-4:
        raise SystemExit(f"losses differ, so nothing was timed: {apart}")
    return apart


def solvers(world: World, options: argparse.Namespace) -> dict[str, Any]:
    apart = agree(world)
    print(f"losses agree: {apart}", flush=True)
    X, n, names = world.standardised(0), world.n_train, [one for one in TURNS if one in options.contestants]
    train, y, held, y_held = X[:n], world.words[:n], X[n:], world.words[n : len(X)]
    runs: dict[str, Callable[[], Any]] = {
        "fastencode": lambda: by_ours(train, y, GRID),
        "without curvature": lambda: by_ours(train, y, GRID, curved=False),
        "without the line": lambda: by_ours(train, y, GRID, line=False),
        "scikit-learn": lambda: by_sklearn(train, y, GRID),
        "torch": lambda: by_torch([train] * _TORCH_LAYERS, y, GRID)[0],
        "gram": lambda: by_gram(X, n, world.words[: len(X)]),
    }
    rows: dict[str, dict[str, Any]] = {name: {"wall": [], "cpu": []} for name in names}
    kept = {}
    for turn in range(options.repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wall, cpu = time.perf_counter(), time.process_time()
            kept[name] = runs[name]()
            share = _TORCH_LAYERS if name == "torch" else 1
            rows[name]["wall"].append((time.perf_counter() - wall) / share)
            rows[name]["cpu"].append((time.process_time() - cpu) / share)
            print(f"  turn {turn + 1}, {name}: {rows[name]['wall'][-1]:.2f} s", flush=True)
    losses = {
        name: np.array([penalised(one, train, y, alpha) for one, alpha in zip(kept[name], GRID, strict=True)])
        for name in names
        if name != "gram"
    }
    best = np.min(list(losses.values()), axis=0)
    for name, row in rows.items():
        row |= {"wall": session.spread(row["wall"]), "cpu": session.spread(row["cpu"])}
        if name == "gram":
            row |= kept[name]
            continue
        row["excess"] = float((losses[name] - best).max())
        on_held = [held_out_loss(theta, held, Labels(y_held, K)) / len(held) for theta in kept[name]]
        chosen = int(np.argmin(on_held))
        z = held @ kept[name][chosen][:-1] + kept[name][chosen][-1]
        row |= {"penalty": GRID[chosen], "held_out": on_held[chosen], "accuracy": float((z.argmax(axis=1) == y_held).mean())}
    for row in rows.values():
        row["times_fastencode"] = row["wall"]["median"] / rows["fastencode"]["wall"]["median"]
    return {
        "rows": n,
        "features": D,
        "classes": K,
        "penalties": len(GRID),
        "largest_relative_excess_when_tight": apart,
        "contestants": rows,
    }


def by_gram(X: np.ndarray, n: int, words: np.ndarray) -> dict[str, Any]:
    """Ridge of one-hot words, the penalty by the held-out rows; its accuracy there, fitted without them."""
    hot = np.eye(K, dtype=np.float32)[words]
    options = {"alphas": np.logspace(0, 6, 17), "per_target": False}
    fit = fastencode.ridge_cv(X, hot, cv=[(np.arange(n), np.arange(n, len(X)))], **options)
    alone = fastencode.ridge_cv(X[:n], hot[:n], alphas=[float(fit.alpha[0])], cv=None)
    return {"penalty": float(fit.alpha[0]), "accuracy": float((alone.predict(X[n:]).argmax(axis=1) == words[n:]).mean())}


def whole(world: World, options: argparse.Namespace) -> dict[str, Any]:
    made, made_cpu, seconds = [0.0], [0.0], []

    def layer(number: int) -> np.ndarray:
        began, cpu = time.perf_counter(), time.process_time()
        if number:
            seconds.append(began - marks[-1])
        X = world.layer(number)
        made[0] += time.perf_counter() - began
        made_cpu[0] += time.process_time() - cpu
        marks.append(time.perf_counter())
        return X

    marks: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    found = probe(layer, world.words, world.speakers, split=world.split, n_layers=options.layers)
    total, total_cpu = time.perf_counter() - began - made[0], time.process_time() - cpu - made_cpu[0]
    seconds.append(time.perf_counter() - marks[-1])
    return {
        "rows": {name: int((world.split == name).sum()) for name in ("train", "validation", "test")},
        "layers": options.layers,
        "seconds": total,
        "cpu_seconds": total_cpu,
        "seconds_of_layers": session.spread(seconds),
        "seconds_for_13_layers": total * 13 / options.layers,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "penalty": found.penalty.tolist(),
        "score": found.score.tolist(),
        "low": found.low.tolist(),
        "high": found.high.tolist(),
        "n_units": found.n_units,
    }


def answers(rng: np.random.Generator, speakers: int, rows: int, k: int, logit: float, spread: float, unequal: bool) -> Any:
    """True and given words, and the speaker of each row."""
    many = rows * rng.lognormal(0, 0.8, speakers) if unequal else rng.poisson(rows, speakers)
    units = np.repeat(np.arange(speakers), np.maximum(2, many.astype(int)))
    y = rng.integers(0, k, len(units))
    level = logit + spread * (rng.standard_normal(speakers)[units] + 0.5 * rng.standard_normal((speakers, k))[units, y])
    wrong = (y + rng.integers(1, k, len(y))) % k
    return y, np.where(rng.random(len(y)) < 1 / (1 + np.exp(-level)), y, wrong), units


POINTS = (
    (6, 40, 10, 1.0, 0.8, False), (10, 40, 10, 1.0, 0.8, False), (24, 30, 35, 1.0, 0.8, False), (24, 30, 35, 1.0, 0.8, True),
    (24, 8, 3, 1.0, 1.0, False), (168, 8, 35, 0.5, 0.8, False), (168, 8, 35, 3.0, 0.8, True), (200, 50, 35, 2.5, 1.0, True),
)  # fmt: skip


def intervals(scale: float) -> list[dict[str, Any]]:
    rng, table = np.random.default_rng(0), []
    for point in POINTS:
        speakers, k = point[0], point[2]
        y, z, units = answers(rng, 4000, *point[1:])
        truth = scores("classification", sums("classification", y, z, units, 4000, k).sum(axis=0))
        right, n_u = (y == z).astype(float), np.bincount(units)
        p, mean_u = right.mean(), np.bincount(units, right) / n_u
        icc = (np.average((mean_u - p) ** 2, weights=n_u) / (p * (1 - p)) - 4000 / len(y)) / (1 - 4000 / len(y))
        row = {**dict(zip(("speakers", "rows", "words", "logit", "spread", "unequal"), point, strict=True)), "icc": icc}
        hits: dict[str, list[bool]] = {}
        for seed in range(max(4, round(1500 * scale))):
            found = sums("classification", *answers(rng, *point), speakers, k)
            counts, score = draw_units(speakers, 500, seed), scores("classification", found.sum(axis=0))
            for metric in ("accuracy", "f1_macro"):
                drawn = drawn_scores("classification", found, counts, metric)
                plain = drawn.mean() + (drawn - drawn.mean()) * np.sqrt(1 - 1 / speakers)
                for name, (low, high) in ends_of(score[metric], drawn, plain, speakers).items():
                    hits.setdefault(f"{metric}, {name}", []).append(bool(low <= truth[metric] <= high))
        row |= {name: float(np.mean(found)) for name, found in hits.items()}
        table.append(row)
        print("  " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    return table


def ends_of(score: float, drawn: np.ndarray, plain: np.ndarray, speakers: int) -> dict[str, Any]:
    below = np.clip((plain < score).mean() + (plain == score).mean() / 2, 1e-3, 1 - 1e-3)
    corrected = scipy.stats.norm.cdf(2 * scipy.stats.norm.ppf(below) + scipy.stats.norm.ppf([0.025, 0.975]))
    return {
        "ours": interval(score, drawn, speakers, correlation=False),
        "t alone": interval(score, plain, speakers, correlation=False),
        "percentiles": np.quantile(plain, [0.025, 0.975]),
        "bias-corrected": np.quantile(plain, corrected),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("solvers", "whole", "intervals")
    parser.add_argument("--parts", nargs="+", default=list(parts), choices=parts)
    parser.add_argument("--contestants", nargs="+", default=list(TURNS), choices=TURNS, help="fastencode always runs")
    parser.add_argument("--scale", type=float, default=1.0, help="of rows, speakers and repetitions")
    parser.add_argument("--layers", type=int, default=13, help="of the part 'whole' (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="turns (%(default)s)")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "probes.json")
    options = parser.parse_args()
    options.contestants = ["fastencode", *options.contestants]
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"case": "probes", **session.surroundings(options.threads), "scale": options.scale}
    with threadpool_limits(options.threads):
        world = World(options.scale)
        for part in options.parts:
            print(part, flush=True)
            results[part] = intervals(options.scale) if part == "intervals" else globals()[part](world, options)
            session.write(results, options.out)
    for name, row in results.get("solvers", {}).get("contestants", {}).items():
        print(f"  {name:18s} {row['wall']['median']:.2f} s, {row['times_fastencode']:.2f} x, accuracy {row['accuracy']:.4f}")
    if "whole" in results:
        print(f"  a whole probe: {results['whole']['seconds_for_13_layers']:.0f} s for 13 layers")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
