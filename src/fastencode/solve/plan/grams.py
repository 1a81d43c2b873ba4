"""One Gram of all features, or one kernel for each band: what all weightings γ share (docs/solver.md, 7, "Candidates").

Banded ridge with weights γ is ridge on the features of band b times √γ_b. The primal Gram of that has rows and columns times √γ;
the dual Gram is Σ γ_b K_b. A band of weight zero takes no part.

Legend: t = time, p = features, b = bands, r = directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.delayed import pick
from fastencode.devices import HOST, Array, ArrayT, Device
from fastencode.errors import InputError
from fastencode.solve.given.bands import Bands
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan.basis import (
    Basis,
    cancels,
    decompose,
    decompose_features,
    directions_of_kernel,
    directions_of_rows,
    in_both_places,
    rounding_of,
    sharpened_where,
    tau_of,
)
from fastencode.solve.plan.centered import column_means, dual_map, gram_of, kernel_of, largest_square, times_vectors

__all__ = ["Grams", "center_kernel", "gram_bytes", "make_grams"]


@dataclass(frozen=True, eq=False)
class Grams:
    """Gram or kernels of the bands of a design.

    Attributes
    ----------
    problem : Problem
        Its X has no columns where only kernels were given.
    bands : Bands
    primal_pp : (p, p) float64 or None
        X̌ᵀ X̌.
    dual_btt : (b, t, t) float64 or None
        X̌_b X̌_bᵀ of each band: centered if there is an intercept, times the roots of the weights.
    mean_p : (p,) float64
        Subtracted from X; zeros without an intercept.
    mean_bt : (b, t) float64 or None
        Weighted column means of given kernels.
    root_t : (t,) float64
    rounding_b : (b,) float64
        Of given kernels: the rounding of their values before they were centered, as one of eigenvalues; else zeros.
    """

    problem: Problem
    bands: Bands
    primal_pp: F64 | None
    dual_btt: F64 | None
    mean_p: F64
    mean_bt: F64 | None
    root_t: F64
    rounding_b: F64

    @property
    def dual(self) -> bool:
        """Whether t × t matrices are decomposed, not p × p ones."""
        return self.dual_btt is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the Gram or kernels, and of one weighted sum of them."""
        n, p = self.problem.X.shape
        return gram_bytes(n, p, len(self.bands))[self.dual]

    @cached_property
    def squares_b(self) -> F64:
        """(b,): the largest mean square of a column of each band; zeros where nobody asks."""
        X, columns = self.problem.X, self.bands.columns
        if X.dtype != np.float32:
            return np.zeros(len(columns))
        return np.array([largest_square(X, self.mean_p, self.root_t, some) for some in columns])

    def _there(self, device: Device) -> Array:
        """The Gram or kernels on a device: sent once, then kept."""
        kept = vars(self).setdefault("_kept", {})  # a frozen object's own memory, no part of what it is
        if device not in kept:
            squared: Any = self.primal_pp if self.dual_btt is None else self.dual_btt
            kept[device] = device.put(squared)
        there: Array = kept[device]
        return there

    def _weighted(self, gamma_b: F64, used: NDArray[np.intp], scale: F64, device: Device) -> Array:
        """The Gram or kernel of one weighting, on a device; ``used`` are the features of positive weight, ``scale`` their √γ."""
        squared = self._there(device)
        if self.dual:
            gram = device.zeros(*squared.shape[1:], dtype=np.float64)
            # gram = Σ_b γ_b K_b
            for b in np.flatnonzero(gamma_b):
                gram += float(gamma_b[b]) * squared[int(b), ...]
            return gram
        # gram = diag(√γ) @ primal_pp @ diag(√γ)
        if len(used) < squared.shape[0]:
            here = device.put(used, np.int64)
            squared = device.take(device.take(squared, here), here, axis=1)
        scale_p = device.put(scale)
        gram = squared * scale_p[:, None]
        gram *= scale_p
        return gram

    def basis(self, gamma_b: F64, device: Device = HOST) -> Basis:
        """The decomposition of one weighting γ. ``V_pr`` is diag(√γ) V, with V of the features times √γ; empty in the dual.

        The device decomposes, as in :func:`fastencode.solve.plan.basis.make_basis`.
        """
        problem, root = self.problem, self.root_t
        X, dtype, p = problem.X, problem.X.dtype, problem.X.shape[1]
        scale_p = np.sqrt(gamma_b)[self.bands.band_of_feature] if p else np.zeros(0)
        used = np.flatnonzero(scale_p)
        gram = self._weighted(gamma_b, used, scale_p[used], device)
        only = not p  # only kernels are known, no features
        constant = root if self.dual and problem.fit_intercept else None
        found = decompose(gram, problem, constant, float(gamma_b @ self.rounding_b) if only else None, device)
        del gram
        if found is None:
            return self._from_features(gamma_b, device)
        lam, vectors = found
        here, vectors = (device, vectors) if only else sharpened_where(lam, vectors, device)
        if self.dual:
            if not only:
                lam, vectors = directions_of_kernel(problem, self.mean_p, root, lam, vectors, scale_p)
            tau, V = tau_of(problem, lam), np.zeros((0, len(lam)), dtype=dtype)
            rows = vectors * here.put(np.sqrt(lam) / np.sqrt(lam + tau))
            if not only and len(lam) and cancels(float((gamma_b * self.squares_b).max()), lam[0] + problem.alphas[0], problem):
                gamma_p = gamma_b[self.bands.band_of_feature]
                V = dual_map(X, self.mean_p, root, vectors / here.put(np.sqrt(lam)), gamma_p, here)
        else:
            vectors *= here.put(scale_p[used])[:, None]
            # rows = X̌ @ diag(√γ) @ V
            rows = times_vectors(X, self.mean_p, root, vectors, here, None if len(used) == p else used)
            lam, vectors, rows = directions_of_rows(problem, root, lam, vectors, rows, here)
            tau, V = tau_of(problem, lam), np.zeros((p, len(lam)), dtype=dtype)
            rows /= here.put(np.sqrt(lam + tau))
            V[used] = here.get(here.cast(vectors, dtype))
        return self._made(lam, tau, rows, V, "gram", gamma_b, here, device)

    def _from_features(self, gamma_b: F64, device: Device) -> Basis:
        """As :meth:`basis`, from the features times √γ themselves, where rounding of their Gram would show in weights."""
        problem, scale_p = self.problem, np.sqrt(gamma_b)[self.bands.band_of_feature]
        used = np.flatnonzero(scale_p)
        graded = decompose_features(problem, self.mean_p, self.root_t, used, scale_p[used])
        lam = graded.size**2
        tau = tau_of(problem, lam)
        V = np.zeros((len(scale_p), len(lam)), dtype=problem.X.dtype)
        V[used] = graded.V * scale_p[used, None]
        rows = graded.U * (graded.size / np.sqrt(lam + tau))
        return self._made(lam, tau, rows, V, "features", gamma_b, HOST, device)

    def _made(
        self, lam: F64, tau: float, rows: Array, V: NDArray[Any], source: str, gamma_b: F64, here: Device, device: Device
    ) -> Basis:
        """The basis, from ``rows`` of U_τ that lie ``here``."""
        problem, (rows_tr, there_tr) = self.problem, in_both_places(rows, here, device)
        weighted, known, center = problem.weights is not None, problem.X.shape[1] > 0, problem.fit_intercept
        X, scale_p = (problem.X, np.sqrt(gamma_b)[self.bands.band_of_feature]) if known else (None, None)
        return Basis(lam, tau, rows_tr, V, self.mean_p, self.root_t, center, weighted, source, X, scale_p, device, there_tr)


def gram_bytes(n: int, p: int, n_bands: int) -> tuple[int, int]:
    """(primal, dual): bytes of the Gram or of the kernels, and of one weighted sum."""
    return 8 * 2 * p * p, 8 * (n_bands + 1) * n * n


def make_grams(problem: Problem, bands: Bands, kernels: NDArray[Any] | None, dual: bool, device: Device = HOST) -> Grams:
    """Gram of all features (primal) or kernel of every band (``dual``), multiplied on a device and kept in the host's memory.

    Raises ``InputError`` if their values overflow.
    """
    X, center = problem.X, problem.fit_intercept
    root = np.ones(len(X)) if problem.weights is None else np.sqrt(problem.weights)
    if kernels is not None:
        used = kernels if problem.kept is None else kernels[:, problem.kept][:, :, problem.kept]
        centered = used.astype(np.float64)
        rounding = np.array([rounding_of(np.atleast_1d(np.linalg.norm(kernel))) if center else 0.0 for kernel in centered])
        means = np.stack([center_kernel(kernel, root, center) for kernel in centered])
        return Grams(problem, bands, None, centered, np.zeros(0), means, root, rounding)
    mean = column_means(X, problem.weights) if center else np.zeros(X.shape[1])
    with np.errstate(all="ignore"):
        if dual:
            squared = np.empty((len(bands), len(X), len(X)))
            for kernel, columns in zip(squared, bands.columns, strict=True):
                kernel[...] = device.get(kernel_of(pick(X, columns=columns), mean[columns], root, device))
        else:
            squared = device.get(gram_of(X, mean, root, center, device))
    if not np.isfinite(squared).all():
        raise InputError(f"X holds values too large to square and add up in {X.dtype}; rescale its columns")
    return Grams(problem, bands, None if dual else squared, squared if dual else None, mean, None, root, np.zeros(len(bands)))


def center_kernel(kernel: ArrayT, root: ArrayT, center: bool) -> ArrayT:
    """Make a kernel K = X Xᵀ that of X̌, in place, on any device; returns the weighted column means of K.

    With o = ``root``, w = o² / (oᵀo) and P = I − 1 wᵀ, the result is diag(o) P K Pᵀ diag(o); P is left out without ``center``.
    """
    share = root**2 / (root @ root)
    mean = share @ kernel
    if center:
        kernel += mean @ share - mean[None, :] - mean[:, None]
    kernel *= root[:, None] * root[None, :]
    return mean
