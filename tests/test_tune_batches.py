"""What the trainer hands to the model: orders of epochs, targets, the halo of delays; and no dropout in validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch
import transformers
from safetensors.torch import load_file

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune import training
from fastencode.tune.batches import Place, Sources, order_of_epoch
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.log import epochs
from fastencode.tune.model import BrainModel, Rows
from fastencode.tune.trainer import brain_tune
from speech_cases import saved_model
from tune_cases import FIRST, RATE, TR, Tones, clip, normal, pooled

torch.set_num_threads(1)

SETTINGS: dict[str, Any] = {"batch": 8, "learning_rate": 3e-3, "clip_seconds": 2.0, "epochs": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), "wav2vec2", strides=(5, 8, 8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Tones:
    return Tones(tmp_path_factory.mktemp("tones"))


def sources(model: Path, data: Tones, cache: Path, **settings: Any) -> tuple[BrainModel, Sources, Sources]:
    """Through a run's folder, whose identity says which files there are."""
    found: list[Any] = []
    make = training.make_sources

    class Enough(Exception):
        pass

    def seen(*rest: Any, **more: Any) -> Any:
        found.extend([rest[0], *make(*rest, **more)])
        raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_sources", seen)
        config = TuneConfig(**{**SETTINGS, **settings})
        with pytest.raises(Enough):
            brain_tune(SpeechEncoder(model), data, config, cache, validation=["watched"], show_progress=False)
    return found[0], found[1], found[2]


def test_every_epoch_has_the_batches_of_its_own_order(
    model: Path, data: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[list[Place]] = []
    ahead = training.ahead

    def seen(where: Sources, places: Any, *rest: Any, **more: Any) -> Any:
        learned.extend([list(places)] if "one" in where.runs else [])
        return ahead(where, places, *rest, **more)

    monkeypatch.setattr(training, "ahead", seen)
    config = TuneConfig(**SETTINGS)
    brain_tune(SpeechEncoder(model), data, config, tmp_path / "run", validation=["watched"], show_progress=False)
    assert len(learned) == 2
    for epoch, places in enumerate(learned, start=1):
        wanted = order_of_epoch([20, 13], epoch, 8, config)
        assert [(one.runs.tolist(), one.rows.tolist()) for one in places] == [(w.runs.tolist(), w.rows.tolist()) for w in wanted]


@pytest.mark.parametrize("targets", ["permuted", "shifted"])
def test_everybodys_targets_are_moved_while_learning_and_nobodys_in_validation(model: Path, tmp_path: Path, targets: str) -> None:
    heard = {"A": ("one", "two", "watched"), "B": ("two", "one", "watched")}
    data = Tones(tmp_path / "data", stories={"one": 60, "two": 50, "watched": 20}, heard=heard)
    _, train, validation = sources(model, data, tmp_path / "run", targets=targets, block=5, min_move=2, shift_seconds=20.0)
    orders = {}
    for who in "AB":
        z = {run: normal(data.responses(who, run).astype(float)) for run in data.rows}
        watched = validation.part(Place(np.zeros(20, int), np.arange(20))).targets[who][1].numpy()
        np.testing.assert_allclose(watched, z["watched"], atol=1e-5)
        found = np.concatenate([
            train.part(Place(np.full(n, train.runs.index(run)), np.arange(n))).targets[who][1].numpy()
            for run, n in (("one", 60), ("two", 50))
        ])  # fmt: skip
        true = np.concatenate([z["one"], z["two"]])
        apart = np.abs(found[:, None] - true[None]).max(axis=2)
        assert (apart.min(axis=1) < 1e-5).all()
        orders[who] = apart.argmin(axis=1)
        assert (orders[who] != np.arange(110)).all()
        if targets == "shifted":
            wanted = np.concatenate([(np.arange(60) - 10) % 60, 60 + (np.arange(50) - 10) % 50])
            assert orders[who].tolist() == wanted.tolist(), "20 s late: the responses to what was heard 10 scans before"
    assert targets == "shifted" or (orders["A"] != orders["B"]).mean() > 0.2


@pytest.mark.parametrize("cnn_cache", ["on", "off"])
@pytest.mark.parametrize("first, stop", [(0, 4), (8, 13), (18, 20)])
def test_a_part_with_its_halo_reads_what_the_whole_story_has(
    model: Path, data: Tones, tmp_path: Path, cnn_cache: str, first: int, stop: int
) -> None:
    """Delays of 1 and 2: the scans before the first row have sound, too, and count; nothing comes after the last."""
    brain, train, _ = sources(
        model, data, tmp_path / "run", head="delays", order="contiguous", delays=(1, 2), cnn_cache=cnn_cache
    )
    ends = TR * np.arange(1, 20 + FIRST + 1)
    clips = np.stack([normal(clip(data, "one", end)) for end in ends]).astype(np.float32)
    place = Place(np.full(stop - first, train.runs.index("one")), np.arange(first, stop))
    with torch.no_grad():
        whole = brain.state(brain.front(torch.from_numpy(clips)), 2 * RATE, Rows(ends, slice(FIRST + first, FIRST + stop)))
        part = train.part(place)
        frames = part.clips if part.clips.ndim == 3 else brain.front(part.clips)
        state = brain.state(frames, 2 * RATE, Rows(part.ends, part.keep))
    assert part.ends[part.keep].tolist() == ends[FIRST + first : FIRST + stop].tolist()
    torch.testing.assert_close(state, whole, rtol=1e-3, atol=1e-3)


def test_validation_is_without_dropout(model: Path, data: Tones, tmp_path: Path) -> None:
    """The adapters' and the model's own: the logged loss is that of the saved model, alone in transformers."""
    lora = LoraConfig(rank=2, dropout=0.5)
    config = TuneConfig(**{**SETTINGS, "epochs": 1, "trained": "lora", "lora": lora, "train_mode": True})
    out = brain_tune(SpeechEncoder(model), data, config, tmp_path / "run", validation=["watched"], show_progress=False)
    whole = transformers.AutoModel.from_pretrained(out / "model").eval()
    with torch.no_grad():
        state = pooled(whole, out / "model", [clip(data, "watched", TR * (row + FIRST + 1)) for row in range(12)])
    for who in "AB":
        head = load_file(out / "heads" / f"{who}.safetensors")
        off = (state @ head["weight"].T + head["bias"]).numpy() - normal(data.responses(who, "watched").astype(float))
        assert epochs(out / "log.jsonl")[-1]["participants"][who]["loss"] == pytest.approx(float((off**2).mean()), rel=1e-4)
