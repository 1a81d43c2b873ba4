"""Is this data? General checks of responses before anything is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import as_numpy
from fastencode.errors import InputError

__all__ = ["ResponseCheck", "check_responses", "constant_targets"]


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
    responses = _responses(Y)
    with np.errstate(invalid="ignore"):
        spread = np.ptp(responses, axis=0)
        rounding = 4 * np.finfo(responses.dtype).eps * np.abs(responses).max(axis=0)
    constant: NDArray[np.bool_] = spread <= rounding  # False where either is NaN
    return constant & np.isfinite(responses).all(axis=0)


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
    responses = _responses(Y)
    constant = constant_targets(responses)
    zero = (responses == 0).all(axis=0)
    return ResponseCheck(
        name=name,
        n_targets=responses.shape[1],
        zero=np.flatnonzero(zero),
        constant=np.flatnonzero(constant & ~zero),
        not_finite=np.flatnonzero(~np.isfinite(responses).all(axis=0)),
    )


def _responses(Y: ArrayLike) -> NDArray[np.floating]:
    responses = as_numpy(Y, "responses")
    if responses.ndim != 2 or not len(responses):
        raise InputError(f"responses have shape {responses.shape}: give time × targets with at least one row")
    return responses if np.issubdtype(responses.dtype, np.floating) else responses.astype(np.float64)
