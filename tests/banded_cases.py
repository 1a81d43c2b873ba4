"""Problems with bands that tests share.

Legend: p = features, b = bands, v = voxels, i = candidates.
"""

from __future__ import annotations

import numpy as np

ALPHAS = np.logspace(-1, 3, 7)


def problem(n=60, widths=(5, 8, 4), v=7, dtype=np.float64, seed=0, scale=None):
    """(X, Y, widths): a third of the voxels noise, the others from one or two bands."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, sum(widths))) * np.repeat(np.ones(len(widths)) if scale is None else scale, widths) + 0.3
    edges = np.cumsum([0, *widths])
    Y = rng.standard_normal((n, v))
    for i in range(v):
        for b in (i % len(widths), (i // 2) % len(widths)):
            if i % 3:
                part = X[:, edges[b] : edges[b + 1]]
                Y[:, i] += part @ rng.standard_normal(widths[b]) / part.std()
    return X.astype(dtype), (Y + 2).astype(dtype), list(widths)


def gammas_for(n_bands, seed=0):
    """Corners (bands switched off), an edge and samples, not normalised."""
    rng = np.random.default_rng(seed)
    return np.vstack([np.eye(n_bands), rng.dirichlet(np.ones(n_bands), 3), 3 * rng.random((2, n_bands))])
