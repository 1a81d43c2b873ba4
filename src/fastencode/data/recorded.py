"""A data set made of single presentations: what every reader of a layout but that of ds003020 gives.

Presentations of one story are one run where their scans lie at the same times from the onset of the sound, within ``SAME_TIME``
of a TR. The run's rows are those that all of them have. A participant whose scans lie elsewhere has a run of their own,
``story@participant``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.data.findings import Finding
from fastencode.data.responses import inside_all
from fastencode.data.rois import find_rois, read_rois
from fastencode.data.runs import SAME_TIME, Run
from fastencode.data.space import load_image
from fastencode.data.textgrid import Interval
from fastencode.data.transcripts import spoken_labels
from fastencode.errors import InputError, require
from fastencode.files import check_file
from fastencode.speech.audio import audio_seconds, read_audio
from fastencode.speech.silence import NON_SPEECH

__all__ = ["Recorded"]


@dataclass(frozen=True)
class _Piece:
    """A presentation within a run: which scans of its file are the run's rows."""

    run: Run
    rows: slice


@dataclass(frozen=True)
class _Heard:
    """A run: when its rows were scanned, and every presentation of it, by participant."""

    story: str
    begins: NDArray[np.float64]
    pieces: Mapping[str, tuple[_Piece, ...]]


class Recorded:
    """A data set of presentations; see :class:`fastencode.data.dataset.Dataset` for the methods.

    Parameters
    ----------
    runs : sequence of Run
        Of all participants.
    root : Path
        Where they were found, for messages.
    test_story : str, optional
        The run that nothing is fitted on; by default the first of split "test".
    test_skip : int
        Rows of the test story that are not scored, at its start.
    non_speech : collection of str
        Labels that ``words`` and ``phones`` leave out.
    word_tier, phone_tier : str
        As for :func:`fastencode.data.transcripts.spoken_labels`.

    Attributes
    ----------
    tr : float
    test_story : str
        Empty where there is none.
    problems : tuple of Finding
        What was found while presentations were put together, such as rows that only some participants have.

    Raises
    ------
    InputError
        If there is no run, TRs differ, one participant's runs have other numbers of channels, one story has two sounds or two
        sounds one name, or a presentation has no scan inside its sound: all of them at once.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        root: Path,
        test_story: str | None = None,
        test_skip: int = 0,
        non_speech: Collection[str] = NON_SPEECH,
        word_tier: str = "",
        phone_tier: str = "",
    ) -> None:
        if not runs:
            raise InputError(f"{root} holds no run: a participant, a sound and responses")
        self.root, self._presentations, self.non_speech = root, tuple(runs), frozenset(non_speech)
        self.word_tier, self.phone_tier = word_tier, phone_tier
        wrong = [*_differences(runs)]
        self._heard, problems = _put_together(runs, wrong)
        if wrong:
            raise InputError("\n".join(wrong))
        self.tr, self.problems = runs[0].tr, tuple(problems)
        tests = [name for name, heard in self._heard.items() if _split_of(heard) == "test"]
        self.test_story = test_story if test_story is not None else (tests[0] if tests else "")
        if self.test_story and self.test_story not in self._heard:
            raise InputError(
                f"test_story is {test_story!r}, and {root} has no such run: choose among {', '.join(sorted(self._heard))}"
            )
        self.test_skip = test_skip

    def __repr__(self) -> str:
        return f"Recorded({str(self.root)!r}): {len(self.participants)} participants, {len(self._heard)} runs"

    @property
    def participants(self) -> list[str]:
        """Names of the participants, sorted."""
        return sorted({run.participant for run in self._presentations})

    def stories(self, who: str) -> list[str]:
        """The runs that a participant heard, sorted."""
        found = sorted(name for name, heard in self._heard.items() if who in heard.pieces)
        if not found:
            raise InputError(f"{self.root} has no participant {who!r}: the participants are {', '.join(self.participants)}")
        return found

    def split(self, run: str) -> str:
        """ "train", "validation" or "test", as the data set has it."""
        return _split_of(self._known(run))

    def story(self, run: str) -> str:
        """What a run is called, without the participant whose own it is."""
        return self._known(run).story

    def n_rows(self, run: str) -> int:
        """Response rows of a run."""
        return len(self._known(run).begins)

    def row_times(self, run: str, *, middle: bool = False) -> NDArray[np.float64]:
        """When each row's scan began, or its middle, (rows,) in s from the onset of the sound."""
        return self._known(run).begins + 0.5 * self.tr * middle

    def usable_rows(self, run: str) -> slice:
        """The rows to score on: of the test story from ``test_skip`` on, of others all."""
        rows, skip = self.n_rows(run), self.test_skip if run == self.test_story else 0
        if not 0 <= skip < rows:
            raise InputError(f"test_skip is {skip}, and {run} has {rows} rows: give a number below")
        return slice(skip, rows)

    def kept(self, who: str, run: str) -> NDArray[np.bool_]:
        """Which rows count, (rows,) bool: those that no presentation of theirs censors."""
        kept = np.ones(self.n_rows(run), bool)
        for piece in self._pieces(who, run):
            if piece.run.kept is not None:
                kept &= piece.run.kept[piece.rows]
        return kept

    def recording(self, run: str) -> str:
        """The sound file's name without its suffix; that of the story where there is no file."""
        sound = _sound_of(self._known(run))
        return self.story(run) if sound is None else sound.stem

    def sound_file(self, run: str) -> Path:
        """The sound; an error says if it is missing or not fetched."""
        sound = _sound_of(self._known(run))
        if sound is None:
            raise InputError(f"{self.root} names no sound of {run}: add it, or use features that are there already")
        return check_file(sound, f"sound of {run!r}")

    def audio(self, run: str, *, sample_rate: int = 16000) -> NDArray[np.float32]:
        """The sound, (n,) float32 mono, at ``sample_rate`` Hz."""
        return read_audio(self.sound_file(run), sample_rate=sample_rate)

    def check_length(self, run: str, seconds: float, path: Path) -> None:
        """Rows were chosen inside the sound already."""

    def words(self, run: str) -> list[Interval]:
        """Spoken words with times in s from the onset of the sound."""
        return self._labels(run, "words")

    def phones(self, run: str) -> list[Interval]:
        """Phones with times in s from the onset of the sound."""
        return self._labels(run, "phones")

    def has_transcript(self, run: str) -> bool:
        """Whether the data set names a transcript of a run."""
        return _transcript_of(self._known(run)) is not None

    def stimulus_files(self, run: str) -> list[Path]:
        """The sound and the transcript, where there are such."""
        heard = self._known(run)
        return [path for path in (_sound_of(heard), _transcript_of(heard)) if path is not None and path.is_file()]

    def n_voxels(self, who: str) -> int:
        """A participant's channels."""
        return self._first(who).responses.shape[1]

    def responses(self, who: str, run: str, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        """(rows, v); of a repeated run the mean over repeats."""
        pieces = self._pieces(who, run)
        found = pieces[0].run.responses.read(pieces[0].rows, self._columns(who, voxels))
        for piece in pieces[1:]:
            found = found + piece.run.responses.read(piece.rows, self._columns(who, voxels))
        return found if len(pieces) == 1 else found / np.float32(len(pieces))

    def is_repeated(self, who: str, run: str) -> bool:
        """Whether the participant heard the run more than once."""
        return len(self._pieces(who, run)) > 1

    def repeats(self, who: str, run: str, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        """(repeats, rows, v)."""
        pieces = self._pieces(who, run)
        if len(pieces) == 1:
            raise InputError(f"{who} heard {run} once: there are no repeats")
        columns = self._columns(who, voxels)
        return np.stack([piece.run.responses.read(piece.rows, columns) for piece in pieces])

    def rois(self, who: str, *, mask: Any = None) -> dict[str, NDArray[np.intp]]:
        """A participant's regions: name → channels; empty where there are none."""
        first, n_voxels = self._first(who), self.n_voxels(who)
        mask = self.mask(who) if mask is None else mask
        if first.regions is None:
            folder = (self.root if self.root.is_dir() else self.root.parent) / "rois"
            return dict(find_rois([folder], who, mask, n_voxels=n_voxels)) if folder.is_dir() else {}
        return dict(read_rois(first.regions, mask, n_voxels=n_voxels))

    def mask(self, who: str) -> Any:
        """Which voxels or vertices a participant's channels are: a path, an image of the voxels inside several masks, or None."""
        masks = self._first(who).mask
        if not isinstance(masks, tuple):
            return masks
        image = require("nibabel", "neuro").Nifti1Image
        return image(inside_all(masks).astype(np.uint8), load_image(masks[0]).affine)

    def response_files(self, who: str, run: str) -> list[Path]:
        """The files that hold the responses, masks among them."""
        return list(dict.fromkeys(file for piece in self._pieces(who, run) for file in piece.run.responses.files))

    def notes(self, who: str) -> list[str]:
        """What was done to a participant's responses."""
        return list(dict.fromkeys(note for run in self._presentations if run.participant == who for note in run.notes))

    def presentations(self, who: str, run: str) -> tuple[tuple[Run, slice], ...]:
        """Every presentation of a run to a participant, with the scans of its file that are the run's rows."""
        return tuple((piece.run, piece.rows) for piece in self._pieces(who, run))

    def _known(self, run: str) -> _Heard:
        if run not in self._heard:
            raise InputError(f"{self.root} has no run {run!r}: the runs are {', '.join(sorted(self._heard))}")
        return self._heard[run]

    def _pieces(self, who: str, run: str) -> tuple[_Piece, ...]:
        pieces = self._known(run).pieces
        if who not in pieces:
            raise InputError(f"{who} did not hear {run}, only {', '.join(self.stories(who))}")
        return pieces[who]

    def _first(self, who: str) -> Run:
        for run in self._presentations:
            if run.participant == who:
                return run
        raise InputError(f"{self.root} has no participant {who!r}: the participants are {', '.join(self.participants)}")

    def _columns(self, who: str, voxels: ArrayLike | None) -> NDArray[np.intp] | slice:
        if voxels is None:
            return slice(None)
        chosen, total = np.asarray(voxels), self.n_voxels(who)
        if chosen.dtype == bool and chosen.shape == (total,):
            return np.flatnonzero(chosen)
        if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
            raise InputError(f"voxels are {chosen.dtype} of shape {chosen.shape}: give a mask of {total} booleans, or indices")
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < total:
            raise InputError(f"voxels run from {chosen.min()} to {chosen.max()}, but {who} has {total}: indices start at 0")
        return chosen.astype(np.intp)

    def _labels(self, run: str, wanted: Literal["words", "phones"]) -> list[Interval]:
        heard = self._known(run)
        path = _transcript_of(heard)
        if path is None:
            raise InputError(f"{self.root} names no transcript of {run}: add one, or leave out what needs words")
        return spoken_labels(
            check_file(path, f"transcript of {run!r}"),
            wanted,
            seconds=_seconds(_sound_of(heard)) or 0.0,
            word_tier=self.word_tier,
            phone_tier=self.phone_tier,
            non_speech=self.non_speech,
        )


def _differences(runs: Sequence[Run]) -> Iterable[str]:
    """What keeps presentations from being one data set, a line for each."""
    trs = {run.tr: run for run in runs}
    if len(trs) > 1:
        yield "the TR differs: " + "; ".join(f"{run.where} has {tr:g} s" for tr, run in trs.items()) + ": give runs of one TR"
    sounds: dict[str, Run] = {}
    stems: dict[str, Path] = {}
    widths: dict[str, Run] = {}
    for run in runs:
        first = widths.setdefault(run.participant, run)
        if run.responses.shape[1] != first.responses.shape[1]:
            yield (
                f"{run.where}: {run.responses.shape[1]} channels, but {first.name} has {first.responses.shape[1]}: all runs of a "
                "participant need the same"
            )
        if run.sound is None:
            continue
        before = sounds.setdefault(run.name, run)
        if before.sound is not None and before.sound.resolve() != run.sound.resolve():
            yield f"{run.where} has the sound {run.sound}, {before.where} {before.sound}: give one story one sound"
        other = stems.setdefault(run.sound.stem, run.sound)
        if other.resolve() != run.sound.resolve():
            both = f"{other} and {run.sound}"
            yield f"two sounds are called {run.sound.stem}: {both}: rename one, because files of features have these names"


def _put_together(runs: Sequence[Run], wrong: list[str]) -> tuple[dict[str, _Heard], list[Finding]]:
    """Runs by name, of presentations by story; what is wrong is added to ``wrong``."""
    found: dict[str, _Heard] = {}
    problems: list[Finding] = []
    for story in dict.fromkeys(run.name for run in runs):
        pieces = []
        for run in (one for one in runs if one.name == story):
            try:
                pieces.append(_Piece(run, run.heard(_seconds(run.sound))))
            except InputError as error:
                wrong.append(str(error))
        while pieces:
            of, pieces, heard = _same_times(story, pieces)
            first = next(iter(heard.pieces))
            name = story if story not in found else f"{story}@{first}"
            if name != story:
                problems.append(_elsewhere(first, story, of, found[story]))
            found[name] = heard
            problems += _lost(name, of, heard)
    return found, problems


def _same_times(story: str, pieces: Sequence[_Piece]) -> tuple[list[_Piece], list[_Piece], _Heard]:
    """The presentations at the times that most share, those at others, and the run of the first."""
    spans = max(
        ([_span(piece, grid) for piece in pieces] for grid in pieces),
        key=lambda found: sum(span is not None for span in found),
    )
    members = [(piece, span) for piece, span in zip(pieces, spans, strict=True) if span is not None]
    low, high = max(span.low for _, span in members), min(span.high for _, span in members)
    if low >= high:
        raise InputError(f"{story}: presentations have no scans in common: give them names of their own")
    by_person: dict[str, list[_Piece]] = {}
    for piece, span in members:
        rows = slice(low + span.shift, high + span.shift)
        by_person.setdefault(piece.run.participant, []).append(_Piece(piece.run, rows))
    first, span = members[0]
    begins = first.run.begins()[low + span.shift : high + span.shift]
    heard = _Heard(story, begins, {who: tuple(parts) for who, parts in by_person.items()})
    others = [piece for piece, span in zip(pieces, spans, strict=True) if span is None]
    return [piece for piece, _ in members], others, heard


class _Span(NamedTuple):
    """Scans ``low`` to ``high`` of one file, which another file has ``shift`` scans later."""

    low: int
    high: int
    shift: int


def _span(piece: _Piece, grid: _Piece) -> _Span | None:
    """The scans of ``grid`` at whose times ``piece`` has scans, too; None where their times differ."""
    theirs, own, tr = grid.run.begins(), piece.run.begins(), grid.run.tr
    shift = piece.rows.start - grid.rows.start - round((own[piece.rows.start] - theirs[grid.rows.start]) / tr)
    low, high = max(grid.rows.start, piece.rows.start - shift), min(grid.rows.stop, piece.rows.stop - shift)
    if low >= high or np.abs(own[low + shift : high + shift] - theirs[low:high]).max() > SAME_TIME * tr:
        return None
    return _Span(low, high, shift)


def _elsewhere(who: str, story: str, of: Sequence[_Piece], other: _Heard) -> Finding:
    own, theirs = of[0].run.begins()[of[0].rows.start], other.begins[0]
    apart = (own - theirs + 0.5 * of[0].run.tr) % of[0].run.tr - 0.5 * of[0].run.tr
    return Finding(
        "doubt",
        f"{who}, {story}",
        f"scans lie {apart:+.3g} s from those of {', '.join(list(other.pieces)[:3])}, relative to the sound",
        f"it is a run of its own, {story}@{who}; check the onset",
    )


def _lost(name: str, of: Sequence[_Piece], heard: _Heard) -> Iterable[Finding]:
    """Presentations that lose more than a twentieth of their rows because others lack them."""
    rows = len(heard.begins)
    for piece in of:
        own = piece.rows.stop - piece.rows.start
        if own - rows > 0.05 * own:
            shortest = min(of, key=lambda one: one.rows.stop - one.rows.start).run.participant
            yield Finding(
                "doubt",
                f"{piece.run.participant}, {name}",
                f"{own - rows} of {own} scans are not used, because {shortest} has none at these times",
                "leave that participant out, or accept it",
            )


@cache
def _seconds(sound: Path | None) -> float | None:
    return None if sound is None or not sound.is_file() else audio_seconds(sound)


def _runs_of(heard: _Heard) -> list[Run]:
    return [piece.run for pieces in heard.pieces.values() for piece in pieces]


def _sound_of(heard: _Heard) -> Path | None:
    return next((run.sound for run in _runs_of(heard) if run.sound is not None), None)


def _transcript_of(heard: _Heard) -> Path | None:
    return next((run.transcript for run in _runs_of(heard) if run.transcript is not None), None)


def _split_of(heard: _Heard) -> str:
    return _runs_of(heard)[0].split
