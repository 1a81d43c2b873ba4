"""What comes in as a torch tensor goes out as one, from every function of the room that takes data."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
from fastencode.timing.clean import detrend_polynomial, zscore

torch = pytest.importorskip("torch", reason="torch is not installed")

TIMES = np.arange(12.0)
FUNCTIONS = {
    "lanczos": lambda X: fastencode.lanczos(X, TIMES, TIMES[::2]),
    "lanczos-rectify": lambda X: fastencode.lanczos(X, TIMES, TIMES[::2], rectify=True),
    "lanczos-empty": lambda X: fastencode.lanczos(X, TIMES, []),
    "hrf_convolve": lambda X: fastencode.hrf_convolve(X, TIMES, TIMES[::2]),
    "delay": lambda X: fastencode.delay(X, (1, -2), np.repeat([0, 1], 6)),
    "zscore": zscore,
    "detrend_polynomial": detrend_polynomial,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_torch_in_torch_out(name, dtype):
    array = (np.random.default_rng(0).standard_normal((12, 3)) * 9).astype(dtype)
    tensor = torch.from_numpy(array.copy())
    if dtype != "int32":
        tensor.requires_grad_()
    ours, expected = FUNCTIONS[name](tensor), FUNCTIONS[name](array)
    assert isinstance(ours, torch.Tensor) and isinstance(expected, np.ndarray)
    assert not ours.requires_grad
    np.testing.assert_array_equal(ours.numpy(), expected)
    assert ours.numpy().dtype == expected.dtype == (np.float32 if dtype == "float32" else np.float64)
