"""Bands: which columns of X belong to which band, made of any ``bands`` argument (docs/solver.md, 7).

Legend: t = time, p = features, b = bands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import F64, library_of, to_host
from fastencode.delayed import Delayed
from fastencode.errors import InputError

__all__ = [
    "PRECOMPUTED",
    "Bands",
    "BandsLike",
    "Design",
    "Features",
    "are_labels",
    "check_bands",
    "check_kernels",
    "each_kernel",
    "is_several",
    "join",
    "numbered",
]

PRECOMPUTED = "precomputed"
# Each value of a given kernel may be off by this many eps of its largest value.
_ROUNDINGS = 8.0

Features: TypeAlias = ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike]
"""Features of all bands in one array, or an array for each band, in order or by name."""
Columns: TypeAlias = slice | EllipsisType | ArrayLike
"""Columns of one band: a width, a slice, numbers, names or a mask of columns, or ``...`` for those of no other band."""
BandsLike: TypeAlias = Mapping[str, Columns] | Sequence[Columns] | ArrayLike
"""Columns of every band, by name or in order; the label of each column's band; or ``"precomputed"``."""


@dataclass(frozen=True, eq=False)
class Bands:
    """Named groups of features.

    Attributes
    ----------
    names : tuple of str
    columns : tuple of int arrays
        The columns of X in each band; every column is in exactly one. Empty where only kernels are given.
    """

    names: tuple[str, ...]
    columns: tuple[NDArray[np.intp], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def band_of_feature(self) -> NDArray[np.intp]:
        """(p,): the number of each column's band."""
        out = np.empty(sum(map(len, self.columns)), dtype=np.intp)
        for b, columns in enumerate(self.columns):
            out[columns] = b
        return out

    def without(self, b: int) -> Bands:
        """All bands but band ``b``, with the numbers their columns have in an X without that band."""
        rest = [i for i in range(len(self)) if i != b]
        kept = np.sort(np.concatenate([self.columns[i] for i in rest]))
        return Bands(tuple(self.names[i] for i in rest), tuple(np.searchsorted(kept, self.columns[i]) for i in rest))


@dataclass(frozen=True, eq=False)
class Design:
    """The arguments ``X`` and ``bands`` as one design.

    Attributes
    ----------
    X : (t, p) array, Delayed, or None
        All bands side by side, in the library that was passed. Delayed copies are not made. None where only kernels are given.
    kernels : (b, t, t) array, or None
    bands : Bands
    rounding_b : tuple of float
        The most that a value of each kernel may be off by: 8 eps max |K|, eps of the dtype it was given in.
    """

    X: Any
    kernels: NDArray[Any] | None
    bands: Bands
    rounding_b: tuple[float, ...] = ()


def join(X: Any, bands: BandsLike | None) -> Design:
    """One design from one array and its bands, several arrays, or kernels.

    Raises
    ------
    InputError
        If the arguments do not fit together.
    """
    if isinstance(bands, str):
        if bands != PRECOMPUTED:
            raise InputError(
                f"bands={bands!r} is not known; pass {PRECOMPUTED!r} if X holds one kernel (Gram) for each band, else "
                "name -> width, slice or indices of columns of X"
            )
        return _kernels(X)
    if isinstance(X, Mapping) or is_several(X):
        names, arrays = _named(X, bands)
        return _side_by_side(names, arrays)
    if bands is None:
        raise InputError("bands is missing: pass name -> width, slice or indices of columns of X, or X itself as name -> array")
    shape = getattr(X, "shape", None)
    shape = np.shape(to_host(X, "X")) if shape is None else tuple(shape)
    if len(shape) != 2:
        raise InputError(f"X has shape {shape}; pass (time, features), or several such arrays as name -> array")
    names = getattr(X, "columns", ())
    return Design(X, None, check_bands(numbered(bands, () if callable(names) else names), int(shape[1])))


def numbered(bands: BandsLike, names: Iterable[Any]) -> BandsLike:
    """Bands with columns by number, where they are given by the names that a data frame has for them.

    Raises
    ------
    InputError
        For a column name that is not there or not the only one, and for labels that are names of columns.
    """
    if are_labels(bands):
        known = set(names)
        if both := [label for label in np.asarray(bands).tolist() if isinstance(label, str) and label in known]:
            raise InputError(
                f"bands holds the name of column {both[0]!r}: a sequence of text is the label of each column's band, so "
                "labels must be no names of columns; pass bands={'name of band': [names of its columns]}"
            )
        return bands
    if isinstance(bands, Mapping):
        return {band: _numbered(band, columns, list(names)) for band, columns in bands.items()}
    if isinstance(bands, list | tuple):
        return [_numbered(f"band {b}", columns, list(names)) for b, columns in enumerate(bands)]
    return bands


def _numbered(band: str, columns: Any, names: list[Any]) -> Columns:
    some = [columns] if isinstance(columns, str) else list(columns) if np.ndim(columns) == 1 else []
    if not some or not all(isinstance(column, str) for column in some):
        return columns
    for column in some:
        if column not in names:
            raise InputError(f"band {band!r} names column {column!r}, and X has {names or 'no column names'}")
        if names.count(column) > 1:
            raise InputError(f"band {band!r} names column {column!r}, and X has several of that name; give columns by number")
    return [names.index(column) for column in some]


def are_labels(bands: object) -> bool:
    """Whether bands are text or whole numbers, one after another: labels of columns, or widths."""
    if isinstance(bands, str | Mapping) or not (isinstance(bands, Sequence) or hasattr(bands, "__array__")):
        return False
    if not isinstance(bands, Sequence):
        kept = np.asarray(bands)
        return kept.ndim == 1 and kept.size > 0 and (kept.dtype.kind in "iuSU" or _alike(kept.tolist()))
    return _alike(bands)


def _alike(values: Sequence[object]) -> bool:
    kinds = [str, int | np.integer]
    return len(values) > 0 and any(
        all(isinstance(value, kind) and not isinstance(value, bool) for value in values) for kind in kinds
    )


def is_several(X: object) -> bool:
    """Whether X is a list of two-dimensional arrays, not one array written as lists."""
    return isinstance(X, list | tuple) and len(X) > 0 and all(len(getattr(x, "shape", ())) == 2 for x in X)


def _named(X: Any, bands: BandsLike | None) -> tuple[tuple[str, ...], list[Any]]:
    if isinstance(X, Mapping):
        if bands is not None:
            raise InputError("X already names its bands; pass bands=None")
        if not X:
            raise InputError("X names no array; pass at least one band")
        return _check_names(tuple(X)), list(X.values())
    if bands is None:
        return tuple(f"band {b}" for b in range(len(X))), list(X)
    if isinstance(bands, str | Mapping) or not isinstance(bands, Sequence) or not all(isinstance(b, str) for b in bands):
        raise InputError(f"bands={bands!r} does not fit an X of {len(X)} arrays; pass None, or a list of {len(X)} names")
    if len(bands) != len(X):
        raise InputError(f"bands names {len(bands)} arrays and X holds {len(X)}; give each one name")
    return _check_names(tuple(bands)), list(X)


def _check_names(names: tuple[Any, ...]) -> tuple[str, ...]:
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"a band is named {name!r}; name bands with text")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two bands are named {twice!r}; give each its own name")
    return names


def _side_by_side(names: tuple[str, ...], arrays: list[Any]) -> Design:
    shapes = [tuple(array.shape) if hasattr(array, "shape") else np.shape(array) for array in arrays]
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != 2:
            raise InputError(f"band {name!r} has shape {shape}; pass (time, features)")
        if shape[0] != shapes[0][0]:
            raise InputError(
                f"band {name!r} has {shape[0]} rows and band {names[0]!r} has {shapes[0][0]}; give all the same scans"
            )
        if shape[1] == 0:
            raise InputError(f"band {name!r} has no features; leave it out")
    edges = np.cumsum([0, *(shape[1] for shape in shapes)])
    columns = tuple(np.arange(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True))
    libraries = {library_of(array) for array in arrays}
    if libraries == {"torch"}:
        whole = sys.modules["torch"].cat(arrays, 1)
    elif libraries == {"cupy"}:
        whole = sys.modules["cupy"].concatenate(arrays, axis=1)
    else:
        given = [
            array if isinstance(array, Delayed) else to_host(array, f"band {name!r}")
            for name, array in zip(names, arrays, strict=True)
        ]
        delayed = any(isinstance(array, Delayed) for array in given)
        whole = Delayed.side_by_side(given) if delayed else np.concatenate(given, axis=1)
    return Design(whole, None, Bands(names, columns))


def _kernels(X: Any) -> Design:
    """Grams of bands: each symmetric, one row and column for each scan."""
    if isinstance(X, Mapping):
        names, given = _check_names(tuple(X)), list(X.values())
    else:
        given = each_kernel(X)
        names = tuple(f"band {b}" for b in range(len(given)))
    if not given:
        raise InputError("X holds no kernel; pass one (time, time) array for each band")
    kernels = [to_host(kernel, f"the kernel of {name!r}") for name, kernel in zip(names, given, strict=True)]
    for name, kernel in zip(names, kernels, strict=True):
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape != kernels[0].shape:
            raise InputError(f"the kernel of {name!r} has shape {kernel.shape}; pass (time, time), the same for all bands")
        if not np.isfinite(kernel).all():
            row, column = map(int, np.argwhere(~np.isfinite(kernel))[0])
            raise InputError(f"the kernel of {name!r} holds {kernel[row, column]} at row {row}, column {column}; fill it")
        size, rounding = np.abs(kernel).max(initial=0.0), 1e-4 if kernel.dtype == np.float32 else 1e-8
        if np.abs(kernel - kernel.T).max(initial=0.0) > rounding * size:
            raise InputError(
                f"the kernel of {name!r} is not symmetric; pass X_b @ X_b.T, or another kernel of the rows with themselves"
            )
    return Design(None, np.stack(kernels), Bands(names, ()), tuple(map(_rounding, kernels)))


def each_kernel(X: Any) -> list[Any]:
    """The kernels of all bands in their order, of a mapping, a list or a (b, ·, t) array; ``InputError`` for anything else."""
    if isinstance(X, Mapping):
        return list(X.values())
    shape = tuple(getattr(X, "shape", ()))
    if not isinstance(X, list | tuple) and len(shape) != 3:
        what = f"X has shape {shape}" if shape else f"X={X!r:.50}"
        raise InputError(f"{what}; pass one kernel for each band: name -> kernel, a list of them, or an array with bands first")
    return list(X)


def _rounding(kernel: NDArray[Any]) -> float:
    dtype = kernel.dtype if kernel.dtype.kind == "f" else np.dtype(np.float64)
    return float(_ROUNDINGS * np.finfo(dtype).eps * np.abs(kernel).max(initial=0.0))


def check_kernels(design: Design, centered_btt: F64, root_t: F64, center: bool) -> None:
    """Refuse kernels that are no Gram of features; set kernels that are constant but for rounding to zero, in place.

    A kernel is a Gram of features if none of its eigenvalues is negative. With an intercept this must hold for the kernel about
    its (weighted) means only: kernels of negative distances pass then. If each value is off by at most ρ (``Design.rounding_b``),
    eigenvalues are off by at most t · ρ · (largest sample weight), and negative ones down to that are allowed. Weights of bands
    are not negative, so weighted sums of kernels that pass need no check.

    Parameters
    ----------
    design : Design
    centered_btt : (b, t, t) float64
        Its kernels about their means if there is an intercept, times ``root_t`` on both sides.
    root_t : (t,) float64
        Square roots of the sample weights.
    center : bool
        Whether there is an intercept.

    Raises
    ------
    InputError
        Naming the first band whose kernel has a negative eigenvalue.
    """
    for name, rounding, kernel in zip(design.bands.names, design.rounding_b, centered_btt, strict=True):
        largest = float(root_t.max()) ** 2
        off = rounding * len(kernel) * largest
        if np.abs(kernel).max(initial=0.0) <= 4.0 * rounding * largest:  # centering takes four values together
            kernel[...] = 0.0
        shifted = kernel.copy()
        shifted[np.diag_indices(len(kernel))] += off or np.finfo(np.float64).tiny
        try:
            scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            lam = np.linalg.eigvalsh(kernel)
            if lam[0] >= -off:  # where the factorisation failed by its own rounding
                continue
            about = "about its means" if center else "without an intercept"
            hint = "" if center else " (with fit_intercept=True only the kernel about its means must be)"
            raise InputError(
                f"the kernel of {name!r} {about} has the eigenvalue {lam[0]:.4g} (the largest is {lam[-1]:.4g}), so it is no "
                f"Gram of features; pass a positive semidefinite kernel{hint}"
            ) from None


def check_bands(bands: BandsLike, n_features: int) -> Bands:
    """Bands of the columns of one array.

    Parameters
    ----------
    bands : mapping of name to width, slice, indices or mask; or a sequence of those; or (p,) labels
        Widths (ints) count columns from the first on, in the order given. ``...`` is all columns that no other band holds. A
        sequence of text holds the label of each column's band, and bands come in the order their labels first appear. A sequence
        of ints above 0 holds widths if it adds up to p; ints are labels if there are p of them. p ones are both, so an error.
    n_features : int

    Raises
    ------
    InputError
        If a column is in two bands or in none, an index is out of range, or ints may be widths as well as labels.
    """
    if are_labels(bands) and (found := _from_labels(np.asarray(bands).tolist(), n_features)) is not None:
        return found
    if isinstance(bands, Mapping):
        given: list[Any] = list(bands.values())
        names = _check_names(tuple(bands))
    elif isinstance(bands, Sequence | np.ndarray) and not isinstance(bands, str):
        given = list(bands)
        names = tuple(f"band {b}" for b in range(len(given)))
    else:
        raise InputError(f"bands is a {type(bands).__name__}; pass name -> width, slice or indices")
    if not given:
        raise InputError("bands is empty; pass at least one band")
    rest = [b for b, band in enumerate(given) if band is Ellipsis]
    if len(rest) > 1:
        raise InputError(
            f"bands {', '.join(repr(names[b]) for b in rest)} are all '...'; one band can hold the remaining columns"
        )
    widths = [isinstance(band, int | np.integer) and not isinstance(band, bool) for band in given if band is not Ellipsis]
    if rest:
        columns = _with_rest(names, given, rest[0], n_features, bool(widths) and all(widths))
    elif all(widths):
        columns = _from_widths(names, [int(band) for band in given], n_features)
    elif any(widths):
        raise InputError("bands mixes widths with slices or indices; pass all of one kind (a single column is slice(i, i + 1))")
    else:
        columns = [_columns(name, band, n_features) for name, band in zip(names, given, strict=True)]
    count = np.bincount(np.concatenate(columns), minlength=n_features)
    if (count > 1).any():
        twice = int(np.flatnonzero(count > 1)[0])
        both = [name for name, some in zip(names, columns, strict=True) if twice in some]
        raise InputError(f"column {twice} is in more than one band ({', '.join(map(repr, both))}); give every column to one")
    if (count == 0).any():
        none = np.flatnonzero(count == 0)
        raise InputError(
            f"{len(none)} columns of X are in no band, the first is column {none[0]}; add a band or leave them out of X"
        )
    return Bands(names, tuple(columns))


def _from_labels(labels: list[Any], n_features: int) -> Bands | None:
    """Bands by the label of every column; None where numbers are widths."""
    p = len(labels)
    if isinstance(labels[0], int):
        widths = sum(labels) == n_features and min(labels) > 0
        if p != n_features or (widths and p == 1):
            return None
        if widths:
            raise InputError(
                f"bands holds {p} ones for {p} columns: as widths they are {p} bands, as labels one; pass bands={{'all': {p}}} "
                f"for one band, [slice(0, 1), slice(1, 2), ...] for {p}"
            )
    elif p != n_features:
        raise InputError(f"bands holds {p} labels and X has {n_features} columns; give every column one, or pass name -> columns")
    columns: dict[Any, list[int]] = {}
    for column, label in enumerate(labels):
        columns.setdefault(label, []).append(column)
    names = tuple(label if isinstance(label, str) else f"band {label}" for label in columns)
    return Bands(_check_names(names), tuple(np.array(some, dtype=np.intp) for some in columns.values()))


def _with_rest(names: tuple[str, ...], given: list[Any], rest: int, n_features: int, widths: bool) -> list[NDArray[np.intp]]:
    """Columns of all bands, of which the one numbered ``rest`` is ``...``: the columns that no other one holds."""
    if widths:
        named = sum(int(band) for b, band in enumerate(given) if b != rest)
        left = [n_features - named if b == rest else int(band) for b, band in enumerate(given)]
        if left[rest] < 1:
            raise InputError(f"the other bands hold {named} columns and X has {n_features}: none is left for {names[rest]!r}")
        return _from_widths(names, left, n_features)
    columns = [np.zeros(0, np.intp) if b == rest else _columns(names[b], band, n_features) for b, band in enumerate(given)]
    columns[rest] = np.setdiff1d(np.arange(n_features), np.concatenate(columns))
    if not columns[rest].size:
        raise InputError(f"the other bands hold all {n_features} columns of X: none is left for {names[rest]!r}; leave it out")
    return columns


def _from_widths(names: tuple[str, ...], widths: list[int], n_features: int) -> list[NDArray[np.intp]]:
    for name, width in zip(names, widths, strict=True):
        if width < 1:
            raise InputError(f"band {name!r} has width {width}; pass at least one column")
    if sum(widths) != n_features:
        raise InputError(
            f"the widths of all bands add up to {sum(widths)} and X has {n_features} features; delays count too (as labels of "
            f"columns there would be {n_features} numbers)"
        )
    edges = np.cumsum([0, *widths])
    return [np.arange(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def _columns(name: str, band: Any, n_features: int) -> NDArray[np.intp]:
    if isinstance(band, slice):
        try:
            index = np.arange(n_features)[band]
        except TypeError:
            raise InputError(f"band {name!r} is {band}; pass a slice of column numbers") from None
    else:
        index = to_host(band, f"band {name!r}")
        if index.dtype == bool:
            if index.shape != (n_features,):
                raise InputError(f"band {name!r} is a mask of shape {index.shape} for {n_features} features")
            index = np.flatnonzero(index)
    if index.ndim != 1 or index.size == 0:
        raise InputError(f"band {name!r} holds no column (shape {index.shape}); leave it out")
    if isinstance(band, slice) and band.stop is not None and band.stop > n_features:
        raise InputError(f"band {name!r} is {band} and X has {n_features} columns; end it at {n_features}, or at None for all")
    if index.dtype.kind not in "iu":
        raise InputError(f"band {name!r} has dtype {index.dtype}; pass a width, a slice, integer indices or a mask")
    if index.min() < 0 or index.max() >= n_features:
        worst = int(index.min() if index.min() < 0 else index.max())
        raise InputError(f"band {name!r} holds column {worst}, and the columns of X are 0 to {n_features - 1}")
    return np.sort(index.astype(np.intp))
