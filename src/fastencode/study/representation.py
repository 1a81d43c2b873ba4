"""Similarity of two representations of the same rows: centered kernel alignment (CKA) and canonical correlation (CCA).

All measures are invariant to the order of columns and to a common factor; CKA and :func:`cca` also to rotations. They are
computed in float64 from products of columns (p × q) or of rows (n × n), whichever are smaller. :func:`twonn`, for a single
representation, is imported from :mod:`fastencode.study.dimension`.

Axis letters: n row, p column of X, q column of Y, k canonical pair, f fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError
from fastencode.study.dimension import twonn

__all__ = ["HeldOutCCA", "cca", "cross_validated_cca", "linear_cka", "rbf_cka", "twonn"]

Float64 = NDArray[np.float64]

_ROUNDING = 1e-12  # share of the largest direction, or of the squared mean, below which one is rounding


def linear_cka(X: ArrayLike, Y: ArrayLike, *, debiased: bool = False) -> float:
    """Linear centered kernel alignment of two representations, from 0 (nothing in common) to 1 (equal up to a rotation).

    ``‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖)`` of centered columns, Frobenius norms.

    Parameters
    ----------
    X : array_like, shape (n, p)
    Y : array_like, shape (n, q)
        The same rows: stimuli, times or words.
    debiased : bool
        Replace each of the three products by an unbiased estimate (Song et al. 2012). The plain value grows with the number
        of columns for a given number of rows: of unrelated noise with p = q = n it is about .5. The debiased one is then about 0,
        and may be slightly negative.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If rows differ in number, there are fewer than 2 (debiased: 4), a value is not finite, or all columns are constant.

    Notes
    -----
    Autocorrelated rows count as if they were independent: the value is that of these rows, and the debiasing removes less than
    all of the bias.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton (2019), "Similarity of neural network representations revisited", ICML.
    L. Song, A. Smola, A. Gretton, J. Bedo, K. Borgwardt (2012), "Feature selection via dependence maximization", JMLR 13.
    """
    X_np, Y_nq = _check_pair(X, Y, 4 if debiased else 2)
    (n, p), q = X_np.shape, Y_nq.shape[1]
    if n < max(p, q):
        K_nn, L_nn = X_np @ X_np.T, Y_nq @ Y_nq.T
        if debiased:
            return _aligned(_centered_without_diagonal(K_nn), _centered_without_diagonal(L_nn))
        return _aligned(K_nn, L_nn)
    cross, own_x, own_y = (float(np.sum((a.T @ b) ** 2)) for a, b in ((X_np, Y_nq), (X_np, X_np), (Y_nq, Y_nq)))
    if debiased:
        x_n, y_n = np.sum(X_np**2, axis=1), np.sum(Y_nq**2, axis=1)
        cross, own_x, own_y = (_debiased(*of) for of in ((cross, x_n, y_n), (own_x, x_n, x_n), (own_y, y_n, y_n)))
    return _ratio(cross, own_x, own_y)


def rbf_cka(X: ArrayLike, Y: ArrayLike, *, width: float = 0.5, debiased: bool = False) -> float:
    """Centered kernel alignment with Gaussian kernels ``exp(−d² / (2 width² median d²))`` of the distances d between rows.

    Parameters
    ----------
    X : array_like, shape (n, p)
    Y : array_like, shape (n, q)
    width : float
        Standard deviation of the kernel, as a share of the square root of the median squared distance between rows (each row's
        distance to itself counts). Small ones compare neighbourhoods, large ones approach :func:`linear_cka`.
    debiased : bool
        As for :func:`linear_cka`.

    Returns
    -------
    float

    Raises
    ------
    InputError
        As for :func:`linear_cka`; also if half of the rows are equal, or ``width`` is not positive.

    References
    ----------
    Kornblith et al. (2019), as for :func:`linear_cka`.
    """
    if not (np.isfinite(width) and width > 0):
        raise InputError(f"width={width}: give a positive share of the median distance, such as 0.5")
    X_np, Y_nq = _check_pair(X, Y, 4 if debiased else 2)
    K_nn, L_nn = _gaussian(X_np, width, "X"), _gaussian(Y_nq, width, "Y")
    if debiased:
        return _aligned(_centered_without_diagonal(K_nn), _centered_without_diagonal(L_nn))
    return _aligned(_centered(K_nn), _centered(L_nn))


def cca(X: ArrayLike, Y: ArrayLike, *, center: bool = True) -> float:
    """Mean squared canonical correlation of two representations, on the rows that it is computed from.

    Parameters
    ----------
    X : array_like, shape (n, p)
    Y : array_like, shape (n, q)
    center : bool
        Subtract column means, as in the definition of CCA. False gives the value of the code published with Kornblith et al.
        (2019), in which a mean counts as a direction.

    Returns
    -------
    float
        Mean over the ``min(rank X, rank Y)`` pairs, from 0 to 1. Without held-out rows it is too high: that
        of unrelated noise is about max(p, q) / (n − 1). See :func:`cross_validated_cca`.

    Raises
    ------
    InputError
        If rows differ in number, a value is not finite, all columns are constant, or either side has so many directions that any
        rows would fit (rank n − 1).
    """
    X_np, Y_nq = _check_pair(X, Y, 2, center=center)
    bases = [_orthonormal(values) for values in (X_np, Y_nq)]
    n, fewest = len(X_np), min(basis.shape[1] for basis in bases)
    for name, basis in zip("XY", bases, strict=True):
        if basis.shape[1] >= n - 1:
            raise InputError(
                f"{name} has {basis.shape[1]} directions in {n} rows, which fit anything: use cross_validated_cca, or more rows"
            )
    return float(np.sum((bases[0].T @ bases[1]) ** 2) / fewest)


class HeldOutCCA(NamedTuple):
    """Canonical correlations on held-out rows.

    Attributes
    ----------
    score : float
        Mean of ``correlations``.
    correlations : ndarray, shape (f, k)
        Pearson correlation of each canonical pair over the held-out rows of each fold, pairs in the order of the fit. 0 where a
        side is constant there.
    penalty : ndarray, shape (f,)
        The share chosen for each fold.
    """

    score: float
    correlations: Float64
    penalty: Float64


def cross_validated_cca(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    n_components: int = 10,
    n_folds: int = 5,
    gap: int = 0,
    penalties: Sequence[float] = (0.001, 0.01, 0.1, 0.5),
) -> HeldOutCCA:
    """Regularised canonical correlations, fitted on training rows and measured on held-out rows.

    The canonical ridge of Vinod (1976): each covariance C is replaced by ``(1 − c) C + c (tr C / p) I``, which also
    works with fewer rows than columns. Folds are contiguous. The share c is chosen within the other rows of each fold, by the
    mean correlation over their last fifth, and the fit is then repeated on all of them.

    Parameters
    ----------
    X : array_like, shape (n, p)
    Y : array_like, shape (n, q)
        The same rows, in the order of time where they have one.
    n_components : int
        Number of leading canonical pairs; fewer if X or Y has fewer columns. More pairs need more rows.
    n_folds : int
    gap : int
        Rows to leave out on both sides of the held-out rows: as many as share sound with them.
    penalties : sequence of float
        Values of c to choose from, above 0 and up to 1.

    Returns
    -------
    HeldOutCCA

    Raises
    ------
    InputError
        If rows differ in number or are too few for the folds and the gap, a value is not finite, all columns are constant over
        the rows of a fit, or an argument is out of range.

    References
    ----------
    H. D. Vinod (1976), "Canonical ridge and econometrics of joint production", Journal of Econometrics 4.
    A. Pasad, J.-C. Chou, K. Livescu (2021), "Layer-wise analysis of a self-supervised speech representation model", ASRU:
    penalties chosen on held-out rows, scores on others.
    """
    X_np, Y_nq = _check_pair(X, Y, 2)
    for name, value, least in (("n_components", n_components, 1), ("n_folds", n_folds, 2), ("gap", gap, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name}={value}: give an integer, {least} or more")
    shares = [float(share) for share in penalties]
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"penalties={tuple(penalties)}: give shares above 0 and up to 1, such as (0.01, 0.1)")
    n, k = len(X_np), min(n_components, X_np.shape[1], Y_nq.shape[1])
    found, chosen = [], []
    for held in np.array_split(np.arange(n), n_folds):
        rest = _away_from(held, n, gap)
        inner = rest[len(rest) - len(rest) // 5 :]
        before = rest[rest < inner[0] - gap] if len(inner) else inner
        if min(len(held), len(rest), *([len(inner), len(before)] if len(shares) > 1 else [])) < 3:
            raise InputError(f"{n} rows are too few for n_folds={n_folds} with gap={gap}: use fewer folds, or more rows")
        best = shares[0]
        if len(shares) > 1:
            tried = _scores(X_np, Y_nq, before, inner, shares, k)
            best = shares[int(np.argmax(tried.mean(axis=1)))]
        found.append(_scores(X_np, Y_nq, rest, held, [best], k)[0])
        chosen.append(best)
    correlations = np.array(found)
    return HeldOutCCA(float(correlations.mean()), correlations, np.array(chosen))


def _away_from(held: NDArray[np.intp], n: int, gap: int) -> NDArray[np.intp]:
    """All rows but those held out and ``gap`` on both sides."""
    rows = np.arange(n)
    return rows[(rows < held[0] - gap) | (rows > held[-1] + gap)] if len(held) else rows


def _scores(
    X_np: Float64, Y_nq: Float64, fit: NDArray[np.intp], held: NDArray[np.intp], shares: Sequence[float], k: int
) -> Float64:
    """Correlations over held-out rows of the k leading pairs of a fit with each share, (shares, k)."""
    sides = []
    for name, values in (("X", X_np), ("Y", Y_nq)):
        mean = values[fit].mean(axis=0)
        sides.append((*_directions(values[fit] - mean, f"{name} over the rows of a fold"), values[held] - mean))
    (X_fit, power_x, V_x, X_held), (Y_fit, power_y, V_y, Y_held) = sides
    cross = (X_fit @ V_x).T @ (Y_fit @ V_y) / len(fit)
    held_x, held_y = X_held @ V_x, Y_held @ V_y
    found = []
    for share in shares:
        root_x, root_y = (
            1 / np.sqrt((1 - share) * power + share * power.sum() / values.shape[1])
            for power, values in ((power_x, X_np), (power_y, Y_nq))
        )
        U, V = _leading(root_x[:, None] * cross * root_y, k)
        found.append(_column_correlations(held_x @ (root_x[:, None] * U), held_y @ (root_y[:, None] * V), k))
    return np.array(found)


def _directions(centered_np: Float64, name: str) -> tuple[Float64, Float64, Float64]:
    """(Rows, variance of each principal direction (r,), directions (p, r)), without those that are rounding."""
    n, p = centered_np.shape
    if p <= n:
        power, V = np.linalg.eigh(centered_np.T @ centered_np / n)
        kept = power > _ROUNDING * power[-1]
        power, V = power[kept], V[:, kept]
    else:
        power, U = np.linalg.eigh(centered_np @ centered_np.T / n)
        kept = power > _ROUNDING * power[-1]
        power = power[kept]
        V = centered_np.T @ (U[:, kept] / np.sqrt(n * power))
    if not len(power):
        raise InputError(f"all columns of {name} are constant: leave the representation out, or use other rows")
    return centered_np, power, V


def _leading(M: Float64, k: int) -> tuple[Float64, Float64]:
    """The k leading left and right singular vectors, (r, k) and (s, k), up to a factor; fewer where M has fewer."""
    if M.shape[0] < M.shape[1]:
        V, U = _leading(M.T, k)
        return U, V
    s = M.shape[1]
    _, V = scipy.linalg.eigh(M.T @ M, subset_by_index=[max(0, s - k), s - 1])
    return M @ V[:, ::-1], V[:, ::-1]


def _column_correlations(A_nk: Float64, B_nk: Float64, k: int) -> Float64:
    """Pearson correlation of each pair of columns, (k,): 0 where one is constant, or there is no such pair."""
    A, B = A_nk - A_nk.mean(axis=0), B_nk - B_nk.mean(axis=0)
    size = np.sqrt(np.sum(A**2, axis=0) * np.sum(B**2, axis=0))
    found = np.zeros(k)
    found[: A.shape[1]] = np.where(size > 0, np.sum(A * B, axis=0) / np.where(size > 0, size, 1), 0)
    return found


def _check_pair(X: ArrayLike, Y: ArrayLike, fewest: int, *, center: bool = True) -> tuple[Float64, Float64]:
    """Both as float64 arrays of the same rows, centered unless told otherwise."""
    pair = []
    for name, values in (("X", X), ("Y", Y)):
        given = as_numpy(values, name)
        if given.ndim != 2 or not given.shape[1]:
            raise InputError(f"{name} has shape {given.shape}: give rows × columns")
        found = given.astype(np.float64)
        if not np.isfinite(found).all():
            row = int(np.argmax(~np.isfinite(found).all(axis=1)))
            raise InputError(f"{name} holds values that are not finite, the first in row {row}: leave such rows out of both")
        pair.append(found)
    if len(pair[0]) != len(pair[1]):
        raise InputError(f"X has {len(pair[0])} rows and Y has {len(pair[1])}: give the same rows of both")
    if len(pair[0]) < fewest:
        raise InputError(f"X and Y have {len(pair[0])} rows: at least {fewest} are needed")
    for name, values in zip("XY", pair, strict=True):
        largest = np.abs(values).max()
        mean = values.mean(axis=0)
        if np.abs(values - mean).max() <= _ROUNDING * largest:
            raise InputError(f"all columns of {name} are constant: nothing can be compared with them")
        if center:
            values -= mean
    return pair[0], pair[1]


def _aligned(K_nn: Float64, L_nn: Float64) -> float:
    """Cosine of two centered kernels."""
    return _ratio(float(np.sum(K_nn * L_nn)), float(np.sum(K_nn**2)), float(np.sum(L_nn**2)))


def _ratio(cross: float, own_x: float, own_y: float) -> float:
    """cross / √(own_x own_y); an ``InputError`` where a debiased norm is not above 0."""
    if own_x <= 0 or own_y <= 0:
        raise InputError("a debiased norm is not positive: the rows are too few for their columns; use more rows")
    return float(cross / np.sqrt(own_x * own_y))


def _debiased(product: float, x_n: Float64, y_n: Float64) -> float:
    """The product of two kernels of centered columns without bias, from the squared lengths of rows: Song et al., equation 5."""
    n = len(x_n)
    return float(product - n / (n - 2) * (x_n @ y_n) + x_n.sum() * y_n.sum() / ((n - 1) * (n - 2)))


def _centered(K_nn: Float64) -> Float64:
    return np.asarray(K_nn - K_nn.mean(axis=0) - K_nn.mean(axis=1)[:, None] + K_nn.mean())


def _centered_without_diagonal(K_nn: Float64) -> Float64:
    """A kernel with a diagonal of 0 and means taken out so that products with others have no bias (Székely and Rizzo 2014)."""
    n = len(K_nn)
    K = K_nn - np.diag(np.diag(K_nn))
    mean = K.sum(axis=0) / (n - 2)
    mean -= mean.sum() / (2 * (n - 1))
    K -= mean[:, None] + mean
    np.fill_diagonal(K, 0)
    return np.asarray(K)


def _gaussian(X_np: Float64, width: float, name: str) -> Float64:
    """Gaussian kernel of centered rows."""
    square_n = np.sum(X_np**2, axis=1)
    distance_nn = np.maximum(square_n[:, None] + square_n - 2 * (X_np @ X_np.T), 0)
    np.fill_diagonal(distance_nn, 0)
    median = float(np.median(distance_nn))
    if median <= _ROUNDING * float(square_n.max()):
        raise InputError(f"half of the rows of {name} are equal: a median distance of 0 gives no kernel; drop repeated rows")
    return np.asarray(np.exp(distance_nn / (-2 * width**2 * median)))


def _orthonormal(centered_np: Float64) -> Float64:
    """An orthonormal basis of the columns, (n, rank)."""
    U, size, _ = np.linalg.svd(centered_np, full_matrices=False)
    least = size[0] * max(centered_np.shape) * np.finfo(np.float64).eps
    return np.asarray(U[:, size > least])
