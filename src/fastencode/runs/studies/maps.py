"""Maps of the change of r on the cortical surface, for responses that are vertices of fsaverage5."""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray

from fastencode.runs.engine import Stages
from fastencode.runs.responses import voxels_of
from fastencode.runs.studies.results import Results
from fastencode.study import figures
from fastencode.study.findings.verdicts import layer_thirds
from fastencode.study.report.report import Map

__all__ = ["change_maps"]

_VERTICES = 10242  # of one hemisphere of fsaverage5, which nilearn includes


def change_maps(stages: Stages, results: Results) -> list[Map]:
    """Maps of r of each tuned condition minus r of the first condition, mean over late layers, for each participant.

    Parameters
    ----------
    stages : Stages
    results : Results

    Returns
    -------
    list of Map
        Empty if responses do not have the 2 × 10 242 vertices of fsaverage5, or nilearn is not installed.
    """
    if importlib.util.find_spec("nilearn") is None:
        return []
    tuned = dict.fromkeys(one.condition for one in results.graph.names.readings if one.tuning is not None)
    first = next(iter(results.graph.names.readings)).condition
    found = []
    for who in results.found.columns:
        columns, total, _ = voxels_of(stages.path(f"responses/{who}"))
        before = _late(results, first, who)
        if total != 2 * _VERTICES or before is None:
            continue
        for condition in tuned:
            after = _late(results, condition, who)
            if after is not None:
                values = np.full(total, np.nan)
                values[columns] = after - before
                found.append(_map(values, who, condition, first))
    return found


def _late(results: Results, condition: str, who: str) -> NDArray[np.float64] | None:
    """Mean r of each voxel over late layers and seeds, shape (v,); None if nothing was scored."""
    known = results.conditions
    own = {
        (key[0].source, key[2]): one.r
        for key, one in results.found.scores.items()
        if not key[0].less and known[key[0].source][0] == condition and key[1] == who
    }
    if not own:
        return None
    thirds = layer_thirds(layer for _, layer in own)
    late = thirds.get("late", thirds.get("only", []))
    return np.asarray(np.mean([r for (_, layer), r in own.items() if layer in late], axis=0))


def _map(values: NDArray[np.float64], who: str, condition: str, first: str) -> Map:
    meshes, background = figures.fsaverage()
    sides = {"left": values[:_VERTICES], "right": values[_VERTICES:]}
    label = f"Δr, {condition} − {first}"
    figure = figures.surface_figure(sides, meshes, label=label, background=background)
    assert figure is not None
    known = values[np.isfinite(values)]
    return Map(
        name=f"{who}-{condition}",
        heading=f"{who}: {condition} − {first}, late layers",
        caption=f"Difference of r at each vertex of {who}, mean over late layers. Vertices that were not scored are left blank.",
        alt=f"Surface of the brain of {who}: {label} from {known.min():+.3f} to {known.max():+.3f}, mean {known.mean():+.3f}.",
        png=figures.png(figure),
        svg=figures.svg(figure),
    )
