"""Read a study's YAML file into settings, reporting all problems together; and the templates that ship with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
        Without what could not be read, so that what is wrong besides can be found; None where the rest cannot be checked.

    Raises
    ------
    InputError
        If there is no such file, or its content is not YAML or not a mapping.
    """
    yaml = require("yaml", "tune")
    try:
        given = yaml.load(study_text(study), Loader=_strict(yaml))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        place = f", line {where.line + 1}" if where is not None else ""
        raise InputError(f"{study}{place}: not valid YAML ({getattr(error, 'problem', error)}): correct it") from error
    if not isinstance(given, Mapping):
        raise InputError(f"{study} contains no settings: fastencode-tune run --template prints an example")
    settings = _spelled_out(_changed(given, changes or {}))
    problems, found = problems_of(StudyConfig, settings)
    if found is None:  # what is wrong with arms as a whole hides the rest
        found = problems_of(StudyConfig, {name: one for name, one in settings.items() if name not in ("arms", "contrasts")})[1]
    wrong = [line for line in problems if "there is no such setting" not in line]
    if found is None or any(line.startswith(("data", "models", "probes")) for line in wrong):
        return problems, None  # what others name would seem to be missing
    if any(line.startswith(("arms", "contrasts")) for line in wrong):
        found = replace(found, contrasts=())
    return problems, found


def _strict(yaml: Any) -> Any:
    """A loader that refuses a key that stands twice in a mapping, of which YAML would take the last without a word."""

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    return Strict


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
