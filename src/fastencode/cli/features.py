"""``fastencode-tune features``: every layer of a speech model over recordings, into HDF5 files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastencode.cli.mistakes import of_option
from fastencode.cli.output import provenance, write_settings
from fastencode.cli.settings import FeaturesConfig
from fastencode.data.corpora import open_corpus
from fastencode.errors import InputError, require
from fastencode.files import fresh_folder
from fastencode.progress import say
from fastencode.runs.executors import settle
from fastencode.runs.features import check_all_read, find_sounds, read_corpus, read_recordings
from fastencode.speech.extract import estimate
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.speech.packed import CORPUS_FILE, estimate_packed, open_packed
from fastencode.speech.reading import Estimate
from fastencode.study.report.report import write_provenance
from fastencode.threads import available_threads

__all__ = ["run"]


def run(config: FeaturesConfig) -> dict[str, Path]:
    """Read the layers, or say what that would cost; returns the files by name."""
    whole = config.read.input == "utterance"
    with of_option("--audio"):
        sounds = _corpus(config) if whole else find_sounds(config.audio)
    if config.dry_run:
        if config.out.exists() and not config.out.is_dir():
            raise InputError(f"{config.out} is a file: choose another folder")
        _say_cost(sounds, _encoder(config), config)
        return {}
    with fresh_folder(config.out):
        encoder = _encoder(config)
        try:
            if whole or encoder is None:
                return {"corpus": _read_corpus(sounds, encoder, config)}
            paths = read_recordings(sounds, encoder, config.out, config.read, batch=config.batch, stored=config.stored)
        finally:
            _write_provenance(config, encoder)
    say(f"{len(paths)} files of features are in {config.out}")
    return paths


def _corpus(config: FeaturesConfig) -> dict[str, Path]:
    corpus = open_corpus(config.audio, config.kind, words=config.words or None)
    say(f"{config.audio}: {len(corpus.recordings)} recordings, read as {corpus.kind}")
    return corpus.sounds


def _read_corpus(sounds: Mapping[str, Path], encoder: SpeechEncoder | None, config: FeaturesConfig) -> Path:
    file = read_corpus(sounds, encoder, config.out / CORPUS_FILE, config.read, batch=config.batch, stored=config.stored)
    with open_packed(file) as packed:
        say(f"{len(packed.times)} rows of {len(packed.names)} recordings are in {file}")
    return file


def _write_provenance(config: FeaturesConfig, encoder: SpeechEncoder | None) -> None:
    """Beside the features, if there are any: config.yaml, and by which model and versions they were made."""
    if next(config.out.rglob("*.h5"), None) is None:
        return
    command = write_settings(config.out, config, "fastencode-tune features")
    model: dict[str, Any] = {"name": config.model}
    if config.random_weights is not None:
        model["random_weights"] = config.random_weights
    if encoder is not None:
        model["sha256"] = encoder.hash()
    write_provenance(config.out, command, {**provenance(config), "model": model})


def _encoder(config: FeaturesConfig) -> SpeechEncoder | None:
    """The model, or None for cepstra."""
    settle()
    if config.model == "mfcc":
        return None
    require("torch", "tune").set_num_threads(available_threads())
    name = SMALL_MODEL if config.model == "small" else config.model
    return SpeechEncoder(name, device=config.device, dtype=config.dtype, random_weights=config.random_weights)


def _say_cost(sounds: dict[str, Path], encoder: SpeechEncoder | None, config: FeaturesConfig) -> None:
    failed: dict[str, InputError] = {}
    chosen: dict[str, Any] = {"batch": config.batch, "stored": config.stored, "skip": failed.__setitem__}
    cost: Estimate
    if config.read.input == "utterance" or encoder is None:
        cost = estimate_packed(sounds, encoder, config.out / CORPUS_FILE, config.read, **chosen)
        what = "whole recordings"
    else:
        cost = estimate(sounds, encoder, config.out, config.read, **chosen)
        what = f"windows of {config.read.longest:g} s"
    layers = "cepstra" if encoder is None else f"{encoder.n_layers} layers of {encoder.width}"
    on = "on cpu" if encoder is None else f"on {encoder.device} in {encoder.dtype}"
    say(
        f"{len(sounds)} recordings, {len(cost.windows)} of them not read yet: {sum(cost.windows.values())} {what}, {layers}\n"
        f"about {cost.seconds / 3600:.2g} hours {on}, by a batch of {cost.batch} now; "
        f"{cost.bytes / 1e9:.3g} GB on disk, {cost.free / 1e9:.3g} GB free"
    )
    check_all_read(failed, len(sounds))
