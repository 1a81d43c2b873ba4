"""Before and after: tune a model and a control on each participant, read every layer of all of them, score them in the brains.

Every subcommand that asks this question brings its own data set; the stages below are the same for all. Reading and scoring are
those of ``fastencode-tune features`` and ``align``.

    sounds ─► frames (frozen CNN, once) ─► models/<participant>/{tuned,control} ─► features/<model> ─► fits ─► scores
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.data.dataset import Dataset
from fastencode.errors import require
from fastencode.runs.alignment import Question, Records, gather, key_of, layer_stages, responses_stage
from fastencode.runs.engine import Stage, Stages
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features, extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.study.blocks import interval
from fastencode.study.config import AlignConfig
from fastencode.study.design import Variant
from fastencode.study.report import MODEL_ORDER
from fastencode.study.sources import LayerFolder
from fastencode.study.tables import WHOLE, score_rows
from fastencode.timing.clean import zscore
from fastencode.tune.baselines import permute_blocks
from fastencode.tune.clips import clips_at
from fastencode.tune.config import TuneConfig
from fastencode.tune.model import check_tunable
from fastencode.tune.trainer import Examples, brain_tune

__all__ = ["ARMS", "MODELS", "Experiment", "Outcome", "before_and_after", "contrast"]

MODELS = tuple(MODEL_ORDER)
ARMS = MODELS[1:]


@dataclass(frozen=True)
class Experiment:
    """Who is tuned on what.

    Attributes
    ----------
    data : Dataset
        Scans end at multiples of its TR. Its test run is what models are scored on.
    train : run names
        The model is tuned on these, and ridge is fitted on them.
    validation : run name
        What is watched while tuning.
    tuned_on : participant → voxel indices
        Whose responses a model of the participant learns.
    """

    data: Dataset
    train: tuple[str, ...]
    validation: str
    tuned_on: Mapping[str, np.ndarray]

    @property
    def runs(self) -> tuple[str, ...]:
        return (*self.train, self.validation, self.data.test_story)

    def ends(self, run: str) -> np.ndarray:
        """When each row's scan ended, (rows,) in s: a clip ends there."""
        return self.data.row_times(run) + self.data.tr


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
    frames = stages.run(Stage("frames", settings, (source,), _make_frames, (model, sounds, read)))
    tuning = [_tuning_stage(experiment, source, model, frames, who, arm, tune) for who in participants for arm in ARMS]
    stages.run_all(tuning, jobs=jobs)
    checkpoints: dict[str, Path | str] = {MODELS[0]: model}
    checkpoints |= {stage.name.removeprefix("models/"): stages.path(stage.name) for stage in tuning}
    reading = [
        Stage(
            f"features/{name}",
            settings,
            ("frames",) if name == MODELS[0] else ("frames", f"models/{name}"),
            _read_layers,
            (checkpoint, frames, sounds, read),
        )
        for name, checkpoint in checkpoints.items()
    ]
    stages.run_all(reading, jobs=jobs)
    stages.check()
    used = (*experiment.train, data.test_story)
    asked = []
    for name in checkpoints:
        layers = LayerFolder(stages.path(f"features/{name}"), data, lobes=alignment.lobes, used=used)
        asked.append((Variant(layers, tuple(alignment.delays)), participants if name == MODELS[0] else (name.split("/")[0],)))
    question = Question(
        data,
        dict.fromkeys(participants, experiment.train),
        {who: data.rois(who) for who in participants},
        alignment,
        ceiling=-1.0,  # all voxels count in raw means: the silent ones are part of what is asked
    )
    stages.run_all([responses_stage(question, who) for who in participants], jobs=jobs)
    fits = [stage for variant, whose in asked for stage in layer_stages(stages.root, question, variant, whose)]
    stages.run_all(fits, jobs=jobs)
    stages.check()
    found = gather(stages, {key_of(stage.settings): stage.name for stage in fits}, {}, {})
    rows = [row for row in score_rows(found.scores, found.columns, found.fit_rows) if row["region"] != WHOLE]
    rows.sort(key=lambda row: (participants.index(row["participant"]), MODELS.index(row["model"])))
    training = [
        {"participant": who, "model": arm, **row}
        for who in participants
        for arm in ARMS
        for row in _read_rows(stages.path(f"models/{who}/{arm}") / "history.csv")
    ]
    return Outcome(rows, training, found, asked[0][0].source.n_layers)


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


def _make_frames(folder: Path, model: Path | str, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    encoder = SpeechEncoder(model)
    check_tunable(encoder)
    extract_frames(sounds, encoder, folder, read)


def _read_layers(folder: Path, checkpoint: Path | str, frames: Path, sounds: Mapping[str, Path], read: ReadConfig) -> None:
    """Every layer, from the frames of the CNN that all checkpoints share."""
    extract_features(sounds, SpeechEncoder(checkpoint), folder, read, frames={name: frames / f"{name}.h5" for name in sounds})


def _tuning_stage(
    experiment: Experiment, source: str, model: Path | str, frames: Path, who: str, arm: str, config: TuneConfig
) -> Stage:
    runs, voxels = (*experiment.train, experiment.validation), experiment.tuned_on[who]
    scans = {run: [experiment.data.row_times(run)[0], experiment.data.n_rows(run)] for run in runs}
    return Stage(
        f"models/{who}/{arm}",
        {"tune": config, "arm": arm, "voxels": voxels, "scans": scans},
        (source, "frames"),
        _tune_arm,
        (experiment, model, frames, who, arm, config),
        inputs={f"{run}: {path.name}": path for run in runs for path in experiment.data.response_files(who, run)},
    )


def _tune_arm(
    folder: Path, experiment: Experiment, model: Path | str, frames: Path, who: str, arm: str, config: TuneConfig
) -> None:
    """Tune one model; the control sees the same clips with block-permuted responses, in an order of the participant's own."""
    parts = [_examples(experiment, frames, who, run) for run in experiment.train]
    train = Examples.join(parts)
    if arm == "control":
        rng = np.random.default_rng([config.seed, 12, zlib.crc32(who.encode())])
        order = permute_blocks([len(part.responses) for part in parts], rng=rng)
        train = Examples(train.frames, train.responses[order])
    validation = _examples(experiment, frames, who, experiment.validation)
    history = brain_tune(SpeechEncoder(model), train, validation, config, folder, desc=f"{who} {arm}")
    _write_rows(folder / "history.csv", [asdict(epoch) for epoch in history])


def _examples(experiment: Experiment, frames: Path, who: str, run: str) -> Examples:
    """The clip that ends with each scan, and the z-scored responses of the voxels to tune on."""
    data = experiment.data
    responses = zscore(data.responses(who, run, voxels=experiment.tuned_on[who])).astype(np.float32)
    return Examples(clips_at(frames / f"{data.recording(run)}.h5", experiment.ends(run)), responses)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    pandas = require("pandas", "tune")
    pandas.DataFrame(rows).to_csv(path, index=False)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    pandas = require("pandas", "tune")
    return pandas.read_csv(path).to_dict("records")
