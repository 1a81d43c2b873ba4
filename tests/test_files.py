"""Files that appear whole or not at all, and files that are not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastencode.data.manifest import read_manifest
from fastencode.data.rois import read_rois
from fastencode.data.textgrid import read_textgrid
from fastencode.errors import InputError
from fastencode.files import check_file, is_unfetched, make_folder, read_json, read_text, whole_file
from fastencode.speech.audio import audio_seconds, read_audio


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


def test_a_link_stays_and_the_file_it_leads_to_is_written(tmp_path: Path) -> None:
    scratch, home = make_folder(tmp_path / "scratch"), make_folder(tmp_path / "home")
    for there_before in (False, True):
        link = home / f"a{there_before}.txt"
        link.symlink_to(Path("..") / "scratch" / "b.txt")
        assert link.exists() == there_before
        with whole_file(link) as partial:
            partial.write_text("new")
            assert partial.parent == scratch and list(home.iterdir()) == [link]
        assert link.is_symlink() and (scratch / "b.txt").read_text() == "new"
        assert not (scratch / "b.txt").is_symlink() and [path.name for path in scratch.iterdir()] == ["b.txt"]
        link.unlink()
    (home / "loop").symlink_to("loop")
    (home / "lost").symlink_to(tmp_path / "none" / "c.txt")
    os.mkfifo(home / "pipe")
    for name, words in [
        ("loop", "loop cannot be written: it is a link that leads back to itself"),
        ("lost", "lost cannot be written: .*none is not a folder"),
        ("pipe", "pipe cannot be written: it is no ordinary file"),
    ]:
        with pytest.raises(InputError, match=words), whole_file(home / name):
            pass


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    path.chmod(mode)
    with whole_file(path) as partial:
        partial.write_text("new")
        assert partial.stat().st_mode & 0o077 == 0, "others may read what is being written"
    assert path.stat().st_mode & 0o777 == mode and path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_of_a_new_file_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


WRITES_UNTIL_KILLED = """
import sys, time
from fastencode.files import whole_file
with whole_file(sys.argv[1]) as partial:
    partial.write_text("half")
    print("half", flush=True)
    time.sleep(100)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path: Path) -> None:
    path, other = tmp_path / "a[1].txt", tmp_path / ".a[1].txt.notes.partial"
    other.write_text("not one of ours")
    command = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as killed,
        subprocess.Popen(command, stdout=subprocess.PIPE) as running,
    ):
        try:
            for process in (killed, running):
                assert process.stdout is not None and process.stdout.readline() == b"half\n"
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            assert len(list(tmp_path.iterdir())) == 3  # theirs and what is not ours
            with whole_file(path) as partial:
                partial.write_text("new")
            left = {item.name for item in tmp_path.iterdir()} - {path.name, other.name}
            assert len(left) == 1 and f".{running.pid}." in left.pop()
        finally:
            running.kill()
    with whole_file(path) as partial:  # both have ended
        partial.write_text("newer")
    assert {item.name for item in tmp_path.iterdir()} == {path.name, other.name}


def test_bytes_are_on_the_disk_before_the_file_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = tmp_path / "a.txt", []
    sync, replace = os.fsync, os.replace

    def note_sync(opened: int) -> None:
        told.append(("on disk", os.fstat(opened).st_ino))
        sync(opened)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", lambda source, target: told.append(("renamed", 0)) or replace(source, target))
    with whole_file(path) as partial:
        partial.write_text("new")
    assert told == [("on disk", path.stat().st_ino), ("renamed", 0), ("on disk", tmp_path.stat().st_ino)]
    monkeypatch.setattr(os, "fsync", lambda opened: (_ for _ in ()).throw(OSError(errno.EINVAL, "no fsync here")))
    with whole_file(path) as partial:
        partial.write_text("newer")
    assert path.read_text() == "newer"
    monkeypatch.setattr(os, "fsync", lambda opened: (_ for _ in ()).throw(OSError(errno.EDQUOT, "Disk quota exceeded")))
    with pytest.raises(InputError, match="Disk quota exceeded"), whole_file(path) as partial:
        partial.write_text("newest")
    assert path.read_text() == "newer" and list(tmp_path.iterdir()) == [path]


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
        ("/annex/objects/MD5E-s1--0.wav", "a pointer to it: run `datalad get .*` .or `git annex get .*größe 1.wav`"),
        ("../../.git/annex/objects/aa/bb/MD5E-s1--0.wav/MD5E-s1--0.wav", "a link of git-annex, written as text .*`datalad get"),
        (".git/annex/objects/aa/bb/MD5E-s1--0/MD5E-s1--0\n", "a link of git-annex, written as text"),
        ("..\\.git\\annex\\objects\\aa\\bb\\MD5E-s1--0\r\n", "a link of git-annex, written as text"),
        ("../.git/modules/sub-01/annex/objects/aa/MD5E-s1--0", "a link of git-annex, written as text"),
        ("/data/ds/.git/annex/objects/aa/MD5E-s1--0", "a link of git-annex, written as text"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "run `git lfs pull --include .*größe 1.wav`"),
    ]:
        path.write_text(content)
        assert is_unfetched(path)
        for read in (check_file, read_text, read_textgrid):
            with pytest.raises(InputError, match=words):
                read(path)
    for content in ("see ../../.git/annex/objects/aa\nand more\n", "annex/objects/aa", "../objects/aa", ""):
        path.write_text(content)
        assert not is_unfetched(path) and check_file(path) == path
    path.write_text("/annex/objects/" + "x" * 2000)
    assert check_file(path) == path and not is_unfetched(path) and not is_unfetched(tmp_path / "none")
    (tmp_path / "link").symlink_to("nowhere")
    assert is_unfetched(tmp_path / "link")
    with pytest.raises(InputError, match="does not exist"):
        check_file(path / "below a file")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="may not be read: change its permissions"):
        check_file(path)


@pytest.mark.parametrize("name", ["a.wav", "a.TextGrid", "a.json", "a.csv", "a.nii.gz", "a.func.gii", "a.npy", "a.mp3"])
@pytest.mark.parametrize(
    "pointer", ["../../.git/annex/objects/a/b/K/K", "/annex/objects/K\n", "version https://git-lfs.example/v1\n"]
)
def test_every_reader_tells_a_pointer_from_damage(tmp_path: Path, name: str, pointer: str) -> None:
    path = tmp_path / name
    path.write_text(pointer)
    kinds: dict[str, Callable[[Path], object]] = {
        ".wav": read_audio,
        ".mp3": audio_seconds,
        ".TextGrid": read_textgrid,
        ".json": read_json,
        ".csv": read_manifest,
    }
    with pytest.raises(InputError, match=rf"{name} holds no content but a .*run `(datalad get|git lfs pull --include) .*{name}`"):
        kinds.get(path.suffix, read_rois)(path)


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
