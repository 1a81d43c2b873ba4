"""``fastencode-tune alice``: an alias of ``examples/alice.py`` that the next release will not have."""

from __future__ import annotations

import warnings
from pathlib import Path

from fastencode.cli.output import publish_study
from fastencode.cli.settings import AliceConfig
from fastencode.errors import FastencodeWarning
from fastencode.runs.alice import PICTURE_REGIONS, alice_study
from fastencode.runs.engine import Stages
from fastencode.runs.executors import settle
from fastencode.runs.executors.where import Where
from fastencode.study.report.leads import ALICE_NOTES

__all__ = ["run"]


def run(config: AliceConfig) -> Path:
    """Run both halves and return the path of the page."""
    warnings.warn(
        "the next release has no fastencode-tune alice: use examples/alice.py of the source, or fastencode.runs.alice",
        FastencodeWarning,
        stacklevel=2,
    )
    stages = Stages(config.out, prepare=settle, where=Where(config.jobs))
    study = alice_study(
        stages,
        config.data,
        tune=config.tune,
        alignment=config.align,
        model=config.model,
        controls=config.controls,
        test_rows=config.test_rows,
        validation_rows=config.validation_rows,
    )
    return publish_study(
        stages,
        study.results,
        lead=study.lead,
        notes=ALICE_NOTES,
        picture_regions=PICTURE_REGIONS,
        config=config,
        command="fastencode-tune alice",
        facts={"encoding half": study.encoding},
    )
