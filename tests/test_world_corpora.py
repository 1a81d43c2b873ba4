"""Spoken corpora in the layouts of TIMIT and Speech Commands: our readers read them, and their labels are in the sound."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="the synthesizer needs the extra 'demo'")
pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")

from fastencode.data.commands import read_commands
from fastencode.data.manifest import read_manifest
from fastencode.data.recordings import Recording
from fastencode.data.textgrid import Interval
from fastencode.data.timit import PHONES, read_phones, read_sentence, read_timit, read_words
from fastencode.errors import FastencodeError, InputError
from fastencode.world.config import CorpusConfig
from fastencode.world.corpora import make_commands, make_timit
from fastencode.world.espeak import Synthesizer, Voice
from fastencode.world.sentences import SA, compact_sentences, diverse_sentences, function_words
from fastencode.world.speakers import ACCENTS, draw_speakers
from fastencode.world.tales import CLASSES, VOICES, WORD_CLASS
from fastencode.world.timit_phones import TIMIT_PHONES, in_timit_phones

SMALL = CorpusConfig(
    train_speakers=9,
    validation_speakers=2,
    test_speakers=4,
    compact=3,
    diverse=2,
    readers=3,
    words=27,
    words_each=22,
    repetitions=2,
)


def made(root: Path, config: CorpusConfig = SMALL) -> Path:
    for name, make in (("timit", make_timit), ("commands", make_commands)):
        (root / name).mkdir(parents=True)
        make(root / name, config, show_progress=False)
    return root


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def sentences(corpora: Path) -> list[Recording]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_timit(corpora / "timit")


def of_type(recordings: list[Recording], kind: str, split: str | None = None) -> list[Recording]:
    return [r for r in recordings if r.labels["type"] == kind and split in (None, r.split)]


def test_the_tree_is_timit(corpora: Path, sentences: list[Recording]) -> None:
    assert Counter(r.split for r in sentences) == {"train": 9 * 7, "test": 4 * 7}
    assert Counter(r.labels["type"] for r in sentences) == {"SA": 26, "SX": 39, "SI": 26}
    assert len({r.speaker for r in sentences}) == 13
    assert {r.labels["region"] for r in sentences} == {f"DR{i}" for i in range(1, 9)}
    assert {r.labels["sex"] for r in sentences} == {"F", "M"}
    import soundfile

    info = soundfile.info(sentences[0].path)
    assert (info.format, info.samplerate, info.channels) == ("NIST", 16000, 1)
    assert sorted(p.name for p in sentences[0].path.parent.glob("SA1.*")) == ["SA1.PHN", "SA1.TXT", "SA1.WAV", "SA1.WRD"]


def test_types_differ_by_who_reads_them(sentences: list[Recording]) -> None:
    texts = {r.path: read_sentence(r.path) for r in sentences}
    assert {texts[r.path] for r in of_type(sentences, "SA")} == set(SA)
    compact = Counter(texts[r.path] for r in of_type(sentences, "SX"))
    assert set(compact.values()) <= {2, 3, 4} and sum(compact.values()) == 39
    diverse = [texts[r.path] for r in of_type(sentences, "SI")]
    assert len(set(diverse)) == len(diverse) and not set(diverse) & set(compact)
    for r in sentences:  # a name is a text, everywhere
        assert all(texts[r.path] == texts[o.path] for o in sentences if o.labels["sentence"] == r.labels["sentence"])
    own = Counter((r.speaker, texts[r.path]) for r in sentences)
    assert max(own.values()) == 1


def test_nothing_but_sa_is_read_in_both_splits(sentences: list[Recording]) -> None:
    texts = {split: {read_sentence(r.path) for r in sentences if r.split == split} for split in ("train", "test")}
    assert texts["train"] & texts["test"] == set(SA)
    speakers = {split: {r.speaker for r in sentences if r.split == split} for split in ("train", "test")}
    assert not speakers["train"] & speakers["test"]


def test_labels_stand_where_the_sound_is(sentences: list[Recording]) -> None:
    """Phones without gaps; words are the sentence's; what is labelled a vowel is loud, what is labelled silence is not."""
    loud, quiet = [], []
    for r in sentences:
        phones, words, audio = read_phones(r.path), read_words(r.path), r.audio()
        assert phones[0].start == 0 and phones[-1].end == pytest.approx(len(audio) / 16000)
        assert phones[0].label == phones[-1].label == "h#"
        assert all(before.end == after.start for before, after in pairwise(phones))
        assert [w.label for w in words] == read_sentence(r.path).lower().replace(",", "").strip(".").split()
        for phone in phones:
            level = float(np.sqrt((audio[round(phone.start * 16000) : round(phone.end * 16000)] ** 2).mean()))
            if phone.label in ("h#", "iy", "aa", "ae", "ow"):
                (quiet if phone.label == "h#" else loud).append(level)
        assert not any(phone.label == "h#" for phone in phones[1:-1])
        assert all(any(abs(word.start - phone.start) < 0.06 for phone in phones) for word in words)
    assert np.median(loud) > 30 * np.median(quiet) > 0


def test_the_synthesizer_has_no_phone_that_timit_lacks() -> None:
    """Every accent says every word and many sentences; phones that only neighbors bring about are among them."""
    rng = np.random.default_rng(3)
    texts = [*SA, *WORD_CLASS, *function_words(), *compact_sentences(20, rng), *diverse_sentences(60, rng)]
    unmapped: set[tuple[str, str]] = set()
    for accent in ACCENTS:
        synthesizer = Synthesizer()
        for text in texts:
            labels = {phone.label.lstrip("ˈˌ") for phone in synthesizer.speak(text, Voice(accent, 165, 50)).phones}
            unmapped |= {(accent, label) for label in labels if label.strip("_: ") and label not in TIMIT_PHONES}
    assert not unmapped
    assert {symbol for symbols in TIMIT_PHONES.values() for symbol in symbols} <= set(PHONES)


def test_phones_are_written_in_timit_symbols() -> None:
    spoken = [Interval(0.1, 0.2, "ð"), Interval(0.2, 0.4, "ˈɑːɹ"), Interval(0.5, 0.6, "_:"), Interval(0.6, 0.7, "t")]
    written = in_timit_phones(spoken, 0.0, 1.0)
    assert [p.label for p in written] == ["h#", "dh", "aa", "r", "pau", "t", "h#"]
    np.testing.assert_allclose([p.start for p in written], [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7])
    with pytest.raises(FastencodeError, match="phone 'ʘ' has no symbol"):
        in_timit_phones([Interval(0.1, 0.2, "ʘ")], 0.0, 1.0)


def test_the_tree_is_speech_commands(corpora: Path) -> None:
    import soundfile

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recordings = read_commands(corpora / "commands")
    assert Counter(r.split for r in recordings) == {"train": 9 * 44, "validation": 2 * 44, "test": 4 * 44}
    words = {r.labels["word"] for r in recordings}
    assert len(words) == 27 and Counter(WORD_CLASS[word] for word in words) == dict.fromkeys(CLASSES, 3)
    for r in recordings:
        info = soundfile.info(r.path)
        assert (info.samplerate, info.frames, info.format, info.subtype) == (16000, 16000, "WAV", "PCM_16")
    peaks = [np.abs(r.audio()).max() for r in recordings]
    assert min(peaks) > 0.28 and max(peaks) < 0.92
    assert min(np.ptp(r.audio()[:160]) for r in recordings) > 0, "not digital silence"
    again = [
        r.audio() for r in recordings if r.labels["word"] == recordings[0].labels["word"] and r.speaker == recordings[0].speaker
    ]
    assert len(again) == 2 and not np.array_equal(*again)


def test_manifests_say_the_class_of_every_word(corpora: Path) -> None:
    commands = {r.path: r for r in read_commands(corpora / "commands")}
    rows = read_manifest(corpora / "commands" / "labels.tsv", labels=("word", "class"))
    assert {r.path for r in rows} == set(commands)
    for r in rows:
        other = commands[r.path]
        assert (r.labels["word"], r.speaker, r.split) == (other.labels["word"], other.speaker, other.split)
        assert r.labels["class"] == WORD_CLASS[r.labels["word"]]
    unheard = read_manifest(corpora / "commands" / "unheard_words.tsv", labels=("word", "class"))
    for kind in ("word", "speaker"):
        splits: dict[str | None, set[str | None]] = {}
        for r in unheard:
            splits.setdefault(r.labels["word"] if kind == "word" else r.speaker, set()).add(r.split)
        assert all(len(where) == 1 for where in splits.values())
    assert all({r.labels["class"] for r in unheard if r.split == split} == set(CLASSES) for split in ("train", "test"))
    assert all(r.split == commands[r.path].split for r in unheard)


def test_a_word_is_in_its_recording(corpora: Path) -> None:
    """Mean log spectra tell the words of new speakers apart: the nearest mean of the training speakers, chance is 1/27."""
    recordings = read_commands(corpora / "commands")
    spectra = []
    for r in recordings:
        frames = r.audio().reshape(-1, 400) * np.hamming(400)
        power = np.log(np.abs(np.fft.rfft(frames)) ** 2 + 1e-4)[:, 1:129].reshape(len(frames), 32, 4).mean(-1)
        spectra.append(power[power.mean(1) > power.mean()].mean(0))
    X, y = np.stack(spectra), np.array([r.labels["word"] for r in recordings])
    train = np.array([r.split == "train" for r in recordings])
    words = sorted(set(y))
    means = np.stack([X[train & (y == word)].mean(0) for word in words])
    nearest = np.argmin(((X[~train, None] - means) ** 2).sum(-1), axis=1)
    assert np.mean(np.array(words)[nearest] == y[~train]) > 0.12


def test_the_same_settings_write_the_same_bytes(corpora: Path, tmp_path: Path) -> None:
    again = made(tmp_path / "again")
    files = sorted(p.relative_to(corpora) for p in corpora.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((corpora / name).read_bytes() == (again / name).read_bytes() for name in files)
    other = made(tmp_path / "other", replace(SMALL, train_speakers=1, validation_speakers=1, test_speakers=1, seed=1))
    sounds = [p for p in sorted(other.rglob("*")) if p.suffix.upper() == ".WAV"]
    before = {(corpora / name).read_bytes() for name in files}
    assert len(sounds) == 2 * 7 + 3 * 44 and not any(p.read_bytes() in before for p in sounds)


def test_speakers_are_all_different_and_none_tells_stories() -> None:
    speakers = draw_speakers(288, np.random.default_rng(0))
    names = [speaker.voice.name for speaker in speakers]
    assert len(set(names)) == 288 and not set(names) & {voice.name for voice in VOICES}
    synthesizer = Synthesizer()
    clipped = [(np.abs(synthesizer.speak("a small dog", speaker.voice).audio) > 0.999).sum() for speaker in speakers[::3]]
    assert max(clipped) <= 3, "no voice is cut off at full scale"
    with pytest.raises(InputError, match="289 speakers are more than the 288"):
        draw_speakers(289, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"train_speakers": 0}, "train_speakers must be at least 1"),
        ({"words": 17}, "words must lie between 18"),
        ({"words": 61}, "words must lie between 18"),
        ({"words": 20, "words_each": 21}, "words_each must lie between 1 and words=20"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_impossible_corpora(settings: dict, why: str) -> None:
    with pytest.raises(InputError, match=why):
        CorpusConfig(**settings)
