"""fastencode-tune align: scores equal to ridge by hand, the truth of a made world, the same numbers after a kill, errors."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import reference

pytest.importorskip("espeakng_loader", reason="the demo's world needs the extra 'demo'")

from fastencode.cli import main
from fastencode.data.stories import Stories
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.speech.store import read_features
from fastencode.study.brains.ceilings import ceiling_pvalues, noise_ceiling, signal_share, split_repeats
from fastencode.study.brains.low_level import LOW_LEVEL, low_level
from fastencode.study.inference.significance import fdr, signed_rank
from fastencode.world.config import Participant, WorldConfig
from fastencode.world.simulate import TEST_STORY, VALIDATION_STORY, make_world
from process_cases import Command
from reference_timing import lanczos as dense
from speech_cases import saved_model

for library in ("torch", "transformers", "jsonargparse", "soundfile"):
    pytest.importorskip(library, reason="the command needs the extra 'demo'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("no_pictures")

WORLD = WorldConfig(
    minutes=4.2,
    story_minutes=1.4,
    test_minutes=3.0,
    repeats=6,
    participants=(
        Participant("A", auditory=12, late_language=14, silent=8, gain=1.5, peak_delay=6.0),
        Participant("B", auditory=7, late_language=9, silent=5, gain=0.9, peak_delay=5.0),
    ),
)
CLIP = ReadConfig("clip", tr=2.0, seconds=2.5)
GRID = [1.0, 10.0, 100.0, 1000.0, 1e4, 1e5]
# The command for each [most bytes of a file, arguments] in turn, and its exit status.
LIMITED_IN_TURN = """
import json, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from fastencode.cli import main
for most, arguments in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    print("status", main(arguments), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(WORLD, root, show_progress=False)
    return root


@pytest.fixture(scope="module")
def models(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Features of the shipped model, and of a random one, for every story but one left out; folder names are the models'."""
    root = tmp_path_factory.mktemp("features")
    sounds = {path.stem: path for path in sorted((world / "stimuli").glob("*.wav")) if path.stem != VALIDATION_STORY}
    random = saved_model(root / "checkpoint", "wav2vec2", strides=(5, 8, 8))
    for name, saved in (("shipped", SMALL_MODEL), ("random", random)):
        extract_features(sounds, SpeechEncoder(saved), root / name, CLIP, show_progress=False)
    windows = ReadConfig("window", context=0.5, stride=1.0)
    extract_features(sounds, SpeechEncoder(random), root / "windows", windows, show_progress=False)
    return {name: root / name for name in ("shipped", "random", "windows")}


def options(world: Path, out: Path, folders: list[Path], *more: str) -> list[str]:
    given = ["align", "--stories", str(world), "--out", str(out)]
    settings = {
        "features": json.dumps([str(folder) for folder in folders]),
        "test_story": TEST_STORY,
        "test_skip": 0,
        "exclude": json.dumps([VALIDATION_STORY]),
        "permutations": 99,
    }
    settings |= {"align.alphas": json.dumps(GRID), "align.bootstraps": 60, "align.folds": 3}
    kept = {f"--{name}": str(value) for name, value in settings.items() if f"--{name}" not in more}
    return [*given, *(part for option in kept.items() for part in option), *more]


@pytest.fixture(scope="module")
def finished(world: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(options(world, out, [models["shipped"], models["random"]])) == 0
    return out


def by_hand(world: Path, folder: Path, who: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels above the ceiling and their test correlations: loops, float64, everything refitted."""
    stories = Stories(world, test_story=TEST_STORY, test_skip=0)
    fit = [f"story{i:02d}" for i in (1, 2, 3)]

    def delayed(story: str) -> np.ndarray:
        read = read_features(folder / f"{story}.h5")
        rows, _ = dense(read.values[:, layer].astype(np.float64), read.times, stories.row_times(story, middle=True))
        rows = (rows - rows.mean(0)) / rows.std(0)
        out = np.zeros((len(rows), 4 * rows.shape[1]))
        for place, lag in enumerate((1, 2, 3, 4)):
            for t in range(lag, len(rows)):
                out[t, place * rows.shape[1] : (place + 1) * rows.shape[1]] = rows[t - lag]
        return out

    def normal(story: str) -> np.ndarray:
        rows = stories.responses(who, story, dtype=np.float64)
        return (rows - rows.mean(0)) / rows.std(0)

    repeats = stories.repeats(who, TEST_STORY, dtype=np.float64)
    voxels = np.flatnonzero((noise_ceiling(repeats) > 0.05) & (fdr(ceiling_pvalues(repeats)) <= 0.05))
    X, Y = np.vstack([delayed(story) for story in fit]), np.vstack([normal(story) for story in fit])[:, voxels]
    runs = np.repeat([0, 1, 2], [stories.n_rows(story) for story in fit])
    folds = [(np.flatnonzero(runs != run), np.flatnonzero(runs == run)) for run in range(3)]
    scores = reference.cv_scores(X, Y, GRID, folds, "pearson", True)
    best = len(GRID) - 1 - scores[::-1].argmax(axis=0)
    test, measured = delayed(TEST_STORY), stories.responses(who, TEST_STORY, dtype=np.float64)[:, voxels]
    r = []
    for v, a in enumerate(best):
        coef, constant = reference.weights(X, Y[:, v], GRID[a], True)
        r.append(reference.pearson(measured[:, v], test @ coef + constant))
    return voxels, np.array(r)


@pytest.mark.parametrize(("who", "layer"), [("A", 0), ("B", 2)])
def test_scores_are_those_of_ridge_by_hand(world: Path, models: dict[str, Path], finished: Path, who: str, layer: int) -> None:
    voxels, r = by_hand(world, models["random"], who, layer)
    found = h5py.File(next(finished.glob(f"fits/random-at-1-2-3-4/{who}/layer-{layer:02d}/layer.h5")))
    np.testing.assert_array_equal(np.load(finished / f"responses/{who}/voxels.npy"), voxels)
    np.testing.assert_allclose(found["r"][:], r, atol=2e-4)
    table = pd.read_csv(finished / "scores.csv").query(f"participant == '{who}' and layer == {layer} and model == 'random'")
    regions = Stories(world).rois(who)
    assert set(table["region"]) == {"all", *(name for name, chosen in regions.items() if np.isin(chosen, voxels).any())}
    for row in table.itertuples():
        chosen = np.ones(len(voxels), bool) if row.region == "all" else np.isin(voxels, regions[row.region])
        assert row.n_voxels == chosen.sum()
        np.testing.assert_allclose(row.r, r[chosen].mean(), atol=2e-4)
        assert row.r_low <= row.r <= row.r_high or row.n_voxels < 3


def test_the_worlds_truth_is_found(finished: Path) -> None:
    scores = pd.read_csv(finished / "scores.csv").query("participant == 'A' and model == 'shipped'")
    scores = scores.set_index(["region", "layer"])
    auditory, late = scores.loc["auditory"], scores.loc["late_language"]
    assert auditory["r"].max() > 0.3 and auditory["significant"].max() > 0.5
    assert auditory.loc[0, "r"] > late.loc[0, "r"], "the first layer hears the spectrum"
    assert all((part["r_normalized"] > part["r"]).all() for part in (auditory, late)), "no ceiling is above 1"


def test_tables_are_tidy_and_say_how_they_were_made(world: Path, models: dict[str, Path], finished: Path) -> None:
    import yaml

    scores, tests, contrasts = (pd.read_csv(finished / f"{name}.csv") for name in ("scores", "tests", "contrasts"))
    assert not scores.duplicated(["participant", "model", "delays", "layer", "region"]).any()
    assert scores.groupby("model")["layer"].nunique().to_dict() == {"shipped": 7, "random": 3}
    assert set(contrasts["model"]) == {"random"} and set(contrasts["versus"]) == {"shipped"} and contrasts["layer"].max() == 2
    keys = ["participant", "layer", "region"]
    pair = scores.query("model == 'random'").merge(scores.query("model == 'shipped'"), on=keys, suffixes=("", "_first"))
    both = contrasts.merge(pair, on=keys)
    assert len(both) == len(contrasts)
    np.testing.assert_allclose(both["difference"], both["r_x" if "r_x" in both else "r"] - both["r_first"], atol=1e-12)
    assert set(tests["versus"]) == {"0", "shipped"} and (tests["q"] >= tests["p"]).all()
    assert (tests["p_smallest"] == 2.0 ** (1 - tests["participants"])).all() and tests["participants"].max() == 2
    settings = yaml.safe_load((finished / "config.yaml").read_text())
    assert settings["features"] == [str(models["shipped"]), str(models["random"])] and settings["align"]["alphas"] == GRID


def test_a_second_run_reuses_every_fit_and_other_settings_do_not(
    world: Path, models: dict[str, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "scores.csv").read_bytes()
    assert main(["align", "--config", str(finished / "config.yaml")]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 responses, 2 reused\n" in said and "20 of 20 fits, 20 reused\n" in said
    assert (finished / "scores.csv").read_bytes() == before


def test_killed_and_given_again_the_numbers_are_the_same(
    world: Path, models: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    given = options(world, out, [models["shipped"], models["random"]])
    command = Command(given, tmp_path)
    command.until(lambda: len(list(out.glob("fits/*/*/*/stage.json"))) >= 3)
    assert command.tell(signal.SIGKILL) == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in out.glob("fits/*/*/*/layer.h5") if ".partial" not in str(path)}
    assert 3 <= len(kept) < 20
    assert main(given) == 0
    for name in ("scores.csv", "tests.csv", "contrasts.csv"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert all(path.read_bytes() == content for path, content in kept.items())
    for path in finished.glob("fits/*/*/*/layer.h5"):
        with h5py.File(path) as whole, h5py.File(out / path.relative_to(finished)) as resumed:
            for name in whole:
                assert whole[name][...].tobytes() == resumed[name][...].tobytes(), f"{path}: {name}"


def test_baselines_residuals_lags_and_halves(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    more = ["--baselines", "spectrum,word_rate", "--residualize=spectrum", "--lags", "0, 3, 9"]
    assert main(options(world, tmp_path / "out", [models["shipped"]], *more, "--split-half", "--participants", '["A"]')) == 0
    scores = pd.read_csv(tmp_path / "out" / "scores.csv", dtype={"delays": str}).query("region == 'auditory'")
    by = scores.groupby(["model", "delays"])["r"].max()
    standard = by.xs("1 2 3 4", level="delays")
    assert set(standard.index) == {"shipped", "spectrum", "word_rate", "shipped less spectrum"}
    assert standard["shipped less spectrum"] < standard["shipped"] - 0.05, "the auditory voxels follow the spectrum"
    assert standard["spectrum"] > 0.3 > standard["word_rate"]
    lags = by.loc["shipped"].drop("1 2 3 4")
    assert lags.idxmax() == "3" and set(lags.index) == {"0", "3", "9"}, "the response peaks after six seconds"
    stories = Stories(world, test_story=TEST_STORY, test_skip=0)
    repeats = stories.repeats("A", TEST_STORY)
    ceiling = noise_ceiling(repeats[::2], n_averaged=3)
    voxels = np.flatnonzero((ceiling > 0.05) & (fdr(ceiling_pvalues(repeats[::2])) <= 0.05))
    saved = {name: np.load(tmp_path / "out" / "responses" / "A" / f"{name}.npy") for name in ("voxels", "shares", "test")}
    np.testing.assert_array_equal(saved["voxels"], voxels)
    np.testing.assert_array_equal(saved["shares"][0], signal_share(repeats[1::2]).share[voxels])
    np.testing.assert_allclose(saved["test"], repeats[1::2].mean(0)[:, voxels], atol=1e-6)


def test_what_is_unique_to_a_layer(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """Beside the spectrum, which the world's auditory voxels follow, a random model has little of its own; the parts add up."""
    more = ["--partition", '["spectrum", "word_rate"]', "--candidates", "6"]
    more += ["--participants", '["A"]', "--align.alphas", "[10, 1e3]"]
    given = options(world, tmp_path / "out", [models["random"]], *more)
    assert main(given) == 0
    table = pd.read_csv(tmp_path / "out" / "partition.csv", keep_default_na=False).query("region == 'auditory'")
    parts = table.pivot(index="layer", columns=["part", "band"], values="r2")
    assert set(parts.columns) == {
        ("total", ""), ("shared", ""), ("unique", "layer"), ("unique", "spectrum"), ("unique", "word_rate")
    }  # fmt: skip
    np.testing.assert_allclose(parts["unique"].sum(axis=1) + parts["shared", ""], parts["total", ""], atol=1e-12)
    assert (parts["unique", "spectrum"] > parts["unique", "layer"]).all() and parts["unique", "spectrum"].max() > 0.02
    before = (tmp_path / "out" / "partition.csv").read_bytes()
    assert main(given) == 0
    assert (tmp_path / "out" / "partition.csv").read_bytes() == before


def test_another_test_story_is_another_fit(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """The same stories with the parts exchanged, in one folder: nothing of the first is taken for the second. No repeats here."""
    left_out = json.dumps([VALIDATION_STORY, TEST_STORY, "story03"])
    for test in ("story01", "story02"):
        for out in ("both", test):
            more = ["--participants", "B", "--test_story", test, "--exclude", left_out]
            assert main(options(world, tmp_path / out, [models["random"]], *more)) == 0
        table = pd.read_csv(tmp_path / test / "scores.csv")
        assert (tmp_path / "both" / "scores.csv").read_bytes() == (tmp_path / test / "scores.csv").read_bytes()
        assert table["r_normalized"].isna().all() and table.query("region == 'all'")["n_voxels"].eq(21).all()


def test_another_tr_is_another_fit(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """Windows are resampled to the scans, and when those were follows from the TR: nothing else tells the two runs apart."""
    tables = {}
    for tr in ("2.0", "1.9"):
        for out in ("both", tr):
            more = ["--participants", "B", "--tr", tr]
            assert main(options(world, tmp_path / out, [models["windows"]], *more)) == 0
        tables[tr] = (tmp_path / tr / "scores.csv").read_bytes()
        assert (tmp_path / "both" / "scores.csv").read_bytes() == tables[tr]
        for path in (tmp_path / tr).glob("fits/*/*/*/layer.h5"):
            assert path.read_bytes() == (tmp_path / "both" / path.relative_to(tmp_path / tr)).read_bytes()
    assert tables["2.0"] != tables["1.9"]


def test_other_labels_of_no_speech_are_another_fit(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The world's phones are IPA, which has no table of articulation: what is unknown may be taken for no speech."""
    given = ["--participants", "B", "--features", "[]", "--baselines"]
    assert main(options(world, tmp_path / "x", [], *given, "articulation")) == 1
    assert re.search(r"transcript of 'story01': .*neither ARPAbet .*; or treat it as no speech", capsys.readouterr().err)
    tables = {}
    for labels in ("a", "ə"):
        for out in ("both", labels):
            assert main(options(world, tmp_path / out, [], *given, "phone_rate", "--non-speech", labels)) == 0
        tables[labels] = (tmp_path / labels / "scores.csv").read_bytes()
        assert (tmp_path / "both" / "scores.csv").read_bytes() == tables[labels]
    assert tables["a"] != tables["ə"]


def test_what_is_damaged_between_runs_is_said(
    world: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(world, tmp_path / "out", [models["random"]], "--participants", "B")
    assert main(given) == 0
    before = (tmp_path / "out" / "scores.csv").read_bytes()
    first, second = (tmp_path / "out" / "fits" / "random-at-1-2-3-4" / "B" / f"layer-0{layer}" / "layer.h5" for layer in (0, 1))
    first.write_bytes(b"")
    assert main(given) == 2
    complaint = capsys.readouterr().err
    assert str(first) in complaint and "Traceback" not in complaint
    shutil.rmtree(first.parent)
    assert main(given) == 0 and (tmp_path / "out" / "scores.csv").read_bytes() == before
    second.unlink()  # a stage that lacks a file of its own is made again
    assert main(given) == 0 and "are gone" in capsys.readouterr().out
    assert (tmp_path / "out" / "scores.csv").read_bytes() == before


def test_a_full_disk_is_one_clear_line(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """Files of 100 bytes and of 4000 at most, in one process, each into a folder of its own; then the same runs with room."""
    given = [options(world, tmp_path / most, [models["random"]], "--participants", "B") for most in ("100", "4000")]
    limited = json.dumps([["100", given[0]], ["4000", given[1]]])
    done = subprocess.run([sys.executable, "-c", LIMITED_IN_TURN, limited], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    for said in done.stderr.split("status 2\n", maxsplit=1):
        assert "cannot be written (File too large): make room" in said, done.stderr
    assert done.stderr.count("status 2\n") == 2 and not list(tmp_path.rglob("*.partial"))
    for again in given:
        assert main(again) == 0


def test_windows_are_resampled_to_scans(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    from fastencode.study.brains.sources import LayerFolder

    stories = Stories(world, test_story=TEST_STORY, test_skip=0)
    source = LayerFolder(models["windows"], stories, lobes=3, used=["story01"])
    raw = read_features(models["windows"] / "story01.h5")
    wanted, _ = dense(raw.values[:, 1].astype(np.float64), raw.times, stories.row_times("story01", middle=True))
    np.testing.assert_allclose(source.rows("story01", 1), wanted, atol=2e-5)
    assert main(options(world, tmp_path / "out", [models["windows"]], "--participants", '["B"]')) == 0


def test_low_level_features_at_scans(world: Path) -> None:
    stories = Stories(world, test_story=TEST_STORY, test_skip=0)
    begins = stories.row_times("story01")
    with pytest.raises(InputError, match="'ð', which is neither ARPAbet"):  # the world's phones are IPA
        low_level(stories, "story01", "articulation")
    for name in set(LOW_LEVEL) - {"articulation"}:
        rows = low_level(stories, "story01", name)
        assert rows.shape[0] == stories.n_rows("story01") and rows.dtype == np.float32 and np.isfinite(rows).all()
        assert rows.std(axis=0).min() > 0
    onsets = np.array([word.start for word in stories.words("story01")])
    counted = [((onsets >= begin) & (onsets < begin + 2.0)).sum() / 2.0 for begin in begins]
    np.testing.assert_allclose(low_level(stories, "story01", "word_rate")[:, 0], counted, rtol=1e-6)
    with pytest.raises(InputError, match="'pitch' is not a low-level feature: choose from spectrum"):
        low_level(stories, "story01", "pitch")


@pytest.mark.filterwarnings("ignore:.*of the grid:fastencode.errors.FastencodeWarning")
def test_time_alone_predicts_drift_only_where_rows_of_one_story_are_fitted_and_scored(world: Path) -> None:
    """The trap that splits by story avoid: slow noise, different in each story, scored on shuffled rows and on whole stories."""
    from scipy.signal import lfilter

    from fastencode.solve.ridge import ridge_cv

    stories, names = Stories(world, test_story=TEST_STORY, test_skip=0), [f"story{i:02d}" for i in (1, 2, 3)]
    X = np.vstack([low_level(stories, name, "time") for name in names])
    runs = np.repeat([0, 1, 2], [stories.n_rows(name) for name in names])
    rng = np.random.default_rng(0)
    Y = np.vstack([lfilter([1], [1, -0.95], rng.standard_normal((stories.n_rows(name), 200)), axis=0) for name in names])
    order = rng.permutation(len(X))
    shuffled = [(np.setdiff1d(order, part), np.sort(part)) for part in np.array_split(order, 5)]
    apart = np.hstack([X * (runs == run)[:, None] for run in range(3)])  # waves of each story's own
    mixed = ridge_cv(apart, Y, cv=shuffled, scoring="pearson").best_score.mean()
    honest = ridge_cv(X, Y, cv="runs", runs=runs, scoring="pearson").best_score.mean()
    assert mixed > 0.4 and abs(honest) < 0.15


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--exclude", '["nostory"]'], "exclude names nostory, which nobody heard"),
        (["--test_story", "nostory"], "A has no responses to the test story 'nostory'"),
        (["--participants", '["Z"]'], "participant 'Z' has no folder"),
        (["--ceiling", "0.999"], "no voxel of A has a significant noise ceiling above 0.999"),
        (["--residualize", '["pitch"]'], "--residualize names pitch, which is not a low-level feature"),
        (["--permutations", "0"], "permutations=0"),
        (["--participants", "A,A"], "participants names A more than once"),
        (["--partition", "spectrum,spectrum"], "partition names spectrum more than once"),
        (["--lags", "3,2,3"], "lags names 3 more than once"),
        (["--features", "[]"], "there is nothing to score"),
        (["--features", '["a/x", "b/x"]'], "two feature folders share the name 'x'; folder names identify models"),
        (["--features", '["nofolder"]'], "nofolder is not a folder"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    world: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    status = main(options(world, tmp_path / "out", [models["random"]], *more))
    complaint = capsys.readouterr().err
    assert status == (1 if "--ceiling" in more else 2)  # wrong only for these responses: found when they are read
    assert said in complaint and "Traceback" not in complaint and not (tmp_path / "out").exists()


def test_features_of_other_settings_or_sounds_are_refused(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    from fastencode.study.brains.sources import LayerFolder

    stories = Stories(world, test_story=TEST_STORY, test_skip=0)
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(models["random"] / "story01.h5", folder / "story01.h5")
    shutil.copy(models["shipped"] / "story02.h5", folder / "story02.h5")
    with pytest.raises(InputError, match="were made with different settings"):
        LayerFolder(folder, stories, lobes=3, used=["story01", "story02"])
    shutil.copy(models["random"] / "story01.h5", folder / f"{TEST_STORY}.h5")
    with pytest.raises(InputError, match="before the last scan of test at .*: is this the story's sound, and 2 s the TR"):
        LayerFolder(folder, stories, lobes=3, used=["story01", TEST_STORY])
    shutil.copy(models["windows"] / "story01.h5", tmp_path / f"{TEST_STORY}.h5")
    with pytest.raises(InputError, match="before the last scan of test at .*: is this the story's sound, and 2 s the TR"):
        LayerFolder(tmp_path, stories, lobes=3, used=[TEST_STORY])
    shutil.copy(models["random"] / "story01.h5", tmp_path / "story01.h5")
    with h5py.File(tmp_path / "story01.h5", "r+") as file:
        file.attrs["key"] = json.dumps({**json.loads(file.attrs["key"]), "pool": "mean"})
    with pytest.raises(InputError, match=r"holds clips every 2 s, scans come every 1\.5 s: read them again"):
        LayerFolder(tmp_path, Stories(world, tr=1.5, test_story=TEST_STORY, test_skip=0), lobes=3, used=["story01"])
    (folder / "story03.h5.partial").touch()
    with pytest.raises(InputError, match="story03.h5 is not finished"):
        LayerFolder(folder, stories, lobes=3, used=["story01", "story03"])
    for kind in ("random", "windows"):
        shutil.copy(models[kind] / f"{TEST_STORY}.h5", folder / "story01.h5")
        with pytest.warns(FastencodeWarning, match=r"story01\.h5 lasts .* check tr \(a TR of .* would fit\) and whether this is"):
            LayerFolder(folder, stories, lobes=3, used=["story01"])


def test_regions_from_images(world: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label image in the order of a brain mask gives the regions that lists of indices give."""
    nibabel = pytest.importorskip("nibabel", reason="images need the extra 'neuro'")
    stories = Stories(world, test_story=TEST_STORY, test_skip=0)
    n, own = stories.n_voxels("B"), stories.rois("B")
    inside = np.zeros((4, 3, 3), bool)
    inside.ravel()[np.sort(np.random.default_rng(0).choice(36, n, replace=False))] = True
    labels = np.zeros(n, np.int16)
    for number, voxels in enumerate(own.values(), 1):
        labels[voxels] = number
    volume = np.zeros(inside.shape, np.int16)
    volume[inside] = labels
    (tmp_path / "rois").mkdir()
    (tmp_path / "masks").mkdir()
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "rois" / "B.nii.gz")
    nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)).to_filename(tmp_path / "masks" / "B.nii.gz")
    given = options(world, tmp_path / "out", [models["random"]], "--participants", '["B"]')
    images = ["--rois", str(tmp_path / "rois"), "--masks", str(tmp_path / "masks")]
    assert main([*given, *images]) == 0
    found = json.loads((tmp_path / "out" / "responses" / "B" / "regions.json").read_text())
    voxels = np.load(tmp_path / "out" / "responses" / "B" / "voxels.npy")
    for number, wanted in enumerate(own.values(), 1):
        kept = np.intersect1d(wanted, voxels)
        assert np.array_equal(voxels[found[str(number)]], kept) if len(kept) else str(number) not in found
    (tmp_path / "masks" / "B.nii.gz").unlink()
    assert main([*given, *images]) == 2
    assert "/masks holds nothing of B: looked for B.nii.gz, B.npy, or a folder B" in capsys.readouterr().err


def test_gaps_in_the_responses_are_left_out(world: Path, models: dict[str, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "world"
    shutil.copytree(world, damaged)
    stories = Stories(damaged, test_story=TEST_STORY, test_skip=0)
    with h5py.File(stories.response_file("B", "story02"), "r+") as file:
        file["data"][3, 2] = np.nan
    assert main(options(damaged, tmp_path / "out", [models["random"]], "--participants", '["B"]')) == 0
    regions = json.loads((tmp_path / "out" / "responses" / "B" / "regions.json").read_text())
    voxels = np.load(tmp_path / "out" / "responses" / "B" / "voxels.npy")
    assert 2 in voxels and 2 not in voxels[regions["all"]] and len(regions["all"]) == len(voxels) - 1


def test_signed_rank_over_participants() -> None:
    from scipy.stats import wilcoxon

    values = np.array([0.3, 0.1, -0.05, 0.2, 0.4, 0.25, 0.15, 0.35])
    found = signed_rank(values)
    assert found.p == wilcoxon(values, method="exact").pvalue and found.smallest == 2 / 2**8 and found.n == 8
    assert signed_rank(np.abs(values)).p == found.smallest
    with pytest.warns(FastencodeWarning, match="5 participants can reach p = 0.0625 at the smallest"):
        assert signed_rank([0.1, 0.2, 0.3, 0.4, 0.5]).p == 0.0625
    assert signed_rank(np.zeros(8)) == signed_rank([0.0]) and signed_rank(np.zeros(8)).p == 1.0
    tied = signed_rank([0.1, 0.1, 0.2, 0.3, 0.4, 0.5, -0.6])
    assert 0 < tied.p <= 1 and tied.n == 7
    for bad in ([], [0.1, np.nan], [[0.1]]):
        with pytest.raises(InputError, match="one finite number for each participant"):
            signed_rank(bad)


def test_halves_of_repeats_share_no_noise() -> None:
    """Ceilings of one half predict what the best model reaches on the mean of the other."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((4000, 3))
    repeats = signal + np.array([0.5, 1.0, 2.0]) * rng.standard_normal((5, 4000, 3))
    first, second = split_repeats(5)
    assert len(repeats[first]) == 3 and len(repeats[second]) == 2
    ceiling = noise_ceiling(repeats[first], n_averaged=2)
    reached = [np.corrcoef(signal[:, v], repeats[second].mean(0)[:, v])[0, 1] for v in range(3)]
    np.testing.assert_allclose(ceiling, reached, atol=0.03)
    assert (ceiling < noise_ceiling(repeats[first])).all()
    with pytest.raises(InputError, match="2 repeats cannot be split"):
        split_repeats(2)
    with pytest.raises(InputError, match="n_averaged=0"):
        noise_ceiling(repeats, n_averaged=0)
