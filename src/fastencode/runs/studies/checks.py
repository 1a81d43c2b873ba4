"""What is wrong with a study, found before hours of work: every problem, a line for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from fastencode.data.corpora import Corpus, open_corpus
from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeError, InputError, Problems
from fastencode.files import sha256
from fastencode.runs.studies.config import DEMO, SPOKEN, StudyConfig
from fastencode.runs.studies.names import corpus_of, kind_of
from fastencode.runs.studies.readings import Reading, low_level_readings, readings_of
from fastencode.runs.studies.regions import regions_of
from fastencode.runs.studies.typed import nearest
from fastencode.speech.audio import audio_seconds
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.study.brains.low_level import LOW_LEVEL
from fastencode.study.config import WHOLE
from fastencode.study.findings.measurements import BEYOND_LINEAR, MLP
from fastencode.study.findings.weighted import weights_of
from fastencode.study.probing.leakage import check_leaks, find_leaks, texts_of
from fastencode.study.probing.tasks import Task, check_name, task_of
from fastencode.world.config import REGIONS
from fastencode.world.outline import Outline

__all__ = ["check_data", "check_study", "check_tasks"]

_MEASURES = ("r", "r_normalized", "r_residual")
_OF_BRAINS = (*_MEASURES, MLP, BEYOND_LINEAR)


def check_study(config: StudyConfig, digest: Callable[[Path], str] = sha256) -> list[str]:
    """Problems of a resolved study that show without its brains: names that are not given, models, corpora, settings of arms.

    Parameters
    ----------
    config : StudyConfig
    digest : callable
        Of a file's contents: corpora that are given are searched for the same sound in train and test.
    """
    problems, of_arms = [*_models(config), *_low_level(config), *_probes(config, digest)], _arms(config)
    if of_arms:  # contrasts are of conditions, which arms make
        return [*problems, *of_arms]
    readings = readings_of(config)
    return [*problems, *_conditions(readings), *_contrasts(config, (*readings, *low_level_readings(config)))]


def check_data(config: StudyConfig, data: Dataset) -> list[str]:
    """Problems of a study with its data: people, runs and regions that it names and that are not there."""
    asked, everybody, problems = config.data, list(data.participants), list[str]()
    for who in asked.participants:
        if who not in everybody:
            problems.append(f"data.participants: there is no {who!r}; {nearest(who, everybody)}")
    heard = {who: list(data.stories(who)) for who in asked.participants or everybody if who in everybody}
    for who, runs in heard.items():
        if asked.test_story not in runs:
            some = ", ".join(runs[:5]) or "no run"
            remedy = f"leave {who} out (data.participants)"
            problems.append(f"{who} did not hear the test run {asked.test_story!r}, only {some}: {remedy}")
        elif asked.split_half and not isinstance(data, Outline) and not data.is_repeated(who, asked.test_story):
            problems.append(f"data.split_half: {who} heard the test run {asked.test_story!r} once: leave split_half or {who} out")
        problems += [*_regions(config, who, data), *_hours(config, who, runs, data)]
    known = sorted({run for runs in heard.values() for run in runs})
    for option in ("validation", "exclude"):
        for run in getattr(asked, option):
            if run not in known:
                problems.append(f"data.{option}: nobody heard {run!r}; {nearest(run, known)}")
    return [*problems, *_sounds(config, [run for run in known if run not in asked.exclude], data)]


def check_tasks(tasks: Mapping[str, Task], corpora: Mapping[str, Corpus], sha256: Callable[[Path], str]) -> list[str]:
    """What leaks from the test splits of the corpora into what probes learn from; a digest of a file is asked for."""
    problems = Problems()
    for name, task in tasks.items():
        with problems.gathered(f"probes.tasks, {name}"):
            leaks = find_leaks(task, texts_of(corpora[corpus_of(name)]), sha256)
            check_leaks({name: [leak for leak in leaks if leak.kind not in task.allowed]})
    return problems.found


def _sounds(config: StudyConfig, runs: Sequence[str], data: Dataset) -> list[str]:
    """Sounds that are missing, or end before the last scan: the test run's is read long after tuning began."""
    problems = Problems()
    for run in () if isinstance(data, Outline) else runs:
        with problems.gathered(run):
            path = data.sound_file(run)
            seconds, last = audio_seconds(path), float(data.row_times(run)[-1])
            end = last + data.tr * (0.5 if run == config.data.test_story else 1)  # tuning hears all of a scan
            if end > seconds + 1e-3:
                raise InputError(
                    f"{path} lasts {seconds:.1f} s, but a scan ends at {end:g} s: is this its sound, and the TR right?"
                )
            data.check_length(run, seconds, path)
    return problems.found


def _hours(config: StudyConfig, who: str, runs: Sequence[str], data: Dataset) -> Iterator[str]:
    """Hours that nobody can learn from would be those that there are, under another name."""
    problems = Problems()
    heldout = {config.data.test_story, *(config.data.validation or ()), *config.data.exclude}
    seconds: list[float] = []
    for run in [run for run in runs if run not in heldout]:
        with problems.gathered(run):
            seconds.append(data.n_rows(run) * data.tr)
    yield from problems.found
    for place, arm in enumerate(config.arms, 1):
        for hours in arm.hours:
            if seconds and 3600 * hours - sum(seconds) > max(seconds):
                there = f"{who} heard {sum(seconds) / 3600:.3g} h to learn from"
                yield f"arms[{place}].hours: {hours:g}, but {there}: name fewer, or leave {who} out (data.participants)"


def _regions(config: StudyConfig, who: str, data: Dataset) -> Iterator[str]:
    problems = Problems()
    regions: Mapping[str, Sequence[int]] = {}
    with problems.gathered(who):
        regions = {name: list(voxels) for name, voxels in regions_of(data, who, config.data.rois).items()}
    yield from problems.found
    if problems.found:
        return
    known = [*regions, WHOLE]
    for option in ("regions", "tuned_regions"):
        for name in getattr(config.data, option):
            if name not in known:
                yield f"data.{option}: {who} has no region {name!r}; {nearest(name, known)}"
    for name, voxels in regions.items():
        if not voxels:
            yield f"the region {name} of {who} is empty: name others in data.regions, or mend the file of regions"
    for place, one in enumerate(config.contrasts, 1):
        for name in one.regions if one.measure in _OF_BRAINS else ():
            if name not in known:
                yield f"contrasts[{place}].region: {who} has no region {name!r}; {nearest(name, known)}"


def _models(config: StudyConfig) -> list[str]:
    problems = Problems()
    for key, name in config.models.items():
        shape = name.removeprefix("random:")
        with problems.gathered(f"models.{key}"):
            n_layers = _n_layers(shape)
            for option, layers in (("layers", config.layers), *([("mlp.layers", config.mlp.layers)] if config.mlp else [])):
                if beyond := [layer for layer in layers if not 0 <= layer < n_layers]:
                    raise InputError(f"{option} names {beyond[0]}, but its layers are 0 to {n_layers - 1}: name others")
    return problems.found


@cache
def _n_layers(model: str) -> int:
    """How many layers a model has that is given by its folder or hub name, or small; an error says why it cannot be read."""
    return SpeechEncoder(SMALL_MODEL if model == "small" else model).n_layers


def _arms(config: StudyConfig) -> list[str]:
    problems = Problems()
    for place, arm in enumerate(config.arms, 1):
        for what in ("model", "imitates"):
            key = getattr(arm, what)
            if key and key not in config.models:
                problems.found.append(f"arms[{place}].{what}: there is no model {key!r}; {nearest(key, list(config.models))}")
        if arm.is_tuned:
            with problems.gathered(f"arms[{place}].tune"):
                for seed in arm.seeds:
                    config.tuning(arm, seed)
    return problems.found


def _low_level(config: StudyConfig) -> Iterator[str]:
    for option in ("baselines", "residualize"):
        for name in getattr(config, option):
            if name not in LOW_LEVEL:
                yield f"{option}: {name!r} is no low-level feature; {nearest(name, list(LOW_LEVEL))}"


def _probes(config: StudyConfig, digest: Callable[[Path], str]) -> list[str]:
    problems, opened = Problems(), dict[str, Corpus]()
    corpora = config.probes.corpora
    for name, where in corpora.items():
        if where == DEMO:
            if name not in SPOKEN:
                made = ", ".join(SPOKEN)
                problems.found.append(f"probes.corpora.{name}: only {made} are made (demo); give a folder or a manifest")
        else:
            with problems.gathered(f"probes.corpora.{name}"):
                opened[name] = open_corpus(Path(where))
    for task in config.probes.tasks:
        name, before = corpus_of(task), len(problems.found)
        with problems.gathered("probes.tasks"):
            check_name(kind_of(task))
            if kind_of(task) == "phones":
                raise InputError("phones are asked of single frames: fastencode-tune probe does that, with --read.pool bins")
            if corpora.get(name) == DEMO and name == "timit" and config.probes.speech.language != "en":
                raise InputError(f"{task}: TIMIT is spoken in English only; ask {kind_of(task)}@commands, or leave it out")
            if name not in corpora:
                known = nearest(name, list(corpora)) if corpora else "name it there"
                raise InputError(f"{task} needs the corpus {name!r}, which probes.corpora does not have; {known}")
        if name in opened and len(problems.found) == before:
            with problems.gathered(f"probes.tasks, {task}"):
                asked = task_of(kind_of(task), opened[name], seed=config.seed)
                _check_sounds(asked)
                problems.found += check_tasks({task: asked}, opened, digest)
    return problems.found


def _check_sounds(task: Task) -> None:
    if missing := [path for path in task.paths if not path.is_file()]:
        raise InputError(f"{len(missing)} of {len(task.paths)} sounds are missing, the first {missing[0]}: put them there")


def _conditions(readings: Sequence[Reading]) -> Iterator[str]:
    """Two readings of one name would share a folder."""
    for name, count in Counter(reading.name for reading in readings).items():
        if count > 1:
            yield f"two arms, with their models, hours, seeds or epochs, are both called {name!r}: rename one"


def _contrasts(config: StudyConfig, readings: Sequence[Reading]) -> Iterator[str]:
    known = [*dict.fromkeys(reading.condition for reading in readings), *config.baselines]
    networks = () if config.mlp is None else (MLP, BEYOND_LINEAR)[: 1 + config.mlp.linear]
    measures = [*_MEASURES[: 3 if config.residualize else 2], *networks, *config.probes.tasks]
    names = Counter(one.name for one in config.contrasts)
    problems = Problems()
    for place, one in enumerate(config.contrasts, 1):
        where = f"contrasts[{place}]"
        if names[one.name] > 1:
            yield f"{where}: two contrasts are called {one.name!r}: name each differently"
        for condition in (*one.models, *([one.control] if one.control else [])):
            if condition not in known:
                yield f"{where}: there is no condition {condition!r}; {nearest(condition, known)}"
        if one.measure in (MLP, BEYOND_LINEAR) and one.measure not in networks:
            missing = "mlp" if config.mlp is None else "mlp.linear"
            yield f"{where}.measure: {one.measure!r} is not measured without {missing}: add it to the study"
        elif one.measure not in measures:
            yield f"{where}.measure: {one.measure!r} is not measured; {nearest(one.measure, measures)}"
        there = [*REGIONS, WHOLE]
        for region in one.regions if config.data.is_demo and one.measure in _OF_BRAINS else ():
            if region not in there:
                yield f"{where}.region: the demo's brains have no region {region!r}; {nearest(region, there)}"
        depths = _depths(config, readings, one.measure)
        with problems.gathered(where):
            if not {*one.models, *([one.control] if one.control else [])} - depths.keys():
                weights_of(one, depths)
    yield from problems.found


def _depths(config: StudyConfig, readings: Sequence[Reading], measure: str) -> dict[str, list[int]]:
    """Condition → the layers that have a measure; without those whose model cannot be read."""
    found = {name: [0] for name in config.baselines}
    for reading in readings:
        with suppress(FastencodeError):
            layers = range(_n_layers(config.models[reading.model].removeprefix("random:")))
            chosen = () if measure in config.probes.tasks else config.layers
            if config.mlp is not None and measure in (MLP, BEYOND_LINEAR):
                chosen = config.mlp.layers or (layers[-1],)
            is_mfcc = reading.tuning is None and reading.name == "mfcc"
            found[reading.condition] = [0] if is_mfcc else sorted(chosen or layers)
    return found
