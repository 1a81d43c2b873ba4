"""Metrics of probes, computed from sums over test rows, so that a bootstrap over speakers only adds up sums.

``sums`` has one row for each unit (a speaker, or an utterance if there are no speakers). ``scores`` computes all metrics from
sums over all units or over resampled units:

    accuracy   share of rows with the right class; with several labels, share of right (row, label) pairs
    f1_macro   mean over classes of 2 tp / (predicted + actual); classes without rows are left out
    f1_micro   2 Σ tp / (Σ predicted + Σ actual) over classes; with one class per row, this is the accuracy
    r2         mean over targets of 1 − Σ (y − ŷ)² / Σ (y − ȳ)², with ȳ the mean over the scored rows

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
    """The sums of each unit from which all metrics follow.

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
        Number of rows; then true positives, predicted positives and actual positives of each class; or Σ y, Σ y² and Σ (y − ŷ)²
        of each target, with y centered by its mean over all rows.
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
    """All metrics from sums over units.

    Parameters
    ----------
    task : str
    sums_m : ndarray, shape (..., 1 + 3 k)
    names : sequence of str
        Names of classes, labels or targets, for the metrics "f1: name" or "r2: name" of each.

    Returns
    -------
    name → ndarray, shape (...)
        R² of a constant target is 0; macro F1 without classes is 0.
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
    """The baseline without features, for n rows: the most frequent class of the fitted rows (the first if there are several),
    each label that most fitted rows have, or the mean of each target.
    """
    if task == "classification":
        return np.full(n, np.bincount(fitted, minlength=k).argmax())
    mean = fitted.mean(axis=0, dtype=np.float64)
    return np.tile(mean > 0.5 if task == "multilabel" else mean, (n, 1))


def draw_units(n_units: int, draws: int, seed: int | Sequence[int]) -> NDArray[np.uint16]:
    """Bootstrap counts: how often each draw contains each unit, (draws, n_units), drawn with replacement.

    They depend on the three arguments only, so all layers and models with the same test rows have the same draws.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, n_units), np.uint16)
    for draw in range(draws):
        counts[draw] = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)
    return counts


def effective(rows_u: NDArray[Any]) -> float:
    """Effective number of units of equal size: (Σ n)² / Σ n² (Kish), but at least 4 if there are 4 units.

    If few speakers have most of the rows, intervals that count all speakers are too narrow. For sizes whose logarithm has a
    standard deviation of 1, .95 intervals over 12 to 48 speakers cover the truth in .91 of simulations, and with this number in
    .93 to .96.

    Parameters
    ----------
    rows_u : ndarray, shape (u,)
        Number of test rows of each unit.
    """
    n = np.asarray(rows_u, np.float64)
    return float(max(min(len(n), FEWEST_BLOCKS), n.sum() ** 2 / (n @ n)))


def drawn_scores(task: str, sums_um: Float64, counts_bu: NDArray[Any], metric: str) -> Float64:
    """One metric on resampled units, (draws,), stretched around its mean by ``sqrt(u / (u − 1))``, u their effective number.

    Without this, the variance over draws of a mean over u units would be too small by (u − 1) / u.
    """
    b, u = len(counts_bu), effective(sums_um[:, 0])
    found = np.empty(b)
    for start in range(0, b, _DRAWS_AT_ONCE):
        part = counts_bu[start : start + _DRAWS_AT_ONCE].astype(np.float64) @ sums_um
        found[start : start + len(part)] = scores(task, part)[metric]
    return np.asarray(found.mean() + np.sqrt(u / (u - 1)) * (found - found.mean())) if b else found


def crossed(first_b: Float64, second_b: Float64) -> Float64:
    """Draws of a score over two samples, such as speakers and words: the deviations of the draws of each are added.

    The variance is the sum of both. Variation between single rows is in both and counts twice, so the variance is never too
    small. (The pigeonhole bootstrap, which draws both at once and multiplies their counts, would count it three times.)

    References
    ----------
    A. Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1.
    """
    return first_b + (second_b - second_b.mean()) if len(first_b) else first_b


def ends(metric: str, score: Any, draws_b: Float64, n_units: float) -> Float64:
    """The .95 interval of a score, shape (2, ...), cut to the range of the metric.

    See :func:`fastencode.study.inference.blocks.interval`.

    Parameters
    ----------
    metric : str
        Accuracy and F1 range from 0 to 1, R² up to 1.
    score : array_like, shape (...)
    draws_b : ndarray, shape (b, ...)
        With b = 0, the ends are NaN.
    n_units : float
        The :func:`effective` number. With less than four, the ends are NaN.
    """
    score = np.asarray(score, np.float64)
    if not len(draws_b):
        return np.full((2, *score.shape), np.nan)
    lowest = -np.inf if metric == "r2" else 0.0
    return np.clip(interval(score, draws_b, n_units, correlation=False), lowest, 1.0)
