"""Convolution of events at exact times with a hemodynamic response, sampled at any new times.

The NumPy line it equals, with h the response (or, for an event that lasts, its integral over the event)::

    out_nc += h(new_n[:, None] - event_o[None, :]) @ data_oc[order_o]

Each event is added only to the new times inside the response's support, so the cost is linear in events. Sums are float64.
Exponentials and incomplete gamma functions would be nearly all of it, so a table takes their place where there is much to do.

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

# Where there are many pairs of events and new times, the response is tabulated: polynomials of degree 9 over 128 pieces, exact to
# OFF of its largest value (a fit is that far off by rounding alone).
PIECES, OFF, ENOUGH = 128, 1e-13, 4 * 128 * 10
POINTS = np.cos((np.arange(10) + 0.5) * np.pi / 10)
BETWEEN = np.array([-1.0, -0.45, 0.6, 1.0])
FIT = np.linalg.inv(np.vander(POINTS, increasing=True))
NOTHING = np.empty((0, 10)), np.empty(0, np.bool_)


@njit
def gamma_pdf(t: float, shape: float, scale: float, log_gamma: float) -> float:
    """Density of the gamma distribution at ``t``; ``log_gamma`` is ``lgamma(shape)``, which callers need often."""
    if t < 0.0:
        return 0.0
    x = t / scale
    if x == 0.0:
        return 1.0 / scale if shape == 1.0 else 0.0
    return math.exp((shape - 1.0) * math.log(x) - x - log_gamma) / scale


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
    total = 0.0
    for m in range(terms_m.shape[0]):
        total += terms_m[m, 0] * gamma_pdf(lag - terms_m[m, 1], terms_m[m, 2], terms_m[m, 3], terms_m[m, 4])
    return total


@njit
def step(lag: float, terms_m: NDArray[np.float64]) -> float:
    """The response ``lag`` seconds after the onset of what goes on: the integral of :func:`impulse`."""
    total = 0.0
    for m in range(terms_m.shape[0]):
        total += terms_m[m, 0] * gamma_cdf(lag - terms_m[m, 1], terms_m[m, 2], terms_m[m, 3], terms_m[m, 4])
    return total


@njit
def make_table(lasting: bool, support: float, terms_m: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Polynomials of :func:`step` (or :func:`impulse`) over equal pieces of 0 to ``support``, and which pieces they serve.

    Each is fitted at Chebyshev's points and looked at in between: where it is off, near a kink such as a shifted onset, the
    function itself will be called.
    """
    table_kj, good_k = np.empty((PIECES, len(POINTS))), np.ones(PIECES, np.bool_)
    half, value_j, largest = 0.5 * support / PIECES, np.empty(len(POINTS)), 0.0
    for k in range(PIECES):
        middle = (2 * k + 1) * half
        for j in range(len(POINTS)):
            lag = middle + half * POINTS[j]
            value_j[j] = step(lag, terms_m) if lasting else impulse(lag, terms_m)
            largest = max(largest, abs(value_j[j]))
        for i in range(len(POINTS)):
            table_kj[k, i] = 0.0
            for j in range(len(POINTS)):
                table_kj[k, i] += FIT[i, j] * value_j[j]
    for k in range(PIECES):
        for x in BETWEEN:
            lag = (2 * k + 1) * half + half * x
            value = step(lag, terms_m) if lasting else impulse(lag, terms_m)
            good_k[k] &= abs(polynomial(table_kj[k], x) - value) <= OFF * largest
    return table_kj, good_k


@njit
def polynomial(coefficient_j: NDArray[np.float64], x: float) -> float:
    """Its value, of degree 9, the constant first; pairs of terms, so that few products wait for others."""
    c, x2 = coefficient_j, x * x
    x4 = x2 * x2
    low = (c[0] + c[1] * x) + (c[2] + c[3] * x) * x2
    high = (c[4] + c[5] * x) + (c[6] + c[7] * x) * x2
    return low + (high + (c[8] + c[9] * x) * x4) * x4


@njit
def look_up(
    lag: float,
    lasting: bool,
    support: float,
    terms_m: NDArray[np.float64],
    table_kj: NDArray[np.float64],
    good_k: NDArray[np.bool_],
) -> float:
    """:func:`step` or :func:`impulse` at a lag from 0 to ``support``, by the table where it serves."""
    place = lag * (len(good_k) / support)
    k = min(int(place), len(good_k) - 1)
    if k >= 0 and good_k[k]:
        return polynomial(table_kj[k], 2.0 * (place - k) - 1.0)
    return step(lag, terms_m) if lasting else impulse(lag, terms_m)


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
    width, pairs, lasting = out_nc.shape[1], np.zeros(2, np.int64), length_o > 0.0
    first_o, last_o = np.empty(len(event_o), np.int64), np.empty(len(event_o), np.int64)
    first = last = 0  # events ascend, and so do most of their ends: a step or two from one to the next
    for o in range(len(event_o)):
        end = event_o[o] + length_o[o] + support
        while first < len(new_n) and new_n[first] < event_o[o]:
            first += 1
        while last < len(new_n) and new_n[last] <= end:
            last += 1
        while last > 0 and new_n[last - 1] > end:
            last -= 1
        first_o[o], last_o[o] = first, last
        pairs[int(lasting[o])] += last_o[o] - first_o[o]
    impulse_kj, impulse_k = make_table(False, support, terms_m) if pairs[0] > ENOUGH else NOTHING
    step_kj, step_k = make_table(True, support, terms_m) if pairs[1] > ENOUGH else NOTHING
    for o in range(len(event_o)):
        # A row sliced out here lets the loop over columns vectorize; indexed by [o, start + c] it ran four times slower.
        data_c = data_oc[order_o[o], start : start + width]
        for n in range(first_o[o], last_o[o]):
            lag = new_n[n] - event_o[o]
            if lasting[o]:
                weight = look_up(min(lag, support), True, support, terms_m, step_kj, step_k)
                if lag > length_o[o]:
                    weight -= look_up(min(lag - length_o[o], support), True, support, terms_m, step_kj, step_k)
            else:
                weight = look_up(lag, False, support, terms_m, impulse_kj, impulse_k) if lag <= support else 0.0
            out_c = out_nc[n]
            for c in range(width):
                out_c[c] += weight * data_c[c]
