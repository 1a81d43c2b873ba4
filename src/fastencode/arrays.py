"""The library and dtype of an array, and its conversion to NumPy and back. ``devices.py`` finds the device where it lies.

No function here imports torch or CuPy, unless the caller names a device. Code that passes a tensor has imported its library.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.devices import Array, DeviceLike, device_of, find_device, host_values, parse_device
from fastencode.errors import DeviceError, InputError

__all__ = [
    "F64",
    "ResultArray",
    "as_numpy",
    "check_device",
    "column_names",
    "dtype_of",
    "export",
    "float_dtype",
    "is_stored",
    "library_of",
    "to_host",
]

F64 = NDArray[np.float64]
"""A float64 array of any shape."""

ResultArray: TypeAlias = Any
"""An array of the caller's library, NumPy, torch or CuPy, on the caller's device: the caller knows which, mypy does not."""

_STORED = ("h5py", "zarr")


def _root(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def library_of(value: object) -> str:
    """``"torch"`` for a torch tensor, ``"cupy"`` for a CuPy array, else ``"numpy"``."""
    root = _root(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch"
    return "cupy" if root == "cupy" else "numpy"


def column_names(value: object) -> list[str] | None:
    """The names of a data frame's columns; None for what has none."""
    columns = getattr(value, "columns", None)
    return None if columns is None or callable(columns) else [str(column) for column in columns]


def is_stored(value: object) -> bool:
    """Whether this is a data set in a file, read by slicing (h5py or zarr)."""
    return _root(value) in _STORED and hasattr(value, "shape") and hasattr(value, "dtype")


def check_device(device: DeviceLike) -> str:
    """The name of the device for a ``device=`` argument.

    Parameters
    ----------
    device : None, str or torch.device
        None and ``"cpu"`` are the CPU; ``"cuda"`` and ``"cuda:1"`` are a CUDA device, through CuPy or torch.

    Returns
    -------
    str
        ``"cpu"``, or a name such as ``"cuda:0"``.

    Raises
    ------
    DeviceError
        For a name that is no device, and for a device that cannot be used; the message names what is missing.
    """
    name = parse_device(device)
    return "cpu" if name in (None, "cpu") else find_device(name).name


def as_numpy(value: Any, name: str) -> NDArray[Any]:
    """A NumPy array of an array-like, without a copy where the memory can be shared.

    Parameters
    ----------
    value : array-like, torch tensor on the CPU, h5py dataset
        A stored data set is read whole.
    name : str
        Name of the argument in errors.

    Raises
    ------
    DeviceError
        If the array lies on another device. :func:`to_host` copies it from there.
    InputError
        If it cannot become an array of real numbers, or is a masked array with masked values.
    """
    library = library_of(value)
    if library == "cupy":
        raise DeviceError(f"{name} is a CuPy array and this computes on the CPU; pass cupy.asnumpy({name})")
    if library == "torch":
        if value.device.type != "cpu":
            raise DeviceError(f"{name} is a torch tensor on {value.device} and this computes on the CPU; pass {name}.cpu()")
        value = host_values(value)
    elif is_stored(value):
        value = value[...]
    elif _root(value) in _STORED and hasattr(value, "keys"):
        raise InputError(f"{name} is a {type(value).__name__.lower()} of {_root(value)}, not a data set; {_inside(value, name)}")
    elif hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise InputError(f"{name} is a sparse matrix; pass {name}.toarray()")
    elif np.ma.is_masked(value):  # asarray would bring back the numbers under the mask
        raise InputError(f"{name} is a masked array with masked values; leave those rows or columns out or fill them")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} cannot become an array ({error}); pass rows of equal length") from error
    check_real(array.dtype, name)
    return array


def _inside(group: Any, name: str) -> str:
    """The end of an error: at most ten data sets that a file or group holds, with their shapes."""
    found = list(_data_sets(group, ""))
    if not found:
        return f"it holds none, so pass one of another file or group as {name}"
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"pass one that it holds, such as f[{found[0][0]!r}]: {', '.join(f'{p!r} {s}' for p, s in found[:10])}{more}"


def _data_sets(group: Any, before: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(path, shape) of all data sets inside a group, without links whose target is missing."""
    for key in group:
        try:
            item = group[key]
        except KeyError:
            continue
        if hasattr(item, "shape"):
            yield before + key, tuple(item.shape)
        elif hasattr(item, "keys"):
            yield from _data_sets(item, f"{before}{key}/")


def to_host(value: ArrayLike | Array, name: str) -> NDArray[Any]:
    """:func:`as_numpy` that also copies arrays from a CUDA device."""
    array = value if device_of(value) is None else host_values(value)
    return as_numpy(array, name)


def dtype_of(value: Any, name: str) -> np.dtype[Any]:
    """NumPy's dtype of an array-like. Values in a file or on a device are neither read nor moved."""
    if is_stored(value):
        return np.dtype(value.dtype)
    if device_of(value) is None:
        return as_numpy(value, name).dtype
    kind = str(value.dtype).removeprefix("torch.")
    return np.dtype({"bfloat16": "float32"}.get(kind, kind))


def check_real(dtype: np.dtype[Any], name: str) -> None:
    """Raise ``InputError`` unless the dtype holds real numbers or booleans."""
    if dtype.kind not in "fiub":
        hints = {
            "c": "pass its real part or its magnitude",
            "O": "pass numbers (of a data frame its numeric columns), or convert it with .astype(float)",
        }
        hint = hints.get(dtype.kind, "pass numbers")
        raise InputError(f"{name} has dtype {dtype}, which is not a real number type; {hint}")


def float_dtype(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 when everything is float32 or float16, else float64."""
    narrow = all(dtype.kind == "f" and dtype.itemsize <= 4 for dtype in dtypes)
    return np.dtype(np.float32 if narrow else np.float64)


def export(array: Array, library: str, where: str = "cpu") -> ResultArray:
    """A NumPy array as one of ``library``: on the CPU it shares memory, else it is copied to the device ``where``."""
    if where != "cpu":
        device = find_device(where, library)
        with device.current():
            return device.put(array)
    if library != "torch":
        return array
    torch = sys.modules["torch"]
    host = np.asarray(array)
    return torch.from_numpy(np.ascontiguousarray(host) if host.ndim else host.copy())
