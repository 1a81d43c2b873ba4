"""BIDS with fMRIPrep derivatives: which scans of which files are rows, what was regressed out of them, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fastencode.data.bids import read_bids
from fastencode.data.cleaning import Cleaned, drifts
from fastencode.data.config import ImageSettings
from fastencode.data.narratives import read_narratives
from fastencode.data.petit_prince import read_petit_prince
from fastencode.data.recorded import Recorded
from fastencode.data.responses import open_responses
from fastencode.data.space import to_image
from fastencode.data.textgrid import write_textgrid
from fastencode.errors import InputError
from fastencode.speech.audio import write_audio
from fastencode.timing.clean import detrend_cosine

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("nilearn")

GRID, SCANS, TR, ONSET, SECONDS = (4, 3, 5), 40, 1.5, 9.0, 45
SPACE = "MNI152NLin2009cAsym"


def inside_of(who: str, run: int) -> np.ndarray:
    mask = np.ones(GRID, bool)
    mask[0, 0, : int(who)] = False
    mask[1, 1, run] = False
    return mask


def values_of(who: str, run: int) -> np.ndarray:
    """(x, y, z, scans): large where slow confounds are, and drifting."""
    rng = np.random.default_rng([int(who), run])
    t = np.arange(SCANS)
    return (1000 + rng.normal(0, 5, (*GRID, SCANS)) + 3 * t + 20 * np.sin(t / 15)).astype(np.float32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two people, two runs of one sound each, in volumes and on surfaces."""
    root = tmp_path / "ds"
    (root / "stimuli").mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 16000 * SECONDS).astype(np.float32)
    for sound in ("fox", "crow"):
        write_audio(root / "stimuli" / f"{sound}.wav", noise, 16000)
    (root / "task-listen_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    for who in ("01", "02"):
        raw, made = root / f"sub-{who}" / "func", root / "derivatives" / "fmriprep" / f"sub-{who}" / "func"
        raw.mkdir(parents=True)
        made.mkdir(parents=True)
        for run, sound in ((1, "fox"), (2, "crow")):
            stem = f"sub-{who}_task-listen_run-{run}"
            events = f"onset\tduration\ttrial_type\tstim_file\n0\t2\tfixation\tn/a\n{ONSET}\t{SECONDS}\tstory\t{sound}.wav\n"
            (raw / f"{stem}_events.tsv").write_text(events)
            values, inside = values_of(who, run), inside_of(who, run)
            nibabel.Nifti1Image(values, np.eye(4)).to_filename(made / f"{stem}_space-{SPACE}_desc-preproc_bold.nii.gz")
            mask = made / f"{stem}_space-{SPACE}_desc-brain_mask.nii.gz"
            nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)).to_filename(mask)
            for side, part in (("L", values[:2]), ("R", values[2:])):
                arrays = [nibabel.gifti.GiftiDataArray(row) for row in part.reshape(-1, SCANS).T.copy()]
                nibabel.gifti.GiftiImage(darrays=arrays).to_filename(made / f"{stem}_hemi-{side}_space-fsaverage6_bold.func.gii")
            confounds(made / f"{stem}_desc-confounds_timeseries.tsv", int(who) + run)
    return root


def confounds(path: Path, seed: int, dummies: int = 2) -> None:
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"):
        motion = rng.normal(0, 0.02, SCANS).cumsum()
        for ending, value in (("", motion), ("_derivative1", np.gradient(motion))):
            columns[f"{name}{ending}"] = value
            columns[f"{name}{ending}_power2"] = value**2
    columns |= {f"cosine{k:02d}": np.cos(np.pi * (k + 1) * (2 * np.arange(SCANS) + 1) / (2 * SCANS)) for k in range(2)}
    columns["framewise_displacement"] = np.where(np.isin(np.arange(SCANS), [20, 21]), 2.0, 0.05)
    columns["std_dvars"] = np.ones(SCANS)
    for k in range(dummies):
        columns[f"non_steady_state_outlier{k:02d}"] = (np.arange(SCANS) == k).astype(float)
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False, na_rep="n/a")
    path.with_suffix(".json").write_text("{}")


def opened(tree: Path, **settings: Any) -> Recorded:
    runs, problems = read_bids(tree, ImageSettings(**settings))
    assert not problems, problems
    return Recorded(runs, root=tree)


def test_volumes_are_read_inside_the_masks_of_all_runs(tree: Path) -> None:
    data = opened(tree, space=SPACE, test=("crow",))
    assert data.participants == ["sub-01", "sub-02"] and data.stories("sub-01") == ["crow", "fox"]
    assert data.tr == TR and data.test_story == "crow" and data.recording("fox") == "fox"
    rows = np.arange(6, 36)  # 9 s are 6 scans; 45 s are 30
    assert data.n_rows("fox") == len(rows)
    np.testing.assert_allclose(data.row_times("fox"), TR * rows - ONSET)
    for who in ("01", "02"):
        inside = inside_of(who, 1) & inside_of(who, 2)
        assert data.n_voxels(f"sub-{who}") == inside.sum()
        np.testing.assert_array_equal(data.responses(f"sub-{who}", "fox"), values_of(who, 1)[inside].T[rows])
        back = to_image(np.arange(1, inside.sum() + 1), data.mask(f"sub-{who}"))  # masks of the two runs differ
        np.testing.assert_array_equal(np.asarray(back.dataobj)[inside], np.arange(1, inside.sum() + 1))
        assert not np.asarray(back.dataobj)[~inside].any()


def test_surfaces_hold_left_before_right(tree: Path) -> None:
    data = opened(tree, space="fsaverage6")
    np.testing.assert_array_equal(data.responses("sub-02", "crow"), values_of("02", 2).reshape(-1, SCANS).T[6:36])


def test_confounds_and_drifts_go_in_one_regression_on_the_scans_that_count(tree: Path) -> None:
    data = opened(tree, space="fsaverage6", confounds=("motion", "scrub"), high_pass=40.0)
    assert data.notes("sub-01")[0] == "2 non-steady-state scans left out"
    assert "regressed out" in data.notes("sub-01")[2]
    kept = data.kept("sub-01", "fox")
    assert kept.sum() < len(kept) and not kept[[14, 15]].any()  # scans 20 and 21, and neighbours that nilearn takes along
    table = pd.read_csv(
        tree / "derivatives/fmriprep/sub-01/func/sub-01_task-listen_run-1_desc-confounds_timeseries.tsv", sep="\t"
    )
    motion = table[[name for name in table if name.startswith(("trans", "rot"))]].to_numpy()
    slow = np.cos(np.pi * np.outer(2 * np.arange(SCANS) + 1, np.arange(4)) / (2 * SCANS))  # 2 · 60 s / 40 s = 3, and the mean
    X, Y = np.column_stack([motion, slow]), values_of("01", 1).reshape(-1, SCANS).T.astype(float)
    counts = np.ones(SCANS, bool)
    counts[:2] = False
    counts[6:36] &= kept
    outside = np.setdiff1d(np.arange(2, SCANS), np.arange(6, 36))
    assert counts[outside].all()
    expected = Y - X @ np.linalg.lstsq(X[counts], Y[counts], rcond=None)[0]
    np.testing.assert_allclose(data.responses("sub-01", "fox"), expected[6:36], atol=2e-3)


def test_slice_timing_to_the_start_of_the_scan_shifts_the_rows(tree: Path) -> None:
    for path in tree.rglob("*_bold.func.gii"):
        path.with_name(path.name.replace("_hemi-L", "").replace("_hemi-R", "").replace(".func.gii", ".json")).write_text(
            json.dumps({"StartTime": 0.0, "SliceTimingCorrected": True})
        )
    data = opened(tree, space="fsaverage6")
    np.testing.assert_allclose(data.row_times("fox", middle=True) % TR, 0.0, atol=1e-9)


def test_what_is_missing_is_told_for_each_run(tree: Path) -> None:
    made = tree / "derivatives/fmriprep"
    (tree / "sub-01/func/sub-01_task-listen_run-1_events.tsv").unlink()
    (made / f"sub-02/func/sub-02_task-listen_run-1_space-{SPACE}_desc-brain_mask.nii.gz").unlink()
    confounds_file = made / "sub-02/func/sub-02_task-listen_run-2_desc-confounds_timeseries.tsv"
    confounds_file.write_text("\n".join(confounds_file.read_text().splitlines()[:-3]) + "\n")
    image = made / f"sub-01/func/sub-01_task-listen_run-2_space-{SPACE}_desc-preproc_bold.nii.gz"
    image.write_text("../../.git/annex/objects/aa/bb/MD5E-s12--abc.nii.gz/MD5E-s12--abc.nii.gz")
    runs, problems = read_bids(tree, ImageSettings(space=SPACE))
    told = "\n".join(map(str, problems))
    for text in ("run-1_events.tsv", "desc-brain_mask", "37 rows, the images 40 scans"):
        assert text in told
    assert [run.name for run in runs] == ["fox"] or not runs


def test_spaces_and_tasks_are_named(tree: Path) -> None:
    with pytest.raises(InputError, match="has the spaces.*MNI152NLin2009cAsym, fsaverage6|fsaverage6, MNI152NLin2009cAsym"):
        read_bids(tree)
    with pytest.raises(InputError, match="no space 'fsaverage5'"):
        read_bids(tree, ImageSettings(space="fsaverage5"))
    with pytest.raises(InputError, match="no task 'rest'"):
        read_bids(tree, ImageSettings(space=SPACE, task="rest"))
    with pytest.raises(InputError, match="preprocessed images"):
        read_bids(tree / "stimuli")


def test_drifts_are_those_of_the_high_pass_filter(tmp_path: Path) -> None:
    Y = np.random.default_rng(0).normal(size=(50, 3)).cumsum(axis=0)
    np.save(tmp_path / "y.npy", Y)
    cleaned = Cleaned(open_responses(tmp_path / "y.npy"), drifts(50, 2.0, 40.0), np.ones(50, bool), "anna")
    np.testing.assert_allclose(cleaned.read(slice(None), slice(None)), detrend_cosine(Y, 2.0, 40.0), atol=1e-5)
    with pytest.raises(InputError, match="60 confounds for 50 scans"):
        Cleaned(open_responses(tmp_path / "y.npy"), np.zeros((50, 60)), np.ones(50, bool), "anna")


def surfaces(folder: Path, stem: str, ending: str, values: np.ndarray) -> None:
    """(scans, 2 v): the left half of the channels in one file, the right in another; ``ending`` holds {side}."""
    folder.mkdir(parents=True, exist_ok=True)
    half = values.shape[1] // 2
    for side, part in (("L", values[:, :half]), ("R", values[:, half:])):
        arrays = [nibabel.gifti.GiftiDataArray(row) for row in part.astype(np.float32).copy()]
        nibabel.gifti.GiftiImage(darrays=arrays).to_filename(folder / f"{stem}{ending.format(side=side)}")


def test_narratives(tmp_path: Path) -> None:
    """Onset and name of the story from events, or both from the task; words of Gentle, also those it did not find."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16000 * SECONDS).astype(np.float32)
    (tmp_path / "stimuli").mkdir()
    for story in ("tunnel", "milkywayoriginal"):
        write_audio(tmp_path / "stimuli" / f"{story}_audio.wav", noise, 16000)
    words = tmp_path / "stimuli" / "gentle" / "tunnel"
    words.mkdir(parents=True)
    (words / "align.csv").write_text("So,so,1.25,1.5\nhm,<unk>,,\nthey,they,2.0,2.2\n")
    (tmp_path / "task-tunnel_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    (tmp_path / "task-milkyway_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    (tmp_path / "sub-001" / "func").mkdir(parents=True)
    events = f"onset\tduration\ttrial_type\tstim_file\n{ONSET}\t45\tstory\ttunnel_audio.wav\n"
    (tmp_path / "sub-001/func/sub-001_task-tunnel_events.tsv").write_text(events)
    values = np.random.default_rng(1).normal(size=(SCANS, 8)).astype(np.float32)
    for pipeline in ("afni-smooth", "afni-nosmooth"):
        folder = tmp_path / "derivatives" / pipeline / "sub-001" / "func"
        for task in ("tunnel", "milkyway"):
            factor = 1 if pipeline == "afni-nosmooth" else 0
            surfaces(folder, f"sub-001_task-{task}", "_space-fsaverage6_hemi-{side}_desc-clean.func.gii", factor * values)
    runs, problems = read_narratives(tmp_path, ImageSettings(test=("tunnel",)))
    data = Recorded(runs, root=tmp_path)
    assert not problems and data.stories("sub-001") == ["milkywayoriginal", "tunnel"] and data.test_story == "tunnel"
    np.testing.assert_array_equal(data.responses("sub-001", "tunnel"), values[6:36])
    np.testing.assert_array_equal(data.responses("sub-001", "milkywayoriginal"), values[:30])
    assert data.recording("tunnel") == "tunnel_audio" and [word.label for word in data.words("tunnel")] == ["So", "they"]
    with pytest.raises(InputError, match="regressed out"):
        read_narratives(tmp_path, ImageSettings(confounds=("motion",)))


def test_le_petit_prince(tmp_path: Path) -> None:
    """Run numbers are sorted; French words keep their accents; one missing run makes all sections unknown."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16000 * 30).astype(np.float32)
    (tmp_path / "stimuli").mkdir()
    (tmp_path / "annotation" / "FR").mkdir(parents=True)
    affine, inside = np.diag([3.0, 3, 3, 1]), np.ones((2, 2, 2), np.uint8)
    nibabel.Nifti1Image(inside, affine).to_filename(tmp_path / "mask.nii.gz")
    for section in range(1, 10):
        write_audio(tmp_path / "stimuli" / f"task-lppFR_section-{section}.wav", noise, 16000)
        write_textgrid(
            tmp_path / "annotation" / "FR" / f"lppFR_section{section}.TextGrid", {"words": [(0.5, 1.0, f"déjà{section}")]}, 30.0
        )
    for who, first in (("FR001", 7), ("FR002", 15)):
        folder = tmp_path / "derivatives" / f"sub-{who}" / "func"
        folder.mkdir(parents=True)
        for place in range(9):
            image = nibabel.Nifti1Image(np.full((2, 2, 2, 15), 10.0 * (place + 1), np.float32), affine)
            image.header.set_zooms((3, 3, 3, 2.0))
            stem = f"sub-{who}_task-lppFR_run-{first + place}"  # "9" stands behind "15" where names are sorted
            image.to_filename(folder / f"{stem}_space-MNIColin27_desc-preproc_bold.nii.gz")
    settings = ImageSettings(mask=tmp_path / "mask.nii.gz", test=("lppFR_section-9",), skip_start=4)
    runs, problems = read_petit_prince(tmp_path, settings)
    data = Recorded(runs, root=tmp_path)
    assert not problems and data.participants == ["sub-FR001", "sub-FR002"] and data.tr == 2.0
    for who in data.participants:
        for section in range(1, 10):
            found = data.responses(who, f"lppFR_section-{section}")
            assert found.shape == (11, 8) and (found == 10 * section).all()
    assert data.words("lppFR_section-3")[0].label == "déjà3" and data.test_story == "lppFR_section-9"
    next((tmp_path / "derivatives" / "sub-FR002" / "func").iterdir()).unlink()
    runs, problems = read_petit_prince(tmp_path, settings)
    assert {run.participant for run in runs} == {"sub-FR001"} and "fetch all" in str(problems[0])
