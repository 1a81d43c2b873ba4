"""The stages of ``align`` and of experiments, and what is finished of them, whichever command made it.

    stories ─► responses/<participant> ─┐
    features/<story>.h5 ─► design, plan ┴► fits/<model>/<participant>/layer-NN ─► records

The settings of each hold under ``shared`` what must be alike for two records to stand in one table.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from fastencode.data.checks import constant_targets
from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.making import SIGNATURE, Signature
from fastencode.runs.provenance import plain
from fastencode.study.ceilings import averaged_spread, ceiling_pvalues, noise_ceiling, split_repeats
from fastencode.study.config import WHOLE, AlignConfig, Resources
from fastencode.study.design import Design, Variant
from fastencode.study.layer_scores import LayerScores, LayerShares, Listener, load, save, score_layer, share_layer
from fastencode.study.significance import FALSE_DISCOVERIES, fdr
from fastencode.study.sources import LowLevel
from fastencode.study.tables import Key, Label
from fastencode.timing.clean import zscore

__all__ = [
    "RECORD",
    "Question",
    "Records",
    "collect",
    "fit_layer",
    "layer_stages",
    "partition_layer",
    "records_of",
    "regions_of",
    "responses_stage",
    "voxels_of",
    "write_responses",
]

RECORD = "layer.h5"

# Voxels whose repeats are in memory at once: 50 MB for ten repeats of 300 scans.
_VOXELS_READ = 4096


@dataclass(frozen=True)
class Question:
    """What is fitted and scored, whatever the features.

    Attributes
    ----------
    data : Dataset
    heard : participant → names of the runs to fit on
    regions : participant → region → voxels
    align : AlignConfig
    ceiling : float
        Voxels are mapped where their noise ceiling is above this and significant; all that vary where the test run was not
        repeated. Below 0 all are mapped.
    split_half : bool
        Whether voxels are chosen on one half of the repeats and scored on the other.
    permutations : int
        Of each voxel's p-value.
    candidates : int
        Weightings of bands to try, where features are told apart by banded ridge.
    non_speech : collection of str
        Labels that low-level features of words take for no speech.
    resources : Resources
        What ridges are computed with. Stages do not depend on it.
    """

    data: Dataset
    heard: Mapping[str, tuple[str, ...]]
    regions: Mapping[str, Mapping[str, NDArray[np.intp]]]
    align: AlignConfig
    ceiling: float = 0.05
    split_half: bool = False
    permutations: int = 1000
    candidates: int = 20
    non_speech: Collection[str] = field(default_factory=tuple)
    resources: Resources = field(default_factory=Resources)

    def shared(self, *names: str) -> dict[str, Any]:
        """Settings that must be alike for two records to stand in one table."""
        test = self.data.test_story
        of_data = {"test_story": test, "test_skip": self.data.usable_rows(test).start, "tr": self.data.tr}
        return {name: of_data[name] if name in of_data else getattr(self, name) for name in names}


def responses_stage(question: Question, who: str) -> Stage:
    """One participant's responses, as :func:`write_responses` makes them."""
    data, fit, regions = question.data, question.heard[who], question.regions[who]
    return Stage(
        f"responses/{who}",
        {"fit": fit, "regions": regions, "shared": question.shared("test_story", "test_skip", "ceiling", "split_half")},
        (),
        partial(write_responses, threshold=question.ceiling, split_half=question.split_half),
        (data, who, fit, regions),
        inputs={f"{run}/{path.name}": path for run in (*fit, data.test_story) for path in data.response_files(who, run)},
    )


def layer_stages(
    root: Path, question: Question, variant: Variant, participants: Sequence[str], partition: Sequence[LowLevel] = ()
) -> Iterator[Stage]:
    """Every layer in every participant: one design and plan for all who heard the same runs.

    Parameters
    ----------
    root : Path
        The output folder.
    question : Question
    variant : Variant
    participants : sequence of str
    partition : sequence of LowLevel
        What to tell apart from the layers, where the variant is plain and has the delays of ``question.align``.
    """
    ordered = sorted(participants, key=lambda who: question.heard[who])
    for fit, group in groupby(ordered, key=lambda who: question.heard[who]):
        members = tuple(group)
        for layer in range(variant.source.n_layers):
            yield from _stages_of_a_layer(root, question, variant, layer, fit, members, tuple(partition))


def _stages_of_a_layer(
    root: Path,
    question: Question,
    variant: Variant,
    layer: int,
    fit: Sequence[str],
    members: Sequence[str],
    bands: tuple[LowLevel, ...],
) -> Iterator[Stage]:
    data, test = question.data, question.data.test_story
    used = (*fit, test)
    # One object: they share it.
    design = partial(Design, variant, layer, fit, (test, data.usable_rows(test)), question.align, question.resources)
    settings = {
        "source": variant.source.name,
        "low_level": isinstance(variant.source, LowLevel),
        "less": [source.name for source in variant.nuisance],
        "delays": variant.delays,
        "layer": layer,
        "made": {name: value for name, value in variant.source.key(test).items() if name != "audio"},  # by which model, and how
        "features": {run: variant.source.key(run) for run in used},
        "scans": {run: [data.row_times(run)[0], data.n_rows(run)] for run in used},
    }

    def stage(kind: str, who: str, make: Any, arguments: tuple[Any, ...], low: Sequence[LowLevel], **more: Any) -> Stage:
        shared = question.shared("test_story", "tr", "align", *more.pop("shared"), *(["non_speech"] if low else []))
        files = [path for source in low for run in used for path in source.stories.stimulus_files(run)]
        return Stage(
            f"{kind}/{variant.folder}/{who}/layer-{layer:02d}",
            {**settings, "who": who, "shared": shared, **more},
            (f"responses/{who}",),
            make,
            (root / f"responses/{who}", *arguments),
            inputs={f"{path.parent.name}/{path.name}": path for path in files},
            share=design,
        )

    low = [*variant.nuisance, *([variant.source] if isinstance(variant.source, LowLevel) else [])]
    for who in members:
        yield stage("fits", who, fit_layer, (question.align, question.permutations), low, shared=["permutations"])
        if bands and variant.plain and variant.delays == tuple(question.align.delays):
            arguments = (bands, question.align, question.candidates, question.resources)
            names = [source.name for source in bands]
            yield stage("partitions", who, partition_layer, arguments, bands, shared=["candidates"], bands=names)


def write_responses(
    folder: Path,
    data: Dataset,
    who: str,
    fit: Sequence[str],
    regions: Mapping[str, NDArray[np.intp]],
    *,
    threshold: float,
    split_half: bool,
) -> None:
    """The stage of one participant's responses.

    The rows of all runs, z-scored within each, cut to voxels with a significant ceiling above ``threshold`` (below 0: to all);
    regions, to those of them that vary and have no gaps.
    """
    test, ceiling, p, spread = _test_responses(data, who, data.test_story, data.usable_rows(data.test_story), split_half)
    mapped = np.ones(test.shape[1], bool) if ceiling is None else ceiling > threshold
    if ceiling is not None and threshold >= 0:
        mapped &= fdr(p) <= FALSE_DISCOVERIES
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
    columns = {WHOLE: np.flatnonzero(whole)} | {name: column[chosen][column[chosen] >= 0] for name, chosen in regions.items()}
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


class _Heard(NamedTuple):
    """One participant's responses to a test run: rows to score on (t, v), noise ceilings (v,) (None without repeats), their
    p-values (v,) and spreads (v,)."""

    test: NDArray[np.float32]
    ceiling: NDArray[np.float64] | None
    p: NDArray[np.float64]
    spread: NDArray[np.float64]


def _test_responses(data: Dataset, who: str, run: str, rows: slice, split_half: bool) -> _Heard:
    """What there is of a test run, usable rows only. Repeats are read by tiles of voxels."""
    n_voxels = data.n_voxels(who)
    if not data.is_repeated(who, run):
        if split_half:
            raise InputError(f"{who} heard {run} once: without repeats there are no halves to split")
        return _Heard(data.responses(who, run)[rows], None, np.ones(n_voxels), np.ones(n_voxels))
    scored, ceilings, p, spreads, gaps = [], [], [], [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # of gaps: below, once for all tiles
        for start in range(0, n_voxels, _VOXELS_READ):
            tile = np.arange(start, min(start + _VOXELS_READ, n_voxels))
            repeats = data.repeats(who, run, voxels=tile)[:, rows]
            gaps += int((~np.isfinite(repeats).all(axis=(0, 1))).sum())
            first, second = split_repeats(len(repeats)) if split_half else (slice(None), slice(None))
            ceilings.append(noise_ceiling(repeats[first], n_averaged=len(repeats[second])))
            p.append(ceiling_pvalues(repeats[first]))
            spreads.append(averaged_spread(repeats[second]))
            if split_half:
                scored.append(repeats[second].mean(axis=0))
    if gaps:
        warnings.warn(
            f"{who}, {run}: {gaps} of {n_voxels} voxels hold values that are not finite: their noise ceiling is 0",
            FastencodeWarning,
            stacklevel=2,
        )
    test = np.concatenate(scored, axis=1) if split_half else data.responses(who, run)[rows]
    return _Heard(test, *(np.concatenate(parts) for parts in (ceilings, p, spreads)))


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
    folder: Path,
    design: Design,
    responses: Path,
    low: Sequence[LowLevel],
    config: AlignConfig,
    candidates: int,
    resources: Resources,
) -> None:
    """The stage of what is unique to one layer in one participant, beside low-level features."""
    given = design.bands(low), design.matrices[2], _listener(responses), config
    shares = share_layer(*given, candidates=candidates, resources=resources)
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


def records_of(stages: Stages, names: Sequence[str]) -> Records:
    """The records of finished fits, in the order of their names.

    Parameters
    ----------
    stages : Stages
    names : sequence of str
        ``fits/<variant>/<participant>/layer-NN``.
    """
    signatures = stages.finished("fits/*/*/*")
    people = sorted({signatures[name].settings["who"] for name in names})
    scores = {_key(signatures[name]): load(LayerScores, stages.path(name) / RECORD) for name in names}
    return Records(scores, {}, {}, *_people(stages, people))


def _people(stages: Stages, people: Sequence[str]) -> tuple[dict[str, dict[str, NDArray[np.intp]]], dict[str, int]]:
    """Each participant's columns, and rows of responses."""
    folders = {who: stages.path(f"responses/{who}") for who in people}
    rows = {who: len(np.load(folder / "fit.npy", mmap_mode="r")) for who, folder in folders.items()}
    return {who: regions_of(folder) for who, folder in folders.items()}, rows


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
        *_people(stages, heard),
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
