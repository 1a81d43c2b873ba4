"""A study from its settings to its tables: what ``fastencode-tune run`` does, callable from a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastencode.data.dataset import Dataset
from fastencode.data.stories import Stories
from fastencode.errors import FastencodeError, raise_all
from fastencode.runs.engine import Stages
from fastencode.runs.estimates import check_shapes
from fastencode.runs.studies.checks import check_data, check_study, check_tasks
from fastencode.runs.studies.config import StudyConfig
from fastencode.runs.studies.results import Results, collect_study
from fastencode.runs.studies.stages import Graph, given_stages, ground_of
from fastencode.world.outline import Outline

__all__ = ["check_start", "open_stories", "run_study"]


def run_study(stages: Stages, config: StudyConfig, *, data: Dataset | None = None, made_by: tuple[str, ...] = ()) -> Results:
    """Make everything of a study that is not finished, and collect what is.

    Parameters
    ----------
    stages : Stages
        Where. What fails is in its ``failed``; ``check`` raises then.
    config : StudyConfig
    data : Dataset, optional
        By default what ``config.data`` names.
    made_by : tuple of str
        Stages that made ``data``.

    Returns
    -------
    Results
        Of all that is finished: a stage that failed takes only with it what depends on it.

    Raises
    ------
    InputError
        If the study does not fit its data, models or corpora: all problems, before anything is made; or if nothing could be
        scored or probed.
    """
    config = config.resolved()
    problems, data = check_start(stages, config, data)
    raise_all(problems)
    made = stages.run_all(list(given_stages(config)))
    if data is None:
        if "world" not in made:
            stages.check()
        data, made_by = open_stories(config, made["world"]), ("world",)
        raise_all(check_data(config, data))
    graph = Graph(stages.root, config, ground_of(config, data, made_by))
    raise_all(check_tasks(graph.tasks, graph.corpora, stages.sha256))
    check_shapes(graph.question, {"align.delays": [tuple(config.align.delays)]})  # before hours of tuning
    there = stages.run_all(graph.making())
    finished: Mapping[str, Path] = {**there, **stages.run_all(graph.asking(there, stages.sha256))}
    if not any(name.startswith(("fits/", "probes/")) for name in finished):
        stages.check()
    return collect_study(stages, graph, finished)


def check_start(stages: Stages, config: StudyConfig, data: Dataset | None = None) -> tuple[list[str], Dataset | None]:
    """All that is wrong with a resolved study before anything is made, a line for each, and its data.

    Parameters
    ----------
    stages : Stages
        Its output folder may hold the demo's world; its digests of files are used.
    config : StudyConfig
    data : Dataset, optional
        By default what ``config.data`` names. Of the demo's world None, as long as it is not made.
    """
    problems = check_study(config, stages.sha256)
    try:
        if data is None and not config.data.is_demo:
            data = open_stories(config, Path(config.data.stories))
        return [*problems, *(check_data(config, data if data is not None else Outline(config.world)))], data
    except FastencodeError as error:
        return [*problems, f"data.stories: {error}"], data


def open_stories(config: StudyConfig, root: Path) -> Stories:
    """The data set of a resolved study."""
    asked = config.data
    assert asked.test_story is not None and asked.test_skip is not None
    tr = config.world.tr if asked.is_demo else asked.tr
    return Stories(
        root,
        tr=tr,
        test_story=asked.test_story,
        test_skip=asked.test_skip,
        word_tier=asked.word_tier,
        phone_tier=asked.phone_tier,
    )
