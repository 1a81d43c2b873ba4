"""Files that appear whole or not at all, and files that are not there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fastencode.data.textgrid import read_textgrid
from fastencode.errors import InputError
from fastencode.files import check_file, is_unfetched, make_folder, read_json, read_text, whole_file


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


def test_what_was_not_fetched_is_told_from_what_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "größe 1.wav"
    path.symlink_to(path.name)
    with pytest.raises(InputError, match=r"größe 1\.wav \(the sound\) is a link that leads back to itself: delete it"):
        check_file(path, "the sound")
    assert not is_unfetched(path)
    path.unlink()
    for content, words in [
        ("/annex/objects/MD5E-s1--0.wav\n", "holds no content but a pointer to it: run `datalad get .*größe 1.wav`"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "run `git lfs pull --include .*größe 1.wav`"),
    ]:
        path.write_text(content)
        assert is_unfetched(path)
        for read in (check_file, read_text, read_textgrid):
            with pytest.raises(InputError, match=words):
                read(path)
    path.write_text("/annex/objects/" + "x" * 2000)
    assert check_file(path) == path and not is_unfetched(path) and not is_unfetched(tmp_path / "none")
    (tmp_path / "link").symlink_to("nowhere")
    assert is_unfetched(tmp_path / "link")
    with pytest.raises(InputError, match="does not exist"):
        check_file(path / "below a file")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="may not be read: change its permissions"):
        check_file(path)


def test_folders_to_write_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_folder(tmp_path / "a" / "b") == make_folder(tmp_path / "a" / "b") and (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for name, words in (("file", "file is a file: choose another folder"), ("file/a", "a cannot be made")):
        with pytest.raises(InputError, match=words):
            make_folder(tmp_path / name)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="may not be written to"):
        make_folder(tmp_path / "a")


def test_a_full_disk_and_a_folder_in_the_way(tmp_path: Path) -> None:
    def fill() -> None:
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"a\.txt cannot be written \(No space left on device\): make room"):
        fill()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="it is a folder; choose another name"), whole_file(make_folder(tmp_path / "b")):
        pass


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes('{"größe": [1, 2.5, true, null]}'.encode(encoding))
        assert read_json(path) == {"größe": [1, 2.5, True, None]}
    for raw, words in [
        (b"{", "is not valid JSON"),
        (b"", "is empty"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "names 'b' twice: keep one"),
        (b"[" * 100_000, "is not valid JSON"),
    ]:
        path.write_bytes(raw)
        with pytest.raises(InputError, match=words):
            read_json(path)


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
