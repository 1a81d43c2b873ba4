"""Many recordings read by one command: how they are called, and one that cannot be read among others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastencode.cli import main
from fastencode.errors import DiskError, FailedStages, InputError
from fastencode.files import put_in_place
from fastencode.runs.features import find_sounds, read_recordings
from fastencode.speech import store
from fastencode.speech.audio import write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.speech.store import read_features
from speech_cases import saved_model

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
for library in ("transformers", "soundfile", "soxr", "jsonargparse"):
    pytest.importorskip(library, reason="recordings need the extra 'tune'")

torch.set_num_threads(1)

RATE, CLIP = 16000, ReadConfig(input="clip", tr=0.5, seconds=0.8, bin=0.2)


def write(path: Path, seconds: float = 1.2, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    sound = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    write_audio(path, (0.1 * sound).clip(-1, 1), RATE)
    return path


def cut(path: Path) -> Path:
    """A FLAC whose header is whole and whose sound ends in the middle: what is wrong shows when it is decoded."""
    import soundfile

    soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(4 * RATE).clip(-5, 5), RATE)
    path.write_bytes(path.read_bytes()[:20_000])
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model", "hubert")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six recordings, of which four can be read: no sound at all, and sound that ends in the middle, stand among them."""
    sounds = tmp_path / "sounds"
    for seed, name in enumerate("aceg"):
        write(sounds / f"{name}.wav", seed=seed)
    (sounds / "b.wav").write_text("no sound")
    cut(sounds / "d.flac")
    return sounds


def test_small_is_the_model_that_ships(tmp_path: Path) -> None:
    sound = write(tmp_path / "sound.wav", seconds=4)
    assert main(["features", "--audio", str(sound), "--model", "small", "--out", str(tmp_path / "out")]) == 0
    assert read_features(tmp_path / "out" / "sound.h5").key["model"] == SpeechEncoder(SMALL_MODEL).hash()


def test_one_bad_recording_does_not_stop_the_others(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ["features", "--audio", str(folder), "--model", str(model), "--out", str(out), "--read.tr", "0.5"]
    given += ["--read.seconds", "0.8", "--read.bin", "0.2"]
    assert main([*given, "--dry-run"]) == 1
    told = capsys.readouterr()
    assert "6 recordings, 5 of them not read yet" in told.out, "a header does not say that the sound ends early"
    assert "1 of 6 recordings cannot be read\n  b: " in told.err and not out.exists()
    assert main(given) == 1
    told = capsys.readouterr()
    assert "2 of 6 recordings cannot be read\n  b: " in told.err and "b.wav cannot be decoded" in told.err
    assert "\n  d: " in told.err and "d.flac" in told.err and "give the same command again" in told.err
    assert "b: failed, " in told.out and "Traceback" not in told.err
    encoder = SpeechEncoder(model)
    for name in "aceg":
        alone = extract_features({name: folder / f"{name}.wav"}, encoder, tmp_path / "alone", CLIP, show_progress=False)[name]
        np.testing.assert_array_equal(read_features(out / f"{name}.h5").values, read_features(alone).values)
    assert sorted(path.name for path in out.glob("*.h5")) == [f"{name}.h5" for name in "aceg"]
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    write(folder / "b.wav", seed=8)
    (folder / "d.flac").unlink()
    assert main(given) == 0 and "5 files of features are in" in capsys.readouterr().out
    told = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert told["model"] == {"name": str(model), "sha256": encoder.hash()} and "torch" in told["versions"]
    assert main(["features", "--config", str(out / "config.yaml")]) == 0
    assert {name: (out / name).stat().st_mtime_ns for name in made} == made, "finished ones stay"


def test_where_nothing_can_be_read_one_error_says_why(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["features", "--audio", str(folder / "b.wav"), "--model", str(model), "--out", str(tmp_path / "out")]
    for more in ([], ["--dry-run"]):
        assert main([*given, *more]) == 2
        told = capsys.readouterr().err
        assert "b.wav cannot be decoded" in told and "recordings cannot be read" not in told and not (tmp_path / "out").exists()


def test_where_none_can_be_read_all_are_listed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("b.wav", "e.wav"):
        (bad / name).write_text("no sound")
    for more in ([], ["--dry-run"]):
        assert main(["features", "--audio", str(bad), "--model", str(model), "--out", str(tmp_path / "out"), *more]) == 2
        told = capsys.readouterr().err
        assert "fastencode-tune: none of 2 recordings can be read\n  b: " in told and "\n  e: " in told
        assert "e.wav cannot be decoded" in told and told.endswith("give others, or these in another format\n")
        assert not (tmp_path / "out").exists()


def test_a_full_disk_stops_all(folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next recording would fail as well; those before are finished."""

    def full(partial: Path, target: Path) -> None:
        if target.name == "c.h5":
            raise DiskError("the disk is full")
        put_in_place(partial, target)

    monkeypatch.setattr(store, "put_in_place", full)
    with pytest.raises(DiskError, match="the disk is full"):
        read_recordings(find_sounds(folder), SpeechEncoder(model), tmp_path / "out", CLIP)
    assert [path.name for path in (tmp_path / "out").glob("*.h5")] == ["a.h5"]


def test_features_of_something_else_are_listed_beside_what_was_read(folder: Path, model: Path, tmp_path: Path) -> None:
    """Another sound of the same name: its features are not written over, and the other recordings are read."""
    (folder / "b.wav").unlink()
    (folder / "d.flac").unlink()
    encoder, out = SpeechEncoder(model), tmp_path / "out"
    before = read_recordings({"e": folder / "e.wav"}, encoder, out, CLIP)["e"].read_bytes()
    write(folder / "e.wav", seed=9)
    with pytest.raises(FailedStages, match=r"1 of 4 recordings cannot be read\n  e: .*was made with audio="):
        read_recordings(find_sounds(folder), encoder, out, CLIP)
    assert (out / "e.h5").read_bytes() == before and {path.stem for path in out.glob("*.h5")} == set("aceg")


def test_sounds_are_found_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    one, two = write(folder / "one.wav"), write(folder / "two.wav")
    (folder / "notes.txt").write_text("")
    (folder / "._one.wav").write_bytes(b"Mac OS X")
    assert find_sounds(folder) == {"one": one, "two": two} and find_sounds(one) == {"one": one}
    listed = tmp_path / "list.csv"
    listed.write_text("audio,speaker,split\nsounds/two.wav,x,dev\nsounds/one.wav,,\n")
    assert find_sounds(listed) == {"two": two, "one": one}, "speakers and splits do not matter here"
    (folder / "one.FLAC").write_bytes(b"")
    with pytest.raises(InputError, match="have the same key, 'one': remove one of them"):
        find_sounds(folder)
    with pytest.raises(InputError, match=r"none\.wav does not exist"):
        find_sounds(tmp_path / "none.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no audio files"):
        find_sounds(tmp_path / "empty")


def test_recordings_of_one_name_in_two_folders(model: Path, tmp_path: Path) -> None:
    """As in Speech Commands: the names begin with the folders that differ, and so do the files of features."""
    sounds = {
        f"{word}/{take}": write(tmp_path / word / f"{take}.wav", seed=k)
        for k, (word, take) in enumerate((("yes", "01"), ("no", "01"), ("no", "02")))
    }
    listed = tmp_path / "list.csv"
    listed.write_text("audio\n" + "".join(f"{name}.wav\n" for name in sounds))
    assert find_sounds(listed) == sounds
    paths = read_recordings(sounds, SpeechEncoder(model), tmp_path / "out", CLIP)
    assert paths == {name: tmp_path / "out" / f"{name}.h5" for name in sounds}
    first, second = (read_features(paths[name]).values for name in ("yes/01", "no/01"))
    assert np.abs(first - second).max() > 1e-3
    (tmp_path / "all").mkdir()
    for word in ("yes", "no"):
        (tmp_path / word).rename(tmp_path / "all" / word)
    assert list(find_sounds(tmp_path / "all")) == ["no/01", "no/02", "yes/01"], "folders are searched through"
    listed.write_text("audio\nall/yes/01.wav\nall/no/02.wav\n")
    assert list(find_sounds(listed)) == ["01", "02"]
