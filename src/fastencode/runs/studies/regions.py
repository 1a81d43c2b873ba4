"""Functional regions (auditory, late_language), built from a data set's regions of interest, whatever atlas these come from."""

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
"""Functional region → the regions it consists of: names of sets of areas, or areas of the Glasser et al. (2016) atlas."""


def with_functions(
    regions: Mapping[str, NDArray[np.intp]], functions: Mapping[str, Sequence[str]] = FUNCTIONS
) -> dict[str, NDArray[np.intp]]:
    """Add functional regions that a data set does not have under their own names.

    Parameters
    ----------
    regions : region → ndarray of int
        Voxels of each region: columns of the responses.
    functions : functional region → names of its parts

    Returns
    -------
    dict
        ``regions``, and each functional region of which at least one part is known: the voxels of all known parts.
    """
    found = dict(regions)
    for name, parts in functions.items():
        with warnings.catch_warnings(), suppress(InputError):  # no part is known
            warnings.simplefilter("ignore", FastencodeWarning)  # some parts are not known
            if name not in regions:
                found |= join_rois(regions, {name: parts})
    return found


def regions_of(data: Dataset, who: str, rois: str | None) -> dict[str, NDArray[np.intp]]:
    """Region → voxels of a participant, with functional regions.

    Parameters
    ----------
    data : Dataset
    who : str
        The participant.
    rois : str or None
        Folder of regions of interest. None: those of the data set.
    """
    found = data.rois(who) if rois is None else find_rois([Path(rois)], who, None, n_voxels=data.n_voxels(who))
    return with_functions(found)
