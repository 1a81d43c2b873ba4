"""Before and after: tune a model and a control on each participant, read every layer of all of them, score them in the brains.

Every subcommand that asks this question brings its own data set; the stages below are the same for all. Reading and scoring are
those of ``fastencode-tune features`` and ``align``.

    sounds ─► frames (frozen CNN, once) ─► models/<participant>/{tuned,control} ─► features/<model> ─► fits ─► scores
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.errors import require
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.fits import Question, Records, layer_stages, records_of, responses_stage
from fastencode.runs.tuning import Experiment, make_frames, read_layers, tune_arm
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.study.blocks import interval
from fastencode.study.conditions import BEFORE_AND_AFTER
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.design import Variant
from fastencode.study.sources import LayerFolder
from fastencode.study.tables import score_rows
from fastencode.tune.config import TuneConfig

__all__ = ["ARMS", "MODELS", "Experiment", "Outcome", "before_and_after", "contrast"]

MODELS = tuple(one.model for one in BEFORE_AND_AFTER)
ARMS = MODELS[1:]


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes
    ----------
    scores, training : list of dict
        Tidy rows, one for each participant × model × layer × region, and for each participant × arm × epoch.
    found : Records
        What the scores were made of.
    n_layers : int
    """

    scores: list[dict[str, Any]]
    training: list[dict[str, Any]]
    found: Records
    n_layers: int


def before_and_after(
    stages: Stages, experiment: Experiment, *, source: str, model: Path | str, tune: TuneConfig, alignment: AlignConfig, jobs: int
) -> Outcome:
    """Run every stage that is not finished, ``jobs`` processes at a time.

    Parameters
    ----------
    stages : Stages
    experiment : Experiment
    source : str
        Name of the finished stage that stands for the data.
    model : path or str
        Folder or hub name of the pretrained encoder.
    """
    data, participants = experiment.data, tuple(experiment.tuned_on)
    read = ReadConfig("clip", tr=data.tr, seconds=tune.clip_seconds)
    sounds = {data.recording(run): data.sound_file(run) for run in experiment.runs}
    settings = {"model": SpeechEncoder(model).hash(), "read": read}
    frames = stages.run(Stage("frames", settings, (source,), make_frames, (model, sounds, read)))
    tuning = [_tuning_stage(experiment, source, model, frames, who, arm, tune) for who in participants for arm in ARMS]
    checkpoints: dict[str, Path | str] = {MODELS[0]: model}
    checkpoints |= {stage.name.removeprefix("models/"): stages.path(stage.name) for stage in tuning}
    reading = [
        Stage(
            f"features/{name}",
            settings,
            ("frames",) if name == MODELS[0] else ("frames", f"models/{name}"),
            read_layers,
            (checkpoint, frames, sounds, read),
        )
        for name, checkpoint in checkpoints.items()
    ]
    stages.run_all([*tuning, *reading], jobs=jobs)
    stages.check()
    used, fits, n_layers = (*experiment.train, data.test_story), list[Stage](), 0
    question = Question(
        data,
        dict.fromkeys(participants, experiment.train),
        {who: data.rois(who) for who in participants},
        alignment,
        ceiling=-1.0,  # all voxels count in raw means: the silent ones are part of what is asked
    )
    for name in checkpoints:
        layers = LayerFolder(stages.path(f"features/{name}"), data, lobes=alignment.lobes, used=used)
        members = participants if name == MODELS[0] else (name.split("/")[0],)
        fits += layer_stages(stages.root, question, Variant(layers, tuple(alignment.delays)), members)
        n_layers = layers.n_layers
    stages.run_all([*(responses_stage(question, who) for who in participants), *fits], jobs=jobs)
    stages.check()
    found = records_of(stages, [stage.name for stage in fits])
    rows = [row for row in score_rows(found.scores, found.columns, found.fit_rows) if row["region"] != WHOLE]
    rows.sort(key=lambda row: (participants.index(row["participant"]), MODELS.index(row["model"])))
    training = [
        {"participant": who, "model": arm, **row}
        for who in participants
        for arm in ARMS
        for row in _read_rows(stages.path(f"models/{who}/{arm}") / "history.csv")
    ]
    return Outcome(rows, training, found, n_layers)


def contrast(
    outcome: Outcome, regions: tuple[str, ...], layers: Sequence[int], weights: Mapping[str, float]
) -> tuple[float, float, float]:
    """Mean over participants, regions and layers of a weighted sum over models, with its 95 % interval."""
    r: dict[str, float] = {}
    draws: dict[str, np.ndarray] = {}
    blocks = []
    for (label, who, layer), scores in outcome.found.scores.items():
        weight = weights.get(label.name, 0.0) / len(layers)
        if layer not in layers or not weight:
            continue
        names = list(outcome.found.columns[who])
        columns = [names.index(region) for region in regions]
        r[who] = r.get(who, 0.0) + weight * scores.region[columns].mean()
        draws[who] = draws.get(who, 0.0) + weight * scores.draws[:, columns].mean(axis=1)
        blocks.append(float(scores.n_blocks))
    mean = float(np.mean(list(r.values())))
    low, high = interval(mean, np.mean(list(draws.values()), axis=0), min(blocks), correlation=False)
    return mean, float(low), float(high)


def _tuning_stage(
    experiment: Experiment, source: str, model: Path | str, frames: Path, who: str, arm: str, config: TuneConfig
) -> Stage:
    data, runs, voxels = experiment.data, (*experiment.train, experiment.validation), experiment.tuned_on[who]
    scans = {run: [float(data.row_times(run)[0]), data.n_rows(run)] for run in runs}
    return Stage(
        f"models/{who}/{arm}",
        {"tune": config, "arm": arm, "voxels": voxels, "scans": scans},
        (source, "frames"),
        tune_arm,
        (experiment, model, frames, who, arm, config),
        inputs={f"{run}/{path.name}": path for run in runs for path in data.response_files(who, run)},
    )


def _read_rows(path: Path) -> list[dict[str, Any]]:
    pandas = require("pandas", "tune")
    return pandas.read_csv(path).to_dict("records")
