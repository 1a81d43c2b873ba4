"""Ridge systems of the folds' training rows at penalties of each voxel's own, and how the held-out score depends on them.

With δ_b = γ_b / α, training rows x̌ (about their mean, times the roots of their weights) and responses y̌ solve

    dual      (1 + Σ δ_b X̌_b X̌_bᵀ) ω = y̌              predictions  Σ δ_b X_b X̌_bᵀ ω
    primal    (X̌ᵀ X̌ + diag(1 / δ)) θ = X̌ᵀ y̌            predictions  X θ

For the slope of a score S with ∂S/∂predictions = s, one more system with the same matrix is solved, A h = ∂predictionsᵀ s:

    dual      ∂S/∂log δ_b = δ_b (sᵀ K_b ω − hᵀ K_b ω), test rows and training rows
    primal    ∂S/∂log δ_b = Σ θ_i h_i / δ_b, features of the band

``cells.py`` solves them.

Legend: n = rows, p = features, b = bands, m = unknowns, q = test rows, w = voxels of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastencode.solve.banded.grams import Grams, center_kernels
from fastencode.solve.basis import centered_rows, column_means
from fastencode.solve.folds import Fold

__all__ = ["Dual", "Primal", "Rows", "Systems", "systems_of", "traces"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """A fold's rows.

    Attributes
    ----------
    train : (m,) index array
        Increasing, each once.
    root_m : (m,) float64
        Square roots of their weights times how often they are trained on.
    share_m : (m,) float64 or None
        Their parts in the mean of the training rows; None without an intercept.
    test : (q,) index array
    weights_q : (q,) float64
    """

    train: NDArray[np.intp]
    root_m: F64
    share_m: F64 | None
    test: NDArray[np.intp]
    weights_q: F64

    @classmethod
    def of(cls, fold: Fold, weights_n: F64, center: bool) -> Rows:
        """Rows of one fold; a test set may be empty."""
        times = np.bincount(fold[0], minlength=len(weights_n))
        train = np.flatnonzero(times)
        mass = weights_n[train] * times[train]
        return cls(train, np.sqrt(mass), mass / mass.sum() if center else None, fold[1], weights_n[fold[1]])

    def about_mean(self, y_nw: F64) -> tuple[F64, F64]:
        """Training responses y̌ (m, w), and their mean (w,)."""
        y_mw = y_nw[self.train]
        mean_w = np.zeros(y_mw.shape[1]) if self.share_m is None else self.share_m @ y_mw
        return (y_mw - mean_w) * self.root_m[:, None], mean_w


class Systems(ABC):
    """The matrices of all folds, linear in what :meth:`weigh` makes of δ.

    Parameters
    ----------
    grams : Grams
    folds : list of (train, test)
    """

    def __init__(self, grams: Grams, folds: list[Fold]) -> None:
        self.grams = grams
        self.n, self.p = grams.problem.X.shape
        self.rows = [Rows.of(fold, grams.root_t**2, grams.problem.fit_intercept) for fold in folds]

    @abstractmethod
    def size(self, k: int) -> int:
        """Unknowns of a fold."""

    @property
    def nbytes(self) -> int:
        """Bytes kept beside the Grams."""
        return 0

    @abstractmethod
    def weigh(self, delta_bw: F64) -> F64:
        """What the matrix is linear in, one row for each band."""

    @abstractmethod
    def matrix(self, k: int, delta_b: F64) -> F64:
        """A of a fold."""

    @abstractmethod
    def right(self, k: int, y_mw: F64) -> F64:
        """The right side for training responses."""

    @abstractmethod
    def fixed(self, k: int, x_mw: F64) -> F64:
        """The part of A @ x that does not depend on δ."""

    @abstractmethod
    def change(self, k: int, by_bw: F64, x_mw: F64) -> F64:
        """What adding ``by`` to the weighed δ adds to A @ x."""

    def change_near(self, k: int, by_bw: F64, delta_b: F64, x_mw: F64, product_mw: F64) -> F64:
        """The same, where A @ x is known at one δ."""
        return self.change(k, by_bw, x_mw)

    @abstractmethod
    def predict(self, k: int, weighed_bw: F64, x_mw: F64) -> tuple[F64, Any]:
        """Test predictions about the training mean (q, w), and what :meth:`slope` reuses."""

    @abstractmethod
    def adjoint(self, k: int, weighed_bw: F64, s_qw: F64) -> F64:
        """The right side that belongs to slopes of the predictions."""

    @abstractmethod
    def slope(self, k: int, weighed_bw: F64, kept: Any, s_qw: F64, h_mw: F64) -> F64:
        """(b, w): ∂S/∂log δ."""

    def inverse(self, k: int, delta_b: F64) -> F64:
        """A⁻¹ of a fold, symmetric."""
        # Symmetric, so its transpose will do: LAPACK need not copy it.
        factor = scipy.linalg.lapack.dpotrf(self.matrix(k, delta_b).T, lower=1, clean=1, overwrite_a=1)[0]
        inverse = np.asarray(scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)[0])
        diagonal = inverse.diagonal().copy()
        inverse += inverse.T  # the other triangle was zero
        inverse[np.diag_indices(len(inverse))] = diagonal
        return inverse


class Dual(Systems):
    """One unknown for each training row. Kernels stay whole: a fold picks and centers what goes in and what comes out."""

    def __init__(self, grams: Grams, folds: list[Fold]) -> None:
        super().__init__(grams, folds)
        assert grams.dual_btt is not None
        self.kernels_bnn = grams.dual_btt
        if grams.problem.weights is not None:  # of the features themselves
            self.kernels_bnn = grams.dual_btt / (grams.root_t[:, None] * grams.root_t)
        self.traces_b = traces(grams)

    @property
    def nbytes(self) -> int:
        return 0 if self.kernels_bnn is self.grams.dual_btt else self.kernels_bnn.nbytes

    def size(self, k: int) -> int:
        return len(self.rows[k].train)

    def weigh(self, delta_bw: F64) -> F64:
        return delta_bw

    def matrix(self, k: int, delta_b: F64) -> F64:
        rows = self.rows[k]
        out = np.zeros((len(rows.train),) * 2)
        for delta, kernel_nn in zip(delta_b, self.kernels_bnn, strict=True):
            out += delta * kernel_nn[np.ix_(rows.train, rows.train)]
        center_kernels(out[None], rows.root_m, rows.share_m is not None)
        out[np.diag_indices(len(out))] += 1.0
        return out

    def right(self, k: int, y_mw: F64) -> F64:
        return y_mw

    def fixed(self, k: int, x_mw: F64) -> F64:
        return x_mw

    def _multiply(self, k: int, at: NDArray[np.intp], values: F64, bands: Any = slice(None)) -> F64:
        """(b, n, w): kernels times values that stand at some rows, features about the training mean on both sides."""
        rows = self.rows[k]
        spread = np.zeros((self.n, values.shape[1]))
        spread[at] = values
        if rows.share_m is not None:
            spread[rows.train] -= rows.share_m[:, None] * values.sum(axis=0)
        out = np.stack([kernel_nn @ spread for kernel_nn in self.kernels_bnn[bands]])
        if rows.share_m is not None:
            out -= np.einsum("m,bmw->bw", rows.share_m, out[:, rows.train])[:, None]
        return out

    def _train(self, k: int, by_bw: F64, out_bnw: F64) -> F64:
        """A weighted sum of products with kernels at the training rows."""
        rows = self.rows[k]
        total = by_bw[0] * out_bnw[0, rows.train]
        for by_w, out_nw in zip(by_bw[1:], out_bnw[1:], strict=True):
            total += by_w * out_nw[rows.train]
        total *= rows.root_m[:, None]
        return total

    def change(self, k: int, by_bw: F64, x_mw: F64) -> F64:
        rows = self.rows[k]
        return self._train(k, by_bw, self._multiply(k, rows.train, rows.root_m[:, None] * x_mw))

    def change_near(self, k: int, by_bw: F64, delta_b: F64, x_mw: F64, product_mw: F64) -> F64:
        """The largest band's kernel is what A @ x holds beside the others."""
        last = int(np.argmax(delta_b * self.traces_b))
        share_w, rows = by_bw[last] / delta_b[last], self.rows[k]
        out = share_w * (product_mw - x_mw)
        if len(delta_b) > 1:
            others = np.arange(len(delta_b)) != last
            times = self._multiply(k, rows.train, rows.root_m[:, None] * x_mw, others)
            out += self._train(k, by_bw[others] - share_w * delta_b[others, None], times)
        return np.asarray(out)

    def predict(self, k: int, weighed_bw: F64, x_mw: F64) -> tuple[F64, Any]:
        rows = self.rows[k]
        out = self._multiply(k, rows.train, rows.root_m[:, None] * x_mw)
        return np.einsum("bw,bqw->qw", weighed_bw, out[:, rows.test]), out

    def adjoint(self, k: int, weighed_bw: F64, s_qw: F64) -> F64:
        return self._train(k, weighed_bw, self._multiply(k, self.rows[k].test, s_qw))

    def slope(self, k: int, weighed_bw: F64, kept: Any, s_qw: F64, h_mw: F64) -> F64:
        rows = self.rows[k]
        scaled = rows.root_m[:, None] * h_mw
        each = [np.einsum("qw,qw->w", s_qw, out[rows.test]) - np.einsum("mw,mw->w", scaled, out[rows.train]) for out in kept]
        return np.asarray(weighed_bw * np.stack(each))


class Primal(Systems):
    """One unknown for each feature."""

    def __init__(self, grams: Grams, folds: list[Fold]) -> None:
        super().__init__(grams, folds)
        self.band_p = grams.bands.band_of_feature
        # What every cell and step needs again: features' means over training rows, test features about them, Grams.
        self.means_kp = [self._mean(rows) for rows in self.rows]
        self.tests = [self._features(rows.test) - mean for rows, mean in zip(self.rows, self.means_kp, strict=True)]
        self.grams_kpp = [self._gram(k) for k in range(len(folds))]

    def size(self, k: int) -> int:
        return int(self.p)

    def weigh(self, delta_bw: F64) -> F64:
        return 1.0 / delta_bw

    def _features(self, rows: NDArray[np.intp]) -> F64:
        """Features of some rows about the means of all."""
        return np.subtract(self.grams.problem.X[rows], self.grams.mean_p, dtype=np.float64)

    def _mean(self, rows: Rows) -> F64:
        """Features' means over the training rows, about the means of all."""
        if rows.share_m is None:
            return np.zeros(self.p)
        return column_means(self.grams.problem.X[rows.train], rows.root_m**2) - self.grams.mean_p

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (*self.means_kp, *self.tests, *self.grams_kpp))

    def _gram(self, k: int) -> F64:
        """X̌ᵀ X̌ of a fold: that of all rows, and what differs."""
        assert self.grams.primal_pp is not None
        rows, more_n = self.rows[k], np.full(self.n, -1.0)  # how much oftener than once a row is trained on
        more_n[rows.train] += (rows.root_m / self.grams.root_t[rows.train]) ** 2
        other = np.flatnonzero(np.abs(more_n) > 0.5)
        block = centered_rows(self.grams.problem.X, self.grams.mean_p, self.grams.root_t, other)
        out = self.grams.primal_pp + (block.T * more_n[other]) @ block
        if rows.share_m is not None:
            out -= np.outer(self.means_kp[k], self.means_kp[k] * (rows.root_m @ rows.root_m))
        return np.asarray(out)

    def matrix(self, k: int, delta_b: F64) -> F64:
        out = self.grams_kpp[k].copy()
        out[np.diag_indices(self.p)] += (1.0 / delta_b)[self.band_p]
        return out

    def right(self, k: int, y_mw: F64) -> F64:
        rows = self.rows[k]
        return np.asarray(self._features(rows.train).T @ (rows.root_m[:, None] * y_mw))

    def fixed(self, k: int, x_mw: F64) -> F64:
        return self.grams_kpp[k] @ x_mw

    def change(self, k: int, by_bw: F64, x_mw: F64) -> F64:
        return np.asarray(by_bw[self.band_p] * x_mw)

    def predict(self, k: int, weighed_bw: F64, x_mw: F64) -> tuple[F64, Any]:
        return self.tests[k] @ x_mw, x_mw

    def adjoint(self, k: int, weighed_bw: F64, s_qw: F64) -> F64:
        return self.tests[k].T @ s_qw

    def slope(self, k: int, weighed_bw: F64, kept: Any, s_qw: F64, h_mw: F64) -> F64:
        both, out = kept * h_mw, np.zeros(weighed_bw.shape)
        for b, columns in enumerate(self.grams.bands.columns):
            out[b] = both[columns].sum(axis=0)
        return np.asarray(weighed_bw * out)


def systems_of(grams: Grams, folds: list[Fold]) -> Systems:
    """Systems in the space the bands were squared in."""
    return (Dual if grams.dual else Primal)(grams, folds)


def traces(grams: Grams) -> F64:
    """(b,): the trace of every band's Gram; that of a constant band is next to nothing, but not zero."""
    if grams.dual_btt is not None:
        found = np.einsum("btt->b", grams.dual_btt)
    else:
        assert grams.primal_pp is not None
        found = np.bincount(grams.bands.band_of_feature, np.diag(grams.primal_pp), len(grams.bands))
    return np.maximum(found, 1e-12 * found.max() or 1.0)
