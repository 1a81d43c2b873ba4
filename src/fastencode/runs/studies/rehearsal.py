"""Small pieces of a study's work, timed now: what a dry run scales to the whole.

Each function does what a stage does, by the stage's own code, on noise or on a few sounds, and returns seconds. Of work that is
too large for a dry run a part is done, and the time is multiplied by the ratio of the sizes. How soon a probe or a network has
learned depends on its data, so these times are right to about a factor of 2.

Axis letters: n row, d feature, v voxel.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastencode.data.corpora import Corpus, open_corpus
from fastencode.errors import FastencodeError, FastencodeWarning
from fastencode.runs.changes import ChangeConfig, measure_layer
from fastencode.solve.edges import held_warnings
from fastencode.speech.acoustics import frame_times, log_mel, sound_power
from fastencode.speech.audio import audio_seconds, resample
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import extract_packed, extract_packed_frames, extract_packed_mfcc
from fastencode.study.brains.design import plan_runs, without
from fastencode.study.brains.layer_scores import Listener, Predicted, predict_in_tiles, scores_of
from fastencode.study.brains.mlp import mlp_against_ridge, mlp_operations
from fastencode.study.config import CPU, AlignConfig, MlpConfig
from fastencode.study.probes import probe
from fastencode.timing.lanczos import lanczos
from fastencode.world.config import CorpusConfig, WorldConfig
from fastencode.world.corpora import make_commands, make_timit
from fastencode.world.simulate import make_world

__all__ = ["Said", "change", "fit", "low_level", "network", "probing", "reading", "some_sounds", "speak", "world"]

_SOUNDS, _READ = 24, 0.7  # sounds that models are tried on, and s that reading them may take, at most
_APART = 0.1  # how far means of classes lie apart: as hard to tell as words and phonemes are in layers of the small model
_PROBED = 5e6  # values of rows × features × classes that a probe is tried on at most
_CLASSES, _FEWEST = 120, 100  # classes, labels or targets at most, rows at least
_ROWS, _VOXELS = 400, 300  # that fits and networks are tried on at most
_NOISE = 60  # s of noise that low-level features are made of
_STORY = 41  # TRs of a story that is told: the shortest that a world may have

_MAKERS: Mapping[str, Callable[..., None]] = {"timit": make_timit, "commands": make_commands}


class Said(NamedTuple):
    """A corpus that was spoken to try it: seconds of work and bytes on disk of each recording, and the corpus."""

    seconds: float
    disk: float
    corpus: Corpus


def speak(kind: str, config: CorpusConfig, folder: Path) -> Said:
    """A corpus of one speaker for each split, in an empty folder."""
    few = replace(config, train_speakers=1, validation_speakers=1, test_speakers=1, repetitions=1)
    spent = _timed(lambda: _MAKERS[kind](folder, few, show_progress=False))
    corpus = open_corpus(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Said(spent / len(corpus.recordings), size / len(corpus.recordings), corpus)


def world(config: WorldConfig) -> float:
    """Seconds of a minute of the demo's world, told and simulated for all of its participants."""
    minutes = _STORY * config.tr / 60
    few = replace(config, minutes=minutes, story_minutes=minutes, test_minutes=minutes)
    with tempfile.TemporaryDirectory() as folder:
        return _timed(lambda: make_world(few, Path(folder), show_progress=False)) / (3 * minutes)


def some_sounds(corpus: Corpus) -> dict[str, Path]:
    """A few recordings from all parts of a corpus, those that can be read."""
    names, some = list(corpus.sounds), dict[str, Path]()
    for place in np.unique(np.linspace(0, len(names) - 1, _SOUNDS).round().astype(int)):
        with suppress(FastencodeError):
            audio_seconds(corpus.sounds[names[place]])
            some[names[place]] = corpus.sounds[names[place]]
    return some


def reading(sounds: Mapping[str, Path], encoder: SpeechEncoder | None) -> tuple[float, float, float]:
    """Seconds of work for a second of sound: layers of sound, the CNN's frames, layers of frames.

    Without an encoder cepstra, and 0 for the others. Of Whisper, whose frames are not kept, the last two are 0.
    """
    one = dict(list(sounds.items())[:1])
    first = sum(_read(one, encoder))  # which also warms up
    count = len(sounds) if encoder is None else max(1, min(len(sounds), int(_READ / max(first, 1e-3))))
    some = dict(list(sounds.items())[:: max(1, len(sounds) // count)][:count])
    layers, front, above = (max(each, 0.0) / sum(map(audio_seconds, some.values())) for each in _read(some, encoder))
    return layers, front, above


def _read(sounds: Mapping[str, Path], encoder: SpeechEncoder | None) -> tuple[float, float, float]:
    """Seconds of reading sounds, of making frames, of reading frames."""
    config = ReadConfig("utterance")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # of sounds: the stage says it
        heard, frames, read = (Path(folder) / name for name in ("heard.h5", "frames.h5", "read.h5"))
        if encoder is None:
            return _timed(lambda: extract_packed_mfcc(sounds, heard, show_progress=False)), 0.0, 0.0
        known = _timed(encoder.hash)  # once for each file, however long it is
        layers = _timed(lambda: extract_packed(sounds, encoder, heard, config, show_progress=False)) - known
        if encoder.longest is not None:
            return layers, 0.0, 0.0
        front = _timed(lambda: extract_packed_frames(sounds, encoder, frames, show_progress=False))
        return (
            layers,
            front,
            _timed(lambda: extract_packed(sounds, encoder, read, config, frames=frames, show_progress=False)) - known,
        )


def probing(kind: str, n: int, d: int, k: int, *, control: bool) -> float:
    """Seconds of one layer's probe: n rows of d features, k classes, labels or targets, whose means lie apart in the features."""
    classes = min(k, _CLASSES)
    rows = max(min(n, int(_PROBED / (d * classes))), 10 * classes, _FEWEST)
    rng = np.random.default_rng(0)
    speakers = np.arange(rows) * 20 // rows
    split = np.where(speakers < 14, "train", "test")
    spread = (1 + np.arange(d)) ** -0.5  # states of models are far from round
    if kind == "classification":
        labels: Any = np.arange(rows) % classes  # each stands in both splits
        known = np.eye(classes)[labels]
    elif kind == "multilabel":
        labels = rng.random((rows, classes)) < 0.4
        known = labels.astype(float)
    else:
        labels = known = rng.standard_normal((rows, classes))
    X = (rng.standard_normal((rows, d)) + _APART * known @ rng.standard_normal((classes, d))) * spread
    options: dict[str, Any] = {"task": kind, "control": 0 if control else None, "n_layers": 1}
    with warnings.catch_warnings(), held_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)
        spent = _timed(lambda: probe(X.astype(np.float32)[:, None], labels, speakers, split=split, **options))
    return spent * max(1.0, n / rows) * k / classes


def fit(n: int, n_test: int, p: int, v: int, regions: int, config: AlignConfig) -> tuple[float, float, float]:
    """Seconds of one layer in one brain: its ridge, as far as it is tried; scores of v voxels on n_test rows with their draws
    and permutations; taking low-level features out of it, as far as that is tried."""
    listener, design = _noise(n, n_test, p, v, regions, config)
    X, X_test, labels = design.matrices
    known = np.random.default_rng(1).standard_normal((len(X) + n_test, 32)).astype(np.float32)
    less = _timed(lambda: without(np.vstack([X, X_test]), known, labels, config, CPU))
    found: list[Predicted] = []
    ridge = _timed(lambda: found.append(predict_in_tiles(plan_runs(X, labels, config, CPU), X_test, listener.fit)))
    return ridge, _timed(lambda: scores_of(found[0], listener, config)) * max(1.0, v / _VOXELS), less


def low_level(name: str) -> float:
    """Seconds of work for a second of a story's sound: the spectrum or the power of it; 0 for what is made of labels."""
    if name not in ("spectrum", "sound_power"):
        return 0.0
    noise = np.random.default_rng(0).standard_normal(_NOISE * 22050).astype(np.float32)
    scans = np.arange(1.0, _NOISE, 2.0)

    def make() -> None:
        sound = resample(noise, 22050, 16000)
        frames = log_mel(sound, 16000, n_mels=20) if name == "spectrum" else sound_power(sound, 16000)
        lanczos(frames, frame_times(len(frames), 16000), scans, normalize=True)

    make()
    return _timed(make) / _NOISE


def network(n: int, n_test: int, p: int, v: int, regions: int, config: AlignConfig, mlp: MlpConfig) -> float:
    """Seconds of one layer's networks and ridges in one brain, where no network is better than its ridge for long."""
    listener, design = _noise(n, n_test, p, v, regions, config)
    rows, voxels = listener.fit.shape
    spent = _timed(lambda: mlp_against_ridge(design, listener, config, mlp))
    return spent * mlp_operations(n, p, v, mlp) / mlp_operations(rows, p, voxels, mlp)


def change(n: int, d: int) -> float:
    """Seconds of the comparison of one layer with that before: n rows of d features."""
    config, rng = ChangeConfig(), np.random.default_rng(0)
    n = min(n, config.rows)
    rows = min(n, _ROWS)
    before, after = rng.standard_normal((2, rows, d)).astype(np.float32)
    return _timed(lambda: measure_layer(before, after, config, 4, 20)) * n / rows


def _noise(n: int, n_test: int, p: int, v: int, regions: int, config: AlignConfig) -> tuple[Listener, Any]:
    """Responses and a design of noise, of two runs, as far as they are tried."""
    n, v, rng = min(n, _ROWS), min(v, _VOXELS), np.random.default_rng(0)
    X, X_test, Y, Y_test = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, p), (n_test, p), (n, v), (n_test, v)))
    labels = np.repeat([0, 1], [n - n // 2, n // 2])
    chosen = {f"region-{k}": np.arange(v) for k in range(1 + regions)}
    plan = plan_runs(X, labels, config, CPU)
    return Listener(Y, Y_test, None, chosen), SimpleNamespace(matrices=(X, X_test, labels), plan=plan, resources=CPU)


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
