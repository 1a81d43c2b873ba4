"""Runs that stop and go on, with every setting that keeps something of its own; all that decides a run is in run.json."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch

from fastencode.data.textgrid import Interval
from fastencode.errors import FastencodeError, InputError
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_frames
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune import trainer, training
from fastencode.tune.checkpoint import RunFolder
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons
from fastencode.tune.log import read_log
from fastencode.tune.processes import Processes
from fastencode.tune.trainer import brain_tune, tune_lessons
from speech_cases import saved_model
from tune_cases import Tones

torch.set_num_threads(1)

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTINGS: dict[str, Any] = {"epochs": 2, "batch": 8, "learning_rate": 3e-3, "clip_seconds": 2.0, "log_every": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), "wav2vec2", strides=(5, 8, 8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Tones:
    return Tones(tmp_path_factory.mktemp("tones"), people={"A": 3, "B": 3})


def tuned(model: Path, data: Tones, out: Path, *, more: dict[str, Any] | None = None, **settings: Any) -> Path:
    named = {"validation": ["watched"], "show_progress": False, **(more or {})}
    return brain_tune(SpeechEncoder(model), data, TuneConfig(**{**SETTINGS, **settings}), out, **named)


def files(out: Path) -> dict[str, Any]:
    """All that decides what a run left, without times."""
    skipped = ("log.jsonl", ".run.lock", "run.json", "state.json", "config.yaml")
    found: dict[str, Any] = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in skipped and "cache" not in path.parts
    }
    return {**found, "log": [{**row, "time": None} for row in read_log(out / "log.jsonl")]}


class Stopped(BaseException):
    """As a kill: nothing catches it."""


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, count: int) -> None:
    before, left = getattr(owner, name), [count]

    def counted(*rest: Any, **more: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise Stopped
        return before(*rest, **more)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    "settings",
    [
        {"fused_head_step": True, "save_minutes": 1e-6},
        {"fused_head_step": True, "own_weight": 0.1, "word_weight": 1.0, "words": 2, "train_mode": True, "save_minutes": 1e-6},
        {"own_weight": 0.1, "accumulate": 2, "clip_norm": 0.5, "batch": 4, "save_minutes": 1e-6},
        {"word_weight": 1.0, "words": 2, "order": "story", "precision": "bfloat16", "save_minutes": 1e-6},
        {"head": "delays", "order": "contiguous", "loss": "spatial_r", "bottleneck": 2, "save_minutes": 1e-6},
        {"shared_head": True, "patience": 1, "schedule": "constant", "head_learning_rate": 0.3, "epochs": 6, "keep": (0, 1)},
        {"keep": (0, 1, 2), "save_total_limit": 1, "unfreeze": ("cnn",), "checkpointing": True, "save_minutes": 1e-6},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_runs_that_stop_three_times_end_alike(model: Path, data: Tones, tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = tuned(model, data, tmp_path / "whole", **settings)
    for place in [("update", 4), ("_save", 2), ("_validate", 1)]:
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, training.Training, *place)
            with pytest.raises(Stopped):
                tuned(model, data, tmp_path / "run", **settings)
    found, wanted = files(tuned(model, data, tmp_path / "run", **settings)), files(whole)
    assert set(found) == set(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_a_state_that_was_being_replaced_is_found_again(tmp_path: Path) -> None:
    """A kill between the two renames."""
    identity = {"settings": {"epochs": 2}}
    with RunFolder(tmp_path / "run", identity) as run:
        (tmp_path / "run" / "checkpoints" / ".state-5.old").mkdir(parents=True)
        assert not run.has_state
    with RunFolder(tmp_path / "run", identity) as run:
        assert run.has_state
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["state-5"]


def test_a_fused_step_keeps_the_last_state_whose_loss_is_finite(model: Path, data: Tones, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e30, "head_learning_rate": 1e30, "fused_head_step": True, "save_minutes": 1e-6}
    with pytest.raises(FastencodeError, match="not finite in epoch 1"):
        tuned(model, data, tmp_path / "run", **settings)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("state-*")] == ["state-0"]


def test_weights_that_are_not_finite_replace_no_state(
    model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without validation, the loss of the last update of an epoch says nothing of what it did."""

    def spoilt(self: Any, closure: Any = None) -> None:
        self.param_groups[0]["params"][0].data.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", spoilt)
    with pytest.raises(FastencodeError, match="weights are not finite after epoch 1"):
        tuned(model, data, tmp_path / "run", batch=64, more={"validation": []})
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("state-*")] == ["state-0"]


def test_all_that_decides_a_run_is_in_its_identity(model: Path, tmp_path: Path) -> None:
    """What is not a setting changes the result as well: it is refused by name."""
    data = Tones(tmp_path / "data", people={"A": 3, "B": 3})
    other = saved_model(tmp_path / "other", "wav2vec2", strides=(5, 8, 8), seed=8)
    settings = {"epochs": 1, "word_weight": 1.0, "targets": f"model:{other}"}
    out = tuned(model, data, tmp_path / "run", **settings)
    assert tuned(model, data, out, **settings) == out

    def refused(message: str, **more: Any) -> None:
        with pytest.raises(InputError, match=message):
            tuned(model, data, out, **settings, **more)

    refused("people was", more={"participants": ["B", "A"]})
    data.tr = 2.0000001
    refused("tr was 2.0, now 2.0000001")
    data.tr = 2.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tones, "row_times", lambda self, run, **_: 2.0 * (np.arange(self.rows[run]) + 4))
        refused("scans.one.first ends was 12.0, now 10.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tones, "words", lambda self, run: [Interval(0.0, 1.0, "word")])
        refused("words.one was")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Processes, "here", classmethod(lambda cls: Processes(0, 2)))
        refused("processes was 1, now 2")
    shutil.rmtree(other)
    saved_model(other, "wav2vec2", strides=(5, 8, 8), seed=9)
    refused("target_model was")


def test_settings_that_do_not_fit_the_run(model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="patience=2 waits for a lower validation loss: name stories"):
        tuned(model, data, tmp_path / "run", patience=2, more={"validation": []})
    with pytest.raises(InputError, match=r"word_weight asks for the words of each scan.*delays=\(1, 2, 3, 4\)"):
        TuneConfig(head="delays", order="contiguous", word_weight=1.0)
    TuneConfig(head="delays", order="contiguous", word_weight=1.0, delays=(0, 1))
    monkeypatch.setattr(trainer.Processes, "here", classmethod(lambda cls: Processes(0, 2)))
    with pytest.raises(InputError, match="fused_head_step updates a head by the gradient of one process, and there are 2"):
        tuned(model, data, tmp_path / "run", fused_head_step=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"unfreeze": ("cnn",)}, {"normalize": "batch"}], ids=str)
def test_frames_of_a_frozen_cnn_are_not_those_of_one_that_changes(
    model: Path, data: Tones, tmp_path: Path, settings: dict[str, Any]
) -> None:
    lessons = Lessons(data, {"A": ("one",)}, {"A": ("watched",)}, {"A": np.arange(3)})
    encoder, sounds = SpeechEncoder(model), {name: data.sound_file(name) for name in ("one", "watched")}
    extract_frames(sounds, encoder, tmp_path / "frames", ReadConfig("clip", tr=2.0, seconds=2.0), show_progress=False)
    config = TuneConfig(**{**SETTINGS, "epochs": 1, **settings})
    runs = [
        tune_lessons(SpeechEncoder(model), lessons, config, tmp_path / name, frames=frames, show_progress=False)
        for name, frames in (("with", tmp_path / "frames"), ("without", None))
    ]
    assert files(runs[0]) == files(runs[1])
