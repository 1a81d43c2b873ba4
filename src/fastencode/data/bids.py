"""Reader of BIDS data sets with fMRIPrep derivatives: volumes with their masks, surfaces in GIFTI, CIFTI series.

::

    [derivatives/fmriprep/]sub-01[/ses-1]/func/sub-01_task-story_run-1_space-MNI…_desc-preproc_bold.nii.gz    or
                                               …_hemi-L_space-fsaverage6_bold.func.gii (and hemi-R)            or
                                               …_space-fsLR_den-91k_bold.dtseries.nii
                                               …_desc-brain_mask.nii.gz   …_desc-confounds_timeseries.tsv
    sub-01[/ses-1]/func/sub-01_task-story_run-1_events.tsv      onset, duration, stim_file
    stimuli/…                                                   what stim_file names

Timing. The sound begins at the onset in events.tsv, in s from the first scan. The TR is ``RepetitionTime`` of the JSON files
beside and above. Where slice timing was corrected to a time other than the middle of the TR (``StartTime``), scans count as taken
then.

Channels. The voxels inside the masks of all runs of a participant; vertices, left before right; the grayordinates of CIFTI.

Of one run, in this order: non-steady-state scans are left out, and confounds are regressed out together with drifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.data.bids_files import FMRIPREP, Bold, find_bold, roots_of, sidecar, stimuli_of, tr_of
from fastencode.data.cleaning import Cleaned, drifts, names_of
from fastencode.data.config import ImageSettings
from fastencode.data.corpora import SOUNDS
from fastencode.data.findings import Finding, halves
from fastencode.data.manifest import read_rows
from fastencode.data.responses import ImageResponses, Responses, SideBySide, SurfaceResponses
from fastencode.data.runs import Run
from fastencode.errors import FastencodeError, InputError, require
from fastencode.files import check_file, is_unfetched

__all__ = ["Heard", "events_of", "make_runs", "read_bids", "sounds_of"]


class Heard(NamedTuple):
    """A sound in a run: its name, its file, when it began in s from the first scan, and what was said."""

    name: str
    sound: Path
    onset: float
    transcript: Path | None


def read_bids(root: Path, settings: ImageSettings | None = None) -> tuple[list[Run], list[Finding]]:
    """Find every presentation of a sound in a BIDS data set with derivatives; of images only headers are read.

    Parameters
    ----------
    root : Path
        Of the data set, or of the derivatives.
    settings : ImageSettings, optional

    Returns
    -------
    runs : list of Run
    problems : list of Finding
        Of runs that cannot be used, and of what was left out.

    Raises
    ------
    InputError
        If there are no preprocessed images, several spaces and none is named, or no such space or task.
    """
    settings = settings or ImageSettings()
    return make_runs(root, find_bold(root, FMRIPREP, settings.pipeline), settings, partial(_of_events, root, settings=settings))


def make_runs(
    root: Path, found: Sequence[Bold], settings: ImageSettings, sounds: Callable[[Bold, list[Finding]], Iterable[Heard]]
) -> tuple[list[Run], list[Finding]]:
    """Presentations of images that were found, in the space and of the task that settings name.

    Parameters
    ----------
    root : Path
    found : sequence of Bold
    settings : ImageSettings
    sounds : callable
        What was heard in a run, and what is wrong about that.

    Returns
    -------
    As :func:`read_bids`.
    """
    problems: list[Finding] = []
    chosen = _chosen(root, found, settings)
    runs: list[Run] = []
    for who in dict.fromkeys(bold.participant for bold in chosen):
        here = [bold for bold in chosen if bold.participant == who and not _absent(bold, problems)]
        volumes = [bold for bold in here if bold.kind == "volume"]
        masks = tuple(path for bold in volumes if (path := _mask(bold, settings, problems)) is not None)
        for bold in here if masks or not volumes else ():
            try:
                runs += _presentations(root, bold, tuple(dict.fromkeys(masks)), settings, sounds(bold, problems))
            except FastencodeError as error:
                problems.append(Finding("unusable", bold.where, *halves(str(error))))
    return runs, problems


def _chosen(root: Path, found: Sequence[Bold], settings: ImageSettings) -> list[Bold]:
    spaces = list(dict.fromkeys(bold.space for bold in found))
    tasks = list(dict.fromkeys(bold.task for bold in found))
    if not settings.space and len(spaces) > 1:
        raise InputError(f"{root} has the spaces {', '.join(spaces)}: name one with space")
    for name, asked, there in (("space", settings.space, spaces), ("task", settings.task, tasks)):
        if asked and asked not in there:
            raise InputError(f"{root} has no {name} {asked!r}: choose among {', '.join(there)}")
    chosen = [one for one in found if settings.space in ("", one.space) and settings.task in ("", one.task)]
    pipelines = list(dict.fromkeys(one.pipeline for one in chosen))
    if len(pipelines) > 1:
        raise InputError(f"{root} has derivatives of {', '.join(pipelines)}: name one with pipeline")
    return chosen


def _absent(bold: Bold, problems: list[Finding]) -> bool:
    """Whether a file was not fetched: the run is left out with a warning."""
    unfetched = [path for path in bold.files if is_unfetched(path)]
    if unfetched:
        problems.append(Finding("doubt", bold.where, f"{unfetched[0].name} is not fetched", f"run `datalad get {unfetched[0]}`"))
    if bold.kind == "surface" and len(bold.files) != 2:
        problems.append(
            Finding("unusable", bold.where, f"{len(bold.files)} hemisphere of two: {bold.files[0].name}", "fetch the other")
        )
        return True
    return bool(unfetched)


def _mask(bold: Bold, settings: ImageSettings, problems: list[Finding]) -> Path | None:
    if settings.mask is not None:
        return check_file(settings.mask, "mask")
    name = bold.files[0].name.replace("_desc-preproc_bold", "_desc-brain_mask")
    path = bold.files[0].with_name(name)
    if not path.is_file() or is_unfetched(path):
        remedy = f"run `datalad get {path}`, or name one mask for all"
        problems.append(Finding("unusable", bold.where, f"the mask {name} is missing, or not fetched", remedy))
        return None
    return path


def _presentations(
    root: Path, bold: Bold, masks: tuple[Path, ...], settings: ImageSettings, sounds: Iterable[Heard]
) -> Iterator[Run]:
    """Every sound that was heard in one run."""
    about = sidecar(root, bold)
    responses = _responses(bold, masks)
    rows = responses.shape[0]
    tr = about.get("RepetitionTime") or tr_of(bold.files[0])
    if not tr:
        raise InputError(f"no RepetitionTime in the JSON files of {bold.files[0].name}: write it there")
    skip, kept, responses, notes = _cleaned(bold, responses, float(tr), settings)
    start = about.get("StartTime")
    times = None
    if start is not None and about.get("SliceTimingCorrected", True) and abs(float(start) - 0.5 * tr) > 1e-3 * tr:
        times = float(tr) * np.arange(rows) + float(start) - 0.5 * float(tr)
        notes += (f"scans count as taken {float(start):g} s after their start, to which slice timing was corrected",)
    trimmed = {"skip_start": max(skip, settings.skip_start), "skip_end": settings.skip_end}
    for heard in sounds:
        split = "test" if {heard.name, bold.task} & set(settings.test) else "train"
        when: dict[str, Any] = {"onset": heard.onset, "times": times, "kept": kept, **trimmed}
        beside: dict[str, Any] = {
            "transcript": heard.transcript,
            "mask": masks[0] if len(masks) == 1 else masks or None,
            "notes": notes,
        }
        yield Run(bold.participant, heard.name, heard.sound, responses, float(tr), split=split, **when, **beside)


def _responses(bold: Bold, masks: tuple[Path, ...]) -> Responses:
    if bold.kind == "volume":
        return ImageResponses(bold.files[0], masks)
    parts = tuple(SurfaceResponses(path, None) for path in bold.files)
    return parts[0] if len(parts) == 1 else SideBySide(parts)


def _of_events(root: Path, bold: Bold, problems: list[Finding], *, settings: ImageSettings) -> Iterator[Heard]:
    """The sounds of a run's events."""
    stimuli = stimuli_of(root)
    if settings.sound:
        sound = stimuli.parent / settings.sound.format(task=bold.task, run=bold.entities.get("run", ""))
        yield Heard(sound.stem, check_file(sound, f"sound of {bold.where}"), settings.onset, _transcript(sound))
        return
    events = events_of(root, bold)
    if events is None:
        raise InputError(
            f"there is no {bold.raw}_events.tsv, so the sound and its onset are unknown: add it, or name sound and onset"
        )
    for onset, name in sounds_of(events, settings.stimulus, problems):
        sound = next((top / name for top in (stimuli, stimuli.parent) if (top / name).exists()), stimuli / name)
        yield Heard(sound.stem, sound, onset, _transcript(sound))


def events_of(root: Path, bold: Bold) -> Path | None:
    """The events.tsv of a run, where there is one."""
    session = f"ses-{bold.entities['ses']}" if "ses" in bold.entities else ""
    folders = [top / bold.participant / session / "func" for top in roots_of(root)]
    return next((path for folder in folders if (path := folder / f"{bold.raw}_events.tsv").is_file()), None)


def sounds_of(events: Path, column: str, problems: list[Finding]) -> Iterator[tuple[float, str]]:
    """Onset in s and name of the file of every sound in events.

    Raises
    ------
    InputError
        If there is no such column, or no sound in it.
    """
    rows = read_rows(check_file(events))
    if not any(column in row for _, row in rows):
        columns = ", ".join(dict.fromkeys(name for _, row in rows for name in row))
        raise InputError(f"{events} has no column {column!r}, only {columns}: name the column of the sound's file")
    there = 0
    for line, row in rows:
        name = row.get(column, "n/a")
        if not name.lower().endswith(SOUNDS):
            continue
        there += 1
        try:
            yield float(row["onset"]), name
        except (KeyError, ValueError):
            problems.append(
                Finding("unusable", f"{events}, line {line}", f"onset is {row.get('onset', '')!r}", "give s from the first scan")
            )
    if not there:
        raise InputError(f"{events} names no sound in {column}: one of {', '.join(SOUNDS)} is needed")


def _transcript(sound: Path) -> Path | None:
    """A transcript beside a sound, by its name."""
    for ending in (".TextGrid", ".csv", ".tsv"):
        if (path := sound.with_suffix(ending)).is_file():
            return path
    return None


def _cleaned(
    bold: Bold, responses: Responses, tr: float, settings: ImageSettings
) -> tuple[int, NDArray[np.bool_] | None, Responses, tuple[str, ...]]:
    """Dummy scans, scans that count, responses without confounds, and what was done."""
    rows, notes = responses.shape[0], []
    names: list[str] = []
    table, kept, skip = np.zeros((rows, 0)), np.ones(rows, bool), 0
    path = _confounds_file(bold)
    if path is not None:
        skip = _dummies(path, rows)
    elif settings.confounds:
        raise InputError(f"{bold.raw}_desc-confounds_timeseries.tsv is missing: fetch it, or regress out no confounds")
    if settings.confounds and path is not None:
        table, names, kept = _confounds(bold, path, rows, settings.confounds)
    if settings.high_pass:
        slow = drifts(rows, tr, settings.high_pass)
        table, names = np.column_stack([table, slow]), [*names, f"{slow.shape[1]} cosines above {settings.high_pass:g} s"]
    if skip:
        notes.append(f"{skip} non-steady-state scans left out")
    if not kept.all():
        notes.append(f"{np.count_nonzero(~kept[skip:])} scans censored")
    if names:
        counts = kept.copy()
        counts[:skip] = False
        responses = Cleaned(responses, table, counts, bold.where)
        notes.append(names_of(names))
    return skip, None if kept.all() else kept, responses, tuple(notes)


def _confounds_file(bold: Bold) -> Path | None:
    for ending in ("timeseries", "regressors"):  # fMRIPrep since 1.4, before
        path = bold.files[0].with_name(f"{bold.raw}_desc-confounds_{ending}.tsv")
        if path.is_file() and not is_unfetched(path):
            return path
    return None


def _dummies(path: Path, rows: int) -> int:
    """Non-steady-state scans at the start of a run, each of which has a column of its own."""
    pandas = require("pandas", "report")
    found = pandas.read_csv(path, sep="\t")
    if len(found) != rows:
        raise InputError(f"{path} has {len(found)} rows, the images {rows} scans: they are not of one run; fetch both again")
    return sum(str(column).startswith("non_steady_state_outlier") for column in found.columns)


def _confounds(
    bold: Bold, path: Path, rows: int, asked: Sequence[str]
) -> tuple[NDArray[np.float64], list[str], NDArray[np.bool_]]:
    """Confounds by nilearn's strategies, or by the names of their columns, and which scans are not scrubbed."""
    strategies = ("motion", "high_pass", "wm_csf", "global_signal", "compcor", "ica_aroma", "tedana", "scrub")
    kept = np.ones(rows, bool)
    by_name = [name for name in asked if name not in strategies]
    by_strategy = [name for name in asked if name in strategies]
    parts: list[NDArray[np.float64]] = []
    names: list[str] = []
    if by_strategy:
        load = require("nilearn.interfaces.fmriprep", "neuro").load_confounds
        files = [str(file) for file in bold.files]
        try:
            table, mask = load(files[0] if len(files) == 1 else [files], strategy=by_strategy, demean=False)
        except Exception as error:  # nilearn says what is missing in its own exceptions
            raise InputError(
                f"nilearn could not load the confounds {', '.join(by_strategy)} of {path.name} ({error}): choose others"
            ) from error
        table, mask = (table[0], mask[0]) if isinstance(table, list) else (table, mask)
        parts.append(np.asarray(table, np.float64))
        names += [str(column) for column in table.columns]
        if mask is not None:
            kept[:] = False
            kept[mask] = True
    if by_name:
        table = require("pandas", "report").read_csv(path, sep="\t")
        if lacking := [name for name in by_name if name not in table.columns]:
            raise InputError(f"{path} has no column {lacking[0]!r}: choose among its columns, or {', '.join(strategies)}")
        parts.append(np.asarray(table[by_name].fillna(0.0), np.float64))
        names += by_name
    return np.column_stack(parts), names, kept
