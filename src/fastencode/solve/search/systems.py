"""Ridge systems of the folds' training rows at penalties of each voxel's own, and how the held-out score depends on them.

With δ_b = γ_b / α, training rows x̌ (about their mean, times the roots of their weights) and responses y̌ solve

    dual      (1 + Σ δ_b X̌_b X̌_bᵀ) ω = y̌              predictions  Σ δ_b X_b X̌_bᵀ ω
    primal    (X̌ᵀ X̌ + diag(1 / δ)) θ = X̌ᵀ y̌            predictions  X θ

The derivation is in docs/solver.md, section 7. For the slope of a score S with s = ∂S/∂predictions, one more system with the same
matrix A is solved, the adjoint A h = (∂predictions/∂x)ᵀ s, x = ω or θ:

    dual      ∂S/∂log δ_b = δ_b (sᵀ K_b ω − hᵀ K_b ω), test rows and training rows
    primal    ∂S/∂log δ_b = Σ θ_i h_i / δ_b, features of the band

``cells.py`` solves these systems. Arrays lie on a device, which may be the host (``devices.HOST``).

Legend: n = rows, p = features, b = bands, m = unknowns, q = test rows, w = voxels of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.delayed import matrix_on, pick, rows_on
from fastencode.devices import HOST, Array, ArrayT, Device
from fastencode.errors import InputError
from fastencode.solve.given.folds import Fold
from fastencode.solve.plan.centered import centered_rows, column_means
from fastencode.solve.plan.grams import Grams, center_kernel

__all__ = ["HIGHEST", "Dual", "Primal", "Rows", "Systems", "check_room", "systems_of", "traces"]

# Rows of features that are made at once.
_BLOCK = 2048
# Above this δ_b trace(K_b) the condition of A leaves too few digits: it is solved no further.
HIGHEST = 1e10


@dataclass(frozen=True, eq=False)
class Rows(Generic[ArrayT]):
    """A fold's rows, in arrays of one kind.

    Attributes
    ----------
    train : (m,) index array
        Increasing, each once.
    root_m : (m,) float64
        Square roots of their weights times how often they are trained on.
    share_n : (n,) float64 or None
        The share of every row in the mean of the training rows; None without an intercept.
    test : (q,) index array
        Increasing, each once.
    weights_q : (q,) float64
        Their weights times how often they are tested on.
    from_train, from_test : (n,) index arrays
        The place of every row among the training or test rows; one past their end for all other rows.
    """

    train: ArrayT
    root_m: ArrayT
    share_n: ArrayT | None
    test: ArrayT
    weights_q: ArrayT
    from_train: ArrayT
    from_test: ArrayT

    @staticmethod
    def of(fold: Fold, weights_n: F64, center: bool) -> HostRows:
        """Rows of one fold in the host's memory; a test set may be empty."""
        mass_n, tested = (weights_n * np.bincount(rows, minlength=len(weights_n)) for rows in fold)
        train, test = np.flatnonzero(mass_n), np.flatnonzero(tested)
        places = []
        for some in (train, test):
            place_n = np.full(len(weights_n), len(some))
            place_n[some] = np.arange(len(some))
            places.append(place_n)
        return Rows(train, np.sqrt(mass_n[train]), mass_n / mass_n.sum() if center else None, test, tested[test], *places)

    def on(self, device: Device) -> Rows[Array]:
        """The same on a device."""
        there: dict[str, Any] = {name: None if a is None else device.put(a) for name, a in vars(self).items()}
        return Rows(**there)


HostRows: TypeAlias = Rows[NDArray[Any]]
T = TypeVar("T")  # what predictions leave for slopes


class Systems(ABC, Generic[T]):
    """The matrices A of all folds. A is linear in :meth:`weigh` of δ: δ itself in the dual, 1 / δ in the primal.

    Parameters
    ----------
    grams : Grams
    folds : list of (train, test)
    device : Device
        Where the matrices lie and products are made.

    Raises
    ------
    InputError
        If ``memory`` does not hold the matrices and their inverses at one δ.
    """

    def __init__(self, grams: Grams, folds: list[Fold], device: Device) -> None:
        self.grams, self.device = grams, device
        self.n, self.p = grams.problem.X.shape
        self.rows = [Rows.of(fold, grams.root_t**2, grams.problem.fit_intercept) for fold in folds]
        check_room(grams, folds)
        self.there = [rows.on(device) for rows in self.rows]

    @abstractmethod
    def size(self, k: int) -> int:
        """Unknowns of a fold."""

    @property
    def nbytes(self) -> int:
        """Bytes kept beside the Grams."""
        return _kept_bytes(self.grams, len(self.rows))

    @property
    def inverse_bytes(self) -> int:
        """Bytes of the inverses of all folds at one δ."""
        return sum(8 * self.size(k) ** 2 for k in range(len(self.rows)))

    @abstractmethod
    def weigh(self, delta_bw: Array) -> Array:
        """(b, w): what A is linear in, δ or 1 / δ."""

    @abstractmethod
    def matrix(self, k: int, delta_b: F64) -> Array:
        """A of a fold (m, m), a new array that the caller may overwrite."""

    @abstractmethod
    def right(self, k: int, y_mw: Array) -> Array:
        """(m, w): the right side for training responses, y̌ or X̌ᵀ y̌."""

    @abstractmethod
    def fixed(self, k: int, x_mw: Array) -> Array:
        """(m, w): the part of A @ x that does not depend on δ, x in the dual and X̌ᵀ X̌ @ x in the primal."""

    @abstractmethod
    def change(self, k: int, by_bw: Array, x_mw: Array) -> Array:
        """(m, w): what A @ x grows by if ``by`` is added to the weighed δ."""

    def change_near(self, k: int, by_bw: Array, delta_b: F64, x_mw: Array, product_mw: Array) -> Array:
        """As :meth:`change`, given ``product_mw`` = A @ x at ``delta_b``."""
        return self.change(k, by_bw, x_mw)

    @abstractmethod
    def predict(self, k: int, weighed_bw: Array, x_mw: Array) -> tuple[Array, T]:
        """Test predictions minus the training mean (q, w), and products that :meth:`slope` reuses."""

    @abstractmethod
    def adjoint(self, k: int, weighed_bw: Array, s_qw: Array) -> Array:
        """(m, w): the right side of the adjoint system, for s = ∂S/∂predictions."""

    @abstractmethod
    def slope(self, k: int, weighed_bw: Array, kept: T, s_qw: Array, h_mw: Array) -> Array:
        """(b, w): ∂S/∂log δ."""

    def mean(self, k: int, y_nw: Array) -> Array:
        """Mean of the training responses (w,); zeros without an intercept."""
        share_n = self.there[k].share_n
        return self.device.xp.zeros_like(y_nw[0, ...]) if share_n is None else share_n @ y_nw

    def about_mean(self, k: int, y_nw: Array) -> Array:
        """Training responses y̌ (m, w)."""
        rows = self.there[k]
        return (self.device.take(y_nw, rows.train) - self.mean(k, y_nw)) * rows.root_m[:, None]


class Dual(Systems[list[Array]]):
    """One unknown for each training row. Kernels stay whole (n, n): a fold centers vectors before and after the products."""

    def __init__(self, grams: Grams, folds: list[Fold], device: Device) -> None:
        super().__init__(grams, folds, device)
        assert grams.dual_btt is not None
        kernels_bnn = grams.dual_btt
        if grams.problem.weights is not None:  # a fold has weights of its own: take those of the rows out again
            kernels_bnn = grams.dual_btt / (grams.root_t[:, None] * grams.root_t)
        self.kernels = [device.put(kernel_nn) for kernel_nn in kernels_bnn]
        self.traces_b = traces(grams)

    def size(self, k: int) -> int:
        return len(self.rows[k].train)

    def weigh(self, delta_bw: Array) -> Array:
        return delta_bw

    def matrix(self, k: int, delta_b: F64) -> Array:
        device, rows, m = self.device, self.there[k], self.size(k)
        out = device.zeros(m, m, dtype=np.float64)
        for delta, kernel_nn in zip(delta_b, self.kernels, strict=True):
            out += float(delta) * device.take(device.take(kernel_nn, rows.train), rows.train, axis=1)
        center_kernel(out, rows.root_m, rows.share_n is not None)
        return device.add_to_diagonal(out, 1.0)

    def right(self, k: int, y_mw: Array) -> Array:
        return y_mw

    def fixed(self, k: int, x_mw: Array) -> Array:
        return x_mw

    def _spread(self, values: Array, places: Array) -> Array:
        """(n, w): values where they stand among all rows, zeros elsewhere."""
        zero_1w = self.device.zeros(1, values.shape[1], dtype=np.float64)
        return self.device.take(self.device.concatenate([values, zero_1w]), places)

    def _multiply(self, k: int, values: Array, places: Array, leave_out: int | None = None) -> list[Array]:
        """(n, w) for each band: K_b @ values placed among all rows, features minus their training means on both sides."""
        rows, xp = self.there[k], self.device.xp
        spread = self._spread(values, places)
        if rows.share_n is not None:
            spread -= rows.share_n[:, None] * xp.sum(values, axis=0)[None, :]
        # products[b] = K[b] @ spread
        products = [kernel_nn @ spread for b, kernel_nn in enumerate(self.kernels) if b != leave_out]
        if rows.share_n is not None:
            for out in products:
                out -= (rows.share_n @ out)[None, :]
        return products

    def _train(self, k: int, by_bw: Array, products: list[Array]) -> Array:
        """(m, w): Σ_b by_b products_b at the training rows, times the roots of their weights."""
        rows, take = self.there[k], self.device.take
        total = take(products[0], rows.train)
        total *= by_bw[0, :]
        for b, out_nw in enumerate(products[1:], 1):
            total += by_bw[b, :] * take(out_nw, rows.train)
        total *= rows.root_m[:, None]
        return total

    def change(self, k: int, by_bw: Array, x_mw: Array) -> Array:
        rows = self.there[k]
        return self._train(k, by_bw, self._multiply(k, rows.root_m[:, None] * x_mw, rows.from_train))

    def change_near(self, k: int, by_bw: Array, delta_b: F64, x_mw: Array, product_mw: Array) -> Array:
        """Saves the product with the largest kernel L: K_L x = (A x − x − Σ_{b ≠ L} δ_b K_b x) / δ_L."""
        last, rows, device = int(np.argmax(delta_b * self.traces_b)), self.there[k], self.device
        share_w = by_bw[last, :] / float(delta_b[last])
        out = share_w * (product_mw - x_mw)
        if len(delta_b) > 1:
            others = np.flatnonzero(np.arange(len(delta_b)) != last)
            by = device.take(by_bw, device.put(others)) - share_w * device.put(delta_b[others, None])
            out += self._train(k, by, self._multiply(k, rows.root_m[:, None] * x_mw, rows.from_train, last))
        return out

    def predict(self, k: int, weighed_bw: Array, x_mw: Array) -> tuple[Array, list[Array]]:
        rows, take = self.there[k], self.device.take
        products = self._multiply(k, rows.root_m[:, None] * x_mw, rows.from_train)
        predicted = weighed_bw[0, :] * take(products[0], rows.test)
        for b, out_nw in enumerate(products[1:], 1):
            predicted += weighed_bw[b, :] * take(out_nw, rows.test)
        return predicted, products

    def adjoint(self, k: int, weighed_bw: Array, s_qw: Array) -> Array:
        return self._train(k, weighed_bw, self._multiply(k, s_qw, self.there[k].from_test))

    def slope(self, k: int, weighed_bw: Array, kept: list[Array], s_qw: Array, h_mw: Array) -> Array:
        rows, device = self.there[k], self.device
        scaled = rows.root_m[:, None] * h_mw
        each = [
            device.dots(s_qw, device.take(out, rows.test)) - device.dots(scaled, device.take(out, rows.train)) for out in kept
        ]
        return weighed_bw * device.xp.stack(each)


class Primal(Systems[Array]):
    """One unknown for each feature."""

    def __init__(self, grams: Grams, folds: list[Fold], device: Device) -> None:
        super().__init__(grams, folds, device)
        self.X, self.mean_p = matrix_on(device, grams.problem.X), device.put(grams.mean_p)
        self.band_p = device.put(np.asarray(grams.bands.band_of_feature, dtype=np.int64))
        self.columns = [device.put(np.asarray(columns, dtype=np.int64)) for columns in grams.bands.columns]
        # Kept because every cell and step needs them: features' means over the training rows, and Grams.
        means = [self._mean(rows) for rows in self.rows]
        self.means = [device.put(mean_p) for mean_p in means]
        self.grams_kpp = [device.put(self._gram(rows, mean_p)) for rows, mean_p in zip(self.rows, means, strict=True)]

    def size(self, k: int) -> int:
        return int(self.p)

    def weigh(self, delta_bw: Array) -> Array:
        return 1.0 / delta_bw

    def _features(self, rows: Array) -> Array:
        """(rows, p): features of some rows minus the means of all rows."""
        return self.device.cast(rows_on(self.device, self.X, rows), np.float64) - self.mean_p

    def _tests(self, k: int) -> Array:
        """(q, p): features of the test rows minus the means of the training rows."""
        return self._features(self.there[k].test) - self.means[k]

    def _mean(self, rows: HostRows) -> F64:
        """(p,): features' means over the training rows minus the means of all rows."""
        if rows.share_n is None:
            return np.zeros(self.p)
        return column_means(pick(self.grams.problem.X, rows.train), rows.root_m**2) - self.grams.mean_p

    def _gram(self, rows: HostRows, mean_p: F64) -> F64:
        """X̌ᵀ X̌ of a fold (p, p): that of all rows, plus the rows that are not trained on exactly once."""
        assert self.grams.primal_pp is not None
        more_n = np.full(self.n, -1.0)  # how often a row is trained on, minus one
        more_n[rows.train] += (rows.root_m / self.grams.root_t[rows.train]) ** 2
        other = np.flatnonzero(np.abs(more_n) > 0.5)
        block = centered_rows(self.grams.problem.X, self.grams.mean_p, self.grams.root_t, other)
        # X̌ᵀ X̌ = X̌_allᵀ X̌_all + X̌_otherᵀ diag(more) X̌_other - mass · m mᵀ
        out = self.grams.primal_pp + (block.T * more_n[other]) @ block
        if rows.share_n is not None:
            out -= np.outer(mean_p, mean_p * (rows.root_m @ rows.root_m))
        return np.asarray(out)

    def matrix(self, k: int, delta_b: F64) -> Array:
        ridge_p = self.device.put((1.0 / delta_b)[self.grams.bands.band_of_feature])
        return self.device.add_to_diagonal(1.0 * self.grams_kpp[k], ridge_p)

    def right(self, k: int, y_mw: Array) -> Array:
        rows, right_mw = self.there[k], self.there[k].root_m[:, None] * y_mw
        out = self.device.zeros(self.p, y_mw.shape[1], dtype=np.float64)
        for first in range(0, self.rows[k].train.size, _BLOCK):
            some = slice(first, min(first + _BLOCK, self.rows[k].train.size))
            # out = X̌ᵀ y̌, block by block of rows
            out += self._features(rows.train[some]).T @ right_mw[some, ...]
        return out

    def fixed(self, k: int, x_mw: Array) -> Array:
        return self.grams_kpp[k] @ x_mw

    def change(self, k: int, by_bw: Array, x_mw: Array) -> Array:
        return self.device.take(by_bw, self.band_p) * x_mw

    def predict(self, k: int, weighed_bw: Array, x_mw: Array) -> tuple[Array, Array]:
        return self._tests(k) @ x_mw, x_mw

    def adjoint(self, k: int, weighed_bw: Array, s_qw: Array) -> Array:
        return self._tests(k).T @ s_qw

    def slope(self, k: int, weighed_bw: Array, kept: Array, s_qw: Array, h_mw: Array) -> Array:
        both, xp = kept * h_mw, self.device.xp
        return weighed_bw * xp.stack([xp.sum(self.device.take(both, columns), axis=0) for columns in self.columns])


def _kept_bytes(grams: Grams, n_folds: int) -> int:
    """Bytes that systems keep beside the Grams: kernels without weights of rows, or the Gram and means of every fold."""
    if grams.dual_btt is not None:
        return 0 if grams.problem.weights is None else grams.dual_btt.nbytes
    p = grams.problem.X.shape[1]
    return 8 * p * (1 + p) * n_folds


def check_room(grams: Grams, folds: list[Fold]) -> None:
    """``InputError`` if ``memory`` does not hold the matrices of all folds, their inverses at one δ, and one more matrix."""
    memory, p = grams.problem.memory, grams.problem.X.shape[1]
    squares = [8 * (len(np.unique(train)) if grams.dual else p) ** 2 for train, _ in folds]
    least = grams.nbytes + _kept_bytes(grams, len(folds)) + sum(squares) + max(squares)
    if memory is not None and least > memory:
        raise InputError(
            f"memory={memory} bytes is too small for penalties of each voxel's own: the smallest that works is {least} bytes, "
            "plus tiles of responses"
        )


def systems_of(grams: Grams, folds: list[Fold], device: Device | None = None) -> Systems:
    """Dual or primal systems, as the bands were squared."""
    return (Dual if grams.dual else Primal)(grams, folds, HOST if device is None else device)


def traces(grams: Grams) -> F64:
    """(b,): the trace of every band's Gram, at least 1e-12 of the largest, so that logarithms of it are finite."""
    if grams.dual_btt is not None:
        found = np.einsum("btt->b", grams.dual_btt)
    else:
        assert grams.primal_pp is not None
        found = np.bincount(grams.bands.band_of_feature, np.diag(grams.primal_pp), len(grams.bands))
    return np.maximum(found, 1e-12 * found.max() or 1.0)
