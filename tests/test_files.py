"""Files that appear whole or not at all, and files that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastencode.data.textgrid import read_textgrid
from fastencode.errors import InputError
from fastencode.files import check_file, read_text, whole_file


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_in_its_encodings(tmp_path: Path, encoding: str) -> None:
    text = "word, größer\r\n你好\n"
    (tmp_path / "a").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a") == text


def test_text_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for raw, words in [
        (b" \r\n", "is empty"),
        (b"good\nb\xe4d\n", "is not UTF-8: see line 2, byte 6 of the file; save it as UTF-8"),
        ("word".encode("utf-16")[:-1], "is not UTF-16: see line 1"),
        ("word".encode("utf-16-be")[:-1], "is not UTF-16-BE: see line 1"),
    ]:
        path.write_bytes(raw)
        with pytest.raises(InputError, match=words):
            read_text(path)
    with pytest.raises(InputError, match="is a folder"):
        read_text(tmp_path)
