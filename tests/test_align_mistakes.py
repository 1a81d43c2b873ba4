"""fastencode-tune align held wrong: what is said, before any fit, and that its settings file makes the same again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from align_cases import align, make_world
from fastencode.cli import main

pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'tune'")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path / "world")


@pytest.mark.parametrize("option", ["--rois", "--masks"])
def test_a_folder_of_files_of_participants_says_what_was_looked_for(option: str, world: Path, tmp_path: Path, capsys) -> None:
    """Masks, too, where no map is drawn: a typing error is no silence."""
    for folder, told in (
        (tmp_path / "none", "is not a folder: give one that holds A"),
        (tmp_path, "holds nothing of A: looked for A"),
    ):
        assert align(world, tmp_path / "out", option, str(folder)) == 2
        assert f"{option}: {folder} {told}" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_mask_of_another_length_and_two_masks_are_named(world: Path, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "A.npy", np.ones(5, bool))
    assert align(world, tmp_path / "out", "--masks", str(tmp_path)) == 2
    assert f"--masks: the mask {tmp_path / 'A.npy'} has 5 voxels, the responses have 6" in capsys.readouterr().err
    (tmp_path / "A.nii.gz").touch()
    assert align(world, tmp_path / "out", "--masks", str(tmp_path)) == 2
    assert f"--masks: {tmp_path} holds A.nii.gz and A.npy: keep one mask of A" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--stories", "none"), "--stories: none is not there: give a folder of data, or a table of runs"),
        (("--stories", ""), "--stories is followed by nothing: give a value"),
        (("--out=",), "--out is followed by nothing: give a value"),
        (("--ceiling", "1"), "--ceiling=1: give a number below 1"),
        (("--ceiling", ".nan"), "--ceiling=nan: give a number below 1"),
        (("--tr", ".inf"), "--tr=inf: give the repetition time in s"),
        (("--test-skip", "-1"), "--test-skip=-1: give the number of rows"),
        (("--align.alphas", "-1"), "--align.alphas holds -1.0; every penalty must be positive"),
        (("--memory", "much"), "--memory='much'; pass bytes"),
        (("--device", "tpu"), "--device='tpu' is not a device"),
        (("--partition", "pitch"), "--partition names pitch, which is not a low-level feature: choose from spectrum"),
        (("--dry-run=maybe",), "--dry-run takes no value, 'maybe' was given"),
    ],
)
def test_the_option_is_named(more: tuple[str, ...], told: str, world: Path, tmp_path: Path, capsys) -> None:
    assert align(world, tmp_path / "out", *more) == 2
    assert f"fastencode-tune: {told}" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_settings_of_layers_want_a_model_and_a_data_set_people(world: Path, tmp_path: Path, capsys) -> None:
    """They were left out without a word."""
    for option, value in (("residualize", "time"), ("partition", "time"), ("lags", "3"), ("layers", "0")):
        assert align(world, tmp_path / "out", "--features", "", "--baselines", "time", f"--{option}", value) == 2
        told = f"--{option} is about layers of a model, but there is none: give a folder of features"
        assert told in capsys.readouterr().err
    shutil.rmtree(world / "preprocessed_data")
    (world / "preprocessed_data").mkdir()
    assert align(world, tmp_path / "out", "--dry-run") == 2
    assert f"--stories: {world} has responses of nobody" in capsys.readouterr().err


def test_features_that_others_made_are_named(world: Path, tmp_path: Path, capsys) -> None:
    """Tracebacks of two lines of h5py and of a mapping, before."""
    for path in (world / "features" / "model").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["key"] = json.dumps({"model": "made"})
    assert align(world, tmp_path / "out") == 2
    assert "later.h5 does not say its input: read these recordings with" in capsys.readouterr().err
    for path in (world / "features" / "model").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["key"] = json.dumps({"input": "clip", "pool": "mean"})
    assert align(world, tmp_path / "out") == 2
    assert "later.h5 does not say its tr" in capsys.readouterr().err
    with h5py.File(world / "features" / "model" / "later.h5", "r+") as file:
        values = file["features"][:, 0]
        del file["features"]
        file["features"] = values
    assert align(world, tmp_path / "out") == 2
    told = "later.h5 holds features of shape (123, 3) at times of shape (123,), not (t, layers, width) at (t,): make it again"
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_penalties_that_are_not_positive_are_refused_before_any_fit(world: Path, tmp_path: Path, capsys) -> None:
    assert align(world, tmp_path / "out", "--align.alphas", "1,0") == 2
    assert "alphas holds 0.0; every penalty must be positive" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_settings_beside_a_baseline_name_the_layers_of_models_only(world: Path, tmp_path: Path, capsys) -> None:
    """A baseline's only layer, 0, is none that was asked for: the settings file fits nothing more."""
    out = tmp_path / "out"
    assert align(world, out, "--layers", "1", "--baselines", "time") == 0
    assert "\nlayers:\n- 1\n" in (out / "config.yaml").read_text()
    made = sorted(out.rglob("stage.json"))
    assert main(["align", "--config", str(out / "config.yaml")]) == 0
    assert sorted(out.rglob("stage.json")) == made
    stories = json.loads((out / "provenance.json").read_text())["features"]
    assert stories["model"]["stories"]["one"] == "one" and stories["time"]["stories"] == {}


def test_collecting_names_a_participant_of_whom_nothing_is_there(world: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert align(world, out, "--layers", "0", "--participants", "A") == 0
    before = (out / "config.yaml").read_text()
    assert align(world, out, "--layers", "0", "--participants", "Q", "--collect") == 2
    assert "participants names Q, who has no finished scores" in capsys.readouterr().err
    assert (out / "config.yaml").read_text() == before


def test_stories_that_only_some_heard_are_told(world: Path, tmp_path: Path, capsys) -> None:
    (world / "preprocessed_data" / "B" / "two.hf5").unlink()
    assert align(world, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "B has no responses to two, which others are fitted on: fitted on later, one, three only\n" in said
    assert "A has no responses" not in said
    shutil.rmtree(world / "preprocessed_data" / "B")
    (world / "preprocessed_data" / "B").mkdir()
    assert align(world, tmp_path / "out", "--dry-run") == 2
    assert "B has no responses to the test story 'test', only to no story" in capsys.readouterr().err


def test_a_test_story_with_one_repeat_was_heard_once(world: Path, tmp_path: Path) -> None:
    """As if there were no repeats: all voxels that vary are scored, without a ceiling."""
    with h5py.File(world / "preprocessed_data" / "A" / "test.hf5", "r+") as file:
        del file["individual_repeats"]
        file["individual_repeats"] = file["data"][:][None]
    out = tmp_path / "out"
    assert align(world, out, "--layers", "0", "--participants", "A") == 0
    scores = pd.read_csv(out / "scores.csv").set_index("region")
    assert scores.loc["all", "n_voxels"] == 6 and np.isnan(scores.loc["all", "ceiling"])


def test_features_that_cannot_be_used_are_named(world: Path, tmp_path: Path, capsys) -> None:
    path, out = world / "features" / "model" / "two.h5", tmp_path / "out"
    with h5py.File(path, "r+") as file:
        file["features"][5, 1] = np.nan
    assert align(world, out, "--layers", "1", "--participants", "A") == 1
    said = capsys.readouterr().err
    assert f"{path}, layer 1: 1 of " in said and "not finite, the first at 6 s: check the recording" in said
    with h5py.File(path, "r+") as file:
        values = file["features"][:, :1]
        del file["features"]
        file["features"] = values
    assert align(world, out) == 2
    assert f"{path} has 1 layers, {path.with_name('later.h5')} has 2: make one again" in capsys.readouterr().err
    (tmp_path / "few").mkdir()
    shutil.copy(world / "features" / "model" / "one.h5", tmp_path / "few")
    assert align(world, out, "--features", str(tmp_path / "few")) == 2
    told = f"--features: {tmp_path / 'few'} holds no later.h5, test.h5, three.h5, …: read these recordings into it"
    assert told in capsys.readouterr().err
    assert align(world, out, "--features", str(tmp_path / "none")) == 2
    assert (
        f"--features: {tmp_path / 'none'} is not a folder: give one that fastencode-tune features filled"
        in capsys.readouterr().err
    )


def test_names_that_stand_for_something_else_are_refused(world: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(world / "features" / "model", world / "features" / "time")
    assert align(world, tmp_path / "out", "--features", str(world / "features" / "time"), "--partition", "time") == 2
    assert "a folder of features is called 'time', as a band of --partition: rename it" in capsys.readouterr().err
    (world / "preprocessed_data" / "A").rename(world / "preprocessed_data" / "mean")
    (world / "rois" / "A.json").rename(world / "rois" / "mean.json")
    assert align(world, tmp_path / "out") == 2
    assert "a participant is called 'mean', as means over participants are: rename it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_page_counts_the_stories_of_baselines(world: Path, tmp_path: Path) -> None:
    """Their features have no sound to be told by."""
    assert align(world, tmp_path / "out", "--features", "[]", "--baselines", "time", "--exclude", "later") == 0
    assert "Ridge regression on 3 stories says" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
