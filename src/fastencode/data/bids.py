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

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.data.cleaning import Cleaned, drifts, names_of
from fastencode.data.corpora import SOUNDS
from fastencode.data.manifest import read_rows
from fastencode.data.responses import ImageResponses, Responses, SideBySide, SurfaceResponses
from fastencode.data.runs import Problem, Run
from fastencode.errors import FastencodeError, InputError, require
from fastencode.files import check_file, is_unfetched, read_json

__all__ = ["BidsSettings", "read_bids"]

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
_KINDS = (
    ("_desc-preproc_bold.nii.gz", "volume"),
    ("_desc-preproc_bold.nii", "volume"),
    ("_bold.func.gii", "surface"),
    ("_bold.dtseries.nii", "cifti"),
)


@dataclass(frozen=True)
class BidsSettings:
    """How a BIDS data set is read.

    Attributes
    ----------
    space : str
        Which of several spaces, such as "MNI152NLin2009cAsym", "fsaverage6" or "fsLR". By default the only one.
    task : str
        Only runs of this task.
    confounds : sequence of str
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
    test : sequence of str
        Names of sounds, or tasks, that are for testing.
    """

    space: str = ""
    task: str = ""
    confounds: Sequence[str] = ()
    high_pass: float = 0.0
    stimulus: str = "stim_file"
    sound: str = ""
    onset: float = 0.0
    test: Sequence[str] = ()


@dataclass(frozen=True)
class _Bold:
    """The files of one run of one participant in one space."""

    entities: Mapping[str, str]
    kind: str
    files: tuple[Path, ...]

    @property
    def participant(self) -> str:
        return f"sub-{self.entities['sub']}"

    @property
    def where(self) -> str:
        return ", ".join(
            [self.participant, *(f"{name}-{self.entities[name]}" for name in ("ses", "task", "run") if name in self.entities)]
        )

    @property
    def raw(self) -> str:
        """What the raw files of this run begin with."""
        return "_".join(f"{name}-{self.entities[name]}" for name in ("sub", "ses", "task", "acq", "run") if name in self.entities)


def read_bids(root: Path, settings: BidsSettings | None = None) -> tuple[list[Run], list[Problem]]:
    """Find every presentation of a sound in a BIDS data set with derivatives; of images only headers are read.

    Parameters
    ----------
    root : Path
        Of the data set, or of the derivatives.
    settings : BidsSettings, optional

    Returns
    -------
    runs : list of Run
    problems : list of Problem
        Of runs that cannot be used, and of what was left out.

    Raises
    ------
    InputError
        If there are no preprocessed images, several spaces and none is named, or no such space or task.
    """
    settings = settings or BidsSettings()
    problems: list[Problem] = []
    found = list(_chosen(root, _find(root), settings))
    stimuli = next((folder / "stimuli" for folder in _roots(root) if (folder / "stimuli").is_dir()), root / "stimuli")
    runs: list[Run] = []
    for who in dict.fromkeys(bold.participant for bold in found):
        own = [bold for bold in found if bold.participant == who]
        here = [bold for bold in own if not _absent(bold, problems)]
        masks = tuple(path for bold in here if bold.kind == "volume" and (path := _mask(bold, problems)) is not None)
        for bold in here:
            try:
                runs += _presentations(root, stimuli, bold, masks, settings, problems)
            except FastencodeError as error:
                what, _, remedy = str(error).rpartition(": ")
                problems.append(Problem(bold.where, what or str(error), remedy if what else "mend it"))
    return runs, problems


def _roots(root: Path) -> list[Path]:
    """The folder that is given, and those above it while it is a derivative."""
    around = [root, *root.resolve().parents]
    cut = next((place for place, folder in enumerate(around) if folder.name == "derivatives"), None)
    return around[: cut + 2] if cut is not None else [root]


def _find(root: Path) -> list[_Bold]:
    """All preprocessed runs below a folder, hemispheres together."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the root of a BIDS data set, or its derivatives")
    sides: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    kinds: dict[tuple[tuple[str, str], ...], str] = {}
    for path in sorted(root.rglob("sub-*_bold.*")):
        kind = next((kind for ending, kind in _KINDS if path.name.endswith(ending)), None)
        if kind is None or path.parent.name != "func":
            continue
        entities = dict(_ENTITY.findall(path.name.split("_bold.")[0]))
        key = tuple((name, value) for name, value in entities.items() if name not in ("hemi", "desc"))
        sides.setdefault((*key, ("kind", kind)), []).append(path)
        kinds[(*key, ("kind", kind))] = kind
    return [_Bold(dict(key), kinds[key], tuple(sorted(files))) for key, files in sides.items()]


def _chosen(root: Path, found: Sequence[_Bold], settings: BidsSettings) -> Iterator[_Bold]:
    if not found:
        raise InputError(
            f"{root} holds no sub-*/func/*_desc-preproc_bold.nii.gz, *_bold.func.gii or *_bold.dtseries.nii: give a data set "
            "with fMRIPrep's derivatives"
        )
    spaces = list(dict.fromkeys(_space(bold) for bold in found))
    tasks = list(dict.fromkeys(bold.entities.get("task", "") for bold in found))
    if not settings.space and len(spaces) > 1:
        raise InputError(f"{root} has the spaces {', '.join(spaces)}: name one with space")
    for name, asked, there in (("space", settings.space, spaces), ("task", settings.task, tasks)):
        if asked and asked not in there:
            raise InputError(f"{root} has no {name} {asked!r}: choose among {', '.join(there)}")
    for bold in found:
        if settings.space in ("", _space(bold)) and settings.task in ("", bold.entities.get("task", "")):
            yield bold


def _space(bold: _Bold) -> str:
    return bold.entities.get("space", "native")


def _absent(bold: _Bold, problems: list[Problem]) -> bool:
    """Whether a file was not fetched: the run is left out with a warning."""
    unfetched = [path for path in bold.files if is_unfetched(path)]
    if unfetched:
        problems.append(
            Problem(bold.where, f"{unfetched[0].name} is not fetched", f"run `datalad get {unfetched[0]}`", fatal=False)
        )
    if bold.kind == "surface" and len(bold.files) != 2:
        problems.append(Problem(bold.where, f"{len(bold.files)} hemisphere of two: {bold.files[0].name}", "fetch the other"))
        return True
    return bool(unfetched)


def _mask(bold: _Bold, problems: list[Problem]) -> Path | None:
    name = bold.files[0].name.replace("_desc-preproc_bold", "_desc-brain_mask")
    path = bold.files[0].with_name(name)
    if not path.is_file() or is_unfetched(path):
        problems.append(Problem(bold.where, f"the mask {name} is missing, or not fetched", f"run `datalad get {path}`"))
        return None
    return path


def _presentations(
    root: Path, stimuli: Path, bold: _Bold, masks: tuple[Path, ...], settings: BidsSettings, problems: list[Problem]
) -> Iterator[Run]:
    """Every sound of one run's events."""
    about = _sidecar(root, bold)
    responses = _responses(bold, masks)
    rows = responses.shape[0]
    tr = about.get("RepetitionTime") or _tr_of(bold.files[0])
    if not tr:
        raise InputError(f"no RepetitionTime in the JSON files of {bold.files[0].name}: write it there")
    skip, kept, responses, notes = _cleaned(bold, responses, float(tr), settings)
    start = about.get("StartTime")
    times = None
    if start is not None and about.get("SliceTimingCorrected", True) and abs(float(start) - 0.5 * tr) > 1e-3 * tr:
        times = float(tr) * np.arange(rows) + float(start) - 0.5 * float(tr)
        notes += (f"scans count as taken {float(start):g} s after their start, to which slice timing was corrected",)
    for onset, sound in _sounds(root, stimuli, bold, settings, problems):
        name, task = sound.stem, bold.entities.get("task", "")
        split = "test" if {name, task} & set(settings.test) else "train"
        when: dict[str, Any] = {"onset": onset, "times": times, "skip_start": skip, "kept": kept}
        beside: dict[str, Any] = {"transcript": _transcript(sound), "mask": masks[0] if masks else None, "notes": notes}
        yield Run(bold.participant, name, sound, responses, float(tr), split=split, **when, **beside)


def _responses(bold: _Bold, masks: tuple[Path, ...]) -> Responses:
    if bold.kind == "volume":
        return ImageResponses(bold.files[0], masks)
    parts = tuple(SurfaceResponses(path, None) for path in bold.files)
    return parts[0] if len(parts) == 1 else SideBySide(parts)


def _sidecar(root: Path, bold: _Bold) -> dict[str, Any]:
    """What JSON files say of a run, those that stand nearest to it last."""
    found: dict[str, Any] = {}
    entities = bold.entities
    parts = [f"sub-{entities['sub']}", *([f"ses-{entities['ses']}"] if "ses" in entities else []), "func"]
    for top in reversed(_roots(root)):
        for depth in range(len(parts) + 1):
            folder = top.joinpath(*parts[:depth])
            task = f"task-{entities.get('task', '')}_bold.json"
            for name in (task, f"sub-{entities['sub']}_{task}", f"{bold.raw}_bold.json"):
                if (folder / name).is_file():
                    found |= read_json(folder / name)
    stem = re.sub(r"(\.nii(\.gz)?|\.func\.gii|\.dtseries\.nii)$", ".json", bold.files[0].name)
    for name in (stem.replace("_hemi-L", ""), stem):
        beside = bold.files[0].with_name(name)
        if beside.is_file():
            found |= read_json(beside)
    return found


def _tr_of(path: Path) -> float:
    """The TR of an image's own header, 0 if it has none."""
    nibabel = require("nibabel", "neuro")
    image = nibabel.load(path)
    if path.name.endswith(".dtseries.nii"):
        return float(image.header.get_axis(0).step)
    zooms = image.header.get_zooms() if hasattr(image.header, "get_zooms") else ()
    return float(zooms[3]) if len(zooms) > 3 else 0.0


def _sounds(
    root: Path, stimuli: Path, bold: _Bold, settings: BidsSettings, problems: list[Problem]
) -> Iterator[tuple[float, Path]]:
    """Onset and file of every sound in a run's events."""
    folders = [
        top / f"sub-{bold.entities['sub']}" / (f"ses-{bold.entities['ses']}" if "ses" in bold.entities else "") / "func"
        for top in _roots(root)
    ]
    events = next((path for folder in folders if (path := folder / f"{bold.raw}_events.tsv").is_file()), None)
    if settings.sound:
        path = stimuli.parent / settings.sound.format(task=bold.entities.get("task", ""), run=bold.entities.get("run", ""))
        yield settings.onset, check_file(path, f"sound of {bold.where}")
        return
    if events is None:
        raise InputError(
            f"there is no {bold.raw}_events.tsv, so the sound and its onset are unknown: add it, or name sound and onset"
        )
    rows = read_rows(check_file(events))
    if not any(settings.stimulus in row for _, row in rows):
        columns = ", ".join(dict.fromkeys(column for _, row in rows for column in row))
        raise InputError(f"{events} has no column {settings.stimulus!r}, only {columns}: name the column of the sound's file")
    there = 0
    for line, row in rows:
        name = row.get(settings.stimulus, "n/a")
        if not name.lower().endswith(SOUNDS):
            continue
        there += 1
        try:
            onset = float(row["onset"])
        except (KeyError, ValueError):
            problems.append(Problem(f"{events}, line {line}", f"onset is {row.get('onset', '')!r}", "give s from the first scan"))
            continue
        path = next((top / name for top in (stimuli, stimuli.parent) if (top / name).exists()), stimuli / name)
        yield onset, path
    if not there:
        raise InputError(f"{events} names no sound in {settings.stimulus}: one of {', '.join(SOUNDS)} is needed")


def _transcript(sound: Path) -> Path | None:
    """A transcript beside a sound, by its name."""
    for ending in (".TextGrid", ".csv", ".tsv"):
        if (path := sound.with_suffix(ending)).is_file():
            return path
    return None


def _cleaned(
    bold: _Bold, responses: Responses, tr: float, settings: BidsSettings
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


def _confounds_file(bold: _Bold) -> Path | None:
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
    bold: _Bold, path: Path, rows: int, asked: Sequence[str]
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
