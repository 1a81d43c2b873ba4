"""What the fits of all solvers share: file, scores of new responses, versions.

Legend: t = time, v = voxels, s = scores of one voxel (one, or one for each band).
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode import __version__
from fastencode.arrays import ResultArray, check_device, column_names, export, float_dtype, to_host
from fastencode.delayed import Delayed
from fastencode.devices import Array, Device, DeviceLike
from fastencode.errors import InputError
from fastencode.files import whole_file
from fastencode.solve.given.targets import Targets, check_nan_targets

__all__ = ["Fit", "dtype_in", "versions"]

_LAYOUT = 1
# Voxels that are scored at once, where each has one score.
_SCORE_TILE = 1024


class Fit:
    """Base of ``RidgeFit`` and ``BandedFit``, which are frozen dataclasses."""

    # Names of fields: arrays that every such fit has, arrays that may be None, tuples of arrays, tuples of text.
    _arrays: ClassVar[tuple[str, ...]]
    _maybe: ClassVar[tuple[str, ...]] = ()
    _lists: ClassVar[tuple[str, ...]] = ()
    _texts: ClassVar[tuple[str, ...]] = ()

    scoring: str
    stats: dict[str, Any]
    alpha: ResultArray
    alphas: ResultArray
    best_score: ResultArray
    at_edge: ResultArray

    @property
    def _one(self) -> bool:
        """Whether the fit is of a single series."""
        return len(self.alpha.shape) == 0

    def __str__(self) -> str:
        """What was found, on several lines; ``repr`` is the first of them."""
        edge_v, alpha_v = np.atleast_1d(to_host(self.at_edge, "at_edge")), self._fitted("alpha")
        low, high, skipped = int((edge_v < 0).sum()), int((edge_v > 0).sum()), int(self._skipped().sum())
        lines, stats = [repr(self)[1:-1]], self.stats
        given = self.best_score is None or bool(np.isnan(to_host(self.best_score, "best_score")).all())
        if alpha_v.size and not given:
            score_v = self._fitted("best_score")
            best = int(np.nanargmax(np.atleast_1d(to_host(self.best_score, "best_score"))))
            lines.append(
                f"  held-out {self.scoring}: median {np.median(score_v):.4g}, best {score_v.max():.4g} (voxel {best}), "
                f"middle half {np.quantile(score_v, 0.25):.4g} to {np.quantile(score_v, 0.75):.4g}"
            )
        if alpha_v.size:
            lines.append(f"  penalties: {_counted(alpha_v)}")
            lines += self._found()
        edges = "" if given else f"{low} at the smallest penalty of the grid, {high} at the largest, "
        constant = int(stats.get("constant_voxels", 0))
        if skipped or constant or not given:
            lines.append(f"  voxels: {edges}{constant} constant, {skipped} skipped because they held NaN")
        seconds = stats.get("seconds", {})
        if "fit" in seconds:
            wall = {name: value for name, value in seconds.items() if "all threads" not in name}
            took = ", ".join(f"{name} {value:.2g} s" for name, value in wall.items())
            lines.append(f"  took {took}; {stats.get('strategy')}, on {stats.get('device')}")
        return "\n".join(lines)

    def _found(self) -> list[str]:
        """Lines on what only this kind of fit finds."""
        return []

    def _fitted(self, name: str) -> NDArray[Any]:
        """Values (v,) or (b, v) of the voxels that were not skipped."""
        values = np.asarray(to_host(getattr(self, name), name), dtype=np.float64)
        return np.asarray((values[..., None] if self._one else values)[..., ~self._skipped()])

    def _skipped(self) -> NDArray[np.bool_]:
        """(v,): voxels that the fit skipped, because they held NaN or infinite values."""
        return np.isnan(np.atleast_1d(to_host(self.alpha, "alpha")))

    def _aligned(self, X: Any) -> Any:
        """X with the columns of the fit in their order, where both have names: those of a data frame."""
        names, wanted = column_names(X), self.stats.get("feature_names")
        if names is None or wanted is None or names == wanted:
            return X
        if sorted(names) != sorted(wanted):
            lacking = [name for name in wanted if name not in names] or [name for name in names if name not in wanted] or names
            raise InputError(
                f"X has other columns than the fit, {lacking[0]!r} among those that differ; pass the same columns, in any order"
            )
        return X.iloc[:, [names.index(name) for name in wanted]]

    def _checked_targets(self, Y: ArrayLike, n_rows: int) -> Targets:
        """Responses to score, or ``InputError`` where they do not fit the rows of X or the voxels of the fit."""
        if n_rows == 0:
            raise InputError("X has no rows; pass at least one to score on")
        targets, n_voxels = Targets.check(Y, n_rows), len(self._skipped())
        if targets.n_voxels != n_voxels:
            raise InputError(f"Y has {targets.n_voxels} voxels and the fit has {n_voxels}; pass the same voxels")
        return targets

    def _score_tiles(
        self,
        device: Device,
        targets: Targets,
        dtype: np.dtype[Any],
        count: int,
        score: Callable[[Any, slice], Array],
        nan_targets: str | None,
    ) -> Array:
        """Scores (s, v) of a dtype, on the device: ``score(observed_tv, here)`` gives those of a tile, (w,) or (s, w).

        NaN for voxels that the fit skipped, and where ``nan_targets`` says so, for those whose responses hold NaN here.
        """
        if nan_targets is None:
            nan_targets = self.stats.get("nan_targets", "skip" if self.stats.get("skipped_voxels") else "raise")
        skip, xp, wide = check_nan_targets(nan_targets), device.xp, float_dtype(dtype, targets.dtype)
        with device.current(), np.errstate(all="ignore"):
            scores = device.empty(count, targets.n_voxels, dtype=dtype)
            bad_v, lost_v = (device.empty(targets.n_voxels, dtype=bool) for _ in range(2))
            width = max(64, _SCORE_TILE // count)
            for first, slab in targets.slabs(width):
                for start in range(0, slab.shape[1], width):
                    observed = slab[:, start : min(start + width, slab.shape[1])]
                    observed = device.cast(device.put(observed) if targets.device is None else observed, wide)
                    here = slice(first + start, first + start + observed.shape[1])
                    bad_v[here] = ~xp.all(xp.isfinite(observed), axis=0)
                    scores[:, here] = device.cast(score(observed, here), dtype)
                    lost_v[here] = ~xp.all(xp.isfinite(scores[:, here]), axis=0)
            skipped = self._skipped()
            bad, lost = device.get(bad_v) & ~skipped, device.get(lost_v)
            if bad.any() and not skip:
                targets.refuse(bad)
            unscored = skipped | bad
            if (lost & ~unscored).any():
                raise InputError(
                    f"X or Y holds values too large to score in {dtype}, the first in voxel {int((lost & ~unscored).argmax())}; "
                    "rescale both"
                )
            if unscored.any():
                nan = xp.full_like(scores[:1, :1], float("nan"))
                scores = xp.where(device.put(unscored)[None, :], nan, scores)
            return scores

    def _check_predicted(self, device: Device, predicted_tv: Array) -> None:
        """``InputError`` if a prediction for a voxel that the fit did not skip is not finite."""
        lost = ~device.get(device.xp.all(device.xp.isfinite(predicted_tv), axis=-2)) & ~self._skipped()
        if lost.any():
            voxel = int(np.atleast_2d(lost).any(axis=0).argmax())
            raise InputError(
                f"predictions are too large for {dtype_in(predicted_tv)}, the first for voxel {voxel}; X holds values far beyond "
                "those of the fit: give it the same units"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to an HDF5 file (data sets and JSON attributes, no pickle), whole or not at all.

        Parameters
        ----------
        path : path-like
            Replaced if it exists; its folder must exist.

        Raises
        ------
        InputError
            If the folder does not exist.
        """
        import h5py  # 0.2 s to import: only when a file is touched

        with whole_file(path) as partial, h5py.File(partial, "w") as file:
            file.attrs["kind"], file.attrs["layout"] = f"fastencode.{type(self).__name__}", _LAYOUT
            file.attrs["scoring"], file.attrs["stats"] = self.scoring, json.dumps(self.stats)
            for name in self._texts:
                file.attrs[name] = json.dumps(getattr(self, name))
            for name in (*self._arrays, *self._maybe):
                if (array := getattr(self, name)) is not None:
                    file[name] = np.asarray(array) if isinstance(array, Delayed) else to_host(array, name)
            for name in self._lists:
                for i, array in enumerate(getattr(self, name)):
                    file[f"{name}/{i}"] = array

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: DeviceLike = None) -> Self:
        """Read a fit that :meth:`save` wrote; its arrays are NumPy, whatever they were when saved, unless a device is named.

        Parameters
        ----------
        path : path-like
        device : None, "cpu", "cuda" or such as "cuda:1"
            Where its arrays are put: on a CUDA device they are CuPy's, or torch's where there is no CuPy.

        Raises
        ------
        InputError
            If the file is not such a fit, or lacks a part of it.
        DeviceError
            If the device does not exist or cannot be used.
        """
        where = check_device(device)
        library = "cupy" if where != "cpu" else "numpy"
        with _opened(path, cls) as file:
            missing = [name for name in ("scoring", "stats", *cls._texts) if name not in file.attrs]
            missing += [name for name in cls._arrays if name not in file]
            if missing:
                raise InputError(
                    f"{os.fspath(path)!r} lacks {', '.join(map(repr, missing))} of a {cls.__name__}; fit and save it again"
                )
            try:
                parts: dict[str, Any] = {
                    name: export(file[name][()], library, where) for name in (*cls._arrays, *cls._maybe) if name in file
                }
                parts |= {name: None for name in cls._maybe if name not in file}
                parts |= {name: tuple(file[f"{name}/{i}"][()] for i in range(len(file.get(name, ())))) for name in cls._lists}
                parts |= {name: tuple(json.loads(file.attrs[name])) for name in cls._texts}
                parts |= {"scoring": str(file.attrs["scoring"]), "stats": json.loads(file.attrs["stats"])}
                return cls(**parts)
            except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
                raise InputError(f"{os.fspath(path)!r} is damaged ({error}); fit and save it again") from error


def _counted(alpha_v: NDArray[np.float64]) -> str:
    """Penalties with the number of voxels that chose each; quantiles where there are many."""
    values, counts = np.unique(alpha_v, return_counts=True)
    if len(values) <= 6:
        return ", ".join(
            f"{value:.4g} ({count} voxel{'' if count == 1 else 's'})" for value, count in zip(values, counts, strict=True)
        )
    low, middle, high = np.quantile(alpha_v, [0.05, 0.5, 0.95])
    return f"median {middle:.4g}, 5 % {low:.4g}, 95 % {high:.4g}, {len(values)} different ones"


def dtype_in(array: Array) -> np.dtype[Any]:
    """NumPy's dtype of an array of any library."""
    return np.dtype(str(array.dtype).removeprefix("torch."))


@contextmanager
def _opened(path: str | os.PathLike[str], kind: type) -> Iterator[Any]:
    """The open file of a fit; ``InputError`` for another file."""
    import h5py  # 0.2 s to import: only when a file is touched

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"there is no file {os.fspath(path)!r}") from None
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r} is not an HDF5 file ({error})") from error
    with file:
        name = kind.__name__
        if file.attrs.get("kind") != f"fastencode.{name}":
            raise InputError(f"{os.fspath(path)!r} is not a saved {name}; pass a file that {name}.save wrote")
        if file.attrs.get("layout") != _LAYOUT:
            raise InputError(f"{os.fspath(path)!r} has layout {file.attrs.get('layout')}, this version reads {_LAYOUT}")
        yield file


def versions() -> dict[str, str]:
    """What a fit's ``stats`` say it was made with."""
    return {"fastencode": __version__, "numpy": np.__version__, "python": platform.python_version()}
