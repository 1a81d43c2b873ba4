"""Tables, voxel files and provenance of all finished fits in an output folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastencode.errors import FastencodeWarning, require
from fastencode.runs.engine import Stages
from fastencode.runs.fits import Records
from fastencode.runs.making import Signature, read_signature
from fastencode.runs.responses import ceilings_of, null_row, voxels_of
from fastencode.study.brains.maps import write_maps, write_voxels
from fastencode.study.brains.tables import (
    Key,
    Label,
    contrast_rows,
    left_out_rows,
    score_rows,
    share_rows,
    signed_rank_rows,
    test_rows,
)
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.findings.means import lag_rows, mean_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ceiling_is_known", "origin_of", "runs_of", "tables_of", "warn_of_narrow_grids", "write_voxel_files"]

Value = TypeVar("Value")


def tables_of(stages: Stages, found: Records, config: AlignConfig) -> dict[str, pd.DataFrame]:
    """All tables of ``align`` by name, as ``write_report`` takes them; a table may have no rows.

    Parameters
    ----------
    stages : Stages
    found : Records
    config : AlignConfig
        The settings of the fits.

    Raises
    ------
    MissingLibraryError
        If pandas is not installed.

    Warns
    -----
    FastencodeWarning
        If there are too few participants for a test over them.
    """
    pandas = require("pandas", "tune")
    scores = pandas.DataFrame(score_rows(found.scores, found.columns, found.fit_rows))
    contrasts = pandas.DataFrame(contrast_rows(found.scores, found.columns))
    responses = {who: stages.path(f"responses/{who}") for who in found.columns}
    return {
        "scores": scores,
        "means": pandas.DataFrame(mean_rows(found.scores, found.columns)),
        "tests": pandas.DataFrame(signed_rank_rows(scores, contrasts)),
        "contrasts": contrasts,
        "partition": pandas.DataFrame(share_rows(found.shares, found.bands, found.columns)),
        "lags": pandas.DataFrame(lag_rows(found.scores, found.columns)),
        "test_stories": pandas.DataFrame(test_rows(found.by_test, found.columns, found.fit_rows)),
        "leave_one_out": pandas.DataFrame(left_out_rows(found.left_out, found.held_out, found.columns)),
        "autocorrelation": pandas.DataFrame([null_row(folder, who, config) for who, folder in responses.items()]),
    }


def write_voxel_files(stages: Stages, found: Records, mask_of: Callable[[str], Any] | None = None) -> None:
    """Write ``voxels/<participant>.h5`` for each participant, and remove files of other participants and all images.

    Parameters
    ----------
    stages : Stages
    found : Records
    mask_of : callable, optional
        Returns the mask of a participant, for images in ``maps``, or None for no images of them. None: no images at all.
    """
    for path in (stages.root / "voxels").glob("*.h5"):
        if path.stem not in found.columns:
            path.unlink()
    shutil.rmtree(stages.root / "maps", ignore_errors=True)  # they show scores that may have changed
    for who in found.columns:
        responses = stages.path(f"responses/{who}")
        path = stages.root / "voxels" / f"{who}.h5"
        path.parent.mkdir(exist_ok=True)
        write_voxels(
            path,
            _own(found.scores, who),
            found.columns[who][WHOLE],
            *voxels_of(responses),
            by_test={story: _own(of, who) for story, of in found.by_test.items()},
            ceilings=ceilings_of(responses),
            left_out=_own(found.left_out, who),
            held_out={key: tuple(rows) for key, rows in _own(found.held_out, who).items()},
        )
        if mask_of is not None and (mask := mask_of(who)) is not None:
            write_maps(stages.root / "maps", path, mask)


def _own(records: Mapping[Key, Value], who: str) -> dict[tuple[Label, int], Value]:
    """The records of one participant."""
    return {(label, layer): one for (label, whose, layer), one in records.items() if whose == who}


def origin_of(stages: Stages, found: Records) -> dict[str, Any]:
    """Provenance of the tables: models and settings of features, SHA-256 of sounds and of files of responses."""
    features: dict[str, Any] = {}
    for label, fit in _fits(stages, found):
        one = features.setdefault(label.source, {**fit.settings["made"], "stories": {}})
        keys = sorted(fit.settings["features"].items())
        one["stories"] |= {story: key["audio"] for story, key in keys if "audio" in key}
    responses = {who: read_signature(stages.path(f"responses/{who}")) for who in found.columns}
    return {"features": features, "responses": {who: dict(one.inputs) for who, one in responses.items() if one is not None}}


def runs_of(stages: Stages, found: Records) -> set[str]:
    """All runs that were fitted or scored."""
    return {run for _, fit in _fits(stages, found) for run in fit.settings["scans"]}


def _fits(stages: Stages, found: Records) -> Iterator[tuple[Label, Signature]]:
    """The signature (settings and inputs) of each fit."""
    for label, who, layer in found.scores:
        fit = read_signature(stages.path(f"fits/{label.folder}/{who}/layer-{layer:02d}"))
        if fit is not None:
            yield label, fit


def ceiling_is_known(stages: Stages, found: Records) -> bool:
    """Whether any participant's noise ceiling of all test runs together is known."""
    return any(voxels_of(stages.path(f"responses/{who}"))[2] is not None for who in found.columns)


def warn_of_narrow_grids(found: Records, delays: tuple[int, ...]) -> None:
    """Warn about each model that penalties outside the grid would improve, at these delays."""
    for model in dict.fromkeys(label.name for label, _, _ in found.scores if label.delays == delays):
        narrow = np.array(
            [one.narrow for (label, _, _), one in found.scores.items() if (label.name, label.delays) == (model, delays)]
        )
        for count, wanted in zip(narrow.sum(axis=0), ("smaller", "larger"), strict=True):
            if count:
                warnings.warn(
                    f"{model}: in {count} of {len(narrow)} fits {wanted} penalties than those of the grid would predict better: "
                    "widen align.alphas",
                    FastencodeWarning,
                    stacklevel=2,
                )
