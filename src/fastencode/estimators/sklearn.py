"""Everything of scikit-learn that the estimators use, whatever its version."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastencode.errors import InputError, require

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, OneToOneFeatureMixin, RegressorMixin, TransformerMixin, clone
    from sklearn.compose import ColumnTransformer
    from sklearn.utils._set_output import _get_output_config as output_config
    from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
    from sklearn.utils.validation import check_array, check_is_fitted
except ImportError:
    require("sklearn.base", "sklearn")  # says which extra brings it
    raise

try:
    from sklearn.utils.validation import validate_data as _validate
except ImportError:  # scikit-learn 1.5 has it as a method

    def _validate(estimator: Any, X: Any, y: Any = "no_validation", **checks: Any) -> Any:
        return estimator._validate_data(X, y, **checks)


def validate_data(estimator: Any, X: Any, y: Any = "no_validation", **checks: Any) -> Any:
    """scikit-learn's, which takes the numbers under the mask of a masked array: an ``InputError`` here, as in the functions."""
    for name, value in (("X", X), ("y", y)):
        if np.ma.is_masked(value):
            raise InputError(f"{name} is a masked array with masked values; leave those rows or columns out or fill them")
    return _validate(estimator, X, y, **checks)


__all__ = [
    "DTYPES",
    "BaseEstimator",
    "ColumnTransformer",
    "MultiOutputMixin",
    "OneToOneFeatureMixin",
    "RegressorMixin",
    "TransformerMixin",
    "check_array",
    "check_feature_names_in",
    "check_is_fitted",
    "check_sample_weight",
    "clone",
    "output_config",
    "validate_data",
]

# What X is converted to when it is neither is the first: integers become float64.
DTYPES = (np.float64, np.float32)
