"""Stages that read corpora: all layers of a checkpoint, or MFCCs, of all recordings, in one file per corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastencode.data.corpora import Corpus
from fastencode.runs.engine import Stage
from fastencode.speech.config import ReadConfig
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import CORPUS_FILE, extract_packed, extract_packed_mfcc

__all__ = ["mfcc_stage", "pooled_stage"]


def pooled_stage(name: str, corpus: Corpus, checkpoint: Path | str, model: Mapping[str, Any], reads: tuple[str, ...]) -> Stage:
    """All layers of a checkpoint on a corpus, averaged over the frames of each recording.

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
        The stages that made the checkpoint and the corpus.
    """
    read = ReadConfig("utterance")
    settings = {**model, "read": read, "recordings": sorted(corpus.recordings)}
    return Stage(
        name, settings, reads, read_corpus, (checkpoint, corpus, read), inputs=_sounds(corpus, reads), resumable=True
    )  # fmt: skip


def mfcc_stage(name: str, corpus: Corpus, reads: tuple[str, ...]) -> Stage:
    """MFCCs of a corpus, in the format of a model with one layer."""
    settings = {"model": "mfcc", "recordings": sorted(corpus.recordings)}
    return Stage(name, settings, reads, read_cepstra, (corpus,), inputs=_sounds(corpus, reads), resumable=True)


def read_corpus(folder: Path, checkpoint: Path | str, corpus: Corpus, read: ReadConfig) -> None:
    """Read all layers of a checkpoint. A killed stage is resumed."""
    extract_packed(corpus.sounds, SpeechEncoder(checkpoint), folder / CORPUS_FILE, read)


def read_cepstra(folder: Path, corpus: Corpus) -> None:
    """Compute MFCCs."""
    extract_packed_mfcc(corpus.sounds, folder / CORPUS_FILE)


def _sounds(corpus: Corpus, reads: tuple[str, ...]) -> dict[str, Path]:
    """The sounds as inputs of a stage; none if another stage made them."""
    return {} if any(name.startswith("corpora/") for name in reads) else corpus.sounds
