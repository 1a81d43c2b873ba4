"""The same brains in every layout: check finds nothing, align gives the same scores, train learns the same, images come back."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lab_cases
from fastencode.cli import main
from fastencode.cli.align import _check_delays
from fastencode.data.config import ImageSettings
from fastencode.data.opening import open_data
from fastencode.data.recorded import Recorded
from lab_cases import LAYOUTS, Written

nibabel = pytest.importorskip("nibabel")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in LAYOUTS.items()}


def align(data: Written, out: Path, *more: str) -> pd.DataFrame:
    options = ["--ceiling", "-1", "--permutations", "20", "--align.bootstraps", "20", "--align.delays", "2"]
    words = ["align", "--stories", str(data.path), "--out", str(out), "--baselines", "sound_power", "word_rate"]
    assert main([*words, *options, *data.options, *more]) == 0
    return pd.read_csv(out / "scores.csv")


@pytest.fixture(scope="module")
def scores(written: dict[str, Written], tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    return {name: align(data, tmp_path_factory.mktemp("out") / "a") for name, data in written.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_the_same(layout: str, scores: dict[str, pd.DataFrame], written: dict[str, Written]) -> None:
    found, wanted = scores[layout], scores["ds003020"]
    assert list(found["participant"].unique()) == list(written[layout].people)
    for name in ("model", "layer", "region", "fit_rows"):
        assert list(found[name]) == list(wanted[name])
    np.testing.assert_allclose(found["r"], wanted["r"], atol=2e-5)
    power = wanted[wanted["model"] == "sound_power"]["r"]
    assert (power > 0.5).all()  # a scan too early or too late would cost most of it


@pytest.mark.parametrize("layout", LAYOUTS)
def test_check_finds_nothing(layout: str, written: dict[str, Written], capsys: pytest.CaptureFixture[str]) -> None:
    data = written[layout]
    options = () if layout == "ds003020" else data.options
    assert main(["check", str(data.path), *options]) == 0
    said = capsys.readouterr().out
    assert "2 participants, 18 runs, TR 2 s" in said and "nothing is wrong" in said


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "ds003020"])
def test_responses_are_the_rows_that_ds003020_keeps(layout: str, written: dict[str, Written]) -> None:
    data = written[layout]
    given = {name.removeprefix("--images."): value for name, value in zip(data.options[::2], data.options[1::2], strict=True)}
    kinds = {"skip_start": int, "skip_end": int, "onset": float, "mask": Path, "test": lambda text: (text,)}
    images = ImageSettings(**{name: kinds[name](value) for name, value in given.items()})
    found = open_data(data.path, settings=images)
    assert isinstance(found, Recorded) and found.test_story == data.test and found.tr == lab_cases.TR
    for who, own in zip(data.people, lab_cases.PEOPLE, strict=True):
        np.testing.assert_array_equal(found.responses(who, data.test), lab_cases.rows(own, lab_cases.TEST))
    assert found.row_times(data.test)[0] == 10.0
    assert [word.label for word in found.words(data.test)][:2] == [label for _, _, label in lab_cases.words(lab_cases.TEST)][:2]


def test_maps_come_back_as_images(written: dict[str, Written], tmp_path: Path) -> None:
    data = written["bids-volumes"]
    lost = next((data.path / "derivatives/fmriprep/sub-01/func").glob("*run-2*brain_mask.nii.gz"))
    inside = np.ones(lab_cases.GRID, np.uint8)
    inside[0, 0, 0] = 0  # masks of runs differ: channels are what is inside all
    before = lost.read_bytes()
    nibabel.Nifti1Image(inside, nibabel.load(lost).affine).to_filename(lost)
    align(data, tmp_path / "out", "--maps")
    lost.write_bytes(before)
    images = sorted((tmp_path / "out" / "maps").rglob("*.nii.gz"))
    assert images and all(nibabel.load(path).shape[:3] == lab_cases.GRID for path in images)


@pytest.mark.parametrize(("layout", "like"), [("table", "ds003020"), ("bids-surfaces", "bids-volumes")])
def test_a_model_is_tuned(layout: str, like: str, written: dict[str, Written], tmp_path: Path) -> None:
    """Losses of the updates are those of another layout with the same names of participants, which decide first weights."""
    losses = {}
    for name in (layout, like):
        data = written[name]
        words = ["train", "--model", "small", "--stories", str(data.path), "--out", str(tmp_path / name), "--ceiling", "-1"]
        options = ["--epochs", "1", "--batch", "64", "--clip-seconds", "4", "--log-every", "1", "--device", "cpu"]
        assert main([*words, *options, *data.options]) == 0
        rows = pd.read_json(tmp_path / name / "log.jsonl", lines=True)
        losses[name] = rows["loss"].dropna().to_numpy()
    assert len(losses[like]) >= 3
    np.testing.assert_allclose(losses[layout], losses[like], rtol=1e-4)


@pytest.mark.parametrize(
    ("tr", "delays", "told"),
    [
        (2.0, (1, 2, 3, 4), False),
        (1.5, (1, 2, 3, 4), True),
        (0.8, (1, 2, 3, 4), True),
        (0.8, tuple(range(2, 11)), False),
        (2.0, (4,), True),
    ],
)
def test_delays_that_do_not_cover_the_peak_of_responses(tr: float, delays: tuple[int, ...], told: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _check_delays(delays, tr)
    assert bool(caught) is told and all("do not cover 4 to 8 s" in str(one.message) for one in caught)
