"""What all weightings of the bands share: one Gram of all features, or one kernel for each band.

With weights γ, banded ridge is ridge on the features of band b times √γ_b: the primal Gram's rows and columns are scaled by √γ,
the dual one is Σ γ_b K_b. A band of weight zero is not there at all.

Legend: t = time, p = features, b = bands, r = directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.delayed import pick
from fastencode.errors import InputError
from fastencode.solve.banded.bands import Bands
from fastencode.solve.basis import (
    Basis,
    centered_rows,
    column_means,
    decompose,
    gram_of,
    kernel_of,
    scale_offset,
)
from fastencode.solve.problem import Problem

__all__ = ["Grams", "center_kernel", "gram_bytes", "make_grams"]

F64 = NDArray[np.float64]
# Rows whose coordinates are made at once.
_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Grams:
    """The design of all bands, squared.

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
    """

    problem: Problem
    bands: Bands
    primal_pp: F64 | None
    dual_btt: F64 | None
    mean_p: F64
    mean_bt: F64 | None
    root_t: F64

    @property
    def dual(self) -> bool:
        """Whether t × t matrices are decomposed, not p × p ones."""
        return self.dual_btt is not None

    @property
    def nbytes(self) -> int:
        """Bytes kept, and those of a weighted sum."""
        n, p = self.problem.X.shape
        return gram_bytes(n, p, len(self.bands))[self.dual]

    def basis(self, gamma_b: F64) -> Basis:
        """The decomposition of one weighting. ``coef_pr`` is V of the scaled features, times √γ: in the primal only."""
        problem, center, weighted = self.problem, self.problem.fit_intercept, self.problem.weights is not None
        dtype = problem.X.dtype
        if self.dual_btt is not None:
            kernel = np.zeros(self.dual_btt.shape[1:])
            for gamma, kernel_tt in zip(gamma_b, self.dual_btt, strict=True):
                if gamma:
                    kernel += gamma * kernel_tt
            lam, vectors = decompose(kernel, max(problem.X.shape), dtype)
            tau = scale_offset(problem, lam)
            rows, coef = vectors * (np.sqrt(lam) / np.sqrt(lam + tau)), np.empty((0, len(lam)), dtype=dtype)
        else:
            scale_p = np.sqrt(gamma_b)[self.bands.band_of_feature]
            used = np.flatnonzero(scale_p)
            lam, rows, vectors = self._primal(used, scale_p[used])
            tau = scale_offset(problem, lam)
            rows /= np.sqrt(lam + tau)
            coef = np.zeros((len(scale_p), len(lam)), dtype=dtype)
            coef[used] = vectors
        return Basis(lam, tau, rows, coef, self.mean_p, self.root_t, center, weighted)

    def _primal(self, used: NDArray[np.intp], scale: F64) -> tuple[F64, F64, F64]:
        """(λ, X̌ D V, D V) of some features times their scales D."""
        assert self.primal_pp is not None
        X, everything = self.problem.X, len(used) == len(self.primal_pp)
        gram = self.primal_pp[np.ix_(used, used)] * scale[:, None]
        gram *= scale
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(X), _BLOCK)]
        if np.finfo(np.float64).eps * np.trace(gram) > self.problem.alphas[0]:
            # A Gram that large has no digits left for directions as small as the penalty. The features still have them.
            scaled = np.concatenate([centered_rows(X, self.mean_p, self.root_t, here)[:, used] * scale for here in blocks])
            left, size, right = np.linalg.svd(scaled, full_matrices=False)
            keep = size > np.finfo(np.float64).eps * max(scaled.shape) * size.max(initial=0.0)
            order = np.flatnonzero(keep)[::-1]
            return size[order] ** 2, left[:, order] * size[order], right[order].T * scale[:, None]
        lam, vectors = decompose(gram, max(X.shape), X.dtype)
        vectors *= scale[:, None]
        rows = np.empty((len(X), len(lam)))
        for here in blocks:
            block = centered_rows(X, self.mean_p, self.root_t, here)
            np.matmul(block if everything else block[:, used], vectors, out=rows[here])
        return lam, rows, vectors


def gram_bytes(n: int, p: int, n_bands: int) -> tuple[int, int]:
    """Bytes of the Grams and of a weighted sum, in the primal and in the dual."""
    return 8 * 2 * p * p, 8 * (n_bands + 1) * n * n


def make_grams(problem: Problem, bands: Bands, kernels: NDArray[Any] | None, dual: bool) -> Grams:
    """Square every band once. Raises ``InputError`` if X is too large to square in its dtype."""
    X, center = problem.X, problem.fit_intercept
    root = np.ones(len(X)) if problem.weights is None else np.sqrt(problem.weights)
    if kernels is not None:
        used = kernels if problem.kept is None else kernels[:, problem.kept][:, :, problem.kept]
        centered = used.astype(np.float64)
        means = np.stack([center_kernel(kernel, root, center) for kernel in centered])
        return Grams(problem, bands, None, centered, np.zeros(0), means, root)
    mean = column_means(X, problem.weights) if center else np.zeros(X.shape[1])
    with np.errstate(all="ignore"):
        if dual:
            squared = np.empty((len(bands), len(X), len(X)))
            for kernel, columns in zip(squared, bands.columns, strict=True):
                kernel[...] = kernel_of(pick(X, columns=columns), mean[columns], root)
        else:
            squared = gram_of(X, mean, root)
    if not np.isfinite(squared).all():
        raise InputError(f"X holds values too large to square and add up in {X.dtype}; rescale its columns")
    return Grams(problem, bands, None if dual else squared, squared if dual else None, mean, None, root)


def center_kernel(kernel: Any, root: Any, center: bool) -> Any:
    """A kernel of the features about their weighted means, times the roots of the weights, in place, on any device; returns the
    weighted column means."""
    share = root**2 / (root @ root)
    mean = share @ kernel
    if center:
        kernel += mean @ share - mean[None, :] - mean[:, None]
    kernel *= root[:, None] * root[None, :]
    return mean
