"""What every door must refuse or take alike: rows that do not match, folds of a partition, searches with little memory."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, LeaveOneOut, StratifiedKFold

from fastencode import BandedRidgeCV, InputError, RidgeCV, banded_ridge_cv, partition_variance, r2

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")


def data(n=30, p=10, v=2):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    return X, X[:, :v] + rng.standard_normal((n, v))


@pytest.mark.parametrize("rows", [(5, 1), (1, 5), (5, 6)])
def test_kernels_of_new_rows_have_the_same_rows(rows):
    """One row beside five would be added to each of them."""
    X, Y = data()
    kernels = [X[:, :4] @ X[:, :4].T, X[:, 4:] @ X[:, 4:].T]
    fit = banded_ridge_cv(kernels, Y, bands="precomputed", n_iter=2, random_state=0)
    some = [kernel[:count] for kernel, count in zip(kernels, rows, strict=True)]
    for use in (fit.predict, lambda some: fit.score(some, Y[: max(rows)])):
        with pytest.raises(InputError, match=r"has 2 kernels, of shapes \(., 30\), \(., 30\); .* the same rows in all"):
            use(some)


@pytest.mark.parametrize("wrong", [None, 3.0, np.eye(30)])
def test_what_holds_no_kernels_is_refused(wrong):
    X, Y = data()
    fit = banded_ridge_cv([X @ X.T], Y, bands="precomputed", n_iter=2)
    for use in (fit.predict, lambda wrong: banded_ridge_cv(wrong, Y, bands="precomputed")):
        with pytest.raises(InputError, match="pass one kernel for each band"):
            use(wrong)


@pytest.mark.parametrize("series", [True, False])
def test_splitters_of_a_partition_get_the_responses(series):
    """One penalty and one weighting: what is left of a fold is scikit-learn's Ridge."""
    X, _ = data()
    y = np.random.default_rng(1).integers(0, 2, 30).astype(float)
    splitter = StratifiedKFold(3)
    options = {"bands": [4, 6], "alphas": [2.0], "gammas": [[1.0, 1.0]], "cv": 2}
    found = partition_variance(X, y if series else y[:, None], outer=splitter, **options)
    wanted = [r2(y[test], Ridge(alpha=2.0).fit(X[train], y[train]).predict(X[test])) for train, test in splitter.split(X, y)]
    np.testing.assert_allclose(found.total_folds[:, 0], wanted, atol=1e-10)


def test_outer_folds_of_one_row_have_no_variance():
    X, Y = data()
    options = {"bands": [4, 6], "alphas": [2.0], "gammas": [[1.0, 1.0]], "cv": 2, "outer": LeaveOneOut()}
    for scoring in ("r2", "pearson"):
        with pytest.raises(InputError, match="fold 0 of outer holds out a single row"):
            partition_variance(X, Y, scoring=scoring, **options)
    found = partition_variance(X, Y, scoring="neg_mean_squared_error", **options)
    rows = np.arange(30)
    wanted = [-((Ridge(alpha=2.0).fit(X[rows != i], Y[rows != i]).predict(X[[i]])[0] - Y[i]) ** 2) for i in rows]
    np.testing.assert_allclose(found.total, np.mean(wanted, axis=0), atol=1e-10)


def test_inner_folds_of_a_generator_serve_every_fit():
    X, Y = data()
    outer = [(np.arange(20), np.arange(20, 30))]
    options = {"bands": [4, 6], "alphas": [1.0, 9.0], "n_iter": 2, "random_state": 0, "outer": outer}
    wanted = partition_variance(X, Y, cv=list(KFold(2).split(X[:20])), **options)
    found = partition_variance(X, Y, cv=(fold for fold in KFold(2).split(X[:20])), **options)
    np.testing.assert_array_equal(found.unique_folds, wanted.unique_folds)


def test_a_checkpoint_knows_which_rows_are_left_out(tmp_path):
    """Rows 0 and 1 have the same features, so leaving out one or the other leaves the same X."""
    X, Y = data()
    X[1], Y[1] = X[0], Y[0] + 50.0
    first, second = np.ones(30), np.ones(30)
    first[0] = second[1] = 0.0
    options = {"bands": [4, 6], "n_iter": 2, "random_state": 0, "checkpoint": tmp_path / "search.h5"}
    banded_ridge_cv(X, Y, sample_weight=first, **options)
    with pytest.raises(InputError, match="is of another search"):
        banded_ridge_cv(X, Y, sample_weight=second, **options)


@pytest.mark.parametrize("shape", [(62, 600), (120, 90)])
def test_a_search_that_begins_in_memory_ends_in_it(shape):
    """What is kept of earlier candidates, and dual weights that wait, give way to tiles: the first error names enough."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal(shape), rng.standard_normal((shape[0], 1500))
    options = {
        "bands": [shape[1] // 3, shape[1] - shape[1] // 3],
        "n_iter": 8,
        "random_state": 0,
        "cv": 12,
        "alphas": [1.0, 99.0],
    }
    wanted = banded_ridge_cv(X, Y, **options)

    def needed(memory):
        with pytest.raises(InputError, match="smallest that works") as caught:
            banded_ridge_cv(X, Y, memory=memory, **options)
        return int(re.search(r"smallest that works (?:here )?is (\d+)", str(caught.value))[1])

    planned = needed(1000)
    found = banded_ridge_cv(X, Y, memory=needed(planned), **options)
    np.testing.assert_array_equal(found.best_score, wanted.best_score)
    np.testing.assert_allclose(found.coef, wanted.coef, atol=1e-10)


def test_room_for_a_climb_is_asked_for_before_the_search(monkeypatch):
    X, Y = data(60, 20)
    searched = []
    monkeypatch.setattr("fastencode.solve.banded.run_search", lambda *args: searched.append(args))
    with pytest.raises(InputError, match="too small for penalties of each voxel's own"):
        banded_ridge_cv(X @ X.T[None], Y, bands="precomputed", search="gradient", cv=20, alphas=[1.0], memory=600_000)
    assert not searched


@pytest.mark.parametrize("model", [RidgeCV(), BandedRidgeCV({"a": ["x3", "x0"], "b": ...}, n_iter=2, random_state=0)])
def test_the_result_of_an_estimator_tells_columns_by_name(model):
    X, Y = data(30, 5)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(5)])
    model.fit(frame, Y)
    wanted = model.predict(frame)
    np.testing.assert_allclose(model.result_.predict(frame[frame.columns[::-1]]), wanted, atol=1e-12)
    np.testing.assert_allclose(model.result_.predict(X), wanted, atol=1e-12)
