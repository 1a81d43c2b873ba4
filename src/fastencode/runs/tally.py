"""The progress line of a command: how many stages are finished, and how long the others will take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

__all__ = ["Tally", "duration"]


class Tally:
    """Counts stages by kind, which is the first part of their names: "fits" of ``fits/model/A/layer-00``.

    Parameters
    ----------
    names : sequence of str
        All stages.
    reused : name → seconds
        Stages that were finished before, and how long they took.
    jobs : int, optional
        How many run at the same time. None if unknown: the remaining time is then not shown.
    """

    def __init__(self, names: Sequence[str], reused: Mapping[str, float], jobs: int | None) -> None:
        self._names, self._reused, self._jobs = names, reused, jobs
        self._made: dict[str, float] = {}
        self._began = time.monotonic()

    def made(self, name: str, seconds: float) -> None:
        """Count a stage that is now finished."""
        self._made[name] = seconds

    def text(self, failed: Collection[str]) -> str:
        """The progress line, such as "12 of 96 fits, 3 reused, about 14 min left"; at the end, how long all took."""
        done = {*self._made, *self._reused}
        totals, finished = Counter(map(_kind, self._names)), Counter(map(_kind, done))
        parts = [f"{finished[kind]} of {total} {kind}" if total > 1 else kind for kind, total in totals.items()]
        if self._reused:
            parts.append("reused" if len(self._names) == 1 else f"{len(self._reused)} reused")
        missed = [name for name in self._names if name in failed]
        if missed:
            parts.append("failed" if len(self._names) == 1 else f"{len(missed)} not made")
        left = Counter(_kind(name) for name in self._names if name not in done and name not in failed)
        if not left and self._made:
            parts.append(f"took {duration(time.monotonic() - self._began)}")
        elif left and self._made and self._jobs is not None:
            parts.append(f"about {duration(self._expected(left) / self._jobs)} left")
        return ", ".join(parts)

    def _expected(self, left: Mapping[str, int]) -> float:
        """Expected seconds of the remaining stages, from the mean of finished stages of the same kind, or of all kinds."""
        known = self._made | {name: seconds for name, seconds in self._reused.items() if name not in self._made}

        def mean(kind: str) -> float:
            own = [seconds for name, seconds in known.items() if _kind(name) == kind] or list(known.values())
            return sum(own) / len(own)

        return sum(count * mean(kind) for kind, count in left.items())


def _kind(name: str) -> str:
    return name.partition("/")[0]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
