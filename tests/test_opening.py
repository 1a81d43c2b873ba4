"""Every layout is found by what lies there, and one that is not is told what was looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastencode.data.opening import layout_of, open_data
from fastencode.data.recorded import Recorded
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.audio import write_audio


@pytest.mark.parametrize(
    ("there", "layout"),
    [
        ("derivative/preprocessed_data", "ds003020"),
        ("preprocessed_data", "ds003020"),
        ("derivatives/afni-smooth", "narratives"),
        ("derivatives/sub-FR001/func/sub-FR001_task-lppFR_run-1_bold.nii.gz", "petit-prince"),
        ("derivatives/fmriprep/sub-01", "bids"),
        ("sub-01/func", "bids"),
    ],
)
def test_layouts(tmp_path: Path, there: str, layout: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    assert layout_of(tmp_path) == layout


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no known layout: looked for preprocessed_data"):
        open_data(tmp_path)
    with pytest.raises(InputError, match="is not there"):
        open_data(tmp_path / "nothing")


def test_a_table(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000 * 40).astype(np.float32), 16000)
    np.save(tmp_path / "a.npy", np.zeros((20, 3)))
    rows = ["participant,run,audio,responses,tr,split", "anna,a,a.wav,a.npy,2,test", "ben,a,a.wav,b.npy,2,test"]
    (tmp_path / "runs.csv").write_text("\n".join(rows) + "\n")
    with pytest.warns(FastencodeWarning, match="line 3.*b.npy"):
        data = open_data(tmp_path / "runs.csv", test_skip=5)
    assert isinstance(data, Recorded) and data.participants == ["anna"] and data.usable_rows("a") == slice(5, 20)
    with pytest.raises(InputError, match="says 2 s"):
        open_data(tmp_path / "runs.csv", tr=1.5)
    with pytest.raises(InputError, match="no such run: choose among a"):
        open_data(tmp_path / "runs.csv", test_story="b")
