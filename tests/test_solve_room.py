"""Memory for the result, looked at before anything is planned."""

from __future__ import annotations

import pytest

from fastencode.errors import InputError
from fastencode.solve.given import room

GB = 10**9


@pytest.fixture
def free(monkeypatch):
    def set_free(count):
        monkeypatch.setattr(room, "available_memory", lambda: count)

    return set_free


def test_what_fits_and_what_is_not_known_passes(free):
    free(10 * GB)
    room.check_room(200, 60_000, 40_000, 20, 4, "primal", True)
    free(None)
    room.check_room(200, 60_000, 40_000_000, 20, 4, "primal", True)


def test_what_does_not_fit_names_sizes_and_what_would(free):
    free(3 * GB)
    words = r"weights of 60000 features for 40000 voxels and scores of 20 penalties take 9\.6 GB, and 3 GB of memory are free; "
    others = r"pass weights='dual' \(32 MB, of rows\), or weights=None \(scores and penalties only\), or at most 11246 voxels"
    with pytest.raises(InputError, match=words + others):
        room.check_room(200, 60_000, 40_000, 20, 4, "primal", True)
    with pytest.raises(InputError, match=words + "pass at most 11246 voxels at a time"):
        room.check_room(200, 60_000, 40_000, 20, 4, "primal", False)
    free(20_000_000)
    with pytest.raises(InputError, match=r"dual weights of 200 rows .* 35\.2 MB, and 20 MB .*; pass weights=None"):
        room.check_room(200, 60_000, 40_000, 20, 4, "dual", True)
    free(1000)
    with pytest.raises(InputError, match="fewer features"):
        room.check_room(200, 60_000, 40_000, 20, 4, "primal", True)


def test_what_is_advised_fits(free):
    free(3 * GB)
    room.check_room(200, 60_000, 11_246, 20, 4, "primal", True)
    room.check_room(200, 60_000, 40_000, 20, 4, "dual", True)
