"""A world whose truth is known, written in the layout of ds003020 (see ``fastencode.data.stories``): spoken stories and simulated
brains.

Each participant has three regions. ``auditory`` voxels follow the spectrum of the sound, ``late_language`` voxels the semantic
classes of the words, ``silent`` voxels nothing; the first two through a hemodynamic response whose peak and gain are the
participant's own, under autocorrelated noise. What no reader sees while fitting is in ``truth/<participant>.h5``: weights, gain,
and the noise ceiling of every voxel.

Two other worlds show whether a method can say no (``WorldConfig.late_follows``). In one, ``late_language`` voxels follow the
words of stories that nobody hears: their responses repeat and have the same strength and smoothness, but nothing that is heard
predicts them. In the other they follow the spectrum, as ``auditory`` voxels do, with weights of their own.

Axis letters: t TR row, v voxel, f stimulus feature, r repeat.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy.signal import lfilter

from fastencode.data.layout import FIRST_ROW, TRIMMED_ROWS
from fastencode.data.textgrid import write_textgrid
from fastencode.progress import progress
from fastencode.speech.acoustics import frame_times, log_mel
from fastencode.speech.audio import write_audio
from fastencode.timing.hrf import hrf_convolve
from fastencode.world.config import REGIONS, Participant, WorldConfig
from fastencode.world.espeak import SAMPLE_RATE, Speech
from fastencode.world.languages import LANGUAGE_OF, Language
from fastencode.world.tales import tell

__all__ = ["TEST_STORY", "VALIDATION_STORY", "make_world"]

TEST_STORY, VALIDATION_STORY = "test", "validation"

_TRAILING = 5  # TRs of sound after the last row
_MELS = 20
_HOP = 0.05  # seconds between the spectra that drive the auditory voxels


def make_world(config: WorldConfig, root: Path, *, show_progress: bool = True) -> None:
    """Speak the stories, simulate the participants, and write both under ``root`` (an existing folder).

    Raises
    ------
    MissingLibraryError
        If the speech synthesizer is not installed (extra ``demo``).
    """
    for folder in ("stimuli", "TextGrids", "preprocessed_data", "rois", "truth"):
        (root / folder).mkdir()
    minutes = dict.fromkeys([*config.train_stories, VALIDATION_STORY], config.story_minutes) | {TEST_STORY: config.test_minutes}
    rng, unheard_rng = np.random.default_rng([config.seed, 1]), np.random.default_rng([config.seed, 3])
    drives: dict[str, dict[str, _Drive]] = {}
    language = LANGUAGE_OF[config.language]
    for index, (story, length) in enumerate(progress(minutes.items(), desc="speaking", unit="story", enabled=show_progress)):
        voice = language.voices[index % len(language.voices)]
        said = tell(60 * length, rng, voice=voice, language=language)
        _write_story(root, story, said)
        unheard = tell(60 * length, unheard_rng, voice=voice, language=language) if config.late_follows == "nothing" else None
        drives[story] = {who.name: _drive(said, unheard, config, who.peak_delay) for who in config.participants}
    n_trs = {story: drive[config.participants[0].name].n_rows + TRIMMED_ROWS for story, drive in drives.items()}
    (root / "respdict.json").write_text(json.dumps(n_trs, indent=2) + "\n", encoding="utf-8")
    for index, who in enumerate(progress(config.participants, desc="simulating", unit="brain", enabled=show_progress)):
        own = {story: drive[who.name] for story, drive in drives.items()}
        _write_participant(root, who, own, config, np.random.default_rng([config.seed, 2, index]))


@dataclass(frozen=True)
class _Drive:
    """What moves a participant's voxels during one story, after the response: features of each driven region, (t, f)."""

    auditory: np.ndarray
    late_language: np.ndarray

    @property
    def n_rows(self) -> int:
        return len(self.auditory)


def _write_story(root: Path, story: str, said: Speech) -> None:
    write_audio(root / "stimuli" / f"{story}.wav", said.audio, SAMPLE_RATE)
    tiers = {"phone": said.phones, "word": said.words}
    write_textgrid(root / "TextGrids" / f"{story}.TextGrid", tiers, len(said.audio) / SAMPLE_RATE)


def _drive(said: Speech, unheard: Speech | None, config: WorldConfig, peak_delay: float) -> _Drive:
    n_rows = round(len(said.audio) / SAMPLE_RATE / config.tr) - FIRST_ROW - _TRAILING
    middles = config.tr * (np.arange(n_rows) + FIRST_ROW + 0.5)
    spectrum = _spectrum(said, middles, peak_delay)
    if config.late_follows == "spectrum":
        return _Drive(spectrum, spectrum)
    return _Drive(spectrum, _meaning(unheard or said, middles, peak_delay, LANGUAGE_OF[config.language]))


def _spectrum(said: Speech, middles: np.ndarray, peak_delay: float) -> np.ndarray:
    """Log-mel power of the sound through the response, (t, mels)."""
    spectrum = log_mel(said.audio, SAMPLE_RATE, n_mels=_MELS, window=_HOP, hop=_HOP)
    times = frame_times(len(spectrum), SAMPLE_RATE, window=_HOP, hop=_HOP)
    return hrf_convolve(spectrum.astype(np.float64), times, middles, dt=_HOP, peak_delay=peak_delay)


def _meaning(said: Speech, middles: np.ndarray, peak_delay: float, language: Language) -> np.ndarray:
    """Words of each semantic class through the response, (t, classes)."""
    classes_of, word_class = language.classes, language.word_class
    known = [(word.start, classes_of.index(word_class[word.label])) for word in said.words if word.label in word_class]
    onsets = np.array([start for start, _ in known])
    classes = np.eye(len(classes_of))[[index for _, index in known]]
    return hrf_convolve(classes, onsets, middles, peak_delay=peak_delay)


def _write_participant(
    root: Path, who: Participant, drives: dict[str, _Drive], config: WorldConfig, rng: np.random.Generator
) -> None:
    training = [drives[story] for story in config.train_stories]
    weights = {
        "auditory": _unit_weights(np.concatenate([d.auditory for d in training]), who.auditory, rng),
        "late_language": _unit_weights(np.concatenate([d.late_language for d in training]), who.late_language, rng),
    }
    gain_v = who.gain * rng.lognormal(0.0, 0.15, who.n_voxels)
    gain_v[who.n_voxels - who.silent :] = 0.0
    folder = root / "preprocessed_data" / who.name
    folder.mkdir()
    clean_test = np.empty(0)
    for story, drive in drives.items():
        signal = gain_v * _signal(drive, weights, who)
        n_repeats = config.repeats if story == TEST_STORY else 1
        heard_rtv = np.stack([signal + _noise(signal.shape, config.autocorrelation, rng) for _ in range(n_repeats)])
        with h5py.File(folder / f"{story}.hf5", "w") as file:
            file["data"] = heard_rtv.mean(axis=0)
            if story == TEST_STORY:
                file["individual_repeats"] = heard_rtv
                clean_test = signal
    _write_truth(root, who, weights, gain_v, clean_test, config)


def _unit_weights(features_tf: np.ndarray, n_voxels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random weights (f, v) on centered features that give each voxel a signal of unit variance over the training stories."""
    center = features_tf.mean(axis=0)
    spread = features_tf.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)  # a class can be absent from a short world
    weights_fv = scale[:, None] * rng.standard_normal((len(center), n_voxels))
    return center, weights_fv / ((features_tf - center) @ weights_fv).std(axis=0)


def _signal(drive: _Drive, weights: dict[str, tuple[np.ndarray, np.ndarray]], who: Participant) -> np.ndarray:
    parts = []
    for region, features in (("auditory", drive.auditory), ("late_language", drive.late_language)):
        center, weights_fv = weights[region]
        parts.append((features - center) @ weights_fv)
    return np.concatenate([*parts, np.zeros((drive.n_rows, who.silent))], axis=1)


def _noise(shape: tuple[int, ...], autocorrelation: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) noise of unit variance, independent between voxels; the warm-up is thrown away."""
    warm_up = 50
    white = rng.standard_normal((shape[0] + warm_up, shape[1])) * np.sqrt(1 - autocorrelation**2)
    return lfilter([1.0], [1.0, -autocorrelation], white, axis=0)[warm_up:]


def _write_truth(
    root: Path,
    who: Participant,
    weights: dict[str, tuple[np.ndarray, np.ndarray]],
    gain_v: np.ndarray,
    clean_test_tv: np.ndarray,
    config: WorldConfig,
) -> None:
    """The region of every voxel, and the ceiling: the noise-free test response correlated with the mean of the repeats."""
    edges = np.cumsum([0, who.auditory, who.late_language, who.silent])
    rois = {region: list(range(int(edges[i]), int(edges[i + 1]))) for i, region in enumerate(REGIONS)}
    (root / "rois" / f"{who.name}.json").write_text(json.dumps(rois) + "\n", encoding="utf-8")
    power_v = clean_test_tv.var(axis=0)
    with h5py.File(root / "truth" / f"{who.name}.h5", "w") as file:
        file["ceiling"] = np.sqrt(power_v / (power_v + 1.0 / config.repeats))
        file["gain"] = gain_v
        for region, (center, weights_fv) in weights.items():
            file[f"weights/{region}"] = weights_fv
            file[f"center/{region}"] = center
        file.attrs["config"] = json.dumps(asdict(config))
