"""Lanczos resampling: from feature times (words, 50 Hz frames) to scan times, without a dense weight matrix.

Legend: o = old time, n = new time, c = column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import F64
from fastencode.devices import HOST
from fastencode.errors import InputError
from fastencode.kernels.lanczos import lanczos_columns
from fastencode.timing.device_columns import device_lanczos_columns
from fastencode.timing.times import Rows, check_finite, check_times, is_positive, rows_of

__all__ = ["LanczosStream", "lanczos"]


# Below this share of the weights' magnitude their sum is cancellation, and dividing by it would blow the row up.
CANCELLED = 1e-6


def lanczos(
    data: ArrayLike,
    old_times: ArrayLike,
    new_times: ArrayLike,
    *,
    lobes: float = 3,
    cutoff_mult: float = 1.0,
    normalize: bool = False,
    rectify: bool = False,
) -> Any:
    """Resample rows of data to new times with a Lanczos-windowed sinc.

    With the cutoff ``fc = cutoff_mult / mean(diff(new_times))`` and ``x = (new - old) * fc``, a row of the result is the sum of
    the data rows weighted by ``lobes * sin(pi x) * sin(pi x / lobes) / (pi x)**2`` (1 at x = 0, 0 beyond ±lobes).

    Parameters
    ----------
    data : array_like, shape (n_old, ...)
        One row for each old time; float32 or float64 (integers become float64). NumPy, or torch (without its gradient) or CuPy
        wherever they lie: on a card it is resampled there. Never written to.
    old_times : array_like, shape (n_old,)
        Seconds. Irregular, repeated and unordered times are all fine: the result is a sum over rows, whatever their order.
    new_times : array_like, shape (n_new,)
        Seconds, ascending. Irregular times are fine; the cutoff follows from their *mean* step, so resample each run on its own.
    lobes : float
        Half-width of the window, in units of 1 / fc.
    cutoff_mult : float
        Multiplies the cutoff; below 1 smooths more.
    normalize : bool
        Divide each row by the sum of its weights, which makes it a weighted mean: constant data stays constant. The published
        form does not (the default): its values grow with the number of samples inside the window. Rows with no sample in their
        window, or whose weights cancel to less than 1e-6 of their magnitude, are 0.
    rectify : bool
        Resample the negative and the positive part of the data separately: [negative part, positive part] along the last axis.

    Returns
    -------
    ndarray (torch or CuPy for such, on the same device), shape (n_new, ...)
        The data's floating dtype; sums are taken in float64. With ``rectify`` the last axis is twice as long ((n_new, 2) for 1-D
        data). Rows that no sample reaches are 0.

    Raises
    ------
    InputError
        If lengths disagree, a time or a value that is used is not finite, new times descend or are fewer than two (no step), or
        ``lobes`` or ``cutoff_mult`` is not positive.

    See Also
    --------
    LanczosStream : the same for data that arrive in pieces.

    References
    ----------
    C. E. Duchon (1979), "Lanczos filtering in one and two dimensions", Journal of Applied Meteorology 18, 1016-1022.
    """
    window = _Window.check(new_times, lobes, cutoff_mult, normalize, rectify)
    old_o = check_times(old_times, "old_times")
    rows = rows_of(data, len(old_o), "old_times")
    with rows.device.current(), rows.device.room_for("resampled data"):
        sums = window.sums(rows, len(window.new_n))
        window.add(rows, old_o, 0, sums)
        out = window.values(rows, sums)
        if not bool(rows.device.xp.all(rows.device.xp.isfinite(out))):
            check_finite(rows.data_oc, "data", rows.device)
    return rows.give(out)


class LanczosStream:
    """Lanczos resampling of data that arrive in pieces: rows are handed out as soon as nothing can change them.

    In any pieces, the rows are those of one call of :func:`lanczos` with everything, to the last bit. What is kept is one row
    of float64 sums for each new time whose window has begun and not ended, or that the last piece has completed.

    Parameters
    ----------
    new_times : array_like, shape (n_new,)
        Seconds, ascending: all of them, because the cutoff follows from their mean step.
    lobes, cutoff_mult, normalize, rectify
        As in :func:`lanczos`.

    Attributes
    ----------
    n_open : int
        Rows that are kept.

    Raises
    ------
    InputError
        If new times descend or are fewer than two, or ``lobes`` or ``cutoff_mult`` is not positive.

    Examples
    --------
    >>> stream = LanczosStream(numpy.arange(0.0, 6.0, 2.0), lobes=1)  # doctest: +SKIP
    >>> parts = [stream.add(data[:500], times[:500]), stream.add(data[500:], times[500:]), stream.finish()]  # doctest: +SKIP
    >>> numpy.concatenate(parts)  # lanczos(data, times, new_times, lobes=1)  # doctest: +SKIP
    """

    def __init__(
        self,
        new_times: ArrayLike,
        *,
        lobes: float = 3,
        cutoff_mult: float = 1.0,
        normalize: bool = False,
        rectify: bool = False,
    ) -> None:
        self._window = _Window.check(new_times, lobes, cutoff_mult, normalize, rectify)
        self._given = 0  # rows handed out
        self._latest = -np.inf
        self._first: Rows | None = None  # the first piece without its rows: what all others must be like
        self._sums: _Sums | None = None
        self._finished = False

    @property
    def n_open(self) -> int:
        """Rows whose sums are kept."""
        return 0 if self._sums is None else int(self._sums.sum_n.shape[0])

    def add(self, data: ArrayLike, old_times: ArrayLike) -> Any:
        """Add a piece.

        Parameters
        ----------
        data : array_like, shape (n_old, ...)
            As in :func:`lanczos`; possibly no rows. All pieces have the same columns, dtype and place.
        old_times : array_like, shape (n_old,)
            Seconds, none of them before the latest of earlier pieces; within a piece in any order.

        Returns
        -------
        array like the data, shape (n_ready, ...)
            The next rows of the result, those whose windows end before the latest time; often none.

        Raises
        ------
        InputError
            If the piece goes back in time, differs from the first, or holds a value that is not finite (even one that no new
            time is near to), or :meth:`finish` was called. The stream is then as before: the piece may be repaired and added.
        """
        old_o = check_times(old_times, "old_times")
        rows = rows_of(data, len(old_o), "old_times")
        self._check(rows, old_o)
        check_finite(rows.data_oc, "data", rows.device)
        window, device = self._window, rows.device
        with device.current(), device.room_for("sums of resampled data"):
            if self._first is None:
                none = device.zeros(0, int(rows.data_oc.shape[1]), dtype=rows.dtype)
                self._first, self._sums = rows._replace(data_oc=none), window.sums(rows, 0)
            if len(old_o) == 0:
                return self._hand_out(self._given)
            self._latest = float(old_o.max())
            begun = int(np.searchsorted(window.lower_n, self._latest, side="right"))
            self._sums = self._opened(begun)
            window.add(rows, old_o, self._given, self._sums)
            # A later piece may begin with the latest time once more, so a window that ends there is still open.
            return self._hand_out(int(np.searchsorted(window.upper_n, self._latest)))

    def finish(self) -> Any:
        """The rest of the rows: no more data will come.

        Returns
        -------
        array like the data, shape (n_new - those handed out, ...)

        Raises
        ------
        InputError
            If no piece was added, which leaves the number of columns open, or it was called before.
        """
        if self._first is None:
            raise InputError("finish() before any piece: add at least one, which may have no rows, to say what columns there are")
        if self._finished:
            raise InputError("finish() was called before: make a new LanczosStream for other data")
        n_new = len(self._window.new_n)
        with self._first.device.current(), self._first.device.room_for("sums of resampled data"):
            self._sums = self._opened(n_new)
            self._finished = True
            return self._hand_out(n_new)

    def _check(self, rows: Rows, old_o: F64) -> None:
        if self._finished:
            raise InputError("a piece after finish(): make a new LanczosStream for other data")
        if self._first is not None and _likeness(rows) != _likeness(self._first):
            told = f"this piece is {_likeness(rows)}, the first was {_likeness(self._first)}"
            raise InputError(f"{told}: convert it, or make a new LanczosStream")
        early = old_o < self._latest
        if early.any():
            row = int(np.argmax(early))
            raise InputError(
                f"old_times[{row}] is {old_o[row]}, before {self._latest} in an earlier piece: add pieces in the order of time, "
                "or resample everything at once with lanczos()"
            )

    def _opened(self, upto: int) -> _Sums:
        """The sums with zeros for those rows up to one of them that are new."""
        assert self._first is not None and self._sums is not None
        more = upto - self._given - self.n_open
        if more <= 0:
            return self._sums
        fresh = self._window.sums(self._first, more)
        return _Sums(*(self._first.device.concatenate([kept, new]) for kept, new in zip(self._sums, fresh, strict=True)))

    def _hand_out(self, upto: int) -> Any:
        """Rows up to one of them, which are then forgotten."""
        assert self._first is not None and self._sums is not None
        count = max(0, upto - self._given)
        out = self._window.values(self._first, _Sums(*(part[:count, ...] for part in self._sums)))
        if count:  # a copy of what stays, because a view would keep what went
            self._sums = _Sums(*(self._first.device.concatenate([part[count:, ...]]) for part in self._sums))
            self._given += count
        return self._first.give(out)


class _Sums(NamedTuple):
    """What some rows have so far: their values [negative | positive parts], weights, and the weights' magnitudes; float64."""

    out_nc: Any
    sum_n: Any
    gross_n: Any


@dataclass(frozen=True)
class _Window:
    """All of a resampling but the data: new times, the reach of each, and the settings."""

    new_n: F64
    lower_n: F64
    upper_n: F64
    cutoff: float
    lobes: float
    normalize: bool
    rectify: bool

    @classmethod
    def check(cls, new_times: ArrayLike, lobes: float, cutoff_mult: float, normalize: bool, rectify: bool) -> _Window:
        new_n = check_times(new_times, "new_times")
        for name, value in (("lobes", lobes), ("cutoff_mult", cutoff_mult)):
            if not (is_positive(value) and np.isfinite(value)):
                raise InputError(f"{name}={value!r}: give a positive number")
        cutoff = float(cutoff_mult / _mean_step(new_n)) if len(new_n) else 1.0
        reach = lobes / cutoff
        return cls(new_n, new_n - reach, new_n + reach, cutoff, float(lobes), bool(normalize), bool(rectify))

    def sums(self, rows: Rows, n: int) -> _Sums:
        """Zeros for ``n`` rows, where the data lie."""
        device, width = rows.device, int(rows.data_oc.shape[1]) * (2 if self.rectify else 1)
        return _Sums(*(device.zeros(*shape, dtype=np.float64) for shape in ((n, width), (n,), (n,))))

    def add(self, rows: Rows, old_o: F64, begin: int, sums: _Sums) -> None:
        """Add data to the sums of rows from ``begin`` on."""
        some = slice(begin, begin + int(sums.sum_n.shape[0]))
        order_o = np.argsort(old_o, kind="stable")
        old_o = old_o[order_o]
        first_n, last_n = np.searchsorted(old_o, self.lower_n[some]), np.searchsorted(old_o, self.upper_n[some], side="right")
        arguments = (rows.data_oc, order_o, old_o, self.new_n[some], first_n, last_n, self.cutoff, self.lobes, self.rectify)
        if rows.device is HOST:
            lanczos_columns(*arguments, *sums)
        else:
            device_lanczos_columns(rows.device, *arguments, *sums)

    def values(self, rows: Rows, sums: _Sums) -> Any:
        """Finished sums as rows of the result, (n, ...) in the data's dtype."""
        device, xp = rows.device, rows.device.xp
        out_nc, n = sums.out_nc, int(sums.sum_n.shape[0])
        if self.normalize:
            usable_n = xp.abs(sums.sum_n) > CANCELLED * sums.gross_n
            one_n = xp.ones_like(sums.sum_n)
            scale_n = xp.where(usable_n, one_n / xp.where(usable_n, sums.sum_n, one_n), xp.zeros_like(one_n))
            out_nc = out_nc * scale_n[:, None]
        out_nc = device.cast(out_nc, rows.dtype)
        if not self.rectify:
            return xp.reshape(out_nc, (n, *rows.shape))
        *lead, last = rows.shape or (1,)
        parts = xp.moveaxis(xp.reshape(out_nc, (n, 2, *lead, last)), 1, -2)
        return xp.reshape(parts, (n, *lead, 2 * last))


def _likeness(rows: Rows) -> str:
    """What all pieces of a stream have in common, in words."""
    return f"rows of shape {rows.shape}, {rows.dtype}, {rows.library} on {rows.device.name}"


def _mean_step(new_n: NDArray[np.float64]) -> float:
    steps = np.diff(new_n)
    if len(steps) == 0:
        raise InputError("new_times has one entry: the cutoff follows from the step between new times, so give at least two")
    if (steps < 0).any():
        row = int(np.argmax(steps < 0))
        raise InputError(
            f"new_times descends from {new_n[row]} to {new_n[row + 1]} at index {row + 1}: sort it, and resample run by run"
        )
    step = float((new_n[-1] - new_n[0]) / len(steps))
    if step <= 0:
        raise InputError(f"new_times are all {new_n[0]}: the cutoff follows from the step between them, which is 0")
    return step
