"""Reader of Le Petit Prince (OpenNeuro ds003643; Li et al. 2022): one book in English, Chinese and French, in nine runs.

::

    derivatives/sub-EN057/func/sub-EN057_task-lppEN_run-15_space-MNIColin27_desc-preproc_bold.nii.gz
    stimuli/task-lppEN_section-1.wav                          (section_1 in some copies)
    annotation/EN/lppEN_section1.TextGrid

Run numbers differ between people and do not start at 1. The runs of a participant, sorted by number, are sections 1 to 9. A
section begins with the first scan, unless ``onset`` says otherwise. The images have no masks beside them: one has to be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fastencode.data.bids import Heard, make_runs
from fastencode.data.bids_files import FMRIPREP, Bold, find_bold, stimuli_of
from fastencode.data.config import ImageSettings
from fastencode.data.findings import Finding
from fastencode.data.runs import Run
from fastencode.errors import InputError

__all__ = ["SECTIONS", "read_petit_prince"]

SECTIONS = 9

_TASK = re.compile(r"lpp(EN|FR|CN)$")


def read_petit_prince(root: Path, settings: ImageSettings | None = None) -> tuple[list[Run], list[Finding]]:
    """Find every section that every participant heard; of images only headers are read.

    Parameters
    ----------
    root : Path
        Of the data set.
    settings : ImageSettings, optional
        ``task`` chooses a language: lppEN, lppFR or lppCN. ``test`` names sections, such as "lppFR_section-9".

    Returns
    -------
    runs : list of Run
        Named lppEN_section-1 and so on.
    problems : list of Finding

    Raises
    ------
    InputError
        As :func:`fastencode.data.bids.read_bids`, and if no task is one of these.
    """
    settings = settings or ImageSettings()
    found = [bold for bold in find_bold(root, FMRIPREP, settings.pipeline) if _TASK.match(bold.task)]
    if not found:
        raise InputError(f"{root} holds no task-lppEN, task-lppFR or task-lppCN: give the root of Le Petit Prince")
    return make_runs(root, found, settings, partial(_sounds, root, _sections(found), settings.onset))


def _sections(found: Sequence[Bold]) -> Mapping[tuple[str, str], list[int]]:
    """The run numbers of every participant and task, in order."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for bold in found:
        numbers.setdefault((bold.participant, bold.task), set()).add(_number(bold))
    return {key: sorted(of) for key, of in numbers.items()}


def _number(bold: Bold) -> int:
    return int(bold.entities.get("run", "0"))


def _sounds(
    root: Path, sections: Mapping[tuple[str, str], list[int]], onset: float, bold: Bold, problems: list[Finding]
) -> Iterator[Heard]:
    """The section of a run: the place of its number among those of the participant."""
    numbers = sections[bold.participant, bold.task]
    if len(numbers) != SECTIONS:
        some = ", ".join(map(str, numbers))
        raise InputError(
            f"{bold.task} has {len(numbers)} runs ({some}), but the book has {SECTIONS} sections, and it is unknown which these "
            "are: fetch all"
        )
    section = numbers.index(_number(bold)) + 1
    stimuli = stimuli_of(root)
    names = [f"task-{bold.task}_section{mark}{section}.wav" for mark in ("-", "_")]
    sound = next((path for name in names if (path := stimuli / name).exists()), stimuli / names[0])
    yield Heard(f"{bold.task}_section-{section}", sound, onset, _words(stimuli.parent, bold.task, section))


def _words(root: Path, task: str, section: int) -> Path | None:
    folder = root / "annotation" / task.removeprefix("lpp")
    path = folder / f"{task}_section{section}.TextGrid"
    return path if path.exists() else None
