"""Systems of voxels whose penalties are near each other: one inverse for each fold, conjugate gradients for the rest.

Voxels whose log δ lie in one cell share the inverse A_c⁻¹ at its centre. Conjugate gradients so preconditioned see a spectrum
within e^±(distance), and need no product with A_c: A_c times a preconditioned residual is that residual. The weights and the
adjoint both leave a residual; the score plus (adjoint)ᵀ(residual of the weights) is off by the product of the two only. Cells lie
on a lattice, so no voxel's result depends on which others there are.

Where the systems lie, on the host or a device, all of this is done; voxels come from the host, and what is found goes back.

Legend: n = rows, b = bands, v = voxels, m = unknowns, q = test rows, w = voxels of a tile, k = folds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST, Device
from fastencode.errors import DeviceError
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.cholesky import invert_positive
from fastencode.solve.plan.grams import Grams
from fastencode.solve.score.moments import score_slopes
from fastencode.solve.score.tiles import READ_ROWS, Reader, tile_width
from fastencode.solve.search.systems import Systems, traces
from fastencode.threads import available_threads, limit_threads, together

__all__ = ["CELL", "Cell", "CellReader", "Solved", "as_good_as_off", "by_cells"]

T = TypeVar("T")
# Width of a cell in log δ.
CELL = 3.0
# A band whose δ times the trace of its Gram is below this is as good as off, so cells do not tell it apart.
_OFF = 0.05
# Steps of conjugate gradients that are not exceeded: at spectra within e^±3, 8 digits take 60.
_MOST_STEPS = 200
# Voxels of a tile, and what the systems of all folds may take for it: on the host, and on a device.
_WIDEST, _STATE_BYTES = 256, 2**29
_WIDEST_THERE, _STATE_BYTES_THERE, _NARROWEST = 4096, 2**32, 16


def as_good_as_off(grams: Grams) -> F64:
    """(b, 1) log δ below which a band hardly does anything."""
    return np.asarray(np.log(_OFF) - np.log(traces(grams))[:, None])


def by_cells(grams: Grams, at_bv: F64, columns: NDArray[np.intp]) -> list[tuple[F64, NDArray[np.intp]]]:
    """(log δ of the centre (b,), voxels) of every cell that some voxels at ``at_bv`` are in."""
    lattice = np.floor(np.maximum(at_bv[:, columns], as_good_as_off(grams)) / CELL).astype(np.int64)
    each, which = np.unique(lattice, axis=1, return_inverse=True)
    return [((cell + 0.5) * CELL, columns[which.reshape(-1) == i]) for i, cell in enumerate(each.T)]


@dataclass(eq=False)
class Solved:
    """Where the systems of one fold stand for the voxels of a tile: the next δ starts from here. Arrays of the device."""

    weighed_bw: Any
    x_mw: Any
    left_mw: Any
    scale_w: Any = None
    adjoint_mw: Any = None
    h_mw: Any = None
    h_left_mw: Any = None
    h_scale_w: Any = None

    def take(self, columns: Any, device: Device) -> Solved:
        """Some voxels of it."""
        some: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            array = getattr(self, name)
            some[name] = None if array is None else device.take(array, columns, axis=array.ndim - 1)
        return Solved(**some)


@dataclass(eq=False)
class Cell:
    """Inverses at one δ, which serve all voxels near it.

    Attributes
    ----------
    systems : Systems
    delta_b : (b,) float64
    inverses : list of (m, m) float64 arrays of the systems' device
    """

    systems: Systems
    delta_b: F64
    inverses: list[Any] = field(default_factory=list)

    @classmethod
    def at(cls, systems: Systems, delta_b: F64) -> Cell:
        """Invert the systems of all folds: with all threads, one fold after another."""
        with limit_threads(available_threads()):
            folds = range(len(systems.rows))
            return cls(systems, delta_b, [invert_positive(systems.device, systems.matrix(k, delta_b)) for k in folds])

    def start(self, k: int, y_nw: Any) -> Solved:
        """Nothing solved yet, at the cell's own δ."""
        systems, xp = self.systems, self.systems.device.xp
        right = systems.right(k, systems.about_mean(k, y_nw))
        weighed = systems.device.zeros(len(self.delta_b), right.shape[1], dtype=np.float64) + self._weighed()
        return Solved(weighed, xp.zeros_like(right), 1.0 * right)

    def _weighed(self) -> Any:
        """(b, 1): the cell's own δ, weighed."""
        return self.systems.weigh(self.systems.device.put(self.delta_b[:, None]))

    def solve(self, k: int, delta_bw: Any, state: Solved, tolerance: float) -> None:
        """Solve for the weights of voxels at their δ, from where the last solution was."""
        weighed = self.systems.weigh(delta_bw)
        if state.scale_w is not None:
            by_bw = weighed - state.weighed_bw
            state.left_mw -= self.systems.change(k, by_bw, state.x_mw)
            if state.h_mw is not None:
                state.h_left_mw -= self.systems.change(k, by_bw, state.h_mw)
        state.weighed_bw = weighed
        state.scale_w = self._gradients(k, state, state.x_mw, state.left_mw, state.scale_w, tolerance)

    def refresh(self, k: int, y_nw: Any, state: Solved) -> None:
        """Replace the residual that conjugate gradients kept by the one there is."""
        systems = self.systems
        state.left_mw = systems.right(k, systems.about_mean(k, y_nw)) - systems.fixed(k, state.x_mw)
        state.left_mw -= systems.change(k, state.weighed_bw, state.x_mw)

    def score(self, k: int, y_nw: Any, scoring: str, state: Solved) -> tuple[Any, Any, Any]:
        """(score (w,), ∂score/∂predictions (q, w), what slopes reuse) of one fold, once its weights are solved for."""
        systems, rows = self.systems, self.systems.there[k]
        predicted, kept = systems.predict(k, state.weighed_bw, state.x_mw)
        y_qw = systems.device.take(y_nw, rows.test) - systems.mean(k, y_nw)
        return *score_slopes(systems.device, scoring, y_qw, predicted, rows.weights_q), kept

    def slope(self, k: int, y_nw: Any, scoring: str, state: Solved, tolerance: float) -> tuple[Any, Any]:
        """(score (w,), ∂score/∂log δ (b, w)) of one fold, the score corrected by what the weights' residual costs."""
        systems, weighed = self.systems, state.weighed_bw
        scores, s_qw, kept = self.score(k, y_nw, scoring, state)
        right = systems.adjoint(k, weighed, s_qw)
        if state.h_mw is None:
            state.h_mw, state.h_left_mw = systems.device.xp.zeros_like(right), 1.0 * right
        else:
            state.h_left_mw += right - state.adjoint_mw
        state.adjoint_mw = right
        state.h_scale_w = self._gradients(k, state, state.h_mw, state.h_left_mw, state.h_scale_w, tolerance)
        scores = scores + systems.device.dots(state.h_mw, state.left_mw)
        return scores, systems.slope(k, weighed, kept, s_qw, state.h_mw)

    def _gradients(self, k: int, state: Solved, x_mw: Any, left_mw: Any, scale_w: Any, tolerance: float) -> Any:
        """Conjugate gradients of every voxel at once, in place, until √(rᵀ A_c⁻¹ r) is below so much of what it was at first;
        returns that. A voxel that is done stays as it is, whatever the others need."""
        device, xp = self.systems.device, self.systems.device.xp
        inverse, by_bw = self.inverses[k], state.weighed_bw - self._weighed()
        z = inverse @ left_mw
        rz = device.dots(left_mw, z)
        zero, one = xp.zeros_like(rz), xp.ones_like(rz)
        scale = xp.sqrt(xp.where(rz > 0, rz, zero)) if scale_w is None else scale_w
        enough = (tolerance * scale) ** 2
        p, at_centre = z, 1.0 * left_mw  # A_c p
        for _ in range(_MOST_STEPS):
            going = rz > enough
            if not bool(xp.any(going)):
                break
            times = self.systems.change_near(k, by_bw, self.delta_b, p, at_centre)
            times += at_centre
            curvature = device.dots(p, times)
            usable = going & (curvature > 0)
            step = xp.where(usable, rz / xp.where(usable, curvature, one), zero)
            x_mw += step * p
            times *= step
            left_mw -= times
            z = inverse @ left_mw
            after = device.dots(left_mw, z)
            usable = going & (rz > 0)
            ratio = xp.where(usable, after / xp.where(usable, rz, one), zero)
            p *= ratio
            p += z
            at_centre *= ratio
            at_centre += left_mw
            rz = xp.where(going, after, rz)
        return scale


class CellReader(Reader, ABC):
    """Reads the tiles of a cell's voxels and does something with each where the systems lie.

    On the host a cell of few voxels is one tile, since products like to be wide: its folds then are done by several threads,
    otherwise its tiles. A device does one wide tile after another.
    """

    def __init__(self, cell: Cell, targets: Targets, skip_nan: bool, columns: NDArray[np.intp]) -> None:
        self.cell, self.device, systems, grams = cell, cell.systems.device, cell.systems, cell.systems.grams
        folds, item, n, threads = range(len(systems.rows)), grams.problem.X.dtype.itemsize, systems.n, available_threads()
        state = 8 * (sum(5 * systems.size(k) for k in folds) + 2 * n) + item * n
        widest, room = (_WIDEST, _STATE_BYTES) if self.device is HOST else (_WIDEST_THERE, _STATE_BYTES_THERE)
        most = min(widest, max(16, room // state // 16 * 16))
        width = tile_width(len(columns), most) if len(columns) > most else max(16, -(-len(columns) // 16) * 16)
        now = 8 * (6 * max(map(systems.size, folds)) + (len(grams.bands) + 2) * n * grams.dual) + 16 * READ_ROWS
        kept = grams.nbytes + systems.nbytes + systems.inverse_bytes
        super().__init__(grams.problem, grams.root_t, targets, skip_nan, (width, width * (2 * state + now), kept), columns)
        if self.device is not HOST:
            self.workers = 1
        self.inside = max(1, threads // self.workers) if self.device is HOST else 1

    def job(self, slab: NDArray[Any], inside: Any, here: Any) -> None:
        """Do one tile; in halves where the device has not the memory for the whole."""
        try:
            with self.device.current():
                self.tile(*self._responses(slab, inside, here), here)
            return
        except Exception as error:
            if not self.device.is_out_of_memory(error):
                raise
            if len(here) <= _NARROWEST:
                raise DeviceError(
                    f"{self.device.name} ran out of memory on {len(here)} voxels, beside {self.kept / 1e9:.1f} GB for all folds; "
                    "free memory there, or pass device=None for the CPU"
                ) from error
        self.device.free_cached()  # here, where the error's frames hold nothing any more
        half = len(here) // 2
        for some in (slice(0, half), slice(half, None)):
            self.job(slab, inside[some], here[some])

    @abstractmethod
    def tile(self, y_nw: Any, mean_w: F64, here: NDArray[np.intp]) -> None:
        """What to do with responses about their means (n, w), without the roots of weights; their means; which voxels."""

    def _responses(self, slab: NDArray[Any], inside: Any, here: Any) -> tuple[Any, F64]:
        y_tw, mean_w = self.read(slab, inside, here)
        return self.device.put(y_tw[:, : len(mean_w)] / self.root[:, None]), mean_w

    def each_fold(self, job: Callable[[int], T]) -> list[T]:
        """Do a job for every fold, in the threads that tiles leave over."""
        folds = range(len(self.cell.inverses))
        return together([partial(job, k) for k in folds], self.inside) if self.inside > 1 else [job(k) for k in folds]
