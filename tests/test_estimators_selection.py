"""scikit-learn's feature selection on the estimators: it reads ``coef_`` as (targets, features)."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import RFE, RFECV, SelectFromModel
from sklearn.linear_model import Ridge

import fastencode
from fastencode import BandedRidgeCV, InputError, RidgeCV
from fastencode.estimators.sklearn import ColumnTransformer  # noqa: F401 (skips where scikit-learn is missing)

GRID = (0.1, 1.0, 10.0)
MATTER = [5, 6]
BANDS = {"a": slice(0, 4), "b": slice(4, 8)}
MODELS = {
    "ridge": RidgeCV(GRID),
    "banded, one band": BandedRidgeCV(alphas=GRID),
    "banded": BandedRidgeCV(BANDS, n_iter=3, random_state=0, alphas=GRID),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def problem(targets=3):
    """Eight features of which 5 and 6 matter, for every target another mix of them."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((120, 8))
    Y = X[:, MATTER] @ rng.uniform(1, 2, (2, targets)) + 0.3 * rng.standard_normal((120, targets))
    return X, Y


@models
@pytest.mark.parametrize("targets", [1, 2, 3, 9])
def test_selection_from_a_model_is_right(model, targets):
    X, Y = problem(targets)
    Y = Y[:, 0] if targets == 1 else Y
    assert SelectFromModel(model, max_features=2, threshold=-np.inf).fit(X, Y).get_support(indices=True).tolist() == MATTER
    assert SelectFromModel(Ridge(), max_features=2, threshold=-np.inf).fit(X, Y).get_support(indices=True).tolist() == MATTER


@pytest.mark.parametrize("targets", [1, 2, 3, 9])
@pytest.mark.parametrize("name", ["ridge", "banded, one band"])
@pytest.mark.parametrize("select", [RFE, RFECV])
def test_elimination_is_right(select, name, targets):
    X, Y = problem(targets)
    Y = Y[:, 0] if targets == 1 else Y
    options = {"n_features_to_select": 2} if select is RFE else {"min_features_to_select": 2, "cv": 3}
    found = select(MODELS[name], **options).fit(X, Y)
    kept = found.get_support(indices=True).tolist()
    assert kept == MATTER if select is RFE else set(MATTER) <= set(kept)
    assert set(np.argsort(found.ranking_, kind="stable")[:2]) <= set(kept)
    # The order in which the others go is that of scikit-learn's own model.
    theirs = select(Ridge(1.0), **options).fit(X, Y)
    assert set(np.flatnonzero(theirs.ranking_ == 1)) >= set(MATTER)


@pytest.mark.parametrize(
    "bands",
    [
        BANDS,
        {"a": slice(0, 4), "b": slice(4, None)},
        {"a": 4, "b": 4},
        {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]},
        {"a": np.arange(8) < 4, "b": np.arange(8) >= 4},
    ],
    ids=["slices", "open slice", "widths", "indices", "masks"],
)
def test_elimination_refuses_bands_that_no_longer_fit(bands):
    X, Y = problem()
    with pytest.raises(InputError, match="band|column"):
        RFE(BandedRidgeCV(bands, n_iter=3, random_state=0, alphas=GRID), n_features_to_select=2).fit(X, Y)


@pytest.mark.parametrize("selector", [RFE, RFECV, SelectFromModel])
def test_bands_that_transformers_make_are_refused(selector):
    """Here the columns would be as many as those of X, in another order."""
    X, Y = problem()
    model = BandedRidgeCV([("b", "passthrough", slice(4, 8)), ("a", "passthrough", slice(0, 4))], n_iter=3, alphas=GRID)
    with pytest.raises((ValueError, AttributeError), match="coef_"):
        selector(model).fit(X, Y).get_support()
    with pytest.raises(
        AttributeError, match=r"coef_ is of columns of X, and the bands are made by transformers; see result_\.coef"
    ):
        _ = model.fit(X, Y).coef_
    assert model.result_.coef.shape == (8, 3)
    model.set_params(bands=BANDS).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, model.result_.coef.T)


@models
def test_weights_are_laid_out_as_scikit_learns(model):
    X, Y = problem()
    assert not hasattr(BandedRidgeCV(), "coef_")
    for y in (Y, Y[:, :1], Y[:, 0]):
        fitted = model.fit(X, y)
        assert fitted.coef_.shape == Ridge().fit(X, y).coef_.shape or y.shape[1:] == (1,)
        np.testing.assert_allclose(X @ fitted.coef_.T + fitted.intercept_, fitted.predict(X), atol=1e-10)
    assert isinstance(fitted.result_, fastencode.RidgeFit | fastencode.BandedFit)
