"""Bands by the label of every column, and the band that holds the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from banded_cases import problem
from fastencode import InputError, banded_ridge_cv, partition_variance
from fastencode.solve.given.bands import check_bands, join

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")


def told(bands):
    return {name: columns.tolist() for name, columns in zip(bands.names, bands.columns, strict=True)}


TEXT = {"b": [0, 2, 5], "a": [1, 3, 4]}
NUMBERS = {"band 2": [0, 2, 5], "band 0": [1, 3, 4]}


@pytest.mark.parametrize("made", [list, tuple, np.array, lambda x: np.array(x, dtype=object), pd.Series, pd.Categorical])
def test_labels(made):
    assert told(check_bands(made(["b", "a", "b", "a", "a", "b"]), 6)) == TEXT
    assert told(check_bands(made([2, 0, 2, 0, 0, 2]), 6)) == NUMBERS


def test_numbers_are_widths_if_they_add_up_and_labels_if_there_are_as_many():
    assert told(check_bands([2, 1, 3], 6)) == {"band 0": [0, 1], "band 1": [2], "band 2": [3, 4, 5]}
    assert told(check_bands([1, 1, 2], 3)) == {"band 1": [0, 1], "band 2": [2]}
    assert told(check_bands([0, 0, 3], 3)) == {"band 0": [0, 1], "band 3": [2]}  # add up, but no band is empty
    assert told(check_bands([1], 1)) == {"band 0": [0]}
    with pytest.raises(InputError, match="3 ones for 3 columns: as widths they are 3 bands, as labels one"):
        check_bands([1, 1, 1], 3)
    with pytest.raises(InputError, match="add up to 7 and X has 6 features.*as labels of columns there would be 6 numbers"):
        check_bands([3, 4], 6)
    with pytest.raises(InputError, match="bands holds 3 labels and X has 6 columns"):
        check_bands(["a", "b", "a"], 6)


def test_the_rest():
    assert told(check_bands({"words": slice(1, 3), "rest": ...}, 5)) == {"words": [1, 2], "rest": [0, 3, 4]}
    assert told(check_bands({"rest": ..., "words": 2}, 5)) == {"rest": [0, 1, 2], "words": [3, 4]}
    assert told(check_bands([[4], ..., [0]], 5)) == {"band 0": [4], "band 1": [1, 2, 3], "band 2": [0]}
    assert told(check_bands({"all": ...}, 2)) == {"all": [0, 1]}
    for bands, message in (
        ({"a": ..., "b": ...}, "bands 'a', 'b' are all '...'"),
        ({"a": slice(0, 5), "b": ...}, "the other bands hold all 5 columns of X: none is left for 'b'"),
        ({"a": 5, "b": ...}, "the other bands hold 5 columns and X has 5: none is left for 'b'"),
        ({"a": [0, 1], "b": [1], "c": ...}, "column 1 is in more than one band"),
        ({"a": 2, "b": [1], "c": ...}, "band 'a' holds no column|mixes"),
    ):
        with pytest.raises(InputError, match=message):
            check_bands(bands, 5)


def test_columns_of_a_data_frame():
    X = pd.DataFrame(np.zeros((3, 4)), columns=["f0", "f1", "f2", "f3"])
    assert told(join(X, {"a": ["f3", "f1"], "rest": ...}).bands) == {"a": [1, 3], "rest": [0, 2]}
    assert told(join(X, ["a", "b", "a", "b"]).bands) == {"a": [0, 2], "b": [1, 3]}
    with pytest.raises(InputError, match="bands holds the name of column 'f1'"):
        join(X, ["f1", "f0", "f2", "f3"])


def test_fits_are_those_of_columns():
    X, Y, _ = problem(60, (3, 4))
    labels, columns = ["b", "a", "a", "b", "b", "a", "a"], {"b": [0, 3, 4], "a": [1, 2, 5, 6]}
    given = {"n_iter": 3, "random_state": 0, "cv": 3}
    wanted = banded_ridge_cv(X, Y, bands=columns, **given)
    for bands in (labels, {"b": [0, 3, 4], "a": ...}):
        fit = banded_ridge_cv(X, Y, bands=bands, **given)
        np.testing.assert_array_equal(fit.coef, wanted.coef)
        assert fit.names == ("b", "a")
        found, parts = (partition_variance(X, Y, bands=some, outer=2, **given) for some in (bands, columns))
        np.testing.assert_array_equal(found.unique, parts.unique)
