"""fastencode-tune align with several test stories, and with stories left out one by one, against naive float64 code."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import reference
import reference_timing
from align_cases import ALPHAS, BLOCK, DELAYS, FIT, N_VOXELS, REGIONS, ROWS, SKIP, TR, align, make_world
from fastencode.cli import main
from fastencode.runs.responses import load_listener

pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'tune'")

pytestmark = pytest.mark.usefixtures("no_pictures")

TESTS = ("test", "later")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    assert align(world, out, "--test_story", "test,later", "--leave_one_out", "--partition", "time", "--candidates", "2") == 0
    return out


def normal(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def features(world: Path, layer: int, story: str) -> np.ndarray:
    with h5py.File(world / "features" / "model" / f"{story}.h5") as file:
        values, times = file["features"][:, layer].astype(float), file["times"][:]
    rows = reference_timing.lanczos(values, times, TR * (np.arange(ROWS[story]) + 5.5))[0]
    return reference_timing.delay(normal(rows), DELAYS, np.zeros(len(rows)))


def heard(world: Path, who: str, story: str, key: str = "data") -> np.ndarray:
    with h5py.File(world / "preprocessed_data" / who / f"{story}.hf5") as file:
        return file[key][:]


def predicted(world: Path, who: str, layer: int, fit: tuple[str, ...], story: str) -> np.ndarray:
    """By a ridge on some stories, its penalties chosen by leaving each of them out in turn."""
    X = np.vstack([features(world, layer, one) for one in fit])
    Y = np.vstack([normal(heard(world, who, one)) for one in fit])
    runs = np.repeat(np.arange(len(fit)), [ROWS[one] for one in fit])
    folds = [(np.flatnonzero(runs != run), np.flatnonzero(runs == run)) for run in range(len(fit))]
    scores = reference.cv_scores(X, Y, ALPHAS, folds, "pearson", True)
    best = len(ALPHAS) - 1 - scores[::-1].argmax(axis=0)
    found = np.empty((ROWS[story], N_VOXELS))
    for v in range(N_VOXELS):
        coef, constant = reference.weights(X, Y[:, v], ALPHAS[best[v]], True)
        found[:, v] = features(world, layer, story) @ coef + constant
    return found


def correlations(Y: np.ndarray, P: np.ndarray) -> np.ndarray:
    return np.array([reference.pearson(y, p) for y, p in zip(Y.T, P.T, strict=True)])


def test_test_stories_are_scored_by_themselves_and_together(world: Path, finished: Path) -> None:
    together = pd.read_csv(finished / "scores.csv").set_index(["participant", "layer", "region"])
    alone = pd.read_csv(finished / "test_stories.csv").set_index(["test_story", "participant", "layer", "region"])
    assert set(alone.index.get_level_values(0)) == set(TESTS) and len(alone) == 2 * len(together)
    for who in ("A", "B"):
        for layer in range(2):
            Y = {story: heard(world, who, story)[SKIP:] for story in TESTS}
            P = {story: predicted(world, who, layer, FIT, story)[SKIP:] for story in TESTS}
            both = [np.vstack([normal(of[story]) for story in TESTS]) for of in (Y, P)]
            repeats = {}
            for story in TESTS:
                r = correlations(Y[story], P[story])
                row = alone.loc[story, who, layer, "driven"]
                np.testing.assert_allclose(row["r"], r[REGIONS["driven"]].mean(), atol=2e-5)
                if story == "later" and who == "B":
                    assert np.isnan(row["r_normalized"]), "it was heard once"
                    continue
                repeats[story] = heard(world, who, story, "individual_repeats")[:, SKIP:]
                ceiling = reference_timing.noise_ceiling(repeats[story])
                np.testing.assert_allclose(row["ceiling"], ceiling[REGIONS["driven"]].mean(), atol=1e-5)
            row = together.loc[who, layer, "driven"]
            np.testing.assert_allclose(row["r"], correlations(*both)[REGIONS["driven"]].mean(), atol=2e-5)
            assert row["fit_rows"] == sum(ROWS[story] for story in FIT)
            if who == "B":
                assert np.isnan(row["r_normalized"]), "there is no ceiling of all rows"
                continue
            ceiling = reference_timing.joint_ceiling(list(repeats.values()))
            np.testing.assert_allclose(row["r_normalized"], row["r"] / ceiling[REGIONS["driven"]].mean(), atol=1e-5)
    assert together.loc["A", 1, "driven"]["r"] > 0.3


def test_stories_left_out_are_predicted_by_the_others_alone(world: Path, finished: Path) -> None:
    table = pd.read_csv(finished / "leave_one_out.csv").set_index(["participant", "layer", "region", "story"])
    assert len(table) == 2 * 2 * 3 * (len(FIT) + 1)
    for who in ("A", "B"):
        for layer in range(2):
            rs = []
            for story in FIT:
                others = tuple(one for one in FIT if one != story)
                r = correlations(heard(world, who, story), predicted(world, who, layer, others, story))
                rs.append(r[REGIONS["driven"]].mean())
                row = table.loc[who, layer, "driven", story]
                np.testing.assert_allclose(row["r"], rs[-1], atol=2e-5, err_msg=f"{who}, {layer}, {story}")
                assert row["rows"] == ROWS[story] and row["n_voxels"] == 4
            mean = table.loc[who, layer, "driven", "mean"]
            np.testing.assert_allclose(mean["r"], np.mean(rs), atol=2e-5)
            np.testing.assert_allclose(mean["standard_deviation"], np.std(rs, ddof=1), atol=2e-5)
    assert table.loc["A", 1, "driven", "mean"]["r"] > 0.2


def test_every_voxel_has_its_score_on_each_story(world: Path, finished: Path) -> None:
    """In voxels/, beside those of all test stories together."""
    for who in ("A", "B"):
        with h5py.File(finished / "voxels" / f"{who}.h5") as file:
            assert set(file["ceilings"]) == ({"test", "later"} if who == "A" else {"test"})
            group = file["model-at-1-2"]
            assert set(group["test_stories"]) == set(TESTS) and set(group["leave_one_out"]) == set(FIT)
            for story in TESTS:
                wanted = correlations(heard(world, who, story)[SKIP:], predicted(world, who, 1, FIT, story)[SKIP:])
                np.testing.assert_allclose(group["test_stories"][story]["r"][1], wanted, atol=2e-5)
            for story in FIT:
                others = tuple(one for one in FIT if one != story)
                wanted = correlations(heard(world, who, story), predicted(world, who, 1, others, story))
                np.testing.assert_allclose(group["leave_one_out"][story]["r"][1], wanted, atol=2e-5)
                assert set(group["leave_one_out"][story]["alpha"][1]) <= set(ALPHAS)
            for story in file["ceilings"]:
                wanted = reference_timing.noise_ceiling(heard(world, who, story, "individual_repeats")[:, SKIP:])
                np.testing.assert_allclose(file["ceilings"][story][...], wanted, atol=1e-5)


def test_the_page_shows_each_story(finished: Path) -> None:
    page = (finished / "index.html").read_text(encoding="utf-8")
    for name, n in (("test_stories", "n = 2 participants, 2 stories."), ("leave_one_out", "n = 2 participants, 3 stories.")):
        table = pd.read_csv(finished / f"{name}.csv")
        part = page[page.index(f"({len(table)} rows of {name}.csv, rounded)") :].split("</details>")[0]
        assert n in part and "95 % interval" in part and part.count("<tr>") == 1 + len(table)
        story, column = ("later", "test_story") if name == "test_stories" else ("three", "story")
        row = table[table[column] == story].iloc[3]
        written = f"{row['r']:.3f}".replace("-", "−")
        assert any(f">{story}<" in line and f">{written}<" in line for line in part.split("<tr>"))


def test_responses_that_follow_nothing_are_not_predicted_from_themselves(world: Path, tmp_path: Path) -> None:
    """Noise in one story that no other story shares scores about 0 there; a leak of any kind would show."""
    noise = make_world(tmp_path / "noise")
    rng, who = np.random.default_rng(1), "A"
    for story in FIT:
        with h5py.File(noise / "preprocessed_data" / who / f"{story}.hf5", "r+") as file:
            file["data"][...] = rng.standard_normal(file["data"].shape)
    assert align(noise, tmp_path / "out", "--participants", who, "--leave_one_out", "--align.alphas", "[0.001,0.01]") == 0
    table = pd.read_csv(tmp_path / "out" / "leave_one_out.csv")
    rows = table[(table["region"] == "all") & (table["story"] != "mean")]
    assert rows["r"].abs().max() < 3 / np.sqrt(min(ROWS[story] for story in FIT) * N_VOXELS)


def test_what_is_kept_of_several_test_stories(finished: Path) -> None:
    listener = load_listener(finished / "responses" / "B")
    assert [run for run, _, _ in listener.each_run()] == list(TESTS)
    assert listener.ceiling is None and [one is None for one in listener.signals] == [False, True]
    partition = pd.read_csv(finished / "partition.csv")
    assert set(partition["part"]) == {"total", "unique", "shared"} and partition["r2"].notna().all()


def test_one_test_story_is_named_alone_or_in_a_list(world: Path, tmp_path: Path) -> None:
    """In a settings file, too; the tables are the same, and nothing is fitted twice."""
    out = tmp_path / "out"
    assert align(world, out) == 0
    before = {name: (out / name).read_bytes() for name in ("scores.csv", "tests.csv")}
    made = {path: path.stat().st_mtime_ns for path in out.rglob("stage.json")}
    assert not (out / "test_stories.csv").exists() and not (out / "leave_one_out.csv").exists()
    written = (out / "config.yaml").read_text()
    for text in (written, written.replace("test_story:\n- test\n", "test_story: test\n")):
        assert ("- test\n" in text) == (text is written)
        (tmp_path / "config.yaml").write_text(text)
        assert main(["align", "--config", str(tmp_path / "config.yaml")]) == 0
        assert {name: (out / name).read_bytes() for name in before} == before
    assert made == {path: path.stat().st_mtime_ns for path in out.rglob("stage.json")}


def test_settings_of_statistics_make_no_ridge_again_that_knows_none(world: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    made = {path.relative_to(out): path.stat().st_mtime_ns for path in out.rglob("stage.json")}
    more = ("--test_story", "test,later", "--leave_one_out", "--partition", "time", "--candidates", "2")
    assert align(world, out, *more, "--align.bootstraps", "21") == 0
    again = {path for path, time in made.items() if (out / path).stat().st_mtime_ns != time}
    assert {path.parts[0] for path in again} == {"fits", "partitions"}
    left_out = [(folder / "leave_one_out.csv").read_bytes() for folder in (out, finished)]
    assert left_out[0] == left_out[1] and len(pd.read_csv(out / "leave_one_out.csv"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--test_story", "test,test"), "--test-story names test more than once"),
        (("--test_story", "test,nostory"), "A has no responses to the test story 'nostory'"),
        (("--exclude", "one,two,later", "--leave_one_out"), "--leave-one-out needs two stories to fit on, A has three"),
        (("--test_story", "test,later", "--test_skip", "55"), "later has 50 rows, test_skip leaves out 55 of each test story"),
    ],
)
def test_what_does_not_go_is_said(world: Path, more: tuple[str, ...], told: str, tmp_path: Path, capsys) -> None:
    assert align(world, tmp_path / "out", *more) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_story_alone_scores_as_beside_another(world: Path, finished: Path, tmp_path: Path) -> None:
    """Each by itself scores the same in the table of several and where it is the only one that is scored."""
    for story, other in (TESTS, TESTS[::-1]):
        assert align(world, tmp_path / story, "--test_story", story, "--exclude", other) == 0
        one = pd.read_csv(tmp_path / story / "scores.csv")
        several = pd.read_csv(finished / "test_stories.csv").query("test_story == @story").drop(columns="test_story")
        pd.testing.assert_frame_equal(several.reset_index(drop=True), one, rtol=1e-4, atol=1e-6)


def test_predictions_are_kept_with_what_they_are_of(world: Path, tmp_path: Path) -> None:
    more = ["--save_predictions", "--participants", "A", "--ceiling", "0.05", "--test_story", "test,later"]
    assert align(world, tmp_path, *more) == 0
    for layer in range(2):
        with h5py.File(tmp_path / "predictions" / "model-at-1-2" / "A" / f"layer-{layer:02d}" / "predictions.h5") as file:
            found, names = {name: file[name][...] for name in file}, dict(file.attrs)
            stories = file["story"].asstr()[...]
        voxels = found["voxels"]
        assert 0 < len(voxels) < N_VOXELS and found["predicted"].dtype == found["measured"].dtype == np.float32
        assert (names["participant"], names["model"], names["layer"]) == ("A", "model", layer)
        assert tuple(names["delays"]) == DELAYS and found["alpha"].shape == voxels.shape
        for story in TESTS:
            here = stories == story
            np.testing.assert_allclose(found["times"][here], TR * (np.arange(SKIP, ROWS[story]) + 5))
            np.testing.assert_allclose(found["measured"][here], heard(world, "A", story)[SKIP:, voxels], atol=1e-5)
            wanted = predicted(world, "A", layer, FIT, story)[SKIP:, voxels]
            np.testing.assert_allclose(found["predicted"][here], wanted, atol=1e-4)
    before = (tmp_path / "scores.csv").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("stage.json")}
    assert align(world, tmp_path, *more[1:]) == 0 and (tmp_path / "scores.csv").read_bytes() == before
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("stage.json")}


def test_the_autocorrelation_of_the_null_stands_beside_that_of_the_responses(world: Path, finished: Path) -> None:
    table = pd.read_csv(finished / "autocorrelation.csv").set_index("participant")
    assert list(table.index) == ["A", "B"]
    for who, row in table.iterrows():
        parts = [normal(heard(world, str(who), story)[SKIP:]) for story in TESTS]
        lengths, joined = [len(part) for part in parts], np.vstack(parts)
        assert row["scans"] == sum(lengths) and row["block"] == BLOCK

        def lag(rows: np.ndarray) -> float:
            rows = rows - rows.mean(axis=0)
            return float(np.mean((rows[1:] * rows[:-1]).sum(axis=0) / (rows**2).sum(axis=0)))

        rng = np.random.default_rng(0)
        tables = [[(rng.integers(n), rng.permutation(n // BLOCK)) for _ in range(20)] for n in lengths]
        found = []
        for j in range(20):
            rows = []
            for first, n, drawn in zip((0, lengths[0]), lengths, tables, strict=True):
                turn, order = drawn[j]
                rows += [first + (turn + i * BLOCK + k) % n for i in order for k in range(BLOCK)]
            found.append(lag(joined[rows]))
        np.testing.assert_allclose([row["responses"], row["permuted"]], [lag(joined), np.mean(found)], atol=1e-5)
