"""The time kernels and cleaning as scikit-learn transformers: for pipelines that end in ``RidgeCV``.

Rows are a time series, which scikit-learn knows nothing of: ``groups`` says to which run each row belongs, as in ``RidgeCV``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.estimators.sklearn import (
    DTYPES,
    BaseEstimator,
    OneToOneFeatureMixin,
    TransformerMixin,
    check_feature_names_in,
    check_is_fitted,
    output_config,
    validate_data,
)
from fastencode.timing.clean import detrend_cosine, detrend_polynomial, detrend_savgol, zscore
from fastencode.timing.delays import delay
from fastencode.timing.hrf import hrf_convolve
from fastencode.timing.lanczos import lanczos
from fastencode.timing.times import check_seconds, run_slices

__all__ = ["Delay", "Detrend", "HRFConvolve", "LanczosResample", "ZScore"]


class _Transformer(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """What all share: nothing is learned but the number and the names of the features."""

    def _check(self, X: Any, reset: bool = False) -> NDArray[Any]:
        return np.asarray(validate_data(self, X, dtype=list(DTYPES), reset=reset))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class _ByRun(_Transformer, ABC):
    """Those that take runs."""

    # Where routing is on, runs reach all of them unasked.
    __metadata_request__fit = {"groups": True}  # noqa: RUF012 (scikit-learn reads these very names and types)
    __metadata_request__transform = {"groups": True}  # noqa: RUF012

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        """Note the features.

        Parameters
        ----------
        X : (t, p) array-like or data frame
        y : ignored
        groups : ignored

        Returns
        -------
        the transformer
        """
        self._check(X, reset=True)
        return self

    def transform(self, X: Any, groups: Any = None) -> NDArray[Any]:
        """The features, transformed.

        Parameters
        ----------
        X : (t, p) array-like or data frame
            In the order of time.
        groups : (t,) array-like, optional
            The run of each row; the rows of a run stand together. None: one run. A pipeline passes it on where metadata routing
            is on (``sklearn.set_config(enable_metadata_routing=True)``), to ``predict`` and ``score`` as well.

        Returns
        -------
        (t, columns) array, or what ``set_output`` says
            Float32 for float32, else float64.

        Raises
        ------
        ValueError
            If X has other features, holds NaN or infinite values, or groups do not fit.
        """
        check_is_fitted(self)
        return np.asarray(self._by_run(self._check(X), groups))

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> NDArray[Any]:
        """:meth:`fit` and :meth:`transform`, both with the groups."""
        return np.asarray(self.fit(X, y).transform(X, groups=groups))

    @abstractmethod
    def _by_run(self, X: NDArray[Any], groups: Any) -> Any:
        """The features of every run, transformed."""


class Delay(_ByRun):
    """Delayed copies of the features, never across the edge of a run: :func:`fastencode.delay` as a transformer.

    Parameters
    ----------
    delays : sequence of int
        In rows; negative delays lead. Columns are [X at delays[0] | X at delays[1] | …].

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(ZScore(), Delay((1, 2, 3, 4)), RidgeCV(cv="runs"))  # doctest: +SKIP
    >>> model.fit(X, Y, groups=runs).predict(X_test, groups=test_runs)  # doctest: +SKIP
    """

    def __init__(self, delays: Sequence[int] = (1, 2, 3, 4)) -> None:
        self.delays = delays

    def _by_run(self, X: NDArray[Any], groups: Any) -> Any:
        return delay(X, self.delays, groups)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """``name_delay1`` and so on, in the order of the columns."""
        check_is_fitted(self)
        names = check_feature_names_in(self, input_features)
        return np.array([f"{name}_delay{step}" for step in self.delays for name in names], dtype=object)


class ZScore(OneToOneFeatureMixin, _ByRun):  # type: ignore[misc, unused-ignore]
    """Mean 0 and standard deviation 1 of every column within each run.

    Unlike ``StandardScaler`` it learns nothing: new rows are scaled by themselves.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.
    """

    def _by_run(self, X: NDArray[Any], groups: Any) -> Any:
        return zscore(X, groups)


class Detrend(OneToOneFeatureMixin, _ByRun):  # type: ignore[misc, unused-ignore]
    """Remove slow drifts from every column within each run.

    Parameters
    ----------
    kind : {"polynomial", "cosine", "savgol"}
        The best polynomial of time; the mean and all cosines slower than ``period`` (SPM's high-pass filter); a moving polynomial
        (Savitzky and Golay's filter).
    order : int, optional
        Of the polynomial: 3 where it is one of the whole run, 2 where it moves.
    tr : float, optional
        Seconds from row to row; needed for cosines and moving polynomials.
    period : float
        Seconds, for cosines.
    window : float
        Seconds, for moving polynomials.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.
    """

    def __init__(
        self,
        kind: str = "polynomial",
        *,
        order: int | None = None,
        tr: float | None = None,
        period: float = 128.0,
        window: float = 120.0,
    ) -> None:
        self.kind = kind
        self.order = order
        self.tr = tr
        self.period = period
        self.window = window

    def _by_run(self, X: NDArray[Any], groups: Any) -> Any:
        if self.kind == "polynomial":
            return detrend_polynomial(X, 3 if self.order is None else self.order, groups)
        if self.kind not in ("cosine", "savgol"):
            raise InputError(f"kind={self.kind!r}; pass 'polynomial', 'cosine' or 'savgol'")
        if self.tr is None:
            raise InputError(f"kind={self.kind!r} needs tr=, the seconds from row to row")
        if self.kind == "cosine":
            return detrend_cosine(X, self.tr, self.period, groups)
        return detrend_savgol(X, self.tr, self.window, 2 if self.order is None else self.order, groups)


class HRFConvolve(OneToOneFeatureMixin, _ByRun):  # type: ignore[misc, unused-ignore]
    """Convolve sampled features with a hemodynamic response within each run: :func:`fastencode.hrf_convolve` as a transformer.

    Parameters
    ----------
    dt : float
        Seconds from row to row.
    model, duration, peak_delay, undershoot_delay, peak_dispersion, undershoot_dispersion, ratio, derivative, derivative_step
        As in :func:`fastencode.hrf_convolve`.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.
    """

    def __init__(
        self,
        dt: float,
        *,
        model: str = "spm",
        duration: float = 32.0,
        peak_delay: float | None = None,
        undershoot_delay: float | None = None,
        peak_dispersion: float | None = None,
        undershoot_dispersion: float | None = None,
        ratio: float | None = None,
        derivative: str | None = None,
        derivative_step: float | None = None,
    ) -> None:
        self.dt = dt
        self.model = model
        self.duration = duration
        self.peak_delay = peak_delay
        self.undershoot_delay = undershoot_delay
        self.peak_dispersion = peak_dispersion
        self.undershoot_dispersion = undershoot_dispersion
        self.ratio = ratio
        self.derivative = derivative
        self.derivative_step = derivative_step

    def _by_run(self, X: NDArray[Any], groups: Any) -> Any:
        check_seconds(dt=self.dt)
        given: dict[str, Any] = self.get_params(deep=False)
        out = np.empty_like(X)
        for rows in run_slices(groups, len(X)):
            times = np.arange(rows.stop - rows.start) * float(self.dt)
            out[rows] = hrf_convolve(X[rows], times, times, **given)
        return out


class LanczosResample(_Transformer):
    """Resample rows to other times: :func:`fastencode.lanczos` as a transformer.

    The number of rows changes, so it stands before what splits rows into folds, and takes one run at a time.

    Parameters
    ----------
    old_times : float or (n,) array-like
        Seconds of each row of X, or from row to row (the first at 0).
    new_times : float or (m,) array-like
        Seconds of each row of the result, ascending, or from row to row (the first at 0, the last not past the last old row).
    lobes, cutoff_mult, normalize, rectify
        As in :func:`fastencode.lanczos`.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.
    """

    def __init__(
        self,
        old_times: Any,
        new_times: Any,
        *,
        lobes: float = 3,
        cutoff_mult: float = 1.0,
        normalize: bool = False,
        rectify: bool = False,
    ) -> None:
        self.old_times = old_times
        self.new_times = new_times
        self.lobes = lobes
        self.cutoff_mult = cutoff_mult
        self.normalize = normalize
        self.rectify = rectify

    def fit(self, X: Any, y: Any = None) -> LanczosResample:
        """Note the features."""
        self._check(X, reset=True)
        return self

    def transform(self, X: Any) -> Any:
        """The rows at the new times.

        Parameters
        ----------
        X : (n, p) array-like or data frame

        Returns
        -------
        (m, p) array, or (m, 2 p) with ``rectify``; or what ``set_output`` says, a pandas frame with the new times as its index
            Float32 for float32, else float64.

        Raises
        ------
        ValueError
            If X has other features, holds NaN or infinite values, or times do not fit.
        """
        check_is_fitted(self)
        array = self._check(X)
        old, new = self._times(len(array))
        given = {name: getattr(self, name) for name in ("lobes", "cutoff_mult", "normalize", "rectify")}
        out = np.asarray(lanczos(array, old, new, **given))
        if output_config("transform", self)["dense"] != "pandas":
            return out
        import pandas as pd

        return pd.DataFrame(out, index=new)  # scikit-learn would give it the rows of X

    def _times(self, n: int) -> tuple[Any, Any]:
        """Old and new times; of what was given as a step, multiples."""
        old, new = self.old_times, self.new_times
        for name, step in (("old_times", old), ("new_times", new)):
            if np.ndim(step) == 0:
                check_seconds(**{name: step})
        if np.ndim(old) == 0:
            old = np.arange(n) * float(old)
        if np.ndim(new) == 0:
            last = np.max(old, initial=0.0)
            new = np.arange(int(last / float(new) + 1e-9) + 1) * float(new)  # the small term: whatever the quotient rounds to
        return old, new

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """The features' names; with ``rectify`` followed by ``_negative``, then those followed by ``_positive``."""
        check_is_fitted(self)
        names = check_feature_names_in(self, input_features)
        if not self.rectify:
            return names
        return np.array([f"{name}_{part}" for part in ("negative", "positive") for name in names], dtype=object)
