"""What banded ridge makes of its arguments, and what it says of bad ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from banded_cases import ALPHAS, problem
from fastencode import FastencodeWarning, InputError, banded_ridge_cv
from fastencode.solve.given.candidates import make_candidates, simplex_grid


@pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")
def test_candidates():
    samples = make_candidates(3, None, 50, (0.1, 1.0), 7)
    np.testing.assert_allclose(samples.sum(axis=1), 1)
    np.testing.assert_array_equal(samples[0], np.full(3, 1 / 3))
    np.testing.assert_array_equal(samples, make_candidates(3, None, 50, (0.1, 1.0), 7))
    assert samples[2::2].max(axis=1).mean() > samples[1::2].max(axis=1).mean()  # concentrations take turns
    grid = simplex_grid(3, 20)
    assert len(grid) == 15 and len(np.unique(grid, axis=0)) == 15 and (grid.sum(axis=1) == 1).all()
    assert {tuple(row) for row in np.eye(3)} <= {tuple(row) for row in grid}
    X, Y, widths = problem()
    assert len(banded_ridge_cv(X, Y, bands=widths, gammas="grid", n_iter=6, alphas=ALPHAS).candidates) == 6
    tiny = make_candidates(4, None, 40, 1e-3, 0)  # nearly all samples underflow to a corner
    assert np.isfinite(tiny).all() and (tiny.sum(axis=1) > 0).all()


def test_warns_once_about_the_edge_from_the_callers_line():
    X, Y, widths = problem()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        banded_ridge_cv(X, Y, bands=widths, n_iter=3, random_state=0, alphas=[1e-3, 1e-2])
    assert len(caught) == 1 and caught[0].category is FastencodeWarning and caught[0].filename == __file__
    assert "of the grid" in str(caught[0].message)


BAD = [
    ({"bands": None}, "bands is missing"),
    ({"bands": []}, "bands is empty"),
    ({"bands": [5, 8]}, "add up to 13 and X has 17"),
    ({"bands": [5, 8, 0, 4]}, "width 0"),
    ({"bands": {"a": slice(0, 10), "b": slice(9, 17)}}, "column 9 is in more than one band"),
    ({"bands": {"a": slice(0, 10)}}, "7 columns of X are in no band"),
    ({"bands": {"a": 5, "b": slice(5, 17)}}, "mixes widths"),
    ({"bands": {"a": slice(0, 10), "b": [10, 17]}}, "holds column 17"),
    ({"bands": {"a": slice(0, 17), "b": slice(17, 20)}}, "holds no column"),
    ({"bands": {1: 17}}, "name bands with text"),
    ({"bands": "kernels"}, "bands='kernels' is not known; pass 'precomputed'"),
    ({"bands": 17}, "bands is a int"),
    ({"search": "best"}, "search='best'"),
    ({"n_iter": 0}, "n_iter=0"),
    ({"gammas": [[1, 2]]}, "there are 3 bands"),
    ({"gammas": [[1, -1, 0]]}, "holds -1.0 for band 1"),
    ({"gammas": [[1, 1, 1], [0, 0, 0]]}, "candidate 1 of gammas is zero"),
    ({"gammas": [[np.nan, 1, 1]]}, "holds nan for band 0"),
    ({"gammas": "corners"}, "gammas='corners'"),
    ({"gammas": "grid", "n_iter": 2}, "too few for a grid"),
    ({"concentration": 0}, "concentration=0"),
    ({"early_stopping": -1}, "early_stopping=-1"),
    ({"alphas": [0]}, "alphas holds 0"),
    ({"scoring": "r"}, "scoring='r'"),
    ({"cv": "runs"}, "needs runs="),
    ({"nan_targets": "drop"}, "nan_targets='drop'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_say_what_and_where(arguments, message):
    X, Y, widths = problem()
    with pytest.raises(InputError, match=message):
        banded_ridge_cv(X, Y, **{"bands": widths, "alphas": ALPHAS, **arguments})


@pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")
def test_bad_arrays_say_what_and_where():
    X, Y, widths = problem()
    a, b = X[:, :5], X[:, 5:]
    for x, bands, message in [
        ({"a": a, "b": b[:50]}, None, "band 'b' has 50 rows"),
        ({"a": a, "b": b[:, :0]}, None, "band 'b' has no features"),
        ({"a": a, "b": b[:, 0]}, None, "band 'b' has shape"),
        ({"a": a, "b": b}, widths, "X already names its bands; pass bands=None"),
        ([a, b], ["a"], "names 1 arrays and X holds 2"),
        ([a, b], ["a", "a"], "two bands are named 'a'"),
        ({}, None, "names no array"),
        ([a, b], "precomputed", "has shape"),
        ([a @ a.T, (b @ b.T)[:50, :50]], "precomputed", "the same for all bands"),
        ([a @ a.T + np.tri(60)], "precomputed", "not symmetric"),
        ([np.full((60, 60), np.inf)], "precomputed", "holds inf at row 0"),
    ]:
        with pytest.raises(InputError, match=message):
            banded_ridge_cv(x, Y, bands=bands, alphas=ALPHAS, n_iter=2)
    fit = banded_ridge_cv({"a": a, "b": b}, Y, alphas=ALPHAS, n_iter=2)
    for x, message in [
        (X[:, :3], "3 features and the fit has 17"),
        ({"a": a}, "pass the same bands"),
        ([a, b[:, 1:]], "bands of"),
        (np.where(X[0, 0] == X, np.nan, X), "NaN or infinite"),
    ]:
        with pytest.raises(InputError, match=message):
            fit.predict(x)
    with pytest.raises(InputError, match="cannot be divided"):
        fit.score(X, Y, "neg_mean_squared_error", split=True)
    with pytest.raises(InputError, match="6 voxels and the fit has 7"):
        fit.score(X, Y[:, :6])
