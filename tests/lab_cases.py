"""One set of simulated brains in the layouts that labs have: nine short stories, two people, scans before and after the sound.

The level of each story changes every 2 s at random. Responses follow it two scans later. In files of scans, the sound begins
``ONSET`` s after the first scan; of the scans, ``SKIP`` are left out at either end, which are those that ds003020 leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fastencode.data.textgrid import write_textgrid
from fastencode.speech.audio import write_audio

TR, ONSET, SKIP, SECONDS, VOXELS = 2.0, 10.0, 10, 64, 24
SCANS = int(SECONDS / TR) + 10
STORIES = tuple(range(1, 10))
PEOPLE = ("01", "02")
TEST = STORIES[-1]
GRID = (4, 3, 2)
RATE = 16000


def levels(story: int) -> np.ndarray:
    """Of every 2 s of a story."""
    return np.random.default_rng(story).uniform(0.02, 0.4, int(SECONDS / TR))


def sound(story: int) -> np.ndarray:
    noise = np.random.default_rng(100 + story).standard_normal(SECONDS * RATE)
    return (np.repeat(levels(story), int(TR * RATE)) * noise / 4).astype(np.float32)


def words(story: int) -> list[tuple[float, float, str]]:
    return [(t + 0.1, t + 0.7, f"déjà{t}") for t in range(0, SECONDS - 1, 2 + story % 2)]


def scans(who: str, story: int) -> np.ndarray:
    """(SCANS, VOXELS) float32: every scan of the file, the first ``ONSET`` s before the sound."""
    rng = np.random.default_rng([int(who), story])
    heard = np.concatenate([np.full(5 + 2, 0.2), levels(story), np.full(5, 0.2)])[:SCANS]
    gains = np.random.default_rng(int(who)).uniform(0.5, 2, VOXELS)
    return (100 + 10 * np.outer(heard, gains) + rng.normal(0, 1, (SCANS, VOXELS))).astype(np.float32)


def rows(who: str, story: int) -> np.ndarray:
    """What ds003020 keeps of the scans."""
    return scans(who, story)[SKIP : SCANS - SKIP]


@dataclass(frozen=True)
class Written:
    """Where a data set lies, the options that open it, and what its participants and test story are called."""

    path: Path
    options: tuple[str, ...]
    people: tuple[str, ...]
    test: str


def ds003020(folder: Path) -> Written:
    for name in ("stimuli", "TextGrids", *(f"preprocessed_data/P{who}" for who in PEOPLE)):
        (folder / name).mkdir(parents=True)
    (folder / "respdict.json").write_text(json.dumps({f"s{story}": SCANS for story in STORIES}))
    for story in STORIES:
        write_audio(folder / "stimuli" / f"s{story}.wav", sound(story), RATE)
        write_textgrid(folder / "TextGrids" / f"s{story}.TextGrid", {"words": words(story)}, SECONDS)
        for who in PEOPLE:
            with h5py.File(folder / "preprocessed_data" / f"P{who}" / f"s{story}.hf5", "w") as file:
                file["data"] = rows(who, story).astype(np.float64)
    return Written(folder, ("--test-story", f"s{TEST}"), tuple(f"P{who}" for who in PEOPLE), f"s{TEST}")


def table(folder: Path) -> Written:
    lines = ["participant,run,audio,responses,tr,onset,skip_start,skip_end,split,transcript"]
    for story in STORIES:
        write_audio(folder / f"s{story}.wav", sound(story), RATE)
        (folder / f"s{story}.csv").write_text(
            "word,onset,offset\n" + "".join(f"{label},{start},{end}\n" for start, end, label in words(story)), encoding="utf-8"
        )
        for who in PEOPLE:
            np.save(folder / f"{who}-{story}.npy", scans(who, story))
            split = "test" if story == TEST else "train"
            lines.append(f"P{who},s{story},s{story}.wav,{who}-{story}.npy,{TR},{ONSET},{SKIP},{SKIP},{split},s{story}.csv")
    (folder / "runs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Written(folder / "runs.csv", (), tuple(f"P{who}" for who in PEOPLE), f"s{TEST}")


_TRIMMED = ("--images.skip_start", str(SKIP), "--images.skip_end", str(SKIP))


def _bids(folder: Path) -> Iterator[tuple[str, int, str, Path]]:
    """Sounds, transcripts, events and TR of a BIDS data set: participant, story, stem, folder of derivatives."""
    (folder / "stimuli").mkdir(parents=True)
    (folder / "task-listen_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    for story in STORIES:
        write_audio(folder / "stimuli" / f"s{story}.wav", sound(story), RATE)
        write_textgrid(folder / "stimuli" / f"s{story}.TextGrid", {"words": words(story)}, SECONDS)
    for who in PEOPLE:
        raw, made = folder / f"sub-{who}" / "func", folder / "derivatives" / "fmriprep" / f"sub-{who}" / "func"
        raw.mkdir(parents=True)
        made.mkdir(parents=True)
        for story in STORIES:
            stem = f"sub-{who}_task-listen_run-{story}"
            events = f"onset\tduration\tstim_file\n{ONSET}\t{SECONDS}\ts{story}.wav\n"
            (raw / f"{stem}_events.tsv").write_text(events)
            yield who, story, stem, made


def bids_volumes(folder: Path) -> Written:
    for who, story, stem, made in _bids(folder):
        image(made / f"{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz", scans(who, story))
        image(made / f"{stem}_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz", None)
    return Written(folder, (*_TRIMMED, "--images.test", f"s{TEST}"), tuple(f"sub-{who}" for who in PEOPLE), f"s{TEST}")


def bids_surfaces(folder: Path) -> Written:
    for who, story, stem, made in _bids(folder):
        surfaces(made, f"{stem}_hemi-{{side}}_space-fsaverage6_bold.func.gii", scans(who, story))
    return Written(folder, (*_TRIMMED, "--images.test", f"s{TEST}"), tuple(f"sub-{who}" for who in PEOPLE), f"s{TEST}")


def narratives(folder: Path) -> Written:
    (folder / "stimuli").mkdir(parents=True)
    for story in STORIES:
        write_audio(folder / "stimuli" / f"s{story}_audio.wav", sound(story), RATE)
        (folder / f"task-s{story}_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
        aligned = folder / "stimuli" / "gentle" / f"s{story}"
        aligned.mkdir(parents=True)
        lines = [f"{label},{label},{start},{end}" for start, end, label in words(story)]
        (aligned / "align.csv").write_text("\n".join([*lines, "lost,<unk>,,"]) + "\n", encoding="utf-8")
        for who in PEOPLE:
            raw, made = folder / f"sub-{who}" / "func", folder / "derivatives" / "afni-nosmooth" / f"sub-{who}" / "func"
            raw.mkdir(parents=True, exist_ok=True)
            events = f"onset\tduration\tstim_file\n{ONSET}\t{SECONDS}\ts{story}_audio.wav\n"
            (raw / f"sub-{who}_task-s{story}_events.tsv").write_text(events)
            surfaces(made, f"sub-{who}_task-s{story}_space-fsaverage6_hemi-{{side}}_desc-clean.func.gii", scans(who, story))
    return Written(folder, (*_TRIMMED, "--images.test", f"s{TEST}"), tuple(f"sub-{who}" for who in PEOPLE), f"s{TEST}")


def petit_prince(folder: Path) -> Written:
    (folder / "stimuli").mkdir(parents=True)
    (folder / "annotation" / "FR").mkdir(parents=True)
    image(folder / "mask.nii.gz", None)
    for story in STORIES:
        write_audio(folder / "stimuli" / f"task-lppFR_section-{story}.wav", sound(story), RATE)
        write_textgrid(folder / "annotation" / "FR" / f"lppFR_section{story}.TextGrid", {"words": words(story)}, SECONDS)
        for place, who in enumerate(PEOPLE):
            made = folder / "derivatives" / f"sub-FR0{who}" / "func"
            made.mkdir(parents=True, exist_ok=True)
            run = story + 6 + place  # 7 … 15, and 8 … 16
            image(made / f"sub-FR0{who}_task-lppFR_run-{run}_space-MNIColin27_desc-preproc_bold.nii.gz", scans(who, story))
    test = f"lppFR_section-{TEST}"
    options = (*_TRIMMED, "--images.onset", str(ONSET), "--images.mask", str(folder / "mask.nii.gz"), "--images.test", test)
    return Written(folder, options, tuple(f"sub-FR0{who}" for who in PEOPLE), test)


def image(path: Path, values: np.ndarray | None) -> None:
    """(scans, voxels) as a NIfTI image, or a mask of all voxels."""
    import nibabel

    if values is None:
        found = nibabel.Nifti1Image(np.ones(GRID, np.uint8), np.diag([3.0, 3, 3, 1]))
    else:
        found = nibabel.Nifti1Image(values.T.reshape(*GRID, len(values)), np.diag([3.0, 3, 3, 1]))
        found.header.set_zooms((3, 3, 3, TR))
    found.to_filename(path)


def surfaces(folder: Path, name: str, values: np.ndarray) -> None:
    """(scans, vertices) as two GIFTI files: half of the vertices each; ``name`` holds {side}."""
    import nibabel

    folder.mkdir(parents=True, exist_ok=True)
    half = values.shape[1] // 2
    for side, part in (("L", values[:, :half]), ("R", values[:, half:])):
        arrays = [nibabel.gifti.GiftiDataArray(row) for row in part.copy()]
        nibabel.gifti.GiftiImage(darrays=arrays).to_filename(folder / name.format(side=side))


LAYOUTS: dict[str, Callable[[Path], Written]] = {
    "ds003020": ds003020,
    "table": table,
    "bids-volumes": bids_volumes,
    "bids-surfaces": bids_surfaces,
    "narratives": narratives,
    "petit-prince": petit_prince,
}
