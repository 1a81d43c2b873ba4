"""The warning of a grid that is too narrow: where it costs score, and only there; once, at the line that called; constant voxels.

Simulated: features of speech at three delays, whose columns resemble each other and themselves a scan before; voxels with
autocorrelated noise of which a part is common to all; some that follow the features, some constant ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import fastencode
from fastencode.devices import plain_device
from fastencode.errors import FastencodeWarning
from fastencode.progress import progress
from fastencode.solve.edges import edges_of_fit
from fastencode.solve.given.targets import Targets
from fastencode.solve.score.choose import Choice
from fastencode.solve.score.ends import Cost, Seen, cost_of, end_rows, no_ends
from fastencode.solve.weights.device import fit_on
from fastencode.solve.weights.ridge import Kept, fit_on_host

SCORINGS = ("r2", "pearson", "neg_mean_squared_error")
N, VOXELS, CONSTANT = 300, 300, 15


def autocorrelated(rng, n, k, rho):
    out = rng.standard_normal((n, k))
    for t in range(1, n):
        out[t] = rho * out[t - 1] + np.sqrt(1 - rho**2) * out[t]
    return out


def world(seed, share, columns=20, constant=CONSTANT):
    """(X, Y): the first voxels, a share of all, follow the features with an R² of .03 to .3; the last ones are constant."""
    rng = np.random.default_rng(seed)
    latent = autocorrelated(rng, N + 3, columns, 0.6) * np.arange(1, columns + 1) ** -0.8
    sound = latent @ rng.standard_normal((columns, columns)) + 0.1 * rng.standard_normal((N + 3, columns))
    sound = (sound - sound.mean(axis=0)) / sound.std(axis=0)
    X = np.hstack([sound[3 - d : N + 3 - d] for d in (1, 2, 3)])
    Y = autocorrelated(rng, N, VOXELS, 0.7) + 0.3 * autocorrelated(rng, N, 3, 0.8) @ rng.standard_normal((3, VOXELS))
    Y /= Y.std(axis=0)
    followers = int(share * VOXELS)
    signal = X @ rng.standard_normal((X.shape[1], followers))
    r2 = rng.uniform(0.03, 0.3, followers)
    Y[:, :followers] = np.sqrt(r2) * signal / signal.std(axis=0) + np.sqrt(1 - r2) * Y[:, :followers]
    Y[:, VOXELS - constant :] = 0.1
    return X, Y


def right_grid(X):
    """From where nothing is shrunk to where nearly everything is."""
    return np.logspace(0, np.ceil(np.log10(np.linalg.norm(X - X.mean(axis=0), 2) ** 2)) + 1, 13)


def told_by(call):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = call()
    assert all(w.category is FastencodeWarning for w in told) and len(told) <= 1
    return found, str(told[0].message) if told else ""


# ---- simulated speech


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_a_grid_that_suffices_is_not_warned_about(scoring, share):
    """Though a third or more of the voxels end at an edge: that costs those which follow the features nothing."""
    for seed in range(2):
        X, Y = world(seed, share, constant=0)
        grid = right_grid(X)
        fit, told = told_by(lambda X=X, Y=Y, grid=grid: fastencode.ridge_cv(X, Y, alphas=grid, scoring=scoring))
        assert told == "" and (fit.at_edge != 0).mean() > 0.3
        wide, _ = told_by(lambda X=X, Y=Y, g=grid: fastencode.ridge_cv(X, Y, alphas=np.r_[g / 1e6, g, g * 1e6], scoring=scoring))
        gain = (wide.best_score - fit.best_score)[: int(share * VOXELS)]
        assert gain.size == 0 or gain.mean() < 0.005


@pytest.mark.parametrize(
    "scoring, share, shift",
    [(s, share, shift) for s in ("r2", "neg_mean_squared_error") for share in (0.05, 0.3) for shift in (1e6, 1e-3, 1e-6)]
    + [("r2", 0.3, 1e3), ("neg_mean_squared_error", 0.3, 1e3)]
    + [("pearson", 0.3, shift) for shift in (1e6, 1e3, 1e-3, 1e-6)],
)
def test_a_grid_that_costs_score_is_warned_about(scoring, share, shift):
    X, Y = world(0, share, constant=0)
    grid = right_grid(X)
    fit, told = told_by(lambda: fastencode.ridge_cv(X, Y, alphas=grid * shift, scoring=scoring))
    wide, _ = told_by(lambda: fastencode.ridge_cv(X, Y, alphas=np.r_[grid, grid * shift], scoring=scoring))
    gain = (wide.best_score - fit.best_score)[: int(share * VOXELS)]
    assert gain.mean() > 0.01
    side, other = ("smallest", "largest") if shift > 1 else ("largest", "smallest")
    assert f"the {side}" in told and other not in told


def test_voxels_of_which_chance_makes_the_edge_do_not_count():
    """Correlations of noise are best at either edge of any grid, its mean squared error at the largest penalty."""
    for scoring in SCORINGS:
        X, Y = world(7, 0.0, constant=0)
        fit, told = told_by(lambda X=X, Y=Y, s=scoring: fastencode.ridge_cv(X, Y, alphas=right_grid(X), scoring=s))
        assert told == "" and (fit.at_edge != 0).sum() > VOXELS / 4


# ---- the rule


def scores_at(first, above, below, last, count):
    return np.repeat(np.array([first, above, below, last], dtype=float)[:, None], count, axis=1)


def test_which_scores_are_compared():
    assert end_rows(np.logspace(0, 4, 5)) == [0, 1, 3, 4]
    assert end_rows(np.logspace(0, 2, 201)) == [0, 100, 100, 200]  # a fine grid is judged by the same decade
    assert end_rows(np.array([1.0, 1e3, 1e6])) == [0, 1, 1, 2]
    assert end_rows(np.array([1.0, 2.0])) == [0, 1, 0, 1]


NOISE = scores_at(-0.2, -0.1, -0.01, -0.001, 900)  # R² that tends to that of the mean


@pytest.mark.parametrize(
    "scores, side, wanted",
    [
        ((0.3, 0.28, 0.0, 0.0), -1, Cost(low=100)),
        ((0.3, 0.295, 0.0, 0.0), -1, Cost()),  # hardly rises
        ((0.019, 0.0, 0.0, 0.0), -1, Cost()),  # not above chance: 4 / 200
        ((0.3, 0.28, 0.0, 0.0), 0, Cost()),  # best inside
        ((0.0, 0.0, 0.1, 0.2), 1, Cost(high=100)),
        ((0.0, 0.0, 0.195, 0.2), 1, Cost()),
    ],
)
@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
def test_voxels_count_whose_score_rises_at_the_edge(scores, side, wanted, scoring):
    ends, edge = np.hstack([scores_at(*scores, 100), NOISE]), np.repeat(np.array([side, 1], np.int8), [100, 900])
    ends -= scoring != "r2"  # in shares of the variance
    assert cost_of(ends, edge, np.ones(1000, bool), scoring, 200, False) == wanted
    few = np.arange(1000) % 100 // 10 == 5  # ten of a hundred each
    ends, edge = (
        np.hstack([ends[:, :10], NOISE - (scoring != "r2"), NOISE[:, :90] - (scoring != "r2")]),
        np.r_[edge[:10], [1] * 990],
    )
    assert few.sum() == 100 and cost_of(ends, edge.astype(np.int8), np.ones(1000, bool), scoring, 200, False) == Cost()


def test_correlations_that_chance_makes_are_taken_off():
    up, down = scores_at(0.3, 0.2, 0.1, 0.1, 100), scores_at(-0.3, -0.2, -0.1, -0.1, 100)
    rest = scores_at(0.0, 0.0, 0.0, 0.0, 800)
    edge = np.repeat(np.array([-1, 1, 0], np.int8), [100, 100, 800])
    everyone = np.ones(1000, bool)
    assert cost_of(np.hstack([up, down, rest]), edge, everyone, "pearson", 400, False) == Cost()
    assert cost_of(np.hstack([up, down[:, :50], rest]), edge[:950], everyone[:950], "pearson", 400, False).low == 50
    assert cost_of(np.hstack([up[::-1], down[::-1], rest]), edge, everyone, "pearson", 400, False) == Cost()
    assert (
        cost_of(
            np.hstack([up[::-1], rest]), np.repeat(np.array([1, 0], np.int8), [100, 800]), everyone[:900], "pearson", 400, False
        ).high
        == 100
    )
    assert (
        cost_of(np.hstack([up[:, :20], down[:, :8]]), edge[[0] * 20 + [100] * 8], everyone[:28], "pearson", 400, False).low == 12
    )
    assert (
        cost_of(np.hstack([up[:, :16], down[:, :8]]), edge[[0] * 16 + [100] * 8], everyone[:24], "pearson", 400, False).low == 0
    )
    weak = scores_at(0.14, 0.1, 0.1, 0.1, 100)  # 3 / √400 = .15
    assert cost_of(np.hstack([weak, rest]), edge[[0] * 100 + [-1] * 800], everyone[:900], "pearson", 400, False).low == 0


def test_the_mean_tells_a_grid_that_is_too_large():
    rng = np.random.default_rng(0)
    tiny = 1e-3 * np.array([1.0, 0.1, 1e-4, 1e-5])[:, None] * (0.3 + rng.standard_normal(1000))
    edge, everyone = np.where(tiny[0] > 0, -1, 1).astype(np.int8), np.ones(1000, bool)
    assert cost_of(tiny, edge, everyone, "r2", 200, False) == Cost(all_low=True)
    assert cost_of(tiny - tiny.mean(axis=1, keepdims=True), edge, everyone, "r2", 200, False) == Cost()  # chance
    level = tiny * [[1.0], [0.8], [1e-4], [1e-5]] + np.array([[0.0], [2e-4], [0.0], [0.0]])  # rises by less than half of all
    assert cost_of(level, edge, everyone, "r2", 200, False) == Cost()
    falls = np.hstack([NOISE, scores_at(-0.9, -0.8, -0.5, -0.4, 900)])
    assert cost_of(falls, np.ones(1800, np.int8), np.ones(1800, bool), "r2", 200, False) == Cost(all_high=True)


def test_one_penalty_for_all_is_judged_by_the_mean():
    ends, everyone = np.hstack([scores_at(0.4, 0.2, 0.1, 0.0, 10), scores_at(-0.1, -0.05, 0.0, 0.0, 10)]), np.ones(20, bool)
    low, inside = np.full(20, -1, np.int8), np.zeros(20, np.int8)
    assert cost_of(ends, low, everyone, "r2", 200, True).low == 20 and cost_of(ends, inside, everyone, "r2", 200, True) == Cost()
    ends[0] -= 0.07  # the mean rises by .005
    assert cost_of(ends, low, everyone, "r2", 200, True).low == 0


def test_voxels_without_scores_count_nowhere():
    ends, edge = scores_at(0.3, 0.2, 0.0, 0.0, 5), np.full(5, -1, np.int8)
    assert cost_of(ends, edge, np.arange(5) < 3, "r2", 200, False).low == 3
    assert cost_of(no_ends(5), edge, np.ones(5, bool), "r2", 200, False) == Cost()


# ---- in every solver, once, at the line that called


def strong(n=80, constant=2, dtype=np.float64):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, 8))
    Y = X @ rng.standard_normal((8, 8)) + 0.3 * rng.standard_normal((n, 8))
    Y[:, 8 - constant :] = 0.1
    return X.astype(dtype), Y.astype(dtype)


LARGE = [300.0, 3e3, 3e4]
CALLS = {
    "ridge_cv": lambda X, Y, **o: fastencode.ridge_cv(X, Y, alphas=LARGE, **o),
    "plan.fit": lambda X, Y, **o: fastencode.plan_ridge(X, alphas=LARGE).fit(Y, **o),
    "banded_ridge_cv": lambda X, Y, **o: fastencode.banded_ridge_cv(
        X, Y, bands=[3, 5], n_iter=2, random_state=0, alphas=LARGE, **o
    ),
    "one band": lambda X, Y, **o: fastencode.banded_ridge_cv(X, Y, bands=[8], alphas=LARGE, **o),
    "RidgeCV": lambda X, Y, **o: fastencode.RidgeCV(alphas=LARGE, **o).fit(X, Y),
    "BandedRidgeCV": lambda X, Y, **o: fastencode.BandedRidgeCV(
        [0] * 3 + [1] * 5, alphas=LARGE, n_iter=2, random_state=0, **o
    ).fit(X, Y),
}


@pytest.mark.parametrize(
    "options", [{}, {"per_target": False}, {"scoring": "neg_mean_squared_error"}, {"scoring": "pearson"}], ids=str
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_solver_warns_once_where_it_was_called(call, options):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    X, Y = strong()
    X = X * np.logspace(-1, 1, 8)  # so that correlations depend on the penalty
    with pytest.warns(FastencodeWarning) as told:
        call(X, Y, **options)
    assert len(told) == 1 and Path(told[0].filename).name == Path(__file__).name
    message = str(told[0].message)
    assert "2 of 8 voxels are constant (the first is voxel 6) and score 0: leave them out" in message
    assert "of the grid" in message and "smallest" in message and "largest" not in message


def test_a_partition_warns_once_of_all_its_fits():
    X, Y = strong()
    with pytest.warns(FastencodeWarning) as told:
        fastencode.partition_variance(X, Y, bands=[3, 5], outer=2, n_iter=2, random_state=0, alphas=LARGE)
    assert len(told) == 1 and Path(told[0].filename).name == Path(__file__).name
    assert "in 6 fits" in str(told[0].message) and "2 of 8 voxels are constant" in str(told[0].message)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_voxels_are_told_apart(dtype, tmp_path):
    """From voxels at an edge, in memory and in a file, with skipped ones beside them; where they are all there is; or none."""
    grid = np.logspace(-2, 4, 13)
    X, Y = strong(dtype=dtype)
    fit, told = told_by(lambda: fastencode.ridge_cv(X, Y, alphas=grid))
    assert told == "2 of 8 voxels are constant (the first is voxel 6) and score 0: leave them out"
    assert fit.stats["constant_voxels"] == 2 and (fit.at_edge[6:] == 1).all() and (fit.best_score[6:] == 0).all()
    np.save(tmp_path / "y.npy", Y)
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    assert told_by(lambda: fastencode.ridge_cv(X, mapped, alphas=grid))[1] == told
    Y[3, 6] = np.nan
    _, told = told_by(lambda: fastencode.ridge_cv(X, Y, alphas=grid, nan_targets="skip"))
    assert told.startswith("1 of 7 voxels are constant (the first is voxel 7)")
    _, told = told_by(lambda: fastencode.ridge_cv(X, np.full_like(Y, 0.3), alphas=LARGE))
    assert told.startswith("8 of 8 voxels are constant")
    fit, told = told_by(lambda: fastencode.ridge_cv(X, Y[:, :6], alphas=grid))
    assert told == "" and fit.stats["constant_voxels"] == 0
    _, told = told_by(lambda: fastencode.ridge_cv(X, Y[:, :6], alphas=1e9, cv=None))  # given: there is no grid
    assert told == ""


def test_weights_generalised_cross_validation_and_fine_grids_are_judged_alike():
    X, Y = strong(constant=0)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    for options in ({"sample_weight": weights}, {"cv": "gcv"}, {"cv": 2, "rule": "one-se"}, {"fit_intercept": False}):
        _, told = told_by(lambda o=options: fastencode.ridge_cv(X, Y, alphas=LARGE, **o))
        assert told.startswith("All penalties of the grid seem to be too large, down to the smallest, 300: add smaller"), options
        assert told_by(lambda o=options: fastencode.ridge_cv(X, Y, alphas=np.logspace(-3, 4, 15), **o))[1] == "", options
    _, told = told_by(lambda: fastencode.ridge_cv(X, Y, alphas=np.geomspace(300, 3e4, 400)))
    assert told.startswith("All penalties of the grid seem to be too large, down to the smallest, 300: add smaller")


def test_a_gradient_that_left_the_grid_behind_is_not_warned_about():
    """From penalties that are all too small each voxel climbs to larger ones, which the grid does not bound."""
    X, Y = world(1, 0.3, constant=0)
    options = {"bands": [30, 30], "n_iter": 2, "random_state": 0, "alphas": right_grid(X)[:3] * 1e-1}
    _, told = told_by(lambda: fastencode.banded_ridge_cv(X, Y, search="random", **options))
    assert "too small, up to the largest" in told
    fit, told = told_by(lambda: fastencode.banded_ridge_cv(X, Y, search="auto", **options))
    assert told == "" and fit.stats["refined"]["voxels"] == VOXELS


def test_a_grid_beside_the_spectrum_is_seen_without_scores():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((60, 30)), rng.standard_normal((60, 40))
    for alphas, words in (
        ([1e-9, 1e-8], "too small, up to the largest, 1e-08"),
        ([1e9, 1e10], "too large, down to the smallest, 1e+09"),
    ):
        for scoring in SCORINGS:
            _, told = told_by(lambda a=alphas, s=scoring: fastencode.ridge_cv(X, Y, alphas=a, scoring=s))
            assert words in told
            _, told = told_by(
                lambda a=alphas, s=scoring: fastencode.banded_ridge_cv(
                    X, Y, bands=[9, 21], n_iter=3, random_state=0, alphas=a, scoring=s
                )
            )
            assert words in told
    few = X[:, :2]  # two features and sixty rows need no penalty
    assert told_by(lambda: fastencode.ridge_cv(few, Y, alphas=[1e-9, 1e-8]))[1] == ""
    clear = X @ rng.standard_normal((30, 40)) + 0.01 * Y  # nor does so little noise
    assert told_by(lambda: fastencode.ridge_cv(X, clear, alphas=np.logspace(-9, -1, 9)))[1] == ""
    one = X * np.where(
        np.arange(30) == 0, 1e3, 1.0
    )  # a direction far larger than all others is left by every penalty of this grid
    assert "too large" not in told_by(lambda: fastencode.ridge_cv(one, X[:, :1] + 2 * Y, alphas=np.logspace(6, 9, 7)))[1]


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    import h5py

    X, Y = strong()
    search = {"bands": [3, 5], "random_state": 0, "alphas": LARGE, "checkpoint": tmp_path / "search.h5"}
    told_by(lambda: fastencode.banded_ridge_cv(X, Y, n_iter=2, **search))
    with h5py.File(tmp_path / "search.h5", "r+") as file:
        del file["ends"]
    fit, _ = told_by(lambda: fastencode.banded_ridge_cv(X, Y, n_iter=3, **search))
    assert len(fit.candidates) == 3


@pytest.mark.parametrize("namespace", ["torch", "array_api_strict"])
@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("per_target", [True, False])
def test_a_device_sees_what_the_host_sees(namespace, scoring, per_target):
    """On other array libraries, which stand in for a card."""
    device = plain_device(pytest.importorskip(namespace, reason=f"{namespace} is not installed"))
    X, Y = strong()
    Y[4, 1] = np.nan
    plan, targets = fastencode.plan_ridge(X, alphas=LARGE)._plan, Targets.check(Y, len(X))
    choice = Choice(per_target=per_target)
    with progress(desc="fit", total=1, enabled=False) as bar:
        wanted = fit_on_host(plan, targets, scoring, True, choice, Kept(), bar)[2]
        found = fit_on(device, plan, targets, scoring, True, choice, bar, width=3)[2]
    for name, one, other in zip(Seen._fields, found, wanted, strict=True):
        good = ~wanted.bad_v if name in ("ends_ev", "edge_v", "variance_v") else slice(None)
        np.testing.assert_allclose(np.asarray(one)[..., good], other[..., good], rtol=1e-10, atol=1e-12, err_msg=name)
    assert (found.variance_v[6:] == 0).all() and found.bad_v.tolist() == [False, True] + [False] * 6
    edges = [
        edges_of_fit(seen, np.array(LARGE), scoring=scoring, n_rows=80, shared=not per_target, freedoms=[])
        for seen in (found, wanted)
    ]
    assert edges[0] == edges[1] and edges[0].constant == 2
