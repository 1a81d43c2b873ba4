"""A run that is killed at any moment goes on, and ends with the bits of one that was not; several processes equal one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

from fastencode.tune.log import epochs, read_log, updates
from speech_cases import saved_model
from tune_cases import Tones

# A run in a process of its own, that ends itself by SIGKILL when a function is called for the n-th time.
RUN = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from fastencode.tune import checkpoint, trainer, validation
from fastencode.tune import brain_tune
from fastencode.tune.config import TuneConfig, LoraConfig
from fastencode.speech.layers import SpeechEncoder
from tune_cases import Tones
folder, model, out, settings, name, count = sys.argv[2:]
left = [int(count)]
training = trainer._Training
places = {"update": (training, "update"), "write": (checkpoint, "save_file"), "place": (checkpoint.os, "replace"),
          "validate": (validation.Sums, "add"), "epoch": (training, "end_epoch"), "finish": (training, "finish"),
          "never": (training, "begin")}
owner, attribute = places[name]
before = getattr(owner, attribute)
def counted(*rest, **more):
    left[0] -= 1
    if left[0] == 0 and name != "never":
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*rest, **more)
setattr(owner, attribute, counted)
settings = json.loads(settings)
if "lora" in settings:
    settings["lora"] = LoraConfig(**settings["lora"])
brain_tune(SpeechEncoder(model), Tones.read(folder), TuneConfig(**settings), __import__("pathlib").Path(out),
           validation=["watched"], show_progress=False)
"""
SETTINGS = {
    "epochs": 3,
    "batch": 8,
    "learning_rate": 3e-3,
    "clip_seconds": 2.0,
    "log_every": 2,
    "save_minutes": 1e-6,
    "keep": [1],
}
SETTINGS |= {"trained": "lora", "lora": {"rank": 2, "dropout": 0.2}, "own_weight": 0.1}  # dropout and masks draw at random


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("resume")
    Tones(root / "tones")
    return root / "tones", saved_model(root / "model", "wav2vec2", strides=(5, 8, 8))


def run(
    world: tuple[Path, Path], out: Path, place: str = "never", count: int = 1, launcher: tuple[str, ...] = (), **more: Any
) -> int:
    import json

    settings = json.dumps({**SETTINGS, **more})
    command = [sys.executable, *launcher, "-c", RUN] if not launcher else [sys.executable, *launcher]
    arguments = [str(Path(__file__).parent), *map(str, world), str(out), settings, place, str(count)]
    return subprocess.run([*command, *arguments], check=False, timeout=300).returncode


@pytest.fixture(scope="module")
def whole(world: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(world, out) == 0
    return out


def files(out: Path) -> dict[str, bytes]:
    """All that a run leaves, but its log, whose times differ, and what is dated."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.name not in ("log.jsonl", ".run.lock", "run.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


@pytest.mark.parametrize(
    "place, count",
    [("update", 3), ("update", 8), ("epoch", 2), ("write", 6), ("place", 9), ("validate", 5), ("finish", 1)],
    ids=lambda value: str(value),
)
def test_a_killed_run_ends_with_the_same_bits(
    world: tuple[Path, Path], whole: Path, tmp_path: Path, place: str, count: int
) -> None:
    out = tmp_path / "run"
    assert run(world, out, place, count) == -signal.SIGKILL
    assert not (out / "model").exists()
    assert run(world, out) == 0
    found, wanted = files(out), files(whole)
    assert set(found) == set(wanted) and {"model/model.safetensors", "curves.png", "heads/A.safetensors"} <= set(found)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    logs = [[{**row, "time": None} for row in read_log(folder / "log.jsonl")] for folder in (out, whole)]
    assert logs[0] == logs[1]


def test_two_processes_learn_what_one_does_with_twice_the_batch(world: tuple[Path, Path], tmp_path: Path) -> None:
    """gloo on two CPU processes: losses, gradients and weights agree to rounding."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={port}", str(script))
    plain = {"trained": "full", "own_weight": 0.0, "log_every": 1}
    os.environ["OMP_NUM_THREADS"] = "1"
    assert run(world, tmp_path / "two", launcher=launcher, batch=4, **plain) == 0
    assert run(world, tmp_path / "one", batch=8, **plain) == 0
    one, two = ([updates(tmp_path / name / "log.jsonl"), epochs(tmp_path / name / "log.jsonl")] for name in ("one", "two"))
    assert len(one[0]) == len(two[0]) == 15 and len(one[1]) == 4
    for a, b in zip(one[0], two[0], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["stories"] == b["stories"]
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
    for a, b in zip(one[1], two[1], strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-4)
        assert a["validation_r"] == pytest.approx(b["validation_r"], abs=1e-4)
