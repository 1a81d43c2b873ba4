"""Reader of Speech Commands v0.02: one-second recordings of single words by many speakers, with official splits.

Warden (2018), Speech Commands: A dataset for limited-vocabulary speech recognition, arXiv:1804.03209. The tree::

    <word>/<speaker>_nohash_<k>.wav         the k-th time that speaker says the word; a speaker is eight hexadecimal digits
    validation_list.txt, testing_list.txt   "<word>/<speaker>_nohash_<k>.wav", one a line; what neither lists is for training
    _background_noise_/                     no words: left out
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from fastencode.data.recordings import Recording, warn_of_shared_speakers
from fastencode.errors import InputError
from fastencode.files import read_text

__all__ = ["read_commands"]

_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
_NAME = re.compile(r"([0-9a-f]+)_nohash_[0-9]+\.wav")


def read_commands(root: str | os.PathLike[str], *, words: Collection[str] | None = None) -> list[Recording]:
    """Read which recordings a Speech Commands tree holds; sound is read when asked for.

    Parameters
    ----------
    root : path
        The folder that holds the words' folders and the two lists.
    words : collection of str, optional
        Read these words only, and of the lists only their lines; all that have a folder when left out.

    Returns
    -------
    list of Recording
        Sorted by word and file. ``labels`` are ``word``; ``split`` is ``"train"``, ``"validation"`` or ``"test"``.

    Raises
    ------
    InputError
        If the folder, a list or a listed file is missing, a file is in both lists or not named as above, or a word has no folder.

    Warns
    -----
    FastencodeWarning
        If a speaker stands in several splits, which the official lists avoid.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the one that holds the words' folders")
    there = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    chosen = there if words is None else sorted({words} if isinstance(words, str) else set(words))
    absent = [word for word in chosen if word not in there]
    if absent:
        raise InputError(f"{root} has no folder for {absent}: the words are {there}")
    files = {f"{word}/{path.name}": path for word in chosen for path in sorted((root / word).glob("[!.]*.wav"))}
    if not files:
        raise InputError(f"{root} holds no <word>/*.wav: give the folder of Speech Commands, unpacked")
    odd = [name for name, path in files.items() if not _NAME.fullmatch(path.name)]
    if odd:
        raise InputError(
            f"{len(odd)} of {len(files)} files in {root} are not named <speaker>_nohash_<k>.wav, the first {odd[0]}: who speaks"
            " is not known; move them elsewhere, or list everything in a manifest"
        )
    listed = {split: _listed(root / name, None if words is None else chosen, files) for split, name in _LISTS.items()}
    both = sorted(listed["validation"] & listed["test"])
    if both:
        raise InputError(f"{len(both)} files are in both lists of {root}, the first {both[0]}: fetch the lists again")
    split_of = {name: split for split, names in listed.items() for name in names}
    recordings = [
        Recording(path, {"word": path.parent.name}, path.name.partition("_")[0], split_of.get(name, "train"))
        for name, path in files.items()
    ]
    warn_of_shared_speakers(recordings, root)
    return recordings


def _listed(path: Path, words: Collection[str] | None, files: Collection[str]) -> set[str]:
    """The files that a list names, of some words or of all; each must be there."""
    if not path.exists() and not path.is_symlink():
        raise InputError(f"{path} is missing: it belongs to the data set and says which recordings no model may be fitted on")
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1)]
    named = [(number, line) for number, line in lines if line and (words is None or line.partition("/")[0] in words)]
    missing = [(number, line) for number, line in named if line not in files]
    if missing:
        number, line = missing[0]
        raise InputError(
            f"{len(missing)} of {len(named)} files that {path} lists are missing, the first {line!r} on line {number}: unpack the"
            " data set again, or say with words= which words to read"
        )
    return {line for _, line in named}
