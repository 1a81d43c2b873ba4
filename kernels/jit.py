"""Numba's decorator as every kernel here uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["njit"]


def njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, serial and without the GIL, and keep the machine code on disk where some folder can be written.

    Numba raises at decoration when neither the package's folder nor the user's cache folder is writable (read-only containers);
    then each process compiles anew, which costs about a second for each kernel.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return numba.njit(**options)(function)
