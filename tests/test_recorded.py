"""A data set of single presentations, from a table of runs: which scans are rows, whose they are, what is wrong with files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fastencode.data.recorded import Recorded
from fastencode.data.responses import open_responses
from fastencode.data.runs import Run
from fastencode.data.table import read_table
from fastencode.data.transcripts import spoken_labels
from fastencode.errors import InputError
from fastencode.speech.audio import write_audio

TR = 2.0
HEADER = "participant,run,audio,responses,tr,onset,skip_start,skip_end,censored,repeat_of,split"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Two sounds of 40 and 50 s, and responses of two people as .npy and .h5 whose value at scan i, channel j is 100 i + j."""
    rng = np.random.default_rng(0)
    for name, seconds in (("a", 40), ("b", 50)):
        write_audio(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 16000 * seconds).astype(np.float32), 16000)
    for scans in (20, 25, 30):
        values = 100 * np.arange(scans)[:, None] + np.arange(7)
        np.save(tmp_path / f"{scans}.npy", values.astype(np.float64))
        with h5py.File(tmp_path / f"{scans}.h5", "w") as file:
            file["bold/data"], file["other"] = values, np.zeros(3)
    return tmp_path


def table(lab: Path, *rows: str, header: str = HEADER) -> Path:
    path = lab / "runs.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def opened(lab: Path, *rows: str) -> Recorded:
    runs, problems = read_table(table(lab, *rows))
    assert not problems
    return Recorded(runs, root=lab)


def test_rows_are_the_scans_inside_the_sound(lab: Path) -> None:
    """The sound of 40 s begins 10 s after the first of 30 scans: scans 5 to 24; one more is left out at the start."""
    data = opened(lab, "anna,a,a.wav,30.npy,2.0,10,6,,,,", "ben,a,a.wav,30.h5::bold/data,2.0,10,6,,,,")
    assert data.participants == ["anna", "ben"] and data.stories("ben") == ["a"] and data.n_rows("a") == 19
    np.testing.assert_allclose(data.row_times("a"), 2.0 * np.arange(6, 25) - 10)
    np.testing.assert_allclose(data.row_times("a", middle=True), 2.0 * np.arange(6, 25) - 9)
    for who in ("anna", "ben"):
        expected = 100 * np.arange(6, 25)[:, None] + np.array([5, 2])
        np.testing.assert_array_equal(data.responses(who, "a", voxels=[5, 2]), expected)
        assert data.responses(who, "a").dtype == np.float32 and data.n_voxels(who) == 7


@pytest.mark.parametrize(("onset", "same"), [(0.15, True), (2.1, True), (0.9, False)])
def test_people_share_a_run_where_their_scans_lie_at_the_same_times(lab: Path, onset: float, same: bool) -> None:
    data = opened(lab, "anna,a,a.wav,20.npy,2.0,,,,,,", f"ben,a,a.wav,25.npy,2.0,{onset},,,,,")
    if not same:
        assert data.stories("anna") == ["a"] and data.stories("ben") == ["a@ben"]  # as many have either: the first
        assert data.story("a@ben") == "a" and data.recording("a@ben") == "a"
        assert "scans lie" in str(data.problems[0]) and data.problems[0].kind == "doubt"
        return
    assert data.stories("anna") == data.stories("ben") == ["a"]
    own = data.responses("ben", "a")[:, 0] / 100  # the scan of ben's file that each row is
    np.testing.assert_allclose(TR * own - onset, data.row_times("a"), atol=0.2)
    theirs = data.responses("anna", "a")[:, 0] / 100
    np.testing.assert_allclose(TR * theirs, data.row_times("a"), atol=0.2)


def test_the_plain_name_is_that_of_the_times_that_most_share(lab: Path) -> None:
    rows = [f"p{i},a,a.wav,20.npy,2.0,{1.0 if i == 0 else 0.0},,,,," for i in range(3)]
    data = opened(lab, *rows)
    assert [data.stories(f"p{i}") for i in range(3)] == [["a@p0"], ["a"], ["a"]]
    assert len(data.problems) == 1


def test_repeats_are_the_same_person_and_story_again(lab: Path) -> None:
    data = opened(
        lab,
        "anna,b,b.wav,25.npy,2.0,,,,,,test",
        "anna,b again,b.wav,30.npy,2.0,4,,,,b,test",
        "anna,a,a.wav,20.npy,2.0,,,,,,",
    )
    assert data.is_repeated("anna", "b") and not data.is_repeated("anna", "a") and data.test_story == "b"
    repeats = data.repeats("anna", "b", voxels=[1])
    assert repeats.shape == (2, 25, 1)
    np.testing.assert_array_equal(repeats[1] - repeats[0], np.full((25, 1), 200))  # two scans later in its file
    np.testing.assert_array_equal(data.responses("anna", "b", voxels=[1]), repeats.mean(axis=0))
    with pytest.raises(InputError, match="heard a once"):
        data.repeats("anna", "a")


def test_censored_scans_keep_their_times(lab: Path) -> None:
    (lab / "motion.txt").write_text("\n".join("1" if i in (3, 4) else "0" for i in range(20)))
    data = opened(lab, "anna,a,a.wav,20.npy,2.0,,2,,motion.txt,,", "ben,a,a.wav,20.npy,2.0,,2,,,,")
    np.testing.assert_array_equal(np.flatnonzero(~data.kept("anna", "a")), [1, 2])
    assert data.kept("ben", "a").all() and data.n_rows("a") == 18


def test_every_problem_is_told_with_its_line(lab: Path) -> None:
    (lab / "unfetched.npy").write_text("../../.git/annex/objects/aa/bb/MD5E-s12--abc.npy/MD5E-s12--abc.npy")
    path = table(
        lab,
        "anna,a,nowhere.wav,20.npy,2.0,,,,,,",
        "anna,a,a.wav,20.npy,two,,,,,,",
        "anna,a,a.wav,20.h5,2.0,,,,,,",
        "anna,a,a.wav,20.txt,2.0,,,,,,",
        ",a,a.wav,20.npy,2.0,,,,,,",
        "anna,a,a.wav,20.npy,2.0,,15,5,,,",
        "anna,a,a.wav,20.npy,2.0,,,,,,Test set",
        "anna,a,a.wav,20.npy,2.0,,,,,,",
    )
    runs, problems = read_table(path)
    assert len(runs) == 1
    told = [str(problem) for problem in problems]
    assert [int(one.split("line ")[1].split(":")[0]) for one in told] == list(range(2, 9))
    for text, one in zip(
        ("nowhere.wav", "'two'", "bold/data", "20.txt", "participant is empty", "15 + 5", "'Test set'"), told, strict=True
    ):
        assert text in one


def test_a_header_that_lacks_columns_names_the_nearest(lab: Path) -> None:
    with pytest.raises(InputError, match="no column responses.*'response' may be 'responses'"):
        read_table(table(lab, "anna,a,20.npy,2.0", header="participant,run,response,tr"))
    runs, problems = read_table(table(lab, "anna,a,20.npy,2.0,3", header="participant,run,responses,tr,onsett"))
    assert len(runs) == 1 and "did you mean 'onset'" in str(problems[0]) and problems[0].kind == "doubt"


def test_what_cannot_be_one_data_set_is_told_at_once(lab: Path) -> None:
    (lab / "other").mkdir()
    write_audio(lab / "other" / "a.wav", np.zeros(16000 * 40, np.float32), 16000)
    np.save(lab / "wide.npy", np.zeros((20, 9)))
    runs, _ = read_table(
        table(
            lab,
            "anna,a,a.wav,20.npy,2.0,,,,,,",
            "anna,c,other/a.wav,wide.npy,1.5,,,,,,",
            "ben,a,a.wav,20.npy,2.0,100,,,,,",
        )
    )
    with pytest.raises(InputError) as found:
        Recorded(runs, root=lab)
    for text in ("TR differs", "9 channels", "two sounds are called a", "no scan lies inside the sound"):
        assert text in str(found.value)


def test_formats_hold_the_same_numbers(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(1)
    inside = rng.random((4, 5, 3)) < 0.5
    values = rng.normal(size=(12, int(inside.sum()))).astype(np.float32)
    volume = np.zeros((4, 5, 3, 12), np.float32)
    volume[inside] = values.T
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "x.nii.gz")
    nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)).to_filename(tmp_path / "mask.nii.gz")
    for name, part in (("lh", values[:, :10]), ("rh", values[:, 10:])):
        arrays = [nibabel.gifti.GiftiDataArray(row) for row in part]
        nibabel.gifti.GiftiImage(darrays=arrays).to_filename(tmp_path / f"{name}.func.gii")
    axes = nibabel.cifti2.SeriesAxis(0, 2, 12), nibabel.cifti2.BrainModelAxis.from_mask(inside, affine=np.eye(4))
    nibabel.Cifti2Image(values, axes).to_filename(tmp_path / "x.dtseries.nii")
    np.save(tmp_path / "x.npy", values)
    columns, rows = np.array([13, 2, 2]), slice(3, 9)
    for text, mask in (
        ("x.npy", None),
        ("x.nii.gz", "mask.nii.gz"),
        ("lh.func.gii+" + str(tmp_path / "rh.func.gii"), None),
        ("x.dtseries.nii", None),
    ):
        found = open_responses(f"{tmp_path}/{text}", None if mask is None else tmp_path / mask)
        assert found.shape == values.shape
        np.testing.assert_array_equal(found.read(rows, columns), values[rows][:, columns])
    with pytest.raises(InputError, match="without a mask"):
        open_responses(tmp_path / "x.nii.gz")
    nibabel.Nifti1Image(inside.astype(np.uint8)[:3], np.eye(4)).to_filename(tmp_path / "small.nii.gz")
    with pytest.raises(InputError, match=r"grid \(3, 5, 3\)"):
        _ = open_responses(tmp_path / "x.nii.gz", tmp_path / "small.nii.gz").shape


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gentle.csv", "The,the,0.1,0.3\nfox,<unk>,,\nran,ran,0.5,0.9\n"),
        ("words.csv", "word,onset,offset\nThe,0.1,0.3\nfox,,\nran,0.5,0.9\n"),
        ("words.tsv", "onset\tduration\tword\n0.1\t0.2\tThe\n0.5\t0.4\tran\n"),
    ],
)
def test_tables_of_words(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    words = spoken_labels(tmp_path / name, "words")
    assert [word.label for word in words] == ["The", "ran"]
    np.testing.assert_allclose([(word.start, word.end) for word in words], [(0.1, 0.3), (0.5, 0.9)])


def test_a_run_refuses_what_cannot_be(lab: Path) -> None:
    responses = open_responses(lab / "20.npy")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tr": 0.0}, "TR is 0"),
        ({"tr": 2.0, "onset": np.nan}, "onset is nan"),
        ({"tr": 2.0, "times": np.arange(3.0)}, "3 times for 20 scans"),
        ({"tr": 2.0, "times": np.zeros(20)}, "do not rise"),
        ({"tr": 2.0, "split": "dev"}, "'dev'"),
    ]
    for given, text in wrong:
        with pytest.raises(InputError, match=text):
            Run("anna", "a", lab / "a.wav", responses, **given)
