"""The number of threads that the numerical libraries of this process may use.

The solvers run one outer layer of Python threads over voxel tiles and hold BLAS at one thread inside it. OpenBLAS has one limit
for the whole process, so all limits are kept on one stack. The one entered last holds. The numbers found before the first limit
come back when the last limit ends, in whatever order they end. Solvers that run at the same time in several Python threads are
safe, but each changes the threads of BLAS in the others. So their results differ from those of one solver alone by the rounding
of sums in another order: below 1e-12 of the largest value in float64, and 1e-5 in float32, where columns have like scales.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from fastencode.arguments import check_count
from fastencode.limits import available_processors

__all__ = ["available_threads", "limit_threads", "together"]

T = TypeVar("T")

_lock = Lock()
_scanned: tuple[int, ThreadpoolController] | None = None
_active: list[tuple[object, int]] = []
_found: dict[str, int] = {}


def _controller() -> ThreadpoolController:
    """The numerical libraries that are loaded.

    Looking for them takes longer than a small problem. Libraries come with modules, so the search is repeated only after more
    modules have been imported.
    """
    global _scanned
    modules, before = len(sys.modules), _scanned
    if before is None or before[0] != modules:
        before = _scanned = modules, ThreadpoolController()
    return before[1]


def available_threads() -> int:
    """Threads that a solver may use: as many as BLAS may use now, so that outer limits hold; at most all available processors."""
    blas = [pool["num_threads"] for pool in _controller().info() if pool["user_api"] == "blas"]
    return max(1, min([available_processors(), *blas]))


@contextmanager
def limit_threads(n: int) -> Iterator[None]:
    """Let BLAS, OpenMP and, where they are loaded already, torch and Numba use at most ``n`` threads inside the ``with``.

    BLAS is limited for the whole process; OpenMP, torch and Numba are limited for the calling thread.

    Parameters
    ----------
    n : int
        Number of threads, at least 1.

    Raises
    ------
    InputError
        If ``n`` is not a positive integer.
    """
    n = check_count("n", n, "a positive number of threads")
    token = object()
    with _lock:
        controller = _controller()
        for pool in controller.lib_controllers:
            _found.setdefault(pool.filepath, pool.num_threads)
        _active.append((token, n))
        _apply(controller)
    others = _limit_loaded(n)
    try:
        yield
    finally:
        for restore, before in others:
            restore(before)
        with _lock:
            _active[:] = [entry for entry in _active if entry[0] is not token]
            _apply(_controller())
            if not _active:
                _found.clear()


def _apply(controller: ThreadpoolController) -> None:
    for pool in controller.lib_controllers:
        before = _found.get(pool.filepath, pool.num_threads)
        wanted = _active[-1][1] if _active else before
        if pool.num_threads != wanted:
            pool.set_num_threads(wanted)


def _limit_loaded(n: int) -> list[tuple[Callable[[int], object], int]]:
    """Limit torch and Numba if they are in use. Returns (function, number) pairs: calling function(number) undoes the limit.

    Libraries that are not in use are not loaded, and Numba's pool is not started.
    """
    undo: list[tuple[Callable[[int], object], int]] = []
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        undo.append((torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(n)
    if getattr(sys.modules.get("numba.np.ufunc.parallel"), "_is_initialized", False):
        numba = sys.modules["numba"]
        undo.append((numba.set_num_threads, numba.get_num_threads()))
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    return undo


def together(jobs: list[Callable[[], T]], threads: int) -> list[T]:
    """Run jobs on an outer layer of at most ``threads`` threads; returns their results in order.

    Each job's BLAS gets threads // (number of workers) threads: one, if there are as many jobs as threads.
    """
    workers = max(1, min(threads, len(jobs)))
    with limit_threads(max(1, threads // workers)), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda job: job(), jobs))
