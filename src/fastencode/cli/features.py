"""``fastencode-tune features``: every layer of a speech model over recordings, into HDF5 files."""

from __future__ import annotations

from pathlib import Path

from fastencode.cli.mistakes import of_option
from fastencode.cli.output import provenance, write_settings
from fastencode.cli.settings import FeaturesConfig
from fastencode.errors import InputError, require
from fastencode.files import fresh_folder
from fastencode.progress import say
from fastencode.runs.executors import settle
from fastencode.runs.features import check_all_read, find_sounds, read_recordings
from fastencode.speech.extract import estimate
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.study.report import write_provenance
from fastencode.threads import available_threads

__all__ = ["run"]


def run(config: FeaturesConfig) -> dict[str, Path]:
    """Read the layers, or say what that would cost; returns the files by name."""
    with of_option("--audio"):
        sounds = find_sounds(config.audio)
    if config.dry_run:
        if config.out.exists() and not config.out.is_dir():
            raise InputError(f"{config.out} is a file: choose another folder")
        _say_cost(sounds, _encoder(config), config)
        return {}
    with fresh_folder(config.out):
        encoder = _encoder(config)
        try:
            paths = read_recordings(sounds, encoder, config.out, config.read, batch=config.batch, stored=config.stored)
        finally:
            _write_provenance(config, encoder)
    say(f"{len(paths)} files of features are in {config.out}")
    return paths


def _write_provenance(config: FeaturesConfig, encoder: SpeechEncoder) -> None:
    """Beside the features, if there are any: config.yaml, and by which model and versions they were made."""
    if next(config.out.rglob("*.h5"), None) is None:
        return
    command = write_settings(config.out, config, "fastencode-tune features")
    found = {**provenance(config), "model": {"name": config.model, "sha256": encoder.hash()}}
    write_provenance(config.out, command, found)


def _encoder(config: FeaturesConfig) -> SpeechEncoder:
    settle()
    require("torch", "tune").set_num_threads(available_threads())
    return SpeechEncoder(SMALL_MODEL if config.model == "small" else config.model, device=config.device, dtype=config.dtype)


def _say_cost(sounds: dict[str, Path], encoder: SpeechEncoder, config: FeaturesConfig) -> None:
    failed: dict[str, InputError] = {}
    cost = estimate(sounds, encoder, config.out, config.read, batch=config.batch, stored=config.stored, skip=failed.__setitem__)
    say(
        f"{len(sounds)} recordings, {len(cost.windows)} of them not read yet: {sum(cost.windows.values())} windows of "
        f"{config.read.longest:g} s, {encoder.n_layers} layers of {encoder.width}\n"
        f"about {cost.seconds / 3600:.2g} hours on {encoder.device} in {encoder.dtype}, by a batch of {cost.batch} now; "
        f"{cost.bytes / 1e9:.3g} GB on disk, {cost.free / 1e9:.3g} GB free"
    )
    check_all_read(failed, len(sounds))
