"""The products of the loop over tiles: on the processor's matrix tiles where it has them, else BLAS; or on a device.

Float64 is always BLAS. Float32 numbers on matrix tiles are sums of bfloat16 parts (``kernels/product_tiles.hpp``). With three
parts the error of a product xy is below 2 · 2⁻²⁴ |x||y|, as in float32 arithmetic. With two parts it is below 3 · 2⁻¹⁶ |x||y|:
those serve held-out predictions only, and only with ``precision="fast"``. See docs/solver.md, 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastencode import kernels
from fastencode.devices import Array, Device

__all__ = ["Get", "Multiply", "Products", "products_for", "products_there"]


class Get(Protocol):
    """A buffer of this name and shape, with any values in it: the same memory each time."""

    def __call__(self, name: str, *shape: int, dtype: np.dtype[Any]) -> NDArray[Any]: ...


class Multiply(Protocol):
    """numpy.matmul(a, b, out=out)."""

    def __call__(self, a: Array, b: Array, out: NDArray[Any], /) -> NDArray[Any]: ...


class Shrunk(Protocol):
    """``kernels.cpu("shrunk")``, see ``kernels/product.pyx``: rows @ diag(g_j) @ coordinates at every node j, into ``out``."""

    def __call__(
        self,
        rows: NDArray[Any],
        coordinates: NDArray[Any],
        ends: NDArray[np.intp],
        counts: NDArray[np.intp],
        curves: NDArray[Any],
        mix: NDArray[Any] | None,
        out: NDArray[Any],
        /,
    ) -> object: ...


@dataclass(frozen=True)
class Products:
    """How to multiply.

    Attributes
    ----------
    multiply : (a, b, out) -> out
        ``numpy.matmul(a, b, out=out)``: ``a`` and ``b`` were returned by ``put``, or are transposes of that; ``out`` lies in the
        host's memory.
    shrunk : callable or None
        ``kernels.cpu("shrunk")``; None where plain products of segments are faster.
    name : str
        How ``str(plan)`` and ``fit.stats`` call it.
    put : (matrix) -> matrix
        Puts a matrix where products are made.
    """

    multiply: Multiply
    shrunk: Shrunk | None
    name: str = "BLAS"
    put: Callable[[NDArray[Any]], Array] = lambda matrix: matrix


def products_for(dtype: np.dtype[Any], fast: bool = False) -> Products:
    """The fastest on this machine for a dtype; ``fast`` allows float32 products of reduced precision."""
    if dtype != np.float32 or not kernels.has_tiles():
        return Products(lambda a, b, out: np.matmul(a, b, out=out), None)
    parts = 2 if fast else 3
    name = f"matrix tiles, {parts} bfloat16 parts to a number"
    return Products(partial(kernels.cpu("product"), parts=parts), partial(kernels.cpu("shrunk"), parts=parts), name)


def products_there(device: Device, dtype: np.dtype[Any]) -> Products:
    """Products of a dtype on a device, in full precision.

    Torch has one precision for the whole process. Whoever starts threads that multiply sets it for all of them, with
    ``device.precision``.
    """

    def put(matrix: NDArray[Any]) -> Array:
        with device.current():
            return device.put(matrix)

    def multiply(a: Array, b: Array, out: NDArray[Any]) -> NDArray[Any]:
        with device.current(), device.precision(dtype, False):
            # out[...] = a @ b
            out[...] = device.get(device.xp.matmul(a, b))
        return out

    return Products(multiply, None, device.name, put)
