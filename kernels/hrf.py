"""Convolution of events at exact times with a hemodynamic response, sampled at any new times.

The NumPy line it equals, with h the response (or, for an event that lasts, its integral over the event)::

    out_nc += h(new_n[:, None] - event_o[None, :]) @ data_oc[order_o]

Each event is added only to the new times inside the response's support, so the cost is linear in events. Sums are float64.
Exponentials and incomplete gamma functions would take nearly all of the time. So with many pairs of events and new times, a table
of polynomials takes their place. Where new times are evenly spaced, as scans are, an event reads the coefficients for all its new
times side by side. Tried and slower: reading the table for one new time after another, and a flag for each piece in place of NaN.

A response is a sum of gamma densities; row m of ``terms_m`` holds (amplitude, shift, shape, scale, log of the gamma function
of the shape) of one of them.
Axis letters: o event, n new time, c column, m term.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.kernels.jit import njit

__all__ = ["gamma_cdf", "gamma_pdf", "hrf_columns"]

# With many pairs of events and new times, the response is read from polynomials of degree 8 (its integral: 9) over PIECES or more
# equal pieces of its support. ENOUGH: pairs for each piece that make the table worth its cost. MOST: pieces of a table (10 MB).
# OFF: largest error, as a part of the largest value; ROUNDING of the terms themselves is added. WIDEST: a piece is at most this
# many standard deviations of a gamma density wide, or a density could hide between the points that are checked.
PIECES, ENOUGH, WIDEST, MOST = 128, 40, 8.0, 2**16
OFF, ROUNDING = 1e-13, 2e-15
POINTS = np.cos((np.arange(9) + 0.5) * np.pi / 9)
BETWEEN = np.array([-1.0, -0.45, 0.6, 1.0])
FIT = np.linalg.inv(np.vander(POINTS, increasing=True))

U = np.uint64  # Numba does not check unsigned indices for negative values, so the loop vectorizes


@njit
def gamma_pdf(t: float, shape: float, scale: float, log_gamma: float, log_x: float) -> float:
    """Density of the gamma distribution at ``t``; ``log_gamma`` is ``lgamma(shape)`` and ``log_x`` is ``log(t / scale)``.

    Both are arguments because callers use one value of each for many calls.
    """
    if t > 0.0:
        return math.exp((shape - 1.0) * log_x - t / scale - log_gamma) / scale
    return 1.0 / scale if t == 0.0 and shape == 1.0 else 0.0


@njit
def gamma_cdf(t: float, shape: float, scale: float, log_gamma: float) -> float:
    """Distribution function of the gamma distribution: series below the mean, continued fraction (Lentz) above."""
    x = t / scale
    if x <= 0.0:
        return 0.0
    front = math.exp(shape * math.log(x) - x - log_gamma)
    if x < shape + 1.0:
        term = 1.0 / shape
        total = term
        k = shape
        while abs(term) > abs(total) * 1e-17:
            k += 1.0
            term *= x / k
            total += term
        return front * total
    b = x + 1.0 - shape
    c = 1e300
    d = 1.0 / b
    fraction = d
    for i in range(1, 1000):
        a = -i * (i - shape)
        b += 2.0
        d = a * d + b
        c = b + a / c
        d = 1.0 / (d if abs(d) > 1e-300 else 1e-300)
        c = c if abs(c) > 1e-300 else 1e-300
        step = c * d
        fraction *= step
        if abs(step - 1.0) < 1e-16:
            break
    return 1.0 - front * fraction


@njit
def impulse(lag: float, terms_m: NDArray[np.float64]) -> float:
    """The response ``lag`` seconds after an impulse."""
    total, shift, scale, log_x = 0.0, np.nan, np.nan, 0.0
    for m in range(terms_m.shape[0]):
        if terms_m[m, 1] != shift or terms_m[m, 3] != scale:
            shift, scale = terms_m[m, 1], terms_m[m, 3]
            log_x = math.log((lag - shift) / scale) if lag > shift else 0.0
        total += terms_m[m, 0] * gamma_pdf(lag - shift, terms_m[m, 2], scale, terms_m[m, 4], log_x)
    return total


@njit
def step(lag: float, terms_m: NDArray[np.float64]) -> float:
    """The response ``lag`` seconds after the onset of an event without end: the integral of :func:`impulse`."""
    total = 0.0
    for m in range(terms_m.shape[0]):
        total += terms_m[m, 0] * gamma_cdf(lag - terms_m[m, 1], terms_m[m, 2], terms_m[m, 3], terms_m[m, 4])
    return total


@njit
def reach(
    event_o: NDArray[np.float64], length_o: NDArray[np.float64], new_n: NDArray[np.float64], support: float
) -> NDArray[np.int64]:
    """(events, 4): the numbers of the new times where each event begins, where it ends, and where the response to either is over.

    Events ascend, and so do most of their ends: from one event to the next each number moves by a step or two.
    """
    bound_oi, bound_i = np.empty((len(event_o), 4), np.int64), np.zeros(4, np.int64)
    for o in range(len(event_o)):
        for i in range(4):
            n, time = bound_i[i], event_o[o] + (length_o[o] if i % 2 else 0.0) + (support if i > 1 else 0.0)
            while n < len(new_n) and (new_n[n] < time or (i > 1 and new_n[n] == time)):
                n += 1
            while n > 0 and (new_n[n - 1] > time or (i < 2 and new_n[n - 1] == time)):
                n -= 1
            bound_oi[o, i] = bound_i[i] = n
    return bound_oi


@njit
def step_of(new_n: NDArray[np.float64], support: float) -> float:
    """The step of new times that are evenly spaced but for rounding, at most 1/8 of the support; else 0.

    Rounding must be at most 1/16 of the step, so that the support holds no more new times than it has steps.
    """
    if len(new_n) < 2:
        return 0.0
    apart = (new_n[-1] - new_n[0]) / (len(new_n) - 1)
    rounding = 4e-16 * max(abs(new_n[0]), abs(new_n[-1]))
    for n in range(len(new_n)):
        if abs(new_n[n] - (new_n[0] + n * apart)) > rounding:
            return 0.0
    return apart if 16.0 * rounding <= apart and 8.0 * apart <= support else 0.0


@njit
def make_table(
    lasting: bool, pairs: int, apart: float, support: float, terms_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, bool]:
    """Polynomials of :func:`impulse` (with ``lasting``: of :func:`step`) over equal pieces of the support.

    Returns (coefficients (phases, 10, steps), constant first; width of a piece; whether all polynomials are accurate). Piece
    number ``step * phases + phase`` is at [phase, :, step]. New times that are ``apart`` lie ``phases`` pieces apart, so an event
    reads one phase at consecutive steps. Where ``apart`` is 0 (new times are not evenly spaced) there is one step.

    Each polynomial is fitted at Chebyshev's points and checked between them. Near a kink, such as a shifted onset, it is
    inaccurate, and set to NaN. Polynomials of the integral are integrals of these, from the middle of each piece. There are no
    steps if the table is not worth its cost for so few ``pairs`` of events and new times, or would have too many pieces.
    """
    width = support / PIECES
    for term_m in terms_m:
        width = min(width, WIDEST * term_m[3] * math.sqrt(term_m[2]))
    even = apart > 0.0 and support <= MOST * apart
    most, least = np.ceil((apart if even else support) / width), np.floor(support / apart) + 2.0 if even else 1.0
    if not ENOUGH * most * least <= min(pairs, ENOUGH * MOST):  # also where a width is 0
        return np.empty((0, 10, 0)), width, False
    phases, steps = int(most), int(least)
    width = (apart if even else support) / phases
    table_rjm, value_kj = np.zeros((phases, len(POINTS) + 1, steps)), np.empty((phases * steps, len(POINTS)))
    half, rounding, whole = 0.5 * width, 0.0, True
    for k in range(len(value_kj)):
        m, r = divmod(k, phases)
        for j in range(len(POINTS)):
            value_kj[k, j] = impulse((2 * k + 1 + POINTS[j]) * half, terms_m)
        for i in range(len(POINTS)):
            coefficient = 0.0
            for j in range(len(POINTS)):
                coefficient += FIT[i, j] * value_kj[k, j]
            table_rjm[r, i, m] = coefficient
    for term_m in terms_m:
        rounding += ROUNDING * abs(term_m[0]) / term_m[3]
    limit = OFF * np.abs(value_kj).max() + rounding
    for k in range(len(value_kj)):
        m, r = divmod(k, phases)
        off = 0.0
        for x in BETWEEN:
            off = max(off, abs(polynomial(table_rjm, U(r), U(m), x) - impulse((2 * k + 1 + x) * half, terms_m)))
        if lasting:
            for j in range(len(POINTS), 0, -1):
                table_rjm[r, j, m] = half / j * table_rjm[r, j - 1, m]
            table_rjm[r, 0, m] = step((2 * k + 1) * half, terms_m)
        if not off <= limit:
            table_rjm[r, :, m] = np.nan
            whole = False
    return table_rjm, width, whole


@njit
def polynomial(c: NDArray[np.float64], r: np.uint64, m: np.uint64, x: float) -> float:
    """The value at x of a table's polynomial, phase r and step m, of degree 9; terms are paired so that few products wait."""
    x2 = x * x
    x4 = x2 * x2
    low = (c[r, U(0), m] + c[r, U(1), m] * x) + (c[r, U(2), m] + c[r, U(3), m] * x) * x2
    high = (c[r, U(4), m] + c[r, U(5), m] * x) + (c[r, U(6), m] + c[r, U(7), m] * x) * x2
    return low + (high + (c[r, U(8), m] + c[r, U(9), m] * x) * x4) * x4


@njit
def respond(
    new_n: NDArray[np.float64],
    begin: int,
    end: int,
    since: float,
    lasting: bool,
    support: float,
    terms_m: NDArray[np.float64],
    table: tuple[NDArray[np.float64], float, bool],
    response_i: NDArray[np.float64],
) -> None:
    """Fill ``response_i`` with :func:`step` (``lasting``) or :func:`impulse` at new times ``begin`` to ``end``, since ``since``.

    None of these new times is later than ``since + support``.
    """
    table_rjm, width, whole = table
    phases, _, steps = table_rjm.shape
    count = U(max(end - begin, 0))
    if steps == 1:
        for i in range(count):
            place = (new_n[U(begin) + i] - since) / width
            r = min(int(place), phases - 1)
            response_i[i] = polynomial(table_rjm, U(r), U(0), 2.0 * (place - r) - 1.0)
    elif steps > 1 and count > 0:
        place = (new_n[begin] - since) / width
        k = int(place)
        m, x = U(k // phases), 2.0 * (place - k) - 1.0
        r = U(k) - m * U(phases)
        for i in range(count):
            response_i[i] = polynomial(table_rjm, r, m + i, x)
    if whole:
        return
    for i in range(count):
        if steps == 0 or np.isnan(response_i[i]):
            lag = min(new_n[U(begin) + i] - since, support)
            response_i[i] = step(lag, terms_m) if lasting else impulse(lag, terms_m)


@njit
def hrf_columns(
    data_oc: NDArray[Any],
    order_o: NDArray[np.int64],
    event_o: NDArray[np.float64],
    length_o: NDArray[np.float64],
    new_n: NDArray[np.float64],
    support: float,
    terms_m: NDArray[np.float64],
    start: int,
    out_nc: NDArray[np.float64],
) -> None:
    """Add the convolved columns of the data, from column ``start`` on, to ``out_nc``.

    ``event_o`` and ``new_n`` ascend; ``data_oc[order_o[o]]`` is the row of ``event_o[o]``.
    """
    columns, longest, pairs = out_nc.shape[1], 0, np.zeros(2, np.int64)
    bound_oi, apart = reach(event_o, length_o, new_n, support), step_of(new_n, support)
    for o in range(len(event_o)):
        near = bound_oi[o, 3] - bound_oi[o, 0]
        pairs[int(length_o[o] > 0.0)] += near
        longest = max(longest, near)
    impulses, steps = make_table(False, pairs[0], apart, support, terms_m), make_table(True, pairs[1], apart, support, terms_m)
    weight_i, rest_i, left = np.empty(longest), np.empty(longest), step(support, terms_m)
    for o in range(len(event_o)):
        begun, ended, full, over = bound_oi[o, 0], bound_oi[o, 1], bound_oi[o, 2], bound_oi[o, 3]
        if length_o[o] > 0.0:
            respond(new_n, begun, full, event_o[o], True, support, terms_m, steps, weight_i)
            respond(new_n, ended, over, event_o[o] + length_o[o], True, support, terms_m, steps, rest_i)
            for n in range(full, over):
                weight_i[n - begun] = left
            for n in range(ended, over):
                weight_i[n - begun] -= rest_i[n - ended]
        else:
            respond(new_n, begun, over, event_o[o], False, support, terms_m, impulses, weight_i)
        # A row sliced out here lets the loop over columns vectorize; indexed by [o, start + c] it ran four times slower.
        data_c = data_oc[order_o[o], start : start + columns]
        if columns == 1:
            for i in range(U(over - begun)):
                out_nc[U(begun) + i, 0] += data_c[0] * weight_i[i]
        else:
            for n in range(begun, over):
                out_c = out_nc[n]
                for c in range(columns):
                    out_c[c] += weight_i[n - begun] * data_c[c]
