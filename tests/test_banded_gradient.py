"""Penalties of each voxel's own: the gradient against finite differences, what is found against naive float64.

Legend: t = time, p = features, b = bands, v = voxels.
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
from banded_cases import ALPHAS, problem
from fastencode import BandedFit, FastencodeWarning, InputError, banded_ridge_cv, chunk_bootstrap, partition_variance, ridge_cv
from fastencode.solve.given.bands import join
from fastencode.solve.given.folds import resolve_folds
from fastencode.solve.given.problem import Problem
from fastencode.solve.given.targets import Targets
from fastencode.solve.plan.grams import make_grams
from fastencode.solve.search import cells, refine
from fastencode.solve.search.climb import Climb
from fastencode.solve.search.state import Settings
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")

SHAPES = [(60, (5, 8, 4)), (40, (30, 25)), (36, (3, 50, 2))]  # primal, dual, dual with a band wider than n
SCORINGS = ["r2", "pearson", "neg_mean_squared_error"]


def score_at(X, Y, widths, log_bv, folds, scoring, intercept, w=None):
    """(v,) held-out scores of every voxel at its own penalties: features times √δ, then ridge at penalty 1."""
    out = np.zeros(Y.shape[1])
    for v in range(len(out)):
        scaled = np.asarray(X, dtype=np.float64) * np.sqrt(np.repeat(np.exp(log_bv[:, v]), widths))
        if w is None:
            out[v] = reference.cv_scores(scaled, Y[:, [v]], [1.0], folds, scoring, intercept)[0, 0]
        else:
            out[v] = reference.weighted_cv_scores(scaled, Y[:, [v]], [1.0], folds, scoring, intercept, w)[0, 0]
    return out


def log_delta(fit):
    return np.log(fit.gammas) - np.log(fit.alpha)


def evaluate(X, Y, widths, log_bv, cv, scoring, intercept, dual, w=None, tolerance=1e-12):
    """(score, slope) of the solver itself, from inverses half a unit off."""
    given = {"alphas": ALPHAS, "cv": cv, "runs": None, "fit_intercept": intercept, "precision": "exact"}
    checked = Problem.check(X, **given, device=None, memory=None, sample_weight=w)
    grams = make_grams(checked, join(X, widths).bands, None, dual)
    settings, worth = Settings(scoring, True, False, None, 9), np.ones(Y.shape[1])
    refiner = refine.Refiner(grams, Targets.check(Y, len(X), checked.kept), settings, log_bv, worth)
    cell = refiner.cell(np.exp(log_bv.mean(axis=1) + 0.5))
    tile = refine._Once(refiner, cell, np.arange(Y.shape[1]), log_bv[:, :1])
    y = Y if checked.kept is None else Y[checked.kept]
    states = [cell.start(k, y - 2.0) for k in range(len(checked.folds))]
    before, refine.TOLERANCE = refine.TOLERANCE, tolerance
    try:
        return tile.evaluate(y - 2.0, log_bv, states), states, tile
    finally:
        refine.TOLERANCE = before


@pytest.mark.parametrize("dual, scoring, intercept, weighted", pairs([False, True], SCORINGS, [True, False], [False, True]))
def test_the_gradient_is_that_of_finite_differences(dual, scoring, intercept, weighted):
    X, Y, widths = problem(50, (5, 12, 3), v=4)
    rng = np.random.default_rng(1)
    w = rng.uniform(0.3, 2.0, len(X)) * (rng.random(len(X)) > 0.1) if weighted else None
    at = np.log(rng.uniform(0.01, 0.5, (3, 4)))
    kept = np.flatnonzero(np.ones(len(X)) if w is None else w)
    folds = [(kept[train], kept[test]) for train, test in resolve_folds(4, len(kept), None)]
    (score, slope), *_ = evaluate(X, Y, widths, at, folds, scoring, intercept, dual, w)
    if not intercept:  # the solver saw Y - 2
        Y = Y - 2.0
    np.testing.assert_allclose(score, score_at(X, Y, widths, at, folds, scoring, intercept, w), rtol=1e-9, atol=1e-9)
    for b in range(3):
        step = np.zeros((3, 1))
        step[b] = 1e-5
        up, down = (score_at(X, Y, widths, at + sign * step, folds, scoring, intercept, w) for sign in (1, -1))
        np.testing.assert_allclose(slope[b], (up - down) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dual", [False, True])
def test_the_gradient_where_rows_repeat_and_test_sets_overlap(dual):
    X, Y, widths = problem(50, (5, 12, 3), v=3)
    drawn = chunk_bootstrap(50, 3, 5, 3, random_state=0)
    folds = [(np.r_[train, train[:7], train[3]], np.r_[test[3:], test[:9], test[5]]) for train, test in drawn]
    at = np.log(np.random.default_rng(1).uniform(0.01, 0.5, (3, 3)))
    (score, slope), *_ = evaluate(X, Y, widths, at, folds, "r2", True, dual)
    np.testing.assert_allclose(score, score_at(X, Y, widths, at, folds, "r2", True), rtol=1e-9, atol=1e-9)
    step = np.array([[1e-5], [0.0], [0.0]])
    up, down = (score_at(X, Y, widths, at + sign * step, folds, "r2", True) for sign in (1, -1))
    np.testing.assert_allclose(slope[0], (up - down) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dual", [False, True])
def test_scores_at_the_tolerance_in_use_and_from_the_last_solution(dual):
    X, Y, widths = problem(50, (5, 12, 3), v=4)
    at, folds = np.log(np.random.default_rng(1).uniform(0.01, 0.5, (3, 4))), resolve_folds(4, 50, None)
    (score, slope), states, tile = evaluate(X, Y, widths, at, 4, "r2", True, dual, tolerance=refine.TOLERANCE)
    (_, exact), *_ = evaluate(X, Y, widths, at, 4, "r2", True, dual)
    assert abs(score - score_at(X, Y, widths, at, folds, "r2", True)).max() < 1e-5
    assert abs(slope - exact).max() < 2e-3 * abs(exact).max()
    for there in (at + np.array([[0.7], [-0.4], [0.1]]), at - 0.6):
        score, slope = tile.evaluate(Y - 2.0, there, states)
        assert abs(score - score_at(X, Y, widths, there, folds, "r2", True)).max() < 1e-5
        (_, exact), *_ = evaluate(X, Y, widths, there, 4, "r2", True, dual)
        assert abs(slope - exact).max() < 2e-3 * abs(exact).max()


@pytest.mark.parametrize("shape, scoring, dtype, search", pairs(SHAPES, SCORINGS, [np.float64, np.float32], ["gradient", "auto"]))
def test_scores_and_weights_are_those_of_the_penalties_found(shape, scoring, dtype, search):
    X, Y, widths = problem(*shape, dtype=dtype)
    n, given = len(X), {"search": search, "n_iter": 10 if search == "auto" else None, "random_state": 0, "n_steps": 6}
    fit = banded_ridge_cv(X, Y, bands=widths, alphas=ALPHAS, cv=4, scoring=scoring, **given)
    wanted = score_at(X, Y, widths, log_delta(fit), resolve_folds(4, n, None), scoring, True)
    tolerance = 1e-6 if dtype == np.float64 else 5e-6
    np.testing.assert_allclose(fit.best_score, wanted, rtol=tolerance, atol=tolerance)
    assert (fit.best_score >= fit.cv_scores.max(axis=0) - 1e-6 * np.maximum(1, abs(wanted))).all()
    assert fit.stats["refined"]["voxels"] >= 5
    own = ~np.isin(fit.alpha, fit.alphas)
    np.testing.assert_allclose(fit.gammas[:, own].sum(axis=0), 1.0)
    for v in range(Y.shape[1]):
        root = np.sqrt(np.repeat(np.exp(log_delta(fit)[:, v]), widths))
        coef, constant = reference.weights(X * root, Y[:, v], 1.0, True)
        np.testing.assert_allclose(fit.coef[:, v], coef * root, atol=1e-9 if dtype == np.float64 else 3e-5)
        np.testing.assert_allclose(fit.intercept[v], constant, atol=1e-9 if dtype == np.float64 else 3e-5)


@pytest.fixture
def to_the_end(monkeypatch):
    """Steps that promise next to nothing are made too."""
    monkeypatch.setattr(refine, "WORTH", 1e-8)
    monkeypatch.setattr(refine, "TOLERANCE", 1e-5)


@pytest.mark.usefixtures("to_the_end")
def test_where_it_ends_no_slope_is_left_but_at_bounds():
    X, Y, widths = problem(80, (6, 10, 4), v=9)
    fit = banded_ridge_cv(X, Y, bands=widths, search="auto", alphas=np.logspace(-3, 5, 9), cv=4, random_state=0, n_steps=60)
    (score, slope), *_ = evaluate(X, Y, widths, log_delta(fit), 4, "r2", True, False)
    np.testing.assert_allclose(score, fit.best_score, atol=1e-7)
    grams_low = log_delta(fit) < log_delta(fit).max(axis=0) - 8  # next to off
    assert abs(np.where(grams_low, 0.0, slope)).max() < 3e-3
    more = banded_ridge_cv(X, Y, bands=widths, n_iter=200, alphas=np.logspace(-3, 5, 17), cv=4, random_state=1)
    assert (fit.best_score > more.best_score - 1e-3).mean() > 0.9 and fit.best_score.mean() > more.best_score.mean()


def test_himalayas_gradient_search_ends_no_higher():
    himalaya = pytest.importorskip("himalaya.kernel_ridge", reason="himalaya is not installed")
    X, Y, widths = problem(60, (8, 10), v=6)
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    folds, edges = resolve_folds(4, 60, None), np.cumsum([0, *widths])
    Ks = np.stack([X[:, a:b] @ X[:, a:b].T for a, b in zip(edges[:-1], edges[1:], strict=True)])
    deltas = himalaya.solve_multiple_kernel_ridge_hyper_gradient(
        Ks, Y, cv=splits_of(folds), max_iter=200, tol=1e-6, initial_deltas="ridgecv", progress_bar=False
    )[0]
    given = {"bands": widths, "scoring": "neg_mean_squared_error", "fit_intercept": False, "alphas": ALPHAS, "cv": 4}
    fit = banded_ridge_cv(X, Y, search="gradient", n_steps=60, **given)
    theirs = score_at(X, Y, widths, np.asarray(deltas), folds, "neg_mean_squared_error", False)
    before = banded_ridge_cv(X, Y, n_iter=1, **given).best_score
    assert theirs.mean() > before.mean()  # theirs found something
    assert fit.best_score.mean() > theirs.mean() - 1e-3 * abs(theirs.mean())


def splits_of(folds):
    from sklearn.model_selection import PredefinedSplit

    of_row = np.zeros(sum(len(test) for _, test in folds), dtype=int)
    for k, (_, test) in enumerate(folds):
        of_row[test] = k
    return PredefinedSplit(of_row)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_band_of_weight_zero_comes_back():
    X, Y, widths = problem(60, (8, 10), v=6)
    alone = banded_ridge_cv(X, Y, bands=widths, gammas=[[1.0, 0.0]], alphas=ALPHAS, cv=4)
    fit = banded_ridge_cv(X, Y, bands=widths, gammas=[[1.0, 0.0]], search="gradient", alphas=ALPHAS, cv=4, n_steps=30)
    assert (fit.best_score >= alone.best_score - 1e-6).all() and fit.best_score.mean() > alone.best_score.mean() + 0.1
    assert (fit.gammas[1] > 0.01).any()


@pytest.mark.parametrize(("n", "widths"), SHAPES)
def test_one_solution_for_all(n, widths):
    X, Y, widths = problem(n, widths)
    given = {"bands": widths, "alphas": ALPHAS, "cv": 4, "per_target": False, "random_state": 0}
    before = banded_ridge_cv(X, Y, n_iter=10, **given)
    fit = banded_ridge_cv(X, Y, search="auto", n_steps=20, **given)
    assert len(np.unique(fit.alpha)) == 1 and len(np.unique(fit.gammas, axis=1).T) == 1
    assert fit.best_score.mean() > before.best_score.mean() + 1e-4
    wanted = score_at(X, Y, widths, log_delta(fit), resolve_folds(4, n, None), "r2", True)
    np.testing.assert_allclose(fit.best_score, wanted, atol=1e-6)


@pytest.mark.parametrize(("n", "widths"), [(60, (5, 8, 4)), (30, (20, 25, 5))])
def test_bands_whose_scales_differ_by_1e8_and_one_that_is_constant(n, widths):
    X, Y, widths = problem(n, widths, scale=(1e4, 1e-4, 1.0))
    edges = np.cumsum([0, *widths])
    Y[:, 0] = X[:, edges[1] : edges[2]].sum(axis=1) * 1e4 + 0.1 * Y[:, 0]
    X[:, edges[2] :] = 7.0
    alphas = np.logspace(-9, 9, 19)
    fit = banded_ridge_cv(X, Y, bands=widths, search="auto", alphas=alphas, cv=4, random_state=0, n_steps=20)
    wanted = score_at(X, Y, widths, log_delta(fit), resolve_folds(4, n, None), "r2", True)
    np.testing.assert_allclose(fit.best_score, wanted, atol=1e-5)
    assert fit.best_score[0] > 0.8 and (fit.best_score >= fit.cv_scores.max(axis=0) - 1e-6).all()
    assert abs(fit.coef[edges[2] :]).max() < 1e-12


def test_one_band_is_ridge_cv():
    X, Y, _ = problem(60, (9,))
    fit, one = banded_ridge_cv(X, Y, bands=[9], search="gradient", alphas=ALPHAS), ridge_cv(X, Y, alphas=ALPHAS)
    np.testing.assert_array_equal(fit.coef, one.coef)


@pytest.mark.usefixtures("to_the_end")
@pytest.mark.parametrize("intercept", [True, False])
def test_kernels_are_features(intercept):
    X, Y, widths = problem(40, (30, 25))
    edges, given = np.cumsum([0, *widths]), {"alphas": ALPHAS, "cv": 4, "fit_intercept": intercept, "search": "gradient"}
    parts = [X[:, a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    fit = banded_ridge_cv(X, Y, bands=widths, **given)
    kernel = banded_ridge_cv([part @ part.T for part in parts], Y, bands="precomputed", **given)
    np.testing.assert_allclose(kernel.best_score, fit.best_score, atol=1e-6)
    new = [part[:5] @ part.T for part in parts]
    np.testing.assert_allclose(kernel.predict(new), fit.predict(X[:5]), atol=1e-4)
    np.testing.assert_allclose(kernel.predict(new, split=True).sum(axis=0) + kernel.intercept, kernel.predict(new))


def test_no_voxel_depends_on_the_others():
    X, Y, widths = problem(60, (5, 8, 4), v=40)
    given = {"bands": widths, "search": "auto", "alphas": ALPHAS, "cv": 4, "random_state": 0}
    fit, some = banded_ridge_cv(X, Y, **given), banded_ridge_cv(X, Y[:, 5:9], **given)
    np.testing.assert_allclose(some.best_score, fit.best_score[5:9], atol=1e-9)
    np.testing.assert_allclose(some.coef, fit.coef[:, 5:9], atol=1e-7)


def test_memory_and_file_change_nothing(tmp_path):
    X, Y, widths = problem(80, (30, 60), v=300)
    given = {"bands": widths, "search": "gradient", "alphas": ALPHAS, "cv": 4, "n_steps": 4}
    fit = banded_ridge_cv(X, Y, **given)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["Y"] = Y
        again = banded_ridge_cv(X, file["Y"], memory="6MB", **given)
    np.testing.assert_array_equal(again.coef, fit.coef)
    with pytest.raises(InputError, match="is too small"):
        banded_ridge_cv(X, Y, memory="900kB", **given)


@pytest.mark.parametrize(("n", "widths", "cv", "memory"), [(400, (40, 60), 40, "5MB"), (90, (60, 120), 45, "2MB")])
def test_memory_for_the_inverses_of_all_folds_is_counted_before_any_is_made(monkeypatch, n, widths, cv, memory):
    X, Y, widths = problem(n, widths, v=20)
    given = {"bands": widths, "alphas": ALPHAS, "cv": cv, "memory": memory}
    banded_ridge_cv(X, Y, search="random", n_iter=2, **given)
    monkeypatch.setattr(cells.Cell, "at", None)
    with pytest.raises(InputError, match="too small for penalties of each voxel's own: the smallest that works is [0-9]+ bytes"):
        banded_ridge_cv(X, Y, search="gradient", **given)


def test_skips_voxels_that_are_not_finite_and_constant_ones_stay():
    X, Y, widths = problem(60, (5, 8, 4))
    Y[3, 2], Y[:, 4] = np.nan, 3.0
    fit = banded_ridge_cv(X, Y, bands=widths, search="auto", alphas=ALPHAS, nan_targets="skip", random_state=0)
    assert np.isnan(fit.coef[:, 2]).all() and np.isnan(fit.best_score[2])
    assert not fit.coef[:, 4].any() and fit.best_score[4] == 0 and fit.intercept[4] == 3.0
    assert np.isfinite(np.delete(fit.coef, 2, axis=1)).all()


def test_one_series_torch_saving_and_estimator(tmp_path):
    torch = pytest.importorskip("torch")
    from fastencode import BandedRidgeCV

    X, Y, widths = problem(60, (5, 8, 4))
    given = {"search": "gradient", "alphas": ALPHAS, "n_steps": 5}
    fit = banded_ridge_cv(torch.from_numpy(X), torch.from_numpy(Y[:, 1]), bands=widths, **given)
    whole = banded_ridge_cv(X, Y, bands=widths, **given)
    assert fit.coef.shape == (17,) and isinstance(fit.coef, torch.Tensor)
    np.testing.assert_allclose(fit.coef.numpy(), whole.coef[:, 1], atol=1e-7)
    whole.save(tmp_path / "fit.h5")
    loaded = BandedFit.load(tmp_path / "fit.h5")
    np.testing.assert_array_equal(loaded.predict(X), whole.predict(X))
    assert loaded.stats["refined"] == whole.stats["refined"]
    model = BandedRidgeCV(dict(zip("abc", widths, strict=True)), **given).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, whole.coef.T)


def test_partition_by_gradient():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 12))
    Y = X[:, :6] @ rng.standard_normal((6, 10)) + rng.standard_normal((200, 10))
    found = partition_variance(X, Y, bands=[6, 6], search="gradient", cv=4)
    assert (found.unique[0] > 0.4).all() and (abs(found.unique[1]) < 0.05).all()


@pytest.mark.parametrize("per_target", [True, False])
def test_a_killed_refinement_goes_on_to_the_same_bits(tmp_path, per_target):
    given = f"search='auto', alphas=np.logspace(-1, 3, 7), cv=4, random_state=0, n_steps=20, per_target={per_target}"
    program = """
        import os, sys
        import numpy as np
        sys.path.insert(0, {tests!r})
        from banded_cases import problem
        from fastencode import banded_ridge_cv
        from fastencode.solve.search.checkpoint import Checkpoint
        left = int(sys.argv[1])
        write = Checkpoint.write
        def kill(self, arrays):
            global left
            write(self, arrays)
            left -= "steps" in arrays
            if left == 0 and "steps" in arrays:
                os.kill(os.getpid(), 9)
        Checkpoint.write = kill
        X, Y, widths = problem(60, (5, 8, 4), v=40)
        fit = banded_ridge_cv(X, Y, bands=widths, {given}, checkpoint={place!r})
        np.savez({out!r}, coef=fit.coef, alpha=fit.alpha, gammas=fit.gammas, best=fit.best_score)
    """
    place, out = str(tmp_path / "search.h5"), str(tmp_path / "out.npz")
    text = textwrap.dedent(program).format(tests=os.path.dirname(__file__), given=given, place=place, out=out)
    for left in (1, 2):
        killed = subprocess.run([sys.executable, "-c", text, str(left)], capture_output=True, text=True)
        assert killed.returncode == -9, killed.stderr
    subprocess.run([sys.executable, "-c", text, "0"], check=True)
    X, Y, widths = problem(60, (5, 8, 4), v=40)
    whole = eval(f"banded_ridge_cv(X, Y, bands=widths, {given})", {"np": np, **globals(), "X": X, "Y": Y, "widths": widths})
    with np.load(out) as found:
        for name, array in (("coef", whole.coef), ("alpha", whole.alpha), ("gammas", whole.gammas), ("best", whole.best_score)):
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("n_steps", [0, -1, 1.5, True, "many"])
def test_bad_steps_say_so(n_steps):
    X, Y, widths = problem()
    with pytest.raises(InputError, match="n_steps="):
        banded_ridge_cv(X, Y, bands=widths, search="gradient", n_steps=n_steps)


def test_climb_finds_the_top_of_hills_and_stays_in_bounds():
    rng = np.random.default_rng(0)
    top, v = rng.uniform(-4, 4, (3, 50)), 50
    bend = rng.standard_normal((v, 3, 3))
    bend = bend @ bend.transpose(0, 2, 1) + 0.3 * np.eye(3)
    low, high = np.full((3, 1), -3.0), np.full((3, 1), 3.0)
    climb, everything = Climb.begin(np.zeros((3, v))), np.arange(v)
    for _ in range(200):
        at = climb.propose(everything, low, high, np.full(v, 1e-9))
        off = at - top
        pull = np.einsum("vbc,cv->bv", bend, off)
        climb.take(everything, at, -0.5 * (off * pull).sum(axis=0), -pull)
    assert (abs(climb.at_bv) <= 3).all() and not climb.going_v.any()
    free = (abs(climb.at_bv) < 3).all(axis=0)
    assert free.sum() > 5
    np.testing.assert_allclose(climb.at_bv[:, free], top[:, free], atol=1e-3)
    outward = np.where(climb.at_bv >= 3, climb.slope_bv, np.where(climb.at_bv <= -3, -climb.slope_bv, 0.0))
    assert (outward > -1e-3).all()


def test_cells_hold_what_is_near():
    X, _, widths = problem()
    checked = Problem.check(X, alphas=ALPHAS, cv=4, runs=None, fit_intercept=True, precision="exact", device=None, memory=None)
    grams = make_grams(checked, join(X, widths).bands, None, False)
    at = np.random.default_rng(0).uniform(-30, 2, (3, 200))
    seen = []
    for centre, columns in cells.by_cells(grams, at, np.arange(0, 200, 2)):
        near = np.maximum(at[:, columns], cells.as_good_as_off(grams)) - centre[:, None]
        assert (abs(near) <= cells.CELL / 2 + 1e-12).all()
        seen.extend(columns)
    assert sorted(seen) == list(range(0, 200, 2))


def in_units(scales, seed=0, n=200, v=30, widths=(7, 40, 250)):
    """Bands in units that are so much, and responses that all three explain something of."""
    rng, widths = np.random.default_rng(seed), list(widths)
    X, edges = rng.standard_normal((n, sum(widths))), np.cumsum([0, *widths])
    Y = rng.standard_normal((n, v))
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        coef = rng.standard_normal((last - first, v)) * (rng.random(v) < 0.6) * rng.uniform(0.3, 1, v)
        Y += X[:, first:last] @ coef / np.sqrt(last - first)
    return X * np.repeat(scales, widths), Y, widths


def test_the_start_does_not_depend_on_the_units_of_a_band():
    X, Y, widths = in_units((1.0, 30.0, 0.01), v=12, widths=(7, 40, 120))
    alike, _, _ = in_units((1.0, 1.0, 1.0), v=12, widths=(7, 40, 120))
    given = {"bands": widths, "random_state": 0}
    found = {search: banded_ridge_cv(X, Y, search=search, **given).best_score.mean() for search in ("gradient", "auto")}
    wanted = banded_ridge_cv(alike, Y, search="gradient", **given).best_score.mean()
    samples = banded_ridge_cv(X, Y, n_iter=30, **given).best_score.mean()
    assert found["gradient"] >= samples - 1e-3 and abs(found["gradient"] - wanted) < 0.005
    assert found["auto"] >= samples - 1e-3 and abs(found["auto"] - wanted) < 0.01


@pytest.mark.parametrize("n", [30, 110])  # dual, primal
@pytest.mark.parametrize("search", ["random", "gradient", "auto"])
def test_first_candidates_are_equal_weights_and_equal_traces(search, n):
    X, Y, widths = in_units((1.0, 30.0, 0.01), n=n, v=2, widths=(4, 12, 70))
    centered = X - X.mean(axis=0)
    squares = np.array([(part**2).sum() for part in np.split(centered, np.cumsum(widths)[:-1], axis=1)])
    given = {"bands": widths, "search": search, "n_iter": 3, "random_state": 0, "alphas": ALPHAS, "n_steps": 1}
    first, second, third = banded_ridge_cv(X, Y, **given).candidates
    weights, equal = (second, first) if search == "gradient" else (first, second)
    np.testing.assert_array_equal(weights, np.full(3, 1 / 3))
    np.testing.assert_allclose(equal, squares.mean() / (3 * squares), rtol=1e-9)
    np.testing.assert_allclose(third.sum(), 1.0)
    alone = banded_ridge_cv(X, Y, **{**given, "n_iter": 1}).candidates
    np.testing.assert_array_equal(alone, [first])
    chosen = np.array([[0.2, 0.8, 0.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(banded_ridge_cv(X, Y, gammas=chosen, **given).candidates, chosen)


@pytest.mark.parametrize("dual", [False, True])
def test_systems_that_are_not_solved_are_counted_in_one_warning(dual, monkeypatch):
    """One step of conjugate gradients is too few: the warning counts voxels whose weights are off, and no others."""
    X, Y, widths = problem(40, (30, 25) if dual else (5, 8), v=6)
    rng = np.random.default_rng(0)
    gammas, alpha = rng.uniform(0.5, 2.0, (2, 6)), np.full(6, 1.0)
    gammas[:, 5] = np.exp(0.5 * cells.CELL)  # at the centre of a cell, so solved at once
    given = {"bands": widths, "gammas": np.tile(gammas, 4), "alphas": np.tile(alpha, 4), "cv": None}
    exact = banded_ridge_cv(X, np.tile(Y, 4), **given)
    assert exact.stats["decompositions"] == 0
    monkeypatch.setattr(cells, "_MOST_STEPS", 1)
    with pytest.warns(FastencodeWarning, match="stopped after 1 steps before they solved the weights of 20 voxels") as caught:
        rough = banded_ridge_cv(X, np.tile(Y, 4), **given)
    assert len(caught) == 1 and caught[0].filename == __file__
    off = abs(rough.coef - exact.coef).max(axis=0)
    np.testing.assert_array_equal(off > 1e-9, np.arange(24) % 6 != 5)
    with pytest.warns(FastencodeWarning) as caught:
        banded_ridge_cv(X, Y, bands=widths, search="gradient", alphas=ALPHAS, cv=4)
    assert sum("the held-out scores of" in str(one.message) and "the weights of" in str(one.message) for one in caught) == 1


@pytest.mark.filterwarnings("error:conjugate gradients")
@pytest.mark.parametrize("search", ["gradient", "auto"])
@pytest.mark.parametrize(("n", "widths"), SHAPES)
def test_no_warning_where_systems_are_solved(n, widths, search):
    X, Y, widths = problem(n, widths, v=8)
    banded_ridge_cv(X, Y, bands=widths, search=search, n_iter=3, n_steps=5, alphas=np.logspace(-4, 6, 8), cv=3, random_state=0)


@pytest.mark.parametrize("n", [60, 200])  # dual, primal
@pytest.mark.parametrize("weighted", [False, True])
def test_a_column_that_hides_the_others_of_its_band_is_named(n, weighted, recwarn):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, 90)), rng.standard_normal((n, 3))
    given = {"bands": {"a": 40, "b": 50}, "search": "gradient", "n_steps": 1, "cv": 3}
    given["sample_weight"] = rng.uniform(0.5, 2.0, n) if weighted else None
    X[:, 3] = 7.0  # a constant column does not make the others large
    banded_ridge_cv(X * np.where(np.arange(90) < 40, 1e6, 1.0), Y, **given)  # nor do units of a whole band
    assert not any("median column" in str(one.message) for one in recwarn)
    X[:, 42] *= 1e8
    with pytest.warns(
        FastencodeWarning, match=r"column 42 of band 'b' is \S+ times as large .*Scale the columns of a band alike"
    ) as caught:
        banded_ridge_cv(X, Y, **given)
    assert sum("median column" in str(one.message) for one in caught) == 1
    assert not any("of band 'a'" in str(one.message) for one in caught)
