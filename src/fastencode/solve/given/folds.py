"""Folds: pairs (training rows, test rows) of index arrays, made of any ``cv`` argument (T and L in docs/solver.md, 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_count, check_random
from fastencode.arrays import as_numpy
from fastencode.errors import InputError

__all__ = [
    "CrossValidator",
    "Fold",
    "Splitter",
    "check_gap",
    "check_runs",
    "chunk_bootstrap",
    "leave_one_run_out",
    "resolve_folds",
]

# The kinds of ``cv`` that a user may pass, for errors.
_KINDS = "a number of folds, 'runs' (leave one run out), a splitter, or a list of (train, test)"

Rows = NDArray[np.intp]
Fold = tuple[Rows, Rows]


class Splitter(Protocol):
    """What splits rows: scikit-learn's splitters do, and so does any object with this method."""

    def split(self, X: Any, y: Any, groups: Any, /) -> Iterable[Any]: ...


CrossValidator: TypeAlias = int | str | Splitter | Iterable[tuple[ArrayLike, ArrayLike]] | None
"""How rows are held out: a number of folds, ``"runs"``, a splitter, or pairs (train, test) of row numbers or masks. ``"gcv"`` and
None hold none out, where a function takes them."""


def check_runs(runs: ArrayLike, n: int | None = None) -> NDArray[np.intp]:
    """Run labels (strings or numbers, one for each row) as codes 0, 1, … in order of first appearance.

    Raises
    ------
    InputError
        If there is not one label for each row, a label is NaN, or numbers and strings are mixed.
    """
    labels = _labels(runs)
    if labels.ndim != 1 or labels.size == 0:
        raise InputError(f"runs has shape {labels.shape}; pass one label for each row, shape (time,)")
    if n is not None and len(labels) != n:
        raise InputError(f"runs has {len(labels)} labels and X has {n} rows; pass one label for each row")
    try:
        missing = labels != labels  # NaN and NaT
        if missing.any():
            raise InputError(f"runs holds {labels[missing][0]} at row {int(missing.argmax())}; label every row")
        _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    except TypeError as error:
        raise InputError(f"runs holds labels that cannot be compared ({error}); pass all numbers or all strings") from error
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[codes.reshape(-1)]


def _labels(runs: Any) -> NDArray[Any]:
    """Labels as an array that keeps their kinds: NumPy would make text of the numbers in a list that holds both."""
    labels = np.asarray(runs)
    if labels.dtype.kind in "SU" and not hasattr(runs, "dtype"):
        kinds = {str if isinstance(label, str) else bytes if isinstance(label, bytes) else type(label) for label in runs}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InputError(f"runs mixes labels of kinds {names}; pass all numbers or all strings")
    return labels


def _by_label(codes: Rows, n_labels: int) -> list[Fold]:
    return [(np.flatnonzero(codes != k), np.flatnonzero(codes == k)) for k in range(n_labels)]


def leave_one_run_out(runs: ArrayLike) -> list[Fold]:
    """One fold for each run, which holds that run out.

    Parameters
    ----------
    runs : (t,) array-like
        The run (story, session) of every row: numbers or strings, in any order.

    Returns
    -------
    list of (train, test)
        Integer row indices, runs in order of first appearance.

    Raises
    ------
    InputError
        If there are fewer than two runs.
    """
    codes = check_runs(runs)
    n_runs = int(codes.max()) + 1
    if n_runs < 2:
        raise InputError(
            "runs names a single run, so leaving it out leaves nothing to fit; leave runs= out and pass cv=5, contiguous blocks"
        )
    return _by_label(codes, n_runs)


def chunk_bootstrap(
    n: int, n_boots: int, chunk_len: int, n_chunks: int, random_state: int | np.random.Generator | None = None
) -> list[Fold]:
    """Folds that hold out random chunks of consecutive rows, so that neighbors in time stay on one side.

    The rows are cut into chunks of ``chunk_len``; a shorter remainder at the end is a chunk too, so every row can be held out.
    Each fold draws ``n_chunks`` of them without replacement. Test sets of different folds may overlap.

    Parameters
    ----------
    n : int
        Number of rows.
    n_boots : int
        Number of folds.
    chunk_len : int
        Rows in a chunk.
    n_chunks : int
        Chunks held out in each fold.
    random_state : None, int, numpy.random.Generator
        Seed or generator, as :func:`numpy.random.default_rng` takes it.

    Returns
    -------
    list of (train, test)
        Sorted integer row indices.

    Raises
    ------
    InputError
        If a number is not positive or the held-out chunks are all there are.
    """
    for name, value in (("n", n), ("n_boots", n_boots), ("chunk_len", chunk_len), ("n_chunks", n_chunks)):
        check_count(name, value)
    available = -(-n // chunk_len)
    if n_chunks >= available:
        raise InputError(
            f"n_chunks={n_chunks}, and {n} rows in chunks of {chunk_len} are only {available} chunks: nothing would be left "
            "to fit; pass fewer or shorter chunks"
        )
    chunk_of = np.arange(n) // chunk_len
    rng = check_random(random_state)
    held = (np.isin(chunk_of, rng.choice(available, n_chunks, replace=False)) for _ in range(n_boots))
    return [(np.flatnonzero(~mask), np.flatnonzero(mask)) for mask in held]


def resolve_folds(
    cv: CrossValidator,
    n: int,
    runs: Rows | None,
    kept: Rows | None = None,
    *,
    gap: int = 0,
    responses: ArrayLike | None = None,
    name: str = "cv",
) -> list[Fold]:
    """Turn any ``cv`` argument into checked folds; errors call it ``name``.

    Where only some rows are ``kept``, an int and ``"runs"`` make folds of those rows. Splitters and indices count all rows; rows
    they name that are not kept are dropped. Either way the folds returned count the kept rows.

    Parameters
    ----------
    cv : int, "runs", splitter, or list of (train, test)
        An int makes that many contiguous blocks, sizes as equal as can be; with ``runs`` it balances whole runs over that many
        folds. ``"runs"`` leaves one run out. A splitter is any object with ``split(X, y, groups)``; it gets the runs as groups.
        Indices may be integers or boolean masks.
    n : int
        Number of rows.
    runs : (t,) int array or None
        Codes from :func:`check_runs`.
    gap : int
        Rows next to a held-out row, on either side and of its run, that the fold does not train on. Rows that are not kept count.
    responses : array or data set, optional
        The ``y`` that a splitter gets.

    Raises
    ------
    InputError
        If a fold is empty, holds all rows out, names a row outside the rows, or tests on a row that it trains on.
    """
    rows = np.arange(n) if kept is None else kept
    if kept is None:
        folds = _resolve(cv, n, runs, responses, name)
    elif isinstance(cv, str | int | np.integer) and not isinstance(cv, bool):
        folds = _resolve(cv, len(kept), None if runs is None else check_runs(runs[kept]), responses, name)
    else:
        folds = [_keep(fold, k, kept, n) for k, fold in enumerate(_resolve(cv, n, runs, responses, name))]
    return [_leave_gap(fold, k, gap, rows, n, runs, name) for k, fold in enumerate(folds)] if gap else folds


def check_gap(gap: object) -> int:
    """``gap`` as an int of at least 0, or ``InputError``."""
    if isinstance(gap, bool) or not isinstance(gap, int | np.integer) or gap < 0:
        raise InputError(f"gap={gap!r}; pass a number of rows, 0 for none")
    return int(gap)


def _leave_gap(fold: Fold, k: int, gap: int, rows: Rows, n: int, runs: Rows | None, name: str) -> Fold:
    """A fold without the training rows that are at most ``gap`` rows from a test row in the same run; ``rows`` are those kept."""
    train, test = fold
    held = np.zeros(n, dtype=bool)
    held[rows[test]] = True
    near = held.copy()
    for step in range(1, min(gap, n - 1) + 1):
        same = True if runs is None else runs[step:] == runs[:-step]
        near[step:] |= held[:-step] & same
        near[:-step] |= held[step:] & same
    far = train[~near[rows[train]]]
    if not far.size:
        raise InputError(f"gap={gap} leaves fold {k} of {name} no row to train on; pass a smaller gap or fewer folds")
    return far, test


def _resolve(cv: CrossValidator, n: int, runs: Rows | None, responses: ArrayLike | None, name: str) -> list[Fold]:
    """Checked folds of all rows."""
    if isinstance(cv, str):
        if cv != "runs":
            raise InputError(f"{name}={cv!r} is not known; pass {_KINDS}")
        if runs is None:
            raise InputError(f"{name}='runs' needs runs=: one label for each row")
        return leave_one_run_out(runs)
    if isinstance(cv, bool) or cv is None:
        raise InputError(f"{name}={cv!r}; pass {_KINDS}")
    if isinstance(cv, int | np.integer):
        return _blocks(int(cv), n, runs, name)
    if hasattr(cv, "split"):
        pairs: Iterable[Any] = _split(cv, n, responses, runs, name)
    elif isinstance(cv, list | tuple) and len(cv) == 2 and all(_is_rows(rows) for rows in cv):
        raise InputError(f"{name} is a single (train, test), not a list of them; pass {name}=[(train, test)]")
    elif isinstance(cv, Iterable):
        pairs = cv
    else:
        raise InputError(f"{name} is a {type(cv).__name__}; pass {_KINDS}")
    folds = [_check_fold(pair, k, n, name) for k, pair in enumerate(pairs)]
    if not folds:
        raise InputError(f"{name} holds no folds; pass at least one (train, test)")
    return folds


def _split(cv: Any, n: int, responses: ArrayLike | None, runs: Rows | None, name: str) -> list[Any]:
    """Folds of a splitter; what it raises, in words of this package."""
    if isinstance(cv, type):
        raise InputError(f"{name} is the class {cv.__name__}; pass one of it, such as {cv.__name__}()")
    try:
        return list(cv.split(np.empty((n, 1)), responses, runs))
    except Exception as error:
        raise InputError(f"{name}={cv!r} cannot split these rows ({error}); its groups are runs= here, its y is Y") from error


def _is_rows(rows: Any) -> bool:
    """Whether this is one array of row numbers or one mask, not a pair of arrays."""
    if hasattr(rows, "dtype"):
        return len(rows.shape) == 1 and str(rows.dtype).removeprefix("torch.").startswith(("int", "uint", "bool"))
    return isinstance(rows, list | tuple | range) and len(rows) > 0 and all(isinstance(row, int | np.integer) for row in rows)


def _keep(fold: Fold, k: int, kept: Rows, n: int) -> Fold:
    place = np.full(n, -1, dtype=np.intp)
    place[kept] = np.arange(len(kept))
    train, test = (place[rows][place[rows] >= 0] for rows in fold)
    for name, rows in (("trains", train), ("tests", test)):
        if not rows.size:
            raise InputError(f"fold {k} {name} only on rows whose sample_weight is zero; leave the fold out")
    return train, test


def _blocks(k: int, n: int, runs: Rows | None, name: str) -> list[Fold]:
    if k < 2:
        raise InputError(f"{name}={k}; a single fold would hold all rows out, pass at least 2")
    if runs is None:
        if k > n:
            raise InputError(f"{name}={k} folds of {n} rows leaves some empty; pass at most {n}")
        edges = np.cumsum([0, *(n // k + (i < n % k) for i in range(k))])
        codes = np.searchsorted(edges, np.arange(n), side="right") - 1
        return _by_label(codes, k)
    lengths = np.bincount(runs)
    if k > len(lengths):
        advice = f"pass at most {len(lengths)}" if len(lengths) > 1 else "leave runs= out for contiguous blocks of rows"
        raise InputError(f"{name}={k} folds of {len(lengths)} whole runs leaves some empty; {advice}")
    # Runs go, the longest first, to the fold with the fewest rows: sizes then differ by at most the length of one run.
    load, fold_of = np.zeros(k, dtype=np.intp), np.empty(len(lengths), dtype=np.intp)
    for run in np.argsort(-lengths, kind="stable"):
        fold_of[run] = np.argmin(load)
        load[fold_of[run]] += lengths[run]
    return _by_label(fold_of[runs], k)


def _check_fold(pair: Any, k: int, n: int, name: str) -> Fold:
    try:
        train, test = pair
    except (TypeError, ValueError):
        raise InputError(f"fold {k} of {name} is not a pair; pass (train, test) index arrays") from None
    train, test = _rows(train, f"train of fold {k} of {name}", n), _rows(test, f"test of fold {k} of {name}", n)
    held = np.zeros(n, dtype=bool)
    held[test] = True
    if held[train].any():
        shared = np.intersect1d(train, test)
        raise InputError(
            f"fold {k} of {name} tests on {shared.size} rows it also trains on (row {int(shared[0])} first); "
            "take them out of train"
        )
    return train, test


def _rows(rows: ArrayLike, name: str, n: int) -> Rows:
    index = as_numpy(rows, name)
    if index.dtype == bool:
        if index.shape != (n,):
            raise InputError(f"{name} is a mask of shape {index.shape} for {n} rows; pass shape ({n},)")
        index = np.flatnonzero(index)
    if index.ndim != 1 or index.size == 0:
        raise InputError(f"{name} is empty or not 1-D (shape {index.shape}); every fold needs rows to fit and rows to score")
    if index.dtype.kind not in "iu":
        raise InputError(f"{name} has dtype {index.dtype}; pass integer row indices or a boolean mask")
    if index.min() < 0 or index.max() >= n:
        worst = int(index.min() if index.min() < 0 else index.max())
        raise InputError(f"{name} holds row {worst}, and the rows are 0 to {n - 1}")
    return index.astype(np.intp)
