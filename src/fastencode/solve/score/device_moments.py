"""Moments of a tile where the tile lies: the kernel of ``kernels/moments.cu`` on a card, array functions elsewhere.

The contract is that of ``kernels/moments.pyx``.

Legend: k = nodes, t = time, v = voxels of the tile, m = moments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastencode.devices import Array, Device
from fastencode.launch import cuda_kernel, float_name

__all__ = ["device_moments", "moments_by"]

_THREADS = 128
_SIDE = 4  # MOMENTS_SIDE of the kernel: series in a tile of pairs


def device_moments(device: Device, target_tv: Array, predicted_ktv: Array, weight_t: Array | None = None) -> Array:
    """Moments of a tile, (m, v) float64 on the device.

    Parameters
    ----------
    device : Device
    target_tv : (t, v) float32 or float64
        At least one row; on a card the voxel axis is contiguous.
    predicted_ktv : (k, t, v), same dtype
    weight_t : (t,) float64, optional
        Positive weights.
    """
    k, _, v = predicted_ktv.shape
    out = device.empty((k + 1) * (k + 4) // 2, v, dtype=np.float64)
    kernel = cuda_kernel(device, "moments")
    if v == 0:
        return out
    if kernel is None:
        _by_arithmetic(device, target_tv, predicted_ktv, weight_t, out)
    else:
        arguments = (target_tv, predicted_ktv, weight_t, out, *_sizes(device, target_tv, predicted_ktv))
        kernel.launch(float_name(device, target_tv), *_grid(k, v), arguments)
    return out


def moments_by(device: Device) -> str:
    """What computes moments there, for the account that a fit gives."""
    kernel = cuda_kernel(device, "moments")
    return f"array functions of {device.library}" if kernel is None else kernel.by


def _by_arithmetic(device: Device, target_tv: Array, predicted_ktv: Array, weight_t: Array | None, out_mv: Array) -> None:
    """The same in array functions and float64: relative to the first row, then centered."""
    xp, (k, n, _) = device.xp, predicted_ktv.shape
    total = float(n) if weight_t is None else xp.sum(weight_t)
    root = None if weight_t is None else xp.sqrt(weight_t)[:, None]
    centered, at = [], k + 1
    for s in range(k + 1):
        values = device.cast(target_tv if s == 0 else predicted_ktv[s - 1, ...], np.float64)
        first = values[0, ...]
        z_tv = values - first
        mean = (xp.sum(z_tv, axis=0) if weight_t is None else weight_t @ z_tv) / total
        z_tv = z_tv - mean
        centered.append(z_tv if root is None else z_tv * root)
        out_mv[s, ...] = first + mean
        for other in centered:
            out_mv[at, ...] = xp.sum(centered[s] * other, axis=0)
            at += 1


def _sizes(device: Device, target_tv: Any, predicted_ktv: Any) -> list[int]:
    """Sizes and steps in values, as the kernel takes them: libraries have names of their own for steps."""
    if device.library == "cupy":
        item = target_tv.itemsize
        steps = [s // item for s in (target_tv.strides[0], *predicted_ktv.strides[:2])]
    else:
        steps = [target_tv.stride(0), predicted_ktv.stride(0), predicted_ktv.stride(1)]
    return [*map(int, predicted_ktv.shape), *map(int, steps)]


def _grid(k: int, v: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Blocks over voxels and over tiles of pairs, and threads of a block."""
    blocks = (k + _SIDE) // _SIDE
    return (min(-(-v // _THREADS), 65535), blocks * (blocks + 1) // 2, 1), (_THREADS, 1, 1)
