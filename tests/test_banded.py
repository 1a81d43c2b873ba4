"""Banded ridge against a naive float64 reference and himalaya, and everything else it promises.

Legend: t = time, p = features, b = bands, v = voxels, i = candidates.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

import reference
from banded_cases import ALPHAS, gammas_for, problem
from fastencode import BandedFit, InputError, banded_ridge_cv, leave_one_run_out, partition_variance, plan_ridge, ridge_cv
from fastencode.solve.given.folds import resolve_folds
from fastencode.solve.given.targets import Targets
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")


def naive(X, Y, widths, gammas, alphas, folds, scoring, intercept, w=None):
    """(i, a, v) scores: features times √γ, then ridge as on a blackboard."""
    out = []
    for gamma in gammas:
        scaled = np.asarray(X, dtype=np.float64) * np.sqrt(np.repeat(gamma, widths))
        if w is None:
            out.append(reference.cv_scores(scaled, Y, alphas, folds, scoring, intercept))
        else:
            out.append(reference.weighted_cv_scores(scaled, Y, alphas, folds, scoring, intercept, w))
    return np.stack(out)


def naive_weights(X, y, widths, gamma, alpha, intercept, w=None):
    root = np.sqrt(np.repeat(gamma, widths))
    scaled = np.asarray(X, dtype=np.float64) * root
    if w is None:
        coef, constant = reference.weights(scaled, y, alpha, intercept)
    else:
        coef, constant = reference.weighted_weights(scaled, y, alpha, intercept, w)
    return coef * root, constant


@pytest.mark.parametrize(
    "shape, dtype, scoring, intercept",
    pairs(
        [(60, (5, 8, 4)), (40, (30, 25)), (36, (3, 50, 2))],  # the last: a band wider than n
        [np.float64, np.float32],
        ["r2", "pearson", "neg_mean_squared_error"],
        [True, False],
    ),
)
def test_equals_naive_float64(shape, dtype, scoring, intercept):
    X, Y, widths = problem(*shape, dtype=dtype)
    n = len(X)
    gammas, folds = gammas_for(len(widths)), resolve_folds(4, n, None)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS, cv=4, scoring=scoring, fit_intercept=intercept)
    wanted = naive(X, Y, widths, gammas, ALPHAS, folds, scoring, intercept)
    tolerance = 3e-6 if dtype == np.float32 else 1e-10
    size = np.maximum(1, abs(wanted.max(axis=1)))
    assert (abs(fit.cv_scores - wanted.max(axis=1)) <= tolerance * size + 1e-6 * (scoring[0] == "n")).all()
    assert fit.coef.dtype == fit.cv_scores.dtype == dtype and fit.gammas.dtype == np.float64
    best = wanted.max(axis=(0, 1))
    assert (fit.best_score >= best - 1e-5 * np.maximum(1, abs(best))).all()
    for v in range(Y.shape[1]):
        coef, constant = naive_weights(X, Y[:, v], widths, fit.gammas[:, v], fit.alpha[v], intercept)
        np.testing.assert_allclose(fit.coef[:, v], coef, atol=3e-5 if dtype == np.float32 else 1e-9)
        np.testing.assert_allclose(fit.intercept[v], constant, atol=3e-5 if dtype == np.float32 else 1e-9)


def test_the_comparison_with_naive_float64_can_fail():
    X, Y, widths = problem()
    gammas, folds = gammas_for(3), resolve_folds(4, 60, None)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas * 1.001, alphas=ALPHAS, cv=4)
    wanted = naive(X, Y, widths, gammas, ALPHAS, folds, "r2", True)
    assert abs(fit.cv_scores - wanted.max(axis=1)).max() > 1e-7


@pytest.mark.parametrize("n", [60, 14])
def test_sample_weights_and_censored_rows(n):
    X, Y, widths = problem(n)
    w = np.random.default_rng(1).integers(0, 3, n).astype(float)
    w[:4] = 1
    kept = np.flatnonzero(w)
    X[w == 0] = 0.0
    folds = [(kept[kept % 3 != k], kept[kept % 3 == k]) for k in range(3)]
    gammas = gammas_for(3)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS, cv=folds, sample_weight=w)
    wanted = np.zeros((len(gammas), len(ALPHAS), Y.shape[1]))
    for i, gamma in enumerate(gammas):
        scaled = X * np.sqrt(np.repeat(gamma, widths))
        for train, test in folds:
            for a, alpha in enumerate(ALPHAS):
                for v in range(Y.shape[1]):
                    coef, constant = reference.weighted_weights(scaled[train], Y[train, v], alpha, True, w[train])
                    wanted[i, a, v] += reference.weighted_score("r2", Y[test, v], scaled[test] @ coef + constant, w[test]) / 3
    np.testing.assert_allclose(fit.cv_scores, wanted.max(axis=1), atol=1e-9)
    coef, constant = naive_weights(X, Y[:, 1], widths, fit.gammas[:, 1], fit.alpha[1], True, w)
    np.testing.assert_allclose(fit.coef[:, 1], coef, atol=1e-9)
    np.testing.assert_allclose(fit.intercept[1], constant, atol=1e-9)


@pytest.mark.parametrize(("n", "widths"), [(60, (17,)), (20, (33,))])
def test_one_band_is_ridge_cv(n, widths):
    X, Y, _ = problem(n, widths, dtype=np.float32)
    one, plain = banded_ridge_cv(X, Y, bands={"all": slice(None)}, alphas=ALPHAS), ridge_cv(X, Y, alphas=ALPHAS)
    for name in ("coef", "intercept", "alpha", "best_score", "at_edge"):
        np.testing.assert_array_equal(getattr(one, name), getattr(plain, name))
    assert (one.gammas == 1).all() and one.cv_scores.shape == (1, Y.shape[1])
    np.testing.assert_allclose(one.score(X, Y, split=True)[0], one.score(X, Y), atol=1e-6)


def test_equal_weights_are_ridge_at_another_penalty():
    X, Y, widths = problem()
    banded = banded_ridge_cv(X, Y, bands=widths, gammas=[[0.5, 0.5, 0.5]], alphas=ALPHAS)
    plain = ridge_cv(X, Y, alphas=ALPHAS * 2)
    np.testing.assert_allclose(banded.cv_scores[0], plain.best_score, atol=1e-12)
    np.testing.assert_allclose(banded.coef, plain.coef, atol=1e-10)


def test_a_band_of_weight_zero_is_not_there():
    X, Y, widths = problem()
    off = banded_ridge_cv(X, Y, bands=widths, gammas=[[1, 0, 1]], alphas=ALPHAS)
    rest = np.r_[0:5, 13:17]
    plain = ridge_cv(X[:, rest], Y, alphas=ALPHAS)
    np.testing.assert_allclose(off.best_score, plain.best_score, atol=1e-12)
    assert (off.coef[5:13] == 0).all() and np.isneginf(off.deltas[1]).all() and np.isfinite(off.deltas[[0, 2]]).all()
    np.testing.assert_allclose(off.coef[rest], plain.coef, atol=1e-10)


@pytest.mark.parametrize("n", [60, 14])
def test_bands_whose_scales_differ_by_1e8(n):
    """A γ that undoes the scales gives what equal scales give."""
    X, Y, widths = problem(n, scale=(1, 1e-4, 1e4))
    even = X / np.repeat((1, 1e-4, 1e4), widths)
    gammas = gammas_for(3)
    undo = gammas / np.array([1, 1e-8, 1e8])
    a = banded_ridge_cv(X, Y, bands=widths, gammas=undo, alphas=ALPHAS)
    b = banded_ridge_cv(even, Y, bands=widths, gammas=gammas, alphas=ALPHAS)
    np.testing.assert_allclose(a.cv_scores, b.cv_scores, atol=1e-9)
    np.testing.assert_allclose(a.predict(X), b.predict(even), atol=1e-8)


@pytest.mark.parametrize(("n", "widths"), [(60, (5, 8)), (40, (30, 25))])
@pytest.mark.parametrize("scale", [1e4, 1e8])
def test_a_band_far_larger_than_the_other_does_not_drown_it(n, widths, scale):
    """Weights by least squares on rows with the penalty below them, which squares nothing."""
    X, Y, widths = problem(n, widths, scale=(scale, 1))
    folds = resolve_folds(4, n, None)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=[[1, 1], [0.1, 0.9]], alphas=ALPHAS, cv=folds)
    wanted = np.zeros((2, len(ALPHAS), Y.shape[1]))
    for i, gamma in enumerate(fit.candidates):
        scaled = X * np.sqrt(np.repeat(gamma, widths))
        for train, test in folds:
            mean = scaled[train].mean(axis=0)
            for a, alpha in enumerate(ALPHAS):
                system = np.vstack([scaled[train] - mean, np.sqrt(alpha) * np.eye(X.shape[1])])
                size = np.linalg.norm(system, axis=0)
                right = np.vstack([Y[train] - Y[train].mean(axis=0), np.zeros((X.shape[1], Y.shape[1]))])
                coef = np.linalg.lstsq(system / size, right, rcond=None)[0] / size[:, None]
                predicted = (scaled[test] - mean) @ coef + Y[train].mean(axis=0)
                wanted[i, a] += [reference.r2(Y[test, v], predicted[:, v]) / 4 for v in range(Y.shape[1])]
    np.testing.assert_allclose(fit.cv_scores, wanted.max(axis=1), atol=1e-6)


@pytest.mark.parametrize("intercept", [True, False])
def test_kernels_are_features(intercept):
    X, Y, widths = problem(40, (6, 50))
    edges = np.cumsum([0, *widths])
    parts = [X[:, a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    gammas = gammas_for(2)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS, fit_intercept=intercept)
    kernels = {name: part @ part.T for name, part in zip(("a", "b"), parts, strict=True)}
    other = banded_ridge_cv(kernels, Y, bands="precomputed", gammas=gammas, alphas=ALPHAS, fit_intercept=intercept)
    np.testing.assert_allclose(other.cv_scores, fit.cv_scores, atol=1e-9)
    np.testing.assert_array_equal(other.gammas, fit.gammas)
    new = np.random.default_rng(5).standard_normal((9, 56))
    new_parts = [new[:, :6], new[:, 6:]]
    across = {name: n @ part.T for name, n, part in zip(("a", "b"), new_parts, parts, strict=True)}
    np.testing.assert_allclose(other.predict(across), fit.predict(new), atol=1e-8)
    np.testing.assert_allclose(other.predict(across, split=True).sum(axis=0) + other.intercept, other.predict(across), atol=1e-10)
    assert other.coef is None and other.dual_coef.shape == Y.shape


def test_forms_of_bands_mean_the_same():
    X, Y, widths = problem()
    a, b, c = X[:, :5], X[:, 5:13], X[:, 13:]
    forms = [
        (X, widths),
        (X, {"a": 5, "b": 8, "c": 4}),
        (X, {"a": slice(0, 5), "b": np.arange(5, 13), "c": np.arange(17) >= 13}),
        ([a, b, c], None),
        ([a, b, c], ["a", "b", "c"]),
        ({"a": a, "b": b, "c": c}, None),
    ]
    fits = [banded_ridge_cv(x, Y, bands=bands, n_iter=4, random_state=3, alphas=ALPHAS) for x, bands in forms]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.coef, fits[0].coef)
    np.testing.assert_array_equal(fits[1].predict({"c": c, "a": a, "b": b}), fits[1].predict(X))
    np.testing.assert_array_equal(fits[1].predict([a, b, c]), fits[1].predict(X))
    mixed = banded_ridge_cv(
        X[:, ::-1], Y, bands={"c": slice(0, 4), "b": slice(4, 12), "a": slice(12, 17)}, gammas=fits[0].candidates[:, ::-1],
        alphas=ALPHAS,
    )  # fmt: skip
    np.testing.assert_allclose(mixed.coef[::-1], fits[0].coef, atol=1e-9)


def himalaya_fit(X, Y, widths, gammas, alphas, folds, score):
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
    from himalaya.scoring import correlation_score, r2_score

    edges = np.cumsum([0, *widths])
    Xs = [X[:, a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return solve_multiple_kernel_ridge_random_search(
        np.stack([x @ x.T for x in Xs]), Y, n_iter=gammas, alphas=alphas, cv=folds, fit_intercept=True, return_weights="dual",
        score_func={"r2": r2_score, "pearson": correlation_score}[score], progress_bar=False, return_alphas=True,
    )  # fmt: skip


@pytest.mark.parametrize("scoring", ["r2", "pearson"])
@pytest.mark.parametrize(("n", "widths"), [(60, (5, 8, 4)), (48, (40, 30))])
def test_equals_himalaya_on_given_gammas(n, widths, scoring):
    X, Y, widths = problem(n, widths, v=20)
    gammas = np.random.default_rng(2).dirichlet(np.ones(len(widths)), 6)
    folds = leave_one_run_out(np.arange(n) // (n // 4))
    deltas, dual, scores, best_alphas, intercept = himalaya_fit(X, Y, widths, gammas, ALPHAS, folds, scoring)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS, cv=folds, scoring=scoring)
    np.testing.assert_allclose(fit.cv_scores, scores, atol=1e-8)
    same = np.isclose(fit.alpha, best_alphas) & np.isclose(fit.deltas, deltas).all(axis=0)
    assert same.mean() > 0.9, "choices"
    edges = np.cumsum([0, *widths])
    for b, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = X[:, start:stop] - X[:, start:stop].mean(axis=0)
        coef = np.exp(deltas[b]) * (part.T @ dual)
        np.testing.assert_allclose(fit.coef[start:stop][:, same], coef[:, same], atol=1e-7)
    np.testing.assert_allclose(fit.intercept[same], intercept[same], atol=1e-7)


def test_split_scores_equal_himalayas_and_add_up():
    from himalaya.scoring import correlation_score_split, r2_score_split

    X, Y, widths = problem()
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    fit = banded_ridge_cv(X, Y, bands=widths, n_iter=5, random_state=0, alphas=ALPHAS, fit_intercept=False)
    parts = fit.predict(X, split=True)
    assert parts.shape == (3, *Y.shape)
    np.testing.assert_allclose(parts.sum(axis=0) + fit.intercept, fit.predict(X), atol=1e-12)
    np.testing.assert_allclose(fit.score(X, Y, split=True), r2_score_split(Y, parts), atol=1e-10)
    np.testing.assert_allclose(fit.score(X, Y, "pearson", split=True), correlation_score_split(Y, parts), atol=1e-10)
    X2, Y2, _ = problem(seed=9)
    offset = banded_ridge_cv(X2 + 5, Y2, bands=widths, n_iter=5, random_state=0, alphas=ALPHAS)
    for scoring in ("r2", "pearson"):
        split = offset.score(X2[:20] + 4, Y2[:20], scoring, split=True)
        np.testing.assert_allclose(split.sum(axis=0), offset.score(X2[:20] + 4, Y2[:20], scoring), atol=1e-12)
    np.testing.assert_allclose(
        offset.score(X2 + 5, Y2), [reference.r2(Y2[:, v], offset.predict(X2 + 5)[:, v]) for v in range(7)], atol=1e-12
    )


def test_one_solution_for_all_voxels():
    X, Y, widths = problem(v=9)
    gammas = gammas_for(3)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS, cv=4, per_target=False)
    assert len(np.unique(fit.alpha)) == 1 and (np.ptp(fit.gammas, axis=1) == 0).all()
    mean = naive(X, Y, widths, gammas, ALPHAS, resolve_folds(4, 60, None), "r2", True).mean(axis=2)
    i, a = np.unravel_index(mean.argmax(), mean.shape)
    np.testing.assert_array_equal(fit.gammas[:, 0], gammas[i])
    assert fit.alpha[0] == ALPHAS[a]
    np.testing.assert_allclose(fit.best_score.mean(), mean.max(), atol=1e-10)


def test_planted_importances_are_found():
    """Two bands each make half of the voxels, at a signal-to-noise ratio of 2: the weight goes to the right one."""
    rng = np.random.default_rng(0)
    X, edges = rng.standard_normal((400, 120)), [(0, 40), (40, 80), (80, 120)]
    planted = np.arange(60) % 3
    Y = np.stack([X[:, slice(*edges[b])] @ rng.standard_normal(40) for b in planted], axis=1)
    Y = Y / Y.std(axis=0) * np.sqrt(2) + rng.standard_normal(Y.shape)
    fit = banded_ridge_cv(X[:300], Y[:300], bands=[40, 40, 40], n_iter=40, random_state=0, alphas=np.logspace(-2, 5, 8), cv=3)
    share = fit.score(X[300:], Y[300:], split=True)
    assert (share.argmax(axis=0) == planted).all() and (fit.gammas.argmax(axis=0) == planted).mean() > 0.95
    assert share[planted, np.arange(60)].mean() > 0.5  # two thirds is all there is
    plain = ridge_cv(X[:300], Y[:300], alphas=np.logspace(-2, 5, 15))
    assert (fit.score(X[300:], Y[300:]) - plain.score(X[300:], Y[300:])).mean() > 0.02


def test_partition_of_planted_bands():
    """Voxel 0 is band a's, voxel 1 what a and b have in common, voxel 2 noise."""
    rng = np.random.default_rng(1)
    n, a, c = 600, rng.standard_normal((600, 6)), rng.standard_normal((600, 6))
    b = np.hstack([a[:, :3] + 0.05 * rng.standard_normal((n, 3)), rng.standard_normal((n, 3))])
    Y = np.stack([a[:, 3:].sum(axis=1), a[:, :3].sum(axis=1), np.zeros(n)], axis=1) + rng.standard_normal((n, 3))
    runs = np.arange(n) // 120
    found = partition_variance(
        {"a": a, "b": b, "c": c}, Y, outer="runs", runs=runs, cv=3, n_iter=5, random_state=0, alphas=np.logspace(-1, 4, 8)
    )
    assert found.unique.shape == (3, 3) and found.unique_folds.shape == (5, 3, 3) and found.names == ("a", "b", "c")
    np.testing.assert_allclose(found.total, [0.75, 0.75, 0], atol=0.06)
    np.testing.assert_allclose(found.unique[0], [0.75, 0, 0], atol=0.06)
    np.testing.assert_allclose(found.unique[1:], 0, atol=0.03)
    np.testing.assert_allclose(found.shared, [0, 0.75, 0], atol=0.08)
    np.testing.assert_allclose(found.unique.sum(axis=0) + found.shared, found.total, atol=1e-12)
    one = partition_variance([a, b], Y[:, 0], outer=2, gammas=[[1, 0], [1, 1]], alphas=[10.0])
    assert one.unique.shape == (2, 1)
    direct = banded_ridge_cv(a[300:], Y[300:, 0], bands=[6], alphas=[10.0]).score(a[:300], Y[:300, 0])
    both = banded_ridge_cv([a[300:], b[300:]], Y[300:, 0], gammas=[[1, 0], [1, 1]], alphas=[10.0]).score(
        [a[:300], b[:300]], Y[:300, 0]
    )
    assert one.unique_folds[0, 1, 0] == pytest.approx(both - direct)
    for x, arguments, message in [
        ({"a": a}, {}, "there is one band"),
        ({"a": a, "b": b}, {"checkpoint": "x"}, "checkpoint= does not apply"),
        ([a @ a.T, b @ b.T], {"bands": "precomputed"}, "partitioned of features"),
        ({"a": a, "b": b}, {"outer": 1}, "outer=1"),
    ]:
        with pytest.raises(InputError, match=message):
            partition_variance(x, Y, **arguments)


def test_memory_tiles_and_a_cache_too_small_change_nothing(tmp_path, monkeypatch):
    X, Y, widths = problem(80, (20, 10), v=150, dtype=np.float32)
    gammas = gammas_for(2)
    whole = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS)
    with pytest.raises(InputError, match="smallest that works"):
        banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS, memory=20_000)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["Y"] = Y
        for memory in ("2MB", None):
            less = banded_ridge_cv(X, file["Y"], bands=widths, gammas=gammas, alphas=ALPHAS, memory=memory)
            for name in ("coef", "cv_scores", "alpha", "gammas", "intercept"):
                np.testing.assert_array_equal(getattr(less, name), getattr(whole, name))
    monkeypatch.setattr("fastencode.solve.search.search._KEPT_BYTES", 1)
    again = banded_ridge_cv(X, Y, bands=widths, gammas=gammas, alphas=ALPHAS)
    np.testing.assert_array_equal(again.coef, whole.coef)
    assert again.stats["search"]["decompositions"] > whole.stats["search"]["decompositions"]


def test_memory_for_the_grams_is_counted_before_they_are_made(monkeypatch):
    X, Y, widths = problem(60, (4,) * 40, v=5)
    plan_ridge(X, alphas=ALPHAS, memory="500kB")  # enough but for forty kernels
    monkeypatch.setattr("fastencode.solve.banded.make_grams", None)
    with pytest.raises(InputError, match="too small to plan with: the smallest that works is 1[0-9]{6} bytes"):
        banded_ridge_cv(X, Y, bands=widths, n_iter=2, alphas=ALPHAS, memory="500kB")
    with pytest.raises(InputError, match="too small to plan with"):
        banded_ridge_cv([np.eye(60)] * 40, Y, bands="precomputed", n_iter=2, alphas=ALPHAS, memory="500kB")


KILLED = """
import numpy as np, sys
sys.path.insert(0, {tests!r})
from banded_cases import ALPHAS, problem
from fastencode import banded_ridge_cv
from fastencode.solve.search import checkpoint
write = checkpoint.Checkpoint.write
def slowly(self, arrays):
    write(self, arrays)
    if len(arrays["scores"]) == 3:
        print("three", flush=True)
        import time
        time.sleep(600)
checkpoint.Checkpoint.write = slowly
X, Y, widths = problem(50, (30, 40), v=40, dtype=np.float32)
banded_ridge_cv(X, Y, bands=widths, n_iter=6, random_state=4, alphas=ALPHAS, checkpoint={path!r})
"""


def test_a_killed_search_goes_on_to_the_same_bits(tmp_path):
    path = tmp_path / "search.h5"
    X, Y, widths = problem(50, (30, 40), v=40, dtype=np.float32)
    arguments = {"bands": widths, "n_iter": 6, "random_state": 4, "alphas": ALPHAS}
    script = textwrap.dedent(KILLED).format(tests=os.path.dirname(__file__), path=str(path))
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"three\n"
        process.kill()
    assert len(h5py.File(path)["scores"]) == 3
    resumed = banded_ridge_cv(X, Y, checkpoint=path, **arguments)
    whole = banded_ridge_cv(X, Y, **arguments)
    for name in ("coef", "intercept", "alpha", "gammas", "cv_scores", "best_score"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    finished = banded_ridge_cv(X, Y, checkpoint=path, **arguments)
    np.testing.assert_array_equal(finished.coef, whole.coef)
    other = Y.copy()
    other[17, 31] += 1
    for x, y in ((X * 2, Y), (X, other)):
        with pytest.raises(InputError, match="of another search"):
            banded_ridge_cv(x, y, checkpoint=path, **arguments)
    with pytest.raises(InputError, match="holds 6 candidates and this search is of 5; pass n_iter=6 or more"):
        banded_ridge_cv(X, Y, checkpoint=path, **{**arguments, "n_iter": 5})
    with pytest.raises(InputError, match="candidate 2 in the checkpoint is"):
        banded_ridge_cv(X, Y, checkpoint=path, **{**arguments, "random_state": 5})
    (tmp_path / "text").write_text("no")
    with pytest.raises(InputError, match="not an HDF5 file"):
        banded_ridge_cv(X, Y, checkpoint=tmp_path / "text", **arguments)


def test_a_search_is_extended(tmp_path):
    """More candidates, then steps by the gradient, then more of both: each as if it had been asked for at first."""
    path = tmp_path / "search.h5"
    X, Y, widths = problem(30, (15, 20), v=6)
    given = {"bands": widths, "random_state": 4, "alphas": ALPHAS, "cv": 3}
    for more in (
        {"n_iter": 3},
        {"n_iter": 5, "nan_targets": "skip"},
        {"n_iter": 5, "search": "auto", "n_steps": 3},
        {"n_iter": 5, "search": "auto", "n_steps": 6},
        {"n_iter": 7, "search": "auto", "n_steps": 6},
        {"n_iter": 7, "early_stopping": 1.0},
    ):
        extended = banded_ridge_cv(X, Y, checkpoint=path, **given, **more)
        whole = banded_ridge_cv(X, Y, **given, **more)
        for name in ("coef", "alpha", "gammas", "candidates", "cv_scores", "best_score"):
            np.testing.assert_array_equal(getattr(extended, name), getattr(whole, name))
        assert len(h5py.File(path)["candidates"]) == more["n_iter"]


def test_a_search_of_a_file_goes_on_with_other_memory(tmp_path, monkeypatch):
    X, Y, widths = problem(40, (30, 40), v=3000, dtype=np.float32)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["Y"] = Y
    given = {"bands": widths, "random_state": 4, "alphas": ALPHAS, "cv": 3, "checkpoint": tmp_path / "search.h5"}
    with h5py.File(tmp_path / "y.h5") as file:
        slabs = [len(list(Targets.check(file["Y"], 40).slabs(1024, memory))) for memory in (50_000_000, 1_800_000)]
        assert slabs == [1, 2]
        first = banded_ridge_cv(X, file["Y"], n_iter=2, memory="50MB", **given)
        monkeypatch.setattr("fastencode.solve.search.search._plan", None)  # no candidate is scored again
        again = banded_ridge_cv(X, file["Y"], n_iter=2, memory="1800kB", **given)
    np.testing.assert_array_equal(again.cv_scores, first.cv_scores)
    np.testing.assert_array_equal(banded_ridge_cv(X, Y, n_iter=2, **given).cv_scores, first.cv_scores)


def test_stops_early_by_its_rule():
    X, Y, widths = problem(v=12)
    arguments = {"bands": widths, "n_iter": 60, "random_state": 0, "alphas": ALPHAS}
    whole, early = banded_ridge_cv(X, Y, **arguments), banded_ridge_cv(X, Y, early_stopping=0.002, **arguments)
    tried, means = early.stats["search"]["tried"], whole.stats["search"]["mean_best_score"]
    gains = np.array(means[10:]) - np.array(means[:-10])
    assert early.stats["search"]["stopped_early"] and tried == 11 + int(np.argmax(gains < 0.002))
    assert early.stats["search"]["gain_of_last_window"] == pytest.approx(gains[tried - 11])
    np.testing.assert_array_equal(early.cv_scores[:tried], whole.cv_scores[:tried])
    assert np.isnan(early.cv_scores[tried:]).all() and not whole.stats["search"]["stopped_early"]


def test_save_and_load(tmp_path):
    X, Y, _ = problem()
    fit = banded_ridge_cv(X, Y, bands={"a": 5, "b": 8, "c": 4}, n_iter=3, random_state=0, alphas=ALPHAS)
    fit.save(tmp_path / "fit.h5")
    back = BandedFit.load(tmp_path / "fit.h5")
    for name in ("coef", "intercept", "alpha", "gammas", "deltas", "cv_scores", "candidates", "at_edge", "feature_means"):
        np.testing.assert_array_equal(getattr(back, name), getattr(fit, name))
    np.testing.assert_array_equal(back.score(X, Y, split=True), fit.score(X, Y, split=True))
    assert back.names == ("a", "b", "c") and back.dual_coef is None and back.stats["search"]["tried"] == 3
    ridge_cv(X, Y, alphas=ALPHAS).save(tmp_path / "ridge.h5")
    with pytest.raises(InputError, match="not a saved BandedFit"):
        BandedFit.load(tmp_path / "ridge.h5")


def test_skips_voxels_that_are_not_finite():
    X, Y, widths = problem()
    arguments = {"bands": widths, "n_iter": 4, "random_state": 0, "alphas": ALPHAS}
    whole = banded_ridge_cv(X, Y, **arguments)
    Y[3, 2] = np.nan
    with pytest.raises(InputError, match="1 of 7 voxels in Y"):
        banded_ridge_cv(X, Y, **arguments)
    fit = banded_ridge_cv(X, Y, nan_targets="skip", **arguments)
    assert np.isnan(fit.coef[:, 2]).all() and np.isnan(fit.gammas[:, 2]).all() and fit.at_edge[2] == 0
    rest = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(fit.coef[:, rest], whole.coef[:, rest])


def test_one_series_and_torch():
    torch = pytest.importorskip("torch")
    X, Y, widths = problem()
    arguments = {"bands": widths, "n_iter": 3, "random_state": 0, "alphas": ALPHAS}
    whole, one = banded_ridge_cv(X, Y, **arguments), banded_ridge_cv(X, Y[:, 0], **arguments)
    assert one.coef.shape == (17,) and one.gammas.shape == (3,) and one.cv_scores.shape == (3,) and np.ndim(one.alpha) == 0
    assert (
        one.predict(X).shape == (60,)
        and one.predict(X, split=True).shape == (3, 60)
        and one.score(X, Y[:, 0], split=True).shape == (3,)
    )
    np.testing.assert_allclose(one.coef, whole.coef[:, 0], atol=1e-12)
    tensor = banded_ridge_cv(torch.from_numpy(X), torch.from_numpy(Y), **arguments)
    assert isinstance(tensor.coef, torch.Tensor) and isinstance(tensor.deltas, torch.Tensor)
    np.testing.assert_array_equal(tensor.coef.numpy(), whole.coef)
    assert isinstance(tensor.predict(torch.from_numpy(X)), torch.Tensor)
