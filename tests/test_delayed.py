"""Delayed copies that are not made, indexed and multiplied: as NumPy does it with the made matrix, or refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastencode

MASK = np.arange(12) % 3 == 0
ROWS = [0, -1, np.int64(3), slice(None), slice(2, 9, 3), slice(None, None, -1), [1, 5, 5], np.array([0, -2]), MASK, MASK.tolist()]
COLUMNS = [
    *(slice(None), slice(3, 9), slice(None, None, 2), slice(None, None, -1), slice(14, 2, -3), slice(5, 5), slice(-3, None)),
    *(3, -1, np.int32(2), [0, 2], [7], np.arange(16) % 2 == 1, np.array([-1, 0, 5]), range(2, 4)),
]


@pytest.fixture
def copies():
    A = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    D = fastencode.delay(A, (0, 1, 2, 3), copy=False)
    made = np.concatenate([np.vstack([np.zeros((d, 4), np.float32), A[: 12 - d]]) for d in range(4)], axis=1)
    return D, made


@pytest.mark.parametrize("rows", ROWS, ids=repr)
def test_rows_and_columns_are_numpys(copies, rows):
    D, X = copies
    np.testing.assert_array_equal(D[rows], X[rows])
    taken = 0
    for columns in COLUMNS:
        if np.ndim(rows) and np.ndim(columns):  # NumPy would pair them
            with pytest.raises(TypeError, match=r"make them, numpy\.asarray\(X\)"):
                D[rows, columns]
            continue
        found, wanted = D[rows, columns], X[rows, columns]
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
        taken += 1
    assert taken >= 10


@pytest.mark.parametrize(
    "key", [None, True, (None, slice(0, 2)), (slice(None), None), (0, 1, 2), "a", 1.0, np.eye(12, 16) > 0], ids=repr
)
def test_what_is_not_answered_is_refused(copies, key):
    with pytest.raises((TypeError, IndexError), match=r"numpy\.asarray\(X\)|too many indices"):
        copies[0][key]


@pytest.mark.parametrize("rows,columns", itertools.product([12, -13, [0, 12]], [slice(None), 2]), ids=repr)
def test_out_of_range_is_numpys_error(copies, rows, columns):
    D, X = copies
    for matrix in (D, X):
        with pytest.raises(IndexError):
            matrix[rows, columns]
    with pytest.raises(IndexError):
        D[0, 16]


def test_products(copies):
    D, X = copies
    rng = np.random.default_rng(1)
    for right in (
        rng.standard_normal(16),
        rng.standard_normal((16, 1)),
        rng.standard_normal((16, 5)),
        np.ones(16, np.float32),
        np.eye(16),
    ):
        found, wanted = D @ right, X @ right
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(D @ list(range(16)), X @ np.arange(16), rtol=1e-5)
    for right, error in ((np.ones(15), ValueError), (np.ones((2, 16, 3)), TypeError), (3.0, TypeError)):
        with pytest.raises(error):
            _ = D @ right
