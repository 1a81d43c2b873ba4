"""Stages of corpora: every layer of a checkpoint over every recording, or cepstra, one file for each corpus."""

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
    """The layers of a checkpoint over a corpus, averaged over each recording.

    Parameters
    ----------
    name : str
        The stage.
    corpus : Corpus
    checkpoint : path or str
        Folder or hub name.
    model : mapping
        Settings of it, or of the model that it was tuned from.
    reads : tuple of str
        The stages that made the checkpoint and the corpus.
    """
    read = ReadConfig("utterance")
    settings = {**model, "read": read, "recordings": sorted(corpus.recordings)}
    return Stage(
        name, settings, reads, read_corpus, (checkpoint, corpus, read), inputs=_sounds(corpus, reads), resumable=True
    )  # fmt: skip


def mfcc_stage(name: str, corpus: Corpus, reads: tuple[str, ...]) -> Stage:
    """Cepstra of a corpus, as the layer of a model."""
    settings = {"model": "mfcc", "recordings": sorted(corpus.recordings)}
    return Stage(name, settings, reads, read_cepstra, (corpus,), inputs=_sounds(corpus, reads), resumable=True)


def read_corpus(folder: Path, checkpoint: Path | str, corpus: Corpus, read: ReadConfig) -> None:
    """The stage of a checkpoint's layers; one that was killed goes on."""
    extract_packed(corpus.sounds, SpeechEncoder(checkpoint), folder / CORPUS_FILE, read)


def read_cepstra(folder: Path, corpus: Corpus) -> None:
    """The stage of cepstra."""
    extract_packed_mfcc(corpus.sounds, folder / CORPUS_FILE)


def _sounds(corpus: Corpus, reads: tuple[str, ...]) -> dict[str, Path]:
    """The files that decide the result, where no stage made them."""
    return {} if any(name.startswith("corpora/") for name in reads) else corpus.sounds
