"""Intrinsic dimensions of known manifolds, and against scikit-dimension where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.study.dimension import participation_ratio, twonn, twonn_decimated


def flat(n: int, d: int, p: int = 100, seed: int = 0) -> np.ndarray:
    """A d-dimensional Gaussian in p dimensions."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ np.linalg.qr(rng.standard_normal((p, p)))[0][:d]


def path(n: int, d: int, smooth: int, seed: int = 0) -> np.ndarray:
    """A smooth path through d dimensions, in 50."""
    rng = np.random.default_rng(seed)
    kernel = np.exp(-0.5 * (np.arange(-4 * smooth, 4 * smooth + 1) / smooth) ** 2)
    series = np.stack([np.convolve(rng.standard_normal(n + 8 * smooth), kernel, "valid") for _ in range(d)], axis=1)
    return series @ rng.standard_normal((d, 50))


@pytest.mark.parametrize("d", [1, 2, 5, 8])
def test_a_gaussian_has_its_dimension(d: int) -> None:
    values = [twonn(flat(2000, d, seed=seed)) for seed in range(4)]
    assert np.mean(values) == pytest.approx(d, rel=0.07)
    assert participation_ratio(flat(2000, d)) == pytest.approx(d, rel=0.02)


def test_curved_manifolds_have_theirs_and_more_variance() -> None:
    """A roll of 2 dimensions, and a circle, whose variance takes 2."""
    rng = np.random.default_rng(0)
    t = rng.uniform(3, 9, 3000)
    roll = np.c_[t * np.cos(t), t * np.sin(t), rng.uniform(0, 10, 3000)]
    assert twonn(roll) == pytest.approx(2, rel=0.07)
    circle = np.c_[np.cos(t), np.sin(t)]
    assert twonn(circle) == pytest.approx(1, rel=0.07)
    assert participation_ratio(circle) > 1.9


def test_scikit_dimension_agrees() -> None:
    pytest.importorskip("skdim")
    import skdim

    for d in (2, 10):
        X = flat(600, d)
        assert twonn(X) == pytest.approx(skdim.id.TwoNN().fit(X).dimension_, rel=1e-6)
        assert twonn(X, discard=0.3) == pytest.approx(skdim.id.TwoNN(discard_fraction=0.3).fit(X).dimension_, rel=1e-6)
        wanted = skdim.id.lPCA(ver="participation_ratio").fit(X).dimension_
        assert participation_ratio(X) == pytest.approx(wanted, rel=1e-9)


def test_twonn_is_the_line_through_the_origin() -> None:
    """All distances, least squares by NumPy; more rows than a tile, a large mean that would cancel."""
    X = flat(1100, 4, 10) + 1000
    distance = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distance, np.inf)
    first, second = np.sort(distance, axis=1)[:, :2].T
    log_ratio = np.sort(np.log(second / first))[:990]
    wanted = np.linalg.lstsq(log_ratio[:, None], -np.log(1 - np.arange(1, 991) / 1100), rcond=None)[0][0]
    assert twonn(X) == pytest.approx(wanted, rel=1e-8)
    assert np.isfinite(twonn(X, discard=0.0))


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_participation_ratio_is_that_of_the_eigenvalues(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(0).standard_normal(shape) * np.arange(1, shape[1] + 1) + 5
    power = np.linalg.eigvalsh(np.cov(X.T))
    assert participation_ratio(X) == pytest.approx(power.sum() ** 2 / (power**2).sum(), rel=1e-10)
    assert participation_ratio(X.astype(np.float32)) == pytest.approx(participation_ratio(X), rel=1e-5)


def test_scale_rotation_shift_repeats_and_constants_do_not_matter() -> None:
    X = flat(300, 3, 6)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    other = np.c_[np.r_[X, X[:50]] @ turn * 1e-3 + 7, np.full(350, 2.0)]
    assert twonn(other) == pytest.approx(twonn(X), rel=1e-6)
    assert participation_ratio(X @ turn * 1e-3 + 7) == pytest.approx(participation_ratio(X), rel=1e-6)


def test_rows_in_time_need_decimation() -> None:
    X = path(6000, 3, 10)
    assert twonn(X) > 5
    found = twonn_decimated(X, 40)
    assert found.value == pytest.approx(3, abs=0.4)
    assert (found.n_rows, len(found.each)) == (150, 8)
    assert found.value == pytest.approx(np.mean(found.each))
    assert found.sd == pytest.approx(np.std(found.each, ddof=1))
    assert found.each[0] == twonn(X[::40])
    one = twonn_decimated(X, 1)
    assert one.value == twonn(X)
    assert np.isnan(one.sd)
    assert len(twonn_decimated(X, 3).each) == 3


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((40, 3)), "constant"),
        (flat(19, 2), "19 rows differ"),
        (np.repeat(flat(19, 2), 5, axis=0), "19 rows differ"),
        (np.where(np.eye(40) > 0, np.nan, 1.0), "first in row 0"),
        (np.arange(40.0), "rows × columns"),
        (np.stack(np.meshgrid(*[np.arange(6.0)] * 2), axis=-1).reshape(-1, 2), "grid"),
    ],
    ids=["constant", "few", "few that differ", "nan", "one axis", "grid"],
)
def test_input_is_checked(X: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        twonn(X)


def test_arguments_are_checked() -> None:
    X = flat(100, 2)
    with pytest.raises(InputError, match="discard=1"):
        twonn(X, discard=1)
    for step in (0, 1.5, True):
        with pytest.raises(InputError, match="step"):
            twonn_decimated(X, step)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="10 rows differ"):
        twonn_decimated(X, 10)
    for wrong in (np.ones((5, 2)), np.zeros((1, 2)), np.full((5, 2), np.inf)):
        with pytest.raises(InputError):
            participation_ratio(wrong)
