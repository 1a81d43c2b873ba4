"""fastencode-tune align in parts: several commands in one folder, participants that fail, code that changes."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.stats

from fastencode.cli import main
from fastencode.errors import FastencodeWarning
from fastencode.runs import fits, provenance
from picture_cases import COMMAND as WITHOUT_PICTURES

pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'tune'")

pytestmark = pytest.mark.usefixtures("no_pictures")

ROWS = {"one": 40, "two": 52, "test": 60}
TABLES = ("scores.csv", "means.csv", "tests.csv", "contrasts.csv")
# Imports first, says so, and begins when the file named is there.
TOGETHER = (
    WITHOUT_PICTURES
    + """
import time
from pathlib import Path
from fastencode.runs import fits
print("ready", flush=True)
while not Path(sys.argv[1]).exists(): time.sleep(0.001)
sys.exit(main(sys.argv[2:]))
"""
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three participants who hear two stories and a test, and two models of two layers; the voxels follow the second layer."""
    root, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    for folder in ("features/first", "features/second", "preprocessed_data", "stimuli", "TextGrids", "rois"):
        (root / folder).mkdir(parents=True)
    (root / "respdict.json").write_text(json.dumps({story: n + 20 for story, n in ROWS.items()}))
    drive = {}
    for story, n in ROWS.items():
        for model in ("first", "second"):
            with h5py.File(root / "features" / model / f"{story}.h5", "w") as file:
                file["times"] = np.arange(1, 2 * (n + 12)) * 1.0
                file["features"] = rng.standard_normal((len(file["times"]), 2, 3)).astype(np.float32)
                file.attrs["key"] = json.dumps({"input": "window", "model": model, "audio": story})
                drive[story] = file["features"][11 : 11 + 2 * n : 2, 1].astype(float)
    for who in "ABC":
        (root / "preprocessed_data" / who).mkdir()
        (root / "rois" / f"{who}.json").write_text(json.dumps({"driven": [0, 1, 2]}))
        weights = rng.standard_normal((3, 5))
        for story, n in ROWS.items():
            signal = np.vstack([np.zeros((2, 5)), (drive[story] @ weights)[:-2]])
            heard = signal + rng.standard_normal((4 if story == "test" else 1, n, 5))
            with h5py.File(root / "preprocessed_data" / who / f"{story}.hf5", "w") as file:
                file["data"] = heard.mean(axis=0)
                if story == "test":
                    file["individual_repeats"] = heard
    return root


def given(world: Path, out: Path, *more: str) -> list[str]:
    options = {"stories": world, "out": out, "test_story": "test", "test_skip": 0, "permutations": 19, "align.bootstraps": 10}
    options |= {"align.alphas": "[1, 100]", "align.delays": "[1, 2]", "align.folds": 2, "align.block": 10}
    options |= {"features": json.dumps([str(world / "features" / name) for name in ("first", "second")])}
    kept = {f"--{name}": str(value) for name, value in options.items() if f"--{name}" not in more}
    return ["align", *(part for option in kept.items() for part in option), *more]


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(given(world, out)) == 0
    return out


def same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def made(out: Path) -> dict[str, int]:
    """When each stage was made."""
    return {path.parent.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.rglob("stage.json")}


def test_two_commands_at_once_into_one_folder(world: Path, finished: Path, tmp_path: Path) -> None:
    """They share B, and neither waits idly, fails or loses the other's rows: the tables are those of one command for all."""
    out, sign = tmp_path / "out", tmp_path / "sign"
    commands = [[*given(world, out), "--participants", *who] for who in ("AB", "BC")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", TOGETHER, str(sign), *command], **pipes) for command in commands]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    sign.touch()
    for process in running:
        said, complaints = process.communicate(timeout=120)
        assert process.returncode == 0 and "Traceback" not in complaints, said + complaints
    same_tables(out, finished)
    assert len(made(out)) == 3 + 3 * 2 * 2 and made(out).keys() == made(finished).keys()
    assert not [path for path in out.rglob("*") if path.name.endswith((".partial", ".lock", ".held", ".old"))]


def test_one_after_another_and_collected_elsewhere(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for who in "CAB":
        assert main([*given(world, out), "--participants", who]) == 0
    same_tables(out, finished)
    assert "participants:\n- A\n- B\n- C\n" in (out / "config.yaml").read_text()
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    for name in (*TABLES, "index.html"):
        (moved / name).unlink()
    before = made(moved)
    collect = ["align", "--config", str(moved / "config.yaml"), "--out", str(moved), "--collect"]
    assert main([*collect, "--stories", str(tmp_path / "not here")]) == 0
    same_tables(moved, finished)
    assert "Models: first, second." in (moved / "index.html").read_text()
    assert made(moved) == before and "collect: false" in (moved / "config.yaml").read_text()
    capsys.readouterr()
    assert main([*collect, "--permutations", "20"]) == 2
    assert "holds no finished scores of these settings" in capsys.readouterr().err
    assert main([*collect, "--out", str(tmp_path / "nothing")]) == 2
    assert "there is nothing to collect" in capsys.readouterr().err and not (tmp_path / "nothing").exists()


def test_the_page_shows_all_models_and_repeats_itself(
    world: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: None
) -> None:
    """Its command works as printed, from any folder; files named in the provenance have the digests that it gives."""
    (tmp_path / "out put").mkdir()
    out = tmp_path / "out put" / "x"
    monkeypatch.chdir(tmp_path)
    assert main(given(world, Path("out put/x"))) == 0
    page, made_from = (out / "index.html").read_text(), json.loads((out / "provenance.json").read_text())
    command = html.unescape(re.search("<pre>(.*)</pre>", page)[1])
    place, name, *arguments = shlex.split(command.replace("cd ", "", 1).replace(" && ", " "))
    assert name == "fastencode-tune" and command == made_from["command"]
    (out / "index.html").unlink()
    monkeypatch.chdir("/")
    monkeypatch.chdir(place)
    assert main(arguments) == 0 and made(out) and (out / "index.html").exists()
    same_tables(out, finished)
    for words in (
        "Scores are of the story “test”",
        "All repeats chose them",
        "n = 3 participants",
        "95 % intervals",
    ):
        assert words in page, words
    assert {path.stem for path in (out / "figures").iterdir()} == {"picture", "layers", "differences", "participants"}
    response = world / "preprocessed_data" / "B" / "two.hf5"
    assert made_from["responses"]["B"]["two/two.hf5"] == hashlib.sha256(response.read_bytes()).hexdigest()
    assert made_from["features"]["second"] == {"input": "window", "model": "second", "stories": {story: story for story in ROWS}}
    assert made_from["settings"]["test_story"] == ["test"] and made_from["versions"]["numpy"] == np.__version__


def test_only_the_layers_asked_for_are_fitted(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*given(world, out), "--layers", "1"]) == 0
    scores, whole = (pd.read_csv(folder / "scores.csv") for folder in (out, finished))
    pd.testing.assert_frame_equal(scores, whole[whole["layer"] == 1].reset_index(drop=True))
    assert len(made(out)) == 3 + 3 * 2 and "\nlayers:\n- 1\n" in (out / "config.yaml").read_text()
    capsys.readouterr()
    assert main([*given(world, tmp_path / "no"), "--layers", "0", "2"]) == 2
    said = capsys.readouterr().err
    assert "layers names 2, which no model has: first has 2 layers (0 to 1), second has 2 layers (0 to 1)" in said
    assert not (tmp_path / "no").exists()


def test_a_dry_run_says_what_is_missing_and_makes_nothing(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastencode.solve.ridge import plan_ridge
    from fastencode.timing.delays import delay

    assert main([*given(world, tmp_path / "no"), "--dry-run", "--layers", "0"]) == 0
    said = capsys.readouterr().out
    assert "responses: 3 to make, 0 finished\nfits: 6 to make, 0 finished\n" in said and not (tmp_path / "no").exists()
    assert "first at delays 1 2: 1 of 2 layers" in said
    X, runs = np.random.default_rng(0).standard_normal((92, 3)).astype(np.float32), np.repeat([0, 1], [40, 52])
    plan = plan_ridge(delay(X, (1, 2), runs=runs, copy=False), alphas=[1, 100], cv=2, runs=runs)
    assert f"2 plans of 92 rows x 6 columns, solved by the {plan.strategy}\n" in said
    needed = next(one.bytes for one in plan.candidates if one.name == plan.strategy) + 4 * 92 * (6 + 5)
    assert f"\n{needed / 1e9:.2g} GB of memory" in said
    disk = 3 * 4 * 92 * 5 + 6 * (32 * 5 + 2 * 16 * 10)  # responses; records of 5 voxels, 10 draws of each of two regions
    assert f", {disk / 1e9:.2g} GB on disk at most" in said
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *out.rglob("*"))}
    assert main([*given(world, out), "--dry-run"]) == 0
    assert "responses: 0 to make, 3 finished\nfits: 0 to make, 12 finished\n" in capsys.readouterr().out
    assert main([*given(world, out, "--permutations", "29"), "--dry-run"]) == 0
    assert "responses: 0 to make, 3 finished\nfits: 12 to make, 0 finished\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *out.rglob("*"))} == before


def test_means_over_participants_and_their_intervals(finished: Path) -> None:
    """Recomputed from the records: draws averaged over participants, t times their spread, of r in Fisher's z."""
    means = pd.read_csv(finished / "means.csv", dtype={"versus": str}).set_index(["model", "layer", "region", "versus"])
    assert len(means) == 2 * 2 * 2 + 2 * 2 and (means["participants"] == 3).all()

    def read(model: str, name: str) -> np.ndarray:
        files = [h5py.File(finished / f"fits/{model}-at-1-2/{who}/layer-01/layer.h5") for who in "ABC"]
        return np.mean([file[name][...] for file in files], axis=0)[..., 1]  # the region after "all"

    t = scipy.stats.t.ppf(0.975, ROWS["test"] / 10 - 1)
    mean, spread = read("second", "region"), np.arctanh(read("second", "draws")).std(ddof=1)
    found = means.loc["second", 1, "driven", "0"]
    np.testing.assert_allclose(found["mean"], mean)
    np.testing.assert_allclose(found[["low", "high"]].astype(float), np.tanh(np.arctanh(mean) + np.array([-t, t]) * spread))
    difference = mean - read("first", "region")
    half = t * (read("second", "draws") - read("first", "draws")).std(ddof=1)
    found = means.loc["second", 1, "driven", "first"]
    np.testing.assert_allclose(found[["mean", "low", "high"]].astype(float), difference + np.array([0, -half, half]))


def test_tables_hold_one_kind_of_record(world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores of other settings, of responses made again, and of another model of the same name are left out, and named."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    assert main([*given(world, out, "--permutations", "29"), "--participants", "A"]) == 0
    assert "left out of the tables, because their settings or features are others: fits/first-at-1-2/B" in capsys.readouterr().out
    assert set(pd.read_csv(out / "scores.csv")["participant"]) == {"A"}
    assert main(given(world, out)) == 0
    same_tables(out, finished)
    other = tmp_path / "first"
    shutil.copytree(world / "features" / "first", other)
    for path in other.iterdir():
        with h5py.File(path, "r+") as file:
            file.attrs["key"] = json.dumps(json.loads(file.attrs["key"]) | {"model": "another"})
    features = json.dumps([str(other), str(world / "features" / "second")])
    assert main([*given(world, out, "--features", features), "--participants", "A"]) == 0
    scores = pd.read_csv(out / "scores.csv")
    assert {name: set(part["participant"]) for name, part in scores.groupby("model")} == {"first": {"A"}, "second": set("ABC")}


def test_features_count_by_their_contents(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied they are the same. One value changed under the same key, size and time makes this model's fits again, no other's,
    and its fits of other people are no longer in the tables."""
    out, before = tmp_path / "out", made(finished)
    shutil.copytree(finished, out, copy_function=shutil.copy2)
    shutil.copytree(world / "features", tmp_path / "features", copy_function=shutil.copy)
    options = ["--features", json.dumps([str(tmp_path / "features" / name) for name in ("first", "second")])]
    assert main([*given(world, out, *options)]) == 0 and made(out) == before
    path = tmp_path / "features" / "second" / "two.h5"
    times, size = (path.stat().st_atime_ns, path.stat().st_mtime_ns), path.stat().st_size
    with h5py.File(path, "r+") as file:
        file["features"][20, 1, 0] += 1.0
    os.utime(path, ns=times)
    assert path.stat().st_size == size
    capsys.readouterr()
    assert main([*given(world, out, *options), "--participants", "A"]) == 0
    said = capsys.readouterr().out
    assert "2 finished stages are made again: other input files" in said
    assert "because their settings or features are others: fits/second-at-1-2/B, fits/second-at-1-2/C" in said
    again = {name for name, time in made(out).items() if time != before[name]}
    assert again == {f"fits/second-at-1-2/A/layer-{layer:02d}" for layer in range(2)}
    scores = pd.read_csv(out / "scores.csv")
    assert {name: set(part["participant"]) for name, part in scores.groupby("model")} == {"first": set("ABC"), "second": {"A"}}
    r, old = (
        {name: part["r"].to_numpy() for name, part in table.groupby("model")}
        for table in (scores.query("participant == 'A'"), pd.read_csv(finished / "scores.csv").query("participant == 'A'"))
    )
    np.testing.assert_array_equal(r["first"], old["first"])
    assert (r["second"] != old["second"])[2:].all(), "of the layer that was changed"
    assert main([*given(world, out, *options), "--reuse"]) == 0, "which is about code"
    assert {name.rpartition("/")[0] for name, time in made(out).items() if time != before[name]} == {
        f"fits/second-at-1-2/{who}" for who in "ABC"
    }


def test_a_participant_that_fails_costs_no_other(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In several processes too, whose numbers are the same."""
    damaged, out = tmp_path / "world", tmp_path / "out"
    shutil.copytree(world, damaged)
    with h5py.File(damaged / "preprocessed_data" / "B" / "two.hf5", "r+") as file:
        file["data"][:] = np.nan
    assert main([*given(damaged, out), "--jobs", "2"]) == 1
    said = capsys.readouterr().err
    assert re.search(
        r"fastencode-tune: 1 stage failed\n  responses/B: every voxel of B .*\n  4 were not made, because responses/B", said
    )
    scores, whole = (pd.read_csv(folder / "scores.csv") for folder in (out, finished))
    pd.testing.assert_frame_equal(scores, whole[whole["participant"] != "B"].reset_index(drop=True))
    shutil.copy(world / "preprocessed_data" / "B" / "two.hf5", damaged / "preprocessed_data" / "B" / "two.hf5")
    before = made(out)
    assert main(given(damaged, out)) == 0
    same_tables(out, finished)
    assert before.items() <= made(out).items()


@pytest.mark.filterwarnings("ignore::fastencode.errors.FastencodeWarning")
def test_only_code_that_is_used_makes_fits_again(
    world: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comment in figures.py, even new code there, none; a change of delayed.py all fits and no responses; --reuse none."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before, real = made(out), provenance._source

    def add(more: dict[str, str]) -> None:
        monkeypatch.setattr(provenance, "_source", lambda name: (real(name) or "") + more.get(name, ""))

    comment, code = "\n# a comment\n", "\nNEW = 1\n"
    add(
        {
            "fastencode.study.figures.layers": comment + code,
            "fastencode.delayed": comment,
            "fastencode.study.brains.tables": code,
            "fastencode.runs.engine": code,
            "fastencode.cli.settings": code,
        }
    )
    assert main(given(world, out)) == 0 and made(out) == before
    add({"fastencode.delayed": code})
    assert main([*given(world, out), "--reuse"]) == 0 and made(out) == before
    capsys.readouterr()
    with pytest.warns(FastencodeWarning, match="some scores of B, C were made by other code than the rest"):
        main_with_warnings([*given(world, out), "--participants", "A"])
    assert "4 finished stages are made again: their code has changed" in capsys.readouterr().out
    assert main(given(world, out)) == 0
    after = made(out)
    assert {name for name in after if after[name] != before[name]} == {name for name in before if name.startswith("fits/")}
    same_tables(out, finished)


def main_with_warnings(arguments: list[str]) -> None:
    """The command within this process, its warnings not printed."""
    from fastencode.cli import _run

    _run(arguments)


def test_stages_use_no_figures_and_no_engine() -> None:
    code = provenance.Code()
    for stage in (fits.write_responses, fits.fit_layer, fits.partition_layer, fits.leave_out_layer):
        code.of(stage)
    used = {name.removeprefix("fastencode.") for name, module in code._modules.items() if module is not None}
    used -= {"runs", "runs.responses"}  # what all stages of one participant read, in a file of its own
    assert {"delayed", "solve.ridge_plan", "study.inference.significance", "kernels.hrf"} <= used
    others = ("runs", "cli", "tune", "study.figures", "study.report", "study.brains.tables")
    assert not [name for name in used if name.startswith(others)]


def test_every_voxel_is_in_a_file_and_in_images(world: Path, finished: Path, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    out, masks = tmp_path / "out", tmp_path / "masks"
    shutil.copytree(finished, out)
    masks.mkdir()
    inside = np.array([True, False, True, True, True, False, True, False]).reshape(2, 2, 2)
    for who in "ABC":
        nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)).to_filename(masks / f"{who}.nii.gz")
    assert main([*given(world, out), "--masks", str(masks), "--maps"]) == 0
    table = pd.read_csv(out / "scores.csv")
    for who in "ABC":
        with h5py.File(out / "voxels" / f"{who}.h5") as file:
            r, attributes = file["second-at-1-2/r"][...], dict(file["second-at-1-2"].attrs)
            assert file["ceiling"].shape == (5,) and attributes["model"] == "second" and list(attributes["layers"]) == [0, 1]
        rows = table[(table.participant == who) & (table.model == "second") & (table.region == "driven")]
        np.testing.assert_allclose(np.nanmean(r[:, :3], axis=1), rows.sort_values("layer").r, atol=1e-6)
        image = nibabel.load(out / "maps" / f"{who}_second-at-1-2_r.nii.gz").get_fdata()
        np.testing.assert_allclose(image[inside].T, r, atol=1e-6)
    (out / "voxels" / "gone.h5").touch()
    assert main(given(world, out)) == 0 and not (out / "voxels" / "gone.h5").exists()
    assert main([*given(world, out), "--maps"]) == 2  # without masks
    nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)).to_filename(masks / "B.nii.gz")
    fresh = tmp_path / "fresh"
    assert main([*given(world, fresh), "--masks", str(masks), "--maps"]) == 2 and not fresh.exists()  # before any fit
