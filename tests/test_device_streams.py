"""Streams, pinned buffers and kernel launches of both libraries, played by stand-ins: what a card is told, in which order."""

from __future__ import annotations

import contextlib
import sys
import types

import numpy as np
import pytest
import torch

import fastencode
from card_cases import FakeCupy, FakeTorch, Placed, Stream
from device_cases import ALPHAS, assert_same, make, on_device
from fastencode.delayed import Delayed
from fastencode.devices import Device
from fastencode.errors import DeviceError, InputError
from fastencode.solve.score import device_moments as moments_module
from fastencode.streams import Downloads, Uploads

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")


@pytest.fixture(params=["torch", "cupy"])
def card(request, monkeypatch):
    """A device whose library is a stand-in; moments are array functions there."""
    device = Device(request.param, "cuda:0", FakeTorch() if request.param == "torch" else FakeCupy())
    monkeypatch.setattr(Device, "precision", lambda self, dtype, reduced: contextlib.nullcontext())
    monkeypatch.setattr(moments_module, "cuda_kernel", lambda device, op: None)
    return device


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("width", [5, 16, 64])
def test_tiles_arrive_and_weights_come_back(card, width, keep, dtype):
    X, Y = make(200, 7, v=53, dtype=dtype)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    arrays, account = on_device(card, plan, Y, keep=keep, width=width)
    assert account["tile"] == min(width, 53) and account["card"] == "a stand-in"
    assert_same(plan.fit(Y), {name: np.asarray(value) for name, value in arrays.items()}, dtype)


def test_arrays_are_made_on_the_device_that_was_named():
    """CuPy makes arrays on its current device, whatever that is."""
    second, (X, Y) = Device("cupy", "cuda:1", FakeCupy()), make(200, 7)
    second.xp.number = 1
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "precision", lambda self, dtype, reduced: contextlib.nullcontext())
        patch.setattr(moments_module, "cuda_kernel", lambda device, op: None)
        arrays, account = on_device(second, plan, Y, keep=False, width=8)
        assert account["device"] == "cuda:1" and second.xp.inside == 0
        assert_same(plan.fit(Y), arrays, np.float64)
        with pytest.raises(AssertionError, match="an array of another device"):
            second.put(Y)


def test_a_stored_series_in_two_passes(card, tmp_path):
    X, Y = make(200, 7, v=53)
    memmap = np.memmap(tmp_path / "y.bin", dtype=">f4", mode="w+", shape=Y.shape)
    memmap[:] = Y
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    arrays, _ = on_device(card, plan, memmap, per_target=False, keep=False, width=8)
    assert_same(plan.fit(memmap, per_target=False), arrays, np.float64)


def test_memory_that_runs_out_while_tiles_are_on_their_way(card, monkeypatch):
    X, Y = make(200, 7, v=200)
    real = moments_module.device_moments

    def hungry(device, target, *rest):
        if target.shape[1] > 20:
            raise torch.OutOfMemoryError("out of memory")
        return real(device, target, *rest)

    monkeypatch.setattr("fastencode.solve.score.device_scorer.device_moments", hungry)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    arrays, account = on_device(card, plan, Y, keep=False, width=80)
    assert account["halvings"] == 2 and account["tile"] == 20
    assert_same(plan.fit(Y), arrays, np.float64)


def test_the_stand_ins_notice_a_missing_wait(card, monkeypatch):
    X, Y = make(200, 7, v=53)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    monkeypatch.setattr(Stream, "wait_event", lambda self, event: None)
    made = Device.empty

    def sevens(self, *shape, dtype):  # fresh memory may hold anything, the right responses or NaN too
        out = made(self, *shape, dtype=dtype)
        np.asarray(out)[...] = 7
        return out

    monkeypatch.setattr(Device, "empty", sevens)
    arrays, _ = on_device(card, plan, Y, keep=True, width=8)
    with pytest.raises(AssertionError):
        assert_same(plan.fit(Y), {name: np.asarray(value) for name, value in arrays.items()}, np.float64)


def test_buffers_take_turns_and_grow(card):
    sent = Uploads(card, 3, 4, np.dtype("f8"))
    tiles = []
    for turn in range(5):
        tile = sent.send(lambda buffer, turn=turn: buffer.__setitem__(..., turn), 4 - turn % 2)
        tiles.append(np.asarray(tile).copy())
        sent.used()
    assert len(sent.slots) == 2 and [tile.shape for tile in tiles] == [(3, 4), (3, 3)] * 2 + [(3, 4)]
    assert all((tile == turn).all() for turn, tile in enumerate(tiles))
    sent.finish()
    out = [np.zeros((2, width)) for width in (2, 3, 7, 1)]
    with Downloads(card) as back:
        for turn, place in enumerate(out):
            back.fetch(card.put(np.full(place.shape, turn + 1.0)), place)
    assert [place.min() for place in out] == [place.max() for place in out] == [1, 2, 3, 4]


def test_errors_of_the_thread_that_places_weights_are_told(card):
    place, back = np.zeros((2, 2)), Downloads(card)
    place.flags.writeable = False
    back.fetch(card.put(np.ones((2, 2))), place)
    with pytest.raises(ValueError, match="read-only"):
        back.__exit__()


# ---- the public functions, on arrays of CuPy's stand-in


@pytest.fixture
def cupy(monkeypatch):
    """CuPy as far as ``import cupy`` goes, with its setting for products; moments are array functions there."""
    fake, setting = FakeCupy(), {"now": "default"}
    fake.settings = [setting["now"]]
    core = types.SimpleNamespace(
        get_compute_type=lambda dtype: fake.settings[-1], set_compute_type=lambda dtype, kind: fake.settings.append(kind)
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupy._core", core)
    kinds = types.SimpleNamespace(COMPUTE_TYPE_DEFAULT="full", COMPUTE_TYPE_TF32="tf32")
    monkeypatch.setitem(sys.modules, "cupy._core._routines_linalg", kinds)
    monkeypatch.setattr(moments_module, "cuda_kernel", lambda device, op: None)
    return fake


def values(array):
    return array.get() if isinstance(array, Placed) else np.asarray(array)


@pytest.mark.parametrize("x_there, y_there", [(True, True), (False, True), (True, False)])
def test_results_are_where_the_arrays_were(cupy, x_there, y_there, tmp_path):
    X, Y = make(200, 7, v=30)
    wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS)
    x, y = (a.view(Placed) if there else a for a, there in ((X, x_there), (Y, y_there)))
    fit = fastencode.ridge_cv(x, y, alphas=ALPHAS)
    names = ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge")
    assert all(isinstance(getattr(fit, name), Placed) for name in names)
    assert_same(wanted, {name: values(getattr(fit, name)) for name in names}, np.float64)
    assert fit.stats["device"] == "cuda:0" and fit.stats["library"] == "cupy 0"
    for other in (wanted, fit):
        predicted, score = other.predict(x), other.score(x, y)
        assert isinstance(predicted, Placed) == x_there and isinstance(score, Placed)
        np.testing.assert_allclose(values(predicted), wanted.predict(X), atol=1e-12)
        np.testing.assert_allclose(values(score), wanted.score(X, Y), atol=1e-12)
    assert isinstance(fit.predict(X), np.ndarray) and not isinstance(fit.predict(X), Placed)
    assert not isinstance(fit.score(X, Y, "pearson"), Placed)
    np.testing.assert_allclose(fit.score(X, Y, "pearson"), wanted.score(X, Y, "pearson"), atol=1e-12)
    fit.save(tmp_path / "fit.h5")
    back, there = (fastencode.RidgeFit.load(tmp_path / "fit.h5", device) for device in (None, "cuda"))
    assert not isinstance(back.coef, Placed) and isinstance(there.coef, Placed)
    assert np.array_equal(back.coef, values(fit.coef)) and np.array_equal(values(there.coef), back.coef)
    assert cupy.inside == 0


def test_dual_weights_are_loaded_to_a_device_with_their_features(cupy, tmp_path):
    X, Y = make(60, 7, v=30)
    wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS, weights="dual")
    wanted.save(tmp_path / "fit.h5")
    there = fastencode.RidgeFit.load(tmp_path / "fit.h5", "cuda")
    assert isinstance(there.features, Placed)
    np.testing.assert_allclose(values(there.predict(X)), wanted.predict(X), atol=1e-12)
    np.testing.assert_allclose(values(there.score(X, Y)), wanted.score(X, Y), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_delayed_copies_are_made_there_of_what_is_uploaded_once(cupy, monkeypatch, dtype):
    features, Y = make(90, 6, v=30, dtype=dtype)
    runs = np.repeat([0, 1, 2], 30)
    X, copies = (fastencode.delay(features, (1, 2, -1, 4), runs, copy=copy) for copy in (False, True))
    wanted = fastencode.ridge_cv(copies, Y, alphas=ALPHAS)
    fit, sent, put = fastencode.ridge_cv(copies.view(Placed), Y.view(Placed), alphas=ALPHAS), [], Device.put
    monkeypatch.setattr(Device, "put", lambda self, array, dtype=None: sent.append(np.size(array)) or put(self, array, dtype))
    monkeypatch.setattr(Delayed, "__getitem__", None)  # nothing is made here
    monkeypatch.setattr(Delayed, "__array__", None)
    predicted, tolerance = fit.predict(X), 1e-12 if dtype == np.float64 else 1e-4
    assert type(predicted) is np.ndarray and predicted.dtype == dtype and max(sent) == features.size
    np.testing.assert_allclose(predicted, wanted.predict(copies), atol=tolerance)
    np.testing.assert_allclose(values(fit.score(X, Y.view(Placed))), wanted.score(copies, Y), atol=tolerance)
    with pytest.raises(InputError, match="18 features and the fit has 24"):
        fit.predict(fastencode.delay(features, (1, 2, 3), copy=False))
    features[40, 2] = np.nan
    with pytest.raises(InputError, match=r"1 values .* at row 40, column 2"):
        fit.predict(fastencode.delay(features, (1, 2, -1, 4), runs, copy=False))


@pytest.mark.parametrize("search", ["random", "gradient"])
@pytest.mark.parametrize("x_there, y_there", [(True, True), (False, True), (True, False)])
def test_banded_results_are_where_the_arrays_were(cupy, x_there, y_there, search, tmp_path):
    X, Y = make(200, 7, v=30)
    given = {"bands": [3, 4], "n_iter": 3, "random_state": 0, "alphas": ALPHAS, "search": search}
    wanted = fastencode.banded_ridge_cv(X, Y, **given)
    x, y = (a.view(Placed) if there else a for a, there in ((X, x_there), (Y, y_there)))
    fit = fastencode.banded_ridge_cv(x, y, **given)
    names = ("coef", "intercept", "alpha", "alphas", "gammas", "candidates", "cv_scores", "best_score", "at_edge")
    for name in names:
        assert isinstance(getattr(fit, name), Placed), name
        np.testing.assert_allclose(values(getattr(fit, name)), getattr(wanted, name), atol=1e-6, err_msg=name)
    assert fit.stats["device"] == "cuda:0" and fit.stats["library"] == "cupy 0"
    assert type(fit.predict(x)) is type(fit.score(x, y)) is np.ndarray  # predictions of bands are computed on the CPU
    np.testing.assert_allclose(fit.predict(x), wanted.predict(X), atol=1e-6)
    np.testing.assert_allclose(fit.score(x, y), wanted.score(X, Y), atol=1e-6)
    fit.save(tmp_path / "fit.h5")
    assert np.array_equal(fastencode.BandedFit.load(tmp_path / "fit.h5").coef, values(fit.coef)) and cupy.inside == 0


def test_banded_on_cuda_takes_arrays_of_the_host_there_and_back(cupy):
    X, Y = make(200, 7, v=30)
    given = {"n_iter": 3, "random_state": 0, "alphas": ALPHAS}
    wanted = fastencode.banded_ridge_cv(X, Y, bands=[3, 4], **given)
    fit = fastencode.banded_ridge_cv(X, Y, bands=[3, 4], device="cuda", **given)
    assert type(fit.coef) is np.ndarray and fit.stats["device"] == "cuda:0" and wanted.stats["device"] == "cpu"
    np.testing.assert_allclose(fit.coef, wanted.coef, atol=1e-10)
    one = fastencode.banded_ridge_cv(X.view(Placed), Y, bands=[7], alphas=ALPHAS)
    assert all(isinstance(array, Placed) for array in (one.coef, one.gammas, one.cv_scores))


def test_device_cuda_takes_arrays_of_the_host_there_and_back(cupy):
    X, Y = make(200, 7, v=30, dtype=np.float32)
    wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS)
    for given, kind in ((X, np.ndarray), (torch.from_numpy(X.copy()), torch.Tensor)):
        cupy.calls.clear()
        fit = fastencode.ridge_cv(given, Y, alphas=ALPHAS, device="cuda")
        assert fit.stats["device"] == "cuda:0" and type(fit.coef) is type(fit.alpha) is kind
        assert cupy.calls == [1, 2] and np.array_equal(fit.alpha, wanted.alpha)  # one tile there, its weights back
        np.testing.assert_allclose(fit.cv_scores, wanted.cv_scores, atol=1e-5)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, device="cuda:0")
    assert "cuda:0" in str(plan) and plan.fit(Y[:, 0]).coef.shape == (7,)
    estimator = fastencode.RidgeCV(alphas=ALPHAS, device="cuda").fit(X, Y)
    assert estimator.result_.stats["device"] == "cuda:0" and type(estimator.predict(X)) is np.ndarray


def test_fast_is_for_products_of_predictions_only(cupy):
    X, Y = make(200, 7, v=30, dtype=np.float32)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4, precision="fast")
    fit = plan.fit(Y.view(Placed))
    assert fit.stats["scored_in"] == "tf32" and cupy.settings.count("tf32") == plan.n_folds and cupy.settings[-1] == "default"
    cupy.settings[:] = ["default"]
    assert fastencode.ridge_cv(X, Y.view(Placed), alphas=ALPHAS).stats["scored_in"] == "float32"
    assert "tf32" not in cupy.settings and "full" in cupy.settings and cupy.settings[-1] == "default"


def test_what_is_wrong_with_arrays_there_is_told_as_on_the_cpu(cupy):
    X, Y = make(200, 7, v=30)
    fit, bad = fastencode.ridge_cv(X, Y.view(Placed), alphas=[1.0]), Y.copy()
    bad[3, 5] = np.nan
    for call, words in (
        (lambda: fastencode.ridge_cv(X, bad.view(Placed)), "1 of 30 voxels .* first is voxel 5"),
        (lambda: fit.score(X, bad.view(Placed)), "1 of 30 voxels .* first is voxel 5"),
        (lambda: fit.score(X, Y[:, :3].view(Placed)), "3 voxels and the fit has 30"),
        (lambda: fit.score(X[:0], Y[:0].view(Placed)), "no rows"),
        (lambda: fit.predict(X[:, :3].view(Placed)), "3 features and the fit has 7"),
        (lambda: fit.predict((X * np.nan).view(Placed)), "row 0, column 0"),
        (lambda: fastencode.ridge_cv(X, Y[:3].view(Placed)), "3 rows and X has 200"),
        (lambda: fastencode.ridge_cv(X, Y.astype(complex).view(Placed)), "complex128"),
        (lambda: fastencode.r2(bad.view(Placed), Y.view(Placed)), "Y holds 1 values"),
        (lambda: fastencode.r2(Y.view(Placed), Y[:, :3].view(Placed)), "same shape"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    with pytest.raises(DeviceError, match="Y lies on cuda:0 .* and device='cpu'"):
        fastencode.ridge_cv(X, Y.view(Placed), device="cpu")
    with pytest.raises(DeviceError, match="X lies on cuda:0 .* and device='cpu'"):
        fastencode.ridge_cv(X.view(Placed), Y, device="cpu")
    with pytest.raises(DeviceError, match=r"Y lies on cuda:0 \(cupy\) and P in the host's memory"):
        fastencode.r2(Y.view(Placed), Y)
    with pytest.raises(DeviceError, match="CuPy array and this computes on the CPU"):
        fastencode.delay(X.view(Placed))


@pytest.mark.parametrize("score", [fastencode.r2, fastencode.pearson])
def test_public_scores_there(cupy, score):
    Y, P = make(50, 7, v=9)[1], make(50, 7, v=9, seed=1)[1]
    found = score(Y.view(Placed), P.view(Placed))
    assert isinstance(found, Placed)
    np.testing.assert_allclose(values(found), score(Y, P), atol=1e-12)
    assert np.ndim(score(Y[:, 0].view(Placed), P[:, 0].view(Placed))) == 0


def test_what_counts_as_memory_that_ran_out(card):
    texts = {"CUDA error: out of memory": True, "CUBLAS_STATUS_ALLOC_FAILED when": True, "CUDA error: illegal address": False}
    assert {text: card.is_out_of_memory(RuntimeError(text)) for text in texts} == texts
    assert card.is_out_of_memory(torch.OutOfMemoryError("")) and not card.is_out_of_memory(MemoryError("out of memory"))
