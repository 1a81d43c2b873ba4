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
