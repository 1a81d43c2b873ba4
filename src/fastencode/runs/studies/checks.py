"""What is wrong with a study, found before hours of work: every problem, a line for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fastencode.data.corpora import open_corpus
from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeError, InputError
from fastencode.runs.studies.config import DEMO, StudyConfig
from fastencode.runs.studies.names import corpus_of
from fastencode.runs.studies.readings import Reading, low_level_readings, readings_of
from fastencode.runs.studies.regions import with_functions
from fastencode.runs.studies.typed import nearest
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.study.config import WHOLE
from fastencode.study.tasks import TASKS, task_of
from fastencode.world.config import REGIONS

__all__ = ["check_data", "check_study"]

_MEASURES = ("r", "r_normalized")


def check_study(config: StudyConfig) -> list[str]:
    """Problems of a study that show without its brains: names that are used but not given, models, corpora, settings of arms."""
    problems = [*_models(config), *_arms(config), *_probes(config)]
    if problems:  # contrasts are of conditions, which arms make
        return problems
    readings = readings_of(config)
    return [*_conditions(readings), *_contrasts(config, (*readings, *low_level_readings(config)))]


def check_data(config: StudyConfig, data: Dataset) -> list[str]:
    """Problems of a study with its data: people, runs and regions that it names and that are not there."""
    asked, everybody, problems = config.data, list(data.participants), list[str]()
    problems += [
        f"data.participants: there is no {who!r}; {nearest(who, everybody)}" for who in asked.participants if who not in everybody
    ]
    for who in asked.participants or everybody:
        if who not in everybody:
            continue
        heard = list(data.stories(who))
        if asked.test_story not in heard:
            some = ", ".join(heard[:5]) or "no run"
            problems.append(
                f"{who} did not hear the test run {asked.test_story!r}, only {some}: leave {who} out (data.participants)"
            )
        problems += _regions(config, who, data)
    runs = {run for who in everybody for run in data.stories(who)}
    for option in ("validation", "exclude"):
        problems += [
            f"data.{option}: nobody heard {run!r}; {nearest(run, sorted(runs))}"
            for run in getattr(asked, option)
            if run not in runs
        ]
    return problems


def _regions(config: StudyConfig, who: str, data: Dataset) -> Iterator[str]:
    try:
        regions = with_functions(data.rois(who))
    except InputError as error:
        yield str(error)
        return
    for option in ("regions", "tuned_regions"):
        for name in getattr(config.data, option):
            if name not in regions and name != WHOLE:
                yield f"data.{option}: {who} has no region {name!r}; {nearest(name, [*regions, WHOLE])}"
    for name, voxels in regions.items():
        if not len(voxels):
            yield f"the region {name} of {who} is empty: name others in data.regions, or mend the file of regions"
    for place, one in enumerate(config.contrasts):
        for name in one.regions if one.measure in _MEASURES else ():
            if name not in regions and name != WHOLE:
                yield f"contrasts[{place + 1}].region: {who} has no region {name!r}; {nearest(name, [*regions, WHOLE])}"


def _models(config: StudyConfig) -> Iterator[str]:
    for key, name in config.models.items():
        shape = name.removeprefix("random:")
        yield from _of(f"models.{key}", lambda shape=shape: SpeechEncoder(SMALL_MODEL if shape == "small" else shape))


def _of(place: str, check: Callable[[], object]) -> Iterator[str]:
    """The problem that a check finds, with its place."""
    try:
        check()
    except FastencodeError as error:
        yield from (f"{place}: {line}" for line in str(error).splitlines())


def _arms(config: StudyConfig) -> Iterator[str]:
    for place, arm in enumerate(config.arms, 1):
        for what in ("model", "imitates"):
            key = getattr(arm, what)
            if key and key not in config.models:
                yield f"arms[{place}].{what}: there is no model {key!r}; {nearest(key, list(config.models))}"
        if arm.is_tuned:
            yield from _of(f"arms[{place}].tune", lambda arm=arm: [config.tuning(arm, seed) for seed in arm.seeds])


def _probes(config: StudyConfig) -> Iterator[str]:
    corpora = {}
    for name, where in config.probes.corpora.items():
        if where == DEMO and name not in ("timit", "commands"):
            yield f"probes.corpora.{name}: only timit and commands are made (demo); give a folder or a manifest"
        elif where != DEMO:
            found = list(_of(f"probes.corpora.{name}", lambda where=where: corpora.setdefault(where, open_corpus(Path(where)))))
            yield from found
    for task in config.probes.tasks:
        kind, at, name = task.partition("@")
        if not at and kind not in TASKS:
            yield f"probes.tasks: there is no task {task!r}; {nearest(task, list(TASKS))}, or kind@corpus for labels of a corpus"
            continue
        where = config.probes.corpora.get(corpus_of(task))
        if where is None:
            known = nearest(corpus_of(task), list(config.probes.corpora)) if config.probes.corpora else "name it there"
            yield f"probes.tasks: {task} needs the corpus {corpus_of(task)!r}, which probes.corpora does not have; {known}"
        elif where in corpora:
            corpus = corpora[where]
            yield from _of(
                f"probes.tasks, {task}", lambda task=task, corpus=corpus: task_of(task, corpus, tuple(corpus.recordings))
            )


def _conditions(readings: Sequence[Reading]) -> Iterator[str]:
    """Two readings of one name would share a folder."""
    for name, count in Counter(reading.name for reading in readings).items():
        if count > 1:
            yield f"two arms, with their models, hours, seeds or epochs, are both called {name!r}: rename one"


def _contrasts(config: StudyConfig, readings: Sequence[Reading]) -> Iterator[str]:
    known = list(dict.fromkeys(reading.condition for reading in readings))
    measures = [*_MEASURES, *config.probes.tasks]
    names = Counter(one.name for one in config.contrasts)
    for place, one in enumerate(config.contrasts, 1):
        where = f"contrasts[{place}]"
        if names[one.name] > 1:
            yield f"{where}: two contrasts are called {one.name!r}: name each differently"
        for condition in (*one.models, *([one.control] if one.control else [])):
            if condition not in known:
                yield f"{where}: there is no condition {condition!r}; {nearest(condition, known)}"
        if one.measure not in measures:
            yield f"{where}.measure: {one.measure!r} is not measured; {nearest(one.measure, measures)}"
        if config.data.is_demo and one.measure in _MEASURES:
            there = [*REGIONS, WHOLE]
            for region in one.regions:
                if region not in there:
                    yield f"{where}.region: the demo's brains have no region {region!r}; {nearest(region, there)}"
