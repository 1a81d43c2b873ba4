"""Windowed-sinc (Lanczos) resampling: weights and their application in one pass over the data.

The NumPy line it equals, with W the dense (n_new, n_old) matrix of weights that is never built::

    out_nc += W_no @ data_oc[order_o]

Eight old samples at a time are added to every new row they reach, a strip of columns after the other, so that what is added and
added to stays in a first-level cache, and the data is read once from memory: the next eight are sent for meanwhile. Rows that all
eight reach are done two at a time, each value serving both. A row's sum is one chain in the order of old time, whatever the
strips: in pieces, or with other columns beside it, it has the same bits. Tried and slower: one new row at a time, a float64 copy
of the strip first, eight samples to a pass, whole rows instead of strips, and sending the next samples to the first level.

Axis letters: o old time, n new time, c column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.kernels.jit import njit, prefetch

__all__ = ["lanczos_columns", "lanczos_weight"]

SAMPLES = 8  # old ones at a time
# 384 columns of float32 or 256 of float64: eight samples of them, and the sums of six or seven rows, are about 30 kB.
CACHE = 3072
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
def split(row_c: NDArray[Any], part: int, tile_c: NDArray[np.float64]) -> None:
    """The negative (part 0) or the positive (part 1) part of a row's values."""
    for c in range(len(row_c)):
        # NaN fails the comparison and so goes into the positive part: it must not vanish.
        negative = row_c[c] if row_c[c] < 0 else 0.0
        tile_c[c] = negative if part == 0 else row_c[c] - negative


@njit
def add_one(weight: float, row_c: NDArray[Any], out_c: NDArray[np.float64]) -> None:
    """``out_c += weight * row_c``."""
    for c in range(len(out_c)):
        out_c[c] = out_c[c] + weight * row_c[c]


@njit
def add_all(
    rows_oc: NDArray[Any],
    place_o: NDArray[np.int64],
    left: int,
    a_o: NDArray[np.float64],
    a_c: NDArray[np.float64],
    b_o: NDArray[np.float64],
    b_c: NDArray[np.float64],
) -> None:
    """``a_c += a_o @ rows`` and ``b_c += b_o @ rows``, one row after the other, for the columns from ``left`` on."""
    right = left + len(a_c)
    for o in range(0, SAMPLES, 4):  # four to a pass: the sums are loaded and stored once for them
        a0, a1, a2, a3 = a_o[o], a_o[o + 1], a_o[o + 2], a_o[o + 3]
        b0, b1, b2, b3 = b_o[o], b_o[o + 1], b_o[o + 2], b_o[o + 3]
        row0, row1 = rows_oc[place_o[o], left:right], rows_oc[place_o[o + 1], left:right]
        row2, row3 = rows_oc[place_o[o + 2], left:right], rows_oc[place_o[o + 3], left:right]
        for c in range(len(a_c)):
            x0, x1, x2, x3 = float(row0[c]), float(row1[c]), float(row2[c]), float(row3[c])
            a_c[c] = a_c[c] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            b_c[c] = b_c[c] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3


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
    width = data_oc.shape[1]
    strip = max(1, min(CACHE // (data_oc.itemsize + 4), width))
    weight_no = np.empty((len(new_n), SAMPLES))
    tile_oc, at_o = np.empty((SAMPLES, strip)), np.arange(SAMPLES)
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
        if top == bottom:  # nobody is near: these samples are not even read
            continue
        # From low up to high: the rows that all of these samples reach, an even number.
        low = high = bottom
        if end == begin + SAMPLES:
            while low < top and last_n[low] < end:
                low += 1
            high = low
            while high + 1 < top and first_n[high + 1] <= begin:
                high += 2
        for part in range(2 if rectify else 1):
            for left in range(0, width, strip):
                right = min(left + strip, width)
                to, upto = part * width + left, part * width + right
                if rectify:
                    for o in range(begin, end):
                        split(data_oc[order_o[o], left:right], part, tile_oc[o - begin])
                for n in range(low, high, 2):
                    # Every pair of rows has its share of the next samples sent for while it is added to.
                    share, shares = (n - low) // 2, (high - low) // 2
                    for o in range(end + share * SAMPLES // shares, min(end + (share + 1) * SAMPLES // shares, len(old_o))):
                        fetch(data_oc[order_o[o], left:right])
                    a_o, a_c = weight_no[n - bottom], out_nc[n, to:upto]
                    b_o, b_c = weight_no[n + 1 - bottom], out_nc[n + 1, to:upto]
                    if rectify:
                        add_all(tile_oc, at_o, 0, a_o, a_c, b_o, b_c)
                    else:
                        add_all(data_oc, order_o[begin:end], left, a_o, a_c, b_o, b_c)
                for n in range(bottom, top):
                    for o in range(max(first_n[n], begin), begin if low <= n < high else min(last_n[n], end)):
                        if rectify:
                            add_one(weight_no[n - bottom, o - begin], tile_oc[o - begin], out_nc[n, to:upto])
                        else:
                            add_one(weight_no[n - bottom, o - begin], data_oc[order_o[o], left:right], out_nc[n, to:upto])
