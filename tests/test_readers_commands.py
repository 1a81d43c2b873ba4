"""Speech Commands: the official splits on a small tree, and each kind of damage with its own message."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.commands import read_commands
from fastencode.errors import FastencodeWarning, InputError
from reader_cases import COMMANDS, LISTED, commands_tree, tone

pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return commands_tree(tmp_path / "speech_commands_v0.02")


def test_a_tree(tree: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recordings = read_commands(tree)
    files = {f"{r.labels['word']}/{r.path.name}": r for r in recordings}
    assert list(files) == sorted(f"{word}/{name}.wav" for word, names in COMMANDS.items() for name in names)
    of_speaker = {LISTED["validation_list.txt"]: "validation", LISTED["testing_list.txt"]: "test"}
    for name, recording in files.items():
        assert recording.path == tree / name
        assert recording.speaker == name.split("/")[1][:8]
        assert recording.split == of_speaker.get(recording.speaker, "train")
    assert {r.split for r in recordings} == {"train", "validation", "test"}
    np.testing.assert_allclose(recordings[0].audio(), tone(1600), atol=1e-4)


def test_some_words(tree: Path) -> None:
    assert read_commands(tree, words={"yes", "tree"}) == [r for r in read_commands(tree) if r.labels["word"] != "no"]
    assert {r.labels["word"] for r in read_commands(tree, words="no")} == {"no"}
    with pytest.raises(InputError, match=r"has no folder for \['maybe'\]: the words are \['no', 'tree', 'yes'\]"):
        read_commands(tree, words=["yes", "maybe"])


def test_what_macs_leave_beside_files_is_none(tree: Path) -> None:
    expected = read_commands(tree)
    (tree / "yes" / "._1b4c9b89_nohash_0.wav").write_bytes(b"Mac OS X")
    assert read_commands(tree) == expected


def test_lists_of_every_line_end(tree: Path) -> None:
    expected = read_commands(tree)
    for name in LISTED:
        (tree / name).write_bytes((tree / name).read_bytes().replace(b"\n", b"\r\n\r\n").rstrip())
    assert read_commands(tree) == expected


def test_listed_files_must_be_there(tree: Path) -> None:
    (tree / "yes" / "1b4c9b89_nohash_0.wav").unlink()
    message = r"1 of 3 files that .*validation_list\.txt lists are missing, the first 'yes/1b4c9b89_nohash_0\.wav' on line 1:"
    with pytest.raises(InputError, match=message):
        read_commands(tree)
    assert len(read_commands(tree, words=["no", "tree"])) == 6
    (tree / "yes" / "ffd2ba2f_nohash_0.wav").unlink()
    (tree / "validation_list.txt").write_text("no/1b4c9b89_nohash_0.wav\n")
    with pytest.raises(InputError, match=r"1 of 2 files that .*testing_list\.txt lists are missing"):
        read_commands(tree)
    (tree / "testing_list.txt").write_text("ffd2ba2f_nohash_0.wav\n")  # no word
    with pytest.raises(InputError, match="the first 'ffd2ba2f_nohash_0.wav' on line 1"):
        read_commands(tree)


def test_damaged_trees(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        read_commands(tmp_path / "nowhere")
    (tmp_path / "empty" / "yes").mkdir(parents=True)
    for root in (tmp_path / "empty", tmp_path):
        with pytest.raises(InputError, match=r"holds no <word>/\*\.wav: give the folder of Speech Commands, unpacked"):
            read_commands(root)
    odd = tree / "no" / "no_thanks.wav"
    odd.touch()
    with pytest.raises(InputError, match=r"1 of 11 files in .* are not named .*, the first no/no_thanks\.wav: who speaks is not"):
        read_commands(tree)
    odd.unlink()
    listed = tree / "validation_list.txt"
    with listed.open("a") as file:
        file.write("no/ffd2ba2f_nohash_0.wav\n")
    with pytest.raises(InputError, match=r"1 files are in both lists of .*, the first no/ffd2ba2f_nohash_0\.wav"):
        read_commands(tree)
    listed.write_bytes(b"no/\xff.wav\n")
    with pytest.raises(InputError, match=r"validation_list\.txt is not UTF-8: see line 1"):
        read_commands(tree)
    listed.unlink()
    with pytest.raises(InputError, match=r"validation_list\.txt is missing: it belongs to the data set"):
        read_commands(tree)
    listed.symlink_to("gone")
    with pytest.raises(InputError, match="datalad get"):
        read_commands(tree)


def test_a_speaker_in_two_splits(tree: Path) -> None:
    (tree / "testing_list.txt").write_text("no/ffd2ba2f_nohash_0.wav\n")
    message = "1 of 4 speakers stand in several splits, for example 'ffd2ba2f' in train and test"
    with pytest.warns(FastencodeWarning, match=message):
        read_commands(tree)
