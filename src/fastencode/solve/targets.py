"""The responses, wherever they lie: read column tile by column tile, never whole.

Legend: t = time, v = voxels, w = voxels of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import as_numpy, check_real, is_stored, library_of
from fastencode.errors import InputError

__all__ = ["Targets"]

# A file is read in slabs this wide at most: rows of a chunked data set are long strides, so narrow reads are slow.
_SLAB_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Targets:
    """Responses of shape (t, v) in memory, in a memory map, or in a file.

    Attributes
    ----------
    source : array or data set, 1-D or 2-D
    n : int
    n_voxels : int
    one : bool
        Whether they came as a single 1-D series.
    library : {"numpy", "torch"}
    kept : int array or None
        The rows in use, if not all.
    """

    source: Any
    n: int
    n_voxels: int
    one: bool
    library: str
    kept: NDArray[np.intp] | None = None

    @classmethod
    def check(cls, Y: Any, n: int, kept: NDArray[np.intp] | None = None) -> Targets:
        """Check shape and dtype; the values are checked as they are read. Raises ``InputError`` or ``DeviceError``."""
        library = library_of(Y)
        source = Y if is_stored(Y) else as_numpy(Y, "Y")
        check_real(source.dtype, "Y")
        if len(source.shape) not in (1, 2):
            raise InputError(f"Y has shape {tuple(source.shape)}; pass (time, voxels), or (time,) for a single series")
        if source.shape[0] != n:
            raise InputError(f"Y has {source.shape[0]} rows and X has {n}; give both the same scans")
        one = len(source.shape) == 1
        n_voxels = 1 if one else int(source.shape[1])
        if n_voxels == 0:
            raise InputError(f"Y has shape {tuple(source.shape)}: no voxels; pass at least one column")
        return cls(source, n, n_voxels, one, library, kept)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""
        return np.dtype(self.source.dtype)

    def slabs(self, tile: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first voxel, values) of consecutive slabs whose width is a multiple of ``tile``; one slab where Y is in memory."""
        if self.one:
            yield 0, np.asarray(self.source[...])[:, None]
        elif not is_stored(self.source):
            yield 0, self.source
        else:
            width = tile * max(1, _SLAB_BYTES // (tile * self.n * self.dtype.itemsize))
            for first in range(0, self.n_voxels, width):
                yield first, self.source[:, first : min(first + width, self.n_voxels)]

    def in_use(self, values: NDArray[Any]) -> NDArray[Any]:
        """The rows in use of some columns."""
        return values if self.kept is None else values[self.kept]

    def refuse_bad(self) -> None:
        """Count the voxels with NaN or infinite values over all of Y, and raise if there are any."""
        bad, first_bad = 0, -1
        for first, slab in self.slabs(1024):
            for start in range(0, slab.shape[1], 1024):
                columns = np.flatnonzero(~np.isfinite(self.in_use(slab[:, start : start + 1024])).all(axis=0))
                if len(columns) and not bad:
                    first_bad = first + start + int(columns[0])
                bad += len(columns)
        if bad:
            raise InputError(
                f"{bad} of {self.n_voxels} voxels in Y hold NaN or infinite values, the first is voxel {first_bad}; "
                "leave those columns out (a mask of the brain often does), fill them, or pass nan_targets='skip'"
            )
