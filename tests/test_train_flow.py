"""``train``, ``features``, ``align`` and ``diagnose`` as a user gives them, one after another, on a small data set with sound."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("torch", reason="the commands need the extra 'tune'")
pytest.importorskip("transformers", reason="the commands need the extra 'tune'")
pytest.importorskip("jsonargparse", reason="the commands need the extra 'tune'")
pytest.importorskip("pandas", reason="the commands need the extra 'tune'")
pytest.importorskip("peft", reason="the commands need the extra 'tune'")
pytest.importorskip("matplotlib", reason="the commands need the extra 'report'")

import pandas as pd
import torch
import transformers
from safetensors.torch import load_file

from fastencode.cli import main
from fastencode.speech.layers import SpeechEncoder
from fastencode.speech.weights import weight_change
from fastencode.tune.log import epochs, read_log
from fastencode.tune.record import Record
from speech_cases import saved_model
from tune_cases import Tones

pytestmark = pytest.mark.usefixtures("no_pictures")

ROWS = {"one": 16, "two": 14, "watched": 12, "test": 16}
VOXELS = {"A": 6, "B": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones in the layout of ds003020, five repeats of the test story, one region."""
    root = tmp_path_factory.mktemp("world")
    data = Tones(root / "stimuli", people=VOXELS, stories=ROWS, noise=0.2)
    (root / "rois").mkdir()
    (root / "respdict.json").write_text(json.dumps({story: n + 20 for story, n in ROWS.items()}))
    rng = np.random.default_rng(1)
    for who, voxels in VOXELS.items():
        (root / "preprocessed_data" / who).mkdir(parents=True)
        (root / "rois" / f"{who}.json").write_text(json.dumps({"half": list(range(voxels // 2))}))
        for story in ROWS:
            values = data.responses(who, story).astype(float)
            with h5py.File(root / "preprocessed_data" / who / f"{story}.hf5", "w") as file:
                file["data"] = values
                if story == "test":
                    repeats = values + 0.3 * rng.standard_normal((5, *values.shape))
                    file["individual_repeats"] = repeats
    for left in (root / "stimuli").glob("*.npy"):
        left.unlink()
    return root


@pytest.mark.parametrize("family, options", [("wavlm", ["--trained", "lora", "--lora.rank", "2"]), ("whisper", [])])
def test_a_model_is_tuned_read_and_scored(world: Path, tmp_path: Path, family: str, options: list[str], capsys) -> None:
    strides = {} if family == "whisper" else {"strides": (5, 8, 8)}
    model = saved_model(tmp_path / "model", family, **strides)
    given = ["--stories", str(world), "--model", str(model), "--out", str(tmp_path / "run"), "--test-story", "test"]
    given += [
        "--validation",
        "watched",
        "--clip-seconds",
        "4",
        "--epochs",
        "2",
        "--batch",
        "16",
        "--keep",
        "1",
        "--log-every",
        "1",
    ]
    given += ["--learning-rate", "3e-3", "--head-learning-rate", "1e-2", *options]
    assert main(["train", *given]) == 0
    run = tmp_path / "run"
    rows = epochs(run / "log.jsonl")
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"] and read_log(run / "log.jsonl")[-1]["cnn_unchanged"]
    assert rows[-1]["weight_change"]["layer-02"] > 0
    head = load_file(run / "heads" / "B.safetensors")
    assert head["weight"].shape == (4, 16) and head["voxels"].tolist() == [0, 1, 2, 3]
    assert (run / "model" / "adapter" / "adapter_config.json").exists() == (family == "wavlm")
    before, after = (transformers.AutoModel.from_pretrained(folder) for folder in (model, run / "model"))
    layer = "encoder.layers.1.attention.q_proj.weight" if family == "wavlm" else "encoder.layers.1.self_attn.q_proj.weight"
    assert not torch.equal(before.state_dict()[layer], after.state_dict()[layer])
    assert SpeechEncoder(run / "checkpoints" / "epoch-1").cnn_hash() == SpeechEncoder(model).cnn_hash()
    changes = weight_change(model, run / "model")
    assert changes["cnn"] == 0 and changes["layer-02"] > 0
    if family == "whisper":  # all of a layer learns: the log counted the same weights while they were in memory
        logged = rows[-1]["weight_change"]
        assert [changes[f"layer-0{k}"] for k in (1, 2)] == pytest.approx([logged[f"layer-0{k}"] for k in (1, 2)], rel=1e-5)
    assert set(Record.read(run).gradient_norms) == set(rows[-1]["gradient_norm"]) >= {"layer-01", "layer-02", "head"}
    for name, checkpoint in (("pretrained", model), ("tuned", run / "model")):
        asked = ["--audio", str(world / "stimuli"), "--model", str(checkpoint), "--out", str(tmp_path / name)]
        assert main(["features", *asked, "--read.seconds", "4"]) == 0
    asked = ["--stories", str(world), "--features", str(tmp_path / "pretrained"), str(tmp_path / "tuned"), "--ceiling", "-1"]
    asked += ["--out", str(tmp_path / "scores"), "--test-story", "test", "--test-skip", "0", "--exclude", "watched"]
    asked += ["--permutations", "9", "--align.bootstraps", "20", "--align.folds", "2", "--align.delays", "[0, 1]"]
    assert main(["align", *asked]) == 0
    scores = pd.read_csv(tmp_path / "scores" / "scores.csv")
    assert set(scores["model"]) == {"pretrained", "tuned"} and set(scores["layer"]) == {0, 1, 2}
    capsys.readouterr()
    assert main(["diagnose", str(run), "--stories", str(world)]) == 0
    said = capsys.readouterr().out
    assert "frozen CNN" in said and "half" in said
    assert main(["train", *given]) == 0, "finished: nothing to do"
    assert main(["train", "--config", str(run / "config.yaml")]) == 0


def test_one_model_for_each_participant(world: Path, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model", "hubert", strides=(5, 8, 8))
    given = ["--stories", str(world), "--model", str(model), "--out", str(tmp_path / "runs"), "--test-story", "test", "--each"]
    given += ["--clip-seconds", "2", "--epochs", "1", "--batch", "16", "--validation", "watched", "--regions", "half"]
    assert main(["train", *given]) == 0
    for who, voxels in (("A", 3), ("B", 2)):
        head = load_file(tmp_path / "runs" / who / "heads" / f"{who}.safetensors")
        assert head["weight"].shape == (voxels, 16)
        assert [path.stem for path in (tmp_path / "runs" / who / "heads").iterdir()] == [who]
