"""CUDA's libraries played by stand-ins: torch and NumPy on the CPU that believe in a card.

They compute at once but copy late: a copy is done only when somebody waits for an event recorded after it. A missing wait shows
as stale values.
"""

from __future__ import annotations

import contextlib
import ctypes
import types

import numpy as np
import torch


class Stream:
    """Copies wait here until an event after them is waited for."""

    inside: list[Stream] = []  # noqa: RUF012 (the stack of `with`)

    def __init__(self, *args, **kwargs):
        self.queue, self.ptr, self.cuda_stream = [], 0, 0

    def wait_event(self, event):
        event.synchronize()

    def __enter__(self):
        Stream.inside.append(self)

    def __exit__(self, *error):
        Stream.inside.pop()


COMPUTES = Stream()


class Event:
    def __init__(self, **kwargs):
        self.stream, self.upto = None, 0

    def record(self, stream):
        self.stream, self.upto = stream, len(stream.queue)

    def synchronize(self):
        if self.stream is not None:
            for place in range(self.upto):
                copy, self.stream.queue[place] = self.stream.queue[place], None
                if copy is not None:
                    copy()


class Cuda:
    """What both libraries' ``cuda`` have in common."""

    Stream, Event = Stream, Event

    @staticmethod
    def stream(stream):
        return stream

    @staticmethod
    def current_stream(index):
        return COMPUTES

    @staticmethod
    def get_current_stream():
        return COMPUTES

    @staticmethod
    def device(index):
        return contextlib.nullcontext()

    Device = device

    @staticmethod
    def empty_cache():
        pass

    @staticmethod
    def get_device_name(index):
        return "a stand-in"


class Late(torch.Tensor):
    """A tensor whose copies into it wait in the stream they were asked for in."""

    @classmethod
    def __torch_function__(cls, function, kinds, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.copy_ and kwargs.pop("non_blocking", False):
            plain = [a.as_subclass(torch.Tensor) for a in args]
            Stream.inside[-1].queue.append(lambda: torch.Tensor.copy_(*plain))
            return args[0]
        return super().__torch_function__(function, kinds, args, kwargs)


class FakeTorch:
    """torch on the CPU that believes in a card."""

    def __init__(self):
        self.cuda = Cuda()

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def empty(*shape, pin_memory=False, device=None, **options):
        return torch.full(*(shape if isinstance(shape[0], tuple) else [shape]), 77, **options).as_subclass(Late)

    @staticmethod
    def zeros(*shape, device=None, **options):
        return torch.zeros(*shape, **options)

    @staticmethod
    def arange(n, device=None, **options):
        return torch.arange(n, **options)

    @staticmethod
    def asarray(array, device=None, **options):
        return torch.asarray(array, **options)


class Placed(np.ndarray):
    """A NumPy array with the pointer, the place and the ``get`` of a CuPy array. As there, NumPy's arrays do not mix with it."""

    __module__ = "cupy"
    device = types.SimpleNamespace(id=0)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def get(self):
        return np.array(self).view(np.ndarray)

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        for array in (*inputs, *out):
            if type(array) is np.ndarray and array.ndim:
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        plain = [a.view(np.ndarray) if isinstance(a, Placed) else a for a in inputs]
        if out:
            options["out"] = tuple(a.view(np.ndarray) for a in out)
        found = getattr(ufunc, method)(*plain, **options)
        return out[0] if out else found.view(Placed) if isinstance(found, np.ndarray) else found


def placed(found):
    return found.view(Placed) if isinstance(found, np.ndarray) else found


class FakeLinalg:
    """``cupy.linalg``: takes and gives arrays of the card only."""

    def __getattr__(self, name):
        def call(*arrays):
            assert all(isinstance(array, Placed) for array in arrays), f"linalg.{name} of an array of the host"
            found = getattr(np.linalg, name)(*(array.view(np.ndarray) for array in arrays))
            return tuple(map(placed, found)) if isinstance(found, tuple) else placed(found)

        return call


class FakeCupy:
    """NumPy that believes in a card, by CuPy's names."""

    __version__ = "0"
    ndarray, linalg = Placed, FakeLinalg()

    def __init__(self):
        self.cuda, self.calls, self.number, self.inside = Cuda(), [], 0, 0
        self.cuda.Device = self.enter
        self.cuda.alloc_pinned_memory = lambda size: bytearray(b"M" * size)
        self.cuda.runtime = types.SimpleNamespace(
            memcpyAsync=self.copy, getDeviceProperties=lambda index: {"name": b"a stand-in"}, getDeviceCount=lambda: 1
        )
        self.pending = Stream()
        self.cuda.Stream = lambda **options: self.pending
        self.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)

    @contextlib.contextmanager
    def enter(self, index):
        before, self.inside = self.inside, index
        yield
        self.inside = before

    def copy(self, target, source, size, kind, stream):
        self.calls.append(kind)
        self.pending.queue.append(lambda: ctypes.memmove(target, source, size))

    def __getattr__(self, name):
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*args, **options):
            assert self.inside == self.number, "an array of another device"
            return placed(found(*args, **options))

        return call
