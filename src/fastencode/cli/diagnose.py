"""``fastencode-tune diagnose``: what may have gone wrong in a finished run."""

from __future__ import annotations

from fastencode.cli.mistakes import of_option
from fastencode.cli.settings import DiagnoseConfig
from fastencode.errors import InputError, require
from fastencode.files import check_file, read_text

__all__ = ["run"]


def run(config: DiagnoseConfig) -> None:
    """Print finding, evidence and advice for everything that is known to go wrong."""
    for option, folder in (("RUN", config.run), ("--control", config.control)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option}: {folder} is not a folder: give one that fastencode-tune train has filled")
    from fastencode.data.stories import Stories
    from fastencode.tune.diagnose import diagnose, report

    dataset = None
    if config.stories is not None:
        settings = require("yaml", "tune").safe_load(read_text(check_file(config.run / "config.yaml", "settings of the run")))
        with of_option("--stories"):
            dataset = Stories(config.stories, **{name: settings[name] for name in ("tr", "test_story") if name in settings})
    print(report(diagnose(config.run, dataset=dataset, control=config.control)))
