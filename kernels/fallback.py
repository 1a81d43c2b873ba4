"""Plain NumPy for an op whose compiled kernel is not there: the same arguments and results, more memory traffic.

Legend: t = time, v = voxels of the tile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["moments"]

Float = NDArray[np.float32] | NDArray[np.float64]


def moments(target_tv: Float, predicted_tv: Float, out_mv: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Per-voxel moments of a tile; see ``moments.pyx`` for the contract."""
    if target_tv.shape != predicted_tv.shape:
        raise ValueError(f"moments: predictions are {predicted_tv.shape}, targets {target_tv.shape}; give equal shapes")
    n, v = target_tv.shape
    out = np.empty((5, v)) if out_mv is None else out_mv
    if out.shape != (5, v):
        raise ValueError(f"moments: out is {out.shape}, it must be (5, {v})")
    if n == 0 or v == 0:
        out[:] = 0.0
        return out
    y = np.subtract(target_tv, target_tv[0], dtype=np.float64)
    p = np.subtract(predicted_tv, predicted_tv[0], dtype=np.float64)
    mean_y, mean_p = y.mean(axis=0), p.mean(axis=0)
    y -= mean_y
    p -= mean_p
    out[0] = target_tv[0] + mean_y
    out[1] = predicted_tv[0] + mean_p
    np.einsum("tv,tv->v", y, y, out=out[2])
    np.einsum("tv,tv->v", p, p, out=out[3])
    np.einsum("tv,tv->v", y, p, out=out[4])
    return out
