"""Tiles of voxels, one after another in threads: read, centered, scored. What is done with each then is the solver's matter.

BLAS has one thread inside each. Every product has the same width whatever the memory and the number of threads (the last tile is
padded). So on a given plan, neither memory nor the number of threads changes a bit of any result, and no voxel's values touch
another's. Only a voxel's place within its tile may show, in the last bit of float32: BLAS kernels differ there from column to
column. A plan itself is made by BLAS with several threads, which add up in another order than one: plans made with other threads
differ by rounding. So do fits that run at the same time in one process, where BLAS's number of threads is one for all of them.

Legend: t = time, v = voxels, a = penalties, r = directions, w = voxels of one tile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock, local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.progress import Bar
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.threads import available_threads, limit_threads

__all__ = ["READ_ROWS", "REFIT_FEATURES", "Job", "Reader", "Where", "tile_width"]

# Rows of responses that are read at once: in float64 they stay in the cache.
READ_ROWS = 64
# Features whose weights are made at once: beyond, the product would leave the cache.
REFIT_FEATURES = 2048
# Voxels in order, or picked.
Where = slice | NDArray[np.intp]
# job(slab, inside, here) does what there is to do with a tile: ``inside`` selects the tile's columns in the slab of responses at
# hand, ``here`` the same voxels among all. Slices for a reader of all voxels, index arrays for a reader of some.
Job = Callable[[NDArray[Any], Any, Any], None]


def tile_width(n_voxels: int, most: int) -> int:
    """Voxels in a tile: a function of the plan and their number only, so that memory and threads cannot show in a plan's results.

    The widest that keeps a product's right side in one panel of OpenBLAS, an even number of tiles, four at least for threads.
    """
    tiles = max(4, 2 * -(-n_voxels // (2 * most)))
    return min(most, max(16, -(-n_voxels // (16 * tiles)) * 16))


class Workspace(local):
    """Buffers of one thread, made once: fresh pages for every tile would cost as much as the products."""

    def __init__(self) -> None:
        self.buffers: dict[str, NDArray[Any]] = {}

    def get(self, name: str, *shape: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        size, flat = int(np.prod(shape)), self.buffers.get(name)
        if flat is None or flat.size < size:
            raw = np.empty(size * dtype.itemsize + 64, dtype=np.uint8)
            start = -raw.ctypes.data % 64  # whole lines of the cache
            flat = self.buffers[name] = raw[start : start + size * dtype.itemsize].view(dtype)
        return flat[:size].reshape(shape)


class Reader:
    """Responses by tiles, for one pass.

    Parameters
    ----------
    problem : Problem
    root_t : (t,) float64
        Square roots of the sample weights.
    targets : Targets
    skip_nan : bool
    sizes : (width, tile, kept)
        Voxels of a tile; bytes of working memory for one; bytes there are already.
    columns : (c,) increasing int array, optional
        The voxels to read, if not all.
    """

    def __init__(
        self,
        problem: Problem,
        root_t: NDArray[np.float64],
        targets: Targets,
        skip_nan: bool,
        sizes: tuple[int, int, int],
        columns: NDArray[np.intp] | None = None,
    ) -> None:
        self.problem, self.root, self.targets, self.skip_nan, self.columns = problem, root_t, targets, skip_nan, columns
        self.dtype = np.dtype(problem.X.dtype)
        self.width, self.tile_bytes, self.kept = sizes
        self.workers = self._workers(targets.n_voxels if columns is None else len(columns))
        self.square_v = np.empty(targets.n_voxels)  # mean squares, about the means if there is an intercept
        self.variance_v = np.empty(targets.n_voxels)  # about the means, whatever there is
        self.bad_v = np.zeros(targets.n_voxels, dtype=bool)
        self.work = Workspace()
        self.lock = Lock()
        self.seconds = {"read": 0.0}

    def _workers(self, n_voxels: int) -> int:
        workers, memory = min(available_threads(), max(1, -(-n_voxels // self.width))), self.problem.memory
        if memory is not None:
            workers = min(workers, (memory - self.kept) // self.tile_bytes)
        if workers < 1:
            raise InputError(
                f"memory={memory} bytes is too small: the smallest that works here is {self.kept + self.tile_bytes} "
                f"bytes, {self.kept} for the plan and {self.tile_bytes} for one tile of {self.width} voxels"
            )
        return workers

    @property
    def spare(self) -> float:
        """Bytes of ``memory`` that one tile at a time would leave; infinite without a limit."""
        memory = self.problem.memory
        return np.inf if memory is None else memory - self.kept - self.tile_bytes

    def leave(self, more: int) -> None:
        """Leave so many bytes more to others: fewer tiles side by side."""
        self.kept += more
        self.workers = self._workers(self.targets.n_voxels if self.columns is None else len(self.columns))

    def run(self, job: Job, bar: Bar) -> None:
        """Do ``job(slab, inside, here)`` to every tile, in threads; the bar moves in this one."""
        with limit_threads(1), ThreadPoolExecutor(self.workers) as pool:
            for first, slab in self.targets.slabs(self.width, self.problem.memory):
                waiting = {pool.submit(job, slab, *where): size for size, *where in self._tiles(first, slab.shape[1])}
                try:
                    for done in as_completed(waiting):
                        done.result()
                        bar.update(waiting[done])
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
                del slab, waiting  # before the next one is read: there is memory for one

    def _tiles(self, first: int, count: int) -> Iterator[tuple[int, Where, Where]]:
        """(voxels, which of a slab, which of all) of every tile of a slab."""
        if self.columns is None:
            for start in range(0, count, self.width):
                stop = min(start + self.width, count)
                yield stop - start, slice(start, stop), slice(first + start, first + stop)
        else:
            here = self.columns[np.searchsorted(self.columns, first) : np.searchsorted(self.columns, first + count)]
            for start in range(0, len(here), self.width):
                some = here[start : start + self.width]
                yield len(some), some - first, some

    def spent(self, stage: str, since: float) -> None:
        """Count time of a stage, all threads together."""
        with self.lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - since

    def read(self, slab: NDArray[Any], inside: Where, here: Where) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """A padded tile of responses in the plan's dtype, centered if there is an intercept and times the roots of the weights;
        and its means."""
        began = time.perf_counter()
        tile, weights, center = self.targets.in_use(slab[:, inside]), self.problem.weights, self.problem.fit_intercept
        width = tile.shape[1]
        y_tw = self.work.get("y", len(tile), self.width, dtype=self.dtype)
        blocks = [slice(first, first + READ_ROWS) for first in range(0, len(tile), READ_ROWS)]
        # Relative to the first row: a constant voxel becomes exactly zero, and a large common offset costs no digits.
        with np.errstate(all="ignore"):
            base = tile[0].astype(np.float64) if center else np.zeros(width)
            total, squares = np.zeros(width), np.zeros(width)
            for rows in blocks:
                values = np.subtract(tile[rows], base, dtype=np.float64)
                total += values.sum(axis=0) if weights is None else weights[rows] @ values
            mass = float(len(tile) if weights is None else weights.sum())
            mean, bad = total / mass, ~np.isfinite(total)
            if bad.any():
                self._bad(tile, bad, here)
                mean[bad] = base[bad] = 0.0
            for rows in blocks:
                values = np.subtract(tile[rows], base, dtype=np.float64)
                if center:
                    values -= mean
                if bad.any():
                    values[:, bad] = 0.0
                if weights is not None:
                    values *= self.root[rows, None]
                y_tw[rows, :width] = values
                squares += np.einsum("tw,tw->w", y_tw[rows, :width], y_tw[rows, :width], dtype=np.float64)
        self.square_v[here] = squares / mass
        self.variance_v[here] = squares / mass if center else np.maximum(squares / mass - mean**2, 0.0)
        y_tw[:, width:] = 0.0
        self.spent("read", began)
        return y_tw, base + mean

    def _bad(self, tile: NDArray[Any], bad: NDArray[np.bool_], here: Where) -> None:
        """Columns whose sum is not finite: skip them, or raise."""
        if not self.skip_nan:
            self.targets.refuse_bad()
        large = bad & np.isfinite(tile).all(axis=0)
        if large.any():
            raise InputError(f"Y holds values too large to add up, the first in voxel {self._first(large, here)}; rescale it")
        self.bad_v[here] = bad

    def _first(self, flags: NDArray[np.bool_], here: Where) -> int:
        """Number, among all voxels, of the first one of a tile that is flagged."""
        return int(np.arange(self.targets.n_voxels)[here][flags.argmax()])
