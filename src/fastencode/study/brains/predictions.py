"""Write predictions and responses of the test stories, for one layer and participant, to an HDF5 file.

    predicted   (t, v) float32   predictions of ridge fitted on all fit stories, in units of z-scored responses
    measured    (t, v) float32   responses, in the units of the data set; the mean over repeats where there are several
    voxels      (v,) int64       column of the data set's responses
    alpha       (v,) float64     chosen penalty, weight on ‖b‖²
    times       (t,) float64     when each row's scan began, in s from the onset of its story's recording
    story       (t,) text        the story of each row

Attributes ``participant``, ``model``, ``delays`` (in TRs) and ``layer``. Voxels are those in the region "all". Rows are the
scored rows, one test story after the other.

Legend: t = scored rows of all test stories, v = mapped voxels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.study.brains.layer_scores import Listener, Predicted
from fastencode.study.config import WHOLE

__all__ = ["write_predictions"]


def write_predictions(
    path: Path,
    found: Predicted,
    listener: Listener,
    voxels: NDArray[np.intp],
    times: Mapping[str, NDArray[np.float64]],
    names: Mapping[str, Any],
) -> None:
    """Write predictions and responses of the mapped voxels in the layout above.

    Parameters
    ----------
    path : Path
    found : Predicted
    listener : Listener
    voxels : ndarray, shape (all voxels of the listener,)
        Column of the data set's responses of each.
    times : test story → ndarray
        When its scored rows began.
    names : mapping
        The attributes.
    """
    mapped = listener.regions[WHOLE]
    whole = io.BytesIO()  # HDF5 itself does not say what a full disk is
    with h5py.File(whole, "w") as file:
        for name, values in (("predicted", found.values), ("measured", listener.test)):
            file.create_dataset(name, data=values[:, mapped], dtype=np.float32, compression="gzip", shuffle=True)
        file["voxels"], file["alpha"] = voxels[mapped].astype(np.int64), found.alpha[mapped]
        file["times"] = np.concatenate(list(times.values()))
        file.create_dataset(
            "story", data=np.repeat(list(times), list(map(len, times.values()))).tolist(), dtype=h5py.string_dtype()
        )
        file.attrs.update(names)
    path.write_bytes(whole.getbuffer())
