"""Does the brain follow the rate of words? Four measures on real listeners, from word times to held-out prediction.

Legend: L listeners, n scans, V regions; time runs along rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.data.brennan import Alice
from fastencode.data.textgrid import Interval
from fastencode.errors import InputError
from fastencode.solve.ridge import ridge_cv
from fastencode.solve.score.moments import pearson
from fastencode.timing.clean import detrend_polynomial, zscore
from fastencode.timing.delays import delay
from fastencode.timing.hrf import hrf_convolve
from fastencode.timing.lanczos import lanczos

__all__ = [
    "HeldOutRidge",
    "WordRateStudy",
    "group_correlation",
    "held_out_ridge",
    "leave_one_out_correlation",
    "rate_weights",
    "word_features",
    "word_rate_predictor",
    "word_rate_study",
]

_DRIFT = 3  # degree of the polynomial that stands for scanner drift, as published


@dataclass(frozen=True)
class HeldOutRidge:
    """Ridge regression on word features, fitted on the first rows and scored on the rest."""

    correlation: NDArray[np.float64]
    """(V,), Pearson, held-out rows."""
    alpha: NDArray[np.float64]
    """(V,), weight on ‖b‖², chosen on the fitted rows."""
    at_edge: NDArray[np.int64]
    """(V,), −1 or +1 where the penalty is the smallest or largest of the grid."""
    n_fit: int
    n_test: int


@dataclass(frozen=True)
class WordRateStudy:
    """The tables of ``word_rate_study``, one value per region where not said otherwise."""

    regions: tuple[str, ...]
    listeners: tuple[str, ...]
    left_out: dict[str, str]
    """Listener → why it is not data."""
    n_words: int
    predictor_correlation: dict[str, float]
    """Our word-rate predictor against the authors', by what counts as a word's time."""
    weight: NDArray[np.float64]
    """Mean over listeners of the standardized weight of word rate."""
    t: NDArray[np.float64]
    """Of that mean against 0, with one degree of freedom less than listeners."""
    group_correlation: NDArray[np.float64]
    """Pearson, the mean listener with the authors' word rate."""
    leave_one_out: NDArray[np.float64]
    """Pearson, each listener with the mean of the others, averaged over listeners."""
    ridge: HeldOutRidge

    def rows(self) -> list[dict[str, str | float]]:
        """Return one record per measure and region: ``measure``, ``region``, ``value``."""
        measures = {
            "word-rate weight": self.weight,
            "t": self.t,
            "group mean against word rate, r": self.group_correlation,
            "one listener against the others, r": self.leave_one_out,
            "held-out ridge, r": self.ridge.correlation,
            "held-out ridge, alpha": self.ridge.alpha,
        }
        table: list[dict[str, str | float]] = [
            {"measure": f"predictor against the authors', r ({name})", "region": "", "value": r}
            for name, r in self.predictor_correlation.items()
        ]
        return table + [
            {"measure": measure, "region": region, "value": float(value)}
            for measure, values in measures.items()
            for region, value in zip(self.regions, values, strict=True)
        ]


def word_rate_study(alice: Alice) -> WordRateStudy:
    """Repeat the word-rate analyses of the Alice data set and add a held-out ridge regression.

    Parameters
    ----------
    alice : Alice
        The data set.

    Returns
    -------
    WordRateStudy
        Predictor: impulses at word offsets, tokens that start with an apostrophe dropped, under the SPM hemodynamic response,
        sampled when each scan begins, against the authors' word rate over all scans; beside it, what other choices of token and
        time give. Weights: ``rate_weights`` with the authors' word rate, sound power and the listener's motion. Ridge:
        ``word_features`` at scan middles, delays of 1 to 4 scans, fitted on the first 262 responses of the mean listener and
        scored on the last 100.
    """
    names = alice.listeners
    Y_lnv = np.stack([alice.timecourses(name) for name in names])
    weights = rate_weights(
        Y_lnv,
        np.stack([alice.rate(name) for name in names]),
        np.stack([alice.sound_power(name) for name in names]),
        np.stack([alice.motion(name) for name in names]),
    )
    theirs = alice.generic_predictors(all_scans=True)[:, 0]
    scans = alice.scan_times
    offsets = [w.end for w in alice.words]
    ours = {
        "word offsets, no clitics": word_rate_predictor([w.end for w in alice.words if not w.label.startswith("'")], scans),
        "word offsets": word_rate_predictor(offsets, scans),
        "word onsets": word_rate_predictor([w.start for w in alice.words], scans),
        "word offsets, sampled 1 s late": word_rate_predictor(offsets, scans + 1),
    }
    X = delay(word_features(alice.words, scans + alice.tr / 2), delays=(1, 2, 3, 4))[alice.discarded :]
    return WordRateStudy(
        regions=alice.regions,
        listeners=tuple(names),
        left_out=dict(alice.left_out),
        n_words=len(alice.words),
        predictor_correlation={name: float(pearson(predictor, theirs)) for name, predictor in ours.items()},
        weight=weights.mean(axis=0),
        t=weights.mean(axis=0) / (weights.std(axis=0, ddof=1) / np.sqrt(len(weights))),
        group_correlation=group_correlation(Y_lnv, theirs[alice.discarded :]),
        leave_one_out=leave_one_out_correlation(Y_lnv),
        ridge=held_out_ridge(X, _cleaned(Y_lnv).mean(axis=0), n_fit=262),
    )


def word_rate_predictor(times: ArrayLike, scan_times: ArrayLike) -> NDArray[np.float64]:
    """Return the expected response to one impulse per word, shape (n,): the SPM hemodynamic response at the scans.

    Parameters
    ----------
    times : array_like, shape (words,)
        When each impulse is, in s.
    scan_times : array_like, shape (n,)
        When the response is sampled, in s.
    """
    times = np.asarray(times, dtype=np.float64)
    return np.asarray(hrf_convolve(np.ones(len(times)), times, scan_times))


def word_features(words: Sequence[Interval], scan_times: ArrayLike) -> NDArray[np.float64]:
    """Return the rates of words, of letters and of spoken time at the scans, shape (n, 3).

    Each word is an impulse at its middle, of height 1, its number of letters and its duration in s; Lanczos resampling (three
    lobes) brings the impulses to the scans.

    Parameters
    ----------
    words : sequence of Interval
        Words in time order.
    scan_times : array_like, shape (n,)
        Evenly spaced, in s.
    """
    features = np.array([[1.0, sum(c.isalpha() for c in w.label), w.end - w.start] for w in words]).reshape(-1, 3)
    middles = np.array([(w.start + w.end) / 2 for w in words])
    return np.asarray(lanczos(features, middles, scan_times))


def rate_weights(Y_lnv: ArrayLike, rate: ArrayLike, sound_power: ArrayLike, motion: ArrayLike) -> NDArray[np.float64]:
    """Return each listener's standardized weight of word rate, by ordinary least squares.

    The model has word rate, sound power and motion, z-scored, and a cubic polynomial of time; responses are z-scored.

    Parameters
    ----------
    Y_lnv : array_like, shape (L, n, V)
        Responses.
    rate, sound_power : array_like, shape (L, n)
        Predictors of each listener.
    motion : array_like, shape (L, n, M)
        Head motion of each listener.

    Returns
    -------
    ndarray, shape (L, V)
    """
    Y_lnv, rate, sound_power, motion = (np.asarray(a, dtype=np.float64) for a in (Y_lnv, rate, sound_power, motion))
    drift = np.polynomial.legendre.legvander(np.linspace(-1, 1, Y_lnv.shape[1]), _DRIFT)
    weights = np.empty((Y_lnv.shape[0], Y_lnv.shape[2]))
    for i, Y in enumerate(Y_lnv):
        X = np.column_stack([zscore(rate[i]), zscore(sound_power[i]), zscore(motion[i]), drift])
        weights[i] = np.linalg.lstsq(X, zscore(Y), rcond=None)[0][0]
    return weights


def group_correlation(Y_lnv: ArrayLike, predictor: ArrayLike) -> NDArray[np.float64]:
    """Return the correlation of the mean listener (cubic drift removed, z-scored, averaged) with a predictor, shape (V,)."""
    group = _cleaned(Y_lnv).mean(axis=0)
    predictor = np.asarray(predictor, dtype=np.float64)[:, None]
    return np.asarray(pearson(group, np.broadcast_to(predictor, group.shape)))


def leave_one_out_correlation(Y_lnv: ArrayLike) -> NDArray[np.float64]:
    """Return the correlation of each listener with the mean of the others, averaged over listeners, shape (V,).

    Responses have their cubic drift removed and are z-scored first.
    """
    Z_lnv = _cleaned(Y_lnv)
    if len(Z_lnv) < 2:
        raise InputError(f"there is {len(Z_lnv)} listener: leaving one out needs at least two")
    total = Z_lnv.sum(axis=0)
    return np.mean([pearson(Z, total - Z) for Z in Z_lnv], axis=0)


def held_out_ridge(X: ArrayLike, Y: ArrayLike, *, n_fit: int) -> HeldOutRidge:
    """Fit ridge regression on the first rows, its penalty chosen per target on contiguous folds of them, and score the rest.

    Parameters
    ----------
    X : array_like, shape (n, p)
        Delayed features.
    Y : array_like, shape (n, V)
        Responses.
    n_fit : int
        Rows to fit on; the others are scored.
    """
    X, Y = np.asarray(X), np.asarray(Y)
    if not 0 < n_fit < len(X):
        raise InputError(f"n_fit is {n_fit}, but there are {len(X)} rows: leave some to score")
    fit = ridge_cv(X[:n_fit], Y[:n_fit], cv=5)
    return HeldOutRidge(
        correlation=np.asarray(fit.score(X[n_fit:], Y[n_fit:], scoring="pearson"), dtype=np.float64),
        alpha=np.asarray(fit.alpha, dtype=np.float64),
        at_edge=np.asarray(fit.at_edge, dtype=np.int64),
        n_fit=n_fit,
        n_test=len(X) - n_fit,
    )


def _cleaned(Y_lnv: ArrayLike) -> NDArray[np.float64]:
    return np.stack([zscore(detrend_polynomial(Y, _DRIFT)) for Y in np.asarray(Y_lnv, dtype=np.float64)])
