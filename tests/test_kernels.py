"""The compiled loop of ``moments``, its NumPy fallback and its CUDA twin against one naive reference."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reference
from fastencode import kernels
from fastencode.kernels import fallback

SHIM = """
struct Dim { unsigned x, y, z; };
static const Dim blockIdx = {0, 0, 0}, threadIdx = {0, 0, 0}, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};
#define __global__
#define __device__
"""
SHAPES = [(1, 1), (2, 3), (7, 64), (13, 65), (101, 127), (64, 1), (300, 130)]


def compiled():
    if kernels.lost("moments"):
        pytest.skip(f"no compiled kernel here: {kernels.lost('moments')}")
    return kernels.cpu("moments")


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """``moments.cu`` compiled for the host, where a grid of one thread walks the whole tile."""
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to build the CUDA twin for the host with")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "moments.cpp").write_text(SHIM + kernels.cuda_source("moments"))
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Werror", str(folder / "moments.cpp"), "-o", str(folder / "moments.so")],
        check=True,
    )
    library = ctypes.CDLL(str(folder / "moments.so"))

    def run(target_tv, predicted_tv):
        n, v = target_tv.shape
        out = np.empty((5, v))
        steps = [a.strides[0] // a.itemsize for a in (target_tv, predicted_tv)]
        function = getattr(library, f"moments_{target_tv.dtype}")
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (target_tv, predicted_tv, out)]
        function(*pointers, *(ctypes.c_longlong(i) for i in (n, v, *steps)))
        return out

    return run


def kernel(name, request):
    if name == "shim":
        return request.getfixturevalue("shim")
    return fallback.moments if name == "fallback" else compiled()


def tiles(shape, dtype, kind):
    rng = np.random.default_rng(shape[0] * 1000 + shape[1])
    y, p = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    if kind == "huge mean":
        y, p = (a + dtype(2.0**20) for a in (y, p))
    if kind == "strided rows":
        y, p = (np.concatenate([a, a * 7], axis=1)[:, : shape[1]] for a in (y, p))
    if kind == "read-only":
        for a in (y, p):
            a.flags.writeable = False
    return y, p


@pytest.mark.parametrize("name", ["compiled", "fallback", "shim"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["plain", "huge mean", "strided rows", "read-only"])
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_equal_the_naive_sums(name, dtype, kind, shape, request):
    y, p = tiles(shape, dtype, kind)
    found, wanted = kernel(name, request)(y, p), reference.moments(y, p)
    # Sums about one sample lose at most a factor n + 1 of double's rounding; the cross product is measured by both spreads.
    slack = 8 * (shape[0] + 1) * np.finfo(float).eps
    np.testing.assert_allclose(found[:2], wanted[:2], rtol=slack, atol=slack)
    np.testing.assert_allclose(found[2:4], wanted[2:4], rtol=slack, atol=1e-300)
    assert np.all(np.abs(found[4] - wanted[4]) <= slack * np.sqrt(wanted[2] * wanted[3]) + 1e-300)


@pytest.mark.parametrize("name", ["compiled", "fallback", "shim"])
def test_constant_is_exactly_zero_and_nan_stays_in_its_column(name, request):
    y, p = tiles((50, 70), np.float64, "plain")
    y[:, 3] = 0.1
    p[:, 5] = 1e9 + 0.1
    y[17, 9] = np.nan
    found = kernel(name, request)(y, p)
    assert found[2, 3] == 0 and found[4, 3] == 0 and found[3, 5] == 0 and found[4, 5] == 0
    assert np.flatnonzero(np.isnan(found).any(axis=0)).tolist() == [9]


@pytest.mark.parametrize("name", ["compiled", "fallback", "shim"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_tiles_give_zeros(name, shape, request):
    empty = np.empty(shape)
    assert np.array_equal(kernel(name, request)(empty, empty), np.zeros((5, shape[1])))


@pytest.mark.parametrize("name", ["compiled", "fallback"])
def test_wrong_shapes_are_refused(name, request):
    moments = kernel(name, request)
    with pytest.raises(ValueError, match="equal shapes"):
        moments(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="out is"):
        moments(np.zeros((3, 4)), np.zeros((3, 4)), np.zeros((4, 4)))


def test_out_is_written_and_voxel_axis_must_be_contiguous():
    moments, (y, p) = compiled(), tiles((20, 10), np.float32, "plain")
    out = np.full((5, 10), np.nan)
    moments(y, p, out)
    assert np.array_equal(out, moments(y, p))
    with pytest.raises(ValueError, match="contiguous"):
        moments(np.asfortranarray(y), p)


def test_cuda_twin_compiles_for_data_center_cards(tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed: the CUDA twin was checked on the host only")
    source = tmp_path / "moments.cu"
    source.write_text(kernels.cuda_source("moments"))
    for card in ("80", "90"):
        out = tmp_path / f"{card}.ptx"
        subprocess.run([nvcc, "-ptx", f"-arch=compute_{card}", str(source), "-o", str(out)], check=True, capture_output=True)
        assert "moments_float32" in out.read_text() and f"sm_{card}" in out.read_text()


def test_twins_share_argument_names():
    header = kernels.cuda_source("moments").split("moments_float32(")[1].split(")")[0]
    names = [part.split()[-1].lstrip("*") for part in header.split(",")]
    assert names[:3] == ["target_tv", "predicted_tv", "out_mv"]
    pyx = (Path(kernels.__file__).parent / "moments.pyx").read_text().split("def moments(")[1].split("):")[0]
    for name in names[:3]:
        assert name in pyx


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


FIT_TWICE = (
    "import numpy, fastencode; r = numpy.random.default_rng(0); X, Y = r.standard_normal((40, 3)), r.standard_normal((40, 4));"
    "fits = [fastencode.ridge_cv(X, Y, alphas=[1.0]) for _ in range(2)]; print(repr(fits[0].coef.sum()))"
)


def test_without_the_extension_one_warning_says_what_is_lost():
    done = run_python(FIT_TWICE, FASTENCODE_NO_EXT="1", FASTENCODE_REQUIRE_EXT="")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("FastencodeWarning") == 1 and "FASTENCODE_NO_EXT" in done.stderr and "slower" in done.stderr


def test_requiring_the_extension_makes_its_absence_an_error():
    done = run_python(FIT_TWICE, FASTENCODE_NO_EXT="1", FASTENCODE_REQUIRE_EXT="1")
    assert done.returncode != 0 and "ImportError" in done.stderr and "FASTENCODE_REQUIRE_EXT" in done.stderr


def test_unknown_op_is_named():
    with pytest.raises(KeyError, match="nothing"):
        kernels.cpu("nothing")
