"""Numba's compiler with the options of all kernels here, and a prefetch instruction, which Numba has none of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.cgutils import int32_t, voidptr_t
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

__all__ = ["njit", "prefetch"]


def njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, serial and without the GIL, and keep the machine code in a cache folder.

    ``contract`` lets the processor fuse a product and a sum, a * b + c, with a single rounding. No other operation is reordered.
    Numba raises at decoration where neither the package's folder nor the user's cache folder can be written (read-only
    containers). Each process then compiles anew, which takes about a second for each kernel.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return numba.njit(**options)(function)


@intrinsic
def prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """``prefetch(array, row, column)`` in a kernel: start to load the line of ``array[row, column]`` into the second-level cache.

    The loop does not wait for it, and its own data stay in the first-level cache. The value is not read, so ``row`` and
    ``column`` may lie outside the array.
    """

    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0])
        row = builder.mul(arguments[1], builder.extract_value(data.strides, 0))
        start = builder.gep(builder.bitcast(data.data, voidptr_t), [row])
        address = builder.gep(start, [builder.mul(arguments[2], data.itemsize)])
        kind = ir.FunctionType(ir.VoidType(), [voidptr_t, int32_t, int32_t, int32_t])
        function = builder.module.declare_intrinsic("llvm.prefetch", [voidptr_t], kind)
        builder.call(function, [address, int32_t(0), int32_t(2), int32_t(1)])  # to read, to the second level, data
        return context.get_dummy_value()

    return numba.types.void(array, numba.types.intp, numba.types.intp), generate
