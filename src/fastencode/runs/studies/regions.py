"""Regions of a study by their function, made of those of a data set, so that one file serves brains that are cut differently."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.data.rois import BRAIN_TUNING_SETS, find_rois, join_rois
from fastencode.errors import FastencodeWarning, InputError

__all__ = ["FUNCTIONS", "regions_of", "with_functions"]

_LANGUAGE = ("AG", "LTC", "IFG", "MFG")

FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "auditory": ("early auditory", "AC", *BRAIN_TUNING_SETS["early auditory"]),
    "late_language": (*_LANGUAGE, *(area for name in _LANGUAGE for area in BRAIN_TUNING_SETS[name])),
}
"""Function → regions that it is made of: sets of areas by their names, or the areas of the atlas of Glasser et al. (2016)."""


def with_functions(
    regions: Mapping[str, NDArray[np.intp]], functions: Mapping[str, Sequence[str]] = FUNCTIONS
) -> dict[str, NDArray[np.intp]]:
    """Regions, and those of a function that are not there under its name: the voxels of all its parts that are."""
    found = dict(regions)
    for name, parts in functions.items():
        with warnings.catch_warnings(), suppress(InputError):  # none of the parts is there
            warnings.simplefilter("ignore", FastencodeWarning)  # some are not
            if name not in regions:
                found |= join_rois(regions, {name: parts})
    return found


def regions_of(data: Dataset, who: str, rois: str | None) -> dict[str, NDArray[np.intp]]:
    """The regions of a participant, from a folder of regions, or of the data set itself; and those of a function."""
    found = data.rois(who) if rois is None else find_rois([Path(rois)], who, None, n_voxels=data.n_voxels(who))
    return with_functions(found)
