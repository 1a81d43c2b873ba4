"""Layers of a speech model over many recordings: those that can be read, although others cannot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from fastencode.data.corpora import MANIFESTS, open_corpus
from fastencode.data.manifest import read_manifest
from fastencode.errors import FailedStages, InputError
from fastencode.progress import say
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import extract_packed, extract_packed_mfcc
from fastencode.speech.reading import Skip

__all__ = ["check_all_read", "find_sounds", "read_corpus", "read_recordings"]


def find_sounds(path: Path) -> dict[str, Path]:
    """Recordings by name, to which ``.h5`` is added where their features lie.

    Parameters
    ----------
    path : Path
        As for :func:`fastencode.data.corpora.open_corpus`, whatever kind it finds.

    Returns
    -------
    dict of name → path
        A name is that of the file without its suffix. Where two files of one name lie in two folders, all names begin with the
        folders below the one that holds all files: ``yes/01`` and ``no/01``.

    Raises
    ------
    InputError
        If there is none, or two differ in their suffix only.
    """
    if path.suffix.lower() in MANIFESTS and not path.is_dir():  # whatever else its columns say
        files = [recording.path for recording in read_manifest(path, labels=(), speaker=None, split=None)]
    else:
        files = list(open_corpus(path).sounds.values())
    names = [file.stem for file in files]
    if len(set(names)) == len(names):
        return dict(zip(names, files, strict=True))
    whole = [Path(os.path.abspath(file)) for file in files]
    above = os.path.commonpath([file.parent for file in whole])
    return {file.relative_to(above).with_suffix("").as_posix(): path for file, path in zip(whole, files, strict=True)}


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
    paths = extract_features(sounds, encoder, folder, config, batch=batch, stored=stored, skip=_said(failed))
    check_all_read(failed, len(sounds))
    return paths


def read_corpus(
    sounds: Mapping[str, Path],
    encoder: SpeechEncoder | None,
    file: Path,
    config: ReadConfig,
    *,
    batch: int | None = None,
    stored: str = "float32",
) -> Path:
    """Read every recording of a corpus that can be read into one file.

    Parameters
    ----------
    sounds : name → path
        A corpus's: ``open_corpus(path).sounds``.
    encoder : SpeechEncoder or None
        None for cepstra instead of a model's layers.
    file, config, batch, stored
        As for :func:`fastencode.speech.packed.extract_packed`.

    Returns
    -------
    Path, if all could be read

    Raises
    ------
    InputError
        As there, and if no recording could be read (why none of them could).
    FailedStages
        If some could not; the file holds all others. The message lists them with the reasons.
    """
    failed: dict[str, InputError] = {}
    try:
        if encoder is None:
            extract_packed_mfcc(sounds, file, config, stored=stored, skip=_said(failed))
        else:
            extract_packed(sounds, encoder, file, config, batch=batch, stored=stored, skip=_said(failed))
    except InputError:
        if not len(failed) == len(sounds) > 0:
            raise
    check_all_read(failed, len(sounds), f"{file} holds all others; to have these too, replace them, delete it, and start again")
    return file


def _said(failed: dict[str, InputError]) -> Skip:
    """What says and keeps why a recording cannot be read."""

    def skip(name: str, error: InputError) -> None:
        failed[name] = error
        if len(failed) <= _SAID:
            say(f"{name}: failed, {error}")

    return skip


_SAID, _LISTED, _OF_ALL = 10, 100, 10  # failures that are said at once, listed at the end, and listed where all have failed
_KEPT = "all others are kept; replace or leave out these files and give the same command again"


def check_all_read(failed: Mapping[str, InputError], n: int, kept: str = _KEPT) -> None:
    """Raise a list of those of ``n`` recordings that failed: :class:`FailedStages` for some, :class:`InputError` for all.

    ``kept`` says what became of the others, and what to do.
    """
    if not failed:
        return
    if n == 1:
        raise next(iter(failed.values()))
    shown = _OF_ALL if len(failed) == n else _LISTED
    lines = [f"  {name}: {error}" for name, error in islice(failed.items(), shown)]
    lines += [f"  and {len(failed) - shown} more"] if len(failed) > shown else []
    if len(failed) == n:  # the folder is another, or a setting wrong
        raise InputError("\n".join([f"none of {n} recordings can be read", *lines, "give others, or these in another format"]))
    raise FailedStages("\n".join([f"{len(failed)} of {n} recordings cannot be read", *lines, kept]))
