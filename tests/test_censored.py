"""Censored scans are neither fitted nor scored nor learned, and the scans around them keep their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastencode.runs.engine import Stages
from fastencode.runs.fits import Question, layer_stages, responses_stage
from fastencode.study.brains.design import Design, Variant
from fastencode.study.brains.layer_scores import LayerScores, load
from fastencode.study.config import WHOLE, AlignConfig

TR, ROWS, VOXELS = 2.0, {"one": 60, "two": 50, "test": 70}, 6


class Features:
    """Features at the scans of every run."""

    name, n_layers = "made", 1

    def rows(self, run: str, layer: int) -> np.ndarray:
        return np.random.default_rng(len(run)).normal(size=(ROWS[run], 4)).astype(np.float32)

    def key(self, run: str) -> Any:
        return {"run": run}

    def files(self, run: str) -> list[Path]:
        return []


class Scanner:
    """Two people whose voxels follow the features one scan later; wild values where the first person's scans are censored."""

    tr, test_story, participants = TR, "test", ("censored", "whole")

    def kept(self, who: str, run: str) -> np.ndarray:
        kept = np.ones(ROWS[run], bool)
        if who == "censored":
            kept[[7, 8, 30]] = False
        return kept

    def responses(self, who: str, run: str, *, voxels: Any = None) -> np.ndarray:
        X = Features().rows(run, 0)
        late = np.vstack([np.zeros((1, 4)), X[:-1]])
        values = late @ np.random.default_rng(9).normal(size=(4, VOXELS))
        values += np.random.default_rng(len(run)).normal(0, 0.5, values.shape)
        values[~self.kept(who, run)] = 1e6 * np.random.default_rng(1).normal(size=(int((~self.kept(who, run)).sum()), VOXELS))
        return values[:, slice(None) if voxels is None else voxels].astype(np.float32)

    def n_rows(self, run: str) -> int:
        return ROWS[run]

    def n_voxels(self, who: str) -> int:
        return VOXELS

    def row_times(self, run: str, *, middle: bool = False) -> np.ndarray:
        return TR * (np.arange(ROWS[run]) + 0.5 * middle)

    def usable_rows(self, run: str) -> slice:
        return slice(5, ROWS[run])

    def is_repeated(self, who: str, run: str) -> bool:
        return False

    def response_files(self, who: str, run: str) -> list[Path]:
        return []


@pytest.fixture
def scores(tmp_path: Path) -> dict[str, LayerScores]:
    data: Any = Scanner()
    config = AlignConfig(delays=[1], bootstraps=20, block=5)
    everything = {WHOLE: np.arange(VOXELS)}
    heard = dict.fromkeys(data.participants, ("one", "two"))
    question = Question(data, heard, dict.fromkeys(data.participants, everything), config, ceiling=-1.0, permutations=20)
    stages = Stages(tmp_path / "out")
    stages.run_all([responses_stage(question, who) for who in data.participants])
    made = stages.run_all(list(layer_stages(stages.root, question, Variant(Features(), (1,)), data.participants)))
    stages.check()
    return {name.split("/")[2]: load(LayerScores, path / "layer.h5") for name, path in made.items()}


def test_scores_are_those_of_the_scans_that_count(scores: dict[str, LayerScores]) -> None:
    """A ridge by hand, on the rows that count, of features that were delayed before rows were left out."""
    data = Scanner()
    X, Y, runs = {}, {}, []
    for run, rows in ROWS.items():
        kept = data.kept("censored", run)
        features = Features().rows(run, 0).astype(float)
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        late = np.vstack([np.zeros((1, 4)), features[:-1]])
        own = data.responses("censored", run).astype(float)
        if run == "test":
            kept = kept & (np.arange(rows) >= 5)
            X[run], Y[run] = late[kept], own[kept]
        else:
            X[run], Y[run] = late[kept], (own[kept] - own[kept].mean(axis=0)) / own[kept].std(axis=0)
            runs += [run] * int(kept.sum())
    assert len(runs) == 60 + 50 - 6 and len(Y["test"]) == 70 - 5 - 3
    design = np.vstack([X["one"], X["two"]])
    weights = np.linalg.lstsq(design, np.vstack([Y["one"], Y["two"]]), rcond=None)[0]
    by_hand = [np.corrcoef(p, y)[0, 1] for p, y in zip((X["test"] @ weights).T, Y["test"].T, strict=True)]
    np.testing.assert_allclose(scores["censored"].r, by_hand, atol=0.02)
    assert np.mean(scores["censored"].r) > 0.7 and np.mean(scores["whole"].r) > 0.7


def test_rows_are_left_out_after_delays_and_within_runs() -> None:
    kept = {"one": Scanner().kept("censored", "one")}
    with_all = Design(Variant(Features(), (1, 2)), 0, ("one", "two"), [("test", slice(5, 70))], AlignConfig())
    without = Design(Variant(Features(), (1, 2)), 0, ("one", "two"), [("test", slice(5, 70))], AlignConfig(), kept=kept)
    every, some = (np.asarray(design.matrices[0]) for design in (with_all, without))
    np.testing.assert_array_equal(some, every[np.concatenate([kept["one"], np.ones(50, bool)])])
    np.testing.assert_array_equal(without.matrices[2], [0] * 57 + [1] * 50)
    np.testing.assert_array_equal(np.asarray(without.matrices[1]), np.asarray(with_all.matrices[1]))
