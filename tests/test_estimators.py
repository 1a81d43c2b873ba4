"""The scikit-learn estimators: scikit-learn's own checks, its models and tools beside ours, and the functions they wrap."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.linear_model
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastencode
from estimator_checks import run_array_api_checks
from fastencode import InputError, RidgeCV

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

ALPHAS = tuple(np.logspace(-1, 4, 6).tolist())
RUNS = np.repeat(["b", "a", "d", "c", "e", "f"], [11, 9, 10, 12, 8, 10])


@parametrize_with_checks([RidgeCV(), RidgeCV(alphas=(1.0,)), RidgeCV(per_target=False)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_the_checks_that_need_a_setting_before_scipy_is_imported():
    run_array_api_checks([Path(__file__), Path(__file__).with_name("test_estimators_banded.py")], 6)


def make(n=60, p=8, v=5, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    Y = X @ rng.standard_normal((p, v)) + rng.standard_normal((n, v)) * np.linspace(0.5, 6, v) + 3
    return X.astype(dtype), Y.astype(dtype)


PAIRS = {
    "coef_": "coef",
    "intercept_": "intercept",
    "alpha_": "alpha",
    "alphas_": "alphas",
    "cv_scores_": "cv_scores",
    "best_score_": "best_score",
    "at_edge_": "at_edge",
}


@pytest.mark.parametrize("scoring", ["r2", "pearson", "neg_mean_squared_error"])
@pytest.mark.parametrize("options", [{}, {"per_target": False}, {"fit_intercept": False, "cv": 3, "memory": "1GB"}])
@pytest.mark.parametrize("one", [False, True])
def test_it_is_ridge_cv(scoring, options, one):
    X, Y = make()
    y = Y[:, 0] if one else Y
    options = {"scoring": scoring, **options}
    model, fit = RidgeCV(ALPHAS, **options).fit(X, y), fastencode.ridge_cv(X, y, alphas=ALPHAS, **options)
    for ours, theirs in PAIRS.items():
        wanted = getattr(fit, theirs).T if ours == "coef_" else getattr(fit, theirs)
        np.testing.assert_array_equal(getattr(model, ours), wanted, err_msg=ours)
        assert getattr(model, ours).shape == wanted.shape
    np.testing.assert_array_equal(model.predict(X), fit.predict(X))
    np.testing.assert_array_equal(model.result_.score(X, y), fit.score(X, y))


def test_the_defaults_are_those_of_ridge_cv():
    X, Y = make()
    np.testing.assert_array_equal(RidgeCV().fit(X, Y).cv_scores_, fastencode.ridge_cv(X, Y).cv_scores)
    assert repr(RidgeCV()) == "RidgeCV()"


def test_shapes():
    X, Y = make()
    for y, tail in ((Y, (5,)), (Y[:, :1], (1,)), (Y[:, 0], ())):
        model = RidgeCV(ALPHAS).fit(X, y)
        assert model.coef_.shape == (*tail, 8) and model.cv_scores_.shape == (6, *tail)
        assert np.shape(model.intercept_) == np.shape(model.alpha_) == np.shape(model.best_score_) == tail
        assert model.predict(X[:7]).shape == (7, *tail)


@pytest.mark.parametrize("intercept", [True, False])
def test_scikit_learns_leave_one_out_agrees(intercept):
    X, Y = make(n=40)
    options = {"scoring": "neg_mean_squared_error", "fit_intercept": intercept}
    ours = RidgeCV(ALPHAS, cv=40, **options).fit(X, Y)
    theirs = sklearn.linear_model.RidgeCV(ALPHAS, alpha_per_target=True, **options).fit(X, Y)
    np.testing.assert_allclose(ours.alpha_, theirs.alpha_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-9)
    np.testing.assert_allclose(ours.score(X, Y), theirs.score(X, Y), atol=1e-10)


def test_scikit_learns_search_agrees():
    """One penalty for one series: what a grid search over scikit-learn's Ridge finds."""
    X, Y = make()
    ours = RidgeCV(ALPHAS, cv=4).fit(X, Y[:, 4])
    search = GridSearchCV(sklearn.linear_model.Ridge(), {"alpha": ALPHAS}, cv=KFold(4)).fit(X, Y[:, 4])
    np.testing.assert_allclose(ours.cv_scores_, search.cv_results_["mean_test_score"], atol=1e-9)
    assert ours.alpha_ == search.best_params_["alpha"]
    np.testing.assert_allclose(ours.predict(X), search.predict(X), atol=1e-9)
    np.testing.assert_allclose(search.score(X, Y[:, 4]), ours.score(X, Y[:, 4]), atol=1e-10)


@pytest.mark.parametrize("x_dtype, y_dtype", [("f4", "f4"), ("f4", "f8"), ("f8", "f4"), ("i4", "f4")])
def test_float32_stays_float32(x_dtype, y_dtype):
    wanted = "f4" if (x_dtype, y_dtype) == ("f4", "f4") else "f8"
    X, Y = make()
    X, Y = np.round(X * 10).astype(x_dtype), Y.astype(y_dtype)
    model = RidgeCV(ALPHAS).fit(X, Y, sample_weight=np.linspace(1, 2, len(X)))
    assert model.coef_.dtype == model.intercept_.dtype == model.cv_scores_.dtype == model.predict(X).dtype == wanted


def test_inputs_are_not_written_to():
    X, Y = make()
    weights = np.linspace(0, 2, len(X))
    kept = [a.copy() for a in (X, Y, weights)]
    for array in (X, Y, weights):
        array.flags.writeable = False
    RidgeCV(ALPHAS, cv="runs").fit(X, Y, groups=RUNS, sample_weight=weights)
    for array, before in zip((X, Y, weights), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_clone_and_pickle():
    X, Y = make()
    model = RidgeCV(ALPHAS, cv="runs", scoring="pearson", memory="1GB").fit(X, Y, groups=RUNS)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert clone(model).get_params() == model.get_params()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.cv_scores_, model.cv_scores_)
    assert np.shares_memory(again.result_.coef, again.coef_)


def test_data_frames():
    X, Y = make()
    names = [f"feature {i}" for i in range(8)]
    frame = pd.DataFrame(X, columns=names)
    model = RidgeCV(ALPHAS, cv="runs").fit(frame, pd.DataFrame(Y), groups=pd.Series(RUNS), sample_weight=pd.Series(np.ones(60)))
    assert list(model.feature_names_in_) == names and model.n_features_in_ == 8
    np.testing.assert_allclose(model.predict(frame), RidgeCV(ALPHAS, cv="runs").fit(X, Y, groups=RUNS).predict(X), atol=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[names[::-1]])
    pipe = make_pipeline(StandardScaler().set_output(transform="pandas"), RidgeCV(ALPHAS)).fit(frame, Y)
    assert list(pipe[-1].feature_names_in_) == names
    plain = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(pipe.predict(frame), RidgeCV(ALPHAS).fit(plain, Y).predict(plain), atol=1e-9)


class Recorder:
    """A splitter that keeps what it was given."""

    def split(self, X, y=None, groups=None):
        self.seen = X, y, groups
        yield from LeaveOneGroupOut().split(X, y, groups)


def test_groups_are_runs():
    X, Y = make()
    for cv in (3, "runs"):
        wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS, cv=cv, runs=RUNS).cv_scores
        np.testing.assert_array_equal(RidgeCV(ALPHAS, cv=cv).fit(X, Y, groups=RUNS).cv_scores_, wanted)
        np.testing.assert_array_equal(RidgeCV(ALPHAS, cv=cv).fit(X, Y, groups=RUNS.tolist()).cv_scores_, wanted)
    blocks, whole_runs = RidgeCV(ALPHAS, cv=3).fit(X, Y), RidgeCV(ALPHAS, cv=3).fit(X, Y, groups=RUNS)
    assert not np.allclose(blocks.cv_scores_, whole_runs.cv_scores_)
    left_out = RidgeCV(ALPHAS, cv="runs").fit(X, Y, groups=RUNS).cv_scores_
    np.testing.assert_allclose(RidgeCV(ALPHAS, cv=LeaveOneGroupOut()).fit(X, Y, groups=RUNS).cv_scores_, left_out, atol=1e-12)
    splitter = Recorder()
    np.testing.assert_allclose(RidgeCV(ALPHAS, cv=splitter).fit(X, Y, RUNS).cv_scores_, left_out, atol=1e-12)
    for seen, given in zip(splitter.seen, (X, Y, RUNS), strict=True):
        np.testing.assert_array_equal(seen, given)


def test_errors_are_scikit_learns_or_name_the_next_step():
    X, Y = make()
    with pytest.raises(InputError, match="groups="):
        RidgeCV(cv="runs").fit(X, Y)
    with pytest.raises(InputError, match="groups .* 59 labels .* 60 rows"):
        RidgeCV(cv="runs").fit(X, Y, groups=RUNS[1:])
    with pytest.raises(InputError, match="alphas holds -1"):
        RidgeCV(alphas=(-1.0, 2.0)).fit(X, Y)
    with pytest.raises(InputError, match="scoring='r'"):
        RidgeCV(scoring="r").fit(X, Y)
    with pytest.raises(InputError, match="precision='vague'"):
        RidgeCV(precision="vague").fit(X, Y)
    with pytest.raises(InputError, match="memory='much'"):
        RidgeCV(memory="much").fit(X, Y)
    with pytest.raises(fastencode.FastencodeError, match="device"):
        RidgeCV(device="abacus").fit(X, Y)
    with pytest.raises(ValueError, match="NaN"):
        RidgeCV().fit(X, np.where(Y > 4, np.nan, Y))
    with pytest.raises(NotFittedError):
        RidgeCV().predict(X)


def test_the_edge_is_warned_about_once():
    X, Y = make()
    words = "All penalties of the grid seem to be too large, down to the smallest, 1e\\+05"
    with pytest.warns(fastencode.FastencodeWarning, match=words) as told:
        model = RidgeCV(alphas=(1e5, 1e6)).fit(X, Y)
    assert len(told) == 1 and (np.abs(model.at_edge_) == 1).all()


# Sample weights. What scikit-learn's checks demand is that zero means absent and an integer means that many copies; the rest is
# the solver's promise: weighted means in the fit, weighted scores on held-out rows, folds averaged alike.


def weighted_r2(y, p, w):
    mean = np.average(y, axis=0, weights=w)
    return 1 - np.average((y - p) ** 2, axis=0, weights=w) / np.average((y - mean) ** 2, axis=0, weights=w)


def weighted_pearson(y, p, w):
    spreads = [np.cov(a, b, aweights=w) for a, b in zip(y.T, p.T, strict=True)]
    return np.array([c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]) for c in spreads])


def weighted_neg_mse(y, p, w):
    return -np.average((y - p) ** 2, axis=0, weights=w)


WEIGHTED = {"r2": weighted_r2, "pearson": weighted_pearson, "neg_mean_squared_error": weighted_neg_mse}


@pytest.mark.parametrize("scoring", WEIGHTED)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("shape", [(60, 8), (40, 70)])
def test_weights_are_those_of_scikit_learns_ridge(scoring, intercept, shape):
    X, Y = make(*shape, seed=1)
    w = np.random.default_rng(2).uniform(0.1, 5, len(X))
    w[[0, 7, 21, 22]] = 0
    folds = list(KFold(4, shuffle=True, random_state=0).split(X))
    ours = RidgeCV(ALPHAS, cv=folds, scoring=scoring, fit_intercept=intercept).fit(X, Y, sample_weight=w)
    scores = np.zeros((len(ALPHAS), Y.shape[1]))
    for train, test in folds:
        for a, alpha in enumerate(ALPHAS):
            ridge = sklearn.linear_model.Ridge(alpha=alpha, fit_intercept=intercept, solver="cholesky")
            p = ridge.fit(X[train], Y[train], sample_weight=w[train]).predict(X[test])
            scores[a] += WEIGHTED[scoring](Y[test], p, w[test]) / len(folds)
    np.testing.assert_allclose(ours.cv_scores_, scores, atol=1e-8)
    full = sklearn.linear_model.Ridge(alpha=ours.alpha_, fit_intercept=intercept, solver="cholesky").fit(X, Y, sample_weight=w)
    np.testing.assert_allclose(ours.coef_, full.coef_, atol=1e-8)
    np.testing.assert_allclose(ours.intercept_, np.broadcast_to(full.intercept_, 5), atol=1e-8)
    np.testing.assert_allclose(ours.score(X, Y, sample_weight=w), full.score(X, Y, sample_weight=w), atol=1e-10)


def same(one, other, X):
    np.testing.assert_array_equal(one.alpha_, other.alpha_)
    np.testing.assert_allclose(one.cv_scores_, other.cv_scores_, atol=1e-8)
    np.testing.assert_allclose(one.coef_, other.coef_, atol=1e-8)
    np.testing.assert_allclose(one.predict(X), other.predict(X), atol=1e-8)


CENSORED = np.array([0, 1, 2, 13, *range(30, 42), 59])  # among them the whole of run "c"


@pytest.mark.parametrize("cv, groups", [(5, None), (3, RUNS), ("runs", RUNS)])
@pytest.mark.parametrize("options", [{}, {"per_target": False, "scoring": "pearson"}, {"fit_intercept": False}])
def test_a_row_of_weight_zero_is_absent(cv, groups, options):
    """Also from the making of blocks, from the list of runs, and whatever stands in it."""
    X, Y = make()
    kept = np.setdiff1d(np.arange(60), CENSORED)
    wild_X, wild_Y = X.copy(), Y.copy()
    wild_X[CENSORED], wild_Y[CENSORED] = -1e4, 1e5
    w = np.random.default_rng(3).uniform(0.5, 2, 60)
    w[CENSORED] = 0
    model = RidgeCV(ALPHAS, cv=cv, **options)
    censored = clone(model).fit(wild_X, wild_Y, groups, sample_weight=w)
    same(censored, clone(model).fit(X[kept], Y[kept], None if groups is None else groups[kept], sample_weight=w[kept]), X)
    censored = clone(model).fit(wild_X, wild_Y, groups, sample_weight=w > 0)
    same(censored, clone(model).fit(X[kept], Y[kept], None if groups is None else groups[kept]), X)


def test_indices_and_splitters_still_see_rows_of_weight_zero():
    X, Y = make()
    w = np.ones(60)
    w[CENSORED] = 0
    kept, place = np.flatnonzero(w), np.cumsum(w).astype(int) - 1
    folds = [tuple(rows[w[rows] > 0] for rows in fold) for fold in KFold(4).split(X)]
    renamed = RidgeCV(ALPHAS, cv=[(place[train], place[test]) for train, test in folds]).fit(X[kept], Y[kept])
    for cv in (KFold(4), list(KFold(4).split(X)), folds):
        same(RidgeCV(ALPHAS, cv=cv).fit(X, Y, sample_weight=w), renamed, X)


@pytest.mark.parametrize("scoring", WEIGHTED)
@pytest.mark.parametrize("shape", [(60, 8), (40, 70)])
@pytest.mark.parametrize("intercept", [True, False])
def test_an_integer_weight_is_that_many_copies(scoring, shape, intercept):
    X, Y = make(*shape)
    w = np.random.default_rng(4).integers(0, 4, len(X))
    rows = np.repeat(np.arange(len(X)), w)
    folds = list(KFold(3).split(X))
    copies = [tuple(np.flatnonzero(np.isin(rows, part)) for part in fold) for fold in folds]
    model = RidgeCV(ALPHAS, scoring=scoring, fit_intercept=intercept)
    weighted = clone(model).set_params(cv=folds).fit(X, Y, sample_weight=w)
    same(weighted, clone(model).set_params(cv=copies).fit(X[rows], Y[rows]), X)


def test_the_scale_of_weights_is_that_of_penalties():
    """Weights are not normalised, as in scikit-learn; scores do not depend on their scale."""
    X, Y = make()
    w = np.random.default_rng(5).uniform(0.5, 2, 60)
    one = RidgeCV(ALPHAS).fit(X, Y, sample_weight=w)
    ten = RidgeCV(tuple(10 * a for a in ALPHAS)).fit(X, Y, sample_weight=10 * w)
    np.testing.assert_allclose(ten.alpha_, 10 * one.alpha_)
    np.testing.assert_allclose(ten.cv_scores_, one.cv_scores_, atol=1e-8)
    np.testing.assert_allclose(ten.coef_, one.coef_, atol=1e-8)
    same(RidgeCV(ALPHAS).fit(X, Y, sample_weight=1.0), RidgeCV(ALPHAS).fit(X, Y), X)


def test_bad_weights_are_refused():
    X, Y = make()
    ones = np.ones(60)
    for weights, message in (
        (np.zeros(60), "weight.*zero"),
        (np.where(np.arange(60) == 7, -0.5, ones), "-0.5 at row 7"),
        (np.where(np.arange(60) == 7, np.nan, ones), "NaN"),
        (ones[1:], "sample_weight"),
        (ones[:, None], "1D"),
    ):
        with pytest.raises(ValueError, match=message):
            RidgeCV().fit(X, Y, sample_weight=weights)
    half = (np.arange(60) < 30).astype(float)
    for weights in (half, 1 - half):  # nothing to fit on in one fold, nothing to score on in the other
        with pytest.raises(InputError, match="fold [01]"):
            RidgeCV(cv=KFold(2)).fit(X, Y, sample_weight=weights)
    with pytest.raises(InputError):
        RidgeCV(cv=5).fit(X, Y, sample_weight=(np.arange(60) < 4).astype(float))  # five blocks of four rows


# scikit-learn's tools.


@pytest.fixture(params=[False, True], ids=["routing off", "routing on"])
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def test_pipeline(routing):
    X, Y = make()
    w = np.linspace(0.5, 2, 60)
    model = RidgeCV(ALPHAS, cv="runs")
    if routing:
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model.set_fit_request(sample_weight=True))
        pipe.fit(X, Y, groups=RUNS, sample_weight=w)
    else:
        pipe = make_pipeline(StandardScaler(), model).fit(X, Y, ridgecv__groups=RUNS, ridgecv__sample_weight=w)
    wanted = RidgeCV(ALPHAS, cv="runs").fit(StandardScaler().fit_transform(X), Y, groups=RUNS, sample_weight=w)
    np.testing.assert_array_equal(pipe[-1].cv_scores_, wanted.cv_scores_)
    assert not np.array_equal(wanted.cv_scores_, wanted.fit(pipe[0].transform(X), Y, groups=RUNS).cv_scores_)


def test_cross_val_score_with_groups(routing):
    X, Y = make()
    params = {"params": {"groups": RUNS}} if routing else {"params": {"groups": RUNS}, "groups": RUNS}
    scores = cross_val_score(RidgeCV(ALPHAS, cv="runs"), X, Y, cv=GroupKFold(3), **params)
    for score, (train, test) in zip(scores, GroupKFold(3).split(X, Y, RUNS), strict=True):
        inner = fastencode.ridge_cv(X[train], Y[train], alphas=ALPHAS, cv="runs", runs=RUNS[train])
        np.testing.assert_allclose(score, inner.score(X[test], Y[test]).mean(), atol=1e-10)


def test_what_is_not_requested_is_not_passed_on():
    with sklearn.config_context(enable_metadata_routing=True):
        assert RidgeCV().get_metadata_routing().fit.requests == {"groups": True, "sample_weight": None}
        pipe = make_pipeline(StandardScaler(), RidgeCV())
        with pytest.raises(ValueError, match="sample_weight"):
            pipe.fit(*make(), sample_weight=np.ones(60))


def test_grid_search(routing):
    X, Y = make()
    grid = {"scoring": ["r2", "pearson"], "precision": ["exact", "fast"], "alphas": [ALPHAS, (10.0,)], "cv": [2, 3]}
    search = GridSearchCV(RidgeCV(), grid, cv=GroupKFold(2)).fit(X, Y, groups=RUNS)
    assert len(search.cv_results_["params"]) == 16 and np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_params_
    # Outside routing the search keeps the groups to itself; with it the estimator has asked for them.
    wanted = RidgeCV(**best).fit(X, Y, groups=RUNS if routing else None)
    np.testing.assert_array_equal(search.best_estimator_.cv_scores_, wanted.cv_scores_)


# How it is loaded.


def test_it_is_loaded_on_demand():
    code = (
        "import sys, fastencode\n"
        "assert 'RidgeCV' in fastencode.__all__ and 'RidgeCV' in dir(fastencode)\n"
        "assert 'sklearn' not in sys.modules\n"
        "assert fastencode.RidgeCV.__module__ == 'fastencode.estimators.ridge' and 'sklearn' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_scikit_learn_the_extra_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"  # what importing a library that is not installed looks like
        "import fastencode\n"
        "from fastencode import *\n"
        "from fastencode.errors import MissingLibraryError\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        fastencode.RidgeCV\n"
        "    except MissingLibraryError as error:\n"
        "        assert \"pip install 'fastencode-neuro[sklearn]'\" in str(error), error\n"
        "    else:\n"
        "        raise AssertionError('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_readmes_examples_run():
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    examples = [block for block in blocks if "RidgeCV" in block]
    scope: dict = {}
    exec(blocks[0].replace("1000", "20"), scope)  # X and Y, fewer voxels
    assert len(examples) == 2
    with sklearn.config_context():  # given back at the end, whatever an example sets
        for example in examples:
            exec(example, scope)
            assert scope["model"][-1].alpha_.shape == (20,)
