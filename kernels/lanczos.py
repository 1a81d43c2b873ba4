"""Windowed-sinc (Lanczos) resampling: weights and their application in one pass over the data.

The NumPy line it equals, with W the dense (n_new, n_old) matrix of weights that is never built::

    out_nc += W_no @ data_oc[order_o]

Eight old samples at a time are made float64, a strip of columns after the other, and added to every new row they reach before
the next eight are read: the data is read once, and what is being added and added to stays in a first-level cache. Meanwhile the
next eight are on their way. A row's sum is one chain in the order of old time, whatever the strips: in pieces, or with other
columns beside it, it has the same bits.

Axis letters: o old time, n new time, c column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.kernels.jit import njit, prefetch

__all__ = ["lanczos_columns", "lanczos_weight"]

# Old samples and columns at a time: 12 kB in float64, beside 1.5 kB of each of the six or seven new rows they reach.
SAMPLES = 8
STRIP = 192
LINE = 64  # bytes that a cache sends for at once
# Taylor's coefficients of sin(pi x), highest first: up to half the distance of zeros the rest is below 1e-17.
SINE = np.array([(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in reversed(range(11))])


@njit
def sine_pi(x: float) -> float:
    """``sin(pi x)``, exactly 0 at whole numbers; unlike the library's, several at once where a loop calls it."""
    nearest = np.floor(x + 0.5)
    rest = x - nearest
    square, series = rest * rest, 0.0
    for k in range(len(SINE)):
        series = series * square + SINE[k]
    odd = nearest - 2.0 * np.floor(0.5 * nearest)
    return (1.0 - 2.0 * odd) * rest * series


@njit
def lanczos_weight(x: float, lobes: float) -> float:
    """``lobes sin(pi x) sin(pi x / lobes) / (pi x)^2`` within ±lobes, 1 at 0, 0 outside."""
    angle = math.pi * x
    product = lobes * sine_pi(x) * sine_pi(x / lobes) / (angle * angle)
    inside = product if abs(x) >= 1e-9 else 1.0  # to 1e-17; further in, the square would underflow to 0 / 0
    return inside if abs(x) <= lobes else 0.0


@njit
def weigh(new: float, old_o: NDArray[np.float64], cutoff: float, lobes: float, weight_o: NDArray[np.float64]) -> None:
    """Weights of old samples in one new row."""
    for o in range(len(old_o)):
        weight_o[o] = lanczos_weight((new - old_o[o]) * cutoff, lobes)


@njit
def unpack(data_c: NDArray[Any], rectify: bool, part: int, tile_c: NDArray[np.float64]) -> None:
    """A row's values as float64: all of them, or their negative (part 0) or positive (part 1) part."""
    for c in range(len(data_c)):
        # NaN fails the comparison and so goes into the positive part: it must not vanish.
        negative = data_c[c] if rectify and data_c[c] < 0 else 0.0
        tile_c[c] = negative if rectify and part == 0 else data_c[c] - negative


@njit
def add_rows(
    weight_o: NDArray[np.float64], tile_oc: NDArray[np.float64], first: int, last: int, out_c: NDArray[np.float64]
) -> None:
    """``out_c += weight_o[first:last] @ tile_oc[first:last]``, one row after the other."""
    o = first
    while o + 4 <= last:  # four to a pass: the sums are loaded and stored once for them
        w0, w1, w2, w3 = weight_o[o], weight_o[o + 1], weight_o[o + 2], weight_o[o + 3]
        row0, row1, row2, row3 = tile_oc[o], tile_oc[o + 1], tile_oc[o + 2], tile_oc[o + 3]
        for c in range(len(out_c)):
            out_c[c] = out_c[c] + w0 * row0[c] + w1 * row1[c] + w2 * row2[c] + w3 * row3[c]
        o += 4
    while o < last:
        weight, row = weight_o[o], tile_oc[o]
        for c in range(len(out_c)):
            out_c[c] = out_c[c] + weight * row[c]
        o += 1


@njit
def fetch(row_c: NDArray[Any]) -> None:
    """Have a row's values sent for."""
    for c in range(0, len(row_c), LINE // row_c.itemsize):
        prefetch(row_c, c)


@njit
def lanczos_columns(
    data_oc: NDArray[Any],
    order_o: NDArray[np.int64],
    old_o: NDArray[np.float64],
    new_n: NDArray[np.float64],
    first_n: NDArray[np.int64],
    last_n: NDArray[np.int64],
    cutoff: float,
    lobes: float,
    rectify: bool,
    out_nc: NDArray[np.float64],
    sum_n: NDArray[np.float64],
    gross_n: NDArray[np.float64],
) -> None:
    """Add the resampled data to ``out_nc``, the weights to ``sum_n`` and their magnitudes to ``gross_n``.

    ``old_o`` and ``new_n`` ascend; ``data_oc[order_o[o]]`` is the row of ``old_o[o]``, and those from ``first_n`` up to
    ``last_n`` are within reach of a new time. With ``rectify``, the first half of ``out_nc`` takes the columns' negative parts
    and the second half their positive parts.
    """
    parts = 2 if rectify else 1
    width = data_oc.shape[1]
    weight_no = np.empty((len(new_n), SAMPLES))
    tile_oc = np.empty((SAMPLES, STRIP))
    bottom = 0
    for begin in range(0, len(old_o), SAMPLES):
        end = min(begin + SAMPLES, len(old_o))
        while bottom < len(new_n) and last_n[bottom] <= begin:
            bottom += 1
        top = bottom
        while top < len(new_n) and first_n[top] < end:
            first, last = max(first_n[top], begin), max(min(last_n[top], end), begin)
            weight_o = weight_no[top - bottom, first - begin : last - begin]
            weigh(new_n[top], old_o[first:last], cutoff, lobes, weight_o)
            for weight in weight_o:
                sum_n[top] += weight
                gross_n[top] += abs(weight)
            top += 1
        if top == bottom:  # nobody is near: these rows are not even read
            continue
        for part in range(parts):
            for left in range(0, width, STRIP):
                right = min(left + STRIP, width)
                for o in range(begin, end):
                    unpack(data_oc[order_o[o], left:right], rectify, part, tile_oc[o - begin])
                for n in range(bottom, top):
                    # Every new row has its share of the next block sent for while it is added to.
                    done, count = n - bottom, top - bottom
                    for o in range(end + done * SAMPLES // count, min(end + (done + 1) * SAMPLES // count, len(old_o))):
                        fetch(data_oc[order_o[o], left:right])
                    first, last = max(first_n[n], begin) - begin, min(last_n[n], end) - begin
                    add_rows(weight_no[n - bottom], tile_oc, first, last, out_nc[n, part * width + left : part * width + right])
