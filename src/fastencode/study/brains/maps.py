"""Scores of every voxel: one HDF5 file for each participant, and images of it.

    ceiling              (V,) float32     noise ceiling; absent where the test story was heard once
    ceilings/<story>     (V,) float32     that of each test story, where there are several; absent where it was heard once
    <model-at-delays>/   one group for each model at its delays, with the attributes ``model``, ``delays`` and ``layers``
        r                (l, V) float32   correlation of prediction and response over the test story
        p, p_fdr         (l, V) float32   one-sided, by permuted blocks of scans; adjusted over a layer's voxels
        alpha            (l, V) float32   chosen penalty, weight on ‖b‖²
        at_edge          (l, V) int8      −1 or +1 where that is the smallest or largest of the grid
        test_stories/<story>/             each test story by itself, where there are several; with the attribute ``layers``
            r, p, p_fdr  (l, V) float32   as above
        leave_one_out/<story>/            each story that was fitted on, where ``--leave-one-out`` left it out; likewise
            r            (l, V) float32   correlation of response and prediction by a ridge on all other stories
            alpha        (l, V) float32   the penalty that this ridge chose

With several test stories ``r`` and what stands beside it are of all of them together. The ridges of ``test_stories`` are those of
``r``, so their penalties are ``alpha`` above.

Columns are those of the responses. Voxels that were not mapped are NaN, in ``at_edge`` 0.

Legend: V = columns of the responses, l = layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.data.space import surface_masks, to_image, to_surfaces
from fastencode.files import whole_file
from fastencode.study.brains.layer_scores import LayerScores, LeftOut
from fastencode.study.brains.tables import Label, adjusted_pvalues
from fastencode.study.inference.significance import FALSE_DISCOVERIES

__all__ = ["write_maps", "write_voxels"]

Layers = Mapping[tuple[Label, int], LayerScores]
"""Label, layer → scores of one participant: the layers of a label follow each other."""


def write_voxels(
    path: Path,
    found: Layers,
    mapped: NDArray[np.intp],
    voxels: NDArray[np.intp],
    n_voxels: int,
    ceiling: Any = None,
    *,
    by_test: Mapping[str, Layers] | None = None,
    ceilings: Mapping[str, Any] | None = None,
    left_out: Mapping[tuple[Label, int], LeftOut] | None = None,
    held_out: Mapping[tuple[Label, int], Sequence[str]] | None = None,
) -> None:
    """Write the scores of one participant's voxels in the layout above.

    Parameters
    ----------
    path : Path
        Written as a whole, or not at all.
    found : mapping of (Label, layer) to LayerScores
    mapped : ndarray, shape (m,)
        Which entries of the scores count: those of the region of all voxels.
    voxels : ndarray, shape (v,)
        Column of the responses of each entry.
    n_voxels : int
        Columns of the responses, V.
    ceiling : ndarray, shape (v,), optional
        Noise ceiling of each entry.
    by_test : mapping of str to mapping of (Label, layer) to LayerScores, optional
        The same as ``found`` of each test story, where there are several.
    ceilings : mapping of str to ndarray, shape (v,), optional
        Noise ceiling of each entry in each test story that was repeated, where there are several.
    left_out : mapping of (Label, layer) to LeftOut, optional
    held_out : mapping of (Label, layer) to sequence of str, optional
        The stories that were left out, in the order of the rows of ``left_out``; needed with it.
    """

    def spread(values: Any, dtype: Any = np.float32) -> NDArray[Any]:
        whole = np.full(n_voxels, np.nan if np.dtype(dtype).kind == "f" else 0, dtype=dtype)
        whole[voxels[mapped]] = np.asarray(values)[mapped]
        return whole

    def scores(rows: Collection[LayerScores]) -> dict[str, list[NDArray[Any]]]:
        adjusted = [spread(adjusted_pvalues(one, mapped)) for one in rows]
        return {"r": [spread(one.r) for one in rows], "p": [spread(one.p) for one in rows], "p_fdr": adjusted}

    with whole_file(path) as partial, h5py.File(partial, "w") as file:
        if ceiling is not None:
            file["ceiling"] = spread(ceiling)
        for story, values in (ceilings or {}).items():
            file[f"ceilings/{story}"] = spread(values)
        for label, group in groupby(found.items(), key=lambda item: item[0][0]):
            layers = {layer: one for (_, layer), one in group}
            here = file.create_group(label.folder)
            here.attrs.update(model=label.name, delays=label.delays)
            alpha = [spread(one.alpha) for one in layers.values()]
            at_edge = [spread(one.at_edge, np.int8) for one in layers.values()]
            _write(here, layers, {**scores(layers.values()), "alpha": alpha, "at_edge": at_edge})
            for story, of in (by_test or {}).items():
                alone = here.create_group(f"test_stories/{story}")
                _write(alone, layers, scores([of[label, layer] for layer in layers]))
            for story, pairs in _each_left_out(label, left_out or {}, held_out or {}).items():
                columns = {"r": [spread(r) for r, _ in pairs.values()], "alpha": [spread(alpha) for _, alpha in pairs.values()]}
                _write(here.create_group(f"leave_one_out/{story}"), pairs, columns)


def _write(group: h5py.Group, layers: Iterable[int], columns: Mapping[str, Sequence[NDArray[Any]]]) -> None:
    group.attrs["layers"] = list(layers)
    for name, rows in columns.items():
        group.create_dataset(name, data=np.stack(rows), compression="gzip", shuffle=True)


def _each_left_out(
    label: Label, left_out: Mapping[tuple[Label, int], LeftOut], held_out: Mapping[tuple[Label, int], Sequence[str]]
) -> dict[str, dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Story → layer → (r, penalties) of one label."""
    found: dict[str, dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for (of, layer), one in left_out.items():
        for story, r, alpha in zip(held_out[of, layer], one.r, one.alpha, strict=True) if of == label else ():
            found.setdefault(story, {})[layer] = r, alpha
    return found


def write_maps(folder: Path, voxel_file: Path, mask: Any) -> list[Path]:
    """Images of what :func:`write_voxels` wrote.

    ``<who>_<model-at-delays>_r`` has one volume for each layer, ``…_best-layer`` the number of the layer with the highest r
    where that is significant at a false discovery rate of 5 %, ``<who>_ceiling`` the noise ceiling; who is the stem of the file.
    Voxels that were not mapped, and those outside the mask of a surface, are NaN.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    voxel_file : Path
    mask : Path or nibabel image
        The brain mask of the responses, for NIfTI; or a .npy file of booleans for each vertex or a folder of such files, one for
        each surface in the order of their names, for GIFTI.

    Returns
    -------
    list of Path
        The files: ``.nii.gz``, or for surfaces ``_<name of the mask>.func.gii``.

    Raises
    ------
    InputError
        If the mask does not fit the responses or cannot be read.
    MissingLibraryError
        If nibabel is not installed (extra ``neuro``).
    """
    images: dict[str, NDArray[Any]] = {}
    with h5py.File(voxel_file) as file:
        for name, here in file.items():
            if name == "ceiling":
                images[name] = here[...]
            if name in ("ceiling", "ceilings"):
                continue
            r, layers = here["r"][...], here.attrs["layers"]
            images[f"{name}_r"] = r
            best = np.where(np.isnan(r), -np.inf, r).argmax(axis=0)[None]
            significant = np.take_along_axis(here["p_fdr"][...], best, axis=0)[0] <= FALSE_DISCOVERIES
            images[f"{name}_best-layer"] = np.where(significant, layers[best[0]], np.nan).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    surfaces, names, written = None, list[str](), list[Path]()
    if isinstance(mask, Path):
        surfaces = surface_masks(mask)
        names = [path.stem for path in sorted(mask.glob("*.npy"))] if mask.is_dir() else [mask.stem]
    for name, values in images.items():
        start = f"{voxel_file.stem}_{name}"
        if surfaces is None:
            made = {folder / f"{start}.nii.gz": to_image(values, mask)}
        else:
            files = (folder / f"{start}_{surface}.func.gii" for surface in names)
            made = dict(zip(files, to_surfaces(values, surfaces), strict=True))
        for path, image in made.items():
            image.to_filename(path)
            written.append(path)
    return written
