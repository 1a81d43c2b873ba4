"""A matrix of delayed copies that are not made. ``timing`` creates it; the solvers read rows and columns of it.

Legend: d = delays, t = time, s = rows that are copied, w = columns that are copied, p = features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastencode.devices import HOST, Array, Device

__all__ = ["Copies", "Delayed", "DelayedThere", "Matrix", "MatrixThere", "matrix_on", "neighbors", "pick", "rows_on"]

# Numbers in the rows that are made at once for a product.
_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of one matrix side by side, each with its rows moved.

    Attributes
    ----------
    base_sw : (s, w) array
        The matrix that is copied. It shares memory with the input where the dtype allows, and is never written to.
    source_dt : (d, t) int array
        Row t of copy d is row ``source_dt[d, t]`` of the base; −1 stands for zeros.
    """

    base_sw: NDArray[Any]
    source_dt: NDArray[np.intp]

    @property
    def width(self) -> int:
        """Columns of one copy."""
        return int(self.base_sw.shape[1])

    def without_spare(self) -> Copies:
        """These copies, with zeros in rows of the base that hold NaN or infinite values and that no copy contains."""
        spare = np.setdiff1d(np.arange(len(self.base_sw)), self.source_dt)
        bad = spare[~np.isfinite(self.base_sw[spare]).all(axis=1)]
        if not bad.size:
            return self
        base = self.base_sw.copy()
        base[bad] = 0
        return replace(self, base_sw=base)


@dataclass(frozen=True, eq=False, repr=False)
class Delayed:
    """Copies of matrices side by side, each with its rows moved: :func:`fastencode.delay` with ``copy=False``.

    ``X[rows]``, ``X[rows, columns]`` and ``X @ right`` are new arrays, with the values that NumPy gives for ``numpy.asarray(X)``.
    Rows and columns that are both arrays, new axes and masks of both axes raise a ``TypeError``.

    Attributes
    ----------
    parts : tuple of Copies
        One for each matrix that is copied.
    """

    parts: tuple[Copies, ...]

    @classmethod
    def side_by_side(cls, matrices: Sequence[Matrix]) -> Delayed:
        """Arrays and delayed copies as one matrix. An array is its own only copy."""
        parts: list[Copies] = []
        for matrix in matrices:
            parts += matrix.parts if isinstance(matrix, Delayed) else [Copies(matrix, np.arange(len(matrix))[None])]
        return cls(tuple(parts))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and columns of all copies."""
        return int(self.parts[0].source_dt.shape[1]), sum(len(part.source_dt) * part.width for part in self.parts)

    @property
    def ndim(self) -> int:
        """2, as for an array of this shape."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of ``numpy.asarray(X)``."""
        return np.result_type(*(part.base_sw.dtype for part in self.parts))

    @property
    def nbytes(self) -> int:
        """Bytes held: those of the bases and of the tables of rows."""
        return sum(part.base_sw.nbytes + part.source_dt.nbytes for part in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, p = self.shape
        parts = " beside ".join(f"{len(part.source_dt)} copies of {part.width} columns" for part in self.parts)
        return f"<Delayed {n} x {p} {self.dtype}, {parts}>"

    def copies(self) -> Iterator[tuple[Copies, NDArray[np.intp], slice]]:
        """For every copy: its base, the base row behind each of its rows (−1: zeros), its columns in X."""
        stop = 0
        for part in self.parts:
            for source_t in part.source_dt:
                start, stop = stop, stop + part.width
                yield part, source_t, slice(start, stop)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        both: tuple[Any, Any] = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
        rows, columns = both
        if not (_is_index(rows) and _is_index(columns)) or (np.ndim(columns) > 0 and np.ndim(rows) > 0):
            raise TypeError(
                "delayed copies are indexed by rows, or rows and columns; make them, numpy.asarray(X), to index otherwise"
            )
        if isinstance(columns, slice) and columns.step in (None, 1):
            start, stop, _ = columns.indices(self.shape[1])
            return self._made(rows, start, stop)
        wanted = np.arange(self.shape[1])[columns]
        start, stop = (int(wanted.min()), int(wanted.max()) + 1) if wanted.size else (0, 0)
        return np.asarray(self._made(rows, start, stop)[..., wanted - start])

    def _made(self, rows: Any, start: int, stop: int) -> NDArray[Any]:
        """numpy.asarray(X)[rows, start:stop]."""
        out = np.empty((*self.parts[0].source_dt[0][rows].shape, max(0, stop - start)), self.dtype)
        for part, source_t, here in self.copies():
            first, last = max(start, here.start), min(stop, here.stop)
            if first < last:
                source, copy = source_t[rows], out[..., first - start : last - start]
                copy[...] = part.base_sw[source, first - here.start : last - here.start]
                copy[source < 0] = 0
        return out

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("copy=False: delayed copies become a new array and share no memory with it; pass copy=None")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __matmul__(self, right: ArrayLike | Array) -> NDArray[Any]:
        right = np.asarray(right)
        if right.ndim == 1:
            return np.asarray((self @ right[:, None])[:, 0])
        if right.ndim != 2:
            raise TypeError(f"delayed copies @ an array of shape {right.shape}; pass one of 1-D or 2-D, or use numpy.asarray(X)")
        out = np.empty((len(self), right.shape[1]), np.result_type(self.dtype, right.dtype))
        step = max(1, _VALUES // self.shape[1])
        for start in range(0, len(self), step):
            # out = numpy.asarray(X) @ right
            np.matmul(self[start : start + step], right, out=out[start : start + step])
        return out

    def take(self, rows: NDArray[np.intp] | slice) -> Delayed:
        """``X[rows]`` as delayed copies that are not made."""
        return Delayed(tuple(replace(part, source_dt=part.source_dt[:, rows]) for part in self.parts))

    def columns(self, columns: NDArray[np.intp]) -> Delayed:
        """``X[:, columns]``, columns in increasing order, as delayed copies that are not made.

        Neighboring copies of the same columns of one base stay together in one :class:`Copies`.
        """
        parts = []
        edges = np.searchsorted(columns, [0, *(here.stop for _, _, here in self.copies())])
        picked = [
            (part, source_t, columns[first:last] - here.start)
            for (part, source_t, here), first, last in zip(self.copies(), edges[:-1], edges[1:], strict=True)
            if first < last
        ]
        for _, group in groupby(picked, key=lambda one: (id(one[0]), one[2].tobytes())):
            same = list(group)
            part, _, some = same[0]
            parts.append(Copies(part.base_sw[:, neighbors(some)], np.stack([source_t for _, source_t, _ in same])))
        return Delayed(tuple(parts))

    def checked(self, check: Callable[[NDArray[Any], str], NDArray[Any]]) -> Delayed:
        """These copies with ``check(base, name)`` in place of each base. Rows that no copy contains pass the check."""
        parts, stop = [], 0
        for part in self.parts:
            start, stop = stop, stop + len(part.source_dt) * part.width
            name = "X" if len(self.parts) == 1 else f"what columns {start} to {stop - 1} of X are copies of"
            parts.append(replace(part, base_sw=check(part.without_spare().base_sw, name)))
        return Delayed(tuple(parts))


def _is_index(index: object) -> bool:
    """Whether this indexes one axis: a slice, an integer, or an array-like of integers or bools."""
    if isinstance(index, slice):
        return True
    if index is None or isinstance(index, bool | np.bool_ | tuple):
        return False
    return isinstance(index, int | np.integer | np.ndarray | list | range)


Matrix: TypeAlias = NDArray[Any] | Delayed


def pick(X: Matrix, rows: NDArray[np.intp] | slice | None = None, columns: NDArray[np.intp] | None = None) -> Matrix:
    """Some rows, some columns (in increasing order), or both. Of an array, a slice of rows or neighboring columns are a view."""
    if isinstance(X, Delayed):
        some = X if columns is None else X.columns(columns)
        return some if rows is None else some.take(rows)
    if columns is None:
        return np.asarray(X[slice(None) if rows is None else rows])
    if rows is None or isinstance(rows, slice):
        return np.asarray(X[rows or slice(None), neighbors(columns)])
    return np.asarray(X[np.ix_(rows, columns)])


def neighbors(columns: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Increasing indices, as a slice if they are neighbors."""
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first == len(columns) - 1 else columns


class DelayedThere:
    """Delayed copies on a device. Each base lies there once, above a row of zeros. A product makes one copy at a time.

    Parameters
    ----------
    X : Delayed
    device : Device
    """

    def __init__(self, X: Delayed, device: Device) -> None:
        self.device, self.shape, self.copies = device, X.shape, []
        there: dict[int, Array] = {}
        for part, source_t, here in X.copies():
            rows = len(part.base_sw)
            if id(part) not in there:
                there[id(part)] = device.zeros(rows + 1, part.width, dtype=X.dtype)
                there[id(part)][:rows, ...] = device.put(part.base_sw, X.dtype)
            self.copies.append((there[id(part)], device.put(np.where(source_t < 0, rows, source_t), np.int64), here))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Array) -> Array:
        """The rows of an index array of the device."""
        take = self.device.take
        return self.device.concatenate([take(base_sw, take(source_t, rows)) for base_sw, source_t, _ in self.copies], axis=1)

    def __matmul__(self, right: Array) -> Array:
        out: Any = 0.0
        for base_sw, source_t, here in self.copies:
            # out = Σ over copies of base[source] @ right[columns of the copy]
            out = out + self.device.xp.matmul(self.device.take(base_sw, source_t), right[here, ...])
        return out


MatrixThere: TypeAlias = Array | Delayed | DelayedThere


def matrix_on(device: Device, X: Matrix) -> MatrixThere:
    """A matrix for products and for :func:`rows_on` on a device. On the host, delayed copies stay as they are."""
    if isinstance(X, Delayed):
        return X if device is HOST else DelayedThere(X, device)
    return device.put(X)


def rows_on(device: Device, X: MatrixThere, rows: Array) -> Array:
    """The rows of a matrix of :func:`matrix_on`, by an index array of the device."""
    return X[rows] if isinstance(X, Delayed | DelayedThere) else device.take(X, rows)
