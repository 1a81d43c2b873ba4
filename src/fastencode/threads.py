"""How many threads the numerical libraries of this process may use.

The solvers run one outer layer of Python threads over voxel tiles and hold BLAS at one thread inside it. OpenBLAS's limit is
process-wide, so limits are kept on one stack: whoever entered last rules, and the numbers found at the start come back when the
last one leaves, in whatever order they leave. Solvers that run at the same time in several Python threads are safe, but each
changes how many threads BLAS has in the others: their results differ from those of one alone by the rounding of sums in another
order (relative to the largest value, below 1e-12 in float64 and 1e-5 in float32 where columns have like scales).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

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
    """The libraries there are. Looking for them takes longer than a small problem; they come with modules, so it is done again
    only after more have been imported."""
    global _scanned
    modules, before = len(sys.modules), _scanned
    if before is None or before[0] != modules:
        before = _scanned = modules, ThreadpoolController()
    return before[1]


def available_threads() -> int:
    """Threads a solver may use: as many as BLAS is allowed now (so a limit set outside holds), at most all processors."""
    blas = [pool["num_threads"] for pool in _controller().info() if pool["user_api"] == "blas"]
    return max(1, min([available_processors(), *blas]))


@contextmanager
def limit_threads(n: int) -> Iterator[None]:
    """Let BLAS, OpenMP and, where they are loaded already, torch and Numba use at most ``n`` threads inside the ``with``.

    BLAS is limited for the whole process; OpenMP, torch and Numba for the calling thread.

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


def _limit_loaded(n: int) -> list[tuple[Any, int]]:
    """Limit torch and Numba if they are in use; what undoes it. Loading one, or starting Numba's pool, would cost for nothing."""
    undo: list[tuple[Any, int]] = []
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
    """Run jobs on an outer layer of threads. BLAS gets what the layer leaves over: one thread each when jobs are many."""
    workers = max(1, min(threads, len(jobs)))
    with limit_threads(max(1, threads // workers)), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda job: job(), jobs))
