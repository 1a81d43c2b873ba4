"""The compiled loop of ``moments``, its NumPy fallback and its CUDA twin against one naive reference in extended precision."""

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
from kernel_cases import HOST, SHAPES, build, pointers, sizes, tiles
from pairs import pairs
from thread_cases import Watched, others_run_during

# The loop as processors without AVX2 run it, which this one would never choose.
PORTABLE = """
#include "moments_cpu.hpp"
#include <vector>
template <typename T>
static void go(const T *y, const T *p, const std::ptrdiff_t *rows, const double *weight, const double *root, double total,
               long long k, long long n, long long v, long long ys, long long ks, long long ts, double *out) {
    std::vector<double> scratch(moments_scratch(k, v) + 8);
    double *aligned = scratch.data() + (-(std::size_t)scratch.data() & 63) / 8;
    moments_any::run(MomentsTile<T>{y, p, rows, weight, root, total, k, n, v, ys, ks, ts, aligned, out, true});
}
#define EXPORT(T, name) extern "C" void name(const T *y, const T *p, const std::ptrdiff_t *rows, const double *weight, \\
        const double *root, double total, long long k, long long n, long long v, long long ys, long long ks, long long ts, \\
        double *out) { go(y, p, rows, weight, root, total, k, n, v, ys, ks, ts, out); }
EXPORT(float, moments_float32)
EXPORT(double, moments_float64)
"""
KINDS = ["plain", "huge mean", "first row far out", "near-perfect fit"]
COMPILED = ["compiled", "portable", "no vectors"]
KERNELS = [*COMPILED, "fallback", "cuda on the host"]


def compiled():
    if kernels.lost("moments"):
        pytest.skip(f"no compiled kernel here: {kernels.lost('moments')}")
    return kernels.cpu("moments")


@pytest.fixture(scope="session")
def cuda_on_host(tmp_path_factory):
    """``moments.cu`` compiled for the host, where a grid of one thread walks the whole tile."""
    library = build(tmp_path_factory.mktemp("shim"), HOST + kernels.cuda_source("moments"))

    def run(target_tv, predicted_ktv, weight_t=None):
        k, _, v = predicted_ktv.shape
        out = np.full(((k + 1) * (k + 4) // 2, v), -7.0)
        weight_t = None if weight_t is None else np.ascontiguousarray(weight_t, dtype=float)
        arrays = pointers(target_tv, predicted_ktv, weight_t, out)
        getattr(library, f"moments_{target_tv.dtype}")(*arrays, *sizes(target_tv, predicted_ktv))
        return out

    return run


def portable(folder, *flags):
    library = build(folder, PORTABLE, "-I", str(Path(kernels.__file__).parent), *flags)

    def run(target_tv, predicted_ktv, weight_t=None):
        (k, n, v), used = predicted_ktv.shape, (None, None, None, float(len(target_tv)))
        out = np.full(((k + 1) * (k + 4) // 2, v), -7.0)
        if weight_t is not None:
            used = fallback.rows_that_count(weight_t, n)
        arrays = pointers(target_tv, predicted_ktv, *used[:3])
        lengths = sizes(target_tv, predicted_ktv)
        lengths[1] = ctypes.c_longlong(n if used[0] is None else len(used[0]))
        getattr(library, f"moments_{target_tv.dtype}")(*arrays, ctypes.c_double(used[3]), *lengths, *pointers(out))
        return out

    return run


@pytest.fixture(scope="session")
def with_vectors(tmp_path_factory):
    return portable(tmp_path_factory.mktemp("vectors"), "-Wno-psabi")


@pytest.fixture(scope="session")
def no_vectors(tmp_path_factory):
    return portable(tmp_path_factory.mktemp("plain"), "-DFASTENCODE_NO_VECTORS")


def kernel(name, request):
    fixtures = {"cuda on the host": "cuda_on_host", "portable": "with_vectors", "no vectors": "no_vectors"}
    if name in fixtures:
        return request.getfixturevalue(fixtures[name])
    return fallback.moments if name == "fallback" else compiled()


def lay_out(y, p, layout, folder):
    k, t, v = p.shape
    if layout == "slices":  # of a larger buffer: a stride of rows, and of nodes, that is not the width
        rows, nodes = np.full((t, 3 * v + 2), np.nan, y.dtype), np.full((2 * k, t + 1, v + 5), np.nan, y.dtype)
        rows[:, 1 : v + 1], nodes[::2, 1:, 3 : v + 3] = y, p
        return rows[:, 1 : v + 1], nodes[::2, 1:, 3 : v + 3]
    if layout == "backwards":
        return y[::-1].copy()[::-1], p[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "nodes inside rows":
        return y, p.transpose(1, 0, 2).copy().transpose(1, 0, 2)
    if layout == "read-only memmap":
        for name, array in (("y", y), ("p", p)):
            array.tofile(folder / name)
        return (np.memmap(folder / name, y.dtype, "r", shape=a.shape) for name, a in (("y", y), ("p", p)))
    return y, p


def weights(t):
    """Some of them zero, also the first."""
    weight_t = np.random.default_rng(t).choice([0.0, 0.5, 1.0, 2.5], t)
    weight_t[0], weight_t[t // 2] = (0.0 if t > 1 else 1.0), 2.5
    return weight_t


def wrong(found, y, p, weight_t=None):
    """Which entries differ from the reference by more than double's rounding of sums about one sample.

    Such a sum is at most 1 + n / w times the centered one, n the sum of weights and w the first of them; the error of a cross
    product is measured by both spreads.
    """
    wanted, series = reference.moments(y, p, weight_t), len(p) + 1
    used = np.ones(len(y)) if weight_t is None else weight_t[weight_t > 0]
    slack = 8 * (len(used) + 1 + used.sum() / used[0]) * np.finfo(float).eps
    squares = wanted[[series + i * (i + 3) // 2 for i in range(series)]]
    sums = [np.sqrt(squares[i]) * np.sqrt(squares[j]) for i in range(series) for j in range(i + 1)]
    size = np.abs(wanted[:series]) + np.sqrt(squares / used.sum())
    return ~(np.abs(found - wanted) <= slack * np.array([*size, *sums]))


@pytest.mark.parametrize("name, dtype, kind, shape", pairs(KERNELS, [np.float32, np.float64], KINDS, SHAPES))
def test_moments_equal_the_naive_sums(name, dtype, kind, shape, request):
    moments, (y, p) = kernel(name, request), tiles(shape, dtype, kind)
    assert not wrong(moments(y, p), y, p).any()
    weight_t = weights(len(y))
    assert not wrong(moments(y, p, weight_t), y, p, weight_t).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["compiled", "fallback"])
def test_products_of_two_predictions_can_be_left_out(name, shape, dtype):
    moments, (y, p) = compiled() if name == "compiled" else fallback.moments, tiles(shape, dtype, "huge mean")
    k = len(p)
    crossed = [k + 1 + i * (i + 1) // 2 + j for i in range(2, k + 1) for j in range(1, i)]
    for weight_t in (None, weights(len(y))):
        found, every = moments(y, p, weight_t, None, False), moments(y, p, weight_t)
        assert not found[crossed].any()
        found[crossed] = every[crossed]
        assert not wrong(found, y, p, weight_t).any()
        assert np.array_equal(found[: k + 1], every[: k + 1])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["slices", "backwards", "nodes inside rows", "read-only memmap"])
def test_layout_does_not_matter(name, dtype, layout, request, tmp_path):
    moments, (y, p) = kernel(name, request), tiles((5, 37, 19), dtype)
    there = list(lay_out(y, p, layout, tmp_path))
    before = [a.copy() for a in there]
    for weight_t in (None, weights(37)):
        assert np.array_equal(moments(*there, weight_t), moments(y, p, weight_t))
        assert not wrong(moments(*there, weight_t), y, p, weight_t).any()
    assert all(np.array_equal(a, b) for a, b in zip(there, before, strict=True))


def test_the_comparison_sees_any_one_entry_that_is_off():
    y, p = tiles((3, 50, 4), np.float32, "near-perfect fit")
    found, weight_t = reference.moments(y, p), weights(50)
    assert not wrong(found, y, p).any()
    for entry in np.ndindex(found.shape):
        off = found.copy()
        off[entry] += 1e-11 * (1 + abs(off[entry]))
        assert np.argwhere(wrong(off, y, p)).tolist() == [list(entry)]
    assert wrong(found, y, p, weight_t).any() and wrong(reference.moments(y, p[::-1]), y, p).any()
    assert wrong(np.full_like(found, np.nan), y, p).all()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_constant_is_exactly_zero_and_nan_stays_in_its_column(name, weighted, request):
    y, p = tiles((2, 50, 70), np.float64)
    y[:, 3] = 0.1
    p[1, :, 5] = 1e9 + 0.1
    y[17, 9] = np.nan
    p[0, 18, 69] = np.nan
    weight_t = np.where(np.arange(50) % 5 == 0, 0, 1.7) if weighted else None
    found = kernel(name, request)(y, p, weight_t)  # means of y, p0, p1; then yy, yp0, p0p0, yp1, p0p1, p1p1
    assert np.flatnonzero((found[3:] == 0).any(axis=0)).tolist() == [3, 5]
    assert np.flatnonzero(found[:, 3] == 0).tolist() == [3, 4, 6]
    assert np.flatnonzero(found[:, 5] == 0).tolist() == [6, 7, 8]
    assert np.flatnonzero(np.isnan(found).any(axis=0)).tolist() == [9, 69]
    assert np.flatnonzero(np.isnan(found[:, 9])).tolist() == [0, 3, 4, 6]
    assert np.flatnonzero(np.isnan(found[:, 69])).tolist() == [1, 4, 5, 7]


@pytest.mark.parametrize("name", KERNELS)
def test_squares_are_never_negative(name, request):
    rng = np.random.default_rng(1)
    base = 1 + rng.uniform(size=(1, 500))
    nearly = np.where(rng.uniform(size=(40, 500)) < 0.1, np.nextafter(base, 2), base)  # constant but for the last bit
    for weight_t in (None, rng.uniform(0.1, 3, 40)):
        found = kernel(name, request)(nearly, nearly[None], weight_t)
        assert (found[[2, 4]] >= 0).all() and (found[2] > 0).any()


@pytest.mark.parametrize("name", KERNELS)
def test_rows_of_weight_zero_are_as_if_they_were_not_there(name, request):
    moments, (y, p), weight_t = kernel(name, request), tiles((4, 61, 21), np.float32), weights(61)
    keep = weight_t > 0
    wanted = moments(y[keep], p[:, keep], weight_t[keep])
    y[~keep], p[:, ~keep] = np.nan, np.inf
    assert np.array_equal(moments(y, p, weight_t), wanted)


@pytest.mark.parametrize("name", KERNELS)
def test_a_weight_counts_as_so_many_rows(name, request):
    moments, (y, p) = kernel(name, request), tiles((3, 40, 18), np.float64)
    times = np.random.default_rng(2).integers(1, 4, 40)
    repeated = moments(y.repeat(times, axis=0), p.repeat(times, axis=1))
    np.testing.assert_allclose(moments(y, p, times), repeated, rtol=1e-12, atol=1e-12)
    assert np.abs(moments(y, p) - repeated).max() > 0.1


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", range(1, 10))
def test_a_voxel_does_not_see_its_neighbors_or_its_place(name, dtype, k, request):
    moments, (y, p) = kernel(name, request), tiles((k, 37, 53), dtype)
    for weight_t in (None, weights(37)):
        whole = moments(y, p, weight_t)
        for first, last in ((0, 1), (1, 53), (3, 20), (5, 21), (16, 17), (48, 53), (52, 53)):
            assert np.array_equal(moments(y[:, first:last], p[:, :, first:last], weight_t), whole[:, first:last])
        order = np.random.default_rng(k).permutation(53)
        assert np.array_equal(moments(y.take(order, axis=1), p.take(order, axis=2), weight_t), whole[:, order])


def test_many_nodes_open_few_strips_at_a_time():
    moments, (y, p) = compiled(), tiles((40, 20, 100), np.float32)
    assert not wrong(moments(y, p), y, p).any()
    assert np.array_equal(moments(y[:, 99:], p[:, :, 99:]), moments(y, p)[:, 99:])


@pytest.mark.parametrize("name", ["compiled", "fallback", "cuda on the host"])
@pytest.mark.parametrize("shape", [(2, 0, 3), (1, 3, 0), (3, 0, 0)])
def test_empty_tiles_give_zeros(name, shape, request):
    k, t, v = shape
    for weight_t in (None, np.ones(t)):
        found = kernel(name, request)(np.empty((t, v)), np.empty(shape), weight_t)
        assert np.array_equal(found, np.zeros(((k + 1) * (k + 4) // 2, v)))


@pytest.mark.parametrize("name", ["compiled", "fallback"])
def test_wrong_arguments_are_refused(name, request):
    moments, y, p = kernel(name, request), np.zeros((3, 4)), np.zeros((2, 3, 4))
    for bad in (np.zeros((2, 3, 5)), np.zeros((2, 4, 4))):
        with pytest.raises(ValueError, match="equal shapes"):
            moments(y, bad)
    for bad in (np.zeros((8, 4)), np.zeros((9, 5))):
        with pytest.raises(ValueError, match="out is .* must be .9, 4. for 2 nodes"):
            moments(y, p, None, bad)
    with pytest.raises(ValueError, match="one for each of the 3 rows"):
        moments(y, p, np.ones(4))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"row 1 is {bad}"):
            moments(y, p, [1, bad, 0])
    with pytest.raises(ValueError, match="every weight is 0"):
        moments(y, p, np.zeros(3))


def test_out_is_written_and_voxel_axis_must_be_contiguous():
    moments, (y, p) = compiled(), tiles((2, 20, 10), np.float32)
    out = np.full((9, 10), np.nan)
    assert np.shares_memory(moments(y, p, None, out), out)
    assert np.array_equal(out, moments(y, p))
    for bad in ((np.asfortranarray(y), p), (y, np.asfortranarray(p))):
        with pytest.raises(ValueError, match="contiguous"):
            moments(*bad)
    with pytest.raises(ValueError, match="multiples of the item size"):
        moments(np.ndarray((20, 10), np.float32, bytes(4000), strides=(42, 4)), p)


def test_other_threads_run_meanwhile():
    order, (y, p) = [], tiles((20, 400, 2000), np.float32)
    moments = Watched(compiled(), order)
    assert others_run_during(lambda: moments(y, p), order) == {0}


def test_what_keeps_the_lock_is_noticed():
    order = []
    counting = Watched(lambda: sum(range(10**5)), order)
    assert others_run_during(counting, order) == set()


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
        assert "__local_depot" not in out.read_text()  # the sums are in registers


def test_twins_share_argument_names():
    header = kernels.cuda_source("moments").split("moments_float32(")[1].split(")")[0]
    names = [part.split()[-1].lstrip("*") for part in header.split(",")]
    assert names[:4] == ["target_tv", "predicted_ktv", "weight_t", "out_mv"]
    pyx = (Path(kernels.__file__).parent / "moments.pyx").read_text().split("def moments(")[1].split("):")[0]
    places = [pyx.index(name) for name in names[:4]]
    assert places == sorted(places)


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
