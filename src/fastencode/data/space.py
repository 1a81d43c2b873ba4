"""What the columns of responses are, voxels of an image or vertices of surfaces, and values of columns back into these.

For images, a brain mask says which voxel is which column: its nonzero voxels in C order, as ``image[mask]`` and nilearn's
``NiftiMasker`` have them. For surfaces, columns are vertices, or those of them that a boolean mask leaves: one surface after the
other, say left and right.

Legend: V = columns of the responses, k = maps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError, require
from fastencode.files import check_file

__all__ = ["SAME_PLACE", "Columns", "called", "columns_of", "load_image", "surface_masks", "to_image", "to_surfaces", "volume_of"]

SAME_PLACE = 1e-3
"""mm between affines: some are stored as quaternions in float32."""


class Columns(NamedTuple):
    """What the columns of the responses are."""

    total: int | None
    inside: NDArray[np.bool_] | None = None
    """On the grid or surface, which places are columns, in C order."""
    affine: NDArray[np.float64] | None = None


def called(folder: Path, who: str) -> list[Path]:
    """Files ``<who>.<anything>`` of a folder, then the folder ``<who>`` in it; empty where there is none, or no such folder."""
    there = folder.iterdir() if folder.is_dir() else []
    found = [path for path in there if path.name == who or path.name.startswith(f"{who}.")]
    return sorted(found, key=lambda path: (path.is_dir(), path.name))


def to_image(values: ArrayLike, mask: Any) -> Any:
    """Put values of voxels where the voxels are: the way back from a score to a map.

    Parameters
    ----------
    values : array_like, shape (V,) or (k, V)
        One number for each column of the responses; k of them make k volumes.
    mask : path, nibabel image or fitted nilearn masker
        The brain mask that the responses were read with, nonzero inside. A masker's own ``inverse_transform`` is used.

    Returns
    -------
    nibabel.Nifti1Image, shape (x, y, z) or (x, y, z, k)
        0 outside the mask. Booleans become uint8, float16 float32, and 64-bit integers int32, which programs expect in NIfTI.
        From a masker: the image that it makes.

    Raises
    ------
    InputError
        If the number of values is not the mask's, or the mask is an array: that does not say where it lies.
    MissingLibraryError
        If nibabel is not installed (extra ``neuro``).
    """
    array = as_numpy(values, "values")
    if hasattr(mask, "inverse_transform"):
        _check_fitted(mask)
        return mask.inverse_transform(array)
    columns = columns_of(mask, None)
    if columns.inside is None or columns.affine is None:
        raise InputError(f"mask is {type(mask).__name__}, which does not say where voxels lie: give the mask image")
    if array.ndim not in (1, 2) or array.shape[-1] != columns.total:
        raise InputError(f"values have shape {array.shape}, but the mask has {columns.total} voxels: give (V,) or (k, V)")
    array = _storable(array)
    volume = np.zeros((*columns.inside.shape, *array.shape[:-1]), dtype=array.dtype)
    volume[columns.inside] = array.T
    return require("nibabel", "neuro").Nifti1Image(volume, columns.affine)


def surface_masks(path: Path) -> list[NDArray[np.bool_]] | None:
    """The masks of surfaces in a .npy file or in a folder of such files, in the order of their names; None for other files.

    Raises
    ------
    InputError
        If a file is damaged or holds anything but one boolean a vertex, or a folder holds none.
    """
    if path.is_dir():
        files = sorted(path.glob("*.npy"))
        if not files:
            raise InputError(f"{path} holds no .npy file: expected a mask of booleans for each surface, say lh.npy and rh.npy")
    elif path.suffix == ".npy":
        files = [path]
    else:
        return None
    masks = []
    for file in files:
        try:
            mask = np.load(check_file(file), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{file} is not a NumPy array file ({error}): save it again with numpy.save") from error
        if mask.dtype != bool or mask.ndim != 1:
            raise InputError(f"{file} holds {mask.dtype} of shape {mask.shape}: give one boolean for each vertex")
        masks.append(mask)
    return masks


def to_surfaces(values: ArrayLike, masks: Sequence[ArrayLike]) -> list[Any]:
    """Put values of vertices where the vertices are, one image for each surface.

    Parameters
    ----------
    values : array_like, shape (V,) or (k, V)
        One number for each column of the responses; k of them make k arrays in each image.
    masks : sequence of array_like of bool, each of shape (vertices of a surface,)
        Which vertices are columns, surface after surface.

    Returns
    -------
    list of nibabel.gifti.GiftiImage
        NaN outside the masks, 0 for whole numbers and booleans.

    Raises
    ------
    InputError
        If the number of values is not the masks'.
    MissingLibraryError
        If nibabel is not installed (extra ``neuro``).
    """
    nibabel = require("nibabel", "neuro")
    array, inside = as_numpy(values, "values"), [np.asarray(mask, dtype=bool) for mask in masks]
    total = sum(int(mask.sum()) for mask in inside)
    if array.ndim not in (1, 2) or array.shape[-1] != total:
        raise InputError(f"values have shape {array.shape}, but the masks have {total} vertices: give (V,) or (k, V)")
    array = _storable(np.atleast_2d(array))
    array = array.astype({"f": np.float32, "u": np.uint8, "i": np.int32}[array.dtype.kind], copy=False)  # what GIFTI has
    images, start = [], 0
    for mask in inside:
        stop = start + int(mask.sum())
        whole = np.full((len(array), len(mask)), np.nan if array.dtype.kind == "f" else 0, dtype=array.dtype)
        whole[:, mask] = array[:, start:stop]
        images.append(nibabel.gifti.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(one) for one in whole]))
        start = stop
    return images


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        limits = np.iinfo(np.int32)
        if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
            raise InputError(f"values reach {max(array.max(), -array.min())}, too large for an image of int32: give floats")
        return array.astype(np.int32)
    return array


def _check_fitted(masker: Any) -> None:
    if not hasattr(masker, "mask_img_"):
        raise InputError(f"the {type(masker).__name__} has not been fitted: call its fit() first")


def columns_of(mask: Any, n_voxels: int | None) -> Columns:
    """The columns of a mask: path, nibabel image, fitted nilearn masker or boolean array; their number alone without one."""
    if mask is None:
        columns = Columns(n_voxels)
    elif isinstance(mask, np.ndarray):
        if mask.dtype != bool:
            raise InputError(f"mask is an array of {mask.dtype}: give booleans, True where a column of the responses is")
        columns = Columns(int(mask.sum()), mask)
    elif isinstance(mask, str | os.PathLike) and (masks := surface_masks(Path(mask))) is not None:
        inside = np.concatenate(masks)
        columns = Columns(int(inside.sum()), inside)
    else:
        columns = _mask_image(mask)
    if n_voxels is not None and columns.total != n_voxels:
        named = f"the mask {mask}" if isinstance(mask, str | os.PathLike) else "the mask"
        raise InputError(f"{named} has {columns.total} voxels, the responses have {n_voxels}: give the mask of these responses")
    return columns


def _mask_image(mask: Any) -> Columns:
    what = "mask"
    if hasattr(mask, "inverse_transform"):
        _check_fitted(mask)
        if any(hasattr(mask, own) for own in ("labels_img", "maps_img", "seeds")):
            raise InputError(f"the columns of a {type(mask).__name__} are regions already: give a NiftiMasker, or the mask image")
        mask = mask.mask_img_
    elif isinstance(mask, str | os.PathLike):
        what = str(mask)
    data, affine = volume_of(mask, what)
    if not np.isfinite(data).all():
        raise InputError(f"{what} holds {(~np.isfinite(data)).sum()} values that are NaN or infinite: set what is outside to 0")
    inside = data != 0
    if not inside.any():
        raise InputError(f"{what} is 0 everywhere: no voxel is inside")
    return Columns(int(inside.sum()), inside, affine)


def volume_of(image: Any, what: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Values (x, y, z) and affine of a NIfTI image or its path."""
    if isinstance(image, str | os.PathLike):
        image = load_image(Path(image))
    if not hasattr(image, "affine") or not hasattr(image, "dataobj"):
        raise InputError(
            f"{what} is {type(image).__name__}, not an image in space: give a NIfTI image, or separate a CIFTI file into GIFTI"
            " (wb_command -cifti-separate)"
        )
    try:
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # what a file that is cut off raises depends on where: OSError, EOFError, zlib.error …
        raise InputError(f"{what} cannot be read to its end ({error}): copy it again") from error
    if data.ndim > 3 and data.shape[3:] == (1,) * (data.ndim - 3):
        data = data.reshape(data.shape[:3])
    if data.ndim != 3:
        raise InputError(f"{what} has shape {data.shape}: give one volume, for example image.slicer[..., 0]")
    return data, np.asarray(image.affine, dtype=np.float64)


def load_image(path: Path) -> Any:
    """An image through nibabel; ``InputError`` if it is missing or damaged."""
    nibabel = require("nibabel", "neuro")
    try:
        return nibabel.load(check_file(path))
    except InputError:
        raise
    except Exception as error:  # nibabel lets what gzip, XML and header parsers raise escape
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}): it is damaged; copy it again") from error
