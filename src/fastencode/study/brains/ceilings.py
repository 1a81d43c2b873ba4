"""How well a voxel could be predicted at best: the noise ceiling from repeated presentations of one stimulus, or of several.

Axis letters: r repeat, t time, v voxel, s stimulus.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy, export, is_stored, library_of
from fastencode.errors import FastencodeWarning, InputError
from fastencode.study.inference.significance import FALSE_DISCOVERIES, fdr

__all__ = [
    "Signal",
    "averaged_spread",
    "ceiling_pvalues",
    "joint_ceiling",
    "noise_ceiling",
    "scored_ceiling",
    "scored_signal",
    "signal_share",
    "significant_ceilings",
    "split_repeats",
]

# A float64 copy of one block of voxels: 64 MB, beside repeats that may take gigabytes.
VALUES_PER_BLOCK = 1 << 23


class Signal(NamedTuple):
    """How much of the responses to one stimulus is signal, and what of them is to be predicted.

    Attributes
    ----------
    share : ndarray, shape (v,)
        Signal power / total power of a single repeat, as estimated: below 0 as often as above it where there is no signal.
    n_repeats, n_times : int
        Repeats and scans that it was estimated from.
    n_averaged : int
        Repeats in the mean that is to be predicted.
    """

    share: NDArray[np.float64]
    n_repeats: int
    n_times: int
    n_averaged: int


def noise_ceiling(repeats: ArrayLike, *, n_averaged: int | None = None) -> Any:
    """The largest correlation a model can reach with the mean over repeats, for each voxel.

    With N repeats, total power TP the mean over repeats of the variance over time (``ddof=1``), and signal power
    ``SP = (N * variance of the mean repeat - TP) / (N - 1)``, the ceiling is ``1 / sqrt(1 + (TP / SP - 1) / M)``, M = N or
    ``n_averaged``.

    Parameters
    ----------
    repeats : array_like or h5py.Dataset, shape (n_repeats, n_times, n_voxels)
        Responses to the same stimulus, at least two repeats of at least two scans; NumPy, or torch on the CPU. Read in blocks
        of voxels, so a memory map or a data set larger than memory will do. Never written to.
    n_averaged : int, optional
        Repeats in the mean that is to be predicted, where that is another mean than theirs: with :func:`split_repeats`, voxels
        are chosen by one half of the repeats and scored on the other.

    Returns
    -------
    ndarray (torch.Tensor for a tensor), shape (n_voxels,)
        float64 between 0 and 1; divide a correlation by it only where it is positive. Voxels without measurable signal
        (``SP <= 0``, which half of all pure-noise voxels show, and constant voxels) have ceiling 0: ``(ceiling == 0).sum()``
        counts them. Voxels with a value that is not finite have ceiling 0 too, and a warning says how many.

    Raises
    ------
    InputError
        If there are fewer than two repeats or scans, the array is not 3-D, or ``n_averaged`` is not positive.

    References
    ----------
    O. Schoppe et al. (2016), "Measuring the performance of neural models", Frontiers in Computational Neuroscience 10:10.
    """
    return export(joint_ceiling([_signal(repeats, n_averaged)]), library_of(repeats))


def signal_share(repeats: ArrayLike, *, n_averaged: int | None = None) -> Signal:
    """What :func:`joint_ceiling` needs of one stimulus; arguments, warnings and errors are those of :func:`noise_ceiling`.

    ``share`` is ``SP / TP`` there, at most 1; 0 for constant voxels and for those with a value that is not finite.
    """
    return _signal(repeats, n_averaged)


def joint_ceiling(signals: Sequence[Signal]) -> NDArray[np.float64]:
    """The largest correlation a model can reach with the responses to several stimuli, z-scored within each and joined.

    A short stimulus does not say how much signal there is: its share of signal is below 0 by chance where signal is low, and a
    ceiling cannot be. Therefore shares are averaged before the root is taken, not ceilings:

        share = Σ_s w_s SP_s / TP_s / Σ_s w_s,   w_s = n_times_s (N_s − 1) of N_s repeats
        ceiling_s = 1 / sqrt(1 + (1 / share − 1) / M_s),   0 where share ≤ 0,   M_s = n_averaged_s
        ceiling = Σ_s n_times_s ceiling_s / Σ_s n_times_s

    The mean of the stimuli's own ceilings is too low. In ``bench/inference.py``, with five repeats of four stories of 60 to 100
    scans, mean r / mean ceiling was up to 1.26 of its true value; by this formula it is at most 1.04 of it. It is too low
    where chance lifts the share of few voxels above 0: .92 of its true value where 79 % of them have such a share, .76 where 63 %
    have.

    The true share is taken to be alike in all stimuli. Where it is not, this ceiling is too high: mean r / mean ceiling is .95 to
    .98 of its true value there if two of the stories have four times as much signal as the others.

    Parameters
    ----------
    signals : sequence of Signal
        Of the same voxels; of one stimulus this is :func:`noise_ceiling`.

    Returns
    -------
    ndarray, shape (v,)
    """
    weights = [one.n_times * (one.n_repeats - 1) for one in signals]
    share_v = np.average([one.share for one in signals], axis=0, weights=weights)
    noise_v = 1 / np.where(share_v > 0, share_v, 1.0) - 1
    ceiling_sv = [1.0 / np.sqrt(1.0 + noise_v / one.n_averaged) for one in signals]
    mean_v = np.average(ceiling_sv, axis=0, weights=[one.n_times for one in signals])
    return np.where(share_v > 0, mean_v, 0.0)


def _signal(repeats: ArrayLike, n_averaged: int | None) -> Signal:
    source: Any = repeats if is_stored(repeats) else as_numpy(repeats, "repeats")
    n_repeats, n_times, n_voxels = _checked_shape(source)
    averaged = n_repeats if n_averaged is None else n_averaged
    if averaged < 1:
        raise InputError(f"n_averaged={n_averaged}: give the number of repeats in the mean that is to be predicted")
    share_v = np.zeros(n_voxels)
    n_bad = 0
    width = max(1, VALUES_PER_BLOCK // (n_repeats * n_times))
    for start in range(0, n_voxels, width):
        block_rtv = np.asarray(source[:, :, start : start + width], dtype=np.float64)
        finite_v = np.isfinite(block_rtv).all(axis=(0, 1))
        n_bad += int((~finite_v).sum())
        share_v[start : start + width][finite_v] = _share(block_rtv[:, :, finite_v])
    if n_bad:
        warnings.warn(
            f"{n_bad} of {n_voxels} voxels have values that are not finite: their noise ceiling is 0",
            FastencodeWarning,
            stacklevel=3,
        )
    return Signal(share_v, n_repeats, n_times, averaged)


def ceiling_pvalues(repeats: ArrayLike) -> NDArray[np.float64]:
    """P-value of each voxel's noise ceiling: whether repeats agree more than series that have nothing in common.

    The statistic is the variance over time of the mean over repeats. Under the null each repeat is turned against the others by
    any number of scans, the first following the last, which keeps its autocorrelation. Over all such turns the mean and the
    variance of the statistic are known exactly; p is that of the gamma distribution with these two.

    Half of all pure-noise voxels have a ceiling above 0: choose voxels by this, adjusted by :func:`significance.fdr`, and by how
    large their ceiling is besides. Those that just pass have ceilings that are too high by chance: where most of a region's do,
    its mean correlation over its mean ceiling is too low (by 11 % where 1,358 of 3,000 voxels passed, in ``bench/inference.py``).

    Parameters
    ----------
    repeats : array_like or h5py.Dataset, shape (n_repeats, n_times, n_voxels)
        As for :func:`noise_ceiling`.

    Returns
    -------
    ndarray, shape (n_voxels,)
        One-sided; 1 where the ceiling is 0 and for voxels with values that are not finite. With two repeats p-values below .01
        are too large.

    Raises
    ------
    InputError
        If there are fewer than two repeats or scans, or the array is not 3-D.
    """
    source: Any = repeats if is_stored(repeats) else as_numpy(repeats, "repeats")
    n_repeats, n_times, n_voxels = _checked_shape(source)
    p_v = np.ones(n_voxels)
    width = max(1, VALUES_PER_BLOCK // (2 * n_repeats * n_times))
    for start in range(0, n_voxels, width):
        block_rtv = np.asarray(source[:, :, start : start + width], dtype=np.float64)
        finite = np.flatnonzero(np.isfinite(block_rtv).all(axis=(0, 1)))
        usable = finite[_share(block_rtv[:, :, finite]) > 0]  # elsewhere repeats agree less than by chance
        if len(usable):
            p_v[start + usable] = _turned(block_rtv[:, :, usable])
    return p_v


def significant_ceilings(repeats: ArrayLike) -> NDArray[np.bool_]:
    """Voxels whose repeats agree, (v,), at a false discovery rate of 5 %; see :func:`ceiling_pvalues`."""
    return np.asarray(fdr(ceiling_pvalues(repeats)) <= FALSE_DISCOVERIES)


def _turned(block_rtv: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values from all turns. With c_ij(s) the sum over time of repeat i times repeat j turned by s, the statistic times time
    times N² is Σ_i c_ii(0) + 2 Σ_{i<j} c_ij. Over all turns c_ij has the mean 0 and the mean square Σ_f P_i(f) P_j(f) / t², and
    different pairs are uncorrelated. P are the power spectra."""
    n_times = block_rtv.shape[1]
    block_rtv = block_rtv - block_rtv.mean(axis=1, keepdims=True)
    measured_v = (block_rtv.sum(axis=0) ** 2).sum(axis=0)
    spectrum = np.abs(np.fft.rfft(block_rtv, axis=1)) ** 2
    twice_f = np.full(spectrum.shape[1], 2.0)  # frequencies that the real transform leaves out
    twice_f[0] = 1.0
    if n_times % 2 == 0:
        twice_f[-1] = 1.0
    pairs_v = twice_f @ (spectrum.sum(axis=0) ** 2 - (spectrum**2).sum(axis=0)) / 2
    mean_v, variance_v = (block_rtv**2).sum(axis=(0, 1)), 4 * pairs_v / n_times**2
    return np.asarray(scipy.stats.gamma.sf(measured_v, mean_v**2 / variance_v, scale=variance_v / mean_v))


def split_repeats(n_repeats: int) -> tuple[slice, slice]:
    """Two halves of the repeats, every other one each: to choose voxels by one and score on the other shares no noise.

    Raises
    ------
    InputError
        If there are fewer than three repeats: the first half, which a ceiling is estimated from, needs two.
    """
    if n_repeats < 3:
        raise InputError(f"{n_repeats} repeats cannot be split: a ceiling needs two, and one more is needed to score on")
    return slice(0, None, 2), slice(1, None, 2)


def scored_ceiling(repeats: ArrayLike) -> NDArray[np.float64]:
    """Noise ceilings of the mean over the second half of :func:`split_repeats`, for scores of voxels that the first half chose.

    Where the half that chooses voxels also estimates their ceilings, those that just pass have ceilings that are too high by
    chance, and mean r / mean ceiling is too low: .77 of its value in the simulation of ``tests/test_ceilings.py``, where 22 % of
    the voxels pass. With ceilings of the half that is scored it is 1.01 of its value there.

    Parameters
    ----------
    repeats : array_like, shape (n_repeats, n_times, n_voxels)
        At least three repeats.

    Returns
    -------
    ndarray, shape (n_voxels,)
        Estimated from the second half. With three repeats that is one repeat, which has no ceiling: then it is estimated from the
        first half, and too high where few voxels pass.

    Raises
    ------
    InputError
        As :func:`split_repeats` and :func:`noise_ceiling`.
    """
    return joint_ceiling([scored_signal(repeats)])


def scored_signal(repeats: ArrayLike) -> Signal:
    """What :func:`joint_ceiling` needs of one stimulus to give such ceilings; see :func:`scored_ceiling`."""
    source = as_numpy(repeats, "repeats")
    first, second = split_repeats(len(source))
    return _signal(source[second], None) if len(source[second]) > 1 else _signal(source[first], 1)


def averaged_spread(repeats: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation over time of the mean over repeats, in those of a single repeat.

    A model fitted on z-scored responses that were heard once predicts in units of a single repeat. The mean over repeats has less
    noise: z-scored, its signal is larger than what such a model predicts, and R² would count that as error. Times this it is not.

    Parameters
    ----------
    repeats : array_like, shape (n_repeats, n_times, n_voxels)

    Returns
    -------
    ndarray, shape (n_voxels,)
        ``std of the mean repeat / sqrt(mean over repeats of the variance over time)``, between 0 and 1; 1 for constant voxels and
        for those with values that are not finite.
    """
    source = as_numpy(repeats, "repeats")
    n_repeats, n_times, n_voxels = source.shape
    spread_v = np.ones(n_voxels)
    width = max(1, VALUES_PER_BLOCK // (n_repeats * n_times))
    for start in range(0, n_voxels, width):
        block_rtv = source[:, :, start : start + width].astype(np.float64)
        usable_v = np.isfinite(block_rtv).all(axis=(0, 1)) & (np.ptp(block_rtv, axis=(0, 1)) > 0)
        block_rtv = block_rtv[:, :, usable_v]
        single_v, mean_v = block_rtv.var(axis=1).mean(axis=0), block_rtv.mean(axis=0).var(axis=0)
        ratio_v = np.divide(mean_v, single_v, out=np.ones_like(mean_v), where=single_v > 0)
        spread_v[start : start + width][usable_v] = np.sqrt(ratio_v)
    return spread_v


def _checked_shape(source: Any) -> tuple[int, int, int]:
    if len(source.shape) != 3:
        raise InputError(f"repeats has shape {tuple(source.shape)}: give (repeats, times, voxels)")
    n_repeats, n_times, n_voxels = source.shape
    if n_repeats < 2 or n_times < 2:
        raise InputError(f"repeats has shape {tuple(source.shape)}: a noise ceiling needs at least 2 repeats of at least 2 scans")
    return n_repeats, n_times, n_voxels


def _share(block_rtv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signal power / total power, at most 1."""
    n_repeats = len(block_rtv)
    total_v = block_rtv.var(axis=1, ddof=1).mean(axis=0)
    signal_v = (n_repeats * block_rtv.mean(axis=0).var(axis=0, ddof=1) - total_v) / (n_repeats - 1)
    # A constant voxel's variance is rounding, which must not pass for perfectly repeated signal.
    rounding_v = (8 * np.finfo(np.float64).eps * np.abs(block_rtv).max(axis=(0, 1), initial=0.0)) ** 2
    share_v = np.divide(signal_v, total_v, out=np.zeros_like(total_v), where=total_v > rounding_v)
    # Identical repeats have TP = SP, up to rounding on either side.
    return np.minimum(share_v, 1.0)
