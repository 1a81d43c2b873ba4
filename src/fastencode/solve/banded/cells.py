"""Systems of voxels whose penalties are near each other: one inverse for each fold, conjugate gradients for the rest.

Voxels whose log δ lie in one cell share the inverse A_c⁻¹ at its centre. Conjugate gradients so preconditioned see a spectrum
within e^±(distance), and need no product with A_c: A_c times a preconditioned residual is that residual. The weights and the
adjoint both leave a residual; the score plus (adjoint)ᵀ(residual of the weights) is off by the product of the two only. Cells lie
on a lattice, so no voxel's result depends on which others there are.

Legend: n = rows, b = bands, v = voxels, m = unknowns, q = test rows, w = voxels of a tile, k = folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastencode.solve.banded.grams import Grams
from fastencode.solve.banded.systems import Systems, traces
from fastencode.solve.scorer import READ_ROWS
from fastencode.solve.scores import score_slopes
from fastencode.solve.sweep import Reader, tile_width
from fastencode.solve.targets import Targets
from fastencode.threads import available_threads, limit_threads, together

__all__ = ["CELL", "Cell", "CellReader", "Solved", "as_good_as_off", "by_cells"]

F64 = NDArray[np.float64]
T = TypeVar("T")
# Width of a cell in log δ.
CELL = 3.0
# A band whose δ times the trace of its Gram is below this is as good as off, so cells do not tell it apart.
_OFF = 0.05
# Steps of conjugate gradients that are not exceeded: at spectra within e^±3, 8 digits take 60.
_MOST_STEPS = 200
_WIDEST, _STATE_BYTES = 256, 2**29


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
    """Where the systems of one fold stand for the voxels of a tile: the next δ starts from here."""

    weighed_bw: F64
    x_mw: F64
    left_mw: F64
    scale_w: F64 | None = None
    adjoint_mw: F64 | None = None
    h_mw: F64 | None = None
    h_left_mw: F64 | None = None
    h_scale_w: F64 | None = None

    def take(self, columns: NDArray[np.intp]) -> Solved:
        """Some voxels of it."""
        some: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            array = getattr(self, name)
            some[name] = None if array is None else array[:, columns] if array.ndim == 2 else array[columns]
        return Solved(**some)


@dataclass(eq=False)
class Cell:
    """Inverses at one δ, which serve all voxels near it.

    Attributes
    ----------
    systems : Systems
    delta_b : (b,) float64
    inverses : list of (m, m) float64
    """

    systems: Systems
    delta_b: F64
    inverses: list[F64] = field(default_factory=list)

    @classmethod
    def at(cls, systems: Systems, delta_b: F64) -> Cell:
        """Invert the systems of all folds: with all threads, one fold after another."""
        with limit_threads(available_threads()):
            return cls(systems, delta_b, [systems.inverse(k, delta_b) for k in range(len(systems.rows))])

    def start(self, k: int, y_nw: F64) -> Solved:
        """Nothing solved yet, at the cell's own δ."""
        rows = self.systems.rows[k]
        right = self.systems.right(k, rows.about_mean(y_nw)[0])
        weighed = np.repeat(self.systems.weigh(self.delta_b[:, None]), y_nw.shape[1], axis=1)
        return Solved(weighed, np.zeros_like(right), right)

    def solve(self, k: int, delta_bw: F64, state: Solved, tolerance: float) -> None:
        """Solve for the weights of voxels at their δ, from where the last solution was."""
        weighed = self.systems.weigh(delta_bw)
        if state.scale_w is not None:
            state.left_mw -= self.systems.change(k, weighed - state.weighed_bw, state.x_mw)
            if state.h_mw is not None and state.h_left_mw is not None:
                state.h_left_mw -= self.systems.change(k, weighed - state.weighed_bw, state.h_mw)
        state.weighed_bw = weighed
        state.scale_w = self._gradients(k, state, state.x_mw, state.left_mw, state.scale_w, tolerance)

    def refresh(self, k: int, y_nw: F64, state: Solved) -> None:
        """Replace the residual that conjugate gradients kept by the one there is."""
        systems = self.systems
        state.left_mw = systems.right(k, systems.rows[k].about_mean(y_nw)[0]) - systems.fixed(k, state.x_mw)
        state.left_mw -= systems.change(k, state.weighed_bw, state.x_mw)

    def score(self, k: int, y_nw: F64, scoring: str, state: Solved) -> tuple[F64, F64, Any]:
        """(score (w,), ∂score/∂predictions (q, w), what slopes reuse) of one fold, once its weights are solved for."""
        rows = self.systems.rows[k]
        predicted, kept = self.systems.predict(k, state.weighed_bw, state.x_mw)
        _, mean_w = rows.about_mean(y_nw)
        return *score_slopes(scoring, y_nw[rows.test] - mean_w, predicted, rows.weights_q), kept

    def slope(self, k: int, y_nw: F64, scoring: str, state: Solved, tolerance: float) -> tuple[F64, F64]:
        """(score (w,), ∂score/∂log δ (b, w)) of one fold, the score corrected by what the weights' residual costs."""
        systems, weighed = self.systems, state.weighed_bw
        scores, s_qw, kept = self.score(k, y_nw, scoring, state)
        right = systems.adjoint(k, weighed, s_qw)
        if state.h_mw is None or state.h_left_mw is None or state.adjoint_mw is None:
            state.h_mw, state.h_left_mw = np.zeros_like(right), right.copy()
        else:
            state.h_left_mw += right - state.adjoint_mw
        state.adjoint_mw = right
        state.h_scale_w = self._gradients(k, state, state.h_mw, state.h_left_mw, state.h_scale_w, tolerance)
        scores = scores + np.einsum("mw,mw->w", state.h_mw, state.left_mw)
        return scores, systems.slope(k, weighed, kept, s_qw, state.h_mw)

    def _gradients(self, k: int, state: Solved, x_mw: F64, left_mw: F64, scale_w: F64 | None, tolerance: float) -> F64:
        """Conjugate gradients of every voxel at once, in place, until √(rᵀ A_c⁻¹ r) is below so much of what it was at first;
        returns that. A voxel that is done stays as it is, whatever the others need."""
        inverse, by_bw = self.inverses[k], state.weighed_bw - self.systems.weigh(self.delta_b[:, None])
        change = partial(self.systems.change_near, k, by_bw, self.delta_b)
        z = inverse @ left_mw
        rz = np.einsum("mw,mw->w", left_mw, z)
        scale = np.sqrt(np.maximum(rz, 0.0)) if scale_w is None else scale_w
        enough = (tolerance * scale) ** 2
        p, at_centre = z, left_mw.copy()  # A_c p
        for _ in range(_MOST_STEPS):
            going = rz > enough
            if not going.any():
                break
            times = change(p, at_centre)
            times += at_centre
            curvature = np.einsum("mw,mw->w", p, times)
            step = np.divide(rz, curvature, out=np.zeros_like(rz), where=going & (curvature > 0))
            x_mw += step * p
            times *= step
            left_mw -= times
            z = inverse @ left_mw
            after = np.einsum("mw,mw->w", left_mw, z)
            ratio = np.divide(after, rz, out=np.zeros_like(rz), where=going & (rz > 0))
            p *= ratio
            p += z
            at_centre *= ratio
            at_centre += left_mw
            rz = np.where(going, after, rz)
        return scale


class CellReader(Reader):
    """Reads the tiles of a cell's voxels. A cell of few voxels is one tile, since products like to be wide: its folds then are
    done by several threads, otherwise its tiles."""

    def __init__(self, cell: Cell, targets: Targets, skip_nan: bool, columns: NDArray[np.intp]) -> None:
        self.cell, systems, grams = cell, cell.systems, cell.systems.grams
        folds, item, n, threads = range(len(systems.rows)), grams.problem.X.dtype.itemsize, systems.n, available_threads()
        state = 8 * (sum(5 * systems.size(k) for k in folds) + 2 * n) + item * n
        most = min(_WIDEST, max(16, _STATE_BYTES // state // 16 * 16))
        width = tile_width(len(columns), most) if len(columns) > most else max(16, -(-len(columns) // 16) * 16)
        now = 8 * (6 * max(map(systems.size, folds)) + (len(grams.bands) + 2) * n * grams.dual) + 16 * READ_ROWS
        kept = grams.nbytes + systems.nbytes + sum(inverse.nbytes for inverse in cell.inverses)
        super().__init__(grams.problem, grams.root_t, targets, skip_nan, (width, width * (2 * state + now), kept), columns)
        self.inside = max(1, threads // self.workers)

    def responses(self, slab: NDArray[Any], inside: Any, here: Any) -> tuple[F64, F64]:
        """Responses about their means (n, w), without the roots of weights, and those means (w,)."""
        y_tw, mean_w = self.read(slab, inside, here)
        return y_tw[:, : len(mean_w)] / self.root[:, None], mean_w

    def each_fold(self, job: Callable[[int], T]) -> list[T]:
        """Do a job for every fold, in the threads that tiles leave over."""
        folds = range(len(self.cell.inverses))
        return together([partial(job, k) for k in folds], self.inside) if self.inside > 1 else [job(k) for k in folds]
