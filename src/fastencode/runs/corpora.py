"""Stages of corpora: every layer of a checkpoint over every recording, or cepstra, one file for each corpus.

Checkpoints above one frozen CNN share its frames, which are a stage of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.data.corpora import Corpus
from fastencode.errors import FastencodeError
from fastencode.runs.engine import Stage
from fastencode.speech.audio import audio_seconds
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import CORPUS_FILE, extract_packed, extract_packed_frames, extract_packed_mfcc

__all__ = ["frames_stage", "mfcc_stage", "pooled_stage", "seconds_of"]

_SOME = 500  # sounds whose headers say how long those of a corpus are


def seconds_of(corpus: Corpus) -> float:
    """Seconds of sound in a corpus, by the headers of at most 500 of its files, from all parts of it.

    What cannot be read is not counted: the stage that reads all of it says so.
    """
    paths, seconds = list(corpus.sounds.values()), list[float]()
    for place in np.unique(np.linspace(0, len(paths) - 1, _SOME).round().astype(int)):
        with suppress(FastencodeError):
            seconds.append(audio_seconds(paths[place]))
    return len(paths) * sum(seconds) / max(1, len(seconds))


def frames_stage(name: str, corpus: Corpus, checkpoint: Path | str, model: Mapping[str, Any], reads: tuple[str, ...]) -> Stage:
    """The frames of a frozen CNN over a corpus, for all checkpoints above it; arguments as of :func:`pooled_stage`."""
    settings = {**model, "recordings": sorted(corpus.recordings)}
    return Stage(
        name, settings, reads, read_frames, (checkpoint, corpus), inputs=_sounds(corpus, reads), resumable=True
    )  # fmt: skip


def pooled_stage(
    name: str,
    corpus: Corpus,
    checkpoint: Path | str,
    model: Mapping[str, Any],
    reads: tuple[str, ...],
    frames: Path | None = None,
) -> Stage:
    """The layers of a checkpoint over a corpus, averaged over each recording.

    Parameters
    ----------
    name : str
        Name of the stage.
    corpus : Corpus
    checkpoint : path or str
        Folder or hub name.
    model : mapping
        Identifies the model, or the model that it was tuned from: part of the stage's key.
    reads : tuple of str
        The stages that made the checkpoint, the corpus and the frames.
    frames : Path, optional
        Folder of :func:`frames_stage` whose CNN is that of the checkpoint. Results are the same bits without it.
    """
    read = ReadConfig("utterance")
    settings = {**model, "read": read, "recordings": sorted(corpus.recordings)}
    return Stage(
        name, settings, reads, read_corpus, (checkpoint, corpus, read, frames), inputs=_sounds(corpus, reads), resumable=True
    )  # fmt: skip


def mfcc_stage(name: str, corpus: Corpus, reads: tuple[str, ...]) -> Stage:
    """MFCCs of a corpus, in the format of a model with one layer."""
    settings = {"model": "mfcc", "recordings": sorted(corpus.recordings)}
    return Stage(name, settings, reads, read_cepstra, (corpus,), inputs=_sounds(corpus, reads), resumable=True)


def read_frames(folder: Path, checkpoint: Path | str, corpus: Corpus) -> None:
    """The stage of a CNN's frames; one that was killed goes on."""
    extract_packed_frames(corpus.sounds, SpeechEncoder(checkpoint), folder / CORPUS_FILE)


def read_corpus(folder: Path, checkpoint: Path | str, corpus: Corpus, read: ReadConfig, frames: Path | None) -> None:
    """The stage of a checkpoint's layers; one that was killed goes on."""
    there = None if frames is None else frames / CORPUS_FILE
    extract_packed(corpus.sounds, SpeechEncoder(checkpoint), folder / CORPUS_FILE, read, frames=there)


def read_cepstra(folder: Path, corpus: Corpus) -> None:
    """Compute MFCCs."""
    extract_packed_mfcc(corpus.sounds, folder / CORPUS_FILE)


def _sounds(corpus: Corpus, reads: tuple[str, ...]) -> dict[str, Path]:
    """The sounds as inputs of a stage; none if another stage made them."""
    return {} if any(name.startswith("corpora/") for name in reads) else corpus.sounds
