"""``fastencode-tune align``: layers × participants × regions, scored on a story that nothing was fitted on.

The fits are stages of their own (``cli/fits.py``); here is what is asked of them, and the tables: scores.csv, tests.csv,
contrasts.csv, partition.csv.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fastencode.cli.fits import Found, Question, score_layers
from fastencode.cli.output import write_settings
from fastencode.cli.settings import AlignRunConfig
from fastencode.cli.stages import Stages, say
from fastencode.data.rois import read_rois
from fastencode.data.stories import Stories
from fastencode.errors import FastencodeWarning, InputError, require
from fastencode.files import whole_file
from fastencode.speech.silence import NON_SPEECH
from fastencode.study.design import Variant
from fastencode.study.low_level import LOW_LEVEL
from fastencode.study.sources import LayerFolder, LowLevel, Source
from fastencode.study.tables import WHOLE, contrast_rows, delays_text, score_rows, share_rows, signed_rank_rows

__all__ = ["run"]

_MANY = 0.1  # a share of penalties at an edge of the grid that is worth a warning


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
    question = Question(
        stories,
        heard,
        {who: _rois(stories, who, config) for who in heard},
        config.align,
        ceiling=config.ceiling,
        split_half=config.split_half,
        permutations=config.permutations,
    )
    low = [LowLevel(name, stories) for name in config.partition]
    asked = [(variant, tuple(heard)) for variant in variants]
    stages = Stages(config.out)
    found = score_layers(stages, question, asked, partition=low, candidates=config.candidates)
    return _write_tables(stages, found, config)


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


def _write_tables(stages: Stages, found: Found, config: AlignRunConfig) -> Path:
    pandas = require("pandas", "tune")
    scores = pandas.DataFrame(score_rows(found.scores, found.columns, found.fit_rows))
    contrasts = pandas.DataFrame(contrast_rows(found.scores, found.columns))
    tables = {"scores": scores, "tests": pandas.DataFrame(signed_rank_rows(scores, contrasts))}
    if len(contrasts):
        tables["contrasts"] = contrasts
    if found.shares:
        tables["partition"] = pandas.DataFrame(share_rows(found.shares, config.partition, found.columns))
    for name, table in tables.items():
        with whole_file(stages.root / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    write_settings(stages.root, config, "fastencode-tune align")
    standard = scores[scores["delays"] == delays_text(config.align.delays)]
    shown = standard.groupby(["region", "model", "layer"], sort=False)["r"].mean().unstack()
    say("\nmean r over participants, by layer\n" + shown.to_string(float_format="%.3f", na_rep=""))
    edges = standard[standard["region"] == WHOLE].groupby("model", sort=False)["at_edge"].mean()
    for model, share in edges[edges > _MANY].items():
        warnings.warn(
            f"{model}: the penalties of {share:.0%} of the voxels lie at an edge of the grid: widen align.alphas",
            FastencodeWarning,
            stacklevel=2,
        )
    say(f"\n{', '.join(f'{name}.csv' for name in tables)} and config.yaml are in {stages.root}")
    return stages.root / "scores.csv"
