"""Before the first update: what a run is known by, its files of targets and frames, and its losses.

Axis letters: t row (scan), v voxel, b clip, f frame, c CNN channel.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.files import make_folder
from fastencode.plain import plain
from fastencode.speech.audio import audio_seconds
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features, extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.store import is_finished, map_features
from fastencode.tune.batches import Place, Sources
from fastencode.tune.checkpoint import RunFolder
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import CachedFrames, Clips, Lessons, Sounds, cache_responses, digests, write_rows
from fastencode.tune.model import BrainModel
from fastencode.tune.objectives import Objective
from fastencode.tune.own_loss import OwnLoss
from fastencode.tune.processes import Processes
from fastencode.tune.targets import lag1, model_targets, source_rows
from fastencode.tune.word_loss import WordLoss, vocabulary, word_labels

__all__ = ["cache_bytes", "identity_of", "keeps_frames", "make_objective", "make_sources"]

_FITTED_ON = 64  # clips that clusters of the model's own loss are found on


def identity_of(
    encoder: SpeechEncoder, lessons: Lessons, config: TuneConfig, out: Path, about: Mapping[str, Any], processes: int = 1
) -> dict[str, Any]:
    """What decides a run, as plain values; ``run.json`` holds it.

    Parameters
    ----------
    encoder, lessons, config
        As for :func:`fastencode.tune.trainer.tune_lessons`.
    out : Path
        The run's folder. Files of data that are as large and as old as its ``run.json`` says are not read again.
    about : mapping
        Plain values that decide nothing and are kept for readers, as ``files``, ``base_model`` and ``frozen`` are.
    processes : int
        How many there are: their number decides how batches are cut.

    Returns
    -------
    dict
        Settings, SHA-256 digests of weights, responses, sounds, voxels and words, and who heard what when.

    Raises
    ------
    InputError
        If a file is missing, or ``run.json`` is damaged.
    """
    known = RunFolder.read_identity(out) or {}
    responses = {
        f"{who}/{run}/{path.name}": path
        for who in lessons.people
        for run in (*lessons.train[who], *lessons.validation.get(who, ()))
        for path in lessons.data.response_files(who, run)
    }
    runs = (*lessons.runs(lessons.train), *lessons.runs(lessons.validation))
    words = {run: lessons.data.words(run) for run in lessons.runs(lessons.train)} if config.word_weight else {}
    other = config.targets.partition(":")[2]
    files = digests([*responses.values(), *lessons.sounds().values()], known.get("files", {}))
    return {
        "settings": plain(config),
        "model": encoder.hash(),
        "data": {name: files[str(path)]["sha256"] for name, path in responses.items()},
        "sounds": {name: files[str(path)]["sha256"] for name, path in lessons.sounds().items()},
        "voxels": {who: _digest(np.asarray(chosen, np.int64)) for who, chosen in lessons.voxels.items()},
        "weights": {who: _digest(np.asarray(values, np.float32)) for who, values in lessons.weights.items()},
        "heard": {"train": plain(lessons.train), "validation": plain(lessons.validation)},
        "people": list(lessons.people),  # their order is that of the optimizer's state
        "tr": float(lessons.data.tr),
        "scans": {run: {"first ends": float(lessons.ends(run)[0]), "rows": lessons.data.n_rows(run)} for run in runs},
        "words": {run: _digest(np.frombuffer(json.dumps(said).encode(), np.uint8)) for run, said in words.items()},
        "target_model": SpeechEncoder(other).hash() if other else None,
        "processes": processes,
        "files": files,
        "base_model": encoder.name,
        "frozen": encoder.cnn_hash(),
        "about": plain({"tr": lessons.data.tr, **about}, shown=True),
    }


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def make_sources(
    model: BrainModel,
    lessons: Lessons,
    config: TuneConfig,
    cache: Path,
    frames: Path | None,
    processes: Processes,
    *,
    show_progress: bool = True,
) -> tuple[Sources, Sources]:
    """Batches for training and for validation, from files in ``cache``, which one process makes.

    Raises
    ------
    InputError
        If a recording is shorter than its scans, responses do not fit, or frames are of other clips.
    """
    lessons.check_sounds()
    if not processes.is_first:  # the files are made by the first one; the others come when they are there
        processes.wait()
    targets = _targets(model.encoder, lessons, config, cache, show_progress)  # first: mistakes show before the CNN's hours
    clips = _clips(model, lessons, config, cache, frames, show_progress)
    if processes.is_first:
        processes.wait()
    moved: dict[tuple[str, str], tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
    for who in lessons.people:
        rows = {run: lessons.data.n_rows(run) for run in lessons.train[who]}
        if config.targets in ("permuted", "shifted"):
            moved |= {(who, run): pair for run, pair in source_rows(rows, config, who, lessons.data.tr).items()}
    train = Sources(lessons, lessons.runs(lessons.train), lessons.train, clips, targets, moved, model.halo)
    return train, Sources(lessons, lessons.runs(lessons.validation), lessons.validation, clips, targets, {}, model.halo)


def _clips(
    model: BrainModel, lessons: Lessons, config: TuneConfig, cache: Path, frames: Path | None, show_progress: bool
) -> Clips:
    """The clips of all runs: as the frozen CNN's frames where these are given or kept, else as sound."""
    encoder, sounds = model.encoder, lessons.sounds()
    read = ReadConfig("clip", tr=lessons.data.tr, seconds=config.clip_seconds, pool="mean")
    # Frames that are there already count as free: else a run that goes on, or its next process, would decide otherwise.
    made = sum(path.stat().st_size for path in (cache / "frames").rglob("*") if path.is_file())
    free = shutil.disk_usage(make_folder(cache)).free + made
    if _frames_change(config) or (frames is None and not keeps_frames(encoder, lessons, config, free)):
        return Sounds(sounds, encoder, cache / "sounds", config)
    files = extract_frames(sounds, encoder, frames or cache / "frames", read, show_progress=show_progress)
    cached = CachedFrames(files, lessons.data.tr)
    for run in (*lessons.runs(lessons.train), *lessons.runs(lessons.validation)):
        cached.check(lessons.data.recording(run), lessons.ends(run))
    return cached


def cache_bytes(encoder: SpeechEncoder, lessons: Lessons, config: TuneConfig) -> int:
    """Bytes that the frozen CNN's frames of all clips take on disk."""
    n = round(config.clip_seconds * encoder.sample_rate)
    with torch.no_grad():
        shape = encoder.cnn(torch.zeros((1, n), device=encoder.device)).shape
    clips = sum(int(audio_seconds(path) / lessons.data.tr) for path in lessons.sounds().values())
    return 4 * shape[1] * shape[2] * clips


def keeps_frames(encoder: SpeechEncoder, lessons: Lessons, config: TuneConfig, free: float) -> bool:
    """Whether a run keeps the frozen CNN's frames on disk, of which ``free`` bytes are free: see ``TuneConfig.cnn_cache``."""
    if _frames_change(config) or config.cnn_cache == "off":
        return False
    if config.cnn_cache == "on":
        return True
    ends = [lessons.ends(run) for run in (*lessons.runs(lessons.train), *lessons.runs(lessons.validation))]
    at_multiples = all(np.allclose(one / lessons.data.tr, np.rint(one / lessons.data.tr), rtol=0, atol=1e-5) for one in ends)
    size = cache_bytes(encoder, lessons, config)
    return at_multiples and config.epochs > 1 and size <= min(1e9 * config.cache_gb, free / 2)


def _frames_change(config: TuneConfig) -> bool:
    """Whether the CNN's frames of a clip are others in another epoch: the CNN learns, or what it gets depends on the batch."""
    return bool(config.unfreeze) or config.normalize == "batch"


def _targets(
    encoder: SpeechEncoder, lessons: Lessons, config: TuneConfig, cache: Path, show_progress: bool
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """(participant, run) → (t, v) float32: z-scored responses, or in their place what another model makes of the same sound."""
    identity = RunFolder.read_identity(cache.parent) or {}
    files = {path: values["sha256"] for path, values in identity.get("files", {}).items()}
    responses = cache_responses(lessons, cache / "responses", files)
    kind, _, folder = config.targets.partition(":")
    if kind != "model":
        return responses
    other = SpeechEncoder(folder, device=encoder.device)
    read = ReadConfig("clip", tr=lessons.data.tr, seconds=config.clip_seconds, pool="mean")
    features = extract_features(lessons.sounds(), other, cache / "other-model", read, show_progress=show_progress)
    found = {}
    for (who, run), values in responses.items():
        states = CachedFrames({run: features[lessons.data.recording(run)]}, lessons.data.tr).read(run, lessons.ends(run))[:, -1]
        path = make_folder(cache / "targets" / who) / f"{run}.h5"
        smoothness = float(np.mean([lag1(responses[who, one]) for one in lessons.train[who]]))
        key = {"model": other.hash(), "lag1": smoothness, "voxels": values.shape[1], "seed": config.seed}
        if not is_finished(path, key):
            made = model_targets(states, values.shape[1], smoothness, np.random.default_rng([config.seed, 13]))
            write_rows(path, lessons.ends(run), made.astype(np.float32), key)
        found[who, run] = map_features(path)[:, 0]
    return found


def make_objective(model: BrainModel, train: Sources, config: TuneConfig, *, fit_own: bool) -> Objective:
    """The losses of a run; clusters of the model's own loss are found on a few training clips, unless a state holds them."""
    lessons, n = train.lessons, round(config.clip_seconds * model.encoder.sample_rate)
    own = words = None
    heard: dict[str, Any] = {}
    if config.word_weight:
        heard = {run: lessons.data.words(run) for run in train.runs}
        known = vocabulary([[word.label for word in one] for one in heard.values()], config.words)
        width = model.encoder.width * (len(config.delays) if config.head == "delays" else 1)
        labels = [word_labels(heard[run], lessons.ends(run), lessons.data.tr, known) for run in train.runs]
        words = WordLoss(width, known, seed=config.seed, rates=np.concatenate(labels).mean(axis=0)).to(model.encoder.device)
    if config.own_weight or config.targets == "stimulus":
        own = OwnLoss(model.encoder, kind=config.own_loss, seed=config.seed).to(model.encoder.device)
    objective = Objective(model, config, lessons.people, n, lessons.weights, own, words, heard, lessons.data.tr)
    if own is not None and fit_own:
        own.fit(_some_frames(objective, train, config))
    if not lessons.people and own is None:
        raise InputError("there is nobody to learn from and no own loss: name participants, or give targets=stimulus")
    return objective


def _some_frames(objective: Objective, train: Sources, config: TuneConfig) -> torch.Tensor:
    """CNN frames of ``_FITTED_ON`` clips drawn from all runs, (b, f, c)."""
    rng, rows = np.random.default_rng([config.seed, 14]), train.n_rows
    runs = np.repeat(np.arange(len(rows)), rows)
    chosen = np.sort(rng.permutation(len(runs))[:_FITTED_ON])
    place = Place(runs[chosen], np.concatenate([np.arange(n) for n in rows])[chosen])
    with torch.no_grad():
        frames = [
            objective.frames(train.part(part).to(objective.device)) for part in place.split(-(-len(chosen) // config.batch))
        ]
    return torch.cat(frames)
