"""The CUDA kernels of ``kernels/`` on arrays of a card: compiled at the first call, launched on the stream that computes.

CuPy compiles and launches them, also for torch's arrays where both libraries are installed. Where CuPy is missing or cannot
compile, torch's own run-time compiler serves torch's arrays, if this torch has one that works. Where neither compiles, callers
use array functions instead.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np

from fastencode.devices import Array, Device, Namespace
from fastencode.errors import FastencodeWarning
from fastencode.kernels import cuda_source

__all__ = ["CudaKernel", "boxed", "cuda_kernel", "float_name"]

Size = tuple[int, int, int]
# An array of the device, None for a null pointer, int for `long long` and float for `double`.
Argument: TypeAlias = Array | int | float | None
# Dtype, blocks, threads of a block, and the arguments in the order of the source.
Launch = Callable[[str, Size, Size, Sequence[Argument]], None]

_KNOWN = 256  # most sets of numbers that are kept on a card for later launches


class CudaKernel(NamedTuple):
    """The function that launches the kernel of an op on one device, and what compiled it, for users."""

    launch: Launch
    by: str


@cache
def cuda_kernel(device: Device, op: str) -> CudaKernel | None:
    """The compiled CUDA kernel of an op on a device; None where no installed library can compile it.

    Warns
    -----
    FastencodeWarning
        Once for each device and op, if CuPy is installed but neither it nor torch can compile the kernel.
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
        except Exception as error:  # no NVRTC, no headers, wrong source: CuPy has no common class of these errors
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


def float_name(device: Device, array: Array) -> str:
    """``"float32"`` or ``"float64"``: the end of the name of the entry point for a floating array."""
    return "float32" if array.dtype == device.dtype(np.float32) else "float64"


def boxed(op: str) -> str:
    """CUDA source of entry points ``<op>_<dtype>_boxed``, for launchers that pass neither 64-bit numbers nor null pointers.

    Their arguments are the pointers of ``<op>_<dtype>``, then ``numbers``: one double for each argument of ``<op>_<dtype>``, the
    value of a number, or for a pointer 0 if it is null, else 1. They call ``<op>_tile``, which takes the original arguments.
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


def _is_number(argument: object) -> TypeGuard[int | float]:
    return isinstance(argument, int | float)


def _through_cupy(cupy: Namespace, device: Device, op: str) -> Launch:
    """The kernel through CuPy. It is compiled here, not at its first launch: the caller can still choose another way."""
    module = cupy.RawModule(code=cuda_source(op), options=("-std=c++17",))
    with cupy.cuda.Device(device.index):
        module.compile()

    def value(argument: Any) -> np.generic:
        if _is_number(argument):
            return np.float64(argument) if isinstance(argument, float) else np.int64(argument)
        if argument is None:
            return np.uint64(0)
        return np.uint64(argument.data.ptr if device.library == "cupy" else argument.data_ptr())

    def launch(dtype: str, grid: Size, block: Size, arguments: Sequence[Argument]) -> None:
        with cupy.cuda.Device(device.index):
            if device.library == "cupy":
                stream = cupy.cuda.get_current_stream()
            else:
                stream = _stream_of(cupy, device.xp.cuda.current_stream(device.index).cuda_stream, device.index)
            with stream:
                module.get_function(f"{op}_{dtype}")(grid, block, tuple(map(value, arguments)))

    return launch


class _Foreign:
    """A stream of another library, by the protocol for that: (version, address)."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


def _stream_of(cupy: Namespace, address: int, index: int) -> Any:
    """CuPy's view of a stream of torch. CuPy 14 has the protocol, and warns of the class that served before."""
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_Foreign(address))
    return cupy.cuda.ExternalStream(address, index)


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
        return None  # CUDA's headers are missing, or this torch has another compiler: array functions serve instead, slower

    known: dict[tuple[float, ...], Array] = {}

    def launch(dtype: str, grid: Size, block: Size, arguments: Sequence[Argument]) -> None:
        numbers = tuple(float(a) if _is_number(a) else float(a is not None) for a in arguments)
        if numbers not in known:
            if len(known) >= _KNOWN:
                known.clear()
            known[numbers] = torch.tensor(numbers, dtype=torch.float64, pin_memory=True).to(device.name, non_blocking=True)
        pointers = [known[numbers] if a is None else a for a in arguments if not _is_number(a)]
        with device.current():
            kernels[dtype](grid, block, [*pointers, known[numbers]])

    return launch
