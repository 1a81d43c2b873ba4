"""Libraries and devices at the door, public scores, and thread limits that are given back."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import scipy.sparse
import torch
from threadpoolctl import ThreadpoolController

import fastencode
from fastencode.arrays import as_numpy, check_device, float_dtype
from fastencode.errors import DeviceError, InputError
from fastencode.threads import available_threads, limit_threads

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")


def make(v=5):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 6)).astype(np.float32)
    return X, (X @ rng.standard_normal((6, v)) + rng.standard_normal((40, v))).astype(np.float32)


def blas_threads():
    return [pool["num_threads"] for pool in ThreadpoolController().info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("which", ["both", "X", "Y"])
def test_torch_in_torch_out(which):
    X, Y = make()
    wanted = fastencode.ridge_cv(X, Y)
    tx, ty = (torch.from_numpy(a.copy()) for a in (X, Y))
    fit = fastencode.ridge_cv(tx if which != "Y" else X, ty if which != "X" else Y)
    for name in ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge"):
        value = getattr(fit, name)
        assert isinstance(value, torch.Tensor) and np.array_equal(value.numpy(), getattr(wanted, name)), name
    assert fit.coef.dtype == torch.float32
    assert isinstance(fit.predict(tx), torch.Tensor) and isinstance(fit.predict(X), np.ndarray)
    assert np.array_equal(fit.predict(X), wanted.predict(X))
    assert isinstance(fit.score(tx, Y), torch.Tensor)
    one = fastencode.ridge_cv(tx, ty[:, 0])
    assert isinstance(one.alpha, torch.Tensor) and one.alpha.ndim == 0 and one.coef.shape == (6,)
    assert np.array_equal(tx.numpy(), X) and np.array_equal(ty.numpy(), Y)


def test_torch_memory_is_shared_and_gradients_and_bfloat16_are_no_obstacle(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3)
    assert np.shares_memory(as_numpy(tensor, "X"), tensor.numpy())
    assert np.shares_memory(as_numpy(tensor.requires_grad_(), "X"), tensor.detach().numpy())
    assert as_numpy(tensor.to(torch.bfloat16), "X").dtype == np.float32
    X, Y = make()
    fit = fastencode.ridge_cv(torch.from_numpy(X), torch.from_numpy(Y))
    fit.save(tmp_path / "fit.h5")
    assert np.array_equal(fastencode.RidgeFit.load(tmp_path / "fit.h5").coef, fit.coef.numpy())


def test_tensors_elsewhere_and_other_arrays_are_refused():
    with pytest.raises(DeviceError, match=r"X is a torch tensor on meta .* X.cpu\(\)"):
        as_numpy(torch.empty(3, device="meta"), "X")
    with pytest.raises(InputError, match="sparse"):
        as_numpy(scipy.sparse.eye(3), "X")
    with pytest.raises(InputError, match="X is a masked array with masked values"):
        as_numpy(np.ma.masked_greater([1.0, 2.0], 1.5), "X")
    assert as_numpy(np.ma.masked_greater([1.0, 2.0], 2.5), "X").tolist() == [1.0, 2.0]
    assert check_device(torch.device("cpu")) == check_device(None) == "cpu"


@pytest.mark.parametrize("dtypes, wanted", [("ee", "f"), ("ff", "f"), ("fd", "d"), ("fi", "d"), ("?", "d"), ("g", "d")])
def test_float_dtype(dtypes, wanted):
    assert float_dtype(*map(np.dtype, dtypes)) == np.dtype(wanted)


@pytest.mark.parametrize("score", [fastencode.r2, fastencode.pearson])
def test_scores_of_constants_are_zero_and_never_nan(score):
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        Y, P = (rng.standard_normal((30, 4)).astype(dtype) for _ in range(2))
        Y[:, 0] = 0.1
        Y[:, 1] = np.linspace(0, 1, 30) * np.finfo(dtype).eps + 1  # varies by its rounding only
        P[:, 2] = 1e6 / 3
        found = score(Y, P)
        assert found.dtype == dtype and np.isfinite(found).all() and found[0] == 0 and found[1] == 0
        if score is fastencode.pearson:
            assert found[2] == 0
    assert isinstance(score(torch.ones(3, 2), torch.ones(3, 2)), torch.Tensor)
    assert np.ndim(score(Y[:, 3], P[:, 3])) == 0


@pytest.mark.parametrize(
    "Y, P, words",
    [
        (np.ones((3, 2)), np.ones((3, 1)), "same shape"),
        (np.ones((0, 2)), np.ones((0, 2)), "at least one row"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "P holds 6"),
        (np.ones((3, 2), complex), np.ones((3, 2)), "complex128"),
    ],
)
def test_scores_refuse_what_they_cannot_score(Y, P, words):
    with pytest.raises(InputError, match=words):
        fastencode.r2(Y, P)


def test_limits_nest_and_come_back():
    before, torch_before = blas_threads(), torch.get_num_threads()
    with limit_threads(1):
        assert set(blas_threads()) == {1} and torch.get_num_threads() == 1 and available_threads() == 1
        with limit_threads(2):
            assert set(blas_threads()) == {2}
        assert set(blas_threads()) == {1}
    with pytest.raises(ZeroDivisionError), limit_threads(1):
        raise ZeroDivisionError
    assert blas_threads() == before and torch.get_num_threads() == torch_before
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError), limit_threads(bad):
            pass


def test_limits_of_threads_that_leave_in_any_order_come_back():
    before, entered, leave = blas_threads(), threading.Barrier(2), threading.Event()

    def first():
        with limit_threads(1):
            entered.wait()
            leave.wait()

    thread = threading.Thread(target=first)
    thread.start()
    with limit_threads(1):
        entered.wait()
        leave.set()
        thread.join()
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
