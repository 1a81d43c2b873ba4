"""``fastencode-tune train``: a speech model tuned on the responses of one or many participants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastencode.cli.settings import TrainConfig
from fastencode.cli.written import write_settings

__all__ = ["run"]


def run(config: TrainConfig) -> list[Path]:
    """Train, or go on with what was begun, and return the folders of the runs; with ``dry_run`` say what that would take.

    Each run's folder gets the ``config.yaml`` that repeats it alone as soon as it begins.
    """
    from fastencode.runs.training import say_cost, train

    if config.dry_run:
        say_cost(config.lessons(), config.tuning(), config.model, config.out, each=config.each, device=config.device)
        return []

    def begun(folder: Path) -> None:
        alone = replace(config, participants=(folder.name,), each=False, out=folder) if config.each else config
        write_settings(folder, alone, "fastencode-tune train")

    return train(
        config.lessons(),
        config.tuning(),
        config.model,
        config.out,
        each=config.each,
        device=config.device,
        extend_epochs=config.extend_epochs,
        fast_dev_run=config.fast_dev_run,
        begun=begun,
    )
