"""Files of studies: YAML to settings, with every problem at once; and the templates that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fastencode.errors import InputError, require, suggestion
from fastencode.files import read_text
from fastencode.runs.studies.config import StudyConfig
from fastencode.runs.studies.typed import problems_of

__all__ = ["read_study", "study_text", "template_names"]

FIRST = "study"
"""The template that shows every setting."""


def template_names() -> list[str]:
    """The studies that come with the package."""
    folder = resources.files("fastencode.runs.studies") / "templates"
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def study_text(study: Path | str | None) -> str:
    """The text of a file, or of a template by its name; of the template that shows every setting by default."""
    name = str(study or FIRST)
    if not Path(name).exists() and name in template_names():
        return (resources.files("fastencode.runs.studies") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")
    if not Path(name).is_file():
        raise InputError(
            f"{name} is no file, and no study of that name comes with fastencode: {suggestion(name, template_names())}"
        )
    return read_text(name)


def read_study(study: Path | str | None, changes: Mapping[str, Any] | None = None) -> tuple[list[str], StudyConfig | None]:
    """Read a study.

    Parameters
    ----------
    study : path or str, optional
        As for :func:`study_text`.
    changes : mapping, optional
        Settings that count more than the file's, those of inner mappings one by one.

    Returns
    -------
    list of str
        A line for each problem of its settings.
    StudyConfig or None
        None where there are problems.

    Raises
    ------
    InputError
        If there is no such file, or it is not YAML.
    """
    yaml = require("yaml", "tune")
    try:
        given = yaml.safe_load(study_text(study))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        place = f", line {where.line + 1}" if where is not None else ""
        raise InputError(f"{study}{place}: this is not YAML ({getattr(error, 'problem', error)}): correct it") from error
    if not isinstance(given, Mapping):
        raise InputError(f"{study} holds no settings: fastencode-tune run --template prints a file that does")
    return problems_of(StudyConfig, _spelled_out(_changed(given, changes or {})))


def _changed(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(given)
    for name, value in changes.items():
        if isinstance(value, Mapping):
            before = found.get(name)
            found[name] = _changed(_long(name, before) if before is not None else {}, value)
        else:
            found[name] = value
    return found


_SHORT = {"data": "stories", "probes": "tasks"}
"""Settings that may be written as the one value that matters most: ``data: demo``, ``probes: [word]``."""


def _spelled_out(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _long(name, value) for name, value in given.items()}


def _long(name: str, value: Any) -> Any:
    if name in _SHORT and value is not None and not isinstance(value, Mapping):
        return {_SHORT[name]: value}
    return value
