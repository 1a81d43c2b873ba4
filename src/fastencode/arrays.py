"""Which library, device and dtype an array has, and how it becomes NumPy and goes back: the only file that asks.

Nothing here imports torch or CuPy: a tensor can only be handed in by code that has imported its library already.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import DeviceError, InputError

__all__ = ["as_numpy", "check_device", "export", "float_dtype", "is_stored", "library_of"]

_STORED = ("h5py", "zarr")


def _root(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def library_of(value: Any) -> str:
    """``"torch"`` for a torch tensor, ``"cupy"`` for a CuPy array, else ``"numpy"``."""
    root = _root(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch"
    return "cupy" if root == "cupy" else "numpy"


def is_stored(value: Any) -> bool:
    """Whether the values lie in a file and are read by slicing (an h5py dataset or a zarr array)."""
    return _root(value) in _STORED and hasattr(value, "shape") and hasattr(value, "dtype")


def check_device(device: Any) -> str:
    """The device a solver runs on, for ``device=`` arguments.

    Parameters
    ----------
    device : None, str or torch.device
        None and ``"cpu"`` are the CPU.

    Returns
    -------
    str
        ``"cpu"``.

    Raises
    ------
    DeviceError
        For every other device: the solvers of this version run on the CPU.
    """
    name = "cpu" if device is None else str(device).strip().lower()
    if name == "cpu":
        return name
    if name.partition(":")[0] in ("cuda", "gpu"):
        raise DeviceError(
            f"device={str(device)!r}: the solvers run on the CPU in this version, there is no CUDA path yet; "
            "pass device=None or device='cpu'"
        )
    raise DeviceError(f"device={str(device)!r} is not a device this package knows; pass device=None or device='cpu'")


def as_numpy(value: Any, name: str) -> NDArray[Any]:
    """A NumPy array of an array-like, without a copy where the memory can be shared.

    Parameters
    ----------
    value : array-like, torch tensor on the CPU, h5py dataset
        A stored data set is read whole.
    name : str
        What to call it in an error.

    Raises
    ------
    DeviceError
        If the array lives on a GPU.
    InputError
        If it cannot become an array of real numbers, or is a masked array with masked values.
    """
    library = library_of(value)
    if library == "cupy":
        raise DeviceError(f"{name} is a CuPy array and there is no CUDA path yet; pass cupy.asnumpy({name})")
    if library == "torch":
        value = _from_torch(value, name)
    elif is_stored(value):
        value = value[...]
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


def _from_torch(tensor: Any, name: str) -> Any:
    if tensor.device.type != "cpu":
        raise DeviceError(f"{name} is a torch tensor on {tensor.device} and there is no CUDA path yet; pass {name}.cpu()")
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def check_real(dtype: np.dtype[Any], name: str) -> None:
    """Raise ``InputError`` unless the dtype holds real numbers or booleans."""
    if dtype.kind not in "fiub":
        hint = {"c": "pass its real part or its magnitude", "O": "convert it with .astype(float)"}.get(
            dtype.kind, "pass numbers"
        )
        raise InputError(f"{name} has dtype {dtype}, which is not a real number type; {hint}")


def float_dtype(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 when everything is float32 or float16, else float64."""
    narrow = all(dtype.kind == "f" and dtype.itemsize <= 4 for dtype in dtypes)
    return np.dtype(np.float32 if narrow else np.float64)


def export(array: Any, library: str) -> Any:
    """A NumPy array in the library its input came from, sharing memory."""
    if library != "torch":
        return array
    torch = sys.modules["torch"]
    return torch.from_numpy(np.ascontiguousarray(array) if np.ndim(array) else np.array(array))
