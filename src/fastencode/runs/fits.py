"""The stages of ``align`` and of experiments, and what is finished of them, whichever command made it.

    stories ─► responses/<participant> ─┐
    features/<story>.h5 ─► design, plan ┴► {fits,partitions,leave-one-out,predictions,mlp}/<model>/<participant>/layer-NN

The settings of each hold under ``shared`` what must be alike for two records to stand in one table. A fit counts its files of
features and of stimuli by their contents: a file that another tool changed counts as new, even if the key inside is the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeWarning, InputError
from fastencode.plain import plain
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.making import SIGNATURE, Signature
from fastencode.runs.responses import load_listener, regions_of, voxels_of, write_responses
from fastencode.study.brains.design import Design, Variant
from fastencode.study.brains.layer_scores import (
    LayerScores,
    LayerShares,
    LeftOut,
    leave_stories_out,
    load,
    predict_in_tiles,
    save,
    scores_of,
    share_layer,
)
from fastencode.study.brains.mlp import MlpScores, mlp_against_ridge
from fastencode.study.brains.predictions import write_predictions
from fastencode.study.brains.sources import LowLevel
from fastencode.study.brains.tables import Key, Label
from fastencode.study.config import AlignConfig, MlpConfig, Resources

__all__ = [
    "RECORD",
    "Question",
    "Records",
    "collect",
    "fit_layer",
    "layer_stages",
    "mlp_layer",
    "partition_layer",
    "records_of",
    "responses_stage",
]

RECORD, TESTS, PREDICTIONS = "layer.h5", "tests", "predictions.h5"

_TIERS = ("word_tier", "phone_tier")  # of a data set with transcripts


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
    tests : tuple of str
        The runs to score on; by default the data set's one test run. Nothing is fitted on any of them.
    leave_one_out : bool
        Whether every run that is fitted on is predicted by ridges fitted on all others, too.
    save_predictions : bool
        Whether predictions of the test runs are kept.
    mlp : MlpConfig, optional
        Whether every layer that is plain and has the delays of ``align`` is fitted by a network beside ridge, and how.
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
    tests: tuple[str, ...] = ()
    leave_one_out: bool = False
    save_predictions: bool = False
    mlp: MlpConfig | None = None

    @property
    def scored(self) -> tuple[tuple[str, slice], ...]:
        """Every test run and its rows that are scored: all leave out as many at their start as the data set's own test run."""
        skip = self.data.usable_rows(self.data.test_story).start
        found = tuple((run, slice(skip, self.data.n_rows(run))) for run in self.tests or (self.data.test_story,))
        for run, rows in found:
            if rows.stop <= skip:
                raise InputError(f"{run} has {rows.stop} rows, test_skip leaves out {skip} of each test story: lower it")
        return found

    def censored(self, who: str) -> dict[str, NDArray[np.bool_]]:
        """The runs of a participant in which some rows do not count: run → which count."""
        used = (*self.heard[who], *(run for run, _ in self.scored))
        return {run: kept for run in used if not (kept := self.data.kept(who, run)).all()}

    def shared(self, *names: str) -> dict[str, Any]:
        """Settings that must be alike for two records to stand in one table."""
        scored = self.scored
        known = {"test_story": [run for run, _ in scored], "test_skip": scored[0][1].start, "tr": self.data.tr}
        known["ridge"] = self.align.ridge
        known |= {name: getattr(self.data, name, "") for name in _TIERS}
        return {name: known[name] if name in known else getattr(self, name) for name in names}


def responses_stage(question: Question, who: str) -> Stage:
    """One participant's responses, as :func:`write_responses` makes them."""
    data, fit, regions, scored = question.data, question.heard[who], question.regions[who], question.scored
    used = (*fit, *(run for run, _ in scored))
    return Stage(
        f"responses/{who}",
        {"fit": fit, "regions": regions, "shared": question.shared("test_story", "test_skip", "ceiling", "split_half")},
        (),
        partial(write_responses, threshold=question.ceiling, split_half=question.split_half),
        (data, who, fit, scored, regions),
        inputs={f"{run}/{path.name}": path for run in used for path in data.response_files(who, run)},
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
    censored = {who: question.censored(who) for who in participants}
    ordered = sorted(participants, key=lambda who: (question.heard[who], _digest(censored[who])))
    for (fit, _), group in groupby(ordered, key=lambda who: (question.heard[who], _digest(censored[who]))):
        members = tuple(group)
        for layer in range(variant.source.n_layers):
            yield from _stages_of_a_layer(root, question, variant, layer, fit, members, tuple(partition), censored[members[0]])


def _digest(censored: Mapping[str, NDArray[np.bool_]]) -> tuple[tuple[str, bytes], ...]:
    """What tells rows that count apart from others."""
    return tuple((run, kept.tobytes()) for run, kept in sorted(censored.items()))


def _stages_of_a_layer(
    root: Path,
    question: Question,
    variant: Variant,
    layer: int,
    fit: Sequence[str],
    members: Sequence[str],
    bands: tuple[LowLevel, ...],
    kept: Mapping[str, NDArray[np.bool_]],
) -> Iterator[Stage]:
    data, scored = question.data, question.scored
    used = (*fit, *(run for run, _ in scored))
    # One object for all stages of this layer: the engine makes the design once.
    design = partial(Design, variant, layer, fit, scored, question.align, question.resources, kept)
    settings = {
        "source": variant.source.name,
        "low_level": isinstance(variant.source, LowLevel),
        "less": [source.name for source in variant.nuisance],
        "delays": variant.delays,
        "layer": layer,
        # By which model, and how.
        "made": {name: value for name, value in variant.source.key(used[-1]).items() if name != "audio"},
        "features": {run: variant.source.key(run) for run in used},
        "scans": {run: [data.row_times(run)[0], data.n_rows(run)] for run in used},
        **({"censored": {run: np.flatnonzero(~of).tolist() for run, of in kept.items()}} if kept else {}),
    }

    def stage(kind: str, who: str, make: Any, arguments: tuple[Any, ...], low: Sequence[LowLevel], **more: Any) -> Stage:
        shared = question.shared("test_story", "tr", *more.pop("shared"), *(["non_speech", *_TIERS] if low else []))
        sources = (variant.source, *low)
        return Stage(
            f"{kind}/{variant.folder}/{who}/layer-{layer:02d}",
            {**settings, "who": who, "shared": shared, **more},
            (f"responses/{who}",),
            make,
            (root / f"responses/{who}", *arguments),
            inputs={f"{run}/{path.name}": path for source in sources for run in used for path in source.files(run)},
            share=design,
        )

    low = [*variant.nuisance, *([variant.source] if isinstance(variant.source, LowLevel) else [])]
    for who in members:
        yield stage("fits", who, fit_layer, (question.align, question.permutations), low, shared=["align", "permutations"])
        if question.leave_one_out and variant.delays == tuple(question.align.delays):
            rows = [int(data.kept(who, run).sum()) for run in fit]
            yield stage("leave-one-out", who, leave_out_layer, (), low, shared=["ridge"], held_out=fit, rows=rows)
        if question.save_predictions:
            times = {run: data.row_times(run)[rows][data.kept(who, run)[rows]] for run, rows in scored}
            attributes = {"participant": who, "model": variant.name, "delays": variant.delays, "layer": layer}
            yield stage("predictions", who, predict_layer, (times, attributes), low, shared=["ridge"])
        if question.mlp is not None and variant.plain and variant.delays == tuple(question.align.delays):
            yield stage("mlp", who, mlp_layer, (question.align, question.mlp), low, shared=["align", "mlp"])
        if bands and variant.plain and variant.delays == tuple(question.align.delays):
            arguments = (bands, question.align, question.candidates, question.resources)
            names = [source.name for source in bands]
            yield stage("partitions", who, partition_layer, arguments, bands, shared=["align", "candidates"], bands=names)


def fit_layer(folder: Path, design: Design, responses: Path, config: AlignConfig, permutations: int) -> None:
    """The stage of one layer in one participant: scores on all test runs together and, where they are several, on each."""
    listener = load_listener(responses)
    found = predict_in_tiles(design.plan, design.matrices[1], listener.fit)
    save(scores_of(found, listener, config, permutations=permutations), folder / RECORD)
    for run, rows, part in listener.each_run():
        scores = scores_of(found._replace(values=found.values[rows]), part, config, permutations=permutations)
        (folder / TESTS).mkdir(exist_ok=True)
        save(scores, folder / TESTS / f"{run}.h5")


def leave_out_layer(folder: Path, design: Design, responses: Path) -> None:
    """The stage of one layer in one participant whose runs are left out one by one."""
    save(leave_stories_out(design, load_listener(responses).fit), folder / RECORD)


def mlp_layer(folder: Path, design: Design, responses: Path, config: AlignConfig, mlp: MlpConfig) -> None:
    """The stage of one layer in one participant, fitted by a network beside ridge: see :mod:`fastencode.study.brains.mlp`."""
    save(mlp_against_ridge(design, load_listener(responses), config, mlp), folder / RECORD)


def predict_layer(
    folder: Path, design: Design, responses: Path, times: Mapping[str, NDArray[np.float64]], names: Mapping[str, Any]
) -> None:
    """The stage of one layer's predictions of one participant's test runs, as :func:`write_predictions` lays them out."""
    listener = load_listener(responses)
    found = predict_in_tiles(design.plan, design.matrices[1], listener.fit)
    write_predictions(folder / PREDICTIONS, found, listener, voxels_of(responses)[0], times, names)


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
    given = design.bands(low), design.matrices[2], load_listener(responses), config
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
    by_test : test run → (label, participant, layer) → LayerScores
        On each test run by itself; empty where there is one.
    left_out : (label, participant, layer) → LeftOut
    held_out : (label, participant, layer) → name of each run in ``left_out`` → its rows
    mlp : (label, participant, layer) → MlpScores
    """

    scores: Mapping[Key, LayerScores]
    shares: Mapping[Key, LayerShares]
    bands: Mapping[Key, tuple[str, ...]]
    columns: Mapping[str, Mapping[str, NDArray[np.intp]]]
    fit_rows: Mapping[str, int]
    by_test: Mapping[str, Mapping[Key, LayerScores]] = field(default_factory=dict)
    left_out: Mapping[Key, LeftOut] = field(default_factory=dict)
    held_out: Mapping[Key, Mapping[str, int]] = field(default_factory=dict)
    mlp: Mapping[Key, MlpScores] = field(default_factory=dict)


def records_of(stages: Stages, names: Sequence[str]) -> Records:
    """The records of finished fits, in the order of their names.

    Parameters
    ----------
    stages : Stages
    names : sequence of str
        ``fits/<variant>/<participant>/layer-NN``, and ``mlp/…`` of networks.
    """
    signatures = {**stages.finished("fits/*/*/*"), **stages.finished("mlp/*/*/*")}
    people = sorted({signatures[name].settings["who"] for name in names})
    folders: dict[str, dict[Key, Path]] = {"fits": {}, "mlp": {}}
    for name in names:
        folders[name.partition("/")[0]][_key(signatures[name])] = stages.path(name)
    scores = {key: load(LayerScores, folder / RECORD) for key, folder in folders["fits"].items()}
    networks = {key: load(MlpScores, folder / RECORD) for key, folder in folders["mlp"].items()}
    return Records(scores, {}, {}, *_people(stages, people), mlp=networks)


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
    for kind in ("fits", "partitions", "leave-one-out", "mlp"):
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
    folders = {kind: {key: stages.path(name) for key, name in names.items()} for kind, names in kept.items()}
    tests = [path.stem for path in sorted((next(iter(folders["fits"].values())) / TESTS).glob("*.h5"))]
    heard = sorted({who for names in kept.values() for _, who, _ in names})
    return Records(
        {key: load(LayerScores, folder / RECORD) for key, folder in folders["fits"].items()},
        {key: load(LayerShares, folder / RECORD) for key, folder in folders["partitions"].items()},
        {key: tuple(signatures[name].settings["bands"]) for key, name in kept["partitions"].items()},
        *_people(stages, heard),
        {run: {key: load(LayerScores, folder / TESTS / f"{run}.h5") for key, folder in folders["fits"].items()} for run in tests},
        {key: load(LeftOut, folder / RECORD) for key, folder in folders["leave-one-out"].items()},
        {key: _held_out(signatures[name]) for key, name in kept["leave-one-out"].items()},
        {key: load(MlpScores, folder / RECORD) for key, folder in folders["mlp"].items()},
    )


def _held_out(one: Signature) -> dict[str, int]:
    return dict(zip(one.settings["held_out"], one.settings["rows"], strict=True))


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
    """Of each source the records of one model: a folder may have been filled again by another one of the same name.

    Records of one model are made in one way, and from the same files as far as they heard the same runs.
    """
    sources: dict[str, dict[str, Signature]] = {}
    for name, one in found.items():
        sources.setdefault(one.settings["source"], {})[name] = one
    kept: dict[str, Signature] = {}
    for among in sources.values():
        made, files = (of := _reference(stages, among, own)).settings["made"], of.inputs
        kept |= {
            name: one
            for name, one in among.items()
            if one.settings["made"] == made and all(one.inputs[path] == files[path] for path in one.inputs.keys() & files.keys())
        }
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
