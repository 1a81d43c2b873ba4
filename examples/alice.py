"""Real brains: 27 people who heard a chapter of Alice in Wonderland (Brennan et al. 2016), encoded and tuned on.

    python examples/alice.py --data FOLDER [--out alice-output] [--model FOLDER] [--epochs 8] [--controls 3] [--jobs 2]

FOLDER holds the data set: ``sNN-timecourses.txt``, the TextGrid and the authors' predictors. The encoding half repeats the
published word-rate numbers. The recording is not part of the data set, so for the tuning half the chapter's words are spoken by a
synthesizer at their real times (extra ``demo``); a model (by default the small wav2vec2 of the package) is tuned on the first
part of the chapter and every layer is scored on the last 100 scans. Finished stages in the output folder are reused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fastencode.runs.alice import PICTURE_REGIONS, alice_study
from fastencode.runs.engine import Stages
from fastencode.runs.executors import settle
from fastencode.runs.executors.where import Where
from fastencode.runs.provenance import libraries
from fastencode.runs.studies.page import write_study
from fastencode.study.config import AlignConfig
from fastencode.study.report.leads import ALICE_NOTES
from fastencode.tune.config import TuneConfig


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, default=Path("alice-output"), help="output folder")
    parser.add_argument("--model", help="folder or hub name of a speech model; default: the small one of the package")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training clips")
    parser.add_argument("--clip-seconds", type=float, default=10.0, help="sound of each clip")
    parser.add_argument("--controls", type=int, default=3, help="controls, each on another permutation of the responses")
    parser.add_argument("--jobs", type=int, default=2, help="processes that tune and read models at the same time")
    given = parser.parse_args(arguments)
    tune, alignment = TuneConfig(epochs=given.epochs, clip_seconds=given.clip_seconds), AlignConfig()
    stages = Stages(given.out, prepare=settle, where=Where(given.jobs))
    study = alice_study(stages, given.data, model=given.model, tune=tune, alignment=alignment, controls=given.controls)
    page = write_study(
        stages,
        study.results,
        lead=study.lead,
        notes=ALICE_NOTES,
        provenance={
            "encoding half": study.encoding,
            "versions": libraries(),
            "settings": {"controls": given.controls, "tune": asdict(tune), "align": asdict(alignment)},
        },
        command=f"python examples/alice.py --data {given.data} --epochs {given.epochs} --clip-seconds {given.clip_seconds:g}"
        f" --controls {given.controls}" + (f" --model {given.model}" if given.model else ""),
        picture_regions=PICTURE_REGIONS,
    )
    print(f"\nThe page: {page}")


if __name__ == "__main__":  # processes that tune import this file
    main()
