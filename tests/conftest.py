"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from picture_cases import without_pictures

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


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[pytest.MonkeyPatch]:
    """Figures are dots in all that a module runs, its fixtures too: ``pytestmark = pytest.mark.usefixtures("no_pictures")``."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("matplotlib"):
            without_pictures(patch.setattr)
        yield patch


@pytest.fixture
def pictures(no_pictures: pytest.MonkeyPatch) -> Iterator[None]:
    """Figures are drawn in one test of such a module."""
    no_pictures.undo()
    yield
    without_pictures(no_pictures.setattr)


# Modules that run whole commands once, in a fixture, for many tests. pytest-xdist gives each process an equal part of the list of
# tests, and one that has run out takes over the last ones of another: it would have to run such a command a second time for them.
# Therefore each part begins with some of these modules, the slowest first.
WHOLE_RUNS = (
    "test_cli",
    "test_studies",
    "test_align_runs",
    "test_align",
    "test_demo_reference",
    "test_build",
    "test_align_stories",
    "test_cli_probe",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Divide the tests in as many parts as there are processes, each with its share of :data:`WHOLE_RUNS` first."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first: list[list[pytest.Item]] = [[] for _ in range(count)]
    for place, module in enumerate(WHOLE_RUNS):
        first[place % count] += [item for item in items if item.path.stem == module]
    rest = deque(item for item in items if item.path.stem not in WHOLE_RUNS)
    parts = [len(items) // count + (place >= count - len(items) % count) for place in range(count)]
    items[:] = [
        item
        for some, length in zip(first, parts, strict=True)
        for item in [*some, *(rest.popleft() for _ in range(min(len(rest), max(0, length - len(some)))))]
    ] + list(rest)
