"""Reader of story-listening data sets in the layout of OpenNeuro ds003020: sounds, transcripts, responses.

Two layouts are read alike: the data set's own, with responses, transcripts and ``respdict.json`` under ``derivative/``, and the
flat one without that folder. Stimuli are always in ``stimuli/``::

    [derivative/]preprocessed_data/<participant>/<story>.hf5   "data" (rows, V); if repeated, "individual_repeats" (R, rows, V)
    [derivative/]TextGrids/<story>.TextGrid                    tiers of words and of phones, by their names
    [derivative/]respdict.json                                 {story: n}, the length in TRs before trimming
    stimuli/<story>.wav
    rois/<participant>.*, rois/<participant>/                  optional regions: files of any kind that fastencode.data.rois reads

Timing. TR i of a story (0 ≤ i < n − 5) starts (i − 5)·TR after sound onset. Ten TRs at the start and, of what is left, five at
the end are cut from the responses: row k is TR k + 10, rows = n − 20, and row k begins (k + 5)·TR s after sound onset (2k + 10
s at TR = 2 s). The test story loses 40 rows more at its start (features ``[50:-5]``, responses ``[40:]``): in the real data set
251 of 291 rows remain.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastencode.data.layout import FIRST_ROW, TRIMMED_ROWS
from fastencode.data.rois import find_rois
from fastencode.data.textgrid import Interval, plain_label
from fastencode.data.transcripts import spoken_labels
from fastencode.errors import FastencodeWarning, InputError, suggestion
from fastencode.files import check_file, how_to_fetch, is_unfetched, read_json
from fastencode.speech.audio import read_audio
from fastencode.speech.silence import NON_SPEECH

__all__ = ["Stories"]

_QUIET_TRS = 10  # of n: before and after the sound
_BLOCK_BYTES = 32 << 20  # of the file's own dtype in memory at a time


class Stories:
    """A story-listening data set on disk. Nothing is read before it is asked for, and nothing large is kept.

    Methods take the name of a participant (a folder of ``preprocessed_data``) and of a story (a key of ``respdict.json``). A name
    that is not there, and a file that is missing, not fetched or damaged, is an ``InputError`` that says what there is, or what
    to do.

    Parameters
    ----------
    root : path
        Folder of the data set.
    tr : float
        Repetition time in s.
    test_story : str
        The story whose repeats give the noise ceiling and that no model is fitted on.
    test_skip : int
        Rows of the test story's responses to leave out at its start; see ``usable_rows``.
    non_speech : collection of str
        Labels that ``words`` and ``phones`` leave out, without braces and in any case; ``NON_SPEECH | {"spn"}`` adds one.
    word_tier, phone_tier : str
        The tiers of words and of phones in all transcripts. By default those named word or words, and phone, phones, phoneme or
        phonemes, or whose names end so (``Lisa - words``); MAUS's ORT-MAU and MAU are known too.

    Raises
    ------
    InputError
        If the folder or one of its parts is missing, or ``respdict.json`` is not a table of story lengths.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        tr: float = 2.0,
        test_story: str = "wheretheressmoke",
        test_skip: int = 40,
        non_speech: Collection[str] = NON_SPEECH,
        word_tier: str = "",
        phone_tier: str = "",
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder: give the root of the data set")
        if not 0 < tr < math.inf:
            raise InputError(f"tr is {tr}: give the repetition time in s, for example 2.0")
        if test_skip < 0:
            raise InputError(f"test_skip is {test_skip}: give the number of rows to leave out, 0 or more")
        self.tr, self.test_story, self.test_skip = float(tr), test_story, int(test_skip)
        self.word_tier, self.phone_tier = word_tier, phone_tier
        self.non_speech = frozenset(map(plain_label, [non_speech] if isinstance(non_speech, str) else non_speech))
        derivative = self.root / "derivative"
        self._base = derivative if derivative.is_dir() else self.root
        self._responses = self._base / "preprocessed_data"
        if not self._responses.is_dir():
            raise InputError(
                f"{self._responses} is missing: {self.root} does not have the layout of ds003020 (see fastencode.data.stories)"
            )
        self._table = self._base / "respdict.json"
        self._lengths = _read_lengths(self._table)
        self._widths: dict[str, tuple[int, Path]] = {}

    def __repr__(self) -> str:
        return f"Stories({str(self.root)!r}, tr={self.tr:g}, test_story={self.test_story!r}, test_skip={self.test_skip})"

    @property
    def participants(self) -> list[str]:
        """Names of the participants, sorted."""
        return sorted(p.name for p in self._responses.iterdir() if p.is_dir() and not p.name.startswith("."))

    def stories(self, participant: str) -> list[str]:
        """Return the sorted names of the stories whose responses are here; an ``InputError`` if all are links or pointers only.

        Stories that are only links or pointers are left out with a ``FastencodeWarning`` that says how to fetch them.
        """
        here, absent = self._story_files(participant)
        if absent:
            count = f"{len(absent)} of {len(here) + len(absent)} stories of {participant}"
            command = how_to_fetch(absent[0], self._responses / participant)
            message = f"{count} are links or pointers without content: run `{command}`"
            if not here:
                raise InputError(message)
            warnings.warn(f"{message}; left out: {', '.join(p.stem for p in absent)}", FastencodeWarning, stacklevel=2)
        return [p.stem for p in here]

    def train_stories(self, participant: str, *, exclude: Collection[str] = ()) -> list[str]:
        """Return the participant's stories without the test story and those in ``exclude`` (validation stories).

        A story to exclude that the participant did not hear is an ``InputError``.
        """
        exclude = {exclude} if isinstance(exclude, str) else set(exclude)
        names = self.stories(participant)
        unknown = exclude - set(names) - {self.test_story}
        if unknown:
            raise InputError(f"{sorted(unknown)} cannot be excluded: {participant} has no such story, only {names}")
        return [n for n in names if n != self.test_story and n not in exclude]

    def split(self, story: str) -> str:
        """Return "test" for the test story, "train" for all others."""
        return "test" if story == self.test_story else "train"

    def n_rows(self, story: str) -> int:
        """Return the number of response rows of a story: its length in ``respdict.json`` − 20."""
        if story not in self._lengths:
            hint = suggestion(story, self._lengths, otherwise=f"it lists {len(self._lengths)} others", most=3)
            raise InputError(f"story {story!r} is not in {self._table}: {hint}")
        return self._lengths[story] - TRIMMED_ROWS

    def row_times(self, story: str, *, middle: bool = False) -> NDArray[np.float64]:
        """Return when each response row was scanned, in s from sound onset: ``tr * (k + 5)``.

        Parameters
        ----------
        story : str
            Name of the story.
        middle : bool
            The middle of each TR instead of its beginning: half a TR later.

        Returns
        -------
        ndarray, shape (rows,), float64
        """
        rows = np.arange(self.n_rows(story), dtype=np.float64)
        return self.tr * (rows + FIRST_ROW + 0.5 * middle)

    def usable_rows(self, story: str) -> slice:
        """Return the rows to score on: ``test_skip`` onward for the test story, all for the others.

        An ``InputError`` if ``test_skip`` leaves none.
        """
        rows = self.n_rows(story)
        skip = self.test_skip if story == self.test_story else 0
        if skip >= rows:
            raise InputError(f"test_skip {skip} leaves none of the {rows} rows of {story}: lower it")
        return slice(skip, rows)

    def recording(self, story: str) -> str:
        """Return the name of the story's sound file without its suffix: the story's own."""
        return story

    def sound_file(self, story: str) -> Path:
        """Return the story's sound file; an error says if it is missing or not fetched."""
        return check_file(self.root / "stimuli" / f"{story}.wav", f"sound of {story!r}")

    def audio(self, story: str, *, sample_rate: int = 16000) -> NDArray[np.float32]:
        """Return the story's sound, shape (n,), float32 mono, at ``sample_rate`` Hz; see ``fastencode.speech.audio.read_audio``.

        Warns
        -----
        FastencodeWarning
            If the sound and the story's length in TRs do not fit together: the TR is another, or the sound is another story's.
        """
        path = self.sound_file(story)
        sound = read_audio(path, sample_rate=sample_rate)
        self.check_length(story, len(sound) / sample_rate, path)
        return sound

    def check_length(self, story: str, seconds: float, path: Path) -> None:
        """Warn with a ``FastencodeWarning`` if what lasts so long, in s, is not this story's sound or the TR is another.

        Parameters
        ----------
        story : str
        seconds : float
        path : Path
            What lasts so long, for the message: a sound, or features of it.
        """
        heard = self._lengths.get(story, 0) - _QUIET_TRS
        if heard > 0 and abs(seconds / self.tr - heard) > _QUIET_TRS / 2:
            warnings.warn(
                f"{path} lasts {seconds:.1f} s, but respdict.json leaves it {heard} TRs of {self.tr:g} s, {heard * self.tr:g} s:"
                f" check tr (a TR of {seconds / heard:.4g} s would fit) and whether this is the story's sound",
                FastencodeWarning,
                stacklevel=3,
            )

    def words(self, story: str) -> list[Interval]:
        """Return the spoken words with times in s from sound onset; silences, breaths and noises are left out.

        Errors and warnings are those of :func:`fastencode.data.transcripts.spoken_labels`.
        """
        return self._labels(story, "words")

    def phones(self, story: str) -> list[Interval]:
        """Return the phones with times in s from sound onset; silences, breaths and noises are left out. See :meth:`words`."""
        return self._labels(story, "phones")

    def n_voxels(self, participant: str) -> int:
        """Return the participant's number of voxels, the same in all stories."""
        return self._width(participant)[0]

    def responses(
        self, participant: str, story: str, *, voxels: ArrayLike | None = None, dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Read the responses to a story, block by block, so that the file is never in memory whole.

        Parameters
        ----------
        participant, story : str
            Whose responses, and to what.
        voxels : array_like, optional
            Boolean mask of shape (n_voxels,) or voxel indices in any order; all voxels when left out.
        dtype : dtype
            Floating dtype of the result; the files hold float64.

        Returns
        -------
        ndarray, shape (rows, V)
            NaN stays NaN.

        Raises
        ------
        InputError
            If the file is missing, not fetched, not HDF5, or its rows or voxels are not those expected.

        Warns
        -----
        FastencodeWarning
            If voxels hold values that are not finite; ``nan_voxels`` lists them.
        """
        return self._read(participant, story, "data", voxels, dtype)

    def kept(self, participant: str, story: str) -> NDArray[np.bool_]:
        """Return which rows count, shape (rows,): all."""
        return np.ones(self.n_rows(story), bool)

    def mask(self, participant: str) -> None:
        """Return None: the layout has no masks."""

    def notes(self, participant: str) -> list[str]:
        """Return what was done to the responses: nothing."""
        return []

    def repeats(
        self, participant: str, story: str, *, voxels: ArrayLike | None = None, dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Read every single repeat of a story heard several times, shape (R, rows, V); otherwise as ``responses``.

        An ``InputError`` if the story was not repeated.
        """
        return self._read(participant, story, "individual_repeats", voxels, dtype)

    def is_repeated(self, participant: str, story: str) -> bool:
        """Return whether the single repeats of a story are in the participant's file, and a noise ceiling can be estimated."""
        with _open(self.response_file(participant, story)) as file:
            return "individual_repeats" in file and len(file["individual_repeats"]) > 1

    def response_file(self, participant: str, story: str) -> Path:
        """Return the file of a participant's responses to a story; an error says if it is missing or not fetched."""
        path = self._participant_folder(participant) / f"{story}.hf5"
        return check_file(path, f"responses of {participant} to {story!r}")

    def response_files(self, participant: str, story: str) -> list[Path]:
        """Return the files that hold the responses: one."""
        return [self.response_file(participant, story)]

    def stimulus_files(self, story: str) -> list[Path]:
        """Return those of the story's sound and transcript that are here."""
        files = (self.root / "stimuli" / f"{story}.wav", self._base / "TextGrids" / f"{story}.TextGrid")
        return [path for path in files if path.is_file() and not is_unfetched(path)]

    def nan_voxels(self, participant: str, story: str) -> NDArray[np.int64]:
        """Return the sorted indices of the voxels that hold a value that is not finite anywhere in a story."""
        with self._dataset(participant, story, "data") as data:
            bad = np.zeros(data.shape[1], dtype=bool)
            for rows, columns in _blocks(data, 0, data.shape[1]):
                bad[columns] |= ~np.isfinite(data[rows, columns]).all(axis=0)
        return np.flatnonzero(bad)

    def rois(self, participant: str, *, mask: Any = None) -> dict[str, NDArray[np.intp]]:
        """Return the participant's regions: name → sorted voxel indices; empty when the data set has none.

        From files ``rois/<participant>.*`` and the files in ``rois/<participant>/``; see
        :func:`fastencode.data.rois.find_rois`. ``mask`` says where voxels lie, as images of regions need it.

        Raises
        ------
        InputError
            If a file is damaged, its indices, masks or labels do not fit the participant's voxels or can be taken in two ways, or
            a region is defined twice.
        """
        folders = list(dict.fromkeys((self._base / "rois", self.root / "rois")))
        return find_rois(folders, participant, mask, n_voxels=self.n_voxels(participant))

    def _story_files(self, participant: str) -> tuple[list[Path], list[Path]]:
        """The participant's response files, sorted: those that are here, and those that were not fetched."""
        folder = self._participant_folder(participant)
        files = sorted(p for p in folder.iterdir() if p.suffix == ".hf5" and not p.name.startswith("."))
        absent = [p for p in files if is_unfetched(p)]
        return [p for p in files if p not in absent], absent

    def _participant_folder(self, participant: str) -> Path:
        folder = self._responses / participant
        if not folder.is_dir():
            raise InputError(f"participant {participant!r} has no folder {folder}: the participants are {self.participants}")
        return folder

    def _labels(self, story: str, wanted: Literal["words", "phones"]) -> list[Interval]:
        return spoken_labels(
            check_file(self._base / "TextGrids" / f"{story}.TextGrid", f"transcript of {story!r}"),
            wanted,
            seconds=(self._lengths.get(story, 0) - _QUIET_TRS) * self.tr,
            word_tier=self.word_tier,
            phone_tier=self.phone_tier,
            non_speech=self.non_speech,
        )

    def _width(self, participant: str) -> tuple[int, Path]:
        if participant not in self._widths:
            here, _ = self._story_files(participant)
            if not here:
                raise InputError(f"{participant} has no story: {self._responses / participant} holds no fetched .hf5 file")
            with _open(here[0]) as file:
                self._widths[participant] = int(_responses(file, here[0], "data").shape[-1]), here[0]
        return self._widths[participant]

    @contextmanager
    def _dataset(self, participant: str, story: str, key: str) -> Iterator[h5py.Dataset]:
        """The checked HDF5 data set, open while the context lasts."""
        rows = self.n_rows(story)
        path = self._participant_folder(participant) / f"{story}.hf5"
        check_file(path, f"responses of {participant} to {story!r}, which is in respdict.json")
        width, first = self._width(participant)
        with _open(path) as file:
            data = _responses(file, path, key)
            if data.shape[-2] != rows:
                raise InputError(
                    f"{path}: {key} has {data.shape[-2]} rows, but respdict.json gives {story} n = {rows + TRIMMED_ROWS}"
                    f" and n − {TRIMMED_ROWS} = {rows}: check the TR and the trimming of both"
                )
            if data.shape[-1] != width:
                raise InputError(
                    f"{path}: {data.shape[-1]} voxels, but {first} has {width}: all stories of a participant need the same voxels"
                )
            try:
                yield data
            except OSError as error:
                raise InputError(f"{path}: {key} cannot be read to its end ({error}): it is damaged; fetch it again") from error

    def _read(self, participant: str, story: str, key: str, voxels: ArrayLike | None, dtype: DTypeLike) -> NDArray[Any]:
        dtype = np.dtype(dtype)
        if dtype.kind != "f":
            raise InputError(f"dtype is {dtype}: responses are read as floating-point numbers")
        with self._dataset(participant, story, key) as data:
            total = data.shape[-1]
            chosen = None if voxels is None else _voxel_indices(voxels, total)
            width = total if chosen is None else len(chosen)
            out = np.empty((*data.shape[:-1], width), dtype=dtype)
            if data.ndim == 2:
                bad = _fill(out, data, (), chosen)
            else:
                bad = np.zeros(width, dtype=bool)
                for repeat in range(data.shape[0]):
                    bad |= _fill(out[repeat], data, (repeat,), chosen)
        if bad.any():
            warnings.warn(
                f"{participant}, {story}: {bad.sum()} of {width} voxels hold values that are not finite;"
                " they are left as they are, nan_voxels() lists them",
                FastencodeWarning,
                stacklevel=3,
            )
        return out


def _fill(out: NDArray[Any], data: h5py.Dataset, at: tuple[int, ...], chosen: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Read block by block into ``out``; return which columns hold a value that is not finite.

    Blocks are read whole and the choice is made in memory: HDF5's own selection of single columns costs one read per row and
    column. Columns before the first and after the last chosen one, and chunks without a chosen one, are never read.
    """
    bad = np.zeros(out.shape[1], dtype=bool)
    if out.size == 0:
        return bad
    order = np.arange(data.shape[-1]) if chosen is None else np.argsort(chosen, kind="stable")
    ordered = order if chosen is None else chosen[order]
    for rows, columns in _blocks(data, int(ordered[0]), int(ordered[-1]) + 1):
        here = slice(*np.searchsorted(ordered, (columns.start, columns.stop)))
        if here.start == here.stop:
            continue
        block = data[(*at, rows, columns)]
        target = columns if chosen is None else order[here]
        out[rows, target] = block if chosen is None else block[:, ordered[here] - columns.start]
        bad[target] |= ~np.isfinite(out[rows, target]).all(axis=0)
    return bad


def _blocks(data: h5py.Dataset, low: int, high: int) -> Iterator[tuple[slice, slice]]:
    """Cut rows × columns low … high into blocks of bounded size, of whole chunks if there are chunks: none is decoded twice."""
    chunk_rows, chunk_columns = data.chunks[-2:] if data.chunks else (1, high - low)
    low -= low % chunk_columns if data.chunks else 0
    budget = max(1, _BLOCK_BYTES // (chunk_rows * data.dtype.itemsize))  # columns that one row of chunks may have
    columns = min(high - low, max(chunk_columns, budget // chunk_columns * chunk_columns))
    rows = chunk_rows * max(1, budget // columns)
    for top in range(0, data.shape[-2], rows):
        for left in range(low, high, columns):
            yield slice(top, min(top + rows, data.shape[-2])), slice(left, min(left + columns, high))


def _voxel_indices(voxels: ArrayLike, total: int) -> NDArray[np.int64]:
    chosen = np.asarray(voxels)
    if chosen.ndim != 1:
        raise InputError(f"voxels has shape {chosen.shape}: give one mask or one list of indices")
    if chosen.dtype == bool:
        if len(chosen) != total:
            raise InputError(f"the voxel mask has {len(chosen)} entries, but there are {total} voxels")
        return np.flatnonzero(chosen)
    if chosen.size and not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(f"voxels is {chosen.dtype}: give a boolean mask or integer indices")
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < total):
        raise InputError(
            f"voxel indices run from {chosen.min()} to {chosen.max()}, but there are {total} voxels (0 … {total - 1})"
        )
    return chosen.astype(np.int64)


def _read_lengths(path: Path) -> dict[str, int]:
    lengths = read_json(check_file(path, "table of story lengths"))
    if not isinstance(lengths, dict) or not lengths:
        raise InputError(f"{path} is not a table of story lengths: expected {{story: number of TRs}}")
    for story, n in lengths.items():
        if isinstance(n, bool) or not isinstance(n, int) or n <= TRIMMED_ROWS:
            raise InputError(f"{path}: {story!r} has length {n!r}, expected a whole number of TRs above {TRIMMED_ROWS}")
    return lengths


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(check_file(path), "r")
    except OSError as error:
        raise InputError(f"{path} is not a whole HDF5 file ({error}): fetch it again") from error


def _responses(file: h5py.File, path: Path, key: str) -> h5py.Dataset:
    """A data set of real numbers with the axes and a voxel that it must have."""
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise InputError(
            f"{path} has no data set {key!r}, only {list(file)}" + ": the story was not repeated" * (key == "individual_repeats")
        )
    axes = {"data": "(rows, V)", "individual_repeats": "(R, rows, V)"}[key]
    if data.ndim != axes.count(",") + 1 or not data.shape[-1]:
        raise InputError(f"{path}: {key} has shape {data.shape}, expected {axes}")
    if data.dtype.kind not in "fiu":
        raise InputError(f"{path}: {key} holds {data.dtype}: responses are real numbers")
    return data
