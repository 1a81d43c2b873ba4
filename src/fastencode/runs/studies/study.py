"""Run a study, from its settings to its results. ``fastencode-tune run`` calls this, and so can a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastencode.data.dataset import Dataset
from fastencode.data.opening import open_data
from fastencode.data.stories import Stories
from fastencode.errors import FastencodeError, StudyError, raise_all
from fastencode.runs.engine import Stages
from fastencode.runs.estimates import check_shapes
from fastencode.runs.studies.checks import check_data, check_study, check_tasks
from fastencode.runs.studies.config import StudyConfig
from fastencode.runs.studies.learning import check_learning
from fastencode.runs.studies.results import Results, collect_study
from fastencode.runs.studies.stages import Graph, given_stages, ground_of
from fastencode.runs.training import marked
from fastencode.world.outline import Outline

__all__ = ["Start", "check_start", "open_stories", "run_study"]


def run_study(stages: Stages, config: StudyConfig, *, data: Dataset | None = None, made_by: tuple[str, ...] = ()) -> Results:
    """Run all stages of a study that are not finished, and collect the results.

    Parameters
    ----------
    stages : Stages
        The output folder and executor. Stages that failed are in its ``failed``; its ``check`` raises an error for them.
    config : StudyConfig
    data : Dataset, optional
        Default: the data set that ``config.data`` names.
    made_by : tuple of str
        Stages that made ``data``.

    Returns
    -------
    Results
        Of all stages that are finished. If a stage failed, only stages that depend on it are missing.

    Raises
    ------
    InputError
        If settings, data, models or corpora do not fit together; the message lists all problems, and nothing was computed. Also
        if all fits and probes failed.
    """
    problems, config, data = check_start(stages, config, data)
    raise_all(problems, StudyError)
    made = stages.run_all(list(given_stages(config)))
    if data is None:
        if "world" not in made:
            stages.check()
        data, made_by = open_stories(config, made["world"]), ("world",)
        raise_all(check_data(config, data), StudyError)
    graph = Graph(stages.root, config, ground_of(config, data, made_by))
    raise_all(check_tasks(graph.tasks, graph.corpora, stages.sha256), StudyError)
    check_shapes(graph.question, {"align.delays": [tuple(config.align.delays)]})  # before hours of tuning
    there = stages.run_all(graph.making())
    finished: Mapping[str, Path] = {**there, **stages.run_all(graph.asking(there, stages.sha256))}
    if not any(name.startswith(("fits/", "probes/")) for name in finished):
        stages.check()
    return collect_study(stages, graph, finished)


class Start(NamedTuple):
    """A study before anything is computed.

    Attributes
    ----------
    problems : list of str
        All of them, one line each.
    config : StudyConfig
        With defaults filled in.
    data : Dataset or None
        None if the data are simulated and not made yet, or cannot be read.
    """

    problems: list[str]
    config: StudyConfig
    data: Dataset | None


def check_start(stages: Stages, config: StudyConfig, data: Dataset | None = None) -> Start:
    """Check a study before anything is computed.

    Parameters
    ----------
    stages : Stages
        Used for its digests of files.
    config : StudyConfig
    data : Dataset, optional
        Default: the data set that ``config.data`` names.
    """
    try:
        if data is None and not config.data.is_demo:
            data = open_stories(config, Path(config.data.stories))
    except FastencodeError as error:
        config = config.resolved()
        return Start([*check_study(config, stages.sha256), f"data.stories: {error}"], config, None)
    if data is None or isinstance(data, Stories):
        config = config.resolved()
    else:
        config = config.resolved(data.test_story, marked(data, "validation"))
    there = data if data is not None else Outline(config.world)
    of_data = check_data(config, there)
    if not of_data:
        of_data = check_learning(config, there)
    return Start([*check_study(config, stages.sha256), *of_data], config, data)


def open_stories(config: StudyConfig, root: Path) -> Dataset:
    """The data set of a study in ``root``."""
    asked = config.data
    named: dict[str, Any] = {"tr": asked.tr, "test_story": asked.test_story, "test_skip": asked.test_skip}
    if asked.is_demo:
        demo = asked.resolved()
        named = {"tr": config.world.tr, "test_story": demo.test_story, "test_skip": demo.test_skip}
    tiers: dict[str, Any] = {"word_tier": asked.word_tier, "phone_tier": asked.phone_tier}
    return open_data(root, "ds003020" if asked.is_demo else asked.layout, settings=asked.images, **named, **tiers)
