"""fastencode-tune align: every number of the main tables once more, from the files on disk, with naive code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.stats

import reference
import reference_timing
from fastencode.cli import main

for library in ("torch", "transformers", "jsonargparse"):
    pytest.importorskip(library, reason="the command needs the extra 'demo'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("no_pictures")

# Stories differ in length, and not everybody heard all; C heard the test once and has a voxel that never changes; B has a gap.
ROWS = {"one": 44, "two": 57, "three": 39, "test": 76}
HEARD = {"A": ("one", "three", "two"), "B": ("one", "three", "two"), "C": ("one", "two")}
REPEATS = {"A": 5, "B": 4, "C": 1}
REGIONS = {"driven": [0, 1, 2, 3], "noise": [4, 5, 6], "single": [0]}
TR, SKIP, BLOCK, PERMUTATIONS = 1.5, 6, 10, 199
DELAYS, ALPHAS, FOLDS = (1, 2, 3), (1.0, 30.0, 1000.0), 2


def walk(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Noise that remembers, around a mean far from 0."""
    noise = rng.standard_normal(shape)
    for t in range(1, shape[0]):
        noise[t] += 0.5 * noise[t - 1]
    return noise + 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stories in the layout of ds003020 and features of two models, two layers each: windows and clips."""
    root, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    for folder in ("features/pretrained", "features/tuned", "preprocessed_data", "stimuli", "TextGrids", "rois"):
        (root / folder).mkdir(parents=True)
    (root / "respdict.json").write_text(json.dumps({story: n + 20 for story, n in ROWS.items()}))
    drive = {}
    for story, n in ROWS.items():
        for name, key, step in (
            ("pretrained", {"input": "window", "pool": "last"}, 0.5),
            ("tuned", {"input": "clip", "tr": TR, "pool": "mean"}, TR),
        ):
            times = np.arange(1, int((n + 10) * TR / step) + 1) * step
            with h5py.File(root / "features" / name / f"{story}.h5", "w") as file:
                file["times"], file["features"] = times, walk(rng, len(times), 2, 3).astype(np.float32)
                file.attrs["key"] = json.dumps(key)
                drive[story] = file["features"][5 : 5 + n, 1].astype(float)
    for who, fit in HEARD.items():
        weights = rng.standard_normal((3 * 3, 4))
        (root / "preprocessed_data" / who).mkdir()
        (root / "rois" / f"{who}.json").write_text(json.dumps(REGIONS))
        for story in (*fit, "test"):
            signal = np.zeros((ROWS[story], 7))
            signal[:, :4] = reference_timing.delay(drive[story] - 3, DELAYS, np.zeros(ROWS[story])) @ weights
            heard = signal + 3 * (walk(rng, ROWS[story], REPEATS[who] if story == "test" else 1, 7).swapaxes(0, 1) - 3)
            if who == "C":
                heard[:, :, 2] = 5.0
            elif who == "B" and story == "two":
                heard[:, 9, 1] = np.nan
            with h5py.File(root / "preprocessed_data" / who / f"{story}.hf5", "w") as file:
                file["data"] = heard.mean(axis=0)
                if len(heard) > 1:
                    file["individual_repeats"] = heard
    return root


def align(world: Path, out: Path, *more: str) -> int:
    given = {"stories": world, "out": out, "test_story": "test", "test_skip": SKIP, "tr": TR, "permutations": PERMUTATIONS}
    given |= {"align.alphas": json.dumps(ALPHAS), "align.delays": json.dumps(DELAYS), "align.folds": FOLDS}
    models = json.dumps([str(world / "features" / name) for name in ("pretrained", "tuned")])
    given |= {"align.block": BLOCK, "align.bootstraps": 20, "features": models}
    kept = {f"--{name}": str(value) for name, value in given.items() if f"--{name}" not in more}
    return main(["align", *(part for option in kept.items() for part in option), *more])


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    assert align(world, out) == 0
    return out


def normal(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def delayed(world: Path, model: str, layer: int, story: str) -> np.ndarray:
    with h5py.File(world / "features" / model / f"{story}.h5") as file:
        values, times = file["features"][:, layer].astype(float), file["times"][:]
    middles = TR * (np.arange(ROWS[story]) + 5.5)
    windows = model == "pretrained"
    rows = reference_timing.lanczos(values, times, middles)[0] if windows else values[5 : 5 + ROWS[story]]
    return reference_timing.delay(normal(rows), DELAYS, np.zeros(len(rows)))


def by_hand(world: Path, who: str, model: str, layer: int) -> dict[str, dict[str, float]]:
    """Region → what its row of scores.csv should hold: nothing but loops over stories, folds, penalties and voxels."""
    responses = {}
    for story in (*HEARD[who], "test"):
        with h5py.File(world / "preprocessed_data" / who / f"{story}.hf5") as file:
            responses[story] = file["data"][:]
            repeats = file["individual_repeats"][:, SKIP:] if "individual_repeats" in file else None
    measured = responses.pop("test")[SKIP:]
    ceiling = None if repeats is None else reference_timing.noise_ceiling(repeats)
    agree = None if repeats is None else reference_timing.agreeing(repeats)
    usable = [
        v
        for v in range(7)
        if (ceiling is None or (ceiling[v] > 0.05 and agree[v])) and np.isfinite(measured[:, v]).all()
        if np.ptp(measured[:, v]) > 0
        if all(np.isfinite(rows[:, v]).all() for rows in responses.values())
    ]
    X = np.vstack([delayed(world, model, layer, story) for story in HEARD[who]])
    Y = np.vstack([normal(responses[story][:, usable]) for story in HEARD[who]])
    longest = np.repeat([story == "two" for story in HEARD[who]], [ROWS[story] for story in HEARD[who]])
    folds = [(np.flatnonzero(longest != held), np.flatnonzero(longest == held)) for held in (True, False)]
    cv = reference.cv_scores(X, Y, ALPHAS, folds, "pearson", True)
    best = len(ALPHAS) - 1 - cv[::-1].argmax(axis=0)
    X_test, r, p = delayed(world, model, layer, "test")[SKIP:], {}, {}
    whole = len(measured) // BLOCK * BLOCK
    for place, v in enumerate(usable):
        coef, constant = reference.weights(X, Y[:, place], ALPHAS[best[place]], True)
        predicted = X_test @ coef + constant
        r[v] = reference.pearson(measured[:, v], predicted)
        reached, rng = 1, np.random.default_rng(0)
        of_y, of_p = normal(measured[:, [v]])[:, 0], normal(predicted[:whole, None])[:, 0]
        for _ in range(PERMUTATIONS):
            turn = rng.integers(len(measured))
            rows = (turn + rng.permutation(whole // BLOCK)[:, None] * BLOCK + np.arange(BLOCK)).ravel() % len(measured)
            now, before = (np.mean(of_y[at] * of_p) for at in (rows, np.arange(whole)))
            reached += now >= before - 1e-9
        p[v] = reached / (1 + PERMUTATIONS)
    order = sorted(p, key=lambda v: p[v])
    q = {v: min(p[w] * len(p) / (k + 1) for k, w in enumerate(order) if k >= place) for place, v in enumerate(order)}
    rows_of = {}
    for region, voxels in {"all": usable, **REGIONS}.items():
        if not (inside := [v for v in voxels if v in usable]):
            continue
        alphas = [ALPHAS[best[usable.index(v)]] for v in inside]
        rows_of[region] = {
            "fit_rows": sum(ROWS[story] for story in HEARD[who]),
            "n_voxels": len(inside),
            "r": np.mean([r[v] for v in inside]),
            "r_normalized": np.nan if ceiling is None else np.mean([r[v] for v in inside]) / np.mean(ceiling[inside]),
            "ceiling": np.nan if ceiling is None else np.mean(ceiling[inside]),
            "r_over_ceiling": np.nan if ceiling is None else np.mean([r[v] / ceiling[v] for v in inside]),
            "significant": np.mean([q[v] <= 0.05 for v in inside]),
            "alpha_median": np.median(alphas),
            "at_edge": np.mean([alpha in (ALPHAS[0], ALPHAS[-1]) for alpha in alphas]),
        }
    return rows_of


def test_every_score_is_that_of_naive_code(world: Path, finished: Path) -> None:
    keys = ["participant", "model", "layer", "region"]
    table = pd.read_csv(finished / "scores.csv")
    order = {key: list(rows) for key, rows in table.groupby(keys[:-1])["region"]}
    table = table.set_index(keys).sort_index()
    seen = 0
    for who in HEARD:
        for model in ("pretrained", "tuned"):
            for layer in range(2):
                wanted = by_hand(world, who, model, layer)
                assert order[who, model, layer] == list(wanted)
                for region, row in wanted.items():
                    found = table.loc[who, model, layer, region]
                    np.testing.assert_allclose(found[list(row)].astype(float), list(row.values()), atol=2e-5, err_msg=region)
                    assert row["n_voxels"] < 3 or found["r_low"] <= found["r"] <= found["r_high"]
                    seen += 1
    assert seen == len(table) and table["r"].max() > 0.6 and table["significant"].max() == 1
    assert table.loc["C", "tuned", 1, "driven"]["n_voxels"] == 3, "a constant voxel is no score of 0"
    normalized = table[table["r_normalized"].notna()]
    assert (normalized["r_normalized_low"] < normalized["r_normalized_high"]).all()


def test_differences_and_tests_follow_from_the_scores(finished: Path) -> None:
    scores, contrasts, tests = (pd.read_csv(finished / f"{name}.csv") for name in ("scores", "contrasts", "tests"))
    r = scores.set_index(["model", "participant", "layer", "region"])["r"]
    keys = list(zip(contrasts["participant"], contrasts["layer"], contrasts["region"], strict=True))
    wanted = [r["tuned", who, layer, region] - r["pretrained", who, layer, region] for who, layer, region in keys]
    np.testing.assert_allclose(contrasts["difference"], wanted, atol=1e-12)
    driven = contrasts.query("region == 'driven' and layer == 1")["difference"]
    assert (driven > 0.2).all(), "tuned less pretrained: the tuned model's last layer made the responses"
    for name, column, versus in ((scores, "r", "0"), (contrasts, "difference", "pretrained")):
        for model, family in tests[tests["versus"] == versus].groupby("model"):
            p = []
            for row in family.itertuples():
                here = name.query(f"model == '{model}' and layer == {row.layer} and region == '{row.region}'")[column]
                p.append(scipy.stats.wilcoxon(here).pvalue)
                assert row.participants == len(here) and row.p_smallest == 2.0 ** (1 - len(here))
            np.testing.assert_allclose(family["p"], p, rtol=1e-12)
            ranks = scipy.stats.rankdata(p, method="max")
            q = [min(p[j] * len(p) / ranks[j] for j in range(len(p)) if p[j] >= p[i]) for i in range(len(p))]
            np.testing.assert_allclose(family["q"], q, rtol=1e-12)


def test_models_of_one_layer_are_models(world: Path, finished: Path, tmp_path: Path) -> None:
    """Whether something is a model is not how many layers it has."""
    single = tmp_path / "world"
    shutil.copytree(world, single)
    for path in (single / "features").rglob("*.h5"):
        with h5py.File(path, "r+") as file:
            layer = file["features"][:, 1:]
            del file["features"]
            file["features"] = layer
    assert align(single, tmp_path / "out") == 0
    found, whole = (pd.read_csv(out / "contrasts.csv") for out in (tmp_path / "out", finished))
    np.testing.assert_allclose(found["difference"], whole.query("layer == 1")["difference"], atol=1e-6)


def test_what_cannot_be_told_apart_is_refused(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(world / "features" / "tuned", tmp_path / "time")
    folders = json.dumps([str(world / "features" / "pretrained"), str(tmp_path / "time")])
    assert align(world, tmp_path / "out", "--features", folders, "--baselines", "time") == 2
    assert "'time' and 'time' cannot be told apart in time-at-1-2-3: rename a folder of features" in capsys.readouterr().err


def test_voxels_are_counted_and_mapped_without_a_ceiling_where_asked(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(world / "preprocessed_data" / "A" / "test.hf5") as file:
        repeats = file["individual_repeats"][:, SKIP:]
    ceiling = reference_timing.noise_ceiling(repeats)
    mapped = (ceiling > 0.05) & reference_timing.agreeing(repeats)
    counts = mapped.sum(), (~mapped).sum(), (ceiling == 0).sum()
    assert align(world, tmp_path / "a", "--participants", "A,C") == 0 and counts[2]
    told = capsys.readouterr().out
    line = "A: {} of 7 voxels are mapped; {} have no significant noise ceiling above 0.05; {} voxel has a noise ceiling of 0\n"
    assert line.format(*counts) in told and counts[2] == 1
    assert "C: 6 of 7 voxels are mapped; 1 are constant or hold values that are not finite\n" in told
    assert align(world, tmp_path / "b", "--ceiling", "-1", "--participants", "A") == 0
    assert "A: 7 of 7 voxels are mapped; 1 voxel has" in (told := capsys.readouterr().out) and "have no" not in told
    table = pd.read_csv(tmp_path / "b" / "scores.csv").set_index(["model", "layer", "region"])
    assert (table.xs("all", level="region")["n_voxels"] == 7).all()
    inside = np.mean(ceiling[REGIONS["noise"]] > 0)
    assert table["r_normalized"].xs("noise", level="region").isna().all() == (inside == 0)


def test_grids_that_cost_score_are_named(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the rule of ``ridge_cv``, for each model; not the share of voxels whose penalty lies at an edge."""
    for name, alphas, wanted in (("large", [1e9, 1e10], "smaller"), ("wide", [10.0**k for k in range(-3, 8)], None)):
        assert align(world, tmp_path / name, "--align.alphas", json.dumps(alphas)) == 0
        told = [line for line in capsys.readouterr().err.splitlines() if "align.alphas" in line]
        assert len(told) == (2 if wanted else 0)
        for model, line in zip(("pretrained", "tuned"), told, strict=False):
            assert re.search(
                rf"{model}: in (\d+) of \1 fits {wanted} penalties than those of the grid would predict better", line
            )
