"""The compiled loops: one CPU kernel for each op, with its CUDA twin where there is one. Imports nothing of ours.

    op        CPU kernel                     CUDA kernel     without the compiled extension
    moments   moments.pyx (Cython, C++)      moments.cu      fallback.moments (NumPy)
    product   product.pyx (Cython, C++)      none            fallback.product (NumPy)
    shrunk    product.pyx (Cython, C++)      none            fallback.shrunk (NumPy)
    lanczos   lanczos.py (Numba)             lanczos.cu      the same: Numba compiles it on first use
    hrf       hrf.py (Numba)                 hrf.cu          the same

``cpu(op)`` returns the function, importing it on first use. ``lost(op)`` returns why the fallback is in use and what that costs,
or None. ``cuda_source(op)`` returns CUDA C++ that needs no other file. Twins share a stem, argument names and argument order.

Environment: ``FASTENCODE_NO_EXT=1`` never loads a compiled extension; ``FASTENCODE_REQUIRE_EXT=1`` makes its absence an error;
``FASTENCODE_NO_TILES=1`` leaves float32 products to BLAS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["OPS", "cpu", "cuda_source", "has_tiles", "lost"]


class Op(NamedTuple):
    """Where the kernels of one op live: CPU module and function, CUDA source, and the cost of a missing extension.

    ``cost`` is None for Numba ops: a Python module needs no build, so there is no fallback to time or warn of.
    """

    module: str
    function: str
    cuda: str | None
    cost: str | None


OPS = {
    "moments": Op("moments", "moments", "moments.cu", "scores are reduced with plain NumPy, which is several times slower"),
    "product": Op("product", "product", None, "float32 products never use a processor's matrix tiles"),
    "shrunk": Op("product", "shrunk", None, "float32 products never use a processor's matrix tiles"),
    "lanczos": Op("lanczos", "lanczos_columns", "lanczos.cu", None),
    "hrf": Op("hrf", "hrf_columns", "hrf.cu", None),
}


def _flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def _op(op: str) -> Op:
    if op not in OPS:
        raise KeyError(f"no kernel named {op!r}; pass one of {', '.join(OPS)}")
    return OPS[op]


@cache
def _load(op: str) -> tuple[Callable[..., Any], str | None]:
    found = _op(op)
    if found.cost is None:
        return getattr(import_module(f"{__name__}.{found.module}"), found.function), None
    if _flag("FASTENCODE_NO_EXT"):
        reason = "FASTENCODE_NO_EXT is set"
    else:
        try:
            return getattr(import_module(f"{__name__}.{found.module}"), found.function), None
        except ImportError as error:
            reason = f"the compiled extension fastencode.kernels.{found.module} could not be loaded ({error})"
    if _flag("FASTENCODE_REQUIRE_EXT"):
        raise ImportError(
            f"{reason}, and FASTENCODE_REQUIRE_EXT demands it: build it with 'pip install .' where a C++ compiler is present, "
            "or unset FASTENCODE_REQUIRE_EXT to run the slower fallback"
        )
    fallback = getattr(import_module(f"{__name__}.fallback"), found.function)
    return fallback, f"{reason}: {found.cost}"


def cpu(op: str) -> Callable[..., Any]:
    """The CPU kernel of an op: compiled, or its fallback.

    Raises
    ------
    ImportError
        If the extension is missing and ``FASTENCODE_REQUIRE_EXT`` is set.
    """
    return _load(op)[0]


def lost(op: str) -> str | None:
    """Why the fallback of an op is in use and what that costs; None where the compiled kernel is in use."""
    return _load(op)[1]


def has_tiles() -> bool:
    """Whether ``product`` and ``shrunk`` run on matrix tiles here. Where they do not, BLAS is faster."""
    return lost("product") is None and not _flag("FASTENCODE_NO_TILES") and bool(import_module(f"{__name__}.product").has_tiles())


def cuda_source(op: str) -> str:
    """CUDA C++ of an op with its own headers written in, ready for NVRTC or CuPy's ``RawModule``.

    Raises
    ------
    KeyError
        If the op has no CUDA kernel.
    """
    found = _op(op)
    if found.cuda is None:
        raise KeyError(f"the op {op!r} has no CUDA kernel")
    folder = files(__name__)
    source = folder.joinpath(found.cuda).read_text(encoding="utf-8")
    return re.sub(
        r'^#include "([^"]+)"$', lambda match: folder.joinpath(match[1]).read_text(encoding="utf-8"), source, flags=re.MULTILINE
    )
