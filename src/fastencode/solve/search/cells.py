"""Systems of voxels whose penalties are near each other: one inverse for each fold, then conjugate gradients for each voxel.

The algebra is in docs/solver.md, section 7 (cells, correction). Voxels whose log δ lie in one cell share the inverse A_c⁻¹ at its
centre. It preconditions the conjugate gradients of every voxel: the spectrum of A_c⁻¹ A lies within e^±d, d the largest
|log δ − log δ_c|. Cells lie on a fixed lattice, so the result of a voxel does not depend on which other voxels there are.

Systems, inverses and tiles lie on the device (or the host, ``devices.HOST``); responses and results on the host.

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
from fastencode.devices import HOST, Array, Device
from fastencode.errors import DeviceError, warn
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.cholesky import invert_positive
from fastencode.solve.plan.grams import Grams
from fastencode.solve.score.moments import score_slopes
from fastencode.solve.score.tiles import READ_ROWS, Reader, tile_width
from fastencode.solve.search.systems import Systems, traces
from fastencode.threads import available_threads, limit_threads, together

__all__ = ["CELL", "Cell", "CellReader", "Solved", "as_good_as_off", "by_cells", "warn_unsolved"]

T = TypeVar("T")
# Width of a cell in log δ.
CELL = 3.0
# A band with δ_b trace(K_b) below this is as good as off: cells take δ_b for this value.
_OFF = 0.05
# The most steps of conjugate gradients. With a spectrum within e^±3 the bound for 8 digits is 192 steps; 60 are usual.
_MOST_STEPS = 200
# Most voxels of a tile, and most bytes of what all folds keep for it: on the host, and on a device. A device out of memory halves
# tiles down to the third.
_WIDEST, _STATE_BYTES = 256, 2**29
_WIDEST_THERE, _STATE_BYTES_THERE, _NARROWEST = 4096, 2**32, 16


def as_good_as_off(grams: Grams) -> F64:
    """(b, 1): log δ below which a band is as good as off."""
    return np.asarray(np.log(_OFF) - np.log(traces(grams))[:, None])


def by_cells(grams: Grams, at_bv: F64, columns: NDArray[np.intp]) -> list[tuple[F64, NDArray[np.intp]]]:
    """(log δ of the centre (b,), its voxels) of every cell that holds any voxel of ``columns``; ``at_bv`` is log δ of all."""
    lattice = np.floor(np.maximum(at_bv[:, columns], as_good_as_off(grams)) / CELL).astype(np.int64)
    each, which = np.unique(lattice, axis=1, return_inverse=True)
    return [((cell + 0.5) * CELL, columns[which.reshape(-1) == i]) for i, cell in enumerate(each.T)]


@dataclass(eq=False)
class Solved:
    """The solutions of one fold for the voxels of a tile: the next δ starts from them. Arrays of the device.

    Attributes
    ----------
    weighed_bw : (b, w)
        ``Systems.weigh`` of the δ that was solved for last.
    x_mw, r_mw : (m, w)
        Weights ω or θ, and the residual r = y − A x of their system.
    scale_w : (w,) or None
        √(rᵀ A_c⁻¹ r) at the first start, which tolerances count from; None before.
    adjoint_mw, h_mw, h_r_mw, h_scale_w
        The right side of the adjoint system; its solution, residual and scale.
    unsolved_w : (w,) or None
        √(rᵀ A_c⁻¹ r) / ``scale_w`` of the weights where conjugate gradients ended above the tolerance, 0 elsewhere.
    """

    weighed_bw: Array
    x_mw: Array
    r_mw: Array
    scale_w: Array | None = None
    adjoint_mw: Array | None = None
    h_mw: Array | None = None
    h_r_mw: Array | None = None
    h_scale_w: Array | None = None
    unsolved_w: Any = None

    def take(self, columns: Array, device: Device) -> Solved:
        """The solutions of some voxels."""
        some: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            array = getattr(self, name)
            some[name] = None if array is None else device.take(array, columns, axis=array.ndim - 1)
        return Solved(**some)


@dataclass(eq=False)
class Cell:
    """Inverses of all folds at one δ, for all voxels near it.

    Attributes
    ----------
    systems : Systems
    delta_b : (b,) float64
    inverses : list of (m, m) float64 arrays of the systems' device
    """

    systems: Systems
    delta_b: F64
    inverses: list[Array] = field(default_factory=list)

    @classmethod
    def at(cls, systems: Systems, delta_b: F64) -> Cell:
        """Invert the systems of all folds, one after another, each with all threads."""
        with limit_threads(available_threads()):
            folds = range(len(systems.rows))
            return cls(systems, delta_b, [invert_positive(systems.device, systems.matrix(k, delta_b)) for k in folds])

    def start(self, k: int, y_nw: Array) -> Solved:
        """The start of a fold: x = 0 and r = the right side."""
        systems, xp = self.systems, self.systems.device.xp
        right = systems.right(k, systems.about_mean(k, y_nw))
        weighed = systems.device.zeros(len(self.delta_b), right.shape[1], dtype=np.float64) + self._weighed()
        return Solved(weighed, xp.zeros_like(right), 1.0 * right)

    def _weighed(self) -> Array:
        """(b, 1): ``Systems.weigh`` of the δ at the cell's centre."""
        return self.systems.weigh(self.systems.device.put(self.delta_b[:, None]))

    def solve(self, k: int, delta_bw: Array, state: Solved, tolerance: float) -> None:
        """Solve for the weights of voxels at their δ, starting from the last solution."""
        weighed = self.systems.weigh(delta_bw)
        if state.scale_w is not None:
            by_bw = weighed - state.weighed_bw
            # r = y - A(δ) @ x at the new δ; the same for h
            state.r_mw -= self.systems.change(k, by_bw, state.x_mw)
            if state.h_mw is not None:
                state.h_r_mw -= self.systems.change(k, by_bw, state.h_mw)
        state.weighed_bw = weighed
        state.scale_w, state.unsolved_w = self._gradients(k, state, state.x_mw, state.r_mw, state.scale_w, tolerance)

    def refresh(self, k: int, y_nw: Array, state: Solved) -> None:
        """Compute the residual anew: what conjugate gradients update from step to step drifts from it by rounding."""
        systems = self.systems
        # r = y - A @ x
        state.r_mw = systems.right(k, systems.about_mean(k, y_nw)) - systems.fixed(k, state.x_mw)
        state.r_mw -= systems.change(k, state.weighed_bw, state.x_mw)

    def score(self, k: int, y_nw: Array, scoring: str, state: Solved) -> tuple[Array, Array, Any]:
        """(score (w,), ∂score/∂predictions (q, w), what :meth:`Systems.slope` reuses) of one fold at its solved weights."""
        systems, rows = self.systems, self.systems.there[k]
        predicted, kept = systems.predict(k, state.weighed_bw, state.x_mw)
        y_qw = systems.device.take(y_nw, rows.test) - systems.mean(k, y_nw)
        return *score_slopes(systems.device, scoring, y_qw, predicted, rows.weights_q), kept

    def slope(self, k: int, y_nw: Array, scoring: str, state: Solved, tolerance: float) -> tuple[Array, Array]:
        """(score (w,), ∂score/∂log δ (b, w)) of one fold. The score has hᵀr added: what the weights' residual costs it, to first
        order (docs/solver.md, section 7). An adjoint that is not solved to the tolerance costs digits of the slope only."""
        systems, weighed = self.systems, state.weighed_bw
        scores, s_qw, kept = self.score(k, y_nw, scoring, state)
        right = systems.adjoint(k, weighed, s_qw)
        if state.h_mw is None:
            state.h_mw, state.h_r_mw = systems.device.xp.zeros_like(right), 1.0 * right
        else:
            state.h_r_mw += right - state.adjoint_mw
        state.adjoint_mw = right
        state.h_scale_w, _ = self._gradients(k, state, state.h_mw, state.h_r_mw, state.h_scale_w, tolerance)
        scores = scores + systems.device.dots(state.h_mw, state.r_mw)
        return scores, systems.slope(k, weighed, kept, s_qw, state.h_mw)

    def _gradients(
        self, k: int, state: Solved, x_mw: Array, r_mw: Array, scale_w: Array | None, tolerance: float
    ) -> tuple[Array, Array]:
        """Preconditioned conjugate gradients for all voxels of a tile at once, ``x_mw`` and ``r_mw`` in place, until
        √(rᵀ A_c⁻¹ r) is at most ``tolerance`` times its value at the first start; a solved voxel is left as it is.

        Returns
        -------
        scale_w : (w,)
            √(rᵀ A_c⁻¹ r) at the first start: ``scale_w``, or where that is None, now.
        unsolved_w : (w,)
            What is left of it after 200 steps, √(rᵀ A_c⁻¹ r) / scale; 0 for solved voxels.

        Notes
        -----
        Letters are the textbook's: search directions p, preconditioned residual z, gamma = rᵀz, step alpha, beta. A p is made as
        A_c p + (A − A_c) p, and A_c p without a product, by the recurrence of p: A_c z = r, so A_c p = r + beta A_c p.
        """
        device, xp = self.systems.device, self.systems.device.xp
        inverse, by_bw = self.inverses[k], state.weighed_bw - self._weighed()
        z = inverse @ r_mw
        gamma = device.dots(r_mw, z)
        zero, one = xp.zeros_like(gamma), xp.ones_like(gamma)
        scale = xp.sqrt(xp.where(gamma > 0, gamma, zero)) if scale_w is None else scale_w
        enough = (tolerance * scale) ** 2
        p, centre_p = z, 1.0 * r_mw  # centre_p is A_c @ p
        for _ in range(_MOST_STEPS):
            going = gamma > enough
            if not bool(xp.any(going)):
                break
            # mat_p = A @ p
            mat_p = self.systems.change_near(k, by_bw, self.delta_b, p, centre_p)
            mat_p += centre_p
            curvature = device.dots(p, mat_p)
            usable = going & (curvature > 0)
            alpha = xp.where(usable, gamma / xp.where(usable, curvature, one), zero)
            x_mw += alpha * p
            mat_p *= alpha
            r_mw -= mat_p
            # z = A_c⁻¹ @ r
            z = inverse @ r_mw
            gamma_new = device.dots(r_mw, z)
            usable = going & (gamma > 0)
            beta = xp.where(usable, gamma_new / xp.where(usable, gamma, one), zero)
            p *= beta
            p += z
            centre_p *= beta
            centre_p += r_mw
            gamma = xp.where(going, gamma_new, gamma)
        solved = (gamma <= enough) | (scale <= 0)  # False where gamma is NaN
        return scale, xp.where(solved, zero, xp.sqrt(xp.where(solved, zero, gamma)) / xp.where(scale > 0, scale, one))


def warn_unsolved(scores_v: F64, weights_v: F64) -> None:
    """Warn once where conjugate gradients ended above their tolerance; (v,) each, as ``Solved.unsolved_w``."""
    told = [
        f"the {name} of {int((left_v != 0).sum())} voxels (up to {left_v.max():.2g} of the residual is left)"
        for name, left_v in (("held-out scores", scores_v), ("weights", weights_v))
        if (left_v != 0).any()
    ]
    if told:
        warn(
            f"conjugate gradients stopped after {_MOST_STEPS} steps before they solved {' and '.join(told)}. Those are off by "
            "about as much. Standardise the columns of X, or pass larger alphas"
        )


class CellReader(Reader, ABC):
    """Reads a cell's voxels tile by tile and runs :meth:`tile` on each, where the systems lie.

    On the host, the threads take tiles. A cell of few voxels is a single tile, because wide products are faster; threads then
    take its folds. A device takes one wide tile after another.
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
        sizes = (width, width * (2 * state + now), kept)
        super().__init__(grams.problem, np.ones(n), targets, skip_nan, sizes, columns)  # a fold has weights of its own
        if self.device is not HOST:
            self.workers = 1
        self.inside = max(1, threads // self.workers) if self.device is HOST else 1

    def job(self, slab: NDArray[Any], inside: NDArray[np.intp], here: NDArray[np.intp]) -> None:
        """Do one tile; in halves if the device runs out of memory."""
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
        self.device.free_cached()  # after the except block: its error's frames keep arrays alive
        half = len(here) // 2
        for some in (slice(0, half), slice(half, None)):
            self.job(slab, inside[some], here[some])

    @abstractmethod
    def tile(self, y_nw: Array, mean_w: F64, here: NDArray[np.intp]) -> None:
        """Do one tile: responses about their means (n, w), not times the roots of weights; these means; their voxels."""

    def _responses(self, slab: NDArray[Any], inside: NDArray[np.intp], here: NDArray[np.intp]) -> tuple[Array, F64]:
        y_tw, mean_w = self.read(slab, inside, here)
        return self.device.put(y_tw[:, : len(mean_w)].astype(np.float64)), mean_w

    def each_fold(self, job: Callable[[int], T]) -> list[T]:
        """Do a job for every fold, in the threads that tiles do not use."""
        folds = range(len(self.cell.inverses))
        return together([partial(job, k) for k in folds], self.inside) if self.inside > 1 else [job(k) for k in folds]
