"""Windowed-sinc (Lanczos) resampling: weights and their application in one pass over the data.

The NumPy line it equals, with W the dense (n_new, n_old) matrix of weights that is never built::

    out_nc = W_no @ data_oc

Every old sample reaches only the new times inside its window, so the loop runs over old samples and adds each one to the few
rows it reaches: the data is read once, and the rows being written stay in cache. Sums are float64 whatever the data's dtype.

Axis letters: o old time, n new time, c column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.kernels.jit import njit

__all__ = ["lanczos_columns", "lanczos_weight"]


@njit
def lanczos_weight(x: float, lobes: float) -> float:
    """``lobes sin(pi x) sin(pi x / lobes) / (pi x)^2`` within ±lobes, 1 at 0, 0 outside."""
    if abs(x) > lobes:
        return 0.0
    if abs(x) < 1e-9:  # the weight is 1 to 1e-17 there; further in, the square would underflow to 0 / 0
        return 1.0
    angle = math.pi * x
    return lobes * math.sin(angle) * math.sin(angle / lobes) / (angle * angle)


@njit
def lanczos_columns(
    data_oc: NDArray[Any],
    old_o: NDArray[np.float64],
    new_n: NDArray[np.float64],
    cutoff: float,
    lobes: float,
    start: int,
    rectify: bool,
    out_nc: NDArray[np.float64],
    sum_n: NDArray[np.float64],
    gross_n: NDArray[np.float64],
) -> None:
    """Add resampled columns of the data, from column ``start`` on, to ``out_nc``; add up the weights and their magnitudes.

    ``new_n`` ascends; ``old_o`` may have any order. With ``rectify``, the first half of ``out_nc`` takes the columns' negative
    parts and the second half their positive parts.
    """
    width = out_nc.shape[1] // 2 if rectify else out_nc.shape[1]
    reach = lobes / cutoff
    for o in range(data_oc.shape[0]):
        # A row sliced out here lets the inner loops vectorize; indexed by [o, start + c] they ran four times slower.
        data_c = data_oc[o, start : start + width]
        first = np.searchsorted(new_n, old_o[o] - reach)
        last = np.searchsorted(new_n, old_o[o] + reach, side="right")
        for n in range(first, last):
            weight = lanczos_weight((new_n[n] - old_o[o]) * cutoff, lobes)
            sum_n[n] += weight
            gross_n[n] += abs(weight)
            if rectify:
                negative_c = out_nc[n, :width]
                positive_c = out_nc[n, width:]
                for c in range(width):
                    # NaN fails the comparison and so goes into the positive part: it must not vanish.
                    negative = data_c[c] if data_c[c] < 0 else 0.0
                    negative_c[c] += weight * negative
                    positive_c[c] += weight * (data_c[c] - negative)
            else:
                out_c = out_nc[n]
                for c in range(width):
                    out_c[c] += weight * data_c[c]
