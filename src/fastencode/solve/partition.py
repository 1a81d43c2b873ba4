"""Variance that only one band explains: held-out scores of all bands, minus those without the band.

Legend: b = bands, v = voxels, f = outer folds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastencode.arrays import to_host
from fastencode.delayed import pick
from fastencode.errors import InputError
from fastencode.solve.banded import banded_ridge_cv
from fastencode.solve.edges import held_warnings, warn_together
from fastencode.solve.given.bands import PRECOMPUTED, BandsLike, Features, join
from fastencode.solve.given.folds import CrossValidator, check_gap, check_runs, resolve_folds
from fastencode.solve.given.problem import host_matrix
from fastencode.solve.score.choose import check_test_rows
from fastencode.solve.score.moments import check_scoring

__all__ = ["Partition", "partition_variance"]


@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """Held-out scores of all bands together and of all but one.

    Attributes
    ----------
    names : tuple of str
        Of the bands.
    total : (v,) float64
        Score of all bands together, mean over outer folds.
    unique : (b, v) float64
        ``total`` minus the score without the band: what it alone explains. Below zero where the band only adds noise.
    shared : (v,) float64
        ``total`` minus the sum of ``unique``: what more than one band explains.
    total_folds : (f, v) float64
    unique_folds : (f, b, v) float64
        The same for each outer fold.
    scoring : str
    seconds : float
        What all fits and scores took.
    """

    names: tuple[str, ...]
    total: NDArray[np.float64]
    unique: NDArray[np.float64]
    shared: NDArray[np.float64]
    total_folds: NDArray[np.float64]
    unique_folds: NDArray[np.float64]
    scoring: str
    seconds: float = 0.0

    def __str__(self) -> str:
        def told(values: NDArray[np.float64]) -> str:
            known = values[~np.isnan(values)]
            return f"median {np.median(known):.4g}, largest {known.max():.4g}" if known.size else "no voxel was fitted"

        unique = (f"  only {name}: {told(unique)}" for name, unique in zip(self.names, self.unique, strict=True))
        lines = [repr(self)[1:-1], f"  all bands together: {told(self.total)}", *unique, f"  shared: {told(self.shared)}"]
        lines.append(f"  voxels: {int(np.isnan(self.total).sum())} skipped because they held NaN")
        if self.seconds:
            lines.append(f"  took {self.seconds:.2g} s")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"<Partition of {', '.join(self.names)}, {len(self.total)} voxels, {len(self.total_folds)} folds, by {self.scoring}>"
        )


def partition_variance(
    X: Features,
    Y: ArrayLike,
    *,
    bands: BandsLike | None = None,
    outer: CrossValidator = 5,
    runs: ArrayLike | None = None,
    gap: int = 0,
    scoring: str = "r2",
    gammas: ArrayLike | None = None,
    **options: Any,
) -> Partition:
    """How much of each voxel every band explains that no other band does, on rows that no choice has seen.

    For each outer fold, :func:`fastencode.banded_ridge_cv` is fitted to its training rows with all bands, and once without each
    band; all are scored on the fold's test rows.

    Parameters
    ----------
    X : (t, p) array; or name -> (t, p_b) array; or a list of such arrays
        Features, as in :func:`fastencode.banded_ridge_cv`, in the host's memory; delayed copies need not be made.
    Y : (t, v) or (t,) array
        Responses, in memory.
    bands : mapping, sequence, (p,) labels or None
        As there, column names of a data frame and ``...`` included; at least two.
    outer : int, "runs", splitter or list of (train, test)
        Rows to score on, as ``cv`` of :func:`fastencode.ridge_cv`.
    runs : (t,) array-like, optional
        Run label of every row, for ``outer`` and for the cross-validation inside.
    gap : int
        Rows on either side of a held-out row, in its run, that are not trained on: in ``outer``, and in the cross-validation
        inside, where the rows on both sides of those left out count as neighbors. 0 leaves out none.
    scoring : {"r2", "pearson", "neg_mean_squared_error"}
        Penalties and weights are chosen by it, and the test rows scored.
    gammas : (i, b) array, "grid" or None
        As there. Without a band, its column is left out, and so are candidates that would be left with nothing. For ``cv=None``
        the weights of the bands (b, v) or (b,): without a band, its row is left out.
    **options
        Passed on: ``alphas``, ``cv``, ``n_iter``, ``random_state``, ``nan_targets`` and so on.

    Returns
    -------
    Partition
        Of one voxel where Y is a single series. With ``nan_targets="skip"``, a voxel that holds NaN or infinite values is NaN in
        every outer fold that uses such a row, and in ``total``, ``unique`` and ``shared``.

    Raises
    ------
    InputError
        For fewer than two bands, kernels, or what :func:`fastencode.banded_ridge_cv` refuses.

    Notes
    -----
    R² of a block of rows counts how far the block's mean is from that of the training rows. Slow drift moves it, for all models
    alike, so what it costs is in ``total`` and ``shared``, not in ``unique``: remove drift before, or score by "pearson".
    Differences of correlations are not shares of variance.

    References
    ----------
    Lescroart, Stansbury & Gallant (2015), Frontiers in Computational Neuroscience 9, 135.

    Examples
    --------
    >>> import numpy as np
    >>> import fastencode
    >>> rng = np.random.default_rng(0)
    >>> X, runs = rng.standard_normal((120, 10)), np.repeat(["a", "b", "c"], 40)
    >>> Y = X @ rng.standard_normal((10, 4)) + 3 * rng.standard_normal((120, 4))
    >>> parts = fastencode.partition_variance(
    ...     X, Y, bands={"sound": 4, "words": 6}, outer="runs", runs=runs, cv=2, n_iter=5, random_state=0,
    ...     alphas=np.logspace(-2, 4, 13),
    ... )
    >>> parts.unique.round(2)  # of sound and of words, for each voxel
    array([[0.18, 0.13, 0.26, 0.05],
           [0.22, 0.6 , 0.07, 0.31]])
    >>> np.allclose(parts.unique.sum(axis=0) + parts.shared, parts.total)
    True
    """
    began = time.perf_counter()
    check_scoring(scoring)
    if isinstance(bands, str):
        raise InputError(
            f"bands={bands!r}: variance is partitioned of features, not of {PRECOMPUTED} kernels; pass their features"
        )
    for name in ("checkpoint", "sample_weight"):
        if options.get(name) is not None:
            raise InputError(f"{name}= does not apply to a partition, which fits many times to some of the rows; leave it out")
    design = join(X, bands)
    features, found, responses = host_matrix(design.X), design.bands, to_host(Y, "Y")
    if len(found) < 2:
        raise InputError(f"there is one band, {found.names[0]!r}; a partition needs at least two")
    if responses.ndim not in (1, 2) or len(responses) != len(features):
        raise InputError(f"Y has shape {responses.shape} and X has {len(features)} rows; give both the same scans")
    series, responses = responses, responses[:, None] if responses.ndim == 1 else responses
    labels = None if runs is None else check_runs(runs, len(features))
    folds = resolve_folds(outer, len(features), labels, gap=check_gap(gap), responses=series, name="outer")
    check_test_rows(folds, scoring, "outer")
    if isinstance(cv := options.get("cv"), Iterator):  # every fit takes it anew
        options["cv"] = list(cv)
    scores = np.empty((len(folds), len(found) + 1, responses.shape[1]))
    with held_warnings() as edges:
        for f, (train, test) in enumerate(folds):
            for b in range(-1, len(found)):
                some = found if b < 0 else found.without(b)
                kept = np.arange(features.shape[1]) if b < 0 else np.setdiff1d(np.arange(features.shape[1]), found.columns[b])
                fit = banded_ridge_cv(
                    pick(features, train, kept),
                    responses[train],
                    bands=dict(zip(some.names, some.columns, strict=True)),
                    gammas=gammas if b < 0 else _without(gammas, b, options.get("cv", 5) is None),
                    runs=None if labels is None else labels[train],
                    gap=gap,
                    scoring=scoring,
                    **options,
                )
                scores[f, b + 1] = fit.score(pick(features, test, kept), responses[test])
    warn_together(edges)
    unique_folds = scores[:, :1] - scores[:, 1:]
    total, unique = scores[:, 0].mean(axis=0), unique_folds.mean(axis=0)
    return Partition(
        found.names, total, unique, total - unique.sum(axis=0), scores[:, 0], unique_folds, scoring, time.perf_counter() - began
    )


def _without(gammas: ArrayLike | None, b: int, given: bool) -> ArrayLike | None:
    """Candidates (i, b), or with ``given`` the weights (b, v) or (b,) of every voxel, for all bands but one."""
    if gammas is None or isinstance(gammas, str):
        return gammas
    if given:
        return np.delete(to_host(gammas, "gammas"), b, axis=0)
    rest = np.delete(np.atleast_2d(to_host(gammas, "gammas")), b, axis=1)
    rest = rest[rest.any(axis=1)]
    return rest if len(rest) else np.ones((1, rest.shape[1]))
