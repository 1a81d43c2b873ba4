"""Layers × participants × regions: the stages of align, demo and alice, and what is finished of them.

    runs ─► responses/<participant> ─────────┐
    features at scans ─► design, plan ───────┴► fits/<model>/<participant>/layer-NN ─► records, rows of tables

The settings of each stage hold under ``shared`` what must be alike for two records to stand in one table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeWarning, InputError
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.fits import RECORD, fit_layer, partition_layer, regions_of, write_responses
from fastencode.runs.making import SIGNATURE, Signature
from fastencode.runs.provenance import plain
from fastencode.study.config import AlignConfig
from fastencode.study.design import Design, Variant
from fastencode.study.layer_scores import LayerScores, LayerShares, load
from fastencode.study.sources import LowLevel
from fastencode.study.tables import Key, Label

__all__ = ["Question", "Records", "collect", "gather", "key_of", "layer_stages", "responses_stage"]


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
    partition : tuple of LowLevel
        What to tell apart from every plain variant at the delays of ``align``, by banded ridge.
    candidates : int
        Weightings of those bands to try.
    """

    data: Dataset
    heard: Mapping[str, tuple[str, ...]]
    regions: Mapping[str, Mapping[str, NDArray[np.intp]]]
    align: AlignConfig
    ceiling: float = 0.05
    split_half: bool = False
    permutations: int = 1000
    partition: tuple[LowLevel, ...] = ()
    candidates: int = 20

    @property
    def shared(self) -> dict[str, Any]:
        """What must be alike for two records to stand in one table. Each stage has what concerns it."""
        data = self.data
        found = {"test_story": data.test_story, "test_skip": data.usable_rows(data.test_story).start, "tr": data.tr}
        found |= {name: getattr(self, name) for name in ("align", "ceiling", "split_half", "permutations")}
        return found | ({"candidates": self.candidates} if self.partition else {})

    def some(self, *names: str) -> dict[str, Any]:
        """Those of :attr:`shared` with these names."""
        return {name: value for name, value in self.shared.items() if name in names}


def responses_stage(question: Question, who: str) -> Stage:
    """The stage of one participant's responses."""
    data, fit = question.data, question.heard[who]
    shared = question.some("test_story", "test_skip", "ceiling", "split_half")
    files = {f"{run}: {path.name}": path for run in (*fit, data.test_story) for path in data.response_files(who, run)}
    return Stage(
        f"responses/{who}",
        {"fit": fit, "regions": question.regions[who], "shared": shared},
        (),
        write_responses,
        (data, who, fit, question.regions[who], question.ceiling, question.split_half),
        inputs=files,
    )


def layer_stages(root: Path, question: Question, variant: Variant, participants: Sequence[str]) -> Iterator[Stage]:
    """What there is to do with every layer of a variant: one design and plan for all who heard the same runs."""
    for fit, group in groupby(sorted(participants, key=lambda who: question.heard[who]), key=lambda who: question.heard[who]):
        members = tuple(group)
        for layer in range(variant.source.n_layers):
            yield from _stages_of_layer(root, question, variant, layer, fit, members)


def _stages_of_layer(
    root: Path, question: Question, variant: Variant, layer: int, fit: Sequence[str], members: Sequence[str]
) -> Iterator[Stage]:
    data = question.data
    used, test = (*fit, data.test_story), (data.test_story, data.usable_rows(data.test_story))
    design = partial(Design, variant, layer, fit, test, question.align)  # one object: they share what it makes
    key = variant.source.key(data.test_story)
    settings = {
        "source": variant.source.name,
        "low_level": isinstance(variant.source, LowLevel),
        "less": [source.name for source in variant.nuisance],
        "delays": variant.delays,
        "layer": layer,
        "made": {name: value for name, value in key.items() if name != "audio"},  # by which model, and how
        "features": {run: variant.source.key(run) for run in used},
        "scans": {run: [data.row_times(run)[0], data.n_rows(run)] for run in used},
    }

    def stage(kind: str, who: str, make: Any, arguments: tuple[Any, ...], low: Sequence[LowLevel], *shared: str) -> Stage:
        bands = {"bands": [source.name for source in low]} if kind == "partitions" else {}
        files = {f"{path.parent.name}/{path.name}": path for one in low[:1] for run in used for path in one.files(run)}
        known = {"low": [{run: source.key(run) for run in used} for source in low]} if low else {}
        return Stage(
            f"{kind}/{variant.folder}/{who}/layer-{layer:02d}",
            {**settings, **bands, **known, "who": who, "shared": question.some("test_story", "tr", "align", *shared)},
            (f"responses/{who}",),
            make,
            (root / f"responses/{who}", *arguments),
            inputs=files,
            share=design,
        )

    low = [*variant.nuisance, *([variant.source] if isinstance(variant.source, LowLevel) else [])]
    for who in members:
        yield stage("fits", who, fit_layer, (question.align, question.permutations), low, "permutations")
        if question.partition and variant.plain and variant.delays == tuple(question.align.delays):
            arguments = (question.partition, question.align, question.candidates)
            yield stage("partitions", who, partition_layer, arguments, question.partition, "candidates")


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
        keys = {name: key_of(one.settings) for name, one in fine.items()}
        kept[kind] = {keys[name]: name for name in sorted(fine, key=lambda name: (rank(keys[name][0]), *keys[name][:0:-1]))}
        signatures |= fine
    if not kept["fits"]:
        raise InputError(f"{stages.root} holds no finished scores of these settings: give the same command without --collect")
    bands = {key: tuple(signatures[name].settings["bands"]) for key, name in kept["partitions"].items()}
    return gather(stages, kept["fits"], kept["partitions"], bands)


def gather(
    stages: Stages, fits: Mapping[Key, str], partitions: Mapping[Key, str], bands: Mapping[Key, tuple[str, ...]]
) -> Records:
    """The records of finished stages, by their names."""
    heard = sorted({who for _, who, _ in (*fits, *partitions)})
    return Records(
        {key: load(LayerScores, stages.path(name) / RECORD) for key, name in fits.items()},
        {key: load(LayerShares, stages.path(name) / RECORD) for key, name in partitions.items()},
        bands,
        {who: regions_of(stages.path(f"responses/{who}")) for who in heard},
        {who: len(np.load(stages.path(f"responses/{who}") / "fit.npy", mmap_mode="r")) for who in heard},
    )


def key_of(settings: Mapping[str, Any]) -> Key:
    """Which record a stage of :func:`layer_stages` makes, from its settings."""
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
