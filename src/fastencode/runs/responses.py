"""The stage ``responses/<participant>``: what ridges are fitted and scored on, from a data set to arrays that are read by tiles.

    fit.npy          (t, v) float32     the fit runs, z-scored within each
    test.npy         (u, v) float32     the test runs; tests.json counts their rows and repeats
    shares.npy       (s, v) float64     signal power / total power, NaN for a test run that was not repeated; spread.npy
                                        likewise, 1 there
    voxels.npy       (v,)               columns of the data set; regions.json has columns of these arrays, n_voxels.npy V

Axis letters: t row of the fit runs, u row of the test runs, s test run, v voxel, V all voxels of the data set.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from fastencode.data.checks import constant_targets
from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import say
from fastencode.study.brains.ceilings import (
    Signal,
    averaged_spread,
    ceiling_pvalues,
    joint_ceiling,
    scored_signal,
    signal_share,
    split_repeats,
)
from fastencode.study.brains.layer_scores import Listener
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.inference.blocks import permuted_autocorrelation
from fastencode.study.inference.significance import FALSE_DISCOVERIES, fdr
from fastencode.timing.clean import zscore

__all__ = ["ceilings_of", "load_listener", "null_row", "regions_of", "voxels_of", "write_responses"]

# Voxels whose repeats are in memory at once: 50 MB for ten repeats of 300 scans.
_VOXELS_READ = 4096
# What tests.json has of each test run beside its rows: 1 where it was not repeated.
_COUNTS = ("n_repeats", "n_averaged")


class _Heard(NamedTuple):
    """One participant's responses to a test run: rows to score on (u, V), and of every voxel (V,):

    ``choosing``, the signal that it is chosen by, and its p-value ``p``; ``scored``, the signal whose ceiling its scores are
    divided by, and the spread. Signals are None without repeats.
    """

    test: NDArray[np.float32]
    choosing: Signal | None
    scored: Signal | None
    p: NDArray[np.float64]
    spread: NDArray[np.float64]


def write_responses(
    folder: Path,
    data: Dataset,
    who: str,
    fit: Sequence[str],
    scored: Sequence[tuple[str, slice]],
    regions: Mapping[str, NDArray[np.intp]],
    *,
    threshold: float,
    split_half: bool,
) -> None:
    """The stage of one participant's responses.

    The rows of all fit runs, z-scored within each, and those of all test runs. Both are cut to voxels with a significant ceiling
    above ``threshold`` (below 0: to all); regions, to those of them that vary and have no gaps.

    Of several test runs that were repeated, the ceiling that counts here is that of all together (:func:`joint_ceiling`), and the
    p-value combines theirs by Fisher's method. Test runs without repeats have no part in this choice.

    Parameters
    ----------
    scored : sequence of (str, slice)
        The test runs and their rows that are scored.
    """
    heard = [_test_responses(data, who, run, rows, split_half) for run, rows in scored]
    test, known = np.concatenate([one.test for one in heard]), [one.choosing for one in heard if one.choosing is not None]
    choosing = joint_ceiling(known) if known else None
    mapped = np.ones(test.shape[1], bool) if choosing is None else choosing > threshold
    if choosing is not None and threshold >= 0:
        p = np.array([one.p for one in heard if one.choosing is not None])
        mapped &= fdr(scipy.stats.combine_pvalues(p, method="fisher", axis=0).pvalue) <= FALSE_DISCOVERIES
    voxels = np.flatnonzero(mapped)
    if not len(voxels):
        raise InputError(f"no voxel of {who} has a significant noise ceiling above {threshold:g}: lower it")
    whole, varies = np.isfinite(test[:, voxels]).all(axis=0), np.zeros(len(voxels), bool)
    with (folder / "fit.npy").open("wb") as stacked:  # not a memory map: on a full disk that ends the process without a word
        shape = (sum(int(data.kept(who, run).sum()) for run in fit), len(voxels))
        write_array_header_1_0(stacked, {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape})
        for run in fit:
            part = data.responses(who, run, voxels=voxels)[data.kept(who, run)]
            whole &= np.isfinite(part).all(axis=0)
            varies |= ~constant_targets(part)
            stacked.write(zscore(np.where(np.isfinite(part), part, 0)).astype(np.float32).tobytes())
    for one in heard:  # nothing to fit, or nothing to score: no score of 0 either
        whole &= varies & ~constant_targets(one.test[:, voxels])
    if not whole.any():
        raise InputError(
            f"every voxel of {who} that could be mapped is constant, or holds values that are not finite in some story"
        )
    kept, among = f"{who}: {whole.sum()} of {test.shape[1]} voxels are mapped", np.count_nonzero(~whole)
    if len(voxels) < len(mapped):
        kept += f"; {len(mapped) - len(voxels)} have no significant noise ceiling above {threshold:g}"
    if choosing is not None and (none := np.count_nonzero(choosing == 0)):
        kept += f"; {none} voxel{'s have' if none > 1 else ' has'} a noise ceiling of 0"
    say(kept + (f"; {among} are constant or hold values that are not finite" if among else ""))
    column = np.full(test.shape[1], -1)
    column[voxels[whole]] = np.flatnonzero(whole)
    columns = {WHOLE: np.flatnonzero(whole)} | {name: column[chosen][column[chosen] >= 0] for name, chosen in regions.items()}
    empty = [name for name, chosen in columns.items() if not len(chosen)]
    if empty:
        say(f"{who}: no voxel to map in {', '.join(empty)}, left out")
    np.save(folder / "test.npy", np.where(whole, test[:, voxels], 0).astype(np.float32))
    np.save(folder / "voxels.npy", voxels)
    np.save(folder / "n_voxels.npy", test.shape[1])
    np.save(folder / "spread.npy", np.array([one.spread[voxels] for one in heard]))
    unknown = np.full(test.shape[1], np.nan)
    np.save(folder / "shares.npy", np.array([(unknown if one.scored is None else one.scored.share)[voxels] for one in heard]))
    counts = [dict.fromkeys(_COUNTS, 1) if one.scored is None else one.scored._asdict() for one in heard]
    tests = [{"rows": len(one.test), **{name: of[name] for name in _COUNTS}} for one, of in zip(heard, counts, strict=True)]
    _write_json(folder / "tests.json", dict(zip((run for run, _ in scored), tests, strict=True)))
    _write_json(folder / "regions.json", {name: chosen.tolist() for name, chosen in columns.items() if len(chosen)})


def _test_responses(data: Dataset, who: str, run: str, rows: slice, split_half: bool) -> _Heard:
    """What there is of a test run, usable rows only, without censored ones. Repeats are read by tiles of voxels."""
    n_voxels, counts = data.n_voxels(who), data.kept(who, run)
    kept = rows if counts.all() else np.flatnonzero(counts)[np.isin(np.flatnonzero(counts), np.arange(len(counts))[rows])]
    if not data.is_repeated(who, run):
        if split_half:
            raise InputError(f"{who} heard {run} once: without repeats there are no halves to split")
        return _Heard(data.responses(who, run)[kept], None, None, np.ones(n_voxels), np.ones(n_voxels))
    halves, choosing, scored, p, spreads, gaps = [], [], [], [], [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # of gaps: below, once for all tiles
        for start in range(0, n_voxels, _VOXELS_READ):
            tile = np.arange(start, min(start + _VOXELS_READ, n_voxels))
            repeats = data.repeats(who, run, voxels=tile)[:, kept]
            gaps += int((~np.isfinite(repeats).all(axis=(0, 1))).sum())
            first, second = split_repeats(len(repeats)) if split_half else (slice(None), slice(None))
            choosing.append(signal_share(repeats[first], n_averaged=len(repeats[second])))
            scored.append(scored_signal(repeats) if split_half else choosing[-1])
            p.append(ceiling_pvalues(repeats[first]))
            spreads.append(averaged_spread(repeats[second]))
            if split_half:
                halves.append(repeats[second].mean(axis=0))
    if gaps:
        warnings.warn(
            f"{who}, {run}: {gaps} of {n_voxels} voxels hold values that are not finite: their noise ceiling is 0",
            FastencodeWarning,
            stacklevel=2,
        )
    test = np.concatenate(halves, axis=1) if split_half else data.responses(who, run)[kept]
    return _Heard(test, _of_tiles(choosing), _of_tiles(scored), np.concatenate(p), np.concatenate(spreads))


def _of_tiles(signals: Sequence[Signal]) -> Signal:
    return signals[0]._replace(share=np.concatenate([one.share for one in signals]))


def load_listener(responses: Path) -> Listener:
    """What :func:`write_responses` wrote; rows of the fit runs are a memory map."""
    tests = _read_json(responses / "tests.json")
    rows = [one["rows"] for one in tests.values()]
    return Listener(
        fit=np.load(responses / "fit.npy", mmap_mode="r"),
        test=np.load(responses / "test.npy"),
        signals=list(_signals(responses).values()),
        regions=regions_of(responses),
        spread=np.load(responses / "spread.npy"),
        runs=np.repeat(list(tests), rows),
    )


def null_row(responses: Path, who: str, config: AlignConfig) -> dict[str, Any]:
    """What the permutation test of one participant keeps of the autocorrelation, as a row of ``autocorrelation.csv``.

    ``scans`` of the test stories, ``block`` scans in a block (of the story with the longest), and the autocorrelation at lag 1,
    averaged over voxels, of ``responses`` and of ``permuted`` ones. Where the last is clearly lower, p-values are too small.
    """
    listener = load_listener(responses)
    given: dict[str, Any] = {"runs": listener.runs, "block": config.block, "random_state": config.seed}
    measured, permuted, block = permuted_autocorrelation(zscore(listener.test, listener.runs), **given)
    return {"participant": who, "scans": len(listener.test), "block": block, "responses": measured, "permuted": permuted}


def voxels_of(responses: Path) -> tuple[NDArray[np.intp], int, NDArray[np.float64] | None]:
    """(Column of the responses of each entry of the records, columns of the responses, ceiling of each entry or None)."""
    return np.load(responses / "voxels.npy"), int(np.load(responses / "n_voxels.npy")), load_listener(responses).ceiling


def ceilings_of(responses: Path) -> dict[str, NDArray[np.float64]]:
    """Test run → ceiling of each entry of the records, of those that were repeated; empty where there is one test run."""
    signals = _signals(responses)
    return {run: joint_ceiling([one]) for run, one in signals.items() if one is not None} if len(signals) > 1 else {}


def _signals(responses: Path) -> dict[str, Signal | None]:
    """Test run → signal of each entry of the records, None for one that was not repeated."""
    tests, shares = _read_json(responses / "tests.json"), np.load(responses / "shares.npy")
    return {
        run: None if one["n_repeats"] == 1 else Signal(share, one["n_repeats"], one["rows"], one["n_averaged"])
        for (run, one), share in zip(tests.items(), shares, strict=True)
    }


def regions_of(responses: Path) -> dict[str, NDArray[np.intp]]:
    """Columns of a participant's responses, by region."""
    return {name: np.array(columns) for name, columns in _read_json(responses / "regions.json").items()}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
