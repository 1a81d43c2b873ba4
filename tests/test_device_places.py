"""Which library and device an argument or an array means, what is missing where there is none, and what contradicts what."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

import fastencode
from device_cases import make
from fastencode import devices
from fastencode.arrays import as_numpy, check_device, dtype_of, to_host
from fastencode.devices import Device, device_of, find_device, parse_device
from fastencode.errors import DeviceError
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.score.device_tiles import device_for


class FakeCuda:
    """A library that sees some cards."""

    def __init__(self, count, version="12.8"):
        self.__version__, self.version = "9.9", types.SimpleNamespace(cuda=version)
        self.cuda = types.SimpleNamespace(
            is_available=lambda: count > 0,
            device_count=lambda: count,
            runtime=types.SimpleNamespace(getDeviceCount=self.count),
        )
        self.found = count

    def count(self):
        if self.found < 0:
            raise RuntimeError("cudaErrorNoDevice")
        return self.found


@pytest.fixture
def installed(monkeypatch):
    def put(**libraries):
        def import_module(name):
            if libraries.get(name) is None:
                raise ImportError(f"No module named {name!r}")
            return libraries[name]

        monkeypatch.setattr(devices, "import_module", import_module)

    return put


def test_the_library_that_is_there_is_taken(installed):
    two, one = FakeCuda(2), FakeCuda(1)
    installed(cupy=two, torch=one)
    assert find_device("cuda") == Device("cupy", "cuda:0", two)
    assert find_device("cuda:1").name == check_device("cuda:1") == "cuda:1"
    assert find_device("cuda", "torch") == Device("torch", "cuda:0", one)
    installed(cupy=None, torch=one)
    assert find_device("cuda:0").library == "torch"
    installed(cupy=FakeCuda(-1), torch=one)
    assert find_device("cuda").library == "torch"


def test_what_is_missing_is_named(installed):
    installed(cupy=None, torch=None)
    with pytest.raises(DeviceError, match=r"'cuda'.*CuPy could not be imported.*gpu-cuda12x.*torch could not be imported.*None"):
        find_device("cuda")
    installed(cupy=FakeCuda(-1), torch=FakeCuda(0, None))
    with pytest.raises(DeviceError, match="no driver or device .*nvidia-smi.* build without CUDA"):
        find_device("cuda")
    installed(cupy=FakeCuda(0), torch=FakeCuda(0))
    with pytest.raises(DeviceError, match="cupy sees no device.*CUDA_VISIBLE_DEVICES.*torch sees no device"):
        find_device("cuda")
    installed(cupy=FakeCuda(2), torch=FakeCuda(1))
    with pytest.raises(DeviceError, match="'cuda:2': cupy sees 2 CUDA devices; pass 'cuda:0' to 'cuda:1'"):
        find_device("cuda:2")
    with pytest.raises(DeviceError, match="'cuda:1': torch sees 1 CUDA device; pass 'cuda:0'$"):
        find_device("cuda:1", "torch")


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:", "cuda:x", "cuda:-1", "mps", ""])
def test_what_is_no_device(name):
    with pytest.raises(DeviceError, match=f"device='{name}' is not a device"):
        parse_device(name)


def test_names_of_devices():
    assert [parse_device(d) for d in (None, "cpu", "CUDA", " cuda:01 ", torch.device("cuda", 1), torch.device("cpu"))] == [
        None,
        "cpu",
        "cuda",
        "cuda:1",
        "cuda:1",
        "cpu",
    ]


def test_arrays_of_the_host_have_no_device():
    assert device_of(np.ones(3)) is device_of([1.0]) is device_of(torch.ones(3)) is None
    with pytest.raises(DeviceError, match="on meta"):
        device_of(torch.ones(3, device="meta"))
    assert dtype_of(torch.ones(3, dtype=torch.bfloat16), "Y") == np.float32 and dtype_of([1, 2], "Y") == np.int64
    assert to_host(torch.ones(2, requires_grad=True), "X").tolist() == [1.0, 1.0]


ON_CARD = Device("cupy", "cuda:0", FakeCuda(2))


def problem(asked=None, library="numpy", home="cpu", device="cpu"):
    found = Problem.check(
        np.eye(6), alphas=[1.0], cv=2, runs=None, fit_intercept=True, precision="exact", device=None, memory=None
    )
    for name, value in dict(asked=asked, library=library, home=home, device=device).items():
        object.__setattr__(found, name, value)
    return found


def on(device, library="numpy"):
    return Targets(None, 6, 1, False, library, None, device)


def test_where_a_fit_is_computed(installed):
    cupy, torch_ = FakeCuda(2), FakeCuda(2)
    installed(cupy=cupy, torch=torch_)
    assert device_for(problem(), on(None)) is None
    assert device_for(problem("cpu"), on(None)) is None
    assert device_for(problem(), on(ON_CARD, "cupy")) is ON_CARD
    assert device_for(problem("cuda", device="cuda:0"), on(ON_CARD, "cupy")) is ON_CARD
    assert device_for(problem(None, "cupy", "cuda:0", "cuda:0"), on(ON_CARD, "cupy")) is ON_CARD
    assert device_for(problem("cuda", device="cuda:0"), on(None)) == Device("cupy", "cuda:0", cupy)
    assert device_for(problem("cuda", device="cuda:0"), on(None, "torch")).library == "torch"
    assert device_for(problem("cuda:1", "torch", device="cuda:1"), on(None)) == Device("torch", "cuda:1", torch_)
    assert device_for(problem(None, "torch", "cuda:1", "cuda:1"), on(None)).library == "torch"
    assert device_for(problem(None, "cupy", "cuda:0", "cuda:0"), on(None, "torch")).library == "cupy"
    for asked in ("cpu", "cuda:1"):
        with pytest.raises(DeviceError, match=rf"Y lies on cuda:0 \(cupy\) and device='{asked}'"):
            device_for(problem(asked, device=asked), on(ON_CARD, "cupy"))
    with pytest.raises(DeviceError, match=r"X lies on cuda:0 \(torch\) and Y on cuda:0 \(cupy\)"):
        device_for(problem(None, "torch", "cuda:0", "cuda:0"), on(ON_CARD, "cupy"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_named_before_anything_is_computed():
    X, Y = make(20, 3)
    for call in (
        lambda: fastencode.ridge_cv(X, Y, device="cuda"),
        lambda: fastencode.plan_ridge(X, device="cuda:0"),
        lambda: fastencode.RidgeCV(device="cuda").fit(X, Y),
        lambda: fastencode.RidgeFit.load("no such file", device="cuda"),
    ):
        with pytest.raises(DeviceError, match="no CUDA device can be used here"):
            call()


def test_what_lies_elsewhere_is_refused_by_code_for_the_cpu():
    with pytest.raises(DeviceError, match=r"X is a torch tensor on meta and this computes on the CPU; pass X.cpu\(\)"):
        as_numpy(torch.empty(3, device="meta"), "X")


def test_products_setting_is_given_back():
    """On a device that has streams torch's setting changes inside only; the CPU build has the setting, too."""
    card, matmul = Device("torch", "cuda:0", torch), torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    with card.precision(np.float32, True):
        assert getattr(matmul, name) in ("tf32", True)
        with card.precision(np.float32, False):
            assert getattr(matmul, name) in ("ieee", False)
        assert getattr(matmul, name) in ("tf32", True)
    with card.precision(np.float64, True):
        assert getattr(matmul, name) == before
    assert getattr(matmul, name) == before
