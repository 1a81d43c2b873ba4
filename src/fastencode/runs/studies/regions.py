"""Regions of a study by their function, made of those of a data set, so that one file serves brains that are cut differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUPS", "with_groups"]

_ANGULAR = ("PFm", "PGs", "PGi", "TPOJ2", "TPOJ3")
_TEMPORAL = ("STSda", "STSva", "STGa", "TE1a", "TE2a", "TGv", "TGd", "A5", "STSdp", "STSvp", "PSL", "STV", "TPOJ1")
_FRONTAL = ("44", "45", "IFJa", "IFSp", "55b")

GROUPS: Mapping[str, tuple[str, ...]] = {
    "auditory": ("A1", "PBelt", "MBelt", "LBelt", "RI", "A4", "AC", "Heschl"),
    "late_language": (*_ANGULAR, *_TEMPORAL, *_FRONTAL, "AG", "LTC", "ATL", "PTL", "IFG", "MFG"),
}
"""Labels of the atlas of Glasser et al. (2016), as arXiv 2510.21520, table 1, groups them, and the abbreviations used there."""


def with_groups(
    regions: Mapping[str, NDArray[np.intp]], groups: Mapping[str, Any] = GROUPS
) -> dict[str, NDArray[np.intp]]:
    """Regions, and those of a group that are not there under its name: the voxels of all its parts that are.

    A part is found with L_, R_, lh., rh., left_ or right_ before it and _L, _R, _lh, _rh or _ROI after it, too.
    """
    found = dict(regions)
    for name, parts in groups.items():
        if name in regions:
            continue
        chosen = [voxels for label, voxels in regions.items() if _plain(label) in {_plain(part) for part in parts}]
        if chosen:
            found[name] = np.unique(np.concatenate(chosen))
    return found


def _plain(label: str) -> str:
    """A label without its hemisphere."""
    for before in ("L_", "R_", "lh.", "rh.", "left_", "right_"):
        label = label.removeprefix(before)
    for after in ("_ROI", "_L", "_R", "_lh", "_rh"):
        label = label.removesuffix(after)
    return label.casefold()
