"""Files that appear whole or not at all, and files that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastencode.data.textgrid import read_textgrid
from fastencode.errors import InputError
from fastencode.files import check_file, whole_file


def test_a_file_appears_whole_and_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for words in ("first", "second"):
        with whole_file(path) as partial:
            partial.write_text(words)
            assert partial.parent == tmp_path and partial != path
        assert path.read_text() == words
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="none is not a folder"), whole_file(tmp_path / "none" / "a.txt"):
        pass


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    assert check_file(str(tmp_path / "file")) == tmp_path / "file"
    for name, words in (("none", "does not exist"), ("link", "run `datalad get .*link`"), ("", "is a folder")):
        for read in (check_file, read_textgrid):
            with pytest.raises(InputError, match=words):
                read(tmp_path / name)
