"""The time kernels where data lie on a device: ``kernels/lanczos.cu`` and ``hrf.cu`` on a card, products of matrices elsewhere.

Times and the small tables made of them stay on the host and are sent along; data are used where they are. The contract of each
function is that of the kernel of the same name in ``fastencode.kernels``; data and sums are arrays of the device.

Legend: o = old time or event, n = new time, c = column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arrays import F64
from fastencode.devices import Device
from fastencode.kernels.hrf import hrf_columns
from fastencode.kernels.lanczos import lanczos_columns
from fastencode.launch import cuda_kernel, float_name

__all__ = ["device_hrf_columns", "device_lanczos_columns"]

I64 = NDArray[np.int64]

_THREADS = 128
_ROWS = 512  # samples whose weights are made, and whose values become float64, at a time where no kernel can be compiled


def device_lanczos_columns(
    device: Device,
    data_oc: Any,
    order_o: I64,
    old_o: F64,
    new_n: F64,
    first_n: I64,
    last_n: I64,
    cutoff: float,
    lobes: float,
    rectify: bool,
    out_nc: Any,
    sum_n: Any,
    gross_n: Any,
) -> None:
    """Add resampled data, weights and their magnitudes; see :func:`fastencode.kernels.lanczos.lanczos_columns`."""
    n, width = len(new_n), int(data_oc.shape[1])
    kernel = cuda_kernel(device, "lanczos")
    if kernel is not None:
        if n and width:
            tables = map(device.put, (order_o, old_o, new_n, first_n, last_n))
            arguments = (data_oc, *tables, cutoff, lobes, rectify, out_nc, sum_n, gross_n, n, width, width)
            kernel.launch(float_name(device, data_oc), *_grid(n, width), arguments)
        return
    total_n, size_n = np.zeros(n), np.zeros(n)
    steps = np.zeros(len(old_o) + 1)
    np.add.at(steps, first_n, 1)
    np.add.at(steps, last_n, -1)
    for some_o, unit_oo in _blocks(np.flatnonzero(steps[:-1].cumsum() > 0)):
        weight_no, at_o = np.zeros((n, len(some_o))), np.arange(len(some_o))
        first, last = np.searchsorted(some_o, first_n), np.searchsorted(some_o, last_n)
        lanczos_columns(unit_oo, at_o, old_o[some_o], new_n, first, last, cutoff, lobes, False, weight_no, total_n, size_n)
        _add_product(device, weight_no, device.take(data_oc, device.put(order_o[some_o])), rectify, out_nc)
    sum_n += device.put(total_n)
    gross_n += device.put(size_n)


def device_hrf_columns(
    device: Device,
    data_oc: Any,
    order_o: I64,
    event_o: F64,
    length_o: F64,
    new_n: F64,
    support: float,
    terms_m: F64,
    start: int,
    out_nc: Any,
) -> None:
    """Add convolved columns from column ``start`` on; see :func:`fastencode.kernels.hrf.hrf_columns`."""
    n, width = len(new_n), int(out_nc.shape[1])
    end_o = event_o + length_o
    kernel = cuda_kernel(device, "hrf")
    if kernel is not None:
        if n and width:
            first_n = np.searchsorted(np.maximum.accumulate(end_o) + support, new_n)
            last_n = np.searchsorted(event_o, new_n, side="right")
            order, event, length, new, terms, first, last = map(
                device.put, (order_o, event_o, length_o, new_n, terms_m, first_n, last_n)
            )
            sizes = (n, width, len(terms_m), int(data_oc.shape[1]))
            arguments = (data_oc, order, event, length, new, support, terms, start, out_nc, first, last, *sizes)
            kernel.launch(float_name(device, data_oc), *_grid(n, width), arguments)
        return
    reaches_o = np.searchsorted(new_n, event_o) < np.searchsorted(new_n, end_o + support, side="right")
    for some_o, unit_oo in _blocks(np.flatnonzero(reaches_o)):
        weight_no, at_o = np.zeros((n, len(some_o))), np.arange(len(some_o))
        hrf_columns(unit_oo, at_o, event_o[some_o], length_o[some_o], new_n, support, terms_m, 0, weight_no)
        values_oc = device.take(data_oc[:, start : start + width], device.put(order_o[some_o]))
        _add_product(device, weight_no, values_oc, False, out_nc)


def _grid(n: int, width: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A block for each new time and tile of columns, and threads of a block."""
    return (n, min(-(-width // _THREADS), 65535), 1), (_THREADS, 1, 1)


def _blocks(used_o: I64) -> Iterator[tuple[I64, F64]]:
    """Samples that some new time hears of, a block at a time, and the unit matrix: what a kernel makes of it are the weights.

    What nobody hears of may be NaN, which a product would spread.
    """
    for begin in range(0, len(used_o), _ROWS):
        some_o = used_o[begin : begin + _ROWS]
        unit_oo = np.eye(len(some_o))
        unit_oo.flags.writeable = False
        yield some_o, unit_oo


def _add_product(device: Device, weight_no: F64, values_oc: Any, rectify: bool, out_nc: Any) -> None:
    """``out_nc += weight_no @ values_oc``, in float64; with ``rectify``, of negative and of positive parts side by side."""
    xp, hit_n = device.xp, np.flatnonzero(weight_no.any(axis=1))
    if len(hit_n) == 0:
        return
    rows = slice(int(hit_n[0]), int(hit_n[-1]) + 1)
    weights, values_oc, width = device.put(weight_no[rows]), device.cast(values_oc, np.float64), int(values_oc.shape[1])
    parts = [values_oc]
    if rectify:  # NaN fails the comparison and so goes into the positive part: it must not vanish
        negative_oc = xp.where(values_oc < 0, values_oc, xp.zeros_like(values_oc))
        parts = [negative_oc, values_oc - negative_oc]
    for place, part_oc in enumerate(parts):
        columns = slice(place * width, (place + 1) * width)
        out_nc[rows, columns] = out_nc[rows, columns] + weights @ part_oc
