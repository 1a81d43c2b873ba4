"""ridge_cv against naive float64 refitting, over generated shapes, dtypes, memory orders, folds, grids and scores."""

from __future__ import annotations

import warnings
from unittest import mock

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastencode
import reference
from fastencode import kernels
from fastencode.errors import FastencodeWarning, InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.plan import directions
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import fit_plan
from fastencode.solve.score.choose import TIE_TOLERANCE, choose_alphas

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

SCORINGS = ["r2", "pearson", "neg_mean_squared_error"]


def make(n, p, v, dtype=np.float64, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    Y = X @ rng.standard_normal((p, v)) / np.sqrt(p) + noise * rng.standard_normal((n, v)) + rng.standard_normal(v) * 5
    return (X + 3).astype(dtype), Y.astype(dtype)


def laid_out(array, order):
    if order == "strided":
        return np.repeat(array, 2, axis=1)[:, ::2]
    array = np.array(array, order=order[0])
    if order.endswith("read-only"):
        array.flags.writeable = False
    return array


def fit_with(X, Y, strategy, scoring="r2", per_target=True, **options):
    problem = Problem.check(X, **{"alphas": [1.0], **options}, response_dtype=np.asarray(Y).dtype)
    return fit_plan(make_plan(problem, strategy), Y, scoring=scoring, per_target=per_target)


@st.composite
def problems(draw):
    n, p, v = draw(st.integers(6, 40)), draw(st.integers(1, 30)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    X, Y = make(n, p, v, dtype, seed)
    if draw(st.booleans()):
        X[:, rng.integers(p)] = 2.5  # a constant feature
    if draw(st.booleans()) and p > 1:
        X[:, 0] = X[:, -1]  # rank-deficient
    if draw(st.booleans()):
        Y[:, rng.integers(v)] = 0.1  # a constant voxel
    kind = draw(st.sampled_from(["blocks", "overlapping", "gaps", "repeats"]))
    if kind == "blocks":
        cv = draw(st.integers(2, n // 2))
    else:
        cv = []
        for _ in range(draw(st.integers(1, 3))):
            order = rng.permutation(n)
            n_test = int(rng.integers(2, n - 3))
            train = order[n_test:] if kind == "overlapping" else order[n_test : n_test + int(rng.integers(2, n - n_test))]
            test = rng.choice(order[:n_test], n_test) if kind == "repeats" else np.sort(order[:n_test])
            cv.append((np.sort(train), test))
    alphas = 10.0 ** np.array(draw(st.lists(st.integers(-2, 8), min_size=1, max_size=5)))
    orders = st.sampled_from(["C", "F", "strided", "C read-only", "F read-only"])
    return {
        "X": laid_out(X, draw(orders)),
        "Y": laid_out(Y, draw(orders)),
        "alphas": alphas,
        "cv": cv,
        "scoring": draw(st.sampled_from(SCORINGS)),
        "fit_intercept": draw(st.booleans()),
    }


def folds_of(cv, n):
    if not isinstance(cv, int):
        return cv
    tests = np.array_split(np.arange(n), cv)
    return [(np.setdiff1d(np.arange(n), test), test) for test in tests]


@settings(max_examples=160, deadline=None, derandomize=True)
@given(problem=problems(), strategy=st.sampled_from(["primal", "dual"]), whole_rows=st.sampled_from([0, 32]))
def test_equal_to_naive_refitting(problem, strategy, whole_rows):
    X, Y, scoring, intercept = (problem[k] for k in ("X", "Y", "scoring", "fit_intercept"))
    before = X.copy(), Y.copy()
    # Small folds in the form of large ones, too.
    with mock.patch("fastencode.solve.plan.operators.WHOLE_ROWS", dict.fromkeys((True, False), whole_rows)):
        fit = fit_with(X, Y, strategy, **{k: problem[k] for k in ("alphas", "cv", "scoring", "fit_intercept")})
    assert np.array_equal(X, before[0]) and np.array_equal(Y, before[1])
    alphas = np.unique(problem["alphas"])
    assert np.array_equal(fit.alphas, alphas)
    scores = reference.cv_scores(X, Y, alphas, folds_of(problem["cv"], len(X)), scoring, intercept)
    # A score of few rows magnifies the rounding of predictions by how far off they are; penalties start at 1e-2 of unit features.
    tolerance = (2e-4 if X.dtype == np.float32 else 1e-9) * (1 + np.abs(scores).max())
    np.testing.assert_allclose(fit.cv_scores, scores, atol=tolerance, rtol=0)
    assert fit.coef.dtype == fit.intercept.dtype == fit.cv_scores.dtype == X.dtype
    for v in range(Y.shape[1]):
        slack = TIE_TOLERANCE * (np.var(Y[:, v]) if scoring == "neg_mean_squared_error" else 1) + 2 * tolerance
        chosen = np.flatnonzero(alphas == fit.alpha[v])[0]
        assert scores[chosen, v] >= scores[:, v].max() - slack
        coef, constant = reference.weights(X, Y[:, v], fit.alpha[v], intercept)
        size = np.abs(coef).max() + np.abs(constant) + 1e-3
        precise = 2e-4 if X.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(fit.coef[:, v], coef, atol=precise * size)
        np.testing.assert_allclose(fit.intercept[v], constant, atol=10 * precise * size)


def test_choice_is_the_references_choice_where_scores_differ():
    X, Y = make(60, 8, 40, seed=3)
    alphas = np.logspace(-1, 5, 13)
    fit = fastencode.ridge_cv(X, Y, alphas=alphas, cv=4)
    scores = reference.cv_scores(X, Y, alphas, folds_of(4, 60), "r2", True)
    assert np.array_equal(fit.alpha, alphas[choose_alphas(scores, TIE_TOLERANCE)])
    np.testing.assert_allclose(fit.best_score, scores.max(axis=0), atol=TIE_TOLERANCE)


@pytest.mark.parametrize("strategy", ["primal", "dual"])
@pytest.mark.parametrize("shape", [(60, 8), (30, 50)])
@pytest.mark.parametrize("test", [[0, 0, 1, 2, 3, 4, 5, 6, 7, 8], [0] * 9 + [1], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_rows_that_a_test_set_repeats_are_scored_as_often(strategy, shape, test, scoring):
    (X, Y), folds = make(*shape, 3), [(np.arange(10, shape[0]), np.array(test))]
    fit = fit_with(X, Y, strategy, scoring, alphas=[0.1, 1.0, 10.0], cv=folds)
    wanted = reference.cv_scores(X, Y, [0.1, 1.0, 10.0], folds, scoring, True)
    np.testing.assert_allclose(fit.cv_scores, wanted, atol=1e-9 * (1 + np.abs(wanted).max()), rtol=0)


def test_ties_go_to_the_larger_penalty():
    scores = np.array([[0.5, 0.1, 0.0], [0.5 - 0.5e-6, 0.3, 0.0], [0.4, 0.3 - 2e-6, 0.0]])
    assert choose_alphas(scores, 1e-6).tolist() == [1, 1, 2]


def test_float32_chooses_what_float64_chooses_to_1e20():
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((150, 40)).astype(np.float32), rng.standard_normal((150, 1500)).astype(np.float32)
    Y[:, 700:] += X @ rng.standard_normal((40, 800)).astype(np.float32) * rng.uniform(0, 1, 800).astype(np.float32)
    alphas = np.logspace(-3, 20, 24)
    narrow, wide = (fastencode.ridge_cv(X.astype(t), Y.astype(t), alphas=alphas, cv=3) for t in (np.float32, np.float64))
    assert np.mean(narrow.alpha == wide.alpha) >= 0.999
    assert np.mean(wide.alpha[:700] == 1e20) > 0.3  # noise does go to the end of the grid
    np.testing.assert_allclose(narrow.cv_scores, wide.cv_scores, atol=2e-6)


@pytest.mark.parametrize("strategy", ["primal", "dual"])
def test_float32_with_a_huge_mean_and_a_far_outlier(strategy):
    X, Y = make(90, 12, 6, seed=8)
    X, Y = X + 1000, Y + 5000
    X[5] *= 50
    X, Y = X.astype(np.float32), Y.astype(np.float32)
    fit = fit_with(X, Y, strategy, alphas=[1.0, 100.0], cv=3)
    scores = reference.cv_scores(X, Y, [1.0, 100.0], folds_of(3, 90), "r2", True)
    np.testing.assert_allclose(fit.cv_scores, scores, atol=1e-3 * (1 + np.abs(scores).max()))


@pytest.mark.parametrize("strategy", ["primal", "dual"])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_constant_target_and_target_constant_in_training_score_zero_never_nan(scoring, strategy):
    X, Y = make(40, 5, 4, np.float32, seed=2)
    Y[:, 0] = 0.1
    Y[20:, 1] = 0.3  # constant where the first fold trains
    fit = fit_with(X, Y, strategy, alphas=[0.1, 10.0], cv=2, scoring=scoring)
    assert np.isfinite(fit.cv_scores).all() and np.isfinite(fit.coef).all()
    assert np.array_equal(fit.coef[:, 0], np.zeros(5)) and fit.intercept[0] == np.float32(0.1)
    if scoring != "neg_mean_squared_error":
        assert np.array_equal(fit.cv_scores[:, 0], np.zeros(2))
    if scoring == "pearson":
        one = fit_with(X, Y[:, 1:2], strategy, alphas=[0.1], cv=[(np.arange(20, 40), np.arange(20))], scoring=scoring)
        assert one.cv_scores[0, 0] == 0  # the prediction is constant


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "p", "alpha"), [(40, 400, 1.0), (40, 60, 1e-3), (100, 1000, 1.0), (200, 20, 1.0)])
@pytest.mark.parametrize("parts", [4, 8, 20])
def test_a_prediction_constant_where_it_is_tested_correlates_with_nothing(n, p, alpha, parts, dtype):
    """Features silent through a run: what is left of their predictions is rounding, which grows with the condition of a fold."""
    X, Y = make(n, p, 60, dtype, seed=4)
    test = np.arange(n) // (n // parts) == parts // 2
    X[test] = 0
    fit = fastencode.ridge_cv(X, Y, alphas=[alpha], cv=[(np.flatnonzero(~test), np.flatnonzero(test))], scoring="pearson")
    assert np.array_equal(fit.cv_scores, np.zeros((1, 60)))
    X[test, 0] = 1e-4 * np.arange(test.sum())
    fit = fastencode.ridge_cv(X, Y, alphas=[alpha], cv=[(np.flatnonzero(~test), np.flatnonzero(test))], scoring="pearson")
    assert dtype == np.float32 or np.abs(fit.cv_scores).min() > 0


def test_one_series_loses_its_voxel_axis():
    X, Y = make(50, 4, 1)
    fit, whole = fastencode.ridge_cv(X, Y[:, 0], alphas=[1.0, 10.0]), fastencode.ridge_cv(X, Y, alphas=[1.0, 10.0])
    assert fit.coef.shape == (4,) and fit.cv_scores.shape == (2,) and np.ndim(fit.alpha) == 0 and np.ndim(fit.intercept) == 0
    assert fit.predict(X).shape == (50,) and np.ndim(fit.score(X, Y[:, 0])) == 0
    assert np.array_equal(fit.coef, whole.coef[:, 0]) and fit.alpha == whole.alpha[0]
    assert fit.score(X, Y[:, 0]) == whole.score(X, Y)[0]


def test_one_penalty_for_all_voxels_is_the_best_mean():
    X, Y = make(60, 6, 30, noise=2)
    alphas = np.logspace(-1, 4, 11)
    fit = fastencode.ridge_cv(X, Y, alphas=alphas, per_target=False, cv=3)
    each = fastencode.ridge_cv(X, Y, alphas=alphas, cv=3)
    assert np.array_equal(fit.cv_scores, each.cv_scores)
    assert np.unique(fit.alpha).tolist() == [alphas[np.argmax(each.cv_scores.mean(axis=1))]]
    coef, constant = reference.weights(X, Y[:, 4], fit.alpha[0], True)
    np.testing.assert_allclose(fit.coef[:, 4], coef, atol=1e-10)
    np.testing.assert_allclose(fit.intercept[4], constant, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_penalties_beyond_every_range_give_the_limits(dtype):
    X, Y = make(40, 5, 6, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit = fastencode.ridge_cv(X, Y, alphas=[1e-300, 1e20, 1e60, 1e300], cv=4, scoring="pearson")
        last = fastencode.ridge_cv(X, Y, alphas=[1e300], cv=4)
    least = reference.cv_scores(X, Y, [1e-12], folds_of(4, 40), "pearson", True)
    np.testing.assert_allclose(fit.cv_scores[0], least[0], atol=1e-5)
    np.testing.assert_allclose(fit.cv_scores[2:], np.repeat(fit.cv_scores[1:2], 2, axis=0), atol=1e-5)  # direction stays
    assert float(np.abs(last.coef).max()) < 1e-290 and np.allclose(last.intercept, Y.mean(axis=0), rtol=1e-5)


def test_edges_are_marked_and_warned_about_once():
    X, Y = make(60, 3, 6, noise=0.01)
    Y[:, 4:] = np.random.default_rng(0).standard_normal((60, 2))
    words = "^4 of 6 voxels score best at the smallest penalty of the grid, 1, .*alphas$"
    with pytest.warns(FastencodeWarning, match=words) as caught:
        fit = fastencode.ridge_cv(X, Y, alphas=[1.0, 1e6])
    assert len([w for w in caught if w.category is FastencodeWarning]) == 1 and caught[0].filename == __file__
    assert fit.at_edge.tolist() == [-1, -1, -1, -1, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inner = fastencode.ridge_cv(X, Y[:, :1], alphas=[1e-9, 1e-3, 1e6])
        alone = fastencode.ridge_cv(X, Y, alphas=[5.0])
    assert inner.at_edge.tolist() == [0] and alone.at_edge.tolist() == [0] * 6


def test_float64_results_do_not_depend_on_the_place_in_the_tile():
    X, Y = make(70, 20, 300)
    plan = fastencode.plan_ridge(X, alphas=[1.0, 10.0], cv=4)
    whole, part = plan.fit(Y), plan.fit(Y[:, 37:190])
    np.testing.assert_allclose(part.coef, whole.coef[:, 37:190], rtol=1e-12, atol=1e-14)


def test_one_plan_serves_many_responses_and_holds_none():
    X, Y = make(80, 10, 5)
    plan = fastencode.plan_ridge(X, alphas=[1.0, 10.0], cv=4)
    for Z in (Y, Y[:, ::-1], Y[:, 2]):
        assert np.array_equal(plan.fit(Z).alpha, fastencode.ridge_cv(X, Z, alphas=[1.0, 10.0], cv=4).alpha)
    text = str(plan)
    assert "tiles of up to" in text and "products by" in text
    for word in ("primal", "dual", "because", "per voxel", "MB", "80 rows x 10 features"):
        assert word in text


@pytest.mark.parametrize("shape, expected", [((300, 20), "primal"), ((40, 600), "dual")])
def test_strategy_follows_the_shape_and_both_agree(shape, expected):
    X, Y = make(*shape, 7)
    assert fastencode.plan_ridge(X, cv=3).strategy == expected
    one, two = (fit_with(X, Y, s, alphas=[1.0, 50.0], cv=3) for s in ("primal", "dual"))
    np.testing.assert_allclose(one.coef, two.coef, atol=1e-9)
    np.testing.assert_allclose(one.cv_scores, two.cv_scores, atol=1e-9)


def test_targets_from_files_and_maps_equal_targets_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("fastencode.solve.given.targets._SLAB_BYTES", 1)  # as many slabs as tiles
    X, Y = make(50, 6, 150, np.float32)
    wanted = fastencode.ridge_cv(X, Y, alphas=[1.0, 10.0])
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["Y"] = Y
    np.save(tmp_path / "y.npy", Y)
    with h5py.File(tmp_path / "y.h5", "r") as file:
        stored = fastencode.ridge_cv(X, file["Y"], alphas=[1.0, 10.0])
        score = wanted.score(X, file["Y"])
        one = fastencode.ridge_cv(X, file["Y"], alphas=[1.0, 10.0], per_target=False)
    mapped = fastencode.ridge_cv(X, np.load(tmp_path / "y.npy", mmap_mode="r"), alphas=[1.0, 10.0])
    for fit in (stored, mapped):
        assert np.array_equal(fit.coef, wanted.coef) and np.array_equal(fit.cv_scores, wanted.cv_scores)
    assert np.array_equal(score, wanted.score(X, Y))
    assert np.array_equal(one.coef, fastencode.ridge_cv(X, Y, alphas=[1.0, 10.0], per_target=False).coef)


def test_predict_and_score():
    X, Y = make(60, 7, 9)
    fit = fastencode.ridge_cv(X, Y, scoring="pearson")
    P = X @ fit.coef + fit.intercept
    np.testing.assert_allclose(fit.predict(X), P, atol=1e-12)
    np.testing.assert_allclose(fit.score(X, Y), [reference.pearson(Y[:, v], P[:, v]) for v in range(9)], atol=1e-12)
    for scoring in SCORINGS:
        wanted = [reference.SCORES[scoring](Y[:, v], P[:, v]) for v in range(9)]
        np.testing.assert_allclose(fit.score(X, Y, scoring=scoring), wanted, atol=1e-12)


@pytest.mark.parametrize("one", [False, True])
def test_save_and_load(tmp_path, one):
    X, Y = make(40, 5, 6, np.float32)
    fit = fastencode.ridge_cv(X, Y[:, 0] if one else Y, scoring="pearson")
    fit.save(tmp_path / "fit.h5")
    fit.save(tmp_path / "fit.h5")
    back = fastencode.RidgeFit.load(tmp_path / "fit.h5", device="cpu")
    for name in ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge"):
        before, after = getattr(fit, name), getattr(back, name)
        assert np.array_equal(before, after) and before.dtype == after.dtype and np.shape(before) == np.shape(after), name
    assert back.stats == fit.stats and back.scoring == "pearson"
    assert np.array_equal(back.predict(X), fit.predict(X))
    assert [f.name for f in tmp_path.iterdir()] == ["fit.h5"]
    with pytest.raises(InputError, match="no-folder is not a folder; make it first"):
        fit.save(tmp_path / "no-folder" / "fit.h5")


def test_loading_something_else_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("not this")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    for name, words in (("text.h5", "not an HDF5"), ("other.h5", "not a saved RidgeFit"), ("none.h5", "no file")):
        with pytest.raises(InputError, match=words):
            fastencode.RidgeFit.load(tmp_path / name)


def test_grams_too_large_for_divide_and_conquer_are_decomposed_another_way(monkeypatch):
    X, Y = make(40, 60, 6)
    usual = fastencode.ridge_cv(X, Y)
    monkeypatch.setattr(directions, "_DIVIDED", 10)
    monkeypatch.setattr(np.linalg, "eigh", None)
    other = fastencode.ridge_cv(X, Y)
    np.testing.assert_allclose(other.cv_scores, usual.cv_scores, atol=1e-10)
    np.testing.assert_allclose(other.coef, usual.coef, atol=1e-10)


def test_stats_record_what_was_done():
    X, Y = make(40, 5, 6, np.float32)
    stats = fastencode.ridge_cv(X, Y, precision="fast").stats
    assert stats["strategy"] in ("primal", "dual") and stats["precision"] == "fast" and stats["device"] == "cpu"
    assert stats["scored_in"] == "float32" and stats["folds"] == 5
    assert stats["products"] == ("matrix tiles, 2 bfloat16 parts to a number" if kernels.has_tiles() else "BLAS")
    assert stats["operations"]["fit"] > 0 and stats["bytes"]["plan"] > 0
    assert {"decompose", "operators", "fit"} <= set(stats["seconds"]) and stats["versions"]["numpy"] == np.__version__


def test_progress_counts_voxels(capsys):
    X, Y = make(40, 5, 6)
    fastencode.ridge_cv(X, Y, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "6/6" in shown.err and "voxel" in shown.err
    fastencode.ridge_cv(X, Y)
    assert capsys.readouterr().err == ""
