"""scikit-learn's checks that are skipped unless a setting was there before SciPy was imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def run_array_api_checks(files: Sequence[Path], number: int) -> None:
    """Run the array API checks of test files, which have so many, in a process of its own with the setting."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "check_array_api_input", *map(str, files)]
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode == 5:
        pytest.skip("this version of scikit-learn has no such check")
    assert run.returncode == 0 and f"{number} passed" in run.stdout, run.stdout
