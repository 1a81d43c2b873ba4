"""Clips of a recording through the frozen CNN, as ``speech/extract.py`` keeps them: what the trainer reads instead of sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastencode.errors import InputError
from fastencode.speech.store import open_features

__all__ = ["clips_at"]


def clips_at(path: Path, ends: np.ndarray) -> np.ndarray:
    """The clips that end at given times.

    Parameters
    ----------
    path : Path
        A file of :func:`fastencode.speech.extract.extract_frames`.
    ends : ndarray, shape (rows,)
        In s from the start of the recording, ascending.

    Returns
    -------
    ndarray, shape (rows, f, c), float32
        In memory.

    Raises
    ------
    InputError
        If no clip ends at one of the times.
    """
    with open_features(path) as file:
        times = file["times"][:]
        index = np.searchsorted(times, np.asarray(ends) - 1e-6)
        if len(index) and index.max() >= len(times):
            raise InputError(
                f"rows end at {ends[0]:g} to {ends[-1]:g} s, but {path} has clips from {times[0]:g} to {times[-1]:g} s: is this"
                " the recording that was heard?"
            )
        if not np.allclose(times[index], ends, rtol=0, atol=1e-5):
            raise InputError(f"rows end at other times than the clips of {path}: rows must end at multiples of the TR")
        return np.array(file["features"][index[0] : index[-1] + 1][index - index[0]]) if len(index) else file["features"][:0]
