"""The design, folds, penalties and options of a ridge problem, checked once (docs/solver.md, 1 has the symbols)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_flag
from fastencode.arrays import F64, as_numpy, check_device, float_dtype, library_of, to_host
from fastencode.delayed import Delayed, Matrix, pick
from fastencode.devices import HOST, Device, DeviceLike, device_of, find_device, parse_device
from fastencode.errors import DeviceError, InputError
from fastencode.limits import parse_memory
from fastencode.solve.given.folds import CrossValidator, Fold, check_gap, check_runs, resolve_folds

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
    """All of a problem but its responses.

    Attributes
    ----------
    X : (t, p) float32 or float64
        The design. It shares memory with the input where the dtype allows, and is never written to. Delayed copies are not made.
    folds : list of (train, test)
        An empty list where penalties are given, or chosen without folds (``gcv``).
    alphas : (A,) float64
        Increasing, without duplicates: weights on ‖b‖².
    given : (v,) or (1,) int array, or None
        Where penalties are given (``cv=None``): which of ``alphas`` each voxel has, or all of them.
    left_out : (v,) bool array or None
        Voxels whose given penalty is NaN: they are skipped, whatever their responses hold.
    fit_intercept : bool
    precision : {"exact", "fast"}
    device : str
        Where responses are scored: ``"cpu"``, or a name such as ``"cuda:0"``.
    asked : str or None
        The device that the caller named; ``"cuda"`` stands for any card.
    library : {"numpy", "torch", "cupy"}
        The library of the X that was passed, and so of the results.
    home : str
        Where the X that was passed lies: ``"cpu"``, or a name such as ``"cuda:0"``. ``X`` itself is in the host's memory.
    memory : int or None
        Bytes of working memory; None for no limit.
    weights : (t,) float64 or None
        Positive sample weights.
    kept : (t,) int array or None
        Numbers of the rows of the responses that belong to the rows of X. None if all do: no sample weight is zero.
    n_given : int
        Number of rows that were passed, with those of weight zero.
    """

    X: Matrix
    folds: list[Fold]
    alphas: F64
    given: NDArray[np.intp] | None
    left_out: NDArray[np.bool_] | None
    fit_intercept: bool
    precision: str
    device: str
    asked: str | None
    library: str
    home: str
    memory: int | None
    weights: F64 | None
    kept: NDArray[np.intp] | None
    n_given: int

    @property
    def gcv(self) -> bool:
        """Whether penalties are chosen by generalised cross-validation."""
        return not self.folds and self.given is None

    def place(self) -> Device:
        """The device to compute on: ``HOST`` for the CPU."""
        return HOST if self.device == "cpu" else find_device(self.device, self.library)

    @classmethod
    def check(
        cls,
        X: ArrayLike,
        *,
        alphas: ArrayLike = DEFAULT_ALPHAS,
        cv: CrossValidator = 5,
        runs: ArrayLike | None = None,
        gap: int = 0,
        fit_intercept: bool = True,
        precision: str = "exact",
        device: DeviceLike = None,
        memory: int | str | None = None,
        sample_weight: ArrayLike | None = None,
        response_dtype: np.dtype[Any] | None = None,
        responses: ArrayLike | None = None,
        may_be_given: bool = False,
        may_be_gcv: bool = False,
    ) -> Problem:
        """Check every argument; float64 responses make a float64 problem, and a splitter gets ``responses`` as y.

        With ``may_be_given``, ``cv=None`` says that ``alphas`` are each voxel's penalty; else it is an error. So is ``"gcv"``
        (generalised cross-validation, which has no folds) without ``may_be_gcv``.

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
        codes, rows = None if runs is None else check_runs(runs, given), check_gap(gap)
        are_given = may_be_given and cv is None
        without_folds = are_given or (may_be_gcv and isinstance(cv, str) and cv == "gcv")
        if without_folds and rows:
            raise InputError(f"cv={cv!r} holds no rows out, so gap={rows} does not apply; leave it out, or pass folds")
        left_out = _left_out(alphas) if are_given else None
        alphas = alphas if left_out is None else np.where(left_out, 1.0, to_host(alphas, "alphas"))
        grid = check_alphas(alphas)
        return cls(
            X=design,
            folds=[] if without_folds else resolve_folds(cv, given, codes, kept, gap=rows, responses=responses),
            alphas=grid,
            given=_given(alphas, grid) if are_given else None,
            left_out=left_out,
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


def _place(X: ArrayLike, device: DeviceLike) -> tuple[str | None, str]:
    """(device that the caller named or None, device to compute on: the one where X lies, unless another is named)."""
    asked, there = parse_device(device), device_of(X)
    if there is None:
        library = "torch" if library_of(X) == "torch" else "cupy"
        return asked, check_device(asked) if asked in (None, "cpu") else find_device(str(asked), library).name
    if asked not in (None, "cuda", there.name):
        raise DeviceError(f"X lies on {there.name} ({there.library}) and device={asked!r}; move X there, or pass device=None")
    return asked, there.name


def _check_weights(sample_weight: ArrayLike, n: int) -> tuple[F64 | None, NDArray[np.intp] | None]:
    """(positive weights of the rows kept, numbers of these rows or None for all)."""
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


def _left_out(alphas: ArrayLike) -> NDArray[np.bool_] | None:
    """Voxels whose given penalty is NaN, as of those that an earlier fit skipped; None if there are none."""
    values = as_numpy(alphas, "alphas") if device_of(alphas) is None else to_host(alphas, "alphas")
    found = np.isnan(values) if values.dtype.kind == "f" and values.ndim == 1 else np.zeros(1, dtype=bool)
    return found if found.any() and not found.all() else None


def _given(alphas: ArrayLike, grid: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which of the grid each given penalty is."""
    given = np.atleast_1d(as_numpy(alphas, "alphas")).astype(np.float64)
    if np.array_equal(given, DEFAULT_ALPHAS):
        raise InputError(
            "cv=None takes alphas as the penalty of each voxel, and alphas is the default grid; pass one penalty for each voxel, "
            "shape (v,), or one for all; or a cv to choose by"
        )
    return np.searchsorted(grid, given)


def host_matrix(X: ArrayLike) -> Matrix:
    """X in the host's memory. Delayed copies are not made."""
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
    """X in the dtype. ``InputError`` where a value is not finite, or overflows in a narrower dtype."""
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
    # A sum that is finite has finite terms only: one pass, without an n x p mask. A sum that is not may have overflowed: look.
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


def check_alphas(alphas: ArrayLike) -> F64:
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
