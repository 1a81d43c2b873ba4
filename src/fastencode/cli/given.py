"""Files of settings, checked before the parser reads them: it would name neither the file nor what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from fastencode.cli.mistakes import of_option
from fastencode.errors import InputError, require
from fastencode.files import read_text

__all__ = ["check_settings"]


def check_settings(arguments: Sequence[str], settings: type, command: str) -> None:
    """Check what ``--config`` and options of a whole group, such as ``--align``, give: the names, and that groups are mappings.

    Parameters
    ----------
    arguments : sequence of str
        What was typed.
    settings : type
        The command's settings.
    command : str
        What it is called.

    Raises
    ------
    InputError
        If a file cannot be read, is not YAML or no mapping; if it names no setting of the command, or leaves one without a value
        that must have one.
    """
    groups = {f"--{name}": kind for name, kind in _groups(settings).items()}
    for option, value in _options(arguments, ("--config", *groups)):
        with of_option(option):
            found, kind = _mapping(value, option in groups), groups.get(option, settings)
            where = value if os.path.isfile(value) else "what is given"
            _check(found, kind, where, command, "" if kind is settings else f"{option[2:]}.")


def _options(arguments: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option in wanted and (equals or place + 1 < len(arguments)):
            yield option, value if equals else arguments[place + 1]


def _mapping(given: str, is_group: bool) -> Mapping[str, Any]:
    """Settings out of a file, or as they are typed."""
    yaml = require("yaml", "tune")
    typed = given.lstrip().startswith("{")
    if is_group and not typed and not os.path.isfile(given):
        raise InputError(f"{given!r} is no file of settings: give one, or single settings, as --help lists them")
    if not typed and not os.path.exists(given):
        raise InputError(f"{given} does not exist: give a file of settings, such as config.yaml of an earlier run")
    try:
        found = yaml.safe_load(given if typed else read_text(given))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark is not None else ""
        raise InputError(f"{given}{line} is not YAML: correct it, or give config.yaml of an earlier run") from error
    if not isinstance(found, dict):
        raise InputError(f"{given} is no table of settings: give one, such as config.yaml of an earlier run")
    return found


def _check(found: Mapping[str, Any], settings: type, where: str, command: str, before: str = "") -> None:
    known, groups = {field.name: str(field.type) for field in fields(settings)}, _groups(settings)
    for whole, value in found.items():
        name, dot, rest = str(whole).partition(".")
        if name not in known:
            inside = [f"{group}.{name}" for group, kind in groups.items() if name in {field.name for field in fields(kind)}]
            close = inside or get_close_matches(name, known, n=1)
            hint = f": there are {', '.join(known)}" if before else f": give config.yaml of an earlier {command}"
            hint = f"; did you mean {before}{close[0]}?" if close else hint
            raise InputError(f"{where} names {before}{whole}, which is no setting of {command}{hint}")
        if name in groups and dot:
            _check({rest: value}, groups[name], where, command, f"{before}{name}.")
        elif name in groups and isinstance(value, dict):
            _check(value, groups[name], where, command, f"{before}{name}.")
        elif name in groups:
            some = ", ".join(field.name for field in fields(groups[name])[:3])
            raise InputError(f"{where} says {before}{name}: {_shown(value)}: give its settings ({some}, …), or leave it out")
        elif value is None and "None" not in known[name]:
            raise InputError(f"{where} says {before}{name}: null: give a value, or leave it out")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _groups(settings: type) -> dict[str, type]:
    """The settings that have settings of their own."""
    found = {}
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default):
            found[field.name] = type(default)
    return found
