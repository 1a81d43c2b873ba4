"""``fastencode-tune align``: layers × participants × regions, scored on a story that nothing was fitted on.

stories ─► responses/<participant> ─┐
features/<story>.h5 ─► design, plan ┴► fits/<model>/<participant>/layer-NN ─► scores.csv, tests.csv, contrasts.csv
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0

from fastencode.cli.output import write_settings
from fastencode.cli.settings import AlignRunConfig
from fastencode.cli.stages import Job, Stages, say
from fastencode.data.checks import constant_targets
from fastencode.data.rois import read_rois
from fastencode.data.stories import Stories
from fastencode.errors import FastencodeWarning, InputError, require
from fastencode.files import whole_file
from fastencode.speech.silence import NON_SPEECH
from fastencode.study.ceilings import averaged_spread, ceiling_pvalues, noise_ceiling, split_repeats
from fastencode.study.layer_scores import LayerScores, LayerShares, Listener, load, save, score_layer, share_layer
from fastencode.study.low_level import LOW_LEVEL
from fastencode.study.significance import FALSE_DISCOVERIES, fdr
from fastencode.study.sources import Design, LayerFolder, LowLevel, Source, Variant
from fastencode.study.tables import WHOLE, contrast_rows, delays_text, score_rows, share_rows, signed_rank_rows
from fastencode.timing.clean import zscore

__all__ = ["run"]

_ROOMS = ("data", "solve", "speech", "study", "timing")
_RECORD = "layer.h5"


def run(config: AlignRunConfig) -> Path:
    """Fit what is missing, write the tables and return the path of the first."""
    stories = Stories(
        config.stories,
        tr=config.tr,
        test_story=config.test_story,
        test_skip=config.test_skip,
        non_speech=NON_SPEECH | set(config.non_speech),
    )
    heard = _heard(stories, config)
    variants = list(_variants(stories, heard, config))
    _check_names(variants)
    stages = Stages(config.out)
    for who, fit in heard.items():
        stages.run(_responses_job(stories, who, fit, config))
    scores: dict[tuple[Variant, str, int], LayerScores] = {}
    shares: dict[tuple[Variant, str, int], LayerShares] = {}
    low = [LowLevel(name, stories) for name in config.partition]
    for variant in variants:
        partition = bool(low) and variant.plain and variant.delays == tuple(config.align.delays)
        for fit, group in groupby(sorted(heard, key=lambda who: heard[who]), key=lambda who: heard[who]):
            members = tuple(group)
            for layer in range(variant.source.n_layers):
                layer_of = _LayerJobs(stories, variant, layer, fit, config)
                for who, path in zip(members, stages.run_all(layer_of.fits(members), workers=1).values(), strict=True):
                    scores[variant, who, layer] = load(LayerScores, path / _RECORD)
                jobs = layer_of.partitions(members, low) if partition else []
                for who, path in zip(members, stages.run_all(jobs, workers=1).values(), strict=False):
                    shares[variant, who, layer] = load(LayerShares, path / _RECORD)
    columns = {who: _regions(stages.path(f"responses/{who}")) for who in heard}
    fit_rows = {who: sum(map(stories.n_rows, fit)) for who, fit in heard.items()}
    return _write_tables(stages, scores, shares, columns, fit_rows, config)


def _heard(stories: Stories, config: AlignRunConfig) -> dict[str, tuple[str, ...]]:
    """The stories to fit on, by participant."""
    heard = {}
    for who in config.participants or stories.participants:
        here = stories.stories(who)
        if config.test_story not in here:
            raise InputError(f"{who} has no responses to the test story {config.test_story!r}, only to {', '.join(here)}")
        heard[who] = tuple(stories.train_stories(who, exclude=set(config.exclude) & set(here)))
        if not heard[who]:
            raise InputError(f"no story is left to fit {who} on: exclude fewer")
    unknown = set(config.exclude) - {story for who in heard for story in stories.stories(who)}
    if unknown:
        raise InputError(f"exclude names {', '.join(sorted(unknown))}, which nobody heard: correct the name")
    return heard


def _variants(stories: Stories, heard: Mapping[str, Sequence[str]], config: AlignRunConfig) -> Iterator[Variant]:
    """Every source as it is, then less the low-level features, then at single lags."""
    for name in (*config.baselines, *config.residualize, *config.partition):
        if name not in LOW_LEVEL:
            raise InputError(f"{name!r} is no low-level feature: choose among {', '.join(LOW_LEVEL)}")
    used = sorted({story for fit in heard.values() for story in fit} | {config.test_story})
    models: list[Source] = [LayerFolder(folder, stories, lobes=config.align.lobes, used=used) for folder in config.features]
    delays = tuple(config.align.delays)
    baselines: list[Source] = [LowLevel(name, stories) for name in config.baselines]
    for source in models + baselines:
        yield Variant(source, delays)
    if config.residualize:
        for source in models:
            yield Variant(source, delays, tuple(LowLevel(name, stories) for name in config.residualize))
    for lag in config.lags:
        for source in models:
            if (lag,) != delays:
                yield Variant(source, (lag,))


def _check_names(variants: Sequence[Variant]) -> None:
    """Whether all are told apart, in the tables and on disk."""
    before: dict[str, str] = {}
    for variant in variants:
        if variant.folder in before:
            both = f"{before[variant.folder]!r} and {variant.name!r}"
            raise InputError(f"{both} cannot be told apart in {variant.folder}: rename a folder of features")
        before[variant.folder] = variant.name


def _responses_job(stories: Stories, who: str, fit: Sequence[str], config: AlignRunConfig) -> Job:
    files = {story: _stamp(stories.response_file(who, story)) for story in (*fit, config.test_story)}
    regions = {name: voxels.tolist() for name, voxels in _rois(stories, who, config).items()}
    settings = {"files": files, "regions": regions, "ceiling": config.ceiling, "split_half": config.split_half}
    settings |= {"fit": fit, "test": config.test_story, "test_skip": config.test_skip}
    return Job(f"responses/{who}", settings, (), _write_responses, (stories, who, fit, regions, config), (*_ROOMS, "cli"))


def _rois(stories: Stories, who: str, config: AlignRunConfig) -> Mapping[str, np.ndarray]:
    """A participant's regions of interest, as voxel indices."""
    if config.rois is None:
        rois = stories.rois(who)
    else:
        mask = None if config.masks is None else _of(config.masks, who)
        rois = read_rois(_of(config.rois, who), mask, n_voxels=stories.n_voxels(who) if mask is None else None)
    if WHOLE in rois:
        raise InputError(f"a region of {who} is called {WHOLE!r}, as all voxels together are: rename it")
    last = max((int(voxels.max()) for voxels in rois.values() if len(voxels)), default=0)
    if last >= stories.n_voxels(who):
        raise InputError(f"the regions of {who} reach voxel {last}, the responses have {stories.n_voxels(who)}: check the mask")
    return rois


def _of(folder: Path, who: str) -> Path:
    """What a folder holds of a participant."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in there if path.name == who or path.name.startswith(f"{who}.")]
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} files or folders called {who}: one is needed")
    return found[0]


def _stamp(path: Path) -> list[int]:
    """What tells whether a file has changed, without reading gigabytes."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _write_responses(
    folder: Path, stories: Stories, who: str, fit: Sequence[str], regions: Mapping[str, list[int]], config: AlignRunConfig
) -> None:
    """The rows of all stories, z-scored within each, cut to voxels with a ceiling; regions, to those that vary without gaps."""
    ceiling, significant, spread, test = _test_responses(stories, who, config)
    mapped = np.ones(test.shape[1], bool) if ceiling is None else ceiling > config.ceiling
    if config.ceiling >= 0:
        mapped &= significant
    voxels = np.flatnonzero(mapped)
    if not len(voxels):
        raise InputError(f"no voxel of {who} has a significant noise ceiling above {config.ceiling:g}: lower it")
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
        what = "noise ceiling" if config.ceiling < 0 else "significant noise ceiling"
        kept += f"; {len(ceiling) - len(voxels)} have no {what} above {config.ceiling:g}, {(ceiling == 0).sum()} none at all"
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


def _test_responses(
    stories: Stories, who: str, config: AlignRunConfig
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, np.ndarray]:
    """Noise ceilings (None without repeats), where they are significant, spread, and the responses to score on, usable rows
    only."""
    rows = stories.usable_rows(config.test_story)
    if not stories.is_repeated(who, config.test_story):
        if config.split_half:
            raise InputError(f"{who} heard {config.test_story} once: without repeats there are no halves to split")
        test = stories.responses(who, config.test_story)[rows]
        return None, np.ones(test.shape[1], bool), np.ones(test.shape[1]), test
    repeats = stories.repeats(who, config.test_story)[:, rows]
    if not config.split_half:
        test = stories.responses(who, config.test_story)[rows]
        return noise_ceiling(repeats), _significant(repeats), averaged_spread(repeats), test
    first, second = split_repeats(len(repeats))
    scored = repeats[second]
    ceiling = noise_ceiling(repeats[first], n_averaged=len(scored))
    return ceiling, _significant(repeats[first]), averaged_spread(scored), scored.mean(axis=0)


def _significant(repeats: np.ndarray) -> np.ndarray:
    """Voxels whose repeats agree, at a false discovery rate of 5 %."""
    return fdr(ceiling_pvalues(repeats)) <= FALSE_DISCOVERIES


class _LayerJobs:
    """What there is to do with one layer: the same design for all who heard the same stories."""

    def __init__(self, stories: Stories, variant: Variant, layer: int, fit: Sequence[str], config: AlignRunConfig) -> None:
        test = (config.test_story, stories.usable_rows(config.test_story))
        self._design = Design(variant, layer, fit, test, config.align)
        self._stories, self._variant, self._layer, self._config = stories, variant, layer, config
        self._used = (*fit, config.test_story)

    def fits(self, members: Sequence[str]) -> list[Job]:
        """A ridge for each participant."""
        low = [*self._variant.nuisance, *([self._variant.source] if isinstance(self._variant.source, LowLevel) else [])]
        settings = {"less": [source.name for source in self._variant.nuisance], "permutations": self._config.permutations}
        return self._jobs("fits", members, settings, low, _fit, (self._design, self._config))

    def partitions(self, members: Sequence[str], low: Sequence[LowLevel]) -> list[Job]:
        """A banded ridge for each participant, with the low-level features beside the layer."""
        settings = {"bands": [source.name for source in low], "candidates": self._config.candidates}
        return self._jobs("partitions", members, settings, low, _partition, (self._design, tuple(low), self._config))

    def _jobs(
        self,
        kind: str,
        members: Sequence[str],
        settings: Mapping[str, Any],
        low: Sequence[LowLevel],
        make: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> list[Job]:
        files = {story: [_stamp(path) for path in self._stories.stimulus_files(story)] for story in self._used}
        decisive = {
            **settings,
            "test": self._config.test_story,
            "tr": self._config.tr,
            "layer": self._layer,
            "delays": self._variant.delays,
            "features": {story: self._variant.source.key(story) for story in self._used},
            "stimuli": files if low else {},
            "non_speech": sorted(self._stories.non_speech) if low else [],
            "align": self._config.align,
        }
        return [
            Job(
                f"{kind}/{self._variant.folder}/{who}/layer-{self._layer:02d}",
                decisive,
                (f"responses/{who}",),
                make,
                (self._config.out / f"responses/{who}", *arguments),
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


def _fit(folder: Path, responses: Path, design: Design, config: AlignRunConfig) -> None:
    scores = score_layer(design.plan, design.matrices[1], _listener(responses), config.align, permutations=config.permutations)
    save(scores, folder / _RECORD)


def _partition(folder: Path, responses: Path, design: Design, low: Sequence[LowLevel], config: AlignRunConfig) -> None:
    shares = share_layer(design.bands(low), design.matrices[2], _listener(responses), config.align, candidates=config.candidates)
    save(shares, folder / _RECORD)


def _write_tables(
    stages: Stages,
    found: Mapping[tuple[Variant, str, int], LayerScores],
    shares: Mapping[tuple[Variant, str, int], LayerShares],
    columns: Mapping[str, Mapping[str, np.ndarray]],
    fit_rows: Mapping[str, int],
    config: AlignRunConfig,
) -> Path:
    pandas = require("pandas", "tune")
    scores = pandas.DataFrame(score_rows(found, columns, fit_rows))
    contrasts = pandas.DataFrame(contrast_rows(found, columns))
    tables = {"scores": scores, "tests": pandas.DataFrame(signed_rank_rows(scores, contrasts))}
    if len(contrasts):
        tables["contrasts"] = contrasts
    if shares:
        tables["partition"] = pandas.DataFrame(share_rows(shares, config.partition, columns))
    for name, table in tables.items():
        with whole_file(stages.root / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    write_settings(stages.root, config, "fastencode-tune align")
    standard = scores[scores["delays"] == delays_text(config.align.delays)]
    shown = standard.groupby(["region", "model", "layer"], sort=False)["r"].mean().unstack()
    say("\nmean r over participants, by layer\n" + shown.to_string(float_format="%.3f", na_rep=""))
    delays = tuple(config.align.delays)
    for model in standard["model"].unique():
        narrow = np.array(
            [one.narrow for (variant, _, _), one in found.items() if (variant.name, variant.delays) == (model, delays)]
        )
        for count, wanted in zip(narrow.sum(axis=0), ("smaller", "larger"), strict=True):
            if count:
                warnings.warn(
                    f"{model}: in {count} of {len(narrow)} fits {wanted} penalties than those of the grid would predict better: "
                    "widen align.alphas",
                    FastencodeWarning,
                    stacklevel=2,
                )
    say(f"\n{', '.join(f'{name}.csv' for name in tables)} and config.yaml are in {stages.root}")
    return stages.root / "scores.csv"
