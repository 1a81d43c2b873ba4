"""Code for devices, run without one: over torch on the CPU and over arrays that know nothing but the array API standard."""

from __future__ import annotations

import contextlib
import pickle

import array_api_strict
import numpy as np
import pytest
import torch

import fastencode
from device_cases import ALPHAS, FORMS, assert_same, both, make, on_device
from fastencode import kernels
from fastencode.devices import HOST as NUMPY
from fastencode.devices import Device, plain_device
from fastencode.errors import DeviceError, InputError
from fastencode.kernels import fallback
from fastencode.launch import boxed
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan import cost as strategy
from fastencode.solve.plan import segments as shrinkage
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.solve.score import device_tiles
from fastencode.solve.score.choose import Choice
from fastencode.solve.score.device_moments import device_moments
from fastencode.solve.score.device_tiles import DeviceSweep
from fastencode.solve.score.gcv import GCV_SCORINGS
from fastencode.solve.score.moments import SCORINGS, column_moments, column_scores, score_moments
from fastencode.solve.weights import device as weights_device
from fastencode.solve.weights.device import DeviceRidge
from fastencode.streams import Downloads, Uploads, transfer_dtype
from kernel_cases import HOST, SHAPES, build, pointers, tiles
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

PLAIN = [plain_device(torch), plain_device(array_api_strict)]


@pytest.fixture(autouse=True)
def one_thread():
    """These arrays are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=PLAIN, ids=lambda device: device.library)
def device(request):
    return request.param


@pytest.mark.parametrize(
    "device, form, weighted, intercept, dtype",
    pairs(PLAIN, list(FORMS), ["", "weights", "zero weights"], [True, False], [np.float32, np.float64]),
    indirect=["device"],
)
def test_the_device_loop_finds_what_the_cpu_finds(device, form, weighted, intercept, dtype):
    n, p, cv = FORMS[form]
    X, Y = make(n, p, dtype=dtype)
    weight = np.random.default_rng(3).uniform(0.5, 2, n) * (np.arange(n) % 11 != 5 if weighted == "zero weights" else 1)
    options = dict(cv=cv, fit_intercept=intercept, sample_weight=weight if weighted else None)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, **options)
    for scoring in SCORINGS:
        fit = plan.fit(Y, scoring=scoring)
        arrays, account = on_device(device, plan, Y, scoring, width=8, there=scoring == "pearson")
        # R² of two or three rows is a ratio to how little they vary: rounding of the responses is multiplied by as much.
        assert_same(fit, arrays, dtype, scale=max(1.0, np.abs(fit.fold_scores).max()) if form == "whole, tiny" else 1.0)
        assert account["tile"] == 8 and account["halvings"] == 0 and account["device"] == "cpu"


@pytest.mark.parametrize(
    "device, stored, shape, dtype",
    pairs(PLAIN, ["merged", "factored", "rotated"], [(150, 40, 4), (160, 300, 4), (120, 30, 120)], [np.float32, np.float64]),
    indirect=["device"],
)
def test_cut_spectra_and_every_map(monkeypatch, device, stored, shape, dtype):
    monkeypatch.setattr(shrinkage, "_OVERHEAD", -20)  # cut wherever it can be
    monkeypatch.setattr(strategy, "SEGMENTED", 0.1)
    n, p, cv = shape
    X, Y = make(n, p, dtype=dtype)
    X *= np.geomspace(30, 0.3 if p < n else 20, p).astype(dtype)
    weight = np.random.default_rng(3).uniform(0.5, 2, n)
    options = {"runs": None, "fit_intercept": True, "precision": "exact", "device": None, "memory": None}
    problem = Problem.check(X, alphas=np.logspace(-1, 6, 24), cv=cv, sample_weight=weight, **options)
    plan = RidgePlan(make_plan(problem, "dual" if p > n else "primal", "whole" if p > n and stored == "factored" else stored))
    cut = [w.shrinkage for w in plan._plan.whole] + [f.map.shrinkage for f in plan._plan.operators if stored != "merged"]
    one_by_one = shape == (150, 40, 4) or (p > n and stored != "factored")
    assert plan._plan.maps == (stored,) if one_by_one else plan._plan.whole
    assert all(len(s.pieces) > 1 for s in cut)
    for scoring in SCORINGS if cv < n else SCORINGS[2:]:
        arrays, _ = on_device(device, plan, Y, scoring, width=8)
        assert_same(plan.fit(Y, scoring=scoring), arrays, dtype)


def test_forms_are_what_the_cases_are_named_after():
    for name, (n, p, cv) in FORMS.items():
        plan = fastencode.plan_ridge(make(n, p)[0], alphas=ALPHAS, cv=cv)
        found = {fold.form for fold in plan._plan.operators} | ({"whole"} if plan._plan.whole else set())
        assert found == ({"apart", "whole"} if name == "mixed" else {name.split(",")[0]}), name


@pytest.mark.parametrize(
    "device, scoring, per_target, there, keep",
    pairs(PLAIN, SCORINGS, [True, False], [True, False], [True, False]),
    indirect=["device"],
)
def test_skipped_voxels_and_one_penalty_for_all(device, scoring, per_target, there, keep):
    X, Y = make(200, 7, v=19)
    Y[3, 0], Y[7, 8], Y[:, 9], Y[1, 18] = np.nan, np.inf, np.nan, -np.inf
    options = dict(scoring=scoring, per_target=per_target, skip=True, there=there, keep=keep, width=6, cv=4)
    fit, arrays, account = both(device, X, Y, **options)
    assert_same(fit, arrays, np.float64)
    assert account["skipped_voxels"] == fit.stats["skipped_voxels"] == 4
    assert np.isnan(np.asarray(arrays["coef"])[:, 9]).all() and np.isfinite(np.asarray(arrays["coef"])[:, 1]).all()
    assert np.isnan(Y).sum() == 201  # nothing was written to it


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", ["one series", "one voxel", "rows in another order", "integers", "float16", "X constant"])
def test_odd_responses(device, kind, there):
    X, Y = make(200, 7)
    options = {"cv": 4}
    if kind == "one series":
        Y = Y[:, 0]
    elif kind == "one voxel":
        Y = Y[:, :1]
    elif kind == "rows in another order":
        order = np.random.default_rng(1).permutation(200)
        options["cv"] = [(order[50:], order[:50]), (order[:150], order[150:])]
        Y = np.asfortranarray(Y)
    elif kind == "integers":
        Y = np.round(Y * 10).astype(np.int16)
    elif kind == "float16":
        Y = Y.astype(np.float16)
    else:
        X = np.ones_like(X)
    if there and kind == "float16" and device.library == "array_api_strict":
        pytest.skip("the standard has no float16")
    fit, arrays, _ = both(device, X, Y, there=there, **options)
    assert_same(fit, arrays, np.float64)


def test_constant_voxels_and_huge_offsets(device):
    X, Y = make(200, 7)
    Y[:, 0], Y[:, 1] = 1 / 3, Y[:, 1] + 1e7
    for scoring in SCORINGS:
        fit, arrays, _ = both(device, X, Y, scoring=scoring, cv=4)
        np.testing.assert_array_equal(np.asarray(arrays["cv_scores"])[:, 0], fit.cv_scores[:, 0])
        assert_same(fit, arrays, np.float64, scale=1e3)


@pytest.mark.parametrize("per_target", [True, False])
def test_voxels_that_cannot_be_fitted_are_named_at_the_end(device, per_target):
    X, Y = make(60, 5)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS)
    bad = Y.copy()
    bad[7, 1] = bad[8, 3] = np.nan
    with pytest.raises(InputError, match="2 of 13 voxels .* first is voxel 1;"):
        on_device(device, plan, bad, per_target=per_target, width=4)
    bad = Y.copy()
    bad[:, 2] = np.linspace(-1, 1, 60) * np.finfo(float).max
    for skip in (True, False):
        with pytest.raises(InputError, match="too large to (add up|score in float64), the first in voxel 2; rescale"):
            on_device(device, plan, bad, per_target=per_target, skip=skip)


def test_a_perturbed_plan_is_noticed(device):
    """The comparison above can fail: an operator off by 1e-6 shows in float64."""
    X, Y = make(200, 7)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    fit = plan.fit(Y)
    plan._plan.operators[1].map.predict_kmr[0, 0, 0] *= 1 + 1e-6
    arrays, _ = on_device(device, plan, Y)
    with pytest.raises(AssertionError, match="cv_scores"):
        assert_same(fit, arrays, np.float64)


# ---- memory


class Scarce:
    """A namespace whose matrix product runs out of memory where its right side is wider than it allows."""

    def __init__(self, xp, widest):
        self._xp, self._widest, self.refused = xp, widest, 0

    def __getattr__(self, name):
        return getattr(self._xp, name)

    def matmul(self, left, right):
        if len(right.shape) > 1 and right.shape[-1] > self._widest:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")
        return self._xp.matmul(left, right)


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("widest, halvings, width", [(40, 1, 40), (39, 2, 20), (17, 3, 16)])
def test_a_tile_that_does_not_fit_is_done_again_at_half_the_width(device, widest, halvings, width, per_target):
    X, Y = make(200, 7, v=200)
    short = Device(device.library, "cpu", Scarce(device.xp, widest))
    fit, arrays, account = both(short, X, Y, width=80, cv=4, per_target=per_target)
    assert_same(fit, arrays, np.float64)
    assert short.xp.refused == account["halvings"] == halvings and account["tile"] == width


def test_too_little_memory_for_any_tile_is_an_error(device):
    X, Y = make(200, 7, v=200)
    short = Device(device.library, "cpu", Scarce(device.xp, 9))
    with pytest.raises(DeviceError, match="ran out of memory on a tile of 16 voxels .* device=None") as caught:
        both(short, X, Y, width=64, cv=4)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_pass_through(device):
    X, Y = make(200, 7)

    class Broken(Scarce):
        def matmul(self, left, right):
            raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        both(Device(device.library, "cpu", Broken(device.xp, 0)), X, Y)


def test_memory_bounds_the_tile_and_names_what_works(device, monkeypatch):
    monkeypatch.setattr(device_tiles, "_TILE_BYTES", 2**20)
    X, Y = make(200, 7, v=3000)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    targets = Targets.check(Y, 200)
    sweep = DeviceRidge(device, plan._plan, targets, "r2", False, Choice(), True)
    assert sweep.bytes_per_voxel * sweep.width <= 2**20 and sweep.width >= 16
    least = plan.nbytes + 16 * sweep.bytes_per_voxel
    for memory, works in ((least - 1, False), (least, True)):
        small = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
        object.__setattr__(small._plan.problem, "memory", memory)
        words = f"smallest that works .* is {least} bytes"
        with contextlib.nullcontext() if works else pytest.raises(InputError, match=words):
            assert DeviceRidge(device, small._plan, targets, "r2", False, Choice(), True).width <= 16


# ---- waiting


FORBIDDEN = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero", "__len__")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scoring", SCORINGS)
def test_the_loop_never_waits_for_the_device(monkeypatch, form, scoring):
    """Every way in which torch could hand a value to Python raises while tiles are computed."""
    (n, p, cv), device = FORMS[form], PLAIN[0]
    X, Y = make(n, p)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=cv, sample_weight=np.linspace(0.5, 2, n))
    seen, run = [], DeviceSweep._run

    def watched(self, job, bar):
        with monkeypatch.context() as patch:
            for name in FORBIDDEN:
                patch.setattr(torch.Tensor, name, forbidden(name))
            patch.setattr(Device, "get", forbidden("get"))
            if self.uploads is None:  # else tiles come that way where there are no streams
                patch.setattr(Device, "put", forbidden("put"))  # waits until pageable memory is copied
            run(self, job, bar)
            seen.append(job)
            with pytest.raises(AssertionError, match="waits: __bool__"):
                bool(self.chosen_v[0])

    def forbidden(name):
        def fail(*args, **kwargs):
            raise AssertionError(f"this waits: {name}")

        return fail

    monkeypatch.setattr(DeviceSweep, "_run", watched)
    on_device(device, plan, Y, scoring, True, there=False, width=8)
    on_device(device, plan, Y, scoring, False, there=True, width=8)
    on_device(device, plan, Y, scoring, True, there=True, width=8, rule="one-se")
    if scoring in GCV_SCORINGS:
        plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv="gcv")
        on_device(device, plan, Y, scoring, True, there=True, width=8)
    assert len(seen) == 4 + (scoring in GCV_SCORINGS)


# ---- moments


@pytest.mark.parametrize(
    "device, shape, kind, dtype, weighted",
    pairs(PLAIN, SHAPES, ["plain", "huge mean", "first row far out"], [np.float32, np.float64], [False, True]),
)
def test_moments_by_array_functions(device, shape, kind, dtype, weighted):
    y, p = tiles(shape, dtype, kind)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y)) if weighted else None
    found = device_moments(device, device.put(y), device.put(p), None if weight is None else device.put(weight))
    wanted = fallback.moments(y, p, weight)
    size = np.abs(wanted).max(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(found) / (size + 1e-300), wanted / (size + 1e-300), atol=1e-12)


@pytest.fixture(scope="module")
def boxed_moments(tmp_path_factory):
    """The entry points that torch compiles, on the host: a grid of one thread."""
    return build(tmp_path_factory.mktemp("moments"), HOST + kernels.cuda_source("moments") + boxed("moments"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES[3:7], ids=str)
def test_the_launcher_for_torch_passes_sizes_on(boxed_moments, shape, dtype):
    (k, t, v), (y, p) = shape, tiles(shape, np.dtype(dtype).type)
    weight = np.random.default_rng(0).uniform(0.1, 3, t)
    for weights in (0, 1):
        out = np.empty(((k + 1) * (k + 4) // 2, v))
        numbers = np.array([1, 1, weights, 1, k, t, v, v, t * v, v], dtype=np.float64)
        getattr(boxed_moments, f"moments_{dtype}_boxed")(*pointers(y, p, weight, out, numbers))
        np.testing.assert_allclose(out, fallback.moments(y, p, weight if weights else None), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_scores_of_moments_and_of_columns(device, scoring):
    rng = np.random.default_rng(2)
    y = rng.standard_normal((40, 6))
    p = y + rng.standard_normal((40, 6))
    y[:, 0], p[:, 1], y[:, 2] = 3.0, 1e6 / 3, np.linspace(0, 1, 40) * 1e-16 + 1
    parts = column_moments(NUMPY, y, p)
    wanted = score_moments(NUMPY, scoring, parts, 40.0, 2.0, 0.5)
    found = score_moments(device, scoring, [device.put(row) for row in parts], 40.0, 2.0, 0.5)
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-13, atol=1e-15)
    found = column_scores(device, scoring, device.put(y), device.put(p))
    np.testing.assert_allclose(np.asarray(found), score_moments(NUMPY, scoring, parts, 40.0), rtol=1e-12, atol=1e-15)
    assert scoring == "neg_mean_squared_error" or np.asarray(found)[0] == np.asarray(found)[2] == 0


# ---- the plan's copy, and transfers


def test_operators_are_moved_once_and_not_pickled(device, monkeypatch):
    X, Y = make(200, 7)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    moved, real = [], weights_device.plan_on_device
    monkeypatch.setattr(weights_device, "plan_on_device", lambda *a: moved.append(real(*a)) or moved[-1])
    for _ in range(2):
        on_device(device, plan, Y)
    assert len(moved) == 2 and moved[0] is moved[1]
    again = pickle.loads(pickle.dumps(plan))
    assert not vars(again._plan)["_copies"] and np.array_equal(again.fit(Y).coef, plan.fit(Y).coef)


def test_stored_responses_arrive_in_tiles(device, tmp_path):
    import h5py

    X, Y = make(200, 7, v=50, dtype=np.float32)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["Y"] = Y
        arrays, _ = on_device(device, plan, file["Y"], keep=False, width=16)
    assert isinstance(arrays["coef"], np.ndarray)
    assert_same(plan.fit(Y), arrays, np.float32)
    memmap = np.memmap(tmp_path / "y.bin", dtype=">f4", mode="w+", shape=Y.shape)
    memmap[:] = Y
    assert_same(plan.fit(Y), on_device(device, plan, memmap, width=16)[0], np.float32)


def test_transfers_without_streams(device):
    sent = Uploads(device, 3, 8, np.dtype("f4"))
    tile = sent.send(lambda buffer: buffer.__setitem__(..., 2.0), 5)
    sent.used()
    out = np.zeros((3, 9))
    with Downloads(device) as back:
        back.fetch(device.cast(tile, np.float64), out[:, 2:7])
    assert out.sum() == 30 and out[:, 2:7].min() == 2
    assert [transfer_dtype(np.dtype(d)).str[1:] for d in (">f4", "?", "u2", "g", "i8")] == ["f4", "b1", "f8", "f8", "i8"]
