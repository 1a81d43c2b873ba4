"""What a data set holds, run by run, and everything that is wrong with it, before hours of work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.data.config import ImageSettings
from fastencode.data.dataset import Dataset
from fastencode.data.faults import response_findings
from fastencode.data.findings import Finding, halves
from fastencode.data.opening import layout_of, open_data, read_presentations
from fastencode.data.recorded import Recorded
from fastencode.errors import FastencodeError, FastencodeWarning
from fastencode.speech.audio import audio_seconds

__all__ = ["Checked", "check_data", "rows_as_text"]


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes
    ----------
    layout : str
    tr : float
        s; NaN if nothing can be used.
    rows : tuple of mapping
        One for each participant and run: participant, run, split, rows, kept, first (s from the onset of the sound to the first
        row), sound (s), words, voxels, gaps (voxels with values that are not finite), repeats.
    findings : tuple of Finding
        Everything that is wrong.
    notes : participant → what was done to the responses
    """

    layout: str
    tr: float
    rows: tuple[Mapping[str, Any], ...]
    findings: tuple[Finding, ...]
    notes: Mapping[str, Sequence[str]]

    @property
    def is_usable(self) -> bool:
        """Whether no run has to be left out."""
        return bool(self.rows) and not any(one.kind == "unusable" for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "rows": [dict(row) for row in self.rows]}


def check_data(
    path: Path, layout: str = "auto", *, tr: float | None = None, images: ImageSettings | None = None, responses: bool = True
) -> Checked:
    """Read a data set, and say what it holds and what is wrong with it.

    Parameters
    ----------
    path : Path
        As for :func:`fastencode.data.opening.open_data`.
    layout : str
    tr : float, optional
        s; of ds003020 2.0 by default.
    images : ImageSettings, optional
    responses : bool
        Whether responses are read, not only their headers: gaps, constant voxels, wild scans, copies, repeats.

    Raises
    ------
    InputError
        If the path has no known layout.
    """
    layout = layout_of(path) if layout == "auto" else layout
    found: list[Finding] = []
    data: Dataset | None = None
    try:
        if layout == "ds003020":
            data = open_data(path, layout, tr=tr)
        else:
            runs, problems = read_presentations(path, layout, images)
            found += problems
            data = Recorded(runs, root=path) if runs else None
            found += data.problems if isinstance(data, Recorded) else ()
    except FastencodeError as error:
        found += [Finding("unusable", str(path), *halves(line)) for line in str(error).splitlines()]
    if data is None:
        return Checked(layout, float("nan"), (), tuple(found), {})
    rows, heard = list[dict[str, Any]](), dict[str, list[str]]()
    for who in data.participants:
        for run in _runs(data, who, found):
            try:
                rows.append(_row(data, who, run, found))
                heard.setdefault(who, []).append(run)
            except FastencodeError as error:
                found.append(Finding("unusable", f"{who}, {run}", *halves(str(error))))
    if responses:
        found += response_findings(data, heard)
    return Checked(layout, data.tr, tuple(rows), tuple(dict.fromkeys([*found, *_lacking(heard)])), _notes(data, heard))


def _runs(data: Dataset, who: str, found: list[Finding]) -> Sequence[str]:
    """The runs of a participant; what the reader leaves out is a finding."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            runs = data.stories(who)
        except FastencodeError as error:
            found.append(Finding("unusable", who, *halves(str(error))))
            return ()
    found += [Finding("doubt", who, *halves(str(one.message))) for one in told if issubclass(one.category, FastencodeWarning)]
    if not runs:
        found.append(Finding("unusable", who, "has no responses", "fetch them, or leave the participant out"))
    return runs


def _row(data: Dataset, who: str, run: str, found: list[Finding]) -> dict[str, Any]:
    """What there is of one run of one participant; what is doubtful about its sound and words is a finding."""
    where, kept = f"{who}, {run}", data.kept(who, run)
    seconds, words = float("nan"), ""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            sound = data.sound_file(run)
            seconds = audio_seconds(sound)
            data.check_length(run, seconds, sound)
        except FastencodeError as error:
            found.append(Finding("doubt", run, *halves(str(error))))
        try:
            if not isinstance(data, Recorded) or data.has_transcript(run):
                words = str(len(data.words(run)))
        except FastencodeError as error:
            found.append(Finding("doubt", run, *halves(str(error))))
    found += [Finding("doubt", run, *halves(str(one.message))) for one in told if issubclass(one.category, FastencodeWarning)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # of gaps, which are counted
        values = data.responses(who, run)
        repeats = len(data.repeats(who, run, voxels=np.arange(1))) if data.is_repeated(who, run) else 1
    if len(values) != data.n_rows(run):
        found.append(
            Finding("unusable", where, f"{len(values)} rows of responses, {data.n_rows(run)} of the run", "check the TR")
        )
    split = data.split(run) if isinstance(data, Recorded) else "test" if run == data.test_story else "train"
    return {
        "participant": who,
        "run": run,
        "split": split,
        "rows": len(values),
        "kept": int(kept.sum()),
        "first": float(data.row_times(run)[0]),
        "sound": seconds,
        "words": words,
        "voxels": values.shape[1],
        "gaps": int((~np.isfinite(values).all(axis=0)).sum()),
        "repeats": repeats,
    }


def _lacking(heard: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Runs that some participants lack and others have."""
    every = {
        run: [who for who, runs in heard.items() if run in runs]
        for run in sorted({run for runs in heard.values() for run in runs})
    }
    for who, runs in heard.items():
        absent = [run for run, people in every.items() if run not in runs and 2 * len(people) > len(heard) and "@" not in run]
        if absent:
            some = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            yield Finding("doubt", who, f"has no responses to {some}, which most others heard", "fetch them, or accept it")


def _notes(data: Dataset, heard: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {who: list(data.notes(who)) for who in heard if data.notes(who)}


_HEADINGS = {
    "participant": "participant",
    "run": "run",
    "split": "split",
    "rows": "rows",
    "kept": "kept",
    "first": "first (s)",
    "sound": "sound (s)",
    "words": "words",
    "voxels": "voxels",
    "gaps": "gaps",
    "repeats": "repeats",
}


def rows_as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for the terminal."""
    cells = [list(_HEADINGS.values()), *([_cell(row[name]) for name in _HEADINGS] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(_HEADINGS))]
    text = [place < 3 for place in range(len(widths))]
    lines = ["  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, text, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
