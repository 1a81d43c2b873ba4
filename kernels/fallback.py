"""Plain NumPy for an op whose compiled kernel is not there: the same arguments and results, more memory traffic.

Legend: k = nodes (predictions of one tile at several penalties), t = time, v = voxels of the tile, m = moments, s = series:
the target and its k predictions. The checks of arguments serve the compiled kernel, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_moments", "moments", "rows_that_count"]

Float = NDArray[np.float32] | NDArray[np.float64]


def check_moments(target: tuple[int, ...], predicted: tuple[int, ...], out: tuple[int, ...]) -> None:
    """``ValueError`` where the shapes of the arguments of ``moments`` do not fit together."""
    if predicted[1:] != target:
        raise ValueError(f"moments: predictions are {predicted}, targets {target}; give equal shapes after the axis of nodes")
    series = predicted[0] + 1
    wanted = (series + series * (series + 1) // 2, target[1])
    if out != wanted:
        raise ValueError(f"moments: out is {out}, it must be {wanted} for {predicted[0]} nodes")


def rows_that_count(weight_t: Any, n: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64], float]:
    """The rows of positive weight, their weights, the square roots of these, and the sum; ``ValueError`` for bad weights."""
    weight_t = np.asarray(weight_t, dtype=np.float64)
    if weight_t.shape != (n,):
        raise ValueError(f"moments: weights have shape {weight_t.shape}; give one for each of the {n} rows")
    bad = np.flatnonzero(~(np.isfinite(weight_t) & (weight_t >= 0)))
    if len(bad):
        raise ValueError(f"moments: the weight of row {bad[0]} is {weight_t[bad[0]]}; give finite weights of at least 0")
    rows = np.flatnonzero(weight_t)
    if n > 0 and len(rows) == 0:
        raise ValueError("moments: every weight is 0; give some row a positive weight")
    weight_t = weight_t[rows]
    return rows, weight_t, np.sqrt(weight_t), float(weight_t.sum())


def moments(
    target_tv: Float, predicted_ktv: Float, weight_t: Any = None, out_mv: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Per-voxel moments of a tile; see ``moments.pyx`` for the contract."""
    (n, v), k = target_tv.shape, len(predicted_ktv)
    out = np.empty(((k + 1) * (k + 4) // 2, v)) if out_mv is None else out_mv
    check_moments((n, v), predicted_ktv.shape, out.shape)
    keep, total = None, float(n)
    if weight_t is not None:
        keep, weight, root, total = rows_that_count(weight_t, n)
    if n == 0 or v == 0:
        out[:] = 0.0
        return out
    z_stv = np.empty((k + 1, n if keep is None else len(keep), v))
    products = iter(out[k + 1 :])
    for s, values_tv in enumerate((target_tv, *predicted_ktv)):
        used_tv = values_tv if keep is None else values_tv[keep]
        z_tv = np.subtract(used_tv, used_tv[0], dtype=np.float64, out=z_stv[s])
        mean = z_tv.mean(axis=0) if keep is None else weight @ z_tv / total
        z_tv -= mean
        if keep is not None:
            z_tv *= root[:, None]
        out[s] = used_tv[0] + mean
        for other_tv in z_stv[: s + 1]:
            np.einsum("tv,tv->v", z_tv, other_tv, out=next(products))
    return out
