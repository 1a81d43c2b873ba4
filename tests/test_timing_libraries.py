"""What comes in as a torch tensor goes out as one, from every function outside the solvers that takes data."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
from fastencode.errors import InputError
from fastencode.speech.acoustics import log_mel
from fastencode.speech.labels import event_rate
from fastencode.timing.clean import detrend_cosine, detrend_polynomial, detrend_savgol, zscore

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
    "detrend_cosine": lambda X: detrend_cosine(X, 2.0, 10.0),
    "detrend_savgol": lambda X: detrend_savgol(X, 2.0, 14.0),
    "mfcc": lambda X: fastencode.mfcc(X[:, 0], 200, n_mels=5, n_mfcc=3),
    "log_mel": lambda X: log_mel(X[:, 0], 200, n_mels=2),
    "sound_power": lambda X: fastencode.sound_power(X[:, 0], 200),
    "event_rate": lambda X: event_rate(TIMES, TIMES[::2], values=X),
    "event_rate-lanczos": lambda X: event_rate(TIMES, TIMES[::2], values=X, how="lanczos"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_torch_in_torch_out(name, dtype):
    array = (np.random.default_rng(0).standard_normal((12, 3)) * 4).astype(dtype)
    tensor = torch.from_numpy(array.copy())
    if dtype != "int32":
        tensor.requires_grad_()
    ours, expected = FUNCTIONS[name](tensor), FUNCTIONS[name](array)
    assert isinstance(ours, torch.Tensor) and isinstance(expected, np.ndarray)
    assert not ours.requires_grad
    np.testing.assert_array_equal(ours.numpy(), expected)
    assert ours.numpy().dtype == expected.dtype == (np.float32 if dtype == "float32" else np.float64)


def test_ceilings_of_a_tensor_are_a_tensor():
    repeats = np.random.default_rng(0).standard_normal((3, 20, 4)) + np.random.default_rng(1).standard_normal((20, 4))
    ours = fastencode.noise_ceiling(torch.from_numpy(repeats).requires_grad_())
    assert isinstance(ours, torch.Tensor)
    np.testing.assert_array_equal(ours.numpy(), fastencode.noise_ceiling(repeats))


def test_times_may_be_tensors_and_bad_ones_are_named():
    X, times = np.ones(12), torch.from_numpy(TIMES).requires_grad_()
    np.testing.assert_array_equal(fastencode.lanczos(X, times, TIMES[::2]), fastencode.lanczos(X, TIMES, TIMES[::2]))
    for bad, words in ((TIMES + 1j, "old_times has dtype complex128"), ([[0.0], [0.0, 1.0]], "old_times cannot become an array")):
        with pytest.raises(InputError, match=words):
            fastencode.lanczos(X, bad, TIMES[::2])
