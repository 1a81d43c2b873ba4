"""The output of subcommands: a study's page with tables and figures, settings that repeat it, and provenance."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fastencode.cli.written import write_settings
from fastencode.plain import plain
from fastencode.progress import say
from fastencode.runs.engine import Stages
from fastencode.runs.provenance import commit, libraries
from fastencode.runs.studies.page import write_study
from fastencode.runs.studies.results import Results
from fastencode.study.findings.verdicts import Verdict

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
    is_study: bool = False,
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write a study's results and settings into its folder, and return the path of the page.

    Parameters
    ----------
    stages, results, lead, notes, verdicts, picture_regions
        As for :func:`fastencode.runs.studies.page.write_study`.
    config : dataclass
        The command's settings.
    command : str
    facts : mapping, optional
        Further entries of the provenance.
    is_study : bool
        Whether ``config`` is a study, so that ``fastencode-tune run`` can read the written settings as its file.
    """
    how = {"option": "", "more": f" --out {shlex.quote(str(stages.root))}"} if is_study else {}
    page = write_study(
        stages,
        results,
        lead=lead,
        notes=notes,
        provenance={**provenance(config, stages.seconds), **(facts or {})},
        command=write_settings(stages.root, config, command, **how),
        verdicts=verdicts,
        picture_regions=picture_regions,
    )
    say(f"\nTables, figures and config.yaml are in {stages.root}. The page: {page}")
    return page


def provenance(config: Any, seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Date, commit, machine, peak memory, times, versions and settings of a command, as plain values for JSON."""
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
    """Seconds of each kind of stage, in the order in which they ran: "models 449 (4 of them)"."""
    kinds: dict[str, list[float]] = {}
    for name, spent in seconds.items():
        kinds.setdefault(name.partition("/")[0], []).append(spent)
    counts = {kind: f" ({len(each)} of them)" if len(each) > 1 else "" for kind, each in kinds.items()}
    return ", ".join(f"{kind} {sum(each):.0f}{counts[kind]}" for kind, each in kinds.items())
