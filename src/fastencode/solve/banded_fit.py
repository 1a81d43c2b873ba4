"""What a banded ridge fit found, and what can be done with it.

Legend: t = time, p = features, b = bands, v = voxels, a = penalties, i = candidates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_flag
from fastencode.arrays import F64, ResultArray, check_device, export, library_of, to_host
from fastencode.delayed import Matrix, pick
from fastencode.devices import HOST, DeviceLike
from fastencode.errors import InputError
from fastencode.solve.fit import Fit
from fastencode.solve.given.bands import Features, each_kernel, is_several, join
from fastencode.solve.given.problem import check_design, check_values, host_matrix
from fastencode.solve.score.moments import check_scoring, column_scores, split_scores

__all__ = ["BandedFit"]


@dataclass(frozen=True, eq=False, repr=False)
class BandedFit(Fit):
    """Weights, chosen penalties and scores of every band.

    Arrays are of the library that went in; one series loses its voxel axis.

    Attributes
    ----------
    coef : (p, v) or None
        Weights, rows in the order of the columns of X. None where only kernels were given.
    dual_coef : (t, v) or None
        For kernels: predictions are Σ_b γ_b K_b @ dual_coef + intercept, K_b between new rows and those of the fit.
    intercept : (v,)
        Constants; zeros without an intercept.
    alpha : (v,) float64
        Penalty of each voxel: given, or chosen, a member of ``alphas``; or where the gradient led to, with ``gammas`` that add up
        to 1.
    alphas : (a,) float64
        The grid: sorted, without duplicates.
    gammas : (b, v) float64
        Chosen weights of the bands: band b is penalised by α / γ_b on ‖coef_b‖², and is zero where γ_b is.
    candidates : (i, b) float64
        The weights that were tried, in order; (0, b) for given penalties (``cv=None``).
    cv_scores : (i, v)
        Held-out score of every candidate at the voxel's best penalty for it, mean over folds; NaN where a search stopped early.
        (0, v) for given penalties.
    best_score : (v,)
        Score of the chosen weights and penalty; NaN for given ones.
    at_edge : (v,) int8
        −1 where the smallest penalty of the grid was chosen, +1 where the largest, else 0 (and for a grid of one).
    feature_means : (p,) float64
        What X was centered by; zeros without an intercept.
    names : tuple of str
        Of the bands.
    columns : tuple of int arrays
        Which columns of X each band holds.
    scoring : str
    stats : dict
        ``search`` (candidates tried, whether it stopped early, what the last ones brought; None for given penalties),
        ``refined`` (voxels that the gradient served better, and their mean gain over all voxels; evaluations, cells), strategy,
        seconds per stage, bytes, precision, device, versions.
    """

    coef: ResultArray
    dual_coef: ResultArray
    intercept: ResultArray
    alpha: ResultArray
    alphas: ResultArray
    gammas: ResultArray
    candidates: ResultArray
    cv_scores: ResultArray
    best_score: ResultArray
    at_edge: ResultArray
    feature_means: ResultArray
    names: tuple[str, ...]
    columns: tuple[NDArray[np.intp], ...]
    scoring: str
    stats: dict[str, Any] = field(default_factory=dict)

    _arrays = ("intercept", "alpha", "alphas", "gammas", "candidates", "cv_scores", "best_score", "at_edge", "feature_means")
    _maybe = ("coef", "dual_coef")
    _lists = ("columns",)
    _texts = ("names",)

    def __repr__(self) -> str:
        kind, weights = ("coef", self.coef) if self.dual_coef is None else ("dual_coef", self.dual_coef)
        shape = " x ".join(map(str, weights.shape))
        how = f"by {self.scoring}" if len(self.candidates) else "given penalties"
        return f"<BandedFit {kind} {shape} {weights.dtype}, bands {', '.join(self.names)}, {how}>"

    def _found(self) -> list[str]:
        gammas = self._fitted("gammas")
        shares = gammas / gammas.sum(axis=0)
        lines = [
            "  weights of bands, as shares: "
            + ", ".join(
                f"{name} median {np.median(share):.2g}, largest in {int((shares.argmax(axis=0) == b).sum())}"
                for b, (name, share) in enumerate(zip(self.names, shares, strict=True))
            )
        ]
        search, refined = self.stats.get("search"), self.stats.get("refined")
        if search:
            early = ", stopped early" if search["stopped_early"] else ""
            lines.append(f"  search: {search['tried']} of {search['candidates']} candidates tried{early}")
        if refined:
            lines[-1] += f"; {refined['voxels']} voxels went on to weights of their own"
        return lines

    @property
    def deltas(self) -> ResultArray:
        """(b, v) float64: log(γ / α), −∞ where a band is switched off; himalaya's convention."""
        with np.errstate(divide="ignore"):
            found = np.log(to_host(self.gammas, "gammas") / to_host(self.alpha, "alpha"))
        return export(found, library_of(self.gammas))

    def _host(self, name: str) -> NDArray[Any]:
        """One of the arrays of voxels as NumPy, with its voxel axis."""
        array = np.asarray(to_host(getattr(self, name), name))
        return array[..., None] if self._one else array

    def _parts(self, X: Any) -> tuple[list[Matrix], list[NDArray[Any]], str]:
        """(left factors, right factors, library): the prediction of band b is left[b] @ right[b], features and coef of the band,
        or its kernel and γ_b times the dual weights."""
        X = self._aligned(X)
        if self.dual_coef is not None:
            return self._kernel_parts(X)
        coef = self._host("coef")
        columns = self.columns
        if isinstance(X, Mapping) or is_several(X):
            design = join(self._in_order(X) if isinstance(X, Mapping) else X, None)
            X, columns = design.X, design.bands.columns
            if [len(c) for c in columns] != [len(c) for c in self.columns]:
                raise InputError(
                    f"X has bands of {[len(c) for c in columns]} features and the fit of "
                    f"{[len(c) for c in self.columns]}; pass the same bands in the same order"
                )
        checked = check_design(host_matrix(X), coef.dtype, len(coef))
        return [pick(checked, columns=c) for c in columns], [coef[c] for c in self.columns], library_of(X)

    def _in_order(self, X: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        """Arrays by name in the order of the bands."""
        if set(X) != set(self.names):
            raise InputError(
                f"X names {', '.join(map(repr, X))} and the fit {', '.join(map(repr, self.names))}; pass the same bands"
            )
        return {name: X[name] for name in self.names}

    def _kernel_parts(self, X: Any) -> tuple[list[Matrix], list[NDArray[Any]], str]:
        dual, gammas = self._host("dual_coef"), self._host("gammas")
        given = each_kernel(self._in_order(X) if isinstance(X, Mapping) else X)
        kernels = [to_host(kernel, f"the kernel of {name!r}") for name, kernel in zip(self.names, given, strict=False)]
        shapes = [tuple(k.shape) for k in kernels]
        if len(given) != len(self.names) or any(len(s) != 2 or s != (shapes[0][0], len(dual)) for s in shapes):
            raise InputError(
                f"X has {len(given)} kernels, of shapes {', '.join(map(str, shapes))}; pass (new rows, {len(dual)}) for each of "
                f"{len(self.names)} bands, the same rows in all"
            )
        checked = [check_values(k, dual.dtype, f"the kernel of {name!r}") for name, k in zip(self.names, kernels, strict=True)]
        return list(checked), [(dual * gamma).astype(dual.dtype) for gamma in gammas], library_of(given[0])

    def predict(self, X: Features, split: bool = False) -> ResultArray:
        """Predicted responses, of all bands together or of each.

        Parameters
        ----------
        X : (t, p) array, or several arrays in order or by name; delayed copies need not be made
            For a fit of kernels: each band's, (t, rows of the fit).
        split : bool
            Each band's part; their sum plus ``intercept`` is the prediction.

        Returns
        -------
        (t, v) array, or with ``split`` (b, t, v); without the last axis if the fit was of a single series
            NaN for voxels that the fit skipped, and for no others.

        Raises
        ------
        InputError
            If X has other features or bands, holds NaN or infinite values, or values too large for the dtype of the weights.
        """
        check_flag("split", split)
        parts, weights, library = self._parts(X)
        with np.errstate(all="ignore"):
            # out = sum(X[:, columns[b]] @ coef[columns[b]]) + intercept
            if split:
                out = np.stack([part @ weight for part, weight in zip(parts, weights, strict=True)])
            else:
                out = parts[0] @ weights[0]
                for part, weight in zip(parts[1:], weights[1:], strict=True):
                    out += part @ weight
                out += self._host("intercept")
            self._check_predicted(HOST, out)
        return export(out[..., 0] if self._one else out, library)

    def score(
        self, X: Features, Y: ArrayLike, scoring: str | None = None, split: bool = False, nan_targets: str | None = None
    ) -> ResultArray:
        """Score predictions of Y from X, voxel by voxel, for all bands together or divided among them.

        Parameters
        ----------
        X : as in :meth:`predict`
        Y : (t, v) or (t,) array, memory map or h5py dataset
        scoring : {"r2", "pearson", "neg_mean_squared_error"}, optional
            By default the one that weights and penalties were chosen by.
        split : bool
            Divide the score by the product measure: band b gets Σ (2 y − ŷ) ŷ_b / Σ y² of R², and cov(y, ŷ_b) / (σ_y σ_ŷ) of the
            correlation, each about the means. A difference of the means of Y and of the prediction is divided by each band's part
            in it, what no band has a part in equally. The parts of all bands add up to the score.
        nan_targets : {"raise", "skip"}, optional
            What to do with voxels whose responses hold NaN or infinite values here: an error that counts them, or NaN as their
            score. By default as the fit was made.

        Returns
        -------
        (v,) array, or with ``split`` (b, v); without the last axis if the fit was of a single series
            0 where the score is not defined. NaN for voxels that the fit skipped, whatever Y holds there, and for those that
            ``nan_targets`` skips.

        Raises
        ------
        InputError
            If shapes do not fit, a value is NaN or infinite, or too large to score, or for ``split`` with another score.
        """
        name = check_scoring(self.scoring if scoring is None else scoring)
        if check_flag("split", split) and name == "neg_mean_squared_error":
            raise InputError("scoring='neg_mean_squared_error' cannot be divided among bands; pass scoring='r2' or 'pearson'")
        parts, weights, library = self._parts(X)
        targets, intercept = self._checked_targets(Y, len(parts[0])).fetched(), self._host("intercept")

        def tile(observed: NDArray[Any], here: slice) -> NDArray[Any]:
            each = [part @ weight[:, here] for part, weight in zip(parts, weights, strict=True)]
            whole = sum(each[1:], each[0]) + intercept[here]
            total = column_scores(HOST, name, observed, whole.astype(observed.dtype, copy=False))
            return self._divided(name, observed, np.stack(each), whole, total, here) if split else total

        dtype, count = weights[0].dtype, len(parts) if split else 1
        scores = self._score_tiles(HOST, targets, dtype, count, tile, nan_targets)
        scores = scores if split else scores[0]
        return export(scores[..., 0] if self._one else scores, "torch" if "torch" in (library, targets.library) else library)

    def _divided(self, name: str, y: NDArray[Any], each: NDArray[Any], whole: NDArray[Any], total: F64, here: slice) -> F64:
        """A score divided among bands, (b, voxels). A band moves the mean of the prediction from what it predicts at the means of
        the features that were fitted."""
        y, each, whole = (array.astype(np.float64) for array in (y, each, whole))
        shift_bv = each.mean(axis=1) - self._at_means(here)
        return np.asarray(split_scores(HOST, name, y, each, whole, total, shift_bv))

    def _at_means(self, here: slice) -> F64:
        """(b, voxels): what each band predicts at the means of the fit's features."""
        if self.coef is None:
            return np.zeros((len(self.names), here.stop - here.start))
        coef, means = self._host("coef")[:, here], np.asarray(self.feature_means)
        return np.stack([means[c] @ coef[c].astype(np.float64) for c in self.columns])

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: DeviceLike = None) -> BandedFit:
        """Read a fit that :meth:`save` wrote; its arrays are NumPy, whatever they were when saved.

        Parameters
        ----------
        path : path-like
        device : None or "cpu"
            Predictions of bands are computed on the CPU.

        Raises
        ------
        InputError
            If the file is not such a fit, lacks a part of it, or another device is named.
        """
        if check_device(device) != "cpu":
            raise InputError(f"device={device!r}: banded fits are used on the CPU; pass device=None")
        return super().load(path)
