"""Ridge with cross-validated penalties as on a blackboard: float64, everything refitted. Imports nothing of ours."""

from __future__ import annotations

import numpy as np


def weights(X, y, alpha, intercept):
    """(coef, constant) of one series at one penalty."""
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    mean_x = X.mean(axis=0) if intercept else np.zeros(X.shape[1])
    mean_y = y.mean() if intercept else 0.0
    if intercept and np.ptp(y) == 0:
        return np.zeros(X.shape[1]), y[0]
    C = X - mean_x
    coef = np.linalg.solve(C.T @ C + alpha * np.eye(X.shape[1]), C.T @ (y - mean_y))
    return coef, mean_y - mean_x @ coef


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
    """(alphas, voxels): mean over folds of the held-out score, one fit for each fold, penalty and voxel."""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    out = np.zeros((len(alphas), Y.shape[1]))
    for train, test in folds:
        for a, alpha in enumerate(alphas):
            for v in range(Y.shape[1]):
                coef, constant = weights(X[train], Y[train, v], alpha, intercept)
                if scoring == "pearson":  # does not change with the constant, but beside it small predictions lose their digits
                    constant = 0.0
                out[a, v] += SCORES[scoring](Y[test, v], X[test] @ coef + constant)
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
