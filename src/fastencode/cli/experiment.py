"""Before and after: tune a model and a control on each participant, read every layer of all of them, align them with the brains.

Every subcommand that asks this question brings its own ``Material``; the stages below are the same for all.

    sounds ─► frames (frozen CNN, once) ─► models/<participant>/{tuned,control} ─► features/<model> ─► fits ─► scores
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastencode.errors import InputError, require
from fastencode.files import sha256
from fastencode.runs.engine import Stage, Stages
from fastencode.speech.layers import SpeechEncoder, layer_features
from fastencode.study.alignment import LayerFit, align, to_scans
from fastencode.study.blocks import interval
from fastencode.study.config import AlignConfig
from fastencode.study.report import MODEL_ORDER
from fastencode.study.significance import RegionDraws, bootstrap_region_scores
from fastencode.timing.clean import zscore
from fastencode.tune.baselines import permute_blocks
from fastencode.tune.clips import RunFrames, write_frames
from fastencode.tune.config import TuneConfig
from fastencode.tune.trainer import Examples, brain_tune

__all__ = ["ARMS", "MODELS", "Material", "Outcome", "Run", "before_and_after", "contrast"]

MODELS = tuple(MODEL_ORDER)
ARMS = MODELS[1:]
MAPPED_CEILING = 0.05  # voxels with less are left out of normalized scores


@dataclass(frozen=True)
class Run:
    """Response rows that belong together: the sound they were scanned during, and when each row's scan ended, (rows,) in s."""

    sound: str
    ends: np.ndarray


@dataclass(frozen=True)
class Material:
    """What a data set gives.

    Attributes
    ----------
    tr : float
        In s; scans end at multiples of it.
    sounds : name → audio, shape (n,), float32
    runs : name → Run
    train, validation, test : run names
        The model is tuned on ``train``, watched on ``validation``, scored on ``test``. Ridge is fitted on ``train``.
    responses : participant → run → ndarray, shape (rows, v)
    ceilings : participant → ndarray, shape (v,); empty when unknown
    regions : participant → region → voxel indices
    tuned_on : participant → voxel indices
    sample_rate : int
        Of the sounds, in Hz.
    """

    tr: float
    sounds: Mapping[str, np.ndarray]
    runs: Mapping[str, Run]
    train: tuple[str, ...]
    validation: str
    test: str
    responses: Mapping[str, Mapping[str, np.ndarray]]
    ceilings: Mapping[str, np.ndarray]
    regions: Mapping[str, Mapping[str, np.ndarray]]
    tuned_on: Mapping[str, np.ndarray]
    sample_rate: int = 16000


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes
    ----------
    scores, training : list of dict
        Tidy rows, one for each participant × model × layer × region, and for each participant × arm × epoch.
    draws : participant → RegionDraws
        Bootstrap draws whose first axis of models runs over ``MODELS``, and within each over layers.
    n_layers : int
    """

    scores: list[dict[str, Any]]
    training: list[dict[str, Any]]
    draws: dict[str, RegionDraws]
    n_layers: int


def before_and_after(
    stages: Stages, material: Material, *, source: str, model: Path | str, tune: TuneConfig, alignment: AlignConfig, jobs: int
) -> Outcome:
    """Run every stage that is not finished, ``jobs`` processes at a time.

    Parameters
    ----------
    stages : Stages
    material : Material
    source : str
        Name of the finished stage that stands for the material's data.
    model : path or str
        Folder or hub name of the pretrained encoder.
    """
    frames = stages.run(
        Stage(
            "frames",
            {"model": _fingerprint(model), "seconds": tune.clip_seconds, "tr": material.tr},
            (source,),
            _make_frames,
            (model, material, tune.clip_seconds),
        )
    )
    tuning = [
        _tuning_job(material, source, model, frames, participant, arm, tune) for participant in material.responses for arm in ARMS
    ]
    stages.run_all(tuning, jobs=jobs)
    checkpoints: dict[str, Path | str] = {"pretrained": model} | {
        job.name.removeprefix("models/"): stages.path(job.name) for job in tuning
    }
    reading = [_reading_job(material, name, checkpoint, frames, tune, alignment) for name, checkpoint in checkpoints.items()]
    stages.run_all(reading, jobs=jobs)
    stages.check()
    features = {name: stages.path(f"features/{name}") / "layers.h5" for name in checkpoints}
    return _outcome(stages, material, features, alignment)


def contrast(
    outcome: Outcome, regions: tuple[str, ...], layers: Sequence[int], weights: Mapping[str, float]
) -> tuple[float, float, float]:
    """Mean over participants, regions and layers of a weighted sum over models, with its 95 % interval."""
    row = np.zeros(len(MODELS) * outcome.n_layers)
    for model, weight in weights.items():
        row[MODELS.index(model) * outcome.n_layers + np.array(layers)] = weight / len(layers)
    parts = [draws.contrast(row) for draws in outcome.draws.values()]
    r, draws = [], []
    for part in parts:
        columns = [part.regions.index(region) for region in regions]
        r.append(part.r[0, columns].mean())
        draws.append(part.draws[:, 0, columns].mean(axis=1))
    mean, n_blocks = float(np.mean(r)), min(part.n_blocks for part in parts)
    low, high = interval(mean, np.mean(draws, axis=0), n_blocks, correlation=False)
    return mean, float(low), float(high)


def _fingerprint(model: Path | str) -> str:
    """What a model is: the contents of a local folder, or a hub's name."""
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    total = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin") and p.name != "stage.json"):
        total.update(f"{path.name} {sha256(path)}\n".encode())
    return total.hexdigest()


def _digest(arrays: Mapping[str, Sequence[np.ndarray]]) -> str:
    """What the data of some runs are: names, shapes and values."""
    total = hashlib.sha256()
    for name, parts in arrays.items():
        for part in parts:
            total.update(f"{name} {part.dtype} {part.shape}\n".encode() + np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def _make_frames(folder: Path, model: Path | str, material: Material, seconds: float) -> None:
    encoder = SpeechEncoder(model)
    if encoder.sample_rate != material.sample_rate:
        raise InputError(
            f"{model} hears {encoder.sample_rate} Hz, the sounds have {material.sample_rate} Hz: choose another model"
        )
    write_frames(encoder, dict(material.sounds), folder, tr=material.tr, seconds=seconds)


def _tuning_job(
    material: Material, source: str, model: Path | str, frames: Path, participant: str, arm: str, config: TuneConfig
) -> Stage:
    runs = {name: material.runs[name] for name in (*material.train, material.validation)}
    voxels = material.tuned_on[participant]
    responses = {name: zscore(material.responses[participant][name][:, voxels]).astype(np.float32) for name in runs}
    clips = {name: RunFrames(frames / f"{run.sound}.npy", material.tr) for name, run in runs.items()}
    return Stage(
        f"models/{participant}/{arm}",
        {"tune": config, "arm": arm, "data": _digest({name: [runs[name].ends, responses[name]] for name in runs})},
        (source, "frames"),
        _tune_arm,
        (
            model,
            clips,
            {name: run.ends for name, run in runs.items()},
            responses,
            material.validation,
            config,
            arm,
            participant,
        ),
    )


def _tune_arm(
    folder: Path,
    model: Path | str,
    clips: Mapping[str, RunFrames],
    ends: Mapping[str, np.ndarray],
    responses: Mapping[str, np.ndarray],
    validation: str,
    config: TuneConfig,
    arm: str,
    participant: str,
) -> None:
    """Tune one model; the control sees the same clips with block-permuted responses, in an order of the participant's own."""
    examples = {name: Examples(run.at(ends[name]), responses[name]) for name, run in clips.items()}
    parts = [part for name, part in examples.items() if name != validation]
    train = Examples.join(parts)
    if arm == "control":
        rng = np.random.default_rng([config.seed, 12, zlib.crc32(participant.encode())])
        order = permute_blocks([len(part.responses) for part in parts], rng=rng)
        train = Examples(train.frames, train.responses[order])
    history = brain_tune(SpeechEncoder(model), train, examples[validation], config, folder, desc=f"{participant} {arm}")
    _write_rows(folder / "history.csv", [asdict(epoch) for epoch in history])


def _reading_job(
    material: Material, name: str, checkpoint: Path | str, frames: Path, tune: TuneConfig, alignment: AlignConfig
) -> Stage:
    reads = ("frames",) if name == "pretrained" else ("frames", f"models/{name}")
    return Stage(
        f"features/{name}",
        {"lobes": alignment.lobes, "runs": _digest({name: [run.ends] for name, run in material.runs.items()})},
        reads,
        _read_layers,
        (checkpoint, frames, dict(material.runs), material.tr, tune.clip_seconds, alignment.lobes, name),
    )


def _read_layers(
    folder: Path, checkpoint: Path | str, frames: Path, runs: Mapping[str, Run], tr: float, seconds: float, lobes: int, name: str
) -> None:
    """Every layer at every scan. Of each clip the frames of its last TR count: they have heard what came before them."""
    encoder = SpeechEncoder(checkpoint)
    middles = encoder.frame_times(round(seconds * encoder.sample_rate))
    keep = slice(int(np.searchsorted(middles, seconds - tr)), None)
    sounds = {sound: RunFrames(frames / f"{sound}.npy", tr) for sound in dict.fromkeys(run.sound for run in runs.values())}
    read = layer_features(encoder, [part.all() for part in sounds.values()], keep=keep, desc=f"layers of {name}")
    with h5py.File(folder / "layers.h5", "w") as file:
        for (sound, part), hidden in zip(sounds.items(), read, strict=True):
            times = (part.ends[:, None] - seconds + middles[keep]).ravel()
            frames_ltd = hidden.reshape(len(hidden), -1, hidden.shape[-1])
            for run_name, run in runs.items():
                if run.sound == sound:
                    file[run_name] = to_scans(frames_ltd, times, run.ends - tr / 2, lobes=lobes)


def _outcome(stages: Stages, material: Material, features: Mapping[str, Path], config: AlignConfig) -> Outcome:
    fits: dict[str, dict[str, list[LayerFit]]] = {participant: {} for participant in material.responses}
    for name, path in features.items():
        whose = list(fits) if name == "pretrained" else [name.split("/")[0]]
        model = name.split("/")[-1]
        with h5py.File(path) as file:
            layers = {run: file[run][:] for run in (*material.train, material.test)}
        responses = {participant: material.responses[participant] for participant in whose}
        for fit in align(
            layers, responses, fit_runs=material.train, test_run=material.test, config=config, desc=f"ridge, {name}"
        ):
            fits[fit.participant].setdefault(model, []).append(fit)
    scores, draws = [], {}
    for participant, models in fits.items():
        rows, draws[participant] = _score(material, participant, models, config)
        scores += rows
    training = [
        {"participant": participant, "model": arm, **row}
        for participant in fits
        for arm in ARMS
        for row in _read_rows(stages.path(f"models/{participant}/{arm}") / "history.csv")
    ]
    return Outcome(scores, training, draws, len(fits[next(iter(fits))]["pretrained"]))


def _score(
    material: Material, participant: str, models: Mapping[str, list[LayerFit]], config: AlignConfig
) -> tuple[list[dict[str, Any]], RegionDraws]:
    """Region means of the test correlations, raw and divided by the noise ceiling, with paired block-bootstrap intervals."""
    measured = material.responses[participant][material.test]
    regions = material.regions[participant]
    ordered = [(model, fit) for model in MODELS for fit in models[model]]
    predictions = [fit.predicted for _, fit in ordered]
    settings: dict[str, Any] = {"block": config.block, "n_boots": config.bootstraps, "random_state": config.seed}
    raw = bootstrap_region_scores(measured, predictions, regions, **settings)
    low, high = raw.interval()
    ceiling = material.ceilings.get(participant)
    normalized = _normalized(measured, predictions, regions, ceiling, settings)
    rows = []
    for m, (model, fit) in enumerate(ordered):
        for r, (region, voxels) in enumerate(regions.items()):
            rows.append(
                {
                    "participant": participant,
                    "model": model,
                    "layer": fit.layer,
                    "region": region,
                    "n_voxels": len(voxels),
                    "ceiling": float("nan") if ceiling is None else float(ceiling[voxels].mean()),
                    "r": float(raw.r[m, r]),
                    "r_low": float(low[m, r]),
                    "r_high": float(high[m, r]),
                    "r_normalized": float(normalized[region][m]) if region in normalized else float("nan"),
                    "alpha_median": float(np.median(fit.alpha[voxels])),
                    "at_edge": float(np.mean(fit.at_edge[voxels] != 0)),
                }
            )
    return rows, raw


def _normalized(
    measured: np.ndarray,
    predictions: list[np.ndarray],
    regions: Mapping[str, np.ndarray],
    ceiling: np.ndarray | None,
    settings: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Region → mean correlation / mean ceiling of its voxels with a ceiling above ``MAPPED_CEILING``, for each prediction."""
    if ceiling is None:
        return {}
    mapped = {name: voxels[ceiling[voxels] > MAPPED_CEILING] for name, voxels in regions.items()}
    mapped = {name: voxels for name, voxels in mapped.items() if len(voxels)}
    if not mapped:
        return {}
    scores = bootstrap_region_scores(measured, predictions, mapped, ceilings=ceiling, **settings)
    return dict(zip(scores.regions, scores.r.T, strict=True))


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    pandas = require("pandas", "tune")
    pandas.DataFrame(rows).to_csv(path, index=False)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    pandas = require("pandas", "tune")
    return pandas.read_csv(path).to_dict("records")
