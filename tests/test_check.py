"""fastencode-tune check: a table of what is there, every fault of responses, sounds and words at once, and an exit status."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastencode.cli import main
from fastencode.data.textgrid import write_textgrid
from fastencode.speech.audio import write_audio

STORIES = {"one": 60, "two": 50, "test": 70}  # scans of 2 s


def lab(folder: Path, people: tuple[str, ...] = ("anna", "ben"), voxels: int = 12) -> dict[tuple[str, str], np.ndarray]:
    """Sounds, transcripts and responses as .npy files, with a table of them; the responses by participant and run."""
    rows, responses = ["participant,run,audio,responses,tr,repeat_of,split,transcript"], {}
    for story, scans in STORIES.items():
        noise = np.random.default_rng(scans).normal(0, 0.1, 16000 * 2 * scans).astype(np.float32)
        write_audio(folder / f"{story}.wav", noise, 16000)
        words = [(float(t), t + 0.4, f"w{t}") for t in range(0, 2 * scans - 1, 2)]
        write_textgrid(folder / f"{story}.TextGrid", {"words": words}, 2.0 * scans)
    for place, who in enumerate(people):
        for story, scans in {**STORIES, "again": STORIES["test"]}.items():
            values = 100 + np.random.default_rng([place, len(responses)]).normal(size=(scans, voxels))
            responses[who, story] = values
            np.save(folder / f"{who}-{story}.npy", values)
            sound, repeats = ("test", "test") if story == "again" else (story, "")
            split = "test" if sound == "test" else ""
            rows.append(f"{who},{story},{sound}.wav,{who}-{story}.npy,2.0,{repeats},{split},{sound}.TextGrid")
    (folder / "runs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return responses


def check(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    status = main(["check", str(folder / "runs.csv"), *options])
    return status, capsys.readouterr().out


def test_a_table_of_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab(tmp_path)
    status, said = check(tmp_path, capsys, "--out", str(tmp_path / "out"))
    assert status == 0 and "layout table, 2 participants, 6 runs, TR 2 s" in said and "nothing is wrong" in said
    rows = list(csv.DictReader((tmp_path / "out" / "check.csv").open(encoding="utf-8")))
    assert [(row["participant"], row["run"]) for row in rows[:3]] == [("anna", "one"), ("anna", "test"), ("anna", "two")]
    test = rows[1]
    assert (test["rows"], test["repeats"], test["split"], test["voxels"], test["gaps"]) == ("70", "2", "test", "12", "0")
    assert float(test["sound"]) == 140 and float(test["first"]) == 0 and int(test["words"]) == 70
    assert json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))["findings"] == []


def test_every_fault_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    responses = lab(tmp_path)
    np.save(tmp_path / "anna-one.npy", np.zeros_like(responses["anna", "one"]))
    wild = responses["ben", "one"].copy()
    wild[30] = 1e6
    wild[:, 3] = 7.0
    np.save(tmp_path / "ben-one.npy", wild)
    np.save(tmp_path / "ben-two.npy", responses["anna", "two"])
    np.save(tmp_path / "anna-again.npy", responses["anna", "test"])
    gaps = responses["ben", "test"].copy()
    gaps[5, 2] = np.nan
    np.save(tmp_path / "ben-test.npy", gaps)
    words = [(1000.0 * t, 1000.0 * t + 400, f"w{t}") for t in range(0, 100, 2)]
    write_textgrid(tmp_path / "two.TextGrid", {"words": words}, 100000.0)
    with (tmp_path / "runs.csv").open("a", encoding="utf-8") as file:
        file.write("carl,one,one.wav,nowhere.npy,2.0,,,\n")
    status, said = check(tmp_path, capsys)
    assert status == 1
    for text in (
        "anna, one: all 12 voxels are 0",
        "ben, one: 1 of 60 rows lie more than 20 standard deviations away",
        "1 of 12 voxels",
        "milliseconds",
        "equal: 1 and 2",
        "line 10: ",
        "nowhere.npy",
    ):
        assert text in said, text
    assert "1 cannot be used" in said


def test_headers_only_reads_no_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    responses = lab(tmp_path)
    np.save(tmp_path / "anna-one.npy", np.zeros_like(responses["anna", "one"]))
    status, said = check(tmp_path, capsys, "--headers-only")
    assert status == 0 and "voxels are 0" not in said


def test_runs_that_one_participant_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab(tmp_path, ("anna", "ben", "carl"))
    lines = (tmp_path / "runs.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "runs.csv").write_text(
        "\n".join(line for line in lines if not line.startswith("ben,two")) + "\n", encoding="utf-8"
    )
    status, said = check(tmp_path, capsys)
    assert status == 0 and "ben: has no responses to two, which most others heard" in said


def test_the_layout_of_ds003020(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same responses in that layout: rows are cut by it, a link that is not fetched is left out."""
    for folder in ("preprocessed_data/P1", "stimuli", "TextGrids"):
        (tmp_path / folder).mkdir(parents=True)
    lengths = {story: scans + 10 for story, scans in STORIES.items()}
    (tmp_path / "respdict.json").write_text(json.dumps(lengths))
    for story, scans in STORIES.items():
        write_audio(
            tmp_path / "stimuli" / f"{story}.wav", np.random.default_rng(1).normal(0, 0.1, 32000 * scans).astype("f4"), 16000
        )
        write_textgrid(tmp_path / "TextGrids" / f"{story}.TextGrid", {"words": [(1.0, 1.5, "so")]}, 2.0 * scans)
        with h5py.File(tmp_path / "preprocessed_data" / "P1" / f"{story}.hf5", "w") as file:
            file["data"] = np.random.default_rng(scans).normal(size=(scans - 10, 5))
    (tmp_path / "preprocessed_data" / "P1" / "far.hf5").symlink_to("../../.git/annex/objects/aa/bb/far.hf5")
    status = main(["check", str(tmp_path)])
    said = capsys.readouterr().out
    assert status == 0 and "layout ds003020, 1 participant, 3 runs" in said and "datalad get" in said


def test_what_has_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert "no known layout" in capsys.readouterr().err


def test_a_data_set_without_transcripts_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab(tmp_path)
    lines = (tmp_path / "runs.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "runs.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n", encoding="utf-8")
    status, said = check(tmp_path, capsys)
    assert status == 0 and "nothing is wrong" in said
