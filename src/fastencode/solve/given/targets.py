"""Responses in memory, in a file or on a device, read by tiles of columns, never whole (y in docs/solver.md, 1).

Legend: t = time, v = voxels, w = voxels of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import as_numpy, check_real, dtype_of, is_stored, library_of
from fastencode.devices import Device, device_of
from fastencode.errors import InputError

__all__ = ["Targets", "check_nan_targets"]

# Most bytes of a slab that is read from a file. Rows of a chunked data set lie far apart, so narrow slabs are slow to read.
_SLAB_BYTES = 256 * 2**20


def check_nan_targets(nan_targets: str) -> bool:
    """Whether voxels that hold NaN are to be skipped, or ``InputError``."""
    if nan_targets not in ("raise", "skip"):
        raise InputError(f"nan_targets={nan_targets!r}; pass 'raise' or 'skip'")
    return bool(nan_targets == "skip")


@dataclass(frozen=True, eq=False)
class Targets:
    """Responses of shape (t, v) in memory, in a memory map, in a file, or on a device.

    Attributes
    ----------
    source : array or data set, 1-D or 2-D
    n : int
    n_voxels : int
    one : bool
        Whether they came as a single 1-D series.
    library : {"numpy", "torch", "cupy"}
    kept : int array or None
        The rows in use, if not all.
    device : Device or None
        The device where they lie; None for the host's memory.
    """

    source: Any
    n: int
    n_voxels: int
    one: bool
    library: str
    kept: NDArray[np.intp] | None = None
    device: Device | None = None

    @classmethod
    def check(cls, Y: Any, n: int, kept: NDArray[np.intp] | None = None) -> Targets:
        """Check shape and dtype; the values are checked as they are read. Raises ``InputError`` or ``DeviceError``."""
        library, device = library_of(Y), device_of(Y)
        if device is not None:
            source = Y.detach() if library == "torch" else Y
        else:
            source = Y if is_stored(Y) else as_numpy(Y, "Y")
        check_real(dtype_of(source, "Y"), "Y")
        if len(source.shape) not in (1, 2):
            raise InputError(f"Y has shape {tuple(source.shape)}; pass (time, voxels), or (time,) for a single series")
        if source.shape[0] != n:
            raise InputError(f"Y has {source.shape[0]} rows and X has {n}; give both the same scans")
        one = len(source.shape) == 1
        n_voxels = 1 if one else int(source.shape[1])
        if n_voxels == 0:
            raise InputError(f"Y has shape {tuple(source.shape)}: no voxels; pass at least one column")
        return cls(source, n, n_voxels, one, library, kept, device)

    def fetched(self) -> Targets:
        """These responses in the host's memory."""
        return self if self.device is None else replace(self, source=self.device.get(self.source), device=None)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""
        return dtype_of(self.source, "Y")

    def slabs(self, tile: int, memory: int | None = None) -> Iterator[tuple[int, Any]]:
        """(first voxel, values) of consecutive slabs whose width is a multiple of ``tile``; one slab where Y is in memory.

        Slabs of a file take at most a quarter of ``memory``, or one tile.
        """
        if self.device is not None:
            yield 0, self.source[:, None] if self.one else self.source
        elif self.one:
            yield 0, np.asarray(self.source[...])[:, None]
        elif not is_stored(self.source):
            yield 0, self.source
        else:
            most = _SLAB_BYTES if memory is None else min(_SLAB_BYTES, memory // 4)
            width = tile * max(1, most // (tile * self.n * self.dtype.itemsize))
            for first in range(0, self.n_voxels, width):
                yield first, self.source[:, first : min(first + width, self.n_voxels)]

    def in_use(self, values: NDArray[Any]) -> NDArray[Any]:
        """The rows in use of some columns."""
        return values if self.kept is None else values[self.kept]

    def refuse_bad(self) -> None:
        """Look for NaN and infinite values in all of Y, in the host's memory, and raise if there are any."""
        bad_v = np.zeros(self.n_voxels, dtype=bool)
        for first, slab in self.slabs(1024):
            for start in range(0, slab.shape[1], 1024):
                columns = ~np.isfinite(self.in_use(slab[:, start : start + 1024])).all(axis=0)
                bad_v[first + start : first + start + len(columns)] = columns
        if bad_v.any():
            self.refuse(bad_v)

    def refuse(self, bad_v: NDArray[np.bool_]) -> NoReturn:
        """Raise for the voxels that hold NaN or infinite values."""
        raise InputError(
            f"{bad_v.sum()} of {self.n_voxels} voxels in Y hold NaN or infinite values, the first is voxel {bad_v.argmax()}; "
            "leave those columns out (a mask of the brain often does), fill them, or pass nan_targets='skip'"
        )
