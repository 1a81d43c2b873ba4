"""CKA and CCA against published values, naive formulas and scikit-learn; held-out CCA on planted pairs."""

from __future__ import annotations

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.study.representation import cca, cross_validated_cca, linear_cka, rbf_cka


def published() -> tuple[np.ndarray, np.ndarray]:
    """The pair of google-research/representation_similarity, Demo.ipynb, whose values are printed there."""
    random = np.random.RandomState(1337)
    X = random.randn(100, 10)
    return X, random.randn(100, 10) + X


def test_published_values() -> None:
    X, Y = published()
    assert round(linear_cka(X, Y), 5) == 0.55761
    assert round(linear_cka(X, Y, debiased=True), 5) == 0.51346
    assert round(rbf_cka(X, Y), 5) == 0.65483
    assert round(cca(X, Y, center=False), 5) == 0.54312  # that code takes no means out
    assert abs(cca(X, Y) - 0.54312) < 0.005


def naive_cka(K: np.ndarray, L: np.ndarray) -> float:
    """With the centering matrix written out."""
    H = np.eye(len(K)) - 1 / len(K)
    K, L = H @ K @ H, H @ L @ H
    return float(np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L)))


def naive_hsic(K: np.ndarray, L: np.ndarray) -> float:
    """Song et al. (2012), equation 5, as it stands there."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    middle = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return float((np.trace(K @ L) + middle - 2 / (n - 2) * one @ K @ L @ one) / (n * (n - 3)))


@pytest.mark.parametrize("shape", [(40, 5, 9), (40, 60, 9), (40, 60, 80)], ids=["columns", "one wide", "rows"])
def test_both_forms_are_the_definition(shape: tuple[int, int, int]) -> None:
    n, p, q = shape
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, p)) + 3, rng.standard_normal((n, q)) - 1
    Y[:, :3] += X[:, :3]
    K, L = X @ X.T, Y @ Y.T
    assert linear_cka(X, Y) == pytest.approx(naive_cka(K, L), rel=1e-10)
    debiased = naive_hsic(K, L) / np.sqrt(naive_hsic(K, K) * naive_hsic(L, L))
    assert linear_cka(X, Y, debiased=True) == pytest.approx(debiased, rel=1e-8)


def test_gaussian_kernels_are_those_of_scikit_learn() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    X, Y = published()
    kernels = []
    for values in (X, Y):
        median = np.median(pairwise.euclidean_distances(values, squared=True))
        kernels.append(pairwise.rbf_kernel(values, gamma=1 / (2 * 0.8**2 * median)))
    assert rbf_cka(X, Y, width=0.8) == pytest.approx(naive_cka(*kernels), rel=1e-9)
    unbiased = naive_hsic(*kernels) / np.sqrt(naive_hsic(kernels[0], kernels[0]) * naive_hsic(kernels[1], kernels[1]))
    assert rbf_cka(X, Y, width=0.8, debiased=True) == pytest.approx(unbiased, rel=1e-8)


def test_what_does_not_matter() -> None:
    """Rotation and scale for all; any linear map for CCA; a shift and float32 for none."""
    rng = np.random.default_rng(1)
    X, Y = published()
    turned = 7 * X @ np.linalg.qr(rng.standard_normal((10, 10)))[0] + 100
    for measure in (linear_cka, rbf_cka, cca):
        assert measure(turned, Y) == pytest.approx(measure(X, Y), rel=1e-9)
        assert measure(X, X) == pytest.approx(1)
        assert measure(X.astype(np.float32), Y.astype(np.float32)) == pytest.approx(measure(X, Y), rel=1e-5)
    mapped = X @ rng.standard_normal((10, 10))
    assert cca(mapped, Y) == pytest.approx(cca(X, Y), rel=1e-8)
    assert abs(linear_cka(mapped, Y) - linear_cka(X, Y)) > 0.01
    assert linear_cka(X, Y) == linear_cka(X.copy(), Y) == pytest.approx(linear_cka(Y, X))


def test_debiased_noise_is_about_zero() -> None:
    rng = np.random.default_rng(2)
    values = [[linear_cka(*rng.standard_normal((2, 50, 40)), debiased=wanted) for _ in range(40)] for wanted in (False, True)]
    assert np.mean(values[0]) > 0.4
    assert abs(np.mean(values[1])) < 3 * np.std(values[1]) / np.sqrt(40) < 0.02


def test_cca_is_that_of_scikit_learn() -> None:
    cross = pytest.importorskip("sklearn.cross_decomposition")
    X, Y = published()
    X = X[:, :3]
    scores = cross.CCA(n_components=3, max_iter=5000, tol=1e-12).fit(X, Y).transform(X, Y)
    squared = [np.corrcoef(scores[0][:, k], scores[1][:, k])[0, 1] ** 2 for k in range(3)]
    assert cca(X, Y) == pytest.approx(np.mean(squared), rel=1e-4)
    assert cca(np.c_[X, X[:, :2]], Y) == pytest.approx(cca(X, Y)), "repeated columns add no direction"


# -- held out


def naive_held_out(X: np.ndarray, Y: np.ndarray, share: float, n_folds: int, gap: int, k: int) -> np.ndarray:
    """Covariances and their inverse roots written out: no directions, no products of rows."""
    n, found = len(X), []
    for held in np.array_split(np.arange(n), n_folds):
        rest = np.array([row for row in range(n) if not held[0] - gap <= row <= held[-1] + gap])
        roots, centered = [], []
        for values in (X, Y):
            fit = values[rest] - values[rest].mean(axis=0)
            C = fit.T @ fit / len(rest)
            C = (1 - share) * C + share * np.trace(C) / len(C) * np.eye(len(C))
            power, V = np.linalg.eigh(C)
            roots.append(V @ np.diag(power**-0.5) @ V.T)
            centered.append((fit, values[held] - values[rest].mean(axis=0)))
        cross = centered[0][0].T @ centered[1][0] / len(rest)
        U, _, Vt = np.linalg.svd(roots[0] @ cross @ roots[1])
        a, b = centered[0][1] @ roots[0] @ U[:, :k], centered[1][1] @ roots[1] @ Vt[:k].T
        found.append([np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(k)])
    return np.array(found)


def planted(n: int, p: int, q: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three directions in common."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, 3))
    pair = [Z @ rng.standard_normal((3, width)) + noise * rng.standard_normal((n, width)) for width in (p, q)]
    return pair[0], pair[1]


@pytest.mark.parametrize("shape", [(120, 8, 12), (60, 90, 12), (12, 30, 40)], ids=["tall", "one wide", "both wide"])
def test_held_out_cca_is_the_canonical_ridge(shape: tuple[int, int, int]) -> None:
    n, p, q = shape
    X, Y = planted(n, p, q, 1.0)
    found = cross_validated_cca(X, Y, n_components=3, n_folds=3, gap=1 if n > 12 else 0, penalties=(0.2,))
    wanted = naive_held_out(X, Y, 0.2, 3, 1 if n > 12 else 0, 3)
    np.testing.assert_allclose(found.correlations, wanted, atol=1e-8)
    assert found.score == pytest.approx(wanted.mean())
    np.testing.assert_array_equal(found.penalty, 0.2)


def test_shared_directions_are_found_and_noise_is_not() -> None:
    X, Y = planted(400, 50, 300, 1.0)
    found = cross_validated_cca(X, Y, n_components=5, n_folds=4)
    assert found.correlations[:, :3].min() > 0.9
    assert np.abs(found.correlations[:, 3:].mean()) < 0.12
    noise = [
        cross_validated_cca(*np.random.default_rng(seed).standard_normal((2, 80, 100)), n_folds=4).score for seed in range(5)
    ]
    assert abs(np.mean(noise)) < 0.05
    assert cross_validated_cca(X, X, n_components=5).score == pytest.approx(1)


def test_the_gap_keeps_rows_beside_a_fold_out() -> None:
    """Rows 45–49 and 100–104 are no part of the fold of rows 50–99, in which nothing changes with them; one further it does."""
    X, Y = planted(200, 30, 30, 1.0)
    first = cross_validated_cca(X, Y, n_components=3, n_folds=4, gap=5)
    for rows, same in (((*range(45, 50), *range(100, 105)), True), ((44,), False), ((105,), False)):
        other = Y.copy()
        other[list(rows)] += 5
        second = cross_validated_cca(X, other, n_components=3, n_folds=4, gap=5)
        assert np.allclose(second.correlations[1], first.correlations[1], rtol=0, atol=1e-9) == same


def test_the_penalty_is_chosen_inside_each_fold() -> None:
    """What lies in the held-out fold does not matter for its penalty."""
    X, Y = planted(200, 30, 30, 2.0)
    first = cross_validated_cca(X, Y, n_components=3, n_folds=4, gap=2)
    other = Y.copy()
    other[50:100] = np.random.default_rng(9).standard_normal((50, 30))
    second = cross_validated_cca(X, other, n_components=3, n_folds=4, gap=2)
    assert first.penalty[1] == second.penalty[1]
    assert (first.correlations[1] != second.correlations[1]).all()
    shares = (0.001, 0.01, 0.1, 0.5)
    assert set(first.penalty) <= set(shares)


# -- bad input


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((9, 2)), "all columns of X are constant"),
        (np.full((9, 2), np.nan), "first in row 0"),
        (np.zeros(9), "rows × columns"),
        (np.zeros((8, 2)), "8 rows and Y has 9"),
    ],
)
def test_input_is_checked(X: np.ndarray, message: str) -> None:
    Y = np.random.default_rng(0).standard_normal((9, 2))
    for measure in (linear_cka, rbf_cka, cca, cross_validated_cca):
        with pytest.raises(InputError, match=message):
            measure(X, Y)


def test_arguments_are_checked() -> None:
    X, Y = published()
    with pytest.raises(InputError, match="fit anything"):
        cca(X[:8], Y[:8])
    with pytest.raises(InputError, match="at least 4"):
        linear_cka(X[:3], Y[:3], debiased=True)
    with pytest.raises(InputError, match="half of the rows"):
        rbf_cka(np.r_[np.zeros((90, 10)), X[:10]], Y)
    with pytest.raises(InputError, match="width=0"):
        rbf_cka(X, Y, width=0)
    for options in ({"n_folds": 1}, {"gap": -1}, {"n_components": 0}, {"n_folds": True}):
        with pytest.raises(InputError, match=next(iter(options))):
            cross_validated_cca(X, Y, **options)
    with pytest.raises(InputError, match="too few"):
        cross_validated_cca(X, Y, gap=60)
    for penalties in ((), (0.0,), (2.0,)):
        with pytest.raises(InputError, match="penalties"):
            cross_validated_cca(X, Y, penalties=penalties)
