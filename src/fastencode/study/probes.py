"""Linear probes of each layer of a frozen model, with a baseline, a control task and intervals.

    probe            fit and score: features of each layer and labels → :class:`ProbeResult`
    save_probe       write a result to an HDF5 file
    load_probe       read it

Features are z-scored with the mean and standard deviation of the fitted rows (training and validation, never test). Rows that
are held out to choose the penalty are part of this scale, but their labels are not. The penalty of each layer is the one with the
best predictions of held-out rows: the split "validation" if there is one, otherwise five folds of whole speakers of the training
rows. The map is then fitted on training and validation rows, and scored on test rows, which are used for nothing else.

Axis letters: n row, l layer, d feature, k class, label or target, b bootstrap draw, a penalty.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.devices import DeviceLike
from fastencode.errors import InputError, warn
from fastencode.files import check_file, whole_file
from fastencode.progress import progress as progress_bar
from fastencode.study.inference.blocks import FEWEST_BLOCKS
from fastencode.study.probing.fits import fit_layer
from fastencode.study.probing.input import Given, check_given, check_names, layers_of, standardised
from fastencode.study.probing.metrics import (
    constant_prediction,
    crossed,
    draw_units,
    drawn_scores,
    effective,
    ends,
    scores,
    sums,
)

__all__ = ["PENALTIES", "ProbeResult", "load_probe", "probe", "save_probe"]

PENALTIES: Mapping[str, tuple[float, ...]] = {
    "classification": tuple(np.logspace(-4, 6, 21)),
    "multilabel": tuple(np.logspace(-4, 6, 21)),
    "regression": tuple(np.logspace(0, 6, 20)),
}
"""Default penalties of each task: for classifiers 1 / C of scikit-learn, for regression α of ``ridge_cv``."""

_METRICS = {
    "classification": ("accuracy", "f1_macro", "f1_micro"),
    "multilabel": ("f1_macro", "f1_micro", "accuracy"),
    "regression": ("r2",),
}
# Classes count as balanced if the largest has fewer than this times an equal share of the test rows.
_BALANCED = 1.5


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Scores of each layer on test rows.

    Attributes
    ----------
    task : str
        "classification", "multilabel" or "regression".
    metric : str
        What ``score`` is: "accuracy", "f1_macro", "f1_micro" or "r2".
    score, low, high : ndarray, shape (l,)
        The metric, and its .95 interval: score ± t × standard deviation of ``draws``, t with ``n_effective`` − 1 degrees of
        freedom. NaN with fewer than 4 units.
    draws : ndarray, shape (l, b)
        The metric on resampled units of the test rows. The units are the same for every layer, and for all models that were
        scored on the same test rows with the same seed, so draws of a difference are differences of draws.
    baseline : float
        The metric of a prediction without features: the most frequent class, each label that most fitted rows have, or the mean
        of the fitted rows.
    baseline_draws : ndarray, shape (b,)
    metrics : name → ndarray, shape (l,)
        Every metric of the task, and "f1: name" of each class or label, or "r2: name" of each target.
    baselines : name → float
        Every metric of the prediction without features.
    control : ndarray, shape (l,), or None
        The metric of a probe with the same penalty on labels that were shuffled by type.
    control_draws : ndarray, shape (l, b), or None
    penalty : ndarray, shape (l,)
        Chosen on held-out rows. For classifiers the weight on ‖W‖² / 2 relative to the sum of losses (1 / C of scikit-learn), for
        regression the weight on ‖W‖².
    at_edge : ndarray of int, shape (l,)
        −1 or +1 if the penalty is the smallest or the largest of ``penalties``, else 0.
    penalties : ndarray, shape (a,)
        The grid.
    held_out : ndarray, shape (l, a)
        The criterion of this choice: mean loss of held-out rows in nats (smaller is better; NaN for penalties that were not
        tried), or mean R² over folds and targets.
    n_train, n_test : int
        Number of fitted rows (train and validation), and of scored rows.
    n_units : int
        Number of units of the test rows that were resampled; of two kinds of unit, the smaller number.
    n_effective : float
        Effective number of units of equal size: :func:`fastencode.study.probing.metrics.effective`.
    unit : str
        "speakers", "utterances", or the argument ``unit``; "speakers and texts" if both were resampled.
    classes : tuple of str
        Classes, labels or targets, in the order of their numbers.
    seed : int
    control_seed : int or None
    """

    task: str
    metric: str
    score: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    draws: NDArray[np.float64]
    baseline: float
    baseline_draws: NDArray[np.float64]
    metrics: Mapping[str, NDArray[np.float64]]
    baselines: Mapping[str, float]
    control: NDArray[np.float64] | None
    control_draws: NDArray[np.float64] | None
    penalty: NDArray[np.float64]
    at_edge: NDArray[np.int64]
    penalties: NDArray[np.float64]
    held_out: NDArray[np.float64]
    n_train: int
    n_test: int
    n_units: int
    n_effective: float
    unit: str
    classes: tuple[str, ...]
    seed: int
    control_seed: int | None


def probe(
    features: Any,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    split: ArrayLike,
    task: str = "classification",
    metric: str | None = None,
    penalties: ArrayLike | None = None,
    control: int | None = None,
    types: ArrayLike | None = None,
    items: ArrayLike | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    n_layers: int | None = None,
    unit: str | None = None,
    progress: bool = False,
    device: DeviceLike = None,
) -> ProbeResult:
    """Fit one linear map for each layer and score it on the test rows.

    Parameters
    ----------
    features : array of shape (n, l, d) or (n, d), function or object with ``rows`` and ``n_layers``
        One row per label. A function takes the number of a layer and returns (n, d); ``rows`` is such a method. One layer at a
        time is in memory, twice if features are an array.
    labels : array_like
        For "classification" (n,) text or integers, for "multilabel" (n, k) booleans, for "regression" (n, k) or (n,) numbers.
    groups : array_like, shape (n,), or None
        Speakers, as text or integers. Training speakers are held out as a whole while the penalty is chosen, and test speakers
        are resampled. None: every row is a group.
    split : array_like, shape (n,)
        "train", "validation" or "test" for each row.
    task : {"classification", "multilabel", "regression"}
        Multinomial logistic regression; a logistic regression of each label; ridge regression.
    metric : str or None
        For classifiers "accuracy", "f1_macro" or "f1_micro"; for regression "r2". None: "accuracy" for balanced classes,
        "f1_macro" for several labels, and for classes of which the largest has at least 1.5 times an equal share of the test
        rows.
    penalties : array_like, shape (a,), or None
        Positive candidates: for classifiers the weight on ‖W‖² / 2 relative to the sum of losses (1 / C of scikit-learn), for
        regression the weight on ‖W‖². None: :data:`PENALTIES`.
    control : int or None
        Seed of a control task: a probe with the same penalty on shuffled labels. Its score shows how much the probe can memorise.
        Score − control score is the selectivity. None: no control.
    types : array_like, shape (n,), or None
        Type of each row in the control, such as the word in which a phone was spoken. All rows of a type, in training and test,
        get the label (or set of labels, or targets) of one random fitted row, so the probe can memorise types. If types are the
        classes themselves, this only renames classes. None: every row is a type. Labels are then permuted among fitted rows and
        among test rows, nothing can be memorised, and the control is at chance.
    items : array_like, shape (n,), or None
        What test rows are a sample of besides ``groups``, such as words or sentences that several speakers say, if the score
        should generalise to others. Both are then resampled, each by itself.
    bootstraps : int
        Number of bootstrap draws; 0 for no intervals.
    seed : int
        Of the bootstrap, and of the folds if there are no groups.
    names : sequence of str, length k, or None
        Of labels or targets.
    n_layers : int or None
        Number of layers, if ``features`` is a function.
    unit : str or None
        What groups are, such as "speakers" (the default).
    progress : bool
        Show a progress bar on standard error.
    device : None or str
        Device of ridge regressions, as for ``ridge_cv``. Classifiers run on the CPU.

    Returns
    -------
    ProbeResult
        Bit-identical for any number of threads.

    Raises
    ------
    InputError
        If numbers of rows differ; labels or groups are missing or of mixed type; a test class has no training rows; a label or
        target is constant in training or test rows; training rows, or test rows with a bootstrap, are of a single speaker;
        features are not finite; or an option is unknown.

    Warns
    -----
    FastencodeWarning
        If the test rows have two or three units; intervals are then NaN.

    References
    ----------
    J. Hewitt and P. Liang (2019), "Designing and interpreting probes with control tasks", EMNLP.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> words, speakers = np.tile(["no", "yes"], 60), np.repeat(np.arange(12), 10)
    >>> X = rng.standard_normal((120, 3, 8)) + np.arange(3)[:, None] * (words == "yes")[:, None, None]
    >>> found = probe(X, words, speakers, split=np.where(speakers < 6, "train", "test"))
    >>> found.metric, found.unit, found.n_units, found.baseline
    ('accuracy', 'speakers', 6, 0.5)
    >>> bool(found.score[0] < found.score[2])
    True
    """
    for name, value in (("bootstraps", bootstraps), ("seed", seed), ("control", 0 if control is None else control)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"{name}={value!r}: give an integer, 0 or more")
    given = check_given(labels, groups, split, task=task, names=names, seed=seed, bootstraps=bootstraps)
    grid, layers = _penalties(task, penalties), layers_of(features, n_layers)
    truth, k = given.truth[given.n_fit :], given.k
    metric = _metric(task, metric, truth, k)
    shuffled = None if control is None else _control(given, types, control)
    drawn = _draw(given, items, "utterances" if groups is None else unit or "speakers", bootstraps, seed)
    if bootstraps and drawn.n_units < FEWEST_BLOCKS:
        warn(f"the test rows are of {drawn.n_units} {drawn.unit}: intervals are NaN, at least {FEWEST_BLOCKS} are needed")

    def scored(predicted: NDArray[Any], actual: NDArray[Any]) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
        by_kind = [sums(task, actual, predicted, units, counts.shape[1], k) for units, counts in drawn.kinds]
        draws = [drawn_scores(task, each, counts, metric) for each, (_, counts) in zip(by_kind, drawn.kinds, strict=True)]
        return scores(task, by_kind[0].sum(axis=0), given.classes), draws[0] if len(draws) == 1 else crossed(*draws)

    fits, found, of_control = [], [], []
    for layer in progress_bar(range(layers.n), desc="probe", unit="layer", enabled=progress):
        fits.append(fit_layer(standardised(layers, layer, given), given, grid, shuffled, device))
        found.append(scored(fits[-1].predicted, truth))
        if shuffled is not None and (predicted := fits[-1].of_control) is not None:
            of_control.append(scored(predicted, shuffled[given.n_fit :]))
    base, base_draws = scored(constant_prediction(task, given.truth[: given.n_fit], k, len(truth)), truth)
    score, draws = np.array([one[metric] for one, _ in found]), np.array([of_draws for _, of_draws in found])
    low, high = ends(metric, score, draws.T, drawn.n_effective)
    return ProbeResult(
        task=task,
        metric=metric,
        score=score,
        low=low,
        high=high,
        draws=draws,
        baseline=float(base[metric]),
        baseline_draws=base_draws,
        metrics={name: np.array([one[name] for one, _ in found]) for name in base},
        baselines={name: float(value) for name, value in base.items()},
        control=np.array([one[metric] for one, _ in of_control]) if of_control else None,
        control_draws=np.array([of_draws for _, of_draws in of_control]) if of_control else None,
        penalty=np.array([fit.penalty for fit in fits]),
        at_edge=np.array([fit.at_edge for fit in fits], np.int64),
        penalties=grid,
        held_out=np.array([fit.held_out for fit in fits]),
        n_train=given.n_fit,
        n_test=len(truth),
        n_units=drawn.n_units,
        n_effective=drawn.n_effective,
        unit=drawn.unit,
        classes=given.classes,
        seed=int(seed),
        control_seed=None if control is None else int(control),
    )


class _Drawn(NamedTuple):
    """What is resampled: of each kind the unit of each test row, and how often each draw takes each unit."""

    kinds: tuple[tuple[NDArray[np.intp], NDArray[np.uint16]], ...]
    n_units: int
    n_effective: float
    unit: str


def _draw(given: Given, items: ArrayLike | None, unit: str, draws: int, seed: int) -> _Drawn:
    """Draws of units; of units, and of items, where there are these."""
    of_units = (given.units, draw_units(given.n_units, draws, seed))
    n_effective = effective(np.bincount(given.units))
    if items is None:
        return _Drawn((of_units,), given.n_units, n_effective, unit)
    names = check_names("items", items, given.n_rows)[given.order][given.n_fit :]
    _, item_n, rows_i = np.unique(names, return_inverse=True, return_counts=True)
    if len(rows_i) < 2 and draws:
        raise InputError(
            f"all test rows are of the item {str(names[0])!r}: an interval over items needs several; leave items out"
        )
    of_items = (item_n, draw_units(len(rows_i), draws, (seed, 1)))
    fewest = min(n_effective, effective(rows_i))
    return _Drawn((of_units, of_items), min(given.n_units, len(rows_i)), fewest, f"{unit} and texts")


def _penalties(task: str, penalties: ArrayLike | None) -> NDArray[np.float64]:
    grid = np.unique(np.asarray(PENALTIES[task] if penalties is None else penalties, np.float64))
    if not grid.size or not np.isfinite(grid).all() or grid[0] <= 0:
        raise InputError(f"penalties={penalties!r}: give positive numbers, for example numpy.logspace(-4, 6, 21)")
    return grid


def _metric(task: str, metric: str | None, truth: NDArray[Any], k: int) -> str:
    if metric is None:
        balanced = task == "classification" and np.bincount(truth, minlength=k).max() < _BALANCED * len(truth) / k
        return "accuracy" if balanced else "r2" if task == "regression" else "f1_macro"
    if metric not in _METRICS[task]:
        raise InputError(f"metric={metric!r}: task={task!r} has {', '.join(_METRICS[task])}")
    return metric


def _control(given: Given, types: ArrayLike | None, seed: int) -> NDArray[Any]:
    """Labels of the control task, in the order of the rows; see ``types`` of :func:`probe`."""
    rng, truth, n = np.random.default_rng(seed), given.truth, given.n_fit
    if types is None:
        return np.concatenate([truth[:n][rng.permutation(n)], truth[n:][rng.permutation(len(truth) - n)]])
    names, type_n = np.unique(check_names("types", types, given.n_rows), return_inverse=True)
    return np.asarray(truth[:n][rng.integers(0, n, len(names))][type_n[given.order]])


def save_probe(result: ProbeResult, path: str | os.PathLike[str]) -> None:
    """Write a result as HDF5, whole or not at all: arrays as data sets, all else as JSON in attributes.

    Parameters
    ----------
    result : ProbeResult
    path : path-like
        Replaced if it exists; its folder must exist.

    Raises
    ------
    InputError
        If the folder does not exist, or the disk is full.
    """
    with whole_file(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["kind"] = "fastencode.ProbeResult"
        for field in fields(ProbeResult):
            value = getattr(result, field.name)
            if field.name == "metrics":  # in the order of baselines, which has their names
                file["metrics"] = np.array(list(value.values()))
            elif isinstance(value, np.ndarray):
                file[field.name] = value
            else:
                file.attrs[field.name] = json.dumps(value)


def load_probe(path: str | os.PathLike[str]) -> ProbeResult:
    """Read what :func:`save_probe` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged or something else.
    """
    try:
        with h5py.File(check_file(path)) as file:
            if file.attrs.get("kind") != "fastencode.ProbeResult":
                raise InputError(f"{path} is not a probe: give a file that save_probe wrote")
            return ProbeResult(**{field.name: _loaded(file, field.name) for field in fields(ProbeResult)})
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({error}): delete it and probe again") from error


def _loaded(file: Any, name: str) -> Any:
    if name == "metrics":
        return dict(zip(json.loads(file.attrs["baselines"]), file["metrics"][...], strict=True))
    if name in file:
        return file[name][...]
    value = json.loads(file.attrs[name])
    return tuple(value) if name == "classes" else value
