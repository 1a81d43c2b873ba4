"""What a ridge fit found, and what can be done with it.

Legend: t = time, p = features, v = voxels, a = penalties.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastencode.arrays import check_device, export, float_dtype, library_of, to_host
from fastencode.delayed import matrix_on
from fastencode.devices import Device, device_of
from fastencode.errors import DeviceError, InputError
from fastencode.solve.device_moments import device_column_scores
from fastencode.solve.fits import open_fit, save_fit
from fastencode.solve.problem import check_design, host_matrix
from fastencode.solve.scores import check_scoring, column_moments, score_moments
from fastencode.solve.targets import Targets

__all__ = ["RidgeFit"]

_ARRAYS = ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge")
_SCORE_TILE = 1024


@dataclass(frozen=True, eq=False, repr=False)
class RidgeFit:
    """Weights, chosen penalties and scores. Arrays are of the library, device and dtype that went in; one series loses its voxel
    axis.

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
        strategy, operations, bytes, seconds per stage, precision, device (and which library and card), versions.
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
        coef, intercept = np.asarray(to_host(self.coef, "coef")), np.asarray(to_host(self.intercept, "intercept"))
        return (coef[:, None], intercept[None]) if coef.ndim == 1 else (coef, intercept)

    def _weights_there(self, device: Device) -> tuple[Any, Any]:
        """The same on a device, moved there if they lie elsewhere."""
        here = device_of(self.coef) == device
        coef, intercept = (self.coef, self.intercept) if here else map(device.put, self._weights())
        return (coef[:, None], intercept[None]) if len(coef.shape) == 1 else (coef, intercept)

    def _design_there(self, device: Device, X: Any, coef: Any) -> Any:
        """X in the dtype of the weights on their device, delayed copies not made; what is wrong with it is told as on the CPU."""
        sound = device_of(X) == device and len(X.shape) == 2 and X.shape[1] == coef.shape[0]
        if sound:
            design = device.xp.asarray(X.detach() if device.library == "torch" else X, dtype=coef.dtype)
            if bool(device.xp.all(device.xp.isfinite(design))):
                return design
        dtype = np.dtype(str(coef.dtype).removeprefix("torch."))
        return matrix_on(device, check_design(host_matrix(X), dtype, coef.shape[0]))

    def predict(self, X: Any) -> Any:
        """Predicted responses.

        Parameters
        ----------
        X : (t, p) array, NumPy, torch or CuPy, or :func:`fastencode.delay`'s copies that are not made
            Converted to the dtype of the weights. Computed where the weights lie.

        Returns
        -------
        (t, v) array, or (t,) if the fit was of a single series
            In X's library, where X lies.

        Raises
        ------
        InputError
            If X has another number of features, or holds NaN or infinite values.
        """
        there, device = device_of(X), device_of(self.coef)
        if device is None:
            coef, intercept = self._weights()
            design = check_design(host_matrix(X), coef.dtype, len(coef))
            predicted = design @ coef
            predicted += intercept
        else:
            with device.current(), np.errstate(all="ignore"):
                coef, intercept = self._weights_there(device)
                design = self._design_there(device, X, coef)
                with device.products(np.dtype(str(coef.dtype).removeprefix("torch.")), False):
                    predicted = design @ coef + intercept
                if there != device:
                    predicted = device.get(predicted)
        predicted = predicted[:, 0] if self.coef.ndim == 1 else predicted
        return predicted if device is not None and there == device else export(predicted, library_of(X), _place(there))

    def score(self, X: Any, Y: Any, scoring: str | None = None) -> Any:
        """Score predictions of Y from X, voxel by voxel, without holding all predictions at once.

        Parameters
        ----------
        X : (t, p) array, as in :meth:`predict`
        Y : (t, v) or (t,) array (NumPy, torch or CuPy), memory map or h5py dataset
            Scored where it lies if that is a device, else where X or the weights lie.
        scoring : {"r2", "pearson", "neg_mean_squared_error"}, optional
            By default the one the penalties were chosen by.

        Returns
        -------
        (v,) array in the dtype of the weights, or a scalar if the fit was of a single series
            0 where the score is not defined; NaN only for voxels that the fit skipped. Where Y or X lies, if that is a device.

        Raises
        ------
        DeviceError
            If X and Y lie on different devices.
        InputError
            If shapes do not fit, or a value is NaN or infinite.
        """
        name = check_scoring(self.scoring if scoring is None else scoring)
        device = device_of(Y) or device_of(X) or device_of(self.coef)
        if device is not None:
            return self._score_there(device, X, Y, name)
        coef, intercept = self._weights()
        design = check_design(host_matrix(X), coef.dtype, len(coef))
        targets = _check_targets(Y, design, coef)
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

    def _score_there(self, device: Device, X: Any, Y: Any, name: str) -> Any:
        """Scores on a device, tile by tile."""
        there = device_of(X)
        if there is not None and there != device:
            raise DeviceError(f"X lies on {there.name} ({there.library}) and Y on {device.name} ({device.library}); move one")
        xp = device.xp
        with device.current(), np.errstate(all="ignore"):
            coef, intercept = self._weights_there(device)
            design = self._design_there(device, X, coef)
            targets, dtype = _check_targets(Y, design, coef), np.dtype(str(coef.dtype).removeprefix("torch."))
            scores, missing = (device.empty(coef.shape[1], dtype=kind) for kind in (dtype, bool))
            for first, slab in targets.slabs(_SCORE_TILE):
                for start in range(0, slab.shape[1], _SCORE_TILE):
                    observed = slab[:, start : start + _SCORE_TILE]
                    observed = device.put(observed) if targets.device is None else observed
                    wide = float_dtype(dtype, targets.dtype)  # as on the CPU: a float64 Y is compared in float64
                    here = slice(first + start, first + start + observed.shape[1])
                    with device.products(dtype, False):
                        predicted = design @ coef[:, here] + intercept[here]
                    columns = (device.cast(observed, wide), device.cast(predicted, wide))
                    missing[here] = ~xp.all(xp.isfinite(columns[0]), axis=0)
                    scores[here] = device.cast(device_column_scores(device, name, *columns), dtype)
            bad_v = device.get(missing)
            if bad_v.any():
                targets.refuse(bad_v)
            one = self.coef.ndim == 1
            if there is not None or targets.device is not None:
                return scores[0] if one else scores
            found = device.get(scores)
            return export(found[0] if one else found, "torch" if "torch" in (library_of(X), targets.library) else "numpy")

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
        save_fit(path, self, {name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: Any = None) -> RidgeFit:
        """Read a fit that :meth:`save` wrote; its arrays are NumPy, whatever they were when saved, unless a device is named.

        Parameters
        ----------
        path : path-like
        device : None, "cpu", "cuda" or such as "cuda:1"
            Where its arrays are put: on a CUDA device they are CuPy's, or torch's where there is no CuPy.

        Raises
        ------
        InputError
            If the file is not such a fit.
        DeviceError
            If the device does not exist or cannot be used.
        """
        where = check_device(device)
        with open_fit(path, cls) as (file, kept):
            arrays = {name: export(file[name][()], "cupy" if where != "cpu" else "numpy", where) for name in _ARRAYS}
            return cls(**arrays, **kept)


def _check_targets(Y: Any, design: Any, coef: Any) -> Targets:
    """Responses to score, or ``InputError`` where they do not fit the design or the weights."""
    if len(design) == 0:
        raise InputError("X has no rows; pass at least one to score on")
    targets = Targets.check(Y, len(design))
    if targets.n_voxels != coef.shape[1]:
        raise InputError(f"Y has {targets.n_voxels} voxels and the fit has {coef.shape[1]}; pass the same voxels")
    return targets


def _place(device: Device | None) -> str:
    return "cpu" if device is None else device.name
