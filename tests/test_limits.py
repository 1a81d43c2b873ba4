"""Memory and processors that a process may use, its control group's limits included."""

from __future__ import annotations

import os

import pytest

import fastencode
from fastencode import limits
from fastencode.errors import InputError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of files: 6 GB free, 1 GB of swap, 4 processors, no control group."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 6000000 kB\nSwapFree: 1000000 kB\n")
    monkeypatch.setattr(limits, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(limits, "_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    return tmp_path


def test_without_a_group_the_system_says(machine):
    assert limits.available_memory() == 7_000_000 * 1024
    assert limits.available_processors() == 4
    assert limits.parse_memory("auto") == int(0.7 * 7_000_000 * 1024)
    (machine / "meminfo").unlink()
    assert limits.available_memory() is None and limits.parse_memory(" Auto ") is None


def test_a_group_of_version_2_leaves_less(machine):
    (machine / "memory.max").write_text("3000000000\n")
    (machine / "memory.current").write_text("1000000000\n")
    (machine / "cpu.max").write_text("150000 100000\n")
    assert limits.available_memory() == 2_000_000_000
    assert limits.available_processors() == 2  # one and a half
    (machine / "memory.max").write_text("max\n")
    (machine / "cpu.max").write_text("max 100000\n")
    assert limits.available_memory() == 7_000_000 * 1024 and limits.available_processors() == 4


def test_a_group_of_version_1_leaves_less(machine):
    for folder in ("memory", "cpu"):
        (machine / folder).mkdir()
    (machine / "memory/memory.limit_in_bytes").write_text("2000000000")
    (machine / "memory/memory.usage_in_bytes").write_text("2500000000")
    (machine / "cpu/cpu.cfs_quota_us").write_text("100000")
    (machine / "cpu/cpu.cfs_period_us").write_text("100000")
    assert limits.available_memory() == 0 and limits.available_processors() == 1
    (machine / "memory/memory.limit_in_bytes").write_text(str(2**63 - 4096))  # no limit
    (machine / "cpu/cpu.cfs_quota_us").write_text("-1")
    assert limits.available_memory() == 7_000_000 * 1024 and limits.available_processors() == 4


@pytest.mark.parametrize("memory", ["2 apples", "", "-1GB", 0, -5, True, float("nan"), float("inf"), "automatic"])
def test_what_is_no_amount_of_memory(memory):
    with pytest.raises(InputError, match="memory="):
        limits.parse_memory(memory)


def test_auto_is_taken_by_solvers(machine):
    (machine / "memory.max").write_text("20000\n")
    (machine / "memory.current").write_text("0\n")
    with pytest.raises(InputError, match="memory=14000 bytes is too small to plan with"):
        fastencode.plan_ridge([[1.0], [2.0], [4.0], [8.0]] * 200, cv=2, memory="auto")
