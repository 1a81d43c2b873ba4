"""Grams, and one symmetric eigendecomposition of each: a ridge problem in the basis where the penalty is diagonal.

With centered training rows X = U diag(s) Vᵀ and λ = s², ridge weights are V diag(1 / (λ + α)) (VᵀXᵀ) y for every α. So two
operators carry everything: ``analyze`` (r × n_train) turns responses into r coefficients, a map out of the basis turns scaled
coefficients into predictions or weights. Primal: the p × p Gram gives V, analyze = VᵀXᵀ. Dual: the n × n Gram gives U,
analyze = Uᵀ, and predictions come from X_test Xᵀ U. Both are made in float64 whatever the input, since a Gram squares
the condition of X, and stored in the input's dtype.

Legend: t = time, p = features, r = directions kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.solve.folds import Fold

__all__ = ["DualBuilder", "FoldSpectrum", "FullSpectrum", "PrimalBuilder", "column_means"]

F64 = NDArray[np.float64]
# A training Gram got by subtraction keeps its digits while it is not a small remainder of the total.
_SMALL_REMAINDER = 1e-3
_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class FoldSpectrum:
    """One fold: which rows, the spectrum of its training rows, and the two operators.

    Attributes
    ----------
    train, test : index arrays
    lam : (r,) float64, increasing and positive
    analyze : (r, n_train)
    predict : (n_test, r)
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    lam: F64
    analyze: NDArray[Any]
    predict: NDArray[Any]


@dataclass(frozen=True, eq=False)
class FullSpectrum:
    """All rows: what the refit needs. Weights are ``features @ (basis @ scaled)``; a primal plan has no ``features``.

    Attributes
    ----------
    lam : (r,) float64
    analyze : (r, t)
    basis : (p, r) primal, (t, r) dual
    features : (p, t) centered design, transposed; dual only
    """

    lam: F64
    analyze: NDArray[Any]
    basis: NDArray[Any]
    features: NDArray[Any] | None


def column_means(X: NDArray[Any]) -> F64:
    """Column means in float64, exact for a constant column: taken relative to the first row."""
    if len(X) == 0:
        return np.zeros(X.shape[1])
    total = np.zeros(X.shape[1])
    with np.errstate(over="ignore"):  # the Gram will not be finite either, and is checked
        for start in range(0, len(X), _BLOCK):
            total += np.subtract(X[start : start + _BLOCK], X[0], dtype=np.float64).sum(axis=0)
    return X[0].astype(np.float64) + total / len(X)


def _rows(X: NDArray[Any], mean: F64, rows: NDArray[np.intp] | slice) -> F64:
    return np.subtract(X[rows], mean, dtype=np.float64)


def _decompose(gram: F64, size: int, growth: float = 1.0) -> tuple[F64, F64]:
    """Eigenvalues above the rounding of the Gram, and their vectors.

    What lies below ``size`` roundings of the largest eigenvalue is not in the data but in the arithmetic (times ``growth``, how
    much larger the total was that the Gram was subtracted from), and would be blown up by a penalty smaller than itself.
    """
    lam, vectors = np.linalg.eigh(gram)
    floor = np.finfo(np.float64).eps * size * growth * max(float(lam[-1]), 0.0)
    keep = int(np.searchsorted(lam, floor, side="right"))
    return lam[keep:], vectors[:, keep:]


class _Builder:
    """What both forms share: the design, its means, and the dtype to store in."""

    def __init__(self, X: NDArray[Any], center: bool) -> None:
        self.X = X
        self.center = center
        self.mean = column_means(X) if center else np.zeros(X.shape[1])
        self.store_in = X.dtype

    def _store(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array, dtype=self.store_in)

    def _refuse_overflow(self, gram: F64) -> None:
        # Predictions times (λ_max + α) must fit the dtype, for responses of any sensible size.
        if not np.trace(gram) < 1e-8 * np.finfo(self.store_in).max:
            raise InputError(f"X holds values too large to square and add up in {self.store_in}; rescale its columns")


class PrimalBuilder(_Builder):
    """Fold spectra from the p × p Gram of all rows: training Gram = total − rest."""

    def __init__(self, X: NDArray[Any], center: bool) -> None:
        super().__init__(X, center)
        with np.errstate(all="ignore"):
            self.gram, _ = self._gram(np.arange(len(X)))
        self._refuse_overflow(self.gram)

    def _gram(self, rows: NDArray[np.intp]) -> tuple[F64, F64]:
        """Gram and column sums of some rows, relative to the overall mean."""
        p = self.X.shape[1]
        gram, total = np.zeros((p, p)), np.zeros(p)
        for start in range(0, len(rows), _BLOCK):
            block = _rows(self.X, self.mean, rows[start : start + _BLOCK])
            gram += block.T @ block
            total += block.sum(axis=0)
        return gram, total

    def _training_gram(self, train: NDArray[np.intp]) -> tuple[F64, F64, float]:
        """Centered Gram of the training rows, their mean relative to the overall one, and how much cancelled."""
        rest = np.setdiff1d(np.arange(len(self.X)), train)
        whole = float(np.trace(self.gram))
        growth = 1.0
        if len(rest) < len(train) and len(rest) + len(train) == len(self.X):
            gram, total = self._gram(rest)
            gram, total = self.gram - gram, -total  # relative to the overall mean, all rows sum to zero
            growth = whole / max(float(np.trace(gram)), np.finfo(float).tiny)
        if len(rest) >= len(train) or len(rest) + len(train) != len(self.X) or growth > 1 / _SMALL_REMAINDER:
            gram, total = self._gram(train)
            growth = 1.0
        if not self.center:
            return gram, np.zeros_like(total), growth
        shift = total / len(train)
        gram -= len(train) * np.outer(shift, shift)
        return gram, shift, growth

    def fold(self, fold: Fold) -> FoldSpectrum:
        """The spectrum of one fold."""
        train, test = fold
        gram, shift, growth = self._training_gram(train)
        lam, V = _decompose(gram, max(gram.shape[0], len(train)), growth)
        mean = self.mean + shift
        return FoldSpectrum(train, test, lam, self._project(V, mean, train).T.copy(), self._project(V, mean, test))

    def full(self) -> FullSpectrum:
        """The spectrum of all rows."""
        lam, V = _decompose(self.gram, max(self.X.shape))
        analyze = self._project(V, self.mean, np.arange(len(self.X))).T.copy()
        return FullSpectrum(lam, analyze, self._store(V), None)

    def _project(self, V: F64, mean: F64, rows: NDArray[np.intp]) -> NDArray[Any]:
        """(X[rows] − mean) V, block by block."""
        out = np.empty((len(rows), V.shape[1]), dtype=self.store_in)
        for start in range(0, len(rows), _BLOCK):
            out[start : start + _BLOCK] = _rows(self.X, mean, rows[start : start + _BLOCK]) @ V
        return out


class DualBuilder(_Builder):
    """Fold spectra from the n × n Gram of all rows: a fold's Gram is a submatrix of it."""

    def __init__(self, X: NDArray[Any], center: bool) -> None:
        super().__init__(X, center)
        self.kernel = np.zeros((len(X), len(X)))
        with np.errstate(all="ignore"):
            for start in range(0, X.shape[1], _BLOCK):
                block = np.subtract(X[:, start : start + _BLOCK], self.mean[start : start + _BLOCK], dtype=np.float64)
                self.kernel += block @ block.T
        self._refuse_overflow(self.kernel)

    def fold(self, fold: Fold) -> FoldSpectrum:
        """The spectrum of one fold."""
        train, test = fold
        gram = self.kernel[np.ix_(train, train)]
        cross = self.kernel[np.ix_(test, train)]
        if self.center:
            mean = gram.mean(axis=0)
            cross -= mean
            cross -= cross.mean(axis=1, keepdims=True)
            gram -= mean
            gram -= gram.mean(axis=1, keepdims=True)
        lam, U = _decompose(gram, max(len(train), self.X.shape[1]))
        return FoldSpectrum(train, test, lam, self._store(U.T), self._store(cross @ U))

    def full(self) -> FullSpectrum:
        """The spectrum of all rows."""
        lam, U = _decompose(self.kernel, max(self.X.shape))
        return FullSpectrum(lam, self._store(U.T), self._store(U), self._features())

    def _features(self) -> NDArray[Any]:
        """Centered design, transposed; without centering the user's own memory."""
        if not self.center:
            return self.X.T
        features = np.empty(self.X.shape[::-1], dtype=self.store_in)
        for start in range(0, len(features), _BLOCK):
            here = slice(start, start + _BLOCK)
            features[here] = np.subtract(self.X[:, here], self.mean[here], dtype=np.float64).T
        return features
