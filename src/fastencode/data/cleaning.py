"""Responses without confounds and slow drifts: one regression within a run, before anything is z-scored.

Axis letters: t scan, v channel, k confound.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastencode.data.responses import Columns, Floats, Responses
from fastencode.errors import InputError
from fastencode.timing.clean import slow_cosines

__all__ = ["Cleaned", "drifts"]


def drifts(n: int, tr: float, period: float) -> NDArray[np.float64]:
    """Cosines with periods of at least ``period`` s, the drifts that SPM's high-pass filter takes out: (n, k).

    They are those of :func:`fastencode.timing.clean.detrend_cosine`, without the constant.
    """
    if not period > 2 * tr:
        raise InputError(f"high_pass is {period:g} s: give a period well above two TRs, {2 * tr:g} s, for example 128")
    return slow_cosines(n, period / tr)[:, 1:]


class Cleaned:
    """Responses less what confounds and their mean explain, by least squares on the scans that count.

    Scans that do not count, dummy and censored ones, have no part in the regression. What it predicts is subtracted from them,
    too. A channel with gaps stays NaN throughout.

    Parameters
    ----------
    of : Responses
    confounds : ndarray, shape (t, k)
        For every scan of the file. Columns that are not finite where scans count are an error; elsewhere they count as 0.
    counts : ndarray of bool, shape (t,)
        Which scans the regression is fitted on.
    name : str
        Whose they are, for messages.

    Raises
    ------
    InputError
        If there are other numbers of scans, gaps, or no more scans than confounds.
    """

    def __init__(self, of: Responses, confounds: NDArray[np.float64], counts: NDArray[np.bool_], name: str) -> None:
        rows = of.shape[0]
        if len(confounds) != rows or len(counts) != rows:
            raise InputError(f"{name}: {len(confounds)} rows of confounds for {rows} scans: give those of this run")
        if not np.isfinite(confounds[counts]).all():
            gaps = np.flatnonzero(~np.isfinite(confounds[counts]).all(axis=0))
            raise InputError(f"{name}: {len(gaps)} confounds have gaps, the first is number {gaps[0] + 1}: leave them out")
        if counts.sum() <= confounds.shape[1] + 1:
            raise InputError(f"{name}: {confounds.shape[1]} confounds for {counts.sum()} scans that count: use fewer confounds")
        self._of, self._counts = of, counts
        filled = np.where(np.isfinite(confounds), confounds, 0.0)
        self._X_tk = np.column_stack([np.ones(rows), filled])

    @property
    def shape(self) -> tuple[int, int]:
        return self._of.shape

    @property
    def files(self) -> tuple[Path, ...]:
        return self._of.files

    @cached_property
    def _inverse_kt(self) -> NDArray[np.float64]:
        """The pseudo-inverse of the confounds at the scans that count; columns are scaled first, as their units differ."""
        scale = np.linalg.norm(self._X_tk[self._counts], axis=0)
        scale[scale == 0] = 1
        return np.linalg.pinv(self._X_tk[self._counts] / scale) / scale[:, None]

    def read(self, rows: slice, columns: Columns) -> Floats:
        """(rows, columns): ``Y − X (X₁⁺ Y₁)``, where 1 means the scans that count."""
        Y_tv = self._of.read(slice(None), columns).astype(np.float64)
        fitted = self._X_tk[rows] @ (self._inverse_kt @ Y_tv[self._counts])
        return np.asarray(Y_tv[rows] - fitted, np.float32)


def names_of(confounds: Sequence[str]) -> str:
    """Confounds for the record: their number and the first few."""
    return f"{len(confounds)} confounds regressed out: {', '.join(confounds[:6])}{', …' if len(confounds) > 6 else ''}"
