"""Penalised linear classifiers on one matrix of features: multinomial logistic regression, and logistic regression of each label.

The objective is ``sum of losses over rows + α / 2 · ‖W‖²`` with an unpenalised intercept. This equals scikit-learn's
``LogisticRegression`` with ``C = 1 / α``; with two classes, for which scikit-learn has one column of W, with ``C = 2 / α``. The
loss of a row is −log of the probability of its class, or the sum of this over its labels.

It is minimised by L-BFGS. Plain L-BFGS starts from a multiple of the identity as inverse Hessian; here, it starts from
``(c_k · XᵀX + α)⁻¹`` for class k, with c_k the mean of p (1 − p) over rows. Features of speech models are strongly correlated, so
plain L-BFGS needs several times as many steps (``bench/probes.py``). A step reads X once, by tiles that fit into the cache.

Axis letters: n row, d feature, k class or label, g tile. A parameter matrix is (d + 1, k), its last row the intercepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from fastencode.errors import warn
from fastencode.threads import available_threads, limit_threads

__all__ = ["Curvature", "Labels", "Objective", "decisions", "held_out_loss", "minimise", "priors", "workers"]

Floats = NDArray[np.floating[Any]]

_TILE = 1024  # rows: 3 MB of 768 float32 features; from 512 to 5000 the time is the same within 10 %
_GRAM_TILE = 8192
_MEMORY = 10  # pairs of steps and slopes that L-BFGS remembers
_MOST = 1000  # steps
_SUFFICIENT = 1e-4  # a step has to gain this share of what its slope promises
_SMALLEST = 2.0**-20  # of a step: below, rounding hides the gain
_LEAST_CURVATURE = 1e-6


class Labels(NamedTuple):
    """Labels of rows.

    Attributes
    ----------
    values : ndarray
        (n,) integers 0 … k − 1: each row has one class. (n, k) of 0.0 and 1.0: each row has any of the labels.
    k : int
        Classes or labels.
    """

    values: NDArray[Any]
    k: int

    @property
    def several(self) -> bool:
        return self.values.ndim == 2


@contextmanager
def workers() -> Iterator[Executor]:
    """A pool of as many threads as BLAS may use now; BLAS has one thread inside it."""
    n = available_threads()
    with limit_threads(1), ThreadPoolExecutor(n) as pool:
        yield pool


class Curvature(NamedTuple):
    """Eigenvalues and eigenvectors of XᵀX, and its number of rows. It is only a preconditioner, so it need not be exact."""

    values: Floats
    vectors: Floats
    n: int

    @classmethod
    def of(cls, X_nd: Floats, pool: Executor) -> Curvature:
        """All rows, in the dtype of X."""
        tiles = [X_nd[start : start + _GRAM_TILE] for start in range(0, len(X_nd), _GRAM_TILE)]
        gram = sum(pool.map(lambda x: x.T @ x, tiles), np.zeros((X_nd.shape[1],) * 2, X_nd.dtype))
        values, vectors = np.linalg.eigh(gram)
        return cls(np.maximum(values, 0), vectors, len(X_nd))

    def solve(self, g: Floats, c_k: Floats, n: int, alpha: float, centered: bool) -> Floats:
        """``(c_k n / n_gram · XᵀX + α)⁻¹ g`` of each class; intercepts are divided by ``n c_k``.

        ``centered`` subtracts the mean over classes, because adding the same to all classes changes no probability.
        """
        out = np.empty_like(g)
        scaled = np.outer(self.values * (n / self.n), c_k) + alpha
        out[:-1] = self.vectors @ ((self.vectors.T @ g[:-1]) / scaled.astype(g.dtype))
        out[-1] = g[-1] / (n * c_k)
        if centered:
            out -= out.mean(axis=1, keepdims=True)
        return out


def _softmax_tile(theta: Floats, x: Floats, y: NDArray[Any]) -> tuple[float, Floats, Floats]:
    """Loss, p − y and the sum of p (1 − p) of each class over a tile of rows with one class each."""
    z = x @ theta[:-1]
    z += theta[-1]
    z -= z.max(axis=1, keepdims=True)
    rows = np.arange(len(z))
    of_truth = z[rows, y].sum(dtype=np.float64)
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    loss = np.log(total).sum(dtype=np.float64) - of_truth
    z /= total
    curvature = z.sum(axis=0) - np.einsum("nk,nk->k", z, z)
    z[rows, y] -= 1
    return float(loss), z, curvature


def _sigmoid_tile(theta: Floats, x: Floats, y: Floats) -> tuple[float, Floats, Floats]:
    """The same for rows with any number of labels."""
    z = x @ theta[:-1]
    z += theta[-1]
    loss = np.logaddexp(0, z).sum(dtype=np.float64) - np.einsum("nk,nk->", z, y, dtype=np.float64)
    p = scipy.special.expit(z)
    curvature = p.sum(axis=0) - np.einsum("nk,nk->k", p, p)
    p -= y
    return float(loss), p, curvature


class Objective:
    """The sum of losses over some rows, with its gradient.

    Parameters
    ----------
    X_nd : ndarray, shape (n, d), float32 or float64
        Standardised features, C-contiguous.
    labels : Labels
        Of all rows of X.
    ranges : sequence of (start, stop)
        The rows that count.
    pool : Executor
        Of :func:`workers`.
    """

    def __init__(self, X_nd: Floats, labels: Labels, ranges: Sequence[tuple[int, int]], pool: Executor) -> None:
        self._X, self._labels, self._pool, self.several = X_nd, labels, pool, labels.several
        self._tiles = [slice(i, min(i + _TILE, stop)) for start, stop in ranges for i in range(start, stop, _TILE)]
        self.n = sum(stop - start for start, stop in ranges)
        self.evaluations = 0

    def _tile(self, theta: Floats, rows: slice) -> tuple[float, Floats, Floats]:
        x = self._X[rows]
        inner = _sigmoid_tile if self._labels.several else _softmax_tile
        loss, r, curvature = inner(theta, x, self._labels.values[rows])
        slope = np.empty_like(theta)
        np.matmul(x.T, r, out=slope[:-1])
        slope[-1] = r.sum(axis=0)
        return loss, slope, curvature

    def __call__(self, theta: Floats, alpha: float) -> tuple[float, Floats, Floats]:
        """Penalised sum of losses, its slope (d + 1, k), and mean p (1 − p) of each class.

        Tiles are added up in a fixed order, so results are bit-identical for any number of threads.
        """
        self.evaluations += 1
        loss, slope, curvature = 0.0, np.zeros_like(theta), np.zeros(theta.shape[1])
        for one, its_slope, its_curvature in self._pool.map(lambda rows: self._tile(theta, rows), self._tiles):
            loss += one
            slope += its_slope
            curvature += its_curvature
        weights = theta[:-1]
        slope[:-1] += theta.dtype.type(alpha) * weights
        return loss + alpha / 2 * _dot(weights, weights), slope, np.maximum(curvature / self.n, _LEAST_CURVATURE)


def _dot(a: Floats, b: Floats) -> float:
    return float(np.einsum("dk,dk->", a, b, dtype=np.float64))


class _Pair(NamedTuple):
    step: Floats
    change: Floats  # of the slope
    inverse: float  # 1 / step · change


def _direction(pairs: Sequence[_Pair], slope: Floats, solve: Any) -> Floats:
    """The step that L-BFGS would take, times −1."""
    kind, q, shares = slope.dtype.type, slope.copy(), []
    for pair in reversed(pairs):
        shares.append(pair.inverse * _dot(pair.step, q))
        q -= kind(shares[-1]) * pair.change
    p: Floats = solve(q)
    if pairs:
        last = pairs[-1]
        p *= kind(1 / (last.inverse * _dot(last.change, solve(last.change))))
    for pair, share in zip(pairs, reversed(shares), strict=True):
        p += kind(share - pair.inverse * _dot(pair.change, p)) * pair.step
    return p


def minimise(objective: Objective, theta: Floats, alpha: float, curvature: Curvature, *, tolerance: float) -> Floats:
    """Parameters at which the penalised sum of losses is smallest.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (d + 1, k)
        Initial parameters.
    alpha : float
        Weight of ‖W‖² / 2.
    curvature : Curvature
    tolerance : float
        Stop when the next step is expected to lower the loss by less than this per row, or by less than rounding error.

    Warns
    -----
    FastencodeWarning
        If 1000 steps do not reach this.
    """
    loss, slope, c_k = objective(theta, alpha)
    pairs: list[_Pair] = []
    rounding = float(np.finfo(theta.dtype).eps)
    for _ in range(_MOST):
        solve = partial(curvature.solve, c_k=c_k, n=objective.n, alpha=alpha, centered=not objective.several)
        p = _direction(pairs, slope, solve)
        promised = _dot(slope, p)
        if promised / 2 <= tolerance * objective.n:
            return theta
        size, allowed = 1.0, rounding * abs(loss)
        while True:
            there = theta - theta.dtype.type(size) * p
            new_loss, new_slope, new_c = objective(there, alpha)
            if new_loss <= loss - _SUFFICIENT * size * promised + allowed:
                break
            size /= 2
            if size < _SMALLEST:
                return theta
        step, change = there - theta, new_slope - slope
        curved = _dot(step, change)
        if curved > rounding * np.sqrt(_dot(step, step) * _dot(change, change)):
            pairs = [*pairs[1 - _MEMORY :], _Pair(step, change, 1 / curved)]
        theta, loss, slope, c_k = there, new_loss, new_slope, new_c
    warn(f"a classifier with penalty {alpha:.4g} did not converge in {_MOST} steps: use larger penalties")
    return theta


def priors(labels: Labels, ranges: Sequence[tuple[int, int]], d: int, dtype: Any) -> Floats:
    """Parameters without features: log of the share of each class, or log odds of each label, among these rows."""
    theta = np.zeros((d + 1, labels.k), dtype)
    values = np.concatenate([labels.values[start:stop] for start, stop in ranges])
    if labels.several:
        theta[-1] = scipy.special.logit((values.sum(axis=0) + 0.5) / (len(values) + 1))
    else:
        theta[-1] = np.log((np.bincount(values, minlength=labels.k) + 0.5) / (len(values) + labels.k / 2))
        theta[-1] -= theta[-1].mean()
    return theta


def decisions(theta: Floats, X_nd: Floats) -> Floats:
    """``X W + b``, shape (n, k): the class is the largest, a label is there where it is above 0."""
    return np.asarray(X_nd @ theta[:-1] + theta[-1])


def held_out_loss(theta: Floats, X_nd: Floats, labels: Labels) -> float:
    """The sum of losses of rows without the penalty; rows with class −1 do not count."""
    z = decisions(theta, X_nd).astype(np.float64)
    if labels.several:
        return float(np.logaddexp(0, z).sum() - (z * labels.values).sum())
    known = np.flatnonzero(labels.values >= 0)
    return float((scipy.special.logsumexp(z[known], axis=1) - z[known, labels.values[known]]).sum())
