"""``fastencode-tune diagnose``: what may have gone wrong in a run, finished or not."""

from __future__ import annotations

from fastencode.cli.mistakes import of_option
from fastencode.cli.settings import DiagnoseConfig
from fastencode.errors import InputError
from fastencode.files import check_file

__all__ = ["run"]


def run(config: DiagnoseConfig) -> None:
    """Print finding, evidence and advice for everything that is known to go wrong."""
    for option, folder in (("RUN", config.run), ("--control", config.control)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option}: {folder} is not a folder: give one that fastencode-tune train has filled")
    from fastencode.data.config import ImageSettings
    from fastencode.data.opening import open_data
    from fastencode.tune.diagnose import diagnose, report
    from fastencode.tune.record import read_settings

    dataset = None
    if config.stories is not None:
        settings = read_settings(check_file(config.run / "config.yaml", "settings of the run"))
        with of_option("--stories"):
            given = {name: settings[name] for name in ("layout", "tr", "test_story") if settings.get(name) is not None}
            images = ImageSettings(**settings.get("images") or {})
            dataset = open_data(config.stories, settings=images, **given)
    print(report(diagnose(config.run, dataset=dataset, control=config.control)))
