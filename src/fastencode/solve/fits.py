"""What the fits of all solvers share: their file, the warning about the grid's edges, the versions they were made with."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastencode import __version__
from fastencode.arrays import to_host
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import whole_file

__all__ = ["open_fit", "save_fit", "versions", "warn_edges"]

_LAYOUT = 1


def save_fit(path: str | os.PathLike[str], fit: Any, arrays: dict[str, Any], **texts: Any) -> None:
    """Write a fit's ``scoring``, ``stats``, arrays (None is left out) and texts (as JSON) to an HDF5 file, whole or not at all.

    Raises ``InputError`` if the folder does not exist.
    """
    import h5py  # 0.2 s to import: only when a file is touched

    with whole_file(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["kind"], file.attrs["layout"] = f"fastencode.{type(fit).__name__}", _LAYOUT
        file.attrs["scoring"], file.attrs["stats"] = fit.scoring, json.dumps(fit.stats)
        for name, text in texts.items():
            file.attrs[name] = json.dumps(text)
        for name, array in arrays.items():
            if array is not None:
                file[name] = to_host(array, name)


@contextmanager
def open_fit(path: str | os.PathLike[str], kind: type) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(the open file, what fits of every kind keep) of a fit that :func:`save_fit` wrote; ``InputError`` for another file."""
    import h5py  # 0.2 s to import: only when a file is touched

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"there is no file {os.fspath(path)!r}") from None
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r} is not an HDF5 file ({error})") from error
    with file:
        name = kind.__name__
        if file.attrs.get("kind") != f"fastencode.{name}":
            raise InputError(f"{os.fspath(path)!r} is not a saved {name}; pass a file that {name}.save wrote")
        if file.attrs["layout"] != _LAYOUT:
            raise InputError(f"{os.fspath(path)!r} has layout {file.attrs['layout']}, this version reads {_LAYOUT}")
        yield file, {"scoring": str(file.attrs["scoring"]), "stats": json.loads(file.attrs["stats"])}


def versions() -> dict[str, str]:
    """What a fit's ``stats`` say it was made with."""
    return {"fastencode": __version__, "numpy": np.__version__, "python": platform.python_version()}


def warn_edges(fit: Any, stacklevel: int) -> None:
    """Warn once where voxels chose a penalty at the edge of the grid; ``stacklevel`` counts from the caller of this."""
    edge_v = np.atleast_1d(to_host(fit.at_edge, "at_edge"))
    low, high, fitted = int((edge_v < 0).sum()), int((edge_v > 0).sum()), len(edge_v) - fit.stats["skipped_voxels"]
    if low or high:
        warnings.warn(
            f"{low + high} of {fitted} voxels chose a penalty at the edge of the grid: {low} the smallest "
            f"({float(fit.alphas[0]):.4g}), {high} the largest ({float(fit.alphas[-1]):.4g}). Widen alphas, unless these are "
            "voxels that X does not predict (those always want the largest).",
            FastencodeWarning,
            stacklevel=stacklevel + 1,
        )
