"""The device loop on a CUDA device: CuPy and torch against the CPU, transfers that overlap, memory that runs out.

Skipped, with the reason, where there is no card; ``python bench/gpu.py`` runs this and the measurements in one go.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

import fastencode
from device_cases import ALPHAS, FORMS, assert_same, make, on_device
from fastencode import kernels, launch
from fastencode.devices import HOST, Device, device_of, find_device
from fastencode.errors import DeviceError, InputError
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan import plan as plan_module
from fastencode.solve.plan.basis import make_basis
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.solve.score import device_moments as moments_module
from fastencode.solve.score import device_tiles
from fastencode.solve.score.device_moments import device_moments, moments_by
from fastencode.solve.score.moments import SCORINGS
from fastencode.timing import device_columns
from kernel_cases import SHAPES, tiles

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")


def missing(library):
    """Why a library cannot be tested here; None if it can."""
    try:
        found = find_device("cuda", library)
    except DeviceError as error:
        return f"no CUDA device: {error}"
    return None if found.library == library else f"CUDA through {found.library} only"


WHY = {library: missing(library) for library in ("cupy", "torch")}
if all(WHY.values()):
    pytest.skip(WHY["cupy"], allow_module_level=True)


@pytest.fixture(params=["cupy", "torch"])
def device(request):
    if WHY[request.param]:
        pytest.skip(WHY[request.param])
    return find_device("cuda", request.param)


def to(device, array):
    with device.current():
        return device.put(np.array(array))


def host(device, value):
    return device.get(value) if device_of(value) else np.asarray(value)


def fit_there(device, X, Y, **options):
    """Both arrays on the card; results as NumPy, after looking at where they lie."""
    fit = fastencode.ridge_cv(to(device, X), to(device, Y), alphas=ALPHAS, **options)
    names = ("coef", "intercept", "alpha", "alphas", "cv_scores", "best_score", "at_edge", "fold_scores")
    assert all(device_of(getattr(fit, name)) == device for name in names)
    return fit, {name: device.get(getattr(fit, name)) for name in names}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_card_finds_what_the_cpu_finds(device, form, weighted, intercept, dtype):
    n, p, cv = FORMS[form]
    X, Y = make(n, p, v=700, dtype=dtype)
    weight = np.random.default_rng(3).uniform(0.5, 2, n) if weighted else None
    options = dict(cv=cv, fit_intercept=intercept, sample_weight=weight)
    for scoring in SCORINGS:
        wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS, scoring=scoring, **options)
        fit, arrays = fit_there(device, X, Y, scoring=scoring, **options)
        scale = max(1.0, np.abs(wanted.fold_scores).max()) if form == "whole, tiny" else 1.0
        same_but_near_ties(wanted, arrays, dtype, scale)
        assert fit.stats["device"] == "cuda:0" and fit.stats["library"].startswith(device.library)


def same_but_near_ties(wanted, arrays, dtype, scale=1.0):
    """As ``assert_same``, but for voxels whose choice the tolerance for ties leaves open within rounding: a few in float32."""
    other = arrays["alpha"] != wanted.alpha
    assert other.mean() <= (0.01 if dtype == np.float32 else 0), f"{other.sum()} voxels chose other penalties"
    same = ~other
    kept = {name: values if name == "alphas" else values[..., same] for name, values in arrays.items()}
    names = {name: getattr(wanted, name) if name == "alphas" else getattr(wanted, name)[..., same] for name in arrays}
    assert_same(type("Wanted", (), names), kept, dtype, scale=4 * scale)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_skipped_voxels_and_one_penalty_for_all(device, there, per_target, scoring):
    X, Y = make(200, 7, v=300)
    Y[3, 0], Y[7, 8], Y[:, 9], Y[1, 299] = np.nan, np.inf, np.nan, -np.inf
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    wanted = plan.fit(Y, scoring=scoring, per_target=per_target, nan_targets="skip")
    arrays, account = on_device(device, plan, to(device, Y) if there else Y, scoring, per_target, True, there, 128)
    assert_same(wanted, {name: host(device, value) for name, value in arrays.items()}, np.float64)
    assert account["skipped_voxels"] == 4
    with pytest.raises(InputError, match="4 of 300 voxels .* first is voxel 0"):
        plan.fit(to(device, Y))


@pytest.mark.parametrize("order", ["C", "F", "sliced"])
def test_arrays_of_the_card_are_not_copied(device, order, monkeypatch):
    X, Y = make(200, 7, v=500, dtype=np.float32)
    wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS)
    there = to(device, np.repeat(Y, 2, axis=1) if order == "sliced" else Y)
    if order == "F":
        there = device.contiguous(there.T).T
    elif order == "sliced":
        there = there[:, ::2]
    before, seen = device.get(there), []
    real = Targets.check
    monkeypatch.setattr(Targets, "check", classmethod(lambda cls, *a: seen.append(real(*a)) or seen[-1]))
    fit = fastencode.ridge_cv(X, there, alphas=ALPHAS)
    pointer = (lambda a: a.data.ptr) if device.library == "cupy" else (lambda a: a.data_ptr())
    assert {pointer(targets.source) for targets in seen} == {pointer(there)}
    assert device_of(fit.coef) == device and np.array_equal(device.get(there), before)
    np.testing.assert_allclose(device.get(fit.cv_scores), wanted.cv_scores, atol=4e-5)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i2", ">f4"])
@pytest.mark.parametrize("keep", [False, True])
def test_responses_of_the_host_stream_through_the_card(device, dtype, keep, monkeypatch):
    """Many tiles, so that both buffers are used again and again while others are on their way."""
    X, Y = make(300, 20, v=5000, dtype=np.float32)
    Y = np.round(Y * 20).astype(dtype) if dtype == "i2" else Y.astype(dtype)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    wanted = plan.fit(Y)
    arrays, account = on_device(device, plan, Y, keep=keep, width=64)
    assert account["tile"] == 64 and (device_of(arrays["coef"]) is not None) == keep
    same_but_near_ties(wanted, {name: host(device, value) for name, value in arrays.items()}, np.float32)


def test_numpy_in_numpy_out(device, tmp_path):
    import h5py

    X, Y = make(200, 7, v=3000, dtype=np.float32)
    wanted = fastencode.ridge_cv(X, Y, alphas=ALPHAS)
    fit = fastencode.ridge_cv(X, Y, alphas=ALPHAS, device="cuda")
    assert isinstance(fit.coef, np.ndarray) and isinstance(fit.alpha, np.ndarray) and fit.stats["device"] == "cuda:0"
    np.testing.assert_allclose(fit.cv_scores, wanted.cv_scores, atol=4e-5)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["Y"] = Y
        stored = fastencode.ridge_cv(X, file["Y"], alphas=ALPHAS, device="cuda:0")
    np.testing.assert_array_equal(stored.cv_scores, fit.cv_scores)
    one = fastencode.ridge_cv(X, Y[:, 0], alphas=ALPHAS, device="cuda")
    assert one.coef.shape == (7,) and np.ndim(one.alpha) == 0


def test_predict_score_save_and_load(device, tmp_path):
    X, Y = make(200, 7, v=3000, dtype=np.float32)
    wanted = fastencode.ridge_cv(X, Y, alphas=[10.0])
    fit = fastencode.ridge_cv(to(device, X), to(device, Y), alphas=[10.0])
    there = fit.predict(to(device, X))
    assert device_of(there) == device and isinstance(fit.predict(X), np.ndarray)
    for found in (device.get(there), fit.predict(X), device.get(wanted.predict(to(device, X)))):
        np.testing.assert_allclose(found, wanted.predict(X), rtol=1e-4, atol=1e-4)
    for scoring in SCORINGS:
        score = wanted.score(X, Y, scoring)
        for x, y in ((to(device, X), to(device, Y)), (X, to(device, Y)), (to(device, X), Y), (X, Y)):
            found = fit.score(x, y, scoring)
            assert (device_of(found) is None) == (x is X and y is Y)
            np.testing.assert_allclose(host(device, found), score, rtol=1e-4, atol=1e-4)
    bad = Y.copy()
    bad[3, 5] = np.nan
    with pytest.raises(InputError, match="1 of 3000 voxels .* first is voxel 5"):
        fit.score(X, to(device, bad))
    with pytest.raises(InputError, match="6 features and the fit has 7"):
        fit.predict(to(device, X[:, :6]))
    fit.save(tmp_path / "fit.h5")
    loaded = fastencode.RidgeFit.load(tmp_path / "fit.h5")
    assert isinstance(loaded.coef, np.ndarray) and np.array_equal(loaded.coef, device.get(fit.coef))
    assert device_of(fastencode.RidgeFit.load(tmp_path / "fit.h5", "cuda").coef) is not None


def test_public_scores(device):
    Y, P = (a.astype(np.float32) for a in (np.random.default_rng(i).standard_normal((50, 400)) for i in (0, 1)))
    Y[:, 0], P[:, 1] = 0.1, 1e6 / 3
    for score in (fastencode.r2, fastencode.pearson):
        found = score(to(device, Y), to(device, P))
        assert device_of(found) == device
        np.testing.assert_allclose(device.get(found), score(Y, P), atol=1e-6)
        with pytest.raises(DeviceError, match="Y lies on cuda:0 .* and P in the host's memory"):
            score(to(device, Y), P)


def use_torchs_own(device, op, module, monkeypatch):
    own = launch._through_torch(device, op)
    if own is None:
        pytest.skip("this torch cannot compile kernels here: array functions take their place")
    monkeypatch.setattr(module, "cuda_kernel", lambda device, op: launch.CudaKernel(own, "torch"))


@pytest.mark.parametrize("launcher", ["first choice", "torch's own"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (12, 300, 1000), (3, 2, 70000)], ids=str)
def test_the_kernel_on_the_card_is_the_kernel_of_the_cpu(device, shape, dtype, weighted, launcher, monkeypatch):
    if launcher == "torch's own":
        if device.library != "torch":
            pytest.skip("only torch has a launcher of its own")
        use_torchs_own(device, "moments", moments_module, monkeypatch)
    y, p = tiles(shape, dtype, "huge mean" if shape[1] % 2 else "plain")
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y)) if weighted else None
    with device.current():
        found = device_moments(device, device.put(y), device.put(p), None if weight is None else device.put(weight))
    wanted = kernels.cpu("moments")(y, p, weight)
    size = np.abs(wanted).max(axis=1, keepdims=True) + 1e-300
    np.testing.assert_allclose(device.get(found) / size, wanted / size, atol=1e-11)


def test_the_kernel_is_used_where_it_can_be(device):
    by = moments_by(device)
    assert by.startswith("moments.cu") or (device.library == "torch" and WHY["cupy"]), by


def test_memory_that_runs_out_halves_the_tile(device, monkeypatch):
    """The library's own error, from an allocation no card can hold."""
    X, Y = make(200, 7, v=3000)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    wanted, real, asked = plan.fit(Y), device_tiles.DeviceScorer.score, []

    def hungry(self, y_tw, *others):
        asked.append(y_tw.shape[1])
        if y_tw.shape[1] > 400:
            self.device.empty(2**50, dtype=np.float32)
        return real(self, y_tw, *others)

    monkeypatch.setattr(device_tiles.DeviceScorer, "score", hungry)
    for there in (False, True):
        arrays, account = on_device(device, plan, to(device, Y) if there else Y, keep=there, width=1500)
        assert account["halvings"] == 2 and account["tile"] == 375 and asked[:3] == [1500, 750, 375]
        assert_same(wanted, {name: host(device, value) for name, value in arrays.items()}, np.float64)
        asked.clear()


def test_fast_scores_in_tf32_and_refits_in_full(device):
    X, Y = make(400, 60, v=2000, dtype=np.float32)
    exact = fastencode.ridge_cv(X, Y, alphas=[10.0], device="cuda")
    options = dict(alphas=[10.0], precision="fast")
    fast = fastencode.ridge_cv(to(device, X), to(device, Y), **options)
    assert fast.stats["scored_in"] == "tf32" and exact.stats["scored_in"] == "float32"
    error = np.abs(device.get(fast.cv_scores) - exact.cv_scores).max()
    assert error < 1e-2
    np.testing.assert_allclose(device.get(fast.coef), exact.coef, atol=1e-5)
    major = import_module("torch").cuda.get_device_capability(0)[0] if not WHY["torch"] else 0
    assert error > 1e-7 or major < 8, "nothing was computed in reduced precision"


def test_exact_is_exact_whatever_torch_was_told(device):
    if device.library != "torch":
        pytest.skip("torch's own setting")
    X, Y = make(400, 60, v=2000, dtype=np.float32)
    device.xp.set_float32_matmul_precision("high")
    try:
        loose = fastencode.ridge_cv(to(device, X), to(device, Y), alphas=[10.0])
        assert device.xp.get_float32_matmul_precision() == "high"
    finally:
        device.xp.set_float32_matmul_precision("highest")
    np.testing.assert_allclose(device.get(loose.coef), fastencode.ridge_cv(X, Y, alphas=[10.0]).coef, atol=2e-5)


def test_places_that_contradict_each_other(device):
    X, Y = make(40, 3)
    with pytest.raises(DeviceError, match="X lies on cuda:0 .* and device='cpu'"):
        fastencode.ridge_cv(to(device, X), Y, device="cpu")
    with pytest.raises(DeviceError, match="Y lies on cuda:0 .* and device='cpu'"):
        fastencode.ridge_cv(X, to(device, Y), device="cpu")
    with pytest.raises(DeviceError, match="'cuda:99': .* sees"):
        fastencode.ridge_cv(X, Y, device="cuda:99")
    if not any(WHY.values()):
        other = find_device("cuda", "torch" if device.library == "cupy" else "cupy")
        with pytest.raises(DeviceError, match="give both in one library"):
            fastencode.ridge_cv(to(device, X), to(other, Y))
    with pytest.raises(DeviceError, match="this computes on the CPU"):
        fastencode.delay(to(device, X))


def test_one_plan_serves_participants_on_card_and_cpu(device):
    X, Y = make(200, 7, v=300)
    plan = fastencode.plan_ridge(to(device, X), alphas=ALPHAS, cv=4)
    first, second = plan.fit(to(device, Y)), plan.fit(Y)
    assert device_of(first.coef) == device_of(second.coef) == device
    np.testing.assert_allclose(device.get(first.coef), device.get(second.coef), atol=1e-10)
    np.testing.assert_allclose(device.get(first.coef), fastencode.ridge_cv(X, Y, alphas=ALPHAS, cv=4).coef, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stored", [None, "merged", "factored", "rotated", "whole"])
@pytest.mark.parametrize(("n", "p"), [(600, 300), (300, 700)], ids=["primal", "dual"])
def test_plans_made_on_the_card(device, n, p, stored, dtype):
    X, Y = make(n, p, v=20, dtype=dtype)
    rows = np.linspace(0.5, 2, n)
    problem = Problem.check(X, alphas=ALPHAS, cv=4, sample_weight=rows)
    there, here = (RidgePlan(make_plan(problem, stored=stored, device=place)) for place in (device, HOST))
    assert there._plan.maps == here._plan.maps and len(there._plan.whole) == len(here._plan.whole)
    assert there._plan.condition == pytest.approx(here._plan.condition, rel=1e-6)
    found, wanted = there.fit(Y), here.fit(Y)
    names = ("coef", "intercept", "alpha", "cv_scores", "best_score", "at_edge")
    assert_same(wanted, {name: getattr(found, name) for name in names}, dtype, 4.0)


def test_the_card_is_asked_for_plans(device, monkeypatch):
    seen, X, Y = [], *make(600, 300, v=20, dtype=np.float32)
    monkeypatch.setattr(plan_module, "make_basis", lambda *args: seen.append(args[2]) or make_basis(*args))
    fastencode.ridge_cv(to(device, X), to(device, Y), alphas=ALPHAS)
    fastencode.ridge_cv(X, to(device, Y), alphas=ALPHAS)
    fastencode.ridge_cv(X, Y, alphas=ALPHAS, device="cuda")
    fastencode.ridge_cv(X, Y, alphas=ALPHAS)
    assert [place.name for place in seen] == [device.name] * 3 + ["cpu"] and seen[0] == seen[1] == device


def test_weightings_decomposed_on_the_card(device):
    X, Y = make(700, 400, v=20)
    options = dict(bands=[150, 250], alphas=ALPHAS, n_iter=4, random_state=0, progress=False)
    wanted = fastencode.banded_ridge_cv(X, Y, **options)
    found = fastencode.banded_ridge_cv(to(device, X), to(device, Y), **options)
    np.testing.assert_allclose(device.get(found.coef), wanted.coef, atol=1e-8)


def test_the_loop_makes_no_synchronisation_that_torch_can_see(device):
    if device.library != "torch":
        pytest.skip("only torch watches for these")
    X, Y = make(200, 7, v=3000, dtype=np.float32)
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, cv=4)
    there = to(device, Y)
    plan.fit(there)  # operators are moved, kernels compiled
    run = device_tiles.DeviceSweep._run
    with pytest.MonkeyPatch.context() as patch:

        def watched(self, job, bar):
            device.xp.cuda.set_sync_debug_mode("error")
            try:
                run(self, job, bar)
            finally:
                device.xp.cuda.set_sync_debug_mode("default")

        patch.setattr(device_tiles.DeviceSweep, "_run", watched)
        on_device(device, plan, there, width=256)
        on_device(device, plan, Y, width=256, keep=True)


@pytest.mark.parametrize("where", ["both there", "host"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("search", ["random", "auto"])
@pytest.mark.parametrize(("n", "widths"), [(200, [15, 25]), (60, [45, 55])], ids=["primal", "dual"])
def test_banded_ridge_on_the_card(device, n, widths, search, dtype, where):
    X, Y = make(n, sum(widths), dtype=dtype)
    given = {"bands": widths, "search": search, "n_iter": 4, "random_state": 0, "alphas": ALPHAS, "cv": 4}
    wanted = fastencode.banded_ridge_cv(X, Y, **given)
    if where == "host":
        found = fastencode.banded_ridge_cv(X, Y, device="cuda", **given)
        assert isinstance(found.coef, np.ndarray)
    else:
        found = fastencode.banded_ridge_cv(to(device, X), to(device, Y), **given)
        assert device_of(found.coef) is not None and device_of(found.gammas) is not None
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    for name in ("coef", "intercept", "gammas", "alpha", "cv_scores", "best_score"):
        np.testing.assert_allclose(
            host(device, getattr(found, name)), getattr(wanted, name), rtol=tolerance, atol=tolerance, err_msg=name
        )
    np.testing.assert_allclose(host(device, found.predict(X)), wanted.predict(X), rtol=1e-3, atol=1e-3)


# ---- time kernels

TIMES, SCANS = np.random.default_rng(1).uniform(0, 60, 700), np.arange(1.0, 60, 2.0)
TIMING = {
    "lanczos": lambda X: fastencode.lanczos(X, TIMES, SCANS),
    "lanczos, rectify and normalize": lambda X: fastencode.lanczos(X, TIMES, SCANS, lobes=2.5, rectify=True, normalize=True),
    "hrf, impulses": lambda X: fastencode.hrf_convolve(X, TIMES, SCANS[::-1]),
    "hrf, boxcars": lambda X: fastencode.hrf_convolve(X, TIMES, SCANS, durations=np.linspace(0, 9, 700), derivative="time"),
}


@pytest.mark.parametrize("launcher", ["first choice", "torch's own", "array functions"])
@pytest.mark.parametrize("shape", [(700,), (700, 1), (700, 3, 300)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TIMING)
def test_time_kernels_on_the_card(device, name, dtype, shape, launcher, monkeypatch):
    op = name[:7] if name.startswith("lanczos") else "hrf"
    if launcher == "torch's own":
        if device.library != "torch":
            pytest.skip("only torch has a launcher of its own")
        use_torchs_own(device, op, device_columns, monkeypatch)
    elif launcher == "array functions":
        monkeypatch.setattr(device_columns, "cuda_kernel", lambda device, op: None)
    data = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    wanted, there = TIMING[name](data), to(device, data)
    with monkeypatch.context() as patch:
        patch.setattr(Device, "get", lambda *a: pytest.fail("data were copied to the host"))
        found = TIMING[name](there)
    assert device_of(found) == device
    found = device.get(found)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    size = np.abs(wanted).max()
    np.testing.assert_allclose(found / size, wanted / size, rtol=0, atol=2e-7 if dtype == np.float32 else 1e-12)
    assert np.array_equal(device.get(there), data)


def test_streaming_and_bad_values_on_the_card(device):
    data, times = np.random.default_rng(0).standard_normal((700, 9)), np.sort(TIMES)
    stream, there = fastencode.LanczosStream(SCANS), to(device, data)
    parts = [stream.add(there[a : a + 100], times[a : a + 100]) for a in range(0, 700, 100)]
    found = np.concatenate([device.get(part) for part in (*parts, stream.finish())])
    assert np.array_equal(found, device.get(fastencode.lanczos(there, times, SCANS)))
    bad = data.copy()
    bad[300, 4] = np.nan
    for call in (fastencode.lanczos, fastencode.hrf_convolve, fastencode.LanczosStream(SCANS).add):
        with pytest.raises(InputError, match=r"data\[300, 4\] is nan \(1 such"):
            call(to(device, bad), times, *([] if call.__name__ == "add" else [SCANS]))
