"""What the stages of align, demo and alice do: responses to score, and a ridge for each layer.

Their results are keyed by all code that is imported here, so nothing here knows stages, tables or figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from fastencode.data.checks import constant_targets
from fastencode.data.dataset import Dataset
from fastencode.errors import InputError
from fastencode.progress import say
from fastencode.study.ceilings import averaged_spread, noise_ceiling, significant_ceilings, split_repeats
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.design import Design
from fastencode.study.layer_scores import Listener, save, score_layer, share_layer
from fastencode.study.sources import LowLevel
from fastencode.timing.clean import zscore

__all__ = ["RECORD", "fit_layer", "partition_layer", "regions_of", "voxels_of", "write_responses"]

RECORD = "layer.h5"


def write_responses(
    folder: Path,
    data: Dataset,
    who: str,
    fit: Sequence[str],
    regions: Mapping[str, NDArray[np.intp]],
    threshold: float,
    split_half: bool,
) -> None:
    """The stage of one participant's responses.

    The rows of all runs, z-scored within each, cut to voxels with a significant ceiling above ``threshold`` (below 0: to all);
    regions, to those of them that vary and have no gaps.
    """
    ceiling, significant, spread, test = _test_responses(data, who, split_half)
    mapped = np.ones(test.shape[1], bool) if ceiling is None else ceiling > threshold
    if threshold >= 0:
        mapped &= significant
    voxels = np.flatnonzero(mapped)
    if not len(voxels):
        raise InputError(f"no voxel of {who} has a significant noise ceiling above {threshold:g}: lower it")
    rows = [data.n_rows(run) for run in fit]
    whole, varies = np.isfinite(test[:, voxels]).all(axis=0), np.zeros(len(voxels), bool)
    with (folder / "fit.npy").open("wb") as stacked:  # not a memory map: on a full disk that ends the process without a word
        layout = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": (sum(rows), len(voxels))}
        write_array_header_1_0(stacked, layout)
        for run in fit:
            part = data.responses(who, run, voxels=voxels)
            whole &= np.isfinite(part).all(axis=0)
            varies |= ~constant_targets(part)
            stacked.write(zscore(np.where(np.isfinite(part), part, 0)).astype(np.float32).tobytes())
    whole &= varies & ~constant_targets(test[:, voxels])  # nothing to fit, or nothing to score: no score of 0 either
    if not whole.any():
        raise InputError(
            f"every voxel of {who} that could be mapped is constant, or holds values that are not finite in some story"
        )
    kept, among = f"{who}: {whole.sum()} of {test.shape[1]} voxels are mapped", np.count_nonzero(~whole)
    if ceiling is not None:
        what = "noise ceiling" if threshold < 0 else "significant noise ceiling"
        kept += f"; {len(ceiling) - len(voxels)} have no {what} above {threshold:g}, {(ceiling == 0).sum()} none at all"
    say(kept + (f"; {among} are constant or hold values that are not finite" if among else ""))
    column = np.full(test.shape[1], -1)
    column[voxels[whole]] = np.flatnonzero(whole)
    columns = {WHOLE: np.flatnonzero(whole)}
    columns |= {name: column[chosen][column[chosen] >= 0] for name, chosen in regions.items()}
    empty = [name for name, chosen in columns.items() if not len(chosen)]
    if empty:
        say(f"{who}: no voxel to map in {', '.join(empty)}, left out")
    np.save(folder / "test.npy", np.where(whole, test[:, voxels], 0).astype(np.float32))
    np.save(folder / "voxels.npy", voxels)
    np.save(folder / "n_voxels.npy", test.shape[1])
    np.save(folder / "spread.npy", spread[voxels])
    if ceiling is not None:
        np.save(folder / "ceiling.npy", ceiling[voxels])
    text = json.dumps({name: chosen.tolist() for name, chosen in columns.items() if len(chosen)})
    (folder / "regions.json").write_text(text, encoding="utf-8")


def _test_responses(data: Dataset, who: str, split_half: bool) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, np.ndarray]:
    """Noise ceilings (None without repeats), where they are significant, spread, and the responses to score on, usable rows
    only."""
    test_story = data.test_story
    rows = data.usable_rows(test_story)
    if not data.is_repeated(who, test_story):
        if split_half:
            raise InputError(f"{who} heard {test_story} once: without repeats there are no halves to split")
        test = data.responses(who, test_story)[rows]
        return None, np.ones(test.shape[1], bool), np.ones(test.shape[1]), test
    repeats = data.repeats(who, test_story)[:, rows]
    if not split_half:
        test = data.responses(who, test_story)[rows]
        return noise_ceiling(repeats), significant_ceilings(repeats), averaged_spread(repeats), test
    first, second = split_repeats(len(repeats))
    scored = repeats[second]
    ceiling = noise_ceiling(repeats[first], n_averaged=len(scored))
    return ceiling, significant_ceilings(repeats[first]), averaged_spread(scored), scored.mean(axis=0)


def _listener(responses: Path) -> Listener:
    ceiling = responses / "ceiling.npy"
    return Listener(
        fit=np.load(responses / "fit.npy", mmap_mode="r"),
        test=np.load(responses / "test.npy"),
        ceiling=np.load(ceiling) if ceiling.exists() else None,
        regions=regions_of(responses),
        spread=np.load(responses / "spread.npy"),
    )


def voxels_of(responses: Path) -> tuple[NDArray[np.intp], int, NDArray[np.float64] | None]:
    """(Column of the responses of each entry of the records, columns of the responses, ceiling of each entry or None)."""
    ceiling = responses / "ceiling.npy"
    columns, total = np.load(responses / "voxels.npy"), int(np.load(responses / "n_voxels.npy"))
    return columns, total, np.load(ceiling) if ceiling.exists() else None


def regions_of(responses: Path) -> dict[str, NDArray[np.intp]]:
    regions = json.loads((responses / "regions.json").read_text(encoding="utf-8"))
    return {name: np.array(columns) for name, columns in regions.items()}


def fit_layer(folder: Path, design: Design, responses: Path, config: AlignConfig, permutations: int) -> None:
    """The stage of one layer in one participant."""
    scores = score_layer(design.plan, design.matrices[1], _listener(responses), config, permutations=permutations)
    save(scores, folder / RECORD)


def partition_layer(
    folder: Path, design: Design, responses: Path, low: Sequence[LowLevel], config: AlignConfig, candidates: int
) -> None:
    """The stage of what is unique to one layer in one participant, beside low-level features."""
    shares = share_layer(design.bands(low), design.matrices[2], _listener(responses), config, candidates=candidates)
    save(shares, folder / RECORD)
