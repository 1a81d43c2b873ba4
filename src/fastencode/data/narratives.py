"""Reader of Narratives (OpenNeuro ds002345; Nastase et al. 2021): 345 people, 27 stories, most heard once.

::

    derivatives/afni-nosmooth/sub-001/func/sub-001_task-tunnel[_run-1]_space-fsaverage6_hemi-L_desc-clean.func.gii    (hemi-R)
    derivatives/afni-nosmooth/sub-001/func/sub-001_task-tunnel_space-MNI…_res-native_desc-clean_bold.nii.gz
    sub-001/func/sub-001_task-tunnel[_run-1]_events.tsv         onset of the story, where the column stim_file names its sound
    stimuli/tunnel_audio.wav
    stimuli/gentle/tunnel/align.csv                             word as written, as aligned, onset, offset; no header

Confounds were regressed out of these images already. Volumes have no masks beside them: one has to be named. Where events name no
sound, a story is its task's and begins with the first scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastencode.data.bids import Heard, events_of, make_runs, sounds_of
from fastencode.data.bids_files import Bold, find_bold, stimuli_of
from fastencode.data.config import ImageSettings
from fastencode.data.findings import Finding
from fastencode.data.runs import Run
from fastencode.errors import InputError

__all__ = ["read_narratives"]

_ENDINGS = {"_desc-clean.func.gii": "surface", "_desc-clean_bold.nii.gz": "volume"}
_PIPELINE = "afni-nosmooth"
_OTHER_NAMES = {"milkyway": "milkywayoriginal"}  # task → stimulus


def read_narratives(root: Path, settings: ImageSettings | None = None) -> tuple[list[Run], list[Finding]]:
    """Find every story of every participant; of images only headers are read.

    Parameters
    ----------
    root : Path
        Of the data set.
    settings : ImageSettings, optional
        ``pipeline`` is "afni-nosmooth" by default. ``confounds`` must be empty: they are regressed out.

    Returns
    -------
    runs : list of Run
    problems : list of Finding

    Raises
    ------
    InputError
        As :func:`fastencode.data.bids.read_bids`, and if confounds are named.
    """
    settings = settings or ImageSettings()
    if settings.confounds:
        raise InputError(
            f"confounds names {settings.confounds[0]}, and they are regressed out of Narratives' images: leave it empty"
        )
    settings = replace(settings, pipeline=settings.pipeline or _PIPELINE)
    found = find_bold(root, _ENDINGS, settings.pipeline)
    return make_runs(root, found, settings, partial(_sounds, root, settings=settings))


def _sounds(root: Path, bold: Bold, problems: list[Finding], *, settings: ImageSettings) -> Iterator[Heard]:
    """The story of a run: as its events name it, or by the name of its task."""
    stimuli, events = stimuli_of(root), events_of(root, bold)
    if events is not None:
        try:
            for onset, file in sounds_of(events, settings.stimulus, problems):
                story = Path(file).stem.removesuffix("_audio")
                yield Heard(story, stimuli / Path(file).name, onset, _words(stimuli, story))
            return
        except InputError as error:
            what, remedy = str(error).rpartition(": ")[0], "the sound is taken to begin with the first scan"
            problems.append(Finding("doubt", bold.where, what, remedy))
    names = [bold.task, *([_OTHER_NAMES[bold.task]] if bold.task in _OTHER_NAMES else [])]
    story = next((name for name in names if (stimuli / f"{name}_audio.wav").exists()), bold.task)
    yield Heard(story, stimuli / f"{story}_audio.wav", settings.onset, _words(stimuli, story))


def _words(stimuli: Path, story: str) -> Path | None:
    path = stimuli / "gentle" / story / "align.csv"
    return path if path.exists() else None
