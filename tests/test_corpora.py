"""Corpora in their layouts: which recordings there are, under which names, and what is said of those that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.corpora import open_corpus
from fastencode.data.recordings import Recording
from fastencode.errors import FastencodeWarning, InputError
from reader_cases import COMMANDS, SENTENCES, TIMIT, commands_tree, timit_tree, tone

soundfile = pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")


def write(path: Path, hertz: float = 300.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(800, hertz), 16000)
    return path


@pytest.mark.parametrize("upper", [True, False], ids=["upper case", "lower case"])
def test_timit_has_the_same_keys_in_any_case(tmp_path: Path, upper: bool) -> None:
    root = timit_tree(tmp_path / "timit", upper=upper)
    corpus = open_corpus(root)
    wanted = {
        f"{split}/{region}/{speaker}/{sentence}"
        for (split, region), names in TIMIT.items()
        for speaker in names
        for sentence in SENTENCES
    }
    assert (corpus.kind, corpus.name, corpus.root) == ("timit", "timit", root)
    assert set(corpus.recordings) == wanted and len(corpus.recordings) == 20
    one = corpus.recordings["TRAIN/DR1/FCJF0/SX39"]
    assert (one.speaker, one.split, one.labels["type"]) == ("FCJF0", "train", "SX")
    assert corpus.sounds["TRAIN/DR1/FCJF0/SX39"] == root / ("TRAIN/DR1/FCJF0/SX39.WAV" if upper else "train/dr1/fcjf0/sx39.wav")


def test_twins_of_timit_are_one_recording(tmp_path: Path) -> None:
    root = timit_tree(tmp_path / "timit")
    expected = open_corpus(root)
    for path in list(root.rglob("*.WAV")):
        write(path.with_name(f"{path.name}.wav"), 900)
    assert open_corpus(root) == expected
    for path in list(root.rglob("*.WAV")):
        path.unlink()
    copies = open_corpus(root)
    assert copies.recordings.keys() == expected.recordings.keys()
    assert copies.sounds["TEST/DR1/FAKS0/SA1"].name == "SA1.WAV.wav"


def test_the_core_test_set(tmp_path: Path) -> None:
    root = timit_tree(tmp_path / "timit")
    with pytest.warns(FastencodeWarning, match="23 of the core test set's 24 speakers"):
        core = open_corpus(root, split="core")
    assert [key for key in core.recordings if key.startswith("TEST")] == [
        f"TEST/DR1/MDAB0/{sentence}" for sentence in ("SI1411", "SX39", "SX129")
    ]


def test_speech_commands(tmp_path: Path) -> None:
    root = commands_tree(tmp_path / "speech_commands_v0.02")
    corpus = open_corpus(root)
    assert (corpus.kind, corpus.name) == ("commands", "speech_commands_v0.02")
    assert set(corpus.recordings) == {f"{word}/{name}" for word, names in COMMANDS.items() for name in names}
    assert corpus.recordings["yes/ffd2ba2f_nohash_0"].split == "test"
    assert corpus.sounds["no/0a7c2a8d_nohash_0"] != corpus.sounds["yes/0a7c2a8d_nohash_0"], "equal names in two folders"
    assert {key.split("/")[0] for key in open_corpus(root, words=["no"]).recordings} == {"no"}
    (root / "testing_list.txt").unlink()
    with pytest.raises(InputError, match=r"testing_list\.txt is missing"):
        open_corpus(root)


def test_a_folder_is_searched_through(tmp_path: Path) -> None:
    root = tmp_path / "talks"
    wanted = {name: write(root / f"{name}.wav") for name in ("01", "b/01", "b/c/01", "b/c/x.y")}
    write(root / ".hidden" / "02.wav")
    write(root / "b" / "._01.wav")
    (root / "notes.txt").write_text("no sound")
    corpus = open_corpus(root)
    assert corpus.kind == "folder" and corpus.sounds == wanted
    assert corpus.recordings["b/01"] == Recording(root / "b" / "01.wav")
    assert open_corpus(root / "b" / "01.wav").sounds == {"01": root / "b" / "01.wav"}
    shutil.copy(root / "b" / "01.wav", root / "b" / "01.FLAC")
    with pytest.raises(InputError, match=r"01\.wav and .*01\.FLAC have the same key, 'b/01': remove one"):
        open_corpus(root)


def test_a_manifest(tmp_path: Path) -> None:
    for name in ("a/01", "b/01", "b/02"):
        write(tmp_path / f"{name}.wav")
    table = tmp_path / "list.csv"
    table.write_text("audio,emotion,speaker,split\na/01.wav,joy,s1,train\nb/01.wav,grief,s2,test\nb/02.wav,,s2,test\n")
    corpus = open_corpus(table)
    assert (corpus.kind, corpus.name, list(corpus.recordings)) == ("manifest", "list", ["a/01", "b/01", "b/02"])
    assert corpus.recordings["a/01"] == Recording(tmp_path / "a" / "01.wav", {"emotion": "joy"}, "s1", "train")
    assert corpus.recordings["b/02"].labels == {}
    table.write_text("audio,who\na/01.wav,s1\n")
    assert open_corpus(table).recordings["a/01"] == Recording(tmp_path / "a" / "01.wav", {"who": "s1"})
    table.write_text("audio,speaker\na/01.wav,s1\nb/01.wav,\n")
    with pytest.raises(InputError, match="line 3: 'speaker' is empty"):
        open_corpus(table)
    elsewhere = tmp_path / "lists" / "list.jsonl"
    elsewhere.parent.mkdir()
    elsewhere.write_text(f'{{"audio": "../a/01.wav"}}\n{{"audio": "{tmp_path}/b/01.wav"}}\n')
    assert list(open_corpus(elsewhere).recordings) == ["a/01", "b/01"], "below the folder that holds all"


def test_what_is_no_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write(tmp_path / "sounds" / "a.wav")
    (tmp_path / "train" / "yes").mkdir(parents=True)
    write(tmp_path / "train" / "yes" / "a.wav")
    assert open_corpus(tmp_path).kind == "folder", "a folder called train makes no TIMIT"
    for path, options, said in (
        (folder, {}, "holds no audio files"),
        (tmp_path / "none", {}, "none does not exist"),
        (folder, {"kind": "comands"}, "kind='comands': did you mean commands"),
        (folder, {"kind": "zzz"}, "kind='zzz': choose from auto, timit"),
        (folder, {"kind": "timit"}, "holds neither TRAIN nor TEST"),
        (folder, {"kind": "manifest"}, "is a folder: give the manifest"),
        (tmp_path / "sounds", {"words": ["yes"]}, "words=.* of kind 'folder'"),
        (tmp_path / "sounds", {"split": "core"}, "split='core' is TIMIT's"),
        (tmp_path / "sounds", {"split": "own"}, "split='own': choose"),
    ):
        with pytest.raises(InputError, match=said):
            open_corpus(path, **options)


def test_keys_say_nothing_of_where_a_corpus_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one" / "x" / "a.wav")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    monkeypatch.chdir(tmp_path / "one")
    here = open_corpus(".")
    assert here.name == "one" and list(here.recordings) == list(open_corpus(tmp_path / "two").recordings) == ["x/a"]
    assert np.array_equal(here.recordings["x/a"].audio(), open_corpus(tmp_path / "two").recordings["x/a"].audio())
