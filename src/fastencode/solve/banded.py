"""Banded ridge regression: squares the bands, searches weights for them and penalties, and makes the weights of the features.

The algebra is in docs/solver.md, sections 6 and 7.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arguments import check_count, check_flag, check_random, check_real_number
from fastencode.arrays import F64, ResultArray, column_names, dtype_of, export, library_of, to_host
from fastencode.devices import HOST, Device, DeviceLike
from fastencode.errors import InputError
from fastencode.progress import progress as progress_bar
from fastencode.solve.banded_fit import BandedFit
from fastencode.solve.edges import edges_of_fit, tell_edges
from fastencode.solve.fit import versions
from fastencode.solve.given.bands import Bands, BandsLike, Design, Features, check_kernels, join
from fastencode.solve.given.candidates import given_penalties, make_candidates, with_equal_traces
from fastencode.solve.given.folds import CrossValidator
from fastencode.solve.given.problem import DEFAULT_ALPHAS, Problem
from fastencode.solve.given.targets import Targets, check_nan_targets
from fastencode.solve.plan.cost import choose
from fastencode.solve.plan.fold_plan import planned_on
from fastencode.solve.plan.grams import Grams, gram_bytes, make_grams
from fastencode.solve.plan.plan import make_plan
from fastencode.solve.ridge_fit import RidgeFit
from fastencode.solve.ridge_plan import fit_plan
from fastencode.solve.score.choose import TIE_TOLERANCE, check_test_rows
from fastencode.solve.score.device_tiles import device_for
from fastencode.solve.score.ends import Seen
from fastencode.solve.score.moments import check_scoring
from fastencode.solve.search.cells import warn_unsolved
from fastencode.solve.search.checkpoint import Checkpoint, fingerprint
from fastencode.solve.search.refine import refine, warn_uneven
from fastencode.solve.search.refit import Weights, refit, share
from fastencode.solve.search.search import Bases, run_search
from fastencode.solve.search.state import WINDOW, Chosen, Found, Settings
from fastencode.solve.search.systems import check_room, traces
from fastencode.threads import available_threads, limit_threads

__all__ = ["SEARCHES", "banded_ridge_cv"]

# Puts an array of a result into the library and onto the device that results go to.
Place = Callable[[NDArray[Any]], ResultArray]
# Of each search: candidates tried where n_iter is None, and whether every voxel then climbs by the gradient.
SEARCHES = {"random": (100, False), "gradient": (1, True), "auto": (10, True)}


def banded_ridge_cv(
    X: Features,
    Y: ArrayLike,
    *,
    bands: BandsLike | None = None,
    search: str = "random",
    n_iter: int | None = None,
    n_steps: int = 10,
    gammas: ArrayLike | None = None,
    concentration: ArrayLike = (0.1, 1.0),
    random_state: int | np.random.Generator | None = None,
    alphas: ArrayLike = DEFAULT_ALPHAS,
    cv: CrossValidator = 5,
    runs: ArrayLike | None = None,
    gap: int = 0,
    scoring: str = "r2",
    per_target: bool = True,
    fit_intercept: bool = True,
    precision: str = "exact",
    device: DeviceLike = None,
    memory: int | str | None = None,
    progress: bool = False,
    sample_weight: ArrayLike | None = None,
    nan_targets: str = "raise",
    early_stopping: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> BandedFit:
    """Ridge regression of every voxel on several bands of features, each band with the weight in the penalty that predicts best.

    With weights γ and penalty α, Σ_b α / γ_b ‖coef_b‖² is added to the squared error. Candidates γ are tried one after another,
    each with every α; the best pair of each voxel is kept. From there, every voxel can climb its held-out score by the gradient.
    With ``cv=None`` nothing is searched: every voxel is fitted at the weights and the penalty that are given for it.

    Parameters
    ----------
    X : (t, p) array, NumPy or torch; or name -> (t, p_b) array; or a list of such arrays; or kernels
        Features. For ``bands="precomputed"``, one (t, t) kernel (Gram) for each band: name -> kernel, or (b, t, t). Each band may
        have its own delays: ``{"sound": delay(A, (1, 2, 3), runs), "words": delay(W, range(1, 7), runs)}``; with ``copy=False``
        these copies are never made whole, and in the dual their kernels are summed from those of A and W. Never written to.
    Y : (t, v) or (t,) array, NumPy or torch, memory map or h5py dataset
        Responses. Read in tiles, once for each candidate; never written to.
    bands : mapping of name to width, slice, indices or mask; a sequence of those; (p,) labels; "precomputed"; or None
        Which columns of X are which band: each in one. Columns of a data frame may be given by name. None where X names its
        bands itself. ``...`` is all columns that no other band holds: ``{"words": slice(0, 80), "rest": ...}``. A sequence of p
        strings holds the label of each column's band; bands come in the order their labels first appear. A sequence of ints
        above 0 holds widths if it adds up to p; ints are labels (7 of "band 7") if there are p. p ones are both, so an error.
    search : {"random", "gradient", "auto"}
        "random" tries equal weights, equal traces, then samples of Dirichlet distributions, ``n_iter`` candidates together; or
        what ``gammas`` says. "gradient" starts from equal traces and lets every voxel find penalties of its own, one for each
        band, by the gradient of its held-out score. "auto" is a short random search, then that. Equal traces are weights
        γ_b = mean(T) / (B T_b) of B bands, where T_b is the sum of squares of the band's (centered) features: they undo the units
        of a band, which samples and equal weights do not. Standardised features make a random search better too.
    n_iter : int, optional
        Number of candidates: 100 for "random", 1 for "gradient" and 10 for "auto" if None.
    n_steps : int
        Evaluations of score and gradient that each voxel may take, for "gradient" and "auto". A voxel ends sooner where the next
        step promises less than 3e-5 (of R², correlation, or its variance).
    gammas : (i, b) array, "grid" or None; for ``cv=None`` (b, v) or (b,) array
        Candidates to try instead of samples: not negative, none all zero, not normalised. A band of weight 0 is switched off.
        ``"grid"`` is the finest regular grid on the simplex of at most ``n_iter`` points. For ``cv=None`` the weights that are
        fitted: a column for each voxel (as ``fit.gammas`` has them), or one weighting for all voxels.
    concentration : float or sequence of float
        Of the Dirichlet distributions, which samples take turns with: below 1 prefers few bands, 1 is uniform.
    random_state : None, int, numpy.random.Generator
        Seed or generator, as :func:`numpy.random.default_rng` takes it.
    alphas : (a,) array-like; for ``cv=None`` (v,) or a number
        Penalties, the weight on ‖b‖² (scikit-learn's) of a band of weight 1. Positive; sorted and freed of duplicates. For
        ``cv=None`` the penalty of each voxel (as ``fit.alpha`` has them), or one for all voxels.
    per_target : bool
        False takes one weighting and one penalty for all voxels, by their mean score (himalaya's ``local_alpha=False``).
    cv : int, "runs", splitter, list of (train, test), or None
        As in :func:`fastencode.ridge_cv`. None fits the ``gammas`` and ``alphas`` that are given for each voxel. Nothing is held
        out or scored: ``best_score`` is NaN, ``candidates`` and ``cv_scores`` are empty and ``at_edge`` is 0. ``search``,
        ``n_iter``, ``gap``, ``early_stopping`` and ``checkpoint`` do not apply. ``scoring`` is what ``fit.score`` computes.
    runs, gap, scoring, fit_intercept, precision, memory, progress, sample_weight, nan_targets
        As in :func:`fastencode.ridge_cv`. ``memory`` counts the Grams too.
    device : None, "cpu", "cuda" or such as "cuda:1"
        Where candidates are decomposed and scored, steps by the gradient made and weights multiplied, as in
        :func:`fastencode.ridge_cv`. Weights gather in the host's memory, and results go where X or Y lies.
    early_stopping : float, optional
        Stop once the last 10 candidates together raised the mean of the voxels' best scores by less than this. Samples are
        exchangeable, so as many more would bring no more than that, on average; ``stats["search"]`` has the gain.
    checkpoint : path-like, optional
        HDF5 file written after every candidate. A later call with the same arguments goes on from there, to the same result. It
        may have another ``memory``, ``device``, ``early_stopping``, ``nan_targets`` or ``n_steps``, and more candidates (a larger
        ``n_iter``, or more ``gammas`` after the same ones), with the same seed as ``random_state``; with fewer than the file
        holds it is refused. What the gradient did before is done again where candidates were added or ``n_steps`` is another.

    Returns
    -------
    BandedFit
        Float32 if X and Y are float32, else float64; torch if X or Y is. One band is :func:`fastencode.ridge_cv`. A candidate
        takes over a voxel where its score is higher by more than ``1e-6``, and so does what the gradient led to: there γ adds up
        to 1 and α is not of the grid. Steps keep α / γ_b above the smallest of ``alphas``, or above T_b / mean(T) times that in a
        band with a smaller trace T_b than the mean, and below where the band is as good as off; a band of weight 0 comes back.

    Raises
    ------
    InputError
        For a bad argument: the message names the value and the next step.
    DeviceError
        If the device does not exist, or X, Y and ``device`` name different ones, or its memory is too small.

    Warns
    -----
    FastencodeWarning
        Once, if penalties beyond the grid would raise scores, and of constant voxels, as :func:`fastencode.ridge_cv`; scores are
        those of each voxel's best candidate. For "gradient" and "auto" where a column is over 300 times as large as the median
        one of its band, and where systems of voxels were not solved to their tolerance.

    References
    ----------
    Nunez-Elizalde, Huth & Gallant (2019), NeuroImage 197, 482-492; Dupré la Tour et al. (2022), NeuroImage 264, 119728.

    Examples
    --------
    >>> import numpy as np
    >>> import fastencode
    >>> rng = np.random.default_rng(0)
    >>> X, runs = rng.standard_normal((120, 10)), np.repeat(["a", "b", "c"], 40)
    >>> Y = X @ rng.standard_normal((10, 4)) + 3 * rng.standard_normal((120, 4))
    >>> bands = {"sound": 4, "words": 6}  # widths: columns 0 to 3, and 4 to 9
    >>> fit = fastencode.banded_ridge_cv(
    ...     X, Y, bands=bands, n_iter=20, random_state=0, alphas=np.logspace(-1, 4, 11), cv="runs", runs=runs
    ... )
    >>> fit.coef.shape, fit.gammas.shape
    ((10, 4), (2, 4))
    >>> fit.predict(X[:5], split=True).shape  # bands, rows, voxels
    (2, 5, 4)
    >>> np.allclose(fit.score(X, Y, split=True).sum(axis=0), fit.score(X, Y))
    True
    """
    began = time.perf_counter()
    check_scoring(scoring)
    if search not in SEARCHES:
        raise InputError(f"search={search!r}; pass one of {', '.join(map(repr, SEARCHES))}")
    usual, refines = SEARCHES[search]
    n_steps = check_count("n_steps", n_steps, "a positive number of evaluations")
    check_flag("per_target", per_target)
    check_flag("progress", progress)
    rng = check_random(random_state)
    given = cv is None
    if given:
        _refuse_search(search=search, n_iter=n_iter, gap=gap, early_stopping=early_stopping, checkpoint=checkpoint)
    skip = check_nan_targets(nan_targets)
    if early_stopping is not None:
        early_stopping = check_real_number("early_stopping", early_stopping, "a gain in score, not negative, or None")
    design = join(X, bands)
    count = usual if n_iter is None else n_iter
    candidates = np.ones((0, len(design.bands)))
    if not given:
        candidates = make_candidates(len(design.bands), gammas, count, concentration, rng)
    problem = Problem.check(
        design.X if design.kernels is None else design.kernels[0],
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
    )
    check_test_rows(problem.folds, scoring)
    targets = Targets.check(Y, problem.n_given, problem.kept)
    there = device_for(problem, targets)
    keep = there is not None and (targets.device is not None or problem.home != "cpu")
    library = "torch" if "torch" in (problem.library, targets.library, library_of(X)) else "numpy"
    place = partial(_put, there) if there is not None and keep else partial(export, library=library)
    if given:
        if problem.left_out is not None and not skip:
            raise InputError(
                f"alphas holds NaN for {problem.left_out.sum()} voxels, as a fit gives to voxels that it skipped; pass "
                "nan_targets='skip' to skip them here too, or leave those voxels out"
            )
        own = given_penalties(gammas, alphas, len(design.bands), targets.n_voxels, problem.left_out)
        fit = _at_given(problem, design, targets, own, there, place, scoring, skip, progress)
        fit.stats["seconds"]["fit"] = time.perf_counter() - began
        return _named(fit, X)
    if len(design.bands) == 1 and design.kernels is None and (candidates == 1).all():
        plan = make_plan(problem, n_voxels=targets.n_voxels, scoring=scoring, device=there)
        one = fit_plan(plan, Y, scoring=scoring, per_target=per_target, progress=progress, nan_targets=nan_targets)
        return _named(_of_one(one, design.bands, plan.feature_means, place), X)
    grams, planning = _grams(problem, design, targets.n_voxels, there)
    if gammas is None and len(design.bands) > 1:
        # The gradient alone starts from equal traces: from equal weights, a band in small units is out of its reach, and a start
        # between both ends lower too (with scales 1, 30 and .01, a mean R² of .214 against .175 and .213).
        candidates = with_equal_traces(candidates, traces(grams), first=search == "gradient")
    if refines:
        everything = np.arange(len(problem.X))
        for folds in (problem.folds, [(everything, everything[:0])]):  # now, not after the search: while climbing, and at last
            check_room(grams, folds)
        if design.kernels is None:
            warn_uneven(grams)
    settings = Settings(scoring, bool(per_target), skip, early_stopping, n_steps if refines else 0)
    near, kept = targets.fetched(), None
    if checkpoint is not None:
        arrays = {"bands": grams.bands.band_of_feature}
        arrays |= {} if design.kernels is None else {"kernels": design.kernels}
        kept = Checkpoint(checkpoint, fingerprint(problem, near, arrays, f"{scoring} {settings.per_target}"))
    bases = Bases(grams, candidates, planning, there)
    total = targets.n_voxels * (len(candidates) + 1)
    with progress_bar(desc="banded ridge", unit="voxel", total=total, enabled=progress) as bar:
        found = run_search(bases, targets, settings, kept, bar, there)
        if found.tried < len(candidates):
            bar.total = targets.n_voxels * (found.tried + 1)
        chosen = found.choice(problem.alphas, bases.candidates_ib)
        with _on(there, problem):
            if refines:
                found.account["refined"] = refine(chosen, found, bases.candidates_ib, grams, near, settings, kept, bar, there)
            since = time.perf_counter()
            weights = refit(bases, near, skip, chosen, bar, there)
            found.account["seconds"]["refit"] = time.perf_counter() - since
    stats = {**_stats(bases, found, time.perf_counter() - began), "nan_targets": nan_targets}
    fit = _fit(bases, found, chosen, weights, targets.one, place, scoring, stats)
    own_v = chosen.which_v < 0  # the largest penalty of the grid does not bound these: nothing to gain beyond it
    found.ends_ev[3, own_v] = found.ends_ev[2, own_v]
    seen = Seen(found.ends_ev, chosen.edge_v, found.variance_v, found.bad_v)
    told: dict[str, Any] = {"scoring": scoring, "n_rows": len(problem.X), "shared": not per_target}
    tell_edges(edges_of_fit(seen, problem.alphas, freedoms=[] if refines else found.freedoms, **told), fit.stats)
    warn_unsolved(chosen.unsolved_v, weights.unsolved_v)
    return _named(fit, X)


def _named(fit: BandedFit, X: Features) -> BandedFit:
    """The fit, with the names of a data frame's columns."""
    if (names := column_names(X)) is not None:
        fit.stats["feature_names"] = names
    return fit


def _refuse_search(**options: object) -> None:
    """``InputError`` for options of a search, beside ``cv=None``, which searches nothing."""
    for name, value in options.items():
        if value not in (None, 0, "random"):
            raise InputError(f"{name}={value!r} and cv=None: given penalties are fitted without a search; leave {name}= out")


def _at_given(
    problem: Problem,
    design: Design,
    targets: Targets,
    penalties: tuple[NDArray[np.float64], NDArray[np.float64]],
    there: Device | None,
    place: Place,
    scoring: str,
    skip: bool,
    progress: bool,
) -> BandedFit:
    """Weights at given weights of bands and penalties, ((b, v), (v,)), and no scores."""
    (gammas_bv, alpha_v), n_voxels = penalties, targets.n_voxels
    since = time.perf_counter()
    grams, planning = _grams(problem, design, n_voxels, there)
    decomposed_ib, which_v = share(grams, gammas_bv, alpha_v)
    bases, found = Bases(grams, decomposed_ib, planning, there), Found.empty(0, n_voxels, problem.X.dtype)
    chosen = Chosen(which_v, gammas_bv, alpha_v, np.full(n_voxels, np.nan), np.zeros(n_voxels, dtype=np.int8), np.zeros(n_voxels))
    squared = time.perf_counter()
    with progress_bar(desc="banded ridge", unit="voxel", total=n_voxels, enabled=progress) as bar, _on(there, problem):
        weights = refit(bases, targets.fetched(), skip, chosen, bar, there)
    found.bad_v = weights.bad_v if problem.left_out is None else weights.bad_v | problem.left_out
    warn_unsolved(chosen.unsolved_v, weights.unsolved_v)
    found.account |= {
        "seconds": {"grams": squared - since, "refit": time.perf_counter() - squared},
        "bytes": {"grams": grams.nbytes},
        "device": "cpu" if there is None else there.name,
    }
    stats = {
        **_stats(bases, found, 0.0),
        "search": None,
        "decompositions": bases.decompositions,
        "nan_targets": "skip" if skip else "raise",
    }
    return _fit(bases, found, chosen, weights, targets.one, place, scoring, stats)


def _grams(problem: Problem, design: Design, n_voxels: int, device: Device | None) -> tuple[Grams, int]:
    """(Grams of the bands, primal or dual; bytes that planning one candidate takes beside them). For given kernels, the X of the
    problem has no columns."""
    threads, (n, p), only = available_threads(), problem.X.shape, None if design.kernels is None else "dual"
    beside = gram_bytes(n, p, len(design.bands))
    candidate = choose(problem, threads, n_voxels, only, beside)[0]
    dual = candidate.name == "dual"
    if design.kernels is not None:
        problem = replace(problem, X=np.empty((n, 0), dtype=problem.X.dtype))
    with limit_threads(threads):
        make = partial(make_grams, problem, design.bands, design.kernels, dual)
        grams = planned_on(device or HOST, problem, make)
        if design.kernels is not None and grams.dual_btt is not None:
            check_kernels(design, grams.dual_btt, grams.root_t, problem.fit_intercept)
    return grams, candidate.bytes - beside[dual]


@contextmanager
def _on(device: Device | None, problem: Problem) -> Iterator[None]:
    """Arrays made inside lie on the device, if there is one; its products keep the full precision of the dtype."""
    if device is None:
        yield
    else:
        with device.current(), device.precision(problem.X.dtype, False), device.room_for("the systems or the weights of a tile"):
            yield


def _put(device: Device, array: NDArray[Any]) -> ResultArray:
    with device.current():
        return device.put(array)


def _of_one(fit: RidgeFit, bands: Bands, feature_means: F64 | None, place: Place) -> BandedFit:
    """A fit of one band, of weight 1."""
    best = to_host(fit.best_score, "best_score")
    ones = np.where(np.isnan(to_host(fit.alpha, "alpha")), np.nan, 1.0)[None]
    return BandedFit(
        coef=fit.coef,
        dual_coef=None,
        intercept=fit.intercept,
        alpha=fit.alpha,
        alphas=fit.alphas,
        gammas=place(ones),
        candidates=place(np.ones((1, 1))),
        cv_scores=place(best[None].copy()),
        best_score=fit.best_score,
        at_edge=fit.at_edge,
        feature_means=feature_means,
        names=bands.names,
        columns=bands.columns,
        scoring=fit.scoring,
        stats={**fit.stats, "search": {"candidates": 1, "tried": 1, "stopped_early": False}},
    )


def _fit(
    bases: Bases,
    found: Found,
    chosen: Chosen,
    weights: Weights,
    one: bool,
    place: Place,
    scoring: str,
    stats: dict[str, Any],
) -> BandedFit:
    grams, bad, edge = bases.grams, found.bad_v, chosen.edge_v
    dtype = grams.problem.X.dtype
    per_voxel = {
        "coef": None if weights.features is None else weights.features.coef_pv,
        "dual_coef": weights.dual_tv,
        "intercept": weights.intercept_v.astype(dtype),
        "alpha": chosen.alpha_v,
        "gammas": chosen.gammas_bv,
        "cv_scores": found.scores_iv,
        "best_score": chosen.score_v.astype(dtype),
    }
    if bad.any():
        for array in per_voxel.values():
            if array is not None:
                array[..., bad] = np.nan
        edge[bad] = 0
    per_voxel["at_edge"] = edge
    arrays = {name: None if array is None else place(array[..., 0] if one else array) for name, array in per_voxel.items()}
    return BandedFit(
        **arrays,
        alphas=place(grams.problem.alphas.copy()),
        candidates=place(bases.candidates_ib[: len(found.scores_iv)].copy()),
        feature_means=grams.mean_p,
        names=grams.bands.names,
        columns=grams.bands.columns,
        scoring=scoring,
        stats=stats,
    )


def _stats(bases: Bases, found: Found, seconds: float) -> dict[str, Any]:
    account = found.account
    return {
        "strategy": "dual" if bases.grams.dual else "primal",
        "search": {
            "candidates": len(bases.candidates_ib),
            "tried": found.tried,
            "stopped_early": found.tried < len(bases.candidates_ib),
            "window": WINDOW,
            "gain_of_last_window": None if found.tried <= WINDOW else found.gain(),
            "mean_best_score": found.mean_i,
            "decompositions": bases.decompositions,
        },
        "precision": bases.grams.problem.precision,
        "device": "cpu",  # unless a candidate was scored elsewhere
        **account,
        "seconds": {**account["seconds"], "fit": seconds},
        "folds": len(bases.grams.problem.folds),
        "tie_tolerance": TIE_TOLERANCE,
        "skipped_voxels": int(found.bad_v.sum()),
        "versions": versions(),
    }
