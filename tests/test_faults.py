"""Damaged trees on disk: each fault of responses by itself, found through the reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastencode.data.faults import response_findings
from fastencode.data.stories import Stories

ROWS, VOXELS = 60, 90
STORIES = ("a", "b", "test")


def write(root: Path) -> Path:
    for who in ("P1", "P2"):
        (root / "preprocessed_data" / who).mkdir(parents=True)
        for place, story in enumerate(STORIES):
            rng = np.random.default_rng([ord(who[1]), place])
            with h5py.File(path_of(root, who, story), "w") as file:
                repeats = rng.standard_normal((3, ROWS, VOXELS))
                file["data"] = repeats.mean(axis=0)
                if story == "test":
                    file["individual_repeats"] = repeats
    (root / "respdict.json").write_text(json.dumps(dict.fromkeys(STORIES, ROWS + 20)))
    return root


def path_of(root: Path, who: str, story: str) -> Path:
    return root / "preprocessed_data" / who / f"{story}.hf5"


def change(root: Path, who: str, story: str, made: Callable[[np.ndarray], np.ndarray], key: str = "data") -> None:
    with h5py.File(path_of(root, who, story), "r+") as file:
        file[key][...] = made(file[key][...])


def put(*, rows: object = slice(None), voxels: object = slice(None), value: float) -> Callable[[np.ndarray], np.ndarray]:
    def made(values: np.ndarray) -> np.ndarray:
        values[rows, voxels] = value
        return values

    return made


def equal(values: np.ndarray) -> np.ndarray:
    return values[[0, 0, 2]]


FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "none": (lambda root: None, []),
    "a story of zeros": (
        lambda root: change(root, "P1", "a", put(value=0)),
        ["P1, a: all 90 voxels are 0 in all rows; fetch or make the file again, or leave the run out"],
    ),
    "constant voxels": (
        lambda root: change(root, "P1", "a", put(voxels=slice(20), value=0)),
        ["P1, a: 20 of 90 voxels are 0 in all rows (first 0, 1, 2, 3, 4, 5); leave these voxels out, or make"],
    ),
    "a scan at 1e6": (
        lambda root: change(root, "P2", "b", put(rows=30, value=1e6)),
        ["P2, b: 1 of 60 rows lie more than 20 standard deviations away: 30; repair these scans, or leave them out of the run"],
    ),
    "not a number": (
        lambda root: change(root, "P2", "b", put(rows=3, voxels=5, value=np.nan)),
        ["P2, b: 1 of 90 voxels are not finite (NaN or infinity) in some row (first 5); leave these voxels out"],
    ),
    "a story that is another": (
        lambda root: path_of(root, "P1", "a").write_bytes(path_of(root, "P1", "b").read_bytes()),
        ["P1, b: the responses are those of a in 60 of 60 rows; fetch or make the files of b and a again"],
    ),
    "a participant who is another": (
        lambda root: [path_of(root, "P2", s).write_bytes(path_of(root, "P1", s).read_bytes()) for s in STORIES],
        ["P2: the responses to 3 of 3 runs are those of P1: a, b, test; fetch or make the files of P2 and P1"],
    ),
    "equal repeats": (
        lambda root: [
            change(root, "P1", "test", equal, "individual_repeats"),
            change(root, "P1", "test", lambda _: equal(repeats_of(root)).mean(axis=0)),
        ],
        ["P1, test: of 3 repeats these are equal: 1 and 2; noise ceilings made of them are too high; fetch"],
    ),
    "another mean": (
        lambda root: change(root, "P1", "test", lambda _: repeats_of(root)[0]),
        ["P1, test: the mean correlates with the mean of its 3 repeats by 0.5"],
    ),
    "a shifted mean": (
        lambda root: change(root, "P1", "test", lambda values: np.roll(values, 3, axis=0)),
        ["P1, test: the mean is that of its repeats 3 rows later: their correlation is 1.00 there and "],
    ),
}


def repeats_of(root: Path) -> np.ndarray:
    return np.random.default_rng([ord("1"), 2]).standard_normal((3, ROWS, VOXELS))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone(tmp_path: Path, fault: str) -> None:
    root = write(tmp_path)
    damage, said = FAULTS[fault]
    damage(root)
    data = Stories(root, test_story="test", test_skip=0)
    found = [str(one) for one in response_findings(data, {who: data.stories(who) for who in data.participants})]
    assert len(found) == len(said), found
    for one, begin in zip(found, said, strict=True):
        assert one.startswith(begin), one
