"""Read a study's YAML file into settings, reporting all problems together; and the templates that ship with the package."""

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
"""Name of the template that shows every setting."""


def template_names() -> list[str]:
    """Names of the studies that ship with the package."""
    folder = resources.files("fastencode.runs.studies") / "templates"
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def study_text(study: Path | str | None) -> str:
    """The YAML text of a file or of a template.

    Parameters
    ----------
    study : path or str, optional
        A file, or the name of a template. Default: the template that shows every setting.

    Raises
    ------
    InputError
        If there is neither a file nor a template of this name.
    """
    name = str(study or FIRST)
    if not Path(name).exists() and name in template_names():
        return (resources.files("fastencode.runs.studies") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")
    if not Path(name).is_file():
        raise InputError(f"{name} is neither a file nor a study that ships with fastencode: {suggestion(name, template_names())}")
    return read_text(name)


def read_study(study: Path | str | None, changes: Mapping[str, Any] | None = None) -> tuple[list[str], StudyConfig | None]:
    """Read the settings of a study.

    Parameters
    ----------
    study : path or str, optional
        As for :func:`study_text`.
    changes : mapping, optional
        Settings that override those of the file; inner mappings are overridden key by key.

    Returns
    -------
    list of str
        One line for each problem.
    StudyConfig or None
        None if the problems leave no valid settings.

    Raises
    ------
    InputError
        If there is no such file, or its content is not YAML or not a mapping.
    """
    yaml = require("yaml", "tune")
    try:
        given = yaml.safe_load(study_text(study))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        place = f", line {where.line + 1}" if where is not None else ""
        raise InputError(f"{study}{place}: not valid YAML ({getattr(error, 'problem', error)}): correct it") from error
    if not isinstance(given, Mapping):
        raise InputError(f"{study} contains no settings: fastencode-tune run --template prints an example")
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
"""Settings that have a short form, and the field that it sets: ``data: demo``, ``probes: [word]``."""


def _spelled_out(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _long(name, value) for name, value in given.items()}


def _long(name: str, value: Any) -> Any:
    if name in _SHORT and value is not None and not isinstance(value, Mapping):
        return {_SHORT[name]: value}
    return value
