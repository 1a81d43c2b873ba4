"""The products of the loop over tiles: on the processor's matrix tiles where it has them, else BLAS; or on a device.

Float64 is always BLAS. Float32 is as exact one way as the other (``kernels/product_tiles.hpp``); with ``precision="fast"``
held-out predictions are made of products that may be off by 2⁻¹⁶, where there are matrix tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode import kernels
from fastencode.devices import Device

__all__ = ["Products", "products_for", "products_there"]


@dataclass(frozen=True)
class Products:
    """How to multiply.

    Attributes
    ----------
    multiply : (left, right, out) -> out
        Two matrices that were put in place, or transposes of them, into one in the host's memory.
    put : (matrix) -> matrix
        Puts it where products are made.
    shrunk : callable or None
        ``kernels.cpu("shrunk")``; None where plain products of segments are faster.
    name : str
        What to say of it.
    """

    multiply: Callable[[Any, Any, NDArray[Any]], NDArray[Any]]
    shrunk: Callable[..., Any] | None
    name: str = "BLAS"
    put: Callable[[NDArray[Any]], Any] = lambda matrix: matrix


def products_for(dtype: np.dtype[Any], fast: bool = False) -> Products:
    """What is fastest for a dtype on this machine; ``fast`` allows float32 products of reduced precision."""
    if dtype != np.float32 or not kernels.has_tiles():
        return Products(lambda left, right, out: np.matmul(left, right, out=out), None)
    parts = 2 if fast else 3
    name = f"matrix tiles, {parts} bfloat16 parts to a number"
    return Products(partial(kernels.cpu("product"), parts=parts), partial(kernels.cpu("shrunk"), parts=parts), name)


def products_there(device: Device, dtype: np.dtype[Any]) -> Products:
    """Products of a dtype on a device, in full precision. Torch has one precision for the whole process: who starts threads sets
    it for all of them, with ``device.precision``."""

    def put(matrix: NDArray[Any]) -> Any:
        with device.current():
            return device.put(matrix)

    def multiply(left: Any, right: Any, out: NDArray[Any]) -> NDArray[Any]:
        with device.current(), device.precision(dtype, False):
            out[...] = device.get(device.xp.matmul(left, right))
        return out

    return Products(multiply, None, device.name, put)
