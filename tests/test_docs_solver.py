"""The formulas of docs/solver.md in plain NumPy, section by section; and that its names, constants and numbers are today's.

The identities are evaluated without the package: what they are compared with is least squares of [√w X; √α I], refitted.
"""

from __future__ import annotations

import importlib
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "solver.md").read_text(encoding="utf-8")
EPS32 = float(np.finfo(np.float32).eps)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small matrices: waking a second thread would take most of the time."""
    with threadpool_limits(1):
        yield


def refit(X, Y, w, alpha, center):
    """(coef, constant) of weighted ridge: least squares of the rows √w [X, 1] above the rows [√α I, 0]."""
    n, p = X.shape
    ones = np.full((n, 1), float(center))
    rows = np.vstack([np.sqrt(w)[:, None] * np.hstack([X, ones]), np.eye(p, p + 1) * np.sqrt(alpha)])
    found = np.linalg.lstsq(rows, np.vstack([np.sqrt(w)[:, None] * Y, np.zeros((p, Y.shape[1]))]), rcond=None)[0]
    return found[:-1], found[-1] * center


class Symbols:
    """The symbols of section 1, from a singular value decomposition of X̌."""

    def __init__(self, X, Y, w, alpha, tau, center):
        self.w, self.o, self.alpha = w, np.sqrt(w), alpha
        self.mean_x, self.mean_y = (w @ A / w.sum() if center else np.zeros(A.shape[1]) for A in (X, Y))
        self.rows, self.y = (self.o[:, None] * (A - mean) for A, mean in ((X, self.mean_x), (Y, self.mean_y)))
        U, size, Vt = np.linalg.svd(self.rows, full_matrices=False)
        keep = size > 1e-12 * size[0]
        self.U, self.lam, self.V = U[:, keep], size[keep] ** 2, Vt[keep].T
        self.tau = min(tau, self.lam[0])
        self.U_tau = self.U * np.sqrt(self.lam / (self.lam + self.tau))
        self.D = (self.lam + self.tau) / (self.lam + alpha)
        self.c = self.U_tau.T @ self.y
        self.s = w.sum()
        self.o_center = self.o * float(center)  # zeros without an intercept: every term with o then vanishes
        self.H = np.outer(self.o_center, self.o_center) / self.s + (self.U_tau * self.D) @ self.U_tau.T
        self.complete = len(self.lam) == len(X) - center

    def fold(self, left):
        """(U_L, R, ȳ_T about the mean of all, c_f, s_T, o_L)."""
        o, U = self.o_center[left], self.U_tau[left]
        mass = self.s - self.w[left].sum()
        mean = -o @ self.y[left] / mass
        c_f = self.c - U.T @ (self.y[left] - np.outer(o, mean))
        return U, (np.eye(len(self.s * self.w)) - self.H)[np.ix_(left, left)], mean, c_f, mass, o


def data(n=40, p=12, v=3, seed=0, weighted=True, spread=0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * np.logspace(0, -spread, p) + 1.0
    Y = X @ rng.standard_normal((p, v)) + rng.standard_normal((n, v)) + 2.0
    return X, Y, rng.uniform(0.3, 3.0, n) if weighted else np.ones(n)


def test_section_2_coordinates_contract_and_predict_and_weigh_at_any_penalty():
    X, Y, w = data(p=20, spread=6)  # condition 1e6: in a float32 Gram nothing would be left of the smallest directions
    for alpha in (1e-3, 1.0, 1e3):
        the = Symbols(X, Y, w, alpha, 1e-3, True)
        coef, constant = refit(X, Y, w, alpha, True)
        weights = the.V @ (the.c * (np.sqrt(the.lam + the.tau) / (the.lam + alpha))[:, None])
        np.testing.assert_allclose(weights, coef, rtol=1e-6, atol=1e-9)
        fitted = the.U_tau @ (the.D[:, None] * the.c) / the.o[:, None] + the.mean_y
        np.testing.assert_allclose(fitted, X @ coef + constant, rtol=1e-8)
        assert (np.sqrt(the.lam + the.tau) / (the.lam + alpha)).max() <= 1 / np.sqrt(alpha) and the.D.max() <= 1
    rounded = the.U_tau.astype(np.float32).T @ the.y.astype(np.float32)
    error = np.linalg.norm(rounded - the.c, axis=0) / np.linalg.norm(the.y, axis=0)
    assert np.linalg.norm(the.U_tau, 2) < 1 and error.max() < 4 * EPS32


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("p", [12, 60])  # fewer and more features than rows
def test_section_3_both_systems_all_forms_and_all_maps_are_the_refit(p, weighted, center):
    X, Y, w = data(p=p, weighted=weighted)
    left = np.array([3, 4, 5, 6, 20, 39])
    train = np.setdiff1d(np.arange(len(X)), left)
    for alpha in (0.1, 50.0):
        coef, constant = refit(X[train], Y[train], w[train], alpha, center)
        wanted = X[left] @ coef + constant
        the = Symbols(X, Y, w, alpha, 0.1, center)
        U, R, mean, c_f, mass, o = the.fold(left)
        D, lam, tau, y_left = the.D, the.lam, the.tau, the.y[left]

        def held_out(f, the=the, mean=mean):
            """ŷ_L from f: add the mean of the training responses, undo the roots of weights."""
            return f / the.o[left, None] + mean + the.mean_y

        y_T = the.y[train] - np.outer(the.o_center[train], mean)
        np.testing.assert_allclose(c_f, the.U_tau[train].T @ y_T, atol=1e-10)
        np.testing.assert_allclose(held_out(np.linalg.solve(R, U * D) @ c_f), wanted, atol=1e-7)
        # The r × r system.
        G, half = U.T @ (np.eye(len(left)) + np.outer(o, o) / mass) @ U, np.sqrt(D)
        small = np.eye(len(lam)) - half[:, None] * G * half
        held = (U + np.outer(o, o @ U) / mass) * half
        np.testing.assert_allclose(held_out(held @ np.linalg.solve(small, half[:, None] * c_f)), wanted, atol=1e-7)
        # whole: all of c, and a block beside it; the second way is for a complete basis only.
        y_about = y_left - np.outer(o, mean)
        whole = np.linalg.solve(R, U @ (D[:, None] * the.c) - (U * D) @ (U.T @ y_about))
        np.testing.assert_allclose(held_out(whole), wanted, atol=1e-7)
        assert the.complete == (p > len(X))
        if the.complete:
            np.testing.assert_allclose(R, (U * (D * alpha / lam)) @ U.T, atol=1e-10)
            whole = y_about - np.linalg.solve(R, U @ ((D * alpha / lam)[:, None] * the.c))
            np.testing.assert_allclose(held_out(whole), wanted, atol=1e-7)
            across = -np.linalg.solve(R, (U * (D * alpha / lam)) @ the.U_tau[train].T)
            np.testing.assert_allclose(held_out(across @ y_T), wanted, atol=1e-7)
        # train, by R⁻¹ H_L,train.
        np.testing.assert_allclose(held_out(np.linalg.solve(R, (U * D) @ the.U_tau[train].T) @ y_T), wanted, atol=1e-7)
        # rotated: the training rows' own directions.
        shrunk = np.sqrt(lam + tau)
        own, W = np.linalg.eigh(np.diag(lam) - shrunk[:, None] * G * shrunk)
        rows = ((U + np.outer(o, o @ U) / mass) * shrunk) @ W / np.sqrt(own + tau)
        turned = (W / np.sqrt(own + tau)).T @ (shrunk[:, None] * c_f)
        np.testing.assert_allclose(held_out(rows @ (((own + tau) / (own + alpha))[:, None] * turned)), wanted, atol=1e-7)


def test_section_3_the_condition_is_the_share_of_a_direction_that_training_rows_keep():
    X, Y, w = data()
    X[:4] *= 30.0
    the = Symbols(X, Y, w, 0.1, 0.1, True)
    left, train = np.arange(4), np.arange(4, len(X))
    _, R, *_ = the.fold(left)
    kappa = 1.0 / np.linalg.eigvalsh(R)[0]
    about = the.o[train, None] * (X[train] - w[train] @ X[train] / w[train].sum())
    kept, whole = (A.T @ A + the.tau * np.eye(X.shape[1]) for A in (about, the.rows))
    share = np.linalg.eigvals(np.linalg.solve(whole, kept)).real.min()
    assert kappa > 100 and 1 / kappa <= share * (1 + 1e-9) and share < 2 / kappa


def _float32_errors(p, boost, alpha, signal=1.0):
    """(κ, ‖map from training responses‖, largest error of each form in float32 over max(rms y, rms ŷ)), with ten rows left out
    whose features are ``boost`` times as large."""
    rng = np.random.default_rng(0)
    n, m = 90, 10
    X = rng.standard_normal((n, p))
    X[:m] *= boost
    Y = rng.standard_normal((n, 20)) + signal * (X @ rng.standard_normal((p, 20)))
    the, left, train = Symbols(X, Y, np.ones(n), alpha, alpha, True), np.arange(m), np.arange(m, n)
    U, R, mean, _, _, o = the.fold(left)
    about, mean_x = X[train] - X[train].mean(axis=0), X[train].mean(axis=0)
    coef, _ = refit(about, the.y[train] - mean, np.ones(n - m), alpha, False)
    wanted = (X[left] - mean_x) @ coef
    norm = the.tau / (the.lam[-1] + the.tau) if the.complete else 1.0
    if the.complete:
        R = (U * (the.D * alpha / the.lam)) @ U.T  # as it is, and as it is computed without cancellation
    kappa = norm / np.linalg.eigvalsh(R)[0]

    def f32(a):
        return np.asarray(a, dtype=np.float32)

    c, y_left = f32(the.U_tau).T @ f32(the.y), f32(the.y[left]) - f32(mean)
    inner = c - f32(U).T @ f32(the.y[left]) + f32(np.outer(o @ U, mean))
    apart = f32(np.linalg.solve(R, U * the.D)) @ inner
    if the.complete:
        residual = f32(U) @ (f32(the.D * alpha / the.lam / norm)[:, None] * c)
        whole = y_left - f32(np.linalg.inv(R) * norm) @ residual
        by_train = -np.linalg.solve(R, (U * (the.D * alpha / the.lam)) @ the.U_tau[train].T)
    else:
        whole = f32(np.linalg.inv(R)) @ (f32(U) @ (f32(the.D)[:, None] * c)) - f32(np.linalg.solve(R, (U * the.D) @ U.T)) @ y_left
        by_train = (X[left] - mean_x) @ np.linalg.solve(about.T @ about + alpha * np.eye(p), about.T)
    found = {"apart": apart, "whole": whole, "train": f32(by_train) @ f32(the.y[train] - mean)}
    unit = max(np.sqrt((the.y**2).mean()), np.sqrt((wanted**2).mean()))
    return kappa, np.linalg.norm(by_train, 2), {form: np.abs(f - wanted).max() / unit for form, f in found.items()}


@pytest.mark.parametrize("p, boost, alpha", [(30, 10.0, 1.0), (30, 60.0, 1.0), (79, 1.0, 0.1), (79, 1.0, 1e-3)])
def test_section_3_digits_lost_by_each_form(p, boost, alpha):
    kappa, size, lost = _float32_errors(p, boost, alpha)
    assert 100 < kappa < 1e5 and size <= np.sqrt(kappa)
    for form in ("apart", "whole"):
        assert 0.3 * kappa * EPS32 < lost[form] < 10 * kappa * EPS32  # as many as the page says, and no more
    assert lost["train"] < 10 * np.sqrt(kappa) * EPS32


@pytest.mark.parametrize("boost, alpha", [(1.0, 1.0), (10.0, 1.0), (60.0, 1.0), (1.0, 1e-3)])
def test_section_3_digits_lost_by_each_form_of_a_complete_basis(boost, alpha):
    kappa, size, lost = _float32_errors(120, boost, alpha)
    assert kappa > 10 and size <= np.sqrt(kappa)
    assert max(lost["whole"], lost["train"]) < 40 * EPS32 and lost["apart"] > 10 * lost["whole"]


def test_section_4_interpolation_in_the_penalty_and_its_bound():
    X, Y, _ = data(n=60, p=20, v=4, weighted=False)
    left, train = np.arange(15), np.arange(15, 60)
    about, y = X[train] - X[train].mean(axis=0), Y[train] - Y[train].mean(axis=0)
    held, target = X[left] - X[train].mean(axis=0), Y[left] - Y[train].mean(axis=0)
    U, size, Vt = np.linalg.svd(about, full_matrices=False)
    lam, top = size**2, 1.3 * size[0] ** 2
    grid, nodes = np.logspace(-1, 5, 40), np.logspace(-1, 5, 40)[::6]

    def curves(at, alphas):
        return at[:, None] / (at[:, None] + alphas) * (1 + alphas / top)

    def predictions(alphas):
        return np.stack([(1 + a / top) * held @ Vt.T @ ((size / (lam + a))[:, None] * (U.T @ y)) for a in alphas])

    sample = np.geomspace(lam[-1], lam[0], 2000)
    mix = np.linalg.lstsq(curves(sample, nodes), curves(sample, grid), rcond=1e-15)[0]  # (k, a)
    error = np.abs(curves(sample, nodes) @ mix - curves(sample, grid)).max(axis=0)
    exact, few = predictions(grid), predictions(nodes)
    off = np.linalg.norm(np.einsum("ka,kmv->amv", mix, few) - exact, axis=1)  # (a, v)
    bound = 1.01 * error[:, None] * np.linalg.norm(held @ np.linalg.pinv(about), 2) * np.linalg.norm(y, axis=0)
    assert 0 < error.max() < 0.1 and (off <= bound + 1e-12).all() and (off > 1e-4 * bound).any()
    # Every score of every penalty from the moments of the nodes.
    series = np.concatenate([target[None], few])
    means, gram = series.mean(axis=1), np.einsum("imv,jmv->ijv", series - series.mean(axis=1, keepdims=True), series)
    yp, pp = np.einsum("ka,kv->av", mix, gram[1:, 0]), np.einsum("ia,ja,ijv->av", mix, mix, gram[1:, 1:])
    combined, mean_p = np.einsum("ka,kmv->amv", mix, few), np.einsum("ka,kv->av", mix, means[1:])
    scale, yy = (1 + grid / top)[:, None], gram[0, 0]
    squares = yy - 2 * yp / scale + pp / scale**2 + len(left) * (means[0] - mean_p / scale) ** 2
    plain = combined / scale[:, :, None]
    np.testing.assert_allclose(squares, ((target - plain) ** 2).sum(axis=1), rtol=1e-9)
    wanted = [[np.corrcoef(target[:, v], plain[a, :, v])[0, 1] for v in range(4)] for a in range(len(grid))]
    np.testing.assert_allclose(yp / np.sqrt(yy * pp), wanted, atol=1e-8)


def test_section_5_a_segment_needs_fewer_products_than_the_spectrum():
    lam, alphas, tau, allowed = np.geomspace(1e-2, 1e6, 480), np.logspace(0, 5, 20), 1.0, 1e-6
    scale = 1 + alphas / lam[-1]
    values = (lam + tau) * scale[:, None] / (lam + alphas[:, None])  # (k, r)
    weight = lam / (lam + tau)
    np.testing.assert_allclose(values * weight, lam / (lam + alphas[:, None]) * scale[:, None])

    def few(some):
        """Fewest curves of a segment, greedily, that give all of them within the allowed error: (which, mix)."""
        A, chosen = (values[:, some] * weight[some]).T, [0]
        while True:
            mix = np.linalg.lstsq(A[:, chosen], A, rcond=1e-15)[0]
            error = np.abs(A[:, chosen] @ mix - A)
            if error.max() <= allowed:
                return chosen, mix
            chosen.append(int(error.max(axis=0).argmax()))

    pieces = [np.arange(a, b) for a, b in pairwise(range(0, 481, 60))]
    cut = [(some, *few(some)) for some in pieces]
    assert sum(len(chosen) * len(some) for some, chosen, _ in cut) < 0.8 * len(few(np.arange(480))[0]) * 480
    rng = np.random.default_rng(0)
    direction, c = (rng.standard_normal(480) * np.sqrt(weight) for _ in range(2))  # a row of U_τ, coordinates
    exact = values @ (direction * c)
    mixed = sum(mix.T @ (values[np.ix_(chosen, some)] @ (direction * c)[some]) for some, chosen, mix in cut)
    assert np.abs(mixed - exact).max() <= allowed * np.abs(direction * c / weight).sum()


def test_section_6_dual_weights_and_the_map_that_may_wait():
    X, Y, w = data(n=20, p=50)
    the = Symbols(X, Y, w, 3.0, 0.5, True)
    coef, constant = refit(X, Y, w, 3.0, True)
    right = the.U_tau * (np.sqrt(the.lam + the.tau) / the.lam)
    np.testing.assert_allclose(the.rows.T @ right, the.V, atol=1e-10)
    omega = the.U_tau @ (the.c * ((the.lam + the.tau) / (the.lam * (the.lam + 3.0)))[:, None])
    np.testing.assert_allclose(the.rows.T @ omega, coef, atol=1e-9)
    np.testing.assert_allclose(the.mean_y - the.mean_x @ coef, constant, atol=1e-9)


class Banded:
    """Two bands, one fold: δ → predictions and score, by the dual and by the primal."""

    def __init__(self):
        rng = np.random.default_rng(1)
        X, self.y = rng.standard_normal((30, 9)), rng.standard_normal(30)
        self.band, train, self.test = np.repeat([0, 1], [4, 5]), np.arange(20), np.arange(20, 30)
        self.X = X[train] - X[train].mean(axis=0)
        self.held = X[self.test] - X[train].mean(axis=0)
        self.t, self.target = self.y[train] - self.y[train].mean(), self.y[self.test] - self.y[train].mean()
        self.bands = [self.band == b for b in range(2)]
        self.K = [self.X[:, b] @ self.X[:, b].T for b in self.bands]
        self.P = [self.held[:, b] @ self.X[:, b].T for b in self.bands]

    def A(self, delta):
        return np.eye(20) + sum(d * K for d, K in zip(delta, self.K, strict=True))

    def across(self, delta):
        return sum(d * P for d, P in zip(delta, self.P, strict=True))

    def score(self, f):
        return 1 - ((self.target - f) ** 2).sum() / ((self.target - self.target.mean()) ** 2).sum()

    def score_slope(self, f):
        return 2 * (self.target - f) / ((self.target - self.target.mean()) ** 2).sum()

    def score_at(self, log_delta):
        delta = np.exp(log_delta)
        return self.score(self.across(delta) @ np.linalg.solve(self.A(delta), self.t))


def test_section_7_scaled_grams_and_the_two_systems_are_banded_ridge():
    the, gamma, alpha = Banded(), np.array([0.7, 0.2]), 2.0
    delta, root = gamma / alpha, np.sqrt(gamma)[the.band]
    rows = np.vstack([the.X, np.diag(np.sqrt(alpha / gamma[the.band]))])
    wanted = np.linalg.lstsq(rows, np.r_[the.t, np.zeros(9)], rcond=None)[0]
    gram = (the.X.T @ the.X) * root * root[:, None]
    scaled = root * np.linalg.solve(gram + alpha * np.eye(9), root * (the.X.T @ the.t))
    omega = np.linalg.solve(the.A(delta), the.t)
    primal = np.linalg.solve(the.X.T @ the.X + np.diag(1 / delta[the.band]), the.X.T @ the.t)
    for found in (scaled, delta[the.band] * (the.X.T @ omega), primal):
        np.testing.assert_allclose(found, wanted, atol=1e-10)
    np.testing.assert_allclose(the.across(delta) @ omega, the.held @ wanted, atol=1e-10)


def test_section_7_slopes_by_the_adjoint_are_those_of_finite_differences():
    the, at, step = Banded(), np.log([0.3, 0.05]), 1e-5
    wanted = [(the.score_at(at + e) - the.score_at(at - e)) / (2 * step) for e in step * np.eye(2)]
    delta = np.exp(at)
    omega = np.linalg.solve(the.A(delta), the.t)
    s = the.score_slope(the.across(delta) @ omega)
    h = np.linalg.solve(the.A(delta), the.across(delta).T @ s)
    found = [d * (s @ P @ omega - h @ K @ omega) for d, P, K in zip(delta, the.P, the.K, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    B = the.X.T @ the.X + np.diag(1 / delta[the.band])
    theta, eta = np.linalg.solve(B, the.X.T @ the.t), np.linalg.solve(B, the.held.T @ s)
    np.testing.assert_allclose([(theta * eta)[b].sum() / d for b, d in zip(the.bands, delta, strict=True)], wanted, rtol=1e-6)


def test_section_7_a_cell_bounds_the_spectrum_and_the_steps():
    the, centre, distance = Banded(), np.array([0.4, 0.02]), 3.0
    for signs in ([1, 1], [1, -1], [-1, 0.5]):
        A = the.A(centre * np.exp(distance * np.array(signs)))
        spectrum = np.linalg.eigvals(np.linalg.solve(the.A(centre), A)).real
        assert np.exp(-distance) <= spectrum.min() and spectrum.max() <= np.exp(distance)
    root = np.exp(distance)  # of the condition e^(2 · 3)
    assert np.log(2 / 1e-8) / np.log((root + 1) / (root - 1)) < 192


def test_section_7_the_corrected_score_is_off_by_the_product_of_both_residuals():
    the, delta, rng = Banded(), np.array([0.3, 0.05]), np.random.default_rng(2)
    A, across = the.A(delta), the.across(delta)
    omega = np.linalg.solve(A, the.t)
    exact, push_x, push_h = the.score(across @ omega), rng.standard_normal(20), rng.standard_normal(20)
    plain, corrected = [], []
    for size in (1e-2, 1e-3):
        x = omega + size * push_x
        right = across.T @ the.score_slope(across @ x)
        h = np.linalg.solve(A, right) + size * push_h
        plain.append(abs(the.score(across @ x) - exact))
        corrected.append(abs(the.score(across @ x) + h @ (the.t - A @ x) - exact))
    assert plain[0] / plain[1] < 15 and 60 < corrected[0] / corrected[1] < 140


def test_section_8_bfloat16_parts_leave_out_what_the_page_says():
    def to_bfloat16(x):
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)

    x, y = np.random.default_rng(0).standard_normal((2, 100_000)).astype(np.float32).astype(np.float64)

    def parts(a):
        first = to_bfloat16(a)
        second = to_bfloat16(a - first)
        return first, second, to_bfloat16(a - first - second)

    (x0, x1, x2), (y0, y1, y2) = parts(x), parts(y)
    assert (x0 + x1 + x2 == x).all()
    three, two = x0 * y0 + x0 * y1 + x1 * y0 + x0 * y2 + x1 * y1 + x2 * y0, x0 * y0 + x0 * y1 + x1 * y0
    off_three, off_two = (np.abs(sums / (x * y) - 1).max() for sums in (three, two))
    assert 2.0**-25 < off_three < 2 * 2.0**-24 and 2.0**-17 < off_two < 3 * 2.0**-16


def test_section_8_sums_about_the_first_row_lose_little():
    rng = np.random.default_rng(0)
    for n in (2, 10, 300):
        z = rng.standard_normal(n) ** 3 + 1e6
        assert ((z - z[0]) ** 2).sum() <= (n + 1) * ((z - z.mean()) ** 2).sum() * (1 + 1e-9)


def _constants():
    """(module, name, text of the value) of every row of section 9's tables."""
    section = PAGE.partition("## 9")[2]
    return [(m[1], m[2], m[3]) for m in re.finditer(r"^\| `([\w.]+)\.(\w+)` \| `([^`]+)` \|", section, re.MULTILINE)]


def test_section_9_lists_todays_constants():
    rows = _constants()
    assert len(rows) > 30
    for module, name, text in rows:
        value = eval(text, {"__builtins__": {}})
        assert getattr(importlib.import_module(f"fastencode.solve.{module}"), name) == value, f"{module}.{name}"


def _section_9():
    """On one line, since numbers may stand on both sides of a break."""
    return " ".join(PAGE.partition("## 9")[2].split())


def _results(name):
    return json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_section_9_quotes_what_plans_cost():
    said, (regrets, beside, decomposing) = _section_9(), ([], [], [])
    for row in [row for name in ("", "-large", "-fracridge") for row in _results("plan-regret" + name)["rows"]]:
        if row["regret"] is None:
            continue
        regrets.append(row["regret"])
        seconds = {name: one["at_full_size"] for name, one in row["strategies"].items() if "at_full_size" in one}
        chosen = seconds.pop(row["chosen"])
        if row["regret"] == 1.0:
            beside.append(min(seconds.values()) / chosen)
        n, p = row["full"]["n"], row["full"]["p"]
        side = n if row["chosen"] == "dual" else p
        nominal = ((2 * n * p * side + 2 * n * p * min(n, p)) / 3.5e10 + 9 * side**3 / 2.5e10) / 2
        decomposing.append(float(re.search(r"took decompose ([\d.]+) s", row["plan"])[1]) / nominal)
    assert f"{regrets.count(1.0)} of {len(regrets)} workloads" in said and f"{max(regrets):.2f} ×" in said
    assert f"{min(beside):.2f} to {max(beside):.2f} ×" in said
    *usual, slowest = sorted(decomposing)
    assert f"{usual[0]:.2f} to {usual[-1]:.2f} of the nominal" in said and f"{slowest:.1f} × in the one" in said
    huth, fracridge = (
        next(row["strategies"] for row in _results(name)["rows"] if row["name"] == case)
        for name, case in (("plan-regret", "huth"), ("plan-regret-fracridge", "fracridge"))
    )
    assert f"{huth['dual, whole']['at_full_size'] / huth['dual']['at_full_size']:.2f} × of *train*" in said
    assert f"{fracridge['primal, whole']['at_full_size'] / fracridge['primal']['at_full_size']:.2f} × of its time" in said


def test_section_9_quotes_what_was_measured():
    said = _section_9()
    product = _results("micro_product")
    gains = [rates["three parts"][1] / rates["BLAS"][1] for rates in (row["gflops_q25_median_q75"] for row in product["product"])]
    assert f"{min(gains[1:]):.2f} to {max(gains):.2f}" in said and f"{gains[0]:.2f}" in said
    plain = product["product"][3]["gflops_q25_median_q75"]["three parts"][1]
    slower = [plain / row["gflops_q25_median_q75"]["three parts"][1] for row in product["shrunk"]]
    assert product["product"][3]["shape"] == [800, 1000, 768] and f"{min(slower):.2f} to {max(slower):.2f}" in said
    peaks, width = {}, {}
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        points = found.get("points") if isinstance(found, dict) else None
        for point in points if isinstance(points, list) else []:
            if (peak := point.get("sgemm_peak")) is None or found["device"] != "cpu":
                continue
            cpu, by = found["machine"]["cpu"].split()[0], peak["by_shape"]
            peaks.setdefault(cpu, []).append(peak["gflops"] / found["threads"])
            for wide in (512, 1536):
                width.setdefault(wide, []).append(by[f"3000 x 1000 x {wide}"] / by["3000 x 1000 x 768"])
    for rates in peaks.values():
        assert f"{min(rates):.0f} to {max(rates):.0f} GFLOP/s" in said
    for ratios in width.values():
        assert f"{min(ratios):.2f} to {max(ratios):.2f}" in said
    summary = _results("accuracy")["summary"]
    for kind in ("float32 exact", "float64 exact"):
        assert f"{summary[kind]['max_score_difference']:.1e}" in said
    rows = [row["gradient"]["refined"]["seconds"] for row in _results("banded-gradient")["rows"]]
    shares = [one["inverses"] / (one["inverses"] + one["climb"]) for one in rows]
    assert f"{min(shares):.0%} to {max(shares):.0%}" in said


def test_every_file_and_link_of_the_page_exists():
    files = set(re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|pyx|cu|cuh|hpp|json|md))`", PAGE))
    places = [ROOT / "src" / "fastencode" / "solve", ROOT / "src" / "fastencode", ROOT, ROOT / "bench" / "results"]
    assert len(files) > 25
    assert [name for name in sorted(files) if not any((place / name).exists() for place in places)] == []
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def _modules_with_algebra():
    rooms = [ROOT / "src" / "fastencode" / "solve" / room for room in ("given", "plan")]
    files = [path for room in rooms for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
    kernels = [path for stem in ("moments", "product") for path in sorted((ROOT / "kernels").glob(f"{stem}*"))]
    return files + [path for path in kernels if path.suffix in (".pyx", ".cu", ".cuh", ".hpp")]


@pytest.mark.parametrize("path", _modules_with_algebra(), ids=lambda path: path.name)
def test_modules_cite_a_section_of_the_page(path):
    sections = set(re.findall(r"^## (\d+) ", PAGE, re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    top = text.split('"""')[1] if path.suffix in (".py", ".pyx") else re.match(r"(//.*\n)+", text)[0]
    cited = re.findall(r"docs/solver\.md, (\d+)", top)
    assert cited and set(cited) <= sections
