"""What tests of devices share, with a card and without: problems, the loop's entry, and what counts as the same."""

from __future__ import annotations

import numpy as np

import fastencode
from fastencode.progress import progress
from fastencode.solve.given.targets import Targets
from fastencode.solve.score.choose import Choice
from fastencode.solve.weights.device import fit_on

ALPHAS = np.logspace(-1, 4, 9)
# (rows, features, folds): one of each form, and both kinds of operators in one plan.
ROUGH = [(np.arange(40, 200), np.arange(0, 40)), (np.arange(0, 190), np.arange(190, 200))]
FORMS = {
    "apart": (200, 7, 4),
    "apart, overlapping": (200, 7, [(np.delete(np.arange(200), slice(s, s + 50)), np.arange(s, s + 40)) for s in (0, 30, 120)]),
    "train": (80, 150, 2),
    "whole": (60, 7, 5),
    "whole, tiny": (60, 7, 20),
    "mixed": (200, 7, ROUGH),
}


def make(n, p, v=13, dtype=np.float64, seed=0):
    rng = np.random.default_rng([n, p, v, seed])
    X = rng.standard_normal((n, p)) + rng.uniform(-3, 3, p)
    Y = X @ rng.standard_normal((p, v)) / np.sqrt(p) + rng.uniform(0.3, 3, v) * rng.standard_normal((n, v)) + 5.0
    return X.astype(dtype), Y.astype(dtype)


def both(device, X, Y, *, scoring="r2", per_target=True, skip=False, keep=True, width=None, there=False, rule="best", **options):
    """The fit of the CPU, and results and account of the loop for devices."""
    plan = fastencode.plan_ridge(X, alphas=ALPHAS, **options)
    fit = plan.fit(Y, scoring=scoring, per_target=per_target, nan_targets="skip" if skip else "raise", rule=rule)
    return fit, *on_device(device, plan._plan, Y, scoring, per_target, skip, keep, width, there, rule)


def on_device(device, plan, Y, scoring="r2", per_target=True, skip=False, keep=True, width=None, there=False, rule="best"):
    plan = getattr(plan, "_plan", plan)
    targets = Targets.check(Y, plan.problem.n_given, plan.problem.kept)
    if there:
        targets = Targets(device.put(Y), len(Y), targets.n_voxels, targets.one, device.library, plan.problem.kept, device)
    with progress(desc="fit", total=1, enabled=False) as bar:
        choice = Choice.check(plan.problem, targets.n_voxels, per_target, rule)
        return fit_on(device, plan, targets, scoring, skip, choice, bar, keep, width)[:2]


def assert_same(fit, arrays, dtype, scale=1.0):
    """Scores to 1e-5 or 1e-10 of their size, the same penalties, weights to rounding."""
    tolerance = scale * (1e-5 if dtype == np.float32 else 1e-10)
    for name, found in arrays.items():
        if found is None:
            assert getattr(fit, name) is None, name
            continue
        found, wanted = np.asarray(found), np.asarray(getattr(fit, name))
        assert found.shape == wanted.shape and found.dtype == wanted.dtype, name
        if name in ("alpha", "alphas", "at_edge"):
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        else:
            allowed = 4 * tolerance if name == "fold_scores" else tolerance  # rounding that a mean over folds evens out
            np.testing.assert_allclose(found, wanted, rtol=allowed, atol=allowed, err_msg=name)
