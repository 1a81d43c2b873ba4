"""What every subcommand leaves behind: the page with its tables and figures, the settings that repeat it, its provenance."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import nan
from pathlib import Path
from typing import Any

from fastencode.cli.written import write_settings
from fastencode.errors import require
from fastencode.plain import plain
from fastencode.progress import say
from fastencode.runs.collected import write_voxel_files
from fastencode.runs.engine import Stages
from fastencode.runs.provenance import commit, libraries
from fastencode.runs.studies.diagnostics import diagnostic_rows
from fastencode.runs.studies.maps import change_maps
from fastencode.runs.studies.readings import models_of
from fastencode.runs.studies.results import Results
from fastencode.study.contrasts import finding_rows, part_rows, verdicts_of
from fastencode.study.report import scores_table, write_report
from fastencode.study.verdicts import Verdict, verdict_table

__all__ = ["provenance", "publish_study", "write_settings"]


def publish_study(
    stages: Stages,
    results: Results,
    *,
    lead: str,
    notes: str,
    config: Any,
    command: str,
    verdicts: Sequence[Verdict] = (),
    facts: Mapping[str, str] | None = None,
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write everything of a study into its folder, print the summary, and return the path of the page.

    Parameters
    ----------
    stages : Stages
    results : Results
    lead, notes : str
        The page's first words, and the limits of what was shown.
    config : dataclass
        The command's settings.
    command : str
    verdicts : sequence of Verdict
        What was expected besides the study's contrasts.
    facts : mapping, optional
        Goes into the provenance.
    picture_regions : sequence of str, optional
        As for ``write_report``.
    """
    pandas, study = require("pandas", "tune"), results.graph.config
    findings = results.findings()
    asked = {one.name: {"expect": one.expect or "", "limit": one.limit if one.expect else nan} for one in study.contrasts}
    answered = [{**row, **asked[row["name"]]} for row in finding_rows(findings)]
    rows = {**results.tables(), "findings": answered, "parts": part_rows(findings)}
    rows["diagnostics"] = diagnostic_rows(results)
    rows["warnings"] = [{"warning": text} for text in results.warnings()]
    tables = {name: pandas.DataFrame(table) for name, table in rows.items()}
    models = models_of((*results.graph.names.readings, *results.graph.names.low_level), study.baselines)
    every = [*verdicts_of(findings), *verdicts]
    if results.scored:
        write_voxel_files(stages, replace(results.found, scores=results.scored))
    typed = write_settings(stages.root, config, command)
    page = write_report(
        stages.root,
        title=study.title,
        lead=lead,
        notes=notes,
        models=models,
        tables=tables,
        verdicts=every,
        provenance={**provenance(config, stages.seconds), **(facts or {}), **results.origin(stages)},
        command=typed,
        picture_regions=picture_regions,
        maps=change_maps(stages, results),
    )
    if len(tables["scores"]):
        say("\n" + scores_table(tables["scores"], models))
    if every:
        say("\n" + verdict_table(every))
    for text in results.missing:
        say(f"missing: {text}")
    say(f"\nTables, figures and config.yaml are in {stages.root}. The page: {page}")
    return page


def provenance(config: Any, seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """When, on what and by which versions a folder was filled, and with which settings: plain values, as JSON has them."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = f"{own * unit / 1e9:.2f} GB in the main process, {children * unit / 1e9:.2f} GB in the largest other one"
    found: dict[str, Any] = {
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "peak memory": peak,
        "seconds of stages": _spent(seconds or {}),
        "versions": libraries(),
        "settings": plain(config, shown=True),
    }
    return {name: value for name, value in found.items() if value}


def _spent(seconds: Mapping[str, float]) -> str:
    """Seconds of every kind of stage, in the order in which they were made: "models 449 (4 of them)"."""
    kinds: dict[str, list[float]] = {}
    for name, spent in seconds.items():
        kinds.setdefault(name.partition("/")[0], []).append(spent)
    counts = {kind: f" ({len(each)} of them)" if len(each) > 1 else "" for kind, each in kinds.items()}
    return ", ".join(f"{kind} {sum(each):.0f}{counts[kind]}" for kind, each in kinds.items())
