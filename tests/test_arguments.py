"""Arguments that would be taken for something else, or end in another library's error: named, with the next step."""

from __future__ import annotations

import numpy as np
import pytest

import fastencode
from fastencode import InputError
from fastencode.solve.given.folds import check_runs, resolve_folds
from fastencode.threads import limit_threads

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 4)), RNG.standard_normal((30, 2))
ROWS = np.arange(30)


def ridge(**options):
    return fastencode.ridge_cv(X, Y, **options)


def plan(**options):
    return fastencode.plan_ridge(X, **options)


def fit_of_plan(**options):
    return fastencode.plan_ridge(X).fit(Y, **options)


def banded(**options):
    return fastencode.banded_ridge_cv(X, Y, **{"bands": [2, 2], "n_iter": 2, **options})


FLAGS = {
    ridge: ("per_target", "fit_intercept", "progress"),
    plan: ("fit_intercept",),
    fit_of_plan: ("per_target", "progress"),
    banded: ("per_target", "fit_intercept", "progress"),
}


@pytest.mark.parametrize("wrong", ["no", 0, 1, None, np.array([True])], ids=repr)
@pytest.mark.parametrize("call,name", [(call, name) for call, names in FLAGS.items() for name in names])
def test_truth_values(call, name, wrong):
    with pytest.raises(InputError, match=f"^{name}=.*; pass True or False$"):
        call(**{name: wrong})


def test_truth_values_of_numpy_are_taken():
    fit = ridge(per_target=np.bool_(False), fit_intercept=np.False_, progress=np.False_)
    assert len(set(fit.alpha)) == 1 and not fit.intercept.any()
    parts = banded().predict(X, split=np.True_)
    assert parts.shape == (2, 30, 2)
    for call in (banded().predict, lambda X, split: banded().score(X, Y, split=split)):
        with pytest.raises(InputError, match="split='no'; pass True or False"):
            call(X, split="no")


def test_arguments_are_checked_before_planning(monkeypatch):
    monkeypatch.setattr("fastencode.solve.ridge.make_plan", lambda *_, **__: pytest.fail("planned"))
    for wrong in ({"per_target": "no"}, {"nan_targets": "omit"}, {"progress": "yes"}):
        with pytest.raises(InputError):
            ridge(**wrong)


@pytest.mark.parametrize("wrong", ["x", -1, 1.5, [1, -2], object()], ids=lambda value: type(value).__name__)
def test_seeds(wrong):
    for call in (banded, lambda **seed: fastencode.chunk_bootstrap(30, 2, 3, 2, **seed)):
        with pytest.raises(InputError, match="^random_state=.*; pass None, an integer of at least 0 or a numpy.random.Generator"):
            call(random_state=wrong)


def test_numbers():
    for wrong in ("a", -1, np.nan, True, [0.1]):
        with pytest.raises(InputError, match="^early_stopping=.*; pass a gain in score, not negative, or None"):
            banded(early_stopping=wrong)
    assert banded(early_stopping=np.float32(0.1), n_steps=np.int64(2)).coef.shape == (4, 2)
    for wrong in ("a", 0, 2.5, None, True):
        with pytest.raises(InputError, match="^n_steps=.*; pass a positive number of evaluations"):
            banded(n_steps=wrong)
        with pytest.raises(InputError, match="^n=.*; pass a positive number of threads"), limit_threads(wrong):
            pass
    with limit_threads(np.int64(1)):
        pass


def test_alphas_that_are_none():
    for call in (ridge, plan, banded):
        with pytest.raises(InputError, match="^alphas=None; pass positive penalties .*or leave alphas out"):
            call(alphas=None)


@pytest.mark.parametrize(
    "pair",
    [
        (ROWS[:20], ROWS[20:]),
        [ROWS[:20], ROWS[20:]],
        (ROWS < 20, ROWS >= 20),
        (list(range(20)), list(range(20, 30))),
        ([0, 1], [2, 3]),
        (range(20), range(20, 30)),
    ],
    ids=["arrays", "list of arrays", "masks", "lists", "two rows each", "ranges"],
)
def test_a_single_pair_of_rows(pair):
    with pytest.raises(InputError, match=r"^cv is a single \(train, test\), not a list of them; pass cv=\[\(train, test\)\]"):
        ridge(cv=pair)
    with pytest.raises(
        InputError, match=r"^outer is a single \(train, test\), not a list of them; pass outer=\[\(train, test\)\]"
    ):
        fastencode.partition_variance(X, Y, bands=[2, 2], outer=pair)
    (train, test), *rest = resolve_folds([pair], 30, None)
    assert not rest and len(train) and len(test) and not set(train) & set(test)
    assert len(resolve_folds([pair, pair], 30, None)) == 2
    assert len(resolve_folds((pair, pair), 30, None)) == 2


@pytest.mark.parametrize(
    "outer", ["x", None, True, 1, 31, [], 3.5, "runs", [(ROWS, ROWS)], [(ROWS[:5], ROWS[5:] + 9)], [ROWS]], ids=str
)
def test_errors_of_outer_folds_name_outer(outer):
    with pytest.raises(InputError, match="outer") as error:
        fastencode.partition_variance(X, Y, bands=[2, 2], outer=outer)
    assert "cv" not in str(error.value)


@pytest.mark.parametrize("runs", [[1, "1", "a"], ["a", b"a", "b"], (1.5, "x", "x"), [True, "a", "a"]], ids=repr)
def test_labels_of_several_kinds(runs):
    with pytest.raises(InputError, match="runs mixes labels of kinds .*; pass all numbers or all strings"):
        check_runs(runs)


def test_labels_of_one_kind():
    for runs in (
        ["b", "a", "b"],
        [np.str_("b"), "a", "b"],
        (2, 1, 2),
        [2, 1.0, 2],
        np.array(["b", "a", "b"]),
        [b"b", b"a", b"b"],
    ):
        assert check_runs(runs).tolist() == [0, 1, 0]
    for missing in ([1.0, np.nan], np.array([1.0, np.nan], dtype=object), np.array(["2020-01-01", "NaT"], dtype="M8[D]")):
        with pytest.raises(InputError, match="runs holds .* at row 1; label every row"):
            check_runs(missing)


def test_one_row_to_predict():
    fit = ridge()
    with pytest.raises(InputError, match=r"X has shape \(4,\); pass X\[None\] for a single row"):
        fit.predict(X[0])
    with pytest.raises(InputError, match=r"X has shape \(3,\); pass \(time, 4\), as the fit has 4 features"):
        fit.predict(X[0, :3])
    assert fit.predict(X[0][None]).shape == (1, 2)
    single = fastencode.ridge_cv(X[:, :1], Y)
    with pytest.raises(InputError, match=r"pass X\[:, None\] for a single feature"):
        single.predict(X[:, 0])
    with pytest.raises(InputError, match=r"pass X\[:, None\] for a single feature"):
        fastencode.ridge_cv(X[:, 0], Y)
