"""Layers × participants × regions: responses to score, and a ridge for each layer, as stages. What align, demo and alice share.

runs ─► responses/<participant> ─────────┐
features at scans ─► design, plan ───────┴► fits/<model>/<participant>/layer-NN ─► rows of tables
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0

from fastencode.cli.stages import Job, Stages, say
from fastencode.data.checks import constant_targets
from fastencode.data.dataset import Dataset
from fastencode.errors import InputError
from fastencode.study.ceilings import averaged_spread, noise_ceiling, significant_ceilings, split_repeats
from fastencode.study.config import AlignConfig
from fastencode.study.design import Design, Variant
from fastencode.study.layer_scores import LayerScores, LayerShares, Listener, load, save, score_layer, share_layer
from fastencode.study.sources import LowLevel
from fastencode.study.tables import WHOLE
from fastencode.timing.clean import zscore

__all__ = ["Found", "Question", "score_layers"]

_ROOMS = ("data", "solve", "speech", "study", "timing", "cli")
_RECORD = "layer.h5"


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
    """

    data: Dataset
    heard: Mapping[str, tuple[str, ...]]
    regions: Mapping[str, Mapping[str, np.ndarray]]
    align: AlignConfig
    ceiling: float = 0.05
    split_half: bool = False
    permutations: int = 1000


@dataclass(frozen=True)
class Found:
    """What came out.

    Attributes
    ----------
    scores, shares : (variant, participant, layer) → record
        Variants in the order in which they were asked for; shares only where low-level features were to be told apart.
    columns : participant → region → columns of the participant's records
    fit_rows : participant → rows of responses that ridges were fitted on
    """

    columns: Mapping[str, Mapping[str, np.ndarray]]
    fit_rows: Mapping[str, int]
    scores: dict[tuple[Variant, str, int], LayerScores] = field(default_factory=dict)
    shares: dict[tuple[Variant, str, int], LayerShares] = field(default_factory=dict)


def score_layers(
    stages: Stages,
    question: Question,
    asked: Sequence[tuple[Variant, Sequence[str]]],
    *,
    partition: Sequence[LowLevel] = (),
    candidates: int = 20,
) -> Found:
    """Fit and score what is not finished: every layer of every variant, in the participants it is asked for.

    Parameters
    ----------
    stages : Stages
    question : Question
    asked : sequence of (Variant, participants)
    partition : sequence of LowLevel
        What to tell apart from every plain variant at the delays of ``question.align``, by banded ridge.
    candidates : int
        Weightings of those bands to try.
    """
    for who in question.heard:
        stages.run(_responses_job(question, who))
    rows = {who: sum(map(question.data.n_rows, fit)) for who, fit in question.heard.items()}
    found = Found({who: _regions(stages.path(f"responses/{who}")) for who in question.heard}, rows)
    for variant, participants in asked:
        shared = partition if variant.plain and variant.delays == tuple(question.align.delays) else ()
        for fit, group in groupby(sorted(participants, key=lambda who: question.heard[who]), key=lambda who: question.heard[who]):
            members = tuple(group)
            for layer in range(variant.source.n_layers):
                work = _LayerJobs(stages.root, question, variant, layer, fit)
                for who, path in zip(members, stages.run_all(work.fits(members), workers=1).values(), strict=True):
                    found.scores[variant, who, layer] = load(LayerScores, path / _RECORD)
                jobs = work.partitions(members, shared, candidates) if shared else []
                for who, path in zip(members, stages.run_all(jobs, workers=1).values(), strict=False):
                    found.shares[variant, who, layer] = load(LayerShares, path / _RECORD)
    return found


def _responses_job(question: Question, who: str) -> Job:
    data, fit = question.data, question.heard[who]
    regions = {name: np.asarray(voxels).tolist() for name, voxels in question.regions[who].items()}
    usable = data.usable_rows(data.test_story)
    settings = {
        "responses": {run: data.response_key(who, run) for run in (*fit, data.test_story)},
        "regions": regions,
        "ceiling": question.ceiling,
        "split_half": question.split_half,
        "fit": fit,
        "test": [data.test_story, usable.start, usable.stop],
    }
    return Job(f"responses/{who}", settings, (), _write_responses, (question, who), _ROOMS)


def _write_responses(folder: Path, question: Question, who: str) -> None:
    """The rows of all runs, z-scored within each, cut to the voxels that are mapped; regions, to those that vary without gaps."""
    data, fit = question.data, question.heard[who]
    ceiling, significant, spread, test = _test_responses(question, who)
    mapped = np.ones(test.shape[1], bool) if ceiling is None else ceiling > question.ceiling
    if question.ceiling >= 0:
        mapped &= significant
    voxels = np.flatnonzero(mapped)
    if not len(voxels):
        raise InputError(f"no voxel of {who} has a significant noise ceiling above {question.ceiling:g}: lower it")
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
        what = "noise ceiling" if question.ceiling < 0 else "significant noise ceiling"
        kept += f"; {len(ceiling) - len(voxels)} have no {what} above {question.ceiling:g}, {(ceiling == 0).sum()} none at all"
    say(kept + (f"; {among} are constant or hold values that are not finite" if among else ""))
    column = np.full(test.shape[1], -1)
    column[voxels[whole]] = np.flatnonzero(whole)
    columns = {WHOLE: np.flatnonzero(whole)}
    columns |= {name: column[chosen][column[chosen] >= 0] for name, chosen in question.regions[who].items()}
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


def _test_responses(question: Question, who: str) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, np.ndarray]:
    """Noise ceilings (None without repeats), where they are significant, spread, and the responses to score on, usable rows
    only."""
    data, test_story = question.data, question.data.test_story
    rows = data.usable_rows(test_story)
    if not data.is_repeated(who, test_story):
        if question.split_half:
            raise InputError(f"{who} heard {test_story} once: without repeats there are no halves to split")
        test = data.responses(who, test_story)[rows]
        return None, np.ones(test.shape[1], bool), np.ones(test.shape[1]), test
    repeats = data.repeats(who, test_story)[:, rows]
    if not question.split_half:
        test = data.responses(who, test_story)[rows]
        return noise_ceiling(repeats), significant_ceilings(repeats), averaged_spread(repeats), test
    first, second = split_repeats(len(repeats))
    scored = repeats[second]
    ceiling = noise_ceiling(repeats[first], n_averaged=len(scored))
    return ceiling, significant_ceilings(repeats[first]), averaged_spread(scored), scored.mean(axis=0)


class _LayerJobs:
    """What there is to do with one layer: the same design for all who heard the same runs."""

    def __init__(self, root: Path, question: Question, variant: Variant, layer: int, fit: Sequence[str]) -> None:
        test = question.data.test_story
        self._design = Design(variant, layer, fit, (test, question.data.usable_rows(test)), question.align)
        self._root, self._question, self._variant, self._layer = root, question, variant, layer
        self._used = (*fit, test)

    def fits(self, members: Sequence[str]) -> list[Job]:
        """A ridge for each participant."""
        settings = {
            "less": [self._keys(source) for source in self._variant.nuisance],
            "permutations": self._question.permutations,
        }
        return self._jobs("fits", members, settings, _fit, (self._design, self._question))

    def partitions(self, members: Sequence[str], low: Sequence[LowLevel], candidates: int) -> list[Job]:
        """A banded ridge for each participant, with the low-level features beside the layer."""
        settings = {"bands": [self._keys(source) for source in low], "candidates": candidates}
        return self._jobs("partitions", members, settings, _partition, (self._design, tuple(low), self._question, candidates))

    def _keys(self, source: Any) -> dict[str, Any]:
        return {run: source.key(run) for run in self._used}

    def _jobs(
        self,
        kind: str,
        members: Sequence[str],
        settings: Mapping[str, Any],
        make: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> list[Job]:
        data = self._question.data
        decisive = {
            **settings,
            "test": data.test_story,
            "scans": {run: [data.row_times(run)[0], data.tr, data.n_rows(run)] for run in self._used},
            "layer": self._layer,
            "delays": self._variant.delays,
            "features": self._keys(self._variant.source),
            "align": self._question.align,
        }
        return [
            Job(
                f"{kind}/{self._variant.folder}/{who}/layer-{self._layer:02d}",
                decisive,
                (f"responses/{who}",),
                make,
                (self._root / f"responses/{who}", *arguments),
                _ROOMS,
            )
            for who in members
        ]


def _regions(responses: Path) -> dict[str, np.ndarray]:
    regions = json.loads((responses / "regions.json").read_text(encoding="utf-8"))
    return {name: np.array(columns) for name, columns in regions.items()}


def _listener(responses: Path) -> Listener:
    ceiling = responses / "ceiling.npy"
    return Listener(
        fit=np.load(responses / "fit.npy", mmap_mode="r"),
        test=np.load(responses / "test.npy"),
        ceiling=np.load(ceiling) if ceiling.exists() else None,
        regions=_regions(responses),
        spread=np.load(responses / "spread.npy"),
    )


def _fit(folder: Path, responses: Path, design: Design, question: Question) -> None:
    scores = score_layer(
        design.plan, design.matrices[1], _listener(responses), question.align, permutations=question.permutations
    )
    save(scores, folder / _RECORD)


def _partition(
    folder: Path, responses: Path, design: Design, low: Sequence[LowLevel], question: Question, candidates: int
) -> None:
    shares = share_layer(design.bands(low), design.matrices[2], _listener(responses), question.align, candidates=candidates)
    save(shares, folder / _RECORD)
