"""Checks of a study before anything is computed. Each function returns all problems, one line per problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from fastencode.data.corpora import Corpus, open_corpus
from fastencode.data.dataset import Dataset
from fastencode.errors import FastencodeError, InputError, Problems, suggestion
from fastencode.files import sha256
from fastencode.runs.studies.config import DEMO, SPOKEN, Arm, StudyConfig, check_name, check_once
from fastencode.runs.studies.names import corpus_of, kind_of
from fastencode.runs.studies.readings import Reading, low_level_readings, readings_of
from fastencode.runs.studies.regions import regions_of
from fastencode.speech.audio import audio_seconds
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.study.brains.low_level import LOW_LEVEL
from fastencode.study.config import WHOLE
from fastencode.study.findings.measurements import BEYOND_LINEAR, MLP
from fastencode.study.findings.weighted import weights_of
from fastencode.study.names import BRAIN_MEASURES
from fastencode.study.probing.leakage import check_leaks, find_leaks, texts_of
from fastencode.study.probing.tasks import Task, task_of
from fastencode.study.probing.tasks import check_name as check_task
from fastencode.world.outline import Outline

__all__ = ["check_data", "check_study", "check_tasks"]

_FEWEST_ROWS = 8
"""Of the test run, after those that are left out: fewer make no correlation worth an interval."""
_MEASURES = ("r", "r_normalized", "r_residual")


def check_study(config: StudyConfig, digest: Callable[[Path], str] = sha256) -> list[str]:
    """Problems of a resolved study that can be found without its data set: unknown names, models, corpora, settings of arms.

    Parameters
    ----------
    config : StudyConfig
    digest : callable
        Returns the digest of a file's contents. It is used to find equal sounds in the training and test splits of corpora.
    """
    problems, of_arms = [*_once(config), *_models(config), *_low_level(config), *_probes(config, digest)], _arms(config)
    if of_arms:  # contrasts are of conditions, which arms make
        return [*problems, *of_arms]
    readings = readings_of(config)
    if not _alike(config.models):  # that makes all of its readings alike
        problems += _conditions(readings, config.baselines)
    return [*problems, *_contrasts(config, (*readings, *low_level_readings(config)))]


def check_data(config: StudyConfig, data: Dataset) -> list[str]:
    """Problems of a study with its data set: participants, runs and regions that the data set does not have."""
    asked, everybody, problems = config.data, list(data.participants), list[str]()
    for who in asked.participants:
        if who not in everybody:
            problems.append(f"data.participants: there is no {who!r}; {suggestion(who, everybody)}")
    heard = {who: list(data.stories(who)) for who in asked.participants or everybody if who in everybody}
    for who, runs in heard.items():
        if asked.test_story not in runs:
            some = ", ".join(runs[:5]) or "no run"
            remedy = f"leave {who} out (data.participants)"
            problems.append(f"{who} has no responses to the test run {asked.test_story!r}, only to {some}: {remedy}")
        elif asked.split_half and not isinstance(data, Outline) and not data.is_repeated(who, asked.test_story):
            problems.append(f"data.split_half: {who} heard the test run {asked.test_story!r} once: leave split_half or {who} out")
        problems += [*_regions(config, who, data), *_hours(config, who, runs, data)]
    known = sorted({run for runs in heard.values() for run in runs})
    if asked.test_story in known and asked.test_skip is not None:
        left = data.n_rows(asked.test_story) - asked.test_skip
        if left < _FEWEST_ROWS:
            problems.append(
                f"data.test_skip={asked.test_skip} leaves {max(0, left)} rows of the test run {asked.test_story!r}, fewer than"
                f" {_FEWEST_ROWS}: skip fewer, or name another run"
            )
    for option in ("validation", "exclude"):
        for run in getattr(asked, option):
            if heard and run not in known:
                problems.append(f"data.{option}: no participant has responses to {run!r}; {suggestion(run, known)}")
    return [*problems, *_sounds(config, [run for run in known if run not in asked.exclude], data)]


def check_tasks(tasks: Mapping[str, Task], corpora: Mapping[str, Corpus], sha256: Callable[[Path], str]) -> list[str]:
    """Leaks from the test splits of corpora into their training splits.

    Parameters
    ----------
    tasks : name → Task
    corpora : name → Corpus
    sha256 : callable
        Returns the digest of a file's contents.
    """
    problems = Problems()
    for name, task in tasks.items():
        with problems.gathered(f"probes.tasks, {name}"):
            leaks = find_leaks(task, texts_of(corpora[corpus_of(name)]), sha256)
            check_leaks({name: [leak for leak in leaks if leak.kind not in task.allowed]})
    return problems.found


def _sounds(config: StudyConfig, runs: Sequence[str], data: Dataset) -> list[str]:
    """Sounds that are missing or end before the last scan. Found now, because the test story is read only after tuning."""
    problems = Problems()
    for run in () if isinstance(data, Outline) else runs:
        with problems.gathered(run):
            path = data.sound_file(run)
            seconds, last = audio_seconds(path), float(data.row_times(run)[-1])
            end = last + data.tr * (0.5 if run == config.data.test_story else 1)  # for tuning, clips reach to the end of a scan
            if end > seconds + 1e-3:
                raise InputError(f"{path} lasts {seconds:.1f} s, but a scan ends at {end:g} s: check the sound and the TR")
            data.check_length(run, seconds, path)
    return problems.found


def _hours(config: StudyConfig, who: str, runs: Sequence[str], data: Dataset) -> Iterator[str]:
    """Arms with more hours than a participant has; without this check they would silently be tuned on fewer hours."""
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
                there = f"{who} has {sum(seconds) / 3600:.3g} h to tune on"
                yield f"arms[{place}].hours: {hours:g}, but {there}: name fewer, or leave {who} out (data.participants)"


def _regions(config: StudyConfig, who: str, data: Dataset) -> Iterator[str]:
    problems = Problems()
    regions: Mapping[str, Sequence[int]] = {}
    if config.data.rois is not None and not Path(config.data.rois).is_dir():
        yield f"data.rois: {config.data.rois} is no folder: give the one that holds the files of regions"
        return
    with problems.gathered(who):
        regions = {name: list(voxels) for name, voxels in regions_of(data, who, config.data.rois).items()}
    yield from problems.found
    if problems.found:
        return
    if config.data.rois is not None and not regions:
        yield f"data.rois: {config.data.rois} has no regions of {who}: put a file of that name there, or leave {who} out"
        return
    known = [*regions, WHOLE]
    for option in ("regions", "tuned_regions"):
        for name in getattr(config.data, option):
            if name not in known:
                yield f"data.{option}: {who} has no region {name!r}; {suggestion(name, known)}"
    for name, voxels in regions.items():
        if not voxels:
            yield f"the region {name} of {who} has no voxels: choose others in data.regions, or correct the file of the region"
    for place, one in enumerate(config.contrasts, 1):
        for name in one.regions if one.measure in BRAIN_MEASURES else ():
            if name not in known:
                owner = "the demo's brains have" if config.data.is_demo else f"{who} has"
                yield f"contrasts[{place}].region: {owner} no region {name!r}; {suggestion(name, known)}"


def _once(config: StudyConfig) -> list[str]:
    problems = Problems()
    for name in ("layers", "baselines", "residualize"):
        with problems.gathered():
            check_once(name, getattr(config, name))
    if config.seed < 0:
        problems.found.append(f"seed={config.seed}: give a whole number, 0 or more")
    return problems.found


def _models(config: StudyConfig) -> list[str]:
    problems = Problems()
    for keys in _alike(config.models):
        problems.found.append(f"models: {' and '.join(keys)} are one folder where case does not count: rename one")
    for key, name in config.models.items():
        shape = name.removeprefix("random:")
        with problems.gathered("models"):
            check_name("the name", key)
        with problems.gathered(f"models.{key}"):
            if not shape:
                raise InputError("no model is named: give a folder with config.json, owner/name on the hub, or small")
            n_layers = _n_layers(shape)
            for option, layers in (("layers", config.layers), *([("mlp.layers", config.mlp.layers)] if config.mlp else [])):
                if beyond := [layer for layer in layers if not 0 <= layer < n_layers]:
                    raise InputError(
                        f"{option} names {beyond[0]}, but the model has layers 0 to {n_layers - 1}: choose from these"
                    )
    return problems.found


def _n_layers(model: str) -> int:
    """How many layers a model has that is given by its folder or hub name, or small; an error says why it cannot be read."""
    found = _read(model)
    if isinstance(found, FastencodeError):
        raise found
    return found


@cache
def _read(model: str) -> int | FastencodeError:
    """The same, with the error in place of the number: the hub, which may take a minute not to answer, is asked once."""
    try:
        return SpeechEncoder(SMALL_MODEL if model == "small" else model).n_layers
    except FastencodeError as error:
        return error


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case only."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(name.casefold(), []).append(name)
    return [same for same in found.values() if len(same) > 1]


def _arms(config: StudyConfig) -> list[str]:
    problems = Problems()
    with problems.gathered():
        config.base()
    of_all = bool(problems.found)
    for place, arm in enumerate(config.arms, 1):
        for what in ("model", "imitates"):
            key = getattr(arm, what)
            if key and key not in config.models:
                problems.found.append(f"arms[{place}].{what}: there is no model {key!r}; {suggestion(key, list(config.models))}")
        if arm.is_tuned and not of_all:
            with problems.gathered(f"arms[{place}].tune"):
                _check_tuning(config, arm)
    return problems.found


def _check_tuning(config: StudyConfig, arm: Arm) -> None:
    """Settings of an arm's runs: that they can be, for its models, and that no two are one."""
    runs = {seed: config.tuning(arm, seed) for seed in arm.seeds}
    for seed, run in runs.items():
        if same := [other for other in runs if other < seed and runs[other] == run]:
            raise InputError(f"seeds {same[0]} and {seed} are one run: permutations are numbered from 1; name one of them")
    run = next(iter(runs.values()))
    if run.targets.startswith("model:"):
        _n_layers(run.targets.removeprefix("model:"))
    for key in (arm.model,) if arm.model else config.models:
        with suppress(FastencodeError):  # said of the model
            last = _n_layers(config.models.get(key, "").removeprefix("random:")) - 1
            if run.head_layer is not None and run.head_layer > last:
                break
    else:
        return
    raise InputError(f"head_layer={run.head_layer}: {key} has layers 0 (what the transformer receives) to {last}: name another")


def _low_level(config: StudyConfig) -> Iterator[str]:
    for option in ("baselines", "residualize"):
        for name in getattr(config, option):
            if name not in LOW_LEVEL:
                yield f"{option}: {name!r} is not a low-level feature; {suggestion(name, LOW_LEVEL)}"


def _probes(config: StudyConfig, digest: Callable[[Path], str]) -> list[str]:
    problems, opened = Problems(), dict[str, Corpus]()
    corpora = config.probes.corpora
    for name, where in corpora.items():
        with problems.gathered("probes.corpora"):
            check_name("the name", name)
        if where == DEMO:
            if name not in SPOKEN:
                made = ", ".join(SPOKEN)
                problems.found.append(f"probes.corpora.{name}: only {made} can be made (demo); give a folder or a manifest")
        else:
            with problems.gathered(f"probes.corpora.{name}"):
                opened[name] = open_corpus(Path(where))
    for task in config.probes.tasks:
        name, before = corpus_of(task), len(problems.found)
        with problems.gathered("probes.tasks"):
            check_task(kind_of(task))
            if task.endswith("@"):
                raise InputError(f"{task!r} names no corpus after @: name one of probes.corpora, or leave @ out")
            if kind_of(task) == "phones":
                raise InputError("the task phones needs features of frames (--read.pool bins): use fastencode-tune probe")
            if corpora.get(name) == DEMO and name == "timit" and config.probes.speech.language != "en":
                raise InputError(f"{task}: the synthesized TIMIT is English only; use {kind_of(task)}@commands, or leave it out")
            if name not in corpora:
                hint = suggestion(name, corpora) if corpora else "add it there"
                raise InputError(f"{task} needs the corpus {name!r}, which probes.corpora does not have; {hint}")
        if name in opened and len(problems.found) == before:
            with problems.gathered(f"probes.tasks, {task}"):
                asked = task_of(kind_of(task), opened[name], seed=config.seed)
                _check_sounds(asked)
                problems.found += check_tasks({task: asked}, opened, digest)
    return problems.found


def _check_sounds(task: Task) -> None:
    if missing := [path for path in task.paths if not path.is_file()]:
        raise InputError(f"{len(missing)} of {len(task.paths)} sounds are missing, the first {missing[0]}: put them there")


def _conditions(readings: Sequence[Reading], baselines: Sequence[str]) -> Iterator[str]:
    """Two readings of one name would share a folder."""
    for name in baselines:
        if name in [reading.condition for reading in readings]:
            yield f"an arm is called {name!r}, as one of baselines is: rename the arm"
    for name, count in Counter(reading.name for reading in readings).items():
        if count > 1:
            yield f"two arms, with their models, hours, seeds or epochs, are both called {name!r}: rename one"
    for names in _alike(reading.name for reading in readings):
        yield f"{' and '.join(names)} are one folder where case does not count: rename one"


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
                yield f"{where}: there is no condition {condition!r}; {suggestion(condition, known)}"
        if one.measure in (MLP, BEYOND_LINEAR) and one.measure not in networks:
            missing = "mlp" if config.mlp is None else "mlp.linear"
            yield f"{where}.measure: {one.measure!r} is not measured without {missing}: add it to the study"
        elif one.measure not in measures:
            yield f"{where}.measure: {one.measure!r} is not measured; {suggestion(one.measure, measures)}"
        for setting, weights in (("models", one.models), ("layers", one.depths)):
            total = sum(weights.values())
            if min(abs(total), abs(total - 1)) > 0.02:  # 0.33 three times is meant as 1
                yield f"{where}.{setting}: weights sum to {total:g}: let them sum to 0, a difference, or to 1, a mean"
        if one.measure in config.probes.tasks and one.regions != ("",):
            yield f"{where}.region: {one.measure} is a probe's task, which has no region: leave region out"
        depths = _depths(config, readings, one.measure)
        with problems.gathered(where):
            if not {*one.models, *([one.control] if one.control else [])} - depths.keys():
                weights_of(one, depths)
    yield from problems.found


def _depths(config: StudyConfig, readings: Sequence[Reading], measure: str) -> dict[str, list[int]]:
    """Condition → its layers that have this measure. Conditions whose model cannot be read are left out."""
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
