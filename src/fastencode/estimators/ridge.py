"""The solvers as scikit-learn estimators: for pipelines, searches and whatever else takes one.

Legend: t = time, p = features, v = voxels, a = penalties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.estimators.sklearn import (
    DTYPES,
    BaseEstimator,
    ColumnTransformer,
    MultiOutputMixin,
    RegressorMixin,
    check_array,
    check_is_fitted,
    check_sample_weight,
    clone,
    validate_data,
)
from fastencode.solve.banded import banded_ridge_cv
from fastencode.solve.given.bands import PRECOMPUTED, are_labels, numbered
from fastencode.solve.given.folds import check_runs
from fastencode.solve.given.problem import DEFAULT_ALPHAS
from fastencode.solve.ridge import ridge_cv

__all__ = ["BandedRidgeCV", "RidgeCV"]

# A tuple, because scikit-learn wants defaults that cannot change.
_ALPHAS = tuple(DEFAULT_ALPHAS.tolist())


def _folds(cv: Any, X: NDArray[Any], y: NDArray[Any], groups: Any) -> tuple[Any, Any]:
    """``cv`` and ``runs`` for the solver; a splitter is asked here, where y and the groups' own labels are at hand."""
    if groups is not None:
        try:
            check_runs(groups, len(X))
        except InputError as error:
            raise InputError(f"groups are the solver's runs: {error}") from None
    if isinstance(cv, str):
        if cv == "runs" and groups is None:
            raise InputError("cv='runs' needs groups=, one label for each row: fit(X, y, groups=...)")
    elif hasattr(cv, "split"):
        return list(cv.split(X, y, groups)), groups
    return cv, groups


def _named(model: Any, fit: Any) -> Any:
    """The fit, with the names of a data frame's columns, so that ``result_`` too tells them by name in ``predict``."""
    if (names := getattr(model, "feature_names_in_", None)) is not None:
        fit.stats["feature_names"] = list(map(str, names))
    return fit


def _targets_first(model: Any) -> NDArray[Any]:
    """Weights as scikit-learn's linear models have them; made of ``result_``, so that a pickled model holds them once."""
    if not hasattr(model, "result_"):
        raise AttributeError("coef_ is there after fit")
    return np.asarray(model.result_.coef.T)


class RidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Ridge regression with a cross-validated penalty for each target: :func:`fastencode.ridge_cv` as a scikit-learn estimator.

    Parameters
    ----------
    alphas : tuple or (a,) array-like of float
        Penalties, the weight on ‖b‖² (scikit-learn's). Positive; sorted and freed of duplicates, see ``alphas_``. With
        ``cv=None``, given penalties: (v,), one for each target, or a single one for all.
    cv : int, "runs", splitter, list of (train, test) or None
        How penalties are scored. An int is that many contiguous blocks (not shuffled), or with ``groups`` that many sets of whole
        groups; ``"runs"`` leaves one group out; a splitter gets X, y and ``groups``. Scores are averaged over folds.
        None scores none and fits at given penalties, as scikit-learn's ``Ridge(alpha=array)`` does (its ``RidgeCV(cv=None)``
        leaves out one row at a time, here ``LeaveOneOut()``).
    gap : int
        Rows on either side of a held-out row, in its group, that a fold does not train on, as in
        :func:`fastencode.ridge_cv`.
    scoring : {"r2", "pearson", "neg_mean_squared_error"}
        Held-out score that penalties are chosen by; :meth:`score` is always R².
    per_target : bool
        False chooses one penalty for all targets, by their mean score.
    rule : {"best", "one-se"}
        The penalty of the best mean score, or the largest within one standard error of it, as in :func:`fastencode.ridge_cv`.
    fit_intercept : bool
        Whether to fit a constant, which is not penalised.
    precision : {"exact", "fast"}
        As in :func:`fastencode.ridge_cv`.
    device : None, "cpu", "cuda" or such as "cuda:1"
        Where to compute, as in :func:`fastencode.ridge_cv`; results are NumPy's, wherever that was.
    memory : int or str, optional
        Working memory in bytes or as text ("2GB"), beyond X, y and the weights.

    Attributes
    ----------
    coef_ : (v, p) or (p,) array
        Weights, **targets first** as in scikit-learn's linear models: RFE, RFECV and SelectFromModel read them so.
        ``result_.coef`` has the same numbers features first, (p, v), as himalaya's ``coef_``. 1-D if y was. Float32 if X and y
        were, else float64.
    intercept_ : (v,) array or scalar
        Constants; zeros without an intercept.
    alpha_ : (v,) float64 array or scalar
        Chosen penalty of each target, a member of ``alphas_``.
    alphas_ : (a,) float64 array
        The grid: sorted, without duplicates. With given penalties, those.
    cv_scores_ : (a, v) or (a,) array, or None
        Held-out score of every penalty, mean over folds. (himalaya's attribute of this name has only the best.)
    best_score_ : (v,) array or scalar, or None
        Score of the chosen penalty. Both are None with given penalties.
    at_edge_ : (v,) int8 array or scalar
        −1 where the smallest penalty was chosen, +1 where the largest, else 0.
    result_ : RidgeFit
        All of the above as one object, sharing memory: ``result_.score(X, Y)`` is the score of **each** target,
        ``result_.save(path)`` writes it without pickle, ``result_.stats`` says how it was computed. :meth:`predict` uses it.
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.

    Notes
    -----
    Inputs become NumPy arrays in memory and are looked through for NaN, as in all of scikit-learn. For targets in a file larger
    than memory, torch tensors, or one design and many participants, take :func:`fastencode.ridge_cv` or
    :func:`fastencode.plan_ridge`.

    :meth:`score` is scikit-learn's: R², averaged over targets, and 1 or 0 for a constant target that is or is not predicted
    exactly. ``result_.score(X, Y)`` has one number for each target, by ``scoring`` unless told otherwise.

    Metadata routing: ``groups`` is requested by ``fit`` from the start, ``sample_weight`` after
    ``set_fit_request(sample_weight=True)``.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(StandardScaler(), RidgeCV(cv="runs", scoring="pearson"))
    >>> model.fit(X, Y, ridgecv__groups=runs).predict(X_test)  # doctest: +SKIP
    """

    # Runs belong to how the penalty is chosen: where routing is on, they reach fit unasked.
    __metadata_request__fit = {"groups": True}  # noqa: RUF012 (scikit-learn reads this very name and type)

    def __init__(
        self,
        alphas: Any = _ALPHAS,
        *,
        cv: Any = 5,
        gap: int = 0,
        scoring: str = "r2",
        per_target: bool = True,
        rule: str = "best",
        fit_intercept: bool = True,
        precision: str = "exact",
        device: Any = None,
        memory: int | str | None = None,
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.gap = gap
        self.scoring = scoring
        self.per_target = per_target
        self.rule = rule
        self.fit_intercept = fit_intercept
        self.precision = precision
        self.device = device
        self.memory = memory

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> RidgeCV:
        """Choose each target's penalty and fit its weights.

        Parameters
        ----------
        X : (t, p) array-like or data frame
            Features. Float32 stays float32 (and y with it, if it is), everything else becomes float64.
        y : (t,) or (t, v) array-like or data frame
            Targets.
        groups : (t,) array-like, optional
            Run (story, session) of every row: numbers or strings. No fold of an int ``cv`` or of ``"runs"`` cuts one.
        sample_weight : float or (t,) array-like, optional
            Weights of the rows in the fit and in the held-out scores: finite, not negative, not all zero. A row of weight 0 is
            absent, also where an int ``cv`` makes its blocks; a splitter and explicit indices still count every row.

        Returns
        -------
        RidgeCV
            Itself.

        Raises
        ------
        ValueError
            For what scikit-learn's validation refuses; for all else its subclass :class:`~fastencode.InputError`, which names the
            value and the next step.
        DeviceError
            If the device does not exist.

        Warns
        -----
        FastencodeWarning
            Once, if penalties beyond the grid would raise scores, and of constant targets: see :func:`fastencode.ridge_cv`.
        """
        X, y = validate_data(self, X, y, dtype=list(DTYPES), multi_output=True, y_numeric=True, ensure_min_samples=2)
        cv, runs = _folds(self.cv, X, y, groups)
        fit = ridge_cv(
            X,
            y,
            alphas=self.alphas,
            cv=cv,
            runs=runs,
            gap=self.gap,
            scoring=self.scoring,
            per_target=self.per_target,
            rule=self.rule,
            fit_intercept=self.fit_intercept,
            precision=self.precision,
            device=self.device,
            memory=self.memory,
            sample_weight=None if sample_weight is None else check_sample_weight(sample_weight, X, dtype=np.float64),
        )
        self.result_ = _named(self, fit)
        self.intercept_ = fit.intercept
        self.alpha_, self.alphas_ = fit.alpha, fit.alphas
        self.cv_scores_, self.best_score_, self.at_edge_ = fit.cv_scores, fit.best_score, fit.at_edge
        return self

    @property
    def coef_(self) -> NDArray[Any]:
        """(v, p) or (p,): weights, targets first. ``AttributeError`` before the fit."""
        return _targets_first(self)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predicted targets.

        Parameters
        ----------
        X : (t, p) array-like or data frame

        Returns
        -------
        (t, v) array, or (t,) if y was 1-D
            In the dtype of ``coef_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before :meth:`fit`.
        ValueError
            If X has other features, or holds NaN or infinite values.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=list(DTYPES), reset=False)
        return np.asarray(self.result_.predict(X))


class BandedRidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Banded ridge with cross-validated penalties and weights of bands: :func:`fastencode.banded_ridge_cv` as an estimator.

    Parameters
    ----------
    bands : mapping, (p,) labels, list of (name, transformer, columns), "precomputed" or None
        Name -> width, slice, indices or mask of the columns of X, or column names where X is a data frame: every column in one
        band, ``...`` for those that no other band holds. Or the label of each column's band, text or int, as in
        :func:`fastencode.banded_ridge_cv`. Or, as ``ColumnTransformer`` takes it: each band is what a transformer makes of some
        columns, ``"passthrough"`` leaves them as they are, columns not named are dropped; columns of a data frame may be text.
        "precomputed": X holds kernels, see the notes. None: one band.
    search, n_iter, n_steps, gammas, concentration, random_state, early_stopping
        As in :func:`fastencode.banded_ridge_cv`.
    alphas, cv, gap, scoring, per_target, fit_intercept, precision, device, memory
        As in :class:`RidgeCV`, but for given penalties (``cv=None``).

    Attributes
    ----------
    coef_ : (v, p) or (p,) array
        Weights of the columns of X, **targets first** as in :class:`RidgeCV`. Not where transformers make the bands or kernels
        are given: those have no weights of columns of X, so feature selection refuses such a model. ``result_.coef`` has the
        weights of features in any case, features first, (p, v);
        with transformers, ``result_.columns`` says which of its rows are which band.
    intercept_ : (v,) array or scalar
    alpha_ : (v,) array or scalar
    gammas_, deltas_ : (b, v) or (b,) array
        Chosen weights of the bands, and log(γ / α).
    alphas_ : (a,) array
    candidates_ : (i, b) array
        The weights that were tried.
    cv_scores_ : (i, v) or (i,) array
        Held-out score of every candidate at the best penalty for it.
    best_score_, at_edge_ : (v,) array or scalar
    band_names_ : list of str
    transformers_ : list of (name, ColumnTransformer)
        One for each band, fitted; only where ``bands`` is a list.
    result_ : BandedFit
        All of the above as one object, sharing memory.
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Only where X had string column names.

    Notes
    -----
    RFE and RFECV refit on fewer and fewer columns, which bands by number, mask or name no longer fit: they end in an
    ``InputError`` unless ``bands`` is None. SelectFromModel, with one fit to all columns, takes any mapping.

    With ``bands="precomputed"``, X is (b, t, t) as in himalaya's ``MultipleKernelRidgeCV``, or name -> (t, t); for ``predict``,
    (b, rows, t) between new rows and those of the fit. Penalties and weights are cross-validated inside, by ``cv``.
    scikit-learn's own cross-validation and searches refuse such an X: they cut its first axis, which is not that of y.
    Cross-validate features, or take the rows and columns of a fold's kernels yourself.

    Examples
    --------
    >>> model = BandedRidgeCV({"sound": slice(0, 80), "words": slice(80, 380)}, n_iter=20, random_state=0, cv="runs")
    >>> model.fit(X, Y, groups=runs).split_score(X_test, Y_test)  # doctest: +SKIP
    """

    __metadata_request__fit = {"groups": True}  # noqa: RUF012 (scikit-learn reads this very name and type)

    def __init__(
        self,
        bands: Any = None,
        *,
        search: str = "random",
        n_iter: int | None = None,
        n_steps: int = 10,
        gammas: Any = None,
        concentration: Any = (0.1, 1.0),
        random_state: Any = None,
        early_stopping: float | None = None,
        alphas: Any = _ALPHAS,
        cv: Any = 5,
        gap: int = 0,
        scoring: str = "r2",
        per_target: bool = True,
        fit_intercept: bool = True,
        precision: str = "exact",
        device: Any = None,
        memory: int | str | None = None,
    ) -> None:
        self.bands = bands
        self.search = search
        self.n_iter = n_iter
        self.n_steps = n_steps
        self.gammas = gammas
        self.concentration = concentration
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.alphas = alphas
        self.cv = cv
        self.gap = gap
        self.scoring = scoring
        self.per_target = per_target
        self.fit_intercept = fit_intercept
        self.precision = precision
        self.device = device
        self.memory = memory

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> BandedRidgeCV:
        """Choose each target's penalty and weights of bands and fit; arguments and errors as :meth:`RidgeCV.fit`."""
        if self._kernels:
            y = check_array(y, ensure_2d=False, dtype="numeric", ensure_min_samples=2, input_name="y")
            self.__dict__.pop("transformers_", None)
            self.n_features_in_, rows, design, bands = len(y), np.empty((len(y), 1)), X, self.bands
        else:
            given = X
            X, y = validate_data(self, X, y, dtype=self._takes(X), multi_output=True, y_numeric=True, ensure_min_samples=2)
            rows, (design, bands) = X, self._fitted_bands(given, X, y)
        cv, runs = _folds(self.cv, rows, y, groups)
        fit = banded_ridge_cv(
            design,
            y,
            bands=bands,
            search=self.search,
            n_iter=self.n_iter,
            n_steps=self.n_steps,
            gammas=self.gammas,
            concentration=self.concentration,
            random_state=self.random_state,
            early_stopping=self.early_stopping,
            alphas=self.alphas,
            cv=cv,
            runs=runs,
            gap=self.gap,
            scoring=self.scoring,
            per_target=self.per_target,
            fit_intercept=self.fit_intercept,
            precision=self.precision,
            device=self.device,
            memory=self.memory,
            sample_weight=None if sample_weight is None else check_sample_weight(sample_weight, rows, dtype=np.float64),
        )
        of_columns = not self._kernels and not hasattr(self, "transformers_")
        self.result_, self.band_names_ = _named(self, fit) if of_columns else fit, list(fit.names)
        self.intercept_ = fit.intercept
        self.alpha_, self.alphas_ = fit.alpha, fit.alphas
        self.gammas_, self.deltas_, self.candidates_ = fit.gammas, fit.deltas, fit.candidates
        self.cv_scores_, self.best_score_, self.at_edge_ = fit.cv_scores, fit.best_score, fit.at_edge
        return self

    @property
    def coef_(self) -> NDArray[Any]:
        """(v, p) or (p,): weights of the columns of X. ``AttributeError`` before the fit and where transformers make bands."""
        if hasattr(self, "transformers_"):
            raise AttributeError(
                "coef_ is of columns of X, and the bands are made by transformers; see result_.coef and .columns"
            )
        if self._kernels:
            raise AttributeError("coef_ is of columns of X, and X held kernels; see result_.dual_coef")
        return _targets_first(self)

    @property
    def _kernels(self) -> bool:
        """Whether X holds kernels."""
        return isinstance(self.bands, str) and self.bands == PRECOMPUTED

    def _takes(self, X: Any) -> list[Any] | None:
        """What X is converted to: nothing where transformers take columns of a data frame, which may hold text."""
        return None if hasattr(X, "columns") and isinstance(self.bands, list | tuple) else list(DTYPES)

    def _fitted_bands(self, given: Any, X: NDArray[Any], y: Any) -> tuple[Any, Any]:
        """X and ``bands`` for the solver; ``given`` is X before validation, which may have column names."""
        self.__dict__.pop("transformers_", None)
        if self.bands is None:
            return X, {"all": slice(None)}
        if isinstance(self.bands, Mapping):
            return X, numbered(self.bands, getattr(self, "feature_names_in_", ()))
        if are_labels(self.bands):
            return X, self.bands
        try:
            parts = [(name, transformer, columns) for name, transformer, columns in self.bands]
        except (TypeError, ValueError):
            raise InputError(
                "bands is neither name -> columns nor a list of (name, transformer, columns), labels of columns or 'precomputed'"
            ) from None
        self.transformers_, arrays = [], {}
        for name, transformer, columns in parts:
            if name in arrays:
                raise InputError(f"two bands are named {name!r}; give each its own name")
            part = transformer if isinstance(transformer, str) else clone(transformer)
            one = ColumnTransformer([(str(name), part, columns)], sparse_threshold=0)  # 0: dense, whatever it makes
            arrays[name] = _in_dtype(one.fit_transform(given if hasattr(given, "columns") else X, y), _float(X.dtype))
            self.transformers_.append((name, one))
        return arrays, None

    def _design(self, X: Any) -> Any:
        """Checked features in the solver's form."""
        check_is_fitted(self)
        if self._kernels:
            return X
        checked = validate_data(self, X, dtype=self._takes(X), reset=False)
        if not hasattr(self, "transformers_"):
            return checked
        rows = X if hasattr(X, "columns") else checked
        return {name: _in_dtype(one.transform(rows), _float(checked.dtype)) for name, one in self.transformers_}

    def predict(self, X: Any, split: bool = False) -> NDArray[Any]:
        """Predicted targets, (t, v) or (t,); with ``split`` each band's part, (b, t, v) or (b, t). Errors as :class:`RidgeCV`."""
        design = self._design(X)
        return np.asarray(self.result_.predict(design, split))

    def split_score(self, X: Any, y: Any, scoring: str | None = None) -> NDArray[Any]:
        """(b, v) or (b,): what each band contributes to each target's score, see :meth:`fastencode.BandedFit.score`."""
        design = self._design(X)
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        return np.asarray(self.result_.score(design, y, scoring, split=True))


def _float(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def _in_dtype(array: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """What a transformer made, as the solver takes it: one of text or objects says so there."""
    values = np.asarray(array)
    return values.astype(dtype) if values.dtype.kind in "iubf" and values.dtype != dtype else values
