"""How well each layer of a model predicts each brain: layers × participants × regions.

Features reach the scans in three steps, each within one run: Lanczos resampling to scan times, z-scores, delays. Then one ridge
plan for each layer serves every participant, because it depends on the features only.

Axis letters: l layer, t scan row, d feature, v voxel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastencode.delayed import Delayed, Matrix
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import progress
from fastencode.solve.ridge import plan_ridge
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.study.config import AlignConfig
from fastencode.timing.clean import zscore
from fastencode.timing.delays import delay
from fastencode.timing.lanczos import lanczos

__all__ = ["LayerFit", "align", "design", "plan_runs", "to_scans"]


@dataclass(frozen=True)
class LayerFit:
    """One layer's ridge for one participant: test predictions (t, v), chosen penalties (v,), at_edge (v,) of −1, 0, +1."""

    layer: int
    participant: str
    predicted: np.ndarray
    alpha: np.ndarray
    at_edge: np.ndarray


def to_scans(hidden_ltd: np.ndarray, times: np.ndarray, scan_times: np.ndarray, *, lobes: int = 3) -> np.ndarray:
    """Resample every layer of one run to scan times.

    Parameters
    ----------
    hidden_ltd : ndarray, shape (layers, n, d), float32
        Frames in order of time.
    times : ndarray, shape (n,)
        Their times in s.
    scan_times : ndarray, shape (rows,)
        In s, in the same clock.

    Returns
    -------
    ndarray, shape (layers, rows, d), float32
    """
    n_layers, n, width = hidden_ltd.shape
    columns = np.ascontiguousarray(np.moveaxis(hidden_ltd, 0, 1).reshape(n, n_layers * width))
    rows = lanczos(columns, times, scan_times, lobes=lobes)
    return np.moveaxis(rows.reshape(len(scan_times), n_layers, width), 1, 0).astype(np.float32)


def align(
    features: Mapping[str, np.ndarray],
    responses: Mapping[str, Mapping[str, np.ndarray]],
    *,
    fit_runs: Sequence[str],
    test_run: str,
    config: AlignConfig,
    desc: str = "ridge",
    show_progress: bool = True,
) -> Iterator[LayerFit]:
    """Fit every layer on the fit runs and predict the test run.

    Parameters
    ----------
    features : run → ndarray, shape (layers, rows, d)
        At scan times.
    responses : participant → run → ndarray, shape (rows, v)
        Z-scored per run here; constant voxels become 0.
    fit_runs, test_run : run names
        The test run is never seen while fitting.
    config : AlignConfig

    Yields
    ------
    LayerFit
        For every layer, participant by participant.

    Raises
    ------
    InputError
        If the test run is among the fit runs, or rows of features and responses differ.
    """
    if test_run in fit_runs:
        raise InputError(f"the test run {test_run!r} is among the fit runs: a score on it would mean nothing")
    for participant, runs in responses.items():
        for run in (*fit_runs, test_run):
            if run not in runs or run not in features:
                raise InputError(f"{participant} has no run {run!r}, or there are no features for it")
            if runs[run].shape[0] != features[run].shape[1]:
                raise InputError(
                    f"{participant}, {run}: {runs[run].shape[0]} response rows but {features[run].shape[1]} feature rows"
                )
    labels = np.repeat(np.arange(len(fit_runs)), [features[run].shape[1] for run in fit_runs])
    targets = {p: zscore(np.concatenate([runs[run] for run in fit_runs]), runs=labels) for p, runs in responses.items()}
    n_layers = features[test_run].shape[0]
    for layer in progress(range(n_layers), desc=desc, unit="layer", enabled=show_progress):
        X = design(np.concatenate([features[run][layer] for run in fit_runs]), labels, config.delays)
        X_test = design(features[test_run][layer], np.zeros(features[test_run].shape[1], int), config.delays)
        plan = plan_runs(X, labels, config)
        for participant, Y in targets.items():
            with warnings.catch_warnings():  # penalties at an edge are in LayerFit: one table, not a warning a layer
                warnings.simplefilter("ignore", FastencodeWarning)
                fit = plan.fit(Y, scoring="pearson")
            yield LayerFit(layer, participant, fit.predict(X_test), fit.alpha, fit.at_edge)


def design(features_td: np.ndarray, labels: np.ndarray, delays: tuple[int, ...]) -> Delayed:
    """Features at scan times, z-scored and delayed within each run, (t, d) → (t, d × delays), copies not made."""
    found: Delayed = delay(zscore(features_td, runs=labels), delays, runs=labels, copy=False)
    return found


def plan_runs(X: Matrix, labels: np.ndarray, config: AlignConfig) -> RidgePlan:
    """The ridge plan of a design, cross-validated over whole runs; over contiguous blocks where there is one run only.

    Parameters
    ----------
    X : ndarray or Delayed, shape (t, p)
    labels : ndarray, shape (t,)
        The run of each row.
    """
    n_runs = len(np.unique(labels))
    several = n_runs >= 2
    return plan_ridge(
        X, alphas=config.alphas, cv=min(config.folds, n_runs) if several else config.folds, runs=labels if several else None
    )
