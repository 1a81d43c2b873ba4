"""Before and after: tune a model and its controls on each participant, read every layer of all of them, score them in the brains.

Every subcommand that asks this question brings its own data set; the stages below are the same for all. Reading and scoring are
those of ``fastencode-tune features`` and ``align``.

    sounds ─► frames (frozen CNN, once) ─► models/<participant>/{tuned,control-1,…} ─► features/<model> ─► fits ─► scores

Controls differ in the permutation of their targets only. What is said of "the control" is the mean over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.errors import InputError
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.estimates import check_shapes
from fastencode.runs.fits import Question, Records, layer_stages, records_of, responses_stage
from fastencode.runs.tuning import CONTROL, Experiment, arm_name, make_frames, read_layers, tune_on
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.study.blocks import interval, mean_draws
from fastencode.study.conditions import BEFORE_AND_AFTER
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.design import Variant
from fastencode.study.layer_scores import LayerScores
from fastencode.study.means import mean_rows
from fastencode.study.sources import LayerFolder
from fastencode.study.tables import Key, contrast_rows, score_rows
from fastencode.tune.config import TuneConfig
from fastencode.tune.log import epochs

__all__ = ["MODELS", "Experiment", "Outcome", "before_and_after", "contrast"]

MODELS = tuple(one.model for one in BEFORE_AND_AFTER)
PRETRAINED = MODELS[0]


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes
    ----------
    scores, training : list of dict
        Tidy rows, one for each participant × model × layer × region, and for each participant × model × epoch. Those of the
        control are means over its seeds; their intervals are those of the mean.
    control_scores, control_training : list of dict
        The same for each seed of the control, from 1 on in the column ``seed``.
    scored : (label, participant, layer) → LayerScores
        What the scores and their intervals were made of, the control as one: the mean over its seeds.
    found : Records
        The same of each seed.
    n_layers : int
    """

    scores: list[dict[str, Any]]
    training: list[dict[str, Any]]
    control_scores: list[dict[str, Any]]
    control_training: list[dict[str, Any]]
    scored: Mapping[Key, LayerScores]
    found: Records
    n_layers: int

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of every table, by the names that :func:`fastencode.study.report.write_report` knows."""
        regions = {row["region"] for row in self.scores}
        rows = {
            "scores": self.scores,
            "means": mean_rows(self.scored, self.found.columns),
            "contrasts": contrast_rows(self.scored, self.found.columns),
            "training": self.training,
            "control_scores": self.control_scores,
            "control_training": self.control_training,
        }
        return {name: [row for row in table if row.get("region") in {None, *regions}] for name, table in rows.items()}


def before_and_after(
    stages: Stages,
    experiment: Experiment,
    *,
    source: str,
    model: Path | str,
    tune: TuneConfig,
    alignment: AlignConfig,
    jobs: int,
    controls: int = 3,
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
    tune : TuneConfig
        Of the tuned models and of the controls.
    alignment : AlignConfig
    jobs : int
    controls : int
        Controls of each participant. Each takes as long as the tuned model.

    Raises
    ------
    InputError
        If ``controls`` is less than 1.
    FailedStages
        If a stage failed; what did not depend on it is finished.
    """
    if controls < 1:
        raise InputError(f"controls must be at least 1, got {controls}")
    data, participants = experiment.data, tuple(experiment.tuned_on)
    question = Question(
        data,
        dict.fromkeys(participants, experiment.train),
        {who: data.rois(who) for who in participants},
        alignment,
        ceiling=-1.0,  # all voxels count in raw means: the silent ones are part of what is asked
    )
    check_shapes(question, {"delays": [tuple(alignment.delays)]})  # before hours of tuning
    read = ReadConfig("clip", tr=data.tr, seconds=tune.clip_seconds)
    sounds = {data.recording(run): data.sound_file(run) for run in experiment.runs}
    settings = {"model": SpeechEncoder(model).hash(), "read": read}
    frames = stages.run(Stage("frames", settings, (source,), make_frames, (model, sounds, read)))
    permutations = (None, *range(1, controls + 1))
    tuning = [_tuning_stage(experiment, source, model, frames, who, seed, tune) for who in participants for seed in permutations]
    checkpoints: dict[str, Path | str] = {PRETRAINED: model}
    checkpoints |= {stage.name.removeprefix("models/"): stages.path(stage.name) / "model" for stage in tuning}
    reading = [
        Stage(
            f"features/{name}",
            settings,
            ("frames",) if name == PRETRAINED else ("frames", f"models/{name}"),
            read_layers,
            (checkpoint, frames, sounds, read),
        )
        for name, checkpoint in checkpoints.items()
    ]
    stages.run_all([*tuning, *reading], jobs=jobs)
    stages.check()
    used, fits, n_layers = (*experiment.train, data.test_story), list[Stage](), 0
    for name in checkpoints:
        layers = LayerFolder(stages.path(f"features/{name}"), data, lobes=alignment.lobes, used=used)
        members = participants if name == PRETRAINED else (name.split("/")[0],)
        fits += layer_stages(stages.root, question, Variant(layers, tuple(alignment.delays)), members)
        n_layers = layers.n_layers
    stages.run_all([*(responses_stage(question, who) for who in participants), *fits], jobs=jobs)
    stages.check()
    found = records_of(stages, [stage.name for stage in fits])
    training = [
        {"participant": who, "model": name, **row}
        for who in participants
        for name in map(arm_name, permutations)
        for row in _curves(stages.path(f"models/{who}/{name}") / "log.jsonl")
    ]
    scored = _scored(found)
    scores, control_scores = _rows(found, scored, participants)
    curves = _over_seeds(training, ("participant", "epoch"))
    return Outcome(scores, curves, control_scores, _of_seeds(training), scored, found, n_layers)


def contrast(
    outcome: Outcome, regions: tuple[str, ...], layers: Sequence[int], weights: Mapping[str, float]
) -> tuple[float, float, float]:
    """Mean over participants, regions, layers and seeds of a weighted sum over models, with its 95 % interval.

    The interval resamples scans of the test run. It does not speak for other permutations of a control's targets.
    """
    r: dict[str, float] = {}
    draws: dict[str, np.ndarray] = {}
    blocks: dict[str, float] = {}
    for (label, who, layer), scores in outcome.scored.items():
        weight = weights.get(label.name, 0.0) / len(layers)
        if layer not in layers or not weight:
            continue
        names = list(outcome.found.columns[who])
        columns = [names.index(region) for region in regions]
        r[who] = r.get(who, 0.0) + weight * scores.region[columns].mean()
        draws[who] = draws.get(who, 0.0) + weight * scores.draws[:, columns].mean(axis=1)
        blocks[who] = float(scores.n_blocks)
    mean = float(np.mean(list(r.values())))
    drawn = mean_draws(list(draws.values()), list(blocks.values()))
    low, high = interval(mean, drawn, min(blocks.values()), correlation=False)
    return mean, float(low), float(high)


def _model(name: str) -> str:
    """The model of the tables that a name of files belongs to."""
    return CONTROL if name.startswith(f"{CONTROL}-") else name


def _scored(found: Records) -> dict[Key, LayerScores]:
    """Scores of all models, the control as one."""
    several: dict[Key, list[LayerScores]] = {}
    for (label, who, layer), one in found.scores.items():
        several.setdefault((replace(label, source=_model(label.source)), who, layer), []).append(one)
    return {key: _mean_scores(seeds) for key, seeds in several.items()}


def _rows(
    found: Records, scored: Mapping[Key, LayerScores], participants: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of all models, the control as one, and those of each control."""
    rows = [row for row in score_rows(found.scores, found.columns, found.fit_rows) if row["region"] != WHOLE]
    intervals = {
        _place(row): {name: row[name] for name in row if name.endswith(("_low", "_high"))}
        for row in score_rows(scored, found.columns, found.fit_rows)
    }
    merged = [{**row, **intervals[_place(row)]} for row in _over_seeds(rows, ("participant", "layer", "region"))]
    merged.sort(key=lambda row: (participants.index(row["participant"]), MODELS.index(row["model"])))
    return merged, _of_seeds(rows)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return _model(row["model"]), row["participant"], row["layer"], row["region"]


def _mean_scores(several: Sequence[LayerScores]) -> LayerScores:
    """What intervals of a mean over seeds are made of: draws of the same blocks, averaged one by one."""
    names = ("region", "region_normalized", "draws", "draws_normalized")
    return replace(several[0], **{name: np.mean([getattr(one, name) for one in several], axis=0) for name in names})


def _of_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the controls, with the seed in a column of its own."""
    return [
        {**row, "model": CONTROL, "seed": int(row["model"].removeprefix(f"{CONTROL}-"))}
        for row in rows
        if _model(row["model"]) != row["model"]
    ]


def _over_seeds(rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> list[dict[str, Any]]:
    """Rows that differ in the seed only become one: the mean of each number that is not a count."""
    alike: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault((_model(row["model"]), *(row[name] for name in key)), []).append(row)
    return [
        {
            name: float(np.mean([row[name] for row in group])) if isinstance(value, float) else value
            for name, value in {**group[0], "model": model}.items()
        }
        for (model, *_), group in alike.items()
    ]


def _tuning_stage(
    experiment: Experiment, source: str, model: Path | str, frames: Path, who: str, permutation: int | None, config: TuneConfig
) -> Stage:
    data, runs, voxels = experiment.data, (*experiment.train, experiment.validation), experiment.tuned_on[who]
    scans = {run: [float(data.row_times(run)[0]), data.n_rows(run)] for run in runs}
    return Stage(
        f"models/{who}/{arm_name(permutation)}",
        {"tune": config, "permutation": permutation, "voxels": voxels, "scans": scans},
        (source, "frames"),
        tune_on,
        (experiment, model, frames, who, permutation, config),
        inputs={f"{run}/{path.name}": path for run in runs for path in data.response_files(who, run)},
        resumable=True,
    )


def _curves(log: Path) -> list[dict[str, Any]]:
    """The rows of the table of training: one for each epoch, NaN for the training loss before any update."""
    names = ("epoch", "updates", "train_loss", "validation_loss", "validation_r")
    return [
        {**{name: math.nan if row[name] is None else row[name] for name in names}, "seconds": row["time"]["seconds"]}
        for row in epochs(log)
    ]
