"""``config.yaml``: the settings that repeat a command, in the folder that it filled."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from fastencode.errors import require
from fastencode.files import whole_file
from fastencode.plain import plain

__all__ = ["write_settings"]


def write_settings(folder: Path, config: Any, command: str, *, option: str = "--config ", more: str = "") -> str:
    """Write ``config.yaml``, with which the command repeats itself; returns what to type for that, from any folder.

    Parameters
    ----------
    folder : Path
    config : dataclass
    command : str
    option : str
        What stands before the file.
    more : str
        What stands behind it.
    """
    path = folder / "config.yaml"
    repeat = f"cd {shlex.quote(os.getcwd())} && {command} {option}{shlex.quote(str(path))}{more}"
    text = require("yaml", "tune").safe_dump(plain(config, shown=True), sort_keys=False, allow_unicode=True)
    with whole_file(path) as partial:
        partial.write_text(f"# Everything needed to repeat this: {repeat}\n{text}", encoding="utf-8")
    return repeat
