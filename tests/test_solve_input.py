"""Bad input gets an error that names what and where; folds are what they are called."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut

import fastencode
import reference
from fastencode.errors import DeviceError, InputError
from fastencode.limits import parse_memory
from fastencode.solve.given.folds import check_runs, resolve_folds

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 3)), RNG.standard_normal((20, 4))


def spoiled(array, value, *places):
    array = array.copy()
    for place in places:
        array[place] = value
    return array


BAD = {
    "NaN in X": (dict(X=spoiled(X, np.nan, (7, 2))), "1 values .* row 7, column 2"),
    "infinity in X": (dict(X=spoiled(X, np.inf, (3, 0), (9, 1))), "2 values .*inf.* row 3, column 0"),
    "NaN in Y": (dict(Y=spoiled(Y, np.nan, (7, 1), (8, 1), (0, 3))), "2 of 4 voxels .* first is voxel 1"),
    "infinity in Y": (dict(Y=spoiled(Y, -np.inf, (19, 2))), "1 of 4 voxels"),
    "NaN in one series": (dict(Y=spoiled(Y[:, 0], np.nan, 3)), "1 of 1 voxels"),
    "lengths": (dict(Y=Y[:-1]), "19 rows and X has 20"),
    "1-D X": (dict(X=X[:, 0]), r"X\[:, None\]"),
    "3-D X": (dict(X=X[None]), "shape"),
    "3-D Y": (dict(Y=Y[:, :, None]), "Y has shape"),
    "no features": (dict(X=X[:, :0]), "no features"),
    "no voxels": (dict(Y=Y[:, :0]), "no voxels"),
    "one sample": (dict(X=X[:1], Y=Y[:1]), "1 row"),
    "complex X": (dict(X=X + 1j), "complex128"),
    "complex Y": (dict(Y=Y + 1j), "complex128"),
    "object X": (dict(X=X.astype(object)), "object"),
    "object Y": (dict(Y=Y.astype(object)), "object"),
    "text X": (dict(X=X.astype(str)), "real number"),
    "ragged X": (dict(X=[[1.0], [1.0, 2.0]]), "equal length"),
    "zero penalty": (dict(alphas=[1.0, 0.0]), "alphas holds 0.0"),
    "negative penalty": (dict(alphas=[-3.0]), "alphas holds -3.0"),
    "NaN penalty": (dict(alphas=[np.nan]), "alphas holds nan"),
    "infinite penalty": (dict(alphas=[np.inf]), "alphas holds inf"),
    "no penalty": (dict(alphas=[]), "at least one penalty"),
    "one fold": (dict(cv=1), "cv=1"),
    "more folds than rows": (dict(cv=21), "at most 20"),
    "cv name": (dict(cv="stories"), "'stories'"),
    "cv None": (dict(cv=None), "cv=None"),
    "cv type": (dict(cv=2.5), "float"),
    "runs missing": (dict(cv="runs"), "needs runs"),
    "one run": (dict(cv="runs", runs=np.zeros(20)), "single run"),
    "runs length": (dict(runs=np.zeros(19)), "19 labels"),
    "runs of two kinds": (dict(runs=np.array([1, "a"] * 10, dtype=object)), "cannot be compared"),
    "runs NaN": (dict(runs=spoiled(np.zeros(20), np.nan, 4)), "row 4"),
    "more folds than runs": (dict(cv=5, runs=np.repeat([1, 2], 10)), "at most 2"),
    "no folds": (dict(cv=[]), "no folds"),
    "empty test": (dict(cv=[(np.arange(20), [])]), "test of fold 0"),
    "a fold that holds everything": (dict(cv=[([], np.arange(20))]), "train of fold 0"),
    "train on test": (dict(cv=[(np.arange(20), [4, 5])]), "2 rows it also trains on"),
    "row out of range": (dict(cv=[([0, 1, 2], [3, 20])]), "row 20, and the rows are 0 to 19"),
    "negative row": (dict(cv=[([0, 1, 2], [3, -1])]), "row -1"),
    "not a pair": (dict(cv=[[1, 2, 3]]), "not a pair"),
    "float rows": (dict(cv=[([0.0, 1.0], [2.0, 3.0])]), "integer row indices"),
    "short mask": (dict(cv=[(np.ones(3, bool), [3, 4])]), "mask of shape"),
    "single held-out rows": (dict(cv=20), "single row"),
    "scoring": (dict(scoring="accuracy"), "'accuracy'"),
    "precision": (dict(precision="double"), "'double'"),
    "memory text": (dict(memory="much"), "'much'"),
    "memory negative": (dict(memory=-1), "positive"),
    "memory too small": (dict(memory=100), "smallest that works is"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    arguments, words = BAD[name]
    arguments = {"X": X, "Y": Y, "alphas": [1.0, 10.0], "cv": 4, **arguments}
    with pytest.raises(InputError, match=words):
        fastencode.ridge_cv(arguments.pop("X"), arguments.pop("Y"), **arguments)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "tpu"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(DeviceError, match=f"'{device}'"):
        fastencode.ridge_cv(X, Y, device=device)
    with pytest.raises(DeviceError, match=f"'{device}'"):
        fastencode.plan_ridge(X, device=device)


def smallest_named(act):
    with pytest.raises(InputError, match="smallest that works") as caught:
        act()
    return int(str(caught.value).split("smallest that works")[1].split(" is ")[1].split()[0])


def test_memory_errors_name_the_size_that_works():
    X, Y = RNG.standard_normal((60, 30)), RNG.standard_normal((60, 100))
    to_plan = smallest_named(lambda: fastencode.plan_ridge(X, cv=3, memory=1))
    plan = fastencode.plan_ridge(X, cv=3, memory=to_plan)
    to_fit = smallest_named(lambda: plan.fit(Y))
    assert smallest_named(lambda: fastencode.plan_ridge(X, cv=3, memory=to_fit - 1).fit(Y)) == to_fit
    fit = fastencode.ridge_cv(X, Y, cv=3, memory=to_fit)
    assert fit.stats["threads"] == 1 and np.array_equal(fit.coef, fastencode.ridge_cv(X, Y, cv=3).coef)


@pytest.mark.parametrize("text, wanted", [("2GB", 2 * 10**9), ("1.5 MiB", 1.5 * 2**20), ("10", 10), ("3k", 3000), (5e6, 5e6)])
def test_memory_text(text, wanted):
    assert parse_memory(text) == wanted


def test_alphas_are_sorted_and_freed_of_duplicates():
    fit = fastencode.ridge_cv(X, Y, alphas=[10.0, 0.1, 10.0, 1])
    assert fit.alphas.tolist() == [0.1, 1.0, 10.0] and fit.cv_scores.shape == (3, 4)
    assert fastencode.ridge_cv(X, Y, alphas=7.0).alphas.tolist() == [7.0]


@pytest.mark.parametrize(
    "dtype, wanted", [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8"), (">f8", "f8")]
)
def test_result_dtype(dtype, wanted):
    A, B = np.round(X * 3 + 9).astype(dtype), np.round(Y * 3 + 9).astype(dtype)
    fit = fastencode.ridge_cv(A, B)
    assert fit.coef.dtype == fit.predict(A).dtype == fit.score(A, B).dtype == np.dtype(wanted)
    assert fit.alphas.dtype == np.float64


def test_mixed_precision_is_float64():
    assert fastencode.ridge_cv(X.astype("f4"), Y).coef.dtype == np.float64
    assert fastencode.ridge_cv(X, Y.astype("f4")).coef.dtype == np.float64


def test_values_too_large_to_square_or_add_up_are_named():
    big = spoiled(X, 1e308, (0, 0), (1, 0), (2, 0))
    with pytest.raises(InputError, match="too large to add up, the first in voxel 0; rescale"):
        fastencode.ridge_cv(X, spoiled(Y, 1e308, (0, 0), (1, 0), (2, 0)))
    with pytest.raises(InputError, match="too large|rescale"):
        fastencode.ridge_cv(big, Y)


def test_wrong_features_at_prediction():
    fit = fastencode.ridge_cv(X, Y)
    with pytest.raises(InputError, match="2 features and the fit has 3"):
        fit.predict(X[:, :2])
    with pytest.raises(InputError, match="row 1, column 1"):
        fit.predict(spoiled(X, np.nan, (1, 1)))
    with pytest.raises(InputError, match="3 voxels and the fit has 4"):
        fit.score(X, Y[:, :3])
    with pytest.raises(InputError, match="1 of 4 voxels"):
        fit.score(X, spoiled(Y, np.nan, (1, 1)))
    with pytest.raises(InputError, match="no rows"):
        fit.score(X[:0], Y[:0])


def test_int_folds_are_scikit_learns_contiguous_blocks():
    for n, k in ((20, 4), (23, 5), (7, 7)):
        for ours, theirs in zip(resolve_folds(k, n, None), KFold(k).split(np.empty((n, 1))), strict=True):
            assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])


def test_int_folds_with_runs_keep_runs_whole_and_balanced():
    runs = np.repeat(["a", "b", "c", "d", "e"], [40, 10, 10, 10, 10])
    folds = resolve_folds(2, 80, check_runs(runs))
    assert sorted(len(test) for _, test in folds) == [40, 40]
    for train, test in folds:
        assert not set(runs[train]) & set(runs[test]) and len(train) + len(test) == 80


def test_leave_one_run_out_keeps_the_order_of_appearance():
    runs = ["late", "late", "early", "mid", "early"]
    folds = fastencode.leave_one_run_out(runs)
    assert [test.tolist() for _, test in folds] == [[0, 1], [2, 4], [3]]
    assert [train.tolist() for train, _ in folds] == [[2, 3, 4], [0, 1, 3], [0, 1, 2, 4]]


def test_splitters_and_masks_are_the_same_folds():
    runs = np.repeat([3, 1, 2], [7, 6, 7])
    options = {"alphas": [1.0, 10.0], "runs": runs}
    wanted = fastencode.ridge_cv(X, Y, cv="runs", **options).cv_scores
    masks = [(runs != r, runs == r) for r in (3, 1, 2)]
    for cv in (LeaveOneGroupOut(), GroupKFold(3), masks, iter(masks), fastencode.leave_one_run_out(runs)):
        np.testing.assert_allclose(fastencode.ridge_cv(X, Y, cv=cv, **options).cv_scores, wanted, atol=1e-12)


def test_chunk_bootstrap():
    folds = fastencode.chunk_bootstrap(103, 200, 10, 3, random_state=1)
    assert len(folds) == 200
    for train, test in folds:
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(103))
        chunks = np.unique(test // 10)
        assert len(chunks) == 3 and len(test) == sum(min(10, 103 - 10 * c) for c in chunks)
    held = np.concatenate([test for _, test in folds])
    assert np.array_equal(np.unique(held), np.arange(103))  # the remainder too
    again = fastencode.chunk_bootstrap(103, 200, 10, 3, random_state=1)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
    assert not np.array_equal(folds[0][1], fastencode.chunk_bootstrap(103, 1, 10, 3, random_state=2)[0][1])
    for bad in ((10, 1, 5, 2), (0, 1, 1, 1), (10, 0, 1, 1), (10, 1, 2.5, 1)):
        with pytest.raises(InputError):
            fastencode.chunk_bootstrap(*bad)


def test_repeated_training_rows_count_twice():
    train, test = np.array([0, 1, 2, 2, 3, 4, 5, 6]), np.arange(10, 20)
    fit = fastencode.ridge_cv(X, Y, alphas=[0.5], cv=[(train, test)])
    np.testing.assert_allclose(fit.cv_scores, reference.cv_scores(X, Y, [0.5], [(train, test)], "r2", True), atol=1e-10)
