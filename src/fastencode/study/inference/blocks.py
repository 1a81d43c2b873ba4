"""Blocks of consecutive scans: how long they have to be, and how sure a score is that was computed again on drawn blocks.

fMRI samples are autocorrelated, so whole blocks are resampled or permuted, never single scans. Blocks that are too short break
the autocorrelation: intervals are too narrow and p-values too small then. Here their length follows from the data.

Axis letters: t time, v voxel, b draw.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import FastencodeWarning, InputError

__all__ = [
    "FEWEST_BLOCKS",
    "autocorrelation",
    "block_length",
    "block_sums",
    "check_blocks",
    "check_count",
    "chosen_block",
    "draw_blocks",
    "draw_orders",
    "interval",
    "mean_draws",
    "permuted_autocorrelation",
    "spans",
]

Float64 = NDArray[np.float64]

FEWEST_BLOCKS = 4
"""With fewer blocks of the length that the autocorrelation asks for, there are no intervals."""

# Blocks are this many times the length that is best for the variance of a mean. At that length, intervals of correlations still
# cover 2 to 5 % less than they say; at twice it, .92 to .95 for .95 (tests/test_blocks.py).
_LONGER = 2.0
# Voxels that are read at once.
_VOXELS = 1024
# The fewest and the most blocks that a permutation test cuts a run into.
_TO_PERMUTE = (5, 25)


def autocorrelation(Y: ArrayLike, lags: int) -> Float64:
    """Autocorrelation at lags 0 … ``lags``, averaged over voxels; constant voxels do not count.

    Parameters
    ----------
    Y : array_like, shape (n, V)
        A memory map is read in tiles.
    lags : int

    Returns
    -------
    ndarray, shape (lags + 1,)
        Sums over time of products divided by n, as is usual. NaN if all voxels are constant.
    """
    Y_tv = as_numpy(Y, "Y")
    total, count = np.zeros(lags + 1), 0
    for start in range(0, Y_tv.shape[1], _VOXELS):
        tile = Y_tv[:, start : start + _VOXELS].astype(np.float64)
        tile -= tile.mean(axis=0)
        power_v = np.mean(tile**2, axis=0)
        tile = tile[:, power_v > 1e-12 * np.abs(Y_tv[:, start : start + _VOXELS]).max(axis=0) ** 2]
        tile /= np.sqrt(np.mean(tile**2, axis=0))
        count += tile.shape[1]
        total += [np.einsum("tv,tv->", tile[k:], tile[: len(tile) - k]) for k in range(lags + 1)]
    return total / (count * len(Y_tv)) if count else np.full(lags + 1, np.nan)


def block_length(Y: ArrayLike) -> int:
    """How many scans a block needs, from the autocorrelation of the responses, averaged over voxels.

    Twice the length that is best for the variance of a mean by circular blocks: ``(2 G² / D)^(1/3) n^(1/3)`` with
    ``G = Σ λ(k/M) |k| R(k)``, ``D = (4/3) (Σ λ(k/M) R(k))²``, R the autocorrelation, λ(x) = min(1, 2 (1 − |x|)) and M twice the
    lag beyond which R is noise. One for white noise.

    Parameters
    ----------
    Y : array_like, shape (n, V)
        Responses to one stimulus.

    Returns
    -------
    int
        May exceed ``n / FEWEST_BLOCKS``: there are too few scans for intervals then.

    References
    ----------
    D. Politis and H. White (2004), "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23,
    corrected by A. Patton, D. Politis and H. White (2009), Econometric Reviews 28.
    """
    n = len(as_numpy(Y, "Y"))
    if n < 8:
        return max(1, n // 2)
    run = max(5, int(np.ceil(np.log10(n))))
    R = autocorrelation(Y, min(n - 1, int(np.ceil(np.sqrt(n))) + run))
    if not np.isfinite(R).all():
        return 1
    noise = np.abs(R[1:]) < 2 * np.sqrt(np.log10(n) / n)
    runs = [m for m in range(len(noise) - run + 1) if noise[m : m + run].all()]
    last = runs[0] if runs else int(np.flatnonzero(~noise)[-1]) + 1
    M = min(2 * max(1, last), len(R) - 1)
    k = np.arange(1, M + 1)
    window = np.minimum(1.0, 2 * (1 - k / M)) * R[1 : M + 1]
    G, mean = 2 * float(k @ window), float(R[0] + 2 * window.sum())
    if mean <= 0:  # the estimate says that the mean has no variance: no length is long enough
        return n
    return max(1, round(_LONGER * (2 * G**2 / (4 / 3 * mean**2)) ** (1 / 3) * n ** (1 / 3)))


def interval(score: Any, draws: Any, n_blocks: float, level: float = 0.95, *, correlation: bool) -> Float64:
    """Interval of scores from the spread of their draws: score ± t × standard deviation, t with ``n_blocks`` − 1 degrees.

    Parameters
    ----------
    score : array_like, shape (...)
    draws : array_like, shape (b, ...)
        The same on drawn blocks.
    n_blocks : float
        Scans divided by those of a block.
    level : float
    correlation : bool
        Whether these are correlations, or means of such: their interval is that of ``arctanh(score)``.

    Returns
    -------
    ndarray, shape (2, ...)
        Lower ends, upper ends; NaN where there are fewer than ``FEWEST_BLOCKS`` blocks.
    """
    if not 0 < level < 1:
        raise InputError(f"level={level}: give a share between 0 and 1, for example 0.95")
    score, draws = np.asarray(score, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if n_blocks < FEWEST_BLOCKS:
        return np.full((2, *score.shape), np.nan)
    half = scipy.stats.t.ppf((1 + level) / 2, n_blocks - 1)
    ends = np.array([-half, half]).reshape(2, *[1] * score.ndim)
    if not correlation:
        return np.asarray(score + ends * draws.std(axis=0, ddof=1))
    one = 1 - 1e-12  # of a perfect score every draw is 1
    spread = np.arctanh(np.clip(draws, -one, one)).std(axis=0, ddof=1)
    return np.asarray(np.tanh(np.arctanh(np.clip(score, -one, one)) + ends * spread))


def mean_draws(draws: Any, n_blocks: Any) -> Float64:
    """Draws of a mean over participants, spread as if the blocks of all had one length.

    Blocks of two participants begin at the same scans, as many as the one with the longer blocks draws. All of a shorter block
    lies in the longer one, so that the covariance of their draws is that of blocks of one length times shorter / longer. Plain
    means of draws therefore spread too little: their .95 intervals hold the true value in .91 of simulations where these do in
    .94, of eight participants of whom one has blocks 2.5 times as long as another's (``bench/inference.py``).

    Parameters
    ----------
    draws : array_like, shape (participants, b)
        Drawn with one seed.
    n_blocks : array_like, shape (participants,)
        Of the same scans.

    Returns
    -------
    ndarray, shape (b,)
        The mean over participants, drawn out from its own mean where covariances are too small; never drawn in.
    """
    draws_pb, n_blocks_p = np.asarray(draws, dtype=np.float64), np.asarray(n_blocks, dtype=np.float64)
    mean_b = draws_pb.mean(axis=0)
    covariance = np.atleast_2d(np.cov(draws_pb))
    longer = np.maximum.outer(n_blocks_p, n_blocks_p) / np.minimum.outer(n_blocks_p, n_blocks_p)
    plain, whole = covariance.sum(), (covariance * longer).sum()
    if not whole > plain > 0:
        return mean_b
    return np.asarray(mean_b.mean() + np.sqrt(whole / plain) * (mean_b - mean_b.mean()))


def spans(runs: ArrayLike | None, n: int) -> list[slice]:
    """The rows of each run, in their order.

    Parameters
    ----------
    runs : array_like, shape (n,), or None
        One label for each row; the rows of one run stand together. None: one run.
    n : int
    """
    if runs is None:
        return [slice(0, n)]
    labels = np.asarray(runs)
    if labels.shape != (n,):
        raise InputError(f"runs has shape {labels.shape} for {n} rows: give one label for each row")
    borders = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), n]
    if len(borders) - 1 > len(np.unique(labels)):
        raise InputError("runs are not in one piece: sort the rows so that those of each run stand together")
    return [slice(start, stop) for start, stop in zip(borders[:-1], borders[1:], strict=True)]


def check_count(name: str, value: int) -> None:
    """An ``InputError`` unless this is an integer, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name}={value}: give an integer, 1 or more")


def chosen_block(Y_tv: NDArray[np.floating[Any]], block: int | None) -> int:
    """The block asked for, or as long a one as the autocorrelation asks for; a warning where there are too few."""
    if block is not None:
        check_count("block", block)
        return block
    wanted, n = block_length(Y_tv), len(Y_tv)
    if n / wanted < FEWEST_BLOCKS:
        warnings.warn(
            f"{n} scans are {n / wanted:.1f} blocks of {wanted}, the length that their autocorrelation asks for: too few for"
            f" intervals, which are NaN (at least {FEWEST_BLOCKS} are needed)",
            FastencodeWarning,
            stacklevel=3,
        )
    return max(1, min(wanted, n // 2))


def draw_blocks(n: int, block: int, n_boots: int, random_state: int | np.random.Generator | None) -> Float64:
    """How often each draw takes the block that begins at each of n scans, (n_boots, n): as many blocks as make n scans.

    With one seed, draws of another ``block`` begin with blocks at the same scans, as far as both have as many: scores of
    participants whose blocks differ in length still rise and fall together where their responses do, by less
    (:func:`mean_draws`).
    """
    check_count("n_boots", n_boots)
    n_blocks = -(-n // block)
    if n_blocks < 2:
        raise InputError(f"{n} rows make {n_blocks} blocks of {block}: a bootstrap needs at least 2; use shorter blocks")
    drawn = np.random.default_rng(random_state).integers(0, n, (n_blocks, n_boots))
    counts_bt = np.zeros((n_boots, n))
    np.add.at(counts_bt, (np.arange(n_boots), drawn), 1.0)
    return counts_bt


class Orders(NamedTuple):
    """Permutations of the blocks of each run.

    Attributes
    ----------
    parts : list of slice
        The rows of each run.
    blocks : list of int
        Scans in a block of each run.
    n_blocks : list of int
        Whole blocks of each run.
    first_rbk : list of ndarray, shape (permutations, blocks)
        For each run, where each block begins in it: turned by any number of scans, the first following the last, then permuted.
    """

    parts: list[slice]
    blocks: list[int]
    n_blocks: list[int]
    first_rbk: list[NDArray[np.intp]]


def draw_orders(
    Y_tv: NDArray[np.floating[Any]],
    runs: ArrayLike | None,
    block: int | None,
    n_permutations: int,
    random_state: int | np.random.Generator | None,
) -> Orders:
    """The table of a permutation test; a warning if there are fewer orders than permutations.

    ``block`` None: as many scans as the autocorrelation of ``Y`` asks for, but between a 25th and a fifth of each run.
    """
    check_count("n_permutations", n_permutations)
    parts = spans(runs, len(Y_tv))
    lengths = [part.stop - part.start for part in parts]
    if block is None:
        wanted, (fewest, most) = block_length(Y_tv), _TO_PERMUTE
        blocks = [max(1, n // most, min(wanted, n // fewest)) for n in lengths]
    else:
        check_count("block", block)
        blocks = [block] * len(lengths)
    n_blocks = [n // size for n, size in zip(lengths, blocks, strict=True)]
    for n, size, k in zip(lengths, blocks, n_blocks, strict=True):
        if k < 2:
            raise InputError(f"{n} rows make {k} whole blocks of {size}: use shorter blocks or more rows")
    n_orders = math.prod(n * math.factorial(k - 1) for n, k in zip(lengths, n_blocks, strict=True))
    if n_orders < n_permutations:
        warnings.warn(
            f"{sum(n_blocks)} blocks of {len(Y_tv)} scans have only {n_orders} orders, fewer than "
            f"n_permutations={n_permutations}: use shorter blocks",
            FastencodeWarning,
            stacklevel=3,
        )
    rng = np.random.default_rng(random_state)
    first_rbk = [
        np.array([rng.integers(n) + size * rng.permutation(k) for _ in range(n_permutations)]) % n
        for n, size, k in zip(lengths, blocks, n_blocks, strict=True)
    ]
    return Orders(parts, blocks, n_blocks, first_rbk)


def check_blocks(rows: Sequence[int], block: int | None) -> None:
    """An ``InputError`` unless runs of so many rows can be cut into such blocks, as permutations need: a bootstrap needs less."""
    draw_orders(np.zeros((sum(rows), 1)), np.repeat(np.arange(len(rows)), rows), block, 1, 0)


def permuted_autocorrelation(
    Y: ArrayLike,
    *,
    runs: ArrayLike | None = None,
    block: int | None = None,
    n_permutations: int = 20,
    random_state: int | np.random.Generator | None = None,
) -> tuple[float, float, int]:
    """How much of the autocorrelation of responses a block permutation keeps.

    A permutation test is only as honest as its null series resemble the responses. Where their autocorrelation is clearly lower,
    p-values are too small.

    Parameters
    ----------
    Y : array_like, shape (n, V)
        Responses.
    runs, block, random_state
        As for :func:`significance.block_permutation_pvalues`, whose first permutations these are if there is one run.
    n_permutations : int

    Returns
    -------
    (float, float, int)
        Autocorrelation at lag 1, averaged over voxels, of ``Y`` and of its permutations; scans in a block, of the run with the
        longest. NaN if all voxels are constant.
    """
    Y_tv = as_numpy(Y, "Y")
    orders = draw_orders(Y_tv, runs, block, n_permutations, random_state)
    permuted = []
    for first_rk in zip(*orders.first_rbk, strict=True):
        rows = [
            part.start + ((first_k[:, None] + np.arange(size)) % (part.stop - part.start)).ravel()
            for part, size, first_k in zip(orders.parts, orders.blocks, first_rk, strict=True)
        ]
        permuted.append(autocorrelation(Y_tv[np.concatenate(rows)], 1)[1])
    return float(autocorrelation(Y_tv, 1)[1]), float(np.mean(permuted)), max(orders.blocks)


def block_sums(values_tv: Float64, block: int, parts: Sequence[slice]) -> Float64:
    """Sums over the ``block`` rows from each row on, shape (t, v): the first of a run follows its last, which may be sooner."""
    found = []
    for part in parts:
        run = values_tv[part]
        around = run.take(np.arange(len(run) + block - 1), axis=0, mode="wrap")
        sums = np.cumsum(np.concatenate([np.zeros((1, run.shape[1])), around]), axis=0)
        found.append(sums[block:] - sums[:-block])
    return np.concatenate(found)
