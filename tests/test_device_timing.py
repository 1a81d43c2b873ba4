"""The time kernels on arrays of a device, without one: array functions over two namespaces, and the CUDA twins, compiled for the
host, through the launchers of stand-ins for both libraries."""

from __future__ import annotations

import ctypes
import sys
import types
from functools import cache

import array_api_strict
import numpy as np
import pytest
import torch

import fastencode
from card_cases import FakeCupy, FakeTorch, Placed
from fastencode.devices import Device, plain_device
from fastencode.errors import InputError
from fastencode.launch import cuda_kernel
from fastencode.timing import device_columns
from fastencode.timing import times as module
from kernel_cases import HOST, build
from pairs import pairs

OLD, NEW = np.random.default_rng(1).uniform(-3, 60, 700), np.arange(1.0, 60, 2.0)
ENDS = np.linspace(0, 9, 700) * (np.arange(700) % 3 > 0)
CASES = {
    "lanczos": lambda X: fastencode.lanczos(X, OLD, NEW),
    "lanczos, normalize": lambda X: fastencode.lanczos(X, OLD, NEW, lobes=2.5, cutoff_mult=0.7, normalize=True),
    "lanczos, rectify": lambda X: fastencode.lanczos(X, OLD, NEW, rectify=True),
    "lanczos, nothing new": lambda X: fastencode.lanczos(X, OLD, []),
    "lanczos, far away": lambda X: fastencode.lanczos(X, OLD, NEW + 1000, normalize=True),
    "hrf, impulses": lambda X: fastencode.hrf_convolve(X, OLD, NEW[::-1]),
    "hrf, durations": lambda X: fastencode.hrf_convolve(X, OLD, NEW, durations=ENDS, derivative="time"),
    "hrf, sampled": lambda X: fastencode.hrf_convolve(X, OLD, NEW, dt=0.1, model="glover", duration=20.0),
    "hrf, nothing new": lambda X: fastencode.hrf_convolve(X, OLD, []),
}
PLACES = ["torch, plain", "array_api_strict", "torch, kernels", "cupy, kernels"]
SHAPES = [(700,), (700, 1), (700, 2, 3), (700, 130), (700, 0)]


@cache
def library(folder, source):
    folder.mkdir()
    return build(folder, HOST + source)


class HostModule:
    """CuPy's ``RawModule`` where the card is the host: a grid of one thread does everything."""

    folder = None

    def __init__(self, code, options):
        self.code = code

    def compile(self):
        self.library = library(self.folder / f"cupy{hash(self.code)}", self.code)

    def get_function(self, name):
        kinds = {"u": ctypes.c_void_p, "i": ctypes.c_longlong, "f": ctypes.c_double}
        return lambda grid, block, given: getattr(self.library, name)(*[kinds[a.dtype.kind](a.item()) for a in given])


def compile_for_torch(source, name):
    """torch's ``_compile_kernel``, likewise."""
    function = getattr(library(HostModule.folder / f"torch{hash(source)}", source), name)
    return lambda grid, block, tensors: function(*[ctypes.c_void_p(a.data_ptr()) for a in tensors])


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    HostModule.folder = tmp_path_factory.mktemp("twins")


@pytest.fixture(params=PLACES)
def place(request, monkeypatch):
    """Puts arrays on a device, as the library would have them, and tells values from there."""
    monkeypatch.setattr(Device, "get", lambda self, array: pytest.fail("data were copied to the host"))
    if request.param == "cupy, kernels":
        fake = FakeCupy()
        fake.RawModule = HostModule
        monkeypatch.setitem(sys.modules, "cupy", fake)
        device, put = Device("cupy", "cuda:0", fake), lambda array: array.view(Placed)
    elif request.param == "torch, kernels":
        fake = FakeTorch()
        fake.tensor = lambda values, **o: types.SimpleNamespace(to=lambda *a, **o: torch.tensor(values, dtype=torch.float64))
        fake.cuda._compile_kernel = compile_for_torch
        monkeypatch.setitem(sys.modules, "cupy", None)
        device, put = Device("torch", "cuda:0", fake), lambda array: torch.from_numpy(array.copy())
    else:
        device = plain_device(torch if request.param.startswith("torch") else array_api_strict)
        put = device.put
    monkeypatch.setattr(module, "device_of", lambda value: device if isinstance(value, kind) else None)
    kind = type(put(np.zeros(1)))
    for op in ("lanczos", "hrf"):
        assert (cuda_kernel(device, op) is not None) == request.param.endswith("kernels")
    return types.SimpleNamespace(put=put, kind=kind, device=device)


@pytest.mark.parametrize(
    "place, name, shape, dtype", pairs(PLACES, list(CASES), SHAPES, [np.float32, np.float64]), indirect=["place"]
)
def test_results_are_there_and_those_of_the_cpu(place, name, shape, dtype):
    data = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    wanted, there = CASES[name](data), place.put(data)
    found = CASES[name](there)
    assert isinstance(found, place.kind)
    found = np.asarray(found)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    size = np.abs(wanted).max(initial=0) or 1.0
    np.testing.assert_allclose(found / size, wanted / size, rtol=0, atol=2e-7 if dtype == np.float32 else 1e-12)
    assert np.array_equal(np.asarray(there), data)


def test_other_dtypes_and_layouts(place):
    data = np.random.default_rng(0).standard_normal((700, 6)).astype(np.float16)
    kinds = [np.int16, np.bool_] if place.kind is not torch.Tensor else [np.int16, np.bool_, np.float16]
    for kind in kinds:
        wanted, found = (fastencode.lanczos(put(data.astype(kind)), OLD, NEW) for put in (np.array, place.put))
        assert str(found.dtype).endswith("float32" if kind == np.float16 else "float64")
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    wide = place.put(np.repeat(data.astype(np.float64), 2, axis=1))
    for name in ("lanczos, rectify", "hrf, durations"):
        found, wanted = CASES[name](wide[:, ::2]), CASES[name](data.astype(np.float64))
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-11 * np.abs(wanted).max())


def test_contiguous_data_are_used_where_they_are(place, monkeypatch):
    seen = []
    data = place.put(np.random.default_rng(0).standard_normal((700, 6)))
    for name in ("lanczos", "hrf"):
        function = getattr(device_columns, f"device_{name}_columns")
        monkeypatch.setattr(f"fastencode.timing.{name}.device_{name}_columns", lambda *a, f=function: seen.append(a[1]) or f(*a))
    CASES["lanczos"](data)
    CASES["hrf, impulses"](data)
    assert len(seen) == 2 and all(np.shares_memory(np.asarray(used), np.asarray(data)) for used in seen)


def test_what_is_wrong_with_data_there_is_told_as_on_the_cpu(place):
    data = np.ones((700, 4))
    bad = data.copy()
    bad[3, 1], bad[500, 0] = np.inf, np.nan
    for call in (fastencode.lanczos, fastencode.hrf_convolve):
        for there in (bad, place.put(bad)):
            with pytest.raises(InputError, match=r"data\[3, 1\] is inf \(2 such values in all\)"):
                call(there, OLD, NEW)
        with pytest.raises(InputError, match=r"data has shape \(700, 4\) for 3 "):
            call(place.put(data), OLD[:3], NEW)
    far = data.copy()
    far[OLD.argmin()] = np.nan
    found = fastencode.hrf_convolve(place.put(far), OLD, NEW + 40)  # over before the first scan
    np.testing.assert_allclose(np.asarray(found), fastencode.hrf_convolve(data, OLD, NEW + 40), atol=1e-12)


def test_complex_data_are_refused_there(place):
    if place.device.library == "array_api_strict":
        data = array_api_strict.asarray(np.ones((700, 2), complex))
    else:
        data = place.put(np.ones((700, 2))) * 1j
    with pytest.raises(InputError, match="complex128"):
        fastencode.lanczos(data, OLD, NEW)


def test_pieces_there(place):
    data = np.random.default_rng(0).standard_normal((700, 5)).astype(np.float32)
    order = np.argsort(OLD)
    data, old = data[order], OLD[order]
    for settings in ({}, {"rectify": True, "normalize": True}):
        stream = fastencode.LanczosStream(NEW, **settings)
        cuts = [0, 1, 2, 100, 100, 433, 700]
        parts = [stream.add(place.put(data[a:b]), old[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        parts.append(stream.finish())
        assert all(isinstance(part, place.kind) for part in parts) and stream.n_open == 0
        found = np.concatenate([np.asarray(part) for part in parts])
        whole = np.asarray(fastencode.lanczos(place.put(data), old, NEW, **settings))
        if place.device.streams:  # the twins add in the order of time; products of matrices do not promise that
            assert np.array_equal(found, whole)
        else:
            np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6 * np.abs(whole).max())
    if place.device.library == "array_api_strict":
        return
    mixed = fastencode.LanczosStream(NEW)
    mixed.add(place.put(data[:9]), old[:9])
    with pytest.raises(InputError, match=r"this piece is rows of shape \(5,\), float32, numpy on cpu, the first was rows"):
        mixed.add(data[9:20], old[9:20])


def test_everything_happens_on_the_device_that_holds_the_data(monkeypatch):
    """CuPy makes arrays on its current device, whatever that is."""
    second = FakeCupy()
    second.number, second.RawModule = 1, HostModule
    monkeypatch.setitem(sys.modules, "cupy", second)
    monkeypatch.setattr(Placed, "device", types.SimpleNamespace(id=1))
    data = np.random.default_rng(0).standard_normal((700, 3))
    for name, call in CASES.items():
        np.testing.assert_allclose(np.asarray(call(data.view(Placed))), call(data), atol=1e-9, err_msg=name)
        assert second.inside == 0
    with pytest.raises(AssertionError, match="an array of another device"):
        second.zeros(3)
