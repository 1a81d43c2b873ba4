"""Windowed-sinc (Lanczos) resampling: weights and their application in one pass over the data.

The NumPy line it equals, with W the dense (n_new, n_old) matrix of weights that is never built::

    out_nc += W_no @ data_oc[order_o]

Eight old samples at a time are added to every new row that they reach, one strip of columns after another. So samples and sums
stay in a first-level cache, and the data are read once from memory: the next eight samples are prefetched meanwhile. Rows that
all eight reach are done two at a time, so each value read serves two rows. A row's sum is one chain in the order of old time,
whatever the strips: its bits do not depend on pieces or on other columns. Tried and slower: one new row at a time, a float64 copy
of the strip first, four samples to a pass, whole rows instead of strips, slices of rows in the innermost functions (Numba counts
references to each), and prefetching to the first-level cache, or every other line.

Axis letters: o old time, n new time, c column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.kernels.jit import njit, prefetch

__all__ = ["lanczos_columns", "lanczos_weight"]

SAMPLES = 8  # old samples that are added at a time
# 384 columns of float32 or 256 of float64: eight samples of them, and the sums of six or seven rows, are about 30 kB.
CACHE = 3072
LINE = 64  # bytes of a cache line
U = np.uint64  # Numba does not check unsigned indices for negative values, so the loop vectorizes
# Taylor's coefficients of sin(pi x), highest first: up to half the distance of zeros the rest is below 1e-17.
SINE = np.array([(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in reversed(range(11))])


@njit
def sine_pi(x: float) -> float:
    """``sin(pi x)``, exactly 0 at whole numbers. Loops that call it vectorize, which they do not with the library's sine."""
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
    """Fill ``weight_o`` with the weights of old samples in one new row."""
    for o in range(len(old_o)):
        weight_o[o] = lanczos_weight((new - old_o[o]) * cutoff, lobes)


@njit
def split(row_c: NDArray[Any], part: int, tile_c: NDArray[np.float64]) -> None:
    """Fill ``tile_c`` with the negative (part 0) or the positive (part 1) part of a row's values."""
    for c in range(len(row_c)):
        # NaN must not vanish: it fails the comparison and so goes into the positive part.
        negative = row_c[c] if row_c[c] < 0 else 0.0
        tile_c[c] = negative if part == 0 else row_c[c] - negative


@njit
def add_one(
    weight: float,
    rows_oc: NDArray[Any],
    o: np.uint64,
    left: np.uint64,
    out_nc: NDArray[np.float64],
    n: np.uint64,
    to: np.uint64,
    count: np.uint64,
) -> None:
    """``out_nc[n, to : to + count] += weight * rows_oc[o, left : left + count]``."""
    for c in range(count):
        out_nc[n, to + c] = out_nc[n, to + c] + weight * rows_oc[o, left + c]


@njit
def add_all(
    weight_no: NDArray[np.float64],
    rows_oc: NDArray[Any],
    place_o: NDArray[np.int64],
    first: np.uint64,
    left: np.uint64,
    out_nc: NDArray[np.float64],
    n: np.uint64,
    row: np.uint64,
    to: np.uint64,
    count: np.uint64,
    two: bool,
) -> None:
    """``out_nc[row] += weight_no[n] @ rows`` for eight rows of the data, added one by one; with ``two`` the next row as well.

    ``rows`` are ``rows_oc[place_o[first : first + 8], left : left + count]``; the columns of ``out_nc`` begin at ``to``.
    """
    a0, b0, o0 = weight_no[n, U(0)], weight_no[n + U(1), U(0)], U(place_o[first + U(0)])
    a1, b1, o1 = weight_no[n, U(1)], weight_no[n + U(1), U(1)], U(place_o[first + U(1)])
    a2, b2, o2 = weight_no[n, U(2)], weight_no[n + U(1), U(2)], U(place_o[first + U(2)])
    a3, b3, o3 = weight_no[n, U(3)], weight_no[n + U(1), U(3)], U(place_o[first + U(3)])
    a4, b4, o4 = weight_no[n, U(4)], weight_no[n + U(1), U(4)], U(place_o[first + U(4)])
    a5, b5, o5 = weight_no[n, U(5)], weight_no[n + U(1), U(5)], U(place_o[first + U(5)])
    a6, b6, o6 = weight_no[n, U(6)], weight_no[n + U(1), U(6)], U(place_o[first + U(6)])
    a7, b7, o7 = weight_no[n, U(7)], weight_no[n + U(1), U(7)], U(place_o[first + U(7)])
    for c in range(count):
        x0 = float(rows_oc[o0, left + c])
        x1 = float(rows_oc[o1, left + c])
        x2 = float(rows_oc[o2, left + c])
        x3 = float(rows_oc[o3, left + c])
        x4 = float(rows_oc[o4, left + c])
        x5 = float(rows_oc[o5, left + c])
        x6 = float(rows_oc[o6, left + c])
        x7 = float(rows_oc[o7, left + c])
        at = to + c
        out_nc[row, at] = out_nc[row, at] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4 + a5 * x5 + a6 * x6 + a7 * x7
        if two:
            out_nc[row + U(1), at] = (
                out_nc[row + U(1), at] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4 + b5 * x5 + b6 * x6 + b7 * x7
            )


@njit
def fetch(rows_oc: NDArray[Any], o: int, left: int, right: int) -> None:
    """Prefetch the columns ``left`` to ``right`` of row ``o``."""
    for c in range(left, right, LINE // rows_oc.itemsize):
        prefetch(rows_oc, o, c)


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

    ``old_o`` and ``new_n`` ascend. ``data_oc[order_o[o]]`` is the row of ``old_o[o]``. Old samples ``first_n[n]`` to
    ``last_n[n]`` (excluded) are within reach of new time n. With ``rectify``, the first half of ``out_nc`` takes the columns'
    negative parts and the second half their positive parts.
    """
    width = data_oc.shape[1]
    strip = max(1, min(CACHE // (data_oc.itemsize + 4), width))
    weight_no = np.empty((len(new_n) + 1, SAMPLES))
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
        if top == bottom:  # no new time is near: these samples are not read
            continue
        # New rows low to high (excluded) are reached by all of these samples.
        low = high = bottom
        if end == begin + SAMPLES:
            while low < top and last_n[low] < end:
                low += 1
            high = low
            while high < top and first_n[high] <= begin:
                high += 1
        for part in range(2 if rectify else 1):
            for left in range(0, width, strip):
                right = min(left + strip, width)
                to, count = part * width + left, right - left
                if rectify:
                    for o in range(begin, end):
                        split(data_oc[order_o[o], left:right], part, tile_oc[o - begin])
                for n in range(low, high, 2):
                    # While a pair of rows is added to, its share of the next samples is prefetched.
                    share, shares = (n - low) // 2, (high - low + 1) // 2
                    for o in range(end + share * SAMPLES // shares, min(end + (share + 1) * SAMPLES // shares, len(old_o))):
                        fetch(data_oc, order_o[o], left, right)
                    i, two = U(n - bottom), n + 1 < high
                    if rectify:
                        add_all(weight_no, tile_oc, at_o, U(0), U(0), out_nc, i, U(n), U(to), U(count), two)
                    else:
                        add_all(weight_no, data_oc, order_o, U(begin), U(left), out_nc, i, U(n), U(to), U(count), two)
                for n in range(bottom, top):
                    for o in range(max(first_n[n], begin), begin if low <= n < high else min(last_n[n], end)):
                        weight = weight_no[n - bottom, o - begin]
                        if rectify:
                            add_one(weight, tile_oc, U(o - begin), U(0), out_nc, U(n), U(to), U(count))
                        else:
                            add_one(weight, data_oc, U(order_o[o]), U(left), out_nc, U(n), U(to), U(count))
