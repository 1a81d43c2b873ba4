"""Stories and single words in French: words, articles, files and labels, at another repetition time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="the synthesizer needs the extra 'demo'")
pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")

from fastencode.data.commands import read_commands
from fastencode.data.corpora import open_corpus
from fastencode.data.stories import Stories
from fastencode.errors import InputError
from fastencode.world.config import LANGUAGES, CorpusConfig, Participant, WorldConfig
from fastencode.world.corpora import make_commands, make_timit
from fastencode.world.languages import ENGLISH, FRENCH, LANGUAGE_OF
from fastencode.world.simulate import make_world
from fastencode.world.speakers import draw_speakers
from fastencode.world.tales import tell

CORPUS = CorpusConfig(train_speakers=4, validation_speakers=1, test_speakers=2, words=60, words_each=12, language="fr")
FEMININE = {"vache", "chèvre", "pomme", "soupe", "rivière", "clé", "scie", "chemise", "voisine", "gare"}
MASCULINE = {"chien", "gâteau", "poivre", "marteau", "maître", "médecin", "château", "marché", "gant", "pain"}


def test_languages_have_the_same_classes_of_as_many_words() -> None:
    assert tuple(LANGUAGE_OF) == LANGUAGES and FRENCH.classes == ENGLISH.classes
    for language in LANGUAGE_OF.values():
        words = [word for group in (language.nouns, language.verbs) for line in group.values() for word in line.split()]
        assert len(set(words)) == 60 and Counter(language.word_class.values()) == Counter(ENGLISH.word_class.values())
        assert not {voice.name for voice in language.voices} & {one.voice.name for one in draw_speakers(36, _rng(), ["fr"])}
    assert set(FRENCH.feminine.split()) <= set(FRENCH.word_class)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_french_story_has_french_words_with_their_accents_and_articles() -> None:
    said = tell(150, _rng(), language=FRENCH)
    words = [word.label for word in said.words]
    assert set(words) <= {"le", "la", "et", *FRENCH.word_class}
    assert any("è" in word or "â" in word for word in words), "labels are cut where characters are, not where bytes are"
    before = {(words[k - 1], word) for k, word in enumerate(words) if k and word in FEMININE | MASCULINE}
    assert {word for article, word in before if article == "la"} <= FEMININE and {w for a, w in before if a == "le"} <= MASCULINE
    assert {article for article, _ in before} == {"le", "la"}
    english = tell(30, _rng())
    assert {word.label for word in english.words} <= {"the", "and", *ENGLISH.word_class}


def test_single_words_are_speech_commands_in_utf_8(tmp_path: Path) -> None:
    make_commands(tmp_path, CORPUS, show_progress=False)
    found = read_commands(tmp_path)
    assert len(found) == 7 * 12 and {one.labels["word"] for one in found} <= set(FRENCH.word_class)
    assert any(not one.labels["word"].isascii() for one in found)
    listed = open_corpus(tmp_path / "labels.tsv")
    assert {key: one.labels["class"] for key, one in listed.recordings.items()} == {
        f"{one.labels['word']}/{one.path.stem}": FRENCH.word_class[one.labels["word"]] for one in found
    }


def test_what_a_language_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="language='fr': TIMIT's phones are English; make single words"):
        make_timit(tmp_path, CORPUS, show_progress=False)
    with pytest.raises(InputError, match="109 speakers are more than the 108"):
        draw_speakers(109, _rng(), FRENCH.accents)
    for wrong in (CorpusConfig, WorldConfig):
        with pytest.raises(InputError, match="language is 'de': choose one of en, fr"):
            wrong(language="de")


def test_brains_hear_french_at_another_repetition_time(tmp_path: Path) -> None:
    people = (Participant("A", auditory=3, late_language=4, silent=2, gain=1.5, peak_delay=6.0),)
    config = WorldConfig(minutes=1.1, story_minutes=1.1, test_minutes=1.1, repeats=2, tr=1.5, language="fr", participants=people)
    make_world(config, tmp_path, show_progress=False)
    data = Stories(tmp_path, tr=1.5, test_story="test", test_skip=0)
    assert {word.label for word in data.words("story01")} <= {"le", "la", "et", "", *FRENCH.word_class}
    times = data.row_times("story01")
    assert json.loads((tmp_path / "respdict.json").read_text())["story01"] - len(times) == 20  # rows that ds003020 trims
    assert 1.1 * 60 - 8 * 1.5 < times[-1] < 1.1 * 60
    np.testing.assert_allclose(np.diff(times), 1.5)
    assert np.isfinite(data.responses("A", "story01")).all() and data.responses("A", "story01").shape == (len(times), 9)
