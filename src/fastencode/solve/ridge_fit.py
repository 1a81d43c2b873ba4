"""What a ridge fit found, and what can be done with it.

Legend: t = time, p = features, v = voxels, a = penalties, f = folds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import ResultArray, export, library_of, to_host
from fastencode.delayed import MatrixThere, matrix_on
from fastencode.devices import HOST, Array, Device, device_of
from fastencode.errors import DeviceError, InputError
from fastencode.solve.fit import Fit, dtype_in
from fastencode.solve.given.problem import check_design, host_matrix
from fastencode.solve.score.moments import check_scoring, column_scores
from fastencode.solve.weights.features import kernel_between

__all__ = ["RidgeFit"]


@dataclass(frozen=True, eq=False, repr=False)
class RidgeFit(Fit):
    """Weights, chosen penalties and scores. Arrays are of the library, device and dtype that went in; one series loses its voxel
    axis.

    Attributes
    ----------
    coef : (p, v) or None
        Weights. None where the fit keeps others, or none (``weights="dual"`` or ``None``).
    intercept : (v,) or None
        Constants; zeros without an intercept. None without weights.
    alpha : (v,) float64
        Chosen penalty of each voxel, a member of ``alphas``: the weight on ‖b‖².
    alphas : (a,) float64
        The grid: sorted, without duplicates. With given penalties (``cv=None``), those.
    cv_scores : (a, v) or None
        Held-out score of every penalty, mean over folds. None with given penalties.
    best_score : (v,) or None
        The same of the chosen penalty.
    at_edge : (v,) int8
        −1 where the smallest penalty of the grid was chosen, +1 where the largest, else 0 (and for a grid of one or given
        penalties). A voxel that X does not predict is at an edge of any grid: +1, or with "pearson" either.
    scoring : str
        The score the penalty was chosen by.
    stats : dict
        strategy, operations, bytes, seconds per stage, precision, device (and which library and card), versions.
    fold_scores : (f, v) or None
        Score of the chosen penalty in every fold, in the order of ``cv``; ``best_score`` is their mean. None with more than 64
        folds and with given penalties. None, too, where the scores that wait for the choice take more than a quarter of ``memory``
        (1 GiB where none is given): (folds × penalties) numbers for each of 768 voxels, or of all with ``per_target=False``.
    cv_predictions : (t, v) or None
        With ``cv_predictions=True``, what each row is predicted to be, at the chosen penalty, by the weights of a fold that holds
        it out; the mean over folds where several do. NaN in rows that none holds out, those of weight zero among them.
        ``fastencode.r2(Y, fit.cv_predictions)``, where every row is held out, is the score over all rows together, beside
        ``best_score``, the mean of the folds' own.
    dual_coef : (t, v) or None
        With ``weights="dual"``, weights ω of the rows (those of sample weight zero left out): weights of the features are
        (X − 1 μᵀ)ᵀ ω, which :meth:`predict` and :meth:`score` never make.
    features : (t, p) array or Delayed, or None
        With ``weights="dual"``, the X of the fit, in its memory.
    feature_means : (p,) float64 or None
        With ``weights="dual"``, μ.
    """

    coef: ResultArray
    intercept: ResultArray
    alpha: ResultArray
    alphas: ResultArray
    cv_scores: ResultArray
    best_score: ResultArray
    at_edge: ResultArray
    scoring: str
    stats: dict[str, Any] = field(default_factory=dict)
    fold_scores: ResultArray = None
    cv_predictions: ResultArray = None
    dual_coef: ResultArray = None
    features: ResultArray = None
    feature_means: ResultArray = None

    _arrays = ("alpha", "alphas", "at_edge")
    _maybe = (
        *("coef", "intercept", "cv_scores", "best_score", "fold_scores", "cv_predictions"),
        *("dual_coef", "features", "feature_means"),
    )

    def __repr__(self) -> str:
        kind, weights = ("coef", self.coef) if self.dual_coef is None else ("dual_coef", self.dual_coef)
        shown = "no weights" if weights is None else f"{kind} {' x '.join(map(str, weights.shape))} {weights.dtype}"
        how = "given penalties" if self.cv_scores is None else f"{len(self.alphas)} alphas, by {self.scoring}"
        return f"<RidgeFit {shown}, {how}>"

    def _place_of_weights(self) -> Device | None:
        return None if self.coef is None else device_of(self.coef)

    def _of_rows(self, X: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(dual weights (t, v), constants (v,), kernel between X and the rows of the fit), whose product predicts."""
        dual, intercept = to_host(self.dual_coef, "dual_coef"), to_host(self.intercept, "intercept")
        dual, intercept = (dual[:, None], intercept[None]) if self._one else (dual, intercept)
        rows, means = host_matrix(self.features), to_host(self.feature_means, "feature_means")
        design = check_design(host_matrix(X), dual.dtype, rows.shape[1])
        # ŷ = K ω + a + μᵀ (X − 1 μᵀ)ᵀ ω, where K is about the means and a = ȳ − μᵀ (X − 1 μᵀ)ᵀ ω
        kernel = kernel_between(design, rows, means).astype(dual.dtype)
        at_means = kernel_between(means[None], rows, means, centered=False)[0] @ dual.astype(np.float64)
        return dual, (intercept + at_means).astype(dual.dtype), kernel

    def _for_product(self, device: Device, X: Any) -> tuple[Array, Array, MatrixThere]:
        """(coef (p, v), intercept (v,), X) on a device, in the dtype of the weights.

        Weights that lie elsewhere are moved there. Delayed copies are not made. What is wrong with X is told as on the CPU.
        Dual weights give (dual weights, constants, kernel between X and the rows of the fit).
        """
        X = self._aligned(X)
        if self.dual_coef is not None:
            return self._of_rows(X)
        if self.coef is None:
            raise InputError("this fit kept no weights (weights=None); fit again with weights='primal' or 'dual'")
        coef, intercept = self.coef, self.intercept
        if (device_of(coef) or HOST) != device or device == HOST:
            coef, intercept = (device.put(to_host(array, name)) for array, name in ((coef, "coef"), (intercept, "intercept")))
        coef, intercept = (coef[:, None], intercept[None]) if self._one else (coef, intercept)
        if device_of(X) == device and len(X.shape) == 2 and X.shape[1] == coef.shape[0]:
            design = device.xp.asarray(X.detach() if device.library == "torch" else X, dtype=coef.dtype)
            if bool(device.xp.all(device.xp.isfinite(design))):
                return coef, intercept, design
        return coef, intercept, matrix_on(device, check_design(host_matrix(X), dtype_in(coef), coef.shape[0]))

    def predict(self, X: ArrayLike) -> ResultArray:
        """Predicted responses.

        Parameters
        ----------
        X : (t, p) array, NumPy, torch or CuPy, or :func:`fastencode.delay`'s copies that are not made
            Converted to the dtype of the weights. Computed where the weights lie.

        Returns
        -------
        (t, v) array, or (t,) if the fit was of a single series
            In X's library, where X lies. NaN for voxels that the fit skipped, and for no others.

        Raises
        ------
        InputError
            If X has another number of features, holds NaN or infinite values, or values too large for the dtype of the weights.
        """
        there, device = device_of(X), self._place_of_weights() or HOST
        with device.current(), np.errstate(all="ignore"):
            coef, intercept, design = self._for_product(device, X)
            with device.precision(dtype_in(coef), False):
                predicted = design @ coef
                predicted += intercept
            self._check_predicted(device, predicted)
            predicted = predicted[:, 0] if self._one else predicted
            if there == device:
                return predicted
            return export(device.get(predicted), library_of(X), _place(there))

    def score(self, X: ArrayLike, Y: ArrayLike, scoring: str | None = None, nan_targets: str | None = None) -> ResultArray:
        """Score predictions of Y from X, voxel by voxel, without holding all predictions at once.

        Parameters
        ----------
        X : (t, p) array, as in :meth:`predict`
        Y : (t, v) or (t,) array (NumPy, torch or CuPy), memory map or h5py dataset
            Scored where it lies if that is a device, else where X or the weights lie.
        scoring : {"r2", "pearson", "neg_mean_squared_error"}, optional
            By default the one the penalties were chosen by.
        nan_targets : {"raise", "skip"}, optional
            What to do with voxels whose responses hold NaN or infinite values here: an error that counts them, or NaN as their
            score. By default as the fit was made.

        Returns
        -------
        (v,) array in the dtype of the weights, or a scalar if the fit was of a single series
            0 where the score is not defined. NaN for voxels that the fit skipped, whatever Y holds there, and for those that
            ``nan_targets`` skips. Where Y or X lies, if that is a device.

        Raises
        ------
        DeviceError
            If X and Y lie on different devices.
        InputError
            If shapes do not fit, a value is NaN or infinite, or too large to score.
        """
        name = check_scoring(self.scoring if scoring is None else scoring)
        on_x, on_y = device_of(X), device_of(Y)
        device = on_y or on_x or self._place_of_weights() or HOST
        if on_x is not None and on_x != device:
            raise DeviceError(f"X lies on {on_x.name} ({on_x.library}) and Y on {device.name} ({device.library}); move one")
        with device.current(), np.errstate(all="ignore"):
            coef, intercept, design = self._for_product(device, X)
            targets, dtype = self._checked_targets(Y, len(design)), dtype_in(coef)

            def tile(observed: Array, here: slice) -> Array:
                with device.precision(dtype, False):
                    predicted = design @ coef[:, here] + intercept[here]
                # A float64 Y is compared in float64, whatever the dtype of the weights.
                return column_scores(device, name, observed, device.xp.asarray(predicted, dtype=observed.dtype))

            scores = self._score_tiles(device, targets, dtype, 1, tile, nan_targets)[0, ...]
            scores = scores[0] if self._one else scores
        if on_x is not None or on_y is not None:
            return scores
        return export(device.get(scores), "torch" if "torch" in (library_of(X), targets.library) else "numpy")


def _place(device: Device | None) -> str:
    return "cpu" if device is None else device.name
