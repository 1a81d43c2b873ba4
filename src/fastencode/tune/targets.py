"""What a model is tuned on: responses as they are, controls that must not teach anything about brains, another model's features,
and weights of voxels.

Axis letters: t row (scan), v voxel, d width of a model's state.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.signal import lfilter

from fastencode.errors import InputError, warn
from fastencode.timing.clean import zscore
from fastencode.tune.config import TuneConfig

__all__ = ["lag1", "model_targets", "permute_blocks", "region_weights", "source_rows"]

_ROUNDS = 10_000  # of swaps, until no block is too near
_COLUMNS = 1024  # targets made at a time
_LIMITS = -2.0, 0.999  # of the coefficient of the filter along time


def source_rows(
    n_rows: Mapping[str, int], config: TuneConfig, who: str, tr: float
) -> dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Where the targets of each row of a participant's training runs are taken from.

    Parameters
    ----------
    n_rows : mapping of str to int
        Response rows of each training run, in a fixed order: a permutation depends on it.
    config : TuneConfig
        ``targets`` and its settings. permuted: blocks change places within and between runs, see :func:`permute_blocks`; their
        order follows from ``seed``, ``permutation`` and the participant. shifted: within each run, row i takes the responses of
        row i − s, s = round(shift_seconds / tr), and the first s rows take the last s; the autocorrelation stays as it was but
        for one seam. All others: every row its own.
    who : str
        The participant's name.
    tr : float
        Repetition time in s.

    Returns
    -------
    dict of str to (run, row)
        For each run two arrays of shape (its rows,), intp: the place in ``list(n_rows)`` of the run that a row's responses are
        taken from, and the row there.

    Raises
    ------
    InputError
        If there are too few blocks to permute, the shift is less than half a scan, or a run has fewer than 2 |s| rows: the rows
        that go around its end would be nearer than |s| to where they were.

    Notes
    -----
    A shift by less than the hemodynamic response lasts (20 to 30 s) leaves targets that the sound still predicts.
    """
    sizes = list(n_rows.values())
    run = np.repeat(np.arange(len(sizes)), sizes)
    row = np.concatenate([np.arange(n) for n in [0, *sizes]])
    if config.targets == "permuted":
        rng = np.random.default_rng([config.seed, 12, zlib.crc32(who.encode()), config.permutation])
        order = permute_blocks(sizes, block=config.block, min_move=config.min_move, rng=rng)
        run, row = run[order], row[order]
    elif config.targets == "shifted":
        row = np.concatenate([row[:0], *(_shifted(name, n, config.shift_seconds, tr) for name, n in n_rows.items())])
    edges = np.cumsum(sizes)[:-1]
    return dict(zip(n_rows, zip(np.split(run, edges), np.split(row, edges), strict=True), strict=True))


def _shifted(run: str, n: int, seconds: float, tr: float) -> NDArray[np.intp]:
    shift = round(seconds / tr)
    if not shift:
        raise InputError(f"shift_seconds={seconds:g} is less than half a scan of {tr:g} s: nothing would move; give more")
    if n < 2 * abs(shift):
        raise InputError(
            f"run {run!r} has {n} rows: moved by {shift} (shift_seconds={seconds:g}), some come nearer than that to their place"
            f" around its end; give at most {n // 2 * tr:g} s, or leave the run out"
        )
    return (np.arange(n) - shift) % n


def permute_blocks(n_rows: Sequence[int], *, block: int = 15, min_move: int = 10, rng: np.random.Generator) -> np.ndarray:
    """Reorder rows in blocks of consecutive rows of one run, each of which moves far.

    Responses taken in this order keep their autocorrelation inside a block and lose every relation to what was heard. Every run
    is cut into blocks from its first row on, and blocks change places, also between runs. What is left at the end of a run takes
    the first rows of a block from far away: these are used twice, and as many rows at the ends of runs are not used.

    Parameters
    ----------
    n_rows : sequence of int
        Rows of each training run, in the order in which their rows follow each other.
    block : int
        Rows in a block (15 TRs in the published control).
    min_move : int
        Least number of places every block moves (10 there); lowered to a third of the number of blocks where there are few.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (sum of n_rows,), int
        ``responses[order]`` are the control's targets.

    Raises
    ------
    InputError
        If there are fewer than three whole blocks.
    """
    if block < 1:
        raise InputError(f"block must be at least 1 row, got {block}")
    edges = np.cumsum([0, *n_rows])
    first = np.concatenate([np.arange(start, stop - block + 1, block) for start, stop in zip(edges[:-1], edges[1:], strict=True)])
    n_blocks = len(first)
    if n_blocks < 3:
        raise InputError(
            f"runs of {', '.join(map(str, n_rows))} rows make {n_blocks} blocks of {block}: a control needs at least 3; give more"
            " rows or a smaller block"
        )
    distance = min(min_move, n_blocks // 3)
    order = np.empty(edges[-1], dtype=np.intp)
    for place, source in zip(first, first[_far_derangement(n_blocks, distance, rng)], strict=True):
        order[place : place + block] = source + np.arange(block)
    for run, stop in enumerate(edges[1:]):
        rest = n_rows[run] % block
        if rest:
            here = np.searchsorted(first, stop - rest)  # the number of blocks before these rows
            far = np.flatnonzero((np.arange(n_blocks) - here >= distance) | (here - 1 - np.arange(n_blocks) >= distance))
            order[stop - rest : stop] = first[rng.choice(far)] + np.arange(rest)
    return order


def _far_derangement(n: int, distance: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation with ``|p[i] - i| >= distance``: shuffle, then swap what is too near with partners that suit both."""
    places = np.arange(n)
    permutation = rng.permutation(n)
    for _ in range(_ROUNDS):
        near = np.flatnonzero(np.abs(permutation - places) < distance)
        if not len(near):
            return permutation
        i = rng.choice(near)
        suits = (np.abs(permutation - i) >= distance) & (np.abs(permutation[i] - places) >= distance)
        j = rng.choice(np.flatnonzero(suits)) if suits.any() else rng.integers(n)
        permutation[[i, j]] = permutation[[j, i]]
    raise InputError(f"found no order of {n} blocks in which each moves by {distance}: lower min_move")


def lag1(responses_tv: ArrayLike) -> float:
    """The mean over voxels of the autocorrelation at a lag of one row: sum z(t) z(t + 1) / sum z(t)², z without its mean.

    Parameters
    ----------
    responses_tv : array_like, shape (t, v)
        Of one run. Voxels that are constant or hold NaN do not count.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If no voxel is left, or there are fewer than three rows.
    """
    values_tv = np.asarray(responses_tv)
    if values_tv.ndim != 2 or len(values_tv) < 3:
        raise InputError(f"responses have shape {values_tv.shape}: smoothness needs rows × voxels, at least three rows")
    found = [_lag1(values_tv[:, first : first + _COLUMNS]) for first in range(0, values_tv.shape[1], _COLUMNS)]
    each_v = np.concatenate([np.empty(0), *found])
    if not len(each_v):
        raise InputError(f"all {values_tv.shape[1]} voxels are constant or hold NaN: their smoothness is not known")
    return float(each_v.mean())


def _lag1(values_tv: NDArray) -> NDArray[np.float64]:
    """Of each column that varies and is finite."""
    values_tv = values_tv[:, np.isfinite(values_tv).all(axis=0) & (values_tv != values_tv[0]).any(axis=0)].astype(np.float64)
    z_tv = values_tv - values_tv.mean(axis=0)
    return (z_tv[1:] * z_tv[:-1]).sum(axis=0) / (z_tv**2).sum(axis=0)


def model_targets(states_td: ArrayLike, n_voxels: int, smoothness: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Another model's features as targets, as many and as smooth as a brain's responses.

    Each dimension of the state is z-scored, because a few of a transformer's dimensions are large and would make all targets
    alike; a filter along time gives the targets the smoothness of the responses; a Gaussian matrix, the same for all runs if the
    generator is, makes the targets; they are z-scored.

    The filter has one coefficient c, solved for in each run. 0 < c < 1: y(t) = c y(t − 1) + x(t), which looks back only, as
    the hemodynamic response does. −1 ≤ c ≤ 0: y(t) = x(t) + c x(t − 1). −2 ≤ c < −1: the same with c + 1 in place of c, on the
    differences x(t) − x(t − 1). States of clips that overlap are often smoother than responses: a negative c takes out a part of
    what the scan before said already. The alternative, added noise, would make part of the targets unpredictable from any sound.

    Parameters
    ----------
    states_td : array_like, shape (t, d)
        The other model's pooled states, one for each scan of one run, of any layer.
    n_voxels : int
        Number of targets.
    smoothness : float
        The mean lag-1 autocorrelation wanted: :func:`lag1` of the responses that the targets stand for.
    rng : numpy.random.Generator
        Draws the matrix: a new one of the same seed for each run of a participant. Fewer voxels get the first columns.

    Returns
    -------
    ndarray, shape (t, n_voxels), float32
        Mean 0 and variance 1; all 0 where the states are constant.

    Raises
    ------
    InputError
        If states are not finite or not rows × dimensions, or there is nothing to make.

    Warns
    -----
    FastencodeWarning
        If no coefficient reaches ``smoothness`` within .02; the nearest is used.
    """
    states_td = np.asarray(states_td)
    if states_td.ndim != 2 or len(states_td) < 3 or not states_td.shape[1]:
        raise InputError(f"states have shape {states_td.shape}: give rows × dimensions, at least three rows")
    if n_voxels < 1:
        raise InputError(f"n_voxels={n_voxels}: give at least 1")
    if not -1 < smoothness < 1:
        raise InputError(f"smoothness={smoothness}: give a lag-1 autocorrelation between -1 and 1")
    x_td = np.asarray(zscore(states_td), dtype=np.float32)
    targets_tv = np.empty((len(x_td), n_voxels), dtype=np.float32)
    for first in range(0, n_voxels, _COLUMNS):
        matrix_dv = rng.standard_normal((_COLUMNS, x_td.shape[1]), dtype=np.float32)[: n_voxels - first].T
        if not first:
            x_td = _filtered(x_td, _coefficient(x_td @ matrix_dv, smoothness)).astype(np.float32)
        targets_tv[:, first : first + _COLUMNS] = zscore(x_td @ matrix_dv)
    return targets_tv


def _filtered(x_td: NDArray, c: float) -> NDArray[np.float64]:
    """Series (t, d) through the filter that :func:`model_targets` describes.

    What was before the first row is not known: the beginning is made as large as the rest.
    """
    x_td = x_td.astype(np.float64)
    if c <= 0:
        taps = np.convolve([1.0, max(c, -1.0)], [1.0, min(c + 1, 0.0)])
        return lfilter(taps, [1.0], np.concatenate([x_td[2:0:-1], x_td]), axis=0)[2:]  # x(-t) = x(t)
    y_td, late = lfilter([1.0], [1.0, -c], x_td, axis=0), slice(len(x_td) // 2, None)
    gain = np.sqrt((y_td[late] ** 2).sum() / max((x_td[late] ** 2).sum(), 1e-30))
    return y_td + np.outer(c ** np.arange(len(x_td)), (gain - 1) * x_td[0])  # as if the first row had been larger


def _coefficient(x_tv: NDArray, wanted: float) -> float:
    """The c with which the mean lag-1 autocorrelation is as wanted, or the nearest to it."""

    def excess(c: float) -> float:
        found_v = _lag1(_filtered(x_tv, c))
        return float(found_v.mean()) - wanted if len(found_v) else 0.0

    below, above = excess(_LIMITS[0]), excess(_LIMITS[1])
    if below < 0 < above:
        return float(brentq(excess, *_LIMITS, xtol=1e-4))
    c = _LIMITS[0] if abs(below) < abs(above) else _LIMITS[1]
    if abs(excess(c)) > 0.02:
        warn(
            f"the other model's features cannot have a lag-1 autocorrelation of {wanted:.2f}: their targets have"
            f" {wanted + excess(c):.2f}, so they are not as smooth as the responses; are the runs long enough?"
        )
    return c


def region_weights(
    n_voxels: int, voxels: ArrayLike, regions: Mapping[str, ArrayLike], prefer: Sequence[str], weight: float
) -> NDArray[np.float32]:
    """Weights of the voxels to tune on that prefer some regions.

    Parameters
    ----------
    n_voxels : int
        Voxels of the participant.
    voxels : array_like, shape (v,) or (n_voxels,)
        Indices of the voxels to tune on, in any order, or a boolean mask.
    regions : mapping of str to array_like
        Region → indices of its voxels, as :meth:`fastencode.data.dataset.Dataset.rois` gives them.
    prefer : sequence of str
        Regions whose voxels count ``weight`` times as much as the others; in several of them, a voxel counts so once.
    weight : float
        Positive; below 1, the others are preferred.

    Returns
    -------
    ndarray, shape (v,), float32
        Of mean 1, so that the loss stays as large as without weights.

    Raises
    ------
    InputError
        If there is no such region, a voxel does not exist, no voxel to tune on lies in the regions, or the weight is not
        positive.
    """
    if not 0 < weight < np.inf:
        raise InputError(f"weight={weight}: give a positive number, such as 2 to count a region's voxels twice")
    prefer = [prefer] if isinstance(prefer, str) else list(prefer)
    if unknown := [name for name in prefer if name not in regions]:
        there = ", ".join(map(repr, regions)) or "none"
        raise InputError(f"there is no region {unknown[0]!r}: the regions are {there}")
    chosen = np.asarray(voxels)
    chosen = np.flatnonzero(chosen) if chosen.dtype == bool and len(chosen) == n_voxels else chosen.astype(np.intp)
    preferred = np.zeros(n_voxels, dtype=bool)
    for name, indices in [("voxels to tune on", chosen), *((f"region {name!r}", np.asarray(regions[name])) for name in prefer)]:
        if len(indices) and not 0 <= indices.min() <= indices.max() < n_voxels:
            raise InputError(f"{name}: indices go from {indices.min()} to {indices.max()}, but there are {n_voxels} voxels")
    for name in prefer:
        preferred[np.asarray(regions[name], dtype=np.intp)] = True
    if not preferred[chosen].any():
        raise InputError(f"none of the {len(chosen)} voxels to tune on lies in {', '.join(prefer) or 'a region'}: name others")
    weights_v = np.where(preferred[chosen], weight, 1.0)
    return (weights_v / weights_v.mean()).astype(np.float32)
