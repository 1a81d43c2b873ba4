"""Probes: what a linear map reads from each layer of a frozen model, with a baseline, a control and an interval beside.

    probe            features of each layer and labels → a :class:`ProbeResult`
    save_probe       as an HDF5 file
    load_probe       and back

Features are z-scored by all fitted rows, train and validation, never by test rows: those that are held out while the penalty is
chosen have a part in that scale, but no label has. The penalty of each layer is the one that predicts held-out rows best: those
of the split "validation" where there are any, else five folds of the train rows, each of whole speakers. The map is then fitted
on train and validation rows, and scored on test rows, which decide nothing.

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
"""Penalties of each task unless others are given: of classifiers, 1 / C of scikit-learn; of regression, ``ridge_cv``'s."""

_METRICS = {
    "classification": ("accuracy", "f1_macro", "f1_micro"),
    "multilabel": ("f1_macro", "f1_micro", "accuracy"),
    "regression": ("r2",),
}
# Classes are balanced where the largest has less than this times its equal share of the test rows.
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
        The metric on resampled units of the test rows: the same units for every layer, and for all features and models that were
        scored on the same test rows with the same seed. So draws of a difference are differences of draws.
    baseline : float
        The metric of a prediction without features: the most frequent class, each label where most rows have it, or the mean of
        the fitted rows.
    baseline_draws : ndarray, shape (b,)
    metrics : name → ndarray, shape (l,)
        Every metric of the task; "f1: name" for each class or label, or "r2: name" for each target too.
    baselines : name → float
        Every metric of the prediction without features.
    control : ndarray, shape (l,), or None
        The metric of the same probe, at the same penalty, on labels that were shuffled by type.
    control_draws : ndarray, shape (l, b), or None
    penalty : ndarray, shape (l,)
        Chosen on held-out rows: for classifiers the weight on half of ‖W‖² beside the sum of losses (1 / C of scikit-learn), for
        regression the weight on ‖W‖².
    at_edge : ndarray of int, shape (l,)
        −1 or +1 where it is the smallest or the largest of ``penalties``.
    penalties : ndarray, shape (a,)
        The grid.
    held_out : ndarray, shape (l, a)
        What it was chosen by: mean loss in nats of a held-out row (smaller is better; NaN below where the search ended), or the
        mean R² over folds and targets.
    n_train, n_test : int
        Rows that were fitted (train and validation) and scored.
    n_units : int
        Units of the test rows that were resampled; of two kinds the fewer.
    n_effective : float
        How many of equal size tell as much: :func:`fastencode.study.probing.metrics.effective`.
    unit : str
        "speakers", "utterances", or what the caller says that groups are; "speakers and texts" where both were resampled.
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
        A row for each label. A function takes the number of a layer and returns (n, d); ``rows`` is such a function. One layer is
        in memory at a time, twice where it is read from an array.
    labels : array_like
        Of "classification", (n,) text or integers; of "multilabel", (n, k) True or False; of "regression", (n, k) or (n,)
        numbers.
    groups : array_like, shape (n,), or None
        Speakers, as text or integers. Those of the train rows are held out as a whole while the penalty is chosen, and those of
        the test rows are resampled. None: rows by themselves.
    split : array_like, shape (n,)
        "train", "validation" or "test" for each row.
    task : {"classification", "multilabel", "regression"}
        Multinomial logistic regression; a logistic regression of each label; ridge regression.
    metric : str or None
        Of classifiers "accuracy", "f1_macro" or "f1_micro", of regression "r2". None: "f1_macro" for several labels, and for
        classes of which the largest has 1.5 times its equal share of the test rows or more; else "accuracy".
    penalties : array_like, shape (a,), or None
        Candidates, positive; for classifiers the weight on half of ‖W‖² beside the sum of losses over rows, which is 1 / C of
        scikit-learn; for regression the weight on ‖W‖². None: :data:`PENALTIES`.
    control : int or None
        The seed of a control task: the same probe at the same penalty on shuffled labels, whose score tells how much the probe
        learns by itself. The score less the control's is the selectivity.
    types : array_like, shape (n,), or None
        What is shuffled as one in the control, such as the word that a phone was spoken in: all rows of a type get the label (the
        set of labels, the targets) of one fitted row drawn at random, in train and test alike, so that the probe can learn it by
        heart. Where types are the classes themselves, that renames classes and takes nothing away. None: every row is a type, and
        labels are permuted among fitted rows and among test rows, so that nothing can be learned: the control is then at chance.
    items : array_like, shape (n,), or None
        What test rows are a sample of beside ``groups``, such as words or sentences that several speakers say, where the score is
        to hold for others, too: both are resampled, each by itself.
    bootstraps : int
        Draws; 0 for no intervals.
    seed : int
        Of the draws, and of the folds where there are no groups.
    names : sequence of str, length k, or None
        Of labels or targets.
    n_layers : int or None
        How many layers there are, where ``features`` is a function.
    unit : str or None
        What groups are. None: "speakers".
    progress : bool
        Show a progress bar on standard error.
    device : None or str
        Where ridge is computed, as for ``ridge_cv``. Classifiers are computed on the CPU.

    Returns
    -------
    ProbeResult
        The same for any number of threads.

    Raises
    ------
    InputError
        If rows do not match; labels or groups are missing or of mixed type; a class of the test rows is missing in the train
        rows, or a label or the variance of a target in either; the train rows, or the test rows of a bootstrap, are of one
        speaker; features hold NaN or infinite values; or an option is none of the above.

    Warns
    -----
    FastencodeWarning
        If there are two or three units among the test rows: their intervals are NaN.

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
