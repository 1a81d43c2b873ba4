"""``fastencode-tune features``: every layer of a speech model over recordings, into HDF5 files."""

from __future__ import annotations

from pathlib import Path

from fastencode.cli.settings import FeaturesConfig
from fastencode.data.manifest import read_manifest
from fastencode.errors import InputError, require
from fastencode.files import check_file, fresh_folder
from fastencode.progress import say
from fastencode.runs.executors import settle
from fastencode.speech.extract import estimate, extract_features
from fastencode.speech.layers import SpeechEncoder
from fastencode.threads import available_threads

__all__ = ["find_sounds", "run"]

_MANIFESTS = (".csv", ".tsv", ".jsonl")
_SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".sph", ".nist", ".aiff", ".aif")


def run(config: FeaturesConfig) -> dict[str, Path]:
    """Read the layers, or say what that would cost; returns the files by name."""
    sounds = find_sounds(config.audio)
    if config.dry_run:
        if config.out.exists() and not config.out.is_dir():
            raise InputError(f"{config.out} is a file: choose another folder")
        return _run(sounds, config)
    with fresh_folder(config.out):
        return _run(sounds, config)


def _run(sounds: dict[str, Path], config: FeaturesConfig) -> dict[str, Path]:
    settle()
    require("torch", "tune").set_num_threads(available_threads())
    encoder = SpeechEncoder(config.model, device=config.device, dtype=config.dtype)
    if config.dry_run:
        cost = estimate(sounds, encoder, config.out, config.read, batch=config.batch, stored=config.stored)
        say(
            f"{len(sounds)} recordings, {len(cost.windows)} of them not read yet: {sum(cost.windows.values())} windows of "
            f"{config.read.longest:g} s, {encoder.n_layers} layers of {encoder.width}\n"
            f"about {cost.seconds / 3600:.2g} hours on {encoder.device} in {encoder.dtype}, by a batch of {cost.batch} now; "
            f"{cost.bytes / 1e9:.3g} GB on disk, {cost.free / 1e9:.3g} GB free"
        )
        return {}
    paths = extract_features(sounds, encoder, config.out, config.read, batch=config.batch, stored=config.stored)
    say(f"{len(paths)} files of features are in {config.out}")
    return paths


def find_sounds(path: Path) -> dict[str, Path]:
    """The audio file, or all of a folder, or those that a manifest lists in its column ``audio``; by their names without suffix.

    Raises
    ------
    InputError
        If there is none, or two differ in their suffix only.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _SOUNDS and not file.name.startswith(".")]
    elif path.suffix.lower() in _MANIFESTS:
        files = [recording.path for recording in read_manifest(path, labels=(), speaker=None, split=None)]
    else:
        files = [check_file(path)]
    sounds: dict[str, Path] = {}
    for file in files:
        if file.stem in sounds:
            raise InputError(f"{file} and {sounds[file.stem]} have one name: keep one of them, or give single files")
        sounds[file.stem] = file
    if not sounds:
        raise InputError(f"{path} holds no audio files ({', '.join(_SOUNDS)}): give a folder of recordings, or one file")
    return sounds
