"""What people see first: examples in docstrings, printed fits, names, signatures, warnings, what is said of a wrong Y."""

from __future__ import annotations

import doctest
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastencode
from fastencode import FastencodeWarning, InputError
from fastencode.solve.given.problem import DEFAULT_ALPHAS

RNG = np.random.default_rng(1)
X = RNG.standard_normal((60, 8))
Y = X @ RNG.standard_normal((8, 6)) + RNG.standard_normal((60, 6))
HOLED = np.where((np.arange(60)[:, None] == 3) & (np.arange(6) == 2), np.nan, Y)
FUNCTIONS = [fastencode.ridge_cv, fastencode.plan_ridge, fastencode.banded_ridge_cv, fastencode.partition_variance]
quiet = pytest.mark.filterwarnings("ignore:.*of the grid")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_examples_run(function):
    """And warn of nothing."""
    (found,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs={})
    assert len(found.examples) >= 8
    runner = doctest.DocTestRunner(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert runner.run(found).failed == 0


# ---- printed


@quiet
def test_a_printed_ridge_fit_says_what_was_found():
    fit = fastencode.ridge_cv(X, HOLED, alphas=[1, 10, 100], nan_targets="skip", scoring="pearson")
    text, good = str(fit), np.arange(6) != 2
    assert text.splitlines()[0] == "RidgeFit coef 8 x 6 float64, 3 alphas, by pearson"
    assert f"held-out pearson: median {np.median(fit.best_score[good]):.4g}, best {np.nanmax(fit.best_score):.4g} " in text
    assert f"(voxel {np.nanargmax(fit.best_score)})" in text
    for alpha in fit.alphas:
        count = int((fit.alpha == alpha).sum())
        assert (f"{alpha:.4g} ({count} voxel" in text) == (count > 0)
    low, high = int((fit.at_edge < 0).sum()), int((fit.at_edge > 0).sum())
    assert f"{low} at the smallest penalty of the grid, {high} at the largest, 0 constant, 1 skipped" in text
    assert f"fit {fit.stats['seconds']['fit']:.2g} s" in text and "\n" not in repr(fit)


@quiet
def test_a_printed_banded_fit_says_what_was_found():
    fit = fastencode.banded_ridge_cv(X, HOLED, bands={"a": 3, "b": 5}, search="auto", random_state=0, nan_targets="skip")
    text, good = str(fit), np.arange(6) != 2
    share = fit.gammas[:, good] / fit.gammas[:, good].sum(axis=0)
    for b, name in enumerate("ab"):
        assert f"{name} median {np.median(share[b]):.2g}, largest in {(share.argmax(axis=0) == b).sum()}" in text
    assert "10 of 10 candidates tried" in text and f"{fit.stats['refined']['voxels']} voxels went on" in text
    assert "1 skipped" in text and "\n" not in repr(fit)


@quiet
def test_printing_takes_single_series_many_penalties_loaded_and_empty_fits(tmp_path):
    single = fastencode.ridge_cv(X, Y[:, 0])
    assert "(1 voxel)" in str(single)
    many = fastencode.ridge_cv(X, X @ RNG.standard_normal((8, 300)) + RNG.uniform(0, 20, 300) * RNG.standard_normal((60, 300)))
    assert f"penalties: median {np.median(many.alpha):.4g}, 5 % " in str(many)
    many.save(tmp_path / "fit.h5")
    assert str(fastencode.RidgeFit.load(tmp_path / "fit.h5")) == str(many)
    nothing = fastencode.ridge_cv(X, Y * np.nan, nan_targets="skip")
    assert "6 skipped" in str(nothing) and "nan" not in str(nothing)


@quiet
def test_a_printed_partition_says_what_was_found():
    parts = fastencode.partition_variance(X, HOLED, bands={"a": 3, "b": 5}, n_iter=2, outer=3, random_state=0, nan_targets="skip")
    text = str(parts)
    assert f"all bands together: median {np.nanmedian(parts.total):.4g}, largest {np.nanmax(parts.total):.4g}" in text
    assert f"only b: median {np.nanmedian(parts.unique[1]):.4g}" in text and "1 skipped" in text and "took" in text
    assert "\n" not in repr(parts)


# ---- names and signatures


def test_the_package_lists_its_public_names_only():
    assert dir(fastencode) == sorted(fastencode.__all__)
    assert all(not name.startswith("_") or name == "__version__" for name in dir(fastencode))


@pytest.mark.parametrize("function", FUNCTIONS[:3], ids=lambda f: f.__name__)
def test_the_default_grid_is_shown_by_name(function):
    text = str(inspect.signature(function))
    assert "= DEFAULT_ALPHAS," in text and "array(" not in text


def test_the_default_grid_is_an_array():
    np.testing.assert_allclose(DEFAULT_ALPHAS, 10 ** (np.arange(20) * 6 / 19))
    assert isinstance(DEFAULT_ALPHAS, np.ndarray) and "DEFAULT" not in repr(DEFAULT_ALPHAS * 2) + repr(DEFAULT_ALPHAS[:3])
    with pytest.raises(ValueError, match="read-only"):
        DEFAULT_ALPHAS[0] = 5.0
    assert type(fastencode.ridge_cv(X, Y).alphas) is np.ndarray


# ---- warnings


def banded():
    return fastencode.banded_ridge_cv(X, Y, bands=[3, 5], n_iter=2, random_state=0)


CALLS = {
    "ridge_cv": lambda: fastencode.ridge_cv(X, Y),
    "plan.fit": lambda: fastencode.plan_ridge(X).fit(Y),
    "banded_ridge_cv": banded,
    "one band": lambda: fastencode.banded_ridge_cv(X, Y, bands=[8]),
    "partition_variance": lambda: fastencode.partition_variance(X, Y, bands=[3, 5], n_iter=2, outer=3, random_state=0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_warnings_come_once_and_point_here(call):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call()
    assert [warning.category for warning in told] == [FastencodeWarning]
    assert Path(told[0].filename).name == Path(__file__).name
    assert "the smallest penalty of the grid" in str(told[0].message)
    lines = Path(__file__).read_text().splitlines()
    assert "fastencode." in lines[told[0].lineno - 1]


def test_a_partition_counts_the_edges_of_all_its_fits():
    with pytest.warns(FastencodeWarning, match=r"of 54 voxels in 9 fits score best at the smallest penalty of the grid, 1, and"):
        CALLS["partition_variance"]()


def test_estimators_point_at_their_caller():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    with pytest.warns(FastencodeWarning, match="of the grid") as told:
        fastencode.RidgeCV().fit(X, Y)
    assert len(told) == 1 and Path(told[0].filename).name == Path(__file__).name


# ---- data frames and files


@quiet
def test_columns_of_a_data_frame_are_told_by_their_names(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(8)])
    other = frame[frame.columns[::-1]]
    for fit in (
        fastencode.ridge_cv(frame, Y),
        fastencode.banded_ridge_cv(frame, Y, bands={"a": ["f0", "f5"], "b": ...}, n_iter=2, random_state=0),
    ):
        fit.save(tmp_path / "fit.h5")
        for one in (fit, type(fit).load(tmp_path / "fit.h5")):
            np.testing.assert_array_equal(one.predict(other), fit.predict(frame))
            np.testing.assert_array_equal(one.score(other, Y), fit.score(frame, Y))
            np.testing.assert_array_equal(one.predict(X), fit.predict(frame))  # no names: by position
            with pytest.raises(InputError, match="X has other columns than the fit, 'f3' among those that differ"):
                one.predict(frame.rename(columns={"f3": "nose"}))


@quiet
def test_bands_by_the_names_of_a_data_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(8)])
    bands = {"a": ["f0", "f5", "f1"], "b": ["f2", "f3", "f4", "f6"], "c": "f7"}
    by_number = {"a": [0, 1, 5], "b": [2, 3, 4, 6], "c": [7]}
    options = {"n_iter": 3, "random_state": 0}
    fit, wanted = (fastencode.banded_ridge_cv(x, Y, bands=b, **options) for x, b in ((frame, bands), (X, by_number)))
    np.testing.assert_allclose(fit.coef, wanted.coef, atol=1e-12)
    np.testing.assert_allclose(fit.predict(frame), wanted.predict(X), atol=1e-12)
    np.testing.assert_allclose(fit.score(frame, Y, split=True), wanted.score(X, Y, split=True), atol=1e-12)
    listed = fastencode.banded_ridge_cv(frame, Y, bands=list(bands.values()), **options)
    np.testing.assert_allclose(listed.coef, wanted.coef, atol=1e-12)
    parts, same = (fastencode.partition_variance(x, Y, bands=b, outer=3, **options) for x, b in ((frame, bands), (X, by_number)))
    np.testing.assert_allclose(parts.unique, same.unique, atol=1e-12)
    with pytest.raises(InputError, match=r"band 'a' names column 'nose', and X has \['f0'"):
        fastencode.banded_ridge_cv(frame, Y, bands={"a": ["nose"], "b": ["f0"]})
    with pytest.raises(InputError, match="band 'a' names column 'f0', and X has no column names"):
        fastencode.banded_ridge_cv(X, Y, bands={"a": ["f0"]})
    twice = frame.rename(columns={"f1": "f0"})
    with pytest.raises(InputError, match="names column 'f0', and X has several of that name; give columns by number"):
        fastencode.banded_ridge_cv(twice, Y, bands=bands)


def test_a_file_is_no_data_set(tmp_path):
    import h5py

    with h5py.File(tmp_path / "responses.h5", "w") as f:
        f["Y"], f["more/Z"], f["lost"] = Y, Y[:, 0], h5py.SoftLink("/nowhere")
        f.create_group("empty")
        for call in (fastencode.ridge_cv, lambda *a: fastencode.banded_ridge_cv(*a, bands=[8]), fastencode.plan_ridge(X).fit):
            arguments = (f,) if call.__name__ == "fit" else (X, f)
            with pytest.raises(
                InputError, match=r"Y is a file of h5py, not a data set; .*f\['Y'\]: 'Y' \(60, 6\), 'more/Z' \(60,\)"
            ):
                call(*arguments)
        with pytest.raises(InputError, match=r"X is a group of h5py, not a data set; pass one that it holds, such as f\['Z'\]"):
            fastencode.ridge_cv(f["more"], Y)
        with pytest.raises(InputError, match="Y is a group of h5py, not a data set; it holds none"):
            fastencode.r2(f["empty"], Y)
