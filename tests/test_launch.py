"""Who compiles the CUDA kernels, and what the launchers pass to them, with stand-ins for both libraries."""

from __future__ import annotations

import contextlib
import sys
import types
import warnings

import numpy as np
import pytest
import torch

from card_cases import COMPUTES, FakeCupy, FakeTorch
from fastencode import launch
from fastencode.devices import Device
from fastencode.errors import FastencodeWarning
from fastencode.launch import CudaKernel, boxed
from fastencode.solve.score import device_moments


class Module:
    """CuPy's ``RawModule``, noting launches."""

    def __init__(self, code, options):
        self.code, self.launches, self.compiled = code, [], False

    def compile(self):
        self.compiled = True

    def get_function(self, name):
        assert self.compiled, "compiled at its first launch"
        return lambda grid, block, args: self.launches.append((name, grid, block, args))


@pytest.fixture(params=["torch", "cupy"])
def card(request):
    return Device(request.param, "cuda:0", FakeTorch() if request.param == "torch" else FakeCupy())


def use(monkeypatch, start):
    monkeypatch.setattr(device_moments, "cuda_kernel", lambda device, op: CudaKernel(start, op))
    return device_moments.device_moments


@pytest.mark.parametrize("protocol", [True, False])
def test_arguments_of_a_launch_through_cupy(card, monkeypatch, protocol):
    made, streams = [], []

    def from_external(stream):
        streams.append(stream.__cuda_stream__())
        return contextlib.nullcontext()

    cupy = types.SimpleNamespace(
        RawModule=lambda **options: made.append(Module(**options)) or made[0],
        cuda=types.SimpleNamespace(
            Stream=types.SimpleNamespace(**({"from_external": from_external} if protocol else {})),
            ExternalStream=lambda pointer, index: streams.append((index, pointer)) or contextlib.nullcontext(),
            get_current_stream=contextlib.nullcontext,
            Device=lambda index: contextlib.nullcontext(),
        ),
    )
    moments = use(monkeypatch, launch._through_cupy(cupy, card, "moments"))
    wide = card.put(np.zeros((9, 500), np.float32))
    y, p = wide[:, :300], card.put(np.zeros((5, 9, 300), np.float32))
    out = moments(card, y, p)
    name, grid, block, args = made[0].launches[0]
    assert "moments_float32" in made[0].code and name == "moments_float32"
    assert (grid, block) == ((3, 3, 1), (128, 1, 1))  # 300 voxels; 6 series are two of four, so three tiles of pairs
    assert [a.dtype for a in args] == [np.uint64] * 4 + [np.int64] * 6
    assert args[2] == 0 and [int(a) for a in args[4:]] == [5, 9, 300, 500, 2700, 300]
    assert int(args[3]) == np.asarray(out).ctypes.data
    moments(card, card.put(np.zeros((9, 1))), card.put(np.zeros((1, 9, 1))), card.put(np.ones(9)))
    name, grid, _, args = made[0].launches[1]
    assert name == "moments_float64" and grid == (1, 1, 1) and args[2] != 0
    pointer = COMPUTES.cuda_stream
    assert streams == ([(0, pointer)] * 2 if card.library == "torch" else [])


def test_arguments_of_a_launch_through_torch(monkeypatch):
    fake, launches = FakeTorch(), []
    device = Device("torch", "cuda:0", fake)
    fake.tensor = lambda values, dtype, pin_memory: types.SimpleNamespace(to=lambda *a, **o: torch.tensor(values, dtype=dtype))
    fake.cuda._compile_kernel = lambda source, name: lambda grid, block, args: launches.append((name, source, grid, args))
    moments = use(monkeypatch, launch._through_torch(device, "moments"))
    y, p = torch.zeros(9, 500)[:, :300], torch.zeros(5, 9, 300)
    for weight in (None, torch.ones(9)):
        moments(device, y, p, weight)
    (name, source, grid, without), (*_, with_weights) = launches
    assert name == "moments_float32_boxed" and boxed("moments") in source and grid == (3, 3, 1)
    assert without[4].tolist() == [1, 1, 0, 1, 5, 9, 300, 500, 2700, 300] and with_weights[4].tolist()[2] == 1
    assert without[4].dtype == torch.float64 and all(isinstance(a, torch.Tensor) for a in without)


def test_numbers_stay_on_the_card_and_are_not_kept_for_ever(monkeypatch):
    fake, sent = FakeTorch(), []
    fake.tensor = lambda values, **o: types.SimpleNamespace(to=lambda *a, **o: sent.append(values) or torch.tensor(values))
    fake.cuda._compile_kernel = lambda source, name: lambda grid, block, args: None
    start = launch._through_torch(Device("torch", "cuda:0", fake), "lanczos")
    monkeypatch.setattr(launch, "_KNOWN", 2)
    for number in (1, 2, 1, 2, 3, 1):
        start("float64", (1, 1, 1), (1, 1, 1), [torch.zeros(1), 0.5, number, None])
    assert sent == [(1.0, 0.5, 1.0, 0.0), (1.0, 0.5, 2.0, 0.0), (1.0, 0.5, 3.0, 0.0), (1.0, 0.5, 1.0, 0.0)]


def test_who_compiles(monkeypatch):
    fake = FakeTorch()
    monkeypatch.setitem(sys.modules, "cupy", None)  # not installed
    assert launch.cuda_kernel(Device("torch", "cpu", fake), "hrf") is None
    assert launch.cuda_kernel(Device("torch", "cuda:0", fake), "hrf") is None  # nobody
    fake.cuda._compile_kernel = lambda source, name: None
    assert launch.cuda_kernel(Device("torch", "cuda:1", fake), "hrf").by == "hrf.cu through torch"
    cupy = FakeCupy()
    cupy.RawModule = Module
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert launch.cuda_kernel(Device("torch", "cuda:2", fake), "hrf").by == "hrf.cu through CuPy"
    assert launch.cuda_kernel(Device("cupy", "cuda:0", cupy), "hrf").by == "hrf.cu through CuPy"


class CompileException(Exception):
    """As CuPy's, which is a RuntimeError no more than this."""


@pytest.fixture
def cupy_without_compiler(monkeypatch):
    """CuPy where NVRTC is missing: its modules are made, and fail when they are compiled or launched, whichever comes first."""

    def install(error):
        class Fails(Module):
            def compile(self):
                raise error

            def get_function(self, name):
                raise error

        cupy = FakeCupy()
        cupy.RawModule = Fails
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        return cupy

    launch.cuda_kernel.cache_clear()  # stand-ins are other objects, but may get the same place in memory
    yield install
    launch.cuda_kernel.cache_clear()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open shared object file"),
        CompileException("moments.cu(3): catastrophic error: cannot open source file"),
        OSError(),
    ],
)
@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_a_cupy_that_cannot_compile_kernels_computes_with_array_functions(cupy_without_compiler, error, library):
    cupy = cupy_without_compiler(error)
    device = Device(library, "cuda:0", cupy if library == "cupy" else FakeTorch())
    rng = np.random.default_rng(0)
    y, p = rng.standard_normal((9, 30)), rng.standard_normal((2, 9, 30))
    with pytest.warns(FastencodeWarning, match=r"CuPy could not compile moments\.cu for cuda:0 \(.+\): array functions"):
        found = device_moments.device_moments(device, device.put(y), device.put(p))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        again = device_moments.device_moments(device, device.put(y), device.put(p))
    assert device_moments.moments_by(device) == f"array functions of {library}"
    np.testing.assert_allclose(np.asarray(found)[3], ((y - y.mean(0)) ** 2).sum(0), rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(again))


def test_torch_compiles_where_cupy_cannot(cupy_without_compiler):
    cupy_without_compiler(RuntimeError("no NVRTC"))
    fake = FakeTorch()
    fake.cuda._compile_kernel = lambda source, name: None
    assert launch.cuda_kernel(Device("torch", "cuda:0", fake), "hrf").by == "hrf.cu through torch"


def test_a_full_card_is_no_missing_compiler(cupy_without_compiler):
    cupy = cupy_without_compiler(RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        launch.cuda_kernel(Device("cupy", "cuda:0", cupy), "hrf")


@pytest.mark.parametrize("error", [OSError("CUDA_HOME is not set"), RuntimeError("compilation failed"), TypeError("arguments")])
def test_a_torch_that_cannot_compile_kernels_computes_with_array_functions(error):
    fake = FakeTorch()
    fake.cuda._compile_kernel = lambda *a: (_ for _ in ()).throw(error)
    assert launch._through_torch(Device("torch", "cuda:0", fake), "moments") is None
    fake.cuda._compile_kernel = None
    assert launch._through_torch(Device("torch", "cuda:0", fake), "moments") is None
