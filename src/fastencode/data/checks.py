"""Is this data? General checks of responses before anything is fitted to them, one run at a time, in slabs of rows.

None of them knows a layout: a reader gives the name of a participant and of a run, and a callable that yields the run's rows in
order, each slab (rows, voxels) with all voxels. What is kept of a run is small: a :class:`RunSummary`.

Axis letters: t row, v voxel, s voxel of the sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.data.findings import Finding
from fastencode.errors import InputError

__all__ = [
    "ResponseCheck",
    "RunSummary",
    "Slabs",
    "check_responses",
    "constant_targets",
    "run_findings",
    "sample_of",
    "summarize",
]

Slabs = Callable[[], Iterable[NDArray[Any]]]
"""Called to read a run: yields its rows in order, (rows, voxels) at a time."""

_FIRST = 64  # rows that say where each voxel's values usually lie
_ROUNDING = 1e-6  # of its median: a voxel that varies less is not judged
_MAD = 1.4826  # median absolute deviation → standard deviation of a normal distribution
_FAR, _SHARE = 20.0, 0.25  # standard deviations; of the voxels: a scan in which so many are so far away is a spike
_LOST = 100.0  # standard deviations of a single value that is no measurement
_SAMPLE = 64  # voxels whose values are kept
_NAMED = 6  # rows that a message names


@dataclass(frozen=True)
class ResponseCheck:
    """What ``check_responses`` found; ``str()`` of it is a sentence for a message."""

    name: str
    n_targets: int
    zero: NDArray[np.int64]
    """Columns that are 0 throughout."""
    constant: NDArray[np.int64]
    """Columns that have one other value throughout."""
    not_finite: NDArray[np.int64]
    """Columns with a NaN or an infinity."""

    @property
    def unusable(self) -> NDArray[np.int64]:
        """Sorted columns that nothing can be fitted to."""
        return np.sort(np.concatenate([self.zero, self.constant, self.not_finite]))

    @property
    def ok(self) -> bool:
        """Whether every column varies and is finite."""
        return not len(self.unusable)

    def __str__(self) -> str:
        kinds = (("zero", self.zero), ("constant", self.constant), ("not finite", self.not_finite))
        found = [f"{len(columns)} {kind}" for kind, columns in kinds if len(columns)]
        return f"{self.name}: of {self.n_targets} responses {', '.join(found) if found else 'all vary and are finite'}"


@dataclass(frozen=True)
class RunSummary:
    """What one reading of a run's responses tells; all that checks of several runs need."""

    participant: str
    run: str
    n_rows: int
    check: ResponseCheck
    """Voxels that are 0, constant or not finite."""
    spikes: NDArray[np.int64]
    """Rows in which a quarter of the sample lies more than 20 standard deviations from its median."""
    outliers: NDArray[np.int64]
    """Voxels with a value more than 100 standard deviations away in some other row."""
    digest: str
    """Of all values as float32."""
    sample: NDArray[np.float32]
    """(rows, s): voxels at equal distances, at most 64."""

    @property
    def where(self) -> str:
        """The participant and the run, for messages."""
        return f"{self.participant}, {self.run}"


def constant_targets(Y: ArrayLike) -> NDArray[np.bool_]:
    """Return which columns never change in time, beyond what rounding at their own magnitude explains.

    Parameters
    ----------
    Y : array_like, shape (n, V)
        Responses. Columns with values that are not finite count as changing: see ``check_responses``.

    Returns
    -------
    ndarray, shape (V,), bool

    Raises
    ------
    InputError
        If ``Y`` is not two-dimensional, has no rows or holds no real numbers.
    """
    columns = _Columns()
    columns.add(_responses(Y))
    return columns.constant


def check_responses(Y: ArrayLike, *, name: str = "responses") -> ResponseCheck:
    """Sort out the columns of responses that are no measurement: zero, constant, or not finite.

    Parameters
    ----------
    Y : array_like, shape (n, V)
        Responses in time order.
    name : str
        Whose responses they are, for messages.

    Returns
    -------
    ResponseCheck

    Raises
    ------
    InputError
        If ``Y`` is not two-dimensional, has no rows or holds no real numbers.
    """
    columns = _Columns()
    columns.add(_responses(Y))
    return columns.check(name)


def summarize(participant: str, run: str, slabs: Slabs) -> RunSummary:
    """Read a run once, slab by slab, and keep what checks need.

    Parameters
    ----------
    participant, run : str
        Names for messages.
    slabs : callable
        Yields the rows in order, (rows, voxels) at a time. No more than one slab and 64 rows are in memory together.

    Returns
    -------
    RunSummary

    Raises
    ------
    InputError
        If a slab is not two-dimensional or holds no real numbers, there are no rows, or slabs differ in width.
    """
    where, columns, outliers = f"{participant}, {run}", _Columns(), _Outliers()
    digest, sample = hashlib.blake2b(digest_size=16), []
    for slab in slabs():
        slab_tv = _responses(slab, where)
        columns.add(slab_tv, where)
        outliers.add(slab_tv)
        digest.update((np.ascontiguousarray(slab_tv, np.float32) + 0.0).tobytes())  # −0 is 0
        sample.append(slab_tv[:, sample_of(slab_tv.shape[1])].astype(np.float32))
    if not sample:
        raise InputError(f"{where}: there are no rows of responses; fetch the file again")
    kept = np.concatenate(sample)
    spikes = _spikes(kept)
    far = outliers.finish(spikes)
    return RunSummary(participant, run, len(kept), columns.check(where), spikes, far, digest.hexdigest(), kept)


def sample_of(n_voxels: int) -> NDArray[np.int64]:
    """The voxels whose values a summary keeps: at most 64, at equal distances."""
    return np.unique(np.linspace(0, n_voxels - 1, min(n_voxels, _SAMPLE)).round().astype(np.int64))


def run_findings(summaries: Sequence[RunSummary]) -> list[Finding]:
    """What is wrong with single runs: voxels that are 0, constant or not finite in one of them, scans and values far away.

    Parameters
    ----------
    summaries : sequence of RunSummary
        Runs of any participants. What is constant in all runs of a participant who has several lies outside the brain: that is no
        fault, unless it is every voxel.

    Returns
    -------
    list of Finding
        Of kinds "zero", "constant", "not finite", "spike" and "outlier", run by run.
    """
    outside = _outside(summaries)
    found = []
    for one in summaries:
        known = outside.get(one.participant, np.empty(0, np.int64))
        found += _of_columns(one, known)
        if len(one.spikes):
            rows = ", ".join(map(str, one.spikes[:_NAMED])) + ", …" * (len(one.spikes) > _NAMED)
            evidence = f"{len(one.spikes)} of {one.n_rows} rows lie more than {_FAR:g} standard deviations away: {rows}"
            found.append(Finding("spike", one.where, evidence, "repair these scans, or leave them out of the run"))
        if len(one.outliers):
            evidence = (
                f"{len(one.outliers)} of {one.check.n_targets} voxels have a value more than {_LOST:g} standard deviations away"
            )
            found.append(Finding("outlier", one.where, evidence, "repair them, or leave these voxels out"))
    return found


def _outside(summaries: Sequence[RunSummary]) -> dict[str, NDArray[np.int64]]:
    """The voxels of each participant that are unusable in all of several runs, unless that is all of them."""
    runs: dict[str, list[RunSummary]] = {}
    for one in summaries:
        runs.setdefault(one.participant, []).append(one)
    found = {}
    for who, several in runs.items():
        if len(several) > 1 and len({one.check.n_targets for one in several}) == 1:
            always = np.bincount(np.concatenate([one.check.unusable for one in several]), minlength=1) == len(several)
            if always.sum() < several[0].check.n_targets:
                found[who] = np.flatnonzero(always)
    return found


def _of_columns(one: RunSummary, known: NDArray[np.int64]) -> list[Finding]:
    """What is wrong with a run's voxels, those aside of which it is known."""
    check, found = one.check, []
    kinds = (
        ("zero", check.zero, "0 in all rows"),
        ("constant", check.constant, "constant in all rows"),
        ("not finite", check.not_finite, "not finite (NaN or infinity) in some row"),
    )
    for kind, columns, words in kinds:
        here = np.setdiff1d(columns, known)
        if not len(here):
            continue
        every = len(here) == check.n_targets
        count = f"all {check.n_targets} voxels are" if every else f"{len(here)} of {check.n_targets} voxels are"
        first = "" if every else f" (first {', '.join(map(str, here[:_NAMED]))})"
        remedy = (
            "fetch or make the file again, or leave the run out" if every else "leave these voxels out, or make the file again"
        )
        found.append(Finding(kind, one.where, f"{count} {words}{first}", remedy))
    return found


class _Columns:
    """The range of every column, slab by slab."""

    def __init__(self) -> None:
        self._low_v: NDArray[Any] | None = None

    def add(self, slab_tv: NDArray[np.floating], where: str = "responses") -> None:
        with np.errstate(invalid="ignore"):
            low_v, high_v = slab_tv.min(axis=0), slab_tv.max(axis=0)
        finite_v = np.isfinite(slab_tv).all(axis=0)
        if self._low_v is None:
            self._low_v, self._high_v, self._finite_v = low_v, high_v, finite_v
            return
        if len(low_v) != len(self._low_v):
            raise InputError(f"{where}: a part has {len(low_v)} voxels, others {len(self._low_v)}; make the file again")
        self._low_v, self._high_v = np.minimum(self._low_v, low_v), np.maximum(self._high_v, high_v)
        self._finite_v &= finite_v

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Columns whose range is what rounding at their own magnitude explains."""
        assert self._low_v is not None
        with np.errstate(invalid="ignore"):
            rounding = 4 * np.finfo(self._low_v.dtype).eps * np.maximum(np.abs(self._low_v), np.abs(self._high_v))
            constant: NDArray[np.bool_] = self._high_v - self._low_v <= rounding  # False where either is NaN
        return constant & self._finite_v

    def check(self, name: str) -> ResponseCheck:
        constant_v = self.constant
        assert self._low_v is not None
        zero_v = (self._low_v == 0) & (self._high_v == 0)
        return ResponseCheck(
            name=name,
            n_targets=len(zero_v),
            zero=np.flatnonzero(zero_v),
            constant=np.flatnonzero(constant_v & ~zero_v),
            not_finite=np.flatnonzero(~self._finite_v),
        )


def _spikes(sample_ts: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows in which a share of the voxels lie far from the median of all rows, in units that wild rows do not change."""
    center_s, spread_s = _usual(sample_ts)
    judged_s = spread_s > 0
    if not judged_s.any():
        return np.empty(0, np.int64)
    away_ts = np.abs(sample_ts[:, judged_s] - center_s[judged_s]) / spread_s[judged_s]
    return np.flatnonzero((away_ts > _FAR).mean(axis=1) > _SHARE)


def _usual(rows_tv: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and spread of each column; 0 where it hardly varies or is not finite, so that nothing is said of it."""
    with np.errstate(invalid="ignore"):
        center_v = np.median(rows_tv, axis=0).astype(np.float64)
        spread_v = _MAD * np.median(np.abs(rows_tv - center_v), axis=0)
        judged_v = np.isfinite(spread_v) & (spread_v > _ROUNDING * np.abs(center_v))
    return np.where(judged_v, center_v, 0.0), np.where(judged_v, spread_v, 0.0)


class _Outliers:
    """Single values very far from the median of a run's first rows, of every voxel, slab by slab."""

    def __init__(self) -> None:
        self._first: list[NDArray[np.floating]] = []
        self._begun, self._row = False, 0
        self._rows, self._places = list[NDArray[np.int64]](), list[NDArray[np.int64]]()

    def add(self, slab_tv: NDArray[np.floating]) -> None:
        if self._begun:
            self._judge(slab_tv)
            return
        self._first.append(slab_tv)
        if sum(map(len, self._first)) >= _FIRST:
            self._begin()

    def finish(self, spikes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The voxels with such a value in rows that are no spikes."""
        if not self._begun:
            self._begin()
        rows, places = np.concatenate(self._rows), np.concatenate(self._places)
        return np.unique(places[~np.isin(rows, spikes)])

    def _begin(self) -> None:
        self._begun = True
        slabs, self._first = self._first, []
        self._center_v, spread_v = _usual(np.concatenate(slabs)[:_FIRST])
        self._limit_v = np.where(spread_v > 0, _LOST * spread_v, np.inf)
        for slab_tv in slabs:
            self._judge(slab_tv)

    def _judge(self, slab_tv: NDArray[np.floating]) -> None:
        with np.errstate(invalid="ignore"):
            far_tv = np.abs(slab_tv - self._center_v) > self._limit_v
        far_tv[far_tv.mean(axis=1) > _SHARE] = False  # a spike of all voxels: said once, by its row
        rows, places = np.nonzero(far_tv)
        self._rows.append(self._row + rows)
        self._places.append(places)
        self._row += len(slab_tv)


def _responses(Y: ArrayLike, name: str = "responses") -> NDArray[np.floating]:
    responses = as_numpy(Y, name)
    if responses.ndim != 2 or not len(responses):
        raise InputError(f"{name}: shape {responses.shape}; give time × targets with at least one row")
    return responses if np.issubdtype(responses.dtype, np.floating) else responses.astype(np.float64)
