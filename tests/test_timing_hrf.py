"""The hemodynamic response against SPM's own numbers, nilearn run live, and naive sums."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastencode
import reference_timing as reference
from fastencode.errors import InputError
from fastencode.kernels import hrf as kernel
from fastencode.kernels.hrf import gamma_cdf, gamma_pdf

hemodynamic = pytest.importorskip("nilearn.glm.first_level.hemodynamic_models", reason="nilearn is not installed")

NILEARN = {"spm": {"ratio": 1 / 0.167}, "glover": {}}


def test_equals_spms_kernels(shared_data):
    case = np.load(shared_data / "hrf" / "spm_hrf.npz")
    names = ("dt", "peak_delay", "undershoot_delay", "peak_dispersion", "undershoot_dispersion", "ratio")
    for i, row in enumerate(case["params"]):
        kernel = fastencode.hrf_kernel(**dict(zip(names, row, strict=True)))
        np.testing.assert_allclose(kernel, case[f"kernel_{i}"], rtol=0, atol=1e-12)
    assert np.abs(fastencode.hrf_kernel(dt=0.5, peak_delay=5.001) - case["kernel_0"]).max() > 1e-6


@pytest.mark.parametrize(
    ("name", "derivative"), [("hrf", None), ("time_derivative", "time"), ("dispersion_derivative", "dispersion")]
)
def test_equals_spms_basis_set(shared_data, name, derivative):
    case = np.load(shared_data / "hrf" / "spm_bases.npz")
    kernel = fastencode.hrf_kernel("spm", dt=float(case["dt"][0]), derivative=derivative)
    np.testing.assert_allclose(kernel, case[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", ["spm", "glover"])
def test_the_continuous_response_is_nilearns_on_nilearns_grid(model):
    t_r, oversampling = 2.0, 20
    dt = t_r / oversampling
    theirs = getattr(hemodynamic, f"{model}_hrf")(t_r, oversampling)
    # nilearn samples 0 to 32 s with one step less than that takes, and starts its densities one step late.
    grid = np.linspace(0, 32, round(32 / dt)) - dt
    ours = fastencode.hrf_convolve([1.0], [0.0], grid, model=model, **NILEARN[model])
    np.testing.assert_allclose(ours / ours.sum(), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", ["spm", "glover"])
@pytest.mark.parametrize("derivative", [None, "time"])
def test_regressors_approach_nilearns_as_its_grid_gets_finer(model, derivative):
    rng = np.random.default_rng(0)
    onsets, lengths, heights = np.sort(rng.uniform(0, 80, 25)), rng.uniform(0.5, 12, 25), rng.uniform(-1, 2, 25)
    scans = np.arange(0, 120, 2.0)
    name = f"{model} + derivative" if derivative else model
    column = 1 if derivative else 0
    ours = fastencode.hrf_convolve(
        heights, onsets, scans, model=model, durations=lengths, derivative=derivative, derivative_step=0.1, **NILEARN[model]
    )
    errors = []
    for oversampling in (50, 400):
        theirs, _ = hemodynamic.compute_regressor((onsets, lengths, heights), name, scans, oversampling=oversampling)
        # nilearn makes a derivative orthogonal to the main regressor: project ours in the same way.
        main = fastencode.hrf_convolve(heights, onsets, scans, model=model, durations=lengths, **NILEARN[model])
        wanted = ours - main * (main @ ours) / (main @ main) if derivative else ours
        errors.append(np.abs(theirs[:, column] - wanted).max() / np.abs(wanted).max())
    assert errors[1] < 5e-3
    assert errors[1] < errors[0] / 4


@settings(max_examples=25, deadline=None)
@given(
    times=arrays(np.float64, st.integers(0, 13), elements=st.floats(-40, 60)),
    new=arrays(np.float64, st.integers(0, 11), elements=st.floats(-40, 99)),
    dtype=st.sampled_from([np.float32, np.float64]),
    model=st.sampled_from(["spm", "glover"]),
)
def test_impulses_equal_a_naive_sum(times, new, dtype, model):
    data = np.random.default_rng(len(times)).standard_normal((len(times), 3)).astype(dtype)
    glover = {"undershoot": 12.0, "peak_dispersion": 0.9, "undershoot_dispersion": 0.9, "ratio": 1 / 0.48}
    expected = reference.hrf_impulses(data, times, new, **(glover if model == "glover" else {}))
    ours = fastencode.hrf_convolve(data, times, new, model=model)
    assert ours.dtype == dtype and ours.shape == (len(new), 3)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6 if dtype == np.float32 else 1e-9)


def test_units_integral_plateau_and_limits():
    fine = np.linspace(0, 32, 32_001)
    assert np.trapezoid(fastencode.hrf_convolve([1.0], [0.0], fine), fine) == pytest.approx(1.0, abs=1e-9)
    assert (fastencode.hrf_convolve([1.0], [0.0], [-1e-9, 32.0 + 1e-9, 40.0]) == 0).all()
    long = fastencode.hrf_convolve([2.5], [0.0], [-1.0, 0.0, 40.0, 100.0, 133.0], durations=[100.0])
    np.testing.assert_allclose(long, [0, 0, 2.5, 2.5, 0], atol=1e-12)
    # A boxcar is the integral of impulses over its length, and so a short one is its length times an impulse.
    starts = np.arange(0, 3, 0.001) + 0.0005
    summed = fastencode.hrf_convolve(np.full(3000, 0.001), starts, [4.0, 9.3, 20.0])
    np.testing.assert_allclose(fastencode.hrf_convolve([1.0], [0.0], [4.0, 9.3, 20.0], durations=3.0), summed, atol=1e-7)
    mixed = fastencode.hrf_convolve([1.0, 1.0], [0.0, 50.0], [5.0, 55.0], durations=[0.0, 3.0])
    assert mixed[0] == fastencode.hrf_convolve([1.0], [0.0], [5.0])[0]


def test_sampled_features_are_a_riemann_sum_at_their_own_rate():
    t = np.arange(0, 60, 0.02)
    feature = np.sin(t / 7)[:, None] * [1.0, -2.0]
    scans = np.arange(0, 60, 2.0)
    ours = fastencode.hrf_convolve(feature, t, scans, dt=0.02)
    kernel = fastencode.hrf_kernel(dt=0.02)
    dense = np.stack([np.convolve(feature[:, c], kernel)[: len(t)] for c in range(2)], axis=1)[::100]
    # Unit integral against unit sum: they differ by half a step of h(32 s) = 7e-5, which is 7e-7.
    np.testing.assert_allclose(ours, dense, rtol=0, atol=1e-6 * np.abs(dense).max())


@pytest.mark.parametrize("derivative", ["time", "dispersion"])
@pytest.mark.parametrize("model", ["spm", "glover"])
def test_continuous_derivatives_are_the_limit_of_sampled_ones(model, derivative):
    dt = 0.001
    kernel = fastencode.hrf_kernel(model, dt=dt, derivative=derivative)
    t = np.arange(len(kernel)) * dt
    ours = fastencode.hrf_convolve([dt], [0.0], t, model=model, derivative=derivative)
    np.testing.assert_allclose(ours[:-1], kernel[:-1], atol=1e-6 * np.abs(kernel).max())


def test_order_dimensions_maps_and_blocks(tmp_path, monkeypatch):
    from fastencode.timing import hrf as module

    rng = np.random.default_rng(5)
    np.save(tmp_path / "data.npy", rng.standard_normal((40, 2, 3)).astype(np.float32))
    data = np.load(tmp_path / "data.npy", mmap_mode="r")
    times, new = rng.uniform(0, 50, 40), rng.uniform(0, 80, 17)
    lengths = rng.uniform(0.1, 4, 40)
    ours = fastencode.hrf_convolve(data, times, new, durations=lengths)
    order, back = rng.permutation(40), rng.permutation(17)
    monkeypatch.setattr(module, "COLUMNS_PER_BLOCK", 5)
    shuffled = fastencode.hrf_convolve(data[order], times[order], new[back], durations=lengths[order])
    np.testing.assert_allclose(shuffled, ours[back], atol=1e-6)
    np.testing.assert_allclose(fastencode.hrf_convolve(data[:, 1, 2], times, new, durations=lengths), ours[:, 1, 2], atol=1e-6)
    assert fastencode.hrf_convolve(data[:0], [], new).shape == (17, 2, 3)
    assert fastencode.hrf_convolve(data, times, []).shape == (0, 2, 3)
    assert fastencode.hrf_convolve([1], [0], [6]).dtype == np.float64


@pytest.mark.parametrize("shape", [1.0, 3.0, 6.0, 6 / 0.9, 16.0, 31.5])
def test_the_compiled_gamma_functions_equal_scipys(shape):
    log_gamma = scipy.special.gammaln(shape)
    for x in np.linspace(0, 90, 451):
        assert gamma_cdf(x * 0.9, shape, 0.9, log_gamma) == pytest.approx(scipy.special.gammainc(shape, x), abs=1e-13)
        expected = float(scipy.stats.gamma.pdf(x, shape)) / 0.9
        assert gamma_pdf(x * 0.9, shape, 0.9, log_gamma, np.log(x) if x > 0 else 0.0) == pytest.approx(expected, abs=1e-13)
    assert gamma_pdf(-1.0, shape, 0.9, log_gamma, 0.0) == gamma_cdf(-1.0, shape, 0.9, log_gamma) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "fir"}, "model='fir'"),
        ({"data": [1.0]}, r"\(1,\) for 2 times"),
        ({"times": [0.0, np.inf]}, r"times\[1\] is inf"),
        ({"durations": [1.0, -2.0]}, r"durations\[1\] is -2.0"),
        ({"durations": [1.0]}, "1 durations for 2 times"),
        ({"durations": 1.0, "dt": 0.1}, "both given"),
        ({"dt": 0.0}, "dt=0.0"),
        ({"dt": "2"}, "dt='2'"),
        ({"duration": None}, "duration=None"),
        ({"peak_delay": "late"}, "peak_delay='late'"),
        ({"ratio": "6"}, "ratio='6'"),
        ({"duration": -1.0}, "duration=-1.0"),
        ({"ratio": 0.0}, "ratio=0.0"),
        ({"ratio": 0.1}, "larger ratio"),
        ({"peak_delay": 0.5}, "infinite at 0"),
        ({"derivative": "spatial"}, "derivative='spatial'"),
        ({"derivative": "time", "derivative_step": 0.0}, "derivative_step=0.0"),
        ({"data": [1.0, np.nan]}, r"data\[1, 0\] is nan"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"data": [1.0, 2.0], "times": [0.0, 3.0], "new_times": [0.0, 5.0]}
    with pytest.raises(InputError, match=message):
        fastencode.hrf_convolve(**(good | change))
    with pytest.raises(InputError, match="sums to"):
        fastencode.hrf_kernel(dt=40.0)


def test_no_undershoot():
    kernel = fastencode.hrf_kernel(dt=0.1, ratio=np.inf)
    assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "glover", "derivative": "time"},
        {"derivative": "dispersion"},
        {"peak_delay": 1.05, "undershoot_delay": 3.0},
        {"peak_delay": 4.0, "peak_dispersion": 0.3, "duration": 7.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("longest", [None, 3.0, 80.0])
@pytest.mark.parametrize("apart", [None, 2.0, 0.7, 1 / 3], ids="scans {}".format)
def test_many_events_are_the_sum_of_few(options, longest, apart):
    """Many are read from a table of the response, few are computed: equal to rounding, kinks and shifted onsets included."""
    rng = np.random.default_rng(4)
    times, data = rng.uniform(-20, 620, 2000), rng.standard_normal((2000, 2))
    times[:50] = 2.0 * rng.integers(0, 300, 50)  # on a scan
    scans = rng.uniform(0, 640, 300) if apart is None else 1.4 + apart * np.arange(int(640 / apart))
    lengths = None if longest is None else np.where(rng.uniform(size=2000) < 0.1, 0.0, rng.uniform(0.02, longest, 2000))
    support, few = options.get("duration", 32.0), kernel.ENOUGH * kernel.PIECES
    assert 2000 * len(scans) * support / 640 > 1.2 * few + (0 if apart is None else 3 * support / apart)
    some = [slice(a, a + 20) for a in range(0, 2000, 20)]
    parts = [
        fastencode.hrf_convolve(data[at], times[at], scans, durations=None if lengths is None else lengths[at], **options)
        for at in some
    ]
    whole = fastencode.hrf_convolve(data, times, scans, durations=lengths, **options)
    # A difference of two responses that differ little is all the less exact, however it is computed.
    near = 1e-11 if options.get("derivative") == "dispersion" else 1e-12
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=0, atol=near * np.abs(whole).max())
    column = fastencode.hrf_convolve(data[:, 1], times, scans, durations=lengths, **options)
    np.testing.assert_allclose(column, whole[:, 1], rtol=0, atol=1e-14 * np.abs(whole).max())


@pytest.mark.parametrize("scans", ["evenly apart", "anywhere"])
@pytest.mark.parametrize(
    "options",
    [*({"duration": duration} for duration in (1e4, 1e7, 1e20, 1e300)), *({"peak_dispersion": at} for at in (1e-5, 1e-6))],
    ids=str,
)
def test_a_response_much_shorter_than_its_support_is_not_overlooked(options, scans):
    """Between the points at which polynomials are fitted and looked at, say."""
    rng = np.random.default_rng(7)
    new, delay = (2.0 * np.arange(200) if scans == "evenly apart" else np.sort(rng.uniform(0, 400, 300))), 6.1
    times, data = np.concatenate([rng.uniform(0, 300, 200), new[:150] - delay]), rng.standard_normal((350, 1))
    whole = fastencode.hrf_convolve(data, times, new, peak_delay=delay, **options)
    parts = [fastencode.hrf_convolve(data[o : o + 1], times[o : o + 1], new, peak_delay=delay, **options) for o in range(350)]
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=0, atol=1e-11 * np.abs(whole).max())
    narrow = options.get("peak_dispersion", 1.0)
    assert np.abs(whole).max() > 0.5 * scipy.stats.gamma.pdf(delay, delay / narrow, scale=narrow)


@pytest.mark.parametrize("start", [1e9, 1e16, -1e16])
def test_scans_that_rounding_moves_onto_each_other_are_taken_as_they_are(start):
    """More of them are within a response than the steps between them are."""
    apart = float(np.spacing(abs(start)))
    new = start + apart * np.sort(np.round(np.arange(600) / 2.5) * 2.5)
    options = {"peak_delay": 4 * apart, "undershoot_delay": 6 * apart, "peak_dispersion": apart, "undershoot_dispersion": apart}
    rng = np.random.default_rng(3)
    times, data = rng.choice(new, 400), rng.standard_normal((400, 1))
    whole = fastencode.hrf_convolve(data, times, new, duration=20 * apart, **options)
    parts = [fastencode.hrf_convolve(data[o : o + 1], times[o : o + 1], new, duration=20 * apart, **options) for o in range(400)]
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=0, atol=1e-11 * np.abs(whole).max())


def test_tables_are_bounded_and_scans_no_time_apart_have_none_of_their_own():
    terms = np.array([[1.0, 0.0, 6.0, 1.0, scipy.special.gammaln(6)]])
    for apart in (5e-324, 1e-300, 1e-9, 1e-5, 2.0):
        table, _, whole = kernel.make_table(False, 10**12, apart, 32.0, terms)
        assert whole and 0 < table.nbytes <= 11 * 2**20
    assert len(kernel.make_table(False, 10**12, 0.0, 1e9, terms)[0]) == 0
    assert len(kernel.make_table(False, 10**12, 0.0, 5e-324, terms)[0]) == 0


@pytest.mark.parametrize("derivative", [None, "time", "dispersion"])
@pytest.mark.parametrize("model", ["spm", "glover"])
def test_most_of_every_response_is_read_from_polynomials(model, derivative):
    """Else there is nothing but the time they take: rounding of differences must not be taken for a bad fit."""
    from fastencode.timing import hrf as module

    parts = module._combination(model, module._choose(model, None, None, None, None, None), derivative, None)
    terms = np.array(module._terms(parts, 32.0))
    for lasting in (False, True):
        for apart in (0.0, 2.0):
            table, _, whole = kernel.make_table(lasting, 10**6, apart, 32.0, terms)
            unserved = np.isnan(table).all(axis=1)
            assert unserved.mean() < 0.05 and whole == (not unserved.any())
            assert len(kernel.make_table(lasting, 500, apart, 32.0, terms)[0]) == 0
