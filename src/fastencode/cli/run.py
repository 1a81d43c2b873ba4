"""``fastencode-tune run``: a study from its file to its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastencode.cli.output import publish_study
from fastencode.cli.run_settings import RunConfig
from fastencode.progress import say
from fastencode.runs.engine import Stages
from fastencode.runs.executors import settle
from fastencode.runs.executors.where import check_where, where_of
from fastencode.runs.studies.checks import check_data, check_study, raise_all
from fastencode.runs.studies.foreseen import foresee_study, say_foreseen
from fastencode.runs.studies.reading import read_study, study_text
from fastencode.runs.studies.study import open_stories, run_study
from fastencode.study.leads import STUDY_NOTES

__all__ = ["run"]


def run(config: RunConfig) -> Path | None:
    """Print the study's file, say what it would take, or run it; returns the path of its page."""
    if config.template:
        say(study_text(config.study).rstrip("\n"))
        return None
    changes: dict[str, Any] = {} if config.data is None else {"data": {"stories": config.data}}
    problems, study = read_study(config.study, changes)
    raise_all(problems)
    assert study is not None
    where = where_of(jobs=config.jobs, scheduler=config.scheduler, slurm=config.slurm, submit=config.submit)
    stages = Stages(config.out, reuse=config.reuse, prepare=settle, where=where)
    if config.dry_run:
        study = study.resolved()
        raise_all(check_study(study))
        made = stages.path("world")
        there = not study.data.is_demo or (made / "respdict.json").exists()
        data = open_stories(study, made if study.data.is_demo else Path(study.data.stories)) if there else None
        if data is not None:
            raise_all(check_data(study, data))
        say_foreseen(stages.root, foresee_study(stages.root, study, data), config.jobs)
        return None
    check_where(where)
    results = run_study(stages, study)
    page = publish_study(stages, results, lead=study.question, notes=STUDY_NOTES, config=study, command="fastencode-tune run")
    stages.check()
    return page
