"""The design side of a ridge problem, checked once at the door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.arguments import check_flag
from fastencode.arrays import as_numpy, check_device, float_dtype, library_of, to_host
from fastencode.delayed import Delayed, Matrix, pick
from fastencode.devices import device_of, find_device, parse_device
from fastencode.errors import DeviceError, InputError
from fastencode.limits import parse_memory
from fastencode.solve.given.folds import Fold, check_gap, check_runs, resolve_folds

__all__ = ["DEFAULT_ALPHAS", "PRECISIONS", "Problem", "check_alphas", "check_design", "check_values", "host_matrix"]

PRECISIONS = ("exact", "fast")


class _Default(np.ndarray[Any, np.dtype[np.float64]]):
    """An array that signatures show by its name."""

    def __repr__(self) -> str:
        return "DEFAULT_ALPHAS" if self is DEFAULT_ALPHAS else repr(np.asarray(self))


DEFAULT_ALPHAS = np.logspace(0, 6, 20).view(_Default)
DEFAULT_ALPHAS.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that does not depend on the responses.

    Attributes
    ----------
    X : (t, p) float32 or float64
        The design; shares memory with the input where its dtype allows. Never written to. Delayed copies are not made.
    folds : list of (train, test)
    alphas : (A,) float64
        Increasing, without duplicates: weights on ‖b‖².
    fit_intercept : bool
    precision : {"exact", "fast"}
    device : str
        Where responses are computed: ``"cpu"``, or such as ``"cuda:0"``.
    asked : str or None
        The device that was asked for by name: ``"cuda"`` is any of them.
    library : {"numpy", "torch", "cupy"}
        What X came in as, and so what results go out as.
    home : str
        Where X lay: ``"cpu"``, or such as ``"cuda:0"``. Here it is in the host's memory, where plans are made.
    memory : int or None
        Bytes of working memory.
    weights : (t,) float64 or None
        Positive sample weights.
    kept : (t,) int array or None
        Which rows of the responses belong to the rows of X, where rows of weight zero were left out.
    n_given : int
        Rows as they were given, those of weight zero included.
    """

    X: Matrix
    folds: list[Fold]
    alphas: NDArray[np.float64]
    fit_intercept: bool
    precision: str
    device: str
    asked: str | None
    library: str
    home: str
    memory: int | None
    weights: NDArray[np.float64] | None
    kept: NDArray[np.intp] | None
    n_given: int

    @classmethod
    def check(
        cls,
        X: Any,
        *,
        alphas: Any = DEFAULT_ALPHAS,
        cv: Any = 5,
        runs: Any = None,
        gap: int = 0,
        fit_intercept: bool = True,
        precision: str = "exact",
        device: Any = None,
        memory: Any = None,
        sample_weight: Any = None,
        response_dtype: np.dtype[Any] | None = None,
        responses: Any = None,
        none_allowed: bool = False,
    ) -> Problem:
        """Check every argument; float64 responses make a float64 problem, and a splitter gets ``responses`` as y.

        ``cv=None`` is a problem without folds where ``none_allowed``, an error otherwise.

        Raises ``InputError`` or ``DeviceError``.
        """
        asked, where = _place(X, device)
        if precision not in PRECISIONS:
            raise InputError(f"precision={precision!r}; pass one of {', '.join(map(repr, PRECISIONS))}")
        library = library_of(X)
        array = host_matrix(X)
        given = len(array) if array.ndim else 0
        weights, kept = (None, None) if sample_weight is None else _check_weights(sample_weight, given)
        if kept is not None:
            array = pick(array, kept)
        design = check_design(array, float_dtype(array.dtype, array.dtype if response_dtype is None else response_dtype))
        if len(design) < 2:
            raise InputError(f"X has {len(design)} row; cross-validation needs at least 2")
        codes = None if runs is None else check_runs(runs, given)
        return cls(
            X=design,
            folds=resolve_folds(cv, given, codes, kept, gap=check_gap(gap), responses=responses, none_allowed=none_allowed),
            alphas=check_alphas(alphas),
            fit_intercept=check_flag("fit_intercept", fit_intercept),
            precision=precision,
            device=where,
            asked=asked,
            library=library,
            home="cpu" if (there := device_of(X)) is None else there.name,
            memory=parse_memory(memory),
            weights=weights,
            kept=kept,
            n_given=given,
        )


def _place(X: Any, device: Any) -> tuple[str | None, str]:
    """The device that was asked for, and the one to compute on: where X lies, unless another one is named."""
    asked, there = parse_device(device), device_of(X)
    if there is None:
        library = "torch" if library_of(X) == "torch" else "cupy"
        return asked, check_device(asked) if asked in (None, "cpu") else find_device(str(asked), library).name
    if asked not in (None, "cuda", there.name):
        raise DeviceError(f"X lies on {there.name} ({there.library}) and device={asked!r}; move X there, or pass device=None")
    return asked, there.name


def _check_weights(sample_weight: Any, n: int) -> tuple[NDArray[np.float64] | None, NDArray[np.intp] | None]:
    """Positive weights of the rows kept, and which rows those are (None if all)."""
    weights = to_host(sample_weight, "sample_weight").astype(np.float64)
    if weights.shape != (n,):
        raise InputError(f"sample_weight has shape {weights.shape} and X has {n} rows; pass one weight for each row")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise InputError(f"sample_weight holds {weights[bad[0]]} at row {int(bad[0])}; weights must be finite and not negative")
    kept = np.flatnonzero(weights)
    if not kept.size:
        raise InputError("sample_weight is zero for every row; nothing would be left to fit")
    return weights[kept], None if kept.size == n else kept


def host_matrix(X: Any) -> Matrix:
    """X in the host's memory; copies that are not made stay so."""
    return X if isinstance(X, Delayed) else to_host(X, "X")


def check_design(X: Matrix, dtype: np.dtype[Any], n_features: int | None = None) -> Matrix:
    """X as a finite 2-D matrix of the dtype, or ``InputError`` naming what and where (before any delays)."""
    if X.ndim != 2:
        hint = "pass (time, features)"
        if X.ndim == 1:
            one_row = n_features not in (None, 1) and len(X) == n_features
            hint = "pass X[None] for a single row" if one_row else "pass X[:, None] for a single feature"
            if n_features not in (None, 1, len(X)):
                hint = f"pass (time, {n_features}), as the fit has {n_features} features"
        raise InputError(f"X has shape {X.shape}; {hint}")
    if X.shape[1] == 0:
        raise InputError(f"X has shape {X.shape}: no features; pass at least one column")
    if n_features is not None and X.shape[1] != n_features:
        raise InputError(f"X has {X.shape[1]} features and the fit has {n_features}; pass the same features in the same order")
    if isinstance(X, Delayed):
        return X.checked(lambda base, name: check_values(base, dtype, name))
    return check_values(X, dtype, "X")


def check_values(X: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """X in the dtype; ``InputError`` where a value is not finite, or no longer is in a narrower dtype."""
    if X.dtype.kind == "f":
        _refuse_infinite(X, name, "drop those rows or fill the values")
    with np.errstate(over="ignore"):
        out = np.asarray(X, dtype=dtype)
    if X.dtype.kind == "f" and X.dtype.itemsize > out.dtype.itemsize:
        _refuse_infinite(
            out, f"in {dtype}, {name}", f"the largest number of {dtype} is {np.finfo(dtype).max:.2g}: rescale {name}"
        )
    return out


def _refuse_infinite(X: NDArray[Any], name: str, advice: str) -> None:
    # A sum is finite only if every value is (or it overflows, which the exact look below clears up): one pass, no n x p mask.
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(X.sum(dtype=np.float64))
    if suspicious:
        bad = np.argwhere(~np.isfinite(X))
        if len(bad):
            row, column = map(int, bad[0])
            raise InputError(
                f"{name} holds {len(bad)} values that are NaN or infinite, the first ({X[row, column]}) at row {row}, "
                f"column {column}; {advice}"
            )


def check_alphas(alphas: Any) -> NDArray[np.float64]:
    """Penalties as increasing float64 without duplicates, or ``InputError`` naming the one that is not positive and finite."""
    if alphas is None:
        raise InputError("alphas=None; pass positive penalties such as numpy.logspace(0, 6, 20), or leave alphas out for these")
    grid = np.atleast_1d(as_numpy(alphas, "alphas")).astype(np.float64)
    if grid.ndim != 1 or grid.size == 0:
        raise InputError(f"alphas has shape {grid.shape}; pass at least one penalty, shape (A,)")
    bad = ~(np.isfinite(grid) & (grid > 0))
    if bad.any():
        raise InputError(f"alphas holds {grid[bad][0]}; every penalty must be positive and finite")
    return np.unique(grid)
