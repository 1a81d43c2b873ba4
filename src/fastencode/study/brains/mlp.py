"""Is a linear map enough? A network with one hidden layer against ridge, on the same rows, features and voxels.

    prediction = ridge + readout(activation(hidden(x)))

Ridge is fitted first, and the network is trained on its residuals. The readout starts at 0, so before the first update the
prediction is that of ridge, and it stays so if the network finds nothing. All voxels share the hidden layer and are trained in
one batch.

A gain over ridge is not yet evidence of nonlinearity: on linear data, too, voxels that depend on a few common directions gain
from a shared hidden layer. So the same network is also trained without activation function, and a layer is called nonlinear only
if the network is better than both.

On training rows, the prediction of ridge is that of folds which held these rows out, because residuals of fitted rows are smaller
than those of new rows. Settings and the number of epochs are chosen by the mean correlation on rows of the fit runs that neither
ridge nor network were fitted on. Then the network is trained again on the residuals of all fit rows. Test rows are only scored.

Axis letters: t scan row, p column of the design, v voxel, r region, b bootstrap draw, s seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastencode.delayed import Matrix, pick
from fastencode.errors import FastencodeWarning, InputError, require
from fastencode.solve.edges import held_warnings
from fastencode.solve.ridge_plan import RidgePlan
from fastencode.solve.score.moments import pearson
from fastencode.study.brains.design import Design, plan_runs
from fastencode.study.brains.layer_scores import Listener
from fastencode.study.config import AlignConfig, MlpConfig, Resources
from fastencode.study.inference.blocks import interval
from fastencode.study.inference.intervals import without_rounding
from fastencode.study.inference.significance import bootstrap_region_scores
from fastencode.timing.clean import zscore

__all__ = ["MlpScores", "inner_split", "mlp_against_ridge", "mlp_operations", "mlp_rows"]

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

_TERMS = 64  # roundings in a region's mean correlation, generously; float32 predictions that differ at all differ by far more
_WEIGHTS = 2**27  # bytes of ridge weights and held-out predictions at once


@dataclass(frozen=True)
class MlpScores:
    """One layer in one participant: mean correlation over each region's voxels on the test runs.

    Attributes
    ----------
    ridge, mlp, linear : ndarray, shape (r,)
        Of ridge; of ridge + network, mean over seeds; of ridge + network without activation function, NaN if not fitted.
    draws : ndarray, shape (b, 3, r)
        The three scores (ridge, mlp, linear) on resampled blocks of scans, the same blocks for all.
    r_ridge, r_mlp : ndarray, shape (v,)
        Correlation of each voxel.
    n_blocks : ndarray, shape ()
        Number of scans of the test runs / scans per block.
    n_settings : ndarray of int, shape ()
        Number of pairs of hidden size and weight decay that were tried.
    hidden, weight_decay, epochs : ndarray, shape (2, s)
        Chosen for each seed, for the network and for the one without activation function. 0 epochs: ridge was best.
    inner : ndarray, shape (2, s, 2)
        Mean correlation of ridge and of the network on the rows of this choice. The second is the best of all settings, so it is
        too high.
    """

    ridge: NDArray[np.float64]
    mlp: NDArray[np.float64]
    linear: NDArray[np.float64]
    draws: NDArray[np.float64]
    r_ridge: NDArray[np.float64]
    r_mlp: NDArray[np.float64]
    n_blocks: NDArray[np.float64]
    n_settings: NDArray[np.int64]
    hidden: NDArray[np.int64]
    weight_decay: NDArray[np.float64]
    epochs: NDArray[np.int64]
    inner: NDArray[np.float64]

    def gain(self, over: str, region: int) -> tuple[float, NDArray[np.float64]]:
        """Mean correlation of the network minus that of another prediction in one region, and the bootstrap draws of this.

        Parameters
        ----------
        over : {"ridge", "linear"}
            Ridge, or the network without its activation.
        region : int
            Position of the region.

        Returns
        -------
        float
            NaN if the other prediction was not made. 0 if the two agree to rounding.
        ndarray, shape (b,)
        """
        other, place = {"ridge": (self.ridge, 0), "linear": (self.linear, 2)}[over]
        value, beside = self.mlp[region], other[region]
        draws, draws_beside = self.draws[:, 1, region], self.draws[:, place, region]
        exact = [
            without_rounding(one - two, np.abs(one) + np.abs(two), _TERMS)
            for one, two in ((value, beside), (draws, draws_beside))
        ]
        return float(exact[0]), exact[1]


class _Part(NamedTuple):
    """Rows to train or score on: features X (t, p), prediction of ridge (t, v), responses Y (t, v)."""

    X: Any
    base: Any
    Y: Any


class _Chosen(NamedTuple):
    """The best settings: hidden size, weight decay and epochs, with the scores of network and ridge on the inner rows."""

    hidden: int
    decay: float
    epochs: int
    score: float
    ridge: float


def mlp_against_ridge(design: Design, listener: Listener, config: AlignConfig, mlp: MlpConfig | None = None) -> MlpScores:
    """Fit ridge, and a network on its residuals, and score both on the test runs.

    Parameters
    ----------
    design : Design
        Design of one layer. Its delayed features are copied into memory, (t, p) float32.
    listener : Listener
    config : AlignConfig
        Folds and penalties of ridge, blocks and draws of the intervals.
    mlp : MlpConfig, optional

    Returns
    -------
    MlpScores

    Raises
    ------
    InputError
        If numbers of rows of features and responses differ, or there are too few fit rows to hold some out.
    MissingLibraryError
        If torch is not installed (extra ``tune``).

    Notes
    -----
    Computed on the CPU. Results are bit-identical for the same number of threads, and agree to rounding otherwise.
    """
    require("torch", "tune")
    mlp = mlp or MlpConfig()
    X, X_test, labels = design.matrices
    if len(X) != len(listener.fit) or len(X_test) != len(listener.test):
        raise InputError(
            f"{len(X)} and {len(X_test)} rows of features for {len(listener.fit)} and {len(listener.test)} responses: check the"
            " trimming of the runs"
        )
    Y = np.array(listener.fit, np.float32)  # in memory: torch takes no memory map that is read-only
    on_host = design.resources.device in (None, "cpu")
    host = Resources(memory=design.resources.memory)
    plan = design.plan if on_host else plan_runs(X, labels, config, host)
    held_out, predicted = _ridge(plan, Y, X_test)
    inner, watched = inner_split(labels, mlp.held_out, max(map(abs, config.delays)))
    inner_base, watched_base = _ridge(plan_runs(pick(X, inner), labels[inner], config, host), Y[inner], pick(X, watched))
    X_tp = np.asarray(X, np.float32)
    learning = _Part(X_tp[inner], inner_base, Y[inner])
    watching = _Part(X_tp[watched], watched_base, Y[watched])
    whole, test = _Part(X_tp, held_out, Y), np.asarray(X_test, np.float32)
    chosen: list[list[_Chosen]] = []
    predictions: list[list[Floats]] = []
    for linear in (False, True)[: 1 + mlp.linear]:
        chosen.append([_choose(learning, watching, mlp, seed, linear) for seed in mlp.seeds])
        pairs = zip(chosen[-1], mlp.seeds, strict=True)
        predictions.append([predicted + _network(whole, test, mlp, one, seed, linear) for one, seed in pairs])
    return _scored(predicted, predictions, chosen, listener, config, mlp)


def inner_split(labels: NDArray[Any], share: float, gap: int) -> tuple[Rows, Rows]:
    """Split the fit rows into rows to train on and rows to choose settings on: the last runs, or the end of a single run.

    Parameters
    ----------
    labels : ndarray, shape (t,)
        The run of each row; those of one run stand together.
    share : float
        Share of rows to choose on. Several runs: the whole runs closest to this share, at least one, at most all but one.
    gap : int
        With a single run: number of rows to leave out between the two, because delayed features overlap.

    Raises
    ------
    InputError
        If fewer than 8 rows are left on either side.
    """
    n = len(labels)
    begins = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    if len(begins) > 1:
        start = int(begins[1:][np.argmin(np.abs(n - begins[1:] - share * n))])
        learned, chosen = np.arange(start), np.arange(start, n)
    else:
        start = n - round(share * n)
        learned, chosen = np.arange(max(0, start - gap)), np.arange(start, n)
    if min(len(learned), len(chosen)) < 8:
        raise InputError(f"{n} fit rows leave {len(learned)} to learn from and {len(chosen)} to choose on: fit on more runs")
    return learned, chosen


def mlp_operations(n: int, p: int, v: int, mlp: MlpConfig) -> float:
    """Upper limit of multiplications and additions for the networks of one layer: n fit rows, p columns, v voxels.

    Ridge regressions are not included. With early stopping, it is usually a fraction of this.
    """
    each = [6.0 * n * (p * hidden + hidden * v) for hidden in mlp.hidden]  # forward, and backward twice as much
    tried = (1 - mlp.held_out) * sum(each) * len(mlp.weight_decays)
    return (tried + max(each)) * mlp.epochs * len(mlp.seeds) * (1 + mlp.linear)


def _ridge(plan: RidgePlan, Y: Floats, X_test: Matrix) -> tuple[Floats, Floats]:
    """Predictions of ridge for its own rows, by folds that held them out, and for test rows; by tiles of voxels."""
    held_out, predicted = np.empty_like(Y), np.empty((len(X_test), Y.shape[1]), np.float32)
    width = max(1, _WEIGHTS // (sum(plan.shape) * plan.dtype.itemsize))
    with warnings.catch_warnings(), held_warnings():  # one warning for each model, where it is fitted by itself
        warnings.simplefilter("ignore", FastencodeWarning)
        for start in range(0, Y.shape[1], width):
            tile = slice(start, start + width)
            fit = plan.fit(Y[:, tile], scoring="pearson", cv_predictions=True)
            held_out[:, tile], predicted[:, tile] = fit.cv_predictions, fit.predict(X_test)
    return held_out, predicted


def _choose(learning: _Part, watching: _Part, mlp: MlpConfig, seed: int, linear: bool) -> _Chosen:
    """The settings and epoch with the best mean correlation on the watched rows; 0 epochs if none is better than ridge."""
    ridge = _score(watching.base, watching.Y)
    best = _Chosen(mlp.hidden[0], mlp.weight_decays[0], 0, ridge, ridge)
    learning, (x_watched,) = _scaled(learning, watching.X)
    for hidden in mlp.hidden:
        for decay in mlp.weight_decays:
            since, top = 0, ridge
            for epoch, network in enumerate(_epochs(learning, mlp, hidden, decay, seed, linear), 1):
                score = _score(watching.base + _apply(network, x_watched), watching.Y)
                since = 0 if score > top else since + 1
                top = max(top, score)
                if score > best.score:
                    best = _Chosen(hidden, decay, epoch, score, ridge)
                if epoch == mlp.epochs or since == mlp.patience:
                    break
    return best


def _network(whole: _Part, test: Floats, mlp: MlpConfig, one: _Chosen, seed: int, linear: bool) -> Floats:
    """Output on the test rows, (t, v), of a network with the chosen settings that is trained on all fit rows."""
    if not one.epochs:
        return np.zeros((len(test), whole.Y.shape[1]), np.float32)
    whole, (x_test,) = _scaled(whole, test)
    trained = _epochs(whole, mlp, one.hidden, one.decay, seed, linear)
    for _ in range(one.epochs):
        network = next(trained)
    return _apply(network, x_test)


def _scaled(part: _Part, *others: Floats) -> tuple[_Part, list[Any]]:
    """Tensors of a part and of other features, columns with the means and deviations of the part's."""
    import torch

    mean, spread = part.X.mean(axis=0), part.X.std(axis=0)
    spread[spread <= 1e-6 * spread.max()] = 1  # a constant column
    scaled = [torch.from_numpy((X - mean) / spread) for X in (part.X, *others)]
    return _Part(scaled[0], torch.from_numpy(part.base), torch.from_numpy(part.Y)), scaled[1:]


def _epochs(part: _Part, mlp: MlpConfig, hidden: int, decay: float, seed: int, linear: bool) -> Iterator[Any]:
    """Yield the network after each epoch, endlessly. Random numbers come from the seed, not from torch's global state."""
    import torch
    from torch import nn

    draw = torch.Generator().manual_seed(seed)
    (n, p), v = part.X.shape, part.Y.shape[1]
    first, last = nn.utils.skip_init(nn.Linear, p, hidden), nn.utils.skip_init(nn.Linear, hidden, v)
    network = nn.Sequential(first, nn.Identity() if linear else nn.GELU(), last)
    with torch.no_grad():
        first.weight.normal_(0, p**-0.5, generator=draw)
        for zero in (first.bias, last.weight, last.bias):
            zero.zero_()
    optimizer = torch.optim.AdamW(network.parameters(), lr=mlp.learning_rate, weight_decay=decay)
    left = part.Y - part.base
    while True:
        with torch.enable_grad():
            for rows in torch.randperm(n, generator=draw).split(mlp.batch):
                optimizer.zero_grad(set_to_none=True)
                (left[rows] - network(part.X[rows])).square().mean(dim=0).sum().backward()
                optimizer.step()
        yield network


def _apply(network: Any, X: Any) -> Floats:
    import torch

    with torch.no_grad():
        return np.asarray(network(X).numpy())


def _score(predicted: NDArray[Any], measured: NDArray[Any]) -> float:
    """Mean correlation over voxels: the criterion of the choice, because it is what is reported."""
    return float(np.mean(pearson(measured, predicted)))


def _scored(
    ridge: Floats,
    predictions: Sequence[Sequence[Floats]],
    chosen: Sequence[Sequence[_Chosen]],
    listener: Listener,
    config: AlignConfig,
    mlp: MlpConfig,
) -> MlpScores:
    """Correlations on the test rows with paired bootstrap draws. Several runs are z-scored each, as in scores_of."""
    runs = listener.runs

    def within(values: NDArray[Any]) -> NDArray[Any]:
        return values if runs is None else zscore(values, runs)

    measured, n_seeds = within(listener.test), len(mlp.seeds)
    each = [within(values) for values in (ridge, *(values for of in predictions for values in of))]
    found = bootstrap_region_scores(
        measured, each, listener.regions, runs=runs, block=config.block, n_boots=config.bootstraps, random_state=config.seed
    )
    places = [slice(0, 1), slice(1, 1 + n_seeds), slice(1 + n_seeds, None)]
    region, draws = np.full((3, len(found.regions)), np.nan), np.full((len(found.draws), 3, len(found.regions)), np.nan)
    for k, place in enumerate(places[: 1 + len(predictions)]):
        region[k], draws[:, k] = found.r[place].mean(axis=0), found.draws[:, place].mean(axis=1)
    padded = [*chosen, *([[_Chosen(0, np.nan, 0, np.nan, np.nan)] * n_seeds] * (2 - len(chosen)))]
    return MlpScores(
        ridge=region[0],
        mlp=region[1],
        linear=region[2],
        draws=draws,
        r_ridge=np.asarray(pearson(measured, each[0]), np.float64),
        r_mlp=np.mean([pearson(measured, values) for values in each[places[1]]], axis=0, dtype=np.float64),
        n_blocks=np.array(found.n_blocks),
        n_settings=np.array(mlp.n_settings),
        hidden=np.array([[one.hidden for one in of] for of in padded]),
        weight_decay=np.array([[one.decay for one in of] for of in padded]),
        epochs=np.array([[one.epochs for one in of] for of in padded]),
        inner=np.array([[(one.ridge, one.score) for one in of] for of in padded]),
    )


def mlp_rows(
    found: Mapping[tuple[str, str, int], MlpScores], columns: Mapping[str, Sequence[str] | Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of ``mlp.csv``.

    Parameters
    ----------
    found : (participant, model, layer) → MlpScores
    columns : participant → regions, in the order of the scores

    Returns
    -------
    list of dict
        ``participant``, ``model``, ``layer``, ``region``; ``r_ridge`` and ``r_mlp``; ``difference``, the second less the first,
        and its 95 % interval from blocks of the test runs, ``low`` and ``high``; ``r_linear`` of the network without its
        nonlinearity; ``beyond_linear``, ``r_mlp`` less that, with ``beyond_low`` and ``beyond_high``; ``settings``, how many were
        tried for each network; ``epochs``, the mean over seeds of those chosen, 0 where ridge was best.
    """
    rows = []
    for (who, model, layer), scores in found.items():
        for place, region in enumerate(columns[who]):
            ridge, mlp, linear = scores.ridge[place], scores.mlp[place], scores.linear[place]
            gain, low, high = _gain(scores, "ridge", place)
            beyond, beyond_low, beyond_high = _gain(scores, "linear", place)
            rows.append({
                "participant": who, "model": model, "layer": layer, "region": region,
                "r_ridge": float(ridge), "r_mlp": float(mlp), "difference": gain, "low": low, "high": high,
                "r_linear": float(linear), "beyond_linear": beyond,
                "beyond_low": beyond_low, "beyond_high": beyond_high,
                "settings": int(scores.n_settings), "epochs": float(scores.epochs[0].mean()),
                "nonlinear": bool(low > 0 and beyond_low > 0) if np.isfinite([low, beyond_low]).all() else None,
            })  # fmt: skip
    return rows


def _gain(scores: MlpScores, over: str, region: int) -> tuple[float, float, float]:
    """:meth:`MlpScores.gain` and the ends of its .95 interval; NaN if the other prediction was not made."""
    value, draws = scores.gain(over, region)
    if not np.isfinite(value):
        return np.nan, np.nan, np.nan
    low, high = interval(value, draws, float(scores.n_blocks), correlation=False)
    return value, float(low), float(high)
