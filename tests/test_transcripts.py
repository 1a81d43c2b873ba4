"""Transcripts in another unit or with tiers that take each other's place: what is said of them, and what of sound ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fastencode.cli import align
from fastencode.cli.settings import AlignRunConfig
from fastencode.data.stories import Stories
from fastencode.data.textgrid import Interval, write_textgrid
from fastencode.data.transcripts import exchanged_tiers, word_time_findings
from fastencode.errors import FastencodeWarning, InputError
from fastencode.runs import training
from fastencode.runs.config import LessonsConfig
from fastencode.runs.fits import Question
from fastencode.runs.studies import study
from fastencode.runs.studies.config import DataSettings, StudyConfig
from fastencode.study.config import AlignConfig

pytest.importorskip("praatio", reason="transcripts are written with the extra 'tune'")

SECONDS = 180.0


def speech(until: float = SECONDS, *, rate: float = 2.5, scale: float = 1.0, begin: float = 0.0) -> list[Interval]:
    """Words with pauses between them, ``rate`` of them a second."""
    starts = np.arange(1.0, until - 1, 1 / rate)
    lengths = np.random.default_rng(0).uniform(0.4 / rate, 1 / rate, len(starts))
    return [Interval(float(begin + scale * a), float(begin + scale * (a + b)), "x") for a, b in zip(starts, lengths, strict=True)]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (speech(scale=1000), "they look like milliseconds: divide them by 1000"),
        (speech(scale=16000), "they look like samples at 16 kHz: divide them by 16000"),
        (speech(scale=44100), "they look like samples at 44.1 kHz: divide them by 44100"),
        (speech(scale=100), "they look like hundredths of a second: divide them by 100"),
        (speech(scale=1 / 60), "they look like minutes: write seconds"),
        (speech(scale=1 / 3600), "they look like hours: write seconds"),
        (speech(begin=36000.0), "they look like clock time"),
        (speech(begin=900.0), "or the time of a longer recording: subtract when this one begins, at most 901"),
        (speech(2000.0), "give seconds from the onset of the recording, or check that this is its transcript"),
    ],
)
def test_another_unit_is_named(words: list[Interval], remedy: str) -> None:
    (finding,) = word_time_findings(words, SECONDS, "a.TextGrid")
    assert (finding.kind, finding.where) == ("word times", "a.TextGrid") and remedy in finding.remedy
    assert f"{len(words)} labels" in finding.evidence and "180.0 s" in finding.evidence


@pytest.mark.parametrize(
    "words",
    [
        *(speech(), speech(begin=-0.5), speech(begin=8.0), speech(20.0), speech(4.0), speech(rate=9), speech(rate=0.2), []),
        [Interval(1.0, 1.0, "x")] * 20,
    ],
)
def test_seconds_are_left_alone(words: list[Interval]) -> None:
    assert word_time_findings(words, SECONDS, "a.TextGrid") == []


def test_words_are_fewer_and_longer_than_phones() -> None:
    words, phones = speech(), speech(rate=9)
    assert exchanged_tiers(words, phones, "a") == exchanged_tiers(words, [], "a") == exchanged_tiers([], phones, "a") == []
    assert exchanged_tiers(words, phones[:50], "a") == [], "fewer phones alone may be a part of them"
    (finding,) = exchanged_tiers(phones, words, "a")
    assert finding.kind == "exchanged tiers" and f"{len(phones)} words that last" in finding.evidence


def transcribed(root: Path, tiers: dict[str, list[Interval]], **options: object) -> Stories:
    for folder in ("preprocessed_data", "TextGrids"):
        (root / folder).mkdir(exist_ok=True)
    (root / "respdict.json").write_text('{"story": 100}')
    write_textgrid(root / "TextGrids" / "story.TextGrid", tiers, max(word.end for tier in tiers.values() for word in tier))
    return Stories(root, **options)


def test_tiers_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    words, phones = speech(), speech(rate=9)
    for names in (("word", "phone"), ("Lisa - words", "Lisa - phones"), ("Words", "Phonemes"), ("ORT-MAU", "MAU")):
        for order in (1, -1):
            tiers = dict(list(zip(names, (words, phones), strict=True))[::order])
            data = transcribed(tmp_path, tiers)
            assert (len(data.words("story")), len(data.phones("story"))) == (len(words), len(phones))


def test_tiers_of_other_names_are_asked_for(tmp_path: Path) -> None:
    words, phones = speech(), speech(rate=9)
    data = transcribed(tmp_path, {"Wörter": words, "Laute": phones})
    for read, option in ((data.words, "word_tier"), (data.phones, "phone_tier")):
        with pytest.raises(InputError, match=rf"story\.TextGrid: no tier .*\['Wörter', 'Laute'\]; name one with {option}"):
            read("story")
    data = transcribed(tmp_path, {"Wörter": words, "Laute": phones}, word_tier="wörter", phone_tier="Laute")
    assert (len(data.words("story")), len(data.phones("story"))) == (len(words), len(phones))
    for options in ({"word_tier": "Laute", "phone_tier": "Wörter"},):
        data = transcribed(tmp_path, {"Wörter": words, "Laute": phones}, **options)
        for read in (data.words, data.phones):
            with pytest.raises(InputError, match=r"story\.TextGrid: \d+ words that last .* the two tiers look exchanged"):
                read("story")
    data = transcribed(tmp_path, {"Lisa - words": words, "Tom - words": words})
    with pytest.raises(InputError, match=r"\['Lisa - words', 'Tom - words'\] all end with .*; name one with word_tier"):
        data.words("story")


def test_times_in_milliseconds_are_warned_about(tmp_path: Path) -> None:
    data = transcribed(tmp_path, {"word": speech(scale=1000)})
    with pytest.warns(
        FastencodeWarning, match=r"story\.TextGrid: 100% of \d+ labels .* 180\.0 s: .* look like milliseconds"
    ) as caught:
        data.words("story")
    assert caught[0].filename == __file__
    data = transcribed(tmp_path, {"word": speech()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.words("story")


def test_settings_reach_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"word_tier": "Wörter", "phone_tier": "Laute"}

    def caught(root: Path, layout: str, **options: object) -> None:
        raise InputError(f"seen {[options[name] for name in given]}")

    for module in (align, training, study):
        monkeypatch.setattr(module, "open_data", caught)
    data = DataSettings(str(tmp_path), **given).resolved()
    for open_it in (
        lambda: align.run(AlignRunConfig(tmp_path, baselines=("word_rate",), out=tmp_path / "out", **given)),
        lambda: training.prepare_lessons(LessonsConfig(tmp_path, **given)),
        lambda: study.open_stories(StudyConfig(title="a", data=data), tmp_path),
    ):
        with pytest.raises(InputError, match=r"seen \['Wörter', 'Laute'\]"):
            open_it()


def test_fits_of_other_tiers_are_other_fits(tmp_path: Path) -> None:
    tiers = {"Wörter": speech(), "Laute": speech(rate=9)}
    keys = []
    for name in tiers:
        data = transcribed(tmp_path, tiers, word_tier=name, test_story="story", test_skip=0)
        keys.append(Question(data, {}, {}, AlignConfig()).shared("word_tier", "phone_tier"))
    assert keys == [{"word_tier": name, "phone_tier": ""} for name in tiers]
