"""Regions of interest as voxel indices, from whatever a lab has.

A region is a sorted array of indices into the columns of the responses; ``space.py`` says what the columns are. Files::

    .nii .nii.gz   a label image, or one region; 0 is no region
    .gii           the same for vertices (.label.gii with its table of names, .func.gii, .shape.gii)
    .npy           a boolean mask, a list of indices, or a label for each voxel
    .json          {name: [indices]}, {name: [true or false for each voxel]}, {name: [names of other regions]}, or all of these
    .txt           one region: its indices, and comments after #

Whole numbers, as many as there are voxels, may be meant as indices or as one number for each voxel. A list names no index twice,
so numbers that repeat are for the voxels: labels in .npy, a mask of 0 and 1 in .json and .txt. What can be taken in both ways,
such as ``numpy.arange(n_voxels)``, is refused.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fastencode.data.space import SAME_PLACE, Columns, called, columns_of, load_image, to_image, volume_of
from fastencode.errors import FastencodeWarning, InputError, suggestion
from fastencode.files import check_file, read_json, read_text

__all__ = ["BRAIN_TUNING_SETS", "find_rois", "join_rois", "overlaps", "read_rois", "to_image"]

Rois = dict[str, NDArray[np.intp]]

BRAIN_TUNING_SETS: dict[str, tuple[str, ...]] = {
    name: tuple(areas.split())
    for name, areas in {
        "AG": "PFm PGs PGi TPOJ2 TPOJ3",
        "LTC": "STSda STSva STGa TE1a TE2a TGv TGd A5 STSdp STSvp PSL STV TPOJ1",
        "IFG": "44 45 IFJa IFSp",
        "MFG": "55b",
        "primary auditory": "A1",
        "early auditory": "A1 PBelt MBelt LBelt RI A4",
    }.items()
}
"""Sets of areas of the Glasser atlas (HCP-MMP1) for ``join_rois``: language and auditory regions of arXiv:2510.21520, table 1."""

_SUFFIX = re.compile(r"(?:\.(?:label|func|shape))?(\.gii|\.npy|\.json|\.txt|\.nii)(?:(?<=\.nii)\.gz)?$")
_AFFIXES = re.compile(r"^(?:[lr]h\.)?(?:[LR]_)?|_ROI$")  # L_A1_ROI, rh.R_55b_ROI
_RESAMPLE = "resample it to the mask (nilearn.image.resample_to_img, interpolation='nearest')"


def read_rois(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mask: Any = None,
    *,
    n_voxels: int | None = None,
    names: Mapping[int, str] | None = None,
) -> Rois:
    """Read regions of interest from a file of any of the kinds above, or from all in a folder.

    Parameters
    ----------
    path : path or sequence of paths
        A file or a folder. A sequence of GIFTI files is one surface after the other, say left and right: the vertices of the
        second count on from those of the first, and regions of the same name are joined.
    mask : path, nibabel image, fitted nilearn masker or boolean array, optional
        Which places are columns of the responses: a brain mask (nonzero inside), whose shape and affine images must have; or a
        boolean array of the shape of the grid, or one value for each vertex.
    n_voxels : int, optional
        Number of columns, for lists of indices without a mask.
    names : mapping of int to str, optional
        Label → name, for images and arrays of labels; a label without a name is called by its number, or if it is the only one
        of a file, as the file is.

    Returns
    -------
    dict of str to ndarray, shape (k,), intp
        Sorted indices, in the order of the labels or the file. Regions may overlap: ``overlaps`` counts.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind; does not fit the mask; holds NaN, fractions or negative labels; indices
        lie outside the columns or stand twice, or could be labels; a name is defined twice or refers to nothing; or no region has
        a voxel.
    MissingLibraryError
        If nibabel is not installed (extra ``neuro``).

    Warns
    -----
    FastencodeWarning
        If regions have no voxel among the columns: they are left out.
    """
    columns = columns_of(mask, n_voxels)
    found: Rois = {}
    for files in _parts(path):
        for name, voxels in _read(files, columns, names or {}).items():
            if name in found:
                raise InputError(f"region {name!r} is defined twice, once more in {files[0]}: rename one")
            found[name] = voxels
    empty = [name for name, voxels in found.items() if not len(voxels)]
    if len(empty) == len(found):
        raise InputError(f"{path} holds no region with a voxel among the columns: check that the mask and the file fit")
    if empty:
        warnings.warn(
            f"{path}: {len(empty)} of {len(found)} regions have no voxel among the columns and are left out: {', '.join(empty)}",
            FastencodeWarning,
            stacklevel=2,
        )
    return {name: voxels for name, voxels in found.items() if len(voxels)}


def find_rois(folders: Sequence[Path], who: str, mask: Any = None, *, n_voxels: int | None = None) -> Rois:
    """The regions of one participant, of all files and folders that are called so, read as :func:`read_rois` does.

    Parameters
    ----------
    folders : sequence of Path
        May hold ``<who>.<suffix>``, of the kinds above, and a folder ``<who>``. A folder that is not there holds nothing.
    who : str
    mask, n_voxels
        As for ``read_rois``.

    Returns
    -------
    dict of str to ndarray, shape (k,), intp
        Empty where nothing is called so.

    Raises
    ------
    InputError
        As of ``read_rois``, and if a region is defined in two of them.
    """
    found: Rois = {}
    paths = [path for folder in folders for path in called(folder, who)]
    for path in (path for path in paths if path.is_dir() or _SUFFIX.search(path.name)):
        for name, voxels in read_rois(path, mask, n_voxels=n_voxels).items():
            if name in found:
                raise InputError(f"region {name!r} of {who} is defined twice, once more in {path}: keep one")
            found[name] = voxels
    return found


def join_rois(rois: Mapping[str, ArrayLike], sets: Mapping[str, Sequence[str]]) -> Rois:
    """Join regions into larger ones, say areas of an atlas into lobes.

    Parameters
    ----------
    rois : mapping of str to array_like of int
        Regions, as ``read_rois`` returns them.
    sets : mapping of str to sequence of str
        Name → the regions to join, for example ``BRAIN_TUNING_SETS``. ``"A1"`` also means the atlas's own names for it in both
        hemispheres, ``"L_A1_ROI"`` and ``"R_A1_ROI"``.

    Returns
    -------
    dict of str to ndarray, shape (k,), intp
        Sorted indices, each once.

    Raises
    ------
    InputError
        If none of a set's regions is there, or one is a mask.

    Warns
    -----
    FastencodeWarning
        If some are not: what is left is joined.
    """
    known: dict[str, list[str]] = {}
    for name in rois:
        known.setdefault(_AFFIXES.sub("", name), []).append(name)
    joined: Rois = {}
    absent: list[str] = []
    for joint, members in sets.items():
        members = [members] if isinstance(members, str) else members
        parts = {member: [member] if member in rois else known.get(member, []) for member in members}
        absent += [f"{member} of {joint}" for member, labels in parts.items() if not labels]
        voxels = [_listed(label, rois[label]) for labels in parts.values() for label in labels]
        if not voxels:
            raise InputError(f"none of {list(members)}, which make up {joint!r}, is a region: the regions are {_few(rois)}")
        joined[joint] = np.unique(np.concatenate(voxels))
    if absent:
        warnings.warn(f"no such regions, the rest was joined: {', '.join(absent)}", FastencodeWarning, stacklevel=2)
    return joined


def overlaps(rois: Mapping[str, ArrayLike]) -> dict[tuple[str, str], int]:
    """Return the pairs of regions that share voxels, and how many; empty when no two do. Masks are an ``InputError``."""
    names = list(rois)
    voxels = [_listed(name, rois[name]) for name in names]
    if not names:
        return {}
    ends = np.cumsum([0, *(len(v) for v in voxels)])
    together = np.concatenate(voxels)
    shape = (len(names), int(together.max(initial=-1)) + 1)
    member = sparse.csr_array((np.ones(len(together), dtype=np.int64), together, ends), shape=shape)
    shared = sparse.triu(member @ member.T, k=1).tocoo()  # R Rᵀ: voxels that two regions have in common
    pairs = sorted(zip(shared.row.tolist(), shared.col.tolist(), shared.data.tolist(), strict=True))
    return {(names[i], names[j]): n for i, j, n in pairs}


def _listed(name: str, voxels: ArrayLike) -> NDArray[np.intp]:
    if np.asarray(voxels).dtype == bool:
        raise InputError(f"region {name!r} is a mask: give the indices of its voxels, numpy.flatnonzero of it")
    return np.asarray(voxels, dtype=np.intp)


def _parts(path: Any) -> Iterator[list[Path]]:
    """What is read together: a file, each file of a folder, or the files of a sequence."""
    if not isinstance(path, str | os.PathLike):
        files = [Path(part) for part in path]
        if not files:
            raise InputError("path is an empty sequence: give at least one file")
        yield files
    elif not Path(path).is_dir():
        yield [Path(path)]
    else:
        files = [p for p in sorted(Path(path).iterdir()) if _SUFFIX.search(p.name) and not p.name.startswith(".")]
        if not files:
            raise InputError(f"{path} holds no file of regions: see fastencode.data.rois for the formats")
        yield from ([file] for file in files)


def _read(files: list[Path], columns: Columns, names: Mapping[int, str]) -> Rois:
    kinds = {match[1] if (match := _SUFFIX.search(file.name)) else None for file in files}
    if kinds == {".gii"}:
        return _surfaces(files, columns, names)
    path, kind = files[0], kinds.pop()
    if len(files) > 1:
        raise InputError(f"{path} and others are not all GIFTI: read other files one by one, or from a folder")
    if kind == ".nii":
        data, affine = volume_of(path, str(path))
        return _place(path, _labeled(path, data, names), data.shape, columns, affine)
    if kind == ".npy":
        return _array(path, columns, names)
    if kind == ".json":
        return _table(path, columns)
    if kind == ".txt":
        return {_name(path): _indices(str(path), _numbers(path), columns)}
    raise InputError(f"{check_file(path)} is of no kind that is read here: give .nii, .nii.gz, .gii, .npy, .json or .txt")


def _name(path: Path) -> str:
    return _SUFFIX.sub("", path.name)


def _labeled(path: Path, data: NDArray[Any], names: Mapping[int, str]) -> Rois:
    """Name → sorted places (C order, of all) that carry a label other than 0."""
    values = data.ravel()
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path} holds {values.dtype}: labels are whole numbers")
    if not np.isfinite(values).all():
        count = (~np.isfinite(values)).sum()
        raise InputError(f"{path} holds {count} values that are NaN or infinite: set the background to 0")
    broken = values != np.rint(values) if values.dtype.kind == "f" else np.zeros(0, dtype=bool)
    if broken.any():
        raise InputError(
            f"{path} holds {broken.sum()} values that are not whole, the first {values[broken][0]:g}: labels are whole numbers;"
            " compare a map of probabilities with a threshold first"
        )
    if values.size and values.min() < 0:
        raise InputError(f"{path} holds the label {values.min():g}: labels are 0 (background) and above")
    labels = [int(label) for label in np.unique(values) if label]
    if len(labels) == 1:
        names = {labels[0]: _name(path), **names}
    found: Rois = {}
    for label in labels:
        name, places = names.get(label, str(label)), np.flatnonzero(values == label)
        found[name] = np.union1d(found[name], places) if name in found else places
    return found


def _place(
    path: Path, regions: Rois, shape: tuple[int, ...], columns: Columns, affine: NDArray[np.float64] | None = None
) -> Rois:
    """From places of the grid, surface or columns to columns."""
    if columns.inside is not None and shape == columns.inside.shape:
        apart = 0.0 if affine is None or columns.affine is None else np.abs(affine - columns.affine).max()
        if apart > SAME_PLACE:
            raise InputError(f"{path} lies elsewhere than the mask: their affines differ by up to {apart:g}; {_RESAMPLE}")
        inside = columns.inside.ravel()
        column = np.cumsum(inside) - 1
        return {name: column[places[inside[places]]] for name, places in regions.items()}
    if len(shape) == 1 and columns.total in (None, shape[0]):
        return regions
    if columns.inside is None and len(shape) == 3:
        raise InputError(f"{path} is an image {shape}: give mask=, whose nonzero voxels are the responses' columns")
    there = f"the mask has shape {columns.inside.shape}" if columns.inside is not None else f"there are {columns.total} voxels"
    what_next = _RESAMPLE if len(shape) == 3 else "give this participant's file"
    raise InputError(f"{path} has shape {shape}, but {there}: {what_next}")


def _surfaces(files: list[Path], columns: Columns, names: Mapping[int, str]) -> Rois:
    joined: dict[str, list[NDArray[np.intp]]] = {}
    start = 0
    for path in files:
        image = load_image(path)
        arrays = getattr(image, "darrays", [])
        if len(arrays) != 1 or arrays[0].data.ndim != 1:
            raise InputError(f"{path} holds {len(arrays)} arrays, expected one of one number a vertex: give each map its file")
        own = {int(label.key): label.label.strip() for label in image.labeltable.labels if label.label}
        for name, places in _labeled(path, arrays[0].data, {**own, **names}).items():
            joined.setdefault(name, []).append(places + start)
        start += len(arrays[0].data)
    return _place(files[0], {name: np.concatenate(parts) for name, parts in joined.items()}, (start,), columns)


def _array(path: Path, columns: Columns, names: Mapping[int, str]) -> Rois:
    check_file(path)
    try:
        data = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a NumPy array file ({error}): save it again with numpy.save") from error
    whole = data.ndim == 1 and data.dtype.kind in "iu"
    if whole and data.shape != (columns.total,) and (columns.inside is None or data.shape != columns.inside.shape):
        return {_name(path): _indices(str(path), data, columns)}
    if whole and data.shape == (columns.total,) and len(np.unique(data)) == len(data):
        raise InputError(
            f"{path} holds {len(data)} different whole numbers, as many as there are voxels: they may be indices, of one region,"
            " or labels, of a region for each voxel; save a mask (booleans) for the first, or list the indices in .json"
        )
    return _place(path, _labeled(path, data, names), data.shape, columns)


def _table(path: Path, columns: Columns) -> Rois:
    table = read_json(path)
    if not isinstance(table, dict) or not all(isinstance(listed, list) for listed in table.values()):
        raise InputError(f"{path} is not a table of regions: expected {{name: [voxel indices or names of regions]}}")

    def voxels(name: str, above: tuple[str, ...] = ()) -> NDArray[np.intp]:
        if name in above:
            raise InputError(f"{path}: region {name!r} contains itself ({' > '.join((*above, name))}): list voxels at the end")
        if name not in table:
            hint = suggestion(name, table, otherwise=f"the regions are {_few(table)}", most=3)
            raise InputError(f"{path}: region {above[-1]!r} contains {name!r}, which is not defined there: {hint}")
        listed = table[name]
        if listed and all(isinstance(entry, str) for entry in listed):
            return np.unique(np.concatenate([voxels(member, (*above, name)) for member in listed]))
        return _indices(f"{path}, region {name!r}", listed, columns)

    return {name: voxels(name) for name in table}


def _numbers(path: Path) -> list[int]:
    numbers: list[int] = []
    for line, content in enumerate(read_text(path).splitlines(), 1):
        for word in content.partition("#")[0].replace(",", " ").split():
            if not word.isdecimal():
                raise InputError(f"{path}, line {line}: {word!r} is not the index of a voxel: give whole numbers from 0 on")
            numbers.append(int(word))
    return numbers


def _indices(where: str, listed: Any, columns: Columns) -> NDArray[np.intp]:
    """A list of column indices, or a mask of them, checked and sorted."""
    if isinstance(listed, list) and 0 < sum(isinstance(entry, bool) for entry in listed) < len(listed):
        raise InputError(f"{where} holds true or false beside other values: give a mask, or a list of indices")
    try:
        given = np.asarray(listed)
    except ValueError as error:
        raise InputError(f"{where} is a list of lists: give voxel indices") from error
    total = columns.total
    if total is None:
        raise InputError(f"{where} is a list of indices: give mask= or n_voxels=, so that they can be checked")
    if given.size == 0:
        return np.zeros(0, dtype=np.intp)
    if given.ndim == 1 and given.dtype == bool:
        if len(given) != total:
            raise InputError(f"{where}: the mask has {len(given)} entries, but there are {total} voxels")
        return np.flatnonzero(given)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InputError(f"{where} holds {given.dtype} of shape {given.shape}: give whole numbers, the indices of voxels")
    if len(given) == total and ((given == 0) | (given == 1)).all():
        if len(np.unique(given)) == total:
            raise InputError(f"{where} holds {given.tolist()}: this may be a mask or indices; write true and false for a mask")
        return np.flatnonzero(given)
    outside = given[(given < 0) | (given >= total)]
    if len(outside):
        raise InputError(
            f"{where}: {len(outside)} of {len(given)} indices lie outside 0 … {total - 1}, the first {outside[0]}: indices count"
            " the columns of the responses from 0"
        )
    indices, counts = np.unique(given, return_counts=True)
    if len(indices) < len(given):
        twice = indices[counts > 1]
        raise InputError(
            f"{where}: {len(twice)} voxels stand there more than once, the first {twice[0]}: list each once (labels would need"
            f" one for each of the {total} voxels, and .npy)"
        )
    return indices.astype(np.intp)


def _few(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:8]) + (", …" if len(names) > 8 else "")
