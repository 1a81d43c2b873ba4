"""A run that is killed at any moment goes on, and ends with the bits of one that was not."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

from fastencode.tune.log import read_log
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
