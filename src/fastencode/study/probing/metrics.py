"""Scores of probes as functions of sums over test rows, so that a drawn speaker brings its sums along: no row is scored twice.

``sums`` has one line for each unit (a speaker, or an utterance where there are no speakers). ``scores`` turns sums over all
units, or over drawn ones, into every metric:

    accuracy   rows whose class is right; of several labels, the share of all (row, label) that are right
    f1_macro   mean over classes of 2 tp / (predicted + actual); a class without rows among those drawn does not count
    f1_micro   2 Σ tp / (Σ predicted + Σ actual) over classes; of one class a row, this is the accuracy
    r2         mean over targets of 1 − Σ (y − ŷ)² / Σ (y − ȳ)², with ȳ the mean of the rows that are scored

Axis letters: n test row, k class, label or target, u unit, b draw, m sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.study.inference.blocks import FEWEST_BLOCKS, interval

__all__ = [
    "TASKS",
    "constant_prediction",
    "crossed",
    "draw_units",
    "drawn_scores",
    "effective",
    "ends",
    "scores",
    "sums",
]

Float64 = NDArray[np.float64]

TASKS = ("classification", "multilabel", "regression")
_DRAWS_AT_ONCE = 50


def sums(task: str, truth: NDArray[Any], predicted: NDArray[Any], units: NDArray[np.intp], n_units: int, k: int) -> Float64:
    """What every metric needs of each unit.

    Parameters
    ----------
    task : str
        One of :data:`TASKS`.
    truth, predicted : ndarray
        Of "classification", (n,) int classes 0 … k − 1; of "multilabel", (n, k) bool; of "regression", (n, k) float.
    units : ndarray of int, shape (n,)
        The unit of each row.
    n_units, k : int

    Returns
    -------
    ndarray, shape (n_units, 1 + 3 k)
        Rows; then of each class the rows that are rightly called it, those called it and those that are it; or of each target
        Σ y, Σ y² and Σ (y − ŷ)², of y less its mean over all rows.
    """
    if task == "classification":
        found = np.zeros((n_units, 1 + 3 * k))
        right = truth == predicted
        for place, rows, classes in ((0, right, truth), (1, slice(None), predicted), (2, slice(None), truth)):
            np.add.at(found, (units[rows], 1 + place * k + classes[rows]), 1.0)
    else:
        parts = [truth & predicted, predicted, truth] if task == "multilabel" else _squares(truth, predicted)
        found = np.zeros((n_units, 1 + 3 * k))
        np.add.at(found[:, 1:], units, np.concatenate(parts, axis=1).astype(np.float64))
    found[:, 0] = np.bincount(units, minlength=n_units)
    return found


def _squares(truth: Float64, predicted: Float64) -> list[Float64]:
    centered = np.asarray(truth, np.float64) - truth.mean(axis=0, dtype=np.float64)
    return [centered, centered**2, (np.asarray(truth, np.float64) - predicted) ** 2]


def scores(task: str, sums_m: Float64, names: Sequence[str] = ()) -> dict[str, Float64]:
    """Every metric of sums, (..., 1 + 3 k), over units.

    Parameters
    ----------
    task : str
    sums_m : ndarray, shape (..., 1 + 3 k)
    names : sequence of str
        Of classes, labels or targets; "f1: name" or "r2: name" is that of each.

    Returns
    -------
    name → ndarray, shape (...)
        R² of a target that does not vary over the rows is 0; F1 of no class is 0.
    """
    n, (first, second, third) = sums_m[..., 0], np.split(sums_m[..., 1:], 3, axis=-1)
    if task == "regression":
        total = second - first**2 / n[..., None]
        varies = total > 1e-12 * np.maximum(second, np.finfo(np.float64).tiny)
        r2 = np.where(varies, 1 - third / np.where(varies, total, 1), 0.0)
        return {"r2": r2.mean(axis=-1), **{f"r2: {name}": r2[..., place] for place, name in enumerate(names)}}
    there = third > 0
    f1 = 2 * first / np.maximum(second + third, 1)
    right, called, actual = (part.sum(axis=-1) for part in (first, second, third))
    every = n * first.shape[-1]
    return {
        "accuracy": right / n if task == "classification" else (every - called - actual + 2 * right) / every,
        "f1_macro": np.where(there, f1, 0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1),
        "f1_micro": 2 * right / np.maximum(called + actual, 1),
        **{f"f1: {name}": f1[..., place] for place, name in enumerate(names)},
    }


def constant_prediction(task: str, fitted: NDArray[Any], k: int, n: int) -> NDArray[Any]:
    """What predicts without features, for n rows: the most frequent class of the fitted rows (the first of several), each label
    where most fitted rows have it, the mean of each target.
    """
    if task == "classification":
        return np.full(n, np.bincount(fitted, minlength=k).argmax())
    mean = fitted.mean(axis=0, dtype=np.float64)
    return np.tile(mean > 0.5 if task == "multilabel" else mean, (n, 1))


def draw_units(n_units: int, draws: int, seed: int | Sequence[int]) -> NDArray[np.uint16]:
    """How often each draw takes each unit, (draws, n_units): as many units as there are, with replacement.

    They depend on these three numbers only, so that all layers and models on the same test rows share them.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, n_units), np.uint16)
    for draw in range(draws):
        counts[draw] = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)
    return counts


def effective(rows_u: NDArray[Any]) -> float:
    """How many units of equal size tell as much as these: (Σ n)² / Σ n² (Kish), but not below 4 where there are as many.

    Where few speakers have most of the rows, intervals that count all of them are too narrow: of sizes whose logarithm has a
    standard deviation of 1, .95 intervals over 12 to 48 speakers hold the truth in .91, and with this number in .93 to .96.

    Parameters
    ----------
    rows_u : ndarray, shape (u,)
        Test rows of each unit.
    """
    n = np.asarray(rows_u, np.float64)
    return float(max(min(len(n), FEWEST_BLOCKS), n.sum() ** 2 / (n @ n)))


def drawn_scores(task: str, sums_um: Float64, counts_bu: NDArray[Any], metric: str) -> Float64:
    """One metric on drawn units, (draws,), drawn out around its mean by ``sqrt(u / (u − 1))``, u the :func:`effective` number.

    Of a mean over u units, the variance over draws is (u − 1) / u of the one that is to be estimated.
    """
    b, u = len(counts_bu), effective(sums_um[:, 0])
    found = np.empty(b)
    for start in range(0, b, _DRAWS_AT_ONCE):
        part = counts_bu[start : start + _DRAWS_AT_ONCE].astype(np.float64) @ sums_um
        found[start : start + len(part)] = scores(task, part)[metric]
    return np.asarray(found.mean() + np.sqrt(u / (u - 1)) * (found - found.mean())) if b else found


def crossed(first_b: Float64, second_b: Float64) -> Float64:
    """Draws of a score over two samples at once, such as speakers and words, from draws of either: their deviations add up.

    The variance is that of both samples; what single rows vary is in both and counts twice, so it is never too small. (Drawing
    both at once and multiplying their counts, the pigeonhole bootstrap, would count it three times.)

    References
    ----------
    A. Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1.
    """
    return first_b + (second_b - second_b.mean()) if len(first_b) else first_b


def ends(metric: str, score: Any, draws_b: Float64, n_units: float) -> Float64:
    """The .95 interval of a score, shape (2, ...): :func:`fastencode.study.inference.blocks.interval`, cut where no score can be.

    Parameters
    ----------
    metric : str
        Accuracy and F1 end at 0 and 1, R² at 1.
    score : array_like, shape (...)
    draws_b : ndarray, shape (b, ...)
        None: the ends are NaN.
    n_units : float
        The :func:`effective` number; the ends are NaN where it is below four.
    """
    score = np.asarray(score, np.float64)
    if not len(draws_b):
        return np.full((2, *score.shape), np.nan)
    lowest = -np.inf if metric == "r2" else 0.0
    return np.clip(interval(score, draws_b, n_units, correlation=False), lowest, 1.0)
