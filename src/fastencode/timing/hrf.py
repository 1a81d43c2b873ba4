"""The hemodynamic response: as a sampled kernel, and convolved with events at their exact times.

A response is a difference of two gamma densities, peak minus undershoot, with unit sum (sampled) or unit integral (continuous).
Its derivatives are finite differences of two such responses, as SPM and nilearn define them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fastencode.devices import HOST
from fastencode.errors import InputError
from fastencode.kernels.hrf import hrf_columns
from fastencode.timing.device_columns import device_hrf_columns
from fastencode.timing.times import Rows, check_finite, check_seconds, check_times, is_positive, rows_of

__all__ = ["hrf_convolve", "hrf_kernel"]

Floats = NDArray[np.floating[Any]]
Model = Literal["spm", "glover"]
Derivative = Literal["time", "dispersion"]

# Columns summed at once, so that the rows being written stay in cache.
COLUMNS_PER_BLOCK = 1024


@dataclass(frozen=True)
class _Response:
    """Peak minus undershoot, before normalization; delays and dispersions in seconds."""

    peak_delay: float
    undershoot_delay: float
    peak_dispersion: float
    undershoot_dispersion: float
    ratio: float
    shift: float = 0.0

    def gammas(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """(amplitude, shape, scale) of the peak and of the undershoot."""
        return (
            (1.0, self.peak_delay / self.peak_dispersion, self.peak_dispersion),
            (-1.0 / self.ratio, self.undershoot_delay / self.undershoot_dispersion, self.undershoot_dispersion),
        )

    def density(self, t: Floats) -> Floats:
        lag = np.maximum(t - self.shift, 0.0)
        total = np.zeros_like(lag)
        for amplitude, shape, scale in self.gammas():
            x = lag / scale
            total += amplitude * np.exp(special.xlogy(shape - 1.0, x) - x - special.gammaln(shape)) / scale
        return np.where(t < self.shift, 0.0, total)

    def integral(self, end: float) -> float:
        lag = max(end - self.shift, 0.0)
        return sum(amplitude * float(special.gammainc(shape, lag / scale)) for amplitude, shape, scale in self.gammas())


# Weights and responses whose weighted sum is wanted.
_Parts: TypeAlias = tuple[tuple[float, _Response], ...]

_MODELS: dict[str, _Response] = {
    "spm": _Response(6.0, 16.0, 1.0, 1.0, 6.0),
    "glover": _Response(6.0, 12.0, 0.9, 0.9, 1.0 / 0.48),
}
# The shift in seconds between the two responses whose difference is the time derivative: SPM takes 1 s, nilearn 0.1 s.
_TIME_STEP = {"spm": 1.0, "glover": 0.1}
_DISPERSION_STEP = 0.01


def hrf_kernel(
    model: Model = "spm",
    *,
    dt: float,
    duration: float = 32.0,
    peak_delay: float | None = None,
    undershoot_delay: float | None = None,
    peak_dispersion: float | None = None,
    undershoot_dispersion: float | None = None,
    ratio: float | None = None,
    derivative: Derivative | None = None,
    derivative_step: float | None = None,
) -> NDArray[np.float64]:
    """A hemodynamic response sampled every ``dt`` seconds from 0 to ``duration``.

    The density of a gamma distribution with mean ``peak_delay`` and scale ``peak_dispersion``, minus one with mean
    ``undershoot_delay`` and scale ``undershoot_dispersion`` divided by ``ratio``; the whole divided by its sum.

    Parameters
    ----------
    model : {"spm", "glover"}
        Where the parameters left at None come from: SPM's canonical response 6, 16, 1, 1, 6; Glover's (1999), in nilearn's form,
        6, 12, 0.9, 0.9, 1 / 0.48 (in the order of the arguments below).
    dt : float
        Sampling step in seconds.
    duration : float
        Last time that may be sampled, in seconds.
    peak_delay, undershoot_delay, peak_dispersion, undershoot_dispersion : float
        Seconds. A dispersion is at most its delay (the response would be infinite at 0).
    ratio : float
        Peak to undershoot; ``numpy.inf`` for no undershoot.
    derivative : {None, "time", "dispersion"}
        Instead of h, ``(h - h') / derivative_step``, where h' is later by the step ("time") or has a peak dispersion larger by
        the step ("dispersion"); h and h' sum to 1, their difference to 0.
    derivative_step : float
        Default: SPM's 1 s for its time derivative, nilearn's 0.1 s for Glover's, 0.01 s for dispersion in both.

    Returns
    -------
    ndarray, shape (floor(duration / dt) + 1,)
        Unitless: what one sample of a feature leaves at each later step. float64.

    Raises
    ------
    InputError
        If a parameter is out of range, or the samples do not sum to a positive number.

    References
    ----------
    SPM's spm_hrf and spm_get_bf.
    G. H. Glover (1999), "Deconvolution of impulse response in event-related BOLD fMRI", NeuroImage 9, 416-429.
    """
    response = _choose(model, peak_delay, undershoot_delay, peak_dispersion, undershoot_dispersion, ratio)
    check_seconds(dt=dt, duration=duration)
    # The small term keeps 32 s at 0.1 s at 321 samples whatever the quotient rounds to.
    t = np.arange(int(duration / dt + 1e-9) + 1, dtype=np.float64) * dt
    kernel = np.zeros(len(t))
    for weight, part in _combination(model, response, derivative, derivative_step):
        sampled = part.density(t)
        total = sampled.sum()
        if not total > 0:
            raise InputError(
                f"the {model} response sampled every dt={dt} s sums to {total:.3g}, which cannot be scaled to 1: "
                "use a smaller dt, a longer duration or a larger ratio"
            )
        kernel += weight * sampled / total
    return kernel


def hrf_convolve(
    data: ArrayLike,
    times: ArrayLike,
    new_times: ArrayLike,
    *,
    model: Model = "spm",
    durations: ArrayLike | None = None,
    dt: float | None = None,
    duration: float = 32.0,
    peak_delay: float | None = None,
    undershoot_delay: float | None = None,
    peak_dispersion: float | None = None,
    undershoot_dispersion: float | None = None,
    ratio: float | None = None,
    derivative: Derivative | None = None,
    derivative_step: float | None = None,
) -> Any:
    """Convolve events, or a sampled feature, with a hemodynamic response and read the result at new times.

    Times are used as they are: nothing is rounded to a grid. With h in 1/s, zero outside [0, ``duration``] and of unit integral:

    * impulses (the default): ``y(t) = sum_i data_i h(t - times_i)``, in units of data per second;
    * boxcars (``durations``): ``y(t) = sum_i data_i * integral of h(t - times_i - s) over 0 <= s <= durations_i``, in units of
      data: a boxcar much longer than the response ends on a plateau of ``data_i``;
    * sampled features (``dt``): ``y(t) = sum_i data_i h(t - times_i) dt``, the convolution integral as a sum over samples, in
      units of data.

    Parameters
    ----------
    data : array_like, shape (n, ...)
        Amplitude of each event, or feature values, one row for each time; NumPy, or torch (without its gradient) or CuPy wherever
        they lie: on a card it is convolved there. Never written to.
    times : array_like, shape (n,)
        Onsets or sample times in seconds, in any order.
    new_times : array_like, shape (n_new,)
        Where to read the result, in seconds, in any order.
    model, duration, peak_delay, undershoot_delay, peak_dispersion, undershoot_dispersion, ratio, derivative, derivative_step
        As in :func:`hrf_kernel`, but scaled to unit integral instead of unit sum.
    durations : array_like, shape (n,) or a number
        Length of each event in seconds. As in SPM, an event of length 0 is an impulse (note its units above).
    dt : float
        Step of a sampled feature in seconds.

    Returns
    -------
    ndarray (torch or CuPy for such, on the same device), shape (n_new, ...)
        The data's floating dtype (float64 for integers); sums are taken in float64. Where thousands of pairs of events and new
        times are near each other, the response is read from polynomials that are within 1e-13 of its largest value (derivatives:
        or within rounding of what they are the difference of), and new times that are evenly apart but for their rounding (at
        1e9 s, 4e-7 s) are taken to be so.

    Raises
    ------
    InputError
        If lengths disagree, a time, a duration or a value that is used is not finite, a duration is negative, both ``durations``
        and ``dt`` are given, or a parameter of the response is out of range.
    """
    event_o, wanted = check_times(times, "times"), check_times(new_times, "new_times")
    rows = rows_of(data, len(event_o), "times")
    response = _choose(model, peak_delay, undershoot_delay, peak_dispersion, undershoot_dispersion, ratio)
    check_seconds(duration=duration)
    length_o = _lengths(durations, len(event_o))
    terms_m = np.array(_terms(_combination(model, response, derivative, derivative_step), float(duration)))
    if dt is not None:
        if durations is not None:
            raise InputError("durations and dt are both given: durations are for events, dt is for sampled features; choose one")
        check_seconds(dt=dt)
        terms_m[:, 0] *= dt
    device, xp = rows.device, rows.device.xp
    with device.current(), device.room_for("convolved data"):
        out_nc = _convolve(rows, event_o, length_o, wanted, float(duration), terms_m)
        if not bool(xp.all(xp.isfinite(out_nc))):
            check_finite(rows.data_oc, "data", device)
        return rows.give(xp.reshape(out_nc, (len(wanted), *rows.shape)))


def _choose(
    model: str,
    peak_delay: float | None,
    undershoot_delay: float | None,
    peak_dispersion: float | None,
    undershoot_dispersion: float | None,
    ratio: float | None,
) -> _Response:
    """The model's response with the parameters the caller gave."""
    if model not in _MODELS:
        raise InputError(f"model={model!r}: choose one of {', '.join(map(repr, _MODELS))}")
    given = {
        "peak_delay": peak_delay,
        "undershoot_delay": undershoot_delay,
        "peak_dispersion": peak_dispersion,
        "undershoot_dispersion": undershoot_dispersion,
        "ratio": ratio,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        return _MODELS[model]
    check_seconds(**{name: value for name, value in changed.items() if name != "ratio"})
    if not is_positive(changed.get("ratio", 1.0)):
        raise InputError(f"ratio={ratio!r}: give a positive number, numpy.inf for no undershoot")
    response = replace(_MODELS[model], **{name: float(value) for name, value in changed.items()})
    for lobe in ("peak", "undershoot"):
        delay, dispersion = getattr(response, f"{lobe}_delay"), getattr(response, f"{lobe}_dispersion")
        if dispersion > delay:
            raise InputError(f"{lobe}_dispersion={dispersion} exceeds {lobe}_delay={delay}: the response would be infinite at 0")
    return response


def _combination(model: str, response: _Response, derivative: str | None, step: float | None) -> _Parts:
    """The weights and responses whose weighted sum is wanted: the response itself, or the two of a finite difference."""
    if derivative is None:
        return ((1.0, response),)
    if derivative not in ("time", "dispersion"):
        raise InputError(f"derivative={derivative!r}: choose None, 'time' or 'dispersion'")
    if step is None:
        step = _TIME_STEP[model] if derivative == "time" else _DISPERSION_STEP
    check_seconds(derivative_step=step)
    step = float(step)
    if derivative == "time":
        other = replace(response, shift=step)
    else:
        other = replace(response, peak_dispersion=response.peak_dispersion + step)
    return (1.0 / step, response), (-1.0 / step, other)


@lru_cache(maxsize=64)  # of the few responses that many calls have
def _terms(parts: _Parts, duration: float) -> tuple[tuple[float, float, float, float, float], ...]:
    """The continuous response as the kernel's table of gamma densities: (amplitude, shift, shape, scale, gammaln(shape))."""
    rows = []
    for weight, part in parts:
        total = part.integral(duration)
        if not total > 0:
            raise InputError(
                f"the response's integral over duration={duration} s is {total:.3g}: use a longer duration or a larger ratio"
            )
        rows += [
            (weight / total * amplitude, part.shift, shape, scale, float(special.gammaln(shape)))
            for amplitude, shape, scale in part.gammas()
        ]
    return tuple(rows)


def _lengths(durations: ArrayLike | None, n: int) -> NDArray[np.float64]:
    if durations is None:
        return np.zeros(n)
    lengths = check_times(np.broadcast_to(durations, n) if np.ndim(durations) == 0 else durations, "durations")
    if len(lengths) != n:
        raise InputError(f"{len(lengths)} durations for {n} times: give one for each event")
    if (lengths < 0).any():
        row = int(np.argmax(lengths < 0))
        raise InputError(f"durations[{row}] is {lengths[row]}: an event cannot last less than 0 s")
    return lengths


def _convolve(
    rows: Rows,
    event_o: NDArray[np.float64],
    length_o: NDArray[np.float64],
    new_n: NDArray[np.float64],
    support: float,
    terms_m: NDArray[np.float64],
) -> Any:
    """Blocks of columns through the kernel, events and new times in the order of time."""
    device, n, n_columns = rows.device, len(new_n), int(rows.data_oc.shape[1])
    order_o, order_n = np.argsort(event_o, kind="stable"), np.argsort(new_n, kind="stable")
    event_o, length_o, new_n = event_o[order_o], length_o[order_o], new_n[order_n]
    out_nc = device.empty(n, n_columns, dtype=rows.dtype)
    for start in range(0, n_columns, COLUMNS_PER_BLOCK):
        stop = min(start + COLUMNS_PER_BLOCK, n_columns)
        sums_nc = device.zeros(n, stop - start, dtype=np.float64)
        if device is HOST:
            hrf_columns(rows.data_oc, order_o, event_o, length_o, new_n, support, terms_m, start, sums_nc)
        else:
            device_hrf_columns(device, rows.data_oc, order_o, event_o, length_o, new_n, support, terms_m, start, sums_nc)
        out_nc[:, start:stop] = device.cast(sums_nc, rows.dtype)
    ascend = bool((order_n[1:] > order_n[:-1]).all())
    return out_nc if ascend else device.take(out_nc, device.put(np.argsort(order_n)))
