"""A search on disk: its state after every candidate and every cell of a refinement; one that was killed goes on from there.

The file is written whole or not at all. It holds arrays and a fingerprint of what decides about them: the data, folds, penalties
and how scores are made. What may change between two calls is not in the fingerprint: memory, the device, the number of candidates
and of steps. Candidates lie in the file itself, for those of a later call to begin with them.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.files import whole_file
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets

__all__ = ["Checkpoint", "fingerprint"]

_KIND = "fastencode.BandedSearch"
# Values that are copied at once, and voxels of a block of Y.
_VALUES_AT_ONCE, _COLUMNS_AT_ONCE = 2**17, 1024


def fingerprint(problem: Problem, targets: Targets, arrays: dict[str, NDArray[Any]], settings: str) -> str:
    """A hash of the design, the responses, folds, penalties, further arrays and settings: one more pass over Y.

    Y is hashed in blocks of 1,024 voxels, whatever is read at once, so that ``memory`` does not show.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(array: Any) -> None:
        digest.update(f"{array.shape}{array.dtype}".encode())
        rows = max(1, _VALUES_AT_ONCE // max(1, math.prod(array.shape[1:])))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())

    add(problem.X)
    add(problem.alphas)
    add(np.ones(0) if problem.weights is None else problem.weights)
    if problem.kept is not None:  # else rows of Y left out could change places with others unnoticed
        add(problem.kept)
    for fold in problem.folds:
        for rows in fold:
            add(rows)
    for name in sorted(arrays):
        add(arrays[name])
    digest.update(f"{targets.n} {targets.n_voxels} {targets.dtype}".encode())
    for _, slab in targets.slabs(_COLUMNS_AT_ONCE, problem.memory):
        for first in range(0, slab.shape[1], _COLUMNS_AT_ONCE):  # slabs begin at multiples of it
            add(slab[:, first : first + _COLUMNS_AT_ONCE])
    digest.update(f"{settings} {problem.fit_intercept} {problem.precision}".encode())
    return digest.hexdigest()


class Checkpoint:
    """The file of one search: arrays by name, of which it knows nothing more.

    Parameters
    ----------
    path : path-like
    mark : str
        The :func:`fingerprint` of what the arrays belong to.
    """

    def __init__(self, path: str | os.PathLike[str], mark: str) -> None:
        self.path, self.mark = Path(path), mark

    def read(self) -> dict[str, NDArray[Any]]:
        """What was written last; nothing if there is no file.

        Raises
        ------
        InputError
            If the file is of another search, or no such file.
        """
        import h5py  # 0.2 s to import: only when a file is touched

        if not self.path.exists():
            return {}
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(f"checkpoint {str(self.path)!r} is not an HDF5 file ({error}); name another") from error
        found: dict[str, NDArray[Any]] = {}
        with file:
            if file.attrs.get("kind") != _KIND:
                raise InputError(f"checkpoint {str(self.path)!r} is not one of a banded search; name another file")
            if file.attrs["fingerprint"] != self.mark:
                raise InputError(
                    f"checkpoint {str(self.path)!r} is of another search (data, bands, folds, penalties, scoring, per_target, "
                    "fit_intercept or precision differ); delete it or name another file"
                )
            try:
                found = {name: array[()] for name, array in file.items()}
            except Exception as error:
                raise InputError(f"checkpoint {str(self.path)!r} is damaged ({error}); delete it or name another file") from error
        return found

    def write(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Put these arrays in the place of all there were: wholly or not at all."""
        import h5py  # 0.2 s to import: only when a file is touched

        with whole_file(self.path) as partial, h5py.File(partial, "w") as file:
            file.attrs["kind"], file.attrs["fingerprint"] = _KIND, self.mark
            for name, array in arrays.items():
                file[name] = array
