"""Responses that are those of another run, repeat or participant, and means that are not those of their repeats.

Runs are compared by their summaries (:func:`fastencode.data.checks.summarize`): equal digests, or the same course in time in a
sample of voxels, whatever its scale and offset.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastencode.data.checks import RunSummary
from fastencode.data.findings import Finding

__all__ = ["copy_findings", "repeat_findings"]

Values = NDArray[np.floating]

_SAME = 0.9999  # least correlation of copies that were scaled or stored in less precision
_MEAN = 0.98  # least median correlation of a mean with the mean of its repeats; each may have been z-scored before
_SHIFTED = 0.9  # least median correlation at the right shift
_SHIFTS = 20  # rows in either direction
_ROWS = 10  # fewer rows may be alike by chance


def copy_findings(summaries: Sequence[RunSummary]) -> list[Finding]:
    """Runs of a participant that are copies of each other, and participants whose runs are those of another.

    Parameters
    ----------
    summaries : sequence of RunSummary
        Runs of any participants. Runs in which nothing varies are not compared.

    Returns
    -------
    list of Finding
        Of kind "copy": one for each run that repeats an earlier one of its participant (of which it may be a part, from the
        first row on), and one for each pair of participants.
    """
    people: dict[str, list[RunSummary]] = {}
    for one in summaries:
        if len(one.check.unusable) < one.check.n_targets:
            people.setdefault(one.participant, []).append(one)
    found = [finding for runs in people.values() for finding in _within(runs)]
    for (first, mine), (second, theirs) in itertools.combinations(people.items(), 2):
        found += _between(first, mine, second, theirs)
    return found


def _within(runs: Sequence[RunSummary]) -> list[Finding]:
    found = []
    for place, one in enumerate(runs):
        same = next((other for other in runs[:place] if _alike(one, other)), None)
        if same is not None:
            rows = min(one.n_rows, same.n_rows)
            evidence = f"the responses are those of {same.run} in {rows} of {one.n_rows} rows{_how(one, same)}"
            remedy = f"fetch or make the files of {one.run} and {same.run} again, or leave out the wrong one"
            found.append(Finding("copy", one.where, evidence, remedy))
    return found


def _between(first: str, mine: Sequence[RunSummary], second: str, theirs: Sequence[RunSummary]) -> list[Finding]:
    by_name = {one.run: one for one in mine}
    by_digest = {one.digest: one for one in mine}
    shared = [one for one in theirs if one.run in by_name]
    same, how = [], ""
    for one in theirs:
        other = by_name.get(one.run)
        if other is None or not _alike(one, other):
            other = by_digest.get(one.digest)
        if other is not None:
            same.append(one.run if one.run == other.run else f"{one.run} = {other.run}")
            how = how or _how(one, other)
    if not same:
        return []
    named = ", ".join(same[:6]) + ", …" * (len(same) > 6)
    evidence = f"the responses to {len(same)} of {len(shared) or len(theirs)} runs are those of {first}{how}: {named}"
    return [Finding("copy", second, evidence, f"fetch or make the files of {second} and {first} again, or leave one of them out")]


def _how(one: RunSummary, other: RunSummary) -> str:
    return "" if one.digest == other.digest or one.n_rows != other.n_rows else ", up to scale or rounding"


def _alike(one: RunSummary, other: RunSummary) -> bool:
    if one.check.n_targets != other.check.n_targets:
        return False
    if one.digest == other.digest:
        return True
    rows = min(one.n_rows, other.n_rows)
    if rows < _ROWS:
        return False
    r_s = _correlations(one.sample[:rows], other.sample[:rows])
    return len(r_s) > 0 and bool(r_s.min() > _SAME)


def repeat_findings(mean: RunSummary, repeats: Sequence[RunSummary]) -> list[Finding]:
    """What is wrong with a run that was heard several times: equal repeats, and a mean that is another's or shifted.

    Parameters
    ----------
    mean : RunSummary
        Of the responses that are said to be the mean of the repeats.
    repeats : sequence of RunSummary
        Of each repeat.

    Returns
    -------
    list of Finding
        Of kinds "equal repeats", "shifted" and "not the mean".
    """
    found = []
    pairs = list(itertools.combinations(range(len(repeats)), 2))
    equal = [(a, b) for a, b in pairs if repeats[a].n_rows == repeats[b].n_rows and _alike(repeats[a], repeats[b])]
    if equal:
        named = ", ".join(f"{a + 1} and {b + 1}" for a, b in equal[:6]) + ", …" * (len(equal) > 6)
        evidence = f"of {len(repeats)} repeats these are equal: {named}"
        remedy = "noise ceilings made of them are too high; fetch or make the file again, or keep one of each"
        found.append(Finding("equal repeats", mean.where, evidence, remedy))
    return found + _of_mean(mean, repeats)


def _of_mean(mean: RunSummary, repeats: Sequence[RunSummary]) -> list[Finding]:
    rows = sorted({one.n_rows for one in repeats})
    remedy = "make it again of these repeats, or the repeats of the same rows"
    if not repeats or len({one.sample.shape[1] for one in (mean, *repeats)}) > 1 or len(rows) > 1:
        return []
    if rows != [mean.n_rows]:
        evidence = f"the mean has {mean.n_rows} rows, its repeats have {rows[0]}"
        return [Finding("not the mean", mean.where, evidence, remedy)]
    plain = np.stack([one.sample for one in repeats]).astype(np.float64)
    deviations = plain - plain.mean(axis=1, keepdims=True)
    scaled = deviations / np.maximum(deviations.std(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    scores = {_typical(mean.sample, one): one for one in (deviations.mean(axis=0), scaled.mean(axis=0))}  # z-scored first, or not
    r = max((one for one in scores if one is not None), default=None)
    if r is None or r >= _MEAN:
        return []
    averaged = scores[r]
    found = {shift: _typical(*_shifted(mean.sample, averaged, shift)) for shift in _shifts(mean.n_rows)}
    best = max(found, key=lambda shift: found[shift] or -1.0, default=0)
    if best and (found[best] or 0.0) >= max(_SHIFTED, r):
        direction = "later" if best > 0 else "earlier"
        evidence = (
            f"the mean is that of its repeats {abs(best)} rows {direction}: their correlation is {found[best]:.2f} there and"
            f" {r:.2f} without a shift (median of voxels)"
        )
        return [Finding("shifted", mean.where, evidence, f"shift the mean by {-best} rows, or {remedy}")]
    evidence = f"the mean correlates with the mean of its {len(repeats)} repeats by {r:.2f} only (median of voxels)"
    return [Finding("not the mean", mean.where, evidence, remedy)]


def _shifts(n_rows: int) -> list[int]:
    return [shift for shift in range(-_SHIFTS, _SHIFTS + 1) if shift and n_rows - abs(shift) >= _ROWS]


def _shifted(one: Values, other: Values, shift: int) -> tuple[Values, Values]:
    """Rows of both where row ``k + shift`` of the first stands beside row ``k`` of the second."""
    return (one[shift:], other[: len(other) - shift]) if shift > 0 else (one[: len(one) + shift], other[-shift:])


def _typical(one: Values, other: Values) -> float | None:
    r_s = _correlations(one, other)
    return float(np.median(r_s)) if len(r_s) else None


def _correlations(one_ts: Values, other_ts: Values) -> NDArray[np.float64]:
    """Correlation over rows of each column that is finite and varies in both."""
    finite_s = np.isfinite(one_ts).all(axis=0) & np.isfinite(other_ts).all(axis=0)
    one, other = (values[:, finite_s].astype(np.float64) for values in (one_ts, other_ts))
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    norms = [np.sqrt((values**2).sum(axis=0)) for values in (one, other)]
    varies = (norms[0] > 0) & (norms[1] > 0)
    products = (one * other).sum(axis=0)[varies]
    return np.asarray(products / (norms[0] * norms[1])[varies])
