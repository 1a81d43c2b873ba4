"""A small made data set and features of one model for tests of ``align``: three stories to fit on, two to score on."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from fastencode.cli import main

ROWS = {"one": 44, "two": 57, "three": 39, "later": 50, "test": 66}
FIT = ("one", "three", "two")
REPEATS = {"A": {"test": 5, "later": 3}, "B": {"test": 4}}
REGIONS = {"driven": [0, 1, 2, 3], "noise": [4, 5]}
TR, SKIP, BLOCK, N_VOXELS = 2.0, 4, 8, 6
ALPHAS, DELAYS = (1.0, 30.0, 1000.0), (1, 2)


def make_world(root: Path) -> Path:
    """Stories in the layout of ds003020; ``features/model`` has two layers of windows, the second one drives four voxels."""
    rng = np.random.default_rng(0)
    for folder in ("features/model", "preprocessed_data", "stimuli", "TextGrids", "rois"):
        (root / folder).mkdir(parents=True)
    (root / "respdict.json").write_text(json.dumps({story: n + 20 for story, n in ROWS.items()}))
    drive = {}
    for story, n in ROWS.items():
        with h5py.File(root / "features" / "model" / f"{story}.h5", "w") as file:
            file["times"] = np.arange(1, 2 * (n + 12)) * 1.0
            file["features"] = rng.standard_normal((len(file["times"]), 2, 3)).astype(np.float32)
            file.attrs["key"] = json.dumps({"input": "window", "model": "made", "audio": story})
            drive[story] = file["features"][11 : 11 + 2 * n : 2, 1].astype(float)
    for who, repeats in REPEATS.items():
        (root / "preprocessed_data" / who).mkdir()
        (root / "rois" / f"{who}.json").write_text(json.dumps(REGIONS))
        weights = rng.standard_normal((3, N_VOXELS)) * (np.arange(N_VOXELS) < 4)
        for story, n in ROWS.items():
            signal = np.vstack([np.zeros((2, N_VOXELS)), (drive[story] @ weights)[:-2]])
            heard = signal + rng.standard_normal((repeats.get(story, 1), n, N_VOXELS)) * np.linspace(1, 3, N_VOXELS)
            with h5py.File(root / "preprocessed_data" / who / f"{story}.hf5", "w") as file:
                file["data"] = heard.mean(axis=0) + 5
                if len(heard) > 1:
                    file["individual_repeats"] = heard + 5
    return root


def given(world: Path, out: Path, *more: str) -> list[str]:
    """The arguments of the command: one test story and both people, unless ``more`` says otherwise."""
    options = {"stories": world, "out": out, "test_story": "test", "test_skip": SKIP, "tr": TR, "permutations": 99}
    options |= {"align.alphas": json.dumps(ALPHAS), "align.delays": json.dumps(DELAYS), "align.folds": 3}
    options |= {"align.block": BLOCK, "align.bootstraps": 20, "features": world / "features" / "model", "ceiling": -1}
    kept = {f"--{name}": str(value) for name, value in options.items() if f"--{name}" not in more}
    return ["align", *(part for option in kept.items() for part in option), *more]


def align(world: Path, out: Path, *more: str) -> int:
    """Its exit status."""
    return main(given(world, out, *more))
