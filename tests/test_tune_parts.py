"""Batches in parts are one batch: accumulated, on two processes, with weights, holes, and people who heard other stories."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch

from fastencode.speech.audio import read_audio
from fastencode.speech.layers import SpeechEncoder, unit_variance
from fastencode.tune.batches import order_of_epoch
from fastencode.tune.config import TuneConfig
from fastencode.tune.log import epochs, read_log, updates
from fastencode.tune.model import BrainModel
from fastencode.tune.trainer import brain_tune
from speech_cases import saved_model
from tune_cases import FIRST, RATE, TR, Tones
from tune_process_cases import run

torch.set_num_threads(1)

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTINGS: dict[str, Any] = {"epochs": 2, "batch": 8, "learning_rate": 1e-3, "clip_seconds": 2.0, "log_every": 1}
HEARD = {"A": ("one", "watched"), "B": ("one", "two", "watched"), "C": ("two",)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three people who heard different stories; some responses are missing, in one place all of a row."""
    root = tmp_path_factory.mktemp("parts")
    data = Tones(root / "tones", people={"A": 4, "B": 3, "C": 4}, stories={"one": 9, "two": 6, "watched": 7}, heard=HEARD)
    for who, story, hole in [("A", "one", (slice(2, 4), 1)), ("B", "two", (4, slice(None))), ("B", "watched", (slice(0, 5), 0))]:
        values = data.responses(who, story)
        values[hole] = np.nan
        np.save(data.folder / f"{who}-{story}.npy", values)
    return root / "tones", saved_model(root / "model", "wav2vec2", strides=(5, 8, 8))


WEIGHTS = {"A": np.array([1, 3, 0, 0.5], np.float32), "B": np.array([2, 0.5, 0.5], np.float32)}


def tuned(world: tuple[Path, Path], out: Path, **settings: Any) -> Path:
    config = TuneConfig(**{**SETTINGS, **settings})
    named: dict[str, Any] = {"validation": ["watched"], "weights": WEIGHTS, "show_progress": False}
    return brain_tune(SpeechEncoder(world[1]), Tones.read(str(world[0])), config, out, **named)


def assert_alike(one: Path, two: Path, *, rel: float = 2e-4) -> None:
    pairs = zip(updates(one / "log.jsonl"), updates(two / "log.jsonl"), strict=True)
    for a, b in pairs:
        assert a["stories"] == b["stories"] and a["learning_rate"] == b["learning_rate"]
        assert a["loss"] == pytest.approx(b["loss"], rel=rel) and a["losses"] == pytest.approx(b["losses"], rel=rel)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=10 * rel)
        assert a.get("word_loss", 0.0) == pytest.approx(b.get("word_loss", 0.0), rel=rel)
    for a, b in zip(epochs(one / "log.jsonl"), epochs(two / "log.jsonl"), strict=True):
        for name in ("train_loss", "validation_loss", "mean_loss"):
            assert (a[name] or 0.0) == pytest.approx(b[name] or 0.0, rel=rel)
        assert a["validation_r"] == pytest.approx(b["validation_r"], abs=1e-3)
        assert a["weight_change"] == pytest.approx(b["weight_change"], rel=0.02, abs=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        {"clip_norm": 0.3, "word_weight": 0.5, "words": 2},
        {"loss": "spatial_r", "bottleneck": 2},
        {"order": "story", "schedule": "constant"},
    ],
    ids=" ".join,
)
def test_accumulated_parts_are_one_batch(world: tuple[Path, Path], tmp_path: Path, more: dict[str, Any]) -> None:
    """15 rows in batches of 8 and fewer, in parts of 2 or 1; to some of the parts not everybody has responses."""
    one = tuned(world, tmp_path / "one", batch=8, **more)
    four = tuned(world, tmp_path / "four", batch=2, accumulate=4, **more)
    assert_alike(one, four)


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on one machine")
def test_two_processes_of_two_parts_are_one_batch(world: tuple[Path, Path], tmp_path: Path) -> None:
    """With a limit to the norm of the whole gradient, which is not the sum of limits, and batches that some did not hear."""
    plain = {**SETTINGS, "trained": "full", "own_weight": 0.0, "clip_norm": 0.3, "order": "story", "save_minutes": 10.0}
    more = {**plain, "word_weight": 0.5, "words": 2}
    assert run(world, tmp_path / "two", processes=2, **{**more, "batch": 2, "accumulate": 2}) == [0, 0]
    assert run(world, tmp_path / "one", **more) == [0]
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on one machine")
def test_two_processes_without_anybodys_responses(world: tuple[Path, Path], tmp_path: Path) -> None:
    more = {**SETTINGS, "trained": "full", "own_weight": 0.0, "targets": "stimulus", "epochs": 1, "batch": 4}
    assert run(world, tmp_path / "two", processes=2, **more) == [0, 0]
    assert read_log(tmp_path / "two" / "log.jsonl")[-1]["updates"] == 2


def pearson(p: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Weighted, over the last axis."""
    p, y = (one - (w * one).sum(-1, keepdim=True) / w.sum(-1, keepdim=True) for one in (p, y))
    return (w * p * y).sum(-1) / ((w * p * p).sum(-1) * (w * y * y).sum(-1)).sqrt()


def naive_loss(kind: str, p: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> float:
    """The mean over what is there, one row or one voxel at a time."""
    there = ~torch.isnan(y)
    if kind == "mse":
        w = weight.expand_as(y)[there]
        return float((w * (p - y)[there] ** 2).sum() / w.sum())
    rows = [(p[i][there[i]], y[i][there[i]], weight[there[i]]) for i in range(len(y)) if (weight[there[i]] > 0).any()]
    return float(np.mean([1 - float(pearson(*one).nan_to_num()) for one in rows]))


@pytest.mark.parametrize("kind, shared", [("mse", False), ("spatial_r", False), ("mse", True)])
def test_losses_before_any_update_are_those_of_naive_code(
    world: tuple[Path, Path], tmp_path: Path, kind: str, shared: bool
) -> None:
    """Of each participant, in the first batch and in validation: weights, holes, and the head that is meant."""
    data = Tones.read(str(world[0]))
    people = ("A", "C") if shared else ("A", "B", "C")
    config = TuneConfig(**{**SETTINGS, "epochs": 1, "loss": kind, "shared_head": shared})
    weights = {who: WEIGHTS[who] for who in people if who in WEIGHTS}
    named: dict[str, Any] = {"validation": ["watched"], "participants": people, "weights": weights}
    out = brain_tune(SpeechEncoder(world[1]), data, config, tmp_path / "run", **named, show_progress=False)
    model = BrainModel(SpeechEncoder(world[1]), config, {who: data.people[who] for who in people}, tr=TR)

    def states(rows: list[tuple[str, int]]) -> torch.Tensor:
        clips = []
        for story, row in rows:
            end = round((row + FIRST + 1) * TR * RATE)
            clips.append(read_audio(data.sound_file(story), sample_rate=RATE)[end - 2 * RATE : end])
        with torch.no_grad():
            return model.state(model.front(torch.from_numpy(unit_variance(np.stack(clips)))), 2 * RATE)

    def wanted(who: str, story: str) -> np.ndarray:
        values = data.responses(who, story).astype(float)
        return (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)

    def losses(rows: list[tuple[str, int]]) -> dict[str, tuple[float, float]]:
        state, found = states(rows), {}
        for who in people:
            mine = [place for place, (story, _) in enumerate(rows) if story in HEARD[who]]
            if mine:
                y = torch.tensor(np.stack([wanted(who, rows[i][0])[rows[i][1]] for i in mine]), dtype=torch.float32)
                weight = torch.from_numpy(WEIGHTS.get(who, np.ones(data.people[who], np.float32)))
                with torch.no_grad():
                    p = model.predict(who, state[mine])
                found[who] = naive_loss(kind, p, y, weight), naive_loss(kind, torch.zeros_like(p), y, weight)
        return found

    (place, *_) = order_of_epoch([9, 6], 1, 8, config)
    names = ("one", "two")
    found = losses([(names[run_], row) for run_, row in zip(place.runs.tolist(), place.rows.tolist(), strict=True)])
    line = updates(out / "log.jsonl")[0]
    assert line["losses"] == pytest.approx({who: one for who, (one, _) in found.items()}, rel=1e-4)
    first = epochs(out / "log.jsonl")[0]["participants"]
    found = losses([("watched", row) for row in range(7)])
    assert set(first) == set(found) == {who for who in people if "watched" in HEARD[who]}
    for who, (loss, of_mean) in found.items():
        assert first[who]["loss"] == pytest.approx(loss, rel=1e-4) and first[who]["mean_loss"] == pytest.approx(of_mean, rel=1e-4)
