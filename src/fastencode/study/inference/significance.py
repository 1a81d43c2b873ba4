"""How sure a score is: block bootstrap of region scores, block permutation for each voxel, false discovery rate, and the
signed-rank test over participants.

Blocks of consecutive scans are resampled, or permuted within each run (``blocks.py`` says how long). They are circular: the first
scan of a run follows its last, so that no block has scans of two runs and each scan is drawn as often.

Correlations of resampled blocks need no resampled data. With the sums of y, p, y^2, p^2 and y p over each block at hand, a
resample is a vector of how often each block was drawn, and all resamples of a tile of voxels are a few matrix products.

Axis letters: t time (also the first scan of a block), v voxel, m model, r region, k block, b bootstrap draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.inference.blocks import block_sums, chosen_block, draw_blocks, draw_orders, interval, spans

__all__ = [
    "FALSE_DISCOVERIES",
    "RegionDraws",
    "SignedRank",
    "block_permutation_pvalues",
    "bootstrap_region_scores",
    "fdr",
    "signed_rank",
]

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Seed = int | np.random.Generator | None

FALSE_DISCOVERIES = 0.05
"""The rate of false discoveries that tables and masks accept."""

# Voxels whose draws are held at once: 1000 draws in float64 then take 1 MB for each of a few arrays, near the second-level cache.
VOXELS_PER_TILE = 128
# Below this share of a column's own mean square a variance is rounding: the column counts as constant and its correlation is 0.
CONSTANT = 1e-12
# Sums of blocks that a tile of voxels of the permutation test may hold.
_VALUES_PER_TILE = 2**20


@dataclass(frozen=True)
class RegionDraws:
    """Region scores of several models and their bootstrap draws, paired over models.

    Attributes
    ----------
    regions : tuple of str
        Names, in the order of the last axis below.
    r : ndarray, shape (M, R)
        Mean over a region's voxels of each model's correlation; where ceilings were given, divided by their mean.
    draws : ndarray, shape (B, M, R)
        The same on resampled blocks; draw b takes the same blocks for every model.
    n_voxels : ndarray, shape (R,)
        Voxels that count in each region. Where this is 0 the scores are NaN: there is nothing to average.
    block : int
        Scans in a block.
    n_blocks : float
        Scans divided by those of a block.
    correlation : bool
        Whether ``r`` are means of correlations. Otherwise they are divided by ceilings, or contrasts.
    """

    regions: tuple[str, ...]
    r: Float64
    draws: Float64
    n_voxels: NDArray[np.int64]
    block: int
    n_blocks: float
    correlation: bool

    def interval(self, level: float = 0.95) -> Float64:
        """Interval, shape (2, M, R): lower ends, upper ends; see :func:`blocks.interval`. NaN where there are too few blocks."""
        return interval(self.r, self.draws, self.n_blocks, level, correlation=self.correlation)

    def contrast(self, weights: ArrayLike) -> RegionDraws:
        """Weighted sums over models, draw by draw.

        Parameters
        ----------
        weights : array_like, shape (C, M) or (M,)
            One row for each contrast; ``[1, -1]`` is the first model minus the second.

        Returns
        -------
        RegionDraws
            With the C contrasts in place of the models. An interval that leaves out 0 says that the contrast is not
            resampling noise.
        """
        weights_cm = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        if weights_cm.shape[1] != len(self.r):
            raise InputError(f"weights has shape {np.shape(weights)} for {len(self.r)} models: give one weight for each model")
        draws = np.einsum("cm,bmr->bcr", weights_cm, self.draws)
        return replace(self, r=weights_cm @ self.r, draws=draws, correlation=False)

    def difference(self, first: int, second: int) -> RegionDraws:
        """Model ``first`` minus model ``second``: a paired :meth:`contrast` with one row."""
        weights = np.zeros(len(self.r))
        weights[first] += 1.0
        weights[second] -= 1.0
        return self.contrast(weights)


def bootstrap_region_scores(
    Y: ArrayLike,
    predictions: Sequence[ArrayLike] | Floats,
    regions: Mapping[str, ArrayLike],
    *,
    ceilings: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    block: int | None = None,
    n_boots: int = 1000,
    random_state: Seed = None,
) -> RegionDraws:
    """Mean correlation of each model in each region, with a block bootstrap over time that is paired over models.

    A draw takes blocks of ``block`` consecutive scans with replacement until it has as many scans as there are, the same ones for
    every model and voxel. No block has scans of two runs: the first scan of a run follows its last, more than once if a run is
    shorter than a block. Correlations are computed anew on each draw, then averaged over the region.

    Parameters
    ----------
    Y : array_like, shape (n, V)
        Measured responses to one test stimulus.
    predictions : sequence of M array_like, each of shape (n, V)
        One prediction of ``Y`` for each model. A memory map will do: columns are read in tiles.
    regions : mapping of str to array_like
        Voxel indices, or a boolean mask of length V, for each region; regions may overlap.
    ceilings : array_like, shape (V,), optional
        Noise ceilings: a region's mean correlation is divided by its mean ceiling, and voxels whose ceiling is not positive are
        left out. (The mean of ratios would be too high: at low ceilings, noise of the ceiling does not cancel.)
    runs : array_like, shape (n,), optional
        The run of each scan, such as one of several test stories; the scans of one stand together. None: one run.
    block : int, optional
        Scans in a block. None: as many as the autocorrelation of ``Y`` asks for (:func:`blocks.block_length`).
    n_boots : int
        Number of draws.
    random_state : int, numpy.random.Generator or None
        The draw table comes from here, before any data is read.

    Returns
    -------
    RegionDraws

    Raises
    ------
    InputError
        If shapes disagree, a value is not a finite real number, a region is empty or out of range, or there are fewer than two
        blocks.

    Warns
    -----
    FastencodeWarning
        If ``block`` is None and there are fewer than ``blocks.FEWEST_BLOCKS`` blocks: intervals are NaN then. And if a region has
        no voxel with a positive ceiling.
    """
    Y_tv, predictions_mtv = _check_pair(Y, predictions)
    n, n_voxels = Y_tv.shape
    ceiling_v = None if ceilings is None else _check_ceilings(ceilings, n_voxels)
    usable_v = np.ones(n_voxels, bool) if ceiling_v is None else ceiling_v > 0
    voxels_r = {name: _check_region(name, region, n_voxels) for name, region in regions.items()}
    if not voxels_r:
        raise InputError("regions is empty: give at least one name with its voxels")
    parts = spans(runs, n)
    block = chosen_block(Y_tv, block)
    counts_bt = draw_blocks(n, block, n_boots, random_state)
    used_v, share_vr, size_r = _region_shares(voxels_r, usable_v)
    mean_ceiling_r = np.ones(len(voxels_r))
    if ceiling_v is not None:
        mean_ceiling_r = np.where(size_r > 0, ceiling_v[used_v] @ share_vr, 1.0)
    r_mr = np.zeros((len(predictions_mtv), len(voxels_r)))
    draws_bmr = np.zeros((n_boots, *r_mr.shape))
    # Row 0 draws every block once: the score itself comes from the same lines as its draws.
    counts_bt = np.vstack([np.ones((1, n)), counts_bt])
    counts_bt /= block * counts_bt.sum(axis=1, keepdims=True)
    for start in range(0, len(used_v), VOXELS_PER_TILE):
        tile = used_v[start : start + VOXELS_PER_TILE]
        share = share_vr[start : start + VOXELS_PER_TILE]
        if ceiling_v is not None:
            share = share / mean_ceiling_r
        measured = _standardize(Y_tv[:, tile], "Y")
        y_bv, yy_bv = (counts_bt @ block_sums(values, block, parts) for values in (measured, measured**2))
        for m, prediction_tv in enumerate(predictions_mtv):
            predicted = _standardize(prediction_tv[:, tile], f"predictions[{m}]")
            p_bv, pp_bv, yp_bv = (
                counts_bt @ block_sums(values, block, parts) for values in (predicted, predicted**2, measured * predicted)
            )
            scores_br = _correlation(y_bv, yy_bv, p_bv, pp_bv, yp_bv) @ share
            r_mr[m] += scores_br[0]
            draws_bmr[:, m] += scores_br[1:]
    for place, name in enumerate(voxels_r):
        if size_r[place] == 0:
            warnings.warn(
                f"region {name!r} has no voxel with a positive ceiling: its scores are NaN", FastencodeWarning, stacklevel=2
            )
            r_mr[:, place] = draws_bmr[:, :, place] = np.nan
    return RegionDraws(tuple(voxels_r), r_mr, draws_bmr, size_r, block, n / block, ceiling_v is None)


def block_permutation_pvalues(
    Y: ArrayLike,
    P: ArrayLike,
    *,
    runs: ArrayLike | None = None,
    block: int | None = None,
    n_permutations: int = 1000,
    random_state: Seed = None,
) -> Float64:
    """One-sided p-value of each voxel's correlation, from permuting blocks of consecutive scans.

    Each run of ``Y`` is turned by a random number of scans, its first following its last, then its blocks change places; ``P``
    stays. All voxels share one table of turns and permutations. Rows of a run after its last whole block of ``P`` are left out,
    of the measured correlation too.

    Parameters
    ----------
    Y, P : array_like, shape (n, V)
        Responses and their predictions. Memory maps are read in tiles.
    runs : array_like, shape (n,), optional
        The run of each scan, such as one of several test stories; the scans of one stand together. None: one run.
    block : int, optional
        Scans in a block. None: as many as the autocorrelation of ``Y`` asks for (:func:`blocks.block_length`), but between a 25th
        and a fifth of each run.
    n_permutations : int
        Number of permutations; the smallest p-value is ``1 / (n_permutations + 1)``.
    random_state : int, numpy.random.Generator or None
        The table of permutations comes from here.

    Returns
    -------
    ndarray, shape (V,)
        ``(1 + number of permutations whose correlation reaches the measured one) / (1 + n_permutations)``; 1 for a constant
        response or prediction.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, or a run has fewer than two whole blocks.
    """
    Y_tv, (P_tv,) = _check_pair(Y, [P])
    orders = draw_orders(Y_tv, runs, block, n_permutations, random_state)
    parts = orders.parts
    firsts = [np.arange(k) * block for k, block in zip(orders.n_blocks, orders.blocks, strict=True)]
    whole = [np.arange(part.start, part.start + k * b) for part, k, b in zip(parts, orders.n_blocks, orders.blocks, strict=True)]
    cuts = np.cumsum([len(rows) for rows in whole])[:-1]
    p_v = np.empty(Y_tv.shape[1])
    sums = sum((part.stop - part.start) * k for part, k in zip(parts, orders.n_blocks, strict=True))
    tile_voxels = max(1, _VALUES_PER_TILE // sums)
    for start in range(0, len(p_v), tile_voxels):
        tile = slice(start, start + tile_voxels)
        y_tv, P_part = _standardize(Y_tv[:, tile], "Y"), _standardize(P_tv[:, tile][np.concatenate(whole)], "P")
        sums_rtkv = [
            _sums_anywhere(y_tv[at], p, b) for at, p, b in zip(parts, np.split(P_part, cuts), orders.blocks, strict=True)
        ]
        measured_v = _placed(sums_rtkv, firsts)
        threshold_v = measured_v - 1e-9 * len(Y_tv)  # a tie is a tie although its terms have other rounding
        reached_v = np.zeros(len(measured_v))
        for first_rk in zip(*orders.first_rbk, strict=True):
            reached_v += _placed(sums_rtkv, first_rk) >= threshold_v
        p_v[tile] = (1 + reached_v) / (1 + n_permutations)
    return p_v


def _sums_anywhere(y_tv: Float64, p_tv: Float64, block: int) -> Float64:
    """Sums of y p over each block of p, for every place where it may begin in y, (t, k, v): by the Fourier transform."""
    n, spectrum = len(y_tv), np.fft.rfft(y_tv, axis=0)
    blocks_kbv = p_tv.reshape(-1, block, p_tv.shape[1])
    sums = [np.fft.irfft(spectrum * np.conj(np.fft.rfft(p_bv, n=n, axis=0)), n=n, axis=0) for p_bv in blocks_kbv]
    return np.stack(sums, axis=1)


def _placed(sums_rtkv: Sequence[Float64], first_rk: Sequence[NDArray[np.intp]]) -> Float64:
    """The sum of y p, (v,), where the blocks of each run begin at these places of it."""
    return np.asarray(
        sum(sums[first, np.arange(len(first))].sum(axis=0) for sums, first in zip(sums_rtkv, first_rk, strict=True))
    )


def fdr(p: ArrayLike, *, method: str = "bh") -> Float64:
    """P-values adjusted for the false discovery rate; NaN stays NaN and does not count as a test.

    Parameters
    ----------
    p : array_like
        P-values of one family of tests, any shape.
    method : {"bh", "by"}
        Benjamini-Hochberg, or Benjamini-Yekutieli for arbitrary dependence.

    Returns
    -------
    ndarray, same shape
        Reject where this is at most the rate you accept.

    Raises
    ------
    InputError
        If a value lies outside [0, 1] or the method is unknown.
    """
    values = as_numpy(p, "p").astype(np.float64)
    if method not in ("bh", "by"):
        raise InputError(f"method={method!r}: choose 'bh' or 'by'")
    known = ~np.isnan(values)
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise InputError(f"p-values run from {values[known].min()} to {values[known].max()}: each must lie between 0 and 1")
    adjusted = np.full(values.shape, np.nan)
    if known.any():
        adjusted[known] = scipy.stats.false_discovery_control(values[known], method=method)
    return adjusted


@dataclass(frozen=True)
class SignedRank:
    """A signed-rank test over participants.

    Attributes
    ----------
    p : float
        Two-sided; 1 where every difference is 0.
    smallest : float
        The smallest p that so many participants can reach at all: ``2 / 2 ** n``, n without those whose difference is 0.
    n : int
        Participants that count.
    """

    p: float
    smallest: float
    n: int


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Wilcoxon's signed-rank test of one value for each participant against 0, exact up to 50 participants.

    Tied magnitudes share the mean of their ranks, and the distribution is that of all signs of these ranks.

    Parameters
    ----------
    differences : array_like, shape (participants,)
        Scores, or differences of paired scores.

    Returns
    -------
    SignedRank
        p, the smallest p there can be, and how many participants count.

    Raises
    ------
    InputError
        If the values are not one finite number for each participant.

    Warns
    -----
    FastencodeWarning
        If the smallest p that can be reached is above .05: with fewer than six participants this test can never say anything.
    """
    values = as_numpy(differences, "differences").astype(np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"differences is {values!r}: give one finite number for each participant")
    counted = values[values != 0]
    if not len(counted):
        return SignedRank(1.0, 1.0, 0)
    smallest = 2.0 ** (1 - len(counted))
    if smallest > 0.05:
        warnings.warn(
            f"{len(counted)} participants can reach p = {smallest:.3g} at the smallest: a signed-rank test needs six",
            FastencodeWarning,
            stacklevel=2,
        )
    p = _exact_signed_rank(counted) if len(counted) <= 50 else float(scipy.stats.wilcoxon(counted, method="approx").pvalue)
    return SignedRank(p, smallest, len(counted))


def _exact_signed_rank(counted: Float64) -> float:
    """Two-sided p where every sign is as likely: SciPy's own exact distribution knows no ties."""
    ranks = np.rint(2 * scipy.stats.rankdata(np.abs(counted))).astype(np.intp)  # doubled: means of ranks may be halves
    chances = np.zeros(ranks.sum() + 1)  # of every sum of positive ranks
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = chances[rank:] + chances[:-rank]
        chances /= 2
    positive = ranks[counted > 0].sum()
    return float(min(1.0, 2 * min(chances[: positive + 1].sum(), chances[positive:].sum())))


def _check_pair(Y: ArrayLike, predictions: Sequence[ArrayLike] | Floats) -> tuple[Floats, list[Floats]]:
    Y_tv = as_numpy(Y, "Y")
    if Y_tv.ndim != 2:
        raise InputError(f"Y has shape {Y_tv.shape}: give responses as (time, voxels)")
    predictions_mtv = [as_numpy(prediction, f"predictions[{m}]") for m, prediction in enumerate(predictions)]
    if not predictions_mtv:
        raise InputError("predictions is empty: give at least one prediction of Y")
    for m, prediction_tv in enumerate(predictions_mtv):
        if prediction_tv.shape != Y_tv.shape:
            raise InputError(
                f"predictions[{m}] has shape {prediction_tv.shape}, Y has {Y_tv.shape}: give predictions of all of Y"
            )
    return Y_tv, predictions_mtv


def _check_ceilings(ceilings: ArrayLike, n_voxels: int) -> Float64:
    ceiling_v = np.asarray(ceilings, dtype=np.float64)
    if ceiling_v.shape != (n_voxels,) or not np.isfinite(ceiling_v).all():
        raise InputError(f"ceilings has shape {ceiling_v.shape}: give one finite number for each of the {n_voxels} voxels")
    return ceiling_v


def _check_region(name: str, region: ArrayLike, n_voxels: int) -> NDArray[np.intp]:
    voxels = np.asarray(region)
    if voxels.dtype == bool:
        if voxels.shape != (n_voxels,):
            raise InputError(f"region {name!r} is a mask of shape {voxels.shape} for {n_voxels} voxels")
        voxels = np.flatnonzero(voxels)
    if voxels.ndim != 1 or voxels.size == 0 or voxels.dtype.kind not in "iu":
        raise InputError(f"region {name!r} holds no voxel indices: give a boolean mask or at least one index")
    if voxels.min() < 0 or voxels.max() >= n_voxels:
        raise InputError(f"region {name!r} has indices {voxels.min()} to {voxels.max()}: there are {n_voxels} voxels")
    if len(np.unique(voxels)) < len(voxels):
        raise InputError(f"region {name!r} names a voxel twice: give each index once")
    return voxels.astype(np.intp)


def _region_shares(
    voxels_r: Mapping[str, NDArray[np.intp]], usable_v: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], Float64, NDArray[np.int64]]:
    """The voxels in any region, the share of each in each region's mean, and how many count in each region."""
    member_vr = np.zeros((len(usable_v), len(voxels_r)))
    for place, voxels in enumerate(voxels_r.values()):
        member_vr[voxels, place] = usable_v[voxels]
    size_r = member_vr.sum(axis=0)
    used_v = np.flatnonzero(member_vr.any(axis=1))
    return used_v, member_vr[used_v] / np.maximum(size_r, 1), size_r.astype(np.int64)


def _standardize(block_tv: Floats, name: str) -> Float64:
    """Columns centered and scaled to mean square 1 in float64 (correlations don't mind); constant columns 0."""
    values_tv = block_tv.astype(np.float64)
    size_v = np.abs(values_tv).max(axis=0)
    if not np.isfinite(size_v).all():
        row, column = np.argwhere(~np.isfinite(values_tv))[0]
        raise InputError(f"{name} has {values_tv[row, column]} in row {row}: leave out voxels with values that are not finite")
    values_tv -= values_tv.mean(axis=0)
    values_tv -= values_tv.mean(axis=0)
    rms_v = np.sqrt(np.mean(values_tv**2, axis=0))
    constant_v = rms_v <= 8 * np.finfo(np.float64).eps * size_v
    values_tv *= np.divide(1.0, rms_v, out=np.zeros_like(rms_v), where=~constant_v)
    return values_tv


def _correlation(y: Float64, yy: Float64, p: Float64, pp: Float64, yp: Float64) -> Float64:
    """Pearson correlation from means of y, y^2, p, p^2 and y p; 0 where either side is constant."""
    var_y, var_p = yy - y * y, pp - p * p
    varies = (var_y > CONSTANT * yy) & (var_p > CONSTANT * pp)
    scale = np.sqrt(np.where(varies, var_y * var_p, 1.0))
    return np.clip(np.where(varies, (yp - y * p) / scale, 0.0), -1.0, 1.0)
