"""Memory and processors that this process may use, within the limits of its control group (cgroup).

Containers and schedulers limit processes by control groups. ``os.cpu_count`` and the system's count of free memory ignore them.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from fastencode.errors import InputError

__all__ = ["available_memory", "available_processors", "parse_memory"]

_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
# memory="auto" is this part of the free memory: other processes grow too, and libraries have buffers of their own.
_PART = 0.7
_GROUPS, _MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/meminfo")
# Files of a control group's limit and use: of version 2, of version 1.
_LIMIT, _USED = ("memory.max", "memory/memory.limit_in_bytes"), ("memory.current", "memory/memory.usage_in_bytes")


def parse_memory(memory: int | str | None) -> int | None:
    """Bytes from an int or text such as ``"2GB"`` or ``"512MiB"``; ``"auto"`` is 70 % of the free memory; None stays None."""
    if memory is None:
        return None
    if isinstance(memory, str) and memory.strip().lower() == "auto":
        free = available_memory()
        return None if free is None else int(_PART * free)
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?i?)b?\s*", memory.lower())
        if found is None or found[2] not in _UNITS:
            raise InputError(f"memory={memory!r}; pass bytes, text such as '2GB' or '512MiB', or 'auto'")
        value = float(found[1]) * _UNITS[found[2]]
    elif isinstance(memory, int | float | np.number) and not isinstance(memory, bool):
        value = float(memory)
    else:
        raise InputError(f"memory={memory!r}; pass bytes, text such as '2GB' or '512MiB', or 'auto'")
    if not value >= 1 or not np.isfinite(value):
        raise InputError(f"memory={memory!r}; pass a positive number of bytes")
    return int(value)


def available_memory() -> int | None:
    """Bytes that this process can still get: the system's free memory and swap, or the rest of its control group's limit if less.

    None where neither is known.
    """
    found = [free for free in (_system_memory(), _group_memory()) if free is not None]
    return min(found) if found else None


def _system_memory() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        return sum(1024 * int(lines[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None


def _group_memory() -> int | None:
    for limit, used in zip(_LIMIT, _USED, strict=True):
        most, now = _number(_GROUPS / limit), _number(_GROUPS / used)
        if most is not None and now is not None and most < 2**60:
            return max(0, most - now)
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # no such file, or "max"
        return None


def available_processors() -> int:
    """Processors that this process may use at a time, at least 1: those of its affinity, or its group's quota if less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_GROUPS / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = str(_number(_GROUPS / "cpu/cpu.cfs_quota_us") or -1), str(_number(_GROUPS / "cpu/cpu.cfs_period_us") or 1)
    if not quota.isdigit():  # "max", or −1
        return cores
    return max(1, min(cores, math.ceil(int(quota) / int(period))))
