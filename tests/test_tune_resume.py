"""A run that is killed at any moment goes on, and ends with the bits of one that was not; several processes equal one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune import checkpoint, training, validation
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.log import epochs, read_log, updates
from fastencode.tune.trainer import brain_tune
from speech_cases import saved_model
from tune_cases import Tones

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch": 8,
    "learning_rate": 3e-3,
    "clip_seconds": 2.0,
    "log_every": 2,
    "save_minutes": 1e-6,  # a state after each update
    "keep": (1,),
    # Adapters with dropout, and masks: what draws at random.
    "trained": "lora",
    "lora": LoraConfig(rank=2, dropout=0.2),
    "own_weight": 0.1,
}
PLACES: dict[str, tuple[Any, str]] = {
    "update": (training.Training, "update"),
    "file of a state": (checkpoint, "save_file"),
    "folder in its place": (checkpoint.os, "replace"),
    "validation": (validation.Sums, "add"),
    "end of an epoch": (training.Training, "end_epoch"),
    "last files": (training.Training, "finish"),
}


def work(
    world: tuple[Path, Path], out: Path, settings: dict[str, Any], place: str, count: int, ranks: tuple[int, int, int]
) -> None:
    """A run in a process of its own, which ends itself by SIGKILL when a function is called for the ``count``-th time."""
    torch.set_num_threads(1)
    rank, size, port = ranks
    if size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_PORT": str(port)}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    if place:
        owner, name = PLACES[place]
        before, left = getattr(owner, name), [count]

        def counted(*rest: Any, **more: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*rest, **more)

        setattr(owner, name, counted)
    data, model = Tones.read(str(world[0])), SpeechEncoder(world[1])
    brain_tune(model, data, TuneConfig(**settings), out, validation=["watched"], show_progress=False)


def run(
    world: tuple[Path, Path], out: Path, place: str = "", count: int = 1, processes: int = 1, **more: Any
) -> list[int | None]:
    """The exit codes of the processes of a run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        started.append(
            context.Process(target=work, args=(world, out, {**SETTINGS, **more}, place, count, (rank, processes, port)))
        )
        started[-1].start()
    for one in started:
        one.join(300)
    return [one.exitcode for one in started]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("resume")
    Tones(root / "tones")
    return root / "tones", saved_model(root / "model", "wav2vec2", strides=(5, 8, 8))


@pytest.fixture(scope="module")
def whole(world: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(world, out) == [0]
    return out


def files(out: Path) -> dict[str, Any]:
    """All that a run leaves, without how long things took: run.json has dates of files, the log times, a state the log's size."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.name not in ("log.jsonl", ".run.lock", "run.json")]
    found: dict[str, Any] = {str(path.relative_to(out)): path.read_bytes() for path in kept if path.name != "state.json"}
    for path in (path for path in kept if path.name == "state.json"):
        found[str(path.relative_to(out))] = {**json.loads(path.read_text()), "log_size": None}
    found["log"] = [{**row, "time": None} for row in read_log(out / "log.jsonl")]
    return found


@pytest.mark.parametrize(
    "kills",
    [
        (("update", 3), ("validation", 3), ("update", 4), ("end of an epoch", 1)),
        (("file of a state", 6), ("folder in its place", 9), ("last files", 1)),
    ],
    ids=["while it learns", "while it writes"],
)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    world: tuple[Path, Path], whole: Path, tmp_path: Path, kills: tuple[tuple[str, int], ...]
) -> None:
    out = tmp_path / "run"
    for place, count in kills:
        assert run(world, out, place, count) == [-signal.SIGKILL], place
        assert not (out / "model").exists()
    assert run(world, out) == [0]
    found, wanted = files(out), files(whole)
    assert set(found) == set(wanted) and {"model/model.safetensors", "curves.png", "heads/A.safetensors"} <= set(found)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_a_killed_run_with_heads_updated_in_the_walk(world: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"fused_head_step": True, "trained": "full", "own_weight": 0.0, "epochs": 2, "order": "contiguous"}
    assert run(world, tmp_path / "one", **settings) == [0]
    assert run(world, tmp_path / "two", "validation", 7, **settings) == [-signal.SIGKILL]
    assert run(world, tmp_path / "two", "update", 2, **settings) == [-signal.SIGKILL]
    assert run(world, tmp_path / "two", **settings) == [0]
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert set(one) == set(two) and [name for name in one if one[name] != two[name]] == []


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on one machine")
def test_two_processes_learn_what_one_does_with_twice_the_batch(world: tuple[Path, Path], tmp_path: Path) -> None:
    """gloo on two CPU processes: losses, gradients and validation agree to rounding."""
    plain = {"trained": "full", "own_weight": 0.0, "log_every": 1}
    assert run(world, tmp_path / "two", processes=2, **{**plain, "batch": 4}) == [0, 0]
    assert run(world, tmp_path / "one", **plain) == [0]
    one, two = ([updates(tmp_path / name / "log.jsonl"), epochs(tmp_path / name / "log.jsonl")] for name in ("one", "two"))
    assert len(one[0]) == len(two[0]) == 15 and len(one[1]) == 4
    for a, b in zip(one[0], two[0], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["stories"] == b["stories"]
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
    for a, b in zip(one[1], two[1], strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-4)
        assert a["validation_r"] == pytest.approx(b["validation_r"], abs=1e-4)
