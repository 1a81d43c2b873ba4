"""CUDA devices through CuPy and torch: where an array lies, and its way there and back.

No function here imports either library unless the caller names a device. Code that passes an array has imported its library. A
:class:`Device` is a namespace of array functions and a place. Functions whose names differ between namespaces are methods of it;
all others are called on the namespace. Any namespace that follows the array API standard will do: the tests run device code
without a device that way.

Legend: t = time, w = columns of one tile.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastencode.errors import DeviceError

__all__ = [
    "HOST",
    "Array",
    "ArrayT",
    "Device",
    "DeviceLike",
    "Namespace",
    "device_of",
    "find_device",
    "host_values",
    "parse_device",
    "plain_device",
    "take_rows",
]

# Dtypes that torch and CuPy share; values of others are converted to float64 before upload.
_SHARED = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")

Namespace: TypeAlias = Any
"""A module of array functions: ``numpy``, ``torch``, ``cupy`` or one of the array API standard."""


class Array(Protocol):
    """An array of any namespace: NumPy, torch, CuPy, or one of the array API standard."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def T(self) -> Array: ...

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Array: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...

    def __neg__(self) -> Array: ...
    def __add__(self, other: Any, /) -> Array: ...
    def __radd__(self, other: Any, /) -> Array: ...
    def __sub__(self, other: Any, /) -> Array: ...
    def __rsub__(self, other: Any, /) -> Array: ...
    def __mul__(self, other: Any, /) -> Array: ...
    def __rmul__(self, other: Any, /) -> Array: ...
    def __truediv__(self, other: Any, /) -> Array: ...
    def __rtruediv__(self, other: Any, /) -> Array: ...
    def __pow__(self, other: Any, /) -> Array: ...
    def __matmul__(self, other: Any, /) -> Array: ...
    def __rmatmul__(self, other: Any, /) -> Array: ...

    def __invert__(self) -> Array: ...
    def __and__(self, other: Any, /) -> Array: ...
    def __or__(self, other: Any, /) -> Array: ...
    def __lt__(self, other: Any, /) -> Array: ...
    def __le__(self, other: Any, /) -> Array: ...
    def __gt__(self, other: Any, /) -> Array: ...
    def __ge__(self, other: Any, /) -> Array: ...
    def __eq__(self, other: object, /) -> Any: ...
    def __ne__(self, other: object, /) -> Any: ...


ArrayT = TypeVar("ArrayT", NDArray[Any], Array)
"""Arrays of one kind: functions that are written once for the host and for devices give NumPy's back for NumPy's."""


class TorchDevice(Protocol):
    """A ``torch.device``."""

    @property
    def type(self) -> str: ...
    @property
    def index(self) -> int | None: ...


DeviceLike: TypeAlias = str | TorchDevice | None
"""How a caller names a device: ``None``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or such a ``torch.device``."""


@dataclass(frozen=True)
class Device:
    """A namespace of array functions, and the place where its arrays lie.

    Attributes
    ----------
    library : {"cupy", "torch"} or another namespace's name
    name : str
        ``"cuda:0"``, or ``"cpu"`` for a namespace without devices.
    xp : module
        The namespace.
    """

    library: str
    name: str
    xp: Namespace

    @property
    def streams(self) -> bool:
        """Whether work on the device runs while the host goes on."""
        return self.name != "cpu"

    @property
    def index(self) -> int:
        """Number of the card; 0 for the CPU."""
        return int(self.name.partition(":")[2] or 0)

    def dtype(self, dtype: DTypeLike) -> Any:
        """The namespace's own dtype for a NumPy dtype."""
        if self.library == "numpy":
            return np.dtype(dtype)
        name = np.dtype(dtype).name
        return getattr(self.xp, "bool_" if name == "bool" and self.library == "cupy" else name)

    def current(self) -> AbstractContextManager[object]:
        """A context in which new arrays and kernels go to this device."""
        if not self.streams:
            return nullcontext()
        return self.xp.cuda.Device(self.index) if self.library == "cupy" else self.xp.cuda.device(self.index)

    def put(self, array: ArrayLike | Array, dtype: DTypeLike | None = None) -> Array:
        """An array of this device with the values of a NumPy array. On the CPU it may share memory."""
        host = np.asarray(array, dtype=dtype)
        known = host.dtype.kind == "b" or hasattr(self.xp, host.dtype.name)  # CuPy 13 calls bool only bool_
        if host.dtype.str[1:] not in _SHARED or not known:
            host = host.astype(np.float64)
        host = host.astype(host.dtype.newbyteorder("="), copy=False)
        if self.library != "torch":
            return self.xp.asarray(host)
        if not host.flags.writeable or any(step < 0 for step in host.strides):  # torch warns of the first, refuses the second
            host = host.copy()
        return self.xp.asarray(host, device=self.name)

    def get(self, array: Array) -> NDArray[Any]:
        """A NumPy array with the values of an array of this device. Waits until they are computed."""
        return host_values(array) if self.library in ("cupy", "torch") else np.asarray(array)

    def empty(self, *shape: int, dtype: DTypeLike) -> Array:
        """A new array with any values."""
        return self._made("empty", shape, dtype)

    def zeros(self, *shape: int, dtype: DTypeLike) -> Array:
        """A new array of zeros."""
        return self._made("zeros", shape, dtype)

    def count(self, n: int) -> Array:
        """0 … n − 1, int64. Made on the device: nothing is sent there."""
        where = {"device": self.name} if self.library == "torch" else {}
        return self.xp.arange(n, dtype=self.dtype(np.int64), **where)

    def _made(self, how: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        where = {"device": self.name} if self.library == "torch" else {}
        return getattr(self.xp, how)(shape, dtype=self.dtype(dtype), **where)

    def cast(self, array: ArrayT, dtype: DTypeLike) -> ArrayT:
        """``array.astype(dtype)``: the array itself if it has that dtype."""
        return self.xp.asarray(array, dtype=self.dtype(dtype))

    def contiguous(self, array: ArrayT) -> ArrayT:
        """The array with its values row by row in memory, as kernels and copies need it."""
        if self.library == "torch":
            tensor: Any = array
            return tensor.contiguous()
        return self.xp.ascontiguousarray(array) if self.library == "cupy" else array

    def take(self, array: ArrayT, rows: slice | Array, axis: int = 0) -> ArrayT:
        """``array[rows]`` along an axis. ``rows`` is an int64 array of this device, or on axis 0 a slice, which gives a view."""
        if isinstance(rows, slice):
            return array[rows, ...]
        return self.xp.index_select(array, axis, rows) if self.library == "torch" else self.xp.take(array, rows, axis=axis)

    def largest(self, array: ArrayT) -> ArrayT:
        """``array.max(axis=0)``."""
        return self.xp.max(array, axis=0) if self.library not in ("cupy", "torch") else self.xp.amax(array, axis=0)

    def concatenate(self, arrays: list[ArrayT], axis: int = 0) -> ArrayT:
        """``numpy.concatenate(arrays, axis)``."""
        join = self.xp.concatenate if self.library in ("numpy", "cupy") else self.xp.concat
        return join(arrays, axis=axis)

    def dots(self, a: ArrayT, b: ArrayT) -> ArrayT:
        """``(a * b).sum(axis=0)``."""
        if self.library == "numpy":
            return self.xp.einsum("mw,mw->w", a, b)
        return self.xp.sum(a * b, axis=0)

    def add_to_diagonal(self, square: Array, values: Array | float) -> Array:
        """A square matrix plus values on its diagonal: in place where its rows are contiguous and the namespace allows it."""
        if self.library == "numpy":
            square[np.diag_indices(square.shape[0])] += values
            return square
        if self.library not in ("cupy", "torch"):
            return square + self.xp.eye(square.shape[0], dtype=square.dtype) * values
        rows = self.contiguous(square)  # else reshape would copy, and the copy alone would change
        self.xp.reshape(rows, (-1,))[:: square.shape[0] + 1] += values
        return rows

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that the device's memory is full."""
        if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # cupy.cuda.memory's, torch's
            return True
        words = ("ALLOC_FAILED", "out of memory")  # of cuBLAS's own workspace; of page-locked memory of the host
        return self.streams and isinstance(error, RuntimeError) and any(word in str(error) for word in words)

    @contextmanager
    def room_for(self, what: str) -> Iterator[None]:
        """A context in which "out of memory" becomes a ``DeviceError`` that names ``what`` needed it."""
        try:
            yield
        except Exception as error:
            if isinstance(error, DeviceError) or not self.is_out_of_memory(error):
                raise
            raise DeviceError(f"{self.name} ran out of memory for {what}; free memory there, or pass device=None") from error

    def free_cached(self) -> None:
        """Return memory to the device that the library keeps for later arrays."""
        if self.library == "cupy" and self.streams:
            self.xp.get_default_memory_pool().free_all_blocks()
        elif self.streams:
            self.xp.cuda.empty_cache()

    @contextmanager
    def precision(self, dtype: DTypeLike, reduced: bool) -> Iterator[None]:
        """A context in which float32 products are computed in full float32, or with ``reduced`` in TF32 on cards that have it.

        Products of other dtypes are not changed. Both libraries have one setting for the whole process; the setting found is
        restored at the end.
        """
        if not self.streams or np.dtype(dtype) != np.float32:
            yield
            return
        if self.library == "cupy":
            core = import_module("cupy._core")
            linalg = import_module("cupy._core._routines_linalg")
            before = core.get_compute_type(np.float32)
            core.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32 if reduced else linalg.COMPUTE_TYPE_DEFAULT)
            try:
                yield
            finally:
                core.set_compute_type(np.float32, before)
            return
        settings = self.xp.backends.cuda.matmul
        # Since torch 2.9 the setting has two names, and reading the older one after writing the newer may raise.
        newer = hasattr(settings, "fp32_precision")
        name, full, short = ("fp32_precision", "ieee", "tf32") if newer else ("allow_tf32", False, True)
        before = getattr(settings, name)
        setattr(settings, name, short if reduced else full)
        try:
            yield
        finally:
            setattr(settings, name, before)

    def describe(self) -> dict[str, str]:
        """Name of the device, its library with version, and on a card the card's own name."""
        out = {"device": self.name, "library": f"{self.library} {getattr(self.xp, '__version__', '')}".strip()}
        if self.streams and self.library == "cupy":
            out["card"] = self.xp.cuda.runtime.getDeviceProperties(self.index)["name"].decode()
        elif self.streams:
            out["card"] = self.xp.cuda.get_device_name(self.index)
        return out


# NumPy as a device: code that serves a device and the host is written once.
HOST = Device("numpy", "cpu", np)


def take_rows(array: ArrayT, rows: NDArray[np.intp], device: Device = HOST) -> ArrayT:
    """Rows of an array of a device: a view where they are consecutive and in order."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (len(rows) == 1 or (np.diff(rows) == 1).all()):
        return array[rows[0] : rows[-1] + 1, ...]
    return device.take(array, device.put(rows, np.int64))


def plain_device(xp: Namespace) -> Device:
    """The CPU, through any namespace of the array API standard."""
    return Device(xp.__name__.partition(".")[0], "cpu", xp)


def parse_device(device: DeviceLike) -> str | None:
    """``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None for None.

    Raises
    ------
    DeviceError
        For anything else.
    """
    if device is None:
        return None
    name = str(device).strip().lower()
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    if found:
        return "cuda" if found[1] is None else f"cuda:{int(found[1])}"
    if name == "cpu":
        return name
    raise DeviceError(f"device={str(device)!r} is not a device this package knows; pass None, 'cpu', 'cuda' or 'cuda:1'")


def device_of(value: object) -> Device | None:
    """The CUDA device where an array lies; None for values in the host's memory.

    Raises
    ------
    DeviceError
        For a torch tensor on a device that is neither the CPU nor CUDA.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type == "cpu":
            return None
        if value.device.type != "cuda":
            raise DeviceError(f"a torch tensor on {value.device}: this package computes on the CPU and on CUDA; pass .cpu()")
        return Device("torch", f"cuda:{value.device.index}", torch)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(value, cupy.ndarray):
        return Device("cupy", f"cuda:{value.device.id}", cupy)
    return None


def host_values(value: Any) -> NDArray[Any]:
    """The values of a CuPy array or a torch tensor as a NumPy array, which shares memory with a tensor on the CPU."""
    if not hasattr(value, "detach"):
        return np.asarray(value.get())
    value = value.detach()
    if str(value.dtype) == "torch.bfloat16":  # NumPy has no such type
        value = value.float()
    return np.asarray(value.cpu().resolve_conj().resolve_neg().numpy())


def find_device(name: str, prefer: str = "cupy") -> Device:
    """The device of a name such as ``"cuda"`` or ``"cuda:1"``: through CuPy where it is importable and sees a card, else torch.

    Parameters
    ----------
    name : str
        As :func:`parse_device` gives it.
    prefer : {"cupy", "torch"}
        Which library to try first.

    Raises
    ------
    DeviceError
        If there is none; the message names what is missing and the next step.
    """
    index = int(name.partition(":")[2] or 0)
    missing = []
    for library in ("torch", "cupy") if prefer == "torch" else ("cupy", "torch"):
        found, xp = _count(library)
        if isinstance(found, int) and index < found:
            return Device(library, f"cuda:{index}", xp)
        if isinstance(found, int):
            last = "" if found == 1 else f" to 'cuda:{found - 1}'"
            raise DeviceError(f"device={name!r}: {library} sees {found} CUDA device{'s' * (found > 1)}; pass 'cuda:0'{last}")
        missing.append(found)
    raise DeviceError(f"device={name!r}: no CUDA device can be used here: {'; '.join(missing)}. Or pass device=None for the CPU")


def _count(library: str) -> tuple[int | str, Namespace | None]:
    """(number of cards that a library sees, at least 1, or the reason why it cannot use any; its namespace or None)."""
    try:
        xp = import_module(library)
    except ImportError as error:
        if library == "torch":
            return f"torch could not be imported ({error}): install a CUDA build of it", None
        return f"CuPy could not be imported ({error}): pip install 'fastencode-neuro[gpu-cuda12x]' or '[gpu-cuda13x]'", None
    if library == "torch":
        if xp.version.cuda is None:
            return f"torch {xp.__version__} is a build without CUDA", xp
        found = int(xp.cuda.device_count()) if xp.cuda.is_available() else 0
    else:
        try:
            found = int(xp.cuda.runtime.getDeviceCount())
        except Exception as error:  # CUDARuntimeError, or the loader's own where there is no driver
            return f"CuPy finds no driver or device ({error}): install NVIDIA's driver, nvidia-smi must list a card", xp
    return found or f"{library} sees no device: nvidia-smi must list a card, and CUDA_VISIBLE_DEVICES must not hide it", xp
