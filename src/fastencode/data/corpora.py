"""Corpora of recordings with a unique key for each: TIMIT, Speech Commands, manifests, and folders of sound files."""

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
"""Formats of corpora."""
MANIFESTS = (".csv", ".tsv", ".jsonl")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".sph", ".nist", ".aiff", ".aif")

_LISTS = ("validation_list.txt", "testing_list.txt")
_REGIONS = {f"DR{number}" for number in range(1, 9)}


@dataclass(frozen=True)
class Corpus:
    """A corpus: key → recording.

    Attributes
    ----------
    name : str
        Name of the folder, or of the manifest without suffix.
    kind : {"timit", "commands", "manifest", "folder"}
    root : Path
        The folder, or the manifest.
    recordings : dict of str to Recording
        A key is the path of the recording relative to the corpus, without suffix and with "/" between folders:
        ``"yes/0a7c2a8d_nohash_0"``. For TIMIT, keys are in upper case: ``"TRAIN/DR1/FCJF0/SA1"``.
    """

    name: str
    kind: str
    root: Path
    recordings: dict[str, Recording] = field(hash=False)

    @property
    def sounds(self) -> dict[str, Path]:
        """Key → sound file."""
        return {key: recording.path for key, recording in self.recordings.items()}


def open_corpus(
    path: str | os.PathLike[str], kind: str = "auto", *, words: Collection[str] | None = None, split: str = "official"
) -> Corpus:
    """Find the recordings of a corpus and their labels. Sounds are not read yet.

    Parameters
    ----------
    path : path
        A folder, a manifest (CSV, TSV, JSON lines), or a single sound file.
    kind : {"auto", "timit", "commands", "manifest", "folder"}
        auto: a folder whose TRAIN or TEST contains DR1 to DR8, in upper or lower case, is TIMIT; a folder with
        validation_list.txt or testing_list.txt is Speech Commands; any other folder is searched recursively. In a manifest, the
        column ``audio`` is required, ``speaker`` and ``split`` are optional, and all other columns are labels.
    words : collection of str, optional
        Use only these words of Speech Commands.
    split : {"official", "core"}
        core: the test split of TIMIT is only the core test set, 192 sentences of 24 speakers.

    Returns
    -------
    Corpus

    Raises
    ------
    InputError
        If the kind or split does not exist, no recordings are found, two recordings have the same key, or the reader of this
        format raises an error.

    Warns
    -----
    FastencodeWarning
        By the reader of this format: about speakers in several splits, and about missing labels or splits.

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
    """The recordings of a manifest; the columns speaker and split are optional."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the manifest itself, a file of CSV, TSV or JSON lines")
    plain = read_manifest(path, labels=(), speaker=None, split=None)
    there = {column for recording in plain for column in recording.labels}
    if not there & {"speaker", "split"}:
        return plain
    speaker, split = ("speaker" if "speaker" in there else None), ("split" if "split" in there else None)
    return read_manifest(path, labels=(), speaker=speaker, split=split)


def _sounds(path: Path) -> list[Path]:
    """All sound files in a folder, searched recursively without hidden folders; or the one file that is given."""
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
    """Each recording with its path relative to the corpus, or to the common parent folder if some are outside the corpus."""
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
                f"{recording.path} and {found[key].path} have the same key, {key!r}: remove one of them, or list the"
                " recordings to use in a manifest"
            )
        found[key] = recording
    return found
