"""Positive definite matrices: systems solved without the interpreter's lock, and inverses on the host or a device.

The systems are those of docs/solver.md, 3; the inverses are those of sections 3 (blocks of folds) and 7 (cells).
``scipy.linalg.cho_factor`` and ``cho_solve`` hold the interpreter's lock, so folds that are planned on two threads would wait for each
other: two solves of 800 unknowns and 1000 right-hand sides took twice the time of one. NumPy's LU releases the lock, and took that
time too. SciPy offers its LAPACK as plain functions (``scipy.linalg.cython_lapack``), which ctypes calls with the lock released.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastencode.devices import HOST, Array, ArrayT, Device

__all__ = ["invert_blocks", "invert_positive", "solve_positive"]

_Pointer = ctypes.c_void_p
_LOWER = b"L"
_BATCHED = 64


@cache
def _lapack(name: str, arguments: int) -> Callable[..., None]:
    """A routine of SciPy's LAPACK. All its arguments are pointers."""
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.argtypes, name_of.restype = [ctypes.py_object], ctypes.c_char_p
    pointer_of.argtypes, pointer_of.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return ctypes.CFUNCTYPE(None, *[_Pointer] * arguments)(pointer_of(capsule, name_of(capsule)))


def invert_positive(device: Device, square: Array) -> Array:
    """Inverse of a symmetric positive definite float64 matrix of a device; the matrix may be overwritten."""
    if device is not HOST:
        inverse = device.xp.linalg.inv(square)
        return 0.5 * (inverse + inverse.T)
    from scipy.linalg import lapack

    # The matrix is symmetric, so its transpose is the same matrix in Fortran's order, which LAPACK need not copy.
    factor = lapack.dpotrf(square.T, lower=1, clean=1, overwrite_a=1)[0]
    inverse = np.asarray(lapack.dpotri(factor, lower=1, overwrite_c=1)[0])
    diagonal = inverse.diagonal().copy()
    inverse += inverse.T  # fills the other triangle, which was zero
    inverse[np.diag_indices(len(inverse))] = diagonal
    return inverse


def invert_blocks(device: Device, square_bmm: ArrayT) -> ArrayT:
    """Inverse of each of many matrices of a device.

    Large ones are inverted one by one there: the batched LU of cuBLAS, which CuPy calls, is made for small ones.
    """
    inv = device.xp.linalg.inv
    if device is HOST or square_bmm.shape[1] <= _BATCHED:
        return inv(square_bmm)
    out: Any = device.empty(*square_bmm.shape, dtype=np.float64)
    for i in range(square_bmm.shape[0]):
        out[i, ...] = inv(square_bmm[i, ...])
    return out


def solve_positive(matrix: Any, right: Any, dtype: DTypeLike = np.float64, device: Device = HOST) -> Any:
    """scipy.linalg.cho_solve(cho_factor(matrix), right), in float32 or float64.

    Parameters
    ----------
    matrix : (n, n)
        Symmetric and positive definite; which triangle is read does not matter. Not written to.
    right : (n, m)
    dtype : float32 or float64
    device : Device
        Where the arrays lie.

    Returns
    -------
    (n, m) array of the device, on the host in Fortran's order

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite. CuPy gives NaN then, and torch raises its own error.
    """
    if device is not HOST:
        square, sides = device.cast(matrix, dtype), device.cast(right, dtype)
        if device.library == "cupy":
            return import_module("cupyx.lapack").posv(square, sides)
        if device.library == "torch":
            return device.xp.cholesky_solve(sides, device.xp.linalg.cholesky(square))
        return device.xp.linalg.solve(square, sides)
    dtype = np.dtype(dtype)
    factor, out = np.array(matrix, dtype=dtype, order="C"), np.array(right, dtype=dtype, order="F")
    (n, m), kind = out.shape, {"f": "s", "d": "d"}[dtype.char]
    if not n or not m:
        return out
    size, columns, info = ctypes.c_int(n), ctypes.c_int(m), ctypes.c_int(0)
    lower, at, to = ctypes.c_char_p(_LOWER), factor.ctypes.data, out.ctypes.data
    n_, m_, info_ = (ctypes.addressof(number) for number in (size, columns, info))
    side = ctypes.cast(lower, _Pointer)
    _lapack(f"{kind}potrf", 5)(side, n_, at, n_, info_)
    if info.value > 0:
        raise np.linalg.LinAlgError(f"the leading minor of size {info.value} is not positive definite")
    _lapack(f"{kind}potrs", 8)(side, n_, m_, at, n_, to, n_, info_)
    return out
