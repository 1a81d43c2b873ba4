"""Copies of tiles to a device and back while it computes, through pairs of page-locked buffers and one stream each way.

On a device without streams, every call finishes its work before it returns.

Legend: t = rows, w = columns of one tile.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastencode.devices import Array, Device

__all__ = ["Downloads", "Uploads", "transfer_dtype"]

_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


def transfer_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which values are uploaded: their own in native byte order where torch and CuPy share it, else float64."""
    return np.dtype(dtype.str[1:]) if dtype.str[1:] in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1") else np.dtype("f8")


class _Stream(Protocol):
    """A stream of CuPy or torch."""

    def wait_event(self, event: _Event, /) -> object: ...


class _Event(Protocol):
    """An event of CuPy or torch."""

    def record(self, stream: _Stream, /) -> object: ...
    def synchronize(self) -> object: ...


class _Slot:
    """One page-locked buffer, with the events that must have happened before it is written again."""

    array: Array  # of an upload: where the buffer goes

    def __init__(self, device: Device, size: int, dtype: np.dtype[Any]) -> None:
        xp = device.xp
        if device.library == "cupy":
            self.memory = xp.cuda.alloc_pinned_memory(size * dtype.itemsize)
            self.host = np.frombuffer(self.memory, dtype, size)
        else:
            self.memory = xp.empty(size, dtype=device.dtype(dtype), pin_memory=True)
            self.host = self.memory.numpy()
        self.copied = _event(device)
        self.used = _event(device)
        self.waiting: Future[None] | None = None


def _event(device: Device) -> _Event:
    cuda = device.xp.cuda
    return cuda.Event(disable_timing=True) if device.library == "cupy" else cuda.Event()


def _stream(device: Device) -> _Stream:
    cuda = device.xp.cuda
    return cuda.Stream(non_blocking=True) if device.library == "cupy" else cuda.Stream(device.index)


def _now(device: Device) -> _Stream:
    """The stream that computes."""
    cuda = device.xp.cuda
    return cuda.get_current_stream() if device.library == "cupy" else cuda.current_stream(device.index)


def _copy(device: Device, slot: _Slot, array: Any, size: int, kind: int, stream: Any) -> None:
    """Start to copy the first ``size`` values of a slot's buffer to or from a contiguous array of the device."""
    if device.library == "cupy":
        ends = (array.data.ptr, slot.host.ctypes.data) if kind == _TO_DEVICE else (slot.host.ctypes.data, array.data.ptr)
        device.xp.cuda.runtime.memcpyAsync(*ends, size * slot.host.itemsize, kind, stream.ptr)
        return
    flat, buffer = device.xp.reshape(array, (-1,)), slot.memory[:size]
    with device.xp.cuda.stream(stream):
        if kind == _TO_DEVICE:
            flat.copy_(buffer, non_blocking=True)
        else:
            buffer.copy_(flat, non_blocking=True)


class Uploads:
    """Uploads of tiles of at most (rows, width) values: one tile arrives while the one before is used."""

    def __init__(self, device: Device, rows: int, width: int, dtype: np.dtype[Any]) -> None:
        self.device, self.rows, self.dtype, self.size = device, rows, dtype, rows * width
        self.slots: list[_Slot] = []
        self.turn = 0
        self.stream = _stream(device) if device.streams else None

    def send(self, fill: Callable[[NDArray[Any]], None], width: int) -> Array:
        """An array (rows, width) of the device, with the values that ``fill(buffer)`` writes.

        The caller may use it at once, and calls :meth:`used` after it has started the last work that reads it.
        """
        if self.stream is None:
            host = np.empty((self.rows, width), self.dtype)
            fill(host)
            return self.device.put(host)
        slot = self._slot()
        size = self.rows * width
        slot.copied.synchronize()  # after the upload before last the buffer is free
        fill(slot.host[:size].reshape(self.rows, width))
        now = _now(self.device)
        self.stream.wait_event(slot.used)
        _copy(self.device, slot, slot.array[:size], size, _TO_DEVICE, self.stream)
        slot.copied.record(self.stream)
        now.wait_event(slot.copied)
        return self.device.xp.reshape(slot.array[:size], (self.rows, width))

    def _slot(self) -> _Slot:
        self.turn = 1 - self.turn
        if len(self.slots) < 2:
            slot = _Slot(self.device, self.size, self.dtype)
            slot.array = self.device.empty(self.size, dtype=self.dtype)
            slot.used.record(_now(self.device))  # work queued so far may use the array that had this memory before
            self.slots.append(slot)
            self.turn = len(self.slots) - 1
        return self.slots[self.turn]

    def finish(self) -> None:
        """Wait until everything sent has arrived."""
        for slot in self.slots:
            slot.copied.synchronize()

    def used(self) -> None:
        """Mark the last tile's buffer reusable once all work queued so far has run."""
        if self.slots:
            self.slots[self.turn].used.record(_now(self.device))


class Downloads:
    """Downloads of arrays into NumPy arrays, by a thread. All are complete at the end of the ``with``."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.slots: list[_Slot] = []
        self.turn = 0
        self.stream = _stream(device) if device.streams else None
        self.pool = ThreadPoolExecutor(1) if device.streams else None

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            if self.pool is not None:
                self.pool.shutdown(wait=True)

    def fetch(self, array: Array, out: NDArray[Any]) -> None:
        """Start ``out[...] = array``, which is complete when :meth:`wait` returns; ``out`` has the array's dtype."""
        if self.stream is None or self.pool is None:
            out[...] = self.device.get(array)
            return
        slot = self._slot(out)
        array = self.device.contiguous(array)
        now = _now(self.device)
        slot.used.record(now)
        self.stream.wait_event(slot.used)
        _copy(self.device, slot, array, out.size, _TO_HOST, self.stream)
        slot.copied.record(self.stream)
        slot.waiting = self.pool.submit(self._place, slot, array, out)

    def _place(self, slot: _Slot, array: Array, out: NDArray[Any]) -> None:
        """Copy from the buffer to ``out``, in the thread. The argument ``array`` keeps the device's array alive until then."""
        with self.device.current():
            slot.copied.synchronize()
        out[...] = slot.host[: out.size].reshape(out.shape)

    def _slot(self, out: NDArray[Any]) -> _Slot:
        self.turn = 1 - self.turn
        if len(self.slots) < 2:
            self.slots.append(_Slot(self.device, out.size, out.dtype))
            self.turn = len(self.slots) - 1
        slot = self.slots[self.turn]
        if slot.waiting is not None:
            slot.waiting.result()
        if slot.host.size < out.size:
            slot = self.slots[self.turn] = _Slot(self.device, out.size, out.dtype)
        return slot

    def wait(self) -> None:
        """Wait until all downloads are complete."""
        for slot in self.slots:
            if slot.waiting is not None:
                slot.waiting.result()
                slot.waiting = None
