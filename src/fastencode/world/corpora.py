"""Synthesized corpora with known ground truth, in the layouts of TIMIT and Speech Commands, by the synthesizer of the stories.

``fastencode.data.timit`` and ``fastencode.data.commands`` read them like the real ones. Words and semantic classes are those of
the simulated stories, so a probe of words uses words whose meaning drives the late-language region. The corpus of words has two
manifests (``fastencode.data.manifest``), which are examples of custom tasks::

    labels.tsv          all recordings: word, semantic class, speaker and split, as in the two lists of Speech Commands
    unheard_words.tsv   recordings for probing the semantic class of new words: words and speakers of the test split are in no
                        other split. A probe must then rely on what the model encodes, not on the sound of single words.

Speech is preceded and followed by noise at least 60 dB below the peak of the recording, not by digital silence.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from fastencode.data.textgrid import Interval
from fastencode.errors import InputError, require
from fastencode.progress import progress
from fastencode.speech.audio import resample
from fastencode.world.config import CorpusConfig
from fastencode.world.espeak import SAMPLE_RATE, Speech, Synthesizer
from fastencode.world.languages import LANGUAGE_OF, Language
from fastencode.world.sentences import SA, compact_sentences, diverse_sentences
from fastencode.world.speakers import Speaker, draw_speakers
from fastencode.world.timit_phones import in_timit_phones

__all__ = ["make_commands", "make_timit"]

_RATE = 16000  # Hz, of both corpora
_NOISE = 3e-4  # standard deviation of the noise around speech; 1 is full scale
_LEAD = (0.10, 0.20)  # s before and after a sentence
_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def make_timit(folder: Path, config: CorpusConfig, *, show_progress: bool = True) -> None:
    """Synthesize sentences of TIMIT's three types, in the layout of TIMIT.

    Parameters
    ----------
    folder : Path
        An existing folder. Gets ``TRAIN`` and ``TEST``, with NIST SPHERE files. The dialect region is the speaker's accent
        (``speakers.ACCENTS``).
    config : CorpusConfig
        The same settings give the same bytes.
    show_progress : bool

    Raises
    ------
    InputError
        If there are more speakers than different voices, or the language is not English, because labels are TIMIT's phones.
    MissingLibraryError
        If the synthesizer (extra ``demo``) or soundfile (extra ``tune``) is not installed.
    """
    if config.language != "en":
        raise InputError(f"language={config.language!r}: TIMIT's phones are English; make single words (commands) instead")
    rng = np.random.default_rng([config.seed, 11])
    counts = {"TRAIN": config.train_speakers, "TEST": config.test_speakers}
    speakers = draw_speakers(sum(counts.values()), rng)
    texts = _timit_texts(counts, config, rng)
    synthesizer = Synthesizer()
    split_of = [split for split, count in counts.items() for _ in range(count)]
    for index in progress(range(len(speakers)), desc="speaking TIMIT", unit="speaker", enabled=show_progress):
        speaker = speakers[index]
        home = folder / split_of[index] / f"DR{speaker.accent + 1}" / _timit_name(speaker, index)
        home.mkdir(parents=True)
        for name, text in texts[index]:
            _write_sentence(home / name, text, synthesizer.speak(text, speaker.voice), speaker, rng)


def _timit_texts(counts: dict[str, int], config: CorpusConfig, rng: np.random.Generator) -> list[list[tuple[str, str]]]:
    """Names and texts of each speaker's sentences. SX and SI texts of one split are not in the other."""
    n_shared = {split: max(config.compact, -(-n * config.compact // config.readers)) for split, n in counts.items()}
    compact = compact_sentences(sum(n_shared.values()), rng)
    # Some SI texts could be SX texts too: draw more, and leave those out.
    n_diverse = sum(counts.values()) * config.diverse
    drawn = (text for text in diverse_sentences(n_diverse + len(compact), rng) if text not in set(compact))
    diverse = enumerate(drawn, 453)
    read, first = [], 0
    for split, n_speakers in counts.items():
        for index in range(n_speakers):
            own = [(f"SA{i + 1}", text) for i, text in enumerate(SA)]
            for j in range(config.compact):
                number = first + (index * config.compact + j) % n_shared[split]
                own.append((f"SX{number + 3}", compact[number]))
            own += [(f"SI{number}", text) for number, text in islice(diverse, config.diverse)]
            read.append(own)
        first += n_shared[split]
    return read


def _timit_name(speaker: Speaker, index: int) -> str:
    letters = "".join(chr(ord("A") + index // 26**power % 26) for power in (2, 1, 0))
    return f"{speaker.sex}{letters}0"


def _write_sentence(path: Path, text: str, said: Speech, speaker: Speaker, rng: np.random.Generator) -> None:
    speech = _spoken(said, speaker)
    before, after = (round(seconds * _RATE) for seconds in rng.uniform(*_LEAD, 2))
    audio = _over_noise(speech, before, before + len(speech) + after, rng)
    _write_sound(path.with_suffix(".WAV"), audio, "NIST")
    seconds, lead = len(audio) / _RATE, before / _RATE
    phones = in_timit_phones(_later(said.phones, lead), 0.0, seconds)
    words = [Interval(word.start, min(word.end, seconds), word.label) for word in _later(said.words, lead)]
    for kind, labels in (("PHN", phones), ("WRD", words), ("TXT", [Interval(0.0, seconds, text)])):
        lines = [f"{round(label.start * _RATE)} {round(label.end * _RATE)} {label.label}\n" for label in labels]
        path.with_suffix(f".{kind}").write_text("".join(lines), encoding="ascii", newline="\n")


def make_commands(folder: Path, config: CorpusConfig, *, show_progress: bool = True) -> None:
    """Synthesize single words in the layout of Speech Commands v0.02, with two manifests of semantic classes.

    Parameters
    ----------
    folder : Path
        An existing folder. Gets a folder for each word with recordings of one second, ``validation_list.txt``,
        ``testing_list.txt``, ``labels.tsv`` and ``unheard_words.tsv``.
    config, show_progress
        As for :func:`make_timit`; so are errors.
    """
    rng = np.random.default_rng([config.seed, 12])
    counts = {"train": config.train_speakers, "validation": config.validation_speakers, "test": config.test_speakers}
    language = LANGUAGE_OF[config.language]
    word_class = language.word_class
    speakers = draw_speakers(sum(counts.values()), rng, language.accents)
    split_of = [split for split, count in counts.items() for _ in range(count)]
    words = _words(config.words, language)
    for word in words:
        (folder / word).mkdir()
    synthesizer = Synthesizer()
    rows: list[dict[str, str]] = []
    for index in progress(range(len(speakers)), desc="speaking words", unit="speaker", enabled=show_progress):
        name = hashlib.sha256(f"{config.seed} {index}".encode()).hexdigest()[:8]
        for word in sorted(str(w) for w in rng.choice(words, config.words_each, replace=False)):
            for k in range(config.repetitions):
                file = f"{word}/{name}_nohash_{k}.wav"
                _write_word(folder / file, synthesizer.speak(word, speakers[index].voice), speakers[index], rng)
                rows.append({"audio": file, "word": word, "class": word_class[word], "speaker": name, "split": split_of[index]})
    rows.sort(key=lambda row: row["audio"])
    for split, name in _LISTS.items():
        lines = [f"{row['audio']}\n" for row in rows if row["split"] == split]
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")
    _write_table(folder / "labels.tsv", rows)
    _write_table(folder / "unheard_words.tsv", _unheard(rows, words, language))


def _words(n_words: int, language: Language) -> list[str]:
    """The first words of each class, taken in turn; sorted."""
    lists = [[word for word, name in language.word_class.items() if name == wanted] for wanted in language.classes]
    in_turn = [words[i] for i in range(max(map(len, lists))) for words in lists if i < len(words)]
    return sorted(in_turn[:n_words])


def _write_word(path: Path, said: Speech, speaker: Speaker, rng: np.random.Generator) -> None:
    speech = _spoken(said, speaker)[:_RATE]
    audio = _over_noise(speech, int(rng.integers(_RATE - len(speech) + 1)), _RATE, rng)
    _write_sound(path, audio, "WAV")


def _unheard(rows: Sequence[dict[str, str]], words: Sequence[str], language: Language) -> list[dict[str, str]]:
    """Recordings whose word and speaker are in the same split: 3 of 8 words of a class are for testing, 1 for validation."""
    word_class = language.word_class
    split_of: dict[str, str] = {}
    for name in language.classes:
        own = [word for word in words if word_class[word] == name]
        n_test, n_validation = max(1, round(0.375 * len(own))), int(len(own) >= 3)
        kinds = ["test"] * n_test + ["validation"] * n_validation + ["train"] * len(own)
        split_of |= dict(zip(own, kinds, strict=False))
    return [row for row in rows if row["split"] == split_of[row["word"]]]


def _write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _spoken(said: Speech, speaker: Speaker) -> np.ndarray:
    """Sound up to the end of the last phone, at 16 kHz, with the speaker's peak."""
    end = round(max(phone.end for phone in said.phones) * SAMPLE_RATE)
    speech = resample(said.audio[:end], SAMPLE_RATE, _RATE)
    return speech * np.float32(speaker.level / np.abs(speech).max())


def _over_noise(speech: np.ndarray, first: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    audio = _NOISE * rng.standard_normal(n_samples, dtype=np.float32)
    audio[first : first + len(speech)] += speech
    return audio


def _write_sound(path: Path, audio: np.ndarray, kind: str) -> None:
    """16-bit samples in one of libsndfile's formats, encoded in memory: soundfile waits for the disk at every file."""
    encoded = io.BytesIO()
    require("soundfile", "tune").write(encoded, audio, _RATE, format=kind, subtype="PCM_16")
    path.write_bytes(encoded.getvalue())


def _later(intervals: Sequence[Interval], seconds: float) -> list[Interval]:
    return [Interval(i.start + seconds, i.end + seconds, i.label) for i in intervals]
