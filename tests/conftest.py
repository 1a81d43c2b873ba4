"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests load local folders only; a wrong name must not wait for a network
# Threads of torch (OpenMP) and of NumPy (OpenBLAS) that have nothing to do sleep at once. By default they spin for a while, and
# the many small problems of the tests would wait for cores that others spin on. Read once, when either library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and reference outputs, which are not part of the project: skips where it is absent."""
    named = os.environ.get("FASTENCODE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        where = "FASTENCODE_DATA" if named else "../shared/data"
        pytest.skip(f"real data not found: {where} ({folder}) is not a folder; set FASTENCODE_DATA to run this test")
    return folder


# Modules that run whole commands once, in a fixture, for many tests. They come first: a process that has run out of tests takes
# over the last ones of another process, and would have to run such a command a second time for them.
WHOLE_RUNS = ("test_cli", "test_align", "test_demo_reference", "test_alice", "test_build")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules of :data:`WHOLE_RUNS`, and all others of align, before the rest."""
    items.sort(key=lambda item: not item.path.stem.startswith(WHOLE_RUNS))
