"""What every subcommand leaves behind: tables, figures, the page, the settings that repeat it, and a summary on the terminal."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastencode.errors import require
from fastencode.files import whole_file
from fastencode.progress import say
from fastencode.runs.engine import Stages
from fastencode.runs.experiment import Outcome
from fastencode.runs.provenance import plain
from fastencode.study.report import scores_table, write_report
from fastencode.study.verdicts import Verdict, verdict_table

__all__ = ["publish", "write_settings"]

_VERSIONS = ("fastencode-neuro", "numpy", "scipy", "torch", "transformers", "matplotlib")


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
    facts: dict[str, str] | None = None,
    picture_regions: Sequence[str] | None = None,
) -> Path:
    """Write everything into the output folder, print the summary, and return the path of the page."""
    pandas = require("pandas", "tune")
    settings = write_settings(stages.root, config, command)
    scores = pandas.DataFrame(outcome.scores)
    for name, rows in (("control_scores", outcome.control_scores), ("control_training", outcome.control_training)):
        with whole_file(stages.root / f"{name}.csv") as partial:
            pandas.DataFrame(rows).to_csv(partial, index=False)
    page = write_report(
        stages.root,
        title=title,
        lead=lead,
        notes=notes,
        scores=scores,
        training=pandas.DataFrame(outcome.training),
        verdicts=list(verdicts),
        settings=settings,
        facts={**_facts(stages), **(facts or {})},
        command=f"{command} --config config.yaml",
        picture_regions=picture_regions,
    )
    say("\n" + scores_table(scores))
    say("\n" + verdict_table(list(verdicts)))
    say(f"\nTables, figures and config.yaml are in {stages.root}. The page: {page}")
    return page


def write_settings(folder: Path, config: Any, command: str) -> dict[str, Any]:
    """Write ``config.yaml``, with which the command repeats itself; returns the settings as plain values."""
    settings: dict[str, Any] = plain(config)
    text = require("yaml", "tune").safe_dump(settings, sort_keys=False)
    with whole_file(folder / "config.yaml") as partial:
        partial.write_text(f"# Everything needed to repeat this: {command} --config config.yaml\n{text}", encoding="utf-8")
    return settings


def _facts(stages: Stages) -> dict[str, str]:
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024
    facts = {name: version(name) for name in _VERSIONS}
    facts["Python"] = platform.python_version()
    facts["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    facts["peak memory"] = (
        f"{own * unit / 1e9:.2f} GB in the main process, {children * unit / 1e9:.2f} GB in the largest other one"
    )
    facts["seconds of stages"] = _spent(stages.seconds)
    return facts


def _spent(seconds: Mapping[str, float]) -> str:
    """Seconds of every kind of stage, in the order in which they were made: "models 449 (4 of them)"."""
    kinds: dict[str, list[float]] = {}
    for name, spent in seconds.items():
        kinds.setdefault(name.partition("/")[0], []).append(spent)
    counts = {kind: f" ({len(each)} of them)" if len(each) > 1 else "" for kind, each in kinds.items()}
    return ", ".join(f"{kind} {sum(each):.0f}{counts[kind]}" for kind, each in kinds.items())
