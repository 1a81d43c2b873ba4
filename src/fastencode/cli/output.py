"""What every subcommand leaves behind: the page with its tables and figures, the settings that repeat it, its provenance."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fastencode.cli.written import write_settings
from fastencode.errors import require
from fastencode.plain import plain
from fastencode.progress import say
from fastencode.runs.engine import Stages
from fastencode.runs.experiment import Outcome
from fastencode.runs.provenance import commit, libraries
from fastencode.study.conditions import BEFORE_AND_AFTER
from fastencode.study.report import scores_table, write_report
from fastencode.study.verdicts import Verdict, verdict_table

__all__ = ["provenance", "publish", "write_settings"]


def publish(
    stages: Stages,
    outcome: Outcome,
    *,
    title: str,
    lead: str,
    notes: str,
    verdicts: Sequence[Verdict],
    config: Any,
    command: str,
    facts: Mapping[str, str] | None = None,
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write everything of an experiment into its folder, print the summary, and return the path of the page."""
    pandas = require("pandas", "tune")
    tables = {name: pandas.DataFrame(rows) for name, rows in outcome.tables().items()}
    typed = write_settings(stages.root, config, command)
    page = write_report(
        stages.root,
        title=title,
        lead=lead,
        notes=notes,
        models=BEFORE_AND_AFTER,
        tables=tables,
        verdicts=list(verdicts),
        provenance={**provenance(config, stages.seconds), **(facts or {})},
        command=typed,
        picture_regions=picture_regions,
    )
    say("\n" + scores_table(tables["scores"], BEFORE_AND_AFTER))
    say("\n" + verdict_table(list(verdicts)))
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
