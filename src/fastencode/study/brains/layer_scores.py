"""What one layer explains in one participant: a ridge over whole runs, scored on test runs that it was not fitted on, in a
small file.

Axis letters: t scan row, s run, v voxel, r region, b bootstrap draw.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from fastencode.delayed import Matrix
from fastencode.errors import FastencodeWarning, InputError
from fastencode.files import check_file
from fastencode.solve.edges import edges_of_fit, held_warnings
from fastencode.solve.partition import partition_variance
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.solve.score.ends import Seen, ends_of
from fastencode.solve.score.moments import pearson
from fastencode.study.brains.ceilings import Signal, joint_ceiling
from fastencode.study.brains.design import Design
from fastencode.study.config import CPU, AlignConfig, Resources
from fastencode.study.inference.blocks import spans
from fastencode.study.inference.significance import block_permutation_pvalues, bootstrap_region_scores
from fastencode.timing.clean import zscore

__all__ = [
    "LayerScores",
    "LayerShares",
    "LeftOut",
    "Listener",
    "Predicted",
    "leave_stories_out",
    "load",
    "predict_in_tiles",
    "save",
    "score_layer",
    "scores_of",
    "share_layer",
]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

# Bytes of weights that score_layer holds at once; of responses and weights that share_layer does, which decomposes its bands once
# more for each tile.
_WEIGHTS, _SHARED = 2**27, 2**30


@dataclass(frozen=True)
class Listener:
    """One participant's responses, cut to the voxels that are mapped.

    Attributes
    ----------
    fit : ndarray, shape (t, v), float32
        Rows of all fit runs, z-scored within each; may be a memory map.
    test : ndarray, shape (t, v), float32
        Rows of the test runs.
    signals : sequence of (Signal or None), length s, or None
        How much of each test run's responses is signal; None where one was not repeated.
    regions : name → ndarray of int
        Columns of the above.
    spread : ndarray, shape (s, v), or None
        Standard deviations of each test run in units of the fit rows': below 1 where it is a mean over repeats. None: 1.
    runs : ndarray, shape (t,), or None
        The test run of each test row. None: there is one.
    """

    fit: NDArray[np.float32]
    test: NDArray[np.float32]
    signals: Sequence[Signal | None] | None
    regions: Mapping[str, NDArray[np.intp]]
    spread: NDArray[np.float64] | None = None
    runs: NDArray[Any] | None = None

    @property
    def ceiling(self) -> NDArray[np.float64] | None:
        """Noise ceilings of all test rows together, (v,), by :func:`joint_ceiling`; None if one run was not repeated.

        Responses and predictions are z-scored within each run, so their correlation over all rows is the mean of those over each
        run, weighted by rows. (It is higher where a prediction is constant within a run.) Where a ceiling is 0 the voxel counts
        in raw means only.
        """
        known = [one for one in self.signals or () if one is not None]
        return joint_ceiling(known) if known and len(known) == len(self._parts) else None

    @property
    def _parts(self) -> list[slice]:
        return spans(self.runs, len(self.test))

    def each_run(self) -> Iterator[tuple[str, slice, Listener]]:
        """(name, test rows, the listener with no other test run) of each test run; nothing where there is one only."""
        parts = self._parts
        if self.runs is None or len(parts) == 1:
            return
        for place, rows in enumerate(parts):
            signals = None if self.signals is None else self.signals[place : place + 1]
            spread = None if self.spread is None else self.spread[[place]]
            part = replace(self, test=self.test[rows], signals=signals, spread=spread, runs=None)
            yield str(self.runs[rows.start]), rows, part


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
        The first two on resampled blocks of scans: the same blocks for every layer and model that was scored with one seed, and
        in every participant blocks that begin at the same scans.
    n_blocks : ndarray, shape ()
        Scans of the test runs divided by those of a block.
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
    """What a layer explains of one participant's test runs beside low-level features.

    Attributes
    ----------
    total : ndarray, shape (v,)
        R² of the layer and all of them together.
    unique : ndarray, shape (b, v)
        ``total`` less the R² without the band: first the layer, then each low-level feature.
    """

    total: NDArray[np.float64]
    unique: NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """Scores of one layer in one participant on runs that were left out one by one.

    Attributes
    ----------
    r : ndarray, shape (s, v)
        Correlation over each run of its responses and their prediction by a ridge that was fitted on all others.
    alpha : ndarray, shape (s, v)
        The penalties of these ridges (weight on ‖b‖²).
    """

    r: NDArray[np.float64]
    alpha: NDArray[np.float64]


def save(record: DataclassInstance, path: Path) -> None:
    """Write a record, such as :class:`LayerScores`, as HDF5: one data set for each attribute, an array."""
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


class Predicted(NamedTuple):
    """Predictions of a ridge of every voxel; its weights are not kept.

    Attributes
    ----------
    values : ndarray, shape (t, v)
        In the dtype of the plan.
    alpha, at_edge : ndarray, shape (v,)
        Chosen penalties (weight on ‖b‖²), and −1 or +1 where one lies at an edge of the grid.
    narrow : ndarray of bool, shape (2,)
        Whether penalties below the smallest of the grid, or above its largest, would predict better.
    """

    values: NDArray[Any]
    alpha: NDArray[np.float64]
    at_edge: NDArray[np.int64]
    narrow: NDArray[np.bool_]


def _tiles(n_voxels: int, bytes_per_voxel: int, most: int) -> Iterator[slice]:
    """Voxels in tiles of at most so many bytes, or of one voxel."""
    width = max(1, most // bytes_per_voxel)
    for start in range(0, n_voxels, width):
        yield slice(start, min(start + width, n_voxels))


def predict_in_tiles(
    plan: RidgePlan, X_test: Matrix, Y: NDArray[np.float32], rows: NDArray[np.intp] | slice = slice(None)
) -> Predicted:
    """Fit every voxel on the plan's rows, by held-out correlations, and predict others; 128 MB of weights are held at once.

    Parameters
    ----------
    plan : RidgePlan
    X_test : ndarray or Delayed, shape (t, p)
        Features of the rows to predict.
    Y : ndarray, shape (t, v)
        May be a memory map: it is read by tiles of voxels.
    rows : ndarray of int or slice
        The rows of Y that are those of the plan; all by default.
    """
    n_voxels = Y.shape[1]
    values = np.empty((len(X_test), n_voxels), plan.dtype)
    alpha, at_edge, ends = np.empty(n_voxels), np.empty(n_voxels, np.int8), np.empty((4, n_voxels))
    with warnings.catch_warnings(), held_warnings():  # one warning for each model, not for each layer
        warnings.simplefilter("ignore", FastencodeWarning)
        for tile in _tiles(n_voxels, plan.shape[1] * plan.dtype.itemsize, _WEIGHTS):
            fit = plan.fit(Y[:, tile][rows], scoring="pearson")
            values[:, tile], alpha[tile], at_edge[tile] = fit.predict(X_test), fit.alpha, fit.at_edge
            ends[:, tile] = ends_of(fit.cv_scores, plan.alphas)
    seen = Seen(ends, at_edge, np.ones(n_voxels), np.zeros(n_voxels, bool))
    cost = edges_of_fit(seen, plan.alphas, scoring="pearson", n_rows=plan.shape[0], shared=False, freedoms=[plan.freedom]).cost
    narrow = np.array([cost.all_low or cost.low > 0, cost.all_high or cost.high > 0])
    return Predicted(values, alpha, at_edge.astype(np.int64), narrow)


def score_layer(
    plan: RidgePlan, X_test: Matrix, listener: Listener, config: AlignConfig, *, permutations: int = 1000
) -> LayerScores:
    """Fit every voxel on the plan's rows, predict the test runs, and say how well and how surely.

    Weights are made and used by tiles of voxels; predictions of the test runs, (t, v), are held whole.

    Parameters
    ----------
    plan : RidgePlan
        Of the fit rows' features; one serves every participant who heard the same runs.
    X_test : ndarray or Delayed, shape (t, p)
        Features of the test runs.
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
    return scores_of(predict_in_tiles(plan, X_test, listener.fit), listener, config, permutations=permutations)


def scores_of(found: Predicted, listener: Listener, config: AlignConfig, *, permutations: int = 1000) -> LayerScores:
    """What predictions of the test runs say: the second half of :func:`score_layer`.

    Of several test runs, responses and predictions are z-scored within each and correlated over all rows together, so that no
    difference between runs in mean or size counts, and each scan counts as much. No block has scans of two runs.
    """
    if len(found.values) != len(listener.test):
        raise InputError(
            f"{len(found.values)} rows of features for {len(listener.test)} test responses: check the test run's trimming"
        )
    runs, measured, predicted = listener.runs, listener.test, found.values
    if runs is not None:
        measured, predicted = zscore(measured, runs), zscore(predicted, runs)
    draw: dict[str, Any] = {"runs": runs, "block": config.block, "n_boots": config.bootstraps, "random_state": config.seed}
    raw = bootstrap_region_scores(measured, [predicted], listener.regions, **draw)
    r = np.asarray(pearson(measured, predicted), np.float64)
    region_normalized, draws_normalized = np.full_like(raw.r[0], np.nan), np.full_like(raw.draws[:, 0], np.nan)
    region_ceiling, region_ratios = np.full((2, len(listener.regions)), np.nan)
    if (ceiling := listener.ceiling) is not None:
        normalized = bootstrap_region_scores(measured, [predicted], listener.regions, ceilings=ceiling, **draw)
        region_normalized, draws_normalized = normalized.r[0], normalized.draws[:, 0]
        for place, voxels in enumerate(listener.regions.values()):
            if len(with_ceiling := voxels[ceiling[voxels] > 0]):
                region_ceiling[place] = ceiling[with_ceiling].mean()
                region_ratios[place] = (r[with_ceiling] / ceiling[with_ceiling]).mean()
    return LayerScores(
        r=r,
        p=block_permutation_pvalues(
            measured, predicted, runs=runs, block=config.block, n_permutations=permutations, random_state=config.seed
        ),
        alpha=found.alpha,
        at_edge=found.at_edge,
        region=raw.r[0],
        region_normalized=region_normalized,
        region_ceiling=region_ceiling,
        region_ratios=region_ratios,
        draws=raw.draws[:, 0],
        draws_normalized=draws_normalized,
        n_blocks=np.array(raw.n_blocks),
        narrow=found.narrow,
    )


def leave_stories_out(design: Design, Y: NDArray[np.float32]) -> LeftOut:
    """Predict every story that is fitted on by a ridge fitted on all others.

    Nothing of a story has a part in its prediction. Penalties are chosen by cross-validation among the other stories, with the
    plan, folds and grid that these have by themselves; low-level features are taken out by a ridge on the other stories. (A ridge
    for each fold of one plan would choose penalties by the scores of the story that is left out.) Scores of different stories are
    not independent: each two of their ridges share all stories but two.

    Parameters
    ----------
    design : Design
        Of all the stories.
    Y : ndarray, shape (t, v)
        Rows of these stories, z-scored within each; may be a memory map.
    """
    r, alpha = [], []
    for rows, part in design.left_out():
        others = np.setdiff1d(np.arange(len(Y)), rows)
        found = predict_in_tiles(part.plan, part.matrices[1], Y, others)
        r.append(np.asarray(pearson(np.asarray(Y[rows]), found.values), np.float64))
        alpha.append(found.alpha)
    return LeftOut(np.array(r), np.array(alpha))


def share_layer(
    bands: Mapping[str, Matrix],
    labels: NDArray[np.intp],
    listener: Listener,
    config: AlignConfig,
    *,
    candidates: int,
    resources: Resources = CPU,
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
    resources : Resources

    Notes
    -----
    Test responses are centered within each run, and scaled to the units of the fit rows: R² counts how large a prediction is.
    Voxels are fitted by tiles, each with the same weightings to try: 1 GB of responses and weights are held at once.
    """
    n, n_test, n_voxels = len(listener.fit), len(listener.test), listener.fit.shape[1]
    n_runs = len(np.unique(labels))
    spread = np.ones((1, n_voxels)) if listener.spread is None else listener.spread
    times = np.array([rows.stop - rows.start for rows in spans(listener.runs, n_test)])
    total, unique = np.empty(n_voxels), np.empty((len(bands), n_voxels))
    values_per_voxel = 2 * (n + n_test) + sum(band.shape[1] for band in bands.values())  # a fold's rows are copied
    for tile in _tiles(n_voxels, 4 * values_per_voxel, _SHARED):
        test = zscore(listener.test[:, tile], listener.runs) * np.repeat(spread[:, tile], times, axis=0)
        with warnings.catch_warnings():  # as for a layer alone
            warnings.simplefilter("ignore", FastencodeWarning)
            found = partition_variance(
                bands,
                np.vstack([listener.fit[:, tile], test.astype(np.float32)]),
                outer=[(np.arange(n), np.arange(n, n + n_test))],
                runs=np.concatenate([labels, np.full(n_test, n_runs)]) if n_runs >= 2 else None,
                alphas=config.alphas,
                n_iter=candidates,
                random_state=config.seed,
                cv=config.folds_of(n_runs),
                device=resources.device,
                memory=resources.memory,
            )
        total[tile], unique[:, tile] = found.total, found.unique
    return LayerShares(total, unique)
