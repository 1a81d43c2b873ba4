"""What leaving rows out does to rounding."""

from __future__ import annotations

import numpy as np
import pytest

from fastencode.solve.plan.leave_out import _smallest


@pytest.mark.parametrize("n", [257, 600])
@pytest.mark.parametrize("spectrum", ["power law", "flat", "one small", "all equal"])
def test_the_smallest_eigenvalue_is_found_nearly(n, spectrum):
    rng = np.random.default_rng(n)
    values = {
        "power law": np.geomspace(1e-6, 1, n),
        "flat": rng.uniform(0.01, 1, n),
        "one small": np.r_[1e-7, rng.uniform(0.1, 1, n - 1)],
        "all equal": np.full(n, 0.5),
    }[spectrum]
    turn, _ = np.linalg.qr(rng.standard_normal((n, n)))
    assert 0.88 < _smallest((turn * values) @ turn.T) / values.min() < 0.92


def test_what_is_not_positive_definite_has_no_smallest():
    assert _smallest(-np.eye(300)) == 0.0
