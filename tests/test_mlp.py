"""A network beside ridge: planted nonlinearity is found, linear data give none, test rows have no part in any choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks need the extra 'tune'")

import torch

import fastencode
from align_cases import ALPHAS, BLOCK, DELAYS, FIT, SKIP, TR, make_world
from align_cases import REGIONS as WORLD_REGIONS
from fastencode.data.stories import Stories
from fastencode.errors import InputError
from fastencode.runs.engine import Stages
from fastencode.runs.fits import Question, collect, layer_stages, responses_stage
from fastencode.study.brains import mlp
from fastencode.study.brains.design import Design, Variant
from fastencode.study.brains.layer_scores import Listener, load, save, score_layer
from fastencode.study.brains.mlp import MlpScores, inner_split, mlp_against_ridge, mlp_operations, mlp_rows
from fastencode.study.brains.sources import LayerFolder
from fastencode.study.config import AlignConfig, MlpConfig

P, N_VOXELS, TEST = 12, 20, 240
ROWS = {"one": 120, "two": 110, "three": 130, "four": 120}
REGIONS = {"all": np.arange(N_VOXELS), "half": np.arange(N_VOXELS // 2)}
CONFIG = AlignConfig(delays=(0,), alphas=tuple(10.0 ** np.arange(-1, 5)), folds=4, bootstraps=100, block=10)
QUICK = MlpConfig(hidden=(16, 64), weight_decays=(0.01,), learning_rate=3e-3, epochs=60, patience=10)


class Made:
    """Features of runs in memory, as a source of one layer."""

    name, n_layers = "made", 1

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        self._rows = rows

    def rows(self, story: str, layer: int) -> np.ndarray:
        return self._rows[story]

    def key(self, story: str) -> Any:
        return {}

    def files(self, story: str) -> Sequence[Path]:
        return []


def slow(rng: np.random.Generator, n: int, width: int, memory: float) -> np.ndarray:
    """Series of unit variance with an autocorrelation of ``memory``."""
    series = rng.standard_normal((n, width))
    for t in range(1, n):
        series[t] = memory * series[t - 1] + np.sqrt(1 - memory**2) * series[t]
    return series


def problem(
    seed: int, product: float = 0.0, *, noise: float = 1.5, directions: int | None = None, width: int = P
) -> tuple[Design, Listener]:
    """Responses that are linear in the features, plus ``product`` times that of two of them; of few directions where told."""
    rng = np.random.default_rng(seed)
    features = {run: slow(rng, n, width, 0.6).astype(np.float32) for run, n in {**ROWS, "test": TEST}.items()}
    if directions is None:
        weights = rng.standard_normal((width, N_VOXELS)) / np.sqrt(width)
    else:
        both = rng.standard_normal((width, directions)), rng.standard_normal((directions, N_VOXELS))
        weights = both[0] @ both[1] / np.sqrt(width * directions)
    sizes = rng.uniform(0.7, 1.3, N_VOXELS) * rng.choice([-1, 1], N_VOXELS)
    heard = {}
    for run, X in features.items():
        Y = X @ weights + product * X[:, :1] * X[:, 1:2] * sizes + noise * slow(rng, len(X), N_VOXELS, 0.4)
        heard[run] = ((Y - Y.mean(axis=0)) / Y.std(axis=0)).astype(np.float32)
    fit = np.concatenate([heard[run] for run in ROWS])
    listener = Listener(fit, heard["test"], None, REGIONS, runs=np.repeat("test", TEST))
    return Design(Variant(Made(features), (0,)), 0, list(ROWS), [("test", slice(None))], CONFIG), listener


def row(scores: MlpScores, place: int = 0) -> dict[str, Any]:
    return mlp_rows({("A", "made", 0): scores}, {"A": REGIONS})[place]


# -- what it finds


@pytest.mark.parametrize("seed", range(3))
def test_a_product_of_features_is_found(seed: int) -> None:
    found = row(mlp_against_ridge(*problem(seed, product=1.0), CONFIG, QUICK))
    assert found["difference"] > 0.04
    assert found["low"] > 0 and found["beyond_low"] > 0 and found["nonlinear"] is True
    assert found["epochs"] > 1


@pytest.mark.parametrize("seed", range(6))
def test_linear_data_give_no_gain_and_cost_little(seed: int) -> None:
    """At most .01 is lost: a choice on few rows may take a network that is worse on others."""
    found = row(mlp_against_ridge(*problem(seed), CONFIG, QUICK))
    assert found["low"] <= 0
    assert found["difference"] > -0.01
    assert found["nonlinear"] is False


def test_pooling_over_voxels_is_not_taken_for_a_nonlinearity() -> None:
    """Few rows for many columns, voxels of two directions: networks beat ridge on linear data, with and without activation."""
    found = [row(mlp_against_ridge(*problem(seed, directions=2, width=200), CONFIG, QUICK)) for seed in (2, 3, 5)]
    assert max(one["r_linear"] - one["r_ridge"] for one in found) > 0.01
    assert not any(one["nonlinear"] for one in found)


# -- that it is what it says


def test_ridge_is_that_of_score_layer_and_draws_are_its() -> None:
    design, listener = problem(0, product=1.0)
    found = mlp_against_ridge(design, listener, CONFIG, replace(QUICK, hidden=(16,), linear=False))
    wanted = score_layer(design.plan, design.matrices[1], listener, CONFIG, permutations=1)
    np.testing.assert_allclose(found.ridge, wanted.region, atol=1e-6)
    np.testing.assert_allclose(found.draws[:, 0], wanted.draws, atol=1e-6)
    np.testing.assert_allclose(found.r_ridge, wanted.r, atol=1e-6)
    for place, voxels in enumerate(REGIONS.values()):
        assert found.mlp[place] == pytest.approx(found.r_mlp[voxels].mean(), abs=1e-6)
    assert found.n_blocks == wanted.n_blocks
    assert np.isnan(found.linear).all() and np.isnan(found.draws[:, 2]).all()
    table = row(found)
    assert table["nonlinear"] is None and np.isnan([table["r_linear"], table["beyond_low"]]).all()


def test_no_epochs_are_exactly_ridge() -> None:
    """A learning rate that does nothing but harm: nothing beats ridge on the watched rows."""
    found = mlp_against_ridge(*problem(1), CONFIG, replace(QUICK, learning_rate=10.0, epochs=2))
    assert (found.epochs == 0).all()
    np.testing.assert_array_equal(found.mlp, found.ridge)
    np.testing.assert_array_equal(found.draws[:, 1], found.draws[:, 0])
    assert row(found)["difference"] == row(found)["low"] == row(found)["high"] == 0


def test_test_rows_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other responses to the test run, and other features of it: the same settings, epochs and scores on the inner rows."""
    design, listener = problem(2, product=1.0)
    first = mlp_against_ridge(design, listener, CONFIG, QUICK)
    shuffled = replace(listener, test=np.random.default_rng(0).permutation(listener.test))
    other = Design(
        Variant(Made({**design._variant.source._rows, "test": np.ones((TEST, P), np.float32)}), (0,)),  # type: ignore[union-attr]
        0,
        list(ROWS),
        [("test", slice(None))],
        CONFIG,
    )
    for again in (mlp_against_ridge(design, shuffled, CONFIG, QUICK), mlp_against_ridge(other, listener, CONFIG, QUICK)):
        for name in ("hidden", "weight_decay", "epochs", "inner"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert np.abs(again.mlp).max() < 0.2 < first.mlp.min()


def test_ridge_on_the_inner_rows_has_not_seen_those_it_is_compared_on() -> None:
    """Its score there is that of a ridge fitted by hand on the first three runs."""
    design, listener = problem(3, product=1.0)
    found = mlp_against_ridge(design, listener, CONFIG, QUICK)
    X, _, labels = design.matrices
    inner, watched = inner_split(labels, QUICK.held_out, 0)
    assert set(labels[watched]) == {3} and set(labels[inner]) == {0, 1, 2}
    X = np.asarray(X)
    fit = fastencode.ridge_cv(
        X[inner], listener.fit[inner], alphas=CONFIG.alphas, cv=3, runs=labels[inner], scoring="pearson"
    )  # fmt: skip
    wanted = fastencode.pearson(listener.fit[watched], fit.predict(X[watched])).mean()
    np.testing.assert_allclose(found.inner[:, :, 0], wanted, atol=1e-6)
    assert (found.inner[0, :, 1] > found.inner[0, :, 0]).all()


def test_networks_learn_what_ridge_leaves_over_on_rows_that_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the network, of its rows: held-out predictions of ridge, on all fit rows and on the inner ones."""
    design, listener = problem(3)
    parts = []
    epochs = mlp._epochs
    monkeypatch.setattr(mlp, "_epochs", lambda part, *others: (parts.append(part), epochs(part, *others))[1])
    found = mlp_against_ridge(design, listener, CONFIG, replace(QUICK, hidden=(16,), epochs=1, learning_rate=1e-5))
    assert found.epochs.all(), "so small a step is taken"
    X, _, labels = design.matrices
    rows, options = np.asarray(X), {"alphas": CONFIG.alphas, "scoring": "pearson", "cv_predictions": True}
    inner = np.flatnonzero(labels < 3)
    for part, kept, folds in ((parts[0], inner, 3), (parts[1], np.arange(len(rows)), 4)):
        fit = fastencode.ridge_cv(rows[kept], listener.fit[kept], cv=folds, runs=labels[kept], **options)
        np.testing.assert_allclose(part.base.numpy(), fit.cv_predictions, atol=1e-5)
        np.testing.assert_array_equal(part.Y.numpy(), listener.fit[kept])
        np.testing.assert_allclose(part.X.numpy().std(axis=0), 1, rtol=1e-4)
    assert len(parts) == 4, "chosen and trained, with and without activation"


def test_seeds_are_networks_of_their_own_and_chance_is_theirs() -> None:
    design, listener = problem(4, product=1.0)
    quick = replace(QUICK, hidden=(16,), linear=False)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = (mlp_against_ridge(design, listener, CONFIG, replace(quick, seeds=(seed,))) for seed in (3, 4))
    both = mlp_against_ridge(design, listener, CONFIG, replace(quick, seeds=(3, 4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert (one.mlp != other.mlp).all()
    np.testing.assert_allclose(both.mlp, (one.mlp + other.mlp) / 2)
    np.testing.assert_allclose(both.draws[:, 1], (one.draws[:, 1] + other.draws[:, 1]) / 2)
    np.testing.assert_array_equal(both.epochs[0], [*one.epochs[0], *other.epochs[0]])
    assert both.epochs.shape == (2, 2)


def test_settings_are_counted(tmp_path: Path) -> None:
    many = replace(QUICK, hidden=(4, 8, 16), weight_decays=(0.0, 0.1), epochs=1)
    found = mlp_against_ridge(*problem(0), CONFIG, many)
    assert found.n_settings == many.n_settings == row(found)["settings"] == 6
    save(found, tmp_path / "layer.h5")
    again = load(MlpScores, tmp_path / "layer.h5")
    np.testing.assert_array_equal(again.draws, found.draws)
    np.testing.assert_array_equal(again.epochs, found.epochs)
    assert (tmp_path / "layer.h5").stat().st_size < 50_000
    half = row(found, 1)
    assert (half["region"], half["participant"], half["model"], half["layer"]) == ("half", "A", "made", 0)
    assert half["r_ridge"] == found.ridge[1]
    assert mlp_operations(100, 10, 5, replace(many, linear=True)) == 2 * mlp_operations(100, 10, 5, replace(many, linear=False))


def test_the_stage_stands_beside_the_fits(tmp_path: Path) -> None:
    """One design for both: the ridge of the network's stage is that of the fit, and both are collected; nothing is made twice."""
    world = make_world(tmp_path / "world")
    data = Stories(world, tr=TR, test_story="test", test_skip=SKIP)
    align = AlignConfig(delays=DELAYS, alphas=ALPHAS, folds=3, bootstraps=20, block=BLOCK)
    heard = dict.fromkeys(("A", "B"), FIT)
    regions = {who: {name: np.array(voxels) for name, voxels in WORLD_REGIONS.items()} for who in heard}
    quick = MlpConfig(hidden=(8,), weight_decays=(0.01,), epochs=3, linear=False)
    question = Question(data, heard, regions, align, ceiling=-1, permutations=9, mlp=quick)
    source = LayerFolder(world / "features" / "model", data, lobes=align.lobes, used=(*FIT, "test"))
    stages = Stages(tmp_path / "out")
    wanted = [responses_stage(question, who) for who in heard]
    wanted += layer_stages(stages.root, question, Variant(source, DELAYS), tuple(heard))
    wanted += layer_stages(stages.root, question, Variant(source, (1,)), tuple(heard))  # at another lag: no network
    stages.run_all(wanted)
    stages.check()
    assert sum(stage.name.startswith("mlp/") for stage in wanted) == 4
    found = collect(stages, question.shared("test_story", "test_skip"), (), lambda label: label.name)
    assert len(found.mlp) == 4 and len(found.scores) == 8
    for key, scores in found.mlp.items():
        np.testing.assert_allclose(scores.ridge, found.scores[key].region, atol=1e-6)
        np.testing.assert_allclose(scores.draws[:, 0], found.scores[key].draws, atol=1e-6)
    assert stages.missing(wanted) == []
    other = replace(question, mlp=replace(quick, hidden=(4,)))
    again = list(layer_stages(stages.root, other, Variant(source, DELAYS), tuple(heard)))
    assert {name.partition("/")[0] for name in stages.missing(again)} == {"mlp"}


# -- inner rows, bad input


def test_inner_rows_are_whole_runs_or_the_end() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 20, 10, 20])
    learned, chosen = inner_split(labels, 0.3, 4)
    assert (learned[-1], chosen[0], chosen[-1]) == (69, 70, 99)
    assert inner_split(labels, 0.01, 4)[1][0] == 80, "at least one run"
    assert inner_split(labels, 0.99, 4)[0][-1] == 49, "at most all but one"
    learned, chosen = inner_split(np.zeros(100), 0.2, 4)
    assert (learned[-1], chosen[0]) == (75, 80)
    with pytest.raises(InputError, match="20 fit rows"):
        inner_split(np.zeros(20), 0.1, 0)


def test_rows_that_do_not_match_are_refused() -> None:
    design, listener = problem(0)
    with pytest.raises(InputError, match="trimming"):
        mlp_against_ridge(design, replace(listener, test=listener.test[1:]), CONFIG, QUICK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": ()}, {"hidden": (0,)}, {"hidden": (4, 4)}, {"weight_decays": (-1.0,)}, {"weight_decays": (float("nan"),)},
        {"seeds": ()}, {"epochs": 0}, {"patience": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"held_out": 1.0},
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MlpConfig(**wrong)
