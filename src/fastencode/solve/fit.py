"""What a ridge fit found, and what can be done with it.

Legend: t = time, p = features, v = voxels, a = penalties.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastencode.arrays import as_numpy, check_device, export, library_of
from fastencode.errors import InputError
from fastencode.files import whole_file
from fastencode.solve.problem import check_design
from fastencode.solve.scores import check_scoring, column_moments, score_moments
from fastencode.solve.targets import Targets

__all__ = ["RidgeFit"]

_KIND = "fastencode.RidgeFit"
_LAYOUT = 1
_ARRAYS = ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge")
_SCORE_TILE = 1024


@dataclass(frozen=True, eq=False, repr=False)
class RidgeFit:
    """Weights, chosen penalties and scores. Arrays are of the library and dtype that went in; one series loses its voxel axis.

    Attributes
    ----------
    coef : (p, v)
        Weights.
    intercept : (v,)
        Constants; zeros without an intercept.
    alpha : (v,) float64
        Chosen penalty of each voxel, a member of ``alphas``: the weight on ‖b‖².
    alphas : (a,) float64
        The grid: sorted, without duplicates.
    cv_scores : (a, v)
        Held-out score of every penalty, mean over folds.
    best_score : (v,)
        Score of the chosen penalty.
    at_edge : (v,) int8
        −1 where the smallest penalty of the grid was chosen, +1 where the largest, else 0 (and for a grid of one).
    scoring : str
        The score the penalty was chosen by.
    stats : dict
        strategy, operations, bytes, seconds per stage, precision, device, versions.
    """

    coef: Any
    intercept: Any
    alpha: Any
    alphas: Any
    cv_scores: Any
    best_score: Any
    at_edge: Any
    scoring: str
    stats: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.coef.shape))
        return f"<RidgeFit coef {shape} {self.coef.dtype}, {len(self.alphas)} alphas, by {self.scoring}>"

    def _weights(self) -> tuple[Any, Any]:
        coef, intercept = np.asarray(as_numpy(self.coef, "coef")), np.asarray(as_numpy(self.intercept, "intercept"))
        return (coef[:, None], intercept[None]) if coef.ndim == 1 else (coef, intercept)

    def predict(self, X: Any) -> Any:
        """Predicted responses.

        Parameters
        ----------
        X : (t, p) array, NumPy or torch
            Converted to the dtype of the weights.

        Returns
        -------
        (t, v) array, or (t,) if the fit was of a single series
            In X's library.

        Raises
        ------
        InputError
            If X has another number of features, or holds NaN or infinite values.
        """
        coef, intercept = self._weights()
        design = check_design(as_numpy(X, "X"), coef.dtype, len(coef))
        predicted = design @ coef
        predicted += intercept
        return export(predicted[:, 0] if self.coef.ndim == 1 else predicted, library_of(X))

    def score(self, X: Any, Y: Any, scoring: str | None = None) -> Any:
        """Score predictions of Y from X, voxel by voxel, without holding all predictions at once.

        Parameters
        ----------
        X : (t, p) array
        Y : (t, v) or (t,) array, memory map, torch tensor or h5py dataset
        scoring : {"r2", "pearson", "neg_mean_squared_error"}, optional
            By default the one the penalties were chosen by.

        Returns
        -------
        (v,) array in the dtype of the weights, or a scalar if the fit was of a single series
            Finite: 0 where the score is not defined.

        Raises
        ------
        InputError
            If shapes do not fit, or a value is NaN or infinite.
        """
        name = check_scoring(self.scoring if scoring is None else scoring)
        coef, intercept = self._weights()
        design = check_design(as_numpy(X, "X"), coef.dtype, len(coef))
        if len(design) == 0:
            raise InputError("X has no rows; pass at least one to score on")
        targets = Targets.check(Y, len(design))
        if targets.n_voxels != coef.shape[1]:
            raise InputError(f"Y has {targets.n_voxels} voxels and the fit has {coef.shape[1]}; pass the same voxels")
        scores = np.empty(coef.shape[1], dtype=coef.dtype)
        for first, slab in targets.slabs(_SCORE_TILE):
            for start in range(0, slab.shape[1], _SCORE_TILE):
                observed = slab[:, start : start + _SCORE_TILE]
                if not np.isfinite(observed).all():
                    targets.refuse_bad()
                here = slice(first + start, first + start + observed.shape[1])
                moments = column_moments(observed, design @ coef[:, here] + intercept[here])
                scores[here] = score_moments(name, tuple(moments), len(design))
        library = "torch" if "torch" in (library_of(X), targets.library) else "numpy"
        return export(scores[0] if self.coef.ndim == 1 else scores, library)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to an HDF5 file (data sets and a JSON attribute, no pickle), whole or not at all.

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
            file.attrs["kind"], file.attrs["layout"] = _KIND, _LAYOUT
            file.attrs["scoring"], file.attrs["stats"] = self.scoring, json.dumps(self.stats)
            for name in _ARRAYS:
                file[name] = as_numpy(getattr(self, name), name)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: Any = None) -> RidgeFit:
        """Read a fit that :meth:`save` wrote; its arrays are NumPy, whatever they were when saved.

        Parameters
        ----------
        path : path-like
        device : None or "cpu"

        Raises
        ------
        InputError
            If the file is not such a fit.
        DeviceError
            If the device does not exist.
        """
        import h5py  # 0.2 s to import: only when a file is touched

        check_device(device)
        try:
            file = h5py.File(path, "r")
        except FileNotFoundError:
            raise InputError(f"there is no file {os.fspath(path)!r}") from None
        except OSError as error:
            raise InputError(f"{os.fspath(path)!r} is not an HDF5 file ({error})") from error
        with file:
            if file.attrs.get("kind") != _KIND:
                raise InputError(f"{os.fspath(path)!r} is not a saved RidgeFit; pass a file that RidgeFit.save wrote")
            if file.attrs["layout"] != _LAYOUT:
                raise InputError(f"{os.fspath(path)!r} has layout {file.attrs['layout']}, this version reads {_LAYOUT}")
            arrays = {name: file[name][()] for name in _ARRAYS}
            return cls(**arrays, scoring=str(file.attrs["scoring"]), stats=json.loads(file.attrs["stats"]))
