"""The CUDA kernels of ``kernels/`` on arrays that lie on a card: compiled at the first call, launched where the card computes.

CuPy compiles and launches them, for torch's arrays too where both are there. For torch's arrays torch's own run-time compiler is
the second choice: where CuPy is missing or cannot compile, and this torch has one that works. Callers have array functions for
where neither does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from fastencode.devices import Device
from fastencode.errors import FastencodeWarning
from fastencode.kernels import cuda_source

__all__ = ["CudaKernel", "boxed", "cuda_kernel", "float_name"]

Size = tuple[int, int, int]
# Dtype, blocks, threads of a block, and the arguments in the order of the source: arrays of the device, None for a null pointer,
# int for `long long` and float for `double`.
Launch = Callable[[str, Size, Size, Sequence[Any]], None]

_KNOWN = 256  # sets of numbers kept on a card


class CudaKernel(NamedTuple):
    """What launches the kernel of an op on one device, and who compiled it."""

    launch: Launch
    by: str


@cache
def cuda_kernel(device: Device, op: str) -> CudaKernel | None:
    """The compiled CUDA kernel of an op on a device; None where nothing there can compile it.

    Warns
    -----
    FastencodeWarning
        Once for each device and op, if CuPy is installed but cannot compile the kernel, and nothing else can.
    """
    if not device.streams:
        return None
    failure = None
    try:
        cupy = device.xp if device.library == "cupy" else import_module("cupy")
    except ImportError:
        pass
    else:
        try:
            return CudaKernel(_through_cupy(cupy, device, op), f"{op}.cu through CuPy")
        except Exception as error:  # no NVRTC, no headers, wrong source: CuPy has no class for all
            if device.is_out_of_memory(error):
                raise
            failure = error
    if device.library == "torch" and (launch := _through_torch(device, op)) is not None:
        return CudaKernel(launch, f"{op}.cu through torch")
    if failure is not None:
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        warnings.warn(
            f"CuPy could not compile {op}.cu for {device.name} ({reason}): array functions compute the same, slower; "
            "install the run-time compiler (NVRTC) of the CUDA version that this CuPy is made for",
            FastencodeWarning,
            stacklevel=2,
        )
    return None


def float_name(device: Device, array: Any) -> str:
    """``"float32"`` or ``"float64"``, which ends the name of the entry point for a floating array."""
    return "float32" if array.dtype == device.dtype(np.float32) else "float64"


def boxed(op: str) -> str:
    """Entry points ``<op>_<dtype>_boxed`` for launchers that know neither 64-bit numbers nor null pointers.

    They take the pointers, and ``numbers``: for each argument of the original its value, or for a pointer 0 if it is null.
    They call ``<op>_tile``, which takes what the entry points take.
    """
    lines = []
    for dtype, inside in re.findall(rf'extern "C" __global__ void {op}_(float32|float64)\((.*?)\)', cuda_source(op), re.DOTALL):
        parameters = [" ".join(part.split()) for part in inside.split(",")]
        given = [part for part in parameters if "*" in part]
        passed = []
        for place, parameter in enumerate(parameters):
            name = re.split(r"[ *]", parameter)[-1]
            kind = parameter.removesuffix(name).strip()
            passed.append(f"numbers[{place}] ? {name} : ({kind})0" if "*" in kind else f"({kind})numbers[{place}]")
        lines.append(f'extern "C" __global__ void {op}_{dtype}_boxed({", ".join([*given, "const double *numbers"])}) {{')
        lines.append(f"    {op}_tile({', '.join(passed)});\n}}")
    return "\n".join(lines)


def _is_number(argument: Any) -> bool:
    return isinstance(argument, int | float)


def _through_cupy(cupy: Any, device: Device, op: str) -> Launch:
    """The kernel, compiled now rather than at its first launch: only now can a CuPy without a compiler be done without."""
    module = cupy.RawModule(code=cuda_source(op), options=("-std=c++17",))
    with cupy.cuda.Device(device.index):
        module.compile()

    def value(argument: Any) -> Any:
        if _is_number(argument):
            return np.float64(argument) if isinstance(argument, float) else np.int64(argument)
        if argument is None:
            return np.uint64(0)
        return np.uint64(argument.data.ptr if device.library == "cupy" else argument.data_ptr())

    def launch(dtype: str, grid: Size, block: Size, arguments: Sequence[Any]) -> None:
        with cupy.cuda.Device(device.index):
            if device.library == "cupy":
                stream = cupy.cuda.get_current_stream()
            else:
                stream = cupy.cuda.ExternalStream(device.xp.cuda.current_stream(device.index).cuda_stream, device.index)
            with stream:
                module.get_function(f"{op}_{dtype}")(grid, block, tuple(map(value, arguments)))

    return launch


def _through_torch(device: Device, op: str) -> Launch | None:
    """The kernel through torch's own run-time compiler, where this torch has one that works; else None."""
    torch = device.xp
    compiler = getattr(torch.cuda, "_compile_kernel", None)
    if compiler is None:
        return None
    try:
        with device.current():
            source = f"{cuda_source(op)}\n{boxed(op)}\n"
            kernels = {dtype: compiler(source, f"{op}_{dtype}_boxed") for dtype in ("float32", "float64")}
    except (AssertionError, AttributeError, ImportError, OSError, RuntimeError, TypeError):
        return None  # no CUDA headers beside it, or another torch: slower, never wrong

    known: dict[tuple[float, ...], Any] = {}

    def launch(dtype: str, grid: Size, block: Size, arguments: Sequence[Any]) -> None:
        numbers = tuple(float(a) if _is_number(a) else float(a is not None) for a in arguments)
        if numbers not in known:
            if len(known) >= _KNOWN:
                known.clear()
            known[numbers] = torch.tensor(numbers, dtype=torch.float64, pin_memory=True).to(device.name, non_blocking=True)
        pointers = [known[numbers] if a is None else a for a in arguments if not _is_number(a)]
        with device.current():
            kernels[dtype](grid, block, [*pointers, known[numbers]])

    return launch
