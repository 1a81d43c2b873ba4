"""What people get wrong with a run, and that nothing is lost by it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

from fastencode.cli import main
from fastencode.errors import DiskError, FailedStages, FastencodeError, FastencodeWarning, InputError
from fastencode.runs import training
from fastencode.runs.config import LessonsConfig
from fastencode.runs.training import say_cost
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune import prepare
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.record import Record
from fastencode.tune.trainer import brain_tune
from fastencode.tune.training import Training
from speech_cases import saved_model
from tune_cases import Tones

SHORT = TuneConfig(epochs=1, clip_seconds=2.0, save_minutes=1e-6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), "wav2vec2", strides=(5, 8, 8))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tones:
    """What the command reads, in whichever folder."""
    made = Tones(tmp_path / "data")
    made.test_story = "watched"
    monkeypatch.setattr(training, "open_data", lambda *_, **__: made)
    return made


def tuned(model: Path, data: Tones, out: Path, config: TuneConfig = SHORT, **more: Any) -> Path:
    return brain_tune(SpeechEncoder(model), data, config, out, show_progress=False, **more)


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def stop(model: Path, data: Tones, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped before its first update, after its first state."""
    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            tuned(model, data, out)


def test_a_run_that_learned_nothing_leaves_the_folder_free(model: Path, data: Tones, tmp_path: Path) -> None:
    out, wrong = tmp_path / "run", replace(SHORT, trained="lora", lora=LoraConfig(targets=("nothing",)))
    with pytest.raises(InputError, match=r"no linear map 'nothing': choose of k_proj"):
        tuned(model, data, out, wrong)
    (out / "cache" / "sounds").mkdir(parents=True)
    np.save(out / "cache" / "sounds" / "one.npy", np.zeros(10, np.float32))  # of a recording that was another one then
    (out / "config.yaml").write_text("trained: lora\n")
    tuned(model, data, out)
    assert "trained: full" in (out / "config.yaml").read_text()
    assert Record.read(out).end and (out / "model").is_dir()
    with pytest.raises(InputError, match=r"settings\.trained was full, now lora"):
        tuned(model, data, out, wrong)


def test_a_run_that_learned_something_is_kept(model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other settings are refused after one state, without any state but with updates in the log, and at the end."""
    out, other = tmp_path / "run", replace(SHORT, seed=1)
    stop(model, data, out, monkeypatch)
    files = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    with pytest.raises(InputError, match=r"settings\.seed was 0, now 1"):
        tuned(model, data, out, other)
    assert files and files == {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    for path in (out / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    (out / "log.jsonl").write_text('{"kind": "update"}\n')
    with pytest.raises(InputError, match=r"settings\.seed was 0, now 1"):
        tuned(model, data, out, other)


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "cache", "curves.png", "tensorboard"])
def test_files_of_something_else_stay(name: str, model: Path, data: Tones, tmp_path: Path) -> None:
    """The end of a run would write over them, or remove them."""
    out = tmp_path / "project"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds {name} of something else, and no run.json: choose another folder"):
        tuned(model, data, out)
    assert [path.name for path in out.iterdir() if path.name != ".run.lock"] == [name]


def test_a_file_is_no_folder_of_a_run(model: Path, data: Tones, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="run is a file: choose another folder"):
        tuned(model, data, tmp_path / "run")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run\.json is not that of a run: choose another folder"):
        tuned(model, data, tmp_path / "list")


def test_models_may_be_read_by_whom_other_files_may(model: Path, data: Tones, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        out = tuned(model, data, tmp_path / "run")
    finally:
        os.umask(before)
    found = {stat.S_IMODE(path.stat().st_mode) for path in (*out.glob("model/*"), *out.glob("heads/*"))}
    assert found == {0o640}


def test_wrong_responses_are_found_before_the_frames_of_the_cnn(
    model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(data.folder / "B-one.npy", data.responses("B", "one")[:-1])
    monkeypatch.setattr(prepare, "_clips", lambda *_: pytest.fail("the CNN was run"))
    with pytest.raises(InputError, match="B has 19 rows of responses to one, expected 20"):
        tuned(model, data, tmp_path / "run")


def test_a_dry_run_reads_all_responses(model: Path, data: Tones, tmp_path: Path) -> None:
    np.save(data.folder / "A-two.npy", data.responses("A", "two") * np.nan)
    np.save(data.folder / "B-one.npy", data.responses("B", "one")[:-1])
    out = tmp_path / "run"
    with pytest.raises(InputError, match=r"(?s)A has no finite response to two.*B has 19 rows of responses to one"):
        say_cost(LessonsConfig(Path("d"), ceiling=-1, test_story="watched"), SHORT, str(model), out, each=False, device="cpu")
    assert not out.exists()


def test_each_goes_on_with_the_others(
    model: Path, data: Tones, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = data.responses("A", "one")
    np.save(data.folder / "A-one.npy", good[:-1])
    out = tmp_path / "runs"
    typed = f"train --stories d --model {model} --ceiling -1 --epochs 1 --clip-seconds 2 --test-story watched --each --out {out}"
    assert main(typed.split()) == 1
    said = capsys.readouterr().err
    assert "1 of 2 participants failed" in said and "- A: A has 19 rows of responses to one, expected 20" in said
    assert Record.read(out / "B").end and (out / "B" / "config.yaml").read_text().count("each: false") == 1
    made = (out / "B" / "run.json").stat().st_mtime_ns
    np.save(data.folder / "A-one.npy", good)
    assert main(typed.split()) == 0
    assert Record.read(out / "A").end and (out / "B" / "run.json").stat().st_mtime_ns == made
    assert main([*typed.split()[:-1], str(out / "other"), "--head-layer", "9"]) == 2, "one mistake of all"
    assert "--head-layer=9" in capsys.readouterr().err
    monkeypatch.setattr(training, "tune_lessons", lambda *_, desc, **__: (_ for _ in ()).throw(FastencodeError(desc)))
    with pytest.raises(FailedStages, match="2 of 2 participants failed"):
        training.train(LessonsConfig(Path("d"), ceiling=-1, test_story="watched"), SHORT, str(model), out / "third", each=True)


def test_the_settings_are_there_from_the_beginning(
    model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So --config goes on with a run that was stopped, and diagnose knows its repetition time; a refused run changes nothing."""
    out = tmp_path / "run"
    typed = f"train --stories d --model {model} --ceiling -1 --epochs 1 --clip-seconds 2 --test-story watched --out {out}".split()
    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", stopped)
        assert main(typed) == 130
    config = (out / "config.yaml").read_text()
    assert "stories: d" in config and "test_story: watched" in config
    assert main([*typed, "--seed", "1"]) == 2
    assert (out / "config.yaml").read_text() == config
    assert main(["train", "--config", str(out / "config.yaml")]) == 0
    assert Record.read(out).end


def test_a_test_story_that_nobody_heard(model: Path, data: Tones) -> None:
    data.test_story = "wacthed"
    with pytest.warns(FastencodeWarning, match="nobody heard the test story 'wacthed', so one, two, watched are learned from"):
        training.prepare_lessons(LessonsConfig(Path("d"), ceiling=-1, test_story="wacthed"))


def test_weights_that_are_not_finite_are_not_published(model: Path, data: Tones, tmp_path: Path) -> None:
    """The only update: its loss is finite, and the weights after it are not."""
    out, config = tmp_path / "run", replace(SHORT, batch=64, head_learning_rate=1e39, schedule="constant", warm_up=0.0)
    said = r"weights are not finite after epoch 1: lower .* head_learning_rate \(1e\+39\) and tune into another folder"
    with pytest.raises(FastencodeError, match=said):
        tuned(model, data, out, config)
    assert not (out / "model").exists() and not json.loads((out / "run.json").read_text())["finished"]


def test_a_full_disk(model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may grow beyond a size: at first that of run.json, then that of a state, whose files safetensors writes."""
    out = tmp_path / "run"
    for name, size in (("run.json", 1000), ("checkpoints/state-0", 10000)):
        if name != "run.json":
            stop(model, data, out, monkeypatch)  # all that is cached is there
            shutil.rmtree(out / "checkpoints")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(DiskError, match=rf"{name}.* cannot be written \(File too large\): make room"):
                tuned(model, data, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(out.rglob("*.partial"))
    tuned(model, data, out)
    assert Record.read(out).end


def test_what_cannot_be_diagnosed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run before its first state, and damaged files, are named."""
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="has not begun to learn"):
        Record.read(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "A.safetensors").write_text("x")
    with pytest.raises(InputError, match=r"A\.safetensors is damaged .*: copy it again"):
        _ = Record.read(tmp_path).voxels
    for text, told in (('{"a": [1,', "is not YAML"), ("- a", "is no table of settings")):
        (tmp_path / "config.yaml").write_text(text)
        assert main(["diagnose", str(tmp_path), "--stories", str(tmp_path)]) == 2
        assert f"config.yaml {told}: correct it, or remove it" in capsys.readouterr().err


def test_epochs_to_keep_beyond_the_last() -> None:
    with pytest.raises(
        InputError, match=r"keep names epoch 2, but there are epochs 0 .* to 1: name others, or \[\] to keep none"
    ):
        TuneConfig(epochs=1, keep=(2,))
