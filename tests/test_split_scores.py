"""Scores divided among the parts of a prediction, as functions of predictions.

Legend: b = parts, t = time, v = voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from himalaya.scoring import correlation_score_split, r2_score_split

from banded_cases import ALPHAS, problem
from fastencode import InputError, banded_ridge_cv, pearson, r2

pytestmark = pytest.mark.filterwarnings("ignore::fastencode.FastencodeWarning")


def parts_of(seed=0, b=3, t=50, v=6):
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((b, t, v)) + rng.standard_normal((b, 1, v))
    return rng.standard_normal((t, v)) + parts.sum(axis=0), parts


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_product_measure_by_loops_and_by_himalaya(dtype):
    Y, parts = parts_of()
    parts -= parts.mean(axis=1, keepdims=True)
    Y -= Y.mean(axis=0)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for score, other in ((r2, r2_score_split), (pearson, correlation_score_split)):
        found = score(Y.astype(dtype), parts.astype(dtype), split=True)
        assert found.shape == (3, 6) and found.dtype == dtype
        np.testing.assert_allclose(found, other(Y, parts), atol=tolerance)
    for v in range(6):
        y, whole = Y[:, v], parts[:, :, v].sum(axis=0)
        wanted = [sum((2 * y[i] - whole[i]) * part[i, v] for i in range(50)) / sum(y**2) for part in parts]
        np.testing.assert_allclose(r2(Y, parts, split=True)[:, v], wanted, atol=1e-12)


@pytest.mark.parametrize("score", [r2, pearson])
def test_parts_add_up_whatever_the_means(score):
    Y, parts = parts_of()
    Y[:, 1] = 3.0
    parts[:, :, 2] = 1.5
    np.testing.assert_allclose(score(Y, parts, split=True).sum(axis=0), score(Y, parts.sum(axis=0)), atol=1e-12)
    assert not score(Y, parts, split=True)[:, 1].any()
    one = score(Y[:, 0], parts[:, :, 0], split=True)
    np.testing.assert_allclose(one, score(Y, parts, split=True)[:, 0], atol=1e-14)
    there = score(torch.from_numpy(Y), torch.from_numpy(parts), split=True)
    assert isinstance(there, torch.Tensor)
    np.testing.assert_allclose(there, score(Y, parts, split=True), atol=1e-14)


@pytest.mark.parametrize("name", ["r2", "pearson"])
def test_as_a_fit_divides_its_score(name):
    X, Y, widths = problem(80, (5, 8, 4))
    X -= X[:50].mean(axis=0)
    fit = banded_ridge_cv(X[:50], Y[:50], bands=widths, n_iter=4, random_state=0, alphas=ALPHAS)
    parts = fit.predict(X[50:], split=True)
    found = r2(Y[50:], parts, split=True, intercept=fit.intercept) if name == "r2" else pearson(Y[50:], parts, split=True)
    np.testing.assert_allclose(found, fit.score(X[50:], Y[50:], name, split=True), atol=1e-10)
    np.testing.assert_allclose(found.sum(axis=0), fit.score(X[50:], Y[50:], name), atol=1e-10)


def test_other_shapes_are_refused():
    Y, parts = parts_of()
    with pytest.raises(InputError, match="with split=True pass parts of predictions"):
        r2(Y, parts[0], split=True)
    with pytest.raises(InputError, match=r"Y has shape \(49, 6\) and P \(50, 6\)"):
        r2(Y[1:], parts, split=True)
    with pytest.raises(InputError, match="intercept has shape"):
        r2(Y, parts, split=True, intercept=np.ones(5))
    with pytest.raises(InputError, match="split='yes'"):
        pearson(Y, parts, split="yes")
    with pytest.raises(InputError, match="1 values that are NaN"):
        pearson(Y, np.where(parts == parts[0, 0, 0], np.nan, parts), split=True)
