"""Ridge regression with a penalty for each voxel, chosen by cross-validation: a plan of X, then the tiles of Y.

The way from here to the innermost loop; what is indented is called by the line above it (docs/solver.md has the algebra):

    ridge_cv                            here
      make_plan                         plan/plan.py      X only: one decomposition, operators of all folds
      fit_plan                          ridge_plan.py     responses checked, results put together; RidgePlan.fit begins here
        fit_on_host                     weights/ridge.py  one pass of the responses, or two for one penalty for all voxels
          Reader.run                    score/tiles.py    the loop over tiles of voxels, in threads; calls, for each,
            RidgeSweep.score_and_refit  weights/ridge.py  what is done with a tile: score, choose, weigh
              Sweep.score               score/scorer.py
                FoldScorer.score        score/scorer.py   coordinates, then fold by fold: predictions (plan/maps.py) to
                  FoldScorer._fold_scores                 moments (kernels/moments.pyx, whose loop is moments_loop.hpp), moments
                                                          to scores (score/moments.py)
              choose_alphas             score/choose.py   each voxel's penalty
              RidgeSweep._refit         weights/ridge.py  its weights

On a device ``weights/device.py``, ``score/device_tiles.py``, ``score/device_scorer.py`` and ``score/device_moments.py`` stand in
for the sweep, the loop, the scorer and the kernel.

A new score needs a formula of these moments (docs/solver.md, 4) in ``score_moments``, its slopes in ``score_slopes``, and a look
at every place that names "pearson". A place that names squared errors only takes all other scores for free of units.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastencode.arrays import column_names, dtype_of
from fastencode.devices import DeviceLike
from fastencode.solve.given.folds import CrossValidator
from fastencode.solve.given.problem import DEFAULT_ALPHAS, Problem
from fastencode.solve.given.targets import Targets, check_nan_targets
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_fit import RidgeFit
from fastencode.solve.ridge_plan import RidgePlan, check_options, fit_plan
from fastencode.solve.weights.features import map_of

__all__ = ["plan_ridge", "ridge_cv"]


def ridge_cv(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    alphas: ArrayLike = DEFAULT_ALPHAS,
    cv: CrossValidator = 5,
    runs: ArrayLike | None = None,
    gap: int = 0,
    scoring: str = "r2",
    per_target: bool = True,
    rule: str = "best",
    cv_predictions: bool = False,
    weights: str | None = "primal",
    fit_intercept: bool = True,
    precision: str = "exact",
    device: DeviceLike = None,
    memory: int | str | None = None,
    progress: bool = False,
    sample_weight: ArrayLike | None = None,
    nan_targets: str = "raise",
) -> RidgeFit:
    """Ridge regression of every voxel on X, each at the penalty that predicts its held-out rows best.

    Parameters
    ----------
    X : (t, p) array, NumPy, torch or CuPy, data frame, or :func:`fastencode.delay`'s copies that are not made
        Features. Never written to. Columns of a data frame are told by their names in ``predict`` and ``score``. An
        X on a card is copied to the host's memory. ``delay(..., copy=False)`` saves the memory of the copies, and the work of all
        but one of their kernels where there are more columns than rows.
    Y : (t, v) or (t,) array (NumPy, torch or CuPy), memory map or h5py dataset
        Responses. Read in tiles, never written to.
    alphas : (A,) array-like
        Penalties, the weight on ‖b‖² (scikit-learn's). Codes whose penalty is a square root of that, such as the Huth lab's
        ``ridge.py``, want ``alphas ** 2`` here. Positive; sorted and freed of duplicates, see ``RidgeFit.alphas``. With
        ``cv=None`` they are given penalties, (v,) in the order of the voxels or a single one for all.
    cv : int, "runs", splitter, list of (train, test), "gcv" or None
        An int is that many contiguous blocks, or with ``runs`` whole runs, balanced; ``"runs"`` leaves one run out; anything
        with ``split(X, y, groups)``, which gets Y as y and the runs as groups; or explicit indices. Test sets may overlap, repeat
        rows and need not cover them. Scores are averaged over folds: each counts as much, whatever its number of rows. (Leave one
        out with sample weights, too: a row's weight is in the fits that train on it, not in the mean of scores.) None chooses
        nothing: weights are fitted at the penalties that ``alphas`` gives, as by scikit-learn's ``Ridge(alpha=array)`` (its
        ``RidgeCV(cv=None)`` leaves out one row at a time); ``runs`` are not used then.
    runs : (t,) array-like, optional
        Run label of every row.
    gap : int
        Rows on either side of a held-out row, in its run, that the fold does not train on: neighbors in time resemble each other,
        so a model that has seen them scores too high. 0 leaves out none.
    scoring : {"r2", "pearson", "neg_mean_squared_error"}
        R² of a constant target and Pearson with a constant target or prediction are 0.
    per_target : bool
        False chooses one penalty for all voxels, by their mean score.
    rule : {"best", "one-se"}
        "best" is the penalty of the best mean score. "one-se" is the largest whose mean score is within one standard error of
        that, s / √f, with s the standard deviation (ddof = 1) of the best penalty's scores over f ≥ 2 folds; with
        ``per_target=False``, of each fold's mean over voxels. (himalaya's ``conservative`` takes s itself, with ddof = 0.)
    cv_predictions : bool
        Whether to keep held-out predictions of every voxel at its penalty, ``RidgeFit.cv_predictions``. Folds are predicted
        twice then; never in reduced precision. On the CPU only.
    weights : {"primal", "dual", None}
        Which weights to keep. "dual" keeps one for each row, (t, v), and X itself, in place of one for each feature. With many
        more features than rows that takes t / p of the memory; ``predict`` and ``score`` never make the others. None keeps only
        penalties and scores. "dual" and None are computed on the CPU only. With "dual" the fit shares the memory of X where the
        dtype allows: changing X later changes what it predicts.
    fit_intercept : bool
        Whether to fit a constant, which is not penalised.
    precision : {"exact", "fast"}
        "exact" is accurate to the dtype, whatever the units of the columns. With scales up to 1e12 apart, weights (times their
        column's scale) are within 1e-8 of the largest in float64 and 2e-5 in float32, and scores within 1e-6 in float64 and about
        1e-5 in float32, as long as X is not so close to collinear that its own rounding decides. Where rounding of the Gram would
        hide what the smallest penalty keeps, X itself is decomposed, at about ten times the cost (``stats["decomposed"]``).
        Directions of X are left out only where their length is rounding. Pearson with predictions that all but vanish (α far
        above every eigenvalue) is less accurate, where there are more rows than features.
        "fast" may score float32 in reduced precision, and fits weights as in "exact": on a CUDA device predictions are products
        in TF32; on a CPU with matrix tiles (Intel AMX), products of numbers in two bfloat16 parts, off by 3 · 2⁻¹⁶. On other CPUs
        it computes the same as "exact".
    device : None, "cpu", "cuda" or such as "cuda:1"
        Where to compute. None is where X or Y lies: torch tensors and CuPy arrays on a CUDA device are computed
        there, by their own library and without a copy of Y, everything else on the CPU. ``"cuda"`` takes arrays of the host there
        tile by tile, through CuPy if that is installed, else torch (for torch tensors the other way round), and brings the result
        back. A card adds in another order than a CPU: results agree to rounding. On it, an error for NaN in Y comes at the end.
        Plans are made there too, except where X has fewer than 256 rows or features, where the columns differ so much in scale
        that X itself must be decomposed, and where the card's memory is too small.
    memory : int or str, optional
        Working memory in bytes or as text ("2GB"), beyond X, Y and the weights; on the device, if there is one. ``"auto"`` is
        70 % of the free memory of the host, a control group's limit included. A result that is larger than the free memory is an
        error before anything is planned, which says what would fit.
    progress : bool
        Show a progress bar on standard error.
    sample_weight : (t,) array-like, optional
        Weight of every row in the fit and in the held-out scores, not normalised: an integer weight counts as that many copies. A
        row of weight zero is left out altogether (a censored scan), whatever it holds; an int ``cv`` makes blocks of the others.
    nan_targets : {"raise", "skip"}
        What to do with voxels that hold NaN or infinite values: an error that counts them, or fit all others and return NaN for
        these (and 0 in ``at_edge``).

    Returns
    -------
    RidgeFit
        Float32 if X and Y are float32, else float64; torch or CuPy if X or Y is, and on their device. Scores within ``1e-6`` of a
        voxel's best are ties, and the largest penalty among them is chosen, in every precision. With given penalties there are
        no scores.

    Raises
    ------
    InputError
        For a bad argument: the message names the value and the next step.
    DeviceError
        If the device does not exist, or X, Y and ``device`` name different ones, or its memory cannot hold the result.

    Warns
    -----
    FastencodeWarning
        Once, at the line that called. If penalties beyond the grid would raise scores: with the number of voxels whose penalty is
        at an edge, that are predicted better than chance does it, and whose score rises by more than .01 over the last decade of
        the grid; or because all penalties are too large or too small. Other voxels at an edge are no reason, see ``at_edge``. And
        with the number of constant voxels, which score 0.

    References
    ----------
    Hoerl & Kennard (1970), Technometrics 12, 55-67; Dupré la Tour et al. (2022), NeuroImage 264, 119728.

    Examples
    --------
    >>> import numpy as np
    >>> import fastencode
    >>> rng = np.random.default_rng(0)
    >>> X, runs = rng.standard_normal((120, 10)), np.repeat(["a", "b", "c"], 40)
    >>> Y = X @ rng.standard_normal((10, 4)) + 3 * rng.standard_normal((120, 4))
    >>> fit = fastencode.ridge_cv(X, Y, alphas=np.logspace(-1, 4, 11), cv="runs", runs=runs)
    >>> fit.coef.shape, fit.alpha.shape, fit.cv_scores.shape
    ((10, 4), (4,), (11, 4))
    >>> fit.best_score.round(2)
    array([0.35, 0.67, 0.31, 0.34])
    >>> fit.predict(X[:5]).shape
    (5, 4)
    """
    skip = check_nan_targets(nan_targets)
    problem = Problem.check(
        X,
        alphas=alphas,
        cv=cv,
        runs=runs,
        gap=gap,
        fit_intercept=fit_intercept,
        precision=precision,
        device=device,
        memory=memory,
        sample_weight=sample_weight,
        response_dtype=dtype_of(Y, "Y"),
        responses=Y,
        may_be_given=True,
        may_be_gcv=True,
    )
    targets = Targets.check(Y, problem.n_given, problem.kept)
    options: dict[str, Any] = {
        "scoring": scoring,
        "per_target": per_target,
        "rule": rule,
        "cv_predictions": cv_predictions,
        "weights": weights,
        "progress": progress,
    }
    there = check_options(problem, targets, skip=skip, **options)  # before minutes of planning, not after
    plan = make_plan(problem, n_voxels=targets.n_voxels, scoring=scoring, device=there)
    return fit_plan(plan, Y, nan_targets=nan_targets, feature_names=column_names(X), **options)


def plan_ridge(
    X: ArrayLike,
    *,
    alphas: ArrayLike = DEFAULT_ALPHAS,
    cv: CrossValidator = 5,
    runs: ArrayLike | None = None,
    gap: int = 0,
    fit_intercept: bool = True,
    precision: str = "exact",
    device: DeviceLike = None,
    memory: int | str | None = None,
    sample_weight: ArrayLike | None = None,
) -> RidgePlan:
    """Do everything about a ridge problem that depends on X only, once, for any number of responses.

    Parameters
    ----------
    X : (t, p) array, NumPy or torch, or :func:`fastencode.delay`'s copies that are not made
        Features. Float32 is computed and stored in float32 (planning in float64), everything else in float64. Never written to.
        A plan keeps a map to weights, with more features than rows as large as X with all its copies; a single
        :func:`fastencode.ridge_cv` makes do without. Directions of X are left out only where their length is
        rounding; see ``precision`` of :func:`fastencode.ridge_cv`.
    alphas : (A,) array-like
        Penalties, the weight on ‖b‖² (scikit-learn's). Codes whose penalty is a square root of that, such as the Huth lab's
        ``ridge.py``, want ``alphas ** 2`` here. Positive; sorted and freed of duplicates.
    cv : int, "runs", splitter, list of (train, test) or "gcv"
        An int is that many contiguous blocks, or with ``runs`` whole runs, balanced; ``"runs"`` leaves one run out; anything
        with ``split(X, y, groups)``; or explicit indices. Test sets may overlap and need not cover the rows. "gcv" needs none.
    runs : (t,) array-like, optional
        Run label of every row.
    gap : int
        Rows on either side of a held-out row, in its run, that the fold does not train on: neighbors in time resemble each other,
        so a model that has seen them scores too high. 0 leaves out none.
    fit_intercept : bool
        Whether to fit a constant, which is not penalised.
    precision : {"exact", "fast"}
        "exact" is accurate to the dtype. "fast" may score in reduced precision, as in :func:`fastencode.ridge_cv`.
    device : None, "cpu", "cuda" or such as "cuda:1"
        Where the plan is made and responses are computed, as in :func:`fastencode.ridge_cv`. What a plan keeps is in the host's
        memory.
    memory : int or str, optional
        Working memory in bytes or as text ("2GB"), beyond X, Y and the weights. Decides how much is done at once, and whether a
        strategy is possible; never changes a result except through the strategy.
    sample_weight : (t,) array-like, optional
        Weight of every row in the fit and in the held-out scores, not normalised: an integer weight counts as that many copies. A
        row of weight zero is left out altogether (a censored scan), whatever it holds; an int ``cv`` makes blocks of the others.

    Returns
    -------
    RidgePlan

    Raises
    ------
    InputError
        For a bad argument: the message names the value and the next step.
    DeviceError
        If the device does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> import fastencode
    >>> rng = np.random.default_rng(0)
    >>> X, runs = rng.standard_normal((120, 10)), np.repeat(["a", "b", "c"], 40)
    >>> Y = X @ rng.standard_normal((10, 4)) + 3 * rng.standard_normal((120, 4))
    >>> plan = fastencode.plan_ridge(X, alphas=np.logspace(-1, 4, 11), cv="runs", runs=runs)
    >>> plan
    <RidgePlan 120 x 10 float64, 3 folds, 11 alphas, primal>
    >>> [plan.fit(responses).coef.shape for responses in (Y, Y[:, :3])]  # two participants who heard the same
    [(10, 4), (10, 3)]
    """
    problem = Problem.check(
        X,
        alphas=alphas,
        cv=cv,
        runs=runs,
        gap=gap,
        fit_intercept=fit_intercept,
        precision=precision,
        device=device,
        memory=memory,
        sample_weight=sample_weight,
        may_be_gcv=True,
    )
    plan = make_plan(problem)
    map_of(plan)  # now, not in the first fit
    return RidgePlan(plan, column_names(X))
