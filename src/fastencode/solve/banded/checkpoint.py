"""A search on disk: what every candidate scored, so that a search that was killed goes on where it stood.

The file is written whole or not at all after every candidate, and every cell of a refinement. It holds scores in float64, so that
a search that goes on decides as one that never stopped; and a fingerprint, so that it goes on only with the same data and
settings.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.files import whole_file
from fastencode.solve.problem import Problem
from fastencode.solve.targets import Targets

if TYPE_CHECKING:
    from fastencode.solve.banded.search import Found

__all__ = ["Checkpoint", "fingerprint"]

_KIND = "fastencode.BandedSearch"
# Values that are copied at once, and responses read from a file.
_VALUES_AT_ONCE, _COLUMNS_AT_ONCE = 2**17, 1024


def fingerprint(problem: Problem, targets: Targets, arrays: dict[str, Any], settings: str) -> str:
    """A hash of the design, the responses, folds, penalties, candidates and settings: one more pass over Y."""
    digest = hashlib.blake2b(digest_size=16)

    def add(array: Any) -> None:
        digest.update(f"{array.shape}{array.dtype}".encode())
        rows = max(1, _VALUES_AT_ONCE // max(1, math.prod(array.shape[1:])))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())

    add(problem.X)
    add(problem.alphas)
    add(np.ones(0) if problem.weights is None else problem.weights)
    for fold in problem.folds:
        for rows in fold:
            add(rows)
    for name in sorted(arrays):
        add(arrays[name])
    digest.update(f"{targets.n} {targets.n_voxels} {targets.dtype}".encode())
    for _, slab in targets.slabs(_COLUMNS_AT_ONCE, problem.memory):
        add(slab)
    digest.update(f"{settings} {problem.fit_intercept} {problem.precision}".encode())
    return digest.hexdigest()


class Checkpoint:
    """The file of one search."""

    def __init__(self, path: str | os.PathLike[str], mark: str) -> None:
        self.path, self.mark = Path(path), mark
        self.scores: list[NDArray[np.float64]] = []
        self.refined: dict[str, NDArray[Any]] = {}

    def restore(self, found: Found) -> Iterator[NDArray[np.float64]]:
        """Fill in what the file holds, one candidate at a time: its scores, for each to be taken in turn.

        Raises
        ------
        InputError
            If the file is of another search.
        """
        import h5py  # 0.2 s to import: only when a file is touched

        if not self.path.exists():
            return
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(f"checkpoint {str(self.path)!r} is not an HDF5 file ({error}); name another") from error
        self.found = found
        with file:
            if file.attrs.get("kind") != _KIND:
                raise InputError(f"checkpoint {str(self.path)!r} is not one of a banded search; name another file")
            if file.attrs["fingerprint"] != self.mark:
                raise InputError(
                    f"checkpoint {str(self.path)!r} is of another search (data, folds, penalties, candidates or settings "
                    "differ); delete it or name another file"
                )
            scores, alphas = file["scores"][()], file["alphas"][()]
            found.variance_v, found.bad_v = file["variance"][()], file["bad"][()]
            for part, group in file.get("refined", {}).items():
                self.refined |= {f"{part}/{name}": array[()] for name, array in group.items()}
        for i, scores_v in enumerate(scores):
            found.scores_iv[i], found.alphas_iv[i] = scores_v, alphas[i]
            self.scores.append(scores_v)
            yield scores_v

    def write(self, found: Found, scores_v: NDArray[np.float64]) -> None:
        """Add what the last candidate scored."""
        self.scores.append(scores_v)
        self.found = found
        self._write()

    def write_refined(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Replace what is known of the refinement that comes after all candidates."""
        self.refined = arrays
        self._write()

    def _write(self) -> None:
        import h5py  # 0.2 s to import: only when a file is touched

        found = self.found
        with whole_file(self.path) as partial, h5py.File(partial, "w") as file:
            file.attrs["kind"], file.attrs["fingerprint"] = _KIND, self.mark
            file["scores"], file["alphas"] = np.stack(self.scores), found.alphas_iv[: found.tried]
            file["variance"], file["bad"] = found.variance_v, found.bad_v
            for name, array in self.refined.items():
                file[f"refined/{name}"] = array
