"""Data for probes whose truth is known, and naive float64 stand-ins that know nothing of ours."""

from __future__ import annotations

from typing import Any

import numpy as np


def speech(n=600, d=20, k=4, speakers=15, seed=0, signal=1.0, accent=1.0, dtype=np.float32):
    """Features with a mean for each class and for each speaker, in very different units; classes; speakers."""
    rng = np.random.default_rng(seed)
    y, who = rng.integers(0, k, n), rng.integers(0, speakers, n)
    X = signal * rng.standard_normal((k, d))[y] + accent * rng.standard_normal((speakers, d))[who] + rng.standard_normal((n, d))
    return (X * 10 ** rng.uniform(-2, 2, d) + rng.uniform(-5, 5, d)).astype(dtype), y, who


def by_speaker(who: Any, test: float = 0.3) -> Any:
    """The first speakers are train, the others test."""
    return np.where(who < (1 - test) * (who.max() + 1), "train", "test")


def naive_loss(W: Any, b: Any, X: Any, y: Any) -> float:
    """Mean −log p of the class, or of all labels of a row, in float64."""
    z = X.astype(np.float64) @ W + b
    if y.ndim == 1:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return float(-np.log((p / p.sum(axis=1, keepdims=True))[np.arange(len(y)), y]).mean())
    return float((np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - z * y).sum(axis=1).mean())


def naive_folds(who: Any, n_folds: int) -> list[set[Any]]:
    """Speakers of each fold: those with most rows first, each to the fold with the fewest."""
    names, sizes = np.unique(who, return_counts=True)
    folds: list[set[Any]] = [set() for _ in range(n_folds)]
    filled = [0] * n_folds
    for size, place in sorted(zip((-sizes).tolist(), range(len(names)), strict=True)):
        fold = filled.index(min(filled))
        folds[fold].add(names[place])
        filled[fold] -= size
    return folds
