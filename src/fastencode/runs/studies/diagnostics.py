"""Results of ``fastencode-tune diagnose`` on every tuning run of a study, as rows of a table."""

from __future__ import annotations

from typing import Any

from fastencode.errors import FastencodeError
from fastencode.runs.studies.readings import EVERYBODY
from fastencode.runs.studies.results import Results
from fastencode.tune.diagnose import diagnose

__all__ = ["diagnostic_rows"]


def diagnostic_rows(results: Results) -> list[dict[str, Any]]:
    """One row for each finding of each finished run, except findings that are "ok"."""
    graph = results.graph
    ends = {one.tuning.name: one.condition for one in graph.names.readings if one.tuning is not None and one.epoch is None}
    rows = []
    for name, (run, owner) in graph.names.models.items():
        folder = graph.root / name
        if not (folder / "log.jsonl").exists():
            continue
        try:
            found = diagnose(folder, graph.ground.data)
        except FastencodeError as error:
            rows.append(_row(owner, ends[run.name], run.name, "the run", "unknown", str(error), ""))
            continue
        rows += [
            _row(owner, ends[run.name], run.name, one.name, one.verdict, one.evidence, one.advice)
            for one in found
            if one.verdict in ("look", "wrong")
        ]
    return rows


def _row(owner: str, condition: str, run: str, finding: str, verdict: str, evidence: str, advice: str) -> dict[str, Any]:
    where = "" if run == condition else f"{run}: "
    return {
        "participant": "" if owner == EVERYBODY else owner,
        "model": condition,
        "finding": f"{where}{finding}",
        "verdict": verdict,
        "evidence": evidence,
        "advice": advice,
    }
