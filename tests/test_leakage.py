"""Leaks of the test split into what probes learn from: found, listed, and allowed by name only."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fastencode.data.recordings import Recording
from fastencode.data.timit import read_timit
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import sha256
from fastencode.study.probing.leakage import check_leaks, find_leaks, texts_of
from fastencode.study.probing.tasks import task_of
from task_cases import Listed, listed, timit_like

pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")


@pytest.fixture
def clips(tmp_path: Path) -> Listed:
    """Eight clips that leak nothing: two speakers, four texts and as many files in each split."""
    recordings = {}
    for k in range(8):
        path, split = tmp_path / f"{k}.wav", "train" if k < 4 else "test"
        path.write_bytes(f"sound {k}".encode())
        labels = {"mood": "ab"[k % 2], "text": f"Text {k}!"}
        recordings[f"clip{k}"] = Recording(path, labels, f"{split}-{k % 2}", split)
    return Listed("clips", "manifest", recordings)


def changed(clips: Listed, key: str, **changes: object) -> Listed:
    one = clips.recordings[key]
    labels = {**one.labels, **changes.pop("labels", {})}  # type: ignore[dict-item]
    return replace(clips, recordings={**clips.recordings, key: replace(one, labels=labels, **changes)})


def leaks_of(corpus: Listed, name: str = "label:mood") -> dict[str, tuple[tuple[str, ...], int]]:
    return {leak.kind: (leak.what, leak.of) for leak in find_leaks(task_of(name, corpus), texts_of(corpus), sha256)}


def test_nothing_leaks(clips: Listed) -> None:
    assert leaks_of(clips) == {}
    assert check_leaks({"label:mood": []}) == []


def test_a_speaker_in_both_splits(clips: Listed) -> None:
    assert leaks_of(changed(clips, "clip0", speaker="test-1")) == {"speakers": (("test-1",), 2)}
    learned = changed(clips, "clip0", speaker="test-1", split="validation")
    assert leaks_of(learned) == {"speakers": (("test-1",), 2)}  # penalties are chosen there
    assert leaks_of(changed(clips, "clip0", speaker=None)) == {}  # then no speaker is known of all


def test_who_speaks_may_be_asked_of_speakers_in_both_splits(clips: Listed) -> None:
    shared = {key: replace(one, speaker=f"s{k % 2}") for k, (key, one) in enumerate(clips.recordings.items())}
    assert leaks_of(replace(clips, recordings=shared), "label:speaker") == {}


def test_a_text_in_both_splits_whatever_its_case_and_points(clips: Listed) -> None:
    assert leaks_of(changed(clips, "clip1", labels={"text": "text, 6"})) == {"texts": (("text 6",), 4)}
    assert leaks_of(changed(clips, "clip1", labels={"text": "text 66"})) == {}


def test_scripts_with_marks_stay_apart(clips: Listed) -> None:
    """की and कि differ in a combining vowel sign only."""
    one = changed(changed(clips, "clip1", labels={"text": "की"}), "clip6", labels={"text": "कि"})
    assert leaks_of(one) == {}
    assert leaks_of(changed(one, "clip6", labels={"text": "की।"})) == {"texts": (("की",), 4)}


def test_words_are_no_texts_where_they_are_what_is_asked(clips: Listed) -> None:
    for key in clips.recordings:
        clips = changed(clips, key, labels={"text": clips.recordings[key].labels["mood"].upper()})
    assert leaks_of(clips, "label:text") == leaks_of(clips, "label:mood") == {}
    moods = {
        key: changed(clips, key, labels={"mood": "ba"[k // 2 % 2]}).recordings[key] for k, key in enumerate(clips.recordings)
    }
    assert leaks_of(replace(clips, recordings=moods)) == {"texts": (("a", "b"), 2)}


def test_the_same_sound_twice(clips: Listed, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "0.wav", tmp_path / "7.wav")
    assert leaks_of(clips) == {"copies": (("clip7",), 4)}
    shutil.copy(tmp_path / "6.wav", tmp_path / "7.wav")
    with pytest.warns(FastencodeWarning, match="1 of 4 test recordings are copies of others"):
        assert leaks_of(clips) == {}


def test_another_label_for_texts(clips: Listed) -> None:
    assert texts_of(clips, "mood")["clip0"] == "a"
    with pytest.raises(InputError, match="text='words': clips has no such label, only mood, text"):
        texts_of(clips, "words")
    assert texts_of(replace(clips, kind="commands")) == {}


def test_leaks_are_refused_with_what_allows_them(clips: Listed) -> None:
    leaking = changed(changed(clips, "clip0", speaker="test-1"), "clip1", labels={"text": "text 6"})
    found = {"label:mood": find_leaks(task_of("label:mood", leaking), texts_of(leaking), sha256)}
    with pytest.raises(InputError) as refused:
        check_leaks(found)
    assert "  label:mood: 1 of 2 test speakers are in the training split: test-1\n" in str(refused.value)
    assert "  label:mood: 1 of 4 test sentence texts are in the training split: text 6\n" in str(refused.value)
    assert str(refused.value).endswith("--allow speakers texts")
    with pytest.raises(InputError, match="--allow texts$"):
        check_leaks(found, ["speakers", "copies"])
    assert len(check_leaks(found, ["speakers", "texts"])) == 2
    with pytest.raises(
        InputError, match="allow names 'speaker', which is not a kind of leak: choose from speakers, texts, copies"
    ):
        check_leaks(found, ["speaker"])


def test_timit_leaks_by_its_two_sentences_only(tmp_path: Path) -> None:
    root = timit_like(tmp_path / "timit")
    corpus = listed(read_timit(root), root, "timit")
    texts = texts_of(corpus)
    assert texts["TRAIN/DR1/FTRA0/SA1"] == "sa1 says sh iy m aa"
    for name in ("phonemes", "phones", "mfcc", "sx_si", "label:sex"):
        assert find_leaks(task_of(name, corpus), texts, sha256) == []
    with pytest.warns(FastencodeWarning):
        types = task_of("sentence_type", corpus)
    assert find_leaks(types, texts, sha256) == []
    with pytest.warns(FastencodeWarning):
        published = task_of("phonemes", corpus, split="published")
    allowed = task_of("phonemes", corpus, allow=["texts"])
    assert [(leak.kind, len(leak.what), leak.of) for leak in find_leaks(allowed, texts, sha256)] == [("texts", 2, 11)]
    assert {leak.kind for leak in find_leaks(published, texts, sha256)} == {"speakers", "texts"} == published.allowed


def test_timit_without_texts_goes_by_the_numbers_of_sentences(tmp_path: Path) -> None:
    root = timit_like(tmp_path / "timit", speakers={"TRAIN": 2, "TEST": 1})
    for path in root.rglob("*.TXT"):
        path.unlink()
    assert texts_of(listed(read_timit(root), root, "timit"))["TRAIN/DR1/FTRA0/SA1"] == "sa1"
