"""What corpora and their probes would take, before anything of them is made: for a dry run.

A corpus that is not made yet is spoken by a few speakers first; of one that is there a few recordings are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastencode.data.corpora import Corpus, open_corpus
from fastencode.errors import MissingLibraryError
from fastencode.runs.config import ProbeConfig
from fastencode.runs.corpora import seconds_of
from fastencode.runs.making import read_signature
from fastencode.runs.studies import rehearsal
from fastencode.runs.studies.config import DEMO, SPOKEN, StudyConfig
from fastencode.runs.studies.names import corpus_of, kind_of
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.packed import frame_bytes
from fastencode.study.probing.tasks import task_of
from fastencode.world.config import CorpusConfig

__all__ = ["Cost", "Heard", "Speech"]

_MFCC = 78  # columns of cepstra
_BATCH = 16.0  # s of sound in a batch, about
_COEFFICIENTS = 13
_SENTENCES = {"phonemes": ("multilabel", 39), "sentence_type": ("classification", 3), "sx_si": ("classification", 2)}


class Cost(NamedTuple):
    """Of one stage: seconds (NaN where unknown), bytes in memory beside the libraries, bytes on disk."""

    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Heard:
    """A corpus, as far as it is known.

    Attributes
    ----------
    sample : Corpus or None
        Recordings to try models on: it, or a few that were spoken. None where nothing can be spoken here.
    recordings : float
    seconds : float
        Of sound.
    made : bool
        Whether ``sample`` is all of it.
    """

    sample: Corpus | None
    recordings: float
    seconds: float
    made: bool


class Speech:
    """The corpora of a study.

    Parameters
    ----------
    root : Path
        The output folder.
    config : StudyConfig
    folder : Path
        An empty folder to speak into.
    """

    def __init__(self, root: Path, config: StudyConfig, folder: Path) -> None:
        self._root, self._config, self._folder = root, config, folder
        # Of this dry run: each is tried once.
        self.corpus, self._said, self._rates = cache(self._corpus), cache(self._speak), cache(self._read)
        self._probing = cache(rehearsal.probing)

    def spoken(self, kind: str) -> Cost:
        """A corpus that is spoken: "timit" or "commands"."""
        said, count = self._said(kind), _count(kind, self._config.probes.speech)
        return Cost(math.nan, 0, 0) if said is None else Cost(count * said.seconds, 0, count * said.disk)

    def frames(self, name: str, encoder: SpeechEncoder) -> Cost:
        """The frozen CNN over a corpus, kept."""
        seconds = self.corpus(name).seconds
        size = frame_bytes(encoder)
        return Cost(seconds * self._rates(name, encoder)[1], _BATCH * size, seconds * size)

    def pooled(self, name: str, encoder: SpeechEncoder | None, from_frames: bool) -> Cost:
        """All layers of a corpus, of its sounds or of kept frames; without an encoder cepstra."""
        heard, rates = self.corpus(name), self._rates(name, encoder)
        row = 4 * _MFCC if encoder is None else 4 * encoder.n_layers * encoder.width
        return Cost(heard.seconds * rates[2 if from_frames else 0], 50 * _BATCH * row, heard.recordings * row)

    def probe(self, task: str, encoder: SpeechEncoder | None) -> Cost:
        """One task on all layers of a model; without an encoder on cepstra."""
        layers, width = (1, _MFCC) if encoder is None else (encoder.n_layers, encoder.width)
        kind, rows, classes = self._task(task)
        seconds = layers * self._probing(kind, rows, width, classes, control=self._config.probes.control)
        return Cost(seconds, 3 * 4 * rows * width, layers * 8 * ProbeConfig().bootstraps)

    def _corpus(self, name: str) -> Heard:
        where = self._config.probes.corpora[name]
        kind, manifest = SPOKEN.get(name, ("", ""))
        folder = Path(where) if where != DEMO else self._root / "corpora" / kind
        if where != DEMO or ((there := read_signature(folder)) is not None and there.seconds is not None):
            corpus = open_corpus(folder if where != DEMO else folder / manifest)
            return Heard(corpus, len(corpus.recordings), seconds_of(corpus), True)
        said = self._said(kind)
        if said is None:
            return Heard(None, math.nan, math.nan, False)
        spoken = len(said.corpus.recordings)
        part = _rows(said.corpus.root / manifest) / spoken if manifest else 1.0
        count = part * _count(kind, self._config.probes.speech)
        return Heard(said.corpus, count, count * seconds_of(said.corpus) / spoken, False)

    def _speak(self, kind: str) -> rehearsal.Said | None:
        (self._folder / kind).mkdir()
        try:
            return rehearsal.speak(kind, self._config.probes.speech, self._folder / kind)
        except MissingLibraryError:  # nor can the study run here; the checks at its start say so
            return None

    def _read(self, name: str, encoder: SpeechEncoder | None) -> tuple[float, float, float]:
        sample = self.corpus(name).sample
        sounds = {} if sample is None else rehearsal.some_sounds(sample)
        return rehearsal.reading(sounds, encoder) if sounds else (math.nan, math.nan, math.nan)

    def _task(self, task: str) -> tuple[str, int, int]:
        """Kind, rows and classes of a task."""
        name, heard, kind = corpus_of(task), self.corpus(corpus_of(task)), kind_of(task)
        points = ProbeConfig().mfcc_points
        if heard.made and heard.sample is not None:
            asked = task_of(kind, heard.sample, points=points, seed=self._config.seed)
            return asked.kind, len(asked.keys), _COEFFICIENTS * points if kind == "mfcc" else len(asked.classes)
        speech, rows = self._config.probes.speech, 0 if math.isnan(heard.recordings) else round(heard.recordings)
        if SPOKEN[name][0] == "timit" and kind != "sentence_type":  # without the two sentences that all read
            rows = round(rows * (speech.compact + speech.diverse) / (2 + speech.compact + speech.diverse))
        if kind == "mfcc":
            return "regression", rows, _COEFFICIENTS * points
        return (_SENTENCES[kind][0], rows, _SENTENCES[kind][1]) if kind in _SENTENCES else ("classification", rows, speech.words)


def _count(kind: str, config: CorpusConfig) -> int:
    """Recordings of a corpus that is spoken."""
    speakers = config.train_speakers + config.test_speakers
    if kind == "timit":
        return speakers * (2 + config.compact + config.diverse)
    return (speakers + config.validation_speakers) * config.words_each * config.repetitions


def _rows(manifest: Path) -> int:
    """Recordings that a manifest lists, below its header."""
    return len(manifest.read_text(encoding="utf-8").splitlines()) - 1
