"""Ridge with cross-validated penalties as on a blackboard: float64, everything refitted. Imports nothing of ours."""

from __future__ import annotations

import numpy as np


def weights(X, y, alpha, intercept):
    """(coef, constant) at one penalty of one series (rows,) or of several (rows, voxels)."""
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    mean_x = X.mean(axis=0) if intercept else np.zeros(X.shape[1])
    mean_y = y.mean(axis=0) if intercept else 0.0
    C = X - mean_x
    coef = np.linalg.solve(C.T @ C + alpha * np.eye(X.shape[1]), C.T @ (y - mean_y))
    constant = np.ptp(y, axis=0) == 0 if intercept else np.zeros(y.shape[1:], dtype=bool)
    coef = np.where(constant, 0.0, coef)
    return coef, np.where(constant, y[0], mean_y - mean_x @ coef)


def r2(y, p):
    y, p = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if np.ptp(y) == 0:
        return 0.0
    return 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2)


def pearson(y, p):
    y, p = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if np.ptp(y) == 0 or np.ptp(p) == 0:
        return 0.0
    y, p = y - y.mean(), p - p.mean()
    return np.sum(y * p) / np.sqrt(np.sum(y * y) * np.sum(p * p))


def neg_mean_squared_error(y, p):
    return -np.mean((np.asarray(y, dtype=np.float64) - np.asarray(p, dtype=np.float64)) ** 2)


SCORES = {"r2": r2, "pearson": pearson, "neg_mean_squared_error": neg_mean_squared_error}


def cv_scores(X, Y, alphas, folds, scoring, intercept):
    """(alphas, voxels): mean over folds of the held-out score, one fit for each fold and penalty."""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    out = np.zeros((len(alphas), Y.shape[1]))
    for train, test in folds:
        for a, alpha in enumerate(alphas):
            coef, constant = weights(X[train], Y[train], alpha, intercept)
            if scoring == "pearson":  # does not change with the constant, but beside it small predictions lose their digits
                constant = 0.0
            P = X[test] @ coef + constant
            out[a] += [SCORES[scoring](Y[test, v], P[:, v]) for v in range(Y.shape[1])]
    return out / len(folds)


def weighted_weights(X, y, alpha, intercept, w):
    """As :func:`weights`, where row i counts w[i] times; y may be one series (rows,) or several (rows, voxels)."""
    X, y, w = (np.asarray(a, dtype=np.float64) for a in (X, y, w))
    if intercept:
        X, penalty = np.column_stack([X, np.ones(len(X))]), np.append(np.full(X.shape[1], alpha), 0.0)
    else:
        penalty = np.full(X.shape[1], alpha)
    found = np.linalg.solve(X.T @ (w[:, None] * X) + np.diag(penalty), (X.T * w) @ y)
    return (found[:-1], found[-1]) if intercept else (found, 0.0)


def weighted_score(scoring, y, p, w):
    """A score in which row i counts w[i] times."""
    y, p, w = (np.asarray(a, dtype=np.float64) for a in (y, p, w))
    if scoring == "neg_mean_squared_error":
        return -np.sum(w * (y - p) ** 2) / np.sum(w)
    dy, dp = y - np.sum(w * y) / np.sum(w), p - np.sum(w * p) / np.sum(w)
    if scoring == "r2":
        return 1 - np.sum(w * (y - p) ** 2) / np.sum(w * dy**2)
    return np.sum(w * dy * dp) / np.sqrt(np.sum(w * dy**2) * np.sum(w * dp**2))


def weighted_cv_scores(X, Y, alphas, folds, scoring, intercept, w):
    """As :func:`cv_scores`, where row i counts w[i] times in the fit and in the score."""
    out = np.zeros((len(alphas), Y.shape[1]))
    for train, test in folds:
        for a, alpha in enumerate(alphas):
            coef, constant = weighted_weights(X[train], Y[train], alpha, intercept, w[train])
            P = X[test] @ coef + constant
            out[a] += [weighted_score(scoring, Y[test, v], P[:, v], w[test]) for v in range(Y.shape[1])]
    return out / len(folds)


def moments(Y, P_k, weight=None):
    """(m, voxels): weighted means of [target, node 0, node 1, ...], then the lower triangle of their centered weighted sums."""
    series = [np.asarray(a, dtype=np.longdouble) for a in (Y, *P_k)]
    weight = np.ones(len(series[0])) if weight is None else weight
    weight = np.asarray(weight, dtype=np.longdouble)[:, None]
    means = [(weight * a).sum(axis=0) / weight.sum() for a in series]
    centered = [a - mean for a, mean in zip(series, means, strict=True)]
    sums = [(weight * centered[i] * centered[j]).sum(axis=0) for i in range(len(series)) for j in range(i + 1)]
    return np.array([*means, *sums], dtype=np.float64)
