"""Values of vertices on surfaces of the brain, drawn by nilearn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError, require
from fastencode.study.figures.base import WIDE, escaped, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["fsaverage", "surface_figure"]

VIEWS = ("lateral", "medial")


@styled
def surface_figure(
    values: Mapping[str, NDArray[Any]],
    meshes: Mapping[str, Any],
    *,
    label: str,
    limit: float | None = None,
    background: Mapping[str, Any] | None = None,
) -> Figure:
    """Values on each hemisphere, seen from outside and from the middle.

    Parameters
    ----------
    values : mapping of str to ndarray, shape (n_vertices,)
        ``left``, ``right`` or both → a value for each vertex; NaN shows the surface itself.
    meshes : mapping of str to mesh
        The surface of each: (coordinates (n_vertices, 3), faces (n_faces, 3)), or a file or mesh that nilearn reads; those of
        :func:`fsaverage`, for example.
    label : str
        What the values are; stands beside the color bar.
    limit : float, optional
        The color bar reaches from −limit to limit; by default to the largest |value|.
    background : mapping of str to ndarray or file, optional
        Sulcal depth of each vertex, for shading.

    Returns
    -------
    matplotlib.figure.Figure
        The color map goes from dark blue over gray to light orange and grows lighter all the way, so that color-blind readers
        and black-and-white prints tell the signs apart: darker is below zero, lighter above.

    Raises
    ------
    InputError
        If a hemisphere is none of the two, or values and vertices differ in number.
    MissingLibraryError
        If matplotlib or nilearn is not installed.
    """
    plotting, loaded = require("nilearn.plotting", "neuro"), require("nilearn.surface", "neuro")
    checked = {side: _checked(side, given, meshes, loaded) for side, given in values.items()}
    if not checked:
        raise InputError("values is empty: give an array for the hemisphere 'left', 'right' or both")
    largest = max((float(np.nanmax(np.abs(one))) for one, _ in checked.values() if np.isfinite(one).any()), default=1.0)
    limit = largest or 1.0 if limit is None else limit
    figure = require("matplotlib.figure", "report").Figure(figsize=(WIDE, 2.3 if len(checked) == 2 else 3.6))
    colors = _colors()
    columns = len(checked) * len(VIEWS)
    for k, (side, view) in enumerate((side, view) for side in checked for view in VIEWS):
        ax = figure.add_axes((0.9 * k / columns, 0, 0.9 / columns, 0.92), projection="3d")
        one, mesh = checked[side]
        shade = None if background is None else background.get(side)
        plotting.plot_surf(
            mesh,
            one,
            bg_map=shade,
            hemi=side,
            view=view,
            cmap=colors,
            vmin=-limit,
            vmax=limit,
            colorbar=False,
            axes=ax,
            figure=figure,
        )
        ax.set_title(f"{side}, {view}", fontsize=9.5, y=0.98)
        ax.set_box_aspect(None, zoom=1.45)
        for drawn in ax.collections:
            drawn.set_rasterized(True)  # so many triangles would make a vector file of megabytes
    bar = require("matplotlib.cm", "report").ScalarMappable(
        require("matplotlib.colors", "report").Normalize(-limit, limit), colors
    )
    figure.colorbar(bar, cax=figure.add_axes((0.915, 0.2, 0.012, 0.6)), label=escaped(label))
    return figure


def fsaverage(size: str = "fsaverage5") -> tuple[dict[str, Any], dict[str, Any]]:
    """Inflated surfaces of the average brain, and their sulcal depth: ``meshes`` and ``background`` of :func:`surface_figure`.

    Parameters
    ----------
    size : str
        As nilearn calls it. "fsaverage5" (10 242 vertices a hemisphere) comes with nilearn, others are downloaded.

    Raises
    ------
    MissingLibraryError
        If nilearn is not installed.
    """
    found = require("nilearn.datasets", "neuro").fetch_surf_fsaverage(size)
    sides = ("left", "right")
    return {side: found[f"infl_{side}"] for side in sides}, {side: found[f"sulc_{side}"] for side in sides}


def _checked(side: str, given: NDArray[Any], meshes: Mapping[str, Any], loaded: Any) -> tuple[NDArray[np.float64], Any]:
    if side not in ("left", "right") or side not in meshes:
        raise InputError(
            f"values has the hemisphere {side!r}: give 'left' or 'right', and a mesh for each (meshes has {list(meshes)})"
        )
    mesh = loaded.load_surf_mesh(meshes[side])
    values = np.asarray(given, dtype=float).ravel()
    if len(values) != len(mesh.coordinates):
        raise InputError(f"{side}: {len(values)} values for a mesh of {len(mesh.coordinates)} vertices; give one for each vertex")
    return values, mesh


def _colors() -> Any:
    return require("matplotlib.colors", "report").LinearSegmentedColormap.from_list(
        "change", ["#00233b", "#0072b2", "#a8a8a8", "#f0a04b", "#fff3d6"]
    )
