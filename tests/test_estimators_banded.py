"""``BandedRidgeCV`` as scikit-learn sees it, and against the function it wraps."""

from __future__ import annotations

import re

import numpy as np
import pytest

from banded_cases import ALPHAS, problem

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastencode
from fastencode import BandedRidgeCV, InputError, banded_ridge_cv

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

GRID = tuple(ALPHAS.tolist())
BANDS = {"a": slice(0, 5), "b": slice(5, 13), "c": slice(13, 17)}
SEARCH = {"n_iter": 4, "random_state": 3, "alphas": GRID}


# No scaler among the bands: one that ignores sample weights fails the check that they count as copies.
@parametrize_with_checks(
    [
        BandedRidgeCV(),
        BandedRidgeCV(per_target=False, n_iter=3),
        BandedRidgeCV(
            [("all", "passthrough", slice(0, None)), ("again", "passthrough", slice(0, None))], n_iter=3, random_state=0
        ),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


MASKED = {"a": list(range(5)), "b": (np.arange(17) >= 5) & (np.arange(17) < 13), "c": list(range(13, 17))}


@pytest.mark.parametrize("form", [BANDS, {"a": 5, "b": 8, "c": 4}, MASKED], ids=["slices", "widths", "masks"])
def test_is_the_function(form):
    X, Y, _ = problem()
    model, fit = BandedRidgeCV(form, **SEARCH).fit(X, Y), banded_ridge_cv(X, Y, bands=BANDS, **SEARCH)
    for name in ("coef", "intercept", "alpha", "gammas", "deltas", "candidates", "cv_scores", "best_score", "at_edge"):
        np.testing.assert_array_equal(getattr(model, name + "_"), getattr(fit, name).T if name == "coef" else getattr(fit, name))
    np.testing.assert_array_equal(model.predict(X), fit.predict(X))
    np.testing.assert_array_equal(model.predict(X, split=True), fit.predict(X, split=True))
    np.testing.assert_array_equal(model.split_score(X, Y), fit.score(X, Y, split=True))
    assert model.band_names_ == ["a", "b", "c"] and model.score(X, Y) == pytest.approx(fit.score(X, Y).mean())


def test_bands_that_transformers_make():
    X, Y, _ = problem()
    bands = [
        ("scaled", StandardScaler(), slice(0, 5)),
        ("few", PCA(3, random_state=0), list(range(5, 13))),
        ("rest", "passthrough", [13, 0]),
    ]
    model = BandedRidgeCV(bands, **SEARCH).fit(X, Y)
    scaled, few = StandardScaler().fit(X[:, :5]), PCA(3, random_state=0).fit(X[:, 5:13])
    by_hand = {"scaled": scaled.transform(X[:, :5]), "few": few.transform(X[:, 5:13]), "rest": X[:, [13, 0]]}
    fit = banded_ridge_cv(by_hand, Y, **SEARCH)
    np.testing.assert_allclose(model.result_.coef, fit.coef, atol=1e-12)
    new = X[:7] + 1
    parts = {"scaled": scaled.transform(new[:, :5]), "few": few.transform(new[:, 5:13]), "rest": new[:, [13, 0]]}
    np.testing.assert_allclose(model.predict(new), fit.predict(parts), atol=1e-12)
    assert [name for name, _ in model.transformers_] == model.band_names_ == ["scaled", "few", "rest"]
    assert not hasattr(bands[0][1], "mean_"), "transformers are cloned"


@pytest.mark.parametrize(
    "options",
    [
        {"gammas": [[1.0, 2.0, 3.0], [3.0, 0.0, 1.0]]},
        {"scoring": "pearson"},
        {"per_target": False},
        {"fit_intercept": False},
        {"n_iter": 40, "early_stopping": 1.0},
        {"search": "auto", "n_steps": 2},
        {"search": "hill"},
        {"precision": "sloppy"},
        {"device": "cuda:99"},
        {"memory": "a lot"},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_argument_reaches_the_function(options):
    X, Y, _ = problem()
    try:
        fit = banded_ridge_cv(X, Y, bands=BANDS, **{**SEARCH, **options})
    except fastencode.FastencodeError as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            BandedRidgeCV(BANDS, **{**SEARCH, **options}).fit(X, Y)
        return
    model = BandedRidgeCV(BANDS, **{**SEARCH, **options}).fit(X, Y)
    for name in ("coef", "intercept", "alpha", "gammas", "candidates", "cv_scores", "best_score"):
        np.testing.assert_array_equal(getattr(model, name + "_"), getattr(fit, name).T if name == "coef" else getattr(fit, name))


def test_transformers_get_the_targets_and_float32_stays():
    X, Y, _ = problem()
    best = SelectKBest(f_regression, k=2)
    bands = [("best", best, slice(0, 8)), ("rest", "passthrough", slice(8, 17))]
    model = BandedRidgeCV(bands, **SEARCH).fit(X, Y[:, 0])
    chosen = clone(best).fit(X[:, :8], Y[:, 0]).transform(X[:, :8])
    fit = banded_ridge_cv({"best": chosen, "rest": X[:, 8:]}, Y[:, 0], **SEARCH)
    np.testing.assert_allclose(model.result_.coef, fit.coef, atol=1e-12)
    # One-hot columns are float64 whatever goes in.
    X[:, 0] = np.arange(60) % 4
    bands = [("kind", OneHotEncoder(), [0]), ("rest", "passthrough", slice(1, 17))]
    assert BandedRidgeCV(bands, **SEARCH).fit(X.astype(np.float32), Y.astype(np.float32)).result_.coef.dtype == np.float32


def test_a_second_fit_forgets_the_transformers_of_the_first():
    X, Y, _ = problem()
    model = BandedRidgeCV([("a", StandardScaler(), slice(0, 5)), ("b", "passthrough", slice(5, 17))], **SEARCH).fit(X, Y)
    model.set_params(bands=BANDS).fit(X, Y)
    assert not hasattr(model, "transformers_")
    np.testing.assert_array_equal(model.predict(X), banded_ridge_cv(X, Y, bands=BANDS, **SEARCH).predict(X))


def test_targets_with_nan_are_refused_in_scikit_learns_words():
    X, Y, _ = problem()
    model = BandedRidgeCV(BANDS, **SEARCH).fit(X, Y)
    Y[3, 1] = np.nan
    for call in (model.fit, model.split_score):
        with pytest.raises(ValueError, match="y contains NaN") as error:
            call(X, Y)
        assert "nan_targets" not in str(error.value)  # which neither takes


def test_sparse_output_becomes_dense():
    X, Y, _ = problem()
    X[:, 0] = np.arange(60) % 4
    model = BandedRidgeCV([("kind", OneHotEncoder(), [0]), ("rest", "passthrough", slice(1, 17))], **SEARCH).fit(X, Y)
    assert model.result_.coef.shape == (4 + 16, Y.shape[1])


def test_columns_by_name():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, Y, _ = problem()
    names = [f"f{i}" for i in range(17)]
    frame = pandas.DataFrame(X, columns=names)
    plain = BandedRidgeCV(BANDS, **SEARCH).fit(X, Y)
    mapped = BandedRidgeCV({"a": names[:5], "b": names[5:13], "c": names[13:]}, **SEARCH).fit(frame, Y)
    listed = BandedRidgeCV([("a", "passthrough", names[:5]), ("b", "passthrough", names[5:13]), ("c", "passthrough", names[13:])],
                           **SEARCH).fit(frame, Y)  # fmt: skip
    np.testing.assert_allclose(mapped.coef_, plain.coef_, atol=1e-12)
    np.testing.assert_allclose(listed.result_.coef.T, plain.coef_, atol=1e-12)
    np.testing.assert_allclose(listed.predict(frame), plain.predict(X), atol=1e-12)
    with pytest.raises(InputError, match="names column 'nose'"):
        BandedRidgeCV({"a": ["nose"], "b": names[1:]}, **SEARCH).fit(frame, Y)


def test_in_pipelines_searches_and_cross_validation():
    X, Y, _ = problem()
    runs = np.repeat(list("bacdef"), 10)
    model = BandedRidgeCV(BANDS, **SEARCH, cv="runs").fit(X, Y, groups=runs)
    np.testing.assert_array_equal(model.cv_scores_, banded_ridge_cv(X, Y, bands=BANDS, cv="runs", runs=runs, **SEARCH).cv_scores)
    pipe = make_pipeline(StandardScaler(), clone(model)).fit(X, Y, bandedridgecv__groups=runs)
    assert pipe.predict(X).shape == Y.shape
    found = GridSearchCV(BandedRidgeCV(BANDS, **SEARCH), {"n_iter": [1, 4]}, cv=GroupKFold(3)).fit(X, Y, groups=runs)
    assert found.best_params_["n_iter"] in (1, 4) and len(found.cv_results_["mean_test_score"]) == 2
    scores = cross_val_score(pipe, X, Y, groups=runs, cv=LeaveOneGroupOut(), params={"bandedridgecv__groups": runs})
    assert len(scores) == 6 and np.isfinite(scores).all()


def test_sample_weights_and_one_series():
    X, Y, _ = problem()
    w = np.arange(60) % 3 + 1.0
    model = BandedRidgeCV(BANDS, **SEARCH).fit(X, Y[:, 0], sample_weight=w)
    fit = banded_ridge_cv(X, Y[:, 0], bands=BANDS, sample_weight=w, **SEARCH)
    np.testing.assert_array_equal(model.coef_, fit.coef)
    assert model.coef_.shape == (17,) and model.gammas_.shape == (3,) and model.predict(X[:3]).shape == (3,)
    assert model.predict(X[:3], split=True).shape == (3, 3) and model.split_score(X, Y[:, 0]).shape == (3,)


def test_errors_say_what_is_wrong():
    X, Y, _ = problem()
    for bands, message in [
        (3, "neither name -> columns nor a list"),
        ([("a", "passthrough")], "neither name -> columns nor a list"),
        ([("a", "passthrough", [0]), ("a", "passthrough", [1])], "two bands are named 'a'"),
        ({"a": slice(0, 10)}, "7 columns of X are in no band"),
    ]:
        with pytest.raises(InputError, match=message):
            BandedRidgeCV(bands, **SEARCH).fit(X, Y)
    with pytest.raises(InputError, match="cv='runs' needs groups="):
        BandedRidgeCV(BANDS, cv="runs", **SEARCH).fit(X, Y)
    with pytest.raises(NotFittedError):
        BandedRidgeCV().predict(X)
    assert "BandedRidgeCV" in fastencode.__all__


def test_transformers_take_text_columns_of_a_data_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, Y, _ = problem()
    speaker = np.array(["Alice", "Rabbit", "Cat"])[np.arange(len(X)) % 3]
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(17)]).assign(speaker=speaker)
    bands = [("who", OneHotEncoder(), ["speaker"]), ("sound", "passthrough", [f"f{i}" for i in range(17)])]
    model = BandedRidgeCV(bands, **SEARCH).fit(frame, Y)
    one_hot = (speaker[:, None] == ["Alice", "Cat", "Rabbit"]).astype(float)
    fit = banded_ridge_cv({"who": one_hot, "sound": X}, Y, **SEARCH)
    np.testing.assert_allclose(model.result_.coef, fit.coef, atol=1e-12)
    np.testing.assert_allclose(model.predict(frame[:7]), fit.predict({"who": one_hot[:7], "sound": X[:7]}), atol=1e-12)
    assert model.result_.coef.dtype == np.float64
    with pytest.raises(InputError, match="'who' has dtype object"):  # passed through, text stays text
        BandedRidgeCV([("who", "passthrough", ["speaker"])], **SEARCH).fit(frame, Y)


def test_labels_of_columns_and_the_rest():
    X, Y, _ = problem()
    plain = BandedRidgeCV({"a": slice(0, 5), "b": slice(5, 17)}, **SEARCH).fit(X, Y)
    for bands in (["a"] * 5 + ["b"] * 12, np.array(["a"] * 5 + ["b"] * 12), {"a": slice(0, 5), "b": ...}):
        model = BandedRidgeCV(bands, **SEARCH)
        np.testing.assert_array_equal(clone(model).fit(X, Y).coef_, plain.coef_)
    assert BandedRidgeCV([3] * 5 + [4] * 12, **SEARCH).fit(X, Y).band_names_ == ["band 3", "band 4"]


def test_precomputed_kernels():
    X, Y, _ = problem()
    K = np.stack([X[:, :5] @ X[:, :5].T, X[:, 5:] @ X[:, 5:].T])
    model, plain = (
        BandedRidgeCV("precomputed", **SEARCH),
        BandedRidgeCV({"a": slice(0, 5), "b": slice(5, 17)}, **SEARCH).fit(X, Y),
    )
    runs, weight = np.repeat(list("bacdef"), 10), np.arange(60) % 3 + 1.0
    fit = clone(model).fit(K, Y)
    np.testing.assert_allclose(fit.predict(K[:, :7]), plain.predict(X[:7]), atol=1e-8)
    np.testing.assert_allclose(fit.predict(K[:, :7], split=True).sum(axis=0) + fit.intercept_, plain.predict(X[:7]), atol=1e-8)
    np.testing.assert_allclose(fit.score(K, Y), plain.score(X, Y), atol=1e-8)
    np.testing.assert_allclose(fit.split_score(K, Y).sum(axis=0), fit.result_.score(K, Y), atol=1e-8)
    assert not hasattr(fit, "coef_") and fit.n_features_in_ == 60
    grouped = clone(model).set_params(cv="runs").fit({"a": K[0], "b": K[1]}, Y, groups=runs, sample_weight=weight)
    wanted = banded_ridge_cv(X, Y, bands={"a": 5, "b": 12}, cv="runs", runs=runs, sample_weight=weight, **SEARCH)
    np.testing.assert_allclose(grouped.cv_scores_, wanted.cv_scores, atol=1e-8)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        cross_val_score(model, K, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        GridSearchCV(model, {"n_iter": [1, 2]}).fit(K, Y)
