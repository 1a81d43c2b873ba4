"""What tests of studies share: brains that hear tones, small corpora and models, and a study of them that takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import soundfile
import yaml

from fastencode.cli import main
from fastencode.speech.audio import write_audio
from speech_cases import saved_model
from task_cases import PHONE_TONES, commands_like, timit_like
from tune_cases import Tones

ROWS = {"one": 16, "two": 14, "watched": 12, "test": 24}
VOXELS = {"A": 6, "B": 5}
REGIONS = {"low": slice(0, 3), "high": slice(2, None)}
PHONES = tuple(PHONE_TONES)


def brains(root: Path) -> Path:
    """Tones in the layout of ds003020: five repeats of the test story, two regions that share a voxel."""
    data = Tones(root / "stimuli", people=VOXELS, stories=ROWS, noise=0.2)
    (root / "rois").mkdir()
    (root / "respdict.json").write_text(json.dumps({story: n + 20 for story, n in ROWS.items()}))
    rng = np.random.default_rng(1)
    for who, voxels in VOXELS.items():
        (root / "preprocessed_data" / who).mkdir(parents=True)
        own = {name: list(range(voxels))[part] for name, part in REGIONS.items()}
        (root / "rois" / f"{who}.json").write_text(json.dumps(own))
        for story in ROWS:
            values = data.responses(who, story).astype(float)
            with h5py.File(root / "preprocessed_data" / who / f"{story}.hf5", "w") as file:
                file["data"] = values
                if story == "test":
                    file["individual_repeats"] = values + 0.3 * rng.standard_normal((5, *values.shape))
    for left in (root / "stimuli").glob("*.npy"):
        left.unlink()
    for path in (root / "stimuli").glob("*.wav"):  # ten scans more than rows of responses, as in the data set
        sound, rate = soundfile.read(path, dtype="float32")
        write_audio(path, np.concatenate([sound, sound[: 5 * 2 * rate]]), rate)
    return root


def ground(root: Path) -> Path:
    """A folder with brains, two corpora in noise and a model."""
    brains(root / "brains")
    timit_like(root / "timit")
    commands_like(root / "commands", speakers=(6, 2, 4))
    rng = np.random.default_rng(2)
    for path in [*sorted(root.glob("timit/**/*.WAV")), *sorted(root.glob("commands/**/*.wav"))]:
        sound, rate = soundfile.read(path)
        form = {"format": "NIST"} if path.suffix == ".WAV" else {}
        soundfile.write(path, np.clip(sound + 0.3 * rng.standard_normal(len(sound)), -1, 1), rate, subtype="PCM_16", **form)
    saved_model(root / "model", "wav2vec2", strides=(5, 8, 8))
    return root


def study(root: Path, **changes: Any) -> dict[str, Any]:
    """A study of one participant on what :func:`ground` made: a model before and after tuning, and permuted; four probes."""
    data = {"validation": ["watched"], "test_story": "test", "test_skip": 0, "ceiling": -1, "scored": -1}
    raised = {"models": {"tuned": 1, "pretrained": -1}, "expect": "above", "control": "control"}
    given: dict[str, Any] = {
        "title": "Tones",
        "data": {"stories": str(root / "brains"), "participants": ["A"], **data},
        "models": {"tiny": str(root / "model")},
        "tune": {"epochs": 2, "clip_seconds": 2.0, "batch": 8, "learning_rate": 1e-2, "block": 3},
        "align": {"bootstraps": 50, "delays": [0, 1], "alphas": [1.0, 30.0, 1000.0], "folds": 2},
        "arms": [
            {"name": "pretrained"},
            {"name": "tuned", "tune": {}},
            {"name": "control", "tune": {"targets": "permuted"}, "seeds": [1, 2]},
        ],
        "probes": {
            "tasks": ["word", "phonemes", "sx_si", "mfcc"],
            "corpora": {"timit": str(root / "timit"), "commands": str(root / "commands")},
            "low_level": False,
        },
        "contrasts": [
            {"name": "brains", "measure": "r", "region": "high", "statement": "r rises", **raised},
            {"name": "words", "measure": "word", "layers": "all", "statement": "words rise", **raised},
            {
                "name": "depth",
                "measure": "r",
                "region": ["low", "high"],
                "layers": {"late": 1, "early": -1},
                "models": {"tuned": 1},
            },
        ],
    }
    return {**given, **changes}


def little_study(root: Path) -> dict[str, Any]:
    """The same with one arm, one layer and one probe."""
    given = study(root, layers=[2])
    raised = {"models": {"tuned": 1, "pretrained": -1}, "layers": [2]}
    return {
        **given,
        "arms": given["arms"][:2],
        "probes": {**given["probes"], "tasks": ["word"]},
        "contrasts": [
            {"name": "brains", "measure": "r", "region": "high", "statement": "r rises", "expect": "above", **raised},
            {"name": "words", "measure": "word", **raised},
        ],
    }


def arms_study(root: Path) -> dict[str, Any]:
    """Every kind of arm, in two participants, without probes."""
    plain = study(root)
    one = {"tune": {"epochs": 1}, "model": "tiny"}
    return {
        **plain,
        "data": {**plain["data"], "participants": []},
        "models": {**plain["models"], "other": f"random:{root / 'model'}"},
        "arms": [
            {"name": "pretrained", "model": "tiny"},
            {"name": "tuned", "tune": {}, "epochs": [1], "model": "tiny"},
            {"name": "together", **one, "together": True},
            {"name": "short", **one, "hours": [0.009, 0.0167]},
            {"name": "cnn", "tune": {"epochs": 1, "unfreeze": ["cnn"]}, "model": "tiny"},
            {"name": "copy", **one, "imitates": "other"},
        ],
        "layers": [0, 2],
        "probes": {"tasks": []},
        "contrasts": [
            {"name": "both", "measure": "r", "region": "low", "models": {"tuned": 1, "pretrained": -1}},
            {"name": "cnn", "measure": "r", "region": "high", "models": {"cnn": 1}, "layers": [0, 2]},
        ],
    }


def written(file: Path, given: Mapping[str, Any]) -> Path:
    """A study as a file."""
    file.write_text(yaml.safe_dump(dict(given), sort_keys=False), encoding="utf-8")
    return file


def run(file: Path, out: Path, *options: str) -> int:
    """The command, in this process; returns its status."""
    return main(["run", str(file), "--out", str(out), *(options or ("--jobs", "1"))])


def tables(out: Path) -> dict[str, bytes]:
    """Every table byte for byte, without columns of time."""
    found = {path.name: path.read_bytes() for path in sorted(out.glob("*.csv"))}
    frame = pd.read_csv(out / "training.csv").drop(columns="seconds")
    return {**found, "training.csv": frame.to_csv().encode()}


def table(out: Path, name: str) -> pd.DataFrame:
    """A table; what is empty among text stays text."""
    found = pd.read_csv(out / f"{name}.csv")
    for column in {"participant", "region", "answer", "reason"} & {*found.columns}:
        found[column] = found[column].astype(object).fillna("")
    return found


def noise(seed: int, n: int) -> np.ndarray:
    """White noise, (n,) float32."""
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)
