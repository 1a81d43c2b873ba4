"""Fixtures every room's tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data and reference outputs, or a skip that says where it was looked for."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASTENCODE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}: set FASTENCODE_DATA")
    return folder
