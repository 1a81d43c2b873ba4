"""Positive definite systems on several threads."""

import numpy as np
import pytest
import scipy.linalg

from fastencode.solve.plan import cholesky
from fastencode.solve.plan.cholesky import solve_positive
from pairs import pairs
from thread_cases import Watched, others_run_during


@pytest.mark.parametrize("n, columns, dtype, order", pairs([1, 2, 37, 300], [1, 5, 411], [np.float32, np.float64], ["C", "F"]))
def test_equals_scipy_and_leaves_its_input_alone(n, columns, dtype, order):
    rng = np.random.default_rng(n)
    points = rng.standard_normal((n, 2 * n + 1))
    matrix = np.array(points @ points.T / n, dtype=dtype, order=order)
    right = np.array(rng.standard_normal((n, columns)), dtype=dtype, order=order)
    before = matrix.copy(), right.copy()
    found = solve_positive(matrix, right, dtype)
    wanted = scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix.astype(float), lower=True), right.astype(float))
    assert found.dtype == dtype and found.shape == right.shape
    np.testing.assert_allclose(found, wanted, atol=(2e-3 if dtype == np.float32 else 1e-9) * np.abs(wanted).max())
    assert np.array_equal(matrix, before[0]) and np.array_equal(right, before[1])


def test_strided_and_read_only_input():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((40, 90))
    matrix, right = np.repeat(np.repeat(points @ points.T, 2, 0), 2, 1)[::2, ::2], rng.standard_normal((40, 14))[:, ::2]
    matrix.flags.writeable = right.flags.writeable = False
    np.testing.assert_allclose(matrix @ solve_positive(matrix, right), right, atol=1e-9)


def test_what_is_not_positive_definite_is_refused():
    with pytest.raises(np.linalg.LinAlgError, match="minor of size 2"):
        solve_positive(np.diag([1.0, -1.0, 1.0]), np.ones((3, 2)))


def test_nothing_to_solve():
    assert solve_positive(np.empty((0, 0)), np.empty((0, 3))).shape == (0, 3)
    assert solve_positive(np.eye(3), np.empty((3, 0))).shape == (3, 0)


def test_other_threads_run_while_lapack_factors_and_solves(monkeypatch):
    points, order, real = np.random.default_rng(0).standard_normal((500, 600)), [], cholesky._lapack
    matrix, right = points @ points.T, np.ones((500, 800))
    monkeypatch.setattr(cholesky, "_lapack", lambda name, arguments: Watched(real(name, arguments), order))
    assert others_run_during(lambda: solve_positive(matrix, right), order) == {0, 1}
