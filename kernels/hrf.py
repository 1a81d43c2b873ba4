"""Convolution of events at exact times with a hemodynamic response, sampled at any new times.

The NumPy line it equals, with h the response (or, for an event that lasts, its integral over the event)::

    out_nc += h(new_n[:, None] - event_o[None, :]) @ data_oc[order_o]

Each event is added only to the new times inside the response's support, so the cost is linear in events. Sums are float64.

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
def response(lag: float, length: float, support: float, terms_m: NDArray[np.float64]) -> float:
    """The response ``lag`` seconds after an event's onset; to a boxcar of height 1 if the event lasts ``length`` > 0 seconds."""
    total = 0.0
    if length > 0.0:
        upper = min(lag, support)
        lower = min(lag - length, support)
        for m in range(terms_m.shape[0]):
            shift, shape, scale, log_gamma = terms_m[m, 1], terms_m[m, 2], terms_m[m, 3], terms_m[m, 4]
            rise = gamma_cdf(upper - shift, shape, scale, log_gamma) - gamma_cdf(lower - shift, shape, scale, log_gamma)
            total += terms_m[m, 0] * rise
    elif 0.0 <= lag <= support:
        for m in range(terms_m.shape[0]):
            total += terms_m[m, 0] * gamma_pdf(lag - terms_m[m, 1], terms_m[m, 2], terms_m[m, 3], terms_m[m, 4])
    return total


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
    width = out_nc.shape[1]
    for o in range(len(event_o)):
        # A row sliced out here lets the loop over columns vectorize; indexed by [o, start + c] it ran four times slower.
        data_c = data_oc[order_o[o], start : start + width]
        first = np.searchsorted(new_n, event_o[o])
        last = np.searchsorted(new_n, event_o[o] + length_o[o] + support, side="right")
        for n in range(first, last):
            weight = response(new_n[n] - event_o[o], length_o[o], support, terms_m)
            out_c = out_nc[n]
            for c in range(width):
                out_c[c] += weight * data_c[c]
