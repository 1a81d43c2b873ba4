"""The loops of ``lanczos`` and ``hrf``, Numba's and their CUDA twins', against naive sums with weights by NumPy and SciPy."""

from __future__ import annotations

import ctypes
import inspect
import re
import shutil
import subprocess

import numpy as np
import pytest
import scipy.stats
from scipy import special

from fastencode import kernels
from fastencode.kernels.hrf import hrf_columns
from fastencode.kernels.lanczos import CACHE, lanczos_columns, lanczos_weight, sine_pi
from fastencode.launch import boxed
from kernel_cases import HOST, build, pointers
from pairs import pairs

STRIP = CACHE // 8  # columns of float32 at a time
KERNELS = ["numba", "cuda on the host"]
# (old, new, columns): nothing, one, primes, more old samples in one window than a chunk of shared memory, one past a strip.
SHAPES = [(0, 5, 3), (4, 0, 3), (5, 7, 0), (1, 1, 1), (7, 13, 5), (23, 3, 129), (307, 11, 2), (31, 5, STRIP + 1)]
KINDS = ["ascending", "unordered", "repeated"]
DTYPES = [np.float32, np.float64]
LENGTHS = ["impulses", "boxcars", "both, one very long"]
TERMS = [(1.0, 0.0, 6.0, 1.0), (-1 / 6, 0.0, 16.0, 1.0), (0.7, 1.5, 6 / 0.9, 0.9), (-0.2, 0.1, 1.0, 1.1)]


@pytest.fixture(scope="session")
def on_host(tmp_path_factory):
    """Both .cu compiled for the host, where a grid of one thread does everything."""
    return {op: build(tmp_path_factory.mktemp(op), HOST + kernels.cuda_source(op) + boxed(op)) for op in ("lanczos", "hrf")}


def numbers(*values):
    return [ctypes.c_longlong(v) if isinstance(v, int) else ctypes.c_double(v) for v in values]


def lanczos_by(name, on_host):
    """The kernel of that name, for data whose rows may be longer than what is used of them."""

    def run(data, order, old, new, first, last, cutoff, lobes, rectify, out, total, gross):
        if name == "numba":
            return lanczos_columns(frozen(data), order, old, new, first, last, cutoff, lobes, rectify, out, total, gross)
        tables, sums = pointers(data, order, old, new, first, last), pointers(out, total, gross)
        settings, sizes = numbers(cutoff, lobes, int(rectify)), numbers(len(new), data.shape[1], data.strides[0] // data.itemsize)
        getattr(on_host["lanczos"], f"lanczos_{data.dtype}")(*tables, *settings, *sums, *sizes)

    return run


def hrf_by(name, on_host):
    def run(data, order, event, length, new, support, terms, start, out):
        if name == "numba":
            return hrf_columns(frozen(data), order, event, length, new, support, terms, start, out)
        first = np.searchsorted(np.maximum.accumulate(event + length) + support, new)
        last = np.searchsorted(event, new, side="right")
        sizes = numbers(len(new), out.shape[1], len(terms), data.strides[0] // data.itemsize)
        arrays = pointers(data, order, event, length, new), pointers(terms), pointers(out, first, last)
        function = getattr(on_host["hrf"], f"hrf_{data.dtype}")
        function(*arrays[0], *numbers(support), *arrays[1], *numbers(start), *arrays[2], *sizes)

    return run


def frozen(data):
    data = np.ascontiguousarray(data).view()
    data.flags.writeable = False
    return data


def times(shape, kind):
    n_old, n_new, _ = shape
    rng = np.random.default_rng([n_old, n_new])
    old = rng.uniform(-5, 25, n_old)
    if kind == "ascending":
        old.sort()
    elif kind == "repeated":
        old = np.round(old / 4) * 4
    return old, np.sort(rng.uniform(0, 30, n_new))


def values(shape, dtype):
    """Rows that are part of longer ones, as far as the kernel is told."""
    rng = np.random.default_rng(shape)
    return rng.standard_normal((shape[0], shape[2] + 3)).astype(dtype)[:, 2 : 2 + shape[2]]


def sorted_by_time(old, new, reach):
    order = np.argsort(old, kind="stable")
    old = old[order]
    return order, old, np.searchsorted(old, new - reach), np.searchsorted(old, new + reach, side="right")


def lanczos_weights(old, new, cutoff, lobes):
    x = (new[:, None] - old) * cutoff
    return np.where(np.abs(x) <= lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)


@pytest.mark.parametrize("name, dtype, rectify, kind, shape", pairs(KERNELS, DTYPES, [False, True], KINDS, SHAPES))
def test_lanczos_adds_the_dense_product(name, dtype, rectify, kind, shape, on_host):
    (old, new), data = times(shape, kind), values(shape, dtype)
    for cutoff, lobes in ((0.5, 3.0), (0.11, 2.5)):
        order, ascending, first, last = sorted_by_time(old, new, lobes / cutoff)
        rng = np.random.default_rng(0)
        out = rng.standard_normal((shape[1], shape[2] * (1 + rectify)))
        total, gross = rng.standard_normal(shape[1]), np.ones(shape[1])
        before = out.copy(), total.copy(), gross.copy()
        lanczos_by(name, on_host)(data, order, ascending, new, first, last, cutoff, lobes, rectify, out, total, gross)
        weights, wide = lanczos_weights(old, new, cutoff, lobes), data.astype(float)
        parts = np.hstack([np.minimum(wide, 0), np.maximum(wide, 0)]) if rectify else wide
        slack = 1e-13 * (10 + np.abs(weights).sum())
        np.testing.assert_allclose(out, before[0] + weights @ parts, rtol=0, atol=slack)
        if shape[2] or name == "numba":  # on a card there is nobody to add up weights for no column
            np.testing.assert_allclose(total, before[1] + weights.sum(axis=1), rtol=0, atol=slack)
            np.testing.assert_allclose(gross, before[2] + np.abs(weights).sum(axis=1), rtol=0, atol=slack)


def hrf_weights(event, length, new, support):
    """With SciPy's densities and distribution functions, at every pair."""
    lag, out = new[:, None] - event, np.zeros((len(new), len(event)))
    for amplitude, shift, shape, scale in TERMS:
        gamma = scipy.stats.gamma(shape, loc=shift, scale=scale)
        rise = gamma.cdf(np.minimum(lag, support)) - gamma.cdf(np.minimum(lag - length, support))
        impulse = np.where((lag >= 0) & (lag <= support), gamma.pdf(lag), 0.0)
        out += amplitude * np.where(length > 0, rise, impulse)
    return out


@pytest.mark.parametrize("name, dtype, lengths, kind, shape", pairs(KERNELS, DTYPES, LENGTHS, KINDS, SHAPES))
def test_hrf_adds_the_dense_product(name, dtype, lengths, kind, shape, on_host):
    (event, new), data = times(shape, kind), values(shape, dtype)
    length = np.zeros(shape[0]) if lengths == "impulses" else np.random.default_rng(1).uniform(0.1, 4, shape[0])
    if lengths.startswith("both"):
        length[::2] = 0
        length[:1] = 50
    terms, support = np.array([(*term, special.gammaln(term[2])) for term in TERMS]), 20.0
    order = np.argsort(event, kind="stable")
    weights = hrf_weights(event, length, new, support)
    for start, stop in ((0, shape[2]), (shape[2] // 2, shape[2])):
        out = np.random.default_rng(0).standard_normal((shape[1], stop - start))
        expected = out + weights @ data[:, start:stop].astype(float)
        hrf_by(name, on_host)(data, order, event[order], length[order], new, support, terms, start, out)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12 * (1 + np.abs(weights).sum()))


@pytest.mark.parametrize("name", KERNELS)
def test_a_response_counts_at_its_very_end_however_lags_are_rounded(name, on_host):
    terms, event, support = np.array([[1.0, 0.0, 6.0, 1.0, special.gammaln(6)]]), 0.1 * np.arange(1, 300), 9.0
    new = event + support
    assert 20 < (new - event > support).sum() < 280
    for one, at in zip(event, new, strict=True):
        out = np.zeros((1, 1))
        hrf_by(name, on_host)(np.ones((1, 1)), np.arange(1), np.array([one]), np.zeros(1), np.array([at]), support, terms, 0, out)
        assert out[0, 0] == pytest.approx(scipy.stats.gamma.pdf(support, 6), rel=1e-11)


@pytest.mark.parametrize("name", KERNELS)
def test_samples_out_of_reach_may_be_nan(name, on_host):
    old, new = np.array([-40.0, 1.0, 2.0, 3.0, 4.0, 60.0, 61.0]), np.array([0.0, 2.0, 4.0, 70.0])
    data = np.arange(14.0).reshape(7, 2)
    bad = data.copy()
    bad[[0, 5]] = np.nan
    order, old, first, last = sorted_by_time(old, new, 6.0)
    found = []
    for rows in (data, bad):
        out = np.zeros((4, 2))
        lanczos_by(name, on_host)(rows, order, old, new, first, last, 0.5, 3.0, False, out, np.zeros(4), np.zeros(4))
        found.append(out)
    assert np.array_equal(*found) and np.isfinite(found[0]).all()
    # Between an event that goes on and one that begins, one that is over long since.
    event, length = np.array([0.0, 1.0, 30.0]), np.array([99.0, 0.0, 0.0])
    terms = np.array([[1.0, 0.0, 6.0, 1.0, special.gammaln(6)]])
    for row, finite in ((1, True), (0, False)):
        data, out = np.ones((3, 1)), np.zeros((1, 1))
        data[row] = np.nan
        hrf_by(name, on_host)(data, np.arange(3), event, length, np.array([35.0]), 20.0, terms, 0, out)
        assert np.isfinite(out).all() == finite


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("rectify", [False, True])
def test_nan_within_reach_does_not_vanish(name, rectify, on_host):
    data, at = np.array([[1.0, np.nan]]), np.array([0])
    out = np.zeros((1, 2 * (1 + rectify)))
    arguments = (np.array([0.3]), np.array([0.0]), at, at + 1, 0.5, 3.0, rectify, out, np.zeros(1), np.zeros(1))
    lanczos_by(name, on_host)(data, at, *arguments)
    assert np.isnan(out).sum() == 1 and np.isnan(out[0, -1])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum_has_the_same_bits_whatever_stands_beside_it_and_wherever_it_is_interrupted(name, dtype, on_host):
    shape = (211, 13, 2 * STRIP + 77)
    (old, new), data = times(shape, "unordered"), values(shape, dtype)
    order, old, first, last = sorted_by_time(old, new, 6.0)
    run = lanczos_by(name, on_host)

    def resampled(columns=slice(None), cuts=(), rectify=False):
        part = data[:, columns]
        out, total, gross = np.zeros((13, part.shape[1] * (1 + rectify))), np.zeros(13), np.zeros(13)
        for a, b in zip((0, *cuts), (*cuts, 211), strict=True):
            inside = np.clip(first, a, b) - a, np.clip(last, a, b) - a
            run(part, order[a:b], old[a:b], new, *inside, 0.5, 3.0, rectify, out, total, gross)
        return out

    whole, parts = resampled(), resampled(rectify=True)
    for a, b in ((0, 1), (1, 4), (3, 40), (STRIP - 1, STRIP + 2), (2 * STRIP, 2 * STRIP + 77)):
        assert np.array_equal(resampled(slice(a, b)), whole[:, a:b])
        assert np.array_equal(resampled(slice(a, b), rectify=True)[:, : b - a], parts[:, a:b])
    for cuts in ((1,), (5, 6, 100), tuple(range(1, 211)), (0, 211)):
        assert np.array_equal(resampled(cuts=cuts), whole)
    assert not np.array_equal(whole, np.zeros_like(whole))


def test_weights_of_the_compiled_window():
    for lobes in (1.0, 2.5, 3.0, 7.0):
        x = np.concatenate([np.linspace(-8, 8, 1601), np.arange(-8.0, 9), [1e-9, 1e-8, 1e-5, -1e-12, lobes, -lobes]])
        expected = np.where(np.abs(x) <= lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)
        np.testing.assert_allclose([lanczos_weight(value, lobes) for value in x], expected, rtol=0, atol=1e-15)
    x = np.linspace(-9, 9, 3601)
    np.testing.assert_allclose([sine_pi(value) for value in x], np.sin(np.pi * x), rtol=0, atol=6e-15)  # NumPy's pi x is rounded
    assert all(sine_pi(float(k)) == 0 and abs(sine_pi(k + 0.5)) == pytest.approx(1, abs=3e-16) for k in range(-5, 6))
    assert [np.sign(sine_pi(k + 0.5)) for k in range(-3, 3)] == [-1, 1, -1, 1, -1, 1]


@pytest.mark.parametrize("card", ["80", "90"])
@pytest.mark.parametrize("op", ["lanczos", "hrf"])
def test_cuda_twins_compile_for_data_center_cards(op, card, tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed: the CUDA twins were checked on the host only")
    source, out = tmp_path / f"{op}.cu", tmp_path / f"{op}.ptx"
    source.write_text(f"{kernels.cuda_source(op)}\n{boxed(op)}\n")
    subprocess.run([nvcc, "-ptx", f"-arch=compute_{card}", str(source), "-o", str(out)], check=True, capture_output=True)
    entries = re.findall(r"\.entry (\w+)\(", out.read_text())
    assert sorted(entries) == sorted(f"{op}_{dtype}{end}" for dtype in ("float32", "float64") for end in ("", "_boxed"))
    assert f"sm_{card}" in out.read_text() and ".shared" in out.read_text()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [lanczos_columns, hrf_columns], ids=lambda function: function.__name__)
def test_twins_share_argument_names_and_order(function, dtype):
    op = function.__name__.removesuffix("_columns")
    header = kernels.cuda_source(op).split(f"{op}_{dtype}(")[1].split(")")[0]
    names = [part.split()[-1].lstrip("*") for part in header.split(",")]
    wanted = list(inspect.signature(function.py_func).parameters)
    assert names[: len(wanted)] == wanted


def test_what_numba_compiles_needs_no_extension(monkeypatch):
    monkeypatch.setenv("FASTENCODE_NO_EXT", "1")
    monkeypatch.setenv("FASTENCODE_REQUIRE_EXT", "1")
    kernels._load.cache_clear()
    try:
        assert kernels.cpu("lanczos") is lanczos_columns and kernels.cpu("hrf") is hrf_columns
        assert kernels.lost("lanczos") is kernels.lost("hrf") is None
        with pytest.raises(ImportError, match="FASTENCODE_REQUIRE_EXT demands it"):
            kernels.cpu("moments")
    finally:
        kernels._load.cache_clear()
    for op, entry in kernels.OPS.items():
        if entry.cuda:
            assert f"{op}_float64(" in kernels.cuda_source(op)
    with pytest.raises(KeyError, match="'product' has no CUDA kernel"):
        kernels.cuda_source("product")
