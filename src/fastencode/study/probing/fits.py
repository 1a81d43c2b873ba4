"""One layer's probe: the penalty that predicts held-out rows best, the fit on all fitted rows, predictions of the test rows.

Classifiers go from the largest penalty down, each begun where a straight line through the two before leads (about half the steps
than from the one before, ``bench/probes.py``), and stop where two penalties in a row lose against the best: with smaller
penalties, the held-out loss only rises further. Regression goes through ``ridge_cv``.

Axis letters: n row, d feature, k class, label or target, a penalty.
"""

from __future__ import annotations

import warnings
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.devices import DeviceLike
from fastencode.errors import FastencodeWarning, InputError
from fastencode.solve.edges import held_warnings
from fastencode.solve.ridge import ridge_cv
from fastencode.study.probing.classifiers import Curvature, Labels, Objective, decisions, held_out_loss, minimise, priors, workers
from fastencode.study.probing.input import Fold, Given

__all__ = ["Fitted", "fit_layer"]

Floats = NDArray[np.floating[Any]]

_WORSE = 2  # the path of penalties ends after this many in a row that are worse by more than _LOSES
_LOSES = 1e-5  # nats a row
# A fit ends when the next step promises less than this, in nats per row: while penalties are compared, and in the final fit.
_ROUGH, _FINE = 3e-6, 1e-8


class Fitted(NamedTuple):
    """The result of one layer.

    Attributes
    ----------
    predicted : ndarray
        Predictions of the test rows: (n,) class, (n, k) bool or (n, k) float64.
    penalty : float
    at_edge : int
        −1 or +1 if the penalty is the smallest or the largest of the grid, else 0.
    held_out : ndarray, shape (a,)
        Mean loss of held-out rows in nats, NaN if not computed; for regression, R², mean over folds and targets.
    of_control : ndarray or None
        Predictions of a fit on the control's labels at the same penalty.
    """

    predicted: NDArray[Any]
    penalty: float
    at_edge: int
    held_out: NDArray[np.float64]
    of_control: NDArray[Any] | None


class _Part:
    """One fold of a classifier: its objective, and its parameters, which are warm-started from one penalty to the next smaller.

    Classes without training rows in the fold, and held-out rows of these classes, are ignored in the fold. So are labels that all
    training rows share.
    """

    def __init__(self, X_nd: Floats, labels: Labels, fold: Fold, pool: Executor) -> None:
        seen = np.concatenate([labels.values[start:stop] for start, stop in fold.train])
        self.kept, mine = _varying(labels, seen)
        self.objective = Objective(X_nd, mine, fold.train, pool)
        self.theta = self._before = priors(mine, fold.train, X_nd.shape[1], X_nd.dtype)
        held = slice(*fold.held)
        self._X, self._labels = X_nd[held], Labels(mine.values[held], mine.k)
        self.n_held = len(self._X) if labels.several else int((self._labels.values >= 0).sum())

    def loss(self, alpha: float, curvature: Curvature) -> float:
        """The sum of held-out losses at a penalty. Must be called with decreasing penalties."""
        start = 2 * self.theta - self._before
        self._before, self.theta = self.theta, minimise(self.objective, start, alpha, curvature, tolerance=_ROUGH)
        return held_out_loss(self.theta, self._X, self._labels)


def _varying(labels: Labels, seen: NDArray[Any]) -> tuple[NDArray[np.intp], Labels]:
    """Numbers of the classes that occur in ``seen``, or of the labels that vary in ``seen``; and ``labels`` reduced to these."""
    if labels.several:
        kept = np.flatnonzero(np.ptp(seen, axis=0) > 0)
        return kept, Labels(labels.values if len(kept) == labels.k else np.ascontiguousarray(labels.values[:, kept]), len(kept))
    kept = np.unique(seen)
    place = np.full(labels.k, -1)
    place[kept] = np.arange(len(kept))
    return kept, Labels(place[labels.values], len(kept))


def fit_layer(
    X_nd: Floats, given: Given, penalties: NDArray[np.float64], control: NDArray[Any] | None, device: DeviceLike
) -> Fitted:
    """Choose the penalty of one layer, fit it, and predict the test rows.

    Parameters
    ----------
    X_nd : ndarray, shape (n, d)
        Of :func:`fastencode.study.probing.input.standardised`.
    given : Given
    penalties : ndarray, shape (a,)
        Increasing.
    control : ndarray or None
        Labels of the control, in the form of ``given.truth``.
    device : None or str
        Where ridge is computed; classifiers are computed on the CPU.
    """
    if given.task == "regression":
        return _ridge(X_nd, given, penalties, control, device)
    with workers() as pool:
        return _classifier(X_nd, given, penalties, control, pool)


def _classifier(
    X_nd: Floats, given: Given, penalties: NDArray[np.float64], control: NDArray[Any] | None, pool: Executor
) -> Fitted:
    fitted, several = X_nd[: given.n_fit], given.task == "multilabel"
    labels = _labels(given.truth[: given.n_fit], given.k, X_nd.dtype)
    curvature = Curvature.of(fitted, pool)
    parts = [_Part(fitted, labels, fold, pool) for fold in given.folds]
    parts = [part for part in parts if part.n_held and len(part.kept) > (0 if several else 1)]
    if not parts:
        raise InputError("no held-out row has a label that other train rows have: choose other groups, or pass groups=None")
    held_out, best, worse, begin = np.full(len(penalties), np.nan), len(penalties) - 1, 0, [part.theta for part in parts]
    for place in range(len(penalties) - 1, -1, -1):
        held_out[place] = sum(part.loss(penalties[place], curvature) for part in parts) / sum(part.n_held for part in parts)
        if place == best or held_out[place] < held_out[best]:  # ties go to the larger penalty
            best, worse, begin = place, 0, [part.theta for part in parts]
        elif held_out[place] > held_out[best] + _LOSES and (worse := worse + 1) == _WORSE:
            break
    penalty = float(penalties[best])
    start = _mean_theta(labels, parts, begin)

    def predictions(of: Labels, start: Floats | None) -> NDArray[Any]:
        return _fit_and_predict(X_nd, given.n_fit, of, penalty, curvature, start, pool)

    of_control = None
    if control is not None:
        of_control = predictions(_labels(control[: given.n_fit], given.k, X_nd.dtype), None)
    return Fitted(predictions(labels, start), penalty, _edge(best, len(penalties)), held_out, of_control)


def _labels(truth: NDArray[Any], k: int, dtype: Any) -> Labels:
    return Labels(truth.astype(dtype) if truth.ndim == 2 else truth, k)


def _mean_theta(labels: Labels, parts: list[_Part], thetas: list[Floats]) -> Floats:
    """Start of the final fit: the mean over folds of the parameters at the chosen penalty."""
    total = np.zeros((len(thetas[0]), labels.k), thetas[0].dtype)
    for part, theta in zip(parts, thetas, strict=True):
        total[:, part.kept] += theta / len(parts)
    return total


def _fit_and_predict(
    X_nd: Floats, n_fit: int, labels: Labels, alpha: float, curvature: Curvature, start: Floats | None, pool: Executor
) -> NDArray[Any]:
    """Fit the first ``n_fit`` rows and predict all others. Labels that all fitted rows share are predicted as such."""
    kept, mine = _varying(labels, labels.values)
    ranges = [(0, n_fit)]
    test = X_nd[n_fit:]
    theta = priors(mine, ranges, X_nd.shape[1], X_nd.dtype) if start is None else np.ascontiguousarray(start[:, kept])
    theta = minimise(Objective(X_nd[:n_fit], mine, ranges, pool), theta, alpha, curvature, tolerance=_FINE)
    found = decisions(theta, test)
    if not labels.several:
        return np.asarray(kept[found.argmax(axis=1)])
    predicted = np.tile(labels.values[0] > 0, (len(test), 1))
    predicted[:, kept] = found > 0
    return predicted


def _edge(place: int, n: int) -> int:
    return int(place == n - 1) - int(place == 0) if n > 1 else 0


def _ridge(
    X_nd: Floats, given: Given, penalties: NDArray[np.float64], control: NDArray[Any] | None, device: DeviceLike
) -> Fitted:
    n = given.n_fit
    cv = [(np.concatenate([np.arange(*one) for one in fold.train]), np.arange(*fold.held)) for fold in given.folds]

    def fitted(truth: NDArray[Any], **options: Any) -> tuple[Any, NDArray[np.float64]]:
        mean, spread = truth[:n].mean(axis=0), truth[:n].std(axis=0)
        scaled = ((truth[:n] - mean) / np.where(spread > 0, spread, 1)).astype(X_nd.dtype)
        fit = ridge_cv(X_nd[:n], scaled, device=device, **options)
        return fit, np.asarray(fit.predict(X_nd[n:]), np.float64) * spread + mean

    with warnings.catch_warnings(), held_warnings():  # at_edge reports it for every layer
        warnings.simplefilter("ignore", FastencodeWarning)
        fit, predicted = fitted(given.truth, alphas=penalties, cv=cv, per_target=False)
        penalty = float(np.ravel(fit.alpha)[0])
        of_control = None if control is None else fitted(control, alphas=[penalty], cv=None)[1]
    held_out = np.asarray(fit.cv_scores, np.float64).mean(axis=1)
    return Fitted(predicted, penalty, _edge(int(np.abs(penalties - penalty).argmin()), len(penalties)), held_out, of_control)
