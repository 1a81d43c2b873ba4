"""The stages of ``align``, and what is finished of them, whichever command made it.

    stories ─► responses/<participant> ─┐
    features/<story>.h5 ─► design, plan ┴► fits/<model>/<participant>/layer-NN ─► records

The settings of each hold under ``shared`` what must be alike for two records to stand in one table.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from fastencode.data.checks import constant_targets
from fastencode.data.stories import Stories
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import say
from fastencode.runs.engine import Stages
from fastencode.runs.making import SIGNATURE, Signature
from fastencode.runs.provenance import plain
from fastencode.study.ceilings import averaged_spread, ceiling_pvalues, noise_ceiling, split_repeats
from fastencode.study.config import WHOLE, AlignConfig
from fastencode.study.layer_scores import LayerScores, LayerShares, Listener, load, save, score_layer, share_layer
from fastencode.study.significance import FALSE_DISCOVERIES, fdr
from fastencode.study.sources import Design, LowLevel
from fastencode.study.tables import Key, Label
from fastencode.timing.clean import zscore

__all__ = ["RECORD", "Records", "collect", "fit_layer", "partition_layer", "regions_of", "write_responses"]

RECORD = "layer.h5"


def write_responses(
    folder: Path,
    stories: Stories,
    who: str,
    fit: Sequence[str],
    regions: Mapping[str, NDArray[np.intp]],
    *,
    threshold: float,
    split_half: bool,
) -> None:
    """The stage of one participant's responses.

    The rows of all stories, z-scored within each, cut to voxels with a significant ceiling above ``threshold`` (below 0: to all);
    regions, to those of them that vary and have no gaps.
    """
    ceiling, significant, spread, test = _test_responses(stories, who, split_half)
    mapped = np.ones(test.shape[1], bool) if ceiling is None else ceiling > threshold
    if threshold >= 0:
        mapped &= significant
    voxels = np.flatnonzero(mapped)
    if not len(voxels):
        raise InputError(f"no voxel of {who} has a significant noise ceiling above {threshold:g}: lower it")
    rows = [stories.n_rows(story) for story in fit]
    whole, varies = np.isfinite(test[:, voxels]).all(axis=0), np.zeros(len(voxels), bool)
    with (folder / "fit.npy").open("wb") as stacked:  # not a memory map: on a full disk that ends the process without a word
        layout = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": (sum(rows), len(voxels))}
        write_array_header_1_0(stacked, layout)
        for story in fit:
            part = stories.responses(who, story, voxels=voxels)
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
    columns = {WHOLE: np.flatnonzero(whole)} | {name: column[chosen][column[chosen] >= 0] for name, chosen in regions.items()}
    empty = [name for name, chosen in columns.items() if not len(chosen)]
    if empty:
        say(f"{who}: no voxel to map in {', '.join(empty)}, left out")
    np.save(folder / "test.npy", np.where(whole, test[:, voxels], 0).astype(np.float32))
    np.save(folder / "voxels.npy", voxels)
    np.save(folder / "spread.npy", spread[voxels])
    if ceiling is not None:
        np.save(folder / "ceiling.npy", ceiling[voxels])
    text = json.dumps({name: chosen.tolist() for name, chosen in columns.items() if len(chosen)})
    (folder / "regions.json").write_text(text, encoding="utf-8")


def _test_responses(stories: Stories, who: str, split_half: bool) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, np.ndarray]:
    """Noise ceilings (None without repeats), where they are significant, spread, and the responses to score on, usable rows
    only."""
    rows = stories.usable_rows(stories.test_story)
    if not stories.is_repeated(who, stories.test_story):
        if split_half:
            raise InputError(f"{who} heard {stories.test_story} once: without repeats there are no halves to split")
        test = stories.responses(who, stories.test_story)[rows]
        return None, np.ones(test.shape[1], bool), np.ones(test.shape[1]), test
    repeats = stories.repeats(who, stories.test_story)[:, rows]
    if not split_half:
        test = stories.responses(who, stories.test_story)[rows]
        return noise_ceiling(repeats), _significant(repeats), averaged_spread(repeats), test
    first, second = split_repeats(len(repeats))
    scored = repeats[second]
    ceiling = noise_ceiling(repeats[first], n_averaged=len(scored))
    return ceiling, _significant(repeats[first]), averaged_spread(scored), scored.mean(axis=0)


def _significant(repeats: np.ndarray) -> np.ndarray:
    """Voxels whose repeats agree, at a false discovery rate of 5 %."""
    return fdr(ceiling_pvalues(repeats)) <= FALSE_DISCOVERIES


def _listener(responses: Path) -> Listener:
    ceiling = responses / "ceiling.npy"
    return Listener(
        fit=np.load(responses / "fit.npy", mmap_mode="r"),
        test=np.load(responses / "test.npy"),
        ceiling=np.load(ceiling) if ceiling.exists() else None,
        regions=regions_of(responses),
        spread=np.load(responses / "spread.npy"),
    )


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


@dataclass(frozen=True)
class Records:
    """What is finished, in the order of the tables.

    Attributes
    ----------
    scores : (label, participant, layer) → LayerScores
    shares : (label, participant, layer) → LayerShares
    bands : (label, participant, layer) → names of the low-level features in ``shares``
    columns : participant → region → columns of the responses
    fit_rows : participant → rows of responses that the ridges were fitted on
    """

    scores: Mapping[Key, LayerScores]
    shares: Mapping[Key, LayerShares]
    bands: Mapping[Key, tuple[str, ...]]
    columns: Mapping[str, Mapping[str, NDArray[np.intp]]]
    fit_rows: Mapping[str, int]


def collect(stages: Stages, shared: Mapping[str, Any], own: Collection[str], rank: Callable[[Label], Any]) -> Records:
    """All finished records of the output folder that may stand in one table, of this command and of others.

    Parameters
    ----------
    stages : Stages
    shared : mapping
        Settings that must be as given in every record that has them.
    own : collection of str
        Stages of this command. Where two records of one model are of different features, those like them are kept; of models that
        this command does not know, those like the newest.
    rank : callable
        Sorts labels.

    Raises
    ------
    InputError
        If there is none, or one is damaged.

    Warns
    -----
    FastencodeWarning
        If some were made by other code than the rest.
    """
    wanted = plain(shared)
    people = {name.split("/")[1]: one for name, one in stages.finished("responses/*").items() if _alike(one, wanted)}
    kept: dict[str, dict[Key, str]] = {}
    signatures: dict[str, Signature] = {}
    for kind in ("fits", "partitions"):
        found = stages.finished(f"{kind}/*/*/*")
        fine = {name: one for name, one in found.items() if one.settings["who"] in people and _alike(one, wanted)}
        fine = _of_one_model(stages, fine, own)
        if left_out := sorted({name.rpartition("/")[0] for name in found.keys() - fine.keys()}):
            say(f"left out of the tables, because their settings or features are others: {', '.join(left_out)}")
        _check_code(stages, fine, own)
        kept[kind] = {
            _key(one): name
            for name, one in sorted(fine.items(), key=lambda item: (rank(_key(item[1])[0]), *_key(item[1])[:0:-1]))
        }
        signatures |= fine
    if not kept["fits"]:
        raise InputError(f"{stages.root} holds no finished scores of these settings: give the same command without --collect")
    records = {kind: {key: stages.path(name) / RECORD for key, name in names.items()} for kind, names in kept.items()}
    heard = sorted({who for names in kept.values() for _, who, _ in names})
    return Records(
        {key: load(LayerScores, path) for key, path in records["fits"].items()},
        {key: load(LayerShares, path) for key, path in records["partitions"].items()},
        {key: tuple(signatures[name].settings["bands"]) for key, name in kept["partitions"].items()},
        {who: regions_of(stages.path(f"responses/{who}")) for who in heard},
        {who: len(np.load(stages.path(f"responses/{who}") / "fit.npy", mmap_mode="r")) for who in heard},
    )


def _key(one: Signature) -> Key:
    settings = one.settings
    label = Label(settings["source"], tuple(settings["delays"]), tuple(settings["less"]), settings["low_level"])
    return label, settings["who"], settings["layer"]


def _alike(one: Signature, wanted: Mapping[str, Any]) -> bool:
    return all(wanted.get(name, value) == value for name, value in one.settings["shared"].items())


def _reference(stages: Stages, among: Mapping[str, Signature], own: Collection[str]) -> Signature:
    """One that this command made, or the newest."""
    mine = [one for name, one in among.items() if name in own]
    return mine[0] if mine else among[max(among, key=lambda name: (stages.path(name) / SIGNATURE).stat().st_mtime_ns)]


def _of_one_model(stages: Stages, found: Mapping[str, Signature], own: Collection[str]) -> dict[str, Signature]:
    """Of each source the records of one model: a folder may have been filled again by another one of the same name."""
    sources: dict[str, dict[str, Signature]] = {}
    for name, one in found.items():
        sources.setdefault(one.settings["source"], {})[name] = one
    kept: dict[str, Signature] = {}
    for among in sources.values():
        made = _reference(stages, among, own).settings["made"]
        kept |= {name: one for name, one in among.items() if one.settings["made"] == made}
    return kept


def _check_code(stages: Stages, found: Mapping[str, Signature], own: Collection[str]) -> None:
    """Warn of records that other code made: whoever gave this command did not ask for them."""
    if not found:
        return
    code = _reference(stages, found, own).code
    if others := sorted({one.settings["who"] for one in found.values() if one.code != code}):
        warnings.warn(
            f"some scores of {', '.join(others)} were made by other code than the rest of the tables: to make them again, give"
            " the command with these participants",
            FastencodeWarning,
            stacklevel=2,
        )
