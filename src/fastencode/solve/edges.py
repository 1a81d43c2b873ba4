"""The warning about a grid of penalties that is too narrow, and about constant voxels: once for each call of this package.

Legend: v = voxels, e = the four ends of a grid (``score/ends.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from fastencode.arrays import F64
from fastencode.errors import warn
from fastencode.solve.score.ends import Cost, Freedom, Seen, cost_of

__all__ = ["Edges", "edges_of_fit", "held_warnings", "tell_edges", "warn_together"]

# All penalties are too small if the largest leaves more degrees of freedom than half the rank and than 5 % of the rows, and more
# than 10 % of the voxels choose it. All are too large if the smallest leaves fewer than .9, and fewer than 10 % of the rank.
_MOST, _MANY, _SOME = 0.5, 0.05, 0.1
_LESS_THAN_ONE, _FEW = 0.9, 0.1


class Edges(NamedTuple):
    """What a grid costs one fit.

    Attributes
    ----------
    cost : Cost
    constant : int
        Voxels that are constant.
    first : int
        The first of these.
    fitted : int
        Voxels that were not skipped.
    smallest, largest : float
        The ends of the grid.
    """

    cost: Cost
    constant: int
    first: int
    fitted: int
    smallest: float
    largest: float


# Edges of the fits made inside held_warnings; None outside of it.
_held: ContextVar[list[Edges] | None] = ContextVar("_held", default=None)


def edges_of_fit(seen: Seen, alphas: F64, *, scoring: str, n_rows: int, shared: bool, freedoms: Sequence[Freedom]) -> Edges:
    """What a grid costs a fit, from its scores at the ends of the grid.

    Parameters
    ----------
    seen : Seen
    alphas : (a,) float64
    scoring : str
    n_rows : int
    shared : bool
        Whether all voxels have one penalty.
    freedoms : sequence of Freedom
        Of the features, or of the weightings of them that were tried. They show, for most of these, a grid that lies beside the
        spectrum altogether.
    """
    ends_ev, edge_v, variance_v, bad_v = seen
    constant_v = (variance_v <= 0) & ~bad_v
    varies_v = ~constant_v & ~bad_v
    cost = Cost()
    if len(alphas) > 1 and varies_v.any() and not np.isnan(ends_ev).all():  # all NaN: penalties were given
        if scoring == "neg_mean_squared_error":
            ends_ev = ends_ev / np.where(varies_v, variance_v, 1.0)
        cost = cost_of(ends_ev, edge_v, varies_v, scoring, n_rows, shared)
        if freedoms:
            low = np.mean([one.smallest < min(_LESS_THAN_ONE, _FEW * one.rank) for one in freedoms]) > 0.5
            high = np.mean([one.largest > max(_MOST * one.rank, _MANY * n_rows) for one in freedoms]) > 0.5
            high &= (edge_v[varies_v] > 0).mean() > _SOME
            cost = cost._replace(all_low=cost.all_low or bool(low), all_high=cost.all_high or bool(high))
    return Edges(
        cost,
        int(constant_v.sum()),
        int(constant_v.argmax()),
        len(bad_v) - int(bad_v.sum()),
        float(alphas[0]),
        float(alphas[-1]),
    )


def tell_edges(edges: Edges, stats: dict[str, Any]) -> None:
    """Note constant voxels in the ``stats`` of a fit, and warn: at once, or later, inside :func:`held_warnings`."""
    stats["constant_voxels"] = edges.constant
    held = _held.get()
    if held is None:
        warn_together([edges])
    else:
        held.append(edges)


@contextmanager
def held_warnings() -> Iterator[list[Edges]]:
    """Collects the edges of all fits made inside, in this thread, for one :func:`warn_together` afterwards."""
    found: list[Edges] = []
    before = _held.set(found)
    try:
        yield found
    finally:
        _held.reset(before)


def warn_together(fits: list[Edges]) -> None:
    """Warn once of constant voxels, and of a grid whose ends cost score in any of the fits."""
    if not fits:
        return
    low, high = sum(one.cost.low for one in fits), sum(one.cost.high for one in fits)
    all_low, all_high = any(one.cost.all_low for one in fits), any(one.cost.all_high for one in fits)
    within = f" in {len(fits)} fits" if len(fits) > 1 else ""
    of = f"of {sum(one.fitted for one in fits)} voxels{within}"
    told = []
    if all_low:
        told.append(
            f"all penalties of the grid seem to be too large{within}, down to the smallest, {fits[0].smallest:.4g}: add smaller "
            "ones to alphas"
        )
    elif low:
        told.append(
            f"{low} {of} score best at the smallest penalty of the grid, {fits[0].smallest:.4g}, and their score still rises "
            "there: add smaller ones to alphas"
        )
    if all_high:
        told.append(
            f"all penalties of the grid seem to be too small{within}, up to the largest, {fits[0].largest:.4g}: add larger ones "
            "to alphas"
        )
    elif high:
        told.append(
            f"{high} {of} score best at the largest penalty of the grid, {fits[0].largest:.4g}, and their score still rises "
            "there: add larger ones to alphas"
        )
    most = max(fits, key=lambda one: one.constant)
    if most.constant:
        told.append(
            f"{most.constant} of {most.fitted} voxels are constant (the first is voxel {most.first}) and score 0: leave them out"
        )
    if told:
        warn(". ".join(one[0].upper() + one[1:] for one in told))
