"""The transformers: scikit-learn's own checks, the functions they wrap, runs through pipelines."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastencode
from fastencode import Delay, Detrend, HRFConvolve, InputError, LanczosResample, RidgeCV, ZScore
from fastencode.timing.clean import detrend_cosine, detrend_polynomial, detrend_savgol, zscore

pytestmark = pytest.mark.filterwarnings("ignore:.*of the grid")

RUNS = np.repeat(["b", "a", "c"], [31, 25, 29])


def series(p=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((len(RUNS), p)).cumsum(axis=0) + 5).astype(dtype)


def in_time(estimator):
    """Checks that take a transformer's rows for independent of each other."""
    names = ["check_methods_subset_invariance"]
    if not isinstance(estimator, ZScore | LanczosResample):
        names.append("check_methods_sample_order_invariance")
    return dict.fromkeys(names, "rows are a time series")


@parametrize_with_checks(
    [
        Delay((0, 1)),
        ZScore(),
        Detrend(order=1),
        Detrend("cosine", tr=1.0, period=5.0),
        Detrend("savgol", tr=1.0, window=3.0, order=1),
        HRFConvolve(1.0),
        HRFConvolve(1.0, model="glover", derivative="time"),
        LanczosResample(1.0, 1.0),
    ],
    expected_failed_checks=in_time,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def convolved(X, runs, **response):
    parts = [X[runs == run] for run in dict.fromkeys(runs)]
    times = [np.arange(len(part)) * 2.0 for part in parts]
    return np.concatenate([fastencode.hrf_convolve(part, t, t, dt=2.0, **response) for part, t in zip(parts, times, strict=True)])


CASES = [
    (Delay((1, -2)), lambda X, runs: fastencode.delay(X, (1, -2), runs)),
    (ZScore(), zscore),
    (Detrend(), lambda X, runs: detrend_polynomial(X, 3, runs)),
    (Detrend(order=1), lambda X, runs: detrend_polynomial(X, 1, runs)),
    (Detrend("cosine", tr=2.0, period=30.0), lambda X, runs: detrend_cosine(X, 2.0, 30.0, runs)),
    (Detrend("savgol", tr=2.0, window=30.0), lambda X, runs: detrend_savgol(X, 2.0, 30.0, 2, runs)),
    (HRFConvolve(2.0), convolved),
    (HRFConvolve(2.0, peak_delay=5.0, ratio=np.inf), partial(convolved, peak_delay=5.0, ratio=np.inf)),
    (HRFConvolve(2.0, model="glover", duration=20.0, undershoot_delay=14.0, undershoot_dispersion=1.1, peak_dispersion=0.8),
     partial(convolved, model="glover", duration=20.0, undershoot_delay=14.0, undershoot_dispersion=1.1, peak_dispersion=0.8)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("transformer", "wanted"), CASES)
def test_equals_the_function_in_each_run(transformer, wanted, dtype):
    X = series(dtype=dtype)
    ours = clone(transformer).fit_transform(X, groups=RUNS)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, wanted(X, RUNS), rtol=1e-6)
    np.testing.assert_array_equal(clone(transformer).fit(X).transform(X, groups=RUNS), ours)
    assert not np.allclose(clone(transformer).fit_transform(X), ours)  # one run is another thing


@pytest.mark.parametrize("rectify", [False, True])
def test_lanczos_takes_steps_or_times(rectify):
    X = series()[:40]
    old, new = np.arange(40) * 0.5, np.arange(10) * 2.0
    wanted = fastencode.lanczos(X, old, new, rectify=rectify)
    for given in ((0.5, 2.0), (old, new), (0.5, new), (old, 2.0)):
        ours = LanczosResample(*given, rectify=rectify).fit(X)
        np.testing.assert_array_equal(ours.transform(X), wanted)
        assert len(ours.get_feature_names_out()) == wanted.shape[1]
    assert LanczosResample(0.1, 0.3).fit_transform(X[:31]).shape == (11, 4)  # 3.0 s / 0.3 s is ten steps, whatever it rounds to


def test_names_and_frames():
    frame = pd.DataFrame(series(2), columns=["pitch", "loud"], index=np.arange(len(RUNS)) + 100)
    out = Delay((2, -1)).set_output(transform="pandas").fit_transform(frame)
    assert list(out.columns) == ["pitch_delay2", "loud_delay2", "pitch_delay-1", "loud_delay-1"]
    assert list(out.index) == list(frame.index)
    assert list(ZScore().set_output(transform="pandas").fit_transform(frame).columns) == ["pitch", "loud"]
    for X in (frame, frame.to_numpy()):
        resampled = LanczosResample(1.0, 2.0, rectify=True).set_output(transform="pandas").fit_transform(X)
        assert list(resampled.index[:3]) == [0.0, 2.0, 4.0] and len(resampled) == 43
    assert list(LanczosResample(1.0, 2.0, rectify=True).fit(frame).get_feature_names_out()) == [
        "pitch_negative", "loud_negative", "pitch_positive", "loud_positive",
    ]  # fmt: skip
    assert isinstance(LanczosResample(1.0, 2.0).fit_transform(frame), np.ndarray)


def test_runs_reach_every_step_of_a_pipeline():
    X = series()
    Y = fastencode.delay(zscore(X, RUNS), (1, 2), RUNS) @ np.random.default_rng(1).standard_normal((8, 3))
    model = make_pipeline(ZScore(), Delay((1, 2)), RidgeCV(alphas=(1e-6, 1.0), cv="runs"))
    with sklearn.config_context(enable_metadata_routing=True):
        model.fit(X, Y, groups=RUNS)
        assert model.score(X, Y, groups=RUNS) > 1 - 1e-9
        np.testing.assert_allclose(model.predict(X, groups=RUNS), Y, atol=1e-5)
        assert model.score(X, Y) < 1 - 1e-3  # one run
        scores = cross_val_score(model, X, Y, cv=LeaveOneGroupOut(), params={"groups": RUNS}, error_score="raise")
    assert scores.min() > 1 - 1e-6
    by_name = clone(model).fit(X, Y, zscore__groups=RUNS, delay__groups=RUNS, ridgecv__groups=RUNS)
    np.testing.assert_array_equal(by_name[-1].coef_, model[-1].coef_)


def test_a_search_finds_when_the_response_peaks():
    X = np.random.default_rng(0).standard_normal((240, 2))
    Y = HRFConvolve(2.0, peak_delay=8.0).fit_transform(X) @ np.random.default_rng(1).standard_normal((2, 5))
    model = make_pipeline(HRFConvolve(2.0), RidgeCV(alphas=(1e-3,), cv=3))
    search = GridSearchCV(model, {"hrfconvolve__peak_delay": [None, 4.0, 8.0]}, cv=3, error_score="raise").fit(X, Y)
    assert search.best_params_ == {"hrfconvolve__peak_delay": 8.0} and search.best_score_ > 0.5


def test_bad_input_is_named():
    X = series()
    with pytest.raises(NotFittedError):
        Delay().transform(X)
    for masked, whole in ((np.ma.masked_array(X, X > 6), X), (X, np.ma.masked_array(X, X > 6))):
        with pytest.raises(InputError, match="[Xy] is a masked array with masked values"):
            RidgeCV(cv=3).fit(masked, whole)
    for transformer in (ZScore(), LanczosResample(1.0, 2.0)):
        with pytest.raises(InputError, match="X is a masked array with masked values"):
            transformer.fit_transform(np.ma.masked_array(X, X > 6))
        assert len(transformer.fit_transform(np.ma.masked_array(X)))
    with pytest.raises(ValueError, match="NaN"):
        ZScore().fit(np.full((3, 1), np.nan))
    with pytest.raises(InputError, match="kind='median'"):
        Detrend("median").fit_transform(X)
    with pytest.raises(InputError, match="kind='cosine' needs tr="):
        Detrend("cosine").fit_transform(X)
    with pytest.raises(InputError, match="one label for each row"):
        Delay().fit_transform(X, groups=RUNS[:-1])
    with pytest.raises(InputError, match="new_times=0.0: give a positive number of seconds"):
        LanczosResample(1.0, 0.0).fit_transform(X)
    for wrong, message in [
        (LanczosResample("a", 2.0), "old_times='a': give a positive"),
        (LanczosResample(1.0, None), "new_times=None: give a positive"),
        (LanczosResample(np.nan, 2.0), "old_times=nan: give a positive"),
        (HRFConvolve(None), "dt=None: give a positive"),
        (HRFConvolve("2"), "dt='2': give a positive"),
        (HRFConvolve([2.0]), r"dt=\[2.0\]: give a positive"),
        (HRFConvolve(2.0, model="fir"), "model='fir'"),
        (Detrend("savgol", tr="2"), "tr='2': give a positive"),
        (Detrend(order="3"), "order='3': give the polynomial's degree"),
        (Detrend(order=1.5), "order=1.5: give"),
        (Detrend(order=np.nan), "order=nan: give"),
        (Delay(3), "delays=3: give at least one whole number"),
        (Delay((1.5,)), "whole number"),
    ]:
        with pytest.raises(InputError, match=message):
            wrong.fit_transform(X)
    with pytest.raises(InputError, match="for 3 old_times"):
        LanczosResample([0.0, 1.0, 2.0], 2.0).fit_transform(X)
