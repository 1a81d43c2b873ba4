"""What one layer explains in one participant: a ridge over whole runs, scored on a test run no choice has seen, in a small file.

Axis letters: t scan row, v voxel, r region, b bootstrap draw.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.delayed import Matrix
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import check_file
from fastencode.solve.edges import held_warnings
from fastencode.solve.partition import partition_variance
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.solve.score.moments import pearson
from fastencode.study.config import AlignConfig
from fastencode.study.significance import block_permutation_pvalues, bootstrap_region_scores
from fastencode.timing.clean import zscore

__all__ = ["LayerScores", "LayerShares", "Listener", "load", "save", "score_layer", "share_layer"]

Record = TypeVar("Record", "LayerScores", "LayerShares")


@dataclass(frozen=True)
class Listener:
    """One participant's responses, cut to the voxels that are mapped.

    Attributes
    ----------
    fit : ndarray, shape (t, v), float32
        Rows of all fit runs, z-scored within each; may be a memory map.
    test : ndarray, shape (t, v), float32
        Rows of the test run.
    ceiling : ndarray, shape (v,), or None
        Noise ceilings of the test responses. Where one is 0 the voxel counts in raw means only.
    regions : name → ndarray of int
        Columns of the above.
    spread : ndarray, shape (v,), or None
        Standard deviations of the test responses in units of the fit rows': below 1 where they are means over repeats. None: 1.
    """

    fit: NDArray[np.float32]
    test: NDArray[np.float32]
    ceiling: NDArray[np.float64] | None
    regions: Mapping[str, NDArray[np.intp]]
    spread: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class LayerScores:
    """Scores of one layer in one participant.

    Attributes
    ----------
    r : ndarray, shape (v,)
        Correlation of prediction and response over the test run.
    p : ndarray, shape (v,)
        One-sided, from permuting blocks of scans.
    alpha, at_edge : ndarray, shape (v,)
        Chosen penalties (weight on ‖b‖²), and −1 or +1 where one lies at an edge of the grid.
    region, region_normalized : ndarray, shape (r,)
        Mean over each region's voxels of r, and mean r / mean ceiling of those with a ceiling above 0 (NaN without ceilings).
    region_ceiling, region_ratios : ndarray, shape (r,)
        Mean ceiling, and mean of r / ceiling, of those voxels: the latter is too high where ceilings are low.
    draws, draws_normalized : ndarray, shape (b, r)
        The first two on resampled blocks of scans: the same blocks for every layer and model that was scored with one seed.
    n_blocks : ndarray, shape ()
        Scans of the test run divided by those of a block.
    narrow : ndarray of bool, shape (2,)
        Whether penalties below the smallest of the grid, or above its largest, would predict better: what ``ridge_cv`` warns of.
    """

    r: NDArray[np.float64]
    p: NDArray[np.float64]
    alpha: NDArray[np.float64]
    at_edge: NDArray[np.int64]
    region: NDArray[np.float64]
    region_normalized: NDArray[np.float64]
    region_ceiling: NDArray[np.float64]
    region_ratios: NDArray[np.float64]
    draws: NDArray[np.float64]
    draws_normalized: NDArray[np.float64]
    n_blocks: NDArray[np.float64]
    narrow: NDArray[np.bool_]


@dataclass(frozen=True)
class LayerShares:
    """What a layer explains of one participant's test run beside low-level features.

    Attributes
    ----------
    total : ndarray, shape (v,)
        R² of the layer and all of them together.
    unique : ndarray, shape (b, v)
        ``total`` less the R² without the band: first the layer, then each low-level feature.
    """

    total: NDArray[np.float64]
    unique: NDArray[np.float64]


def save(record: LayerScores | LayerShares, path: Path) -> None:
    """Write a record as HDF5, one data set for each attribute."""
    whole = io.BytesIO()  # HDF5 itself does not say what a full disk is
    with h5py.File(whole, "w") as file:
        for field in fields(record):
            file[field.name] = getattr(record, field.name)
    path.write_bytes(whole.getbuffer())


def load(kind: type[Record], path: Path) -> Record:
    """Read what :func:`save` wrote; an :class:`InputError` if it is missing or damaged."""
    try:
        with h5py.File(check_file(path)) as file:
            return kind(**{field.name: file[field.name][...] for field in fields(kind)})
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): delete {path.parent}, and it will be made again") from error


def score_layer(
    plan: RidgePlan, X_test: Matrix, listener: Listener, config: AlignConfig, *, permutations: int = 1000
) -> LayerScores:
    """Fit every voxel on the plan's rows, predict the test run, and say how well and how surely.

    Parameters
    ----------
    plan : RidgePlan
        Of the fit rows' features; one serves every participant who heard the same runs.
    X_test : ndarray or Delayed, shape (t, p)
        Features of the test run.
    listener : Listener
    config : AlignConfig
        Its seed draws the blocks.
    permutations : int
        The smallest p is ``1 / (permutations + 1)``.

    Raises
    ------
    InputError
        If rows of features and responses differ.
    """
    if len(X_test) != len(listener.test):
        raise InputError(f"{len(X_test)} rows of features for {len(listener.test)} test responses: check the test run's trimming")
    with warnings.catch_warnings(), held_warnings() as edges:  # one warning for each model, not for each layer
        warnings.simplefilter("ignore", FastencodeWarning)
        fit = plan.fit(listener.fit, scoring="pearson")
    cost = edges[0].cost
    predicted = fit.predict(X_test)
    draw: dict[str, Any] = {"block": config.block, "n_boots": config.bootstraps, "random_state": config.seed}
    raw = bootstrap_region_scores(listener.test, [predicted], listener.regions, **draw)
    r = np.asarray(pearson(listener.test, predicted), np.float64)
    region_normalized, draws_normalized = np.full_like(raw.r[0], np.nan), np.full_like(raw.draws[:, 0], np.nan)
    region_ceiling, region_ratios = np.full((2, len(listener.regions)), np.nan)
    if listener.ceiling is not None:
        normalized = bootstrap_region_scores(listener.test, [predicted], listener.regions, ceilings=listener.ceiling, **draw)
        region_normalized, draws_normalized = normalized.r[0], normalized.draws[:, 0]
        for place, voxels in enumerate(listener.regions.values()):
            if len(with_ceiling := voxels[listener.ceiling[voxels] > 0]):
                region_ceiling[place] = listener.ceiling[with_ceiling].mean()
                region_ratios[place] = (r[with_ceiling] / listener.ceiling[with_ceiling]).mean()
    return LayerScores(
        r=r,
        p=block_permutation_pvalues(
            listener.test, predicted, block=config.block, n_permutations=permutations, random_state=config.seed
        ),
        alpha=np.asarray(fit.alpha, np.float64),
        at_edge=np.asarray(fit.at_edge, np.int64),
        region=raw.r[0],
        region_normalized=region_normalized,
        region_ceiling=region_ceiling,
        region_ratios=region_ratios,
        draws=raw.draws[:, 0],
        draws_normalized=draws_normalized,
        n_blocks=np.array(raw.n_blocks),
        narrow=np.array([cost.all_low or cost.low > 0, cost.all_high or cost.high > 0]),
    )


def share_layer(
    bands: Mapping[str, Matrix],
    labels: NDArray[np.intp],
    listener: Listener,
    config: AlignConfig,
    *,
    candidates: int,
) -> LayerShares:
    """Banded ridge on the fit rows with all bands, and without each, scored on the test run.

    Parameters
    ----------
    bands : name → ndarray or Delayed, shape (fit rows and test rows, p)
        The test rows last; the layer first.
    labels : ndarray, shape (t,)
        The run of each fit row.
    listener : Listener
    config : AlignConfig
    candidates : int
        Weightings of the bands to try.

    Notes
    -----
    Test responses are centered, and scaled to the units of the fit rows: R² counts how large a prediction is.
    """
    spread = 1.0 if listener.spread is None else listener.spread
    Y = np.vstack([listener.fit, (zscore(listener.test) * spread).astype(np.float32)])
    n = len(listener.fit)
    n_runs = len(np.unique(labels))
    with warnings.catch_warnings():  # as for a layer alone
        warnings.simplefilter("ignore", FastencodeWarning)
        found = partition_variance(
            bands,
            Y,
            outer=[(np.arange(n), np.arange(n, len(Y)))],
            runs=np.concatenate([labels, np.full(len(Y) - n, n_runs)]) if n_runs >= 2 else None,
            alphas=config.alphas,
            n_iter=candidates,
            random_state=config.seed,
            cv=min(config.folds, n_runs) if n_runs >= 2 else config.folds,
        )
    return LayerShares(found.total, found.unique)
