"""Check the input of a probe: encode labels, determine which rows are fitted, held out and scored, and read layers one by one.

Axis letters: n row, k class, label or target, l layer, d feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError, warn
from fastencode.study.probing.metrics import TASKS

__all__ = ["Fold", "Given", "Layers", "check_given", "check_names", "group_folds", "layers_of", "standardised"]

SPLITS = ("train", "validation", "test")
_FOLDS = 5


class Fold(NamedTuple):
    """One fold of the fitted rows: held-out rows as a range [start, stop), and the ranges of rows to train on."""

    held: tuple[int, int]
    train: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Given:
    """Rows of a probe in the order of their use: first fitted rows, sorted by fold, then test rows in their given order.

    Attributes
    ----------
    task : str
    n_rows : int
        Number of given rows.
    order : ndarray of int
        Position → number of the given row.
    n_fit : int
        Number of fitted rows; all rows after them are test rows.
    folds : tuple of Fold
        Folds on which the penalty is chosen.
    truth : ndarray
        Labels in this order: (n,) int classes, (n, k) bool, or (n, k) float64.
    classes : tuple of str
        Classes, labels or targets.
    units : ndarray of int
        Number of the speaker of each test row; of the row itself without speakers.
    n_units : int
    """

    task: str
    n_rows: int
    order: NDArray[np.intp]
    n_fit: int
    folds: tuple[Fold, ...]
    truth: NDArray[Any]
    classes: tuple[str, ...]
    units: NDArray[np.intp]
    n_units: int

    @property
    def k(self) -> int:
        return len(self.classes)


def check_names(name: str, values: ArrayLike, n: int | None = None) -> NDArray[Any]:
    """Check that values are text or integers, one per row. Raises :class:`InputError` for fractions, missing and mixed values."""
    array = np.asarray(values)
    if array.ndim != 1 or (n is not None and len(array) != n):
        raise InputError(f"{name} has shape {array.shape}: give one value for each of the {'' if n is None else n} rows")
    if array.dtype.kind in "O" or not isinstance(values, np.ndarray):
        kinds = {_kind(value): value for value in (values if isinstance(values, list | tuple) else array.tolist())}
        if len(kinds) > 1 or not set(kinds) <= {"text", "integer"}:
            shown = ", ".join(f"{kind} ({value!r})" for kind, value in kinds.items())
            raise InputError(f"{name} holds {shown}: give text for all rows, or integers for all")
        array = array.astype(str if "text" in kinds else np.int64) if array.dtype.kind == "O" else array
    if array.dtype.kind not in "USiub":
        raise InputError(f"{name} has dtype {array.dtype}: give text or integers")
    return array.astype(str) if array.dtype.kind == "S" else array


def _kind(value: object) -> str:
    if isinstance(value, str | bytes):
        return "text"
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return "integer"
    return "missing values" if value is None or value != value else type(value).__name__  # NaN is not itself


def group_folds(groups: NDArray[Any], n_folds: int) -> NDArray[np.intp]:
    """The fold of each row. All rows of a group are in one fold; groups, largest first, go to the fold with the fewest rows."""
    _, group_n, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    filled, fold_of = np.zeros(n_folds, np.int64), np.zeros(len(sizes), np.intp)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[group_n]


def check_given(
    labels: ArrayLike,
    groups: ArrayLike | None,
    split: ArrayLike,
    *,
    task: str,
    names: Sequence[str] | None,
    seed: int,
    bootstraps: int,
) -> Given:
    """Check labels, speakers and splits, and sort rows. The arguments are those of :func:`fastencode.study.probes.probe`."""
    if task not in TASKS:
        raise InputError(f"task={task!r}: pass one of {', '.join(TASKS)}")
    split_n = check_names("split", split)
    if others := sorted(set(split_n.tolist()) - set(SPLITS)):
        raise InputError(f"split holds {others[0]!r}: give 'train', 'validation' or 'test' for each row")
    truth, classes = _encoded(task, labels, names, len(split_n))
    groups_n = None if groups is None else check_names("groups", groups, len(split_n))
    rows = {name: np.flatnonzero(split_n == name) for name in SPLITS}
    for name in ("train", "test"):
        if not len(rows[name]):
            raise InputError(f"split holds no {name!r} row: a probe is fitted on train rows and scored on test rows")
    if len(rows["validation"]):
        fitted, sizes = np.concatenate([rows["train"], rows["validation"]]), [len(rows["train"]), len(rows["validation"])]
        if groups_n is not None:
            _warn_of_heard(groups_n[rows["train"]], groups_n[rows["validation"]])
    else:
        fitted, sizes = _in_folds(rows["train"], truth, groups_n, seed)
    _check_classes(task, truth[fitted], truth[rows["test"]], classes)
    units, n_units = np.arange(len(rows["test"])), len(rows["test"])
    if groups_n is not None:
        names_u, units = np.unique(groups_n[rows["test"]], return_inverse=True)
        n_units = len(names_u)
    if n_units < 2 and bootstraps:
        raise InputError(
            "all test rows are of one speaker: an interval needs several; choose another split, or pass bootstraps=0"
        )
    order = np.concatenate([fitted, rows["test"]])
    folds = _folds(sizes, only_last=bool(len(rows["validation"])))
    return Given(task, len(split_n), order, len(fitted), folds, truth[order], classes, units, n_units)


def _encoded(task: str, labels: ArrayLike, names: Sequence[str] | None, n: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels as numbers, and what they stand for."""
    if task == "classification":
        classes, truth = np.unique(check_names("labels", labels, n), return_inverse=True)
        return truth.astype(np.intp), tuple(str(value) for value in classes.tolist())
    values = np.asarray(labels)
    values = values[:, None] if values.ndim == 1 and task == "regression" else values
    if values.ndim != 2 or len(values) != n or not values.shape[1]:
        what = "label" if task == "multilabel" else "target"
        raise InputError(f"labels has shape {values.shape}: task={task!r} with {n} rows takes ({n}, number of {what}s)")
    if task == "multilabel":
        if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
            raise InputError(f"labels has dtype {values.dtype}: task='multilabel' takes True (present) and False, or 1 and 0")
        truth = values.astype(bool)
    else:
        if values.dtype.kind not in "iuf":
            raise InputError(f"labels has dtype {values.dtype}: task='regression' takes numbers")
        truth = values.astype(np.float64)
        if lost := int((~np.isfinite(truth)).any(axis=1).sum()):
            raise InputError(f"labels holds NaN or infinite values in {lost} of {n} rows: leave these rows out")
    given = tuple(map(str, range(values.shape[1]))) if names is None else tuple(map(str, names))
    if len(given) != values.shape[1] or len(set(given)) < len(given):
        raise InputError(
            f"names has {len(set(given))} different names for {values.shape[1]} columns of labels: give one for each"
        )
    return truth, given


def _check_classes(task: str, fitted: NDArray[Any], tested: NDArray[Any], classes: Sequence[str]) -> None:
    """Every class has something to be fitted on, every label or target something to be scored on, too."""
    if task == "classification":
        if len(classes) < 2:
            raise InputError(f"all rows have the label {classes[0]!r}: a probe tells at least two classes apart")
        if len(seen := np.unique(tested)) < 2:
            raise InputError(f"all test rows have the label {classes[seen[0]]!r}: choose a split with several classes in it")
        there = [np.bincount(fitted, minlength=len(classes)) > 0]  # one that is fitted only costs nothing but mistakes
        what = "has no row"
    elif task == "multilabel":
        there = [np.asarray(part.any(axis=0)) for part in (fitted, tested)]
        what = "is on no row"
    else:
        there = [np.ptp(part, axis=0) > 0 for part in (fitted, tested)]
        what = "is the same on all rows"
    for name, part in zip(("train", "test"), there, strict=False):
        if not part.all():
            few = ", ".join(repr(classes[place]) for place in np.flatnonzero(~part)[:5])
            raise InputError(f"{few} {what} of the {name} split: leave out what is not in both splits, or choose another split")


def _warn_of_heard(train: NDArray[Any], validation: NDArray[Any]) -> None:
    """A penalty that is chosen on speakers of the train rows is too small for others."""
    both = np.intersect1d(train, validation)
    if len(both):
        warn(
            f"{len(both)} of {len(np.unique(validation))} speakers of the validation rows are in train, the first {both[0]!s}:"
            " the penalty is not chosen on speakers that are left out; mark these rows as train, and it will be"
        )


def _in_folds(
    train: NDArray[np.intp], truth: NDArray[Any], groups: NDArray[Any] | None, seed: int
) -> tuple[NDArray[np.intp], list[int]]:
    """Training rows sorted by fold, and how many each fold has. Without groups each class is spread over the folds."""
    if groups is None:
        if len(train) < 2:
            raise InputError(f"{len(train)} train row: the penalty is chosen on rows that are left out, which takes at least 2")
        shuffled = np.random.default_rng(seed).permutation(len(train))
        if truth.ndim == 1:
            shuffled = shuffled[np.argsort(truth[train][shuffled], kind="stable")]
        fold = np.empty(len(train), np.intp)
        fold[shuffled] = np.arange(len(train)) % min(_FOLDS, len(train))
    else:
        n_groups = len(np.unique(groups[train]))
        if n_groups < 2:
            raise InputError(
                "all train rows are of one speaker: the penalty is chosen on speakers that are left out; give rows of the split "
                "'validation', or groups=None to leave out rows"
            )
        fold = group_folds(groups[train], min(_FOLDS, n_groups))
    return train[np.argsort(fold, kind="stable")], np.bincount(fold).tolist()


def _folds(sizes: Sequence[int], only_last: bool) -> tuple[Fold, ...]:
    borders = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    found = []
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        train = tuple((a, b) for a, b in ((0, start), (stop, borders[-1])) if b > a)
        found.append(Fold((start, stop), train))
    return (found[-1],) if only_last else tuple(found)


class Layers(NamedTuple):
    """How many layers there are, and a function from a layer's number to its (n, d) features."""

    n: int
    of: Callable[[int], Any]


def layers_of(features: Any, n_layers: int | None) -> Layers:
    """Layers of any of the three forms of features."""
    if hasattr(features, "rows") and hasattr(features, "n_layers"):
        return Layers(int(features.n_layers), features.rows)
    if callable(features):
        if n_layers is None:
            raise InputError("features is a function of the layer: say how many layers there are, by n_layers=13 for example")
        return Layers(n_layers, features)
    shape = np.shape(features)
    if len(shape) not in (2, 3) or (len(shape) == 3 and not shape[1]):
        raise InputError(f"features has shape {shape}: give (rows, layers, features), or (rows, features) of one layer")
    return Layers(shape[1], lambda layer: features[:, layer]) if len(shape) == 3 else Layers(1, lambda layer: features)


def standardised(layers: Layers, layer: int, given: Given) -> NDArray[np.floating[Any]]:
    """One layer, rows in the order of ``given``, z-scored by the fitted rows; columns that are constant there are 0.

    Parameters
    ----------
    layers : Layers
    layer : int
    given : Given

    Returns
    -------
    ndarray, shape (n, d), float32 or float64
        A copy. Float32 stays so, float16 becomes that, all else float64.
    """
    raw = as_numpy(layers.of(layer), f"features of layer {layer}")
    if raw.ndim != 2 or len(raw) != given.n_rows or not raw.shape[1]:
        raise InputError(
            f"features of layer {layer} have shape {raw.shape} for {given.n_rows} labels: give one row for each label"
        )
    dtype = np.float32 if raw.dtype in (np.float16, np.float32) else np.float64
    X_nd: NDArray[Any] = raw[given.order].astype(dtype, copy=False)
    if not np.isfinite(X_nd.sum(dtype=np.float64)) and (lost := ~np.isfinite(X_nd).all(axis=1)).any():
        first = int(given.order[lost.argmax()])
        raise InputError(f"features of layer {layer} hold NaN or infinite values in {lost.sum()} rows, the first is row {first}")
    fitted = X_nd[: given.n_fit]
    mean_d = fitted.mean(axis=0, dtype=np.float64)
    largest = np.abs(fitted).max(axis=0)
    X_nd -= mean_d.astype(X_nd.dtype)
    spread_d = np.sqrt(np.einsum("nd,nd->d", fitted, fitted, dtype=np.float64) / given.n_fit)
    varies = spread_d > 8 * np.finfo(dtype).eps * largest
    X_nd *= (varies / np.where(varies, spread_d, 1)).astype(X_nd.dtype)
    return X_nd
