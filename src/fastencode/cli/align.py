"""``fastencode-tune align``: layers × participants × regions, scored on a story that nothing was fitted on.

The stages are those of :mod:`fastencode.runs.fits`; tables are made of all that are finished, whichever command made them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastencode.cli.mistakes import of_option
from fastencode.cli.output import provenance, write_settings
from fastencode.cli.settings import AlignRunConfig
from fastencode.data.config import DS003020_TEST
from fastencode.data.dataset import Dataset
from fastencode.data.opening import open_data
from fastencode.data.rois import find_rois
from fastencode.data.space import called, columns_of
from fastencode.devices import find_device, parse_device
from fastencode.errors import InputError, warn
from fastencode.limits import parse_memory
from fastencode.progress import say
from fastencode.runs.collected import (
    ceiling_is_known,
    origin_of,
    runs_of,
    tables_of,
    warn_of_narrow_grids,
    write_voxel_files,
)
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.estimates import check_shapes, foresee
from fastencode.runs.fits import Question, collect, layer_stages, responses_stage
from fastencode.runs.training import marked
from fastencode.speech.silence import NON_SPEECH
from fastencode.study.brains.design import Variant
from fastencode.study.brains.low_level import LOW_LEVEL
from fastencode.study.brains.sources import LayerFolder, LowLevel, Source
from fastencode.study.brains.tables import Label, delays_text
from fastencode.study.columns import MEAN
from fastencode.study.conditions import conditions
from fastencode.study.config import WHOLE, Resources
from fastencode.study.report.leads import ALIGN_NOTES, ALIGN_TITLE, align_lead
from fastencode.study.report.report import write_report

__all__ = ["run"]


def run(config: AlignRunConfig) -> Path:
    """Fit what is missing, write the tables and the page, and return the path of the page."""
    stages = Stages(config.out, reuse=config.reuse)
    if config.collect:
        tests = config.test_stories or (DS003020_TEST,)
        skip = config.test_skip if config.test_skip is not None else 40 if tests == (DS003020_TEST,) else 0
        settled = replace(config, tr=config.tr or 2.0, test_story=tests, test_skip=skip)
        return _write_tables(stages, (), settled, {})
    resources = _resources(config)
    stories, config = _opened(config)
    _check_delays(config.align.delays, stories.tr)
    heard = _heard(stories, config)
    variants = list(_variants(stories, heard, config))
    _check_names(variants, heard, config.partition)
    masks = {}
    for who in heard:  # before hours of fits, not after
        with of_option("--masks"):
            if (mask := _mask_of(stories, who, config)) is not None:
                columns_of(mask, stories.n_voxels(who))
                masks[who] = mask
    if config.maps and (without := sorted(set(heard) - set(masks))):
        raise InputError(f"maps needs masks, and none of {without[0]} is known: give the folder of masks with --masks")
    question = Question(
        stories,
        heard,
        {who: _rois(stories, who, config) for who in heard},
        config.align,
        ceiling=config.ceiling,
        split_half=config.split_half,
        permutations=config.permutations,
        candidates=config.candidates,
        non_speech=config.non_speech,
        resources=resources,
        tests=config.test_stories,
        leave_one_out=config.leave_one_out,
        save_predictions=config.save_predictions,
    )
    lags: list[tuple[int, ...]] = [(lag,) for lag in config.lags]
    delays = {"delays": [tuple(config.align.delays)], "lags": lags}
    check_shapes(question, delays, {one.source.width for one in variants if isinstance(one.source, LayerFolder)})
    low = [LowLevel(name, stories) for name in config.partition]
    responses = [responses_stage(question, who) for who in heard]
    layers = list(_chosen(variants, config, [layer_stages(stages.root, question, one, tuple(heard), low) for one in variants]))
    if config.dry_run:
        foresee(stages, question, variants, responses, layers)
        return stages.root
    stages.run_all(responses, jobs=config.jobs)
    made = stages.run_all(layers, jobs=config.jobs)
    if not made:
        stages.check()
    page = _write_tables(stages, made, config, masks)
    stages.check()
    return page


def _opened(config: AlignRunConfig) -> tuple[Dataset, AlignRunConfig]:
    """The data set, and the settings with what it says: TR, test stories, and how many of their rows are not scored."""
    named = config.test_stories
    with of_option("--stories"):
        data = open_data(
            config.stories,
            config.layout,
            tr=config.tr,
            test_story=named[0] if named else None,
            test_skip=config.test_skip,
            settings=config.images,
            non_speech=NON_SPEECH | set(config.non_speech),
            word_tier=config.word_tier,
            phone_tier=config.phone_tier,
        )
    tests = named or (marked(data, "test") if data.test_story not in marked(data, "train") else ()) or (data.test_story,)
    if tests == ("",):
        raise InputError(f"--test-story: {config.stories} marks no run for testing: name one to score on")
    skip = config.test_skip if config.test_skip is not None else getattr(data, "test_skip", 0)
    return data, replace(config, tr=data.tr, test_story=tests, test_skip=skip)


def _check_delays(delays: Sequence[int], tr: float) -> None:
    """Warn where delays do not cover 4 to 8 s, when responses to a brief sound are highest; half a TR more or less counts."""
    first, last = tr * (min(delays) - 0.5), tr * (max(delays) + 0.5)
    if first > 4 or last < 8:
        reach = f"{tr * min(delays):g} to {tr * max(delays):g} s"
        wanted = f"{max(1, round(2 / tr))} to {round(8 / tr)}"
        warn(
            f"delays of {reach} do not cover 4 to 8 s, when responses are highest: with this TR of {tr:g} s give delays {wanted}"
        )


def _mask_of(data: Dataset, who: str, config: AlignRunConfig) -> Any:
    """Where a participant's voxels lie, as the settings or the data set say."""
    return data.mask(who) if config.masks is None else _mask(config.masks, who)


def _resources(config: AlignRunConfig) -> Resources:
    """What ridges are computed with, checked before hours of fits."""
    parse_memory(config.memory)
    device = parse_device(config.device)
    if device not in (None, "cpu"):
        find_device(str(device))
    return Resources(device, config.memory)


def _chosen(variants: Sequence[Variant], config: AlignRunConfig, stages: Iterable[Iterable[Stage]]) -> Iterator[Stage]:
    """The fits of the layers that were asked for, and of low-level features, which have no layers."""
    counts = {one.source.name: one.source.n_layers for one in variants if not isinstance(one.source, LowLevel)}
    if unknown := [layer for layer in config.layers if not 0 <= layer < max(counts.values(), default=0)]:
        has = ", ".join(f"{name} has {count} layers (0 to {count - 1})" for name, count in counts.items()) or "there is no model"
        raise InputError(f"layers names {unknown[0]}, which no model has: {has}")
    for stage in chain.from_iterable(stages):
        if not config.layers or stage.settings["low_level"] or stage.settings["layer"] in config.layers:
            yield stage


def _heard(stories: Dataset, config: AlignRunConfig) -> dict[str, tuple[str, ...]]:
    """The stories to fit on, by participant."""
    heard, people = {}, config.participants or stories.participants
    if not people:
        raise InputError(f"--stories: {config.stories} has responses of nobody: give a data set that has participants")
    for who in people:
        here = stories.stories(who)
        for test in config.test_stories:
            if test not in here:
                raise InputError(f"{who} has no responses to the test story {test!r}, only to {', '.join(here) or 'no story'}")
        heard[who] = tuple(run for run in here if run not in {*config.exclude, *config.test_stories, stories.test_story})
        if not heard[who]:
            raise InputError(f"no story is left to fit {who} on: exclude fewer")
        if config.leave_one_out and len(heard[who]) < 2:
            raise InputError(f"leave_one_out needs two stories to fit on, {who} has {heard[who][0]}: exclude fewer")
    unknown = set(config.exclude) - {story for who in heard for story in stories.stories(who)}
    if unknown:
        raise InputError(f"exclude names {', '.join(sorted(unknown))}, which nobody heard: correct the name")
    every = {story for fit in heard.values() for story in fit}
    for who, fit in heard.items():
        if absent := sorted(every - set(fit)):
            say(f"{who} has no responses to {', '.join(absent)}, which others are fitted on: fitted on {', '.join(fit)} only")
    return heard


def _variants(stories: Dataset, heard: Mapping[str, Sequence[str]], config: AlignRunConfig) -> Iterator[Variant]:
    """Every source as it is, then less the low-level features, then at single lags."""
    for option in ("baselines", "residualize", "partition"):
        if unknown := [name for name in getattr(config, option) if name not in LOW_LEVEL]:
            raise InputError(f"{option} names {unknown[0]}, which is not a low-level feature: choose from {', '.join(LOW_LEVEL)}")
    used = sorted({story for fit in heard.values() for story in fit} | {*config.test_stories})
    with of_option("--features"):
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


def _check_names(variants: Sequence[Variant], participants: Collection[str], partition: Collection[str]) -> None:
    """Whether all are told apart, in the tables and on disk."""
    if MEAN in participants:
        raise InputError(f"a participant is called {MEAN!r}, as means over participants are: rename it")
    for variant in variants:
        if variant.source.name in partition and not isinstance(variant.source, LowLevel):
            raise InputError(f"a folder of features is called {variant.source.name!r}, as a band of --partition: rename it")
    before: dict[str, str] = {}
    for variant in variants:
        if variant.folder in before:
            both = f"{before[variant.folder]!r} and {variant.name!r}"
            raise InputError(f"{both} cannot be told apart in {variant.folder}: rename a folder of features")
        before[variant.folder] = variant.name


def _shared(config: AlignRunConfig) -> dict[str, Any]:
    """What must be alike for two records to stand in one table, as :meth:`Question.shared` has it of each stage."""
    names = ("test_skip", "tr", "ceiling", "split_half", "permutations", "non_speech", "word_tier", "phone_tier", "align")
    shared = {"test_story": config.test_stories} | {name: getattr(config, name) for name in names}
    shared["ridge"] = config.align.ridge
    return shared | ({"candidates": config.candidates} if config.partition else {})


def _rois(stories: Dataset, who: str, config: AlignRunConfig) -> Mapping[str, np.ndarray]:
    """A participant's regions of interest, as voxel indices."""
    mask = _mask_of(stories, who, config)
    if config.rois is None:
        rois = stories.rois(who, mask=mask)
    else:
        with of_option("--rois"):
            rois = find_rois([config.rois], who, mask, n_voxels=stories.n_voxels(who))
            if not rois:
                kinds = f"{who}.nii.gz, .gii, .npy, .json or .txt, or a folder {who} of such files"
                raise InputError(_absent(config.rois, who, kinds))
    if WHOLE in rois:
        raise InputError(f"a region of {who} is called {WHOLE!r}, as all voxels together are: rename it")
    last = max((int(voxels.max()) for voxels in rois.values() if len(voxels)), default=0)
    if last >= stories.n_voxels(who):
        raise InputError(f"the regions of {who} reach voxel {last}, the responses have {stories.n_voxels(who)}: check the mask")
    return rois


def _mask(folder: Path, who: str) -> Path:
    """The mask of a participant, in a folder of masks."""
    found = called(folder, who)
    if not found:
        raise InputError(_absent(folder, who, f"{who}.nii.gz, {who}.npy, or a folder {who} with one .npy for each surface"))
    if len(found) > 1:
        raise InputError(f"{folder} holds {' and '.join(path.name for path in found)}: keep one mask of {who}")
    return found[0]


def _absent(folder: Path, who: str, wanted: str) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder: give one that holds {wanted}"
    return f"{folder} holds nothing of {who}: looked for {wanted}"


def _rank(label: Label, config: AlignRunConfig) -> Any:
    """The order of the tables: whole models and baselines, residuals, single lags; models as they are given, others by name."""
    named = [*(Path(folder).absolute().name for folder in config.features), *config.baselines]
    standard = label.delays == tuple(config.align.delays)
    lag = config.lags.index(label.delays[0]) if len(label.delays) == 1 and label.delays[0] in config.lags else len(config.lags)
    place = named.index(label.source) if label.source in named else len(named)
    kind = (0, 0) if standard and not label.less else (1, 0) if standard else (2, lag)
    return (*kind, label.low_level, place, label.source, label.less, label.delays)


def _write_tables(stages: Stages, own: Collection[str], config: AlignRunConfig, masks: Mapping[str, Any]) -> Path:
    """Tables of all that is finished, by one command at a time, so that the last of several writes all."""
    if not stages.root.is_dir():
        raise InputError(f"{stages.root} is not there, and there is nothing to collect: give the same command without --collect")
    with stages.alone("tables"):
        found = collect(stages, _shared(config), own, lambda label: _rank(label, config))
        if config.collect and (unknown := sorted(set(config.participants) - set(found.columns))):
            raise InputError(
                f"participants names {unknown[0]}, who has no finished scores of these settings in {stages.root}: give the same "
                "command without --collect"
            )
        tables = tables_of(stages, found, config.align)
        mask_of = partial(_mask, config.masks) if config.masks else masks.get
        write_voxel_files(stages, found, mask_of if config.maps else None)
        everybody = tuple(sorted({*found.columns, *config.participants})) if config.participants else ()
        of_models = {layer for label, _, layer in found.scores if not label.low_level}
        layers = tuple(sorted({*config.layers, *of_models})) if config.layers else ()
        settled = replace(config, participants=everybody, layers=layers, collect=False, reuse=False)
        models = conditions(dict.fromkeys(label.name for label, _, _ in found.scores))
        origin = origin_of(stages, found)
        page = write_report(
            stages.root,
            title=ALIGN_TITLE,
            lead=align_lead(
                models=[one.model for one in models],
                residuals=any(label.less for label, _, _ in found.scores),
                voxels={who: len(regions[WHOLE]) for who, regions in found.columns.items()},
                fitted=len(runs_of(stages, found) - {*config.test_stories}),
                tests=config.test_stories,
                ceiling=config.ceiling,
                known=ceiling_is_known(stages, found),
                split_half=config.split_half,
            ),
            notes=ALIGN_NOTES,
            models=models,
            tables=tables,
            provenance={**provenance(settled, stages.seconds), **origin},
            command=write_settings(stages.root, settled, "fastencode-tune align"),
            delays=delays_text(config.align.delays),
            picture_regions=list(dict.fromkeys(tables["scores"]["region"])),
        )
    standard = tables["scores"][tables["scores"]["delays"] == delays_text(config.align.delays)]
    shown = standard.groupby(["region", "model", "layer"], sort=False)["r"].mean().unstack()
    say("\nmean r over participants, by layer\n" + shown.to_string(float_format="%.3f", na_rep=""))
    say("\nautocorrelation at lag 1 of the test responses, and of block-permuted ones, which the p-values come from")
    say(tables["autocorrelation"].to_string(index=False, float_format="%.3f"))
    warn_of_narrow_grids(found, tuple(config.align.delays))
    written = ", ".join(f"{name}.csv" for name, table in tables.items() if len(table))
    say(f"\n{written}, voxels/*.h5, provenance.json and config.yaml are in {stages.root}. The page: {page}")
    return page
