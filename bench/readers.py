"""Which frames of a clip to keep: scores of ``align`` on the demo's world, for every way to read layers.

    python bench/readers.py [--minutes 32] [--out bench/results/readers.json]

Runs what a user runs: ``make_world``, ``fastencode-tune features`` with the shipped model, ``fastencode-tune align``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import session
import torch

from fastencode.cli import main as command
from fastencode.errors import require
from fastencode.speech.layers import SMALL_MODEL
from fastencode.world.config import WorldConfig
from fastencode.world.simulate import TEST_STORY, VALIDATION_STORY, make_world

READERS = {
    "clips, newest TR in bins of 0.5 s": [],
    "clips, newest TR in bins of 0.1 s": ["--read.bin", "0.1"],
    "clips, mean of all frames": ["--read.pool", "mean"],
    "clips, last frame": ["--read.pool", "last"],
    "windows every 0.5 s, last frame": ["--read.input", "window", "--read.stride", "0.5", "--read.context", "9.5"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=32.0, help="of training stories (%(default)s)")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "readers.json")
    options = parser.parse_args()
    pandas = require("pandas", "tune")
    results: dict[str, Any] = {"case": "readers", **session.surroundings(2), "minutes": options.minutes, "readers": {}}
    with tempfile.TemporaryDirectory(prefix="fastencode-bench-") as name:
        root = Path(name)
        world = root / "world"
        world.mkdir()
        make_world(WorldConfig(minutes=options.minutes), world)
        for place, (label, read) in enumerate(READERS.items()):
            features = root / f"features-{place}"
            given = ["--audio", str(world / "stimuli"), "--model", str(SMALL_MODEL), "--out", str(features), *read]
            assert command(["features", *given]) == 0
            given = ["--stories", str(world), "--features", str(features), "--out", str(root / f"scores-{place}")]
            given += ["--test_story", TEST_STORY, "--test_skip", "0", "--exclude", VALIDATION_STORY, "--ceiling", "-1"]
            assert command(["align", *given, "--permutations", "20"]) == 0
            table = pandas.read_csv(root / f"scores-{place}" / "scores.csv")
            mean = table.groupby(["region", "layer"])["r"].mean()
            own = table.set_index(["participant", "region", "layer"]).sort_index()["r"]
            results["readers"][label] = {
                "bytes": sum(path.stat().st_size for path in features.iterdir()),
                "r": {region: mean[region].round(4).tolist() for region in ("auditory", "late_language", "silent")},
                "r_of_each": {
                    who: {region: own[who, region].round(4).tolist() for region in ("auditory", "late_language")}
                    for who in ("P1", "P2")
                },
            }
    results["torch"] = torch.__version__
    session.write(results, options.out)
    for label, found in results["readers"].items():
        auditory, late = found["r"]["auditory"], found["r"]["late_language"]
        print(f"{label:<46} layer 0: {auditory[0]:.3f} / {late[0]:.3f}  best: {max(auditory):.3f} / {max(late):.3f}", end="")
        print(f"  {found['bytes'] / 1e6:.0f} MB")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
