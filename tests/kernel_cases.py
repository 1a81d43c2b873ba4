"""What tests of kernels share: a compiler for the host, what makes CUDA of it, tiles of targets and predictions."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

# A grid of one thread; what a kernel writes in shared memory is that thread's own.
HOST = """
#include <math.h>
struct Dim { unsigned x, y, z; };
static const Dim blockIdx = {0, 0, 0}, threadIdx = {0, 0, 0}, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};
#define __global__
#define __device__
#define __shared__
#define __syncthreads()
#define sinpi(x) sin(3.14159265358979323846 * (x))
"""
# (nodes, rows, voxels): around the widths of a group, a strip and a block of rows, and around the tiles of pairs.
SHAPES = [(1, 1, 1), (1, 2, 3), (2, 7, 16), (3, 13, 17), (4, 24, 15), (5, 25, 33), (6, 101, 31), (7, 32, 5)]
SHAPES += [(8, 64, 1), (9, 33, 65)]


def build(folder, source, *flags):
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to build this kernel for the host with")
    (folder / "moments.cpp").write_text(source)
    library = folder / "moments.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unused-function", *flags]
    subprocess.run([*command, str(folder / "moments.cpp"), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointers(*arrays):
    return [ctypes.c_void_p(None if a is None else a.ctypes.data) for a in arrays]


def sizes(target_tv, predicted_ktv):
    strides = (target_tv.strides[0], *predicted_ktv.strides[:2])
    return [ctypes.c_longlong(i) for i in (*predicted_ktv.shape, *(s // target_tv.itemsize for s in strides))]


def tiles(shape, dtype, kind="plain"):
    """Targets (t, v) and predictions (k, t, v) that share a signal, so that every centered sum is far from zero."""
    k, t, v = shape
    rng = np.random.default_rng([k, t, v])
    signal = rng.standard_normal((t, v))
    noise = 1e-6 if kind == "near-perfect fit" else 1.0
    y = signal.astype(dtype)
    p = (signal * rng.uniform(0.5, 2, (k, 1, 1)) + noise * rng.standard_normal((k, t, v))).astype(dtype)
    if kind == "huge mean":
        y, p = y + dtype(2.0**20), p + dtype(2.0**20)
    if kind == "first row far out" and t > 1:
        y[0], p[:, 0] = 1e4, -1e4
    return y, p
