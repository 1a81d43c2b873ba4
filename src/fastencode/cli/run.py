"""``fastencode-tune run``: run the study that a YAML file describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastencode.cli.output import publish_study
from fastencode.cli.run_settings import RunConfig
from fastencode.errors import StudyError, raise_all
from fastencode.progress import say
from fastencode.runs.engine import Stages
from fastencode.runs.executors import settle
from fastencode.runs.executors.where import check_where, where_of
from fastencode.runs.studies.foreseen import foresee_study, say_foreseen
from fastencode.runs.studies.reading import read_study, study_text
from fastencode.runs.studies.study import check_start, open_stories, run_study
from fastencode.study.report.leads import STUDY_NOTES

__all__ = ["run"]


def run(config: RunConfig) -> Path | None:
    """Print the study's file, or do a dry run, or run the study and return the path of its page."""
    if config.template:
        say(study_text(config.study).rstrip("\n"))
        return None
    changes: dict[str, Any] = {} if config.data is None else {"data": {"stories": config.data}}
    problems, study = read_study(config.study, changes)
    if study is None:
        raise_all(problems, StudyError)
    assert study is not None
    where = where_of(jobs=config.jobs, scheduler=config.scheduler, slurm=config.slurm, submit=config.submit)
    stages = Stages(config.out, reuse=config.reuse, prepare=settle, where=where)
    if config.dry_run or problems:
        made = stages.path("world")
        world = study.data.is_demo and (made / "respdict.json").exists()
        more, study, data = check_start(stages, study, open_stories(study, made) if world else None)
        raise_all([*problems, *more], StudyError)
        say_foreseen(stages.root, foresee_study(stages.root, study, data), config.jobs)
        return None
    check_where(where)
    results = run_study(stages, study)
    page = publish_study(
        stages, results, lead=study.question, notes=STUDY_NOTES, config=study, command="fastencode-tune run", is_study=True
    )
    stages.check()
    return page
