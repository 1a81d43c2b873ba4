"""A matrix of delayed copies that are not made: ``timing`` makes it, the solvers read rows and columns of it.

Legend: d = delays, t = time, s = rows that are copied, p = features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Delayed", "Matrix"]

# Values of the rows that are made at once for a product.
_VALUES = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class Delayed:
    """Copies of a matrix side by side, each with its rows moved: :func:`fastencode.delay` with ``copy=False``.

    What is indexed (``X[rows]``, ``X[:, a:b]``) comes as a new array; ``numpy.asarray`` makes all of it.

    Attributes
    ----------
    base_sp : (s, p) float32 or float64
        What is copied; shares memory with what was given where the dtype allows. Never written to.
    source_dt : (d, t) int array
        The row of the base that each row of each copy is; −1: zeros.
    """

    base_sp: NDArray[Any]
    source_dt: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and columns of all copies."""
        return int(self.source_dt.shape[1]), len(self.source_dt) * int(self.base_sp.shape[1])

    @property
    def ndim(self) -> int:
        """2, as an array has it."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the base and of all that is made of it."""
        return self.base_sp.dtype

    @property
    def nbytes(self) -> int:
        """Bytes it holds: those of the base, and of the table of rows."""
        return self.base_sp.nbytes + self.source_dt.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, p = self.shape
        return f"<Delayed {n} x {p} {self.dtype}, {len(self.source_dt)} copies of {self.base_sp.shape[1]} columns>"

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        start, stop, _ = columns.indices(self.shape[1])
        source, width = self.source_dt[:, rows], int(self.base_sp.shape[1])
        out = np.empty((*source.shape[1:], stop - start), self.dtype)
        for d in range(len(source)):
            first, last = max(start, d * width), min(stop, (d + 1) * width)
            if first < last:
                copy = out[..., first - start : last - start]
                copy[...] = self.base_sp[source[d], first - d * width : last - d * width]
                copy[source[d] < 0] = 0
        return out

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("delayed copies are made here and share no memory; pass copy=None")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __matmul__(self, right: NDArray[Any]) -> NDArray[Any]:
        out = np.empty((len(self), right.shape[1]), np.result_type(self.dtype, right.dtype))
        step = max(1, _VALUES // self.shape[1])
        for start in range(0, len(self), step):
            np.matmul(self[start : start + step], right, out=out[start : start + step])
        return out

    def take(self, rows: NDArray[np.intp]) -> Delayed:
        """Some of the rows; still no copies."""
        return replace(self, source_dt=self.source_dt[:, rows])

    def without_spare(self) -> Delayed:
        """The same with zeros in place of rows of the base that are nowhere copied and hold NaN or infinite values."""
        spare = np.setdiff1d(np.arange(len(self.base_sp)), self.source_dt)
        bad = spare[~np.isfinite(self.base_sp[spare]).all(axis=1)]
        if not bad.size:
            return self
        base = self.base_sp.copy()
        base[bad] = 0
        return replace(self, base_sp=base)


Matrix: TypeAlias = NDArray[Any] | Delayed
