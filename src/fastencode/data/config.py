"""Settings of readers. Imports nothing slow: they are options of commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DS003020_TEST", "ImageSettings"]

DS003020_TEST = "wheretheressmoke"
"""The test story of ds003020."""


@dataclass(frozen=True)
class ImageSettings:
    """How images of a data set are read: BIDS, Narratives and Le Petit Prince.

    Attributes
    ----------
    space : str
        Which of several spaces, such as "MNI152NLin2009cAsym", "fsaverage6" or "fsLR". By default the only one.
    task : str
        Only runs of this task.
    pipeline : str
        Which of several folders of ``derivatives``.
    mask : Path, optional
        One brain mask for all images, instead of those beside them.
    skip_start, skip_end : int
        Scans of every run that are left out, in addition to the non-steady-state ones.
    confounds : tuple of str
        Strategies of ``nilearn.interfaces.fmriprep.load_confounds``, such as ("motion", "high_pass", "compcor", "scrub"), or
        columns of the confounds files. None by default.
    high_pass : float
        Period in s of the fastest drift that is regressed out; 0: none.
    stimulus : str
        The column of events.tsv that names the sound.
    sound : str
        Without events: path of the sound below the data set, with "{task}" and "{run}" in it. It then begins at ``onset``.
    onset : float
        In s from the first scan.
    test : tuple of str
        Names of sounds, or tasks, that are for testing.
    """

    space: str = ""
    task: str = ""
    pipeline: str = ""
    mask: Path | None = None
    skip_start: int = 0
    skip_end: int = 0
    confounds: tuple[str, ...] = ()
    high_pass: float = 0.0
    stimulus: str = "stim_file"
    sound: str = ""
    onset: float = 0.0
    test: tuple[str, ...] = ()
