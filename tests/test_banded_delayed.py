"""Banded ridge on delayed copies that are not made, alone and beside arrays: what it finds is what it finds on the copies.

Legend: t = time, p = features, b = bands, v = voxels.
"""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import reference_timing
from banded_cases import ALPHAS, gammas_for
from fastencode import BandedFit, InputError, banded_ridge_cv, delay, leave_one_run_out, partition_variance
from fastencode.delayed import Delayed, DelayedThere, pick
from fastencode.devices import plain_device
from fastencode.solve import banded as ridge
from fastencode.solve.given.folds import resolve_folds
from pairs import pairs

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")

# Widths of two matrices and their delays, and rows: dual, primal.
SOUND, WORDS = (1, 2, -1), (0, 3)
SHAPES = {"dual": (36, 12, 9), "primal": (90, 5, 4)}
NAMES = ("coef", "intercept", "alpha", "gammas", "cv_scores", "best_score", "at_edge")


def make(n, a, b, v=5, dtype=np.float64, seed=0):
    """({name: features not made}, {name: the naive loop's copies}, responses, runs): two delayed matrices and a plain one."""
    rng = np.random.default_rng([n, a, b, seed])
    runs = np.repeat(np.arange(3), [n // 3, n // 3, n - 2 * (n // 3)])
    sound, words, plain = (rng.standard_normal((n, width)).astype(dtype) + dtype(2) for width in (a, b, 3))
    virtual = {"sound": delay(sound, SOUND, runs, copy=False), "plain": plain, "words": delay(words, WORDS, runs, copy=False)}
    copies = {
        "sound": reference_timing.delay(sound, SOUND, runs).astype(dtype),
        "plain": plain,
        "words": reference_timing.delay(words, WORDS, runs).astype(dtype),
    }
    Y = rng.standard_normal((n, v)) + 1
    for i in range(v):
        part = list(copies.values())[i % 3]
        Y[:, i] += 2 * part @ rng.standard_normal(part.shape[1]) / np.sqrt(part.shape[1])
    return virtual, copies, Y.astype(dtype), runs


def assert_same(found, wanted, dtype=np.float64, names=NAMES):
    tolerance = 2e-4 if dtype == np.float32 else 1e-10
    for name in names:
        a, b = np.asarray(getattr(found, name)), np.asarray(getattr(wanted, name))
        assert a.shape == b.shape and a.dtype == b.dtype, name
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1e-2 + np.nanmax(np.abs(b))), err_msg=name)


def assert_alike(found, wanted, X, Y, w=None):
    """Steps by the gradient enlarge roundings where a score is flat: nearly the same scores, and weights that belong to the
    penalties."""
    assert np.abs(found.best_score - wanted.best_score).max() < 1e-3
    for v in range(Y.shape[1]):
        root = np.ones(X.shape[1])
        for gamma, columns in zip(found.gammas[:, v], found.columns, strict=True):
            root[columns] = np.sqrt(gamma)
        coef, constant = reference.weighted_weights(X * root, Y[:, v], found.alpha[v], True, np.ones(len(Y)) if w is None else w)
        np.testing.assert_allclose(found.coef[:, v], coef * root, atol=1e-8)
        np.testing.assert_allclose(found.intercept[v], constant, atol=1e-7)


@pytest.fixture
def made(monkeypatch):
    """The shares of all copies that were made at once, of every matrix that was read."""
    shares, read = [0.0], Delayed.__getitem__

    def __getitem__(self, key):
        out = read(self, key)
        shares.append(out.size / (len(self) * self.shape[1]))
        return out

    monkeypatch.setattr(Delayed, "__getitem__", __getitem__)
    return shares


@pytest.mark.parametrize(
    "space, cv, dtype, weighted, intercept",
    pairs(list(SHAPES), ["runs", 4], [np.float64, np.float32], [False, True], [True, False]),
)
def test_equal_to_naive_float64_and_to_the_copies(space, cv, dtype, weighted, intercept):
    virtual, copies, Y, runs = make(*SHAPES[space], dtype=dtype)
    n, gammas, widths = len(Y), gammas_for(3), [part.shape[1] for part in copies.values()]
    w = np.random.default_rng(1).uniform(0.3, 2, n) * (np.arange(n) % 7 > 0) if weighted else np.ones(n)
    given = {"gammas": gammas, "alphas": ALPHAS, "cv": cv, "fit_intercept": intercept}
    given |= {"runs": runs if cv == "runs" else None, "sample_weight": w if weighted else None}
    found, wanted = banded_ridge_cv(virtual, Y, **given), banded_ridge_cv(copies, Y, **given)
    assert found.stats["strategy"] == wanted.stats["strategy"] == space and found.names == wanted.names
    if dtype == np.float64:  # float32 may choose otherwise between two as good
        assert_same(found, wanted)
    kept, X = np.flatnonzero(w), np.hstack(list(copies.values()))
    folds = leave_one_run_out(runs) if cv == "runs" else [(kept[a], kept[b]) for a, b in resolve_folds(4, len(kept), None)]
    folds = [(np.intersect1d(train, kept), np.intersect1d(test, kept)) for train, test in folds]
    scores = [
        reference.weighted_cv_scores(X * np.sqrt(np.repeat(gamma, widths)), Y, ALPHAS, folds, "r2", intercept, w)
        for gamma in gammas
    ]
    best = np.stack(scores).max(axis=1)
    tolerance = 2e-5 if dtype == np.float32 else 1e-9
    assert (abs(found.cv_scores - best) <= tolerance * np.maximum(1, abs(best))).all()
    for v in range(Y.shape[1]):
        root = np.sqrt(np.repeat(found.gammas[:, v], widths))
        coef, constant = reference.weighted_weights(X * root, Y[:, v], found.alpha[v], intercept, w)
        np.testing.assert_allclose(found.coef[:, v], coef * root, atol=20 * tolerance)
        np.testing.assert_allclose(found.intercept[v], constant, atol=20 * tolerance)


def test_the_comparison_can_fail():
    virtual, copies, Y, runs = make(*SHAPES["dual"])
    virtual["words"] = delay(virtual["words"].parts[0].base_sw, (0, 2), runs, copy=False)
    given = {"gammas": gammas_for(3), "alphas": ALPHAS, "cv": "runs", "runs": runs}
    with pytest.raises(AssertionError):
        assert_same(banded_ridge_cv(virtual, Y, **given), banded_ridge_cv(copies, Y, **given))


@pytest.mark.parametrize("search", ["random", "gradient"])
@pytest.mark.parametrize("space", SHAPES)
def test_bands_of_columns_of_one_matrix(space, search):
    """Features of all copies of a matrix, whole copies, parts of a copy, and columns all over the place."""
    n, a, _ = SHAPES[space]
    virtual, copies, Y, runs = make(n, a, 4, v=3)
    X, whole = virtual["sound"], copies["sound"]
    rng, p = np.random.default_rng(2), 3 * a
    first = np.arange(a)[: a // 2]
    shuffled = rng.permutation(p)
    both = np.concatenate([first + a * d for d in range(3)])
    for bands in (
        {"some": both, "others": np.setdiff1d(np.arange(p), both)},
        {"one": slice(0, a), "two": slice(a, 3 * a)},
        [a + 1, 2 * a - 1],
        [shuffled[:7], shuffled[7:]],
    ):
        given = {"bands": bands, "search": search, "n_iter": 2, "n_steps": 4, "random_state": 0, "alphas": ALPHAS}
        given |= {"cv": "runs", "runs": runs}
        found, wanted = banded_ridge_cv(X, Y, **given), banded_ridge_cv(whole, Y, **given)
        assert_same(found, wanted) if search == "random" else assert_alike(found, wanted, whole, Y)
        np.testing.assert_allclose(found.predict(X, split=True), found.predict(whole, split=True), atol=1e-10)
        np.testing.assert_allclose(found.score(X, Y, split=True), found.score(whole, Y, split=True), atol=1e-10)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data(), widths=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_rows_and_columns_of_matrices_side_by_side(data, widths):
    rng, runs = np.random.default_rng(3), np.repeat([0, 1], [6, 5])
    parts, wanted = [], []
    for i, width in enumerate(widths):
        features = rng.standard_normal((11, width)).astype(np.float32 if i % 2 else np.float64)
        delays = data.draw(st.lists(st.integers(-3, 3), max_size=3, unique=True))
        parts.append(delay(features, delays, runs, copy=False) if delays else features)
        wanted.append(reference_timing.delay(features, delays, runs) if delays else features)
    X, copies = Delayed.side_by_side(parts), np.hstack(wanted)
    n, p = copies.shape
    assert X.shape == copies.shape and X.dtype == np.result_type(*parts)
    columns = np.array(sorted(data.draw(st.sets(st.integers(0, p - 1), min_size=1))))
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=6)), dtype=int)
    np.testing.assert_array_equal(np.asarray(X), copies)
    np.testing.assert_array_equal(np.asarray(pick(X, columns=columns)), copies[:, columns])
    np.testing.assert_array_equal(np.asarray(pick(X, rows)), copies[rows])
    for some in (rows, slice(2, 7)):
        np.testing.assert_array_equal(np.asarray(pick(X, some, columns)), copies[some][:, columns])
        np.testing.assert_array_equal(pick(copies, some, columns), copies[some][:, columns])
    for xp in (torch, array_api_strict):
        device = plain_device(xp)
        there, right = DelayedThere(X, device), rng.standard_normal((p, 2))
        np.testing.assert_allclose(device.get(there @ device.put(right)), copies @ right, atol=1e-12)
        np.testing.assert_array_equal(device.get(there[device.put(rows, np.int64)]), copies[rows])


@pytest.mark.parametrize("space", SHAPES)
def test_copies_are_never_made_whole(space, made, monkeypatch, tmp_path):
    n, a, b = {"dual": (60, 40000, 10000), "primal": (20000, 5, 4)}[space]
    virtual, copies, Y, _ = make(n, a, b)
    monkeypatch.setattr(Delayed, "__array__", None)
    given = {"n_iter": 2, "random_state": 0, "alphas": ALPHAS, "cv": 3, "checkpoint": tmp_path / "search.h5"}
    if space == "primal":
        given |= {"search": "auto", "n_steps": 2}
    found = banded_ridge_cv(virtual, Y, **given)
    assert found.stats["strategy"] == space
    assert 0 < max(made) < 0.5, "of all rows in the primal, a fold holds out a third"
    predicted, score = found.predict(virtual), found.score(virtual, Y)
    wanted = banded_ridge_cv(copies, Y, **given)  # goes on from the file: the same design, the same scores
    np.testing.assert_array_equal(found.cv_scores, wanted.cv_scores)
    np.testing.assert_allclose(found.coef, wanted.coef, atol=1e-8)
    np.testing.assert_allclose(predicted, wanted.predict(copies), atol=1e-7)
    np.testing.assert_allclose(score, wanted.score(copies, Y), atol=1e-7)


def test_predictions_and_scores_of_bands_and_a_file(tmp_path):
    virtual, copies, Y, runs = make(*SHAPES["dual"])
    fit = banded_ridge_cv(virtual, Y, n_iter=3, random_state=0, alphas=ALPHAS, cv="runs", runs=runs)
    fit.save(tmp_path / "fit.h5")
    fit = BandedFit.load(tmp_path / "fit.h5")
    joined, backwards = Delayed.side_by_side(list(virtual.values())), dict(reversed(virtual.items()))
    whole = np.hstack(list(copies.values()))
    for X in (virtual, backwards, list(virtual.values()), joined, {**virtual, "sound": copies["sound"]}):
        np.testing.assert_allclose(fit.predict(X), whole @ fit.coef + fit.intercept, atol=1e-10)
        np.testing.assert_allclose(fit.predict(X, split=True), fit.predict(copies, split=True), atol=1e-10)
        for scoring in ("r2", "pearson"):
            np.testing.assert_allclose(fit.score(X, Y, scoring, True), fit.score(copies, Y, scoring, True), atol=1e-10)
    few = {name: pick(part, np.arange(5)) for name, part in virtual.items()}
    np.testing.assert_allclose(fit.predict(few), fit.predict(copies)[:5], atol=1e-10)
    with pytest.raises(InputError, match=r"bands of \[24, 3, 18\] features and the fit of \[36, 3, 18\]"):
        fit.predict({**virtual, "sound": delay(virtual["sound"].parts[0].base_sw, (1, 2), copy=False)})


def test_variance_is_partitioned_without_copies(monkeypatch):
    virtual, copies, Y, runs = make(36, 6, 4)
    given = {"outer": "runs", "runs": runs, "n_iter": 2, "random_state": 0, "alphas": ALPHAS, "cv": "runs"}
    wanted = partition_variance(copies, Y, **given)
    monkeypatch.setattr(Delayed, "__array__", None)
    found = partition_variance(virtual, Y, **given)
    for name in ("total", "unique", "shared", "total_folds", "unique_folds"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-9, err_msg=name)


@pytest.mark.parametrize("space", SHAPES)
def test_what_no_row_is_a_copy_of_may_hold_anything(space):
    virtual, copies, Y, runs = make(*SHAPES[space])
    w = np.ones(len(Y))
    w[4:8] = 0  # row 5 is copied to rows 4, 5, 6 and 7
    base = virtual["sound"].parts[0].base_sw.copy()
    base[5, 1] = np.nan
    virtual["sound"], plain = delay(base, SOUND, runs, copy=False), copies["plain"].copy()
    plain[6, 2], virtual["plain"] = np.inf, plain
    plain[6, 2] = np.inf
    given = {"n_iter": 2, "random_state": 0, "alphas": ALPHAS, "cv": 3}
    assert_same(banded_ridge_cv(virtual, Y, sample_weight=w, **given), banded_ridge_cv(copies, Y, sample_weight=w, **given))
    assert np.isnan(base[5, 1]) and np.isinf(plain[6, 2])
    p = virtual["sound"].shape[1]
    with pytest.raises(InputError, match=rf"what columns 0 to {p - 1} of X are copies of holds 1 .* \(nan\) at row 5, column 1;"):
        banded_ridge_cv(virtual, Y, **given)


@pytest.mark.parametrize("space", SHAPES)
@pytest.mark.parametrize("xp", [torch, array_api_strict])
def test_on_a_device(xp, space, monkeypatch):
    virtual, copies, Y, _ = make(*SHAPES[space], v=3)
    w = np.random.default_rng(4).uniform(0.3, 2, len(Y)) * (np.arange(len(Y)) % 8 > 0)
    for search in ("random", "gradient"):
        given = {"search": search, "n_iter": 2, "n_steps": 4, "random_state": 0, "alphas": ALPHAS, "cv": 3, "sample_weight": w}
        wanted = banded_ridge_cv(copies, Y, **given)
        with monkeypatch.context() as patch:
            patch.setattr(ridge, "device_for", lambda *_: plain_device(xp))
            patch.setattr(Delayed, "__array__", None)
            found = banded_ridge_cv(virtual, Y, **given)
        assert found.stats["moments"]
        X = np.hstack(list(copies.values()))
        assert_same(found, wanted) if search == "random" else assert_alike(found, wanted, X, Y, w)


def test_shapes_that_do_not_fit_are_named():
    virtual, _, Y, _ = make(*SHAPES["dual"])
    with pytest.raises(InputError, match="band 'words' has 10 rows and band 'sound' has 36"):
        banded_ridge_cv({**virtual, "words": virtual["words"].take(np.arange(10))}, Y)
    with pytest.raises(InputError, match="add up to 30 and X has 36 features; delays count too"):
        banded_ridge_cv(virtual["sound"], Y, bands=[12, 18])
    parts = "3 copies of 12 columns beside 1 copies of 3 columns"
    assert repr(Delayed.side_by_side([virtual["sound"], virtual["plain"]])) == f"<Delayed 36 x 39 float64, {parts}>"
