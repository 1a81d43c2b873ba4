"""ridge_cv against packages and numbers made by others: himalaya, scikit-learn, a published encoding code, real fMRI."""

from __future__ import annotations

import csv

import himalaya.ridge
import himalaya.scoring
import nibabel
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import sklearn.model_selection

import fastencode

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid", "ignore:.*himalaya.*", "ignore::FutureWarning")

CATEGORIES = ["bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"]


def make(n, p, v, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal((p, v)) / np.sqrt(p) + rng.standard_normal((n, v))


@pytest.mark.parametrize("shape", [(90, 20, 30), (60, 150, 30)])
@pytest.mark.parametrize("intercept", [True, False])
def test_himalaya_agrees(shape, intercept):
    X, Y = make(*shape)
    alphas = np.logspace(-1, 5, 10)
    ours = fastencode.ridge_cv(X, Y, alphas=alphas, cv=3, fit_intercept=intercept)
    theirs = himalaya.ridge.RidgeCV(
        alphas=alphas, fit_intercept=intercept, cv=3, solver_params={"score_func": himalaya.scoring.r2_score}
    ).fit(X, Y)
    np.testing.assert_allclose(ours.alpha, theirs.best_alphas_, rtol=1e-12)
    np.testing.assert_allclose(ours.best_score, theirs.cv_scores_, atol=1e-9)
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-9)
    np.testing.assert_allclose(ours.score(X, Y), theirs.score(X, Y), atol=1e-9)


@pytest.mark.parametrize("shape", [(80, 15, 8), (50, 120, 8)])
@pytest.mark.parametrize("intercept", [True, False])
def test_scikit_learn_ridge_per_fold_agrees(shape, intercept):
    X, Y = make(*shape, seed=1)
    alphas, folds = np.logspace(-1, 4, 6), sklearn.model_selection.KFold(4, shuffle=True, random_state=0)
    ours = fastencode.ridge_cv(X, Y, alphas=alphas, cv=folds, fit_intercept=intercept)
    scores = np.zeros((6, shape[2]))
    for train, test in folds.split(X):
        for a, alpha in enumerate(alphas):
            model = sklearn.linear_model.Ridge(alpha=alpha, fit_intercept=intercept, solver="svd").fit(X[train], Y[train])
            scores[a] += sklearn.metrics.r2_score(Y[test], model.predict(X[test]), multioutput="raw_values") / 4
    np.testing.assert_allclose(ours.cv_scores, scores, atol=1e-9)
    full = sklearn.linear_model.Ridge(alpha=ours.alpha, fit_intercept=intercept, solver="cholesky").fit(X, Y)
    np.testing.assert_allclose(ours.coef, full.coef_.T, atol=1e-8)
    np.testing.assert_allclose(ours.intercept, np.broadcast_to(full.intercept_, shape[2]), atol=1e-8)


def test_scikit_learn_leave_one_out_agrees():
    X, Y = make(40, 6, 10, seed=2)
    alphas = np.logspace(-2, 3, 8)
    ours = fastencode.ridge_cv(X, Y, alphas=alphas, cv=40, scoring="neg_mean_squared_error")
    theirs = sklearn.linear_model.RidgeCV(alphas, alpha_per_target=True, scoring="neg_mean_squared_error").fit(X, Y)
    np.testing.assert_allclose(ours.alpha, theirs.alpha_)
    np.testing.assert_allclose(ours.best_score, theirs.best_score_, atol=1e-10)
    np.testing.assert_allclose(ours.coef, theirs.coef_.T, atol=1e-9)


def test_scores_agree_with_scikit_learn():
    Y, P = make(30, 4, 4)[1], make(30, 4, 4, seed=5)[1]
    np.testing.assert_allclose(fastencode.r2(Y, P), sklearn.metrics.r2_score(Y, P, multioutput="raw_values"), atol=1e-13)
    wanted = [np.corrcoef(Y[:, v], P[:, v])[0, 1] for v in range(4)]
    np.testing.assert_allclose(fastencode.pearson(Y, P), wanted, atol=1e-13)


@pytest.fixture(scope="module")
def published(shared_data):
    path = shared_data / "ridge" / "ridge_haxby.npz"
    if not path.is_file():
        pytest.skip(f"reference output not found: {path}")
    return dict(np.load(path))


def published_folds(published):
    n = len(published["Rstim"])
    return [(np.setdiff1d(np.arange(n), held), held) for held in published["boot_valinds"]]


def test_published_scores_and_weights(published):
    """That code's penalty is the square root of ours, and it has no intercept."""
    X, Y, alphas = published["Rstim"], published["Rresp"], published["alphas"] ** 2
    n, m = len(X), len(published["Pstim"])
    both = np.vstack([X, published["Pstim"]]), np.vstack([Y, published["Presp"]])
    split = [(np.arange(n), np.arange(n, n + m))]
    fit = fastencode.ridge_cv(*both, alphas=alphas, cv=split, scoring="pearson", fit_intercept=False)
    np.testing.assert_allclose(fit.cv_scores, published["ridge_corr"], atol=1e-8)
    fit = fastencode.ridge_cv(X, Y, alphas=[10.0**2], fit_intercept=False)
    np.testing.assert_allclose(fit.coef, published["wt_alpha10"], atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(fit.coef), 8.43839976, atol=5e-9)


def test_published_bootstrap(published):
    X, Y, folds = published["Rstim"], published["Rresp"], published_folds(published)
    options = {"alphas": published["alphas"] ** 2, "cv": folds, "scoring": "pearson", "fit_intercept": False}
    fit = fastencode.ridge_cv(X, Y, **options)
    np.testing.assert_allclose(fit.cv_scores, published["boot_corrs"].mean(axis=2), atol=1e-8)
    np.testing.assert_allclose(np.sqrt(fit.alpha), published["boot_valphas"], rtol=1e-12)
    np.testing.assert_allclose(fit.coef, published["boot_wt"], atol=1e-8)
    r = fastencode.pearson(published["Presp"], fit.predict(published["Pstim"]))
    np.testing.assert_allclose(r, published["boot_corr"], atol=1e-8)
    assert (round(r.mean(), 6), round(r.max(), 6)) == (0.133016, 0.713848)
    single = fastencode.ridge_cv(X, Y, **options, per_target=False)
    np.testing.assert_allclose(np.sqrt(single.alpha), 10.0, rtol=1e-12)
    r = fastencode.pearson(published["Presp"], single.predict(published["Pstim"]))
    np.testing.assert_allclose(r, published["single_corr"], atol=1e-8)


@pytest.fixture(scope="module")
def haxby(shared_data):
    """Boxcars at t = 2.5 k s, delays 1 to 4 that do not cross runs, voxels z-scored per run."""
    folder = shared_data / "haxby"
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder}")
    mask = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj) > 0
    bold = np.asarray(nibabel.load(folder / "bold.nii.gz").dataobj, dtype=float)[mask].T
    designs, responses, times = [], [], 2.5 * np.arange(121)
    for run in range(12):
        boxes = np.zeros((121, len(CATEGORIES)))
        with open(folder / f"events_run{run + 1:03d}.tsv", encoding="utf-8") as file:
            for event in csv.DictReader(file, delimiter="\t"):
                onset, duration = float(event["onset"]), float(event["duration"])
                boxes[(times >= onset) & (times < onset + duration), CATEGORIES.index(event["trial_type"])] = 1
        designs.append(np.hstack([np.vstack([np.zeros((d, 8)), boxes[:-d]]) for d in (1, 2, 3, 4)]))
        part = bold[run * 121 : (run + 1) * 121]
        responses.append((part - part.mean(axis=0)) / part.std(axis=0))
    return np.vstack(designs), np.vstack(responses), np.repeat(np.arange(12), 121)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_real_fmri_reaches_the_known_correlations(haxby, dtype):
    X, Y, runs = haxby[0].astype(dtype), haxby[1].astype(dtype), haxby[2]
    fit = fastencode.ridge_cv(X, Y, alphas=[1.0, 100.0], cv="runs", runs=runs, scoring="pearson")
    r = fit.cv_scores[0].astype(float)
    assert [round(float(x), 5) for x in (r.mean(), np.median(r), r.max())] == [0.16483, 0.11890, 0.72038]
    assert (int(r.argmax()), int((r > 0.2).sum())) == (85, 172)
    assert round(float(fit.cv_scores[1].astype(float).mean()), 5) == 0.13645
