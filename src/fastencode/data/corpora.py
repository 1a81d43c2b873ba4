"""Corpora of recordings under one name for each: TIMIT, Speech Commands, manifests, and plain folders of sounds."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fastencode.data.commands import read_commands
from fastencode.data.manifest import read_manifest
from fastencode.data.recordings import Recording
from fastencode.data.timit import read_timit
from fastencode.errors import InputError, suggestion
from fastencode.files import check_file

__all__ = ["KINDS", "MANIFESTS", "SOUNDS", "Corpus", "open_corpus"]

KINDS = ("timit", "commands", "manifest", "folder")
"""What a corpus may be."""
MANIFESTS = (".csv", ".tsv", ".jsonl")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".sph", ".nist", ".aiff", ".aif")

_LISTS = ("validation_list.txt", "testing_list.txt")
_REGIONS = {f"DR{number}" for number in range(1, 9)}


@dataclass(frozen=True)
class Corpus:
    """Recordings by key.

    Attributes
    ----------
    name : str
        Of the folder, or of the manifest without its suffix.
    kind : {"timit", "commands", "manifest", "folder"}
    root : Path
        The folder, or the manifest.
    recordings : dict of str to Recording
        A key is the recording's path below the corpus without its suffix, with "/" between folders: ``"yes/0a7c2a8d_nohash_0"``.
        Of TIMIT it is in upper case, whatever the tree has: ``"TRAIN/DR1/FCJF0/SA1"``.
    """

    name: str
    kind: str
    root: Path
    recordings: dict[str, Recording] = field(hash=False)

    @property
    def sounds(self) -> dict[str, Path]:
        """Key → file of sound."""
        return {key: recording.path for key, recording in self.recordings.items()}


def open_corpus(
    path: str | os.PathLike[str], kind: str = "auto", *, words: Collection[str] | None = None, split: str = "official"
) -> Corpus:
    """Find the recordings of a corpus, and what is known about them; sound is read when asked for.

    Parameters
    ----------
    path : path
        A folder, a manifest (CSV, TSV, JSON lines), or one file of sound.
    kind : {"auto", "timit", "commands", "manifest", "folder"}
        auto: a folder with TRAIN or TEST that hold DR1 to DR8, in any case, is TIMIT; one with a list of Speech Commands
        (validation_list.txt, testing_list.txt) is that; any other is a folder, searched with all folders in it. Of a manifest,
        the column ``audio`` is read, ``speaker`` and ``split`` where there are such, and all others as labels.
    words : collection of str, optional
        Of Speech Commands only these words.
    split : {"official", "core"}
        Of TIMIT, core leaves only the core test set in the test split: 192 sentences of 24 speakers.

    Returns
    -------
    Corpus

    Raises
    ------
    InputError
        If there is no such kind or split, nothing is found, two recordings have one key, or the reader of that kind finds
        something wrong.

    Warns
    -----
    FastencodeWarning
        As the reader of that kind does: of speakers in several splits, and of labels or splits that are missing.

    See Also
    --------
    fastencode.data.timit.read_timit, fastencode.data.commands.read_commands, fastencode.data.manifest.read_manifest
    """
    path = Path(path)
    if kind not in ("auto", *KINDS):
        raise InputError(f"kind={kind!r}: {suggestion(kind, ('auto', *KINDS))}")
    if split not in ("official", "core"):
        raise InputError(f"split={split!r}: choose 'official' or 'core'")
    kind = _kind(path) if kind == "auto" else kind
    if words is not None and kind != "commands":
        raise InputError(f"words={words!r} choose from those of Speech Commands, and {path} is of kind {kind!r}: leave them out")
    if split == "core" and kind != "timit":
        raise InputError(f"split='core' is TIMIT's core test set, and {path} is of kind {kind!r}: leave it out")
    if kind == "timit":
        keyed = [(_timit_key(recording), recording) for recording in read_timit(path, core=split == "core")]
    elif kind == "commands":
        keyed = [(f"{r.labels['word']}/{r.path.stem}", r) for r in read_commands(path, words=words)]
    else:
        found = _manifest(path) if kind == "manifest" else [Recording(file) for file in _sounds(path)]
        keyed = _below(found, path)
    name = Path(os.path.abspath(path))
    return Corpus(name.name if path.is_dir() else name.stem, kind, path, _once(keyed))


def _kind(path: Path) -> str:
    if not path.is_dir():
        return "manifest" if path.suffix.lower() in MANIFESTS else "folder"
    if any((path / name).is_file() for name in _LISTS):
        return "commands"
    splits = [folder for folder in path.iterdir() if folder.name.upper() in ("TRAIN", "TEST") and folder.is_dir()]
    regions = {inner.name.upper() for folder in splits for inner in folder.iterdir() if inner.is_dir()}
    return "timit" if regions & _REGIONS else "folder"


def _timit_key(recording: Recording) -> str:
    folder = {"train": "TRAIN", "test": "TEST"}[recording.split or ""]
    return f"{folder}/{recording.labels['region']}/{recording.speaker}/{recording.labels['sentence']}"


def _manifest(path: Path) -> list[Recording]:
    """The recordings of a manifest, whichever of the columns of speaker and split it has."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the manifest itself, a file of CSV, TSV or JSON lines")
    plain = read_manifest(path, labels=(), speaker=None, split=None)
    there = {column for recording in plain for column in recording.labels}
    if not there & {"speaker", "split"}:
        return plain
    speaker, split = ("speaker" if "speaker" in there else None), ("split" if "split" in there else None)
    return read_manifest(path, labels=(), speaker=speaker, split=split)


def _sounds(path: Path) -> list[Path]:
    """The files of sound in a folder and all folders in it, but not in hidden ones; or the one file that is given."""
    if not path.is_dir():
        return [check_file(path)]
    found = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [Path(folder, name) for name in names if not name.startswith(".") and name.lower().endswith(SOUNDS)]
    if not found:
        raise InputError(f"{path} holds no audio files ({', '.join(SOUNDS)}): give a folder of recordings, or one file")
    return sorted(found)


def _below(recordings: list[Recording], path: Path) -> list[tuple[str, Recording]]:
    """Each recording with its path below the corpus, or below the folder that holds all where some lie elsewhere."""
    whole = [Path(os.path.abspath(recording.path)) for recording in recordings]
    root = Path(os.path.abspath(path if path.is_dir() else path.parent))
    if not all(file.is_relative_to(root) for file in whole):
        root = Path(os.path.commonpath([file.parent for file in whole]))
    return [(file.relative_to(root).with_suffix("").as_posix(), one) for file, one in zip(whole, recordings, strict=True)]


def _once(keyed: Iterable[tuple[str, Recording]]) -> dict[str, Recording]:
    found: dict[str, Recording] = {}
    for key, recording in keyed:
        if key in found:
            raise InputError(
                f"{recording.path} and {found[key].path} have one name, {key!r}: keep one of them, or list those you mean in a"
                " manifest"
            )
        found[key] = recording
    return found
