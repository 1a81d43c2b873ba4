"""A run that is killed at any moment goes on, and ends with the bits of one that was not; several processes equal one."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

from fastencode.tune.log import epochs, read_log, updates
from speech_cases import saved_model
from tune_cases import Tones
from tune_process_cases import run


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
