"""Layers of a speech model over many recordings: those that can be read, although others cannot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fastencode.data.manifest import read_manifest
from fastencode.errors import FailedStages, InputError
from fastencode.files import check_file
from fastencode.progress import say
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import SpeechEncoder

__all__ = ["check_all_read", "find_sounds", "read_recordings"]

_MANIFESTS = (".csv", ".tsv", ".jsonl")
_SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".sph", ".nist", ".aiff", ".aif")


def find_sounds(path: Path) -> dict[str, Path]:
    """Recordings by name, to which ``.h5`` is added where their features lie.

    Parameters
    ----------
    path : Path
        An audio file, a folder of them, or a manifest with a column ``audio``.

    Returns
    -------
    dict of name → path
        A name is that of the file without its suffix. Where a manifest lists two files of one name in two folders, all names
        begin with the folders below the one that holds all files: ``yes/01`` and ``no/01``.

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
    if not files:
        raise InputError(f"{path} holds no audio files ({', '.join(_SOUNDS)}): give a folder of recordings, or one file")
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        whole = [Path(os.path.abspath(file)) for file in files]
        above = os.path.commonpath([file.parent for file in whole])
        names = [file.relative_to(above).with_suffix("").as_posix() for file in whole]
    sounds: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        if name in sounds:
            raise InputError(f"{file} and {sounds[name]} have one name: keep one of them, or give single files")
        sounds[name] = file
    return sounds


def read_recordings(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder,
    folder: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    stored: str = "float32",
) -> dict[str, Path]:
    """Read every layer of every recording that can be read, as :func:`fastencode.speech.extract.extract_features` does.

    Parameters
    ----------
    sounds : name → path
        As :func:`find_sounds` returns them.
    encoder, folder, config, batch, stored
        As for ``extract_features``.

    Returns
    -------
    dict of name → path, if all could be read

    Raises
    ------
    InputError
        If no recording could be read (why none of them could), the disk is full, or a setting is out of range.
    FailedStages
        If some could not; the features of all others are finished. The message lists them with the reasons.
    """
    failed: dict[str, InputError] = {}

    def skip(name: str, error: InputError) -> None:
        failed[name] = error
        say(f"{name}: failed, {error}")

    paths = extract_features(sounds, encoder, folder, config, batch=batch, stored=stored, skip=skip)
    check_all_read(failed, len(sounds))
    return paths


def check_all_read(failed: Mapping[str, InputError], n: int) -> None:
    """Raise a list of those of ``n`` recordings that failed: :class:`FailedStages` for some, :class:`InputError` for all."""
    if not failed:
        return
    if n == 1:
        raise next(iter(failed.values()))
    lines = [f"  {name}: {error}" for name, error in failed.items()]
    if len(failed) == n:  # the folder is another, or a setting wrong
        raise InputError("\n".join([f"none of {n} recordings can be read", *lines, "give others, or these in another format"]))
    kept = "all others are kept; replace or leave out these files and give the same command again"
    raise FailedStages("\n".join([f"{len(failed)} of {n} recordings cannot be read", *lines, kept]))
