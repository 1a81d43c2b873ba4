"""Plain NumPy for ops whose compiled kernels are missing: the same arguments and results, with more memory traffic.

Legend: k = nodes (predictions of one tile at several penalties), t = time, v = voxels of the tile, m = moments, s = series:
the target and its k predictions. The compiled kernels check their arguments with the functions here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_moments", "check_product", "check_shrunk", "moments", "product", "rows_that_count", "shrunk"]

Float = NDArray[np.float32] | NDArray[np.float64]


def check_moments(target: tuple[int, ...], predicted: tuple[int, ...], out: tuple[int, ...]) -> None:
    """``ValueError`` where the shapes of the arguments of ``moments`` do not fit together."""
    if predicted[1:] != target:
        raise ValueError(f"moments: predictions are {predicted}, targets {target}; give equal shapes after the axis of nodes")
    series = predicted[0] + 1
    wanted = (series + series * (series + 1) // 2, target[1])
    if out != wanted:
        raise ValueError(f"moments: out is {out}, it must be {wanted} for {predicted[0]} nodes")


def rows_that_count(weight_t: ArrayLike, n: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64], float]:
    """(rows of positive weight, their weights, the square roots of these, sum of the weights); ``ValueError`` for bad weights."""
    weight_t = np.asarray(weight_t, dtype=np.float64)
    if weight_t.shape != (n,):
        raise ValueError(f"moments: weights have shape {weight_t.shape}; give one for each of the {n} rows")
    bad = np.flatnonzero(~(np.isfinite(weight_t) & (weight_t >= 0)))
    if len(bad):
        raise ValueError(f"moments: the weight of row {bad[0]} is {weight_t[bad[0]]}; give finite weights of at least 0")
    rows = np.flatnonzero(weight_t)
    if n > 0 and len(rows) == 0:
        raise ValueError("moments: every weight is 0; give at least one row a positive weight")
    weight_t = weight_t[rows]
    return rows, weight_t, np.sqrt(weight_t), float(weight_t.sum())


def moments(
    target_tv: Float,
    predicted_ktv: Float,
    weight_t: ArrayLike | None = None,
    out_mv: NDArray[np.float64] | None = None,
    crossed: bool = True,
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
        for other, other_tv in enumerate(z_stv[: s + 1]):
            row = next(products)
            if crossed or other in (0, s):
                np.einsum("tv,tv->v", z_tv, other_tv, out=row)
            else:
                row[:] = 0.0
    return out


def check_product(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...], parts: int) -> None:
    """``ValueError`` where the arguments of ``product`` do not fit together."""
    if not (len(left) == len(right) == 2 and left[1] == right[0] and out == (left[0], right[1])):
        raise ValueError(f"product: factors are {left} and {right}, out is {out}; give (m, k), (k, n) and (m, n)")
    if parts not in (2, 3):
        raise ValueError(f"product: parts is {parts}; give 2 or 3")


def product(left_mk: Float, right_kn: Float, out_mn: Float, parts: int = 3) -> Float:
    """left @ right; see ``product.pyx`` for the contract."""
    check_product(left_mk.shape, right_kn.shape, out_mn.shape, parts)
    # out = left @ right
    return np.matmul(left_mk, right_kn, out=out_mn)


def check_shrunk(
    rows: tuple[int, ...],
    inner: tuple[int, ...],
    ends: NDArray[np.intp],
    counts: NDArray[np.intp],
    curves: tuple[int, ...],
    mix: tuple[int, ...] | None,
    out: tuple[int, ...],
    parts: int,
) -> None:
    """``ValueError`` where the arguments of ``shrunk`` do not fit together."""
    if not (len(rows) == len(inner) == 2 and len(out) == 3 and rows[1] == inner[0] and out[1:] == (rows[0], inner[1])):
        raise ValueError(f"shrunk: rows are {rows}, coordinates {inner}, out is {out}; give (m, r), (r, n) and (k, m, n)")
    if len(ends) != len(counts) + 1 or ends[0] != 0 or ends[-1] != inner[0] or (np.diff(ends) < 1).any() or (counts < 0).any():
        raise ValueError(f"shrunk: segments end at {ends} with {counts} curves; give increasing ends from 0 to {inner[0]}")
    wanted = (out[0], int(counts.sum()))
    if curves != (int((np.diff(ends) * counts).sum()),) or (wanted[0] != wanted[1] if mix is None else mix != wanted):
        raise ValueError(f"shrunk: curves are {curves} and the mix is {mix}; give every curve of every segment, and {wanted}")
    if mix is None and len(counts) != 1:
        raise ValueError(f"shrunk: {len(counts)} segments and no mix; give the mix")
    if parts not in (2, 3):
        raise ValueError(f"shrunk: parts is {parts}; give 2 or 3")


def shrunk(
    rows_mr: Float,
    inner_rn: Float,
    ends: NDArray[np.intp],
    counts: NDArray[np.intp],
    curves: Float,
    mix_kq: Float | None,
    out_kmn: Float,
    parts: int = 3,
) -> Float:
    """out[j] = rows @ diag(g_j) @ inner at every node j; see ``product.pyx`` for the contract."""
    mix = None if mix_kq is None else mix_kq.shape
    check_shrunk(rows_mr.shape, inner_rn.shape, ends, counts, curves.shape, mix, out_kmn.shape, parts)
    made, place = [], 0
    for start, stop, count in zip(ends[:-1], ends[1:], counts, strict=True):
        for _ in range(count):
            made.append(rows_mr[:, start:stop] @ (curves[place : place + stop - start, None] * inner_rn[start:stop]))
            place += stop - start
    out_kmn[...] = made if mix_kq is None else np.einsum("kq,qmn->kmn", mix_kq, np.array(made), optimize=True)
    return out_kmn
