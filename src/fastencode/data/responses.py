"""Responses in the formats that labs have, as rows × channels: NumPy, HDF5, NIfTI with a mask, GIFTI, CIFTI.

A *channel* is a column: a voxel, a vertex, a region or an electrode. NumPy and HDF5 files are read in part. Compressed images
have no random access: the channels of the file that was read last are kept in memory as float32 (300 scans of 200 000 voxels take
0.24 GB), so that reading tile after tile decompresses it once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.data.space import columns_of, load_image
from fastencode.errors import InputError
from fastencode.files import check_file

__all__ = [
    "FORMATS",
    "ArrayResponses",
    "ImageResponses",
    "Responses",
    "SideBySide",
    "SurfaceResponses",
    "inside_all",
    "open_responses",
]

FORMATS = ".npy, .h5::key, .hf5::key, .hdf5::key, .nii, .nii.gz, .func.gii, .dtseries.nii"
"""What :func:`open_responses` reads, as people write it."""

Floats = NDArray[np.float32]
Columns = NDArray[np.intp] | slice

_SLAB_BYTES = 64 << 20  # of a file in memory at a time, beside what is kept


class Responses(Protocol):
    """Rows × channels of one file, or of several side by side."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read, masks with it."""

    def read(self, rows: slice, columns: Columns) -> Floats:
        """(rows, columns), float32; NaN stays NaN."""


def open_responses(text: str | os.PathLike[str], mask: str | os.PathLike[str] | None = None) -> Responses:
    """Find the responses that a text names; only headers are read.

    Parameters
    ----------
    text : str or path
        A file in one of ``FORMATS``. In HDF5, the data set stands after "::"; a file with one data set needs no name. Files
        joined by "+" stand side by side: ``"lh.func.gii+rh.func.gii"``.
    mask : path, optional
        Of a NIfTI image: the brain mask, nonzero inside, on the image's grid. Channels are its voxels in C order, as
        ``nilearn.maskers.NiftiMasker`` has them. For GIFTI, a .npy file of booleans, one for each vertex, or a folder with one
        for each surface (see :mod:`fastencode.data.space`).

    Returns
    -------
    Responses

    Raises
    ------
    InputError
        If a file is missing, not fetched, damaged or of no such format, holds other than real numbers on two axes, or does not
        fit the mask.
    MissingLibraryError
        If nibabel is needed and not installed (extra ``neuro``).
    """
    parts = [part.strip() for part in os.fspath(text).split("+")] if "+" in os.fspath(text) else [os.fspath(text)]
    if len(parts) > 1 and Path(os.fspath(text)).exists():  # a "+" in the name of one file
        parts = [os.fspath(text)]
    found = [_open(part, mask if len(parts) == 1 else _part_of_mask(mask, place)) for place, part in enumerate(parts)]
    return found[0] if len(found) == 1 else SideBySide(tuple(found))


def _part_of_mask(mask: str | os.PathLike[str] | None, place: int) -> str | os.PathLike[str] | None:
    if mask is None or not Path(mask).is_dir():
        return mask
    files = sorted(Path(mask).glob("*.npy"))
    if place >= len(files):
        raise InputError(f"{mask} holds {len(files)} masks: give one .npy file for each surface")
    return files[place]


def _open(text: str, mask: str | os.PathLike[str] | None) -> Responses:
    name, _, key = text.partition("::")
    path, lower = Path(name), name.lower()
    check_file(path, "responses")
    if lower.endswith(".npy"):
        return _of_array(path, None)
    if lower.endswith((".h5", ".hf5", ".hdf5")):
        return _of_array(path, key or None)
    if lower.endswith((".dtseries.nii", ".ptseries.nii")):
        return SurfaceResponses(path, None)
    if lower.endswith(".gii"):
        return SurfaceResponses(path, None if mask is None else Path(mask))
    if lower.endswith((".nii", ".nii.gz")):
        if mask is None:
            raise InputError(f"{path} is an image without a mask: give the brain mask that says which voxels are channels")
        return ImageResponses(path, (Path(mask),))
    raise InputError(f"{path} is in no known format: give one of {FORMATS}")


@dataclass(frozen=True)
class ArrayResponses:
    """A two-dimensional array in a .npy file (``key`` None) or in a data set of an HDF5 file."""

    path: Path
    key: str | None
    shape: tuple[int, int]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def read(self, rows: slice, columns: Columns) -> Floats:
        if self.key is None:
            return _chosen(_mapped(self.path), rows, columns)
        with _hdf5(self.path) as file:
            data = file[self.key]
            try:
                return _chosen(data, rows, columns)
            except OSError as error:
                raise InputError(f"{self.path}: {self.key} cannot be read to its end ({error}): fetch it again") from error


def _chosen(data: Any, rows: slice, columns: Columns) -> Floats:
    """Rows × columns of an array on disk, by slabs of whole rows: neither format selects single columns fast."""
    first, stop, _ = rows.indices(data.shape[0])
    width = len(range(*columns.indices(data.shape[1]))) if isinstance(columns, slice) else len(columns)
    out = np.empty((max(0, stop - first), width), np.float32)
    step = max(1, _SLAB_BYTES // max(1, data.shape[1] * data.dtype.itemsize))
    for top in range(first, stop, step):
        end = min(top + step, stop)
        out[top - first : end - first] = data[top:end][:, columns]
    return out


def _mapped(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a NumPy array file ({error}): save it again with numpy.save") from error
    return found


def _hdf5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not a whole HDF5 file ({error}): fetch it again") from error


def _of_array(path: Path, key: str | None) -> ArrayResponses:
    if path.suffix.lower() == ".npy":
        data = _mapped(path)
        return ArrayResponses(path, None, _checked(str(path), data.shape, data.dtype))
    with _hdf5(path) as file:
        key = _the_key(path, file, key)
        return ArrayResponses(path, key, _checked(f"{path}::{key}", file[key].shape, file[key].dtype))


def _the_key(path: Path, file: h5py.File, key: str | None) -> str:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    if key is None:
        if len(found) != 1:
            some = ", ".join(found[:5]) or "none"
            raise InputError(f"{path} holds {len(found)} data sets ({some}): name one, as {path.name}::{(*found, 'data')[0]}")
        return found[0]
    if key.strip("/") not in found:
        raise InputError(f"{path} has no data set {key!r}, only {', '.join(found[:5]) or 'none'}: name one of them")
    return key.strip("/")


def _checked(where: str, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, int]:
    if len(shape) != 2 or not all(shape):
        raise InputError(f"{where} has shape {tuple(shape)}: give rows × channels, one row for each scan")
    if dtype.kind not in "fiu":
        raise InputError(f"{where} holds {dtype}: responses are real numbers")
    return int(shape[0]), int(shape[1])


@dataclass(frozen=True)
class ImageResponses:
    """A NIfTI image (x, y, z, scans) at the voxels that are inside all of some masks."""

    path: Path
    masks: tuple[Path, ...]

    @cached_property
    def shape(self) -> tuple[int, int]:
        image = load_image(self.path)
        if len(image.shape) != 4:
            raise InputError(f"{self.path} has shape {image.shape}: give an image of (x, y, z, scans)")
        for mask in self.masks:
            columns = columns_of(mask, None)
            if columns.inside is None or columns.inside.shape != image.shape[:3]:
                of = None if columns.inside is None else columns.inside.shape
                raise InputError(f"the mask {mask} has the grid {of}, {self.path} {image.shape[:3]}: give the mask of its space")
            if columns.affine is not None and not np.allclose(columns.affine, image.affine, atol=1e-2):
                raise InputError(f"the mask {mask} lies elsewhere in space than {self.path}: give the mask of its space")
        return int(image.shape[3]), int(inside_all(self.masks).sum())

    @property
    def files(self) -> tuple[Path, ...]:
        return self.path, *self.masks

    def read(self, rows: slice, columns: Columns) -> Floats:
        _ = self.shape
        return _image_rows(self.path, self.masks)[rows][:, columns]


@lru_cache(maxsize=8)
def inside_all(masks: tuple[Path, ...]) -> NDArray[np.bool_]:
    """The voxels inside all masks, (x, y, z)."""
    found = [columns_of(mask, None).inside for mask in masks]
    if not found or any(one is None or one.shape != found[0].shape for one in found if found[0] is not None):
        raise InputError(f"the masks {', '.join(path.name for path in masks)} have other grids: give masks of one space")
    inside = np.logical_and.reduce([one for one in found if one is not None])
    if not inside.any():
        raise InputError(f"no voxel is inside all of {', '.join(path.name for path in masks)}: give masks of one brain")
    return np.asarray(inside)


@lru_cache(maxsize=1)
def _image_rows(path: Path, masks: tuple[Path, ...]) -> Floats:
    """All scans of an image at the voxels of its masks, (scans, voxels)."""
    inside = inside_all(masks)
    data = load_image(path).dataobj
    scans = data.shape[3]
    out = np.empty((scans, int(inside.sum())), np.float32)
    step = scans if str(path).lower().endswith(".gz") else max(1, _SLAB_BYTES // (8 * inside.size))
    try:
        for top in range(0, scans, step):
            out[top : top + step] = np.asarray(data[..., top : top + step], np.float32)[inside].T
    except Exception as error:  # gzip, zlib and NumPy each say it in their own way
        raise InputError(f"{path} cannot be read to its end ({error}): fetch it again") from error
    return out


@dataclass(frozen=True)
class SurfaceResponses:
    """A GIFTI file with one array for each scan, or a CIFTI series; ``mask`` says which vertices of a GIFTI file are channels."""

    path: Path
    mask: Path | None

    @cached_property
    def shape(self) -> tuple[int, int]:
        rows = _surface_rows(self.path)
        if self.mask is None:
            return rows.shape[0], rows.shape[1]
        inside = columns_of(self.mask, None).inside
        if inside is None or len(inside) != rows.shape[1]:
            of = "another kind" if inside is None else f"{len(inside)} vertices"
            raise InputError(f"the mask {self.mask} has {of}, {self.path} {rows.shape[1]}: give the mask of this surface")
        return rows.shape[0], int(inside.sum())

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,) if self.mask is None else (self.path, self.mask)

    def read(self, rows: slice, columns: Columns) -> Floats:
        _ = self.shape
        found = _surface_rows(self.path)[rows]
        if self.mask is not None and (inside := columns_of(self.mask, None).inside) is not None:
            found = found[:, inside]
        return found[:, columns]


@lru_cache(maxsize=2)  # both hemispheres
def _surface_rows(path: Path) -> Floats:
    """(scans, vertices) of a GIFTI or CIFTI file."""
    image = load_image(path)
    try:
        if hasattr(image, "darrays"):
            parts = [np.asarray(one.data, np.float32) for one in image.darrays]
            if not parts or any(part.shape != parts[0].shape for part in parts):
                raise InputError(f"{path} holds arrays of several lengths, or none: give one array for each scan")
            found = parts[0].T if len(parts) == 1 and parts[0].ndim == 2 else np.stack(parts)
        else:
            found = np.asarray(image.dataobj, np.float32)
    except InputError:
        raise
    except Exception as error:  # base64, zlib and NumPy each say it in their own way
        raise InputError(f"{path} cannot be read to its end ({error}): fetch it again") from error
    if found.ndim != 2 or not found.size:
        raise InputError(f"{path} has shape {found.shape}: give one value for each scan and vertex")
    return found


@dataclass(frozen=True)
class SideBySide:
    """Several files of the same scans, such as two hemispheres: their channels one after the other."""

    parts: tuple[Responses, ...]

    @cached_property
    def shape(self) -> tuple[int, int]:
        rows = {part.shape[0] for part in self.parts}
        if len(rows) > 1:
            each = ", ".join(f"{part.files[0].name} {part.shape[0]}" for part in self.parts)
            raise InputError(f"files that stand side by side have other numbers of scans: {each}")
        return rows.pop(), sum(part.shape[1] for part in self.parts)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(file for part in self.parts for file in part.files))

    def read(self, rows: slice, columns: Columns) -> Floats:
        wanted = np.arange(self.shape[1])[columns]
        out = np.empty((len(range(*rows.indices(self.shape[0]))), len(wanted)), np.float32)
        start = 0
        for part in self.parts:
            here = np.flatnonzero((wanted >= start) & (wanted < start + part.shape[1]))
            if len(here):
                out[:, here] = part.read(rows, wanted[here] - start)
            start += part.shape[1]
        return out
