"""How accurate each precision is, against float64 by hand: scores, choices, weights; on voxels with a signal and without."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from compare import naive_score
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

F64 = NDArray[np.float64]
PRECISIONS = (("float64", "exact"), ("float32", "exact"), ("float32", "fast"))


def _spectrum(n: int, p: int, rank: int, decay: float, mean: float) -> Callable[[np.random.Generator], F64]:
    def make(rng: np.random.Generator) -> F64:
        directions = rng.standard_normal((n, rank)) * (1 + np.arange(rank)) ** -decay
        return directions @ rng.standard_normal((rank, p)) / np.sqrt(rank) + mean

    return make


def problems(scale: float) -> Iterator[tuple[str, F64, F64, F64, str]]:
    """(name, X, Y, penalties, scoring); half of the voxels are noise."""
    n, v = max(40, int(600 * scale)), max(20, int(2000 * scale))
    few, many = max(8, int(150 * scale)), max(60, int(1500 * scale))
    plain, wide = np.logspace(-1, 6, 20), np.logspace(1, 20, 20)
    kinds: list[tuple[str, Callable[[np.random.Generator], F64], F64]] = [
        ("p < n", _spectrum(n, few, few, 0.0, 0.0), plain),
        ("p > n", _spectrum(n, many, many, 0.0, 0.0), plain),
        ("power law, p < n", _spectrum(n, few, few, 1.5, 0.0), plain),
        ("rank-deficient", _spectrum(n, few, few // 4, 0.0, 0.0), plain),
        ("large mean in X", _spectrum(n, few, few, 0.0, 1e3), plain),
        ("large mean in Y", _spectrum(n, few, few, 0.0, 0.0), plain),
        ("grid to 1e20, p < n", _spectrum(n, few, few, 0.5, 0.0), wide),
        ("grid to 1e20, p > n", _spectrum(n, many, many, 0.5, 0.0), wide),
    ]
    for seed, (name, make, alphas) in enumerate(kinds):
        rng = np.random.default_rng(seed)
        X = make(rng)
        signal = (X - X.mean(axis=0)) @ rng.standard_normal((X.shape[1], v))
        signal *= rng.uniform(0.3, 2, v) * (np.arange(v) >= v // 2) / signal.std(axis=0)
        Y = signal + rng.standard_normal((n, v)) + (1e3 if name == "large mean in Y" else 0.0)
        for scoring in ("r2", "pearson", "neg_mean_squared_error"):
            yield name, X, Y, alphas, scoring


def by_hand(X: F64, Y: F64, alphas: F64, folds: Any, scoring: str) -> tuple[F64, Callable[[NDArray[np.intp]], F64]]:
    """(mean held-out scores (a, v), weights at given penalties): one solve for every fold and penalty, float64, an intercept."""
    scores = np.zeros((len(alphas), Y.shape[1]))
    for train, test in folds:
        x, y = X[train].mean(axis=0), Y[train].mean(axis=0)
        for a, coef in enumerate(_weights(X[train] - x, Y[train] - y, alphas)):
            scores[a] += naive_score(scoring, Y[test], (X[test] - x) @ coef, y) / len(folds)

    def weights(index: NDArray[np.intp]) -> F64:
        out = np.empty((X.shape[1], Y.shape[1]))
        for a, coef in enumerate(_weights(X - X.mean(axis=0), Y - Y.mean(axis=0), alphas)):
            out[:, index == a] = coef[:, index == a]
        return out

    return scores, weights


def _weights(X: F64, Y: F64, alphas: F64) -> Iterator[F64]:
    dual = len(X) < X.shape[1]
    gram, right = (X @ X.T, Y) if dual else (X.T @ X, X.T @ Y)
    for alpha in alphas:
        solved = np.linalg.solve(gram + alpha * np.eye(len(gram)), right)
        yield X.T @ solved if dual else solved


def choose(scores: F64, tolerance: Any) -> NDArray[np.intp]:
    """The largest penalty whose score is within the tolerance of the best."""
    return len(scores) - 1 - np.argmax((scores >= scores.max(axis=0) - tolerance)[::-1], axis=0)


def run(options: Any, say: Any) -> dict[str, Any]:
    """The table: for each problem, score and precision, noise and signal voxels apart."""
    from fastencode import ridge_cv

    rows: list[dict[str, Any]] = []
    heading = f"{'problem':<21}{'scoring':<24}{'computed in':<16}{'voxels':<8}"
    say(f"{heading}{'max |score diff|':>17}{'same penalty':>14}{'max rel coef err':>18}")
    with threadpool_limits(options.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the edges of the grid
        for name, X, Y, alphas, scoring in problems(options.scale):
            tests = np.array_split(np.arange(len(X)), 5)
            folds = [(np.setdiff1d(np.arange(len(X)), test), test) for test in tests]
            # Rounded to float32 for all of them, so that the numbers tell of the arithmetic and not of the input.
            X32, Y32 = X.astype(np.float32), Y.astype(np.float32)
            X64, Y64 = X32.astype(np.float64), Y32.astype(np.float64)
            scores, weights = by_hand(X64, Y64, alphas, folds, scoring)
            unit = np.mean([Y64[test].var(axis=0) for _, test in folds], axis=0) if scoring == "neg_mean_squared_error" else 1.0
            signal = np.arange(Y.shape[1]) >= Y.shape[1] // 2
            for dtype, precision in PRECISIONS:
                given = (X64, Y64) if dtype == "float64" else (X32, Y32)
                fit = ridge_cv(*given, alphas=alphas, cv=folds, scoring=scoring, precision=precision)
                chosen = np.searchsorted(alphas, fit.alpha * (1 - 1e-9))
                same = chosen == choose(scores, fit.stats["tie_tolerance"] * unit)
                apart = np.abs(fit.cv_scores.astype(np.float64) - scores) / np.maximum(1, np.abs(scores))
                wanted = weights(chosen)
                error = np.linalg.norm(fit.coef - wanted, axis=0) / np.linalg.norm(wanted, axis=0)
                for kind, here in (("noise", ~signal), ("signal", signal)):
                    row = {"problem": name, "n": len(X), "p": X.shape[1], "voxels": int(here.sum()), "kind": kind}
                    row |= {"scoring": scoring, "dtype": dtype, "precision": precision}
                    row |= {"max_score_difference": float(apart[:, here].max()), "same_penalty": float(same[here].mean())}
                    row["max_relative_coef_error"] = float(error[here].max())
                    rows.append(row)
                    say(
                        f"{name:<21}{scoring:<24}{dtype + ' ' + precision:<16}{kind:<8}{row['max_score_difference']:>17.1e}"
                        f"{row['same_penalty']:>14.3%}{row['max_relative_coef_error']:>18.1e}"
                    )
    return {
        "rows": rows,
        "summary": {
            f"{dtype} {precision}": {
                "same_penalty_share": float(np.average([r["same_penalty"] for r in here], weights=[r["voxels"] for r in here])),
                "least_same_penalty_share": min(r["same_penalty"] for r in here),
                "max_score_difference": max(r["max_score_difference"] for r in here),
                "max_relative_coef_error": max(r["max_relative_coef_error"] for r in here),
            }
            for dtype, precision in PRECISIONS
            for here in [[r for r in rows if (r["dtype"], r["precision"]) == (dtype, precision)]]
        },
    }
