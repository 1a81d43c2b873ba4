"""Reader of the Alice data set (Brennan et al. 2016): 28 listeners, six regions, one chapter of Alice in Wonderland.

Brennan, Stabler, Van Wagenen, Luh & Hale (2016), Abstract linguistic structure correlates with temporal activity during
naturalistic comprehension, Brain and Language 157–158, 81–94. One folder of text files and one TextGrid::

    <name>.TextGrid                    one tier of words, times in s from the start of the first scan
    <listener>-timecourses.txt         362 × 6, regions in the order of ``Alice.regions``
    <listener>-rate.txt, -sndpwr.txt   362, word rate and sound power as that listener's scan saw them
    <listener>-rp_*.txt                372 × 6, head motion
    *generic-predictors*.txt           372 × 12, predictors under the hemodynamic response

A scan was taken every 2 s, 372 in all; the first ten were discarded from the responses and are cut here from whatever has 372
rows.

Words. The tokens are the labels of the TextGrid without surrounding white space, less the empty ones and the silences ``sp``. A
clitic that the transcript separates (``'s``, ``'ll``, ``n't`` …) is a token of its own and stays one; contractions it does not
separate (``it's``, ``don't``) are one token. That leaves 2127 of 2423 intervals.
"""

from __future__ import annotations

import os
import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.data.checks import RunSummary, run_findings, summarize
from fastencode.data.copies import copy_findings
from fastencode.data.findings import warn_of
from fastencode.data.textgrid import Interval, pick_tier, read_textgrid, spoken
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import check_file
from fastencode.timing.clean import detrend_polynomial, zscore

__all__ = ["Alice", "MeanListener"]

_SCANS = 372
_DISCARDED = 10
_TIMECOURSES = "-timecourses.txt"


class Alice:
    """The Alice data set on disk. Time courses are read and checked at once, the rest when asked for.

    Parameters
    ----------
    root : path
        Folder of the files.

    Attributes
    ----------
    listeners : list of str
        Names of the listeners whose responses are data, sorted.
    left_out : dict of str to str
        Name → reason for the others: a response that is constant, zero or not finite.

    Raises
    ------
    InputError
        If the folder or its files are missing, or hold something else than expected.

    Warns
    -----
    FastencodeWarning
        If listeners are left out: it names them and says why. If a scan or a value lies far from all others, or the responses of
        a listener are another's: it names the listener.
    """

    tr = 2.0
    """s."""
    discarded = _DISCARDED
    """Scans at the start that the responses do not have."""
    regions = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
    predictor_names = (
        *("rate", "frq", "break", "tdp", "tdx", "bup", "bux", "cfgsurp"),
        *("bigramlex", "trigramlex", "bigrampos", "trigrampos"),
    )

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        files = sorted(self.root.glob(f"*{_TIMECOURSES}"))
        if not files:
            raise InputError(f"{self.root} holds no file *{_TIMECOURSES}: give the folder of the Alice data set")
        self._timecourses: dict[str, NDArray[np.float64]] = {}
        self.left_out: dict[str, str] = {}
        summaries: list[RunSummary] = []
        for path in files:
            name = path.name.removesuffix(_TIMECOURSES)
            responses = _table(path, _SCANS - _DISCARDED, len(self.regions), finite=False)
            one = summarize(name, "the chapter", partial(iter, [responses]))
            summaries.append(one)
            if one.check.ok:
                self._timecourses[name] = responses
            else:
                self.left_out[name] = str(one.check).replace(one.check.name, name, 1)
        self.listeners = list(self._timecourses)
        if self.left_out:
            warnings.warn(
                f"left out of the Alice data set, because the responses are not data: {'; '.join(self.left_out.values())}",
                FastencodeWarning,
                stacklevel=2,
            )
        used = [one for one in summaries if one.participant in self._timecourses]
        warn_of([*run_findings(used), *copy_findings(used)])
        if not self.listeners:
            raise InputError(f"{self.root} holds no listener with usable responses: fetch the files again")

    def __repr__(self) -> str:
        return f"Alice({str(self.root)!r}): {len(self.listeners)} listeners, {len(self.left_out)} left out"

    @cached_property
    def words(self) -> list[Interval]:
        """The spoken words, clitics as their own tokens, times in s from the start of the first scan."""
        return spoken(pick_tier(read_textgrid(self.transcript), "word", "words", alone=True))

    @property
    def transcript(self) -> Path:
        """The TextGrid."""
        return self._one("*.TextGrid")

    @property
    def scan_times(self) -> NDArray[np.float64]:
        """When each of the 372 scans began, 2k s; its middle is 1 s later. Rows ``discarded`` onward are the responses'."""
        return self.tr * np.arange(_SCANS, dtype=np.float64)

    def timecourses(self, listener: str) -> NDArray[np.float64]:
        """Return the listener's responses, shape (362, 6), raw BOLD."""
        return self._timecourses[self._known(listener)].copy()

    def rate(self, listener: str) -> NDArray[np.float64]:
        """Return the authors' word rate under the hemodynamic response, shape (362,)."""
        return _table(self.root / f"{self._known(listener)}-rate.txt", _SCANS - _DISCARDED, 1)[:, 0]

    def sound_power(self, listener: str) -> NDArray[np.float64]:
        """Return the authors' sound power under the hemodynamic response, shape (362,)."""
        return _table(self.root / f"{self._known(listener)}-sndpwr.txt", _SCANS - _DISCARDED, 1)[:, 0]

    def motion(self, listener: str) -> NDArray[np.float64]:
        """Return head motion at the responses' scans, shape (362, 6): three translations in mm, three rotations in rad."""
        return _table(self._one(f"{self._known(listener)}-rp_*.txt"), _SCANS, 6)[_DISCARDED:]

    def generic_predictors(self, *, all_scans: bool = False) -> NDArray[np.float64]:
        """Return the authors' predictors, one column for each of ``predictor_names``.

        Parameters
        ----------
        all_scans : bool
            All 372 rows instead of the 362 that the responses have.
        """
        table = _table(self._one("*generic-predictors*.txt"), _SCANS, len(self.predictor_names))
        return table if all_scans else table[_DISCARDED:]

    def _known(self, listener: str) -> str:
        if listener in self.left_out:
            raise InputError(f"listener {listener!r} was left out ({self.left_out[listener]}): use one of `listeners`")
        if listener not in self._timecourses:
            raise InputError(f"there is no listener {listener!r}: the listeners are {self.listeners}")
        return listener

    def _one(self, pattern: str) -> Path:
        found = sorted(self.root.glob(pattern))
        if len(found) != 1:
            raise InputError(f"{self.root} holds {len(found)} files {pattern}, expected one: {[p.name for p in found]}")
        return found[0]


class MeanListener:
    """The mean over listeners, detrended and z-scored, in a chapter's three parts, as a data set; each region is one voxel.

    Its runs are ``train``, ``validation`` and ``test``. See :class:`fastencode.data.dataset.Dataset` for the methods.

    Parameters
    ----------
    alice : Alice
    sound : Path
        The spoken chapter.
    validation_rows, test_rows : int
        Scans at the end to score on, and scans before them to watch while tuning.

    Raises
    ------
    InputError
        If no scans are left for one of these, or to tune on.
    """

    tr, test_story, participants = Alice.tr, "test", ("mean listener",)

    def __init__(self, alice: Alice, sound: Path, validation_rows: int, test_rows: int) -> None:
        self._sound, self._regions, self._files = sound, alice.regions, sorted(alice.root.glob(f"*{_TIMECOURSES}"))
        mean = np.mean([zscore(detrend_polynomial(alice.timecourses(name), 3)) for name in alice.listeners], axis=0)
        begins = alice.scan_times[alice.discarded :]
        for name, rows in (("validation_rows", validation_rows), ("test_rows", test_rows)):
            if not 0 < rows < len(begins) - validation_rows - test_rows + rows:
                raise InputError(
                    f"{name}={rows}: the chapter has {len(begins)} scans; leave some to tune on, some to watch, some to score on"
                )
        cuts = np.cumsum([len(begins) - test_rows - validation_rows, validation_rows])
        self._parts = dict(zip(("train", "validation", "test"), np.split(np.arange(len(begins)), cuts), strict=True))
        self._begins, self._responses, self._words = begins, mean.astype(np.float32), alice.words
        self._n_listeners, self._transcript = len(alice.listeners), alice.transcript

    def stories(self, who: str) -> list[str]:
        return list(self._parts)

    def words(self, run: str) -> list[Interval]:
        return self._words

    def phones(self, run: str) -> list[Interval]:
        raise InputError("the Alice data set has words and no phones: leave out what is made of phones")

    def stimulus_files(self, run: str) -> list[Path]:
        return [self._sound, self._transcript]

    def kept(self, who: str, run: str) -> NDArray[np.bool_]:
        return np.ones(self.n_rows(run), bool)

    def split(self, run: str) -> str:
        return run

    def n_rows(self, run: str) -> int:
        return len(self._parts[run])

    def row_times(self, run: str, *, middle: bool = False) -> NDArray[np.float64]:
        return np.asarray(self._begins[self._parts[run]] + 0.5 * self.tr * middle)

    def usable_rows(self, run: str) -> slice:
        return slice(0, self.n_rows(run))

    def recording(self, run: str) -> str:
        return self._sound.stem

    def sound_file(self, run: str) -> Path:
        return self._sound

    def check_length(self, run: str, seconds: float, path: Path) -> None:
        """The chapter is spoken as long as the scans last."""

    def n_voxels(self, who: str) -> int:
        return len(self._regions)

    def responses(self, who: str, run: str, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        rows = self._responses[self._parts[run]]
        return rows if voxels is None else rows[:, np.asarray(voxels)]

    def is_repeated(self, who: str, run: str) -> bool:
        return False

    def repeats(self, who: str, run: str, *, voxels: ArrayLike | None = None) -> NDArray[np.float32]:
        raise InputError(f"{run} was heard once: there are no repeats")

    def rois(self, who: str, *, mask: Any = None) -> dict[str, NDArray[np.intp]]:
        return {name: np.array([i]) for i, name in enumerate(self._regions)}

    def mask(self, who: str) -> None:
        """Columns are regions, not voxels."""

    def notes(self, who: str) -> list[str]:
        return [f"mean over {self._n_listeners} listeners, detrended and z-scored"]

    def response_files(self, who: str, run: str) -> list[Path]:
        return self._files


def _table(path: Path, rows: int, columns: int, *, finite: bool = True) -> NDArray[np.float64]:
    check_file(path, "of the Alice data set")
    try:
        table = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path} is not a table of numbers ({error}): fetch it again") from error
    if table.shape != (rows, columns):
        raise InputError(f"{path} has shape {table.shape}, expected {(rows, columns)}: fetch it again")
    if finite and not np.isfinite(table).all():
        raise InputError(f"{path} holds values that are not finite: fetch it again")
    return table
