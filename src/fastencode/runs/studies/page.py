"""Write a study's page, tables, figures and voxel files. No stage is defined here, because stages must not import figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from fastencode.errors import require
from fastencode.progress import say
from fastencode.runs.collected import write_voxel_files
from fastencode.runs.engine import Stages
from fastencode.runs.studies.diagnostics import diagnostic_rows
from fastencode.runs.studies.maps import change_maps
from fastencode.runs.studies.readings import models_of
from fastencode.runs.studies.results import Results
from fastencode.study.findings.contrasts import finding_rows, part_rows, verdicts_of
from fastencode.study.findings.verdicts import Verdict, verdict_table
from fastencode.study.report.report import scores_table, write_report

__all__ = ["write_study"]


def write_study(
    stages: Stages,
    results: Results,
    *,
    lead: str,
    notes: str,
    provenance: Mapping[str, Any],
    command: str,
    verdicts: Sequence[Verdict] = (),
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write a study's results into its folder, print a summary, and return the path of the page.

    Parameters
    ----------
    stages : Stages
    results : Results
    lead, notes : str
        First paragraphs of the page, and its paragraph on limits.
    provenance : mapping
        As for :func:`fastencode.study.report.report.write_report`; the provenance of the tables is added.
    command : str
        The command that repeats the study.
    verdicts : sequence of Verdict
        Expectations besides the study's contrasts.
    picture_regions : sequence of str, optional
        As for ``write_report``.

    Raises
    ------
    InputError
        As ``write_report``; also if a contrast names something that was not measured.
    """
    findings, config = results.findings(), results.graph.config
    asked = {one.name: {"expect": one.expect or "", "limit": one.limit if one.expect else nan} for one in config.contrasts}
    answered = [{**row, **asked[row["name"]]} for row in finding_rows(findings)]
    rows = {**results.tables(), "findings": answered, "parts": part_rows(findings)}
    rows["diagnostics"] = diagnostic_rows(results)
    rows["warnings"] = [{"warning": text} for text in results.warnings()]
    frame = require("pandas", "tune").DataFrame
    tables = {name: frame(table) for name, table in rows.items()}
    models = models_of((*results.graph.names.readings, *results.graph.names.low_level), config.baselines)
    every = [*verdicts_of(findings), *verdicts]
    if results.found.scores:
        write_voxel_files(stages, results.found)  # of each seed: p-values cannot be averaged
    page = write_report(
        stages.root,
        title=config.title,
        lead=lead,
        notes=notes,
        models=models,
        tables=tables,
        verdicts=every,
        provenance={**provenance, **results.origin(stages)},
        command=command,
        picture_regions=picture_regions,
        maps=change_maps(stages, results),
    )
    if len(tables["scores"]):
        say("\n" + scores_table(tables["scores"], models))
    if every:
        say("\n" + verdict_table(every))
    for text in results.missing:
        say(f"missing: {text}")
    return page
