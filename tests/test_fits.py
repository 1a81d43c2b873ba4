"""What fits of all solvers share: skipped voxels, scores of new responses, and their files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastencode
from fastencode import InputError
from fastencode.devices import plain_device
from fastencode.solve.given.targets import Targets
from fastencode.solve.score import moments
from fastencode.solve.score.moments import SCORINGS, column_scores, score_moments

GRID = [1.0, 10.0, 100.0, 1e3]
BAD = 2  # the voxel that holds NaN


def data(dtype=np.float64, n=60, v=6):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((n, 8))
    Y = X @ rng.standard_normal((8, v)) + rng.standard_normal((n, v))
    return X.astype(dtype), Y.astype(dtype)


def ridge(X, Y, **options):
    return fastencode.ridge_cv(X, Y, alphas=GRID, **options)


def banded(X, Y, **options):
    return fastencode.banded_ridge_cv(X, Y, bands=[3, 5], n_iter=3, random_state=0, alphas=GRID, **options)


def one_band(X, Y, **options):
    return fastencode.banded_ridge_cv(X, Y, bands=[8], alphas=GRID, **options)


def kernels(X, Y, **options):
    K = {"a": X[:, :3] @ X[:, :3].T, "b": X[:, 3:] @ X[:, 3:].T}
    return fastencode.banded_ridge_cv(K, Y, bands="precomputed", n_iter=3, random_state=0, alphas=GRID, **options)


def new_design(fit, X, rows):
    """What a fit of all rows of X takes for some rows."""
    if getattr(fit, "dual_coef", None) is None:
        return X[rows]
    return {"a": X[rows, :3] @ X[:, :3].T, "b": X[rows, 3:] @ X[:, 3:].T}


def by_hand(scoring, y, p):
    """Naive, in float64."""
    y, p = y.astype(np.float64), p.astype(np.float64)
    if scoring == "pearson":
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, p.T, strict=True)])
    error = ((y - p) ** 2).mean(axis=0)
    return -error if scoring == "neg_mean_squared_error" else 1 - error / y.var(axis=0)


FITTERS = [ridge, banded, one_band, kernels]
all_fits = pytest.mark.parametrize("fitter", FITTERS, ids=lambda f: f.__name__)
both_fits = pytest.mark.parametrize("fitter", [ridge, banded], ids=lambda f: f.__name__)


# ---- voxels that a fit skipped


@pytest.mark.parametrize("scoring", SCORINGS)
@all_fits
def test_skipped_voxels_are_nan_in_every_scoring(fitter, scoring):
    X, Y = data()
    Y[4, BAD] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit = fitter(X, Y, nan_targets="skip", scoring=scoring)
        design = new_design(fit, X, np.arange(20, 60))
        predicted = fit.predict(design)
        scores = fit.score(design, Y[20:])  # the scans without a NaN
    others = np.arange(6) != BAD
    for name in ("best_score", "cv_scores", "alpha", "intercept"):
        np.testing.assert_array_equal(np.isnan(getattr(fit, name)), np.broadcast_to(~others, getattr(fit, name).shape), name)
    np.testing.assert_array_equal(np.isnan(predicted), np.broadcast_to(~others, predicted.shape))
    assert np.isnan(scores[BAD])
    wanted = by_hand(scoring, Y[20:][:, others], predicted[:, others])
    np.testing.assert_allclose(scores[others], wanted, atol=1e-10)


@pytest.mark.parametrize("held", [np.nan, np.inf, 3.0, None], ids=str)
@pytest.mark.parametrize("scoring", SCORINGS)
@all_fits
def test_what_responses_hold_at_skipped_voxels_does_not_matter(fitter, scoring, held):
    """``None``: random numbers, as everywhere else."""
    X, Y = data()
    Y[4, BAD] = np.nan
    fit = fitter(X, Y, nan_targets="skip")
    design, responses = new_design(fit, X, slice(20, 60)), data()[1][20:]
    if held is not None:
        responses[:, BAD] = held
    for nan_targets in (None, "raise", "skip"):
        scores = fit.score(design, responses, scoring, nan_targets=nan_targets)
        np.testing.assert_array_equal(np.isnan(scores), np.arange(6) == BAD)


@all_fits
def test_score_does_as_the_fit_did_unless_told(fitter, tmp_path):
    X, Y = data()
    careful = fitter(X, Y)
    Y[4, BAD] = np.nan
    skipping = fitter(X, Y, nan_targets="skip")
    design, other = new_design(skipping, X, slice(0, 60)), Y.copy()
    other[7, 0] = np.inf
    skipping.save(tmp_path / "skipping.h5")
    for fit in (skipping, type(skipping).load(tmp_path / "skipping.h5")):
        np.testing.assert_array_equal(np.isnan(fit.score(design, other)), np.isin(np.arange(6), (0, BAD)))
        with pytest.raises(
            InputError, match=r"1 of 6 voxels in Y hold NaN or infinite values, the first is voxel 0;.*nan_targets"
        ):
            fit.score(design, other, nan_targets="raise")
    careful.save(tmp_path / "careful.h5")
    for fit in (careful, type(careful).load(tmp_path / "careful.h5")):
        with pytest.raises(InputError, match="2 of 6 voxels in Y hold NaN or infinite values, the first is voxel 0"):
            fit.score(design, other)
        np.testing.assert_array_equal(np.isnan(fit.score(design, other, nan_targets="skip")), np.isin(np.arange(6), (0, BAD)))
        with pytest.raises(InputError, match="nan_targets='omit'; pass 'raise' or 'skip'"):
            fit.score(design, other, nan_targets="omit")


def test_fits_of_earlier_versions_are_told_by_what_they_skipped(tmp_path):
    import json

    import h5py

    X, Y = data()
    Y[4, BAD] = np.nan
    ridge(X, Y, nan_targets="skip").save(tmp_path / "fit.h5")
    with h5py.File(tmp_path / "fit.h5", "r+") as file:
        stats = json.loads(file.attrs["stats"])
        del stats["nan_targets"]
        file.attrs["stats"] = json.dumps(stats)
    assert np.isnan(fastencode.RidgeFit.load(tmp_path / "fit.h5").score(X, Y)).sum() == 1


def test_what_a_fit_found_may_be_given_though_it_skipped_voxels():
    """Its penalties are NaN there: voxels to skip, whatever their responses hold."""
    X, Y = data()
    Y[4, BAD] = np.nan
    for fit, given in (
        (ridge(X, Y, nan_targets="skip"), lambda f, y: fastencode.ridge_cv(X, y, alphas=f.alpha, cv=None, nan_targets="skip")),
        (
            banded(X, Y, nan_targets="skip"),
            lambda f, y: fastencode.banded_ridge_cv(
                X, y, bands=[3, 5], gammas=f.gammas, alphas=f.alpha, cv=None, nan_targets="skip"
            ),
        ),
    ):
        for responses in (Y, np.nan_to_num(Y)):
            again = given(fit, responses)
            np.testing.assert_allclose(again.coef, fit.coef, atol=1e-10)
            np.testing.assert_array_equal(np.isnan(again.coef).any(axis=0), np.arange(6) == BAD)


def test_a_partition_is_nan_where_voxels_are_skipped():
    X, Y = data()
    Y[4, BAD] = np.nan  # in the first fold's test rows, in the training rows of the others
    for scoring in SCORINGS:
        parts = fastencode.partition_variance(
            X, Y, bands=[3, 5], outer=3, cv=3, n_iter=2, random_state=0, scoring=scoring, nan_targets="skip", alphas=GRID
        )
        for found in (parts.total, parts.shared, parts.unique[0], parts.unique[1]):
            np.testing.assert_array_equal(np.isnan(found), np.arange(6) == BAD)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_public_scores_of_finite_arrays_are_finite_or_an_error(scoring):
    score = getattr(moments, scoring)
    rng = np.random.default_rng(0)
    for y_scale in (0.0, 1e-300, 1.0, 1e100, 1e300):
        for p_scale in (0.0, 1e-300, 1.0, 1e100, 1e300):
            Y, P = y_scale * rng.standard_normal((9, 3)), p_scale * rng.standard_normal((9, 3))
            try:
                scores = score(Y, P)
            except InputError as error:
                scores, message = np.full(3, 1e300 - max(y_scale, p_scale)), str(error)
                assert "too large to score in float64, the first in voxel" in message
                assert not scores.any()
            assert np.isfinite(scores).all()


# ---- new responses


@both_fits
def test_what_is_wrong_with_new_responses_is_told_alike(fitter, tmp_path):
    X, Y = data()
    fit = fitter(X, Y)
    with pytest.raises(InputError, match="X has no rows; pass at least one"):
        fit.score(X[:0], Y[:0])
    with pytest.raises(InputError, match="Y has 3 voxels and the fit has 6"):
        fit.score(X, Y[:, :3])
    with pytest.raises(InputError, match="Y has 5 rows and X has 60"):
        fit.score(X, Y[:5])
    Y[3, 4] = np.nan
    with pytest.raises(InputError, match="1 of 6 voxels in Y hold NaN or infinite values, the first is voxel 4"):
        fit.score(X, Y)
    Y[:, 4] = np.linspace(0, 1e300, 60)
    with pytest.raises(InputError, match=r"too large to score in float64, the first in voxel 4"):
        fit.score(X, Y, "neg_mean_squared_error")


@both_fits
@pytest.mark.parametrize("scoring", SCORINGS)
def test_scores_of_many_voxels_are_those_of_each(fitter, scoring):
    """More than one tile of them, and in single precision against double."""
    X, Y = data(np.float32, v=6)
    many = np.tile(Y, 300)
    fit = fitter(X, many)
    scores = fit.score(X, many, scoring)
    np.testing.assert_allclose(scores, by_hand(scoring, many, fit.predict(X)), atol=3e-6)
    one = fitter(X, Y[:, 0])
    np.testing.assert_allclose(one.score(X, Y[:, 0], scoring), scores[0], atol=1e-6)


def test_responses_on_a_device_are_fetched_for_banded_fits(monkeypatch):
    """A stand-in for a card: responses that only come through ``get``."""
    from fastencode.devices import Device

    class There:
        def __init__(self, values):
            self.values, self.shape, self.dtype = values, values.shape, values.dtype

    class Card(Device):
        def get(self, array):
            return array.values if isinstance(array, There) else np.asarray(array)

    X, Y = data()
    fit, real = banded(X, Y), Targets.check
    wanted = fit.score(X, Y)

    def check(values, n, kept=None):
        targets = real(values, n, kept)
        return Targets(There(targets.source), n, targets.n_voxels, targets.one, "cupy", kept, Card("cupy", "cuda:0", np))

    monkeypatch.setattr(Targets, "check", check)
    np.testing.assert_array_equal(fit.score(X, Y), wanted)
    Y[0, 1] = np.nan
    with pytest.raises(InputError, match="the first is voxel 1"):
        fit.score(X, Y)


@pytest.mark.parametrize("namespace", ["torch", "array_api_strict"])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_the_loop_over_tiles_is_the_same_on_other_namespaces(namespace, scoring):
    """What scores responses on a card, without one."""
    device = plain_device(pytest.importorskip(namespace, reason=f"{namespace} is not installed"))
    X, Y = data(v=70)
    Y[4, BAD] = np.nan
    fit, other = ridge(X, Y, nan_targets="skip"), Y.copy()
    other[0, 9], other[:, 11] = np.inf, 3.0
    targets = Targets(device.put(other), len(other), 70, False, "numpy", None, device)
    coef, intercept = device.put(fit.coef), device.put(fit.intercept)

    def tile(observed, here):
        return column_scores(device, scoring, observed, device.put(X) @ coef[:, here] + intercept[here])

    for nan_targets in (None, "skip"):
        scores = np.asarray(fit._score_tiles(device, targets, np.dtype("f8"), 1, tile, nan_targets))[0]
        np.testing.assert_allclose(scores, fit.score(X, other, scoring), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(scores)), [BAD, 9])
    with pytest.raises(InputError, match="1 of 70 voxels in Y hold NaN or infinite values, the first is voxel 9"):
        fit._score_tiles(device, targets, np.dtype("f8"), 1, tile, "raise")


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("namespace", ["numpy", "torch", "array_api_strict"])
def test_moments_that_are_nan_give_scores_that_are_nan(namespace, scoring):
    """Also where the target is constant; what is not defined is 0."""
    device = plain_device(pytest.importorskip(namespace, reason=f"{namespace} is not installed"))
    parts = np.array([[0.0, 0.0, 1.0, 0.5, 1.0]] * 6)
    parts[1, 2] = 0.0  # a constant target
    parts[2, 1] = parts[2, 3] = parts[2, 4] = parts[3, 1] = parts[3, 3] = parts[3, 4] = np.nan
    parts[3, 2] = 0.0
    parts[4, 0] = parts[4, 2] = parts[4, 3] = np.nan
    parts[5, 3:] = 0.0  # a constant prediction
    with np.errstate(all="raise"):
        scores = np.asarray(score_moments(device, scoring, [device.put(row) for row in parts.T.copy()], 10.0, 1.0, 0.0))
    assert np.isnan(scores[2:5]).all()
    wanted = {"r2": [0.0, 0.0, 0.0], "pearson": [0.5, 0.0, 0.0], "neg_mean_squared_error": [-0.1, -0.0, -0.1]}[scoring]
    np.testing.assert_allclose(scores[[0, 1, 5]], wanted, atol=1e-15)


# ---- numbers that a dtype cannot hold


@all_fits
def test_predictions_are_never_nan_of_finite_features(fitter):
    X, Y = data(np.float32)
    fit = fitter(X, Y)
    fit_dual = getattr(fit, "dual_coef", None)
    design = new_design(fit, X.astype(np.float64), slice(0, 5))
    first = design["a"] if isinstance(design, dict) else design
    first[1, 0], first[1, 1] = 1e300, -1e300
    with pytest.raises(InputError, match=r"in float32, .*row 1, column 0.*rescale"):
        fit.predict(design)
    weights = fit.coef if fit_dual is None else fit_dual[:, 0]
    # Each is a float32, what they add up to is not.
    first[1] = 3e38 * np.sign(weights[: first.shape[1], 0] if fit_dual is None else weights)
    for split in (False, True)[: 1 if fitter is ridge else 2]:
        with pytest.raises(
            InputError, match="too large for float32, the first for voxel 0; X holds values far beyond those of the fit"
        ):
            fit.predict(design, **({"split": True} if split else {}))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_plan_refuses_responses_that_its_dtype_cannot_hold(scoring):
    X, Y = data(np.float32)
    Y = Y.astype(np.float64)
    Y[:, 3] *= 1e300
    with pytest.raises(InputError, match="too large .*voxel 3"):
        fastencode.plan_ridge(X, alphas=GRID).fit(Y, scoring=scoring)


# ---- files


@all_fits
def test_a_file_without_a_part_is_named(fitter, tmp_path):
    import h5py

    fit = fitter(*data())
    for name in (*fit._arrays, "scoring", "stats"):
        fit.save(tmp_path / "fit.h5")
        with h5py.File(tmp_path / "fit.h5", "r+") as file:
            del (file.attrs if name in ("scoring", "stats") else file)[name]
        with pytest.raises(InputError, match=f"fit.h5' lacks '{name}' of a {type(fit).__name__}; fit and save it again"):
            type(fit).load(tmp_path / "fit.h5")
