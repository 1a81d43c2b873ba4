"""Reader of TIMIT (LDC93S1): 630 speakers of American English, 10 sentences each, with phone and word times.

Garofolo, Lamel, Fisher, Fiscus, Pallett & Dahlgren (1993), DARPA TIMIT acoustic-phonetic continuous speech corpus, NISTIR 4930.
The tree, in upper or lower case::

    TRAIN|TEST/DR1 … DR8/<speaker>/<sentence>.WAV   sound, NIST SPHERE or RIFF
                                   <sentence>.PHN   phones: "start end label", in samples at 16 kHz
                                   <sentence>.WRD   words, in the same form
                                   <sentence>.TXT   the sentence, as one such label

A speaker is F or M, three initials and a digit (FCJF0); a sentence is its type and number (SX39). SA: two sentences that all
speakers read, SX: phonetically compact, each read by seven, SI: phonetically diverse, each read once. Copies converted to RIFF
are often called ``<sentence>.WAV.wav`` and lie beside the originals: each sentence counts once, and the original is taken.

Phones do not overlap. Words may: where two share a phone ("had your" with one ``jh``), the corpus gives it to both.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from fastencode.data.recordings import Recording, warn_of_shared_speakers
from fastencode.data.textgrid import Interval
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import read_text
from fastencode.speech.audio import audio_seconds

__all__ = ["CORE_TEST_SPEAKERS", "FOLD", "PHONES", "PHONES_39", "read_phones", "read_sentence", "read_timit", "read_words"]

SAMPLE_RATE = 16000  # Hz, what label files count in, whatever the sound was converted to

_ALONE = "iy eh ey ae aw ay oy ow uh r w y jh ch b d g p t k dx s z f v th dh"
_MERGED = {
    "aa": "aa ao",
    "ah": "ah ax ax-h",
    "er": "er axr",
    "ih": "ih ix",
    "uw": "uw ux",
    "hh": "hh hv",
    "l": "l el",
    "m": "m em",
    "n": "n en nx",
    "ng": "ng eng",
    "sh": "sh zh",
    "sil": "h# pau epi bcl dcl gcl pcl tcl kcl",
}

FOLD = {p: p for p in _ALONE.split()} | {phone: folded for folded, phones in _MERGED.items() for phone in phones.split()}
"""60 of TIMIT's phones → the 39 that recognizers are scored on; the glottal stop ``q`` is left out.

Lee & Hon (1989), Speaker-independent phone recognition using hidden Markov models, IEEE Transactions on Acoustics, Speech and
Signal Processing 37, 1641–1648: closures and pauses are silence, syllabic and other variants join their phone.
"""
PHONES = (*sorted(FOLD), "q")
"""All 61."""
PHONES_39 = tuple(sorted(set(FOLD.values())))
"""What remains after folding, ``sil`` included."""

_CORE = {
    "DR1": "MDAB0 MWBT0 FELC0",
    "DR2": "MTAS1 MWEW0 FPAS0",
    "DR3": "MJMP0 MLNT0 FPKT0",
    "DR4": "MLLL0 MTLS0 FJLM0",
    "DR5": "MBPM0 MKLT0 FNLP0",
    "DR6": "MCMJ0 MJDH0 FMGD0",
    "DR7": "MGRT0 MNJM0 FDHC0",
    "DR8": "MJLN0 MPAM0 FMLD0",
}
CORE_TEST_SPEAKERS = frozenset(speaker for speakers in _CORE.values() for speaker in speakers.split())
"""The 24 of the core test set (table 3 of the corpus's readme): two men and one woman of each dialect region."""

_SPLITS = {"TRAIN": "train", "TEST": "test"}
_REGION = re.compile(r"DR[1-8]")
_SPEAKER = re.compile(r"[FM][A-Z]{3}[0-9]")
_FILE = re.compile(r"(SA|SI|SX)[0-9]+\.(WAV(\.WAV)?|PHN|WRD|TXT)")
_SLACK = 0.01  # s that a label may end after the sound: less than one frame of any speech feature


def read_timit(root: str | os.PathLike[str], *, core: bool = False) -> list[Recording]:
    """Read which recordings a TIMIT tree holds; labels and sound are read when asked for.

    Parameters
    ----------
    root : path
        The folder that holds TRAIN and TEST.
    core : bool
        Of the test split only the core test set: SX and SI sentences of 24 speakers, 192 in all.

    Returns
    -------
    list of Recording
        In the order of split, region, speaker and sentence. ``split`` is ``"train"`` or ``"test"``; ``labels`` are ``sentence``
        (``"SX39"``), ``type`` (``"SA"``, ``"SI"`` or ``"SX"``), ``region`` (``"DR1"`` …) and ``sex`` (``"F"`` or ``"M"``), in
        upper case whatever the tree has. The two SA texts stand in both splits.

    Raises
    ------
    InputError
        If the folder has neither TRAIN nor TEST, a name in it does not belong there, or labels have no sound.

    Warns
    -----
    FastencodeWarning
        If a split, phone labels, or speakers of the core test set are missing, or a speaker stands in both splits.
    """
    root = Path(root)
    found = list(_sentences(_split_folders(root)))
    silent = [files[0].parent / sentence for (*_, sentence), files in found if not _kind(files, "WAV")]
    if silent:
        raise InputError(f"{len(silent)} sentences have labels and no sound, the first {silent[0]}: fetch their .WAV")
    bare = [_kind(files, "WAV")[0] for _, files in found if not _kind(files, "PHN")]
    if bare:
        message = f"{len(bare)} of {len(found)} recordings have no phone labels, the first {bare[0]}: fetch their .PHN"
        warnings.warn(message, FastencodeWarning, stacklevel=2)
    recordings = [
        Recording(
            path=_kind(files, "WAV")[0],
            labels={"sentence": sentence, "type": sentence[:2], "region": region, "sex": speaker[0]},
            speaker=speaker,
            split=_SPLITS[split],
        )
        for (split, region, speaker, sentence), files in found
    ]
    warn_of_shared_speakers(recordings, root)
    if not core:
        return recordings
    absent = CORE_TEST_SPEAKERS - {r.speaker for r in recordings if r.split == "test"}
    if absent:
        message = f"{root}: {len(absent)} of the core test set's 24 speakers are not in TEST: {', '.join(sorted(absent))}"
        warnings.warn(message, FastencodeWarning, stacklevel=2)
    return [r for r in recordings if r.split == "train" or _is_core(r)]


def read_phones(path: str | os.PathLike[str], *, fold: bool = False) -> list[Interval]:
    """Read the phones of a recording.

    Parameters
    ----------
    path : path
        The sound file; its labels lie beside it.
    fold : bool
        The 39 phones of ``FOLD`` instead of all 61. The glottal stops that this leaves out leave gaps; neighbors that become
        the same phone stay two.

    Returns
    -------
    list of Interval
        Times in s.

    Raises
    ------
    InputError
        If the labels are missing, not UTF-8, not in TIMIT's form, not one of the 61 phones, overlap, or end after the sound.
    MissingLibraryError
        If soundfile is not installed (extra ``tune``).
    """
    phones: list[Interval] = []
    for line, phone in _labels(Path(path), "PHN"):
        if phone.label not in FOLD and phone.label != "q":
            raise InputError(f"{line}: {phone.label!r} is none of TIMIT's 61 phones: correct the label")
        if phones and phone.start < phones[-1].end:
            raise InputError(f"{line}: {phone.label!r} starts before {phones[-1].label!r} ends: correct the overlapping labels")
        phones.append(phone)
    return [Interval(p.start, p.end, FOLD[p.label]) for p in phones if p.label in FOLD] if fold else phones


def read_words(path: str | os.PathLike[str]) -> list[Interval]:
    """Read the words of a recording.

    Parameters
    ----------
    path : path
        The sound file; its labels lie beside it.

    Returns
    -------
    list of Interval
        Times in s, in the order of starts; two that share a phone overlap.

    Raises
    ------
    InputError
        If the labels are missing, not UTF-8, not in TIMIT's form, not in order, or end after the sound.
    MissingLibraryError
        If soundfile is not installed (extra ``tune``).
    """
    words: list[Interval] = []
    for line, word in _labels(Path(path), "WRD"):
        if words and word.start < words[-1].start:
            raise InputError(f"{line}: {word.label!r} starts before {words[-1].label!r} starts: put the labels in order")
        words.append(word)
    return words


def read_sentence(path: str | os.PathLike[str]) -> str:
    """Read the text of a recording, given its sound file; an ``InputError`` if it is missing or not one line in TIMIT's form."""
    labels = list(_parsed(_beside(Path(path), "TXT")))
    if len(labels) != 1:
        raise InputError(f"{_beside(Path(path), 'TXT')} holds {len(labels)} lines, expected one: the sentence")
    return labels[0][1].label


def _labels(path: Path, kind: str) -> Iterator[tuple[str, Interval]]:
    """The labels in a file beside a sound, each with where it stands; none may end after the sound does."""
    seconds = audio_seconds(path)
    for line, label in _parsed(_beside(path, kind)):
        if label.end > seconds + _SLACK:
            raise InputError(
                f"{line}: {label.label!r} ends at {label.end:.3f} s, but {path.name} is only {seconds:.3f} s long:"
                " the sound is cut off, or the labels are another recording's"
            )
        yield line, label


def _parsed(path: Path) -> Iterator[tuple[str, Interval]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where, fields = f"{path}, line {number}", line.split(maxsplit=2)
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise InputError(f"{where}: {line.strip()!r} is not a start, an end (in samples) and a label: fetch the file again")
        start, end = int(fields[0]), int(fields[1])
        if end < start:
            raise InputError(f"{where}: {fields[2].strip()!r} runs from sample {start} back to {end}: correct its times")
        yield where, Interval(start / SAMPLE_RATE, end / SAMPLE_RATE, fields[2].strip())


def _beside(path: Path, kind: str) -> Path:
    """The label file of a sound file, in any case."""
    wanted = f"{path.name.split('.')[0]}.{kind}"
    found = [other for other in _listed(path.parent) if other.name.upper() == wanted.upper()] if path.parent.is_dir() else []
    if not found:
        raise InputError(f"{path} has no .{kind} beside it ({wanted}): fetch it, or correct the path")
    return found[0]


def _split_folders(root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the one that holds TRAIN and TEST")
    folders = {split: [p for p in _listed(root) if p.is_dir() and p.name.upper() == split] for split in _SPLITS}
    absent = [split for split, paths in folders.items() if not paths]
    if len(absent) == len(_SPLITS):
        inner = [p for p in _listed(root) if p.is_dir() and any(q.name.upper() in _SPLITS for q in _listed(p))]
        hint = f"give {inner[0]}" if inner else "give the folder that holds them"
        raise InputError(f"{root} holds neither TRAIN nor TEST: {hint}")
    if absent:
        warnings.warn(f"{root} has no {absent[0]}: only half of the standard split is here", FastencodeWarning, stacklevel=3)
    return folders


def _sentences(folders: dict[str, list[Path]]) -> Iterator[tuple[tuple[str, str, str, str], list[Path]]]:
    """Every sentence as (split, region, speaker, sentence), with its files, originals before converted copies."""
    found: dict[tuple[str, str, str, str], list[Path]] = {}
    for split, roots in folders.items():
        for region in _named(roots, _REGION, "a dialect region, DR1 to DR8"):
            for speaker in _named([region], _SPEAKER, "a speaker (F or M, three letters, a digit)"):
                for path in _files(speaker):
                    sentence = path.name.split(".")[0].upper()
                    found.setdefault((split, region.name.upper(), speaker.name.upper(), sentence), []).append(path)
    if not found:
        raise InputError(f"{', '.join(str(p) for paths in folders.values() for p in paths)} hold no sentence: fetch TIMIT again")
    order = list(_SPLITS)
    for key in sorted(found, key=lambda k: (order.index(k[0]), *k[1:3], k[3][:2], int(k[3][2:]))):
        yield key, sorted(found[key], key=lambda p: (len(p.name), p))


def _named(roots: list[Path], pattern: re.Pattern[str], what: str) -> Iterator[Path]:
    for path in (p for root in roots for p in _listed(root) if p.is_dir()):
        if not pattern.fullmatch(path.name.upper()):
            raise InputError(f"{path} is not {what}: move it elsewhere")
        yield path


def _files(speaker: Path) -> list[Path]:
    """The sounds and labels in a speaker's folder; files of other kinds are none of ours."""
    ours = [p for p in _listed(speaker) if p.name.upper().endswith((".WAV", ".PHN", ".WRD", ".TXT"))]
    odd = [p for p in ours if not _FILE.fullmatch(p.name.upper())]
    if odd:
        raise InputError(f"{odd[0]} is not named as a sentence is (SA1.WAV, SX39.PHN …): move it elsewhere")
    return ours


def _kind(files: list[Path], kind: str) -> list[Path]:
    return [p for p in files if p.name.upper().split(".")[1] == kind]


def _listed(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _is_core(recording: Recording) -> bool:
    return recording.speaker in CORE_TEST_SPEAKERS and recording.labels["type"] != "SA"
